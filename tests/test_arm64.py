"""The emulated Arm processor: setting it up, what it computes, and every way in which it may not be there."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli, read_json, snapshot, validate, wait_until
from test_export_cli import ONNX, TFLITE
from tiny_bundle import CLASSES, numpy_logits, onnx, pictures, tflite, write_bundle

from melanoma_edge.errors import BadInput, Missing
from melanoma_edge.runtimes import arm64, debian, places
from melanoma_edge.runtimes.process import available, run_logits
from melanoma_edge.runtimes.protocol import RuntimeFailed

ARM = platform.machine() in ("aarch64", "arm64")
needs_debian = pytest.mark.skipif(ARM or shutil.which("apt-get") is None, reason="needs a Debian machine that is not an Arm processor itself")

FAKE_APT = """#!/bin/sh
# apt-get as far as melanoma-edge uses it, with packages from a folder.
case "$*" in
    *--print-uris*) cat "$FAKE/uris" 2>/dev/null; exit 0;;
    *update*) [ -e "$FAKE/hang" ] && { touch "$FAKE/started"; exec sleep 600; }
              [ -e "$FAKE/offline" ] && { echo "W: slow" >&2; echo "E: Failed to fetch InRelease  Temporary failure resolving" >&2; exit 100; }
              exit 0;;
    *download*) cp "$FAKE"/*.deb . 2>/dev/null; exit 0;;
esac
exit 1
"""
ENTRIES = ("ai-edge-litert", "onnxruntime", "onnx", "numpy")


@pytest.fixture(scope="session")
def place(cli: Cli) -> Path:
    """The place, set up once for all runs of the tests by the first worker that needs it; its folder."""
    folder = places.folder("arm64")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / "arm64.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with cli.start("setup", "arm64", "-q") as process:
            said = process.communicate(timeout=1800)[1].decode()
    if process.returncode == 3 and any(words in said for words in ("cannot be fetched", "Debian", "is an Arm processor", "on Linux only")):
        pytest.skip(f"an Arm processor cannot be set up here: {said.strip()}")
    assert process.returncode == 0, said
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for places."""
    monkeypatch.setenv("MELANOMA_EDGE_RUNTIMES", str(tmp_path / "places"))
    return tmp_path / "places"


@pytest.fixture
def apt(tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that stands for Debian's archive, of an apt-get that knows no network."""
    archive, tools = tmp_path / "archive", tmp_path / "tools"
    archive.mkdir()
    tools.mkdir()
    (tools / "apt-get").write_text(FAKE_APT)
    (tools / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(archive))
    return archive


def package_of_qemu(archive: Path, version: str) -> None:
    """Build a Debian package with an emulator that can say its version and no more."""
    tree = archive / "tree"
    (tree / "usr" / "bin").mkdir(parents=True)
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN" / "control").write_text("Package: qemu-user\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: a test\n")
    (tree / "usr" / "bin" / "qemu-aarch64").write_text(f"#!/bin/sh\necho 'qemu-aarch64 version {version} (Debian)'\n")
    (tree / "usr" / "bin" / "qemu-aarch64").chmod(0o755)
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", str(tree), str(archive / "qemu-user_1_all.deb")], check=True, capture_output=True)


def pretend(folder: Path, **versions: str) -> None:
    """Write a place that looks whole, of these versions and otherwise of this machine's."""
    for part in ("system/usr/bin", "system/usr/lib/python3/dist-packages/numpy"):
        (folder / "arm64" / part).mkdir(parents=True)
    for part in ("qemu-aarch64", "system/usr/bin/python3.11"):
        (folder / "arm64" / part).touch()
    found = arm64._versions_here() | {name.replace("_", "-"): version for name, version in versions.items()}
    manifest = {"qemu": "10.0.2", "python": "3.11.2", "versions": found, "mirror": "", "debian": [], "wheels": []}
    (folder / "arm64" / "manifest.json").write_text(json.dumps(manifest))


# What it computes.


def test_a_bundle_is_verified_on_an_arm_processor(cli: Cli, place: Path, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny.bundle")
    before = snapshot(bundle)
    done = cli("verify", bundle, "--runtime", "arm64", "--require", "litert-arm64", "--require", "onnxruntime-arm64", "--json", "-q")
    parity = read_json(bundle / "evidence" / "parity.json")
    assert done.json == parity
    validate(parity, "parity")
    gates = {gate["artifact"]: gate for gate in parity["gates"] if gate["name"] == "arm64"}
    assert gates.keys() == {"tiny-float32.tflite", "tiny-int8.tflite", "tiny-float32.onnx"}
    for gate in gates.values():
        assert gate["outcome"] == "passed" and gate["pictures"] == 202
        assert gate["runtime"] == f"{gate['reference']}-arm64" and gate["reference"] in ("litert", "onnxruntime")
    assert gates["tiny-int8.tflite"]["figures"]["max_quanta"] == 0
    assert gates["tiny-float32.onnx"]["figures"]["share_of_range"] <= 1e-4
    versions = parity["conditions"]["versions"]
    for name in ("litert-arm64", "onnxruntime-arm64"):
        assert f"LiteRT {versions['ai-edge-litert']}, ONNX Runtime" in parity["runtimes"][name] and "cortex-a76, QEMU 1" in parity["runtimes"][name]
    assert parity["runtimes"]["litert"] == versions["ai-edge-litert"]
    assert {path: sha256 for path, sha256 in snapshot(bundle).items() if not path.startswith("evidence/")} == before


@pytest.mark.parametrize(("peer", "artifact"), [("litert", TFLITE[3]), ("onnxruntime", ONNX[1])])
def test_int8_convolutions_are_the_same_to_the_last_bit(place: Path, bundle: Path, peer: str, artifact: str) -> None:
    images = np.random.default_rng(3).integers(0, 256, (24, 48, 48, 3), np.uint8)
    steps: list[str] = []
    found = run_logits(f"{peer}-arm64", bundle / artifact, images, progress=steps.append)
    np.testing.assert_array_equal(found, run_logits(peer, bundle / artifact, images))
    assert len(np.unique(found)) > 8 and steps == ["16 of 24", "24 of 24"]


def test_it_is_another_processor(place: Path, bundle: Path) -> None:
    """Sums of floats are ordered by the kernels: were they this machine's, the comparison would compare nothing."""
    images = np.random.default_rng(4).integers(0, 256, (16, 48, 48, 3), np.uint8)
    found, here = (run_logits(name, bundle / TFLITE[2], images) for name in ("litert-arm64", "litert"))
    assert (found != here).any()
    np.testing.assert_allclose(found, here, atol=0.01 * np.ptp(here))


def test_the_processor_can_be_chosen(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELANOMA_EDGE_ARM64_CPU", "cortex-a53")
    assert "on cortex-a53, QEMU" in available()["onnxruntime-arm64"].version
    (tmp_path / "m.onnx").write_bytes(onnx("uint8"))
    images = pictures(3)
    np.testing.assert_allclose(run_logits("onnxruntime-arm64", tmp_path / "m.onnx", images), numpy_logits(images), rtol=1e-4, atol=1e-4)
    monkeypatch.setenv("MELANOMA_EDGE_ARM64_CPU", "pentium")
    found = available()["onnxruntime-arm64"]
    assert not found.available and found.install is None
    assert "no processor 'pentium', which MELANOMA_EDGE_ARM64_CPU names: choose one of" in found.reason and "cortex-a53" in found.reason


def test_packages_for_this_machine_do_not_get_in(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("numpy", "json", "onnxruntime"):
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('the wrong {name}')", encoding="utf-8")
    (tmp_path / "m.onnx").write_bytes(onnx("uint8"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.chdir(tmp_path)
    assert run_logits("onnxruntime-arm64", tmp_path / "m.onnx", pictures(0)).shape == (0, len(CLASSES))


@pytest.mark.parametrize("keep", [0.2, 0.6])
def test_a_damaged_file_is_one_line_there_too(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: float) -> None:
    content = tflite("float32")
    (tmp_path / "m.tflite").write_bytes(content[: int(len(content) * keep)])
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    with pytest.raises((BadInput, RuntimeFailed)) as caught:
        run_logits("litert-arm64", tmp_path / "m.tflite", pictures(1))
    assert "\n" not in str(caught.value) and "m.tflite" in str(caught.value)
    assert list((tmp_path / "cwd").iterdir()) == [], "an emulator that crashes leaves a core file"


# What it is made of.


def test_the_manifest_names_every_package_and_its_bytes(place: Path) -> None:
    manifest = read_json(place / "manifest.json")
    names = {package["name"]: package for package in manifest["debian"]}
    assert names.keys() >= {"qemu-user", "libc6", "python3.11-minimal"} and int(manifest["qemu"].split(".")[0]) >= 8
    wheels = {wheel["name"]: wheel for wheel in manifest["wheels"]}
    assert wheels.keys() >= {"numpy", "onnxruntime", "ai-edge-litert", "onnx", "pydantic"}
    for entry in (*names.values(), *wheels.values()):
        assert len(entry["sha256"]) == 64 and entry["version"]
    assert wheels["numpy"]["version"] == np.__version__ and "aarch64" in wheels["numpy"]["file"]
    assert {name: wheels[name]["version"] for name in ENTRIES} == manifest["versions"]


def test_setting_up_again_changes_nothing(cli: Cli, place: Path) -> None:
    before = place.stat().st_ino, (place / "manifest.json").read_bytes()
    done = cli("setup", "arm64", "--json")
    assert done.json["state"] == "set up already" and "QEMU" in done.json["computes"] and done.json["folder"] == str(place)
    assert (place.stat().st_ino, (place / "manifest.json").read_bytes()) == before


# Where it is not there.


def test_what_is_not_set_up_comes_with_its_command(elsewhere: Path) -> None:
    if ARM:
        pytest.skip("this machine is an Arm processor")
    with pytest.raises(Missing, match="is not set up: melanoma-edge setup arm64$"):
        arm64.require()
    for name in ("litert-arm64", "onnxruntime-arm64"):
        found = available()[name]
        assert (found.available, found.install) == (False, "melanoma-edge setup arm64") and "not set up" in found.reason
    assert not elsewhere.exists(), "looking leaves nothing behind"


@pytest.mark.skipif(ARM, reason="this machine is an Arm processor")
def test_a_place_of_other_versions_is_not_used(elsewhere: Path) -> None:
    pretend(elsewhere)
    assert f"ONNX Runtime {arm64._versions_here()['onnxruntime']} on cortex-a76, QEMU 10.0.2" in arm64.require()
    shutil.rmtree(elsewhere)
    pretend(elsewhere, ai_edge_litert="2.0.1")
    with pytest.raises(Missing, match=r"set up for ai-edge-litert 2\.0\.1, this machine has .*: melanoma-edge setup arm64$"):
        arm64.require()


@pytest.mark.skipif(ARM, reason="this machine is an Arm processor")
@pytest.mark.parametrize("lost", ["qemu-aarch64", "system/usr/bin/python3.11", "manifest.json"])
def test_a_place_that_is_not_whole_is_not_used(elsewhere: Path, lost: str) -> None:
    pretend(elsewhere)
    (elsewhere / "arm64" / lost).unlink()
    with pytest.raises(Missing, match=": melanoma-edge setup arm64$"):
        arm64.command()


def test_an_arm_machine_is_told_that_it_is_one(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(Missing, match="this machine is an Arm processor"):
        places.install("arm64", print)
    found = available()["litert-arm64"]
    assert not found.available and found.install is None and "this machine is an Arm processor" in found.reason


# Setting up where something is missing. Nothing may be left behind.


def refused(cli: Cli, folder: Path, *, code: int = 3) -> str:
    line = cli.refused("setup", "arm64", "-q", code=code)
    assert not folder.exists() or not list(folder.iterdir())
    return line


@pytest.mark.skipif(ARM, reason="this machine is an Arm processor")
def test_without_the_tools_for_debian_packages(cli: Cli, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get is not here, and Debian packages are needed: use a Debian or Ubuntu machine or container" in refused(cli, elsewhere)


@needs_debian
def test_without_a_network(cli: Cli, elsewhere: Path, apt: Path) -> None:
    (apt / "offline").touch()
    line = refused(cli, elsewhere)
    assert "Debian packages cannot be fetched from http://deb.debian.org/debian (Failed to fetch InRelease Temporary failure resolving)" in line


@needs_debian
def test_an_emulator_that_computes_wrongly_is_refused(cli: Cli, elsewhere: Path, apt: Path) -> None:
    package_of_qemu(apt, "7.2.22")
    assert "QEMU 7.2.22 came from trixie, expected 8 or newer" in refused(cli, elsewhere)


@needs_debian
def test_an_archive_without_an_emulator_is_refused(cli: Cli, elsewhere: Path, apt: Path) -> None:
    assert "qemu-user of trixie at http://deb.debian.org/debian holds no qemu-aarch64" in refused(cli, elsewhere)


@needs_debian
def test_without_wheels(cli: Cli, elsewhere: Path, apt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package_of_qemu(apt, "10.0.2")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    line = refused(cli, elsewhere)
    assert "the wheels for Arm cannot be fetched" in line and "go online" in line


@needs_debian
def test_an_interrupted_set_up_leaves_nothing_and_the_old_place_as_it_was(cli: Cli, elsewhere: Path, apt: Path) -> None:
    pretend(elsewhere, numpy="1.0")
    before = snapshot(elsewhere)
    (apt / "hang").touch()
    with cli.start("setup", "arm64", "-q", start_new_session=True) as process:
        wait_until((apt / "started").exists, process)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == b"" and b"Traceback" not in err
    assert snapshot(elsewhere) == before and len(list(elsewhere.iterdir())) == 1


@pytest.mark.skipif(ARM, reason="this machine is an Arm processor")
def test_a_folder_of_something_else_is_left_alone(cli: Cli, elsewhere: Path) -> None:
    (elsewhere / "arm64").mkdir(parents=True)
    (elsewhere / "arm64" / "thesis.txt").write_text("mine")
    assert "holds something else than a set-up" in cli.refused("setup", "arm64", "-q")
    assert (elsewhere / "arm64" / "thesis.txt").read_text() == "mine"


# Debian's archive.


URIS = """'https://example.org/stable/debian/dists/bookworm/InRelease' a 0
'http://mirror.example.net/debian/dists/bookworm/InRelease' b 0
'http://mirror.example.net/debian/dists/bookworm-updates/InRelease' c 0
'http://mirror.example.net/debian-security/dists/bookworm-security/InRelease' d 0
"""


@needs_debian
@pytest.mark.parametrize(
    ("system", "uris", "expected"),
    [
        ({"ID": "debian", "VERSION_CODENAME": "bookworm"}, URIS, "http://mirror.example.net/debian"),
        ({"ID": "debian", "VERSION_CODENAME": "bookworm"}, URIS.replace("dists/bookworm", "dists/stable"), "http://mirror.example.net/debian"),
        ({"ID": "debian", "VERSION_CODENAME": "bookworm"}, "", debian.OFFICIAL),
        ({"ID": "ubuntu", "VERSION_CODENAME": "noble"}, URIS.replace("bookworm", "noble"), debian.OFFICIAL),
    ],
)
def test_the_archive_is_this_machines_own_where_it_is_debian(apt: Path, monkeypatch: pytest.MonkeyPatch, system: dict, uris: str, expected: str) -> None:
    (apt / "uris").write_text(uris)
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: system)
    assert debian.mirror() == expected


# Versions.


@needs_debian
def test_every_wheel_that_is_there_was_pinned(place: Path) -> None:
    manifest = read_json(place / "manifest.json")
    pinned = arm64.wanted_versions() | manifest["versions"]
    wheels = {re.sub(r"[-_.]+", "-", wheel["name"]).lower(): wheel["version"] for wheel in manifest["wheels"]}
    assert len(wheels) >= len(ENTRIES) and wheels == {name: pinned.get(name) for name in wheels}


def test_what_this_machine_lacks_comes_in_a_pinned_version_too(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = arm64.wanted_versions()
    assert installed["numpy"] == np.__version__ and set(arm64.PINS) <= set(installed)
    monkeypatch.setattr(arm64.importlib.metadata, "distributions", lambda: [])
    assert arm64.wanted_versions() == arm64.PINS
