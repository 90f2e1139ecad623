"""One JupyterLab, as `hirelab lab` starts it, and one Chromium, for all browser tests."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER_ARGUMENTS = [
    "--no-sandbox",  # CI runs as root in a container, where the sandbox cannot be made
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 120  # seconds, for a machine that is busy with other tests
JUPYTER_CONFIG = """
# The tests call the lab's own commands
c.LabApp.expose_app_in_browser = True
# CI runs as root, in a container
c.ServerApp.allow_root = True
# If the tests are killed outright, nobody is left to stop the server
c.MappingKernelManager.cull_idle_timeout = 300
c.ServerApp.shutdown_no_activity_timeout = 300
"""
# Asks whether the open notebook has a kernel that is idle. The status light says idle before the
# kernel exists, and "run all" in that moment is dropped.
KERNEL_IS_IDLE = """name => {
    const panel = window.jupyterapp?.shell.currentWidget;
    const session = panel?.sessionContext;
    return panel?.context?.path === name && session?.isReady
        && session.session?.kernel?.connectionStatus === "connected"
        && session.session.kernel.status === "idle";
}"""


@dataclass(frozen=True)
class Server:
    """A running JupyterLab: its address without the path, and its token."""

    address: str
    token: str

    def url(self, path: str) -> str:
        return f"{self.address}{path}{'&' if '?' in path else '?'}token={self.token}"


@pytest.fixture(scope="session")
def browser_path() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the path")
    return found


@pytest.fixture(scope="session")
def copies(tmp_path_factory) -> Path:
    """Where the lab puts its copies of the notebooks; `my_notebooks` may be somebody's."""
    return tmp_path_factory.mktemp("lab") / "copies"


@pytest.fixture(scope="session")
def server(browser_path, copies, tmp_path_factory) -> Iterator[Server]:
    """JupyterLab as a reader starts it; it ends with the tests, also when they are interrupted."""
    port, token = _free_port(), secrets.token_hex(16)
    settings = _jupyter_settings(tmp_path_factory.mktemp("jupyter"))
    log = copies.parent / "lab.log"
    command = [sys.executable, "-m", "hirelab", "lab", "--no-browser", "--port", str(port)]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--folder", str(copies)],
            env={**os.environ, **settings, "JUPYTER_TOKEN": token},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            server = Server(f"http://127.0.0.1:{port}", token)
            _wait_until_it_answers(server, process, log)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="session")
def browser(browser_path):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_path, headless=True, args=BROWSER_ARGUMENTS
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page without a past: what another test left open would ask whether to save it."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(PATIENCE * 1000)
    yield page
    page.close()


@pytest.fixture(scope="session")
def open_in(server):
    """A function that opens a notebook in a page and waits for its kernel."""

    def open_(page, name: str) -> None:
        page.goto(server.url(f"/lab/tree/{name}?reset"))
        page.wait_for_function(KERNEL_IS_IDLE, arg=name)

    return open_


@pytest.fixture
def open_notebook(page, open_in):
    """`open_in` the page of a test."""
    return lambda name: open_in(page, name)


@pytest.fixture
def command(page):
    """A function that gives JupyterLab one of its commands and waits until it has ended."""
    return lambda name: page.evaluate(f"jupyterapp.commands.execute('{name}')")


@pytest.fixture
def run_notebook(open_notebook, command):
    """A function that opens a notebook and runs all its cells; the page then shows them."""

    def run(name: str) -> None:
        open_notebook(name)
        command("notebook:run-all-cells")

    return run


@pytest.fixture
def screenshots(tmp_path) -> Path:
    """Where screenshots go: HIRELAB_SCREENSHOTS, to be looked at, or a folder of the test's own."""
    folder = Path(os.environ.get("HIRELAB_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _jupyter_settings(folder: Path) -> dict[str, str]:
    """Variables that give Jupyter settings of its own, made in ``folder``."""
    config = folder / "config"
    config.mkdir()
    (config / "jupyter_lab_config.py").write_text(JUPYTER_CONFIG)
    return {
        "JUPYTER_CONFIG_DIR": str(config),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
    }


def _wait_until_it_answers(server: Server, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.fail(f"`hirelab lab` ended with {process.returncode}:\n{log.read_text()}")
        try:
            urllib.request.urlopen(server.url("/api/status"), timeout=5).close()
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"`hirelab lab` did not answer in {PATIENCE} s:\n{log.read_text()}")
