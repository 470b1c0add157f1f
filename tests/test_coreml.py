"""Core ML packages: read back with coremltools in its own environment, and computed in numpy as their program says.

Core ML does not run here. What the program in a package means does not depend on that: a second reader computes it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import own_environments
import pytest
from conftest import Cli, read_json, snapshot, validate
from onnx import TensorProto, helper, numpy_helper
from test_export_cli import logits, network_input

from melanoma_edge import NOTICE
from melanoma_edge.convert import coreml
from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.convert.facts import Facts
from melanoma_edge.errors import BadInput, Error, Missing, ProofFailed

CHILD = Path(__file__).with_name("coreml_child.py")
PACKAGES = ("demo-float16.mlpackage", "demo-int8-weights.mlpackage")
CLASSES = ("melanoma", "nevus", "vascular lesion")
EVEN = np.full(3, 1 / 3)


@pytest.fixture(scope="module")
def python() -> Path:
    return own_environments.python_of(coreml.NAME, coreml.REQUIREMENTS)


@pytest.fixture
def set_up(python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELANOMA_EDGE_RUNTIMES", str(own_environments.folder()))


@pytest.fixture(scope="module")
def exported_packages(python: Path, cli: Cli, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the float32 ONNX artifact and the packages made from it."""
    out = tmp_path_factory.mktemp("coreml") / "b.bundle"
    cli("export", run, "--onnx", "--precision", "float32", "--coreml", "--out", out, "-q", env={"MELANOMA_EDGE_RUNTIMES": str(own_environments.folder())})
    return out


def computed(python: Path, folder: Path, packages: Sequence[Path], pictures: np.ndarray) -> dict[str, dict]:
    """Return {name: what the program of the package comes to}."""
    np.save(folder / "pictures.npy", pictures)
    done = own_environments.call(python, CHILD, folder / "pictures.npy", folder / "out.json", *packages)
    assert done.returncode == 0, done.stderr[-2000:]
    return {Path(package).name: found for package, found in json.loads((folder / "out.json").read_text(encoding="utf-8")).items()}


def test_the_programs_come_to_the_logits_and_probabilities_of_the_artifact(exported_packages: Path, python: Path, tmp_path: Path) -> None:
    bundle = exported_packages
    pictures = np.stack([network_input(file) for file in sorted((bundle / "golden").glob("*.png"))])
    found = computed(python, tmp_path, [bundle / name for name in PACKAGES], pictures)
    manifest, ours = read_json(bundle / "manifest.json"), logits(bundle / "demo-float32.onnx", pictures)
    temperature = manifest["artifacts"][0]["decision"]["temperature"]
    for name, allowed in zip(PACKAGES, (0.005, 0.05), strict=True):
        theirs = np.array(found[name]["logits"])
        assert 0 < np.abs(theirs - ours).max() < allowed * np.ptp(ours)
        scores = np.exp(theirs / temperature)
        np.testing.assert_allclose(found[name]["probabilities"], scores / scores.sum(axis=1, keepdims=True), atol=1e-3)
        assert found[name]["classes"] == manifest["classes"]
        assert found[name]["types"] == {"image": "imageType", "classLabel": "stringType", "classLabel_probs": "dictionaryType", "logits": "multiArrayType"}
        assert found[name]["metadata"]["shortDescription"].startswith(NOTICE) and found[name]["metadata"]["name"] == name.removesuffix(".mlpackage")
        assert found[name]["metadata"]["license"] == manifest["licence"] and not any("date" in key for key in found[name]["metadata"])


def test_the_manifest_says_what_they_are_and_verify_that_they_were_not_run(exported_packages: Path) -> None:
    manifest = read_json(exported_packages / "manifest.json")
    validate(manifest, "manifest")
    half, small = manifest["coreml"]
    assert (half["name"], small["name"]) == PACKAGES and half["artifact"] == small["artifact"] == "demo-float32.onnx"
    assert half["layers"] == {"float16": 20} and small["layers"]["int8"] >= 10 and sum(small["layers"].values()) == 20
    assert 0.5 < half["weight_error"] <= 1 and 0.5 < small["weight_error"] <= 1
    assert half["operators"]["conv"] == 19 and small["bytes"] < half["bytes"]
    for package in (half, small):
        files = [path for path in manifest["files"] if path.startswith(f"{package['path']}/")]
        assert len(files) == 3 and sum((exported_packages / path).stat().st_size for path in files) == package["bytes"]
    gates = {gate["artifact"]: gate for gate in read_json(exported_packages / "evidence" / "parity.json")["gates"] if gate["name"] == "coreml"}
    assert set(gates) == set(PACKAGES) and {gate["outcome"] for gate in gates.values()} == {"not run"}
    card = (exported_packages / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert all(name in card for name in PACKAGES) and "**not run**" in card


def test_a_changed_byte_in_a_package_breaks_the_seal(exported_packages: Path) -> None:
    assert len(open_bundle(exported_packages).manifest.coreml) == 2
    [file] = (exported_packages / PACKAGES[0]).rglob("weight.bin")
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        with pytest.raises(BadInput, match="weight.bin was altered"):
            open_bundle(exported_packages)
    finally:
        file.write_bytes(content)


def test_the_environment_holds_what_is_pinned_and_nothing_else(python: Path) -> None:
    """So that the same run gives the same package next year."""
    assert own_environments.packages(python) == dict(pin.split("==") for pin in coreml.REQUIREMENTS)


# --- any network that has a counterpart


def network(nodes: list, constants: dict[str, np.ndarray], *, channels_first: bool = False) -> bytes:
    """Return an ONNX file that maps image, 8 x 8 pixels, to logits of three classes."""
    shape = [1, 3, 8, 8] if channels_first else [1, 8, 8, 3]
    image, out = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape), helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 3])
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(nodes, "g", [image], [out], [numpy_helper.from_array(array, name) for name, array in constants.items() if name in used])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def weights(*shape: int) -> np.ndarray:
    return (np.random.default_rng(sum(shape)).standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def end(source: str, channels: int) -> list:
    """Return what makes three logits of a feature map."""
    return [helper.make_node("GlobalAveragePool", [source], ["m"]), helper.make_node("Flatten", ["m"], ["f"]), helper.make_node("Gemm", ["f", f"d{channels}"], ["logits"])]


CONSTANTS = {
    "perm": np.int64([0, 3, 1, 2]),
    "w": weights(6, 3, 3, 3) / 50,
    "b": weights(6, 1)[:, 0],
    "dw": weights(6, 1, 3, 3),
    "grouped": weights(6, 3, 3, 3),
    "zero": np.float32(0),
    "six": np.float32(6),
    "two": np.float32(2),
    "d6": weights(6, 3),
    "row": weights(3, 96),
    "flat": np.int64([1, -1]),
    "matrix": weights(96, 3),
    "shift": weights(3, 1)[:, 0],
}
IN = helper.make_node("Transpose", ["image"], ["x"], perm=[0, 3, 1, 2])
NETWORKS = {
    "uneven padding and strides": [IN, helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[0, 1, 2, 0], strides=[2, 1]), helper.make_node("Clip", ["c", "zero", "six"], ["r"]), *end("r", 6)],
    "a residual of depthwise layers": [
        IN,
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "dw"], ["e"], pads=[1, 1, 1, 1], group=6),
        helper.make_node("Add", ["r", "e"], ["s"]),
        helper.make_node("Clip", ["s", "zero", "two"], ["t"]),
        *end("t", 6),
    ],
    "dilation, groups and both poolings": [
        IN,
        helper.make_node("Conv", ["x", "w", "b"], ["c"], dilations=[2, 1], pads=[2, 1, 2, 1]),
        helper.make_node("MaxPool", ["c"], ["p"], kernel_shape=[3, 2], strides=[1, 2], pads=[1, 0, 1, 0]),
        helper.make_node("Conv", ["p", "grouped"], ["g"], group=2, pads=[1, 1, 1, 1]),
        helper.make_node("AveragePool", ["g"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 0, 0]),
        helper.make_node("Sigmoid", ["a"], ["s"]),
        helper.make_node("Mul", ["a", "s"], ["t"]),
        *end("t", 6),
    ],
    "a dense layer on pixels": [
        IN,
        helper.make_node("Conv", ["x", "w", "b"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["t", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "matrix"], ["m"]),
        helper.make_node("Add", ["m", "shift"], ["logits"]),
    ],
}


WRONG = {
    "uneven padding and strides": [
        (None, {}, {}, []),
        (helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[0, 1, 2, 0], strides=[2, 2]), {}, {}, ["c has strides [2, 1], its source [2, 2]"]),
        (helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 0], strides=[2, 1]), {}, {}, ["c has pad [0, 2, 1, 0], its source [1, 1, 1, 0]"]),
        (helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[0, 1, 2, 0], strides=[2, 1], dilations=[1, 2]), {}, {}, ["c has dilations [1, 1], its source [1, 2]"]),
        (helper.make_node("Conv", ["x", "w"], ["c"], pads=[0, 1, 2, 0], strides=[2, 1]), {}, {}, ["the biases of c are others than its source's"]),
        (None, {"b": CONSTANTS["b"] * np.float32(1.01)}, {}, ["the biases of c are others than its source's"]),
        (None, {}, {"temperature": 1.31}, ["its temperature is another"]),
        (None, {}, {"ratio": [0.0, 0.0, 0.0]}, ["its priors are others"]),
    ],
    "dilation, groups and both poolings": [
        (None, {}, {}, []),
        (helper.make_node("MaxPool", ["c"], ["p"], kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 0]), {}, {}, ["p has strides [1, 2], its source [2, 2]"]),
        (helper.make_node("AveragePool", ["g"], ["a"], kernel_shape=[3, 3], pads=[1, 1, 0, 0], count_include_pad=1), {}, {}, ["a has exclude_padding_from_average [True], its source [False]"]),
    ],
    "a dense layer on pixels": [
        (None, {}, {}, []),
        (None, {"shift": CONSTANTS["shift"] + np.float32(0.01)}, {}, ["the biases of m are others than its source's"]),
    ],
}  # fmt: skip
"""{network: [(a node in place of the one that makes the same, constants in place of others, another decision, what is found)]}"""


def converted(content: bytes, folder: Path, **changes: object):
    """Convert an ONNX file of the tests into `folder`."""
    facts = Facts("tiny-float32", "tiny", "float32", CLASSES, "melanoma", 8, "CC0 1.0", "0123456789ab")
    options = {"temperature": 1.3, "training": EVEN, "deployment": EVEN} | changes
    return coreml.convert(content, folder, "tiny-float32.onnx", facts, **options)


@pytest.mark.parametrize("what", NETWORKS)
def test_every_operator_means_the_same_in_both(set_up: None, python: Path, tmp_path: Path, what: str) -> None:
    content = network(NETWORKS[what], CONSTANTS)
    training, deployment = np.array([0.2, 0.3, 0.5]), EVEN
    entries = converted(content, tmp_path, training=training, deployment=deployment)
    assert [entry.name for entry in entries if entry.precision == "float16"] == ["tiny-float16.mlpackage"]
    pictures = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3), np.uint8)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    expected = np.concatenate([session.run(None, {"image": picture[np.newaxis].astype(np.float32)})[0] for picture in pictures])
    [found] = computed(python, tmp_path, [tmp_path / "tiny-float16.mlpackage"], pictures).values()
    np.testing.assert_allclose(found["logits"], expected, atol=0.005 * np.ptp(expected))
    scores = np.exp(expected / 1.3) * deployment / training
    np.testing.assert_allclose(found["probabilities"], scores / scores.sum(axis=1, keepdims=True), atol=0.005)


def test_the_order_of_the_inputs_axes_does_not_matter(set_up: None, python: Path, tmp_path: Path) -> None:
    nodes = NETWORKS["uneven padding and strides"][1:]
    nodes[0] = helper.make_node("Conv", ["image", "w", "b"], ["c"], pads=[0, 1, 2, 0], strides=[2, 1])
    (tmp_path / "first").mkdir(), (tmp_path / "last").mkdir()
    converted(network(nodes, CONSTANTS, channels_first=True), tmp_path / "first")
    converted(network(NETWORKS["uneven padding and strides"], CONSTANTS), tmp_path / "last")
    pictures = np.random.default_rng(2).integers(0, 256, (3, 8, 8, 3), np.uint8)
    first, last = (computed(python, tmp_path, [tmp_path / name / "tiny-float16.mlpackage"], pictures)["tiny-float16.mlpackage"] for name in ("first", "last"))
    assert first["logits"] == last["logits"]


def test_the_bytes_are_the_same_every_time(set_up: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = network(NETWORKS["a residual of depthwise layers"], CONSTANTS)
    for name, umask in (("a", "1"), ("b", "2")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv("TZ", f"UTC-{umask}")
        converted(content, tmp_path / name)
    first, second = snapshot(tmp_path / "a"), snapshot(tmp_path / "b")
    assert first == second and len(first) == 6
    for file in (tmp_path / "a").rglob("*"):
        assert str(tmp_path).encode() not in (file.read_bytes() if file.is_file() else b"")


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        ([IN, helper.make_node("Conv", ["x", "w", "b"], ["c"]), helper.make_node("Erf", ["c"], ["r"]), *end("r", 6)], "the operator Erf of this network"),
        ([IN, helper.make_node("Conv", ["x", "w", "b"], ["c"], auto_pad="SAME_UPPER"), *end("c", 6)], "the operator Conv of this network, or a setting of it"),
        ([IN, helper.make_node("Conv", ["x", "w", "b"], ["c"]), helper.make_node("Clip", ["c", "zero"], ["r"]), *end("r", 6)], "the operator Clip of this network, or a setting"),
        ([IN, helper.make_node("Conv", ["x", "w", "b"], ["c"]), helper.make_node("Clip", ["c", "", "six"], ["r"]), *end("r", 6)], "the operator Clip of this network, or a setting"),
        ([IN, helper.make_node("Conv", ["x", "w", "b"], ["c"]), helper.make_node("Clip", ["c"], ["r"]), *end("r", 6)], "the operator Clip of this network, or a setting"),
        ([IN, helper.make_node("Conv", ["x", "w", "b"], ["c"]), helper.make_node("ReduceMean", ["c"], ["r"]), *end("r", 6)], "the operator ReduceMean of this network, or a setting"),
    ],
)
def test_a_network_without_a_counterpart_is_refused(set_up: None, tmp_path: Path, nodes: list, found: str) -> None:
    with pytest.raises(BadInput, match=found) as caught:
        converted(network(nodes, CONSTANTS), tmp_path)
    assert str(caught.value).isprintable() and "export without --coreml" in str(caught.value) and list(tmp_path.iterdir()) == []


# --- what is read back is judged

GOOD = {
    "specification": 7,
    "input": {"name": "image", "width": 8, "height": 8, "channels": "RGB"},
    "outputs": ["classLabel", "classLabel_probs", "logits"],
    "classes": list(CLASSES),
    "operators": {"conv": 1},
    "weights": [{"layer": "c", "stored": "float16", "shape": [6, 3, 3, 3], "error": 0.9}],
    "biases": [{"layer": "c", "error": 0.9}],
    "decision": {"temperature": 0.5, "priors": 0.0},
    "settings": [],
}


@pytest.mark.parametrize(
    ("precision", "change", "found"),
    [
        ("float16", {}, None),
        ("float16", {"input": GOOD["input"] | {"channels": "BGR"}}, "its input is"),
        ("float16", {"input": GOOD["input"] | {"width": 9}}, "its input is"),
        ("float16", {"outputs": ["logits"]}, "its outputs are logits, expected"),
        ("float16", {"classes": list(reversed(CLASSES))}, "its classes are others, or in another order"),
        ("float16", {"weights": [GOOD["weights"][0] | {"error": 1.01}]}, "a weight of c is 1.01 times further from its source"),
        ("float16", {"weights": [GOOD["weights"][0] | {"error": None}]}, "the layer c is missing or has another shape"),
        ("float16", {"weights": [GOOD["weights"][0] | {"error": float("nan")}]}, "a weight of c is nan times"),
        ("float16", {"weights": [GOOD["weights"][0] | {"stored": "float32"}]}, "the layer c has float32 weights"),
        ("float16", {"weights": [GOOD["weights"][0] | {"stored": "int8"}]}, "the layer c has int8 weights"),
        ("float16", {"biases": [{"layer": "c", "error": 1.01}]}, "the biases of c are others than its source's"),
        ("float16", {"biases": [{"layer": "c", "error": None}]}, "the biases of c are others than its source's"),
        ("float16", {"decision": {"temperature": 1.01, "priors": 0.0}}, "its temperature is another"),
        ("float16", {"decision": {"temperature": 0.5, "priors": None}}, "its priors are others"),
        ("float16", {"settings": ["c has strides [1, 1], its source [2, 1]"]}, r"c has strides \[1, 1\], its source \[2, 1\]"),
        ("int8-weights", {}, "no layer has int8 weights"),
        ("int8-weights", {"weights": [GOOD["weights"][0] | {"stored": "int8"}]}, None),
    ],
)
def test_a_package_that_is_not_what_it_should_be_is_refused(tmp_path: Path, precision: str, change: dict, found: str | None) -> None:
    facts = Facts("tiny-float32", "tiny", "float32", CLASSES, "melanoma", 8, "", "")
    if found is None:
        assert coreml._checked("n", precision, "a", facts, GOOD | change, tmp_path).precision == precision
        return
    with pytest.raises(ProofFailed, match=f"n is not what it should be: {found}"):
        coreml._checked("n", precision, "a", facts, GOOD | change, tmp_path)


READ_AGAIN = f"""
import importlib.util, json, sys
import onnx
spec = importlib.util.spec_from_file_location("child", {str(Path(coreml.__file__).with_name("coreml_child.py"))!r})
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
from pathlib import Path
print(json.dumps([child._read_back(Path(sys.argv[1]), onnx.load(file).graph, json.loads(job)) for file, job in zip(sys.argv[2::2], sys.argv[3::2])]))
"""


def test_a_package_is_held_to_everything_that_its_source_computes_with(set_up: None, python: Path, tmp_path: Path) -> None:
    """One package read back against its own source, and against sources that differ in one thing each."""
    facts = Facts("tiny-float32", "tiny", "float32", CLASSES, "melanoma", 8, "", "")
    for what, changes in WRONG.items():
        folder = tmp_path / what.split()[-1]
        folder.mkdir()
        converted(network(NETWORKS[what], CONSTANTS), folder, training=np.array([0.2, 0.3, 0.5]))
        arguments, expected = [], []
        for number, (replaced, constants, decision, words) in enumerate(changes):
            nodes = [replaced if replaced is not None and node.output == replaced.output else node for node in NETWORKS[what]]
            (folder / f"{number}.onnx").write_bytes(network(nodes, CONSTANTS | constants))
            ratio = decision.get("ratio", (np.log(EVEN) - np.log([0.2, 0.3, 0.5])).tolist())
            arguments += [folder / f"{number}.onnx", json.dumps({"temperature": decision.get("temperature", 1.3), "log_prior_ratio": ratio, "classes": CLASSES})]
            expected.append(words)
        done = own_environments.call(python, "-c", READ_AGAIN, folder / "tiny-float16.mlpackage", *arguments)
        assert done.returncode == 0, done.stderr[-2000:]
        for found, words in zip(json.loads(done.stdout.splitlines()[-1]), expected, strict=True):
            assert list(coreml._contradictions("float16", facts, found)) == words


def test_what_coremltools_leaves_where_it_is_stopped_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging, told, temporary = tmp_path / "python", tmp_path / "told", tmp_path / "tmp"
    hanging.write_text(f'#!/bin/sh\nmkdir "$TMPDIR/left"\necho "$TMPDIR" > {told}\nexec sleep 600\n')
    hanging.chmod(0o755)
    temporary.mkdir()
    monkeypatch.setattr(coreml, "require", lambda: hanging)
    monkeypatch.setattr(coreml, "SECONDS", 5)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with pytest.raises(Error, match="gave no package of tiny-float32.onnx within 5 s and was stopped"):
        converted(network(NETWORKS["a residual of depthwise layers"], CONSTANTS), tmp_path)
    assert Path(told.read_text().strip()).parent.parent == temporary and list(temporary.iterdir()) == []


# --- where it is not set up


def test_without_coremltools_the_command_that_installs_it_is_named_and_nothing_is_left(cli: Cli, run: Path, tmp_path: Path) -> None:
    with cli.start("export", run, "--coreml", "--out", tmp_path / "b.bundle", "-q", env={"MELANOMA_EDGE_RUNTIMES": str(tmp_path / "none")}) as process:
        out, err = process.communicate(timeout=600)
    assert process.returncode == 3 and out == b"" and err.decode().splitlines() == [
        "melanoma-edge: Core ML packages need coremltools in an environment of its own, which is not set up: melanoma-edge setup coreml"
    ]
    assert list(tmp_path.iterdir()) == []


def test_packages_need_the_float32_onnx_artifact(cli: Cli, run: Path, tmp_path: Path) -> None:
    for options in (["--tflite"], ["--precision", "int8"]):
        line = cli.refused("export", run, "--coreml", *options, "--out", tmp_path / "b.bundle", "-q")
        assert "Core ML packages are made from the float32 ONNX artifact" in line
    assert list(tmp_path.iterdir()) == []


def test_what_pip_cannot_get_is_missing_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELANOMA_EDGE_RUNTIMES", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(Missing, match="coreml could not be installed .*No matching distribution.*: check the network and try again") as caught:
        coreml.install()
    assert str(caught.value).isprintable() and list(tmp_path.iterdir()) == []


def test_an_unknown_thing_to_set_up_is_refused(cli: Cli) -> None:
    assert "there is nothing called 'xcode' to set up: expected one of arm64, browser, coreml" in cli.refused("setup", "xcode")

