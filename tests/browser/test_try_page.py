"""The page on which a network runs, opened from a disk in a real browser without a network: it
computes what PyTorch computes, however the rearrangement is set, and asks nobody for anything."""

from __future__ import annotations

import base64
import io
import itertools
import json

import numpy as np
import pytest
import torch
from _helpers import PALE, noise_image
from PIL import Image

import hirelab as hl
from hirelab.datasets.images import open_image
from hirelab.datasets.transforms import square
from hirelab.lab.npm import read_files
from hirelab.lab.try_page import RUNTIME, write_try_page
from hirelab.rearrange import CROSS_REGIONS, PADDINGS, Rearrangement

NETWORK = "hire_mlp_atto.imagenette"  # a small one: it is exported soon
SETTINGS = [
    {},
    {"shift": [0, 0, 0, 0]},
    {"shift": [3, -2, 2, 1], "padding": "zero", "restore": False},
    {"padding": "reflect", "cross_region": "shuffle"},
    {"shift": [1, 1, 1, 1], "padding": "replicate", "cross_region": "shuffle", "restore": False},
    {"padding": "zero", "cross_region": "none"},
]
PHONE = {"width": 390, "height": 844}
READY = "() => document.getElementById('main').getAttribute('aria-busy') === 'false'"
OUTPUTS = """() => Object.fromEntries(Object.entries(last.outputs).map(
    ([name, {dims, data}]) => [name, {dims, data: Array.from(data)}]))"""

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    try:
        read_files(RUNTIME, [])
    except hl.HirelabError as error:
        pytest.skip(str(error))
    return write_try_page(tmp_path_factory.mktemp("try") / "try.html", [NETWORK])


@pytest.fixture(scope="module")
def model():
    return hl.create(NETWORK, pretrained=True)


@pytest.fixture(scope="module")
def opened(browser, page_file):
    """The page, opened once, without a network; what it asked for is in `page.asked`."""
    context = browser.new_context(offline=True, viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.asked, page.errors = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(page_file.as_uri())
    page.wait_for_selector("#answer li")
    yield page
    context.close()


@pytest.fixture
def page(opened):
    """The page as a reader finds it: a photograph, and the rearrangement as it was trained."""
    opened.set_viewport_size({"width": 1440, "height": 900})
    opened.get_by_role("button", name="coffee", exact=True).click()
    opened.get_by_role("button", name="Reset the rearrangement").click()
    ready(opened)
    return opened


def ready(page) -> None:
    page.wait_for_function(READY)


def shown(page) -> dict[str, np.ndarray]:
    """What the network gave in the page, by the names of the points."""
    return {
        name: np.array(value["data"], np.float32).reshape(value["dims"])
        for name, value in page.evaluate(OUTPUTS).items()
    }


def set_by_hand(page, settings) -> None:
    """Move the controls as a reader does."""
    for stage, shift in enumerate(settings.get("shift", [])):
        page.get_by_label(f"shift, stage {stage}").fill(str(shift))
    page.get_by_label("padding").select_option(settings.get("padding", "circular"))
    page.get_by_label("cross-region mode").select_option(settings.get("cross_region", "shift"))
    page.get_by_label("restore").set_checked(settings.get("restore", True))
    ready(page)


def check_equal(page, model, x) -> None:
    """Logits, stages and gates of the page are those of the network, to a thousandth."""
    with torch.no_grad():
        logits, cache = model.run_with_cache(x, ["stages.?.out", "*.hire.gate.out"])
    found = shown(page)
    assert found.keys() == {"logits", *cache}
    for name, expected in {"logits": logits, **cache}.items():
        assert np.abs(found[name] - expected.numpy()).max() < 1e-3, name


@pytest.mark.parametrize("number", range(len(SETTINGS)))
def test_the_page_computes_what_pytorch_does(page, number):
    model = hl.create(NETWORK, pretrained=True)
    set_by_hand(page, SETTINGS[number])
    model.set_rearrangement(**SETTINGS[number])
    for name in ("coffee", "rocket", "cat")[: 1 if number else 3]:
        page.get_by_role("button", name=name, exact=True).click()
        ready(page)
        x, _ = hl.samples(1, source=name, model=model)
        check_equal(page, model, x)
        top = model.pretrained_cfg["label_names"][model(x).argmax()]
        assert page.locator("#answer .name").first.inner_text() == top
    words = page.locator("#words").inner_text()
    assert words.startswith("As it was trained") == (number == 0), words
    assert not page.errors


def test_the_script_s_index_maps_are_the_library_s(page):
    rng = np.random.default_rng(0)
    asked = [
        (int(size), int(region), int(shift), padding, mode, restore)
        for padding, mode, restore in itertools.product(PADDINGS, CROSS_REGIONS, (True, False))
        for size, region, shift in zip(
            rng.integers(1, 30, 12), rng.integers(1, 9, 12), rng.integers(-35, 36, 12), strict=True
        )
    ]
    made = page.evaluate("asked => asked.map(one => indexMaps(...one))", asked)
    for one, maps in zip(asked, made, strict=True):
        r = Rearrangement(*one)
        assert maps["slots"] == r.slots.ravel().tolist(), one
        assert maps["landing"] == r.landing.tolist(), one


CUT = """async ([bytes, side]) => {
    const file = new Blob([Uint8Array.from(atob(bytes), c => c.charCodeAt(0))]);
    const {data, width, height} = await decode(file);
    return Array.from(squarePixels(data, width, height, side));
}"""


@pytest.mark.parametrize("size", [(301, 200), (130, 255), (40, 33), (2000, 90), (96, 96)])
def test_an_own_picture_is_cut_as_the_library_cuts_it(page, size):
    image = noise_image(*size)
    expected = np.asarray(square(image, 96))
    found = page.evaluate(CUT, [encoded(image), 96])
    assert np.array_equal(np.reshape(found, expected.shape), expected)


def test_a_very_tall_picture_is_cut_so_but_for_rounding(page):
    image = open_image("rocket").resize((200, 700))
    expected = np.asarray(square(image, 96), int)
    found = page.evaluate(CUT, [encoded(image), 96])
    assert np.abs(np.reshape(found, expected.shape) - expected).max() <= 2


def encoded(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def test_an_own_file_is_answered_as_by_the_library(page, model, tmp_path, screenshots):
    path = tmp_path / "mine.png"
    open_image("astronaut").crop((40, 0, 460, 300)).save(path)
    with page.expect_file_chooser() as chooser:
        page.get_by_text("Your own image", exact=True).click()
    chooser.value.set_files(path)
    page.get_by_role("img", name="mine.png").wait_for()
    ready(page)
    check_equal(page, model, hl.samples(1, source=path, model=model)[0])
    assert not page.locator("#pictures [aria-pressed=true]").count()
    page.screenshot(path=screenshots / "try.png", full_page=True)


def test_a_file_can_be_dropped_and_one_that_is_no_picture_is_said(page):
    drop = """([bytes, name]) => {
        const data = new DataTransfer();
        data.items.add(new File([Uint8Array.from(atob(bytes), c => c.charCodeAt(0))], name));
        document.body.dispatchEvent(
            new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
    }"""
    page.evaluate(drop, [encoded(noise_image(50, 60)), "dropped.png"])
    page.get_by_role("img", name="dropped.png").wait_for()
    ready(page)
    before = page.locator("#answer").inner_text()
    page.evaluate(drop, [base64.b64encode(b"some text").decode(), "notes.txt"])
    page.get_by_text("notes.txt is no image").wait_for()
    assert page.locator("#answer").inner_text() == before
    page.get_by_label("padding").select_option("zero")
    page.wait_for_function("document.getElementById('words').textContent.includes('padding')")
    assert "wrong" not in (page.locator("#words").get_attribute("class") or "")


def test_while_a_slider_is_dragged_only_the_last_place_is_computed_in_the_end(page):
    page.evaluate("() => { window.times = 0; window.inner = answer; "
                  "window.answer = () => { times += 1; return inner(); }; }")  # fmt: skip
    page.evaluate("""() => {
        const slider = document.getElementById("shift-0");
        for (let i = 0; i < 60; i++) {
            slider.value = -4 + i % 9;
            slider.dispatchEvent(new Event("input", {bubbles: true}));
        }
    }""")
    ready(page)
    assert 1 <= page.evaluate("times") <= 3
    assert page.evaluate("chosen.settings.shift[0]") == -4 + 59 % 9
    page.evaluate("() => { window.answer = inner; }")


def test_words_and_controls_follow(page):
    slider = page.get_by_label("shift, stage 0")
    slider.press("Home")
    ready(page)
    assert page.locator("output[for=shift-0]").inner_text() == slider.input_value() == "-4"
    words = page.locator("#words")
    assert words.inner_text().startswith("Shift -4 in stage 0 (trained: 2): ")
    assert words.get_attribute("aria-live") == "polite"
    page.get_by_role("button", name="Reset the rearrangement").press("Enter")
    ready(page)
    assert slider.input_value() == "2"
    assert words.inner_text().startswith("As it was trained: ")
    shares = page.evaluate("last.shares")
    assert sum(shares) == pytest.approx(1)
    assert page.locator("#answer li").count() == 5
    page.get_by_role("button", name="All 10 classes").click()
    assert page.locator("#answer li").count() == 10
    page.get_by_role("button", name="The first five").click()
    gates = page.locator("#gates [role=img]")
    assert gates.count() == 9  # a gate a block
    assert gates.first.get_attribute("aria-label").startswith("height ")
    maps = page.locator("#maps canvas")
    assert [c.evaluate("c => c.width") for c in maps.all()] == [24, 12, 6, 3]


def test_controls_say_what_they_do_and_rest_where_they_do_nothing(page):
    """Where a control rests, the index maps indeed do not hang on it."""
    sliders, restore = page.locator("#shifts input"), page.get_by_label("restore")
    note = page.locator("#shift-note-2")
    assert note.inner_text() == "blocks shift by 0, 1, 2"
    maps = "JSON.stringify(mapInputs(network(), chosen.settings))"
    page.get_by_label("cross-region mode").select_option("none")
    assert "no effect" in page.locator("#mode-note").inner_text()
    assert all(slider.is_disabled() for slider in sliders.all())
    assert restore.is_disabled()
    assert note.inner_text() == "blocks shift by 0, 0, 0"
    before = page.evaluate(maps)
    page.evaluate("() => choose({shift: [1, 0, 3, -1], restore: false})")
    assert page.evaluate(maps) == before
    page.get_by_label("cross-region mode").select_option("shuffle")
    assert all(slider.is_enabled() for slider in sliders.all())
    assert restore.is_enabled()
    assert "every shift but 0 does the same" in page.locator("#mode-note").inner_text()
    before = page.evaluate(maps)
    page.get_by_label("shift, stage 0").fill("2")
    assert page.evaluate(maps) == before
    page.get_by_label("padding").select_option("zero")
    assert page.locator("#padding-note").inner_text().endswith("gets zeros")
    for stage in range(4):
        page.get_by_label(f"shift, stage {stage}").fill("0")
    assert restore.is_disabled()


def test_on_a_phone_the_answer_stays_in_sight_of_the_sliders(page):
    page.set_viewport_size({"width": 390, "height": 500})
    last = page.get_by_label("restore")
    last.evaluate("element => element.scrollIntoView({block: 'end'})")
    words = page.locator("#words").bounding_box()
    assert -1 <= words["y"] <= 1
    assert words["y"] + words["height"] < last.bounding_box()["y"]


def test_every_control_is_labelled_and_a_phone_is_wide_enough(page, screenshots):
    for control in page.locator("input, select").all():
        label = page.locator(f"label[for={control.get_attribute('id')}]")
        assert label.inner_text().strip()
    page.set_viewport_size(PHONE)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        assert page.evaluate(PALE) == []
        page.screenshot(path=screenshots / f"try-phone-{scheme}.png", full_page=True)
    assert page.get_by_label("shift, stage 3").bounding_box()["width"] > 120


def test_nothing_was_asked_of_anyone(page, page_file):
    """Last: it looks back on all that the page did."""
    elsewhere = [url for url in page.asked if not url.startswith(("data:", "blob:"))]
    assert elsewhere == [page_file.as_uri()]
    assert page.errors == []
    assert "No image leaves this machine" in page.locator("main").inner_text()
    text = page_file.read_text(encoding="utf-8")
    facts = json.loads(text.partition('id="facts">')[2].partition("</script>")[0])
    assert [network["name"] for network in facts["networks"]] == [NETWORK]
