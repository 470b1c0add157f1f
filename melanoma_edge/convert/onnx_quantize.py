"""A float32 ONNX file quantized after training, by ONNX Runtime's own quantizer.

In: the bytes of a float32 ONNX file for one picture, uint8 pictures, and the input contract that was declared. Out: the bytes of an int8 ONNX
file of QuantizeLinear/DequantizeLinear pairs: int8 weights, symmetric and per channel, and uint8 activations, whose ranges are the least and
greatest values that the pictures gave. Unsigned because ONNX Runtime has all integer kernels for them: with int8 activations a MobileNetV2
kept 15 of 52 convolutions in float, and the other form of file (QOperator) could not be loaded. Least and greatest because on the
trained nine-class ISIC network they gave 30.0 dB against float32, percentiles 29.3 dB and entropy 29.2 dB.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from melanoma_edge.contract import InputContract, Layout
from melanoma_edge.convert import onnx as onnx_files
from melanoma_edge.data.input_table import look_up, table
from melanoma_edge.errors import BadInput

OPERATORS = (
    "AveragePool", "Clip", "Concat", "Conv", "Flatten", "Gather", "Gemm", "GlobalAveragePool", "LeakyRelu", "MatMul", "MaxPool", "Pad", "Relu", "Reshape",
    "Resize", "Sigmoid", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
"""What ONNX Runtime's CPU provider computes, or moves, in integers, less Add and Mul. A sum of two convolutions it computes in integers
anyway; the chains of sums and products in hard-swish lose by every step of rounding, and its kernels round them differently from processor to
processor: with them a MobileNetV3 gave other answers in a browser (25 % of the pictures), without them the same ones."""
HEADS = ("Softmax", "LogSoftmax", "Sigmoid")
"""Operators that end a network in probabilities: in steps of 1/256 these would be useless for decisions, so they stay float."""
MOVES = ("Flatten", "Identity", "Reshape", "Squeeze")
STEPS = (255, 254, 253, 252)
"""Steps of the picture's grid between the ends of the declared range, the plain one first."""
PER_CHANNEL_OPSET = 13
"""From here on DequantizeLinear has an axis."""


def quantized(content: bytes, pictures: np.ndarray, contract: InputContract, layout: Layout) -> bytes:
    """Return the float32 ONNX file `content` (one picture in `layout`) as int8, ranges measured on `pictures`.

    `pictures` are uint8 [n, height, width, 3]; the file gets them as `contract` declares. Where that is the bytes as they are, the int8 file takes
    uint8; else float32, as the file did. Same bytes for the same arguments on one machine. Raises BadInput for what cannot be quantized.
    """
    import onnx

    proto = _opset(onnx.load_from_string(content))
    _refuse_branches(proto.graph)
    taken, _ = onnx_files.tensors(content)
    values = table(contract, taken.dtype, taken.quantization)
    with tempfile.TemporaryDirectory(prefix="melanoma-edge-") as folder:
        source, target = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        fused = _fused(proto, Path(folder))
        source.write_bytes(fused.SerializeToString(deterministic=True))
        feeds = ({taken.name: look_up(np.asarray(picture)[np.newaxis], values, channels=contract.channels, layout=layout)} for picture in pictures)
        declared = {taken.name: [input_range(values)]} if taken.dtype == "float32" else {}  # whatever the pictures hold
        _quantize(source, target, feeds, _head(fused.graph), declared)
        proto = onnx.load(target)
    if not any(tensor.data_type == onnx.TensorProto.INT8 for tensor in proto.graph.initializer):
        raise BadInput("it holds no convolution and no dense layer of constant float32 weights: leave out --calibrate")
    if contract.raw:
        take_bytes(proto.graph)
    return _tidied(proto)


def input_range(values: np.ndarray) -> dict[str, np.float32]:
    """Return the range {rmin, rmax} of the picture's grid for the float32 `values` [3, 256] that bytes become: that on which rounding costs least.

    From their least to, or a little beyond, their greatest. Of a range such as -1 to 1 every value lies half way between two steps of the plain grid,
    where the last bit of the arithmetic decides; with a step of 2/254 none does. Bytes as they are keep their own grid, which costs nothing.
    """
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)

    def cost(steps: int) -> float:
        scale = (high - low) / steps
        zero_point = round(-low / scale)
        taken = np.clip(np.rint(values.astype(np.float64) / scale) + zero_point, 0, 255)
        return float(np.square((taken - zero_point) * scale - values).mean())

    steps = min(STEPS, key=cost)
    return {"rmin": np.float32(low), "rmax": np.float32(high + (high - low) * (STEPS[0] - steps) / steps)}


def take_bytes(graph) -> None:
    """Let the picture come in as uint8 where nothing but QuantizeLinear with scale 1 and zero point 0 reads it: these go.

    Exact for numbers 0..255; any other graph stays as it is.
    """
    import onnx

    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    [image] = [value for value in graph.input if value.name not in constants]
    readers = [node for node in graph.node if image.name in node.input]
    for node in readers:
        grid = [constants.get(name) for name in node.input[1:]]
        if node.op_type != "QuantizeLinear" or len(grid) != 2 or any(value is None or value.size != 1 for value in grid):
            return
        if (float(grid[0].item()), int(grid[1].item()), grid[1].dtype) != (1.0, 0, np.uint8):
            return
    outputs = {node.output[0] for node in readers}
    for node in graph.node:
        node.input[:] = [image.name if name in outputs else name for name in node.input]
    for node in readers:
        graph.node.remove(node)
    image.type.tensor_type.elem_type = onnx.TensorProto.UINT8


def _opset(proto):
    """Return the model in an opset that can say what per-channel weights are; raises BadInput where it cannot be brought there."""
    import onnx

    version = next((found.version for found in proto.opset_import if found.domain in ("", "ai.onnx")), onnx_files.OPSET)
    if version >= PER_CHANNEL_OPSET:
        return proto
    try:
        return onnx.version_converter.convert_version(proto, onnx_files.OPSET)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"it is of opset {version}, and cannot be brought to {onnx_files.OPSET} ({reason}): export it with opset {PER_CHANNEL_OPSET} or later") from None


def _refuse_branches(graph) -> None:
    import onnx

    for node in graph.node:
        if any(attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for attribute in node.attribute):
            raise BadInput(f"it holds the control flow {node.op_type}: export it without, from a network in inference mode")


def _fused(proto, folder: Path):
    """Return the model with constants folded and BatchNormalization in the convolutions before it, every node named by structure.

    Left alone, a BatchNormalization would stay float and cut its convolution off from integer kernels.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "fused.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load_from_string(_tidied(onnx.load(options.optimized_model_filepath)))


def _tidied(proto) -> bytes:
    """Return the model's bytes, free of what changes from run to run, of constants listed as inputs and of opsets that no node uses."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    for value in [value for value in proto.graph.input if value.name in constants]:
        proto.graph.input.remove(value)
    used = {node.domain for node in proto.graph.node}
    for opset in [opset for opset in proto.opset_import if opset.domain not in ("", "ai.onnx") and opset.domain not in used]:
        proto.opset_import.remove(opset)
    return onnx_files.stable(proto)


def _head(graph) -> list[str]:
    """Return the names of the nodes from the softmax or sigmoid that ends the network on; empty where none does."""
    producers = {output: node for node in graph.node for output in node.output}
    found, node = [], producers.get(graph.output[0].name)
    while node is not None:
        found.append(node.name)
        if node.op_type in HEADS:
            return found
        node = producers.get(node.input[0]) if node.op_type in MOVES else None
    return []


def _quantize(source: Path, target: Path, feeds: Iterator[dict[str, np.ndarray]], excluded: list[str], ranges: dict) -> None:
    package = "onnxruntime.quantization"
    if package not in sys.modules:
        # Its __init__ imports a shape inference that nothing here calls, and which needs sympy (70 MB): the package is entered without it.
        sys.modules[package] = importlib.util.module_from_spec(importlib.util.find_spec(package))
    from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod
    from onnxruntime.quantization.quant_utils import QuantFormat, QuantType
    from onnxruntime.quantization.quantize import quantize_static

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(feeds, None)

    quantize_static(
        str(source),
        str(target),
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(OPERATORS),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=excluded,
        calibrate_method=CalibrationMethod.MinMax,
        # Transposes and reshapes of the picture itself are integer too, so that bytes can go in.
        extra_options={"ForceQuantizeNoInputCheck": True, "TensorQuantOverrides": ranges},
    )
