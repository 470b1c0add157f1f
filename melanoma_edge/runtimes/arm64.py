"""The place `arm64`: LiteRT and ONNX Runtime with the Arm kernels that phones run, on an emulated Arm processor.

QEMU runs a Debian Python for Arm and the Arm wheels of the same packages, in the same versions, as on this machine,
as one ordinary process. What is emulated is the instruction set, so numbers are an Arm processor's and times mean nothing.

`MELANOMA_EDGE_ARM64_CPU` names another processor than DEFAULT_CPU: kernels are chosen by what it can do.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import melanoma_edge
from melanoma_edge.contract import Model
from melanoma_edge.errors import BadInput, Missing
from melanoma_edge.files import new_folder, read_json, write_json
from melanoma_edge.host import version
from melanoma_edge.runtimes import debian, places
from melanoma_edge.runtimes.protocol import RUNTIMES, one_line

DEFAULT_CPU = "cortex-a76"
"""A processor of 2018 with int8 dot products; cortex-a53 has none, cortex-a710 multiplies int8 matrices."""
CPU_VARIABLE = "MELANOMA_EDGE_ARM64_CPU"
PYTHON = "3.11"
GUEST_SUITE = "bookworm"
"""The Debian release whose Python PYTHON is."""
GUEST = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libgcc-s1", "libstdc++6", "libgomp1", "zlib1g"),
    *("libexpat1", "libffi8", "libbz2-1.0", "liblzma5", "libssl3", "libuuid1", "libsqlite3-0"),
)
EMULATOR_SUITE = "trixie"
"""Its QEMU is one static file, which runs on any Linux."""
LEAST_QEMU = 8
"""QEMU 7.2 crashed in LiteRT and ONNX Runtime, and computed wrong int8 results where it did not."""
PLATFORMS = tuple(f"manylinux_2_{glibc}_aarch64" for glibc in range(36, 16, -1)) + ("manylinux2014_aarch64",)
"""What pip calls systems with a C library up to that of GUEST_SUITE, 2.36."""

PINS = {
    **{"annotated-types": "0.8.0", "backports-strenum": "1.2.8", "flatbuffers": "25.12.19", "ml-dtypes": "0.6.0", "packaging": "26.3", "protobuf": "7.36.2"},
    **{"pydantic": "2.14.3", "pydantic-core": "2.50.4", "tqdm": "4.70.1", "typing-extensions": "4.16.0", "typing-inspection": "0.4.5"},
}
"""Versions of what the packages that compute need, where this machine has none of them: never just the newest."""

MANIFEST = "manifest.json"
_SET_UP = "melanoma-edge setup arm64"
_PACKAGES = "usr/lib/python3/dist-packages"
_CHECK = """
import json, platform, sys
from importlib.metadata import version
import melanoma_edge.runtimes.worker, melanoma_edge.runtimes.litert, melanoma_edge.runtimes.ort, onnx
print(json.dumps([platform.machine(), platform.python_version(), {name: version(name) for name in sys.argv[1:]}]))
"""
_HOOK = (
    'import os, resource, sys; sys.path.append(os.environ["MELANOMA_EDGE_PACKAGE"]); '
    "resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))\n"
)
"""Makes this very melanoma_edge importable there, behind everything of the place's own: beside it may lie packages for this
machine. And has QEMU write no core file, of gigabytes, where a damaged model crashes a runtime."""


class SetUp(Model):
    """manifest.json of the place: what it is made of."""

    schema_version: int = 1
    qemu: str
    python: str
    versions: dict[str, str]
    """Of the packages that compute, which have to be this machine's."""
    mirror: str
    debian: tuple[debian.Package, ...]
    wheels: tuple[dict[str, str], ...]
    """Name, version, file and SHA-256 of each."""

    def named(self, cpu: str) -> str:
        """Return in words what computes there."""
        return f"LiteRT {self.versions['ai-edge-litert']}, ONNX Runtime {self.versions['onnxruntime']} on {cpu}, QEMU {self.qemu}"


def require() -> str:
    """Return what computes in the place; raises Missing where it is not set up, or for other versions than this machine's."""
    return _ready()[0].named(_cpu())


def command() -> tuple[list[str], dict[str, str]]:
    """Return the start of a worker's command line there, and changes to its environment; raises as :func:`require` does."""
    _, folder = _ready()
    return _start(folder, _cpu()), _environment()


def install(progress: Callable[[str], None]) -> dict:
    """Set the place up: fetch QEMU, an Arm Python and Arm wheels, and try them; return facts for people.

    Does nothing where it is set up for this machine's versions, and replaces what was for others. Raises Missing for
    what it lacks (tools, network, wheels), and leaves everything as it was then.
    """
    _check_machine()
    target = places.folder("arm64").absolute()
    try:
        set_up = _ready()[0]
    except Missing:
        pass
    else:
        return _facts(set_up, target, "set up already")
    if not (target / MANIFEST).exists() and (target.is_file() or (target.is_dir() and any(target.iterdir()))):
        raise BadInput(f"{target} holds something else than a set-up: move it away, or name another folder in MELANOMA_EDGE_RUNTIMES")
    debian.require()
    if importlib.util.find_spec("pip") is None:
        raise Missing(f"this Python has no pip to fetch wheels with: {sys.executable} -m ensurepip")
    versions = _versions_here()
    with new_folder(target, force=True, mark=MANIFEST) as folder:
        scratch = folder / "scratch"
        scratch.mkdir()
        emulator = debian.Wanted(EMULATOR_SUITE, debian.architecture(), ("qemu-user",), scratch / "emulator")
        guest = debian.Wanted(GUEST_SUITE, "arm64", GUEST, folder / "system")
        mirror = debian.mirror()
        packages = debian.unpack([emulator, guest], mirror, scratch, progress)
        found = scratch / "emulator" / "usr" / "bin" / "qemu-aarch64"
        if not found.is_file():
            raise Missing(f"the package qemu-user of {EMULATOR_SUITE} at {mirror} holds no qemu-aarch64: give apt a mirror that has the current one")
        os.replace(found, folder / "qemu-aarch64")
        qemu = _qemu_version(folder / "qemu-aarch64")
        # A link out of the folder, to this machine's file of that name.
        (folder / "system" / "usr" / "lib" / f"python{PYTHON}" / "sitecustomize.py").unlink(missing_ok=True)
        progress("fetching wheels for Arm")
        wheels = _install_wheels(versions, folder / "system" / _PACKAGES, scratch)
        shutil.rmtree(scratch)
        progress("trying the emulated Python")
        python = _check(folder, versions)
        set_up = SetUp(qemu=qemu, python=python, versions=versions, mirror=mirror, debian=packages, wheels=wheels)
        write_json(folder / MANIFEST, set_up.model_dump(mode="json"))
    return _facts(set_up, target, "set up")


def _check_machine() -> None:
    """Raise Missing where there is nothing to emulate, or nothing to emulate it with."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        raise Missing("this machine is an Arm processor: litert and onnxruntime compute on one as they are")
    if not sys.platform.startswith("linux"):
        raise Missing("QEMU emulates single programs on Linux only: use a Linux machine or container")


def _ready() -> tuple[SetUp, Path]:
    """Return what is set up and its folder; raises Missing unless it is whole and fits this machine."""
    _check_machine()
    folder = places.folder("arm64").absolute()
    if not folder.exists():
        raise Missing(f"the emulated Arm processor is not set up: {_SET_UP}")
    try:
        set_up = SetUp.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        raise Missing(f"{folder} holds no set-up that this version can read: {_SET_UP}") from None
    if not all((folder / part).exists() for part in ("qemu-aarch64", f"system/usr/bin/python{PYTHON}", f"system/{_PACKAGES}/numpy")):
        raise Missing(f"the set-up in {folder} is not whole: {_SET_UP}")
    for name, here in _versions_here().items():
        if set_up.versions.get(name) != here:
            raise Missing(f"{folder} is set up for {name} {set_up.versions.get(name)}, this machine has {here}: {_SET_UP}")
    return set_up, folder


def _versions_here() -> dict[str, str]:
    """Return the versions of the packages that compute, by the names of their Arm wheels; raises Missing without one."""
    versions = {}
    for name, distributions in {
        "ai-edge-litert": RUNTIMES["litert"].packages,
        "onnxruntime": RUNTIMES["onnxruntime"].packages,
        "onnx": ("onnx",),
        "numpy": ("numpy",),
    }.items():
        found = next((found for package in distributions if (found := version(package)) is not None), None)
        if found is None:
            raise Missing(f"{name} is not installed on this machine, so that there is nothing to compare with: pip install {name}")
        versions[name] = found.split("+")[0]
    return versions


def _cpu() -> str:
    """Return the processor to emulate; raises Missing for one that the emulator does not have."""
    cpu = os.environ.get(CPU_VARIABLE) or DEFAULT_CPU
    if cpu != DEFAULT_CPU and cpu not in (known := _cpus(places.folder("arm64").absolute() / "qemu-aarch64")):
        raise Missing(f"the emulator has no processor {cpu!r}, which {CPU_VARIABLE} names: choose one of {', '.join(known)}")
    return cpu


@functools.cache
def _cpus(emulator: Path) -> tuple[str, ...]:
    """Return the names of the processors that the emulator has."""
    said = subprocess.run([str(emulator), "-cpu", "help"], stdin=subprocess.DEVNULL, capture_output=True, text=True)  # its exit code is 1
    return tuple(line.strip() for line in said.stdout.splitlines() if line.startswith(" "))


def _qemu_version(emulator: Path) -> str:
    """Return the emulator's version; raises Missing for one that computes wrongly."""
    found = re.search(r"version (\d+)\.([\d.]+)", _output([str(emulator), "--version"]))
    if found is None or int(found[1]) < LEAST_QEMU:
        raise Missing(
            f"QEMU {f'{found[1]}.{found[2]}' if found else 'of unknown version'} came from {EMULATOR_SUITE}, expected {LEAST_QEMU} or newer: "
            "give apt a mirror that has the current one"
        )
    return f"{found[1]}.{found[2]}"


def _start(folder: Path, cpu: str) -> list[str]:
    system = folder / "system"
    return [str(folder / "qemu-aarch64"), "-cpu", cpu, "-L", str(system), str(system / "usr" / "bin" / f"python{PYTHON}"), "-I"]


def _environment() -> dict[str, str]:
    """Return what an emulated Python has to see, and what is for this machine's own programs only."""
    root = str(Path(melanoma_edge.__file__).parents[1])
    return {"MELANOMA_EDGE_PACKAGE": root, "PYTHONPATH": "", "LD_LIBRARY_PATH": "", "LD_PRELOAD": ""}


def _install_wheels(versions: dict[str, str], target: Path, scratch: Path) -> tuple[dict[str, str], ...]:
    """Have pip unpack the Arm wheels of `versions` and of what they need into `target`; return a record of each.

    Everything that is installed on this machine too comes in the same version, and the rest as PINS says.
    """
    constraints, report = scratch / "constraints.txt", scratch / "wheels.json"
    constraints.write_text("".join(f"{name}=={found}\n" for name, found in sorted(wanted_versions().items())), encoding="utf-8")
    target.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-user", "--no-compile", "--disable-pip-version-check", "--no-input"]
    command += ["--target", str(target), "--constraint", str(constraints), "--report", str(report)]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", PYTHON]
    command += [word for name in PLATFORMS for word in ("--platform", name)]
    _output([*command, "pydantic", *(f"{name}=={found}" for name, found in versions.items())], "the wheels for Arm cannot be fetched")
    (target / "melanoma_edge.pth").write_text(_HOOK, encoding="ascii")
    return tuple(
        {
            "name": entry["metadata"]["name"],
            "version": entry["metadata"]["version"],
            "file": entry["download_info"]["url"].rsplit("/", 1)[-1],
            "sha256": entry["download_info"]["archive_info"]["hashes"]["sha256"],
        }
        for entry in read_json(report, "pip's report")["install"]
    )


def wanted_versions() -> dict[str, str]:
    """Return the version of each package that may come to be there, by its normal name: this machine's, else that of PINS."""
    installed = {package.name: package.version for package in importlib.metadata.distributions() if package.name and package.version}
    return PINS | {re.sub(r"[-_.]+", "-", name).lower(): found for name, found in installed.items() if "+" not in found}


def _check(folder: Path, versions: dict[str, str]) -> str:
    """Import there what a worker imports, and return the emulated Python's version; raises Missing where that fails."""
    said = _output([*_start(folder, DEFAULT_CPU), "-c", _CHECK, *versions], "the emulated Python does not work", _environment())
    machine, python, found = json.loads(said)
    if (machine, found) != ("aarch64", versions):
        raise Missing(f"the emulated Python is {machine} with {found}, expected aarch64 with {versions}: run {_SET_UP} again")
    return python


def _output(command: list[str], failed: str = "the emulator does not work", changes: dict[str, str] | None = None) -> str:
    """Return what `command` printed; raises Missing that says what `failed` and why."""
    try:
        done = subprocess.run(
            command, env=os.environ | (changes or {}), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
    except OSError as error:
        raise Missing(f"{failed} ({one_line(error)}): choose another folder with MELANOMA_EDGE_RUNTIMES") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        why = next((line for line in lines if line.startswith("ERROR:")), lines[-1]).removeprefix("ERROR:")
        raise Missing(f"{failed} ({one_line(Exception(why))}): mend that, or go online, and run {_SET_UP} again")
    return done.stdout


def _facts(set_up: SetUp, folder: Path, state: str) -> dict:
    """Return what people want to know of the place."""
    python = f"{set_up.python} (Debian {GUEST_SUITE}, from {set_up.mirror})"
    return {"state": state, "computes": set_up.named(_cpu()), "python": python, "folder": str(folder)}
