"""Export for other runtimes: ONNX, or an exported program of PyTorch.

What is exported is the deployed network, which is the same function in fewer operations. Batch is
always dynamic; height and width are, when asked for.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch

from .._shared.errors import HirelabError
from .deploy import DeployedHireMLP, deploy
from .hire_mlp import HireMLP

# From here up every map has more than one region along either axis; PyTorch's exporter takes a
# length of one for a constant and would not let it grow again.
SMALLEST = 96
FORMATS = {"onnx": ".onnx", "exported-program": ".pt2"}


def export_program(
    model: HireMLP | DeployedHireMLP, img_size: int = 224, dynamic_size: bool = False
) -> torch.export.ExportedProgram:
    """The deployed network as a torch.export program for square images, (batch, in_chans, ...).

    Args:
        img_size: pixels of the square example input.
        dynamic_size: let height and width vary, from `SMALLEST` pixels up.

    Raises:
        HirelabError: for a dynamic size with an example below `SMALLEST`, or one below 3 pixels.
    """
    smallest = SMALLEST if dynamic_size else 3
    if img_size < smallest:
        raise HirelabError(f"img_size is {img_size}; this export needs at least {smallest} pixels.")
    network = model if isinstance(model, DeployedHireMLP) else deploy(model)
    like = network.stem.weight
    x = torch.zeros(2, network.in_chans, img_size, img_size, dtype=like.dtype, device=like.device)
    dims = {0: torch.export.Dim("batch")}
    if dynamic_size:
        dims |= {2: torch.export.Dim("height", min=SMALLEST)}
        dims |= {3: torch.export.Dim("width", min=SMALLEST)}
    with torch.no_grad():
        return torch.export.export(network, (x,), dynamic_shapes=(dims,), strict=False)


def export(
    model: HireMLP | DeployedHireMLP,
    path: str | Path,
    format: str = "onnx",
    img_size: int = 224,
    dynamic_size: bool = False,
) -> Path:
    """Write the deployed network to a file, whole or not at all; returns the path.

    Args:
        path: of the file; the format's own suffix is added where there is none.
        format: "onnx" (needs the extra ``export``: onnx and onnxscript) or "exported-program".
        img_size, dynamic_size: see `export_program`.

    Raises:
        HirelabError: for an unknown format, a size too small, or a path that is a folder.
        ImportError: when ONNX is not installed, saying what to install.
    """
    if format not in FORMATS:
        raise HirelabError(f"format is {format!r}; choose one of {', '.join(FORMATS)}.")
    path = Path(path)
    if path.is_dir():
        raise HirelabError(f"{path} is a folder; give the path of a file to write.")
    path = path if path.suffix else path.with_suffix(FORMATS[format])
    if format == "onnx":
        _check_onnx()
    program = export_program(model, img_size, dynamic_size)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        draft = Path(folder) / path.name
        if format == "onnx":
            _write_onnx(program, draft)
        else:
            torch.export.save(program, draft)
        os.replace(draft, path)
    return path


def _check_onnx() -> None:
    """Make sure that ONNX is installed, before anything takes its time."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{error.name} is not installed; pip install 'hirelab[export]' brings it."
        ) from error


def _write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    onnx_program = torch.onnx.export(
        program, input_names=["pixels"], output_names=["logits"], dynamo=True, verbose=False
    )
    assert onnx_program is not None  # with dynamo=True there always is one
    onnx_program.save(path, external_data=False)
