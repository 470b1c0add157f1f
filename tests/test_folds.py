"""All folds of a data set: every picture tested once, figures that follow from the runs, and interruptions."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli, read_json, snapshot, validate
from safetensors.numpy import load_file
from small_folds import CLASSES, as_if_interrupted
from test_train_cli import some_classes

from melanoma_edge import recipes
from melanoma_edge.errors import BadInput
from melanoma_edge.model import folds
from melanoma_edge.model import run as runs
from melanoma_edge.model.devices import Devices
from melanoma_edge.model.folds import open_folds, spread, train_folds

FIGURES = ("accuracy", "balanced_accuracy", "positive_auc", "positive_sensitivity_of_decision", "coverage_of_decision", "ece", "ece_at_priors")


def split_of(run: Path) -> list[dict[str, str]]:
    with open(run / "split.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_picture_is_tested_once_and_no_group_is_ever_on_two_sides(two_folds: dict) -> None:
    tested: list[str] = []
    for number in range(2):
        rows = split_of(two_folds["peaceful"] / f"fold-{number}")
        tested += [row["path"] for row in rows if row["part"] == "test"]
        for key in ("group", "lesion"):
            assert len({(row[key], row["part"]) for row in rows}) == len({row[key] for row in rows})
    assert sorted(tested) == sorted(file.relative_to(two_folds["data"]).as_posix() for file in two_folds["data"].rglob("*.png"))


def test_each_fold_is_an_ordinary_run(cli: Cli, two_folds: dict) -> None:
    facts = read_json(two_folds["peaceful"] / "folds.json")
    for number in range(2):
        run = runs.open_run(two_folds["peaceful"] / f"fold-{number}")
        validate(read_json(run.path / "run.json"), "run")
        assert (run.recipe.folds, run.recipe.fold) == (2, number)
        assert (run.recipe.conflicts, run.recipe.duplicates, run.recipe.min_lesions) == ("drop", "keep", 3)
        assert run.facts.command.startswith("melanoma-edge train ") and facts["runs"][number]["weights"] == run.facts.weights
    cli("report", two_folds["peaceful"] / "fold-1", "--out", two_folds["home"] / "fold.html", "--force", "-q")
    assert "melanoma" in (two_folds["home"] / "fold.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("named", ["demo", "classic-dropout", "default"])
@pytest.mark.parametrize("stated", [[], ["folds=4"], ["validation_folds=4"], ["validation_folds=5"]])
def test_all_folds_have_the_recipe_of_one_of_as_many_folds(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, stated: list[str]) -> None:
    """Up to where the first is trained."""

    class Enough(Exception):
        pass

    def report(event: str, facts: dict) -> None:
        if event == "fold":
            raise Enough

    monkeypatch.setattr(folds, "open_devices", lambda asked: Devices())
    said = ["image_size=32", "min_lesions=3", *stated]
    with pytest.raises(Enough):
        train_folds(some_classes(drawn, tmp_path / "data", 14), recipes.load(named, said), tmp_path / "out", 3, cache=tmp_path / "cache", report=report)
    found = open_folds(tmp_path / "out").facts.recipe
    assert found == recipes.load(named, [*(one for one in said if one != "folds=4"), "folds=3"])
    expected = [int(one.removeprefix("validation_folds=")) for one in stated if one != "folds=4"] or [8 if named == "default" else 3]
    assert [found.validation_folds] == expected


def test_the_record_is_valid_and_read_back(two_folds: dict) -> None:
    for out in (two_folds["peaceful"], two_folds["resumed"]):
        facts = read_json(out / "folds.json")
        validate(facts, "folds")
        assert facts["state"] == "complete" and facts["networks"].keys() == {"float", "qat"} and facts["recipe"]["folds"] == 2
        assert [(fold["fold"], fold["run"]) for fold in facts["runs"]] == [(0, "fold-0"), (1, "fold-1")]
        assert facts["pictures"] == sum(fold["pictures"]["test"] for fold in facts["runs"]) == 42
        opened = open_folds(out)
        assert opened.facts.model_dump(mode="json") == facts and [run.recipe.fold for run in opened.runs()] == [0, 1]
        assert facts["groups"] == len({row["group"] for row in split_of(out / "fold-0")})


def test_mean_and_spread_follow_from_the_runs(two_folds: dict) -> None:
    facts = read_json(two_folds["peaceful"] / "folds.json")
    for which, across in facts["networks"].items():
        found = [read_json(two_folds["peaceful"] / f"fold-{number}" / "evaluation.json")[which]["scores"] for number in range(2)]
        assert [fold["scores"][which] for fold in facts["runs"]] == found
        for name in FIGURES:
            values = [scores[name]["value"] for scores in found]
            assert across["figures"][name] == pytest.approx({"mean": np.mean(values), "sd": np.std(values, ddof=1), "lowest": min(values), "highest": max(values), "folds": 2})
        for name in CLASSES:
            assert across["recall"][name]["mean"] == pytest.approx(np.mean([scores["recall"][name]["value"] for scores in found]))


def test_pooled_figures_use_each_fold_s_own_temperature_priors_and_threshold(two_folds: dict) -> None:
    """Computed anew from logits, without the library."""
    facts = read_json(two_folds["peaceful"] / "folds.json")
    for which, across in facts["networks"].items():
        right, answered, called, positive, thresholds = [], [], [], [], set()
        for number in range(2):
            run = two_folds["peaceful"] / f"fold-{number}"
            decision = read_json(run / "evaluation.json")[which]["decision"]
            priors = read_json(run / "run.json")["training_priors"]
            logits = load_file(run / "logits.safetensors")[f"{which}/test"].astype(np.float64)
            odds = np.exp(logits / decision["temperature"]) / np.array([priors[name] for name in CLASSES])
            probabilities = odds / odds.sum(axis=1, keepdims=True)
            labels = np.array([CLASSES.index(row["label"]) for row in split_of(run) if row["part"] == "test"])
            threshold = decision["threshold"]["probability"]
            thresholds.add(threshold)
            right += (probabilities.argmax(axis=1) == labels).tolist()
            answered += (probabilities.max(axis=1) >= decision["abstention"]["threshold"]).tolist()
            called += (probabilities[:, 0] >= threshold).tolist()
            positive += (labels == 0).tolist()
        assert len(thresholds) == 2
        right, answered, called, positive = map(np.array, (right, answered, called, positive))
        pooled = across["pooled"]
        expected = {
            "accuracy": right.mean(),
            "coverage_of_decision": answered.mean(),
            "accuracy_of_answers": right[answered].mean(),
            "positive_sensitivity_of_decision": called[positive].mean(),
            "positive_specificity_of_decision": (~called[~positive]).mean(),
        }
        assert {name: pooled[name]["value"] for name in expected} == pytest.approx(expected)
        assert pooled["pictures"] == 42 and pooled["lesions"] == facts["groups"] and pooled["bootstrap"]["unit"] == "lesion"
        assert all(pooled[name]["low"] <= pooled[name]["value"] <= pooled[name]["high"] for name in expected)


def test_what_is_printed_says_which_fold_and_both_kinds_of_figures(two_folds: dict) -> None:
    for line in ("fold 1/2: training: float", "fold 2/2: training: float", "fold 2/2: training: qat"):
        assert line in two_folds["err"]
    assert two_folds["err"].count("lesion ids: ") == 1, "what is the same for all folds is said once"
    facts = read_json(two_folds["peaceful"] / "folds.json")
    assert "2 folds: 42 pictures" in two_folds["out"] and "mean ± sd" in two_folds["out"] and "int8 (simulated): pooled" in two_folds["out"]
    [row] = [line for line in two_folds["out"].splitlines() if line.startswith("│ accuracy  ")]
    for across in facts["networks"].values():
        assert f"{across['figures']['accuracy']['mean']:.3f} ± {across['figures']['accuracy']['sd']:.3f}" in row
        assert "{value:.3f} ({low:.3f} to {high:.3f})".format(**across["pooled"]["accuracy"]) in row
    assert f"next: melanoma-edge export {two_folds['peaceful']}\n" in two_folds["out"]


# Interruptions.


def test_an_interruption_keeps_the_folds_that_are_complete(two_folds: dict) -> None:
    assert two_folds["code"] == 130 and "Traceback" not in two_folds["interrupt"]
    assert two_folds["facts"]["state"] == "training" and [fold["run"] for fold in two_folds["facts"]["runs"]] == ["fold-0"] and two_folds["facts"]["networks"] == {}
    validate(two_folds["facts"], "folds")
    assert two_folds["newest"] == "runs/demo-1"
    after = snapshot(two_folds["resumed"])
    assert {name: sha256 for name, sha256 in two_folds["before"].items() if name.startswith("fold-0/")}.items() <= after.items()
    assert two_folds["before"]["fold-1/recipe.toml"] == after["fold-1/recipe.toml"] and "fold-1/weights/float.safetensors" not in two_folds["before"]
    assert not [name for name in after if ".lock" in name or ".partial" in name]


def test_folds_do_not_go_on_with_other_data(two_folds: dict) -> None:
    assert "changed since runs/demo-1 began" in two_folds["other data"] and two_folds["unchanged"]
    assert "incomplete: finish it with `melanoma-edge train --resume --out " in two_folds["export"]


def test_resumed_folds_end_where_those_left_in_peace_do(two_folds: dict) -> None:
    """Which also shows that a fold is the same whether or not another was trained before it in the same process."""
    ours, theirs = snapshot(two_folds["resumed"]), snapshot(two_folds["peaceful"])
    assert ours.keys() == theirs.keys()
    for number in range(2):
        for name in ("split.csv", "weights/float.safetensors", "weights/qat.safetensors", "logits.safetensors", "evaluation.json"):
            assert ours[f"fold-{number}/{name}"] == theirs[f"fold-{number}/{name}"], name
    assert two_folds["result"]["networks"] == read_json(two_folds["peaceful"] / "folds.json")["networks"]


def test_a_strange_run_in_the_place_of_a_fold_is_refused(two_folds: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "open_devices", lambda asked: Devices())  # it does not come to training
    out = as_if_interrupted(two_folds["peaceful"], tmp_path / "out")
    recipe = out / "fold-1" / "recipe.toml"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("seed = 7", "seed = 8"), encoding="utf-8")
    before = snapshot(out / "fold-1")
    with pytest.raises(BadInput, match="fold-1 is a run of another recipe or other data: move it away"):
        train_folds(None, None, out, resume=True, cache=tmp_path / "cache")
    assert snapshot(out / "fold-1") == before


def test_folds_that_the_data_cannot_give_are_refused_before_the_first_is_trained(two_folds: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folds, "open_devices", lambda asked: Devices())
    recipe = recipes.load("demo", ["image_size=32", "min_lesions=3"])
    with pytest.raises(BadInput, match="there are too few lesions for 20 folds"):
        train_folds(two_folds["data"], recipe, tmp_path / "out", 20, cache=tmp_path / "cache")
    with pytest.raises(BadInput, match="exists already"):
        train_folds(two_folds["data"], recipe, two_folds["peaceful"], 2, cache=tmp_path / "cache")
    assert not (tmp_path / "out").exists()


# A folder of folds where a run is expected.


def test_a_folder_of_folds_is_told_from_a_run(cli: Cli, two_folds: dict) -> None:
    expected = "holds folds, each a run of its own: name one of {0}/fold-0, {0}/fold-1 ..."
    out = two_folds["peaceful"]
    assert expected.format(out) in cli.refused("evaluate", out, "--data", two_folds["data"], "-q")
    assert expected.format(out) in cli.refused("report", out, "-q")
    complete = cli("train", "--resume", "--out", out, "--json", "-q").json
    assert complete == read_json(out / "folds.json"), "complete folds are shown again"


def test_a_damaged_record_is_one_line(two_folds: dict, tmp_path: Path) -> None:
    facts = read_json(two_folds["peaceful"] / "folds.json")
    for content, found in ((facts | {"schema_version": 9}, "schema version 9"), (facts | {"state": "lost"}, "is not valid: state is 'lost'")):
        (tmp_path / "folds.json").write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(BadInput, match=found):
            open_folds(tmp_path)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--folds", "3", "--set", "fold=1"], "--folds 3 trains every one of 3 folds: leave out --set fold=1, or leave out --folds"),
        (["--folds", "3", "--set", "folds=4"], "leave out --set folds=4"),
        (["--folds", "1"], "1 fold leaves nothing to test: ask for --folds 5, or train one model on everything with --set folds=1"),
        (["--folds", "0"], "folds is 0: "),
        (["--folds", "21"], "folds is 21: "),
        (["--folds", "3", "--recipe", "second.toml"], "the recipe asks for fold 2 alone and --folds for all"),
        (["--folds", "3", "--resume"], "leave out --set, its short forms and --folds"),
        (["--resume", "--min-lesions", "4"], "leave out --set, its short forms and --folds"),
        (["--min-lesions", "4", "--set", "min_lesions=4"], "--min-lesions and --set min_lesions=4 say the same key: give one of them"),
        (["--seed", "4", "--set", "seed = 4"], "--seed and --set seed = 4 say the same key"),
        (["--min-lesions", "1"], "min_lesions is 1: "),
    ],
)
def test_options_that_contradict_each_other_are_refused_and_leave_nothing(cli: Cli, two_folds: dict, tmp_path: Path, options: list[str], found: str) -> None:
    text = (two_folds["peaceful"] / "fold-1" / "recipe.toml").read_text(encoding="utf-8")
    (tmp_path / "second.toml").write_text(text.replace("folds = 2", "folds = 3").replace("fold = 1", "fold = 2"), encoding="utf-8")
    data = [] if "--resume" in options else [two_folds["data"]]
    assert found in cli.refused("train", *data, *options, "-q", cwd=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["second.toml"]


def test_the_spread_leaves_out_folds_in_which_a_figure_is_undefined() -> None:
    assert spread([0.5, None, 1.0]).model_dump() == {"mean": 0.75, "sd": pytest.approx(0.5 / 2**0.5), "lowest": 0.5, "highest": 1.0, "folds": 2}
    assert spread([0.5, None]).model_dump() == {"mean": 0.5, "sd": None, "lowest": 0.5, "highest": 0.5, "folds": 1}
    assert spread([None]).model_dump() == {"mean": None, "sd": None, "lowest": None, "highest": None, "folds": 0}
