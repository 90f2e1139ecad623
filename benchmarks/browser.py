"""try.html, the page on which a network runs: how heavy it is, how soon it answers.

A Chromium without a window and without a network opens the page from the disk. An image is a file
that the page decodes, cuts and hands to the network; a move changes every shift. Every time ends
when the new answer stands in the page. Goals: an answer within 300 ms, a page under 30 MB.
"""

from __future__ import annotations

import base64
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from shutil import which
from typing import Any

import numpy as np
from _report import report, table

from hirelab.datasets.images import PHOTOGRAPHS, open_image
from hirelab.lab.try_page import PAGE, write_try_page

GOAL_MS, GOAL_MB, ROUNDS = 300, 30, 20
SIZES = ((1200, 900), (4000, 3000))
ANSWERED = "document.getElementById('main').getAttribute('aria-busy') === 'false'"
# the script's own functions; each resolves when the answer is shown
GIVE = """async ([bytes, name]) => {
    const file = new File([Uint8Array.from(atob(bytes), c => c.charCodeAt(0))], name);
    const start = performance.now();
    await chooseFile(file);
    return performance.now() - start;
}"""
MOVE = """async shift => {
    const start = performance.now();
    await choose({shift: chosen.settings.shift.map(() => shift)});
    return performance.now() - start;
}"""


def jpeg(name: str, size: tuple[int, int]) -> list[str]:
    """A photograph of that size as base64 and a file's name."""
    file = io.BytesIO()
    open_image(name).resize(size).save(file, "JPEG", quality=90)
    return [base64.b64encode(file.getvalue()).decode("ascii"), f"{name}.jpg"]


def timed(page: Any, script: str, argument: Callable[[int], Any]) -> np.ndarray:
    """Quartiles of the milliseconds of `ROUNDS` runs, after one that warms up."""
    times = [page.evaluate(script, argument(i)) for i in range(ROUNDS + 1)]
    return np.percentile(times[1:], (25, 50, 75))


def measure(path: Path) -> list[list[str]]:
    """A row for each thing that is timed."""
    from playwright.sync_api import sync_playwright

    rows = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=which("chromium") or which("google-chrome"),
            args=["--no-sandbox", "--disable-gpu"],
        )
        page = browser.new_context(offline=True).new_page()
        page.set_default_timeout(120_000)
        start = time.perf_counter()
        page.goto(path.as_uri())
        page.wait_for_selector("#answer li")
        opened = time.perf_counter() - start
        rows.append(["page opened, to its first answer", f"{1000 * opened:.0f}", ""])
        for index in range(page.locator("#network option").count()):
            page.evaluate("index => chooseNetwork(index)", index)
            page.wait_for_function(ANSWERED)
            name = page.locator("#network option").nth(index).inner_text().partition(":")[0]
            for size in SIZES:
                files = [jpeg(photograph, size) for photograph in PHOTOGRAPHS]
                found = timed(page, GIVE, lambda i, files=files: files[i % len(files)])
                rows.append([f"{name}: a JPEG of {size[0]} x {size[1]} pixels", *_shown(found)])
            found = timed(page, MOVE, lambda i: i % 3)
            rows.append([f"{name}: a move of every shift", *_shown(found)])
        browser.close()
    return rows


def _shown(quartiles: np.ndarray) -> list[str]:
    low, middle, high = quartiles
    missed = f" (goal {GOAL_MS})" if middle > GOAL_MS else ""
    return [f"{middle:.0f}{missed}", f"[{low:.0f}, {high:.0f}]"]


def main() -> None:
    """Print the medians and the page's size."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_try_page(Path(folder) / PAGE)
        size = path.stat().st_size / 1e6
        rows = measure(path)
    rows.append(
        ["size of the page, MB", f"{size:.1f}" + f" (goal {GOAL_MB})" * (size > GOAL_MB), ""]
    )
    report("browser", table(["", "median, ms", "middle half"], rows))


if __name__ == "__main__":
    main()
