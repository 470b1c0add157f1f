"""The facts that every room shares: recipe, input contract, artifact, bundle manifest.

All are frozen, validated models. Unknown keys, wrong types and contradictions are refused. The
JSON Schemas under ``melanoma_edge/schemas`` are generated from them (``python -m
melanoma_edge.schemas``), so there is one source of truth for each file format.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

RUN_SCHEMA_VERSION = 1
BUNDLE_SCHEMA_VERSION = 1

INPUT_NAME = "image"
OUTPUT_NAME = "logits"

Precision = Literal["float32", "float16", "dynamic", "int8"]
Format = Literal["tflite", "onnx"]

PRECISIONS: dict[Format, tuple[Precision, ...]] = {
    "tflite": ("float32", "float16", "dynamic", "int8"),
    "onnx": ("float32", "int8"),
}
"""The artifacts that exist: the one table that drives options, file names and gates."""

EXACT_INTEGERS = {"session.x64quantprecision": "1"}
"""What an ONNX Runtime session needs for int8 models on x86 processors without VNNI, in an application too:
their default kernels overflow (onnxruntime_session_options_config_keys.h)."""


class Model(BaseModel):
    """Base: frozen, no unknown keys, no silent conversions, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
CLASS_NAME_LENGTH = 200
ClassName = Annotated[str, Field(min_length=1, max_length=CLASS_NAME_LENGTH)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Operation(Model):
    """One augmentation: applied with `probability`, its strength drawn uniformly from [low, high]."""

    probability: Share
    low: float = 0.0
    high: float = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> "Operation":
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) is above high ({self.high}): swap them")
        return self


LIMITS: dict[str, tuple[float, float]] = {
    "crop": (0.05, 1.0),
    "shear": (-80.0, 80.0),
    "skew": (-0.5, 0.5),
    "elastic": (0.0, 0.5),
    "illuminant": (0.0, 1.0),
    "blur": (0.0, 0.1),
    "jpeg": (1.0, 100.0),
    "erase": (0.0, 1.0),
}
"""Strengths beyond these mean nothing, or (skew, shear) send the picture to infinity."""


class Augment(Model):
    """The augmentation pipeline, Augmentor style: every operation has a probability of its own.

    Geometric strengths: `rotate` degrees; `zoom` factor (1 = none); `crop` the share of the side that is
    kept, from a random place, and enlarged to the whole frame; `shift` share of the side; `shear` degrees;
    `skew` share of the side that a corner moves (perspective); `elastic` share of the side that a node of a
    smooth random field moves at most (0.1 looks like 8 pixels of 180 in Augmentor). Colour strengths: `brightness`, `contrast`, `saturation` factors
    (1 = none); `hue` degrees; `illuminant` the relative gain of a random channel tint. Then `blur` the
    standard deviation of a Gaussian as a share of the side (0.005 is 0.9 pixels of 180), `jpeg` the quality
    (1 to 100) at which the picture is compressed once more, and `erase` the side of the erased square as a share.
    """

    flip_left_right: Operation = Operation(probability=0.0)
    flip_top_bottom: Operation = Operation(probability=0.0)
    quarter_turn: Operation = Operation(probability=0.0)
    rotate: Operation = Operation(probability=0.0)
    zoom: Operation = Operation(probability=0.0, low=1.0, high=1.0)
    crop: Operation = Operation(probability=0.0, low=1.0, high=1.0)
    shift: Operation = Operation(probability=0.0)
    shear: Operation = Operation(probability=0.0)
    skew: Operation = Operation(probability=0.0)
    elastic: Operation = Operation(probability=0.0)
    brightness: Operation = Operation(probability=0.0, low=1.0, high=1.0)
    contrast: Operation = Operation(probability=0.0, low=1.0, high=1.0)
    saturation: Operation = Operation(probability=0.0, low=1.0, high=1.0)
    hue: Operation = Operation(probability=0.0)
    illuminant: Operation = Operation(probability=0.0)
    blur: Operation = Operation(probability=0.0)
    jpeg: Operation = Operation(probability=0.0, low=100.0, high=100.0)
    erase: Operation = Operation(probability=0.0)

    @model_validator(mode="after")
    def _sensible(self) -> "Augment":
        for name in ("zoom", "brightness", "contrast", "saturation"):
            if getattr(self, name).low <= 0 and getattr(self, name).probability > 0:
                raise ValueError(f"{name}.low must be above 0 (1 means unchanged)")
        for name, (lowest, highest) in LIMITS.items():
            found = getattr(self, name)
            if found.probability > 0 and not lowest <= found.low <= found.high <= highest:
                raise ValueError(f"{name} goes from {found.low:g} to {found.high:g}: expected low and high within {lowest:g} to {highest:g}")
        return self


SAMPLES_PER_CLASS = 300


class Recipe(Model):
    """Everything that decides a run: data policy, network, training, quantization, decisions."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")]
    """Name of the recipe; artifacts carry it in their file names."""
    description: str = ""
    """One paragraph for people: what it is for, how long it takes, what it reached."""

    network: Literal["edge", "classic"] = "edge"
    """`edge`: depthwise-separable blocks; `classic`: the three-block CNN of the usual notebooks."""
    image_size: Annotated[int, Field(ge=32, le=1024)] = 180
    """Side of the square network input in pixels."""
    decode: Literal["full", "reduced"] = "full"
    """How training decodes JPEGs: whole, as phones do; or large ones at a part of their size (never below twice
    `image_size`), quicker by a multiple and not quite the same pixels."""
    width: Annotated[float, Field(gt=0.0, le=4.0)] = 1.0
    """Factor on the channel counts of `edge`."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Dropout before the last layer."""

    positive_class: str = "melanoma"
    """The class whose sensitivity counts most; empty for none."""
    conflicts: Literal["reference", "drop", "keep"] = "reference"
    """What decides where labels of a picture and its copies contradict: the reference diagnosis (the rest
    dropped), nothing (all dropped), or nothing (all kept)."""
    duplicates: Literal["one", "keep"] = "one"
    """Whether one or all of several copies of a picture in a class are used."""
    min_lesions: Annotated[int, Field(ge=2)] = 20
    """A class with fewer lesions is left out and named."""
    max_bad_share: Share = 0.05
    """Training stops when a larger share of the files cannot be read as pictures."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """The data are cut into this many lesion-grouped folds; one is the test part."""
    fold: Annotated[int, Field(ge=0, le=19)] = 0
    """Which fold is the test part; another one of the rest is the validation part."""

    rebalance: Literal["augmentor", "balanced", "class_weight", "none"] = "augmentor"
    """How classes of different size are made to count alike. `augmentor`: `samples_per_class` augmented samples of
    each class an epoch. `balanced`: each sample's class is drawn evenly, then a picture of it; an epoch is as long as
    the training part. `class_weight`: every picture once, its loss weighted by n / (classes * pictures of its
    class). `none`: every picture once, and large classes count more."""
    samples_per_class: Annotated[int, Field(ge=1)] | None = None
    """Augmented samples of each class an epoch, for `augmentor` (300 where nothing is said) and nothing else."""
    augment: Augment = Augment()

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 60
    batch_size: Annotated[int, Field(ge=1, le=8192)] = 32
    learning_rate: Positive = 0.003
    """Peak of the one-cycle schedule (linear warm-up, cosine decay to zero)."""
    warmup_share: Annotated[float, Field(ge=0.0, le=0.5)] = 0.04
    """Share of the steps over which the learning rate rises to its peak."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.02
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    qat_epochs: Annotated[int, Field(ge=0, le=10_000)] = 6
    """Epochs of quantization-aware training after float training; 0 for none (then no int8)."""
    qat_learning_rate: Positive = 0.0001

    deployment_prior: Literal["balanced", "data"] = "balanced"
    """Class priors that probabilities are corrected to: uniform, or the frequencies in the data."""
    coverage: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Share of validation pictures that get an answer; below that confidence the model abstains."""
    operating_specificity: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.8
    """Specificity on validation at which the positive class's decision threshold is set."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 7

    @model_validator(mode="before")
    @classmethod
    def _samples(cls, values: Any) -> Any:
        """Put the default of `samples_per_class` where it has a meaning, so that a resolved recipe names it."""
        if isinstance(values, dict) and values.get("samples_per_class") is None and values.get("rebalance", "augmentor") == "augmentor":
            return {**values, "samples_per_class": SAMPLES_PER_CLASS}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if self.rebalance != "augmentor" and self.samples_per_class is not None:
            raise ValueError(
                f"samples_per_class is {self.samples_per_class} but rebalance is {self.rebalance!r}, which has an epoch length of its own: "
                'remove samples_per_class, or write rebalance = "augmentor"'
            )
        if self.fold >= self.folds:
            raise ValueError(f"fold is {self.fold} but folds is {self.folds}: expected fold in 0..{self.folds - 1}")
        return self


class InputContract(Model):
    """What goes into every artifact, and how a photograph becomes that."""

    width: int
    height: int
    channels: Literal["RGB"] = "RGB"
    layout: Literal["NHWC"] = "NHWC"
    batch: Literal[1] = 1
    value_range: tuple[int, int] = (0, 255)
    """Raw bytes; float artifacts take the same numbers as float32. No mean, no division."""
    resize: Literal["exif, centre-square, triangle-antialiased-22bit"] = "exif, centre-square, triangle-antialiased-22bit"
    """The algorithm of docs/input-contract.md; golden pictures carry the hash of its result."""


class Quantization(Model):
    scale: float
    zero_point: int


class Tensor(Model):
    name: str
    dtype: Literal["uint8", "float32"]
    shape: tuple[int, ...]
    quantization: Quantization | None = None


class Threshold(Model):
    """A decision rule for the positive class: positive when its probability is at least `probability`."""

    target_specificity: float
    probability: float
    validation_sensitivity: float | None
    validation_specificity: float | None


class Abstention(Model):
    """Below `probability` of the top class the model says that it does not know."""

    method: Literal["confidence"] = "confidence"
    coverage: float
    probability: float


class Decision(Model):
    """From logits to a decision, fitted on this artifact's own logits of the validation part."""

    temperature: Positive
    thresholds: tuple[Threshold, ...]
    operating_specificity: float
    """Which of `thresholds` is the one in force."""
    abstention: Abstention

    def operating(self) -> Threshold | None:
        """Return the threshold in force, or None where there is no positive class."""
        return next((t for t in self.thresholds if t.target_specificity == self.operating_specificity), None)


class Interval(Model):
    """A figure with its 95 % bootstrap interval; null where it is undefined."""

    value: float | None
    low: float | None
    high: float | None


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
    positive_sensitivity_at_80_specificity: Interval
    positive_sensitivity_at_90_specificity: Interval
    ece: Interval
    positive_sensitivity_of_decision: Interval | None = None
    """Share of the positive class above the threshold in force; null where there is none."""
    positive_specificity_of_decision: Interval | None = None
    """Share of the other classes below that threshold."""
    coverage_of_decision: Interval | None = None
    """Share of pictures on which the model does not abstain."""
    accuracy_of_answers: Interval | None = None
    """Accuracy on the pictures on which it does not abstain."""
    bootstrap: dict[str, int | str]
    """Replicates, seed and the unit that was resampled."""


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
    quantum: float | None
    """Scale of the quantized logits (int8 only): the unit in which int8 parity is measured."""
    operators: dict[str, int]
    """Census: how often each operator stands in the graph."""
    weight_bytes: dict[str, int]
    """Census: bytes of constant tensors by data type."""
    decision: Decision
    scores: Scores | None
    """On the run's test part."""
    probabilities: ProbabilitiesFile | None = None
    """For consumers that show scores as they come, where it was asked for."""


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


class Priors(Model):
    training: dict[str, float]
    deployment: dict[str, float]


class DataFacts(Model):
    sha256: Sha256
    """Over the hashes, labels and parts of all pictures used."""
    pictures: dict[str, int]
    """Pictures of each part."""
    lesions: dict[str, int]
    """Groups of each part: lesions where they are known, else single pictures with their copies."""
    with_lesion_id: dict[str, int]
    """Pictures of each part whose lesion or patient is known."""
    licences: dict[str, int] = {}
    """Pictures under each licence that the data set names; empty where it names none."""
    attributions: dict[str, int] = {}
    """Pictures for which each of these wants to be named."""
    left_out_classes: tuple[str, ...]
    calibration_sha256: Sha256
    """Over the hashes of the validation part's files, on which decisions were fitted."""


class Manifest(Model):
    """manifest.json of a bundle."""

    schema_version: Literal[1] = 1
    name: str
    notice: str
    tool_versions: dict[str, str]
    recipe: Recipe
    classes: Annotated[tuple[ClassName, ...], Field(min_length=2)]
    positive_class: str | None
    input: InputContract
    priors: Priors
    artifacts: Annotated[tuple[Artifact, ...], Field(min_length=1)]
    coreml: tuple[CoreML, ...] = ()
    """Core ML packages, where they were asked for; they run on Apple's systems only, so no runtime here has tried them."""
    weights: dict[str, Sha256]
    """SHA-256 of the run's weight files (`float`, `qat`) that the artifacts were made from."""
    data: DataFacts
    licence: str
    files: dict[str, Sha256]
    """Every file of the bundle but this one and evidence/."""

    @model_validator(mode="after")
    def _consistent(self) -> "Manifest":
        models = [*self.artifacts, *(artifact.probabilities for artifact in self.artifacts if artifact.probabilities is not None)]
        for path in [*self.files, *(model.path for model in (*models, *self.coreml))]:
            if not is_plain_relative(path):
                raise ValueError(f"path {path!r} leaves the bundle: expected a plain relative path")
        for model in models:
            if self.files.get(model.path) != model.sha256:
                raise ValueError(f"artifact {model.name} and the list of files disagree about its sha256")
        for package in self.coreml:
            if not any(path.startswith(f"{package.path}/") for path in self.files):
                raise ValueError(f"the Core ML package {package.name} holds no file")
        if self.positive_class is not None and self.positive_class not in self.classes:
            raise ValueError(f"positive_class {self.positive_class!r} is not among the classes")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class stands twice")
        for name, priors in (("training", self.priors.training), ("deployment", self.priors.deployment)):
            if set(priors) != set(self.classes) or min(priors.values()) <= 0:
                raise ValueError(f"the {name} priors do not give every class a share above 0")
        if len({model.name for model in (*models, *self.coreml)}) != len(models) + len(self.coreml):
            raise ValueError("an artifact stands twice")
        for artifact in self.artifacts:
            if artifact.precision == "int8" and not (artifact.quantum and artifact.quantum > 0):
                raise ValueError(f"int8 artifact {artifact.name} has no quantum above 0")
        if (self.input.width, self.input.height) != (self.recipe.image_size, self.recipe.image_size):
            raise ValueError(f"the input is {self.input.width} x {self.input.height}, the recipe's image_size {self.recipe.image_size}")
        return self

    def artifact(self, name: str) -> Artifact | None:
        """Return the artifact called `name`, or None."""
        return next((artifact for artifact in self.artifacts if artifact.name == name), None)


class EpochRow(Model):
    """One line of a run's history."""

    phase: Literal["float", "qat"]
    epoch: int
    loss: float
    accuracy: float
    """On the augmented training batches."""
    validation_loss: float
    validation_accuracy: float
    validation_balanced_accuracy: float
    learning_rate: float
    seconds: float
    images_per_second: float
    """Training pictures a second, feed and step together, validation apart."""


class RunFacts(Model):
    """run.json: what a run is, was made from and has come to."""

    schema_version: Literal[1] = 1
    state: Literal["training", "complete"]
    command: str
    data: str
    """The data set as it was named, absolute: a folder or an index table."""
    root: str
    """The folder that paths of pictures are relative to, absolute."""
    source: str
    """Kind of data set: `class folders`, `ISIC Archive` ..."""
    metadata: str | None
    """The metadata CSV where one was named, absolute."""
    tables: tuple[str, ...]
    """The CSV files that classes, ids and diagnoses came from, absolute."""
    licences: tuple[str, ...]
    """The only licences that were asked for; empty for any."""
    data_sha256: Sha256
    classes: tuple[ClassName, ...]
    training_priors: dict[str, float]
    data_priors: dict[str, float]
    """Class frequencies among all pictures used."""
    parameters: int
    multiply_accumulates: int
    weights: dict[str, Sha256]
    """SHA-256 of each weight file that is finished: `float`, `qat`."""
    seconds: dict[str, float]
    """Wall time of each phase so far."""
    peak_memory_bytes: int
    conditions: dict[str, Any]
    """Versions, CPU and so on of the machine (see :mod:`melanoma_edge.host`)."""


def is_plain_relative(path: str) -> bool:
    """Whether `path` is a relative POSIX path of ordinary names: no `..`, root, drive or backslash."""
    parts = path.split("/")
    return all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_. +-]*", part) is not None and not part.endswith((" ", ".")) for part in parts)
