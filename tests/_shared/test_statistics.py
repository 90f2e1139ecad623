"""The shared statistics against formulas and sums written out."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from hirelab._shared.statistics import (
    compare_trainings,
    mcnemar,
    training_deviation,
    wilson_interval,
)


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


def simulated_errors(images: int, trainings: int) -> np.ndarray:
    """Error rates of trainings on two classes whose ensemble is calibrated: where a share p of
    trainings answers one class, a share p of such images is of it (Jordan 2024)."""
    rng = np.random.default_rng(0)
    p = rng.beta(0.3, 0.3, images)
    label = rng.random(images) < p
    return np.array([((rng.random(images) < p) != label).mean() for _ in range(trainings)])


def test_the_deviation_over_trainings_is_that_of_simulated_ones():
    """With the share that is derived for two classes."""
    errors = simulated_errors(4000, 2000)
    expected = training_deviation(errors.mean(), 4000, share=0.5)
    assert errors.std() == pytest.approx(expected, rel=0.08)
    assert training_deviation(0.1, 1000) == pytest.approx(math.sqrt(0.4 * 0.1 / 1000))


def test_two_trainings_of_one_design_are_as_often_apart_as_said():
    errors = simulated_errors(4000, 2000)
    pairs = [compare_trainings(a, b, 4000, 0.5) for a, b in errors.reshape(-1, 2)]
    assert np.std([z for z, _ in pairs]) == pytest.approx(1, abs=0.08)
    assert np.mean([p < 0.1 for _, p in pairs]) == pytest.approx(0.1, abs=0.03)


def test_designs_compared_by_one_training_of_each():
    z, p = compare_trainings(0.14, 0.13, 3925)
    assert z == pytest.approx(0.01 / math.sqrt(0.4 * 0.27 / 3925))
    assert p == pytest.approx(math.erfc(z / math.sqrt(2)))  # both tails of the normal law
    assert compare_trainings(0.13, 0.14, 3925) == pytest.approx((-z, p))
    assert compare_trainings(0.0, 0.0, 100) == (0.0, 1.0)
    assert compare_trainings(0.2, 0.2, 100) == (0.0, 1.0)
