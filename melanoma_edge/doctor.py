"""What this machine has for melanoma-edge and what it lacks, each lack with the command that mends it.

Imports nothing heavy: runtimes are looked up, and only asked in a process of their own.
"""

from __future__ import annotations

from dataclasses import asdict

from melanoma_edge.convert.reference import installed
from melanoma_edge.errors import Error
from melanoma_edge.host import RELEVANT_FLAGS, conditions, nvidia_driver, version
from melanoma_edge.runtimes.process import available, probe

EXTRAS: dict[str, tuple[str, ...]] = {
    "train": ("tensorflow", "tf_keras", "tensorflow-model-optimization", "tf2onnx", "opencv-python-headless"),
    "gpu": ("tensorflow", "nvidia-cudnn-cu12"),
    "test": ("pytest", "pytest-xdist", "hypothesis", "jsonschema", "playwright"),
}
"""The distributions of each extra; for `gpu` one that `tensorflow[and-cuda]` brings."""


def doctor(*, tensorflow: bool = False) -> dict:
    """Return the machine, its runtimes, extras, GPU and reference bundle (its folder, None where there is none), and under `missing` what and how to get it.

    The extra `gpu` counts as missing only where there is a GPU's driver. With `tensorflow`, a child
    process also asks TensorFlow which GPUs it sees (takes seconds).
    """
    reference = installed()
    facts, driver = conditions(), nvidia_driver()
    runtimes = {name: asdict(found) for name, found in available().items()}
    extras = {name: _extra(name, packages) for name, packages in EXTRAS.items()}
    missing = [
        {"what": f"runtime {name}", "reason": found["reason"], "install": found["install"]}
        for name, found in runtimes.items()
        if not found["available"]
    ]
    missing += [
        {"what": f"extra {name}", "reason": f"not installed: {', '.join(extra['missing'])}", "install": extra["install"]}
        for name, extra in extras.items()
        if extra["missing"] and (driver or name != "gpu")
    ]
    return {
        "conditions": facts,
        "int8": {flag: RELEVANT_FLAGS[flag] for flag in facts["cpu"]["relevant_flags"] if "int8" in RELEVANT_FLAGS[flag]},
        "gpu": {"driver": driver, "devices": facts["gpus"], "tensorflow": _tensorflow_gpus() if tensorflow else None},
        "runtimes": runtimes,
        "extras": extras,
        "reference": str(reference) if reference else None,
        "missing": missing,
    }


def _extra(name: str, packages: tuple[str, ...]) -> dict:
    """Return whether the packages of an extra are installed."""
    lacking = [package for package in packages if version(package) is None]
    return {"installed": not lacking, "missing": lacking, "install": f'pip install "melanoma-edge[{name}]"' if lacking else None}


def _tensorflow_gpus() -> dict:
    """Return the GPUs that TensorFlow sees, or why it could not be asked."""
    try:
        return {"gpus": probe("keras")["gpus"], "reason": None}
    except Error as error:
        return {"gpus": [], "reason": str(error)}
