"""The bundle that comes with the package: whole, with the figures that were measured, and computing on this machine what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Cli, read_json

from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.files import sha256_file

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"
SHIPPED = REPOSITORY / "samples" / "reference.bundle"


def test_the_readme_shows_what_was_measured() -> None:
    program = "import json, sys, reference_shown; print(reference_shown.markdown(json.load(sys.stdin)['figures']))"
    published = (RESULTS / "reference.json").read_bytes()
    table = subprocess.run([sys.executable, "-c", program], input=published, stdout=subprocess.PIPE, cwd=REPOSITORY / "benchmarks", check=True).stdout.decode().rstrip("\n")
    assert table in (REPOSITORY / "README.md").read_text(encoding="utf-8") and table.count("\n") > 10


def test_what_was_measured_follows_from_the_cross_validation() -> None:
    figures, raw = read_json(RESULTS / "reference.json")["figures"], read_json(RESULTS / "reference_cross_validation.json")
    for precision in ("int8", "float32"):
        [one] = [artifact for artifact in raw["artifacts"] if artifact["name"] == f"default-{precision}.tflite"]
        assert figures[precision] == {name: one["pooled"][name] for name in figures[precision]}
    assert (figures["pictures"], figures["lesions"]) == (raw["pictures"], raw["lesions"])


def test_it_is_whole_and_quotes_what_was_measured() -> None:
    bundle = open_bundle(SHIPPED)
    assert read_json(SHIPPED / "manifest.json")["cross_validation"] == read_json(RESULTS / "reference_cross_validation.json")
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file()) <= 6_000_000
    assert bundle.manifest.name == "reference" and bundle.manifest.licence == "CC BY-NC 4.0" and "LICENCE.txt" in bundle.manifest.files
    parity = read_json(SHIPPED / "evidence" / "parity.json")
    gates = parity["gates"]
    assert parity["manifest_sha256"] == sha256_file(SHIPPED / "manifest.json") and not [gate for gate in gates if gate["outcome"] == "failed"]
    assert {gate["runtime"] for gate in gates if gate["outcome"] == "passed"} >= {"litert", "onnxruntime"}


def test_it_computes_on_this_machine_what_it_says(cli: Cli, tmp_path: Path) -> None:
    cli("samples", tmp_path / "mine.bundle", "--reference", "-q")
    cli("verify", tmp_path / "mine.bundle", "-q")
    golden = [gate for gate in read_json(tmp_path / "mine.bundle" / "evidence" / "parity.json")["gates"] if gate["name"] == "golden"]
    assert golden and {gate["outcome"] for gate in golden} == {"passed"}


def test_its_report_says_of_which_classes_no_lesion_is_known(cli: Cli, tmp_path: Path) -> None:
    cli("report", "reference", "--out", tmp_path / "report.html", "-q")
    assert "Of melanoma and nevus no lesion is known at all" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_it_answers_by_its_name(cli: Cli, drawn: Path) -> None:
    [found] = cli("predict", "reference", sorted((drawn / "melanoma").iterdir())[0], "--json").json["results"]
    assert sum(found["probabilities"].values()) == pytest.approx(1) and len(found["probabilities"]) == 8
