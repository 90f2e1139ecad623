"""Weights in and out: every name translated and back, equal numbers, and files that are no weights.

The restated formulation in benchmarks/ is the other side of the bridge: it carries the authors'
names, so that a strict load and equal outputs say more than names that look right.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import io
import pickle
import random
import re
import sys
import urllib.request
from urllib.error import HTTPError, URLError

import pytest
import timm
import torch
from _helpers import random_images
from safetensors.torch import save_file
from torch import nn

import hirelab as hl
from hirelab._shared.files import project_folder
from hirelab.models import HireMLP
from hirelab.models.checkpoints import (
    architecture,
    checkpoint_filter_fn,
    from_authors,
    load_into,
    read,
    to_authors,
    unwrap,
)
from hirelab.models.hire_mlp import default_cfgs

ATTO = "hire_mlp_atto"


def _authors():
    path = project_folder("benchmarks") / "_authors.py"
    spec = importlib.util.spec_from_file_location("authors_formulation", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.AuthorsHireMLP


AuthorsHireMLP = _authors()


def fill(model: nn.Module, seed: int = 3) -> nn.Module:
    """Every number different from what a constructor gives, statistics and signs included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if not value.is_floating_point():
                value.fill_(7)
                continue
            noise = torch.rand(value.shape, generator=generator, dtype=torch.float64)
            if name.endswith("running_var"):
                value.copy_(0.5 + noise)
            elif value.dim() > 1:
                value.copy_((noise - 0.5) * 2 / value[0].numel() ** 0.5)
            else:
                value.copy_(noise * 2 - 0.8)
    return model


def atto(**kwargs) -> HireMLP:
    return fill(hl.create(ATTO, **{"depths": (1, 2, 2, 1), "num_classes": 7, **kwargs}))


network = functools.cache(atto)  # for tests that only read it


def one_sentence(message: object) -> None:
    """One paragraph of one or two clauses, without a dump of keys."""
    text = str(message)
    assert "\n" not in text
    assert 20 < len(text) < 450
    assert text.endswith(".")


# ------------------------------------------------------------------ names

STATISTICS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
BLOCK_OF_THE_AUTHORS = [
    *(f"norm1.{k}" for k in STATISTICS),
    "attn.mlp_h1.weight",
    *(f"attn.mlp_h1_norm.{k}" for k in STATISTICS),
    *("attn.mlp_h2.weight", "attn.mlp_h2.bias"),
    "attn.mlp_w1.weight",
    *(f"attn.mlp_w1_norm.{k}" for k in STATISTICS),
    *("attn.mlp_w2.weight", "attn.mlp_w2.bias"),
    *("attn.mlp_c.weight", "attn.mlp_c.bias"),
    *("attn.reweight.fc1.weight", "attn.reweight.fc1.bias"),
    *("attn.reweight.fc2.weight", "attn.reweight.fc2.bias"),
    *("attn.proj.weight", "attn.proj.bias"),
    *(f"norm2.{k}" for k in STATISTICS),
    *("mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias"),
]
CONV_OF_THE_AUTHORS = ["proj.weight", "proj.bias", *(f"norm.{k}" for k in STATISTICS)]


@pytest.mark.parametrize("name", ["hire_mlp_tiny", "hire_mlp_large"])
def test_names_are_the_authors_and_come_back(name):
    """Every one: written out for a block, the stem and the downsampling, and counted."""
    ours = hl.create(name, device="meta").state_dict()
    theirs = to_authors(ours)
    depths = {"hire_mlp_tiny": (2, 2, 4, 2), "hire_mlp_large": (4, 6, 24, 3)}[name]
    expected = {f"patch_embed.{k}" for k in CONV_OF_THE_AUTHORS}
    expected |= {f"network.{i}.{k}" for i in (1, 3, 5) for k in CONV_OF_THE_AUTHORS}
    for stage, depth in zip((0, 2, 4, 6), depths, strict=True):
        expected |= {f"network.{stage}.{j}.{k}" for j in range(depth) for k in BLOCK_OF_THE_AUTHORS}
    expected |= {k for k in CONV_OF_THE_AUTHORS if k.startswith("norm.")}
    expected |= {"head.weight", "head.bias"}
    assert set(theirs) == expected
    assert len(theirs) == len(ours)
    back = from_authors(theirs)
    assert list(back) == list(ours)  # also in the same order
    assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in ours.items()}
    # the authors' own shapes: convolutions throughout, but for the head
    assert all(v.dim() == 4 for k, v in theirs.items() if re.search(r"(mlp_|fc\d|proj).*", k)
               and k.endswith("weight") and "_norm" not in k)  # fmt: skip
    assert theirs["head.weight"].dim() == 2


def test_both_ways_are_inverse_and_copy_nothing():
    ours = atto(stage_norms=True).state_dict()
    theirs = to_authors(ours)
    assert {f"norm{i}.weight" for i in (0, 2, 4, 6)} <= set(theirs)
    back = from_authors(theirs)
    assert list(back) == list(ours)
    for key, theirs_key in zip(ours, theirs, strict=True):
        assert back[key].data_ptr() == theirs[theirs_key].data_ptr() == ours[key].data_ptr()
        assert torch.equal(back[key], ours[key])
    again = to_authors(back)
    assert list(again) == list(theirs)
    assert all(torch.equal(again[k], theirs[k]) for k in theirs)


def test_names_of_nobody_stay_for_the_strict_load_to_name():
    strange = {
        "network.7.proj.weight": torch.ones(1),
        "network.0.0.attn.mlp_x.weight": torch.ones(1),
    }
    assert from_authors(strange) == strange
    assert to_authors(strange) == strange


# ------------------------------------------------------------------ one function

SIZES = [(64, 64), (97, 150), (224, 96)]  # above what the authors' circular padding needs


def pair() -> tuple[HireMLP, nn.Module]:
    """Tiny's depths at small widths, in float64, with the same weights by a strict load."""
    depths, dims = (2, 2, 4, 2), (8, 12, 20, 16)
    ours = fill(HireMLP(depths=depths, dims=dims, num_classes=5, dtype=torch.float64))
    theirs = AuthorsHireMLP(depths, dims, 5).double()
    theirs.load_state_dict(to_authors(ours.state_dict()), strict=True)
    return ours, theirs


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_the_authors_formulation_gives_our_numbers(size, training):
    ours, theirs = pair()
    x = random_images(2, 3, *size, dtype=torch.float64)
    expected = theirs.train(training)(x)
    torch.testing.assert_close(ours.train(training)(x), expected, rtol=1e-10, atol=1e-10)
    assert expected.std() > 1e-3  # and these say something
    if training:  # the statistics moved alike, padded rows counted
        ours_now, theirs_now = to_authors(ours.state_dict()), theirs.state_dict()
        for key in theirs_now:
            torch.testing.assert_close(ours_now[key], theirs_now[key], rtol=1e-10, atol=1e-10)


def test_the_authors_weights_give_their_numbers():
    depths, dims = (1, 2, 3, 1), (8, 12, 20, 16)
    theirs = fill(AuthorsHireMLP(depths, dims, 5).double(), seed=8).eval()
    ours = HireMLP(depths=depths, dims=dims, num_classes=5, dtype=torch.float64).eval()
    ours.load_state_dict(from_authors(theirs.state_dict()), strict=True)
    for size in SIZES:
        x = random_images(2, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-10)
    x = random_images(1, 3, 64, 96, dtype=torch.float64).requires_grad_()
    (want,) = torch.autograd.grad(theirs(x).square().sum(), x)
    (got,) = torch.autograd.grad(ours(x).square().sum(), x)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)


# ------------------------------------------------------------------ checkpoints as they are found


def prefixed(prefix: str, state: dict) -> dict:
    return {prefix + k: v for k, v in state.items()}


WRAPPED = {
    "bare": lambda s: s,
    "model": lambda s: {"model": s, "epoch": 3, "optimizer": {"lr": 0.1}},
    "state_dict": lambda s: {"arch": "hire", "state_dict": s, "args": argparse.Namespace(lr=0.1)},
    "nested": lambda s: {"state_dict": {"model": s}},
    "nested the other way": lambda s: {"model": {"state_dict": s}},
    "module.": lambda s: prefixed("module.", s),
    "compiled": lambda s: {"model": prefixed("_orig_mod.", s)},
    "compiled, then parallel": lambda s: {"model": prefixed("module._orig_mod.", s)},
    "parallel, then compiled": lambda s: {"model": prefixed("_orig_mod.module.", s)},
    "backbone": lambda s: {
        "meta": {"epoch": 1},
        "state_dict": {
            **prefixed("backbone.", s),
            "decode_head.conv_seg.weight": torch.ones(2, 2, 1, 1),
            "auxiliary_head.conv_seg.weight": torch.ones(2, 2, 1, 1),
            "ema_backbone_norm_weight": torch.ones(2),
        },
    },
    "backbone, parallel": lambda s: {
        "state_dict": prefixed(
            "module.", {**prefixed("backbone.", s), "decode_head.w": torch.ones(1)}
        )
    },
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_a_checkpoint_in_every_form(wrap, tmp_path):
    model = network()
    state = model.state_dict()
    for form in (to_authors, dict):
        found = checkpoint_filter_fn(wrap(form(state)), model)
        assert list(found) == list(state)
        assert all(torch.equal(found[k], state[k]) for k in state)
    torch.save(wrap(to_authors(state)), tmp_path / "a.pth")
    x = random_images(1, 3, 40, 70)
    assert torch.equal(hl.load(tmp_path / "a.pth")(x), model(x))


@pytest.mark.parametrize("name", ["model_ema", "state_dict_ema"])
def test_averaged_weights_come_first_as_in_timm(name, tmp_path):
    raw, averaged = network().state_dict(), fill(atto(), seed=9).state_dict()
    plain = {"model_ema": "model", "state_dict_ema": "state_dict"}[name]
    for both in (
        {plain: to_authors(raw), name: to_authors(averaged)},
        {plain: to_authors(raw), name: prefixed("module.", to_authors(averaged))},
        {name: to_authors(averaged)},
    ):
        assert torch.equal(checkpoint_filter_fn(both)["head.weight"], averaged["head.weight"])
        torch.save(both, tmp_path / "a.pth")
        by_timm = timm.models.load_state_dict(str(tmp_path / "a.pth"))
        ours = checkpoint_filter_fn(by_timm)
        assert torch.equal(ours["norm.weight"], averaged["norm.weight"])
        assert torch.equal(hl.load(tmp_path / "a.pth").head.weight, averaged["head.weight"])
    empty = {plain: to_authors(raw), name: None}  # a run without averaging says so
    assert torch.equal(checkpoint_filter_fn(empty)["head.weight"], raw["head.weight"])


def test_our_own_keys_pass_through():
    state = network().state_dict()
    found = checkpoint_filter_fn(state)
    assert all(found[k] is state[k] for k in state)


# ------------------------------------------------------------------ segmentation backbones


@pytest.mark.parametrize("wrap", [WRAPPED["bare"], WRAPPED["backbone"]], ids=["bare", "whole"])
def test_segmentation_backbone(wrap, tmp_path):
    source = network(stage_norms=True, num_classes=0)
    state = to_authors(source.state_dict())
    state = {k: v for k, v in state.items() if not re.match(r"norm\.", k)}  # as published
    assert {k for k in state if k.startswith("norm")} == {
        f"norm{i}.{k}"
        for i in (0, 2, 4, 6)
        for k in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    torch.save(wrap(state), tmp_path / "seg.pth")
    model = hl.load(tmp_path / "seg.pth")
    assert model.num_classes == 0
    assert len({n.weight.sum().item() for n in model.stage_norms}) == 4
    for i, norm in enumerate(model.stage_norms):
        for leaf, value in norm.state_dict().items():
            assert torch.equal(value, state[f"norm{2 * i}.{leaf}"]), (i, leaf)
    for leaf, value in model.norm.state_dict().items():
        assert torch.equal(value, state[f"norm6.{leaf}"])

    x = random_images(2, 3, 70, 100)
    raw = model.forward_intermediates(x, intermediates_only=True)
    normed = model.forward_intermediates(x, norm=True, intermediates_only=True)
    for i, (before, after) in enumerate(zip(raw, normed, strict=True)):
        p = {
            k: state[f"norm{2 * i}.{k}"] for k in ("weight", "bias", "running_mean", "running_var")
        }
        by_hand = (before - p["running_mean"][:, None, None]) / (
            p["running_var"][:, None, None] + 1e-5
        ).sqrt() * p["weight"][:, None, None] + p["bias"][:, None, None]
        torch.testing.assert_close(after, by_hand, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(before, after, atol=1e-2)
    torch.testing.assert_close(model.forward_features(x), normed[-1])


def test_synchronised_norms_are_norms(tmp_path):
    source = nn.SyncBatchNorm.convert_sync_batchnorm(atto(stage_norms=True))
    torch.save(to_authors(source.state_dict()), tmp_path / "seg.pth")
    x = random_images(1, 3, 64, 64)
    assert torch.equal(hl.load(tmp_path / "seg.pth")(x), atto(stage_norms=True)(x))


# ------------------------------------------------------------------ load reads the shapes

TWO = {"depths": (1, 2), "dims": (8, 12), "region": (5, 2), "shift": 1, "shift_cycle": 2}
BUILT = [
    {},
    {"depths": (1, 3, 1, 2), "dims": (4, 12, 8, 20)},
    {"region": (2, 5, 1, 7)},
    {"branches": ("height",)},
    {"branches": ("width", "channel")},
    {"branches": ("channel",)},
    {"branches": ("channel",), "fusion": "sum"},
    {"branches": ("height", "width"), "fusion": "sum", "fc_layers": 3},
    {"fc_layers": 1},
    {"fc_layers": 4, "mlp_ratio": 2},
    {"fc_layers": 12},
    {"fusion": "sum", "mlp_ratio": 1.7},
    {"mlp_ratio": 8 / 3, "dims": (6, 11, 49, 98)},
    {"mlp_ratio": 3.3, "dims": (7, 49, 103, 107)},
    {"in_chans": 1, "num_classes": 0},
    {"in_chans": 5, "num_classes": 2, "stage_norms": True},
    {"global_pool": ""},
    {"global_pool": "catavgmax"},
    {"global_pool": "", "num_classes": 0},
    TWO,
    {**TWO, "branches": ("channel",)},
    {**TWO, "dims": (8, 16), "depths": (1, 1), "stage_norms": True, "fusion": "sum"},
]
TRACELESS = ("shift", "shift_cycle", "padding", "cross_region", "restore")


@pytest.mark.parametrize("choice", BUILT, ids=str)
def test_load_builds_what_was_saved(choice, tmp_path):
    model = atto(**choice)
    as_safetensors = BUILT.index(choice) % 2 == 0
    path = tmp_path / f"weights.{'safetensors' if as_safetensors else 'pth'}"
    (save_file if as_safetensors else torch.save)(model.state_dict(), path)
    kwargs = {k: v for k, v in choice.items() if k in TRACELESS}
    if choice.get("global_pool") == "" and choice.get("num_classes") == 0:
        kwargs["global_pool"] = ""  # no head, no trace
    loaded = hl.load(path, **kwargs)
    assert not any(m.training for m in loaded.modules())
    assert list(loaded.state_dict()) == list(model.state_dict())
    x = random_images(2, model.in_chans, 50, 90)
    assert torch.equal(loaded(x), model(x))
    assert (loaded.num_classes, loaded.in_chans) == (model.num_classes, model.in_chans)
    assert repr(loaded) == repr(model)
    if choice.get("fusion") != "sum":  # the authors' names, too, as far as they go
        torch.save(to_authors(model.state_dict()), path.with_suffix(".pt"))
        assert torch.equal(hl.load(path.with_suffix(".pt"), **kwargs)(x), model(x))


def test_every_ratio_is_found():
    """A width is the ratio's product, cut to a whole number; a ratio that fits one stage alone is
    not enough."""
    rng = random.Random(0)
    for _ in range(15):
        dims = tuple(rng.randint(4, 60) for _ in range(3))
        ratio = rng.choice([rng.uniform(0.3, 5), rng.randint(1, 100) / dims[rng.randrange(3)]])
        if min(int(d * ratio) for d in dims) < 1:
            continue
        kwargs = {"depths": (1, 1, 1), "dims": dims, "region": 2, "shift": 1, "shift_cycle": 2}
        state = HireMLP(**kwargs, mlp_ratio=ratio).state_dict()
        again = HireMLP(**kwargs, mlp_ratio=architecture(state)["mlp_ratio"])
        shapes = {k: v.shape for k, v in again.state_dict().items()}
        assert shapes == {k: v.shape for k, v in state.items()}, (dims, ratio)


def test_load_of_every_published_size():
    """Without data: what the shapes of the four networks say."""
    for name, depths, dims in [
        ("hire_mlp_tiny", (2, 2, 4, 2), (64, 128, 320, 512)),
        ("hire_mlp_small", (3, 4, 10, 3), (64, 128, 320, 512)),
        ("hire_mlp_base", (4, 6, 24, 3), (64, 128, 320, 512)),
        ("hire_mlp_large", (4, 6, 24, 3), (96, 192, 384, 768)),
    ]:
        found = architecture(hl.create(name, device="meta").state_dict())
        assert (found["depths"], found["dims"]) == (depths, dims)
        assert (found["region"], found["mlp_ratio"]) == ((4, 3, 3, 2), 4.0)
        assert (found["num_classes"], found["in_chans"], found["fc_layers"]) == (1000, 3, 2)


def test_what_leaves_no_trace_is_passed_on(tmp_path):
    path, x = tmp_path / "a.safetensors", random_images(1, 3, 60, 90)
    options = {"shift": 3, "padding": "reflect", "cross_region": "shuffle", "restore": False}
    model = atto(**options)
    save_file(model.state_dict(), path)
    assert torch.equal(hl.load(path, **options)(x), model(x))
    assert not torch.equal(hl.load(path)(x), model(x))
    assert torch.equal(hl.load(str(path))(x), network()(x))
    dropping = hl.load(path, drop_path_rate=0.3, drop_rate=0.2)
    assert dropping.head_drop.p == 0.2
    assert dropping.stages[3].blocks[0].drop_path1.drop_prob == pytest.approx(0.3)
    assert hl.load(path, dtype=torch.float64).head.weight.dtype == torch.float64
    assert hl.load(path, global_pool="max").global_pool.pool_type == "max"
    with pytest.raises(TypeError, match="regions"):
        hl.load(path, regions=3)
    with pytest.raises(ValueError, match=r"region is 0"):
        hl.load(path, region=0)


def test_other_numbers_of_stages_need_their_shift(tmp_path):
    save_file(atto(**TWO).state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"shift.*give one number, or 2"):
        hl.load(tmp_path / "a.safetensors")


# ------------------------------------------------------------------ through timm


@pytest.fixture
def authors_file(tmp_path):
    """An atto of 1000 classes in the authors' form."""
    model = fill(hl.create(ATTO))
    torch.save({"model": to_authors(model.state_dict())}, tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth", model


def test_timm_loads_the_authors_form(authors_file):
    path, source = authors_file
    x = random_images(2, 3, 64, 64)

    def build(**kwargs) -> nn.Module:
        overlay = {"file": str(path)}
        return timm.create_model(
            ATTO, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs
        ).eval()

    assert torch.equal(build()(x), source(x))
    other = build(num_classes=6)
    assert other(x).shape == (2, 6)
    assert torch.equal(other.forward_features(x), source.forward_features(x))
    features = build(num_classes=0)(x)
    assert torch.equal(features, source.forward_head(source.forward_features(x), pre_logits=True))
    grey = build(in_chans=1)
    assert torch.equal(grey.stem.conv.weight, source.stem.conv.weight.sum(1, keepdim=True))
    assert torch.equal(
        grey.stages[3].blocks[1].mlp.fc2.weight, source.stages[3].blocks[1].mlp.fc2.weight
    )
    assert build(in_chans=5, num_classes=3)(random_images(1, 5, 64, 64)).shape == (1, 3)
    maps = build(features_only=True, out_indices=(1, 3))(x)
    expected = source.forward_intermediates(x, [1, 3], intermediates_only=True)
    assert all(torch.equal(a, b) for a, b in zip(maps, expected, strict=True))


RELEASE = "https://github.com/ggjy/Hire-Wave-MLP.pytorch/releases/download/log/"


def test_the_release_addresses():
    for size in ("tiny", "small", "base"):
        cfg = timm.get_pretrained_cfg(f"hire_mlp_{size}")
        assert cfg.url == f"{RELEASE}hire_mlp_{size}.pth"
        assert (cfg.crop_pct, cfg.interpolation) == (0.9, "bicubic")
        assert cfg.mean == (0.485, 0.456, 0.406)
        assert cfg.std == (0.229, 0.224, 0.225)
    for size in ("large", "atto"):
        assert not timm.get_pretrained_cfg(f"hire_mlp_{size}").has_weights


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """A cache of its own, and a way out that fails as asked."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)

    def fail(error: BaseException) -> None:
        def urlopen(*args, **kwargs):
            raise error

        monkeypatch.setattr(urllib.request, "urlopen", urlopen)
        monkeypatch.setattr(torch.hub, "urlopen", urlopen)

    fail(URLError("no route to host"))
    return tmp_path / "hub" / "checkpoints", fail


@pytest.mark.parametrize(
    "error",
    [
        URLError("[Errno -2] Name or service not known"),
        HTTPError("https://x.org", 404, "Not Found", {}, io.BytesIO()),
        TimeoutError("timed out"),
        ConnectionResetError("reset by peer"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_without_network_one_sentence(no_network, error):
    folder, fail = no_network
    fail(error)
    for size in ("tiny", "small", "base") if isinstance(error, TimeoutError) else ("tiny",):
        name = f"hire_mlp_{size}"
        with pytest.raises(RuntimeError) as caught:
            timm.create_model(name, pretrained=True, dims=(4, 4, 4, 4), depths=(1, 1, 1, 1))
        one_sentence(caught.value)
        for part in (f"{name}.pth", f"{RELEASE}{name}.pth", str(folder), "hirelab.load"):
            assert part in str(caught.value)
    assert [p for p in folder.rglob("*") if p.is_file()] == []  # nothing half-written


class _BreaksOff(io.BytesIO):
    """A response that ends in the middle by an error."""

    headers = {"Content-Length": "1000000"}  # noqa: RUF012

    def info(self):
        class Meta:
            def getheaders(self, name):
                return ["1000000"]

        return Meta()

    def read(self, *args):
        data = super().read(8)
        if not data:
            raise ConnectionResetError("reset by peer")
        return data


def test_a_download_that_breaks_off_leaves_nothing(no_network, monkeypatch):
    folder, _ = no_network
    monkeypatch.setattr(torch.hub, "urlopen", lambda *a, **k: _BreaksOff(b"PK\x03\x04 and no more"))
    with pytest.raises(RuntimeError, match=r"hire_mlp_tiny\.pth could not be downloaded"):
        timm.create_model("hire_mlp_tiny", pretrained=True)
    assert [p for p in folder.rglob("*") if p.is_file()] == []


def test_the_file_in_the_named_place_is_found(no_network, authors_file):
    folder, _ = no_network
    path, source = authors_file
    overlay = {"url": "https://example.org/made_up.pth"}
    with pytest.raises(RuntimeError, match=r"^made_up\.pth .*https://example\.org/made_up\.pth"):
        hl.create(ATTO, pretrained=True, pretrained_cfg_overlay=overlay)
    elsewhere = folder.parent / "elsewhere"
    with pytest.raises(RuntimeError, match=re.escape(f"into {elsewhere}, or")):
        hl.create(ATTO, pretrained=True, pretrained_cfg_overlay=overlay, cache_dir=elsewhere)
    for place, kwargs in ((folder, {}), (elsewhere, {"cache_dir": elsewhere})):
        place.mkdir(parents=True, exist_ok=True)
        (place / "made_up.pth").write_bytes(path.read_bytes())
        model = hl.create(ATTO, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs)
        x = random_images(1, 3, 64, 64)
        assert torch.equal(model(x), source(x))


def test_networks_without_released_weights_say_so():
    for name in ("hire_mlp_large", ATTO):
        assert not default_cfgs[name].default.url
        with pytest.raises(RuntimeError, match=r"[Nn]o pretrained weights"):
            timm.create_model(name, pretrained=True, dims=(4, 4, 4, 4), depths=(1, 1, 1, 1))


# ------------------------------------------------------------------ files that are no weights


@pytest.fixture(scope="module")
def good() -> dict[str, bytes]:
    """One network as a file in each format."""
    from safetensors.torch import save

    state = atto(dims=(4, 4, 4, 4), depths=(1, 1, 1, 1), num_classes=2).state_dict()
    files = {"safetensors": save(state)}
    for legacy in (False, True):
        buffer = io.BytesIO()
        torch.save(state, buffer, _use_new_zipfile_serialization=not legacy)
        files["pth" if not legacy else "legacy.pth"] = buffer.getvalue()
    return files


def refused(path, match: str | None = None) -> str:
    with pytest.raises(ValueError, match=match) as caught:
        hl.load(path)
    one_sentence(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["safetensors", "pth", "legacy.pth"])
def test_a_truncated_file(kind, good, tmp_path):
    path = tmp_path / f"cut.{kind}"
    whole = good[kind]
    path.write_bytes(whole)
    hl.load(path)
    for part in (0, 1, 2, 7, 8, 9, 64, 100, 500, len(whole) // 2, len(whole) - 300, len(whole) - 1):
        path.write_bytes(whole[:part])
        assert str(path) in refused(path), part


@pytest.mark.parametrize("kind", ["safetensors", "pth", "legacy.pth"])
def test_a_damaged_file_is_refused_or_read_never_a_crash(kind, good, tmp_path):
    """Whatever byte is wrong: a sentence, or (in the numbers themselves) other numbers."""
    path, rng = tmp_path / f"bad.{kind}", random.Random(4)
    for _ in range(80):
        data = bytearray(good[kind])
        head = rng.random() < 0.7  # the structure is mostly at the front
        for _ in range(rng.choice([1, 1, 4, 30])):
            data[rng.randrange(min(4000, len(data)) if head else len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            hl.load(path)
        except ValueError as error:
            assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("error", "said"), [(EOFError("first\nsecond"), "first"), (MemoryError(), "MemoryError")]
)
def test_what_reading_said_of_a_damaged_file_is_passed_on(error, said, tmp_path, monkeypatch):
    (tmp_path / "bad.pth").write_bytes(b"x")

    def load(*args, **kwargs):
        raise error

    monkeypatch.setattr(torch, "load", load)
    assert refused(tmp_path / "bad.pth").endswith(f"is damaged or no checkpoint ({said}).")


@pytest.mark.parametrize("suffix", ["pth", "safetensors", "txt", ""])
def test_text_is_no_checkpoint(suffix, tmp_path):
    path = tmp_path / f"notes.{suffix}"
    for text in (
        "<!DOCTYPE html>\n<html>Not Found</html>\n",
        "version 1\noid sha256:0\n",
        "\n",
        "a",
    ):
        path.write_text(text)
        assert str(path) in refused(path, "no checkpoint|no safetensors file")


def test_missing_files_and_folders(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match=re.escape(str(path))) as caught:
            hl.load(path)
        one_sentence(caught.value)


class _Runs:
    """Pickled, it is an order to write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w').write('ran')",)


def test_a_pickle_that_would_run_code_does_not(tmp_path):
    trace, state = tmp_path / "ran", network().state_dict()
    attacks = [_Runs(trace), {"model": state, "args": _Runs(trace)}, {**state, "x": _Runs(trace)}]
    pickle.loads(pickle.dumps(attacks[0]))
    assert trace.read_text() == "ran"  # it would
    trace.unlink()
    for name in ("a.pth", "a.pt", "a.bin", "a.pkl", "a.safetensors", "a"):
        path = tmp_path / name
        for attack in attacks:
            for write in (
                lambda p, a: torch.save(a, p),
                lambda p, a: torch.save(a, p, _use_new_zipfile_serialization=False),
                lambda p, a: p.write_bytes(pickle.dumps(a)),
            ):
                write(path, attack)
                refused(path, re.escape(str(path)))
                assert not trace.exists()
    # nor on timm's way in
    torch.save(attacks[1], tmp_path / "a.pth")
    with pytest.raises(RuntimeError):
        hl.create(ATTO, pretrained=True, pretrained_cfg_overlay={"file": str(tmp_path / "a.pth")})
    assert not trace.exists()


def test_a_whole_module_is_not_unpickled(tmp_path):
    torch.save(atto(), tmp_path / "model.pth")
    message = refused(tmp_path / "model.pth", "does not run code")
    assert "safetensors" in message


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (torch.ones(3), "a Tensor without a state dict"),
        ([torch.ones(3)], "a list without a state dict"),
        ("weights", "a str without a state dict"),
        (None, "a NoneType without a state dict"),
        (7, "an? int without a state dict"),
        ({}, "a dict without a state dict"),
        ({"model": {}}, "a dict without a state dict"),
        ({"epoch": 3, "lr": 0.1}, "'epoch' is no named tensor"),
        ({"model": {"head.weight": [1.0]}}, "'head.weight' is no named tensor"),
        ({"model": None}, "'model' is no named tensor"),
        ({0: torch.ones(2), 1: torch.ones(2)}, "entry 0 is no named tensor"),
        ({"model": [torch.ones(2)]}, "'model' is no named tensor"),
    ],
    ids=str,
)
def test_an_object_instead_of_weights(content, match, tmp_path):
    torch.save(content, tmp_path / "thing.pth")
    refused(tmp_path / "thing.pth", match)
    with pytest.raises(ValueError, match=match):
        unwrap(content)


def test_weights_of_another_network(tmp_path):
    for name in ("resnet18", "resmlp_12_224", "poolformer_s12"):
        state = timm.create_model(name, num_classes=2, device="cpu").state_dict()
        torch.save(dict(list(state.items())[:40]), tmp_path / "other.pth")
        refused(tmp_path / "other.pth", "not the weights of a Hire-MLP")
    linear = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    save_file(linear, tmp_path / "other.safetensors")
    refused(tmp_path / "other.safetensors", "not the weights of a Hire-MLP: the names begin")
    only_stem = {"stem.conv.weight": torch.ones(4, 3, 7, 7)}
    torch.save(only_stem, tmp_path / "other.pth")
    refused(tmp_path / "other.pth", "not the weights of a Hire-MLP")


def _without(*keys):
    def change(state):
        for key in keys:
            del state[key]

    return change


def _reshaped(key, *shape):
    return lambda state: state.update({key: torch.zeros(shape)})


H = "stages.1.blocks.1.hire."
DAMAGE = {
    "a key too few": (_without(H + "proj.bias"), rf"1 missing \(such as {H}proj.bias\)"),
    "three too few": (_without("norm.bias", H + "channel.fc.bias", "head.bias"), "3 missing"),
    "a whole block": (
        lambda s: [s.pop(k) for k in list(s) if k.startswith("stages.2.blocks.0.")],
        r"missing \(such as stages.2.blocks.0",
    ),
    "the first stage": (
        lambda s: [s.pop(k) for k in list(s) if k.startswith("stages.0.")],
        "blocks are not complete",
    ),
    "a key too many": (_reshaped("extra.weight", 2), r"1 unknown \(such as extra.weight\)"),
    "many": (
        lambda s: s.update({f"decode.{i}": torch.ones(1) for i in range(300)}),
        r"300 unknown \(such as decode.0\)",
    ),
    "another shape": (_reshaped(H + "proj.weight", 24, 23, 1, 1), r"\(24, 23, 1, 1\) for \(24, 24"),
    "a flat gate": (_reshaped(H + "gate.fc1.weight", 6), r"gate.fc1.weight \(6,\) for \(6, 24\)"),
    "a flat head": (_reshaped("head.weight", 5), "head"),
    "an empty head": (_reshaped("head.weight"), "head"),
    "a flat stem": (_reshaped("stem.conv.weight", 4), "not the weights|shape"),
    "a stem without channels": (_reshaped("stem.conv.weight", 0, 3, 7, 7), "not the weights|shape"),
    "a flat way down": (_reshaped("stages.1.downsample.conv.weight"), "not the weights|shape"),
    "a flat first layer": (
        _reshaped("stages.1.blocks.0.hire.height.mix.fc1.weight", 5),
        "not the weights|shape",
    ),
    "a scalar first layer": (
        _reshaped("stages.1.blocks.0.hire.height.mix.fc1.weight"),
        "not the weights|shape",
    ),
    "a scalar mlp": (_reshaped("stages.0.blocks.0.mlp.fc1.weight"), "not the weights|shape"),
    "mlps of different ratios": (
        _reshaped("stages.2.blocks.0.mlp.fc1.weight", 17, 48, 1, 1),
        "mlp.fc1.weight",
    ),
    "fewer channels than a gate needs": (_reshaped("stem.conv.weight", 2, 3, 7, 7), "4 channels"),
}


@pytest.mark.parametrize(("change", "match"), DAMAGE.values(), ids=DAMAGE)
def test_weights_that_do_not_fit(change, match, tmp_path):
    state = dict(network().state_dict())
    change(state)
    torch.save(state, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", match)
    torch.save(to_authors(state), tmp_path / "a.pth")
    refused(tmp_path / "a.pth", match.replace(r"\(6,\)", r"\(6, 1, 1\)"))


@pytest.mark.parametrize(("change", "match"), list(DAMAGE.values())[:7], ids=list(DAMAGE)[:7])
def test_a_refused_load_changes_nothing(change, match):
    model, other = atto(), fill(atto(), seed=5).state_dict()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    other = dict(other)
    change(other)
    with pytest.raises(ValueError, match="does not fit HireMLP") as caught:
        load_into(model, other, "a.pth")
    one_sentence(caught.value)
    assert str(caught.value).startswith("a.pth ")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_wrong_size_is_named():
    small = hl.create("hire_mlp_small", device="meta")
    tiny = hl.create("hire_mlp_tiny", device="meta").state_dict()
    with pytest.raises(
        ValueError, match=r"does not fit HireMLP: .* missing \(such as stages\.0\."
    ) as e:
        load_into(small, tiny, "hire_mlp_tiny.pth")
    one_sentence(e.value)
    large = hl.create("hire_mlp_large", device="meta").state_dict()
    with pytest.raises(ValueError, match=r"of another shape \(such as .* for \("):
        load_into(hl.create("hire_mlp_base", device="meta"), large, "hire_mlp_large.pth")


def test_arguments_against_the_shapes_are_refused(tmp_path):
    torch.save(network().state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"head.weight \(7, 96\) for \(3, 96\)"):
        hl.load(tmp_path / "a.pth", num_classes=3)


def test_read_gives_the_file_as_it_is(tmp_path):
    content = {"model": {"a": torch.ones(2)}, "args": argparse.Namespace(lr=0.1), "epoch": 4}
    torch.save(content, tmp_path / "a.pth")
    got = read(tmp_path / "a.pth")
    assert got["epoch"] == 4
    assert got["args"].lr == 0.1
    assert torch.equal(got["model"]["a"], torch.ones(2))


def test_opening_loads_no_module_of_the_file(tmp_path, monkeypatch):
    """A pickle may name any module; looking for it is running it."""
    (tmp_path / "unheard_of.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "a.pth"
    path.write_bytes(b"\x80\x02cunheard_of\nthing\n)R.")
    refused(path)
    assert "unheard_of" not in sys.modules


# ------------------------------------------------------------------ what the fuzzing found


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.update({3: torch.zeros(1)}),
        lambda state: state.update({"head.bias": None}),
        lambda state: state.update({"head.bias": torch.zeros(1).expand(10**12)}),
        lambda state: state.update({"head.bias": torch.zeros(2, device="meta")}),
        lambda state: state.pop("stem.conv.weight"),
        lambda state: state.update({"stages.3.downsample.conv.weight": torch.zeros(3, 64, 3, 3)}),
        lambda state: state.update({"x" * 9000: torch.zeros(1)}),
    ],
)
def test_every_refusal_names_the_file_in_a_short_sentence(tmp_path, spoil):
    state = dict(hl.create(ATTO, seed=0, num_classes=2).state_dict())
    spoil(state)
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(hl.HirelabError, match=r"weights\.pt") as caught:
        hl.load(tmp_path / "weights.pt")
    assert len(str(caught.value)) <= 600
