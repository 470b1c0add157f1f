"""What cross-validation comes to: of networks in folds.json, of artifacts in cross-validation.json and in the manifest that quotes it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from melanoma_edge.contract.artifact import Comparison, Format, Precision, Scores, Threshold, for_phones
from melanoma_edge.contract.base import ClassName, Model, Sha256, is_plain_relative
from melanoma_edge.contract.recipe import Recipe

CROSS_VALIDATION_SCHEMA_VERSION = 1


class Spread(Model):
    """A figure over the folds."""

    mean: float | None
    """Mean over the folds in which the figure is defined; null where it is in none."""
    sd: float | None
    """Standard deviation between those folds (of a sample: divided by their number less one); null for fewer than two."""
    lowest: float | None = None
    highest: float | None = None
    """The figure of the fold where it is lowest, and highest: null where it is defined in none, and in files that do not say."""
    folds: int
    """In how many folds it is defined."""


class Across(Model):
    """One network (float, or int8 simulated), or one artifact, over all folds."""

    figures: dict[str, Spread]
    """Each figure of the scores but the recalls, by its name there."""
    recall: dict[ClassName, Spread]
    called_positive: dict[ClassName, Spread] | None = None
    """Of each other class, the share that is called positive at the fold's own threshold; null without a positive class, and in files that do not say."""
    pooled: Scores
    """All pictures together, each answered by the one model that saw neither it nor its group, under that model's own
    temperature, priors, threshold and abstention. Intervals are from resampling groups: they do not
    hold what other training data would have changed."""


class FoldBundle(Model):
    """One fold: the bundle of its run."""

    fold: int
    bundle: str
    """Folder of the bundle beside cross-validation.json, for example `fold-0.bundle`."""
    manifest_sha256: Sha256
    weights: dict[str, Sha256]
    """SHA-256 of the weight files of its run."""
    pictures: int
    """In its test part."""
    lesions: int
    absent_from_test: tuple[ClassName, ...]
    """Classes without a picture in its test part: they have fewer groups than there are folds."""


class CrossValidated(Across):
    """One artifact over all folds: as many files of one name, each of a model of its own."""

    name: str
    format: Format
    precision: Precision
    confusion: tuple[tuple[int, ...], ...]
    """Pictures of each class (rows) by the class that they are given (columns), in the order of the classes."""
    thresholds: tuple[Threshold, ...] | None = None
    """The threshold in force of each fold's file, in the order of the folds; null where one has none, and in files that do not say."""

    def most_called(self) -> str | None:
        """Return the class whose pictures the folds' files most often call positive, on average; None where that is not known."""
        means = {name: spread.mean for name, spread in (self.called_positive or {}).items() if spread.mean is not None}
        return max(means, key=means.__getitem__, default=None)


class CrossValidation(Model):
    """cross-validation.json: what the artifacts of all folds say of the test parts, every picture judged once by a model that saw neither it nor, where it is known, its lesion."""

    schema_version: Literal[1] = CROSS_VALIDATION_SCHEMA_VERSION
    notice: str
    recipe: Recipe
    """Of all folds; `fold` is 0 here and each fold's own number in its bundle."""
    data_sha256: Sha256
    """Over the hashes, labels and groups of all pictures used: from it and the recipe the parts of every fold follow."""
    classes: Annotated[tuple[ClassName, ...], Field(min_length=2)]
    positive_class: str | None
    pictures: Annotated[int, Field(ge=1)]
    """Used, and so tested once each."""
    lesions: Annotated[int, Field(ge=1)]
    """Groups of them that are never split: patients, lesions, copies."""
    with_lesion_id: Annotated[int, Field(ge=0)] | None = None
    """Pictures whose lesion or patient is known: only of these is it known that no other photograph was learnt from; null in files that do not say."""
    classes_without_lesion_id: tuple[ClassName, ...] | None = None
    """Classes without a single picture whose lesion or patient is known: nothing is known of how their other photographs were parted; null in files that do not say."""
    folds: Annotated[tuple[FoldBundle, ...], Field(min_length=2)]
    artifacts: Annotated[tuple[CrossValidated, ...], Field(min_length=1)]
    comparisons: tuple[Comparison, ...]
    """What each int8 artifact loses against its float32 twin, paired by picture, each fold's models under their own thresholds."""
    tool_versions: dict[str, str]

    def of_phones(self) -> CrossValidated:
        """Return the artifact that a phone would run."""
        return for_phones(self.artifacts)

    @model_validator(mode="after")
    def _consistent(self) -> "CrossValidation":
        if len(self.folds) != self.recipe.folds or [fold.fold for fold in self.folds] != list(range(len(self.folds))) or self.recipe.fold:
            raise ValueError(f"it holds folds {', '.join(str(fold.fold) for fold in self.folds)} of a recipe of {self.recipe.folds}: expected each once, in order")
        if sum(fold.pictures for fold in self.folds) != self.pictures or sum(fold.lesions for fold in self.folds) != self.lesions:
            raise ValueError(f"the folds do not test each of {self.pictures} pictures of {self.lesions} lesions once")
        if len(set(self.classes)) != len(self.classes) or self.positive_class not in (None, *self.classes):
            raise ValueError("a class stands twice, or positive_class is not among the classes")
        for one in self.artifacts:
            if not is_plain_relative(one.name):
                raise ValueError(f"{one.name!r} is no name of an artifact")
            if set(one.recall) != set(self.classes) or set(one.pooled.recall) != set(self.classes) or set(one.pooled.per_class) != set(self.classes):
                raise ValueError(f"the figures of {one.name} are not those of the classes")
            counted = [sum(row) for row in one.confusion]
            if {len(row) for row in one.confusion} != {len(self.classes)} or counted != [one.pooled.per_class[name] for name in self.classes] or sum(counted) != self.pictures:
                raise ValueError(f"the confusion matrix of {one.name} does not count each of {self.pictures} pictures once")
            if one.thresholds is not None and len(one.thresholds) != len(self.folds):
                raise ValueError(f"{one.name} has {len(one.thresholds)} thresholds for {len(self.folds)} folds")
            if one.called_positive is not None and set(one.called_positive) != set(one.pooled.called_positive or ()):
                raise ValueError(f"{one.name} says how often classes are called positive that are not the other classes")
            if any(spread.lowest is not None and (spread.highest is None or spread.lowest > spread.highest) for spread in (*one.figures.values(), *one.recall.values(), *(one.called_positive or {}).values())):
                raise ValueError(f"a figure of {one.name} is higher in its lowest fold than in its highest")
            if (one.pooled.pictures, one.pooled.lesions) != (self.pictures, self.lesions):
                raise ValueError(f"the pooled figures of {one.name} are not of {self.pictures} pictures of {self.lesions} lesions")
        names = [one.name for one in self.artifacts]
        if len(set(names)) != len(names) or any(one not in names for compared in self.comparisons for one in (compared.reference, compared.candidate)):
            raise ValueError("an artifact stands twice, or one is compared that is not there")
        if any(set(compared.losses) != {"balanced_accuracy", "positive_auc", "positive_sensitivity"} for compared in self.comparisons):
            raise ValueError("a comparison holds other losses than those of balanced accuracy, positive AUC and positive sensitivity")
        return self

    def unseen_in_words(self) -> str:
        """Return of a model that judged a picture what it had not seen, to follow "the model that"."""
        if self.with_lesion_id == self.pictures:
            return "saw neither it nor its lesion"
        none = f", none of {' or '.join(self.classes_without_lesion_id)}" if self.with_lesion_id and self.classes_without_lesion_id else ""
        return f"did not see it, nor its lesion as far as lesions are known{'' if self.with_lesion_id is None else f' ({self.with_lesion_id} of {self.pictures} pictures{none})'}"

    def artifact(self, name: str) -> CrossValidated:
        """Return the figures of the artifact called `name`, which must be there."""
        return next(one for one in self.artifacts if one.name == name)
