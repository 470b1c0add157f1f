"""Coverage and risk against brute force: every curve point counted by hand, the area averaged over all orders of ties."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_edge import calibration, selective
from melanoma_edge.errors import BadInput

PICTURES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=25)
"""(certainty, answer, truth) of each picture."""


def answers(rows):
    """Return (probabilities, labels, certainty) of the drawn pictures."""
    certainty, said, truth = (np.array(column) for column in zip(*rows))
    return np.eye(3)[said] * 0.7 + 0.1, truth, certainty.astype(float)


@settings(deadline=None, max_examples=150)
@given(PICTURES)
def test_every_point_of_the_curve_equals_a_count_by_hand(rows):
    probabilities, labels, certainty = answers(rows)
    curve = selective.coverage_risk(probabilities, labels, certainty)
    assert curve["certainty"].tolist() == sorted(set(certainty), reverse=True)
    assert (np.diff(curve["coverage"]) > 0).all() and curve["coverage"][-1] == 1
    for position, threshold in enumerate(curve["certainty"]):
        answered = [row for row in rows if row[0] >= threshold]
        assert curve["coverage"][position] == pytest.approx(len(answered) / len(rows))
        assert curve["risk"][position] == pytest.approx(np.mean([said != truth for _, said, truth in answered]))
        classes = {truth for *_, truth in answered}
        errors = [np.mean([said != truth for _, said, truth in answered if truth == label]) for label in classes]
        assert curve["balanced_error"][position] == pytest.approx(np.mean(errors)) and curve["classes"][position] == len(classes)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6))
def test_the_area_is_the_mean_over_all_orders_of_equally_sure_pictures(rows):
    areas = []
    for order in itertools.permutations(rows):
        ranked = sorted(order, key=lambda row: -row[0])  # stable: ties stay as this order has them
        areas.append(np.mean([np.mean([wrong for _, wrong in ranked[:count]]) for count in range(1, len(rows) + 1)]))
    certainty, wrong = (np.array(column) for column in zip(*rows))
    assert selective.area_under_risk(certainty.astype(float), wrong) == pytest.approx(np.mean(areas))


@settings(deadline=None)
@given(PICTURES, st.randoms())
def test_neither_order_nor_scale_of_the_score_moves_the_area(rows, chance):
    probabilities, labels, certainty = answers(rows)
    wrong = probabilities.argmax(axis=1) != labels
    area = selective.area_under_risk(certainty, wrong)
    order = list(range(len(rows)))
    chance.shuffle(order)
    assert selective.area_under_risk(np.exp(certainty[order]) - 9, wrong[order]) == pytest.approx(area)
    # Nothing ranks better than mistakes last, nothing worse than mistakes first; telling nothing is the error rate.
    assert selective.area_under_risk(-wrong.astype(float), wrong) - 1e-12 <= area <= selective.area_under_risk(wrong.astype(float), wrong) + 1e-12
    assert selective.area_under_risk(np.zeros(len(wrong)), wrong) == pytest.approx(wrong.mean())


def test_the_points_of_a_curve_answer_at_least_what_is_asked():
    probabilities, labels, _ = answers([(0, position % 3, 0) for position in range(10)])
    curve = selective.coverage_risk(probabilities, labels, np.array([9.0, 8, 7, 6, 5, 5, 5, 2, 1, 0]))
    assert [point["coverage"] for point in selective.points(curve, (0.1, 0.5, 0.7, 1.0))] == pytest.approx([0.1, 0.7, 0.7, 1.0])
    assert selective.points(curve, (0.5,))[0]["certainty"] == 5.0
    assert len(selective.points(curve)) == len(selective.COVERAGES) == 10


def test_the_area_has_an_interval_over_lesions():
    random = np.random.default_rng(2)
    certainty = random.normal(size=300)
    wrong = random.random(300) < 1 / (1 + np.exp(2 * certainty))
    alone = selective.area_with_interval(certainty, wrong)
    assert alone.value == selective.area_under_risk(certainty, wrong) and alone.low < alone.value < alone.high
    # Ten copies of every picture are no more evidence than one, where their lesions are known.
    copied = selective.area_with_interval(np.repeat(certainty, 10), np.repeat(wrong, 10), np.repeat(np.arange(300), 10))
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert selective.area_with_interval(certainty[:1], wrong[:1]).low is None


def test_a_model_that_is_sure_where_it_is_right_has_less_risk_at_less_coverage():
    logits = np.random.default_rng(5).normal(size=(2000, 3))
    labels = np.array([np.random.default_rng(i).choice(3, p=row) for i, row in enumerate(calibration.softmax(logits))])
    probabilities = calibration.softmax(logits)
    curve = selective.coverage_risk(probabilities, labels, calibration.certainty("confidence", probabilities))
    low, high = (point["risk"] for point in selective.points(curve, (0.2, 1.0)))
    assert low < high - 0.1


def test_bad_input_is_refused():
    probabilities, labels = np.full((3, 2), 0.5), np.zeros(3, dtype=int)
    for bad in (np.zeros(2), np.array([0.0, np.nan, 1.0]), np.zeros((3, 1))):
        with pytest.raises(BadInput, match="certainties"):
            selective.coverage_risk(probabilities, labels, bad)
        with pytest.raises(BadInput, match="certainties"):
            selective.area_under_risk(bad, np.zeros(3, dtype=bool))
    with pytest.raises(BadInput, match="certainties"):
        selective.area_under_risk(np.zeros(0), np.zeros(0, dtype=bool))
