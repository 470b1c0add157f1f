"""What this machine is: the conditions under which a figure was measured.

Out: plain facts without names of people, folders or hosts, fit for evidence that is published.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from melanoma_edge import __version__
from melanoma_edge.contract import Model

PACKAGES = (
    "numpy",
    "pillow",
    "opencv-python-headless",
    "onnx",
    "ai-edge-litert",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorflow",
    "tf_keras",
    "tensorflow-model-optimization",
    "tf2onnx",
)
"""Distributions whose versions can change a result."""

RELEVANT_FLAGS = {
    "avx2": "256-bit SIMD (x86)",
    "fma": "fused multiply-add (x86)",
    "f16c": "float16 conversion (x86)",
    "avx512f": "512-bit SIMD (x86)",
    "avx512_vnni": "int8 dot product (x86)",
    "avx_vnni": "int8 dot product (x86)",
    "amx_int8": "int8 matrix tiles (x86)",
    "asimd": "NEON SIMD (Arm)",
    "asimdhp": "NEON float16 (Arm)",
    "asimddp": "int8 dot product (Arm)",
    "i8mm": "int8 matrix multiplication (Arm)",
    "feat_dotprod": "int8 dot product (Apple)",
    "feat_i8mm": "int8 matrix multiplication (Apple)",
}
"""CPU flags that decide which kernels a runtime picks."""


class Cpu(Model):
    model: str
    logical_cores: int
    usable_cores: int | None = None
    """Of these, how many this process may run on (taskset, containers); null in files of earlier versions."""
    physical_cores: int | None
    governor: str | None
    """Frequency governor of the first core; null where the system has none or hides it."""
    frequency_mhz: float | None
    """Frequency at the moment of asking."""
    relevant_flags: tuple[str, ...]
    flags: tuple[str, ...]


class Host(Model):
    system: str
    platform: str
    machine: str
    cpu: Cpu
    memory_bytes: int
    gpus: tuple[str, ...]
    """Name, driver and memory of each NVIDIA GPU."""
    python: str
    versions: dict[str, str]


def host() -> Host:
    """Return the facts about this machine and the installed packages."""
    import psutil

    model, flags = _cpu_model_and_flags()
    frequency = psutil.cpu_freq()
    return Host(
        system=platform.system(),
        platform=platform.platform(),
        machine=platform.machine(),
        cpu=Cpu(
            model=model,
            logical_cores=os.cpu_count() or 1,
            usable_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
            physical_cores=psutil.cpu_count(logical=False),
            governor=_read(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
            frequency_mhz=round(frequency.current, 1) if frequency else None,
            relevant_flags=tuple(flag for flag in RELEVANT_FLAGS if flag in flags),
            flags=flags,
        ),
        memory_bytes=psutil.virtual_memory().total,
        gpus=gpus(),
        python=platform.python_version(),
        versions=versions(),
    )


def conditions() -> dict:
    """Return :func:`host` as a dictionary that JSON can hold."""
    return host().model_dump(mode="json")


def versions() -> dict[str, str]:
    """Return the versions of melanoma-edge and of the installed packages that can change a result."""
    return {"melanoma-edge": __version__} | {name: found for name in PACKAGES if (found := version(name)) is not None}


def version(package: str) -> str | None:
    """Return the version of the distribution `package`, or None when it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def gpus() -> tuple[str, ...]:
    """Return `name, driver, memory` of each NVIDIA GPU that the driver's own tool lists."""
    if shutil.which("nvidia-smi") is None:
        return ()
    return tuple(_lines("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"))


def nvidia_driver() -> bool:
    """Return whether an NVIDIA driver is loaded."""
    return Path("/proc/driver/nvidia/version").exists() or bool(gpus())


def load_average() -> tuple[float, float, float]:
    """Return the machine's load average over 1, 5 and 15 minutes."""
    return tuple(round(value, 2) for value in os.getloadavg())


def peak_memory_bytes() -> int:
    """Return the largest resident memory that this process had so far.

    On Linux from VmHWM: getrusage there also counts the process that started this one.
    """
    for line in (_read(Path("/proc/self/status")) or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cpu_model_and_flags() -> tuple[str, tuple[str, ...]]:
    """Return the CPU's name and its flags, as the kernel (Linux) or sysctl (macOS) gives them."""
    if sys.platform == "darwin":
        facts = dict(line.split(": ", 1) for line in _lines("sysctl", "machdep.cpu", "hw.optional") if ": " in line)
        on = [name.rsplit(".", 1)[1].lower() for name, value in facts.items() if name.startswith("hw.optional.") and value == "1"]
        return facts.get("machdep.cpu.brand_string", platform.processor()), tuple(on)
    facts: dict[str, str] = {}
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    arm = f"Arm implementer {facts.get('CPU implementer', '?')} part {facts.get('CPU part', '?')}" if "CPU part" in facts else None
    return facts.get("model name") or arm or platform.machine(), tuple((facts.get("flags") or facts.get("Features") or "").split())


def _lines(*command: str) -> list[str]:
    """Return what `command` printed, line by line; nothing when it fails or takes ten seconds."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def _read(path: Path) -> str | None:
    """Return the file's text without the outer white space, or None when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
