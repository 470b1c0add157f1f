"""What `melanoma-edge diff` finds between two bundles, and the tolerances that it judges by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from melanoma_edge import NOTICE
from melanoma_edge.contract import Interval, Model, Share, Sha256
from melanoma_edge.proof.parity_model import Flip

Outcome = Literal["passed", "failed", "allowed", "inconclusive", "not compared"]
"""`allowed`: it failed, and whoever asked for the comparison said beforehand that it may."""
CheckName = Literal[
    "contract",
    "artifacts",
    "balanced_accuracy",
    "positive_sensitivity",
    "positive_specificity",
    "positive_auc",
    "coverage",
    "size",
    "flips",
    "latency",
]
Section = Literal["classes", "input", "interface", "decisions", "recipe", "data", "weights", "priors", "tools", "licence"]
Status = Literal["same", "changed", "added", "removed"]


class Tolerances(Model):
    """How much worse B may be."""

    max_loss: Share = 0.01
    """Loss of balanced accuracy, of positive sensitivity and of positive AUC; 0.01 is a point."""
    max_specificity_loss: Share = 0.05
    """Loss of positive specificity at the decision. A false alarm costs less than a missed melanoma, and two trainings
    settle the one against the other differently; it still has to be bounded, for a model that calls everything positive misses none."""
    max_coverage_loss: Share = 0.05
    """Loss of the share of pictures that get an answer, for the same reason: a model that always abstains is never wrong."""
    max_size_growth: Annotated[float, Field(ge=0.0)] = 0.10
    """Growth of an artifact's file, as a share of A's."""
    max_flips: Share | None = None
    """Share of the pictures whose first class changes. Left out: FLIPS_OF_SAME_WEIGHTS where both artifacts came
    from the same weights, else not judged, for two trainings of equal worth differ on many pictures."""
    max_latency: Annotated[float, Field(gt=0.0)] = 1.10
    """Median time of an inference, as a multiple of A's."""


FLIPS_OF_SAME_WEIGHTS = 0.01
"""As the gates of `verify` allow between a network and what is converted from it."""


class Side(Model):
    """One of the two bundles."""

    name: str
    manifest_sha256: Sha256


class Change(Model):
    """One fact that differs; null where a side does not have it."""

    section: Section
    key: str
    a: Any
    b: Any


class ScoreChange(Model):
    """A figure of both manifests, each on its own bundle's test part."""

    a: Interval
    b: Interval
    change: float | None
    """B minus A; null where one is undefined."""


class Flips(Model):
    """Pictures that are given another class first: probabilities as an application shows them, priors corrected."""

    measured_on: str
    pictures: int
    count: int
    listed: tuple[Flip, ...]
    """Largest lead first, at most MAX_FLIPS; `margin` is by how much A's probability of its own choice leads that of B's."""
    newly_wrong: int | None = None
    """Labelled pictures that training of neither used: right under A, wrong under B."""
    newly_right: int | None = None
    """Of the same pictures: wrong under A, right under B."""


class ArtifactDifference(Model):
    """One artifact of A beside the one of B that stands for it: of the same name, else of the same format and precision."""

    a: str | None
    b: str | None
    status: Status
    """By the bytes of the file."""
    bytes: tuple[int | None, int | None]
    operators: dict[str, tuple[int, int]] = {}
    """{operator: (count in A, in B)} where they differ."""
    weight_bytes: dict[str, tuple[int, int]] = {}
    """{data type: (bytes in A, in B)} where they differ."""
    decision: tuple[Change, ...] = ()
    """Temperature, thresholds and abstention where they differ."""
    interface: tuple[Change, ...] = ()
    """Layout, and names, types, shapes and quantization of input and output, where they differ."""
    scores: dict[str, ScoreChange] = {}
    recall_change: dict[str, float | None] = {}
    """Recall of each class, B minus A, on the labelled pictures; empty without."""
    flips: Flips | None = None


class Check(Model):
    """One thing in which B must not be worse, and what came of it."""

    name: CheckName
    artifact: str
    """Name in A, `all` for the bundle."""
    runtime: str = ""
    requirement: str
    outcome: Outcome
    reason: str | None = None
    measured_on: str = ""
    pictures: int = 0
    found: Interval | None = None
    """Loss (A minus B), growth, share of flips or ratio of times, with its interval where it has one."""


class Difference(Model):
    """The whole of what `melanoma-edge diff --json` prints."""

    schema_version: Literal[1] = 1
    notice: str = NOTICE
    a: Side
    b: Side
    tolerances: Tolerances
    comparison: Literal["paired", "unpaired"]
    """Paired: both on the same labelled pictures. Unpaired: by the scores in the manifests."""
    data: str
    """On what the first classes were compared, and on what the losses rest."""
    labelled: dict[str, int] = {}
    """Account of the labelled pictures; empty without."""
    training_known: bool = True
    """Whether both bundles say all that their training used; of a model of somebody else's nobody knows that."""
    changes: tuple[Change, ...]
    files: dict[Literal["added", "removed", "changed"], tuple[str, ...]]
    """Sealed files other than artifacts."""
    artifacts: tuple[ArtifactDifference, ...]
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """Checks in which B is worse than the tolerances allow."""
        return tuple(check for check in self.checks if check.outcome == "failed")

    def unmet(self, require: Sequence[str]) -> Iterator[tuple[str, Check | None]]:
        """Yield the names in `require` with every check of theirs that did not pass; with None where there is no such check."""
        for name in dict.fromkeys(require):
            named = [check for check in self.checks if check.name == name]
            yield from ((name, check) for check in named if check.outcome != "passed")
            if not named:
                yield name, None
