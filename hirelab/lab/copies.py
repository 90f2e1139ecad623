"""The reader's own copies of the notebooks: run, changed and saved as one likes.

The project's notebooks are kept with their outputs and compared by tests, so nothing that a lab
saves may reach them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from .._shared.errors import HirelabError
from .._shared.files import ROOT, in_checkout, write_atomic
from .._shared.reading import parse_json
from .notebooks import find

NOTES = ".hirelab.json"  # hidden, so JupyterLab does not list it


@dataclass(frozen=True)
class Brought:
    """What `bring_notebooks` did, by file names.

    Attributes:
        folder: of the copies.
        new: notebooks that were missing.
        renewed: copies that the reader had not changed, replaced by a new version.
        beside: for copies that the reader had changed, where their new version is.
    """

    folder: Path
    new: list[str] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)
    beside: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = {"new": len(self.new), "in a newer version": len(self.renewed)}
        did = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
        beside = (
            f"\n{own} stays as you changed it; its newer version is {new}"
            for own, new in self.beside.items()
        )
        return f"your notebooks: {self.folder}{f' ({did})' if did else ''}{''.join(beside)}"


@dataclass(frozen=True)
class _Version:
    """A version of a notebook: hashes of its whole file, and of what its cells say."""

    file: str
    cells: str | None


def copies_folder() -> Path:
    """Return where the reader's copies are kept.

    That is ``my_notebooks`` at the top of the checkout; where hirelab was installed without one,
    ``hirelab_notebooks`` in the current folder.
    """
    return ROOT / "my_notebooks" if in_checkout() else Path("hirelab_notebooks").resolve()


def bring_notebooks(source: Path, folder: Path) -> Brought:
    """Copy the notebooks of ``source`` into ``folder`` without changing anything of the reader's.

    A notebook that is missing is copied. A copy whose cells the reader did not change is replaced
    when there is a new version. Beside a changed one, a version with other cells is put once, under
    a name of its own. All other files stay as they are. An interruption leaves whole files, and
    the next call does the rest.

    Args:
        source: the project's notebooks; if it is also the ``folder``, nothing is to be done.
        folder: made if it is missing.

    Raises:
        HirelabError: there are no notebooks, or the folder cannot be written.
    """
    shipped, brought = find(source), Brought(folder)
    if folder.resolve() == source.resolve():
        return brought
    try:
        noted = _read_notes(folder / NOTES)
        notes = dict(noted)
        for path in shipped:
            data, own = path.read_bytes(), folder / path.name
            version = _version(data)
            target = _target(own, version, notes)
            if target is None:
                continue
            if target != own:
                brought.beside[own.name] = target.name
            elif own.exists():
                brought.renewed.append(own.name)
            else:
                brought.new.append(own.name)
            write_atomic(target, data)
            notes[own.name] = notes[target.name] = version
        if notes != noted:
            _write_notes(folder / NOTES, notes)
    except OSError as error:
        raise HirelabError(
            f"your copies of the notebooks cannot be written to {folder} ({error}): name another "
            "folder with --folder"
        ) from error
    return brought


def _target(own: Path, version: _Version, notes: dict[str, _Version]) -> Path | None:
    """Where a ``version`` is to be written, given the copy that is there; None for nowhere."""
    known = notes.get(own.name)
    if not own.exists():
        return own
    if version == known:
        return None
    if _is_unchanged(own, notes, version):
        return own
    if known and version.cells == known.cells:
        return None  # only outputs are new, and those of a changed copy are its own
    names = (f"{own.stem}_new{number if number > 1 else ''}{own.suffix}" for number in count(1))
    offers = map(own.with_name, names)
    return next(path for path in offers if not path.exists() or _is_unchanged(path, notes, version))


def _version(data: bytes) -> _Version:
    return _Version(hashlib.sha256(data).hexdigest(), _hash_of_cells(data))


def _hash_of_cells(data: bytes) -> str | None:
    """A hash of what the cells of a notebook say; None if it is no notebook.

    Without outputs, metadata and empty cells: JupyterLab changes these while one only reads.
    """
    try:
        cells = [(c["cell_type"], "".join(c["source"])) for c in parse_json(data)["cells"]]
    except (ValueError, LookupError, TypeError):
        return None
    said = [(kind, source) for kind, source in cells if source.strip()]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _is_unchanged(path: Path, notes: dict[str, _Version], version: _Version) -> bool:
    """Whether the cells of a copy are those of the version noted for it, or of ``version``."""
    cells = _hash_of_cells(path.read_bytes())
    return cells in {version.cells, notes.get(path.name, version).cells} - {None}


def _read_notes(path: Path) -> dict[str, _Version]:
    """Which version was last brought under which name; nothing if the notes cannot be read.

    Without them a copy of an older version counts as changed: it is kept, and a new one put beside.
    """
    try:
        return {
            name: _Version(**version) for name, version in parse_json(path.read_bytes()).items()
        }
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}


def _write_notes(path: Path, notes: dict[str, _Version]) -> None:
    write_atomic(path, json.dumps({name: vars(note) for name, note in notes.items()}, indent=1))
