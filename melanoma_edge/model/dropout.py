"""Dropout that remembers nothing: its mask follows from the step's seed and the place in the batch.

In: features and, from whoever trains, :func:`drawn`. Out: the features, some set to zero. No generator's state has to be
kept for a run to go on bit for bit after an interruption, and devices that share a batch drop what one device
alone would. Outside training the layer is not there: nothing of it stands in an exported file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import tensorflow as tf
import tf_keras as keras

_DRAW: ContextVar[tuple] = ContextVar("draw")


@contextlib.contextmanager
def drawn(seed: tf.Tensor, first: tf.Tensor, rows: int) -> Iterator[None]:
    """Say, while a network is called in training, what its dropout follows from.

    `seed` (int32 [2]) is the step's, the batch of the network's call begins at row `first` (int32 []) of a batch of `rows`.
    """
    token = _DRAW.set((seed, first, rows))
    try:
        yield
    finally:
        _DRAW.reset(token)


class StepDropout(keras.layers.Layer):
    """Set the share `rate` of the features to zero and enlarge the others by 1 / (1 - rate), in training.

    Two layers of a network with the same `salt` would drop the same. The mask is drawn for the whole batch, of which a device then takes its rows, by
    Philox: the same numbers on every device, but others under XLA, which deals them out in another order. Where a network is called in training outside of :func:`drawn`, TensorFlow's own generator gives the seed.
    """

    def __init__(self, rate: float, salt: int = 0, **options):
        super().__init__(**options)
        self.rate, self.salt = rate, salt

    def call(self, features, training=None):
        if not training or not self.rate:
            return features
        shape = tf.shape(features)
        seed, first, rows = _DRAW.get(None) or (tf.random.uniform([2], maxval=2**31 - 1, dtype=tf.int32), 0, shape[0])
        everywhere = tf.random.stateless_uniform(tf.concat([[rows], shape[1:]], axis=0), seed + [0, self.salt], alg="philox")
        kept = tf.slice(everywhere, tf.concat([[first], tf.zeros_like(shape[1:])], axis=0), shape) >= self.rate
        return features * tf.cast(kept, features.dtype) / tf.cast(1 - self.rate, features.dtype)

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "salt": self.salt}
