"""The folder of a run: whose it is, and what it tells."""

from __future__ import annotations

import dataclasses
import json

import pytest
from _training import NETWORK, RECIPE, run
from PIL import Image

from hirelab._shared.errors import HirelabError
from hirelab.datasets.subsets import open_images
from hirelab.training.loop import train
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
