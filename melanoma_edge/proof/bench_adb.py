"""How long each TFLite artifact of a bundle takes on an Android device, in benchmark_model, over adb.

In: a bundle, a device and the tool. Out: the device's figures in evidence/latency.json, beside those of this host and of other devices.

The protocol: everything is copied to the device and checked there by hash; a trial run of each artifact in each way (CPU, GPU, NNAPI) shows
what the device can do and how much memory that takes; then come rounds that interleave all of them, each run a process of its own that
loads and warms up, until the plan's runs and seconds are reached. The tool keeps no single times, so that there are the
rounds' medians, and no percentiles. Its input is random numbers: nothing here says that the device computes rightly.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from melanoma_edge.contract import Artifact
from melanoma_edge.convert.bundle import Bundle, open_bundle
from melanoma_edge.convert.reference import to_write
from melanoma_edge.errors import BadInput
from melanoma_edge.proof import benchmark_binary, benchmark_model as tool
from melanoma_edge.proof.benchmark_binary import Binary
from melanoma_edge.proof.benchmark_model import Delegation, Report, Way
from melanoma_edge.proof.latency import now
from melanoma_edge.proof.latency_figures import TOLERANCE, comparable, drift, rounded, verdict, with_ratios
from melanoma_edge.proof.latency_file import keep_device, read
from melanoma_edge.proof.latency_model import AdbFacts, ArtifactLatency, Latency, RuntimeLatency
from melanoma_edge.runtimes import adb, adb_facts
from melanoma_edge.runtimes.timing import Plan

RUNTIME = "benchmark_model"
FULL = Plan(processes=4, rounds=4, round_warmup_runs=50)
QUICK = Plan(warmup_runs=10, warmup_seconds=0.1, processes=2, runs=100, seconds=0.3, rounds=2, round_warmup_runs=10)
"""Each round is a process, which warms up on its own."""
TRIAL_RUNS, TRIAL_SECONDS = 20, 0.2
RUN_SECONDS = 2 * tool.MAX_SECONDS + 120
"""For a process of the tool, which bounds its warm-up and its runs, but not the time that a graphics driver takes to compile."""

NO_PARITY = "parity on this device: benchmark_model was timed on random numbers and gave no outputs to compare, so that nothing here says that it computes rightly"
NO_SAMPLES = "single runs, 90th and 99th percentile: benchmark_model gives none"
NO_PINNING = "pinned cores: benchmark_model leaves its threads to the system"


@dataclass
class Pair:
    """One artifact run in one way."""

    artifact: Artifact
    way: Way
    trial: Report | None = None
    rounds: list[Report] = field(default_factory=list)
    refusal: str | None = None
    """Why it has no figures."""


def bench_adb(
    bundle: Path,
    *,
    serial: str | None = None,
    benchmark_model: Path,
    trust_binary: bool = False,
    quick: bool = False,
    threads: Sequence[int] = (1,),
    progress: Callable[[str], None] | None = None,
) -> Latency:
    """Time the TFLite artifacts of `bundle` on the device `serial`, or on the only one; write its figures and return all that are held.

    Raises BadInput for a bundle, a program or a number of threads that cannot be, Missing
    without adb or the device; nothing is written then, and nothing stays on a device that can be reached.
    """
    tell = progress or (lambda _: None)
    if not threads or min(threads) < 1:
        raise BadInput(f"threads are {', '.join(map(str, threads)) or 'none'}: expected one or more numbers of 1 and above")
    binary = benchmark_binary.check(benchmark_model, trusted=trust_binary)
    opened = open_bundle(to_write(bundle))
    read(opened)  # what cannot be kept beside what is there is refused before anything is measured
    artifacts = [artifact for artifact in opened.manifest.artifacts if artifact.format == "tflite"]
    if not artifacts:
        raise BadInput(f"{bundle} has no TFLite artifact, and benchmark_model runs no other: export the bundle with one")
    device = adb.choose(serial)
    identity = adb_facts.identity(device)
    binary.require_fit(identity)
    if identity.cores is not None and max(threads) > identity.cores:
        raise BadInput(f"threads are {', '.join(map(str, threads))}: expected 1..{identity.cores}, the cores of {identity.name}")
    plan, date = QUICK if quick else FULL, now()
    pairs = [Pair(artifact, way) for way in tool.ways(threads) for artifact in artifacts]
    with adb.workplace(device) as folder:
        tell(f"copying benchmark_model and {len(artifacts)} artifact{'s' if len(artifacts) > 1 else ''} to {identity.name}")
        placed = _place(device, folder, opened, binary, artifacts)
        before = adb_facts.state(device)
        _time(device, folder, placed, pairs, plan, tell)
        after = adb_facts.state(device)
    rows = tuple(row for way in tool.ways(threads) for row in _rows([pair for pair in pairs if pair.way == way], binary))
    timed = [row for runtime in rows for row in runtime.artifacts]
    if not timed:
        raise BadInput(f"benchmark_model ran no artifact of {bundle} on {identity.name} ({pairs[0].refusal}): try another build of it")
    enough = all(row.runs >= plan.runs for row in timed)
    return keep_device(
        opened,
        None,
        name=identity.name,
        facts=_facts(identity, before, after, binary),
        quick=quick,
        comparable=comparable(quick, timed) and enough,
        command=_command(opened, binary, trust_binary, quick, threads),
        date=date,
        plan=plan,
        tolerance=TOLERANCE,
        runtimes=rows + _others(opened, min(threads)),
    )


def _command(bundle: Bundle, binary: Binary, trusted: bool, quick: bool, threads: Sequence[int]) -> str:
    """Return the command that measures this again, files by their names alone, the device's serial number left out."""
    options = ["--adb", "--benchmark-model", binary.path.name, *(["--trust-binary"] if trusted else []), *(["--quick"] if quick else [])]
    return shlex.join(["melanoma-edge", "bench", bundle.path.resolve().name, *options, "--threads", ",".join(map(str, threads))])


def _place(device: adb.Device, folder: str, bundle: Bundle, binary: Binary, artifacts: Sequence[Artifact]) -> dict[str, str]:
    """Bring the tool and the artifacts to the device, checked there by hash; return {artifact: its path there} and, under RUNTIME, the tool's."""
    placed = {artifact.name: f"{folder}/{number}-{PurePosixPath(artifact.path).name}" for number, artifact in enumerate(artifacts)} | {RUNTIME: f"{folder}/{RUNTIME}"}
    files = {placed[artifact.name]: (bundle.file(artifact), artifact.sha256) for artifact in artifacts}
    device.push(files | {placed[RUNTIME]: (binary.path, binary.sha256)})
    device.shell("chmod", "755", placed[RUNTIME])
    return placed


def _time(device: adb.Device, folder: str, placed: dict[str, str], pairs: Sequence[Pair], plan: Plan, tell: Callable[[str], None]) -> None:
    """Try each pair, then run those that work in rounds that begin with another one each time, so that a slow spell falls on all alike."""
    for pair in pairs:
        tell(f"trying {pair.artifact.name} on {_place_in_words(pair.way)}")
        counts = {"runs": TRIAL_RUNS, "seconds": TRIAL_SECONDS, "warmup_runs": 1, "warmup_seconds": 0.0, "memory": True}
        pair.trial = _run(device, folder, placed, pair, **counts)
    counts = {"runs": -(-plan.runs // plan.rounds), "seconds": plan.seconds / plan.rounds, "warmup_runs": plan.warmup_runs, "warmup_seconds": plan.warmup_seconds}
    for turn in range(plan.rounds):
        tell(f"round {turn + 1} of {plan.rounds}")
        shift = turn % len(pairs)
        for pair in (*pairs[shift:], *pairs[:shift]):
            if pair.refusal is None and (report := _run(device, folder, placed, pair, **counts)) is not None:
                pair.rounds.append(report)


def _run(device: adb.Device, folder: str, placed: dict[str, str], pair: Pair, **counts) -> Report | None:
    """Run one process of the tool; None where it fails, or where its times are not the accelerator's, which the pair then says."""
    words = tool.words(placed[pair.artifact.name], pair.way, **counts)
    try:
        done = device.run(folder, placed[RUNTIME], *words, seconds=RUN_SECONDS)
    except adb.TimedOut:
        if pair.way.accelerator == "cpu":
            raise
        pair.refusal = f"benchmark_model did not end within {RUN_SECONDS} s"
        return None
    if done.code in (126, 127):
        why = adb.reason(done.err) or adb.reason(done.out) or f"exit code {done.code}"
        raise BadInput(f"the device cannot start benchmark_model ({why}): give the build for Android, not that for Linux")
    said = f"{done.out}\n{done.err}"
    if done.code != 0:
        pair.refusal = f"benchmark_model ended with exit code {done.code}{_because(said)}"
        return None
    report = tool.parse(said)
    pair.refusal = pair.way.refusal(report)
    if pair.refusal is None and pair.trial is not None and pair.way.delegation(report) != pair.way.delegation(pair.trial):
        pair.refusal = f"the {pair.way.delegate} delegate took the graph {pair.way.delegation(pair.trial).took} in one run and {pair.way.delegation(report).took} in another"
    return report if pair.refusal is None else None


def _because(said: str) -> str:
    """Return why the tool failed, as an addition to a message."""
    lines = said.splitlines()
    why = tool.complaint([line for line in lines if "ERROR" in line]) or tool.complaint(lines) or adb.reason(said)
    return f" ({why})" if why else ""


def _rows(pairs: Sequence[Pair], binary: Binary) -> list[RuntimeLatency]:
    """Return what became of the artifacts that were run in one way: one row of those that were timed, one for each reason why others were not."""
    way, rows = pairs[0].way, []
    timed = [pair for pair in pairs if pair.refusal is None]
    version = next((pair.trial.version for pair in pairs if pair.trial is not None), None)
    known = {"name": RUNTIME, "threads": way.threads, "accelerator": way.accelerator, "version": version, "install": None, "affinity": None, "import_ms": None}
    if timed:
        peaks = [pair.trial.peak_memory_bytes for pair in timed if pair.trial.peak_memory_bytes is not None]
        artifacts = with_ratios([_figures(pair) for pair in timed])
        peak = max(peaks) if len(peaks) == len(timed) else None
        rows.append(RuntimeLatency(**known, status="timed", reason=None, settings=_settings(way, timed, binary), peak_memory_bytes=peak, artifacts=artifacts))
    for reason in dict.fromkeys(pair.refusal for pair in pairs if pair.refusal is not None):
        names = ", ".join(pair.artifact.name for pair in pairs if pair.refusal == reason)
        rows.append(RuntimeLatency(**known, status="not run", reason=f"{names}: {reason}", peak_memory_bytes=None, artifacts=()))
    return rows


def _figures(pair: Pair) -> ArtifactLatency:
    """Return the figures of one artifact from its rounds, each a process of its own, without the ratio."""
    artifact, reports = pair.artifact, pair.rounds
    runs = [report.runs for report in reports]
    medians = tuple((rounded(report.centre_us / 1000),) for report in reports)
    return ArtifactLatency(
        name=artifact.name,
        format=artifact.format,
        precision=artifact.precision,
        sha256=artifact.sha256,
        load_ms=rounded(np.median([report.init_us for report in reports]) / 1000),
        first_ms=rounded(np.median([report.first_us for report in reports]) / 1000),
        runs=sum(runs),
        mean_ms=rounded(np.average([report.mean_us for report in reports], weights=runs) / 1000),
        p50_ms=rounded(np.median(medians)),
        p90_ms=None,
        p99_ms=None,
        round_medians_ms=medians,
        verdict=verdict(medians),
        drift=drift(medians),
        p50_ratio_to_float32=None,
    )


def _settings(way: Way, timed: Sequence[Pair], binary: Binary) -> dict[str, str]:
    """Return the tool's options, and what they came to on this device."""
    centres = {report.median_us is not None for pair in timed for report in pair.rounds}
    centre = {frozenset({True}): "medians", frozenset({False}): "means, for want of medians"}.get(frozenset(centres), "medians, or means for want of them")
    took: dict[Delegation, list[str]] = {}
    for pair in timed:
        took.setdefault(way.delegation(pair.trial), []).append(pair.artifact.name)
    parts = [f"{one.took}{'' if one.kernels is None else f', in {one.kernels} parts'}: {', '.join(names)}" for one, names in took.items()]
    delegated = "completely" if {one.took for one in took} == {"completely"} else "; ".join(parts)
    settings = {"options": " ".join(way.options), "delegate": way.delegate, "delegated": delegated}
    settings |= {"p50": f"the median of the rounds' {centre}", "input": "random numbers", "built for": binary.abi}
    accelerators = next((pair.trial.accelerators for pair in timed if pair.trial.accelerators), ())
    ignored = dict.fromkeys(word for pair in timed for report in pair.rounds for word in report.ignored)
    return settings | ({"accelerators": ", ".join(accelerators)} if accelerators else {}) | ({"unknown to this benchmark_model": " ".join(ignored)} if ignored else {})


def _others(bundle: Bundle, threads: int) -> tuple[RuntimeLatency, ...]:
    """Return a row for the artifacts that the tool does not run, if there are any."""
    names = [artifact.name for artifact in bundle.manifest.artifacts if artifact.format != "tflite"]
    if not names:
        return ()
    reason = f"{', '.join(names)}: benchmark_model runs TFLite only"
    unknown = {"version": None, "install": None, "affinity": None, "import_ms": None, "peak_memory_bytes": None}
    return (RuntimeLatency(name="onnxruntime", status="not run", threads=threads, reason=reason, artifacts=(), **unknown),)


def _facts(identity: adb_facts.Identity, before: adb_facts.State, after: adb_facts.State, binary: Binary) -> AdbFacts:
    """Return what is known of the device, and what is not."""
    states = [f"{what} {when} the runs: {why}" for when, state in (("before", before), ("after", after)) for what, why in state.missing.items()]
    return AdbFacts(
        manufacturer=identity.manufacturer,
        model=identity.model,
        soc=identity.soc,
        android=identity.android,
        abi=identity.abi,
        cores=identity.cores,
        memory_bytes=identity.memory_bytes,
        thermal_before=before.thermal,
        thermal_after=after.thermal,
        temperatures_before=before.temperatures,
        temperatures_after=after.temperatures,
        battery_before=before.battery,
        battery_after=after.battery,
        benchmark=binary.name,
        benchmark_sha256=binary.sha256,
        missing=(*identity.missing, *states, NO_PARITY, NO_SAMPLES, NO_PINNING),
    )


def _place_in_words(way: Way) -> str:
    return f"the CPU with {way.threads} thread{'s' if way.threads > 1 else ''}" if way.accelerator == "cpu" else {"gpu": "the GPU", "nnapi": "NNAPI"}[way.accelerator]
