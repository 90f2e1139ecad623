"""Opens JupyterLab on the notebooks."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

FIRST = "00_start_here.ipynb"


def open_lab(
    notebooks: Path, port: int | None = None, *, browser: bool = True, root: bool = False
) -> NoReturn:
    """Serve ``notebooks`` in JupyterLab, opened on the first one, until it is stopped.

    The server listens on this machine only and asks for Jupyter's token, which is part of the
    address that it prints and opens. It takes the place of this process: what stops the one stops
    the other, and the memory of the libraries loaded so far is free for the notebooks.

    Args:
        notebooks: the folder to serve.
        port: serve on this port or fail; None takes the first free one from 8888 on.
        browser: open the reader's browser.
        root: start even for the system's administrator, which Jupyter refuses otherwise.
    """
    arguments = lab_arguments(notebooks, port, browser=browser, root=root)
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", *arguments])


def lab_arguments(
    notebooks: Path, port: int | None = None, *, browser: bool = True, root: bool = False
) -> list[str]:
    """Return JupyterLab's arguments for ``open_lab``."""
    arguments = [f"--ServerApp.root_dir={notebooks.resolve()}", "--ServerApp.ip=127.0.0.1"]
    if (notebooks / FIRST).is_file():
        arguments.append(f"--LabApp.default_url=/lab/tree/{FIRST}")
    if port is not None:
        arguments += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    if not browser:
        arguments.append("--no-browser")
    if root:
        arguments.append("--allow-root")
    return arguments
