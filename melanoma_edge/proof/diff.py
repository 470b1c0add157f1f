"""Two bundles side by side: what differs, and whether the second is worse than the tolerances allow.

In: two bundles, and pictures: a labelled folder, or the first bundle's golden pictures and drawn probes. Out: a
:class:`~melanoma_edge.proof.diff_model.Difference`. With labelled pictures both bundles answer for the same ones
and losses have paired intervals; without, they rest on the scores in the manifests. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from pydantic import ValidationError

from melanoma_edge import calibration, paired
from melanoma_edge.contract import Artifact, Manifest
from melanoma_edge.convert.bundle import EVIDENCE, MANIFEST, Bundle, open_bundle
from melanoma_edge.convert.reference import to_read
from melanoma_edge.data import image, samples
from melanoma_edge.errors import BadInput, ProofFailed
from melanoma_edge.files import cache_folder, sha256_file
from melanoma_edge.proof import diff_checks as checks
from melanoma_edge.proof import diff_facts as facts
from melanoma_edge.proof.diff_model import ArtifactDifference, Check, CheckName, Difference, Flips, Side, Tolerances
from melanoma_edge.proof.gates import MAX_FLIPS
from melanoma_edge.proof.labelled import load_labelled
from melanoma_edge.proof import latency_file
from melanoma_edge.proof.latency_model import HostLatency
from melanoma_edge.proof.parity_model import Flip
from melanoma_edge.proof.subject import RUNTIME_OF, run_artifact
from melanoma_edge.proof.verify import PROBES
from melanoma_edge.runtimes import process

Progress = Callable[[str], None]


class _Answer(NamedTuple):
    """What one artifact says about the pictures, [n, classes] each, in the bundle's order of classes."""

    probabilities: np.ndarray
    logits: np.ndarray


_Answers = tuple[_Answer, _Answer] | None
"""Those of A and of B; None where both must give the same."""
SAME = "not run: the same file and the same decision"


@dataclass(frozen=True)
class _Pictures:
    """The same pictures as each bundle's network takes them."""

    description: str
    a: np.ndarray
    """uint8 [n, size of A, size of A, 3]."""
    b: np.ndarray
    names: tuple[str, ...]
    labels: np.ndarray | None = None
    """int [n], positions in A's classes."""
    groups: np.ndarray | None = None
    unseen: np.ndarray | None = None
    """bool [n]: neither bundle says that it used them."""


def diff(
    a: Path,
    b: Path,
    *,
    data: Path | None = None,
    metadata: Path | None = None,
    cache: Path | None = None,
    artifacts: Sequence[str] = (),
    tolerances: Tolerances = Tolerances(),
    require: Sequence[str] = (),
    allow: Sequence[str] = (),
    progress: Progress = lambda line: None,
) -> Difference:
    """Compare the bundle `b` with the bundle `a`.

    `data` are labelled pictures (as for `verify`; `metadata` is their table), of which only those count for losses that neither
    bundle says to have used. `artifacts` names artifacts of `a` (or precisions) to compare; left out, all. Both artifacts of
    a pair run in the runtime of their format, unless file, decision and priors are the same. `require` names checks
    for :func:`refuse_worse`, and `allow` those that may fail. Raises BadInput for a bundle, data, artifact or check that is not right; a B that is worse
    does not raise.
    """
    for word, names in (("require", require), ("allow", allow)):
        for name in names:
            if name not in get_args(CheckName):
                raise BadInput(f"there is no check {name!r} to {word}: expected one of {', '.join(get_args(CheckName))}")
    if both := sorted({*require} & {*allow}):
        raise BadInput(f"the check {both[0]} is required and allowed to fail: ask for one of both")
    if metadata is not None and data is None:
        raise BadInput(f"{metadata} is a table of labelled pictures, and there are none: give their folder with --data, or leave --metadata out")
    old, new = open_bundle(to_read(a)), open_bundle(to_read(b))
    pairs = _chosen(old, facts.pairs(old.manifest, new.manifest), artifacts)
    changes = tuple(facts.changes(old.manifest, new.manifest))
    progress("reading pictures")
    pictures = _probes(old, new) if data is None else _labelled(old, new, data, metadata, cache or cache_folder())
    comparison = _Comparison(old, new, pictures, process.available(), tolerances, progress)
    compared = [comparison.of(mine, theirs) for mine, theirs in pairs]
    found = tuple(difference for difference, _ in compared)
    names = {difference.a: difference.b for difference in found if difference.a is not None and difference.b is not None}
    return Difference(
        a=Side(name=old.manifest.name, manifest_sha256=sha256_file(old.path / MANIFEST)),
        b=Side(name=new.manifest.name, manifest_sha256=sha256_file(new.path / MANIFEST)),
        tolerances=tolerances,
        comparison="unpaired" if data is None else "paired",
        data=pictures.description,
        labelled={} if pictures.unseen is None else {"used": len(pictures.names), "unseen": int(pictures.unseen.sum())},
        training_known=comparison.training_known,
        changes=changes,
        files=facts.files(old.manifest, new.manifest),
        artifacts=found,
        checks=tuple(
            checks.allowed(check, allow)
            for check in (
                checks.contract(changes, found),
                checks.artifacts(found, facts.lost_beside(old.manifest, new.manifest, names)),
                *(check for _, made in compared for check in made),
                *checks.latency(_times(old), _times(new), names, tolerances),
            )
        ),
    )


def tolerances(**given: float | None) -> Tolerances:
    """Return the tolerances with those of `given` that are not None. Raises BadInput for a value that cannot be."""
    try:
        return Tolerances(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise BadInput(f"{'.'.join(map(str, problem['loc']))} is {problem['input']}: {problem['msg']}; correct it") from None


def refuse_worse(found: Difference, require: Sequence[str] = ()) -> None:
    """Raise ProofFailed where a check failed, or where one that `require` names did not pass or was not carried out."""
    lines = [f"{check.name} ({check.artifact}{f' on {check.runtime}' if check.runtime else ''})" for check in found.failed]
    if lines:
        raise ProofFailed(f"B is worse in {len(lines)} check{'s' if len(lines) > 1 else ''}: {', '.join(lines)}")
    for name, check in found.unmet(require):
        why = f"{check.outcome} for {check.artifact}: {check.reason}" if check else "nothing was to be judged by it"
        raise ProofFailed(f"the check {name} was required but did not pass: {why}")


def _chosen(bundle: Bundle, pairs: list[facts.Pair], asked: Sequence[str]) -> list[facts.Pair]:
    """Return the pairs that `asked` names by artifact or precision of A; all without."""
    for name in asked:
        if not any(mine is not None and name in (mine.name, mine.precision) for mine, _ in pairs):
            known = ", ".join(mine.name for mine, _ in pairs if mine is not None)
            raise BadInput(f"the bundle {bundle.path} has no artifact {name!r}: expected one of {known}, or a precision of theirs")
    return [pair for pair in pairs if pair[0] is not None and {pair[0].name, pair[0].precision} & set(asked)] if asked else pairs


@dataclass(frozen=True)
class _Comparison:
    """What the comparison of every pair of artifacts rests on."""

    old: Bundle
    new: Bundle
    pictures: _Pictures
    here: Mapping[str, process.Availability]
    tolerances: Tolerances
    progress: Progress

    @property
    def training_known(self) -> bool:
        """Whether both bundles say all that training used."""
        return all(bundle.manifest.origin == "run" for bundle in (self.old, self.new))

    def of(self, mine: Artifact | None, theirs: Artifact | None) -> tuple[ArtifactDifference, list[Check]]:
        """Return what differs between two artifacts that stand for each other, and the checks on them."""
        sizes = tuple(None if artifact is None else artifact.bytes for artifact in (mine, theirs))
        if mine is None or theirs is None:
            status = "added" if mine is None else "removed"
            return ArtifactDifference(a=mine and mine.name, b=theirs and theirs.name, status=status, bytes=sizes), []
        difference = ArtifactDifference(
            a=mine.name,
            b=theirs.name,
            status="same" if mine.sha256 == theirs.sha256 else "changed",
            bytes=sizes,
            operators=facts.counts(mine.operators, theirs.operators),
            weight_bytes=facts.counts(mine.weight_bytes, theirs.weight_bytes),
            decision=facts.decisions(mine.decision, theirs.decision),
            interface=facts.interface(mine, theirs),
            scores=facts.scores(mine.scores, theirs.scores),
        )
        answers = self._answers(mine, theirs)
        flips = None if isinstance(answers, str) else self._flips(answers)
        recall, losses = self._losses(mine, theirs, answers)
        made = [checks.size(mine, theirs, self.tolerances), *losses, *self._flip_checks(mine, answers if flips is None else flips)]
        return difference.model_copy(update={"flips": flips, "recall_change": recall}), made

    def _answers(self, mine: Artifact, theirs: Artifact) -> _Answers | str:
        """Return both artifacts' probabilities, None where they must be the same, or in words why they were not run."""
        a, b = self.old.manifest, self.new.manifest
        of = [(m.classes, m.positive_class, m.input, m.output, m.priors, artifact.sha256, artifact.decision) for m, artifact in ((a, mine), (b, theirs))]
        if of[0] == of[1]:
            return None
        found = []
        for side, bundle, artifact, inputs in (("A", self.old, mine, self.pictures.a), ("B", self.new, theirs, self.pictures.b)):
            runtime = RUNTIME_OF[artifact.format]
            if not self.here[runtime].available:
                return f"{self.here[runtime].reason}; {self.here[runtime].install}"
            self.progress(f"{side}: {artifact.name}")
            found.append(_answer(bundle, artifact, run_artifact(bundle, artifact, runtime, inputs)))
        return found[0], found[1]

    def _flips(self, answers: _Answers) -> Flips:
        """Return the pictures on which the first class changed, by name."""
        pictures, a, b = self.pictures, self.old.manifest, self.new.manifest
        if answers is None:
            known = {} if pictures.labels is None else {"newly_wrong": 0, "newly_right": 0}
            return Flips(measured_on=SAME, pictures=len(pictures.names), count=0, listed=(), **known)
        before, after = (answer.probabilities for answer in answers)
        first, second = (np.array(m.classes)[p.argmax(axis=1)] for m, p in ((a, before), (b, after)))
        rows = np.flatnonzero(first != second)
        # A class that only B knows has no probability under A: what leads is then led by nothing.
        rival = [before[row, a.classes.index(second[row])] if second[row] in a.classes else 0.0 for row in rows]
        listed = [
            Flip(picture=pictures.names[row], reference=str(first[row]), candidate=str(second[row]), margin=float(before[row].max() - other))
            for row, other in zip(rows, rival)
        ]
        listed.sort(key=lambda flip: (-flip.margin, flip.picture))
        found = Flips(measured_on=pictures.description, pictures=len(first), count=len(rows), listed=tuple(listed[:MAX_FLIPS]))
        if pictures.labels is None:
            return found
        truth = np.array(a.classes)[pictures.labels]
        was, now = (first == truth) & pictures.unseen, (second == truth) & pictures.unseen
        return found.model_copy(update={"newly_wrong": int((was & ~now).sum()), "newly_right": int((now & ~was).sum())})

    def _flip_checks(self, mine: Artifact, found: Flips | str) -> list[Check]:
        """Judge the flips, where a bound was asked for or both artifacts came from the same weights."""
        a, b = self.old.manifest, self.new.manifest
        which = mine.network
        same_weights = a.weights.get(which) is not None and a.weights.get(which) == b.weights.get(which) and not _incomparable(a, b)
        bound = checks.flip_bound(self.tolerances, same_weights)
        return [] if bound is None else [checks.flips(mine, found, bound)]

    def _losses(self, mine: Artifact, theirs: Artifact, answers: _Answers | str) -> tuple[dict[str, float | None], list[Check]]:
        """Return the change of each class's recall on labelled pictures, and the checks of what B loses."""
        a, b, pictures = self.old.manifest, self.new.manifest, self.pictures
        names = checks.losses(a.positive_class is not None)

        def none(reason: str) -> tuple[dict, list[Check]]:
            return {}, [checks.not_compared(name, mine.name, checks.loss_requirement(name, self.tolerances), reason) for name in names]

        if incomparable := _incomparable(a, b):
            return none(incomparable)
        if answers is None:
            return {}, list(checks.no_loss(mine, names, SAME, self.tolerances))
        if pictures.labels is None:
            return {}, list(checks.unpaired(a, b, mine, theirs, self.tolerances))
        if isinstance(answers, str):
            return none(answers)
        use = pictures.unseen
        if not use.any():
            used = "in training of A or B" if self.training_known else "for A or B"
            return none(f"all pictures were used {used}: give others with --data")
        columns = [b.classes.index(name) for name in a.classes]
        (before, after), logits = ((values[0][use], values[1][use][:, columns]) for values in zip(*answers))
        thresholds = [artifact.decision.operating() for artifact in (mine, theirs)]
        compared = (before, after, pictures.labels[use], a.classes, a.positive_class)
        losses = paired.paired_losses(
            *compared,
            reference_threshold=thresholds[0].probability if thresholds[0] else None,
            candidate_threshold=thresholds[1].probability if thresholds[1] else None,
            groups=pictures.groups[use],
        ) | paired.paired_decisions(*compared, decisions=(mine.decision, theirs.decision), logits=logits, groups=pictures.groups[use])
        known = "seen in training by neither" if self.training_known else "used for neither bundle, whether training saw them is not known"
        made = []
        for name in names:
            if reason := checks.no_threshold(name, mine, theirs):
                made.append(checks.not_compared(name, mine.name, checks.loss_requirement(name, self.tolerances), reason))
            else:
                made.append(checks.loss(name, mine, losses[name], self.tolerances, f"{pictures.description}, {known}, paired", int(use.sum())))
        return paired.recall_change(before, after, pictures.labels[use], a.classes), made


def _answer(bundle: Bundle, artifact: Artifact, given: np.ndarray) -> _Answer:
    """Return what an application makes of what the artifact gave."""
    manifest = bundle.manifest
    if not np.isfinite(given).all():
        raise BadInput(f"{bundle.file(artifact)} gives NaN or infinity: nothing can be compared with that; export the bundle again")
    logits = calibration.as_logits(given, manifest.output)
    return _Answer(calibration.probabilities(logits, artifact.decision.temperature, *calibration.priors_of(manifest)), logits)


def _incomparable(a: Manifest, b: Manifest) -> str | None:
    """Return why scores of the two bundles say nothing about each other, None where they do."""
    if set(a.classes) != set(b.classes):
        words = [f"no {name}" for name in a.classes if name not in b.classes] + [f"new: {name}" for name in b.classes if name not in a.classes]
        return f"B sorts into other classes ({', '.join(words)})"
    if a.positive_class != b.positive_class:
        return f"B has another positive class ({a.positive_class or 'none'}, then {b.positive_class or 'none'})"
    return None


def _labelled(old: Bundle, new: Bundle, data: Path, metadata: Path | None, cache: Path) -> _Pictures:
    """Read labelled pictures once for each input size, under A's data policy, and keep those that both readings have."""
    a, b = old.manifest, new.manifest
    seen = old.seen_hashes() | new.seen_hashes()
    mine = load_labelled(data, a.classes, a.policy, seen, size=a.input.width, metadata=metadata, cache=cache)
    description = f"pictures of {Path(data).name}"
    if b.input.width == a.input.width:
        return _Pictures(description, mine.pictures, mine.pictures, mine.paths, mine.labels, mine.groups, ~mine.seen)
    theirs = load_labelled(data, a.classes, a.policy, seen, size=b.input.width, metadata=metadata, cache=cache)
    rows = {path: row for row, path in enumerate(theirs.paths)}
    use = [row for row, path in enumerate(mine.paths) if path in rows]
    if not use:
        raise BadInput(f"{data} holds no picture that the input sizes of both bundles leave in: give another folder")
    also = [rows[mine.paths[row]] for row in use]
    return _Pictures(
        description,
        mine.pictures[use],
        theirs.pictures[also],
        tuple(mine.paths[row] for row in use),
        mine.labels[use],
        mine.groups[use],
        ~(mine.seen[use] | theirs.seen[also]),
    )


def _probes(old: Bundle, new: Bundle) -> _Pictures:
    """Return A's golden pictures and drawn probes as both networks take them."""
    sizes = [bundle.manifest.input.width for bundle in (old, new)]
    drawn = [samples.draw(samples.CLASSES[i % len(samples.CLASSES)], max(sizes), (2, i)) for i in range(PROBES)]
    inputs = []
    for size in sizes:
        golden = [image.load(old.path / picture.file, size) for picture in old.golden.pictures]
        inputs.append(np.stack([*golden, *(image.to_input(pixels, size) for pixels in drawn)]))
    names = (*(picture.file for picture in old.golden.pictures), *(f"probe {i}" for i in range(PROBES)))
    return _Pictures("golden pictures and drawn probes", inputs[0], inputs[1], names)


def _times(bundle: Bundle) -> HostLatency | str:
    """Return the bundle's latencies, or in words why there are none that belong to it."""
    path = bundle.path / EVIDENCE / latency_file.SUMMARY
    again = f"run `melanoma-edge bench {bundle.path.resolve().name}`"
    if not path.is_file():
        return f"not measured; {again}"
    try:
        found = latency_file.parse(path.read_bytes())
    except (OSError, *latency_file.DAMAGED):
        return f"{EVIDENCE}/{latency_file.SUMMARY} cannot be read; {again}"
    if found.manifest_sha256 != sha256_file(bundle.path / MANIFEST):
        return f"{EVIDENCE}/{latency_file.SUMMARY} is of another state of the bundle; {again}"
    return found.host or f"not measured on a host; {again}"
