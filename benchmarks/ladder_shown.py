"""The ladder's table and plot.

In: {step: reported, and the figures of both protocols, None where a training is not complete}. Out: a table for the terminal, the same in
Markdown, a PNG.
"""

from __future__ import annotations

import io
import textwrap

from rich.console import Console
from rich.table import Table

HEADINGS = (
    "step",
    "notebooks report",
    "their protocol here: training / validation",
    "validation pictures seen in training",
    "leak-free: training",
    "true accuracy",
    "true balanced accuracy",
)
LOG_WIDTH = 132
"""Columns of the table where there is no terminal."""
NOTE = (
    "Accuracy, with 95 % intervals over resampled lesions. Their protocol: Train/ as it is (nine classes), from classic-rebalanced on with 500 "
    "Augmentor samples a class in it, a random 80/20 split of everything, the last epoch. Seen in training: validation pictures whose source (an "
    "original and its samples are one) or an identical file also stands in the training part. Leak-free and true: the same network and augmentation, "
    "conflicts between labels resolved (which leaves eight classes), split by content and by lesion where it is known, augmentation on the training part alone, the epoch that is best on "
    "the validation part, judged on the test part (fold 0), which nothing has seen. Training accuracy is on augmented pictures, while the network learns."
)


def rows(steps: dict[str, dict]) -> list[tuple[str, ...]]:
    """Return the cells of the table, one tuple a step, a dash where nothing is known yet."""
    return [(step, _percent(row["reported"]), *_notebook(row["notebook"]), *_leak_free(row["leak-free"])) for step, row in steps.items()]


def _notebook(figures: dict | None) -> tuple[str, str]:
    if figures is None:
        return "–", "–"
    return f"{_percent(figures['training'])} / {_percent(figures['validation'])}", _percent(figures["leak"]["share"])


def _leak_free(figures: dict | None) -> tuple[str, str, str]:
    if figures is None:
        return "–", "–", "–"
    return _percent(figures["training"]), _interval(figures["accuracy"]), _interval(figures["balanced_accuracy"])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _interval(found: dict) -> str:
    """Return a value in percent, with its interval where it has one."""
    bounds = "" if found["low"] is None else f" ({100 * found['low']:.1f} to {100 * found['high']:.1f})"
    return _percent(found["value"]) + bounds


def show(steps: dict[str, dict]) -> None:
    """Print the table."""
    table = Table(caption=NOTE, caption_justify="left")
    for place, heading in enumerate(HEADINGS):
        table.add_column("\n".join(textwrap.wrap(heading, 16)), justify="left" if place == 0 else "right", no_wrap=place == 0)
    for row in rows(steps):
        table.add_row(*(cell.replace(" (", "\n(") for cell in row))
    console = Console()
    if not console.is_terminal:
        console.width = LOG_WIDTH
    console.print(table)


def markdown(steps: dict[str, dict]) -> str:
    """Return the table in Markdown, its note below."""
    lines = [HEADINGS, ("---", *["---:"] * (len(HEADINGS) - 1)), *(("`" + row[0] + "`", *row[1:]) for row in rows(steps))]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{NOTE}"


def plot(steps: dict[str, dict]) -> bytes:
    """Return a PNG: one row a step with what is reported, what their protocol gives here, and what is true with its intervals.

    On white, because a README shows it on whatever ground it has.
    """
    from matplotlib.ticker import PercentFormatter

    from melanoma_edge.contract import Interval
    from melanoma_edge.proof.plot_style import DPI, LIGHT, SMALL, figure, intervals, offset, row_labels

    def single(value: float) -> Interval:
        return Interval(value=value, low=None, high=None)

    found = list(steps.values())
    here = [(place, single(row["notebook"]["validation"])) for place, row in enumerate(found) if row["notebook"]]
    true = [(place, row["leak-free"]) for place, row in enumerate(found) if row["leak-free"]]
    series = (
        ("notebooks report", [(place, single(row["reported"])) for place, row in enumerate(found)], (LIGHT.muted, "s", LIGHT.ground)),
        ("their protocol here", here, (LIGHT.second, "D", LIGHT.second)),
        ("true accuracy", [(place, Interval(**row["accuracy"])) for place, row in true], (LIGHT.accent, "o", LIGHT.accent)),
        ("true balanced accuracy", [(place, Interval(**row["balanced_accuracy"])) for place, row in true], (LIGHT.accent, "o", LIGHT.ground)),
    )
    drawn, axes = figure(LIGHT, 0.95 + 0.62 * len(steps))
    for place, (label, known, style) in enumerate(series):
        intervals(axes, known, 1.6 * offset(place, len(series)), style, label)
    row_labels(axes, LIGHT, list(steps))
    for edge in range(len(steps) - 1):
        axes.axhline(edge + 0.5, color=LIGHT.grid, linewidth=0.8)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.set_xlabel("true: on the leak-free test part, with 95 % intervals", x=1.0, ha="right")
    axes.figure.legend(frameon=False, fontsize=SMALL, labelcolor=LIGHT.ink, loc="outside upper center", ncols=2, handletextpad=0.4, columnspacing=2.0)
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=DPI, facecolor=LIGHT.ground, metadata={"Software": None})
    return buffer.getvalue()
