"""What a reader may do with any network of timm, beyond what test_hire_mlp.py already asks."""

from __future__ import annotations

import io
import warnings

import pytest
import timm
import torch
from _helpers import random_images
from timm.models import FeatureDictNet, FeatureHookNet, FeatureListNet
from timm.models._features import FeatureGetterNet
from timm.optim import create_optimizer_v2, param_groups_layer_decay, param_groups_weight_decay
from torch import nn

import hirelab as hl
from hirelab.models import HireMLP
from hirelab.models.pretrained import bundled

ATTO = "hire_mlp_atto"
TWO = {"depths": (1, 2), "dims": (8, 12), "region": 3, "shift": 2, "shift_cycle": 2}
ONE = {"depths": (2,), "dims": (8,), "region": 3, "shift": 2, "shift_cycle": 2}
CHOICES = [
    {},
    {"padding": "zero", "cross_region": "shuffle", "restore": False},
    {"padding": "reflect", "branches": ("width", "channel"), "fc_layers": 3},
    {"padding": "replicate", "fusion": "sum", "global_pool": "", "cross_region": "none"},
]


def small(**kwargs) -> HireMLP:
    """Two stages: quick to compile."""
    return hl.create(ATTO, seed=0, **{"num_classes": 5, **TWO, **kwargs})


def atto(**kwargs) -> HireMLP:
    return hl.create(ATTO, seed=0, **{"num_classes": 7, **kwargs})


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


# ------------------------------------------------------------------ compilers


@pytest.mark.parametrize("choice", CHOICES[1:3], ids=str)
def test_compiles_without_a_break(choice):
    model, x = small(**choice), random_images(2, 3, 40, 56)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), model(x))


def test_no_break_is_counted_and_other_sizes_follow():
    model = small(**ONE)
    report = torch._dynamo.explain(model)(random_images(2, 3, 40, 56))
    assert (report.graph_count, report.graph_break_count) == (1, 0), report.break_reasons
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for size in ((40, 56), (64, 40)):
        x = random_images(2, 3, *size)
        torch.testing.assert_close(compiled(x), model(x))


def test_trains_compiled():
    plain, model = small(**ONE).train(), small(**ONE).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = random_images(3, 3, 40, 56)
    for network in (plain, compiled):
        network(x).square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)
    for (name, a), b in zip(plain.named_buffers(), model.named_buffers(), strict=True):
        torch.testing.assert_close(a, b[1], msg=name)


def test_compiled_with_features_and_checkpointing():
    """timm's training script compiles what it trains, whatever it is."""
    features = timm.create_model(ATTO, features_only=True, out_indices=(0,), **ONE).eval()
    x = random_images(2, 3, 40, 56)
    compiled = torch.compile(features, fullgraph=True, backend="eager")
    for got, want in zip(compiled(x), features(x), strict=True):
        torch.testing.assert_close(got, want)
    model = small(**ONE)
    expected = model(x)
    model.set_grad_checkpointing()
    torch.testing.assert_close(torch.compile(model, backend="eager")(x), expected)


def test_settings_changed_after_compiling_are_obeyed():
    model, x = small(**ONE), random_images(2, 3, 40, 56)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    before = compiled(x)
    model.set_rearrangement(shift=1, padding="reflect", restore=False)
    after = compiled(x)
    torch.testing.assert_close(after, model(x))
    assert not torch.allclose(before, after)


@pytest.mark.parametrize("choice", CHOICES[1:3], ids=str)
def test_export_round_trip(choice, tmp_path):
    model, x = small(**choice), random_images(2, 3, 40, 56)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (x,), dynamic_shapes={"x": {0: batch}})
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    again = torch.export.load(buffer)
    assert set(again.state_dict) == set(model.state_dict())
    for count in (1, 5):
        x = random_images(count, 3, 40, 56)
        torch.testing.assert_close(again.module()(x), model(x))


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_a_traced_graph_can_be_scripted(choice):
    """timm traces with torch.fx and scripts the graph: the annotations must survive that."""
    model = small(**choice)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript says that it is old
        scripted = torch.jit.script(torch.fx.symbolic_trace(model))
    for size in ((40, 56), (19, 27)):
        x = random_images(2, 3, *size)
        torch.testing.assert_close(scripted(x), model(x))


# ------------------------------------------------------------------ precision and memory


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_forward_and_backward(dtype):
    plain, model = atto().train(), atto().train()
    x = random_images(4, 3, 64, 64)
    with torch.autocast("cpu", dtype):
        out = model(x)
        features = model.forward_features(x)
    assert out.dtype == features.dtype == dtype
    expected = plain(x)
    assert (out.float() - expected).abs().max() < 0.05 * expected.abs().max() + 0.02
    target = torch.tensor([0, 1, 2, 3])
    nn.functional.cross_entropy(out.float(), target).backward()
    nn.functional.cross_entropy(expected, target).backward()
    for name, got in model.named_parameters():
        assert got.grad.dtype == torch.float32, name
        assert torch.isfinite(got.grad).all(), name
    both = [
        torch.cat([p.grad.flatten() for p in network.parameters()]) for network in (model, plain)
    ]
    assert nn.functional.cosine_similarity(*both, dim=0) > 0.95


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("choice", CHOICES[:2], ids=str)
def test_half_precision_networks(dtype, choice):
    x = random_images(2, 3, 64, 64)
    expected = atto(**choice)(x)
    got = atto(**choice).to(dtype)(x.to(dtype))
    assert got.dtype == dtype
    assert (got.float() - expected).abs().max() < 0.05 * expected.abs().max() + 0.01


@pytest.mark.parametrize("choice", CHOICES[:2], ids=str)
def test_channels_last_in_and_out(choice):
    """Also gradients, and also where only the image or only the network is laid out so."""
    last = {"memory_format": torch.channels_last}
    x = random_images(2, 3, 50, 70)
    expected = []
    for network_last in (False, True):
        for image_last in (False, True):
            model = small(**choice).train()
            model = model.to(**last) if network_last else model
            out = model(x.contiguous(**last) if image_last else x)
            out.square().sum().backward()
            grads = [p.grad.contiguous() for p in model.parameters()]
            expected = expected or [out, *grads]
            torch.testing.assert_close([out, *grads], expected, rtol=1e-3, atol=1e-5)


def test_meta_device_and_back():
    """Built without memory, given memory, given weights: the network that was saved."""
    source, x = atto(), random_images(2, 3, 64, 64)
    with torch.device("meta"):
        model = timm.create_model(ATTO, num_classes=7)
    assert {t.device.type for t in model.state_dict().values()} == {"meta"}
    intermediates = model.forward_intermediates(torch.empty(2, 3, 64, 64, device="meta"))[1]
    assert [tuple(m.shape) for m in intermediates] == [
        (2, 16, 16, 16),
        (2, 24, 8, 8),
        (2, 48, 4, 4),
        (2, 96, 2, 2),
    ]
    model.to_empty(device="cpu").load_state_dict(source.state_dict(), strict=True)
    assert torch.equal(model.eval()(x), source(x))
    assigned = timm.create_model(ATTO, num_classes=7, device="meta").eval()
    assigned.load_state_dict(source.state_dict(), assign=True)
    assert torch.equal(assigned(x), source(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_device_and_type_go_to_every_tensor(dtype):
    model = timm.create_model(ATTO, features_only=True, device="meta", dtype=dtype)
    tensors = [t for t in model.state_dict().values() if t.is_floating_point()]
    assert {(t.device.type, t.dtype) for t in tensors} == {("meta", dtype)}


# ------------------------------------------------------------------ features


@pytest.mark.parametrize(
    ("feature_cls", "kind"),
    [
        ("list", FeatureListNet),
        ("dict", FeatureDictNet),
        ("hook", FeatureHookNet),
        ("getter", FeatureGetterNet),
        (None, FeatureListNet),
    ],
)
def test_every_class_of_features(feature_cls, kind):
    source, x = atto(num_classes=0), random_images(2, 3, 70, 90)
    expected = source.forward_intermediates(x, [0, 2, 3], intermediates_only=True)
    kwargs = {"feature_cls": feature_cls} if feature_cls else {}
    net = timm.create_model(ATTO, features_only=True, out_indices=(0, 2, 3), **kwargs).eval()
    names = {k: k.replace("stages_", "stages.").removeprefix("model.") for k in net.state_dict()}
    net.load_state_dict({k: source.state_dict()[ours] for k, ours in names.items()}, strict=True)
    assert len(names) > 300
    assert isinstance(net, kind)
    assert net.feature_info.channels() == [16, 48, 96]
    assert net.feature_info.reduction() == [4, 16, 32]
    got = net(x)
    got = list(got.values()) if isinstance(got, dict) else got
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


def test_features_without_being_asked_for_stages():
    net = timm.create_model(ATTO, features_only=True, in_chans=1).eval()
    assert [tuple(f.shape[1:]) for f in net(random_images(1, 1, 64, 96))] == [
        (16, 16, 24),
        (24, 8, 12),
        (48, 4, 6),
        (96, 2, 3),
    ]
    with pytest.raises((AssertionError, IndexError)):
        timm.create_model(ATTO, features_only=True, out_indices=(4,))


def test_features_train_with_checkpointing():
    """Equal gradients, every parameter up to the last wanted stage."""
    nets = []
    for saving in (False, True):
        torch.manual_seed(0)
        net = timm.create_model(ATTO, features_only=True, out_indices=(1, 2))
        net.set_grad_checkpointing(saving)
        nets.append(net.train())
    x = random_images(2, 3, 64, 64)
    for net in nets:
        sum(f.square().mean() for f in net(x)).backward()
    for (name, a), b in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        assert a.grad is not None, name
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_intermediates_of_no_stage_in_particular():
    model, x = atto(), random_images(1, 3, 64, 64)
    everything = model.forward_intermediates(x, intermediates_only=True)
    for indices, expected in [(2, [2, 3]), ([-1], [3]), ([0, -2], [0, 2]), (4, [0, 1, 2, 3])]:
        got = model.forward_intermediates(x, indices, intermediates_only=True)
        assert all(torch.equal(a, everything[i]) for a, i in zip(got, expected, strict=True))
    pooled = model.forward_head(model.forward_intermediates(x)[0])
    assert torch.equal(pooled, model(x))


# ------------------------------------------------------------------ training


def test_layer_decay_through_timm():
    """Every parameter once; the scale falls with depth from the head to the stem."""
    model = atto()
    skip = getattr(model, "no_weight_decay", lambda: set())()
    assert set(skip) <= {name for name, _ in model.named_parameters()}
    groups = param_groups_layer_decay(model, 0.05, layer_decay=0.7)
    ours = {id(p): name for name, p in model.named_parameters()}
    scale, decay, seen = {}, {}, []
    for group in groups:
        for parameter in group["params"]:
            name = ours[id(parameter)]
            seen.append(name)
            scale[name], decay[name] = group["lr_scale"], group["weight_decay"]
    assert sorted(seen) == sorted(ours.values())
    blocks = [
        {s for name, s in scale.items() if name.startswith(f"stages.{i}.blocks.{j}.")}
        for i, stage in enumerate(model.stages)
        for j in range(len(stage.blocks))
    ]
    assert all(len(b) == 1 for b in blocks)
    ladder = [scale["stem.conv.weight"], *(b.pop() for b in blocks), scale["head.weight"]]
    assert ladder == sorted(set(ladder))  # rises strictly
    assert ladder[-1] == 1.0
    assert ladder[1] / ladder[2] == pytest.approx(0.7)
    assert scale["norm.weight"] >= ladder[-2]
    for name, parameter in model.named_parameters():
        one_axis = parameter.ndim <= 1
        assert decay[name] == (0.0 if one_axis else 0.05), name


def test_weight_decay_and_optimiser_through_timm():
    model = atto().train()
    none, some = param_groups_weight_decay(model, 0.05)
    assert (none["weight_decay"], some["weight_decay"]) == (0.0, 0.05)
    assert all(p.ndim == 1 for p in none["params"])
    assert len(none["params"]) + len(some["params"]) == len(list(model.parameters()))
    optimiser = create_optimizer_v2(model, "adamw", lr=3e-3, weight_decay=0.05, layer_decay=0.8)
    x, target = random_images(8, 3, 64, 64), torch.arange(8) % 7
    losses = []
    for _ in range(8):
        loss = nn.functional.cross_entropy(model(x), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_averaged_weights_of_timm():
    model = atto()
    average = timm.utils.ModelEmaV3(model, decay=0.5)
    with torch.no_grad():
        model.head.weight.add_(1.0)
    average.update(model)
    moved = average.module.head.weight - model.head.weight
    torch.testing.assert_close(moved, torch.full_like(moved, -0.5))
    assert average.module(random_images(1, 3, 64, 64)).shape == (1, 7)


def test_settings_of_the_data_are_found():
    config = timm.data.resolve_model_data_config(hl.create("hire_mlp_tiny", device="meta"))
    assert config["input_size"] == (3, 224, 224)
    assert (config["crop_pct"], config["interpolation"]) == (0.9, "bicubic")
    assert config["mean"] == (0.485, 0.456, 0.406)
    assert config["std"] == (0.229, 0.224, 0.225)


def test_listed_under_its_names():
    assert set(timm.list_models("hire_mlp_*")) == set(hl.model_names())
    assert set(timm.list_models(module="hire_mlp")) == set(hl.model_names())
    published = {f"hire_mlp_{size}" for size in ("tiny", "small", "base")} | {
        name for name in bundled() if name.startswith("hire_mlp_")
    }
    assert set(timm.list_pretrained("hire_mlp_*")) == published
