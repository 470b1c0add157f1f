"""One model file: which there are, what goes in and comes out, its decision, its scores, and what it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator

from melanoma_edge.contract.base import Model, Positive, Sha256, Share

INPUT_NAME = "image"
OUTPUT_NAME = "logits"

Precision = Literal["float32", "float16", "dynamic", "int8", "int8-ptq"]
"""`int8` comes from quantization-aware training; `int8-ptq` from the float network, quantized after training."""
Format = Literal["tflite", "onnx"]
Layout = Literal["NHWC", "NCHW"]

PRECISIONS: dict[Format, tuple[Precision, ...]] = {
    "tflite": ("float32", "float16", "dynamic", "int8", "int8-ptq"),
    "onnx": ("float32", "int8", "int8-ptq"),
}
"""The artifacts that exist: the one table that drives options, file names and gates."""
ON_REQUEST: frozenset[Precision] = frozenset({"int8-ptq"})
"""Made only when asked for by name: they are there to be compared with."""
INTEGER: frozenset[Precision] = frozenset({"int8", "int8-ptq"})
"""Computed in integers, whatever the ranges come from."""
LAYOUTS: dict[Format, tuple[Layout, ...]] = {"tflite": ("NHWC",), "onnx": ("NHWC", "NCHW")}
"""The orders of axes that a format's input can have; the first unless another is asked for."""

EXACT_INTEGERS = {"session.x64quantprecision": "1"}
"""What an ONNX Runtime session needs for int8 models on x86 processors without VNNI, in an application too:
their default kernels overflow (onnxruntime_session_options_config_keys.h)."""


class InputContract(Model):
    """What goes into every artifact, and how a photograph becomes that."""

    width: int
    height: int
    channels: Literal["RGB", "BGR"] = "RGB"
    layout: Literal["NHWC"] = "NHWC"
    """Order of a picture's bytes as this contract makes them; an artifact says for itself in which order it takes them."""
    batch: Literal[1] = 1
    value_range: tuple[int | float, int | float] = (0, 255)
    """The numbers that stand for the bytes 0 and 255. Our own models take raw bytes; float artifacts the same numbers as float32."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """What is subtracted from each channel, in the units of `value_range` and the order of `channels`."""
    std: tuple[Positive, Positive, Positive] = (1.0, 1.0, 1.0)
    """What each channel is divided by after that."""
    resize: Literal["exif, centre-square, triangle-antialiased-22bit"] = "exif, centre-square, triangle-antialiased-22bit"
    """The algorithm of docs/input-contract.md; golden pictures carry the hash of its result."""

    @model_validator(mode="after")
    def _sensible(self) -> "InputContract":
        if self.value_range[0] == self.value_range[1]:
            raise ValueError(f"value_range goes from {self.value_range[0]:g} to {self.value_range[1]:g}: expected two different numbers")
        return self

    @property
    def raw(self) -> bool:
        """Whether models take the bytes as they are."""
        return (self.channels, self.value_range, self.mean, self.std) == ("RGB", (0, 255), (0.0,) * 3, (1.0,) * 3)


class Quantization(Model):
    scale: float
    zero_point: int


class Tensor(Model):
    name: str
    dtype: Literal["uint8", "int8", "float32"]
    shape: tuple[int, ...]
    quantization: Quantization | None = None


class Interval(Model):
    """A figure with its 95 % interval; null where it is undefined."""

    value: float | None
    low: float | None
    high: float | None


class Threshold(Model):
    """A decision rule for the positive class: positive when its probability is at least `probability`."""

    rule: Literal["sensitivity", "specificity"]
    """What chose it: it is the highest threshold that keeps the sensitivity `target`, or the lowest that keeps the specificity `target`."""
    target: Share
    """The sensitivity or specificity that was to be kept on validation."""
    probability: float
    validation_sensitivity: Interval | None
    """Share of the validation part's positives that reach it; its interval holds for the lesions that there are (:func:`melanoma_edge.exact.share`).
    Null without positives."""
    validation_specificity: Interval | None
    """Share of the validation part's other pictures below it, which is what the sensitivity costs. Null without any."""
    validation_called: dict[str, Interval] | None = None
    """Share of the validation part's pictures of each other class that reach it, classes without any left out: the same cost, class by class.
    Given for the threshold in force only; null in files of earlier versions."""

    @model_validator(mode="before")
    @classmethod
    def _of_version_1(cls, values: Any) -> Any:
        """Read what version 1 of run and bundle wrote: thresholds were chosen by specificity, and shares stood without intervals."""
        if isinstance(values, dict) and "target_specificity" in values and "rule" not in values:
            values = {"rule": "specificity", "target": values["target_specificity"], **{key: value for key, value in values.items() if key != "target_specificity"}}
            for name in ("validation_sensitivity", "validation_specificity"):
                if isinstance(values.get(name), float | int):
                    values[name] = {"value": float(values[name]), "low": None, "high": None}
        return values

    def in_words(self) -> str:
        """Return which rule chose it: `the highest threshold with 90 % sensitivity on validation`."""
        side = "highest" if self.rule == "sensitivity" else "lowest"
        return f"the {side} threshold with {self.target * 100:g} % {self.rule} on validation"


class Abstention(Model):
    """When the model says that it does not know: where a picture's score lies on the other side of `threshold`.

    `confidence`: the score is the probability of the top class, as the decision's temperature and the priors make it; at
    least `threshold` is answered. `energy`: it is E = -temperature * log(sum(exp(logits / temperature))) of the artifact's own
    logits (Liu et al. 2020, "Energy-based Out-of-distribution Detection"), low for what is familiar; at most `threshold` is answered.
    """

    method: Literal["confidence", "energy"] = "confidence"
    coverage: float
    """Share of the validation pictures that was to be answered."""
    threshold: float
    answered: Literal["at least", "at most"] = "at least"
    """On which side of `threshold` a score is answered; the threshold itself is."""
    temperature: Positive | None = None
    """Of the energy, not of the probabilities; null for `confidence`."""

    @model_validator(mode="before")
    @classmethod
    def _of_version_1(cls, values: Any) -> Any:
        """Read what version 1 of run and bundle wrote: the threshold was called `probability`."""
        if isinstance(values, dict) and "probability" in values and "threshold" not in values:
            return {"threshold": values["probability"], **{key: value for key, value in values.items() if key != "probability"}}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> "Abstention":
        expected = "at most" if self.method == "energy" else "at least"
        if self.answered != expected:
            raise ValueError(f"abstention by {self.method} answers {self.answered} its threshold: expected {expected}")
        if (self.temperature is None) == (self.method == "energy"):
            raise ValueError(f"abstention by {self.method} has the temperature {self.temperature}: expected {'a number above 0' if self.method == 'energy' else 'none'}")
        return self


class Decision(Model):
    """From logits to a decision, fitted on this artifact's own logits of the validation part (docs/decisions.md)."""

    temperature: Positive
    threshold: Threshold | None
    """The one in force; null where there is no positive class, or nothing to fit on."""
    other_thresholds: Annotated[tuple[Threshold, ...], Field(strict=False)] = ()
    """What other rules would have chosen: to look at, not in force."""
    abstention: Abstention

    @model_validator(mode="before")
    @classmethod
    def _of_version_1(cls, values: Any) -> Any:
        """Read what version 1 of run and bundle wrote: a list, and the specificity of the one in force."""
        if isinstance(values, dict) and "operating_specificity" in values and "threshold" not in values:
            kept = {key: value for key, value in values.items() if key not in ("operating_specificity", "thresholds")}
            found = [threshold if isinstance(threshold, Threshold) else Threshold.model_validate(threshold) for threshold in values.get("thresholds", ())]
            in_force = next((threshold for threshold in found if threshold.target == values["operating_specificity"]), None)
            return {**kept, "threshold": in_force, "other_thresholds": tuple(threshold for threshold in found if threshold is not in_force)}
        return values

    def operating(self) -> Threshold | None:
        """Return the threshold in force, or None where there is no positive class."""
        return self.threshold


class Scores(Model):
    """The figures of one model on one set of pictures (see :mod:`melanoma_edge.metrics`)."""

    pictures: int
    lesions: int
    per_class: dict[str, int]
    """Pictures of each class."""
    positive_class: str | None
    accuracy: Interval
    balanced_accuracy: Interval
    macro_f1: Interval
    recall: dict[str, Interval]
    macro_auc: Interval
    positive_auc: Interval
    positive_auc_against: dict[str, Interval] | None = None
    """AUC of the positive class against each other class alone, on the pictures of these two. Null where there is no positive class, and in files of
    versions that did not measure it."""
    positive_sensitivity_at_80_specificity: Interval
    positive_sensitivity_at_90_specificity: Interval
    ece: Interval
    """Calibration error of the top class, on these pictures in the mix of classes that they come in. Probabilities are corrected to the deployment priors: where these are
    another mix, it is not 0 even if they are perfect."""
    ece_at_priors: Interval | None = None
    """The same with the pictures weighted so that each class has its share of the deployment priors, as where the temperature is fitted. Null
    where none are known (models of somebody else's), and in files of versions that did not measure it."""
    positive_sensitivity_of_decision: Interval | None = None
    """Share of the positive class above the threshold in force; null where there is none."""
    positive_specificity_of_decision: Interval | None = None
    """Share of the other classes below that threshold."""
    called_positive: dict[str, Interval] | None = None
    """Share of each other class above that threshold: the false alarms on it. Null where there is no threshold, and in files of versions that did not
    measure it."""
    coverage_of_decision: Interval | None = None
    """Share of pictures on which the model does not abstain."""
    accuracy_of_answers: Interval | None = None
    """Accuracy on the pictures on which it does not abstain."""
    bootstrap: dict[str, int | str]
    """Replicates, seed and the unit that was resampled."""


class NonLesionRate(Model):
    """How many drawn pictures without a lesion get an answer, where one score decides about abstaining."""

    method: Literal["confidence", "energy"]
    threshold: float
    """Fitted at the coverage of the decision's abstention, on the same validation logits."""
    answered: int
    """Of all such pictures; the fewer, the better."""
    per_kind: dict[str, int]
    """Of each kind."""


class NonLesions(Model):
    """What an artifact does with drawn pictures that show no lesion (:mod:`melanoma_edge.data.non_lesions`)."""

    pictures: int
    per_kind: dict[str, int]
    """Pictures of each kind."""
    rates: tuple[NonLesionRate, ...]
    """For confidence and, where the artifact gives logits, for energy: both at the same coverage, so that they can be compared."""


class Calibration(Model):
    """The pictures on which post-training quantization measured the ranges of activations."""

    pictures: int
    per_class: dict[str, int]
    """Empty where their classes are not known."""
    sha256: Sha256
    """Over the sorted hashes of their files."""


class ProbabilitiesFile(Model):
    """An artifact's second file: the same network, with its decision's temperature and the class priors in the graph."""

    name: str
    """The artifact's name with `-probabilities` before the extension, which is also its path in the bundle."""
    path: str
    sha256: Sha256
    bytes: int
    output: Tensor
    """`probabilities`; the input is the artifact's own."""
    operators: dict[str, int]
    """Census: how often each operator stands in the graph."""


class Artifact(Model):
    """One model file of a bundle; its head is logits."""

    name: str
    """`<recipe>-<precision>.<format>`, which is also its path in the bundle."""
    path: str
    format: Format
    precision: Precision
    sha256: Sha256
    bytes: int
    input: Tensor
    output: Tensor
    layout: Layout = "NHWC"
    """Order of the input's axes: [1, height, width, 3] or [1, 3, height, width]."""
    quantum: float | None
    """Scale of the quantized logits (int8 only): the unit in which int8 parity is measured. Null in an int8 file of
    somebody else's that ends in float, and in int8 ONNX made of a network that ends in softmax, which stays float."""
    calibration: Calibration | None = None
    """What post-training quantization was calibrated on; null for the others."""
    operators: dict[str, int]
    """Census: how often each operator stands in the graph."""
    weight_bytes: dict[str, int]
    """Census: bytes of constant tensors by data type."""
    decision: Decision
    non_lesions: NonLesions | None = None
    """How much of what is no lesion is answered all the same; null where nothing was fitted, and in bundles of version 1."""
    scores: Scores | None
    """On the run's test part; for a model of somebody else's, on the half of the labelled pictures that decisions were not fitted on."""
    probabilities: ProbabilitiesFile | None = None
    """For consumers that show scores as they come, where it was asked for."""

    @property
    def integer(self) -> bool:
        """Whether it computes in integers."""
        return self.precision in INTEGER

    @property
    def network(self) -> Literal["float", "qat"]:
        """Which of the run's networks it was made from."""
        return network_of(self.precision)


class Comparison(Model):
    """What one artifact loses against another on the run's test part: a paired bootstrap over its lesions."""

    reference: str
    """Name of an artifact."""
    candidate: str
    """Name of another one."""
    pictures: int
    lesions: int
    losses: dict[str, Interval]
    """See :func:`melanoma_edge.paired.paired_losses`: reference minus candidate, so above zero is a loss."""
    flips: int
    """Pictures on which they name different classes first."""


class CoreML(Model):
    """A Core ML package: the float network as an ML program that classifies images, in a folder of the bundle."""

    name: str
    """`<recipe>-<precision>.mlpackage`, which is also its path in the bundle."""
    path: str
    precision: Literal["float16", "int8-weights"]
    """How weights are stored; it computes in float16 either way. Small layers stay float16 in both."""
    artifact: str
    """The artifact whose weights and temperature it has; it gives logits and the calibrated probabilities of each class."""
    bytes: int
    specification: int
    """Version of the Core ML specification: 7 is iOS 16 and macOS 13."""
    operators: dict[str, int]
    """Census: how often each operator stands in the program, read back from the package."""
    layers: dict[str, int]
    """Census: layers by the type that their weights are stored in."""
    weight_error: Annotated[float, Field(ge=0.0, le=1.0)]
    """Largest difference of a weight to the artifact's, as a share of what rounding to its type explains."""


Of = TypeVar("Of")


def network_of(precision: Precision) -> Literal["float", "qat"]:
    """Return which of a run's networks an artifact of this precision is made from."""
    return "qat" if precision == "int8" else "float"


def for_phones(found: Sequence[Of]) -> Of:
    """Return the one of `found` (artifacts, or what has their precision) that a phone would run: the first int8 one, else the first."""
    return next((one for one in found if one.precision == "int8"), found[0])


def input_shape(layout: Layout, height: int, width: int) -> tuple[int, int, int, int]:
    """Return the shape of a model's input for one picture."""
    return (1, height, width, 3) if layout == "NHWC" else (1, 3, height, width)
