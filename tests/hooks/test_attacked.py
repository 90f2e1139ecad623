"""What once ended in an error of Python or PyTorch, or in something wrong: a sentence, or right."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import hirelab as hl
from hirelab._shared.errors import HirelabError
from hirelab.hooks.points import attached, run_with_cache
from hirelab.models.checkpoints import unwrap

X = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
POINT = "stages.0.out"


@pytest.fixture(scope="module")
def model():
    return hl.create("hire_mlp_atto", seed=0, num_classes=4)


def twice(value, point):
    return 2 * value


# ------------------------------------------------------------------ edits


def test_the_same_edits_may_be_entered_again_and_inside_themselves(model):
    edits = model.edits({"pooled": twice})
    plain = model(X) - model.head.bias
    for _ in range(2):
        with edits:
            torch.testing.assert_close(model(X) - model.head.bias, 2 * plain)
            with edits:
                torch.testing.assert_close(model(X) - model.head.bias, 4 * plain)
            torch.testing.assert_close(model(X) - model.head.bias, 2 * plain)
    torch.testing.assert_close(model(X) - model.head.bias, plain)
    assert not model.attached()


def test_a_copy_made_inside_is_a_network_without_edits(model):
    plain = model(X)
    with model.edits({POINT: twice}):
        edited = model(X)
        other = copy.deepcopy(model)
        assert len(model.attached()) == 1
        assert not attached(other)
        torch.testing.assert_close(other(X), plain)
        with other.edits({POINT: twice}):
            torch.testing.assert_close(other(X), edited)
    torch.testing.assert_close(other(X), plain)


def test_an_edit_that_runs_its_network_without_end_is_stopped_at_once(model):
    calls = []

    def endless(value, point):
        calls.append(point.name)
        model.run_with_cache(X)
        return value

    with (
        model.edits({POINT: endless}),
        pytest.raises(HirelabError, match=rf"edit at {POINT} runs the network that it edits"),
    ):
        model(X)
    assert len(calls) == 3
    assert not model.attached()


def test_an_edit_that_runs_its_network_once_is_not(model):
    sizes = []

    def other_size(value, point):
        if not sizes:
            sizes.append(point.rearrangement.size)
            with torch.no_grad():
                model(torch.randn(1, 3, 96, 96))
            sizes.append(point.rearrangement.size)
        return value

    with model.edits({"stages.1.blocks.0.hire.height.mixed": other_size}):
        model(X)
    assert sizes == [8, 8]


def test_a_gates_weights_of_another_length_are_refused(model):
    edit = hl.edit.fix(height=torch.ones(7))
    with (
        model.edits({"stages.0.blocks.0.hire.gate": edit}),
        pytest.raises(
            HirelabError, match=r"height is a tensor of shape \(7,\); .* has \d+ channels"
        ),
    ):
        model(X)


def test_the_points_of_a_wrapper_are_read_by_the_function(model):
    logits, cache = run_with_cache(nn.Sequential(model), X, f"0.{POINT}")
    torch.testing.assert_close(logits, model(X))
    assert list(cache) == [f"0.{POINT}"]


# ------------------------------------------------------------------ what is no network or image


@pytest.mark.parametrize(
    ("given", "said"), [(None, "NoneType"), (nn.Linear, "the class Linear"), ("tiny", "str")]
)
@pytest.mark.parametrize("measure", [hl.grad_cam, hl.receptive_field, hl.attribute])
def test_what_is_no_network_is_said(measure, given, said):
    with pytest.raises(HirelabError, match=rf"The network is {said}; give a torch\.nn\.Module"):
        measure(given, X)


def test_other_things_in_the_wrong_place(model):
    with pytest.raises(HirelabError, match=r"sparse_coo; give a dense one"):
        hl.grad_cam(model, X.to_sparse())
    with pytest.raises(HirelabError, match=r"seed is 'a'; give a whole number"):
        hl.create("hire_mlp_atto", seed="a")
    with pytest.raises(HirelabError, match="compare_fields got a list"):
        hl.compare_fields([1])
    with pytest.raises(HirelabError, match="compare_fields got a dict of something else"):
        hl.compare_fields({"a": 1})
    explorer = hl.RegionExplorer()
    with pytest.raises(HirelabError, match=r"settings are 3; give RegionExplorer\.Settings"):
        explorer.render(3)
    with pytest.raises(HirelabError, match=r"stage is 3; give all values .* stage=\[3, \.\.\.\]"):
        explorer.freeze("page.html", stage=3)


# ------------------------------------------------------------------ checkpoints made to exhaust


FIRST = "stages.0.blocks.0.hire.height.mix.fc1.weight"


def exhausting(model, kind):
    """A few bytes that claim more than a machine has."""
    state = dict(model.state_dict())
    own = state[FIRST]
    if kind == "block":
        state["stages.0.blocks.1000000000.mlp.fc1.weight"] = torch.zeros(1)
    elif kind == "hole":
        state["stages.0.blocks.99999.mlp.fc1.weight"] = torch.zeros(1)
    elif kind == "expanded":
        state[FIRST] = torch.zeros(1).expand(10**6, 10**6, 1, 1)
    elif kind == "region":
        state[FIRST] = torch.zeros(1, own.shape[0] * 10**5, 1, 1)
    elif kind == "sparse":
        state[FIRST] = own.to_sparse()
    else:
        state[FIRST] = torch.empty(own.shape, device="meta")
    return state


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("block", r"1 unknown \(such as stages\.0\.blocks\.1000000000"),
        ("hole", "its blocks are not complete"),
        ("expanded", "claims 1,000,000,000,000 numbers and holds 1"),
        ("region", "of another shape"),
        ("sparse", "is a tensor of torch.sparse_coo"),
        ("meta", "is a tensor without data"),
    ],
)
def test_a_checkpoint_claims_no_more_than_it_holds(model, kind, said, tmp_path):
    path = tmp_path / "made.pth"
    torch.save(exhausting(model, kind), path)
    with pytest.raises(HirelabError, match=said):
        hl.load(path)


def test_tensors_that_share_memory_are_whole(model):
    """Views of one buffer, as some trainers save them, hold what they claim."""
    flat = torch.arange(12.0)
    state = unwrap({"a": flat[:6].view(2, 3), "b": flat.view(3, 4).t()})
    assert torch.equal(state["b"], flat.view(3, 4).t())
