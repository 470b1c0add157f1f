"""Judging: where B is worse than the tolerances allow. Nothing here runs a model.

One rule for everything that has an interval: a check fails when the whole 95 % interval lies beyond the tolerance,
passes when all of it lies within, and is inconclusive when it reaches beyond. What cannot be compared is said
with its reason and never counts as passed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from melanoma_edge.contract import Artifact, Interval, Manifest
from melanoma_edge.proof.diff_model import FLIPS_OF_SAME_WEIGHTS, ArtifactDifference, Change, Check, CheckName, Flips, Outcome, Tolerances
from melanoma_edge.proof.latency_figures import flat
from melanoma_edge.proof.latency_model import ArtifactLatency, HostLatency, RuntimeLatency

LOSSES: dict[CheckName, str] = {
    "balanced_accuracy": "balanced_accuracy",
    "positive_sensitivity": "positive_sensitivity_of_decision",
    "positive_specificity": "positive_specificity_of_decision",
    "positive_auc": "positive_auc",
    "coverage": "coverage_of_decision",
}
"""Figures that must not be lost, and what they are called among the scores of a manifest."""
WITHOUT_POSITIVE = ("balanced_accuracy", "coverage")
"""Those that there are without a positive class."""
AT_THRESHOLD = ("positive_sensitivity", "positive_specificity")
"""Those that rest on the threshold in force."""
MORE_PICTURES = "too few pictures to tell: give more labelled ones with --data"
CONDITIONS = ("system", "machine", "python")
CPU = ("model", "logical_cores", "physical_cores", "governor", "relevant_flags")


def contract(changes: tuple[Change, ...], differences: tuple[ArtifactDifference, ...]) -> Check:
    """Check that an application that runs A can run B: the same classes in the same order, fed and read in the same way."""
    words = [_words(change) for change in changes if change.section in ("classes", "input", "interface")]
    alike: dict[str, list[str]] = {}
    for difference in differences:
        for change in difference.interface:
            alike.setdefault(_words(change), []).append(difference.a or "")
    words += [f"{change} of {', '.join(names)}" for change, names in alike.items()]
    reason = f"{'; '.join(words)}: an application that runs A has to change for B; --allow contract where it will" if words else None
    requirement = "the same classes in the same order, the same positive class, the same inputs and outputs"
    return Check(name="contract", artifact="all", requirement=requirement, outcome="failed" if words else "passed", reason=reason)


def allowed(check: Check, names: Sequence[str]) -> Check:
    """Return the check, marked where it failed and is among the `names` that may."""
    return check.model_copy(update={"outcome": "allowed"}) if check.outcome == "failed" and check.name in names else check


def artifacts(differences: tuple[ArtifactDifference, ...], beside: Sequence[str] = ()) -> Check:
    """Check that B has everything that A has; `beside` names what it lacks beside its artifacts."""
    gone = [*(difference.a for difference in differences if difference.status == "removed"), *beside]
    reason = f"B has nothing that stands for {', '.join(gone)}: export it too, or name with --artifact what counts" if gone else None
    return Check(name="artifacts", artifact="all", requirement="B has every artifact of A, with probabilities in the graph and as Core ML where A has them", outcome="failed" if gone else "passed", reason=reason)


def size(a: Artifact, b: Artifact, tolerances: Tolerances) -> Check:
    """Check how much the file grew."""
    requirement = f"grows by at most {_percent(tolerances.max_size_growth)}"
    if a.bytes <= 0:
        return not_compared("size", a.name, requirement, f"the manifest of A says that it has {a.bytes} bytes")
    growth = b.bytes / a.bytes - 1
    holds = growth <= tolerances.max_size_growth
    return Check(
        name="size",
        artifact=a.name,
        requirement=requirement,
        outcome="passed" if holds else "failed",
        reason=None if holds else f"{a.bytes:,} bytes became {b.bytes:,}: {growth:+.1%}",
        found=Interval(value=growth, low=None, high=None),
    )


def loss(name: CheckName, artifact: Artifact, found: Interval, tolerances: Tolerances, measured_on: str, pictures: int) -> Check:
    """Judge what B loses against A in one figure, by its interval."""
    bound = loss_bound(name, tolerances)
    outcome, reason = judged(found, bound, MORE_PICTURES)
    if outcome == "failed":
        reason = f"loses {found.value:.3f} ({found.low:.3f} to {found.high:.3f}), wholly beyond {bound:g}"
    about = {"requirement": loss_requirement(name, tolerances), "measured_on": measured_on, "pictures": pictures}
    return Check(name=name, artifact=artifact.name, outcome=outcome, reason=reason, found=found, **about)


def no_loss(artifact: Artifact, names: Sequence[CheckName], reason: str, tolerances: Tolerances) -> Iterator[Check]:
    """Yield the checks of an artifact that cannot but give the same answers."""
    nothing = Interval(value=0.0, low=0.0, high=0.0)
    for name in names:
        yield Check(name=name, artifact=artifact.name, requirement=loss_requirement(name, tolerances), outcome="passed", reason=reason, found=nothing)


def not_compared(name: CheckName, artifact: str, requirement: str, reason: str, runtime: str = "") -> Check:
    """Return a check that could not be carried out, with the reason."""
    return Check(name=name, artifact=artifact, runtime=runtime, requirement=requirement, outcome="not compared", reason=reason)


def losses(positive: bool) -> list[CheckName]:
    """Return the figures that must not be lost; without a positive class those of WITHOUT_POSITIVE."""
    return [name for name in LOSSES if positive or name in WITHOUT_POSITIVE]


def loss_bound(name: CheckName, tolerances: Tolerances) -> float:
    """Return how much of a figure B may lose."""
    return {"positive_specificity": tolerances.max_specificity_loss, "coverage": tolerances.max_coverage_loss}.get(name, tolerances.max_loss)


def loss_requirement(name: CheckName, tolerances: Tolerances) -> str:
    return f"loses at most {loss_bound(name, tolerances):g}"


def no_threshold(name: CheckName, a: Artifact, b: Artifact) -> str | None:
    """Return why a figure at the threshold in force cannot be compared, None where it can."""
    without = [f"{artifact.name} of {side}" for side, artifact in (("A", a), ("B", b)) if artifact.decision.operating() is None]
    if name not in AT_THRESHOLD or not without:
        return None
    return f"no threshold was fitted for {' and '.join(without)}: labelled pictures at export (--data) give it one"


def flip_bound(tolerances: Tolerances, same_weights: bool) -> float | None:
    """Return the largest share of flips: what was asked for, else a bound where the weights are the same, else None."""
    return tolerances.max_flips if tolerances.max_flips is not None else FLIPS_OF_SAME_WEIGHTS if same_weights else None


def flips(artifact: Artifact, found: Flips | str, bound: float) -> Check:
    """Judge the share of pictures whose first class changed; `found` may say in words why nothing was run."""
    requirement = f"another first class on at most {_percent(bound)} of the pictures"
    if isinstance(found, str):
        return not_compared("flips", artifact.name, requirement, found)
    share = found.count / found.pictures
    return Check(
        name="flips",
        artifact=artifact.name,
        requirement=requirement,
        outcome="passed" if share <= bound else "failed",
        reason=None if share <= bound else f"{found.count} of {found.pictures} pictures have another first class ({share:.2%})",
        measured_on=found.measured_on,
        pictures=found.pictures,
        found=Interval(value=share, low=None, high=None),
    )


def unpaired(a: Manifest, b: Manifest, mine: Artifact, theirs: Artifact, tolerances: Tolerances) -> Iterator[Check]:
    """Yield the losses by the scores in the manifests, each bundle's on its own test part.

    Both were scored apart, so the interval of the difference is put together from the two intervals as if they
    were independent (square-and-add: Newcombe 1998, "Interval estimation for the difference between independent
    proportions", method 10; for any two intervals Zou and Donner 2008, "Construction of confidence limits about effect
    measures"). Scores on the same pictures go up and down together, so it is then wider than it need be: it says
    less, but nothing wrong. Scores on other pictures are not compared: the pictures could make the difference. An interval
    without width, as earlier versions wrote for a perfect score, knows nothing of how few pictures it rests on: it counts as none.
    """
    for name in losses(a.positive_class is not None):
        key, requirement = LOSSES[name], loss_requirement(name, tolerances)
        scored = [None if artifact.scores is None else getattr(artifact.scores, key) for artifact in (mine, theirs)]
        untested = " and ".join(side for side, manifest in (("A", a), ("B", b)) if not manifest.tested)
        unsaid = " and ".join(side for side, manifest in (("A", a), ("B", b)) if manifest.data is None)
        if reason := no_threshold(name, mine, theirs):
            yield not_compared(name, mine.name, requirement, reason)
        elif unsaid:
            reason = f"the manifest of {unsaid} does not say which pictures its scores are of (a model of somebody else's): give labelled ones with --data"
            yield not_compared(name, mine.name, requirement, reason)
        elif untested:
            reason = f"{untested} was trained on all pictures and has no test part, so no scores: give labelled pictures that are new to both with --data"
            yield not_compared(name, mine.name, requirement, reason)
        elif a.data.sha256 != b.data.sha256:
            reason = "the manifests' scores are of other pictures (another data hash): give labelled ones with --data"
            yield not_compared(name, mine.name, requirement, reason)
        elif None in scored:
            missing = " and ".join(side for side, one in zip("AB", scored) if one is None)
            yield not_compared(name, mine.name, requirement, f"the manifest of {missing} has no such score: give labelled pictures with --data")
        else:
            found = square_and_add(*map(_with_width, scored))
            where = "each manifest's scores on the same test part, unpaired"
            yield loss(name, mine, found, tolerances, where, mine.scores.pictures)


def _with_width(found: Interval) -> Interval:
    return found.model_copy(update={"low": None, "high": None}) if found.low == found.high else found


def square_and_add(a: Interval, b: Interval) -> Interval:
    """Return A minus B with its interval from the two of independent figures; undefined where one is."""
    if a.value is None or b.value is None:
        return Interval(value=None, low=None, high=None)
    value = a.value - b.value
    if None in (a.low, a.high, b.low, b.high):
        return Interval(value=value, low=None, high=None)
    # A resampled ece, or a figure at its bound, can lie outside of its own interval: no distance is negative.
    below = math.hypot(max(0.0, a.value - a.low), max(0.0, b.high - b.value))
    above = math.hypot(max(0.0, a.high - a.value), max(0.0, b.value - b.low))
    return Interval(value=value, low=value - below, high=value + above)


def judged(found: Interval, bound: float, unsure: str) -> tuple[Outcome, str | None]:
    """Return (outcome, reason) of something that should not be above `bound`."""
    if found.value is None:
        return "inconclusive", f"undefined on these pictures; {unsure}"
    if found.low is None or found.high is None:
        return "inconclusive", f"without an interval; {unsure}"
    if found.low > bound:
        return "failed", f"the whole interval lies beyond {bound:g}"
    if found.high > bound:
        return "inconclusive", f"the interval reaches {found.high:.3f}, beyond {bound:g}; {unsure}"
    return "passed", None


def latency(a: HostLatency | str, b: HostLatency | str, names: Mapping[str, str], tolerances: Tolerances) -> Iterator[Check]:
    """Yield the ratio of times of each artifact in each runtime that both measured alike.

    `a` and `b` are the evidence, or in words why there is none; `names` says which artifact of B stands for
    which of A. The interval goes from B's fastest round by A's slowest to the reverse. What only A was timed in is not
    compared, and there is always a check, whatever could be compared.
    """
    requirement = f"takes at most {tolerances.max_latency:g} times as long"
    why = "; ".join(f"{side}: {one}" for side, one in (("A", a), ("B", b)) if isinstance(one, str))
    if not why:
        why = unlike(a, b)
    if why:
        yield not_compared("latency", "all", requirement, why)
        return
    found = [check for runtime in a.runtimes if runtime.status == "timed" for check in _in_runtime(runtime, b, names, requirement, tolerances.max_latency)]
    if not found:
        reason = "no runtime of this evidence timed anything that is compared: run `melanoma-edge bench` for both"
        found = [not_compared("latency", "all", requirement, reason)]
    yield from found


def _in_runtime(a: RuntimeLatency, b: HostLatency, names: Mapping[str, str], requirement: str, bound: float) -> Iterator[Check]:
    """Yield the checks of one runtime that A was timed in."""
    other = next((runtime for runtime in b.runtimes if (runtime.name, runtime.threads) == (a.name, a.threads)), None)
    called = a.name if a.threads == 1 else f"{a.name}, {a.threads} threads"
    if other is None or other.status != "timed":
        why = f" ({other.reason})" if other is not None and other.reason else ""
        yield not_compared("latency", "all", requirement, f"A was timed in it, B was not{why}: run `melanoma-edge bench` for both", called)
        return
    if reason := _unlike_runtimes(a, other):
        yield not_compared("latency", "all", requirement, reason, called)
        return
    theirs = {row.name: row for row in other.artifacts}
    for row in a.artifacts:
        if row.name not in names:
            continue
        if names[row.name] in theirs:
            yield _ratio(row, theirs[names[row.name]], called, requirement, bound)
        else:
            reason = f"A was timed in it, {names[row.name]} of B was not: run `melanoma-edge bench` for both"
            yield not_compared("latency", row.name, requirement, reason, called)


def unlike(a: HostLatency, b: HostLatency) -> str | None:
    """Return why the times of two measurements cannot be compared, None where they were measured alike."""
    for side, one in (("A", a), ("B", b)):
        if one.quick:
            return f"{side} was measured with --quick: run `melanoma-edge bench` without it"
    for what, mine, theirs in (
        ("threads", a.threads, b.threads),
        ("protocol", a.plan, b.plan),
        *((name, getattr(a.conditions, name), getattr(b.conditions, name)) for name in CONDITIONS),
        *((f"CPU {name.replace('_', ' ')}", getattr(a.conditions.cpu, name), getattr(b.conditions.cpu, name)) for name in CPU),
    ):
        if mine != theirs:
            return f"measured under other conditions ({what}: {_said(mine)}, then {_said(theirs)}): run `melanoma-edge bench` for both on one machine"
    return None


def _unlike_runtimes(a: RuntimeLatency, b: RuntimeLatency) -> str | None:
    for what, mine, theirs in (("version", a.version, b.version), ("settings", a.settings, b.settings)):
        if mine != theirs:
            return f"measured with another {what} of it ({_said(mine)}, then {_said(theirs)}): run `melanoma-edge bench` for both"
    return None


def _ratio(a: ArtifactLatency, b: ArtifactLatency, runtime: str, requirement: str, bound: float) -> Check:
    """Judge one artifact's time in one runtime."""
    for side, one in (("A", a), ("B", b)):
        if one.verdict != "stable":
            return not_compared("latency", a.name, requirement, f"{side} was measured on a noisy machine: run `melanoma-edge bench` again on a quiet one", runtime)
    mine, theirs = flat(a.round_medians_ms), flat(b.round_medians_ms)
    if not (mine.size and theirs.size and min(a.p50_ms, b.p50_ms, mine.min(), theirs.min()) > 0):
        return not_compared("latency", a.name, requirement, "a time of nothing, or no round, stands in the evidence: run `melanoma-edge bench` for both", runtime)
    found = Interval(value=b.p50_ms / a.p50_ms, low=float(theirs.min() / mine.max()), high=float(theirs.max() / mine.min()))
    outcome, reason = judged(found, bound, "the rounds differ too much to tell: measure both again on a quiet machine")
    if outcome == "failed":
        reason = f"{found.value:.2f} times as long ({found.low:.2f} to {found.high:.2f} between rounds)"
    about = {"measured_on": f"{len(mine)} and {len(theirs)} rounds, on hosts alike", "found": found}
    return Check(name="latency", artifact=a.name, runtime=runtime, requirement=requirement, outcome=outcome, reason=reason, **about)


def _words(change: Change) -> str:
    if change.key == "class":
        return f"new class {change.b}" if change.a is None else f"no class {change.a}"
    return f"another {change.key}" + ("" if change.key == "order" else f" ({_said(change.a)}, then {_said(change.b)})")


def _percent(share: float) -> str:
    """Return a share with all the digits that somebody gave it."""
    return f"{100 * share:.10g}%"


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
