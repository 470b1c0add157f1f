"""Export: a run to a sealed bundle, ending with the gates.

In: a complete run and the pictures that it names. Out: a bundle folder, whole or absent. Each artifact
is run on the validation part to fit its own temperature and thresholds, and on the test part, where the run has one, for its
scores; and on drawn pictures without a lesion, for how many of them it answers. Then the finished bundle is verified as anybody would. Training pictures are read only where
something is quantized after training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from melanoma_edge import NOTICE, calibration, host, metrics
from melanoma_edge.contract import (
    INTEGER,
    Artifact,
    Calibration,
    CoreML,
    CrossValidation,
    DataFacts,
    Decision,
    Format,
    InputContract,
    Layout,
    Manifest,
    Precision,
    Priors,
    ProbabilitiesFile,
    Scores,
    network_of,
)
from melanoma_edge.convert import census
from melanoma_edge.convert import coreml as packages
from melanoma_edge.convert.bundle import EVIDENCE, GOLDEN, MANIFEST, SEEN, Bundle, Golden
from melanoma_edge.convert.card import model_card
from melanoma_edge.convert.facts import LABELS_FILE, Facts, Head
from melanoma_edge.convert.golden import write_golden
from melanoma_edge.convert.licence import LICENCE_FILE, licence_text
from melanoma_edge.data import non_lesions
from melanoma_edge.data.policy import without_lesion_id
from melanoma_edge.data.split import PARTS, VALIDATION
from melanoma_edge.errors import BadInput
from melanoma_edge.files import new_folder, read_json, refuse_existing, sha256_file, to_json
from melanoma_edge.model import run as runs
from melanoma_edge.proof.abstaining import non_lesion_rates
from melanoma_edge.proof.comparison import compare
from melanoma_edge.proof.export_plan import artifact_name, layouts_of, licence_of, plan
from melanoma_edge.proof.origin import remember
from melanoma_edge.proof.parity_model import Parity
from melanoma_edge.proof.quoted import read_cross_validation, refuse_other
from melanoma_edge.proof.run_pictures import held_out, held_out_parts, representatives
from melanoma_edge.proof.subject import RUNTIME_OF, seen_of
from melanoma_edge.proof.verify import Pictures, verify
from melanoma_edge.runtimes import process

VERSIONED = ("tensorflow", "tf_keras", "tensorflow-model-optimization", "tf2onnx", "onnx", "ai-edge-litert", "onnxruntime-gpu", "onnxruntime", "numpy", "pillow")

TEST_LOGITS = "test-logits.safetensors"

Progress = Callable[[str], None]


def export(
    run: Path,
    out: Path,
    *,
    formats: Sequence[Format] = (),
    precisions: Sequence[Precision] = (),
    layout: Layout = "NHWC",
    head: Head = "logits",
    coreml: bool = False,
    data: Path | None = None,
    licence: str | None = None,
    attributions: Sequence[str] = (),
    remarks: Sequence[str] = (),
    cross_validation: Path | None = None,
    keep_logits: bool = False,
    force: bool = False,
    command: str = "melanoma_edge.proof.export.export",
    progress: Progress = lambda line: None,
) -> Parity:
    """Export `run` as the bundle `out` and return the outcome of its gates.

    Without `formats` and `precisions`, everything that the run can give but what is made on request only. ONNX files take
    their input in the order of `layout`, TFLite files NHWC. With the `head` probabilities, every TFLite artifact
    gets a second file beside it that ends in calibrated probabilities (:mod:`melanoma_edge.convert.head`). With `coreml`, the float32
    ONNX artifact also becomes Core ML packages (:mod:`melanoma_edge.convert.coreml`). `data` is where the run's pictures
    are now, if they moved. `licence` are the terms of the weights, for which the bundle then holds LICENCE.txt; without it, the terms of the pictures are named where they are known. `attributions` are whom and what those terms want named, for
    the card and LICENCE.txt beside the names that the data set gives; `remarks` are what is to be known of the figures, for the card. `cross_validation` is a file of
    :func:`melanoma_edge.proof.cross_validation.export_folds` for the manifest, the card and the report to quote, of the run's own recipe and pictures. With `keep_logits`, what each artifact
    said of the test part stays in evidence/ (:func:`test_logits`). Raises BadInput for an existing `out` (unless `force`), an int8 asked of a run
    without QAT, a layout that none of the files can have, pictures that changed, ProofFailed for an artifact that is not what its name says; nothing is left behind then.
    """
    refuse_existing(out, force=force, mark=MANIFEST)
    opened = runs.open_run(run)
    quoted = None
    if cross_validation is not None:
        quoted = read_cross_validation(cross_validation)
        refuse_other(quoted, cross_validation, opened)
    wanted = plan(opened, formats, precisions)
    layouts = layouts_of(wanted, layout)
    if head == "probabilities" and not any(fmt == "tflite" for fmt, _ in wanted):
        raise BadInput("probabilities in the graph are for TFLite files, and none was asked for: export with --tflite too, or without --head")
    if coreml and ("onnx", "float32") not in wanted:
        raise BadInput("Core ML packages are made from the float32 ONNX artifact: export with --onnx and float32 too, or without --coreml")
    if head == "probabilities" and opened.recipe.abstention == "energy":
        raise BadInput(
            f"the run {opened.path} abstains by energy, and a file that ends in probabilities has none, so whoever uses it could not abstain: "
            "export without --head probabilities, or train with --set abstention=confidence"
        )
    if coreml:
        packages.require()
    stated, licence = licence, licence if licence is not None else licence_of(opened)
    progress(f"reading the {held_out_parts(opened)} pictures")
    root = Path(data) if data else Path(opened.facts.root)
    pictures = held_out(opened, root)
    calibrating = representatives(opened, root, progress) if any(precision == "int8-ptq" for _, precision in wanted) else None
    with new_folder(out, force=force, mark=MANIFEST) as folder:
        golden, golden_inputs = write_golden(folder, opened.recipe.image_size)
        drawn, kinds = non_lesions.pictures(opened.recipe.image_size)
        contents, keras_logits = _convert(opened, wanted, layouts, golden_inputs, calibrating, licence, progress)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        artifacts, logits, tested = [], {}, {}
        for fmt, precision in wanted:
            name = artifact_name(opened, fmt, precision)
            progress(f"running {name}")
            found = process.run_logits(RUNTIME_OF[fmt], folder / name, np.concatenate([golden_inputs, drawn, pictures.inputs]))
            logits[name], of_drawn, of_pictures = np.split(found, [len(golden_inputs), len(golden_inputs) + len(drawn)])
            artifact = _artifact(opened, folder / name, fmt, precision, contents, of_pictures, pictures)
            calibrated = calibrating[1] if precision == "int8-ptq" else None
            measured = non_lesion_rates(artifact.decision, of_pictures[~pictures.unseen], of_drawn, kinds, *opened.priors())
            artifacts.append(artifact.model_copy(update={"layout": layouts[fmt], "calibration": calibrated, "non_lesions": measured}))
            tested[name] = of_pictures[pictures.unseen]
            if head == "probabilities" and fmt == "tflite":
                artifacts[-1] = _with_probabilities(opened, folder, artifacts[-1], contents[name], licence)
        made = _coreml(opened, folder, artifacts, contents, licence, progress) if coreml else ()
        rows = {name: tuple(map(tuple, values.astype(float).tolist())) for name, values in (keras_logits | logits).items()}
        (folder / GOLDEN).write_text(to_json(Golden(schema_version=1, pictures=tuple(golden), logits=rows).model_dump(mode="json")), encoding="utf-8")
        (folder / SEEN).write_text("\n".join(sorted(seen_of(opened))) + "\n", encoding="utf-8")
        (folder / LABELS_FILE).write_text("\n".join(opened.facts.classes) + "\n", encoding="utf-8")
        if stated:
            counts = read_json(opened.path / runs.DATA_FILE, "a run's data report")["counts"]
            (folder / LICENCE_FILE).write_text(licence_text(stated, len(opened.split), counts.get("licences", {}), counts.get("attributions", {}), stated=attributions), encoding="utf-8")
        said = {"licence": licence, "attributions": tuple(attributions), "remarks": tuple(remarks)}
        _seal(opened, folder, Path(out), artifacts, made, said, tested, pictures, quoted)
        if keep_logits:
            (folder / EVIDENCE).mkdir()
            runs.write_tensors(folder / EVIDENCE / TEST_LOGITS, tested, {"manifest_sha256": sha256_file(folder / MANIFEST)})
    remember(Path(out), "run", opened.path)
    return verify(out, pictures=pictures, run=opened.path, command=command, progress=progress)


def test_logits(bundle: Bundle) -> dict[str, np.ndarray]:
    """Return what each artifact of a bundle that was exported with `keep_logits` said of its run's test part, float32 [n, classes], in the order of the run's rows.

    Raises BadInput where that is missing, damaged or of another state of the bundle.
    """
    file = bundle.path / EVIDENCE / TEST_LOGITS
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BadInput(f"{file} cannot be read ({error.strerror}): export the fold again with --force") from None
    found, facts = runs.unpack_tensors(content, str(file), "logits of the test part", "export the fold again with --force")
    if facts.get("manifest_sha256") != sha256_file(bundle.path / MANIFEST) or set(found) != {artifact.name for artifact in bundle.manifest.artifacts}:
        raise BadInput(f"{file} is of another state of the bundle: export the fold again with --force")
    return found


def _convert(
    run: runs.Run,
    wanted,
    layouts: dict[Format, Layout],
    golden_inputs: np.ndarray,
    calibrating: tuple[np.ndarray, Calibration] | None,
    licence: str,
    progress: Progress,
) -> tuple[dict[str, bytes], dict[str, np.ndarray]]:
    """Return ({file name: bytes}, {Keras network: logits of the golden pictures})."""
    from melanoma_edge.model.tensorflow import require

    require()
    import tf_keras as keras

    from melanoma_edge.convert import onnx, tflite
    from melanoma_edge.convert.tflite_entry import quicken
    from melanoma_edge.convert.tflite_metadata import with_metadata
    from melanoma_edge.model.fit import predict

    contents: dict[str, bytes] = {}
    keras_logits = {}
    size = run.recipe.image_size
    keras.backend.clear_session()  # names in the files must not depend on what the process did before
    integers: dict[Precision, bytes] = {}
    for which in run.facts.weights:
        precisions = [(fmt, precision) for fmt, precision in wanted if network_of(precision) == which]
        if not precisions:
            continue
        model = runs.load_keras(run.path, which, batch=1)
        keras_logits[f"keras-{which}"] = predict(model, golden_inputs, batch=1)
        for fmt, precision in precisions:
            name = artifact_name(run, fmt, precision)
            progress(f"converting {name}")
            facts = _facts(run, name, precision, licence, layout=layouts[fmt])
            measured = calibrating[0] if calibrating else None
            if precision in INTEGER and precision not in integers:
                integers[precision] = tflite.convert(model, precision, measured)
            if fmt == "tflite":
                content = quicken(integers[precision]) if precision in INTEGER else tflite.convert(model, precision)
                contents[name] = with_metadata(content, facts)
            elif precision in INTEGER:
                contents[name] = onnx.with_properties(onnx.from_tflite(integers[precision], layouts[fmt]), facts.properties())
            else:
                contents[name] = onnx.with_properties(onnx.from_keras(model, size, layouts[fmt]), facts.properties())
            census.require(name, contents[name], fmt, precision)
    return contents, keras_logits


def _artifact(run: runs.Run, file: Path, fmt: Format, precision: Precision, contents, found: np.ndarray, pictures: Pictures) -> Artifact:
    """Return the manifest's entry of one artifact: facts of the file, decision, scores."""
    from melanoma_edge.convert import onnx, tflite

    content = contents[file.name]
    if fmt == "tflite":
        tensor_in, tensor_out, quantum = tflite.tensors(content)
        operators, weights = tflite.census(content)
    else:
        (tensor_in, tensor_out), quantum = onnx.tensors(content), None
        operators, weights = onnx.census(content)
        if precision in INTEGER:
            quantum = onnx.quantum(content)
    test = pictures.unseen
    decision = run.fit_decision(found[~test], pictures.labels[~test], pictures.groups[~test])
    return Artifact(
        name=file.name,
        path=file.name,
        format=fmt,
        precision=precision,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        input=tensor_in,
        output=tensor_out,
        quantum=quantum,
        operators=operators,
        weight_bytes=weights,
        decision=decision,
        scores=_scores(run, decision, found[test], pictures.labels[test], pictures.groups[test]),
    )


def _scores(run: runs.Run, decision: Decision, logits: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Scores | None:
    """Return the scores of what an artifact says of the test part, None where the run has none."""
    if not run.tested:
        return None
    training, deployment = run.priors()
    probabilities = calibration.probabilities(logits, decision.temperature, training, deployment)
    return metrics.scores(probabilities, labels, run.facts.classes, run.recipe.positive_class or None, decision=decision, logits=logits, groups=groups, priors=deployment)


def _with_probabilities(run: runs.Run, folder: Path, artifact: Artifact, content: bytes, licence: str) -> Artifact:
    """Write the second file of a TFLite artifact and return the artifact's entry with it."""
    from melanoma_edge.convert import head, tflite
    from melanoma_edge.convert.tflite_metadata import with_metadata

    name = head.file_name(artifact.name)
    facts = _facts(run, name, artifact.precision, licence, head="probabilities")
    made = with_metadata(head.with_probabilities(content, artifact.decision.temperature, *run.priors()), facts)
    (folder / name).write_bytes(made)
    _, output, _ = tflite.tensors(made)
    operators, _ = tflite.census(made)
    sha256 = hashlib.sha256(made).hexdigest()
    file = ProbabilitiesFile(name=name, path=name, sha256=sha256, bytes=len(made), output=output, operators=operators)
    return artifact.model_copy(update={"probabilities": file})


def _coreml(run: runs.Run, folder: Path, artifacts: list[Artifact], contents: dict[str, bytes], licence: str, progress: Progress) -> tuple[CoreML, ...]:
    """Write the Core ML packages and return the manifest's entries."""
    artifact = next(artifact for artifact in artifacts if (artifact.format, artifact.precision) == ("onnx", "float32"))
    progress("making Core ML packages")
    facts = _facts(run, artifact.name, artifact.precision, licence)
    return packages.convert(contents[artifact.name], folder, artifact.name, facts, artifact.decision.temperature, *run.priors())


def _seal(
    run: runs.Run,
    folder: Path,
    out: Path,
    artifacts: list[Artifact],
    coreml: tuple[CoreML, ...],
    said: dict[str, Any],
    tested: dict[str, np.ndarray],
    pictures: Pictures,
    quoted: CrossValidation | None,
) -> None:
    """Write the model card and, last, the manifest with the hash of every file.

    `said` are the terms, attributions and remarks for the manifest; `tested` holds each artifact's logits of the test part, the unseen ones of `pictures`.
    """
    training, deployment = run.priors()
    counts = read_json(run.path / runs.DATA_FILE, "a run's data report")["counts"]
    used = {artifact.network for artifact in artifacts}
    size = run.recipe.image_size
    manifest = Manifest(
        name=out.name.removesuffix(".bundle"),
        notice=NOTICE,
        tool_versions={name: found for name, found in host.versions().items() if name in (*VERSIONED, "melanoma-edge")},
        recipe=run.recipe,
        classes=run.facts.classes,
        positive_class=run.recipe.positive_class or None,
        input=InputContract(width=size, height=size),
        priors=Priors(training=dict(zip(run.facts.classes, training.tolist())), deployment=dict(zip(run.facts.classes, deployment.tolist()))),
        artifacts=tuple(artifacts),
        coreml=coreml,
        weights={which: sha256 for which, sha256 in run.facts.weights.items() if which in used},
        data=DataFacts(
            sha256=run.facts.data_sha256,
            pictures={part: len(run.part(part)) for part in PARTS},
            lesions={part: len({row.group for row in run.part(part)}) for part in PARTS},
            with_lesion_id={part: sum(bool(row.lesion) for row in run.part(part)) for part in PARTS},
            classes_without_lesion_id=tuple(without_lesion_id((row.label, row.lesion) for row in run.split)),
            licences=counts.get("licences", {}),
            attributions=counts.get("attributions", {}),
            left_out_classes=tuple(counts["left_out_classes"]),
            calibration_sha256=hashlib.sha256("\n".join(sorted(row.sha256 for row in run.part(VALIDATION))).encode()).hexdigest(),
        ),
        cross_validation=quoted,
        **said,
        files=_hashes(folder),
    )
    if run.tested:
        comparisons = compare(manifest, tested, pictures.labels[pictures.unseen], pictures.groups[pictures.unseen])
        manifest = manifest.model_copy(update={"comparisons": comparisons})
    (folder / "MODEL_CARD.md").write_text(model_card(manifest), encoding="utf-8")
    (folder / MANIFEST).write_text(to_json(manifest.model_copy(update={"files": _hashes(folder)}).model_dump(mode="json")), encoding="utf-8")


def _hashes(folder: Path) -> dict[str, str]:
    """Return {path: SHA-256} of every file below `folder`."""
    return {file.relative_to(folder).as_posix(): sha256_file(file) for file in sorted(folder.rglob("*")) if file.is_file()}


def _facts(run: runs.Run, file: str, precision: Precision, licence: str, head: Head = "logits", layout: Layout = "NHWC") -> Facts:
    """Return what the model file called `file` says about itself."""
    weights = run.facts.weights[network_of(precision)]
    return Facts(
        name=Path(file).stem,
        recipe=run.recipe.name,
        precision=precision,
        classes=run.facts.classes,
        positive_class=run.recipe.positive_class or None,
        size=run.recipe.image_size,
        licence=licence,
        version=weights[:12],
        head=head,
        layout=layout,
    )
