"""Our latencies beside those of the runtimes' own tools.

In: a bundle and what this host was measured to take. Out: for each artifact, whether the other program says the same within the
tolerance, and by how much it does not. A disagreement is a finding, not a failure: the tools do not measure quite the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from melanoma_edge.convert.bundle import Bundle
from melanoma_edge.errors import Error
from melanoma_edge.proof.latency_figures import TOLERANCE, rounded
from melanoma_edge.proof.latency_model import ArtifactLatency, CrossCheck, RuntimeLatency
from melanoma_edge.runtimes.process import run_call

LITERT, PROFILER = "litert-benchmark", "onnxruntime profiler"
TOOLS = {"litert": LITERT, "onnxruntime": PROFILER}
RUNS = 1024
_MODULE = "melanoma_edge.runtimes.second_opinion"


def cross_checks(bundle: Bundle, timed: Sequence[RuntimeLatency], progress: Callable[[str], None]) -> tuple[CrossCheck, ...]:
    """Return what the tools say of every artifact that was timed in a runtime which has one."""
    return tuple(_checks(bundle, timed, progress))


def _checks(bundle: Bundle, timed: Sequence[RuntimeLatency], progress: Callable[[str], None]) -> Iterator[CrossCheck]:
    for runtime in timed:
        for row in runtime.artifacts if runtime.name in TOOLS else ():
            about = {"tool": TOOLS[runtime.name], "runtime": runtime.name, "threads": runtime.threads, "artifact": row.name}
            progress(f"{about['tool']}: {row.name}, {runtime.threads} thread{'s' * (runtime.threads > 1)}")
            try:
                found = _litert(bundle, runtime, row) if runtime.name == "litert" else _onnxruntime(bundle, runtime, row)
            except Error as error:
                found = {"status": "not run", "note": str(error)}
            yield CrossCheck(**about, **found)


def _litert(bundle: Bundle, runtime: RuntimeLatency, row: ArtifactLatency) -> dict:
    """Compare the median of its medians with our p50."""
    found = _ask(bundle, "litert_benchmark", runtime, row)["medians_us"]
    return _compared(float(np.median(found)), row.p50_ms * 1000, f"its median, of {len(found)} processes, with our p50; it runs CompiledModel, we the interpreter")


def _onnxruntime(bundle: Bundle, runtime: RuntimeLatency, row: ArtifactLatency) -> dict:
    """Compare its median with that of our clock over the same runs: the profiler slows what it measures."""
    found = _ask(bundle, "onnxruntime_profile", runtime, row)
    return _compared(found["profiler_us"], found["clock_us"], "its median with our clock's around the same runs, which profiling makes longer than our p50")


def _ask(bundle: Bundle, function: str, runtime: RuntimeLatency, row: ArtifactLatency) -> dict:
    arguments = {"model": str(bundle.file(bundle.artifact(row.name)).absolute()), "threads": runtime.threads, "runs": RUNS}
    return run_call(runtime.name, f"{_MODULE}:{function}", arguments, what=row.name)


def _compared(theirs_us: float, ours_us: float, note: str) -> dict:
    ratio = theirs_us / ours_us
    agrees = abs(ratio - 1) <= TOLERANCE
    return {"status": "agrees" if agrees else "differs", "theirs_ms": rounded(theirs_us / 1000), "ours_ms": rounded(ours_us / 1000), "ratio": round(ratio, 4), "note": note}
