"""How the report's plots look: the themes, and the parts that several plots share.

Nothing global is touched: no pyplot, no rcParams. Figures are sized in CSS pixels (100 an inch) for
a phone's width and drawn at twice that, on a transparent ground.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from melanoma_edge.contract import Interval

WIDTH = 5.4
"""Inches; 100 CSS pixels each."""
SMALL, TEXT = 8.5, 9.5
"""Font sizes in points."""
NAME_LENGTH = 30


@dataclass(frozen=True)
class Theme:
    """The colours of a page; every pair that means something also differs in shape or position."""

    name: str
    ink: str
    muted: str
    grid: str
    ground: str
    accent: str
    """The network that counts: int8."""
    second: str
    """What it is compared with: float."""
    positive: str
    """The positive class."""
    bound: str
    others: tuple[str, ...]


LIGHT = Theme(
    name="light",
    ink="#18212b",
    muted="#566270",
    grid="#e4e8ed",
    ground="#ffffff",
    accent="#1f5fd0",
    second="#8a5a00",
    positive="#c2185b",
    bound="#b42318",
    others=("#5b7db1", "#7a9a4b", "#9a7bb8", "#4d9a94", "#b08a3e", "#8a8f98", "#a86f5b", "#6f8f6a"),
)
DARK = Theme(
    name="dark",
    ink="#e6ebf1",
    muted="#9aa7b5",
    grid="#2c3642",
    ground="#171d25",
    accent="#7fb0ff",
    second="#e3b35a",
    positive="#ff80ab",
    bound="#ff8a7a",
    others=("#8fb0e0", "#a9c97a", "#c3a6e0", "#7fcbc4", "#d9b673", "#aeb6c0", "#d69c88", "#9fc29a"),
)


def figure(theme: Theme, height: float, *, rows: int = 1, **options):
    """Return a figure and its axes (an array for several rows) in the theme's clothes."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, 1, **options)
    for one in np.atleast_1d(axes):
        one.set_facecolor("none")
        one.set_axisbelow(True)
        one.spines[["top", "right"]].set_visible(False)
        one.spines[["left", "bottom"]].set_color(theme.grid)
        one.tick_params(colors=theme.muted, labelsize=SMALL, length=0)
        one.xaxis.label.set(color=theme.muted, fontsize=SMALL)
        one.yaxis.label.set(color=theme.muted, fontsize=SMALL)
        if rows > 1:
            one.grid(axis="y", color=theme.grid)
    return figure, axes


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A class name in a script that the font lacks shows boxes here; the tables spell it out.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="png", dpi=200, transparent=True, metadata={"Software": None})
    return buffer.getvalue()


def plain(name: str) -> str:
    """Return `name` as one short line that matplotlib does not take for a formula."""
    line = " ".join("".join(character if character.isprintable() else " " for character in name).split())
    return (line if len(line) <= NAME_LENGTH else line[: NAME_LENGTH - 1] + "…").replace("$", r"\$")


def title(axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=TEXT, color=axes.xaxis.label.get_color(), fontweight="bold")


def curve(axes, x, y, colour: str, label: str, **style) -> None:
    axes.plot(x, y, color=colour, linewidth=1.8, label=label, marker="o" if len(x) < 3 else None, **style)


def legend(axes, theme: Theme, **options) -> None:
    axes.legend(frameon=False, fontsize=SMALL, labelcolor=theme.ink, **options)


def legend_above(axes, theme: Theme) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=SMALL, labelcolor=theme.ink, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2, handletextpad=0.4)


def row_labels(axes, theme: Theme, labels: Sequence[str]) -> None:
    """Label horizontal rows from the top down."""
    axes.set_yticks(range(len(labels)), [plain(label) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=theme.grid)
    axes.spines["left"].set_visible(False)
    for tick in axes.get_yticklabels():
        tick.set(color=theme.ink, fontsize=SMALL)


def class_rows(axes, theme: Theme, classes: Sequence[str], positive: str | None) -> None:
    """Label rows with classes, the positive one in its colour."""
    row_labels(axes, theme, classes)
    for tick, name in zip(axes.get_yticklabels(), classes):
        if name == positive:
            tick.set(color=theme.positive, fontweight="bold")


def intervals(axes, theme: Theme, known: Sequence[tuple[int, Interval]], offset: float, style: tuple[str, str, str], label: str) -> None:
    """Draw values as marks and their intervals as bars, in the rows that `known` names."""
    colour, marker, face = style
    for row, interval in known:
        if interval.low is not None:
            axes.hlines(row + offset, interval.low, interval.high, color=colour, linewidth=2.2, alpha=0.5)
    axes.scatter([interval.value for _, interval in known], [row + offset for row, _ in known], marker=marker, s=34, color=face, edgecolor=colour, linewidth=1.5, zorder=4, label=label)


def series_style(theme: Theme, place: int) -> tuple[str, str, str]:
    """Return (colour, marker, face) of the first, second, third... series."""
    colour = (theme.accent, theme.second)[place % 2]
    return colour, "oDs^"[place % 4], colour if place % 2 == 0 else theme.ground


def offset(place: int, count: int) -> float:
    return 0.0 if count == 1 else 0.34 * (place / (count - 1) - 0.5)


def points(interval: Interval) -> Interval:
    return Interval(**{key: None if value is None else value * 100 for key, value in interval.model_dump().items()})


def log_ticks(axis, low: float, high: float) -> None:
    """Set round ticks (1, 2, 5) between `low` and `high`."""
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    ticks = [tick for decade in decades for tick in decade * np.array([1, 2, 5]) if low <= tick <= high]
    axis.set_ticks(ticks)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
