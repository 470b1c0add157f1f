"""The figures and their intervals: against scikit-learn, against repetition, and in simulation."""

import time
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from melanoma_edge import calibration, exact, metrics, resampling
from melanoma_edge.contract import Abstention, Decision, Interval, Threshold
from melanoma_edge.errors import BadInput
from melanoma_edge.paired import paired_decisions, paired_losses, recall_change

UNDEFINED = Interval(value=None, low=None, high=None)
NAMES = ("melanoma", "naevus", "wart", "keratosis", "angioma")


@st.composite
def cases(draw):
    """Probabilities with many ties (small counts, normalized), labels and a number of classes."""
    k = draw(st.integers(2, 5))
    n = draw(st.integers(1, 40))
    counts = draw(st.lists(st.lists(st.integers(0, 3), min_size=k, max_size=k), min_size=n, max_size=n))
    counts = np.array(counts, dtype=float) + [[0.5] + [0.0] * (k - 1)]
    labels = np.array(draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n)))
    return counts / counts.sum(axis=1, keepdims=True), labels, k


def random_case(n=300, k=4, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, k, n)
    logits = generator.normal(size=(n, k)) + 1.2 * np.eye(k)[labels]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


def values(probabilities, labels, k, positive_class="melanoma"):
    return metrics.scores(probabilities, labels, NAMES[:k], positive_class, replicates=0)


def reference_sensitivity(is_positive, score, specificity):
    false, true, _ = roc_curve(is_positive, score, drop_intermediate=False)
    return true[1 - false >= specificity - 1e-12].max()


def check_against_sklearn(probabilities, labels, k):
    got = values(probabilities, labels, k)
    predicted = probabilities.argmax(axis=1)
    present = sorted(set(labels))
    assert got.accuracy.value == pytest.approx(accuracy_score(labels, predicted))
    # balanced_accuracy_score warns about classes that are predicted only; this is its definition
    assert got.balanced_accuracy.value == pytest.approx(recall_score(labels, predicted, labels=present, average="macro"))
    assert got.macro_f1.value == pytest.approx(f1_score(labels, predicted, labels=present, average="macro", zero_division=0))
    for index in range(k):
        recall = recall_score(labels, predicted, labels=[index], average=None)[0] if index in present else None
        assert got.recall[NAMES[index]].value == pytest.approx(recall)
        assert got.per_class[NAMES[index]] == (labels == index).sum()
    rankable = [index for index in present if len(present) > 1]
    aucs = {index: roc_auc_score(labels == index, probabilities[:, index]) for index in rankable}
    assert got.macro_auc.value == (pytest.approx(np.mean(list(aucs.values()))) if aucs else None)
    assert got.positive_auc.value == (pytest.approx(aucs[0]) if 0 in aucs else None)
    assert list(got.positive_auc_against) == list(NAMES[1:k])
    for index in range(1, k):
        both = (labels == 0) | (labels == index)
        known = 0 in aucs and index in present
        auc = roc_auc_score(labels[both] == 0, probabilities[both, 0]) if known else None
        assert got.positive_auc_against[NAMES[index]].value == (pytest.approx(auc) if known else None)
    for specificity, sensitivity in ((0.8, got.positive_sensitivity_at_80_specificity), (0.9, got.positive_sensitivity_at_90_specificity)):
        expected = pytest.approx(reference_sensitivity(labels == 0, probabilities[:, 0], specificity)) if 0 in aucs else None
        assert sensitivity.value == expected


@settings(deadline=None, max_examples=40)
@given(cases())
def test_figures_equal_sklearn_with_ties(case):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        check_against_sklearn(*case)


@pytest.mark.parametrize("k", [2, 5])
def test_figures_equal_sklearn_on_random_data(k):
    check_against_sklearn(*random_case(500, k, seed=k), k)


def shares(k: int) -> st.SearchStrategy[list[float]]:
    """Priors of k classes, which need not add up to anything."""
    return st.lists(st.floats(0.001, 10), min_size=k, max_size=k)


@settings(deadline=None, max_examples=80)
@given(cases(), st.data())
def test_a_weight_is_a_repetition(case, data):
    probabilities, labels, k = case
    times = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(labels), max_size=len(labels)).filter(any)))
    priors = np.array(data.draw(shares(k)))
    weighted = metrics.Figures(probabilities, labels, 0, priors)(times[np.newaxis].astype(float))
    repeated = metrics.Figures(np.repeat(probabilities, times, axis=0), np.repeat(labels, times), 0, priors)(np.ones((1, times.sum())))
    assert weighted.keys() == repeated.keys() and "ece_at_priors" in weighted
    for name, value in weighted.items():
        assert value == pytest.approx(repeated[name], nan_ok=True), name


def test_sensitivity_at_specificity_is_exact_on_the_boundary():
    """Two of ten negatives may pass at 80 %; the third shares its score with a positive."""
    score = np.array([0.95, 0.9, 0.9, 0.8, 0.8, *[0.1] * 7, 0.05])
    is_positive = np.array([True, False, False, False, True, *[False] * 7, True])
    got = values(np.column_stack([score, 1 - score]), np.where(is_positive, 0, 1), 2)
    assert got.positive_sensitivity_at_80_specificity.value == pytest.approx(1 / 3)
    assert got.positive_sensitivity_at_90_specificity.value == pytest.approx(1 / 3)
    score[3] = 0.1  # now the positive at 0.8 is free
    got = values(np.column_stack([score, 1 - score]), np.where(is_positive, 0, 1), 2)
    assert got.positive_sensitivity_at_80_specificity.value == pytest.approx(2 / 3)


def test_ece_by_hand_and_its_bins():
    probabilities = np.array([[0.9, 0.1], [0.92, 0.08], [0.4, 0.6], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])
    assert values(probabilities, labels, 2).ece.value == pytest.approx((abs(0.9 + 0.92 - 1) + abs(1.2 - 2)) / 4)
    bins = metrics.reliability(probabilities, labels)
    assert bins["count"].tolist() == [0] * 8 + [2] + [0] * 4 + [2, 0]
    assert bins["confidence"][[8, 13]] == pytest.approx([0.6, 0.91])
    assert bins["accuracy"][[8, 13]] == pytest.approx([1.0, 0.5])
    assert np.isnan(bins["accuracy"][0]) and np.isnan(bins["confidence"][0])


def test_ece_is_the_sum_over_the_bins():
    probabilities, labels = random_case()
    bins = metrics.reliability(probabilities, labels)
    gap = np.nansum(bins["count"] * np.abs(bins["accuracy"] - bins["confidence"])) / bins["count"].sum()
    assert values(probabilities, labels, 4).ece.value == pytest.approx(gap)
    assert len(metrics.reliability(probabilities, labels, bins=7)["count"]) == 7


# --- at the deployment priors


@settings(deadline=None, max_examples=60)
@given(cases(), st.data())
def test_at_the_pictures_own_mix_both_calibration_errors_are_one(case, data):
    """Whatever the priors add up to, and whatever they say of classes that are not there."""
    probabilities, labels, k = case
    mix = np.bincount(labels, minlength=k) * data.draw(st.floats(0.01, 100))
    priors = np.where(mix > 0, mix, data.draw(shares(k)))
    got = metrics.scores(probabilities, labels, NAMES[:k], "melanoma", priors=priors, replicates=0)
    assert got.ece_at_priors.value == pytest.approx(got.ece.value, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(cases(), st.data())
def test_classes_are_weighted_as_if_their_pictures_stood_there_so_often(case, data):
    probabilities, labels, k = case
    times = np.array(data.draw(st.lists(st.integers(1, 5), min_size=k, max_size=k)))
    priors = np.maximum(np.bincount(labels, minlength=k) * times, 1)
    got = metrics.scores(probabilities, labels, NAMES[:k], "melanoma", priors=priors / priors.sum(), replicates=0)
    repeated = values(np.repeat(probabilities, times[labels], axis=0), np.repeat(labels, times[labels]), k)
    assert got.ece_at_priors.value == pytest.approx(repeated.ece.value, abs=1e-12)
    assert got.model_copy(update={"ece_at_priors": None}) == values(probabilities, labels, k), "priors change another figure"


@settings(deadline=None, max_examples=30)
@given(cases(), st.data())
def test_the_calibration_error_at_priors_weighs_pictures_as_the_temperature_is_fitted(case, data):
    """By hand, with the weights of the fit: each class found in its share, divided evenly among its pictures."""
    probabilities, labels, k = case
    priors = np.array(data.draw(shares(k)))
    weights = (priors / np.maximum(np.bincount(labels, minlength=k), 1))[labels]
    weights /= weights.sum()
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.digitize(confidence, np.linspace(0, 1, 16)[1:-1], right=True)
    expected = sum(abs(weights[bins == one] @ (confidence - correct)[bins == one]) for one in range(15))
    got = metrics.scores(probabilities, labels, NAMES[:k], "melanoma", priors=priors, replicates=0)
    assert got.ece_at_priors.value == pytest.approx(expected, abs=1e-9)


def test_probabilities_that_are_perfect_at_their_priors_are_so_on_pictures_of_another_mix():
    """The exact posterior of two normal distributions, one class in ten, on as many pictures of each."""
    generator, priors = np.random.default_rng(2), np.array([0.1, 0.9])
    labels = np.arange(40_000) % 2
    x = generator.normal(size=len(labels)) + 1.5 * (labels == 0)
    odds = np.column_stack([priors[0] * norm.pdf(x - 1.5), priors[1] * norm.pdf(x)])
    got = metrics.scores(odds / odds.sum(axis=1, keepdims=True), labels, NAMES[:2], "melanoma", priors=priors, replicates=100)
    assert got.ece.low > 0.15 and got.ece_at_priors.value < 0.01 and got.ece_at_priors.high < 0.015


def test_each_resample_has_the_classes_in_their_shares():
    """One lesion of the rare class: resamples that miss it are of the others, and those that hold it twice weigh it no more."""
    probabilities, labels = random_case(40, 3)
    labels[labels == 0] = 1
    labels[0] = 0
    priors = np.array([0.5, 0.3, 0.2])
    weights = np.concatenate(list(resampling.bootstrap_weights(np.arange(40), 200, 0)))
    found = metrics.Figures(probabilities, labels, 0, priors)(weights)["ece_at_priors"]
    for row, value in zip(weights.astype(int), found):
        once = np.repeat(np.arange(40), np.where(labels == 0, np.minimum(row, 1), row))
        alone = metrics.Figures(probabilities[once], labels[once], 0, priors)(np.ones((1, len(once))))["ece_at_priors"]
        assert value == pytest.approx(alone[0])
    assert np.isfinite(found).all() and 0 < (weights[:, 0] == 0).sum() < 200


@pytest.mark.parametrize("priors", [[0.5, 0.5], [0.5, 0.5, 0.0], [0.5, 0.5, -0.1], [0.5, 0.5, np.nan], [0.5, 0.5, np.inf], [[0.2, 0.3, 0.5]], 1.0])
def test_priors_that_are_not_one_a_class_are_refused(priors):
    probabilities, labels = random_case(20, 3)
    with pytest.raises(BadInput, match="found priors .*: expected 3 numbers above 0; give every class a share"):
        metrics.scores(probabilities, labels, NAMES[:3], "melanoma", priors=np.array(priors))


def test_perfect_predictor():
    labels = np.arange(60) % 3
    got = metrics.scores(np.eye(3)[labels], labels, NAMES[:3], "melanoma", replicates=50)
    for mean in (got.balanced_accuracy, got.macro_f1, got.macro_auc):
        assert (mean.value, mean.high) == (1.0, 1.0) and mean.low == pytest.approx(0.025 ** (1 / 60), abs=1e-9), "none of 60 was wrong"
    assert got.positive_auc.low == pytest.approx(got.recall["melanoma"].low, abs=1e-9)
    assert got.positive_sensitivity_at_80_specificity == got.positive_sensitivity_at_90_specificity == got.recall["melanoma"]
    for area in got.positive_auc_against.values():
        assert (area.value, area.high) == (1.0, 1.0) and area.low == pytest.approx(1 - exact.none_of(20)), "20 lesions of each of the two"
    assert all((recall.value, recall.high) == (1.0, 1.0) and recall.low == pytest.approx(0.8316, abs=1e-4) for recall in got.recall.values())
    assert got.ece == Interval(value=0.0, low=0.0, high=0.0)


@given(st.integers(2, 30), st.integers(1, 3), st.booleans())
@settings(deadline=None, max_examples=30)
def test_all_or_none_of_few_lesions_is_not_certain(lesions, pictures, right):
    """Against scipy's exact interval: as many trials as lesions of that class, however often photographed."""
    labels = np.repeat([0, 1, 2], lesions * pictures)
    said = np.where(labels == 0, 0 if right else 1, labels)
    got = metrics.scores(np.eye(3)[said], labels, NAMES[:3], "melanoma", groups=np.arange(len(labels)) // pictures, replicates=50)
    exact = binomtest(lesions if right else 0, lesions).proportion_ci(0.95, "exact")
    for found in (got.recall["melanoma"], *([got.positive_sensitivity_at_80_specificity] if right else [])):
        assert (found.value, found.low, found.high) == pytest.approx((float(right), exact.low, exact.high), abs=1e-9)
    if right:
        exact = binomtest(3 * lesions, 3 * lesions).proportion_ci(0.95, "exact")
        assert (got.accuracy.low, got.accuracy.high) == pytest.approx((exact.low, exact.high), abs=1e-9)
    else:
        assert got.accuracy.low < got.accuracy.value < got.accuracy.high  # resampled as ever


def decision_of(threshold: float, abstention: float) -> Decision:
    in_force = Threshold(rule="sensitivity", target=0.9, probability=threshold, validation_sensitivity=None, validation_specificity=None)
    return Decision(temperature=1.0, threshold=in_force, abstention=Abstention(coverage=0.9, threshold=abstention))


@given(st.lists(st.integers(0, 2), min_size=60, max_size=60))
@settings(deadline=None, max_examples=20)
def test_each_picture_can_have_a_decision_of_its_own(model_of):
    """As in out-of-fold predictions: three models, each with its threshold and its abstention."""
    probabilities, labels = random_case(60, 3)
    model_of, each = np.array(model_of), [decision_of(0.2, 0.6), decision_of(0.5, 0.4), decision_of(0.8, 0.5)]
    got = metrics.scores(probabilities, labels, NAMES[:3], "melanoma", decision=[each[model] for model in model_of], replicates=20)
    called = probabilities[:, 0] >= np.array([0.2, 0.5, 0.8])[model_of]
    answered = probabilities.max(axis=1) >= np.array([0.6, 0.4, 0.5])[model_of]
    expected = {
        "positive_sensitivity_of_decision": called[labels == 0].mean(),
        "positive_specificity_of_decision": (~called[labels != 0]).mean(),
        "coverage_of_decision": answered.mean(),
        "accuracy_of_answers": (probabilities.argmax(axis=1) == labels)[answered].mean(),
    }
    assert {name: getattr(got, name).value for name in expected} == pytest.approx(expected)
    one = metrics.scores(probabilities, labels, NAMES[:3], "melanoma", decision=each[1], replicates=20)
    assert metrics.scores(probabilities, labels, NAMES[:3], "melanoma", decision=[each[1]] * 60, replicates=20) == one


def test_decisions_that_are_not_one_a_picture_are_refused():
    probabilities, labels = random_case(60, 3)
    with pytest.raises(BadInput, match="found 2 decisions for 60 pictures: expected one, or one for each"):
        metrics.scores(probabilities, labels, NAMES[:3], "melanoma", decision=[decision_of(0.5, 0.5)] * 2, replicates=20)


def test_the_fitted_decision_is_scored_as_it_is():
    """Threshold and abstention come from elsewhere; each share by hand, and with an interval around it."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 3, 300)
    raw = np.eye(3)[labels] * 0.5 + rng.random((300, 3))
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    decision = decision_of(0.45, 0.5)
    got = metrics.scores(probabilities, labels, NAMES[:3], "melanoma", decision=decision, replicates=200)
    called, is_positive, answered = probabilities[:, 0] >= 0.45, labels == 0, probabilities.max(axis=1) >= 0.5
    expected = {
        "positive_sensitivity_of_decision": called[is_positive].mean(),
        "positive_specificity_of_decision": (~called[~is_positive]).mean(),
        "coverage_of_decision": answered.mean(),
        "accuracy_of_answers": (probabilities.argmax(axis=1) == labels)[answered].mean(),
    }
    for name, value in expected.items():
        found = getattr(got, name)
        assert found.value == pytest.approx(value) and found.low < value < found.high
    assert list(got.called_positive) == list(NAMES[1:3])
    for index in (1, 2):
        share = got.called_positive[NAMES[index]]
        assert share.value == pytest.approx(called[labels == index].mean()) and share.low < share.value < share.high
    perfect = metrics.scores(np.eye(3)[labels[:20]], labels[:20], NAMES[:3], "melanoma", decision=decision, replicates=50)
    assert perfect.accuracy_of_answers.low == perfect.coverage_of_decision.low == pytest.approx(0.025 ** (1 / 20))
    alarms = perfect.called_positive["wart"]
    assert alarms == Interval(value=0.0, low=0.0, high=exact.none_of((labels[:20] == 2).sum())) and alarms.high > 0.3, "few lesions prove little"
    without = metrics.scores(probabilities, labels, NAMES[:3], None, decision=decision, replicates=20)
    assert without.called_positive is without.positive_auc_against is None
    assert without.positive_sensitivity_of_decision is None and without.coverage_of_decision.value == pytest.approx(answered.mean())
    undecided = metrics.scores(probabilities, labels, NAMES[:3], "melanoma", replicates=20)
    assert undecided.coverage_of_decision is None and undecided.called_positive is None and undecided.positive_auc_against["wart"].value


def test_random_predictor():
    generator = np.random.default_rng(3)
    got = metrics.scores(generator.dirichlet(np.ones(4), 4000), generator.integers(0, 4, 4000), NAMES[:4], "melanoma", replicates=200)
    assert got.accuracy.low < 0.25 < got.accuracy.high
    assert got.macro_auc.low < 0.5 < got.macro_auc.high
    assert got.positive_sensitivity_at_80_specificity.value == pytest.approx(0.2, abs=0.04)


def test_the_first_class_wins_a_tie():
    got = values(np.full((2, 2), 0.5), np.array([0, 1]), 2)
    assert (got.recall["melanoma"].value, got.recall["naevus"].value) == (1.0, 0.0)


def test_absent_classes_are_undefined():
    probabilities, labels = random_case(200, 4)
    labels[labels == 0] = 1
    got = metrics.scores(probabilities, labels, NAMES[:4], "melanoma", replicates=50)
    assert got.recall["melanoma"] == got.positive_auc == UNDEFINED
    assert got.positive_sensitivity_at_80_specificity == got.positive_sensitivity_at_90_specificity == UNDEFINED
    assert got.balanced_accuracy.value == pytest.approx(np.mean([got.recall[name].value for name in NAMES[1:4]]))
    assert set(got.positive_auc_against) == set(NAMES[1:4]) and set(got.positive_auc_against.values()) == {UNDEFINED}
    labels[labels == 1] = 2
    neither = metrics.scores(probabilities, labels, NAMES[:4], "melanoma", decision=decision_of(0.3, 0.5), replicates=50)
    assert neither.positive_auc_against["naevus"] == neither.called_positive["naevus"] == UNDEFINED
    assert neither.called_positive["wart"].value == pytest.approx((probabilities[labels == 2, 0] >= 0.3).mean())
    only = values(probabilities, np.zeros(200, dtype=int), 4)
    assert only.macro_auc == only.positive_auc == only.positive_sensitivity_at_80_specificity == UNDEFINED
    assert only.recall["melanoma"].value is not None


def test_no_positive_class():
    probabilities, labels = random_case(50, 3)
    got = metrics.scores(probabilities, labels, NAMES[:3], None, replicates=20)
    assert got.positive_class is None
    assert got.positive_auc == got.positive_sensitivity_at_80_specificity == got.positive_sensitivity_at_90_specificity == UNDEFINED
    assert got.macro_auc.low is not None


def test_an_interval_needs_half_the_replicates():
    """With one positive lesion among many a resample misses it with probability 1/e: still more than half."""
    probabilities, labels = random_case(60, 2)
    labels[:] = 1
    labels[0] = 0
    got = metrics.scores(probabilities, labels, NAMES[:2], "melanoma", replicates=400)
    assert got.positive_auc.low is not None
    interval = resampling.intervals(lambda weights: {"figure": np.where(weights[:, 0] == 1, 1.0, np.nan)}, np.arange(60), 400, 0)["figure"]
    assert interval == Interval(value=1.0, low=None, high=None)


def test_one_lesion_has_no_interval():
    probabilities, labels = random_case(30, 2)
    got = metrics.scores(probabilities, labels, NAMES[:2], "melanoma", groups=np.zeros(30, dtype=int))
    assert got.lesions == 1
    assert got.accuracy.value is not None and got.accuracy.low is None and got.accuracy.high is None


def test_intervals_cover_the_truth_at_about_the_nominal_rate():
    generator = np.random.default_rng(11)
    shift, n, runs = 1.0, 150, 150
    # top-1 is "score above 0": positives N(shift, 1), negatives N(0, 1), equally many
    truths = {"accuracy": (norm.cdf(shift) + 0.5) / 2, "positive_auc": norm.cdf(shift / np.sqrt(2))}
    covered = dict.fromkeys(truths, 0)
    for run in range(runs):
        is_positive = generator.random(n) < 0.5
        score = 1 / (1 + np.exp(-(generator.normal(size=n) + shift * is_positive)))
        got = metrics.scores(np.column_stack([score, 1 - score]), np.where(is_positive, 0, 1), NAMES[:2], "melanoma", replicates=300, seed=run)
        for name, truth in truths.items():
            covered[name] += getattr(got, name).low <= truth <= getattr(got, name).high
    for name, count in covered.items():
        assert 0.89 <= count / runs <= 0.99, name


def test_clustered_intervals_of_copies_are_those_of_the_originals():
    """Copies tell nothing new: with lesions drawn whole they must not narrow the interval."""
    probabilities, labels = random_case(120, 3)
    copies = np.repeat(probabilities, 5, axis=0), np.repeat(labels, 5)
    single = metrics.scores(probabilities, labels, NAMES[:3], "melanoma", replicates=300)
    clustered = metrics.scores(*copies, NAMES[:3], "melanoma", groups=np.repeat(np.arange(120), 5), replicates=300)
    naive = metrics.scores(*copies, NAMES[:3], "melanoma", replicates=300)
    assert (clustered.pictures, clustered.lesions, naive.lesions) == (600, 120, 600)
    assert (clustered.bootstrap["unit"], naive.bootstrap["unit"]) == ("lesion", "picture")
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "positive_auc", "positive_sensitivity_at_80_specificity", "ece"):
        one, whole, apart = (getattr(figures, name) for figures in (single, clustered, naive))
        assert (whole.value, whole.low, whole.high) == pytest.approx((one.value, one.low, one.high))
        assert whole.high - whole.low > 1.6 * (apart.high - apart.low), name


def test_bootstrap_weights_are_whole_lesions_and_repeatable(monkeypatch):
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    weights = np.concatenate(list(resampling.bootstrap_weights(groups, 500, 4)))
    assert weights.shape == (500, 6)
    assert (weights[:, 0] == weights[:, 2]).all() and (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(6), abs=0.15)
    monkeypatch.setattr(resampling, "CHUNK_ENTRIES", 1)
    one_by_one = list(resampling.bootstrap_weights(groups, 500, 4))
    assert len(one_by_one) == 500
    assert (np.concatenate(one_by_one) == weights).all()


def test_seeds():
    probabilities, labels = random_case(100, 3)
    runs = [metrics.scores(probabilities, labels, NAMES[:3], None, replicates=100, seed=seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0].accuracy.value == runs[2].accuracy.value
    assert runs[0].macro_auc != runs[2].macro_auc
    assert runs[2].bootstrap == {"replicates": 100, "seed": 2, "unit": "picture"}


def test_speed_and_memory_on_a_real_size():
    probabilities, labels = random_case(1500, 9)
    groups = np.random.default_rng(0).integers(0, 1000, 1500)
    start = time.process_time()  # of this process alone, whatever else the machine does
    metrics.scores(probabilities, labels, [str(index) for index in range(9)], "0", groups=groups, priors=np.arange(1, 10))
    assert time.process_time() - start < 5  # 0.4 s on the machine it was written on
    tracemalloc.start()
    metrics.scores(probabilities, labels, [str(index) for index in range(9)], "0", groups=groups, priors=np.arange(1, 10), replicates=300)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6


def paired(reference, candidate, labels, k, **options):
    options = {"reference_threshold": 0.3, "candidate_threshold": 0.2, "replicates": 300} | options
    return paired_losses(reference, candidate, labels, NAMES[:k], "melanoma", **options)


def test_paired_losses_are_differences_of_the_figures():
    (reference, labels), (candidate, _) = random_case(seed=1), random_case(seed=2)
    losses = paired(reference, candidate, labels, 4)
    assert set(losses) == {"balanced_accuracy", "positive_sensitivity", "positive_auc"}
    before, after = values(reference, labels, 4), values(candidate, labels, 4)
    assert losses["balanced_accuracy"].value == pytest.approx(before.balanced_accuracy.value - after.balanced_accuracy.value)
    assert losses["positive_auc"].value == pytest.approx(before.positive_auc.value - after.positive_auc.value)
    found = [(probabilities[labels == 0, 0] >= threshold).mean() for probabilities, threshold in ((reference, 0.3), (candidate, 0.2))]
    assert losses["positive_sensitivity"].value == pytest.approx(found[0] - found[1])
    assert all(loss.low < loss.value < loss.high for loss in losses.values())
    reverse = paired(candidate, reference, labels, 4, reference_threshold=0.2, candidate_threshold=0.3)
    assert all(reverse[name].value == pytest.approx(-loss.value) for name, loss in losses.items())
    assert all(reverse[name].low == pytest.approx(-loss.high) for name, loss in losses.items())


def test_a_model_loses_nothing_against_itself_as_surely_as_there_are_lesions():
    probabilities, labels = random_case()
    losses = paired(probabilities, probabilities, labels, 4, candidate_threshold=0.3)
    bound = binomtest(0, (labels == 0).sum()).proportion_ci(0.95, "exact").high
    for name in ("positive_sensitivity", "positive_auc"):
        assert (losses[name].value, losses[name].low, losses[name].high) == pytest.approx((0.0, -bound, bound))
    assert losses["balanced_accuracy"].high == -losses["balanced_accuracy"].low > 0


def both_ways(reference, candidate, labels, k, **options):
    """Return the losses of `candidate` against `reference`, and the reverse, all at threshold 0.5."""
    options |= {"candidate_threshold": 0.5, "reference_threshold": 0.5, "replicates": 60}
    return paired(reference, candidate, labels, k, **options), paired(candidate, reference, labels, k, **options)


def answers(rights, labels, k):
    """Return probabilities that are right on the pictures `rights` and name the next class on the others."""
    return np.where(rights[:, np.newaxis], np.eye(k)[labels], np.eye(k)[(labels + 1) % k]) * 0.9 + 0.1 / k


@st.composite
def matched_cases(draw):
    """Answers of two models in classes of few lesions: (right before, right after, labels, number of classes)."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=2, max_size=4).filter(lambda sizes: sum(sizes) > 2))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rights = [np.array(draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels)))) for _ in "ab"]
    return *rights, labels, len(sizes)


@settings(deadline=None, max_examples=60)
@given(matched_cases())
def test_no_interval_excludes_what_so_many_lesions_allow(case):
    """Against scipy's exact binomial: where nothing moved the other way, a share lost may be as large as it says; swapping the models turns all round."""
    before, after, labels, k = case
    losses, back = both_ways(answers(before, labels, k), answers(after, labels, k), labels, k)
    for name, loss in losses.items():
        assert loss.low <= loss.value <= loss.high and loss.low < loss.high
        assert (back[name].low, back[name].high) == pytest.approx((-loss.high, -loss.low), abs=1e-9)
    farthest = []
    for label in range(k):
        members = labels == label
        lost, gained = (int((one & ~other & members).sum()) for one, other in ((before, after), (after, before)))
        share = binomtest(lost, int(members.sum())).proportion_ci(0.95, "exact").high
        farthest.append(share - (lost - gained) / members.sum() if gained == 0 else 0.0)
        if label == 0:
            found = losses["positive_sensitivity"]
            assert gained or found.high >= share - 1e-9
            if lost + gained:
                differs = binomtest(lost, lost + gained).pvalue <= 0.05
                assert differs or found.low <= 0 <= found.high, "McNemar's exact test finds no difference"
    assert losses["balanced_accuracy"].high >= losses["balanced_accuracy"].value + max(farthest) / k - 1e-9


@settings(deadline=None, max_examples=40)
@given(matched_cases(), st.data())
def test_losing_one_more_moves_no_limit_down(case, data):
    before, after, labels, k = case
    one = data.draw(st.integers(0, len(labels) - 1))
    before[one], worse = True, after.copy()
    after[one], worse[one] = True, False
    less, more = (paired(*(answers(rights, labels, k) for rights in (before, now)), labels, k, candidate_threshold=0.5, replicates=60) for now in (after, worse))
    for name in ("balanced_accuracy", "positive_sensitivity"):
        assert less[name].low <= more[name].low + 1e-9 and less[name].high <= more[name].high + 1e-9


@settings(deadline=None, max_examples=20)
@given(matched_cases())
def test_three_times_as_many_lesions_of_the_same_answers_tell_more(case):
    before, after, labels, k = case
    few = paired(answers(before, labels, k), answers(after, labels, k), labels, k)
    many = paired(*(answers(np.tile(rights, 3), np.tile(labels, 3), k) for rights in (before, after)), np.tile(labels, 3), k)
    most = paired(*(answers(np.tile(rights, 12), np.tile(labels, 12), k) for rights in (before, after)), np.tile(labels, 12), k)
    copies = paired(
        *(answers(np.tile(rights, 3), np.tile(labels, 3), k) for rights in (before, after)), np.tile(labels, 3), k, groups=np.tile(np.arange(len(labels)), 3)
    )
    for name in ("balanced_accuracy", "positive_sensitivity"):
        # Not always less: a handful of lesions of a class may still be drawn all lost, or all gained.
        assert many[name].high - many[name].low <= few[name].high - few[name].low + 1e-9
        assert most[name].high - most[name].low < few[name].high - few[name].low
        assert (copies[name].low, copies[name].high) == pytest.approx((few[name].low, few[name].high), abs=1e-9), "copies tell nothing new"


def test_few_pictures_are_not_certain_whatever_moved():
    labels = np.repeat([0, 1], 10)
    right, worse = np.ones(20, dtype=bool), np.arange(20) > 0
    gained, lost = both_ways(answers(worse, labels, 2), answers(right, labels, 2), labels, 2)
    for name in ("balanced_accuracy", "positive_sensitivity", "positive_auc"):
        assert gained[name].value < 0 and gained[name].high > 0.1, "one gained of ten leaves room for losses"
        assert lost[name].value > 0 and lost[name].low < -0.1
    # One lesion of the class that counts among 301, then two, all lost: six would be a difference, as McNemar's exact test has it.
    for positives, low in ((1, -0.95), (2, 2 * 0.025**0.5 - 1), (5, 2 * 0.025**0.2 - 1), (6, 2 * 0.025 ** (1 / 6) - 1)):
        labels = np.array([0] * positives + [1] * 300)
        before, after = answers(labels >= 0, labels, 2), answers(labels > 0, labels, 2)
        loss = both_ways(before, after, labels, 2)[0]["positive_sensitivity"]
        assert (loss.value, loss.low, loss.high) == pytest.approx((1.0, low, 1.0)) and (loss.low > 0) == (positives > 5)
    # An untouched class of two lesions stays unknown when another class loses one.
    labels = np.repeat([0, 1, 2], [2, 100, 100])
    after = np.arange(202) != 50
    found = both_ways(answers(labels >= 0, labels, 3), answers(after, labels, 3), labels, 3)[0]["balanced_accuracy"]
    assert found.high >= (1 - 0.025**0.5 + 0.01) / 3 - 1e-9 and found.low <= -(1 - 0.025**0.5) / 3 + 0.01


def test_an_auc_is_uncertain_on_the_side_to_which_nothing_moved():
    reference, labels = random_case(60, 2, seed=4)
    better = reference.copy()
    worst = np.flatnonzero(labels == 0)[reference[labels == 0, 0].argmin()]
    better[worst] = 0.99, 0.01
    gained, lost = both_ways(reference, better, labels, 2)
    bound = exact.none_of(min((labels == 0).sum(), (labels == 1).sum()))
    assert gained["positive_auc"].value < 0 < 0.5 * bound < gained["positive_auc"].high < bound
    assert lost["positive_auc"].low == pytest.approx(-gained["positive_auc"].high)
    labels = np.array([0, 0, 1, 1])
    upside_down = both_ways(np.eye(2)[labels], np.eye(2)[1 - labels], labels, 2)[0]["positive_auc"]
    assert (upside_down.value, upside_down.high) == (1.0, 1.0) and upside_down.low == pytest.approx(2 * 0.025**0.5 - 1)


def test_paired_decisions_are_differences_of_the_decisions_shares():
    (reference, labels), (candidate, _) = random_case(seed=1), random_case(seed=2)
    decisions = decision_of(0.3, 0.4), decision_of(0.2, 0.6)
    found = paired_decisions(reference, candidate, labels, NAMES[:4], "melanoma", decisions=decisions, replicates=300)
    scored = [metrics.scores(p, labels, NAMES[:4], "melanoma", decision=d, replicates=0) for p, d in zip((reference, candidate), decisions)]
    for name, score in (("positive_specificity", "positive_specificity_of_decision"), ("coverage", "coverage_of_decision")):
        before, after = (getattr(one, score).value for one in scored)
        assert found[name].value == pytest.approx(before - after) and found[name].low < found[name].value < found[name].high
    back = paired_decisions(candidate, reference, labels, NAMES[:4], "melanoma", decisions=decisions[::-1], replicates=300)
    assert all((back[name].low, back[name].high) == pytest.approx((-one.high, -one.low)) for name, one in found.items())
    everything = decision_of(0.0, 1.01)
    lost = paired_decisions(reference, reference, labels, NAMES[:4], "melanoma", decisions=(decision_of(1.01, 0.0), everything), replicates=50)
    assert all((one.value, one.high) == (1.0, 1.0) and 0.9 < one.low < 1.0 for one in lost.values())
    nothing = paired_decisions(reference, reference, labels, NAMES[:4], "melanoma", decisions=decisions[:1] * 2, replicates=50)
    assert nothing["coverage"].high == -nothing["coverage"].low == pytest.approx(exact.none_of(300))
    without = decision_of(0.3, 0.4).model_copy(update={"threshold": None})
    for positive, pair in (("melanoma", (decisions[0], without)), (None, decisions)):
        assert paired_decisions(reference, candidate, labels, NAMES[:4], positive, decisions=pair, replicates=20)["positive_specificity"] == UNDEFINED


def test_pairing_narrows_the_interval_and_lesions_widen_it():
    reference, labels = random_case(seed=1)
    candidate = 0.97 * reference + 0.03 * random_case(seed=2)[0]
    loss = paired(reference, candidate, labels, 4)["positive_auc"]
    alone = metrics.scores(reference, labels, NAMES[:4], "melanoma", replicates=300).positive_auc
    assert loss.high - loss.low < 0.5 * (alone.high - alone.low)
    copies = [np.repeat(values, 5, axis=0) for values in (reference, candidate, labels)]
    clustered = paired(*copies, 4, groups=np.repeat(np.arange(len(labels)), 5))["positive_auc"]
    assert (clustered.low, clustered.high) == pytest.approx((loss.low, loss.high))


def test_undefined_paired_losses():
    probabilities, labels = random_case()
    assert paired(probabilities, probabilities, labels, 4, candidate_threshold=None)["positive_sensitivity"] == UNDEFINED
    assert paired(probabilities, probabilities, labels, 4, reference_threshold=None)["positive_sensitivity"] == UNDEFINED
    without = paired_losses(
        probabilities, probabilities, labels, NAMES[:4], None, reference_threshold=None, candidate_threshold=None, replicates=20
    )
    assert without["positive_sensitivity"] == without["positive_auc"] == UNDEFINED
    assert without["balanced_accuracy"].value == 0.0
    absent = paired(probabilities, probabilities, np.maximum(labels, 1), 4)
    assert absent["positive_sensitivity"] == absent["positive_auc"] == UNDEFINED


def test_recall_change():
    labels = np.array([0, 0, 1, 1])
    change = recall_change(np.eye(3)[labels], np.eye(3)[[0, 2, 1, 1]], labels, NAMES[:3])
    assert change == {"melanoma": -0.5, "naevus": 0.0, "wart": None}


@settings(deadline=None, max_examples=30)
@given(cases())
def test_confusion_equals_sklearn(case):
    probabilities, labels, k = case
    predicted = probabilities.argmax(axis=1)
    assert (metrics.confusion(predicted, labels, k) == confusion_matrix(labels, predicted, labels=range(k))).all()
    assert (metrics.confusion(predicted.astype(np.uint64), labels.astype(np.uint8), k).sum(axis=1) == np.bincount(labels, minlength=k)).all()


@settings(deadline=None, max_examples=50)
@given(cases())
def test_roc_curve_equals_sklearn(case):
    probabilities, labels, _ = case
    is_positive = labels == 0
    if is_positive.all() or not is_positive.any():
        with pytest.raises(BadInput, match="positives and negatives"):
            metrics.roc_curve_points(probabilities[:, 0], is_positive)
        return
    false, true = metrics.roc_curve_points(probabilities[:, 0], is_positive)
    expected_false, expected_true, _ = roc_curve(is_positive, probabilities[:, 0], drop_intermediate=False)
    assert false == pytest.approx(expected_false)
    assert true == pytest.approx(expected_true)


GOOD = np.array([[0.5, 0.5], [0.2, 0.8]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"probabilities": np.array([[0.5, 0.5], [np.nan, 0.8]])}, "NaN"),
        ({"probabilities": np.array([[0.5, 0.5], [np.inf, 0.8]])}, "infinity"),
        ({"probabilities": np.array([[2.5, -1.5], [0.2, 0.8]])}, "softmax"),
        ({"probabilities": np.array([[3.0, 1.0], [0.2, 0.8]])}, "softmax"),
        ({"probabilities": GOOD[:, :1]}, "shape"),
        ({"probabilities": GOOD[0]}, "shape"),
        ({"probabilities": GOOD[:0], "labels": np.zeros(0, dtype=int)}, "at least one picture"),
        ({"labels": np.array([0, 1, 1])}, "shape"),
        ({"labels": np.array([0.0, 1.0])}, "whole numbers"),
        ({"labels": np.array([0, 2])}, "0 to 1"),
        ({"labels": np.array([-1, 0])}, "0 to 1"),
        ({"classes": ["melanoma", "melanoma"]}, "different names"),
        ({"positive_class": "wart"}, "positive class 'wart'"),
        ({"groups": np.array(["a"])}, "groups"),
        ({"groups": np.array([1.0, np.nan])}, "NaN"),
    ],
)
def test_bad_input_is_refused_in_one_line(change, words):
    arguments = {"probabilities": GOOD, "labels": np.array([0, 1]), "classes": NAMES[:2], "positive_class": "melanoma"} | change
    with pytest.raises(BadInput, match=words) as caught:
        metrics.scores(**arguments)
    assert "\n" not in str(caught.value) and "expected" in str(caught.value)


def test_bad_input_of_the_other_functions():
    labels = np.array([0, 1])
    with pytest.raises(BadInput, match="the candidate's"):
        paired(GOOD, GOOD * np.nan, labels, 2)
    with pytest.raises(BadInput, match="the reference's"):
        recall_change(GOOD[:, :1], GOOD, labels, NAMES[:2])
    with pytest.raises(BadInput, match="different names"):
        recall_change(GOOD, GOOD, labels, ["wart", "wart"])
    with pytest.raises(BadInput, match="predicted classes"):
        metrics.confusion(np.array([0, 2]), labels, 2)
    with pytest.raises(BadInput, match="NaN"):
        metrics.reliability(GOOD * np.nan, labels)
    with pytest.raises(BadInput, match="NaN"):
        metrics.roc_curve_points(np.array([0.1, np.nan]), np.array([True, False]))
    with pytest.raises(BadInput, match="shape"):
        metrics.roc_curve_points(np.array([0.1, 0.2]), np.array([True]))


def test_what_a_decision_by_energy_answers_follows_from_the_logits():
    logits = np.array([[3.0, 0.0], [3.0 - 9, 0.0 - 9], [0.1, 0.0], [0.0, 5.0]])
    probabilities, labels = calibration.softmax(logits), np.array([0, 0, 1, 1])
    by_energy = Abstention(method="energy", coverage=0.9, threshold=-0.7, answered="at most", temperature=1.0)
    decision = decision_of(0.5, 0.5).model_copy(update={"abstention": by_energy})
    found = metrics.scores(probabilities, labels, ("melanoma", "nevus"), "melanoma", decision=decision, logits=logits)
    # The second picture has the probabilities of the first, and none of its energy.
    assert found.coverage_of_decision.value == 0.75 and found.accuracy_of_answers.value == pytest.approx(2 / 3)
    mixed = [decision, decision, decision_of(0.5, 0.6), decision_of(0.5, 0.6)]
    assert metrics.answered_by(probabilities, mixed, logits).tolist() == [True, False, False, True]
    with pytest.raises(BadInput, match="the energy needs the artifact's own logits"):
        metrics.scores(probabilities, labels, ("melanoma", "nevus"), "melanoma", decision=decision)
    losses = paired_decisions(
        probabilities, probabilities, labels, ("melanoma", "nevus"), "melanoma", decisions=(decision_of(0.5, 0.0), decision), logits=(logits, logits)
    )
    assert losses["coverage"].value == 0.25
