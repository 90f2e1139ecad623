"""Bringing data: from a real server, killed at any moment, broken off, damaged and malicious."""

import hashlib
import io
import multiprocessing
import os
import re
import resource
import shutil
import signal
import stat
import tarfile
import threading
import time
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hirelab._shared.errors import HirelabError
from hirelab.datasets import download
from hirelab.datasets.subsets import DATA_SETS, DataSet, find_data_set, open_images

fork = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    """No data of the machine's own, neither found nor written; no proxy between us and us."""
    monkeypatch.setenv("HIRELAB_CACHE", str(tmp_path / "own"))
    monkeypatch.delenv("HIRELAB_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")


# --- a publisher -------------------------------------------------------------------------------

CONTENT = {
    f"pets/{split}/{label}/{i}.png": np.random.default_rng(i).integers(
        0, 256, (24, 24, 3), np.uint8
    )
    for split, count in (("train", 20), ("val", 5))
    for label in ("cat", "dog")
    for i in range(count)
}


def png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


FILES = {name: png(values) for name, values in CONTENT.items()}


def tgz(files: dict[str, bytes], *more: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in more:
            archive.addfile(member)
    return buffer.getvalue()


def zip_of(files: dict[str, bytes], *more: tuple[zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        for member, content in more:
            archive.writestr(member, content)
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """Gives ``body`` and keeps what was asked of it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = b""
        self.ranges, self.lengths, self.etag = True, True, '"one"'
        self.pause = 0.0  # seconds between blocks
        self.silence = 0.0  # seconds before the first
        self.cuts: list[int] = []  # after how many bytes the next connections break
        self.status = 200
        self.asked: list[str | None] = []  # the Range of every request
        self.sent = 0

    def describe(self, body: bytes, name: str = "pets.tgz") -> DataSet:
        self.body = body
        url = f"http://127.0.0.1:{self.server_port}/{name}"
        md5 = hashlib.md5(body).hexdigest()
        return DataSet("pets", "Pets", 2, 40, 10, url, md5, 1, ("pets",))

    def handle_error(self, request, client_address) -> None:
        pass  # a killed reader is no error here


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        server, body = self.server, self.server.body
        asked = self.headers.get("Range")
        server.asked.append(asked)
        self.close_connection = True
        if server.status != 200:
            self.send_error(server.status)
            return
        same = self.headers.get("If-Range") in (None, server.etag)
        start = 0
        if asked and server.ranges and same:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if server.etag:
            self.send_header("ETag", server.etag)
        if server.lengths:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        time.sleep(server.silence)
        end = min(len(body), start + server.cuts.pop(0)) if server.cuts else len(body)
        for at in range(start, end, 4096):
            block = body[at : min(at + 4096, end)]
            self.wfile.write(block)
            self.wfile.flush()
            server.sent += len(block)
            time.sleep(server.pause)


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def home(tmp_path: Path) -> Path:
    return tmp_path / "own/data"


def is_whole(folder: Path) -> bool:
    files = {p.relative_to(folder.parent).as_posix() for p in folder.rglob("*") if p.is_file()}
    return files == set(FILES) and all(
        (folder.parent / name).read_bytes() == content for name, content in FILES.items()
    )


def left(tmp_path: Path) -> list[str]:
    """All there is beside the data set, but for the empty lock file."""
    inside = home(tmp_path).rglob("*")
    found = [p.relative_to(home(tmp_path)).as_posix() for p in inside if p.is_file()]
    folders = [p.name for p in home(tmp_path).iterdir() if p.name not in ("pets", ".downloads")]
    return folders + [n for n in found if not n.startswith("pets/") and not n.endswith(".lock")]


ARCHIVES = [("pets.tgz", tgz(FILES)), ("pets.zip", zip_of(FILES))]


# --- as it should go ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "body"), ARCHIVES)
def test_a_data_set_is_brought_once_and_found_from_then_on(server, tmp_path, name, body):
    data = server.describe(body, name)
    folder = download.get(data)
    assert folder == home(tmp_path) / "pets" == find_data_set(data)
    assert is_whole(folder)
    assert left(tmp_path) == []
    assert stat.S_IMODE(folder.stat().st_mode) & 0o500 == 0o500
    assert download.get(data) == folder
    assert server.asked == [None]


def test_an_archive_in_hirelab_data_is_used_and_left_as_it_is(server, tmp_path, monkeypatch):
    data = server.describe(tgz(FILES))
    given = tmp_path / "given"
    given.mkdir()
    monkeypatch.setenv("HIRELAB_DATA", str(given))
    (given / "pets.tgz").write_bytes(server.body)
    assert is_whole(download.get(data))
    assert (given / "pets.tgz").read_bytes() == server.body
    assert server.asked == []


def test_an_archive_in_hirelab_data_with_another_hash_is_named_and_kept(
    server, tmp_path, monkeypatch
):
    data = server.describe(tgz(FILES))
    monkeypatch.setenv("HIRELAB_DATA", str(tmp_path))
    (tmp_path / "pets.tgz").write_bytes(server.body[:-1])
    with pytest.raises(HirelabError, match=r"pets\.tgz is not what pets's publisher gives"):
        download.get(data)
    assert (tmp_path / "pets.tgz").exists()
    assert find_data_set(data) is None


def test_an_archive_without_a_folder_of_its_own_gets_one(server, tmp_path):
    files = {name.removeprefix("pets/"): content for name, content in FILES.items()}
    assert is_whole(download.get(server.describe(tgz(files))))


def test_tiny_imagenet_is_sorted_as_class_folders(server, tmp_path):
    images = list(FILES.values())
    table = "".join(f"val_{i}.JPEG\tn0{i % 2}\t0\t0\t9\t9\n" for i in range(6))
    files = {f"tiny/train/n0{i % 2}/images/{i}.JPEG": images[i] for i in range(8)}
    files |= {f"tiny/val/images/val_{i}.JPEG": images[10 + i] for i in range(6)}
    files |= {"tiny/val/val_annotations.txt": table.encode(), "tiny/test/images/t.JPEG": b"x"}
    data = replace(server.describe(zip_of(files), "tiny.zip"), files=("tiny",))
    folder = download.get(data)
    assert sorted(p.name for p in (folder / "val").iterdir() if p.is_dir()) == ["n00", "n01"]
    for i in range(6):
        assert (folder / f"val/n0{i % 2}/val_{i}.JPEG").read_bytes() == images[10 + i]
    train, val = open_images(folder), open_images(folder, "val")
    assert (train.classes, len(train)) == (val.classes, 8)
    assert val.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_an_unknown_name_and_a_data_set_that_is_signed_for(tmp_path):
    with pytest.raises(HirelabError, match="Did you mean 'tinyimagenet'"):
        download.get("tinyimagnet")
    with pytest.raises(HirelabError, match=r"on request at image-net\.org"):
        download.get("imagenet")


@pytest.mark.parametrize("name", [n for n in DATA_SETS if DATA_SETS[n].url])
def test_what_is_unpacked_is_where_it_is_looked_for(name):
    assert download._folder_name(DATA_SETS[name]) in DATA_SETS[name].files
    assert re.fullmatch("[0-9a-f]{32}", DATA_SETS[name].md5)


# --- broken off --------------------------------------------------------------------------------


def test_a_connection_that_breaks_is_taken_up_where_it_broke(server, tmp_path):
    data = server.describe(tgz(FILES))
    server.cuts = [10_000, 20_000]
    assert is_whole(download.get(data))
    assert server.asked == [None, "bytes=10000-", "bytes=30000-"]
    assert server.sent == len(server.body)


def test_a_connection_that_brings_nothing_is_a_sentence_and_keeps_what_there_is(server, tmp_path):
    data = server.describe(tgz(FILES))
    server.cuts = [10_000, 0]
    with pytest.raises(HirelabError, match=r"ended after 10,000 of .*HIRELAB_DATA"):
        download.get(data)
    assert find_data_set(data) is None
    assert is_whole(download.get(data))
    assert server.asked == [None, "bytes=10000-", "bytes=10000-"]


def begun(server: Server, body: bytes) -> DataSet:
    """A data set of which 10,000 bytes are here."""
    data = server.describe(body)
    server.cuts = [10_000, 0]
    with pytest.raises(HirelabError):
        download.get(data)
    server.asked.clear()
    server.sent = 0
    return data


def test_a_server_without_ranges_sends_it_from_the_beginning(server, tmp_path):
    data = begun(server, tgz(FILES))
    server.ranges = False
    assert is_whole(download.get(data))
    assert server.sent == len(server.body)


@pytest.mark.parametrize("etag", ['"two"', None])
@pytest.mark.parametrize("longer", [True, False])
def test_a_file_that_has_changed_is_begun_anew(server, tmp_path, etag, longer):
    old = tgz(FILES) + b"\0" * (0 if longer else 999)
    server.etag = '"one"' if etag else None
    begun(server, old)
    data = server.describe(tgz(FILES) + b"\0" * (999 if longer else 0))
    server.etag = etag
    assert is_whole(download.get(data))
    assert server.asked[0] == "bytes=10000-"
    assert left(tmp_path) == []


def test_a_file_that_has_changed_and_kept_its_size_is_begun_anew(server, tmp_path):
    good = tgz(FILES)
    begun(server, bytes(reversed(good)))
    data = server.describe(good)
    server.etag = '"two"'
    assert is_whole(download.get(data))


def test_a_file_that_is_now_shorter_than_what_is_here_is_begun_anew(server, tmp_path):
    server.etag = None
    begun(server, tgz(FILES))
    small = {name: FILES[name] for name in list(FILES)[:3]}
    data = server.describe(tgz(small))
    assert len(server.body) < 10_000
    assert len(list(download.get(data).rglob("*.png"))) == 3
    assert server.asked == ["bytes=10000-", None]


def test_a_length_that_is_not_told_is_no_obstacle(server, tmp_path):
    data = server.describe(tgz(FILES))
    server.lengths = False
    assert is_whole(download.get(data))


def test_another_hash_is_removed_and_said(server, tmp_path):
    data = replace(server.describe(tgz(FILES)), md5="0" * 32)
    with pytest.raises(HirelabError, match=r"is not what its publisher gave .* it was removed"):
        download.get(data)
    assert find_data_set(data) is None
    assert left(tmp_path) == []


def test_a_server_that_refuses_is_a_sentence(server):
    data = server.describe(tgz(FILES))
    server.status = 503
    with pytest.raises(HirelabError, match=r"cannot be downloaded .*503.* check the network"):
        download.get(data)


def test_no_network_is_a_sentence(server, tmp_path):
    data = replace(server.describe(b""), url="http://127.0.0.1:9/pets.tgz")
    with pytest.raises(HirelabError, match=r"cannot be downloaded .*refused.* check the network"):
        download.get(data)


def test_a_server_that_falls_silent_is_a_sentence(server, tmp_path, monkeypatch):
    data = server.describe(tgz(FILES))
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    server.silence = 1.0
    with pytest.raises(HirelabError, match=r"cannot be downloaded .*timed out.* check the network"):
        download.get(data)


# --- killed ------------------------------------------------------------------------------------


def getting(data: DataSet, slow: float = 0.0) -> None:
    if slow:
        inside = download._inside
        download._inside = lambda name: (time.sleep(slow), inside(name))[1]
    download.get(data)


def until(seen) -> None:
    """Waits until something is seen."""
    end = time.monotonic() + 60
    while not seen():
        assert time.monotonic() < end
        time.sleep(0.002)


def kill(process) -> None:
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_killed_while_downloading_it_goes_on_with_the_missing_bytes(server, tmp_path):
    data = server.describe(tgz(FILES))
    server.pause = 0.02
    archive = home(tmp_path) / ".downloads/pets.tgz"
    process = fork.Process(target=getting, args=(data,))
    process.start()
    until(lambda: archive.exists() and archive.stat().st_size >= 12_000)
    kill(process)
    here = archive.stat().st_size
    assert 12_000 <= here < len(server.body)
    assert find_data_set(data) is None
    server.pause = 0
    server.asked.clear()
    assert is_whole(download.get(data))
    assert server.asked == [f"bytes={here}-"]
    assert left(tmp_path) == []


def test_killed_while_unpacking_nothing_half_made_is_found(server, tmp_path):
    data = server.describe(tgz(FILES))
    process = fork.Process(target=getting, args=(data, 0.01))
    process.start()
    until(lambda: len(list(home(tmp_path).glob(".pets.*/**/*.png"))) >= 5)
    assert find_data_set(data) is None
    kill(process)
    assert find_data_set(data) is None
    server.asked.clear()
    assert is_whole(download.get(data))
    assert server.asked == []  # all bytes were here
    assert left(tmp_path) == []


def killing(data: DataSet, where: str, before: bool, call: int) -> None:
    """Get, and be killed before or after a call of one of the steps."""
    owner = os if where == "sync" else download
    original, count = getattr(owner, where), iter(range(1, 99))

    def step(*arguments, **options):
        now = next(count) == call
        if now and before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, where, step)
    download.get(data)


@pytest.mark.parametrize(
    ("where", "before", "call", "asked"),
    [
        ("write_atomic", True, 1, [None]),  # a file is made, its notes are not
        ("write_atomic", False, 1, [None]),  # its notes are
        ("calculate_md5", True, 1, []),  # all bytes are here, unchecked
        ("sync", False, 1, []),  # before the new name
        ("_forget", True, 2, None),  # after it: the data set is here
    ],
)
def test_killed_at_any_step_the_next_call_ends_well(server, tmp_path, where, before, call, asked):
    data = server.describe(tgz(FILES))
    process = fork.Process(target=killing, args=(data, where, before, call))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (find_data_set(data) is not None) == (asked is None)
    server.asked.clear()
    assert is_whole(download.get(data))
    assert server.asked == (asked or [])
    assert left(tmp_path) == []


def test_two_at_once_end_with_one_data_set_and_one_download(server, tmp_path):
    data = server.describe(tgz(FILES))
    server.pause = 0.01
    both = [fork.Process(target=getting, args=(data, 0.002)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert is_whole(find_data_set(data))
    assert server.asked == [None]
    assert left(tmp_path) == []


# --- archives that mean harm, or are damaged ---------------------------------------------------


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def zipped_link(name: str, target: str) -> tuple[zipfile.ZipInfo, bytes]:
    member = zipfile.ZipInfo(name)
    member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return member, target.encode()


GOOD = dict(list(FILES.items())[:2])
OUTSIDE = [
    "../evil.png",
    "pets/../../evil.png",
    "/tmp/hirelab-evil.png",
    "..\\evil.png",
    "C:\\e.png",
]


@pytest.mark.parametrize("make", [tgz, zip_of])
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_member_that_leads_outside_is_refused(server, tmp_path, make, name):
    refused(server, tmp_path, make({**GOOD, name: b"evil"}), "outside its folder")
    assert not Path("/tmp/hirelab-evil.png").exists()


@pytest.mark.parametrize(
    "body",
    [
        tgz(GOOD, link("pets/out", "/etc"), link("pets/out/passwd", "x")),
        tgz(GOOD, link("pets/out", "../..")),
        tgz(GOOD, link("pets/hard", "/etc/passwd", tarfile.LNKTYPE)),
        tgz(GOOD, link("pets/pipe", "", tarfile.FIFOTYPE)),
        zip_of(GOOD, zipped_link("pets/out", "/etc")),
    ],
)
def test_links_and_pipes_are_refused(server, tmp_path, body):
    refused(server, tmp_path, body, "is a link or no plain file")


@pytest.mark.parametrize("make", [tgz, zip_of])
def test_an_archive_that_grows_without_measure_is_refused(server, tmp_path, monkeypatch, make):
    monkeypatch.setattr(download, "ALLOWANCE", 1_000_000)
    body = make({**GOOD, "pets/train/cat/bomb.png": bytes(3_000_000)})
    assert len(body) < 100_000
    refused(server, tmp_path, body, "would unpack to more than")


@pytest.mark.parametrize(
    "body",
    [
        tgz(FILES)[:-2000],
        zip_of(FILES)[:-2000],
        tgz(FILES)[:5000] + b"damage" + tgz(FILES)[5006:],
        b"",
        b"no archive",
    ],
)
def test_a_damaged_archive_is_a_sentence(server, tmp_path, body):
    refused(server, tmp_path, body, "damaged")


def test_a_damaged_member_of_a_zip_is_a_sentence(server, tmp_path):
    body = bytearray(zip_of(FILES))
    body[body.index(b"IDAT") + 50] ^= 255
    refused(server, tmp_path, bytes(body), "damaged")


def refused(server: Server, tmp_path: Path, body: bytes, why: str) -> None:
    data = server.describe(body)
    with pytest.raises(HirelabError, match=rf"pets\.tgz is not unpacked: .*{why}.*it was removed"):
        download.get(data)
    assert find_data_set(data) is None
    assert left(tmp_path) == []
    assert {p.name for p in tmp_path.iterdir()} == {"own"}
    assert {p.name for p in (tmp_path / "own").iterdir()} == {"data"}


# --- disks that end ----------------------------------------------------------------------------


def test_too_little_room_is_said_before_the_download(server, tmp_path, monkeypatch):
    data = server.describe(tgz(FILES))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(HirelabError, match=r"pets needs .* HIRELAB_CACHE"):
        download.get(data)
    assert find_data_set(data) is None
    assert (home(tmp_path) / ".downloads/pets.tgz").stat().st_size == 0
    monkeypatch.undo()
    monkeypatch.setenv("HIRELAB_CACHE", str(tmp_path / "own"))
    assert is_whole(download.get(data))


def limited(data: DataSet, limit: int, answer) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # the system refuses to write more
    try:
        download.get(data)
    except HirelabError as error:
        answer.put(str(error))


@pytest.mark.parametrize("where", ["download", "unpacking"])
def test_a_disk_that_is_full_in_the_middle_is_a_sentence(server, tmp_path, where):
    big = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    body = tgz({**FILES, "pets/train/cat/big.png": bytes(300_000) + png(big)})
    data = server.describe(body)
    limit = 20_000 if where == "download" else len(body)
    assert len(body) < 300_000
    answer = fork.Queue()
    process = fork.Process(target=limited, args=(data, limit, answer))
    process.start()
    assert "pets cannot be written to" in answer.get(timeout=60)
    process.join()
    assert find_data_set(data) is None
    assert not list(home(tmp_path).glob(".pets.*"))
    here = (home(tmp_path) / ".downloads/pets.tgz").stat().st_size
    server.asked.clear()
    download.get(data)
    assert server.asked == ([f"bytes={here}-"] if here < len(body) else [])
