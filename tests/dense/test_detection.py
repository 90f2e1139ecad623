"""Detectors: sizes as the paper's, any backbone, losses that fall, files that come back."""

from __future__ import annotations

import copy

import pytest
import torch
from torchvision.models.detection import MaskRCNN

import hirelab as hl
from hirelab import paper
from hirelab._shared.errors import HirelabError
from hirelab.dense.detection import Pyramid

META = {"device": "meta"}  # shapes are enough to count a backbone's weights
SMALL = {"min_size": 96, "max_size": 128, "anchor_scale": 2.0}


def parameters(model: torch.nn.Module) -> float:
    return sum(p.numel() for p in model.parameters()) / 1e6


@pytest.mark.parametrize("kind", ["retinanet", "mask_rcnn"])
@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_parameters_are_the_papers(kind, size):
    table = paper.dense(kind)
    own = next(row for row in table.rows if row[0].lower().endswith(size))
    model = hl.detector(kind, f"hire_mlp_{size}", 80, arguments=META)
    assert parameters(model) == pytest.approx(float(own[1]), abs=0.2)


def test_of_256_channels_it_is_torchvisions_own():
    """The heads that are put together here have the shapes that torchvision's own would have."""
    own = hl.detector("mask_rcnn", "hire_mlp_atto", 3, seed=0)
    theirs = MaskRCNN(
        Pyramid(own.backbone, False), 4, rpn_anchor_generator=own.net.rpn.anchor_generator
    )
    shapes = {name: value.shape for name, value in theirs.state_dict().items()}
    assert {name: value.shape for name, value in own.net.state_dict().items()} == shapes


@pytest.mark.parametrize("kind", ["retinanet", "mask_rcnn"])
def test_fewer_channels_make_a_smaller_detector(kind):
    wide, narrow = (hl.detector(kind, "hire_mlp_atto", 3, width=w, **SMALL) for w in (256, 32))
    assert parameters(narrow) < 1.2 < 7 < parameters(wide)
    assert narrow(images((96, 128)))


@pytest.fixture(scope="module", params=["retinanet", "mask_rcnn"])
def small(request):
    few = {"rpn_post_nms_top_n_train": 50, "rpn_post_nms_top_n_test": 50}
    few |= {"box_batch_size_per_image": 32, "box_detections_per_img": 20}
    head = few if request.param == "mask_rcnn" else {"detections_per_img": 20}
    return hl.detector(
        request.param, "hire_mlp_atto", ["round", "square"], seed=0, head=head, **SMALL
    )


def images(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, *size, generator=generator) for size in sizes]


def target(boxes, labels, size):
    masks = torch.zeros(len(boxes), *size, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = 1
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "masks": masks,
    }


def test_labels_run_from_0_with_and_without_a_background_inside(small):
    """The class that torchvision calls 0 or 1 is 0 here, in targets and in answers alike."""
    model = copy.deepcopy(small).train()
    x = images((96, 128))
    seen = []
    hook = model.net.register_forward_pre_hook(lambda _, given: seen.append(given[1][0]["labels"]))
    model(x, [target([(8, 8, 60, 60), (20, 30, 90, 80)], [0, 1], (96, 128))])
    hook.remove()
    first = 0 if model.kind == "retinanet" else 1
    assert seen[0].tolist() == [first, first + 1]
    net = model.net
    answers = [{"boxes": torch.zeros(2, 4), "labels": torch.tensor([first, first + 1])}]
    model.eval()
    net.forward = lambda *_: answers
    assert model(x)[0]["labels"].tolist() == [0, 1]


def test_a_batch_without_any_object_trains_too(small):
    model = copy.deepcopy(small).train()
    x = images((96, 128), (100, 90))
    losses = model(x, [target([], [], (96, 128)), target([], [], (100, 90))])
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()


def test_the_loss_falls_on_what_it_sees_again(small):
    model = copy.deepcopy(small).train()
    x = images((96, 96))
    truth = [target([(10, 10, 50, 60), (40, 40, 90, 90)], [0, 1], (96, 96))]
    optimizer = torch.optim.AdamW(model.parameters(), 3e-4)
    losses = []
    for _ in range(10):
        torch.manual_seed(0)  # which anchors are judged is drawn
        loss = sum(model(x, truth).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < 0.8 * losses[0]


def test_boxes_stay_exact_under_autocast(small):
    """Autocast may blur what a network says, but not the grid on which it says it."""
    model = copy.deepcopy(small).train()
    x = images((96, 128))
    truth = [target([(8, 8, 11, 11), (20, 30, 90, 80)], [0, 1], (96, 128))]
    seen = {}
    net = model.net
    of_anchors = net.anchor_generator if model.kind == "retinanet" else net.rpn.anchor_generator
    of_anchors.register_forward_hook(lambda _, given, out: seen.update(anchors=out[0]))
    if model.kind == "mask_rcnn":
        net.rpn.register_forward_hook(lambda _, given, out: seen.update(proposals=out[0][0]))
    model(x, truth)
    anchors = seen["anchors"]
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(x, truth)
    assert torch.equal(seen["anchors"], anchors)
    assert all(one.dtype == torch.float32 for one in seen.values())
    assert all(torch.isfinite(one) for one in losses.values())


def test_a_file_brings_back_the_same_network(small, tmp_path):
    path = tmp_path / "detector.safetensors"
    model = copy.deepcopy(small)
    model.save(path)
    again = hl.load_dense(path)
    assert again.classes == ("round", "square")
    assert again.config == model.config
    x = images((96, 128))
    for one, other in zip(model(x), again(x), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(HirelabError, match="There is no file"):
        hl.load_dense(tmp_path / "gone.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    with pytest.raises(HirelabError, match="no detector or segmenter"):
        hl.load_dense(tmp_path / "bad.safetensors")
    with pytest.raises(HirelabError, match=r"Did you mean 'scenes\.fpn'"):
        hl.load_dense("scene.fpn")


@pytest.mark.parametrize("backbone", ["resnet18", "convnext_atto", "pvt_v2_b0"])
def test_any_network_of_four_stages_serves(backbone):
    model = hl.detector("retinanet", backbone, 2, seed=0, **SMALL)
    (found,) = model(images((96, 128)))
    assert set(found) == {"boxes", "labels", "scores"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "mask_rcn"}, "mask_rcnn"),
        ({"backbone": "hire_mlp_tny"}, "Did you mean 'hire_mlp_tiny'"),
        ({"backbone": "vit_tiny_patch16_224"}, "1/4, 1/8, 1/16 and 1/32"),
        ({"num_classes": 0}, "at least 1"),
        ({"num_classes": ["a", "a"]}, "each once"),
    ],
)
def test_what_cannot_be_built_is_said_in_a_sentence(changes, said):
    with pytest.raises(HirelabError, match=said):
        hl.detector(
            **{"kind": "retinanet", "backbone": "hire_mlp_atto", "num_classes": 2, **changes}
        )


def test_frozen_norm_keeps_what_it_came_with():
    model = hl.detector("retinanet", "hire_mlp_atto", 2, seed=0, frozen_norm=True, **SMALL).train()
    norms = [m for m in model.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(m.training or m.weight.requires_grad for m in norms)
    before = {k: v.clone() for k, v in model.backbone.state_dict().items() if "running" in k}
    model(images((96, 96)), [target([(10, 10, 50, 60)], [0], (96, 96))])
    after = model.backbone.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_the_network_inside_has_its_points():
    """The same names and the same tensors as in the classifier whose weights it has."""
    model = hl.detector("retinanet", "hire_mlp_pico", 2, pretrained=True, **SMALL)
    classifier = hl.create("hire_mlp_pico", pretrained=True)
    x = images((96, 128))[0][None]
    name = "stages.1.blocks.1.hire.height.mixed"
    _, own = classifier.run_with_cache(x, name)
    with torch.no_grad():
        network = model.backbone.network
        maps = model.backbone(x)
        expected = classifier.forward_intermediates(x, intermediates_only=True)
    for one, other in zip(maps, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert own[name].shape
    assert name in {point.name for point in network.points(x=x)}
