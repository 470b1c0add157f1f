"""One device that opened the page: what is measured on it, in which order, and how its answers are judged.

In: a bundle, and the server that talks with the page. Out: what the device says of itself, a row for each runtime, and the raw times.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import Field, ValidationError

from melanoma_edge.contract import Artifact, Model, Quantization
from melanoma_edge.convert.bundle import Bundle
from melanoma_edge.proof import gates, phone_facts
from melanoma_edge.proof.latency import golden_inputs
from melanoma_edge.proof.latency_figures import Timed, row, with_ratios
from melanoma_edge.proof.latency_model import ArtifactLatency, BrowserFacts, GoldenCheck, RuntimeLatency
from melanoma_edge.runtimes import browser
from melanoma_edge.runtimes.page_server import PageFailed, PageRefused, PageServer
from melanoma_edge.runtimes.protocol import Runtime, Signature, one_line
from melanoma_edge.runtimes.timing import Plan

FULL = Plan(processes=1)
"""A browser has one process for a page: its rounds are those of one."""
QUICK = Plan(warmup_runs=10, warmup_seconds=0.1, processes=1, runs=60, seconds=0.2, rounds=3)
ENGINES = {"litert": ("litert-browser", "tflite"), "onnxruntime": ("onnxruntime-browser", "onnx")}
"""{engine of the page: (the runtime's name here, the format that it takes)}."""
MOST_THREADS = 4
"""As many as phones have fast cores."""
STEPS_OF_CLOCK = 50
"""So many steps of the page's clock must a timed interval have: it is then known to 2 %."""
SILENCE_SECONDS = 180.0

Progress = Callable[[str], None]
Milliseconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Answered = TypeVar("Answered", bound=Model)


@dataclass(frozen=True)
class Way:
    """One runtime as the page starts it."""

    engine: str
    threads: int
    accelerator: str = "wasm"

    @property
    def title(self) -> str:
        names = {"litert": "LiteRT.js", "onnxruntime": "onnxruntime-web"}
        return f"{names[self.engine]}, " + ("WebGPU" if self.accelerator == "webgpu" else f"{self.threads} thread{'s' * (self.threads > 1)}")


class PhoneDevice:
    """The device that opened the page, and what was measured on it."""

    def __init__(self, bundle: Bundle, server: PageServer, plan: Plan, progress: Progress) -> None:
        self.bundle, self.server, self.plan, self.progress = bundle, server, plan, progress
        self.images = golden_inputs(bundle)
        self.samples: list[dict] = []
        self.trouble: list[str] = []
        """What could not be measured, and why."""
        self.clock_us = 0.0
        self.undisturbed = True
        """Whether the page stayed in front."""
        self.lost: str | None = None
        """Why the device did not stay to the end."""
        self._done, self._total = 0, 1
        """Rounds of artifacts, for the bar on the device."""

    def meet(self, wait: float) -> BrowserFacts:
        """Wait for a device and return what it says of itself."""
        self.progress("waiting for a device to open the page")
        told = self.server.ask("facts", silence=wait, bundle=self.bundle.manifest.name)
        facts = phone_facts.parse(told)
        self.clock_us = facts.clock_us
        self.progress(f"{phone_facts.name_of(facts)} is here")
        return facts

    def measure(self, facts: BrowserFacts, threads: Sequence[int] | None) -> list[RuntimeLatency]:
        """Measure every way in which the device can run the artifacts; ways that it cannot are rows that say why, and so are those that it did not stay for."""
        ways, absent = _ways(facts, threads)
        total = sum(len(self._artifacts(way)) for way in ways) * self.plan.rounds
        self._total = max(1, total)
        rows = []
        for number, way in enumerate(ways):
            try:
                rows.append(self._measure(number, way))
            except PageFailed as error:
                self.lost = str(error)
                break
        left = [(way, "the device was lost before this was done") for way in ways[len(rows) :]]
        return [*rows, *(_not_run(way, why) for way, why in (*left, *absent))]

    def finish(self, facts: BrowserFacts, timed: list[RuntimeLatency]) -> BrowserFacts:
        """Show the results on the device, if it is still there, and return its facts with all that is missing."""
        missing = [*facts.missing, *self.trouble]
        groups = [{"title": _title(runtime), "rows": [_shown(one) for one in runtime.artifacts]} for runtime in timed if runtime.artifacts]
        if self.lost is None:
            try:
                if _told(Shown, self.server.ask("show", silence=SILENCE_SECONDS, groups=groups, missing=missing)).hidden:
                    self.undisturbed = False
                    missing.append("the page was in the background for a while: browsers slow such pages down, so these times may be too long; measure again")
            except (PageFailed, PageRefused) as error:
                self.lost = str(error)
        if self.lost is not None:
            missing.append(f"the device was lost before the end ({self.lost}): measure again")
        return facts.model_copy(update={"missing": tuple(missing)})

    def _artifacts(self, way: Way) -> list[Artifact]:
        return [artifact for artifact in self.bundle.manifest.artifacts if artifact.format == ENGINES[way.engine][1]]

    def _measure(self, number: int, way: Way) -> RuntimeLatency:
        """Measure one runtime: load and check every artifact, then interleave them in rounds."""
        frame = f"frame-{number}"
        self.progress(f"{way.title}: starting")
        try:
            started = _told(Started, self._ask("open", way, f"{way.title}: starting", frame=frame, engine=way.engine, threads=way.threads, accelerator=way.accelerator))
        except PageRefused as error:
            self._close(frame, way)  # with whatever it holds
            return _not_run(way, str(error))
        found: dict[str, _Found] = {}
        for artifact in self._artifacts(way):
            self.progress(f"{way.title}: loading and checking {artifact.name}")
            try:
                found[artifact.name] = self._open(frame, way, artifact)
            except PageRefused as error:
                self.trouble.append(f"{artifact.name} did not run in {way.title}: {error}")
                self._done += self.plan.rounds
        for turn in range(self.plan.rounds):
            names = list(found)
            shift = turn % max(1, len(names))
            for name in names[shift:] + names[:shift]:
                try:
                    self._round(frame, way, found[name], turn)
                except PageRefused as error:
                    self.trouble.append(f"{name} broke off in {way.title}, in round {turn + 1}: {error}")
                    del found[name]
        self._close(frame, way)
        rows = [one.row() for one in found.values()]
        self.samples.append({"runtime": _runtime(way), "threads": way.threads, "accelerator": _accelerator(way), "artifacts": {one.artifact.name: [one.rounds] for one in found.values()}})
        grouped = max((one.group for one in found.values()), default=1)
        return RuntimeLatency(
            name=_runtime(way), status="timed" if rows else "not run", threads=way.threads, accelerator=_accelerator(way), version=browser.version_of(way.engine), install=None,
            reason=None if rows else "none of its artifacts ran there", affinity=None, import_ms=round(started.milliseconds, 4), peak_memory_bytes=None, artifacts=with_ratios(rows),
            settings={} if grouped == 1 else {"inferences a sample": f"{grouped} at most, their inputs and outputs included: the clock is too coarse for single ones"},
        )  # fmt: skip

    def _open(self, frame: str, way: Way, artifact: Artifact) -> _Found:
        """Load an artifact on the device, check its golden logits there and find out how many of its inferences the clock can tell apart."""
        pictures = self._pictures(artifact)
        line = f"{way.title}: {artifact.name}"
        told = _told(Loaded, self._ask("load", way, line, frame=frame, key=artifact.name, model=f"artifacts/{artifact.name}", sha256=artifact.sha256, pictures=pictures, count=len(self.images)))
        answer = self._ask("logits", way, line, frame=frame, key=artifact.name, pictures=pictures, count=len(self.images))
        golden = self._golden(way, artifact, answer)
        first = self._times(frame, way, artifact, pictures, line, warmup=self.plan.warmup_runs, warmup_seconds=self.plan.warmup_seconds, runs=20, seconds=0.0, group=1)
        typical = max(float(np.mean(first)) * 1000, self.clock_us / len(first))  # where all of them were shorter than a step, one step is their sum at most
        group = max(1, int(np.ceil(STEPS_OF_CLOCK * self.clock_us / typical)))
        return _Found(artifact, pictures, group, golden, told.load_ms, told.first_ms, [])

    def _round(self, frame: str, way: Way, found: _Found, turn: int) -> None:
        plan, rounds = self.plan, self.plan.rounds
        line = f"{way.title}: {found.artifact.name}, round {turn + 1} of {rounds}"
        self.progress(line)
        times = self._times(
            frame, way, found.artifact, found.pictures, line,
            warmup=plan.round_warmup_runs, warmup_seconds=0.0, runs=-(-plan.runs // rounds), seconds=plan.seconds / rounds, group=found.group,
        )  # fmt: skip
        found.rounds.append([round(float(time) * 1000, 1) for time in times])
        self._done += 1

    def _times(self, frame: str, way: Way, artifact: Artifact, pictures: str, line: str, **details: object) -> np.ndarray:
        answer = self._ask("times", way, line, frame=frame, key=artifact.name, pictures=pictures, count=len(self.images), **details)
        times = np.frombuffer(answer, "<f8") if len(answer) % 8 == 0 else np.empty(0)
        if not len(times) or not np.isfinite(times).all() or (times < 0).any() or (details["group"] > 1 and not times.any()):
            raise PageRefused("it sent no times that can be")
        return times

    def _pictures(self, artifact: Artifact) -> str:
        """Publish the golden pictures as the artifact takes them and return where; those that are alike once."""
        taken = artifact.input
        layout = "NHWC" if taken.shape[3] == 3 else "NCHW"
        height, width = (taken.shape[1], taken.shape[2]) if layout == "NHWC" else (taken.shape[2], taken.shape[3])
        model = _Taker(Signature(height, width, taken.dtype, len(self.bundle.manifest.classes), layout, taken.quantization), self.bundle.manifest.input)
        plain = layout == "NHWC" and self.bundle.manifest.input.raw and taken.dtype != "int8" and taken.quantization in (None, Quantization(scale=1.0, zero_point=0))
        content = self.images.tobytes() if plain else np.concatenate([model.tensor(image) for image in self.images]).tobytes()
        path = f"pictures/{hashlib.sha256(content).hexdigest()[:16]}"
        self.server.publish(path, content)
        return path

    def _golden(self, way: Way, artifact: Artifact, answer: bytes) -> GoldenCheck:
        """Compare what the device computed of the golden pictures with what stands in the bundle."""
        expected = self.bundle.golden.expected(artifact.name)
        if expected is None or len(answer) != expected.size * 4:
            raise PageRefused(f"it sent {len(answer)} bytes of logits for {artifact.name}: expected those of {len(self.images)} pictures")
        found = np.frombuffer(answer, "<f4").reshape(expected.shape)
        names = [picture.file for picture in self.bundle.golden.pictures]
        group = "browser" if way.accelerator == "wasm" else "kernels"  # a GPU computes integers in float32 and rounds them otherwise
        gate = gates.peer_gate(group, artifact, _runtime(way), "the bundle's golden logits", found, expected, names, self.bundle.manifest.classes)
        broken = not np.isfinite(found).all()
        return GoldenCheck(
            outcome="passed" if gate.outcome == "passed" else "failed",
            pictures=len(found),
            max_difference=None if broken else float(np.abs(found - expected).max()),
            quanta=gate.figures.get("max_quanta"),
            requirement=gate.requirement,
            top1_agreement=float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        )

    def _close(self, frame: str, way: Way) -> None:
        """Have the page drop a runtime with everything that it holds."""
        with contextlib.suppress(PageRefused, PageFailed):  # that it is gone shows with the next command, and takes nothing from what it had done
            self._ask("close", way, f"{way.title}: done", frame=frame)

    def _ask(self, kind: str, way: Way, line: str, **details: object) -> bytes:
        return self.server.ask(kind, silence=SILENCE_SECONDS, line=line, share=round(0.98 * self._done / self._total, 3), **details)


class Started(Model):
    """The page's answer to `open`."""

    name: str
    milliseconds: Milliseconds


class Loaded(Model):
    """The page's answer to `load`."""

    load_ms: Milliseconds
    first_ms: Milliseconds
    inputs: list[Any]
    outputs: list[Any]


class Shown(Model):
    """The page's answer to `show`."""

    hidden: int


def _told(kind: type[Answered], content: bytes) -> Answered:
    """Return an answer of the page, checked; raises PageFailed for what is none."""
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise PageFailed(f"it answered what cannot be understood ({one_line(error, 80)})") from None


@dataclass
class _Found:
    """One artifact that runs on the device."""

    artifact: Artifact
    pictures: str
    group: int
    golden: GoldenCheck
    load_ms: float
    first_ms: float
    rounds: list[list[float]]

    def row(self) -> ArtifactLatency:
        timed = Timed(processes=[self.rounds], load_ms=[self.load_ms], first_us=[self.first_ms * 1000])
        found = row(self.artifact, timed, golden=self.golden)
        if self.group == 1:
            return found
        return found.model_copy(update={"runs": found.runs * self.group, "p90_ms": None, "p99_ms": None})  # of means they would be too small


class _Taker(Runtime):
    """What makes the inputs of a model that runs elsewhere."""

    def __init__(self, signature: Signature, contract) -> None:
        self.signature, self.contract = signature, contract


def _ways(facts: BrowserFacts, threads: Sequence[int] | None) -> tuple[list[Way], list[tuple[Way, str]]]:
    """Return in which ways the device can run models, and those in which it cannot, with the reason."""
    cores = facts.cores or 1
    counts = sorted(set(threads)) if threads else sorted({1, min(MOST_THREADS, cores)})
    ways, absent = [], []
    for count in counts:
        for engine in ENGINES:
            way = Way(engine, count)
            if count > 1 and not facts.cross_origin_isolated:
                absent.append((way, f"{count} threads need a page of a secure address: run it with --tls, or over `adb reverse`"))
            elif count > cores:
                absent.append((way, f"{count} threads on {cores} cores would only wait for each other"))
            else:
                ways.append(way)
    for engine in ENGINES:
        way = Way(engine, 1, "webgpu")
        if facts.gpu is not None:
            ways.append(way)
        else:
            absent.append((way, "the browser offers no WebGPU" + ("" if facts.secure_context else " on plain http: run it with --tls, or over `adb reverse`")))
    return ways, absent


def _not_run(way: Way, why: str) -> RuntimeLatency:
    return RuntimeLatency(
        name=_runtime(way), status="not run", threads=way.threads, accelerator=_accelerator(way), version=browser.version_of(way.engine), reason=why, install=None,
        affinity=None, import_ms=None, peak_memory_bytes=None, artifacts=(),
    )  # fmt: skip


def _runtime(way: Way) -> str:
    return ENGINES[way.engine][0]


def _accelerator(way: Way) -> str:
    return "cpu" if way.accelerator == "wasm" else way.accelerator


def _title(runtime: RuntimeLatency) -> str:
    engine = next(engine for engine, (name, _) in ENGINES.items() if name == runtime.name)
    return Way(engine, runtime.threads, "wasm" if runtime.accelerator == "cpu" else runtime.accelerator).title


def _shown(found: ArtifactLatency) -> dict:
    """Return a row as the page shows it."""
    passed = found.golden.outcome == "passed"
    return {"name": found.precision, "p50": f"{found.p50_ms:.2f}", "p90": "–" if found.p90_ms is None else f"{found.p90_ms:.2f}", "golden": "✓ yes" if passed else "✕ NO", "passed": passed}
