"""The table and the plot of ours beside other networks.

In: the figures that peers.py writes. Out: a table for the terminal, the same in Markdown, a PNG.
"""

from __future__ import annotations

import io
import textwrap

from peers_models import BEFORE
from rich.console import Console
from rich.table import Table

HEADINGS = (
    "network", "parameters", "multiply-accumulates", "TFLite: int8 / float32", "LiteRT int8", "LiteRT float32", "ONNX Runtime int8", "ONNX Runtime float32",
    "balanced accuracy, int8", "balanced accuracy, float32",
)  # fmt: skip
FILES = ("litert int8", "litert float32", "onnxruntime int8", "onnxruntime float32")
JUDGED = {
    "int8_to_float32_litert": "our int8 against our float32, LiteRT",
    "int8_to_rival_int8_litert": "our int8 against that of MobileNetV2 0.35, LiteRT",
    "int8_to_float32_onnxruntime": "our int8 against our float32, ONNX Runtime",
}
OUTCOMES = {"stretch": "better still", "reached": "reached", "missed": "**missed**", "not measured": "not measured"}
NOISY = " (noisy)"
LOG_WIDTH = 150
"""Columns of the table where there is no terminal."""
NOTE = (
    "Median latency of one picture on one thread of this host, not of a phone; everything in one run, all networks interleaved. Noisy: rounds differ by more than 5 %, do not compare. "
    "Balanced accuracy: the test parts of all folds pooled, with 95 % intervals over resampled lesions; int8 of ours, and of `edge-residual`, which was "
    "the default network of earlier bundles, comes from quantization-aware training, int8 of the others is quantized after training. Files of all but `melanoma-edge` are made, and timed, with random weights, on which latency does not depend."
)


def rows(figures: dict) -> list[tuple[str, ...]]:
    """Return the cells of the table, one tuple a network, a dash where nothing is known."""
    cells = []
    for name, row in figures["networks"].items():
        sizes = " / ".join(f"{row['files'][key]['bytes'] / 1e6:.2f} MB" if key in row["files"] else "–" for key in FILES[:2])
        accuracy = [_interval(row["accuracy"][precision]) or row["accuracy"]["why_not"] or "–" for precision in ("int8", "float32")]
        cells.append((name, _millions(row["parameters"]), _millions(row["multiply_accumulates"]), sizes, *(_latency(row["files"].get(key)) for key in FILES), *accuracy))
    return cells


def _millions(value: float) -> str:
    return f"{value / 1e6:.3g} M"


def _latency(file: dict | None) -> str:
    return "–" if file is None else f"{file['p50_ms']:.3g} ms{'' if file['verdict'] == 'stable' else NOISY}"


def _interval(figures: dict | None) -> str:
    if figures is None:
        return ""
    found = figures["balanced_accuracy"]
    return f"{found['value']:.3f}" + ("" if found["low"] is None else f" ({found['low']:.3f} to {found['high']:.3f})")


def judgements(figures: dict) -> list[tuple[str, ...]]:
    """Return a row for each ratio: what it is, its value, the lowest and highest of the rounds, what was aimed at, the outcome."""
    cells = []
    for name, text in JUDGED.items():
        found = figures["judged"][name]
        value = "–" if found["value"] is None else f"{found['value']:.2f} (rounds {found['lowest']:.2f} to {found['highest']:.2f})"
        aimed = f"{found['target']:g}" + (f" ({found['stretch']:g})" if found["stretch"] is not None else "")
        cells.append((text, value, aimed, OUTCOMES[found["outcome"]]))
    return cells


def missing(figures: dict) -> list[str]:
    """Return a line for each file that could not be made or run."""
    return [f"{name}, {key}: {why}" for name, row in figures["networks"].items() for key, why in row["missing"].items()]


def show(figures: dict) -> None:
    """Print the tables."""
    console = Console()
    if not console.is_terminal:
        console.width = LOG_WIDTH
    table = Table(caption=NOTE, caption_justify="left")
    for place, heading in enumerate(HEADINGS):
        table.add_column("\n".join(textwrap.wrap(heading, 14)), justify="left" if place == 0 else "right", no_wrap=place == 0)
    for row in rows(figures):
        table.add_row(*(cell.replace(" (", "\n(").replace(" / ", "\n") for cell in row))
    console.print(table)
    for text, value, aimed, outcome in judgements(figures):
        console.print(f"{text}: {value}, aimed at {aimed}: {outcome.strip('*')}")
    for line in missing(figures):
        console.print(f"not made: {line}")


def markdown(figures: dict) -> str:
    """Return the tables in Markdown, the note below."""
    described = [f"- `{name}`: {row['description']}" for name, row in figures["networks"].items()]
    lines = [HEADINGS, ("---", *["---:"] * (len(HEADINGS) - 1)), *(("`" + row[0] + "`", *row[1:]) for row in rows(figures))]
    ratios = [("ratio of medians", "value", "aimed at (better still)", ""), ("---", "---:", "---:", "---"), *judgements(figures)]
    tables = ["\n".join(f"| {' | '.join(line)} |" for line in table) for table in (lines, ratios)]
    said = [f"Not comparable: {figures['not_comparable_because']}."] if figures["not_comparable_because"] else []
    return "\n\n".join([tables[0], NOTE, "\n".join(described), tables[1], *said, *([f"Not made: {'; '.join(missing(figures))}."] if missing(figures) else [])])


def plot(figures: dict) -> bytes:
    """Return a PNG: above, balanced accuracy with its intervals against the latency on LiteRT of the networks that were trained; below, on the same axis, that of the others.

    On white, because a README shows it on whatever ground it has.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import PercentFormatter

    from melanoma_edge.proof.plot_style import DPI, LIGHT, SMALL, TEXT, log_ticks

    known = {name: row for name, row in figures["networks"].items() if row["accuracy"]["int8"] is not None}
    others = {name: row for name, row in figures["networks"].items() if name not in known}
    first = next(iter(figures["networks"]))
    drawn = Figure(figsize=(8.2, 3.9 + 0.27 * len(others)), layout="constrained")
    FigureCanvasAgg(drawn)
    above, below = drawn.subplots(2, 1, sharex=True, height_ratios=[3.3, max(0.35, 0.27 * len(others))])
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(LIGHT.grid)
        axes.tick_params(length=0, labelsize=SMALL, colors=LIGHT.muted)
        axes.grid(axis="x", color=LIGHT.grid)
        axes.set_axisbelow(True)
        axes.set_xscale("log")

    def points(row: dict) -> list[tuple[str, float]]:
        return [(precision, row["files"][f"litert {precision}"]["p50_ms"]) for precision in ("int8", "float32") if f"litert {precision}" in row["files"]]

    for name, row in known.items():
        colour, both = LIGHT.accent if name == first else LIGHT.muted if name == BEFORE else LIGHT.second, []
        for precision, x in points(row):
            found = row["accuracy"][precision]["balanced_accuracy"]
            if found["low"] is not None:
                above.vlines(x, found["low"], found["high"], color=colour, linewidth=2.2, alpha=0.45)
            above.scatter([x], [found["value"]], s=46, color=colour if precision == "int8" else LIGHT.ground, edgecolor=colour, linewidth=1.6, zorder=4)
            both.append((x, found["value"], found["low"] or found["value"], found["high"] or found["value"]))
        if both:
            above.plot([x for x, *_ in both], [y for _, y, *_ in both], color=colour, linewidth=1.0, alpha=0.6, zorder=2)
            centre = (both[0][0] * both[-1][0]) ** 0.5
            beneath = name == BEFORE  # whose points lie beside ours
            place = (centre, min(low for _, _, low, _ in both)) if beneath else (centre, max(high for *_, high in both))
            above.annotate(
                name, place, (0, -6 if beneath else 6), textcoords="offset points", ha="center", va="top" if beneath else "bottom", fontsize=TEXT, color=colour, fontweight="bold"
            )  # fmt: skip
    above.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    above.grid(axis="y", color=LIGHT.grid)
    above.margins(y=0.16)
    above.set_ylabel("balanced accuracy, 95 % interval", fontsize=SMALL, color=LIGHT.ink)
    marks = [Line2D([], [], linestyle="", marker="o", markersize=6.5, color=LIGHT.muted, markerfacecolor=face, label=label) for label, face in (("int8", LIGHT.muted), ("float32", LIGHT.ground))]
    drawn.legend(handles=marks, frameon=False, fontsize=SMALL, labelcolor=LIGHT.ink, loc="outside upper right", ncols=2, handletextpad=0.2, columnspacing=1.4)
    for place, row in enumerate(others.values()):
        found = points(row)
        below.hlines(place, min(x for _, x in found), max(x for _, x in found), color=LIGHT.muted, linewidth=1.0, alpha=0.6) if found else None
        for precision, x in found:
            below.scatter([x], [place], s=34, marker="d", color=LIGHT.muted if precision == "int8" else LIGHT.ground, edgecolor=LIGHT.muted, linewidth=1.4, zorder=4)
    below.set_yticks(range(len(others)), list(others))
    for tick in below.get_yticklabels():
        tick.set(color=LIGHT.ink, fontsize=SMALL)
    below.set_ylim(max(len(others), 1) - 0.4, -0.6)
    below.set_title("not trained here: latency alone", loc="left", fontsize=SMALL, color=LIGHT.muted)
    every = [x for row in figures["networks"].values() for _, x in points(row)]
    low, high = min(every) / 1.4, max(every) * 1.4
    below.set_xlim(low, high)
    log_ticks(below.xaxis, low, high)
    below.set_xlabel(f"median latency of one picture of {figures['image_size']} px in ms: LiteRT, one thread of this host (not a phone)", fontsize=SMALL, color=LIGHT.ink)
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=DPI * 2 // 3, facecolor=LIGHT.ground, metadata={"Software": None})
    return buffer.getvalue()
