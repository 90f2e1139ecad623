"""Published data sets brought here whole: downloaded, checked against their hash, unpacked.

`get` takes a data set's name and says where it lies; it is downloaded where it was not here.

Nothing half-made ever lies where `subsets.locate` looks. A download grows in a folder of its own
and is resumed by the next call. An archive is unpacked into a hidden folder, which is renamed when
it is complete; if the process is killed before that, the next call removes it.

The client is our own because none at hand both resumes and checks: torchvision and pooch check a
hash but begin anew, fsspec does neither, and huggingface_hub's `http_get` resumes but compares no
hash and does not notice a file that has changed in between.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import stat
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torchvision.datasets.utils import calculate_md5
from tqdm import tqdm

from .._shared.errors import HirelabError
from .._shared.files import check_room, locked, write_atomic, writing
from .._shared.reading import read_object
from .subsets import (
    ANNOTATIONS,
    DataSet,
    find_data_set,
    known_data_set,
    locate,
    own_folder,
    read_annotations,
    search_folders,
)

__all__ = ["get"]

GROWTH = 4
"""Images hardly compress: what unpacks to more than so many times its size is no data set."""

ALLOWANCE = 64_000_000
"""Bytes that an archive may unpack to beyond that, for the tables and names of small ones."""

TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as broken."""

_BLOCK = 1 << 18


def get(source: str | DataSet) -> Path:
    """Where a data set lies; downloads it from its publisher if it is not here yet.

    An archive of the publisher's file name in a folder of HIRELAB_DATA is used instead of a
    download. A download that was broken off is resumed. Several calls at once, from any processes,
    end with one download.

    Args:
        source: a name in `subsets.DATA_SETS`, or a description of a data set.

    Raises:
        HirelabError: an unknown name; a publisher who wants a signature first; no connection; an
            archive with another hash, with members that reach outside its folder, or that
            unpacks to more than `GROWTH` times its size; too little room.
    """
    data = known_data_set(source) if isinstance(source, str) else source
    if not data.url:
        return locate(data.name)  # which says where to ask for it
    home = own_folder() / "data"
    archive = home / ".downloads" / _file_name(data)
    if (found := find_data_set(data)) and not _leftovers(data, home, archive):
        return found
    with writing(home, data.name):
        archive.parent.mkdir(parents=True, exist_ok=True)
        waiting = f"another process is bringing {data.name}: waiting for it"
        with locked(archive.with_suffix(".lock"), waiting):
            found = find_data_set(data)
            for left in _leftovers(data, home, archive) if found else _half_unpacked(data, home):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            if found:
                return found
            given = _given(data)
            if given is None:
                _download(data, archive)
            _unpack(data, given or archive, home, ours=given is None)
            if given is None:
                _forget(archive)
    found = find_data_set(data)
    if found is None:
        raise HirelabError(f"{data.name} was unpacked into {home} and is gone again")
    return found


def _file_name(data: DataSet) -> str:
    return data.url.rpartition("/")[2]


def _leftovers(data: DataSet, home: Path, archive: Path) -> list[Path]:
    """What a killed process left behind a data set that is here."""
    files = [one for one in (_notes(archive), archive) if one.exists()]
    return [*_half_unpacked(data, home), *files]


def _half_unpacked(data: DataSet, home: Path) -> list[Path]:
    return list(home.glob(f".{data.name}.*"))


def _given(data: DataSet) -> Path | None:
    """The publisher's archive in a folder that is searched, its hash checked."""
    for folder in search_folders():
        path = folder / _file_name(data)
        if path.is_file():
            if (md5 := calculate_md5(path)) != data.md5:
                raise HirelabError(
                    f"{path} is not what {data.name}'s publisher gives (its md5 is {md5} and not "
                    f"{data.md5}): remove it, and `hirelab data get {data.name}` downloads "
                    f"{data.megabytes:,} MB"
                )
            return path
    return None


# --- downloading -------------------------------------------------------------------------------


def _notes(archive: Path) -> Path:
    """Beside a download: of which version of the file it is the beginning, and how long that is."""
    return archive.with_name(f"{archive.name}.json")


def _forget(archive: Path) -> None:
    # the notes first: bytes without them are not resumed
    _notes(archive).unlink(missing_ok=True)
    archive.unlink(missing_ok=True)


def _read_notes(archive: Path) -> dict[str, Any]:
    """{"url", "validator", "size"} of a download that can be resumed; {} of none."""
    try:
        notes = read_object(_notes(archive), "url", "validator", "size")
    except (FileNotFoundError, HirelabError):
        return {}
    plain = isinstance(notes["size"], int) and isinstance(notes["validator"], str | None)
    return notes if plain and archive.exists() else {}


def _download(data: DataSet, archive: Path) -> None:
    """Bring the rest of the archive, or all of it, and check its hash."""
    while True:
        before = _size(archive)
        try:
            _transfer(data, archive)
            break
        # what a connection that breaks raises, when it breaks: before, in or after the head
        except (_Broken, urllib.error.URLError, http.client.HTTPException) as error:
            if _size(archive) > before:
                continue  # it brought something: go on from there
            reason = error if isinstance(error, urllib.error.HTTPError) else _reason(error)
            raise HirelabError(
                f"{data.name} cannot be downloaded from {data.url} ({reason}): check the network "
                f"and run the command again, which goes on where it stopped, or put "
                f"{_file_name(data)}, got elsewhere, into a folder that HIRELAB_DATA names"
            ) from error
    if (md5 := calculate_md5(archive)) != data.md5:
        _forget(archive)
        raise HirelabError(
            f"what came from {data.url} is not what its publisher gave before (its md5 is {md5} "
            f"and not {data.md5}): it was removed; run the command again"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", error)
    return str(getattr(inner, "strerror", None) or inner or type(inner).__name__)


class _Broken(Exception):
    """The connection ended too early."""


def _transfer(data: DataSet, archive: Path) -> None:
    """One request for what is missing, written behind what is there."""
    notes = _read_notes(archive)
    have = archive.stat().st_size if notes.get("url") == data.url else 0
    if have and have == notes["size"]:
        return
    request = urllib.request.Request(data.url, headers={"Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if notes["validator"]:  # a file that has changed comes whole, not in part
            request.add_header("If-Range", notes["validator"])
    try:
        with _network():
            answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if have and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            _forget(archive)  # the file is another, shorter one: from the beginning
            _transfer(data, archive)
            return
        raise
    with answer:
        _keep(data, archive, answer, have, notes)


def _keep(
    data: DataSet, archive: Path, answer: http.client.HTTPResponse, have: int, notes: dict[str, Any]
) -> None:
    """Write what the server answers behind what is there, or anew where it sends the whole."""
    length = answer.headers.get("Content-Length")
    size = int(length) if length and length.isdigit() else None
    if have and answer.status == http.client.PARTIAL_CONTENT:
        part = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
        if part is None or (int(part[1]), int(part[2])) != (have, notes["size"]):
            _forget(archive)  # of another file than the one that was begun
            _transfer(data, archive)
            return
        size = notes["size"]
    else:
        have = 0
        _forget(archive)
        validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if validator and validator.startswith("W/"):  # which If-Range must not name
            validator = answer.headers.get("Last-Modified")
        archive.touch()
        # without a size nothing tells a part from the whole: such a download begins anew
        if size is not None:
            facts = {"url": data.url, "validator": validator, "size": size}
            write_atomic(_notes(archive), json.dumps(facts))
    # it is unpacked before it is removed, and takes about as much room again
    whole = size or data.megabytes * 1_000_000
    check_room(archive.parent, 2 * whole - have, data.name)
    bar = tqdm(total=size, initial=have, unit="B", unit_scale=True, desc=data.name, disable=None)
    with bar, open(archive, "ab") as file:
        while block := _next(answer):
            file.write(block)
            bar.update(len(block))
    if size is not None and archive.stat().st_size != size:
        raise _Broken(f"it ended after {archive.stat().st_size:,} of {size:,} bytes")


def _next(answer: http.client.HTTPResponse) -> bytes:
    with _network():
        return answer.read1(_BLOCK)


@contextmanager
def _network() -> Iterator[None]:
    """Tells what the network does (`_Broken`) from what the disk does."""
    try:
        yield
    except (urllib.error.URLError, http.client.HTTPException):
        raise
    except OSError as error:  # timeouts and resets
        raise _Broken(str(error) or type(error).__name__) from error


# --- unpacking ---------------------------------------------------------------------------------


class _Refused(Exception):
    """Why an archive is not unpacked."""


def _unpack(data: DataSet, archive: Path, home: Path, ours: bool) -> None:
    """Unpack beside, sort, and rename to where it is found."""
    check_room(home, archive.stat().st_size, data.name)
    top = Path(tempfile.mkdtemp(prefix=f".{data.name}.", dir=home))
    try:
        inside = top / "new"
        inside.mkdir()
        try:
            _unpack_into(archive, inside, data.name)
        except _Refused as error:
            if ours:
                _forget(archive)
            removed = "it was removed" if ours else "get another copy"
            raise HirelabError(f"{archive.name} is not unpacked: {error}; {removed}") from error
        entries = list(inside.iterdir())
        if len(entries) == 1 and entries[0].is_dir():
            inside = entries[0]
        _sort(inside)
        if hasattr(os, "sync"):
            os.sync()  # or a power cut may leave the new name over empty files
        try:
            inside.rename(home / _folder_name(data))
        except OSError:
            if find_data_set(data) is None:  # or another process was faster
                raise
    finally:
        shutil.rmtree(top, ignore_errors=True)


def _folder_name(data: DataSet) -> str:
    """What the unpacked folder is called: the archive's name without suffixes, as published."""
    name = re.sub(r"(\.tar)?\.\w+$", "", _file_name(data))
    if name not in data.files:
        raise HirelabError(f"{data.name} would be unpacked to {name}, which is not in {data.files}")
    return name


def _unpack_into(archive: Path, folder: Path, name: str) -> None:
    """Unpack a zip or tar into an empty folder: files and folders, nothing outside, within bounds.

    Raises:
        _Refused: a damaged archive, a member that is none of these or whose name leads out, more
            bytes than the archive's size allows.
        HirelabError: too little room.
    """
    limit = GROWTH * archive.stat().st_size + ALLOWANCE
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                _unpack_zip(opened, folder, limit, name)
        else:
            with tarfile.open(archive) as opened:
                _unpack_tar(opened, folder, limit, name)
                while opened.fileobj.read(_BLOCK):
                    pass  # to the end, where the compression's own checksum stands
    except (_Refused, HirelabError):
        raise
    # the libraries have another exception for every kind of damage
    except Exception as error:
        # the disk's have a number, gzip's and bzip2's have none
        if isinstance(error, OSError) and error.errno is not None:
            raise
        why = str(error).partition("\n")[0].rstrip(":")
        raise _Refused(f"it is damaged or of an unknown kind ({why})") from error


def _unpack_zip(archive: zipfile.ZipFile, folder: Path, limit: int, name: str) -> None:
    members = archive.infolist()
    total = 0
    for member in members:
        _inside(member.filename)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _Refused(f"its member {member.filename!r} is a link or no plain file")
        total = _within(total + member.file_size, limit)
    check_room(folder, total, name)
    for member in tqdm(members, f"unpacking {name}", unit=" files", disable=None):
        # what a zip's table says of sizes may be false: zipfile reads no more than that
        archive.extract(member, folder)


def _unpack_tar(archive: tarfile.TarFile, folder: Path, limit: int, name: str) -> None:
    total = 0
    for member in tqdm(archive, f"unpacking {name}", unit=" files", disable=None):
        _inside(member.name)
        if not (member.isreg() or member.isdir()):
            raise _Refused(f"its member {member.name!r} is a link or no plain file")
        total = _within(total + member.size, limit)
        archive.extract(member, folder, filter="data")


def _inside(name: str) -> None:
    """Refuses the name of a member that is absolute or leads up, on any system."""
    parts = re.split(r"[\\/]", name)
    if parts[0] == "" or ".." in parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise _Refused(f"its member {name!r} would be written outside its folder")


def _within(total: int, limit: int) -> int:
    if total > limit:
        raise _Refused(
            f"it would unpack to more than {limit / 1e6:,.0f} MB, which images of its size "
            f"cannot be"
        )
    return total


def _sort(folder: Path) -> None:
    """Move the images that a table of Tiny-ImageNet's kind labels into class folders."""
    table = folder / "val" / ANNOTATIONS
    if not table.is_file():
        return
    for file, label in read_annotations(table.read_text()).items():
        _inside(file)
        _inside(label)
        target = table.parent / label / file
        target.parent.mkdir(exist_ok=True)
        (table.parent / "images" / file).rename(target)
    (table.parent / "images").rmdir()
