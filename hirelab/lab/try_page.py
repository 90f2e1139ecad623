"""The page on which trained networks run in the reader's browser, and their rearrangement moves.

One file holds all of it: the networks, exported with their index maps as inputs (see
`models.rearrangeable`), the runtime (ONNX Runtime Web, which npm brings), photographs and script.
So it works from any static host and from a disk, where a page may fetch nothing.

The runtime computes on one thread: more need a memory that is shared between threads, which
browsers give only to pages that are sent with two headers (cross-origin isolation). A file from a
disk has none, and most static hosts send none.
"""

from __future__ import annotations

import base64
import gzip
import html
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from .._shared.errors import HirelabError
from .._shared.files import write_atomic
from ..datasets.images import PHOTOGRAPHS, open_image
from ..datasets.transforms import square
from ..models import create
from ..models.export import export
from ..models.pretrained import manifest
from ..models.rearrangeable import describe
from ..rearrange import CROSS_REGIONS, PADDINGS
from ..viz import theme
from ..widgets import page as pages
from .npm import Package, read_files

__all__ = ["ABOUT", "NETWORKS", "PAGE", "RUNTIME", "TITLE", "write_try_page"]

PAGE, TITLE = "try.html", "Run Hire-MLP in your browser"
ABOUT = "A trained network answers on your own image, which stays on your machine."
NETWORKS = ("hire_mlp_pico.tinyimagenet", "hire_mlp_pico.imagenette")
RUNTIME = Package(
    "onnxruntime-web",
    "1.30.0",
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
)
# The smallest build: a processor, no graphics card. What is called bundle.min.mjs holds the glue
# that others fetch.
_RUNTIME_FILES = {
    "runtime-script": "dist/ort.wasm.bundle.min.mjs",
    "runtime-wasm": "dist/ort-wasm-simd-threaded.wasm",
}


def write_try_page(path: Path, networks: Sequence[str] = NETWORKS, nav: str = "") -> Path:
    """Write the page with bundled networks, the first of which it opens with.

    Args:
        path: of the page.
        networks: names of bundled Hire-MLPs.
        nav: HTML of a bar of links above all else.

    Returns:
        ``path``.

    Raises:
        HirelabError: npm cannot bring the runtime, or ONNX is not installed; nothing is written.
    """
    files = read_files(RUNTIME, list(_RUNTIME_FILES.values()))
    binaries = dict(zip(_RUNTIME_FILES, files, strict=True))
    described: list[dict[str, Any]] = []
    for name in networks:
        about, binaries[f"network-{len(described)}"] = _network(name)
        described.append(about)
    facts = {
        "networks": described,
        "paddings": PADDINGS,
        "modes": CROSS_REGIONS,
        "branchColors": theme.BRANCH,
        "heat": theme.color_table().tolist(),
    }
    write_atomic(path, _page(facts, binaries, nav))
    return path


def _network(name: str) -> tuple[dict[str, Any], bytes]:
    """What the page says and knows of a network, and its ONNX file."""
    model: Any = create(name, pretrained=True)
    made = manifest(name)
    with tempfile.TemporaryDirectory() as folder:
        try:
            file = export(
                model, Path(folder) / "network", img_size=made["img_size"], rearrangeable=True
            )
        except ImportError as error:
            raise HirelabError(str(error)) from error
        data = file.read_bytes()
    about = {
        "name": name,
        "top1": made["top1"],
        "images": made["images"],
        **describe(model, made["img_size"]),
        "pictures": [
            {"name": picture, "address": _address(picture, made["img_size"])}
            for picture in PHOTOGRAPHS
        ],
    }
    return about, data


def _address(photograph: str, img_size: int) -> str:
    """A photograph as the network gets it, pixel for pixel, as a data address."""
    file = io.BytesIO()
    image: Image.Image = square(open_image(photograph), img_size)
    image.save(file, "WEBP", lossless=True)
    return pages.data_address(file.getvalue())


def _page(facts: dict[str, Any], binaries: dict[str, bytes], nav: str) -> str:
    """The template with all that belongs into it."""
    written = json.dumps(facts, ensure_ascii=False).replace("<", r"\u003c")
    packed = "\n".join(
        f'<script type="application/gzip" id="{name}">{_packed(data)}</script>'
        for name, data in binaries.items()
    )
    body = _own("try_page.html")
    for mark, value in {
        "runtime": html.escape(f"{RUNTIME.name} {RUNTIME.version}"),
        "facts": written,
        "binaries": packed,
        "arithmetic": _own("try_arithmetic.js"),
        "script": _own("try_page.js"),
    }.items():
        body = body.replace(f"{{{{ {mark} }}}}", value)
    page = pages.html_page(TITLE, _own("try_page.css"), body, ABOUT)
    return pages.with_links(page, nav)


def _own(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _packed(data: bytes) -> str:
    """Compressed, the same every time, in letters that HTML can hold."""
    return base64.b64encode(gzip.compress(data, mtime=0)).decode("ascii")
