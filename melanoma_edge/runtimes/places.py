"""Where a runtime computes: on this machine, on an emulated Arm processor, in a browser.

In: a place's name. Out: whether it is set up here, the command that starts a worker there, and the way to
set it up. A place other than this machine is one module with three functions, imported when it is asked for:

- `require() -> str`: return the version of what is set up; raises Missing with the reason, and nothing else.
- `install(progress) -> dict`: set it up below :func:`folder`, all or nothing; return facts for people.
- `command() -> tuple[list[str], dict[str, str]]`: the start of a worker's command line (what stands before
  `-m melanoma_edge.runtimes.worker`) and changes to its environment.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Literal, get_args

from melanoma_edge.errors import BadInput
from melanoma_edge.files import cache_folder

Place = Literal["here", "arm64", "browser"]
SET_UP: tuple[str, ...] = tuple(place for place in get_args(Place) if place != "here")
"""The places that `melanoma-edge setup` can set up."""


def module(place: str) -> ModuleType:
    """Return the module of a place other than `here`; raises BadInput that lists what there is."""
    if place not in SET_UP:
        raise BadInput(f"there is nothing called {place!r} to set up: expected one of {', '.join(SET_UP)}")
    return importlib.import_module(f"melanoma_edge.runtimes.{place}")


def folder(place: str) -> Path:
    """Return where the files of `place` are kept: MELANOMA_EDGE_RUNTIMES, else runtimes/ in the cache folder."""
    named = os.environ.get("MELANOMA_EDGE_RUNTIMES")
    return (Path(named) if named else cache_folder() / "runtimes") / place


def command(place: Place) -> tuple[list[str], dict[str, str]]:
    """Return the Python of `place` with its options, and changes to the environment; raises Missing where it is not set up."""
    return ([sys.executable, "-P"], {}) if place == "here" else module(place).command()


def install(place: str, progress: Callable[[str], None]) -> dict:
    """Set up `place` and return facts for people; raises BadInput for an unknown one and Missing for what it needs."""
    return {"place": place, **module(place).install(progress)}
