"""Every formula of the ablations against simulation: what is claimed with 95 % holds in 95 %."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hirelab._shared.errors import HirelabError
from hirelab.ablation.statistics import (
    agreement,
    difference_over_images,
    differences,
    excess_spread,
    holm_corrected,
    independent_spread,
    pool,
    verdicts,
)
from hirelab.ablation.tables import Contrast, better


def draw(generator, means, counts, deviation=0.4):
    return {
        name: mean + deviation * generator.standard_normal(counts[name])
        for name, mean in means.items()
    }


def within(share, expected, trials):
    """Whether a share of trials is one that the expected probability gives (4 deviations)."""
    return abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / trials)


def test_the_pooled_deviation_is_the_root_of_the_mean_variance():
    generator = np.random.default_rng(0)
    samples = {str(i): generator.normal(i, 0.5, 4) for i in range(30)}
    pooled = pool(samples)
    variances = [np.var(v, ddof=1) for v in samples.values()]
    assert pooled.deviation == pytest.approx(np.sqrt(np.mean(variances)))
    assert pooled.freedom == 90
    assert np.isnan(pool({"a": [1.0], "b": [2.0]}).deviation)


def test_intervals_are_those_of_scipy_with_its_own_search():
    generator = np.random.default_rng(5)
    means, counts = {"default": 80.0, "a": 79.0, "b": 80.4}, {"default": 9, "a": 2, "b": 4}
    samples = draw(generator, means, counts)
    found = differences(samples, "default")
    theirs = stats.dunnett(samples["a"], samples["b"], control=samples["default"])
    theirs = theirs.confidence_interval(0.95)
    np.testing.assert_allclose([d.low for d in found], theirs.low, atol=0.01)
    np.testing.assert_allclose([d.high for d in found], theirs.high, atol=0.01)


def test_all_intervals_together_hold_the_truth_as_often_as_they_say():
    generator = np.random.default_rng(1)
    means = {"default": 80.0, "a": 79.0, "b": 80.0, "c": 80.5, "d": 78.0}
    counts = {"default": 9, "a": 3, "b": 3, "c": 3, "d": 3}
    trials = 150
    held = 0
    for _ in range(trials):
        found = differences(draw(generator, means, counts), "default")
        held += all(d.low <= means[d.name] - 80.0 <= d.high for d in found)
    assert within(held / trials, 0.95, trials)


def test_two_groups_are_a_t_test():
    generator = np.random.default_rng(2)
    samples = {"default": generator.normal(80, 1, 6), "a": generator.normal(81, 1, 5)}
    (found,) = differences(samples, "default")
    expected = stats.ttest_ind(samples["a"], samples["default"]).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)
    verdict = verdicts([better("a wins", "a", "default")], samples)[0]
    one_sided = stats.ttest_ind(samples["a"], samples["default"], alternative="greater")
    assert verdict.p == pytest.approx(one_sided.pvalue)
    assert (verdict.low, verdict.high) == pytest.approx((expected.low, expected.high))


def test_verdicts_are_wrong_no_more_often_than_they_say():
    """All contrasts false by nothing at all: hardly ever is any of them confirmed."""
    generator = np.random.default_rng(3)
    names = "abcdef"
    claims = [better(f"{x} wins", x, "f") for x in names[:-1]]
    trials = 1000
    any_confirmed = any_contradicted = 0
    for _ in range(trials):
        samples = draw(generator, dict.fromkeys(names, 80.0), dict.fromkeys(names, 3))
        words = {v.word for v in verdicts(claims, samples)}
        any_confirmed += "confirmed" in words
        any_contradicted += "contradicted" in words
    for count in (any_confirmed, any_contradicted):
        assert count / trials < 0.05 + 4 * np.sqrt(0.05 * 0.95 / trials)
        assert count / trials > 0.02  # correlated contrasts make Holm careful, not mute


def test_the_smallest_resolvable_difference_is_resolved_four_times_in_five():
    generator = np.random.default_rng(4)
    counts, spread, trials = {"a": 3, "b": 9, "c": 30}, 0.4, 1500
    law = stats.t(39)
    expected = (law.ppf(0.95) + law.ppf(0.8)) * spread * np.sqrt(1 / 3 + 1 / 9)
    confirmed, said = 0, []
    for _ in range(trials):
        means = {"a": 80 + expected, "b": 80.0, "c": 80.0}
        (verdict,) = verdicts([better("a wins", "a", "b")], draw(generator, means, counts, spread))
        confirmed += verdict.word == "confirmed"
        said.append(verdict.resolvable)
    assert np.mean(said) == pytest.approx(expected, rel=0.02)
    assert confirmed / trials == pytest.approx(0.8, abs=0.05)


def test_a_margin_moves_the_question_and_a_clear_loss_contradicts():
    samples = {"a": [79.0, 79.05, 78.95], "b": [79.3, 79.35, 79.25]}
    within_half, strict = verdicts(
        [better("no more than half a point worse", "a", "b", 0.5), better("better", "a", "b")],
        samples,
    )
    assert (within_half.word, strict.word) == ("confirmed", "contradicted")
    assert strict.estimate == pytest.approx(-0.3)


def test_an_interaction_is_a_contrast_of_four():
    four = Contrast("more", {"p": 1.0, "q": -1.0, "r": -1.0, "s": 1.0})
    samples = {"p": [5.0, 5.2], "q": [3.0, 3.2], "r": [4.0, 4.2], "s": [3.5, 3.7]}
    (verdict,) = verdicts([four], samples)
    assert verdict.estimate == pytest.approx(2.0 - 0.5)
    half = stats.t(4).ppf(0.975) * np.sqrt(0.02) * np.sqrt(4 / 2)
    assert verdict.high - verdict.estimate == pytest.approx(half)


def test_holm_is_what_the_definition_gives():
    assert holm_corrected([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm_corrected([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm_corrected([]) == []


def test_independent_errors_spread_as_much_as_is_said():
    generator = np.random.default_rng(5)
    chance = generator.beta(3, 1, 3000)
    trainings = generator.random((400, 3000)) < chance
    expected = 100 * np.sqrt((chance * (1 - chance)).sum()) / 3000
    assert independent_spread(trainings) == pytest.approx(expected, rel=0.01)
    assert np.mean([independent_spread(trainings[i : i + 2]) for i in range(0, 400, 2)]) == (
        pytest.approx(expected, rel=0.01)
    )
    assert trainings.mean(1).std(ddof=1) * 100 == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("whole", [0.0, 0.02])
def test_the_interval_over_images_holds_for_other_images_and_other_trainings(whole):
    generator = np.random.default_rng(6)
    trials, images, held, truth = 400, 400, 0, 100 * 0.05 * (1 - 2 / 3)
    for _ in range(trials):
        hard = generator.beta(2, 1, images)  # the images are new in every trial
        cells = []
        for gain in (0.05, 0.0):  # one design is better by 5 % of the chance that is left
            chance = hard + gain * (1 - hard)
            level = whole * generator.standard_normal((4, 1))  # trainings differ as a whole
            cells.append(generator.random((4, images)) < chance + level)
        low, high = difference_over_images(*cells, excess=100 * whole, resamples=300, seed=1)
        held += low <= truth <= high
    assert within(held / trials, 0.95, trials)


def test_the_excess_spread_is_what_trainings_differ_by_as_a_whole():
    generator = np.random.default_rng(8)
    for whole in (0.0, 1.5):
        answers = []
        for _ in range(60):
            chance = generator.beta(4, 2, 1000) * 0.9
            level = whole / 100 * generator.standard_normal((4, 1))
            answers.append(generator.random((4, 1000)) < np.clip(chance + level, 0, 1))
        assert excess_spread(answers) == pytest.approx(whole, abs=0.4)
    assert excess_spread([np.ones((1, 5), bool)]) == 0.0


def test_agreement_is_kendalls_tau_b_in_one_table_and_pools_several():
    one = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    seen = {"a": [1.0], "b": [3.0], "c": [2.0], "d": [2.0]}
    found = agreement([one], seen, draws=200)
    expected = stats.kendalltau([1, 2, 3, 4], [1, 3, 2, 2]).statistic
    assert found.tau == pytest.approx(expected)
    right = {name: [value] for name, value in one.items()}
    other = {f"{name}'": value for name, value in one.items()}
    both = agreement([one, other], right | {n: [-v] for n, v in other.items()}, draws=200)
    assert both.tau == pytest.approx(0.0)  # all pairs of one agree, all of the other do not
    perfect = agreement([one, other], right | {n: [v] for n, v in other.items()}, draws=2000)
    # 24 orders a table: both right in 1 of 576
    assert perfect.p == pytest.approx(1 / 576, abs=0.003)
    assert np.isnan([*perfect.ceiling, perfect.low, perfect.high]).all()  # no spread is known
    equal = agreement([one], {name: [1.0, 2.0] for name in one})
    assert np.isnan([equal.tau, equal.p]).all()


def test_a_cell_of_two_tables_has_one_noise():
    paper = {"a": 1.0, "b": 1.1}
    seen = {"a": [0.0, 2.0], "b": [0.1, 2.1], "else": [5.0, 5.0, 5.0]}
    eight = agreement([paper] * 8, seen)
    # were the tables independent, all eight would hardly ever be wrong, or right, together
    assert eight.ceiling[0] == -1.0
    assert eight.ceiling[2] == 1.0


def test_the_ceiling_is_what_the_papers_own_order_would_show():
    generator = np.random.default_rng(7)
    paper = {"a": 80.95, "b": 81.04, "c": 81.33, "d": 81.58, "e": 81.51, "f": 81.69}
    taus, ceilings = [], []
    for _ in range(60):
        seen = {name: value + 0.3 * generator.standard_normal(3) for name, value in paper.items()}
        found = agreement([paper], seen, draws=100)
        taus.append(found.tau)
        ceilings.append(found.ceiling[1])
        assert found.ceiling[0] <= found.ceiling[1] <= found.ceiling[2]
    assert np.mean(taus) == pytest.approx(np.mean(ceilings), abs=0.08)
    assert np.mean(ceilings) < 0.9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pool({}), "no accuracy of any cell"),
        (lambda: pool({"a": []}), "no accuracy of a"),
        (lambda: differences({"a": [1.0, 2.0]}, "default"), "no accuracy of 'default'"),
        (lambda: differences({"a": [1.0], "b": [2.0]}, "b"), "No cell has two seeds"),
        (lambda: verdicts([better("x", "a", "z")], {"a": [1.0, 2.0]}), "needs z"),
        (lambda: agreement([{"a": 1.0}], {"b": [1.0]}), "no accuracy of 'a'"),
        (
            lambda: difference_over_images(np.ones((2, 3), bool), np.ones((2, 4), bool), 0),
            "answered 3 images and the default 4",
        ),
    ],
)
def test_what_cannot_be_computed_is_said(call, message):
    with pytest.raises(HirelabError, match=message):
        call()


def test_seeds_that_agree_to_the_digit_leave_no_doubt():
    samples = {"a": [80.0, 80.0], "b": [79.0, 79.0], "c": [80.0, 80.0]}
    asked = [better("more", "a", "b"), better("less", "b", "a"), better("as much", "a", "c")]
    found = verdicts(asked, samples)
    assert [one.word for one in found] == ["confirmed", "contradicted", "not resolved"]
    assert found[2].p == 0.5
