"""Each rewrite of quantized ONNX graphs on a minimal graph: the same results, and the form that it promises."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from melanoma_edge.convert import onnx_rewrites
from melanoma_edge.convert.onnx import _finish
from melanoma_edge.errors import BadInput
from melanoma_edge.runtimes import ort

SIDE, CHANNELS, CLASSES = 8, 16, 4


def _model(nodes, constants: dict[str, np.ndarray], image=(TensorProto.UINT8, (1, SIDE, SIDE, 3)), logits=(1, CLASSES)):
    graph = helper.make_graph(
        [helper.make_node(*node[:3], **(node[3] if len(node) > 3 else {})) for node in nodes],
        "minimal",
        [helper.make_tensor_value_info("image", *image)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, logits)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def quantized() -> onnx.ModelProto:
    """Return a network in the form in which tf2onnx gives one: int8 activations, requantized input, shared constants."""
    random = np.random.default_rng(3)
    pair = ("DequantizeLinear", "QuantizeLinear")
    nodes = [
        (pair[0], ["image", "one", "u0"], ["pixels"]),
        (pair[1], ["pixels", "one", "low"], ["signed"]),
        ("Transpose", ["signed"], ["channels"], {"perm": [0, 3, 1, 2]}),
        (pair[0], ["channels", "one", "low"], ["x0"]),
    ]
    constants = {
        "one": np.float32(1),
        "u0": np.uint8(0),
        "low": np.int8(-128),
        "six": np.float32(6 / 255),
        "zero8": np.zeros(CHANNELS, np.int8),
        "zero32": np.zeros(CHANNELS, np.int32),
        "floor": np.float32(0),
        "ceiling": np.float32(6),
    }
    for index, inputs in enumerate((3, CHANNELS)):
        scale = "one" if index == 0 else "six"
        constants[f"w{index}"] = random.integers(-127, 128, (CHANNELS, inputs, 3, 3), np.int8)
        constants[f"b{index}"] = random.integers(-3000, 3000, CHANNELS, np.int32)
        constants[f"s{index}"] = (random.uniform(0.5, 1, CHANNELS) * (2e-4, 4e-3)[index]).astype(np.float32)
        constants[f"bs{index}"] = (constants[f"s{index}"] * constants[scale]).astype(np.float32)
        nodes += [
            (pair[0], [f"w{index}", f"s{index}", "zero8"], [f"wf{index}"], {"axis": 0}),
            (pair[0], [f"b{index}", f"bs{index}", "zero32"], [f"bf{index}"], {"axis": 0}),
            ("Conv", [f"x{index}", f"wf{index}", f"bf{index}"], [f"c{index}"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
            ("Clip", [f"c{index}", "floor", "ceiling"], [f"r{index}"]),
            (pair[1], [f"r{index}", "six", "low"], [f"q{index}"]),
            (pair[0], [f"q{index}", "six", "low"], [f"x{index + 1}"]),
        ]
    constants |= {
        "wd": random.integers(-127, 128, (CHANNELS, CLASSES), np.int8),
        "bd": random.integers(-3000, 3000, CLASSES, np.int32),
        "sd": np.float32(0.004),
        "bsd": np.float32(0.004) * np.float32(0.02),
        "z8": np.int8(0),
        "z32": np.int32(0),
        "pooled": np.float32(0.02),
        "last": np.float32(0.03),
        "middle": np.int8(-11),
        "axes": np.int64([2, 3]),
    }
    nodes += [
        ("GlobalAveragePool", ["x2"], ["p"]),
        (pair[1], ["p", "pooled", "low"], ["qp"]),
        ("Squeeze", ["qp", "axes"], ["flat"]),
        (pair[0], ["flat", "pooled", "low"], ["f"]),
        (pair[0], ["wd", "sd", "z8"], ["wfd"]),
        (pair[0], ["bd", "bsd", "z32"], ["bfd"]),
        ("Gemm", ["f", "wfd", "bfd"], ["g"]),
        (pair[1], ["g", "last", "middle"], ["ql"]),
        (pair[0], ["ql", "last", "middle"], ["logits"]),
    ]
    return _model(nodes, constants)


def _session(model: onnx.ModelProto | bytes, level: str, **entries: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.log_severity_level = 4
    for key, value in entries.items():
        options.add_session_config_entry(key.replace("__", "."), value)
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _images(count: int = 20) -> np.ndarray:
    return np.random.default_rng(8).integers(0, 256, (count, 1, SIDE, SIDE, 3), np.uint8)


def _logits(model, level: str = "ORT_DISABLE_ALL", **entries: str) -> np.ndarray:
    """Return the logits of pictures, by default exactly as the graph is written."""
    session = _session(model, level, **entries)
    return np.concatenate([session.run(None, {"image": image})[0] for image in _images()])


def _rewritten(*rewrites) -> onnx.ModelProto:
    model = quantized()
    for rewrite in rewrites:
        rewrite(model.graph)
    return model


def _optimized(model, folder: Path) -> Counter:
    """Return the operators of ONNX Runtime's optimized graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


ALL = (onnx_rewrites.unsigned_activations, onnx_rewrites.drop_requantization, onnx_rewrites.own_parameters)


@pytest.mark.parametrize("rewrites", [c for n in range(1, 4) for c in itertools.permutations(ALL, n)], ids=lambda c: "+".join(r.__name__ for r in c))
def test_rewrites_in_any_order_change_no_logit(rewrites):
    model = _rewritten(*rewrites)
    onnx.checker.check_model(model, full_check=True)
    expected = _logits(quantized())
    assert len(np.unique(expected)) > 10  # the network tells pictures apart
    np.testing.assert_array_equal(_logits(model), expected)


def test_unsigned_activations_leaves_weights_signed():
    graph = _rewritten(onnx_rewrites.unsigned_activations).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            kind = constants[node.input[2]].data_type
            if node.input[0] not in constants:
                assert kind == TensorProto.UINT8, node
            else:
                assert kind == constants[node.input[0]].data_type != TensorProto.UINT8, node


def test_drop_requantization_joins_equal_grids_only():
    def nodes(scale, zero_point):
        return [
            ("DequantizeLinear", ["image", "one", "u0"], ["a"]),
            ("QuantizeLinear", ["a", scale, zero_point], ["b"]),
            ("DequantizeLinear", ["b", scale, zero_point], ["logits"]),
        ]

    constants = {"one": np.float32(1), "same": np.float32(1), "half": np.float32(0.5), "u0": np.uint8(0), "u1": np.uint8(1), "i0": np.int8(0)}
    reads = {}
    for scale, zero_point in itertools.product(("same", "half"), ("u0", "u1", "i0")):
        model = _model(nodes(scale, zero_point), constants, (TensorProto.UINT8, (1, 4)), (1, 4))
        onnx_rewrites.drop_requantization(model.graph)
        reads[scale, zero_point] = model.graph.node[-1].input[0]
    assert {key for key, source in reads.items() if source == "image"} == {("same", "u0")}
    assert set(reads.values()) == {"image", "b"}


def test_drop_requantization_leaves_scales_that_are_computed():
    nodes = [
        ("Identity", ["one"], ["scale"]),
        ("DequantizeLinear", ["image", "scale", "u0"], ["a"]),
        ("QuantizeLinear", ["a", "scale", "u0"], ["b"]),
        ("DequantizeLinear", ["b", "scale", "u0"], ["logits"]),
    ]
    model = _model(nodes, {"one": np.float32(1), "u0": np.uint8(0)}, (TensorProto.UINT8, (1, 4)), (1, 4))
    onnx_rewrites.drop_requantization(model.graph)
    assert model.graph.node[-1].input[0] == "b"


def test_own_parameters_lets_the_exact_mode_load():
    exact = {"session__x64quantprecision": "1"}
    shared = _rewritten(onnx_rewrites.unsigned_activations, onnx_rewrites.drop_requantization)
    with pytest.raises(Exception, match="replace the existing tensor"):  # when this passes, the rewrite can go
        _logits(shared, "ORT_ENABLE_ALL", **exact)
    np.testing.assert_array_equal(_logits(_rewritten(*ALL), "ORT_ENABLE_ALL", **exact), _logits(quantized()))


def test_every_operator_becomes_integer(tmp_path):
    before = _optimized(quantized(), tmp_path)
    assert before["Conv"] and before["Gemm"] and before["GlobalAveragePool"]  # when not, the rewrites can go
    model = quantized()
    onnx_rewrites.for_integer_kernels(model.graph)
    content = _finish(model)
    assert _optimized(onnx.load_from_string(content), tmp_path) == {
        "Transpose": 1,
        "QLinearConv": 2,
        "QLinearGlobalAveragePool": 1,
        "Squeeze": 1,
        "QGemm": 1,
        "DequantizeLinear": 1,
    }


def _turned(model: onnx.ModelProto) -> np.ndarray:
    """Return the logits of the same pictures, given to `model` as [1, 3, H, W]."""
    session = _session(model, "ORT_DISABLE_ALL")
    return np.concatenate([session.run(None, {"image": np.ascontiguousarray(image.transpose(0, 3, 1, 2))})[0] for image in _images()])


def test_channels_first_input_takes_the_transpose_away_and_changes_no_logit(tmp_path):
    model = quantized()
    onnx_rewrites.for_integer_kernels(model.graph)
    expected = _logits(model)
    plain, turned = (onnx.load_from_string(_finish(_copied(model), layout)) for layout in ("NHWC", "NCHW"))
    operators = [Counter(node.op_type for node in found.graph.node) for found in (plain, turned)]
    assert operators[0] - operators[1] == Counter(Transpose=1) and not operators[1] - operators[0]
    assert [size.dim_value for size in turned.graph.input[0].type.tensor_type.shape.dim] == [1, 3, SIDE, SIDE]
    onnx.checker.check_model(turned, full_check=True)
    np.testing.assert_array_equal(_turned(turned), expected)
    # What ONNX Runtime makes of it before it arranges memory for a processor: the same integers, and nothing to turn.
    found = _optimized(turned, tmp_path)
    assert found == _optimized(plain, tmp_path) - Counter(Transpose=1) and found["QLinearConv"] == 2


def test_channels_first_input_keeps_sides_apart():
    """Height and width that differ show that the right axes moved."""
    nodes = [("Transpose", ["image"], ["turned"], {"perm": [0, 3, 1, 2]}), ("ReduceMean", ["turned"], ["logits"], {"axes": [1, 2], "keepdims": 0})]
    model = _model(nodes, {}, (TensorProto.FLOAT, (1, 5, 7, 3)), (1, 7))
    onnx_rewrites.channels_first_input(model.graph)
    onnx.checker.check_model(model, full_check=True)
    assert [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 5, 7]
    image = np.random.default_rng(0).normal(size=(1, 3, 5, 7)).astype(np.float32)
    [found] = _session(model, "ORT_DISABLE_ALL").run(None, {"image": image})
    np.testing.assert_allclose(found, image.mean(axis=(1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    "nodes, found",
    [
        ([("Neg", ["image"], ["logits"])], "Neg"),
        ([("Transpose", ["image"], ["t"], {"perm": [0, 2, 1, 3]}), ("Transpose", ["t"], ["logits"], {"perm": [0, 2, 1, 3]})], "Transpose"),
        ([("Transpose", ["image"], ["t"], {"perm": [0, 3, 1, 2]}), ("Transpose", ["t"], ["b"], {"perm": [0, 2, 3, 1]}), ("Add", ["b", "image"], ["logits"])], "Add"),
    ],
)
def test_channels_first_input_refuses_what_would_need_another_transpose(nodes, found):
    model = _model(nodes, {}, (TensorProto.FLOAT, (1, 4, 4, 3)), (1, 4, 4, 3))
    before = model.SerializeToString()
    with pytest.raises(BadInput, match=f"goes into {found} before its axes are turned.*--layout nhwc"):
        onnx_rewrites.channels_first_input(model.graph)
    assert model.SerializeToString() == before


def _copied(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.load_from_string(model.SerializeToString())


def test_the_model_of_a_known_answer_is_what_it_is_said_to_be():
    model = onnx.load_from_string(ort._KNOWN_ANSWER)
    onnx.checker.check_model(model, full_check=True)
    [node], [weights] = model.graph.node, model.graph.initializer
    assert node.op_type == "MatMulInteger" and list(node.input) == ["a", weights.name]
    np.testing.assert_array_equal(numpy_helper.to_array(weights), np.full((4, 1), 127, np.int8), strict=True)


HASWELL = """
import sys, numpy as np
from pathlib import Path
from melanoma_edge.runtimes import ort
runtime = ort.OnnxRuntime()
if sys.argv[4] == "default":
    runtime.settings = {}
runtime.load(Path(sys.argv[1]), 1)
np.save(sys.argv[3], runtime.logits(np.load(sys.argv[2])[:, 0]))
print(sorted(runtime.settings))
"""


@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="needs an x86 emulator: apt-get install qemu-user")
def test_processors_without_vnni_compute_the_same(tmp_path):
    model = quantized()
    onnx_rewrites.for_integer_kernels(model.graph)
    (tmp_path / "m.onnx").write_bytes(_finish(model))
    np.save(tmp_path / "images.npy", _images())

    def haswell(mode: str) -> tuple[np.ndarray, str]:
        arguments = [tmp_path / "m.onnx", tmp_path / "images.npy", tmp_path / "logits.npy", mode]
        done = subprocess.run(
            ["qemu-x86_64", "-cpu", "Haswell", sys.executable, "-c", HASWELL, *map(str, arguments)], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return np.load(tmp_path / "logits.npy"), done.stdout.strip()

    expected = _logits((tmp_path / "m.onnx").read_bytes(), "ORT_ENABLE_ALL", **({"session__x64quantprecision": "1"} if ort.saturates() else {}))
    found, settings = haswell("as it is")
    assert settings == "['session.x64quantprecision']"
    np.testing.assert_array_equal(found, expected)
    overflowed, _ = haswell("default")
    assert (overflowed != expected).mean() > 0.5  # what the setting is for
