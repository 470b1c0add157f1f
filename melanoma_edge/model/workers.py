"""The machines, or processes, that train one run together: who they are, and what happens when one is gone.

In: the standard variable TF_CONFIG. Out: the addresses in the order of their numbers and this process's own number; errors that
name the one that no longer answers. Number 0 is the chief: it alone reads and writes the run directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from melanoma_edge.errors import BadInput, Missing

JOBS = ("chief", "worker")
HEARTBEAT_SECONDS = 20
"""A worker that was silent for so long counts as gone."""
GATHERING_SECONDS = 600
"""So long do workers wait for the others to start."""

_TASK = re.compile(r"/job:(\w+)/(?:replica:\d+/)?task:(\d+)")


@dataclass(frozen=True)
class Cluster:
    """All workers, the chief first."""

    tasks: tuple[tuple[str, int], ...]
    """Job and index of each, as TF_CONFIG has them."""
    addresses: tuple[str, ...]
    number: int
    """Which of them this process is."""

    def waiting(self) -> str:
        """Return what to say when the others do not come."""
        return f"worker {self.number} of {len(self.tasks)} waited {GATHERING_SECONDS} seconds for the others ({', '.join(self.addresses)}): start them all, each with its own TF_CONFIG"

    def gone(self, message: str) -> str:
        """Return what to say when TensorFlow's `message` tells of a worker that ended."""
        named = {(job, int(index)) for job, index in _TASK.findall(message)} - {self.tasks[self.number]}
        who = ", ".join(f"{number} ({self.addresses[number]})" for number, task in enumerate(self.tasks) if task in named) or "another one"
        return (
            f"worker {self.number} of {len(self.tasks)} stops: {who} no longer answers; finished epochs are kept in the chief's run directory: start all workers again with --resume"
        )

    @contextlib.contextmanager
    def answering(self, starting: bool = False) -> Iterator[None]:
        """Turn TensorFlow's errors about workers that do not answer into one line (Missing)."""
        import tensorflow as tf

        try:
            yield
        except tf.errors.OpError as error:
            if starting and isinstance(error, tf.errors.DeadlineExceededError):
                raise Missing(self.waiting()) from None
            if isinstance(error, (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)) or "ollective" in error.message:
                raise Missing(self.gone(error.message)) from None
            raise

    def watch(self) -> None:
        """Tell TensorFlow how long to wait for workers; it must not have started yet."""
        from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
        from tensorflow.python.eager import context

        jobs = sorted({job for job, _ in self.tasks})
        context.context().configure_coordination_service(  # what MultiWorkerMirroredStrategy does unless it is done, but waiting for an hour
            service_type="standalone",
            service_leader="/job:{}/replica:0/task:{}".format(*self.tasks[0]),
            cluster_register_timeout_in_ms=GATHERING_SECONDS * 1000,
            heartbeat_timeout_in_ms=HEARTBEAT_SECONDS * 1000,
            coordinated_jobs=[coordination_config_pb2.CoordinatedJob(name=job, num_tasks=sum(task[0] == job for task in self.tasks)) for job in jobs],
        )


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
