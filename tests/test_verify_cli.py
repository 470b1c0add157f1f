"""Verification as a user does it: what holds, what cannot be tried, and faults planted to be found."""

from __future__ import annotations

import json
import os
import re
import shutil
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
from test_train_cli import split_of

Gates = dict[tuple[str, str], dict[str, Any]]


def gates_of(bundle: Path) -> Gates:
    """Return {(gate, artifact): what came of it} of the last verification."""
    return {(gate["name"], gate["artifact"]): gate for gate in read_json(bundle / "evidence" / "parity.json")["gates"]}


def failed(bundle: Path) -> set[tuple[str, str]]:
    """Return the gates that failed in the last verification."""
    return {key for key, gate in gates_of(bundle).items() if gate["outcome"] == "failed"}


def reseal(bundle: Path) -> None:
    """Write the hashes that the files have now into the manifest, as a forger would."""
    manifest, found = read_json(bundle / "manifest.json"), snapshot(bundle)
    manifest["files"] = {name: found[name] for name in manifest["files"]}
    for artifact in manifest["artifacts"]:
        artifact["sha256"] = found[artifact["path"]]
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


# What holds.


def test_everything_holds_on_labelled_pictures(cli: Cli, bundle: Path, run: Path, drawn: Path, tmp_path: Path) -> None:
    folder = tmp_path / "with-origin.bundle"
    shutil.copytree(bundle, folder)
    (folder / "evidence" / "parity.json").unlink()
    done = cli("verify", folder, "--data", drawn, "--require", "litert", "--require", "task")
    parity = read_json(folder / "evidence" / "parity.json")
    validate(parity, "parity")
    rows = split_of(run)
    unseen = sum(row["part"] == "test" for row in rows)
    assert parity["pictures"] == len(rows) and parity["labelled"] == {"used": len(rows), "seen_in_training": len(rows) - unseen, "unseen": unseen}
    found = gates_of(folder)
    expected = {("golden", name) for name in ("input", *TFLITE, *ONNX)} | {("int8-onnx", ONNX[1]), ("task", TFLITE[3]), ("task", ONNX[1])}
    expected |= {("float32", TFLITE[0]), ("float16", TFLITE[1]), ("dynamic", TFLITE[2]), ("int8", TFLITE[3]), ("float32", ONNX[0])}
    assert expected <= found.keys() and all(found[key]["outcome"] in ("passed", "inconclusive") for key in expected)
    for (name, artifact), gate in found.items():
        if gate["outcome"] == "not run":
            assert (name, artifact) not in expected and gate["reason"] and gate["pictures"] == 0
        else:
            assert gate["requirement"] and gate["pictures"] == (12 if name == "golden" else 0 if name == "census" else unseen if name == "task" else len(rows) + 12)
    assert found["int8", TFLITE[3]]["reference"] == "keras-qat" and found["float32", TFLITE[0]]["reference"] == "keras-float"
    assert found["task", TFLITE[3]]["losses"].keys() == {"balanced_accuracy", "positive_auc", "positive_sensitivity"}
    _shown_as_they_are(done.out, parity["gates"])


def _shown_as_they_are(text: str, gates: list[dict]) -> None:
    """Hold the printed outcomes to the file's: nothing that was not run may look as if it had passed."""
    count = {outcome: sum(gate["outcome"] == outcome for gate in gates) for outcome in ("passed", "failed", "inconclusive", "not run")}
    assert count["not run"] > 0
    assert ", ".join(f"{number} {outcome}" for outcome, number in count.items()) + ";" in text
    assert len(re.findall(r"✓ passed", text)) == count["passed"]
    for gate in gates:
        if gate["outcome"] == "not run":
            assert re.search(rf"not run: {gate['name']}\b", text)


def test_without_the_run_keras_is_compared_on_the_golden_pictures_and_that_is_said(cli: Cli, copy: Path) -> None:
    done = cli("verify", copy, "--json", "-q")
    assert done.json == read_json(copy / "evidence" / "parity.json") and done.json["data"] == "drawn probes"
    validate(done.json, "parity")
    found = gates_of(copy)
    for key in (("float32", TFLITE[0]), ("float16", TFLITE[1]), ("dynamic", TFLITE[2]), ("int8", TFLITE[3]), ("float32", ONNX[0])):
        gate = found[key]
        assert gate["outcome"] == "passed" and gate["measured_on"] == "golden pictures" and gate["pictures"] == 12
        assert gate["reason"] == "compared on the golden pictures only: the run is not known; name it with --run RUN"
    for artifact in (TFLITE[3], ONNX[1]):
        assert found["task", artifact]["outcome"] == "not run" and "--data" in found["task", artifact]["reason"]
    assert found["int8-onnx", ONNX[1]]["pictures"] == 212


def test_a_run_with_other_weights_is_no_reference(cli: Cli, copy: Path, run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    shutil.copy(other / "weights" / "float.safetensors", tmp_path)
    facts = read_json(other / "run.json")
    (other / "weights" / "qat.safetensors").unlink()
    del facts["weights"]["qat"]
    (other / "run.json").write_text(json.dumps(facts))
    assert "has other weights than the bundle was made from" in cli.refused("verify", copy, "--run", other, "-q")
    (copy / "evidence" / "origin.json").write_text(json.dumps({"run": str(other)}))
    gates = cli("verify", copy, "--json", "-q").json["gates"]
    assert any("has other weights than the bundle was made from" in (gate["reason"] or "") for gate in gates)


# What cannot be tried.


def test_a_required_runtime_that_is_not_here_is_exit_3(cli: Cli, copy: Path) -> None:
    if cli("doctor", "--json").json["runtimes"]["onnxruntime-cuda"]["available"]:
        pytest.skip("CUDA works here, so nothing is missing")
    before = snapshot(copy)
    line = cli.refused("verify", copy, "--require", "onnxruntime-cuda", "-q", code=3)
    assert "the runtime onnxruntime-cuda was required but is not here" in line
    assert snapshot(copy) == before


def test_a_required_task_gate_without_labels_is_exit_3(cli: Cli, copy: Path) -> None:
    before = snapshot(copy)
    assert "give labelled pictures with --data" in cli.refused("verify", copy, "--require", "task", "-q", code=3)
    assert snapshot(copy) == before


def test_a_required_runtime_that_no_gate_used_is_exit_3(cli: Cli, copy: Path, run: Path, tmp_path: Path) -> None:
    report = tmp_path / "gates.xml"
    done = cli("verify", copy, "--require", "keras", "--junit", report, "-q", code=3)
    assert "the runtime keras was required but not compared with: the run is not known; name it with --run RUN" in done.err
    assert done.err.count("\n") == 1 and "passed" in done.out, "what was carried out is shown and kept all the same"
    assert "--require keras" in read_json(copy / "evidence" / "parity.json")["command"]
    assert 'failures="1"' in report.read_text() and "the runtime keras was required" in report.read_text()
    cli("verify", copy, "--require", "keras", "--run", run, "-q")
    one = tmp_path / "one.bundle"
    cli("export", run, "--tflite", "--precision", "float32", "--out", one, "-q")
    done = cli("verify", one, "--require", "onnxruntime", "-q", code=3)
    assert "the runtime onnxruntime was required but no gate used it" in done.err


@pytest.mark.parametrize("content", ["[]", '{"run": 3}'])
def test_an_origin_that_names_no_run_is_no_origin(cli: Cli, copy: Path, content: str) -> None:
    (copy / "evidence" / "origin.json").write_text(content)
    cli("verify", copy, "-q")
    assert "does not name the run" in gates_of(copy)["int8", "demo-int8.tflite"]["reason"]


def test_golden_logits_that_are_missing_are_refused_or_not_run(cli: Cli, copy: Path) -> None:
    golden = read_json(copy / "golden" / "golden.json")
    del golden["logits"]["keras-qat"]
    (copy / "golden" / "golden.json").write_text(json.dumps(golden))
    reseal(copy)
    cli("verify", copy, "-q")
    gate = gates_of(copy)["int8", "demo-int8.tflite"]
    assert gate["outcome"] == "not run" and "the bundle holds no logits of keras-qat" in gate["reason"]
    del golden["logits"]["demo-int8.tflite"]
    (copy / "golden" / "golden.json").write_text(json.dumps(golden))
    reseal(copy)
    assert "has no logits of demo-int8.tflite" in cli.refused("verify", copy, "-q")


def test_the_exit_code_is_that_of_the_gates_when_nobody_reads(cli: Cli, copy: Path) -> None:
    for expected in (0, 1):
        for options in ([], ["--json"]):
            reading, writing = os.pipe()
            os.close(reading)
            process = cli.start("verify", copy, "-q", *options, stdout=writing)
            os.close(writing)
            process.communicate(timeout=300)
            assert process.returncode == expected
        golden = read_json(copy / "golden" / "golden.json")
        golden["logits"]["demo-float32.onnx"][0][0] += 1.0
        (copy / "golden" / "golden.json").write_text(json.dumps(golden))
        reseal(copy)


def test_an_unknown_runtime_cannot_be_required(cli: Cli, copy: Path) -> None:
    assert "there is no runtime 'nonsense' to require: expected one of litert" in cli.refused("verify", copy, "--require", "nonsense", "-q")


# Planted faults, behind hashes that are right.


def _verified(cli: Cli, bundle: Path) -> str:
    """Verify a forged bundle, which must fail, and return the line that says so."""
    reseal(bundle)
    done = cli("verify", bundle, "-q", code=1)
    validate(read_json(bundle / "evidence" / "parity.json"), "parity")
    [line] = done.err.splitlines()
    assert all(f"{name} ({artifact} on " in line for name, artifact in failed(bundle))
    _shown_as_they_are(done.out, list(gates_of(bundle).values()))
    return line


def test_a_filter_with_its_sign_flipped_is_found(cli: Cli, copy: Path) -> None:
    file = copy / "demo-float32.tflite"
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(file.read_bytes(), 0))
    graph = model.subgraphs[0]
    kernels = [graph.tensors[operator.inputs[1]] for operator in graph.operators if len(operator.inputs) == 3]
    kernel = next(tensor for tensor in kernels if int(np.prod(tensor.shape)) > 4096)
    values = np.frombuffer(bytes(model.buffers[kernel.buffer].data), np.float32).copy()
    values[: values.size // kernel.shape[0]] *= -1
    model.buffers[kernel.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    file.write_bytes(bytes(builder.Output()))
    assert "3 gates failed" in _verified(cli, copy)
    assert failed(copy) == {("golden", file.name), ("float32", file.name), ("probabilities", "demo-float32-probabilities.tflite")}


def test_a_scale_that_is_five_percent_off_is_found(cli: Cli, copy: Path) -> None:
    file = copy / "demo-int8.onnx"
    model = onnx.load(file)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    kernels = [n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in constants and len(constants[n.input[0]].dims) > 1]
    scale = constants[kernels[len(kernels) // 2].input[1]]
    scale.CopyFrom(onnx.numpy_helper.from_array((onnx.numpy_helper.to_array(scale) * 1.05).astype(np.float32), scale.name))
    onnx.save(model, file)
    _verified(cli, copy)
    assert failed(copy) == {("golden", file.name), ("int8-onnx", file.name)}
    assert gates_of(copy)["int8-onnx", file.name]["figures"]["max_quanta"] > 1


def test_another_decoding_or_resize_is_found(cli: Cli, copy: Path) -> None:
    golden = read_json(copy / "golden" / "golden.json")
    golden["pictures"][4]["input_sha256"] = "0" * 64
    (copy / "golden" / "golden.json").write_text(json.dumps(golden))
    assert "1 gate failed: golden (input on pillow)" in _verified(cli, copy)
    assert failed(copy) == {("golden", "input")}
    gate = gates_of(copy)["golden", "input"]
    assert gate["figures"] == {"pictures_that_differ": 1} and "golden/04.png" in gate["reason"]


def test_one_golden_logit_one_quantum_off_is_found(cli: Cli, copy: Path) -> None:
    golden = read_json(copy / "golden" / "golden.json")
    quantum = next(artifact["quantum"] for artifact in read_json(copy / "manifest.json")["artifacts"] if artifact["name"] == TFLITE[3])
    golden["logits"][TFLITE[3]][0][0] += quantum
    (copy / "golden" / "golden.json").write_text(json.dumps(golden))
    _verified(cli, copy)
    assert failed(copy) == {("golden", TFLITE[3])}
    assert gates_of(copy)["golden", TFLITE[3]]["figures"]["max_quanta"] == 1


# Bundles that are not what they should be.


def _altered(bundle: Path) -> None:
    content = bytearray((bundle / "demo-int8.tflite").read_bytes())
    content[-1] ^= 1
    (bundle / "demo-int8.tflite").write_bytes(content)


def _newer(bundle: Path) -> None:
    manifest = read_json(bundle / "manifest.json") | {"schema_version": 3, "novelty": True}
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def _incomplete(bundle: Path) -> None:
    (bundle / "demo-float16.tflite").unlink()


def _without_manifest(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()


def _with_half_a_manifest(bundle: Path) -> None:
    content = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(content[: len(content) // 2])


def _with_a_link(bundle: Path) -> None:
    shutil.move(bundle / "labels.txt", bundle.parent / "labels.txt")
    (bundle / "labels.txt").symlink_to(bundle.parent / "labels.txt")


def _leaving_the_folder(bundle: Path) -> None:
    manifest = read_json(bundle / "manifest.json")
    manifest["files"]["../outside"] = "0" * 64
    (bundle / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (_altered, "demo-int8.tflite was altered"),
        (_newer, "has schema version 3: this melanoma-edge reads up to 2; upgrade"),
        (_incomplete, "demo-float16.tflite is missing or not a plain file: the bundle is incomplete"),
        (_without_manifest, "manifest.json is missing"),
        (_with_half_a_manifest, "manifest.json cannot be read as a bundle manifest"),
        (_with_a_link, "labels.txt is missing or not a plain file"),
        (_leaving_the_folder, "'../outside' leaves the bundle"),
    ],
)
def test_a_bundle_that_is_not_whole_is_refused(cli: Cli, copy: Path, damage: Callable[[Path], None], found: str) -> None:
    damage(copy)
    before = snapshot(copy)
    assert found in cli.refused("verify", copy, "-q")
    assert snapshot(copy) == before


@pytest.mark.parametrize("options", [[], ["--layers"]])
def test_a_table_without_its_pictures_is_refused(cli: Cli, copy: Path, options: list[str]) -> None:
    line = cli.refused("verify", copy, "--metadata", "nowhere.csv", *options, "-q")
    assert line == "--metadata nowhere.csv is the table of a data set, and none is given: name its folder with --data, or leave --metadata out"
