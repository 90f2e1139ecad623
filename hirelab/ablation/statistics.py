"""What trained networks say about designs: spreads, intervals, contrasts and rank agreement.

Two questions are kept apart. *Another training, the same images*: how far a cell's mean would move
if its networks were trained again; its noise is the spread over seeds, pooled over all cells,
because a cell has few seeds and the cells' spreads differ little. *Other images too*: how far it
would move with other validation images as well; answered by a bootstrap over images and seeds.

The pooled model: the accuracies of a cell are normal around its mean with one variance for all
cells. Everything is in percentage points of top-1. Distributions and Dunnett's intervals are
scipy's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize, special, stats

from .._shared.errors import HirelabError
from .tables import Contrast

Samples = Mapping[str, Sequence[float] | np.ndarray]
"""{name of a cell or row: top-1 in percent, one number per seed}."""


@dataclass(frozen=True)
class Pooled:
    """Means with one standard deviation for all cells.

    Attributes:
        means, counts: of every name: mean over seeds, and how many seeds.
        deviation: pooled standard deviation of one training, NaN without any repeated cell.
        freedom: its degrees of freedom.
    """

    means: dict[str, float]
    counts: dict[str, int]
    deviation: float
    freedom: int


def pool(samples: Samples) -> Pooled:
    """Pool the spread over seeds of all cells.

    Raises:
        HirelabError: for a cell without any accuracy, or none at all.
    """
    empty = [name for name, values in samples.items() if not len(values)]
    if empty or not samples:
        what = ", ".join(empty) or "any cell"
        raise HirelabError(f"There is no accuracy of {what}; give at least one seed of each cell.")
    arrays = {name: np.asarray(values, dtype=float) for name, values in samples.items()}
    squares = sum(float(((a - a.mean()) ** 2).sum()) for a in arrays.values())
    freedom = sum(len(a) - 1 for a in arrays.values())
    return Pooled(
        {name: float(a.mean()) for name, a in arrays.items()},
        {name: len(a) for name, a in arrays.items()},
        float(np.sqrt(squares / freedom)) if freedom else float("nan"),
        freedom,
    )


def independent_spread(correct: np.ndarray) -> float:
    """Standard deviation of top-1 (points) over seeds, were errors independent between images.

    Args:
        correct: bool (seeds, images), at least two seeds: what each network got right.

    Each image is right in a share p of trainings; independent images add up p (1 - p), whose
    unbiased estimate from n seeds has n / (n - 1). A seen spread above it says that trainings
    differ as a whole and not only image by image.
    """
    seeds, images = correct.shape
    share = correct.mean(axis=0)
    return float(100 * np.sqrt((share * (1 - share)).sum() * seeds / (seeds - 1)) / images)


@dataclass(frozen=True)
class Difference:
    """A cell's mean minus the default's (points), with the simultaneous interval of all cells."""

    name: str
    value: float
    low: float
    high: float


def differences(samples: Samples, default: str, confidence: float = 0.95) -> list[Difference]:
    """Every cell against the default: Dunnett's simultaneous intervals, pooled variance.

    All intervals together hold the true differences with probability ``confidence``, for another
    training on the same images.

    Raises:
        HirelabError: the default has no accuracy, or no cell was trained twice.
    """
    if default not in samples:
        raise HirelabError(f"There is no accuracy of {default!r}, which the others are held to.")
    pooled = pool(samples)
    if not pooled.freedom:
        raise HirelabError("No cell has two seeds, so there is no spread; train a second seed.")
    others = {name: values for name, values in samples.items() if name != default}
    if not others:
        return []
    counts = tuple(pooled.counts[name] for name in others)
    reach = _critical(counts, pooled.counts[default], confidence) * pooled.deviation
    halves = [reach * np.sqrt(1 / count + 1 / pooled.counts[default]) for count in counts]
    gaps = [pooled.means[name] - pooled.means[default] for name in others]
    return [
        Difference(name, gap, gap - half, gap + half)
        for name, gap, half in zip(others, gaps, halves, strict=True)
    ]


@lru_cache(maxsize=64)
def _critical(counts: tuple[int, ...], control: int, confidence: float) -> float:
    """Dunnett's two-sided critical value: half an interval, in standard errors of its difference.

    It depends on how many seeds there are and not on what came of them. Given the control's error
    and the pooled spread the differences are independent, so the law of the largest of them is an
    integral over these two (Dunnett 1955), here by Gauss's rules.
    scipy.stats.dunnett, which a test compares, takes seconds with 20 cells for its search by
    simulation.
    """
    freedom = sum(counts) + control - len(counts) - 1
    sizes, times = np.unique(counts, return_counts=True)
    shared = np.sqrt(sizes / (sizes + control))  # of an error, what the control's part is
    error, error_weights = np.polynomial.hermite_e.hermegauss(64)
    level, spread_weights = np.polynomial.legendre.leggauss(64)
    spread = np.sqrt(stats.chi2(freedom).ppf((level + 1) / 2) / freedom)
    weights = np.outer(spread_weights / 2, error_weights / error_weights.sum())
    own = np.sqrt(1 - shared**2)

    def held(critical: float) -> float:
        """Probability that no difference is larger than so many of its standard errors."""
        bound = critical * spread[:, None, None]
        middle = shared * error[:, None]
        inside = special.ndtr((bound + middle) / own) - special.ndtr((middle - bound) / own)
        return float((weights * (inside**times).prod(-1)).sum())

    return float(optimize.brentq(lambda c: held(c) - confidence, 1e-3, 1e3))


def excess_spread(answers: Sequence[np.ndarray]) -> float:
    """Standard deviation (points) of a training as a whole: what independent errors do not explain.

    Args:
        answers: for each cell bool (seeds, images); cells of one seed say nothing and are skipped.

    Variances are pooled over the cells; 0 where the seen spread is no larger than what
    `independent_spread` gives.
    """
    several = [one for one in answers if len(one) > 1]
    if not several:
        return 0.0
    weights = np.array([len(one) - 1 for one in several])
    seen = np.array([(100 * one.mean(axis=1)).var(ddof=1) for one in several])
    expected = np.array([independent_spread(one) ** 2 for one in several])
    return float(np.sqrt(max(0.0, ((seen - expected) * weights).sum() / weights.sum())))


def difference_over_images(
    cell: np.ndarray,
    default: np.ndarray,
    excess: float,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of the difference of mean top-1 (points) for other trainings and other images too.

    A bootstrap draws images, once for both cells, because both answered the same ones; with each
    image come the independent errors of all trainings on it. What trainings differ by as a whole is
    added to every draw from a normal law. (Drawing seeds as well would count independent errors
    twice, and few seeds drawn with replacement spread too little.)

    Args:
        cell, default: bool (seeds, images) of what each network got right, on the same images.
        excess: `excess_spread` of all cells.
    """
    if cell.shape[1] != default.shape[1]:
        raise HirelabError(
            f"The cell answered {cell.shape[1]} images and the default {default.shape[1]}; give "
            "answers to the same ones."
        )
    generator = np.random.default_rng(seed)
    images = cell.shape[1]
    gain = 100 * (cell.mean(axis=0) - default.mean(axis=0))
    # few differences are possible, so the draws are counted: how many images have each of them
    values, counts = np.unique(gain, return_counts=True)
    drawn = generator.multinomial(images, counts / images, resamples) @ values / images
    drawn += (
        excess * np.sqrt(1 / len(cell) + 1 / len(default)) * generator.standard_normal(resamples)
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return float(low), float(high)


# ------------------------------------------------------------------ contrasts


@dataclass(frozen=True)
class Verdict:
    """What the trained networks say of a `Contrast`.

    Attributes:
        estimate: the weighted sum of means (points); ``low`` and ``high`` its own 95 % interval.
        p: one-sided, that the statement looks so right by chance; ``p_holm`` after Holm's
            correction for all contrasts asked together.
        word: "confirmed", "contradicted" (the opposite holds, as surely) or "not resolved".
        resolvable: the smallest excess over ``-margin`` that so many seeds would have confirmed
            in 80 of 100 experiments, had it been the only question.
    """

    contrast: Contrast
    estimate: float
    low: float
    high: float
    p: float
    p_holm: float
    word: str
    resolvable: float


def verdicts(
    contrasts: Sequence[Contrast], samples: Samples, level: float = 0.05, power: float = 0.8
) -> list[Verdict]:
    """Judge contrasts by the pooled spread, with Holm's correction over all of them.

    The opposite of each contrast is tested as well and corrected alike, so that a statement is
    called contradicted no more lightly than confirmed.

    Raises:
        HirelabError: a row of a contrast has no accuracy, or no cell has two seeds.
    """
    pooled = pool(samples)
    if not pooled.freedom:
        raise HirelabError("No cell has two seeds, so there is no spread; train a second seed.")
    rows = []
    for contrast in contrasts:
        missing = [name for name in contrast.weights if name not in samples]
        if missing:
            raise HirelabError(
                f"The contrast {contrast.claim!r} needs {', '.join(missing)}, which no network was "
                "trained for."
            )
        estimate = sum(w * pooled.means[name] for name, w in contrast.weights.items())
        spread = pooled.deviation * np.sqrt(
            sum(w**2 / pooled.counts[name] for name, w in contrast.weights.items())
        )
        rows.append((contrast, estimate, float(spread)))
    law = stats.t(pooled.freedom)
    ratios = [_in_errors(e + c.margin, s) for c, e, s in rows]
    p_for = [float(law.sf(ratio)) for ratio in ratios]
    p_against = [float(law.cdf(ratio)) for ratio in ratios]
    found = []
    for (contrast, estimate, spread), p, holm, opposite in zip(
        rows, p_for, holm_corrected(p_for), holm_corrected(p_against), strict=True
    ):
        word = "confirmed" if holm < level else "contradicted" if opposite < level else ""
        half = float(law.ppf(0.975)) * spread
        reach = float(law.ppf(1 - level) + law.ppf(power)) * spread
        found.append(
            Verdict(
                contrast, estimate, estimate - half, estimate + half, p, holm,
                word or "not resolved", reach,
            )
        )  # fmt: skip
    return found


def _in_errors(value: float, error: float) -> float:
    """A value in standard errors; without any spread every value but 0 is beyond all of them."""
    if error:
        return value / error
    return math.copysign(math.inf, value) if value else 0.0


def holm_corrected(p: Sequence[float]) -> list[float]:
    """Holm's step-down corrected probabilities (1979), in the given order."""
    order = np.argsort(p)
    steps = np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in corrected]


# ------------------------------------------------------------------ agreement of ranks


@dataclass(frozen=True)
class Agreement:
    """How far our order of the rows is the paper's, table by table, pooled.

    Attributes:
        tau: Kendall's tau-b over all pairs of rows that stand in one table, -1 to 1.
        p: share of permutations within tables that agree at least as well; NaN without a tau, as
            where all rows came out equal.
        low, high: 95 % interval over seeds (parametric: means moved by the pooled spread); NaN, as
            the ceiling, where no cell has two seeds.
        ceiling: (low, mean, high) of the tau that would be seen were the paper's differences the
            truth here too, with our spread and seeds: no table of this noise could show more.
    """

    tau: float
    p: float
    low: float
    high: float
    ceiling: tuple[float, float, float]


def agreement(
    paper: Sequence[Mapping[str, float]],
    samples: Samples,
    draws: int = 2000,
    seed: int = 0,
) -> Agreement:
    """One pooled rank agreement with the paper.

    A cell that is a row of several tables has one noise in all of them.

    Args:
        paper: for each table {cell: top-1 that the paper prints}.
        samples: of every cell that a table names; the spread is pooled over all that are given.

    Raises:
        HirelabError: a cell of a table has no accuracy.
    """
    lacking = [name for table in paper for name in table if name not in samples]
    if lacking:
        raise HirelabError(
            f"There is no accuracy of {lacking[0]!r}, which the paper's tables name."
        )
    pooled = pool(samples)
    theirs = [np.array(list(table.values()), dtype=float) for table in paper]
    means = [np.array([pooled.means[name] for name in table]) for table in paper]
    place = {name: i for i, name in enumerate(samples)}
    where = [np.array([place[name] for name in table], dtype=int) for table in paper]
    error = pooled.deviation / np.sqrt([pooled.counts[name] for name in samples])
    generator = np.random.default_rng(seed)

    def noisy(values: list[np.ndarray]) -> tuple[float, float, float]:
        """2.5 % quantile, mean and 97.5 % quantile of tau when means move by their noise."""
        if not pooled.freedom:
            return (float("nan"),) * 3
        found = []
        for _ in range(draws):
            moved = error * generator.standard_normal(len(error))
            found.append(
                _pooled_tau(theirs, [v + moved[at] for v, at in zip(values, where, strict=True)])
            )
        low, high = np.quantile(found, [0.025, 0.975])
        return float(low), float(np.mean(found)), float(high)

    tau = _pooled_tau(theirs, means)
    chance = [_pooled_tau(theirs, [generator.permutation(m) for m in means]) for _ in range(draws)]
    as_good = sum(one >= tau - 1e-12 for one in chance)
    low, _, high = noisy(means)
    p = float("nan") if np.isnan(tau) else (1 + as_good) / (1 + draws)
    return Agreement(float(tau), float(p), low, high, noisy(theirs))


def _pooled_tau(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> float:
    """Kendall's tau-b whose pairs are those within each table."""
    both = one = other = 0.0
    for a, b in zip(first, second, strict=True):
        upper = np.triu_indices(len(a), 1)
        x, y = (np.sign(v[:, None] - v[None])[upper] for v in (a, b))
        both += float((x * y).sum())
        one += float(np.abs(x).sum())
        other += float(np.abs(y).sum())
    return both / np.sqrt(one * other) if one and other else float("nan")
