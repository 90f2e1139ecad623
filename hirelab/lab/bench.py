"""Finds and runs the benchmarks: the modules in ``benchmarks/`` that have a ``main()``.

They print their tables and keep them, in data/results and in the documents (benchmarks/_report.py).
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .._shared.files import pick

_RUN = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
try:
    importlib.import_module(sys.argv[2]).main()
except KeyboardInterrupt:  # the command that started this says so
    sys.exit(130)
"""


def find_benchmarks(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """Return the benchmark files in ``folder``, sorted, or those ``names`` in the order given.

    Files whose name begins with an underscore are helpers.

    Raises:
        HirelabError: there is no benchmark of that name; the message suggests near ones.
    """
    return pick(sorted(folder.glob("[!_]*.py")), names, "benchmark")


def first_line(path: Path) -> str:
    """Return the first line of the module's docstring, without running the module."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return text.splitlines()[0] if text else "(no description)"


def run(path: Path) -> int:
    """Run the module's ``main()``, which prints what it measures; return its exit status.

    Each benchmark gets a process of its own, so that none is timed in what another left behind.
    """
    command = [sys.executable, "-c", _RUN, str(path.parent.resolve()), path.stem]
    return subprocess.run(command, check=False).returncode
