"""What the runtimes' own tools say of a model's latency, in a worker process.

In: a model file, a number of threads. Out: medians in microseconds. Both tools see random bytes as pictures: dense kernels take as
long for any numbers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from melanoma_edge.errors import Missing
from melanoma_edge.runtimes.timing import pin

WARMUP_RUNS = 500
REPEATS = 3
_SEED = 1
_SECONDS = 600


def litert_benchmark(model: str, threads: int, runs: int) -> dict:
    """Return {"medians_us": one a repeat} of `litert-benchmark`, which comes with ai-edge-litert, pinned to as many cores as threads.

    It runs the model through LiteRT's CompiledModel, copying of input and output left out, and rounds to 10 microseconds. Raises Missing where it fails.
    """
    pin(threads)
    medians = []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder, "result.json")
            counts = ["--num_runs", str(runs), "--warmup_runs", str(WARMUP_RUNS), "--num_threads", str(threads)]
            command = [sys.executable, "-m", "ai_edge_litert.tools.benchmark_litert_model", "--model", model, *counts, "--result_json", str(result)]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_SECONDS)
            if done.returncode or not result.is_file():
                last = (done.stderr.strip().splitlines() or ["no word"])[-1]
                raise Missing(f"litert-benchmark ended with {done.returncode} ({last}): another release of ai-edge-litert may do better")
            medians.append(json.loads(result.read_text(encoding="utf-8"))["latency"]["median_ms"] * 1000)
    return {"medians_us": medians}


def onnxruntime_profile(model: str, threads: int, runs: int) -> dict:
    """Return medians of the same runs by ONNX Runtime's own profiler (`profiler_us`) and by the clock that bench uses (`clock_us`).

    The profiler notes every operator, which takes time of its own: both are longer than without it.
    """
    import onnxruntime

    from melanoma_edge.runtimes.ort import OnnxRuntime, session_options

    pin(threads)
    runtime = OnnxRuntime()
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(threads, runtime.settings)
        options.enable_profiling, options.profile_file_prefix = True, str(Path(folder, "profile"))
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        [taken], binding = session.get_inputs(), session.io_binding()
        dtype = np.uint8 if taken.type == "tensor(uint8)" else np.float32
        picture = np.random.default_rng(_SEED).integers(0, 256, taken.shape).astype(dtype)
        binding.bind_cpu_input(taken.name, picture)
        binding.bind_output(session.get_outputs()[0].name)
        times = []
        for _ in range(WARMUP_RUNS + runs):
            before = time.perf_counter_ns()
            session.run_with_iobinding(binding)
            times.append((time.perf_counter_ns() - before) / 1000)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    noted = [event["dur"] for event in events if event["name"] == "model_run"][WARMUP_RUNS:]
    if not noted:
        raise Missing("ONNX Runtime's profiler noted no run: another release of onnxruntime may do better")
    return {"profiler_us": float(np.median(noted)), "clock_us": float(np.median(times[WARMUP_RUNS:]))}
