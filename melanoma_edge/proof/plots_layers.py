"""The report's plot of layers: how many values of each layer differ between two runtimes, and by how much."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from melanoma_edge.proof.plot_style import SMALL, Theme, figure, plain, png, title

LEAST = 1e-5
"""Smaller shares are drawn on the way from 0 to here."""
MOST_LABELS = 26


def layers(theme: Theme, names: Sequence[str], pairs: Sequence[tuple[str, Sequence[tuple[float, float | None]], Sequence[float]]]) -> bytes:
    """Draw each pair of runtimes as a line over the layers `names`.

    `pairs`: (label, (share off, SQNR in decibels or None) of each layer end to end, share off of each layer alone).
    """
    drawn, (top, bottom) = figure(theme, 5.6, rows=2, sharex=True, height_ratios=(1.25, 1))
    places = np.arange(len(names))
    for place, (label, whole, alone) in enumerate(pairs):
        colour = ([theme.accent, theme.second, *theme.others])[place % (2 + len(theme.others))]
        style = dict(color=colour, marker="oDs^v"[place % 5], markersize=max(2.8, 5.2 - 0.8 * place), linewidth=1.6)
        off, decibels = [share for share, _ in whole], [np.nan if ratio is None else ratio for _, ratio in whole]
        top.plot(places, off, label=plain(label), zorder=4 + place, **style)
        top.plot(places, alone, color=colour, linewidth=1.1, linestyle=(0, (1, 1.6)), zorder=3)
        bottom.plot(places, decibels, zorder=4 + place, **style)
    top.set_yscale("symlog", linthresh=LEAST, linscale=0.6)
    top.set_ylim(-LEAST * 0.25, 1.6)
    top.set_yticks([0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1])
    top.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:g} %"))
    top.yaxis.set_minor_locator(NullLocator())
    title(top, "Values that differ (dotted: each layer alone)")
    title(bottom, "Signal to difference, dB")
    bottom.yaxis.set_major_locator(MaxNLocator(5))
    if all(ratio is None for _, whole, _ in pairs for _, ratio in whole):
        bottom.text(0.5, 0.5, "no difference in any layer", transform=bottom.transAxes, ha="center", va="center", color=theme.muted, fontsize=SMALL)
        bottom.set_yticks([])
    step = -(-len(names) // MOST_LABELS)
    bottom.set_xticks(places[::step], [plain(name) for name in names[::step]], rotation=90)
    bottom.set_xlim(-0.6, len(names) - 0.4)
    for axes in (top, bottom):
        axes.grid(axis="x", color=theme.grid, linewidth=0.5)
    handles, labels = top.get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper center", ncols=2 if len(labels) > 1 else 1, frameon=False, fontsize=SMALL, labelcolor=theme.ink, handlelength=1.8)
    return png(drawn)
