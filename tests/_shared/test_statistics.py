"""The shared statistics against formulas and sums written out."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from hirelab._shared.statistics import mcnemar, wilson_interval


def test_wilsons_interval():
    """Its ends solve (share - p)^2 = z^2 p (1 - p) / n (Wilson 1927)."""
    for share, n in ((0.84, 3925), (0.5, 10), (0.0, 20), (1.0, 20)):
        z2 = 1.959963984540054**2 / n
        ends = np.sort(np.roots([1 + z2, -(2 * share + z2), share**2]).real)
        assert wilson_interval(share, n) == pytest.approx(ends, abs=1e-9)


def test_mcnemars_test():
    """Its exact binomial form, as a sum of fractions."""
    for first, second in ((5, 5), (0, 8), (120, 171), (3, 4), (0, 0)):
        cases = first + second
        tail = sum(math.comb(cases, k) for k in range(min(first, second) + 1))
        expected = float(min(Fraction(1), Fraction(2 * tail, 2**cases)))
        assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)
        assert mcnemar(second, first) == mcnemar(first, second)
