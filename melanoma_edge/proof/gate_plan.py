"""Which gates there are for a bundle, and carrying each out on what the runtimes gave.

In: a bundle and :class:`Measured`: the logits of every runtime and network, and what could not be had and
why. Out: the gates, in the order of the manifest's artifacts. Nothing here runs a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from melanoma_edge.contract import Artifact
from melanoma_edge.convert.bundle import Bundle
from melanoma_edge.convert.golden import input_hash
from melanoma_edge.proof import gates
from melanoma_edge.proof.parity_model import Gate
from melanoma_edge.proof.source import SOURCE
from melanoma_edge.runtimes.protocol import RUNTIMES, asked


@dataclass(frozen=True)
class Pictures:
    """What the runtimes are compared on."""

    description: str
    inputs: np.ndarray
    """uint8 [n, size, size, 3]."""
    names: tuple[str, ...]
    labels: np.ndarray | None = None
    """int [n], where classes are known."""
    groups: np.ndarray | None = None
    unseen: np.ndarray | None = None
    """bool [n]: fit for the task gate."""
    account: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """What came out of every runtime on the golden pictures and, behind them, the others."""

    pictures: Pictures
    golden: np.ndarray
    """uint8 [g, size, size, 3]."""
    asked: Sequence[str]
    """The runtimes whose gates are wanted."""
    logits: dict[tuple[str, str], np.ndarray]
    """{(artifact, runtime): float32 [g + n, classes]}; of an artifact's second file, by its own name, the probabilities."""
    missing: dict[tuple[str, str], str]
    """{(artifact, runtime): why there are no logits, and what would change that}."""
    broken: dict[tuple[str, str], str]
    """{(artifact, runtime): how a runtime of another kind, which is there, failed on the artifact}."""
    references: dict[str, np.ndarray] | str
    """Logits of the Keras networks, or in words why they are not here."""
    censuses: dict[tuple[str, str], dict[str, int] | str]
    """{(artifact, runtime): how often each operator stands in the graph that the runtime made of the file, or why that is not known}."""

    def of(self, artifact: Artifact | None, runtime: str) -> np.ndarray | None:
        """Return the logits of `artifact` on `runtime`, or None."""
        return None if artifact is None else self.logits.get((artifact.name, runtime))


def carry_out(bundle: Bundle, measured: Measured) -> Iterator[Gate]:
    """Yield every gate of the asked runtimes, in the order of the manifest's artifacts."""
    yield _contract_gate(bundle, measured.golden)
    for artifact in bundle.manifest.artifacts:
        for runtime in measured.asked:
            row = RUNTIMES[runtime]
            if artifact.format not in row.formats:
                continue
            logits, key = measured.of(artifact, runtime), (artifact.name, runtime)
            if logits is None:
                about = (row.group, artifact.name, runtime, row.peer, gates.peer_requirement(row.group, artifact)) if row.peer else (artifact.precision, artifact.name, runtime, "", "")
                if key in measured.broken:
                    yield gates.broke_off(*about, measured.broken[key])
                else:
                    yield gates.not_run(*about, measured.missing.get(key, "it was not run"))
            else:
                yield from _on_peer(bundle, artifact, runtime, logits, measured) if row.peer else _here(bundle, artifact, runtime, logits, measured)
                if artifact.probabilities is not None:
                    yield _probabilities(bundle, artifact, runtime, logits, measured)
    for package in bundle.manifest.coreml:
        yield gates.not_run("coreml", package.name, "coreml", package.artifact, "", "Core ML runs on Apple's systems only: open the package in Xcode on a Mac")
    for runtime in (name for name in asked([]) if name not in measured.asked and not RUNTIMES[name].gpu):
        for artifact in (artifact for artifact in bundle.manifest.artifacts if artifact.format in RUNTIMES[runtime].formats):
            yield gates.not_run(artifact.precision, artifact.name, runtime, "", "", f"not asked for: verify without --runtime, or with --runtime {runtime} too")
    for group in sorted({row.group for row in RUNTIMES.values() if row.peer} - {RUNTIMES[name].group for name in measured.asked}):
        yield gates.not_run(group, "all", group, "", gates.PEER_REQUIREMENT[group]["int8"], f"not asked for: verify --runtime {group}")


def _here(bundle: Bundle, artifact: Artifact, runtime: str, logits: np.ndarray, measured: Measured) -> Iterator[Gate]:
    """Yield the gates of an artifact on a runtime of this machine."""
    count, pictures, classes = len(measured.golden), measured.pictures, bundle.manifest.classes
    yield gates.golden_gate(artifact, runtime, logits[:count], bundle.golden.expected(artifact.name), _golden_names(bundle), classes)
    if bundle.manifest.origin == "model":
        yield _against_source(bundle, artifact, runtime, logits, measured)
    elif artifact.integer and artifact.format == "onnx":
        yield _against_twin(bundle, artifact, runtime, logits, measured)
    else:
        yield _against_keras(bundle, artifact, runtime, logits, measured.references, pictures, count)
    yield from _of_integers(bundle, artifact, runtime, logits, measured)


def _of_integers(bundle: Bundle, artifact: Artifact, runtime: str, logits: np.ndarray, measured: Measured) -> Iterator[Gate]:
    """Yield the gates that only int8 artifacts have: what the runtime made of the graph, and what int8 costs."""
    if not artifact.integer:
        return
    ours = bundle.manifest.origin == "run"
    # How others quantized their files is for them to say; the manifest counts their operators.
    census = measured.censuses.get((artifact.name, runtime)) if ours or artifact.calibration is not None else None
    if isinstance(census, str):
        yield gates.not_run("census", artifact.name, runtime, "", "", census)
    elif census is not None:
        yield gates.census_gate(artifact, runtime, census, transposes=ours)
    yield _task(bundle, artifact, runtime, logits, measured)


def _on_peer(bundle: Bundle, artifact: Artifact, runtime: str, logits: np.ndarray, measured: Measured) -> Iterator[Gate]:
    """Yield the gates of an artifact on other kernels, another processor or in a browser."""
    row, names = RUNTIMES[runtime], _golden_names(bundle) + measured.pictures.names
    expected = measured.of(artifact, row.peer)
    if expected is None:
        why = measured.missing.get((artifact.name, row.peer)) or f"{row.peer} is not here: {RUNTIMES[row.peer].install}"
        yield gates.not_run(row.group, artifact.name, runtime, row.peer, gates.peer_requirement(row.group, artifact), why)
    else:
        gate = gates.peer_gate(row.group, artifact, runtime, row.peer, logits, expected, names, bundle.manifest.classes)
        yield gate.model_copy(update={"measured_on": measured.pictures.description})
    yield from _of_integers(bundle, artifact, runtime, logits, measured)


def _probabilities(bundle: Bundle, artifact: Artifact, runtime: str, logits: np.ndarray, measured: Measured) -> Gate:
    """Compare an artifact's second file with the probabilities that the artifact's own logits come to."""
    second = artifact.probabilities.name
    if (second, runtime) not in measured.logits:
        return gates.not_run("probabilities", second, runtime, artifact.name, "", measured.missing.get((artifact.name, runtime), "it was not run"))
    names = _golden_names(bundle) + measured.pictures.names
    gate = gates.probabilities_gate(bundle.manifest, artifact, runtime, measured.logits[second, runtime], logits, names)
    return gate.model_copy(update={"measured_on": measured.pictures.description})


def _contract_gate(bundle: Bundle, golden: np.ndarray) -> Gate:
    """Check that decoding and resizing give the bytes that the golden set says."""
    wrong = [picture.file for picture, pixels in zip(bundle.golden.pictures, golden) if input_hash(pixels) != picture.input_sha256]
    return Gate(
        name="golden",
        artifact="input",
        runtime="pillow",
        reference="input hashes in the bundle",
        requirement="the same bytes",
        outcome="failed" if wrong else "passed",
        reason=f"other bytes for {', '.join(wrong)}" if wrong else None,
        pictures=len(golden),
        measured_on="golden pictures",
        figures={"pictures_that_differ": len(wrong)},
    )


def _against_keras(bundle: Bundle, artifact: Artifact, runtime: str, logits, references, pictures: Pictures, count: int) -> Gate:
    """Compare with the Keras network on all pictures, or on the golden ones where Keras is not here."""
    which = SOURCE if bundle.manifest.origin == "model" else f"keras-{artifact.network}"
    if isinstance(references, dict) and which in references:
        ours, theirs, names, where = logits, references[which], _golden_names(bundle) + pictures.names, pictures.description
        note = None
    else:
        ours, theirs, names, where = logits[:count], bundle.golden.expected(which), _golden_names(bundle), "golden pictures"
        note = f"compared on the golden pictures only: {references}"
        if theirs is None:
            return gates.not_run(artifact.precision, artifact.name, runtime, which, "", f"the bundle holds no logits of {which}, and {references}")
    if artifact.precision == "int8" and artifact.quantum is not None:
        gate = gates.int8_gate(artifact, runtime, which, ours, theirs, names, bundle.manifest.classes)
    else:
        gate = gates.float_gate(artifact, runtime, which, ours, theirs, names, bundle.manifest.classes)
    return gate.model_copy(update={"measured_on": where, "reason": gate.reason or note})


def _against_source(bundle: Bundle, artifact: Artifact, runtime: str, logits: np.ndarray, measured: Measured) -> Gate:
    """Compare with the model file that somebody else made: by its bytes where the artifact holds them, else run by its own framework."""
    if artifact.sha256 == bundle.manifest.source.sha256:
        return Gate(
            name="source",
            artifact=artifact.name,
            runtime=runtime,
            reference=bundle.manifest.source.file,
            requirement="the bytes of the model file",
            outcome="passed",
            measured_on="sha256",
        )
    return _against_keras(bundle, artifact, runtime, logits, measured.references, measured.pictures, len(measured.golden))


def _against_twin(bundle: Bundle, artifact: Artifact, runtime: str, logits: np.ndarray, measured: Measured) -> Gate:
    """Compare int8 ONNX with the TFLite file of the same precision on LiteRT."""
    requirement, reference = gates.ONNX_REQUIREMENT, gates.twin_of(artifact)
    twin = next((a for a in bundle.manifest.artifacts if a.precision == artifact.precision and a.format == "tflite"), None)
    if twin is None:
        return gates.not_run("int8-onnx", artifact.name, runtime, reference, requirement, f"the bundle has no {reference} artifact: export with --tflite too")
    expected = measured.of(twin, "litert")
    if expected is None:
        why = measured.missing.get((twin.name, "litert")) or f"LiteRT is not here: {RUNTIMES['litert'].install}"
        return gates.not_run("int8-onnx", artifact.name, runtime, reference, requirement, why)
    names = ("golden",) * len(measured.golden) + measured.pictures.names
    gate = gates.onnx_gate(artifact, runtime, logits, expected, twin.quantum, names, bundle.manifest.classes)
    return gate.model_copy(update={"measured_on": measured.pictures.description})


def _task(bundle: Bundle, artifact: Artifact, runtime: str, logits: np.ndarray, measured: Measured) -> Gate:
    """Carry out the task gate on the labelled pictures that training has not seen."""
    requirement, pictures = gates.TASK_REQUIREMENT, measured.pictures
    baseline = next((a for a in bundle.manifest.artifacts if a.precision == "float32"), None)
    name = baseline.name if baseline else "float32"
    if pictures.labels is None:
        return gates.not_run("task", artifact.name, runtime, name, requirement, "no labelled pictures: give some with --data DIR")
    if baseline is None:
        return gates.not_run("task", artifact.name, runtime, name, requirement, "the bundle has no float32 artifact to compare with: export one")
    against = next((logits for (name, _), logits in measured.logits.items() if name == baseline.name), None)
    if against is None:
        return gates.not_run("task", artifact.name, runtime, name, requirement, "no runtime for the float32 artifact is here")
    use, count = pictures.unseen, len(measured.golden)
    if not use.any():
        return gates.not_run("task", artifact.name, runtime, name, requirement, "all pictures were used in training or for this bundle: give others with --data DIR")
    names = tuple(name for name, used in zip(pictures.names, use) if used)
    gate = gates.task_gate(
        bundle.manifest, artifact, baseline, runtime, logits[count:][use], against[count:][use], pictures.labels[use], pictures.groups[use], names
    )
    known = "not seen in training" if bundle.manifest.origin == "run" else "not used for this bundle; whether training saw them is not known"
    return gate.model_copy(update={"measured_on": f"{pictures.description}, {known}"})


def _golden_names(bundle: Bundle) -> tuple[str, ...]:
    return tuple(picture.file for picture in bundle.golden.pictures)
