"""The models that the roofline is measured with: single convolutions, and a network cut after each of its operators.

In: shapes, or the bytes of a TFLite file. Out: the bytes of TFLite files, and what each operator of a network is and how many multiply-accumulates it has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melanoma_edge.convert import layers, tflite

KINDS = ("entry", "stem", "pointwise", "depthwise", "addition", "head")
"""What operators of a network are, as far as cost goes. Head: everything from the pooling on."""
NAMED = {"QUANTIZE": "entry", "DEQUANTIZE": "entry", "DEPTHWISE_CONV_2D": "depthwise", "ADD": "addition"}


@dataclass(frozen=True)
class Convolution:
    """A convolution of stride 1 that keeps the size of its input."""

    side: int
    taken: int
    given: int
    kernel: int = 1

    @property
    def multiply_accumulates(self) -> int:
        return self.side**2 * self.taken * self.given * self.kernel**2

    def __str__(self) -> str:
        return f"{self.kernel} x {self.kernel}, {self.taken} to {self.given} channels, {self.side} x {self.side} pixels"


SHAPES = (
    Convolution(14, 1024, 1024), Convolution(28, 512, 512), Convolution(28, 1024, 1024), Convolution(56, 256, 256), Convolution(56, 512, 512), Convolution(88, 256, 256),
    Convolution(28, 256, 256, 3), Convolution(56, 128, 128, 3),
)  # fmt: skip
"""Large ones, of 0.2 to 0.9 thousand million multiply-accumulates, from those whose weights are larger than any cache near the core to those whose pictures are."""


@dataclass(frozen=True)
class Operator:
    """One operator of a network."""

    name: str
    kind: str
    operator: str
    shape: tuple[int, ...]
    multiply_accumulates: int


def single(shape: Convolution, precision: str) -> bytes:
    """Return a TFLite file of one convolution with random weights, float32 or int8 (per-channel weights, int8 in and out)."""
    from ai_edge_litert import schema_py_generated as schema

    random, types, integer = np.random.default_rng(1), schema.TensorType, precision == "int8"
    weights = random.integers(-127, 128, (shape.given, shape.kernel, shape.kernel, shape.taken))
    bias = random.integers(-1000, 1000, shape.given)
    scale, picture = 1e-3, [1, shape.side, shape.side]
    model = schema.ModelT(version=3, buffers=[schema.BufferT()], operatorCodes=[])
    model.operatorCodes.append(schema.OperatorCodeT(builtinCode=schema.BuiltinOperator.CONV_2D, deprecatedBuiltinCode=schema.BuiltinOperator.CONV_2D, version=3 if integer else 1))
    graph = schema.SubGraphT(tensors=[], operators=[], inputs=[0], outputs=[3])
    model.subgraphs = [graph]

    def tensor(name: str, kind: int, sizes: list[int], values: np.ndarray | None = None, scales: list[float] = ()) -> None:
        added = schema.TensorT(name=name, type=kind, shape=sizes, buffer=0)
        if integer:
            added.quantization = schema.QuantizationParametersT(scale=scales, zeroPoint=[0] * len(scales), quantizedDimension=0)
        if values is not None:
            added.buffer = len(model.buffers)
            model.buffers.append(schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8)))
        graph.tensors.append(added)

    activations, whole = (types.INT8, types.INT32) if integer else (types.FLOAT32, types.FLOAT32)
    tensor("picture", activations, [*picture, shape.taken], scales=[0.05])
    tensor("weights", activations, list(weights.shape), weights.astype(np.int8) if integer else (weights * scale).astype(np.float32), [scale] * shape.given)
    tensor("bias", whole, [shape.given], bias.astype(np.int32) if integer else (bias * scale).astype(np.float32), [0.05 * scale] * shape.given)
    tensor("result", activations, [*picture, shape.given], scales=[0.1])
    options = schema.Conv2DOptionsT(padding=schema.Padding.SAME, strideW=1, strideH=1, dilationWFactor=1, dilationHFactor=1)
    graph.operators.append(schema.OperatorT(opcodeIndex=0, inputs=[0, 1, 2], outputs=[3], builtinOptionsType=schema.BuiltinOptions.Conv2DOptions, builtinOptions=options))
    return tflite.pack(model, weights.size * 4)


def operators(content: bytes) -> list[Operator]:
    """Return the operators of a TFLite network, in the order in which they run."""
    from ai_edge_litert import schema_py_generated as schema

    graph, model = tflite.unpack(content)
    names, called = tflite.names(schema.BuiltinOperator), {layer.index: layer.name for layer in layers.layers(content)}
    found, pooled = [], False
    for position, operator in enumerate(graph.operators):
        name = names[tflite.builtin(model, operator)]
        shape = tuple(int(size) for size in graph.tensors[operator.outputs[0]].shape)
        weights = [int(size) for size in graph.tensors[operator.inputs[1]].shape] if name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED") else None
        pooled = pooled or name == "MEAN"
        kind = "head" if pooled else NAMED.get(name, "head")
        if name == "CONV_2D" and not pooled:
            kind = "pointwise" if weights[1:3] == [1, 1] else "stem"
        title = called.get(int(operator.outputs[0])) or ("bytes" if position == 0 else name.lower())
        pixels = shape[1] * shape[2] if len(shape) == 4 else 1
        found.append(Operator(title, kind, name, shape, 0 if weights is None else int(np.prod(weights)) * pixels))
    return found


def prefixes(content: bytes) -> list[bytes]:
    """Return the network cut after its first operator, after its second, ... and whole."""
    found = []
    for count in range(1, len(tflite.unpack(content)[0].operators) + 1):
        graph, model = tflite.unpack(content)
        graph.operators = graph.operators[:count]
        graph.outputs = list(graph.operators[-1].outputs)
        model.signatureDefs = []
        found.append(tflite.pack(model, len(content)))
    return found
