"""All folds of a data set: every picture is tested once, by a model that saw neither it nor its group.

In: a data folder and a recipe. Out: a folder with a complete run for each fold, and what they come to together::

    OUT/
      folds.json         figures of each fold, mean and spread over folds, pooled figures with intervals
      fold-0/ fold-1/ …  a run each (:mod:`melanoma_edge.model.run`), as training with `fold` set makes it

Mean and spread say how much the figures move with the split and the training; the spread is no standard
error, for folds share training pictures (Bengio and Grandvalet 2004, "No unbiased estimator of the variance of k-fold
cross-validation"). Pooled figures use all pictures at once and so have the narrowest intervals; figures that rank pictures
(AUC, best thresholds) rank those of different models together there, which counts differences in their calibration as mistakes: the
mean over folds beside them does not (Forman and Scholz 2010, "Apples-to-apples in cross-validation studies").
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from melanoma_edge import host, metrics, recipes
from melanoma_edge.contract import FOLDS, Across, Computation, Decision, Interval, Recipe, Scores, Spread
from melanoma_edge.data import policy
from melanoma_edge.data.index import printable
from melanoma_edge.data.split import PARTS, TEST, absent_from_test, data_hash, selection_hash, split
from melanoma_edge.errors import BadInput
from melanoma_edge.files import read_json, refuse_existing, write_json
from melanoma_edge.model import run as runs
from melanoma_edge.model.folds_model import FOLDS_SCHEMA_VERSION, FoldRun, FoldsFacts
from melanoma_edge.model.devices import Asked, MixedPrecision, open_devices
from melanoma_edge.model.train import read_pictures, refuse_renamed, train
from melanoma_edge.model.workers import cluster

@dataclass(frozen=True)
class Folds:
    """An opened folder of folds."""

    path: Path
    facts: FoldsFacts

    def runs(self) -> list[runs.Run]:
        """Open the runs of the folds that are complete."""
        return [runs.open_run(self.path / fold.run) for fold in self.facts.runs]


@dataclass(frozen=True)
class Answers:
    """What the model of one fold, a network or an artifact, says of its test part."""

    decision: Decision
    scores: Scores
    probabilities: np.ndarray
    """float64 [n, classes], under that model's own temperature and priors."""
    logits: np.ndarray
    """float32 [n, classes]."""
    labels: np.ndarray
    """int [n], positions in the classes."""
    groups: np.ndarray
    """int [n], the same numbers in all folds."""
    deployment: np.ndarray
    """float64 [classes], the class priors that the probabilities are corrected to."""


def train_folds(
    data: Path | None,
    recipe: Recipe | None,
    out: Path,
    folds: int | None = None,
    *,
    metadata: Path | None = None,
    licences: Sequence[str] = (),
    cache: Path | None = None,
    resume: bool = False,
    device: Asked | None = None,
    mixed_precision: MixedPrecision | None = None,
    xla: bool = False,
    command: str = "melanoma_edge.model.folds.train_folds",
    report=lambda event, facts: None,
) -> Folds:
    """Train every one of `folds` folds (the recipe's number without it) of the pictures below `data` and return the
    complete folder `out`. The validation part of each is one of as many inner folds, unless the recipe states another number of them.

    With `resume`, an interrupted folder goes on at the fold where it was (its own recipe counts, and its own data set unless
    `data` says where that is now); complete folds are kept. The pictures are read once. Metadata, cache, `device`, `mixed_precision`, `xla` and `report` are those of :func:`melanoma_edge.model.train.train`,
    with one more event, "fold", before each. That every fold can be made of the data is checked before the first is trained. Raises
    BadInput for bad data, a recipe that asks for one fold only, data that changed and several workers; Missing as `train` does.
    """
    out = Path(out)
    if cluster():
        raise BadInput("TF_CONFIG names several workers, which train one run at a time: train every fold by itself (--set fold=0 and so on), or unset TF_CONFIG")
    with contextlib.ExitStack() as stack:
        facts = None
        if resume:
            facts = open_folds(out).facts
            if facts.state == "complete":
                return Folds(out, facts)
            stack.enter_context(runs.held(out))
            facts = open_folds(out).facts  # as the process before us left it
            recipe, licences = facts.recipe, facts.licences
            if facts.computation:
                device, mixed_precision, xla = device or facts.computation.device, facts.computation.mixed_precision, facts.computation.xla
            if data is None:
                data, metadata = Path(facts.data), metadata or (Path(facts.metadata) if facts.metadata else None)
        else:
            recipe = _of_all(recipe, folds)
            runs.clear_unbegun(out)
            refuse_existing(out, force=None)
        devices = open_devices(device or "auto").computing(recipe, mixed_precision, xla)
        index = read_pictures(data, recipe, metadata, licences, cache, report)
        selection = policy.select(index, recipe)
        plans = [_plan(selection, recipe.model_copy(update={"fold": fold})) for fold in range(recipe.folds)]
        sha256 = selection_hash(selection)
        if facts is None:
            stack.enter_context(runs.held(out))
            if (out / runs.FOLDS_FILE).exists():  # reading the pictures took a while
                raise BadInput(f"{out} exists already: another process made it meanwhile; choose another --out")
            facts = _begin(out, data, metadata, licences, recipe, selection, sha256, devices.computation, command)
        elif sha256 != facts.data_sha256:
            raise BadInput(f"{data} changed since {out} began (data hash {sha256[:12]}..., was {facts.data_sha256[:12]}...): start anew with another --out")
        for fold in facts.runs:  # what a fold would be refused for after days is refused before the next is trained
            refuse_renamed(data, selection, runs.open_run(out / fold.run))
        facts = _write(out, facts, **_places(data, metadata))
        for number, (own, fold_sha256, absent) in enumerate(plans):
            folder = out / f"fold-{number}"
            begun = _is_begun(folder, own, fold_sha256)
            report("fold", {"fold": number, "folds": len(plans), "resumed": begun})
            computed = {"device": devices.computation.device, "mixed_precision": mixed_precision, "xla": xla}
            run = train(data, own, folder, metadata=metadata, licences=licences, cache=cache, index=index, resume=begun, command=command, report=report, **computed)
            _forget()
            facts = _write(out, facts, runs=(*facts.runs[:number], _fold(run, number, absent)))
        facts = _write(out, facts, networks=_together([runs.open_run(out / fold.run) for fold in facts.runs]), state="complete")
        return Folds(out, facts)


def open_folds(path: Path) -> Folds:
    """Open the folder of folds `path`; raises BadInput when it is none, damaged or of a newer schema version."""
    file = Path(path) / runs.FOLDS_FILE
    raw = read_json(file, "what `melanoma-edge train --folds` writes")
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > FOLDS_SCHEMA_VERSION:
        raise BadInput(
            f"{file} has schema version {version}: this melanoma-edge reads up to {FOLDS_SCHEMA_VERSION}; upgrade with `pip install --upgrade melanoma-edge`"
        )
    try:
        return Folds(Path(path), FoldsFacts.model_validate_json(json.dumps(raw)))
    except ValidationError as error:
        raise BadInput(f"{file} is not valid: {recipes.explain(error)}; train again") from None


def spread(values: Iterable[float | None]) -> Spread:
    """Return mean, standard deviation and ends of the `values` that are not None."""
    defined = [value for value in values if value is not None]
    return Spread(
        mean=statistics.fmean(defined) if defined else None,
        sd=statistics.stdev(defined) if len(defined) > 1 else None,
        lowest=min(defined, default=None),
        highest=max(defined, default=None),
        folds=len(defined),
    )


def across(folds: Sequence[Answers], classes: Sequence[str], positive_class: str | None) -> Across:
    """Return what one network or artifact comes to over all `folds`: mean and spread, and all pictures pooled, each under its own fold's decision.

    Where deployment priors are the frequencies in the data, those of the folds differ a little: pooled pictures are weighed by their mean.
    """
    pooled = metrics.scores(
        np.concatenate([fold.probabilities for fold in folds]), np.concatenate([fold.labels for fold in folds]), classes, positive_class,
        decision=[fold.decision for fold in folds for _ in fold.labels], logits=np.concatenate([fold.logits for fold in folds]),
        groups=np.concatenate([fold.groups for fold in folds]), priors=np.mean([fold.deployment for fold in folds], axis=0),
    )  # fmt: skip
    scored = [fold.scores for fold in folds]
    return Across(
        figures={name: spread(_value(getattr(scores, name)) for scores in scored) for name in _figures(pooled)},
        recall={name: spread(scores.recall[name].value for scores in scored) for name in classes},
        called_positive=None if pooled.called_positive is None else {name: spread(_value((scores.called_positive or {}).get(name)) for scores in scored) for name in pooled.called_positive},
        pooled=pooled,
    )


def refuse_misfits(folds: Sequence[runs.Run]) -> None:
    """Raise BadInput for runs of which the test parts are not all pictures once, with the same classes and groups."""
    first = folds[0]
    everything = {(row.path, row.sha256, row.label, row.group) for row in first.split}
    tested = [(row.path, row.sha256, row.label, row.group) for run in folds for row in run.part(TEST)]
    same = all(run.facts.classes == first.facts.classes and set(run.facts.weights) == set(first.facts.weights) for run in folds)
    if not same or len(tested) != len(everything) or set(tested) != everything:
        raise BadInput(f"the folds of {first.path.parent} do not fit together: some are of other data; start anew with another --out")


def _of_all(recipe: Recipe, folds: int | None) -> Recipe:
    """Return the recipe of all folds; raises BadInput for one that asks for a single fold and for a wrong number."""
    if (recipe.folds if folds is None else folds) == 1:
        raise BadInput(f"1 fold leaves nothing to test: ask for --folds {FOLDS}, or train one model on everything with --set folds=1 and without --folds")
    if recipe.fold:
        raise BadInput(f"the recipe asks for fold {recipe.fold} alone and --folds for all: leave out one of them")
    stated = recipe.model_dump(exclude_unset=True)  # what followed from the recipe's own number of folds, as the validation part did, follows from the one that is asked for
    return recipes.parse({**stated, "folds": recipe.folds if folds is None else folds}, recipe.name)


def _plan(selection: policy.Selection, recipe: Recipe) -> tuple[Recipe, str, list[str]]:
    """Return (recipe, data hash, classes absent from the test part) of a fold."""
    parts = split(selection, recipe)
    return recipe, data_hash(selection, parts), absent_from_test(selection, parts)


def _begin(out: Path, data: Path, metadata: Path | None, licences: Sequence[str], recipe: Recipe, selection: policy.Selection, sha256: str, computation: Computation, command: str) -> FoldsFacts:
    facts = FoldsFacts(
        state="training",
        command=command,
        **_places(data, metadata),
        licences=tuple(licences),
        data_sha256=sha256,
        recipe=recipe,
        classes=selection.classes,
        pictures=len(selection.rows),
        groups=len(set(selection.groups)),
        runs=(),
        networks={},
        conditions=host.conditions(),
        computation=computation,
    )
    return _write(out, facts)


def _places(data: Path, metadata: Path | None) -> dict:
    """Return where the data set is, for folds.json."""
    return {"data": printable(os.path.abspath(data)), "metadata": printable(os.path.abspath(metadata)) if metadata else None}


def _write(out: Path, facts: FoldsFacts, **changes) -> FoldsFacts:
    """Write folds.json with `changes` applied and return the new facts."""
    facts = facts.model_copy(update=changes)
    write_json(out / runs.FOLDS_FILE, facts.model_dump(mode="json"))
    return facts


def _is_begun(folder: Path, recipe: Recipe, sha256: str) -> bool:
    """Return whether `folder` holds this fold's run; what an interruption left before it began is removed.

    Raises BadInput for another run.
    """
    if (folder / runs.RUN_FILE).is_file():
        run = runs.open_run(folder, complete=False)
        if run.recipe != recipe or run.facts.data_sha256 != sha256:
            raise BadInput(f"{folder} is a run of another recipe or other data: move it away, or start anew with another --out")
        return True
    runs.clear_unbegun(folder)
    return False


def _forget() -> None:
    """Let TensorFlow drop the networks of the fold that is done."""
    import gc

    import tf_keras as keras

    keras.backend.clear_session()
    gc.collect()


def _fold(run: runs.Run, number: int, absent: list[str]) -> FoldRun:
    return FoldRun(
        fold=number,
        run=run.path.name,
        pictures={part: len(run.part(part)) for part in PARTS},
        absent_from_test=tuple(absent),
        data_sha256=run.facts.data_sha256,
        weights=run.facts.weights,
        seconds=sum(run.facts.seconds.values()),
        scores={which: scores for which, (_, scores) in run.evaluation().items()},
    )


def _together(folds: list[runs.Run]) -> dict[runs.Which, Across]:
    """Return what the runs of all folds come to, for each network that they trained."""
    refuse_misfits(folds)
    return {which: across([_answers(run, which) for run in folds], folds[0].facts.classes, folds[0].recipe.positive_class or None) for which in folds[0].facts.weights}


def _answers(run: runs.Run, which: runs.Which) -> Answers:
    """Return what a network of a fold says of its test part."""
    decision, scores = run.evaluation()[which]
    rows, logits = run.part(TEST), run.logits()[f"{which}/{TEST}"]
    if len(rows) != len(logits):
        raise BadInput(f"{run.path / runs.LOGITS_FILE} does not fit the split of the run: train again")
    labels, groups = run.truth(TEST)
    return Answers(decision, scores, run.probabilities(which, TEST), logits, labels, groups, run.priors()[1])


def _figures(scores: Scores) -> list[str]:
    return [name for name in Scores.model_fields if isinstance(getattr(scores, name), Interval)]


def _value(figure: Interval | None) -> float | None:
    return figure.value if figure else None
