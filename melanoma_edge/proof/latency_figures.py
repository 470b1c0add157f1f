"""What raw times come to: percentiles, rounds, a verdict on their noise.

In: the times of one artifact, in microseconds, round by round, process by process; from this host or from a device. Out: its row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from melanoma_edge.contract import Artifact
from melanoma_edge.proof.latency_model import ArtifactLatency, GoldenCheck, Verdict

TOLERANCE = 0.05
"""Share by which rounds may differ and be called stable (MLPerf Mobile asks the same of a replication)."""

Rounds = Sequence[Sequence[Sequence[float]]]
"""Microseconds of each run, of each round, of each process."""


@dataclass(frozen=True)
class Timed:
    """What was measured of one artifact."""

    processes: Rounds
    load_ms: Sequence[float] = ()
    first_us: Sequence[float] = ()
    """One number a process, as far as they are known."""
    joules: float | None = None
    """Of all timed rounds."""


def row(artifact: Artifact, timed: Timed, *, golden: GoldenCheck | None = None, tolerance: float = TOLERANCE) -> ArtifactLatency:
    """Return the figures of one artifact from its raw times, without the ratio."""
    times = np.concatenate([np.asarray(times, np.float64) for rounds in timed.processes for times in rounds]) / 1000
    medians = tuple(tuple(rounded(np.median(times) / 1000) for times in rounds) for rounds in timed.processes)
    p50, p90, p99 = (rounded(value) for value in np.percentile(times, (50, 90, 99)))
    return ArtifactLatency(
        name=artifact.name,
        format=artifact.format,
        precision=artifact.precision,
        sha256=artifact.sha256,
        load_ms=rounded(np.median(timed.load_ms)) if timed.load_ms else None,
        first_ms=rounded(np.median(timed.first_us) / 1000) if timed.first_us else None,
        runs=len(times),
        mean_ms=rounded(times.mean()),
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        round_medians_ms=medians,
        verdict=verdict(medians, tolerance),
        drift=drift(medians),
        p50_ratio_to_float32=None,
        energy_mj=None if timed.joules is None else rounded(timed.joules * 1000 / len(times)),
        golden=golden,
    )


def flat(round_medians: Sequence[Sequence[float]]) -> np.ndarray:
    """Return the medians of all rounds of all processes, float64, in the order in which they were taken."""
    return np.asarray([median for rounds in round_medians for median in rounds], np.float64)


def verdict(round_medians: Sequence[Sequence[float]], tolerance: float = TOLERANCE) -> Verdict:
    """Return `stable` when every round's median is within `tolerance` of the median of them all."""
    medians = flat(round_medians)
    centre = np.median(medians)
    return "stable" if np.all(np.abs(medians - centre) <= tolerance * centre) else "noisy: do not compare"


def drift(round_medians: Sequence[Sequence[float]]) -> float | None:
    """Return the median of the last quarter of the rounds divided by that of the first; None for fewer than four."""
    medians = flat(round_medians)
    part = len(medians) // 4
    first = float(np.median(medians[:part])) if part else 0.0
    return round(float(np.median(medians[-part:])) / first, 4) if first > 0 else None


def with_ratios(rows: Sequence[ArtifactLatency]) -> tuple[ArtifactLatency, ...]:
    """Return the rows with their ratio to the float32 artifact among them, where there is one."""
    base = next((row.p50_ms for row in rows if row.precision == "float32"), None)
    return tuple(row.model_copy(update={"p50_ratio_to_float32": round(row.p50_ms / base, 4) if base else None}) for row in rows)


def comparable(quick: bool, rows: Sequence[ArtifactLatency]) -> bool:
    """Return whether figures may be compared with others: the full protocol, and every row stable."""
    return not quick and bool(rows) and all(row.verdict == "stable" for row in rows)


def rounded(milliseconds: float) -> float:
    """Return the value to a tenth of a microsecond."""
    return round(float(milliseconds), 4)
