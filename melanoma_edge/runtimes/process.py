"""Runtimes in processes of their own: the parent's side.

In: a runtime's name, model files and pictures. Out: logits or timings. A child that crashes, hangs
or fails becomes one clear error; none outlives its parent. TensorFlow, LiteRT and ONNX Runtime
therefore never meet in one process, and a damaged model cannot take the command down with it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import selectors
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melanoma_edge.contract import InputContract
from melanoma_edge.errors import BadInput, Error, Missing
from melanoma_edge.files import explained, read_json, write_json
from melanoma_edge.host import nvidia_driver, version
from melanoma_edge.runtimes import child as children, places
from melanoma_edge.runtimes.protocol import RUNTIMES, Entry, entry
from melanoma_edge.runtimes.timing import Plan

WORKER = "melanoma_edge.runtimes.worker"


@dataclass(frozen=True)
class Availability:
    """Whether a runtime can be used here; if not, why and the command that changes it."""

    available: bool
    version: str | None
    reason: str | None
    install: str | None


def run_logits(
    runtime: str,
    model: Path,
    images: np.ndarray,
    *,
    which: str | None = None,
    contract: InputContract | None = None,
    threads: int = 1,
    timeout: float = 600,
    progress: Callable[[str], None] | None = None,
) -> np.ndarray:
    """Return the logits, float32 [N, K], that `runtime` gives for `images`, uint8 [N, H, W, 3].

    `model` is a model file, or for `keras` a run directory of which `which` (`float` or `qat`) is
    used. `contract` says what the model takes; left out, the bytes as they are. `progress` gets lines such as `64 of
    200`, and `timeout` is the longest silence between two of them. Raises Missing when the runtime is not
    installed, BadInput for a model of another form and RuntimeFailed when the model cannot be run, the child
    crashes, or `timeout` seconds pass in silence.
    """
    model = existing(model)
    with children.job_folder() as folder:
        job = {
            "kind": "logits",
            "runtime": runtime,
            "model": str(model),
            "options": {} if which is None else {"which": which},
            "contract": dumped(contract),
            "threads": threads,
            "logits": str(folder / "logits.npy"),
        }
        _work(job, folder, images, timeout, f" on {model.name}", progress)
        return np.load(job["logits"])


def run_census(runtime: str, model: Path, *, timeout: float = 600) -> dict[str, int]:
    """Return how often each operator stands in the graph that `runtime` makes of `model`; raises as :func:`run_logits` does."""
    model = existing(model)
    with children.job_folder() as folder:
        return _work({"kind": "census", "runtime": runtime, "model": str(model), "folder": str(folder)}, folder, None, timeout, f" on {model.name}")


def run_tensors(
    runtime: str,
    model: Path,
    inputs: dict[str, np.ndarray],
    *,
    wanted: dict[str, list[str]] | None = None,
    which: str | None = None,
    beside: Path | None = None,
    timeout: float = 3600,
) -> tuple[dict[str, np.ndarray], dict]:
    """Return the outputs {name: [N, ...]} that `runtime` gives for `inputs` {name: [N, ...]}, and facts about them.

    `model` is a model file that gives several outputs (:mod:`melanoma_edge.convert.layers`), and `beside` the file
    that it is an edited copy of: its logits of the pictures are then the output `beside`, and where the runtime
    rewrites graphs, the facts hold the `operators` of the copy and the `usual_operators`. For `keras` the model is
    a run directory, of which `wanted` names the layers: {name to give it: candidates, of which the last in the
    network counts}; the facts then say {name: {"tensor", "grid"}}. Raises as :func:`run_logits` does.
    """
    model = existing(model)
    with children.job_folder() as folder:
        job = {
            "kind": "layers",
            "runtime": runtime,
            "model": str(model),
            "options": {} if which is None else {"which": which},
            "given": str(folder / "given.npz"),
            "wanted": wanted or {},
            "beside": None if beside is None else str(existing(beside)),
            "tensors": str(folder / "tensors.npz"),
        }
        with explained(folder):
            np.savez(job["given"], **inputs)
        facts = _work(job, folder, None, timeout, f" on {model.name}")
        with np.load(job["tensors"]) as found:
            return {name: found[name] for name in found.files}, facts


def run_times(
    runtime: str,
    models: dict[str, Path],
    images: np.ndarray,
    *,
    plan: Plan,
    contract: InputContract | None = None,
    threads: int = 1,
    timeout: float = 600,
    progress: Callable[[str], None] | None = None,
) -> dict:
    """Return what :func:`melanoma_edge.runtimes.timing.measure` finds in a child pinned to `threads` cores.

    `timeout` is the longest silence between two progress lines. Raises as :func:`run_logits` does.
    """
    paths = {name: str(existing(path)) for name, path in models.items()}
    with children.job_folder() as folder:
        job = {"kind": "times", "runtime": runtime, "models": paths, "contract": dumped(contract), "threads": threads, "plan": plan.model_dump()}
        return _work(job, folder, images, timeout, "", progress)


def probe(runtime: str, *, timeout: float = 120) -> dict:
    """Return what `runtime` finds out about its hardware; raises as :func:`run_logits` does."""
    with children.job_folder() as folder:
        return _work({"kind": "probe", "runtime": runtime}, folder, None, timeout, "")


def run_call(runtime: str, function: str, arguments: dict, *, what: str, timeout: float = 1800) -> dict:
    """Call `function` ("package.module:name" of melanoma_edge) with `arguments` in a process that has what `runtime` needs; return its result.

    For what may crash on the files of strangers. Arguments and result are JSON; `what` names the file in messages. Raises as
    :func:`run_logits` does.
    """
    with children.job_folder() as folder:
        return _work({"kind": "call", "runtime": runtime, "function": function, "arguments": arguments}, folder, None, timeout, f" on {what}")


def available() -> dict[str, Availability]:
    """Return for each runtime whether it can be used here, importing none of them.

    Where the packages and a driver are there, a child tries whether CUDA really works.
    """
    return {name: _availability(name, row) for name, row in RUNTIMES.items()}


def _availability(name: str, row: Entry) -> Availability:
    """Return whether the runtime `name` can be used here."""
    found = next((found for package in row.packages if (found := version(package)) is not None), None)
    try:
        require(name, row)
        if row.place != "here":
            found = places.module(row.place).require()
        if row.gpu and not nvidia_driver():
            return Availability(False, found, "no NVIDIA driver is loaded", None)
        if row.gpu:
            probe(name)
    except Error as error:
        reason = str(error).removesuffix(f": {row.install}")
        # A place's own words name its command where that helps; nothing turns an Arm machine into another one.
        return Availability(False, found, reason, row.install if row.place == "here" or row.install in str(error) else None)
    return Availability(True, found, None, None)


def require(name: str, row: Entry) -> None:
    """Raise Missing when a package that the runtime `name` imports is not installed, or its place not set up."""
    if row.place != "here":
        places.module(row.place).require()
    for package in row.imports:
        if importlib.util.find_spec(package) is None:
            raise Missing(f"{name} needs the package {package}, which is not installed: {row.install}")


def dumped(contract: InputContract | None) -> dict | None:
    """Return the contract as JSON holds it."""
    return None if contract is None else contract.model_dump(mode="json")


def existing(model: Path) -> Path:
    """Return the absolute path of a model file or run directory; raises BadInput when it is not there."""
    if not Path(model).exists():
        raise BadInput(f"{model} is missing: expected a model; give another path")
    return Path(model).absolute()


def _work(
    job: dict, folder: Path, images: np.ndarray | None, timeout: float, what: str, progress: Callable[[str], None] | None = None
) -> dict:
    """Have a child do `job` in the temporary `folder`; return its result or raise its error."""
    row = entry(job["runtime"])
    require(job["runtime"], row)
    start, changes = places.command(row.place)
    report = folder / "report.json"
    with explained(folder):
        if images is not None:
            np.save(folder / "images.npy", images)
        write_json(folder / "job.json", job | {"images": str(folder / "images.npy"), "report": str(report)})
    child = children.start(
        [*start, "-m", WORKER, str(folder / "job.json")], folder, folder / "stderr.txt", gpu=row.gpu or job["kind"] == "probe", changes=changes
    )
    try:
        ended = _follow(child, timeout, progress)
    finally:
        children.kill(child)
    if report.exists():
        answer = read_json(report, "a worker's report")
        if "error" in answer:
            raise children.failure(answer)
        return answer["result"]
    if not ended:
        raise children.silence(job["runtime"], what, timeout)
    raise children.crash(child, job["runtime"], what, folder / "stderr.txt", "the file is damaged or needs what this machine lacks; export it again")


def _follow(child: subprocess.Popen, timeout: float, progress: Callable[[str], None] | None) -> bool:
    """Pass the child's progress lines on until it ends; return False after `timeout` seconds of silence."""
    rest = b""
    deadline = time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while selector.select(max(0.0, deadline - time.monotonic())):
            chunk = os.read(child.stdout.fileno(), 65536)
            if not chunk:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(max(0.0, deadline - time.monotonic()))
                return child.returncode is not None
            deadline = time.monotonic() + timeout
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if progress is not None:
                    progress(line.decode("utf-8", "replace"))
    return False
