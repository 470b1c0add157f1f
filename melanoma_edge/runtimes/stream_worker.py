"""The child process of a stream: `python -m melanoma_edge.runtimes.stream_worker FOLDER`.

In, on standard input: a line with the job, then one with the names of pictures for each block. Out, on standard output: a line for
each block with what was found, or one with an error, which is the last. What the packages print goes to standard error. When
standard input ends, because the parent closes it or dies, this process removes FOLDER and ends at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import queue
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from melanoma_edge.data import decoding, image, quality
from melanoma_edge.errors import Error
from melanoma_edge.runtimes.protocol import RUNTIMES, Runtime, RuntimeFailed, create, load, one_line
from melanoma_edge.runtimes.worker import contract, end_with_parent, limit_memory

ORDINARY_PIXELS = 16_000_000
"""Pictures of so many pixels never wait for each other."""


class Model:
    """A job's model, loaded for the first picture that can be read."""

    def __init__(self, job: dict) -> None:
        self._job, self._runtime = job, None

    def logits(self, inputs: list[np.ndarray]) -> list[list[float]]:
        """Return the logits of pictures, uint8 [size, size, 3] each."""
        return self._loaded().logits(np.stack(inputs)).tolist() if inputs else []

    def _loaded(self) -> Runtime:
        if self._runtime is None:
            self._runtime = create(self._job["runtime"], self._job["options"], contract(self._job))
            load(self._runtime, Path(self._job["model"]), self._job["threads"])
        return self._runtime


class Turns:
    """Lets several processes decode pictures at once, but large ones only in turn, so that all together stay within a bound."""

    def __init__(self, folder: Path, processes: int) -> None:
        self._most = max(ORDINARY_PIXELS, decoding.PIXELS_IN_FLIGHT // 2 // processes)
        self._door = os.open(folder / "large", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._inside = False

    def take(self, pixels: int) -> None:
        """Wait until a picture of so many pixels may be decoded."""
        if pixels > self._most:
            fcntl.flock(self._door, fcntl.LOCK_EX)
            self._inside = True

    def give_back(self) -> None:
        """Let another process decode a large picture."""
        if self._inside:
            fcntl.flock(self._door, fcntl.LOCK_UN)
            self._inside = False


def found(pictures: list[str], size: int, model: Model, turns: Turns) -> list[dict]:
    """Return of each picture {"quality", "logits"}, or {"error"} where it cannot be read."""
    inputs, results = [], []
    for name in pictures:
        try:
            picture = image.open_picture(Path(name), image.read(Path(name)), admit=turns.take).image
            inputs.append(image.square(picture, size))
            measured = quality.measure(picture)
            results.append({"quality": {**asdict(measured), "warnings": list(measured.warnings)}})
            del picture
        except image.UnreadableImage as error:
            results.append({"error": str(error)})
        finally:
            turns.give_back()
    logits = iter(model.logits(inputs))
    return [result if "error" in result else result | {"logits": next(logits)} for result in results]


def main(folder: Path) -> None:
    """Do what standard input says, block after block, until it ends."""
    told: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=end_with_parent, args=(folder, told.put), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    lines = _lines(told)
    job = json.loads(next(lines))
    if not RUNTIMES[job["runtime"]].gpu:  # CUDA reserves far more than it uses
        limit_memory()
    model, turns = Model(job), Turns(folder, job["processes"])
    for line in lines:
        answer = _answer(json.loads(line), job, model, turns)
        print(json.dumps(answer), file=answers, flush=True)
        if "error" in answer:
            return


def _answer(block: dict, job: dict, model: Model, turns: Turns) -> dict:
    """Return the answer to one block: what was found, or the error that ended the work."""
    try:
        return {"block": block["block"], "found": found(block["pictures"], job["size"], model, turns)}
    except Error as error:
        return {"error": type(error).__name__, "message": str(error)}
    except Exception as error:
        message = f"{job['runtime']} failed: {one_line(error)}; export the model again or give another file"
        return {"error": RuntimeFailed.__name__, "message": message}


def _lines(told: queue.SimpleQueue[bytes]) -> Iterator[bytes]:
    """Yield the lines that the parent has written."""
    rest = b""
    while True:
        *lines, rest = (rest + told.get()).split(b"\n")
        yield from lines


if __name__ == "__main__":
    main(Path(sys.argv[1]))
