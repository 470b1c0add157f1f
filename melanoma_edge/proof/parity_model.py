"""evidence/parity.json: what was compared with what, and what came of it."""

from __future__ import annotations

from typing import Literal

from melanoma_edge.contract import Interval, Model, Sha256
from melanoma_edge.proof.evidence_model import Evidence

Outcome = Literal["passed", "failed", "inconclusive", "not run"]


class Flip(Model):
    """A picture on which two models name different classes first."""

    picture: str
    reference: str
    candidate: str
    margin: float
    """By how much the reference's first logit leads the candidate's first choice."""


class Gate(Model):
    """One comparison and its outcome."""

    name: Literal[
        "float32", "float16", "dynamic", "int8", "int8-ptq", "int8-onnx", "golden", "source", "probabilities", "task", "census", "kernels", "arm64", "browser", "coreml",
    ]  # fmt: skip
    artifact: str
    runtime: str
    reference: str
    requirement: str
    """What must hold, in words."""
    outcome: Outcome
    reason: str | None = None
    """Why it failed, is inconclusive or was not run, and what would change that."""
    pictures: int = 0
    measured_on: str = ""
    figures: dict[str, float | int | None] = {}
    losses: dict[str, Interval] = {}
    """Task gate: what the artifact loses against the float32 baseline, with paired intervals."""
    recall_change: dict[str, float | None] = {}
    """Task gate: recall of each class minus the baseline's."""
    flips: tuple[Flip, ...] = ()
    flip_count: int = 0


class Parity(Evidence):
    """The whole of evidence/parity.json."""

    schema_version: Literal[1] = 1
    labelled: dict[str, int] = {}
    """Account of the labelled pictures behind the task gate; empty where there were none."""
    runtimes: dict[str, str] = {}
    """Of each runtime that computed: its version, and what it ran on where that is not this machine."""
    gates: tuple[Gate, ...]
    thumbnails_sha256: Sha256 | None = None
    """Hash of evidence/thumbnails.json, small pictures of the flips; null where they were not asked for."""

    @property
    def failed(self) -> tuple[Gate, ...]:
        """Gates that did not hold."""
        return tuple(gate for gate in self.gates if gate.outcome == "failed")
