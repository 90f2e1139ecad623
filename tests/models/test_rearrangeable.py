"""One exported graph computes what the network computes, however the rearrangement is set."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from _helpers import random_images, randomise

import hirelab as hl
from hirelab.cli import main
from hirelab.models.export import DESCRIPTION, DESCRIPTION_FILE, export
from hirelab.models.rearrangeable import (
    RearrangeableHireMLP,
    describe,
    index_maps,
    rearrangements,
)
from hirelab.rearrange import CROSS_REGIONS, PADDINGS, Rearrangement

SIDE = 72  # maps of 18, 9, 5 and 3 tokens a side: with regions of 4, 3, 3 and 2, three are padded
POINTS = ["stages.?.out", "*.hire.gate.out", "stages.0.blocks.1.*", "stages.0.blocks.1.out"]
SETTINGS = [
    {"shift": shift, "padding": padding, "cross_region": mode, "restore": restore}
    for shift in ((0, 0, 0, 0), (3, -2, 1, 7))
    for padding in PADDINGS
    for mode in CROSS_REGIONS
    for restore in (True, False)
]


@pytest.fixture
def model():
    """A network that a test may set as it likes. Exporting takes time by the block."""
    return network()


def network():
    return randomise(hl.create("hire_mlp_atto", seed=0, num_classes=5, depths=(2, 1, 1, 1)))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "net"
    return export(network(), path, img_size=SIDE, rearrangeable=True, points=POINTS)


@pytest.fixture(scope="module")
def session(file):
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


def test_the_file_is_the_network_for_every_setting_and_point(session, model):
    x = random_images(2, 3, SIDE, SIDE)
    names = [output.name for output in session.get_outputs()]
    assert {"logits", "stages.3.out", "stages.0.blocks.1.hire.height.regions"} <= set(names)
    answers = []
    for settings in SETTINGS:
        model.set_rearrangement(**settings)
        found = dict(zip(names, session.run(None, inputs(model, x)), strict=True))
        logits, cache = model.run_with_cache(x, names[1:])
        assert not {*names[1:]} ^ {*cache}
        for name, expected in {"logits": logits, **cache}.items():
            error = np.abs(found[name] - expected.numpy()).max()
            assert error < 1e-4, (settings, name, error)
        answers.append(found["logits"])
    # the settings are others, also to the network: 2 without shift, 4 paddings, and with shift
    # 4 paddings for every mode, of which "none" knows no restore
    assert len(np.unique(np.round(answers, 4), axis=0)) == 4 + 4 * 4


def inputs(model, x):
    return {"pixels": x.numpy(), **index_maps(model, SIDE)}


def test_a_single_block_can_be_moved(session, model):
    x = random_images(1, 3, SIDE, SIDE)
    before = session.run(["logits"], inputs(model, x))[0]
    model.stages[1].blocks[0].hire.width.shift = 2
    moved = session.run(["logits"], inputs(model, x))[0]
    assert np.abs(moved - before).max() > 1e-3
    np.testing.assert_allclose(moved, model(x).detach().numpy(), atol=1e-4)


def test_the_maps_are_those_of_every_branch(model):
    maps, found = index_maps(model, SIDE), rearrangements(model, SIDE)
    assert list(found) == list(model.axis_branches())
    assert len(maps) == 2 * len(found) == len(RearrangeableHireMLP(model).map_names)
    assert found["stages.0.blocks.1.hire.width"] == Rearrangement(18, 4, 2)
    assert np.array_equal(maps["stages.2.blocks.0.hire.height.slots"], [0, 1, 2, 3, 4, 0])
    assert {m.dtype for m in maps.values()} == {np.dtype(np.int64)}


def test_the_file_says_how_to_drive_it(session, model):
    said = json.loads(session.get_modelmeta().custom_metadata_map[DESCRIPTION])
    assert said == describe(model, SIDE)
    assert said["img_size"] == SIDE
    assert said["shift_cycle"] == [2, 2, 3, 2]
    fields = Rearrangement.__dataclass_fields__
    maps = {}
    for branch in said["branches"]:
        r = Rearrangement(**{name: branch[name] for name in fields})
        maps[f"{branch['name']}.slots"] = r.slots.ravel()
        maps[f"{branch['name']}.landing"] = r.landing
    x = random_images(1, 3, SIDE, SIDE).numpy()
    logits = session.run(["logits"], {"pixels": x, **maps})[0]
    np.testing.assert_allclose(logits, model(torch.from_numpy(x)).detach().numpy(), atol=1e-4)
    gates = [name for name in session.get_outputs() if name.name.endswith("gate.out")]
    assert list(said["gates"]) == [gate.name for gate in gates]


def test_half_precision_weights_stay_half_and_lose_nothing(tmp_path):
    """As the bundled ones are: in their file, and in the graph made of them."""
    model = hl.create("hire_mlp_atto", seed=1, num_classes=3, depths=(1, 1, 1, 1))
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(tensor.half())
    path = export(model, tmp_path / "half", img_size=32, rearrangeable=True)
    kinds = [tensor.data_type for tensor in onnx.load(path).graph.initializer]
    assert onnx.TensorProto.FLOAT16 in kinds
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert path.stat().st_size < 3 * weights + 300_000  # the graph itself has its size too
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = random_images(1, 3, 32, 32)
    found = session.run(["logits"], {"pixels": x.numpy(), **index_maps(model, 32)})[0]
    np.testing.assert_allclose(found, model(x).detach().numpy(), atol=1e-5)
    assert str(tmp_path).encode() not in path.read_bytes()
    assert b"stack_trace" not in path.read_bytes()


def test_an_exported_program_takes_the_maps_too(model, tmp_path, capsys):
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    command = ["export", str(tmp_path / "mine.pth"), "--format", "exported-program", "--out"]
    command += [str(tmp_path / "out"), "--img-size", "64", "--rearrangeable", "--point", "stages.1"]
    assert main(command) == 0
    extra = {DESCRIPTION_FILE: ""}
    program = torch.export.load(tmp_path / "out.pt2", extra_files=extra)
    model.set_rearrangement(shift=1, padding="zero")
    x = random_images(3, 3, 64, 64)
    maps = [torch.from_numpy(m) for m in index_maps(model, 64).values()]
    logits, point = program.module()(x, *maps)
    expected, cache = model.run_with_cache(x, "stages.1")
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(point, cache["stages.1"], rtol=1e-4, atol=1e-5)
    assert json.loads(extra[DESCRIPTION_FILE])["img_size"] == 64
    assert "out.pt2" in capsys.readouterr().out


def test_refusals_name_the_cure_and_leave_nothing(model, tmp_path):
    wrong = [
        ({"dynamic_size": True, "rearrangeable": True}, "one size of image: leave dynamic_size"),
        ({"points": ["stages.1"]}, "add rearrangeable"),
        ({"rearrangeable": True, "points": ["stages.9"]}, "stages.9"),
        ({"rearrangeable": True, "img_size": 2}, "at least 3 pixels"),
    ]
    for arguments, words in wrong:
        with pytest.raises(hl.HirelabError, match=words):
            export(model, tmp_path / "net", **arguments)
    with pytest.raises(hl.HirelabError, match="a DeployedHireMLP: give"):
        export(hl.deploy(model), tmp_path / "net", rearrangeable=True)
    still = hl.create("hire_mlp_atto", branches=("channel",), depths=(1, 1, 1, 1))
    with pytest.raises(hl.HirelabError, match="no height and no width branch"):
        index_maps(still, 64)
    assert list(tmp_path.iterdir()) == []


def test_the_network_is_left_as_it_is(model, leaves_no_hooks):
    leaves_no_hooks(model)
    model.train()
    index_maps(model, 64)
    assert all(module.training for module in model.modules())
    model.eval()
    x = random_images(1, 3, 64, 64)
    before, branches = model(x), model.axis_branches()
    made = RearrangeableHireMLP(model)
    made(x, *(torch.from_numpy(m) for m in index_maps(model, 64).values()))
    assert model.axis_branches() == branches
    assert torch.equal(model(x), before)
