"""The live view of an explorer: controls, an image, a line of words. Only this file needs
ipywidgets."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Iterable
from typing import Any

import ipywidgets as w

from ..viz import theme
from .explorer import Explorer, _sentence


class Live:
    """Controls from the settings' fields beside the image; one ``box`` to display.

    When a combination is impossible, the words below the controls say why and the last valid
    image stays; the controls keep what the reader chose, so one more move can make it possible.
    """

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer
        self._following = False  # True while `show` moves the controls itself
        self._controls: dict[str, w.Widget] = {}
        self._links: list[w.Widget] = []  # of a Play button to its slider
        rows = []
        for field in dataclasses.fields(explorer.Settings):
            control, shown, links = _control(field, getattr(explorer.settings, field.name))
            self._links += links
            control.observe(self._changed, names="value")
            self._controls[field.name] = control
            rows.append(shown)
        self._image = w.Image(format="jpeg", layout=w.Layout(width="100%", max_width="1080px"))
        # A fixed height, so that the image does not jump when the words change.
        self._words = w.HTML(layout=w.Layout(min_height="52px", max_width="1080px"))
        grid = w.Layout(display="flex", flex_flow="row wrap", max_width="1080px")
        self.box = w.VBox([w.Box(rows, layout=grid), self._words, self._image])
        self.show(explorer.settings)

    def show(self, settings: Any) -> None:
        """Bring controls and image to these settings; nothing moves if they cannot be drawn."""
        self._draw(settings)
        self._following = True
        try:
            for name, control in self._controls.items():
                control.value = getattr(settings, name)
        finally:
            self._following = False

    def close(self) -> None:
        """Close every widget of the view, also the layouts and styles that came with them."""
        for widget in _parts([self.box, *self._links]):
            widget.close()

    def _draw(self, settings: Any) -> None:
        image = self._explorer._image(settings)
        self._say(_sentence(self._explorer.facts(settings)), f"color:{theme.MUTED}")
        self._image.value = image

    def _say(self, text: str, style: str) -> None:
        self._words.value = f'<div style="{style};line-height:1.4">{html.escape(text)}</div>'

    def _changed(self, change: Any) -> None:
        if self._following:
            return
        changes = {name: control.value for name, control in self._controls.items()}
        try:
            settings = self._explorer._checked(changes)
            self._draw(settings)
        except ValueError as error:
            # a bar and not red letters, whose contrast is too low to read
            bar = f"border-left:4px solid {theme.VERMILION};padding-left:8px"
            self._say(str(error), f"color:{theme.INK};{bar}")
            return
        self._explorer._settings = settings


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


def _control(field: dataclasses.Field, value: Any) -> tuple[w.Widget, w.Widget, list[w.Widget]]:
    """The control of a field, what is shown for it (a slider may have a Play button), and links."""
    about = field.metadata
    style = {"description_width": "110px"}
    layout = w.Layout(width="340px")
    if about["kind"] == "toggle":
        control = w.Checkbox(value=value, description=about["label"], style=style, layout=layout)
    elif about["kind"] == "choice":
        options = [(str(option), option) for option in about["options"]]
        control = w.Dropdown(
            options=options, value=value, description=about["label"], style=style, layout=layout
        )
    else:
        control = w.IntSlider(
            value=value,
            min=about["low"],
            max=about["high"],
            description=about["label"],
            style=style,
            layout=layout,
        )
        if about["play"]:
            play = w.Play(min=about["low"], max=about["high"], value=value, interval=100)
            link = w.jslink((play, "value"), (control, "value"))
            return control, w.HBox([play, control]), [link]
    return control, control, []
