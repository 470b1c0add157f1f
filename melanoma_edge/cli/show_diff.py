"""What `melanoma-edge diff` prints: what differs, the figures side by side, then the checks."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

STYLE = {"passed": "green", "failed": "bold red", "allowed": "yellow", "inconclusive": "yellow", "not compared": "dim"}
SIGN = {"passed": "✓", "failed": "✗", "allowed": "!", "inconclusive": "?", "not compared": "-"}
SHOWN = 5
"""Flips of an artifact on the screen; all that are listed with -v."""
FIGURES = ("balanced_accuracy", "positive_sensitivity_of_decision", "positive_specificity_of_decision", "positive_auc", "coverage_of_decision", "ece", "ece_at_priors")
"""Figures of the manifests on the screen; all with -v."""

HEADS = {"size": "growth", "flips": "flips", "latency": "times as long"}
"""What the columns of the checks are called that are no losses."""


def show_diff(screen, found, as_json: bool) -> None:
    """Print the difference `found` on `screen`; with -v also what is the same."""
    if as_json:
        return screen.json(found.model_dump(mode="json"))
    out = screen.out
    out.print(", ".join(f"{name}: [bold]{escape(_line(side.name))}[/] ({side.manifest_sha256[:12]})" for name, side in (("A", found.a), ("B", found.b))))
    _changes(out, found)
    unused = "neither saw in training" if found.training_known else "neither bundle used (whether training saw them is not known)"
    shown = [one for one in found.artifacts if screen.verbose or not _same(one)]
    if len(shown) < len(found.artifacts):
        same = ", ".join(one.a for one in found.artifacts if _same(one))
        out.print(f"the same in both, file and decision: {escape(_line(same))}", style="green", soft_wrap=True)
    if shown:
        _artifacts(out, shown)
        _scores(screen, shown)
        _flips(screen, shown, unused)
        _checks(out, found, shown)
    _reasons(out, found)
    if found.comparison == "paired":
        rests = f"losses: both on {found.labelled['unseen']} labelled {_line(found.data)} that {unused}, paired by picture"
    else:
        rests = "losses: unpaired, from the scores in the manifests, each on its own test part; --data compares both on the same pictures"
    out.print(escape(rests))
    count = {outcome: sum(check.outcome == outcome for check in found.checks) for outcome in STYLE}
    out.print(", ".join(f"{number} {outcome}" for outcome, number in count.items() if number or outcome != "allowed"))
    out.print(found.notice, style="dim")


def _same(one) -> bool:
    """Return whether an artifact is the same in all that is shown of it."""
    return one.status == "same" and not one.decision and not one.interface and not (one.flips and one.flips.count) and not any(score.a != score.b for score in one.scores.values())


def _changes(out, found) -> None:
    files = [f"{what}: {_line(name)}" for what, names in found.files.items() for name in names]
    interfaces = [(change, f"{change.key} of {one.a}") for one in found.artifacts for change in one.interface]
    if found.changes or interfaces:
        table = Table("", "what", "A", "B", title="what differs", title_justify="left")
        for change, key in [*((change, change.key) for change in found.changes), *interfaces]:
            table.add_row(change.section, *(escape(_line(cell)) for cell in (key, _value(change.a), _value(change.b))))
        out.print(table)
    if files:
        out.print(f"files {escape('; '.join(files))}", soft_wrap=True)


def _artifacts(out, artifacts) -> None:
    table = Table("artifact", "file", "bytes A", "bytes B", "growth", "operators and weights that differ", "decision", title="artifacts", title_justify="left")
    for one in artifacts:
        name = one.a or one.b
        if one.a and one.b and one.a != one.b:
            name = f"{one.a} / {one.b}"
        sizes = ["-" if size is None else f"{size:,}" for size in one.bytes]
        growth = f"{one.bytes[1] / one.bytes[0] - 1:+.1%}" if all(one.bytes) else "-"
        census = [f"{name} {a} → {b}" for name, (a, b) in one.operators.items()] + [f"{name} {a:,} → {b:,} B" for name, (a, b) in one.weight_bytes.items()]
        decision = [f"{change.key} {_value(change.a)} → {_value(change.b)}" for change in one.decision]
        table.add_row(escape(_line(name)), one.status, *sizes, growth, escape("\n".join(map(_line, census))) or "-", escape("\n".join(map(_line, decision))) or "-")
    out.print(table)


def _scores(screen, artifacts) -> None:
    rows = []
    for one in artifacts:
        for name in one.scores if screen.verbose else FIGURES:
            score = one.scores.get(name)
            if score is not None and (screen.verbose or score.a != score.b):
                change = "-" if score.change is None else f"{score.change:+.3f}"
                rows.append((one.a, name.replace("_", " "), _interval(score.a), _interval(score.b), change))
    if rows:
        table = Table("artifact", "figure", "A", "B", "change", title="scores in the manifests, each on its own bundle's test part", title_justify="left")
        for row in rows:
            table.add_row(*(escape(_line(cell)) for cell in row))
        screen.out.print(table)
    for one in artifacts:
        if one.recall_change:
            changes = ", ".join(f"{name} {change:+.3f}" for name, change in one.recall_change.items() if change is not None)
            screen.out.print(f"recall change of {escape(_line(one.a))}: {escape(_line(changes))}")


def _flips(screen, artifacts, unused: str) -> None:
    for one in artifacts:
        flips = one.flips
        if flips is None or not flips.count:
            continue
        known = "" if flips.newly_wrong is None else f"; of those that {unused} {flips.newly_wrong} newly wrong, {flips.newly_right} newly right"
        screen.out.print(f"{flips.count} of {flips.pictures} pictures ({escape(_line(flips.measured_on))}) are given another first class by {escape(_line(one.b))}{known}:")
        shown = flips.listed if screen.verbose else flips.listed[:SHOWN]
        for flip in shown:
            words = f"{flip.picture}: {flip.reference} -> {flip.candidate} (lead {flip.margin:.2f})"
            screen.out.print(f"  {escape(_line(words))}")
        if len(shown) < flips.count:
            screen.out.print(f"  ... {flips.count - len(shown)} more with -v or --json", style="dim")


def _checks(out, found, artifacts) -> None:
    """Print a row an artifact, a column a check; latency once a runtime."""
    names = list(dict.fromkeys(check.name for check in found.checks if check.artifact != "all"))
    runtimes = sorted({check.runtime for check in found.checks if check.artifact != "all" and check.runtime})
    columns = [(name, runtime) for name in names for runtime in (runtimes if name == "latency" else [""])]
    heads = [HEADS.get(name, "loss of {}").format(name.replace("_", " ")) + (f" on {runtime}" if runtime else "") for name, runtime in columns]
    table = Table("artifact", *heads, title="is B worse?", title_justify="left")
    held = {(check.artifact, check.name, check.runtime): check for check in found.checks}
    for one in artifacts:
        cells = [_cell(held.get((one.a, *column))) for column in columns]
        if one.a is not None and one.b is not None:
            table.add_row(escape(_line(one.a)), *cells)
    if table.row_count:
        out.print(table)


def _cell(check) -> str:
    return "[dim]not judged[/]" if check is None else f"[{STYLE[check.outcome]}]{SIGN[check.outcome]} {check.outcome}[/]\n{_found(check)}"


def _reasons(out, found) -> None:
    """Print why checks did not pass; several of them often say the same: a line a reason."""
    reasons: dict[tuple[str, str], dict[str, list[str]]] = {}
    for check in found.checks:
        if check.reason and check.outcome != "passed":
            name = check.name.replace("_", " ") + (f" on {check.runtime}" if check.runtime else "")
            reasons.setdefault((check.outcome, check.reason), {}).setdefault(name, []).append(check.artifact)
    for (outcome, reason), about in reasons.items():
        alike: dict[tuple[str, ...], list[str]] = {}
        for name, artifacts in about.items():
            alike.setdefault(tuple(artifacts), []).append(name)
        where = "; ".join(", ".join(names) + ("" if artifacts == ("all",) else f" of {', '.join(artifacts)}") for artifacts, names in alike.items())
        out.print(f"{SIGN[outcome]} {outcome}: {escape(_line(where))}: {escape(_line(reason))}", style=STYLE[outcome], soft_wrap=True)


def _found(check) -> str:
    found = check.found
    if found is None or found.value is None:
        return "-"
    if check.name in ("size", "flips"):
        return f"{found.value:+.1%}" if check.name == "size" else f"{found.value:.2%}"
    shown = "{:.2f}" if check.name == "latency" else "{:+.3f}"
    words = shown.format(found.value)
    return words if found.low is None or found.low == found.high else f"{words} ({shown.format(found.low)} to {shown.format(found.high)})"


def _interval(interval) -> str:
    if interval.value is None:
        return "undefined"
    return f"{interval.value:.3f}" + ("" if interval.low is None else f" ({interval.low:.3f} to {interval.high:.3f})")


def _value(value: Any) -> str:
    """Return a value of a manifest in short: hashes by their beginning, floats by six digits."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value)) or "none"
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 and " " not in text else text


def _line(text: str) -> str:
    """Return `text` as printable lines: control characters of names become escapes."""
    return "".join(character if character.isprintable() or character == "\n" else repr(character)[1:-1] for character in text)
