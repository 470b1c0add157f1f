"""From logits to decisions: by hand, by brute force, and on logits of a known temperature."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import log_loss

from melanoma_edge import calibration
from melanoma_edge.contract import Abstention, Decision, Recipe, Threshold
from melanoma_edge.errors import BadInput

CLASSES = ("melanoma", "naevus", "wart")
UNIFORM = np.full(3, 1 / 3)
SKEWED = np.array([0.1, 0.7, 0.2])


def calibrated_logits(n=4000, seed=0, priors=UNIFORM):
    """Logits whose softmax is the true posterior of their labels, under `priors`."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(3, size=n, p=priors)
    features = generator.normal(size=(n, 3)) + 1.5 * np.eye(3)[labels]
    return 1.5 * features + np.log(priors), labels  # log p(x|y) is 1.5 x_y up to a constant


def test_softmax_by_hand_and_stable():
    assert calibration.softmax(np.log([[1.0, 2.0, 5.0]])) == pytest.approx(np.array([[0.125, 0.25, 0.625]]))
    assert calibration.softmax(np.array([[0.0, 2 * np.log(3.0)]]), 2.0) == pytest.approx(np.array([[0.25, 0.75]]))
    extreme = np.array([[1e4, 0.0], [-1e4, -1e4]], dtype=np.float32)
    assert calibration.softmax(extreme).tolist() == [[1.0, 0.0], [0.5, 0.5]]
    assert calibration.log_softmax(extreme)[0].tolist() == [0.0, -1e4]
    assert calibration.softmax(extreme).dtype == np.float64
    assert calibration.softmax(np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(bad):
    logits = np.array([[0.0, bad]])
    for function in (calibration.softmax, calibration.log_softmax):
        with pytest.raises(BadInput, match="expected finite") as caught:
            function(logits)
        assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="temperature"):
        calibration.softmax(np.zeros((1, 2)), bad if np.isnan(bad) else 0.0)


def test_prior_correction_by_hand():
    """0.5 * 0.1/0.5 = 0.1, 0.3 * 0.6/0.3 = 0.6, 0.2 * 0.3/0.2 = 0.3; and with a sum of 0.9."""
    training = np.array([0.5, 0.3, 0.2])
    assert calibration.correct_priors(np.array([training]), training, np.array([0.1, 0.6, 0.3])) == pytest.approx(np.array([[0.1, 0.6, 0.3]]))
    got = calibration.correct_priors(np.array([0.2, 0.8]), np.array([0.5, 0.5]), np.array([0.75, 0.25]))
    assert got == pytest.approx([0.3 / 0.7, 0.4 / 0.7])


def test_prior_correction_gives_the_posterior_of_the_other_population():
    """Bayes: the same likelihoods under other priors."""
    logits, _ = calibrated_logits(priors=SKEWED)
    likelihoods = logits - np.log(SKEWED)
    expected = calibration.softmax(likelihoods + np.log([0.5, 0.25, 0.25]))
    assert calibration.probabilities(logits, 1.0, SKEWED, np.array([0.5, 0.25, 0.25])) == pytest.approx(expected)


def test_bad_priors_and_probabilities_are_refused():
    good = np.array([[0.5, 0.5]])
    for bad in ([0.5, 0.0], [0.5, -0.5], [0.5, np.nan], [1.0], [[0.5, 0.5]]):
        with pytest.raises(BadInput, match="training priors"):
            calibration.correct_priors(good, np.array(bad), np.array([0.5, 0.5]))
        with pytest.raises(BadInput, match="deployment priors"):
            calibration.correct_priors(good, np.array([0.5, 0.5]), np.array(bad))
    for row in ([np.nan, 1.0], [0.0, 0.0], [-0.5, 1.5]):
        with pytest.raises(BadInput, match="expected distributions"):
            calibration.correct_priors(np.array([row]), np.array([0.5, 0.5]), np.array([0.5, 0.5]))


@pytest.mark.parametrize("factor", [0.2, 0.7, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("priors", [UNIFORM, SKEWED])
def test_temperature_recovers_a_known_factor(factor, priors):
    logits, labels = calibrated_logits(priors=priors)
    assert calibration.fit_temperature(factor * logits, labels, priors, priors) == pytest.approx(factor, rel=0.06)


def test_temperature_is_fitted_after_the_priors_are_corrected():
    """A network trained on balanced samples, validated where the deployment priors hold."""
    logits, labels = calibrated_logits(20_000, priors=SKEWED)
    balanced = 3.0 * (logits - np.log(SKEWED))
    assert calibration.fit_temperature(balanced, labels, UNIFORM, SKEWED) == pytest.approx(3.0, rel=0.06)


def test_temperature_minimises_the_log_loss():
    logits, labels = calibrated_logits(300, seed=5)
    logits = 2.5 * logits + np.random.default_rng(1).normal(size=logits.shape)
    fitted = calibration.fit_temperature(logits, labels, UNIFORM, SKEWED)
    weights = (np.asarray(SKEWED) / np.bincount(labels))[labels]  # as if the classes came as often as in deployment
    losses = {
        temperature: log_loss(labels, calibration.probabilities(logits, temperature, UNIFORM, SKEWED), labels=range(3), sample_weight=weights)
        for temperature in [fitted, *np.geomspace(0.05, 20, 200)]
    }
    assert min(losses, key=losses.get) == fitted


def test_how_often_a_class_was_photographed_for_validation_does_not_move_the_temperature():
    logits, labels = calibrated_logits(300, seed=5)
    logits = 2.5 * logits + np.random.default_rng(1).normal(size=logits.shape)
    more = np.concatenate([np.arange(300), np.repeat(np.flatnonzero(labels == 0), 6)])
    fitted = [calibration.fit_temperature(logits[rows], labels[rows], UNIFORM, UNIFORM) for rows in (np.arange(300), more)]
    assert fitted[0] == pytest.approx(fitted[1], rel=1e-4)


def test_temperature_at_the_ends():
    labels = np.arange(30) % 3
    assert calibration.fit_temperature(np.eye(3)[labels], labels, UNIFORM, UNIFORM) == pytest.approx(0.05, rel=1e-3)
    assert calibration.fit_temperature(-np.eye(3)[labels], labels, UNIFORM, UNIFORM) == pytest.approx(20, rel=1e-3)
    assert calibration.fit_temperature(np.zeros((30, 3)), labels, UNIFORM, UNIFORM) == 1.0
    assert calibration.fit_temperature(1e6 * np.eye(3)[labels], labels, UNIFORM, UNIFORM) == 1.0


def test_fit_temperature_refuses_bad_input():
    logits, labels = calibrated_logits(10)
    for bad in (logits[:5], logits[:, 0], logits[:0]):
        with pytest.raises(BadInput, match="found logits of shape"):
            calibration.fit_temperature(bad, labels, UNIFORM, UNIFORM)
    with pytest.raises(BadInput, match="whole numbers"):
        calibration.fit_temperature(logits, labels.astype(float), UNIFORM, UNIFORM)
    with pytest.raises(BadInput, match="0 to 2"):
        calibration.fit_temperature(logits, labels + 1, UNIFORM, UNIFORM)
    with pytest.raises(BadInput, match="NaN"):
        calibration.fit_temperature(logits * np.nan, labels, UNIFORM, UNIFORM)


PICTURES = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=40)
TARGETS = st.sampled_from([0.0, 0.3, 0.5, 0.8, 0.9, 0.95, 1.0])


def by_rule(pictures, rule: str, target: float):
    """Return (probabilities, which are positive, the threshold fitted to them)."""
    probabilities = np.array([value for value, _ in pictures]) / 8
    is_positive = np.array([truth for _, truth in pictures])
    threshold = calibration.fit_threshold(probabilities, is_positive, (rule, target))
    assert (threshold.rule, threshold.target) == (rule, target)
    return probabilities, is_positive, threshold


@settings(deadline=None, max_examples=150)
@given(PICTURES, TARGETS)
def test_a_threshold_by_specificity_equals_brute_force(pictures, target):
    probabilities, is_positive, threshold = by_rule(pictures, "specificity", target)
    called = probabilities >= threshold.probability
    if is_positive.any():
        assert threshold.validation_sensitivity.value == pytest.approx(called[is_positive].mean())
    else:
        assert threshold.validation_sensitivity is None
    if is_positive.all():
        assert (threshold.probability, threshold.validation_specificity) == (0.5, None)
        return
    negatives = probabilities[~is_positive]
    assert threshold.validation_specificity.value == pytest.approx((~called[~is_positive]).mean())
    kept = [value for value in sorted(set(probabilities)) if (negatives < value).sum() / len(negatives) >= target]
    assert threshold.probability == (kept[0] if kept else np.nextafter(probabilities.max(), 2))
    assert threshold.validation_specificity.value >= target
    if kept and kept[0] > probabilities.min():
        next_lower = probabilities[probabilities < threshold.probability].max()
        assert (negatives < next_lower).mean() < target


@settings(deadline=None, max_examples=150)
@given(PICTURES, TARGETS)
def test_a_threshold_by_sensitivity_is_the_highest_that_keeps_it(pictures, target):
    probabilities, is_positive, threshold = by_rule(pictures, "sensitivity", target)
    positives = probabilities[is_positive]
    if not len(positives):
        assert (threshold.probability, threshold.validation_sensitivity) == (0.5, None)
        return
    # The highest probability of all, and not only a positive's, that keeps it: every candidate above loses too many.
    kept = [value for value in set(positives) if (positives >= value).sum() / len(positives) >= target]
    assert threshold.probability == max(kept)
    assert threshold.validation_sensitivity.value == (positives >= threshold.probability).mean() >= target
    above = np.nextafter(threshold.probability, 2)
    assert target == 0 or (positives >= above).mean() < target or above > probabilities.max()
    if is_positive.all():
        assert threshold.validation_specificity is None
    else:
        assert threshold.validation_specificity.value == (probabilities[~is_positive] < threshold.probability).mean()


@settings(deadline=None, max_examples=100)
@given(PICTURES, st.tuples(TARGETS, TARGETS))
def test_thresholds_move_one_way_with_what_they_keep(pictures, targets):
    probabilities = np.array([value for value, _ in pictures]) / 8
    is_positive = np.array([truth for _, truth in pictures])
    low, high = sorted(targets)
    for rule, falls in (("sensitivity", True), ("specificity", False)):
        less, more = (calibration.fit_threshold(probabilities, is_positive, (rule, target)).probability for target in (low, high))
        assert less >= more if falls else less <= more


def test_a_sensitivity_is_counted_exactly():
    """0.07 of 100 is 7 pictures, though 0.07 * 100 is above 7 in floating point."""
    positives = np.arange(1, 101) / 100
    assert calibration.fit_threshold(positives, np.ones(100, dtype=bool), ("sensitivity", 0.07)).probability == 0.94
    assert calibration.fit_threshold(positives, np.ones(100, dtype=bool), ("sensitivity", 0.9)).probability == 0.11


def test_the_interval_of_what_a_threshold_keeps_knows_how_few_lesions_there_were():
    """Against Clopper and Pearson's interval as SciPy has it; ten photographs of a lesion prove no more than one."""
    from scipy.stats import binomtest

    probabilities, is_positive = np.linspace(0.9, 0.1, 40), np.arange(40) < 20
    threshold = calibration.fit_threshold(probabilities, is_positive, ("sensitivity", 0.9))
    expected = binomtest(18, 20).proportion_ci(method="exact")
    assert (threshold.validation_sensitivity.low, threshold.validation_sensitivity.high) == pytest.approx((expected.low, expected.high))
    expected = binomtest(20, 20).proportion_ci(method="exact")
    assert (threshold.validation_specificity.low, threshold.validation_specificity.high) == pytest.approx((expected.low, expected.high))
    many = calibration.fit_threshold(np.repeat(probabilities, 10), np.repeat(is_positive, 10), ("sensitivity", 0.9), np.repeat(np.arange(40), 10))
    assert many.validation_sensitivity.model_dump() == pytest.approx(threshold.validation_sensitivity.model_dump())
    alone = calibration.fit_threshold(np.array([0.7]), np.array([True]), ("sensitivity", 0.9))
    assert (alone.probability, alone.validation_sensitivity.value, alone.validation_specificity) == (0.7, 1.0, None)
    assert (alone.validation_sensitivity.low, alone.validation_sensitivity.high) == pytest.approx((0.025, 1.0))


def test_thresholds_survive_no_pictures():
    for rule in ("sensitivity", "specificity"):
        threshold = calibration.fit_threshold(np.zeros(0), np.zeros(0, dtype=bool), (rule, 0.9))
        assert threshold == Threshold(rule=rule, target=0.9, probability=0.5, validation_sensitivity=None, validation_specificity=None)
        assert threshold.in_words() == f"the {'highest' if rule == 'sensitivity' else 'lowest'} threshold with 90 % {rule} on validation"


@pytest.mark.parametrize("rule", ["sensitivity", "specificity"])
def test_fit_threshold_refuses_bad_input(rule):
    truths = np.array([True, False])
    for bad in (np.array([0.1]), np.array([[0.1], [0.2]]), np.array([0.1, np.nan])):
        with pytest.raises(BadInput, match="expected"):
            calibration.fit_threshold(bad, truths, (rule, 0.9))
    for target in (-0.1, 1.1, np.nan):
        with pytest.raises(BadInput, match=rule):
            calibration.fit_threshold(np.array([0.1, 0.2]), truths, (rule, target))
    with pytest.raises(BadInput, match="lesions"):
        calibration.fit_threshold(np.array([0.1, 0.2]), truths, (rule, 0.9), np.zeros(3))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 10), min_size=1, max_size=40), st.sampled_from([0.05, 0.5, 0.7, 0.9, 1.0]))
def test_abstention_equals_brute_force(tops, coverage):
    top = np.array(tops) / 10
    abstention = calibration.fit_abstention(top, coverage)
    enough = [value for value in top if (top >= value).mean() >= coverage]
    assert abstention == Abstention(coverage=coverage, threshold=max(enough))
    # Energies are low for what is familiar; the same pictures are answered.
    energy = calibration.fit_abstention(top, coverage, "energy")
    assert (energy.method, energy.answered, energy.threshold, energy.temperature) == ("energy", "at most", -max(enough), 1.0)


def test_abstention_counts_exactly():
    """0.07 of 100 is 7 pictures, though 0.07 * 100 is above 7 in floating point."""
    top = np.arange(1, 101) / 100
    assert calibration.fit_abstention(top, 0.07).threshold == 0.94
    assert calibration.fit_abstention(top, 1.0).threshold == 0.01


def test_fit_abstention_refuses_bad_input():
    for bad in (np.zeros(0), np.array([0.5, np.nan]), np.array([[0.5]])):
        for method, found in (("confidence", "top probabilities"), ("energy", "energies")):
            with pytest.raises(BadInput, match=found):
                calibration.fit_abstention(bad, 0.9, method)
    for coverage in (0.0, 1.5, np.nan):
        with pytest.raises(BadInput, match="coverage"):
            calibration.fit_abstention(np.array([0.5]), coverage)


def fitted(logits, labels, positive_class="melanoma", operating=("sensitivity", 0.85), abstention="confidence"):
    return calibration.fit_decision(logits, labels, CLASSES, positive_class, UNIFORM, SKEWED, coverage=0.9, operating=operating, abstention=abstention)


@pytest.mark.parametrize("abstention", ["confidence", "energy"])
@pytest.mark.parametrize("rule", ["sensitivity", "specificity"])
def test_a_fitted_decision_holds_on_its_own_pictures(rule, abstention):
    logits, labels = calibrated_logits(500)
    logits = 2 * logits
    decision = fitted(logits, labels, operating=(rule, 0.85), abstention=abstention)
    assert (decision.threshold.rule, decision.threshold.target) == (rule, 0.85) and decision.operating() == decision.threshold
    assert [(threshold.rule, threshold.target) for threshold in decision.other_thresholds] == [("specificity", 0.8), ("specificity", 0.9)]
    assert decision.abstention.method == abstention
    read_back = Decision.model_validate_json(decision.model_dump_json())
    assert decision == read_back
    verdicts = calibration.decide(logits, decision, CLASSES, "melanoma", UNIFORM, SKEWED)
    assert verdicts == calibration.decide(logits, read_back, CLASSES, "melanoma", UNIFORM, SKEWED)
    positive = np.array([verdict.positive for verdict in verdicts])
    reached = {"sensitivity": positive[labels == 0].mean(), "specificity": (~positive[labels != 0]).mean()}
    assert reached["sensitivity"] == pytest.approx(decision.threshold.validation_sensitivity.value)
    assert reached["specificity"] == pytest.approx(decision.threshold.validation_specificity.value)
    called = {name: positive[labels == index].mean() for index, name in enumerate(CLASSES) if index}
    assert {name: share.value for name, share in decision.threshold.validation_called.items()} == pytest.approx(called)
    assert all(share.low <= share.value <= share.high for share in decision.threshold.validation_called.values())
    assert all(other.validation_called is None for other in decision.other_thresholds)
    assert reached[rule] >= 0.85
    assert 1 - np.mean([verdict.abstains for verdict in verdicts]) == pytest.approx(0.9)
    expected = calibration.probabilities(logits, decision.temperature, UNIFORM, SKEWED)
    assert np.array([list(verdict.probabilities.values()) for verdict in verdicts]) == pytest.approx(expected)
    assert [verdict.top for verdict in verdicts] == [CLASSES[index] for index in expected.argmax(axis=1)]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.floats(-30, 30), min_size=3, max_size=3), min_size=1, max_size=12), st.sampled_from([0.3, 0.9, 1.0]), st.sampled_from([0.5, 0.9, 1.0]))
def test_a_decision_read_back_from_json_decides_alike(rows, coverage, sensitivity):
    logits = np.array(rows)
    labels = np.arange(len(rows)) % 3
    for abstention in ("confidence", "energy"):
        asked = {"coverage": coverage, "operating": ("sensitivity", sensitivity), "abstention": abstention}
        decision = calibration.fit_decision(logits, labels, CLASSES, "melanoma", UNIFORM, SKEWED, **asked)
        verdicts = calibration.decide(logits, decision, CLASSES, "melanoma", UNIFORM, SKEWED)
        assert calibration.decide(logits, Decision.model_validate_json(decision.model_dump_json()), CLASSES, "melanoma", UNIFORM, SKEWED) == verdicts
        assert np.mean([not verdict.abstains for verdict in verdicts]) >= coverage


def test_the_energy_is_that_of_its_paper():
    """By hand: -log(1 + 2 + 5); and as SciPy sums exponentials, where naive sums overflow."""
    from scipy.special import logsumexp

    assert calibration.energy(np.log([[1.0, 2.0, 5.0]])) == pytest.approx([-np.log(8.0)])
    logits = np.random.default_rng(3).normal(0, 300, (50, 4))
    for temperature in (0.5, 1.0, 20.0):
        assert calibration.energy(logits, temperature) == pytest.approx(-temperature * logsumexp(logits / temperature, axis=1))
    assert calibration.energy(logits + 7.0) == pytest.approx(calibration.energy(logits) - 7.0)
    for bad in (np.nan, np.inf):
        with pytest.raises(BadInput, match="NaN"):
            calibration.energy(np.array([[0.0, bad]]))


def test_energy_sees_what_probabilities_cannot():
    """Logits that all rise together leave every probability as it was, and make a picture more familiar."""
    logits, labels = calibrated_logits(400)
    decision = fitted(logits, labels, abstention="energy")
    lower = calibration.decide(logits - 50.0, decision, CLASSES, "melanoma", UNIFORM, SKEWED)
    assert all(verdict.abstains for verdict in lower)
    confident = calibration.decide(logits - 50.0, fitted(logits, labels), CLASSES, "melanoma", UNIFORM, SKEWED)
    assert 1 - np.mean([verdict.abstains for verdict in confident]) == pytest.approx(0.9, abs=0.005)  # rounding moves the picture that stands on the threshold
    # Of probabilities there is only the logarithm, whose energy is always 0, so nothing to abstain by.
    assert calibration.energy(np.log(calibration.softmax(logits))) == pytest.approx(np.zeros(400), abs=1e-12)


@pytest.mark.parametrize("method", ["confidence", "energy"])
def test_all_alike_and_one_picture_are_answered(method):
    for logits in (np.zeros((5, 3)), np.array([[3.0, -1.0, 0.5]])):
        decision = fitted(logits, np.arange(len(logits)) % 3, abstention=method)
        assert not any(verdict.abstains for verdict in calibration.decide(logits, decision, CLASSES, "melanoma", UNIFORM, SKEWED))


def test_the_energy_needs_logits():
    with pytest.raises(BadInput, match="the energy needs the artifact's own logits"):
        calibration.certainty("energy", np.full((2, 3), 1 / 3))
    with pytest.raises(BadInput, match="the energy needs the artifact's own logits"):
        calibration.certainty("energy", np.full((2, 3), 1 / 3), np.zeros((1, 3)))


def test_an_abstention_that_contradicts_itself_is_refused():
    for wrong in ({"method": "energy"}, {"answered": "at most"}, {"temperature": 2.0}, {"method": "energy", "answered": "at most"}, {"method": "mood"}):
        with pytest.raises(ValidationError):
            Abstention.model_validate({"coverage": 0.9, "threshold": 0.5, **wrong})


def test_decisions_of_version_1_are_read_as_what_they_mean():
    old = {
        "temperature": 1.5,
        "thresholds": [
            {"target_specificity": 0.8, "probability": 0.1, "validation_sensitivity": 0.94, "validation_specificity": 0.8},
            {"target_specificity": 0.9, "probability": 0.2, "validation_sensitivity": 0.88, "validation_specificity": None},
        ],
        "operating_specificity": 0.9,
        "abstention": {"method": "confidence", "coverage": 0.9, "probability": 0.35},
    }
    decision = Decision.model_validate_json(json.dumps(old))
    assert (decision.threshold.rule, decision.threshold.target, decision.threshold.probability) == ("specificity", 0.9, 0.2)
    assert decision.threshold.validation_sensitivity.model_dump() == {"value": 0.88, "low": None, "high": None}
    assert [threshold.target for threshold in decision.other_thresholds] == [0.8]
    assert (decision.abstention.threshold, decision.abstention.answered) == (0.35, "at least")
    assert Decision.model_validate_json(decision.model_dump_json()) == decision
    without = Decision.model_validate_json(json.dumps({**old, "thresholds": []}))
    assert without.threshold is None and without.other_thresholds == ()
    with pytest.raises(ValidationError):
        Decision.model_validate_json(json.dumps({**old, "novelty": 1}))


def test_a_picture_alone_gets_the_verdict_it_gets_among_others():
    logits, labels = calibrated_logits(300)
    decision = fitted(logits, labels)
    together = calibration.decide(logits, decision, CLASSES, "melanoma", UNIFORM, SKEWED)
    for row, verdict in zip(logits, together, strict=True):
        assert calibration.decide(row[np.newaxis], decision, CLASSES, "melanoma", UNIFORM, SKEWED) == [verdict]


def test_the_rule_in_force_is_not_listed_twice():
    logits, labels = calibrated_logits(100)
    decision = fitted(logits, labels, operating=("specificity", 0.9))
    assert decision.threshold.target == 0.9 and [threshold.target for threshold in decision.other_thresholds] == [0.8]


def test_a_recipe_names_one_rule():
    assert calibration.rule_of(Recipe(name="any")) == ("sensitivity", 0.9)
    assert calibration.rule_of(Recipe(name="any", operating_sensitivity=0.95)) == ("sensitivity", 0.95)
    assert calibration.rule_of(Recipe(name="any", operating_specificity=0.8)) == ("specificity", 0.8)


def test_no_positive_class():
    logits, labels = calibrated_logits(100)
    decision = fitted(logits, labels, positive_class=None)
    assert decision.threshold is None and decision.other_thresholds == () and decision.operating() is None
    verdicts = calibration.decide(logits, decision, CLASSES, None, UNIFORM, SKEWED)
    assert {verdict.positive for verdict in verdicts} == {None}


def test_thresholds_and_abstention_are_reached_from_above():
    """At least the threshold is positive, below it not; the same for the answer; ties go to the first class."""
    decision = Decision(
        temperature=1.0,
        threshold=Threshold(rule="sensitivity", target=0.9, probability=0.5, validation_sensitivity=None, validation_specificity=None),
        abstention=Abstention(coverage=0.9, threshold=0.5),
    )
    half = np.array([0.5, 0.5])
    logits = np.array([[0.0, 0.0], [-0.1, 0.0]])
    at, below = calibration.decide(logits, decision, ["melanoma", "naevus"], "melanoma", half, half)
    assert at == calibration.Verdict({"melanoma": 0.5, "naevus": 0.5}, "melanoma", True, False)
    assert (below.top, below.positive, below.abstains) == ("naevus", False, False)
    unsure = decision.model_copy(update={"abstention": Abstention(coverage=0.9, threshold=0.51)})
    assert calibration.decide(logits[:1], unsure, ["melanoma", "naevus"], "melanoma", half, half)[0].abstains
    # An energy is answered at its threshold and below.
    found = calibration.energy(logits)
    at_most = Abstention(method="energy", coverage=0.9, threshold=float(found[0]), answered="at most", temperature=1.0)
    by_energy = calibration.decide(logits, decision.model_copy(update={"abstention": at_most}), ["melanoma", "naevus"], "melanoma", half, half)
    assert found[1] > found[0] and [verdict.abstains for verdict in by_energy] == [False, True]
    assert calibration.decide(logits[:0], decision, ["melanoma", "naevus"], "melanoma", half, half) == []


def test_decide_refuses_bad_input():
    logits, labels = calibrated_logits(50)
    decision = fitted(logits, labels)
    with pytest.raises(BadInput, match="NaN"):
        calibration.decide(logits * np.nan, decision, CLASSES, "melanoma", UNIFORM, SKEWED)
    with pytest.raises(BadInput, match="shape"):
        calibration.decide(logits[:, :2], decision, CLASSES, "melanoma", UNIFORM, SKEWED)
    with pytest.raises(BadInput, match="shape"):
        calibration.decide(logits[0], decision, CLASSES, "melanoma", UNIFORM, SKEWED)
    with pytest.raises(BadInput, match="positive class 'mole'"):
        calibration.decide(logits, decision, CLASSES, "mole", UNIFORM, SKEWED)
    with pytest.raises(BadInput, match="no threshold"):
        calibration.decide(logits, fitted(logits, labels, positive_class=None), CLASSES, "melanoma", UNIFORM, SKEWED)


def test_probabilities_of_a_model_come_back_from_their_logarithms():
    logits, _ = calibrated_logits(200)
    given = calibration.softmax(logits).astype(np.float32)
    back = calibration.softmax(calibration.as_logits(given, "probabilities"))
    np.testing.assert_allclose(back, given, atol=1e-6)
    assert calibration.as_logits(logits, "logits") is logits
    sure = calibration.as_logits(np.array([[1.0, 0.0, 0.0]]), "probabilities")
    assert np.isfinite(sure).all() and sure[0].tolist() == pytest.approx([0.0, -24 * np.log(2), -24 * np.log(2)])
    with pytest.raises(BadInput, match="--output logits"):
        calibration.as_logits(np.array([[0.5, -0.5]]), "probabilities")
