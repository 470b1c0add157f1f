"""What the commands about data sets print: `import`, `prepare` and `augment`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from melanoma_edge.cli.show import Screen

UNDIVIDED = "undivided"
LISTED = {
    "licences": "licences",
    "left out, none of the nine classes": "unmapped",
    "left out, other licences": "filtered",
    "other files": "other_files",
}
NAMED = {"left out, no class": "outside", "in a table, without a picture": "without_picture"}
"""{title: key} of what a listing counts, and of what it names."""


def show_listing(screen: Screen, facts: dict, as_json: bool) -> None:
    """Print what a data set holds and what is left out of it."""
    if as_json:
        return screen.json(facts)
    screen.out.print(f"{escape(facts['kind'])}: {facts['pictures']} pictures in {escape(facts['root'])}", soft_wrap=True)
    parts = list(facts["parts"])
    table = Table("class", "pictures", *(escape(part) for part in parts if parts != [UNDIVIDED]))
    for name, found in facts["classes"].items():
        table.add_row(escape(name), str(found["pictures"]), *(str(found["parts"].get(part, 0)) for part in parts if parts != [UNDIVIDED]))
    screen.out.print(table)
    for what in ("lesion", "patient"):
        known = f"{facts[f'with_{what}']} of {facts['pictures']} pictures, {facts[f'{what}s']} different" if facts[f"{what}s"] else "not known"
        screen.out.print(f"{what} ids: {known}")
    for title, key in LISTED.items():
        if facts[key]:
            screen.out.print(f"{title}: {escape(', '.join(f'{name} {count}' for name, count in facts[key].items()))}", soft_wrap=True)
    for title, key in NAMED.items():
        if facts[key]["count"]:
            examples = ", ".join(facts[key]["first"])
            screen.out.print(f"{title}: {facts[key]['count']} ({escape(examples)}{' ...' if facts[key]['count'] > len(facts[key]['first']) else ''})", soft_wrap=True)
    for note in facts["notes"]:
        screen.out.print(f"note: {escape(note)}", style="yellow", soft_wrap=True)
    if facts["out"]:
        screen.out.print(f"written: {escape(facts['out'])}", soft_wrap=True)


def show_prepared(screen: Screen, facts: dict, as_json: bool) -> None:
    """Print what stands in the cache now."""
    if as_json:
        return screen.json(facts)
    screen.out.print(f"prepared: {facts['pictures']} pictures at {facts['size']} x {facts['size']}, {facts['bytes'] / 1e6:.0f} MB in {escape(facts['cache'])}")
    screen.out.print(f"decoded now: {facts['decoded']} files; known already: {facts['known']}; unreadable: {len(facts['unreadable'])}")
    for path, why in facts["unreadable"]:
        screen.out.print(f"unreadable: {escape(path)}: {escape(why)}", style="yellow", soft_wrap=True)


def show_augmented(screen: Screen, facts: dict, as_json: bool) -> None:
    """Print what was augmented, and what could not be read."""
    if as_json:
        return screen.json(facts)
    unreadable, per_class = facts["unreadable"], facts.get("per_class", {})
    screen.facts({name: value for name, value in facts.items() if name not in ("unreadable", "per_class")}, False)
    for name, count in per_class.items():
        screen.out.print(f"  {escape(name)}: {count}" + ("" if count else " (none of its pictures can be read)"), style="" if count else "yellow")
    for path, why in unreadable:
        screen.out.print(f"unreadable: {escape(path)}: {escape(why)}", style="yellow")
    if unreadable:
        screen.out.print(f"unreadable files left out: {len(unreadable)}", style="yellow")
