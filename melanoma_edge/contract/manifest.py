"""The manifest of a bundle: what its models are, where they came from, and the hash of every file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from melanoma_edge.contract.artifact import Artifact, Comparison, CoreML, InputContract, LAYOUTS, input_shape
from melanoma_edge.contract.base import ClassName, Model, Sha256, is_plain_relative
from melanoma_edge.contract.cross_validation import CrossValidation
from melanoma_edge.contract.recipe import Recipe

BUNDLE_SCHEMA_VERSION = 2
"""2: a decision names its threshold in force, chosen by sensitivity, and may abstain by energy. Version 1 is read as what it means."""


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
    classes_without_lesion_id: tuple[ClassName, ...] | None = None
    """Classes without a single picture whose lesion or patient is known: nothing is known of how their other photographs were parted; null in files that do not say."""
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

    schema_version: Annotated[Literal[1, 2], AfterValidator(lambda found: BUNDLE_SCHEMA_VERSION), WithJsonSchema({"const": BUNDLE_SCHEMA_VERSION})] = BUNDLE_SCHEMA_VERSION
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
    cross_validation: CrossValidation | None = None
    """What models of the same recipe, each trained without a fold, come to on the same pictures; null where none was quoted, and in bundles of versions that could not."""
    licence: str
    attributions: tuple[str, ...] = ()
    """Whom and what the terms want named, in the words of whoever exported it; beside the names that the data set gives (`data.attributions`)."""
    remarks: tuple[str, ...] = ()
    """What whoever exported it wants to be known of its figures, for the model card."""
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
            in_quanta = self.origin == "run" or (self._made_here(artifact) and artifact.format == "tflite")  # int8 ONNX of others may end in a float softmax
            if artifact.integer and in_quanta and not (artifact.quantum and artifact.quantum > 0):
                raise ValueError(f"int8 artifact {artifact.name} has no quantum above 0")
            if self.output == "probabilities" and artifact.decision.abstention.method == "energy":
                raise ValueError(f"artifact {artifact.name} abstains by energy, which probabilities do not have: expected confidence")
            if artifact.precision == "int8-ptq" and artifact.calibration is None:
                raise ValueError(f"artifact {artifact.name} does not say on which pictures it was calibrated")
        for comparison in self.comparisons:
            if self.artifact(comparison.reference) is None or self.artifact(comparison.candidate) is None:
                raise ValueError(f"{comparison.candidate} is compared with {comparison.reference}, and not both are artifacts")
        self._check_origin()
        if self.cross_validation is not None and (self.recipe is None or self.cross_validation.classes != self.classes):
            raise ValueError("the cross-validation is of other classes than the bundle, or of no run")
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

    @property
    def tested(self) -> bool:
        """Whether pictures were held back to score it on, as far as that is known."""
        return self.recipe is None or self.recipe.has_test_part

    def artifact(self, name: str) -> Artifact | None:
        """Return the artifact called `name`, or None."""
        return next((artifact for artifact in self.artifacts if artifact.name == name), None)
