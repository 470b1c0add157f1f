"""The child process: `python -m melanoma_edge.runtimes.worker JOB.json`.

In: a job that :mod:`melanoma_edge.runtimes.process` wrote, with its pictures in a `.npy` file beside
it. Out: a report (JSON), written last, that says what came out or which error it was. Standard
output carries progress lines only; what the packages print goes to standard error. Standard input
is a lifeline: when the parent closes it, or dies, this process ends at once.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from melanoma_edge.contract import INPUT_NAME, InputContract
from melanoma_edge.errors import Error
from melanoma_edge.files import explained, remove_folder, write_json
from melanoma_edge.runtimes.child import JOB_FOLDER
from melanoma_edge.runtimes.protocol import BESIDE, RUNTIMES, RuntimeFailed, create, load, one_line
from melanoma_edge.runtimes.timing import Plan, measure

Progress = Callable[[str], None]


AT_ONCE = 16
"""Pictures between two signs of life: the parent waits for silence only, however many there are. An emulated processor or
a browser may take seconds for a picture where many share the machine."""
MEMORY_SHARE = 0.75
"""Of this machine's memory, what a worker may ask for: a small file can demand terabytes, and must not take others down."""


def logits(job: dict, progress: Progress) -> dict:
    """Write the model's logits of the pictures to the file that the job names."""
    runtime = create(job["runtime"], job["options"], contract(job))
    load(runtime, Path(job["model"]), job["threads"])
    images = np.load(job["images"], mmap_mode="r")
    parts = []
    for start in range(0, max(1, len(images)), AT_ONCE):
        parts.append(runtime.logits(images[start : start + AT_ONCE]))
        progress(f"{min(start + AT_ONCE, len(images))} of {len(images)}")
    result = np.concatenate(parts)
    with explained(Path(job["logits"])):
        np.save(job["logits"], result)
    return {}


def times(job: dict, progress: Progress) -> dict:
    """Return what :func:`melanoma_edge.runtimes.timing.measure` finds."""
    models = {name: Path(path) for name, path in job["models"].items()}
    return measure(job["runtime"], models, np.load(job["images"]), job["threads"], Plan(**job["plan"]), progress, contract(job))


def probe(job: dict, _: Progress) -> dict:
    """Return what the runtime finds out about its hardware."""
    return create(job["runtime"], {}).probe()


def census(job: dict, _: Progress) -> dict:
    """Return how often each operator stands in the graph that the runtime makes of the model."""
    return create(job["runtime"], {}).census(Path(job["model"]), Path(job["folder"]))


def call(job: dict, _: Progress) -> dict:
    """Return what a function of melanoma_edge returns for the job's arguments."""
    module, _, name = job["function"].partition(":")
    if module.partition(".")[0] != "melanoma_edge":
        raise ValueError(f"{module} is no module of melanoma_edge")
    return getattr(importlib.import_module(module), name)(**job["arguments"])


def contract(job: dict) -> InputContract | None:
    """Return what the job says that models take; None for the bytes as they are."""
    return None if job.get("contract") is None else InputContract.model_validate_json(json.dumps(job["contract"]))


def layers(job: dict, _: Progress) -> dict:
    """Write the tensors that a model which gives several makes of several inputs to the file that the job names.

    Beside them, where the job names the untouched model: its logits of the pictures. The facts say which operators
    run in either, where the runtime rewrites graphs.
    """
    runtime, model = create(job["runtime"], job["options"]), Path(job["model"])
    with np.load(job["given"]) as given:
        inputs = {name: given[name] for name in given.files}
    found, facts = runtime.tensors(model, inputs, job["wanted"])
    if job["beside"] is not None:
        load(runtime, Path(job["beside"]), 1)
        pictures = inputs[INPUT_NAME]
        found[BESIDE] = runtime.logits(pictures if runtime.signature.layout == "NHWC" else pictures.transpose(0, 2, 3, 1))
    if hasattr(runtime, "census") and importlib.util.find_spec("onnx") is not None:  # other places may lack it
        folder = Path(job["tensors"]).parent
        facts["operators"] = runtime.census(model, folder)
        facts["usual_operators"] = {} if job["beside"] is None else runtime.census(Path(job["beside"]), folder)
    with explained(Path(job["tensors"])):
        np.savez(job["tensors"], **found)
    return facts


KINDS = {"logits": logits, "times": times, "probe": probe, "census": census, "call": call, "layers": layers}


def main(path: str) -> None:
    """Do the job in the file `path` and write its report."""
    threading.Thread(target=end_with_parent, args=(Path(path).parent,), daemon=True).start()
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    if not RUNTIMES[job["runtime"]].gpu:  # CUDA reserves far more than it uses
        limit_memory()
    try:
        report = {"result": KINDS[job["kind"]](job, lambda line: print(line, file=lines, flush=True))}
    except Error as error:
        report = {"error": type(error).__name__, "message": str(error)}
    except Exception as error:
        message = f"{job['runtime']} failed: {one_line(error)}; export the model again or give another file"
        report = {"error": RuntimeFailed.__name__, "message": message}
    write_json(Path(job["report"]), report)


def limit_memory() -> None:
    """Let demands for more than MEMORY_SHARE of the memory fail, and have the system end this process before any other where memory runs out."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        most = int(MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard == resource.RLIM_INFINITY or most < hard:
            resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def end_with_parent(folder: Path, hear: Callable[[bytes], None] = lambda _: None) -> None:
    """Read standard input, which `hear` gets, until it ends, then stop the process at once; pictures in its job's folder do not outlive a killed parent."""
    while chunk := os.read(0, 65536):
        hear(chunk)
    if folder.name.startswith(JOB_FOLDER):
        remove_folder(folder, seconds=1)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
