"""Limits for few lesions: against scipy's exact tests and searches, and against drawing."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import binomtest

from melanoma_edge import exact


@st.composite
def counts(draw, most: int = 60):
    """(lost, gained, lesions) of matched answers."""
    lesions = draw(st.integers(1, most))
    lost = draw(st.integers(0, lesions))
    return lost, draw(st.integers(0, lesions - lost)), lesions


@given(st.lists(st.integers(1, 400), min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
def test_nothing_lost_in_classes_of_any_size_is_bounded_as_a_search_finds(trials):
    """Against scipy's search for the largest mean share of which nothing is seen with a chance of 2.5 %."""
    negative_logs = minimize(
        lambda x: -(1 - np.exp(-x)).mean(),
        np.full(len(trials), -np.log(0.025) / sum(trials)),
        bounds=[(0, None)] * len(trials),
        constraints={"type": "ineq", "fun": lambda x: -np.log(0.025) - np.dot(trials, x)},
        options={"maxiter": 500, "ftol": 1e-12},
    )
    assert exact.none_of_each(trials) == pytest.approx(-negative_logs.fun, rel=1e-3)


@given(st.integers(1, 500))
def test_one_class_of_which_none_was_seen_is_clopper_and_pearson(trials):
    upper = binomtest(0, trials).proportion_ci(0.95, "exact").high
    assert exact.none_of(trials) == pytest.approx(upper) and exact.none_of_each([trials]) == pytest.approx(upper)
    assert exact.none_of(0) == 1.0


@given(counts())
@settings(deadline=None)
def test_matched_limits_agree_with_both_exact_tests(case):
    """Zero is outside where McNemar's exact test says so; with one direction alone the limit is Clopper and Pearson's."""
    lost, gained, lesions = case
    low, high = exact.matched(lost, gained, lesions)
    assert -1 <= low <= (lost - gained) / lesions <= high <= 1
    assert exact.matched(gained, lost, lesions) == (-high, -low)
    if lost + gained:
        assert (low > 0 or high < 0) == (binomtest(lost, lost + gained).pvalue <= 0.05)
    if gained == 0:
        assert high == pytest.approx(binomtest(lost, lesions).proportion_ci(0.95, "exact").high, abs=1e-7)


@given(counts(20), st.floats(0, 1) | st.floats(-9, 0).map(lambda power: 10**power))
@example((0, 0, 1), 1e-5)
@settings(deadline=None)
def test_losing_more_or_gaining_less_moves_no_limit_down_in_whole_lesions_or_parts(case, part):
    lost, gained, lesions = case
    found = exact.matched(lost, gained, lesions)
    others = lesions - lost - gained
    for worse in ((lost + part * others, gained), (lost, gained * part), (lost + part * gained, gained - part * gained)):
        assert all(after >= before - 1e-6 for before, after in zip(found, exact.matched(*worse, lesions)))


@given(counts(20), st.integers(2, 5))
@settings(deadline=None)
def test_more_lesions_of_the_same_shares_bring_the_limits_closer(case, times):
    lost, gained, lesions = case
    (low, high), (nearer_low, nearer_high) = exact.matched(lost, gained, lesions), exact.matched(lost * times, gained * times, lesions * times)
    assert nearer_high - nearer_low < high - low


@pytest.mark.parametrize(("lost", "gained", "lesions"), [(2, 1, 66), (20, 10, 300), (3, 1, 4), (5, 5, 10)])
def test_matched_limits_are_quantiles_of_the_published_distributions(lost, gained, lesions):
    rng = np.random.default_rng(0)
    upper = rng.dirichlet([lost + 1, gained, max(lesions - lost - gained, 1e-9)], 400_000)
    lower = rng.dirichlet([lost, gained + 1, max(lesions - lost - gained, 1e-9)], 400_000)
    expected = np.quantile(lower[:, 0] - lower[:, 1], 0.025), np.quantile(upper[:, 0] - upper[:, 1], 0.975)
    assert exact.matched(lost, gained, lesions) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("lesions", [3, 10, 40])
@pytest.mark.parametrize(("lost", "gained"), [(0.0, 0.0), (0.02, 0.02), (0.1, 0.02), (0.3, 0.0), (0.5, 0.5), (0.9, 0.1), (0.3, 0.25)])
def test_the_truth_is_missed_on_either_side_at_most_as_often_as_said(lesions, lost, gained):
    """Every outcome, weighted by how likely it is."""
    missed = np.zeros(2)
    log_factorial = np.concatenate([[0], np.cumsum(np.log(np.arange(1, lesions + 1)))])
    with np.errstate(divide="ignore", invalid="ignore"):
        log_shares = np.log([lost, gained, 1 - lost - gained])
    for b in range(lesions + 1):
        for c in range(lesions + 1 - b):
            whole = np.array([b, c, lesions - b - c])
            if np.isneginf(log_shares[whole > 0]).any():
                continue
            chance = np.exp(log_factorial[lesions] - log_factorial[whole].sum() + (whole * np.where(whole > 0, log_shares, 0)).sum())
            if chance > 1e-9:
                low, high = exact.matched(b, c, lesions)
                missed += chance * np.array([lost - gained < low - 1e-9, lost - gained > high + 1e-9])
    assert missed.max() <= 0.025 + 1e-6


@given(st.integers(1, 60).flatmap(lambda lesions: st.tuples(st.integers(0, lesions), st.just(lesions))), st.integers(1, 9))
@settings(deadline=None)
def test_the_limits_of_a_share_are_clopper_and_pearsons_and_photographs_of_a_lesion_add_nothing(case, photographs):
    found, lesions = case
    expected = binomtest(found, lesions).proportion_ci(method="exact")
    successes, names = np.arange(lesions) < found, np.arange(lesions)
    assert exact.share(successes, names) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert exact.share(np.repeat(successes, photographs), np.repeat(names, photographs)) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=20))
@settings(deadline=None)
def test_lesions_of_unequal_size_prove_less_than_their_number(lesions):
    sizes = np.array([size for size, _ in lesions])
    successes, names = np.repeat([found for _, found in lesions], sizes), np.repeat(np.arange(len(lesions)), sizes)
    low, high = exact.share(successes, names)
    assert 0 <= low <= successes.mean() <= high <= 1
    as_if_single = exact.share(successes, np.arange(len(successes)))
    assert low <= as_if_single[0] + 1e-12 and high >= as_if_single[1] - 1e-12


def test_a_share_of_lesions_that_were_photographed_unevenly_is_missed_no_more_often_than_said():
    """One lesion of ten photographs beside 15 of one: all photographs of a lesion say the same, which is the worst case."""
    random, sizes = np.random.default_rng(4), np.array([10] + [1] * 15)
    names, missed = np.repeat(np.arange(16), sizes), 0
    for _ in range(600):
        low, high = exact.share(np.repeat(random.random(16) < 0.7, sizes), names)
        missed += not low <= 0.7 <= high
    assert missed <= 0.05 * 600
