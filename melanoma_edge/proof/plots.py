"""The report's plots: numbers in, PNG bytes out, on a transparent ground for a light or a dark page.

Every function takes a :class:`~melanoma_edge.proof.plot_style.Theme` first; what the numbers are is
said here, how they look in :mod:`melanoma_edge.proof.plot_style`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator, NullLocator, PercentFormatter

from melanoma_edge.contract import EpochRow, Interval
from melanoma_edge.proof.plot_style import (
    SMALL,
    Theme,
    class_rows,
    curve,
    figure,
    gain_in_points,
    intervals,
    legend_above,
    log_ticks,
    offset,
    plain,
    png,
    row_labels,
    series_style,
    title,
)


ROC_LETTERS = 44
"""Two names of classes side by side that are longer together do not fit under the curves."""


def training_curves(theme: Theme, rows: Sequence[EpochRow]) -> bytes:
    """Draw loss and validation balanced accuracy over the epochs of both phases."""
    drawn, (top, bottom) = figure(theme, 4.3, rows=2, sharex=True)
    epochs = np.arange(1, len(rows) + 1)
    curve(top, epochs, [row.loss for row in rows], theme.muted, "training", linestyle=(0, (4, 2)))
    curve(top, epochs, [row.validation_loss for row in rows], theme.accent, "validation")
    curve(bottom, epochs, [row.validation_balanced_accuracy for row in rows], theme.accent, "validation")
    first_qat = next((epoch for epoch, row in zip(epochs, rows) if row.phase == "qat"), None)
    for axes in (top, bottom):
        axes.set_xlim(0.5, len(rows) + 0.5)
        if first_qat is not None:
            axes.axvspan(first_qat - 0.5, len(rows) + 0.5, color=theme.second, alpha=0.14, linewidth=0)
            axes.axvline(first_qat - 0.5, color=theme.second, linewidth=1)
    edge = len(rows) + 0.5 if first_qat is None else first_qat - 0.5
    spans = [("float phase", 0.5, edge)] + ([] if first_qat is None else [("QAT", edge, len(rows) + 0.5)])
    for text, left, right in spans:
        top.text((left + right) / 2, 1.03, text, transform=top.get_xaxis_transform(), ha="center", color=theme.muted, fontsize=SMALL)
    title(top, "Loss")
    legend_above(top, theme)
    title(bottom, "Balanced accuracy, validation part")
    bottom.set_ylim(0, 1)
    bottom.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    bottom.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    bottom.set_xlabel("epoch")
    return png(drawn)


def recall_dots(theme: Theme, classes: Sequence[str], positive: str | None, series: Sequence[tuple[str, dict[str, Interval]]]) -> bytes:
    """Draw each class's recall with its interval, one row a class, one mark a network."""
    drawn, axes = figure(theme, 0.95 + 0.42 * len(classes))
    for place, (label, recall) in enumerate(series):
        known = [(index, recall[name]) for index, name in enumerate(classes) if name in recall and recall[name].value is not None]
        intervals(axes, known, offset(place, len(series)), series_style(theme, place), label)
    class_rows(axes, theme, classes, positive)
    axes.set_xlim(-0.02, 1.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.grid(axis="x", color=theme.grid)
    axes.set_xlabel("recall, with 95 % interval")
    legend_above(axes, theme)
    return png(drawn)


def roc(theme: Theme, curves: Sequence[tuple[str, np.ndarray, np.ndarray, float]], positive: str | None) -> bytes:
    """Draw one-vs-rest curves (class, false and true positive rates, area), the positive class on top."""
    widest = sorted((len(plain(name)) for name, *_ in curves), reverse=True)[:2]
    columns = 2 if sum(widest) <= ROC_LETTERS else 1
    drawn, axes = figure(theme, 4.35 + 0.19 * (-(-len(curves) // columns)))
    axes.plot([0, 1], [0, 1], color=theme.muted, linewidth=1, linestyle=(0, (4, 3)))
    muted = [one for one in curves if one[0] != positive]
    for index, (name, false, true, area) in enumerate(sorted(muted, key=lambda one: -one[3])):
        colour = theme.others[index % len(theme.others)]
        style = "-" if index < len(theme.others) else "--"
        axes.plot(false, true, color=colour, linewidth=1.2, linestyle=style, label=f"{plain(name)}  {area:.3f}")
    for name, false, true, area in curves:
        if name == positive:
            axes.plot(false, true, color=theme.positive, linewidth=2.6, label=f"{plain(name)}  {area:.3f}", zorder=5)
            axes.fill_between(false, true, color=theme.positive, alpha=0.07, linewidth=0)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", xlabel="1 − specificity", ylabel="sensitivity")
    axes.grid(color=theme.grid)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    handles, labels = axes.get_legend_handles_labels()
    if positive is not None and any(one[0] == positive for one in curves):
        handles, labels = [handles[-1], *handles[:-1]], [labels[-1], *labels[:-1]]
    key = drawn.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=SMALL, labelcolor=theme.ink, handlelength=1.6)
    if positive is not None and key.get_texts():
        key.get_texts()[0].set_fontweight("bold")
    return png(drawn)


def reliability(theme: Theme, bins: dict[str, np.ndarray], before: dict[str, np.ndarray]) -> bytes:
    """Draw how often the top class is right against how sure the network was, and how many pictures stand behind it.

    `bins` after the temperature was fitted, `before` at temperature 1, as :func:`melanoma_edge.metrics.reliability` gives them.
    """
    drawn, (top, bottom) = figure(theme, 5.0, rows=2, sharex=True, height_ratios=(3.2, 1))
    width = 1 / len(bins["count"])
    edges = np.arange(len(bins["count"]) + 1) * width
    centres = edges[:-1] + width / 2
    top.plot([0, 1], [0, 1], color=theme.muted, linewidth=1.2, linestyle=(0, (4, 3)))
    most = max(bins["count"].max(), before["count"].max())
    for label, one, colour, marker, order in (("before", before, theme.second, "D", 3), ("after", bins, theme.accent, "o", 4)):
        known = one["count"] > 0
        top.vlines(one["confidence"][known], one["confidence"][known], one["accuracy"][known], color=colour, alpha=0.4, linewidth=2)
        sizes = 14 + 110 * one["count"][known] / most
        face = theme.ground if label == "before" else colour
        edge = colour if label == "before" else theme.ground
        top.scatter(one["confidence"][known], one["accuracy"][known], s=sizes, facecolor=face, edgecolor=edge, marker=marker, linewidth=1.1, zorder=order)
        top.scatter([], [], s=46, facecolor=face, edgecolor=edge, marker=marker, label=f"{label} the temperature was fitted")
    top.text(0.03, 0.95, "less sure than it may be", color=theme.muted, fontsize=SMALL, va="top")
    top.text(0.985, 0.03, "surer than it should be", color=theme.muted, fontsize=SMALL, ha="right")
    bottom.bar(centres, bins["count"], width=width * 0.86, color=theme.accent, alpha=0.55)
    bottom.stairs(before["count"], edges, color=theme.second, linewidth=1.1)
    for centre, count, behind in zip(centres, bins["count"], before["count"]):
        if count:
            bottom.annotate(str(int(count)), (centre, max(count, behind)), (0, 1.5), textcoords="offset points", ha="center", color=theme.muted, fontsize=7)
    bottom.set_ylim(0, most * 1.22)
    top.set(xlim=(0, 1), ylim=(-0.02, 1.03), ylabel="share that is right")
    bottom.set(xlabel="probability of the top class", ylabel="pictures")
    bottom.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    for axis in (top.yaxis, bottom.xaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    top.grid(color=theme.grid)
    legend_above(top, theme)
    return png(drawn)


def coverage_risk(theme: Theme, curves: dict[str, dict[str, np.ndarray]], method: str, answering: tuple[float, float | None]) -> bytes:
    """Draw how often answers are wrong as fewer pictures are answered, the surest first, for each score to abstain by.

    `curves` by method, as :func:`melanoma_edge.selective.coverage_risk` gives them; `method` is the one in force, and `answering` (coverage, risk) where it stands.
    """
    drawn, axes = figure(theme, 4.2)
    for name in sorted(curves, key=lambda name: name != method):
        colour, style, said = (theme.accent, "-", " (in force)") if name == method else (theme.second, (0, (4, 2)), "")
        curve(axes, curves[name]["coverage"], curves[name]["risk"], colour, f"by {name}{said}", linestyle=style)
    everything = next(iter(curves.values()))["risk"][-1]
    axes.axhline(everything, color=theme.muted, linewidth=1, linestyle=(0, (1, 3)))
    axes.text(0.01, everything, "all answered", color=theme.muted, fontsize=SMALL, va="bottom")
    coverage, risk = answering
    if risk is not None:
        axes.scatter([coverage], [risk], s=60, facecolor=theme.accent, edgecolor=theme.ground, linewidth=1.1, zorder=5, label="its threshold")
    top = max(0.05, 1.4 * everything)  # few answers at the left say little, and may be all wrong
    axes.set(xlim=(0, 1.01), ylim=(0, top), xlabel="share of the pictures that is answered, the surest first", ylabel="share of the answers that is wrong")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.grid(color=theme.grid)
    legend_above(axes, theme)
    return png(drawn)


def positive_by_truth(
    theme: Theme, probability: np.ndarray, labels: np.ndarray, classes: Sequence[str], positive: str, threshold: float
) -> bytes:
    """Draw each picture's probability of the positive class as a dot in the row of its true class."""
    drawn, axes = figure(theme, 1.1 + 0.42 * len(classes))
    jitter = np.random.default_rng(0).uniform(-0.3, 0.3, len(labels))
    low = 1e-3
    for index, name in enumerate(classes):
        mine = labels == index
        style = dict(color=theme.positive, marker="D", s=11, alpha=0.75) if name == positive else dict(color=theme.second, marker="o", s=9, alpha=0.5)
        axes.scatter(np.clip(probability[mine], low, 1 - low), index + jitter[mine], linewidth=0, zorder=3, **style)
        called = int((probability[mine] >= threshold).sum())
        note = f"{called} of {int(mine.sum())}"
        axes.text(1.02, index, note, transform=axes.get_yaxis_transform(), va="center", color=theme.ink, fontsize=SMALL)
    shown = np.clip(threshold, low, 1 - low)
    axes.axvline(shown, color=theme.ink, linewidth=1.4, zorder=4)
    axes.text(shown, 1.02, f"threshold {threshold:.3g}", transform=axes.get_xaxis_transform(), ha="center", color=theme.ink, fontsize=SMALL)
    axes.text(1.02, 1.02, "reach it", transform=axes.transAxes, color=theme.muted, fontsize=SMALL)
    axes.set_xscale("logit")
    axes.set_xlim(low * 0.8, 1 - low * 0.8)
    axes.set_xticks((0.001, 0.01, 0.1, 0.5, 0.9, 0.99), ["0.1 %", "1 %", "10 %", "50 %", "90 %", "99 %"])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="x", color=theme.grid)
    class_rows(axes, theme, classes, positive)
    axes.set_xlabel(f"probability of {plain(positive)}")
    return png(drawn)


def differences(
    theme: Theme,
    ranges: Sequence[tuple[str, float, float | None]],
    quanta: Sequence[tuple[str, float, float | None, float]],
) -> bytes:
    """Draw how far artifacts are from their reference.

    `ranges`: (label, largest difference as a share of the logits' range, its bound or None); `quanta`:
    (label, largest difference, its 99.9th percentile or None, the bound of the one that the gate judges).
    """
    parts = [part for part in (ranges, quanta) if part]
    drawn, axes = figure(theme, 0.75 * len(parts) + 0.56 * (len(ranges) + len(quanta)), rows=len(parts), height_ratios=[len(part) + 0.6 for part in parts])
    axes = np.atleast_1d(axes)
    if ranges:
        _ranges(axes[0], theme, ranges)
    if quanta:
        _quanta(axes[-1], theme, quanta)
    return png(drawn)


def task(
    theme: Theme,
    losses: Sequence[tuple[str, dict[str, Interval]]],
    names: dict[str, str],
    bound: float,
    changes: Sequence[tuple[str, dict[str, float | None]]],
    classes: Sequence[str],
    positive: str | None,
) -> bytes:
    """Draw, in points, how each artifact differs from float32: what the gate judges, and the recall of each class.

    `losses` and `changes` hold (label, values) of the same artifacts; `names` the losses to draw and their words. A
    loss is drawn as a change below zero, as the recalls are.
    """
    heights = [len(names) + 0.8, len(classes) + 0.4]
    drawn, (top, bottom) = figure(theme, 1.9 + 0.36 * sum(heights), rows=2, height_ratios=heights)
    _losses(top, theme, losses, names)
    top.axvline(-bound * 100, color=theme.bound, linewidth=1.4, linestyle=(0, (4, 2)), label=f"bound: {bound * 100:g} point lost")
    title(top, "What the gate judges")
    legend_above(top, theme)
    for place, (label, change) in enumerate(changes):
        known = [(index, change[name] * 100) for index, name in enumerate(classes) if change.get(name) is not None]
        _changes(bottom, theme, known, offset(place, len(changes)), series_style(theme, place), numbers=place == 0)
    class_rows(bottom, theme, classes, positive)
    bottom.margins(x=0.24)
    title(bottom, "Recall of each class")
    bottom.set_xlabel("change in points (left: int8 is worse)")
    bottom.axvline(0, color=theme.muted, linewidth=1)
    bottom.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    return png(drawn)


def comparisons(theme: Theme, losses: Sequence[tuple[str, dict[str, Interval]]], names: dict[str, str]) -> bytes:
    """Draw, in points, how one artifact differs from another: a mark a (label, losses) in the row of each of `names`."""
    drawn, axes = figure(theme, 1.2 + 0.62 * len(names))
    _losses(axes, theme, losses, names)
    legend_above(axes, theme)
    return png(drawn)


def latency(theme: Theme, rows: Sequence[tuple[str, np.ndarray]], headline: str | None) -> bytes:
    """Draw the distribution of timed runs in milliseconds, one ridge an artifact, its median marked."""
    drawn, axes = figure(theme, 0.9 + 0.52 * len(rows))
    bounds = [np.percentile(times, (0, 98)) for _, times in rows]
    low, high = max(min(bound[0] for bound in bounds), 1e-6) * 0.94, max(bound[1] for bound in bounds) * 1.25
    edges = np.geomspace(low, high, 160)
    for index, (label, times) in enumerate(rows):
        colour = theme.accent if label == headline else theme.second
        density = np.convolve(np.histogram(times, edges)[0], [0.25, 0.5, 0.25], mode="same")
        base = len(rows) - 1 - index
        axes.fill_between(edges[:-1], base, base + 0.78 * density / max(density.max(), 1e-9), step="mid", color=colour, alpha=0.42, linewidth=0)
        median = float(np.median(times))
        axes.plot([median, median], [base, base + 0.8], color=colour, linewidth=2)
        axes.annotate(f"{median:.3g} ms", (median, base + 0.8), (4, -3), textcoords="offset points", va="top", color=theme.ink, fontsize=SMALL)
    axes.hlines(range(len(rows)), low, high, color=theme.grid, linewidth=0.8)
    axes.set_yticks([len(rows) - 1 - index + 0.2 for index in range(len(rows))], [plain(label) for label, _ in rows])
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(-0.08, len(rows) - 0.05)
    log_ticks(axes.xaxis, low, high)
    axes.grid(axis="x", color=theme.grid)
    axes.set_xlabel("milliseconds an inference, batch 1 (log scale)")
    return png(drawn)


def _losses(axes, theme: Theme, losses: Sequence[tuple[str, dict[str, Interval]]], names: dict[str, str]) -> None:
    """Draw losses (shares) as changes in points with their intervals, a row a figure."""
    for place, (label, found) in enumerate(losses):
        known = [(index, gain_in_points(found[key])) for index, key in enumerate(names) if key in found and found[key].value is not None]
        intervals(axes, known, offset(place, len(losses)), series_style(theme, place), label)
    row_labels(axes, theme, list(names.values()))
    axes.axvline(0, color=theme.muted, linewidth=1)
    axes.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.set_xlabel("change in points, with 95 % interval")


def _changes(axes, theme: Theme, known: Sequence[tuple[int, float]], shift: float, style: tuple[str, str, str], *, numbers: bool) -> None:
    """Draw changes as bars from zero, with their numbers beside them."""
    colour, marker, face = style
    rows, values = [row + shift for row, _ in known], [value for _, value in known]
    axes.hlines(rows, 0, values, color=colour, linewidth=3, alpha=0.5)
    axes.scatter(values, rows, color=face, edgecolor=colour, marker=marker, s=34, zorder=4)
    for row, value in zip(rows, values) if numbers else ():
        side = dict(xytext=(8, 0), ha="left") if value >= 0 else dict(xytext=(-8, 0), ha="right")
        axes.annotate(f"{value:+.1f}", (value, row), textcoords="offset points", va="center", color=theme.ink, fontsize=SMALL, **side)


def _ranges(axes, theme: Theme, ranges) -> None:
    """Draw the float artifacts' panel of :func:`differences`."""
    floor = 10.0 ** np.floor(np.log10(min([value for _, value, _ in ranges if value > 0], default=1e-7)) - 0.3)
    for row, (_, value, bound) in enumerate(ranges):
        shown = max(value, floor)
        axes.hlines(row, floor, shown, color=theme.accent, linewidth=3, alpha=0.45)
        axes.scatter(shown, row, color=theme.accent, s=36, zorder=4)
        note = f"{value:.1e}" if value else "0"
        axes.annotate(note, (shown, row), (7, 0), textcoords="offset points", va="center", color=theme.ink, fontsize=SMALL)
        if bound is not None:
            axes.plot(bound, row, marker="|", markersize=17, markeredgewidth=2, color=theme.bound)
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(floor, max(2e-1, max(value for _, value, _ in ranges) * 10))
    title(axes, "Float: share of the logits' range")
    _bound_note(axes, theme)
    row_labels(axes, theme, [label for label, *_ in ranges])


def _quanta(axes, theme: Theme, quanta) -> None:
    """Draw the int8 artifacts' panel of :func:`differences`."""
    for row, (_, largest, p999, bound) in enumerate(quanta):
        axes.hlines(row, 0, largest, color=theme.accent, linewidth=3, alpha=0.45)
        axes.scatter(largest, row, color=theme.accent, s=36, zorder=4)
        note = f"max {largest:g}" if p999 is None else f"max {largest:g}, p99.9 {p999:g}"
        axes.annotate(note, (max(largest, bound), row), (9, 0), textcoords="offset points", va="center", color=theme.ink, fontsize=SMALL)
        axes.plot(bound, row, marker="|", markersize=17, markeredgewidth=2, color=theme.bound)
    axes.set_xlim(-0.05, max(5.0, max(max(largest, bound) for _, largest, _, bound in quanta) * 1.6))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    title(axes, "Int8: quanta, steps of its output")
    _bound_note(axes, theme)
    row_labels(axes, theme, [label for label, *_ in quanta])


def _bound_note(axes, theme: Theme) -> None:
    axes.text(1.0, 1.03, "| bound", transform=axes.transAxes, ha="right", va="bottom", color=theme.bound, fontsize=SMALL, fontweight="bold")
