"""The checkpoint: all that a phase of training needs to go on after its last finished epoch.

In: a network, its optimizer, the weights to keep so far. Out: one safetensors file, and everything back from it. Nothing else is state:
feed, schedule and the randomness within a step follow from the recipe, the epoch and the step.

The file is replaced by rename once the new one is safely on disk, so whatever moment a process ends at, one
whole checkpoint stands there: a second, older one would never be needed. What a failing disk does to it later is found by its own hash, and refused.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

import numpy as np

from melanoma_edge.errors import BadInput
from melanoma_edge.model import run as runs

Rank = tuple[float, float]
"""By which epochs are compared: balanced accuracy on the validation part, then its negative loss."""


@dataclass
class Progress:
    """How far a phase has come."""

    epochs: int = 0
    """Finished ones."""
    rank: Rank | None = None
    """Of the epoch whose weights are kept."""
    kept: dict[str, np.ndarray] = field(default_factory=dict)
    """The weights of that epoch."""


def state(model, optimizer) -> dict[str, np.ndarray]:
    """Return everything of a phase that training changes. Where several workers train, all must call this at the same point."""
    tensors = {f"model/{key}": value for key, value in runs.named(model.weights).items()}
    return tensors | {f"optimizer/{i:04d}": variable.numpy() for i, variable in enumerate(_variables(optimizer))}


def pack(phase: str, progress: Progress, state: dict[str, np.ndarray]) -> bytes:
    """Return the content of a checkpoint's file."""
    tensors = state | {f"best/{key}": value for key, value in progress.kept.items()}
    facts = {"phase": phase, "epoch": str(progress.epochs), "best": json.dumps(progress.rank)}
    return runs.pack_tensors(tensors, {**facts, "sha256": _sha256(tensors, facts)})


def unpack(content: bytes, phase: str, model, optimizer, source: str) -> Progress:
    """Set `model` and `optimizer` from the content of a checkpoint's file, and return how far `phase` has come.

    Content of another phase, or none, changes nothing. Raises BadInput for a damaged one, and one of another recipe; `source` names it.
    """
    if not content:
        return Progress()
    tensors, metadata = runs.unpack_tensors(content, source, "a checkpoint")
    known = metadata.pop("sha256", None)
    if known is not None and known != _sha256(tensors, metadata):  # earlier versions wrote none
        raise BadInput(f"{source} is damaged (its content has another hash than it had when it was written): the disk may be failing; start a new run")
    if metadata.get("phase") != phase:
        return Progress()

    def under(prefix: str) -> dict[str, np.ndarray]:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    runs.assign(model.weights, under("model/"), source)
    saved, variables = under("optimizer/"), _variables(optimizer)
    if len(saved) not in (len(variables), len(optimizer.variables)):  # earlier versions left the loss scale out
        raise BadInput(f"{source} belongs to another recipe: start a new run")
    for i, variable in enumerate(variables[: len(saved)]):
        variable.assign(saved[f"{i:04d}"])
    return Progress(int(metadata["epoch"]), tuple(json.loads(metadata["best"])), under("best/"))


def _variables(optimizer) -> list:
    """Return what an optimizer changes while it trains.

    Of one that scales its loss, tf_keras names neither the scale nor the count of steps since that last changed, which say together when it changes next.
    """
    scale = getattr(optimizer, "_loss_scale", None)
    return [*optimizer.variables, *([scale.current_loss_scale, scale.counter] if scale else [])]


def _sha256(tensors: dict[str, np.ndarray], facts: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for key in sorted(tensors):
        value = np.asarray(tensors[key], order="C")
        digest.update(f"{key} {value.dtype} {value.shape}".encode() + value.tobytes())
    return digest.hexdigest()
