"""Two bundles compared: what differs is said, what is worse fails, what cannot be compared is neither."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_bundle
from conftest import Cli, validate
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_verify_cli import reseal
from tiny_run import write_bundle_of, write_run

from melanoma_edge.contract import Interval
from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.errors import BadInput, ProofFailed
from melanoma_edge.proof import diff_checks, diff_facts
from melanoma_edge.proof.diff import diff, refuse_worse, tolerances
from melanoma_edge.proof.diff_model import Check, Difference, Tolerances
from melanoma_edge.proof.latency_model import Latency
from melanoma_edge.runtimes import process

INT8, FLOAT, ONNX = "tiny-int8.tflite", "tiny-float32.tflite", "tiny-float32.onnx"
CLASSES = tiny_bundle.CLASSES


def edit(bundle: Path, change: Callable[[dict], object]) -> Path:
    """Change the manifest of a bundle and return the bundle."""
    file = bundle / "manifest.json"
    manifest = json.loads(file.read_text(encoding="utf-8"))
    change(manifest)
    file.write_text(json.dumps(manifest), encoding="utf-8")
    return bundle


def check(found: Difference, name: str, artifact: str = INT8, runtime: str = "") -> Check:
    """Return the one check of this name."""
    [one] = [one for one in found.checks if (one.name, one.artifact, one.runtime) == (name, artifact, runtime)]
    return one


@pytest.fixture
def a(tmp_path: Path) -> Path:
    return tiny_bundle.write_bundle(tmp_path / "a.bundle")


@pytest.fixture
def b(a: Path) -> Path:
    """A copy of A that a test may change."""
    return Path(shutil.copytree(a, a.parent / "b.bundle"))


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle whose network prefers another class, as if it had been trained worse."""
    monkeypatch.setattr(tiny_bundle, "BIAS", tiny_bundle.BIAS + np.array([-0.6, 0.6, 0.0], np.float32))
    return tiny_bundle.write_bundle(tmp_path / "other.bundle")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures that A's network gets right, all of them, by its own first class."""
    folder = tmp_path_factory.mktemp("labelled") / "pictures"
    wanted = dict.fromkeys(CLASSES, 40)
    random = np.random.default_rng(3)
    while any(wanted.values()):
        # Different shades, so that the logits differ and no two pictures look alike.
        image = random.integers(0, 256, (4, 4, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        name = CLASSES[int(tiny_bundle.numpy_logits(image[np.newaxis]).argmax())]
        if wanted[name]:
            wanted[name] -= 1
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / name / f"{wanted[name]}.png")
    return folder


# The same.


def test_a_bundle_does_not_differ_from_its_copy_and_nothing_is_run_or_written(cli: Cli, a: Path, b: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "run_logits", lambda *_, **__: pytest.fail("a model was run"))
    found = diff(a, b)
    assert not found.changes and not any(found.files.values()) and {one.status for one in found.artifacts} == {"same"}
    assert {one.outcome for one in found.checks} == {"passed", "not compared"}
    assert [one.name for one in found.checks if one.outcome == "not compared"] == ["latency"]
    done = cli("diff", a, b)
    assert "the same in both, file and decision: tiny-float32.tflite, tiny-int8.tflite, tiny-float32.onnx" in done.out
    assert not (a / "evidence").exists() and not (b / "evidence").exists()
    validate(cli("diff", a, b, "--json", "-q").json, "diff")


# What differs.


def test_what_differs_is_told_by_section_and_key(a: Path, b: Path) -> None:
    def change(manifest: dict) -> None:
        manifest["recipe"]["augment"]["rotate"]["high"] = 30.0
        manifest["recipe"]["seed"] = 8
        manifest["data"]["pictures"] = {"test": 7}
        manifest["licence"] = "CC0 1.0"
        manifest["artifacts"][1]["decision"]["temperature"] = 1.5
        manifest["artifacts"][1]["operators"] = {"CONV_2D": 2}
        manifest["weights"]["qat"] = "1" * 64
        manifest["tool_versions"] = {"numpy": "2.3"}

    (b / "labels.txt").write_text("", encoding="utf-8")
    found = diff(a, edit(b, change))
    told = {(one.section, one.key): (one.a, one.b) for one in found.changes}
    assert told == {
        ("recipe", "augment.rotate.high"): (0.0, 30.0),
        ("recipe", "seed"): (7, 8),
        ("data", "pictures.test"): (None, 7),
        ("licence", "licence"): ("none", "CC0 1.0"),
        ("weights", "qat"): ("0" * 64, "1" * 64),
        ("tools", "numpy"): (None, "2.3"),
    }
    [changed] = [one for one in found.artifacts if one.decision]
    assert (changed.a, changed.status, changed.operators) == (INT8, "same", {"CONV_2D": (0, 2)})
    assert [(one.key, one.a, one.b) for one in changed.decision] == [("temperature", 1.0, 1.5)]
    assert changed.flips.count == 0 and changed.flips.pictures == 202


def test_artifacts_are_paired_by_name_and_else_by_what_they_are(a: Path, b: Path) -> None:
    def rename(manifest: dict) -> None:
        for artifact in manifest["artifacts"][:2]:
            old, new = artifact["name"], artifact["name"].replace("tiny", "mine")
            manifest["files"][new] = manifest["files"].pop(old)
            artifact["name"] = artifact["path"] = new
            (b / old).rename(b / new)
        gone = manifest["artifacts"].pop()
        del manifest["files"][gone["path"]]
        manifest["recipe"]["name"] = "mine"

    golden = b / "golden" / "golden.json"
    golden.write_text(golden.read_text(encoding="utf-8").replace("tiny-float32.tflite", "mine-float32.tflite").replace("tiny-int8", "mine-int8"), encoding="utf-8")
    reseal(edit(b, rename))
    found = diff(a, b)
    assert [(one.a, one.b, one.status) for one in found.artifacts] == [(FLOAT, "mine-float32.tflite", "same"), (INT8, "mine-int8.tflite", "same"), (ONNX, None, "removed")]
    gone = check(found, "artifacts", "all")
    assert gone.outcome == "failed" and f"B has nothing that stands for {ONNX}" in gone.reason
    with pytest.raises(ProofFailed, match=r"B is worse in 1 check: artifacts \(all\)"):
        refuse_worse(found)
    refuse_worse(diff(a, b, artifacts=["int8"]))
    back = diff(b, a)
    assert [(one.b, one.status) for one in back.artifacts][-1] == (ONNX, "added") and check(back, "artifacts", "all").outcome == "passed"


def test_a_file_with_probabilities_that_is_gone_is_told(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    """Whoever shows scores as they come, with MediaPipe say, runs that file and not the one beside it."""
    less = Path(shutil.copytree(bundle, tmp_path / "less.bundle"))
    manifest = json.loads((less / "manifest.json").read_text(encoding="utf-8"))
    artifact = next(one for one in manifest["artifacts"] if one["probabilities"])
    gone = artifact["probabilities"]["name"]
    del manifest["files"][artifact["probabilities"]["path"]]
    (less / artifact["probabilities"]["path"]).unlink()
    artifact["probabilities"] = None
    (less / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    reseal(less)
    done = cli("diff", bundle, less, "-q", code=1)
    assert "artifacts (all)" in done.err and f"nothing that stands for {gone}" in " ".join(done.out.split())
    cli("diff", less, bundle, "-q")


@given(st.data())
def test_pairs_hold_every_artifact_exactly_once(data: st.DataObject) -> None:
    artifact = Artifacts.make
    kinds = st.sampled_from([("tflite", "float32"), ("tflite", "int8"), ("onnx", "int8")])
    sides = [[artifact(f"{name}", *kind) for name, kind in data.draw(st.dictionaries(st.sampled_from("abcdef"), kinds, max_size=5)).items()] for _ in "ab"]
    found = diff_facts.pairs(*(Artifacts(side) for side in sides))
    assert [mine.name for mine, _ in found if mine] == [one.name for one in sides[0]]
    assert sorted(theirs.name for _, theirs in found if theirs) == sorted(one.name for one in sides[1])
    names = {one.name for one in sides[0]} & {one.name for one in sides[1]}
    for mine, theirs in found:
        if mine and theirs:
            assert mine.name == theirs.name or (mine.format, mine.precision) == (theirs.format, theirs.precision)
            assert mine.name == theirs.name or not names & {mine.name, theirs.name}


class Artifacts:
    """As much of a manifest as pairing looks at."""

    def __init__(self, artifacts: list) -> None:
        self.artifacts = artifacts

    @staticmethod
    def make(name: str, form: str, precision: str):
        return SimpleNamespace(name=name, format=form, precision=precision)


# Worse.


def test_a_file_that_grew_beyond_the_tolerance_fails(cli: Cli, a: Path, b: Path) -> None:
    content = (b / INT8).read_bytes()
    (b / INT8).write_bytes(content + bytes(len(content) // 5))
    edit(b, lambda manifest: manifest["artifacts"][1].update(bytes=(b / INT8).stat().st_size))
    reseal(b)
    done = cli("diff", a, b, code=1)
    assert done.err.splitlines()[-1] == f"melanoma-edge: B is worse in 1 check: size ({INT8})" and "+20.0%" in done.out
    cli("diff", a, b, "--max-size-growth", "0.2")
    cli("diff", b, a)


def test_other_answers_of_the_same_weights_fail_and_of_other_weights_only_when_asked(a: Path, other: Path) -> None:
    found = diff(a, other, artifacts=["int8"])
    flips = found.artifacts[0].flips
    before, after = (open_bundle(folder).golden.expected(INT8).argmax(axis=1) for folder in (a, other))
    assert flips.count > 20 and flips.pictures == 202 and flips.newly_wrong is None
    assert sum(flip.picture.startswith("golden/") for flip in flips.listed) == (before != after).sum()
    assert all(flip.reference != flip.candidate and 0 <= flip.margin <= 1 for flip in flips.listed)
    assert [flip.margin for flip in flips.listed] == sorted((flip.margin for flip in flips.listed), reverse=True)
    assert check(found, "flips").outcome == "failed" and check(found, "flips").found.value == flips.count / 202
    edit(other, lambda manifest: manifest.update(weights={"float": "1" * 64, "qat": "1" * 64}))
    retrained = diff(a, other, artifacts=["int8"])
    assert not [one for one in retrained.checks if one.name == "flips"] and retrained.artifacts[0].flips == flips
    assert check(diff(a, other, artifacts=["int8"], tolerances=Tolerances(max_flips=1.0)), "flips").outcome == "passed"
    assert check(diff(a, other, artifacts=["int8"], tolerances=Tolerances(max_flips=0.0)), "flips").outcome == "failed"


def test_on_labelled_pictures_the_losses_are_paired_and_a_worse_bundle_fails(cli: Cli, a: Path, other: Path, labelled: Path) -> None:
    edit(other, lambda manifest: manifest.update(weights={"float": "1" * 64, "qat": "1" * 64}))
    found = diff(a, other, data=labelled, artifacts=["int8"])
    assert found.comparison == "paired" and found.labelled == {"used": 120, "unseen": 120}
    lost = check(found, "balanced_accuracy")
    recall = found.artifacts[0].recall_change
    assert lost.outcome == "failed" and lost.found.low > 0.01 and lost.pictures == 120
    assert lost.found.value == pytest.approx(-np.mean(list(recall.values()))) and min(recall.values()) < 0
    flips = found.artifacts[0].flips
    assert (flips.newly_wrong, flips.newly_right) == (flips.count, 0), "A is right on all of them"
    for name in ("positive_sensitivity", "positive_specificity"):
        assert check(found, name).outcome == "not compared"
        assert check(found, name).reason.startswith("no threshold was fitted for tiny-int8.tflite of A and tiny-int8.tflite of B: ")
    assert check(found, "coverage").outcome == "passed" and check(found, "coverage").found.value == 0.0
    done = cli("diff", a, other, "--data", labelled, "-q", "--artifact", INT8, code=1)
    assert "balanced_accuracy" in done.err and "neither saw in training" in done.out and done.err.count("\n") == 1
    better = diff(other, a, data=labelled, artifacts=[INT8])
    assert check(better, "balanced_accuracy").outcome == "passed" and check(better, "balanced_accuracy").found.high < 0
    cli("diff", a, other, "--data", labelled, "-q", "--max-loss", "1", "--artifact", ONNX)


def test_pictures_that_either_training_saw_count_for_no_loss(a: Path, other: Path, labelled: Path) -> None:
    seen = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(labelled.rglob("*.png"))]
    (a / "seen.txt").write_text("\n".join(seen[:50]), encoding="utf-8")
    (other / "seen.txt").write_text("\n".join(seen[50:100]), encoding="utf-8")
    reseal(a)
    reseal(other)
    found = diff(a, other, data=labelled, artifacts=["int8"])
    assert found.labelled == {"used": 120, "unseen": 20} and check(found, "positive_auc").pictures == 20
    (other / "seen.txt").write_text("\n".join(seen[50:]), encoding="utf-8")
    reseal(other)
    none = check(diff(a, other, data=labelled, artifacts=["int8"]), "balanced_accuracy")
    assert none.outcome == "not compared" and "all pictures were used in training of A or B" in none.reason


def test_the_order_of_the_classes_changes_no_answer(a: Path, other: Path, labelled: Path) -> None:
    """B names its classes in another order, and its priors and logits with them: that is no loss."""
    same = Path(shutil.copytree(other, other.parent / "turned.bundle"))
    turned = [1, 2, 0]
    names = [CLASSES[index] for index in turned]
    weights, bias = tiny_bundle.WEIGHTS, tiny_bundle.BIAS
    tiny_bundle.WEIGHTS, tiny_bundle.BIAS = weights[turned], bias[turned]
    try:
        for name, content in ((INT8, tiny_bundle.tflite("uint8")), (FLOAT, tiny_bundle.tflite("float32")), (ONNX, tiny_bundle.onnx("float32"))):
            (same / name).write_bytes(content)
    finally:
        tiny_bundle.WEIGHTS, tiny_bundle.BIAS = weights, bias
    edit(same, lambda manifest: manifest.update(classes=names))
    reseal(same)
    found = diff(other, same, data=labelled)
    assert all(one.flips.count == 0 for one in found.artifacts)
    for name in ("balanced_accuracy", "positive_auc"):
        assert check(found, name).found.value == 0.0
    contract = check(found, "contract", "all")
    assert contract.outcome == "failed" and "another order" in contract.reason, "what knows classes by number would call melanoma something else"
    assert ("classes", "order") in {(one.section, one.key) for one in found.changes}


def test_a_network_of_another_size_answers_for_the_same_pictures(a: Path, tmp_path: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_bundle, "SIZE", 40)
    shape = (len(CLASSES), 40 * 40 * 3)
    monkeypatch.setattr(tiny_bundle, "WEIGHTS", (np.random.default_rng(6).standard_normal(shape) / 1000).astype(np.float32))
    monkeypatch.setattr(tiny_bundle.tflite, "__defaults__", ((1, 40, 40, 3),))
    monkeypatch.setattr(tiny_bundle.onnx, "__defaults__", ((1, 40, 40, 3),))
    larger = tiny_bundle.write_bundle(tmp_path / "larger.bundle")
    for data in (None, labelled):
        found = diff(a, larger, data=data, artifacts=["int8"])
        assert ("input", "width") in {(one.section, one.key) for one in found.changes}
        contract = check(found, "contract", "all")
        assert contract.outcome == "failed" and "another width (32, then 40)" in contract.reason
        assert "another input.shape (1, 32, 32, 3, then 1, 40, 40, 3) of tiny-int8.tflite" in contract.reason
        assert 0 < found.artifacts[0].flips.count < found.artifacts[0].flips.pictures
    assert found.labelled == {"used": 120, "unseen": 120} and check(found, "balanced_accuracy").outcome == "failed"


# Not comparable.


def test_other_classes_fail_unless_allowed_and_no_scores_are_compared(cli: Cli, a: Path, b: Path, labelled: Path) -> None:
    def rename(manifest: dict) -> None:
        manifest["classes"][2] = "a [b]class[/b]\x1b[31m"
        for priors in manifest["priors"].values():
            priors[manifest["classes"][2]] = priors.pop("vascular lesion")

    edit(b, rename)
    done = cli("diff", a, b, "--artifact", "int8", code=1)
    assert done.err.splitlines()[-1] == "melanoma-edge: B is worse in 1 check: contract (all)"
    done = cli("diff", a, b, "--artifact", "int8", "--allow", "contract", "--junit", b.parent / "diff.xml")
    assert "! allowed: contract" in done.out and "1 allowed" in done.out and 'failures="0"' in (b.parent / "diff.xml").read_text(encoding="utf-8")
    assert "B sorts into other classes (no vascular lesion, new: a [b]class[/b]" in done.out and "\x1b[31m" not in done.out
    for data in (None, labelled):
        found = diff(a, b, artifacts=["int8"], data=data).model_dump(mode="json")
        validate(found, "diff")
        assert not [one for one in found["checks"] if one["name"] == "flips"], "other names are other answers"
        losses = [one for one in found["checks"] if one["name"] in ("balanced_accuracy", "positive_auc", "positive_sensitivity")]
        assert len(losses) == 3 and {one["outcome"] for one in losses} == {"not compared"}
    edit(b, lambda manifest: (manifest.update(classes=list(CLASSES), positive_class=None, priors=json.loads((a / "manifest.json").read_text())["priors"])))
    done = cli("diff", a, b, "--artifact", "int8", code=1)
    assert "B has another positive class (melanoma, then none)" in done.out and "contract (all)" in done.err


def changed(bundle: Path, change: Callable[[dict], object]) -> str:
    """Change the int8 artifact's entry and return what the contract says of it."""
    found = diff(bundle.parent / "a.bundle", edit(bundle, lambda manifest: change(manifest["artifacts"][1])))
    contract = check(found, "contract", "all")
    assert contract.outcome == "failed" and [one.a for one in found.artifacts if one.interface] == [INT8]
    refuse_worse(diff(bundle.parent / "a.bundle", bundle, artifacts=["float32"]))
    refuse_worse(diff(bundle.parent / "a.bundle", bundle, allow=["contract"]))
    return contract.reason


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda one: one["input"].update(dtype="int8"), "another input.dtype (uint8, then int8) of tiny-int8.tflite"),
        (lambda one: one["input"].update(name="x"), "another input.name (image, then x) of tiny-int8.tflite"),
        (lambda one: one["input"].update(quantization={"scale": 0.5, "zero_point": 3}), "another input.quantization.scale (1.0, then 0.5) of tiny-int8.tflite"),
        (lambda one: one["output"].update(shape=[3]), "another output.shape (1, 3, then 3) of tiny-int8.tflite"),
    ],
)
def test_what_is_fed_or_read_in_another_way_breaks_the_contract(b: Path, change: Callable[[dict], object], found: str) -> None:
    assert found in changed(b, change)


def test_files_of_somebody_elses_are_compared_without_scores_and_without_claims_on_their_training(cli: Cli, a: Path, other: Path, labelled: Path) -> None:
    wrap(a)
    for old, new, unsaid in ((a, other, "A"), (other, a, "B"), (a, a.parent / "copy.bundle", "A and B")):
        if not new.exists():
            edit(Path(shutil.copytree(a, new)), lambda manifest: manifest["artifacts"][1]["decision"].update(temperature=1.5))
        found = diff(old, new, artifacts=["int8"])
        lost = check(found, "balanced_accuracy")
        assert lost.outcome == "not compared" and not found.training_known
        assert f"the manifest of {unsaid} does not say which pictures its scores are of (a model of somebody else's)" in lost.reason
        rows = [(one.section, one.key) for one in found.changes if one.section in ("recipe", "data")]
        assert rows == ([] if unsaid == "A and B" else [("recipe", "name"), ("data", "sha256")]), "not a row for all that the other knows"
    seen = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(labelled.rglob("*.png"))]
    for used, words in ((seen[:50], "used for neither bundle, whether training saw them is not known"), (seen, "all pictures were used for A or B: give others")):
        (a / "seen.txt").write_text("\n".join(used), encoding="utf-8")
        reseal(a)
        lost = check(diff(a, other, data=labelled, artifacts=["int8"]), "balanced_accuracy")
        assert words in f"{lost.measured_on} {lost.reason}" and "seen in training" not in lost.measured_on
    done = cli("diff", a, other, "--data", labelled, "--artifact", "int8", "--max-loss", "1")
    assert "neither bundle used (whether training saw them is not known)" in " ".join(done.out.split()) and "neither saw" not in done.out


def wrap(bundle: Path) -> Path:
    """Make a bundle one of a model of somebody else's."""
    source = {"file": "net.tflite", "format": "tflite", "sha256": "d" * 64, "bytes": 3}
    return edit(bundle, lambda manifest: manifest.update(origin="model", source=source, recipe=None, data=None, weights={}))


def decide(bundle: Path, threshold: float, abstention: float = 0.0) -> Path:
    """Give every artifact a threshold in force and an abstention."""

    def change(manifest: dict) -> None:
        for artifact in manifest["artifacts"]:
            in_force = {"rule": "sensitivity", "target": 0.9, "probability": threshold, "validation_sensitivity": None, "validation_specificity": None}
            artifact["decision"].update(threshold=in_force, abstention={"method": "confidence", "coverage": 0.9, "threshold": abstention})

    return edit(bundle, change)


def test_a_decision_that_calls_all_positive_or_answers_nothing_is_worse(cli: Cli, a: Path, b: Path, labelled: Path) -> None:
    decide(a, 0.4)
    found = diff(a, decide(b, 0.0), data=labelled, artifacts=["int8"])
    lost = check(found, "positive_specificity")
    assert lost.outcome == "failed" and lost.found.low > 0.05 and lost.pictures == 120 and check(found, "positive_sensitivity").outcome != "failed"
    assert check(diff(a, b, data=labelled, artifacts=["int8"], tolerances=Tolerances(max_specificity_loss=1.0)), "positive_specificity").outcome == "passed"
    found = diff(a, decide(b, 0.4, abstention=1.0), data=labelled, artifacts=["int8"])
    assert [one.name for one in found.failed] == ["coverage"] and check(found, "coverage").found.value == 1.0
    assert "coverage (tiny-int8.tflite)" in cli("diff", a, b, "--data", labelled, "--artifact", "int8", "-q", code=1).err
    cli("diff", a, b, "--data", labelled, "--artifact", "int8", "-q", "--max-coverage-loss", "1")
    assert check(diff(b, a, data=labelled, artifacts=["int8"]), "coverage").outcome == "passed", "to answer more is no loss"
    edit(b, lambda manifest: [artifact["decision"].update(threshold=None, abstention={"coverage": 1.0, "threshold": 0.0}) for artifact in manifest["artifacts"]])
    none = check(diff(a, b, data=labelled, artifacts=["int8"]), "positive_specificity")
    assert none.outcome == "not compared" and none.reason.startswith("no threshold was fitted for tiny-int8.tflite of B: ")


def test_what_was_required_must_have_passed(a: Path, b: Path) -> None:
    found = diff(a, b)
    refuse_worse(found, ["size", "flips", "artifacts"])
    with pytest.raises(ProofFailed, match="the check latency was required but did not pass: not compared for all: A: not measured"):
        refuse_worse(found, ["latency"])
    with pytest.raises(BadInput, match="there is no check 'speed' to require: expected one of contract, artifacts"):
        diff(a, b, require=["speed"])
    edit(b, lambda manifest: (manifest["artifacts"][0]["decision"].update(temperature=2.0), manifest.update(weights={"float": "1" * 64})))
    with pytest.raises(ProofFailed, match="the check flips was required but did not pass: nothing was to be judged by it"):
        refuse_worse(diff(a, b, artifacts=["float32"]), ["flips"])


def test_a_runtime_that_is_missing_leaves_its_artifacts_uncompared(a: Path, other: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = process.Availability(False, None, "it is not installed", "pip install it")
    monkeypatch.setattr(process, "available", lambda: dict.fromkeys(("litert", "onnxruntime", "keras"), gone))
    for data in (None, labelled):
        found = diff(a, other, data=data)
        assert check(found, "flips").outcome == "not compared" and check(found, "flips").reason == "it is not installed; pip install it"
        assert check(found, "balanced_accuracy").outcome == "not compared" and found.artifacts[0].flips is None
        assert check(found, "size").outcome == "passed"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--artifact", "int4"], "has no artifact 'int4': expected one of tiny-float32.tflite, tiny-int8.tflite, tiny-float32.onnx, or a precision"),
        (["--require", "speed"], "there is no check 'speed' to require"),
        (["--data", "nowhere"], "nowhere"),
        (["--allow", "speed"], "there is no check 'speed' to allow"),
        (["--allow", "size", "--require", "size"], "the check size is required and allowed to fail"),
        (["--metadata", "table.csv"], "--metadata table.csv is the table of a data set, and none is given"),
    ],
)
def test_what_cannot_be_asked_is_one_line(cli: Cli, a: Path, b: Path, options: list[str], found: str) -> None:
    assert found in cli.refused("diff", a, b, *options, "-q")
    assert "is not a bundle" in cli.refused("diff", a, "nothing", "-q")


@pytest.mark.parametrize("options", [["--max-loss", "2"], ["--max-loss", "nan"], ["--max-latency", "0"], ["--max-size-growth", "-1"], ["--max-flips", "x"], ["--max-latency", "inf"]])
def test_tolerances_that_mean_nothing_are_refused(cli: Cli, a: Path, options: list[str]) -> None:
    done = cli("diff", a, a, *options, code=2)
    assert options[0].removeprefix("--") in done.err.replace("_", "-")


def test_an_altered_or_broken_artifact_is_refused(cli: Cli, a: Path, b: Path) -> None:
    (b / INT8).write_bytes((b / INT8).read_bytes()[:500])
    assert "was altered" in cli.refused("diff", a, b, "-q")
    reseal(b)
    assert "tiny-int8.tflite" in cli.refused("diff", a, b, "-q")


# By the scores in the manifests.


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scored")
    return write_bundle_of(write_run(folder / "run"), folder / "a.bundle")


@pytest.fixture
def pair(scored: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two copies of a bundle with scores and latencies."""
    return tuple(Path(shutil.copytree(scored, tmp_path / f"{name}.bundle")) for name in "ab")


def worse(manifest: dict, by: float = 0.5) -> None:
    """Lower the int8 artifact's scores, and move its decision so that it is not the same one."""
    manifest["artifacts"][1]["decision"]["temperature"] *= 1.01
    for key in ("balanced_accuracy", "positive_auc"):
        score = manifest["artifacts"][1]["scores"][key]
        manifest["artifacts"][1]["scores"][key] = {name: value - by for name, value in score.items()}


def test_scores_on_the_same_test_part_are_compared_unpaired(cli: Cli, pair: tuple[Path, Path]) -> None:
    a, b = pair
    edit(b, lambda manifest: worse(manifest, by=0.6))
    found = diff(a, b)
    lost = check(found, "positive_auc")
    assert found.comparison == "unpaired" and "unpaired" in lost.measured_on and lost.pictures == 27
    assert lost.outcome == "failed" and lost.found.value == pytest.approx(0.6) and lost.found.low < 0.6 < lost.found.high
    assert found.artifacts[1].scores["positive_auc"].change == pytest.approx(-0.6)
    assert check(found, "positive_sensitivity").found.value == 0, "of the decision, which was left as it was"
    assert "unpaired, from the scores in the manifests" in cli("diff", a, b, code=1).out


def test_scores_on_other_pictures_are_not_compared(pair: tuple[Path, Path]) -> None:
    a, b = pair
    edit(b, lambda manifest: (worse(manifest), manifest["data"].update(sha256="e" * 64)))
    lost = check(diff(a, b), "balanced_accuracy")
    assert lost.outcome == "not compared" and "of other pictures (another data hash): give labelled ones with --data" in lost.reason


def test_missing_scores_are_not_compared(pair: tuple[Path, Path]) -> None:
    a, b = pair
    edit(b, lambda manifest: (worse(manifest), manifest["artifacts"][1].update(scores=None)))
    assert check(diff(a, b), "balanced_accuracy").reason == "the manifest of B has no such score: give labelled pictures with --data"
    for bundle in pair:
        edit(bundle, lambda manifest: manifest["artifacts"][0]["scores"].update(positive_sensitivity_of_decision=None))
    edit(b, lambda manifest: manifest["artifacts"][0]["decision"].update(temperature=1.5))
    [missing] = [one for one in diff(a, b).checks if one.name == "positive_sensitivity" and one.artifact == "tiny-float32.tflite"]
    assert missing.reason.startswith("the manifest of A and B has no such score")


@pytest.mark.parametrize("score", [{"value": 1.0, "low": 1.0, "high": 1.0}, {"value": 0.5, "low": 0.5, "high": 0.5}])
def test_scores_without_width_are_no_proof(pair: tuple[Path, Path], score: dict[str, float]) -> None:
    """As earlier versions wrote them for a perfect model on a handful of pictures."""
    a, b = pair
    for bundle, temperature in zip(pair, (1.0, 1.5)):
        edit(bundle, lambda manifest: (manifest["artifacts"][1]["scores"].update(positive_auc=score), manifest["artifacts"][1]["decision"].update(temperature=temperature)))
    assert check(diff(a, b), "positive_auc").outcome == "inconclusive"


def test_a_tolerance_is_printed_with_all_its_digits(a: Path, b: Path) -> None:
    found = diff(a, b, tolerances=tolerances(max_size_growth=0.004, max_flips=0.00001, max_coverage_loss=0.07))
    assert [check(found, name).requirement for name in ("size", "flips", "coverage")] == [
        "grows by at most 0.4%", "another first class on at most 0.001% of the pictures", "loses at most 0.07"
    ]  # fmt: skip


shares = st.floats(0, 1)


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    low, value, high = sorted(draw(st.lists(shares, min_size=3, max_size=3)))
    return Interval(value=value, low=low, high=high)


@given(intervals(), intervals())
def test_the_difference_of_two_intervals_is_square_and_add(a: Interval, b: Interval) -> None:
    found, back = diff_checks.square_and_add(a, b), diff_checks.square_and_add(b, a)
    assert found.low <= found.value <= found.high and found.value == a.value - b.value
    assert (back.low, back.high) == (-found.high, -found.low)
    # No narrower than either, no wider than both together.
    assert found.high - found.low <= (a.high - a.low) + (b.high - b.low) + 1e-9
    assert found.high - found.value >= max(a.high - a.value, b.value - b.low) - 1e-9


def test_square_and_add_gives_the_published_example() -> None:
    """Newcombe 1998, table II, contrast (a): 56/70 and 48/80, method 10 gives 0.0524 to 0.3339."""

    def wilson(successes: int, trials: int) -> Interval:
        z, p = 1.959964, successes / trials
        centre, spread = p + z * z / (2 * trials), z * np.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2))
        return Interval(value=p, low=float((centre - spread) / (1 + z * z / trials)), high=float((centre + spread) / (1 + z * z / trials)))

    found = diff_checks.square_and_add(wilson(56, 70), wilson(48, 80))
    assert (found.value, found.low, found.high) == (pytest.approx(0.2), pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


@given(intervals(), shares)
def test_only_a_whole_interval_beyond_the_bound_fails(found: Interval, bound: float) -> None:
    outcome, reason = diff_checks.judged(found, bound, "why")
    assert outcome == ("failed" if found.low > bound else "inconclusive" if found.high > bound else "passed")
    assert (reason is None) == (outcome == "passed")


def test_what_is_undefined_cannot_pass() -> None:
    for value, low in ((None, None), (0.0, None)):
        assert diff_checks.judged(Interval(value=value, low=low, high=None), 1.0, "why")[0] == "inconclusive"


# Latency.


def measured(bundle: Path, change: Callable[[dict], object] = lambda latency: None, *, factor: float = 1.0) -> None:
    """Make the bundle's latency evidence comparable, its times `factor` as long, and change it."""
    file = bundle / "evidence" / "latency.json"
    held = json.loads(file.read_text(encoding="utf-8"))
    host = held["host"]
    host |= {"quick": False, "comparable": True}
    for row in host["runtimes"][0]["artifacts"]:
        row["p50_ms"] = factor
        row["round_medians_ms"] = [[factor * 0.98, factor], [factor * 1.02]]
    change(host)
    held["manifest_sha256"] = hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    file.write_text(Latency.model_validate_json(json.dumps(held)).model_dump_json(), encoding="utf-8")


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, "passed"), (1.04, "passed"), (1.1, "inconclusive"), (1.2, "failed"), (0.5, "passed")])
def test_times_that_were_measured_alike_are_compared(pair: tuple[Path, Path], factor: float, outcome: str) -> None:
    a, b = pair
    measured(a)
    measured(b, factor=factor)
    found = diff(a, b)
    timed = check(found, "latency", runtime="litert")
    assert timed.outcome == outcome and timed.found.value == pytest.approx(factor)
    assert timed.found.low == pytest.approx(factor * 0.98 / 1.02) and timed.found.high == pytest.approx(factor * 1.02 / 0.98)
    assert len([one for one in found.checks if one.name == "latency"]) == 2
    loose = diff(a, b, tolerances=tolerances(max_latency=1.5))
    assert check(loose, "latency", runtime="litert").outcome == "passed"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda held: held.update(quick=True, comparable=False), "B was measured with --quick"),
        (lambda held: held.update(threads=[2]), "other conditions (threads: 1, then 2)"),
        (lambda held: held["conditions"]["cpu"].update(model="another"), "other conditions (CPU model: "),
        (lambda held: held["conditions"]["cpu"].update(relevant_flags=["avx2", "odd"]), "CPU relevant flags: "),
        (lambda held: held["plan"].update(runs=2), "other conditions (protocol: "),
        (lambda held: held["runtimes"][0].update(version="2.0"), "another version of it (1.0, then 2.0)"),
        (lambda held: held["runtimes"][0].update(settings={"x": "1"}), "another settings of it"),
    ],
)
def test_times_that_were_not_measured_alike_are_not_compared(pair: tuple[Path, Path], change: Callable[[dict], object], found: str) -> None:
    a, b = pair
    measured(a)
    measured(b, change, factor=9.0)
    [timed] = [one for one in diff(a, b).checks if one.name == "latency"]
    assert timed.outcome == "not compared" and found in timed.reason and "`melanoma-edge bench`" in timed.reason


def test_noisy_rows_are_not_compared_the_others_are(pair: tuple[Path, Path]) -> None:
    a, b = pair
    measured(a)
    measured(b, lambda held: held["runtimes"][0]["artifacts"][1].update(verdict="noisy: do not compare"))
    first, second = (one for one in diff(a, b).checks if one.name == "latency")
    assert first.outcome == "passed" and second.outcome == "not compared" and "B was measured on a noisy machine" in second.reason


def test_what_only_one_side_was_timed_in_is_said(pair: tuple[Path, Path]) -> None:
    a, b = pair
    measured(a)
    measured(b, lambda held: held["runtimes"][0].update(artifacts=held["runtimes"][0]["artifacts"][:1]))
    first, second = (one for one in diff(a, b).checks if one.name == "latency")
    assert first.outcome == "passed" and "rounds, on hosts alike" in first.measured_on
    assert (second.outcome, second.runtime) == ("not compared", "litert") and f"A was timed in it, {second.artifact} of B was not" in second.reason
    measured(b, lambda held: held["runtimes"][0].update(status="not run", reason="it is not installed", artifacts=[]))
    for old, new, words in ((a, b, "A was timed in it, B was not (it is not installed): run `melanoma-edge bench`"), (b, a, "no runtime of this evidence timed anything")):
        [timed] = [one for one in diff(old, new).checks if one.name == "latency"]
        assert timed.outcome == "not compared" and words in timed.reason
    with pytest.raises(ProofFailed, match="the check latency was required but did not pass: not compared for all"):
        refuse_worse(diff(a, b), ["latency"])


@pytest.mark.parametrize("times", [[], [0.0, 0.0], [-1.0, 1.0]])
def test_evidence_and_manifests_without_sense_are_not_compared(pair: tuple[Path, Path], times: list[float]) -> None:
    a, b = pair
    edit(a, lambda manifest: manifest["artifacts"][0].update(bytes=0))
    measured(a, lambda held: [row.update(round_medians_ms=[times], p50_ms=0.0) for row in held["runtimes"][0]["artifacts"]])
    measured(b)
    found = diff(a, b, artifacts=["float32"])
    assert check(found, "latency", FLOAT, "litert").outcome == "not compared" and check(found, "size", FLOAT).outcome == "not compared"


def test_times_that_are_missing_damaged_or_of_another_state_are_not_compared(pair: tuple[Path, Path]) -> None:
    a, b = pair
    measured(a)
    measured(b)
    edit(b, lambda manifest: manifest.update(licence="another"))
    assert "B: evidence/latency.json is of another state of the bundle; run `melanoma-edge bench b.bundle`" in check(diff(a, b), "latency", "all").reason
    (b / "evidence" / "latency.json").write_text("{", encoding="utf-8")
    assert "B: evidence/latency.json cannot be read" in check(diff(a, b), "latency", "all").reason
    (a / "evidence" / "latency.json").unlink()
    assert check(diff(a, b), "latency", "all").reason.startswith("A: not measured; run `melanoma-edge bench a.bundle`; B: ")
