"""`bench --phone`, with a real Chromium that shows itself as a phone, on loopback and over a network."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import phone_visitor
import pytest
from conftest import Cli, read_json, validate
from hypothesis import given, settings
from hypothesis import strategies as st
from test_page_server import FakePage
from tiny_bundle import write_bundle

from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.files import sha256_file
from melanoma_edge.proof import latency_file, phone_facts
from melanoma_edge.proof.phone_device import QUICK
from melanoma_edge.runtimes.page_server import WEB, PageFailed

pytest.importorskip("playwright")
pytestmark = pytest.mark.xdist_group("phone")
RUNS = ("litert-browser", "onnxruntime-browser")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "tiny.bundle")


@contextmanager
def serving(cli: Cli, bundle: Path, *options: object) -> Iterator[tuple[subprocess.Popen, str, Path]]:
    """Start `bench --phone` and yield the process, the address that it shows, and the file with its standard error."""
    err = bundle.parent / "err.txt"
    with open(err, "wb") as stream:
        process = cli.start("bench", bundle, "--phone", "--quick", "--json", *options, stderr=stream)
    try:
        yield process, phone_visitor.address(err, process), err
    finally:
        process.kill()
        process.communicate()


def last_line(err: Path) -> str:
    text = err.read_text(encoding="utf-8")
    assert "Traceback" not in text, text
    return text.splitlines()[-1]


def test_a_phone_is_measured_checked_and_kept(browser: str, cli: Cli, bundle: Path, tmp_path: Path) -> None:
    cli("bench", bundle, "--quick", "-q")
    host = read_json(bundle / "evidence" / "latency.json")["host"]
    with serving(cli, bundle) as (process, url, err):
        assert url.startswith("http://127.0.0.1:")
        with phone_visitor.opened(url, slower=2) as page:
            line = phone_visitor.wait(page)
            out, _ = process.communicate(timeout=60)
            assert line.startswith("Done") and page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing has to be scrolled sideways"
            shown = page.inner_text("#results")
            page.screenshot(path=tmp_path / "phone.png", full_page=True)
    assert process.returncode == 0, err.read_text()
    held = json.loads(out)
    validate(held, "latency")
    assert held == read_json(bundle / "evidence" / "latency.json") and held["host"] == host
    [device] = held["devices"]
    facts = device["facts"]
    assert facts["touch"] and facts["secure_context"] and facts["cross_origin_isolated"] and "Pixel 7" in facts["user_agent"] and facts["screen"].startswith("412 x ")
    assert device["name"].startswith("Android, Chrome ") and device["quick"] and not device["comparable"] and device["command"] == "melanoma-edge bench tiny.bundle --phone --quick"
    timed = {(row["name"], row["threads"]): row for row in device["runtimes"] if row["status"] == "timed"}
    counts = sorted({1, min(4, facts["cores"])})
    assert set(timed) == {(name, count) for name in RUNS for count in counts}
    samples = gzip.decompress((bundle / "evidence" / device["samples"]).read_bytes())
    assert hashlib.sha256((bundle / "evidence" / device["samples"]).read_bytes()).hexdigest() == device["samples_sha256"]
    raw = {(row["runtime"], row["threads"]): row["artifacts"] for row in json.loads(samples)["rows"]}
    for key, row in timed.items():
        for artifact in row["artifacts"]:
            golden = artifact["golden"]
            assert golden["outcome"] == "passed" and golden["top1_agreement"] == 1.0 and golden["pictures"] > 0
            assert artifact["runs"] >= 60 and 0 < artifact["p50_ms"] and artifact["sha256"] == sha256_file(bundle / artifact["name"])
            assert artifact["p90_ms"] is None or artifact["p50_ms"] <= artifact["p90_ms"] <= artifact["p99_ms"]
            assert artifact["p50_ms"] == pytest.approx(np.median(np.concatenate(raw[key][artifact["name"]][0])) / 1000, abs=1e-3)
            assert f"{artifact['p50_ms']:.2f}" in shown
    assert all(row["reason"] for row in device["runtimes"] if row["status"] == "not run")
    assert (tmp_path / "phone.png").stat().st_size > 10_000
    text = " ".join(cli("bench", bundle, "--quick", "-q").out.split())
    assert "latency of Android, Chrome" in text, "a later measurement of the host leaves the device's"
    page = Path(cli("report", bundle, "-q").out.strip())
    assert device["name"] in page.read_text(encoding="utf-8") and "What is missing there" in page.read_text(encoding="utf-8")


def over_the_network(bundle: Path, *options: str) -> tuple[dict, dict]:
    """Measure over a network of its own; return the device and what the page knew."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode:
        pytest.skip("needs root and unshare, to make a network of its own")
    done = subprocess.run(["unshare", "--net", sys.executable, phone_visitor.__file__, str(bundle), *options], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["devices"][-1], json.loads(done.stderr.splitlines()[-1])


def test_plain_http_on_a_network_works_with_one_thread_and_says_what_is_missing(browser: str, bundle: Path) -> None:
    device, told = over_the_network(bundle)
    assert not told["secure"] and not told["isolated"] and told["line"].startswith("Done") and f"http://{phone_visitor.ADDRESS}:" in told["err"]
    missing = " ".join(device["facts"]["missing"])
    for word in ("threads: ", "SHA-256", "keeping the screen on", "WebGPU", "--tls", "a fine clock: its step is 100 microseconds"):
        assert word in missing, word
    assert {(row["name"], row["threads"]) for row in device["runtimes"] if row["status"] == "timed"} == {(name, 1) for name in RUNS}
    assert all(artifact["golden"]["outcome"] == "passed" for row in device["runtimes"] for artifact in row["artifacts"])
    grouped = [row for row in device["runtimes"] if row["status"] == "timed"]
    assert all(artifact["p90_ms"] is None for row in grouped for artifact in row["artifacts"]), "percentiles of means would be too small"
    assert all("inferences a sample" in row["settings"] for row in grouped), "a clock of 100 microseconds cannot time an inference that takes less"
    assert device["command"] == "melanoma-edge bench tiny.bundle --phone --host ADDRESS --quick" and phone_visitor.ADDRESS not in json.dumps(device)


def test_a_gpu_is_measured_and_its_numbers_are_checked(browser: str, cli: Cli, bundle: Path) -> None:
    with serving(cli, bundle, "--threads", "1") as (process, url, err):
        with phone_visitor.opened(url, gpu=True) as page:
            phone_visitor.wait(page)
        out, _ = process.communicate(timeout=60)
    [device] = json.loads(out)["devices"]
    if device["facts"]["gpu"] is None:
        pytest.skip("this browser has no WebGPU without a GPU")
    assert "swiftshader" in device["facts"]["gpu"].lower()
    litert, onnx = (next(row for row in device["runtimes"] if (row["name"], row["accelerator"]) == (name, "webgpu")) for name in RUNS)
    [row] = onnx["artifacts"]
    assert row["precision"] == "float32" and row["golden"]["outcome"] == "passed" and row["p50_ms"] > 0
    # These models multiply a picture as it is, which is no matrix: LiteRT's GPU kernels take that for something else, and are found out.
    outcomes = {row["golden"]["outcome"] for row in litert["artifacts"]}
    assert all((row["golden"]["outcome"] == "failed") == (row["golden"]["max_difference"] > 0.05) for row in litert["artifacts"]) and litert["status"] == "timed"
    assert process.returncode == ("failed" in outcomes)
    if "failed" in outcomes:
        assert "computes other numbers than the bundle says" in last_line(err) and not device["comparable"]


def test_tls_gives_a_phone_on_the_network_what_it_lacks(browser: str, bundle: Path) -> None:
    device, told = over_the_network(bundle, "--tls", "--threads", "1,2", "--device-name", "my phone")
    assert told["secure"] and told["isolated"] and f"https://{phone_visitor.ADDRESS}:" in told["err"] and "SHA-256 fingerprint" in told["err"]
    assert device["name"] == "my phone" and "SHA-256" not in " ".join(device["facts"]["missing"])
    if device["facts"]["cores"] >= 2:
        assert {(row["name"], row["threads"]) for row in device["runtimes"] if row["status"] == "timed"} == {(name, count) for name in RUNS for count in (1, 2)}


def test_other_numbers_on_the_phone_are_a_failed_proof(browser: str, cli: Cli, bundle: Path) -> None:
    golden, manifest = read_json(bundle / "golden" / "golden.json"), read_json(bundle / "manifest.json")
    [name] = [artifact["name"] for artifact in manifest["artifacts"] if artifact["format"] == "onnx"]
    golden["logits"][name][0][0] += 5
    (bundle / "golden" / "golden.json").write_text(json.dumps(golden), encoding="utf-8")
    manifest["files"]["golden/golden.json"] = sha256_file(bundle / "golden" / "golden.json")
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with serving(cli, bundle, "--threads", "1") as (process, url, err):
        with phone_visitor.opened(url) as page:
            assert phone_visitor.wait(page).startswith("Done") and "✕ NO" in page.inner_text("#results")
        process.communicate(timeout=60)
    assert process.returncode == 1 and f"computes other numbers than the bundle says: {name} in onnxruntime-browser" in last_line(err)
    [device] = read_json(bundle / "evidence" / "latency.json")["devices"]
    assert not device["comparable"]
    assert {artifact["name"]: artifact["golden"]["outcome"] for row in device["runtimes"] for artifact in row["artifacts"]}[name] == "failed"


def test_two_phones_that_are_called_alike_are_two(tmp_path: Path) -> None:
    bundle = open_bundle(write_bundle(tmp_path / "tiny.bundle"))
    for cores in (4, 8, 4):
        facts = phone_facts.parse(json.dumps(TOLD | {"user_agent": "Android Chrome/141", "cores": cores}).encode())
        figures = {"quick": True, "comparable": False, "command": "", "date": str(cores), "plan": QUICK, "tolerance": 0.05, "runtimes": ()}
        held = latency_file.keep_device(bundle, None, name=phone_facts.name_of(facts), facts=facts, **figures)
    assert [(device.name, device.facts.cores) for device in held.devices] == [("Android, Chrome 141 (2)", 8), ("Android, Chrome 141", 4)]


def test_evidence_that_cannot_be_read_is_not_replaced(browser: str, cli: Cli, bundle: Path) -> None:
    (bundle / "evidence").mkdir()
    (bundle / "evidence" / "latency.json").write_text('{"schema_version": 3}', encoding="utf-8")
    for options in (["--quick"], ["--phone", "--wait", "1"]):
        assert "latency.json is no latency.json of a version that this one knows" in cli.refused("bench", bundle, *options, "-q")
    assert (bundle / "evidence" / "latency.json").read_text(encoding="utf-8") == '{"schema_version": 3}'


def test_bytes_that_are_not_the_artifact_s_are_not_run(browser: str, cli: Cli, bundle: Path) -> None:
    with serving(cli, bundle, "--threads", "1") as (process, url, err):
        name = "tiny-int8.tflite"
        content = bytearray((bundle / name).read_bytes())
        content[-1] ^= 1
        (bundle / name).write_bytes(content)
        with phone_visitor.opened(url) as page:
            phone_visitor.wait(page)
            assert "the bytes that came are not the artifact's" in page.inner_text("#missing")
        out, _ = process.communicate(timeout=60)
    [device] = json.loads(out)["devices"]
    assert process.returncode == 0 and f"{name} did not run in LiteRT.js, 1 thread: the bytes that came" in " ".join(device["facts"]["missing"])
    assert name not in {artifact["name"] for row in device["runtimes"] for artifact in row["artifacts"]}


def goes_away(cli: Cli, bundle: Path, package: str) -> tuple[subprocess.Popen, str, str]:
    """Measure a phone that closes the page as soon as it fetches files of `package`; return the ended process, its output and the last line of its errors."""
    with serving(cli, bundle, "--threads", "1") as (process, url, err):
        with phone_visitor.opened(url, tap=False) as page:
            with page.expect_request(f"**/node_modules/{package}/**", timeout=60_000):
                page.tap("#start")
            page.close()
            out, _ = process.communicate(timeout=60)
    return process, out, last_line(err)


def test_a_phone_that_goes_away_at_once_leaves_the_evidence_as_it_was(browser: str, cli: Cli, bundle: Path) -> None:
    cli("bench", bundle, "--quick", "-q")
    before = {file.name: sha256_file(file) for file in (bundle / "evidence").iterdir()}
    process, _, said = goes_away(cli, bundle, "@litertjs")
    assert process.returncode == 3 and "the device was lost: the page was closed" in said
    assert {file.name: sha256_file(file) for file in (bundle / "evidence").iterdir()} == before


def test_what_a_phone_had_done_when_it_went_away_is_kept(browser: str, cli: Cli, bundle: Path) -> None:
    process, out, said = goes_away(cli, bundle, "onnxruntime-web")
    assert process.returncode == 3 and "was lost before the end: what it had done is kept" in said
    [device] = json.loads(out)["devices"]
    litert, onnx = (next(row for row in device["runtimes"] if row["name"] == name and row["accelerator"] == "cpu") for name in RUNS)
    assert litert["status"] == "timed" and litert["artifacts"] and not device["complete"] and not device["comparable"]
    assert onnx["status"] == "not run" and onnx["reason"] == "the device was lost before this was done"
    assert "the device was lost before the end (the page was closed" in device["facts"]["missing"][-1]
    assert "lost before" in cli("report", bundle, "--out", bundle.parent / "report.html", "-q").out + (bundle.parent / "report.html").read_text(encoding="utf-8")


def test_the_code_on_the_terminal_is_the_address(browser: str, cli: Cli, bundle: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 120, 0, 0))
    process = cli.start("bench", bundle, "--phone", "--wait", "60", stderr=theirs, env={"TERM": "xterm"})
    os.close(theirs)
    try:
        shown = ""
        while "there." not in shown:
            shown += os.read(ours, 65536).decode("utf-8", "replace")
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
        halves = {" ": (0, 0), "█": (255, 255), "▀": (255, 0), "▄": (0, 255)}
        rows = [line for line in re.split(r"[\r\n]+", plain) if len(line) > 20 and set(line) <= set(halves)]
        pixels = np.array([[halves[character][half] for character in line.ljust(len(rows[0]))] for line in rows for half in (0, 1)], np.uint8)
        # OpenCV's detector misses one code in 150 at any one scale.
        scaled = (np.kron(np.pad(pixels, 4, constant_values=255), np.ones((scale, scale), np.uint8)) for scale in (8, 5, 3, 10))
        found = next(filter(None, (cv2.QRCodeDetector().detectAndDecode(code)[0] for code in scaled)), "")
        assert found and found in plain and found.startswith("http://127.0.0.1:")
    finally:
        process.kill()
        process.communicate()
        os.close(ours)


def test_no_phone_an_interrupt_and_a_page_that_lies_end_in_one_line(browser: str, cli: Cli, bundle: Path) -> None:
    assert "no device opened the page within 1 s" in cli("bench", bundle, "--phone", "--wait", "1", "-q", code=3).err.splitlines()[-1]
    with serving(cli, bundle) as (process, _, err):
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130 and "interrupted" in last_line(err)
    with serving(cli, bundle) as (process, url, err):
        liar = FakePage(url)
        assert liar.next()["kind"] == "facts" and liar.post("answer/1", b'{"cores": -1}') == 204
        process.communicate(timeout=30)
    assert process.returncode == 3 and "the device was lost: it said nothing of itself that can be understood" in last_line(err)
    assert not (bundle / "evidence" / "latency.json").exists()


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--tls"], "--tls is for measuring a phone"),
        (["--host", "0.0.0.0"], "--host is for measuring a phone"),
        (["--phone", "--runtime", "litert"], "--runtime is for runtimes of this machine"),
        (["--phone", "--adb"], "give one of them"),
        (["--wait", "5"], "--wait is for measuring a phone"),
        (["--adb"], "name benchmark_model"),
        (["--trust-binary"], "add --adb"),
        (["--phone", "--threads", "0"], "threads is 0"),
        (["--phone", "--host", "::"], "names no address that a phone could open"),
        (["--threads", "a,b"], "is no list of numbers"),
        (["--threads", ","], "no number of threads"),
    ],
)
def test_options_that_make_no_sense_are_refused(browser: str, cli: Cli, bundle: Path, options: list[str], found: str) -> None:
    assert found in cli.refused("bench", bundle, *options, "-q")


def test_an_address_of_another_machine_is_refused(browser: str, cli: Cli, bundle: Path) -> None:
    assert "nothing can be served at 203.0.113.9" in cli.refused("bench", bundle, "--phone", "--host", "203.0.113.9", "-q", code=3)


def test_the_page_s_own_sha256_is_the_standard_s() -> None:
    if shutil.which("node") is None:
        pytest.skip("needs node, to run JavaScript without a browser")
    sizes = [*range(0, 130), 1000, 65_537, 1_000_003]
    contents = [np.random.default_rng(size).bytes(size) for size in sizes]
    code = f"import {{ computed }} from {json.dumps((WEB / 'sha256.js').as_uri())}; const lines = (await import('node:fs')).readFileSync(0, 'utf8').trim().split('\\n'); console.log(lines.map((line) => computed(Buffer.from(line.slice(1), 'hex'))).join('\\n'));"
    done = subprocess.run(["node", "--input-type=module", "-e", code], input="\n".join(f"x{content.hex()}" for content in contents), capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == [hashlib.sha256(content).hexdigest() for content in contents], done.stderr


@pytest.mark.parametrize(
    ("user_agent", "browser", "system"),
    [
        ("Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Mobile Safari/537.36", "Chrome 141", "Android"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1", "Safari 18", "iPhone"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/141.0 Mobile/15E148 Safari/604.1", "Chrome 141", "iPhone"),
        ("Mozilla/5.0 (Linux; Android 14; SAMSUNG SM-S921B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/27.0 Chrome/125.0.0.0 Mobile Safari/537.36", "Samsung Internet 27", "Android"),
        ("Mozilla/5.0 (Android 15; Mobile; rv:143.0) Gecko/143.0 Firefox/143.0", "Firefox 143", "Android"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36 Edg/141.0", "Edge 141", "macOS"),
        ("curl/8", "unknown browser", "unknown device"),
    ],
)
def test_a_device_is_called_what_its_browser_says(user_agent: str, browser: str, system: str) -> None:
    facts = phone_facts.parse(json.dumps(TOLD | {"user_agent": user_agent}).encode())
    assert facts.browser == browser and phone_facts.name_of(facts) == f"{system}, {browser}"
    assert phone_facts.name_of(phone_facts.parse(json.dumps(TOLD | {"user_agent": user_agent, "model": "Pixel\x1b[31m 8"}).encode())).isprintable()


TOLD = {
    "user_agent": "x", "brands": [], "platform": "", "model": None, "cores": 8, "memory_gb": 4, "screen": "1 x 1, 1", "touch": True, "secure_context": False,
    "cross_origin_isolated": False, "hash": "javascript ba7816bf", "webgpu": False, "gpu": None, "awake": False, "clock_us": 100.0,
}  # fmt: skip


def test_a_page_whose_hash_is_wrong_is_not_believed() -> None:
    with pytest.raises(PageFailed, match="another SHA-256"):
        phone_facts.parse(json.dumps(TOLD | {"hash": "javascript 00000000"}).encode())


@settings(deadline=None)
@given(st.sampled_from(sorted(TOLD)), st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2000), lambda inner: st.lists(inner, max_size=3), max_leaves=4))  # fmt: skip
def test_whatever_a_page_says_is_facts_or_a_line(key: str, value: object) -> None:
    try:
        facts = phone_facts.parse(json.dumps(TOLD | {key: value}).encode())
    except PageFailed as error:
        assert "\n" not in str(error) and str(error).isprintable()
    else:
        assert all(line.isprintable() and len(line) <= 500 for line in (facts.user_agent, facts.browser, facts.screen, phone_facts.name_of(facts), *facts.missing))


@given(st.binary(max_size=100))
def test_bytes_that_are_no_message_are_refused(content: bytes) -> None:
    with pytest.raises(PageFailed):
        phone_facts.parse(content)
