"""From logits to decisions: by hand, by brute force, and on logits of a known temperature."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from melanoma_edge import calibration
from melanoma_edge.contract import Abstention, Decision, Threshold
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


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=40), st.sampled_from([0.0, 0.5, 0.8, 0.9, 0.95, 1.0]))
def test_thresholds_equal_brute_force(pictures, target):
    probabilities = np.array([value for value, _ in pictures]) / 8
    is_positive = np.array([truth for _, truth in pictures])
    (threshold,) = calibration.fit_thresholds(probabilities, is_positive, (target,))
    assert threshold.target_specificity == target
    called = probabilities >= threshold.probability
    if is_positive.any():
        assert threshold.validation_sensitivity == pytest.approx(called[is_positive].mean())
    else:
        assert threshold.validation_sensitivity is None
    if is_positive.all():
        assert (threshold.probability, threshold.validation_specificity) == (0.5, None)
        return
    negatives = probabilities[~is_positive]
    assert threshold.validation_specificity == pytest.approx((~called[~is_positive]).mean())
    kept = [value for value in sorted(set(probabilities)) if (negatives < value).sum() / len(negatives) >= target]
    assert threshold.probability == (kept[0] if kept else np.nextafter(probabilities.max(), 2))
    assert threshold.validation_specificity >= target
    if kept and kept[0] > probabilities.min():
        next_lower = probabilities[probabilities < threshold.probability].max()
        assert (negatives < next_lower).mean() < target


def test_thresholds_keep_the_order_asked_for_and_survive_no_pictures():
    assert [t.target_specificity for t in calibration.fit_thresholds(np.array([0.1, 0.9]), np.array([False, True]), (0.9, 0.7))] == [0.9, 0.7]
    empty = calibration.fit_thresholds(np.zeros(0), np.zeros(0, dtype=bool))
    assert empty == tuple(
        Threshold(target_specificity=target, probability=0.5, validation_sensitivity=None, validation_specificity=None) for target in (0.8, 0.9)
    )


def test_fit_thresholds_refuses_bad_input():
    truths = np.array([True, False])
    for bad in (np.array([0.1]), np.array([[0.1], [0.2]]), np.array([0.1, np.nan])):
        with pytest.raises(BadInput, match="expected"):
            calibration.fit_thresholds(bad, truths)
    for target in (-0.1, 1.1, np.nan):
        with pytest.raises(BadInput, match="specificity"):
            calibration.fit_thresholds(np.array([0.1, 0.2]), truths, (target,))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 10), min_size=1, max_size=40), st.sampled_from([0.05, 0.5, 0.7, 0.9, 1.0]))
def test_abstention_equals_brute_force(tops, coverage):
    top = np.array(tops) / 10
    abstention = calibration.fit_abstention(top, coverage)
    enough = [value for value in top if (top >= value).mean() >= coverage]
    assert abstention == Abstention(coverage=coverage, probability=max(enough))


def test_abstention_counts_exactly():
    """0.07 of 100 is 7 pictures, though 0.07 * 100 is above 7 in floating point."""
    top = np.arange(1, 101) / 100
    assert calibration.fit_abstention(top, 0.07).probability == 0.94
    assert calibration.fit_abstention(top, 1.0).probability == 0.01


def test_fit_abstention_refuses_bad_input():
    for bad in (np.zeros(0), np.array([0.5, np.nan]), np.array([[0.5]])):
        with pytest.raises(BadInput, match="top probabilities"):
            calibration.fit_abstention(bad, 0.9)
    for coverage in (0.0, 1.5, np.nan):
        with pytest.raises(BadInput, match="coverage"):
            calibration.fit_abstention(np.array([0.5]), coverage)


def fitted(logits, labels, positive_class="melanoma", specificity=0.85):
    return calibration.fit_decision(
        logits, labels, CLASSES, positive_class, UNIFORM, SKEWED, coverage=0.9, operating_specificity=specificity
    )


def test_a_fitted_decision_holds_on_its_own_pictures():
    logits, labels = calibrated_logits(500)
    logits = 2 * logits
    decision = fitted(logits, labels)
    assert [threshold.target_specificity for threshold in decision.thresholds] == [0.8, 0.85, 0.9]
    assert decision.operating().target_specificity == 0.85
    assert decision == Decision.model_validate_json(decision.model_dump_json())
    verdicts = calibration.decide(logits, decision, CLASSES, "melanoma", UNIFORM, SKEWED)
    positive = np.array([verdict.positive for verdict in verdicts])
    assert positive[labels == 0].mean() == pytest.approx(decision.operating().validation_sensitivity)
    assert (~positive[labels != 0]).mean() == pytest.approx(decision.operating().validation_specificity)
    assert (~positive[labels != 0]).mean() >= 0.85
    assert 1 - np.mean([verdict.abstains for verdict in verdicts]) == pytest.approx(0.9)
    expected = calibration.probabilities(logits, decision.temperature, UNIFORM, SKEWED)
    assert np.array([list(verdict.probabilities.values()) for verdict in verdicts]) == pytest.approx(expected)
    assert [verdict.top for verdict in verdicts] == [CLASSES[index] for index in expected.argmax(axis=1)]


def test_a_picture_alone_gets_the_verdict_it_gets_among_others():
    logits, labels = calibrated_logits(300)
    decision = fitted(logits, labels)
    together = calibration.decide(logits, decision, CLASSES, "melanoma", UNIFORM, SKEWED)
    for row, verdict in zip(logits, together, strict=True):
        assert calibration.decide(row[np.newaxis], decision, CLASSES, "melanoma", UNIFORM, SKEWED) == [verdict]


def test_the_operating_specificity_is_not_listed_twice():
    logits, labels = calibrated_logits(100)
    decision = fitted(logits, labels, specificity=0.9)
    assert [threshold.target_specificity for threshold in decision.thresholds] == [0.8, 0.9]
    assert decision.operating() == decision.thresholds[1]


def test_no_positive_class():
    logits, labels = calibrated_logits(100)
    decision = fitted(logits, labels, positive_class=None)
    assert decision.thresholds == () and decision.operating() is None
    verdicts = calibration.decide(logits, decision, CLASSES, None, UNIFORM, SKEWED)
    assert {verdict.positive for verdict in verdicts} == {None}


def test_thresholds_and_abstention_are_reached_from_above():
    """At least the threshold is positive, below it not; the same for the answer; ties go to the first class."""
    decision = Decision(
        temperature=1.0,
        thresholds=(Threshold(target_specificity=0.8, probability=0.5, validation_sensitivity=None, validation_specificity=None),),
        operating_specificity=0.8,
        abstention=Abstention(coverage=0.9, probability=0.5),
    )
    half = np.array([0.5, 0.5])
    logits = np.array([[0.0, 0.0], [-0.1, 0.0]])
    at, below = calibration.decide(logits, decision, ["melanoma", "naevus"], "melanoma", half, half)
    assert at == calibration.Verdict({"melanoma": 0.5, "naevus": 0.5}, "melanoma", True, False)
    assert (below.top, below.positive, below.abstains) == ("naevus", False, False)
    unsure = decision.model_copy(update={"abstention": Abstention(coverage=0.9, probability=0.51)})
    assert calibration.decide(logits[:1], unsure, ["melanoma", "naevus"], "melanoma", half, half)[0].abstains
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
