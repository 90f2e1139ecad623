"""Opens JupyterLab on the notebooks."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

FIRST = "00_start_here.ipynb"


def open_lab(
    folder: Path, port: int | None = None, *, browser: bool = True, root: bool = False
) -> NoReturn:
    """Serve ``folder`` in JupyterLab, opened on the first notebook, until it is stopped.

    The server listens on this machine only and asks for Jupyter's token, which is part of the
    address that it prints and opens. It takes the place of this process: what stops the one stops
    the other, and the memory of the libraries loaded so far is free for the notebooks.

    Two settings beside this file hold for this server and change none of the reader's: images are
    saved without their widgets (``jupyter_server_config.py``), and no pop-up asks whether to fetch
    news, unless the reader once said yes (``labconfig``).

    Args:
        folder: the folder to serve.
        port: serve on this port or fail; None takes the first free one from 8888 on.
        browser: open the reader's browser.
        root: start even for the system's administrator, which Jupyter refuses otherwise.
    """
    arguments = lab_arguments(folder, port, browser=browser, root=root)
    command = [sys.executable, "-m", "jupyterlab", *arguments]
    os.execve(sys.executable, command, lab_environment(os.environ))


def lab_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return ``environment`` with the lab's own settings on Jupyter's path, before the reader's."""
    before = environment.get("JUPYTER_CONFIG_PATH")
    settings = os.pathsep.join([str(Path(__file__).parent), *([before] if before else [])])
    return {**environment, "JUPYTER_CONFIG_PATH": settings}


def lab_arguments(
    folder: Path, port: int | None = None, *, browser: bool = True, root: bool = False
) -> list[str]:
    """Return JupyterLab's arguments for ``open_lab``."""
    arguments = [f"--ServerApp.root_dir={folder.resolve()}", "--ServerApp.ip=127.0.0.1"]
    if (folder / FIRST).is_file():
        arguments.append(f"--LabApp.default_url=/lab/tree/{FIRST}")
    if port is not None:
        arguments += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    if not browser:
        arguments.append("--no-browser")
    if root:
        arguments.append("--allow-root")
    return arguments
