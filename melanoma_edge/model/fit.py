"""One phase of training: the loop over epochs, validation after each, and the weights to keep.

In: a network, pictures with labels, a recipe, devices. Out: the network with the weights of the epoch that the recipe
keeps: the one that was best on the validation part (balanced accuracy, then loss), or the last. An interruption loses the epoch in
progress and nothing else: what goes on from the checkpoint ends with the same bits. The step is :mod:`melanoma_edge.model.step`, the checkpoint
:mod:`melanoma_edge.model.checkpoint`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras

from melanoma_edge.contract import EpochRow, Recipe
from melanoma_edge.data import feed, mixing, rebalance
from melanoma_edge.data.pictures import Pictures
from melanoma_edge.errors import BadInput
from melanoma_edge.files import write_bytes
from melanoma_edge.model import augment_ops, checkpoint
from melanoma_edge.model import run as runs
from melanoma_edge.model.devices import Devices
from melanoma_edge.model.step import Phase, Step, optimizer, rate, step_seed, train_step

Report = Callable[[str, dict], None]


@dataclass(frozen=True)
class Part:
    """Pictures (uint8 [n, size, size, 3], on disk or in memory) and class numbers (int [n]) of one part of the split."""

    pictures: Pictures | np.ndarray
    labels: np.ndarray


def fit(
    model: keras.Model,
    variables: list,
    phase: Phase,
    recipe: Recipe,
    train: Part,
    validation: Part,
    *,
    file: Path,
    history: list[EpochRow],
    on_epoch: Callable[[list[EpochRow]], None],
    report: Report,
    devices: Devices = Devices(),
    teachers: Sequence[keras.Model] = (),
) -> keras.Model:
    """Train the `variables` of `model`, which was made in the scope of `devices`, and return the network with the weights of the recipe's `kept_epoch`.

    That is `model` itself, or a plain copy where several devices trained it. The checkpoint `file` is read when it holds this phase, and written after every
    epoch. `teachers` were made where `model` was, and the network learns from them as the recipe says. `history` (all rows so far) is extended and handed to `on_epoch`. `report` gets "step" and "epoch" events. Where several workers train, the
    chief alone validates and writes, and the others return what is not to be kept.
    """
    classes = model.output_shape[-1]
    batch, steps = feed.rows_per_batch(train.labels, recipe), feed.steps_per_epoch(train.labels, recipe)
    made = optimizer(phase, recipe, steps, variables, devices)
    judged = model if devices.strategy is None else keras.models.clone_model(model)
    content = devices.share(file.read_bytes() if devices.chief and file.is_file() else b"")
    done = checkpoint.unpack(content, phase.name, model, made, str(file))
    del history[_rows_before(history, phase) + done.epochs :]
    step = train_step(model, variables, made, recipe, batch, rebalance.class_weights(train.labels, classes, recipe), devices, teachers)
    for epoch in range(done.epochs, phase.epochs):
        figures = _train_epoch(step, phase, recipe, train, epoch, classes, batch, steps, devices, report)
        with devices.answering():
            state = checkpoint.state(model, made)
        if not devices.chief:
            continue
        if judged is not model:
            runs.assign(judged.weights, _weights(state), "the devices")
        row = EpochRow(phase=phase.name, epoch=epoch, learning_rate=rate(made), **figures, **_validate(judged, validation))
        history.append(row)
        done.epochs, rank = epoch + 1, (row.validation_balanced_accuracy, -row.validation_loss)
        if recipe.kept_epoch == "last" or done.rank is None or rank > done.rank:
            done.rank, done.kept = rank, _weights(state)
        on_epoch(history)  # before the checkpoint: going on drops rows that it does not know, but cannot make up missing ones
        write_bytes(file, checkpoint.pack(phase.name, done, state))
        report("epoch", {"epochs": phase.epochs, **row.model_dump()})
    if devices.chief:
        runs.assign(judged.weights, done.kept, "the checkpoint")
    return judged


def predict(model: keras.Model, pictures: Pictures | np.ndarray, batch: int = 64) -> np.ndarray:
    """Return logits (float32 [n, classes]) of `pictures` (uint8 [n, size, size, 3])."""
    call = tf.function(lambda x: model(tf.cast(x, tf.float32), training=False), reduce_retracing=True)
    return np.concatenate([call(tf.constant(pictures[i : i + batch])).numpy() for i in range(0, len(pictures), batch)])


def _train_epoch(step: Step, phase: Phase, recipe: Recipe, train: Part, epoch: int, classes: int, batch: int, steps: int, devices: Devices, report: Report) -> dict[str, float]:
    """Do the steps of one epoch and return its figures for the history."""
    mine = devices.rows(batch)
    elsewhere = (augment_ops.apply, augment_ops.mix) if devices.computation.device == "gpu" else (None, None)  # a GPU leaves the processor too little time for pixels
    finish, mix = elsewhere
    batches = mixing.batches(train.pictures, train.labels, classes, recipe, epoch, finish, slice(mine[0].start, mine[-1].stop), mix)
    started, losses, hits = time.perf_counter(), [], 0
    for number, (pictures, targets) in enumerate(batches):
        loss, correct = step(pictures, targets, step_seed(recipe, phase, epoch, number))
        losses.append(loss)
        hits += correct
        speed = (number + 1) * batch / (time.perf_counter() - started)
        report("step", {"phase": phase.name, "epoch": epoch, "step": number + 1, "steps": steps, "loss": loss, "images_per_second": speed})
    seconds = time.perf_counter() - started
    if not np.isfinite(losses).all():
        raise BadInput(f"the loss became {losses[-1]} in {phase.name} epoch {epoch + 1}: lower the learning rate")
    return {"loss": float(np.mean(losses)), "accuracy": hits / (steps * batch), "seconds": seconds, "images_per_second": steps * batch / seconds}


def _validate(model: keras.Model, part: Part) -> dict[str, float]:
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


def _weights(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the network's weights among a phase's state."""
    return {key.removeprefix("model/"): value for key, value in state.items() if key.startswith("model/")}


def _rows_before(history: list[EpochRow], phase: Phase) -> int:
    """Return how many rows of earlier phases stand before this phase's."""
    return sum(row.phase != phase.name for row in history)
