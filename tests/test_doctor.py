"""What doctor says about this machine, and the facts that it and the evidence share."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from melanoma_edge.doctor import EXTRAS, doctor
from melanoma_edge.host import Host, conditions, peak_memory_bytes

REPOSITORY = Path(__file__).parents[1]


def test_says_what_is_here() -> None:
    found = doctor()
    json.dumps(found, allow_nan=False)
    assert found["runtimes"]["litert"]["available"] and found["runtimes"]["onnxruntime"]["available"]
    assert found["extras"]["test"] == {"installed": True, "missing": [], "install": None}
    assert found["gpu"]["tensorflow"] is None
    lacking = {name for name, row in found["runtimes"].items() if not row["available"]}
    named = {row["what"] for row in found["missing"]}
    assert {f"runtime {name}" for name in lacking} <= named
    assert found["gpu"]["driver"] or "extra gpu" not in named


def test_a_missing_extra_comes_with_its_command(monkeypatch) -> None:
    monkeypatch.setitem(EXTRAS, "train", ("numpy", "no-such-package"))
    found = doctor()
    assert found["extras"]["train"] == {"installed": False, "missing": ["no-such-package"], "install": 'pip install "melanoma-edge[train]"'}
    assert {"what": "extra train", "reason": "not installed: no-such-package", "install": 'pip install "melanoma-edge[train]"'} in found["missing"]


def test_tensorflow_is_asked_in_a_child_only() -> None:
    before = "tensorflow" in sys.modules
    found = doctor(tensorflow=True)["gpu"]["tensorflow"]
    assert isinstance(found["gpus"], list) and found["reason"] is None
    assert ("tensorflow" in sys.modules) == before


def test_the_extras_are_those_of_setup_cfg() -> None:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    listed = {
        extra: {re.match(r"[A-Za-z0-9._-]+", line)[0] for line in lines.strip().splitlines()}
        for extra, lines in setup["options.extras_require"].items()
    }
    assert {extra: set(packages) - {"nvidia-cudnn-cu12"} for extra, packages in EXTRAS.items()} == listed


def test_conditions_are_plain_and_name_nobody() -> None:
    facts = conditions()
    assert Host.model_validate_json(json.dumps(facts)).model_dump(mode="json") == facts
    assert facts["cpu"]["logical_cores"] >= 1 and facts["cpu"]["flags"] and facts["memory_bytes"] > 2**28
    assert set(facts["cpu"]["relevant_flags"]) <= set(facts["cpu"]["flags"])
    assert facts["versions"]["melanoma-edge"] and facts["versions"]["numpy"] == np.__version__


def test_peak_memory_is_this_process_alone() -> None:
    ballast = np.ones(2**24)
    assert peak_memory_bytes() > ballast.nbytes
    code = "from melanoma_edge.host import peak_memory_bytes; print(peak_memory_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert 2**20 < int(done.stdout) < ballast.nbytes
