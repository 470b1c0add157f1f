"""Other people's ONNX files quantized after training: what the command makes of them, read back with onnx and run by ONNX Runtime alone.

The network is of torchvision's kind as its exporter writes it: NCHW, BatchNormalization apart, ReLU6, a residual, Flatten before the dense layer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import Cli, once, read_json, validate
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from own_models import CLASSES, SPELT, drawn
from PIL import Image
from test_export_model_cli import IMAGENET, outcomes, pixels, refused, softmax

from melanoma_edge.contract import EXACT_INTEGERS, InputContract
from melanoma_edge.convert import onnx as onnx_files
from melanoma_edge.convert import onnx_quantize
from melanoma_edge.data import image

SIZE = 32
PER_CLASS = 30
WIDTH = 32
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])

SOUND = ("passed", "inconclusive")
"""Of the gate int8-ptq: from 90 % agreement on it cannot tell, and a random network knows its pictures by a hair."""


def as_imagenet(images: np.ndarray) -> np.ndarray:
    return ((images.astype(np.float32) / np.float32(255) - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)


def as_bytes(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def run_onnx(model: Path | bytes, tensors: np.ndarray, entries: dict[str, str] | None = None) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    session = onnxruntime.InferenceSession(model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: tensor[np.newaxis]})[0] for tensor in tensors])


def network(weights: dict[str, np.ndarray], *, head: Sequence[str] = (), first: Sequence[onnx.NodeProto] = (), opset: int = 11, batch: int | str = 1) -> bytes:
    """Return the network; `first` turns `picture` into `x`, `head` names operators behind the dense layer."""
    nodes = [*first, helper.make_node("Conv", ["x" if first else "picture", "w1"], ["c1"], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)]
    nodes += [helper.make_node("BatchNormalization", ["c1", "g", "b", "m", "v"], ["n1"]), helper.make_node("Clip", ["n1", "zero", "six"], ["r1"])]
    nodes += [helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], kernel_shape=[3, 3], group=WIDTH, pads=[1] * 4), helper.make_node("Relu", ["c2"], ["r2"])]
    nodes += [helper.make_node("Conv", ["r2", "w3"], ["c3"], kernel_shape=[1, 1]), helper.make_node("Add", ["c3", "r1"], ["sum"])]
    nodes += [helper.make_node("GlobalAveragePool", ["sum"], ["p"]), helper.make_node("Flatten", ["p"], ["f"])]
    names = ["d", *(f"h{number}" for number in range(len(head)))]
    nodes += [helper.make_node("Gemm", ["f", "w4", "b4"], ["d"], transB=1), *(helper.make_node(kind, names[i : i + 1], names[i + 1 : i + 2]) for i, kind in enumerate(head))]
    constants = weights | {"zero": np.float32(0), "six": np.float32(6)}
    graph = helper.make_graph(
        nodes,
        "torch-jit-export",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [batch, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, [batch, len(CLASSES)])],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7, producer_name="pytorch").SerializeToString()


def fitted(scaled, **options) -> bytes:
    """Return the network with random weights, its dense layer fitted to drawn pictures that `scaled` turns into tensors."""
    random = np.random.default_rng(4)
    first = scaled(np.full((1, 1, 1, 3), 255, np.uint8)).max()
    weights = {"w1": random.normal(0, 0.3 / first, (WIDTH, 3, 3, 3)), "w2": random.normal(0, 0.3, (WIDTH, 1, 3, 3)), "b2": random.normal(0, 0.1, WIDTH)}
    weights |= {"w3": random.normal(0, 0.3, (WIDTH, WIDTH, 1, 1)), "g": random.uniform(0.5, 2, WIDTH), "b": np.full(WIDTH, 1.0), "m": random.normal(0, 0.1, WIDTH)}
    weights |= {"v": random.uniform(0.5, 2, WIDTH), "w4": np.eye(len(CLASSES), WIDTH), "b4": np.zeros(len(CLASSES))}
    images, labels = drawn(PER_CLASS, 9, SIZE)
    proto = onnx.load_from_string(network(weights))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("f", TensorProto.FLOAT, [1, WIDTH]))
    features = run_onnx(proto.SerializeToString(), scaled(images).astype(np.float32))
    centre = features.mean(axis=0)
    centred, targets = features - centre, 6.0 * (np.eye(len(CLASSES))[labels] - 1 / len(CLASSES))
    solved = np.linalg.solve(centred.T @ centred + 0.1 * np.trace(centred.T @ centred) / WIDTH * np.eye(WIDTH), centred.T @ targets)
    weights |= {"w4": solved.T, "b4": -centre @ solved}
    return network(weights, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net.onnx (ImageNet's numbers), bytes.onnx (0..255, softmax), labels.txt, and `pictures` by class."""

    def make(folder: Path) -> None:
        (folder / "net.onnx").write_bytes(fitted(as_imagenet))
        (folder / "bytes.onnx").write_bytes(fitted(as_bytes, head=["Softmax"], batch="N"))
        (folder / "labels.txt").write_text("\n".join(SPELT))
        for number, (picture, label) in enumerate(zip(*drawn(PER_CLASS, 9, SIZE))):
            (folder / "pictures" / CLASSES[label]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(folder / "pictures" / CLASSES[label] / f"{number}.png")

    return once(tmp_path_factory, "onnx-quantize", make)[0]


def export(cli: Cli, folder: Path, name: str, out: Path, *options: object, **settings) -> Path:
    cli("export", "--model", folder / name, "--classes", folder / "labels.txt", "--calibrate", folder / "pictures", "--out", out, "-q", *options, **settings)
    return out


@pytest.fixture(scope="module")
def bundle(cli: Cli, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(cli, folder, "net.onnx", tmp_path_factory.mktemp("q") / "net.bundle", *IMAGENET)


def test_int8_stands_beside_the_file_and_every_gate_holds(bundle: Path, folder: Path) -> None:
    manifest = read_json(bundle / "manifest.json")
    validate(manifest, "manifest")
    float32, int8 = manifest["artifacts"]
    assert (float32["name"], int8["name"]) == ("net-float32.onnx", "net-int8-ptq.onnx")
    assert (bundle / "net-float32.onnx").read_bytes() == (folder / "net.onnx").read_bytes()
    found = outcomes(bundle)
    assert "failed" not in found.values()
    assert all(found[gate, "net-int8-ptq.onnx", "onnxruntime"] == "passed" for gate in ("golden", "census"))
    assert found["int8-ptq", "net-int8-ptq.onnx", "onnxruntime"] in SOUND
    gates = {(gate["name"], gate["artifact"]): gate for gate in read_json(bundle / "evidence" / "parity.json")["gates"]}
    compared = gates["int8-ptq", "net-int8-ptq.onnx"]  # with the file itself, although an artifact is its very bytes
    assert compared["reference"] == "source" and compared["pictures"] > 200 and compared["figures"]["share_of_range"] > 0
    assert gates["census", "net-int8-ptq.onnx"]["figures"]["in_integers"] == 4
    expected, found = (run_onnx(bundle / name, as_imagenet(drawn(PER_CLASS, 9, SIZE)[0])) for name in (float32["name"], int8["name"]))
    assert (expected**2).sum() > 30 * ((found - expected) ** 2).sum()  # 15 dB; a random network knows its pictures by a hair


def test_the_pictures_that_ranges_were_measured_on_are_recorded(bundle: Path, folder: Path) -> None:
    float32, int8 = read_json(bundle / "manifest.json")["artifacts"]
    hashes = sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in (folder / "pictures").glob("*/*.png"))
    assert int8["calibration"] == {
        "pictures": PER_CLASS * 3, "per_class": dict.fromkeys(CLASSES, PER_CLASS), "sha256": hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
    }  # fmt: skip
    assert float32["calibration"] is None and set(hashes) <= set((bundle / "seen.txt").read_text().split())
    assert f"calibrated on {PER_CLASS * 3} pictures (melanoma {PER_CLASS}" in (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_the_file_holds_symmetric_int8_weights_by_channel_and_unsigned_activations(bundle: Path) -> None:
    proto = onnx.load(bundle / "net-int8-ptq.onnx")
    onnx.checker.check_model(proto, full_check=True)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    assert "BatchNormalization" not in {node.op_type for node in proto.graph.node} and {opset.domain for opset in proto.opset_import} == {""}
    producers = {node.output[0]: node for node in proto.graph.node}
    layers = [node for node in proto.graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(layers) == 4
    for node in layers:
        values, scale, zero = (constants[name] for name in producers[node.input[1]].input)
        assert values.dtype == np.int8 and len(scale) == len(values) and not zero.any()
    for node in proto.graph.node:
        if node.op_type == "QuantizeLinear":
            assert constants[node.input[2]].dtype == np.uint8
    properties = {prop.key: prop.value for prop in proto.metadata_props}
    assert properties["classes"].split("\n") == list(CLASSES) and properties["input"].endswith("NCHW") and "medical" in properties["notice"]
    assert all(tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) <= WIDTH for tensor in proto.graph.initializer)  # scales only


def test_predictions_are_those_of_the_file_run_alone(cli: Cli, bundle: Path, folder: Path) -> None:
    file = next((folder / "pictures" / CLASSES[2]).iterdir())
    logits = run_onnx(bundle / "net-int8-ptq.onnx", as_imagenet(pixels(file)[np.newaxis]), EXACT_INTEGERS)[0]
    [result] = cli("predict", bundle, file, "--artifact", "net-int8-ptq.onnx", "--json").json["results"]
    assert result["probabilities"] == pytest.approx(dict(zip(CLASSES, softmax(logits))), abs=1e-6)
    golden = read_json(bundle / "golden" / "golden.json")
    images = np.stack([image.load(bundle / picture["file"], SIZE) for picture in golden["pictures"]])
    assert np.array_equal(run_onnx(bundle / "net-int8-ptq.onnx", as_imagenet(images), EXACT_INTEGERS), np.float32(golden["logits"]["net-int8-ptq.onnx"]))


def test_raw_bytes_go_in_as_bytes_and_probabilities_come_out_in_float(cli: Cli, folder: Path, tmp_path: Path) -> None:
    out = export(cli, folder, "bytes.onnx", tmp_path / "bytes.bundle")
    manifest = read_json(out / "manifest.json")
    float32, int8 = manifest["artifacts"]
    assert (float32["input"]["dtype"], int8["input"]["dtype"], int8["layout"]) == ("float32", "uint8", "NCHW") and manifest["output"] == "probabilities"
    assert int8["quantum"] is None and outcomes(out)["int8-ptq", int8["name"], "onnxruntime"] in SOUND
    images = drawn(6, 31, SIZE)[0]
    given = run_onnx(out / int8["name"], as_bytes(images))
    assert np.allclose(given.sum(axis=1), 1, atol=1e-6) and not np.allclose(given * 256, np.rint(given * 256), atol=1e-3)
    expected = run_onnx(out / float32["name"], as_bytes(images).astype(np.float32))
    assert np.abs(given - expected).max() < 0.1 and np.abs(given - expected).mean() < 0.02


def test_bytes_are_the_same_in_another_process_and_without_the_float_file(cli: Cli, bundle: Path, folder: Path, tmp_path: Path) -> None:
    for seed in ("1", "2"):
        export(cli, folder, "net.onnx", tmp_path / seed / "net.bundle", *IMAGENET, "--onnx", "--precision", "int8-ptq", env={"PYTHONHASHSEED": seed})
    first, second = ({f.relative_to(tmp_path / seed): f.read_bytes() for f in (tmp_path / seed).rglob("*") if f.is_file() and "evidence" not in f.parts} for seed in "12")
    assert first == second and [a["name"] for a in read_json(tmp_path / "1" / "net.bundle" / "manifest.json")["artifacts"]] == ["net-int8-ptq.onnx"]
    assert (tmp_path / "1" / "net.bundle" / "net-int8-ptq.onnx").read_bytes() == (bundle / "net-int8-ptq.onnx").read_bytes()
    assert outcomes(tmp_path / "1" / "net.bundle")["int8-ptq", "net-int8-ptq.onnx", "onnxruntime"] in SOUND


def test_what_cannot_be_quantized_is_one_line(cli: Cli, bundle: Path, folder: Path, tmp_path: Path) -> None:
    taken, rows = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIZE, SIZE]), helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])
    mean = helper.make_node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)
    branch = helper.make_graph([helper.make_node("ReduceMean", ["x"], ["inner"], axes=[2, 3], keepdims=0)], "b", [], [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1, 3])])
    deciding = [helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0), helper.make_node("Cast", ["s"], ["c"], to=TensorProto.BOOL)]
    deciding += [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)]
    for name, nodes in (("none.onnx", [mean]), ("if.onnx", deciding)):
        model = helper.make_model(helper.make_graph(nodes, "g", [taken], [rows]), opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        (tmp_path / name).write_bytes(model.SerializeToString())
    cases = [
        (tmp_path / "none.onnx", "none.onnx cannot be quantized to int8 ONNX: it holds no convolution and no dense layer"),
        (tmp_path / "if.onnx", "if.onnx cannot be quantized to int8 ONNX: it holds the control flow If"),
        (bundle / "net-int8-ptq.onnx", "net-int8-ptq.onnx is int8 already, so it is wrapped as it is: leave out --calibrate, or give the float32 file"),
    ]
    for file, reason in cases:
        options = ["--classes", folder / "labels.txt", "--output", "logits", "--calibrate", folder / "pictures", "--out", tmp_path / "x.bundle"]
        assert reason in refused(cli, file, *options), file
    assert "leave out --precision" in refused(cli, bundle / "net-int8-ptq.onnx", "--classes", folder / "labels.txt", "--precision", "float32", "--out", tmp_path / "x.bundle")
    assert not (tmp_path / "x.bundle").exists()


def test_a_network_that_scales_its_pictures_itself_keeps_its_float_input(folder: Path) -> None:
    first = [helper.make_node("Sub", ["picture", "zero"], ["s"]), helper.make_node("Exp", ["s"], ["x"])]
    proto = onnx.load(folder / "bytes.onnx")
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    images = drawn(4, 3, SIZE)[0]
    content = onnx_quantize.quantized(network(weights, first=first), images // 64, InputContract(width=SIZE, height=SIZE), "NCHW")
    taken, _ = onnx_files.tensors(content)
    assert taken.dtype == "float32" and np.isfinite(run_onnx(content, as_bytes(images // 64).astype(np.float32))).all()


@settings(max_examples=30, deadline=None)
@given(low=st.integers(0, 120), high=st.integers(121, 255))
def test_the_pictures_may_be_dull_the_declared_range_is_kept(folder: Path, low: int, high: int) -> None:
    """The grid of the picture is that of the contract; what was measured is the rest."""
    images = np.clip(drawn(1, 3, SIZE)[0], low, high)
    content = onnx_quantize.quantized((folder / "net.onnx").read_bytes(), images, InputContract(width=SIZE, height=SIZE, value_range=(0, 1)), "NCHW")
    proto = onnx.load_from_string(content)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    [reader] = [node for node in proto.graph.node if "picture" in node.input]
    assert reader.op_type == "QuantizeLinear" and constants[reader.input[1]] == pytest.approx(1 / 255) and constants[reader.input[2]] == 0


def test_the_last_bit_of_the_arithmetic_decides_nothing_between_minus_one_and_one(folder: Path) -> None:
    content = onnx_quantize.quantized((folder / "net.onnx").read_bytes(), drawn(2, 3, SIZE)[0], InputContract(width=SIZE, height=SIZE, value_range=(-1, 1)), "NCHW")
    images = np.random.default_rng(5).integers(0, 256, (20, 3, SIZE, SIZE))
    once_rounded = (-1 + images * 2 / 255).astype(np.float32)
    often_rounded = images.astype(np.float32) / np.float32(127.5) - np.float32(1)
    assert (once_rounded != often_rounded).any() and np.array_equal(run_onnx(content, once_rounded), run_onnx(content, often_rounded))


@settings(max_examples=100, deadline=None)
@given(ends=st.tuples(st.floats(-300, 300), st.floats(-300, 300)).filter(lambda ends: abs(ends[0] - ends[1]) > 0.01))
def test_the_pictures_grid_costs_no_more_than_the_plain_one(ends: tuple[float, float]) -> None:
    values = np.tile(np.linspace(*ends, 256), (3, 1)).astype(np.float32)
    found = onnx_quantize.input_range(values)

    def cost(low: float, high: float) -> float:
        scale = (high - low) / 255
        zero_point = round(-low / scale)
        errors = (np.clip(np.rint(values.astype(np.float64) / scale) + zero_point, 0, 255) - zero_point) * scale - values
        return float(np.sqrt(np.square(errors).mean()))

    low, high = float(min(values.min(), 0.0)), float(max(values.max(), 0.0))
    assert found["rmin"] == np.float32(low) and found["rmax"] >= np.float32(high)
    assert cost(float(found["rmin"]), float(found["rmax"])) <= cost(low, high) + 1e-5 * (high - low)


def test_deep_graphs_get_names_by_structure_alone() -> None:
    def chain(names: Sequence[str]) -> bytes:
        nodes = [helper.make_node("Neg", [source], [target], name=f"n{target}") for source, target in zip(["x", *names], [*names, "y"])]
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
        return onnx_files.stable(helper.make_model(helper.make_graph(nodes, names[0], values[:1], values[1:]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8))

    first, second = chain([f"a{number}" for number in range(3000)]), chain([f"b{number * 7 % 3000}" for number in range(3000)])
    assert first == second and run_onnx(first, np.float32([2.0]))[0] == -2.0
