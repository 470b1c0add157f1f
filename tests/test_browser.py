"""The runtimes that compute in a web page, in a real Chromium, and the setting up of their place."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import flatbuffers
import numpy as np
import onnx as onnx_package
import psutil
import pytest
from ai_edge_litert import schema_py_generated as schema
from conftest import Cli, read_json, snapshot, validate, wait_until
from tiny_bundle import BIAS, CLASSES, SIZE, WEIGHTS, numpy_logits, onnx, pictures, tflite, write_bundle

from melanoma_edge.contract import InputContract
from melanoma_edge.errors import BadInput, Missing
from melanoma_edge.runtimes import browser as place
from melanoma_edge.runtimes import chromium, places
from melanoma_edge.runtimes.browser_page import AT_ONCE, LiteRTBrowser
from melanoma_edge.runtimes.page_server import WEB
from melanoma_edge.runtimes.process import available, run_logits
from melanoma_edge.runtimes.protocol import RuntimeFailed

pytestmark = pytest.mark.xdist_group("browser")  # one browser at a time

BUILDERS = {"litert-browser": tflite, "onnxruntime-browser": onnx}
NAMES = {"litert-browser": "m.tflite", "onnxruntime-browser": "m.onnx"}
PARENT = """
import sys
from pathlib import Path
import numpy as np
from melanoma_edge.runtimes.process import run_logits
run_logits("onnxruntime-browser", Path(sys.argv[1]), np.zeros((1, 32, 32, 3), np.uint8))
"""
SAYS_156 = "#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'Chromium 156.0.1.2'; exit; fi\n"
"""The start of a program that passes for a browser until it has to open a page."""


@pytest.fixture
def model(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Return a function that writes a model file and returns its path."""

    def write(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """A folder for temporary files, which must be empty again at the end."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str, str], Path]:
    """Return a function that writes an executable script into a folder of its own."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / "programs" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path

    return write


def unknown_operator(runtime: str) -> bytes:
    """Return a model of the right form whose operator nobody has."""
    if runtime == "onnxruntime-browser":
        made = onnx_package.load_from_string(onnx("uint8"))
        made.graph.node[-1].op_type = "NoSuchOperator"
        return made.SerializeToString()
    made = schema.ModelT.InitFromObj(schema.Model.GetRootAs(tflite("float32")))
    code = made.operatorCodes[0]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = b"NoSuchOperator"
    builder = flatbuffers.Builder(0)
    builder.Finish(made.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def endless(write: Callable[[str, bytes], Path]) -> Path:
    return write("m.onnx", onnx("uint8", endless=True))


def browsers(folder: Path) -> list[psutil.Process]:
    """Return the running processes whose command line names a path below `folder`: the browser and all its helpers."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and any(str(folder) in word for word in process.cmdline()) and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:
            continue
    return found


def computing(folder: Path, running: Callable[[], bool]) -> psutil.Process:
    """Wait for the page's own process, the one that is busy, and return it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and running():
        for process in browsers(folder):
            try:
                if "--type=renderer" in process.cmdline() and process.cpu_percent(0.3) > 20:
                    return process
            except psutil.Error:
                continue
    raise AssertionError("no page came to compute")


def assert_gone(folder: Path) -> None:
    """Assert that every process of a browser below `folder` ends within seconds."""
    deadline = time.monotonic() + 30
    while left := browsers(folder):
        assert time.monotonic() < deadline, [process.cmdline()[:2] for process in left]
        time.sleep(0.05)


# What holds.


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("runtime", list(BUILDERS))
def test_logits_are_what_numpy_computes(browser: str, model, temporary: Path, runtime: str, dtype: str) -> None:
    images = pictures(AT_ONCE + 6)
    found = run_logits(runtime, model(NAMES[runtime], BUILDERS[runtime](dtype)), images)
    assert found.dtype == np.float32 and found.shape == (AT_ONCE + 6, len(CLASSES))
    np.testing.assert_allclose(found, numpy_logits(images), rtol=1e-4, atol=1e-4)
    assert_gone(temporary)


DECLARED = {
    "bytes as they are": InputContract(width=SIZE, height=SIZE),
    "0 to 1 by ImageNet's mean and std": InputContract(width=SIZE, height=SIZE, value_range=(0, 1), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "-1 to 1, blue first": InputContract(width=SIZE, height=SIZE, value_range=(-1, 1), channels="BGR"),
    "another mean and std for each channel, blue first": InputContract(
        width=SIZE, height=SIZE, value_range=(0, 255), mean=(103.9, 116.8, 123.7), std=(0.5, 1.0, 2.0), channels="BGR"
    ),
}


def declared_logits(images: np.ndarray, contract: InputContract, channels_first: bool) -> np.ndarray:
    """Return what numpy computes for a declared contract, in float64 up to the product."""
    low, high = contract.value_range
    ordered = images[..., ::-1] if contract.channels == "BGR" else images
    taken = (low + ordered.astype(np.float64) * (high - low) / 255 - np.array(contract.mean)) / np.array(contract.std)
    taken = taken.transpose(0, 3, 1, 2) if channels_first else taken
    return taken.reshape(len(images), -1) @ WEIGHTS.T.astype(np.float64) + BIAS


FED = [(runtime, "float32", first, what) for runtime in BUILDERS for first in (False, True) for what in DECLARED]
FED += [("onnxruntime-browser", "uint8", True, "bytes as they are")]


@pytest.mark.parametrize(("runtime", "dtype", "channels_first", "what"), FED)
def test_models_of_others_get_in_the_page_what_was_declared(browser: str, model, temporary: Path, runtime: str, dtype: str, channels_first: bool, what: str) -> None:
    """In both orders of axes, as bytes and as numbers of every range."""
    contract = DECLARED[what]
    shape = (1, 3, SIZE, SIZE) if channels_first else (1, SIZE, SIZE, 3)
    images = pictures(AT_ONCE + 3)
    found = run_logits(runtime, model(NAMES[runtime], BUILDERS[runtime](dtype, shape)), images, contract=contract)
    expected = declared_logits(images, contract, channels_first)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, np.ptp(expected)))
    assert np.ptp(expected, axis=0).min() > 0.005
    here = run_logits(runtime.removesuffix("-browser"), model(NAMES[runtime], BUILDERS[runtime](dtype, shape)), images, contract=contract)
    np.testing.assert_allclose(found, here, rtol=0, atol=1e-5 * max(1, np.ptp(expected)))


def test_the_build_for_browsers_without_relaxed_simd_computes_the_same(browser: str, model, temporary: Path) -> None:
    runtime = LiteRTBrowser("compatible")
    runtime.load(model("m.tflite", tflite("uint8")), 1)
    np.testing.assert_allclose(runtime.logits(pictures(5)), numpy_logits(pictures(5)), rtol=1e-4, atol=1e-4)
    runtime.close()
    assert_gone(temporary)


def test_the_page_times_its_inferences_itself(browser: str, model, temporary: Path) -> None:
    runtime = LiteRTBrowser()
    runtime.load(model("m.tflite", tflite("float32")), 1)
    found = runtime.times(pictures(3), warmup=2, runs=40)
    assert found.shape == (40,) and found.dtype == np.float64 and (found >= 0).all() and found.max() > 0
    runtime.prepare(pictures(3)[1])
    runtime.invoke()
    np.testing.assert_allclose(runtime.output(), numpy_logits(pictures(3))[1], rtol=1e-4, atol=1e-4)
    runtime.close()


def test_the_browser_talks_to_this_process_and_to_nobody_else(browser: str, model, tmp_path: Path, monkeypatch) -> None:
    log = tmp_path / "net.json"
    monkeypatch.setattr(chromium, "FLAGS", (*chromium.FLAGS, f"--log-net-log={log}"))
    runtime = LiteRTBrowser()
    runtime.load(model("m.tflite", tflite("uint8")), 1)
    runtime.logits(pictures(2))
    time.sleep(3)  # Chromium's own requests, for updates and the like, come a moment after its start
    runtime.close()
    written = read_json(log)
    names = {number: name for name, number in written["constants"]["logEventTypes"].items()}
    events = [(names[event["type"]], event.get("params", {})) for event in written["events"]]
    reached = {details["address"] for name, details in events if name == "TCP_CONNECT_ATTEMPT" and "address" in details}
    assert len(reached) == 1 and reached.pop().startswith("127.0.0.1:")
    assert {name for name, _ in events} & {"DNS_TRANSACTION", "HOST_RESOLVER_MANAGER_JOB", "HOST_RESOLVER_SYSTEM_TASK"} == set()


def test_a_whole_bundle_computes_in_the_browser_what_it_computes_here(browser: str, cli: Cli, bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.bundle"
    shutil.copytree(bundle, copy)
    parity = cli("verify", copy, "--runtime", "browser", "--require", "litert-browser", "--require", "onnxruntime-browser", "--json", "-q").json
    validate(parity, "parity")
    gates = {gate["artifact"]: gate for gate in parity["gates"] if gate["name"] == "browser"}
    artifacts = {artifact["name"]: artifact for artifact in read_json(copy / "manifest.json")["artifacts"]}
    assert gates.keys() == artifacts.keys() and len(gates) == 6
    for name, gate in gates.items():
        assert (gate["outcome"], gate["pictures"], gate["reference"]) == ("passed", 212, "litert" if name.endswith("tflite") else "onnxruntime")
        if artifacts[name]["precision"] == "int8":
            assert gate["figures"]["max_quanta"] == 0
        elif artifacts[name]["precision"] == "float32":
            assert gate["figures"]["share_of_range"] <= 1e-4


def test_doctor_says_which_packages_and_which_browser(browser: str) -> None:
    found = available()
    locked = read_json(WEB / "package-lock.json")["packages"]
    for name, package in (("LiteRT.js", "@litertjs/core"), ("onnxruntime-web", "onnxruntime-web")):
        assert f"{name} {locked[f'node_modules/{package}']['version']}" in browser
    assert re.search(r" in (Chromium|Google Chrome) \d+$", browser)
    for runtime in BUILDERS:
        assert found[runtime].available and found[runtime].version == browser


# What fails, in the page's own words, and leaves nothing behind.


@pytest.mark.parametrize("runtime", list(BUILDERS))
def test_a_foreign_file_is_one_clear_line(browser: str, model, temporary: Path, runtime: str) -> None:
    with pytest.raises(RuntimeFailed, match=rf"^{runtime} cannot load {NAMES[runtime]}: .*(Failed to load model|protobuf parsing failed)") as caught:
        run_logits(runtime, model(NAMES[runtime], b"not a model at all" * 50), pictures(1))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300 and caught.value.exit_code == 2
    assert_gone(temporary)


@pytest.mark.parametrize("runtime", list(BUILDERS))
def test_an_unsupported_operator_is_named_and_never_answered_with_numbers(browser: str, model, temporary: Path, runtime: str) -> None:
    with pytest.raises(RuntimeFailed, match=f"{runtime} .*NoSuchOperator"):
        run_logits(runtime, model(NAMES[runtime], unknown_operator(runtime)), pictures(1))


@pytest.mark.parametrize("runtime", list(BUILDERS))
def test_a_model_of_another_form_and_more_threads_are_refused(browser: str, model, temporary: Path, runtime: str) -> None:
    with pytest.raises(BadInput, match=r"expected one input \[1, height, width, 3\]"):
        run_logits(runtime, model(NAMES[runtime], BUILDERS[runtime]("float32", (1, SIZE * SIZE * 3))), pictures(1))
    with pytest.raises(BadInput, match="computes on one thread, 2 were asked for"):
        run_logits(runtime, model(NAMES[runtime], BUILDERS[runtime]("uint8")), pictures(1), threads=2)


@pytest.fixture
def hanging(browser: str, model, temporary: Path) -> Iterator[tuple[psutil.Process, Future]]:
    """A page that computes for ever, and the call that waits for it."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(run_logits, "onnxruntime-browser", endless(model), pictures(1), timeout=300)
        yield computing(temporary, lambda: not waiting.done()), waiting
    assert_gone(temporary)


def test_a_crash_of_the_tab_is_one_clear_line(hanging: tuple[psutil.Process, Future]) -> None:
    page, waiting = hanging
    page.send_signal(signal.SIGSEGV)
    with pytest.raises(RuntimeFailed, match=r"^onnxruntime-browser (failed|cannot load m\.onnx): the .*tab crashed"):
        waiting.result(60)


def test_the_end_of_the_browser_is_one_clear_line(hanging: tuple[psutil.Process, Future]) -> None:
    page, waiting = hanging
    main = next(process for process in page.parents() if "--remote-debugging-pipe" in process.cmdline() and "--type=zygote" not in process.cmdline())
    main.kill()
    with pytest.raises(RuntimeFailed, match=r"^onnxruntime-browser (failed|cannot load m\.onnx): (Chromium ended \(SIGKILL|the page was closed)"):
        waiting.result(60)


def test_a_crash_of_the_worker_takes_the_browser_with_it(hanging: tuple[psutil.Process, Future]) -> None:
    page, waiting = hanging
    worker = next(process for process in page.parents() if "melanoma_edge.runtimes.worker" in process.cmdline())
    worker.send_signal(signal.SIGSEGV)
    with pytest.raises(RuntimeFailed, match=r"onnxruntime-browser crashed on m\.onnx \(SIGSEGV"):
        waiting.result(60)


def test_a_hanging_page_is_killed_at_the_timeout(browser: str, model, temporary: Path) -> None:
    with pytest.raises(RuntimeFailed, match=r"onnxruntime-browser gave no result on m\.onnx within 15 s"):
        run_logits("onnxruntime-browser", endless(model), pictures(1), timeout=15)
    assert_gone(temporary)


def test_a_killed_parent_leaves_no_browser_behind(browser: str, model, tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    environment = os.environ | {"PYTHONPATH": str(Path(place.__file__).parents[2]), "TMPDIR": str(folder)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(endless(model))], env=environment)
    computing(folder, lambda: parent.poll() is None)
    parent.kill()
    parent.wait(30)
    assert_gone(folder)


# A browser that is not there, or is none.


def test_without_a_browser_it_is_said_how_to_get_one(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv(chromium.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(chromium, "APPLICATIONS", ())
    with pytest.raises(Missing, match="no Chromium or Chrome is here: apt-get install chromium .*brew install --cask chromium"):
        chromium.find()


def test_a_named_browser_is_used_and_must_be_one(browser: str, cli: Cli, monkeypatch, tmp_path: Path, program) -> None:
    for named, said in ((tmp_path / "nowhere", "which is no program"), (program("other", "#!/bin/sh\necho I am a kettle\n"), "I am a kettle")):
        monkeypatch.setenv(chromium.VARIABLE, str(named))
        with pytest.raises(Missing, match=f"{named}.*{said}.*apt-get install chromium"):
            place.require()
    monkeypatch.setenv(chromium.VARIABLE, str(program("chromium", SAYS_156 + "echo it rains today >&2\nexit 7\n")))
    folder = write_bundle(tmp_path / "tiny.bundle")
    gates = cli("verify", folder, "--runtime", "litert-browser", "--json", "-q").json["gates"]
    reasons = [gate["reason"] for gate in gates if gate["runtime"] == "litert-browser"]
    assert reasons and all("Chromium ended (exit code 7; it rains today)" in reason for reason in reasons)
    done = cli("verify", folder, "--runtime", "litert-browser", "--require", "litert-browser", "-q", code=3)
    assert "litert-browser was required but did not run tiny-float32.tflite" in done.err and "it rains today" in done.err


# Setting up.


def test_setting_up_fetches_what_is_pinned_once(browser: str, cli: Cli, tmp_path: Path, program) -> None:
    environment = {"MELANOMA_EDGE_RUNTIMES": str(tmp_path / "runtimes")}
    facts = cli("setup", "browser", "--json", "-q", env=environment).json
    folder = Path(facts["folder"])
    assert browser.startswith(f"{facts['version']} in ") and folder == tmp_path / "runtimes" / "browser" and list(folder.parent.iterdir()) == [folder]
    assert snapshot(folder) == {name: digest for name, digest in snapshot(places.folder("browser")).items()}
    wanted = {name for names in place.ENGINES.values() for name in names} | {"package-lock.json"}
    assert snapshot(folder).keys() == wanted
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6 == pytest.approx(facts["megabytes"], abs=0.1)
    # Nothing is fetched again: an npm that fails is not even asked.
    npm = program("npm", "#!/bin/sh\nexit 1\n")
    changed = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert cli("setup", "browser", "--json", "-q", env=environment | {"PATH": f"{npm.parent}:{os.environ['PATH']}"}).json == facts
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == changed


def test_packages_of_another_version_or_with_a_file_lost_are_not_used_and_replaced(browser: str, cli: Cli, tmp_path: Path, monkeypatch) -> None:
    expected = snapshot(places.folder("browser"))
    environment = {"MELANOMA_EDGE_RUNTIMES": str(tmp_path / "runtimes")}
    folder = tmp_path / "runtimes" / "browser"
    shutil.copytree(places.folder("browser"), folder)
    lock = folder / "package-lock.json"
    bundle = write_bundle(tmp_path / "tiny.bundle")
    lock.write_text(lock.read_text().replace('"2.5.3"', '"2.5.2"'), encoding="utf-8")
    done = cli("verify", bundle, "--require", "litert-browser", "-q", code=3, env=environment)
    assert "belong to another version of melanoma-edge" in done.err and done.err.rstrip().endswith("melanoma-edge setup browser")
    monkeypatch.setenv("MELANOMA_EDGE_RUNTIMES", environment["MELANOMA_EDGE_RUNTIMES"])
    shutil.copy(WEB / "package-lock.json", lock)
    (folder / place.ENGINES["litert"][0]).unlink()
    with pytest.raises(Missing, match="index.js is missing: melanoma-edge setup browser"):
        place.require()
    lock.write_text("{}", encoding="utf-8")
    cli("setup", "browser", "-q")
    assert list(folder.parent.iterdir()) == [folder] and snapshot(folder) == expected


def test_a_package_with_other_bytes_than_the_lock_file_says_is_refused(browser: str, tmp_path: Path, monkeypatch) -> None:
    web = tmp_path / "web"
    shutil.copytree(WEB, web)
    locked = read_json(web / "package-lock.json")
    locked["packages"]["node_modules/@litertjs/wasm-utils"]["integrity"] = "sha512-" + "A" * 86 + "=="
    (web / "package-lock.json").write_text(json.dumps(locked), encoding="utf-8")
    monkeypatch.setattr(place, "WEB", web)
    monkeypatch.setenv("MELANOMA_EDGE_RUNTIMES", str(tmp_path / "runtimes"))
    with pytest.raises(Missing, match="npm could not fetch the packages .*(EINTEGRITY|integrity)") as caught:
        place.install(lambda line: None)
    assert "\n" not in str(caught.value) and list((tmp_path / "runtimes").iterdir()) == []


@pytest.fixture
def bare(tmp_path: Path, program) -> dict[str, str]:
    """The environment of a machine with a browser and nothing set up."""
    return {"MELANOMA_EDGE_RUNTIMES": str(tmp_path / "runtimes"), chromium.VARIABLE: str(program("chromium", SAYS_156))}


def test_setting_up_without_npm_says_how_to_get_it(cli: Cli, bare: dict[str, str], tmp_path: Path) -> None:
    done = cli("setup", "browser", "-q", code=3, env=bare | {"PATH": str(tmp_path)})
    assert done.err.count("\n") == 1 and "npm is missing" in done.err and "apt-get install npm" in done.err and "brew install node" in done.err
    assert not (tmp_path / "runtimes" / "browser").exists()


def test_a_failure_of_npm_is_one_line_and_leaves_nothing(cli: Cli, bare: dict[str, str], tmp_path: Path, program) -> None:
    npm = program("npm", "#!/bin/sh\necho partly > package\necho 'npm error code ENOTFOUND' >&2\necho 'npm error no such registry' >&2\nexit 1\n")
    done = cli("setup", "browser", "-q", code=3, env=bare | {"PATH": f"{npm.parent}:{os.environ['PATH']}"})
    assert done.err.count("\n") == 1 and "npm error code ENOTFOUND npm error no such registry" in done.err
    assert list((tmp_path / "runtimes").iterdir()) == []


def test_an_interrupted_set_up_leaves_nothing_and_no_npm(cli: Cli, bare: dict[str, str], tmp_path: Path, program) -> None:
    started = tmp_path / "started"
    npm = program("npm", f"#!/bin/sh\necho partly > package\necho $$ > {started}.new\nmv {started}.new {started}\nexec sleep 600\n")
    with cli.start("setup", "browser", "-q", env=bare | {"PATH": f"{npm.parent}:{os.environ['PATH']}"}) as process:
        wait_until(started.exists, process)
        process.send_signal(signal.SIGINT)
        err = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130 and "Traceback" not in err
    assert list((tmp_path / "runtimes").iterdir()) == []
    pid = int(started.read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_the_lock_file_pins_every_package_by_its_hash_and_to_a_permissive_licence() -> None:
    locked = read_json(WEB / "package-lock.json")["packages"]
    wanted = read_json(WEB / "package.json")["dependencies"]
    assert locked[""]["dependencies"] == wanted and all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    for name, package in locked.items():
        if name:
            assert package["integrity"].startswith("sha512-") and package["license"] in {"Apache-2.0", "MIT", "BSD-3-Clause", "ISC"}, name
