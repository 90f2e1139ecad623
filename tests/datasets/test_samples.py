"""Photographs and the reader's own files: every kind of image, and every kind of bad one.

The files are real ones, written by Pillow into a temporary folder. What is right comes from
elsewhere where possible: from torchvision, timm and scikit-image, or from a colour known
beforehand.
"""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import timm.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision.transforms import v2

from hirelab.datasets import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    MAX_PIXELS,
    PHOTOGRAPHS,
    iter_images,
    normalise,
    open_image,
    pixels,
    samples,
    square,
    suffixes,
)

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """An RGB image in which no two neighbouring pixels agree."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def corners() -> Image.Image:
    """40 x 20 pixels whose four corners are red, green, blue and white, so no view is alike."""
    image = Image.new("RGB", (40, 20))
    for box, colour in zip(
        [(0, 0), (20, 0), (0, 10), (20, 10)], [RED, GREEN, BLUE, WHITE], strict=True
    ):
        image.paste(colour, (*box, box[0] + 20, box[1] + 10))
    return image


def same(a: Image.Image, b: Image.Image, tolerance: int = 0) -> bool:
    """Whether two RGB images have the same size and values within `tolerance`."""
    assert a.mode == b.mode == "RGB"
    left, right = np.asarray(a, int), np.asarray(b, int)
    return left.shape == right.shape and np.abs(left - right).max() <= tolerance


# --- the photographs -------------------------------------------------------------------------

ORIGINALS = {
    "cat": skimage.data.chelsea,
    "coffee": skimage.data.coffee,
    "astronaut": skimage.data.astronaut,
    "rocket": skimage.data.rocket,
    "galaxies": skimage.data.hubble_deep_field,
    "retina": skimage.data.retina,
    "tissue": skimage.data.immunohistochemistry,
}


def test_the_first_four_are_photographs_of_everyday_things():
    assert PHOTOGRAPHS[:4] == ("cat", "coffee", "astronaut", "rocket")
    assert set(PHOTOGRAPHS) == set(ORIGINALS)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_photograph_is_what_scikit_image_shows(name):
    image = open_image(name)
    assert image.mode == "RGB"
    original = ORIGINALS[name]().astype(int)
    # The same JPEG may differ by a level between two builds of the decoder.
    assert np.abs(np.asarray(image, int) - original).max() <= 2


def test_photographs_need_no_network():
    """A process in which every connection fails still gets all of them."""
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise OSError('no network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from hirelab.datasets import samples\n"
        "print(*samples(None, size=8)[1])"
    )
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert tuple(done.stdout.split()) == PHOTOGRAPHS


def test_datasets_import_neither_the_plots_nor_the_widgets_nor_the_models():
    source = "\n".join(
        file.read_text(encoding="utf-8")
        for file in (Path(__file__).parents[2] / "hirelab" / "datasets").glob("*.py")
    )
    assert not re.search(r"^\s*(from|import) (matplotlib|ipywidgets|timm|hirelab)", source, re.M)
    above = set(re.findall(r"^\s*from \.\.(\w*)", source, re.M))
    assert above <= {"_files", "_names", "rearrange"}, "data sets stand below everything else"


def test_a_misspelt_photograph_gets_the_near_name_and_the_list():
    with pytest.raises(
        FileNotFoundError, match=r"did you mean 'cat' of cat, coffee, astronaut.*\?"
    ):
        open_image("caat")
    with pytest.raises(FileNotFoundError, match=r"give a path or one of cat, coffee"):
        open_image("xyzzy")


def test_a_file_called_like_a_photograph_opens_as_a_path(tmp_path, monkeypatch):
    corners().save(tmp_path / "cat", "PNG")
    monkeypatch.chdir(tmp_path)
    assert open_image("cat").size == (451, 300)
    assert same(open_image(Path("cat")), corners())
    assert same(open_image("./cat"), corners())


# --- image: what works ---------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".ppm", ".tga", ".jp2"])
def test_a_lossless_file_comes_back_exactly(tmp_path, suffix):
    noise(31, 17).save(tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    for path in (tmp_path / f"a{suffix}", str(tmp_path / f"a{suffix}")):
        assert same(open_image(path), noise(31, 17))


def test_the_format_is_told_by_the_content_and_not_by_the_suffix(tmp_path):
    corners().save(tmp_path / "a.jpg", "PNG")
    assert same(open_image(tmp_path / "a.jpg"), corners())


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    corners().save(tmp_path / "a.png")
    assert same(open_image("~/a.png"), corners())
    assert [name for name, _ in iter_images("~")] == ["a.png"]


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_greyscale_gives_three_equal_channels(tmp_path, suffix):
    grey = noise(16, 16).convert("L")
    grey.save(tmp_path / f"a{suffix}", quality=95)
    values = np.asarray(open_image(tmp_path / f"a{suffix}"))
    stored = np.asarray(Image.open(tmp_path / f"a{suffix}"))
    assert stored.ndim == 2
    assert (values == stored[:, :, None]).all()


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm", ".jp2"])
def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path, suffix):
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    Image.fromarray(levels).save(tmp_path / f"a{suffix}")
    values = np.asarray(open_image(tmp_path / f"a{suffix}"))
    assert (values == np.arange(256).reshape(16, 16, 1)).all()


def test_big_endian_sixteen_bits(tmp_path):
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    Image.frombytes("I;16B", (16, 16), levels.astype(">u2").tobytes()).save(tmp_path / "a.tif")
    assert (np.asarray(open_image(tmp_path / "a.tif"))[:, :, 0] == levels // 257).all()


def test_every_sixteen_bit_value_rounds_to_the_nearest_level():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    exact = np.rint(values / 65535 * 255)
    assert (np.asarray(open_image(values))[:, :, 0] == exact).all()


def test_floating_point_images_run_from_0_to_1(tmp_path):
    Image.fromarray(np.linspace(0, 1, 256, dtype=np.float32)[None]).save(tmp_path / "a.tif")
    assert (np.asarray(open_image(tmp_path / "a.tif"))[0, :, 1] == np.arange(256)).all()


def test_thirty_two_bits_without_an_agreed_white_are_refused(tmp_path):
    Image.fromarray(np.array([[0, 70000]], dtype=np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif.*0 to 70000.*0 to 65535.*rescale"):
        open_image(tmp_path / "a.tif")


def test_transparency_is_composited_on_white(tmp_path):
    image = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        image.putpixel((x, 0), (200, 0, 0, alpha))
    image.save(tmp_path / "a.png")
    expected = [[round(c * a / 255 + 255 - a) for c in (200, 0, 0)] for a in (0, 128, 255)]
    values = np.asarray(open_image(tmp_path / "a.png"), int)[0]
    assert np.abs(values - expected).max() <= 1


def test_transparent_greyscale_is_composited_on_white(tmp_path):
    Image.new("LA", (2, 2), (10, 0)).save(tmp_path / "a.png")
    assert same(open_image(tmp_path / "a.png"), Image.new("RGB", (2, 2), WHITE))


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_a_palette_keeps_its_colours(tmp_path, suffix):
    corners().convert("P", palette=Image.Palette.ADAPTIVE, colors=4).save(tmp_path / f"a{suffix}")
    with Image.open(tmp_path / f"a{suffix}") as stored:
        assert stored.mode == "P"
    assert same(open_image(tmp_path / f"a{suffix}"), corners())


def test_a_transparent_palette_colour_becomes_white(tmp_path):
    image = corners().convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    image.save(tmp_path / "a.png", transparency=image.getpixel((0, 0)))
    expected = corners()
    expected.paste(WHITE, (0, 0, 20, 10))
    assert same(open_image(tmp_path / "a.png"), expected)


def test_cmyk_is_converted_and_not_inverted(tmp_path):
    corners().convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    with Image.open(tmp_path / "a.jpg") as stored:
        assert stored.mode == "CMYK"
    assert same(open_image(tmp_path / "a.jpg"), corners(), tolerance=8)


def test_black_and_white_of_one_bit(tmp_path):
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "a.png")
    assert (np.asarray(open_image(tmp_path / "a.png")) == 255 * np.eye(4)[:, :, None]).all()


def test_of_an_animation_comes_the_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (GREEN, RED)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert same(open_image(tmp_path / "a.gif"), frames[0])


# How a camera stores an upright image under each EXIF orientation: the operation that undoes
# what the tag tells the reader to do (EXIF 2.32, tag 0x0112).
STORED = {
    1: lambda image: image,
    2: ImageOps.mirror,
    3: lambda image: image.rotate(180),
    4: ImageOps.flip,
    5: lambda image: ImageOps.mirror(image.rotate(-90, expand=True)),
    6: lambda image: image.rotate(90, expand=True),
    7: lambda image: ImageOps.mirror(image.rotate(90, expand=True)),
    8: lambda image: image.rotate(-90, expand=True),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_all_eight_exif_orientations_come_back_upright(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = STORED[orientation](corners())
    assert stored.size == ((40, 20) if orientation < 5 else (20, 40))
    stored.save(tmp_path / f"a{suffix}", exif=exif, quality=95)
    upright = open_image(tmp_path / f"a{suffix}")
    assert upright.size == (40, 20)
    found = [upright.getpixel(xy) for xy in ((5, 4), (35, 4), (5, 16), (35, 16))]
    assert np.abs(np.array(found) - [RED, GREEN, BLUE, WHITE]).max() < 12
    with Image.open(tmp_path / f"a{suffix}") as opened:
        assert same(open_image(opened), upright)


def test_unreadable_exif_does_not_cost_the_image(tmp_path):
    corners().save(tmp_path / "a.jpg", exif=b"Exif\0\0no such thing")
    assert open_image(tmp_path / "a.jpg").size == (40, 20)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_one_pixel_is_a_image(tmp_path, mode):
    Image.new(mode, (1, 1)).save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"))
    assert open_image(next(tmp_path.iterdir())).size == (1, 1)
    x, _ = samples(1, img_size=8, source=tmp_path)
    assert x.shape == (1, 3, 8, 8)
    assert torch.isfinite(x).all()


def test_very_long_images(tmp_path):
    Image.new("RGB", (10_000, 10), GREEN).save(tmp_path / "wide.png")
    Image.new("RGB", (1, 10_000), GREEN).save(tmp_path / "high.png")
    for name, image in iter_images(tmp_path):
        assert image.size == ((10_000, 10) if name == "wide.png" else (1, 10_000))
        assert same(square(image, 224), Image.new("RGB", (224, 224), GREEN))


def test_10_000_by_10_000_pixels_open_without_a_warning(tmp_path):
    Image.new("RGB", (10_000, 10_000), WHITE).save(tmp_path / "a.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x, names = samples(1, img_size=32, source=tmp_path / "a.jpg")
    assert names == ["a.jpg"]
    assert (pixels(x) == 255).all()


def test_a_image_is_a_new_one(tmp_path):
    given_image = corners()
    open_image(given_image).putpixel((0, 0), BLUE)
    given_array = np.asarray(corners()).copy()
    open_image(given_array).putpixel((0, 0), BLUE)
    assert same(given_image, corners())
    assert (given_array == np.asarray(corners())).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_arrays_of_three_shapes(dtype):
    values = np.asarray(noise(5, 7))
    scaled = values if dtype == np.uint8 else (values / 255).astype(dtype)
    opaque = np.concatenate(
        [scaled, np.full((7, 5, 1), scaled.dtype.type(255 if dtype == np.uint8 else 1))], 2
    )
    for array in (scaled, opaque, scaled[::1, ::1]):
        assert np.abs(np.asarray(open_image(array), int) - values).max() <= (dtype == np.float16)
    grey = np.asarray(open_image(scaled[:, :, 0]), int)
    assert np.abs(grey - values[:, :, :1]).max() <= (dtype == np.float16)


def test_arrays_may_be_views():
    values = np.asarray(noise(6, 8))
    turned = values.transpose(1, 0, 2)[::-1, ::2]
    assert (np.asarray(open_image(turned)) == turned).all()


def test_the_last_digit_of_a_float_may_overshoot():
    assert open_image(np.full((1, 1), 1.0000001)).getpixel((0, 0)) == WHITE
    assert open_image(np.full((1, 1), -1e-7)).getpixel((0, 0)) == (0, 0, 0)


# --- image: what is refused ----------------------------------------------------------------


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_file_cut_short_is_refused(tmp_path, suffix, keep):
    noise(200, 200).save(tmp_path / f"whole{suffix}")
    whole = (tmp_path / f"whole{suffix}").read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(ValueError, match=rf"cut\{suffix}' is .*(fresh copy|give an image)"):
        open_image(tmp_path / f"cut{suffix}")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(ValueError, match=r"a\.jpg' is empty or not an image"):
        open_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("content", [b"Dear reader,\nthis is text.\n" * 50, bytes(range(256)) * 9])
def test_a_file_that_is_no_image_is_refused(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.jpg' is empty or not an image"):
        open_image(tmp_path / "a.jpg")


def test_whatever_the_decoder_raises_the_file_is_named(tmp_path):
    """Pillow's PPM reader raises ValueError and its PNG reader SyntaxError on such damage."""
    (tmp_path / "a.ppm").write_bytes(b"P6\n2 2\n25[\n" + bytes(12))
    noise(300, 300).save(tmp_path / "b.png")
    head, first, *rest = (tmp_path / "b.png").read_bytes().split(b"IDAT")
    (tmp_path / "b.png").write_bytes(b"IDAT".join([head, first + b"\x7f\xe4\xe8s" + rest[0]]))
    for name in ("a.ppm", "b.png"):
        with pytest.raises(ValueError, match=rf"{name}' is damaged.*\): get a fresh copy"):
            open_image(tmp_path / name)


def test_a_file_that_needs_another_program_is_not_decoded(tmp_path):
    corners().save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="not an image"):
        open_image(tmp_path / "a.jpg")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_gives_a_image_or_a_clear_error(tmp_path_factory, data):
    """Flipped bytes anywhere raise nothing but a ValueError that names the file."""
    folder = tmp_path_factory.mktemp("damaged")
    suffix = data.draw(st.sampled_from([".jpg", ".png", ".gif", ".tif", ".webp", ".bmp"]))
    corners().save(folder / f"a{suffix}")
    content = bytearray((folder / f"a{suffix}").read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / f"a{suffix}").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on damaged metadata
        try:
            open_image(folder / f"a{suffix}", max_pixels=10**6)
        except ValueError as error:
            message = str(error)
        else:
            return
    assert f"a{suffix}' " in message


def test_a_folder_is_not_one_image(tmp_path):
    with pytest.raises(ValueError, match=r"is a folder.*images\(\)"):
        open_image(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes on this system")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="not a regular file"):
        open_image(tmp_path / "a.jpg")


def test_a_missing_file_gets_its_near_names(tmp_path):
    corners().save(tmp_path / "Holiday_001.JPG")
    with pytest.raises(FileNotFoundError, match=r"did you mean 'Holiday_001\.JPG'"):
        open_image(tmp_path / "holiday_01.jpg")
    with pytest.raises(FileNotFoundError, match="check the path"):
        open_image(tmp_path / "quite_another.png")
    with pytest.raises(FileNotFoundError, match="its folder does not exist"):
        open_image(tmp_path / "nowhere" / "a.jpg")


def test_a_image_over_the_limit_is_refused_before_it_is_decoded(tmp_path):
    corners().save(tmp_path / "a.png")
    match = r"a\.png' has 40 x 20 = 800 pixels where at most 799 are opened.*max_pixels"
    with pytest.raises(ValueError, match=match):
        open_image(tmp_path / "a.png", max_pixels=799)
    assert open_image(tmp_path / "a.png", max_pixels=800).size == (40, 20)
    for source in (corners(), np.asarray(corners())):
        with pytest.raises(ValueError, match="at most 799"):
            open_image(source, max_pixels=799)


def test_a_decompression_bomb_is_refused(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size < 100_000
    with pytest.raises(ValueError, match=r"a\.png' has more pixels .*make it smaller"):
        open_image(tmp_path / "a.png")
    assert 10_000 * 10_000 < MAX_PIXELS < 2 * Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("bad", [0, -1, 1.5, "many", None, True])
def test_the_limit_is_a_whole_number(bad):
    with pytest.raises(ValueError, match=r"max_pixels is .* whole number"):
        open_image("cat", max_pixels=bad)


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.full((4, 4), np.nan), "NaN or infinite"),
        (np.full((4, 4, 3), np.inf), "NaN or infinite"),
        (np.full((4, 4), 255.0), "from 255 to 255 where 0 to 1.*uint8"),
        (np.full((4, 4), -0.5), "from -0.5 to -0.5 where 0 to 1"),
        (np.zeros((4, 4), int), "dtype int64.*uint8"),
        (np.zeros((4, 4), bool), "dtype bool"),
        (np.zeros((4, 4), complex), "dtype complex128"),
        (np.array([["a"]]), "dtype <U1"),
        (np.zeros((3, 4, 4), np.uint8)[:, :, :2], r"\(3, 4, 2\) is no image.*\(H, W, 3\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), "is no image"),
        (np.zeros(4, np.uint8), "is no image"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((4, 0), np.uint8), "no pixels"),
    ],
)
def test_an_array_that_is_no_image_is_refused(array, match):
    with pytest.raises(ValueError, match=match):
        open_image(array)


def test_the_bytes_of_a_file_open_as_the_file(tmp_path):
    corners().save(tmp_path / "cat.png")
    whole = (tmp_path / "cat.png").read_bytes()
    assert same(open_image(whole), corners())
    for damaged in (b"", b"cat", whole[: len(whole) // 2]):
        with pytest.raises(ValueError, match=rf"given file of {len(damaged):,} bytes"):
            open_image(damaged)


def test_a_pil_image_without_pixels_is_refused():
    with pytest.raises(ValueError, match="no pixels"):
        open_image(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize("source", [3, None, bytearray(b"cat"), torch.zeros(3, 4, 4), ["cat"]])
def test_anything_else_is_refused_with_its_type(source):
    with pytest.raises(TypeError, match=f"not from {type(source).__name__}"):
        open_image(source)


# --- images --------------------------------------------------------------------------------


def test_without_a_source_come_the_photographs():
    assert [name for name, _ in iter_images()] == list(PHOTOGRAPHS[:4])
    assert [name for name, _ in iter_images(n=1)] == ["cat"]
    assert [name for name, _ in iter_images(n=None)] == list(PHOTOGRAPHS)
    with pytest.raises(ValueError, match=f"{len(PHOTOGRAPHS)} sample photographs and n is 99"):
        iter_images(n=99)


def test_of_a_folder_come_its_images_in_order(tmp_path):
    for name in ("c.jpeg", "a.PNG", "b.jpg", ".hidden.jpg"):
        corners().save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image, and not meant to be one")
    (tmp_path / "data.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (tmp_path / "folder.png").mkdir()
    for folder in (tmp_path, str(tmp_path)):
        assert [name for name, _ in iter_images(folder)] == ["a.PNG", "b.jpg", "c.jpeg"]
    assert [name for name, _ in iter_images(tmp_path, n=2)] == ["a.PNG", "b.jpg"]
    assert len(iter_images(tmp_path, n=None)) == 3


def test_suffixes_are_those_of_images():
    assert {".jpg", ".jpeg", ".png", ".gif", ".tif", ".tiff", ".webp", ".bmp"} <= set(suffixes())
    assert not {".txt", ".pdf", ".eps", ".mpg", ".h5"} & set(suffixes())


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no image in the folder .*holds no file.*\.jpg.*\.png"):
        iter_images(tmp_path)


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match=r"none of its 1 files is an image.*\.jpg"):
        samples(1, source=tmp_path)


def test_one_broken_image_in_a_folder_is_named(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        noise(50, 50).save(tmp_path / name)
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"b\.png' is damaged"):
        iter_images(tmp_path)
    assert len(iter_images(tmp_path, n=1)) == 1


def test_one_file_or_name_is_a_list_of_one(tmp_path):
    corners().save(tmp_path / "a.png")
    assert [name for name, _ in iter_images(tmp_path / "a.png")] == ["a.png"]
    assert [name for name, _ in iter_images("rocket")] == ["rocket"]
    with Image.open(tmp_path / "a.png") as opened:
        assert [name for name, _ in iter_images(opened)] == ["a.png"]
    assert [name for name, _ in iter_images(np.zeros((2, 2)))] == ["image 1"]


def test_a_list_may_mix_every_kind_of_source(tmp_path):
    corners().save(tmp_path / "a.png")
    mixed = ["cat", corners(), tmp_path / "a.png", np.zeros((2, 3)), tmp_path]
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
    with pytest.raises(ValueError, match=re.escape(f"n is {bad!r} and must be a whole number")):
        function(bad)


# --- square ----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    short=st.integers(1, 40),
    ratio=st.floats(1, 16),
    turned=st.booleans(),
    size=st.integers(1, 48),
    seed=st.integers(0, 9),
)
def test_square_is_torchvisions_resize_and_centre_crop(short, ratio, turned, size, seed):
    sides = (short, int(short * ratio))
    image = noise(*(reversed(sides) if turned else sides), seed=seed)
    resize = v2.Resize(size, interpolation=v2.InterpolationMode.BICUBIC)
    assert same(square(image, size), v2.CenterCrop(size)(resize(image)))


def test_square_of_a_photograph_is_torchvisions():
    reference = v2.Compose([v2.Resize(224, v2.InterpolationMode.BICUBIC), v2.CenterCrop(224)])
    for _, image in iter_images():
        assert same(square(image, 224), reference(image))


@pytest.mark.parametrize("sides", [(1, 10_000), (10_000, 1), (10, 10_000)])
def test_square_computes_little_of_a_very_long_image(monkeypatch, sides):
    asked = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, size, *a: asked.append(size) or resize(self, size, *a)
    )
    image = Image.new("RGB", sides, RED)
    image.paste(
        GREEN,
        tuple(max(0, side // 2 - 100) for side in sides) + tuple(side // 2 + 100 for side in sides),
    )
    assert same(square(image, 64), Image.new("RGB", (64, 64), GREEN))
    assert max(max(size) for size in asked) <= 17 * 64


def test_square_takes_the_middle_and_keeps_the_image():
    image = Image.new("RGB", (90, 30), RED)
    image.paste(GREEN, (30, 0, 60, 30))
    assert same(square(image, 30), Image.new("RGB", (30, 30), GREEN))
    assert image.size == (90, 30)


def test_a_square_of_the_right_size_is_left_as_it_is():
    assert same(square(noise(8, 8), 8), noise(8, 8))


@pytest.mark.parametrize("bad", [0, -1, 7.5, "224", None, True])
def test_size_is_a_whole_number(bad):
    for function in (lambda: square(corners(), bad), lambda: samples(1, img_size=bad)):
        with pytest.raises(ValueError, match=re.escape(f"size is {bad!r} and must be a whole")):
            function()


def test_square_takes_rgb_only():
    with pytest.raises(ValueError, match="mode RGB, not L: use image"):
        square(Image.new("L", (4, 4)), 4)
    with pytest.raises(ValueError, match="not ndarray"):
        square(np.zeros((4, 4, 3), np.uint8), 4)


# --- normalise and pixels --------------------------------------------------------------------


def test_the_constants_are_timms():
    assert timm.data.IMAGENET_DEFAULT_MEAN == IMAGENET_MEAN
    assert timm.data.IMAGENET_DEFAULT_STD == IMAGENET_STD


def test_normalise_is_torchvisions():
    images = [noise(9, 6, seed) for seed in range(3)]
    to_tensor = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    for mean, std in ((IMAGENET_MEAN, IMAGENET_STD), ((0.5, 0.4, 0.3), (0.5, 0.6, 0.7))):
        expected = torch.stack([v2.Normalize(mean, std)(to_tensor(image)) for image in images])
        found = normalise(images, mean, std)
        assert found.dtype == torch.float32
        assert found.is_contiguous()
        assert found.shape == (3, 3, 6, 9)
        torch.testing.assert_close(found, expected.as_subclass(torch.Tensor), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("mean", "std"),
    [(IMAGENET_MEAN, IMAGENET_STD), ((0.5,) * 3, (0.5,) * 3), ((0,) * 3, (1,) * 3)],
)
def test_pixels_bring_back_every_value_exactly(mean, std):
    every = np.arange(256, dtype=np.uint8)
    batch = np.stack([np.roll(every, 85 * c) for c in range(3)], -1).reshape(1, 16, 16, 3)
    back = pixels(normalise(batch, mean, std), mean, std)
    assert back.dtype == np.uint8
    assert back.flags.c_contiguous
    assert (back == batch).all()


def test_normalise_leaves_its_input_alone():
    batch = np.asarray(noise(4, 4))[None].copy()
    x = normalise(batch)
    before = batch.copy()
    x.zero_()
    assert (batch == before).all()


def test_pixels_clip_and_leave_their_input_alone():
    x = torch.tensor([-100.0, 0.0, 100.0]).repeat(1, 3, 1, 1).requires_grad_()
    values = pixels(x)
    assert (values[0, 0, 0] == 0).all()
    assert (values[0, 0, 1] == np.rint(np.array(IMAGENET_MEAN) * 255)).all()
    assert (values[0, 0, 2] == 255).all()
    assert x.detach().abs().max() == 100


@pytest.mark.parametrize(
    ("images", "match"),
    [
        ([], "none of them 0"),
        (np.zeros((0, 4, 4, 3), np.uint8), "none of them 0"),
        (np.zeros((4, 4, 3), np.uint8), r"\(4, 4, 3\)"),
        (np.zeros((1, 3, 4, 4), np.uint8), r"\(N, H, W, 3\)"),
        (np.zeros((1, 4, 4, 3)), "uint8.*float64"),
        ([corners(), noise(4, 4)], r"one size.*square\(\)"),
        ([corners().convert("L")], r"mode RGB, not L: use image\(\)"),
        (corners(), r"write \[image\]"),
    ],
)
def test_normalise_refuses_what_is_no_batch(images, match):
    with pytest.raises(ValueError, match=match):
        normalise(images)


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (torch.zeros(3, 4, 4), r"\(N, 3, H, W\), not torch.float32 \(3, 4, 4\)"),
        (torch.zeros(1, 4, 4, 3), r"\(1, 4, 4, 3\)"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "torch.uint8"),
        (np.zeros((1, 3, 4, 4)), "not ndarray"),
        (torch.full((1, 3, 2, 2), torch.nan), "NaN or infinite"),
        (torch.full((1, 3, 2, 2), torch.inf), "NaN or infinite"),
    ],
)
def test_pixels_refuse_what_is_no_batch(x, match):
    with pytest.raises(ValueError, match=match):
        pixels(x)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0.5, 0.5), (0.5,) * 3),
        ((0.5,) * 3, (0.5, 0.0, 0.5)),
        ((0.5,) * 3, (0.5, -1.0, 0.5)),
        ((0.5, float("nan"), 0.5), (0.5,) * 3),
        ((0.5,) * 3, (0.5, float("inf"), 0.5)),
    ],
)
def test_mean_and_std_are_checked(mean, std):
    for function, batch in ((normalise, [corners()]), (pixels, torch.zeros(1, 3, 2, 2))):
        with pytest.raises(ValueError, match="three finite numbers each, std above 0"):
            function(batch, mean, std)


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
    corners().save(tmp_path / "a.png")
    x, names = samples(n=None, size=10, source=[tmp_path, corners(), "cat"])
    assert names == ["a.png", "image 2", "cat"]
    assert x.shape == (3, 3, 10, 10)
    assert torch.equal(x[0], x[1])


def test_too_many_sample_photographs_are_refused():
    with pytest.raises(ValueError, match=f"at most {len(PHOTOGRAPHS)}.*folder of your own"):
        samples(len(PHOTOGRAPHS) + 1)
