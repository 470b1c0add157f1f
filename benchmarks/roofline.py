"""How much of what this host can compute our network uses, layer by layer, on one thread.

The host's peak is what XNNPACK (in LiteRT) sustains on large single convolutions, int8 and float32: the best of several shapes, by the median of all rounds. A layer's time
is the difference between the network cut behind it and the network cut before it: both run in the same process and round, and the median of all rounds' differences counts,
with its interval (processes drawn again, and rounds within them). There are several processes, one after the other, for what the system gives a process (which pages, which order in memory) stays with it. ONNX Runtime times its own kernels, which slows it; what it takes without stands beside that.

Run: python benchmarks/roofline.py [--bundle BUNDLE] [--quick] [--results FOLDER]; with --markdown it measures nothing and prints the tables of the results that there are.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import common
import numpy as np
import roofline_models
import roofline_shown
import roofline_times
from roofline_models import KINDS, SHAPES, Operator

from melanoma_edge.convert.bundle import Bundle, open_bundle
from melanoma_edge.errors import BadInput
from melanoma_edge.proof.latency_figures import TOLERANCE
from melanoma_edge.resampling import medians_drawn_again

PRECISIONS = ("int8", "float32")
FULL = {"processes": 8, "rounds": 8, "runs": 25, "convolution_runs": 5, "onnxruntime_runs": 2000}
QUICK = {"processes": 2, "rounds": 3, "runs": 3, "convolution_runs": 1, "onnxruntime_runs": 20}
"""Processes, rounds of each, timed runs of each cut network and of each convolution in a round, and runs in ONNX Runtime."""
STEADY = 0.9
"""Share of the rounds that must lie within the tolerance of their median, for the networks and the best convolutions to be called stable."""
TARGETS = {"pointwise_share_of_int8_peak": (0.5, None)}
"""What was aimed at: all multiply-accumulates of the pointwise layers over all their time, as a share of the peak. More is better."""
CONVOLUTIONS = ("Conv", "QLinearConv")
REPLICATES = 500


def median(values: np.ndarray, digits: int = 2) -> dict:
    """Return the median of `values` [processes, rounds] with its interval of nominally 95 %, of processes drawn again and rounds drawn again within them: few processes make it too narrow."""
    again = medians_drawn_again(list(values), REPLICATES, np.random.default_rng(1))
    value, (low, high) = np.median(values), np.percentile(again, (2.5, 97.5))
    return {name: round(float(one), digits) for name, one in (("value", value), ("low", low), ("high", high))}


def steady(rounds: list[list[float]]) -> bool:
    """Return whether nearly all rounds, of each process, lie within the tolerance of `melanoma-edge bench` of their median."""
    found, centre = np.array(rounds), np.median(rounds)
    return bool((np.abs(found - centre) <= TOLERANCE * centre).mean() >= STEADY)


def speed(multiply_accumulates: int, microseconds: dict, peak: float | None) -> dict:
    """Return a time with what it comes to: thousand million multiply-accumulates a second, and their share of the peak; None where there are none, or the time is within the noise."""
    noise = microseconds["low"] <= 0
    gmacs = multiply_accumulates / microseconds["value"] / 1000 if multiply_accumulates and not noise else None
    share = gmacs / peak if gmacs and peak else None
    return {
        "us": microseconds, "within_noise": noise, "multiply_accumulates": multiply_accumulates,
        "gmacs_per_second": None if gmacs is None else round(gmacs, 2), "share_of_peak": None if share is None else round(share, 4),
    }  # fmt: skip


def peaks(medians: dict[str, list[list[float]]]) -> dict:
    """Return what each convolution came to, and the best of them."""
    rows = [{"convolution": str(shape), **speed(shape.multiply_accumulates, median(np.array(medians[str(shape)])), None)} for shape in SHAPES]
    best = max(rows, key=lambda row: row["gmacs_per_second"])
    return {"gmacs_per_second": best["gmacs_per_second"], "convolution": best["convolution"], "us": best["us"], "tried": rows}


def layers(operators: list[Operator], medians: dict[str, list[list[float]]], peak: float) -> dict:
    """Return the figures of a network: whole, of each kind of operator, and operator by operator."""
    cumulated = np.array([medians[str(count)] for count in range(1, len(operators) + 1)])
    each = np.diff(cumulated, axis=0, prepend=0.0)
    whole = speed(sum(one.multiply_accumulates for one in operators), median(cumulated[-1]), peak)
    kinds = {}
    for kind in KINDS:
        chosen = [place for place, one in enumerate(operators) if one.kind == kind]
        if chosen:
            found = speed(sum(operators[place].multiply_accumulates for place in chosen), median(each[chosen].sum(axis=0)), peak)
            kinds[kind] = {"operators": len(chosen), "share_of_time": round(found["us"]["value"] / whole["us"]["value"], 4), **found}
    rows = [
        {"name": one.name, "kind": one.kind, "operator": one.operator, "shape": list(one.shape), **speed(one.multiply_accumulates, median(times), peak)}
        for one, times in zip(operators, each)
    ]
    return {"whole": whole, "kinds": kinds, "layers": rows}


def kernels(operators: list[Operator], found: dict) -> dict:
    """Return ONNX Runtime's own times, its nodes named and counted as the TFLite file's layers: its convolutions come in the same order.

    Raises BadInput where they do not: then the two files are not of one network.
    """
    convolutions = [one for one in operators if one.operator in ("CONV_2D", "DEPTHWISE_CONV_2D")]
    nodes = [node for node in found["nodes"] if node["operator"] in CONVOLUTIONS]
    if [math.prod(node["shape"]) for node in nodes] != [math.prod(one.shape) for one in convolutions]:
        raise BadInput(f"ONNX Runtime runs {len(nodes)} convolutions of other sizes than the TFLite file's {len(convolutions)}: expected files of one network; export the bundle again")
    waiting, rows = iter(convolutions), []
    for node in found["nodes"]:
        one = next(waiting) if node["operator"] in CONVOLUTIONS else None
        kind = one.kind if one else "addition" if node["operator"].endswith("Add") else "other"
        macs = one.multiply_accumulates if one else 0
        gmacs = round(macs / node["us"] / 1000, 2) if macs and node["us"] else None
        rows.append({**node, "name": one.name if one else node["name"], "kind": kind, "multiply_accumulates": macs, "gmacs_per_second": gmacs})
    kinds = {}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        of_kind = [row for row in rows if row["kind"] == kind]
        us, macs = sum(row["us"] for row in of_kind), sum(row["multiply_accumulates"] for row in of_kind)
        kinds[kind] = {"nodes": len(of_kind), "us": round(us, 1), "multiply_accumulates": macs, "gmacs_per_second": round(macs / us / 1000, 2) if macs and us else None}
    sums = {name: found[name] for name in ("bare_us", "profiled_us", "profiler_run_us")}
    return {**sums, "sum_of_nodes_us": round(sum(row["us"] for row in rows), 1), "kinds": kinds, "nodes": rows}


def files_of(bundle: Bundle) -> dict[tuple[str, str], Path]:
    """Return {(format, precision): file}; raises BadInput where the bundle lacks one."""
    found = {(one.format, one.precision): bundle.file(one) for one in bundle.manifest.artifacts}
    lacking = [f"{precision} {fmt}" for fmt in ("tflite", "onnx") for precision in PRECISIONS if (fmt, precision) not in found]
    if lacking:
        raise BadInput(f"{bundle.path} has no {', '.join(lacking)} file: export it with both precisions and formats, or name another with --bundle")
    return found


def measure(bundle: Bundle, *, quick: bool) -> dict:
    """Return all figures."""
    plan, files = QUICK if quick else FULL, files_of(bundle)
    contents = {precision: files["tflite", precision].read_bytes() for precision in PRECISIONS}
    operators = {precision: roofline_models.operators(content) for precision, content in contents.items()}
    groups = {}
    for precision, content in contents.items():
        cut = {str(count): prefix for count, prefix in enumerate(roofline_models.prefixes(content), 1)}
        groups[f"network {precision}"] = cut, plan["runs"]
        groups[f"convolutions {precision}"] = {str(shape): roofline_models.single(shape, precision) for shape in SHAPES}, plan["convolution_runs"]
    medians: dict[str, dict[str, list[list[float]]]] = {group: {name: [] for name in models} for group, (models, _) in groups.items()}
    for number in range(plan["processes"]):
        common.say(f"LiteRT, process {number + 1} of {plan['processes']}: {sum(map(len, medians.values()))} models, {plan['rounds']} rounds")
        found = common.apart(roofline_times.litert, groups, plan["rounds"])
        for group, models in found["medians"].items():
            for name, rounds in models.items():
                medians[group][name].append(rounds)
    peak = {precision: peaks(medians[f"convolutions {precision}"]) for precision in PRECISIONS}
    litert, onnx = {}, {}
    for precision in PRECISIONS:
        litert[precision] = layers(operators[precision], medians[f"network {precision}"], peak[precision]["gmacs_per_second"])
        common.say(f"ONNX Runtime: {precision}")
        timed = common.apart(roofline_times.onnxruntime, str(files["onnx", precision]), plan["onnxruntime_runs"])
        onnx[precision] = kernels(operators[precision], timed)
    if "pointwise" not in litert["int8"]["kinds"]:
        raise BadInput(f"{bundle.path} holds a network without pointwise layers: expected one of the default recipe's kind; name another with --bundle")
    share = litert["int8"]["kinds"]["pointwise"]["share_of_peak"]
    target, stretch = TARGETS["pointwise_share_of_int8_peak"]
    outcome = "not measured" if share is None else "reached" if share >= target else "missed"
    timed = {f"network {precision}": str(len(operators[precision])) for precision in PRECISIONS} | {f"convolutions {precision}": peak[precision]["convolution"] for precision in PRECISIONS}
    noisy = [group for group, name in timed.items() if not steady(medians[group][name])]
    why_not = "--quick: a few runs say nothing" if quick else f"the rounds differ too much: {', '.join(noisy)}" if noisy else None
    return {
        "comparable": why_not is None,
        "not_comparable_because": why_not,
        "bundle": bundle.manifest.name,
        "image_size": bundle.manifest.input.width,
        "threads": 1,
        "plan": plan,
        "affinity": found["affinity"],
        "peak": peak,
        "litert": litert,
        "onnxruntime": onnx,
        "judged": {"pointwise_share_of_int8_peak": {"value": share, "target": target, "stretch": stretch, "outcome": outcome}},
    }


def main(arguments: list[str] | None = None) -> None:
    asked = _arguments(arguments)
    common.study("roofline", asked, lambda: measure(open_bundle(asked.bundle), quick=asked.quick), roofline_shown, TARGETS)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, default=Path("bundles/reference.bundle"), help="whose network (default: bundles/reference.bundle)")
    common.study_options(parser, "roofline")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    common.run("roofline", main)
