"""Files of a pinned package: brought once, checked always, and a sentence where they cannot be."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import stat
import tarfile
from pathlib import Path

import pytest

from hirelab import HirelabError
from hirelab.lab.npm import Package, read_files

CONTENT = {"dist/a.mjs": b"export default 1;\n", "dist/b.wasm": b"\0asm"}


@pytest.fixture
def archive(tmp_path) -> Path:
    """An archive as npm packs one, elsewhere than where it is looked for."""
    path = tmp_path / "published" / "small-1.2.0.tgz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as opened:
        for name, data in CONTENT.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            opened.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def package(archive) -> Package:
    digest = hashlib.sha512(archive.read_bytes()).digest()
    return Package("small", "1.2.0", f"sha512-{base64.b64encode(digest).decode()}")


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A function that puts a command `npm` of a few lines of sh on the path, and nothing else; it
    counts its calls in the file that it returns. The cache is empty."""
    monkeypatch.setenv("HIRELAB_CACHE", str(tmp_path / "cache"))
    calls, folder = tmp_path / "calls", tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}")

    def write(script: str) -> Path:
        path = folder / "npm"
        path.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n{script}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return calls

    return write


def test_a_package_is_brought_once(npm, package, archive):
    calls = npm(f'/bin/cp {archive} "$4"')
    for _ in range(2):
        assert read_files(package, list(CONTENT)) == list(CONTENT.values())
    (call,) = calls.read_text().splitlines()
    assert call.startswith("pack small@1.2.0 --pack-destination")
    assert "--ignore-scripts" in call


def test_a_kept_archive_that_was_changed_is_brought_again(npm, package, archive, tmp_path):
    calls = npm(f'/bin/cp {archive} "$4"')
    read_files(package, ["dist/a.mjs"])
    kept = tmp_path / "cache" / "npm" / "small-1.2.0.tgz"
    kept.write_bytes(kept.read_bytes()[:-1])
    assert read_files(package, ["dist/b.wasm"]) == [CONTENT["dist/b.wasm"]]
    assert len(calls.read_text().splitlines()) == 2


def test_another_archive_than_the_pinned_one_is_refused_and_not_kept(npm, package, tmp_path):
    npm('echo other > "$4/small-1.2.0.tgz"')
    with pytest.raises(HirelabError, match="is not what was published"):
        read_files(package, ["dist/a.mjs"])
    assert not list((tmp_path / "cache" / "npm").glob("*.tgz"))


def test_npm_that_fails_is_said_with_its_reason_and_the_cure(npm, package, archive, tmp_path):
    npm('echo "npm error code ENOTFOUND\nnpm error network request failed" >&2; exit 1')
    with pytest.raises(HirelabError, match=r"npm cannot bring small 1\.2\.0 \(ENOTFOUND\): check"):
        read_files(package, ["dist/a.mjs"])
    # and the other cure that the sentence names
    (tmp_path / "cache" / "npm" / archive.name).write_bytes(archive.read_bytes())
    assert read_files(package, ["dist/a.mjs"]) == [CONTENT["dist/a.mjs"]]


def test_without_npm_the_sentence_says_what_to_install(npm, package):
    with pytest.raises(HirelabError, match="by npm, which is not installed: install Node"):
        read_files(package, ["dist/a.mjs"])


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_the_real_npm_understands_how_it_is_asked(package, tmp_path, monkeypatch):
    """It tries, and fails for the registry's sake; a setting that it refuses would be its reason
    (npm 11 refuses a longest wait below its shortest)."""
    monkeypatch.setenv("HIRELAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    with pytest.raises(HirelabError, match=r"npm cannot bring small 1\.2\.0 \(ECONNREFUSED\)"):
        read_files(package, ["dist/a.mjs"])
