"""How often two measurements of the same file are called different, by the rule of `bench-compare` and by simpler ones.

One artifact of each kind is measured again and again on this host, by the full protocol; every pair of measurements is then compared. Whatever is not
called "cannot tell" is a false alarm. The simpler rule draws the rounds of one process alone, as a measurement in one process would have to.

Run: python benchmarks/latency_noise.py BUNDLE [--times N] [--quick]
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import common
import numpy as np

from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.proof.bench_compare import interval
from melanoma_edge.proof.latency import FULL, golden_inputs
from melanoma_edge.proof.latency_figures import Timed, row
from melanoma_edge.proof.latency_model import ArtifactLatency
from melanoma_edge.runtimes.process import run_times
from melanoma_edge.runtimes.timing import Plan

RUNTIMES = {"litert": "tflite", "onnxruntime": "onnx"}
PRECISIONS = ("float32", "int8")
QUICK = Plan(warmup_runs=5, warmup_seconds=0.0, processes=2, runs=40, seconds=0.0, rounds=4)


def measure(bundle: Path, times: int, plan: Plan) -> dict[str, list[ArtifactLatency]]:
    """Return {artifact: its row in each of `times` measurements}."""
    opened = open_bundle(bundle)
    images = golden_inputs(opened)
    found: dict[str, list[ArtifactLatency]] = {}
    for number in range(times):
        common.say(f"measurement {number + 1} of {times}")
        raw: dict[str, list] = {}
        for _, (runtime, kind) in itertools.product(range(plan.processes), RUNTIMES.items()):
            models = {artifact.name: opened.file(artifact) for artifact in opened.manifest.artifacts if artifact.format == kind and artifact.precision in PRECISIONS}
            facts = run_times(runtime, models, images, plan=plan.share(), contract=opened.manifest.input)
            for name in models:
                raw.setdefault(name, []).append(facts["models"][name]["rounds"])
        for name, processes in raw.items():
            found.setdefault(name, []).append(row(opened.artifact(name), Timed(processes)))
    return found


def figures(rows: list[ArtifactLatency]) -> dict:
    """Return how measurements of one artifact differ, and what comparing them two by two comes to."""
    one_process = [row.model_copy(update={"round_medians_ms": row.round_medians_ms[:1]}) for row in rows]
    process_medians = np.array([[np.median(rounds) for rounds in row.round_medians_ms] for row in rows])
    within = np.array([[max(rounds) / min(rounds) - 1 for rounds in row.round_medians_ms] for row in rows])
    calm = [place for place, row in enumerate(rows) if row.verdict == "stable"]
    p50 = np.array([row.p50_ms for row in rows])
    return {
        "measurements": len(rows),
        "stable": len(calm),
        "p50_ms": p50.tolist(),
        "largest_ratio_of_two_p50": float(p50.max() / p50.min()),
        "spread_of_rounds_within_a_process_median": float(np.median(within)),
        "spread_of_processes_within_a_measurement_median": float(np.median(process_medians.max(axis=1) / process_medians.min(axis=1) - 1)),
        "bench_compare": _alarms(rows, calm),
        "one_process_alone": _alarms(one_process, calm),
    }


def _alarms(rows: list[ArtifactLatency], calm: list[int]) -> dict:
    """Return how many pairs of stable measurements are called different, and how wide the intervals are."""
    told = [interval(rows[a], rows[b]) for a, b in itertools.combinations(calm, 2)]
    widths = [high / low - 1 for low, high in told]
    return {"pairs": len(told), "called_different": sum(not low <= 1 <= high for low, high in told), "median_width_of_interval": float(np.median(widths)) if widths else None}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--times", type=int, default=12, help="measurements (default: 12, six minutes)")
    parser.add_argument("--quick", action="store_true", help="a short look that stays out of results/")
    asked = parser.parse_args(arguments)
    plan = QUICK if asked.quick else FULL
    each = {name: figures(rows) for name, rows in measure(asked.bundle, asked.times, plan).items()}
    together = {
        rule: {key: sum(one[rule][key] for one in each.values()) for key in ("pairs", "called_different")} for rule in ("bench_compare", "one_process_alone")
    }
    common.write("latency_noise", {"comparable": not asked.quick, "plan": plan.model_dump(), "together": together, "artifacts": each}, folder=Path("runs/latency-noise-quick") if asked.quick else None)


if __name__ == "__main__":
    common.run("latency_noise", main)
