"""The artifacts of all folds: every picture judged once, figures that follow from the files, and interruptions."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import read_json, snapshot, validate
from safetensors.numpy import load_file, save_file
from sklearn.metrics import roc_auc_score
from small_folds import CLASSES, as_if_interrupted

from melanoma_edge.errors import BadInput
from melanoma_edge.paired import paired_losses
from melanoma_edge.proof.cross_validation import export_folds, read_cross_validation

OPTIONS = {"formats": ["tflite"], "precisions": ["float32", "int8"], "licence": "CC0 1.0"}
NAMES = ("demo-float32.tflite", "demo-int8.tflite")


def answers(pooled: dict, name: str) -> dict[str, np.ndarray]:
    """What the artifact `name` says of every picture, computed anew from the files of the bundles, without the library."""
    found: dict[str, list] = {"probabilities": [], "labels": [], "groups": [], "called": [], "answered": []}
    for number in range(2):
        bundle, run = pooled["out"] / f"fold-{number}.bundle", pooled["folds"] / f"fold-{number}"
        manifest = read_json(bundle / "manifest.json")
        [decision] = [artifact["decision"] for artifact in manifest["artifacts"] if artifact["name"] == name]
        logits = load_file(bundle / "evidence" / "test-logits.safetensors")[name].astype(np.float64)
        odds = np.exp(logits / decision["temperature"]) / np.array([manifest["priors"]["training"][label] for label in CLASSES])
        probabilities = odds / odds.sum(axis=1, keepdims=True)
        with open(run / "split.csv", newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["part"] == "test"]
        found["probabilities"] += probabilities.tolist()
        found["labels"] += [CLASSES.index(row["label"]) for row in rows]
        found["groups"] += [row["group"] for row in rows]
        found["called"] += (probabilities[:, 0] >= decision["threshold"]["probability"]).tolist()
        found["answered"] += (probabilities.max(axis=1) >= decision["abstention"]["threshold"]).tolist()
    return {key: np.array(values) for key, values in found.items()}


def test_the_record_is_valid_and_every_picture_is_judged_once(pooled: dict) -> None:
    found = read_json(pooled["out"] / "cross-validation.json")
    validate(found, "cross-validation")
    folds = read_json(pooled["folds"] / "folds.json")
    assert found["recipe"] == folds["recipe"] and found["data_sha256"] == folds["data_sha256"] and found["classes"] == list(CLASSES)
    with open(pooled["folds"] / "fold-1" / "split.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert found["with_lesion_id"] == sum(bool(row["lesion"]) for row in rows) > 0
    assert found["classes_without_lesion_id"] == sorted(set(CLASSES) - {row["label"] for row in rows if row["lesion"]})
    assert (found["pictures"], found["lesions"]) == (42, folds["groups"]) and [one["name"] for one in found["artifacts"]] == list(NAMES)
    for number, fold in enumerate(found["folds"]):
        assert fold["weights"] == folds["runs"][number]["weights"] and fold["bundle"] == f"fold-{number}.bundle"
        assert fold["manifest_sha256"] == snapshot(pooled["out"])[f"fold-{number}.bundle/manifest.json"]


def test_pooled_figures_follow_from_each_fold_s_own_files(pooled: dict) -> None:
    found = read_json(pooled["out"] / "cross-validation.json")
    for one in found["artifacts"]:
        said = answers(pooled, one["name"])
        top, positive = said["probabilities"].argmax(axis=1), said["labels"] == 0
        recall = [np.mean(top[said["labels"] == label] == label) for label in range(len(CLASSES))]
        expected = {
            "accuracy": np.mean(top == said["labels"]),
            "balanced_accuracy": np.mean(recall),
            "coverage_of_decision": said["answered"].mean(),
            "positive_sensitivity_of_decision": said["called"][positive].mean(),
            "positive_specificity_of_decision": (~said["called"][~positive]).mean(),
        }
        assert {name: one["pooled"][name]["value"] for name in expected} == pytest.approx(expected)
        assert all(one["pooled"][name]["low"] <= one["pooled"][name]["value"] <= one["pooled"][name]["high"] for name in expected)
        assert one["confusion"] == [[int(((said["labels"] == truth) & (top == name)).sum()) for name in range(len(CLASSES))] for truth in range(len(CLASSES))]
        shares = {name: said["called"][said["labels"] == label].mean() for label, name in enumerate(CLASSES) if label}
        assert {name: share["value"] for name, share in one["pooled"]["called_positive"].items()} == pytest.approx(shares)
        areas = {name: roc_auc_score(positive[both], said["probabilities"][both, 0]) for label, name in enumerate(CLASSES) if label for both in [positive | (said["labels"] == label)]}
        assert {name: area["value"] for name, area in one["pooled"]["positive_auc_against"].items()} == pytest.approx(areas)
        each = [
            next(a["scores"] for a in read_json(pooled["out"] / f"fold-{number}.bundle" / "manifest.json")["artifacts"] if a["name"] == one["name"]) for number in range(2)
        ]
        for name in expected:
            values = [scores[name]["value"] for scores in each]
            assert one["figures"][name] == pytest.approx({"mean": np.mean(values), "sd": np.std(values, ddof=1), "lowest": min(values), "highest": max(values), "folds": 2})
        for name in shares:
            values = [scores["called_positive"][name]["value"] for scores in each]
            assert (one["called_positive"][name]["lowest"], one["called_positive"][name]["highest"]) == (min(values), max(values))


def test_the_thresholds_of_the_folds_are_those_of_their_files(pooled: dict) -> None:
    manifests = [read_json(pooled["out"] / f"fold-{number}.bundle" / "manifest.json") for number in range(2)]
    for one in read_json(pooled["out"] / "cross-validation.json")["artifacts"]:
        files = [artifact for manifest in manifests for artifact in manifest["artifacts"] if artifact["name"] == one["name"]]
        assert one["thresholds"] == [file["decision"]["threshold"] for file in files]


def test_int8_is_compared_with_its_float32_twin_under_each_fold_s_thresholds(pooled: dict) -> None:
    found = read_json(pooled["out"] / "cross-validation.json")
    [compared] = found["comparisons"]
    assert (compared["reference"], compared["candidate"], compared["pictures"], compared["lesions"]) == (*NAMES, 42, found["lesions"])
    before, after = (answers(pooled, name) for name in NAMES)
    positive = before["labels"] == 0
    assert compared["losses"]["positive_sensitivity"]["value"] == pytest.approx(before["called"][positive].mean() - after["called"][positive].mean())
    pooled_of = {one["name"]: one["pooled"] for one in found["artifacts"]}
    for loss in ("balanced_accuracy", "positive_auc"):
        value = compared["losses"][loss]
        assert value["value"] == pytest.approx(pooled_of[NAMES[0]][loss]["value"] - pooled_of[NAMES[1]][loss]["value"]) and value["low"] <= value["value"] <= value["high"]
    assert compared["flips"] == int((before["probabilities"].argmax(axis=1) != after["probabilities"].argmax(axis=1)).sum())


def test_an_interruption_loses_the_fold_in_progress_and_nothing_else(pooled: dict) -> None:
    assert pooled["code"] == 130 and "Traceback" not in pooled["interrupt"]
    assert {name.split("/")[0] for name in pooled["before"]} == {"fold-0.bundle"}
    assert pooled["before"].items() <= pooled["after"].items(), "the first fold was kept"
    assert "fold 1/2: bundles/peaceful/fold-0.bundle is there already and is kept" in pooled["err"] and "fold 2/2: converting" in pooled["err"]
    assert pooled["unchanged"] and pooled["again"] == read_json(pooled["out"] / "cross-validation.json")


def test_the_table_shows_every_artifact_over_all_folds(pooled: dict) -> None:
    found = read_json(pooled["out"] / "cross-validation.json")
    assert "2 folds: 42 pictures" in pooled["said"] and "confusion matrix of demo-int8.tflite" in pooled["said"] and "written: bundles/peaceful/cross-validation.json" in pooled["said"]
    for one in found["artifacts"]:
        assert one["name"] in pooled["said"] and "{low:.3f} to {high:.3f}".format(**one["pooled"]["balanced_accuracy"]) in pooled["said"]
        assert "{mean:.3f} ± {sd:.3f}".format(**one["figures"]["macro_auc"]) in pooled["said"]
    ends = next(one for one in found["artifacts"] if one["name"] == NAMES[1])["figures"]["balanced_accuracy"]
    assert "balanced accuracy {lowest:.3f} to {highest:.3f}".format(**ends) in " ".join(pooled["said"].split())


# What does not fit.


@pytest.fixture
def copied(pooled: dict, tmp_path: Path) -> Path:
    shutil.copytree(pooled["out"], tmp_path / "out")
    return tmp_path / "out"


def test_bundles_of_something_else_are_not_replaced_unasked(pooled: dict, copied: Path, tmp_path: Path) -> None:
    before = snapshot(copied)
    with pytest.raises(BadInput, match="fold-0.bundle was exported from another run or with other options: choose another --out, or give --force"):
        export_folds(pooled["folds"], copied, **OPTIONS | {"licence": "CC BY-NC 4.0"})
    with pytest.raises(BadInput, match="out is a bundle, and folds are exported to a folder of bundles"):
        export_folds(pooled["folds"], shutil.copytree(copied / "fold-0.bundle", tmp_path / "one" / "out"), **OPTIONS)
    assert snapshot(copied) == before
    facts = read_json(copied / "cross-validation.json")
    (tmp_path / "other").mkdir()
    facts["folds"][0]["weights"]["float"] = "0" * 64
    (tmp_path / "other" / "cross-validation.json").write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(BadInput, match="cross-validation.json exists already"):
        export_folds(pooled["folds"], tmp_path / "other", **OPTIONS)


def test_logits_that_were_altered_are_not_pooled(pooled: dict, copied: Path) -> None:
    file = copied / "fold-1.bundle" / "evidence" / "test-logits.safetensors"
    logits = load_file(file)
    sealed = {"manifest_sha256": snapshot(copied)["fold-1.bundle/manifest.json"]}
    save_file({name: np.roll(values, 1, axis=1) for name, values in logits.items()}, file, sealed)
    with pytest.raises(BadInput, match="are not those that the scores of demo-float32.tflite are of: export the fold again with --force"):
        export_folds(pooled["folds"], copied, **OPTIONS)


def test_folds_in_training_are_refused(two_folds: dict, tmp_path: Path) -> None:
    out = as_if_interrupted(two_folds["peaceful"], tmp_path / "folds")
    with pytest.raises(BadInput, match="are incomplete: finish them with `melanoma-edge train --resume --out"):
        export_folds(out, tmp_path / "out", **OPTIONS)
    assert not (tmp_path / "out").exists()


HOSTILE = {
    "another version": lambda found: found.update(schema_version=2),
    "no version": lambda found: found.update(schema_version="1"),
    "an unknown key": lambda found: found.update(more=1),
    "a list": lambda found: [found],
    "a fold twice": lambda found: found["folds"].append(found["folds"][0]),
    "pictures that were not tested": lambda found: found.update(pictures=43),
    "a share above all": lambda found: found["artifacts"][0]["pooled"]["accuracy"].update(value="high"),
    "a matrix of other classes": lambda found: found["artifacts"][0]["confusion"].pop(),
    "counts that are not counted": lambda found: found["artifacts"][0]["confusion"][0].__setitem__(0, 99),
    "a name that leaves the folder": lambda found: found["artifacts"][0].update(name="../x"),
    "a comparison of nothing": lambda found: found["comparisons"][0].update(candidate="x"),
    "a loss of something else": lambda found: found["comparisons"][0]["losses"].pop("positive_auc"),
    "an artifact twice": lambda found: found["artifacts"].append(found["artifacts"][0]),
    "a class of two lines": lambda found: found.update(classes=["a\nb", *found["classes"][1:]]),
    "a recipe of no such network": lambda found: found["recipe"].update(network="other"),
    "a positive class that is none": lambda found: found.update(positive_class="wart"),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_damaged_or_hostile_record_is_one_line(pooled: dict, tmp_path: Path, how: str) -> None:
    found = read_json(pooled["out"] / "cross-validation.json")
    changed = HOSTILE[how](found)
    (tmp_path / "cross-validation.json").write_text(json.dumps(changed if how == "a list" else found), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        read_cross_validation(tmp_path / "cross-validation.json")
    assert str(caught.value).isprintable() and str(tmp_path / "cross-validation.json") in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"{\"schema_version\": NaN}", b"null"])
def test_a_file_that_is_no_json_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.json").write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read_cross_validation(tmp_path / "file.json")
    assert "\n" not in str(caught.value)


# Thresholds of several models.


def test_a_threshold_for_each_picture_is_what_one_for_all_is_where_they_are_the_same() -> None:
    random = np.random.default_rng(3)
    labels, groups = random.integers(0, 3, 60), np.arange(60) // 2
    probabilities = [random.dirichlet(np.ones(3) + 2 * np.eye(3)[label], size=None) for label in labels]
    reference, candidate = np.array(probabilities), random.dirichlet(np.ones(3), 60)
    one = paired_losses(reference, candidate, labels, CLASSES, "melanoma", reference_threshold=0.4, candidate_threshold=0.3, groups=groups, replicates=50)
    each = {"reference_threshold": np.full(60, 0.4), "candidate_threshold": np.full(60, 0.3)}
    assert paired_losses(reference, candidate, labels, CLASSES, "melanoma", **each, groups=groups, replicates=50) == one
    with pytest.raises(BadInput, match="found 59 thresholds for 60 pictures"):
        paired_losses(reference, candidate, labels, CLASSES, "melanoma", **each | {"candidate_threshold": np.full(59, 0.3)}, groups=groups, replicates=50)
