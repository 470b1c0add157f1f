"""A published network by the default recipe, on the folds of ours: the same pictures, parts, samples, epochs and teachers.

The folds are those of a complete `train --folds` (runs/reference-folds). Of the recipe everything counts but the network and the
quantization-aware phase, which hard-swish and squeeze-excite cannot take: the teachers are, as with ours, networks of its own kind.
Each training is kept below runs/peers/ and not done again; an interrupted one goes on after its last whole epoch.

Run: python benchmarks/peers_training.py [--network NAME]... [--fold K]... [--lanes N] [--quick]
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import common
import peer_networks

from melanoma_edge.contract import EpochRow, Recipe
from melanoma_edge.errors import BadInput
from melanoma_edge.files import read_json, write_json
from melanoma_edge.model import run as runs

TRAINED = ("mobilenetv3-small",)
PARTS = ("validation", "test")
NETWORK = "float"
CHECKPOINT, HISTORY, LOGITS, FIGURES = "checkpoint.safetensors", "history.json", "logits.safetensors", "figures.json"
"""Files of a training beside the weights of its teachers and of the network, in the order in which they come; the first goes when the last has come."""


def place(kept: Path, network: str, fold: int) -> Path:
    return kept / f"{network}-fold-{fold}"


def recipe_of(run: runs.Run, *, quick: bool) -> Recipe:
    """Return what a peer is trained with: the recipe of our `run` of the same fold, of whose phases the float one counts."""
    changes = {"epochs": 2, "samples_per_class": 8, "distillation": run.recipe.distillation.model_copy(update={"epochs": 1})} if quick else {}
    return run.recipe.model_copy(update={"qat_epochs": 0, **changes})


def weights_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def train(data: Path, run: runs.Run, network: str, folder: Path, *, quick: bool) -> None:
    """Do one training, in this process, on one thread, and keep its weights and what they say of the parts that it was not trained on."""
    from melanoma_edge.model.tensorflow import require, seed_everything

    require()
    import tensorflow as tf

    for limit in (tf.config.threading.set_intra_op_parallelism_threads, tf.config.threading.set_inter_op_parallelism_threads):
        limit(1)
    import numpy as np

    from melanoma_edge.data import policy
    from melanoma_edge.files import cache_folder
    from melanoma_edge.model import teachers
    from melanoma_edge.model.fit import Part, fit, predict
    from melanoma_edge.model.step import Phase
    from melanoma_edge.model.train import read_pictures, refuse_renamed

    recipe, classes = recipe_of(run, quick=quick), run.facts.classes
    index = read_pictures(data, recipe, None, run.facts.licences, cache_folder(), lambda event, facts: None)
    selection = policy.select(index, recipe)
    refuse_renamed(data, selection, run)
    pictures = index.pixels.view(list(selection.positions))
    labels, parts = np.array([classes.index(row.label) for row in run.split]), np.array([row.part for row in run.split])
    by_part = {part: Part(pictures.view(parts == part), labels[parts == part]) for part in ("train", *PARTS)}
    history = folder / HISTORY
    rows = [EpochRow.model_validate(row) for row in read_json(history, "a history")] if history.is_file() else []

    def report(event: str, facts: dict) -> None:
        if event == "epoch" and (facts["epoch"] + 1) % (1 if quick else 5) == 0:
            balanced, speed = facts["validation_balanced_accuracy"], facts["images_per_second"]
            common.say(f"{folder.name}, {rows[-1].phase} epoch {facts['epoch'] + 1}: loss {facts['loss']:.3f}, balanced accuracy {balanced:.3f}, {speed:.0f} pictures/s")

    def trained(name: str, recipe: Recipe, taught_by: list):
        """Return the network called `name`: the one that was kept, else a new one, which is."""
        seed_everything(recipe.seed)
        model = peer_networks.published(network, recipe.image_size, len(classes))
        if weights_file(folder, name).is_file():
            runs.assign(model.weights, runs.read_tensors(weights_file(folder, name)), name)
        else:
            model = fit(
                model,
                model.trainable_variables,
                Phase(name, recipe.epochs, recipe.learning_rate, recipe.warmup_share),
                recipe,
                by_part["train"],
                by_part["validation"],
                file=folder / CHECKPOINT,
                history=rows,
                on_epoch=lambda rows: write_json(history, [row.model_dump() for row in rows]),
                report=report,
                teachers=taught_by,
            )
            runs.write_tensors(weights_file(folder, name), runs.named(model.weights))
        return model

    taught_by = [trained(name, teachers.recipe_of(recipe, number), []) for number, name in enumerate(teachers.names_of(recipe), 1)]
    for teacher in taught_by:
        teacher.trainable = False
    model = trained(NETWORK, recipe, taught_by)
    runs.write_tensors(folder / LOGITS, {part: predict(model, by_part[part].pictures) for part in PARTS})
    write_json(folder / FIGURES, {"parameters": int(model.count_params()), "seconds": sum(row.seconds for row in rows), "last": rows[-1].model_dump()})
    (folder / CHECKPOINT).unlink()
    common.say(f"{folder.name}: done")


def settings(run: runs.Run, network: str, *, quick: bool) -> dict:
    """Return what a training follows from: all of our recipe but its names and the network, whose place the peer takes."""
    recipe = recipe_of(run, quick=quick).model_dump(mode="json", exclude={"name", "description", "network", "width"})
    return {"network": network, "recipe": recipe, "data_sha256": run.facts.data_sha256}


def main(arguments: list[str] | None = None) -> None:
    asked = _arguments(arguments)
    data = Path(os.path.abspath(asked.data or common.data_folder()))
    kept = asked.runs or Path("runs") / ("peers-quick" if asked.quick else "peers")
    folds = {int(path.name.removeprefix("fold-")): path for path in sorted(asked.folds.glob("fold-*"))}
    if not folds or any(fold not in folds for fold in asked.fold or ()):
        raise BadInput(f"{asked.folds} has no folds {asked.fold or ''}: expected what `melanoma-edge train --folds 5` makes; name it with --folds")
    left = []
    for network in asked.network or TRAINED:
        for fold in asked.fold or folds:
            folder, now = place(kept, network, fold), settings(runs.open_run(folds[fold]), network, quick=asked.quick)
            known = folder / "training.json"
            if known.is_file() and read_json(known, "a training") != now:
                raise BadInput(f"{folder} was trained with other settings, or on other folds: move it away, or name another folder with --runs")
            folder.mkdir(parents=True, exist_ok=True)
            write_json(known, now)
            if not (folder / FIGURES).is_file():
                left.append((network, fold))
    if asked.here:
        for network, fold in left:
            train(data, runs.open_run(folds[fold]), network, place(kept, network, fold), quick=asked.quick)
        return
    common.say(f"{len(left)} trainings are to be done")
    passed = [*(["--quick"] if asked.quick else []), "--data", str(data), "--runs", str(kept), "--folds", str(asked.folds), "--here"]
    common.in_lanes({f"{network} {fold}": [sys.executable, __file__, "--network", network, "--fold", str(fold), *passed] for network, fold in left}, asked.lanes)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", action="append", choices=list(peer_networks.PUBLISHED), help=f"train this network (default: {', '.join(TRAINED)})")
    parser.add_argument("--fold", action="append", type=int, help="this fold only; may be given several times")
    parser.add_argument("--lanes", type=int, default=len(os.sched_getaffinity(0)), help="trainings side by side (default: as many as cores)")
    parser.add_argument("--here", action="store_true", help="train in this process, one after the other")
    parser.add_argument("--quick", action="store_true", help="two epochs of few samples, to see that everything works")
    parser.add_argument("--data", type=Path, help="the nine-class ISIC set (default: MELANOMA_EDGE_ISIC9, or ../shared/data/isic9)")
    parser.add_argument("--folds", type=Path, default=Path("runs/reference-folds"), help="our own trainings (default: runs/reference-folds)")
    parser.add_argument("--runs", type=Path, help="where trainings are kept (default: runs/peers, with --quick runs/peers-quick)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    common.run("peers_training", main, kept=True)
