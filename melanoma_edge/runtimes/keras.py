"""Keras (tf_keras), the reference that every artifact is compared with.

In: a run directory. Imports TensorFlow, so only a worker process loads this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf

from melanoma_edge.model.run import load_keras
from melanoma_edge.runtimes.protocol import Runtime, Signature

BATCH = 64


class Keras(Runtime):
    """A run's network in TensorFlow: the float weights, or the fake-quantized ones of QAT."""

    name = "keras"

    def __init__(self, which: Literal["float", "qat"] = "float") -> None:
        self._which: Literal["float", "qat"] = which

    def load(self, model: Path, threads: int) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        network = load_keras(model, self._which)
        _, height, width, _ = network.input_shape
        self.signature = Signature(height=height, width=width, dtype="float32", classes=network.output_shape[-1])
        specification = tf.TensorSpec((None, height, width, 3), tf.float32)
        self._network = tf.function(lambda batch: network(batch, training=False), input_signature=[specification])

    def prepare(self, image: np.ndarray) -> None:
        self._bound = tf.constant(image[np.newaxis].astype(np.float32))

    def invoke(self) -> None:
        self._given = self._network(self._bound)

    def output(self) -> np.ndarray:
        return self._given.numpy()[0]

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return float32 [N, classes] for uint8 [N, height, width, 3], in batches of 64."""
        self.signature.check(images)
        result = np.empty((len(images), self.signature.classes), np.float32)
        for start in range(0, len(images), BATCH):
            batch = tf.constant(images[start : start + BATCH].astype(np.float32))
            result[start : start + BATCH] = self._network(batch).numpy()
        return result

    def probe(self) -> dict[str, list[str]]:
        """Return the GPUs that TensorFlow sees."""
        return {"gpus": [device.name for device in tf.config.list_physical_devices("GPU")]}
