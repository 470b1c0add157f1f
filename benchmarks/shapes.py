"""Two networks trained by the same recipe on the same folds, side by side: what the second loses of what the first knows.

Reads what `train --folds` and `export` of both left (their runs, and the bundles with the logits of the test parts). Every picture is judged once by each, by files of models that saw
neither it nor, where it is known, its lesion; the differences are paired, with 95 % intervals over resampled lesions. Nothing is trained.

Run: python benchmarks/shapes.py [--base RUNS BUNDLES] [--new RUNS BUNDLES] [--results FOLDER]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import common
import numpy as np

from melanoma_edge.contract import CrossValidation, Interval
from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.errors import BadInput
from melanoma_edge.model.folds import Answers, open_folds
from melanoma_edge.paired import lost_share
from melanoma_edge.proof.cross_validation import CROSS_VALIDATION_FILE, answers_of, lost
from melanoma_edge.proof.export import test_logits
from melanoma_edge.proof.quoted import FREE, read_cross_validation
from melanoma_edge.resampling import units_of

PRECISIONS = ("int8", "float32")
SHOWN = ("balanced_accuracy", "accuracy", "macro_auc", "positive_auc", "positive_sensitivity_at_90_specificity", "positive_sensitivity_of_decision", "positive_specificity_of_decision", "ece")


@dataclass(frozen=True)
class Network:
    """One network: its cross-validation, and what its files say of each fold."""

    found: CrossValidation
    answers: dict[str, list[Answers]]
    parameters: int
    multiply_accumulates: int
    minutes: list[float]


def opened(folds: Path, bundles: Path) -> Network:
    """Open a network's folds; raises BadInput where they are not exported with their logits."""
    found = read_cross_validation(bundles / CROSS_VALIDATION_FILE)
    runs, exported = open_folds(folds).runs(), [open_bundle(bundles / fold.bundle) for fold in found.folds]
    if [run.facts.weights for run in runs] != [fold.weights for fold in found.folds]:
        raise BadInput(f"{bundles} is not of {folds}: export them again with `melanoma-edge export {folds} --out {bundles}`")
    said = [test_logits(bundle) for bundle in exported]
    answers = {}
    for precision in PRECISIONS:
        name = f"{found.recipe.name}-{precision}.tflite"
        answers[precision] = [answers_of(run, bundle, name, logits[name]) for run, bundle, logits in zip(runs, exported, said, strict=True)]
    first = runs[0].facts
    return Network(found, answers, first.parameters, first.multiply_accumulates, [sum(run.facts.seconds.values()) / 60 for run in runs])


def changed(base: CrossValidation, new: CrossValidation) -> dict:
    """Return {key: (base, new)} of the recipe's keys that differ; raises BadInput where the pictures or the folds do."""
    if (base.data_sha256, len(base.folds), base.classes) != (new.data_sha256, len(new.folds), new.classes):
        raise BadInput("the two were trained on other pictures, or in other folds: expected the same, which alone can be paired")
    mine, theirs = (one.recipe.model_dump(mode="json") for one in (base, new))
    return {key: [mine[key], theirs[key]] for key in mine if key not in FREE and mine[key] != theirs[key]}


def facts(network: Network) -> dict:
    """Return what is published of one network."""
    pooled = {precision: network.found.artifact(f"{network.found.recipe.name}-{precision}.tflite").pooled for precision in PRECISIONS}
    return {
        "network": network.found.recipe.network,
        "parameters": network.parameters,
        "multiply_accumulates": network.multiply_accumulates,
        "minutes_each_fold": network.minutes,
        **{precision: {name: getattr(scores, name).model_dump() for name in SHOWN} for precision, scores in pooled.items()},
    }


def gained(base: Network, new: Network) -> dict:
    """Return {precision: {figure: new minus base with its interval}, and how many first answers differ}."""
    found = {}
    for precision in PRECISIONS:
        losses, flips = lost(base.answers[precision], new.answers[precision], base.found.classes, base.found.positive_class)
        called = {}
        if base.found.positive_class is not None:
            losses |= {"positive_specificity": kept(base, new, precision)}
            called = {"called_positive": {name: kept(base, new, precision, name).model_dump() for name in base.found.classes if name != base.found.positive_class}}
        found[precision] = {**{name: _turned(loss) for name, loss in losses.items() if loss.low is not None}, **called, "other_first_answers": flips}
    return found


def kept(base: Network, new: Network, precision: str, only: str | None = None) -> Interval:
    """Return the share of the pictures of all other classes, or of the class `only`, that `base` does not call positive, less that of `new`: each fold at its own threshold.

    What is lost there is called positive in addition.
    """
    positive = base.found.classes.index(base.found.positive_class)
    below = [np.concatenate([one.probabilities[:, positive] < one.decision.operating().probability for one in of]) for of in (base.answers[precision], new.answers[precision])]
    labels, groups = (np.concatenate([getattr(one, name) for one in base.answers[precision]]) for name in ("labels", "groups"))
    members = labels != positive if only is None else labels == base.found.classes.index(only)
    return lost_share(*below, members, units_of(groups, len(labels)))


def _turned(loss: Interval) -> dict:
    return {"value": -loss.value, "low": -loss.high, "high": -loss.low}


def main(arguments: list[str] | None = None) -> None:
    asked = _arguments(arguments)
    base, new = opened(*asked.base), opened(*asked.new)
    common.write(
        "shapes",
        {"recipe_differs_in": changed(base.found, new.found), "pictures": base.found.pictures, "base": facts(base), "new": facts(new), "new_minus_base": gained(base, new)},
        folder=asked.results,
    )


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, place in (("base", "edge-residual-folds"), ("new", "reference-folds")):
        default = [Path("runs") / place, Path("bundles") / place]
        parser.add_argument(f"--{name}", nargs=2, type=Path, metavar=("RUNS", "BUNDLES"), default=default, help=f"folder of folds, and of their bundles (default: {default[0]} {default[1]})")
    parser.add_argument("--results", type=Path, help="the folder of shapes.json (default: benchmarks/results)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    common.run("shapes", main)
