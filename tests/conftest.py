"""Fixtures that every room's tests share. Helpers that are called, not asked for: `_helpers`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from _helpers import attached_hooks
from torch import nn

import hirelab as hl

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def trained() -> nn.Module:
    """The trained network that comes with hirelab; read only."""
    return hl.create("hire_mlp_pico", pretrained=True)


@pytest.fixture
def leaves_no_hooks():
    """Call it with networks: at the end of the test none of them has a hook that it had not."""
    watched: list[tuple[nn.Module, int]] = []
    yield lambda *models: watched.extend((m, attached_hooks(m)) for m in models)
    for model, before in watched:
        assert attached_hooks(model) == before


# Two workers (`make test`): what shares something stays together, everything else is one by one, so
# that neither worker waits long for the other at the end (--dist loadgroup).


def pytest_itemcollected(item: pytest.Item) -> None:
    """Here and not in pytest_collection_modifyitems, where xdist has read the marks already."""
    if shared := _shared_place(item):
        item.add_marker(pytest.mark.xdist_group(shared))


def _shared_place(item: pytest.Item) -> str:
    """The file or folder whose fixtures outlive the test; "" for none.

    The fixtures of this file do not count: they are cheap, and each worker makes its own.
    """
    info = getattr(item, "_fixtureinfo", None)
    places = {
        fixture.baseid
        for fixtures in (info.name2fixturedefs.values() if info else ())
        for fixture in fixtures
        if fixture.scope != "function"
    }
    root = item.config.rootpath
    inside = [p for p in places if p and HERE in (root / p).parents]
    return min(inside, key=len, default="")


BUSY: Counter[str] = Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if hasattr(report, "node"):  # of a worker, seen by the process that hands out the tests
        BUSY[report.node.gateway.id] += report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if BUSY:
        shares = ", ".join(f"{worker} {seconds:.0f} s" for worker, seconds in sorted(BUSY.items()))
        terminalreporter.write_line(f"workers were busy for {shares}")
