"""Controls: what the fields of an explorer's settings can be, and whether a value is one of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar


@dataclass(frozen=True)
class Slider:
    """A whole number from ``low`` to ``high``; with ``play`` it can run by itself."""

    label: str
    low: int
    high: int
    play: bool = False

    @property
    def moves(self) -> bool:
        """Whether there is more than one value."""
        return self.low < self.high

    def wrong(self, value: Any) -> str | None:
        """What to give in place of a value that the control cannot take, or None."""
        if _is_whole(value) and self.low <= value <= self.high:
            return None
        if self.low == self.high:
            return f"give {self.low}, there is no other"
        return f"give a whole number from {self.low} to {self.high}"

    def nearest(self, value: Any) -> Any:
        """The value where the limits allow it, or else the limit that it is beyond."""
        return min(max(value, self.low), self.high)

    def value_of(self, given: Any) -> Any:
        """What a reader's value means."""
        return given

    def name_of(self, value: Any) -> str:
        """What a value is called."""
        return str(value)


@dataclass(frozen=True)
class Choice:
    """One of a few values; ``names`` are what a reader sees of them, by default themselves."""

    label: str
    options: tuple[Any, ...]
    names: tuple[str, ...] = ()

    @property
    def moves(self) -> bool:
        """Whether there is more than one value."""
        return len(self.options) > 1

    def wrong(self, value: Any) -> str | None:
        """What to give in place of a value that the control cannot take, or None."""
        if type(value) in {type(option) for option in self.options} and value in self.options:
            return None
        first, last = self.options[0], self.options[-1]
        if len(self.options) > 12 and all(map(_is_whole, self.options)):
            named = " or a name of one" if self.names else ""
            return f"give a whole number from {first} to {last}{named}"
        return f"choose one of {', '.join(map(self.name_of, self.options))}"

    def nearest(self, value: Any) -> Any:
        """The value where it is an option; or else the nearest number, or the first option."""
        if value in self.options:
            return value
        if _is_whole(value) and all(map(_is_whole, self.options)):
            return min(self.options, key=lambda option: abs(option - value))
        return self.options[0]

    def value_of(self, given: Any) -> Any:
        """What a reader's value means: an option, or the name of one."""
        if isinstance(given, str) and given not in self.options and given in self.names:
            return self.options[self.names.index(given)]
        return given

    def name_of(self, value: Any) -> str:
        """What an option is called."""
        known = self.names and value in self.options
        return self.names[self.options.index(value)] if known else str(value)


@dataclass(frozen=True)
class Toggle:
    """Yes or no."""

    label: str
    moves: ClassVar[bool] = True

    def wrong(self, value: Any) -> str | None:
        """What to give in place of a value that the control cannot take, or None."""
        return None if isinstance(value, bool) else "give True or False"

    def nearest(self, value: Any) -> Any:
        """The value itself."""
        return value

    def value_of(self, given: Any) -> Any:
        """What a reader's value means."""
        return given

    def name_of(self, value: Any) -> str:
        """What a value is called."""
        return "yes" if value else "no"


Control = Slider | Choice | Toggle


@dataclass(frozen=True)
class Depends:
    """A limit that follows other settings.

    Attributes:
        on: the names of these settings; they stand before the one that is limited.
        limit: their values to the highest value of a slider, or the options of a choice.
    """

    on: tuple[str, ...]
    limit: Callable[..., Any]

    def __call__(self, values: Mapping[str, Any]) -> Any:
        return self.limit(*(values[name] for name in self.on))


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


def controls_of(settings: type) -> dict[str, Control]:
    """The control of every field of a settings class, by name, as the class states it."""
    return {field.name: field.metadata["control"] for field in dataclasses.fields(settings)}


def limited(control: Control, limit: Any) -> Control:
    """A control whose highest value or options are those of the network that is looked at.

    ``limit`` is a slider's highest value, or the options of a choice: a mapping has their names.
    """
    if isinstance(control, Slider):
        return replace(control, high=limit)
    if isinstance(control, Choice):
        names = tuple(limit.values()) if isinstance(limit, Mapping) else ()
        return replace(control, options=tuple(limit), names=names)
    return control


def check_field(name: str, control: Control, value: Any, given: str = "") -> str | None:
    """Why a value is not one that a field's control can take, in a sentence, or None.

    ``given``: the settings that the control's limits follow, in words.
    """
    cure = control.wrong(value)
    if cure is None:
        return None
    return f"{name} is {value!r}; {f'with {given}, ' if given else ''}{cure}."


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
