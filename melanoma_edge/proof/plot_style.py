"""How the report's plots look: the themes, and the parts that several plots share.

Nothing global is touched: no pyplot, no rcParams. Figures are sized in CSS pixels (100 an inch) for
a phone's width and drawn finer than that, on a transparent ground.
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

WIDTH = 4.7
"""Inches; 100 CSS pixels each."""
DPI = 230
"""Dots an inch: a CSS pixel is drawn 2.3 times as fine."""
SMALL, TEXT = 8.5, 9.5
"""Font sizes in points."""
NAME_LENGTH = 28


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
    """Return a figure of `height` inches and its axes (an array for several rows) in the theme's clothes."""
    made = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(made)
    axes = made.subplots(rows, 1, **options)
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
    return made, axes


def png(made: Figure) -> bytes:
    """Return the drawn figure as a PNG file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A class name in a script that the font lacks shows boxes here; the tables spell it out.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        made.savefig(buffer, format="png", dpi=DPI, transparent=True, metadata={"Software": None})
    return buffer.getvalue()


def plain(name: str) -> str:
    """Return `name` as one short line that matplotlib does not take for a formula."""
    line = " ".join("".join(character if character.isprintable() else " " for character in name).split())
    return (line if len(line) <= NAME_LENGTH else line[: NAME_LENGTH - 1] + "…").replace("$", r"\$")


def title(axes, text: str) -> None:
    """Head the axes with `text`."""
    axes.set_title(text, loc="left", fontsize=TEXT, color=axes.xaxis.label.get_color(), fontweight="bold")


def curve(axes, x, y, colour: str, label: str, **style) -> None:
    """Draw a line; one or two points alone show as dots."""
    axes.plot(x, y, color=colour, linewidth=1.8, label=label, marker="o" if len(x) < 3 else None, **style)


def legend(axes, theme: Theme, **options) -> None:
    """Name what is drawn, inside the axes."""
    axes.legend(frameon=False, fontsize=SMALL, labelcolor=theme.ink, **options)


def legend_above(axes, theme: Theme) -> None:
    """Name what is drawn, in one line above the whole figure."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        options = dict(loc="outside upper center", ncols=3, handletextpad=0.4, columnspacing=1.3)
        axes.figure.legend(handles, labels, frameon=False, fontsize=SMALL, labelcolor=theme.ink, **options)


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


def intervals(axes, known: Sequence[tuple[int, Interval]], shift: float, style: tuple[str, str, str], label: str) -> None:
    """Draw values as marks and their intervals as bars, in the rows that `known` names."""
    colour, marker, face = style
    for row, interval in known:
        if interval.low is not None:
            axes.hlines(row + shift, interval.low, interval.high, color=colour, linewidth=2.2, alpha=0.5)
    values, rows = [interval.value for _, interval in known], [row + shift for row, _ in known]
    axes.scatter(values, rows, marker=marker, s=34, color=face, edgecolor=colour, linewidth=1.5, zorder=4, label=plain(label))


def series_style(theme: Theme, place: int) -> tuple[str, str, str]:
    """Return (colour, marker, face) of the first, second, third... series."""
    colour = (theme.accent, theme.second)[place % 2]
    return colour, "oDs^"[place % 4], colour if place % 2 == 0 else theme.ground


def offset(place: int, count: int) -> float:
    """Return by how much the marks of one of `count` series are moved within their row."""
    return 0.0 if count == 1 else 0.34 * (place / (count - 1) - 0.5)


def gain_in_points(loss: Interval) -> Interval:
    """Return a loss, a share, as a gain in points (hundredths)."""
    value, low, high = (None if share is None else -share * 100 for share in (loss.value, loss.high, loss.low))
    return Interval(value=value, low=low, high=high)


def log_ticks(axis, low: float, high: float) -> None:
    """Set round ticks (1, 2, 5) between `low` and `high`."""
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    ticks = [tick for decade in decades for tick in decade * np.array([1, 2, 5]) if low <= tick <= high]
    axis.set_ticks(ticks)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
