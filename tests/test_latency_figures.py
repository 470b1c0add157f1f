"""What README and docs say of latency is what stands in the results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import read_json

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"
README, BENCHMARKS, LATENCY, CHANGELOG = (
    " ".join((REPOSITORY / name).read_text(encoding="utf-8").split()) for name in ("README.md", "benchmarks/README.md", "docs/latency.md", "CHANGELOG.md")
)


def figures(name: str) -> dict:
    return read_json(RESULTS / f"{name}.json")["figures"]


def test_the_readme_has_the_tables_of_the_peers() -> None:
    printed = subprocess.run([sys.executable, "benchmarks/peers.py", "--markdown"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    parts = printed.split("\n\n")
    tables = [part for part in parts if part.startswith("|")]
    assert len(tables) == 2 and all(" ".join(table.split()) in README for table in tables)
    assert " ".join(parts[1].split()) in README, "the note: what noisy means, and whose accuracy is known"


def test_the_docs_have_the_latencies_of_the_reference_bundle() -> None:
    printed = subprocess.run([sys.executable, "benchmarks/reference_latency.py", "--markdown"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert all(" ".join(part.split()) in LATENCY for part in printed.split("\n\n"))
    held, shipped = figures("reference_latency")["host"], read_json(REPOSITORY / "samples" / "reference.bundle" / "manifest.json")["artifacts"]
    timed = {row["sha256"] for runtime in held["runtimes"] for row in runtime["artifacts"]}
    assert timed == {artifact["sha256"] for artifact in shipped}, "the figures are of the files that are shipped"


def test_readme_and_benchmarks_say_what_the_shape_of_the_network_changed() -> None:
    found, speed = figures("shapes"), figures("peers")["networks"]
    gained, (before, after) = found["new_minus_base"], found["recipe_differs_in"].pop("network")
    assert (before, after) == ("edge-residual", "edge-lean") and not found["recipe_differs_in"]
    balanced, auc = gained["int8"]["balanced_accuracy"], gained["int8"]["positive_auc"]
    assert balanced["value"] >= -0.01 and balanced["high"] >= 0, "the rule by which the default network was chosen"
    points = lambda one: f"{100 * one['value']:+.1f} ({100 * one['low']:+.1f} to {100 * one['high']:+.1f})"
    assert f"`edge-lean` gains {100 * balanced['value']:.1f} points of balanced accuracy ({100 * balanced['low']:+.1f} to {100 * balanced['high']:+.1f}: a loss of one point is not excluded)" in README and balanced["low"] < -0.01
    assert f"and {auc['value']:.3f} of melanoma AUC ({auc['low']:+.3f} to {auc['high']:+.3f})" in README
    assert f"specificity {points(gained['int8']['positive_specificity'])} points, nevi called melanoma {points(gained['int8']['called_positive']['nevus'])}, at a sensitivity of {points(gained['int8']['positive_sensitivity'])}" in README
    rows = {
        "balanced accuracy, points": lambda one: points(one["balanced_accuracy"]),
        "melanoma AUC": lambda one: f"{one['positive_auc']['value']:+.4f} ({one['positive_auc']['low']:+.4f} to {one['positive_auc']['high']:+.4f})",
        "melanoma sensitivity at the folds' own thresholds, points": lambda one: points(one["positive_sensitivity"]),
        "specificity there, points": lambda one: points(one["positive_specificity"]),
        "nevi called melanoma there, points": lambda one: points(one["called_positive"]["nevus"]),
        "pigmented benign keratoses called melanoma there, points": lambda one: points(one["called_positive"]["pigmented benign keratosis"]),
    }
    assert [row for row, shown in rows.items() if f"| {row} | {shown(gained['int8'])} | {shown(gained['float32'])} |" not in BENCHMARKS] == []
    pooled = [found[which]["int8"]["positive_sensitivity_at_90_specificity"]["value"] for which in ("new", "base")]
    assert f"all folds pooled ({pooled[0]:.3f} instead of {pooled[1]:.3f})" in BENCHMARKS
    times = [speed[name]["files"]["litert int8"]["p50_ms"] for name in ("melanoma-edge", "edge-residual")]
    other = [speed[name]["files"]["onnxruntime int8"]["p50_ms"] for name in ("melanoma-edge", "edge-residual")]
    assert f"{times[0] / times[1]:.2f} of the time in int8 on LiteRT and {other[0] / other[1]:.2f} on ONNX Runtime" in BENCHMARKS and f"takes {times[0] / times[1]:.2f} of the time in int8 on LiteRT" in README
    assert f"int8 takes {times[0] / times[1]:.2f} of the time ({times[0]:.2f} instead of {times[1]:.2f} ms on LiteRT" in CHANGELOG
    assert f"specificity at the folds' own thresholds is {-100 * gained['int8']['positive_specificity']['value']:.1f} points lower" in CHANGELOG
    assert all(one["outcome"] != "missed" for one in figures("peers")["judged"].values()) or "All targets for the ratios are reached" not in README


def test_the_readme_says_what_the_roofline_found() -> None:
    found = figures("roofline")
    int8 = found["litert"]["int8"]
    pointwise = found["judged"]["pointwise_share_of_int8_peak"]
    assert f"and reach {100 * pointwise['value']:.0f} % of the host's int8 peak (aimed at: {100 * pointwise['target']:.0f} %)" in README and pointwise["outcome"] == "reached"
    together = int8["kinds"]
    time = {kind: row["us"]["value"] for kind, row in together.items()}
    slow, fast = (found["litert"][precision]["kinds"]["depthwise"]["us"] for precision in ("int8", "float32"))
    compared = "longer in int8 than in float32" if slow["low"] > fast["high"] else "no less than in float32"
    assert slow["value"] >= fast["value"] and ("all of it comparable" if found["comparable"] else f"measured beside noise: {found['not_comparable_because']}") in README
    assert f"of {int8['whole']['us']['value']:.0f} microseconds the pointwise layers take {time['pointwise']:.0f}" in README
    assert f"depthwise layers take {time['depthwise']:.0f}, {compared} ({fast['value']:.0f}), and the first layer of three channels {time['stem']:.0f}" in README
    nodes = found["onnxruntime"]["int8"]
    assert f"of ONNX Runtime's kernels the first layer alone is {100 * nodes['kinds']['stem']['us'] / nodes['sum_of_nodes_us']:.0f} %" in README


def test_the_readme_says_how_fast_predict_is() -> None:
    found = figures("predict_speed")
    assert f"| `predict` on one picture, whole process | {found['predict_one_picture_seconds']:.2f} s |" in README
    said = f"{found['predict_images_per_second_without_start_up']:,.0f} pictures a second, {found['ratio_to_bare']:.2f} of the bare runtime on one thread"
    assert said in README and f"({found['target']}" in README.split(said)[1][:60]
    assert f"at most {found['most_possible']:.2f} on {found['cores']} cores" in README and f"{found['ratio_to_bare_of_2_threads']:.2f} of it on the two cores" in README


def test_the_docs_say_how_often_the_same_thing_is_called_different() -> None:
    found = figures("latency_noise")
    together = found["together"]
    for rule in ("bench_compare", "one_process_alone"):
        counts = together[rule]
        assert f"{counts['called_different']} of {counts['pairs']}" in LATENCY
    assert found["comparable"] and together["bench_compare"]["called_different"] / together["bench_compare"]["pairs"] < together["one_process_alone"]["called_different"] / together["one_process_alone"]["pairs"]


@pytest.mark.parametrize("name", ["peers", "roofline", "predict_speed", "latency_noise", "reference_latency"])
def test_every_program_is_listed_beside_its_results(name: str) -> None:
    assert f"`{name}.py`" in BENCHMARKS or f"python benchmarks/{name}.py" in BENCHMARKS
    held = read_json(RESULTS / f"{name}.json")
    assert held["conditions"]["cpu"]["model"] and held["date"] and held["command"].startswith(f"python benchmarks/{name}.py")
