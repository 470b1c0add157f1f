"""ONNX Runtime on the CPU and on CUDA.

In: an `.onnx` file. Imports onnxruntime, so only a worker process loads this module.

All graph optimizations are on, operators run one after another, and `threads` counts the threads
inside an operator. `session.intra_op.allow_spinning` keeps its default (on): with more than one
thread the pool's threads spin for a moment after a run, which is what an application gets too.

x86 processors without VNNI multiply uint8 by int8 with `vpmaddubsw`, which adds pairs of products in
16 bits and saturates: on an emulated Haswell 90 % of a trained network's logits were off, by up to 27
quanta. There, and only there, sessions get EXACT_INTEGERS, which is slower and exact; on other
processors it costs time and changes nothing.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime

from melanoma_edge.contract import EXACT_INTEGERS
from melanoma_edge.errors import Error, Missing
from melanoma_edge.runtimes.protocol import RUNTIMES, Runtime, read_signature, stack

CUDA = "CUDAExecutionProvider"
_QUIET = 3
"""onnxruntime's severity from which on it logs: errors. It raises what it logs there."""

_PREAMBLE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : (\w+) : (?:Load model from .*? failed:)?(?:/onnxruntime_src/.*\) )?")
"""What its messages begin with: a code, the file's path and a place in its own source."""
_NAMES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}
_NUMPY = _NAMES | {"tensor(int8)": "int8"}


class OnnxRuntime(Runtime):
    """ONNX Runtime's CPU provider."""

    name = "onnxruntime"

    @functools.cached_property
    def settings(self) -> dict[str, str]:
        return EXACT_INTEGERS if saturates() else {}

    def _session(self, model: str | bytes, threads: int) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(model, session_options(threads, self.settings), providers=["CPUExecutionProvider"])

    def load(self, model: Path, threads: int) -> None:
        try:
            self._loaded = self._session(str(model), threads)
        except Error:
            raise
        except Exception as error:
            raise ValueError(_PREAMBLE.sub(r"\1: ", str(error), count=1)) from None
        inputs, outputs = self._loaded.get_inputs(), self._loaded.get_outputs()
        self.signature = read_signature(model, _described(inputs), _described(outputs))
        self._input = inputs[0].name
        self._binding = self._loaded.io_binding()
        self._binding.bind_output(outputs[0].name)

    def prepare(self, image: np.ndarray) -> None:
        self._bound = self.tensor(image)
        self._binding.bind_cpu_input(self._input, self._bound)

    def invoke(self) -> None:
        self._loaded.run_with_iobinding(self._binding)

    def output(self) -> np.ndarray:
        return self._binding.copy_outputs_to_cpu()[0][0]

    def tensors(self, model: Path, inputs: dict[str, np.ndarray], wanted: dict[str, list[str]]) -> tuple[dict[str, np.ndarray], dict]:
        session = self._session(str(model), 1)
        taken = {argument.name: np.dtype(_NUMPY[argument.type]) for argument in session.get_inputs()}
        given = [argument.name for argument in session.get_outputs()]

        def run(position: int) -> dict[str, np.ndarray]:
            feed = {name: inputs[name][position][np.newaxis].astype(dtype, copy=False) for name, dtype in taken.items()}
            return dict(zip(given, session.run(given, feed), strict=True))

        count = len(next(iter(inputs.values())))
        return stack(map(run, range(count)), count), {}

    def census(self, model: Path, folder: Path) -> dict[str, int]:
        """Return {operator: count} of the graph that sessions run, which is written to `folder` to be read back."""
        import onnx

        options = session_options(1, self.settings)
        options.optimized_model_filepath = str(folder / "optimized.onnx")
        onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(options.optimized_model_filepath).graph
        return dict(sorted(Counter(node.op_type for node in graph.node).items()))


class OnnxRuntimeCuda(OnnxRuntime):
    """ONNX Runtime's CUDA provider, in full float32 (TF32 off); refuses to fall back to the CPU.

    Binding a picture copies it to the GPU, so `invoke` times the inference and the logits' way back.
    """

    name = "onnxruntime-cuda"

    def _session(self, model: str | bytes, threads: int) -> onnxruntime.InferenceSession:
        install = RUNTIMES[self.name].install
        if CUDA not in onnxruntime.get_available_providers():
            raise Missing(f"this onnxruntime {onnxruntime.__version__} was built without CUDA: {install}")
        onnxruntime.preload_dlls()
        session = onnxruntime.InferenceSession(model, session_options(threads, self.settings), providers=[(CUDA, {"use_tf32": "0"}), "CPUExecutionProvider"])
        if CUDA not in session.get_providers():
            raise Missing(f"onnxruntime {onnxruntime.__version__} fell back to the CPU, its CUDA libraries or the GPU driver are missing: {install}")
        return session

    def probe(self) -> dict[str, list[str]]:
        """Return the providers of a session on a model of one operator; raises Missing without CUDA."""
        from onnx import TensorProto, helper

        value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", value[:1], value[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return {"providers": self._session(model.SerializeToString(), 1).get_providers()}


_KNOWN_ANSWER = (
    b'\x08\x08:X\n\x18\n\x01a\n\x01w\x12\x01p"\rMatMulInteger\x12\x01s'
    b'*\x0f\x08\x04\x08\x01\x10\x03B\x01wJ\x04\x7f\x7f\x7f\x7fZ\x13\n\x01a\x12\x0e\n\x0c\x08\x02\x12\x08\n\x02\x08'
    b'\x01\n\x02\x08\x04b\x13\n\x01p\x12\x0e\n\x0c\x08\x06\x12\x08\n\x02\x08\x01\n\x02\x08\x01B\x04\n\x00\x10\x11'
)
"""An ONNX model that multiplies uint8 [1, 4] by four int8 weights of 127 (MatMulInteger, opset 17). Bytes rather than
a call of the onnx package, whose import would count in every measurement of time and memory."""


@functools.cache
def saturates() -> bool:
    """Return whether this processor's uint8 by int8 kernels lose what does not fit into 16 bits.

    Found out by multiplying: CPU flags are hidden by some systems and emulators.
    """
    session = onnxruntime.InferenceSession(_KNOWN_ANSWER, session_options(1, {}), providers=["CPUExecutionProvider"])
    return int(session.run(None, {"a": np.full((1, 4), 255, np.uint8)})[0].item()) != 4 * 255 * 127


def session_options(threads: int, settings: dict[str, str]) -> onnxruntime.SessionOptions:
    """Return the session options that every measurement uses, and `settings` on top."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    for key, value in settings.items():
        options.add_session_config_entry(key, value)
    return options


def _described(arguments: list[onnxruntime.NodeArg]) -> list[tuple[list[int | str | None], str]]:
    """Return (shape, data type) of each argument, the type by numpy's name."""
    return [(argument.shape, _NAMES.get(argument.type, argument.type)) for argument in arguments]
