"""Where in a picture a network finds what it answers: Grad-CAM maps.

In: a Keras network (float or quantization-aware) and pictures. Out: one coarse map a picture. A map says which places raised
the logit of a class; it does not say why, nor that a doctor would look there.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tf_keras as keras

from melanoma_edge.data.pictures import Pictures

BATCH = 32


def activation_maps(network: keras.Model, pictures: Pictures | np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return what speaks for the class `classes[i]` (int [n]) in `pictures[i]` (uint8 [n, size, size, 3]), uint8 [n, rows, columns].

    0 where nothing does, 255 at each picture's strongest place; all 0 for a picture in which nothing speaks for the class.
    Rows and columns are those of the last feature map, 6 x 6 for 176 pixels in the default network: a cell stands for
    an area, and what it sees reaches beyond that.

    Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization": the feature maps
    weighted by the mean gradient of the class's logit, and of their sum what is above zero.
    """
    features = next(layer.output for layer in reversed(network.layers) if len(layer.output.shape) == 4)
    probe = keras.Model(network.input, [features, network.output])

    @tf.function(reduce_retracing=True)
    def maps_of(batch, wanted):
        inputs = tf.cast(batch, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(inputs)  # so that all between them and the logits is on the tape, also where no weight trains
            maps, logits = probe(inputs, training=False)
            score = tf.reduce_sum(tf.gather(logits, wanted, batch_dims=1))
        weights = tf.reduce_mean(tape.gradient(score, maps), axis=(1, 2), keepdims=True)
        found = tf.nn.relu(tf.reduce_sum(maps * weights, axis=3))
        return tf.math.divide_no_nan(found, tf.reduce_max(found, axis=(1, 2), keepdims=True))

    starts = range(0, len(pictures), BATCH)
    found = [maps_of(tf.constant(pictures[i : i + BATCH]), tf.constant(classes[i : i + BATCH], tf.int32)).numpy() for i in starts]
    return np.rint(np.concatenate(found) * 255).astype(np.uint8)
