"""Weights to start from: those of a local file instead of random ones.

In: a network with fresh weights and a safetensors file. Out: the network with the file's weights, every name and shape of them checked.
The last layer alone may be missing, or be of other classes: then it starts afresh, and that is said.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import tf_keras as keras

from melanoma_edge.contract import OUTPUT_NAME
from melanoma_edge.errors import BadInput
from melanoma_edge.model import run as runs


CLASSES = "classes"
"""Key of a weight file's metadata: the classes, in their order, as JSON."""


def start_from(network: keras.Model, content: bytes, file: str, classes: Sequence[str]) -> tuple[str, ...]:
    """Set the weights of `network` (as :func:`melanoma_edge.model.network.build` made it) from what `file` holds; return the names of those that stay as they are.

    Tensors are named as in a run's weights/float.safetensors, "stem/kernel" or "0000/stem/kernel", and are those of a network on raw RGB 0..255. The last layer
    is taken where it is of the same shape, unless the file names its classes and they are not `classes`. Raises BadInput, in one
    line, for a file that cannot be read, a tensor that is missing, unknown, not finite or of another shape.
    """
    tensors, metadata = runs.unpack_tensors(content, file, "weights to start from", "give a safetensors file, or leave init out")
    held = {_plain(name): value for name, value in tensors.items()}
    named = _classes(metadata)
    wanted = {variable.name.removesuffix(":0"): variable for variable in network.weights}
    head = {name for name in wanted if name.split("/")[0] == OUTPUT_NAME}
    fits = all(name in held and held[name].shape == tuple(wanted[name].shape) for name in head) and named in (None, list(classes))
    fresh = () if fits else tuple(sorted(head))
    for name in sorted(held.keys() - wanted.keys()):
        raise BadInput(f"{file} holds {name}, which this recipe's network has not: expected {_list(wanted)}; set the recipe's network and width to those of the file")
    for name, variable in wanted.items():
        if name in fresh:
            continue
        value = held.get(name)
        if value is None or value.shape != tuple(variable.shape):
            found = "holds no" if value is None else f"has {list(value.shape)} for"
            raise BadInput(f"{file} {found} {name}: expected {list(variable.shape)}; set the recipe's network and width to those of the file, or leave init out")
        if value.dtype.kind != "f" or not np.isfinite(value).all():
            raise BadInput(f"{file}: {name} is {value.dtype} or not finite: expected finite floating-point numbers; write the file again")
        variable.assign(value)
    if any(layer.name == "rescale" for layer in network.layers):  # its first layer sees 0..1 in training
        kernel = next(layer for layer in network.layers if layer.weights).kernel
        kernel.assign(kernel * 255)
    return fresh


def _classes(metadata: dict[str, str]) -> list[str] | None:
    """Return the classes that a file says that its last layer has, None where it says nothing."""
    try:
        return json.loads(metadata[CLASSES])
    except (KeyError, ValueError):
        return None


def _plain(name: str) -> str:
    """Return a tensor's name without the position that a run's files put before it."""
    first, slash, rest = name.partition("/")
    return rest if slash and first.isdigit() else name


def _list(names) -> str:
    some = list(names)[:3]
    return ", ".join(some) + (", ..." if len(names) > len(some) else "")
