"""Keras to TFLite, with the names and the census that the bundle promises.

In: a network with fixed batch 1 (float, or fake-quantized for int8), and for int8 after training the pictures
to calibrate on. Out: the bytes of a ``.tflite`` file with input `image` and output `logits`.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from melanoma_edge.contract import INPUT_NAME, INTEGER, OUTPUT_NAME, Precision, Quantization, Tensor
from melanoma_edge.convert.reading import whole
from melanoma_edge.errors import BadInput, ProofFailed

IDENTIFIER = b"TFL3"
HYBRID = {"CONV_2D": (5, "2.4.0"), "FULLY_CONNECTED": (12, "2.17.0")}
"""Version of each operator that takes float inputs and per-channel int8 weights, and the first runtime that knows
it, as TensorFlow's converter writes them. An older runtime then refuses the file instead of computing something else."""
LEAST_WEIGHTS = 4096
"""Layers with fewer weights stay float in dynamic-range artifacts. On the nine-class ISIC set this made
the error of the logits a third smaller than the converter's choice (1,024, depthwise layers included)
for a tenth more bytes. Where no layer has as many, the largest is quantized all the same, so that the file is what its name says."""


def convert(model, precision: Precision, pictures: np.ndarray | None = None) -> bytes:
    """Return `model` (``tf_keras.Model``, batch 1) as TFLite of the given precision.

    int8 wants a fake-quantized model, int8-ptq a float one and `pictures` (uint8 [n, size, size, 3], with 0 and 255 among
    their bytes) on which the ranges of activations are measured; the input of both becomes uint8 with scale 1 and zero
    point 0, their output stays float32. float16 keeps weights as float16, dynamic as int8 (:func:`quantize_weights`).
    Raises ProofFailed where the input came out otherwise.
    """
    import tensorflow as tf

    from melanoma_edge.model.tensorflow import quiet

    converter = converter_of(model)
    if precision == "float16" or precision in INTEGER:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision in INTEGER:
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.float32
    if precision == "int8-ptq":
        converter.representative_dataset = lambda: ([picture[np.newaxis].astype(np.float32)] for picture in pictures)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]  # what has no integer kernel is refused, not left float
    with quiet():
        content = converter.convert()
    content = _rename(content)
    if precision in INTEGER:
        _require_bytes(content)
    return quantize_weights(content) if precision == "dynamic" else content


def converter_of(model):
    """Return TensorFlow's converter for `model` (``tf_keras.Model``, one input).

    It begins at the one traced function and its variables. ``from_keras_model`` comes to the same operators and constants by way of a SavedModel
    that also holds every layer, with functions of its own: four times as long.
    """
    import tensorflow as tf

    [taken] = model.inputs
    traced = tf.function(lambda image: model(image, training=False), input_signature=[tf.TensorSpec(taken.shape, taken.dtype, name=INPUT_NAME)])
    held = tf.Module()
    held.variables_of_the_model = model.variables
    return tf.lite.TFLiteConverter.from_concrete_functions([traced.get_concrete_function()], held)


def quantize_weights(content: bytes) -> bytes:
    """Return a float32 TFLite file with the large weights as int8: dynamic-range quantization.

    Convolutions and dense layers of at least LEAST_WEIGHTS weights get symmetric per-channel int8
    weights; the runtime quantizes their inputs as they come. Weights that another kind of operator reads too
    stay float. The converter's own version also takes the
    depthwise and the small early layers, which hold few bytes and most of the error.
    """
    from ai_edge_litert import schema_py_generated as schema

    graph, model = unpack(content)
    hybrid = {getattr(schema.BuiltinOperator, name): known for name, known in HYBRID.items()}
    able = _quantizable(graph, model, set(hybrid))
    least = min(LEAST_WEIGHTS, max((_weights(graph, model, position).size for position in able), default=0))
    for position, readers in able.items():
        tensor, weights = graph.tensors[position], _weights(graph, model, position)
        if weights.size < least:
            continue
        channels = weights.reshape(len(weights), -1)  # the output channel is the first axis of both kinds
        scales = (np.maximum(np.abs(channels).max(axis=1), np.finfo(np.float32).tiny) / 127).astype(np.float32)
        quantized = np.clip(np.rint(channels / scales[:, None]), -127, 127).astype(np.int8)
        # A buffer of its own: equal weights share one, which other tensors still read as float32.
        tensor.buffer = len(model.buffers)
        model.buffers.append(schema.BufferT(data=np.frombuffer(quantized.tobytes(), np.uint8)))
        tensor.type = schema.TensorType.INT8
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = scales, np.zeros(len(scales), np.int64)
        for operator in readers:
            if hasattr(operator.builtinOptions, "asymmetricQuantizeInputs"):
                operator.builtinOptions.asymmetricQuantizeInputs = True
            version, runtime = hybrid[builtin(model, operator)]
            operator.opcodeIndex = operator_code(model, builtin(model, operator), version)
            _raise_runtime_version(model, runtime)
    _drop_unread(graph, model)
    return pack(model, len(content))


def _quantizable(graph, model, kinds: set[int]) -> dict[int, list]:
    """Return {position of a tensor: the operators of `kinds` that have it as weights}, each tensor once, in the order of the graph.

    Only float32 constants that nothing else reads, and that are no output.
    """
    from ai_edge_litert import schema_py_generated as schema

    found: dict[int, list] = {}
    others = {int(index) for index in graph.outputs}
    for operator in graph.operators:
        weights = int(operator.inputs[1]) if builtin(model, operator) in kinds else None
        for place, index in enumerate(operator.inputs):
            if place == 1 and index == weights:
                found.setdefault(weights, []).append(operator)
            else:
                others.add(int(index))
    stored = {position: model.buffers[graph.tensors[position].buffer].data for position in found}
    return {
        position: readers
        for position, readers in found.items()
        if position not in others and graph.tensors[position].type == schema.TensorType.FLOAT32 and stored[position] is not None and len(stored[position])
    }


def _drop_unread(graph, model) -> None:
    """Empty the buffers that no tensor and no metadata points to any more; their positions stay."""
    old = model.metadataBuffer  # where files had metadata before it had names
    used = {tensor.buffer for tensor in graph.tensors} | {entry.buffer for entry in model.metadata or []} | {int(place) for place in (old if old is not None else ())}
    for position, buffer in enumerate(model.buffers):
        if position not in used:
            buffer.data = None


def _weights(graph, model, position: int) -> np.ndarray:
    """Return the float32 weights in the tensor at `position`, output channels first."""
    tensor = graph.tensors[position]
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32).reshape([int(size) for size in tensor.shape])


def tensors(content: bytes) -> tuple[Tensor, Tensor, float | None]:
    """Return the input, the output and the quantum of the logits (None for float models) of a TFLite file.

    Raises BadInput when it is not one whole model with one input and one output.
    """
    with whole("TFLite"):
        return _tensors(content)


def _tensors(content: bytes) -> tuple[Tensor, Tensor, float | None]:
    graph, _ = unpack(content)
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise BadInput(f"the TFLite model has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs: expected one of each")
    return _tensor(graph, graph.inputs[0]), _tensor(graph, graph.outputs[0]), _quantum(graph)


def census(content: bytes) -> tuple[dict[str, int], dict[str, int]]:
    """Return ({operator: count}, {data type: bytes of constant tensors}) of a TFLite file; raises BadInput for a damaged one."""
    with whole("TFLite"):
        return _census(content)


def _census(content: bytes) -> tuple[dict[str, int], dict[str, int]]:
    from ai_edge_litert import schema_py_generated as schema

    graph, model = unpack(content)
    operator_names = names(schema.BuiltinOperator)
    type_names = names(schema.TensorType)
    operators: Counter[str] = Counter()
    for operator in graph.operators:
        operators[operator_names[builtin(model, operator)]] += 1
    weights: Counter[str] = Counter()
    for tensor in graph.tensors:
        data = model.buffers[tensor.buffer].data
        if data is not None and len(data):
            weights[type_names[tensor.type].lower()] += len(data)
    return dict(sorted(operators.items())), dict(sorted(weights.items()))


def last_operators(content: bytes) -> list[str]:
    """Return the operators on the way back from the output, the last one first, as far as each has one input that is computed."""
    from ai_edge_litert import schema_py_generated as schema

    graph, model = unpack(content)
    called, producers = names(schema.BuiltinOperator), {output: operator for operator in graph.operators for output in operator.outputs}
    found, tensor = [], graph.outputs[0]
    while tensor in producers and len(found) < len(graph.operators):
        operator = producers[tensor]
        found.append(called[builtin(model, operator)])
        tensor = operator.inputs[0]
    return found


def named(content: bytes) -> bytes:
    """Return the file with input and output tensors, and its signature, named as the contract says."""
    return _rename(content)


def _require_bytes(content: bytes) -> None:
    """Raise ProofFailed unless the input takes a picture's bytes as they are: uint8, scale exactly 1, zero point 0."""
    taken, _, _ = tensors(content)
    if (taken.dtype, taken.quantization) != ("uint8", Quantization(scale=1.0, zero_point=0)):
        raise ProofFailed(
            f"the converter made an input of {taken.dtype} with {taken.quantization or 'no quantization'}: expected uint8, scale 1 and "
            "zero point 0; give calibration pictures with black and white in them"
        )


def _rename(content: bytes) -> bytes:
    """Return the file with input and output tensors, and its signature, named as the contract says."""
    graph, model = unpack(content)
    graph.tensors[graph.inputs[0]].name = INPUT_NAME.encode()
    graph.tensors[graph.outputs[0]].name = OUTPUT_NAME.encode()
    for signature in model.signatureDefs or []:
        signature.inputs[0].name = INPUT_NAME.encode()
        signature.outputs[0].name = OUTPUT_NAME.encode()
    return pack(model, len(content))


def pack(model, size: int) -> bytes:
    """Return the bytes of an unpacked model of about `size` bytes."""
    import flatbuffers

    builder = flatbuffers.Builder(size + 1024)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def builtin(model, operator) -> int:
    """Return the builtin code of an operator (old files keep it in the deprecated field)."""
    code = model.operatorCodes[operator.opcodeIndex]
    return max(code.builtinCode, code.deprecatedBuiltinCode)


def operator_code(model, builtin: int, version: int) -> int:
    """Return the index of the operator code of this builtin and version, added where there is none."""
    from ai_edge_litert import schema_py_generated as schema

    for index, code in enumerate(model.operatorCodes):
        if (max(code.builtinCode, code.deprecatedBuiltinCode), code.version) == (builtin, version):
            return index
    # The deprecated field is one byte; its largest value, PLACEHOLDER_FOR_GREATER_OP_CODES, says to read the other.
    model.operatorCodes.append(schema.OperatorCodeT(builtinCode=builtin, deprecatedBuiltinCode=min(builtin, 127), version=version))
    return len(model.operatorCodes) - 1


def _raise_runtime_version(model, version: str) -> None:
    """Raise the lowest runtime version that can run the model, where its metadata states one, to `version`."""
    for entry in model.metadata or []:
        stated = bytes(model.buffers[entry.buffer].data).rstrip(b"\0").decode("ascii", "replace")
        if entry.name == b"min_runtime_version" and _ordinal(stated) < _ordinal(version):
            model.buffers[entry.buffer].data = np.frombuffer(version.encode().ljust(16, b"\0"), np.uint8)


def _ordinal(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))


def unpack(content: bytes):
    """Return (the only subgraph, the model) of a TFLite file, unpacked; raises BadInput for other files."""
    from ai_edge_litert import schema_py_generated as schema

    if content[4:8] != IDENTIFIER:
        raise BadInput("the file is not a TFLite model (its identifier is missing): export it again")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    if len(model.subgraphs) != 1:
        raise BadInput(f"the TFLite model has {len(model.subgraphs)} subgraphs: expected 1")
    return model.subgraphs[0], model


def _tensor(graph, position: int) -> Tensor:
    from ai_edge_litert import schema_py_generated as schema

    tensor = graph.tensors[position]
    dtype = {schema.TensorType.UINT8: "uint8", schema.TensorType.INT8: "int8", schema.TensorType.FLOAT32: "float32"}.get(tensor.type)
    if dtype is None:
        raise BadInput(f"tensor {tensor.name.decode()} has type {names(schema.TensorType)[tensor.type]}: expected UINT8, INT8 or FLOAT32")
    return Tensor(
        name=tensor.name.decode(), dtype=dtype, shape=tuple(int(size) for size in tensor.shape), quantization=_quantization(tensor)
    )


def _quantum(graph) -> float | None:
    """Return the scale of the quantized logits: what the final DEQUANTIZE reads."""
    for operator in graph.operators:
        if list(operator.outputs) == list(graph.outputs):
            quantization = _quantization(graph.tensors[operator.inputs[0]])
            if len(operator.inputs) == 1 and quantization is not None:
                return quantization.scale
    return None


def _quantization(tensor) -> Quantization | None:
    found = tensor.quantization
    if found is None or found.scale is None or len(found.scale) != 1:
        return None
    return Quantization(scale=float(np.float32(found.scale[0])), zero_point=int(found.zeroPoint[0]))


def names(enumeration) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if not name.startswith("_")}
