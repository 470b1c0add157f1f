"""Probabilities in the graph, for consumers that show scores as they come.

In: a finished TFLite file that gives float32 logits, with its temperature and class priors. Out: the same network to the
bit, followed by float32 operators that turn its logits into probabilities. The quantized part is not
touched, so an int8 file loses nothing by it: a softmax in 8 bits would know 256 probabilities only.
"""

from __future__ import annotations

import numpy as np

from melanoma_edge.convert import tflite
from melanoma_edge.errors import BadInput

OUTPUT_NAME = "probabilities"
SUFFIX = "-probabilities"
"""Such a file is named after the artifact that it was made from, with this before the extension."""


def file_name(artifact: str) -> str:
    """Return the name of the second file of the artifact called `artifact`."""
    stem, dot, extension = artifact.rpartition(".")
    return f"{stem}{SUFFIX}{dot}{extension}"


def with_probabilities(content: bytes, temperature: float, training: np.ndarray, deployment: np.ndarray) -> bytes:
    """Return the TFLite file with its logits replaced by calibrated probabilities, float32 [1, classes].

    They are softmax(logits / temperature + log(deployment / training)), with class priors [classes] that each sum to 1:
    what :func:`melanoma_edge.calibration.probabilities` computes. Raises BadInput for a file without one float32
    output [1, classes].
    """
    from ai_edge_litert import schema_py_generated as schema

    graph, model = tflite.unpack(content)
    _, output, _ = tflite.tensors(content)
    if output.dtype != "float32" or output.shape != (1, len(training)):
        raise BadInput(f"the TFLite model gives {output.name}, {output.dtype} {list(output.shape)}: expected float32 logits [1, {len(training)}]")

    def tensor(name: str, values: np.ndarray | None = None) -> int:
        added = schema.TensorT(name=name.encode(), type=schema.TensorType.FLOAT32, buffer=0, shape=np.int32(output.shape))
        if values is not None:
            added.buffer, added.shape = len(model.buffers), np.int32(values.shape)
            model.buffers.append(schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8)))
        graph.tensors.append(added)
        return len(graph.tensors) - 1

    def operator(name: str, inputs: list[int], output: int, options) -> None:
        kind = type(options).__name__.removesuffix("T")
        code = tflite.operator_code(model, getattr(schema.BuiltinOperator, name), 1)
        made = schema.OperatorT(opcodeIndex=code, inputs=np.int32(inputs), outputs=np.int32([output]))
        made.builtinOptionsType, made.builtinOptions = getattr(schema.BuiltinOptions, kind), options
        graph.operators.append(made)

    current = int(graph.outputs[0])
    scaled = tensor("logits_scaled")
    operator("MUL", [current, tensor("one_over_temperature", np.float32([1 / temperature]))], scaled, schema.MulOptionsT())
    current, shift = scaled, (np.log(deployment) - np.log(training)).astype(np.float32)
    if np.ptp(shift) > 0:  # a softmax does not see what is added to all alike
        moved = tensor("logits_corrected")
        operator("ADD", [current, tensor("log_prior_ratio", shift.reshape(1, -1))], moved, schema.AddOptionsT())
        current = moved
    final = tensor(OUTPUT_NAME)
    operator("SOFTMAX", [current], final, schema.SoftmaxOptionsT(beta=1.0))
    graph.outputs = np.int32([final])
    for signature in model.signatureDefs or []:
        signature.outputs[0].name, signature.outputs[0].tensorIndex = OUTPUT_NAME.encode(), final
    return tflite.pack(model, len(content))
