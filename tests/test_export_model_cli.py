"""A model of one's own, wrapped and proved as a user does it; what comes out is computed again without the library."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from conftest import Cli, once, read_json, validate
from own_models import CLASSES, PER_CLASS, SIZE, SPELT, drawn, keras_zip, layer, network, write_models
from PIL import Image

from melanoma_edge.contract import InputContract
from melanoma_edge.errors import Missing
from melanoma_edge.runtimes import process

pytestmark = pytest.mark.xdist_group("own models")  # wrapping them takes minutes, for which the other worker need not wait

IMAGENET = ["--input-range", "0,1", "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of own_models.py, their labels, and labelled pictures that they know in `pictures`."""
    pytest.importorskip("tensorflow")

    def make(folder: Path) -> None:
        write_models(folder)
        images, labels = drawn(PER_CLASS, 5)
        for number, (image, label) in enumerate(zip(images, labels)):
            (folder / "pictures" / CLASSES[label]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / "pictures" / CLASSES[label] / f"{number}.png")
        shutil.copytree(folder / "pictures" / CLASSES[1], folder / "plain")

    return once(tmp_path_factory, "own-models", make)[0]


@pytest.fixture(scope="session")
def wrapped(cli: Cli, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of v2.keras with every artifact; calibrated on a plain folder, fitted and scored on labelled pictures.

    A random network loses its answers in int8, so the export ends with failed gates for those artifacts, as it must.
    """

    def make(folder: Path) -> None:
        options = ["--input-range", "-1,1", "--calibrate", models / "plain", "--data", models / "pictures", "--out", folder / "v2.bundle"]
        # Five conversions and two starts of TensorFlow: on a machine that is shared this takes longer than any other command.
        with cli.start("export", "--model", models / "v2.keras", "--classes", models / "labels.txt", *options, "--json") as process:
            out, err = process.communicate(timeout=3600)
        failed = (b" failed: int8-ptq (v2-int8-ptq.tflite on litert)", b" int8-ptq (v2-int8-ptq.onnx on onnxruntime)")
        assert process.returncode == 1 and all(gate in err for gate in failed), (out, err)

    return once(tmp_path_factory, "own-wrapped", make)[0] / "v2.bundle"


@pytest.fixture
def copied(wrapped: Path, tmp_path: Path) -> Path:
    """A copy of the bundle to write into."""
    return Path(shutil.copytree(wrapped, tmp_path / "v2.bundle"))


def picture(models: Path, number: int = 0) -> Path:
    return sorted((models / "pictures" / CLASSES[0]).iterdir())[number]


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as opened:
        return np.asarray(opened.convert("RGB"))


def softmax(values: np.ndarray) -> np.ndarray:
    raised = np.exp(values.astype(np.float64) - values.max())
    return raised / raised.sum()


def run_tflite(file: Path, tensor: np.ndarray) -> np.ndarray:
    interpreter = Interpreter(str(file))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], tensor)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]


def outcomes(bundle: Path) -> dict[tuple[str, str, str], str]:
    gates = read_json(bundle / "evidence" / "parity.json")["gates"]
    return {(gate["name"], gate["artifact"], gate["runtime"]): gate["outcome"] for gate in gates}


def refused(cli: Cli, *arguments: object) -> str:
    done = cli("export", "--model", *arguments, code=2)
    assert "Traceback" not in done.err and done.out == ""
    [line] = [line for line in done.err.splitlines() if line.startswith("melanoma-edge: ")]
    return line


# --- a Keras file


def test_a_keras_file_becomes_every_artifact_and_every_float_gate_holds(wrapped: Path) -> None:
    manifest = read_json(wrapped / "manifest.json")
    assert [artifact["name"] for artifact in manifest["artifacts"]] == [
        "v2-float32.tflite", "v2-float16.tflite", "v2-dynamic.tflite", "v2-int8-ptq.tflite", "v2-float32.onnx", "v2-int8-ptq.onnx",
    ]  # fmt: skip
    found = outcomes(wrapped)
    for artifact in manifest["artifacts"]:
        runtime = "litert" if artifact["format"] == "tflite" else "onnxruntime"
        holds = "failed" if artifact["precision"] == "int8-ptq" else "passed"
        assert found["golden", artifact["name"], runtime] == "passed" and found[artifact["precision"], artifact["name"], runtime] == holds
    assert {artifact for (_, artifact, _), outcome in found.items() if outcome == "failed"} == {"v2-int8-ptq.tflite", "v2-int8-ptq.onnx"}
    assert found["census", "v2-int8-ptq.onnx", "onnxruntime"] == "passed"
    task = next(gate for gate in read_json(wrapped / "evidence" / "parity.json")["gates"] if gate["name"] == "task")
    assert task["measured_on"] == "pictures of pictures, not used for this bundle; whether training saw them is not known"


def test_the_manifest_says_what_is_known_and_what_is_not(wrapped: Path, models: Path) -> None:
    manifest = read_json(wrapped / "manifest.json")
    validate(manifest, "manifest")
    assert (manifest["origin"], manifest["recipe"], manifest["data"], manifest["weights"]) == ("model", None, None, {})
    content = (models / "v2.keras").read_bytes()
    source = {"file": "v2.keras", "format": "keras", "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "changes": []}
    assert manifest["source"].pop("written_by").startswith("Keras 2.") and manifest["source"] == source
    assert manifest["classes"] == list(CLASSES) and manifest["positive_class"] == "melanoma"  # spelt as data sets are
    assert (manifest["input"]["value_range"], manifest["input"]["width"], manifest["output"]) == ([-1.0, 1.0], SIZE, "logits")
    card = (wrapped / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "no figure here is known to be leak-free" in card and "dermoscopic pictures only" not in card
    assert json.loads((wrapped / "evidence" / "origin.json").read_text())["model"] == str((models / "v2.keras").resolve())


def test_decisions_are_fitted_on_one_half_and_scored_on_the_other(wrapped: Path, models: Path) -> None:
    manifest = read_json(wrapped / "manifest.json")
    fitting, total = manifest["fitting"], PER_CLASS * len(CLASSES)
    assert fitting["pictures"] + fitting["held_back"] == total and sum(fitting["per_class"].values()) == fitting["pictures"]
    for artifact in manifest["artifacts"]:
        assert artifact["scores"]["pictures"] == fitting["held_back"] and artifact["decision"]["threshold"]["rule"] == "sensitivity" and len(artifact["decision"]["other_thresholds"]) == 2
    files = {hashlib.sha256(file.read_bytes()).hexdigest(): file.parent.name for file in (models / "pictures").glob("*/*.png")}
    seen = set((wrapped / "seen.txt").read_text().split())
    used = {sha256 for sha256 in files if sha256 in seen}
    # All of the class that int8 was calibrated on stands with the fitting half; about half of the others.
    assert sum(files[sha256] == CLASSES[1] for sha256 in used) == PER_CLASS and len(used) == fitting["pictures"]
    assert all(abs(fitting["per_class"][name] - PER_CLASS / 2) <= 2 for name in (CLASSES[0], CLASSES[2]))


def test_what_int8_was_calibrated_on_is_recorded(wrapped: Path, models: Path) -> None:
    artifacts = {artifact["name"]: artifact for artifact in read_json(wrapped / "manifest.json")["artifacts"]}
    hashes = sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in (models / "plain").iterdir())
    expected = {"pictures": PER_CLASS, "per_class": {}, "sha256": hashlib.sha256("\n".join(hashes).encode()).hexdigest()}
    assert {name: artifact["calibration"] for name, artifact in artifacts.items() if artifact["calibration"]} == dict.fromkeys(("v2-int8-ptq.tflite", "v2-int8-ptq.onnx"), expected)
    taken = artifacts["v2-int8-ptq.tflite"]["input"]
    assert taken["dtype"] == "uint8" and taken["quantization"]["scale"] == pytest.approx(2 / 255, rel=1e-6) and taken["quantization"]["zero_point"] in (127, 128)
    first = [operator["op_name"] for operator in Interpreter(model_path=str(wrapped / "v2-int8-ptq.tflite"))._get_ops_details()][:2]
    assert first == ["DEQUANTIZE", "QUANTIZE"], "uint8 to int8 in one step is slow off Arm"


@pytest.mark.parametrize("name", ["v2-float32.tflite", "v2-int8-ptq.tflite", "v2-float32.onnx", "v2-int8-ptq.onnx"])
def test_predictions_are_those_of_the_file_on_declared_numbers(cli: Cli, wrapped: Path, models: Path, name: str) -> None:
    file = picture(models)
    # As the contract has it: in float64, rounded once. Every byte lies half way between two steps of int8, where the last bit decides.
    real = (-1 + pixels(file)[np.newaxis].astype(np.float64) * 2 / 255).astype(np.float32)
    artifact = next(artifact for artifact in read_json(wrapped / "manifest.json")["artifacts"] if artifact["name"] == name)
    taken = artifact["input"]["quantization"]
    if name.endswith(".onnx"):
        given = onnxruntime.InferenceSession(str(wrapped / name)).run(None, {"image": real})[0][0]
    elif "int8" in name:
        exact = pixels(file)[np.newaxis].astype(np.float64) / 127.5 - 1
        given = run_tflite(wrapped / name, np.clip(np.floor(exact / taken["scale"] + 0.5) + taken["zero_point"], 0, 255).astype(np.uint8))
    else:
        given = run_tflite(wrapped / name, real)
    result = cli("predict", wrapped, file, "--artifact", name, "--json").json
    expected = dict(zip(CLASSES, softmax(given / artifact["decision"]["temperature"])))
    assert result["results"][0]["probabilities"] == pytest.approx(expected, abs=2e-3)
    assert result["domain"].startswith("What the model was trained on is not known") and isinstance(result["results"][0]["positive"], bool)


def test_the_bundle_is_timed_verified_and_reported(cli: Cli, copied: Path, models: Path) -> None:
    timed = cli("bench", copied, "--quick", "--json").json
    assert {row["name"] for runtime in timed["host"]["runtimes"] for row in runtime["artifacts"]} == {a["name"] for a in read_json(copied / "manifest.json")["artifacts"]}
    cli("verify", copied, "--require", "keras-file", "-q", code=1)  # for int8, as at export
    gates = {(gate["name"], gate["artifact"]): gate for gate in read_json(copied / "evidence" / "parity.json")["gates"]}
    assert gates["float32", "v2-float32.tflite"]["measured_on"] == "drawn probes" and gates["float32", "v2-float32.tflite"]["pictures"] > 200
    cli("report", copied)
    page = (copied / "evidence" / "report.html").read_text(encoding="utf-8")
    assert "was made from the model file v2.keras, which says nothing of its training" in page and "bytes as -1 to 1" in page
    assert "The model has seen dermoscopic pictures only" not in page


def test_scores_of_others_are_not_called_leak_free(cli: Cli, wrapped: Path, models: Path) -> None:
    result = cli("evaluate", wrapped, "--data", models / "pictures", "--artifact", "v2-float32.tflite", "--json").json
    assert result["leak_free"] is None and result["scores"]["pictures"] == read_json(wrapped / "manifest.json")["fitting"]["held_back"]


def test_without_its_source_a_bundle_is_compared_on_the_golden_pictures(cli: Cli, copied: Path, models: Path, tmp_path: Path) -> None:
    (copied / "evidence" / "origin.json").write_text(json.dumps({"model": str(tmp_path / "gone.keras")}))
    cli("verify", copied, "--runtime", "litert", "-q", code=1)
    gate = next(gate for gate in read_json(copied / "evidence" / "parity.json")["gates"] if gate["name"] == "float32")
    assert gate["outcome"] == "passed" and gate["measured_on"] == "golden pictures" and "gone.keras is not here; name it with --model FILE" in gate["reason"]
    assert "is not the file that the bundle was made from" in cli("verify", copied, "--model", models / "v3.h5", code=2).err
    assert "not from a run: leave --run out" in cli("verify", copied, "--run", tmp_path, code=2).err


def test_softmax_is_found_and_undone(cli: Cli, models: Path, tmp_path: Path) -> None:
    """MobileNetV3 from .h5, with its scaling and hard-swish inside; nothing is fitted without labelled pictures."""
    out = tmp_path / "v3.bundle"
    cli("export", "--model", models / "v3.h5", "--classes", models / "labels.txt", "--tflite", "--precision", "float32", "--out", out, "-q")
    manifest = read_json(out / "manifest.json")
    [artifact] = manifest["artifacts"]
    assert manifest["output"] == "probabilities" and manifest["fitting"] is None and (out / "seen.txt").read_bytes() == b""
    assert artifact["scores"] is None and artifact["decision"]["temperature"] == 1.0 and artifact["decision"]["threshold"] is None and artifact["non_lesions"] is None
    given = run_tflite(out / artifact["path"], pixels(picture(models))[np.newaxis].astype(np.float32))
    [result] = cli("predict", out, picture(models), "--json").json["results"]
    assert result["probabilities"] == pytest.approx(dict(zip(CLASSES, given.tolist())), abs=1e-5)
    assert result["positive"] is None and result["abstains"] is False
    assert outcomes(out)["float32", "v3-float32.tflite", "litert"] == "passed"
    cli("report", out)


# --- ONNX and TFLite


def test_an_onnx_file_of_torchvisions_kind_is_wrapped(cli: Cli, models: Path, tmp_path: Path) -> None:
    """NCHW, any batch, ImageNet's normalisation: held against numpy and ONNX Runtime on the file as it came."""
    out = tmp_path / "v2.bundle"
    cli("export", "--model", models / "v2.onnx", "--classes", models / "labels.txt", *IMAGENET, "--data", models / "pictures", "--out", out, "-q")
    manifest = read_json(out / "manifest.json")
    [artifact] = manifest["artifacts"]
    assert artifact["layout"] == "NCHW" and artifact["input"]["shape"] == [1, 3, SIZE, SIZE] and artifact["input"]["name"] == "x"
    assert len(manifest["source"]["changes"]) == 1 and manifest["source"]["changes"][0].endswith("was fixed to 1")
    proto = onnx.load(out / artifact["path"])
    onnx.checker.check_model(proto, full_check=True)
    assert [dim.dim_value for dim in proto.graph.output[0].type.tensor_type.shape.dim] == [1, len(CLASSES)]
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    tensor = ((pixels(picture(models)).astype(np.float32) / np.float32(255) - mean) / std).transpose(2, 0, 1)[np.newaxis]
    given = onnxruntime.InferenceSession(str(models / "v2.onnx")).run(None, {"x": tensor})[0][0]
    [result] = cli("predict", out, picture(models), "--json").json["results"]
    assert result["probabilities"] == pytest.approx(dict(zip(CLASSES, softmax(given / artifact["decision"]["temperature"]))), abs=1e-4)
    assert outcomes(out)["float32", artifact["name"], "onnxruntime"] == "passed"  # against the source, by another way to fix the batch
    cli("verify", out, "-q")
    cli("bench", out, "--quick", "-q")


def test_a_tflite_file_stays_as_it_is(cli: Cli, models: Path, tmp_path: Path) -> None:
    out = tmp_path / "v2.bundle"
    cli("export", "--model", models / "v2.tflite", "--classes", models / "labels.txt", "--input-range=-1,1", "--out", out, "-q")
    assert (out / "v2-float32.tflite").read_bytes() == (models / "v2.tflite").read_bytes()
    assert outcomes(out)["source", "v2-float32.tflite", "litert"] == "passed"


def test_whole_numbers_in_and_out_follow_the_files_own_scale(cli: Cli, models: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "v2.bundle", models / "v2-int8.tflite"
    cli("export", "--model", file, "--classes", models / "labels.txt", "--input-range=-1,1", "--out", out, "-q")
    [artifact] = read_json(out / "manifest.json")["artifacts"]
    taken, given = artifact["input"], artifact["output"]
    assert (artifact["precision"], taken["dtype"], given["dtype"], artifact["quantum"]) == ("int8", "int8", "int8", given["quantization"]["scale"])
    real = pixels(picture(models))[np.newaxis].astype(np.float64) / 127.5 - 1
    tensor = np.clip(np.floor(real / taken["quantization"]["scale"] + 0.5) + taken["quantization"]["zero_point"], -128, 127).astype(np.int8)
    logits = (run_tflite(file, tensor).astype(np.float64) - given["quantization"]["zero_point"]) * given["quantization"]["scale"]
    [result] = cli("predict", out, picture(models), "--json").json["results"]
    assert result["probabilities"] == pytest.approx(dict(zip(CLASSES, softmax(logits))), abs=1e-6)
    line = refused(cli, file, "--classes", models / "labels.txt", "--out", tmp_path / "x.bundle")
    assert "different ones of 256: declare the range" in line and not (tmp_path / "x.bundle").exists()


# --- what is refused


def test_what_was_declared_wrongly_is_one_line(cli: Cli, models: Path, tmp_path: Path) -> None:
    labels, out = models / "labels.txt", tmp_path / "x.bundle"
    short, twice = tmp_path / "short.txt", tmp_path / "twice.txt"
    short.write_text("melanoma\nnevus\n")
    twice.write_text("melanoma\nnevus\nMelanoma\n")
    tflite, onnx_file = models / "v2.tflite", models / "v2.onnx"
    cases = [
        ([tflite, "--classes", short], "gives 3 numbers, and 2 classes were named"),
        ([tflite, "--classes", twice], "the class 'melanoma' stands twice"),
        ([tflite, "--classes", tmp_path / "none.txt"], "cannot be read as a list of classes"),
        ([tflite], "--model needs --classes FILE"),
        ([tflite, "--classes", labels, "--mean", "1,2"], "--mean is '1,2': expected 3 numbers"),
        ([tflite, "--classes", labels, "--std", "0,1,1"], "the declared input cannot be (std.0"),
        ([tflite, "--classes", labels, "--input-range", "1,1"], "expected two different numbers"),
        ([tflite, "--classes", labels, "--mean", "nan,0,0"], "the declared input cannot be (mean.0"),
        ([tflite, "--classes", labels, "--size", "96"], f"takes pictures of {SIZE} x {SIZE}, and --size says 96"),
        ([tflite, "--classes", labels, "--positive", "wart"], "the positive class 'wart' is not among the classes"),
        ([tflite, "--classes", labels, "--precision", "float16"], "a TFLite file is wrapped as it is, since nothing reads a network back out of one: leave out --precision"),
        ([tflite, "--classes", labels, "--calibrate", models / "plain"], "leave out --calibrate, or give the model as a Keras or ONNX file"),
        ([onnx_file, "--classes", labels, "--tflite"], "an ONNX file is not converted to tflite: leave out --tflite, or give the model as a Keras file"),
        ([onnx_file, "--classes", labels, "--precision", "float16"], "there is no precision 'float16' of an ONNX file; expected some of float32, int8-ptq"),
        ([onnx_file, "--classes", labels, "--precision", "int8-ptq"], "name some with --calibrate DIR"),
        ([onnx_file, "--classes", labels, "--precision", "float32", "--calibrate", models / "plain"], "ask for --precision int8-ptq too"),
        ([models / "v2.keras", "--classes", labels, "--precision", "int8"], "after training it is int8-ptq"),
        ([models / "v2.keras", "--classes", labels, "--precision", "int8-ptq"], "name some with --calibrate DIR"),
        ([tmp_path, "--classes", labels], "is a folder: expected a model file"),
        ([tmp_path / "gone.onnx", "--classes", labels], "is missing: expected a model file"),
        ([labels, "--classes", labels], "ends in .txt: expected a model file"),
        ([tflite, "--classes", labels, "--layout", "nchw"], "keeps the order of axes that its file has"),
    ]
    for arguments, reason in cases:
        assert reason in refused(cli, *arguments, "--out", out), arguments
    assert "--mean is for a model file of your own" in cli("export", tmp_path, "--mean", "0,0,0", code=2).err
    assert not out.exists()


def tiny_onnx(shape: list, *, dtype: int = onnx.TensorProto.FLOAT, outputs: int = 1) -> bytes:
    """Return an ONNX model that averages a picture over its last two axes."""
    image = onnx.helper.make_tensor_value_info("x", dtype, shape)
    given = [onnx.helper.make_tensor_value_info(f"y{number}", onnx.TensorProto.FLOAT, [shape[0], 3]) for number in range(outputs)]
    nodes = [onnx.helper.make_node("Cast", ["x"], ["f"], to=onnx.TensorProto.FLOAT)]
    nodes += [onnx.helper.make_node("ReduceMean", ["f"], [f"y{number}"], axes=[2, 3], keepdims=0) for number in range(outputs)]
    graph = onnx.helper.make_graph(nodes, "g", [image], given)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def dense_onnx(*, mixed: bool = False, given: list | None = None) -> bytes:
    """Return an ONNX model with float32 input and output and float16 weights, as onnxconverter-common writes it with keep_io_types.

    `mixed` keeps its last layer in float32; `given` is the shape that the file states for its output.
    """
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    random = np.random.default_rng(4)
    last = np.float32 if mixed else np.float16
    arrays = {"w1": random.normal(size=(8, 3)).astype(np.float16), "w2": random.normal(size=(3, 8)).astype(last), "unread": np.ones(100, np.float16)}
    if not mixed:
        del arrays["unread"]
    nodes = [
        onnx.helper.make_node("ReduceMean", ["x"], ["m"], axes=[2, 3], keepdims=0),
        onnx.helper.make_node("Cast", ["m"], ["h"], to=half),
        onnx.helper.make_node("Gemm", ["h", "w1"], ["d"], transB=1, name="first"),
        onnx.helper.make_node("Cast", ["d"], ["e"], to=single) if mixed else onnx.helper.make_node("Neg", ["d"], ["e"]),
        onnx.helper.make_node("Gemm", ["e", "w2"], ["g"], transB=1, name="second"),
        onnx.helper.make_node("Cast", ["g"], ["y"], to=single),
    ]
    image = onnx.helper.make_tensor_value_info("x", single, [1, 3, 32, 32])
    output = onnx.helper.make_tensor_value_info("y", single, given or [1, 3])
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = onnx.helper.make_graph(nodes, "g", [image], [output], tensors)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.onnx", tiny_onnx(["N", 3, "H", "W"]), "takes pictures of any size: name one with --size N"),
        ("a.onnx", tiny_onnx([8, 3, 32, 32]), "expected one picture"),
        ("a.onnx", tiny_onnx(["N", 3, 32, 48]), "only squares are supported"),
        ("a.onnx", tiny_onnx(["N", 3, 3, 3]), "its layout is ambiguous"),
        ("a.onnx", tiny_onnx(["N", 1, 32, 32]), "neither axis 1 nor axis 3 has 3 channels"),
        ("a.onnx", tiny_onnx(["N", 3, 32]), "it is no picture"),
        ("a.onnx", tiny_onnx(["N", 3, 32, 32], outputs=2), "has 1 inputs and 2 outputs"),
        ("a.onnx", tiny_onnx(["N", 3, 32, 32], dtype=onnx.TensorProto.FLOAT16), "takes tensor(float16): expected float32 or uint8"),
        ("a.onnx", tiny_onnx([1, 3, 32, 32], dtype=onnx.TensorProto.INT8), "which ONNX has no place for"),
        ("a.onnx", tiny_onnx(["N", 3, 16, 16]), "takes pictures of 16 x 16 pixels: expected 32 to 1024 a side; export the model for pictures of another size"),
        ("a.onnx", tiny_onnx([1, 3, 2048, 2048]), "takes pictures of 2048 x 2048 pixels: expected 32 to 1024 a side"),
        ("a.onnx", dense_onnx(mixed=True), "mixes precisions: by most of its weights it is float16, but Gemm second has FLOAT weights"),
        ("a.onnx", b"not a model", "is damaged or no ONNX model"),
        ("a.onnx", b"", "damaged or no ONNX model"),
        ("a.tflite", b"not a model at all", "not a TFLite model"),
        ("a.tflite", b"\x1c\0\0\0TFL3" + b"\xff" * 200, "a.tflite"),
        ("a.keras", b"not a zip", "is not a .keras archive"),
        ("a.h5", b"not hdf5", "is not an HDF5 file of Keras"),
    ],
)
def test_files_of_another_form_are_one_line(cli: Cli, tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "labels.txt").write_text("\n".join(SPELT))
    line = refused(cli, tmp_path / name, "--classes", tmp_path / "labels.txt", "--out", tmp_path / "x.bundle")
    assert reason in line and line.startswith(f"melanoma-edge: {name}")
    assert not (tmp_path / "x.bundle").exists()


def test_a_size_that_cannot_be_proved_on_is_refused_before_anything_stands(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(tiny_onnx(["N", 3, "H", "W"]))
    (tmp_path / "labels.txt").write_text("\n".join(SPELT))
    line = refused(cli, tmp_path / "net.onnx", "--classes", tmp_path / "labels.txt", "--size", 16, "--out", tmp_path / "x.bundle")
    assert "takes pictures of 16 x 16 pixels: expected 32 to 1024 a side" in line and "or give another --size where the file takes any" in line
    assert sorted(file.name for file in tmp_path.iterdir()) == ["labels.txt", "net.onnx"]


def test_half_weights_behind_a_float32_input_are_called_float16(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "h.onnx").write_bytes(dense_onnx())
    (tmp_path / "labels.txt").write_text("\n".join(SPELT))
    out = tmp_path / "h.bundle"
    cli("export", "--model", tmp_path / "h.onnx", "--classes", tmp_path / "labels.txt", "--out", out, "-q")
    [artifact] = read_json(out / "manifest.json")["artifacts"]
    assert (artifact["name"], artifact["precision"]) == ("h-float16.onnx", "float16") and artifact["input"]["dtype"] == artifact["output"]["dtype"] == "float32"
    assert artifact["weight_bytes"] == {"float16": 96} and (out / "h-float16.onnx").read_bytes() == (tmp_path / "h.onnx").read_bytes()
    assert outcomes(out)["source", "h-float16.onnx", "onnxruntime"] == "passed"
    cli("verify", out, "-q")


@pytest.mark.parametrize("given", [["batch", 3], [0, 3], [-1, "classes"]], ids=str)
def test_an_open_output_behind_a_fixed_input_is_worked_out(cli: Cli, tmp_path: Path, given: list) -> None:
    (tmp_path / "o.onnx").write_bytes(dense_onnx(given=given))
    (tmp_path / "labels.txt").write_text("\n".join(SPELT))
    out = tmp_path / "o.bundle"
    cli("export", "--model", tmp_path / "o.onnx", "--classes", tmp_path / "labels.txt", "--out", out, "-q")
    manifest = read_json(out / "manifest.json")
    assert manifest["source"]["changes"] == ["the lengths of the output's axes were written into it"]
    [value] = onnx.load(out / "o-float16.onnx").graph.output
    assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == [1, 3] == manifest["artifacts"][0]["output"]["shape"]
    assert "failed" not in outcomes(out).values() and outcomes(out)["golden", "o-float16.onnx", "onnxruntime"] == "passed"


@pytest.mark.parametrize(("runtime", "function", "name"), [("keras-file", "convert_keras", "net.onnx"), ("onnxruntime", "fix_onnx", "net.onnx")])
def test_a_full_disk_is_called_one(tmp_path: Path, runtime: str, function: str, name: str) -> None:
    """And not a model that cannot be converted, or a crash."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).symlink_to("/dev/full")
    if function == "fix_onnx":
        (tmp_path / "a.onnx").write_bytes(tiny_onnx(["N", 3, 32, 32]))
        arguments = {"file": str(tmp_path / "a.onnx"), "size": None, "target": str(tmp_path / "out" / name)}
    else:
        pytest.importorskip("tensorflow")
        make = f"""
import tf_keras as keras
image = keras.Input((32, 32, 3))
keras.Model(image, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(image))).save({str(tmp_path / "a.keras")!r})
"""
        subprocess.run([sys.executable, "-c", make], check=True, capture_output=True)
        arguments = {"file": str(tmp_path / "a.keras"), "size": 32, "wanted": [("onnx", "float32", name)], "folder": str(tmp_path / "out")}
        arguments |= {"contract": InputContract(width=32, height=32).model_dump(mode="json"), "calibration": None, "properties": {}, "said": {}}
    with pytest.raises(Missing, match="the disk is full while writing"):
        process.run_call(runtime, f"melanoma_edge.convert.foreign:{function}", arguments, what="a")


def test_code_in_a_keras_file_is_refused_by_the_command(cli: Cli, tmp_path: Path) -> None:
    keras_zip(tmp_path / "net.keras", network(layer("SqueezeExcite", "mine", "Custom>SqueezeExcite")))
    (tmp_path / "labels.txt").write_text("\n".join(SPELT))
    assert "names 'SqueezeExcite' of 'mine', which is not part of Keras" in refused(cli, tmp_path / "net.keras", "--classes", tmp_path / "labels.txt")


def test_any_size_is_fixed_where_one_is_named(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(tiny_onnx(["N", 3, "H", "W"]))
    (tmp_path / "labels.txt").write_text("\n".join(SPELT))
    out = tmp_path / "net.bundle"
    cli("export", "--model", tmp_path / "net.onnx", "--classes", tmp_path / "labels.txt", "--size", 40, "--output", "logits", "--channels", "bgr", "--out", out, "-q")
    manifest = read_json(out / "manifest.json")
    assert manifest["source"]["changes"] == ["the batch (N) was fixed to 1", "height and width were fixed to 40"] and manifest["input"]["channels"] == "BGR"
    golden = read_json(out / "golden" / "golden.json")
    white = next(row for file, row in zip(golden["pictures"], golden["logits"]["net-float32.onnx"]) if (pixels(out / file["file"]) == 255).all())
    assert white == pytest.approx([255, 255, 255])
    Image.fromarray(np.full((40, 40, 3), (10, 20, 30), np.uint8)).save(tmp_path / "colour.png")
    [result] = cli("predict", out, tmp_path / "colour.png", "--json").json["results"]
    assert result["probabilities"] == pytest.approx(dict(zip(CLASSES, softmax(np.array([30.0, 20.0, 10.0])))), abs=1e-6)  # blue first


def test_one_file_wrapped_twice_gives_the_same_bytes(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(tiny_onnx(["N", 3, 32, 32]))
    (tmp_path / "labels.txt").write_text("\n".join(SPELT))
    for seed in ("1", "2"):
        options = ["--classes", tmp_path / "labels.txt", "--out", tmp_path / seed / "net.bundle", "-q"]
        cli("export", "--model", tmp_path / "net.onnx", *options, env={"PYTHONHASHSEED": seed})
    first, second = ({f.relative_to(tmp_path / seed): f.read_bytes() for f in (tmp_path / seed).rglob("*") if f.is_file() and "evidence" not in f.parts} for seed in "12")
    assert first == second and len(first) > 15


@pytest.mark.parametrize("name", ["v2.tflite", "v2.onnx", "v2.keras", "v3.h5"])
def test_damaged_files_never_take_the_command_down(cli: Cli, models: Path, tmp_path: Path, name: str) -> None:
    content = (models / name).read_bytes()
    for share in (0.02, 0.6):
        (tmp_path / name).write_bytes(content[: int(len(content) * share)])
        done = cli("export", "--model", tmp_path / name, "--classes", models / "labels.txt", "--out", tmp_path / "x.bundle", code=2)
        assert len(done.err.splitlines()) <= 4 and name in done.err
        assert not (tmp_path / "x.bundle").exists()
