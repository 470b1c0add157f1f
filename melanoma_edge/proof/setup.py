"""Setting up what does not come with the package: places that runtimes compute in, and converters.

In: a name. Out: facts for people. Each is installed by its own module, into a folder of its own, whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable

from melanoma_edge.convert import coreml
from melanoma_edge.errors import BadInput
from melanoma_edge.runtimes import places

NAMES = (*places.SET_UP, coreml.NAME)
"""What `melanoma-edge setup` can set up."""


def set_up(name: str, progress: Callable[[str], None] = lambda line: None) -> dict:
    """Set up `name` and return facts for people; raises BadInput for an unknown one and Missing for what it needs."""
    if name == coreml.NAME:
        return {"place": name, **coreml.install(progress), "next": "melanoma-edge export --coreml"}
    if name not in NAMES:
        raise BadInput(f"there is nothing called {name!r} to set up: expected one of {', '.join(NAMES)}")
    return {**places.install(name, progress), "next": f"melanoma-edge verify BUNDLE --runtime {name}"}
