"""The bundled weights: whole, loaded without a network, and as good as their manifest says."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import socket
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

import hirelab as hl
from hirelab._shared.files import data_folder
from hirelab.ablation.ledger import Ledger
from hirelab.ablation.protocols import PROFILES, recall
from hirelab.ablation.repeats import AGAIN
from hirelab.ablation.tables import cells, find_tables
from hirelab.datasets.cache import decode
from hirelab.datasets.subsets import DATA_SETS, find_data_set, open_images
from hirelab.datasets.words import word
from hirelab.models import pretrained
from hirelab.training import release
from hirelab.training.evaluation import evaluate
from hirelab.training.runs import open_network

NAMES = ["hire_mlp_pico.imagenette", "hire_mlp_pico.imagenette_isolated"]
WIDE = "hire_mlp_pico.tinyimagenet"
SMALL = ["hire_mlp_atto.imagenette", "hire_mlp_atto.imagenette_regions_of_1"]
PEERS = ["resnet18.imagenette_narrow"]
HIRE = [*NAMES, WIDE, *SMALL]
EVERY = [*HIRE, *PEERS]
every = pytest.mark.parametrize("name", EVERY)


def test_these_are_bundled():
    assert set(pretrained.bundled()) == set(EVERY)
    files = {path.name for path in pretrained.FOLDER.iterdir() if path.is_file()}
    endings = ("safetensors", "json", "history.jsonl", "evaluation.npz")
    assert files == {"README.md", *(f"{n}.{e}" for n in EVERY for e in endings)}


def test_a_later_release_does_not_take_the_place_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    for name, started in (("a.old", "2026-11-22"), ("a.new", "2026-11-26"), ("a.b", "2026-11-26")):
        (tmp_path / f"{name}.json").write_text(json.dumps({"started": started}))
    assert list(pretrained.bundled()) == ["a.old", "a.b", "a.new"]


@every
def test_the_file_is_that_of_the_manifest(name):
    path, facts = pretrained.path_of(name), pretrained.manifest(name)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == facts["sha256"]
    assert path.stat().st_size < release.MOST_BYTES
    for key, value in load_file(path).items():
        assert value.isfinite().all(), key
        half = value.ndim > 1 and value.is_floating_point()
        assert (value.dtype == torch.float16) == half, key


@pytest.mark.parametrize("name", HIRE)
@pytest.mark.parametrize("make", [hl.create, timm.create_model])
def test_it_loads_without_a_network(name, make, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    state = make(name, pretrained=True).state_dict()
    kept = load_file(pretrained.path_of(name))
    assert state.keys() == kept.keys()
    for key, value in kept.items():
        assert torch.equal(state[key], value.to(state[key].dtype)), key


def test_the_first_is_loaded_without_a_tag_and_fits_other_heads():
    first = load_file(pretrained.path_of(NAMES[0]))
    model = hl.create("hire_mlp_pico", pretrained=True)
    assert torch.equal(model.head.weight, first["head.weight"].float())
    assert model.pretrained_cfg["label_names"] == tuple(
        pretrained.manifest(NAMES[0])["label_names"]
    )
    other = hl.create("hire_mlp_pico", pretrained=True, num_classes=3, in_chans=1, seed=0)
    assert other.head.weight.shape == (3, 256)
    key = "stages.2.blocks.1.mlp.fc1.weight"
    assert torch.equal(other.state_dict()[key], first[key].float())


def test_the_isolated_one_is_built_without_exchange_between_regions():
    for name, mode in zip(NAMES, ("shift", "none"), strict=True):
        model = hl.create(name, pretrained=True)
        assert {b.cross_region for b in model.axis_branches().values()} == {mode}
        asked = release.run_info(name).config.model_arguments.get("cross_region", "shift")
        assert asked == mode
    changed = hl.create(NAMES[1], pretrained=True, cross_region="shift")
    assert {b.cross_region for b in changed.axis_branches().values()} == {"shift"}


def test_the_two_were_trained_alike_but_for_one_thing():
    one, two = (release.run_info(name).config.to_json() for name in NAMES)
    assert {key for key in one if one[key] != two[key]} == {"model_arguments"}
    assert set(two["model_arguments"].items()) - set(one["model_arguments"].items()) == {
        ("cross_region", "none")
    }


def test_the_small_ones_are_runs_of_the_sweep():
    """Each the first seed of a network of the ledger, trained by the printed command."""
    ledger = Ledger(data_folder("results") / "ablations" / "imagenette-cpu")
    again = Ledger(ledger.folder / AGAIN)
    chosen = recall(ledger.folder, PROFILES["cpu"])
    networks = {str(one): one for one in cells(find_tables(("all",), "hire_mlp_atto"))}
    for name in (*SMALL, *PEERS):
        config = release.run_info(name).config
        (one,) = (
            one
            for one in networks.values()
            if (one.model or chosen.model) == config.model
            and all(list_of(config.model_arguments[k]) == list_of(v) for k, v in one.arguments)
        )
        key = chosen.key(one, 0)
        assert config.seed == 0
        assert again.get(key).top1 == pytest.approx(pretrained.manifest(name)["top1"], abs=0.15)
        assert ledger.get(key) is not None
        model, _ = open_network(name)
        assert sum(p.numel() for p in model.parameters()) == ledger.get(key).parameters


def list_of(value):
    """Lists for tuples, as JSON gives them back."""
    return [list_of(one) for one in value] if isinstance(value, (list, tuple)) else value


def test_the_third_went_on_from_the_first_and_shares_none_of_its_classes():
    first, wide = (release.run_info(name).config for name in (NAMES[0], WIDE))
    assert wide.model_arguments == {"pretrained": True}
    assert not set(first.classes) & set(wide.classes)
    model = hl.create(WIDE, pretrained=True)
    assert model.num_classes == len(model.pretrained_cfg["label_names"]) == 200
    assert model.pretrained_cfg["input_size"] == (3, 96, 96)


@every
def test_the_manifest_is_what_was_evaluated(name):
    facts, found = pretrained.manifest(name), release.evaluation(name)
    config = release.run_info(name).config
    assert facts["top1"] == round(found.accuracy(1), 2)
    assert facts["top5"] == round(found.accuracy(5), 2)
    assert facts["images"] == len(found.labels)
    if name != WIDE:
        assert facts["images"] == DATA_SETS["imagenette"].val
    else:  # half of them
        assert 2 * facts["images"] == DATA_SETS["tinyimagenet"].val
    assert config.data_fingerprints["val"] == found.data_fingerprint
    assert found.classes == facts["label_names"] == list(map(word, config.classes))
    rows = release.history(name).rows
    assert len(rows) == config.recipe.total_epochs
    # half precision costs little: the last row is of the weights before they were halved
    assert rows[-1]["val_top1"] == pytest.approx(found.accuracy(1), abs=0.3)


@every
def test_the_network_answers_as_its_evaluation_says(name):
    """On every eighth of the real validation images: `hirelab evaluate` runs all of them."""
    source, kept = release.run_info(name).source, release.evaluation(name)
    pack = find_data_set(DATA_SETS[source])
    if pack is None:
        pytest.skip(f"{source} is not here: name its folder in HIRELAB_DATA")
    images = open_images(pack, "val")
    if images.fingerprint != kept.data_fingerprint:
        pytest.skip(f"another copy of {source} than the one in the manifest")
    recipe = release.run_info(name).config.recipe
    decoded = decode(images, recipe.stored_size, progress=False)
    some = dataclasses.replace(
        decoded, **{part: getattr(decoded, part)[::8] for part in ("pixels", "labels", "kept")}
    )
    again = evaluate(open_network(name)[0], some, recipe.img_size)
    # other processors round otherwise
    np.testing.assert_allclose(again.probabilities, kept.probabilities[::8], atol=2e-3)
    assert (again.labels == kept.labels[::8]).all()
    assert pretrained.manifest(name)["top1"] == round(kept.accuracy(1), 2)


def test_the_card_shows_what_the_evaluations_say():
    text = (pretrained.FOLDER / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- tables -->\n(.*?)\n<!-- end -->", text, re.DOTALL)[1]
    assert shown == release.card_tables()
    for name in EVERY:
        assert f"`{name}`" in text
        assert f"{release.evaluation(name).accuracy(1):.2f}" in shown
        assert pretrained.manifest(name)["command"] in text


def test_unknown_names_suggest_near_ones():
    with pytest.raises(ValueError, match=r"'hire_mlp_pico\.imagenet'\. Did you mean"):
        pretrained.manifest("hire_mlp_pico.imagenet")


def test_missing_files_say_what_to_do(tmp_path):
    overlay = {"file": str(tmp_path / "gone.safetensors")}
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors does not exist.*clone it"):
        hl.create("hire_mlp_pico", pretrained=True, pretrained_cfg_overlay=overlay)


@every
def test_manifests_name_no_machine(name):
    text = json.dumps(pretrained.manifest(name))
    assert not re.search(r'[" ](/[\w.-]+){2,}', text)
    assert os.sep + "home" not in text
    assert str(Path.home()) not in text
