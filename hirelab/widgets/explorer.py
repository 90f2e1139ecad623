"""The one base class of all explorers: one object, three lives.

An explorer is a frozen dataclass of settings and a pure function from settings to an image.
Everything else follows from these two and lives here:

- *live*: controls made from the fields of the settings, beside an image that follows them;
- *still*: the same cell shows a PNG and a line of text wherever no kernel runs;
- *frozen*: `freeze` writes one self-contained HTML page whose sliders still move.

Built from core ipywidgets (sliders, Dropdown, Checkbox, Play, Image, HTML) and ``observe``, because
these behave the same in JupyterLab, under nbval and in other front ends; ``interact`` and
``Output`` do not.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import itertools
import json
import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from .._shared.errors import HirelabError, unknown
from .._shared.files import write_atomic
from ..viz import theme
from ..viz.canvas import jpeg, png

CACHED = 32  # images an explorer keeps; a bound, so that moving sliders for hours costs nothing


# ------------------------------------------------------------------ controls, as dataclass fields


def slider(default: int, low: int, high: int, label: str, play: bool = False) -> Any:
    """A whole number from ``low`` to ``high``; with ``play`` it can run by itself."""
    control = {"kind": "slider", "label": label, "low": low, "high": high, "play": play}
    return dataclasses.field(default=default, metadata=control)


def choice(default: Any, options: Iterable[Any], label: str) -> Any:
    """One of a few values."""
    control = {"kind": "choice", "label": label, "options": tuple(options)}
    return dataclasses.field(default=default, metadata=control)


def toggle(default: bool, label: str) -> Any:
    """Yes or no."""
    return dataclasses.field(default=default, metadata={"kind": "toggle", "label": label})


def check_field(field: dataclasses.Field, value: Any) -> str | None:
    """Why a value is not one that the field's control can take, or None."""
    control = field.metadata
    if control["kind"] == "toggle":
        return (
            None if isinstance(value, bool) else f"{field.name} is {value!r}; give True or False."
        )
    if control["kind"] == "choice":
        options = control["options"]
        known = type(value) in {type(option) for option in options} and value in options
        listed = ", ".join(map(str, options))
        return None if known else f"{field.name} is {value!r}; choose one of {listed}."
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and control["low"] <= value <= control["high"]:
        return None
    span = f"a whole number from {control['low']} to {control['high']}"
    return f"{field.name} is {value!r}; give {span}."


# ------------------------------------------------------------------ the base class


class Explorer:
    """Base of the explorers. A subclass says:

    - ``Settings``: a frozen dataclass whose fields are `slider`, `choice` or `toggle`;
    - ``draw(settings) -> PIL.Image``: pure, for possible settings only;
    - ``facts(settings) -> dict``: what the image shows, in numbers; part of `state`;
    - ``problem(settings) -> str | None``: why a combination is impossible, in words.
    """

    title: ClassVar[str]
    Settings: ClassVar[type]

    def __init__(self, **settings: Any) -> None:
        self._images: OrderedDict[Any, bytes] = OrderedDict()
        self._widget: Any = None
        self._settings = self.Settings()
        self._settings = self._checked(settings)

    # -- to be written by a subclass

    def draw(self, settings: Any) -> Image.Image:
        raise NotImplementedError

    def facts(self, settings: Any) -> dict[str, Any]:
        return {}

    def problem(self, settings: Any) -> str | None:
        return None

    # -- the object

    @property
    def settings(self) -> Any:
        """The settings in force, a frozen dataclass."""
        return self._settings

    def set(self, **changes: Any) -> None:
        """Change settings; a live view follows.

        Raises:
            HirelabError: for an unknown setting or an impossible value; nothing changes then.
        """
        settings = self._checked(changes)
        if self._widget is not None:
            self._widget.show(settings)
        self._settings = settings

    def state(self) -> dict[str, Any]:
        """The settings and what the image shows, as plain values."""
        return {**dataclasses.asdict(self._settings), **self.facts(self._settings)}

    def render(self, settings: Any = None) -> Image.Image:
        """The image of the settings, by default of those in force."""
        settings = settings or self._settings
        self._check(settings)
        return self.draw(settings)

    def still(self) -> bytes:
        """The image in force as a small PNG."""
        return png(self.render())

    def save(self, path: str | Path) -> None:
        """Write the image in force as PNG."""
        write_atomic(Path(path), self.still())

    def _checked(self, changes: Mapping[str, Any]) -> Any:
        """The settings with changes applied, or a ValueError in one sentence."""
        self._check_names(changes)
        # a number out of an array is as good as one that was typed
        plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in changes.items()}
        settings = dataclasses.replace(self._settings, **plain)
        self._check(settings)
        return settings

    def _check_names(self, names: Iterable[str]) -> None:
        """A ValueError with near names for a setting that is not there."""
        known = [f.name for f in dataclasses.fields(self.Settings)]
        for name in names:
            if name not in known:
                cure = f"{type(self).__name__} has {', '.join(known)}."
                raise HirelabError(unknown("setting", name, known, cure))

    def _check(self, settings: Any) -> None:
        """A ValueError in one sentence for settings that cannot be drawn."""
        for field in dataclasses.fields(self.Settings):
            wrong = check_field(field, getattr(settings, field.name))
            if wrong:
                raise HirelabError(wrong)
        reason = self.problem(settings)
        if reason:
            raise HirelabError(reason)

    def _image(self, settings: Any) -> bytes:
        """The live image's bytes, from the cache where they were drawn before."""
        if settings not in self._images:
            self._images[settings] = jpeg(self.render(settings))
            if len(self._images) > CACHED:
                self._images.popitem(last=False)
        self._images.move_to_end(settings)
        return self._images[settings]

    # -- three lives

    @property
    def widget(self) -> Any:
        """The live view, an ipywidgets box; made on first use."""
        if self._widget is None:
            from .live import Live

            self._widget = Live(self)
        return self._widget.box

    def close(self) -> None:
        """Take the live view down wherever it is shown; the explorer itself goes on working.

        ipywidgets keeps every control until it is closed, and with it the explorer and its network:
        close explorers that are made in a loop.
        """
        if self._widget is not None:
            self._widget.close()
            self._widget = None

    def __repr__(self) -> str:
        inside = ", ".join(f"{k}={v!r}" for k, v in dataclasses.asdict(self._settings).items())
        return f"{type(self).__name__}({inside})"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """A live view where a kernel runs, and always a still and a text beside it."""
        bundle: dict[str, Any] = {
            "text/plain": repr(self),
            "image/png": base64.b64encode(self.still()).decode("ascii"),
        }
        if _has_kernel():
            bundle.update(self.widget._repr_mimebundle_(include=include, exclude=exclude))
            bundle["text/plain"] = repr(self)  # a widget's own text holds its address
        return bundle

    def freeze(self, path: str | Path, **over: Iterable[Any]) -> Path:
        """Write an HTML page that needs no kernel and no network, with controls for some settings.

        Args:
            path: of the page.
            over: for each setting that shall move, its values: ``freeze(p, shift=range(-3, 4))``.
                Every combination is drawn; impossible ones say why.

        Raises:
            HirelabError: for an unknown setting, when nothing moves, for more than 240
                combinations, and when none of them is possible.
        """
        self._check_names(over)
        values = {name: list(options) for name, options in over.items()}
        count = math.prod(map(len, values.values()))
        if not 2 <= count <= 240:
            raise HirelabError(
                f"freeze would draw {1 if not values else count} of 2 to 240 images; name "
                "settings with as many combinations of values."
            )
        frames = []
        for combination in itertools.product(*values.values()):
            try:
                settings = self._checked(dict(zip(values, combination, strict=True)))
                image = base64.b64encode(png(self.draw(settings))).decode("ascii")
                frames.append({"png": image, "text": _sentence(self.facts(settings))})
            except ValueError as error:
                frames.append({"png": "", "text": str(error)})
        possible = [i for i, frame in enumerate(frames) if frame["png"]]
        if not possible:
            raise HirelabError(f"None of the {count} combinations is possible: {frames[0]['text']}")
        labels = {f.name: f.metadata["label"] for f in dataclasses.fields(self.Settings)}
        # the page opens on the settings in force, or else on the first image that there is
        sizes = [len(options) for options in values.values()]
        start = [int(i) for i in np.unravel_index(possible[0], sizes)]
        now = [getattr(self._settings, name) for name in values]
        if all(value in options for value, options in zip(now, values.values(), strict=True)):
            start = [o.index(value) for value, o in zip(now, values.values(), strict=True)]
        write_atomic(Path(path), _page(self.title, values, labels, start, frames))
        return Path(path)


def _has_kernel() -> bool:
    """Whether this code runs in a kernel that can answer a control."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None


def _sentence(facts: Mapping[str, Any]) -> str:
    return " \u00b7 ".join(f"{name.replace('_', ' ')}: {value}" for name, value in facts.items())


def _page(
    title: str,
    values: Mapping[str, list[Any]],
    labels: Mapping[str, str],
    start: list[int],
    frames: list[dict[str, str]],
) -> str:
    """The frozen page: every image inside, and a few lines of script that choose one."""
    rows = "".join(
        f"<label><span>{html.escape(labels[name])}</span>"
        f'<input type="range" min="0" max="{len(options) - 1}" value="{first}" '
        f'aria-label="{html.escape(labels[name])}"><output></output></label>'
        for (name, options), first in zip(values.items(), start, strict=True)
    )
    data = json.dumps({"values": [[str(v) for v in o] for o in values.values()], "frames": frames})
    data = data.replace("<", r"\u003c")  # no text can end the script, or begin a comment in it
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>
body {{ font: 17px/1.5 system-ui, sans-serif; color: {theme.INK}; max-width: 1080px;
       margin: 2rem auto; padding: 0 1rem; }}
label {{ display: grid; grid-template-columns: 15rem 1fr 7rem; gap: 1rem; align-items: center; }}
input {{ width: 100%; }}
img {{ width: 100%; margin-top: 1rem; }}
p {{ color: {theme.MUTED}; min-height: 3em; }}
</style></head><body>
<h1>{html.escape(title)}</h1>
<div id="controls">{rows}</div>
<img id="image" alt=""><p id="facts"></p>
<script>
const data = {data};
const inputs = [...document.querySelectorAll("input")];
const image = document.getElementById("image"), facts = document.getElementById("facts");
function show() {{
  let index = 0;
  inputs.forEach((input, i) => {{
    index = index * data.values[i].length + Number(input.value);
    input.nextElementSibling.textContent = data.values[i][input.value];
  }});
  const frame = data.frames[index];
  if (frame.png) image.src = "data:image/png;base64," + frame.png;
  image.style.opacity = frame.png ? 1 : 0.35;
  image.alt = facts.textContent = frame.text;
}}
inputs.forEach(input => input.addEventListener("input", show));
show();
</script></body></html>
"""
