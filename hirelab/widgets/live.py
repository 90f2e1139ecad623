"""The live view of an explorer: controls, a line of words, an image.

Only this file needs ipywidgets. It is built from core widgets (sliders, Dropdown, Checkbox, Play,
FileUpload, Image, HTML) and ``observe``, because these behave the same in JupyterLab, under nbval
and in other front ends; ``interact`` and ``Output`` do not.
"""

from __future__ import annotations

import asyncio
import html
import io
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar, Protocol

import ipywidgets as w
from PIL import Image
from traitlets import Unicode

from .controls import Choice, Control, Slider, Toggle

# Seconds that a change waits for the next, so that of a drag only the last place is computed; and
# the share of the last drawing's time, since what is slow shall not be done for a place on the way.
PAUSE, SHARE, LONGEST = 0.02, 0.2, 0.4
NARROW = 760  # pixels; a wider image is not shown narrower, its letters could not be read

# Colours are JupyterLab's own, so that they follow its theme; the values behind them are for front
# ends that have none. What takes longer than 0.3 s is told from the picture: the sign of work is
# there from the start, and CSS shows it late.
STYLE = """<style>
.hirelab-explorer { color: var(--jp-ui-font-color1, #1f2328); container-type: inline-size; }
.hirelab-explorer .widget-label { color: inherit; }
.hirelab-explorer .hirelab-words { line-height: 1.4; color: var(--jp-ui-font-color1, #1f2328); }
.hirelab-explorer .hirelab-problem { border-left: 4px solid #d55e00; padding-left: 8px; }
.hirelab-explorer .hirelab-picture { transition: opacity 0.15s; }
.hirelab-wide { grid-column: 1 / -1; }
.hirelab-explorer .widget-checkbox .widget-label-basic { height: auto; line-height: 1.1;
  align-self: center; white-space: normal; }
.hirelab-explorer .hirelab-buttons { flex-wrap: wrap; overflow: visible; }
.hirelab-explorer .hirelab-buttons > * { flex: 0 0 auto; }
@container (max-width: 640px) {  /* two narrow columns: room for the sliders */
  .hirelab-explorer .widget-label { width: 76px !important; line-height: 1.1; height: auto;
    align-self: center; white-space: normal; }
  .hirelab-explorer .widget-readout { min-width: 2em; }
}
.hirelab-stale .hirelab-picture { opacity: 0.35; }
.hirelab-explorer .hirelab-sign { visibility: hidden; color: var(--jp-ui-font-color1, #1f2328);
  font-weight: 600; }
.hirelab-busy .hirelab-sign { visibility: visible; animation: hirelab-late 0.3s steps(1, end); }
.hirelab-busy .hirelab-picture { opacity: 0.6; transition: opacity 0.15s 0.3s; }
@keyframes hirelab-late { from { visibility: hidden; } to { visibility: hidden; } }
</style>"""


class Shown(Protocol):
    """What a view shows: an image (JPEG) and the words above it."""

    @property
    def image(self) -> bytes: ...

    @property
    def text(self) -> str: ...


class Seen(Protocol):
    """What a view asks of an explorer."""

    title: ClassVar[str]
    density: ClassVar[float]
    pictured: ClassVar[bool]

    @property
    def settings(self) -> Any: ...

    def controls_at(self, settings: Any) -> dict[str, Control]: ...

    def idle(self, settings: Any) -> Collection[str]: ...

    def fit(self, changes: Mapping[str, Any]) -> Any: ...

    def update(self, changes: Mapping[str, Any]) -> Shown: ...

    def reset(self) -> None: ...

    def look_at(self, image: Any) -> None: ...


class _Picture(w.Image):
    """An image with a title, which is what a screen reader reads of it.

    The front end looks at ``description`` before it sets a title, and images have none.
    """

    description = Unicode("").tag(sync=True)


class Live:
    """Controls beside the image that follows them; one ``box`` to display.

    A control that was moved takes those that depend on it along, to the nearest that is possible.
    Where a combination is impossible still, the words say why, and which settings the last image,
    dimmed, belongs to; the controls keep what the reader chose.

    Args:
        explorer: what is looked at; ``frame`` is what its settings show.
    """

    def __init__(self, explorer: Seen, frame: Shown) -> None:
        self._explorer = explorer
        self._following = False  # True while the view moves its controls itself
        self._drawing = threading.RLock()
        self._due: asyncio.TimerHandle | None = None
        self._pause = PAUSE
        self._controls: dict[str, w.Widget] = {}
        self._links: list[w.Widget] = []  # of a Play button to its slider
        self._plays: dict[str, w.Play] = {}
        rows = [self._row(*named) for named in explorer.controls_at(explorer.settings).items()]
        self._words = w.HTML(layout=w.Layout(flex="1 1 0", min_height="44px"))
        sign = w.HTML('<span class="hirelab-sign" role="status">working \u2026</span>')
        said = w.HBox([self._words, sign], layout=w.Layout(max_width="1080px"))
        self._image = _Picture(format="jpeg")
        self._image.add_class("hirelab-picture")
        grid = w.Layout(
            grid_template_columns="repeat(auto-fill, minmax(max(205px, 30%), 1fr))",
            grid_gap="0 16px",
            max_width="1080px",
        )
        scroll = w.Layout(overflow="auto", max_width="100%")
        self.box = w.VBox(
            [
                w.HTML(STYLE, layout=w.Layout(display="none")),
                w.GridBox([*rows, self._buttons()], layout=grid),
                said,
                w.Box([self._image], layout=scroll),
            ]
        )
        self.box.add_class("hirelab-explorer")
        self.show(frame)

    def show(self, frame: Shown) -> None:
        """Bring the controls to the explorer's settings, and the image to what they show."""
        self._align(self._explorer.settings)
        self._say(frame.text)
        if self._image.value != frame.image:
            self._measure(frame.image)
            self._image.value = frame.image
        self._image.tooltip = f"{self._explorer.title}. {frame.text}"
        self.box.remove_class("hirelab-stale")

    def close(self) -> None:
        """Close every widget of the view, also the layouts and styles that came with them."""
        self._cancel()
        for widget in _parts([self.box, *self._links]):
            widget.close()

    # -- parts

    def _row(self, name: str, about: Control) -> w.Widget:
        """A setting's control, as it is shown: a slider that runs has its buttons beside it."""
        value = getattr(self._explorer.settings, name)
        common = {
            "value": value,
            "description": about.label,
            "tooltip": about.label,
            "style": {"description_width": "104px"},
            "layout": w.Layout(width="auto", min_width="0", margin="2px 0"),
        }
        control: w.Widget
        if isinstance(about, Toggle):
            control = w.Checkbox(**common)
        elif isinstance(about, Choice):
            control = w.Dropdown(options=_options(about), **common)
        else:
            control = w.IntSlider(min=about.low, max=about.high, **common)
        control.observe(self._changed, names="value")
        self._controls[name] = control
        if not (isinstance(about, Slider) and about.play):
            return control
        words = f"Play, stop, repeat: {about.label}"
        play = w.Play(min=about.low, max=about.high, value=value, interval=100, tooltip=words)
        self._links.append(w.jslink((play, "value"), (control, "value")))
        self._plays[name] = play
        control.layout.flex = "1 1 auto"
        play.layout.flex = "0 0 auto"
        # it takes a line of its own, so that the slider is long enough for its many places
        row = w.HBox([control, play])
        row.add_class("hirelab-wide")
        return row

    def _buttons(self) -> w.Widget:
        """What is no setting: back to the start, and an image of the reader's own."""
        layout = {"width": "auto", "margin": "2px 8px 2px 0"}
        reset = w.Button(
            description="Reset",
            icon="undo",
            tooltip="back to the settings that this explorer was made with",
            layout=w.Layout(**layout),
        )
        reset.on_click(lambda _: self._do(self._explorer.reset))
        shown: list[w.Widget] = [reset]
        if self._explorer.pictured:
            self._upload = w.FileUpload(
                accept="image/*",
                description="Your image",
                tooltip="look at an image file of your own",
                layout=w.Layout(**layout),
            )
            self._upload.observe(self._uploaded, names="value")
            shown.append(self._upload)
        buttons = w.HBox(shown)
        buttons.add_class("hirelab-buttons")
        return buttons

    # -- what happens

    def _changed(self, change: Any) -> None:
        if self._following:
            return
        self._align(self._explorer.fit(self._wish()))
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # no front end is waiting
            self._draw()
            return
        if self._due is None:
            self._due = loop.call_later(self._pause, self._draw)
            self.box.add_class("hirelab-busy")

    def _uploaded(self, change: Any) -> None:
        if not change["new"]:
            return
        content = bytes(change["new"][0]["content"])
        self._upload.value = ()  # the same file can be given again
        self.box.add_class("hirelab-busy")
        self._do(lambda: self._explorer.look_at(content))

    def _draw(self) -> None:
        wish = self._wish()

        def move() -> None:
            frame = self._explorer.update(wish)
            if self._wish() == wish:
                self.show(frame)
            # else the reader has moved on meanwhile, and that change brings a drawing of its own

        started = time.perf_counter()
        self._do(move, wish)
        self._pause = min(max(PAUSE, SHARE * (time.perf_counter() - started)), LONGEST)

    def _do(self, action: Any, wish: Mapping[str, Any] | None = None) -> None:
        """Do what the reader asked for; what is impossible is said, and the image dimmed.

        One at a time: the kernel hears its first messages in the thread that runs cells, and later
        ones in a thread for widgets, so that two changes can come at once.
        """
        self._cancel()
        with self._drawing:
            try:
                action()
            except (ValueError, OSError) as error:
                self._say(f"{error}{self._still_shown(wish or {})}", "hirelab-problem")
                if wish is not None:
                    self.box.add_class("hirelab-stale")
            finally:
                if self._due is None:
                    self.box.remove_class("hirelab-busy")

    def _cancel(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _wish(self) -> dict[str, Any]:
        return {name: control.value for name, control in self._controls.items()}

    def _still_shown(self, wish: Mapping[str, Any]) -> str:
        """Which of the settings that the image shows are others than the reader's."""
        settings = self._explorer.settings
        about = self._explorer.controls_at(settings)
        now = {name: getattr(settings, name) for name in wish}
        other = [
            f"{about[name].label} {about[name].name_of(value)}"
            for name, value in now.items()
            if value != wish[name]
        ]
        return f" The picture still shows {', '.join(other)}." if other else ""

    def _align(self, settings: Any) -> None:
        """Bring controls and their limits to settings, without drawing."""
        self._following = True
        idle = self._explorer.idle(settings)
        try:
            for name, about in self._explorer.controls_at(settings).items():
                control, value = self._controls[name], getattr(settings, name)
                if isinstance(about, Slider):
                    for slider in filter(None, (control, self._plays.get(name))):
                        slider.max = about.high
                elif isinstance(about, Choice) and control.options != _options(about):
                    control.options = _options(about)
                control.value = value
                control.disabled = name in idle
        finally:
            self._following = False

    def _say(self, text: str, kind: str = "") -> None:
        self._words.value = f'<div class="hirelab-words {kind}">{html.escape(text)}</div>'

    def _measure(self, image: bytes) -> None:
        """Show an image at the width that it was drawn for, and not so narrow as to be unread."""
        width = round(Image.open(io.BytesIO(image)).width / self._explorer.density)
        self._image.layout.width = "100%"
        self._image.layout.max_width = f"{width}px"
        self._image.layout.min_width = f"{min(width, NARROW)}px"


def _options(about: Choice) -> tuple[tuple[str, Any], ...]:
    return tuple((about.name_of(option), option) for option in about.options)


def _parts(widgets: Iterable[Any]) -> list[w.Widget]:
    """The widgets and all that hang on them: children, layouts, styles, ends of links."""
    found: dict[int, w.Widget] = {}
    waiting = list(widgets)
    while waiting:
        thing = waiting.pop()
        if isinstance(thing, tuple):
            waiting += thing
        elif isinstance(thing, w.Widget) and id(thing) not in found:
            found[id(thing)] = thing
            waiting += thing.trait_values(sync=True).values()
    return list(found.values())
