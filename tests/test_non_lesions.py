"""Drawn pictures without a lesion, and the rates at which a model answers them."""

import numpy as np
import pytest

from melanoma_edge import calibration
from melanoma_edge.contract import Abstention
from melanoma_edge.data import non_lesions
from melanoma_edge.errors import BadInput
from melanoma_edge.proof.abstaining import non_lesion_rates

UNIFORM = np.full(3, 1 / 3)


def test_the_set_is_the_same_every_time_and_every_picture_is_another() -> None:
    found, kinds = non_lesions.pictures(48, 3)
    assert found.shape == (3 * len(non_lesions.KINDS), 48, 48, 3) and found.dtype == np.uint8
    assert kinds == tuple(kind for kind in non_lesions.KINDS for _ in range(3))
    again, _ = non_lesions.pictures(48, 3)
    assert (found == again).all() and len({picture.tobytes() for picture in found}) == len(found)
    more, _ = non_lesions.pictures(48, 4)
    assert (more[4:7] == found[3:6]).all()  # more of a kind leave the others as they are


@pytest.mark.parametrize("kind", non_lesions.KINDS)
@pytest.mark.parametrize("size", [32, 180])
def test_every_kind_can_be_drawn_at_any_size(kind: str, size: int) -> None:
    picture = non_lesions.draw(kind, size, 0)
    assert picture.shape == (size, size, 3) and picture.dtype == np.uint8
    flat = picture.reshape(-1, 3)
    assert (len(np.unique(flat, axis=0)) == 1) == (kind == "plain colour")
    assert (flat.max() < 64) == (kind == "covered lens") or kind in ("plain colour", "gradient", "stripes", "checkerboard")


def test_what_cannot_be_drawn_is_one_line() -> None:
    with pytest.raises(BadInput, match="no pictures without a lesion are called 'lesion': expected one of plain colour, "):
        non_lesions.draw("lesion", 64, 0)
    with pytest.raises(BadInput, match="pictures of 8 pixels"):
        non_lesions.draw("noise", 8, 0)


def logits(count: int, seed: int, scale: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, (count, 3))


@pytest.mark.parametrize("method", ["confidence", "energy"])
def test_rates_are_counted_at_a_threshold_of_the_same_coverage_for_either_score(method: str) -> None:
    validation, drawn = logits(200, 1), logits(90, 2, 1.0)
    kinds = ["noise"] * 60 + ["text"] * 30
    decision = calibration.fit_decision(
        validation, validation.argmax(axis=1), ("a", "b", "c"), None, UNIFORM, UNIFORM, coverage=0.8, operating=("sensitivity", 0.9), abstention=method
    )
    found = non_lesion_rates(decision, validation, drawn, kinds, UNIFORM, UNIFORM)
    assert found.pictures == 90 and found.per_kind == {"noise": 60, "text": 30}
    assert [rate.method for rate in found.rates] == ["confidence", "energy"]
    assert {rate.method: rate.threshold for rate in found.rates}[method] == decision.abstention.threshold
    top = calibration.probabilities(drawn, decision.temperature, UNIFORM, UNIFORM).max(axis=1)
    expected = {"confidence": top >= found.rates[0].threshold, "energy": calibration.energy(drawn) <= found.rates[1].threshold}
    for rate in found.rates:
        answered = expected[rate.method]
        assert rate.answered == answered.sum() and rate.per_kind == {"noise": answered[:60].sum(), "text": answered[60:].sum()}
    verdicts = calibration.decide(drawn, decision, ("a", "b", "c"), None, UNIFORM, UNIFORM)
    assert sum(not verdict.abstains for verdict in verdicts) == {rate.method: rate.answered for rate in found.rates}[method]


def test_probabilities_have_no_rate_by_energy() -> None:
    decision = calibration.unfitted().model_copy(update={"abstention": Abstention(coverage=0.9, threshold=0.5)})
    found = non_lesion_rates(decision, logits(20, 1), logits(5, 2), ["noise"] * 5, UNIFORM, UNIFORM, output="probabilities")
    assert [rate.method for rate in found.rates] == ["confidence"]


def test_a_kind_of_which_nothing_is_answered_stands_with_zero() -> None:
    decision = calibration.unfitted().model_copy(update={"abstention": Abstention(coverage=0.9, threshold=1.0)})
    found = non_lesion_rates(decision, logits(20, 1), np.zeros((2, 3)), ["noise", "text"], UNIFORM, UNIFORM)
    assert found.rates[0].answered == 0 and found.rates[0].per_kind == {"noise": 0, "text": 0}
