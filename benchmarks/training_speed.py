"""Training end to end against the bare training step, and the memory that training takes.

The bare step is the same compiled step on one batch that is already a tensor in memory. End to end is
what a run's history says: index, feed, augmentation and step together. Both in one process, in turn, so
that a noisy machine disturbs both alike. Targets: at least 0.95 of the step alone; at most 4 GiB resident.

Run: python benchmarks/training_speed.py [ROUNDS]
"""

from __future__ import annotations

import statistics
import sys
from functools import partial

import common
import step_speed

from melanoma_edge import host, recipes
from melanoma_edge.data import feed, mixing, policy
from melanoma_edge.data.index import read_index
from melanoma_edge.data.split import TRAIN, split


def main(rounds: int = 8, steps: int = 40) -> None:
    from melanoma_edge.model.tensorflow import require, seed_everything

    require()
    import tensorflow as tf

    from melanoma_edge.model import network
    from melanoma_edge.model.step import Phase, optimizer, step_seed, train_step

    data = common.data_folder()
    recipe = recipes.load("default")
    index = read_index(data, size=recipe.image_size)
    selection = policy.select(index, recipe)
    train = split(selection, recipe) == TRAIN
    pictures = index.pixels.view(list(selection.positions)).view(train)
    import numpy as np

    labels = np.array([selection.classes.index(row.label) for row in selection.rows])[train]
    seed_everything(recipe.seed)
    model = network.build(recipe, len(selection.classes), rescale=True)
    phase = Phase("float", recipe.epochs, recipe.learning_rate, recipe.warmup_share)
    made = optimizer(phase, recipe, feed.steps_per_epoch(labels, recipe), model.trainable_variables)
    step = train_step(model, model.trainable_variables, made, recipe, recipe.batch_size, teachers=step_speed.fresh_teachers(recipe, len(selection.classes)))
    seed = step_seed(recipe, phase, 0, 0)
    batches_of = partial(mixing.batches, pictures, labels, len(selection.classes), recipe)
    batch = tuple(map(tf.constant, next(batches_of(0))))
    alone, together = step_speed.measure(step, batches_of, batch, seed, recipe.batch_size, steps, rounds)
    ratios = [end / bare for end, bare in zip(together, alone)]
    figures = {
        "recipe": recipe.model_dump(mode="json"),
        "data": data.name,
        "rounds": rounds,
        "steps_a_round": steps,
        "step_alone_images_per_second": round(statistics.median(alone), 1),
        "end_to_end_images_per_second": round(statistics.median(together), 1),
        "ratio_median": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "peak_resident_mib": round(host.peak_memory_bytes() / 2**20, 1),
    }
    common.write("training_speed", figures, {"ratio_median": ">= 0.95", "peak_resident_mib": "<= 4096"})


if __name__ == "__main__":
    main(*(int(value) for value in sys.argv[1:2]))
