"""Stated deployment priors: what a recipe says is what probabilities are corrected to and figures are weighed by."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import validate
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundle import write_bundle
from tiny_run import CLASSES, write_run

from melanoma_edge import NOTICE, calibration, metrics, recipes
from melanoma_edge.cli.show import Screen
from melanoma_edge.cli.show_cross_validation import show_cross_validation
from melanoma_edge.cli.show_scores import show_run
from melanoma_edge.contract import CrossValidated, CrossValidation, FoldBundle, Recipe, Scores
from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.convert.card import model_card
from melanoma_edge.convert.card_tables import interval_text
from melanoma_edge.data.split import TEST, VALIDATION
from melanoma_edge.errors import BadInput
from melanoma_edge.files import write_text
from melanoma_edge.model import run as runs
from melanoma_edge.model.folds import Answers, across
from melanoma_edge.proof.diff_facts import scores as compared
from melanoma_edge.proof.quoted import read_cross_validation, refuse_other
from melanoma_edge.proof.subject import of_run

STATED = {"vascular lesion": 0.06, "nevus": 0.9, "melanoma": 0.04}


def stating(run: runs.Run, deployment_prior: str | dict[str, float]) -> runs.Run:
    """Return the run as if its recipe had named these deployment priors."""
    recipe = recipes.parse({**run.recipe.model_dump(), "deployment_prior": deployment_prior}, "test")
    write_text(run.path / runs.RECIPE_FILE, recipes.to_toml(recipe))
    return runs.open_run(run.path)


@pytest.fixture
def run(tmp_path: Path) -> runs.Run:
    return stating(write_run(tmp_path / "run"), STATED)


def test_stated_shares_are_those_that_probabilities_are_corrected_to(run: runs.Run) -> None:
    assert run.recipe.deployment_prior == STATED
    training, deployment = run.priors()
    assert training.tolist() == [1 / 3] * 3 and deployment.tolist() == pytest.approx([0.04, 0.9, 0.06], abs=1e-15)
    odds = np.exp(run.logits()[f"float/{TEST}"].astype(np.float64)) * [0.04, 0.9, 0.06]
    assert run.probabilities("float", TEST, temperature=1.0) == pytest.approx(odds / odds.sum(axis=1, keepdims=True))
    assert of_run(run).deployment_priors.tolist() == deployment.tolist()


def test_the_temperature_is_fitted_for_them(run: runs.Run) -> None:
    logits, (labels, groups) = run.logits()[f"float/{VALIDATION}"], run.truth(VALIDATION)
    even = stating(run, "balanced").fit_decision(logits, labels, groups)
    fitted = stating(run, STATED).fit_decision(logits, labels, groups)
    assert fitted.temperature != even.temperature
    assert stating(run, {name: 1 / 3 for name in CLASSES}).fit_decision(logits, labels, groups) == even


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=9), st.floats(0.991, 1.009), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_shares_are_in_the_order_of_the_classes_and_add_up_to_one(weights: list[float], total: float, random) -> None:
    names = [f"class {number}" for number in range(len(weights))]
    stated = [(name, total * weight / sum(weights)) for name, weight in zip(names, weights)]
    random.shuffle(stated)
    shares = calibration.stated_priors(Recipe(name="test", deployment_prior=dict(stated)), names)
    assert shares == pytest.approx(np.array(weights) / sum(weights)) and shares.sum() == pytest.approx(1, abs=1e-12)


def test_a_run_of_other_classes_than_its_recipe_states_is_refused(run: runs.Run) -> None:
    other = dataclasses.replace(run, facts=run.facts.model_copy(update={"classes": ("melanoma", "wart", "nevus"), "training_priors": dict.fromkeys(("melanoma", "wart", "nevus"), 1 / 3)}))
    with pytest.raises(BadInput, match="deployment_prior names 'vascular lesion' and gives no share to 'wart'"):
        other.priors()


@pytest.mark.parametrize(
    "theirs, words",
    [("balanced", "its deployment_prior is 'balanced', the run's {'vascular lesion': 0.06, "), ({**STATED, "nevus": 0.899}, "its deployment_prior is {'vascular lesion': 0.06, 'nevus': 0.899")],
)
def test_a_cross_validation_for_other_priors_is_not_quoted(run: runs.Run, theirs: str | dict[str, float], words: str) -> None:
    found = CrossValidation.model_construct(recipe=run.recipe.model_copy(update={"deployment_prior": theirs}), classes=CLASSES)
    with pytest.raises(BadInput) as caught:
        refuse_other(found, Path("cross-validation.json"), run)
    assert words in str(caught.value) and str(caught.value).isprintable()
    with pytest.raises(BadInput, match="its deployment_prior is .*, the run's 'balanced'"):
        refuse_other(CrossValidation.model_construct(recipe=run.recipe, classes=CLASSES), Path("cross-validation.json"), stating(run, "balanced"))


# --- figures at these priors


def answers(run: runs.Run, deployment: np.ndarray, rows: slice) -> Answers:
    """Return some of what the run says of its test part as if it were that of a fold."""
    decision, _ = run.evaluation()["float"]
    probabilities, logits, (labels, groups) = run.probabilities("float", TEST)[rows], run.logits()[f"float/{TEST}"][rows], run.truth(TEST)
    labels, groups = labels[rows], groups[rows]
    scores = metrics.scores(probabilities, labels, CLASSES, "melanoma", decision=decision, logits=logits, groups=groups, priors=deployment, replicates=20)
    return Answers(decision, scores, probabilities, logits, labels, groups, deployment)


@pytest.fixture
def crossed(run: runs.Run) -> CrossValidation:
    """Two folds of a run that differ in their priors, as the frequencies in the data do."""
    folds = [answers(run, np.array(deployment), slice(first, None, 2)) for first, deployment in enumerate([[0.04, 0.9, 0.06], [0.06, 0.86, 0.08]])]
    labels, top = np.concatenate([one.labels for one in folds]), np.concatenate([one.probabilities.argmax(axis=1) for one in folds])
    table = tuple(map(tuple, metrics.confusion(top, labels, 3).tolist()))
    one = CrossValidated(name="tiny-int8.tflite", format="tflite", precision="int8", confusion=table, **dict(across(folds, CLASSES, "melanoma")))
    counts = [len(fold.labels) for fold in folds]
    lesions = one.pooled.lesions
    bundles = [
        FoldBundle(fold=number, bundle=f"fold-{number}.bundle", manifest_sha256="0" * 64, weights={}, pictures=counts[number], lesions=share, absent_from_test=())
        for number, share in enumerate([1, lesions - 1])
    ]
    return CrossValidation(
        notice=NOTICE, recipe=run.recipe.model_copy(update={"folds": 2}), data_sha256="0" * 64, classes=CLASSES, positive_class="melanoma", pictures=sum(counts),
        lesions=lesions, folds=tuple(bundles), artifacts=(one,), comparisons=(), tool_versions={},
    )  # fmt: skip


def of_an_earlier_version(found: CrossValidation, folder: Path) -> CrossValidation:
    """Return the cross-validation as it is read from a file without the figure."""
    content = found.model_dump(mode="json")
    for one in content["artifacts"]:
        del one["figures"]["ece_at_priors"], one["pooled"]["ece_at_priors"]
    (folder / "old.json").write_text(json.dumps(content), encoding="utf-8")
    return read_cross_validation(folder / "old.json")


def printed(found: CrossValidation, folder: Path, capsys: pytest.CaptureFixture) -> str:
    show_cross_validation(Screen(quiet=True, verbose=False), SimpleNamespace(result=found, parities={}, path=folder), False)
    return capsys.readouterr().out


def card_of(found: CrossValidation, folder: Path) -> str:
    manifest = open_bundle(write_bundle(folder / "tiny.bundle")).manifest
    return model_card(manifest.model_copy(update={"cross_validation": found})).partition("## Figures by cross-validation")[2]


def test_pooled_pictures_are_weighed_by_the_mean_of_the_folds_priors(crossed: CrossValidation, run: runs.Run) -> None:
    one = crossed.artifacts[0]
    order = [*range(0, 27, 2), *range(1, 27, 2)]
    expected = metrics.scores(run.probabilities("float", TEST)[order], run.truth(TEST)[0][order], CLASSES, "melanoma", priors=np.array([0.05, 0.88, 0.07]), replicates=0)
    assert one.pooled.ece_at_priors.value == pytest.approx(expected.ece_at_priors.value)
    assert one.pooled.ece_at_priors.value != one.pooled.ece.value and one.figures["ece_at_priors"].folds == 2
    validate(crossed.model_dump(mode="json"), "cross-validation")


def test_both_calibration_errors_stand_in_the_card_by_name(crossed: CrossValidation, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pooled = crossed.artifacts[0].pooled
    shown, card = printed(crossed, tmp_path, capsys), card_of(crossed, tmp_path)
    assert f"{pooled.ece.value:.3f}" in shown and f"{pooled.balanced_accuracy.low:.3f} to {pooled.balanced_accuracy.high:.3f}" in shown, "the table is no wider than a terminal"
    assert f" | ECE (these pictures' mix) | ECE (deployment mix) | melanoma sensitivity / specificity of the decision |\n|{'---|' * 9}\n" in card
    assert f" | {interval_text(pooled.ece)} | {interval_text(pooled.ece_at_priors)} | " in card and "The temperature is fitted for the second" in card


def test_files_of_versions_without_it_are_shown_without_it(crossed: CrossValidation, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    old = of_an_earlier_version(crossed, tmp_path)
    assert old.artifacts[0].pooled.ece_at_priors is None
    shown, card = printed(old, tmp_path, capsys), card_of(old, tmp_path)
    assert f"{old.artifacts[0].pooled.ece.value:.3f}" in shown
    assert f" | ECE (these pictures' mix) | melanoma sensitivity / specificity of the decision |\n|{'---|' * 8}\n" in card and "deployment mix" not in card


def test_only_what_both_manifests_measured_is_compared(crossed: CrossValidation) -> None:
    scores = crossed.artifacts[0].pooled
    old = Scores.model_validate_json(scores.model_copy(update={"ece_at_priors": None}).model_dump_json())
    assert compared(scores, scores)["ece_at_priors"].change == 0.0
    assert "ece_at_priors" not in compared(old, scores) and "ece" in compared(old, scores)


def test_a_run_is_shown_with_both(run: runs.Run, capsys: pytest.CaptureFixture) -> None:
    show_run(Screen(quiet=True, verbose=False), run, False)
    out = capsys.readouterr().out
    for words, key in (("these pictures' mix", "ece"), ("deployment mix", "ece_at_priors")):
        [line] = [line for line in out.splitlines() if f"expected calibration error ({words})" in line]
        for _, scores in run.evaluation().values():
            assert f"{getattr(scores, key).value:.3f}" in line
