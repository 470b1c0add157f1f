"""How long each artifact of a bundle takes on this host, measured so that figures can be compared.

In: a bundle. Out: the host's part of evidence/latency.json (the summary, with the conditions) and
evidence/latency-samples.json.gz (every timed run, in microseconds).

The protocol: a process for each runtime and number of threads, pinned to as many cores as threads, four times over; warm-up by count and
time; at least 1,024 timed runs and 3 seconds an artifact in 8 rounds that interleave the artifacts; inputs
are the bundle's golden pictures. Loading, first inference and preprocessing stand apart. `quick`
shortens all of it and is marked as not comparable.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from melanoma_edge.contract import Artifact
from melanoma_edge.convert.bundle import Bundle, open_bundle
from melanoma_edge.convert.reference import to_write
from melanoma_edge.data.image import load
from melanoma_edge.errors import BadInput
from melanoma_edge.host import host, load_average
from melanoma_edge.proof import latency_file
from melanoma_edge.proof.crosscheck import cross_checks
from melanoma_edge.proof.latency_figures import TOLERANCE, Timed, comparable, row, rounded, with_ratios
from melanoma_edge.proof.latency_model import ArtifactLatency, Energy, Latency, Preprocessing, RuntimeLatency
from melanoma_edge.runtimes.process import Availability, available, run_times
from melanoma_edge.runtimes.protocol import RUNTIMES, entry
from melanoma_edge.runtimes.timing import Plan

FULL = Plan()
QUICK = Plan(warmup_runs=10, warmup_seconds=0.1, processes=1, runs=100, seconds=0.3, rounds=3)
SILENCE_SECONDS = 900
"""A worker that reports no progress for so long is taken for hung."""
PREPROCESSING_RUNS = 50
QUICK_PREPROCESSING_RUNS = 5

Progress = Callable[[str], None]


def bench(
    bundle: Path,
    *,
    quick: bool = False,
    threads: Sequence[int] = (1,),
    runtimes: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Latency:
    """Time the artifacts of `bundle` on each number of `threads`, write both files of evidence and return what latency.json then holds.

    `runtimes` defaults to all that run artifacts of a bundle; one that is not here is listed as not
    run, with the reason and the command that gets it. `progress` gets lines of text. Raises BadInput
    for a bundle, a runtime or a number of threads that cannot be, RuntimeFailed where a model fails.
    """
    names, threads = _timed_runtimes(runtimes), _threads(threads)
    say = progress or (lambda line: None)
    opened = open_bundle(to_write(bundle))
    latency_file.read(opened)  # what cannot be kept beside what is there is refused before anything is measured
    images = golden_inputs(opened)
    date, before = now(), load_average()
    plan = QUICK if quick else FULL
    found = available()
    jobs = [(name, count) for count in threads for name in names]
    raw: dict[tuple[str, int], list[dict]] = {job: [] for job in jobs}
    for process in range(plan.processes):
        for name, count in jobs:
            if (models := _models(opened, name, found[name])) is not None:
                shift = process * plan.share().rounds % len(models)  # so that over all processes every artifact leads as often
                models = dict([*models.items()][shift:] + [*models.items()][:shift])
                where = f"process {process + 1} of {plan.processes}, {count} thread{'s' * (count > 1)}"
                step = lambda line, where=where: say(f"{where}, {line}")
                facts = run_times(
                    name, models, images, plan=plan.share(), contract=opened.manifest.input, threads=count, timeout=SILENCE_SECONDS, progress=step
                )  # fmt: skip
                raw[name, count].append(facts)
    timed = tuple(_row(opened, name, count, found[name], raw[name, count]) for name, count in jobs)
    checks = () if quick else cross_checks(opened, timed, say)
    rows = [artifact for runtime in timed for artifact in runtime.artifacts]
    return latency_file.keep_host(
        opened,
        [_samples(name, count, processes) for (name, count), processes in raw.items() if processes],
        quick=quick,
        comparable=comparable(quick, rows),
        command=_command(opened, quick, threads, runtimes),
        date=date,
        plan=plan,
        tolerance=TOLERANCE,
        threads=threads,
        load_average_before=before,
        load_average_after=load_average(),
        conditions=host(),
        preprocessing=_preprocessing(opened, QUICK_PREPROCESSING_RUNS if quick else PREPROCESSING_RUNS),
        energy=_energy([facts for processes in raw.values() for facts in processes]),
        cross_checks=checks,
        runtimes=timed,
    )


def golden_inputs(bundle: Bundle) -> np.ndarray:
    """Return the golden pictures as network inputs, uint8 [n, size, size, 3]; raises BadInput where there are none."""
    if not bundle.golden.pictures:
        raise BadInput(f"{bundle.path} has no golden pictures to time on: export the bundle again")
    return np.stack([load(bundle.path / picture.file, bundle.manifest.input.width) for picture in bundle.golden.pictures])


def now() -> str:
    """Return the time, UTC, as evidence states it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _threads(asked: Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of threads, each once, in rising order; raises BadInput for more than this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for count in asked:
        if not 1 <= count <= cores:
            raise BadInput(f"threads is {count}: expected 1..{cores}, the cores that this process may use")
    if not asked:
        raise BadInput(f"no number of threads was given: expected some of 1..{cores}")
    return tuple(sorted(set(asked)))


def _timed_runtimes(asked: Sequence[str] | None) -> list[str]:
    """Return the runtimes to time, each once; raises BadInput for one that runs no artifact of a bundle."""
    able = [name for name, entry in RUNTIMES.items() if entry.runs_artifacts and entry.place == "here"]
    for name in asked or ():
        if name not in able:
            raise BadInput(f"bench cannot time {name!r}: expected some of {', '.join(able)}")
    return list(dict.fromkeys(asked)) if asked else [name for name in able if RUNTIMES[name].by_default]


def _artifacts(bundle: Bundle, name: str) -> list[Artifact]:
    return [artifact for artifact in bundle.manifest.artifacts if artifact.format in entry(name).formats]


def _models(bundle: Bundle, name: str, found: Availability) -> dict[str, Path] | None:
    """Return {name: file} of what the runtime `name` is to run; None where it is not here, or nothing is for it."""
    artifacts = _artifacts(bundle, name)
    return {artifact.name: bundle.file(artifact) for artifact in artifacts} if artifacts and found.reason is None else None


def _row(bundle: Bundle, name: str, threads: int, found: Availability, processes: list[dict]) -> RuntimeLatency:
    """Return the row of the runtime `name` on so many threads from what its processes gave, none where it was not run."""
    artifacts = _artifacts(bundle, name)
    reason, install = (found.reason, found.install) if artifacts else (f"the bundle has no {' or '.join(entry(name).formats)} artifact", None)
    known = {"name": name, "threads": threads, "version": found.version, "reason": reason, "install": install}
    if not processes:
        return RuntimeLatency(**known, status="not run", affinity=None, import_ms=None, peak_memory_bytes=None, artifacts=())
    return RuntimeLatency(
        **known,
        status="timed",
        affinity=None if processes[0]["affinity"] is None else tuple(processes[0]["affinity"]),
        settings=processes[0]["settings"],
        import_ms=rounded(np.median([facts["import_ms"] for facts in processes])),
        peak_memory_bytes=max(facts["peak_memory_bytes"] for facts in processes),
        artifacts=with_ratios([_figures(artifact, [facts["models"][artifact.name] for facts in processes]) for artifact in artifacts]),
    )


def _figures(artifact: Artifact, processes: list[dict]) -> ArtifactLatency:
    """Return the row of one artifact from what each process found."""
    joules = [facts["joules"] for facts in processes]
    timed = Timed(
        processes=[facts["rounds"] for facts in processes],
        load_ms=[facts["load_ms"] for facts in processes],
        first_us=[facts["first_us"] for facts in processes],
        joules=None if None in joules else sum(joules),
    )
    return row(artifact, timed)


def _samples(name: str, threads: int, processes: list[dict]) -> dict:
    """Return the raw times of a runtime as the file of them holds them."""
    return {
        "runtime": name,
        "threads": threads,
        "accelerator": "cpu",
        "artifacts": {artifact: [facts["models"][artifact]["rounds"] for facts in processes] for artifact in processes[0]["models"]},
    }


def _energy(processes: list[dict]) -> Energy:
    """Return whether energy was counted, and what was."""
    if not processes:
        return Energy(status="not run", note="no runtime was timed")
    why_not = next((facts["energy"] for facts in processes if facts["energy"] is not None), None)
    if why_not is not None:
        return Energy(status="not run", note=why_not)
    return Energy(status="measured", note="RAPL, all processor packages: other programs and idling are in it")


def _preprocessing(bundle: Bundle, runs: int) -> Preprocessing:
    """Time decoding and resizing of the first golden picture in this process."""
    picture, times = bundle.golden.pictures[0].file, []
    for _ in range(runs):
        start = time.perf_counter()
        load(bundle.path / picture, bundle.manifest.input.width)
        times.append((time.perf_counter() - start) * 1000)
    p50, p90 = (rounded(value) for value in np.percentile(times, (50, 90)))
    return Preprocessing(picture=picture, runs=runs, p50_ms=p50, p90_ms=p90)


def _command(bundle: Bundle, quick: bool, threads: Sequence[int], runtimes: Sequence[str] | None) -> str:
    """Return the command that measures this again, the bundle by its folder's name alone."""
    options = [*(["--quick"] if quick else []), "--threads", ",".join(map(str, threads))]
    options += [word for name in runtimes or () for word in ("--runtime", name)]
    return shlex.join(["melanoma-edge", "bench", bundle.path.resolve().name, *options])
