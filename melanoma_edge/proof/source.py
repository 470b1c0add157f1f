"""The model file that a bundle was wrapped from, run by its own framework.

In: a bundle of origin `model`, and perhaps the file. Out: its logits, or in words why there are none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from melanoma_edge.convert.bundle import Bundle
from melanoma_edge.errors import BadInput
from melanoma_edge.files import sha256_file
from melanoma_edge.proof.origin import remembered
from melanoma_edge.runtimes import process

SOURCE = "source"
"""What the gates and the golden set call the model file that a bundle was wrapped from."""


def is_all(bundle: Bundle) -> bool:
    """Return whether every artifact of the bundle is the source's very bytes, so that there is nothing to run it for."""
    source = bundle.manifest.source
    return source is not None and all(artifact.sha256 == source.sha256 for artifact in bundle.manifest.artifacts)


def source_logits(bundle: Bundle, model: Path | None, here, inputs: np.ndarray, progress: Callable[[str], None]) -> dict[str, np.ndarray] | str:
    """Return {SOURCE: logits} of the model file, or in words why they are not here.

    `model` is where the file is; left out, the place that evidence/origin.json names. Raises BadInput for a `model` that is another file.
    """
    source, named = bundle.manifest.source, model is not None
    if model is None:
        found = remembered(bundle.path, "model")
        if isinstance(found, str):
            return f"{found}; name it with --model FILE"
        model = found
    if not model.is_file():
        if named:
            raise BadInput(f"{model} is missing: expected the model file {source.file}; give another path")
        return f"the model file {model} is not here; name it with --model FILE"
    if sha256_file(model) != source.sha256:
        if named:
            raise BadInput(f"{model} is not the file that the bundle was made from (its sha256 is another): name {source.file} as it was")
        return f"the model file {model} is another one than the bundle was made from; name the right one with --model FILE"
    if is_all(bundle):
        return {}
    runtime = f"{source.format}-file"
    if not here[runtime].available:
        return f"{here[runtime].reason}; {here[runtime].install}"
    progress(f"{source.file} on {runtime}")
    return {SOURCE: process.run_logits(runtime, model, inputs, contract=bundle.manifest.input)}
