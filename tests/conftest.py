"""Fixtures that every room's tests share. Helpers that are called, not asked for: `_helpers`."""

from __future__ import annotations

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
