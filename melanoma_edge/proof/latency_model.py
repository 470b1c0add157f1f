"""The layout of evidence/latency.json, from which its JSON Schema is made."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from melanoma_edge.contract import Format, Model, Precision, Sha256
from melanoma_edge.host import Host
from melanoma_edge.runtimes.timing import Plan

HOST_NOTE = "Measured on the host named under conditions: host numbers, never phone numbers."
DEVICE_NOTE = "Measured on the device that is named, in the program that is named: numbers of this device, at the temperature that it had."

Verdict = Literal["stable", "noisy: do not compare"]


class GoldenCheck(Model):
    """Whether an artifact gave the bundle's golden logits where it was timed."""

    outcome: Literal["passed", "failed"]
    pictures: int
    max_difference: float | None
    """Largest absolute difference of a logit; null where one is no number."""
    quanta: float | None
    """The same in quanta of the output; null for float artifacts."""
    requirement: str
    """What had to hold, in words."""
    top1_agreement: float


class ArtifactLatency(Model):
    """One artifact in one runtime, batch 1: inference alone, in milliseconds."""

    name: str
    format: Format
    precision: Precision
    sha256: Sha256
    load_ms: float | None
    """From the file to a model that is ready to run, without the runtime's own import; the median of the processes. Null where the device's program does not say."""
    first_ms: float | None
    """The first inference after loading; the median of the processes."""
    runs: int
    mean_ms: float
    p50_ms: float
    p90_ms: float | None
    p99_ms: float | None
    """Percentiles are null where the device's program gives none."""
    round_medians_ms: tuple[tuple[float, ...], ...]
    """The rounds of each process."""
    verdict: Verdict
    """Stable when the medians of all rounds are within the tolerance of their median."""
    drift: float | None
    """The median of the last quarter of the rounds divided by that of the first: above 1, the device slowed down as it warmed. Null for fewer than four rounds."""
    p50_ratio_to_float32: float | None
    """p50 divided by that of the float32 artifact in the same runtime; null where there is none."""
    energy_mj: float | None = None
    """Millijoules an inference of all processor packages, idling and binding the input included; null where nothing counts them."""
    golden: GoldenCheck | None = None
    """Of devices; null where it was not checked. On this host `verify` does that."""


class RuntimeLatency(Model):
    """One runtime on so many threads, in processes of its own."""

    name: str
    status: Literal["timed", "not run"]
    threads: int
    accelerator: str = "cpu"
    """What it computed on: `cpu`, or what the device's program calls another processor."""
    version: str | None
    reason: str | None
    """Why it was not run; null when it was."""
    install: str | None
    """The command that would make it run, where there is one."""
    affinity: tuple[int, ...] | None
    """The cores that each process was pinned to; null where the system cannot pin."""
    settings: dict[str, str] = {}
    """Options of the runtime that this machine needed to compute rightly, by the package's own names."""
    import_ms: float | None
    peak_memory_bytes: int | None
    """Largest resident memory of a process with all artifacts loaded and warmed up, Python itself included."""
    artifacts: tuple[ArtifactLatency, ...]


class Preprocessing(Model):
    """Decoding, cropping and resizing one golden picture to the network's input, in milliseconds."""

    picture: str
    runs: int
    p50_ms: float
    p90_ms: float


class CrossCheck(Model):
    """What another program says of the same artifact on the same cores, beside what we say."""

    tool: str
    runtime: str
    threads: int
    artifact: str
    status: Literal["agrees", "differs", "not run"]
    """Agrees: within the tolerance."""
    theirs_ms: float | None = None
    ours_ms: float | None = None
    ratio: float | None = None
    """Theirs divided by ours."""
    note: str
    """What was compared with what, or why it was not run."""


class Energy(Model):
    """Whether the processor's own counters were read."""

    status: Literal["measured", "not run"]
    note: str


class HostLatency(Model):
    """This host: its figures, and everything that they depend on."""

    note: str = HOST_NOTE
    quick: bool
    comparable: bool
    """Whether these figures may be compared with others: the full protocol, and every verdict stable."""
    command: str
    date: str
    """Start of the measurement, UTC."""
    samples: str
    samples_sha256: Sha256
    plan: Plan
    tolerance: float
    threads: tuple[int, ...]
    load_average_before: tuple[float, float, float]
    load_average_after: tuple[float, float, float]
    conditions: Host
    preprocessing: Preprocessing
    energy: Energy
    cross_checks: tuple[CrossCheck, ...]
    runtimes: tuple[RuntimeLatency, ...]


class BrowserFacts(Model):
    """What a device's browser says of itself and of the device."""

    kind: Literal["browser"] = "browser"
    user_agent: str
    browser: str
    """Its name and version, as far as the user agent tells, such as `Chrome 156`."""
    model: str | None
    """The device's, where the browser tells; most do not."""
    cores: int | None
    memory_gb: float | None
    """A class (1, 2, 4, 8), not a size; null where the browser does not tell."""
    screen: str
    """Width and height in CSS pixels and what a CSS pixel has of the screen's, such as `412 x 915, 2.6`."""
    touch: bool
    secure_context: bool
    cross_origin_isolated: bool
    gpu: str | None
    """What WebGPU calls the device's; null where there is none or the page may not ask."""
    clock_us: float
    """The smallest step of the page's clock."""
    missing: tuple[str, ...]
    """What could not be measured there, why, and what would change that."""


class AdbFacts(Model):
    """What an Android device says of itself over adb."""

    kind: Literal["adb"] = "adb"
    manufacturer: str | None
    model: str | None
    soc: str | None
    android: str | None
    """Version and SDK level, such as `15 (SDK 35)`."""
    abi: str | None
    cores: int | None
    memory_bytes: int | None
    thermal_before: str | None
    thermal_after: str | None
    """The system's thermal status in words; null where it does not tell."""
    temperatures_before: dict[str, float]
    temperatures_after: dict[str, float]
    """Degrees Celsius of each sensor that may be read."""
    battery_before: str | None
    battery_after: str | None
    benchmark: str
    """Which benchmark_model: its name among the known ones, or `trusted by its user`."""
    benchmark_sha256: Sha256
    missing: tuple[str, ...]


class DeviceLatency(Model):
    """One device that is not this host."""

    note: str = DEVICE_NOTE
    name: str
    """What it is called in tables: with `facts.kind`, what a later measurement of the same device replaces."""
    facts: Annotated[BrowserFacts | AdbFacts, Field(discriminator="kind")]
    quick: bool
    complete: bool = True
    """Whether the device stayed to the end; what it did not stay for is `not run`."""
    comparable: bool
    command: str
    date: str
    samples: str | None
    samples_sha256: Sha256 | None
    """Null where the device's program gives no single runs."""
    plan: Plan
    tolerance: float
    runtimes: tuple[RuntimeLatency, ...]


class Latency(Model):
    """evidence/latency.json: the summaries; the raw times are in the files that they name, beside it."""

    schema_version: Literal[2] = 2
    bundle: str
    manifest_sha256: Sha256
    host: HostLatency | None
    """Null before this host was measured."""
    devices: tuple[DeviceLatency, ...] = ()
