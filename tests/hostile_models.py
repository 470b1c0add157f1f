"""Model files as they may come from strangers: damaged ones, and sound ones of another form.

Loading them can crash or hang a process, so :func:`survey` hands each to the real worker in a process of its own, forked
from one that has imported the runtime already: milliseconds a file instead of a second.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from tiny_bundle import SIZE, onnx, pictures, tflite

SECONDS = 20
"""A file that takes more of the processor's time counts as hanging; the tool itself waits longer."""
MEMORY = 6 << 30
"""Address space of a process that works on one file: damaged sizes ask for terabytes."""


@dataclass(frozen=True)
class Outcome:
    """What became of one file."""

    file: str
    kind: str
    """`logits`, the name of an error, or the signal that ended the process."""
    message: str = ""


def damaged(content: bytes, flips: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes): cut at every 1 % of the length, then `flips` copies with 1 to 8 bits flipped at random places."""
    for percent in range(100):
        yield f"cut at {percent} %", content[: len(content) * percent // 100]
    dice = random.Random(seed)
    for number in range(flips):
        spoiled = bytearray(content)
        for _ in range(dice.choice((1, 1, 2, 8))):
            spoiled[dice.randrange(len(spoiled))] ^= 1 << dice.randrange(8)
        yield f"flip {number}", bytes(spoiled)


def foreign() -> dict[str, bytes]:
    """Return {file name: bytes} of sound models that are none of ours: other shapes, types, inputs and outputs."""
    kinds = {"float": TensorProto.FLOAT, "int64": TensorProto.INT64, "double": TensorProto.DOUBLE, "string": TensorProto.STRING}

    def model(nodes, inputs, outputs, constants=(), opset: int = 17, domain: str = "") -> bytes:
        described = [[helper.make_tensor_value_info(name, kinds[kind], shape) for name, kind, shape in side] for side in (inputs, outputs)]
        graph = helper.make_graph(nodes, "theirs", *described, list(constants))
        opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()

    image = ("image", "float", (1, SIZE, SIZE, 3))
    mean = helper.make_node("ReduceMean", ["image"], ["logits"], axes=[1, 2], keepdims=0)
    add = helper.make_node("Add", ["a", "b"], ["logits"])
    weights = numpy_helper.from_array(np.zeros((1, 2**20), np.float32), "w")
    return {
        "four channels.onnx": onnx("float32", (1, 4, SIZE, SIZE)),
        "dynamic.onnx": onnx("uint8", ("N", SIZE, SIZE, 3)),
        "batch of 8.onnx": onnx("uint8", (8, SIZE, SIZE, 3)),
        "flat.tflite": tflite("float32", (1, SIZE * SIZE * 3)),
        "grey.tflite": tflite("uint8", (1, SIZE, SIZE * 3, 1)),
        "other size.onnx": model([mean], [("image", "float", (1, 8, 8, 3))], [("logits", "float", (1, 3))]),
        "two inputs.onnx": model([add], [("a", "float", (1, 3)), ("b", "float", (1, 3))], [("logits", "float", (1, 3))]),
        "two outputs.onnx": model([mean, helper.make_node("Relu", ["logits"], ["more"])], [image], [("logits", "float", (1, 3)), ("more", "float", (1, 3))]),
        "words.onnx": model([helper.make_node("Identity", ["image"], ["logits"])], [("image", "string", (1, 3))], [("logits", "string", (1, 3))]),
        "double.onnx": model([helper.make_node("Identity", ["image"], ["logits"])], [("image", "double", (1, 3))], [("logits", "double", (1, 3))]),
        "a whole picture.onnx": model([helper.make_node("Identity", ["image"], ["logits"])], [image], [("logits", "float", (1, SIZE, SIZE, 3))]),
        "nothing.onnx": model([], [], []),
        "unknown operator.onnx": model([helper.make_node("Theirs", ["image"], ["logits"], domain="theirs")], [image], [("logits", "float", (1, 3))], domain="theirs"),
        "later opset.onnx": model([mean], [image], [("logits", "float", (1, 3))], opset=99),
        "missing weights.onnx": model([helper.make_node("MatMul", ["image", "nowhere"], ["logits"])], [image], [("logits", "float", (1, 3))]),
        "lying shape.onnx": model([mean], [image], [("logits", "float", (1, 7))]),
        "huge.onnx": model([helper.make_node("Tile", ["w", "n"], ["logits"])], [image], [("logits", "float", (1, None))], [weights, numpy_helper.from_array(np.array([1, 2**30]), "n")]),
        "outside weights.onnx": _outside(),
        "a picture.onnx": b"\x89PNG\r\n\x1a\n" + bytes(500),
        "a picture.tflite": b"\x89PNG\r\n\x1a\n" + bytes(500),
        "onnx.tflite": onnx("uint8"),
        "tflite.onnx": tflite("uint8"),
        "empty.tflite": b"",
        "empty.onnx": b"",
        "only the mark.tflite": b"\x1c\0\0\0TFL3" + bytes(64),
        "endless offsets.tflite": b"\xff\xff\xff\x7fTFL3" + b"\xff" * 64,
    }


def _outside() -> bytes:
    """Return a model whose weights are said to stand in a file outside of its folder."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "../../../../etc/passwd"), ("offset", "0"), ("length", "12")):
        tensor.external_data.add(key=key, value=value)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, SIZE, SIZE, 3))
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, (1, 3))
    nodes = [helper.make_node("ReduceMean", ["image"], ["m"], axes=[1, 2], keepdims=0), helper.make_node("Add", ["m", "w"], ["logits"])]
    graph = helper.make_graph(nodes, "theirs", [image], [logits], [tensor])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def survey(runtime: str, folder: Path, files: Sequence[str], images: np.ndarray | None = None, seconds: int = SECONDS) -> list[Outcome]:
    """Return what became of each of `files` in `folder` when the worker of `runtime` ran it on `images`, in their order."""
    images = pictures(1) if images is None else images
    np.save(folder / "images.npy", images)
    (folder / "files.json").write_text(json.dumps(list(files)), encoding="utf-8")
    command = [sys.executable, "-P", "-X", "faulthandler", __file__, runtime, str(folder), str(seconds)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parent)]), "CUDA_VISIBLE_DEVICES": "-1"}
    with open(folder / "noise.txt", "wb") as noise:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=noise, text=True, env=environment)
    assert done.returncode == 0, (folder / "noise.txt").read_text(errors="replace")[-2000:]
    return [Outcome(**json.loads(line)) for line in done.stdout.splitlines()]


def _work(runtime: str, folder: Path, seconds: int) -> None:
    """Fork a worker for each file and print what became of it."""
    import resource

    from melanoma_edge.runtimes import protocol, worker

    __import__(protocol.entry(runtime).module)
    report, job = folder / "report.json", folder / "job.json"
    for name in json.loads((folder / "files.json").read_text(encoding="utf-8")):
        report.unlink(missing_ok=True)
        told = {"kind": "logits", "runtime": runtime, "model": str(folder / name), "options": {}, "threads": 1}
        places = {"images": str(folder / "images.npy"), "logits": str(folder / "logits.npy"), "report": str(report)}
        job.write_text(json.dumps(told | places), encoding="utf-8")
        alive = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(alive[0], 0)  # the lifeline, which this process holds
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # progress
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            worker.main(str(job))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        for end in alive:
            os.close(end)
        answer = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
        if "error" in answer:
            found = {"kind": answer["error"], "message": answer["message"]}
        elif "result" in answer:
            found = {"kind": "logits", "message": str(np.load(folder / "logits.npy").shape)}
        else:
            found = {"kind": signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit code {os.waitstatus_to_exitcode(status)}"}
        print(json.dumps({"file": name, **found}), flush=True)


if __name__ == "__main__":
    _work(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
