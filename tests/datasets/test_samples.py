"""Photographs, the reader's own files and labelled sets, ready for a network."""

import re
import socket
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import timm.data
import torch
from _helpers import GREEN, four_corners, noise_image, same_image
from PIL import Image
from torch import nn

from hirelab._shared.errors import HirelabError
from hirelab.datasets import (
    IMAGENET_MEAN,
    PHOTOGRAPHS,
    iter_images,
    open_image,
    pixels,
    samples,
    square,
)


def test_photographs_need_no_network(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert tuple(samples(None, img_size=8)[1]) == PHOTOGRAPHS


# --- many images --------------------------------------------------------------------------


def test_without_a_source_come_the_photographs():
    assert [name for name, _ in iter_images()] == list(PHOTOGRAPHS[:4])
    assert [name for name, _ in iter_images(n=1)] == ["cat"]
    assert [name for name, _ in iter_images(n=None)] == list(PHOTOGRAPHS)
    with pytest.raises(ValueError, match=f"{len(PHOTOGRAPHS)} sample photographs and n is 99"):
        iter_images(n=99)


def test_of_a_folder_come_its_images_in_order(tmp_path):
    for name in ("c.jpeg", "a.PNG", "b.jpg", ".hidden.jpg"):
        four_corners().save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image, and not meant to be one")
    (tmp_path / "data.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "folder.png").mkdir()
    for folder in (tmp_path, str(tmp_path)):
        assert [name for name, _ in iter_images(folder)] == ["a.PNG", "b.jpg", "c.jpeg"]
    assert [name for name, _ in iter_images(tmp_path, n=2)] == ["a.PNG", "b.jpg"]
    assert len(iter_images(tmp_path, n=None)) == 3


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no image in the folder .*holds no file.*\.jpg.*\.png"):
        iter_images(tmp_path)


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match=r"none of its 1 files is an image.*\.jpg"):
        samples(1, source=tmp_path)


def test_one_broken_image_in_a_folder_is_named(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        noise_image(50, 50).save(tmp_path / name)
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"b\.png' is damaged"):
        iter_images(tmp_path)
    assert len(iter_images(tmp_path, n=1)) == 1


def test_one_file_or_name_is_a_list_of_one(tmp_path):
    four_corners().save(tmp_path / "a.png")
    assert [name for name, _ in iter_images(tmp_path / "a.png")] == ["a.png"]
    assert [name for name, _ in iter_images("rocket")] == ["rocket"]
    with Image.open(tmp_path / "a.png") as opened:
        assert [name for name, _ in iter_images(opened)] == ["a.png"]
    assert [name for name, _ in iter_images(np.zeros((2, 2)))] == ["image 1"]


def test_a_list_may_mix_every_kind_of_source(tmp_path):
    four_corners().save(tmp_path / "a.png")
    mixed = ["cat", four_corners(), tmp_path / "a.png", np.zeros((2, 3)), tmp_path]
    found = iter_images(mixed, n=None)
    assert [name for name, _ in found] == ["cat", "image 2", "a.png", "image 4", "a.png"]
    assert all(image.mode == "RGB" for _, image in found)
    assert len(iter_images(mixed, n=2)) == 2


@pytest.mark.parametrize("empty", [[], ()])
def test_an_empty_list_is_refused(empty):
    with pytest.raises(ValueError, match="list of sources is empty"):
        iter_images(empty)


@pytest.mark.parametrize("bad", [0, -3, 2.0, "4", True])
@pytest.mark.parametrize("function", [lambda n: iter_images(n=n), samples])
def test_n_is_a_whole_number(function, bad):
    with pytest.raises(
        ValueError, match=re.escape(f"n is {bad!r}; give a whole number of at least 1")
    ):
        function(bad)


def test_very_long_images(tmp_path):
    Image.new("RGB", (10_000, 10), GREEN).save(tmp_path / "wide.png")
    Image.new("RGB", (1, 10_000), GREEN).save(tmp_path / "high.png")
    for name, image in iter_images(tmp_path):
        assert image.size == ((10_000, 10) if name == "wide.png" else (1, 10_000))
        assert same_image(square(image, 224), Image.new("RGB", (224, 224), GREEN))


def test_a_large_image_opens_without_pillows_warning(tmp_path, monkeypatch):
    four_corners().save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 799)  # it has 800: Pillow warns
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert samples(1, img_size=8, source=tmp_path / "a.png")[1] == ["a.png"]


# --- samples ---------------------------------------------------------------------------------


def test_samples_are_photographs_ready_for_a_network():
    x, names = samples()
    assert names == ["cat", "coffee", "astronaut", "rocket"]
    assert x.shape == (4, 3, 224, 224)
    assert x.dtype == torch.float32
    expected = [np.asarray(square(open_image(name), 224)) for name in names]
    assert (pixels(x) == np.stack(expected)).all()
    again, _ = samples()
    assert torch.equal(x, again)


def test_samples_of_the_readers_own_images(tmp_path):
    four_corners().save(tmp_path / "a.png")
    x, names = samples(n=None, img_size=10, source=[tmp_path, four_corners(), "cat"])
    assert names == ["a.png", "image 2", "cat"]
    assert x.shape == (3, 3, 10, 10)
    assert torch.equal(x[0], x[1])


def test_too_many_sample_photographs_are_refused():
    with pytest.raises(ValueError, match=f"at most {len(PHOTOGRAPHS)}.*folder of your own"):
        samples(len(PHOTOGRAPHS) + 1)


# --- for a network ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixer() -> nn.Module:
    """A network of timm's that wants a mean of 0.5; its weights do not matter here."""
    with torch.device("meta"):
        return timm.create_model("mixer_b16_224")


def test_mean_and_std_are_those_of_the_network(mixer):
    config = timm.data.resolve_model_data_config(mixer)
    assert config["mean"] != IMAGENET_MEAN
    theirs = timm.data.create_transform(**config | {"crop_pct": 1.0})
    x, names = samples(2, model=mixer)
    expected = torch.stack([theirs(open_image(name)) for name in names])
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("cfg", "img_size", "expected"),
    [
        ({"input_size": (3, 48, 48)}, None, 48),
        ({"input_size": (3, 48, 48)}, 32, 32),
        ({}, None, 224),
        (None, None, 224),
    ],
)
def test_the_size_is_the_given_one_else_the_networks(cfg, img_size, expected):
    network = nn.Identity()
    network.pretrained_cfg = cfg
    x, _ = samples(1, img_size, model=network)
    assert x.shape == (1, 3, expected, expected)
    assert torch.equal(x, samples(1, expected)[0])


def test_one_mean_stands_for_all_channels():
    network = nn.Identity()
    network.pretrained_cfg = {"mean": (0.5,), "std": (0.25,)}
    x, _ = samples(1, 16, model=network)
    assert (pixels(x, (0.5,) * 3, (0.25,) * 3) == pixels(samples(1, 16)[0])).all()


def test_what_is_no_network_is_refused():
    with pytest.raises(HirelabError, match="model is a str; give a network"):
        samples(1, model="hire_mlp_pico")


def test_a_network_of_another_shape_needs_a_side():
    network = nn.Identity()
    network.pretrained_cfg = {"input_size": (3, 64, 32)}
    with pytest.raises(HirelabError, match=r"\(64, 32\).*give one side"):
        samples(1, model=network)
    assert samples(1, 32, model=network)[0].shape == (1, 3, 32, 32)


@pytest.mark.parametrize("bad", [0, -1, 7.5, "224", True, 20_000, 2**31])
def test_a_size_that_cannot_be_is_refused_before_work_begins(bad, monkeypatch):
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(HirelabError, match=re.escape(f"img_size is {bad!r}; give ")):
        samples(1, bad)


# --- labelled sets ---------------------------------------------------------------------------


@pytest.fixture
def classes(tmp_path) -> Path:
    """Two classes of Imagenette, each image of its own grey."""
    grey = 0
    for name in ("train/n01440764/a", "val/n01440764/b", "val/n01440764/c", "val/n03888257/d"):
        path = tmp_path / "imagenette2-160" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (grey := grey + 10,) * 3).save(path)
    return tmp_path / "imagenette2-160"


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for one in folder.rglob("*.*"):
            archive.write(one, one.relative_to(folder))
    return path


@pytest.mark.parametrize("form", ["name", "zip", "folder", "list"])
def test_of_a_labelled_set_come_the_classes_of_val_in_turn(classes, monkeypatch, form):
    monkeypatch.setenv("HIRELAB_DATA", str(classes.parent))
    source = {
        "name": "imagenette",
        "zip": zipped(classes) if form == "zip" else None,
        "folder": classes,
        "list": ["imagenette"],
    }[form]
    x, names = samples(None, 4, source)
    assert names == ["tench", "parachute", "tench"]
    assert pixels(x)[:, 0, 0, 0].tolist() == [20, 40, 30]
    assert samples(2, 4, source)[1] == ["tench", "parachute"]


@pytest.mark.parametrize(
    ("has", "taken"),
    [
        (("train/cat/a", "test/cat/b"), 1),
        (("train/cat/a",), 0),
        (("cat/a", "dog/b"), 0),
    ],
)
def test_without_val_another_split_is_taken(tmp_path, has, taken):
    for i, name in enumerate(has):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("RGB", (4, 4), (i,) * 3).save(tmp_path / f"{name}.png")
    x, names = samples(1, 4, tmp_path)
    assert names == ["cat"]
    assert pixels(x).max() == taken


def test_a_zip_of_loose_images_is_read_as_a_folder_of_them(tmp_path):
    for name in ("b", "a"):
        four_corners().save(tmp_path / f"{name}.png")
    assert samples(None, 4, zipped(tmp_path))[1] == ["a.png", "b.png"]


def test_a_damaged_image_of_a_zip_is_named(classes):
    (classes / "val/n01440764/b.png").write_bytes(b"words")
    with pytest.raises(
        HirelabError, match=r"val/n01440764/b\.png in .*2-160\.zip: .* not an image"
    ):
        samples(1, 4, zipped(classes))


def test_a_data_set_that_is_not_here_says_what_brings_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HIRELAB_CACHE", str(tmp_path))
    monkeypatch.delenv("HIRELAB_DATA", raising=False)
    with pytest.raises(HirelabError, match="hirelab data get imagenette"):
        samples(1, 4, "imagenette")
    with pytest.raises(HirelabError, match=r"Did you mean 'imagenette'.*cat, coffee"):
        samples(1, 4, "imagenete")
    with pytest.raises(FileNotFoundError, match="did you mean 'cat'"):
        samples(1, 4, "caat")
    # near to "photo-crops", and yet plainly a file
    with pytest.raises(FileNotFoundError, match=r"There is no file 'photo\.jpg'"):
        samples(1, 4, "photo.jpg")
