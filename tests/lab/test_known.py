"""Images of classes that a network knows: what is chosen, and what is said where there are none."""

from __future__ import annotations

import pytest
from PIL import Image

import hirelab as hl
from hirelab._shared.errors import HirelabError
from hirelab.datasets.images import open_image
from hirelab.lab.known import ROW, groups, known_images


@pytest.fixture
def no_data(monkeypatch, tmp_path):
    monkeypatch.setenv("HIRELAB_DATA", "")
    monkeypatch.setenv("HIRELAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    """Two classes of Imagenette, three images each that show something else."""
    for number in ("n01440764", "n02102040"):
        place = tmp_path / "data" / "val" / number
        place.mkdir(parents=True)
        for name in ("cat", "coffee", "rocket"):
            open_image(name).resize((64, 64)).save(place / f"{name}.png")
    return tmp_path / "data"


def test_the_first_of_every_group_are_chosen():
    labels = [0, 0, 0, 1, 1, 2, 2, 2, 2]
    answers = [0, 0, 1, 1, 0, 1, 1, 0, 1]
    found = groups(labels, answers)
    assert found.right == [0, 3, 1]  # of every class the first, then the others
    assert found.wrong == [2, 4, 5, 6]
    assert (found.pair, found.confused) == ((2, 1), [5, 6, 8])
    assert found.accuracy == pytest.approx(3 / 9)


def test_nothing_is_confused_where_all_is_right():
    found = groups([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5])
    assert (found.wrong, found.confused, found.pair, found.accuracy) == ([], [], None, 1)
    assert found.right == [0, 1, 2, 3][:ROW]


def test_a_folder_is_answered_and_drawn(trained, folder, leaves_no_hooks):
    leaves_no_hooks(trained)
    figure = known_images(trained, folder, n=6, img_size=64)
    x, words = hl.samples(6, 64, folder, trained)
    classes = trained.pretrained_cfg["label_names"]
    right = [classes[i] == w for i, w in zip(trained(x).argmax(1).tolist(), words, strict=True)]
    assert figure.text.startswith(f"{sum(right) / 6:.0%} of 6 images right")
    assert not trained.training


def test_without_the_data_it_says_how_to_get_it(trained, no_data, capsys):
    assert known_images(trained, "imagenette") is None
    said = capsys.readouterr().out
    assert "hirelab data get imagenette" in said
    assert "/" not in said  # no path of this machine


def test_what_cannot_be_judged_is_refused(trained, tmp_path, folder, no_data):
    with pytest.raises(HirelabError, match="label_names"):
        known_images(hl.create("hire_mlp_atto", seed=0), folder)
    with pytest.raises(HirelabError, match="Did you mean"):
        known_images(trained, "imagenete")
    (tmp_path / "pets" / "dog").mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(tmp_path / "pets" / "dog" / "a.png")
    with pytest.raises(HirelabError, match="images of 'dog'"):
        known_images(trained, tmp_path / "pets", img_size=64)
