"""What a report is made of, read once: a run or a bundle, its run where it is here, its evidence.

In: the path of a run or a bundle. Out: a :class:`Material`. What is not there, or belongs to something
else, is a :class:`Gap`: the words that stand in its place. Nothing is left out silently.
"""

from __future__ import annotations

import shlex
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from melanoma_edge import calibration, metrics, selective
from melanoma_edge.contract import Artifact, CrossValidation, Decision, Scores, Threshold
from melanoma_edge.convert import reference
from melanoma_edge.convert.bundle import EVIDENCE, MANIFEST, Bundle, open_bundle
from melanoma_edge.data.split import TEST
from melanoma_edge.errors import BadInput, Error
from melanoma_edge.files import sha256_file
from melanoma_edge.model import run as runs
from melanoma_edge.proof import latency_file
from melanoma_edge.proof.latency_model import DeviceLatency, HostLatency
from melanoma_edge.proof.layers import LAYERS_FILE
from melanoma_edge.proof.layers_model import Layers
from melanoma_edge.proof.origin import remembered
from melanoma_edge.proof.parity_model import Parity
from melanoma_edge.proof.subject import RUNTIME_OF
from melanoma_edge.proof.verify import PARITY_FILE


@dataclass(frozen=True)
class Gap:
    """Something that cannot be shown: why, and the command that would change that."""

    why: str
    command: str | None = None


NO_TEST_PART = Gap("there is no test part: the run trained on all pictures, so no figure of this very model on unseen pictures is known; what its recipe is worth, cross-validation says")


@dataclass(frozen=True)
class Network:
    """One column of the score table: an artifact of a bundle, or a network of a run."""

    name: str
    title: str
    """Short: `int8`."""
    detail: str
    """Short: `TFLite`."""
    scores: Scores | None
    artifact: Artifact | None = None


@dataclass(frozen=True)
class TestPart:
    """What one of the run's Keras networks says about the test part."""

    which: runs.Which
    rows: tuple[runs.SplitRow, ...]
    labels: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray
    """Calibrated, corrected to the deployment priors."""
    uncalibrated: np.ndarray
    """The same at temperature 1."""
    decision: Decision
    scores: Scores
    classes: tuple[str, ...]
    positive: str | None

    @cached_property
    def predicted(self) -> np.ndarray:
        """Class index that each picture is given."""
        return self.probabilities.argmax(axis=1)

    def confusion(self) -> np.ndarray:
        """Return the counts [truth, prediction]."""
        return metrics.confusion(self.predicted, self.labels, len(self.classes))

    def reliability(self, *, before: bool = False) -> dict[str, np.ndarray]:
        """Return confidence, accuracy and count of each bin of the calibration error, after the temperature was fitted or `before`."""
        return metrics.reliability(self.uncalibrated if before else self.probabilities, self.labels)

    def ece(self, *, before: bool = False) -> float:
        """Return the calibration error that :meth:`reliability` shows."""
        return metrics.calibration_error(self.reliability(before=before))

    def coverage_risk(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the coverage-risk curve of each score to abstain by (:func:`melanoma_edge.selective.coverage_risk`)."""
        sure = {method: calibration.certainty(method, self.probabilities, self.logits) for method in ("confidence", "energy")}
        return {method: selective.coverage_risk(self.probabilities, self.labels, one) for method, one in sure.items()}

    def answering(self) -> tuple[float, float | None]:
        """Return (share of the pictures that the decision answers, share wrong among them; None where it answers none)."""
        answered = calibration.answers(self.decision.abstention, self.probabilities, self.logits)
        wrong = self.predicted != self.labels
        return float(answered.mean()), float(wrong[answered].mean()) if answered.any() else None

    def roc(self) -> list[tuple[str, np.ndarray, np.ndarray, float]]:
        """Return (class, false and true positive rates, area) of each class that has a curve.

        The area of the positive class is the one of its scores; that of the others is taken under the curve.
        """
        curves = []
        for index, name in enumerate(self.classes):
            truth = self.labels == index
            if truth.any() and not truth.all():
                false, true = metrics.roc_curve_points(self.probabilities[:, index], truth)
                area = self.scores.positive_auc.value if name == self.positive else float(np.trapezoid(true, false))
                curves.append((name, false, true, area))
        return curves


@dataclass(frozen=True)
class Material:
    """Everything that a report can show, and in words what it cannot."""

    path: Path
    name: str
    classes: tuple[str, ...]
    positive: str | None
    bundle: Bundle | None
    run: runs.Run | Gap
    networks: tuple[Network, ...]
    """The one that counts first."""
    parity: Parity | Gap
    latency: HostLatency | Gap
    samples: list[tuple[str, int, dict[str, np.ndarray]]] | Gap
    """The raw times of this host: runtime, threads, each artifact's runs in milliseconds."""
    devices: tuple[DeviceLatency, ...]
    layers: Layers | Gap

    @property
    def recipe(self):
        """The recipe of the run or bundle; None for a model of somebody else's."""
        return self.bundle.manifest.recipe if self.bundle else self.run.recipe

    @property
    def quoted(self) -> CrossValidation | None:
        """The cross-validation of its recipe that the bundle quotes."""
        return self.bundle.manifest.cross_validation if self.bundle else None

    @property
    def tested(self) -> bool:
        """Whether pictures were held back to score it on, as far as that is known."""
        return self.recipe is None or self.recipe.has_test_part

    @property
    def headline(self) -> Network:
        """What a phone would run, or the last network of a run."""
        return self.networks[0]

    @property
    def threshold(self) -> Threshold | None:
        """The headline's threshold in force."""
        if self.headline.artifact is not None:
            return self.headline.artifact.decision.threshold
        return self.run.evaluation()[self.headline.name.removeprefix("keras-")][0].threshold

    @property
    def baseline(self) -> Network | None:
        """The float network beside it; None where the headline itself is float."""
        if self.headline.title not in ("int8", "int8-ptq", "int8-simulated"):
            return None
        floats = [network for network in self.networks if network.title in ("float32", "float")]
        same = [network for network in floats if network.detail == self.headline.detail]
        return next(iter(same + floats), None)

    def test_part(self) -> TestPart | Gap:
        """Return what the run's network nearest to the headline says about the test part."""
        if not self.tested:
            return NO_TEST_PART
        if isinstance(self.run, Gap):
            return self.run
        which = "qat" if "qat" in self.run.facts.weights and self.headline.title in ("int8", "int8-simulated") else "float"
        rows, logits = self.run.part(TEST), self.run.logits().get(f"{which}/{TEST}")
        if logits is None or len(logits) != len(rows) or logits.ndim != 2 or logits.shape[1] != len(self.classes):
            raise BadInput(f"{self.run.path / runs.LOGITS_FILE} does not fit the split of the run: train again")
        evaluation = self.run.evaluation()[which]
        return TestPart(
            which=which,
            rows=tuple(rows),
            labels=np.array([self.classes.index(row.label) for row in rows]),
            logits=logits,
            probabilities=self.run.probabilities(which, TEST),
            uncalibrated=self.run.probabilities(which, TEST, temperature=1.0),
            decision=evaluation[0],
            scores=evaluation[1],
            classes=self.classes,
            positive=self.positive,
        )


def gather(subject: Path) -> Material:
    """Read the run or bundle `subject`; raises BadInput when it is neither, incomplete or altered."""
    subject = Path(subject)
    if (subject / MANIFEST).is_file():
        return _of_bundle(open_bundle(subject))
    if (subject / runs.RUN_FILE).is_file():
        return _of_run(runs.open_run(subject))
    runs.refuse_folds(subject)
    raise BadInput(f"{subject} is neither a run nor a bundle: expected a folder with {runs.RUN_FILE} or {MANIFEST}")


def _of_run(run: runs.Run) -> Material:
    titles = {"qat": ("int8-simulated", "Keras, quantization-aware"), "float": ("float", "Keras")}
    evaluation = run.evaluation()
    networks = [Network(f"keras-{which}", *titles[which], evaluation[which][1]) for which in titles if which in evaluation]
    gap = Gap("not measured yet: a run has no artifacts; export it, which also verifies", f"melanoma-edge export {_word(run.path)}")
    return Material(
        path=run.path,
        name=run.path.resolve().name,
        classes=run.facts.classes,
        positive=run.recipe.positive_class or None,
        bundle=None,
        run=run,
        networks=tuple(networks),
        parity=gap,
        latency=Gap("not measured yet: a run has no artifacts; export it, then time the bundle", "melanoma-edge bench BUNDLE"),
        samples=Gap("not measured yet"),
        devices=(),
        layers=Gap("not measured yet"),
    )


def _of_bundle(bundle: Bundle) -> Material:
    manifest, first = bundle.manifest, bundle.default_artifact()
    ordered = [first, *(artifact for artifact in manifest.artifacts if artifact is not first)]
    titles = {"tflite": "TFLite", "onnx": "ONNX"}
    timed = _evidence(bundle, latency_file.SUMMARY, latency_file.parse, "bench")
    latency = timed if isinstance(timed, Gap) else timed.host or Gap("not measured yet on a host", f"melanoma-edge bench {_word(bundle.path)}")
    return Material(
        path=bundle.path,
        name=manifest.name,
        classes=manifest.classes,
        positive=manifest.positive_class,
        bundle=bundle,
        run=_origin(bundle),
        networks=tuple(Network(a.name, a.precision, titles[a.format], a.scores, a) for a in ordered),
        parity=_evidence(bundle, PARITY_FILE, Parity.model_validate_json, "verify"),
        latency=latency,
        samples=latency if isinstance(latency, Gap) else _samples(bundle, latency),
        devices=() if isinstance(timed, Gap) else timed.devices,
        layers=_evidence(bundle, LAYERS_FILE, Layers.model_validate_json, "verify --layers", "not looked into yet"),
    )


def _origin(bundle: Bundle) -> runs.Run | Gap:
    """Return the run that the bundle was made from, if it is here and has the same weights."""
    if bundle.manifest.origin == "model":
        return Gap(f"not known: the bundle was made from the model file {bundle.manifest.source.file}, which says nothing of its training")
    path = remembered(bundle.path, "run")
    if isinstance(path, str):
        return Gap(f"not shown: the run is not here; {path}")
    if not path.is_dir():
        return Gap(f"not shown: the run is not here; the bundle was made from the run {path.name}: make the report on the machine that has it")
    try:
        run = runs.open_run(path)
    except Error as error:
        return Gap(f"not shown: the run is not here; {error}")
    if not bundle.manifest.weights or any(run.facts.weights.get(which) != sha256 for which, sha256 in bundle.manifest.weights.items()):
        return Gap(f"not shown: the run is not here; the run {path.name} has other weights than the bundle was made from")
    if run.facts.classes != bundle.manifest.classes:
        return Gap(f"not shown: the run is not here; the run {path.name} has other classes than the bundle")
    return run


def _evidence(bundle: Bundle, file: str, parse: Callable[[bytes], Any], command: str, missing: str = "not measured yet"):
    """Return the evidence `file`, or the gap where it is missing, damaged or of another state of the bundle."""
    again = f"melanoma-edge {command} {_word(bundle.path)}"
    if bundle.path == reference.installed():  # nothing is written into that one
        again = f"melanoma-edge samples my.bundle --reference && melanoma-edge {command} my.bundle"
    path = bundle.path / EVIDENCE / file
    if not path.is_file():
        return Gap(missing, again)
    try:
        found = parse(path.read_bytes())
    except (OSError, *latency_file.DAMAGED):  # a ValidationError is a ValueError
        return Gap(f"not shown: {EVIDENCE}/{file} cannot be read; measure again", again)
    if found.manifest_sha256 != sha256_file(bundle.path / MANIFEST):
        return Gap(f"not shown: {EVIDENCE}/{file} was measured on another state of this bundle; measure again", again)
    return found


def _word(path: Path) -> str:
    """Return `path` as a word of a command: as it was given, but no folders of this machine's root."""
    return shlex.quote(path.resolve().name if path.is_absolute() or path.name in ("", "..") else str(path))


def _samples(bundle: Bundle, latency: HostLatency) -> list[tuple[str, int, dict[str, np.ndarray]]] | Gap:
    """Return the raw times that belong to `latency`."""
    file = f"{EVIDENCE}/{latency_file.SAMPLES}"
    try:
        found = latency_file.samples_of(bundle.path / EVIDENCE / latency_file.SAMPLES, latency.samples_sha256)
    except BadInput:
        return Gap(f"the distributions are not shown: {file} does not belong to these figures")
    except FileNotFoundError:
        return Gap(f"the distributions are not shown: {file} is not here")
    except (OSError, EOFError, zlib.error, *latency_file.DAMAGED):
        return Gap(f"the distributions are not shown: {file} cannot be read")
    return [(runtime, threads or latency.threads[0], artifacts) for runtime, threads, artifacts in found]


def host_latency(material: Material, artifact: Artifact | None):
    """Return (runtime, row) of the artifact's timing in the runtime that stands for its format, or None."""
    if artifact is None or isinstance(material.latency, Gap):
        return None
    timed = [(runtime, row) for runtime in material.latency.runtimes for row in runtime.artifacts if row.name == artifact.name]
    timed.sort(key=lambda found: (found[0].name != RUNTIME_OF[artifact.format], found[0].threads))
    return timed[0] if timed else None
