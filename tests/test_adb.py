"""benchmark_model over adb: a real adb and a real adbd, with a device's shell and tools, and a benchmark_model that prints what the real one does."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonschema
import pytest
from adb_device import BENCHMARK, DUMPSYS, GETPROP, REFUSING, REFUSING_SERIAL, SECOND, SERIAL, Phone, elf, fetch, furnish, network
from conftest import snapshot
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_bundle import write_bundle

from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.errors import BadInput, Missing
from melanoma_edge.host import host
from melanoma_edge.proof import benchmark_binary, benchmark_model
from melanoma_edge.proof.bench_adb import FULL, QUICK, bench_adb
from melanoma_edge.proof.benchmark_model import Delegation, Way, parse
from melanoma_edge.proof.latency_file import keep_host
from melanoma_edge.proof.latency_model import Energy, Latency, Preprocessing
from melanoma_edge.runtimes import adb, adb_facts
from melanoma_edge.runtimes.adb import FOLDER, Device

FLOAT, INT8 = "tiny-float32.tflite", "tiny-int8.tflite"


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Path, int, Path]]:
    """Debian's programs, adb's server in a network of its own, and the program that reaches it."""
    system = fetch()
    with tempfile.TemporaryDirectory(prefix="adb-") as folder, network(system, Path(folder)) as (process, program):
        yield system, process, program


@pytest.fixture
def off(server: tuple[Path, int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Phone]:
    """A device that is not plugged in; it has neither getprop nor dumpsys."""
    system, process, program = server
    monkeypatch.setenv(adb.PROGRAM_VARIABLE, str(program))
    phone = Phone(system, tmp_path / "phone", process, program)
    furnish(system, phone.root)
    phone.write_program("benchmark", BENCHMARK)
    yield phone
    phone.unplug()
    phone.call("disconnect")


@pytest.fixture
def bare(off: Phone) -> Phone:
    off.plug()
    return off


@pytest.fixture
def phone(bare: Phone) -> Phone:
    """A device that tells of itself as a Pixel does."""
    bare.write_program("getprop", GETPROP)
    bare.write_program("dumpsys", DUMPSYS)
    return bare


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "tiny.bundle")


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    path = tmp_path / "benchmark_model"
    path.write_bytes(elf())
    return path


@pytest.fixture
def bench(bundle: Path, binary: Path) -> Callable[..., Latency]:
    """A quick measurement with a trusted program."""
    return lambda **changes: bench_adb(**{"bundle": bundle, "benchmark_model": binary, "trust_binary": True, "quick": True} | changes)


def refused(kind: type[Exception], call: Callable, **changes: object) -> str:
    """Return the one line with which `call` refuses."""
    with pytest.raises(kind) as caught:
        call(**changes)
    line = str(caught.value)
    assert line.isprintable() and "\n" not in line and len(line) < 900
    return line


on_device = pytest.mark.xdist_group("adb")

# The whole measurement.


@on_device
def test_a_device_is_measured(phone: Phone, bundle: Path, bench: Callable[..., Latency]) -> None:
    lines: list[str] = []
    held = bench(threads=(1, 2), progress=lines.append)
    text = (bundle / "evidence/latency.json").read_text()
    assert Latency.model_validate_json(text) == held
    jsonschema.Draft202012Validator(Latency.model_json_schema()).validate(json.loads(text))
    open_bundle(bundle)
    [device] = held.devices
    assert held.host is None and device.name == "Google Pixel 8" and device.quick and not device.comparable
    assert device.plan == QUICK and device.samples is None and device.tolerance == 0.05
    assert SERIAL not in text and "SECRET123" not in text and device.command.startswith("melanoma-edge bench tiny.bundle --adb --benchmark-model ") and device.command.endswith(" --trust-binary --quick --threads 1,2") and str(bundle) not in text

    facts = device.facts
    assert (facts.manufacturer, facts.model, facts.soc, facts.android, facts.abi, facts.cores) == ("Google", "Pixel 8", "Google Tensor G3", "15 (SDK 35)", "x86_64", 4)
    assert facts.memory_bytes > 10**8
    assert facts.thermal_before == facts.thermal_after == "light"
    assert facts.temperatures_before == facts.temperatures_after == {"VIRTUAL-SKIN": 36.5, "BIG": 48.0}
    assert facts.battery_before == facts.battery_after == "83 %, charging over USB, 29.1 degrees Celsius"
    assert facts.benchmark == "trusted by its user" and facts.benchmark_sha256 == hashlib.sha256(elf()).hexdigest()
    assert len(facts.missing) == 3 and "parity on this device" in facts.missing[0]

    rows = [(row.name, row.accelerator, row.threads, row.status) for row in device.runtimes]
    assert rows == [
        ("benchmark_model", "cpu", 1, "timed"),
        ("benchmark_model", "cpu", 2, "timed"),
        ("benchmark_model", "gpu", 1, "timed"),
        ("benchmark_model", "gpu", 1, "not run"),
        ("benchmark_model", "nnapi", 1, "not run"),
        ("onnxruntime", "cpu", 1, "not run"),
    ]
    one, two, gpu, not_gpu, nnapi, onnx = device.runtimes
    assert [row.name for row in one.artifacts] == [row.name for row in two.artifacts] == [FLOAT, INT8]
    assert [row.name for row in gpu.artifacts] == [FLOAT]
    assert one.version == "2.18.0" and one.peak_memory_bytes == int(12.5 * 2**20) and one.affinity is None
    assert one.settings["delegated"] == "completely" and one.settings["delegate"] == "XNNPACK" and one.settings["options"] == "--num_threads=1 --use_xnnpack=true"
    assert one.settings["p50"] == "the median of the rounds' medians" and one.settings["input"] == "random numbers"
    assert one.settings["built for"] == "x86_64"
    assert not_gpu.reason == f"{INT8}: the GPU delegate took nothing of the graph: what was timed is the CPU"
    assert nnapi.reason == f"{FLOAT}, {INT8}: the device offers NNAPI no accelerator but nnapi-reference, which computes on the CPU"
    assert onnx.reason == "tiny-float32.onnx: benchmark_model runs TFLite only"
    for row in one.artifacts:
        assert row.runs == QUICK.runs and row.load_ms == 5.685 and row.first_ms == 1.853 and row.p90_ms is row.p99_ms is row.golden is row.energy_mj is None
        assert row.p50_ms == pytest.approx(1.001, abs=0.0011) and row.mean_ms == pytest.approx(row.p50_ms + 0.0005, abs=0.0011)
        assert len(row.round_medians_ms) == QUICK.processes and row.verdict == "stable" and row.drift is None
    assert two.artifacts[0].p50_ms == pytest.approx(0.501, abs=0.0011)
    assert one.artifacts[0].p50_ratio_to_float32 == 1.0

    calls = phone.calls()
    assert len(calls) == 8 + QUICK.rounds * 5, "a trial of each, then rounds of those that work"
    graphs = [call.split()[0].rpartition("-")[2] for call in calls[8:]]
    assert graphs[:4] == ["float32.tflite", "int8.tflite"] * 2 and graphs[5:9] != graphs[:4], "rounds begin with another artifact each"
    assert not phone.folder.exists()
    assert lines[0] == "copying benchmark_model and 2 artifacts to Google Pixel 8" and f"trying {FLOAT} on the GPU" in lines and "round 2 of 2" in lines


@on_device
def test_the_full_protocol_reaches_its_counts(phone: Phone, bench: Callable[..., Latency]) -> None:
    [device] = bench(quick=False, serial=SERIAL).devices
    assert (FULL.runs, FULL.seconds, FULL.rounds) == (1024, 3.0, 4)
    for row in device.runtimes[0].artifacts:
        assert row.runs == 1024 and len(row.round_medians_ms) == 4 and row.drift == pytest.approx(1, abs=0.003)
    assert device.comparable and not device.quick
    assert "--num_runs=256 --min_secs=0.75 --max_secs=150 --warmup_runs=50 --warmup_min_secs=0.5" in phone.calls()[-1]


@on_device
def test_noise_is_called_noise(phone: Phone, bench: Callable[..., Latency]) -> None:
    phone.set("noisy")
    [device] = bench(quick=False).devices
    assert "noisy: do not compare" in {row.verdict for row in device.runtimes[0].artifacts} and not device.comparable


@on_device
def test_what_the_device_does_not_tell_is_named(bare: Phone, bench: Callable[..., Latency]) -> None:
    [device] = bench().devices
    facts = device.facts
    assert device.name == "Android device of unknown model (x86_64)"
    assert facts.manufacturer is facts.model is facts.soc is facts.android is facts.abi is facts.thermal_before is facts.battery_after is None
    assert facts.temperatures_before == {"cpu-thermal": 41.2} and facts.cores == 4
    assert "manufacturer, model, SoC, Android version, ABI: the device has no getprop" in facts.missing
    assert "battery before the runs: dumpsys battery does not tell" in facts.missing


@on_device
def test_a_later_measurement_replaces_the_same_device_only(phone: Phone, bundle: Path, bench: Callable[..., Latency]) -> None:
    first = bench().devices[0]
    phone.write_program("getprop", GETPROP.replace("Pixel 8", "Pixel 9"))
    assert [device.name for device in bench().devices] == ["Google Pixel 8", "Google Pixel 9"]
    held = bench()
    assert [device.name for device in held.devices] == ["Google Pixel 8", "Google Pixel 9"] and held.devices[0] == first


@on_device
def test_what_was_measured_of_this_host_stays(phone: Phone, bundle: Path, bench: Callable[..., Latency]) -> None:
    load, preprocessing = (0.0, 0.0, 0.0), Preprocessing(picture="golden/0.png", runs=1, p50_ms=1.0, p90_ms=1.0)
    figures = {"quick": True, "comparable": False, "command": "", "date": "", "plan": QUICK, "tolerance": 0.05, "threads": (1,), "load_average_before": load, "load_average_after": load}
    others = {"conditions": host(), "preprocessing": preprocessing, "energy": Energy(status="not run", note=""), "cross_checks": (), "runtimes": ()}
    kept = keep_host(open_bundle(bundle), [], **figures, **others).host
    held = bench()
    assert held.host == kept is not None and len(held.devices) == 1
    assert (bundle / "evidence/latency-samples.json.gz").exists()


# What delegates took.


@on_device
@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("no-gpu", "benchmark_model applied no GPU delegate on this device (GPU acceleration is unsupported on this platform.)"),
        ("unknown-option", "this benchmark_model has no --use_gpu"),
        ("flaky", "the GPU delegate took the graph"),
    ],
)
def test_times_without_the_gpu_are_not_the_gpus(phone: Phone, bench: Callable[..., Latency], mode: str, expected: str) -> None:
    phone.set(mode)
    rows = [row for row in bench().devices[0].runtimes if row.accelerator == "gpu"]
    assert all(row.status == "not run" and row.artifacts == () for row in rows)
    if mode == "flaky":
        expected = "benchmark_model applied no GPU delegate on this device"
    assert any(FLOAT in row.reason and row.reason.endswith(expected) for row in rows)


@on_device
def test_a_graph_taken_in_part_says_so(phone: Phone, bench: Callable[..., Latency]) -> None:
    phone.set("part")
    gpu = next(row for row in bench().devices[0].runtimes if row.accelerator == "gpu" and row.status == "timed")
    assert gpu.settings["delegated"] == f"partially, in 2 parts: {FLOAT}"


@on_device
def test_an_accelerator_of_nnapi_is_timed_and_named(phone: Phone, bench: Callable[..., Latency]) -> None:
    phone.set("npu")
    nnapi = next(row for row in bench().devices[0].runtimes if row.accelerator == "nnapi")
    assert nnapi.status == "timed" and nnapi.settings["accelerators"] == "google-edgetpu, nnapi-reference"


@on_device
def test_an_old_benchmark_model_gives_means(phone: Phone, bench: Callable[..., Latency]) -> None:
    phone.set("old")
    cpu, gpu = bench().devices[0].runtimes[:2]
    assert cpu.version is None and cpu.settings["p50"] == "the median of the rounds' means, for want of medians" and cpu.settings["delegated"] == "completely"
    assert gpu.accelerator == "gpu" and gpu.status == "timed" and gpu.settings["delegated"] == "completely"


# What goes wrong on the device.


@on_device
@pytest.mark.parametrize(("mode", "expected"), [("crash", "exit code 1 (Failed to allocate tensors!)"), ("killed", "exit code 137")])
def test_models_that_do_not_run_are_said(phone: Phone, bundle: Path, bench: Callable[..., Latency], mode: str, expected: str) -> None:
    phone.set(mode)
    before = snapshot(bundle)
    assert expected.replace("Failed to allocate tensors!", "Node number 3 (CONV_2D) failed to prepare.") in refused(BadInput, bench)
    assert snapshot(bundle) == before and not phone.folder.exists()


@on_device
@pytest.mark.parametrize("output", ["", "INFO: STARTING!\n", "Inference timings in us: Init: nan, First inference: -1\n", "\0\x1b[31m\n" * 50], ids=["empty", "begun", "nan", "control"])
def test_an_output_that_is_none_is_refused(phone: Phone, bundle: Path, bench: Callable[..., Latency], output: str) -> None:
    bench()
    phone.set("hostile")
    (phone.root / "data/test/output").write_text(output)
    before = snapshot(bundle)
    assert refused(BadInput, bench).startswith("benchmark_model printed 0 lines `Inference timings in us: ...`: expected one")
    assert snapshot(bundle) == before and not phone.folder.exists()


@on_device
def test_an_output_without_end_is_stopped(phone: Phone, bundle: Path, bench: Callable[..., Latency]) -> None:
    phone.set("endless")
    assert "printed more than 4 MiB and was stopped" in refused(BadInput, bench)
    assert not phone.folder.exists() and not (bundle / "evidence").exists()


@on_device
def test_a_program_for_another_system_is_refused(phone: Phone, bench: Callable[..., Latency], binary: Path) -> None:
    (phone.root / "system/bin/benchmark").unlink()
    assert "the device cannot start benchmark_model" in refused(BadInput, bench)


@on_device
def test_a_device_that_goes_away_costs_nothing_but_this(phone: Phone, bundle: Path, bench: Callable[..., Latency]) -> None:
    bench()
    before = snapshot(bundle)
    phone.set("hang-later")

    def unplug(line: str) -> None:
        if line.startswith("round 1"):
            subprocess.Popen(["sh", "-c", f"while [ ! -e {phone.root}/data/test/started ]; do sleep 0.05; done; kill -9 {phone.process.pid}"])

    line = refused(Missing, bench, progress=unplug)
    assert Missing.exit_code == 3 and line.startswith(f"the device {SERIAL} went away (") and "plug it in" in line
    assert snapshot(bundle) == before
    phone.process.wait()

    assert phone.folder.exists(), "nobody could remove it"
    phone.set("")
    phone.plug()
    assert len(bench().devices) == 1 and not phone.folder.exists()


INTERRUPTED = """
    import sys
    from pathlib import Path
    from melanoma_edge.cli.stopping import tidy_up_when_stopped
    from melanoma_edge.proof.bench_adb import bench_adb
    tidy_up_when_stopped()
    bench_adb(Path(sys.argv[1]), benchmark_model=Path(sys.argv[2]), trust_binary=True, quick=True)
"""


@on_device
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_nothing_on_the_device(phone: Phone, bundle: Path, binary: Path, number: signal.Signals) -> None:
    phone.set("hang")
    before = snapshot(bundle)
    command = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), str(bundle), str(binary)]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}, stderr=subprocess.PIPE) as process:
        try:
            deadline = time.monotonic() + 60
            while not (phone.root / "data/test/started").exists():
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.02)
            assert (phone.folder / f"0-{FLOAT}").exists() and "benchmark" in phone.call("-s", SERIAL, "shell", "ps -A -o ARGS")
            process.send_signal(number)
            assert process.wait(60) != 0
        finally:
            process.kill()
    assert not phone.folder.exists() and snapshot(bundle) == before
    assert "/system/bin/benchmark" not in phone.call("-s", SERIAL, "shell", "ps -A -o ARGS")


@on_device
def test_one_device_is_measured_by_one_command(phone: Phone, bench: Callable[..., Latency]) -> None:
    with adb.workplace(Device(SERIAL)):
        assert refused(BadInput, bench) == f"another command measures on the device {SERIAL}: wait until it has ended, and run the command again"


# Which device.


@on_device
def test_no_device(off: Phone, bench: Callable[..., Latency]) -> None:
    assert refused(Missing, bench).startswith("adb lists no device: plug in a phone with USB debugging switched on")


@on_device
def test_two_devices(phone: Phone, bench: Callable[..., Latency]) -> None:
    phone.connect(SECOND)
    line = refused(BadInput, bench)
    assert line == f"adb lists 2 devices, {SERIAL} (device), {SECOND} (device): name the one that is meant, as in --adb {SERIAL}"
    assert bench(serial=SECOND).devices[0].name == "Google Pixel 8"
    assert refused(Missing, bench, serial="nothere; reboot").startswith("adb lists no device 'nothere; reboot', but ")


@on_device
@pytest.mark.parametrize(("state", "remedy"), [("unauthorized", "accept `Allow USB debugging` there"), ("offline", "unplug it and plug it in again")])
def test_a_device_that_takes_no_commands(off: Phone, bench: Callable[..., Latency], state: str, remedy: str) -> None:
    with subprocess.Popen(["nsenter", f"--net=/proc/{off.network}/ns/net", sys.executable, "-c", REFUSING, state]) as process:
        try:
            off.connect(REFUSING_SERIAL, state)
            line = refused(Missing, bench)
        finally:
            process.kill()
    assert line.startswith(f"adb lists the device {REFUSING_SERIAL} as `{state}`, expected `device`: ") and remedy in line


def test_without_adb(bench: Callable[..., Latency], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(adb.PROGRAM_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "adb is not on PATH: install it" in refused(Missing, bench)
    monkeypatch.setenv(adb.PROGRAM_VARIABLE, str(tmp_path / "none"))
    assert "which is no program that can be run" in refused(Missing, bench)
    (tmp_path / "adb").write_text("#!/nothing\n")
    (tmp_path / "adb").chmod(0o755)
    monkeypatch.delenv(adb.PROGRAM_VARIABLE)
    assert "adb cannot be started (No such file or directory)" in refused(Missing, bench)
    (tmp_path / "adb").write_text("#!/bin/sh\necho 'error: cannot connect to daemon' >&2\nexit 1\n")
    assert "adb does not work (cannot connect to daemon)" in refused(Missing, bench)


# Commands and files.


@on_device
def test_words_reach_the_device_as_they_are(bare: Phone) -> None:
    device = Device(SERIAL)
    words = ["a b", "$(touch /data/pwned)", "'", '"', ";reboot", "*", "\\n", "ä", "-n", "", "`id`"]
    done = device.shell("printf", "[%s]\\n", *words)
    assert done.out.splitlines() == [f"[{word}]" for word in words] and not (bare.root / "data/pwned").exists()
    assert device.script('echo "$2$1"; echo no >&2; exit 200', "a b", "c") == adb.Output(200, "ca b\n", "no\n")
    assert device.shell("nosuchprogram").code == 127
    with pytest.raises(adb.TimedOut, match="did not end within 0.5 s"):
        device.shell("sleep", "30", seconds=0.5)


@on_device
def test_files_are_compared_by_hash(phone: Phone, bundle: Path, bench: Callable[..., Latency], tmp_path: Path) -> None:
    device, new = Device(SERIAL), tmp_path / "new model.tflite"
    new.write_bytes(b"new model")
    expected = hashlib.sha256(b"new model").hexdigest()
    there = f"{FOLDER}/it's.tflite"
    with adb.workplace(device):
        (phone.folder / "it's.tflite").write_bytes(b"old model")
        assert device.push({there: (new, expected)}) == [there] and (phone.folder / "it's.tflite").read_bytes() == b"new model"
        assert device.push({there: (new, expected)}) == []
        with pytest.raises(Missing, match="arrived on the device .* as another file .it changed here meanwhile."):
            device.push({there: (new, "0" * 64)})
        with pytest.raises(Missing, match="cannot be copied to the device"):
            device.push({"/proc/nothing": (new, expected)})
    assert not phone.folder.exists()

    phone.folder.mkdir()
    left = phone.folder / f"0-{FLOAT}"
    left.write_bytes(bytes((bundle / FLOAT).stat().st_size))
    phone.write_program("benchmark", BENCHMARK.replace('cat "$graph" > /dev/null', 'sha256sum "$graph" >> /data/test/sums'))
    bench()
    sums = {line.split()[0] for line in (phone.root / "data/test/sums").read_text().splitlines()}
    assert sums == {hashlib.sha256((bundle / name).read_bytes()).hexdigest() for name in (FLOAT, INT8)}


@on_device
def test_a_device_without_sha256sum(phone: Phone, bench: Callable[..., Latency]) -> None:
    (phone.root / "bin/sha256sum").unlink()
    assert "has no sha256sum" in refused(Missing, bench)


@on_device
def test_threads_above_the_cores_are_refused(phone: Phone, bench: Callable[..., Latency]) -> None:
    assert refused(BadInput, bench, threads=(1, 8)) == "threads are 1, 8: expected 1..4, the cores of Google Pixel 8"
    assert "expected one or more numbers of 1 and above" in refused(BadInput, bench, threads=(0,))
    assert not phone.calls()


# The program.


@on_device
def test_a_known_program_has_its_name(phone: Phone, bench: Callable[..., Latency], monkeypatch: pytest.MonkeyPatch) -> None:
    line = refused(BadInput, bench, trust_binary=False)
    assert hashlib.sha256(elf()).hexdigest() in line and "--trust-binary" in line and not phone.calls()
    monkeypatch.setitem(benchmark_binary.KNOWN, hashlib.sha256(elf()).hexdigest(), "LiteRT 2.0, x86-64")
    assert bench(trust_binary=False).devices[0].facts.benchmark == "LiteRT 2.0, x86-64"


@on_device
@pytest.mark.parametrize(("machine", "name"), [(183, "arm64-v8a"), (40, "armeabi-v7a"), (243, "riscv64")])
def test_a_program_for_another_processor_is_refused(phone: Phone, bench: Callable[..., Latency], binary: Path, machine: int, name: str) -> None:
    content = bytearray(elf(machine))
    content[4] = 1 if machine == 40 else 2
    binary.write_bytes(content)
    line = refused(BadInput, bench)
    assert line == f"{binary} is built for {name}, and Google Pixel 8 runs x86_64, x86: get the benchmark_model built for Android on x86_64" and not phone.calls()


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\necho\n", b"<!doctype html>", b"PK\x03\x04", b"\x7fELF", elf()[:40], elf(machine=8), b"\x7fELF\x01" + elf()[5:]], ids=range(8))
def test_what_is_no_program_is_refused_even_when_trusted(bench: Callable[..., Latency], binary: Path, content: bytes) -> None:
    binary.write_bytes(content)
    assert "name the file of benchmark_model, built for Android" in refused(BadInput, bench)


def test_what_is_no_file_is_refused(bench: Callable[..., Latency], tmp_path: Path) -> None:
    assert "is not a file" in refused(BadInput, bench, benchmark_model=tmp_path)
    assert "cannot be read (No such file or directory)" in refused(BadInput, bench, benchmark_model=tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    assert "is not a file" in refused(BadInput, bench, benchmark_model=tmp_path / "pipe")


def test_a_bundle_without_tflite_is_refused(bench: Callable[..., Latency], bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["artifacts"] = [artifact for artifact in manifest["artifacts"] if artifact["format"] == "onnx"]
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert "has no TFLite artifact" in refused(BadInput, bench)


# The tool's output.

NEW = """INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Use NNAPI: [1]
INFO: NNAPI accelerators available: [google-edgetpu,nnapi-reference]
INFO: Initialized TensorFlow Lite runtime.
INFO: Created TensorFlow Lite delegate for NNAPI.
VERBOSE: Replacing 54 out of 559 node(s) with delegate (TfLiteNnapiDelegate) node, yielding 3 partitions for the whole graph.
INFO: Explicitly applied NNAPI delegate, and the model graph will be partially executed by the delegate w/ 11 delegate kernels.
INFO: Though XNNPACK delegate is explicitly applied, the model graph will not be executed by the delegate.
INFO: count=1 curr=905463 p5=905463 median=905463 p95=905463

INFO: count=50 first=900416 curr=898333 min=898007 max=906121 avg=899641 std=1549 p5=898333 median=899281 p95=904305

INFO: Inference timings in us: Init: 614333, First inference: 905463, Warmup (avg): 905463, Inference (avg): 899641
INFO: Overall peak memory footprint (MB) via periodic monitoring: 66.5
"""
OLD = """STARTING!
Loaded model /data/local/tmp/m.tflite
Applied GPU delegate, and the model graph will be completely executed w/ the delegate.
count=56 first=11147 curr=8146 min=7055 max=12036 avg=8779.68 std=1115

count=110 first=8325 curr=10016 min=7033 max=12036 avg=8856.53 std=1000

Inference timings in us: Init: 5685, First inference: 11147, Warmup (avg): 8779.68, Inference (avg): 8856.53
"""


def test_forms_of_the_output() -> None:
    new, old = parse(NEW), parse(OLD)
    assert (new.init_us, new.first_us, new.mean_us, new.median_us, new.runs) == (614333, 905463, 899641, 899281, 50) and new.centre_us == 899281
    assert new.delegates == {"NNAPI": Delegation("partially", 11), "XNNPACK": Delegation("not at all")}
    assert new.accelerators == ("google-edgetpu", "nnapi-reference") and new.peak_memory_bytes == int(66.5 * 2**20)
    assert (old.mean_us, old.median_us, old.runs, old.centre_us) == (8856.53, None, 110, 8856.53) and old.delegates == {"GPU": Delegation("completely")}
    assert parse(OLD.replace("\n", "\r\n")) == old
    large = NEW.replace("906121 avg=899641", "10500000 avg=1.00135e+07").replace("median=899281", "median=10013451").replace("(avg): 899641", "(avg): 1.00135e+07")
    assert parse(large).mean_us == 10013500
    same = OLD.replace("count=110 first=8325 curr=10016 min=7033 max=12036 avg=8856.53 std=1000", "count=110 curr=70(all same)").replace("(avg): 8856.53", "(avg): 70")
    assert parse(same).median_us == 70 and parse(same).runs == 110


def test_what_a_way_makes_of_a_report() -> None:
    cpu, gpu, nnapi = benchmark_model.ways((2,))
    assert cpu.refusal(parse(NEW)) is None and cpu.delegation(parse(NEW)).took == "not at all"
    assert "applied no GPU delegate" in gpu.refusal(parse(NEW)) and nnapi.refusal(parse(NEW)) is None
    assert gpu.refusal(parse(OLD)) is None and benchmark_model.ways((4, 1, 4)) == (Way("cpu", 4), Way("cpu", 1), Way("gpu", 1), Way("nnapi", 1))


@pytest.mark.parametrize(
    "output",
    [
        NEW + NEW,
        NEW.replace("Inference (avg): 899641", "Inference (avg): 1"),
        NEW.replace("median=899281", "median=5"),
        NEW.replace("Init: 614333", "Init: 1e999"),
        NEW.replace("count=50", "count=0"),
        NEW.replace("count=1 curr", "cnt=1 curr"),
        NEW.replace("Though XNNPACK", "Though NNAPI"),
        NEW.replace("avg=899641", "avg=-nan"),
        NEW.replace("Inference (avg): 899641", "Inference (avg): nan"),
    ],
)
def test_contradictions_are_refused(output: str) -> None:
    assert "use another build" in refused(BadInput, lambda: parse(output)) or "count=0" in output


fragments = st.sampled_from(NEW.splitlines() + OLD.splitlines())
numbers = st.one_of(st.integers(-5, 10**25), st.floats(), st.sampled_from(["1e999", "٣", "9" * 5000, "1.2.3", "", "(all same)"])).map(str)


@given(st.one_of(st.text(), st.lists(st.one_of(fragments, st.text()), max_size=40).map("\n".join), st.lists(st.tuples(fragments, st.integers(0, 200), numbers), max_size=12)))
@example("Inference timings in us: Init: 1, First inference: 1, Warmup (avg): 1, Inference (avg): 1")
def test_any_output_gives_a_report_or_one_line(output: str | list) -> None:
    text = output if isinstance(output, str) else "\n".join(line[: at % (len(line) + 1)] + number + line[at % (len(line) + 1) :] for line, at, number in output)
    try:
        report = parse(text)
    except BadInput as error:
        assert str(error).isprintable() and len(str(error)) < 600
    else:
        assert report.runs >= 1 and report.centre_us >= 0 and report.mean_us >= 0


@given(st.text(), st.text())
def test_any_word_of_a_device_is_taken(before: str, after: str) -> None:
    noise = f"{before}Current temperatures from HAL:{after}\nTemperature{{mValue={after}, mType=3, mName={before},\nThermal Status: {after}"
    for degrees in (adb_facts.hal_temperatures(noise), adb_facts.zone_temperatures(f"{before}={after}\n{after}=42000")):
        assert all(name.isprintable() and -40 <= value <= 150 for name, value in degrees.items())
    adb_facts.thermal_status(noise)
    assert (adb_facts.battery_in_words(f"Current Battery Service state:\n  level: {before}\n  {after}") or "x").isprintable()
