"""Outcomes as JUnit XML, which continuous integration shows: a test case for each gate or check.

In: what `verify` or `diff` found, and what was required. Out: a file that Jenkins (its xUnit plugin's junit-10.xsd) and GitLab read. What failed is a
failure; what is inconclusive, was not run or not compared is skipped, and its message says which. Reasons stand in
the message and again in the text, for GitLab shows the text only; names are unique, for it drops the second of
a name. Characters that XML 1.0 cannot hold, which names of files can, are written as escapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from melanoma_edge.contract import Interval
from melanoma_edge.errors import BadInput
from melanoma_edge.files import explained, refuse_existing, write_bytes
from melanoma_edge.proof.diff_model import Difference
from melanoma_edge.proof.parity_model import Parity

NAME = "melanoma-edge"
MARK = b'<testsuites name="melanoma-edge'
"""How an earlier report of ours begins, after the declaration."""
LISTED = 50
"""Flips that a test case lists; the evidence holds more."""
_ILLEGAL = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 (section 2.2) has no place for, with the control characters that it only discourages."""


@dataclass(frozen=True)
class Case:
    """One test case."""

    group: str
    name: str
    outcome: str
    """`passed`, `failed`, or the word for what was skipped."""
    reason: str = ""
    lines: tuple[str, ...] = ()
    """What was found, for system-out."""


def of_parity(parity: Parity, *, lacking: str | None = None) -> bytes:
    """Return the gates of a verification as JUnit XML (UTF-8); `lacking` says what was required and not carried out, which fails."""
    facts = {
        "bundle": parity.bundle,
        "manifest_sha256": parity.manifest_sha256,
        "command": parity.command,
        "pictures": f"{parity.pictures} ({parity.data})",
        **{f"labelled_{name}": str(count) for name, count in parity.labelled.items()},
        "notice": parity.notice,
    }
    required = [] if lacking is None else [Case("required", "what --require names was carried out", "failed", lacking)]
    return document("verify", [*_parity_cases(parity), *required], facts, date=parity.date, seconds=parity.seconds)


def of_difference(found: Difference, require: Sequence[str] = ()) -> bytes:
    """Return the checks of a comparison of two bundles as JUnit XML (UTF-8).

    A check that `require` names and that did not pass is a failure here too, as it is for the exit code; one that was allowed to fail
    is skipped.
    """
    facts = {
        **{f"{side}_{key}": value for side, one in (("a", found.a), ("b", found.b)) for key, value in one.model_dump().items()},
        **{f"tolerance_{name}": "default" if value is None else f"{value:g}" for name, value in found.tolerances.model_dump().items()},
        "comparison": found.comparison,
        **({"required": ", ".join(require)} if require else {}),
        "pictures": found.data,
        "notice": found.notice,
    }
    return document("diff", _difference_cases(found, require), facts)


def check(file: Path) -> None:
    """Raise BadInput, before anything takes long, where `file` is in no folder or is something else than an earlier report."""
    file = Path(file)
    if not file.parent.is_dir():
        raise BadInput(f"the folder {file.parent} does not exist: make it, or give another --junit")
    with explained(file):
        if file.is_file() and not file.is_symlink():
            with open(file, "rb") as stream:
                if MARK in stream.read(256):
                    return
    refuse_existing(file, force=None)


def write(file: Path, content: bytes) -> None:
    """Write a report to `file`, in place of an earlier one. Raises as :func:`check` and the writing do."""
    check(file)
    write_bytes(file, content)


def document(what: str, cases: Iterable[Case], facts: Mapping[str, str], *, date: str = "", seconds: float | None = None) -> bytes:
    """Return one suite called melanoma-edge `what` with the test `cases` and the properties `facts`."""
    cases = list(cases)
    failures = sum(case.outcome == "failed" for case in cases)
    skipped = sum(case.outcome not in ("passed", "failed") for case in cases)
    counts = {"tests": str(len(cases)), "failures": str(failures), "errors": "0"}
    root = ElementTree.Element("testsuites", {"name": f"{NAME} {what}", **counts})
    suite = ElementTree.SubElement(root, "testsuite", {"name": f"{NAME} {what}", **counts, "skipped": str(skipped)})
    if date:
        suite.set("timestamp", date[:19])  # without the zone, which readers refuse; it is UTC
    if seconds is not None:
        suite.set("time", f"{seconds:.3f}")
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in facts.items():
        ElementTree.SubElement(properties, "property", {"name": _line(name), "value": _line(value)})
    used: set[tuple[str, str]] = set()
    for case in cases:
        name, number = case.name, 1
        while (case.group, name) in used:
            number += 1
            name = f"{case.name} ({number})"
        used.add((case.group, name))
        _add(suite, case, what, name)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _add(suite: ElementTree.Element, case: Case, what: str, name: str) -> None:
    element = ElementTree.SubElement(suite, "testcase", {"classname": f"{NAME}.{what}.{_line(case.group)}", "name": _line(name)})
    if case.outcome != "passed":
        message = _line(f"{case.outcome}: {case.reason}" if case.reason else case.outcome)
        kind = "failure" if case.outcome == "failed" else "skipped"
        ElementTree.SubElement(element, kind, {"type": case.outcome, "message": message}).text = message
    lines = [_line(line) for line in (*case.lines, *([case.reason] if case.outcome == "passed" and case.reason else []))]
    if lines:
        ElementTree.SubElement(element, "system-out").text = "\n".join(lines)


def _parity_cases(parity: Parity) -> Iterable[Case]:
    for gate in parity.gates:
        lines = [f"must hold: {gate.requirement}"] if gate.requirement else []
        lines += [f"pictures: {gate.pictures} ({gate.measured_on})"] if gate.pictures else []
        lines += [f"{name}: {value:g}" for name, value in gate.figures.items() if value is not None]
        lines += [f"loss of {name}: {_interval(loss)}" for name, loss in gate.losses.items()]
        lines += [f"recall change of {name}: {change:+.3f}" for name, change in gate.recall_change.items() if change is not None]
        lines += _flips(gate.flip_count, gate.flips)
        against = f" against {gate.reference}" if gate.reference else ""
        yield Case(gate.runtime, f"{gate.name}: {gate.artifact}{against}", gate.outcome, gate.reason or "", tuple(lines))


def _difference_cases(found: Difference, require: Sequence[str]) -> Iterable[Case]:
    unmet = list(found.unmet(require))
    for one in found.checks:
        lines = [f"must hold: {one.requirement}"]
        lines += [f"pictures: {one.pictures}"] if one.pictures else []
        lines += [f"measured on: {one.measured_on}"] if one.measured_on else []
        lines += [f"found: {_interval(one.found)}"] if one.found else []
        if one.name == "flips":
            flips = next((artifact.flips for artifact in found.artifacts if artifact.a == one.artifact), None)
            lines += _flips(flips.count, flips.listed) if flips else []
        runtime = f" on {one.runtime}" if one.runtime else ""
        outcome, reason = one.outcome, one.reason or ""
        if outcome != "failed" and any(one is check for _, check in unmet):
            outcome, reason = "failed", f"required, but {outcome}: {reason}"
        yield Case(one.name, f"{one.name}: {one.artifact}{runtime}", outcome, reason, tuple(lines))
    for name in (name for name, check in unmet if check is None):
        yield Case(name, f"{name}: all", "failed", "required, but nothing was to be judged by it")


def _flips(count: int, flips) -> list[str]:
    shown = [f"flip: {flip.picture}: {flip.reference} -> {flip.candidate} (margin {flip.margin:.3g})" for flip in flips[:LISTED]]
    return [*([f"flips: {count}"] if count else []), *shown, *([f"... {count - len(shown)} more"] if len(shown) < count else [])]


def _interval(interval: Interval) -> str:
    if interval.value is None:
        return "undefined"
    return f"{interval.value:+.4f}" + ("" if interval.low is None else f" ({interval.low:+.4f} to {interval.high:+.4f})")


def _line(text: str) -> str:
    """Return `text` as one line of characters that XML can hold; others become escapes, as Python writes them."""
    return _ILLEGAL.sub(lambda found: ascii(found.group())[1:-1], " ".join(text.splitlines()))
