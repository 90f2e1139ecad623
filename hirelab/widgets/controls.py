"""Controls: what the fields of an explorer's settings can be, and whether a value is one of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Slider:
    """A whole number from ``low`` to ``high``; with ``play`` it can run by itself."""

    label: str
    low: int
    high: int
    play: bool = False

    def wrong(self, value: Any) -> str | None:
        """What to give in place of a value that the control cannot take, or None."""
        whole = isinstance(value, int) and not isinstance(value, bool)
        if whole and self.low <= value <= self.high:
            return None
        return f"give a whole number from {self.low} to {self.high}"

    def nearest(self, value: Any) -> Any:
        """The default where the limits allow it, or else the limit."""
        return min(value, self.high)


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    label: str
    options: tuple[Any, ...]

    def wrong(self, value: Any) -> str | None:
        """What to give in place of a value that the control cannot take, or None."""
        if type(value) in {type(option) for option in self.options} and value in self.options:
            return None
        return f"choose one of {', '.join(map(str, self.options))}"

    def nearest(self, value: Any) -> Any:
        """The default where it is an option, or else the last one."""
        return value if value in self.options else self.options[-1]


@dataclass(frozen=True)
class Toggle:
    """Yes or no."""

    label: str

    def wrong(self, value: Any) -> str | None:
        """What to give in place of a value that the control cannot take, or None."""
        return None if isinstance(value, bool) else "give True or False"

    def nearest(self, value: Any) -> Any:
        """The default."""
        return value


Control = Slider | Choice | Toggle


def slider(default: int, low: int, high: int, label: str, play: bool = False) -> Any:
    """A settings field: see `Slider`."""
    return _field(default, Slider(label, low, high, play))


def choice(default: Any, options: Iterable[Any], label: str) -> Any:
    """A settings field: see `Choice`."""
    return _field(default, Choice(label, tuple(options)))


def toggle(default: bool, label: str) -> Any:
    """A settings field: see `Toggle`."""
    return _field(default, Toggle(label))


def _field(default: Any, control: Control) -> Any:
    return dataclasses.field(default=default, metadata={"control": control})


def controls_of(settings: type, limits: Mapping[str, Any]) -> dict[str, Control]:
    """The control of every field of a settings class, by name.

    ``limits`` replaces, by name, the highest value of sliders and the options of choices: those of
    the network that is looked at.
    """
    found: dict[str, Control] = {}
    for field in dataclasses.fields(settings):
        control: Control = field.metadata["control"]
        if field.name in limits:
            if isinstance(control, Slider):
                control = replace(control, high=limits[field.name])
            elif isinstance(control, Choice):
                control = replace(control, options=tuple(limits[field.name]))
        found[field.name] = control
    return found


def check_field(name: str, control: Control, value: Any) -> str | None:
    """Why a value is not one that a field's control can take, in a sentence, or None."""
    cure = control.wrong(value)
    return None if cure is None else f"{name} is {value!r}; {cure}."
