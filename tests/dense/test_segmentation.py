"""Segmenters: sizes as the paper's, any image size, losses by hand, files that come back."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

import hirelab as hl
from hirelab import paper
from hirelab._shared.errors import HirelabError

META = {"device": "meta"}


@pytest.mark.parametrize("size", ["small", "base", "large"])
def test_parameters_are_the_papers(size):
    own = next(row for row in paper.dense("upernet").rows if row[0].lower().endswith(size))
    model = hl.segmenter("upernet", f"hire_mlp_{size}", 150, arguments=META)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    # the paper prints whole millions
    assert millions == pytest.approx(float(own[1]), abs=0.5)


@pytest.fixture(scope="module", params=["upernet", "fpn"])
def small(request):
    return hl.segmenter(request.param, "hire_mlp_atto", ["a", "b", "c"], seed=0, width=32)


@pytest.mark.parametrize("size", [(64, 96), (50, 70), (33, 32)])
def test_every_pixel_has_its_logits(small, size):
    with torch.no_grad():
        assert small(torch.randn(2, 3, *size)).shape == (2, 3, *size)


def test_the_loss_is_the_mean_over_labelled_pixels(small):
    logits = torch.randn(2, 3, 4, 5)
    labels = torch.randint(3, (2, 4, 5))
    labels[0, 0] = 255
    known = labels != 255
    rows = logits.permute(0, 2, 3, 1)[known]
    by_hand = -(rows.log_softmax(1)[torch.arange(len(rows)), labels[known]]).mean()
    torch.testing.assert_close(small.loss(logits, labels), by_hand)
    other = torch.randn(2, 3, 4, 5)
    both = by_hand + 0.4 * F.cross_entropy(other, labels, ignore_index=255)
    torch.testing.assert_close(small.loss([logits, other], labels), both)


def test_a_batch_without_any_label_has_no_loss_and_no_nan(small):
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = small.loss(logits, torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss == 0
    assert not logits.grad.any()


def test_the_auxiliary_head_speaks_in_training_only():
    model = hl.segmenter("upernet", "hire_mlp_atto", 3, seed=0, width=32)
    x = torch.randn(2, 3, 64, 64)
    assert [tuple(one.shape) for one in model.train()(x)] == [(2, 3, 64, 64)] * 2
    assert isinstance(model.eval()(x), torch.Tensor)
    alone = hl.segmenter("upernet", "hire_mlp_atto", 3, seed=0, width=32, auxiliary=False)
    assert len(alone.train()(x)) == 1


def test_stage_norms_are_the_authors_extra_ones():
    """One BatchNorm a map: twice the channels in weights, and maps that are normalised."""
    plain = hl.segmenter("fpn", "hire_mlp_atto", 3, seed=0)
    normed = hl.segmenter("fpn", "hire_mlp_atto", 3, seed=0, stage_norms=True).train()
    count = [
        sum(p.numel() for p in m.backbone.network.stages.parameters()) for m in (plain, normed)
    ]
    assert count[0] == count[1]
    extra = sum(p.numel() for p in normed.backbone.network.stage_norms.parameters())
    assert extra == 2 * sum(plain.backbone.channels)
    for one in normed.backbone(torch.randn(4, 3, 64, 64)):
        torch.testing.assert_close(
            one.mean((0, 2, 3)), torch.zeros(one.shape[1]), atol=1e-4, rtol=0
        )


def test_a_file_brings_back_the_same_network(small, tmp_path):
    path = tmp_path / "segmenter.safetensors"
    small.save(path)
    again = hl.load_dense(path)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(small(x), again(x))
    assert again.config == small.config


def test_what_cannot_be_built_is_said_in_a_sentence():
    with pytest.raises(HirelabError, match="upernet"):
        hl.segmenter("upernett", "hire_mlp_atto", 3)


@pytest.mark.parametrize("make", [hl.segmenter, hl.detector])
def test_what_the_head_does_not_know_is_the_backbones(make):
    kind = "fpn" if make is hl.segmenter else "retinanet"
    model = make(kind, "hire_mlp_atto", 2, width=32, cross_region="none", depths=(1, 1, 1, 1))
    branches = model.backbone.network.axis_branches()
    assert len(branches) == 8
    assert {branch.cross_region for branch in branches.values()} == {"none"}
    assert model.config["arguments"] == {"cross_region": "none", "depths": (1, 1, 1, 1)}
    with pytest.raises(HirelabError, match=r"no backbone: .*embed_dim"):
        make(kind, "hire_mlp_atto", 2, embed_dim=64)


# ------------------------------------------------------------------ what the fuzzing found


@pytest.mark.parametrize(
    "changes",
    [
        {"task": None}, {"task": [1]}, {"task": "x" * 9000}, {"kind": "\n"}, {"nonsense": 3},
        {"backbone": 3}, {"backbone": "nothing"}, {"classes": 3}, {"classes": ["a"]},
        {"arguments": "abc"}, {"arguments": {"depths": [None]}}, {"dropout": [1]},
        {"arguments": {"dims": [10**6] * 4}},
    ],
)  # fmt: skip
def test_a_config_that_builds_nothing_is_refused(tmp_path, changes):
    path = tmp_path / "one.safetensors"
    network = hl.segmenter("fpn", "hire_mlp_atto", 2, seed=0)
    network.config = {**network.config, **changes}
    network.save(path)
    with pytest.raises(hl.HirelabError, match=r"one\.safetensors") as caught:
        hl.load_dense(path)
    assert len(str(caught.value)) <= 700


@pytest.mark.parametrize("text", ["[1]", "3", "[" * 100_000, '"a"'])
def test_a_config_that_is_none_is_refused(tmp_path, text):
    path = tmp_path / "one.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"hirelab": text})
    with pytest.raises(hl.HirelabError, match=r"one\.safetensors"):
        hl.load_dense(path)
