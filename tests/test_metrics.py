"""The figures and their intervals: against scikit-learn, against repetition, and in simulation."""

import time
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
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

from melanoma_edge import metrics
from melanoma_edge.contract import Abstention, Decision, Interval, Threshold
from melanoma_edge.errors import BadInput

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


@settings(deadline=None, max_examples=80)
@given(cases(), st.data())
def test_a_weight_is_a_repetition(case, data):
    probabilities, labels, k = case
    times = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(labels), max_size=len(labels)).filter(any)))
    weighted = metrics.Figures(probabilities, labels, 0)(times[np.newaxis].astype(float))
    repeated = metrics.Figures(np.repeat(probabilities, times, axis=0), np.repeat(labels, times), 0)(np.ones((1, times.sum())))
    assert weighted.keys() == repeated.keys()
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


def test_perfect_predictor():
    labels = np.arange(60) % 3
    got = metrics.scores(np.eye(3)[labels], labels, NAMES[:3], "melanoma", replicates=50)
    one = Interval(value=1.0, low=1.0, high=1.0)
    assert got.balanced_accuracy == got.macro_f1 == got.macro_auc == got.positive_auc == one
    assert got.positive_sensitivity_at_80_specificity == got.positive_sensitivity_at_90_specificity == got.recall["melanoma"]
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
    in_force = Threshold(target_specificity=0.8, probability=threshold, validation_sensitivity=None, validation_specificity=None)
    return Decision(temperature=1.0, thresholds=(in_force,), operating_specificity=0.8, abstention=Abstention(coverage=0.9, probability=abstention))


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
    threshold = Threshold(target_specificity=0.8, probability=0.45, validation_sensitivity=None, validation_specificity=None)
    decision = Decision(temperature=1.0, thresholds=(threshold,), operating_specificity=0.8, abstention=Abstention(coverage=0.9, probability=0.5))
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
    perfect = metrics.scores(np.eye(3)[labels[:20]], labels[:20], NAMES[:3], "melanoma", decision=decision, replicates=50)
    assert perfect.accuracy_of_answers.low == perfect.coverage_of_decision.low == pytest.approx(0.025 ** (1 / 20))
    without = metrics.scores(probabilities, labels, NAMES[:3], None, decision=decision, replicates=20)
    assert without.positive_sensitivity_of_decision is None and without.coverage_of_decision.value == pytest.approx(answered.mean())
    assert metrics.scores(probabilities, labels, NAMES[:3], "melanoma", replicates=20).coverage_of_decision is None


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
    interval = metrics._intervals(lambda weights: {"figure": np.where(weights[:, 0] == 1, 1.0, np.nan)}, np.arange(60), 400, 0)["figure"]
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
    weights = np.concatenate(list(metrics.bootstrap_weights(groups, 500, 4)))
    assert weights.shape == (500, 6)
    assert (weights[:, 0] == weights[:, 2]).all() and (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(6), abs=0.15)
    monkeypatch.setattr(metrics, "CHUNK_ENTRIES", 1)
    one_by_one = list(metrics.bootstrap_weights(groups, 500, 4))
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
    start = time.perf_counter()
    metrics.scores(probabilities, labels, [str(index) for index in range(9)], "0", groups=groups)
    assert time.perf_counter() - start < 5  # 0.3 s on the machine it was written on
    tracemalloc.start()
    metrics.scores(probabilities, labels, [str(index) for index in range(9)], "0", groups=groups, replicates=300)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6


def paired(reference, candidate, labels, k, **options):
    options = {"reference_threshold": 0.3, "candidate_threshold": 0.2, "replicates": 300} | options
    return metrics.paired_losses(reference, candidate, labels, NAMES[:k], "melanoma", **options)


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
    assert losses["positive_auc"] == Interval(value=0.0, low=0.0, high=0.0)
    bound = binomtest(0, (labels == 0).sum()).proportion_ci(0.95, "exact").high
    found = losses["positive_sensitivity"]
    assert (found.value, found.low, found.high) == pytest.approx((0.0, -bound, bound))
    assert losses["balanced_accuracy"].high == -losses["balanced_accuracy"].low > 0


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
    assert metrics._none_of_each(trials) == pytest.approx(-negative_logs.fun, rel=1e-3)


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
    without = metrics.paired_losses(
        probabilities, probabilities, labels, NAMES[:4], None, reference_threshold=None, candidate_threshold=None, replicates=20
    )
    assert without["positive_sensitivity"] == without["positive_auc"] == UNDEFINED
    assert without["balanced_accuracy"].value == 0.0
    absent = paired(probabilities, probabilities, np.maximum(labels, 1), 4)
    assert absent["positive_sensitivity"] == absent["positive_auc"] == UNDEFINED


def test_recall_change():
    labels = np.array([0, 0, 1, 1])
    change = metrics.recall_change(np.eye(3)[labels], np.eye(3)[[0, 2, 1, 1]], labels, NAMES[:3])
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
        metrics.recall_change(GOOD[:, :1], GOOD, labels, NAMES[:2])
    with pytest.raises(BadInput, match="different names"):
        metrics.recall_change(GOOD, GOOD, labels, ["wart", "wart"])
    with pytest.raises(BadInput, match="predicted classes"):
        metrics.confusion(np.array([0, 2]), labels, 2)
    with pytest.raises(BadInput, match="NaN"):
        metrics.reliability(GOOD * np.nan, labels)
    with pytest.raises(BadInput, match="NaN"):
        metrics.roc_curve_points(np.array([0.1, np.nan]), np.array([True, False]))
    with pytest.raises(BadInput, match="shape"):
        metrics.roc_curve_points(np.array([0.1, 0.2]), np.array([True]))
