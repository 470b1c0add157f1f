"""Python environments of their own, for packages that do not fit beside ours.

In: a name and the requirements of pip, which should pin all that comes of them, indirect ones too. Out: the path of a Python that has them, in the user's cache folder, whole or
absent. The name of the folder follows from the requirements, so other pins make another environment.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from melanoma_edge.errors import Missing
from melanoma_edge.files import TEMPORARY_PREFIX, cache_folder, explained

Progress = Callable[[str], None]


def python_of(name: str, requirements: Sequence[str]) -> Path | None:
    """Return the Python of the environment `name` with these requirements, or None where it was not installed."""
    found = _folder(name, requirements) / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    return found if found.exists() else None


def install(name: str, requirements: Sequence[str], progress: Progress = lambda line: None) -> Path:
    """Make the environment `name` with these requirements, unless it is there, and return its Python.

    Raises Missing, with the last line of what pip said, when it cannot be made; nothing is left behind then.
    """
    ready = python_of(name, requirements)
    if ready is not None:
        return ready
    target = _folder(name, requirements)
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=target.parent))
    try:
        progress(f"making {target}")
        _run([sys.executable, "-m", "venv", str(temporary)], f"an environment for {name} could not be made")
        inside = temporary / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        progress(f"installing {' '.join(requirements[:3])}{' and what they need' if len(requirements) > 3 else ''}")
        pip = [str(inside), "-m", "pip", "--disable-pip-version-check", "--retries", "2", "--timeout", "20"]
        _run([*pip, "install", "--quiet", *requirements], f"{name} could not be installed")
        if python_of(name, requirements) is None:  # else another process was quicker, and made the same
            broken = temporary.with_name(temporary.name + ".old")
            try:
                with contextlib.suppress(FileNotFoundError):
                    os.rename(target, broken)  # one whose own Python is gone
                os.rename(temporary, target)  # only scripts know the folder's name, and nobody calls them: python -m does
            except OSError as error:
                if python_of(name, requirements) is None:
                    with explained(target):
                        raise error
            finally:
                shutil.rmtree(broken, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return python_of(name, requirements)


def _folder(name: str, requirements: Sequence[str]) -> Path:
    """Return where the environment is or would be: below MELANOMA_EDGE_RUNTIMES, else runtimes/ in the cache folder."""
    named = os.environ.get("MELANOMA_EDGE_RUNTIMES")
    digest = hashlib.sha256("\n".join([sys.version.partition(" ")[0], *requirements]).encode()).hexdigest()
    return (Path(named) if named else cache_folder() / "runtimes") / f"{name}-{digest[:10]}"


def _run(command: list[str], failed: str) -> None:
    """Run a command to its end; raises Missing with its last line when it fails."""
    # Variables such as PYTHONPATH would bring our packages into the other environment.
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
    if done.returncode:
        lines = done.stdout.decode("utf-8", "replace").splitlines()
        telling = next((line.strip() for line in reversed(lines) if line.strip().startswith("ERROR")), lines[-1].strip() if lines else "no reason given")
        raise Missing(f"{failed} ({telling.removeprefix('ERROR: ')[:200]}): check the network and try again")
