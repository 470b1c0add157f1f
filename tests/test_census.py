"""What a file is made of decides what it may be called: honest files pass, and files that lie are found out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import tiny_bundle
from conftest import Cli
from onnx import TensorProto, helper, numpy_helper

from melanoma_edge.convert import census, head, tflite
from melanoma_edge.errors import BadInput, ProofFailed

NAMES = {
    "tflite": {"float32": "demo-float32.tflite", "float16": "demo-float16.tflite", "dynamic": "demo-dynamic.tflite", "int8": "demo-int8.tflite"},
    "onnx": {"float32": "demo-float32.onnx", "int8": "demo-int8.onnx"},
}
CLAIMS = [(fmt, claimed, found) for fmt, names in NAMES.items() for claimed in names for found in names]


@pytest.mark.parametrize(("fmt", "claimed", "found"), CLAIMS)
def test_of_the_names_that_a_file_could_have_only_its_own_fits(bundle, fmt: str, claimed: str, found: str) -> None:
    content = (bundle / NAMES[fmt][found]).read_bytes()
    if claimed == found:
        census.require("it", content, fmt, claimed)
        assert census.contradictions(content, fmt, claimed) == []
        return
    with pytest.raises(ProofFailed) as caught:
        census.require(f"other-{claimed}.{fmt}", content, fmt, claimed)
    message = str(caught.value)
    assert message.startswith(f"other-{claimed}.{fmt} is not what its name says: ") and message.isprintable()
    assert f"expected {census.EXPECTED[fmt, claimed]}; export again" in message and caught.value.exit_code == 1
    assert len(message) < 600


def test_probabilities_in_the_graph_leave_every_file_what_it_is(bundle) -> None:
    even = np.full(4, 0.25)
    for precision, name in NAMES["tflite"].items():
        content = head.with_probabilities((bundle / name).read_bytes(), 1.5, even, even)
        assert census.contradictions(content, "tflite", precision) == []


def test_int8_after_training_is_held_to_the_rules_of_int8(bundle) -> None:
    assert census.contradictions((bundle / "demo-int8.tflite").read_bytes(), "tflite", "int8-ptq") == []
    assert census.contradictions((bundle / "demo-dynamic.tflite").read_bytes(), "tflite", "int8-ptq")


def test_a_float_layer_behind_a_uint8_input_is_no_int8() -> None:
    """The input alone makes no integers: this file takes bytes and multiplies floats."""
    found = census.contradictions(tiny_bundle.tflite("uint8"), "tflite", "int8")
    assert found == ["FULLY_CONNECTED logits computes with FLOAT32"]


def test_int8_weights_with_float_activations_are_dynamic_and_no_int8() -> None:
    content = tflite.quantize_weights(tiny_bundle.tflite("float32"))
    assert census.contradictions(content, "tflite", "dynamic") == []
    assert census.contradictions(content, "tflite", "int8") == ["FULLY_CONNECTED logits computes with FLOAT32"]
    assert census.contradictions(content, "tflite", "float32") == ["FULLY_CONNECTED logits has INT8 weights", "the tensor weights is INT8"]


def test_one_float_layer_among_many_is_named(bundle) -> None:
    """Somebody keeps one layer of an int8 file in float: 19 honest ones do not hide it."""
    from ai_edge_litert import schema_py_generated as schema

    graph, model = tflite.unpack((bundle / "demo-int8.tflite").read_bytes())
    [liar] = [operator for operator in graph.operators if tflite.builtin(model, operator) == schema.BuiltinOperator.FULLY_CONNECTED]
    graph.tensors[liar.inputs[1]].type = schema.TensorType.FLOAT32
    [found] = census.contradictions(tflite.pack(model, 1 << 20), "tflite", "int8")
    assert found.startswith("FULLY_CONNECTED ") and found.endswith("computes with FLOAT32")


def test_a_file_without_any_weights_is_nothing(bundle) -> None:
    graph, model = tflite.unpack((bundle / "demo-float32.tflite").read_bytes())
    graph.operators = graph.operators[-1:]
    graph.operators[0].opcodeIndex = tflite.operator_code(model, 0, 1)  # ADD
    assert census.contradictions(tflite.pack(model, 1 << 20), "tflite", "float32") == ["there is no convolution and no dense layer in it"]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("image", "logits")]
    empty = helper.make_model(helper.make_graph([helper.make_node("Relu", ["image"], ["logits"])], "g", value[:1], value[1:]))
    for precision in NAMES["onnx"]:
        assert census.contradictions(empty.SerializeToString(), "onnx", precision) == ["there is no convolution and no dense layer in it"]


def dense(*, read: bool = True, weights: type = np.int8, gives: bool = True, clip: bool = False) -> bytes:
    """Return an ONNX file of one Gemm, quantized around it but for what is said."""
    constants = {
        "s": np.float32(0.1),
        "z": np.uint8(7),
        "z8": np.int8(0),
        "w": np.ones((4, 4), weights),
        "b": np.zeros(4, np.float32),
        "low": np.float32(0),
        "high": np.float32(6),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["x"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z8"], ["weights"]),
        helper.make_node("Gemm", ["x" if read else "image", "w" if weights is np.float32 else "weights", "b"], ["y"], name="dense", transB=1),
        helper.make_node("Clip", ["y", "low", "high"], ["c"]),
        helper.make_node("QuantizeLinear", ["c" if clip else "y", "s", "z"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "s", "z"], ["logits"]),
    ]
    if not gives:
        nodes = [*nodes[:4], helper.make_node("Relu", ["y"], ["logits"])]
    elif not clip:
        del nodes[4]
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("image", "logits")]
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    return helper.make_model(helper.make_graph(nodes, "g", value[:1], value[1:], initializers)).SerializeToString()


@pytest.mark.parametrize(
    ("lie", "found"),
    [
        ({}, []),
        ({"clip": True}, []),
        ({"read": False}, ["Gemm dense reads what no DequantizeLinear gives"]),
        ({"weights": np.float32}, ["Gemm dense has FLOAT weights"]),
        ({"weights": np.uint8}, ["Gemm dense has UINT8 weights"]),
        ({"gives": False}, ["Gemm dense gives what no QuantizeLinear reads"]),
    ],
    ids=str,
)
def test_int8_onnx_wants_a_pair_around_each_layer(lie: dict, found: list[str]) -> None:
    assert census.contradictions(dense(**lie), "onnx", "int8") == found


FOREIGN = [
    ({"weights": np.uint8}, "int8", None),
    ({"gives": False}, "int8", None),
    ({"read": False}, "int8", "Gemm dense reads what no DequantizeLinear gives"),
    ({"weights": np.float32}, "int8", "Gemm dense has FLOAT weights"),
    ({}, "float32", "QuantizeLinear .* quantizes"),
    ({}, "dynamic", "QuantizeLinear .* quantizes activations by a fixed scale"),
    ({}, "float16", "QuantizeLinear .* quantizes"),
]


@pytest.mark.parametrize(("made", "precision", "found"), FOREIGN, ids=str)
def test_files_of_others_are_held_to_one_precision_but_not_to_our_way_of_writing_it(made: dict, precision: str, found: str | None) -> None:
    if found is None:
        census.require_foreign("it.onnx", dense(**made), "onnx", precision)
        return
    with pytest.raises(BadInput, match=f"it.onnx mixes precisions: by most of its weights it is {precision}, but {found}.*export it in one precision") as caught:
        census.require_foreign("it.onnx", dense(**made), "onnx", precision)
    assert str(caught.value).isprintable()


def test_integer_kernels_of_others_and_products_of_activations_are_known() -> None:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in ("image", "logits")]
    weights = numpy_helper.from_array(np.ones((4, 4), np.uint8), "w")
    dynamic = [
        helper.make_node("DynamicQuantizeLinear", ["image"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "w", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["logits"], to=TensorProto.FLOAT),
    ]
    attention = [helper.make_node("Transpose", ["image"], ["t"], perm=[1, 0]), helper.make_node("MatMul", ["image", "t"], ["logits"])]
    content = helper.make_model(helper.make_graph(dynamic, "g", value[:1], value[1:], [weights])).SerializeToString()
    census.require_foreign("it", content, "onnx", "dynamic")
    assert census.contradictions(content, "onnx", "int8", foreign=True) == ["MatMulInteger  quantizes activations as they come"]
    content = helper.make_model(helper.make_graph(attention, "g", value[:1], value[1:])).SerializeToString()
    for precision in ("float32", "float16"):
        census.require_foreign("it", content, "onnx", precision)
    assert census.contradictions(content, "onnx", "float32") == ["MatMul  has computed weights"]


def test_a_float_network_of_others_may_take_bytes() -> None:
    census.require_foreign("it", tiny_bundle.tflite("uint8"), "tflite", "float32")
    assert census.contradictions(tiny_bundle.tflite("uint8"), "tflite", "float32") == ["the tensor image is UINT8"]


def test_what_is_no_tflite_is_refused() -> None:
    with pytest.raises(BadInput, match="not a TFLite model"):
        census.contradictions(onnx.ModelProto().SerializeToString() + b"\0" * 8, "tflite", "int8")


def test_export_refuses_what_is_not_what_its_name_says_and_leaves_nothing(run, drawn, tmp_path, monkeypatch) -> None:
    from melanoma_edge.proof.export import export

    monkeypatch.setattr(tflite, "quantize_weights", lambda content: content)  # a converter that quantizes nothing
    with pytest.raises(ProofFailed, match="demo-dynamic.tflite is not what its name says: no layer has INT8 weights; expected int8 weights"):
        export(run, tmp_path / "b.bundle", formats=["tflite"], precisions=["dynamic"], data=drawn)
    assert list(tmp_path.iterdir()) == []


def test_a_network_too_small_for_a_large_layer_is_exported_whole(cli: Cli, drawn, tmp_path) -> None:
    settings = {"image_size": 32, "width": 0.125, "epochs": 1, "qat_epochs": 0, "samples_per_class": 8, "min_lesions": 5}
    cli("train", drawn, "--recipe", "demo", *(word for key, value in settings.items() for word in ("--set", f"{key}={value}")), "--out", tmp_path / "run", "-q")
    cli("export", tmp_path / "run", "--tflite", "--precision", "dynamic", "--out", tmp_path / "b.bundle", "-q")
    content = (tmp_path / "b.bundle" / "demo-dynamic.tflite").read_bytes()
    assert census.contradictions(content, "tflite", "dynamic") == [] and 0 < tflite.census(content)[1]["int8"] < tflite.LEAST_WEIGHTS
