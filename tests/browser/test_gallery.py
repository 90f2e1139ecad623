"""The gallery as a reader meets it, opened from a disk: on a phone, and in the dark."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from _helpers import PALE

from hirelab.lab import frozen
from hirelab.lab.gallery import write_gallery
from hirelab.lab.notebooks import find, read
from hirelab.lab.outputs import Shown, explorers_of

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
PHONE = {"width": 390, "height": 844}

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def gallery(browser_path, tmp_path_factory) -> Path:
    """The gallery of the project's notebooks, every explorer with two positions of each control:
    where its notebook has it, and another."""
    shown = {k: v for p in reversed(find(NOTEBOOKS)) for k, v in explorers_of(read(p)).items()}
    few = [fewer(one, shown[one.name]) for one in frozen.frozen_explorers()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen, "frozen_explorers", lambda: few)
        # its own tests are in test_try_page.py
        patch.setattr("hirelab.lab.gallery._write_try_page", lambda path, nav: False)
        folder = tmp_path_factory.mktemp("gallery")
        return write_gallery(find(NOTEBOOKS), folder, ["hirelab.rearrange", "hirelab.hooks"]).parent


def fewer(one: frozen.Frozen, shown: Shown) -> frozen.Frozen:
    """An explorer's page with one position beside that of the notebook, for each control."""
    over = {
        name: [value for value in values if value != shown.settings[name]][:1]
        for name, values in one.over.items()
    }
    return frozen.Frozen(one.page, one.explorer, over)


@pytest.fixture
def phone(page):
    page.set_viewport_size(PHONE)
    return page


def drag(page, slider, way: float) -> None:
    """Press on a slider at its middle and let go at ``way`` of its length."""
    box = slider.bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * way, y, steps=4)
    page.mouse.up()


def test_no_page_asks_anyone_is_wider_than_a_phone_or_has_pale_text(gallery, phone):
    pages, asked = sorted(gallery.rglob("*.html")), []
    phone.on("request", lambda request: asked.append(request.url))
    assert len(pages) > 15
    for path in pages:
        for scheme in ("light", "dark"):
            phone.emulate_media(color_scheme=scheme)
            phone.goto(path.as_uri())
            assert phone.evaluate("document.documentElement.scrollWidth") == PHONE["width"], path
            assert phone.evaluate(PALE) == [], (path.name, scheme)
    assert [url for url in asked if not url.startswith((gallery.as_uri(), "data:"))] == []


def test_every_frozen_slider_can_be_dragged_on_a_phone(gallery, phone, screenshots):
    phone.emulate_media(color_scheme="dark")
    dragged = 0
    for one in frozen.frozen_explorers():
        path = gallery / one.page
        phone.goto(path.as_uri())
        for slider in phone.locator("#controls input[type=range]").all():
            if slider.is_disabled():  # those before it leave it no choice
                continue
            before = slider.input_value()
            assert slider.bounding_box()["width"] > 200
            drag(phone, slider, 0.01 if before == "1" else 0.99)
            assert slider.input_value() != before, path.name
            shown = phone.locator(f"output[for={slider.get_attribute('id')}]")
            assert slider.get_attribute("aria-valuetext") == shown.inner_text() != ""
            dragged += 1
        phone.screenshot(path=screenshots / f"phone-{path.stem}.png")
    assert dragged > 15


def test_an_explorer_in_a_notebook_has_room_and_its_picture_follows(gallery, phone, screenshots):
    phone.goto((gallery / "02_shift_and_restore.html").as_uri())
    frame = phone.locator("iframe").first
    frame.scroll_into_view_if_needed()
    inside = frame.element_handle().content_frame()
    inside.wait_for_function("innerHeight >= document.body.offsetHeight")
    image, facts = inside.locator("#image"), inside.locator("#facts")
    seen = {image.get_attribute("src")}
    for label, key in (("shift", "Home"), ("restore", "Space")):
        inside.get_by_label(label, exact=True).press(key)
        seen.add(image.get_attribute("src"))
        assert image.get_attribute("alt") == facts.inner_text()
    assert len(seen) == 3
    assert inside.locator("header:visible, nav:visible").count() == 0
    phone.screenshot(path=screenshots / "phone-02.png")


def test_a_figure_is_shown_larger_when_it_is_clicked(gallery, phone, screenshots):
    phone.goto((gallery / "06_grad_cam.html").as_uri())
    button = phone.locator("button.picture:visible").first
    assert button.locator("img").bounding_box()["width"] < PHONE["width"]
    button.press("Enter")
    large = phone.locator("dialog img")
    assert large.get_attribute("alt") == button.locator("img").get_attribute("alt") != ""
    assert large.bounding_box()["width"] == 768
    phone.screenshot(path=screenshots / "phone-larger.png")
    phone.keyboard.press("Escape")
    assert not large.is_visible()
    assert button.evaluate("element => element === document.activeElement")


def test_on_a_phone_printed_lines_wrap_and_tables_scroll(gallery, phone):
    phone.goto((gallery / "06_grad_cam.html").as_uri())
    beyond = """spans => spans.filter(s => s.offsetParent && s.scrollWidth > s.clientWidth)
        .map(s => s.className)"""
    phone.locator("details").evaluate_all("all => all.forEach(one => { one.open = true; })")
    assert set(phone.locator(".output_area pre > span").evaluate_all(beyond)) == {"table"}
    areas = phone.locator(".output_area").evaluate_all(beyond)
    assert areas == []


def test_the_player_plays_until_it_is_stopped(gallery, page):
    page.goto((gallery / "player.html").as_uri())
    slider, button = page.get_by_label("frame", exact=True), page.locator("button.play")
    before = slider.input_value()
    button.click()
    assert button.inner_text() == "Stop"
    page.wait_for_function("v => document.querySelector('input').value !== v", arg=before)
    button.click()
    assert button.inner_text() == "Play"


def test_no_control_of_a_page_offers_what_has_no_picture(gallery, page):
    page.goto((gallery / "block.html").as_uri())  # only stage 2 has a third block
    stage, block = (page.get_by_label(name, exact=True) for name in ("stage", "block"))
    image, at = page.locator("#image"), page.locator("output[for=control-1]")
    first = image.get_attribute("src")
    assert (at.inner_text(), block.is_enabled()) == ("2", True)
    stage.press("Home")
    assert (at.inner_text(), block.is_enabled()) == ("0", False)
    assert image.get_attribute("src") != first
    assert image.get_attribute("alt") == page.locator("#facts").inner_text() != ""
    stage.press("End")  # and what the reader had chosen is there again
    assert (at.inner_text(), image.get_attribute("src")) == ("2", first)


def test_a_word_typed_on_any_page_finds_notebooks_terms_and_public_names(gallery, page):
    page.goto((gallery / "api" / "hirelab" / "rearrange.html").as_uri())
    page.get_by_role("searchbox").fill("shift")
    page.get_by_role("searchbox").press("Enter")
    page.wait_for_url("**/search.html?q=shift")
    count, results = page.locator("#count"), page.locator("#results li")
    assert int(count.inner_text().split()[0]) >= results.count() > 10
    kinds = set(page.locator("#results .kind").all_inner_texts())
    assert {"Notebook", "Explorer", "Document: Glossary", "API: hirelab.rearrange"} <= kinds
    assert page.locator("#results a").first.inner_text() == "shift"
    page.get_by_role("searchbox").fill("shift glossary-has-no-such-word")
    assert results.count() == 0
    assert "Nothing" in count.inner_text()


def test_results_are_reached_by_arrows_and_lead_to_the_place(gallery, page):
    page.goto((gallery / "search.html").as_uri())
    page.keyboard.type("receptive field")  # the field has the focus
    shown = page.locator("#results a").first
    assert shown.inner_text() == "receptive field"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/glossary.html#receptive-field")
    assert page.locator("tr:target").inner_text().startswith("receptive field")


def test_what_is_typed_into_the_search_stays_text(gallery, page):
    page.goto((gallery / "search.html").as_uri() + "?q=%3Cimg%20src%3Dx%3E%20(%5B")
    assert page.get_by_role("searchbox").input_value() == "<img src=x> (["
    assert page.locator("main img").count() == 0
    page.get_by_role("searchbox").fill("h[")
    assert page.locator("#count").inner_text() != ""


def test_the_contents_of_a_module_are_beside_its_text_or_fold_above_it(gallery, page):
    page.goto((gallery / "api" / "hirelab" / "rearrange.html").as_uri())
    link = page.locator("nav.pdoc a.function", has_text=re.compile("^shift$"))
    assert link.is_visible()
    page.set_viewport_size(PHONE)
    assert not link.is_visible()
    page.get_by_text("Contents of this page").click()
    link.click()
    assert page.evaluate("location.hash") == "#shift"
