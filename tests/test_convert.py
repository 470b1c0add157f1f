"""The conversion's own passes, each on a small graph: weights to int8, canonical ONNX, quanta."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
import tiny_bundle
from onnx import TensorProto, helper, numpy_helper

from melanoma_edge.convert import onnx as onnx_convert
from melanoma_edge.convert import tflite
from melanoma_edge.errors import BadInput
from melanoma_edge.runtimes import process


def _graph(order, prefix: str):
    """image -> Mul by a -> Add of b -> Relu -> logits, with nodes in `order` and names from `prefix`."""
    a, b, c = (numpy_helper.from_array(np.float32([value]), f"{prefix}{name}") for name, value in (("a", 2), ("b", 3), ("unused", 9)))
    nodes = [
        helper.make_node("Mul", ["image", f"{prefix}a"], [f"{prefix}m"], name=f"{prefix}n1"),
        helper.make_node("Add", [f"{prefix}m", f"{prefix}b"], [f"{prefix}s"], name=f"{prefix}n2"),
        helper.make_node("LeakyRelu", [f"{prefix}s"], ["logits"], name=f"{prefix}n3", alpha=0.5),
    ]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("image", "logits")]
    graph = helper.make_graph([nodes[i] for i in order], f"{prefix}graph", value[:1], value[1:], [c, b, a] if order[0] else [a, b, c])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="test", ir_version=8)


def test_onnx_bytes_depend_on_structure_alone():
    # Any order of nodes is tried; the result must be sorted, renamed and free of what is not used.
    found = {onnx_convert._finish(_graph(order, prefix)) for order in itertools.permutations(range(3)) for prefix in ("x", "node_17/")}
    assert len(found) == 1
    graph = onnx.load_from_string(found.pop()).graph
    assert [node.op_type for node in graph.node] == ["Mul", "Add", "LeakyRelu"]
    assert len(graph.initializer) == 2


def test_onnx_with_other_numbers_has_other_bytes():
    model = _graph((0, 1, 2), "x")
    changed = _graph((0, 1, 2), "x")
    changed.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32([2.5]), "xa"))
    assert onnx_convert._finish(model) != onnx_convert._finish(changed)


def test_onnx_with_other_names_of_input_and_output_is_refused():
    model = _graph((0, 1, 2), "x")
    model.graph.output[0].name = "out"
    model.graph.node[2].output[0] = "out"
    with pytest.raises(BadInput, match="image.*logits"):
        onnx_convert._finish(model)


def test_onnx_properties_are_readable():
    content = onnx_convert.with_properties(_graph((0, 1, 2), "x").SerializeToString(), {"notice": "n", "classes": "a\nb"})
    assert {entry.key: entry.value for entry in onnx.load_from_string(content).metadata_props} == {"notice": "n", "classes": "a\nb"}


def test_onnx_quantum_is_the_scale_of_the_last_dequantization():
    scale, zero = numpy_helper.from_array(np.float32(0.125), "s"), numpy_helper.from_array(np.int8(3), "z")
    value = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [4]), helper.make_tensor_value_info("logits", TensorProto.FLOAT, [4])]
    nodes = [helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"]), helper.make_node("DequantizeLinear", ["q", "s", "z"], ["logits"])]
    model = helper.make_model(helper.make_graph(nodes, "g", value[:1], value[1:], [scale, zero]), opset_imports=[helper.make_opsetid("", 17)])
    assert onnx_convert.quantum(model.SerializeToString()) == 0.125
    assert onnx_convert.quantum(_graph((0, 1, 2), "x").SerializeToString()) is None


@pytest.mark.parametrize("least", [1, 1 << 20])
def test_dynamic_range_quantizes_the_largest_layer_however_small(tmp_path, monkeypatch, least):
    content = tiny_bundle.tflite("float32")
    monkeypatch.setattr(tflite, "LEAST_WEIGHTS", least)
    quantized = tflite.quantize_weights(content)
    assert "int8" in tflite.census(quantized)[1] and "int8" not in tflite.census(content)[1]
    (tmp_path / "a.tflite").write_bytes(content)
    (tmp_path / "b.tflite").write_bytes(quantized)
    pictures = tiny_bundle.pictures(6)
    before, after = (process.run_logits("litert", tmp_path / name, pictures) for name in ("a.tflite", "b.tflite"))
    assert 0 < np.abs(before - after).max() <= 0.03 * np.ptp(before)


def test_what_is_not_tflite_is_refused():
    for content in (b"", b"\0" * 64, _graph((0, 1, 2), "x").SerializeToString()):
        with pytest.raises(BadInput, match="not a TFLite model"):
            tflite.tensors(content)
