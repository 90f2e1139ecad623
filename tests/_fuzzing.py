"""What the fuzzing feeds to hirelab's readers, and what it takes for a right answer.

    KINDS    {kind: `Kind`}: images, checkpoints, results, ledgers, coco
    Kind     makes an input from a random generator, and reads it as a user would

Inputs begin as right ones, made here by code. They are changed where they are understood (a value
inside valid JSON, a number in a header with its checksum put right, a tensor in a state dict), so
that they come past the first check, or as bytes: flipped, cut short, spliced with another.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import io
import json
import math
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import safetensors.torch
import torch
from _ablation import made_ledger
from PIL import Image

import hirelab as hl
from hirelab._shared.errors import HirelabError
from hirelab.ablation.ledger import Ledger, RunKey, compile_csv
from hirelab.ablation.protocols import read_protocol
from hirelab.ablation.tables import DEFAULT, cell
from hirelab.datasets.boxes import BoxedImages, has_boxes, open_boxes
from hirelab.datasets.images import MAX_PIXELS, open_image
from hirelab.datasets.label_maps import NO_LABEL, open_label_maps
from hirelab.datasets.subsets import open_files
from hirelab.models.checkpoints import to_authors
from hirelab.results import Result
from hirelab.training.progress import restore_checkpoint
from hirelab.training.runs import load_run, read_history, read_run

__all__ = ["KINDS", "Kind"]


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        make: writes an input into a folder, of which a random generator decides all; without one,
            the right one that the others begin as. Returns what is opened.
        read: opens it; returns what came of it, in a few words, or raises `HirelabError` where the
            input is wrong. An AssertionError says that what came of it does not look right.
    """

    make: Callable[[Random | None, Path], Path]
    read: Callable[[Path], str]


# ------------------------------------------------------------------ bytes

WIDTH, HEIGHT = 53, 37  # of the images: unlike each other and unlike common numbers
SIDES = (0, 1, 2, 255, 4096, 12_000, 12_247, 16_383, 32_767, 40_000, 65_535)
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def damaged(draw: Random, data: bytes, other: bytes = b"") -> bytes:
    """Bytes with one to a few faults; ``other`` is what they may be spliced with."""
    content = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        at = draw.randrange(len(content) + 1)
        if draw.random() < 0.4:  # heads decide more than what follows
            at = min(at, draw.randrange(129))
        kind = draw.randrange(8)
        if kind == 0 and at < len(content):
            content[at] ^= 1 << draw.randrange(8)
        elif kind == 1 and at < len(content):
            content[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
        elif kind == 2:
            del content[at:]
        elif kind == 3:
            del content[at : at + draw.choice((1, 4, 16, 256))]
        elif kind == 4:
            content[at:at] = draw.randbytes(draw.choice((1, 2, 4, 64)))
        elif kind == 5:
            content[at:at] = content[at : at + draw.choice((4, 64, 1024))]
        elif kind == 6:
            width = draw.choice((2, 4))
            number = draw.choice(NUMBERS) & (256**width - 1)
            content[at : at + width] = number.to_bytes(width, draw.choice(("little", "big")))
        elif other:
            content[at:] = other[draw.randrange(len(other) + 1) :]
    return bytes(content)


# ------------------------------------------------------------------ JSON

DEEP = "\0deep\0"  # stands for brackets that json.dumps would not nest
LONG = "\0long\0"  # stands for a number that json.dumps would not write


def odd_value(draw: Random) -> Any:
    """A value that few readers expect."""
    return draw.choice(
        (
            *(None, True, False, -1, 0, 1, 0.5, -0.0, 2**31, 2**63, 2**64, 10**30, 1e308),
            *(math.nan, math.inf, -math.inf, "", "x" * 5000, "\x00", "\ud800", "../../etc/passwd"),
            *("1", "nan", "zero", [], {}, [[]], [None], {"": None}, {"a": []}, [1, "a", None]),
            *([0] * 1000, DEEP, LONG, "<script>", "\n", "é"),
        )
    )


def places_in(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inside in pairs:
        yield (*above, key)
        if isinstance(inside, dict | list):
            yield from places_in(inside, (*above, key))


def changed(draw: Random, value: Any) -> Any:
    """A JSON value with one to a few faults inside."""
    value = json.loads(json.dumps(value))
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = list(places_in(value)) if isinstance(value, dict | list) else []
        if not places or draw.random() < 0.02:
            return odd_value(draw)
        *path, key = draw.choice(places)
        holder = functools.reduce(lambda one, name: one[name], path, value)
        kind = draw.randrange(7)
        if kind < 3:
            holder[key] = odd_value(draw)
        elif kind == 3:
            del holder[key]
        elif kind == 4 and isinstance(holder[key], int | float):
            holder[key] = draw.choice((-1, -2, 2, 0.5, 1e9, -1e9, 1e300)) * (holder[key] or 1)
        elif kind == 5:
            *others, last = draw.choice(places)
            at = functools.reduce(
                lambda one, name: one[name] if _has(one, name) else {}, others, value
            )
            holder[key] = json.loads(json.dumps(at[last])) if _has(at, last) else odd_value(draw)
        elif isinstance(holder, dict):
            holder[draw.choice(("", "x", "format", "id", "__class__", key + "s"))] = odd_value(draw)
        else:
            holder.append(odd_value(draw))
    return value


def _has(holder: Any, key: Any) -> bool:
    if isinstance(holder, dict):
        return key in holder
    return isinstance(holder, list) and isinstance(key, int) and key < len(holder)


def as_json(draw: Random, value: Any) -> bytes:
    """The text of a JSON value, of whatever `odd_value` put into it."""
    text = json.dumps(value)
    depth = draw.choice((200, 2_000, 100_000))
    opening, closing = draw.choice((("[", "]"), ('{"a":', "}")))
    text = text.replace(json.dumps(DEEP), opening * depth + "0" + closing * depth)
    text = text.replace(json.dumps(LONG), draw.choice(("9" * 400, "9" * 5000, "1e999", "-1e400")))
    return text.encode("utf-8", "surrogatepass")


def odd_json(draw: Random, value: Any, share: float = 0.15) -> bytes:
    """A JSON value's text with faults inside; a share of them damaged as bytes too."""
    text = as_json(draw, changed(draw, value))
    return damaged(draw, text) if draw.random() < share else text


# ------------------------------------------------------------------ images


@functools.cache
def picture(mode: str) -> Image.Image:
    """A gradient with some noise, in one of Pillow's modes."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    noise = np.random.default_rng(0).integers(0, 40, (HEIGHT, WIDTH))
    grey = ((rows * 3 + columns * 2 + noise) % 256).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(grey.astype(np.uint16) * 257)
    if mode in ("I", "F"):
        return Image.fromarray(grey.astype(np.int32) if mode == "I" else grey.astype("f4") / 255)
    colour = Image.fromarray(np.stack([grey, grey[::-1], grey[:, ::-1]], -1))
    if mode in ("LA", "PA", "RGBA", "RGBa", "La"):
        colour.putalpha(Image.fromarray(grey))
    return colour.convert(mode)


def saved(mode: str, kind: str, **options: Any) -> bytes | None:
    """A picture as a file; None where Pillow does not write it so."""
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture(mode).save(buffer, kind, **options)
    except Exception:  # a mode that the format does not have
        return None
    return buffer.getvalue()


_EXIF = Image.Exif()
_EXIF[0x0112] = 6  # turned by a quarter
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "JPEG": [{"exif": _EXIF}, {"progressive": True}, {"quality": 100, "subsampling": 0}],
    "PNG": [{"exif": _EXIF}, {"icc_profile": bytes(500)}, {"bits": 2}, {"transparency": 7}],
    "GIF": [{"save_all": True, "append_images": [picture("P")] * 2}, {"transparency": 3}],
    "TIFF": [
        *({"compression": c} for c in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "group4")),
        *({"compression": c} for c in ("tiff_adobe_deflate", "lzma", "zstd")),
        {"exif": _EXIF},
    ],
    "WEBP": [{"lossless": True}, {"save_all": True, "append_images": [picture("RGB")] * 2}],
    "AVIF": [{"exif": _EXIF}],
    "JPEG2000": [{"irreversible": True}, {"no_jp2": True}],
    "BMP": [],
    "DDS": [{"pixel_format": f} for f in ("DXT1", "DXT3", "DXT5", "BC5")],
    "TGA": [{"compression": "tga_rle"}],
    "SGI": [{"rle": True}],
}
NOT_FUZZED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF", "PDF", "PALM"}
"""What Pillow writes and hirelab does not open."""


@functools.cache
def image_files() -> dict[str, bytes]:
    """{name: content} of an image in every format and mode that Pillow writes, or we do."""
    Image.init()
    found = {}
    for kind in sorted(set(Image.SAVE) - NOT_FUZZED):
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"):
            for i, options in enumerate([{}, *OPTIONS.get(kind, [])]):
                if content := saved(mode, kind, **options):
                    found[f"{kind} {mode} {i}"] = content
    return {**found, **by_hand()}


def by_hand() -> dict[str, bytes]:
    """Images in formats that Pillow reads and does not write."""
    grey, rgb = picture("L").tobytes(), np.asarray(picture("RGB"))
    planes = rgb.transpose(2, 0, 1).tobytes()
    even = np.pad(rgb, ((0, 0), (0, 1), (0, 0)))[:, :, ::-1].tobytes()
    found = {
        "SUN": struct.pack(">8I", 0x59A66A95, WIDTH, HEIGHT, 24, len(even), 1, 0, 0) + even,
        "PSD": b"8BPS" + struct.pack(">HIHHIIHH", 1, 0, 0, 3, HEIGHT, WIDTH, 8, 3) + bytes(12)
        + struct.pack(">H", 0) + planes,
        "FITS": _fits(grey),
        "GBR": struct.pack(">5I", 28, 2, WIDTH, HEIGHT, 1) + b"GIMP" + struct.pack(">I", 10)
        + grey,
        "XVTHUMB": b"P7 332\n#END_OF_COMMENTS\n%d %d 255\n" % (WIDTH, HEIGHT) + grey,
        "XPM": _xpm(),
        "FLI": _fli(grey),
        "FTEX": b"FTEX" + struct.pack("<I2i2i2i", 1, WIDTH, HEIGHT, 1, 1, 1, 32)
        + struct.pack("<i", len(planes)) + rgb.tobytes(),
        "PIXAR": _pixar(rgb.tobytes()),
        "MCIDAS": _mcidas(grey),
        "PCD": bytes(2048) + b"PCD_" + bytes(96 * 2048 - 2052 + 768 * 512 * 3 // 2),
        "IMT": b" *\n*IMT\nwidth %d\nheight %d\npixel n8\n\x0c" % (WIDTH, HEIGHT) + grey,
        "PFM": b"Pf\n%d %d\n-1.0\n" % (WIDTH, HEIGHT) + np.zeros((HEIGHT, WIDTH), "<f4").tobytes(),
        "PPM text": b"P3\n%d %d\n255\n" % (WIDTH, HEIGHT) + b" ".join(b"%d" % v for v in rgb.flat),
    }  # fmt: skip
    if icon := saved("RGBA", "ICO", sizes=[(32, 32)], bitmap_format="bmp"):
        found["CUR"] = icon[:2] + b"\x02" + icon[3:10] + bytes(4) + icon[14:]
    if page := saved("RGB", "PCX"):
        found["DCX"] = struct.pack("<3I", 0x3ADE68B1, 12, 0) + page
    return found


def _fits(grey: bytes) -> bytes:
    cards = (
        *(("SIMPLE", "T"), ("BITPIX", "8"), ("NAXIS", "2")),
        *(("NAXIS1", str(WIDTH)), ("NAXIS2", str(HEIGHT))),
    )
    head = "".join(f"{name:8}= {value:>20}".ljust(80) for name, value in cards) + "END".ljust(80)
    return head.ljust(2880).encode() + grey.ljust(2880, b"\0")


def _xpm() -> bytes:
    rows = ('"' + "ab"[i % 2] * WIDTH + '",\n' for i in range(HEIGHT))
    colours = '"a c #ff0000",\n"b c #00ff00",\n'
    head = f'/* XPM */\nstatic char *x[] = {{\n"{WIDTH} {HEIGHT} 2 1",\n{colours}'
    return (head + "".join(rows) + "};\n").encode()


def _fli(grey: bytes) -> bytes:
    chunk = struct.pack("<IH", 6 + len(grey), 16) + grey
    frame = struct.pack("<IHH8x", 16 + len(chunk), 0xF1FA, 1) + chunk
    head = struct.pack("<IHHHHHHI", 128 + len(frame), 0xAF11, 1, WIDTH, HEIGHT, 8, 3, 5)
    return head.ljust(128, b"\0") + frame


def _pixar(rgb: bytes) -> bytes:
    head = bytearray(1024)
    head[:4] = b"\200\350\000\000"
    struct.pack_into("<HH", head, 416, HEIGHT, WIDTH)
    struct.pack_into("<HH", head, 424, 14, 2)
    return bytes(head) + rgb


def _mcidas(grey: bytes) -> bytes:
    head = [0] * 64
    head[1], head[8], head[9], head[10], head[13], head[33] = 4, HEIGHT, WIDTH, 1, 1, 256
    return struct.pack(">64i", *head) + grey


@functools.cache
def large_file(name: str) -> bytes:
    """A small file that is as large an image as is opened at all, in one mode."""
    mode, kind = name.split(" ")
    side = math.isqrt(MAX_PIXELS)
    options = {"TIFF": {"compression": "tiff_deflate"}, "PNG": {"compress_level": 1}}.get(kind, {})
    buffer = io.BytesIO()
    Image.new(mode, (side, side)).save(buffer, kind, **options)
    return buffer.getvalue()


LARGE = ("RGBA PNG", "LA PNG", "P GIF", "I;16 PNG", "F TIFF", "I TIFF", "CMYK TIFF", "RGB JPEG")


def other_sides(draw: Random, data: bytes) -> bytes:
    """A file that says another width or height, wherever it says one."""
    for side in draw.choice(((WIDTH,), (HEIGHT,), (WIDTH, HEIGHT))):
        new = draw.choice(SIDES)
        for code in ("<H", ">H", "<I", ">I"):
            if new < 256 ** struct.calcsize(code):
                data = data.replace(struct.pack(code, side), struct.pack(code, new), 1)
        data = data.replace(b" %d" % side, b" %d" % new, 1)
    return data


def checked_png(data: bytes) -> bytes:
    """A PNG file whose chunks have the checksums of what is in them."""
    found, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 4 : at + 8 + length]
        found += data[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        at += 12 + length
    return bytes(found)


def png_chunk(name: bytes, body: bytes) -> bytes:
    """One chunk of a PNG file."""
    return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")


@functools.cache
def zeros(megabytes: int) -> bytes:
    """Zeros, compressed."""
    packer = zlib.compressobj(9)
    return b"".join([packer.compress(bytes(10**6)) for _ in range(megabytes)]) + packer.flush()


def with_bomb(draw: Random, data: bytes) -> bytes:
    """A PNG with a chunk of text or colour profile that becomes very long."""
    packed = zeros(200)
    name, body = draw.choice(
        (
            (b"zTXt", b"a\0\0" + packed),
            (b"iTXt", b"a\0\1\0\0\0" + packed),
            (b"iCCP", b"a\0\0" + packed),
            (b"tEXt", b"a\0" + bytes(10**6)),
        )
    )
    return data[:33] + png_chunk(name, body) * draw.choice((1, 3)) + data[33:]


def make_image(draw: Random | None, folder: Path) -> Path:
    files = image_files()
    if draw is None:
        path = folder / "image.png"
        path.write_bytes(files["PNG RGB 0"])
        return path
    kinds = sorted({name.split(" ")[0] for name in files})
    kind = draw.choice(kinds)
    names = [name for name in files if name.split(" ")[0] == kind]
    data = files[draw.choice(names)]
    other = files[draw.choice(list(files))]
    way = draw.random()
    if way < 0.004:
        data = large_file(draw.choice(LARGE))
    elif way < 0.02 and kind == "PNG":
        data = with_bomb(draw, data)
    elif way < 0.25:
        data = other_sides(draw, data)
        data = damaged(draw, data, other) if draw.random() < 0.2 else data
    else:
        data = damaged(draw, data, other)
    if data[:8] == b"\x89PNG\r\n\x1a\n" and draw.random() < 0.6:
        data = checked_png(data)
    if draw.random() < 0.15:  # as the labels of another image
        return label_folder(folder, data)
    # what is inside decides, not what it is called
    path = folder / f"image{draw.choice(('.png', '.jpg', '.tif', '.gif', ''))}"
    path.write_bytes(data)
    return path


def label_folder(folder: Path, labels: bytes) -> Path:
    """CamVid's layout with one image, labelled by a file of these bytes."""
    for name in ("train", "trainannot"):
        (folder / "camvid" / name).mkdir(parents=True)
    picture("RGB").save(folder / "camvid" / "train" / "one.png")
    (folder / "camvid" / "trainannot" / "one.png").write_bytes(labels)
    return folder / "camvid"


def read_image(path: Path) -> str:
    if path.is_dir():
        maps = open_label_maps(path)
        image, labels = maps.read(0)
        assert labels.shape == image.size[::-1]
        assert labels.dtype == np.uint8
        assert set(np.unique(labels)) <= {*range(len(maps.classes)), NO_LABEL}
        return "labels"
    image = open_image(path)
    assert image.mode == "RGB"
    assert 0 < image.width * image.height <= MAX_PIXELS
    assert np.asarray(image).shape == (image.height, image.width, 3)
    x, names = hl.samples(1, 32, path)
    assert x.shape == (1, 3, 32, 32)
    assert x.isfinite().all()
    assert names == [path.name]
    return f"an image of {image.width} x {image.height}"


# ------------------------------------------------------------------ checkpoints

SMALL: dict[str, Any] = {
    **{"depths": (1, 1, 2, 1), "dims": (8, 8, 16, 16), "region": (2, 2, 2, 2), "shift": 1},
    "num_classes": 3,
}


@functools.cache
def small_network() -> hl.models.HireMLP:
    return hl.create("hire_mlp_atto", seed=0, **SMALL)


@functools.cache
def dense_file() -> bytes:
    """What a small segmenter's ``save`` writes."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.safetensors"
        hl.segmenter("fpn", "hire_mlp_atto", 2, seed=0, width=16).save(path)
        return path.read_bytes()


def odd_tensor(draw: Random, value: torch.Tensor) -> Any:
    """A tensor that is not what it was."""
    shape = list(value.shape) or [1]
    kind = draw.randrange(16)
    if kind == 0:
        return value.to(draw.choice((torch.int64, torch.bool, torch.float16, torch.bfloat16)))
    if kind == 1:
        return value.to(draw.choice((torch.complex64, torch.float64, torch.uint8)))
    if kind == 2:
        return torch.full_like(value, draw.choice((math.nan, math.inf, 1e38))) if (
            value.is_floating_point()) else value - 2**40  # fmt: skip
    if kind == 3:
        return value.new_zeros(1).expand(draw.choice((10**4, 10**8, 10**12)))
    if kind == 4:
        return value.new_zeros([1] * len(shape)).expand(shape)
    if kind == 5:
        return torch.sparse_coo_tensor(torch.zeros(len(shape), 1), torch.ones(1), shape)
    if kind == 6:
        return torch.empty(draw.choice((shape, [10**6, 10**6])), device="meta")
    if kind == 7:
        return torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8)
    if kind == 8:
        return value.new_zeros(0)
    if kind == 9:
        return value.reshape(-1)
    if kind == 10:
        return value[None]
    if kind == 11:
        axis = draw.randrange(len(shape))
        shape[axis] = draw.choice((0, 1, shape[axis] + 1, 2 * shape[axis], 1000))
        return value.new_zeros(shape)
    if kind == 12:
        return value.reshape(shape).transpose(0, -1)
    if kind == 13:
        return torch.nn.Parameter(value.float())
    if kind == 14:
        return draw.choice((None, 3, "x", [], {}, b"", (value, value), torch.Size([2]), 1j))
    return torch.tensor(1.0)


NAMES = (
    *("stages.999999.blocks.0.norm1.weight", "stages.0.blocks.999999.norm1.weight"),
    *("stages.0.blocks.1.norm1.weight", "stages.-1.blocks.0.x", "network.0.99999999999999.norm1.w"),
    *("network.6.0.attn.mlp_h1.weight", "module.module.x", "", ".", "\n", "\ud800x", "x" * 10_000),
    *("stage_norms.0.weight", "stage_norms.1.weight", "head.weight", "stem.conv.weight", "norm0.a"),
    *("stages.0.blocks.0.hire.channel.fc.weight", "stages.0.blocks.0.hire.height.mix.fc3.weight"),
)


def odd_state(draw: Random, state: dict[str, Any]) -> dict[Any, Any]:
    """A state dict with one to a few faults."""
    found: dict[Any, Any] = dict(state)
    for _ in range(draw.choice((1, 1, 2, 3))):
        name = draw.choice(list(found) or [""])
        kind = draw.randrange(6)
        if kind < 3:
            old = found.get(name)
            found[name] = odd_tensor(draw, old if isinstance(old, torch.Tensor) else torch.ones(2))
        elif kind == 3:
            found.pop(name, None)
        elif kind == 4:
            value = found.pop(name, torch.ones(2))
            found[draw.choice((*NAMES, 3, None, 2.5, ("a",)))] = value
        else:
            found[draw.choice(NAMES)] = torch.ones(draw.choice((0, 1, 8)))
    return found


def wrapped(draw: Random, state: Any) -> Any:
    """A state dict as training scripts keep it."""
    way = draw.randrange(8)
    if way == 0:
        return {"state_dict": state, "args": argparse.Namespace(lr=0.1), "epoch": 3}
    if way == 1:
        return {"model": {f"module.{k}": v for k, v in state.items()}}
    if way == 2:
        return {"model_ema": {"state_dict": state}, "state_dict": 3}
    if way == 3:
        return {f"backbone.{k}": v for k, v in state.items()} | {
            "decode_head.weight": torch.ones(1)
        }
    if way == 4:
        content: dict[str, Any] = {"state_dict": state}
        content["model"] = content
        return content
    return state


def rezipped(data: bytes, change: Callable[[str, bytes], bytes]) -> bytes:
    """A zip archive whose files are changed, with right checksums."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, change(info.filename, old.read(info)))
    return buffer.getvalue()


def torch_file(draw: Random, content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=draw.random() < 0.8)
    return buffer.getvalue()


def odd_safetensors(draw: Random, data: bytes, head_change: Callable[[Any], Any]) -> bytes:
    """A safetensors file whose head is changed."""
    length = int.from_bytes(data[:8], "little")
    head = as_json(draw, head_change(json.loads(data[8 : 8 + length])))
    return len(head).to_bytes(8, "little") + head + data[8 + length :]


def make_checkpoint(draw: Random | None, folder: Path) -> Path:
    state = small_network().state_dict()
    if draw is None:
        path = folder / "weights.pt"
        torch.save(state, path)
        return path
    if draw.random() < 0.2:
        return make_dense(draw, folder)
    if draw.random() < 0.2:
        return make_run(draw, folder)
    authors = draw.random() < 0.3
    content: Any = dict(to_authors(state) if authors else state)
    content = odd_state(draw, content) if draw.random() < 0.7 else content
    if draw.random() < 0.3:
        path = folder / "weights.safetensors"
        tensors = {
            str(k).encode("utf-8", "replace").decode(): v.contiguous()
            for k, v in content.items()
            if isinstance(v, torch.Tensor) and v.layout == torch.strided and not v.is_meta
            and not v.is_quantized and v.numel() < 10**7
        }  # fmt: skip
        data = safetensors.torch.save({k: v.clone() for k, v in tensors.items()})
        if draw.random() < 0.4:
            data = odd_safetensors(draw, data, lambda head: changed(draw, head))
    else:
        path = folder / draw.choice(("weights.pt", "weights.pth", "weights", "weights.bin"))
        data = torch_file(draw, wrapped(draw, content))
    way = draw.random()
    if way < 0.15:
        data = damaged(draw, data)
    elif way < 0.35 and zipfile.is_zipfile(io.BytesIO(data)):
        data = rezipped(
            data, lambda name, inside: damaged(draw, inside) if name.endswith("pkl") else inside
        )
    path.write_bytes(data)
    return path


def make_dense(draw: Random, folder: Path) -> Path:
    path = folder / "dense.safetensors"

    def change(head: dict[str, Any]) -> dict[str, Any]:
        if draw.random() < 0.3:
            return changed(draw, head)
        config = json.loads(head["__metadata__"]["hirelab"])
        text = as_json(draw, changed(draw, config)).decode("utf-8", "replace")
        return {**head, "__metadata__": {"hirelab": text}}

    data = odd_safetensors(draw, dense_file(), change)
    path.write_bytes(damaged(draw, data) if draw.random() < 0.1 else data)
    return path


@functools.cache
def run_files() -> dict[str, Any]:
    """The content of a finished run's folder."""
    from hirelab.training.recipes import PRESETS
    from hirelab.training.runs import RunConfig, RunInfo

    config = RunConfig(
        "hire_mlp_atto", {k: v for k, v in SMALL.items() if k != "num_classes"}, 0,
        PRESETS["quick"], ("a", "b", "c"), {"train": "t", "val": "v"}, {"train": 9, "val": 3}, {},
    )  # fmt: skip
    info = RunInfo(config, "folder", "hirelab train", "2026-01-01", 1, {"torch": "2"}, "a machine")
    rows = [{"epoch": i, "step": 3 * i, "loss": 1 / i, "val_top1": 10.0 * i} for i in (1, 2, 3)]
    return {"run.json": info.to_json(), "history.jsonl": rows}


def make_run(draw: Random, folder: Path) -> Path:
    run = folder / "run"
    run.mkdir()
    files = run_files()
    which = draw.randrange(4)
    info, rows = files["run.json"], files["history.jsonl"]
    (run / "run.json").write_bytes(odd_json(draw, info) if which == 0 else as_json(draw, info))
    lines = [as_json(draw, row) for row in rows]
    if which == 1:
        lines[draw.randrange(3)] = odd_json(draw, draw.choice(rows))
    (run / "history.jsonl").write_bytes(b"\n".join(lines))
    state: Any = dict(small_network().state_dict())
    data = safetensors.torch.save(state)
    if which == 2:
        data = damaged(draw, data) if draw.random() < 0.5 else safetensors.torch.save(
            dict(list(state.items())[draw.randrange(9) :]))  # fmt: skip
    (run / "model.safetensors").write_bytes(data)
    content: Any = {"model": state, "state": {"step": 3, "loss_sum": 1.0, "loss_count": 2,
                                              "seconds": 1.0, "history": rows}}  # fmt: skip
    if which == 3:
        way = draw.randrange(3)
        if way == 0:
            content["model"] = odd_state(draw, state)
        elif way == 1:
            content = changed_outside(draw, content)
    data = torch_file(draw, content)
    (run / "checkpoint.pt").write_bytes(damaged(draw, data) if which == 3 and way == 2 else data)
    return run


def changed_outside(draw: Random, content: dict[str, Any]) -> Any:
    """A checkpoint with its progress changed, or a part of it missing."""
    if draw.random() < 0.3:
        return {k: v for k, v in content.items() if k != draw.choice(("model", "state"))}
    state = changed(draw, content["state"])
    return {**content, "state": state}


def read_checkpoint(path: Path) -> str:
    if path.is_dir():
        return read_folder(path)
    if path.name.startswith("dense"):
        network = hl.load_dense(path)
        with torch.no_grad():
            found = hl.predict(network, picture("RGB"))
        assert found is not None
        return f"a {type(network).__name__}"
    model = hl.load(path)
    x = torch.zeros(1, model.in_chans, 64, 64)
    with torch.no_grad():
        logits = model(x)
    assert len(logits) == 1
    assert logits.is_floating_point()
    assert all(p.dtype == torch.float32 for p in model.parameters())
    return f"a network of {sum(p.numel() for p in model.parameters())} numbers"


def read_folder(run: Path) -> str:
    """Everything that a run's folder is read for; the first fault is the answer."""
    info = read_run(run)
    assert info.config.recipe.epochs >= 1
    history = read_history(run)
    assert str(history)
    assert history.column("loss") is not None
    model, _ = load_run(run)
    fresh = hl.create("hire_mlp_atto", **SMALL)
    progress = restore_checkpoint(run, {"model": fresh})
    assert progress is not None
    assert progress.step >= 0
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, len(info.config.classes))
    return "a run"


# ------------------------------------------------------------------ results


@functools.cache
def results() -> dict[str, tuple[type[Result], dict[str, np.ndarray], dict[str, Any]]]:
    """{kind of result: (its class, its arrays, its head)} of results as `save` writes them."""
    from hirelab._shared.files import data_folder
    from hirelab.analysis.cost import network_cost
    from hirelab.analysis.pyramid import pyramid
    from hirelab.dense.evaluation import PixelEvaluation
    from hirelab.training.evaluation import Evaluation

    model, x = small_network(), torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
    cam = hl.grad_cam(model, x)
    field = hl.receptive_field(model, x)
    weights = data_folder("weights") / "hire_mlp_atto.imagenette.evaluation.npz"
    camvid = data_folder("results") / "dense" / "camvid" / "random-0" / "evaluation.npz"
    every: list[Result] = [
        *(cam, field, hl.provenance(model, (0, 0), img_size=32), network_cost(model, 32)),
        *(hl.deletion_insertion(model, x, cam, steps=3), hl.compare_fields({"one": field})),
        *(hl.suggest_target_layer(model, x), pyramid(model, 32), Evaluation.load(weights)),
        PixelEvaluation.load(camvid),
    ]
    found = {}
    for one in every:
        values = {f.name: getattr(one, f.name) for f in dataclasses.fields(one)}
        arrays = {k: v for k, v in values.items() if isinstance(v, np.ndarray)}
        plain = {k: v for k, v in values.items() if k not in arrays}
        head = json.loads(json.dumps({"result": type(one).__name__, "values": plain}))
        found[type(one).__name__] = (type(one), arrays, head)
    return found


def npy(array: np.ndarray, shape: Any = None, descr: Any = None) -> bytes:
    """An array as a .npy file, whose head may say another shape or type than it has."""
    buffer = io.BytesIO()
    if shape is None and descr is None:
        np.save(buffer, array, allow_pickle=True)
        return buffer.getvalue()
    head = np.lib.format.header_data_from_array_1_0(array)
    head |= {"shape": shape} if shape is not None else {}
    head |= {"descr": descr} if descr is not None else {}
    text = repr(head).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + array.tobytes()


def odd_array(draw: Random, array: np.ndarray) -> bytes:
    """An array as a .npy file, with a fault."""
    kind = draw.randrange(9)
    if kind == 0:
        sides = draw.choice(((10**12,), (10**6, 10**6), (2**62, 4), (0,), (-1,), (10**9,), ("a",)))
        return npy(array, shape=sides)
    if kind == 1:
        return npy(array, descr=draw.choice(("|O", "<U9999999", "|V8", "<c16", "<f2", "nonsense")))
    if kind == 2:
        return npy(np.array([None, "x"], dtype=object))
    if kind == 3:
        return npy(array.astype(draw.choice((bool, np.int8, np.float16, np.complex64, str))))
    if kind == 4:
        return npy(array[..., :0] if array.ndim else array[None])
    if kind == 5:
        return npy(array[None])
    if kind == 6:
        return npy(np.full(array.shape, draw.choice((math.nan, math.inf, -1, 1e308))))
    if kind == 7:
        return npy(np.zeros(draw.choice(((), (1,), (7, 3), (1, 1, 1, 1, 1)))))
    return damaged(draw, npy(array))


def make_result(draw: Random | None, folder: Path) -> Path:
    name = "Provenance" if draw is None else draw.choice(list(results()))
    _, arrays, head = results()[name]
    files = {k: npy(v) for k, v in arrays.items()}
    text = json.dumps(head)
    path = folder / f"{name}.npz"
    if draw is not None and draw.random() < 0.45:
        text = as_json(draw, changed(draw, head)).decode("utf-8", "surrogatepass")
    files["__head__"] = npy(np.array(text))
    way = 1.0 if draw is None else draw.random()
    if draw is not None and way < 0.3 and arrays:
        which = draw.choice(list(arrays))
        files[which] = odd_array(draw, arrays[which])
    elif draw is not None and way < 0.4:
        files.pop(draw.choice(list(files)))
        files[draw.choice(("x", "__head__", "../x", "file"))] = npy(np.zeros(3))
    bomb = draw is not None and 0.4 <= way < 0.402
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for one, data in files.items():
            archive.writestr(f"{one}.npy", data)
        if bomb:  # as many gigabytes as there are of it, in a few megabytes
            with archive.open("large.npy", "w", force_zip64=True) as large:
                large.write(npy(np.zeros(1, np.uint8), shape=(3 * 10**9,))[:-1])
                for _ in range(300):
                    large.write(bytes(10**7))
    if draw is not None and 0.4 < way < 0.5 and not bomb:
        path.write_bytes(damaged(draw, path.read_bytes()))
    return path


def read_result(path: Path) -> str:
    cls = results()[path.stem][0]
    found = cls.load(path)
    for one in dataclasses.fields(found):
        assert (type(getattr(found, one.name)) is np.ndarray) == ("ndarray" in str(one.type)), (
            f"{one.name} is a {type(getattr(found, one.name)).__name__} and by its annotation "
            f"{one.type}"
        )
    assert str(found)
    return f"a {path.stem}"


# ------------------------------------------------------------------ ledgers


def make_entries(draw: Random | None, folder: Path) -> Path:
    ledger = folder / "ledger"
    cells = {
        DEFAULT: [75.5, 76.25],
        cell(restore=False): [74.0, 75.0],
        cell(padding="zero"): [70.0],
    }
    made_ledger(ledger, cells)
    if draw is None:
        return ledger
    paths = sorted(ledger.glob("*.json"))
    if draw.random() < 0.4:
        path = ledger / "protocol.json"
        path.write_bytes(odd_json(draw, json.loads(path.read_text())))
        return ledger
    path = draw.choice([one for one in paths if one.name != "protocol.json"])
    if draw.random() < 0.1:
        lease = {"host": "here", "process": 1, "token": "x"}
        path.with_suffix(".lease").write_bytes(odd_json(draw, lease))
        return ledger
    values = changed(draw, json.loads(path.read_text()))
    data = as_json(draw, values)
    data = damaged(draw, data) if draw.random() < 0.1 else data
    path.unlink()
    path = ledger / f"{_key_of(data) if draw.random() < 0.9 else path.stem}.json"
    path.write_bytes(data)
    return ledger


def _key_of(data: bytes) -> str:
    """The name that an entry's file has to have, also where what it says is wrong."""
    try:
        return RunKey(**json.loads(data)["key"]).name
    except Exception:  # no entry at all
        return hashlib.sha256(data).hexdigest()[:16]


def read_ledger(folder: Path) -> str:
    shared = read_protocol(folder)
    assert shared is not None
    ledger = Ledger(folder)
    entries, damaged_files = ledger.read()
    assert len(entries) + len(damaged_files) == 5
    for entry in entries:
        assert 0 <= entry.top1 <= 100 or entry.status == "failed"
        assert len(entry.answers) == entry.images
    for why in damaged_files.values():
        assert "\n" not in why
        assert len(why) < 600
    assert compile_csv([ledger], folder / "all.csv") == len(entries)
    assert ledger.leased() is not None
    for table in ("components", "padding"):
        for metric in ("top1", "loss"):
            found = hl.ablation_table(table, folder, metric)
            assert str(found)
    explorer = hl.AblationExplorer([folder], table="padding")
    assert explorer.render() is not None
    return f"{len(entries)} runs"


# ------------------------------------------------------------------ COCO


@functools.cache
def coco_content() -> dict[str, Any]:
    """The JSON of three images with all that an annotation can have."""
    from pycocotools import mask as coco

    square = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    square[5:20, 7:30] = 1
    packed = coco.encode(square)
    polygon = [[7.0, 5.0, 30.0, 5.0, 30.0, 20.0, 7.0, 20.0]]
    counts = {"size": [HEIGHT, WIDTH], "counts": [264, 15, 22, 15, HEIGHT * WIDTH - 316]}
    shapes = [polygon, {**packed, "counts": packed["counts"].decode()}, counts, [], polygon * 2]
    annotations = [
        {"id": i + 1, "image_id": 1 + i % 3, "category_id": (1, 7)[i % 2], "bbox": [7, 5, 23, 15],
         "segmentation": shape, "iscrowd": int(i == 2), "area": 345.0}
        for i, shape in enumerate(shapes)
    ]  # fmt: skip
    images = [
        {"id": i, "file_name": f"{i}.png", "width": WIDTH, "height": HEIGHT} for i in (1, 2, 3)
    ]
    categories = [{"id": 1, "name": "cup"}, {"id": 7, "name": "cat", "supercategory": "animal"}]
    return {"images": images, "annotations": annotations, "categories": categories, "info": {}}


def make_coco(draw: Random | None, folder: Path) -> Path:
    source = folder / "boxes"
    (source / "val2017").mkdir(parents=True)
    for i in (1, 2, 3):
        picture("RGB").save(source / "val2017" / f"{i}.png")
    content = coco_content()
    data = json.dumps(content).encode() if draw is None else odd_json(draw, content)
    (source / "instances_val2017.json").write_bytes(data)
    return source


def read_coco(source: Path) -> str:
    faults: list[str] = []
    lenient = open_boxes(source, "val", faults.append)
    check_boxes(lenient)
    assert all("\n" not in fault for fault in faults)
    assert has_boxes(open_files(source, "a folder")) in (True, False)
    strict = open_boxes(source, "val")
    assert not faults
    check_boxes(strict)
    return f"{len(strict)} images"


def check_boxes(images: BoxedImages) -> None:
    """Assert that what was read can be trained on."""
    from hirelab.dense.data import DetectionImages, fitted_sizes
    from hirelab.dense.recipes import DenseRecipe

    assert len(images) == len(images.sizes) == len(images.objects) == len(images.ids)
    for i, objects in enumerate(images.objects):
        width, height = images.sizes[i]
        for one in objects:
            x1, y1, x2, y2 = one.box
            assert 0 <= x1 < x2 <= width, one
            assert 0 <= y1 < y2 <= height, one
            assert 0 <= one.label < len(images.classes)
            assert math.isfinite(one.area), one
            assert one.area > 0, one
        images.read(i)
        masks = images.masks(i)
        assert masks.shape == (len(objects), height, width)
        assert masks.max(initial=0) <= 1
    if len(images):
        recipe = DenseRecipe()
        fitted_sizes(images, recipe)
        x, target = DetectionImages(images, recipe, 0, masks=True)[(0, 0, 0)]
        assert x.isfinite().all()
        assert torch.isfinite(target["boxes"]).all()


KINDS = {
    "images": Kind(make_image, read_image),
    "checkpoints": Kind(make_checkpoint, read_checkpoint),
    "results": Kind(make_result, read_result),
    "ledgers": Kind(make_entries, read_ledger),
    "coco": Kind(make_coco, read_coco),
}
"""What is fuzzed, by name."""


def faults_of(error: HirelabError, path: Path) -> str:
    """What is wrong with an error's sentence; "" where it is clear and names the file."""
    text = str(error)
    names = {path.name, *(one.name for one in path.rglob("*"))}
    if "\n" in text or not text.isprintable():
        return "its sentence has more than a line, or what cannot be printed"
    if not 20 <= len(text) <= 700:
        return f"its sentence has {len(text)} characters"
    if not any(name in text for name in names):
        return "its sentence does not name the file"
    return ""
