"""Ours beside the networks that people would put on a phone instead: latency, size, work and, where they were trained on the same folds, balanced accuracy.

One run, one thread, one host, one size of picture: the files of a bundle; `edge-residual`, the default network of earlier bundles; MobileNetV2 (0.35 and 1.0), MobileNetV3-Small and EfficientNet-B0 as tf_keras has them; and the
notebooks' plain CNNs. Each as float32 and int8, on LiteRT and ONNX Runtime, timed by the protocol of `melanoma-edge bench`: several processes a runtime, all networks
interleaved in rounds in each of them. Only ours, the earlier default network (from a cross-validation that is kept in results/) and what peers_training.py trained have an accuracy; all files
but those of the bundle have random weights, which do for time.

Run: python benchmarks/peers.py [--network NAME]... [--quick] [--results FOLDER]; with --markdown it measures nothing and prints the table of the results that there are.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import common
import numpy as np
import peer_networks
import peers_accuracy
import peers_models
import peers_shown
from peers_models import BEFORE, OURS, PRECISIONS, RUNTIMES, Network

from melanoma_edge.convert.bundle import Bundle, open_bundle
from melanoma_edge.data.image import load
from melanoma_edge.data.representative import with_whole_range
from melanoma_edge.proof import latency_figures
from melanoma_edge.proof.quoted import read_cross_validation
from melanoma_edge.runtimes.process import run_times
from melanoma_edge.runtimes.timing import Plan

FULL = Plan()
QUICK = Plan(warmup_runs=3, warmup_seconds=0.0, processes=2, runs=12, seconds=0.0, rounds=4, round_warmup_runs=1)
RIVAL = "mobilenetv2-0.35"
"""The smallest published network, which ours is held against."""
BEFORE_FILE = common.RESULTS / "edge_residual_cross_validation.json"
"""What the default network of earlier bundles came to, by the same recipe on the same folds."""
TARGETS = {
    "int8_to_float32_litert": (0.5, None),
    "int8_to_rival_int8_litert": (0.75, 0.5),
    "int8_to_float32_onnxruntime": (0.6, None),
}
"""What was aimed at, and what would be better still: ratios of median latencies, of which less is better."""
HELD_AGAINST = {
    "int8_to_float32_litert": ((OURS, "litert", "int8"), (OURS, "litert", "float32")),
    "int8_to_rival_int8_litert": ((OURS, "litert", "int8"), (RIVAL, "litert", "int8")),
    "int8_to_float32_onnxruntime": ((OURS, "onnxruntime", "int8"), (OURS, "onnxruntime", "float32")),
}
SILENCE_SECONDS = 900


def time_all(networks: list[Network], images: np.ndarray, plan: Plan) -> tuple[dict, dict]:
    """Return ({(network, runtime, precision): the rounds of each process, in microseconds}, {runtime: facts of its processes}).

    The runtimes take turns, a process each, and the networks begin with another one in every process.
    """
    times: dict[tuple[str, str, str], list] = {}
    facts: dict[str, dict] = {runtime: {"peak_memory_bytes": 0} for runtime in RUNTIMES}
    for number in range(plan.processes):
        for runtime in RUNTIMES:
            files = {(network.name, precision): file for network in networks for precision in PRECISIONS if (file := network.files.get((runtime, precision)))}
            if not files:
                continue
            keys = list(files)
            shift = number * len(keys) // plan.processes
            order = {" ".join(key): files[key] for key in keys[shift:] + keys[:shift]}
            common.say(f"{runtime}, process {number + 1} of {plan.processes}: {len(order)} files")
            found = run_times(runtime, order, images, plan=plan.share(), timeout=SILENCE_SECONDS)
            for key in keys:
                times.setdefault((key[0], runtime, key[1]), []).append(found["models"][" ".join(key)]["rounds"])
            most = max(facts[runtime]["peak_memory_bytes"], found["peak_memory_bytes"])
            facts[runtime] = {"affinity": found["affinity"], "settings": found["settings"], "peak_memory_bytes": most}
    return times, facts


def latency(rounds: list) -> dict:
    """Return the figures of one file from its times, round by round, process by process."""
    every = np.concatenate([np.asarray(times) for process in rounds for times in process]) / 1000
    medians = [[latency_figures.rounded(np.median(times) / 1000) for times in process] for process in rounds]
    p50, p90, p99 = (latency_figures.rounded(value) for value in np.percentile(every, (50, 90, 99)))
    return {
        "p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "runs": len(every), "round_medians_ms": medians,
        "verdict": latency_figures.verdict(medians), "drift": latency_figures.drift(medians),
    }  # fmt: skip


def row(network: Network, times: dict, agreement: dict, accuracy: dict) -> dict:
    """Return everything that is known of a network."""
    files = {}
    for runtime in RUNTIMES:
        for precision in PRECISIONS:
            key = (runtime, precision)
            if key in network.files:
                measured = {"bytes": network.files[key].stat().st_size, "made": network.made[key], "decibels_to_float32": agreement.get(f"{runtime} {precision}")}
                files[f"{runtime} {precision}"] = {**measured, **latency(times[network.name, runtime, precision])}
    return {
        "description": network.description,
        "parameters": network.parameters,
        "multiply_accumulates": network.multiply_accumulates,
        "files": files,
        "missing": {f"{runtime} {precision}": why for (runtime, precision), why in network.missing.items()},
        "accuracy": accuracy,
    }


def judged(name: str, rows: dict[str, dict]) -> dict:
    """Return a ratio of two medians beside its target and stretch, and the lowest and highest ratio of medians of the same round; None where one was not timed."""
    target, stretch = TARGETS[name]
    found = [rows.get(network, {"files": {}})["files"].get(f"{runtime} {precision}") for network, runtime, precision in HELD_AGAINST[name]]
    if None in found:
        return {"value": None, "lowest": None, "highest": None, "target": target, "stretch": stretch, "outcome": "not measured"}
    value = found[0]["p50_ms"] / found[1]["p50_ms"]
    each = latency_figures.flat(found[0]["round_medians_ms"]) / latency_figures.flat(found[1]["round_medians_ms"])
    outcome = "stretch" if stretch is not None and value <= stretch else "reached" if value <= target else "missed"
    return {"value": round(value, 4), "lowest": round(float(each.min()), 4), "highest": round(float(each.max()), 4), "target": target, "stretch": stretch, "outcome": outcome}


def accuracies(names: list[str], asked: argparse.Namespace, folder: Path) -> dict[str, dict]:
    """Return {network: its accuracy, or why it has none}."""
    found = read_cross_validation(asked.cross_validation)
    kept, data = asked.runs or Path("runs") / ("peers-quick" if asked.quick else "peers"), Path(os.path.abspath(asked.data or common.data_folder()))
    known = {OURS: peers_accuracy.ours(found)}
    for name in names:
        if name == BEFORE:
            known[name] = peers_accuracy.before(BEFORE_FILE, found)
            continue
        known[name] = (
            peers_accuracy.trained(name, kept, asked.folds, data, found, folder, quick=asked.quick, progress=common.say)
            if name in peer_networks.PUBLISHED
            else peers_accuracy.untrained("not trained on these folds")
        )
    return known


def measure(asked: argparse.Namespace, bundle: Bundle, folder: Path) -> dict:
    """Return the figures; the files of the other networks go into `folder`. TensorFlow is left to processes that have ended before anything is timed."""
    size, names = bundle.manifest.input.width, asked.network or list(peers_models.OTHERS)
    pictures = np.stack([load(bundle.path / picture.file, size) for picture in bundle.golden.pictures])
    networks = [common.apart(peers_models.ours, bundle)]
    accuracy = accuracies(names, asked, folder)
    for name in names:
        common.say(f"{name}: converting")
        networks.append(common.apart(peers_models.other, name, size, len(bundle.manifest.classes), with_whole_range(pictures), folder))
    agreement = peers_models.check(networks, pictures)
    plan = QUICK if asked.quick else FULL
    times, processes = time_all(networks, pictures, plan)
    rows = {network.name: row(network, times, agreement[network.name], accuracy[network.name]) for network in networks}
    verdicts = [file["verdict"] for one in rows.values() for file in one["files"].values()]
    noisy = sum(verdict != "stable" for verdict in verdicts)
    why_not = "--quick: a few runs say nothing" if asked.quick else f"{noisy} of {len(verdicts)} files were timed on a noisy machine" if noisy else None
    return {
        "comparable": why_not is None,
        "not_comparable_because": why_not,
        "note": peers_shown.NOTE,
        "bundle": bundle.manifest.name,
        "image_size": size,
        "classes": len(bundle.manifest.classes),
        "threads": 1,
        "plan": plan.model_dump(),
        "tolerance": latency_figures.TOLERANCE,
        "processes": processes,
        "networks": rows,
        "judged": {name: judged(name, rows) for name in TARGETS},
    }


def main(arguments: list[str] | None = None) -> None:
    asked = _arguments(arguments)

    def measured() -> dict:
        with tempfile.TemporaryDirectory(prefix="melanoma-edge-peers-") as folder:
            return measure(asked, open_bundle(asked.bundle), Path(folder))

    common.study("peers", asked, measured, peers_shown, TARGETS)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", action="append", choices=list(peers_models.OTHERS), help="hold ours against this network alone; may be given several times")
    parser.add_argument("--bundle", type=Path, default=Path("bundles/reference.bundle"), help="ours (default: bundles/reference.bundle)")
    parser.add_argument("--cross-validation", type=Path, default=common.RESULTS / "reference_cross_validation.json", help="what ours is worth (default: that of the reference bundle)")
    parser.add_argument("--folds", type=Path, default=Path("runs/reference-folds"), help="the folds that the others were trained on (default: runs/reference-folds)")
    parser.add_argument("--runs", type=Path, help="where peers_training.py keeps its trainings (default: runs/peers, with --quick runs/peers-quick)")
    parser.add_argument("--data", type=Path, help="the nine-class ISIC set (default: MELANOMA_EDGE_ISIC9, or ../shared/data/isic9)")
    common.study_options(parser, "peers", "a few runs, and the folds that are trained, to see that everything works; says nothing, and stays out of results/")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    common.run("peers", main)
