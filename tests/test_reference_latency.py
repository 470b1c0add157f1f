"""The published latencies of the reference bundle: the program, small, on a tiny bundle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from conftest import read_json
from tiny_bundle import write_bundle

from melanoma_edge.files import sha256_file

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "reference_latency.py"


def program(folder: Path, *arguments: object, code: int = 0) -> tuple[str, str]:
    environment = os.environ | {"PYTHONPATH": str(PROGRAM.parents[1])}
    done = subprocess.run([sys.executable, str(PROGRAM), *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def test_every_artifact_is_timed_on_one_thread_and_all_cores_and_the_table_is_printed_again(tmp_path: Path) -> None:
    bundle, results = write_bundle(tmp_path / "tiny.bundle"), tmp_path / "results"
    before = sorted(bundle.rglob("*"))
    out, err = program(tmp_path, "--quick", "--bundle", bundle, "--results", results)
    assert sorted(bundle.rglob("*")) == before, "a copy is measured"
    figures = read_json(results / "reference_latency.json")["figures"]
    held = figures["host"]
    assert figures["manifest_sha256"] == sha256_file(bundle / "manifest.json") and "tiny.bundle" in held["command"]
    assert sha256_file(results / held["samples"]) == held["samples_sha256"]
    counts = sorted({1, min(len(os.sched_getaffinity(0)), 4)})
    assert held["threads"] == counts and not held["comparable"] and "not comparable: --quick" in err
    rows = [line.strip("| ").split(" | ")[:3] for line in out.splitlines() if line.startswith("| ")][2:]
    assert rows == [
        [f"{artifact['precision']} {artifact['format']}", {"litert": "LiteRT", "onnxruntime": "ONNX Runtime"}[runtime["name"]], str(runtime["threads"])]
        for runtime in held["runtimes"]
        for artifact in runtime["artifacts"]
    ]
    assert len(rows) == 3 * len(counts)
    assert program(tmp_path, "--markdown", "--results", results)[0] == out


def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    out, err = program(tmp_path, "--bundle", tmp_path, "--results", tmp_path / "results", code=2)
    assert out == "" and err.count("\n") == 1 and "expected a bundle manifest" in err
    (tmp_path / "file").write_text("")
    out, err = program(tmp_path, "--quick", "--results", tmp_path / "file", code=2)
    assert out == "" and err.count("\n") == 1 and "is a file: name a folder" in err
