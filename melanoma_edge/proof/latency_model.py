"""The layout of evidence/latency.json, from which its JSON Schema is made."""

from __future__ import annotations

from typing import Literal

from melanoma_edge.contract import Format, Model, Precision, Sha256
from melanoma_edge.host import Host
from melanoma_edge.runtimes.timing import Plan

HOST_NOTE = "Measured on the host named under conditions: host numbers, never phone numbers."

Verdict = Literal["stable", "noisy: do not compare"]


class ArtifactLatency(Model):
    """One artifact in one runtime, batch 1: inference alone, in milliseconds."""

    name: str
    format: Format
    precision: Precision
    sha256: Sha256
    load_ms: float
    """From the file to a model that is ready to run; once, without the runtime's own import."""
    first_ms: float
    """The first inference after loading."""
    runs: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    round_medians_ms: tuple[float, ...]
    verdict: Verdict
    """Stable when the medians of all rounds are within the tolerance of their median."""
    p50_ratio_to_float32: float | None
    """p50 divided by that of the float32 artifact in the same runtime; null where there is none."""


class RuntimeLatency(Model):
    """One runtime, in a process of its own."""

    name: str
    status: Literal["timed", "not run"]
    version: str | None
    reason: str | None
    """Why it was not run; null when it was."""
    install: str | None
    """The command that would make it run, where there is one."""
    affinity: tuple[int, ...] | None
    """The cores that the process was pinned to; null where the system cannot pin."""
    settings: dict[str, str] = {}
    """Options of the runtime that this machine needed to compute rightly, by the package's own names."""
    import_ms: float | None
    peak_memory_bytes: int | None
    """Largest resident memory of the process with all artifacts loaded and warmed up, Python itself included."""
    artifacts: tuple[ArtifactLatency, ...]


class Preprocessing(Model):
    """Decoding, cropping and resizing one golden picture to the network's input, in milliseconds."""

    picture: str
    runs: int
    p50_ms: float
    p90_ms: float


class Latency(Model):
    """evidence/latency.json: the summary; the raw times are in `samples`, beside it."""

    schema_version: Literal[1] = 1
    note: str = HOST_NOTE
    host: Literal[True] = True
    quick: bool
    comparable: bool
    """Whether these figures may be compared with others: the full protocol, and every verdict stable."""
    command: str
    date: str
    """Start of the measurement, UTC."""
    bundle: str
    manifest_sha256: Sha256
    samples: str
    samples_sha256: Sha256
    plan: Plan
    tolerance: float
    threads: int
    load_average_before: tuple[float, float, float]
    load_average_after: tuple[float, float, float]
    conditions: Host
    preprocessing: Preprocessing
    runtimes: tuple[RuntimeLatency, ...]
