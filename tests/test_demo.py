"""The demo, whole, as a new user runs it (minutes; `make test-slow`)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_demo_ends_with_a_report_and_no_failed_gate(tmp_path: Path) -> None:
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "melanoma_edge", "demo", "--out", "demo"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    print(f"demo: {time.monotonic() - started:.0f} s")  # noted, not judged: machines differ
    report = Path(done.stdout.strip().splitlines()[-1].removeprefix("report: "))
    assert (tmp_path / report).stat().st_size > 100_000
    manifest = json.loads((tmp_path / "demo" / "demo.bundle" / "manifest.json").read_text(encoding="utf-8"))
    for artifact in manifest["artifacts"]:
        assert 0.80 <= artifact["scores"]["accuracy"]["value"] <= 0.95, artifact["name"]
    parity = json.loads((tmp_path / "demo" / "demo.bundle" / "evidence" / "parity.json").read_text(encoding="utf-8"))
    assert not [gate for gate in parity["gates"] if gate["outcome"] == "failed"]
