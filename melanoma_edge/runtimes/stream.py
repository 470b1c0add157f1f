"""Pictures by the thousand: processes that read them and run a model on them, a few at a time.

In: picture files and a model. Out: for each picture, in the order given, its logits and quality, or why it cannot be read. Each
process decodes pictures and computes on them, so pixels never go from one process to another; file names go out and numbers
come back, in blocks, of which a bounded number is under way. A process that crashes, hangs or fails becomes one clear error,
and none outlives this one. Light to import: processes are on their way while the caller opens a bundle.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from melanoma_edge.runtimes import child, places

if TYPE_CHECKING:
    from melanoma_edge.contract import InputContract

WORKER = "melanoma_edge.runtimes.stream_worker"
BLOCK, BLOCK_BYTES = 16, 16384
"""Pictures that are given out at once, and bytes of their names: with the next block, they fit a pipe, so that telling a process never waits for it."""
AT_ONCE = 2
"""Blocks that a process has: one to work on and the next."""
AHEAD = 8
"""Blocks for each process that may be given out beyond the first one that is not done: so many answers wait in memory at most."""
MOST_PROCESSES = 16
ENDING_SECONDS = 10
"""So long may a process take to end that has closed its output: a crash writes its memory down first on some machines."""
WORTH = 100
"""Pictures for which one more process is worth starting: it takes as long to start as these take."""


@dataclass
class _Worker:
    """One process: what it has to do, and the part of an answer that has come."""

    process: subprocess.Popen[bytes]
    noise: Path
    blocks: dict[int, list[str]] = field(default_factory=dict)
    rest: bytes = b""


@dataclass(frozen=True)
class Stream:
    """Processes that wait for a model and pictures."""

    workers: list[_Worker]

    def answers(
        self,
        runtime: str,
        model: Path,
        pictures: Sequence[Path],
        *,
        size: int,
        which: str | None = None,
        contract: InputContract | None = None,
        threads: int = 1,
        timeout: float = 600,
    ) -> Iterator[list[dict]]:
        """Yield what is found of `pictures`, block after block: of each {"logits", "quality"}, or {"error"} for one that cannot be read.

        `model`, `which` and `contract` are those of :func:`melanoma_edge.runtimes.process.run_logits`, `size` is the side of the
        input. Each process computes with `threads` threads. To be asked for once. Raises as `run_logits` does;
        `timeout` is the longest silence of all processes while there is something to do.
        """
        from melanoma_edge.runtimes import process, protocol

        row = protocol.entry(runtime)
        process.require(runtime, row)
        workers = self.workers if row.runs_artifacts else self.workers[:1]  # TensorFlow is too large to be there more than once
        job = {"runtime": runtime, "model": str(process.existing(model)), "options": {} if which is None else {"which": which}}
        job |= {"contract": process.dumped(contract), "threads": threads, "size": size, "processes": len(workers)}
        on = f" on {model.name}"
        waiting, given, taken, done = _blocks(pictures), 0, 0, {}
        block = next(waiting, None)
        with selectors.DefaultSelector() as selector:
            for worker in workers:
                selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
                _tell(worker, job)
            while block is not None or taken < given:
                while block is not None and given < taken + AHEAD * len(workers):
                    idle = min(workers, key=lambda worker: len(worker.blocks))
                    if len(idle.blocks) == AT_ONCE:
                        break
                    idle.blocks[given] = block
                    _tell(idle, {"block": given, "pictures": block})
                    given, block = given + 1, next(waiting, None)
                if taken in done:
                    yield done.pop(taken)
                    taken += 1
                    continue
                ready = selector.select(timeout)
                if not ready:
                    raise child.silence(runtime, on, timeout)
                for key, _ in ready:
                    done.update(_heard(key.data, runtime, on))


@contextlib.contextmanager
def started(processes: int) -> Iterator[Stream]:
    """Start so many processes for one job; they are killed, and what they left removed, when the block ends."""
    workers: list[_Worker] = []
    command, changes = places.command("here")
    with child.job_folder() as folder:
        try:
            for number in range(processes):
                noise = folder / f"stderr-{number}.txt"
                workers.append(_Worker(child.start([*command, "-m", WORKER, str(folder)], folder, noise, changes=changes), noise))
            yield Stream(workers)
        finally:
            for worker in workers:
                child.kill(worker.process)


def processes_for(pictures: int) -> int:
    """Return how many processes are worth starting on this machine: one a core, fewer for few pictures."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, MOST_PROCESSES, pictures // WORTH + 1))


def _blocks(pictures: Sequence[Path]) -> Iterator[list[str]]:
    """Yield names of pictures, as many as are given out at once."""
    block, length = [], 0
    for picture in map(str, pictures):
        if len(block) == BLOCK or (block and length + len(json.dumps(picture)) > BLOCK_BYTES):
            yield block
            block, length = [], 0
        block.append(picture)
        length += len(json.dumps(picture))
    if block:
        yield block


def _tell(worker: _Worker, what: dict) -> None:
    """Write a line to a process. That one has ended is noticed where its answers are read."""
    line = json.dumps(what).encode("ascii") + b"\n"
    with contextlib.suppress(BrokenPipeError):
        while line:
            line = line[worker.process.stdin.write(line) :]


def _heard(worker: _Worker, runtime: str, on: str) -> Iterator[tuple[int, list[dict]]]:
    """Yield the blocks that a process has done since it was last heard; raises what it tells of, and RuntimeFailed when it has ended."""
    chunk = os.read(worker.process.stdout.fileno(), 1 << 20)
    if not chunk:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(ENDING_SECONDS)
        child.kill(worker.process)
        files = next(iter(worker.blocks.values()), [])
        at = f" or one of its pictures ({ascii(files[0])} to {ascii(files[-1])})" if files else ""
        raise child.crash(worker.process, runtime, on, worker.noise, f"the file{at} is damaged or needs what this machine lacks; export it again, or leave those out")
    *lines, worker.rest = (worker.rest + chunk).split(b"\n")
    for line in lines:
        answer = json.loads(line)
        if "error" in answer:
            raise child.failure(answer)
        del worker.blocks[answer["block"]]
        yield answer["block"], answer["found"]
