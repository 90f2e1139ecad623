"""Intervals and tests that several rooms use, on scipy, named by the question they answer."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike


def wilson_interval(share: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share of ``count`` independent cases, both from 0 to 1."""
    from scipy import stats

    found = stats.binomtest(round(share * count), count)
    interval = found.proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(first: int, second: int) -> float:
    """McNemar's exact test (1947): two-sided probability of so uneven a split of the cases on which
    exactly one of two classifiers is right, were both equally good. 1 where there is no case."""
    from scipy import stats

    cases = first + second
    return float(stats.binomtest(first, cases).pvalue) if cases else 1.0


TRAINING_SHARE = 0.4
"""Of an error rate, what comes back as variance over trainings; see `training_deviation`."""


def training_deviation(error: float, count: int, share: float = TRAINING_SHARE) -> float:
    """Standard deviation of an error rate over trainings with other seeds, by a rule of thumb.

    It is sqrt(share * error / count), for trainings that are long enough, on the same ``count``
    images; ``error`` and the result run from 0 to 1. Jordan (ICLR 2024, arXiv 2304.01910) derives
    a share of 0.5 for two classes, from errors that are independent between images and ensembles
    that are calibrated; 0.4 is about what his trainings on ten classes (CIFAR-10) show.
    """
    return math.sqrt(share * error / count)


def compare_trainings(
    first: float, second: float, count: int, share: float = TRAINING_SHARE
) -> tuple[float, float]:
    """(z, two-sided p) of two designs' error rates on ``count`` images, one training of each.

    The noise is `training_deviation`, estimated and not measured; z is positive where ``first`` is
    the larger one, and 0 where nothing was wrong.
    """
    from scipy import stats

    noise = math.hypot(*(training_deviation(error, count, share) for error in (first, second)))
    z = (first - second) / noise if noise else 0.0
    return float(z), float(2 * stats.norm.sf(abs(z)))


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation of two arrays of equal size; NaN where one is constant."""
    from scipy import stats

    one, other = np.ravel(np.asarray(first)), np.ravel(np.asarray(second))
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(stats.spearmanr(one, other).statistic)


def t_interval(values: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean of a few values; NaN twice for fewer than two.

    For samples that are too small for `bootstrap_interval`, which then comes out too short.
    """
    from scipy import stats

    sample = np.asarray(values, dtype=float)
    if len(sample) < 2:
        return float("nan"), float("nan")
    reach = stats.sem(sample) * stats.t.ppf((1 + confidence) / 2, len(sample) - 1)
    return float(sample.mean() - reach), float(sample.mean() + reach)


def bootstrap_interval(
    values: ArrayLike, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of (N,) values; NaN twice for fewer than two."""
    from scipy import stats

    sample = np.asarray(values, dtype=float)
    if len(sample) < 2:
        return float("nan"), float("nan")
    found = stats.bootstrap(
        (sample,), np.mean, confidence_level=confidence, n_resamples=resamples,
        method="percentile", rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
