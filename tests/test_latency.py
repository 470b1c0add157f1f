"""The latency protocol on a tiny bundle, in the real runtimes."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from tiny_bundle import pictures, tflite, write_bundle

from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.errors import BadInput
from melanoma_edge.proof import latency
from melanoma_edge.proof.latency import bench, verdict
from melanoma_edge.proof.latency_model import Latency
from melanoma_edge.runtimes.process import run_times
from melanoma_edge.runtimes.timing import Plan


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("latency") / "tiny.bundle")


@pytest.fixture(scope="module")
def measured(bundle: Path) -> tuple[dict, list[str]]:
    """Return what a quick bench gave, and its progress lines."""
    lines: list[str] = []
    return bench(bundle, quick=True, progress=lines.append), lines


def test_the_summary_is_valid_and_written(bundle: Path, measured: tuple[dict, list[str]]) -> None:
    text = (bundle / "evidence" / "latency.json").read_text(encoding="utf-8")
    assert json.loads(text) == measured[0]
    summary = Latency.model_validate_json(text)
    assert summary.quick and not summary.comparable and "never phone numbers" in summary.note
    assert summary.command == "melanoma-edge bench tiny.bundle --quick --threads 1"
    assert summary.manifest_sha256 == hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
    assert summary.conditions.cpu.model and summary.conditions.versions["ai-edge-litert"]
    assert str(bundle) not in text
    open_bundle(bundle)


def test_every_artifact_is_timed_in_its_runtime(measured: tuple[dict, list[str]]) -> None:
    rows = {row["name"]: row for row in measured[0]["runtimes"]}
    assert [artifact["name"] for artifact in rows["litert"]["artifacts"]] == ["tiny-float32.tflite", "tiny-int8.tflite"]
    assert [artifact["name"] for artifact in rows["onnxruntime"]["artifacts"]] == ["tiny-float32.onnx"]
    for row in (rows["litert"], rows["onnxruntime"]):
        assert row["status"] == "timed" and row["peak_memory_bytes"] > 10_000_000 and len(row["affinity"]) == 1
        for artifact in row["artifacts"]:
            assert artifact["runs"] >= latency.QUICK.runs and len(artifact["round_medians_ms"]) == latency.QUICK.rounds
            assert 0 < artifact["p50_ms"] <= artifact["p90_ms"] <= artifact["p99_ms"]
            assert artifact["load_ms"] > 0 and artifact["first_ms"] > 0
        assert row["artifacts"][0]["p50_ratio_to_float32"] == 1.0
    assert "litert: round 1 of 3" in measured[1]


def test_a_runtime_that_is_not_here_is_listed(measured: tuple[dict, list[str]]) -> None:
    row = {row["name"]: row for row in measured[0]["runtimes"]}["onnxruntime-cuda"]
    assert row["status"] == "timed" or (row["reason"] and row["artifacts"] == [])


def test_the_raw_times_are_kept_and_give_the_summary(bundle: Path, measured: tuple[dict, list[str]]) -> None:
    packed = (bundle / "evidence" / "latency-samples.json.gz").read_bytes()
    assert hashlib.sha256(packed).hexdigest() == measured[0]["samples_sha256"]
    assert packed[4:8] == bytes(4)
    samples = json.loads(gzip.decompress(packed))
    assert samples["unit"] == "microseconds"
    for row in measured[0]["runtimes"]:
        for artifact in row["artifacts"]:
            rounds = samples["runtimes"][row["name"]][artifact["name"]]
            times = np.concatenate(rounds)
            assert len(times) == artifact["runs"] and np.all(times == times.round(1))
            assert artifact["p99_ms"] == pytest.approx(np.percentile(times, 99) / 1000, abs=1e-4)
            assert artifact["round_medians_ms"] == pytest.approx([np.median(r) / 1000 for r in rounds], abs=1e-4)


def test_a_chosen_runtime_alone_is_timed_and_one_without_artifacts_is_said(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected some of litert, litert-builtin"):
        bench(bundle, quick=True, runtimes=["keras"])
    only_onnx = write_bundle(tmp_path / "b")
    manifest = json.loads((only_onnx / "manifest.json").read_text(encoding="utf-8"))
    manifest["artifacts"] = [artifact for artifact in manifest["artifacts"] if artifact["format"] == "onnx"]
    (only_onnx / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    [row] = bench(only_onnx, quick=True, runtimes=["litert"])["runtimes"]
    assert row["status"] == "not run" and row["reason"] == "the bundle has no tflite artifact" and row["install"] is None


@pytest.mark.parametrize("threads", [0, 4096])
def test_threads_that_cannot_be_are_refused(bundle: Path, threads: int) -> None:
    with pytest.raises(BadInput, match=f"threads is {threads}: expected 1"):
        bench(bundle, quick=True, threads=threads)


def test_counts_and_seconds_of_the_plan_are_both_reached(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(tflite("uint8"))
    short = Plan(warmup_runs=1, warmup_seconds=0.0, seconds=0.0, runs=10, rounds=4)
    facts = run_times("litert", {"m": path}, pictures(2), plan=short)
    assert [len(times) for times in facts["models"]["m"]["rounds"]] == [3, 3, 3, 3]
    long = Plan(warmup_runs=1, warmup_seconds=0.0, seconds=0.2, runs=1, rounds=2)
    facts = run_times("litert", {"m": path}, pictures(2), plan=long)
    assert all(sum(times) >= 0.99e5 for times in facts["models"]["m"]["rounds"])


def test_the_full_protocol_is_the_designs() -> None:
    plan = latency.FULL
    assert (plan.warmup_runs, plan.warmup_seconds, plan.runs, plan.seconds, plan.rounds) == (50, 0.5, 1024, 3.0, 8)
    assert latency.TOLERANCE == 0.05
    with pytest.raises(ValidationError):
        Plan(rounds=0)


@pytest.mark.parametrize(
    ("medians", "expected"),
    [
        ([1.0], "stable"),
        ([1.0, 1.0, 1.0, 1.04], "stable"),
        ([1.0, 1.0, 1.0, 0.96], "stable"),
        ([1.0, 1.0, 1.0, 1.06], "noisy: do not compare"),
        ([1.0, 1.0, 1.0, 0.94], "noisy: do not compare"),
        ([1.0, 2.0, 3.0, 4.0], "noisy: do not compare"),
    ],
)
def test_verdict(medians: list[float], expected: str) -> None:
    assert verdict(medians) == expected
