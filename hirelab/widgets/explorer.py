"""The one base class of all explorers: one object, three lives.

An explorer is a frozen dataclass of settings and a few pure functions of them. Everything else
follows from these and lives here:

- *live*: controls made from the fields of the settings, beside an image that follows them
  (`live`, with core ipywidgets);
- *still*: the same cell shows a PNG and a line of text wherever no kernel runs;
- *frozen*: `freeze` writes one self-contained HTML page whose sliders still move (`page`).
"""

from __future__ import annotations

import base64
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from .._shared.errors import HirelabError, unknown
from .._shared.files import write_atomic
from ..viz.canvas import jpeg, png
from .controls import check_field, controls_of
from .page import frozen_page, webp

CACHED = 32  # frames an explorer keeps; a bound, so that moving sliders for hours costs nothing


@dataclass(frozen=True)
class Frame:
    """What an explorer shows for some settings.

    Attributes:
        image: the encoded image (JPEG in a live view, WebP on a frozen page); empty where the
            settings are impossible.
        text: the facts in a line, or why the settings are impossible.
    """

    image: bytes = field(repr=False)
    text: str


class Explorer:
    """Base of the explorers. A subclass says:

    - ``Settings``: a frozen dataclass whose fields are `slider`, `choice` or `toggle`;
    - ``limits() -> dict``: the highest value of a slider, or the options of a choice, by name,
      where they depend on what is looked at;
    - ``problem(settings) -> str | None``: why a combination is impossible, in words;
    - ``measure(settings)``: what the image and the facts are both made of, computed once a change;
    - ``draw(settings, measured) -> PIL.Image``: the image, pure, for possible settings only;
    - ``facts(settings, measured) -> dict``: what the image shows, in numbers; part of `state`.

    Attributes:
        controls: the control of every setting, with its limits, by name.
    """

    title: ClassVar[str]
    Settings: ClassVar[type]

    def __init__(self, **settings: Any) -> None:
        self.controls = controls_of(self.Settings, self.limits())
        self._widget: Any = None
        self._live_frame = lru_cache(maxsize=CACHED)(lambda s: self._frame(s, jpeg))
        defaults = dataclasses.asdict(self.Settings())
        nearest = {name: self.controls[name].nearest(value) for name, value in defaults.items()}
        self._settings = self.Settings(**nearest)
        self._settings = self.check(settings)

    # -- to be written by a subclass

    def limits(self) -> dict[str, Any]:
        return {}

    def problem(self, settings: Any) -> str | None:
        return None

    def measure(self, settings: Any) -> Any:
        return None

    def draw(self, settings: Any, measured: Any) -> Image.Image:
        raise NotImplementedError

    def facts(self, settings: Any, measured: Any) -> dict[str, Any]:
        return {}

    # -- the object

    @property
    def settings(self) -> Any:
        """The current settings, a frozen dataclass."""
        return self._settings

    def check(self, changes: Mapping[str, Any]) -> Any:
        """The current settings with changes applied; nothing changes yet.

        Raises:
            HirelabError: for an unknown setting or an impossible value, in one sentence.
        """
        self._check_names(changes)
        # a number out of an array is as good as one that was typed
        plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in changes.items()}
        settings = dataclasses.replace(self._settings, **plain)
        self._check(settings)
        return settings

    def update(self, changes: Mapping[str, Any]) -> Frame:
        """Change settings and return what they show, out of the last `CACHED` frames where it was
        drawn before.

        Raises:
            HirelabError: as `check`, and for what cannot be drawn; nothing changes then.
        """
        settings = self.check(changes)
        frame = self._live_frame(settings)
        self._settings = settings
        return frame

    def set(self, **changes: Any) -> None:
        """Change settings; a live view follows.

        Raises:
            HirelabError: for an unknown setting or an impossible value; nothing changes then.
        """
        if self._widget is None:
            self._settings = self.check(changes)
        else:
            frame = self.update(changes)
            self._widget.show(dataclasses.asdict(self._settings), frame)

    def state(self) -> dict[str, Any]:
        """The settings and what the image shows, as plain values."""
        s = self._settings
        return {**dataclasses.asdict(s), **self.facts(s, self.measure(s))}

    def render(self, settings: Any = None) -> Image.Image:
        """The image of the settings, by default of the current ones.

        Raises:
            HirelabError: for settings that are impossible.
        """
        settings = settings or self._settings
        self._check(settings)
        return self.draw(settings, self.measure(settings))

    def still(self) -> bytes:
        """The current image as a small PNG."""
        return png(self.render())

    def save(self, path: str | Path) -> None:
        """Write the current image as PNG."""
        write_atomic(Path(path), self.still())

    def _check_names(self, names: Iterable[str]) -> None:
        """An error with near names for a setting that does not exist."""
        for name in names:
            if name not in self.controls:
                cure = f"{type(self).__name__} has {', '.join(self.controls)}."
                raise HirelabError(unknown("setting", name, self.controls, cure))

    def _check(self, settings: Any) -> None:
        """An error in one sentence for settings that cannot be drawn."""
        for name, control in self.controls.items():
            wrong = check_field(name, control, getattr(settings, name))
            if wrong:
                raise HirelabError(wrong)
        reason = self.problem(settings)
        if reason:
            raise HirelabError(reason)

    def _frame(self, settings: Any, encode: Callable[[Image.Image], bytes]) -> Frame:
        """What possible settings show."""
        measured = self.measure(settings)
        image = encode(self.draw(settings, measured))
        return Frame(image, _sentence(self.facts(settings, measured)))

    # -- three lives

    @property
    def widget(self) -> Any:
        """The live view, an ipywidgets box; made on first use."""
        if self._widget is None:
            from .live import Live

            frame = self.update({})
            values = dataclasses.asdict(self._settings)
            self._widget = Live(self.controls, values, frame, self.update)
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
                settings = self.check(dict(zip(values, combination, strict=True)))
                frames.append(self._frame(settings, webp))
            except ValueError as error:
                frames.append(Frame(b"", str(error)))
        possible = [i for i, frame in enumerate(frames) if frame.image]
        if not possible:
            raise HirelabError(f"None of the {count} combinations is possible: {frames[0].text}")
        # the page opens on the current settings, or else on the first image that there is
        sizes = [len(options) for options in values.values()]
        start = [int(i) for i in np.unravel_index(possible[0], sizes)]
        now = [getattr(self._settings, name) for name in values]
        if all(value in options for value, options in zip(now, values.values(), strict=True)):
            start = [o.index(value) for value, o in zip(now, values.values(), strict=True)]
        labelled = [(self.controls[name], options) for name, options in values.items()]
        shown = [(frame.image, frame.text) for frame in frames]
        write_atomic(Path(path), frozen_page(self.title, labelled, start, shown))
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
