"""The ready edits, against values worked out by hand from a plain run."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import hirelab as hl
from hirelab._shared.errors import HirelabError

BLOCK = "stages.2.blocks.1"
HIRE = f"{BLOCK}.hire"
GATE = f"{HIRE}.gate"


def image(seed: int = 1) -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.manual_seed(seed))


@pytest.fixture(scope="module")
def shared():
    return hl.create("hire_mlp_atto", seed=0)


@pytest.fixture
def model(shared):
    yield shared
    assert shared.attached() == []


def value_at(model, point: str, edit, x: torch.Tensor | None = None) -> torch.Tensor:
    with model.edits({point: edit}):
        return model.run_with_cache(image() if x is None else x, point)[1][point]


def test_scale_zero_add_replace(model):
    plain = model.run_with_cache(image(), BLOCK)[1][BLOCK]
    assert torch.equal(value_at(model, BLOCK, hl.edit.scale(-2.0)), plain * -2)
    assert torch.equal(value_at(model, BLOCK, hl.edit.zero()), torch.zeros_like(plain))
    assert torch.equal(value_at(model, BLOCK, hl.edit.add(0.5)), plain + 0.5)
    bias = torch.arange(48.0)[:, None, None]
    assert torch.equal(value_at(model, BLOCK, hl.edit.add(bias)), plain + bias)
    assert torch.equal(value_at(model, BLOCK, hl.edit.replace(bias)), bias.expand_as(plain))
    wide = hl.edit.replace(bias.double())  # takes the point's dtype
    assert value_at(model, BLOCK, wide).dtype == torch.float32


def test_patching_from_another_image(model):
    """With the last map of another image in its place, the answer is the other image's."""
    other_logits, other = model.run_with_cache(image(2))
    with model.edits({"stages.3": hl.edit.replace(other["stages.3"])}):
        assert torch.equal(model(image()), other_logits)
    kept = other["stages.3"].clone()

    def spoil(value, point):
        return value.mul_(0.0)

    with (
        model.edits({"stages.3": hl.edit.replace(other["stages.3"])}),
        model.edits({"stages.3": spoil}),
    ):
        model(image())
    assert torch.equal(other["stages.3"], kept)  # the source is never written to


@pytest.mark.parametrize("branch", ["height", "width", "channel"])
def test_a_fixed_gate_leaves_one_branch(model, branch):
    names = ("height", "width", "channel")
    _, plain = model.run_with_cache(image(), f"{BLOCK}.*")
    weights = {n: float(n == branch) for n in names}
    with model.edits({GATE: hl.edit.fix(**weights)}):
        _, cache = model.run_with_cache(image(), f"{BLOCK}.*")
    only = plain[f"{HIRE}.{branch}"]
    block = model.stages[2].blocks[1]
    assert torch.equal(cache[f"{HIRE}.fused"], only)
    with torch.no_grad():
        expected = block.hire.proj(only)
        mid = plain[f"{HIRE}"] * 0 + cache[f"{BLOCK}.mid"]
        out = mid + block.mlp(block.norm2(mid))
    assert torch.equal(cache[HIRE], expected)
    assert torch.equal(cache[BLOCK], out)
    # and the block's input was not touched
    residual = plain[f"{BLOCK}.mid"] - plain[HIRE]
    torch.testing.assert_close(cache[f"{BLOCK}.mid"], residual + expected)


def test_branches_that_are_not_named_keep_their_weights(model):
    plain = model.run_with_cache(image(), GATE)[1][GATE]
    fixed = value_at(model, GATE, hl.edit.fix(width=0.25))
    assert torch.equal(fixed[..., 0], plain[..., 0])
    assert (fixed[..., 1] == 0.25).all()
    assert torch.equal(fixed[..., 2], plain[..., 2])


def test_every_gate_at_once(model):
    with model.edits({"*.gate": hl.edit.fix(height=0.0, width=0.0, channel=1.0)}):
        _, cache = model.run_with_cache(image())
    for name in cache:
        if name.endswith(".gate.out"):
            hire = name.removesuffix(".gate.out")
            assert torch.equal(cache[f"{hire}.fused"], cache[f"{hire}.channel"])


def test_a_gate_of_two_branches():
    model = hl.create("hire_mlp_atto", seed=0, branches=("channel", "width"))
    assert model.points(GATE)[0].branches == ("width", "channel")
    with model.edits({GATE: hl.edit.fix(width=0.0, channel=1.0)}):
        _, cache = model.run_with_cache(image(), f"{HIRE}.*")
    assert torch.equal(cache[f"{HIRE}.fused"], cache[f"{HIRE}.channel"])
    with (
        model.edits({GATE: hl.edit.fix(height=1.0)}),
        pytest.raises(
            ValueError, match=r"gate\.out weighs width, channel; it has no branch 'height'"
        ),
    ):
        model(image())


def test_fix_in_the_wrong_place_or_without_a_branch(model):
    with (
        model.edits({HIRE: hl.edit.fix(height=1.0)}),
        pytest.raises(
            ValueError, match=r"hire\.out is a token grid; fix\(\) sets the weights of a gate"
        ),
    ):
        model(image())
    with pytest.raises(ValueError, match="names no branch"):
        hl.edit.fix()
    for wrong in ({"height": "1"}, {"height": None}):
        with pytest.raises(HirelabError, match="height is"):
            hl.edit.fix(**wrong)


def test_a_network_without_gates_has_no_gate_to_fix():
    model = hl.create("hire_mlp_atto", seed=0, fusion="sum")
    with (
        pytest.raises(KeyError, match=r"no point '.*gate'"),
        model.edits({GATE: hl.edit.fix(height=1.0)}),
    ):
        pytest.fail("entered")


def test_edits_say_what_they_are():
    assert repr(hl.edit.scale(2.0)) == "scale(factor=2.0)"
    assert repr(hl.edit.zero()) == "zero()"
    assert repr(hl.edit.fix(height=1.0, width=0.0)) == "fix(height=1.0, width=0.0)"
    assert len(repr(hl.edit.replace(torch.zeros(64, 64, 64)))) < 50  # not the tensor
    assert len(repr(hl.edit.add(torch.zeros(64, 64, 64)))) < 50
    with pytest.raises(dataclasses.FrozenInstanceError):
        hl.edit.scale(2.0).words = "scale(3)"


def test_settings_of_an_edit_pass_gradients_on(model):
    """A learned edit: the gradient reaches the tensor that was added."""
    nudge = torch.zeros(48, 1, 1, requires_grad=True)
    with model.edits({BLOCK: hl.edit.add(nudge)}):
        model(image())[:, 0].sum().backward()
    assert nudge.grad.any()
    source = torch.ones(2, 48, 4, 4, requires_grad=True)
    with model.edits({BLOCK: hl.edit.replace(source)}):
        model(image())[:, 0].sum().backward()
    assert source.grad.any()
    model.zero_grad(set_to_none=True)
