"""Grad-CAM: against the sum that it comes to behind global pooling, and on a network whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from melanoma_edge import recipes
from melanoma_edge.model import run as runs


@pytest.fixture(scope="module", autouse=True)
def tensorflow():
    pytest.importorskip("tensorflow")
    from melanoma_edge.model.tensorflow import require

    require()


def test_behind_global_pooling_it_is_the_feature_maps_weighted_as_the_dense_layer_weights_them() -> None:
    """Zhou et al. 2016, "Learning Deep Features for Discriminative Localization": the class activation map."""
    import tf_keras as keras

    from melanoma_edge.model import network, saliency

    keras.utils.set_random_seed(3)
    model = network.build(recipes.load("default", ["image_size=64"]), 4)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (37, 64, 64, 3), dtype=np.uint8)  # more than a batch
    classes = rng.integers(0, 4, 37)
    found = saliency.activation_maps(model, pictures, classes)
    pool = next(layer for layer in model.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D))
    features = keras.Model(model.input, pool.input).predict(pictures.astype(np.float32), verbose=0)
    dense = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense)).kernel.numpy()
    expected = np.maximum(np.einsum("nhwc,nc->nhw", features, dense[:, classes].T), 0)
    expected /= np.maximum(expected.max(axis=(1, 2), keepdims=True), 1e-12)
    assert found.dtype == np.uint8 and found.shape == expected.shape
    assert np.abs(found - 255 * expected).max() <= 1


def test_it_points_to_what_the_class_is_made_of_and_is_dark_where_nothing_speaks_for_it() -> None:
    import tf_keras as keras

    from melanoma_edge.model import saliency

    image = keras.Input((32, 32, 3))
    x = keras.layers.AveragePooling2D(8)(image)  # 4 x 4 cells, a channel a colour
    x = keras.layers.ReLU(6.0)(keras.layers.Conv2D(3, 1, kernel_initializer=keras.initializers.Constant(np.eye(3) / 64))(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(2, kernel_initializer=keras.initializers.Constant([[1, -1], [0, 0], [-1, 1]]))(x))  # red, and blue
    pictures = np.zeros((2, 32, 32, 3), np.uint8)
    pictures[:, :8, 24:, 0] = 200  # red at the top right
    pictures[:, 24:, :8, 2] = 200  # blue at the bottom left
    pictures[1, 24:, :8, 2] = 0
    maps = saliency.activation_maps(model, pictures[[0, 0, 1]], np.array([0, 1, 1]))
    red, blue = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    red[0, 3] = blue[3, 0] = 255
    assert (maps[0] == red).all() and (maps[1] == blue).all() and not maps[2].any()


def test_a_trained_run_holds_the_maps_of_its_test_part(run: Path) -> None:
    from melanoma_edge.model import saliency

    opened = runs.open_run(run)
    maps = opened.saliency()
    assert set(maps) == set(opened.facts.weights)
    for which, found in maps.items():
        assert found.dtype == np.uint8 and len(found) == len(opened.part("test")) and found.max() == 255
        model = runs.load_keras(run, which)
        one = np.random.default_rng(1).integers(0, 256, (1, opened.recipe.image_size, opened.recipe.image_size, 3), dtype=np.uint8)
        assert saliency.activation_maps(model, one, np.array([0])).shape[1:] == found.shape[1:]
