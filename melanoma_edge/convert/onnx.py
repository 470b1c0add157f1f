"""Keras and TFLite to ONNX.

In: the float network, or the finished int8 ``.tflite``. Out: the bytes of an ``.onnx`` file with input
`image`, in either order of axes, and output `logits`. The int8 graph is made from the TFLite file, not from the
quantization-aware Keras model: only that way the per-channel int8 weights and all scales are the same.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from melanoma_edge.contract import INPUT_NAME, OUTPUT_NAME, Layout, Tensor
from melanoma_edge.convert.reading import whole
from melanoma_edge.errors import BadInput

OPSET = 17


def from_keras(model, size: int, layout: Layout = "NHWC") -> bytes:
    """Return the float network (``tf_keras.Model``, batch 1, side `size`) as float32 ONNX with an input of `layout`."""
    import tensorflow as tf
    import tf2onnx

    from melanoma_edge.model.tensorflow import quiet

    with quiet():
        proto, _ = tf2onnx.convert.from_keras(
            model, input_signature=[tf.TensorSpec((1, size, size, 3), tf.float32, name=INPUT_NAME)], opset=OPSET
        )
    return _finish(proto, layout)


def from_tflite(content: bytes, layout: Layout = "NHWC") -> bytes:
    """Return an int8 TFLite file (its bytes) as ONNX with QuantizeLinear/DequantizeLinear pairs and an input of `layout`."""
    import tf2onnx

    from melanoma_edge.convert.onnx_rewrites import for_integer_kernels
    from melanoma_edge.model.tensorflow import quiet

    with tempfile.TemporaryDirectory() as folder, quiet():
        file = Path(folder) / "model.tflite"
        file.write_bytes(content)
        proto, _ = tf2onnx.convert.from_tflite(str(file), opset=OPSET)
    for_integer_kernels(proto.graph)
    return _finish(proto, layout)


def with_properties(content: bytes, properties: dict[str, str]) -> bytes:
    """Return the ONNX file with `properties` as its metadata_props, readable by any ONNX tool."""
    import onnx

    proto = onnx.load_from_string(content)
    onnx.helper.set_model_props(proto, dict(sorted(properties.items())))
    return proto.SerializeToString(deterministic=True)


def tensors(content: bytes) -> tuple[Tensor, Tensor]:
    """Return the input and the output of an ONNX file; raises BadInput when there is not one of each, or the file is damaged."""
    with whole("ONNX"):
        return _tensors(content)


def _tensors(content: bytes) -> tuple[Tensor, Tensor]:
    import onnx

    graph = onnx.load_from_string(content).graph
    initializers = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initializers]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise BadInput(f"the ONNX model has {len(inputs)} inputs and {len(graph.output)} outputs: expected one of each")
    return _tensor(inputs[0]), _tensor(graph.output[0])


def quantum(content: bytes) -> float | None:
    """Return the scale of the quantized logits: that of the DequantizeLinear which gives the output. Raises as `tensors` does."""
    with whole("ONNX"):
        return _quantum(content)


def _quantum(content: bytes) -> float | None:
    import onnx

    graph = onnx.load_from_string(content).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    last = next((node for node in graph.node if graph.output[0].name in node.output), None)
    if last is None or last.op_type != "DequantizeLinear" or last.input[1] not in constants:
        return None
    return float(onnx.numpy_helper.to_array(constants[last.input[1]]))


def last_operators(content: bytes) -> list[str]:
    """Return the operators on the way back from the output, the last one first, by their first inputs."""
    import onnx

    graph = onnx.load_from_string(content).graph
    producers = {output: node for node in graph.node for output in node.output}
    found, tensor = [], graph.output[0].name
    while tensor in producers and len(found) < len(graph.node):
        found.append(producers[tensor].op_type)
        tensor = next(iter(producers[tensor].input), "")
    return found


def census(content: bytes) -> tuple[dict[str, int], dict[str, int]]:
    """Return ({operator: count}, {data type: bytes of constants}) of an ONNX file; raises BadInput for a damaged one."""
    with whole("ONNX"):
        return _census(content)


def _census(content: bytes) -> tuple[dict[str, int], dict[str, int]]:
    import onnx

    graph = onnx.load_from_string(content).graph
    operators = Counter(node.op_type for node in graph.node)
    weights: Counter[str] = Counter()
    held = [attribute.t for node in graph.node if node.op_type == "Constant" for attribute in node.attribute if attribute.name == "value"]
    for tensor in (*graph.initializer, *held):
        weights[onnx.TensorProto.DataType.Name(tensor.data_type).lower()] += onnx.numpy_helper.to_array(tensor).nbytes
    return dict(sorted(operators.items())), dict(sorted(weights.items()))


def _finish(proto, layout: Layout = "NHWC") -> bytes:
    """Give the graph an input of `layout`, check it and return its bytes, free of anything that changes from run to run."""
    from melanoma_edge.convert.onnx_rewrites import channels_first_input

    names = [value.name for value in (*proto.graph.input, *proto.graph.output)]
    if names != [INPUT_NAME, OUTPUT_NAME]:
        raise BadInput(f"the converter named input and output {names}: expected {[INPUT_NAME, OUTPUT_NAME]}")
    if layout == "NCHW":
        _canonical(proto.graph)
        channels_first_input(proto.graph)
    return stable(proto)


def stable(proto) -> bytes:
    """Return a checked model's bytes, everything inside it ordered and named by structure alone; input and output keep their names.

    For graphs without subgraphs. Raises what onnx.checker raises.
    """
    import onnx

    _canonical(proto.graph)
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString(deterministic=True)


def _canonical(graph) -> None:
    """Order and name everything inside `graph` by its structure alone.

    tf2onnx numbers names with a counter of the process and orders some nodes by hash, so the same
    model would give other bytes every time. Nodes are visited depth first from the output, inputs in
    order, and named by operator and visit; constants by first use. What is not reached is dropped.
    """
    producers = {output: node for node in graph.node for output in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    names = {value.name: value.name for value in (*graph.input, *graph.output)}
    nodes, used, done = [], [], set()
    waiting = [(value.name, False) for value in reversed(graph.output)]
    while waiting:  # a stack of its own: networks may be deeper than Python's
        name, read = waiting.pop()
        node = producers.get(name)
        if read:  # what the node reads has been visited
            node.name = f"{node.op_type}_{len(nodes)}"
            for position, output in enumerate(node.output):
                names.setdefault(output, f"{node.name}_output_{position}" if output else "")
            nodes.append(node)
            continue
        if name in constants and name not in names:
            names[name] = f"constant_{len(used)}"
            used.append(constants[name])
        if node is None or id(node) in done:
            continue
        done.add(id(node))
        waiting.append((name, True))
        waiting += [(source, False) for source in reversed(node.input)]
    for node in nodes:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names[name] for name in node.output]
        attributes = sorted(node.attribute, key=lambda attribute: attribute.name)
        kept = [type(attribute).FromString(attribute.SerializeToString()) for attribute in attributes]
        del node.attribute[:]
        node.attribute.extend(kept)
        node.ClearField("doc_string")
        if not node.domain:  # whether an empty one is written depends on the order in which tf2onnx goes over the nodes, which is another every time
            node.ClearField("domain")
    ordered = [type(node).FromString(node.SerializeToString()) for node in nodes]
    tensors = [type(tensor).FromString(tensor.SerializeToString()) for tensor in used]
    for tensor in tensors:
        tensor.name = names[tensor.name]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(ordered)
    graph.initializer.extend(tensors)
    graph.name, graph.doc_string = "melanoma-edge", ""


def _tensor(value) -> Tensor:
    import onnx

    kind = value.type.tensor_type
    dtype = {onnx.TensorProto.UINT8: "uint8", onnx.TensorProto.INT8: "int8", onnx.TensorProto.FLOAT: "float32"}.get(kind.elem_type)
    if dtype is None:
        raise BadInput(f"tensor {value.name} has type {onnx.TensorProto.DataType.Name(kind.elem_type)}: expected UINT8, INT8 or FLOAT")
    return Tensor(name=value.name, dtype=dtype, shape=tuple(dim.dim_value for dim in kind.shape.dim))
