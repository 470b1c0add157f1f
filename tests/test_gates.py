"""The gates on logits made by hand: just inside and just outside of every bound, and never passed by accident."""

from __future__ import annotations


import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundle import write_bundle

from melanoma_edge.contract import INTEGER, Abstention, Artifact, Decision, Interval, Manifest, Tensor, Threshold
from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.proof import gates
from melanoma_edge.proof.parity_model import Gate, Parity

CLASSES = ("melanoma", "nevus", "vascular lesion")
QUANTUM = 0.1


def artifact(precision: str = "float32", form: str = "tflite", *, threshold: float | None = 0.5) -> Artifact:
    dtype = "uint8" if precision in INTEGER else "float32"
    in_force = None if threshold is None else (
        Threshold(rule="sensitivity", target=0.9, probability=threshold, validation_sensitivity=None, validation_specificity=None)
    )
    return Artifact(
        name=f"test-{precision}.{form}",
        path=f"test-{precision}.{form}",
        format=form,
        precision=precision,
        sha256="0" * 64,
        bytes=1,
        input=Tensor(name="image", dtype=dtype, shape=(1, 32, 32, 3)),
        output=Tensor(name="logits", dtype="float32", shape=(1, 3)),
        quantum=QUANTUM if precision in INTEGER else None,
        operators={},
        weight_bytes={},
        decision=Decision(temperature=1.0, threshold=in_force, abstention=Abstention(coverage=0.9, threshold=0.4)),
        scores=None,
    )


FLOAT, HALF, DYNAMIC, INT8, INT8_ONNX = (
    artifact("float32"), artifact("float16"), artifact("dynamic"), artifact("int8"), artifact("int8", "onnx")
)
PTQ, PTQ_ONNX = artifact("int8-ptq"), artifact("int8-ptq", "onnx")


def logits(count: int, seed: int = 0) -> np.ndarray:
    """Return float32 [count, 3] from -5 to 5 whose first choice leads by 5 or more: nothing small can flip it."""
    values = np.random.default_rng(seed).uniform(-5, 0, (count, 3)).astype(np.float32)
    values[np.arange(count), np.arange(count) % 3] = 5.0
    values[0] = (5.0, -5.0, -5.0)
    return values


def names(count: int) -> tuple[str, ...]:
    return tuple(f"{number:04}.png" for number in range(count))


def float_gate(subject: Artifact, found: np.ndarray, expected: np.ndarray) -> Gate:
    return gates.float_gate(subject, "litert", "keras-float", found, expected, names(len(found)), CLASSES)


def int8_gate(found: np.ndarray, expected: np.ndarray) -> Gate:
    return gates.int8_gate(INT8, "litert", "keras-qat", found, expected, names(len(found)), CLASSES)


def onnx_gate(found: np.ndarray, expected: np.ndarray) -> Gate:
    return gates.onnx_gate(INT8_ONNX, "onnxruntime", found, expected, QUANTUM, names(len(found)), CLASSES)


def golden_gate(subject: Artifact, found: np.ndarray, expected: np.ndarray) -> Gate:
    return gates.golden_gate(subject, "litert", found, expected, names(len(found)), CLASSES)


def moved(values: np.ndarray, by: float, count: int = 1) -> np.ndarray:
    """Return float64 logits of which `count` differ by `by`, one in each of as many pictures from the second on."""
    changed = values.astype(np.float64)
    changed[1 : 1 + count, 0] += by
    return changed


def flipped(values: np.ndarray, count: int) -> np.ndarray:
    """Return logits in which `count` pictures name the next class first."""
    changed = values.copy()
    changed[:count] = np.roll(changed[:count], 1, axis=1)
    return changed


# --- float artifacts


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("share, outcome", [(0.0, "passed"), (0.99e-3, "passed"), (1.01e-3, "failed"), (0.5, "failed")])
def test_float32_may_differ_by_a_thousandth_of_the_range(share: float, outcome: str, sign: int) -> None:
    expected = logits(50)
    gate = float_gate(FLOAT, moved(expected, sign * share * 10), expected)
    assert gate.outcome == outcome and (gate.reason is None) == (outcome == "passed")
    assert gate.figures["logit_range"] == 10.0 and gate.figures["share_of_range"] == pytest.approx(share, abs=1e-12)
    assert gate.figures["max_difference"] == pytest.approx(share * 10, abs=1e-12) and gate.figures["top1_agreement"] == 1.0
    assert (gate.name, gate.artifact, gate.runtime, gate.reference, gate.pictures) == ("float32", FLOAT.name, "litert", "keras-float", 50)
    assert gate.flip_count == 0 and gate.flips == ()


@pytest.mark.parametrize("tie, outcome", [(1e-6, "failed"), (-1e-6, "passed")])
def test_float32_may_flip_no_picture_however_close(tie: float, outcome: str) -> None:
    expected = logits(50).astype(np.float64)
    expected[7] = (1.0, 1.0 - 1e-3, 0.0)
    found = expected.copy()
    found[7, 1] = 1.0 + tie
    gate = float_gate(FLOAT, found, expected)
    assert gate.outcome == outcome and gate.flip_count == (outcome == "failed")


@pytest.mark.parametrize("subject", [HALF, DYNAMIC])
@pytest.mark.parametrize("flips, outcome", [(0, "passed"), (2, "passed"), (3, "failed")])
def test_float16_and_dynamic_agree_on_99_of_100(subject: Artifact, flips: int, outcome: str) -> None:
    expected = logits(200)
    gate = float_gate(subject, flipped(expected, flips), expected)
    assert gate.outcome == outcome and gate.flip_count == flips and gate.name == subject.precision
    assert gate.figures["top1_agreement"] == 1 - flips / 200
    assert flips == 0 or gate.figures["share_of_range"] > 0.5, "the size of the difference is no part of this gate"


@pytest.mark.parametrize(("flips", "outcome"), [(1, "passed"), (2, "inconclusive"), (10, "inconclusive"), (11, "failed")])
def test_int8_quantized_after_training_is_compared_with_the_float_network_only(flips: int, outcome: str) -> None:
    expected = logits(100)
    found = expected.copy()
    found[:flips] = np.roll(expected[:flips], 1, axis=1)
    gate = float_gate(PTQ, found, expected)
    assert (gate.name, gate.outcome, gate.reference) == ("int8-ptq", outcome, "keras-float")
    assert "compared with float32 only" in gate.requirement and gate.flip_count == flips
    assert gate.figures["top1_agreement"] == pytest.approx(1 - flips / 100)


@pytest.mark.parametrize(("steps", "outcome"), [(0, "passed"), (1, "failed")])
def test_the_same_int8_file_elsewhere_is_judged_in_quanta_however_it_came_about(steps: int, outcome: str) -> None:
    expected = logits(100)
    for subject in (INT8, PTQ):
        peer = gates.peer_gate("arm64", subject, "litert-arm64", "litert", moved(expected, steps * QUANTUM), expected, names(100), CLASSES)
        assert (peer.outcome, peer.figures["max_quanta"], peer.requirement) == (outcome, steps, "0 quanta")
        golden = golden_gate(subject, moved(expected, steps * QUANTUM), expected)
        assert (golden.outcome, golden.requirement) == (outcome, "0 quanta")


def test_onnx_is_compared_with_its_own_twin() -> None:
    expected = logits(10)
    for subject, reference in ((INT8_ONNX, "int8 TFLite"), (PTQ_ONNX, "int8-ptq TFLite")):
        gate = gates.onnx_gate(subject, "onnxruntime", expected, expected, QUANTUM, names(10), CLASSES)
        assert (gate.name, gate.reference, gate.outcome) == ("int8-onnx", reference, "passed")


@pytest.mark.parametrize(
    ("layout", "in_file", "in_graph", "outcome"),
    [("NHWC", 1, 1, "passed"), ("NHWC", 1, 2, "failed"), ("NCHW", 0, 2, "passed"), ("NCHW", 0, 3, "failed"), ("NCHW", 1, 1, "failed"), ("NCHW", 0, 0, "passed")],
)
def test_the_census_counts_transposes_by_layout(layout: str, in_file: int, in_graph: int, outcome: str) -> None:
    subject = INT8_ONNX.model_copy(update={"layout": layout, "operators": {"Transpose": in_file} if in_file else {}})
    gate = gates.census_gate(subject, "onnxruntime", {"QLinearConv": 19, "QGemm": 1, "Transpose": in_graph})
    assert gate.outcome == outcome and gate.figures["transposes"] == in_graph and gate.figures["transposes_in_file"] == in_file
    assert (gate.reason is None) == (outcome == "passed")


def test_logits_that_are_all_equal_have_no_range_to_differ_by() -> None:
    flat = np.zeros((4, 3), np.float32)
    gate = float_gate(FLOAT, flat, flat)
    assert gate.outcome == "inconclusive" and "to every picture, so agreement proves nothing" in gate.reason
    assert float_gate(FLOAT, flat + np.float32(1e-6), flat).outcome == "failed"


def test_agreement_with_a_model_that_always_says_the_same_proves_nothing() -> None:
    expected = logits(50)
    expected[:, 1] += 100
    assert float_gate(HALF, expected, expected).outcome == "inconclusive"
    assert float_gate(FLOAT, expected, expected).outcome == "passed", "its numbers do"
    expected[0, 1] -= 200
    assert float_gate(HALF, expected, expected).outcome == "passed"


# --- quanta


@given(
    st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=20),
    st.floats(1e-3, 10),
    st.floats(-0.49, 0.49),
    st.integers(-1000, 1000),
)
@settings(deadline=None, max_examples=100)
def test_differences_are_counted_in_whole_quanta(steps: list[int], quantum: float, noise: float, start: int) -> None:
    expected = np.full((len(steps), 1), start * quantum)
    found = expected + (np.array(steps)[:, None] + noise) * quantum
    quanta = gates.to_quanta(found, expected, quantum)
    assert quanta.dtype == np.int64 and quanta.shape == expected.shape
    # A half quantum more or less than `noise` may be lost in the addition.
    assert (np.abs(quanta[:, 0] - np.abs(np.array(steps))) <= (1 if abs(noise) > 0.48 else 0)).all()
    assert np.array_equal(quanta, gates.to_quanta(expected, found, quantum))


def test_float32_logits_on_a_grid_are_whole_quanta_apart() -> None:
    grid = (np.arange(-128, 128) * np.float32(0.0723)).astype(np.float32)
    quanta = gates.to_quanta(grid[:, None], grid[None, :], 0.0723)
    assert np.array_equal(quanta, np.abs(np.arange(256)[:, None] - np.arange(256)[None, :]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_no_number_is_many_quanta_away(value: float) -> None:
    found = np.array([[value, 0.0, 0.0]], np.float32)
    assert gates.to_quanta(found, np.zeros((1, 3), np.float32), 1e-3)[0, 0] > 10**9
    assert gates.to_quanta(np.zeros((1, 3), np.float32), found, 1e-3)[0, 0] > 10**9


# --- int8 against the fake-quantized network


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("steps, count, outcome", [(2, 900, "passed"), (3, 3, "passed"), (40, 3, "passed"), (3, 4, "failed"), (3, 900, "failed")])
def test_one_in_a_thousand_int8_logits_may_be_further_than_two_quanta(steps: int, count: int, outcome: str, sign: int) -> None:
    """3,000 logits: 99.9 of 100 are 2,997 of them."""
    expected = logits(1000)
    gate = int8_gate(moved(expected, sign * steps * QUANTUM, count), expected)
    assert gate.outcome == outcome and (gate.reason is None) == (outcome == "passed")
    assert gate.figures["max_quanta"] == steps and gate.figures["share_of_logits_off"] == count / 3000
    assert gate.figures["flips_beyond_margin"] == 0 and (gate.name, gate.reference) == ("int8", "keras-qat")
    assert (gate.figures["p99.9_quanta"] <= 2) == (outcome == "passed")


@pytest.mark.parametrize("margin, outcome", [(0, "passed"), (1, "passed"), (2, "passed"), (3, "failed"), (20, "failed")])
def test_an_int8_flip_is_excused_up_to_a_margin_of_two_quanta(margin: int, outcome: str) -> None:
    expected = logits(1000)
    expected[5] = np.array([margin, 0, -30], np.float32) * np.float32(QUANTUM)
    found = expected.copy()
    found[5, 1] = np.float32(margin + 1) * np.float32(QUANTUM)
    gate = int8_gate(found, expected)
    assert gate.outcome == outcome and gate.flip_count == 1
    assert gate.figures["flips_beyond_margin"] == (outcome == "failed") and gate.figures["p99.9_quanta"] == 0
    (flip,) = gate.flips
    assert (flip.picture, flip.reference, flip.candidate) == ("0005.png", "melanoma", "nevus")
    assert flip.margin == pytest.approx(margin * QUANTUM, abs=1e-6)
    assert outcome == "passed" or "1 flips beyond the margin" in gate.reason


# --- int8 ONNX against int8 TFLite, and golden logits


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("steps, outcome", [(0, "passed"), (1, "passed"), (1.4, "passed"), (1.6, "failed"), (2, "failed"), (100, "failed")])
def test_int8_onnx_may_be_one_quantum_off(steps: float, outcome: str, sign: int) -> None:
    expected = logits(1000)
    gate = onnx_gate(moved(expected, sign * steps * QUANTUM), expected)
    assert gate.outcome == outcome and gate.figures["max_quanta"] == round(steps)
    assert gate.reason == (None if outcome == "passed" else f"max {round(steps)} quanta")
    assert (gate.name, gate.reference, gate.artifact) == ("int8-onnx", "int8 TFLite", "test-int8.onnx")


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("steps, outcome", [(0, "passed"), (0.4, "passed"), (0.6, "failed"), (1, "failed")])
def test_golden_int8_logits_must_be_met_to_the_quantum(steps: float, outcome: str, sign: int) -> None:
    expected = logits(10)
    gate = golden_gate(INT8, moved(expected, sign * steps * QUANTUM), expected)
    assert gate.outcome == outcome and (gate.reason is None) == (outcome == "passed")
    assert (gate.name, gate.requirement, gate.measured_on) == ("golden", "0 quanta", "golden pictures")


@pytest.mark.parametrize("subject", [FLOAT, HALF, DYNAMIC])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("share, outcome", [(0.99e-3, "passed"), (1.01e-3, "failed")])
def test_golden_float_logits_must_be_met_to_a_thousandth_of_the_range(subject: Artifact, share: float, outcome: str, sign: int) -> None:
    expected = logits(10)
    assert golden_gate(subject, moved(expected, sign * share * 10), expected).outcome == outcome


# --- numbers that are none


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize(
    "compare",
    [
        *[lambda found, expected, subject=subject: float_gate(subject, found, expected) for subject in (FLOAT, HALF, DYNAMIC)],
        int8_gate,
        onnx_gate,
        *[lambda found, expected, subject=subject: golden_gate(subject, found, expected) for subject in (FLOAT, HALF, INT8)],
    ],
    ids=["float32", "float16", "dynamic", "int8", "onnx", "golden float32", "golden float16", "golden int8"],
)
def test_logits_that_are_no_numbers_fail_every_gate(compare, value: float, everywhere: bool) -> None:
    """One logit of 6,000, of a class that is not first anyway: no percentile or agreement sees it."""
    expected = logits(2000)
    found = expected.copy()
    found[slice(None) if everywhere else 1, 0] = value
    for gate in (compare(found, expected), compare(expected, found), compare(found, found)):
        assert gate.outcome == "failed" and f"NaN or infinity among the logits of {2000 if everywhere else 1} of 2000" in gate.reason
        assert Gate.model_validate_json(gate.model_dump_json()) == gate


# --- flips


@pytest.mark.parametrize("gate", [lambda *a: float_gate(HALF, *a), int8_gate, onnx_gate, lambda *a: golden_gate(INT8, *a)])
def test_flips_are_listed_by_margin_and_then_by_name(gate) -> None:
    expected = logits(100)
    expected[[10, 20, 30, 40], 1:] = -5.0
    expected[[10, 20, 30, 40], 0] = (1.0, 3.0, 3.0, 2.0)
    found = expected.copy()
    found[[10, 20, 30, 40], 2] = 9.0
    listed = gate(found, expected)
    assert [flip.picture for flip in listed.flips] == ["0020.png", "0030.png", "0040.png", "0010.png"]
    assert [flip.margin for flip in listed.flips] == [8.0, 8.0, 7.0, 6.0]
    assert {(flip.reference, flip.candidate) for flip in listed.flips} == {("melanoma", "vascular lesion")}
    assert listed.flip_count == 4 and listed.figures["top1_agreement"] == 0.96


def test_a_long_list_of_flips_is_cut_but_counted_whole() -> None:
    expected = logits(500)
    expected[:, :] = 0.0
    expected[:, 0] = np.arange(500) / 100 + 1
    gate = float_gate(HALF, np.roll(expected, 1, axis=1), expected)
    assert gate.flip_count == 500 and len(gate.flips) == gates.MAX_FLIPS == 200
    assert gate.flips[0].picture == "0499.png" and gate.flips[-1].picture == "0300.png"


# --- the task


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return open_bundle(write_bundle(tmp_path_factory.mktemp("gates") / "tiny.bundle")).manifest


def task_gate(manifest: Manifest, wrong: int, count: int = 600, *, lesions: int | None = None, threshold: float | None = 0.5) -> Gate:
    """Compare a float32 artifact that is always right with an int8 one that is wrong on `wrong` pictures of each class."""
    labels = np.arange(count) % 3
    right = (8.0 * np.eye(3)[labels]).astype(np.float32)
    found = right.copy()
    found[: 3 * wrong] = np.roll(right[: 3 * wrong], 1, axis=1)
    groups = np.arange(count) if lesions is None else np.arange(count) * lesions // count
    return gates.task_gate(
        manifest, artifact("int8", threshold=threshold), artifact(threshold=threshold), "litert", found, right, labels, groups, names(count)
    )


def test_the_task_gate_passes_where_nothing_is_lost(manifest: Manifest) -> None:
    gate = task_gate(manifest, wrong=0, count=1200)
    assert gate.outcome == "passed" and gate.reason is None and gate.flip_count == 0
    assert set(gate.losses) == {"balanced_accuracy", "positive_sensitivity", "positive_auc"}
    assert all(loss.value == 0.0 and -0.01 < loss.low <= loss.high < 0.01 for loss in gate.losses.values())
    assert gate.recall_change == dict.fromkeys(CLASSES, 0.0)
    assert (gate.name, gate.reference, gate.artifact, gate.pictures) == ("task", "test-float32.tflite", "test-int8.tflite", 1200)


def test_the_task_gate_fails_where_the_whole_interval_is_a_loss(manifest: Manifest) -> None:
    gate = task_gate(manifest, wrong=20)
    assert gate.outcome == "failed" and "lies wholly beyond 1 point" in gate.reason and "balanced_accuracy" in gate.reason
    assert gate.losses["balanced_accuracy"].value == pytest.approx(0.1) and gate.losses["balanced_accuracy"].low > 0.01
    assert gate.recall_change == pytest.approx(dict.fromkeys(CLASSES, -0.1)) and gate.flip_count == 60


def test_the_task_gate_says_where_it_cannot_tell(manifest: Manifest) -> None:
    gate = task_gate(manifest, wrong=1, count=60)
    assert gate.outcome == "inconclusive" and "reaches beyond 1 point: the set is too small to tell" in gate.reason
    assert "--data" in gate.reason
    loss = gate.losses["balanced_accuracy"]
    assert loss.low <= 0.01 < loss.high
    # Nor do a few on which nothing is lost.
    gate = task_gate(manifest, wrong=0, count=60)
    assert gate.outcome == "inconclusive" and gate.flip_count == 0 and gate.losses["positive_sensitivity"].high == pytest.approx(0.168, abs=1e-3)
    # Nor do many without the class that counts, or of which one class has two pictures only.
    labels = np.arange(1200) % 2 + 1
    right = (8.0 * np.eye(3)[labels]).astype(np.float32)
    gate = gates.task_gate(manifest, artifact("int8"), artifact(), "litert", right, right, labels, np.arange(1200), names(1200))
    assert gate.outcome == "inconclusive" and "positive_sensitivity, positive_auc are undefined" in gate.reason
    labels[:2] = 0
    right = (8.0 * np.eye(3)[labels]).astype(np.float32)
    gate = gates.task_gate(manifest, artifact("int8"), artifact(), "litert", right, right, labels, np.arange(1200), names(1200))
    assert gate.losses["balanced_accuracy"].high == pytest.approx((1 - 0.025**0.5) / 3, rel=0.01) and gate.outcome == "inconclusive"
    # The same pictures of one lesion say nothing about other lesions.
    gate = task_gate(manifest, wrong=20, lesions=1)
    assert gate.outcome == "inconclusive" and "balanced_accuracy, positive_sensitivity, positive_auc are undefined" in gate.reason


def test_pictures_of_few_lesions_tell_less_than_as_many_lesions(manifest: Manifest) -> None:
    many, few = (task_gate(manifest, wrong=20, lesions=lesions).losses["balanced_accuracy"] for lesions in (600, 20))
    assert many.value == few.value and few.high - few.low > 1.5 * (many.high - many.low)
    assert task_gate(manifest, wrong=20, lesions=20).outcome == "inconclusive"


def test_without_a_threshold_or_a_positive_class_the_rest_decides(manifest: Manifest) -> None:
    gate = task_gate(manifest, wrong=20, threshold=None)
    assert gate.losses["positive_sensitivity"].value is None and gate.outcome == "failed"
    for wrong, outcome in ((0, "passed"), (20, "failed")):
        gate = task_gate(manifest, wrong=wrong, count=1200 if wrong == 0 else 600, threshold=None)
        assert gate.outcome == outcome and "positive_sensitivity is left out: no threshold was fitted for test-float32.tflite and test-int8.tflite" in gate.reason
        assert "too small" not in gate.reason and gate.reason.isprintable()
    none = manifest.model_copy(update={"positive_class": None})
    gate = task_gate(none, wrong=0)
    assert gate.losses["positive_auc"].value is None and gate.outcome == "passed" and gate.reason is None


@pytest.mark.parametrize("wrong, outcome", [(0, "inconclusive"), (40, "failed")])
def test_a_model_that_lost_its_threshold_cannot_pass(manifest: Manifest, wrong: int, outcome: str) -> None:
    labels = np.arange(1200) % 3
    right = (8.0 * np.eye(3)[labels]).astype(np.float32)
    found = right.copy()
    found[: 3 * wrong] = np.roll(right[: 3 * wrong], 1, axis=1)
    gate = gates.task_gate(manifest, artifact("int8", threshold=None), FLOAT, "litert", found, right, labels, np.arange(1200), names(1200))
    assert gate.outcome == outcome and gate.reason.endswith("no threshold was fitted for test-int8.tflite; export the bundle again")


@pytest.mark.parametrize("gained", [0, 1])
@pytest.mark.parametrize("of_class", [4, 10])
def test_a_handful_of_pictures_cannot_pass_even_where_one_is_gained(manifest: Manifest, of_class: int, gained: int) -> None:
    labels = np.repeat([0, 1, 2], of_class)
    right = (8.0 * np.eye(3)[labels]).astype(np.float32)
    before = right.copy()
    before[:gained] = np.roll(right[:gained], 1, axis=1)
    gate = gates.task_gate(manifest, INT8, FLOAT, "litert", right, before, labels, np.arange(len(labels)), names(len(labels)))
    assert gate.outcome == "inconclusive" and all(name in gate.reason for name in ("balanced_accuracy", "positive_sensitivity", "positive_auc"))


def test_one_lost_lesion_of_a_class_that_has_no_other_proves_nothing(manifest: Manifest) -> None:
    labels = np.array([0] + [1, 2] * 150)
    right = (8.0 * np.eye(3)[labels]).astype(np.float32)
    found = right.copy()
    found[0] = np.roll(right[0], 1)
    gate = gates.task_gate(manifest, INT8, FLOAT, "litert", found, right, labels, np.arange(301), names(301))
    assert gate.outcome == "inconclusive" and gate.losses["positive_sensitivity"].value == 1.0


def test_each_artifact_is_judged_at_its_own_threshold_and_temperature(manifest: Manifest) -> None:
    labels = np.arange(1200) % 3
    right = (4.0 * np.eye(3)[labels]).astype(np.float32)
    strict = artifact("int8", threshold=0.999)
    gate = gates.task_gate(manifest, strict, FLOAT, "litert", right, right, labels, np.arange(1200), names(1200))
    assert gate.losses["positive_sensitivity"].value == 1.0 and gate.losses["balanced_accuracy"].value == 0.0
    cold = strict.model_copy(update={"decision": strict.decision.model_copy(update={"temperature": 0.1})})
    gate = gates.task_gate(manifest, cold, FLOAT, "litert", right, right, labels, np.arange(1200), names(1200))
    assert gate.losses["positive_sensitivity"].value == 0.0 and gate.outcome == "passed"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_task_on_logits_that_are_no_numbers_has_failed(manifest: Manifest, value: float) -> None:
    labels = np.arange(300) % 3
    right = (4.0 * np.eye(3)[labels]).astype(np.float32)
    found = right.copy()
    found[3, 1] = value
    gate = gates.task_gate(manifest, INT8, FLOAT, "litert", found, right, labels, np.arange(300), names(300))
    assert gate.outcome == "failed" and "NaN or infinity" in gate.reason


def loss(low: float | None, high: float | None) -> Interval:
    return Interval(value=None if low is None else (low + high) / 2, low=low, high=high)


UNDEFINED = loss(None, None)


@pytest.mark.parametrize(
    "losses, outcome",
    [
        ({"a": loss(-0.5, 0.01)}, "passed"),
        ({"a": loss(0.01, 0.01)}, "passed"),
        ({"a": loss(-0.5, 0.0101)}, "inconclusive"),
        ({"a": loss(0.01, 0.5)}, "inconclusive"),
        ({"a": loss(0.0101, 0.0102)}, "failed"),
        ({"a": loss(-0.5, -0.4)}, "passed"),
        ({"a": loss(-0.1, 0.0), "b": loss(-0.1, 0.02)}, "inconclusive"),
        ({"a": loss(-0.1, 0.02), "b": loss(0.02, 0.03)}, "failed"),
        ({"a": UNDEFINED, "b": loss(0.0, 0.0)}, "inconclusive"),
        ({"a": UNDEFINED, "b": loss(0.0, 0.5)}, "inconclusive"),
        ({"a": UNDEFINED}, "inconclusive"),
    ],
)
def test_the_three_outcomes_of_the_task(losses: dict[str, Interval], outcome: str) -> None:
    found, reason = gates.task_outcome(losses)
    assert found == outcome and (reason is None) == (outcome == "passed")
    assert reason is None or reason.isprintable()


def test_the_reason_names_the_figures() -> None:
    assert "the loss of a, c lies" in gates.task_outcome({"a": loss(0.1, 0.2), "b": loss(0, 0.5), "c": loss(0.1, 0.2)})[1]
    assert "the interval of b reaches" in gates.task_outcome({"a": loss(0, 0), "b": loss(0, 0.5)})[1]


# --- not run


@pytest.mark.parametrize("name", ["float32", "int8", "int8-onnx", "task", "arm64", "browser"])
def test_what_was_not_run_says_why_and_never_counts_as_passed(name: str) -> None:
    gate = gates.not_run(name, "test.tflite", "arm64", "x86", "0 quanta", "no arm64 runtime: use an Arm machine")
    assert gate.outcome == "not run" and gate.reason == "no arm64 runtime: use an Arm machine"
    assert gate.pictures == 0 and gate.figures == {} and gate.losses == {} and gate.flips == ()
    assert Gate.model_validate_json(gate.model_dump_json()).outcome == "not run"


def test_only_failed_gates_are_failed() -> None:
    expected = logits(10)
    passed, failed = float_gate(FLOAT, expected, expected), float_gate(FLOAT, expected + 1, expected)
    skipped = gates.not_run("arm64", "all", "arm64", "", "0 quanta", "no runtime")
    unsure = skipped.model_copy(update={"outcome": "inconclusive"})
    parity = Parity(
        bundle="test", manifest_sha256="0" * 64, command="", date="", data="", pictures=10, gates=(passed, skipped, failed, unsure), seconds=0.0, conditions={}
    )
    assert parity.failed == (failed,)
    assert [gate.outcome for gate in Parity.model_validate_json(parity.model_dump_json()).gates] == ["passed", "not run", "failed", "inconclusive"]
