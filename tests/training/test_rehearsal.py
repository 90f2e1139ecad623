"""Before a run: whatever is wrong is said, and nothing is written for it."""

from __future__ import annotations

import dataclasses

import pytest
from _training import NETWORK, RECIPE

from hirelab._shared.errors import HirelabError
from hirelab.cli import main
from hirelab.training import rehearsal
from hirelab.training.rehearsal import rehearse


@pytest.mark.parametrize(
    ("model", "arguments", "changes", "said"),
    [
        ("hire_mlp_tny", {}, {}, "Did you mean 'hire_mlp_tiny'"),
        ("hire_mlp_pico.imagenette", {}, {}, "names weights, .* give the network, hire_mlp_pico$"),
        ("hire_mlp_atto", {"regoin": 2}, {}, "regoin"),
        ("hire_mlp_atto", {"padding": "mirror"}, {}, "mirror"),
        ("vit_tiny_patch16_224", {}, {}, "cannot read images of 32 x 32 pixels"),
        ("hire_mlp_atto", {"global_pool": ""}, {}, r"answers \[1, 10, 1, 1\] .* give a classifier"),
        ("hire_mlp_atto", {}, {"auto_augment": "rubbish"}, "cannot augment .*'rubbish'"),
    ],
)
def test_what_would_fail_at_the_first_step_is_said_before(
    data, tmp_path, model, arguments, changes, said
):
    recipe = dataclasses.replace(RECIPE, **changes)
    with pytest.raises(HirelabError, match=said):
        rehearse(model, data, recipe, tmp_path / "run", arguments, seed=0)
    assert not (tmp_path / "run").exists()


def test_every_size_of_the_recipe_is_tried(data, tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=10, img_size=64, start_img_size=32)
    fixed = {"img_size": 64}
    with pytest.raises(HirelabError, match="32 x 32"):
        rehearse("vit_tiny_patch16_224", data, recipe, tmp_path / "run", fixed, seed=0)
    large = dataclasses.replace(recipe, start_img_size=0)
    rehearse("vit_tiny_patch16_224", data, large, tmp_path / "run", fixed, seed=0)


def test_a_folder_of_another_run_is_said_before_the_network_is_built(data, straight):
    with pytest.raises(HirelabError, match=r"holds another run \(seed 3, not 4\)"):
        rehearse("hire_mlp_atto", data, RECIPE, straight, NETWORK, seed=4)
    rehearse("hire_mlp_atto", data, RECIPE, straight, NETWORK, seed=3)


def test_a_missing_package_and_missing_data_are_said(data, tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "find_spec", lambda name: None)
    with pytest.raises(HirelabError, match=r"pip install 'hirelab\[tensorboard\]'"):
        rehearse("hire_mlp_atto", data, RECIPE, tmp_path / "run", NETWORK, 0, tensorboard=True)
    with pytest.raises(HirelabError, match="no data set"):
        rehearse("hire_mlp_atto", tmp_path / "gone", RECIPE, tmp_path / "run", NETWORK, 0)


def test_a_corrected_command_goes_on_in_the_same_folder(data, tmp_path, capsys):
    command = ["train", "--data", str(data), "--out", str(tmp_path / "run"), "--preset", "quick"]
    sizes = ["--set", "epochs=1", "warmup_epochs=0", "batch_size=8", "img_size=32"]
    sizes += [f"model.{name}={value}" for name, value in NETWORK.items()]
    assert main([*command, "--model", "hire_mlp_ato", *sizes]) == 2
    assert not (tmp_path / "run").exists()
    assert main([*command, "--model", "hire_mlp_atto", *sizes]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[1].startswith("training hire_mlp_atto on ")  # before anything takes its time
    assert "images of 32 pixels a side" in said[1]
    assert "kept in" in said[2]
    assert said[3].startswith("epoch 1/1")


def test_a_compiled_recipe_wants_a_compiler(data, tmp_path, monkeypatch):
    from torch._inductor import config, cpp_builder

    monkeypatch.setattr(config.cpp, "cxx", (None, "a-compiler-that-is-not-here"))
    cpp_builder.cpp_compiler_search.cache_clear()
    monkeypatch.delenv("CXX", raising=False)
    compiled = dataclasses.replace(RECIPE, compile=True)
    with pytest.raises(HirelabError, match=r"no C\+\+ compiler .*--set compile=False"):
        rehearse("hire_mlp_atto", data, compiled, tmp_path / "run", {}, seed=0)
    assert not (tmp_path / "run").exists()
    cpp_builder.cpp_compiler_search.cache_clear()
