"""The recipes of the usual notebooks: what each one is, and that their networks reach a phone as the default one does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Cli, read_json, train_options

from melanoma_edge import recipes
from melanoma_edge.contract import Recipe

pytestmark = pytest.mark.xdist_group("classic")

STEPS = ("classic", "classic-augmented", "classic-rebalanced", "classic-dropout", "classic-batchnorm")


def test_every_step_trains_as_a_notebook_does_and_differs_from_the_first_in_what_its_name_says() -> None:
    first = recipes.load("classic")
    for name in STEPS:
        recipe = recipes.load(name)
        assert (recipe.image_size, recipe.batch_size, recipe.learning_rate, recipe.schedule) == (180, 32, 0.001, "constant")
        assert recipe.warmup_share == recipe.weight_decay == recipe.label_smoothing == 0
    rebalanced = recipes.load("classic-rebalanced")
    changed = {name: recipes.load(name).model_copy(update={"name": "", "description": ""}) for name in STEPS}
    assert first.augment == Recipe(name="x").augment and first.rebalance == "none" and first.dropout == 0 and first.epochs == 20
    assert changed["classic-augmented"].model_copy(update={"augment": first.augment}) == changed["classic"]
    assert (rebalanced.rebalance, rebalanced.samples_per_class, rebalanced.epochs) == ("augmentor", 500, 30)
    later = changed["classic-rebalanced"]
    assert changed["classic-dropout"] == later.model_copy(update={"dropout": 0.25, "augment": recipes.load("classic-dropout").augment})
    assert changed["classic-batchnorm"] == later.model_copy(update={"dropout": 0.25, "network": "classic-batchnorm"})


@pytest.mark.parametrize("name", STEPS)
def test_answers_of_a_classic_recipe_are_the_networks_own(name: str) -> None:
    """Notebooks take the highest output: the prior that training saw must be the one that is deployed."""
    recipe = recipes.load(name)
    assert recipe.deployment_prior == ("data" if recipe.rebalance == "none" else "balanced")


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("warmup_share", [0.0, 0.5])
def test_the_rate_stays_at_its_peak_or_falls_to_nothing(schedule: str, warmup_share: float, tmp_path: Path) -> None:
    from melanoma_edge.model.tensorflow import require

    require()
    from melanoma_edge.model import network
    from melanoma_edge.model.fit import Part, Phase, fit

    labels = np.arange(8) % 2
    recipe = Recipe(name="x", network="classic", image_size=32, rebalance="none", batch_size=4, schedule=schedule)
    model, rows = network.build(recipe, 2, rescale=True), []
    part = Part(np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8), labels)
    phase = Phase("float", 4, 1e-3, warmup_share)
    fit(
        model, model.trainable_variables, phase, recipe, part, part,
        file=tmp_path / "checkpoint", history=rows, on_epoch=lambda rows: None, report=lambda event, facts: None,
    )  # fmt: skip
    rates = [row.learning_rate for row in rows]
    if schedule == "constant":
        assert rates[int(4 * warmup_share) :] == pytest.approx([1e-3] * (4 - int(4 * warmup_share)), rel=1e-6)
        assert warmup_share == 0 or rates[0] < 1e-3
    else:
        assert max(rates) <= 1e-3 * (1 + 1e-6) and rates[-1] == pytest.approx(0, abs=1e-9)


def test_the_network_with_batch_normalization_goes_all_the_way_to_the_phone(cli: Cli, drawn: Path, tmp_path: Path) -> None:
    """Trained, quantized in training, exported: every gate holds, and int8 gives the answers of the trained network."""
    settings = train_options(image_size=48, epochs=8, qat_epochs=2, samples_per_class=100, min_lesions=5)
    trained = cli("train", drawn, "--recipe", "classic-batchnorm", *settings, "--out", tmp_path / "run", "--json", "-q").json
    scores = {which: found["scores"]["balanced_accuracy"]["value"] for which, found in trained["evaluation"].items()}
    assert scores["float"] > 0.5 and scores["qat"] > 0.5, f"four classes, chance is 0.25: {scores}"
    bundle = tmp_path / "lesions.bundle"
    cli("export", tmp_path / "run", "--precision", "float32,int8", "--licence", "CC0 1.0", "--out", bundle, "-q")
    gates = {(gate["name"], gate["artifact"]): gate["outcome"] for gate in read_json(bundle / "evidence" / "parity.json")["gates"]}
    assert "failed" not in gates.values()
    for name in ("float32.tflite", "int8.tflite"):
        assert gates[(name.split(".")[0], f"classic-batchnorm-{name}")] == "passed"
    assert gates[("int8-onnx", "classic-batchnorm-int8.onnx")] == "passed"
    manifest = read_json(bundle / "manifest.json")
    int8 = next(one for one in manifest["artifacts"] if one["name"] == "classic-batchnorm-int8.tflite")
    assert abs(int8["scores"]["balanced_accuracy"]["value"] - scores["qat"]) < 0.05
