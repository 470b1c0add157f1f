"""Child processes: how one is started, what is said of one that ended or fell silent, and that none outlives its parent.

In: a module to run and a temporary folder. Out: a process in a session of its own. Light to import, so that a child can be on its
way while the parent still imports what it needs itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import site
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import melanoma_edge
from melanoma_edge.errors import BadInput, Error, Missing, ProofFailed
from melanoma_edge.files import remove_folder

if TYPE_CHECKING:
    from melanoma_edge.runtimes.protocol import RuntimeFailed

JOB_FOLDER = "melanoma-edge-"
"""What the names of the temporary folders begin with that hold a worker's job."""
_NOISE = ("INFO:", "WARNING:", "I0000", "W0000")
"""What lines of standard error begin with that say nothing about a failure."""


@contextlib.contextmanager
def job_folder() -> Iterator[Path]:
    """Yield a temporary folder for one job and whatever its children keep in temporary files; it is removed with both."""
    folder = Path(tempfile.mkdtemp(prefix=JOB_FOLDER))
    try:
        yield folder
    finally:
        remove_folder(folder)


def start(command: Sequence[str], folder: Path, noise: Path, *, gpu: bool = False, changes: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start `command` with pipes to its standard input and output, its standard error in the file `noise` and temporary files in `folder`."""
    with open(noise, "wb") as file:
        return subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            env=_environment(gpu=gpu) | {"TMPDIR": str(folder)} | (changes or {}),
            start_new_session=True,
        )


def kill(child: subprocess.Popen[bytes]) -> None:
    """Kill the child's process group, what a child that has ended left of it too, and close its pipes."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    child.stdin.close()
    child.stdout.close()


def failure(answer: dict) -> Error:
    """Return the error that a child's answer {"error": its kind, "message"} tells of."""
    from melanoma_edge.runtimes.protocol import RuntimeFailed, Unsupported

    kinds = {kind.__name__: kind for kind in (BadInput, Missing, ProofFailed, RuntimeFailed, Unsupported)}
    return kinds.get(answer["error"], Error)(answer["message"])


def silence(name: str, what: str, timeout: float) -> RuntimeFailed:
    """Return the error for a child, which `name` names and which worked on `what`, that was silent for so many seconds."""
    from melanoma_edge.runtimes.protocol import RuntimeFailed

    return RuntimeFailed(f"{name} gave no result{what} within {timeout:g} s and was stopped: give another model, or fewer pictures, or use a faster machine")


def crash(child: subprocess.Popen[bytes], name: str, what: str, noise: Path, then: str) -> RuntimeFailed:
    """Return the error for a child that ended without an answer; `noise` holds what it printed, `then` says what that means and what to do."""
    from melanoma_edge.runtimes.protocol import RuntimeFailed

    how = signal.Signals(-child.returncode).name if child.returncode < 0 else f"exit code {child.returncode}"
    if how == "SIGKILL":
        how += ", as the system does where memory runs out"
    return RuntimeFailed(f"{name} crashed{what} ({how}{last_line(noise)}): {then}")


def last_line(path: Path) -> str:
    """Return the last telling line of what a child printed, as an addition to a message."""
    from melanoma_edge.runtimes.protocol import one_line

    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    telling = [line for line in lines if line.strip() and not line.startswith(_NOISE)]
    return f"; {one_line(Exception(telling[-1]))}" if telling else ""


def _environment(*, gpu: bool) -> dict[str, str]:
    """Return the child's environment: quiet packages, GPUs only where asked for, this package importable."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_CPP_MIN_VLOG_LEVEL": "0", "PYTHONUNBUFFERED": "1"}
    if not gpu:
        environment["CUDA_VISIBLE_DEVICES"] = "-1"
    root = str(Path(melanoma_edge.__file__).parents[1])
    if root not in (*site.getsitepackages(), site.getusersitepackages()):
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (environment.get("PYTHONPATH"), root)))
    return environment
