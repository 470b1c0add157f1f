"""What two manifests say differently, in terms of people: classes, input, interfaces, recipe, data, decisions, files.

In: two manifests. Out: :class:`~melanoma_edge.proof.diff_model.Change` rows and pairs of artifacts. Nothing
here runs a model or judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from melanoma_edge.contract import Artifact, Decision, Interval, Manifest, Scores
from melanoma_edge.proof.diff_model import Change, ScoreChange, Section

SCORES = (
    "balanced_accuracy",
    "accuracy",
    "macro_f1",
    "macro_auc",
    "positive_auc",
    "positive_sensitivity_of_decision",
    "positive_specificity_of_decision",
    "coverage_of_decision",
    "accuracy_of_answers",
    "ece",
    "ece_at_priors",
)
"""Figures of the manifests that are shown side by side."""

Pair = tuple[Artifact | None, Artifact | None]


def changes(a: Manifest, b: Manifest) -> Iterator[Change]:
    """Yield every fact of the bundles that differs, artifacts and files apart."""
    if a.classes != b.classes:
        yield from _sets("classes", "class", a.classes, b.classes)
        if set(a.classes) == set(b.classes):
            yield Change(section="classes", key="order", a=list(a.classes), b=list(b.classes))
    if a.positive_class != b.positive_class:
        yield Change(section="classes", key="positive class", a=a.positive_class, b=b.positive_class)
    yield from differing("input", a.input.model_dump(mode="json"), b.input.model_dump(mode="json"))
    if a.output != b.output:
        yield Change(section="interface", key="output", a=a.output, b=b.output)
    if a.origin == b.origin:
        yield from differing("recipe", *({} if m.recipe is None else m.recipe.model_dump(mode="json") for m in (a, b)))
        yield from differing("data", _data(a), _data(b))
    else:  # of a model of somebody else's neither is known: one row says more than all that the other knows
        yield Change(section="recipe", key="name", **{side: m.recipe and m.recipe.name for side, m in (("a", a), ("b", b))})
        yield Change(section="data", key="sha256", **{side: m.data and m.data.sha256 for side, m in (("a", a), ("b", b))})
    yield from differing("weights", *({**m.weights, **({} if m.source is None else {"source": m.source.sha256})} for m in (a, b)))
    yield from differing("priors", a.priors.model_dump(mode="json"), b.priors.model_dump(mode="json"))
    yield from differing("tools", a.tool_versions, b.tool_versions)
    if a.licence != b.licence:
        yield Change(section="licence", key="licence", a=a.licence, b=b.licence)
    if a.attributions != b.attributions:
        yield Change(section="licence", key="attributions", a="; ".join(a.attributions), b="; ".join(b.attributions))


def files(a: Manifest, b: Manifest) -> dict[str, tuple[str, ...]]:
    """Return the sealed files that are not artifacts: `added`, `removed` and `changed`."""
    mine, theirs = ({name: digest for name, digest in m.files.items() if name not in {one.path for one in m.artifacts}} for m in (a, b))
    return {
        "added": tuple(sorted(theirs.keys() - mine.keys())),
        "removed": tuple(sorted(mine.keys() - theirs.keys())),
        "changed": tuple(sorted(name for name in mine.keys() & theirs.keys() if mine[name] != theirs[name])),
    }


def pairs(a: Manifest, b: Manifest) -> list[Pair]:
    """Return A's artifacts with those of B that stand for them, then what only B has.

    Those of one name belong together; of the others, those that alone have their format and precision, for
    names begin with the recipe's.
    """
    left = {artifact.name: artifact for artifact in b.artifacts}
    found: dict[str, Artifact | None] = {artifact.name: left.pop(artifact.name, None) for artifact in a.artifacts}
    for artifact in a.artifacts:
        alike = [other for other in left.values() if _kind(other) == _kind(artifact)]
        alone = sum(_kind(other) == _kind(artifact) for other in a.artifacts if found[other.name] is None) == 1
        if found[artifact.name] is None and len(alike) == 1 and alone:
            found[artifact.name] = left.pop(alike[0].name)
    return [(artifact, found[artifact.name]) for artifact in a.artifacts] + [(None, artifact) for artifact in left.values()]


def interface(a: Artifact, b: Artifact) -> tuple[Change, ...]:
    """Return what an application that feeds and reads `a` would have to change for `b`, their second files included where both have one."""
    mine, theirs = _interface(a), _interface(b)
    if not (a.probabilities and b.probabilities):  # one that is gone is missing (:func:`lost_beside`), one that came is no change
        mine["probabilities"] = theirs["probabilities"] = {}
    return tuple(differing("interface", mine, theirs))


def decisions(a: Decision, b: Decision) -> tuple[Change, ...]:
    """Return what differs between two decisions: a threshold is named by the rule that chose it."""
    return tuple(differing("decisions", _decision(a), _decision(b)))


def counts(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Return {name: (in A, in B)} of the counts that differ; what a side lacks counts as 0."""
    return {name: (a.get(name, 0), b.get(name, 0)) for name in sorted({*a, *b}) if a.get(name, 0) != b.get(name, 0)}


def scores(a: Scores | None, b: Scores | None) -> dict[str, ScoreChange]:
    """Return the figures that both manifests have, and the recall of each class that both know."""
    if a is None or b is None:
        return {}
    both = {name: (getattr(a, name), getattr(b, name)) for name in SCORES}
    both |= {f"recall of {name}": (a.recall[name], b.recall[name]) for name in a.recall if name in b.recall}
    return {name: ScoreChange(a=mine, b=theirs, change=_minus(theirs, mine)) for name, (mine, theirs) in both.items() if mine is not None and theirs is not None}


def differing(section: Section, a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Change]:
    """Yield the keys (dots for tables) under which two nested mappings hold different values."""
    mine, theirs = _flat(a), _flat(b)
    for key in dict.fromkeys((*mine, *theirs)):
        if mine.get(key) != theirs.get(key):
            yield Change(section=section, key=key, a=mine.get(key), b=theirs.get(key))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _sets(section: Section, what: str, a: tuple[str, ...], b: tuple[str, ...]) -> Iterator[Change]:
    for name in (*a, *(name for name in b if name not in a)):
        if (name in a) != (name in b):
            yield Change(section=section, key=what, a=name if name in a else None, b=name if name in b else None)


def _data(manifest: Manifest) -> dict[str, Any]:
    """Return the facts of the data; of people to be named, who may be thousands, their number."""
    if manifest.data is None:
        return {}
    found = manifest.data.model_dump(mode="json")
    return {**found, "attributions": len(found["attributions"])}


def _interface(artifact: Artifact) -> dict[str, Any]:
    second = artifact.probabilities
    return {
        "layout": artifact.layout,
        "input": artifact.input.model_dump(mode="json"),
        "output": artifact.output.model_dump(mode="json"),
        "probabilities": {} if second is None else {"file": "there", "output": second.output.model_dump(mode="json")},
    }


def _decision(decision: Decision) -> dict[str, Any]:
    fitted = [*([decision.threshold] if decision.threshold else []), *decision.other_thresholds]
    return {
        "temperature": decision.temperature,
        "threshold in force": decision.threshold and decision.threshold.in_words(),
        "threshold": {f"at {threshold.rule} {threshold.target:g}": threshold.probability for threshold in fitted},
        "abstention": decision.abstention.model_dump(mode="json"),
    }


def _kind(artifact: Artifact) -> tuple[str, str]:
    return artifact.format, artifact.precision


def _minus(one: Interval, other: Interval) -> float | None:
    return None if one.value is None or other.value is None else one.value - other.value


def lost_beside(a: Manifest, b: Manifest, pairs: Mapping[str, str]) -> list[str]:
    """Return what stands beside the artifacts `pairs` {name in A: name in B} in A, for other consumers, and not in B."""
    second = [a.artifact(mine).probabilities.name for mine, theirs in pairs.items() if a.artifact(mine).probabilities and not b.artifact(theirs).probabilities]
    there = {package.precision for package in b.coreml}
    return second + [package.name for package in a.coreml if package.artifact in pairs and package.precision not in there]
