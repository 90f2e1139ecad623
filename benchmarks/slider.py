"""Explorers in JupyterLab: from a move of a control to the new image on the page.

A Chromium without a window presses a key on a slider, or chooses in a list, and waits until the
image has loaded: browser, server, kernel and drawing together, on one machine. Every move asks for
settings that were not drawn before. Goals: a median of 100 ms, of 350 ms where a network runs.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
from _report import report, table

GOAL_MS, GOAL_WITH_NETWORK_MS = 100, 350
MOVES = 20  # of each explorer, at most
# what is made, the label of the control that moves, whether a network runs for it
EXPLORERS = {
    "RegionExplorer": ("hl.RegionExplorer(stage=0, pick=0)", "unpack region", False),
    "ShiftExplorer": ("hl.ShiftExplorer(shift=-8, stage=0)", "shift", False),
    "RearrangementPlayer": ("hl.RearrangementPlayer(frame=15, shift=-8)", "shift", False),
    "CostExplorer": ("hl.CostExplorer(region=1)", "region h", False),
    "ReachExplorer": ("hl.ReachExplorer(blocks=1)", "blocks", False),
    "KinExplorer": ("hl.KinExplorer(blocks=1)", "blocks", False),
    "AblationExplorer": ("hl.AblationExplorer(table='region')", "table", False),
    "BlockExplorer": ("hl.BlockExplorer()", "channel, -1 all", True),
    "AttributionExplorer": ("hl.AttributionExplorer()", "class", True),
    "ReceptiveFieldExplorer": ("hl.ReceptiveFieldExplorer()", "image", True),
    "NetworkExplorer": ("hl.NetworkExplorer()", "row", True),
    "DenseExplorer": ("hl.DenseExplorer(photograph='scene 1')", "image", True),
}
# moves the control of a label once, and gives the milliseconds until the image has loaded
MOVE = """([number, label]) => {
    const view = document.querySelectorAll(".hirelab-explorer")[number];
    const found = [...view.querySelectorAll(".widget-slider, .widget-dropdown")]
        .find(c => c.querySelector(".widget-label").textContent === label);
    const handle = found.querySelector(".noUi-handle"), list = found.querySelector("select");
    const image = view.querySelector("img");
    const end = list ? list.selectedIndex === list.options.length - 1
        : handle.getAttribute("aria-valuenow") === handle.getAttribute("aria-valuemax");
    if (end) return null;
    return new Promise((done, fail) => {
        setTimeout(() => fail(new Error(label + ": no image in 60 s")), 60000);
        const start = performance.now();
        image.addEventListener("load", () => done(performance.now() - start), {once: true});
        if (list) {
            list.selectedIndex += 1;
            list.dispatchEvent(new Event("change", {bubbles: true}));
        } else handle.dispatchEvent(
            new KeyboardEvent("keydown", {key: "ArrowRight", bubbles: true}));
    });
}"""
READY = """() => {
    const session = window.jupyterapp?.shell.currentWidget?.sessionContext;
    const kernel = session?.session?.kernel;
    return session?.isReady && kernel?.connectionStatus === "connected"
        && kernel.status === "idle";
}"""


@contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """A JupyterLab of its own on a folder; yields the address of the folder's notebook."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    token, own = secrets.token_hex(16), folder / "jupyter"
    (own / "labconfig").mkdir(parents=True)
    quiet = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (own / "labconfig" / "page_config.json").write_text(json.dumps(quiet))
    places = ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--ServerApp.port={port}"]
    command += [f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True"]
    command += ["--ServerApp.allow_root=True"]
    process = subprocess.Popen(
        command,
        env={**os.environ, **dict.fromkeys(places, str(own)), "JUPYTER_TOKEN": token},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/api/status?token={token}").close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"{address}/lab/tree/all.ipynb?reset&token={token}"
    finally:
        process.terminate()
        process.wait()


def write_notebook(path: Path) -> None:
    """A notebook with every explorer in a cell of its own."""
    import nbformat.v4 as v4

    codes = ["import hirelab as hl", *(code for code, *_ in EXPLORERS.values())]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    book = v4.new_notebook(cells=[v4.new_code_cell(code) for code in codes], metadata=kernel)
    path.write_text(v4.writes(book))


def measure(page: Any) -> dict[str, list[float]]:
    """The milliseconds of every move, by explorer; the first, which warms up, is left out."""
    found: dict[str, list[float]] = {}
    for number, (name, (_, label, _)) in enumerate(EXPLORERS.items()):
        page.locator(".hirelab-explorer").nth(number).scroll_into_view_if_needed()
        times: list[float] = []
        while len(times) <= MOVES:
            taken = page.evaluate(MOVE, [number, label])
            if taken is None:  # the control has come to its end
                break
            times.append(taken)
            page.wait_for_timeout(150)
        found[name] = times[1:]
    return found


def main() -> None:
    """Print the medians."""
    from playwright.sync_api import sync_playwright

    browser_path = which("chromium") or which("google-chrome")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        write_notebook(folder / "all.ipynb")
        with jupyterlab(folder) as address:
            browser = playwright.chromium.launch(
                executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.set_default_timeout(120_000)
            page.goto(address)
            page.wait_for_function(READY)
            page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
            count = len(EXPLORERS)
            page.wait_for_function(
                f"document.querySelectorAll('.hirelab-explorer img').length === {count}"
            )
            found = measure(page)
            browser.close()
    rows = [_row(name, EXPLORERS[name][2], times) for name, times in found.items()]
    report(
        "slider", table(["explorer", "a network runs", "moves", "median, ms", "middle half"], rows)
    )


def _row(name: str, network: bool, times: list[float]) -> list[str]:
    goal = GOAL_WITH_NETWORK_MS if network else GOAL_MS
    low, middle, high = np.percentile(times, (25, 50, 75))
    shown = f"{middle:.0f}" + f" (goal {goal})" * bool(middle >= goal)
    return [name, "yes" if network else "", str(len(times)), shown, f"[{low:.0f}, {high:.0f}]"]


if __name__ == "__main__":
    main()
