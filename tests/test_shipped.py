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


def test_what_the_prose_says_was_measured() -> None:
    figures, raw = read_json(RESULTS / "reference.json")["figures"], read_json(RESULTS / "reference_cross_validation.json")
    int8, classes = figures["int8"], raw["classes"]
    [confusion] = [one["confusion"] for one in raw["artifacts"] if one["name"] == "default-int8.tflite"]
    [flips] = [one["flips"] for one in raw["comparisons"] if one["candidate"] == "default-int8.tflite"]
    melanoma, nevus = (confusion[classes.index(name)] for name in ("melanoma", "nevus"))
    short = {name: figures["judged"][name]["target"] - figures["judged"][name]["value"] for name in ("balanced_accuracy", "macro_auc")}
    called, each, gates = int8["called_positive"]["nevus"]["value"], figures["called_positive_over_folds"]["nevus"], figures["gates"]
    abstention = figures["abstention"]
    area = {method: sum(values) / len(values) for method, values in abstention["area_each_fold"].items()}
    answered = abstention["non_lesions_answered_each_fold"]
    lost = abstention["energy_minus_confidence"]
    [shipped] = [artifact["non_lesions"] for artifact in read_json(SHIPPED / "manifest.json")["artifacts"] if artifact["name"] == "default-int8.tflite"]
    rates = {rate["method"]: rate["answered"] for rate in shipped["rates"]}
    said = {
        "README.md": [
            f"Balanced accuracy is missed by {100 * short['balanced_accuracy']:.1f} points, macro AUC by {short['macro_auc']:.3f}.",
            f"Of none of the {sum(melanoma)} melanomas and {sum(nevus)} nevi is the lesion known",
            f"the AUC is {int8['positive_auc_against']['nevus']['value']:.3f}, and at the models' own thresholds {100 * called:.0f} % of the nevi are called melanoma",
            f"{melanoma[classes.index('nevus')]} of {sum(melanoma)} melanomas get nevus as their first answer",
            f"int8 loses at most {-100 * figures['int8_minus_float32']['low']:.1f} points of balanced accuracy",
            f"{flips} of {figures['pictures']:,} first answers differ",
            f"Of the {sum(gates.values())} gates of the five folds' bundles none failed: {gates['passed']} passed, {gates['inconclusive']} are **inconclusive**",
            f"and {gates['not run']} concern runtimes that were not asked for",
            f"Of {shipped['pictures']} drawn pictures without any (plain colours, text, mugs, bare skin ...) the reference bundle's int8 file answers {rates['confidence']} by confidence and {rates['energy']} by energy",
        ],
        "docs/decisions.md": [
            f"{100 * called:.0f} % of the nevi are called melanoma ({100 * each['lowest']:.0f} to {100 * each['highest']:.0f} % by single models)",
            f"of all pictures of other classes together {100 * (1 - int8['positive_specificity_of_decision']['value']):.0f} %",
            f"confidence answered {min(answered['confidence'])} to {max(answered['confidence'])} of the {abstention['non_lesions']} and energy {min(answered['energy'])} to {max(answered['energy'])}",
            f"{area['confidence']:.4f} on average against {area['energy']:.4f}; the paired difference is {lost['value']:.3f} (95 % interval {lost['low']:.3f} to {lost['high']:.3f})",
        ],
    }
    assert "failed" not in gates and all(one < other for one, other in zip(*abstention["area_each_fold"].values())), "in every fold"
    for file, sentences in said.items():
        text = " ".join((REPOSITORY / file).read_text(encoding="utf-8").split())
        assert [sentence for sentence in sentences if sentence not in text] == []


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


def test_its_report_quotes_in_pictures_and_says_how_to_measure_a_copy(cli: Cli, tmp_path: Path) -> None:
    cli("report", "reference", "--out", tmp_path / "report.html", "-q")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Confusion matrix of default-int8.tflite, by cross-validation" in page and "Recall of each class by cross-validation" in page
    assert "melanoma-edge samples my.bundle --reference &amp;&amp; melanoma-edge bench my.bundle" in page and "bench reference.bundle" not in page


def test_it_answers_by_its_name(cli: Cli, drawn: Path) -> None:
    [found] = cli("predict", "reference", sorted((drawn / "melanoma").iterdir())[0], "--json").json["results"]
    assert sum(found["probabilities"].values()) == pytest.approx(1) and len(found["probabilities"]) == 8
