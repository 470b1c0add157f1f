"""A run that was trained on everything: no test part, and every command says so in plain words."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from conftest import Cli, read_json, validate
from safetensors.numpy import load_file
from tiny_run import write_bundle_of, write_run

from melanoma_edge import recipes
from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.errors import BadInput
from melanoma_edge.model import run as runs
from melanoma_edge.proof.diff import diff

UNKNOWN = "figure on unseen pictures is known"


def test_no_picture_is_held_back_but_those_of_the_validation_part(whole: dict) -> None:
    with open(whole["run"] / "split.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 42 and {row["part"] for row in rows} == {"train", "validation"}
    assert {row["label"] for row in rows if row["part"] == "validation"} == {"melanoma", "nevus", "vascular lesion"}
    assert not {row["group"] for row in rows if row["part"] == "train"} & {row["group"] for row in rows if row["part"] == "validation"}
    recipe = recipes.load(whole["run"] / "recipe.toml")
    assert (recipe.folds, recipe.fold, recipe.validation_folds) == (1, 0, 5)


def test_the_run_has_decisions_and_no_figures(whole: dict) -> None:
    validate(read_json(whole["run"] / "run.json"), "run")
    evaluation = read_json(whole["run"] / "evaluation.json")
    assert all(found["scores"] is None and found["decision"]["temperature"] > 0 for found in evaluation.values()) and set(evaluation) == {"float", "qat"}
    assert set(load_file(whole["run"] / "logits.safetensors")) == {"float/validation", "qat/validation"}
    run = runs.open_run(whole["run"])
    assert not run.tested and run.saliency() == {} and [scores for _, scores in run.evaluation().values()] == [None, None]


def test_training_says_that_there_is_no_test_part(whole: dict) -> None:
    done = whole["trained"]
    assert "no test part)" in done.err and "0 test" not in done.err
    assert f"so no {UNKNOWN}" in done.out and "nan" not in done.out.lower() and "accuracy" not in done.out


def test_the_bundle_has_no_scores_and_says_why(whole: dict) -> None:
    validate(read_json(whole["bundle"] / "manifest.json"), "manifest")
    manifest = open_bundle(whole["bundle"]).manifest
    assert [artifact.scores for artifact in manifest.artifacts] == [None] * 3 and manifest.comparisons == () and manifest.data.pictures["test"] == 0
    assert all(artifact.decision.threshold is not None for artifact in manifest.artifacts)
    assert "no test part: the run trained on all pictures" in whole["exported"].out
    card = (whole["bundle"] / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"**No {UNKNOWN}.**" in card and "test part" not in card and "test: 0" not in card
    gates = read_json(whole["bundle"] / "evidence" / "parity.json")["gates"]
    assert not [gate for gate in gates if gate["outcome"] == "failed"]
    task = [gate for gate in gates if gate["name"] == "task"]
    assert task and all(gate["outcome"] == "not run" and "all pictures were used in training" in gate["reason"] for gate in task)


def test_other_commands_say_it_too(cli: Cli, whole: dict, tmp_path: Path) -> None:
    for subject in (whole["run"], whole["bundle"]):
        assert "all 42 pictures of" in cli.refused("evaluate", subject, "--data", whole["data"], "-q")
        cli("report", subject, "--out", tmp_path / f"{subject.name}.html", "-q")
        page = (tmp_path / f"{subject.name}.html").read_text(encoding="utf-8")
        assert "no figure of this very model on unseen pictures is known" in page and ">nan" not in page.lower()
        assert "<th scope=\"col\">test</th>" not in page
    assert cli("evaluate", whole["run"], "--data", whole["data"], "--include-seen", "--json", "-q").json["leak_free"] is False
    copy = tmp_path / "copy.bundle"
    shutil.copytree(whole["bundle"], copy)
    verified = cli("verify", copy, "--data", whole["data"], "--run", whole["run"], "-q")
    assert "task, demo-int8.tflite on litert: all pictures were used in training" in verified.out
    assert "the task gate was required but could not be carried out: all pictures were used in training" in cli("verify", copy, "--data", whole["data"], "--require", "task", "-q", code=3).err
    assert cli("diff", whole["bundle"], copy, "-q").code == 0


@pytest.mark.parametrize(("override", "found"), [("fold=1", "fold is 1 but folds is 1, which leaves no test part to choose"), ("folds=0", "folds is 0")])
def test_a_fold_of_a_single_one_cannot_be_chosen(override: str, found: str) -> None:
    with pytest.raises(BadInput, match=found):
        recipes.load("demo", ["folds=1", override])


def test_scores_of_a_bundle_without_test_part_are_not_compared(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    tested, final = write_bundle_of(run, tmp_path / "tested.bundle"), write_bundle_of(run, tmp_path / "final.bundle")
    manifest = read_json(final / "manifest.json")
    manifest["recipe"] |= {"folds": 1, "fold": 0}
    for artifact in manifest["artifacts"]:
        artifact["scores"] = None
        artifact["decision"]["temperature"] *= 1.5  # else both must give the same answers
    (final / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    losses = [check for check in diff(tested, final).checks if check.name == "balanced_accuracy"]
    assert losses and all(check.outcome == "not compared" and "B was trained on all pictures and has no test part" in check.reason for check in losses)
