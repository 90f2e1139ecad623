"""Export for other runtimes: ONNX, or an exported program of PyTorch.

What is exported is the deployed network, which is the same function in fewer operations. Batch is
always dynamic; height and width are, when asked for. Or it is the rearrangeable network (see
`rearrangeable`), whose rearrangement is an input of the file.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from .._shared.errors import HirelabError
from .._shared.files import write_atomic
from .deploy import DeployedHireMLP, deploy
from .hire_mlp import HireMLP
from .rearrangeable import RearrangeableHireMLP, describe, index_maps

# From here up every map has more than one region along either axis; PyTorch's exporter takes a
# length of one for a constant and would not let it grow again.
SMALLEST = 96
FORMATS = {"onnx": ".onnx", "exported-program": ".pt2"}
DESCRIPTION = "hirelab"  # of a rearrangeable network, in an ONNX file's metadata
DESCRIPTION_FILE = "hirelab.json"  # the same beside an exported program, in its file


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
    _check_size(img_size, SMALLEST if dynamic_size else 3)
    network = model if isinstance(model, DeployedHireMLP) else deploy(model)
    like = network.stem.weight
    x = torch.zeros(2, network.in_chans, img_size, img_size, dtype=like.dtype, device=like.device)
    dims = {0: torch.export.Dim("batch")}
    if dynamic_size:
        dims |= {2: torch.export.Dim("height", min=SMALLEST)}
        dims |= {3: torch.export.Dim("width", min=SMALLEST)}
    with torch.no_grad():
        return torch.export.export(network, (x,), dynamic_shapes=(dims,), strict=False)


def _check_size(img_size: int, smallest: int) -> None:
    if img_size < smallest:
        raise HirelabError(f"img_size is {img_size}; this export needs at least {smallest} pixels.")


def export_rearrangeable(
    model: HireMLP, img_size: int = 224, points: Iterable[str] | None = None
) -> tuple[torch.export.ExportedProgram, list[str], list[str]]:
    """The network with its index maps as inputs, as a torch.export program for square images.

    Args:
        points: see `RearrangeableHireMLP`.

    Returns:
        The program, the names of its inputs (pixels, then the maps) and of its outputs (logits,
        then the points).

    Raises:
        HirelabError: for fewer than 3 pixels, and what `RearrangeableHireMLP` raises.
    """
    _check_size(img_size, 3)
    network = RearrangeableHireMLP(model, points)
    like = next(network.parameters())
    maps = [torch.from_numpy(m).to(like.device) for m in index_maps(model, img_size).values()]
    x = torch.zeros(2, model.in_chans, img_size, img_size, dtype=like.dtype, device=like.device)
    shapes: Any = ({0: torch.export.Dim("batch")}, tuple({} for _ in maps))
    with torch.no_grad():
        program = torch.export.export(network, (x, *maps), dynamic_shapes=shapes, strict=False)
    return program, ["pixels", *network.map_names], ["logits", *network.point_names]


def export(
    model: HireMLP | DeployedHireMLP,
    path: str | Path,
    format: str = "onnx",
    img_size: int = 224,
    dynamic_size: bool = False,
    rearrangeable: bool = False,
    points: Iterable[str] | None = None,
) -> Path:
    """Write the deployed or the rearrangeable network to a file, whole or not at all.

    Args:
        path: of the file; the format's own suffix is added where there is none.
        format: "onnx" (needs the extra ``export``: onnx and onnxscript) or "exported-program".
        img_size, dynamic_size: see `export_program`.
        rearrangeable: write the network that takes its index maps as inputs and returns points
            beside the logits, for one size of image. The file says how to drive it, see
            `rearrangeable.describe`: as JSON in ONNX's metadata under `DESCRIPTION`, or in the
            exported program's extra file `DESCRIPTION_FILE`.
        points: of a rearrangeable network, by default the stages' outputs and the gates' shares.

    Returns:
        The path.

    Raises:
        HirelabError: for an unknown format, a size too small, a path that is a folder, points or a
            dynamic size that do not go with the kind of network, and what `RearrangeableHireMLP`
            raises.
        ImportError: when ONNX is not installed, saying what to install.
    """
    if format not in FORMATS:
        raise HirelabError(f"format is {format!r}; choose one of {', '.join(FORMATS)}.")
    if rearrangeable and dynamic_size:
        raise HirelabError(
            "The lengths of index maps belong to one size of image: leave dynamic_size out, or "
            "rearrangeable."
        )
    if points is not None and not rearrangeable:
        raise HirelabError(
            "A deployed network has only its logits as output; points are those of a rearrangeable "
            "one: add rearrangeable."
        )
    path = Path(path)
    if path.is_dir():
        raise HirelabError(f"{path} is a folder; give the path of a file to write.")
    path = path if path.suffix else path.with_suffix(FORMATS[format])
    if format == "onnx":
        _check_onnx()
    inputs, outputs, description = ["pixels"], ["logits"], ""
    if rearrangeable:
        network = cast("HireMLP", model)  # a deployed one is refused, by a sentence
        program, inputs, outputs = export_rearrangeable(network, img_size, points)
        description = json.dumps(describe(network, img_size))
    else:
        program = export_program(model, img_size, dynamic_size)
    if format == "onnx":
        data = _onnx_bytes(program, inputs, outputs, description)
    else:
        buffer = io.BytesIO()
        extra = {DESCRIPTION_FILE: description} if description else {}
        torch.export.save(program, buffer, extra_files=extra)
        data = buffer.getvalue()
    write_atomic(path, data)
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


def _onnx_bytes(
    program: torch.export.ExportedProgram,
    inputs: list[str],
    outputs: list[str],
    description: str,
) -> bytes:
    """A program as an ONNX file's content; one with a description is not folded, but halved."""
    import onnxscript

    onnx_program = torch.onnx.export(
        program,
        input_names=inputs,
        output_names=outputs,
        dynamo=True,
        verbose=False,
        optimize=not description,
    )
    assert onnx_program is not None  # with dynamo=True there always is one
    model = onnx_program.model
    if description:
        # what the exporter's optimisation does, without folding norms into weights
        onnxscript.optimizer.fold_constants(model)
        onnxscript.optimizer.remove_unused_nodes(model)
        model.metadata_props[DESCRIPTION] = description
    for node in model.graph:
        node.metadata_props.clear()  # stack traces: as heavy as a small network's weights
    proto = onnx_program.model_proto
    if description:
        _halve(proto)
    return proto.SerializeToString()


def _halve(model: Any) -> None:
    """Store as half-precision what half precision holds exactly, and cast it when it is loaded.
    Changes the ONNX model in place.

    So are the bundled weights; runtimes cast once, before anything runs.
    """
    import onnx

    casts = []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < 64:
            continue
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if np.array_equal(half.astype(np.float32), values):
            name = tensor.name
            tensor.CopyFrom(onnx.numpy_helper.from_array(half, f"{name}.half"))
            casts.append(
                onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT)
            )
    nodes = [*casts, *model.graph.node]
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)
