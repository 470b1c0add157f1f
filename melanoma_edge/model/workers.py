"""The machines, or processes, that train one run together: who they are, and what happens when one is gone.

In: the standard variable TF_CONFIG. Out: the addresses in the order of their numbers and this process's own number; errors that
name the one that no longer answers. Number 0 is the chief: it alone reads and writes the run directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from melanoma_edge.errors import BadInput, Missing

JOBS = ("chief", "worker")
GATHERING_SECONDS = 600.0
"""So long do workers wait for the others to start. Afterwards TensorFlow finds within about ten seconds that one has gone."""

_TASK = re.compile(r"/job:(\w+)/(?:replica:\d+/)?task:(\d+)")


@dataclass(frozen=True)
class Cluster:
    """All workers, the chief first."""

    tasks: tuple[tuple[str, int], ...]
    """Job and index of each, as TF_CONFIG has them."""
    addresses: tuple[str, ...]
    number: int
    """Which of them this process is."""

    def gather(self) -> None:
        """Wait until all workers have started: the others call at the chief's address, and it lets them go when all have.

        TensorFlow would do this too, but wait for ever, deaf to Ctrl-C. Raises Missing when one does not come.
        """
        deadline = time.monotonic() + GATHERING_SECONDS
        host, _, port = self.addresses[0].rpartition(":")
        try:
            if self.number == 0:
                self._receive(int(port), deadline)
            else:
                self._call(host, int(port), deadline)
        except (OSError, ValueError) as error:
            raise Missing(f"worker {self.number} of {len(self.tasks)} cannot meet the others at {self.addresses[0]} ({error}): look at TF_CONFIG and the network") from None

    def _receive(self, port: int, deadline: float) -> None:
        """As the chief: wait for all others, then let them go."""
        with contextlib.ExitStack() as stack:
            door = stack.enter_context(socket.create_server(("", port)))
            here: dict[int, socket.socket] = {}
            while absent := sorted(set(range(1, len(self.tasks))) - set(here)):
                if time.monotonic() > deadline:
                    raise Missing(self._absent(", ".join(f"{number} ({self.addresses[number]})" for number in absent)))
                door.settimeout(1.0)
                with contextlib.suppress(TimeoutError):
                    caller = stack.enter_context(door.accept()[0])
                    caller.settimeout(10.0)
                    number = int.from_bytes(caller.recv(4), "big")
                    if 0 < number < len(self.tasks):  # else a stranger knocked
                        here[number] = caller
            for caller in here.values():
                caller.sendall(b"go")
            for caller in here.values():  # they hang up first, so that the port is free at once
                caller.recv(1)

    def _call(self, host: str, port: int, deadline: float) -> None:
        """As another worker: call the chief, again and again, until it lets us go."""
        while time.monotonic() < deadline:
            with contextlib.suppress(ConnectionError, TimeoutError), socket.create_connection((host, port), timeout=5.0) as line:
                line.sendall(self.number.to_bytes(4, "big"))
                line.settimeout(max(1.0, deadline - time.monotonic()))
                if line.recv(2) == b"go":
                    return
            time.sleep(0.2)
        raise Missing(self._absent(f"the chief ({self.addresses[0]}), or another one,"))

    def _absent(self, who: str) -> str:
        return f"worker {self.number} of {len(self.tasks)} waited {GATHERING_SECONDS:.0f} seconds, and {who} did not come: start all of them, each with its own TF_CONFIG"

    def gone(self, message: str) -> str:
        """Return what to say when TensorFlow's `message` tells of a worker that ended."""
        named = {(job, int(index)) for job, index in _TASK.findall(message)} - {self.tasks[self.number]}
        who = ", ".join(f"{number} ({self.addresses[number]})" for number, task in enumerate(self.tasks) if task in named) or "another one"
        return (
            f"worker {self.number} of {len(self.tasks)} stops: {who} no longer answers; finished epochs are kept in the chief's run directory: start all workers again with --resume"
        )

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Turn TensorFlow's errors about workers that do not answer into one line (Missing)."""
        import tensorflow as tf

        try:
            yield
        except tf.errors.OpError as error:
            if isinstance(error, (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)) or "ollective" in error.message:
                raise Missing(self.gone(error.message)) from None
            raise


def cluster() -> Cluster | None:
    """Return the workers that TF_CONFIG names, None where it names fewer than two.

    Raises BadInput when it is not what TensorFlow documents, or has tasks that this training does not know.
    """
    text = os.environ.get("TF_CONFIG", "").strip()
    if not text:
        return None
    example = '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'
    try:
        found = json.loads(text)
        jobs = found.get("cluster") or {}
        if foreign := sorted(set(jobs) - set(JOBS)):
            raise BadInput(f"TF_CONFIG names tasks of type {', '.join(foreign)}: expected chief and worker only; leave the others out")
        addresses = {(job, index): str(address) for job in JOBS for index, address in enumerate(jobs.get(job, ()))}
        if len(addresses) < 2:
            return None
        own = found["task"]["type"], int(found["task"]["index"])
        return Cluster(tuple(addresses), tuple(addresses.values()), list(addresses).index(own))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadInput(f"TF_CONFIG is {text[:80]!r}: expected for example {example}, the task being one of the cluster") from None
