"""Verification: every gate that this machine can carry out, for every artifact and runtime.

In: a bundle, and pictures: a labelled folder, or drawn probes when none is given. Out: a
:class:`~melanoma_edge.proof.parity_model.Parity`, also written to evidence/parity.json. A gate that
cannot be carried out says why and what would change that; it never counts as passed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from melanoma_edge import host
from melanoma_edge.contract import Artifact
from melanoma_edge.convert.bundle import EVIDENCE, MANIFEST, Bundle, open_bundle
from melanoma_edge.convert.golden import input_hash
from melanoma_edge.data import image, samples
from melanoma_edge.data.cache import default_folder
from melanoma_edge.errors import BadInput, Error, Missing
from melanoma_edge.files import explained, read_json, sha256_file, write_json
from melanoma_edge.model import run as runs
from melanoma_edge.proof import gates
from melanoma_edge.proof import thumbnails as small_pictures
from melanoma_edge.proof.labelled import load_labelled
from melanoma_edge.proof.parity_model import Gate, Parity
from melanoma_edge.proof.subject import run_artifact
from melanoma_edge.runtimes import process
from melanoma_edge.runtimes.protocol import RUNTIMES

PARITY_FILE = "parity.json"
ORIGIN_FILE = "origin.json"
"""evidence/origin.json names the run that a bundle came from, for machines that still have it."""
PROBES = 200
"""Drawn pictures to compare on when no folder is given."""
LATER = {
    "census": ("int8 graph without float convolution; every ONNX convolution runs as QLinearConv", "this version records the census in the manifest but does not judge it"),
    "arm64": ("0 quanta to x86", "this version has no arm64 runtime"),
    "browser": ("0 quanta to x86", "this version has no browser runtime"),
}

Progress = Callable[[str], None]


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


def verify(
    bundle: Path,
    *,
    data: Path | None = None,
    metadata: Path | None = None,
    cache: Path | None = None,
    run: Path | None = None,
    require: Sequence[str] = (),
    pictures: Pictures | None = None,
    thumbnails: bool = False,
    command: str = "melanoma_edge.proof.verify.verify",
    progress: Progress = lambda line: None,
) -> Parity:
    """Carry out all gates on `bundle` and write evidence/parity.json.

    Prepared pictures of `data` are kept in `cache`, as in training. `run` is the run that the bundle came from, for the comparison with Keras; left out, the one that
    evidence/origin.json names is used if it is here and its weights are the same. `require` names
    runtimes (or `task`) without which the call raises Missing. `thumbnails` also keeps small pictures of the flips among
    `data` in evidence/thumbnails.json, for the report; without it those of an earlier call are removed. Raises
    BadInput for a bundle or data that are not right; gates that fail do not raise.
    """
    small_pictures.refuse(thumbnails, data)
    started = time.perf_counter()
    opened = open_bundle(bundle)
    if pictures is None:
        progress("reading pictures")
        pictures = _labelled(opened, data, metadata, cache or default_folder()) if data is not None else _probes(opened)
    here = process.available()
    _check_required(require, here)
    runtimes = [name for name, row in RUNTIMES.items() if here[name].available and "run" not in row.formats]
    golden = np.stack([image.load(opened.path / picture.file, opened.manifest.recipe.image_size) for picture in opened.golden.pictures])
    found: dict[tuple[str, str], np.ndarray] = {}
    for artifact in opened.manifest.artifacts:
        for runtime in runtimes:
            if artifact.format in RUNTIMES[runtime].formats:
                progress(f"{artifact.name} on {runtime}")
                found[artifact.name, runtime] = run_artifact(opened, artifact, runtime, np.concatenate([golden, pictures.inputs]))
    references = _keras(opened, run, here, np.concatenate([golden, pictures.inputs]), progress)
    parity = Parity(
        bundle=opened.manifest.name,
        manifest_sha256=sha256_file(opened.path / MANIFEST),
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        data=pictures.description,
        pictures=len(pictures.inputs),
        labelled=pictures.account,
        gates=tuple(_gates(opened, pictures, golden, found, references, here)),
        seconds=time.perf_counter() - started,
        conditions=host.conditions(),
    )
    _check_carried_out(require, parity.gates, references)
    with explained(opened.path):
        (opened.path / EVIDENCE).mkdir(exist_ok=True)
        if thumbnails:
            small = small_pictures.write(opened.path / EVIDENCE, parity.gates, dict(zip(pictures.names, pictures.inputs)))
            parity = parity.model_copy(update={"thumbnails_sha256": small})
        else:
            small_pictures.remove(opened.path / EVIDENCE)
        write_json(opened.path / EVIDENCE / PARITY_FILE, parity.model_dump(mode="json"))
    return parity


def _gates(bundle: Bundle, pictures: Pictures, golden: np.ndarray, found, references, here):
    """Yield every gate, in the order of the manifest's artifacts."""
    manifest, count = bundle.manifest, len(golden)
    yield _contract_gate(bundle, golden)
    baseline = next((a for a in manifest.artifacts if a.precision == "float32"), None)
    twin = next((a for a in manifest.artifacts if a.precision == "int8" and a.format == "tflite"), None)
    for artifact in manifest.artifacts:
        mine = {runtime: logits for (name, runtime), logits in found.items() if name == artifact.name}
        for runtime, row in RUNTIMES.items():
            if artifact.format in row.formats and runtime not in mine and not row.gpu:
                reason = f"{here[runtime].reason}; {here[runtime].install}"
                yield gates.not_run(artifact.precision, artifact.name, runtime, "", "", reason)
        for runtime, logits in mine.items():
            yield gates.golden_gate(artifact, runtime, logits[:count], bundle.golden.expected(artifact.name), _golden_names(bundle), manifest.classes)
            if artifact.precision == "int8" and artifact.format == "onnx":
                yield _against_twin(artifact, twin, runtime, logits, found, pictures, count, manifest.classes)
            else:
                yield _against_keras(bundle, artifact, runtime, logits, references, pictures, count)
            if artifact.precision == "int8":
                yield _task(bundle, artifact, baseline, runtime, logits[count:], found, pictures, count)
    for name, (requirement, reason) in LATER.items():
        yield gates.not_run(name, "all", name, "", requirement, reason)


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
    which = "keras-qat" if artifact.precision == "int8" else "keras-float"
    if isinstance(references, dict) and which in references:
        ours, theirs, names, where = logits, references[which], _golden_names(bundle) + pictures.names, pictures.description
        note = None
    else:
        ours, theirs, names, where = logits[:count], bundle.golden.expected(which), _golden_names(bundle), "golden pictures"
        note = f"compared on the golden pictures only: {references}"
        if theirs is None:
            return gates.not_run(artifact.precision, artifact.name, runtime, which, "", f"the bundle holds no logits of {which}, and {references}")
    if artifact.precision == "int8":
        gate = gates.int8_gate(artifact, runtime, ours, theirs, names, bundle.manifest.classes)
    else:
        gate = gates.float_gate(artifact, runtime, which, ours, theirs, names, bundle.manifest.classes)
    return gate.model_copy(update={"measured_on": where, "reason": gate.reason or note})


def _against_twin(artifact: Artifact, twin: Artifact | None, runtime: str, logits, found, pictures: Pictures, count: int, classes) -> Gate:
    requirement = f"max <= {gates.ONNX_QUANTA} quantum"
    if twin is None:
        return gates.not_run("int8-onnx", artifact.name, runtime, "int8 TFLite", requirement, "the bundle has no int8 TFLite artifact: export with --tflite too")
    if (twin.name, "litert") not in found:
        return gates.not_run("int8-onnx", artifact.name, runtime, "int8 TFLite", requirement, f"LiteRT is not here: {RUNTIMES['litert'].install}")
    gate = gates.onnx_gate(
        artifact, runtime, logits, found[twin.name, "litert"], twin.quantum, ("golden",) * count + pictures.names, classes
    )
    return gate.model_copy(update={"measured_on": pictures.description})


def _task(bundle: Bundle, artifact: Artifact, baseline: Artifact | None, runtime: str, logits, found, pictures: Pictures, count: int) -> Gate:
    """Carry out the task gate on the labelled pictures that training has not seen."""
    requirement = f"no whole 95 % interval of a loss beyond {gates.TASK_LOSS * 100:g} point"
    name = baseline.name if baseline else "float32"
    if pictures.labels is None:
        return gates.not_run("task", artifact.name, runtime, name, requirement, "no labelled pictures: give some with --data DIR")
    if baseline is None:
        return gates.not_run("task", artifact.name, runtime, name, requirement, "the bundle has no float32 artifact to compare with: export one")
    against = next((found[key] for key in found if key[0] == baseline.name), None)
    if against is None:
        return gates.not_run("task", artifact.name, runtime, name, requirement, "no runtime for the float32 artifact is here")
    use = pictures.unseen
    if not use.any():
        return gates.not_run("task", artifact.name, runtime, name, requirement, "all pictures were used in training: give others with --data DIR")
    names = tuple(name for name, used in zip(pictures.names, use) if used)
    gate = gates.task_gate(
        bundle.manifest, artifact, baseline, runtime, logits[use], against[count:][use], pictures.labels[use], pictures.groups[use], names
    )
    return gate.model_copy(update={"measured_on": f"{pictures.description}, not seen in training"})


def _keras(bundle: Bundle, run: Path | None, here, inputs: np.ndarray, progress: Progress) -> dict[str, np.ndarray] | str:
    """Return the Keras networks' logits, or in words why they are not here."""
    if run is None:
        origin = bundle.path / EVIDENCE / ORIGIN_FILE
        if not origin.is_file():
            return "the run is not known; name it with --run RUN"
        known = read_json(origin, "the bundle's origin")
        if not isinstance(known, dict) or not isinstance(known.get("run"), str):
            return f"{origin} does not name the run; name it with --run RUN"
        run = Path(known["run"])
        if not run.is_dir():
            return f"the run {run} is not here; name it with --run RUN"
        named = False
    else:
        named = True
    try:
        opened = runs.open_run(run)
    except Error as error:
        if named:
            raise
        return str(error)
    if any(opened.facts.weights.get(which) != sha256 for which, sha256 in bundle.manifest.weights.items()):
        message = f"the run {run} has other weights than the bundle was made from"
        if named:
            raise BadInput(f"{message}: name the run that it was exported from")
        return f"{message}; name the right one with --run RUN"
    if not here["keras"].available:
        return f"{here['keras'].reason}; {here['keras'].install}"
    result = {}
    for which in bundle.manifest.weights:
        progress(f"keras-{which}")
        result[f"keras-{which}"] = process.run_logits("keras", run, inputs, which=which)
    return result


def _labelled(bundle: Bundle, data: Path, metadata: Path | None, cache: Path) -> Pictures:
    manifest = bundle.manifest
    found = load_labelled(data, manifest.classes, manifest.recipe, bundle.seen_hashes(), metadata=metadata, cache=cache)
    account = {"used": len(found.labels), "seen_in_training": int(found.seen.sum()), "unseen": int((~found.seen).sum())}
    return Pictures(f"pictures of {Path(data).name}", found.pictures, found.paths, found.labels, found.groups, ~found.seen, account)


def _probes(bundle: Bundle) -> Pictures:
    """Draw pictures to compare on; they have no labels that the model could be judged by."""
    size = bundle.manifest.recipe.image_size
    drawn = [samples.draw(samples.CLASSES[i % len(samples.CLASSES)], size, (2, i)) for i in range(PROBES)]
    return Pictures("drawn probes", np.stack(drawn), tuple(f"probe {i}" for i in range(PROBES)))


def _golden_names(bundle: Bundle) -> tuple[str, ...]:
    return tuple(picture.file for picture in bundle.golden.pictures)


def _check_carried_out(require: Sequence[str], carried_out: Sequence[Gate], references: dict[str, np.ndarray] | str) -> None:
    """Raise Missing when something required is here but no gate came to use it."""
    used = [gate for gate in carried_out if gate.outcome != "not run"]
    for name in require:
        if name == "task":
            if not any(gate.name == "task" for gate in used):
                raise Missing("the task gate was required but could not be carried out: give labelled pictures with --data")
        elif name == "keras":
            if isinstance(references, str) or not references:
                raise Missing(f"the runtime keras was required but not compared with: {references or 'the bundle names no network'}")
        elif not any(gate.runtime == name for gate in used):
            raise Missing(f"the runtime {name} was required but no gate used it: the bundle has no artifact for it; export one")


def _check_required(require: Sequence[str], here) -> None:
    for name in require:
        if name == "task":
            continue
        if name not in here:
            raise BadInput(f"there is no runtime {name!r} to require: expected one of {', '.join([*here, 'task'])}")
        if not here[name].available:
            raise Missing(f"the runtime {name} was required but is not here ({here[name].reason}): {here[name].install or 'use a machine that has it'}")
