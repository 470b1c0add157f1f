"""LiteRT (TensorFlow Lite) with each of its three families of CPU kernels.

Current phones run XNNPACK, the default delegate. Where an application or an old runtime leaves it out, the
built-in kernels run; the reference kernels are what microcontrollers and new ports begin with. They round
int8 differently: XNNPACK requantizes in float32, to even, the others in fixed point.

In: a `.tflite` file. Imports ai_edge_litert, so only a worker process loads this module.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from melanoma_edge.contract import Quantization
from melanoma_edge.runtimes.protocol import Runtime, read_signature, stack


class LiteRT(Runtime):
    """The LiteRT interpreter on the CPU, with XNNPACK."""

    name = "litert"
    kernels = OpResolverType.AUTO

    def load(self, model: Path, threads: int) -> None:
        self._interpreter = Interpreter(model_path=str(model), num_threads=threads, experimental_op_resolver_type=self.kernels)
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self.signature = read_signature(model, _described(inputs), _described(outputs, real=True), _quantization(inputs[0]) if inputs else None)
        self._input, self._output = inputs[0]["index"], outputs[0]["index"]
        self._quantized = _quantization(outputs[0])
        self._interpreter.allocate_tensors()

    def prepare(self, image: np.ndarray) -> None:
        self._interpreter.set_tensor(self._input, self.tensor(image))

    def invoke(self) -> None:
        self._interpreter.invoke()

    def output(self) -> np.ndarray:
        found = self._interpreter.get_tensor(self._output)[0]
        if self._quantized is None:
            return found
        return ((found.astype(np.float64) - self._quantized.zero_point) * self._quantized.scale).astype(np.float32)

    def tensors(self, model: Path, inputs: dict[str, np.ndarray], wanted: dict[str, list[str]]) -> tuple[dict[str, np.ndarray], dict]:
        interpreter = Interpreter(model_path=str(model), num_threads=1, experimental_op_resolver_type=self.kernels)
        interpreter.allocate_tensors()
        taken = {detail["name"]: detail for detail in interpreter.get_input_details()}
        given = {detail["name"]: detail["index"] for detail in interpreter.get_output_details()}

        def run(position: int) -> dict[str, np.ndarray]:
            for name, detail in taken.items():
                interpreter.set_tensor(detail["index"], inputs[name][position][np.newaxis].astype(detail["dtype"], copy=False))
            interpreter.invoke()
            return {name: interpreter.get_tensor(index) for name, index in given.items()}

        count = len(next(iter(inputs.values())))
        return stack(map(run, range(count)), count), {}


class LiteRTBuiltin(LiteRT):
    """The built-in optimized kernels, without any delegate."""

    name = "litert-builtin"
    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


class LiteRTReference(LiteRT):
    """The reference kernels: plain loops, slow."""

    name = "litert-reference"
    kernels = OpResolverType.BUILTIN_REF


def input_quantization(model: Path) -> Quantization | None:
    """Return that of the model's first input, None where it has none."""
    return _quantization(Interpreter(model_path=str(model)).get_input_details()[0])


def _described(details: list[dict], *, real: bool = False) -> list[tuple[list[int], str]]:
    """Return (shape, data type) of each tensor in the interpreter's own description; `real` calls quantized ones float32, as :meth:`LiteRT.output` gives them."""
    return [
        (detail["shape"].tolist(), "float32" if real and _quantization(detail) is not None else np.dtype(detail["dtype"]).name) for detail in details
    ]


def _quantization(detail: dict) -> Quantization | None:
    """Return scale and zero point of a uint8 or int8 tensor that has them."""
    scale, zero_point = detail["quantization"]
    return Quantization(scale=float(scale), zero_point=int(zero_point)) if scale and np.dtype(detail["dtype"]).name in ("uint8", "int8") else None
