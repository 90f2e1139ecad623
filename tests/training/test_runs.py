"""The folder of a run: whose it is, and what it tells."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import torch
from _training import NETWORK, RECIPE, run
from PIL import Image
from safetensors.torch import save_file

from hirelab._shared.errors import HirelabError
from hirelab.datasets.subsets import open_images
from hirelab.training.loop import train
from hirelab.training.progress import Progress, restore_checkpoint, save_checkpoint
from hirelab.training.runs import RunConfig, RunInfo, load_run, read_history, read_run


def test_a_folder_belongs_to_one_run(data, straight, tmp_path):
    with pytest.raises(HirelabError, match=r"holds another run \(lr 0\.01, not 0\.02\)"):
        run(data, straight, dataclasses.replace(RECIPE, lr=0.02))
    with pytest.raises(HirelabError, match=r"seed 3, not 5"):
        train("hire_mlp_atto", data, RECIPE, straight, model_arguments=NETWORK, seed=5)
    (tmp_path / "letter.txt").write_text("not a run")
    with pytest.raises(HirelabError, match="files of something else"):
        run(data, tmp_path)
    with pytest.raises(HirelabError, match="is a file"):
        run(data, tmp_path / "letter.txt")
    assert (tmp_path / "letter.txt").read_text() == "not a run"


def test_a_run_killed_before_it_had_a_name_leaves_its_folder_free(data, tmp_path):
    (tmp_path / ".run.json.abcd_123.part").write_text('{"config"')
    assert not run(data, tmp_path, stop_after=1).done
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
    assert read_run(tmp_path).config.seed == 3


def test_a_run_tells_what_it_was(straight, data):
    network, info = load_run(straight)
    assert not network.training
    assert len(network.stages) == 2
    assert info == read_run(straight)
    config = info.config
    assert (config.model, config.seed, config.recipe) == ("hire_mlp_atto", 3, RECIPE)
    assert config.classes == ("blue", "green", "red")
    assert config.images == {"train": 36, "val": 12}
    for split, fingerprint in config.data_fingerprints.items():
        assert fingerprint == open_images(data, split).fingerprint
    assert (info.source, info.processes) == (str(data), 1)


def test_a_configuration_comes_back_from_json_and_knows_what_changed():
    arguments = {"dims": (8, 12)}
    config = RunConfig("a", arguments, 1, RECIPE, ("x", "y"), {"train": "1", "val": "2"})
    text = json.dumps(config.to_json())
    again = RunConfig.from_json(json.loads(text))
    assert again.recipe == RECIPE
    assert again.classes == ("x", "y")
    assert not config.differences(again)  # lists of JSON and tuples are the same
    other = dataclasses.replace(
        again, seed=2, recipe=dataclasses.replace(RECIPE, lr=0.5), images={"train": 3}
    )
    assert config.differences(other, but=("images",)) == {"lr": (RECIPE.lr, 0.5), "seed": (1, 2)}


def test_what_is_no_description_of_a_run_is_refused(straight, tmp_path):
    facts = read_run(straight).to_json()
    assert RunInfo.from_json({**facts, "top1": 5}) == read_run(straight)  # as in a manifest
    for wrong in ({"asked": {}}, {**facts, "config": {**facts["config"], "depth": 2}}):
        (tmp_path / "run.json").write_text(json.dumps(wrong))
        with pytest.raises(HirelabError, match=r"run\.json: .*no description of a run"):
            read_run(tmp_path)
    with pytest.raises(HirelabError, match=r"has no run\.json"):
        load_run(tmp_path / "nothing")
    with pytest.raises(HirelabError, match="does not exist"):
        read_history(tmp_path)


def test_curves_say_how_the_run_ended(straight):
    rows = read_history(straight).rows
    text = str(read_history(straight).plot())
    assert f"loss {rows[-1]['loss']:.2f}" in text
    assert f"top-1 {rows[-1]['val_top1']:.1f} %" in text
    with Image.open(straight / "curves.png") as image:
        assert image.width > image.height > 100


# ------------------------------------------------------------------ what the fuzzing found


@pytest.fixture
def copied(straight, tmp_path):
    """A finished run's folder, to be damaged."""
    return shutil.copytree(straight, tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["config"].update(seed="1"), "its seed is '1' and no int"),
        (lambda c: c["config"].update(classes=3), "not iterable"),
        (lambda c: c["config"].update(classes=[3]), "its classes is"),
        (lambda c: c["config"]["recipe"].update(auto_augment=3), "its auto_augment is 3"),
        (lambda c: c["config"].update(model_arguments=[]), "its model_arguments is"),
        (lambda c: c.update(command=None), "its command is None"),
    ],
)
def test_a_description_with_odd_values_is_refused(copied, change, said):
    content = json.loads((copied / "run.json").read_text())
    change(content)
    (copied / "run.json").write_text(json.dumps(content))
    with pytest.raises(HirelabError, match=rf"run\.json: .*{said}"):
        read_run(copied)


def test_a_deep_description_is_refused(copied):
    (copied / "run.json").write_text("[" * 100_000)
    with pytest.raises(HirelabError, match=r"run\.json: it is nested too deeply"):
        read_run(copied)


@pytest.mark.parametrize("line", ["{", "3", "{}", '{"epoch": "1"}', '{"loss": 1}', "[" * 100_000])
def test_a_damaged_history_is_refused(copied, line):
    (copied / "history.jsonl").write_text(line)
    with pytest.raises(HirelabError, match=r"history\.jsonl is no history of a run"):
        read_history(copied)


@pytest.mark.parametrize("content", [b"", b"x" * 100, None])
def test_weights_that_are_none_or_anothers_are_refused(copied, content):
    path = copied / "model.safetensors"
    if content is None:
        save_file({"stem.conv.weight": torch.zeros(1)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(HirelabError, match=r"model\.safetensors"):
        load_run(copied)


def test_settings_that_no_network_takes_are_refused(copied):
    content = json.loads((copied / "run.json").read_text())
    content["config"]["model_arguments"] = {"depths": [1, None], "region": "x" * 9000}
    (copied / "run.json").write_text(json.dumps(content))
    with pytest.raises(HirelabError, match=r"run\.json") as caught:
        load_run(copied)
    assert len(str(caught.value)) <= 600


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c.pop("model"),
        lambda c: c.pop("state"),
        lambda c: c["state"].update(step="3"),
        lambda c: c["state"].update(nonsense=3),
        lambda c: c["model"].pop("weight"),
        lambda c: c["model"].update(weight=torch.zeros(7)),
    ],
)
def test_a_damaged_checkpoint_is_refused(tmp_path, spoil):
    part = torch.nn.Linear(2, 3)
    save_checkpoint(tmp_path, {"model": part}, Progress(3))
    assert restore_checkpoint(tmp_path, {"model": part}) == Progress(3)
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    spoil(content)
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(HirelabError, match=r"checkpoint\.pt"):
        restore_checkpoint(tmp_path, {"model": part})
