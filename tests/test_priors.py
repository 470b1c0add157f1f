"""Stated deployment priors: what a recipe says is what probabilities are corrected to and figures are weighed by."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import CLASSES, write_run

from melanoma_edge import calibration, recipes
from melanoma_edge.contract import CrossValidation, Recipe
from melanoma_edge.data.split import TEST, VALIDATION
from melanoma_edge.errors import BadInput
from melanoma_edge.files import write_text
from melanoma_edge.model import run as runs
from melanoma_edge.proof.quoted import refuse_other
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
