"""Reading model files that may be damaged or somebody else's: whatever a parser raises becomes one line.

Flatbuffers' and protobuf's Python readers check little as they go, so a damaged file makes them raise almost
anything: struct.error, IndexError, TypeError, ValueError, DecodeError, MemoryError, RecursionError.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from melanoma_edge.errors import BadInput, Error


@contextlib.contextmanager
def whole(kind: str) -> Iterator[None]:
    """Turn what reading a model of `kind` (`TFLite`, `ONNX`) raises into BadInput; our own errors pass."""
    try:
        yield
    except Error:
        raise
    except Exception as error:
        detail = " ".join(str(error).split())[:120]
        detail = detail if detail.isprintable() else repr(detail)[1:-1]
        found = f"{type(error).__name__}: {detail}" if detail else type(error).__name__
        raise BadInput(f"the file is not a whole {kind} model ({found}): export it again or give another file") from None
