"""What every explorer promises: settings, pure images, stills, live views, frozen pages."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import gc
import html
import io
import itertools
import json
import re
import struct
import tempfile
import threading
import time
import tracemalloc
import weakref
from dataclasses import dataclass, replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import ipywidgets as w
import numpy as np
import pytest
import torch
from _ablation import made_ledger
from ipywidgets.widgets import widget as registry
from PIL import Image

import hirelab as hl
from hirelab._shared.errors import HirelabError
from hirelab.ablation.tables import DEFAULT, cell
from hirelab.datasets.images import open_image
from hirelab.datasets.transforms import normalise, square
from hirelab.lab.frozen import frozen_explorers
from hirelab.viz.canvas import compact, mime
from hirelab.widgets import Explorer
from hirelab.widgets.controls import Choice, Slider, Toggle, choice, slider, toggle
from hirelab.widgets.explorer import CACHED
from hirelab.widgets.page import webp

NETWORK = hl.create("hire_mlp_atto", seed=0)


def block_explorer(**settings):
    return hl.BlockExplorer(NETWORK, "cat", **settings)


def network_explorer(**settings):
    return hl.NetworkExplorer(NETWORK, "cat", **settings)


def attribution_explorer(**settings):
    return hl.AttributionExplorer(NETWORK, "cat", **settings)


def field_explorer(**settings):
    return hl.ReceptiveFieldExplorer(NETWORK, "cat", **settings)


@cache
def ledgers() -> tuple[Path, Path, tempfile.TemporaryDirectory]:
    """Two small ledgers, and the folder that holds them as long as the tests run."""
    folder = tempfile.TemporaryDirectory()
    one, other = (Path(folder.name) / name for name in ("imagenette-cpu", "other"))
    made_ledger(one, {DEFAULT: [75.5, 76.25], cell(restore=False): [74.0, 75.0]})
    made_ledger(other, {DEFAULT: [70.0]})
    return one, other, folder


def ablation_explorer(**settings):
    return hl.AblationExplorer(ledgers()[:2], **settings)


# how it is made, one possible change, and a combination of possible values that is impossible
CONTRACT = {
    "RegionExplorer": (hl.RegionExplorer, {"region_height": 5}, {"stage": 3, "pick": 20}),
    "ShiftExplorer": (hl.ShiftExplorer, {"shift": -3}, {"stage": 3, "token": 30}),
    "RearrangementPlayer": (hl.RearrangementPlayer, {"frame": 20}, None),
    "BlockExplorer": (block_explorer, {"block": 0}, {"stage": 0, "block": 2}),
    "NetworkExplorer": (network_explorer, {"point": "mid"}, {"stage": 0, "block": 2}),
    "CostExplorer": (hl.CostExplorer, {"region": 5}, None),
    "ReachExplorer": (hl.ReachExplorer, {"blocks": 2}, {"stage": 3, "row": 30}),
    "AttributionExplorer": (attribution_explorer, {"target": 3}, {"stage": 0, "block": 2}),
    "ReceptiveFieldExplorer": (field_explorer, {"block": 0}, {"stage": 0, "block": 2}),
    "AblationExplorer": (ablation_explorer, {"table": "padding"}, None),
    "DenseExplorer": (hl.DenseExplorer, {"stage": 3}, None),
    "KinExplorer": (hl.KinExplorer, {"blocks": 5}, {"stage": 3, "row": 30}),
}
every = pytest.mark.parametrize(
    ("make", "change", "impossible"), CONTRACT.values(), ids=CONTRACT.keys()
)


def fields(explorer):
    return dataclasses.fields(explorer.Settings)


def wrong_values(control):
    """Values that a control could never take."""
    if isinstance(control, Toggle):
        return [0, 1, "yes", None]
    if isinstance(control, Choice):
        return ["nonsense", 2.5, True, None, 10**6, "3", [control.options[0]]]
    return [control.low - 1, control.high + 1, True, "3", 2.5, 2.0, None, [1], np.float64(2.0)]


def assert_one_sentence(text: str) -> None:
    assert text.endswith(".")
    assert "\n" not in text
    assert text[0].isupper() or text.split(" ")[0].isidentifier()


# ------------------------------------------------------------------ settings


@every
def test_every_default_and_every_change_can_be_drawn(make, change, impossible):
    explorer = make()
    assert explorer.settings == explorer.Settings()
    assert explorer.set(**change) is None
    state = explorer.state()
    for name, value in change.items():
        assert state[name] == value
    assert json.loads(json.dumps(state)) == state  # plain values all the way down


@every
def test_settings_given_at_once_are_settings_that_were_set(make, change, impossible):
    one, other = make(**change), make()
    other.set(**change)
    assert one.settings == other.settings
    assert one.render().tobytes() == other.render().tobytes()


@every
def test_an_unknown_setting_suggests_near_ones(make, change, impossible):
    explorer = make()
    name = next(iter(change))
    with pytest.raises(ValueError, match=rf"no setting '{name}s'\. Did you mean '{name}'"):
        explorer.set(**{name + "s": 1})
    with pytest.raises(ValueError, match="has " + ", ".join(f.name for f in fields(explorer))):
        explorer.set(qqqq=1)
    with pytest.raises(ValueError, match="no setting"):
        make(qqqq=1)


@every
def test_a_wrong_value_is_one_sentence_and_changes_nothing(make, change, impossible):
    explorer = make()
    before = explorer.settings
    for name, control in explorer.controls.items():
        for value in wrong_values(control):
            with pytest.raises(ValueError, match=name) as caught:
                # a possible change beside the impossible one must not get through either
                explorer.set(**{**change, name: value})
            assert_one_sentence(str(caught.value))
            assert explorer.settings is before


@every
def test_numbers_out_of_arrays_are_numbers(make, change, impossible):
    explorer = make()
    for field in fields(explorer):
        value = getattr(explorer.settings, field.name)
        explorer.set(**{field.name: np.array([value])[0]})
        now = getattr(explorer.settings, field.name)
        assert now == value
        assert type(now) is type(value)
    kinds = {int: np.int32, str: np.str_}
    explorer.set(**{k: kinds[type(v)](v) for k, v in change.items()})
    json.dumps(explorer.state())


@pytest.mark.parametrize("name", [k for k, v in CONTRACT.items() if v[2]])
def test_an_impossible_combination_is_one_sentence_and_changes_nothing(name):
    make, change, impossible = CONTRACT[name]
    explorer = make(**change)
    before = explorer.settings
    (first, value), (second, too_much) = impossible.items()
    why = rf"{second} is {too_much}; with .*{first}={value}\b"
    with pytest.raises(ValueError, match=why) as caught:
        explorer.set(**impossible)
    assert_one_sentence(str(caught.value))
    assert explorer.settings is before
    with pytest.raises(ValueError, match=re.escape(str(caught.value))):
        explorer.render(dataclasses.replace(before, **impossible))
    with pytest.raises(ValueError, match=re.escape(str(caught.value))):
        make(**{**change, **impossible})


@every
def test_settings_cannot_be_changed_behind_the_explorers_back(make, change, impossible):
    explorer = make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(explorer.settings, next(iter(change)), 1)
    with pytest.raises(AttributeError):
        explorer.settings = explorer.Settings()


# ------------------------------------------------------------------ images


@every
def test_drawing_is_pure(make, change, impossible):
    explorer = make()
    before = explorer.settings
    other = dataclasses.replace(before, **change)
    first, moved = explorer.render().tobytes(), explorer.render(other).tobytes()
    assert explorer.settings is before
    assert first == explorer.render().tobytes() == make().render().tobytes()
    assert moved == make(**change).render().tobytes() != first


@every
def test_images_of_settings_out_of_range_are_refused(make, change, impossible):
    explorer = make()
    name = next(iter(change))
    with pytest.raises(ValueError, match=f"{name} is 1000"):
        explorer.render(dataclasses.replace(explorer.settings, **{name: 1000}))


def chunks(data: bytes) -> list[str]:
    """The chunk types of a PNG."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, found = 8, []
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        found.append(data[at + 4 : at + 8].decode("ascii"))
        at += 12 + length
    return found


@every
def test_the_still_is_small_and_keeps_every_colour(make, change, impossible):
    explorer = make()
    data = explorer.still()
    assert 3_000 < len(data) < 400_000
    drawn = np.asarray(explorer.render()).astype(np.int32)
    shown = np.asarray(Image.open(io.BytesIO(data))).astype(np.int32)
    assert shown.shape == drawn.shape
    if mime(data) == "image/png":
        assert set(chunks(data)) == {"IHDR", "IDAT", "IEND"}  # pixels only, in true colour
        np.testing.assert_array_equal(shown, drawn)
    else:
        assert abs(shown - drawn).mean() < 2


@pytest.mark.parametrize(
    ("name", "format_"), [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.webp", "WEBP"), ("a", "PNG")]
)
def test_save_writes_what_the_suffix_says(name, format_, tmp_path):
    explorer = hl.RegionExplorer(stage=3, pick=0)
    explorer.save(tmp_path / "new" / name)
    image = Image.open(tmp_path / "new" / name)
    assert image.format == format_
    drawn = np.asarray(explorer.render()).astype(int)
    assert abs(np.asarray(image.convert("RGB")).astype(int) - drawn).mean() < 3
    with pytest.raises(HirelabError, match=r"a\.xyz' ends in '\.xyz'"):
        explorer.save(tmp_path / "a.xyz")


@every
def test_its_text_is_the_settings(make, change, impossible):
    explorer = make(**change)
    text = repr(explorer)
    assert "0x" not in text
    name, _, inside = text.partition("(")
    assert name == type(explorer).__name__
    assert eval(f"dict({inside}") == dataclasses.asdict(explorer.settings)


# ------------------------------------------------------------------ three lives


@every
def test_without_a_kernel_it_is_an_image_and_a_text(make, change, impossible):
    explorer, before = make(), set(registry._instances)
    bundle = explorer._repr_mimebundle_()
    kind = mime(explorer.still())
    assert set(bundle) == {"text/plain", kind}
    assert base64.b64decode(bundle[kind]) == explorer.still()
    assert bundle["text/plain"] == repr(explorer)
    assert set(registry._instances) == before  # no live view was made for it


@every
def test_with_a_kernel_it_is_a_widget_too(make, change, impossible, monkeypatch):
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=object()))
    explorer = make(**change)
    bundle = explorer._repr_mimebundle_()
    kind = mime(explorer.still())
    assert set(bundle) == {"text/plain", kind, "application/vnd.jupyter.widget-view+json"}
    view = bundle["application/vnd.jupyter.widget-view+json"]
    assert view["model_id"] == explorer.widget.model_id
    assert bundle["text/plain"] == repr(explorer)
    assert Image.open(io.BytesIO(base64.b64decode(bundle[kind]))).size
    explorer.close()


def test_a_terminal_of_ipython_is_no_kernel(monkeypatch):
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace())
    assert set(hl.CostExplorer()._repr_mimebundle_()) == {"text/plain", "image/png"}


# ------------------------------------------------------------------ live


def parts(widget, kind=w.Widget):
    """All widgets of a kind in a box."""
    found = [widget] if isinstance(widget, kind) else []
    for child in getattr(widget, "children", ()):
        found += parts(child, kind)
    return found


@dataclass
class View:
    """The parts of a live view as a reader meets them."""

    explorer: Explorer

    def control(self, name: str):
        label = self.explorer.controls[name].label
        kinds = (w.IntSlider, w.Dropdown, w.Checkbox)
        return next(c for c in parts(self.explorer.widget, kinds) if c.description == label)

    @property
    def image(self) -> bytes:
        (image,) = parts(self.explorer.widget, w.Image)
        return bytes(image.value)

    @property
    def words(self) -> str:
        every = (part.value for part in parts(self.explorer.widget, w.HTML))
        return next(value for value in every if 'class="hirelab-words' in value)

    @property
    def stale(self) -> bool:
        return "hirelab-stale" in self.explorer.widget._dom_classes

    @property
    def busy(self) -> bool:
        return "hirelab-busy" in self.explorer.widget._dom_classes

    def values(self) -> dict:
        return {f.name: self.control(f.name).value for f in fields(self.explorer)}


@pytest.fixture
def view(request):
    """A view of an explorer that is closed in the end."""
    opened = []

    def make(explorer):
        opened.append(explorer)
        assert explorer.widget
        return View(explorer)

    yield make
    for explorer in opened:
        explorer.close()


def counted(explorer, blank: bool = True) -> list:
    """Every image that is drawn from now on, by its settings; ``blank`` ones draw fast."""
    drawn, draw = [], explorer.draw

    def counting(settings, measured):
        drawn.append(settings)
        gray = (len(drawn) % 256,) * 3
        return Image.new("RGB", (4, 4), gray) if blank else draw(settings, measured)

    explorer.draw = counting
    return drawn


@every
def test_a_live_view_shows_the_image_and_every_setting(make, change, impossible, view):
    explorer = make(**change)
    seen = view(explorer)
    assert seen.values() == dataclasses.asdict(explorer.settings)
    shown = np.asarray(Image.open(io.BytesIO(seen.image)).convert("RGB")).astype(np.int16)
    assert abs(shown - np.asarray(explorer.render())).mean() < 3
    assert explorer.widget is explorer.widget  # made once


@every
def test_moving_a_control_changes_settings_and_image(make, change, impossible, view):
    explorer = make()
    seen = view(explorer)
    before = seen.image
    for name, value in change.items():
        seen.control(name).value = value
    assert explorer.settings == dataclasses.replace(explorer.Settings(), **change)
    assert seen.image != before
    words = explorer.words(explorer.settings, explorer.measure(explorer.settings))
    assert_one_sentence(words)
    assert html.escape(words) in seen.words
    (image,) = parts(explorer.widget, w.Image)
    assert image.tooltip == f"{explorer.title}. {words}"  # what a screen reader says of it
    assert not seen.busy


@every
def test_set_moves_the_controls_and_draws_once(make, change, impossible, view):
    explorer = make()
    seen = view(explorer)
    assert seen.image
    drawn = counted(explorer)
    several = {**change, "restore": False} if hasattr(explorer.settings, "restore") else change
    explorer.set(**several)
    assert seen.values() == dataclasses.asdict(explorer.settings)
    assert drawn == [explorer.settings]
    name, value = next(iter(change.items()))
    start = getattr(explorer.Settings(), name)
    seen.control(name).value = start
    seen.control(name).value = value
    assert len(drawn) <= 2  # there and, out of the cache, back
    assert seen.values() == dataclasses.asdict(explorer.settings)


@pytest.mark.parametrize("name", [k for k, v in CONTRACT.items() if v[2]])
def test_a_move_takes_along_what_depends_on_it(name, view):
    """At its limit, a control follows when the limit moves; whatever is moved is drawn."""
    make, _, impossible = CONTRACT[name]
    (first, value), (second, too_much) = impossible.items()
    start = 2 if second == "block" else make().settings.stage  # where there is the most room
    assert first == "stage"
    explorer = make(stage=start)
    seen = view(explorer)
    seen.control(second).value = explorer.controls[second].high
    drawn = counted(explorer)
    seen.control(first).value = value
    limit = explorer.controls[second].high
    assert limit < too_much
    assert (seen.control(second).value, seen.control(second).max) == (limit, limit)
    assert drawn == [explorer.settings]
    assert seen.values() == dataclasses.asdict(explorer.settings)
    assert not seen.stale
    # and back: there is more room again, and nothing is stuck
    seen.control(first).value = start
    assert seen.control(second).max == explorer.controls[second].high > limit
    explorer.set(**{second: explorer.controls[second].high})
    explorer.set(**{first: value})  # what was not asked for follows here too
    assert getattr(explorer.settings, second) == limit


@every
def test_reset_goes_back_to_how_it_was_made(make, change, impossible, view):
    explorer = make(**change)
    start = explorer.settings
    seen = view(explorer)
    default = getattr(explorer.Settings(), next(iter(change)))
    seen.control(next(iter(change))).value = default
    assert explorer.settings != start
    (reset,) = (b for b in parts(explorer.widget, w.Button) if b.description == "Reset")
    reset.click()
    assert explorer.settings == start
    assert seen.values() == dataclasses.asdict(start)


def test_of_many_moves_in_a_row_the_last_is_drawn(view):
    """In a kernel, which runs a loop, a drag does not wait for the images on its way."""
    explorer = hl.CostExplorer()
    seen = view(explorer)
    drawn = counted(explorer)

    async def drag() -> None:
        for region in (4, 5, 6, 7):
            seen.control("region").value = region
        assert (drawn, seen.busy) == ([], True)
        for _ in range(200):
            await asyncio.sleep(0.01)
            if drawn:
                return

    asyncio.run(drag())
    assert [s.region for s in drawn] == [7]
    assert explorer.settings.region == 7
    assert not seen.busy


def test_what_the_reader_changes_during_a_drawing_is_kept_and_drawn_next(view):
    """JupyterLab sends the first changes to the thread that runs cells and later ones to another:
    the second comes in the middle of the first's drawing, and the first ends last."""
    explorer = hl.CostExplorer()
    seen = view(explorer)
    drawn, draw, second = [], explorer.draw, threading.Event()

    def move(region: int) -> None:
        async def change() -> None:
            seen.control("region").value = region
            if region == 7:
                second.set()
            await asyncio.sleep(0.5)

        asyncio.run(change())

    def slow(settings, measured):
        drawn.append(settings.region)
        if settings.region == 4:
            assert second.wait(20)
            time.sleep(0.2)  # the other thread has asked for its drawing by now
        return draw(settings, measured)

    explorer.draw = slow
    first, other = (threading.Thread(target=move, args=(region,)) for region in (4, 7))
    first.start()
    while not drawn:
        time.sleep(0.01)
    other.start()
    first.join()
    other.join()
    assert drawn == [4, 7]
    assert seen.values()["region"] == explorer.settings.region == 7
    assert seen.image == explorer.update({}).image
    assert not seen.busy


def test_a_view_that_is_closed_draws_no_more(view):
    explorer = hl.CostExplorer()
    seen = view(explorer)
    drawn = counted(explorer)

    async def close() -> None:
        seen.control("region").value = 7
        explorer.close()
        await asyncio.sleep(0.05)

    asyncio.run(close())
    assert drawn == []


class Odd(Explorer):
    """An explorer with a combination that no limit rules out."""

    title = "Odd"

    @dataclass(frozen=True)
    class Settings:
        number: int = slider(1, 1, 3, "number")
        word: str = choice("a", ("a", "b"), "word")

    def problem(self, settings):
        both = settings.number == 3 and settings.word == "b"
        return "There is no b of 3." if both else None

    def draw(self, settings, measured):
        return Image.new("RGB", (8, 8), (settings.number * 50, 0, 0))

    def words(self, settings, measured):
        return f"{settings.number}{settings.word}."


def test_what_is_impossible_still_dims_the_image_and_says_what_it_shows(view):
    explorer = Odd(number=2)
    seen = view(explorer)
    seen.control("word").value = "b"
    before = seen.image
    seen.control("number").value = 3
    assert "There is no b of 3. The picture still shows number 2." in seen.words
    assert seen.stale
    assert (seen.image, explorer.settings) == (before, Odd.Settings(2, "b"))
    assert seen.control("number").value == 3  # one more move can make it possible
    seen.control("word").value = "a"
    assert explorer.settings == Odd.Settings(3, "a")
    assert not seen.stale
    assert "no b" not in seen.words
    seen.control("word").value = "b"
    explorer.set(number=1, word="b")  # `set` brings the controls along from there
    assert seen.values() == {"number": 1, "word": "b"}
    assert not seen.stale


@every
def test_what_cannot_be_drawn_changes_nothing(make, change, impossible, view):
    explorer = make()
    seen = view(explorer)
    before, image_before = explorer.settings, seen.image

    def fail(settings, measured):
        raise ValueError("There is no colour for <NaN>.")

    explorer.draw = fail
    with pytest.raises(ValueError, match="no colour"):
        explorer.set(**change)
    assert explorer.settings is before
    assert seen.values() == dataclasses.asdict(before)
    for name, value in change.items():
        seen.control(name).value = value
    assert "There is no colour for &lt;NaN&gt;." in seen.words
    assert explorer.settings is before
    assert seen.image == image_before


def test_play_moves_the_frame(view):
    seen = view(hl.RearrangementPlayer(frame=3))
    slider_ = seen.control("frame")
    (play,) = parts(seen.explorer.widget, w.Play)
    assert (play.min, play.max, play.value) == (slider_.min, slider_.max, 3)
    links = [x for x in registry._instances.values() if hasattr(x, "source")]
    assert [x.target for x in links if x.source == (play, "value")] == [(slider_, "value")]


@every
def test_the_cache_is_bounded_over_500_changes(make, change, impossible, view):
    explorer = make()
    seen = view(explorer)
    drawn = counted(explorer)
    positions = {
        k: range(c.low, c.high + 1) if isinstance(c, Slider) else c.options
        for k, c in explorer.controls.items()
        if not isinstance(c, Toggle)
    }
    moving = max(
        positions, key=lambda k: (isinstance(explorer.controls[k], Slider), len(positions[k]))
    )
    span, values = seen.control(moving), positions[moving]
    explorer.measure = lambda settings: None
    explorer.words = lambda settings, measured: str(getattr(settings, moving))

    def move(times: int) -> tuple[int, int]:
        for i in range(times):
            span.value = values[i % len(values)]
        drawn.clear()
        gc.collect()
        return len(gc.get_objects()), len(registry._instances)

    move(120)  # whatever is made once
    objects, widgets = move(120)
    later, widgets_later = move(500)
    assert widgets_later == widgets
    assert later - objects < 250
    assert explorer._live_frame.cache_info().currsize <= CACHED


def test_real_images_leave_no_memory_behind(view):
    explorer = hl.ShiftExplorer(stage=2, token=3, blocks=2)
    seen = view(explorer)
    moves = list(itertools.product(range(1, 9), (True, False), (0, 1, 2)))

    def go() -> int:
        for region, restore, shift in moves:
            explorer.set(region=region, restore=restore, shift=shift)
            assert seen.control("shift").value == shift
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        go()
        before = go()
        assert go() - before < 100_000
    finally:
        tracemalloc.stop()
    assert explorer._live_frame.cache_info().currsize == CACHED


@every
def test_a_closed_explorer_can_be_collected(make, change, impossible):
    before = set(registry._instances)
    explorer = make()
    assert isinstance(explorer.widget, w.VBox)
    assert len(registry._instances) > len(before)
    explorer.close()
    explorer.close()  # twice is once
    assert set(registry._instances) - before == set()
    explorer.set(**change)  # the explorer goes on
    assert explorer.widget.comm is not None  # and can show itself again
    explorer.close()
    gone = weakref.ref(explorer)
    del explorer
    gc.collect()
    assert gone() is None


@every
def test_an_explorer_that_was_never_shown_live_can_be_collected(make, change, impossible):
    explorer = make()
    explorer.render()
    gone = weakref.ref(explorer)
    del explorer
    gc.collect()
    assert gone() is None


def test_two_explorers_do_not_move_each_other(view):
    one, other = view(hl.CostExplorer()), view(hl.CostExplorer())
    one.control("region").value = 7
    assert other.explorer.settings == other.explorer.Settings()
    assert other.control("region").value != 7


# ------------------------------------------------------------------ frozen pages


class Inputs(HTMLParser):
    """The sliders of a frozen page, the labels of its controls, and its headings."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ranges: list[dict] = []
        self.labels: list[str] = []
        self.headings: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self._in = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self._in = tag
        self.tags.append((tag, dict(attrs)))
        if dict(attrs).get("type") == "range":
            self.ranges.append(dict(attrs))

    def handle_endtag(self, tag):
        self._in = ""

    def handle_data(self, data):
        if self._in == "label":
            self.labels.append(data)
        if self._in in ("h1", "title"):
            self.headings.append(data)


def data_of(page: str) -> dict:
    """The images and values inside a page; no text of it can have ended the script."""
    assert page.count("<script>") == page.count("</script>") == 1
    script = page[page.index("<script>") + 8 : page.index("</script>")]
    line = next(x for x in script.splitlines() if x.startswith("const data = "))
    return json.loads(line.removeprefix("const data = ").removesuffix(";"))


@pytest.mark.parametrize(
    ("name", "over"),
    [
        ("RegionExplorer", {"stage": (2, 3), "pick": (1, 4)}),
        ("ShiftExplorer", {"stage": [2, 3], "token": (6, 7), "restore": (True, False)}),
        ("RearrangementPlayer", {"frame": range(0, 56, 11)}),
        ("BlockExplorer", {"stage": (1, 2), "block": (1, 2), "carry_back": (False, True)}),
        ("CostExplorer", {"size": (7, 56), "region": np.arange(1, 4)}),
    ],
)
def test_a_frozen_page_holds_every_image_where_its_script_looks(name, over, tmp_path):
    explorer = CONTRACT[name][0]()
    path = tmp_path / "pages" / "page.html"
    before = explorer.settings
    assert explorer.freeze(path, **over) == path
    assert explorer.settings is before
    page = path.read_text(encoding="utf-8")
    assert "://" not in page  # base64 may hold "http", but no colon
    seen = Inputs(page)
    for tag, attributes in seen.tags:
        assert tag not in ("iframe", "script") or not attributes
        fetched = {"src", "href", "srcset"} & set(attributes)
        assert all(attributes[name].startswith("data:") for name in fetched)
    assert "@import" not in page
    assert "url(" not in page
    data = data_of(page)
    order = [setting for setting in explorer.controls if setting in over]
    values = {setting: list(over[setting]) for setting in order}
    toggles = [isinstance(explorer.controls[setting], Toggle) for setting in values]
    for toggle_, names, options in zip(toggles, data["values"], values.values(), strict=True):
        assert len(names) == len(options)
        assert toggle_ or names == [str(option) for option in options]
    assert [(r["min"], r["max"]) for r in seen.ranges] == [
        ("0", str(len(options) - 1))
        for toggle_, options in zip(toggles, values.values(), strict=True)
        if not toggle_
    ]
    assert seen.labels == [explorer.controls[setting].label for setting in values]
    impossible = 0
    sliders = [range(len(options)) for options in values.values()]
    for positions in itertools.product(*sliders):
        index = 0  # as the script of the page finds it
        for options, position in zip(values.values(), positions, strict=True):
            index = index * len(options) + position
        frame = data["frames"][index]
        chosen = {s: o[p] for (s, o), p in zip(values.items(), positions, strict=True)}
        try:
            settings = explorer.check(chosen)
        except ValueError:
            assert frame is None
            impossible += 1
            continue
        image = base64.b64decode(data["images"][frame["image"]].partition(",")[2])
        assert image == webp(explorer.render(settings))
        assert frame["text"] == explorer.update(chosen).text != ""
        explorer.set(**dataclasses.asdict(before))
    assert len(data["frames"]) == np.prod([len(o) for o in sliders])
    assert (impossible > 0) == (name in ("RegionExplorer", "ShiftExplorer", "BlockExplorer"))
    assert data["frames"][np.ravel_multi_index(data["start"], [len(v) for v in values.values()])]
    missing = [c.label for s, c in explorer.controls.items() if s not in over]
    assert f"these move too: {'; '.join(missing)}." in page


def test_a_frozen_page_has_further_combinations_that_follow_the_others(tmp_path):
    """The page's list has a place for each product of values, and pictures for what was asked."""
    explorer = hl.KinExplorer(right="Swin-T", row=1, blocks=2)
    corner = {"right": ["Swin-T"], "row": [0, 1], "blocks": [2]}
    over = {"right": ["ConvNeXt-T", "AS-MLP-T"], "blocks": [1, 2]}
    data = data_of(explorer.freeze(tmp_path / "a.html", corner, **over).read_text(encoding="utf-8"))
    # settings in their own order; a choice, where several lists have it, as its control has it
    assert data["values"] == [["AS-MLP-T", "Swin-T", "ConvNeXt-T"], ["0", "1"], ["1", "2"]]
    drawn = [bool(frame) for frame in data["frames"]]
    assert drawn == [False, False, True, True, False, True, False, True, False, False, True, True]
    assert data["start"] == [1, 1, 1]
    assert "Swin-T" in data["frames"][7]["text"]


def start_of(path) -> list[int]:
    return [int(r["value"]) for r in Inputs(path.read_text(encoding="utf-8")).ranges]


def test_a_frozen_page_opens_on_the_current_settings_or_on_an_image(tmp_path):
    explorer = hl.RegionExplorer(stage=2, pick=2)
    counted(explorer)
    path = explorer.freeze(tmp_path / "a.html", stage=(1, 2, 3), pick=(0, 2))
    assert start_of(path) == [1, 1]
    # stage 3 has 3 regions of 3: the first combination is impossible, the next is not
    path = explorer.freeze(tmp_path / "b.html", stage=(3,), pick=(9, 1))
    assert start_of(path) == [0, 1]


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({}, "draw 1 of 2 to 240"),
        ({"shift": ()}, "draw 0 of 2 to 240"),
        ({"shift": (2,)}, "draw 1 of 2 to 240"),
        ({"shift": range(-8, 9), "region": range(1, 9), "restore": (True, False)}, "272"),
        ({"shift": range(10**4), "region": range(10**4), "token": range(10**4)}, "10{12}"),
        ({"shfit": (1, 2)}, "Did you mean 'shift'"),
        ({"stage": (3,), "token": (20, 30)}, "None of the 2 combinations is possible"),
        ({"shift": ("1", "2")}, "None of the 2 combinations is possible: shift is '1'"),
    ],
)
def test_pages_that_make_no_sense_are_refused(over, message, tmp_path):
    explorer = hl.ShiftExplorer()
    drawn = counted(explorer)
    with pytest.raises(ValueError, match=message):
        explorer.freeze(tmp_path / "page.html", **over)
    assert list(tmp_path.iterdir()) == []
    assert drawn == []


class Nasty(Explorer):
    """An explorer whose every text is an attack."""

    title = "<b>Tom & Jerry</b>"

    @dataclass(frozen=True)
    class Settings:
        number: int = slider(1, 1, 3, '"><img src=x>')
        word: str = choice("</script><script>alert(1)", ("</script><script>alert(1)", "<!--"), "w")
        yes: bool = toggle(True, "&amp;")

    def draw(self, settings, measured):
        return Image.new("RGB", (8, 8), (settings.number * 50, 0, 0))

    def words(self, settings, measured):
        return f"said: </script><!-- <i>{settings.word}"


def test_texts_are_texts_on_a_page_and_beside_a_control(tmp_path, view):
    explorer = Nasty()
    path = explorer.freeze(tmp_path / "page.html", number=(1, 2), word=("<!--",), yes=(True,))
    page = path.read_text(encoding="utf-8")
    seen = Inputs(page)
    assert seen.headings == [Nasty.title, Nasty.title]
    assert '"><img src=x>' in seen.labels
    assert [tag for tag, _ in seen.tags].count("img") == 1
    assert not {"b", "i"} & {tag for tag, _ in seen.tags}
    data = data_of(page)
    assert data["values"][:2] == [["1", "2"], ["<!--"]]
    assert data["frames"][0]["text"] == "said: </script><!-- <i><!--"
    assert "<!--" not in page
    words = view(explorer).words
    assert "&lt;i&gt;" in words
    assert "<i>" not in words


def test_the_project_s_own_frozen_pages_are_possible(monkeypatch, tmp_path):
    asked = []

    def record(self, path, *also, **over):
        chosen = []
        for product in (over, *also):
            values = {k: list(v) for k, v in product.items()}
            chosen += [
                dict(zip(values, c, strict=True)) for c in itertools.product(*values.values())
            ]
        assert 2 <= len(chosen) <= 240
        possible = 0
        for combination in chosen:
            with contextlib.suppress(ValueError):
                asked.append(self.check(combination))
                possible += 1
        assert possible > len(chosen) / 2
        assert self.settings in asked[-possible:]  # the page opens on what the explorer shows

    monkeypatch.setattr(Explorer, "freeze", record)
    pages = frozen_explorers()
    for one in pages:
        one.write(tmp_path)
    assert len({one.page for one in pages}) == len(pages)
    assert sorted(one.name for one in pages) == sorted(CONTRACT)  # a new explorer gets a page
    assert len(asked) > 400


# ------------------------------------------------------------------ what they look at


@pytest.fixture(scope="module")
def cat() -> Image.Image:
    return square(open_image("cat"), 224)


@pytest.mark.parametrize("kind", ["tensor", "PIL", "uint8", "float", "path", "name", "text path"])
def test_images_come_in_many_forms(kind, cat, tmp_path):
    cat.save(tmp_path / "own.png")
    given = {
        "tensor": normalise([cat])[0],
        "PIL": cat,
        "uint8": np.asarray(cat),
        "float": np.asarray(cat) / 255,
        "path": tmp_path / "own.png",
        "text path": str(tmp_path / "own.png"),
        "name": "cat",
    }[kind]
    drawn = hl.RearrangementPlayer(image=given).render()
    assert drawn.tobytes() == hl.RearrangementPlayer(image=cat).render().tobytes()
    assert drawn.tobytes() != hl.RearrangementPlayer().render().tobytes()


def test_an_image_of_any_size_fills_the_square():
    wide = np.zeros((3, 40, 100))
    wide[0] = 1  # red
    red = Image.fromarray((wide.transpose(1, 2, 0) * 255).astype(np.uint8))
    explorer = hl.RegionExplorer(image=red, view="tokens", stage=3, pick=0)
    drawn = np.asarray(explorer.render())
    assert (drawn == (255, 0, 0)).all(axis=-1).mean() > 0.2


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (torch.zeros(2, 3, 8, 8), ValueError, r"shape \[2, 3, 8, 8\]; give one image"),
        (torch.zeros(8, 8), ValueError, r"x\[0\] of a batch"),
        (torch.zeros(4, 8, 8), ValueError, "3, height, width"),
        (torch.full((3, 8, 8), float("nan")), ValueError, "NaN"),
        (torch.full((3, 8, 8), float("inf")), ValueError, "NaN or infinite"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), ValueError, "float tensor"),
        (np.full((8, 8, 3), np.nan), ValueError, "NaN"),
        (np.zeros((3, 8, 8)), ValueError, "no image"),
        ("katze", FileNotFoundError, "There is no file or photograph"),
        (7, TypeError, "int"),
    ],
)
@pytest.mark.parametrize("name", ["RegionExplorer", "ShiftExplorer", "RearrangementPlayer"])
def test_what_is_no_image_is_said(name, given, error, message):
    with pytest.raises(error, match=message):
        getattr(hl, name)(image=given)


@pytest.mark.parametrize(
    "name", ["RegionExplorer", "ShiftExplorer", "RearrangementPlayer", "BlockExplorer"]
)
def test_foreign_networks_are_said_and_small_ones_work(name):
    explorer = getattr(hl, name)
    with pytest.raises(ValueError, match=r"Linear is not a whole Hire-MLP; .*hirelab\.create"):
        explorer(torch.nn.Linear(1, 1))
    sizes = {"depths": (1, 1), "dims": (8, 16), "region": 2, "shift": 1, "shift_cycle": 2}
    small = hl.create("hire_mlp_atto", seed=0, **sizes)
    two = explorer(small, stage=1)
    assert two.render()
    with pytest.raises(
        ValueError, match=r"stage is 2; (choose one of 0, 1|give a whole number from 0 to 1)\."
    ):
        two.set(stage=2)
    channel_only = hl.create("hire_mlp_atto", seed=0, branches=("channel",))
    assert explorer(channel_only).still()


def test_stills_of_the_same_settings_do_not_depend_on_what_was_shown_before(view):
    explorer = hl.CostExplorer()
    seen = view(explorer)
    for region in (1, 8, 3):
        seen.control("region").value = region
    assert explorer.still() == hl.CostExplorer().still() == compact(hl.CostExplorer().render())


def test_what_rests_changes_nothing():
    explorer = hl.ShiftExplorer(cross_region="none")
    assert explorer.idle(explorer.settings) == ("shift",)
    drawn = {
        explorer.render(replace(explorer.settings, shift=shift)).tobytes() for shift in (2, -3)
    }
    assert len(drawn) == 1
    assert not explorer.idle(replace(explorer.settings, cross_region="shift"))
