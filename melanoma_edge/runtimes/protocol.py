"""What a runtime is, and the one table of the runtimes that there are.

In: a model file and uint8 pictures of the input contract. Out: float32 logits. Everything here is
light: the module that a table entry names imports the heavy package, and only a worker process
(:mod:`melanoma_edge.runtimes.worker`) loads that module.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from melanoma_edge.contract import InputContract, Quantization
from melanoma_edge.data import input_table
from melanoma_edge.errors import BadInput, Error, Missing
from melanoma_edge.runtimes.places import Place


class RuntimeFailed(Error):
    """A runtime that is there could not run a model: it refused it, crashed or hung."""

    exit_code = 2


class Unsupported(RuntimeFailed):
    """A runtime that is there knows an operator, a version or a type of the model not: another release of it may."""


LACKING = (
    "didn't find op for builtin opcode",
    "unresolved custom op",
    "select tensorflow op",
    "unresolved op",
    "not_implemented",
    "could not find an implementation",
    "is not a registered function/op",
    "unsupported model ir version",
    "is under development and support for this is limited",
)
"""What LiteRT, ONNX Runtime and their builds for the web say, in small letters, where they lack an operator or are too old for a file."""


@dataclass(frozen=True)
class Signature:
    """What a loaded model takes and gives: a picture of `dtype`, its axes in the order of `layout`, to logits [1, classes]."""

    height: int
    width: int
    dtype: str
    classes: int
    layout: str = "NHWC"
    quantization: Quantization | None = None
    """Of an integer input, where the file states it."""

    def tensor(self, image: np.ndarray) -> np.ndarray:
        """Return the model's input for a picture (uint8 [height, width, 3]): a batch of one, contiguous, the same numbers."""
        ordered = image if self.layout == "NHWC" else image.transpose(2, 0, 1)
        return np.ascontiguousarray(ordered[np.newaxis], dtype=self.dtype)

    def check(self, images: np.ndarray) -> None:
        """Raise BadInput unless `images` is uint8 [N, height, width, 3]."""
        if images.dtype != np.uint8 or images.shape[1:] != (self.height, self.width, 3):
            raise BadInput(
                f"the model takes pictures of {self.height} x {self.width} x 3 uint8, got "
                f"{' x '.join(map(str, images.shape[1:]))} {images.dtype}: resize them to the model's input"
            )


class Runtime(Protocol):
    """One inference engine with one model loaded.

    `prepare` binds a picture and `output` reads the logits, so that timing `invoke` alone times the
    inference alone. Float models get the bytes' numbers as float32, uint8 models the bytes, unless :attr:`contract` says otherwise.
    """

    name: str
    contract: InputContract | None = None
    """What models take that do not take the bytes as they are."""
    signature: Signature
    settings: Mapping[str, str] = {}
    """What this machine needs and an application on one like it has to set too, by the package's own names."""

    def load(self, model: Path, threads: int) -> None:
        """Load `model` for `threads` threads and set :attr:`signature`; raises BadInput for a foreign one."""
        ...

    def prepare(self, image: np.ndarray) -> None:
        """Bind the picture, uint8 [height, width, 3], as the next input."""
        ...

    def invoke(self) -> None:
        """Run the model on the bound picture."""
        ...

    def output(self) -> np.ndarray:
        """Return the logits, float32 [classes], of the last :meth:`invoke`."""
        ...

    def tensor(self, image: np.ndarray) -> np.ndarray:
        """Return a picture, uint8 [height, width, 3], as the loaded model takes it: a batch of one."""
        taken, contract = self.signature, self.contract or InputContract(width=self.signature.width, height=self.signature.height)
        if contract.raw and taken.dtype != "int8" and taken.quantization in (None, Quantization(scale=1.0, zero_point=0)):
            return taken.tensor(image)
        values = input_table.table(contract, taken.dtype, taken.quantization)
        return input_table.look_up(image[np.newaxis], values, channels=contract.channels, layout=taken.layout)

    def tensors(self, model: Path, inputs: dict[str, np.ndarray], wanted: dict[str, list[str]]) -> tuple[dict[str, np.ndarray], dict]:
        """Return every output of `model`, {name: [N, ...]}, for `inputs` {name: [N, ...]}, one picture at a time, and facts.

        On one thread. Runtimes that do not define it cannot be looked into.
        """
        raise RuntimeFailed(f"{self.name} gives logits only: leave it out of --layers")

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return float32 [N, classes] for uint8 [N, height, width, 3], one picture at a time."""
        self.signature.check(images)
        result = np.empty((len(images), self.signature.classes), np.float32)
        for row, image in zip(result, images, strict=True):
            self.prepare(image)
            self.invoke()
            row[:] = self.output()
        return result


@dataclass(frozen=True)
class Entry:
    """One row of the table: where a runtime's class is, what it needs and what it runs."""

    module: str
    class_name: str
    formats: tuple[str, ...]
    """`tflite` and `onnx` are artifacts of a bundle; `run` is a run directory; `keras-file` and `onnx-file` are models of others before anything was done to them."""
    imports: tuple[str, ...]
    """Top-level packages that must be importable."""
    packages: tuple[str, ...]
    """Distributions that bring them; the first one that is installed gives the version."""
    requirement: str
    """What pip installs to get it."""
    gpu: bool = False
    """Whether it computes on a GPU. The others never see one, so that they give the same numbers everywhere."""
    place: Place = "here"
    peer: str | None = None
    """The runtime that ran the same file on this machine, with which this one has to agree."""
    by_default: bool = True
    """Whether it runs unless something else is asked for; what is slow, or needs setting up, does not."""

    @property
    def install(self) -> str:
        """The command that gets what is missing."""
        return f'pip install "{self.requirement}"' if self.place == "here" else f"melanoma-edge setup {self.place}"

    @property
    def runs_artifacts(self) -> bool:
        """Whether it runs artifacts of a bundle, not what they were made from."""
        return not {"tflite", "onnx"}.isdisjoint(self.formats)

    @property
    def group(self) -> str:
        """What several runtimes are asked for by together: their place, `kernels`, or `here`."""
        return self.place if self.place != "here" else "kernels" if self.peer else "here"



def _elsewhere(place: Place, module: str, class_name: str, taken: str) -> Entry:
    """Return the row of a runtime that computes in another place than this machine."""
    return Entry(
        module=f"melanoma_edge.runtimes.{module}",
        class_name=class_name,
        formats=(taken,),
        imports=(),
        packages=(),
        requirement="",
        place=place,
        peer="litert" if taken == "tflite" else "onnxruntime",
        by_default=False,
    )


BESIDE = "beside"
"""What the untouched model's logits are called among the tensors of a copy of it."""

_LITERT = Entry(
    module="melanoma_edge.runtimes.litert",
    class_name="LiteRT",
    formats=("tflite",),
    imports=("ai_edge_litert",),
    packages=("ai-edge-litert",),
    requirement="ai-edge-litert>=2.3,<2.4",
)
_ONNXRUNTIME = Entry(
    module="melanoma_edge.runtimes.ort",
    class_name="OnnxRuntime",
    formats=("onnx",),
    imports=("onnxruntime",),
    packages=("onnxruntime-gpu", "onnxruntime"),
    requirement="onnxruntime==1.26.*",
)
_KERNELS = replace(_LITERT, peer="litert", by_default=False)

RUNTIMES: dict[str, Entry] = {
    "litert": _LITERT,
    "litert-builtin": replace(_KERNELS, class_name="LiteRTBuiltin"),
    "litert-reference": replace(_KERNELS, class_name="LiteRTReference"),
    "onnxruntime": _ONNXRUNTIME,
    "onnxruntime-cuda": Entry(
        module="melanoma_edge.runtimes.ort",
        class_name="OnnxRuntimeCuda",
        formats=("onnx",),
        imports=("onnxruntime",),
        packages=("onnxruntime-gpu",),
        requirement="onnxruntime-gpu[cuda,cudnn]==1.26.*",
        gpu=True,
    ),
    "keras": Entry(
        module="melanoma_edge.runtimes.keras",
        class_name="Keras",
        formats=("run",),
        imports=("tensorflow", "tf_keras", "tensorflow_model_optimization"),
        packages=("tensorflow",),
        requirement="melanoma-edge[train]",
    ),
    "keras-file": Entry(
        module="melanoma_edge.runtimes.source",
        class_name="KerasFile",
        formats=("keras-file",),
        imports=("tensorflow", "tf_keras"),
        packages=("tensorflow",),
        requirement="melanoma-edge[train]",
    ),
    "onnx-file": replace(_ONNXRUNTIME, module="melanoma_edge.runtimes.source", class_name="OnnxFile", formats=("onnx-file",)),
    "litert-arm64": _elsewhere("arm64", "litert", "LiteRT", "tflite"),
    "onnxruntime-arm64": _elsewhere("arm64", "ort", "OnnxRuntime", "onnx"),
    "litert-browser": _elsewhere("browser", "browser_page", "LiteRTBrowser", "tflite"),
    "onnxruntime-browser": _elsewhere("browser", "browser_page", "OnnxRuntimeBrowser", "onnx"),
}


def asked(names: Sequence[str]) -> list[str]:
    """Return the runtimes of artifacts that `names` stand for, in the table's order: names of runtimes or groups, or `all`.

    Without names: those that run by default. Raises BadInput that lists what there is.
    """
    artifacts = {name: row for name, row in RUNTIMES.items() if row.runs_artifacts}
    groups = sorted({row.group for row in artifacts.values()} - {"here"})
    for name in names:
        if name not in (*artifacts, *groups, "all"):
            raise BadInput(f"there is no runtime {name!r}: expected some of {', '.join([*artifacts, *groups, 'all'])}")
    if not names:
        return [name for name, row in artifacts.items() if row.by_default]
    return [name for name, row in artifacts.items() if "all" in names or name in names or row.group in names]


def entry(name: str) -> Entry:
    """Return the table's row for the runtime `name`; raises BadInput that lists what there is."""
    if name not in RUNTIMES:
        raise BadInput(f"there is no runtime {name!r}: expected one of {', '.join(RUNTIMES)}")
    return RUNTIMES[name]


def create(name: str, options: dict[str, str], contract: InputContract | None = None) -> Runtime:
    """Import the runtime `name` and return it without a model (heavy: for worker processes).

    `contract` says what its models take; None, the bytes as they are.
    """
    row = entry(name)
    try:
        made = getattr(importlib.import_module(row.module), row.class_name)(**options)
    except ImportError as error:
        raise Missing(f"{name} cannot be imported ({one_line(error)}): {row.install}") from None
    made.contract = contract
    return made


def load(runtime: Runtime, model: Path, threads: int) -> None:
    """Load `model` into `runtime`; whatever its package raises becomes a RuntimeFailed of one line."""
    try:
        runtime.load(model, threads)
    except Error:
        raise
    except Exception as error:
        lacking = any(words in str(error).lower() for words in LACKING)
        raise (Unsupported if lacking else RuntimeFailed)(f"{runtime.name} cannot load {model.name}: {one_line(error)}; export it again or give another file") from None


def stack(rows: Iterable[Mapping[str, np.ndarray]], count: int) -> dict[str, np.ndarray]:
    """Return {name: [count, ...]} of `count` rows {name: [1, ...]}, held once in memory."""
    result: dict[str, np.ndarray] = {}
    for position, row in enumerate(rows):
        for name, value in row.items():
            if name not in result:
                result[name] = np.empty((count, *value.shape[1:]), value.dtype)
            result[name][position] = value[0]
    return result


def read_signature(
    model: Path,
    inputs: Sequence[tuple[Sequence[int | str | None], str]],
    outputs: Sequence[tuple[Sequence[int | str | None], str]],
    quantization: Quantization | None = None,
) -> Signature:
    """Return the signature of a model with these (shape, data type) pairs; `quantization` is that of its input.

    Raises BadInput unless there is one input [1, H, W, 3] or [1, 3, H, W] of uint8, int8 with a quantization or
    float32, and one output [1, K] of float32, all sizes fixed. Where both layouts fit it is NHWC.
    """
    if len(inputs) == 1 and len(outputs) == 1:
        (taken, dtype), (given, kind) = inputs[0], outputs[0]
        fixed = all(isinstance(size, int) and size > 0 for size in (*taken, *given))
        known = dtype in ("uint8", "float32") or (dtype == "int8" and quantization is not None)
        if fixed and known and kind == "float32" and len(taken) == 4 and len(given) == 2 and (taken[0], given[0]) == (1, 1):
            common = {"dtype": dtype, "classes": given[1], "quantization": None if dtype == "float32" else quantization}
            if taken[3] == 3:
                return Signature(height=taken[1], width=taken[2], **common)
            if taken[1] == 3:
                return Signature(height=taken[2], width=taken[3], layout="NCHW", **common)
    found = " to ".join("; ".join(f"{list(shape)} {dtype}" for shape, dtype in side) or "nothing" for side in (inputs, outputs))
    raise BadInput(
        f"{model.name} maps {found}: expected one input [1, height, width, 3] or [1, 3, height, width] of uint8 or float32 and one output "
        "[1, classes] float32; convert it to that form"
    )


def one_line(error: BaseException, limit: int = 300) -> str:
    """Return an exception's message as one printable line of at most `limit` characters: damaged files put anything into messages."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
    return text if len(text) <= limit else text[: limit - 3] + "..."
