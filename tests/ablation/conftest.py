"""A sweep of all tables, from an empty ledger to its end, which several tests look at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hirelab.cli import main


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HIRELAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def swept(tmp_path_factory) -> Path:
    """The ledger of `hirelab ablate --profile smoke`: every cell of every table, two seeds."""
    folder = tmp_path_factory.mktemp("ablations")
    call = ["ablate", "--table", "all", "--profile", "smoke"]
    assert main([*call, "--ledger", str(folder / "smoke"), "--out", str(folder / "runs")]) == 0
    return folder / "smoke"
