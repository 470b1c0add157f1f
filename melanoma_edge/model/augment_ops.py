"""Augmentation of whole batches in TensorFlow: what a GPU does while the processor has other work.

In: a batch of pictures and its composed maps (:mod:`melanoma_edge.data.augment`, the same numbers that
`melanoma_edge.data.augment_pixels` works from). Out: the changed batch. Everything between the first byte and the
last is float32: rounding happens once, where the processor's way rounds after each stage. Positions are computed
and colours multiplied without matrix multiplications in float32, which GPUs may do with 10 bits (TF32); blur alone
uses them, and may be off by a quarter of a grey level there. JPEG has no sensible form here; the feed does
pictures that get it on the processor.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from melanoma_edge.data.augment import Composed, spline
from melanoma_edge.data.augment_pixels import blur_radius
from melanoma_edge.data.mixing import Mixture, neighbours


def apply(pictures: np.ndarray, maps: Composed) -> tf.Tensor:
    """Return `pictures` (uint8 [n, size, size, 3]) under their `maps`, as uint8 of the same shape.

    Samples that change in nothing come back byte for byte. Raises ValueError for pictures that are not square
    and for maps that hold JPEG.
    """
    count, height, width, _ = pictures.shape
    if height != width or (maps.height, maps.width) != (height, width):
        raise ValueError(f"expected square pictures and maps of their size, found {height} x {width} and {maps.height} x {maps.width}")
    if maps.quality.any():
        raise ValueError("JPEG is not done in TensorFlow: leave it to melanoma_edge.data.augment_pixels")
    values = {
        "pictures": pictures,
        "pixel": maps.pixel.astype(np.float32),
        "mean": maps.mean.astype(np.float32),
        "erase": maps.erase.astype(np.int32),
        "blurs": _blurs(maps.blur) if maps.blur.any() else None,
    }
    if maps.nodes is None:
        normal = maps.geometry / maps.geometry[:, 2:, 2:]
        return _projective(transforms=normal.reshape(count, 9)[:, :8].astype(np.float32), **values)
    return _elastic(nodes=maps.nodes, weights=spline(height).astype(np.float64), **values)


def mix(pictures: tf.Tensor, mixture: Mixture) -> tf.Tensor:
    """Return a batch (uint8 [rows, size, size, 3]) mixed as :func:`melanoma_edge.data.mixing.mix` does it; a grey level may round the other way."""
    return _mixed(pictures, neighbours(len(mixture.share)), mixture.blended, mixture.box.astype(np.int32))


@tf.function(reduce_retracing=True)
def _mixed(pictures, others, blended, box):
    own = tf.cast(pictures, tf.float32)
    partner = tf.gather(own, others)
    places = tf.range(tf.shape(own)[1])
    top, bottom, left, right = tf.unstack(box[:, None, :], axis=2)
    down, across = (places >= top) & (places < bottom), (places >= left) & (places < right)
    weight = tf.where(down[:, :, None] & across[:, None, :], 1.0, blended[:, None, None])[..., None]
    return tf.cast(tf.round((1 - weight) * own + weight * partner), tf.uint8)


@tf.function(reduce_retracing=True)
def _projective(transforms, pictures, **values):
    size = tf.shape(pictures)[1:3]
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(pictures, tf.float32), transforms=transforms, output_shape=size, fill_value=0.0, interpolation="BILINEAR", fill_mode="REFLECT"
    )
    return _finished(moved, **values)


@tf.function(reduce_retracing=True)
def _elastic(nodes, weights, pictures, **values):
    x, y, w = tf.unstack(tf.einsum("yr,nkrc,xc->nkyx", weights, nodes, weights), axis=1)  # float64: positions need its digits
    return _finished(_sampled(tf.cast(pictures, tf.float32), tf.cast(x / w, tf.float32), tf.cast(y / w, tf.float32)), **values)


def _sampled(pictures, x, y):
    """Return `pictures` at the positions x, y (float32 [n, size, size]), bilinearly, mirrored beyond the edge."""
    size = tf.shape(pictures)[1]
    left, top = tf.floor(x), tf.floor(y)
    right, down = (x - left)[..., None], (y - top)[..., None]

    def at(row, column):
        places = [tf.minimum(place, 2 * size - 1 - place) for place in (tf.math.floormod(tf.cast(i, tf.int32), 2 * size) for i in (row, column))]
        return tf.gather_nd(pictures, tf.stack(places, axis=-1), batch_dims=1)

    upper = at(top, left) * (1 - right) + at(top, left + 1) * right
    lower = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
    return upper * (1 - down) + lower * down


def _finished(moved, pixel, mean, blurs, erase):
    """Return colours, blur and erasing applied to `moved` (float32 [n, size, size, 3]), as uint8."""
    size = tf.shape(moved)[1]
    changed = tf.reduce_sum(mean * tf.reduce_mean(moved, axis=(1, 2))[:, None], axis=-1)[:, None, None]
    for channel in range(3):
        changed += moved[..., channel, None] * pixel[:, None, None, :, channel]
    changed = tf.clip_by_value(changed, 0.0, 255.0)
    if blurs is not None:
        kernels = _kernels(blurs, size)
        changed = tf.einsum("nyr,nrcj,nxc->nyxj", kernels, changed, kernels)
    top, left, side = (erase[:, i, None] for i in range(3))
    places = tf.range(size)[None]
    rows, columns = (places >= top) & (places < top + side), (places >= left) & (places < left + side)
    square = (rows[:, :, None] & columns[:, None])[..., None]
    changed = tf.where(square, tf.reduce_mean(changed, axis=(1, 2), keepdims=True), changed)
    return tf.cast(tf.round(changed), tf.uint8)


def _blurs(deviations: np.ndarray) -> np.ndarray:
    """Return each Gaussian's standard deviation, reach in pixels and sum of weights (float32 [n, 3]); none reaches nothing."""
    found = np.ones((len(deviations), 3), np.float32)
    found[:, 1] = 0
    for row, deviation in zip(found, deviations):
        if deviation > 0:
            radius = blur_radius(deviation)
            row[:] = deviation, radius, np.exp(-((np.arange(-radius, radius + 1) / deviation) ** 2) / 2).sum()
    return found


def _kernels(blurs, size):
    """Return blurring as matrices (float32 [n, size, size]) for rows or columns, the mirror beyond the edge folded in."""
    place = tf.range(tf.cast(size, tf.float32))
    here, there = place[:, None], place[None]
    deviation, radius, total = (blurs[:, i, None, None] for i in range(3))

    def weight(distance):
        return tf.where(tf.abs(distance) <= radius, tf.exp(-tf.square(distance / deviation) / 2), 0.0)

    mirrored = weight(here + there + 1) + weight(2 * tf.cast(size, tf.float32) - 1 - here - there)
    return (weight(here - there) + mirrored) / total
