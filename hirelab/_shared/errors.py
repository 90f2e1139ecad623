"""The one error of hirelab, and what its sentences are made of: names, values, other errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from reprlib import Repr


class HirelabError(ValueError):
    """A wrong argument, file or setting: something that the caller can put right.

    The message is one sentence that names what was given, what was expected and the cure. A
    ``ValueError``, so that code which does not know hirelab can catch it. The command line prints
    it without a traceback.
    """


MOST_SAID = 600
"""Characters of a sentence about a file's content."""

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def brief(value: object, most: int = 120) -> str:
    """A value out of a file, which may hold anything, fit for a sentence: its repr in one line, of
    what is large or nested the beginning."""
    text = _SHORT.repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def first_line(error: BaseException) -> str:
    """What another library's error says, in one printable line of some words."""
    line = str(error).partition("\n")[0]
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line[:200])
    return text or type(error).__name__


@contextmanager
def naming(path: Path | str, what: str = "") -> Iterator[None]:
    """Errors about the content of a file, raised in the block, with the file's name in front.

    Args:
        what: what the file was to be, such as "a detector or segmenter"; then every other error
            of the block becomes one sentence too: what a file says reaches constructors that
            check nothing. Without it they pass.

    Raises:
        HirelabError: naming the file.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except HirelabError as error:
        named = Path(path).name in str(error)
        if named and len(str(error)) <= MOST_SAID:
            raise
        text = str(error) if named else f"{path}: {error}"
        text = text if len(text) <= MOST_SAID else f"{text[: MOST_SAID - 3]}..."
        raise HirelabError(text) from error
    except Exception as error:
        if not what:
            raise
        raise HirelabError(
            f"{path} does not hold {what} that can be read ({first_line(error)}): get a fresh copy."
        ) from error


def unknown(what: str, name: object, known: Iterable[str], cure: str) -> str:
    """A sentence for an unknown name: what was given, the nearest names, where the rest stand."""
    near = get_close_matches(str(name), sorted(known), n=3, cutoff=0.5)
    guess = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"There is no {what} {name!r}.{guess} {cure}"
