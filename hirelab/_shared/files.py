"""Where the project's files lie, and how they are written."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import HirelabError, unknown

ROOT = Path(__file__).resolve().parents[2]
"""The checkout that this package lies in (site-packages, where it was installed without one)."""

PACKAGED = Path(__file__).resolve().parents[1] / "_data"
"""Where a wheel puts ``data/`` (see pyproject.toml); a checkout has no such folder."""


def in_checkout() -> bool:
    """Return whether this package lies in its checkout, not in an installed wheel."""
    return not PACKAGED.is_dir()


def project_folder(name: str) -> Path:
    """Return the folder ``name`` of the checkout ("notebooks", "benchmarks").

    Raises:
        HirelabError: there is none, because hirelab was installed without its checkout.
    """
    folder = ROOT / name
    if not in_checkout() or not folder.is_dir():  # site-packages may hold a folder of that name
        raise HirelabError(
            f"there is no {name}/ beside the installed package: clone the repository and run "
            "`make lab` in it, or `pip install -e .` in the clone"
        )
    return folder


def data_folder(name: str) -> Path:
    """Return the folder ``name`` of the project's ``data/`` ("paper", "weights"); "" is all of it.

    In a checkout that is the folder at its top, in an installed wheel the copy inside the package.
    Whether it exists is for the reader of its files to find out.
    """
    return (ROOT / "data" if in_checkout() else PACKAGED) / name


def notebooks_folder() -> Path:
    """Return the folder of the project's notebooks, to read: the checkout's, or a wheel's copy.

    Raises:
        HirelabError: there is none.
    """
    packaged = PACKAGED.with_name("_notebooks")
    return packaged if packaged.is_dir() else project_folder("notebooks")


def pick(files: Iterable[Path], names: Sequence[str], what: str) -> list[Path]:
    """Return the ``files`` called ``names`` (with or without suffix), or all when none is named.

    Raises:
        HirelabError: there is no such file; the message suggests near names.
    """
    known = {path.stem: path for path in files}
    for name in names:
        if Path(name).stem not in known:
            raise HirelabError(unknown(what, name, known, f"There are: {', '.join(known)}."))
    return [known[Path(name).stem] for name in names] or list(known.values())


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """A new file beside ``path`` to write into, which takes its place when the block ends well.

    So neither a reader nor an interruption ever meets half a file, and what was there stays until
    all of the new one is on the disk. Makes the folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # or a power cut may leave the new name with old emptiness
        os.chmod(temporary, _mode(path))  # mkstemp makes files that only their owner may read
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomic(path: Path | str, data: bytes | str) -> None:
    """Write ``data`` (text as UTF-8) to ``path``, all of it or nothing, making its folder."""
    with atomic(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def _mode(path: Path) -> int:
    """The permissions ``path`` has, or those that a new file would get here."""
    if path.exists():
        return path.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


# --- beside other processes, on disks that end -------------------------------------------------


@contextmanager
def locked(path: Path, waiting: str = "") -> Iterator[None]:
    """Wait until no other process holds the lock file ``path``, then hold it for the block.

    ``waiting`` is printed on stderr if it must wait. The system frees the lock of a process that
    is killed; the empty file stays.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if waiting:
            print(waiting, file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def writing(folder: Path, what: str) -> Iterator[None]:
    """Turn what the disk refuses in the block into a sentence with the cure."""
    try:
        yield
    except OSError as error:
        raise HirelabError(
            f"{what} cannot be written to {folder} ({error}): free some room or check the "
            f"folder's permissions, or name another folder in HIRELAB_CACHE"
        ) from error


def check_room(folder: Path, need: int, what: str) -> None:
    """Make sure that ``need`` bytes fit on the disk of ``folder``.

    Raises:
        HirelabError: saying what ``what`` needs, what is left and the cure.
    """
    free = shutil.disk_usage(folder).free
    if need > free:
        raise HirelabError(
            f"{what} needs {need / 1e6:,.0f} MB and {folder} has {free / 1e6:,.0f} MB left: free "
            f"some, or name another folder in HIRELAB_CACHE"
        )
