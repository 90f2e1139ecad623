"""Where the project's files lie, and how they are written."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import HirelabError, unknown

if sys.platform != "win32":
    import fcntl

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
    all of the new one is on the disk. Makes the folder, and removes what processes that were killed
    left `unfinished` of this file.

    Raises:
        OSError: the disk refuses. What writers in Rust raise in its place becomes one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_unfinished(path.parent, path.name)
    handle, temporary = _new_beside(path)
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # or a power cut may leave the new name with old emptiness
        os.chmod(temporary, _mode(path))  # mkstemp makes files that only their owner may read
        os.replace(temporary, path)
    except OSError as error:
        if error.errno and error.filename in (None, str(temporary)):
            error.filename = str(path)  # without a number it would print as "None"
        raise
    except Exception as error:
        if refusal := re.search(r"\(os error (\d+)\)", str(error)):
            number = int(refusal[1])
            raise OSError(number, os.strerror(number), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def write_atomic(path: Path | str, data: bytes | str) -> None:
    """Write ``data`` (text as UTF-8) to ``path``, all of it or nothing, making its folder."""
    with atomic(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def unfinished(folder: Path, name: str = "") -> list[Path]:
    """The files in ``folder`` that `atomic` writes into now or was killed over; of one ``name``, or
    of all."""
    wanted = re.compile(rf"\.{re.escape(name) or '.+'}\.\w{{8}}{re.escape(_UNFINISHED)}")
    return [path for path in folder.iterdir() if wanted.fullmatch(path.name)]


def remove_unfinished(folder: Path, name: str = "") -> None:
    """Remove what killed processes left `unfinished`, and nothing that a living one writes into."""
    for path in unfinished(folder, name):
        handle = _held(path)
        if handle is not None:
            path.unlink(missing_ok=True)
            os.close(handle)


_UNFINISHED = ".part"


def _new_beside(path: Path) -> tuple[int | None, Path]:
    """An empty file beside ``path``, held against `remove_unfinished` while its handle is open."""
    while True:
        handle, name = tempfile.mkstemp(_UNFINISHED, f".{path.name}.", path.parent)
        os.close(handle)
        held, temporary = _held(Path(name), wait=True), Path(name)
        if temporary.exists():  # nobody removed it between its making and our hold
            return held, temporary
        if held is not None:
            os.close(held)


def _held(path: Path, wait: bool = False) -> int | None:
    """A handle that holds a file as long as it is open or its process lives; None where another
    has it, unless told to wait, where it is gone, or where the system or disk cannot do so."""
    if sys.platform == "win32":
        return None  # which lets nobody remove an open file either
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(handle)
        return None
    return handle


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


REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO}
"""Numbers of an `OSError` by which a disk, and no mistake of ours, refuses to be written to."""


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
