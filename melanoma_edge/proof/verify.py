"""Verification: every gate that this machine can carry out, for every artifact and runtime.

In: a bundle, and pictures: a labelled folder, or drawn probes when none is given. Out: a
:class:`~melanoma_edge.proof.parity_model.Parity`, also written to evidence/parity.json. A gate that
cannot be carried out says why and what would change that; it never counts as passed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from melanoma_edge import host
from melanoma_edge.convert.bundle import EVIDENCE, MANIFEST, Bundle, open_bundle
from melanoma_edge.convert.reference import to_write
from melanoma_edge.data import image, samples
from melanoma_edge.errors import BadInput, Error, Missing
from melanoma_edge.files import cache_folder, explained, sha256_file, write_json
from melanoma_edge.model import run as runs
from melanoma_edge.proof import thumbnails as small_pictures
from melanoma_edge.proof.gate_plan import Measured, Pictures, carry_out
from melanoma_edge.proof.labelled import load_labelled
from melanoma_edge.proof.origin import remembered
from melanoma_edge.proof.parity_model import Parity
from melanoma_edge.proof.requirements import Unmet, expanded, unmet
from melanoma_edge.proof.source import source_logits
from melanoma_edge.proof.subject import run_artifact
from melanoma_edge.runtimes import process
from melanoma_edge.runtimes.protocol import RUNTIMES, Unsupported, asked

PARITY_FILE = "parity.json"
PROBES = 200
"""Drawn pictures to compare on when no folder is given."""

Progress = Callable[[str], None]


def verify(
    bundle: Path,
    *,
    data: Path | None = None,
    metadata: Path | None = None,
    cache: Path | None = None,
    run: Path | None = None,
    model: Path | None = None,
    runtimes: Sequence[str] = (),
    require: Sequence[str] = (),
    pictures: Pictures | None = None,
    thumbnails: bool = False,
    command: str = "melanoma_edge.proof.verify.verify",
    progress: Progress = lambda line: None,
) -> Parity:
    """Carry out all gates on `bundle` and write evidence/parity.json.

    Prepared pictures of `data` are kept in `cache`, as in training. `run` is the run that the bundle came from, for the comparison with Keras; left out, the one that
    evidence/origin.json names is used if it is here and its weights are the same. `model` is the same for a bundle that was made
    from a model file of somebody else's. `runtimes` names what to run
    (see :func:`melanoma_edge.runtimes.protocol.asked`); one of them that is not here is "not run". `require` names
    runtimes, groups of them or `task`, without which the call raises Missing: before anything is computed where that is known, else
    :class:`~melanoma_edge.proof.requirements.Unmet`, behind the writing of the evidence. `thumbnails` also keeps small pictures of the flips among
    `data` in evidence/thumbnails.json, for the report; without it those of an earlier call are removed. Raises
    BadInput for a bundle or data that are not right; gates that fail do not raise.
    """
    small_pictures.refuse(thumbnails, data)
    started = time.perf_counter()
    opened = open_bundle(to_write(bundle))
    _refuse_other_origin(opened, run, model)
    here = process.available()
    require = expanded(require, here, opened, labelled=data is not None or (pictures is not None and pictures.labels is not None))
    if pictures is None:
        progress("reading pictures")
        pictures = labelled_pictures(opened, data, metadata, cache or cache_folder()) if data is not None else probes(opened)
    wanted = [name for name in asked(runtimes) if runtimes or here[name].available or not RUNTIMES[name].gpu]
    wanted += [name for name in require if name in RUNTIMES and RUNTIMES[name].runs_artifacts and name not in wanted]
    peers = [RUNTIMES[name].peer for name in wanted if RUNTIMES[name].peer]
    peers += ["litert"] if any("onnx" in RUNTIMES[name].formats and not RUNTIMES[name].peer for name in wanted) else []  # int8 ONNX is held to int8 TFLite
    golden = np.stack([image.load(opened.path / picture.file, opened.manifest.input.width) for picture in opened.golden.pictures])
    inputs = np.concatenate([golden, pictures.inputs])
    logits, missing, broken, censuses = _run(opened, [name for name in RUNTIMES if name in (*wanted, *peers)], here, inputs, progress)
    references = "not asked for"
    if any(RUNTIMES[name].peer is None for name in wanted):
        wrapped = opened.manifest.origin == "model"
        references = source_logits(opened, model, here, inputs, progress) if wrapped else _keras(opened, run, here, inputs, progress)
    measured = Measured(pictures, golden, wanted, logits, missing, broken, references, censuses)
    parity = Parity(
        bundle=opened.manifest.name,
        manifest_sha256=sha256_file(opened.path / MANIFEST),
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        data=pictures.description,
        pictures=len(pictures.inputs),
        labelled=pictures.account,
        runtimes={name: here[name].version for name in RUNTIMES if name in {runtime for _, runtime in logits} and here[name].version},
        gates=tuple(carry_out(opened, measured)),
        seconds=time.perf_counter() - started,
        conditions=host.conditions(),
    )
    with explained(opened.path):
        (opened.path / EVIDENCE).mkdir(exist_ok=True)
        if thumbnails:
            small = small_pictures.write(opened.path / EVIDENCE, parity.gates, dict(zip(pictures.names, pictures.inputs)))
            parity = parity.model_copy(update={"thumbnails_sha256": small})
        else:
            small_pictures.remove(opened.path / EVIDENCE)
        write_json(opened.path / EVIDENCE / PARITY_FILE, parity.model_dump(mode="json"))
    if lacking := unmet(require, parity.gates, references):
        raise Unmet(lacking, parity)
    return parity


def _refuse_other_origin(bundle: Bundle, run: Path | None, model: Path | None) -> None:
    """Raise BadInput where the origin that was named is of the other kind."""
    if bundle.manifest.origin == "model" and run is not None:
        raise BadInput(f"{bundle.path} was made from the model file {bundle.manifest.source.file}, not from a run: leave --run out, or name the file with --model")
    if bundle.manifest.origin == "run" and model is not None:
        raise BadInput(f"{bundle.path} was made from a run, not from a model file: leave --model out, or name the run with --run")


def _run(bundle: Bundle, runtimes: Sequence[str], here, inputs: np.ndarray, progress: Progress):
    """Return logits, why there are none, how other kernels and places failed, and censuses, each {(artifact, runtime): ...}."""
    logits, missing, broken, censuses = {}, {}, {}, {}
    for artifact in bundle.manifest.artifacts:
        for runtime in runtimes:
            row, key = RUNTIMES[runtime], (artifact.name, runtime)
            if artifact.format not in row.formats:
                continue
            if not here[runtime].available:
                remedy = here[runtime].install or (None if row.place != "here" else "use a machine that has it")
                missing[key] = "; ".join(filter(None, (here[runtime].reason, remedy)))
                continue
            progress(f"{artifact.name} on {runtime}")
            try:
                step = None if row.place == "here" else lambda line, key=key: progress(f"{key[0]} on {key[1]}: {line}")
                logits[key] = run_artifact(bundle, artifact, runtime, inputs, progress=step)
                if artifact.probabilities is not None:
                    second = artifact.probabilities
                    logits[second.name, runtime] = process.run_logits(runtime, bundle.path / second.path, inputs, progress=step)
            except (Missing, Unsupported) as error:
                missing[key] = str(error)
            except Error as error:
                if row.peer is None:
                    raise
                broken[key] = str(error)
            else:
                if (artifact.format, artifact.integer, row.module) == ("onnx", True, RUNTIMES["onnxruntime"].module) and not row.gpu:
                    censuses[key] = _census(runtime, bundle.file(artifact))
    return logits, missing, broken, censuses


def _census(runtime: str, file: Path) -> dict[str, int] | str:
    """Return how often each operator stands in the graph that `runtime` makes of `file`, or why that is not known."""
    try:
        return process.run_census(runtime, file)
    except Error as error:
        return str(error)


def _keras(bundle: Bundle, run: Path | None, here, inputs: np.ndarray, progress: Progress) -> dict[str, np.ndarray] | str:
    """Return the Keras networks' logits, or in words why they are not here."""
    found = reference_run(bundle, run, here)
    if isinstance(found, str):
        return found
    result = {}
    for which in bundle.manifest.weights:
        progress(f"keras-{which}")
        result[f"keras-{which}"] = process.run_logits("keras", found, inputs, which=which)
    return result


def reference_run(bundle: Bundle, run: Path | None, here) -> Path | str:
    """Return the run that `bundle` came from, or in words why it is not here.

    `run` names it; left out, it is the one that evidence/origin.json names. Raises BadInput for a named one that is not it.
    """
    if run is None:
        found = remembered(bundle.path, "run")
        if isinstance(found, str):
            return f"{found}; name it with --run RUN"
        run = found
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
    return run


def labelled_pictures(bundle: Bundle, data: Path, metadata: Path | None, cache: Path) -> Pictures:
    """Return the pictures of `data` whose class the model knows."""
    manifest = bundle.manifest
    found = load_labelled(data, manifest.classes, manifest.policy, bundle.seen_hashes(), size=manifest.input.width, metadata=metadata, cache=cache)
    account = {"used": len(found.labels), "seen_in_training": int(found.seen.sum()), "unseen": int((~found.seen).sum())}
    passed_over = {
        "of_unknown_classes": sum(found.account["unknown_classes"].values()),
        "unreadable": len(found.account["unreadable"]),
        "in_no_class_folder": found.account["in_no_class_folder"],
        "left_out_as_copies_or_contradicting": found.account["left_out"],
    }
    account |= {name: count for name, count in passed_over.items() if count}
    return Pictures(f"pictures of {Path(data).name}", found.pictures, found.paths, found.labels, found.groups, ~found.seen, account)


def probes(bundle: Bundle, count: int = PROBES) -> Pictures:
    """Draw pictures to compare on; they have no labels that the model could be judged by."""
    size = bundle.manifest.input.width
    drawn = [samples.draw(samples.CLASSES[i % len(samples.CLASSES)], size, (2, i)) for i in range(count)]
    return Pictures("drawn probes", np.stack(drawn), tuple(f"probe {i}" for i in range(count)))
