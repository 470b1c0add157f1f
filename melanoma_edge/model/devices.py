"""What computes a training step: one processor or GPU, all GPUs of a machine, or those of several machines.

In: what the user asked for, the visible GPUs, TF_CONFIG. Out: :class:`Devices`, which knows the rows of a batch that
are this machine's, and by which the workers tell each other something. The batch of a recipe is always the one
that all devices share.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from melanoma_edge.contract import Computation, Recipe
from melanoma_edge.errors import BadInput, Missing
from melanoma_edge.model.tensorflow import require
from melanoma_edge.model.workers import Cluster, cluster

Asked = Literal["auto", "cpu", "gpu"]
MixedPrecision = Literal["bfloat16", "float16"]
ONE_CPU = Computation(device="cpu", names=("CPU",))
POOLED = ("classic", "classic-batchnorm")
"""Networks with max-pooling."""


@dataclass(frozen=True)
class Devices:
    """Devices that train together; without arguments, this machine's processor."""

    computation: Computation = ONE_CPU
    strategy: Any = None
    """``tf.distribute.Strategy`` where several devices share a batch, else None."""
    cluster: Cluster | None = None
    """The workers, where there are several."""

    @property
    def worker(self) -> int:
        return self.cluster.number if self.cluster else 0

    @property
    def chief(self) -> bool:
        """Whether this process reads and writes the run directory."""
        return self.worker == 0

    def computing(self, recipe: Recipe, mixed_precision: MixedPrecision | None, xla: bool) -> "Devices":
        """Return these devices with another arithmetic; raises BadInput where `recipe` cannot be trained in it."""
        if xla and recipe.network in POOLED:
            raise BadInput(
                f"the network {recipe.network} cannot be trained under XLA: TensorFlow has no gradient of its max-pooling there that gives the same bits every time; leave out --xla, or set network=edge"
            )
        return replace(self, computation=self.computation.model_copy(update={"mixed_precision": mixed_precision, "xla": xla}))

    def alone(self) -> "Devices":
        """Return this machine's first device, in float32."""
        single = {"names": self.computation.names[:1], "replicas": 1, "workers": 1, "mixed_precision": None}
        return Devices(self.computation.model_copy(update=single))

    def scope(self) -> contextlib.AbstractContextManager:
        """Return the context in which networks and optimizers are made."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def rows(self, batch: int) -> list[slice]:
        """Return the rows of a batch of `batch` that each device of this machine computes.

        Raises BadInput when there are more devices than rows.
        """
        replicas = self.computation.replicas
        if batch < replicas:
            raise BadInput(f"a batch of {batch} cannot be shared by {replicas} devices: set batch_size to {replicas} or more, or make fewer of them visible")
        here = replicas // self.computation.workers
        cuts = [batch * number // replicas for number in range(replicas + 1)]
        return [slice(cuts[number], cuts[number + 1]) for number in range(self.worker * here, (self.worker + 1) * here)]

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Turn TensorFlow's errors about other workers into one line (Missing)."""
        with self.cluster.answering() if self.cluster else contextlib.nullcontext():
            yield

    def share(self, content: bytes) -> bytes:
        """Return the chief's `content` on every worker; all must call this at the same point."""
        if self.cluster is None:
            return content
        size = np.frombuffer(len(content).to_bytes(8, "big"), np.uint8) if self.chief else np.zeros(8)
        length = int.from_bytes(self._sum(size).astype(np.uint8).tobytes(), "big")
        if not length:  # TensorFlow crashes on the sum of nothing
            return b""
        return self._sum(np.frombuffer(content, np.uint8) if self.chief else np.zeros(length)).astype(np.uint8).tobytes()

    def dissenters(self, fits: bool) -> list[int]:
        """Return the numbers of the workers on which `fits` is False; all must call this at the same point."""
        if self.cluster is None:
            return [] if fits else [0]
        mine = np.arange(self.computation.workers) == self.worker
        return np.flatnonzero(self._sum(mine & (not fits))).tolist()

    def part(self) -> None:
        """Wait until the chief needs the other workers no more; their processes may then end."""
        with contextlib.suppress(Missing):  # who has gone already had all that it needed
            self.dissenters(True)

    def _sum(self, values: np.ndarray) -> np.ndarray:
        """Return the sum over all workers of `values` (whole numbers below 2 ** 24), the same on each."""
        import tensorflow as tf

        def total(value):  # the identity, for what is summed has to have been computed on the device
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(value))

        with self.answering():
            own = iter([values, *[np.zeros_like(values)] * (self.strategy.num_replicas_in_sync - 1)])
            shared = self.strategy.experimental_distribute_values_from_function(lambda _: tf.constant(next(own), tf.float32))
            found = tf.function(lambda value: self.strategy.run(total, args=(value,)))(shared)
            return self.strategy.experimental_local_results(found)[0].numpy()


def open_devices(asked: Asked = "auto") -> Devices:
    """Return the devices to train on: every visible GPU, or the processor; with those of the other workers of TF_CONFIG.

    With several workers this waits for all to start, and must come before any other use of TensorFlow. Raises Missing for a GPU that is not there and for
    workers that do not come, BadInput for a TF_CONFIG that is none.
    """
    require()
    import tensorflow as tf

    workers = cluster()
    gpus = tf.config.list_physical_devices("GPU")
    if asked == "gpu" and not gpus:
        raise Missing("TensorFlow finds no GPU here: it needs an NVIDIA driver and `pip install 'melanoma-edge[gpu]'`; or leave out --device gpu")
    if asked == "cpu":
        gpus = _hide(gpus)
    for gpu in gpus:
        with contextlib.suppress(RuntimeError):  # TensorFlow has started already
            tf.config.experimental.set_memory_growth(gpu, True)
    computation = Computation(
        device="gpu" if gpus else "cpu",
        names=tuple(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in gpus) or ("CPU",),
        replicas=max(1, len(gpus)),
    )
    if workers:
        workers.gather()
        with workers.answering():
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        together = {"replicas": strategy.num_replicas_in_sync, "workers": len(workers.tasks)}
        return Devices(computation.model_copy(update=together), strategy, workers)
    return Devices(computation, tf.distribute.MirroredStrategy() if len(gpus) > 1 else None)


@contextlib.contextmanager
def arithmetic(computation: Computation) -> Iterator[None]:
    """Let layers that are made in this block multiply as `computation` says; their weights are float32."""
    import tf_keras as keras

    before = keras.mixed_precision.global_policy()
    if computation.mixed_precision:
        keras.mixed_precision.set_global_policy(f"mixed_{computation.mixed_precision}")
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


def _hide(gpus: list) -> list:
    """Let TensorFlow use none of `gpus`, and return what is left."""
    import tensorflow as tf

    if gpus:
        try:
            tf.config.set_visible_devices([], "GPU")
        except RuntimeError:
            raise BadInput("TensorFlow already uses the GPU in this process: ask for the cpu in a new one, before anything else") from None
    return []
