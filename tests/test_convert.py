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


def three_by_three(*steps: tuple[str, str]) -> bytes:
    """Return a TFLite file: the mean colour of a picture of 4 x 4, then each (FULLY_CONNECTED or ADD, its constant).

    Constants are float32 [3, 3]: `w` and `same` are two tensors on one buffer, `other` has other numbers. ADD ends with a mean over rows.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    values = np.float32([[1.5, -0.5, 0.25], [0.125, 2.0, -1.0], [-0.75, 0.5, 1.0]])
    arrays = {"w": values, "other": values.T * 3, "axes": np.int32([1, 2]), "rows": np.int32([0])}
    model = schema.ModelT(version=3, buffers=[schema.BufferT()], operatorCodes=[], description="t")
    graph = schema.SubGraphT(tensors=[schema.TensorT(name="image", type=schema.TensorType.FLOAT32, shape=[1, 4, 4, 3], buffer=0)], operators=[], inputs=[0])
    model.subgraphs, positions = [graph], {}
    for name in ("w", "same", "other", "axes", "rows"):
        if name != "same":
            model.buffers.append(schema.BufferT(data=np.frombuffer(arrays[name].tobytes(), np.uint8)))
        array = arrays.get(name, values)
        kind = schema.TensorType.INT32 if array.dtype == np.int32 else schema.TensorType.FLOAT32
        graph.tensors.append(schema.TensorT(name=name, type=kind, shape=list(array.shape), buffer=1 if name == "same" else len(model.buffers) - 1))
        positions[name] = len(graph.tensors) - 1

    def operator(kind: str, inputs: list[int], shape: list[int], options=None) -> int:
        graph.tensors.append(schema.TensorT(name=f"{kind}_{len(graph.tensors)}", type=schema.TensorType.FLOAT32, shape=shape, buffer=0))
        code = getattr(schema.BuiltinOperator, kind)
        model.operatorCodes.append(schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=code, version=1))
        made = schema.OperatorT(opcodeIndex=len(graph.operators), inputs=inputs, outputs=[len(graph.tensors) - 1])
        if options is not None:
            made.builtinOptions, made.builtinOptionsType = options, getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        graph.operators.append(made)
        return len(graph.tensors) - 1

    at = operator("MEAN", [0, positions["axes"]], [1, 3], schema.ReducerOptionsT(keepDims=False))
    for kind, constant in steps:
        if kind == "FULLY_CONNECTED":
            at = operator(kind, [at, positions[constant], -1], [1, 3], schema.FullyConnectedOptionsT())
        else:
            at = operator("ADD", [at, positions[constant]], [3, 3], schema.AddOptionsT())
            at = operator("MEAN", [at, positions["rows"]], [1, 3], schema.ReducerOptionsT(keepDims=True))
    graph.tensors[at].name, graph.outputs = "logits", [at]
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


FC = "FULLY_CONNECTED"


@pytest.mark.parametrize(
    ("steps", "stored"),
    [
        ([(FC, "w"), (FC, "w")], 9),
        ([(FC, "w"), (FC, "same")], 18),
        ([(FC, "w"), (FC, "other"), (FC, "same"), (FC, "w")], 27),
        ([(FC, "w"), ("ADD", "same")], 9),
        ([("ADD", "same"), (FC, "w"), (FC, "other")], 18),
        ([(FC, "other"), (FC, "w"), ("ADD", "w")], 9),
    ],
    ids=["a layer used twice", "two layers of equal weights", "both", "equal numbers read as float", "read as float before", "weights read as float"],
)
def test_shared_weights_are_quantized_once_and_floats_stay_floats(steps, stored):
    from ai_edge_litert.interpreter import Interpreter

    content = three_by_three(*steps)
    quantized = tflite.quantize_weights(content)
    assert tflite.census(quantized)[1]["int8"] == stored
    given = []
    for file in (content, quantized):
        interpreter = Interpreter(model_content=file)
        interpreter.allocate_tensors()
        interpreter.set_tensor(0, np.float32([0.5, -1.0, 2.0]) * np.ones((1, 4, 4, 3), np.float32))
        interpreter.invoke()
        given.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    assert np.abs(given[0] - given[1]).max() <= 0.03 * np.ptp(given[0]) and np.ptp(given[0]) > 1


def test_where_no_weights_can_be_quantized_nothing_changes_in_them():
    assert "int8" not in tflite.census(tflite.quantize_weights(three_by_three((FC, "w"), ("ADD", "w"))))[1]


def test_a_chain_longer_than_pythons_stack_is_ordered_and_searched():
    """A thousand nodes in a row, and a constant that takes as many to compute."""
    from melanoma_edge.convert.layers_onnx import _Walk

    length = 3000
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("image", "logits")]
    chain = [helper.make_node("Relu", ["image" if not i else f"t{i}"], ["logits" if i == length - 1 else f"t{i + 1}"]) for i in range(length)]
    content = onnx_convert._finish(helper.make_model(helper.make_graph(chain, "g", value[:1], value[1:]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    graph = onnx.load_from_string(content).graph
    assert [node.name for node in graph.node] == [f"Relu_{i}" for i in range(length)]
    walk = _Walk(graph, [])
    assert walk._constant("logits") is False and walk._active(graph.node[-1]) == [graph.node[-2].output[0]]
    constant = [helper.make_node("Relu", ["c" if not i else f"t{i}"], [f"t{i + 1}"]) for i in range(length)]
    add = helper.make_node("Add", ["image", f"t{length}"], ["logits"])
    walk = _Walk(helper.make_graph([*constant, add], "g", value[:1], value[1:], [numpy_helper.from_array(np.ones((1, 4), np.float32), "c")]), [])
    assert walk._constant(f"t{length}") is True and walk._active(add) == ["image"]


def test_what_is_not_tflite_is_refused():
    for content in (b"", b"\0" * 64, _graph((0, 1, 2), "x").SerializeToString()):
        with pytest.raises(BadInput, match="not a TFLite model"):
            tflite.tensors(content)


@pytest.mark.xdist_group("tensorflow")
def test_a_network_with_a_loop_is_one_graph_that_keeps_its_answers() -> None:
    from melanoma_edge.model.tensorflow import require

    require()
    import tf_keras as keras
    from ai_edge_litert.interpreter import Interpreter

    taken = keras.Input((32, 32, 3), batch_size=1)
    rows = keras.layers.Reshape((32, 96))(keras.layers.RandomFlip()(taken))  # which flips in training only
    model = keras.Model(taken, keras.layers.Dense(3)(keras.layers.LSTM(8)(rows)))
    picture = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
    interpreter = Interpreter(model_content=tflite.convert(model, "float32"))
    found = interpreter.get_signature_runner("serving_default")(image=picture)["logits"]
    assert np.allclose(found, model(picture, training=False), atol=1e-5)
