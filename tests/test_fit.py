"""One phase of training: what the loss weighs, where pictures are augmented, and whose weights are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from melanoma_edge import recipes
from melanoma_edge.contract import Recipe
from melanoma_edge.data.samples import draw

LABELS = np.repeat([0, 1, 2], [20, 7, 3])


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return np.stack([draw(("nevus", "melanoma", "vascular lesion")[label], 32, i) for i, label in enumerate(LABELS)])


def one_epoch(recipe: Recipe, pictures: np.ndarray, folder: Path, device: str = "cpu"):
    """Train for one epoch and return (the network as it was, the epoch's row)."""
    from melanoma_edge.model.tensorflow import require, seed_everything

    require()
    import tf_keras as keras

    from melanoma_edge.model import network
    from melanoma_edge.contract import Computation
    from melanoma_edge.model.devices import Devices
    from melanoma_edge.model.fit import Part, fit
    from melanoma_edge.model.step import Phase

    folder.mkdir(exist_ok=True)
    seed_everything(3)
    model = network.build(recipe, 3)
    before = keras.models.clone_model(model)
    before.set_weights(model.get_weights())
    part, history = Part(pictures, LABELS), []
    fit(
        model, model.trainable_variables, Phase("float", 1, 1e-6, 0.0), recipe, part, part,
        file=folder / "checkpoint", history=history, on_epoch=lambda rows: None, report=lambda event, facts: None,
        devices=Devices(Computation(device=device, names=("one",))),
    )  # fmt: skip
    return before, history[0]


@pytest.mark.parametrize("rebalance", ["none", "class_weight"])
def test_a_picture_counts_in_the_loss_as_the_strategy_says(rebalance: str, pictures: np.ndarray, tmp_path: Path) -> None:
    recipe = Recipe(name="test", rebalance=rebalance, image_size=32, width=0.25, dropout=0.0, label_smoothing=0.0, batch_size=30)
    before, row = one_epoch(recipe, pictures, tmp_path)
    logits = before(pictures.astype(np.float32), training=True).numpy().astype(float)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(30), LABELS]
    weights = {"none": np.ones(3), "class_weight": 30 / (3 * np.array([20, 7, 3]))}
    expected = {name: (weight[LABELS] * losses).mean() for name, weight in weights.items()}
    assert np.isclose(row.loss, expected[rebalance], rtol=1e-4)
    assert not np.isclose(expected["none"], expected["class_weight"], rtol=1e-3), "this test cannot tell them apart"


def test_with_a_gpu_the_feed_hands_pictures_over_and_tensorflow_augments_them(pictures: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from melanoma_edge.model.tensorflow import require

    require()
    from melanoma_edge.model import augment_ops

    jpeg = "augment.jpeg={probability=0.3, low=40.0, high=90.0}"
    recipe = recipes.load("default", ["image_size=32", "width=0.25", "samples_per_class=20", "batch_size=10", jpeg])
    _, on_processor = one_epoch(recipe, pictures, tmp_path / "a")
    seen = []
    apply = augment_ops.apply
    monkeypatch.setattr(augment_ops, "apply", lambda batch, maps: seen.append(len(batch)) or apply(batch, maps))
    _, elsewhere = one_epoch(recipe, pictures, tmp_path / "b", device="gpu")
    assert seen == [10] * 6
    assert np.isclose(elsewhere.loss, on_processor.loss, rtol=0.02), "the pictures are other ones"


@pytest.mark.parametrize("kept", ["best", "last"])
def test_the_weights_kept_are_those_of_the_epoch_that_the_recipe_names(kept: str, pictures: np.ndarray, tmp_path: Path) -> None:
    """The validation part has wrong labels, so that the longer the training, the worse it gets there."""
    from melanoma_edge.model.tensorflow import require, seed_everything

    require()
    from melanoma_edge.model import network
    from melanoma_edge.model.fit import Part, fit, predict
    from melanoma_edge.model.step import Phase

    recipe = Recipe(name="test", image_size=32, width=0.25, samples_per_class=8, batch_size=8, schedule="constant", kept_epoch=kept)
    seed_everything(3)
    model, history, seen = network.build(recipe, 3), [], []
    fitted = fit(
        model, model.trainable_variables, Phase("float", 6, 0.01, 0.0), recipe, Part(pictures, LABELS), Part(pictures, (LABELS + 1) % 3),
        file=tmp_path / "checkpoint", history=history, on_epoch=lambda rows: seen.append(predict(model, pictures)), report=lambda event, facts: None,
    )  # fmt: skip
    best = max(range(6), key=lambda epoch: (history[epoch].validation_balanced_accuracy, -history[epoch].validation_loss))
    assert best != 5, "this test cannot tell them apart"
    np.testing.assert_array_equal(predict(fitted, pictures), seen[best if kept == "best" else 5])
