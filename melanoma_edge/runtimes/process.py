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
import signal
import site
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import melanoma_edge
from melanoma_edge.contract import InputContract
from melanoma_edge.errors import BadInput, Error, Missing, ProofFailed
from melanoma_edge.files import explained, read_json, remove_folder, write_json
from melanoma_edge.host import nvidia_driver, version
from melanoma_edge.runtimes import places
from melanoma_edge.runtimes.protocol import JOB_FOLDER, RUNTIMES, Entry, RuntimeFailed, Unsupported, entry, one_line
from melanoma_edge.runtimes.timing import Plan

WORKER = "melanoma_edge.runtimes.worker"
_ERRORS: dict[str, type[Error]] = {kind.__name__: kind for kind in (BadInput, Missing, ProofFailed, RuntimeFailed, Unsupported)}
_NOISE = ("INFO:", "WARNING:", "I0000", "W0000")
"""What lines of standard error begin with that say nothing about a failure."""


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
    model = _existing(model)
    with _job_folder() as folder:
        job = {
            "kind": "logits",
            "runtime": runtime,
            "model": str(model),
            "options": {} if which is None else {"which": which},
            "contract": _dumped(contract),
            "threads": threads,
            "logits": str(Path(folder, "logits.npy")),
        }
        _work(job, Path(folder), images, timeout, f" on {model.name}", progress)
        return np.load(job["logits"])


def run_census(runtime: str, model: Path, *, timeout: float = 600) -> dict[str, int]:
    """Return how often each operator stands in the graph that `runtime` makes of `model`; raises as :func:`run_logits` does."""
    model = _existing(model)
    with _job_folder() as folder:
        return _work({"kind": "census", "runtime": runtime, "model": str(model), "folder": folder}, Path(folder), None, timeout, f" on {model.name}")


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
    model = _existing(model)
    with _job_folder() as folder:
        job = {
            "kind": "layers",
            "runtime": runtime,
            "model": str(model),
            "options": {} if which is None else {"which": which},
            "given": str(Path(folder, "given.npz")),
            "wanted": wanted or {},
            "beside": None if beside is None else str(_existing(beside)),
            "tensors": str(Path(folder, "tensors.npz")),
        }
        with explained(Path(folder)):
            np.savez(job["given"], **inputs)
        facts = _work(job, Path(folder), None, timeout, f" on {model.name}")
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
    paths = {name: str(_existing(path)) for name, path in models.items()}
    with _job_folder() as folder:
        job = {"kind": "times", "runtime": runtime, "models": paths, "contract": _dumped(contract), "threads": threads, "plan": plan.model_dump()}
        return _work(job, Path(folder), images, timeout, "", progress)


def probe(runtime: str, *, timeout: float = 120) -> dict:
    """Return what `runtime` finds out about its hardware; raises as :func:`run_logits` does."""
    with _job_folder() as folder:
        return _work({"kind": "probe", "runtime": runtime}, Path(folder), None, timeout, "")


def run_call(runtime: str, function: str, arguments: dict, *, what: str, timeout: float = 1800) -> dict:
    """Call `function` ("package.module:name" of melanoma_edge) with `arguments` in a process that has what `runtime` needs; return its result.

    For what may crash on the files of strangers. Arguments and result are JSON; `what` names the file in messages. Raises as
    :func:`run_logits` does.
    """
    with _job_folder() as folder:
        return _work({"kind": "call", "runtime": runtime, "function": function, "arguments": arguments}, Path(folder), None, timeout, f" on {what}")


def available() -> dict[str, Availability]:
    """Return for each runtime whether it can be used here, importing none of them.

    Where the packages and a driver are there, a child tries whether CUDA really works.
    """
    return {name: _availability(name, row) for name, row in RUNTIMES.items()}


def _availability(name: str, row: Entry) -> Availability:
    """Return whether the runtime `name` can be used here."""
    found = next((found for package in row.packages if (found := version(package)) is not None), None)
    try:
        _require(name, row)
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


def _require(name: str, row: Entry) -> None:
    """Raise Missing when a package that the runtime `name` imports is not installed, or its place not set up."""
    if row.place != "here":
        places.module(row.place).require()
    for package in row.imports:
        if importlib.util.find_spec(package) is None:
            raise Missing(f"{name} needs the package {package}, which is not installed: {row.install}")


def _dumped(contract: InputContract | None) -> dict | None:
    """Return the contract as JSON holds it."""
    return None if contract is None else contract.model_dump(mode="json")


def _existing(model: Path) -> Path:
    """Return the absolute path of a model file or run directory; raises BadInput when it is not there."""
    if not Path(model).exists():
        raise BadInput(f"{model} is missing: expected a model; give another path")
    return Path(model).absolute()


@contextlib.contextmanager
def _job_folder() -> Iterator[str]:
    """Yield a temporary folder for one job and whatever its child keeps in temporary files; it is removed with both."""
    folder = tempfile.mkdtemp(prefix=JOB_FOLDER)
    try:
        yield folder
    finally:
        remove_folder(Path(folder))


def _work(
    job: dict, folder: Path, images: np.ndarray | None, timeout: float, what: str, progress: Callable[[str], None] | None = None
) -> dict:
    """Have a child do `job` in the temporary `folder`; return its result or raise its error."""
    row = entry(job["runtime"])
    _require(job["runtime"], row)
    start, changes = places.command(row.place)
    report = folder / "report.json"
    with explained(folder):
        if images is not None:
            np.save(folder / "images.npy", images)
        write_json(folder / "job.json", job | {"images": str(folder / "images.npy"), "report": str(report)})
    with open(folder / "stderr.txt", "wb") as noise:
        child = subprocess.Popen(
            [*start, "-m", WORKER, str(folder / "job.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=noise,
            env=_environment(gpu=row.gpu or job["kind"] == "probe") | {"TMPDIR": str(folder)} | changes,
            start_new_session=True,
        )
        try:
            ended = _follow(child, timeout, progress)
        finally:
            _kill(child)
    if report.exists():
        answer = read_json(report, "a worker's report")
        if "error" in answer:
            raise _ERRORS.get(answer["error"], Error)(answer["message"])
        return answer["result"]
    name, last = job["runtime"], _last_line(folder / "stderr.txt")
    if not ended:
        raise RuntimeFailed(f"{name} gave no result{what} within {timeout:g} s and was stopped: give another model, or fewer pictures, or use a faster machine")
    how = signal.Signals(-child.returncode).name if child.returncode < 0 else f"exit code {child.returncode}"
    if how == "SIGKILL":
        how += ", as the system does where memory runs out"
    raise RuntimeFailed(f"{name} crashed{what} ({how}{last}): the file is damaged or needs what this machine lacks; export it again")


def _environment(*, gpu: bool) -> dict[str, str]:
    """Return the child's environment: quiet packages, GPUs only where asked for, this package importable."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_CPP_MIN_VLOG_LEVEL": "0", "PYTHONUNBUFFERED": "1"}
    if not gpu:
        environment["CUDA_VISIBLE_DEVICES"] = "-1"
    root = str(Path(melanoma_edge.__file__).parents[1])
    if root not in (*site.getsitepackages(), site.getusersitepackages()):
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (environment.get("PYTHONPATH"), root)))
    return environment


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


def _kill(child: subprocess.Popen) -> None:
    """Kill the child's process group, what a child that has ended left of it too, and close its pipes."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    child.stdin.close()
    child.stdout.close()


def _last_line(path: Path) -> str:
    """Return the last telling line of what the child printed, as an addition to a message."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    telling = [line for line in lines if line.strip() and not line.startswith(_NOISE)]
    return f"; {one_line(Exception(telling[-1]))}" if telling else ""
