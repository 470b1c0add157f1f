"""Keras (tf_keras), the reference that every artifact is compared with.

In: a run directory. Imports TensorFlow, so only a worker process loads this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from melanoma_edge.model.tensorflow import require

require()  # first: it decides what TensorFlow imports with it

import tensorflow as tf  # noqa: E402
import tf_keras as keras  # noqa: E402

from melanoma_edge.errors import BadInput  # noqa: E402
from melanoma_edge.model.quantize import output_grid  # noqa: E402
from melanoma_edge.model.run import load_keras  # noqa: E402
from melanoma_edge.runtimes.protocol import Runtime, Signature  # noqa: E402

BATCH = 64
LOOKED_AT_ONCE = 8
"""Pictures whose tensors of all layers are in memory together."""


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

    def tensors(self, model: Path, inputs: dict[str, np.ndarray], wanted: dict[str, list[str]]) -> tuple[dict[str, np.ndarray], dict]:
        """Return the outputs of layers: float32, or where the layer quantizes its output the int8 values of its grid.

        `wanted` is {name to give the output: candidates}, of which the last in the network counts.
        """
        network = load_keras(model, self._which)
        order = {layer.name: position for position, layer in enumerate(network.layers)}
        chosen = {}
        for name, candidates in wanted.items():
            known = [candidate for candidate in candidates if candidate in order]
            if not known:
                raise BadInput(f"the network has no layer {' or '.join(candidates) or name}: export the run again")
            chosen[name] = network.get_layer(max(known, key=order.__getitem__))
        look = keras.Model(network.input, [layer.output for layer in chosen.values()])
        grids = {name: output_grid(layer) for name, layer in chosen.items()}
        result: dict[str, np.ndarray] = {}
        [images] = inputs.values()
        for start in range(0, len(images), LOOKED_AT_ONCE):
            outputs = look(tf.constant(images[start : start + LOOKED_AT_ONCE].astype(np.float32)), training=False)
            for name, output in zip(chosen, outputs if len(chosen) > 1 else [outputs], strict=True):
                values = output.numpy()
                if grids[name] is not None:
                    scale, zero_point = grids[name]
                    values = np.clip(np.rint(values / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)
                if name not in result:
                    result[name] = np.empty((len(images), *values.shape[1:]), values.dtype)
                result[name][start : start + len(values)] = values
        return result, {name: {"tensor": layer.name, "grid": grids[name]} for name, layer in chosen.items()}

    def probe(self) -> dict[str, list[str]]:
        """Return the GPUs that TensorFlow sees."""
        return {"gpus": [device.name for device in tf.config.list_physical_devices("GPU")]}
