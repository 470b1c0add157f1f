"""The latency protocol on a tiny bundle, in the real runtimes."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_bundle import pictures, tflite, write_bundle

from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.errors import BadInput
from melanoma_edge.proof import crosscheck, latency, latency_figures, latency_file
from melanoma_edge.proof.latency import bench
from melanoma_edge.proof.latency_figures import drift, verdict
from melanoma_edge.proof.latency_model import Latency
from melanoma_edge.runtimes.process import run_times
from melanoma_edge.runtimes.timing import Plan


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("latency") / "tiny.bundle")


@pytest.fixture(scope="module")
def measured(bundle: Path) -> tuple[dict, list[str]]:
    """Return what a quick bench says of this host, as JSON has it, and its progress lines."""
    lines: list[str] = []
    return bench(bundle, quick=True, progress=lines.append).model_dump(mode="json")["host"], lines


def test_the_summary_is_valid_and_written(bundle: Path, measured: tuple[dict, list[str]]) -> None:
    text = (bundle / "evidence" / "latency.json").read_text(encoding="utf-8")
    held = Latency.model_validate_json(text)
    assert json.loads(text)["host"] == measured[0] and held.devices == ()
    summary = held.host
    assert summary.quick and not summary.comparable and "never phone numbers" in summary.note
    assert summary.command == "melanoma-edge bench tiny.bundle --quick --threads 1"
    assert held.manifest_sha256 == hashlib.sha256((bundle / "manifest.json").read_bytes()).hexdigest()
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
            assert artifact["runs"] >= latency.QUICK.runs and [len(rounds) for rounds in artifact["round_medians_ms"]] == [latency.QUICK.rounds]
            assert 0 < artifact["p50_ms"] <= artifact["p90_ms"] <= artifact["p99_ms"]
            assert artifact["load_ms"] > 0 and artifact["first_ms"] > 0
        assert row["artifacts"][0]["p50_ratio_to_float32"] == 1.0
    assert "process 1 of 1, 1 thread, litert: round 1 of 3" in measured[1]


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
            [rounds] = next(one for one in samples["rows"] if (one["runtime"], one["threads"]) == (row["name"], row["threads"]))["artifacts"][artifact["name"]]
            times = np.concatenate(rounds)
            assert len(times) == artifact["runs"] and np.all(times == times.round(1))
            assert artifact["p99_ms"] == pytest.approx(np.percentile(times, 99) / 1000, abs=1e-4)
            assert artifact["round_medians_ms"][0] == pytest.approx([np.median(r) / 1000 for r in rounds], abs=1e-4)


def test_a_chosen_runtime_alone_is_timed_and_one_without_artifacts_is_said(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="expected some of litert, litert-builtin"):
        bench(bundle, quick=True, runtimes=["keras"])
    only_onnx = write_bundle(tmp_path / "b")
    manifest = json.loads((only_onnx / "manifest.json").read_text(encoding="utf-8"))
    manifest["artifacts"] = [artifact for artifact in manifest["artifacts"] if artifact["format"] == "onnx"]
    (only_onnx / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    [row] = bench(only_onnx, quick=True, runtimes=["litert"]).host.runtimes
    assert row.status == "not run" and row.reason == "the bundle has no tflite artifact" and row.install is None


@pytest.mark.parametrize("threads", [0, 4096])
def test_threads_that_cannot_be_are_refused(bundle: Path, threads: int) -> None:
    with pytest.raises(BadInput, match=f"threads is {threads}: expected 1"):
        bench(bundle, quick=True, threads=[1, threads])


def test_counts_and_seconds_of_the_plan_are_both_reached(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(tflite("uint8"))
    short = Plan(warmup_runs=1, warmup_seconds=0.0, processes=1, seconds=0.0, runs=10, rounds=4)
    facts = run_times("litert", {"m": path}, pictures(2), plan=short)
    assert [len(times) for times in facts["models"]["m"]["rounds"]] == [3, 3, 3, 3]
    long = Plan(warmup_runs=1, warmup_seconds=0.0, processes=1, seconds=0.2, runs=1, rounds=2)
    facts = run_times("litert", {"m": path}, pictures(2), plan=long)
    assert all(sum(times) >= 0.99e5 for times in facts["models"]["m"]["rounds"])


def test_the_full_protocol_is_the_designs() -> None:
    plan = latency.FULL
    assert (plan.warmup_runs, plan.warmup_seconds, plan.processes, plan.runs, plan.seconds, plan.rounds) == (50, 0.5, 4, 1024, 3.0, 8)
    assert latency_figures.TOLERANCE == 0.05
    share = plan.share()
    assert (share.processes, share.rounds, share.runs, share.seconds) == (1, 2, 256, 0.75)
    for wrong in ({"rounds": 0}, {"rounds": 6}):
        with pytest.raises(ValidationError):
            Plan(**wrong)


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
    assert verdict([medians]) == verdict([[median] for median in medians]) == expected


def test_drift_is_the_last_quarter_against_the_first() -> None:
    assert drift([[1.0, 1.0], [1.1, 1.2], [1.3, 1.4], [1.5, 1.5]]) == 1.5
    assert drift([[1.0, 1.0, 1.0]]) is None


def test_each_number_of_threads_has_rows_and_cores_of_its_own(bundle: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one core is here")
    host = bench(bundle, quick=True, threads=[2, 1, 2], runtimes=["litert"]).host
    assert host.threads == (1, 2) and host.command.endswith("--threads 1,2 --runtime litert")
    assert [(row.threads, len(row.affinity)) for row in host.runtimes] == [(1, 1), (2, 2)]


def test_a_measurement_of_several_processes_keeps_them_apart(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(warmup_runs=1, warmup_seconds=0.0, processes=2, runs=8, seconds=0.0, rounds=4)
    monkeypatch.setattr(latency, "FULL", plan)
    monkeypatch.setattr(crosscheck, "RUNS", 20)
    host = bench(bundle).host
    rows = [row for runtime in host.runtimes for row in runtime.artifacts]
    assert all([len(rounds) for rounds in row.round_medians_ms] == [2, 2] and row.runs == 8 for row in rows)
    told = {(check.tool, check.artifact): check for check in host.cross_checks}
    assert {name for _, name in told} == {row.name for row in rows}
    for check in told.values():
        assert check.status in ("agrees", "differs") and check.ratio == pytest.approx(check.theirs_ms / check.ours_ms, rel=0.05)
        assert (check.status == "agrees") == (abs(check.ratio - 1) <= 0.05)


def test_a_latency_file_of_the_first_version_is_read(bundle: Path, measured: tuple[dict, list[str]]) -> None:
    held = {key: value for key, value in measured[0].items() if key not in ("energy", "cross_checks")}
    held |= {"schema_version": 1, "bundle": "tiny", "manifest_sha256": "0" * 64, "host": True, "threads": 1}
    held["plan"] = {key: value for key, value in held["plan"].items() if key != "processes"}
    added = ("drift", "energy_mj", "golden")
    held["runtimes"] = [
        {key: value for key, value in row.items() if key not in ("threads", "accelerator")}
        | {"artifacts": [{k: v for k, v in one.items() if k not in added} | {"round_medians_ms": one["round_medians_ms"][0]} for one in row["artifacts"]]}
        for row in held["runtimes"]
    ]
    found = latency_file.parse(json.dumps(held).encode())
    assert found.schema_version == 2 and found.host.threads == (1,) and found.host.plan.processes == 1
    assert [row.p50_ms for row in found.host.runtimes[0].artifacts] == [row["p50_ms"] for row in measured[0]["runtimes"][0]["artifacts"]]
    assert found.host.energy.status == "not run" and found.host.cross_checks == ()


@given(st.one_of(st.binary(max_size=50), st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["schema_version", "host", "runtimes", "plan", "threads"]), inner, max_size=5), max_leaves=8).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_what_is_no_latency_file_is_told_so(content: bytes) -> None:
    with pytest.raises(latency_file.DAMAGED):
        latency_file.parse(content)
