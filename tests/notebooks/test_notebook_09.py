"""What notebook 09 says in prose is so, and its defaults need no download."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
import timm

import hirelab as hl
from hirelab.datasets.words import word
from hirelab.training import release

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "09_your_own.ipynb"


@pytest.fixture(scope="module")
def cells():
    return nbformat.read(NOTEBOOK, as_version=4).cells


@pytest.fixture(scope="module")
def prose(cells) -> str:
    return "\n".join(c.source for c in cells if c.cell_type == "markdown")


def test_the_class_numbers_are_those_of_the_network(cells, prose):
    known = release.run_info("hire_mlp_pico.imagenette").config.classes
    names = hl.create("hire_mlp_pico", pretrained=True).pretrained_cfg["label_names"]
    assert list(map(word, known)) == list(names)
    number = dict(zip(names, known, strict=True))
    assert f"`{number['parachute']}` is ImageNet's number of the parachute" in prose
    for image, name in (("rocket", "parachute"), ("cat", "English springer")):
        assert any(f'"{image}": "{number[name]}"' in cell.source for cell in cells)
    assert len(names) == 10  # "knows ten"


def test_a_new_resnet_of_timm_has_its_blocks_switched_off():
    blocks = [m for m in timm.create_model("resnet18").modules() if hasattr(m, "bn2")]
    assert len(blocks) == 8
    assert not any(block.bn2.weight.any() for block in blocks)  # "at zero"


def test_only_the_untrained_network_is_called_untrained():
    told = "the weights are untrained"
    assert told in str(hl.suggest_target_layer(timm.create_model("resnet18").eval()))
    assert told not in str(hl.suggest_target_layer(hl.create("hire_mlp_pico", pretrained=True)))


def test_the_defaults_need_no_network(cells):
    lines = [line for c in cells if c.cell_type == "code" for line in c.source.splitlines()]
    live = [line for line in lines if not line.lstrip().startswith("#")]
    assert not any("timm" in line and "pretrained=True" in line for line in live)
    assert "folder = None" in "\n".join(live)
