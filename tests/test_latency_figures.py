"""What README and docs say of latency is what stands in the results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import read_json

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"
README, BENCHMARKS, LATENCY = (" ".join((REPOSITORY / name).read_text(encoding="utf-8").split()) for name in ("README.md", "benchmarks/README.md", "docs/latency.md"))


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


def test_the_readme_says_what_the_roofline_found() -> None:
    found = figures("roofline")
    int8 = found["litert"]["int8"]
    pointwise = found["judged"]["pointwise_share_of_int8_peak"]
    assert f"and reach {100 * pointwise['value']:.0f} % of the host's int8 peak (aimed at: {100 * pointwise['target']:.0f} %)" in README and pointwise["outcome"] == "reached"
    together = int8["kinds"]
    time = {kind: row["us"]["value"] for kind, row in together.items()}
    in_float = found["litert"]["float32"]["kinds"]["depthwise"]["us"]["value"]
    assert f"of {int8['whole']['us']['value']:.0f} microseconds the pointwise layers take {time['pointwise']:.0f}" in README
    assert f"depthwise layers take {time['depthwise']:.0f}, longer in int8 than in float32 ({in_float:.0f}), and the first layer of three channels {time['stem']:.0f}" in README
    nodes = found["onnxruntime"]["int8"]
    assert nodes["kinds"]["stem"]["us"] > nodes["sum_of_nodes_us"] / 3


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
