"""Opening an image: every kind of file and array, and every kind of bad one.

The files are real ones, written by Pillow into a temporary folder. What is right comes from
elsewhere where possible: from torchvision and scikit-image, or from a colour known beforehand.
"""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from _helpers import BLUE, GREEN, RED, WHITE, four_corners, noise_image, same_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from hirelab.datasets import (
    MAX_PIXELS,
    PHOTOGRAPHS,
    iter_images,
    open_image,
    samples,
    suffixes,
)

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


def test_a_misspelt_photograph_gets_the_near_name_and_the_list():
    with pytest.raises(
        FileNotFoundError, match=r"did you mean 'cat' of cat, coffee, astronaut.*\?"
    ):
        open_image("caat")
    with pytest.raises(FileNotFoundError, match=r"give a path or one of cat, coffee"):
        open_image("xyzzy")


def test_a_file_called_like_a_photograph_opens_as_a_path(tmp_path, monkeypatch):
    four_corners().save(tmp_path / "cat", "PNG")
    monkeypatch.chdir(tmp_path)
    assert open_image("cat").size == (451, 300)
    assert same_image(open_image(Path("cat")), four_corners())
    assert same_image(open_image("./cat"), four_corners())


# --- image: what works ---------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp", ".ppm", ".tga", ".jp2"])
def test_a_lossless_file_comes_back_exactly(tmp_path, suffix):
    noise_image(31, 17).save(
        tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {})
    )
    for path in (tmp_path / f"a{suffix}", str(tmp_path / f"a{suffix}")):
        assert same_image(open_image(path), noise_image(31, 17))


def test_the_format_is_told_by_the_content_and_not_by_the_suffix(tmp_path):
    four_corners().save(tmp_path / "a.jpg", "PNG")
    assert same_image(open_image(tmp_path / "a.jpg"), four_corners())


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    four_corners().save(tmp_path / "a.png")
    assert same_image(open_image("~/a.png"), four_corners())
    assert [name for name, _ in iter_images("~")] == ["a.png"]


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_greyscale_gives_three_equal_channels(tmp_path, suffix):
    grey = noise_image(16, 16).convert("L")
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
    assert same_image(open_image(tmp_path / "a.png"), Image.new("RGB", (2, 2), WHITE))


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_a_palette_keeps_its_colours(tmp_path, suffix):
    four_corners().convert("P", palette=Image.Palette.ADAPTIVE, colors=4).save(
        tmp_path / f"a{suffix}"
    )
    with Image.open(tmp_path / f"a{suffix}") as stored:
        assert stored.mode == "P"
    assert same_image(open_image(tmp_path / f"a{suffix}"), four_corners())


def test_a_transparent_palette_colour_becomes_white(tmp_path):
    image = four_corners().convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    image.save(tmp_path / "a.png", transparency=image.getpixel((0, 0)))
    expected = four_corners()
    expected.paste(WHITE, (0, 0, 20, 10))
    assert same_image(open_image(tmp_path / "a.png"), expected)


def test_cmyk_is_converted_and_not_inverted(tmp_path):
    four_corners().convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    with Image.open(tmp_path / "a.jpg") as stored:
        assert stored.mode == "CMYK"
    assert same_image(open_image(tmp_path / "a.jpg"), four_corners(), tolerance=8)


def test_black_and_white_of_one_bit(tmp_path):
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "a.png")
    assert (np.asarray(open_image(tmp_path / "a.png")) == 255 * np.eye(4)[:, :, None]).all()


def test_of_an_animation_comes_the_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (GREEN, RED)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert same_image(open_image(tmp_path / "a.gif"), frames[0])


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
    stored = STORED[orientation](four_corners())
    assert stored.size == ((40, 20) if orientation < 5 else (20, 40))
    stored.save(tmp_path / f"a{suffix}", exif=exif, quality=95)
    upright = open_image(tmp_path / f"a{suffix}")
    assert upright.size == (40, 20)
    found = [upright.getpixel(xy) for xy in ((5, 4), (35, 4), (5, 16), (35, 16))]
    assert np.abs(np.array(found) - [RED, GREEN, BLUE, WHITE]).max() < 12
    with Image.open(tmp_path / f"a{suffix}") as opened:
        assert same_image(open_image(opened), upright)


def test_unreadable_exif_does_not_cost_the_image(tmp_path):
    four_corners().save(tmp_path / "a.jpg", exif=b"Exif\0\0no such thing")
    assert open_image(tmp_path / "a.jpg").size == (40, 20)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_one_pixel_is_a_image(tmp_path, mode):
    Image.new(mode, (1, 1)).save(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"))
    assert open_image(next(tmp_path.iterdir())).size == (1, 1)
    x, _ = samples(1, img_size=8, source=tmp_path)
    assert x.shape == (1, 3, 8, 8)
    assert torch.isfinite(x).all()


def test_a_image_is_a_new_one(tmp_path):
    given_image = four_corners()
    open_image(given_image).putpixel((0, 0), BLUE)
    given_array = np.asarray(four_corners()).copy()
    open_image(given_array).putpixel((0, 0), BLUE)
    assert same_image(given_image, four_corners())
    assert (given_array == np.asarray(four_corners())).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_arrays_of_three_shapes(dtype):
    values = np.asarray(noise_image(5, 7))
    scaled = values if dtype == np.uint8 else (values / 255).astype(dtype)
    opaque = np.concatenate(
        [scaled, np.full((7, 5, 1), scaled.dtype.type(255 if dtype == np.uint8 else 1))], 2
    )
    for array in (scaled, opaque, scaled[::1, ::1]):
        assert np.abs(np.asarray(open_image(array), int) - values).max() <= (dtype == np.float16)
    grey = np.asarray(open_image(scaled[:, :, 0]), int)
    assert np.abs(grey - values[:, :, :1]).max() <= (dtype == np.float16)


def test_arrays_may_be_views():
    values = np.asarray(noise_image(6, 8))
    turned = values.transpose(1, 0, 2)[::-1, ::2]
    assert (np.asarray(open_image(turned)) == turned).all()


def test_the_last_digit_of_a_float_may_overshoot():
    assert open_image(np.full((1, 1), 1.0000001)).getpixel((0, 0)) == WHITE
    assert open_image(np.full((1, 1), -1e-7)).getpixel((0, 0)) == (0, 0, 0)


# --- image: what is refused ----------------------------------------------------------------


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_file_cut_short_is_refused(tmp_path, suffix, keep):
    noise_image(200, 200).save(tmp_path / f"whole{suffix}")
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
    noise_image(300, 300).save(tmp_path / "b.png")
    head, first, *rest = (tmp_path / "b.png").read_bytes().split(b"IDAT")
    (tmp_path / "b.png").write_bytes(b"IDAT".join([head, first + b"\x7f\xe4\xe8s" + rest[0]]))
    for name in ("a.ppm", "b.png"):
        with pytest.raises(ValueError, match=rf"{name}' is damaged.*\): get a fresh copy"):
            open_image(tmp_path / name)


def test_a_file_that_needs_another_program_is_not_decoded(tmp_path):
    four_corners().save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="not an image"):
        open_image(tmp_path / "a.jpg")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_gives_a_image_or_a_clear_error(tmp_path_factory, data):
    """Flipped bytes anywhere raise nothing but a ValueError that names the file."""
    folder = tmp_path_factory.mktemp("damaged")
    suffix = data.draw(st.sampled_from([".jpg", ".png", ".gif", ".tif", ".webp", ".bmp"]))
    four_corners().save(folder / f"a{suffix}")
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
    four_corners().save(tmp_path / "Holiday_001.JPG")
    with pytest.raises(FileNotFoundError, match=r"did you mean 'Holiday_001\.JPG'"):
        open_image(tmp_path / "holiday_01.jpg")
    with pytest.raises(FileNotFoundError, match="check the path"):
        open_image(tmp_path / "quite_another.png")
    with pytest.raises(FileNotFoundError, match="its folder does not exist"):
        open_image(tmp_path / "nowhere" / "a.jpg")


def test_a_image_over_the_limit_is_refused_before_it_is_decoded(tmp_path):
    four_corners().save(tmp_path / "a.png")
    match = r"a\.png' has 40 x 20 = 800 pixels where at most 799 are opened.*max_pixels"
    with pytest.raises(ValueError, match=match):
        open_image(tmp_path / "a.png", max_pixels=799)
    assert open_image(tmp_path / "a.png", max_pixels=800).size == (40, 20)
    for source in (four_corners(), np.asarray(four_corners())):
        with pytest.raises(ValueError, match="at most 799"):
            open_image(source, max_pixels=799)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    assert 10_000 * 10_000 < MAX_PIXELS < 2 * Image.MAX_IMAGE_PIXELS
    four_corners().save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 399)  # it has 800: Pillow refuses beyond twice
    with pytest.raises(ValueError, match=r"a\.png' has more pixels .*make it smaller"):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize("bad", [0, -1, 1.5, "many", None, True])
def test_the_limit_is_a_whole_number(bad):
    with pytest.raises(ValueError, match=r"max_pixels is .* whole number of at least 1"):
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
    four_corners().save(tmp_path / "cat.png")
    whole = (tmp_path / "cat.png").read_bytes()
    assert same_image(open_image(whole), four_corners())
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


def test_suffixes_are_those_of_images():
    assert {".jpg", ".jpeg", ".png", ".gif", ".tif", ".tiff", ".webp", ".bmp"} <= set(suffixes())
    assert not {".txt", ".pdf", ".eps", ".mpg", ".h5"} & set(suffixes())


# --- what the fuzzing found --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float", "uint16"])
def test_deep_values_become_brightness_in_little_memory(kind):
    import tracemalloc

    values = np.linspace(0, 1, 4000 * 4000, dtype=np.float32).reshape(4000, 4000)
    values = values if kind == "float" else (values * 65535).astype(np.uint16)
    tracemalloc.start()
    image = open_image(values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6  # numpy's part; all at once it was 272 and 160 MB, of 2.4 GB at most
    expected = np.rint(values[::97, ::89].astype(float) / (1 if kind == "float" else 65535) * 255)
    assert np.abs(np.asarray(image)[::97, ::89, 0] - expected).max() <= 1


def test_an_upright_image_is_a_new_one():
    given = noise_image(5, 4)
    opened = open_image(given)
    assert opened is not given
    opened.putpixel((0, 0), (1, 2, 3))
    assert given.getpixel((0, 0)) != (1, 2, 3)
