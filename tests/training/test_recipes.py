"""Recipes: the presets, changes of them, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest

from hirelab._shared.errors import HirelabError
from hirelab.training.recipes import PRESETS, Recipe, preset, table


def test_images_grow_from_the_first_size_to_the_last():
    recipe = PRESETS["subset"]
    sizes = [recipe.img_size_at(epoch) for epoch in range(recipe.epochs)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (recipe.start_img_size, recipe.img_size)
    assert all(size % 32 == 0 for size in sizes)
    constant = dataclasses.replace(recipe, start_img_size=0, img_size=100)
    assert {constant.img_size_at(epoch) for epoch in range(constant.epochs)} <= {96, 100}


def test_presets_say_how_they_differ_from_the_papers():
    for name, recipe in PRESETS.items():
        changed = {key: mine for key, (_, mine) in recipe.differences().items()}
        assert dataclasses.replace(PRESETS["imagenet"], **changed) == recipe, name
    assert not PRESETS["imagenet"].differences()


def test_settings_on_the_command_line():
    recipe, network = preset(
        "quick", ["epochs=7", "lr=1", "auto_augment=", "model.cross_region=none"]
    )
    assert (recipe.epochs, recipe.lr, recipe.auto_augment) == (7, 1.0, "")
    assert network == {"cross_region": "none"}
    for change, match in (
        ("epoch=7", "no setting 'epoch'.*'epochs'"),
        ("epochs=many", "epochs is 'many' and must be of type int"),
        ("epochs", "NAME=VALUE, not 'epochs'"),
        ("epochs=0", "epochs is 0 and must be at least 1"),
        ("precision=half", "precision is 'half'"),
        ("mixup=-0.1", "mixup is -0.1 and must be at least 0"),
        ("warmup_epochs=-1", "warmup_epochs is -1 and must be at least 0"),
        ("smoothing=1.5", "smoothing is 1.5 and must be from 0 to 1"),
        ("drop_path=1.0", "drop_path is 1.0 and must be from 0 to below 1"),
        ("start_img_size=96", r"start_img_size is 96 and must be 0, or from 32 to img_size \(64\)"),
    ):
        with pytest.raises(HirelabError, match=match):
            preset("quick", [change])
    with pytest.raises(HirelabError, match=r"no preset 'quik'.*'quick'"):
        preset("quik")


def test_the_table_has_each_setting_once_and_shows_what_differs():
    lines = table().splitlines()
    assert lines[0].split() == list(PRESETS)
    assert [line.split()[0] for line in lines[1:]] == [f.name for f in dataclasses.fields(Recipe)]
    (line,) = (line for line in lines if line.startswith("batch_size"))
    assert line.split() == ["batch_size", "1024", "2048", "64", "64", "64"]
