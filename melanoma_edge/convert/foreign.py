"""Models of somebody else's: what is in a file, and what can be made of it.

In: a Keras, ONNX or TFLite file. Out: artifacts in a folder, and their facts as JSON. Everything here is called in a process of
its own (:func:`melanoma_edge.runtimes.process.run_call`): converters and parsers may crash on what strangers wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from melanoma_edge.contract import InputContract, Precision, Tensor
from melanoma_edge.convert import census
from melanoma_edge.convert import onnx as onnx_files
from melanoma_edge.convert import tflite as tflite_files
from melanoma_edge.convert.foreign_facts import foreign_facts
from melanoma_edge.convert.tflite_entry import quicken
from melanoma_edge.convert.tflite_metadata import with_metadata
from melanoma_edge.errors import BadInput, Error
from melanoma_edge.files import explained
from melanoma_edge.model import keras_file

SAME = frozenset({"RESHAPE", "SQUEEZE", "DEQUANTIZE", "QUANTIZE", "CAST", "Reshape", "Squeeze", "Flatten", "Identity", "Cast", "DequantizeLinear", "QuantizeLinear"})
"""Operators behind the last one that computes: they change shape or type only."""
ENDS = {"SOFTMAX": "softmax", "Softmax": "softmax", "LOGISTIC": "sigmoid", "Sigmoid": "sigmoid"}


def look(file: str, size: int | None) -> dict[str, Any]:
    """Return the facts of a Keras file: `size`, `classes`, `written_by`. Raises BadInput for one that is not to be loaded, or of another form."""
    network, said = keras_file.read(Path(file), size)
    return {"size": network.input_shape[1], "classes": network.output_shape[-1], **said}


def convert_keras(file: str, size: int, wanted: Sequence[tuple[str, str, str]], folder: str, contract: dict, calibration: str | None, properties: dict[str, str], said: dict) -> dict[str, Any]:
    """Write each of `wanted` (format, precision, file name) made from the Keras file into `folder`; return {file name: facts}.

    `calibration` is a `.npy` file of pictures, uint8 [n, size, size, 3], for int8-ptq. ONNX files carry `properties`, TFLite files what
    :func:`melanoma_edge.convert.foreign_facts.foreign_facts` makes of `said`. Raises BadInput where a converter refuses the network.
    """
    from melanoma_edge.model.tensorflow import require

    require()
    import tf_keras as keras

    keras.backend.clear_session()
    network = keras_file.load(Path(file), size)
    found, declared = {}, InputContract(**_tuples(contract))
    for fmt, precision, name in wanted:
        target = Path(folder) / name
        try:
            with explained(target):
                if fmt == "onnx":
                    content = onnx_files.with_properties(onnx_files.from_keras(network, size), properties)
                elif precision == "int8-ptq":
                    content = quicken(quantized(network, np.load(calibration, mmap_mode="r"), declared))
                else:
                    content = tflite_files.convert(network, precision)
                target.write_bytes(content)
        except Error:
            raise
        except Exception as error:
            line = " ".join(str(error).split())[:300]
            raise BadInput(f"{Path(file).name} cannot be converted to {fmt} {precision}: {line}; leave it out with --precision, or give the model as ONNX or TFLite") from None
        found[name] = facts(str(target))
        census.require_foreign(name, content, fmt, precision)
        if fmt == "tflite":
            taken = tflite_files.tensors(content)[0]
            content = with_metadata(content, foreign_facts(said, declared, taken, name, precision, found[name]["ends_in"]))
            with explained(target):
                target.write_bytes(content)
    return found


def quantize_onnx(file: str, target: str, shown: str, layout: str, contract: dict, calibration: str, properties: dict[str, str]) -> dict[str, Any]:
    """Write the float32 ONNX file, one picture at a time in `layout`, to `target` as int8 quantized after training; return its :func:`facts`.

    `calibration` is a `.npy` file of pictures, uint8 [n, size, size, 3], and `shown` what messages call the model. Raises BadInput where the
    quantizer refuses the graph.
    """
    from melanoma_edge.convert import onnx_quantize

    try:
        content = onnx_quantize.quantized(Path(file).read_bytes(), np.load(calibration, mmap_mode="r"), InputContract(**_tuples(contract)), layout)
    except BadInput as error:
        raise BadInput(f"{shown} cannot be quantized to int8 ONNX: {error}") from None
    except Exception as error:
        line = " ".join(str(error).split())[:300] or type(error).__name__
        raise BadInput(f"{shown} cannot be quantized to int8 ONNX: {line}; leave out --calibrate, or give the model in another form") from None
    Path(target).write_bytes(onnx_files.with_properties(content, properties))
    return facts(target)


def quantized(network, pictures: np.ndarray, contract: InputContract) -> bytes:
    """Return the float network (``tf_keras.Model``, batch 1) as int8 TFLite, the ranges of activations measured on `pictures`.

    `pictures` are uint8 [n, size, size, 3]. uint8 in, with the scale and zero point that cover the declared range, float32 out.
    """
    import tensorflow as tf

    from melanoma_edge.data.input_table import look_up, table
    from melanoma_edge.model.tensorflow import quiet

    values = table(contract)

    def fed():
        first = np.array(pictures[0])
        first[0, 0], first[0, 1] = 0, 255  # in every channel: the input's range is what was declared, whatever the pictures hold
        for picture in (first, *pictures[1:]):
            yield [look_up(np.asarray(picture)[None], values, channels=contract.channels)]

    converter = tflite_files.converter_of(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = fed
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.float32
    with quiet():
        return tflite_files.named(converter.convert())


def facts(file: str, shown: str | None = None) -> dict[str, Any]:
    """Return what an artifact holds, as JSON: `input`, `output`, `quantum`, `operators`, `weight_bytes`, `layout`, `precision`, `ends_in`.

    `shown` is what messages call it. Raises BadInput unless it maps one picture [1, side, side, 3] or [1, 3, side, side] to one row of numbers.
    """
    path = Path(file)
    shown, content = shown or path.name, path.read_bytes()
    if path.suffix.lower() == ".tflite":
        try:
            taken, given, quantum = tflite_files.tensors(content)
            operators, weights = tflite_files.census(content)
            last = tflite_files.last_operators(content)
        except BadInput as error:
            raise BadInput(f"{shown}: {error}") from None
        except Exception as error:
            raise BadInput(f"{shown} is damaged or no TFLite model ({type(error).__name__}): export it again") from None
    else:
        (taken, given), quantum = onnx_files.tensors(content), onnx_files.quantum(content)
        operators, weights = onnx_files.census(content)
        last = onnx_files.last_operators(content)
    end = next((name for name in last if name not in SAME), "")
    return {
        "input": taken.model_dump(mode="json"),
        "output": given.model_dump(mode="json"),
        "layout": layout_of(taken, given, shown),
        "quantum": given.quantization.scale if given.quantization else quantum,
        "operators": operators,
        "weight_bytes": weights,
        "precision": precision_of(weights, operators, taken),
        "ends_in": ENDS.get(end),
    }


def layout_of(taken: Tensor, given: Tensor, name: str) -> str:
    """Return NHWC or NCHW as the shape of the input says; raises BadInput for other shapes, and where both fit."""
    shape = taken.shape
    described = f"{name} maps {list(shape)} {taken.dtype} to {list(given.shape)} {given.dtype}"
    last, first = len(shape) == 4 and shape[3] == 3, len(shape) == 4 and shape[1] == 3
    if last and first:
        raise BadInput(f"{described}: its layout is ambiguous, both axis 1 and axis 3 have length 3; export it with pictures larger than 3 pixels")
    if not (last or first) or shape[0] != 1 or len(given.shape) != 2 or given.shape[0] != 1 or min(shape) < 1:
        raise BadInput(f"{described}: expected one picture [1, side, side, 3] or [1, 3, side, side] and one row of numbers [1, classes]; export it in that form")
    if given.dtype != "float32" and given.quantization is None:
        raise BadInput(f"{described}: a whole-number output needs a scale and zero point; export it with a float32 output")
    if taken.dtype == "int8" and taken.quantization is None:
        raise BadInput(f"{described}: an int8 input needs a scale and zero point in the file, which ONNX has no place for; export it with a float32 or uint8 input")
    return "NHWC" if last else "NCHW"


def precision_of(weights: dict[str, int], operators: dict[str, int], taken: Tensor) -> Precision:
    """Return the precision that describes a file best, by the types of its constants and of what flows through it.

    Mostly whole-number weights: int8 where activations are quantized, too (there are QUANTIZE operators, or the input is), else dynamic.
    """
    whole = sum(size for kind, size in weights.items() if kind in ("int8", "uint8", "int4", "int16"))
    half = weights.get("float16", 0)
    single = weights.get("float32", 0)
    if whole > max(half, single):
        quantizes = taken.dtype != "float32" or any(name in operators for name in ("QUANTIZE", "QuantizeLinear", "QLinearConv", "QLinearMatMul"))
        return "int8" if quantizes else "dynamic"
    return "float16" if half > single else "float32"


def fix_onnx(file: str, size: int | None, target: str) -> dict[str, Any]:
    """Check an ONNX file and write it to `target` for one picture at a time; return `size`, `classes`, `changes`, `written_by` and the :func:`facts`.

    The bytes stay as they are where every axis of input and output is fixed already. Raises BadInput for what is no such model, and
    for one that mixes precisions.
    """
    import onnx

    path = Path(file)
    content = path.read_bytes()
    try:
        proto = onnx.load_from_string(content)
        external = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in proto.graph.initializer)
        if not external:
            onnx.checker.check_model(proto)
    except Exception as error:
        raise BadInput(f"{path.name} is damaged or no ONNX model ({' '.join(str(error).split())[:200] or type(error).__name__}): export it again") from None
    if external:
        raise BadInput(f"{path.name} keeps its weights in other files: save it as one file (onnx.save with save_as_external_data=False)")
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in constants]
    if len(inputs) != 1 or len(proto.graph.output) != 1:
        raise BadInput(f"{path.name} has {len(inputs)} inputs and {len(proto.graph.output)} outputs: expected one of each")
    axes = list(inputs[0].type.tensor_type.shape.dim)
    shape = _lengths(axes)
    _refuse_shape(shape, [axis.dim_param for axis in axes], path.name)
    changes = []
    if None in shape:
        sides = slice(1, 3) if shape[3] == 3 else slice(2, 4)
        side = keras_file.side_of(tuple(shape[sides]), size, path.name)
        if shape[0] is None:
            changes.append(f"the batch ({axes[0].dim_param or 'unnamed'}) was fixed to 1")
        if None in shape[sides]:
            changes.append(f"height and width were fixed to {side}")
        for axis, number in zip(axes, [shape[0] or 1, *((side, side, 3) if shape[3] == 3 else (3, side, side))]):
            axis.dim_value = number
    given = proto.graph.output[0].type.tensor_type
    if None in shape or not given.HasField("shape") or None in _lengths(given.shape.dim):
        if not changes:
            changes.append("the lengths of the output's axes were written into it")
        content = _with_shapes(proto, path.name)
    with explained(Path(target)):
        Path(target).write_bytes(content)
    found = facts(target, path.name)
    census.require_foreign(path.name, content, "onnx", found["precision"])
    taken = found["input"]["shape"]
    sides = taken[1:3] if found["layout"] == "NHWC" else taken[2:4]
    return {
        "size": keras_file.side_of(tuple(sides), size, path.name),
        "classes": found["output"]["shape"][1],
        "changes": changes,
        "written_by": " ".join(f"{proto.producer_name} {proto.producer_version}".split()),
        "facts": found,
    }


def _lengths(axes) -> list[int | None]:
    """Return the length of each axis of an ONNX shape, None for one that is open; some exporters write 0 or -1 for that."""
    return [axis.dim_value if axis.HasField("dim_value") and axis.dim_value > 0 else None for axis in axes]


def _refuse_shape(shape: list[int | None], names: list[str], name: str) -> None:
    """Raise BadInput unless the input is [batch, 3, height, width] or [batch, height, width, 3], and not both."""
    if len(shape) == 4 and (shape[1] == 3) != (shape[3] == 3):
        return
    if len(shape) != 4:
        why = "it is no picture"
    elif shape[1] == 3:
        why = "both axis 1 and axis 3 have length 3, so its layout is ambiguous"
    else:
        why = "neither axis 1 nor axis 3 has 3 channels"
    taken = ", ".join(str(number) if number is not None else symbol or "?" for number, symbol in zip(shape, names))
    raise BadInput(f"{name} takes [{taken}], and {why}: expected [batch, 3, side, side] or [batch, side, side, 3]; export it in that form")


def _with_shapes(proto, name: str) -> bytes:
    """Return the model with the shapes that follow from its input; the output's is found by running it once."""
    import onnx
    import onnxruntime

    del proto.graph.value_info[:]
    output = proto.graph.output[0].type.tensor_type
    if output.HasField("shape"):
        output.ClearField("shape")
    try:
        proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        taken = session.get_inputs()[0]
        kinds = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8}
        if taken.type not in kinds:
            raise BadInput(f"{name} takes {taken.type}: expected float32 or uint8; export it with such an input")
        given = session.run(None, {taken.name: np.zeros(taken.shape, kinds[taken.type])})[0]
    except BadInput:
        raise
    except Exception as error:
        raise BadInput(f"{name} does not run with one picture: {' '.join(str(error).split())[:200]}; export it with a fixed batch of 1") from None
    shape = proto.graph.output[0].type.tensor_type.shape
    del shape.dim[:]
    for number in given.shape:
        shape.dim.add().dim_value = number
    return proto.SerializeToString(deterministic=True)


def look_tflite(file: str, size: int | None) -> dict[str, Any]:
    """Return `size`, `classes`, `written_by` and the :func:`facts` of a TFLite file. Raises BadInput for another form."""
    found = facts(file)
    census.require_foreign(Path(file).name, Path(file).read_bytes(), "tflite", found["precision"])
    taken = found["input"]["shape"]
    sides = taken[1:3] if found["layout"] == "NHWC" else taken[2:4]
    return {
        "size": keras_file.side_of(tuple(sides), size, Path(file).name),
        "classes": found["output"]["shape"][1],
        "changes": [],
        "written_by": "",
        "facts": found,
    }


def _tuples(contract: dict) -> dict:
    """Return the contract's JSON with tuples for lists, as the strict model takes them."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in contract.items()}
