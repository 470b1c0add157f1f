"""The artifacts of all folds, and what they come to together.

In: a complete folder of folds (:mod:`melanoma_edge.model.folds`). Out: a folder with a bundle of each fold and, last::

    OUT/
      fold-0.bundle/ fold-1.bundle/ …  as exporting each run makes them; evidence/ also holds the logits of the test part
      cross-validation.json            every picture judged once, by files of a model that saw neither it nor (where it is known) its lesion

An interruption loses the fold in progress: bundles that are there are kept when the same is asked again. A run that was trained on
everything by the same recipe may quote the file, since none of its own pictures can say what it is worth
(Hastie, Tibshirani and Friedman 2009, "The Elements of Statistical Learning", 7.10: cross-validation estimates what the
procedure is worth on average over training sets, not this very model).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from melanoma_edge import NOTICE, calibration, metrics, paired
from melanoma_edge.contract import INTEGER, Artifact, Comparison, CrossValidated, CrossValidation, FoldBundle, Interval, Manifest, Recipe
from melanoma_edge.convert.bundle import EVIDENCE, MANIFEST, Bundle, open_bundle
from melanoma_edge.data.policy import without_lesion_id
from melanoma_edge.data.split import TEST, grouped_hash
from melanoma_edge.errors import BadInput
from melanoma_edge.files import explained, refuse_existing, sha256_file, write_json
from melanoma_edge.model import run as runs
from melanoma_edge.model.folds import Answers, across, open_folds, refuse_misfits
from melanoma_edge.proof.export import export, test_logits
from melanoma_edge.proof.export_plan import made_alike
from melanoma_edge.proof.parity_model import Parity
from melanoma_edge.proof.quoted import read_cross_validation
from melanoma_edge.proof.verify import PARITY_FILE

CROSS_VALIDATION_FILE = "cross-validation.json"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """The bundles of all folds and what they come to."""

    path: Path
    """Of cross-validation.json."""
    result: CrossValidation
    parities: dict[str, Parity]
    """The gates of each fold's bundle, by its folder's name."""


def export_folds(
    folds: Path, out: Path, *, data: Path | None = None, force: bool = False, command: str = "melanoma_edge.proof.cross_validation.export_folds",
    progress: Progress = lambda line: None, **options: Any,
) -> Exported:  # fmt: skip
    """Export the run of each fold in the folder `folds` to OUT/fold-K.bundle, pool what their artifacts say of their own test parts and write OUT/cross-validation.json.

    `data`, `options` (formats, precisions, layout, head, coreml, licence, attributions, remarks) and `progress` are those of :func:`melanoma_edge.proof.export.export`. A bundle that was exported from the
    same run with the same options before is kept; with `force`, none is, and others are replaced. Raises BadInput for folds that are incomplete or do not fit
    together, for a bundle of something else in the place of a fold's and as `export` does; nothing is trained.
    """
    out = Path(out)
    if (out / MANIFEST).is_file():
        raise BadInput(f"{out} is a bundle, and folds are exported to a folder of bundles: choose another --out")
    opened = open_folds(folds)
    if opened.facts.state != "complete":
        raise BadInput(f"the folds {folds} are incomplete: finish them with `melanoma-edge train --resume --out {folds}`")
    trained = opened.runs()
    refuse_misfits(trained)
    _refuse_other_folds(out / CROSS_VALIDATION_FILE, trained, force)
    found = [None if force else _kept(out / f"{run.path.name}.bundle", run, options) for run in trained]  # what is in the way is refused before hours of work
    parities: dict[str, Parity] = {}
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
    for number, run in enumerate(trained):
        bundle = out / f"{run.path.name}.bundle"
        where = f"fold {number + 1}/{len(trained)}: "
        if found[number] is not None:
            progress(f"{where}{bundle} is there already and is kept")
            parities[bundle.name] = found[number]
        else:
            step = lambda line, where=where: progress(where + line)
            parities[bundle.name] = export(run.path, bundle, data=data, keep_logits=True, force=True, command=command, progress=step, **options)
    progress("pooling the folds")
    result = _pooled(trained, [open_bundle(out / name) for name in parities], opened.facts.recipe)
    write_json(out / CROSS_VALIDATION_FILE, result.model_dump(mode="json"))
    return Exported(out / CROSS_VALIDATION_FILE, result, parities)


def _refuse_other_folds(file: Path, trained: Sequence[runs.Run], force: bool) -> None:
    """Refuse an earlier result at `file` that is of other folds, unless `force`."""
    if force or not file.exists():
        return
    with contextlib.suppress(BadInput):
        if [fold.weights for fold in read_cross_validation(file).folds] == [run.facts.weights for run in trained]:
            return
    refuse_existing(file)


def _kept(path: Path, run: runs.Run, options: Mapping[str, Any]) -> Parity | None:
    """Return the gates of the bundle at `path` where it needs no export: of this run, with these options, whole. None where there is none, or its export was interrupted.

    Raises BadInput where something else stands there.
    """
    if not path.exists():
        return None
    bundle = open_bundle(path)
    if not made_alike(bundle, run, **options):
        raise BadInput(f"{path} was exported from another run or with other options: choose another --out, or give --force to replace the bundles of all folds")
    try:
        test_logits(bundle)
        parity = Parity.model_validate_json((path / EVIDENCE / PARITY_FILE).read_bytes())
    except (BadInput, OSError, ValidationError):
        return None
    return parity if parity.manifest_sha256 == sha256_file(path / MANIFEST) else None


def _pooled(trained: Sequence[runs.Run], bundles: Sequence[Bundle], recipe: Recipe) -> CrossValidation:
    """Return what the bundles of all folds come to."""
    first, parts = bundles[0].manifest, [run.part(TEST) for run in trained]
    said = [test_logits(bundle) for bundle in bundles]
    folds = {
        artifact.name: [answers_of(run, bundle, artifact.name, logits[artifact.name]) for run, bundle, logits in zip(trained, bundles, said)] for artifact in first.artifacts
    }
    artifacts = []
    for artifact in first.artifacts:
        of = folds[artifact.name]
        labels, top = np.concatenate([one.labels for one in of]), np.concatenate([one.probabilities.argmax(axis=1) for one in of])
        confusion = tuple(map(tuple, metrics.confusion(top, labels, len(first.classes)).tolist()))
        figures = across(of, first.classes, first.positive_class)
        thresholds = [one.decision.operating() for one in of]
        in_force = None if None in thresholds else tuple(thresholds)
        artifacts.append(CrossValidated(name=artifact.name, format=artifact.format, precision=artifact.precision, confusion=confusion, thresholds=in_force, **dict(figures)))
    return CrossValidation(
        notice=NOTICE,
        recipe=recipe,
        data_sha256=grouped_hash(trained[0].split, [row.group for row in trained[0].split]),
        classes=first.classes,
        positive_class=first.positive_class,
        pictures=sum(map(len, parts)),
        lesions=len({row.group for row in trained[0].split}),
        with_lesion_id=sum(bool(row.lesion) for row in trained[0].split),
        classes_without_lesion_id=tuple(without_lesion_id((row.label, row.lesion) for row in trained[0].split)),
        folds=tuple(
            FoldBundle(
                fold=run.recipe.fold, bundle=bundle.path.name, manifest_sha256=sha256_file(bundle.path / MANIFEST), weights=run.facts.weights, pictures=len(part),
                lesions=len({row.group for row in part}), absent_from_test=tuple(name for name in first.classes if name not in {row.label for row in part}),
            )
            for run, bundle, part in zip(trained, bundles, parts)
        ),
        artifacts=tuple(artifacts),
        comparisons=tuple(_compared(first, reference, candidate, folds) for reference, candidate in _pairs(first.artifacts)),
        tool_versions=first.tool_versions,
    )  # fmt: skip


def answers_of(run: runs.Run, bundle: Bundle, name: str, logits: np.ndarray) -> Answers:
    """Return what the artifact called `name` of a fold says of its test part."""
    artifact, (labels, groups) = bundle.artifact(name), run.truth(TEST)
    if logits.shape != (len(labels), len(run.facts.classes)) or artifact.scores is None:
        raise BadInput(f"the logits in {bundle.path / EVIDENCE} do not fit the split of {run.path}: export the fold again with --force")
    training, deployment = run.priors()
    probabilities = calibration.probabilities(logits, artifact.decision.temperature, training, deployment)
    if abs(float((probabilities.argmax(axis=1) == labels).mean()) - artifact.scores.accuracy.value) > 1e-9:
        raise BadInput(f"the logits in {bundle.path / EVIDENCE} are not those that the scores of {name} are of: export the fold again with --force")
    return Answers(artifact.decision, artifact.scores, probabilities, logits, labels, groups, deployment)


def _pairs(artifacts: Sequence[Artifact]) -> list[tuple[Artifact, Artifact]]:
    """Return each int8 artifact behind its float32 twin: of its own format, or of the other where there is none."""
    found = []
    for candidate in artifacts:
        twins = sorted((one for one in artifacts if one.precision == "float32"), key=lambda one: one.format != candidate.format)
        if candidate.precision in INTEGER and twins:
            found.append((twins[0], candidate))
    return found


def _compared(manifest: Manifest, reference: Artifact, candidate: Artifact, folds: Mapping[str, Sequence[Answers]]) -> Comparison:
    """Return what `candidate` loses against `reference` over all folds."""
    before, after = folds[reference.name], folds[candidate.name]
    losses, flips = lost(before, after, manifest.classes, manifest.positive_class)
    groups = np.concatenate([one.groups for one in before])
    return Comparison(reference=reference.name, candidate=candidate.name, pictures=len(groups), lesions=len(np.unique(groups)), losses=losses, flips=flips)


def lost(before: Sequence[Answers], after: Sequence[Answers], classes: Sequence[str], positive_class: str | None) -> tuple[dict[str, Interval], int]:
    """Return what `after` loses against `before`, of the same folds, each picture under its own fold's thresholds (:func:`melanoma_edge.paired.paired_losses`), and how many first answers differ."""
    probabilities = [np.concatenate([one.probabilities for one in of]) for of in (before, after)]
    labels, groups = np.concatenate([one.labels for one in before]), np.concatenate([one.groups for one in before])
    losses = paired.paired_losses(
        *probabilities, labels, classes, positive_class, reference_threshold=_thresholds(before), candidate_threshold=_thresholds(after), groups=groups
    )  # fmt: skip
    return losses, int((probabilities[0].argmax(axis=1) != probabilities[1].argmax(axis=1)).sum())


def _thresholds(folds: Sequence[Answers]) -> np.ndarray | None:
    """Return the threshold in force of each picture; None where a fold has none."""
    each = [one.decision.operating() for one in folds]
    return None if None in each else np.concatenate([np.full(len(one.labels), threshold.probability) for one, threshold in zip(folds, each)])
