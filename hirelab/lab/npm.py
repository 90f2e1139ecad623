"""Files of a JavaScript package, as its authors published it: pinned, checked, and kept."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .._shared.errors import HirelabError
from .._shared.files import atomic, locked, writing
from ..datasets.subsets import own_folder

PATIENCE = 300  # seconds for a download


@dataclass(frozen=True)
class Package:
    """One version of a package: its name at npm, and the integrity that npm states for it."""

    name: str
    version: str
    integrity: str  # sha512-, and the hash of the archive in base64

    @property
    def archive(self) -> str:
        """The archive's file name, as npm writes it."""
        return f"{self.name}-{self.version}.tgz"


def read_files(package: Package, names: Sequence[str]) -> list[bytes]:
    """The contents of files of a package, by their paths in it.

    npm brings the archive the first time; it stays in ``npm`` of `own_folder`.

    Raises:
        HirelabError: npm is missing or cannot bring it, or what came is not what was pinned.
    """
    folder = own_folder() / "npm"
    with writing(folder, package.archive):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / f"{package.archive}.lock", f"waiting for {package.archive}"):
            kept = folder / package.archive
            if not (kept.is_file() and _integrity(kept) == package.integrity):
                _bring(package, kept)
    with tarfile.open(kept) as opened:
        files = [opened.extractfile(f"package/{name}") for name in names]
        return [file.read() for file in files if file is not None]


def _bring(package: Package, path: Path) -> None:
    what = f"{package.name} {package.version}"
    cure = f"or put {package.archive}, got elsewhere, into {path.parent}"
    if (npm := shutil.which("npm")) is None:
        raise HirelabError(f"{what} comes by npm, which is not installed: install Node.js, {cure}.")
    with tempfile.TemporaryDirectory() as folder:
        # pack downloads the archive and neither unpacks it nor runs anything of it
        command = [npm, "pack", f"{package.name}@{package.version}", "--pack-destination", folder]
        command += ["--ignore-scripts", "--fetch-retries=1"]
        command += ["--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
            said = ran.stderr if ran.returncode else ""
        except subprocess.TimeoutExpired:
            said = f"no answer in {PATIENCE} s"
        came = Path(folder) / package.archive
        if said or not came.is_file():
            raise HirelabError(
                f"npm cannot bring {what} ({_reason(said)}): check the network and run the command "
                f"again, {cure}."
            )
        if (found := _integrity(came)) != package.integrity:
            raise HirelabError(
                f"What npm brought as {what} is not what was published when hirelab was written "
                f"(its integrity is {found} and not {package.integrity}): check where npm gets its "
                f"packages from, {cure}."
            )
        with atomic(path) as new:
            shutil.copyfile(came, new)


def _integrity(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    return f"sha512-{base64.b64encode(digest).decode('ascii')}"


def _reason(said: str) -> str:
    """npm's error code, which stands in a line of its own, or else its first words."""
    lines = [line.split(maxsplit=2)[2] for line in said.splitlines() if line.count(" ") >= 2]
    codes = [line.removeprefix("code ") for line in lines if line.startswith("code ")]
    return next(iter([*codes, *lines]), said.strip() or "no reason given")
