"""Small rewrites of ONNX graphs that change no result: for integer kernels, and for another order of the input's axes.

In: a graph of QuantizeLinear/DequantizeLinear pairs as tf2onnx makes it from an int8 TFLite file (for the
input's axes any graph of its), edited in place. Each rewrite is one function and exact: the same numbers, differently written. What a
rewrite leaves without use stays in the graph; :func:`melanoma_edge.convert.onnx._canonical` drops it.

Why: ONNX Runtime turns an operator between pairs into its integer kernel only where the types of its
input and output match. The picture comes as uint8 and the activations as int8, so the first
convolution, the pooling and the dense layer stayed float; on a trained network that put 4 to 5 % of the
logits a quantum or two from the TFLite file. As rewritten every operator is integer, and none differs.
"""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, numpy_helper

from melanoma_edge.errors import BadInput

_SIGN = 128
"""What added to an int8 zero point, and to every int8 value, gives the uint8 that stands for the same number."""


def for_integer_kernels(graph: GraphProto) -> None:
    """Apply every rewrite of this module, in the order in which they build on each other."""
    unsigned_activations(graph)
    drop_requantization(graph)
    own_parameters(graph)


def unsigned_activations(graph: GraphProto) -> None:
    """Make every int8 activation uint8: its zero point moves up by 128 with all its values.

    Weights stay int8, symmetric around zero. ONNX Runtime does the same on x86 by itself, but only for
    a QuantizeLinear that its DequantizeLinear follows at once, and so leaves operators of mixed types.
    """
    constants = _constants(graph)
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.input[0] in constants or len(node.input) < 3:
            continue
        zero_point = constants[node.input[2]]
        if zero_point.data_type == TensorProto.INT8:
            name = f"{zero_point.name}_unsigned"
            if name not in constants:
                constants[name] = numpy_helper.from_array(
                    (numpy_helper.to_array(zero_point).astype(np.int16) + _SIGN).astype(np.uint8), name
                )
                graph.initializer.append(constants[name])
            node.input[2] = name


def drop_requantization(graph: GraphProto) -> None:
    """Join DequantizeLinear followed by QuantizeLinear of the same scale, zero point and type: they undo each other."""
    constants = _constants(graph)
    producers = {output: node for node in graph.node for output in node.output}
    same: dict[str, str] = {}
    for node in graph.node:
        before = producers.get(node.input[0]) if node.input else None
        if node.op_type == "QuantizeLinear" and before is not None and before.op_type == "DequantizeLinear":
            if _grid(node, constants) is not None and _grid(node, constants) == _grid(before, constants):
                same[node.output[0]] = before.input[0]
    for node in graph.node:
        for position, name in enumerate(node.input):
            while name in same:
                name = same[name]
            node.input[position] = name


def own_parameters(graph: GraphProto) -> None:
    """Give every weight's DequantizeLinear a scale and a zero point that no other node uses.

    tf2onnx shares equal constants. With ONNX Runtime's `session.x64quantprecision`, which x86 processors
    without VNNI need (:mod:`melanoma_edge.runtimes.ort`), a zero point of two weights made loading fail.
    """
    constants = _constants(graph)
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            for position, name in enumerate(node.input[1:], 1):
                own = TensorProto()
                own.CopyFrom(constants[name])
                own.name = f"{node.input[0]}_{'scale' if position == 1 else 'zero_point'}_of_{node.output[0]}"
                graph.initializer.append(own)
                node.input[position] = own.name


CHANNELS_FIRST = [0, 3, 1, 2]
"""The transpose with which tf2onnx brings a picture [1, H, W, 3] into ONNX's own order, [1, 3, H, W]."""


def channels_first_input(graph: GraphProto) -> None:
    """Let the input be [1, 3, H, W] instead of [1, H, W, 3]: the transpose behind it goes, and no other comes.

    For a graph without unused nodes. Raises BadInput where something else than that transpose reads the picture: then the graph would need another one.
    """
    [image] = [value for value in graph.input if value.name not in _constants(graph)]
    readers = [node for node in graph.node if image.name in node.input]
    turned = [node for node in readers if _permutation(node) == CHANNELS_FIRST]
    if not readers or len(turned) < len(readers):
        found = ", ".join(sorted({node.op_type for node in readers if node not in turned})) or "nothing"
        raise BadInput(f"the picture goes into {found} before its axes are turned, so NCHW would cost more than it saves: export with --layout nhwc")
    outputs = {node.output[0] for node in turned}
    for node in graph.node:
        node.input[:] = [image.name if name in outputs else name for name in node.input]
    for node in turned:
        graph.node.remove(node)
    sizes = image.type.tensor_type.shape.dim
    for size, value in zip(sizes, [sizes[axis].dim_value for axis in CHANNELS_FIRST]):
        size.dim_value = value


def _permutation(node: NodeProto) -> list[int] | None:
    """Return how a Transpose orders its axes; None for another operator, and for one that says nothing."""
    return next((list(attribute.ints) for attribute in node.attribute if node.op_type == "Transpose" and attribute.name == "perm"), None)


def _grid(node: NodeProto, constants: dict[str, TensorProto]) -> tuple | None:
    """Return what decides which number an integer stands for; None where it is computed or lies along an axis."""
    parameters = [constants.get(name) for name in node.input[1:]]
    if len(parameters) < 2 or any(tensor is None or tensor.dims for tensor in parameters):
        return None
    scale, zero_point = map(numpy_helper.to_array, parameters)
    return float(scale), int(zero_point), zero_point.dtype


def _constants(graph: GraphProto) -> dict[str, TensorProto]:
    return {tensor.name: tensor for tensor in graph.initializer}
