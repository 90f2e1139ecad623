"""Fixtures that every room's tests share. Helpers that are called, not asked for: `_helpers`."""

from __future__ import annotations

from collections import Counter

import pytest
from _helpers import attached_hooks
from torch import nn

import hirelab as hl


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


BUSY: Counter[str] = Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if hasattr(report, "node"):  # of a worker, seen by the process that hands out the tests
        BUSY[report.node.gateway.id] += report.duration


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if BUSY:
        shares = ", ".join(f"{worker} {seconds:.0f} s" for worker, seconds in sorted(BUSY.items()))
        terminalreporter.write_line(f"workers were busy for {shares}")


# Files whose fixtures cost more than their tests: they stay with one worker.
WHOLE = (
    "notebooks/",
    "tests/browser/",
    "tests/training/",
    "tests/notebooks/",
    "tests/ablation/test_cluster.py",
    "tests/ablation/test_sweep.py",
)


@pytest.hookimpl(optionalhook=True)  # there is no such hook without pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Hand out test functions one by one, not file by file: no worker waits for a long file.

    A notebook is one kernel and its cells follow each other, so a notebook is handed out whole; and
    so are files with expensive fixtures.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFunction(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path, _, _ = nodeid.partition("::")
            return path if path.startswith(WHOLE) else nodeid.partition("[")[0]

    return ByFunction(config, log)
