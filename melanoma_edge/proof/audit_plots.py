"""The audit page's plots: numbers in, PNG bytes out, on a transparent ground for a light or a dark page."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.ticker import MaxNLocator, PercentFormatter

from melanoma_edge.data.audit.model import ClassFacts, Shortcut
from melanoma_edge.proof.plot_style import SMALL, Theme, figure, legend_above, png, row_labels

MOST_CLASSES = 40


def class_bars(theme: Theme, classes: Sequence[ClassFacts]) -> bytes:
    """Draw the pictures of each class as they are, and those left after the policy, the largest class first."""
    shown = sorted(classes, key=lambda one: (-one.pictures, one.name))[:MOST_CLASSES]
    drawn, axes = figure(theme, 0.95 + 0.4 * len(shown))
    rows = range(len(shown))
    widest = max(one.pictures for one in shown)
    axes.barh([row - 0.18 for row in rows], [one.pictures for one in shown], height=0.32, color=theme.muted, alpha=0.45, label="in the data")
    axes.barh([row + 0.18 for row in rows], [one.usable for one in shown], height=0.32, color=theme.accent, label="after the policy")
    for row, one in zip(rows, shown):
        note = "left out" if one.left_out else f"{one.usable}"
        for shift, text, count in ((-0.18, f"{one.pictures}", one.pictures), (0.18, note, one.usable)):
            axes.annotate(text, (count, row + shift), (4, 0), textcoords="offset points", va="center", color=theme.muted, fontsize=SMALL - 1.5)
    axes.set_xlim(0, widest * 1.16)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("pictures")
    row_labels(axes, theme, [one.name for one in shown])
    legend_above(axes, theme)
    return png(drawn)


def shortcut_dots(theme: Theme, tried: Sequence[Shortcut]) -> bytes:
    """Draw the balanced accuracy of each family of features against what permuted classes reach."""
    drawn, axes = figure(theme, 1.05 + 0.5 * len(tried))
    chance = tried[0].chance
    axes.axvline(chance, color=theme.muted, linewidth=1.2, linestyle=(0, (4, 3)), label=f"chance {chance:.1%}")
    label = "99 % of permutations"
    for row, one in enumerate(tried):
        axes.hlines(row, one.chance_low, one.chance_high, color=theme.muted, linewidth=9, alpha=0.35, label=label)
        label = None
        colour = theme.positive if one.verdict == "shortcut" else theme.accent
        marker = {"shortcut": "D", "weak": "s"}.get(one.verdict, "o")
        axes.scatter(one.balanced_accuracy, row, marker=marker, s=44, color=colour, zorder=4)
        right = one.balanced_accuracy < 0.8
        axes.annotate(
            f"{one.balanced_accuracy:.1%}", (one.balanced_accuracy, row), (8 if right else -8, 9), textcoords="offset points",
            va="center", ha="left" if right else "right", color=theme.ink, fontsize=SMALL,
        )  # fmt: skip
    axes.set_xlim(0, max(min(1.02, 1.35 * max(max(one.balanced_accuracy, one.chance_high) for one in tried)), 2.5 * chance if chance < 0.4 else 1.02))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.set_xlabel("balanced accuracy from these features alone")
    row_labels(axes, theme, [one.title for one in tried])
    legend_above(axes, theme)
    return png(drawn)
