"""Exporting as a user does it; what lies in the bundle is read with other tools than those that wrote it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from conftest import SETTINGS, Cli, Done, read_json, snapshot, validate, wait_until
from PIL import Image
from resize_reference import to_input
from test_train_cli import split_of

from melanoma_edge import NOTICE

SIZE = SETTINGS["image_size"]
TFLITE = ("demo-float32.tflite", "demo-float16.tflite", "demo-dynamic.tflite", "demo-int8.tflite")
ONNX = ("demo-float32.onnx", "demo-int8.onnx")


def network_input(file: Path) -> np.ndarray:
    """Return the bytes that the input contract makes of an RGB picture, without the library."""
    with Image.open(file) as image:
        assert image.mode == "RGB"
        return to_input(np.asarray(image), SIZE)


def logits(model: Path, pictures: np.ndarray) -> np.ndarray:
    """Run a model directly, one picture at a time, and return float32 [pictures, classes]."""
    if model.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        dtype = np.uint8 if session.get_inputs()[0].type == "tensor(uint8)" else np.float32
        return np.concatenate([session.run(["logits"], {"image": picture[np.newaxis].astype(dtype)})[0] for picture in pictures])
    interpreter = Interpreter(str(model), num_threads=1)
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    found = []
    for picture in pictures:
        interpreter.set_tensor(taken["index"], picture[np.newaxis].astype(taken["dtype"]))
        interpreter.invoke()
        found.append(interpreter.get_tensor(given["index"])[0])
    return np.stack(found)


def operators(model: Path) -> Iterator[tuple[str, list[tuple[str, np.ndarray]]]]:
    """Yield (operator, its constant inputs as (type, bytes)) of a TFLite file."""
    parsed = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model.read_bytes(), 0))
    codes = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    types = {value: name for name, value in vars(schema.TensorType).items() if not name.startswith("_")}
    graph = parsed.subgraphs[0]
    for operator in graph.operators:
        code = parsed.operatorCodes[operator.opcodeIndex]
        tensors = [graph.tensors[index] for index in operator.inputs if index >= 0]
        constants = [(types[tensor.type], parsed.buffers[tensor.buffer].data) for tensor in tensors]
        yield codes[max(code.builtinCode, code.deprecatedBuiltinCode)], [(kind, data) for kind, data in constants if data is not None and len(data)]


def artifacts(bundle: Path) -> dict[str, dict[str, Any]]:
    """Return the manifest's entry of each artifact."""
    return {artifact["name"]: artifact for artifact in read_json(bundle / "manifest.json")["artifacts"]}


def test_every_gate_held_at_export(exported: tuple[Path, Done]) -> None:
    bundle, done = exported
    assert done.json == read_json(bundle / "evidence" / "parity.json")
    assert {gate["outcome"] for gate in done.json["gates"]} <= {"passed", "inconclusive", "not run"}
    assert {(gate["name"], gate["artifact"]) for gate in done.json["gates"] if gate["outcome"] == "passed"} >= {
        *(("golden", name) for name in ("input", *TFLITE, *ONNX)),
        *((re.split("[-.]", name)[1], name) for name in (*TFLITE, ONNX[0])),
        ("int8-onnx", "demo-int8.onnx"),
        *(("probabilities", name.replace(".tflite", "-probabilities.tflite")) for name in TFLITE),
    }


def test_the_manifest_is_valid_and_seals_every_file(bundle: Path, run: Path) -> None:
    manifest = read_json(bundle / "manifest.json")
    validate(manifest, "manifest")
    files = {name: digest for name, digest in snapshot(bundle).items() if name != "manifest.json" and not name.startswith("evidence/")}
    assert manifest["files"] == files
    assert tuple(artifacts(bundle)) == (*TFLITE, *ONNX)
    for name, artifact in artifacts(bundle).items():
        assert artifact["sha256"] == files[name] and artifact["bytes"] == (bundle / name).stat().st_size
    facts = read_json(run / "run.json")
    assert manifest["weights"] == facts["weights"] and manifest["data"]["sha256"] == facts["data_sha256"]
    assert manifest["classes"] == facts["classes"] and manifest["licence"] == "CC0 1.0" and manifest["notice"] == NOTICE
    assert manifest["name"] == "lesions"
    assert not any(str(bundle.parent) in text for text in ((bundle / name).read_text() for name in ("manifest.json", "MODEL_CARD.md")))


def test_the_golden_set_is_valid(bundle: Path) -> None:
    golden = read_json(bundle / "golden" / "golden.json")
    validate(golden, "golden")
    assert set(golden["logits"]) == {*TFLITE, *ONNX, "keras-float", "keras-qat"}  # and none of the probabilities
    assert [picture["file"] for picture in golden["pictures"]] == sorted(f"golden/{file.name}" for file in (bundle / "golden").glob("*.png"))


def test_labels_stand_in_the_order_of_the_logits(bundle: Path, run: Path) -> None:
    labels = (bundle / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert labels == read_json(run / "run.json")["classes"] == sorted({row["label"] for row in split_of(run)})


def test_seen_lists_training_and_validation_and_nothing_of_the_test_part(bundle: Path, run: Path) -> None:
    seen = set((bundle / "seen.txt").read_text().split())
    rows = split_of(run)
    used = [row for row in rows if row["part"] != "test"]
    lesions = {hashlib.sha256(f"lesion:{row['lesion']}".encode()).hexdigest() for row in used}
    assert seen == {row["sha256"] for row in used} | lesions | {f"like:{row['fingerprint']}" for row in used}
    assert not seen & {row["sha256"] for row in rows if row["part"] == "test"}


@pytest.mark.parametrize("name", TFLITE)
def test_tflite_takes_a_picture_and_gives_logits(bundle: Path, name: str) -> None:
    interpreter = Interpreter(str(bundle / name))
    [taken], [given] = interpreter.get_input_details(), interpreter.get_output_details()
    expected = np.uint8 if name == "demo-int8.tflite" else np.float32
    assert (taken["name"], taken["shape"].tolist(), taken["dtype"]) == ("image", [1, SIZE, SIZE, 3], expected)
    assert taken["quantization"] == ((1.0, 0) if expected is np.uint8 else (0.0, 0))
    assert (given["name"], given["shape"].tolist(), given["dtype"]) == ("logits", [1, 4], np.float32)
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["image"], "outputs": ["logits"]}}
    entry = artifacts(bundle)[name]
    assert entry["input"]["dtype"] == np.dtype(expected).name and entry["input"]["shape"] == [1, SIZE, SIZE, 3]
    assert entry["input"]["quantization"] == ({"scale": 1.0, "zero_point": 0} if expected is np.uint8 else None)


@pytest.mark.parametrize("name", ONNX)
def test_onnx_is_valid_fixed_and_says_what_it_is(bundle: Path, run: Path, name: str) -> None:
    model = onnx.load(bundle / name)
    onnx.checker.check_model(model, full_check=True)
    [taken], [given] = model.graph.input, model.graph.output
    assert (taken.name, [size.dim_value for size in taken.type.tensor_type.shape.dim]) == ("image", [1, SIZE, SIZE, 3])
    assert (given.name, [size.dim_value for size in given.type.tensor_type.shape.dim]) == ("logits", [1, 4])
    assert taken.type.tensor_type.elem_type == (onnx.TensorProto.UINT8 if "int8" in name else onnx.TensorProto.FLOAT)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["notice"] == NOTICE and properties["classes"].split("\n") == read_json(run / "run.json")["classes"]
    assert properties["input"] == f"{SIZE} x {SIZE} RGB, 0..255, NHWC" and properties["output"] == "logits"
    # Empty fields are never written: tf2onnx writes them on some nodes, and on other ones the next time.
    assert not [node.name for node in model.graph.node if node.HasField("doc_string") or node.HasField("domain") and not node.domain]


@pytest.mark.parametrize("name", [*TFLITE, *ONNX])
def test_the_golden_logits_come_again_outside_of_the_tool(bundle: Path, name: str) -> None:
    golden = read_json(bundle / "golden" / "golden.json")
    pictures = np.stack([network_input(bundle / picture["file"]) for picture in golden["pictures"]])
    assert [hashlib.sha256(picture.tobytes()).hexdigest() for picture in pictures] == [picture["input_sha256"] for picture in golden["pictures"]]
    found, expected = logits(bundle / name, pictures), np.array(golden["logits"][name], np.float32)
    if "int8" in name:
        np.testing.assert_array_equal(found, expected)
        quantum = artifacts(bundle)[name]["quantum"]
        np.testing.assert_allclose(found / quantum, np.rint(found / quantum), atol=1e-3)
        assert len(np.unique(found)) > 20
    else:
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.ptp(expected))
        assert np.ptp(expected) > 1


@pytest.mark.parametrize("name", ["demo-int8.tflite", "demo-float32.onnx"])
def test_the_scores_are_those_of_the_artifact_on_the_test_part(bundle: Path, run: Path, drawn: Path, name: str) -> None:
    rows, manifest = [row for row in split_of(run) if row["part"] == "test"], read_json(bundle / "manifest.json")
    found = logits(bundle / name, np.stack([network_input(drawn / row["path"]) for row in rows])).argmax(axis=1)
    hits = found == [manifest["classes"].index(row["label"]) for row in rows]
    scores = artifacts(bundle)[name]["scores"]
    assert scores["pictures"] == len(rows) == manifest["data"]["pictures"]["test"]
    assert scores["accuracy"]["value"] == pytest.approx(hits.mean()) and hits.mean() > 0.3
    assert scores["lesions"] == len({row["group"] for row in rows})


def test_int8_holds_no_float_weights(bundle: Path) -> None:
    found = list(operators(bundle / "demo-int8.tflite"))
    convolutions = [constants for name, constants in found if name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")]
    assert len(convolutions) == 20
    assert all([kind for kind, _ in constants] == ["INT8", "INT32"] for constants in convolutions)
    floats = sum(len(data) for _, constants in found for kind, data in constants if kind.startswith("FLOAT"))
    weights = sum(len(constants[0][1]) for constants in convolutions)
    assert floats == 0 and weights == artifacts(bundle)["demo-int8.tflite"]["weight_bytes"]["int8"]
    assert (bundle / "demo-int8.tflite").stat().st_size < 0.5 * (bundle / "demo-float32.tflite").stat().st_size


def test_float16_holds_float16_weights(bundle: Path) -> None:
    kinds: dict[str, int] = {}
    for _, constants in operators(bundle / "demo-float16.tflite"):
        for kind, data in constants:
            kinds[kind] = kinds.get(kind, 0) + len(data)
    entry = artifacts(bundle)["demo-float16.tflite"]
    assert kinds["FLOAT16"] == entry["weight_bytes"]["float16"] and kinds["FLOAT16"] > 0.99 * sum(kinds.values())


def test_dynamic_holds_int8_weights_where_the_bytes_are(bundle: Path) -> None:
    first = [constants[0] for name, constants in operators(bundle / "demo-dynamic.tflite") if name == "CONV_2D"]
    sizes = {kind: [len(data) // (1 if kind == "INT8" else 4) for found, data in first if found == kind] for kind in ("INT8", "FLOAT32")}
    assert len(sizes["INT8"]) >= 5 and min(sizes["INT8"]) >= 4096 > max(sizes["FLOAT32"])


def test_int8_onnx_holds_the_int8_weights_of_the_tflite(bundle: Path) -> None:
    graph = onnx.load(bundle / "demo-int8.onnx").graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    kernels = []
    for node in graph.node:
        if node.op_type in ("Conv", "MatMul", "Gemm"):
            source = producers[node.input[1]]
            while source.op_type in ("Transpose", "Reshape"):
                source = producers[source.input[0]]
            assert source.op_type == "DequantizeLinear", node.name
            kernels.append(constants[source.input[0]])
    assert len(kernels) == 20 and {kernel.dtype.name for kernel in kernels} == {"int8"}
    theirs = [np.frombuffer(bytes(c[0][1]), np.int8) for name, c in operators(bundle / "demo-int8.tflite") if c and c[0][0] == "INT8"]
    assert sorted(kernel.size for kernel in kernels) == sorted(kernel.size for kernel in theirs)
    assert sorted(int(kernel.astype(int).sum()) for kernel in kernels) == sorted(int(kernel.astype(int).sum()) for kernel in theirs)


def test_the_card_says_what_it_is_not_and_carries_the_manifests_figures(bundle: Path) -> None:
    card, manifest = (bundle / "MODEL_CARD.md").read_text(encoding="utf-8"), read_json(bundle / "manifest.json")
    assert card.startswith("# lesions\n") and f"**{NOTICE}**" in card and NOTICE.startswith("Not a medical device.")
    assert "give ONNX Runtime the session entry `session.x64quantprecision` = `1` for the int8 ONNX model" in card
    assert "no lesion and no copy stands in two parts" in card and manifest["data"]["with_lesion_id"] == manifest["data"]["pictures"]
    pictures = sum(manifest["data"]["pictures"].values())
    assert manifest["data"]["licences"] == {"CC-0": pictures} and manifest["data"]["attributions"] == {"melanoma-edge samples": pictures}
    assert f"Licences of the pictures: CC-0 ({pictures})." in card and f"Pictures by: melanoma-edge samples ({pictures})." in card
    assert manifest["data"]["sha256"] in card and all(name in card for name in manifest["classes"])
    keys = ("accuracy", "balanced_accuracy", "macro_auc", "positive_auc", "positive_sensitivity_at_90_specificity", "ece", "ece_at_priors")
    figures_table = card.partition("## Figures on the test part")[2].partition("## ")[0].splitlines()
    for artifact in manifest["artifacts"]:
        [line] = [line for line in figures_table if line.startswith(f"| {artifact['name']} |")]
        cells = [cell.strip() for cell in line.strip("|").split("|")][1:]
        figures = [artifact["scores"][key] for key in keys]
        decided = [artifact["scores"][f"positive_{key}_of_decision"] for key in ("sensitivity", "specificity")]
        shown = [f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})" for figure in (*figures, *decided)]
        assert cells == [*shown[:7], " / ".join(shown[7:])]


def test_the_manifest_says_what_the_threshold_keeps_and_costs_and_what_is_answered_that_is_no_lesion(bundle: Path) -> None:
    card = (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")
    manifest = read_json(bundle / "manifest.json")
    assert manifest["schema_version"] == 2 and manifest["recipe"]["operating_sensitivity"] == 0.9 and manifest["recipe"]["operating_specificity"] is None
    assert "reaches the highest threshold with 90 % sensitivity on validation" in card
    for artifact in manifest["artifacts"]:
        threshold, measured = artifact["decision"]["threshold"], artifact["non_lesions"]
        assert (threshold["rule"], threshold["target"]) == ("sensitivity", 0.9) and threshold["validation_sensitivity"]["value"] >= 0.9
        for name in ("validation_sensitivity", "validation_specificity"):
            assert threshold[name]["low"] < threshold[name]["value"] <= threshold[name]["high"]
        assert measured["pictures"] == sum(measured["per_kind"].values()) == 120
        for rate in measured["rates"]:
            assert rate["answered"] == sum(rate["per_kind"].values()) and rate["per_kind"].keys() == measured["per_kind"].keys()
        assert {rate["method"]: rate["threshold"] for rate in measured["rates"]}["confidence"] == artifact["decision"]["abstention"]["threshold"]
        assert f"| {artifact['name']} | " + " | ".join(f"{rate['answered']} ({rate['answered'] / 120:.0%})" for rate in measured["rates"]) + " |" in card


def test_a_run_that_abstains_by_energy_is_exported_with_it_and_not_with_probabilities(cli: Cli, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    recipe = (tmp_path / "run" / "recipe.toml").read_text(encoding="utf-8")
    (tmp_path / "run" / "recipe.toml").write_text(recipe.replace('abstention = "confidence"', 'abstention = "energy"'), encoding="utf-8")
    line = cli.refused("export", tmp_path / "run", "--tflite", "--head", "probabilities", "--out", tmp_path / "b")
    assert "abstains by energy, and a file that ends in probabilities has none" in line and not (tmp_path / "b").exists()
    cli("export", tmp_path / "run", "--tflite", "--precision", "int8", "--out", tmp_path / "b", "-q")
    [artifact] = artifacts(tmp_path / "b").values()
    abstention, rates = artifact["decision"]["abstention"], {rate["method"]: rate["threshold"] for rate in artifact["non_lesions"]["rates"]}
    assert (abstention["method"], abstention["answered"], abstention["temperature"], rates["energy"]) == ("energy", "at most", 1.0, abstention["threshold"])
    assert artifact["scores"]["coverage_of_decision"]["value"] > 0.5
    validate(read_json(tmp_path / "b" / "manifest.json"), "manifest")


LATER = """
import datetime, time
shift = 1000 * 86_400
now, now_ns, local, greenwich, form, clock = time.time, time.time_ns, time.localtime, time.gmtime, time.strftime, datetime.datetime
time.time = lambda: now() + shift
time.time_ns = lambda: now_ns() + shift * 10**9
time.localtime = lambda seconds=None: local(time.time() if seconds is None else seconds)
time.gmtime = lambda seconds=None: greenwich(time.time() if seconds is None else seconds)
time.strftime = lambda format, *moment: form(format, *(moment or (time.localtime(),)))
class Later(clock):
    now = classmethod(lambda cls, zone=None: clock.now(zone) + datetime.timedelta(seconds=shift))
    utcnow = classmethod(lambda cls: clock.utcnow() + datetime.timedelta(seconds=shift))
datetime.datetime = Later
"""
"""A sitecustomize.py by which Python's clocks are 1,000 days ahead."""


def a_later_day(folder: Path) -> dict[str, str]:
    """Return an environment in which it is 1,000 days later: for all code where `faketime` is here, else for Python's."""
    folder.mkdir()
    faketime = shutil.which("faketime")
    if faketime is not None:
        told = subprocess.run([faketime, "-f", "+1000d", "env"], capture_output=True, text=True, check=True).stdout
        return {**dict(line.split("=", 1) for line in told.splitlines() if line.startswith(("LD_PRELOAD=", "FAKETIME="))), "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    (folder / "sitecustomize.py").write_text(LATER, encoding="utf-8")
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))}


def test_exporting_twice_gives_the_same_bytes(cli: Cli, run: Path, bundle: Path, tmp_path: Path) -> None:
    """On another day, in another zone, language and folder, from a copy of the run, with other hashes and more threads."""
    moved, again = tmp_path / "moved", tmp_path / "else where" / "lesions.bundle"
    shutil.copytree(run, moved)
    for file in (path for path in moved.rglob("*") if path.is_file()):
        os.utime(file, (1_000_000_000, 1_000_000_000))
    (tmp_path / "temporary").mkdir()
    strange = {"TZ": "Pacific/Kiritimati", "LC_ALL": "C", "TMPDIR": str(tmp_path / "temporary"), "COLUMNS": "40"}
    threads = {"OMP_NUM_THREADS": "2", "TF_NUM_INTRAOP_THREADS": "2", "PYTHONHASHSEED": "2"}
    umask = os.umask(0o077)
    try:
        cli("export", moved, "--head", "probabilities", "--out", again, "--licence", "CC0 1.0", "-q", cwd=tmp_path, env={**strange, **threads, **a_later_day(tmp_path / "clock")})
    finally:
        os.umask(umask)
    first, second = ({name: digest for name, digest in snapshot(folder).items() if not name.startswith("evidence/")} for folder in (bundle, again))
    assert first == second and len(first) > 15
    dates = [datetime.fromisoformat(read_json(folder / "evidence" / "parity.json")["date"]) for folder in (bundle, again)]
    assert (dates[1] - dates[0]).days in (999, 1000), "the second export was not made on another day"


def test_nothing_outside_of_evidence_tells_where_or_when_it_was_made(bundle: Path, run: Path) -> None:
    """No path of this machine, no user, host or day in any file: looked for as text, and in the times that zips and PNGs can carry."""
    places = {str(run), str(bundle.parent), str(Path.home()), f"{tempfile.gettempdir()}/tmp", os.uname().nodename, str(Path(__file__).parents[1])}
    told = {word.encode() for word in places if len(word) > 4}
    day = datetime.fromisoformat(read_json(bundle / "evidence" / "parity.json")["date"]).date().isoformat().encode()
    for file in (path for path in bundle.rglob("*") if path.is_file() and "evidence" not in path.parts):
        content = file.read_bytes()
        assert not [word for word in (*told, day) if word in content], file.name
        assert b"tIME" not in content and b"tEXt" not in content, file.name
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                assert {entry.date_time for entry in archive.infolist()} <= {(1980, 1, 1, 0, 0, 0)}, file.name


def test_one_tflite_precision_replaces_what_was_there_when_forced(cli: Cli, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "b.bundle"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    (out / "manifest.json").write_text("of an older bundle")
    assert "exists already" in cli.refused("export", run, "--tflite", "--precision", "float16", "--out", out)
    assert snapshot(tmp_path).keys() == {"b.bundle/mine.txt", "b.bundle/manifest.json"}
    done = cli("export", run, "--tflite", "--precision", "float16", "--out", out, "--force", "-q")
    assert artifacts(out)["demo-float16.tflite"]["probabilities"] is None and not list(out.glob("*probabilities*"))
    assert tuple(artifacts(out)) == ("demo-float16.tflite",) and read_json(out / "manifest.json")["weights"].keys() == {"float"}
    assert not (out / "mine.txt").exists() and list(tmp_path.iterdir()) == [out] and done.err == ""
    gates = read_json(out / "evidence" / "parity.json")["gates"]
    assert {(gate["name"], gate["outcome"]) for gate in gates if gate["artifact"] == "demo-float16.tflite"} == {("golden", "passed"), ("float16", "passed")}


def test_force_replaces_bundles_and_nothing_else(cli: Cli, run: Path, drawn: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(run, mine)
    before = snapshot(tmp_path)
    for out in (mine, tmp_path):
        assert "holds no manifest.json, so no earlier result stands there" in cli.refused("export", mine, "--out", out, "--force", "-q")
    assert snapshot(tmp_path) == before


def test_a_report_replaces_no_file_unless_forced(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "precious.txt"
    file.write_text("precious")
    assert "exists already" in cli.refused("report", bundle, "--out", file, "-q") and file.read_text() == "precious"
    cli("report", bundle, "--out", file, "--force", "-q")
    assert "<html" in file.read_text(encoding="utf-8")


def test_without_a_run_the_newest_finished_one_is_exported(cli: Cli, run: Path, drawn: Path, tmp_path: Path) -> None:
    for name, time in (("older", 1_000), ("newer", 2_000), ("unfinished", 3_000)):
        shutil.copytree(run, tmp_path / "runs" / name)
        os.utime(tmp_path / "runs" / name / "run.json", (time, time))
    unfinished = tmp_path / "runs" / "unfinished" / "run.json"
    unfinished.write_text(unfinished.read_text().replace('"state": "complete"', '"state": "training"'))
    shutil.copytree(drawn, tmp_path / "moved")
    done = cli("export", "--onnx", "--data", "moved", cwd=tmp_path)
    bundle = tmp_path / "bundles" / "newer.bundle"
    assert tuple(artifacts(bundle)) == ONNX and [path.name for path in (tmp_path / "bundles").iterdir()] == ["newer.bundle"]
    assert "demo-int8.onnx" in done.out and "converting demo-float32.onnx" in done.err
    gates = {(gate["name"], gate["artifact"]): gate for gate in read_json(bundle / "evidence" / "parity.json")["gates"]}
    alone = gates["int8-onnx", "demo-int8.onnx"]
    assert alone["outcome"] == "not run" and "no int8 TFLite artifact" in alone["reason"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--onnx", "--precision", "float16"], "there is no onnx artifact of precision float16: expected one of tflite: float32"),
        (["--onnx", "--precision", "float16,dynamic"], "there is no onnx artifact of precision float16, dynamic"),
        (["--onnx", "--head", "probabilities"], "probabilities in the graph are for TFLite files, and none was asked for"),
        (["--precision", "int4"], "there is no precision 'int4': expected some of float32, float16, dynamic, int8"),
    ],
)
def test_what_cannot_be_exported_is_said_and_nothing_is_left(cli: Cli, run: Path, tmp_path: Path, options: list[str], found: str) -> None:
    assert found in cli.refused("export", run, *options, "--out", tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_none_or_not_whole_is_refused(cli: Cli, run: Path, tmp_path: Path) -> None:
    assert "there is no finished run below runs/" in cli.refused("export", cwd=tmp_path)
    assert "is missing: expected a folder that" in cli.refused("export", tmp_path / "nowhere")
    shutil.copytree(run, tmp_path / "run")
    weights = tmp_path / "run" / "weights" / "qat.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    assert "qat.safetensors is missing or was altered" in cli.refused("export", tmp_path / "run", "--out", tmp_path / "b")
    facts = read_json(run / "run.json")
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts | {"schema_version": 3}))
    assert "schema version 3" in cli.refused("export", tmp_path / "run", "--out", tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_pictures_that_changed_or_vanished_are_named(cli: Cli, run: Path, drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn, tmp_path / "data")
    path = next(row["path"] for row in split_of(run) if row["part"] == "validation")
    with Image.open(tmp_path / "data" / path) as image:
        image.putpixel((3, 3), (1, 2, 3))
        image.save(tmp_path / "data" / path)
    line = cli.refused("export", run, "--data", tmp_path / "data", "--out", tmp_path / "b", "-q")
    assert f"{path} changed since the run was trained" in line
    (tmp_path / "data" / path).unlink()
    line = cli.refused("export", run, "--data", tmp_path / "data", "--out", tmp_path / "b", "-q")
    assert path in line and "No such file" in line and "--data" in line
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_an_interrupt_leaves_neither_a_bundle_nor_temporary_files(cli: Cli, run: Path, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    out, err = tmp_path / "out" / "b.bundle", tmp_path / "err.txt"
    with open(err, "wb") as stream:
        process = cli.start("export", run, "--out", out, env={"TMPDIR": str(tmp_path / "tmp")}, stderr=stream)
    wait_until(lambda: "converting demo-float16.tflite" in err.read_text(), process)
    assert any(path.name.startswith(".partial-") for path in out.parent.iterdir())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in err.read_text() and "interrupted" in err.read_text().splitlines()[-1]
    assert list(out.parent.iterdir()) == [] and snapshot(tmp_path / "tmp") == {}


def test_a_full_disk_is_exit_3_and_leaves_nothing(cli: Cli, run: Path, bundle: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")
    golden = sum(file.stat().st_size for file in (bundle / "golden").iterdir())
    size = (golden + (bundle / "demo-float32.tflite").stat().st_size // 2) // 1024  # room for the pictures, not for the model
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(tmp_path)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        line = cli.refused("export", run, "--tflite", "--precision", "float32", "--out", tmp_path / "b.bundle", "-q", code=3)
        assert "the disk is full while writing" in line and "b.bundle" in line
        assert list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
