"""Two measurements compared: by the command on files, and the interval on times whose ratio is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli, validate
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundle import write_bundle

from melanoma_edge import host
from melanoma_edge.files import write_json
from melanoma_edge.proof.bench_compare import interval
from melanoma_edge.proof.latency_figures import comparable, drift, verdict
from melanoma_edge.proof.latency_model import AdbFacts, ArtifactLatency, DeviceLatency, Energy, HostLatency, Latency, Preprocessing, RuntimeLatency
from melanoma_edge.runtimes.timing import Plan

INT8, FLOAT = "int8", "float32"


def artifact(precision: str, rounds: list[list[float]]) -> ArtifactLatency:
    p50 = float(np.median(np.concatenate(rounds)))
    return ArtifactLatency(
        name=f"a-{precision}.tflite", format="tflite", precision=precision, sha256="0" * 64, load_ms=1.0, first_ms=1.0, runs=1024, mean_ms=p50, p50_ms=p50,
        p90_ms=p50, p99_ms=p50, round_medians_ms=tuple(map(tuple, rounds)), verdict=verdict(rounds), drift=drift(rounds), p50_ratio_to_float32=None,
    )  # fmt: skip


def measured(*rows: ArtifactLatency, threads: int = 1, **changes: object) -> Latency:
    runtime = RuntimeLatency(
        name="litert", status="timed", threads=threads, version="2.3.0", reason=None, install=None, affinity=(0,), import_ms=1.0, peak_memory_bytes=1, artifacts=rows
    )  # fmt: skip
    known = dict(
        quick=False, comparable=comparable(False, rows), command="melanoma-edge bench", date="2026-01-01T00:00:00Z", samples="x", samples_sha256="0" * 64, plan=Plan(),
        tolerance=0.05, threads=(threads,), load_average_before=(0.0, 0.0, 0.0), load_average_after=(0.0, 0.0, 0.0), conditions=host.host(), energy=Energy(status="not run", note="none"),
        preprocessing=Preprocessing(picture="p", runs=1, p50_ms=1.0, p90_ms=1.0), cross_checks=(), runtimes=(runtime,),
    )  # fmt: skip
    return Latency(bundle="a", manifest_sha256="0" * 64, host=HostLatency(**known | changes))


def rounds(centre: float, *, seed: int = 0, between: float = 0.004, within: float = 0.002) -> list[list[float]]:
    """Return medians of 4 processes' 2 rounds, which scatter as those of a quiet host do."""
    random = np.random.default_rng(seed)
    return [(centre * random.lognormal(0, between) * random.lognormal(0, within, 2)).tolist() for _ in range(4)]


def files(folder: Path, base: Latency, new: Latency) -> tuple[Path, Path]:
    for name, held in (("base.json", base), ("new.json", new)):
        write_json(folder / name, held.model_dump(mode="json"))
    return folder / "base.json", folder / "new.json"


@pytest.mark.parametrize(("factor", "said", "code"), [(0.9, "faster", 0), (1.0, "cannot tell", 0), (1.03, "slower", 0), (1.2, "slower", 1)])
def test_verdict_and_exit_code(cli: Cli, tmp_path: Path, factor: float, said: str, code: int) -> None:
    pair = files(tmp_path, measured(artifact(FLOAT, rounds(1.0)), artifact(INT8, rounds(0.5))), measured(artifact(FLOAT, rounds(1.0, seed=1)), artifact(INT8, rounds(0.5 * factor, seed=2))))
    done = cli("bench-compare", *pair, "--json", code=code)
    found = json.loads(done.out)
    validate(found, "bench-compare")
    [row] = [row for row in found["rows"] if row["precision"] == INT8]
    assert row["verdict"] == said and row["low"] < row["ratio"] < row["high"] and row["ratio"] == pytest.approx(factor, rel=0.02)
    assert row["regression"] == bool(code)
    if code:
        assert done.err.count("\n") == 1 and "1 of 2 take more than 1.05 times as long as before: int8 tflite in litert on host: 1." in done.err
    assert cli("bench-compare", *pair, "--bound", "1.5").out.count(said) >= 1


def test_other_conditions_are_said_and_other_rows_are_not_compared(cli: Cli, tmp_path: Path) -> None:
    base, new = measured(artifact(FLOAT, rounds(1.0)), artifact(INT8, rounds(0.5))), measured(artifact(INT8, rounds(0.5)), artifact("dynamic", rounds(0.7)))
    cpu = new.host.conditions.cpu.model_copy(update={"model": "another"})
    versions = new.host.conditions.versions | {"ai-edge-litert": "9.9"}
    conditions = new.host.conditions.model_copy(update={"cpu": cpu, "versions": versions})
    new = new.model_copy(update={"host": new.host.model_copy(update={"conditions": conditions})})
    text = " ".join(cli("bench-compare", *files(tmp_path, base, new)).out.split())
    assert "measured under other conditions: CPU: " in text and "then another" in text and "ai-edge-litert: " in text and "then 9.9" in text
    assert "float32 tflite in litert, 1 thread, host: in base only" in text and "dynamic tflite in litert, 1 thread, host: in new only" in text


def test_other_conditions_of_a_device_are_said(cli: Cli, tmp_path: Path) -> None:
    facts = AdbFacts(
        manufacturer="Maker", model="Phone", soc="SoC", android="16", abi="arm64-v8a", cores=8, memory_bytes=1, thermal_before="none", thermal_after="none", temperatures_before={"cpu": 40.0},
        temperatures_after={"cpu": 41.0}, battery_before="80 %", battery_after="79 %", benchmark="trusted by its user", benchmark_sha256="0" * 64, missing=(),
    )  # fmt: skip
    held = measured(artifact(INT8, rounds(0.5)))
    device = DeviceLatency(
        name="Maker Phone", facts=facts, quick=False, comparable=True, command="melanoma-edge bench", date="2026-01-01T00:00:00Z", samples=None, samples_sha256=None, plan=Plan(),
        tolerance=0.05, runtimes=held.host.runtimes,
    )  # fmt: skip
    warm = facts.model_copy(update={"android": "17", "thermal_after": "moderate", "temperatures_after": {"cpu": 60.0}, "battery_after": "78 %"})
    newer = tuple(one.model_copy(update={"version": "9.9"}) for one in device.runtimes)
    base, new = (held.model_copy(update={"devices": (one,)}) for one in (device, device.model_copy(update={"facts": warm, "runtimes": newer})))
    found = json.loads(cli("bench-compare", *files(tmp_path, base, new), "--json").out)
    assert found["differences"] == [
        "Maker Phone, android: 16, then 17",
        "Maker Phone, thermal after: none, then moderate",
        "Maker Phone, version of litert: 2.3.0, then 9.9",
    ]
    assert len(found["rows"]) == 2


def test_quick_and_noisy_measurements_tell_nothing(cli: Cli, tmp_path: Path) -> None:
    calm, noisy = measured(artifact(INT8, rounds(0.5))), measured(artifact(INT8, [[1.0, 1.0], [2.0, 3.0]]))
    found = json.loads(cli("bench-compare", *files(tmp_path, calm, noisy), "--json").out)
    assert (found["rows"][0]["verdict"], found["rows"][0]["reason"]) == ("cannot tell", "new is noisy")
    alone = measured(artifact(INT8, [[1.0, 1.0, 1.001, 1.0]]))
    found = json.loads(cli("bench-compare", *files(tmp_path, calm, alone), "--json").out)
    assert found["rows"][0]["verdict"] == "cannot tell" and "of one process, whose rounds say nothing of another measurement" in found["rows"][0]["reason"]
    quick = measured(artifact(INT8, rounds(5.0)), quick=True, comparable=False)
    assert json.loads(cli("bench-compare", *files(tmp_path, quick, calm), "--json").out)["rows"][0]["reason"] == "base was measured with --quick"


def test_what_cannot_be_compared_is_refused_in_one_line(cli: Cli, tmp_path: Path) -> None:
    one = measured(artifact(INT8, rounds(0.5)))
    base, new = files(tmp_path, one, measured(artifact(INT8, rounds(0.5)), threads=2))
    assert "timed nothing alike" in cli.refused("bench-compare", base, new)
    assert "No such file" in cli.refused("bench-compare", base, tmp_path / "none.json")
    (tmp_path / "bad.json").write_text('{"schema_version": 7}')
    assert "bad.json is no latency.json" in cli.refused("bench-compare", tmp_path / "bad.json", base)
    bundle = write_bundle(tmp_path / "tiny.bundle")
    assert "no evidence/latency.json" in cli.refused("bench-compare", bundle, base)
    for bound in ("0", "-1", "nan", "inf"):
        assert "the bound is" in cli.refused("bench-compare", base, base, "--bound", bound)
    base, new = files(tmp_path, one, measured(artifact(INT8, [[0.0, 0.0]])))
    assert "a time of nothing" in cli.refused("bench-compare", base, new)


def test_a_bundle_stands_for_its_evidence(cli: Cli, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny.bundle")
    (bundle / "evidence").mkdir()
    write_json(bundle / "evidence" / "latency.json", measured(artifact(INT8, rounds(0.5))).model_dump(mode="json"))
    found = json.loads(cli("bench-compare", bundle, bundle, "--json").out)
    assert found["rows"][0]["ratio"] == 1.0 and found["rows"][0]["verdict"] == "cannot tell" and found["differences"] == []


def test_measurements_of_the_same_thing_are_rarely_called_different() -> None:
    """Where processes scatter more than their rounds, as they do; drawing rounds alone would be wrong most of the time."""
    told = [interval(artifact(INT8, rounds(1.0, seed=2 * seed)), artifact(INT8, rounds(1.0, seed=2 * seed + 1))) for seed in range(150)]
    assert sum(not low <= 1 <= high for low, high in told) <= 0.12 * len(told)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.2, 5), st.integers(0, 1000))
def test_the_interval_scales_with_the_ratio(factor: float, seed: int) -> None:
    base, new = rounds(1.0, seed=seed), rounds(1.0, seed=seed + 1)
    low, high = interval(artifact(INT8, base), artifact(INT8, new))
    scaled = interval(artifact(INT8, base), artifact(INT8, [[time * factor for time in times] for times in new]))
    assert scaled == pytest.approx((low * factor, high * factor)) and low <= high


def test_one_round_has_no_interval() -> None:
    assert interval(artifact(INT8, [[1.0]]), artifact(INT8, rounds(1.0))) is None
