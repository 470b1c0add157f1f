"""What the default recipe comes to, and the reference bundle with it: the figures of its cross-validation, held against what was aimed at.

Reads what `python samples/make_reference.py` leaves: the runs of all folds, their bundles and samples/reference.bundle. Nothing is trained, and no figure is made here
that is not in those files.

How long a fold takes is told by one that had all cores, where there is one: `melanoma-edge train --repeat runs/reference-folds/fold-0 --out runs/reference-timed`.

Run: python benchmarks/reference.py [--markdown]
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections import Counter
from pathlib import Path

import common
import numpy as np
import reference_shown

from melanoma_edge import calibration, resampling, selective
from melanoma_edge.contract import CrossValidation, Scores
from melanoma_edge.convert.bundle import EVIDENCE, Bundle, open_bundle
from melanoma_edge.errors import BadInput
from melanoma_edge.files import write_bytes
from melanoma_edge.model.folds import open_folds
from melanoma_edge.model.run import Run, open_run
from melanoma_edge.proof.cross_validation import CROSS_VALIDATION_FILE, answers_of
from melanoma_edge.proof.export import test_logits
from melanoma_edge.proof.parity_model import Parity
from melanoma_edge.proof.quoted import FREE, read_cross_validation
from melanoma_edge.proof.verify import PARITY_FILE

REPOSITORY = Path(__file__).parents[1]
SHOWN = (
    "balanced_accuracy", "accuracy", "macro_auc", "positive_auc", "positive_sensitivity_at_90_specificity", "ece", "ece_at_priors", "positive_sensitivity_of_decision",
    "positive_specificity_of_decision", "coverage_of_decision", "accuracy_of_answers",
)  # fmt: skip
BY_CLASS = ("recall", "positive_auc_against", "called_positive")
TARGETS = {
    "balanced_accuracy": (0.72, 0.80),
    "macro_auc": (0.94, 0.97),
    "positive_auc": (0.92, 0.95),
    "positive_sensitivity_at_90_specificity": (0.72, 0.85),
    "ece": (0.06, 0.03),
    "int8_minus_float32": (-0.01, 0.0),
    "bytes": (400_000, 250_000),
    "multiply_accumulates": (80_000_000, 40_000_000),
    "minutes": (30, None),
}
"""What was aimed at, and what would be better still: of the int8 TFLite file, all folds pooled. The last is for one fold on two processor cores."""
TIMED = REPOSITORY / "runs" / "reference-timed"
"""A fold of the default recipe, trained once more with no other training beside it."""
REPLICATES = 1000
OF_ONE_FOLD = ("balanced_accuracy", "positive_sensitivity_of_decision", "positive_specificity_of_decision", "ece", "ece_at_priors")
"""What a single model comes to, which is what an application runs: shown from the lowest fold to the highest."""
AT_MOST = ("ece", "bytes", "multiply_accumulates", "minutes")
"""Where less is better."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markdown", action="store_true", help="print the table of the README")
    asked = parser.parse_args()
    folds = REPOSITORY / "runs" / "reference-folds"
    crossed = REPOSITORY / "bundles" / "reference-folds"
    found = read_cross_validation(crossed / CROSS_VALIDATION_FILE)
    shipped = open_bundle(REPOSITORY / "samples" / "reference.bundle")
    if shipped.manifest.cross_validation != found:
        raise BadInput(f"{shipped.path} quotes another cross-validation than {crossed} holds: make both with `python samples/make_reference.py`")
    timed = open_timed(TIMED)
    figures = figures_of(found, open_folds(folds).runs(), [open_bundle(crossed / fold.bundle) for fold in found.folds], shipped, timed)
    if asked.markdown:
        print(reference_shown.markdown(figures))
    else:
        reference_shown.show(figures)
    with contextlib.redirect_stdout(sys.stderr):
        common.write("reference", figures, TARGETS)
    plot = REPOSITORY / "docs" / "reference.png"
    write_bytes(plot, reference_shown.plot(found, *artifacts_of(found)))
    common.say(f"{plot}: the plot")


def artifacts_of(found: CrossValidation) -> tuple[str, str]:
    """Return the names of the int8 and the float32 TFLite file of every fold."""
    return f"{found.recipe.name}-int8.tflite", f"{found.recipe.name}-float32.tflite"


def figures_of(found: CrossValidation, runs: list[Run], bundles: list[Bundle], shipped: Bundle, timed: Run | None = None) -> dict:
    """Return what is published of a cross-validation, the runs and bundles of its folds, the bundle that quotes it, and a fold that was trained again with no other training beside it."""
    names = artifacts_of(found)
    int8, float32 = map(found.artifact, names)
    minutes, alone = [minutes_of(run) for run in runs], None if timed is None else repeated(timed, runs)
    loss = next(one for one in found.comparisons if (one.candidate, one.reference) == names).losses["balanced_accuracy"]
    gates = [gate for bundle in bundles for gate in Parity.model_validate_json((bundle.path / EVIDENCE / PARITY_FILE).read_bytes()).gates]
    published = {
        "pictures": found.pictures,
        "lesions": found.lesions,
        "classes": list(found.classes),
        "positive_class": found.positive_class,
        "int8": _scores(int8.pooled),
        "float32": _scores(float32.pooled),
        "int8_minus_float32": {"value": -loss.value, "low": -loss.high, "high": -loss.low},
        "each_fold": {name: [getattr(bundle.manifest.artifact(names[0]).scores, name).value for bundle in bundles] for name in OF_ONE_FOLD},
        "called_positive_over_folds": {name: spread.model_dump() for name, spread in int8.called_positive.items()},
        "thresholds": [threshold.model_dump(mode="json") for threshold in int8.thresholds],
        "shipped_threshold": shipped.manifest.artifact(names[0]).decision.operating().model_dump(mode="json"),
        "abstention": abstaining(runs, bundles, names[0]),
        "fold_0": _scores(bundles[0].manifest.artifact(names[0]).scores),
        "by_fold": {name: {"mean": one.mean, "sd": one.sd} for name, one in int8.figures.items() if name in SHOWN},
        "bytes": {artifact.name: artifact.bytes for artifact in shipped.manifest.artifacts},
        "bundle_bytes": sum(file.stat().st_size for file in shipped.path.rglob("*") if file.is_file()),
        "multiply_accumulates": runs[0].facts.multiply_accumulates,
        "parameters": runs[0].facts.parameters,
        "seconds": [run.facts.seconds for run in runs],
        "minutes": {"each": minutes, "most": max(minutes), "alone": alone},
        "peak_memory_bytes": max(run.facts.peak_memory_bytes for run in runs),
        "gates": {outcome: count for outcome, count in sorted(Counter(gate.outcome for gate in gates).items())},
        "gates_not_passed": [f"{gate.name} of {gate.artifact} on {gate.runtime}: {gate.outcome}: {gate.reason}" for gate in gates if gate.outcome != "passed"],
    }
    measured = {
        **{name: published["int8"][name]["value"] for name in TARGETS if name in published["int8"]},
        "int8_minus_float32": -loss.value,
        "bytes": published["bytes"][names[0]],
        "multiply_accumulates": published["multiply_accumulates"],
        "minutes": max(minutes) if alone is None else alone["minutes"],
    }
    return published | {"judged": {name: judged(name, value) for name, value in measured.items()}}


def minutes_of(run: Run) -> float:
    return sum(run.facts.seconds.values()) / 60


def open_timed(path: Path) -> Run | None:
    """Return the fold at `path`, which was trained again; None where there is none, or where it is not complete."""
    if not path.is_dir():
        return None
    run = open_run(path, complete=False)
    if run.facts.state == "complete":
        return run
    common.say(f"{path} is not complete and left out: melanoma-edge train --resume --out {path}")
    return None


def repeated(timed: Run, runs: list[Run]) -> dict:
    """Return the fold that `timed` is, its minutes, and whether its weights came out the same; raises BadInput where it is none of the `runs` once more."""
    mine = timed.recipe.model_dump()
    for fold, run in enumerate(runs):
        if timed.split == run.split:
            theirs = run.recipe.model_dump()
            if other := [key for key in mine if key not in FREE and mine[key] != theirs[key]]:
                raise BadInput(f"{timed.path} has another recipe than the folds ({', '.join(other)}): train it again, or move it away")
            return {"fold": fold, "minutes": minutes_of(timed), "same_weights": timed.facts.weights == run.facts.weights}
    raise BadInput(f"{timed.path} has another split than any of the folds: train it again with `melanoma-edge train --repeat {runs[0].path} --out {timed.path}`, or move it away")


def abstaining(runs: list[Run], bundles: list[Bundle], name: str) -> dict:
    """Return how well confidence and energy tell each fold's mistakes (AURC, lower is better) and how many drawn pictures without a lesion each answers, by the file `name`."""
    folds = [answers_of(run, bundle, name, test_logits(bundle)[name]) for run, bundle in zip(runs, bundles, strict=True)]
    wrong = [fold.probabilities.argmax(axis=1) != fold.labels for fold in folds]
    sure = {method: [calibration.certainty(method, fold.probabilities, fold.logits) for fold in folds] for method in ("confidence", "energy")}
    parts = np.split(np.arange(sum(map(len, wrong))), np.cumsum(list(map(len, wrong)))[:-1])

    def lost(weights: np.ndarray) -> dict[str, np.ndarray]:
        """Return what energy loses against confidence in resamples of the pictures, folds apart since their energies have scales of their own."""
        each = []
        for row in weights:
            drawn = [np.repeat(np.arange(len(part)), row[part].astype(np.int64)) for part in parts]
            areas = {method: [selective.area_under_risk(one[rows], mine[rows]) for one, mine, rows in zip(found, wrong, drawn)] for method, found in sure.items()}
            each.append(np.mean(areas["energy"]) - np.mean(areas["confidence"]))
        return {"lost": np.array(each)}

    rates = [{rate.method: rate for rate in bundle.manifest.artifact(name).non_lesions.rates} for bundle in bundles]
    groups = np.concatenate([fold.groups for fold in folds])
    return {
        "area_each_fold": {method: [selective.area_under_risk(one, mine) for one, mine in zip(found, wrong)] for method, found in sure.items()},
        "energy_minus_confidence": resampling.intervals(lost, resampling.units_of(groups, len(groups)), REPLICATES, 0)["lost"].model_dump(),
        "non_lesions": bundles[0].manifest.artifact(name).non_lesions.pictures,
        "non_lesions_answered_each_fold": {method: [rate[method].answered for rate in rates] for method in sure},
    }


def _scores(scores: Scores) -> dict:
    by_class = {figure: {name: one.model_dump() for name, one in getattr(scores, figure).items()} for figure in BY_CLASS}
    return {name: getattr(scores, name).model_dump() for name in SHOWN} | by_class


def judged(name: str, value: float) -> dict:
    """Return a figure beside its target and stretch (None where there is none), with its outcome: `stretch`, `reached` or `missed`."""
    target, stretch = TARGETS[name]
    sign = -1 if name in AT_MOST else 1
    further = stretch is not None and sign * value >= sign * stretch
    return {"value": value, "target": target, "stretch": stretch, "outcome": "stretch" if further else "reached" if sign * value >= sign * target else "missed"}


if __name__ == "__main__":
    common.run("reference", main)
