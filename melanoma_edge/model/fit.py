"""One phase of training: the loop, its checkpoint after every epoch, and the best weights.

In: a network, pictures with labels, a recipe. Out: the network with the weights of the epoch that was
best on the validation part (balanced accuracy, then loss). An interruption loses the epoch in
progress and nothing else: feed, schedule and optimizer go on from the checkpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras

from melanoma_edge.contract import EpochRow, Recipe
from melanoma_edge.data import feed, rebalance
from melanoma_edge.data.pictures import Pictures
from melanoma_edge.errors import BadInput
from melanoma_edge.model import augment_ops
from melanoma_edge.model import run as runs

Report = Callable[[str, dict], None]


@dataclass(frozen=True)
class Part:
    """Pictures (uint8 [n, size, size, 3], on disk or in memory) and class numbers (int [n]) of one part of the split."""

    pictures: Pictures | np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Phase:
    """What sets float training and quantization-aware training apart."""

    name: runs.Which
    epochs: int
    peak: float
    warmup_share: float


def fit(
    model: keras.Model,
    variables: list,
    phase: Phase,
    recipe: Recipe,
    train: Part,
    validation: Part,
    *,
    checkpoint: Path,
    history: list[EpochRow],
    on_epoch: Callable[[list[EpochRow]], None],
    report: Report,
) -> None:
    """Train the `variables` of `model` in place and leave it with its best weights.

    `checkpoint` is read when it holds this phase and written after every epoch; `history` (all rows so
    far) is extended and handed to `on_epoch`. `report` gets "step" and "epoch" events.
    """
    steps = feed.steps_per_epoch(train.labels, recipe)
    optimizer = _optimizer(phase, recipe, steps)
    optimizer.build(variables)
    first, best, best_weights = _restore(checkpoint, phase, model, optimizer)
    del history[_rows_before(history, phase) + first :]
    step = _train_step(model, variables, optimizer, recipe, rebalance.class_weights(train.labels, model.output_shape[-1], recipe))
    finish = augment_ops.apply if tf.config.list_physical_devices("GPU") else None  # a GPU leaves the processor too little time for pixels
    for epoch in range(first, phase.epochs):
        started, losses, hits, seen = time.perf_counter(), [], 0, 0
        for done, (pictures, labels) in enumerate(feed.batches(train.pictures, train.labels, recipe, epoch, finish), 1):
            loss, correct = step(pictures, labels)
            losses.append(float(loss))
            hits += int(correct)
            seen += len(labels)
            rate = seen / (time.perf_counter() - started)
            report("step", {"phase": phase.name, "epoch": epoch, "step": done, "steps": steps, "loss": losses[-1], "images_per_second": rate})
        seconds = time.perf_counter() - started
        if not np.isfinite(losses).all():
            raise BadInput(f"the loss became {losses[-1]} in {phase.name} epoch {epoch + 1}: lower the learning rate")
        scores = _validate(model, validation, recipe)
        row = EpochRow(
            phase=phase.name,
            epoch=epoch,
            loss=float(np.mean(losses)),
            accuracy=hits / seen,
            learning_rate=float(_rate(optimizer)),
            seconds=seconds,
            images_per_second=seen / seconds,
            **scores,
        )
        history.append(row)
        rank = (row.validation_balanced_accuracy, -row.validation_loss)
        if best is None or rank > best:
            best, best_weights = rank, runs.named(model.weights)
        on_epoch(history)  # before the checkpoint: going on drops rows that it does not know, but cannot make up missing ones
        _save(checkpoint, phase, epoch + 1, best, model, optimizer, best_weights)
        report("epoch", {"epochs": phase.epochs, **row.model_dump()})
    runs.assign(model.weights, best_weights, "the checkpoint")


def predict(model: keras.Model, pictures: Pictures | np.ndarray, batch: int = 64) -> np.ndarray:
    """Return logits (float32 [n, classes]) of `pictures` (uint8 [n, size, size, 3])."""
    call = tf.function(lambda x: model(tf.cast(x, tf.float32), training=False), reduce_retracing=True)
    return np.concatenate([call(tf.constant(pictures[i : i + batch])).numpy() for i in range(0, len(pictures), batch)])


def _train_step(model: keras.Model, variables: list, optimizer, recipe: Recipe, weights: np.ndarray | None = None):
    """Return the compiled step: (uint8 pictures, int labels) -> (loss, number of hits).

    `weights` (float32 [classes]) is what a picture of each class counts in the loss; without it, all count alike.
    """
    classes = model.output_shape[-1]
    weighted = weights is not None and not np.all(weights == 1)
    loss_of = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing)

    @tf.function(reduce_retracing=True)
    def step(pictures, labels):
        with tf.GradientTape() as tape:
            logits = model(tf.cast(pictures, tf.float32), training=True)
            loss = loss_of(tf.one_hot(labels, classes), logits, sample_weight=tf.gather(tf.constant(weights), labels) if weighted else None)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return loss, tf.reduce_sum(tf.cast(tf.argmax(logits, axis=1) == labels, tf.int32))

    return step


def _optimizer(phase: Phase, recipe: Recipe, steps: int):
    """Return AdamW under the recipe's schedule; decay spares BatchNormalization and biases."""
    total = max(1, phase.epochs * steps)
    warmup = int(total * phase.warmup_share)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=phase.peak / 25 if warmup else phase.peak,
        decay_steps=total - warmup,
        alpha=1.0 if recipe.schedule == "constant" else 0.0,  # the share of the peak that is left at the end
        warmup_target=phase.peak if warmup else None,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer


def _rate(optimizer) -> float:
    rate = optimizer._learning_rate  # the schedule itself; `learning_rate` returns its current value
    return rate(optimizer.iterations) if callable(rate) else optimizer.learning_rate


def _validate(model: keras.Model, part: Part, recipe: Recipe) -> dict[str, float]:
    logits = predict(model, part.pictures)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    hits = logits.argmax(axis=1) == part.labels
    recalls = [hits[part.labels == label].mean() for label in np.unique(part.labels)]
    return {
        "validation_loss": float(-log_probabilities[np.arange(len(logits)), part.labels].mean()),
        "validation_accuracy": float(hits.mean()),
        "validation_balanced_accuracy": float(np.mean(recalls)),
    }


def _save(path: Path, phase: Phase, epoch: int, best, model, optimizer, best_weights: dict[str, np.ndarray]) -> None:
    tensors = {f"model/{key}": value for key, value in runs.named(model.weights).items()}
    tensors |= {f"optimizer/{i:04d}": variable.numpy() for i, variable in enumerate(optimizer.variables)}
    tensors |= {f"best/{key}": value for key, value in best_weights.items()}
    runs.write_tensors(path, tensors, {"phase": phase.name, "epoch": str(epoch), "best": json.dumps(best)})


def _restore(path: Path, phase: Phase, model, optimizer):
    """Return (first epoch, best rank, best weights) and load the checkpoint if it is of this phase."""
    if not path.is_file():
        return 0, None, {}
    tensors = runs.read_tensors(path, "a checkpoint")
    metadata = runs.read_tensor_metadata(path)
    if metadata.get("phase") != phase.name:
        return 0, None, {}

    def under(prefix: str) -> dict[str, np.ndarray]:
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

    runs.assign(model.weights, under("model/"), str(path))
    saved = under("optimizer/")
    if len(saved) != len(optimizer.variables):
        raise BadInput(f"{path} belongs to another recipe: start a new run")
    for i, variable in enumerate(optimizer.variables):
        variable.assign(saved[f"{i:04d}"])
    return int(metadata["epoch"]), tuple(json.loads(metadata["best"])), under("best/")


def _rows_before(history: list[EpochRow], phase: Phase) -> int:
    """Return how many rows of earlier phases stand before this phase's."""
    return sum(row.phase != phase.name for row in history)
