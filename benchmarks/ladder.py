"""What the usual notebooks report on the nine-class ISIC set, what their protocol gives here, and what is true: one table.

Five steps, each under two protocols. The notebooks' own: `Train/` as it is, from `classic-rebalanced` on with 500 Augmentor samples a class
written into it, then Keras' random 80/20 split of everything (seed 123), and the last epoch's figures. The leak-free one: the product's own
training, with conflicts between labels resolved, a split by lesion and augmentation on the training part alone, judged on the test part of
fold 0 that nothing has seen. The recipes melanoma_edge/recipes/classic*.toml hold what both share; the protocol was fixed from the
descriptions of the notebooks before the first run.

Each of the ten trainings is kept below runs/ladder/ and not done again; an interrupted one goes on after its last whole epoch.
With all ten, results/ladder.json and the plot are written; before that, they stand in the folder of the runs.

Run: python benchmarks/ladder.py [--step STEP]... [--protocol notebook|leak-free] [--quick] [--markdown]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import sys
import time
from pathlib import Path

import common
import ladder_notebook
import ladder_shown

from melanoma_edge import recipes
from melanoma_edge.contract import Recipe
from melanoma_edge.errors import BadInput
from melanoma_edge.files import read_json, sha256_file, write_bytes, write_json

REPORTED = {
    "classic": 0.539,
    "classic-augmented": 0.508,
    "classic-rebalanced": 0.82,
    "classic-dropout": 0.83,
    "classic-batchnorm": 0.844,
}
"""The steps, and the validation accuracy that notebooks on this set report for each."""
NOTEBOOK, LEAK_FREE = "notebook", "leak-free"
PROTOCOLS = (NOTEBOOK, LEAK_FREE)
QUICK = {"image_size": 48, "epochs": 2, "samples_per_class": 20, "min_lesions": 5}
PICTURES_FILE = "pictures.json"
"""Says in the folder of the runs what they were made from."""
RECIPE_FILE, FIGURES_FILE = "recipe.json", "figures.json"
"""Of a training under the notebooks' protocol: written first, and last."""


def recipe_of(step: str, *, quick: bool) -> Recipe:
    """Return the recipe of a step for both protocols: fold 0, float training only."""
    changes = ["fold=0", "qat_epochs=0"]
    if quick:
        sampled = recipes.load(step).rebalance == "augmentor"
        changes += [f"{key}={value}" for key, value in QUICK.items() if sampled or key != "samples_per_class"]
    return recipes.load(step, changes)


def training_folder(data: Path) -> Path:
    """Return the folder of class folders that a notebook would train on: `data`/Train."""
    if not (data / "Train").is_dir():
        raise BadInput(f"{data} has no folder Train: expected the nine-class ISIC set; name its folder with --data or MELANOMA_EDGE_ISIC9")
    return data / "Train"


def claim(runs: Path, data: Path) -> None:
    """Write down in the folder of the runs which pictures they are made from; raises BadInput where these are other ones."""
    files = sorted(path for path in data.rglob("*") if path.is_file())
    lines = [f"{sha256_file(path)} {path.relative_to(data).as_posix()}\n" for path in files]
    facts = {"files": len(files), "sha256": hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()}
    mark = runs / PICTURES_FILE
    if not mark.is_file():
        runs.mkdir(parents=True, exist_ok=True)
        return write_json(mark, facts)
    if read_json(mark, "what a ladder was made from") != facts:
        raise BadInput(f"{runs} holds trainings on other files than those of {data}: expected the same ones; name another folder with --runs")


def result_of(runs: Path, step: str, protocol: str, recipe: Recipe) -> dict | None:
    """Return the figures of a complete training, None of one that is not; raises BadInput when it is of another recipe."""
    return _notebook_result(runs, step, recipe) if protocol == NOTEBOOK else _leak_free_result(runs, step, recipe)


def _place(runs: Path, step: str, protocol: str) -> Path:
    return runs / f"{protocol}-{step}"


def _same_recipe(place: Path, found: object, recipe: Recipe) -> None:
    if found != recipe.model_dump(mode="json"):
        raise BadInput(f"{place} was trained with other settings than {recipe.name} has now: move it away, or name another folder with --runs")


def _notebook_result(runs: Path, step: str, recipe: Recipe) -> dict | None:
    place = _place(runs, step, NOTEBOOK)
    if (place / RECIPE_FILE).is_file():
        _same_recipe(place, read_json(place / RECIPE_FILE, "the recipe of a training"), recipe)
    return read_json(place / FIGURES_FILE, "figures of a training") if (place / FIGURES_FILE).is_file() else None


def _leak_free_result(runs: Path, step: str, recipe: Recipe) -> dict | None:
    from melanoma_edge.data.split import TRAIN
    from melanoma_edge.model.run import RUN_FILE, open_run

    place = _place(runs, step, LEAK_FREE)
    if not (place / RUN_FILE).is_file():
        return None
    run = open_run(place, complete=False)
    _same_recipe(place, run.recipe.model_dump(mode="json"), recipe)
    if run.facts.state != "complete":
        return None
    scores, rows = run.evaluation()["float"][1], run.history()
    kept = max(rows, key=lambda row: (row.validation_balanced_accuracy, -row.validation_loss))
    return {
        "classes": list(run.facts.classes),
        "parameters": run.facts.parameters,
        "training_pictures": len(run.part(TRAIN)),
        "test_pictures": scores.pictures,
        "test_lesions": scores.lesions,
        "kept_epoch": kept.epoch + 1,
        "training": kept.accuracy,
        "validation": kept.validation_accuracy,
        "training_last_epoch": rows[-1].accuracy,
        "validation_last_epoch": rows[-1].validation_accuracy,
        "accuracy": scores.accuracy.model_dump(),
        "balanced_accuracy": scores.balanced_accuracy.model_dump(),
        "recall": {name: interval.model_dump() for name, interval in scores.recall.items()},
        "seconds": run.facts.seconds["float"],
    }


class Ladder:
    """The trainings of a data set below one folder, done where they are not."""

    def __init__(self, data: Path, runs: Path, *, quick: bool) -> None:
        self.data, self.train, self.runs, self.quick = data, training_folder(data), runs, quick
        self.index = None

    def train_missing(self, step: str, protocol: str) -> None:
        """Do one training unless it is complete."""
        recipe, name = recipe_of(step, quick=self.quick), f"{protocol} {step}"
        if result_of(self.runs, step, protocol, recipe) is not None:
            return common.say(f"{name}: complete")
        common.say(f"{name}: {recipe.epochs} epochs")
        started = time.perf_counter()
        (self._notebook if protocol == NOTEBOOK else self._leak_free)(step, recipe, name)
        common.say(f"{name}: done in {time.perf_counter() - started:.0f} s")

    def results(self) -> dict[str, dict]:
        """Return {step: {"reported", "notebook", "leak-free"}}: the share reported and the figures here, None where a training is not complete."""
        found = {}
        for step, reported in REPORTED.items():
            recipe = recipe_of(step, quick=self.quick)
            found[step] = {"reported": reported, **{protocol: result_of(self.runs, step, protocol, recipe) for protocol in PROTOCOLS}}
        return found

    def _notebook(self, step: str, recipe: Recipe, name: str) -> None:
        folder = self.train
        if recipe.rebalance == "augmentor":
            folder = self.runs / f"samples-{recipe.samples_per_class}"
            if not folder.is_dir():
                common.say(f"{name}: {recipe.samples_per_class} Augmentor samples of each class into {folder}")
                ladder_notebook.add_samples(self.train, folder, recipe.samples_per_class)

        def report(facts: dict) -> None:
            common.say(f"{name}: epoch {facts['epoch'] + 1}/{recipe.epochs}: training {facts['training']:.3f}, validation {facts['validation']:.3f}")

        place = _place(self.runs, step, NOTEBOOK)
        place.mkdir(exist_ok=True)
        write_json(place / RECIPE_FILE, recipe.model_dump(mode="json"))
        write_json(place / FIGURES_FILE, ladder_notebook.train(folder, recipe, place, report))

    def _leak_free(self, step: str, recipe: Recipe, name: str) -> None:
        from melanoma_edge.files import cache_folder
        from melanoma_edge.model import train
        from melanoma_edge.model.run import RUN_FILE

        def report(event: str, facts: dict) -> None:
            if event == "epoch":
                accuracies = f"training {facts['accuracy']:.3f}, validation {facts['validation_accuracy']:.3f}"
                common.say(f"{name}: epoch {facts['epoch'] + 1}/{recipe.epochs}: {accuracies}")

        if self.index is None:  # all steps take the same pictures at the same size
            self.index = train.read_pictures(self.data, recipe, None, (), cache_folder(), lambda event, facts: None)
        place = _place(self.runs, step, LEAK_FREE)
        train.train(self.data, recipe, place, index=self.index, resume=(place / RUN_FILE).is_file(), command=f"benchmarks/ladder.py --step {step}", report=report)


def main(arguments: list[str] | None = None) -> None:
    asked = _arguments(arguments)
    data = Path(os.path.abspath(asked.data or common.data_folder()))
    runs = asked.runs or Path("runs") / ("ladder-quick" if asked.quick else "ladder")
    ladder = Ladder(data, runs, quick=asked.quick)  # refuses other data before anything is written
    claim(runs, data)
    for step in asked.step or REPORTED:  # the protocols in turn, so that every line of the table is soon whole
        for protocol in asked.protocol or PROTOCOLS:
            ladder.train_missing(step, protocol)
    steps = ladder.results()
    unfinished = [f"{protocol} {step}" for step, row in steps.items() for protocol in PROTOCOLS if row[protocol] is None]
    why_not = "--quick: small pictures and two epochs say nothing" if asked.quick else f"not complete: {', '.join(unfinished)}" if unfinished else None
    figures = {
        "comparable": why_not is None,
        "not_comparable_because": why_not,
        "note": ladder_shown.NOTE,
        "pictures": read_json(runs / PICTURES_FILE, "what a ladder was made from"),
        "recipes": {step: recipe_of(step, quick=asked.quick).model_dump(mode="json") for step in REPORTED},
        "steps": steps,
    }
    if asked.markdown:
        print(ladder_shown.markdown(steps))
    else:
        ladder_shown.show(steps)
    with contextlib.redirect_stdout(sys.stderr):
        common.write("ladder", figures, folder=runs if why_not else common.RESULTS)
    plot = asked.plot or (runs if why_not else Path(__file__).parents[1] / "docs") / "ladder.png"
    write_bytes(plot, ladder_shown.plot(steps))
    common.say(f"{plot}: the plot")
    if why_not:
        common.say(f"not comparable: {why_not}")


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--step", action="append", choices=list(REPORTED), help="train this step only; may be given several times")
    parser.add_argument("--protocol", action="append", choices=PROTOCOLS, help="train under this protocol only")
    parser.add_argument("--quick", action="store_true", help="small pictures and two epochs, to see that everything works; says nothing, and stays out of results/")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--data", type=Path, help="the nine-class ISIC set, with Train/ (default: MELANOMA_EDGE_ISIC9, or ../shared/data/isic9)")
    parser.add_argument("--runs", type=Path, help="where trainings are kept (default: runs/ladder, with --quick runs/ladder-quick)")
    parser.add_argument("--plot", type=Path, help="where the plot goes (default: docs/ladder.png when all is complete)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    common.run("ladder", main, kept=True)
