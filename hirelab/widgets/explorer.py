"""The one base class of all explorers: one object, three lives.

An explorer is a frozen dataclass of settings and a few pure functions of them. Everything else
follows from these and lives here:

- *live*: controls made from the fields of the settings, beside an image that follows them
  (`live`, with core ipywidgets);
- *still*: the same cell shows an image and a line of text wherever no kernel runs;
- *frozen*: `freeze` writes one self-contained HTML page whose sliders still move (`page`).
"""

from __future__ import annotations

import base64
import dataclasses
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from .._shared.docstrings import summary
from .._shared.errors import HirelabError, unknown
from .._shared.files import write_atomic
from ..viz.canvas import compact, encode, jpeg, mime
from .controls import Choice, Control, Depends, check_field, controls_of, limited
from .page import frozen_page, webp

CACHED = 32  # frames an explorer keeps; a bound, so that moving sliders for hours costs nothing


@dataclass(frozen=True)
class Frame:
    """What an explorer shows for some settings.

    Attributes:
        image: the encoded image (JPEG in a live view, WebP on a frozen page); empty where the
            settings are impossible.
        text: what the image says, in a sentence or two, or why the settings are impossible.
    """

    image: bytes = field(repr=False)
    text: str


class Explorer:
    """Base of the explorers. A subclass says:

    - ``Settings``: a frozen dataclass whose fields are `slider`, `choice` or `toggle`; what limits
      another field stands before it;
    - ``limits() -> dict``: the highest value of a slider, or the options of a choice, by name,
      where they depend on what is looked at; a `Depends` where they follow other settings too;
    - ``idle(settings) -> names``: settings that change nothing at these settings; their controls
      are greyed;
    - ``problem(settings) -> str | None``: why a combination within the limits is impossible;
    - ``measure(settings)``: what image, facts and words are made of, computed once a change;
    - ``draw(settings, measured) -> PIL.Image``: the image, pure, for possible settings only;
    - ``facts(settings, measured) -> dict``: what the image shows, in numbers; part of `state`;
    - ``words(settings, measured) -> str``: what the reader shall see in it, in a sentence or two.

    Attributes:
        density: pixels of the image for one of the screen, at the size that it is drawn for.
        pictured: whether it shows an image of the reader's, see `look_at`.
        given: the settings with which it shows that image.
    """

    title: ClassVar[str]
    Settings: ClassVar[type]
    density: ClassVar[float] = 2
    pictured: ClassVar[bool] = False
    given: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, **settings: Any) -> None:
        self._fields = controls_of(self.Settings)
        self._limits = self.limits()
        self._widget: Any = None
        self._live_frame = lru_cache(maxsize=CACHED)(lambda s: self._frame(s, jpeg))
        self._settings = self.Settings()
        self._settings = self.fit({})
        self._settings = self.check(settings)
        self._start = self._settings

    # -- to be written by a subclass

    def limits(self) -> dict[str, Any]:
        return {}

    def idle(self, settings: Any) -> Collection[str]:
        return ()

    def problem(self, settings: Any) -> str | None:
        return None

    def measure(self, settings: Any) -> Any:
        return None

    def draw(self, settings: Any, measured: Any) -> Image.Image:
        raise NotImplementedError

    def facts(self, settings: Any, measured: Any) -> dict[str, Any]:
        return {}

    def words(self, settings: Any, measured: Any) -> str:
        return ""

    # -- the object

    @property
    def settings(self) -> Any:
        """The current settings, a frozen dataclass."""
        return self._settings

    @property
    def controls(self) -> dict[str, Control]:
        """The control of every setting by name, with the limits that the current settings leave."""
        return self.controls_at(self._settings)

    def controls_at(self, settings: Any) -> dict[str, Control]:
        """The control of every setting by name, with the limits that these settings leave."""
        values = dataclasses.asdict(settings)
        return {name: self._control(name, values) for name in self._fields}

    def fit(self, changes: Mapping[str, Any]) -> Any:
        """The possible settings that are nearest to the current ones with changes applied, as the
        controls of a live view have them; nothing changes yet."""
        return self._settle(changes, strict=())

    def check(self, changes: Mapping[str, Any]) -> Any:
        """The current settings with changes applied; nothing changes yet.

        What is not among the changes, and is not possible with them, becomes the nearest that is.

        Raises:
            HirelabError: for an unknown setting or an impossible value, in one sentence.
        """
        self._check_names(changes)
        # a number out of an array is as good as one that was typed
        plain = {k: v.item() if isinstance(v, np.generic) else v for k, v in changes.items()}
        settings = self._settle(plain, strict=plain)
        self._check_whole(settings)
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
            self._widget.show(self.update(changes))

    def reset(self) -> None:
        """Go back to the settings that the explorer was made with; a live view follows."""
        self.set(**dataclasses.asdict(self._start))

    def look_at(self, image: Any) -> None:
        """Show another image: whatever the explorer takes as ``image``; a live view follows.

        Raises:
            HirelabError: for what is no image, and where the explorer shows none.
        """
        raise HirelabError(f"{type(self).__name__} shows no image; it has nothing to look at.")

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
        self._check_settings(settings)
        self._settle(dataclasses.asdict(settings), strict=self._fields)
        self._check_whole(settings)
        return self.draw(settings, self.measure(settings))

    def still(self) -> bytes:
        """The current image as a small file: PNG, or JPEG for photographs."""
        return compact(self.render())

    def save(self, path: str | Path) -> None:
        """Write the current image, as the suffix of the path says (.png, .jpg, .webp)."""
        write_atomic(Path(path), encode(self.render(), path))

    def _check_names(self, names: Iterable[str]) -> None:
        """An error with near names for a setting that does not exist."""
        for name in names:
            if name not in self._fields:
                cure = f"{type(self).__name__} has {', '.join(self._fields)}."
                raise HirelabError(unknown("setting", name, self._fields, cure))

    def _control(self, name: str, values: Mapping[str, Any]) -> Control:
        """A field's control, with the limits that values of the fields before it leave."""
        if name not in self._limits:
            return self._fields[name]
        limit = self._limits[name]
        return limited(self._fields[name], limit(values) if isinstance(limit, Depends) else limit)

    def _settle(self, changes: Mapping[str, Any], strict: Collection[str]) -> Any:
        """The current settings with changes applied: each field within the limits that those before
        it leave, which is an error for the ``strict`` ones and a move to the nearest for others."""
        values = {**dataclasses.asdict(self._settings), **changes}
        for name in self._fields:
            control = self._control(name, values)
            values[name] = control.value_of(values[name])
            if name not in strict:
                values[name] = control.nearest(values[name])
            limit = self._limits.get(name)
            on = limit.on if isinstance(limit, Depends) else ()
            given = " and ".join(f"{other}={values[other]!r}" for other in on)
            wrong = check_field(name, control, values[name], given)
            if wrong:
                raise HirelabError(wrong)
        return self.Settings(**values)

    def _check_settings(self, settings: object) -> None:
        """An error in one sentence for what are no settings of this explorer."""
        if not isinstance(settings, self.Settings):
            raise HirelabError(
                f"The settings are {settings!r}; give {type(self).__name__}.Settings(...), or "
                "nothing for the current ones."
            )

    def _check_whole(self, settings: Any) -> None:
        """An error in one sentence for a combination that is impossible."""
        reason = self.problem(settings)
        if reason:
            raise HirelabError(reason)

    def _frame(self, settings: Any, encoded: Callable[[Image.Image], bytes]) -> Frame:
        """What possible settings show."""
        measured = self.measure(settings)
        image = encoded(self.draw(settings, measured))
        return Frame(image, self.words(settings, measured))

    # -- three lives

    @property
    def widget(self) -> Any:
        """The live view, an ipywidgets box; made on first use."""
        if self._widget is None:
            from .live import Live

            self._widget = Live(self, self.update({}))
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
        still = self.still()
        bundle: dict[str, Any] = {
            "text/plain": repr(self),
            mime(still): base64.b64encode(still).decode("ascii"),
        }
        if _has_kernel():
            bundle.update(self.widget._repr_mimebundle_(include=include, exclude=exclude))
            bundle["text/plain"] = repr(self)  # a widget's own text holds its address
        return bundle

    @classmethod
    def about(cls) -> str:
        """What the explorer shows, in a sentence: the first of its class's documentation."""
        return summary(cls.__doc__)

    def freeze(
        self, path: str | Path, *also: Mapping[str, Iterable[Any]], **over: Iterable[Any]
    ) -> Path:
        """Write an HTML page that needs no kernel and no network, with controls for some settings.

        What is impossible, or was not drawn, is not offered there: what a control offers follows
        those before it, as in a live view.

        Args:
            path: of the page.
            also: further combinations, each as ``over``, where not every control shall move at
                every position of the others: ``freeze(p, {"stage": [2], "channel": range(4)},
                stage=range(4))``.
            over: for each setting that shall move, its values: ``freeze(p, shift=range(-3, 4))``.
                Every combination is drawn.

        Raises:
            HirelabError: for an unknown setting, when nothing moves, for more than 240
                combinations, and when none of them is possible.
        """
        products = [self._values(chosen) for chosen in (over, *also)]
        count = sum(math.prod(map(len, values.values())) for values in products)
        if not 2 <= count <= 240:
            raise HirelabError(
                f"freeze would draw {count if over else 1} of 2 to 240 images; name "
                "settings with as many combinations of values."
            )
        asked = {name for values in products for name in values}
        names = [name for name in self._fields if name in asked]  # what limits others comes first
        drawn: dict[tuple[Any, ...], Frame] = {}
        wrong = ""
        for values in products:
            for combination in itertools.product(*values.values()):
                try:
                    settings = self.check(dict(zip(values, combination, strict=True)))
                    at = tuple(getattr(settings, name) for name in names)
                    if at not in drawn:
                        drawn[at] = self._frame(settings, webp)
                except ValueError as error:
                    wrong = wrong or str(error)
        if not drawn:
            raise HirelabError(f"None of the {count} combinations is possible: {wrong}")
        every = self.controls
        options = [
            _merged(every[name], [v.get(name, ()) for v in products], [at[i] for at in drawn])
            for i, name in enumerate(names)
        ]
        # the page opens on the current settings, or else on the first image that there is
        now = tuple(getattr(self._settings, name) for name in names)
        opened = now if now in drawn else next(iter(drawn))
        found = (drawn.get(at) for at in itertools.product(*options))
        page = frozen_page(
            self.title,
            [(every[name], values) for name, values in zip(names, options, strict=True)],
            [values.index(value) for values, value in zip(options, opened, strict=True)],
            [(frame.image, frame.text) if frame else None for frame in found],
            self.about(),
            [c.label for name, c in every.items() if name not in names and c.moves],
        )
        write_atomic(Path(path), page)
        return Path(path)

    def _values(self, over: Mapping[str, Iterable[Any]]) -> dict[str, list[Any]]:
        """What settings shall have on a page, as lists.

        Raises:
            HirelabError: for an unknown setting, and for one value in place of several.
        """
        self._check_names(over)
        for name, options in over.items():
            if isinstance(options, str) or not isinstance(options, Iterable):
                raise HirelabError(
                    f"{name} is {options!r}; give all values that it shall have on the page, such "
                    f"as {name}=[{options!r}, ...]."
                )
        return {name: list(options) for name, options in over.items()}


def _merged(control: Control, given: Iterable[Iterable[Any]], drawn: Iterable[Any]) -> list[Any]:
    """The values of a control on a page: those of one list in its order, and as the control has
    them where there are more."""
    lists = [list(values) for values in given if values]
    values = list(dict.fromkeys([*itertools.chain(*lists), *drawn]))
    if len(values) == max(map(len, lists)):
        return values
    if isinstance(control, Choice):
        known = set(values) <= set(control.options)
        return sorted(values, key=control.options.index) if known else values
    numbers = not any(isinstance(value, str) for value in values)
    return sorted(values) if numbers else values


def _has_kernel() -> bool:
    """Whether this code runs in a kernel that can answer a control."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return getattr(get_ipython(), "kernel", None) is not None
