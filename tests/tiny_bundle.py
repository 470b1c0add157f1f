"""Models of one matrix product, and a whole bundle of them, built by hand without TensorFlow.

Every model computes :func:`numpy_logits`, so that tests know the right answer.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from PIL import Image

from melanoma_edge import NOTICE
from melanoma_edge.contract import Manifest
from melanoma_edge.data.image import load
from melanoma_edge.files import sha256_file, to_json

SIZE = 32
CLASSES = ("melanoma", "nevus", "vascular lesion")

_random = np.random.default_rng(5)
WEIGHTS = (_random.standard_normal((len(CLASSES), SIZE * SIZE * 3)) / 1000).astype(np.float32)
BIAS = _random.standard_normal(len(CLASSES)).astype(np.float32)


def pictures(count: int) -> np.ndarray:
    """Return random pictures, uint8 [count, SIZE, SIZE, 3]."""
    return np.random.default_rng(count).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def numpy_logits(images: np.ndarray) -> np.ndarray:
    """Return what every model here computes."""
    return images.reshape(len(images), -1).astype(np.float32) @ WEIGHTS.T + BIAS


def tflite(dtype: str, shape: tuple[int, ...] = (1, SIZE, SIZE, 3)) -> bytes:
    """Return a `.tflite` model with an input of `dtype` (uint8 or float32) and `shape`."""
    kinds = {"uint8": schema.TensorType.UINT8, "float32": schema.TensorType.FLOAT32}
    model = schema.ModelT(version=3, buffers=[schema.BufferT()], operatorCodes=[])
    graph = schema.SubGraphT(tensors=[], operators=[], inputs=[0], outputs=[3])
    model.subgraphs = [graph]

    def tensor(name: str, dtype: str, shape: tuple[int, ...], values: np.ndarray | None = None) -> int:
        added = schema.TensorT(name=name, type=kinds[dtype], shape=list(shape), buffer=0)
        if dtype == "uint8":
            added.quantization = schema.QuantizationParametersT(scale=[1.0], zeroPoint=[0])
        if values is not None:
            added.buffer = len(model.buffers)
            model.buffers.append(schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8)))
        graph.tensors.append(added)
        return len(graph.tensors) - 1

    def operator(code: int, inputs: list[int], output: int, **options: object) -> None:
        model.operatorCodes.append(schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=code))
        graph.operators.append(schema.OperatorT(opcodeIndex=len(graph.operators), inputs=inputs, outputs=[output], **options))

    image = tensor("image", dtype, shape)
    weights, bias = tensor("weights", "float32", WEIGHTS.shape, WEIGHTS), tensor("bias", "float32", BIAS.shape, BIAS)
    logits = tensor("logits", "float32", (1, len(CLASSES)))
    if dtype == "uint8":
        real = tensor("real", "float32", shape)
        operator(schema.BuiltinOperator.DEQUANTIZE, [image], real)
        image = real
    options = schema.FullyConnectedOptionsT()
    operator(
        schema.BuiltinOperator.FULLY_CONNECTED,
        [image, weights, bias],
        logits,
        builtinOptionsType=schema.BuiltinOptions.FullyConnectedOptions,
        builtinOptions=options,
    )
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def onnx(dtype: str, shape: tuple[int | str, ...] = (1, SIZE, SIZE, 3), *, endless: bool = False) -> bytes:
    """Return an `.onnx` model with an input of `dtype` and `shape`; an `endless` one loops 2^62 times."""
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["real"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["product" if endless else "logits"], transB=1),
    ]
    initializers = [numpy_helper.from_array(WEIGHTS, "weights"), numpy_helper.from_array(BIAS, "bias")]
    if endless:
        initializers += [numpy_helper.from_array(np.array(2**62, np.int64), "trips"), numpy_helper.from_array(np.array(True), "on")]
        nodes.append(_endless_loop())
    kind = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}[dtype]
    image = helper.make_tensor_value_info("image", kind, shape)
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, len(CLASSES)))
    model: ModelProto = helper.make_model(
        helper.make_graph(nodes, "tiny", [image], [logits], initializers), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    return model.SerializeToString()


def _endless_loop() -> NodeProto:
    """Return a Loop that adds `product` to itself."""
    values = [
        helper.make_tensor_value_info("turn", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("state", TensorProto.FLOAT, (1, len(CLASSES))),
    ]
    results = [
        helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
        helper.make_tensor_value_info("sum", TensorProto.FLOAT, (1, len(CLASSES))),
    ]
    steps = [helper.make_node("Identity", ["go"], ["goes"]), helper.make_node("Add", ["state", "state"], ["sum"])]
    return helper.make_node("Loop", ["trips", "on", "product"], ["logits"], body=helper.make_graph(steps, "body", values, results))


def write_bundle(folder: Path) -> Path:
    """Write a sealed bundle with two `.tflite` and one `.onnx` artifact and two golden pictures."""
    (folder / "golden").mkdir(parents=True)
    models = {
        ("float32", "tflite"): ("float32", tflite("float32")),
        ("int8", "tflite"): ("uint8", tflite("uint8")),
        ("float32", "onnx"): ("float32", onnx("float32")),
    }
    artifacts = []
    for (precision, extension), (dtype, content) in models.items():
        name = f"tiny-{precision}.{extension}"
        (folder / name).write_bytes(content)
        artifacts.append(_artifact(folder / name, extension, precision, dtype))
    golden = {"schema_version": 1, "pictures": [], "logits": {}}
    inputs = []
    for index, image in enumerate(np.random.default_rng(1).integers(0, 256, (2, 60, 48, 3), np.uint8)):
        file = folder / "golden" / f"{index}.png"
        Image.fromarray(image).save(file)
        inputs.append(load(file, SIZE))
        golden["pictures"].append({"file": f"golden/{file.name}", "input_sha256": hashlib.sha256(inputs[-1].tobytes()).hexdigest()})
    for artifact in artifacts:
        golden["logits"][artifact["name"]] = numpy_logits(np.stack(inputs)).tolist()
    (folder / "golden" / "golden.json").write_text(to_json(golden), encoding="utf-8")
    (folder / "seen.txt").write_text("", encoding="utf-8")
    files = {file.relative_to(folder).as_posix(): sha256_file(file) for file in sorted(folder.rglob("*")) if file.is_file()}
    (folder / "manifest.json").write_text(to_json(_manifest(artifacts, files)), encoding="utf-8")
    return folder


def _artifact(file: Path, extension: str, precision: str, dtype: str) -> dict:
    decision = {"temperature": 1.0, "threshold": None, "abstention": {"coverage": 0.9, "threshold": 0.4}}
    quantization = {"scale": 1.0, "zero_point": 0} if dtype == "uint8" else None
    return {
        "name": file.name,
        "path": file.name,
        "format": extension,
        "precision": precision,
        "sha256": sha256_file(file),
        "bytes": file.stat().st_size,
        "input": {"name": "image", "dtype": dtype, "shape": [1, SIZE, SIZE, 3], "quantization": quantization},
        "output": {"name": "logits", "dtype": "float32", "shape": [1, len(CLASSES)]},
        "quantum": 0.01 if precision == "int8" else None,
        "operators": {},
        "weight_bytes": {"float32": WEIGHTS.nbytes + BIAS.nbytes},
        "decision": decision,
        "scores": None,
    }


def _manifest(artifacts: list[dict], files: dict[str, str]) -> dict:
    even = {name: 1 / len(CLASSES) for name in CLASSES}
    manifest = {
        "name": "tiny",
        "notice": NOTICE,
        "tool_versions": {},
        "recipe": {"name": "tiny", "image_size": SIZE},
        "classes": CLASSES,
        "positive_class": "melanoma",
        "input": {"width": SIZE, "height": SIZE},
        "priors": {"training": even, "deployment": even},
        "artifacts": artifacts,
        "weights": {"float": "0" * 64, "qat": "0" * 64},
        "data": {"sha256": "0" * 64, "pictures": {}, "lesions": {}, "with_lesion_id": {}, "left_out_classes": [], "calibration_sha256": "0" * 64},
        "licence": "none",
        "files": files,
    }
    return Manifest.model_validate_json(to_json(manifest)).model_dump(mode="json")
