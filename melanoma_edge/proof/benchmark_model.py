"""benchmark_model, the command line tool of TensorFlow Lite and LiteRT: its options, and what its output says.

In: how a model is to be run, and later what the tool printed (both streams: versions differ in which they use). Out: the words of the command, and
a report: times, how much of the graph the delegate took, memory. Nothing is made up: what is not printed is null, and an output that
lacks what every version prints, or contradicts itself, is refused.

The forms are those of benchmark_model.cc, benchmark_tflite_model.cc, delegates/*_provider.cc and stats_calculator.h of TensorFlow 2.1 to LiteRT 2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from melanoma_edge.errors import BadInput
from melanoma_edge.runtimes.protocol import one_line

Took = Literal["completely", "partially", "not at all"]

MAX_SECONDS = 150
"""The tool's own bound on the warm-up and on the timed runs, each."""
REFERENCE_ACCELERATOR = "nnapi-reference"
"""NNAPI's own implementation on the CPU, there to be compared with."""
LARGEST_NUMBER = 1e15

_NUMBER = r"([0-9]{1,20}(?:\.[0-9]{1,20})?(?:e[+-]?[0-9]{1,3})?)"
_TIMINGS = re.compile(rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, Warmup \(avg\): {_NUMBER}, Inference \(avg\): {_NUMBER}(?![0-9.e])")
_COUNT = re.compile(r"(?:^|\s)count=([0-9]{1,12})\s(.*)$")
_FIELD = re.compile(rf"(?:^|\s)(curr|min|max|avg|median)={_NUMBER}(?=$|\s|\()")
_TOOK = re.compile(r"(?:Explicitly a|A)pplied (\w{1,40}) delegate, and the model graph will be (completely|partially) executed (?:by|w/) the delegate(?: w/ ([0-9]{1,6}) delegate kernels)?")
_TOOK_NOT = re.compile(r"Though (\w{1,40}) delegate is (?:explicitly )?applied, the model graph will not be executed (?:by|w/) the delegate")
_ACCELERATORS = re.compile(r"NNAPI accelerators available: \[([^\]]{0,500})\]")
_VERSION = re.compile(r"Tensor[fF]low Version ?: ([0-9A-Za-z.+-]{1,40})")
_PEAK = re.compile(rf"Overall peak memory footprint \(MB\) via periodic monitoring: {_NUMBER}(?![0-9.e])")
_IGNORED = re.compile(r"Unconsumed cmdline flags: (.{1,1000})")
_COMPLAINT = re.compile(r"\b(acceleration is unsupported|[Ff]ailed to|[Cc]ould not|[Cc]annot|not supported|Disallowed)\b")


@dataclass(frozen=True)
class Delegation:
    """How much of the graph a delegate took."""

    took: Took
    kernels: int | None = None
    """Parts that it runs, of a graph that it took partially."""


@dataclass(frozen=True)
class Report:
    """What one process of the tool measured, in microseconds."""

    init_us: float
    first_us: float
    """The first run of the warm-up: the first of all."""
    mean_us: float
    runs: int
    median_us: float | None
    """Null in the output of versions before the percentiles."""
    delegates: dict[str, Delegation] = field(default_factory=dict)
    """By the tool's names: `XNNPACK`, `GPU`, `NNAPI`."""
    accelerators: tuple[str, ...] = ()
    """Of NNAPI."""
    version: str | None = None
    peak_memory_bytes: int | None = None
    ignored: tuple[str, ...] = ()
    """Options that this build of the tool does not know."""
    complaint: str | None = None
    """The first line that complains about something."""

    @property
    def centre_us(self) -> float:
        """The median, or the mean of a version that prints none."""
        return self.mean_us if self.median_us is None else self.median_us


@dataclass(frozen=True)
class Way:
    """One way in which models are run: an option for the accelerator, and a number of threads."""

    accelerator: Literal["cpu", "gpu", "nnapi"]
    threads: int

    @property
    def delegate(self) -> str:
        """What the tool calls that which is to take the graph."""
        return {"cpu": "XNNPACK", "gpu": "GPU", "nnapi": "NNAPI"}[self.accelerator]

    @property
    def options(self) -> tuple[str, ...]:
        """The tool's options that make it this way."""
        return f"--num_threads={self.threads}", {"cpu": "--use_xnnpack=true", "gpu": "--use_gpu=true", "nnapi": "--use_nnapi=true"}[self.accelerator]

    def delegation(self, report: Report) -> Delegation:
        """Return how much of the graph the delegate of this way took: nothing where the tool does not say that it was applied."""
        return report.delegates.get(self.delegate, Delegation("not at all"))

    def refusal(self, report: Report) -> str | None:
        """Return why the times of `report` are not this accelerator's; None where they are. The CPU's always are: its own kernels take what is left."""
        if self.accelerator == "cpu":
            return None
        option = self.options[-1].partition("=")[0]
        if any(word.startswith(option) for word in report.ignored):
            return f"this benchmark_model has no {option}"
        if self.delegation(report).took == "not at all":
            applied = self.delegate in report.delegates
            why = "" if report.complaint is None else f" ({report.complaint})"
            none = f"benchmark_model applied no {self.delegate} delegate on this device{why}"
            return f"the {self.delegate} delegate took nothing of the graph: what was timed is the CPU" if applied else none
        if self.accelerator == "nnapi" and report.accelerators == (REFERENCE_ACCELERATOR,):
            return f"the device offers NNAPI no accelerator but {REFERENCE_ACCELERATOR}, which computes on the CPU"
        return None


def ways(threads: Sequence[int]) -> tuple[Way, ...]:
    """Return every way to run models: on the CPU with each number of threads, on the GPU and on NNAPI with the smallest for what they leave."""
    return (*(Way("cpu", number) for number in dict.fromkeys(threads)), Way("gpu", min(threads)), Way("nnapi", min(threads)))


def words(graph: str, way: Way, *, runs: int, seconds: float, warmup_runs: int, warmup_seconds: float, memory: bool = False) -> tuple[str, ...]:
    """Return the tool's options for a run; with `memory`, a thread beside the runs looks at the memory, so that their times do not count."""
    counts = (f"--num_runs={runs}", f"--min_secs={seconds:g}", f"--max_secs={MAX_SECONDS}", f"--warmup_runs={warmup_runs}", f"--warmup_min_secs={warmup_seconds:g}")
    return f"--graph={graph}", *way.options, *counts, *(("--report_peak_memory_footprint=true",) if memory else ())


def parse(output: str) -> Report:
    """Return what the tool printed; raises BadInput for an output without its summary, or that contradicts itself."""
    lines = output.splitlines()
    timings = [(index, match) for index, line in enumerate(lines) if (match := _TIMINGS.search(line))]
    if len(timings) != 1:
        raise BadInput(f"benchmark_model printed {len(timings)} lines `Inference timings in us: ...`: expected one; use another build of it{_last(lines)}")
    at, match = timings[0]
    init, first, _, mean = (_number(text) for text in match.groups())
    counts = [found for line in lines[:at] if (found := _COUNT.search(line))]
    if len(counts) < 2:
        raise BadInput(f"benchmark_model printed {len(counts)} lines `count=...` before its summary: expected one of the warm-up and one of the timed runs; use another build of it")
    runs, median = _runs(counts[-1], mean)
    peak = next((_number(found[1]) for line in lines if (found := _PEAK.search(line))), None)
    accelerators = next((found[1] for line in lines if (found := _ACCELERATORS.search(line))), "")
    return Report(
        init_us=init,
        first_us=first,
        mean_us=mean,
        runs=runs,
        median_us=median,
        delegates=_delegates(lines),
        accelerators=tuple(one_line(Exception(name), 60) for name in accelerators.split(",") if name.strip()),
        version=next((found[1] for line in lines if (found := _VERSION.search(line))), None),
        peak_memory_bytes=None if peak is None or peak == 0 else int(peak * 2**20),
        ignored=tuple(word for line in lines if (found := _IGNORED.search(line)) for word in found[1].split()),
        complaint=complaint(lines),
    )


def complaint(lines: Sequence[str]) -> str | None:
    """Return the first line that complains about something, without its level."""
    found = next((line for line in lines if _COMPLAINT.search(line[:2000])), None)
    return None if found is None else one_line(Exception(re.sub(r"^\s*(INFO|WARN|WARNING|ERROR): ", "", found)), 160)


def _runs(count: re.Match, mean: float) -> tuple[int, float | None]:
    """Return the number of timed runs and their median, of the line `count=...` that belongs to the summary's mean."""
    runs, said = int(count[1]), {name: _number(text) for name, text in _FIELD.findall(count[2])}
    if runs < 1:
        raise BadInput("benchmark_model timed 0 runs: expected some; give it more time, or another model")
    same = runs == 1 or "(all same)" in count[2]  # then it prints neither least, largest nor mean
    average = said.get("avg", said.get("curr") if same else None)
    if average is None or not math.isclose(average, mean, rel_tol=1e-3, abs_tol=1e-9):
        raise BadInput(f"benchmark_model gave {average} and {mean:g} us as the mean of the same runs: expected one number; use another build of it")
    least, largest = said.get("min", average), said.get("max", average)
    median = said.get("median", said.get("curr") if same else None)
    centre, slack = average if median is None else median, 1e-3 * largest  # a mean has six digits
    if not least - slack <= centre <= largest + slack:
        raise BadInput(f"benchmark_model gave {centre:g} us for runs between {least:g} and {largest:g} us: expected a time between; use another build of it")
    return runs, median


def _delegates(lines: Sequence[str]) -> dict[str, Delegation]:
    """Return how much of the graph each delegate took."""
    found: dict[str, Delegation] = {}
    for line in lines:
        took, took_not = _TOOK.search(line), _TOOK_NOT.search(line)
        if not (took or took_not):
            continue
        said = Delegation(took[2], int(took[3]) if took[3] else None) if took else Delegation("not at all")
        name = (took or took_not)[1]
        if found.setdefault(name, said) != said:
            raise BadInput(f"benchmark_model says that the {name} delegate took the graph {found[name].took}, and {said.took}: expected one of them; use another build of it")
    return found


def _number(text: str) -> float:
    """Return a number of the tool; raises BadInput for one that measures nothing on this earth."""
    number = float(text)
    if not math.isfinite(number) or number > LARGEST_NUMBER:
        raise BadInput(f"benchmark_model printed the number {text[:40]}: expected one that a measurement can have; use another build of it")
    return number


def _last(lines: Sequence[str]) -> str:
    """Return the last line of an output as an addition to a message."""
    last = next((line for line in reversed(lines) if line.strip()), None)
    return "" if last is None else f" (it ended with: {one_line(Exception(last[:2000]), 160)})"
