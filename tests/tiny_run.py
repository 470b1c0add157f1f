"""A complete run directory without training, and a bundle with evidence that came from it.

The pictures are drawn, the logits are made up: good enough to be right more often than not.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image
from tiny_bundle import SIZE, write_bundle

from melanoma_edge import calibration, host, metrics, recipes
from melanoma_edge.contract import EpochRow, Manifest, Recipe, RunFacts
from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.data import samples
from melanoma_edge.data.sheet import contact_sheet
from melanoma_edge.data.split import PARTS, TEST, VALIDATION
from melanoma_edge.files import sha256_file, write_json, write_text
from melanoma_edge.model import run as runs
from melanoma_edge.proof import gates
from melanoma_edge.proof.latency_model import ArtifactLatency, Energy, HostLatency, Latency, Preprocessing, RuntimeLatency
from melanoma_edge.proof.parity_model import Parity
from melanoma_edge.runtimes.timing import Plan

CLASSES = ("melanoma", "nevus", "vascular lesion")
SEED = 11
PER_PART = {"train": 4, VALIDATION: 8, TEST: 9}


def write_run(
    folder: Path,
    *,
    classes: tuple[str, ...] = CLASSES,
    positive: str = "melanoma",
    qat: bool = True,
    absent_from_test: str | None = None,
    file_name: str = "picture",
) -> runs.Run:
    """Write a complete run at `folder`, its test pictures beside it, and return it."""
    data = folder.with_name(f"{folder.name} pictures")
    sizes = {"image_size": SIZE, "epochs": 3, "qat_epochs": 2 if qat else 0, "samples_per_class": 4, "batch_size": 4, "min_lesions": 2}
    recipe = Recipe(name="tiny", positive_class=positive, **sizes)
    networks = ("float", "qat") if qat else ("float",)
    rows = list(_rows(data, classes, absent_from_test, file_name))
    folder.mkdir(parents=True)
    for which in networks:
        runs.write_tensors(runs.weights_file(folder, which), {"0000/kernel": np.full(3, len(which), np.float32)})
    write_text(folder / runs.RECIPE_FILE, recipes.to_toml(recipe))
    runs.write_split(folder / runs.SPLIT_FILE, rows)
    counts = {"readable": len(rows) + 2, "unreadable": 1, "identical_groups": 1, "left_out_classes": {"dermatofibroma": 1}, "used": len(rows)}
    left_out = {"dermatofibroma/one.png": "class left out: 1 lesions, min_lesions is 2"}
    write_json(folder / runs.DATA_FILE, {"counts": counts, "unreadable": [["nevus/broken.png", "an empty file"]], "left_out": left_out})
    write_json(folder / runs.HISTORY_FILE, [row.model_dump() for row in _history(recipe)])
    contact_sheet(np.stack([samples.draw(samples.CLASSES[i], SIZE, (3, i)) for i in range(4)]), columns=2).save(folder / runs.AUGMENTED_FILE)
    even = {name: 1 / len(classes) for name in classes}
    facts = RunFacts(
        state="complete",
        command="melanoma-edge train",
        data=str(data),
        root=str(data),
        source="class folders",
        metadata=None,
        tables=(),
        licences=(),
        data_sha256="d" * 64,
        classes=classes,
        training_priors=even,
        data_priors=even,
        parameters=1234,
        multiply_accumulates=5_600_000,
        weights={which: sha256_file(runs.weights_file(folder, which)) for which in networks},
        seconds={which: 61.0 for which in networks},
        peak_memory_bytes=10**9,
        conditions=host.conditions(),
    )
    write_json(folder / runs.RUN_FILE, facts.model_dump(mode="json"))
    run = runs.open_run(folder)
    logits = {f"{which}/{part}": _logits(run, part, which) for which in networks for part in (VALIDATION, TEST)}
    runs.write_tensors(folder / runs.LOGITS_FILE, logits)
    maps = np.random.default_rng(SEED).integers(0, 256, (len(run.part(TEST)), 2, 2), dtype=np.uint8)
    runs.write_tensors(folder / runs.SALIENCY_FILE, {which: maps for which in networks})
    write_json(folder / runs.EVALUATION_FILE, {which: _evaluate(run, logits, which) for which in networks})
    return run


def write_bundle_of(run: runs.Run, folder: Path) -> Path:
    """Write a bundle that came from `run`, with parity and latency evidence, and return its folder."""
    write_bundle(folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    evaluation = json.loads((run.path / runs.EVALUATION_FILE).read_text(encoding="utf-8"))
    for artifact in manifest["artifacts"]:
        artifact |= evaluation["qat" if artifact["precision"] == "int8" else "float"]
    priors = {"training": run.facts.training_priors, "deployment": run.facts.training_priors}
    manifest |= {"classes": run.facts.classes, "positive_class": run.recipe.positive_class or None, "priors": priors}
    manifest |= {"weights": run.facts.weights, "recipe": run.recipe.model_dump()}
    write_json(folder / "manifest.json", Manifest.model_validate_json(json.dumps(manifest)).model_dump(mode="json"))
    (folder / "evidence").mkdir()
    write_json(folder / "evidence" / "origin.json", {"run": str(run.path.resolve())})
    write_json(folder / "evidence" / "parity.json", _parity(run, folder).model_dump(mode="json"))
    write_json(folder / "evidence" / "latency.json", _latency(folder).model_dump(mode="json"))
    return folder


def _rows(data: Path, classes: tuple[str, ...], absent: str | None, file_name: str):
    """Yield the rows of the split; pictures of the test part are drawn and saved."""
    for index, name in enumerate(classes):
        (data / str(index)).mkdir(parents=True)
        for part in PARTS:
            for number in range(0 if part == TEST and name == absent else PER_PART[part]):
                path = f"{index}/{file_name} {part} {number}.png"
                pixels = samples.draw(samples.CLASSES[index], 40, (index, number, len(part)))
                Image.fromarray(pixels).save(data / path)
                sha256 = hashlib.sha256((data / path).read_bytes()).hexdigest()
                if part != TEST:
                    (data / path).unlink()
                group = 100 * (3 * index + PARTS.index(part)) + number // 2
                yield runs.SplitRow(path, sha256, name, f"lesion {group}", group, part, f"{group:064x}")


def _history(recipe: Recipe) -> list[EpochRow]:
    phases = ["float"] * recipe.epochs + ["qat"] * recipe.qat_epochs
    return [
        EpochRow(
            phase=phase,
            epoch=epoch,
            loss=2 / (1 + epoch),
            accuracy=0.5,
            validation_loss=2.2 / (1 + epoch),
            validation_accuracy=0.5,
            validation_balanced_accuracy=0.4 + epoch / 20,
            learning_rate=0.001,
            seconds=1.0,
            images_per_second=100.0,
        )
        for epoch, phase in enumerate(phases)
    ]


def _labels(run: runs.Run, part: str) -> np.ndarray:
    return np.array([run.facts.classes.index(row.label) for row in run.part(part)])


def _logits(run: runs.Run, part: str, which: str) -> np.ndarray:
    labels = _labels(run, part)
    random = np.random.default_rng([SEED, len(part)])
    made = random.normal(0, 1.2, (len(labels), len(run.facts.classes))) + 2 * np.eye(len(run.facts.classes))[labels]
    return (made + (random.normal(0, 0.3, made.shape) if which == "qat" else 0)).astype(np.float32)


def _evaluate(run: runs.Run, logits: dict[str, np.ndarray], which: str) -> dict:
    training, deployment = run.priors()
    classes, positive = run.facts.classes, run.recipe.positive_class or None
    fitted = (logits[f"{which}/{VALIDATION}"], _labels(run, VALIDATION), classes, positive, training, deployment)
    lesions = np.array([row.group for row in run.part(VALIDATION)])
    decision = calibration.fit_decision(*fitted, coverage=0.9, operating=calibration.rule_of(run.recipe), lesions=lesions)
    probabilities = calibration.probabilities(logits[f"{which}/{TEST}"], decision.temperature, training, deployment)
    groups = np.array([row.group for row in run.part(TEST)])
    scores = metrics.scores(probabilities, _labels(run, TEST), classes, positive, decision=decision, logits=logits[f"{which}/{TEST}"], groups=groups, priors=deployment, replicates=100)
    return {"decision": decision.model_dump(), "scores": scores.model_dump()}


def _parity(run: runs.Run, folder: Path) -> Parity:
    """Return gates with every outcome: the float ones pass, int8 flips too much, the task cannot tell."""
    manifest = open_bundle(folder).manifest
    float32, int8, onnx = manifest.artifacts
    found, labels = run.logits(), _labels(run, TEST)
    names = tuple(row.path for row in run.part(TEST))
    groups = np.array([row.group for row in run.part(TEST)])
    base, simulated = found[f"float/{TEST}"], found[f"qat/{TEST}"]
    made = (
        gates.float_gate(float32, "litert", "keras-float", base, base, names, manifest.classes),
        gates.int8_gate(int8, "litert", "keras-qat", base, simulated, names, manifest.classes),
        gates.task_gate(manifest, int8, float32, "litert", simulated, base, labels, groups, names),
        gates.float_gate(onnx, "onnxruntime", "keras-float", base, base, names, manifest.classes),
        gates.not_run("arm64", "all", "arm64", "", "0 quanta to x86", "this version has no arm64 runtime"),
    )
    return Parity(
        bundle=manifest.name,
        manifest_sha256=sha256_file(folder / "manifest.json"),
        command="melanoma-edge verify tiny.bundle --data pictures",
        date="2026-01-02T03:04:05+00:00",
        data="pictures of somewhere",
        pictures=len(labels),
        labelled={"used": len(labels), "seen_in_training": 0, "unseen": len(labels)},
        runtimes={"litert": "2.3.0", "litert-arm64": "LiteRT 2.3.0 on an emulated processor"},
        gates=made,
        seconds=1.0,
        conditions=host.conditions(),
    )


def _latency(folder: Path) -> Latency:
    """Write made-up raw times and return their summary; no artifact of ONNX was timed."""
    manifest = open_bundle(folder).manifest
    random = np.random.default_rng(0)
    times = {artifact.name: [random.gamma(50, 20 + place, 60).tolist() for _ in range(2)] for place, artifact in enumerate(manifest.artifacts[:2])}
    rows = [{"runtime": "litert", "threads": 1, "accelerator": "cpu", "artifacts": {name: [rounds] for name, rounds in times.items()}}]
    packed = gzip.compress(json.dumps({"unit": "microseconds", "rows": rows}).encode(), mtime=0)
    (folder / "evidence" / "latency-samples.json.gz").write_bytes(packed)
    rows = []
    for artifact in manifest.artifacts[:2]:
        p50, p90, p99 = np.percentile(np.concatenate(times[artifact.name]) / 1000, (50, 90, 99)).tolist()
        figures = {"mean_ms": p50, "p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "load_ms": 3.0, "first_ms": 2.0, "runs": 120}
        identity = {"name": artifact.name, "format": artifact.format, "precision": artifact.precision, "sha256": artifact.sha256}
        rows.append(ArtifactLatency(**identity, **figures, round_medians_ms=((p50, p50),), verdict="stable", drift=None, p50_ratio_to_float32=1.0))
    timed = {"version": "1.0", "threads": 1, "affinity": (0,), "import_ms": 10.0, "peak_memory_bytes": 50_000_000, "artifacts": tuple(rows)}
    absent = {"version": None, "threads": 1, "affinity": None, "import_ms": None, "peak_memory_bytes": None, "artifacts": ()}
    measured = HostLatency(
        quick=True,
        comparable=False,
        command="melanoma-edge bench tiny.bundle --quick --threads 1",
        date="2026-01-02T03:04:05Z",
        samples="latency-samples.json.gz",
        samples_sha256=hashlib.sha256(packed).hexdigest(),
        plan=Plan(),
        tolerance=0.05,
        threads=(1,),
        load_average_before=(0.0, 0.0, 0.0),
        load_average_after=(0.1, 0.0, 0.0),
        conditions=host.host(),
        preprocessing=Preprocessing(picture="golden/0.png", runs=5, p50_ms=1.0, p90_ms=1.5),
        energy=Energy(status="not run", note="the system shows no RAPL counters"),
        cross_checks=(),
        runtimes=(
            RuntimeLatency(name="litert", status="timed", reason=None, install=None, **timed),
            RuntimeLatency(name="onnxruntime", status="not run", reason="it is not installed", install="pip install onnxruntime", **absent),
        ),
    )
    return Latency(bundle=manifest.name, manifest_sha256=sha256_file(folder / "manifest.json"), host=measured)
