"""Teachers: networks of the recipe's kind that are trained first, and from which the network then learns.

In: a recipe with `distillation`, a run directory. Out: each teacher's own recipe, and the trained ones as networks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from melanoma_edge.contract import Recipe, RunFacts
from melanoma_edge.contract.recipe import Distillation
from melanoma_edge.errors import BadInput
from melanoma_edge.files import sha256_file
from melanoma_edge.model import run as runs
from melanoma_edge.model.devices import Devices, arithmetic


def names_of(recipe: Recipe) -> list[str]:
    """Return the names of the recipe's teachers, in the order in which they are trained."""
    return [f"teacher-{number}" for number in range(1, recipe.distillation.teachers + 1)]


def recipe_of(recipe: Recipe, number: int) -> Recipe:
    """Return what the teacher `number` (from 1) trains with: the recipe without teachers, with random numbers of its own."""
    seed = int(np.random.SeedSequence((recipe.seed, 3, number)).generate_state(1)[0] >> 1)
    return recipe.model_copy(update={"seed": seed, "distillation": Distillation(), "epochs": recipe.distillation.epochs or recipe.epochs})


def open_teachers(out: Path, facts: RunFacts | None, recipe: Recipe, classes: int, devices: Devices) -> list:
    """Return the recipe's teachers, trained, on all `devices`; an empty list where it has none. Raises BadInput where the run's weights of one are not what they were.

    All workers call it; only the chief, who has `facts`, reads the run at `out`.
    """
    from melanoma_edge.model import network

    found = []
    for name in names_of(recipe):
        content = devices.share(_weights(out, facts, name) if facts else b"")
        with devices.scope(), arithmetic(devices.computation):
            teacher = network.build(recipe, classes)
        teacher.trainable = False
        runs.assign(teacher.weights, runs.unpack_tensors(content, name)[0], name)
        found.append(teacher)
    return found


def _weights(out: Path, facts: RunFacts, name: str) -> bytes:
    file = runs.weights_file(out, name)
    if not file.is_file() or sha256_file(file) != facts.teachers[name]:
        raise BadInput(f"{file} is missing or was altered: expected sha256 {facts.teachers[name][:12]}...; start a new run")
    return file.read_bytes()
