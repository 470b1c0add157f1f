"""What `recipes` and `doctor` print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from melanoma_edge.cli.show import Screen


def show_recipes(screen: Screen, found: list) -> None:
    """Print the shipped recipes."""
    table = Table("recipe", "network", "size", "epochs", "description")
    for recipe in found:
        table.add_row(recipe.name, recipe.network, str(recipe.image_size), f"{recipe.epochs} + {recipe.qat_epochs} QAT", escape(recipe.description))
    screen.out.print(table)


def show_doctor(screen: Screen, facts: dict, as_json: bool) -> None:
    """Print what this machine has."""
    if as_json:
        return screen.json(facts)
    cpu = facts["conditions"]["cpu"]
    screen.out.print(f"CPU: {escape(str(cpu.get('model')))}; for int8: {', '.join(facts['int8']) or 'no special instructions'}")
    devices = ", ".join(facts["gpu"]["devices"]) or "none"
    screen.out.print(f"GPU: {escape(devices)}; driver: {'yes' if facts['gpu']['driver'] else 'no'}")
    table = Table("runtime", "version", "here", "why not")
    for name, runtime in facts["runtimes"].items():
        table.add_row(name, runtime["version"] or "-", "yes" if runtime["available"] else "no", escape(runtime["reason"] or ""))
    screen.out.print(table)
    screen.out.print(f"reference bundle: {escape(facts['reference'] or 'not in this installation')}")
    for gap in facts["missing"]:
        screen.out.print(f"missing: {escape(gap['what'])}: {escape(gap['reason'] or '')}")
        if gap["install"]:
            screen.out.print(f"  {escape(gap['install'])}", style="bold")
    if screen.verbose:
        screen.json(facts["conditions"])
