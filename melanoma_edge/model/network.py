"""The networks, built from a recipe, as layers that quantization-aware training can take.

In: a recipe and the number of classes. Out: an uncompiled ``tf_keras`` model that maps raw RGB
0..255, float32 [batch, size, size, 3], to logits, float32 [batch, classes].

Convolution, BatchNormalization and ReLU6 stand as separate layers because
tensorflow-model-optimization folds exactly that pattern; every ReLU6 output has the known range
[0, 6], which quantization pins. `classic-batchnorm` keeps the notebooks' plain ReLU, whose range is measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import tf_keras as keras  # tensorflow-model-optimization takes tf_keras models only, never tf.keras

from melanoma_edge.contract import INPUT_NAME, OUTPUT_NAME, Recipe
from melanoma_edge.model.dropout import StepDropout


@dataclass(frozen=True)
class Shape:
    """What a network of depthwise-separable blocks is made of. Channel counts are multiples of 16 (at width 1), because int8 kernels work on vectors of 16 or more."""

    stem: int
    """Channels of the first convolution, of stride 2."""
    stem_kernel: int
    """Its height and width in pixels."""
    blocks: tuple[tuple[int, int], ...]
    """(output channels, stride) of each block."""
    residual: bool
    """Whether there is a way around each block that keeps the shape."""


WIDE = ((48, 2), (48, 1), (96, 2), (96, 1), (192, 2), (192, 1), (192, 1), (256, 2), (256, 1))
LEAN = ((48, 2), (96, 2), (192, 2), (192, 1), (192, 1), (192, 1), (192, 1), (240, 2), (240, 1))
SHAPES = {
    "edge": Shape(32, 3, WIDE, residual=False),
    "edge-residual": Shape(32, 3, WIDE, residual=True),
    "edge-lean": Shape(16, 2, LEAN, residual=True),
}
"""{network of a recipe: its shape}. At 88 and 44 pixels a side (of a picture of 176), int8 kernels gain little over float32 ones: three input channels and depthwise layers do not fill their vectors.
`edge-lean` has little there, and most of its work in pointwise layers at 11 (benchmarks/roofline.py shows the time of each layer)."""

CLASSIC_BLOCKS = (32, 64, 128)
CLASSIC_DENSE = 128


def build(recipe: Recipe, classes: int, *, batch: int | None = None, rescale: bool = False, shape: Shape | None = None) -> keras.Model:
    """Return the recipe's network with fresh weights.

    `batch` fixes the batch size (artifacts are exported with 1). With `rescale`, `classic` divides
    its input by 255 first: without BatchNormalization its first layer does not train on 0..255.
    :func:`fold_rescaling` then moves that division into the weights. `edge` and `classic-batchnorm` need
    no such thing: the BatchNormalization behind their first convolution makes them indifferent to the input's scale.
    `shape` takes the place of that of a recipe's `edge` networks, for a trial of one that no recipe has.
    """
    image = keras.Input(batch_shape=(batch, recipe.image_size, recipe.image_size, 3), name=INPUT_NAME)
    if shape or recipe.network in SHAPES:
        features = _edge(image, shape or SHAPES[recipe.network], recipe)
    elif recipe.network == "classic-batchnorm":
        features = _classic(image, normalized=True)
    else:
        features = _classic(keras.layers.Rescaling(1 / 255, name="rescale")(image) if rescale else image)
    if recipe.dropout:
        features = StepDropout(recipe.dropout, name="dropout")(features)
    logits = keras.layers.Dense(classes, dtype="float32", name=OUTPUT_NAME)(features)  # also under mixed precision
    return keras.Model(image, logits, name=recipe.network)


def fold_rescaling(trained: keras.Model, recipe: Recipe, classes: int) -> keras.Model:
    """Return the network on raw 0..255 that computes what `trained` (built with `rescale`) computes."""
    plain = build(recipe, classes)
    plain.set_weights(trained.get_weights())
    if any(layer.name == "rescale" for layer in trained.layers):
        first = next(layer for layer in plain.layers if layer.weights)
        kernel, bias = first.get_weights()
        first.set_weights([kernel / 255, bias])
    return plain


def multiply_accumulates(model: keras.Model) -> int:
    """Return the multiply-accumulate operations of one inference (convolutions and dense layers)."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            total += int(layer.depthwise_kernel.shape.num_elements()) * layer.output_shape[1] * layer.output_shape[2]
        elif isinstance(layer, keras.layers.Conv2D):
            total += int(layer.kernel.shape.num_elements()) * layer.output_shape[1] * layer.output_shape[2]
        elif isinstance(layer, keras.layers.Dense):
            total += int(layer.kernel.shape.num_elements())
    return total


def _edge(image, shape: Shape, recipe: Recipe):
    """Return the pooled features of a network of depthwise-separable blocks.

    What goes around a block (He et al. 2016, "Deep Residual Learning for Image Recognition") is added after the block's ReLU6, not before it, and
    the sum ends in a ReLU6 too: so everything added and every sum has the range [0, 6], int8 stands on one grid all the
    way, and an addition costs no second rounding. Its runtimes then agree to the last bit, which they do not where a linear sum moves the scale.
    """
    x = keras.layers.Conv2D(_channels(shape.stem, recipe), shape.stem_kernel, strides=2, padding="same", use_bias=False, name="stem")(image)
    x = _normalize(x, "stem")
    for index, (channels, stride) in enumerate(shape.blocks, 1):
        around = x
        name = f"block{index}_depthwise"
        x = keras.layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False, name=name)(x)
        x = _normalize(x, name)
        name = f"block{index}_pointwise"
        x = keras.layers.Conv2D(_channels(channels, recipe), 1, use_bias=False, name=name)(x)
        x = _normalize(x, name)
        if shape.residual and x.shape == around.shape:
            x = keras.layers.Add(name=f"block{index}_add")([around, x])
            x = keras.layers.ReLU(6.0, name=f"block{index}_relu6")(x)
    return keras.layers.GlobalAveragePooling2D(name="pool")(x)


def _classic(x, *, normalized: bool = False):
    for index, channels in enumerate(CLASSIC_BLOCKS, 1):
        x = keras.layers.Conv2D(channels, 3, padding="same", use_bias=not normalized, name=f"conv{index}")(x)
        if normalized:
            x = keras.layers.BatchNormalization(name=f"conv{index}_bn")(x)  # with the defaults of Keras, as the notebooks do
        x = keras.layers.ReLU(name=f"conv{index}_relu")(x)
        x = keras.layers.MaxPooling2D(name=f"pool{index}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(CLASSIC_DENSE, name="dense")(x)
    return keras.layers.ReLU(name="dense_relu")(x)


def _normalize(x, name: str):
    x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-3, name=f"{name}_bn")(x)
    return keras.layers.ReLU(6.0, name=f"{name}_relu6")(x)


def _channels(base: int, recipe: Recipe) -> int:
    """Return `base` channels scaled by the recipe's width, rounded to a multiple of 8, at least 8."""
    return max(8, int(base * recipe.width / 8 + 0.5) * 8)
