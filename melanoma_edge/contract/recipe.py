"""The recipe: everything that decides a run, with its augmentation."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, ModelWrapValidatorHandler, field_validator, model_validator

from melanoma_edge.contract.base import CLASS_NAME_LENGTH, ClassName, Model, Positive, Share


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


class Mix(Model):
    """Pictures mixed with another one of their batch, after they were augmented; the target is mixed alike.

    Strengths are shares that come from the other picture: `mixup` its weight in a blend of both, `cutmix` the area of a box
    that is cut out of it (before what sticks out at the edges is cut off). A picture that is drawn for both gets cutmix.
    """

    mixup: Operation = Operation(probability=0.0)
    cutmix: Operation = Operation(probability=0.0)

    @model_validator(mode="after")
    def _shares(self) -> "Mix":
        for name in ("mixup", "cutmix"):
            found = getattr(self, name)
            if not 0 <= found.low <= found.high <= 1:
                raise ValueError(f"{name} goes from {found.low:g} to {found.high:g}: expected shares within 0 to 1")
        return self


class Distillation(Model):
    """Learning from networks of the same kind that are trained first (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network").

    Each teacher begins with other weights and sees other samples, in another order, so that they err apart and are more often right together than
    one alone (Allen-Zhu and Li 2023, "Towards Understanding Ensemble, Knowledge Distillation and Self-Distillation in Deep Learning"). The network then
    learns what they say together of the very pictures that it gets itself, augmented and mixed (Beyer et al. 2022, "Knowledge distillation: A good teacher
    is patient and consistent"). Teachers cost time in training and nothing in the network that comes of it.
    """

    teachers: Annotated[int, Field(ge=0, le=16)] = 0
    """How many; 0 for none."""
    epochs: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Of each teacher; as many as the network's own where nothing is said."""
    weight: Annotated[float, Field(gt=0.0, le=1.0)] = 0.7
    """What the divergence from their answers counts in the loss; the labels count the rest."""
    temperature: Positive = 2.0
    """Divides their logits and the network's: above 1, unlikely classes count more."""


FOLDS = 5
SAMPLES_PER_CLASS = 300
OPERATING_SENSITIVITY = 0.9
PRIOR_ROUNDING = 0.01
"""How far the shares of `deployment_prior` may add up to something else than 1: so much is rounding, more is a mistake."""


class Recipe(Model):
    """Everything that decides a run: data policy, network, training, quantization, decisions."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,40}$")]
    """Name of the recipe; artifacts carry it in their file names."""
    description: str = ""
    """One paragraph for people: what it is for, how long it takes, what it reached."""

    network: Literal["edge", "edge-residual", "edge-lean", "classic", "classic-batchnorm"] = "edge"
    """`edge`: depthwise-separable blocks; `edge-residual`: those with a way around each block that keeps the shape; `edge-lean`: such blocks, ways around them included, few at
    high resolution, which int8 runs faster; `classic`: the three-block CNN of the usual notebooks; `classic-batchnorm`:
    that with a BatchNormalization behind each convolution."""
    image_size: Annotated[int, Field(ge=32, le=1024)] = 180
    """Side of the square network input in pixels."""
    decode: Literal["full", "reduced"] = "full"
    """How training decodes JPEGs: whole, as phones do; or large ones at a part of their size (never below twice
    `image_size`), quicker by a multiple and not quite the same pixels."""
    width: Annotated[float, Field(gt=0.0, le=4.0)] = 1.0
    """Factor on the channel counts of the `edge` networks."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Dropout before the last layer."""

    init: str = ""
    """Safetensors file of weights to start from, such as a run's weights/float.safetensors; empty for random ones. Its names and shapes
    must be the network's, but for the last layer's, which starts afresh where the classes are others. The run keeps a copy."""

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
    folds: Annotated[int, Field(ge=1, le=20)] = FOLDS
    """The data are cut into this many lesion-grouped folds; one is the test part. With 1 there is no test part: everything is trained
    on, but for the validation part."""
    fold: Annotated[int, Field(ge=0, le=19)] = 0
    """Which fold is the test part."""
    validation_folds: Annotated[int, Field(ge=2, le=20)] | None = None
    """The other folds are cut anew into this many (as many as `folds` where nothing is said, and 5 where that is 1), just as they were; one of these is
    the validation part. It decides the temperature, the thresholds and, with `kept_epoch`, the weights; fewer pictures there are more to train on."""

    rebalance: Literal["augmentor", "balanced", "class_weight", "none"] = "augmentor"
    """How classes of different size are made to count alike. `augmentor`: `samples_per_class` augmented samples of
    each class an epoch. `balanced`: each sample's class is drawn evenly, then a picture of it; an epoch is as long as
    the training part. `class_weight`: every picture once, its loss weighted by n / (classes * pictures of its
    class). `none`: every picture once, and large classes count more."""
    samples_per_class: Annotated[int, Field(ge=1)] | None = None
    """Augmented samples of each class an epoch, for `augmentor` (300 where nothing is said) and nothing else."""
    augment: Augment = Augment()
    mix: Mix = Mix()
    distillation: Distillation = Distillation()

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 60
    batch_size: Annotated[int, Field(ge=1, le=8192)] = 32
    learning_rate: Positive = 0.003
    """Peak of the schedule, reached by a linear warm-up."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """What the learning rate does after its peak, in both phases: `cosine` falls to zero, `constant` stays there."""
    warmup_share: Annotated[float, Field(ge=0.0, le=0.5)] = 0.04
    """Share of the steps over which the learning rate rises to its peak."""
    kept_epoch: Literal["best", "last"] = "best"
    """Whose weights each phase keeps: those of the epoch that is best on the validation part (balanced accuracy, then loss), or
    those of the last, which no picture of the validation part had a say in."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.02
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    qat_epochs: Annotated[int, Field(ge=0, le=10_000)] = 6
    """Epochs of quantization-aware training after float training; 0 for none (then no int8)."""
    qat_learning_rate: Positive = 0.0001

    deployment_prior: Literal["balanced", "data"] | dict[ClassName, Annotated[float, Field(gt=0.0, le=1.0)]] = "balanced"
    """Class priors that probabilities are corrected to: uniform, the frequencies in the data, or, where it is known how often each class will come where
    the model is used, a table of these shares, {melanoma = 0.04, "actinic keratosis" = 0.1, ...}: one above 0 for every class, adding up to 1."""
    coverage: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Share of validation pictures that get an answer; on the others the model abstains."""
    abstention: Literal["confidence", "energy"] = "confidence"
    """What decides that a picture gets no answer. `confidence`: the probability of its top class; `energy`: the energy of its
    logits (Liu et al. 2020), for models that give logits."""
    operating_sensitivity: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Sensitivity on validation that the positive class's decision threshold keeps: the highest such threshold is in force
    (0.9 where nothing is said)."""
    operating_specificity: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Instead of `operating_sensitivity`, the specificity that it keeps: the lowest such threshold is in force."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 7

    @model_validator(mode="before")
    @classmethod
    def _samples(cls, values: Any) -> Any:
        """Put the default of `samples_per_class` where it has a meaning, so that a resolved recipe names it."""
        if isinstance(values, dict) and values.get("samples_per_class") is None and values.get("rebalance", "augmentor") == "augmentor":
            return {**values, "samples_per_class": SAMPLES_PER_CLASS}
        return values

    @model_validator(mode="wrap")
    @classmethod
    def _validation(cls, values: Any, handler: ModelWrapValidatorHandler["Recipe"]) -> "Recipe":
        """Put the default of `validation_folds` in, so that a resolved recipe names it. `model_fields_set` tells it from a stated one: with other `folds` it is another."""
        if not isinstance(values, dict) or values.get("validation_folds") is not None:
            return handler(values)
        folds = values.get("folds", FOLDS)
        made = handler({**values, "validation_folds": FOLDS if folds == 1 else folds})
        made.model_fields_set.discard("validation_folds")
        return made

    @model_validator(mode="before")
    @classmethod
    def _operating(cls, values: Any) -> Any:
        """Put the default of `operating_sensitivity` where no rule is named, so that a resolved recipe names one."""
        if isinstance(values, dict) and values.get("operating_sensitivity") is None and values.get("operating_specificity") is None:
            return {**values, "operating_sensitivity": OPERATING_SENSITIVITY}
        return values

    @field_validator("deployment_prior", mode="before")
    @classmethod
    def _shares(cls, given: Any) -> Any:
        """Refuse what is neither a word nor a table of shares; that the classes are those of the data is known only when the data are."""
        if isinstance(given, str) and given in ("balanced", "data"):
            return given
        if not isinstance(given, dict):
            raise ValueError('expected "balanced", "data" or a table with the share of each class')
        if any(not isinstance(name, str) or not 0 < len(name) <= CLASS_NAME_LENGTH for name in given):
            raise ValueError(f"expected names of classes, of 1 to {CLASS_NAME_LENGTH} characters")
        for name, share in given.items():
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:  # NaN is neither
                raise ValueError(f"expected a share above 0 and at most 1 for {name!r}")
        if len(given) < 2:
            raise ValueError("expected a share for each of at least 2 classes")
        total = math.fsum(given.values())
        if abs(total - 1) > PRIOR_ROUNDING + 1e-9:  # 3 * 0.33 is still rounding, whatever is left out in float64
            raise ValueError(f"the shares add up to {total:.6g}, expected 1 ({1 - PRIOR_ROUNDING:g} to {1 + PRIOR_ROUNDING:g} for rounding)")
        return given

    @property
    def has_test_part(self) -> bool:
        """Whether some of the data is held back to test on."""
        return self.folds > 1

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if self.operating_sensitivity is not None and self.operating_specificity is not None:
            raise ValueError(
                f"operating_sensitivity is {self.operating_sensitivity:g} and operating_specificity {self.operating_specificity:g}, and one threshold is in force: "
                f"remove one of them; write for example operating_sensitivity = {self.operating_sensitivity:g} alone"
            )
        if self.rebalance != "augmentor" and self.samples_per_class is not None:
            raise ValueError(
                f"samples_per_class is {self.samples_per_class} but rebalance is {self.rebalance!r}, which has an epoch length of its own: "
                'remove samples_per_class, or write rebalance = "augmentor"'
            )
        if self.folds == 1 and self.fold:
            raise ValueError(f"fold is {self.fold} but folds is 1, which leaves no test part to choose: remove fold, or write for example folds = {FOLDS}")
        if self.fold >= self.folds:
            raise ValueError(f"fold is {self.fold} but folds is {self.folds}: expected fold in 0..{self.folds - 1}")
        return self
