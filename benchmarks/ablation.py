"""Which network and which training the default recipe is made of: trials, compared without any picture of a test part.

Trials stand in ablation.toml, each with what it changes in the recipe ablation_base.toml. Each is trained (float, all its epochs, last weights) on the pictures outside the test
part of fold 0, less one inner fold, and judged on that inner fold; over inner folds and seeds. The split follows from the base recipe's seed, whatever a trial's is.

Each training is kept below runs/ablation/ and not done again; an interrupted one goes on after its last whole epoch. Training of networks this small gains little from
a second core, so as many trainings as --lanes run side by side, with one thread on a core of its own each. results/ablation.json holds all that are complete.

Run: python benchmarks/ablation.py [--trial NAME]... [--inner K]... [--seed S]... [--lanes N] [--quick] [--markdown]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tomllib
from pathlib import Path

import common
import numpy as np

from melanoma_edge import recipes
from melanoma_edge.contract import Recipe
from melanoma_edge.errors import BadInput
from melanoma_edge.files import read_json, write_json

TRIALS = Path(__file__).with_suffix(".toml")
BASE = Path(__file__).with_name("ablation_base.toml")
QUICK = ("image_size=48", "epochs=2", "samples_per_class=8", "min_lesions=5")
TRIAL = "trial.json"
KEPT = ("checkpoint.safetensors", "history.json", "figures.json", "logits.npy", "weights.safetensors")
"""Files of a training, in the order in which they come."""
FIGURES = ("balanced_accuracy", "accuracy", "macro_auc", "positive_auc", "positive_sensitivity_at_90_specificity", "ece", "log_loss")


def trials() -> dict[str, dict]:
    """Return {name: {"why", "set", "shape", "teachers", "inner", "seeds"}} in the order of the file."""
    return tomllib.loads(TRIALS.read_text(encoding="utf-8"))


def recipe_of(trial: str, *, quick: bool, seed: int | None = None) -> Recipe:
    """Return the recipe of a trial; with `seed`, what it trains with, else what its pictures are split by."""
    return recipes.load(BASE, [*trials()[trial].get("set", ()), *(QUICK if quick else ()), *([] if seed is None else [f"seed={seed}"])])


def shape_of(trial: str):
    """Return the shape of a trial's network (``network.Shape``); None where it is that of its recipe."""
    from melanoma_edge.model.network import Shape

    given = trials()[trial].get("shape")
    return given and Shape(given["stem"], given["stem_kernel"], tuple(map(tuple, given["blocks"])), residual=True)


def wanted(asked: argparse.Namespace) -> list[tuple[str, int, int]]:
    """Return (trial, inner fold, seed) of each training that is asked for."""
    known = trials()
    unknown = [name for name in asked.trial or () if name not in known]
    if unknown:
        raise BadInput(f"there is no trial {unknown[0]!r}: expected one of {', '.join(known)}")
    found = []
    for name in asked.trial or known:
        found += itertools.product([name], asked.inner or known[name].get("inner", (0, 1)), asked.seed or known[name].get("seeds", (1,)))
    return found


def settings(trial: str, *, quick: bool, seed: int | None = None) -> dict:
    """Return what a training follows from: the recipe of :func:`recipe_of`, the trainings (TRIAL/SEED, on the same inner fold) that teach it, and a shape of its own."""
    shape = trials()[trial].get("shape")
    facts = {"recipe": recipe_of(trial, quick=quick, seed=seed).model_dump(mode="json"), "teachers": list(trials()[trial].get("teachers", ()))}
    return facts if shape is None else {**facts, "shape": shape}


def place(runs: Path, trial: str, inner: int, seed: int) -> Path:
    return runs / f"{trial}-{inner}-{seed}"


def train(data: Path, runs: Path, trial: str, inner: int, seed: int, *, quick: bool) -> None:
    """Do one training, in this process, on one thread."""
    from melanoma_edge.model.tensorflow import require, seed_everything

    require()
    import tensorflow as tf

    for limit in (tf.config.threading.set_intra_op_parallelism_threads, tf.config.threading.set_inter_op_parallelism_threads):
        limit(1)
    from melanoma_edge.contract import EpochRow
    from melanoma_edge.data import policy
    from melanoma_edge.data.split import inner_folds
    from melanoma_edge.files import cache_folder
    from melanoma_edge.model import network
    from melanoma_edge.model.fit import Part, fit, predict
    from melanoma_edge.model.run import named, write_tensors
    from melanoma_edge.model.step import Phase
    from melanoma_edge.model.train import read_pictures

    split_by, recipe = recipe_of(trial, quick=quick), recipe_of(trial, quick=quick, seed=seed)
    index = read_pictures(data, split_by, None, (), cache_folder(), lambda event, facts: None)
    selection = policy.select(index, split_by)
    folds = inner_folds(selection, split_by)
    labels = np.array([selection.classes.index(row.label) for row in selection.rows])
    pictures = index.pixels.view(list(selection.positions))
    training, judged = (Part(pictures.view(chosen), labels[chosen]) for chosen in ((folds >= 0) & (folds != inner), folds == inner))
    seed_everything(seed)
    model = network.build(recipe, len(selection.classes), shape=shape_of(trial))
    taught_by = [teacher(runs, name, inner, len(selection.classes), quick=quick) for name in trials()[trial].get("teachers", ())]
    checkpoint, history, figures, outputs, weights = (place(runs, trial, inner, seed) / name for name in KEPT)
    rows = [EpochRow.model_validate(row) for row in read_json(history, "a history")] if history.is_file() else []
    name = f"{trial} {inner} {seed}"

    def report(event: str, facts: dict) -> None:
        if event == "epoch" and (facts["epoch"] + 1) % 10 == 0:
            common.say(f"{name}: epoch {facts['epoch'] + 1}/{recipe.epochs}: loss {facts['loss']:.3f}, balanced accuracy {facts['validation_balanced_accuracy']:.3f}, {facts['images_per_second']:.0f} pictures/s")

    phase = Phase("float", recipe.epochs, recipe.learning_rate, recipe.warmup_share)
    fit(
        model,
        model.trainable_variables,
        phase,
        recipe,
        training,
        judged,
        file=checkpoint,
        history=rows,
        on_epoch=lambda rows: write_json(history, [row.model_dump() for row in rows]),
        report=report,
        teachers=taught_by,
    )
    write_tensors(weights, named(model.weights))
    logits = predict(model, judged.pictures)
    np.save(outputs, logits)
    facts = {
        "parameters": int(model.count_params()),
        "multiply_accumulates": network.multiply_accumulates(model),
        "training_pictures": len(training.labels),
        "judged_pictures": len(judged.labels),
        "seconds": sum(row.seconds for row in rows),
        "last_loss": rows[-1].loss,
        **judge(logits, judged.labels, selection.classes, recipe),
    }
    write_json(figures, facts)
    checkpoint.unlink()
    common.say(f"{name}: done: " + ", ".join(f"{key} {facts[key]:.3f}" for key in FIGURES))


def teacher(runs: Path, name: str, inner: int, classes: int, *, quick: bool):
    """Return the network that a training on the same pictures made: `name` is TRIAL/SEED. Raises BadInput where it is not complete."""
    from melanoma_edge.model import network
    from melanoma_edge.model.run import assign, read_tensors

    trial, seed = name.rsplit("/", 1)
    folder = place(runs, trial, inner, int(seed))
    if not (folder / KEPT[2]).is_file():
        raise BadInput(f"{folder} is not complete: train what teaches first, with --trial {trial} --inner {inner} --seed {seed}")
    model = network.build(recipe_of(trial, quick=quick), classes, shape=shape_of(trial))
    model.trainable = False
    assign(model.weights, read_tensors(folder / KEPT[4]), str(folder))
    return model


def judge(logits: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], recipe: Recipe) -> dict[str, float]:
    """Return the :data:`FIGURES` of logits; those of probabilities after the temperature that fits these very pictures best, so alike for all trials."""
    from melanoma_edge import calibration, metrics

    even = np.full(len(classes), 1 / len(classes))
    temperature = calibration.fit_temperature(logits, labels, even, even)
    probabilities = calibration.softmax(logits, temperature)
    scores = metrics.scores(probabilities, labels, classes, recipe.positive_class, replicates=2)
    of_each = -np.log(probabilities[np.arange(len(labels)), labels])
    log_loss = np.mean([of_each[labels == label].mean() for label in np.unique(labels)])  # classes alike, as balanced accuracy has them
    return {name: getattr(scores, name).value for name in FIGURES if name != "log_loss"} | {"log_loss": float(log_loss), "temperature": temperature}


def run_all(asked: argparse.Namespace, runs: Path, left: list[tuple[str, int, int]]) -> None:
    """Do the trainings `left`, as many at a time as there are lanes; raises BadInput when one failed, after the others."""
    passed = ["--here", *(["--quick"] if asked.quick else []), *(["--data", str(asked.data)] if asked.data else []), "--runs", str(runs)]
    common.in_lanes(
        {
            f"{trial} {inner} {seed}": [sys.executable, __file__, "--trial", trial, "--inner", str(inner), "--seed", str(seed), *passed]
            for trial, inner, seed in left
        },
        asked.lanes,
    )


def complete(runs: Path, published: dict[str, dict], *, quick: bool) -> dict[str, dict]:
    """Return {trial: its settings, its mean figures and those of each training} for the trials with complete trainings.

    Trainings that are `published` stay where their trial still says the same, so that `runs` need not hold all that ever were.
    """
    found = {}
    for name, trial in trials().items():
        facts = {"why": trial["why"], **settings(name, quick=quick)}
        each = dict(published[name]["each"]) if name in published and same(published[name], facts) else {}
        for folder in sorted(runs.glob(f"{name}-*-*")):
            inner, seed = folder.name.removeprefix(f"{name}-").split("-")[-2:]
            if folder.name != f"{name}-{inner}-{seed}" or not (folder / KEPT[2]).is_file():
                continue
            if not same(read_json(folder / TRIAL, "a trial"), settings(name, quick=quick, seed=int(seed))):
                common.say(f"{folder} was trained with other settings than {TRIALS.name} has now: left out")
                continue
            each[f"inner {inner}, seed {seed}"] = read_json(folder / KEPT[2], "figures of a training")
        if each:
            mean = {key: float(np.mean([one[key] for one in each.values()])) for key in next(iter(each.values()))}
            found[name] = {**facts, "mean": mean, "each": each}
    for name in published:
        if name not in found or not published[name]["each"].keys() <= found[name]["each"].keys():
            common.say(f"{name}: the published trainings were of other settings than {TRIALS.name} has now, and are published no more")
    return found


def same(one: dict, other: dict) -> bool:
    """Return whether a trial's settings are those of another; a recipe of before a key counts with that key's default."""
    kept = [{**facts, "recipe": Recipe.model_validate_json(json.dumps(facts["recipe"])).model_dump()} for facts in (one, other)]
    first, second = ({key: value for key, value in facts.items() if key not in ("why", "mean", "each")} for facts in kept)
    return first == second


def markdown(found: dict[str, dict]) -> str:
    """Return the table of the trials, the lowest log-loss first."""
    lines = [
        "| trial | what it is | balanced accuracy | macro AUC | log-loss | million MACs | thousand weights | trainings |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, trial in sorted(found.items(), key=lambda item: item[1]["mean"]["log_loss"]):
        mean = trial["mean"]
        lines.append(
            f"| `{name}` | {trial['why']} | {mean['balanced_accuracy']:.3f} | {mean['macro_auc']:.3f} | {mean['log_loss']:.3f} "
            f"| {mean['multiply_accumulates'] / 1e6:.0f} | {mean['parameters'] / 1e3:.0f} | {len(trial['each'])} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    asked = _arguments(arguments)
    data = Path(os.path.abspath(asked.data or common.data_folder()))
    runs = asked.runs or Path("runs") / ("ablation-quick" if asked.quick else "ablation")
    asked_for = wanted(asked)
    for trial, inner, seed in asked_for:  # a recipe that is wrong is refused before anything is trained
        folder, now = place(runs, trial, inner, seed), settings(trial, quick=asked.quick, seed=seed)
        known = folder / TRIAL
        if known.is_file() and not same(read_json(known, "a trial"), now):
            raise BadInput(f"{folder} was trained with other settings than {TRIALS.name} has now: move it away, or name another folder with --runs")
        if not known.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(known, now)
    left = [one for one in asked_for if not (place(runs, *one) / KEPT[2]).is_file()]
    if asked.here:
        for one in left:
            train(data, runs, *one, quick=asked.quick)
        return
    common.say(f"{len(left)} of {len(asked_for)} trainings are to be done")
    run_all(asked, runs, left)
    results = common.RESULTS / "ablation.json"
    published = read_json(results, "what benchmarks/ablation.py writes")["figures"]["trials"] if results.is_file() and not asked.quick else {}
    found = complete(runs, published, quick=asked.quick)
    if asked.markdown:
        print(markdown(found))
    figures = {"comparable": not asked.quick, "trials": found}
    common.write("ablation", figures, folder=runs if asked.quick else None)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trial", action="append", help="train this trial only; may be given several times")
    parser.add_argument("--inner", action="append", type=int, help="judge on this inner fold only (default: what the trial says, else 0 and 1)")
    parser.add_argument("--seed", action="append", type=int, help="train with this seed only (default: what the trial says, else 1)")
    parser.add_argument("--lanes", type=int, default=len(os.sched_getaffinity(0)), help="trainings side by side (default: as many as cores)")
    parser.add_argument("--here", action="store_true", help="train in this process, one after the other, and write no results")
    parser.add_argument("--quick", action="store_true", help="small pictures and two epochs, to see that everything works; says nothing, and stays out of results/")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--data", type=Path, help="the nine-class ISIC set (default: MELANOMA_EDGE_ISIC9, or ../shared/data/isic9)")
    parser.add_argument("--runs", type=Path, help="where trainings are kept (default: runs/ablation, with --quick runs/ablation-quick)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    common.run("ablation", main, kept=True)
