"""The ablation, small, on drawn samples: what its figures are of, what is not done twice, and what is refused."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from conftest import CLASSES, read_json, snapshot
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score

from melanoma_edge.files import write_json

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "ablation.py"
TRIALS = tomllib.loads(PROGRAM.with_suffix(".toml").read_text())
TRIAL = next(iter(TRIALS))
PUBLISHED = read_json(PROGRAM.parent / "results" / "ablation.json")["figures"]["trials"]

pytestmark = pytest.mark.xdist_group("ablation")


def ablation(*arguments: object, code: int = 0) -> tuple[str, str]:
    """Run the program to its end and return what it wrote to standard output and error."""
    environment = os.environ | {"PYTHONPATH": str(PROGRAM.parents[1])}
    done = subprocess.run([sys.executable, str(PROGRAM), *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def tried(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of two trainings of one trial, side by side, and the table of them."""
    runs = tmp_path_factory.mktemp("ablation") / "runs"
    return runs, ablation("--quick", "--markdown", "--trial", TRIAL, "--inner", 0, "--inner", 1, "--lanes", 2, "--data", drawn, "--runs", runs)[0]


def test_figures_are_those_that_scikit_learn_finds_on_the_inner_folds(tried: tuple[Path, str], drawn: Path) -> None:
    from melanoma_edge import recipes
    from melanoma_edge.data.index import read_index
    from melanoma_edge.data.policy import select
    from melanoma_edge.data.split import TEST, inner_folds, split

    recipe = recipes.load(PROGRAM.with_name("ablation_base.toml"), ["min_lesions=5"])
    chosen = select(read_index(drawn), recipe)
    folds, labels = inner_folds(chosen, recipe), np.array([chosen.classes.index(row.label) for row in chosen.rows])
    for inner in (0, 1):
        found, logits = read_json(tried[0] / f"{TRIAL}-{inner}-1" / "figures.json"), np.load(tried[0] / f"{TRIAL}-{inner}-1" / "logits.npy").astype(float)
        judged = labels[folds == inner]
        assert len(logits) == len(judged) == found["judged_pictures"]
        assert found["training_pictures"] + found["judged_pictures"] == (split(chosen, recipe) != TEST).sum(), "pictures of the test part took part"
        scaled = np.exp(logits / found["temperature"])
        probabilities = scaled / scaled.sum(axis=1, keepdims=True)
        weights = 1 / np.bincount(judged)[judged]
        expected = {
            "balanced_accuracy": balanced_accuracy_score(judged, logits.argmax(axis=1)),
            "macro_auc": np.mean([roc_auc_score(judged == k, probabilities[:, k]) for k in range(len(CLASSES))]),
            "log_loss": log_loss(judged, probabilities, sample_weight=weights),
        }
        assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-6)


def test_the_table_and_the_file_hold_the_mean_of_the_trainings_and_stay_out_of_the_results(tried: tuple[Path, str]) -> None:
    runs, table = tried
    facts = read_json(runs / "ablation.json")
    [(name, trial)] = facts["figures"]["trials"].items()
    assert name == TRIAL and list(trial["each"]) == ["inner 0, seed 1", "inner 1, seed 1"] and facts["figures"]["comparable"] is False
    mean = np.mean([read_json(runs / f"{TRIAL}-{inner}-1" / "figures.json")["log_loss"] for inner in (0, 1)])
    assert trial["mean"]["log_loss"] == pytest.approx(mean)
    assert f"| `{TRIAL}` | {TRIALS[TRIAL]['why']} |" in table and f"{mean:.3f}" in table and facts["conditions"]["versions"]["tensorflow"]
    published = PROGRAM.parent / "results" / "ablation.json"
    assert not published.exists() or read_json(published)["figures"]["comparable"] is True


def test_what_is_complete_is_not_done_again_and_what_is_missing_is(tried: tuple[Path, str], drawn: Path) -> None:
    runs = tried[0]
    before = snapshot(runs)
    lost = runs / f"{TRIAL}-1-1" / "figures.json"
    lost.unlink()
    _, err = ablation("--quick", "--trial", TRIAL, "--inner", 0, "--inner", 1, "--data", drawn, "--runs", runs)
    assert "1 of 2 trainings are to be done" in err and f"{TRIAL} 0 1" not in err
    after = snapshot(runs)
    assert after.keys() == before.keys()
    assert {name for name in before if before[name] != after[name]} <= {"ablation.json", f"{TRIAL}-1-1/history.json", f"{TRIAL}-1-1/figures.json"}, "the same seed gave other weights"


def test_what_cannot_be_compared_is_refused_in_one_line(tried: tuple[Path, str], drawn: Path, tmp_path: Path) -> None:
    _, err = ablation("--trial", "no-such", code=2)
    assert err.splitlines()[-1].startswith("ablation: there is no trial 'no-such': expected one of ") and TRIAL in err
    _, err = ablation("--trial", TRIAL, "--inner", 0, "--data", drawn, "--runs", tried[0], code=2)  # without --quick
    assert "was trained with other settings" in err and "--runs" in err
    _, err = ablation("--quick", "--trial", TRIAL, "--inner", 0, "--data", tmp_path / "nothing", "--runs", tmp_path / "runs", code=2)
    assert "1 of 1 failed" in err and "nothing" in err


@pytest.mark.parametrize("trial", TRIALS)
def test_every_trial_says_why_and_is_a_recipe(trial: str) -> None:
    from melanoma_edge import recipes

    assert TRIALS[trial]["why"]
    recipes.load(PROGRAM.with_name("ablation_base.toml"), TRIALS[trial].get("set", ()))


@pytest.fixture(scope="module")
def module() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PROGRAM.parent))
        yield importlib.import_module("ablation")


def trained(module: ModuleType, runs: Path, trial: str, **changes: object) -> Path:
    """Leave what a training of the trial leaves, of a recipe with `changes`."""
    folder = module.place(runs, trial, 0, 1)
    folder.mkdir(parents=True)
    facts = module.settings(trial, quick=False, seed=1)
    [known, *_] = PUBLISHED["student-176"]["each"].values()
    write_json(folder / module.TRIAL, facts | {"recipe": facts["recipe"] | changes})
    write_json(folder / "figures.json", dict.fromkeys(known, 9.9))
    return folder


def test_what_is_published_stays_as_long_as_its_trial_says_the_same(module: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, published = tmp_path / "runs", PUBLISHED
    assert module.complete(runs, published, quick=False) == published and capsys.readouterr().err == ""
    trained(module, runs, "edge-45")
    found = module.complete(runs, published, quick=False)
    assert {name: found[name] for name in published} == published and found["edge-45"]["mean"]["log_loss"] == 9.9
    trained(module, runs, "student-176")
    both = module.complete(runs, published, quick=False)["student-176"]
    assert both["each"]["inner 0, seed 1"]["log_loss"] == 9.9 and both["each"]["inner 0, seed 2"] == published["student-176"]["each"]["inner 0, seed 2"], "done again"

    older = json.loads(json.dumps(published))
    del older["student-176"]["recipe"]["schedule"]
    assert module.complete(tmp_path / "none", older, quick=False).keys() == published.keys(), "of before a key that has its default"
    for change in ({"recipe": older["student-176"]["recipe"] | {"epochs": 46}}, {"shape": {"stem": 16}}, {"teachers": ["edge-45/1"]}):
        other = published | {"student-176": published["student-176"] | change}
        capsys.readouterr()
        assert "student-176" not in module.complete(tmp_path / "none", other, quick=False)
        assert "student-176: the published trainings were of other settings than ablation.toml has now" in capsys.readouterr().err


def test_a_training_of_other_settings_is_left_out(module: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = trained(module, tmp_path, "edge-45", epochs=46)
    assert module.complete(tmp_path, {}, quick=False) == {} and f"{folder} was trained with other settings" in capsys.readouterr().err


def test_a_trial_may_have_a_shape_of_its_own(module: ModuleType) -> None:
    assert module.shape_of("student-176") is None
    shape = module.shape_of("lean-2x2-176")
    assert (shape.stem, shape.stem_kernel, shape.residual) == (16, 2, True) and shape.blocks[-2:] == ((256, 2), (256, 1)), "as it stands in ablation.toml"
