"""Tuned networks: equal whatever is chosen, and chosen is what the clock says (here our own)."""

from __future__ import annotations

import copy
import itertools
import pickle
import re
import sys

import numpy as np
import pytest
import torch
from _helpers import random_images, randomise

import hirelab as hl
from hirelab._shared.timing import Rounds
from hirelab.models import HireMLP
from hirelab.models.deploy import DeployedAxis, DeployedMlp, Linear
from hirelab.models.tuning import Tunable, fastest, tune_parts
from hirelab.rearrange import CROSS_REGIONS, PADDINGS

SMALL = {
    "depths": (2, 2),
    "dims": (8, 12),
    "region": (3, 2),
    "shift": (2, -1),
    "shift_cycle": (2, 3),
    "num_classes": 5,
}
PIXELS = (19, 27)  # maps of 5 x 7 and 3 x 4 tokens


def build(**choice) -> HireMLP:
    return randomise(HireMLP(**{**SMALL, **choice})).eval()


def clock(times: dict[str, float], other: float = 1.0):
    """A measurement that runs every candidate, and says these seconds of it."""

    def measure(candidates) -> Rounds:
        for candidate in candidates.values():
            candidate()
        return Rounds({n: np.array([times.get(n, other)] * 4) for n in candidates})

    return measure


def tuned(model: HireMLP, times: dict[str, float], img_size=PIXELS, batch_size=2):
    """Deployed, and tuned by a clock that says these seconds."""
    with pytest.MonkeyPatch.context() as patch:
        deploy = sys.modules["hirelab.models.deploy"]
        patch.setattr(deploy, "tune_parts", lambda n, x: tune_parts(n, x, clock(times)))
        return hl.deploy(model, tune=True, img_size=img_size, batch_size=batch_size)


def parts(network, kind=Tunable):
    return [m for m in network.modules() if isinstance(m, kind)]


def equal(got, expected):
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


WAYS = {
    "oneDNN by columns": Linear,
    "oneDNN, GELU apart": Linear,
    "oneDNN by columns, GELU apart": Linear,
    "F.conv2d": Linear,
    "F.linear": Linear,
    "strided reading": DeployedAxis,
    "strided reading and writing": DeployedAxis,
    "2 parts": DeployedMlp,
    "8 parts": DeployedMlp,
}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_faster_is_chosen_and_equal(way):
    model, x = build(), random_images(2, 3, *PIXELS)
    network = tuned(model, {way: 0.5, "tuned": 0.5})
    with torch.no_grad():
        equal(network(x), model(x))
        equal(network(x[:1, :, 3:, 3:]), model(x[:1, :, 3:, 3:]))  # another size
    own = [m for m in parts(network, WAYS[way]) if m.way == way]
    assert own
    if "GELU" in way:  # of the layers that have one
        assert {m.activation for m in own} == {"gelu"}
    else:
        assert len(own) == len(parts(network, WAYS[way]))
    others = {m.way for m in parts(network) if m.way != way}
    assert others <= {"oneDNN", "gathers", "whole"}
    assert network.tuning.times_as_fast == 2


@pytest.mark.parametrize("fc_layers", [1, 2, 3])
@pytest.mark.parametrize("padding", PADDINGS)
def test_strided_axes_are_equal_for_every_rearrangement(padding, fc_layers):
    x = random_images(2, 3, *PIXELS, dtype=torch.float64)
    model = build(padding=padding, fc_layers=fc_layers, dtype=torch.float64)
    for cross_region, restore in itertools.product(CROSS_REGIONS, (True, False)):
        model.set_rearrangement(None, padding, cross_region, restore)
        network, expected = hl.deploy(model), model(x)
        axes = parts(network, DeployedAxis)
        for way in axes[0].ways(x)[1:]:
            for axis in axes:
                axis.use(way)
            torch.testing.assert_close(network(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "choice",
    [
        {"fusion": "sum"},
        {"branches": ("height", "channel"), "padding": "zero"},
        {"region": (9, 1), "padding": "reflect"},
        {"restore": False, "cross_region": "shuffle"},
        {"mlp_ratio": 1.5, "fc_layers": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [(3, 3), (33, 20)], ids=str)
def test_equal_with_everything_changed_at_once(choice, size):
    model, x = build(**choice), random_images(3, 3, *size)
    fast = {
        "oneDNN by columns, GELU apart": 0.4,
        "oneDNN by columns": 0.5,
        "strided reading and writing": 0.5,
        "strided reading": 0.6,
        "4 parts": 0.5,
        "tuned": 0.5,
    }
    network = tuned(model, fast, size, 3)
    assert {"strided reading and writing", "4 parts"} <= {m.way for m in parts(network)}
    with torch.no_grad():
        equal(network(x), model(x))
    y, z = (x.clone().requires_grad_() for _ in range(2))
    torch.testing.assert_close(
        torch.autograd.grad(network(y).square().sum(), y)[0],
        torch.autograd.grad(model(z).square().sum(), z)[0],
        rtol=1e-3, atol=1e-5,
    )  # fmt: skip


# ------------------------------------------------------------------ the choice


def rounds(**times) -> Rounds:
    return Rounds({name: np.array(values, float) for name, values in times.items()})


def test_ties_and_small_gains_keep_the_untuned_way():
    assert fastest(rounds(untuned=[1] * 4, other=[1] * 4), "untuned") == "untuned"
    assert fastest(rounds(other=[0.98] * 4, untuned=[1] * 4), "untuned") == "untuned"
    assert fastest(rounds(other=[0.96] * 4, untuned=[1] * 4), "untuned") == "other"
    assert fastest(rounds(a=[0.8] * 2, b=[0.7] * 2, untuned=[1] * 2), "untuned") == "b"


def test_a_gain_within_the_noise_keeps_the_untuned_way():
    """The untuned way's own halves differ by a tenth: less than that says nothing."""
    assert fastest(rounds(untuned=[1.1, 1.1, 1, 1], other=[0.95] * 4), "untuned") == "untuned"
    assert fastest(rounds(untuned=[1.1, 1.1, 1, 1], other=[0.9] * 4), "untuned") == "other"


def test_one_disturbed_round_decides_nothing():
    assert fastest(rounds(untuned=[1, 9, 1, 1], other=[1.2] * 4), "untuned") == "untuned"
    assert fastest(rounds(untuned=[1, 1, 1, 1], other=[0.8, 9, 9, 9]), "untuned") == "other"


def test_nothing_faster_changes_nothing():
    model, x = build(), random_images(2, 3, *PIXELS)
    network = tuned(model, {})
    assert all(choice.way == choice.untuned for choice in network.tuning.choices)
    assert network.tuning.times_as_fast == 1
    with torch.no_grad():
        assert torch.equal(network(x), hl.deploy(model)(x))


def test_a_network_that_is_not_faster_as_a_whole_is_put_back():
    model, x = build(), random_images(2, 3, *PIXELS)
    fast = {"oneDNN by columns": 0.5, "4 parts": 0.5, "strided reading": 0.5}
    network = tuned(model, {**fast, "tuned": 1.0})
    assert {m.way for m in parts(network)} == {m.way for m in parts(hl.deploy(model))}
    assert all(m.weight.is_contiguous() for m in parts(network, Linear))
    assert all(choice.way == choice.untuned for choice in network.tuning.choices)
    assert network.tuning.times_as_fast == 1
    with torch.no_grad():
        assert torch.equal(network(x), hl.deploy(model)(x))


def test_parts_that_are_alike_are_measured_once():
    measured = []

    def measure(candidates) -> Rounds:
        measured.append(tuple(candidates))
        return clock({})(candidates)

    network = hl.deploy(build())
    choices, _ = tune_parts(network, random_images(2, 3, *PIXELS), measure)
    assert len(measured) == len(choices)
    named = [name for choice in choices for name in choice.parts]
    assert sorted(named) == sorted(n for n, m in network.named_modules() if isinstance(m, Tunable))
    (mlp,) = (c for c in choices if "stages.0.blocks.0.mlp" in c.parts)
    assert mlp.parts == ("stages.0.blocks.0.mlp", "stages.0.blocks.1.mlp")
    assert mlp.shape == (2, 8, 5, 7)
    depths = [choice.parts[0].count(".") for choice in choices]
    assert depths == sorted(depths, reverse=True)  # what a part holds is tuned before it


def test_it_prints_what_was_chosen():
    text = str(tuned(build(), {"4 parts": 0.5, "tuned": 0.8}).tuning)
    row = next(line for line in text.splitlines() if line.startswith("stages.0.blocks.0.mlp "))
    cells = ("stages.0.blocks.0.mlp", "2", "2 x 8 x 5 x 7", "4 parts", "500.00", "whole", "1000.00")
    assert tuple(re.split(r"\s{2,}", row)) == cells
    assert "1.25 times as fast as untuned, for 2 x 19 x 27 pixels on " in text


# ------------------------------------------------------------------ as untuned ones


@pytest.fixture(scope="module")
def pair():
    model = build()
    fast = {"oneDNN by columns": 0.5, "strided reading and writing": 0.5, "4 parts": 0.5}
    return model, tuned(model, {**fast, "tuned": 0.5})


def test_state_and_copies(pair):
    model, network = pair
    x, plain = random_images(2, 3, *PIXELS), hl.deploy(model)
    state = network.state_dict()
    assert state.keys() == plain.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items())
    with torch.no_grad():
        expected = network(x)
        for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert torch.equal(twin(x), expected)
            assert [m.way for m in parts(twin)] == [m.way for m in parts(network)]
            assert str(twin.tuning) == str(network.tuning)
        for value in twin.buffers():
            value.zero_()
        twin.load_state_dict(plain.state_dict(), strict=True)
        assert torch.equal(twin(x), expected)
        double = copy.deepcopy(network).double()
        equal(double(x.double()).float(), expected)


def test_points_are_the_untuned_networks(pair):
    model, network = pair
    x, plain = random_images(2, 3, *PIXELS), hl.deploy(model)
    expected, theirs = plain.run_with_cache(x)
    got, ours = network.run_with_cache(x)
    assert ours.keys() == theirs.keys()
    for name in ours:
        equal(ours[name], theirs[name])
    equal(got, expected)
    edit = {"*mlp.hidden": hl.edit.scale(0.5)}
    with network.edits(edit), plain.edits(edit), torch.no_grad():
        equal(network(x), plain(x))


def test_compilers_and_exporters_get_what_they_get_of_the_untuned():
    model, x = (
        build(depths=(1,), dims=(4,), region=3, shift=1, shift_cycle=1),
        random_images(1, 3, 19),
    )
    fast = {"F.linear": 0.5, "strided reading and writing": 0.5, "4 parts": 0.5, "tuned": 0.5}
    network = tuned(model, fast)
    assert {m.way for m in parts(network)} <= fast.keys()
    ours, theirs = (torch.export.export(n, (x,)) for n in (network, hl.deploy(model)))
    assert ours.graph_module.code == theirs.graph_module.code
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    with torch.no_grad():
        equal(compiled(x), model(x))
    torch._dynamo.reset()


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"tune": 1}, r"tune is 1; give True or False"),
        ({"img_size": 224}, r"what tune=True measures for; add it, or leave them out"),
        ({"batch_size": 8}, r"what tune=True measures for; add it, or leave them out"),
        ({"tune": True, "img_size": 2}, r"img_size is 2; give \(height, width\) in pixels"),
        ({"tune": True, "batch_size": 0}, r"batch_size is 0; give a whole number of images"),
        ({"tune": True, "batch_size": 1.5}, r"batch_size is 1\.5; give a whole number of images"),
    ],
    ids=str,
)
def test_wrong_arguments(arguments, sentence):
    with pytest.raises(hl.HirelabError, match=sentence):
        hl.deploy(build(), **arguments)


def test_the_meta_device_is_refused():
    with pytest.raises(hl.HirelabError, match=r"on the meta device, where nothing is computed"):
        hl.deploy(HireMLP(**SMALL, device="meta"), tune=True)


def test_untuned_networks_say_so():
    assert hl.deploy(build()).tuning is None


def test_without_the_private_operator(monkeypatch):
    monkeypatch.setattr(sys.modules["hirelab.models.deploy"], "_ONEDNN", False)
    model, x = build(), random_images(2, 3, *PIXELS)
    network = tuned(model, {"F.linear": 0.5, "tuned": 0.5})
    assert {m.way for m in parts(network, Linear)} == {"F.linear"}
    with torch.no_grad():
        equal(network(x), model(x))
