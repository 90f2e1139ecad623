"""Intervals and tests that several rooms use, on scipy, named by the question they answer."""

from __future__ import annotations

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


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation of two arrays of equal size; NaN where one is constant."""
    from scipy import stats

    one, other = np.ravel(np.asarray(first)), np.ravel(np.asarray(second))
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(stats.spearmanr(one, other).statistic)


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
