"""`verify --layers` as a user runs it: an untouched bundle, what cannot be compared, and faults planted in one layer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from conftest import Cli, read_json, snapshot, validate
from test_export_cli import ONNX, TFLITE
from test_verify_cli import reseal

from melanoma_edge.convert import layers as opened
from melanoma_edge.convert import layers_onnx
from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.proof.gate_plan import Pictures
from melanoma_edge.proof.layers import look
from melanoma_edge.proof.verify import probes

INT8 = {"tflite": TFLITE[3], "onnx": ONNX[1]}
BLOCKS = [f"block{block}_{kind}" for block in range(1, 10) for kind in ("depthwise", "pointwise")]
NAMES = ["image", "stem", *BLOCKS, "pool", "logits"]


@pytest.fixture
def int8(copy: Path) -> Path:
    """A copy with the int8 artifacts only, which needs no other runtimes' time."""
    manifest = read_json(copy / "manifest.json")
    manifest["artifacts"] = [artifact for artifact in manifest["artifacts"] if artifact["name"] in INT8.values()]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def pairs_of(found: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return {(artifact, runtime): pair}."""
    return {(pair["artifact"], pair["runtime"]): pair for pair in found["pairs"]}


def suspects(pair: dict[str, Any]) -> list[str]:
    return [row["layer"] for row in pair["rows"] if row["suspect"]]


# What holds.


def test_an_untouched_bundle_parts_by_roundings_only(cli: Cli, copy: Path, run: Path) -> None:
    before = snapshot(copy)
    done = cli("verify", copy, "--layers", "--run", run, "--runtime", "here", "--runtime", "kernels", "--json", "-q", code=2)
    assert "there is no runtime 'here'" in done.err and snapshot(copy) == before
    done = cli("verify", copy, "--layers", "--run", run, "--runtime", "litert", "--runtime", "onnxruntime", "--runtime", "litert-builtin", "--json", "-q")
    assert done.json == read_json(copy / "evidence" / "layers.json")
    validate(done.json, "layers")
    assert {name for name, found in snapshot(copy).items() if before.get(name) != found} == {"evidence/layers.json"}
    pairs = pairs_of(done.json)
    assert {(key, pair["reference"]) for key, pair in pairs.items()} == {
        ((TFLITE[3], "litert"), "keras-qat"),
        ((TFLITE[3], "litert-builtin"), "litert"),
        ((ONNX[1], "onnxruntime"), "int8 TFLite"),
        ((TFLITE[0], "litert"), "keras-float"),
        ((TFLITE[0], "litert-builtin"), "litert"),
        ((ONNX[0], "onnxruntime"), "float32 TFLite"),
    }
    for (artifact, _), pair in pairs.items():
        assert pair["outcome"] == "compared" and pair["notes"] == [] and suspects(pair) == []
        quantized = artifact in INT8.values()
        assert [row["layer"] for row in pair["rows"]] == (NAMES if quantized else NAMES[1:])
        for row in pair["rows"]:
            assert row["alone"]["largest"] <= (1.001 if quantized else 1e-5)
            assert (row["candidate"]["scale"] is not None) == quantized == (row["reference"]["zero_point"] is not None)
        logits = pair["rows"][-1]
        assert logits["values"] == done.json["pictures"] * 4
        first = next((row["layer"] for row in pair["rows"] if row["end_to_end"]["off"]), None)
        assert pair["first_part"] == first
    exact = pairs[ONNX[1], "onnxruntime"]
    assert exact["first_part"] is None and all(row["end_to_end"]["sqnr_db"] is None for row in exact["rows"])
    stem = pairs[TFLITE[3], "litert"]["rows"][1]
    assert "quant_stem" in stem["candidate"]["tensor"] and stem["reference"]["tensor"] == "quant_stem_relu6"


def test_without_the_run_what_can_be_compared_is_and_the_rest_says_why(cli: Cli, int8: Path) -> None:
    done = cli("verify", int8, "--layers", "--runtime", "litert", "--runtime", "onnxruntime", "-q")
    assert f"not run: {INT8['tflite']} on litert against keras-qat: the run is not known; name it with --run RUN" in done.out
    assert "no value of any layer differs" in done.out and "block9_pointwise" in done.out
    pairs = pairs_of(read_json(int8 / "evidence" / "layers.json"))
    assert [pair["outcome"] for pair in pairs.values()] == ["not run", "compared"]
    line = cli.refused("verify", int8, "--layers", "--runtime", "litert", "--require", "keras", "-q", code=3)
    assert "the runtime keras was required but no layer was compared in it: the run is not known" in line


def test_what_is_required_is_compared_without_being_named_twice(cli: Cli, int8: Path) -> None:
    done = cli("verify", int8, "--layers", "--require", "litert-builtin", "--json", "-q")
    assert pairs_of(done.json)[INT8["tflite"], "litert-builtin"]["outcome"] == "compared"
    assert (INT8["tflite"], "litert") in pairs_of(done.json), "what runs by default still does"


def test_layers_and_task_contradict_each_other(cli: Cli, copy: Path) -> None:
    assert "--layers carries out no task gate" in cli.refused("verify", copy, "--layers", "--require", "task", "-q")


def test_an_onnx_file_of_another_structure_is_not_run(int8: Path) -> None:
    model = onnx.load(int8 / INT8["onnx"])
    nodes = {node.output[0]: node for node in model.graph.node}
    found = [place.tensor for place in layers_onnx.places(model.SerializeToString(), opened.layers((int8 / INT8["tflite"]).read_bytes()))]
    skipped, before = found[NAMES.index("block6_depthwise")], found[NAMES.index("block5_pointwise")]
    for node in model.graph.node:  # block 6's first convolution left out: its channels and size are those of its input
        if skipped in node.input:
            node.input[0] = before
    assert skipped in nodes
    onnx.save(model, int8 / INT8["onnx"])
    reseal(int8)
    pair = pairs_of(looked(int8))[INT8["onnx"], "onnxruntime"]
    assert pair["outcome"] == "not run" and "the ONNX file has something else where the TFLite file has" in pair["reason"]


@pytest.mark.parametrize("kind", ["tflite", "onnx"])
@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: content[:12] + bytes(255 for _ in content[12:])])
def test_a_damaged_file_is_not_run_and_says_why(int8: Path, kind: str, damage: Callable[[bytes], bytes]) -> None:
    (int8 / INT8[kind]).write_bytes(damage((int8 / INT8[kind]).read_bytes()))
    reseal(int8)
    pair = pairs_of(looked(int8))[INT8["onnx"], "onnxruntime"]
    assert pair["outcome"] == "not run" and INT8[kind] in pair["reason"] and "\n" not in pair["reason"]


# Faults planted in one layer, behind hashes that are right.


def looked(bundle: Path, *runtimes: str, run: Path | None = None) -> dict[str, Any]:
    """Look into a bundle on six probes and its golden pictures, and return what stands in its evidence."""
    few = probes(open_bundle(bundle), 6)
    look(bundle, runtimes=runtimes or ("onnxruntime",), run=run, pictures=Pictures("drawn probes", few.inputs, few.names))
    found = read_json(bundle / "evidence" / "layers.json")
    validate(found, "layers")
    return found


def edit_tflite(file: Path, name: str, fault: str) -> None:
    """Plant `fault` in the layer `name` of a TFLite file."""
    content = file.read_bytes()
    layer = next(row for row in opened.layers(content) if row.name == name)
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    graph = model.subgraphs[0]
    [operator] = [operator for operator in graph.operators if layer.index in operator.outputs]
    output = graph.tensors[layer.index].quantization
    if fault == "output scale":
        output.scale = [float(output.scale[0]) * 1.05]
    elif fault == "zero point":
        output.zeroPoint = [int(output.zeroPoint[0]) + 9]
    else:
        weights = graph.tensors[operator.inputs[1]]
        if fault == "weight scale":
            weights.quantization.scale = [float(scale) * 1.05 for scale in weights.quantization.scale]
        else:
            values = np.frombuffer(bytes(model.buffers[weights.buffer].data), np.int8).copy()
            values[np.abs(values) < 40] += np.int8(60)
            model.buffers[weights.buffer].data = values.view(np.uint8)
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    file.write_bytes(bytes(builder.Output()))


def edit_onnx(file: Path, name: str, fault: str, twin: Path) -> None:
    """Plant `fault` in the layer `name` of an ONNX file, matched with the TFLite file `twin`."""
    model = onnx.load(file)
    place = layers_onnx.places(file.read_bytes(), opened.layers(twin.read_bytes()))[NAMES.index(name)]
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {node.output[0]: node for node in model.graph.node}
    readers = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.output[0] in {n.output[0] for n in place.dequantize}]
    quantize = producers[place.tensor]

    def change(node, position: int, function: Callable[[np.ndarray], np.ndarray]) -> None:
        value = function(onnx.numpy_helper.to_array(constants[node.input[position]]))
        new = f"planted_{len(model.graph.initializer)}"
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, new))
        node.input[position] = new

    def wider(value: np.ndarray) -> np.ndarray:
        return (value * 1.05).astype(np.float32)

    if fault in ("output scale", "written scale", "read scale"):
        for node in ([] if fault == "read scale" else [quantize]) + ([] if fault == "written scale" else readers):
            change(node, 1, wider)
    elif fault == "zero point":
        for node in (quantize, *readers):
            change(node, 2, lambda value: value + np.uint8(9))
    else:
        core = quantize
        while core.op_type not in ("Conv", "Gemm"):
            core = producers[core.input[0]]
        weights = producers[core.input[1]]
        if fault == "weight scale":
            change(weights, 1, wider)
        else:
            change(weights, 0, lambda value: np.where(np.abs(value) < 40, value + 60, value).astype(np.int8))
    onnx.save(model, file)


EVERYWHERE = ("stem", "block3_depthwise", "block5_pointwise", "pool", "logits")
WEIGHTED = tuple(name for name in EVERYWHERE if name != "pool")
"""Each fault is planted in several layers at once: a comparison of layers alone has to tell all of them from all others."""


def _held_against(bundle: Path, names: tuple[str, ...]) -> None:
    """Hold the suspects to the layers in which faults were planted: these, and no other."""
    reseal(bundle)
    pair = pairs_of(looked(bundle))[INT8["onnx"], "onnxruntime"]
    assert pair["outcome"] == "compared" and pair["first_part"] == names[0]
    assert suspects(pair) == list(names), [(row["layer"], row["suspect"]) for row in pair["rows"]]


@pytest.mark.parametrize(("fault", "names"), [("output scale", EVERYWHERE), ("zero point", EVERYWHERE), ("weight scale", WEIGHTED), ("weight", WEIGHTED)])
def test_faults_in_the_tflite_file_are_held_against_their_layers_alone(int8: Path, fault: str, names: tuple[str, ...]) -> None:
    for name in names:
        edit_tflite(int8 / INT8["tflite"], name, fault)
    _held_against(int8, names)


@pytest.mark.parametrize(
    ("fault", "names"),
    [(fault, EVERYWHERE) for fault in ("output scale", "written scale", "read scale", "zero point")] + [(fault, WEIGHTED) for fault in ("weight scale", "weight")],
)
def test_faults_in_the_onnx_file_are_held_against_their_layers_alone(int8: Path, fault: str, names: tuple[str, ...]) -> None:
    for name in names:
        edit_onnx(int8 / INT8["onnx"], name, fault, int8 / INT8["tflite"])
    _held_against(int8, names)


@pytest.mark.parametrize("name", ["block2_pointwise", "block8_depthwise"])
def test_one_wrong_scale_is_named(cli: Cli, int8: Path, name: str) -> None:
    edit_onnx(int8 / INT8["onnx"], name, "weight scale", int8 / INT8["tflite"])
    _held_against(int8, (name,))
    done = cli("verify", int8, "--layers", "--runtime", "onnxruntime", "-q", code=1)
    assert done.err == f"melanoma-edge: 1 suspect layer: {name} ({INT8['onnx']} on onnxruntime against int8 TFLite)\n"
    assert f"they part first at {name}; suspect: {name}: off by up to" in " ".join(done.out.split())


def test_faults_in_several_layers_are_told_apart_against_the_network(cli: Cli, int8: Path, run: Path) -> None:
    planted = {"block2_depthwise": "weight scale", "block4_pointwise": "zero point", "block7_depthwise": "weight", "pool": "output scale", "logits": "weight scale"}
    for name, fault in planted.items():
        edit_tflite(int8 / INT8["tflite"], name, fault)
    reseal(int8)
    done = cli("verify", int8, "--layers", "--run", run, "--runtime", "litert", "-q", code=1)
    [pair] = pairs_of(read_json(int8 / "evidence" / "layers.json")).values()
    assert pair["reference"] == "keras-qat" and suspects(pair) == list(planted)
    assert pair["first_part"] in NAMES[: NAMES.index("block2_depthwise") + 1]
    [line] = done.err.splitlines()
    assert line.startswith(f"melanoma-edge: 5 suspect layers: block2_depthwise ({INT8['tflite']} on litert against keras-qat), block4_pointwise")
    assert all(f"suspect: {name}:" in " ".join(done.out.split()) for name in planted)
    assert all(row["end_to_end"]["off"] > 0.01 for row in pair["rows"][NAMES.index("block2_depthwise") :])


def test_a_fault_in_a_float_file_is_found(copy: Path) -> None:
    file = copy / ONNX[0]
    model = onnx.load(file)
    kernels = [node.input[1] for node in model.graph.node if node.op_type == "Conv"]
    [tensor] = [tensor for tensor in model.graph.initializer if tensor.name == kernels[6]]
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(1.01), tensor.name))
    onnx.save(model, file)
    reseal(copy)
    pair = pairs_of(looked(copy))[ONNX[0], "onnxruntime"]
    assert suspects(pair) == [NAMES[7]] and pair["first_part"] == NAMES[7] and pair["unit"] == "share of range"
