"""Runs the notebooks and stores their outputs, normalised so that a second run changes no byte."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbformat import NotebookNode

from .._shared.errors import HirelabError
from .._shared.files import pick, write_atomic
from .jupyter_server_config import drop_views

ANSWER = "answer"  # the tag of a cell whose outputs answer a guess: they are folded until clicked
CELL_SECONDS = 600  # no cell should need this long; it ends a notebook that hangs


def find(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """Return the notebooks in ``folder``, sorted, or those ``names`` in the order given.

    Raises:
        HirelabError: there are none, or none of a name that was given (the message suggests near
            ones).
    """
    found = sorted(folder.glob("*.ipynb"))
    if not found:
        raise HirelabError(f"there is no notebook in {folder}")
    return pick(found, names, "notebook")


def read(path: Path) -> NotebookNode:
    """Read a notebook.

    Raises:
        HirelabError: the file is not a notebook.
    """
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, nbformat.ValidationError) as error:
        raise HirelabError(f"{path} is not a notebook: {first_line(error)}") from error


def run_notebooks(paths: Sequence[Path]) -> None:
    """Run every notebook and store its outputs, printing a line for each.

    Raises:
        HirelabError: a cell failed; that notebook stays as it was, as do those after it.
    """
    for number, path in enumerate(paths, start=1):
        print(f"[{number}/{len(paths)}] {path.name} ...", end=" ", flush=True)
        started = time.perf_counter()
        run_notebook(path)
        seconds = time.perf_counter() - started
        print(f"{seconds:.1f} s, {path.stat().st_size / 1000:.0f} KB", flush=True)


def run_notebook(path: Path) -> None:
    """Run one notebook in its own folder and write it back with its outputs, whole or not at all.

    Raises:
        HirelabError: a cell failed, hung or killed its kernel; the file is as it was.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the file is as it was.
    """
    notebook = read(path)
    _execute(notebook, path)
    normalise(notebook, path.stem)
    nbformat.validate(notebook)
    write_atomic(path, nbformat.writes(notebook) + "\n")


def _execute(notebook: NotebookNode, path: Path) -> None:
    """Run the cells in a fresh kernel of this Python, putting their outputs into ``notebook``."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        store_widget_state=False,  # code hosts refuse notebooks that carry it
        record_timing=False,
        coalesce_streams=True,  # where a stream is cut into pieces is chance
    )
    try:
        with TemporaryDirectory() as empty:
            client.execute(env=_kernel_environment(empty))
    except CellExecutionError as error:
        cell = next(n for n, cell in enumerate(code_cells(notebook), 1) if _errors(cell))
        said = f"{path.name}: code cell {cell} raised {error.ename}: {first_line(error.evalue)}"
        raise HirelabError(f"{said}; the file was left as it was\n{_traceback(error)}") from error
    except AssertionError as error:
        if client.km is not None:
            raise
        # nbclient takes Ctrl-C for itself, gives its kernel up, and then misses it
        raise KeyboardInterrupt from error
    except (CellTimeoutError, DeadKernelError) as error:
        said = f"{path.name}: {first_line(error)}"
        raise HirelabError(f"{said}; the file was left as it was") from error


def _kernel_environment(empty: str) -> dict[str, str]:
    """One thread, so that sums come out the same on every machine, and the notebook's own plots.

    And none of the data sets of this machine, but an ``empty`` folder in their place: what is
    stored does not depend on them, and shows no image that may not be passed on.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return {**inherited, "OMP_NUM_THREADS": "1", "HIRELAB_DATA": "", "HIRELAB_CACHE": empty}


def normalise(notebook: NotebookNode, stem: str) -> None:
    """Remove from ``notebook``, in place, what differs between two runs or two machines."""
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = NotebookNode(
        kernelspec=NotebookNode(display_name="Python 3", language="python", name="python3"),
        language_info=NotebookNode(name="python"),
    )
    prefix = re.sub(r"[^\w-]", "-", stem, flags=re.ASCII)[:50]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{prefix}-{number:02d}"
        tags = cell.metadata.get("tags")
        cell.metadata = NotebookNode(tags=tags) if tags else NotebookNode()
        if ANSWER in (tags or []):
            cell.metadata.jupyter = NotebookNode(outputs_hidden=True)
    drop_views(notebook)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the notebook's cells of code, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _errors(cell: NotebookNode) -> bool:
    """Whether the cell ended in an error that it was not meant to show."""
    meant = "raises-exception" in cell.metadata.get("tags", [])
    return not meant and any(output.output_type == "error" for output in cell.outputs)


def _traceback(error: Exception) -> str:
    """The traceback as the kernel printed it, without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", getattr(error, "traceback", "")).strip()


def first_line(text: object) -> str:
    """Return the first line of what ``text`` says; "" where it says nothing."""
    return (str(text).strip().splitlines() or [""])[0]
