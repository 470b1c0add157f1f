"""What `melanoma-edge audit` prints: problems first, then the classes and what all of it does to a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

SHOWN = 5
"""Files named on the screen of each list; all of them with -v, and in the JSON."""


def show_audit(screen, found, written: Sequence[Path], as_json: bool) -> None:
    """Print the audit `found` on `screen`, and which files were `written`."""
    if as_json:
        return screen.json(found.model_dump(mode="json"))
    out = screen.out
    counts, effect = found.counts, found.effect
    out.print(f"[bold]{escape(_line(found.data))}[/]: {counts.readable} pictures in {counts.classes} classes ({escape(_line(found.source))})")
    _problems(screen, found)
    _unreadable(screen, found)
    _classes(out, found)
    _shortcuts(out, found)
    out.print(f"after the policy: {effect.usable} of {effect.pictures} pictures ({counts.usable_groups} independent groups)")
    out.print(
        f"best accuracy possible on the files as they are: {effect.accuracy_ceiling:.1%} (balanced {effect.balanced_accuracy_ceiling:.1%}): "
        "identical pictures under two classes cannot all be told right"
        if counts.conflicting_groups
        else "no picture stands under two classes: nothing bounds the accuracy from above"
    )
    leak = effect.random_split_leak
    out.print(f"leak of a random 80/20 split (expected): {leak.copies:.1%} of the test pictures by copies, {leak.patients:.1%} by copies, lesions and patients")
    if effect.given_split_leak is not None:
        out.print(f"leak of the given test part: {effect.given_split_leak.copies:.1%} by copies, {effect.given_split_leak.patients:.1%} by copies, lesions and patients")
    if set(found.licences) != {"not stated"}:
        out.print("licences: " + escape(", ".join(f"{_line(name)} {count}" for name, count in found.licences.items())))
    for note in found.files.notes:
        out.print(f"note: {escape(_line(note))}", style="dim")
    for file in written:
        out.print(f"written: {escape(_line(str(file)))}")
    out.print(found.notice, style="dim")


def _problems(screen, found) -> None:
    if not found.problems:
        return screen.out.print("nothing wrong was found", style="green")
    meaning = ["what it does to a figure"] if screen.verbose else []
    table = Table("", "what was found", *meaning, "what melanoma-edge does about it, or you can", title="problems", title_justify="left")
    for problem in found.problems:
        sign = "[bold red]✗ dishonest[/]" if problem.severity == "dishonest" else "[dim]- note[/]"
        done = f"{'[green]✓[/] ' if problem.handled else ''}{escape(_line(problem.remedy))}"
        table.add_row(sign, escape(_line(problem.title)), *([escape(_line(problem.meaning))] if screen.verbose else []), done)
    screen.out.print(table)


def _unreadable(screen, found) -> None:
    files = found.files.unreadable
    shown = files if screen.verbose else files[:SHOWN]
    for file in shown:
        screen.out.print(f"{file.fault}: {escape(_line(file.path))}: {escape(_line(file.reason))}", style="yellow", soft_wrap=True)
    if len(shown) < len(files):
        screen.out.print(f"... {len(files) - len(shown)} more in the JSON, or with -v", style="dim")


def _classes(out, found) -> None:
    table = Table("class", "pictures", "lesions", "used", "lesions used", title="classes", title_justify="left")
    for one in found.classes:
        name = escape(_line(one.name)) + (" [yellow](left out)[/]" if one.left_out else "")
        table.add_row(name, str(one.pictures), str(one.lesions), str(one.usable), str(one.usable_lesions))
    out.print(table)
    if found.imbalance is not None:
        after = "" if found.imbalance_usable is None else f", {found.imbalance_usable:.1f} of those used"
        out.print(f"largest to smallest class: {found.imbalance:.1f}{after}")


def _shortcuts(out, found) -> None:
    table = Table("shortcut", "balanced accuracy", "chance (99 % of permutations)", "verdict", title="what tells the class without the picture", title_justify="left")
    for one in found.shortcuts:
        if one.balanced_accuracy is None:
            table.add_row(one.title, "-", "-", f"[dim]{escape(_line(one.reason))}[/]")
        else:
            style = {"shortcut": "bold red", "weak": "yellow"}.get(one.verdict, "green")
            interval = f"{one.chance:.1%} ({one.chance_low:.1%} to {one.chance_high:.1%})"
            table.add_row(one.title, f"{one.balanced_accuracy:.1%}", interval, f"[{style}]{one.verdict}[/]")
    out.print(table)


def _line(text: str) -> str:
    """Return `text` as one printable line."""
    return text if text.isprintable() else repr(text)[1:-1]
