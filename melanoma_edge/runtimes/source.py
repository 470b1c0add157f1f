"""Models of others as they came, run by their own framework: what artifacts made from them are compared with.

In: a Keras file, or an ONNX file that may take batches of any size. Both packages are imported when a model is loaded, in a
worker process.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from melanoma_edge.model import keras_file
from melanoma_edge.model.tensorflow import require
from melanoma_edge.runtimes.protocol import Runtime, Signature, read_signature


class KerasFile(Runtime):
    """A Keras file's network in TensorFlow, after it was looked through for code."""

    name = "keras-file"

    def load(self, model: Path, threads: int) -> None:
        keras_file.inspect(model)
        require()
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        network = keras_file.load(model, self.contract.width if self.contract else None)
        _, height, width, _ = network.input_shape
        self.signature = Signature(height=height, width=width, dtype="float32", classes=network.output_shape[-1])
        specification = tf.TensorSpec((1, height, width, 3), tf.float32)
        self._network = tf.function(lambda batch: network(batch, training=False), input_signature=[specification])
        self._constant = tf.constant

    def prepare(self, image: np.ndarray) -> None:
        self._bound = self._constant(self.tensor(image))

    def invoke(self) -> None:
        self._given = self._network(self._bound)

    def output(self) -> np.ndarray:
        return self._given.numpy()[0]


class OnnxFile(Runtime):
    """An ONNX file in ONNX Runtime without the rewriting of its graph; the batch, and sides that are not fixed, are those of what is fed."""

    name = "onnx-file"

    def load(self, model: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._loaded = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        taken, given = self._loaded.get_inputs(), self._loaded.get_outputs()
        self._input = taken[0].name
        names = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}
        side = self.contract.width if self.contract else None
        inputs = [(_sized(value.shape, side), names.get(value.type, value.type)) for value in taken]
        classes = self._classes(inputs) if len(inputs) == 1 else 0
        self.signature = read_signature(model, inputs, [((1, classes), names.get(value.type, value.type)) for value in given])

    def _classes(self, inputs: list) -> int:
        """Return how many numbers come out, which symbolic shapes do not always say."""
        shape, dtype = inputs[0]
        if dtype not in ("float32", "uint8") or not all(isinstance(size, int) for size in shape):
            return 0
        found = self._loaded.run(None, {self._input: np.zeros(shape, dtype)})[0]
        return found.shape[1] if found.ndim == 2 else 0

    def prepare(self, image: np.ndarray) -> None:
        self._bound = self.tensor(image)

    def invoke(self) -> None:
        self._given = self._loaded.run(None, {self._input: self._bound})[0]

    def output(self) -> np.ndarray:
        return self._given[0]


def _sized(shape: list, side: int | None) -> list:
    """Return an input's shape with a batch of 1 and `side` where it leaves the numbers open."""
    fixed = [size if isinstance(size, int) else side for size in shape]
    return [1, *fixed[1:]] if shape and not isinstance(shape[0], int) else fixed
