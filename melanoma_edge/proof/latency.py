"""How long each artifact of a bundle takes on this host, measured so that figures can be compared.

In: a bundle. Out: evidence/latency.json (the summary, with the conditions) and
evidence/latency-samples.json.gz (every timed run, in microseconds).

The protocol: one process a runtime, pinned to as many cores as threads; warm-up by count and time;
at least 1,024 timed runs and 3 seconds an artifact in 8 rounds that interleave the artifacts; inputs
are the bundle's golden pictures. Loading, first inference and preprocessing stand apart. `quick`
shortens all of it and is marked as not comparable.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shlex
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from melanoma_edge.contract import Artifact
from melanoma_edge.convert.bundle import EVIDENCE, MANIFEST, Bundle, open_bundle
from melanoma_edge.convert.reference import to_write
from melanoma_edge.data.image import load
from melanoma_edge.errors import BadInput
from melanoma_edge.files import explained, sha256_file, write_bytes, write_json
from melanoma_edge.host import host, load_average
from melanoma_edge.proof.latency_model import ArtifactLatency, Latency, Preprocessing, RuntimeLatency, Verdict
from melanoma_edge.runtimes.process import Availability, available, run_times
from melanoma_edge.runtimes.protocol import RUNTIMES, entry
from melanoma_edge.runtimes.timing import Plan

SUMMARY = "latency.json"
SAMPLES = "latency-samples.json.gz"

FULL = Plan()
QUICK = Plan(warmup_runs=10, warmup_seconds=0.1, runs=100, seconds=0.3, rounds=3)
TOLERANCE = 0.05
SILENCE_SECONDS = 900
"""A worker that reports no progress for so long is taken for hung."""
PREPROCESSING_RUNS = 50
QUICK_PREPROCESSING_RUNS = 5


def bench(
    bundle: Path,
    *,
    quick: bool = False,
    threads: int = 1,
    runtimes: Sequence[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict:
    """Time the artifacts of `bundle`, write both files of evidence and return the summary.

    `runtimes` defaults to all that run artifacts of a bundle; one that is not here is listed as not
    run, with the reason and the command that gets it. `progress` gets lines of text. Raises BadInput
    for a bundle, a runtime or a number of threads that cannot be, RuntimeFailed where a model fails.
    """
    names = _timed_runtimes(runtimes)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not 1 <= threads <= cores:
        raise BadInput(f"threads is {threads}: expected 1..{cores}, the cores that this process may use")
    opened = open_bundle(to_write(bundle))
    if not opened.golden.pictures:
        raise BadInput(f"{bundle} has no golden pictures to time on: export the bundle again")
    evidence = opened.path / EVIDENCE
    with explained(evidence):
        evidence.mkdir(exist_ok=True)
    date, before = _now(), load_average()
    plan = QUICK if quick else FULL
    images = np.stack([load(opened.path / picture.file, opened.manifest.input.width) for picture in opened.golden.pictures])
    found = available()
    timed = {name: _time(opened, name, found[name], images, plan, threads, progress) for name in names}
    samples = {name: {artifact: facts["rounds"] for artifact, facts in raw["models"].items()} for name, (_, raw) in timed.items() if raw}
    rows = tuple(row for row, _ in timed.values())
    verdicts = [artifact.verdict for row in rows for artifact in row.artifacts]
    manifest_sha256 = sha256_file(opened.path / MANIFEST)
    packed = _packed({"unit": "microseconds", "date": date, "manifest_sha256": manifest_sha256, "runtimes": samples})
    summary = Latency(
        quick=quick,
        comparable=not quick and bool(verdicts) and set(verdicts) == {"stable"},
        command=_command(opened, quick, threads, runtimes),
        date=date,
        bundle=opened.manifest.name,
        manifest_sha256=manifest_sha256,
        samples=SAMPLES,
        samples_sha256=hashlib.sha256(packed).hexdigest(),
        plan=plan,
        tolerance=TOLERANCE,
        threads=threads,
        load_average_before=before,
        load_average_after=load_average(),
        conditions=host(),
        preprocessing=_preprocessing(opened, QUICK_PREPROCESSING_RUNS if quick else PREPROCESSING_RUNS),
        runtimes=rows,
    ).model_dump(mode="json")
    write_bytes(evidence / SAMPLES, packed)
    write_json(evidence / SUMMARY, summary)
    return summary


def verdict(round_medians: Sequence[float], tolerance: float = TOLERANCE) -> Verdict:
    """Return `stable` when every round's median is within `tolerance` of the median of them all."""
    medians = np.asarray(round_medians, np.float64)
    centre = np.median(medians)
    return "stable" if np.all(np.abs(medians - centre) <= tolerance * centre) else "noisy: do not compare"


def _timed_runtimes(asked: Sequence[str] | None) -> list[str]:
    """Return the runtimes to time, each once; raises BadInput for one that runs no artifact of a bundle."""
    able = [name for name, row in RUNTIMES.items() if row.runs_artifacts and row.place == "here"]
    for name in asked or ():
        if name not in able:
            raise BadInput(f"bench cannot time {name!r}: expected some of {', '.join(able)}")
    return list(dict.fromkeys(asked)) if asked else [name for name in able if RUNTIMES[name].by_default]


def _time(
    bundle: Bundle,
    name: str,
    found: Availability,
    images: np.ndarray,
    plan: Plan,
    threads: int,
    progress: Callable[[str], None] | None,
) -> tuple[RuntimeLatency, dict | None]:
    """Return the row of the runtime `name` and its raw facts, None when it was not run."""
    artifacts = [artifact for artifact in bundle.manifest.artifacts if artifact.format in entry(name).formats]
    reason, install = found.reason, found.install
    if not artifacts:
        reason, install = f"the bundle has no {' or '.join(entry(name).formats)} artifact", None
    row = {"name": name, "version": found.version, "reason": reason, "install": install}
    if reason is not None:
        return RuntimeLatency(**row, status="not run", affinity=None, import_ms=None, peak_memory_bytes=None, artifacts=()), None
    models = {artifact.name: bundle.file(artifact) for artifact in artifacts}
    raw = run_times(name, models, images, plan=plan, contract=bundle.manifest.input, threads=threads, timeout=SILENCE_SECONDS, progress=progress)
    timed = RuntimeLatency(
        **row,
        status="timed",
        affinity=None if raw["affinity"] is None else tuple(raw["affinity"]),
        settings=raw["settings"],
        import_ms=raw["import_ms"],
        peak_memory_bytes=raw["peak_memory_bytes"],
        artifacts=_with_ratios([_summary(artifact, raw["models"][artifact.name]) for artifact in artifacts]),
    )
    return timed, raw


def _summary(artifact: Artifact, facts: dict) -> ArtifactLatency:
    """Return the figures of one artifact from its raw times, without the ratio."""
    times = np.concatenate([np.asarray(times) for times in facts["rounds"]]) / 1000
    medians = tuple(_rounded(np.median(times) / 1000) for times in facts["rounds"])
    p50, p90, p99 = (_rounded(value) for value in np.percentile(times, (50, 90, 99)))
    return ArtifactLatency(
        name=artifact.name,
        format=artifact.format,
        precision=artifact.precision,
        sha256=artifact.sha256,
        load_ms=facts["load_ms"],
        first_ms=_rounded(facts["first_us"] / 1000),
        runs=len(times),
        mean_ms=_rounded(times.mean()),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        round_medians_ms=medians,
        verdict=verdict(medians),
        p50_ratio_to_float32=None,
    )


def _with_ratios(rows: list[ArtifactLatency]) -> tuple[ArtifactLatency, ...]:
    """Return the rows with their ratio to the float32 artifact among them, where there is one."""
    base = next((row.p50_ms for row in rows if row.precision == "float32"), None)
    return tuple(row.model_copy(update={"p50_ratio_to_float32": round(row.p50_ms / base, 4) if base else None}) for row in rows)


def _preprocessing(bundle: Bundle, runs: int) -> Preprocessing:
    """Time decoding and resizing of the first golden picture in this process."""
    picture, times = bundle.golden.pictures[0].file, []
    for _ in range(runs):
        start = time.perf_counter()
        load(bundle.path / picture, bundle.manifest.input.width)
        times.append((time.perf_counter() - start) * 1000)
    p50, p90 = (_rounded(value) for value in np.percentile(times, (50, 90)))
    return Preprocessing(picture=picture, runs=runs, p50_ms=p50, p90_ms=p90)


def _command(bundle: Bundle, quick: bool, threads: int, runtimes: Sequence[str] | None) -> str:
    """Return the command that measures this again, the bundle by its folder's name alone."""
    options = [*(["--quick"] if quick else []), "--threads", str(threads)]
    options += [word for name in runtimes or () for word in ("--runtime", name)]
    return shlex.join(["melanoma-edge", "bench", bundle.path.resolve().name, *options])


def _packed(value: dict) -> bytes:
    """Return `value` as compressed JSON without a time stamp in it."""
    return gzip.compress(json.dumps(value, separators=(",", ":"), allow_nan=False).encode("utf-8"), mtime=0)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _rounded(milliseconds: float) -> float:
    """Return the value to a tenth of a microsecond."""
    return round(float(milliseconds), 4)
