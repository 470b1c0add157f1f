"""LiteRT (TensorFlow Lite) with its default XNNPACK kernels, as current phones run it.

In: a `.tflite` file. Imports ai_edge_litert, so only a worker process loads this module.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from melanoma_edge.runtimes.protocol import Runtime, read_signature


class LiteRT(Runtime):
    """The LiteRT interpreter on the CPU."""

    name = "litert"

    def load(self, model: Path, threads: int) -> None:
        self._interpreter = Interpreter(model_path=str(model), num_threads=threads)
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self.signature = read_signature(model, _described(inputs), _described(outputs))
        self._input, self._output = inputs[0]["index"], outputs[0]["index"]
        self._interpreter.allocate_tensors()

    def prepare(self, image: np.ndarray) -> None:
        self._interpreter.set_tensor(self._input, image[np.newaxis].astype(self.signature.dtype))

    def invoke(self) -> None:
        self._interpreter.invoke()

    def output(self) -> np.ndarray:
        return self._interpreter.get_tensor(self._output)[0]


def _described(details: list[dict]) -> list[tuple[list[int], str]]:
    """Return (shape, data type) of each tensor in the interpreter's own description."""
    return [(detail["shape"].tolist(), np.dtype(detail["dtype"]).name) for detail in details]
