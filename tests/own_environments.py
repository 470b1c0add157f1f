"""Environments of their own that tests need: made once, in the user's cache folder, where they stay."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from melanoma_edge import environments
from melanoma_edge.errors import Missing


def folder() -> Path:
    """Return where they are, whatever MELANOMA_EDGE_CACHE says, which tests set to a folder that goes away."""
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(os.environ.get("MELANOMA_EDGE_RUNTIMES") or (Path(base) if base else Path.home() / ".cache") / "melanoma-edge" / "runtimes")


def python_of(name: str, requirements: Sequence[str]) -> Path:
    """Return the Python of an environment, made if need be, by one test worker; skips the test where pip cannot get it."""
    folder().mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, open(folder() / f".{name}.lock", "w") as lock:
        patch.setenv("MELANOMA_EDGE_RUNTIMES", str(folder()))
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return environments.install(name, requirements)
        except Missing as error:
            pytest.skip(str(error))


def call(python: Path, *arguments: object) -> subprocess.CompletedProcess:
    """Run a program in an environment, away from this one's packages."""
    return subprocess.run([str(python), "-I", *map(str, arguments)], capture_output=True, text=True, timeout=900)


def packages(python: Path) -> dict[str, str]:
    """Return {name: version} of everything in an environment but what every environment begins with."""
    done = call(python, "-m", "pip", "list", "--format=json", "--disable-pip-version-check")
    assert done.returncode == 0, done.stderr
    return {found["name"]: found["version"] for found in json.loads(done.stdout) if found["name"] not in ("pip", "setuptools")}
