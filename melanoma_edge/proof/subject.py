"""What is measured: a run's network or a bundle's artifact, behind one face.

In: a path that the user gave. Out: classes, recipe, decision, what training saw, and a way to get
logits. Evaluation and prediction need nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melanoma_edge import calibration
from melanoma_edge.contract import Artifact, Decision, InputContract, NonLesions, Recipe
from melanoma_edge.convert.bundle import MANIFEST, Bundle, open_bundle
from melanoma_edge.convert.reference import to_read
from melanoma_edge.data.split import TEST
from melanoma_edge.errors import BadInput
from melanoma_edge.model import run as runs
from melanoma_edge.proof.labelled import seen_keys
from melanoma_edge.runtimes import process

RUNTIME_OF = {"tflite": "litert", "onnx": "onnxruntime"}
"""The runtime that stands for a format when one is needed."""


@dataclass(frozen=True)
class Subject:
    """One model with everything that turns its logits into a decision."""

    name: str
    recipe: Recipe
    """For the data policy; its defaults where none is known."""
    size: int
    """Side of the input."""
    classes: tuple[str, ...]
    positive_class: str | None
    decision: Decision
    training_priors: np.ndarray
    deployment_priors: np.ndarray
    seen: frozenset[str]
    runtime: str
    model: Path
    which: runs.Which | None = None
    contract: InputContract | None = None
    output: str = "logits"
    """What the model gives; :meth:`logits` gives logits of either."""
    non_lesions: NonLesions | None = None
    """How much of what is no lesion it answers, where an export measured that."""
    training_known: bool = True
    """Whether `seen` holds all that training used; for a model of somebody else's nobody knows that."""

    def logits(self, pictures: np.ndarray) -> np.ndarray:
        """Return float32 [n, classes] for uint8 [n, size, size, 3], computed in a process of its own."""
        found = process.run_logits(self.runtime, self.model, pictures, which=self.which, contract=self.contract)
        return calibration.as_logits(found, self.output)


def run_artifact(
    bundle: Bundle, artifact: Artifact, runtime: str, pictures: np.ndarray, *, progress: Callable[[str], None] | None = None
) -> np.ndarray:
    """Return what `artifact` gives on `runtime`, float32 [n, classes], for `pictures`, uint8 [n, size, size, 3].

    Raises as :func:`melanoma_edge.runtimes.process.run_logits` does, and BadInput for a file with another number of classes.
    """
    logits = process.run_logits(runtime, bundle.file(artifact), pictures, contract=bundle.manifest.input, progress=progress)
    if logits.shape[1] != len(bundle.manifest.classes):
        raise BadInput(f"{bundle.file(artifact)} gives {logits.shape[1]} logits for {len(bundle.manifest.classes)} classes: export the bundle again")
    return logits


def open_subject(path: Path, artifact: str | None = None) -> Subject:
    """Open `path` as a bundle or a run.

    `artifact` names an artifact of a bundle, or `float` / `qat` of a run; left out it is the int8 TFLite
    artifact, or the last network that the run trained. `reference` is the installed bundle. Raises BadInput when there is no such thing.
    """
    path = to_read(path)
    if (path / MANIFEST).is_file():
        bundle = open_bundle(path)
        return of_artifact(bundle, bundle.artifact(artifact) if artifact else bundle.default_artifact())
    if (path / runs.RUN_FILE).is_file():
        return of_run(runs.open_run(path), artifact)
    runs.refuse_folds(path)
    raise BadInput(f"{path} is neither a run nor a bundle: expected a folder with {runs.RUN_FILE} or {MANIFEST}")


def of_artifact(bundle: Bundle, artifact: Artifact) -> Subject:
    """Return one artifact of an opened bundle."""
    manifest = bundle.manifest
    training, deployment = calibration.priors_of(manifest)
    return Subject(
        name=artifact.name,
        recipe=manifest.policy,
        size=manifest.input.width,
        classes=manifest.classes,
        positive_class=manifest.positive_class,
        decision=artifact.decision,
        training_priors=training,
        deployment_priors=deployment,
        seen=bundle.seen_hashes(),
        runtime=RUNTIME_OF[artifact.format],
        model=bundle.file(artifact),
        contract=manifest.input,
        output=manifest.output,
        non_lesions=artifact.non_lesions,
        training_known=manifest.origin == "run",
    )


def of_run(run: runs.Run, which: str | None = None) -> Subject:
    """Return the `float` or `qat` network of an opened run (the last one trained when left out)."""
    if which is None:
        which = "qat" if "qat" in run.facts.weights else "float"
    if which not in run.facts.weights:
        raise BadInput(f"the run {run.path} has no network {which!r}: expected one of {', '.join(run.facts.weights)}")
    decision, _ = run.evaluation()[which]
    training, deployment = run.priors()
    return Subject(
        name=f"keras-{which}",
        recipe=run.recipe,
        size=run.recipe.image_size,
        classes=run.facts.classes,
        positive_class=run.recipe.positive_class or None,
        decision=decision,
        training_priors=training,
        deployment_priors=deployment,
        seen=seen_of(run),
        runtime="keras",
        model=run.path,
        which=which,
    )


def seen_of(run: runs.Run) -> frozenset[str]:
    """Return the keys of every picture and lesion that training or calibration of `run` used."""
    return frozenset(key for row in run.split if row.part != TEST for key in seen_keys(row.sha256, row.lesion, row.fingerprint))
