"""The clocks of the roofline, each run in a process of its own on one core.

In: TFLite or ONNX files. Out: times in microseconds. LiteRT and ONNX Runtime never meet in one process; nothing here imports either before it is called.
"""

from __future__ import annotations

import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from melanoma_edge.runtimes.timing import pin

WARM_UP = 3
"""Untimed runs of a model at the start of each round, while the caches still hold the one before."""


def litert(groups: dict[str, tuple[dict[str, bytes], int]], rounds: int) -> dict:
    """Return {"affinity", "medians": {group: {model: the median of each round}}} of TFLite models on one thread with XNNPACK.

    `groups` are {group: (models in their order, timed runs of each in a round)}. Every round times all models one after the other, every other one in reverse, so
    that neighbours always stand beside each other in time: what the machine does meanwhile falls on both.
    """
    from ai_edge_litert.interpreter import Interpreter

    affinity, loaded, random = pin(1), {}, np.random.default_rng(1)
    gc.disable()
    for group, (models, runs) in groups.items():
        for name, content in models.items():
            interpreter = Interpreter(model_content=content, num_threads=1)
            interpreter.allocate_tensors()
            [taken] = interpreter.get_input_details()
            low, high = (0, 255) if taken["dtype"] in (np.uint8, np.float32) else (-128, 127)
            interpreter.set_tensor(taken["index"], random.integers(low, high + 1, taken["shape"]).astype(taken["dtype"]))
            loaded[group, name] = interpreter.invoke, runs
            _timed(interpreter.invoke, runs)
    medians: dict[str, dict[str, list[float]]] = {group: {name: [] for name in models} for group, (models, _) in groups.items()}
    for turn in range(rounds):
        for group, name in list(loaded)[:: 1 if turn % 2 == 0 else -1]:
            invoke, runs = loaded[group, name]
            _timed(invoke, WARM_UP)
            medians[group][name].append(statistics.median(_timed(invoke, runs)))
    return {"affinity": affinity, "medians": medians}


def onnxruntime(file: str, runs: int) -> dict:
    """Return what ONNX Runtime takes for an ONNX model on one thread: bare, and with its profiler on, which slows it, as a whole and node by node.

    {"bare_us", "profiled_us": medians by our clock; "profiler_run_us": by its own; "nodes": [{"name", "operator", "shape", "us"}] in the order in which they run}.
    The profiler counts in whole microseconds.
    """
    import onnxruntime as package

    from melanoma_edge.runtimes import ort
    from melanoma_edge.runtimes.protocol import load

    pin(1)
    gc.disable()
    with tempfile.TemporaryDirectory(prefix="melanoma-edge-roofline-") as folder:

        class Profiled(ort.OnnxRuntime):
            def _session(self, model: str | bytes, threads: int) -> package.InferenceSession:
                options = ort.session_options(threads, self.settings)  # those of every session, so that it is the same graph
                options.enable_profiling, options.profile_file_prefix = True, str(Path(folder, "profile"))
                return package.InferenceSession(model, options, providers=["CPUExecutionProvider"])

        times = {}
        for name, runtime in (("bare_us", ort.OnnxRuntime()), ("profiled_us", Profiled())):
            load(runtime, Path(file), 1)
            runtime.prepare(np.random.default_rng(1).integers(0, 256, (runtime.signature.height, runtime.signature.width, 3), np.uint8))
            _timed(runtime.invoke, max(WARM_UP, runs // 10))
            times[name] = statistics.median(_timed(runtime.invoke, runs))
        events = json.loads(Path(runtime._loaded.end_profiling()).read_text(encoding="utf-8"))
    nodes: dict[str, dict] = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            facts = event["args"]
            [(_, shape), *_] = facts["output_type_shape"][0].items()
            node = nodes.setdefault(event["name"].removesuffix("_kernel_time"), {"operator": facts["op_name"], "shape": shape, "times": []})
            node["times"].append(event["dur"])
    whole = [event["dur"] for event in events if event["cat"] == "Session" and event["name"] == "model_run"]
    rows = [{"name": name, "operator": node["operator"], "shape": node["shape"], "us": _middle(node["times"][-runs:])} for name, node in nodes.items()]
    return {**times, "profiler_run_us": _middle(whole[-runs:]), "nodes": rows}


def _middle(times: list[int]) -> float:
    """Return the mean of the middle half of `times`: about as robust as the median, and finer than whole microseconds."""
    quarter = len(times) // 4
    return round(statistics.fmean(sorted(times)[quarter : len(times) - quarter]), 2)


def _timed(invoke: Callable[[], None], runs: int) -> list[float]:
    """Return the microseconds of each of `runs` inferences."""
    clock, times = time.perf_counter_ns, []
    for _ in range(runs):
        before = clock()
        invoke()
        times.append((clock() - before) / 1000)
    return times
