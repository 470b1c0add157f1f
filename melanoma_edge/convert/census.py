"""Whether an artifact is what its name says, judged by the operators and the types of the weights in the file itself.

In: the bytes of a TFLite or ONNX file and the precision that it claims. Out: what contradicts the claim, in
words. No runtime is asked: what a runtime makes of the file is for the gates to say.
"""

from __future__ import annotations

from collections.abc import Iterator

from melanoma_edge.contract import Format, Precision
from melanoma_edge.convert import tflite
from melanoma_edge.errors import ProofFailed

KERNELS = {
    "tflite": {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1, "CONV_3D": 1, "BATCH_MATMUL": 1},
    "onnx": {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1},
}
"""The operators that hold a network's weights, and which of their inputs these are."""
INTEGERS = ("INT8", "UINT8", "INT32", "INT64")
CLIPS = ("Clip", "Relu")
"""What ONNX Runtime fuses with the convolution before and the quantization after it."""
SHOWN = 3
"""Contradictions that a message lists; the rest is counted."""


def require(name: str, content: bytes, fmt: Format, precision: Precision) -> None:
    """Raise ProofFailed, with the first contradictions, unless the file called `name` is of the precision that it claims."""
    found = contradictions(content, fmt, precision)
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise ProofFailed(
            f"{name} is not what its name says: {'; '.join(found[:SHOWN])}{more}; expected {EXPECTED[fmt, _kind(precision)]}; "
            "export again, or without this precision"
        )


def contradictions(content: bytes, fmt: Format, precision: Precision) -> list[str]:
    """Return everything in a TFLite or ONNX file that contradicts `precision`, in the order of the graph; empty where all fits.

    Raises BadInput for a TFLite file that is none.
    """
    return list((_tflite if fmt == "tflite" else _onnx)(content, _kind(precision)))


EXPECTED = {
    ("tflite", "float32"): "float32 weights and activations only",
    ("tflite", "float16"): "float16 weights in every convolution and dense layer",
    ("tflite", "dynamic"): "int8 weights in some layers, and float32 activations",
    ("tflite", "int8"): "integers only in every convolution and dense layer",
    ("onnx", "float32"): "float32 weights and activations only",
    ("onnx", "int8"): "int8 weights and a DequantizeLinear/QuantizeLinear pair around every convolution and dense layer",
}


def _kind(precision: str) -> str:
    """Return which rules hold: int8 is int8, however it came about."""
    return precision.partition("-")[0]


def _tflite(content: bytes, kind: str) -> Iterator[str]:
    from ai_edge_litert import schema_py_generated as schema

    graph, model = tflite.unpack(content)
    operators, types = tflite.names(schema.BuiltinOperator), tflite.names(schema.TensorType)
    constant = [model.buffers[tensor.buffer].data is not None and len(model.buffers[tensor.buffer].data) > 0 for tensor in graph.tensors]
    halves = {  # float32 tensors that are nothing but float16 constants written out
        int(operator.outputs[0])
        for operator in graph.operators
        if operators[tflite.builtin(model, operator)] == "DEQUANTIZE"
        and constant[operator.inputs[0]]
        and types[graph.tensors[operator.inputs[0]].type] == "FLOAT16"
    }
    weights = []
    for operator in graph.operators:
        name = operators[tflite.builtin(model, operator)]
        if name not in KERNELS["tflite"]:
            continue
        place = f"{name} {_text(graph.tensors[operator.outputs[0]].name)}"
        position = int(operator.inputs[KERNELS["tflite"][name]])
        found = "FLOAT16" if position in halves else types[graph.tensors[position].type]
        weights.append(found)
        if kind == "int8":
            used = [types[graph.tensors[index].type] for index in (*operator.inputs, *operator.outputs) if index >= 0]
            wrong = [found for found in used if found not in INTEGERS]
            if wrong:
                yield f"{place} computes with {wrong[0]}"
            elif found != "INT8":
                yield f"{place} has {found} weights"
        elif found not in {"float32": ("FLOAT32",), "float16": ("FLOAT16",), "dynamic": ("FLOAT32", "INT8")}[kind]:
            yield f"{place} has {found} weights"
    if not weights:
        yield "there is no convolution and no dense layer in it"
    if kind == "dynamic" and weights and "INT8" not in weights:
        yield "no layer has INT8 weights"
    if kind != "int8":
        for tensor, fixed in zip(graph.tensors, constant):
            found = types[tensor.type]
            if found in ("INT8", "UINT8", "INT16") and not (fixed and kind == "dynamic"):
                yield f"the tensor {_text(tensor.name)} is {found}"


def _onnx(content: bytes, kind: str) -> Iterator[str]:
    import onnx

    graph = onnx.load_from_string(content).graph
    constants = {tensor.name: onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    readers: dict[str, list] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    kernels = 0
    for node in graph.node:
        if kind == "float32" and ("Quantize" in node.op_type or node.op_type.startswith(("QLinear", "Dequantize"))):
            yield f"{node.op_type} {node.name} quantizes"
        if node.op_type not in KERNELS["onnx"]:
            kernels += node.op_type.startswith(("QLinear", "QGemm"))  # integers already, whatever stands around it
            continue
        kernels += 1
        place, taken = f"{node.op_type} {node.name}", KERNELS["onnx"][node.op_type]
        if kind == "float32":
            if (found := constants.get(node.input[taken], "computed")) != "FLOAT":
                yield f"{place} has {found} weights"
            continue
        if not _dequantized(node.input[0], producers):
            yield f"{place} reads what no DequantizeLinear gives"
        elif (found := _stored(node.input[taken], producers, constants)) != "INT8":
            yield f"{place} has {found} weights"
        elif not _quantized(node.output[0], readers):
            yield f"{place} gives what no QuantizeLinear reads"
    if not kernels:
        yield "there is no convolution and no dense layer in it"


def _dequantized(name: str, producers: dict) -> bool:
    return name in producers and producers[name].op_type == "DequantizeLinear"


def _stored(name: str, producers: dict, constants: dict[str, str]) -> str:
    """Return the type in which weights stand in the file, seen through a DequantizeLinear and what only moves them."""
    while name in producers and producers[name].op_type in ("DequantizeLinear", "Transpose", "Reshape"):
        name = producers[name].input[0]
    return constants.get(name, "computed")


def _quantized(name: str, readers: dict) -> bool:
    """Whether every reader of `name`, behind at most one clip, is a QuantizeLinear."""
    found = readers.get(name, [])
    if len(found) == 1 and found[0].op_type in CLIPS:
        found = readers.get(found[0].output[0], [])
    return bool(found) and all(node.op_type == "QuantizeLinear" for node in found)


def _text(name: bytes | None) -> str:
    """Return a tensor's name, short, as one line."""
    text = (name or b"").decode("utf-8", "replace")
    return repr(text if len(text) <= 60 else text[:59] + "…")[1:-1]
