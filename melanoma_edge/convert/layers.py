"""A network's layers in an artifact's own terms, and the artifact opened up to look at each.

In: a ``.tflite`` file. Out: its :class:`Layer` rows in the network's order, and two edited copies: one that also
gives every layer's tensor (:func:`traced`), and one in which every layer reads tensors that are given to it
instead of what the layer before computed (:func:`cut`), so that each can be judged alone. ONNX files are
opened up alike by :mod:`melanoma_edge.convert.layers_onnx`.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from melanoma_edge.contract import INPUT_NAME
from melanoma_edge.convert import tflite
from melanoma_edge.errors import BadInput

LAYOUT = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "DEQUANTIZE")
"""Operators that compute nothing that could be off: they move values, or read them as numbers."""
WRAPPER = "quant_"
"""What quantization-aware training puts before the names of layers."""


@dataclass(frozen=True)
class Grid:
    """Which number an int8 value stands for: ``(value - zero_point) * scale``. uint8 values count as 128 less."""

    scale: float
    zero_point: int

    def same(self, other: Grid) -> bool:
        """Return whether both stand for the same numbers, up to the rounding of the scale itself."""
        return self.zero_point == other.zero_point and abs(self.scale - other.scale) <= 1e-4 * other.scale


@dataclass(frozen=True)
class Layer:
    """One operator that computes an activation, with what is fused into it."""

    name: str
    """The network's: `block3_depthwise`."""
    operator: str
    tensor: str
    """The name of its output in the file."""
    shape: tuple[int, ...]
    grid: Grid | None
    """None where the output is float."""
    reads: tuple[int, ...]
    """Positions of the layers whose tensors it reads; -1 is the picture."""
    parts: tuple[str, ...]
    """Names of the Keras layers that are fused into it, with the wrapper's prefix; the last of them in the network gives its tensor."""
    index: int
    """Position of its output among the file's tensors."""


def layers(content: bytes) -> list[Layer]:
    """Return the layers of a TFLite file in its own order, which is the network's.

    Raises BadInput for a file that is no TFLite model, or has a data type that is neither int8 nor float32.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph, model = tflite.unpack(content)
    names, found = tflite.names(schema.BuiltinOperator), []
    holds = {int(index): -1 for index in graph.inputs}  # tensor -> the layer whose values it holds
    taken: Counter[str] = Counter()
    for operator in graph.operators:
        kind, inputs = names[tflite.builtin(model, operator)], [int(index) for index in operator.inputs]
        sources = [holds[index] for index in inputs if index in holds]
        if not sources:
            continue
        output = int(operator.outputs[0])
        if kind in LAYOUT:
            holds[output] = sources[0]
            continue
        tensor = graph.tensors[output]
        grid, title = _grid(tensor, schema), tensor.name.decode("utf-8", "replace")
        parts = tuple(_parts(title))
        name = INPUT_NAME if kind == "QUANTIZE" and sources == [-1] else min((part.removeprefix(WRAPPER) for part in parts), key=len, default=title)
        taken[name] += 1
        found.append(
            Layer(
                name=f"{name} {taken[name]}" if taken[name] > 1 else name,
                operator=kind,
                tensor=title,
                shape=tuple(int(size) for size in tensor.shape),
                grid=grid,
                reads=tuple(sources),
                parts=parts,
                index=output,
            )
        )
        holds[output] = len(found) - 1
    return found


def traced(content: bytes, rows: Sequence[Layer]) -> bytes:
    """Return the file with the tensor of each of `rows` as an output, in their order, called `layer_0`, `layer_1`...

    The logits stay the first output, as they are.
    """
    graph, model = tflite.unpack(content)
    first = int(graph.outputs[0])
    for position, layer in enumerate(rows):
        if layer.index != first:
            graph.tensors[layer.index].name = f"layer_{position}".encode()
    graph.outputs = [first, *(layer.index for layer in rows if layer.index != first)]
    model.signatureDefs = []
    return tflite.pack(model, len(content))


def cut(content: bytes, rows: Sequence[Layer], grids: Sequence[Grid | None]) -> bytes:
    """Return the file with every layer on its own.

    What reads the tensor of layer i reads an input `given_i` instead, on the grid `grids[i]`: that of the model
    that the values come from, so that a wrong grid of layer i is not held against the layers behind it.
    Outputs are as in :func:`traced`, without the logits' last step.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph, model = tflite.unpack(content)
    names = tflite.names(schema.BuiltinOperator)
    given: dict[int, int] = {}
    owner: dict[int, int] = {}  # tensor -> the layer whose given values it holds
    for position, (layer, grid) in enumerate(zip(rows, grids, strict=True)):
        tensor = copy.copy(graph.tensors[layer.index])
        tensor.name = f"given_{position}".encode()
        _set_grid(tensor, grid)
        given[layer.index], owner[len(graph.tensors)] = len(graph.tensors), position
        graph.tensors.append(tensor)
    wanted = {layer.index for layer in rows}
    for operator in graph.operators:
        operator.inputs = [given.get(int(index), int(index)) for index in operator.inputs]
        source, output = int(operator.inputs[0]), int(operator.outputs[0])
        if names[tflite.builtin(model, operator)] in LAYOUT and source in owner:
            owner[output] = owner[source]
            if graph.tensors[output].type == graph.tensors[source].type:
                _set_grid(graph.tensors[output], grids[owner[source]])
    while dangling := [operator for operator in graph.operators if int(operator.outputs[0]) not in wanted | _read(graph)]:
        graph.operators = [operator for operator in graph.operators if operator not in dangling]
    for position, layer in enumerate(rows):
        graph.tensors[layer.index].name = f"layer_{position}".encode()
    graph.inputs = [index for index in (*map(int, graph.inputs), *given.values()) if index in _read(graph)]
    graph.outputs = [layer.index for layer in rows]
    model.signatureDefs = []
    return tflite.pack(model, len(content))


def _read(graph) -> set[int]:
    """Return the tensors that some operator reads."""
    return {int(index) for operator in graph.operators for index in operator.inputs}


def _parts(title: str) -> Iterator[str]:
    """Yield the Keras layers in the name of a fused tensor: `edge/quant_stem_relu6/Relu6;edge/quant_stem/Conv2D1`."""
    seen = set()
    for component in title.split(";"):
        path = [part for part in component.split("/") if part]
        part = path[1] if len(path) > 1 else path[0] if path else ""
        if part and part not in seen:
            seen.add(part)
            yield part


def _grid(tensor, schema) -> Grid | None:
    if tensor.type == schema.TensorType.FLOAT32:
        return None
    found = tensor.quantization
    if tensor.type != schema.TensorType.INT8 or found is None or found.scale is None or len(found.scale) != 1:
        kind = tflite.names(schema.TensorType)[tensor.type]
        raise BadInput(f"tensor {tensor.name.decode('utf-8', 'replace')} has type {kind}: only int8 with one scale, and float32, can be compared layer by layer")
    return Grid(float(np.float32(found.scale[0])), int(found.zeroPoint[0]))


def _set_grid(tensor, grid: Grid | None) -> None:
    if grid is not None:
        tensor.quantization = copy.copy(tensor.quantization)
        tensor.quantization.scale, tensor.quantization.zeroPoint = [grid.scale], [grid.zero_point]

