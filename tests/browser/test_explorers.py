"""The explorers in a real JupyterLab: what is on one screen, what can be read, what follows."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

MADE = {
    "shift": "hl.ShiftExplorer()",
    "player": "hl.RearrangementPlayer(frame=25)",
    "region": "hl.RegionExplorer()",
    "block": "hl.BlockExplorer(image='cat')",
    "attribution": "hl.AttributionExplorer(image='rocket')",
    "field": "hl.ReceptiveFieldExplorer(image='rocket')",
    "reach": "hl.ReachExplorer()",
    "cost": "hl.CostExplorer()",
    "ablation": "hl.AblationExplorer()",
    "dense": "hl.DenseExplorer()",
    "kin": "hl.KinExplorer()",
    "network": "hl.NetworkExplorer()",
}
NAME = "explorers_under_test.ipynb"
SCREEN = {"width": 1440, "height": 900}
# WCAG 2's contrast of a colour with what it stands on, the first opaque ground up the page
CONTRAST = """element => {
    const parts = color => color.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    let ground = element, color = [0, 0, 0, 0];
    for (; ground && (color[3] ?? 1) === 0; ground = ground.parentElement)
        color = parts(getComputedStyle(ground).backgroundColor);
    const both = [light(color), light(parts(getComputedStyle(element).color))].sort();
    return (both[1] + 0.05) / (both[0] + 0.05);
}"""

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def opened(browser, open_in, copies):
    """A page with every explorer of `MADE` in a cell of its own, run once for all tests."""
    cells = ["import hirelab as hl", *(f"{name} = {code}\n{name}" for name, code in MADE.items())]
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        "cells": [
            {"cell_type": "code", "id": f"c{i}", "source": code, "metadata": {}, "outputs": [],
             "execution_count": None}
            for i, code in enumerate(cells)
        ],
    }  # fmt: skip
    (copies / NAME).write_text(json.dumps(notebook), encoding="utf-8")
    page = browser.new_page(viewport=SCREEN)
    page.set_default_timeout(120_000)
    # opened by its address: what a command opens can end up behind the launcher, which comes when
    # the lab has restored its layout
    open_in(page, NAME)
    # all cells are kept in the page, also those that are not in view
    shown = f"document.querySelectorAll('.hirelab-explorer img').length === {len(MADE)}"
    for last in (False, False, True):
        page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
        try:
            page.wait_for_function(shown, timeout=120_000 if last else 45_000)
            break
        except sync_api.TimeoutError:  # on a busy machine the command can come to nothing
            if last:
                raise
    yield page
    page.evaluate(f"window.jupyterapp.serviceManager.contents.delete('{NAME}')")  # leave no trace
    page.close()


def explorer(page, name: str):
    """The view of an explorer, scrolled to where it can be used."""
    found = page.locator(".hirelab-explorer").nth(list(MADE).index(name))
    found.scroll_into_view_if_needed()
    return found


def control(view, label: str):
    """The control of that label."""
    kinds = view.locator(".widget-slider, .widget-dropdown")
    return kinds.filter(has=view.page.get_by_text(label, exact=True))


def source(view) -> str:
    return view.locator("img").get_attribute("src")


def changed(view, before: str) -> None:
    view.page.wait_for_function(
        "([image, before]) => image.src !== before",
        arg=[view.locator("img").element_handle(), before],
    )


def give(view, path) -> None:
    """Choose a file in the dialog that the button opens."""
    with view.page.expect_file_chooser() as chooser:
        view.get_by_role("button", name="Your image").click()
    chooser.value.set_files(path)


def idle(page) -> None:
    """Wait until no explorer is at work."""
    expect(page.locator(".hirelab-busy")).to_have_count(0, timeout=120_000)


def seen(view) -> np.ndarray:
    """The image as it is drawn on the screen."""
    return np.asarray(Image.open(io.BytesIO(view.locator("img").screenshot())).convert("RGB"))


@pytest.mark.parametrize("name", MADE)
def test_controls_and_picture_are_on_one_screen(name, opened, screenshots):
    view = explorer(opened, name)
    opened.screenshot(path=screenshots / f"{name}_light.png")
    box = view.bounding_box()
    high = opened.locator(".jp-WindowedPanel-outer").first.bounding_box()["height"]
    assert box["height"] <= high
    assert view.locator("img").bounding_box()["width"] >= 700
    columns = {round(c.bounding_box()["x"]) for c in view.locator(".widget-label:visible").all()}
    assert len(columns) >= 3 or name in ("cost", "player")
    for label in view.locator(".widget-label, option, button").all():
        whole, shown = label.evaluate("e => [e.scrollWidth, e.clientWidth]")
        assert whole <= shown, label.text_content()
    titled = view.locator(
        ".widget-slider .widget-label, .widget-play, button:not(.widget-play *), img"
    )
    titles = [e.get_attribute("title") for e in titled.all()]
    assert len(titles) >= 2
    assert not {None, "null", ""} & set(titles)


def test_words_can_be_read_in_both_themes(opened, screenshots):
    read = ".hirelab-words, .widget-label:visible, .widget-readout, .hirelab-sign"
    for theme in ("Dark", "Light"):
        opened.evaluate(
            f"jupyterapp.commands.execute('apputils:change-theme', {{theme: 'JupyterLab {theme}'}})"
        )
        marked = f"body[data-jp-theme-light='{str(theme == 'Light').lower()}']"
        opened.wait_for_selector(marked, state="attached")
        for name in ("shift", "block"):
            view = explorer(opened, name)
            for words in view.locator(read).all():
                assert words.evaluate(CONTRAST) >= 4.5, (theme, words.text_content())
            opened.screenshot(path=screenshots / f"{name}_{theme}.png".lower())


def test_limits_follow_the_stage_and_reset_goes_back(opened):
    view = explorer(opened, "shift")
    handle = control(view, "token").locator(".noUi-handle")
    assert handle.get_attribute("aria-valuemax") == "27.0"
    handle.focus()
    for _ in range(3):
        handle.press("PageUp")
    idle(opened)
    control(view, "stage").locator("select").select_option("3")
    expect(handle).to_have_attribute("aria-valuemax", "6.0")
    expect(handle).to_have_attribute("aria-valuenow", "6.0")
    idle(opened)
    before = source(view)
    view.get_by_role("button", name="Reset").click()
    changed(view, before)
    expect(control(view, "token").locator(".widget-readout")).to_have_text("6")
    assert control(view, "stage").locator("select").input_value() == "1"


def test_a_class_is_chosen_by_name(opened):
    view = explorer(opened, "attribution")
    chosen = control(view, "class").locator("select")
    names = [name.replace("\xa0", " ") for name in chosen.locator("option").all_text_contents()]
    assert names[:3] == ["predicted", "tench", "English springer"]
    before = source(view)
    chosen.select_option(index=9)
    changed(view, before)
    assert "golf ball" in view.locator(".hirelab-words").text_content()


def test_slow_work_is_seen_and_only_the_last_wish_is_drawn(opened):
    """The kernel is kept busy by hand, so that the test does not depend on the machine."""
    view = explorer(opened, "cost")
    opened.evaluate(
        """code => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel
            .requestExecute({code, store_history: false}).done""",
        """
import time
draw, asked = cost.draw, []
def slow(s, found):
    asked.append(s.region)
    time.sleep(1)
    return draw(s, found)
cost.draw = slow
""",
    )
    sign = view.locator(".hirelab-sign")
    assert not sign.is_visible()
    handle = control(view, "region h").locator(".noUi-handle")
    handle.focus()
    before = source(view)
    for _ in range(4):
        handle.press("ArrowRight")
    sign.wait_for(state="visible")
    changed(view, before)
    sign.wait_for(state="hidden")
    opened.wait_for_function(
        "image => image.title.includes('7 times')", arg=view.locator("img").element_handle()
    )
    drawn = opened.evaluate(
        """async code => {
            const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
            const reply = await kernel.requestExecute(
                {code, store_history: false, user_expressions: {asked: "len(asked)"}}).done;
            return reply.content.user_expressions.asked.data["text/plain"];
        }""",
        "cost.draw = draw",
    )
    assert int(drawn) < 4


def test_the_readers_own_picture_is_taken_and_a_bad_file_is_said(opened, tmp_path):
    view = explorer(opened, "player")
    Image.new("RGB", (60, 40), (10, 120, 60)).save(tmp_path / "mine.png")
    (tmp_path / "bad.png").write_bytes(b"this is no image")
    before = source(view)
    give(view, tmp_path / "mine.png")
    changed(view, before)
    green = np.abs(seen(view).astype(int) - (10, 120, 60)).max(-1) < 12
    assert green.mean() > 0.2
    before = source(view)
    give(view, tmp_path / "bad.png")
    view.get_by_text("not an image").wait_for()
    assert source(view) == before


def test_a_narrow_window_keeps_the_picture_readable(opened, screenshots):
    opened.set_viewport_size({"width": 900, "height": 900})
    try:
        for name in ("shift", "block"):
            view = explorer(opened, name)
            view.locator("img").wait_for()
            opened.screenshot(path=screenshots / f"{name}_narrow.png")
            assert view.locator("img").bounding_box()["width"] >= 700
            columns = {round(c.bounding_box()["x"]) for c in view.locator("select, .slider").all()}
            assert len(columns) >= 2
    finally:
        opened.set_viewport_size(SCREEN)
