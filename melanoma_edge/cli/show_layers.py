"""What `melanoma-edge verify --layers` prints: a table a pair of runtimes, and in a line where they part."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table


def show_layers(screen, found, as_json: bool) -> None:
    """Print the comparison `found` on `screen`."""
    if as_json:
        return screen.json(found.model_dump(mode="json"))
    for pair in found.pairs:
        if pair.outcome == "compared":
            screen.out.print(_table(pair, screen.verbose))
            screen.out.print(_verdict(pair))
            for note in pair.notes:
                screen.out.print(f"note: {escape(note)}", style="yellow")
            screen.out.print()
    for pair in found.pairs:
        if pair.outcome != "compared":
            screen.out.print(f"- {pair.outcome}: {escape(pair.artifact)} on {pair.runtime} against {escape(pair.reference)}: {escape(pair.reason or '')}", style="dim")
    compared = sum(pair.outcome == "compared" for pair in found.pairs)
    screen.out.print(
        f"{compared} pairs compared, {len(found.pairs) - compared} not; {found.pictures} pictures (golden, and {escape(found.data)}). "
        "End to end: each model computes from the picture on. Alone: the operator on the reference's input of its layer.",
        soft_wrap=True,
    )


def _table(pair, verbose: bool) -> Table:
    unit = "quanta" if pair.unit == "quanta" else "of range"
    columns = ["layer", "operator", "off", f"max, {unit}", f"bias, {unit}", "SQNR, dB", "alone: off", f"max, {unit}", "SQNR, dB", *(["tensor", "reference's"] if verbose else [])]
    table = Table(title=f"{escape(pair.artifact)} on {pair.runtime} against {escape(pair.reference)}", title_justify="left")
    for position, name in enumerate(columns):
        table.add_column(name, justify="right" if 2 <= position < 9 else "left")
    for row in pair.rows:
        whole, alone = row.end_to_end, row.alone
        figures = [share(whole.off), number(whole.largest), number(whole.bias), decibels(whole.sqnr_db), share(alone.off), number(alone.largest), decibels(alone.sqnr_db)]
        names = [escape(row.candidate.tensor), escape(row.reference.tensor)] if verbose else []
        table.add_row(escape(row.layer), row.operator, *figures, *names, style="bold red" if row.suspect else "")
    return table


def _verdict(pair) -> str:
    """Return where the two part, in words."""
    if pair.first_part is None:
        words = "no value of any layer differs" if pair.unit == "quanta" else "no layer differs by more than float32 rounds"
    else:
        words = f"they part first at [bold]{escape(pair.first_part)}[/]"
    if not pair.suspects:
        return f"[green]✓[/] {words}" + ("" if pair.first_part is None else "; each layer alone is within its rounding")
    return f"[bold red]✗[/] {words}; " + "; ".join(f"[bold red]suspect: {escape(row.layer)}[/]: {escape(row.suspect)}" for row in pair.suspects)


def share(value: float) -> str:
    """Return a share in per cent; one too small to show is not shown as none."""
    return "0" if value == 0 else "< 0.001 %" if value < 1e-5 else f"{value * 100:.3f} %" if value < 0.01 else f"{value * 100:.1f} %"


def number(value: float) -> str:
    """Return a difference: a whole number of quanta, or one in three digits."""
    return f"{value:.0f}" if value == round(value) else f"{value:.2g}"


def decibels(value: float | None) -> str:
    """Return a ratio; there is none without a difference."""
    return "-" if value is None else f"{value:.1f}"
