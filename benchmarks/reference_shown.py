"""The table and the plot of the reference bundle's figures.

In: the figures that reference.py publishes, and the cross-validation. Out: rows for a terminal, the same in Markdown, a PNG.
"""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console
from rich.table import Table

from melanoma_edge.contract import Threshold
from melanoma_edge.convert.single_models import beside

HEADINGS = ("figure", "aimed at (better still)", "float32", "int8 (TFLite)", "")
OUTCOMES = {"stretch": "better still", "reached": "reached", "missed": "**missed**"}
NAMES = {
    "balanced_accuracy": "balanced accuracy ({classes} classes)",
    "accuracy": "accuracy",
    "macro_auc": "macro AUC",
    "positive_auc": "{positive} AUC",
    "positive_sensitivity_at_90_specificity": "{positive} sensitivity at 90 % specificity (best threshold on these pictures)",
    "positive_sensitivity_of_decision": "{positive} sensitivity at each fold's own threshold",
    "positive_specificity_of_decision": "specificity at that threshold",
    "coverage_of_decision": "share of pictures answered, where the model may abstain",
    "accuracy_of_answers": "accuracy of those answers",
    "ece": "ECE after temperature, 15 bins, on these pictures' class mix (resampling overstates it)",
    "ece_at_priors": "the same at the class mix that the temperature is fitted for",
}
LOOKALIKE = "nevus"
"""The class that is hardest to tell from the positive one, and most often beside it."""
AGAINST = {
    "positive_auc": ("positive_auc_against", "{positive} AUC against {other} alone"),
    "positive_specificity_of_decision": ("called_positive", "share of {other} called {positive} at that threshold"),
}
"""Shown below the figure of that name: what it comes to on the class that looks like the positive one."""


def rows(figures: dict) -> list[tuple[str, ...]]:
    """Return the cells of the table, one tuple a row."""
    judged, int8, float32 = figures["judged"], figures["int8"], figures["float32"]
    words = {"classes": len(figures["classes"]), "positive": figures["positive_class"]}

    def aimed(name: str, shown=lambda value: f"{value:.2f}") -> str:
        if name not in judged:
            return ""
        return shown(judged[name]["target"]) + (f" ({shown(judged[name]['stretch'])})" if judged[name]["stretch"] is not None else "")

    def outcome(name: str) -> str:
        return OUTCOMES[judged[name]["outcome"]] if name in judged else ""

    cells = []
    for name, text in NAMES.items():
        cells.append((text.format(**words), aimed(name), _interval(float32[name]), _interval(int8[name]), outcome(name)))
        if name in AGAINST:
            figure, text = AGAINST[name]
            cells.append((text.format(**words, other=LOOKALIKE), "", _interval(float32[figure][LOOKALIKE]), _interval(int8[figure][LOOKALIKE]), ""))
    worst = min(int8["recall"], key=lambda name: int8["recall"][name]["value"])
    cells.append((f"recall of the worst class ({worst})", "", _interval(float32["recall"][worst]), _interval(int8["recall"][worst]), ""))
    points = {key: 100 * value for key, value in figures["int8_minus_float32"].items()}
    change = f"{points['value']:+.1f} points ({points['low']:+.1f} to {points['high']:+.1f})"
    cells.append(("int8 minus float32, balanced accuracy", aimed("int8_minus_float32", lambda value: f"{100 * value:+.0f}"), "", change, outcome("int8_minus_float32")))
    sizes, kilo = figures["bytes"], lambda value: f"{value / 1000:.0f} kB"
    both = [kilo(next(size for name, size in sizes.items() if name.endswith(end))) for end in ("-float32.tflite", "-int8.tflite")]
    cells.append(("size", aimed("bytes", kilo), *both, outcome("bytes")))
    millions = lambda value: f"{value / 1e6:.3g} M"
    macs = millions(figures["multiply_accumulates"])
    cells.append(("multiply-accumulates", aimed("multiply_accumulates", millions), macs, macs, outcome("multiply_accumulates")))
    minutes, each, alone = lambda value: f"{value:.0f} min", figures["minutes"]["each"], figures["minutes"]["alone"]
    took = f"{min(each):.0f} to {minutes(max(each))}"
    text, took = ("judged by the longest", took) if alone is None else (f"fold {alone['fold']}, trained again with no other beside it", f"{minutes(alone['minutes'])} (beside others {took})")
    cells.append((f"training of one fold, teachers included, 2 cores ({text})", aimed("minutes", minutes), "", took, outcome("minutes")))
    return cells


def _interval(found: dict) -> str:
    bounds = "" if found["low"] is None else f" ({found['low']:.3f} to {found['high']:.3f})"
    return f"{found['value']:.3f}{bounds}"


def show(figures: dict) -> None:
    """Print the table."""
    table = Table(*HEADINGS)
    for cells in rows(figures):
        table.add_row(*(cell.strip("*") for cell in cells))
    Console().print(table)


def markdown(figures: dict) -> str:
    """Return the table in Markdown."""
    alone = figures["fold_0"]
    ends = lambda values, digits=2: f"{min(values):.{digits}f} to {max(values):.{digits}f}"
    each, shipped, called = figures["each_fold"], figures["shipped_threshold"], figures["called_positive_over_folds"][LOOKALIKE]
    own, *others = (Threshold.model_validate(one) for one in (shipped, *figures["thresholds"]))
    mean = {name: sum(values) / len(values) for name, values in each.items()}
    positive, file = figures["positive_class"], next(name for name in figures["bytes"] if name.endswith("-int8.tflite"))
    note = (
        f"Fold 0 alone, whose pictures had no say in the ablation (int8): balanced accuracy {_interval(alone['balanced_accuracy'])}, macro AUC {_interval(alone['macro_auc'])}.\n"
        f"**Single models lie far apart**, which the intervals above do not hold. From the lowest fold to the highest (int8; each is judged on its own {figures['pictures'] / len(figures['minutes']['each']):.0f} pictures or so, by which chance alone spreads them, too): balanced accuracy "
        f"{ends(each['balanced_accuracy'])}, sensitivity at the model's own threshold {ends(each['positive_sensitivity_of_decision'])}, specificity there "
        f"{ends(each['positive_specificity_of_decision'])}, share of {LOOKALIKE} called {positive} {called['lowest']:.2f} to {called['highest']:.2f}, ECE {ends(each['ece'], 3)} (mean {mean['ece']:.3f}, and {mean['ece_at_priors']:.3f} at the "
        "class mix that the temperature is fitted for: fewer pictures show a larger error).\n"
        f"**{beside(file, own, others, positive, whose='The shipped')}** That threshold keeps a sensitivity of {_interval(shipped['validation_sensitivity'])} there; of the {LOOKALIKE} pictures "
        f"it calls {_interval(shipped['validation_called'][LOOKALIKE])} {positive}."
    )
    lines = [HEADINGS, ("---",) * len(HEADINGS), *rows(figures)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{note}"


def plot(found, int8: str, float32: str) -> bytes:
    """Return a PNG: each class's recall with its interval, and what its pictures were taken for, all folds pooled.

    `found` is a CrossValidation; `int8` and `float32` name its artifacts that are drawn. On white, because a README shows it on whatever ground it has.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    from melanoma_edge.proof.plot_style import DPI, LIGHT, SMALL, class_rows, intervals, offset, series_style

    counts = np.array(found.artifact(int8).confusion)
    drawn = Figure(figsize=(9.4, 4.6), layout="constrained")
    FigureCanvasAgg(drawn)
    left, right = drawn.subplots(1, 2)
    for axes in (left, right):
        axes.tick_params(length=0, labelsize=SMALL, colors=LIGHT.muted)
        axes.xaxis.label.set(color=LIGHT.ink, fontsize=SMALL)
        axes.spines[:].set_visible(False)
    for place, (label, name) in enumerate((("int8", int8), ("float32", float32))):
        known = [(row, found.artifact(name).pooled.recall[one]) for row, one in enumerate(found.classes)]
        intervals(left, known, offset(place, 2), series_style(LIGHT, place), label)
    class_rows(left, LIGHT, found.classes, found.positive_class)
    left.set_yticklabels([f"{name} ({count})" for name, count in zip(found.classes, counts.sum(axis=1))])
    left.set_xlim(-0.02, 1.02)
    left.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    left.set_xlabel("recall of each class, with 95 % interval")
    left.legend(frameon=False, fontsize=SMALL, labelcolor=LIGHT.ink, loc="lower left")
    shares = counts / counts.sum(axis=1, keepdims=True)
    right.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        right.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=SMALL, color=LIGHT.ground if share > 0.55 else LIGHT.ink)
    right.set_xticks(range(len(found.classes)), found.classes, rotation=40, ha="right", rotation_mode="anchor")
    right.set_yticks([])
    right.set_ylim(left.get_ylim())
    right.set_title("first answer of int8, in % of each class", fontsize=SMALL, color=LIGHT.ink)
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=DPI * 2 // 3, facecolor=LIGHT.ground, metadata={"Software": None})
    return buffer.getvalue()
