"""Networks that were tried, from a line that says their layers.

In: a layout and a recipe. Out: an uncompiled network as :func:`melanoma_edge.model.network.build` makes them.

A layout names layers from the input to the pooling, separated by commas. `cK/S/C`: a dense K x K convolution with stride S to C channels; `dK/S/C`: a
depthwise one of K x K with stride S and a pointwise one to C channels; `rK`: that with stride 1 and as many channels as there are, added to its
own input. Behind every convolution stand BatchNormalization and ReLU6, behind every addition a ReLU6.
"""

from __future__ import annotations

import tf_keras as keras

from melanoma_edge.contract import INPUT_NAME, OUTPUT_NAME, Recipe
from melanoma_edge.model.dropout import StepDropout


def build(layout: str, recipe: Recipe, classes: int) -> keras.Model:
    """Return the network of `layout` at the recipe's size, with fresh weights and the recipe's dropout before the last layer."""
    image = keras.Input((recipe.image_size, recipe.image_size, 3), name=INPUT_NAME)
    x = image
    for number, token in enumerate(layout.split(",")):
        name, sizes = f"layer{number}", [int(size) for size in token[1:].split("/")]
        if token[0] == "c":
            x = _active(keras.layers.Conv2D(sizes[2], sizes[0], strides=sizes[1], padding="same", use_bias=False, name=name)(x), name)
        elif token[0] == "d":
            x = _separable(x, *sizes, name)
        else:
            x = keras.layers.ReLU(6.0, name=f"{name}_sum")(keras.layers.Add(name=f"{name}_add")([x, _separable(x, sizes[0], 1, x.shape[-1], name)]))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    if recipe.dropout:
        x = StepDropout(recipe.dropout, name="dropout")(x)
    return keras.Model(image, keras.layers.Dense(classes, name=OUTPUT_NAME)(x))


def _separable(x, size: int, stride: int, channels: int, name: str):
    x = _active(keras.layers.DepthwiseConv2D(size, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise")(x), f"{name}_depthwise")
    return _active(keras.layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_pointwise")(x), f"{name}_pointwise")


def _active(x, name: str):
    return keras.layers.ReLU(6.0, name=f"{name}_relu6")(keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-3, name=f"{name}_bn")(x))
