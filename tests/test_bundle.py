"""Opening a bundle: a good one opens, and whatever is wrong with another is one line that says what to do."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_bundle import CLASSES, numpy_logits, write_bundle

from melanoma_edge.convert.bundle import GOLDEN, MANIFEST, SEEN, open_bundle
from melanoma_edge.data.image import load
from melanoma_edge.errors import BadInput

INT8, PTQ = "tiny-int8.tflite", "tiny-int8-ptq.tflite"
CALIBRATION = {"pictures": 2, "per_class": {"nevus": 2}, "sha256": "0" * 64}
COMPARISON = {"reference": "gone.tflite", "candidate": INT8, "pictures": 3, "lesions": 3, "losses": {}, "flips": 0}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "tiny.bundle")


@pytest.fixture
def bundle(whole: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(whole, tmp_path / "tiny.bundle"))


PROBABILITIES = {
    "name": "tiny-float32-probabilities.tflite",
    "path": "tiny-float32-probabilities.tflite",
    "sha256": "0" * 64,
    "bytes": 1,
    "output": {"name": "probabilities", "dtype": "float32", "shape": [1, 3]},
    "operators": {},
}
PACKAGE = {
    "name": "tiny-float16.mlpackage",
    "path": "tiny-float16.mlpackage",
    "precision": "float16",
    "artifact": "tiny-float32.onnx",
    "bytes": 1,
    "specification": 7,
    "operators": {},
    "layers": {"float16": 1},
    "weight_error": 0.5,
}


def refused(path: Path) -> str:
    """Return the message of the BadInput, after checking that it is one line that names the path and a next step."""
    with pytest.raises(BadInput) as caught:
        open_bundle(path)
    message = str(caught.value)
    assert message.isprintable() and str(path) in message and caught.value.exit_code == 2
    assert any(step in message for step in ("export it again", "export the bundle again", "melanoma-edge export", "make it again", "pip install --upgrade"))
    return message


def edit(bundle: Path, change: Callable[[dict], object]) -> Path:
    """Change the manifest in place and write it back."""
    manifest = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    change(manifest)
    (bundle / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return bundle


def reseal(bundle: Path, name: str, content: bytes) -> Path:
    """Write `content` to a file of the bundle and its hash to the manifest: a bundle that someone made by hand."""
    (bundle / name).write_bytes(content)
    return edit(bundle, lambda manifest: manifest["files"].update({name: hashlib.sha256(content).hexdigest()}))


def edit_golden(bundle: Path, change: Callable[[dict], object]) -> Path:
    golden = json.loads((bundle / GOLDEN).read_text(encoding="utf-8"))
    change(golden)
    return reseal(bundle, GOLDEN, json.dumps(golden).encode())


# --- a good one


def test_a_whole_bundle_opens_with_everything_in_it(whole: Path) -> None:
    opened = open_bundle(whole)
    assert opened.path == whole and opened.manifest.classes == CLASSES
    inputs = np.stack([load(whole / picture.file, opened.manifest.input.width) for picture in opened.golden.pictures])
    for artifact in opened.manifest.artifacts:
        assert hashlib.sha256(opened.file(artifact).read_bytes()).hexdigest() == artifact.sha256
        expected = opened.golden.expected(artifact.name)
        assert expected.dtype == np.float32 and np.allclose(expected, numpy_logits(inputs))
    assert opened.golden.expected("keras-float") is None
    assert open_bundle(str(whole)).manifest == opened.manifest


def test_an_artifact_is_found_by_name_or_the_names_are_listed(whole: Path) -> None:
    opened = open_bundle(whole)
    assert opened.artifact(INT8).name == INT8
    with pytest.raises(BadInput, match="has no artifact 'int8': expected one of tiny-float32.tflite, tiny-int8.tflite, tiny-float32.onnx"):
        opened.artifact("int8")


@pytest.mark.parametrize(
    "names, default",
    [
        (["tiny-float32.tflite", "tiny-float32.onnx", INT8], INT8),
        (["tiny-float32.onnx", "tiny-float32.tflite"], "tiny-float32.tflite"),
        (["tiny-float32.onnx"], "tiny-float32.onnx"),
        ([PTQ, "tiny-float32.onnx", INT8], INT8),
        ([PTQ, "tiny-float32.tflite", "tiny-int8.onnx"], "tiny-int8.onnx"),
        (["tiny-float32.tflite", "tiny-float32.onnx", PTQ], PTQ),
    ],
)
def test_the_default_is_what_a_phone_would_run(bundle: Path, names: list[str], default: str) -> None:
    edit_golden(bundle, lambda golden: golden["logits"].update({name: golden["logits"][INT8] for name in (PTQ, "tiny-int8.onnx")}))

    def keep(manifest: dict) -> None:
        by_name = {artifact["name"]: artifact for artifact in manifest["artifacts"]}
        by_name[PTQ] = by_name[INT8] | {"name": PTQ, "precision": "int8-ptq", "calibration": CALIBRATION}
        by_name["tiny-int8.onnx"] = by_name["tiny-float32.onnx"] | {"name": "tiny-int8.onnx", "precision": "int8", "quantum": 0.1}
        manifest["artifacts"] = [by_name[name] for name in names]

    assert open_bundle(edit(bundle, keep)).default_artifact().name == default


def test_what_training_saw_is_a_set_of_hashes(bundle: Path) -> None:
    assert open_bundle(bundle).seen_hashes() == frozenset()
    reseal(bundle, SEEN, b"aa\nbb\nbb\n")
    assert open_bundle(bundle).seen_hashes() == {"aa", "bb"}


def test_evidence_and_notes_beside_the_sealed_files_do_not_break_the_seal(bundle: Path) -> None:
    (bundle / "evidence").mkdir()
    (bundle / "evidence" / "parity.json").write_text("{}")
    (bundle / "NOTES.txt").write_text("mine")
    assert open_bundle(bundle)


# --- files that are not what was exported


@pytest.mark.parametrize("name", [INT8, "golden/0.png", GOLDEN, SEEN])
def test_one_altered_byte_is_found(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes() or b"x")
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    message = refused(bundle)
    assert f"{bundle / name} was altered: its sha256 is {hashlib.sha256(content).hexdigest()[:12]}..." in message


@pytest.mark.parametrize("name", [INT8, "golden/1.png", GOLDEN, SEEN, MANIFEST])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    assert f"{bundle / name} is missing" in refused(bundle)


@pytest.mark.parametrize("kind", ["link to a copy", "link inside", "dangling link", "folder", "pipe"])
def test_what_stands_in_place_of_an_artifact_is_not_read(bundle: Path, tmp_path: Path, kind: str) -> None:
    path = bundle / INT8
    shutil.move(path, tmp_path / "away")
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        shutil.copy(tmp_path / "away", bundle / "copy")
        path.symlink_to({"link to a copy": tmp_path / "away", "link inside": "copy", "dangling link": tmp_path / "nowhere"}[kind])
    assert f"{path} is missing or not a plain file" in refused(bundle)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_named(bundle: Path) -> None:
    (bundle / INT8).chmod(0)
    assert f"{bundle / INT8} cannot be read" in refused(bundle)


def test_a_folder_that_links_out_of_the_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    shutil.move(bundle / "golden", tmp_path / "golden")
    (bundle / "golden").symlink_to(tmp_path / "golden")
    assert "not a plain file" in refused(bundle)


def test_a_file_added_to_the_golden_set_is_refused(bundle: Path) -> None:
    (bundle / "golden" / ".DS_Store").write_bytes(b"the Finder writes this")
    assert open_bundle(bundle)
    (bundle / "golden" / "2.png").write_bytes((bundle / "golden" / "1.png").read_bytes())
    assert f"{bundle / 'golden' / '2.png'} is not sealed" in refused(bundle)


def test_what_is_no_bundle_says_what_one_is(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("x")
    for name in ("a file", "nothing", "x" * 300):
        message = refused(tmp_path / name)
        assert "is not a bundle: expected a folder with manifest.json; make one with `melanoma-edge export`" in message
    (tmp_path / "empty").mkdir()
    assert "manifest.json is missing: expected a bundle manifest" in refused(tmp_path / "empty")
    (tmp_path / "empty" / MANIFEST).mkdir()
    assert "cannot be read as a bundle manifest" in refused(tmp_path / "empty")


# --- manifests


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b'{"name": "\xe9"}', b"\0" * 100, b"[" * 200_000, b'{"a":' * 100_000, b'{"schema_version": ' + b"9" * 5000 + b"}"],
    ids=lambda content: repr(content[:12]),
)
def test_a_manifest_that_is_not_json_is_refused(bundle: Path, content: bytes) -> None:
    (bundle / MANIFEST).write_bytes(content)
    assert "cannot be read as a bundle manifest" in refused(bundle)


@pytest.mark.parametrize("content", [b"[]", b"null", b"3", b'"text"', b"{}", b"[[[]]]", b'{"schema_version": true}', b'{"schema_version": 1e999}'])
def test_json_that_is_no_manifest_is_refused(bundle: Path, content: bytes) -> None:
    (bundle / MANIFEST).write_bytes(content)
    assert "is not a valid manifest" in refused(bundle)


@pytest.mark.parametrize("also", [{}, {"new key": 1}])
def test_a_newer_schema_asks_for_an_upgrade(bundle: Path, also: dict) -> None:
    message = refused(edit(bundle, lambda manifest: manifest.update(schema_version=3, **also)))
    assert "has schema version 3: this melanoma-edge reads up to 2; upgrade with `pip install --upgrade melanoma-edge`" in message


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda m: m.update(surprise=1), "surprise: Extra inputs are not permitted"),
        (lambda m: m["artifacts"][0].update(surprise=1), "artifacts.0.surprise: Extra inputs"),
        (lambda m: m.update({"two\nlines": 1}), "Extra inputs are not permitted"),
        (lambda m: m["recipe"].update(epoch=3), "recipe.epoch: Extra inputs"),
        (lambda m: m.pop("classes"), "classes: Field required"),
        (lambda m: m.update(classes=["melanoma", "nevus", "melanoma"]), "a class stands twice"),
        (lambda m: m.update(classes=["melanoma"]), "classes: "),
        (lambda m: m.update(classes=["melanoma", "", "nevus"]), "classes.1: "),
        (lambda m: m.update(positive_class="wart"), "positive_class 'wart' is not among the classes"),
        (lambda m: m.update(artifacts=[]), "artifacts: "),
        (lambda m: m["artifacts"][0].update(sha256="0" * 64), "disagree about its sha256"),
        (lambda m: m["artifacts"][0].update(sha256="not a hash"), "artifacts.0.sha256: "),
        (lambda m: m["artifacts"][0].update(precision="int4"), "artifacts.0.precision: "),
        (lambda m: m["artifacts"][0].update(bytes="many"), "artifacts.0.bytes: "),
        (lambda m: m["artifacts"][0].update(bytes=1.5), "artifacts.0.bytes: "),
        (lambda m: m["artifacts"][1].update(quantum=float("nan")), "artifacts.1.quantum: Input should be a finite number"),
        (lambda m: m["artifacts"][0]["decision"].update(temperature=0), "artifacts.0.decision.temperature: "),
        (lambda m: m["artifacts"][0]["decision"].update(temperature=10**400), "artifacts.0.decision.temperature: "),
        (lambda m: m["priors"]["training"].update(melanoma=float("inf")), "priors.training.melanoma: Input should be a finite number"),
        (lambda m: m["priors"]["training"].pop("melanoma"), "do not give every class a share"),
        (lambda m: m["priors"]["deployment"].update(melanoma=0.0), "do not give every class a share"),
        (lambda m: m["artifacts"].append(m["artifacts"][0]), "an artifact stands twice"),
        (lambda m: next(a for a in m["artifacts"] if a["precision"] == "int8").update(quantum=None), "has no quantum above 0"),
        (lambda m: m["input"].update(width=31), "the recipe's image_size"),
        (lambda m: m["input"].update(layout="NCHW"), "input.layout: "),
        (lambda m: m["artifacts"][2].update(layout="CHWN"), "artifacts.2.layout: "),
        (lambda m: m["artifacts"][2].update(layout="NCHW"), "tiny-float32.onnx takes [1, 32, 32, 3]: expected [1, 3, 32, 32] for NCHW"),
        (lambda m: m["artifacts"][0].update(layout="NCHW"), "tiny-float32.tflite says that it takes NCHW: expected NHWC of tflite"),
        (lambda m: m["artifacts"][1].update(precision="int8-ptq"), "does not say on which pictures it was calibrated"),
        (lambda m: m["artifacts"][1].update(precision="int8-ptq", calibration=CALIBRATION, quantum=None), "has no quantum above 0"),
        (lambda m: m.update(comparisons=[COMPARISON]), "tiny-int8.tflite is compared with gone.tflite, and not both are artifacts"),
        (lambda m: m["artifacts"][0].update(probabilities=PROBABILITIES), "artifact tiny-float32-probabilities.tflite and the list of files disagree"),
        (lambda m: m["artifacts"][0].update(probabilities=PROBABILITIES | {"path": "../x"}), "path '../x' leaves the bundle"),
        (lambda m: m["artifacts"][0].update(probabilities=PROBABILITIES | {"output": None}), "artifacts.0.probabilities.output: "),
        (lambda m: m.update(coreml=[PACKAGE]), "the Core ML package tiny-float16.mlpackage holds no file"),
        (lambda m: m.update(coreml=[PACKAGE | {"path": "/tmp"}]), "path '/tmp' leaves the bundle"),
        (lambda m: m.update(coreml=[PACKAGE | {"weight_error": 1.5}]), "coreml.0.weight_error: "),
        (lambda m: m["files"].pop(SEEN), "does not seal golden/golden.json and seen.txt"),
        (lambda m: m["files"].pop(GOLDEN), "does not seal golden/golden.json and seen.txt"),
        (lambda m: m["files"].update({"lost.txt": "0" * 64}), "lost.txt is missing"),
    ],
)
def test_a_manifest_that_contradicts_its_schema_or_itself_is_refused(bundle: Path, change: Callable[[dict], object], expected: str) -> None:
    assert expected in refused(edit(bundle, change))


@pytest.mark.parametrize(
    "path", ["../outside.tflite", "a/../../outside.tflite", "/etc/hostname", "C:\\model.tflite", "a\\..\\b", "", ".", "./a", "a//b", "a/", "~/a", "a\nb", "a\0b", "ä", "a/.hidden"]
)
def test_a_path_that_is_not_plain_is_refused_before_it_is_opened(bundle: Path, path: str) -> None:
    def point(manifest: dict) -> None:
        manifest["artifacts"][0]["path"] = path
        manifest["files"][path] = manifest["artifacts"][0]["sha256"]

    (bundle.parent / "outside.tflite").write_bytes((bundle / "tiny-float32.tflite").read_bytes())
    assert "leaves the bundle: expected a plain relative path" in refused(edit(bundle, point))


def test_a_listed_file_outside_is_refused_like_an_artifact(bundle: Path) -> None:
    assert "leaves the bundle" in refused(edit(bundle, lambda manifest: manifest["files"].update({"../x": "0" * 64})))


# --- golden sets


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda g: g.update(surprise=1), "surprise: Extra inputs"),
        (lambda g: g.update({"two\nlines": 1}), "Extra inputs are not permitted"),
        (lambda g: g.pop("pictures"), "pictures: Field required"),
        (lambda g: g.update(schema_version=2), "schema_version: Input should be 1"),
        (lambda g: g.update(pictures=[]), "no pictures"),
        (lambda g: g["pictures"][0].update(file="../../etc/hostname"), "names ../../etc/hostname, which the manifest does not seal"),
        (lambda g: g["pictures"][0].update(file="golden/two\nlines.png"), "which the manifest does not seal"),
        (lambda g: g["logits"].update({INT8: [[1.0, 2.0, float("nan")]] * 2}), f"logits.{INT8}.0.2: "),
        (lambda g: g["logits"].update({INT8: [[1.0, 2.0, "3"]] * 2}), f"logits.{INT8}.0.2: "),
        (lambda g: g["logits"].update({INT8: [[1.0, 2.0, 3.0]]}), f"logits of {INT8} are not 2 x 3"),
        (lambda g: g["logits"].update({INT8: [[1.0, 2.0]] * 2}), f"logits of {INT8} are not 2 x 3"),
        (lambda g: g["logits"].update({"keras-qat": [[1.0, 2.0, 3.0], [1.0]]}), "logits of keras-qat are not 2 x 3"),
        (lambda g: g["logits"].update({"two\nlines": []}), "are not 2 x 3"),
    ],
)
def test_a_golden_set_that_cannot_be_used_is_refused(bundle: Path, change: Callable[[dict], object], expected: str) -> None:
    assert expected in refused(edit_golden(bundle, change))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 200_000, b"9" * 5000, b"1e999"], ids=lambda content: repr(content[:8]))
def test_a_golden_set_that_is_not_json_is_refused(bundle: Path, content: bytes) -> None:
    assert "is not a valid golden set" in refused(reseal(bundle, GOLDEN, content))


# --- anything at all

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["melanoma", "int8", INT8, "0" * 64]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_in_any_place_opens_or_is_refused_in_one_line(whole: Path, tmp_path: Path, data: st.DataObject) -> None:
    """One value somewhere in the manifest is replaced, removed, or joined by an unknown one."""
    manifest = json.loads((whole / MANIFEST).read_text(encoding="utf-8"))
    place: dict | list = manifest
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if isinstance(place[key], (dict, list)) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        break
    if data.draw(st.integers(0, 3)):
        place[key] = data.draw(JSON)
    elif isinstance(place, dict) and data.draw(st.booleans()):
        place[data.draw(st.text(max_size=8))] = data.draw(JSON)
    else:
        del place[key]
    target = tmp_path / "any.bundle"
    if not target.exists():
        shutil.copytree(whole, target)
    (target / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    try:
        open_bundle(target)
    except BadInput as error:
        assert str(error).isprintable() and str(target) in str(error)


def version_1(manifest: dict) -> None:
    """Make a manifest what version 1 wrote."""
    manifest["schema_version"] = 1
    manifest["recipe"]["operating_specificity"] = 0.8
    for key in ("abstention", "operating_sensitivity"):
        del manifest["recipe"][key]
    for artifact in manifest["artifacts"]:
        del artifact["non_lesions"]
        artifact["decision"] = {
            "temperature": 1.0,
            "thresholds": [{"target_specificity": 0.8, "probability": 0.25, "validation_sensitivity": 0.9, "validation_specificity": 0.81}],
            "operating_specificity": 0.8,
            "abstention": {"method": "confidence", "coverage": 0.9, "probability": 0.4},
        }


def test_a_bundle_of_version_1_is_read_as_what_it_means(bundle: Path) -> None:
    manifest = open_bundle(edit(bundle, version_1)).manifest
    decision = manifest.artifacts[0].decision
    assert manifest.schema_version == 2 and manifest.recipe.operating_specificity == 0.8 and manifest.recipe.operating_sensitivity is None
    assert decision.threshold.in_words() == "the lowest threshold with 80 % specificity on validation" and decision.threshold.probability == 0.25
    assert decision.abstention.threshold == 0.4


def test_a_model_that_gives_probabilities_cannot_abstain_by_energy(bundle: Path) -> None:
    energy = {"method": "energy", "coverage": 0.9, "threshold": -1.0, "answered": "at most", "temperature": 1.0}

    def abstain(manifest: dict) -> None:
        for artifact in manifest["artifacts"]:
            artifact["decision"]["abstention"] = energy

    assert open_bundle(edit(bundle, abstain)).manifest.artifacts[0].decision.abstention.method == "energy"
    source = {"file": "net.onnx", "format": "onnx", "sha256": "0" * 64, "bytes": 1}
    message = refused(edit(bundle, lambda m: m.update(origin="model", source=source, recipe=None, data=None, weights={}, output="probabilities")))
    assert "abstains by energy, which probabilities do not have: expected confidence" in message


@pytest.mark.parametrize("abstention", [{"method": "energy"}, {"answered": "at most"}, {"temperature": 1.0}, {"threshold": "low"}, {"method": "mood"}])
def test_an_abstention_that_cannot_be_is_refused(bundle: Path, abstention: dict) -> None:
    assert "abstention" in refused(edit(bundle, lambda manifest: manifest["artifacts"][0]["decision"]["abstention"].update(abstention)))
