"""The notebooks as a reader meets them: opened in JupyterLab, run, and played with."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

# Notebook, slider and key: a move that is possible in the state that the notebook ends in
MOVES = [
    ("01_region_partition", "region, height", "ArrowLeft"),
    ("02_shift_and_restore", "shift", "ArrowRight"),
    ("03_inside_a_hire_block", "block", "ArrowLeft"),
]
IMAGE = ".jp-OutputArea-output .jupyter-widgets img"
ERROR = '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"]'

pytestmark = pytest.mark.browser


def test_the_lab_asks_for_its_token(server):
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{server.address}/api/contents")


@pytest.mark.parametrize(("name", "label", "key"), MOVES)
def test_a_slider_moved_by_key_changes_the_image(name, label, key, page, run_notebook, screenshots):
    run_notebook(f"{name}.ipynb")
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
    page.screenshot(path=screenshots / f"{name}.png")
    assert page.locator(ERROR).count() == 0
