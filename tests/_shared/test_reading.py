"""JSON as files have it, and values that are not of the kind that a dataclass says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pytest

from hirelab._shared.errors import HirelabError, brief, first_line, naming
from hirelab._shared.reading import misfit, parse_json, read_object


@pytest.mark.parametrize(
    "text",
    [b"[" * 100_000, "{" * 100_000, b'"\\ud800"', '{"\\uD800": 1}', b"\xff", "", "{", "9" * 5000],
)
def test_what_is_wrong_with_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_json_with_whole_characters_is_read():
    assert parse_json(b'{"a": ["\\ud83d\\ude00", "\\\\ud", 1.5]}') == {"a": ["😀", "\\ud", 1.5]}


@dataclasses.dataclass
class Kept:
    whole: int = 1
    share: float = 0.5
    word: str = "a"
    yes: bool = True
    maybe: str | None = None
    way: Literal["a", "b"] = "a"
    pair: tuple[int, float] = (1, 2)
    many: tuple[str, ...] = ()
    rows: list[dict[str, float]] = dataclasses.field(default_factory=list)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    array: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(2))


def test_what_fits_is_let_through():
    assert misfit(Kept()) == ""
    assert misfit(Kept(share=3, maybe="x", way="b", many=("a",), rows=[{"a": 1}])) == ""
    assert misfit(Kept(settings={"a": [None, object()]})) == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("whole", 1.0), ("whole", True), ("share", "1"), ("share", None), ("word", 3), ("yes", 1),
        ("maybe", 3), ("way", "c"), ("pair", [1, 2]), ("pair", (1, 2, 3)), ("many", "abc"),
        ("many", ("a", 3)), ("rows", [{"a": "1"}]), ("rows", {}), ("rows", [{3: 1.0}]),
        ("settings", []), ("settings", {3: 1}), ("array", [1, 2]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(name, value):
    said = misfit(Kept(**{name: value}))
    assert said.startswith(f"its {name} is {brief(value)} and no ")


def test_values_in_sentences_are_short_and_in_one_line():
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    for value in ("x\n" * 5000, deep, [0] * 10_000, 10**400, {str(i): i for i in range(999)}):
        assert len(brief(value)) <= 120
        assert brief(value).isprintable()
    assert brief("cat") == "'cat'"
    assert first_line(ValueError("a\x00b\nc")) == "a\\x00b"
    assert first_line(KeyError()) == "KeyError"


def test_an_object_is_read_with_what_it_has_to_have(tmp_path):
    path = tmp_path / "one.json"
    path.write_text('{"a": 1}')
    assert read_object(path, "a") == {"a": 1}
    with pytest.raises(HirelabError, match=r"one\.json is damaged \(it lacks b\)"):
        read_object(path, "a", "b")
    path.write_text("[1]")
    with pytest.raises(HirelabError, match=r"one\.json is damaged \(it holds \[1\]\)"):
        read_object(path)
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "other.json")


def test_an_error_about_a_file_gets_its_name_once(tmp_path):
    path = tmp_path / "one.pt"
    with pytest.raises(HirelabError, match=r"one\.pt: too small$"), naming(path):
        raise HirelabError("too small")
    with pytest.raises(HirelabError, match=r"^one\.pt is too small$"), naming(path):
        raise HirelabError("one.pt is too small")
    with pytest.raises(KeyError), naming(path):
        raise KeyError("a")
    wanted = r"one\.pt does not hold a network that can be read \('a'\)"
    with pytest.raises(HirelabError, match=wanted), naming(path, "a network"):
        raise KeyError("a")
    with pytest.raises(HirelabError) as caught, naming(path):
        raise HirelabError("x" * 5000)
    assert len(str(caught.value)) <= 600
