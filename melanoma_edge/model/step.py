"""One step of training, compiled: loss, gradients, and the optimizer that applies them, on one device or several.

In: a batch (or this machine's rows of it) and what the step's randomness follows from. Out: changed weights, the loss and the hits of
the whole batch. Nothing random is left to a generator's state: a step is a function of weights, optimizer, pictures and seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tf_keras as keras

from melanoma_edge.contract import Recipe
from melanoma_edge.model.devices import Devices
from melanoma_edge.model.dropout import drawn

Step = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[float, int]]
"""(uint8 [rows, size, size, 3], targets float32 [rows, classes], seed int32 [2]) -> (mean loss, number of hits), both of the whole batch."""


@dataclass(frozen=True)
class Phase:
    """What sets float training and quantization-aware training apart."""

    name: str
    epochs: int
    peak: float
    warmup_share: float
    number: int = 0
    """Of the random numbers within its steps: 0 for float training, which a teacher's is too, and 1 for quantization-aware training."""


def step_seed(recipe: Recipe, phase: Phase, epoch: int, step: int) -> np.ndarray:
    """Return what the randomness within a step follows from (int32 [2]), whatever was computed before."""
    return np.random.SeedSequence((recipe.seed, 2, phase.number, epoch, step)).generate_state(2).view(np.int32)


def optimizer(phase: Phase, recipe: Recipe, steps: int, variables: list, devices: Devices = Devices()):
    """Return AdamW under the recipe's schedule, with `steps` an epoch; decay spares BatchNormalization and biases.

    It is made where the network is (:meth:`Devices.scope`). Half precision scales its loss, so that small gradients are not lost.
    """
    total = max(1, phase.epochs * steps)
    warmup = int(total * phase.warmup_share)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=phase.peak / 25 if warmup else phase.peak,
        decay_steps=total - warmup,
        alpha=1.0 if recipe.schedule == "constant" else 0.0,  # the share of the peak that is left at the end
        warmup_target=phase.peak if warmup else None,
        warmup_steps=warmup,
    )
    with devices.scope():
        made = keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay, jit_compile=devices.computation.xla)
        made.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
        if devices.computation.mixed_precision == "float16":
            made = keras.mixed_precision.LossScaleOptimizer(made)
        made.build(variables)
    return made


def rate(made) -> float:
    """Return the learning rate at which an :func:`optimizer` stands."""
    made = getattr(made, "inner_optimizer", made)
    scheduled = made._learning_rate  # the schedule itself; `learning_rate` returns its current value
    return float(scheduled(made.iterations) if callable(scheduled) else made.learning_rate)


def train_step(
    model: keras.Model, variables: list, made, recipe: Recipe, batch: int, weights: np.ndarray | None = None, devices: Devices = Devices(), teachers: Sequence[keras.Model] = ()
) -> Step:
    """Return the step that trains the `variables` of `model` with the optimizer `made` on batches of `batch`.

    It takes this machine's rows of a batch (all of them, where there is one machine). `weights` (float32 [classes]) is what a picture of each class counts in the
    loss; without it, all count alike. With `teachers` (networks like `model`), the loss is the recipe's mean of that to the targets and the divergence from what they say together. A
    hit is the class that the target says most of.
    """
    weighted = weights is not None and not np.all(weights == 1)
    scaled = hasattr(made, "get_scaled_loss")
    distillation = recipe.distillation
    loss_of = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing, reduction="none")

    def gradients(pictures, targets, first, seed):
        pictures = tf.cast(pictures, tf.float32)
        said = _said(teachers, pictures, distillation.temperature) if teachers else None
        entropy = -tf.reduce_sum(tf.math.xlogy(said, said), axis=1) if teachers else None
        with tf.GradientTape() as tape:
            with drawn(seed, first, batch):
                logits = model(pictures, training=True)
            losses = loss_of(targets, logits)
            if teachers:
                # Gradients of softened answers are smaller by the square of the temperature. The divergence is zero where both say the same.
                taught = distillation.temperature**2 * (tf.nn.softmax_cross_entropy_with_logits(said, logits / distillation.temperature) - entropy)
                losses = (1 - distillation.weight) * losses + distillation.weight * taught
            if weighted:
                losses *= tf.linalg.matvec(targets, tf.constant(weights))
            loss = tf.reduce_sum(losses) / batch
            objective = made.get_scaled_loss(loss) if scaled else loss
        found = tape.gradient(objective, variables)
        hits = tf.reduce_sum(tf.cast(tf.argmax(logits, axis=1) == tf.argmax(targets, axis=1), tf.float32))
        return tf.stack([loss, hits]), made.get_unscaled_gradients(found) if scaled else found

    computed = tf.function(gradients, jit_compile=True) if devices.computation.xla else gradients

    def on_device(pictures, targets, first, seed):
        figures, found = computed(pictures, targets, first, seed)
        made.apply_gradients(zip(found, variables))  # which adds up those of all devices
        return figures

    if devices.strategy is None:
        compiled = tf.function(on_device, reduce_retracing=True)
        return lambda pictures, targets, seed: _figures(compiled(pictures, targets, 0, seed))
    return _shared(on_device, batch, devices)


def _said(teachers: Sequence[keras.Model], pictures: tf.Tensor, temperature: float) -> tf.Tensor:
    """Return the mean of the teachers' softened answers, float32 [rows, classes]."""
    return tf.add_n([tf.nn.softmax(teacher(pictures, training=False) / temperature) for teacher in teachers]) / len(teachers)


def _shared(on_device, batch: int, devices: Devices) -> Step:
    """Return the step that deals its rows out to the devices of this machine."""
    strategy, rows = devices.strategy, devices.rows(batch)
    start = rows[0].start

    def everywhere(*values):
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, on_device(*values))

    compiled = tf.function(lambda *values: strategy.run(everywhere, args=values), reduce_retracing=True)

    def dealt(values):
        waiting = iter(values)
        return strategy.experimental_distribute_values_from_function(lambda _: tf.constant(next(waiting)))

    def step(pictures, targets, seed):
        parts = [slice(part.start - start, part.stop - start) for part in rows]
        given = [dealt(pictures[part] for part in parts), dealt(targets[part] for part in parts), dealt(np.int32(part.start) for part in rows), tf.constant(seed)]
        with devices.answering():
            return _figures(strategy.experimental_local_results(compiled(*given))[0])

    return step


def _figures(found: tf.Tensor) -> tuple[float, int]:
    loss, hits = found.numpy().tolist()
    return loss, int(hits)
