"""The tables and the plot of the roofline.

In: the figures that roofline.py writes. Out: tables for the terminal, the same in Markdown, a PNG.
"""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table

HEADINGS = ("", "multiply-accumulates", "int8", "GMAC/s", "of the int8 peak", "float32", "GMAC/s", "of the float32 peak")
NAMES = {
    "entry": "taking the picture's bytes", "stem": "stem (3 channels)", "pointwise": "pointwise", "depthwise": "depthwise (3 x 3)", "addition": "additions",
    "head": "pooling, dense layer, output",
}  # fmt: skip
OUTCOMES = {"stretch": "better still", "reached": "reached", "missed": "**missed**", "not measured": "not measured"}
NOISE = "noise"
LOG_WIDTH = 190
NOTE = (
    "One thread of this host, not of a phone. Times are medians of the rounds, in microseconds; a layer's is what the network cut behind it takes more than the network cut before it. "
    "The first layer's holds the call of the interpreter, too. Noise: the interval reaches down to zero; where it lies below, the cut itself cost more than the layer."
)
PRECISIONS = ("int8", "float32")


def rows(figures: dict) -> list[tuple[str, ...]]:
    """Return the cells by kind of layer, the whole network last."""
    both = [figures["litert"][precision] for precision in PRECISIONS]
    cells = [(NAMES[kind], *_cells([one["kinds"].get(kind) for one in both])) for kind in NAMES if any(kind in one["kinds"] for one in both)]
    return [*cells, ("whole network", *_cells([one["whole"] for one in both]))]


def layer_rows(figures: dict) -> list[tuple[str, ...]]:
    """Return the cells of every layer, in the order of int8."""
    beside = {row["name"]: row for row in figures["litert"]["float32"]["layers"]}
    return [(row["name"], *_cells([row, beside.get(row["name"])])) for row in figures["litert"]["int8"]["layers"]]


def _cells(both: list[dict | None]) -> list[str]:
    """Return multiply-accumulates, and time, speed and share of the peak of int8 and float32."""
    macs = next(one["multiply_accumulates"] for one in both if one)
    cells = [f"{macs / 1e6:.2f} M" if macs else ""]
    for one in both:
        if one is None:
            cells += ["", "", ""]
            continue
        time = f"{one['us']['value']:.1f} µs ({one['us']['low']:.1f} to {one['us']['high']:.1f})"
        share = "" if one["share_of_peak"] is None else f"{100 * one['share_of_peak']:.0f} %"
        cells += [f"{time}{', ' + NOISE if one['within_noise'] else ''}", "" if one["gmacs_per_second"] is None else f"{one['gmacs_per_second']:.0f}", share]
    return cells


def peaks(figures: dict) -> str:
    """Return a sentence on the peaks."""
    found = [f"{precision} {one['gmacs_per_second']:.0f} GMAC/s ({one['convolution']}, {one['us']['value'] / 1000:.2f} ms)" for precision, one in figures["peak"].items()]
    return f"Peak of the host through XNNPACK, the best of {len(figures['peak']['int8']['tried'])} large convolutions: {'; '.join(found)}."


def judgement(figures: dict) -> str:
    found = figures["judged"]["pointwise_share_of_int8_peak"]
    value = "a share that the noise hides" if found["value"] is None else f"{100 * found['value']:.0f} %"
    return f"Pointwise layers together, int8: {value} of the int8 peak, aimed at {100 * found['target']:.0f} %: {OUTCOMES[found['outcome']]}."


def kernels(figures: dict) -> list[str]:
    """Return a sentence on ONNX Runtime for each precision."""
    lines = []
    for precision in PRECISIONS:
        found = figures["onnxruntime"][precision]
        kinds = sorted(found["kinds"].items(), key=lambda one: -one[1]["us"])
        parts = ", ".join(f"{kind} {one['us']:.0f}" + (f" ({one['gmacs_per_second']:.0f} GMAC/s)" if one["gmacs_per_second"] else "") for kind, one in kinds)
        lines.append(
            f"ONNX Runtime, {precision}: {found['bare_us']:.0f} µs as it is, {found['profiled_us']:.0f} µs with its profiler on, of which its kernels count {found['sum_of_nodes_us']:.0f}: {parts}."
        )
    return lines


def show(figures: dict) -> None:
    """Print the tables."""
    console = Console()
    if not console.is_terminal:
        console.width = LOG_WIDTH
    for cells in (layer_rows(figures), rows(figures)):
        table = Table(*HEADINGS)
        for row in cells:
            table.add_row(*row)
        console.print(table)
    for line in (NOTE, peaks(figures), judgement(figures).replace("*", ""), *kernels(figures)):
        console.print(line)


def markdown(figures: dict) -> str:
    """Return the table by kind of layer in Markdown, what else was found below."""
    table = "\n".join(f"| {' | '.join(line)} |" for line in (HEADINGS, ("---", *["---:"] * (len(HEADINGS) - 1)), *rows(figures)))
    said = [f"Not comparable: {figures['not_comparable_because']}."] if figures["not_comparable_because"] else []
    return "\n\n".join([table, NOTE, peaks(figures), judgement(figures), *kernels(figures), *said])


def plot(figures: dict) -> bytes:
    """Return a PNG: on the left the time of every layer, on the right what share of the peak its multiply-accumulates reach.

    On white, because a README shows it on whatever ground it has.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.ticker import PercentFormatter

    from melanoma_edge.proof.plot_style import DPI, LIGHT, SMALL

    colours = {"pointwise": LIGHT.accent, "depthwise": LIGHT.others[1], "stem": LIGHT.second, "addition": LIGHT.others[2], "entry": LIGHT.others[3], "head": LIGHT.others[5]}
    found = figures["litert"]["int8"]["layers"]
    beside = {row["name"]: row for row in figures["litert"]["float32"]["layers"]}
    places = range(len(found))
    drawn = Figure(figsize=(9.4, 1.3 + 0.215 * len(found)), layout="constrained")
    FigureCanvasAgg(drawn)
    left, right = drawn.subplots(1, 2, sharey=True, width_ratios=[1.25, 1])
    for axes in (left, right):
        axes.tick_params(length=0, labelsize=SMALL, colors=LIGHT.muted)
        axes.xaxis.label.set(color=LIGHT.ink, fontsize=SMALL)
        axes.spines[:].set_visible(False)
        axes.grid(axis="x", color=LIGHT.grid)
        axes.set_axisbelow(True)
    for place, row in zip(places, found):
        colour, time = colours[row["kind"]], max(0.0, row["us"]["value"])
        left.barh(place, time, height=0.72, color=colour, alpha=0.35 if row["within_noise"] else 1.0)
        left.hlines(place, max(0.0, row["us"]["low"]), max(0.0, row["us"]["high"]), color=LIGHT.ink, linewidth=1.1)
        if row["name"] in beside:
            left.scatter([beside[row["name"]]["us"]["value"]], [place], s=20, marker="d", color=LIGHT.ground, edgecolor=LIGHT.muted, linewidth=1.1, zorder=4)
        if row["share_of_peak"] is not None:
            right.barh(place, row["share_of_peak"], height=0.72, color=colour)
            right.text(row["share_of_peak"] + 0.012, place, f"{row['gmacs_per_second']:.0f}", va="center", fontsize=SMALL - 1, color=LIGHT.ink)
    left.set_yticks(places, [row["name"] for row in found])
    for tick in left.get_yticklabels():
        tick.set(color=LIGHT.ink, fontsize=SMALL - 0.5)
    left.set_ylim(len(found) - 0.4, -0.6)
    left.set_xlim(0, None)
    left.set_xlabel("time in microseconds")
    right.axvline(figures["judged"]["pointwise_share_of_int8_peak"]["target"], color=LIGHT.bound, linewidth=1.1, linestyle=(0, (4, 3)))
    right.set_xlim(0, max(1.0, *(1.12 * (row["share_of_peak"] or 0) for row in found)))
    right.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    peak = figures["peak"]["int8"]["gmacs_per_second"]
    right.set_xlabel(f"share of the int8 peak ({peak:.0f} GMAC/s); numbers: GMAC/s")
    shown = [kind for kind in NAMES if any(row["kind"] == kind for row in found)]
    marks = [Patch(color=colours[kind], label=NAMES[kind]) for kind in shown]
    marks += [Line2D([], [], linestyle="", marker="d", markersize=5, markerfacecolor=LIGHT.ground, color=LIGHT.muted, label="float32, same layer")]
    marks += [Line2D([], [], color=LIGHT.bound, linewidth=1.1, linestyle=(0, (4, 3)), label="aimed at (pointwise together)")]
    drawn.legend(handles=marks, frameon=False, fontsize=SMALL, labelcolor=LIGHT.ink, loc="outside upper center", ncols=4, handletextpad=0.5, columnspacing=1.4)
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=DPI * 2 // 3, facecolor=LIGHT.ground, metadata={"Software": None})
    return buffer.getvalue()
