"""Whether an artifact is what its name says, judged by the operators and the types of the weights in the file itself.

In: the bytes of a TFLite or ONNX file and the precision that it claims. Out: what contradicts the claim, in
words. No runtime is asked: what a runtime makes of the file is for the gates to say.
"""

from __future__ import annotations

from collections.abc import Iterator

from melanoma_edge.contract import Format, Precision
from melanoma_edge.convert import tflite
from melanoma_edge.convert.reading import whole
from melanoma_edge.errors import BadInput, ProofFailed

KERNELS = {
    "tflite": {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1, "CONV_3D": 1, "BATCH_MATMUL": 1},
    "onnx": {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1},
}
"""The operators that hold a network's weights, and which of their inputs these are."""
INTEGER_KERNELS = ("QLinear", "QGemm")
DYNAMIC_KERNELS = ("ConvInteger", "MatMulInteger", "DynamicQuantizeMatMul")
"""What operators of ONNX that compute in integers are called; those of the second kind quantize activations as they come."""
MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Cast")
"""What may stand between stored weights and the operator that multiplies with them."""
INTEGERS = ("INT8", "UINT8", "INT32", "INT64")
CLIPS = ("Clip", "Relu")
"""What ONNX Runtime fuses with the convolution before and the quantization after it."""
NOTHING = "there is no convolution and no dense layer in it"
SHOWN = 3
"""Contradictions that a message lists; the rest is counted."""


def require(name: str, content: bytes, fmt: Format, precision: Precision) -> None:
    """Raise ProofFailed, with the first contradictions, unless the file called `name` is of the precision that it claims."""
    found = contradictions(content, fmt, precision)
    if found:
        raise ProofFailed(f"{name} is not what its name says: {_first(found)}; expected {EXPECTED[fmt, _kind(precision)]}; export again, or without this precision")


def require_foreign(name: str, content: bytes, fmt: Format, precision: Precision) -> None:
    """Raise BadInput, with the first contradictions, unless somebody else's file called `name` is of the one `precision` that fits it best.

    Networks of others may do without convolutions, and have uint8 weights and a float end behind integers.
    """
    with whole("TFLite" if fmt == "tflite" else "ONNX"):
        found = contradictions(content, fmt, precision, foreign=True)
    if found:
        raise BadInput(
            f"{name} mixes precisions: by most of its weights it is {precision}, but {_first(found)}; expected {EXPECTED[fmt, _kind(precision)]}; "
            "export it in one precision"
        )


def contradictions(content: bytes, fmt: Format, precision: Precision, *, foreign: bool = False) -> list[str]:
    """Return everything in a TFLite or ONNX file that contradicts `precision`, in the order of the graph; empty where all fits.

    With `foreign`, what :func:`require_foreign` lets pass does not count. Raises BadInput for a TFLite file that is none.
    """
    return list((_tflite if fmt == "tflite" else _onnx)(content, _kind(precision), foreign))


def _first(found: list[str]) -> str:
    """Return the first contradictions as a piece of one line."""
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{'; '.join(found[:SHOWN])}{more}"


EXPECTED = {
    ("tflite", "float32"): "float32 weights and activations only",
    ("tflite", "float16"): "float16 weights in every convolution and dense layer",
    ("tflite", "dynamic"): "int8 weights in some layers, and float32 activations",
    ("tflite", "int8"): "integers only in every convolution and dense layer",
    ("onnx", "float32"): "float32 weights and activations only",
    ("onnx", "float16"): "float16 weights in every convolution and dense layer",
    ("onnx", "dynamic"): "int8 weights in some layers, and float32 activations",
    ("onnx", "int8"): "int8 weights and a DequantizeLinear/QuantizeLinear pair around every convolution and dense layer",
}


def _kind(precision: str) -> str:
    """Return which rules hold: int8 is int8, however it came about."""
    return precision.partition("-")[0]


def _tflite(content: bytes, kind: str, foreign: bool) -> Iterator[str]:
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
        if kind == "float16" and found == "FLOAT32" and not constant[position]:
            continue  # two activations multiplied: no weights
        weights.append(found)
        if kind == "int8":
            used = [types[graph.tensors[index].type] for index in (*operator.inputs, *operator.outputs) if index >= 0]
            wrong = [found for found in used if found not in INTEGERS]
            if wrong:
                yield f"{place} computes with {wrong[0]}"
            elif found != "INT8" and not (foreign and found == "UINT8"):
                yield f"{place} has {found} weights"
        elif found not in {"float32": ("FLOAT32",), "float16": ("FLOAT16",), "dynamic": ("FLOAT32", "INT8")}[kind]:
            yield f"{place} has {found} weights"
    if not weights and not foreign:
        yield NOTHING
    if kind == "dynamic" and weights and "INT8" not in weights:
        yield "no layer has INT8 weights"
    if kind != "int8":
        ends = {int(index) for index in (*graph.inputs, *graph.outputs)} if foreign else set()  # float networks of others may take bytes
        for position, (tensor, fixed) in enumerate(zip(graph.tensors, constant)):
            found = types[tensor.type]
            if position in ends or (foreign and (tensor.quantization is None or tensor.quantization.scale is None)):
                continue
            if found in ("INT8", "UINT8", "INT16") and not (fixed and kind == "dynamic"):
                yield f"the tensor {_text(tensor.name)} is {found}"


def _onnx(content: bytes, kind: str, foreign: bool) -> Iterator[str]:
    import onnx

    graph = onnx.load_from_string(content).graph
    constants = {tensor.name: onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = onnx.TensorProto.DataType.Name(node.attribute[0].t.data_type)
    producers = {output: node for node in graph.node for output in node.output}
    readers: dict[str, list] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    kernels, small = 0, 0
    for node in graph.node:
        place = f"{node.op_type} {_text(node.name.encode())}"
        integer = node.op_type.startswith(INTEGER_KERNELS)
        quantizes = integer or node.op_type == "QuantizeLinear"
        if kind in ("float32", "float16") and ("Quantize" in node.op_type or "Dequantize" in node.op_type or integer or node.op_type in DYNAMIC_KERNELS):
            yield f"{place} quantizes"
        elif kind == "dynamic" and quantizes:
            yield f"{place} quantizes activations by a fixed scale"
        elif kind == "int8" and node.op_type in DYNAMIC_KERNELS:
            yield f"{place} quantizes activations as they come"
        small += kind == "dynamic" and node.op_type in DYNAMIC_KERNELS
        if node.op_type not in KERNELS["onnx"]:
            kernels += integer or node.op_type in DYNAMIC_KERNELS  # integers already, whatever stands around it
            continue
        found = _stored(node.input[KERNELS["onnx"][node.op_type]], producers, constants)
        kernels += 1
        if kind == "int8":
            if not _dequantized(node.input[0], producers):
                yield f"{place} reads what no DequantizeLinear gives"
            elif found not in (("INT8", "UINT8", "computed") if foreign else ("INT8",)):
                yield f"{place} has {found} weights"
            elif not foreign and not _quantized(node.output[0], readers):
                yield f"{place} gives what no QuantizeLinear reads"
        elif found not in {"float32": ("FLOAT",), "float16": ("FLOAT16",), "dynamic": ("FLOAT", "INT8", "UINT8")}[kind] and not (foreign and found == "computed"):
            yield f"{place} has {found} weights"
        small += kind == "dynamic" and found in ("INT8", "UINT8")
    if not kernels and not foreign:
        yield NOTHING
    if kind == "dynamic" and kernels and not small:
        yield "no layer has INT8 weights"


def _dequantized(name: str, producers: dict) -> bool:
    return name in producers and producers[name].op_type == "DequantizeLinear"


def _stored(name: str, producers: dict, constants: dict[str, str]) -> str:
    """Return the type in which weights stand in the file, seen through a DequantizeLinear and what only moves them."""
    while name in producers and producers[name].op_type in ("DequantizeLinear", *MOVES):
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
