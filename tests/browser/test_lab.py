"""The notebooks as a reader meets them: opened in JupyterLab, run, played with, and saved."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
# Notebook, slider and key: a move that is possible in the state that the notebook ends in
MOVES = [
    ("02_shift_and_restore", "shift", "ArrowRight"),
    ("03_inside_a_hire_block", "block", "ArrowLeft"),
]
IMAGE = ".jp-OutputArea-output .jupyter-widgets img"
STILL = ".jp-RenderedImage img"
OPENED = "jupyterapp.shell.currentWidget"
ERROR = '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]'

pytestmark = pytest.mark.browser


def test_the_lab_asks_for_its_token(server):
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{server.address}/api/contents")


@pytest.mark.parametrize(("name", "label", "key"), MOVES)
def test_a_slider_moved_by_key_changes_the_image(name, label, key, page, run_notebook, screenshots):
    run_notebook(f"{name}.ipynb")
    move(page, label, key)
    page.screenshot(path=screenshots / f"{name}.png")
    assert page.locator(ERROR).count() == 0


def test_a_saved_notebook_shows_images_where_its_explorers_were(
    page, open_notebook, command, copies, screenshots
):
    name = "01_region_partition.ipynb"
    stored = {path: path.read_bytes() for path in NOTEBOOKS.glob("*.*")}
    open_notebook(name)
    shown = page.locator(".jp-DirListing-itemText").all_inner_texts()
    assert sorted(shown) == sorted(path.name for path in NOTEBOOKS.glob("*.ipynb"))
    assert page.get_by_text("Jupyter news").count() == 0
    command("docmanager:save")  # as JupyterLab does by itself after two minutes
    command("notebook:run-all-cells")
    move(page, "region, height", "ArrowLeft")
    page.evaluate(f"{OPENED}.content.widgets[1].model.sharedModel.setSource('explorer  # mine')")
    command("docmanager:save")
    page.evaluate(f"{OPENED}.sessionContext.shutdown()")  # and with it every widget

    open_notebook(name)
    page.locator(STILL).first.scroll_into_view_if_needed()
    page.screenshot(path=screenshots / "saved.png")
    assert page.evaluate(f"document.querySelector('{STILL}').naturalWidth") > 0
    assert page.get_by_text("model not found").count() == 0
    assert nbformat.read(copies / name, as_version=4).cells[1].source == "explorer  # mine"
    assert {path: path.read_bytes() for path in NOTEBOOKS.glob("*.*")} == stored


def move(page, label: str, key: str) -> None:
    """Press a key on the first slider with this label and wait for another image."""
    image = page.locator(IMAGE).first
    image.wait_for()
    assert page.locator(ERROR).count() == 0
    before = image.get_attribute("src")

    labelled = page.locator(".widget-slider").filter(has=page.get_by_text(label, exact=True))
    slider = labelled.first.locator(".noUi-handle")
    slider.focus()
    slider.press(key)

    page.wait_for_function(
        "([selector, before]) => document.querySelector(selector).src !== before",
        arg=[IMAGE, before],
    )
    image.scroll_into_view_if_needed()
