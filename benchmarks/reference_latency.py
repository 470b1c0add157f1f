"""Every artifact of the reference bundle on this host: `melanoma-edge bench` by its whole protocol, cross-checks included.

Measures a copy of the bundle on one thread and on as many as there are cores (at most four), and writes what its latency.json holds then, the raw times beside it. Give it a quiet machine: a verdict says whether it was one.

Run: python benchmarks/reference_latency.py [--bundle BUNDLE] [--quick] [--results FOLDER]; with --markdown it measures nothing and prints the tables of the results that there are.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import common

from melanoma_edge.convert.bundle import EVIDENCE, open_bundle
from melanoma_edge.convert.reference import to_read
from melanoma_edge.files import read_json, write_bytes
from melanoma_edge.proof.latency import bench
from melanoma_edge.proof.latency_model import HostLatency, Latency

NAME = "reference_latency"
MOST_THREADS = 4
TITLES = {"litert": "LiteRT", "onnxruntime": "ONNX Runtime"}
HEADINGS = ("artifact", "runtime", "threads", "p50", "p90", "p99", "of float32", "first inference", "loading", "verdict")


def measure(bundle: Path, results: Path, *, quick: bool) -> Latency:
    """Return what this host takes for a copy of the bundle, whose own evidence stays as it is; the raw times go into `results`."""
    cores, source = len(os.sched_getaffinity(0)), open_bundle(to_read(bundle)).path.resolve()
    with tempfile.TemporaryDirectory(prefix="melanoma-edge-latency-") as folder:
        copy = Path(folder) / source.name
        shutil.copytree(source, copy, ignore=lambda place, names: {EVIDENCE} if Path(place) == source else ())
        found = bench(copy, quick=quick, threads=sorted({1, min(cores, MOST_THREADS)}), progress=common.say)
        name = f"{NAME}-samples.json.gz"
        results.mkdir(parents=True, exist_ok=True)
        write_bytes(results / name, (copy / EVIDENCE / found.host.samples).read_bytes())
    return found.model_copy(update={"host": found.host.model_copy(update={"samples": name})})


def markdown(found: Latency) -> str:
    """Return the tables: latencies, what surrounds them, and what the runtimes' own tools say."""
    host = found.host
    lines = [HEADINGS, ("---", "---", *["---:"] * 7, "---")]
    for runtime in host.runtimes:
        for row in runtime.artifacts:
            ratio = "–" if row.p50_ratio_to_float32 is None else f"{row.p50_ratio_to_float32:.2f}"
            times = (f"{value:.3f}" for value in (row.p50_ms, row.p90_ms, row.p99_ms))
            start = (f"{row.first_ms:.1f}", f"{row.load_ms:.1f}")
            lines.append((f"{row.precision} {row.format}", TITLES.get(runtime.name, runtime.name), str(runtime.threads), *times, ratio, *start, row.verdict.partition(":")[0]))
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    peaks = ", ".join(f"{TITLES.get(one.name, one.name)} on {one.threads}: {one.peak_memory_bytes / 2**20:.0f} MiB" for one in host.runtimes if one.peak_memory_bytes)
    around = (
        f"Milliseconds; all artifacts interleaved in one run on {host.conditions.cpu.model}, {host.conditions.cpu.logical_cores} cores: host numbers, never phone numbers. "
        f"Decoding, cropping and resizing a picture: {host.preprocessing.p50_ms:.2f} (p90 {host.preprocessing.p90_ms:.2f}). Peak memory of a process: {peaks}. Energy: {host.energy.status} ({host.energy.note})."
    )
    return "\n\n".join([table, around, crossed(host)])


def crossed(host: HostLatency) -> str:
    """Return a sentence on the cross-checks that ran."""
    ran = [one for one in host.cross_checks if one.status != "not run"]
    if not ran:
        return "Cross-checks: none ran."
    apart = [f"{one.tool} on {one.artifact}, {one.threads} thread{'s' * (one.threads > 1)}: {one.ratio:.2f} times ours" for one in ran if one.status == "differs"]
    said = f"Cross-checks: {len(ran) - len(apart)} of {len(ran)} agree with ours within {host.tolerance:.0%}"
    return f"{said}." if not apart else f"{said}; the others: {'; '.join(apart)}."


def main(arguments: list[str] | None = None) -> None:
    asked = _arguments(arguments)
    results = asked.results or (Path("runs") / f"{NAME}-quick" if asked.quick else common.RESULTS)
    if asked.markdown:
        held = read_json(results / f"{NAME}.json", f"what benchmarks/{NAME}.py writes")["figures"]
        print(markdown(Latency.model_validate_json(json.dumps(held))))
        return
    common.require_folder(results)
    found = measure(asked.bundle, results, quick=asked.quick)
    with contextlib.redirect_stdout(sys.stderr):
        common.write(NAME, found.model_dump(mode="json"), folder=results)
    print(markdown(found))
    if not found.host.comparable:
        common.say("not comparable: " + ("--quick: a few runs say nothing" if asked.quick else "some artifacts were timed on a noisy machine"))


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=Path("reference"), help="what is measured (default: the reference bundle)")
    parser.add_argument("--quick", action="store_true", help="a few runs, to see that everything works; says nothing, and stays out of results/")
    parser.add_argument("--results", type=Path, help=f"the folder of {NAME}.json (default: benchmarks/results, with --quick runs/{NAME}-quick)")
    parser.add_argument("--markdown", action="store_true", help=f"measure nothing: print the tables of {NAME}.json in the folder of results")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    common.run(NAME, main)
