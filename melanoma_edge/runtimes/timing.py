"""The latency loop of one runtime, run inside its worker process.

In: the models, pictures and a plan. Out: load times and raw times, in microseconds, round by round.
The models are interleaved: every round times all of them, beginning with another one each time, so
that a slow spell of the machine falls on all alike. Only `invoke` is inside the clock.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from melanoma_edge.contract import InputContract, Model
from melanoma_edge.host import peak_memory_bytes
from melanoma_edge.runtimes.energy import Meter, NoMeter
from melanoma_edge.runtimes.protocol import Runtime, create, load


class Plan(Model):
    """How long to warm up and to measure each model; counts and seconds must both be reached.

    The rounds are dealt out to `processes`, one after the other: what the system gives a process (which pages, which order in memory) stays with it, so that
    rounds of one alone agree better than two measurements do.
    """

    warmup_runs: int = Field(50, ge=1)
    warmup_seconds: float = Field(0.5, ge=0.0)
    processes: int = Field(4, ge=1)
    """Each warms up on its own."""
    runs: int = Field(1024, ge=1)
    """Timed runs of a model over all rounds, at least."""
    seconds: float = Field(3.0, ge=0.0)
    """Timed seconds of a model over all rounds, at least."""
    rounds: int = Field(8, ge=1)
    round_warmup_runs: int = Field(5, ge=1)
    """Untimed runs of a model at the start of each round, while the caches still hold the one before."""

    @model_validator(mode="after")
    def _dealt_out_evenly(self) -> "Plan":
        if self.rounds % self.processes:
            raise ValueError(f"{self.rounds} rounds cannot be dealt out evenly to {self.processes} processes")
        return self

    def share(self) -> "Plan":
        """Return what one of the processes does."""
        parts = self.processes
        return self.model_copy(update={"processes": 1, "rounds": self.rounds // parts, "runs": -(-self.runs // parts), "seconds": self.seconds / parts})


def measure(
    runtime: str,
    models: dict[str, Path],
    images: np.ndarray,
    threads: int,
    plan: Plan,
    progress: Callable[[str], None],
    contract: InputContract | None = None,
) -> dict:
    """Return the timings of `models` (by name) in `runtime` on `images`, uint8 [N, H, W, 3], which they take as `contract` says, all rounds of `plan`.

    `joules` of a model, where this machine counts them, are those of its rounds; `energy` says why not, elsewhere. Pins the process to `threads` cores first and leaves it pinned: for worker processes.
    """
    affinity = pin(threads)
    start = time.perf_counter()
    imported = create(runtime, {})
    meter, why_not = _meter()
    facts: dict = {"affinity": affinity, "import_ms": _ms(time.perf_counter() - start), "settings": dict(imported.settings), "energy": why_not, "models": {}}
    opened: dict[str, Runtime] = {}
    for number, (name, path) in enumerate(models.items(), 1):
        progress(f"{runtime}: loading and warming up {number} of {len(models)}")
        opened[name] = create(runtime, {}, contract)
        start = time.perf_counter()
        load(opened[name], path, threads)
        loaded = _ms(time.perf_counter() - start)
        opened[name].signature.check(images)
        first = _run(opened[name], images, 1, 0.0)[0]
        _warm_up(opened[name], images, plan)
        facts["models"][name] = {"load_ms": loaded, "first_us": first, "rounds": [], "joules": None if meter is None else 0.0}
    facts["peak_memory_bytes"] = peak_memory_bytes()
    order = list(opened)
    for turn in range(plan.rounds):
        progress(f"{runtime}: round {turn + 1} of {plan.rounds}")
        shift = turn % len(order)
        for name in order[shift:] + order[:shift]:
            _run(opened[name], images, plan.round_warmup_runs, 0.0)
            gc.collect()  # not within what the meter sees
            before = None if meter is None else meter.joules()
            facts["models"][name]["rounds"].append(_run(opened[name], images, -(-plan.runs // plan.rounds), plan.seconds / plan.rounds))
            if meter is not None:
                facts["models"][name]["joules"] += meter.joules() - before
    return facts


def _meter() -> tuple[Meter | None, str | None]:
    """Return this machine's energy meter, or None and why there is none."""
    try:
        return Meter(), None
    except NoMeter as error:
        return None, str(error)


def pin(threads: int) -> list[int] | None:
    """Pin this process to `threads` cores, whole ones first; return them, None where it cannot be done."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0), reverse=True)
    siblings: dict[str, list[int]] = {}
    for core in allowed:
        siblings.setdefault(_siblings(core), []).append(core)
    whole_first = sorted(allowed, key=lambda core: siblings[_siblings(core)].index(core))
    chosen = sorted(whole_first[:threads])
    os.sched_setaffinity(0, chosen)
    return chosen


def _siblings(core: int) -> str:
    """Return what the logical CPUs of one physical core have in common."""
    try:
        return Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list").read_text(encoding="ascii")
    except OSError:
        return str(core)


def _warm_up(runtime: Runtime, images: np.ndarray, plan: Plan) -> None:
    """Run until the plan's warm-up count and time, all of it counted, are both reached."""
    start = time.perf_counter()
    _run(runtime, images, plan.warmup_runs, 0.0)
    while time.perf_counter() - start < plan.warmup_seconds:
        _run(runtime, images, 1, 0.0)


def _run(runtime: Runtime, images: np.ndarray, count: int, seconds: float) -> list[float]:
    """Return the times of at least `count` inferences that took at least `seconds` together."""
    clock = time.perf_counter_ns
    times: list[int] = []
    total, least = 0, int(seconds * 1e9)
    gc.collect()
    gc.disable()
    try:
        while len(times) < count or total < least:
            runtime.prepare(images[len(times) % len(images)])
            before = clock()
            runtime.invoke()
            took = clock() - before
            times.append(took)
            total += took
    finally:
        gc.enable()
    return [round(took / 1000, 1) for took in times]


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 4)
