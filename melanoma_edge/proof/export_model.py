"""Export of a model file that somebody else made: wrapped into a sealed bundle, ending with the gates.

In: a Keras, ONNX or TFLite file, what its owner declares of it, and perhaps pictures. Out: a bundle folder, whole or
absent, that says of everything else that it is not known. A Keras file is converted; ONNX and TFLite files stay as they are
(an ONNX file's open batch is fixed to 1), and a float32 ONNX file gets int8 beside it where there are pictures to calibrate on.
Without labelled pictures nothing is fitted or scored.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from melanoma_edge import NOTICE, calibration, host, metrics
from melanoma_edge.contract import PRECISIONS, Artifact, Decision, Format, InputContract, Manifest, Precision, Priors, Recipe, Scores, Source, Tensor
from melanoma_edge.convert.bundle import GOLDEN, MANIFEST, SEEN, Golden
from melanoma_edge.convert.card import model_card
from melanoma_edge.convert.foreign_facts import in_words
from melanoma_edge.convert.golden import write_golden
from melanoma_edge.convert.licence import LICENCE_FILE, licence_text
from melanoma_edge.data import input_table, non_lesions, samples
from melanoma_edge.errors import BadInput
from melanoma_edge.files import cache_folder, new_folder, refuse_existing, sha256_file, to_json
from melanoma_edge.model import keras_file
from melanoma_edge.proof.abstaining import non_lesion_rates
from melanoma_edge.proof.declared import Declared
from melanoma_edge.proof.export import VERSIONED
from melanoma_edge.proof.gate_plan import Pictures
from melanoma_edge.proof.origin import remember
from melanoma_edge.proof.own_pictures import Drawn, Halves, draw_calibration, load_halves
from melanoma_edge.proof.parity_model import Parity
from melanoma_edge.proof.source import SOURCE
from melanoma_edge.proof.subject import RUNTIME_OF
from melanoma_edge.proof.verify import verify
from melanoma_edge.runtimes import process

FORMATS = {**dict.fromkeys(keras_file.SUFFIXES, "keras"), ".onnx": "onnx", ".tflite": "tflite"}
"""What an ending says that a file is."""
MADE: dict[str, tuple[tuple[Format, Precision], ...]] = {
    "keras": (("tflite", "float32"), ("tflite", "float16"), ("tflite", "dynamic"), ("tflite", "int8-ptq"), ("onnx", "float32"), ("onnx", "int8-ptq")),
    "onnx": (("onnx", "float32"), ("onnx", "int8-ptq")),
}
"""What is made of a model file, int8-ptq only with pictures to calibrate on; the first of an ONNX file is the file itself."""
QUANTIZED: tuple[Format, Precision] = ("onnx", "int8-ptq")
CALLED = {"keras": "a Keras", "onnx": "an ONNX", "tflite": "a TFLite"}
LICENCE = "Not stated. The model was made by somebody else; its terms, and those of the pictures that it was trained on, are not known here."
DEFAULTS = Recipe(name="defaults")
"""For decisions that are fitted."""
LOOK_SECONDS = 600
"""A file that takes longer to be looked through is taken for one that was made to."""
FOREIGN = "melanoma_edge.convert.foreign"
KERAS_RUNTIME = "keras-file"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Opened:
    """A model file that was looked at, and what its owner declares of it."""

    file: Path
    format: str
    sha256: str
    size: int
    classes: int
    written_by: str
    changes: tuple[str, ...]
    facts: dict[str, Any] | None
    """Of the artifact that it becomes; None for Keras, which is converted later."""


def export_model(
    model: Path,
    out: Path,
    declared: Declared,
    *,
    formats: Sequence[Format] = (),
    precisions: Sequence[Precision] = (),
    calibrate: Path | None = None,
    data: Path | None = None,
    metadata: Path | None = None,
    cache: Path | None = None,
    licence: str | None = None,
    attributions: Sequence[str] = (),
    remarks: Sequence[str] = (),
    force: bool = False,
    command: str = "melanoma_edge.proof.export_model.export_model",
    progress: Progress = lambda line: None,
) -> Parity:
    """Wrap the model file `model` as the bundle `out` and return the outcome of its gates.

    `calibrate` names pictures for int8-ptq, which Keras and float32 ONNX files can get. Of the labelled pictures of `data`, one half fits temperature,
    thresholds and abstention, the other is scored. Raises BadInput for an existing `out` (unless `force`), files that hold code, are damaged or
    of another form than one picture to one row of `declared.classes`; `licence`, `attributions` and `remarks` as in :func:`melanoma_edge.proof.export.export`; nothing is left behind then.
    """
    model, out = Path(model), Path(out)
    refuse_existing(out, force=force, mark=MANIFEST)
    fmt = format_of(model)
    wanted = plan(fmt, formats, precisions, calibrate)
    with tempfile.TemporaryDirectory(prefix="melanoma-edge-") as made, new_folder(out, force=force, mark=MANIFEST) as folder:
        progress(f"looking through {model.name}")
        opened = look(model, fmt, declared.size, Path(made))
        if opened.classes != len(declared.classes):
            raise BadInput(f"{model.name} gives {opened.classes} numbers, and {len(declared.classes)} classes were named: expected one line for each output, in its order")
        _refuse_side(opened, declared)
        _refuse_whole(opened, precisions, calibrate)
        contract = declared.contract(opened.size)
        input_table.table(contract)
        drawn = None
        if calibrate is not None:
            progress("drawing pictures to calibrate on")
            drawn = draw_calibration(calibrate, opened.size, cache=cache or cache_folder())
        halves = None
        if data is not None:
            progress("reading labelled pictures")
            rules = Recipe(name="defaults", positive_class=declared.positive or "")
            halves = load_halves(data, declared.classes, rules, opened.size, drawn.keys if drawn else frozenset(), metadata=metadata, cache=cache or cache_folder())
        files = _artifacts(opened, wanted, folder, Path(made), contract, drawn, declared, licence, progress)
        _refuse_unfit(files, contract)
        kind = output_kind(declared, {name: facts["ends_in"] for name, facts in files.items()})
        golden, golden_inputs = write_golden(folder, opened.size)
        drawn_kinds: tuple[str, ...] = ()
        pictures = golden_inputs
        if halves is not None:
            without_lesion, drawn_kinds = non_lesions.pictures(opened.size)
            pictures = np.concatenate([golden_inputs, without_lesion, halves.found.pictures])
        artifacts, logits = [], {}
        for name, facts in files.items():
            progress(f"running {name}")
            outputs = process.run_logits(RUNTIME_OF[facts["format"]], folder / name, pictures, contract=contract)
            logits[name] = outputs[: len(golden)]
            artifacts.append(_artifact(folder / name, facts, outputs[len(golden) :], kind, declared, halves, drawn, drawn_kinds))
        if source_runtime(opened.format, opened.sha256, [artifact.sha256 for artifact in artifacts]):
            progress(f"running {model.name}")
            logits[SOURCE] = process.run_logits(f"{opened.format}-file", model, golden_inputs, contract=contract)
        rows = {name: tuple(map(tuple, values.astype(float).tolist())) for name, values in logits.items()}
        (folder / GOLDEN).write_text(to_json(Golden(schema_version=1, pictures=tuple(golden), logits=rows).model_dump(mode="json")), encoding="utf-8")
        known = sorted((drawn.keys if drawn else frozenset()) | (halves.keys if halves else frozenset()))
        (folder / SEEN).write_text("".join(f"{key}\n" for key in known), encoding="utf-8")
        (folder / "labels.txt").write_text("\n".join(declared.classes) + "\n", encoding="utf-8")
        if licence:
            (folder / LICENCE_FILE).write_text(licence_text(licence, stated=attributions), encoding="utf-8")
        said = {"licence": licence or LICENCE, "attributions": tuple(attributions), "remarks": tuple(remarks)}
        _seal(opened, folder, out, artifacts, contract, kind, declared, halves, said)
    remember(out, "model", model)
    shown = None if halves is None else _labelled(halves, Path(data))
    return verify(out, pictures=shown, model=model, command=command, progress=progress)


def format_of(model: Path) -> str:
    """Return what kind of model file `model` is by its ending; raises BadInput for a missing one, a folder and other endings."""
    if model.is_dir():
        what = "a SavedModel folder" if (model / "saved_model.pb").exists() else "a folder"
        raise BadInput(f"{model} is {what}: expected a model file ({', '.join(FORMATS)}); save it as one (for Keras: model.save('model.keras'))")
    if not model.is_file():
        raise BadInput(f"{model} is missing: expected a model file ({', '.join(FORMATS)}); give another path")
    if model.suffix.lower() not in FORMATS:
        raise BadInput(f"{model.name} ends in {model.suffix or 'nothing'}: expected a model file ({', '.join(FORMATS)}); save it as one of these")
    return FORMATS[model.suffix.lower()]


def plan(fmt: str, formats: Sequence[Format], precisions: Sequence[Precision], calibrate: Path | None) -> list[tuple[Format, Precision]]:
    """Return the artifacts to make of a file of this format; of a TFLite file none, it is wrapped as it is. Raises BadInput for what cannot be made."""
    if fmt not in MADE:
        asked = [*(f"--{name}" for name in formats), *(["--precision"] if precisions else []), *(["--calibrate"] if calibrate else [])]
        if asked:
            raise BadInput(
                f"{CALLED[fmt]} file is wrapped as it is, since nothing reads a network back out of one: leave out {', '.join(asked)}, or give the model as a Keras or ONNX file"
            )
        return []
    possible, kind = MADE[fmt], CALLED[fmt]
    known = dict.fromkeys(precision for _, precision in possible)
    for precision in precisions:
        if precision not in known:
            why = ": int8 of a run comes from training; after training it is int8-ptq" if precision == "int8" else ""
            raise BadInput(f"there is no precision {precision!r} of {kind} file{why}; expected some of {', '.join(known)}")
    if other := [name for name in formats if name not in dict(possible)]:
        raise BadInput(f"{kind} file is not converted to {', '.join(other)}: leave out --{other[0]}, or give the model as a Keras file")
    if "int8-ptq" in precisions and calibrate is None:
        raise BadInput("int8-ptq needs pictures to measure ranges on: name some with --calibrate DIR")
    made = [
        (made, precision)
        for made, precision in possible
        if (not formats or made in formats) and (precision in precisions if precisions else precision != "int8-ptq" or calibrate is not None)
    ]
    if calibrate is not None and "int8-ptq" not in {precision for _, precision in made}:
        raise BadInput("--calibrate is for int8-ptq artifacts, and none was asked for: leave it out, or ask for --precision int8-ptq too")
    if not made:
        table = "; ".join(f"{name}: {', '.join(p for f, p in possible if f == name)}" for name in PRECISIONS)
        raise BadInput(f"there is no {'/'.join(formats)} artifact of precision {', '.join(precisions)}: expected one of {table}")
    return made


def look(model: Path, fmt: str, size: int | None, made: Path) -> Opened:
    """Look at a model file in a process of its own; an ONNX file is written to `made`, its batch fixed. Raises BadInput as that does."""
    sha256 = sha256_file(model)
    arguments: dict[str, Any] = {"file": str(model.absolute()), "size": size}
    if fmt == "onnx":
        arguments["target"] = str(made / "model.onnx")
    runtime, function = {"keras": (KERAS_RUNTIME, "look"), "onnx": ("onnxruntime", "fix_onnx"), "tflite": ("litert", "look_tflite")}[fmt]
    found = process.run_call(runtime, f"{FOREIGN}:{function}", arguments, what=model.name, timeout=LOOK_SECONDS)
    return Opened(model, fmt, sha256, found["size"], found["classes"], found["written_by"], tuple(found.get("changes", ())), found.get("facts"))


def _refuse_side(opened: Opened, declared: Declared) -> None:
    """Raise BadInput for pictures of a size that nothing can be proved on: the gates draw theirs."""
    if not samples.MIN_SIZE <= opened.size <= samples.MAX_SIZE:
        advice = "export the model for pictures of another size" + ("" if declared.size is None else ", or give another --size where the file takes any")
        raise BadInput(
            f"{opened.file.name} takes pictures of {opened.size} x {opened.size} pixels: expected {samples.MIN_SIZE} to {samples.MAX_SIZE} a side; {advice}"
        )


def output_kind(declared: Declared, ends: dict[str, str | None]) -> str:
    """Return what the artifacts give: as declared, else probabilities where all end in softmax. Raises BadInput for a sigmoid that nobody explained."""
    found = set(ends.values())
    if declared.output is not None:
        return declared.output
    if "sigmoid" in found:
        raise BadInput(
            "the model ends in a sigmoid, so its numbers are neither logits nor shares of one whole: say with --output probabilities that they are to be "
            "taken relative to their sum, or export the model without its last layer and with --output logits"
        )
    return "probabilities" if found == {"softmax"} else "logits"


def source_runtime(fmt: str, sha256: str, artifacts: Sequence[str]) -> str | None:
    """Return the runtime that runs the source as it came, None where all artifacts are its very bytes."""
    return None if set(artifacts) == {sha256} else f"{fmt}-file"


def _refuse_whole(opened: Opened, precisions: Sequence[Precision], calibrate: Path | None) -> None:
    """Raise BadInput where something is to be made of a file that is quantized already."""
    found = opened.facts["precision"] if opened.facts is not None else "float32"
    if found != "float32" and (precisions or calibrate is not None):
        raise BadInput(
            f"{opened.file.name} is {found} already, so it is wrapped as it is: leave out {'--calibrate' if calibrate is not None else '--precision'}, or give the float32 file"
        )


def _artifacts(
    opened: Opened, wanted, folder: Path, made: Path, contract: InputContract, drawn: Drawn | None, declared: Declared, licence: str | None, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Write the artifacts into the bundle's folder, by way of `made`, and return {file name: facts}."""
    pictures = None
    if drawn is not None:
        pictures = made / "calibration.npy"
        np.save(pictures, drawn.inputs)
    if opened.facts is None:
        found = _converted(opened, wanted, made, contract, pictures, declared, licence, progress)
    else:
        name = f"{_stem(opened.file)}-{opened.facts['precision']}.{opened.format}"
        shutil.copyfile(made / "model.onnx" if opened.format == "onnx" else opened.file, made / name)
        found = {name: {**opened.facts, "format": opened.format}}
    if QUANTIZED in wanted:
        source = next(name for name, facts in found.items() if (facts["format"], facts["precision"]) == ("onnx", "float32"))
        found |= _quantized(opened, made, source, found[source]["layout"], contract, pictures, declared, progress)
    as_it_is = opened.facts is not None and QUANTIZED not in wanted
    kept = {name: facts for name, facts in found.items() if as_it_is or (facts["format"], facts["precision"]) in wanted}
    for name in kept:
        shutil.copyfile(made / name, folder / name)
    return kept


def _converted(
    opened: Opened, wanted, made: Path, contract: InputContract, pictures: Path | None, declared: Declared, licence: str | None, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Convert the Keras file to all of `wanted` but int8 ONNX, which needs the float32 one; return {file name: facts}."""
    direct = [pair for pair in wanted if pair != QUANTIZED]
    if QUANTIZED in wanted and ("onnx", "float32") not in direct:
        direct.append(("onnx", "float32"))
    names = [(fmt, precision, f"{_stem(opened.file)}-{precision}.{fmt}") for fmt, precision in direct]
    progress(f"converting {opened.file.name} to {', '.join(name for _, _, name in names)}")
    arguments = {
        "file": str(opened.file.absolute()),
        "size": opened.size,
        "wanted": names,
        "folder": str(made),
        "contract": contract.model_dump(mode="json"),
        "calibration": None if pictures is None else str(pictures),
        "properties": _properties(contract, declared, "NHWC"),
        "said": {
            "source": opened.file.name,
            "version": opened.sha256[:12],
            "classes": declared.classes,
            "positive": declared.positive,
            "output": declared.output,
            "licence": licence or LICENCE,
        },
    }
    found = process.run_call(KERAS_RUNTIME, f"{FOREIGN}:convert_keras", arguments, what=opened.file.name)
    return {name: {**found[name], "format": fmt, "precision": precision} for fmt, precision, name in names}


def _quantized(
    opened: Opened, made: Path, source: str, layout: str, contract: InputContract, pictures: Path, declared: Declared, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Quantize the float32 ONNX file `source` of the folder `made` after training; return {file name: facts}."""
    fmt, precision = QUANTIZED
    name = f"{_stem(opened.file)}-{precision}.{fmt}"
    progress(f"quantizing {opened.file.name} to {name}")
    arguments = {
        "file": str(made / source),
        "target": str(made / name),
        "shown": opened.file.name,
        "layout": layout,
        "contract": contract.model_dump(mode="json"),
        "calibration": str(pictures),
        "properties": _properties(contract, declared, layout),
    }
    found = process.run_call("onnxruntime", f"{FOREIGN}:quantize_onnx", arguments, what=opened.file.name)
    return {name: {**found, "format": fmt, "precision": precision}}


def _refuse_unfit(files: dict[str, dict[str, Any]], contract: InputContract) -> None:
    """Raise BadInput where the declared input does not belong to the whole numbers that a file takes."""
    for name, facts in files.items():
        taken = Tensor.model_validate_json(json.dumps(facts["input"]))
        if taken.dtype != "float32":
            input_table.refuse_coarse(input_table.table(contract, taken.dtype, taken.quantization), name)


def _artifact(
    file: Path, facts: dict, outputs: np.ndarray, kind: str, declared: Declared, halves: Halves | None, drawn: Drawn | None, kinds: Sequence[str]
) -> Artifact:
    """Return the manifest's entry of one artifact; `outputs` are those of the drawn pictures of `kinds`, none of which shows a lesion, and of the labelled ones."""
    of_drawn, labelled = outputs[: len(kinds)], outputs[len(kinds) :]
    decision, scores = _decided(labelled, kind, declared, halves)
    measured = None
    if halves is not None:
        even, logits = np.full(len(declared.classes), 1 / len(declared.classes)), calibration.as_logits(labelled, kind)[halves.fitting]
        measured = non_lesion_rates(decision, logits, calibration.as_logits(of_drawn, kind), kinds, even, even, output=kind)
    integer = facts["precision"].startswith("int8")
    return Artifact(
        name=file.name,
        path=file.name,
        format=facts["format"],
        precision=facts["precision"],
        sha256=sha256_file(file),
        bytes=file.stat().st_size,
        input=Tensor.model_validate_json(json.dumps(facts["input"])),
        output=Tensor.model_validate_json(json.dumps(facts["output"])),
        layout=facts["layout"],
        quantum=facts["quantum"] if integer else None,
        calibration=drawn.record if drawn and facts["precision"] == "int8-ptq" else None,
        operators=facts["operators"],
        weight_bytes=facts["weight_bytes"],
        decision=decision,
        non_lesions=measured,
        scores=scores,
    )


def _decided(outputs: np.ndarray, kind: str, declared: Declared, halves: Halves | None) -> tuple[Decision, Scores | None]:
    """Fit a decision on one half of the labelled pictures and score it on the other; without any, neither."""
    if halves is None:
        return calibration.unfitted(), None
    logits, labels, classes = calibration.as_logits(outputs, kind), halves.found.labels, declared.classes
    even = np.full(len(classes), 1 / len(classes))
    fitting, scoring = halves.fitting, halves.scoring
    asked = {"coverage": DEFAULTS.coverage, "operating": calibration.rule_of(DEFAULTS), "abstention": "confidence"}  # probabilities have no energy
    decision = calibration.fit_decision(logits[fitting], labels[fitting], classes, declared.positive, even, even, lesions=halves.found.groups[fitting], **asked)
    probabilities = calibration.probabilities(logits[scoring], decision.temperature, even, even)
    return decision, metrics.scores(probabilities, labels[scoring], classes, declared.positive, decision=decision, groups=halves.found.groups[scoring])


def _seal(
    opened: Opened, folder: Path, out: Path, artifacts: list[Artifact], contract: InputContract, kind: str, declared: Declared, halves: Halves | None, said: dict[str, Any]
) -> None:
    """Write the model card and, last, the manifest with the hash of every file. `said` are the terms, attributions and remarks."""
    even = {name: 1 / len(declared.classes) for name in declared.classes}
    manifest = Manifest(
        name=out.name.removesuffix(".bundle"),
        notice=NOTICE,
        tool_versions={name: found for name, found in host.versions().items() if name in (*VERSIONED, "melanoma-edge")},
        origin="model",
        source=Source(
            file=opened.file.name,
            format=opened.format,
            sha256=opened.sha256,
            bytes=opened.file.stat().st_size,
            changes=opened.changes,
            written_by=opened.written_by,
        ),
        classes=declared.classes,
        positive_class=declared.positive,
        input=contract,
        output=kind,
        priors=Priors(training=even, deployment=even),
        artifacts=tuple(artifacts),
        weights={},
        fitting=halves.record if halves else None,
        **said,
        files={artifact.path: artifact.sha256 for artifact in artifacts},
    )
    (folder / "MODEL_CARD.md").write_text(model_card(manifest), encoding="utf-8")
    files = {file.relative_to(folder).as_posix(): sha256_file(file) for file in sorted(folder.rglob("*")) if file.is_file()}
    (folder / MANIFEST).write_text(to_json(manifest.model_copy(update={"files": files}).model_dump(mode="json")), encoding="utf-8")


def _labelled(halves: Halves, data: Path) -> Pictures:
    """Return the labelled pictures as the gates take them; the fitting half counts as seen."""
    found, scoring = halves.found, halves.scoring
    account = {"used": len(found.labels), "seen_in_training": int((~scoring).sum()), "unseen": int(scoring.sum())}
    return Pictures(f"pictures of {data.name}", found.pictures, found.paths, found.labels, found.groups, scoring, account)


def _properties(contract: InputContract, declared: Declared, layout: str) -> dict[str, str]:
    """Return what ONNX files made here carry in metadata_props."""
    return {"notice": NOTICE, "classes": "\n".join(declared.classes), "input": f"{in_words(contract)}, {layout}"}


def _stem(file: Path) -> str:
    """Return a file's name without its ending, of letters that a bundle's paths may have."""
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "-" for letter in file.stem).strip("-._ ")
    return plain[:80] or "model"
