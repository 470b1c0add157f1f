"""What is published of the reference bundle: the figures of its cross-validation beside their targets, as numbers, table and plot."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import read_json
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file
from sklearn.metrics import roc_auc_score

from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.errors import BadInput
from melanoma_edge.model.folds import open_folds
from melanoma_edge.proof.quoted import read_cross_validation

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def programs():
    """The program that judges, and the one that shows, as modules."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import reference
        import reference_shown
    finally:
        sys.path.remove(str(BENCHMARKS))
    return SimpleNamespace(judge=reference, show=reference_shown)


@pytest.fixture(scope="module")
def small(programs, quoted: dict, pooled: dict) -> dict:
    """The figures of two folds of drawn pictures."""
    found = read_cross_validation(quoted["file"])
    bundles = [open_bundle(pooled["out"] / fold.bundle) for fold in found.folds]
    return programs.judge.figures_of(found, open_folds(pooled["folds"]).runs(), bundles, open_bundle(quoted["bundle"]))


def test_the_figures_are_those_of_the_files(small: dict, pooled: dict, quoted: dict) -> None:
    raw = read_json(quoted["file"])
    for precision in ("int8", "float32"):
        [one] = [artifact for artifact in raw["artifacts"] if artifact["name"] == f"demo-{precision}.tflite"]
        assert {name: one["pooled"][name] for name in small[precision]} == small[precision]
    scores = read_json(pooled["out"] / "fold-0.bundle" / "manifest.json")["artifacts"][1]["scores"]
    assert small["fold_0"]["balanced_accuracy"] == scores["balanced_accuracy"] != small["int8"]["balanced_accuracy"]
    losses = raw["comparisons"][0]["losses"]["balanced_accuracy"]
    assert small["int8_minus_float32"] == {"value": -losses["value"], "low": -losses["high"], "high": -losses["low"]}
    assert small["bytes"]["demo-int8.tflite"] == (quoted["bundle"] / "demo-int8.tflite").stat().st_size
    runs = [read_json(pooled["folds"] / f"fold-{number}" / "run.json") for number in range(2)]
    assert small["minutes"]["each"] == pytest.approx([sum(run["seconds"].values()) / 60 for run in runs])
    gates = [gate for number in range(2) for gate in read_json(pooled["out"] / f"fold-{number}.bundle" / "evidence" / "parity.json")["gates"]]
    assert sum(small["gates"].values()) == len(gates) and len(small["gates_not_passed"]) == sum(gate["outcome"] != "passed" for gate in gates)


def test_the_positive_class_against_its_lookalike_follows_from_the_logits(small: dict, pooled: dict) -> None:
    """Computed anew from the files of the bundles, with scikit-learn and without the library."""
    probability, positive, called = [], [], []
    for number in range(2):
        bundle = pooled["out"] / f"fold-{number}.bundle"
        manifest = read_json(bundle / "manifest.json")
        [decision] = [artifact["decision"] for artifact in manifest["artifacts"] if artifact["name"] == "demo-int8.tflite"]
        logits = load_file(bundle / "evidence" / "test-logits.safetensors")["demo-int8.tflite"].astype(np.float64)
        odds = np.exp(logits / decision["temperature"]) / np.array([manifest["priors"]["training"][label] for label in manifest["classes"]])
        with open(pooled["folds"] / f"fold-{number}" / "split.csv", newline="", encoding="utf-8") as file:
            labels = [row["label"] for row in csv.DictReader(file) if row["part"] == "test"]
        for label, said in zip(labels, (odds / odds.sum(axis=1, keepdims=True))[:, manifest["classes"].index("melanoma")]):
            if label in ("melanoma", "nevus"):
                probability.append(said)
                positive.append(label == "melanoma")
                called.append(said >= decision["threshold"]["probability"])
    found = small["int8"]
    assert found["positive_auc_against"]["nevus"]["value"] == pytest.approx(roc_auc_score(positive, probability))
    nevi = ~np.array(positive)
    assert found["called_positive"]["nevus"]["value"] == pytest.approx(np.array(called)[nevi].mean())


def test_the_table_shows_them(programs, small: dict, pooled: dict) -> None:
    rows = {row[0]: row for row in programs.show.rows(small)}
    found = small["int8"]["balanced_accuracy"]
    outcome = {"stretch": "better still", "reached": "reached", "missed": "**missed**"}[small["judged"]["balanced_accuracy"]["outcome"]]
    assert rows["balanced accuracy (3 classes)"][1:] == ("0.72 (0.80)", *[programs.show._interval(small[one]["balanced_accuracy"]) for one in ("float32", "int8")], outcome)
    assert f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})" == rows["balanced accuracy (3 classes)"][3]
    assert rows["size"][1] == "400 kB (250 kB)" and rows["multiply-accumulates"][1] == "80 M (40 M)" and rows["int8 minus float32, balanced accuracy"][1] == "-1 (+0)"
    each = small["minutes"]["each"]
    assert rows["training of one fold, teachers included, 2 cores (judged by the longest)"][1:] == ("30 min", "", f"{min(each):.0f} to {max(each):.0f} min", "reached")
    assert rows["melanoma AUC against nevus alone"][3] == programs.show._interval(small["int8"]["positive_auc_against"]["nevus"])
    assert rows["share of nevus called melanoma at that threshold"][3] == programs.show._interval(small["int8"]["called_positive"]["nevus"])
    assert list(rows).index("melanoma AUC against nevus alone") == list(rows).index("melanoma AUC") + 1
    table, _, note = programs.show.markdown(small).partition("\n\n")
    lines = table.splitlines()
    assert len(lines) == 2 + len(rows) and {line.count("|") for line in lines} == {6}
    assert f"balanced accuracy {programs.show._interval(small['fold_0']['balanced_accuracy'])}" in note
    each = [read_json(pooled["out"] / f"fold-{number}.bundle" / "manifest.json")["artifacts"][1]["scores"]["positive_specificity_of_decision"]["value"] for number in range(2)]
    assert f"specificity there {min(each):.2f} to {max(each):.2f}" in note
    own = small["shipped_threshold"]
    assert f"The shipped demo-int8.tflite has a specificity of {programs.show._interval(own['validation_specificity'])} for melanoma" in note and f"it calls {programs.show._interval(own['validation_called']['nevus'])} melanoma." in note


def test_the_time_of_a_fold_is_that_of_one_with_no_other_beside_it_where_there_is_one(programs, small: dict, pooled: dict, quoted: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    found, runs = read_cross_validation(quoted["file"]), open_folds(pooled["folds"]).runs()
    bundles, shipped = [open_bundle(pooled["out"] / fold.bundle) for fold in found.folds], open_bundle(quoted["bundle"])
    slow = replace(runs[1], facts=runs[1].facts.model_copy(update={"seconds": {"float": 2000.0, "qat": 100.0}}))
    figures = programs.judge.figures_of(found, runs, bundles, shipped, slow)
    assert small["minutes"]["alone"] is None and figures["minutes"]["alone"] == {"fold": 1, "minutes": 35.0, "same_weights": True}
    assert figures["judged"]["minutes"]["outcome"] == "missed" and figures["minutes"]["each"] == small["minutes"]["each"]
    rows = {row[0]: row for row in programs.show.rows(figures)}
    row = rows["training of one fold, teachers included, 2 cores (fold 1, trained again with no other beside it)"]
    assert row[3].startswith("35 min (beside others ") and row[4] == "**missed**"
    changed = replace(slow, facts=slow.facts.model_copy(update={"weights": {name: "0" * 64 for name in slow.facts.weights}}))
    assert not programs.judge.repeated(changed, runs)["same_weights"]
    assert programs.judge.open_timed(tmp_path / "none") is None and programs.judge.open_timed(pooled["folds"] / "fold-1").split == runs[1].split
    shutil.copytree(pooled["folds"] / "fold-1", tmp_path / "half")
    (tmp_path / "half" / "run.json").write_text(json.dumps(read_json(tmp_path / "half" / "run.json") | {"state": "training"}), encoding="utf-8")
    assert programs.judge.open_timed(tmp_path / "half") is None and "is not complete and left out" in capsys.readouterr().err
    other = replace(runs[0], recipe=runs[0].recipe.model_copy(update={"epochs": 99}))
    with pytest.raises(BadInput, match=r"another recipe than the folds \(epochs\)"):
        programs.judge.repeated(other, runs)
    with pytest.raises(BadInput, match="another split than any of the folds"):
        programs.judge.repeated(replace(runs[0], split=runs[0].split[1:]), runs)


def test_abstention_is_judged_on_each_fold_alone(small: dict, pooled: dict) -> None:
    """The area under the curve as it is defined: the mean error of the 1, 2 ... N surest pictures."""
    found = small["abstention"]
    for number in range(2):
        bundle = pooled["out"] / f"fold-{number}.bundle"
        manifest = read_json(bundle / "manifest.json")
        [artifact] = [artifact for artifact in manifest["artifacts"] if artifact["name"] == "demo-int8.tflite"]
        logits = load_file(bundle / "evidence" / "test-logits.safetensors")["demo-int8.tflite"].astype(np.float64)
        with open(pooled["folds"] / f"fold-{number}" / "split.csv", newline="", encoding="utf-8") as file:
            labels = np.array([manifest["classes"].index(row["label"]) for row in csv.DictReader(file) if row["part"] == "test"])
        odds = np.exp(logits / artifact["decision"]["temperature"]) / np.array([manifest["priors"]["training"][label] for label in manifest["classes"]])
        probabilities = odds / odds.sum(axis=1, keepdims=True)
        wrong = probabilities.argmax(axis=1) != labels
        for method, sure in (("confidence", probabilities.max(axis=1)), ("energy", np.log(np.exp(logits).sum(axis=1)))):
            sure = sure.round(9)  # equal rows of logits are equally sure
            expected = []
            for count in range(1, len(wrong) + 1):  # of pictures that are equally sure, the expected share is among the answered
                bar = np.sort(sure)[-count]
                surely, tied = sure > bar, sure == bar
                expected.append((wrong[surely].sum() + wrong[tied].mean() * (count - surely.sum())) / count)
            assert found["area_each_fold"][method][number] == pytest.approx(np.mean(expected), abs=1e-6)
            [rate] = [rate for rate in artifact["non_lesions"]["rates"] if rate["method"] == method]
            assert found["non_lesions_answered_each_fold"][method][number] == rate["answered"]
    means = {method: np.mean(areas) for method, areas in found["area_each_fold"].items()}
    assert found["energy_minus_confidence"]["value"] == pytest.approx(means["energy"] - means["confidence"])
    assert found["energy_minus_confidence"]["low"] <= found["energy_minus_confidence"]["value"] <= found["energy_minus_confidence"]["high"]


def test_the_plot_is_a_picture(programs, quoted: dict, tmp_path: Path) -> None:
    found = read_cross_validation(quoted["file"])
    (tmp_path / "plot.png").write_bytes(programs.show.plot(found, *programs.judge.artifacts_of(found)))
    with Image.open(tmp_path / "plot.png") as plot:
        assert plot.width > 1200 and len(np.unique(np.asarray(plot.convert("L")))) > 50 and plot.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


@given(value=st.floats(0, 1))
def test_a_figure_is_judged_by_its_own_direction(programs, value: float) -> None:
    assert programs.judge.judged("macro_auc", value)["outcome"] == ("stretch" if value >= 0.97 else "reached" if value >= 0.94 else "missed")
    assert programs.judge.judged("ece", value)["outcome"] == ("stretch" if value <= 0.03 else "reached" if value <= 0.06 else "missed")
    assert programs.judge.judged("minutes", 60 * value)["outcome"] == ("reached" if 60 * value <= 30 else "missed")
