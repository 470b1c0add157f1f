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
    somebody else's that ends in float."""
    calibration: Calibration | None = None
    """What post-training quantization was calibrated on; null for the others."""
    operators: dict[str, int]
    """Census: how often each operator stands in the graph."""
    weight_bytes: dict[str, int]
    """Census: bytes of constant tensors by data type."""
    decision: Decision
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
    """See :func:`melanoma_edge.metrics.paired_losses`: reference minus candidate, so above zero is a loss."""
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


class Source(Model):
    """The model file of somebody else's that a bundle was made from."""

    file: str
    """Its name, without folders."""
    format: Literal["keras", "onnx", "tflite"]
    sha256: Sha256
    bytes: int
    changes: tuple[str, ...] = ()
    """What had to be changed in it before it could be used, in words; empty where artifacts hold its very bytes or weights."""
    written_by: str = ""
    """What the file says that it was written by."""


class Fitting(Model):
    """The labelled pictures that decisions of a model of somebody else's were fitted on."""

    pictures: int
    per_class: dict[str, int]
    sha256: Sha256
    """Over the sorted hashes of their files."""
    held_back: int
    """How many more there were, of other lesions; scores are theirs."""


class Manifest(Model):
    """manifest.json of a bundle."""

    schema_version: Literal[1] = 1
    name: str
    notice: str
    tool_versions: dict[str, str]
    origin: Literal["run", "model"] = "run"
    """Whether a run of melanoma-edge was exported, or a model file of somebody else's wrapped."""
    source: Source | None = None
    """That model file."""
    recipe: Recipe | None = None
    """Null for a model of somebody else's: how it was trained is not known."""
    classes: Annotated[tuple[ClassName, ...], Field(min_length=2)]
    positive_class: str | None
    input: InputContract
    output: Literal["logits", "probabilities"] = "logits"
    """What the artifacts give. Decisions begin with logits: of probabilities their logarithms (docs/input-contract.md)."""
    priors: Priors
    """Uniform, so without effect, for a model of somebody else's."""
    artifacts: Annotated[tuple[Artifact, ...], Field(min_length=1)]
    comparisons: tuple[Comparison, ...] = ()
    """Float, post-training and quantization-aware int8 against each other, where there is a post-training artifact."""
    coreml: tuple[CoreML, ...] = ()
    """Core ML packages, where they were asked for; they run on Apple's systems only, so no runtime here has tried them."""
    weights: dict[str, Sha256]
    """SHA-256 of the run's weight files (`float`, `qat`) that the artifacts were made from."""
    data: DataFacts | None = None
    """Null for a model of somebody else's: what it was trained on is not known."""
    fitting: Fitting | None = None
    """What the decisions of a model of somebody else's were fitted on; null where none were, and for runs (their validation part)."""
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
            if artifact.integer and self._made_here(artifact) and not (artifact.quantum and artifact.quantum > 0):
                raise ValueError(f"int8 artifact {artifact.name} has no quantum above 0")
            if artifact.precision == "int8-ptq" and artifact.calibration is None:
                raise ValueError(f"artifact {artifact.name} does not say on which pictures it was calibrated")
        for comparison in self.comparisons:
            if self.artifact(comparison.reference) is None or self.artifact(comparison.candidate) is None:
                raise ValueError(f"{comparison.candidate} is compared with {comparison.reference}, and not both are artifacts")
        self._check_origin()
        for artifact in self.artifacts:
            if artifact.layout not in LAYOUTS[artifact.format] and self._made_here(artifact):
                raise ValueError(f"artifact {artifact.name} says that it takes {artifact.layout}: expected {' or '.join(LAYOUTS[artifact.format])} of {artifact.format}")
            if artifact.input.shape != (expected := input_shape(artifact.layout, self.input.height, self.input.width)):
                raise ValueError(f"artifact {artifact.name} takes {list(artifact.input.shape)}: expected {list(expected)} for {artifact.layout}")
        return self

    def _made_here(self, artifact: Artifact) -> bool:
        """Whether this tool converted the artifact, rather than took it as somebody else made it."""
        return self.origin == "run" or artifact.precision == "int8-ptq" or (self.source is not None and self.source.format == "keras")

    def _check_origin(self) -> None:
        """Raise ValueError unless what has to be known of a run, or of a model file, is."""
        if self.origin == "model":
            if self.input.width != self.input.height:
                raise ValueError(f"the input is {self.input.width} x {self.input.height}: expected a square")
            if self.source is None or self.recipe is not None or self.data is not None or self.weights:
                raise ValueError("a bundle of origin model names its source and has no recipe, data or weights of a run")
            return
        if self.recipe is None or self.data is None or self.source is not None:
            raise ValueError("a bundle of origin run has the run's recipe and data and no other source")
        if not self.input.raw or self.output != "logits":
            raise ValueError("the models of a run take raw bytes and give logits")
        if (self.input.width, self.input.height) != (self.recipe.image_size, self.recipe.image_size):
            raise ValueError(f"the input is {self.input.width} x {self.input.height}, the recipe's image_size {self.recipe.image_size}")

    @property
    def policy(self) -> Recipe:
        """The recipe; for a model of somebody else's, a recipe whose rules for contradicting labels and copies hold instead."""
        return self.recipe or Recipe(name="defaults", positive_class=self.positive_class or "")

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


def network_of(precision: Precision) -> Literal["float", "qat"]:
    """Return which of a run's networks an artifact of this precision is made from."""
    return "qat" if precision == "int8" else "float"


def input_shape(layout: Layout, height: int, width: int) -> tuple[int, int, int, int]:
    """Return the shape of a model's input for one picture."""
    return (1, height, width, 3) if layout == "NHWC" else (1, 3, height, width)


def is_plain_relative(path: str) -> bool:
    """Whether `path` is a relative POSIX path of ordinary names: no `..`, root, drive or backslash."""
    parts = path.split("/")
    return all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_. +-]*", part) is not None and not part.endswith((" ", ".")) for part in parts)
