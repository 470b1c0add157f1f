"""An ONNX file opened up layer by layer, its layers matched with those of the TFLite file of the same network.

In: an ``.onnx`` file and the rows of :func:`melanoma_edge.convert.layers.layers`. Out: where each layer's tensor
is, and the two edited copies that :mod:`melanoma_edge.convert.layers` describes. The files are matched by
structure, walking both from the logits to the picture: names in ONNX files say nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, load_from_string, numpy_helper, shape_inference

from melanoma_edge.convert.layers import Grid, Layer
from melanoma_edge.errors import BadInput

LAYOUT = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")
FUSED = (*LAYOUT, "QuantizeLinear", "Clip", "Relu", "Cast")
"""What belongs to the operator before it."""
SIGN = 128


@dataclass
class Place:
    """Where a layer's tensor is in an ONNX file."""

    tensor: str
    """`image` itself for the quantized picture."""
    quantize: NodeProto | None = None
    dequantize: list[NodeProto] = field(default_factory=list)
    """The nodes that read it as numbers."""
    grids: tuple[Grid, ...] = ()
    """What those nodes, first, and the one that makes it say; more than one where they contradict each other."""
    unsigned: bool = False

    @property
    def grid(self) -> Grid | None:
        """How its readers take it."""
        return self.grids[0] if self.grids else None


def places(content: bytes, rows: Sequence[Layer]) -> list[Place]:
    """Return the place of each of `rows`; raises BadInput where the file has another structure than the TFLite file."""
    model = load_from_string(content)
    return _Walk(model.graph, rows).places()


def shapes(content: bytes, found: Sequence[Place]) -> list[tuple[int, ...]]:
    """Return the shape of each layer's tensor."""
    known = _types(load_from_string(content))
    return [tuple(dim.dim_value for dim in known[place.tensor].type.tensor_type.shape.dim) for place in found]


def traced(content: bytes, found: Sequence[Place]) -> bytes:
    """Return the file with each layer's tensor as an output beside `logits`; the picture's is left out."""
    model = load_from_string(content)
    known = _types(model)
    there = {value.name for value in (*model.graph.input, *model.graph.output)}
    model.graph.output.extend(known[name] for name in dict.fromkeys(place.tensor for place in found) if name not in there)
    return model.SerializeToString(deterministic=True)


def cut(content: bytes, found: Sequence[Place], grids: Sequence[Grid | None]) -> bytes:
    """Return the file with every layer on its own: what reads the tensor of layer i reads an input `given_i`, on `grids[i]`."""
    model = load_from_string(content)
    graph, known = model.graph, _types(model)
    given = {place.tensor: f"given_{position}" for position, place in enumerate(found)}
    reading = {node.output[0]: position for position, place in enumerate(found) for node in place.dequantize}
    for node in graph.node:
        position = reading.get(node.output[0])
        if position is not None and grids[position] is not None:
            _impose(graph, node, grids[position], found[position].unsigned)
        node.input[:] = [given.get(name, name) for name in node.input]
    outputs = [known[place.tensor] for place in found if place.tensor not in {value.name for value in graph.input}]
    outputs = list({value.name: value for value in outputs}.values())
    needed = {value.name for value in outputs}
    kept = []
    for node in reversed(graph.node):  # nodes stand in the order of computation
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    inputs = [_renamed(known[name], new) for name, new in given.items() if new in needed]
    inputs += [value for value in graph.input if value.name in needed]
    kept = [NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(kept)
    graph.input.extend(inputs)
    graph.output.extend(outputs)
    return model.SerializeToString(deterministic=True)


class _Walk:
    """One walk over an ONNX graph beside the layers of the TFLite file."""

    def __init__(self, graph: GraphProto, rows: Sequence[Layer]) -> None:
        self.rows, self.found = rows, {}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.producers = {output: node for node in graph.node for output in node.output}
        self.pictures = [value.name for value in graph.input if value.name not in self.constants]
        self.logits = graph.output[0].name

    def places(self) -> list[Place]:
        waiting = [(*self._read(self.logits), len(self.rows) - 1)]
        while waiting:
            tensor, dequantize, position = waiting.pop()
            picture = tensor in self.pictures
            if picture != (position == -1) and not (picture and self.rows[position].operator == "QUANTIZE"):
                raise self._other(position)
            if position == -1:
                continue
            place = self.found.get(position)
            if place is not None and place.tensor != tensor:
                raise self._other(position)
            if place is None:
                place = self.found[position] = Place(tensor)
                waiting += self._sources(place, position)
            if dequantize is not None and dequantize.output[0] not in {node.output[0] for node in place.dequantize}:
                place.dequantize.append(dequantize)
        if missing := [row.name for position, row in enumerate(self.rows) if position not in self.found]:
            raise BadInput(f"the ONNX file has no layer {missing[0]}: its structure is not that of the TFLite file; export both again")
        for place in self.found.values():
            nodes = [*place.dequantize, *([] if place.quantize is None else [place.quantize])]
            place.grids = tuple(dict.fromkeys(grid for node in nodes if (grid := self._grid(node)) is not None))
            place.unsigned = any(self.constants[node.input[2]].data_type == TensorProto.UINT8 for node in nodes if len(node.input) > 2)
        return [self.found[position] for position in range(len(self.rows))]

    def _read(self, name: str) -> tuple[str, NodeProto | None]:
        """Return the tensor that stands behind what an operator reads, and the node that reads it as numbers."""
        dequantize, at = None, name
        while (node := self.producers.get(at)) is not None:
            if node.op_type == "DequantizeLinear" and dequantize is None:
                dequantize = node
            elif node.op_type not in LAYOUT:
                break
            at = node.input[0]
        return at, dequantize

    def _sources(self, place: Place, position: int):
        """Yield (tensor, the node that reads it, layer) of everything that the operator which makes `place` reads."""
        wanted, node = self.rows[position].reads, self.producers.get(place.tensor)
        while node is not None and node.op_type in FUSED:
            if node.op_type == "QuantizeLinear" and place.quantize is None:
                place.quantize = node
            behind = self.producers.get(node.input[0])
            if behind is None or behind.op_type == "DequantizeLinear":
                break
            node = behind
        while node is not None and node.op_type in ("Add", "Mul", "Sub", "Div") and len(wanted) == 1 and len(self._active(node)) == 1:
            node = self.producers.get(self._active(node)[0])  # a bias or a scale beside a product
        read = [] if node is None else [self._read(name) for name in self._active(node)]
        if len(read) != len(wanted) and place.tensor not in self.pictures:
            raise self._other(position)
        return [(*one, layer) for one, layer in zip(read, wanted)]

    def _active(self, node: NodeProto) -> list[str]:
        """Return the inputs of `node` that depend on the picture."""
        return [name for name in node.input if name and not self._constant(name)]

    def _constant(self, name: str) -> bool:
        """Return whether `name` depends on constants alone."""
        waiting, seen = [name], set()
        while waiting:
            name = waiting.pop()
            node = self.producers.get(name)
            if node is None and name not in self.constants:
                return False
            if node is not None and name not in seen:
                waiting += [source for source in node.input if source]
            seen.add(name)
        return True

    def _grid(self, node: NodeProto) -> Grid | None:
        parameters = [self.constants.get(name) for name in node.input[1:]]
        if len(parameters) < 2 or any(tensor is None or numpy_helper.to_array(tensor).size != 1 for tensor in parameters):
            return None
        scale, zero_point = (numpy_helper.to_array(tensor).reshape(()) for tensor in parameters)
        return Grid(float(scale), int(zero_point) - (SIGN if zero_point.dtype == np.uint8 else 0))

    def _other(self, position: int) -> BadInput:
        name = self.rows[position].name if position >= 0 else "the picture"
        return BadInput(f"the ONNX file has something else where the TFLite file has {name}: export both again")


def _types(model: ModelProto) -> dict[str, ValueInfoProto]:
    """Return the type and shape of every value."""
    graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    return {value.name: value for value in (*graph.value_info, *graph.input, *graph.output)}


def _renamed(value: ValueInfoProto, name: str) -> ValueInfoProto:
    copied = ValueInfoProto.FromString(value.SerializeToString())
    copied.name = name
    return copied


def _impose(graph: GraphProto, node: NodeProto, grid: Grid, unsigned: bool) -> None:
    """Give a DequantizeLinear a grid of its own."""
    scale, zero_point = f"{node.output[0]}_given_scale", f"{node.output[0]}_given_zero_point"
    value = np.uint8(grid.zero_point + SIGN) if unsigned else np.int8(grid.zero_point)
    graph.initializer.extend([numpy_helper.from_array(np.float32(grid.scale), scale), numpy_helper.from_array(value, zero_point)])
    node.input[:] = [node.input[0], scale, zero_point]
