"""The live view of an explorer: controls, an image, a line of words.

Only this file needs ipywidgets. It is built from core widgets (sliders, Dropdown, Checkbox, Play,
Image, HTML) and ``observe``, because these behave the same in JupyterLab, under nbval and in other
front ends; ``interact`` and ``Output`` do not.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import ipywidgets as w

from ..viz import theme
from .controls import Choice, Control, Toggle


class Shown(Protocol):
    """What a view shows: an image (JPEG) and the text below the controls."""

    @property
    def image(self) -> bytes: ...

    @property
    def text(self) -> str: ...


class Live:
    """Controls beside the image that follows them; one ``box`` to display.

    When a combination is impossible, the words below the controls say why and the last valid
    image stays; the controls keep what the reader chose, so one more move can make it possible.

    Args:
        controls: of the settings, by name.
        values: of the settings at first; ``frame`` is what they show.
        update: takes the controls' values and returns what they show, or raises a ValueError that
            says in one sentence why they are impossible.
    """

    def __init__(
        self,
        controls: Mapping[str, Control],
        values: Mapping[str, Any],
        frame: Shown,
        update: Callable[[Mapping[str, Any]], Shown],
    ) -> None:
        self._update = update
        self._following = False  # True while `show` moves the controls itself
        self._controls: dict[str, w.Widget] = {}
        self._links: list[w.Widget] = []  # of a Play button to its slider
        rows = []
        for name, about in controls.items():
            control, shown, links = _control(about, values[name])
            self._links += links
            control.observe(self._changed, names="value")
            self._controls[name] = control
            rows.append(shown)
        self._image = w.Image(format="jpeg", layout=w.Layout(width="100%", max_width="1080px"))
        # A fixed height, so that the image does not jump when the words change.
        self._words = w.HTML(layout=w.Layout(min_height="52px", max_width="1080px"))
        grid = w.Layout(display="flex", flex_flow="row wrap", max_width="1080px")
        self.box = w.VBox([w.Box(rows, layout=grid), self._words, self._image])
        self._show(frame)

    def show(self, values: Mapping[str, Any], frame: Shown) -> None:
        """Bring the controls to these values, and the image to what they show."""
        self._show(frame)
        self._following = True
        try:
            for name, control in self._controls.items():
                control.value = values[name]
        finally:
            self._following = False

    def close(self) -> None:
        """Close every widget of the view, also the layouts and styles that came with them."""
        for widget in _parts([self.box, *self._links]):
            widget.close()

    def _show(self, frame: Shown) -> None:
        self._say(frame.text, f"color:{theme.MUTED}")
        self._image.value = frame.image

    def _say(self, text: str, style: str) -> None:
        self._words.value = f'<div style="{style};line-height:1.4">{html.escape(text)}</div>'

    def _changed(self, change: Any) -> None:
        if self._following:
            return
        try:
            frame = self._update({name: control.value for name, control in self._controls.items()})
        except ValueError as error:
            # a bar and not red letters, whose contrast is too low to read
            bar = f"border-left:4px solid {theme.VERMILION};padding-left:8px"
            self._say(str(error), f"color:{theme.INK};{bar}")
        else:
            self._show(frame)


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


def _control(about: Control, value: Any) -> tuple[w.Widget, w.Widget, list[w.Widget]]:
    """A control's widget, what is shown for it (a slider may have a Play button), and links."""
    style = {"description_width": "110px"}
    common = {
        "value": value,
        "description": about.label,
        "style": style,
        "layout": w.Layout(width="340px"),
    }
    if isinstance(about, Toggle):
        control = w.Checkbox(**common)
    elif isinstance(about, Choice):
        control = w.Dropdown(options=[(str(option), option) for option in about.options], **common)
    else:
        control = w.IntSlider(min=about.low, max=about.high, **common)
        if about.play:
            play = w.Play(min=about.low, max=about.high, value=value, interval=100)
            link = w.jslink((play, "value"), (control, "value"))
            return control, w.HBox([play, control]), [link]
    return control, control, []
