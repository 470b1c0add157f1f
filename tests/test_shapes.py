"""Two networks on the same folds: the program, on small folds that are there for other tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import read_json

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "shapes.py"
pytestmark = pytest.mark.xdist_group("folds")


def program(*arguments: object, code: int = 0) -> str:
    environment = os.environ | {"PYTHONPATH": str(PROGRAM.parents[1])}
    done = subprocess.run([sys.executable, str(PROGRAM), *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_a_network_loses_nothing_against_itself_and_its_figures_are_those_of_the_cross_validation(pooled: dict, tmp_path: Path) -> None:
    same = [pooled["folds"], pooled["out"]]
    program("--base", *same, "--new", *same, "--results", tmp_path)
    found, crossed = read_json(tmp_path / "shapes.json")["figures"], read_json(pooled["out"] / "cross-validation.json")
    assert found["recipe_differs_in"] == {} and found["pictures"] == crossed["pictures"]
    for precision in ("int8", "float32"):
        [artifact] = [one for one in crossed["artifacts"] if one["name"] == f"demo-{precision}.tflite"]
        assert found["base"][precision] == found["new"][precision] == {name: artifact["pooled"][name] for name in found["base"][precision]}
        gained = found["new_minus_base"][precision]
        called = gained.pop("called_positive")
        assert called.keys() == artifact["pooled"]["called_positive"].keys() and all(one["value"] == 0 and one["low"] <= 0 <= one["high"] for one in called.values())
        assert gained.pop("other_first_answers") == 0 and gained["balanced_accuracy"]["value"] == gained["positive_specificity"]["value"] == 0
        assert all(one["low"] <= 0 <= one["high"] for one in gained.values())


def test_int8_against_float32_is_what_the_cross_validation_says(pooled: dict) -> None:
    crossed = read_json(pooled["out"] / "cross-validation.json")
    [known] = [one for one in crossed["comparisons"] if (one["reference"], one["candidate"]) == ("demo-float32.tflite", "demo-int8.tflite")]
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import shapes; from melanoma_edge.proof.cross_validation import lost; "
        "found = shapes.opened(Path(sys.argv[2]), Path(sys.argv[3])); "
        "losses, flips = lost(found.answers['float32'], found.answers['int8'], found.found.classes, found.found.positive_class); "
        "print(json.dumps([{name: loss.model_dump() for name, loss in losses.items()}, flips]))"
    )
    words = [sys.executable, "-c", code, str(PROGRAM.parent), str(pooled["folds"]), str(pooled["out"])]
    done = subprocess.run(words, env=os.environ | {"PYTHONPATH": str(PROGRAM.parents[1])}, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [known["losses"], known["flips"]]


def test_what_the_thresholds_cost_is_the_difference_of_the_figures(pooled: dict) -> None:
    """int8 in the place of the new network, float32 in that of the one before: what is paired is what the cross-validation says of each, one less the other."""
    crossed = read_json(pooled["out"] / "cross-validation.json")
    code = (
        "import json, sys; from dataclasses import replace; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import shapes; found = shapes.opened(Path(sys.argv[2]), Path(sys.argv[3])); "
        "both = [replace(found, answers=dict.fromkeys(shapes.PRECISIONS, found.answers[name])) for name in ('float32', 'int8')]; print(json.dumps(shapes.gained(*both)['int8']))"
    )
    words = [sys.executable, "-c", code, str(PROGRAM.parent), str(pooled["folds"]), str(pooled["out"])]
    gained = json.loads(subprocess.run(words, env=os.environ | {"PYTHONPATH": str(PROGRAM.parents[1])}, capture_output=True, text=True, check=True).stdout)
    before, after = (next(one["pooled"] for one in crossed["artifacts"] if one["name"] == f"demo-{name}.tflite") for name in ("float32", "int8"))
    change = lambda name: after[name]["value"] - before[name]["value"]
    assert gained["positive_specificity"]["value"] == pytest.approx(change("positive_specificity_of_decision"), abs=1e-9)
    assert gained["positive_sensitivity"]["value"] == pytest.approx(change("positive_sensitivity_of_decision"), abs=1e-9)
    for name, one in gained["called_positive"].items():
        assert one["value"] == pytest.approx(after["called_positive"][name]["value"] - before["called_positive"][name]["value"], abs=1e-9) and one["low"] <= one["value"] <= one["high"]


def test_what_cannot_be_paired_is_refused_in_one_line(pooled: dict, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(pooled["out"], other)
    crossed = read_json(other / "cross-validation.json")
    (other / "cross-validation.json").write_text(json.dumps(crossed | {"data_sha256": "0" * 64}))
    said = program("--base", pooled["folds"], pooled["out"], "--new", pooled["folds"], other, "--results", tmp_path / "results", code=2)
    assert said.count("\n") == 1 and "trained on other pictures, or in other folds" in said and not (tmp_path / "results").exists()
    crossed["folds"][0]["weights"] = {name: "0" * 64 for name in crossed["folds"][0]["weights"]}
    (other / "cross-validation.json").write_text(json.dumps(crossed))
    said = program("--base", pooled["folds"], pooled["out"], "--new", pooled["folds"], other, code=2)
    assert said.count("\n") == 1 and "is not of" in said and "melanoma-edge export" in said
