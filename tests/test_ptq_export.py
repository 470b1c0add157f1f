"""Exporting with int8 quantized after training, and with NCHW input: what a user gets, read back with other tools."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import CLASSES, SETTINGS, Cli, Done, once, read_json, validate
from test_export_cli import artifacts, logits, network_input, operators
from tiny_run import write_run

from melanoma_edge.errors import BadInput
from melanoma_edge.proof.export_plan import plan

pytestmark = pytest.mark.xdist_group("compared")  # its bundle takes a minute, for which the other worker need not wait

SIZE = SETTINGS["image_size"]
NAMES = ("demo-float32.tflite", "demo-int8.tflite", "demo-int8-ptq.tflite", "demo-float32.onnx", "demo-int8.onnx", "demo-int8-ptq.onnx")
PTQ = "demo-int8-ptq.tflite"


@pytest.fixture(scope="module")
def compared(cli: Cli, run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A bundle with int8 of both kinds beside float32, its ONNX files NCHW, and what exporting printed."""

    def make(folder: Path) -> dict:
        options = ["--precision", "float32,int8,int8-ptq", "--layout", "nchw", "--licence", "CC0 1.0", "--out", folder / "compared.bundle", "--json"]
        return asdict(cli("export", run, *options))

    folder, done = once(tmp_path_factory, "compared", make)
    return folder / "compared.bundle", Done(**done)


@pytest.fixture(scope="module")
def pictures(drawn: Path) -> list[Path]:
    return [file for name in CLASSES for file in sorted((drawn / name).glob("*.png"))[:6]]


def turned_logits(model: Path, inputs: np.ndarray) -> np.ndarray:
    """Run an NCHW model of ONNX directly."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    dtype = np.uint8 if session.get_inputs()[0].type == "tensor(uint8)" else np.float32
    planes = [np.ascontiguousarray(np.moveaxis(picture, -1, 0)[np.newaxis], dtype=dtype) for picture in inputs]
    return np.concatenate([session.run(["logits"], {"image": plane})[0] for plane in planes])


def test_the_manifest_names_the_training_pictures_of_the_calibration(compared: tuple[Path, Done], run: Path) -> None:
    validate(read_json(compared[0] / "manifest.json"), "manifest")
    found = artifacts(compared[0])
    assert tuple(found) == NAMES
    with open(run / "split.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "train"]
    seed = read_json(compared[0] / "manifest.json")["recipe"]["seed"]
    order = sorted({row["sha256"] for row in rows}, key=lambda sha256: hashlib.sha256(f"{seed} {sha256}".encode()).digest())
    label = {row["sha256"]: row["label"] for row in rows}
    expected = [sha256 for name in CLASSES for sha256 in [one for one in order if label[one] == name][:50]]
    assert len(expected) == 200, "four classes of fifty"
    record = {"pictures": 200, "per_class": dict.fromkeys(CLASSES, 50), "sha256": hashlib.sha256("\n".join(sorted(expected)).encode()).hexdigest()}
    assert {name: entry["calibration"] for name, entry in found.items()} == {name: record if "ptq" in name else None for name in NAMES}
    assert {name: entry["layout"] for name, entry in found.items()} == {name: "NCHW" if name.endswith("onnx") else "NHWC" for name in NAMES}


def test_layers_of_a_file_with_channels_first_are_compared_too(cli: Cli, compared: tuple[Path, Done], tmp_path: Path) -> None:
    done = cli("verify", compared[0], "--layers", "--runtime", "onnxruntime", "--json", "-q")
    pairs = {pair["artifact"]: pair for pair in done.json["pairs"]}
    assert {pair["outcome"] for pair in pairs.values()} == {"compared"} and pairs.keys() >= {"demo-int8.onnx", "demo-float32.onnx"}
    assert pairs["demo-int8.onnx"]["first_part"] is None and len(pairs["demo-int8.onnx"]["rows"]) > 15


def test_every_gate_held_and_only_float32_stands_behind_ptq(compared: tuple[Path, Done]) -> None:
    gates = {(gate["name"], gate["artifact"]): gate for gate in compared[1].json["gates"]}
    assert {gate["outcome"] for gate in gates.values()} <= {"passed", "inconclusive", "not run"}
    validate(compared[1].json, "parity")
    alone = gates["int8-ptq", PTQ]
    expected = "passed" if alone["figures"]["top1_agreement"] >= 0.99 else "inconclusive"
    assert (alone["outcome"], alone["reference"]) == (expected, "keras-float") and "compared with float32 only" in alone["requirement"]
    for name, twin in (("demo-int8.onnx", "int8 TFLite"), ("demo-int8-ptq.onnx", "int8-ptq TFLite")):
        assert (gates["int8-onnx", name]["outcome"], gates["int8-onnx", name]["reference"]) == ("passed", twin)
        assert gates["int8-onnx", name]["figures"]["max_quanta"] == 0 and gates["int8-onnx", name]["pictures"] > 100
        census = gates["census", name]
        assert census["outcome"] == "passed" and census["figures"]["transposes_in_file"] == 0 and census["figures"]["in_float"] == 0
    assert {gate["artifact"] for (name, _), gate in gates.items() if name == "task"} == {name for name in NAMES if "int8" in name}
    assert all(gates["golden", name]["outcome"] == "passed" for name in NAMES)


def test_the_file_after_training_computes_in_integers_from_the_pictures_bytes(compared: tuple[Path, Done]) -> None:
    layers = [constants for name, constants in operators(compared[0] / PTQ) if name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")]
    assert len(layers) == 20 and all([kind for kind, _ in constants] == ["INT8", "INT32"] for constants in layers)
    entry = artifacts(compared[0])[PTQ]
    assert entry["input"] == {"name": "image", "dtype": "uint8", "shape": [1, SIZE, SIZE, 3], "quantization": {"scale": 1.0, "zero_point": 0}}
    assert entry["output"]["dtype"] == "float32" and entry["quantum"] > 0


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("onnx")])
def test_nchw_files_give_the_golden_logits_to_any_tool_that_turns_the_picture(compared: tuple[Path, Done], name: str) -> None:
    bundle = compared[0]
    model = onnx.load(bundle / name)
    onnx.checker.check_model(model, full_check=True)
    assert [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, SIZE, SIZE] == artifacts(bundle)[name]["input"]["shape"]
    assert not any(node.op_type == "Transpose" for node in model.graph.node)
    assert any("NCHW" in entry.value for entry in model.metadata_props) and not any("NHWC" in entry.value for entry in model.metadata_props)
    golden = read_json(bundle / "golden" / "golden.json")
    inputs = np.stack([network_input(bundle / picture["file"]) for picture in golden["pictures"]])
    found, expected = turned_logits(bundle / name, inputs), np.array(golden["logits"][name], np.float32)
    np.testing.assert_allclose(found, expected, rtol=0, atol=0 if "int8" in name else 1e-4 * np.ptp(expected))
    if "int8" in name:
        np.testing.assert_array_equal(found, logits(bundle / name.replace("onnx", "tflite"), inputs))


def test_both_layouts_are_the_same_network(compared: tuple[Path, Done], bundle: Path) -> None:
    for name in ("demo-float32.onnx", "demo-int8.onnx"):
        counts = [Counter(node.op_type for node in onnx.load(folder / name).graph.node) for folder in (bundle, compared[0])]
        assert counts[0] - counts[1] == Counter(Transpose=1) and not counts[1] - counts[0]
    assert artifacts(bundle)["demo-int8.tflite"]["sha256"] == artifacts(compared[0])["demo-int8.tflite"]["sha256"]


def test_predict_and_bench_feed_an_nchw_file_as_it_wants(cli: Cli, compared: tuple[Path, Done], bundle: Path, pictures: list[Path], tmp_path: Path) -> None:
    turned, plain = (cli("predict", folder, *pictures, "--artifact", "demo-int8.onnx", "--json").json["results"] for folder in (compared[0], bundle))
    assert turned == plain and len({json.dumps(result["probabilities"]) for result in plain}) == len(pictures)
    copy = tmp_path / "copy.bundle"
    copy.symlink_to(compared[0])
    rows = cli("bench", copy, "--quick", "--runtime", "onnxruntime", "--json").json["host"]["runtimes"][0]["artifacts"]
    assert [row["name"] for row in rows] == [name for name in NAMES if name.endswith("onnx")] and all(row["p50_ms"] > 0 for row in rows)


def test_the_comparison_is_that_of_the_test_part(compared: tuple[Path, Done], run: Path, drawn: Path) -> None:
    bundle, manifest = compared[0], read_json(compared[0] / "manifest.json")
    with open(run / "split.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "test"]
    inputs, labels = np.stack([network_input(drawn / row["path"]) for row in rows]), np.array([manifest["classes"].index(row["label"]) for row in rows])
    top = {name: logits(bundle / name, inputs).argmax(axis=1) for name in NAMES[:3]}  # uniform priors: the decision's order is the logits'
    recall = {name: np.mean([(top[name] == index)[labels == index].mean() for index in range(len(CLASSES))]) for name in top}
    pairs = [("demo-float32.tflite", "demo-int8.tflite"), ("demo-float32.tflite", PTQ), ("demo-int8.tflite", PTQ)]
    assert [(one["reference"], one["candidate"]) for one in manifest["comparisons"]] == pairs
    for one, (reference, candidate) in zip(manifest["comparisons"], pairs):
        assert one["pictures"] == len(rows) and one["lesions"] == len({row["group"] for row in rows})
        assert one["flips"] == (top[reference] != top[candidate]).sum()
        loss = one["losses"]["balanced_accuracy"]
        assert loss["value"] == pytest.approx(recall[reference] - recall[candidate]) and loss["low"] <= loss["value"] <= loss["high"]


def test_card_and_report_show_them_side_by_side(cli: Cli, compared: tuple[Path, Done], tmp_path: Path) -> None:
    bundle = compared[0]
    card, manifest = (bundle / "MODEL_CARD.md").read_text(encoding="utf-8"), read_json(bundle / "manifest.json")
    assert "## Quantized after training, or during it" in card and artifacts(bundle)[PTQ]["calibration"]["sha256"] in card
    for words, one in zip(("int8 against float32", "int8-ptq against float32", "int8-ptq against int8"), manifest["comparisons"]):
        [line] = [line for line in card.splitlines() if line.startswith(f"| {words} |")]
        loss = one["losses"]["balanced_accuracy"]
        assert f"| {0 - 100 * loss['value']:+.1f} ({0 - 100 * loss['high']:+.1f} to {0 - 100 * loss['low']:+.1f}) |" in line
        assert f"| {one['flips']} |" in line
    cli("report", bundle, "--out", tmp_path / "r.html", "-q")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert all(words in page for words in ("int8 − float32", "int8-ptq − float32", "int8-ptq − int8", "What int8-ptq was calibrated on", "What rounding changes"))


def test_it_is_made_on_request_only_and_needs_no_other_artifact(cli: Cli, run: Path, bundle: Path, compared: tuple[Path, Done], tmp_path: Path) -> None:
    assert not any("ptq" in name for name in artifacts(bundle)) and read_json(bundle / "manifest.json")["comparisons"] == []
    assert "Quantized after training" not in (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    cli("export", run, "--tflite", "--precision", "int8-ptq", "--licence", "CC0 1.0", "--out", tmp_path / "b.bundle", "-q")
    assert tuple(artifacts(tmp_path / "b.bundle")) == (PTQ,)
    assert (tmp_path / "b.bundle" / PTQ).read_bytes() == (compared[0] / PTQ).read_bytes(), "the same bytes alone and beside others"
    manifest = read_json(tmp_path / "b.bundle" / "manifest.json")
    assert manifest["weights"].keys() == {"float"} and manifest["comparisons"] == []


def test_a_layout_that_no_file_can_have_is_refused(cli: Cli, run: Path, tmp_path: Path) -> None:
    line = cli.refused("export", run, "--tflite", "--layout", "nchw", "--out", tmp_path / "b")
    assert line == "NCHW is for onnx files, and none was asked for (tflite): export with --onnx too, or without --layout"
    assert "none was asked for" in cli.refused("export", run, "--precision", "float16", "--layout", "nchw", "--out", tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_without_quantization_aware_training_int8_is_refused_with_the_other_way(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", qat=False)
    assert plan(run, (), ("float32", "int8-ptq")) == [("tflite", "float32"), ("tflite", "int8-ptq"), ("onnx", "float32"), ("onnx", "int8-ptq")]
    assert ("tflite", "int8-ptq") not in plan(run, (), ()) and ("tflite", "float16") in plan(run, (), ())
    with pytest.raises(BadInput, match="or ask for int8-ptq, which is quantized after training"):
        plan(run, (), ("int8",))
