"""The report: self-contained, complete, safe against what data may be called, true to its files."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import re
import shutil
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_bundle import write_bundle
from tiny_run import write_bundle_of, write_run

from melanoma_edge import NOTICE
from melanoma_edge.contract import EpochRow, Interval
from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.errors import BadInput
from melanoma_edge.files import sha256_file
from melanoma_edge.model import run as runs
from melanoma_edge.proof import plot_style, plots
from melanoma_edge.proof.layers_model import Layers
from melanoma_edge.proof.predict import DOMAIN
from melanoma_edge.proof.report import report

SECTIONS = ("scores", "training", "performance", "examples", "parity", "latency", "data", "conditions")
HOSTILE = ("<script>alert(1)</script>", 'a&b"', "$\\frac{'nevus'}")
VOID = {"meta", "img", "source", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """A parsed report: refuses tags that do not match, and keeps what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, str | None]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: dict[str | None, list[str]] = {None: []}
        self.figures: dict[str, list[float]] = {}
        self._row: str | None = None
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        held = dict(attributes)
        assert len(held) == len(attributes), "an attribute stands twice"
        self.tags.append((tag, held))
        if tag == "tr":
            self._row = held.get("data-figure")
        if tag == "data" and self._row:
            self.figures.setdefault(self._row, []).append(float(held["value"]))
        if tag not in VOID:
            self.open.append((tag, held.get("id") if tag == "section" else None))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1][0] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        section = next((name for _, name in reversed(self.open) if name), None)
        if not any(tag == "style" for tag, _ in self.open):
            self.words.setdefault(section, []).append(data)

    def text(self, section: str | None = None) -> str:
        """Return the words of a section, or of the whole page, with single spaces."""
        parts = [word for words in self.words.values() for word in words] if section is None else self.words[section]
        return " ".join(" ".join(parts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [held for name, held in self.tags if name == tag]


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay plots out but do not draw them, for speed, except in tests that ask for `drawn`."""
    monkeypatch.setattr(plot_style, "DPI", 30)
    if "drawn" not in request.fixturenames:
        buffer = io.BytesIO()
        Image.new("RGB", (9, 9)).save(buffer, "png")
        monkeypatch.setattr(plots, "png", lambda made: buffer.getvalue())


@pytest.fixture
def drawn() -> None:
    """Ask for plots that are drawn."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a run and a bundle of it, for reading only."""
    folder = tmp_path_factory.mktemp("original")
    run = write_run(folder / "runs" / "tiny")
    return run.path, write_bundle_of(run, folder / "tiny.bundle")


@pytest.fixture
def run(original: tuple[Path, Path], tmp_path: Path) -> Path:
    """Return a copy of the run that a test may spoil; its pictures are those of the original."""
    return Path(shutil.copytree(original[0], tmp_path / "tiny"))


@pytest.fixture
def bundle(original: tuple[Path, Path], tmp_path: Path) -> Path:
    """Return a copy of the bundle that a test may spoil."""
    return Path(shutil.copytree(original[1], tmp_path / "tiny.bundle"))


def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_a_bundle_report_is_complete_and_self_contained(bundle: Path, drawn: None) -> None:
    lines: list[str] = []
    path = report(bundle, command="melanoma-edge report tiny.bundle", progress=lines.append)
    assert path == bundle / "evidence" / "report.html" and "writing" in lines
    open_bundle(bundle)
    check_self_contained(path)
    found = page(path)
    assert [held["id"] for held in found.all("section") if "id" in held] == list(SECTIONS)
    assert NOTICE in found.text() and DOMAIN in found.text()
    assert "not shown" not in found.text() and "not measured yet" not in found.text()
    names = " ".join(held["alt"] for held in found.all("img"))
    pictured = ("epochs", "augmentation", "ROC", "Reliability", "reach the threshold", "Recall", "difference to the reference", "against float32")
    for words in (*pictured, "timed runs"):
        assert words in names, words


def test_a_run_report_is_complete_and_self_contained(run: Path) -> None:
    path = report(run)
    assert path == run / "report.html"
    check_self_contained(path)
    found = page(path)
    assert [held["id"] for held in found.all("section") if "id" in held] == list(SECTIONS)
    assert "melanoma-edge export tiny" in found.text("parity") and "not measured yet" in found.text("parity")
    assert "melanoma-edge bench BUNDLE" in found.text("latency")


def check_self_contained(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = Page(text)
    for tag, held in found.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        assert not [name for name in held if name.startswith("on")]
        for name in ("src", "srcset", "href", "action", "data", "poster", "background"):
            assert (held.get(name) or "#").startswith(("data:image/", "#")), (tag, held)
    style = re.search("<style>(.*?)</style>", text, re.DOTALL).group(1)
    assert "url(" not in style and "@import" not in style and "://" not in style
    policy = next(held["content"] for held in found.all("meta") if held.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:")
    assert found.all("img") and all((held.get("alt") or "").strip() for held in found.all("img"))
    assert found.all("th") and all(held.get("scope") for held in found.all("th"))
    assert found.all("html")[0]["lang"] == "en" and text.startswith("<!doctype html>")
    targets = {held["href"][1:] for held in found.all("a")}
    assert targets <= {held.get("id") for _, held in found.tags}


def test_figures_are_those_of_the_evaluation(run: Path) -> None:
    evaluation = json.loads((run / runs.EVALUATION_FILE).read_text(encoding="utf-8"))
    figures = page(report(run)).figures
    for key in ("balanced_accuracy", "accuracy", "macro_f1", "macro_auc", "positive_auc", "positive_sensitivity_at_90_specificity", "ece", "ece_at_priors"):
        assert figures[key] == [evaluation[which]["scores"][key]["value"] for which in ("qat", "float")]
    for name, recall in evaluation["qat"]["scores"]["recall"].items():
        assert figures[f"recall/{name}"][0] == recall["value"]
    for key in ("positive_auc_against", "called_positive"):
        scores = evaluation["qat"]["scores"][key]
        assert len(scores) == 2 and [figures[f"{key}/{name}"][0] for name in scores] == [one["value"] for one in scores.values()]
        assert f"{key}/melanoma" not in figures


def test_a_figure_that_an_earlier_version_did_not_measure_does_not_stand_there(run: Path) -> None:
    evaluation = json.loads((run / runs.EVALUATION_FILE).read_text(encoding="utf-8"))
    assert "deployment mix of classes" in page(report(run)).text("scores")
    for found in evaluation.values():
        del found["scores"]["ece_at_priors"], found["scores"]["positive_auc_against"], found["scores"]["called_positive"]
    (run / runs.EVALUATION_FILE).write_text(json.dumps(evaluation), encoding="utf-8")
    found = page(report(run, force=True))
    assert "ece_at_priors" not in found.figures and "ece" in found.figures and "deployment mix" not in found.text()
    assert not [key for key in found.figures if key.startswith(("called_positive", "positive_auc_against"))] and "false alarms" not in found.text()


def test_figures_are_those_of_the_manifest(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    found = page(report(bundle))
    artifacts = [manifest.artifacts[1], manifest.artifacts[0], manifest.artifacts[2]]
    assert found.figures["positive_auc"] == [artifact.scores.positive_auc.value for artifact in artifacts]
    value = manifest.artifacts[1].scores.balanced_accuracy
    assert f"{value.value * 100:.1f} %" in found.text().replace("\xa0", " ")
    assert f"({value.low * 100:.1f}–{value.high * 100:.1f})" in found.text()
    assert f"{manifest.artifacts[1].bytes / 1000:,.0f} kB" in found.text()


def with_ptq(bundle: Path) -> dict:
    """Add an artifact quantized after training, with comparisons, to a bundle and return its manifest."""
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    int8 = manifest["artifacts"][1]
    calibration = {"pictures": 5, "per_class": {"melanoma": 3, "nevus": 2}, "sha256": "c" * 64}
    manifest["artifacts"].append(int8 | {"name": "tiny-int8-ptq.tflite", "precision": "int8-ptq", "calibration": calibration})
    losses = {"balanced_accuracy": (0.0, -0.02, 0.03), "positive_sensitivity": (-0.125, -0.25, 0.0), "positive_auc": (None, None, None)}
    found = {name: dict(zip(("value", "low", "high"), values)) for name, values in losses.items()}
    if manifest["positive_class"] is None:
        found |= dict.fromkeys(("positive_sensitivity", "positive_auc"), {"value": None, "low": None, "high": None})
    pairs = (("tiny-float32.tflite", int8["name"]), ("tiny-float32.tflite", "tiny-int8-ptq.tflite"), (int8["name"], "tiny-int8-ptq.tflite"))
    manifest["comparisons"] = [
        {"reference": reference, "candidate": candidate, "pictures": 27, "lesions": 14, "losses": found, "flips": 3 + place}
        for place, (reference, candidate) in enumerate(pairs)
    ]
    golden = json.loads((bundle / "golden" / "golden.json").read_text(encoding="utf-8"))
    golden["logits"]["tiny-int8-ptq.tflite"] = golden["logits"][int8["name"]]
    (bundle / "golden" / "golden.json").write_text(json.dumps(golden), encoding="utf-8")
    manifest["files"]["golden/golden.json"] = sha256_file(bundle / "golden" / "golden.json")
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return manifest


def test_float32_and_both_kinds_of_int8_stand_side_by_side(bundle: Path, drawn: None) -> None:
    manifest = with_ptq(bundle)
    path = report(bundle)
    check_self_contained(path)
    found = page(path)
    by_precision = {artifact["precision"]: artifact for artifact in manifest["artifacts"] if artifact["format"] == "tflite"}
    values = [by_precision[precision]["scores"]["balanced_accuracy"]["value"] for precision in ("float32", "int8-ptq", "int8")]
    assert found.figures["quantized/balanced_accuracy"] == [*values, 0.0, 0.0, 0.0]
    assert found.figures["quantized/positive_sensitivity"][-3:] == [-0.125] * 3
    assert found.figures["quantized/flips"] == [3, 4, 5]
    words = found.text("scores")
    assert "27 pictures" in words and "their 14 lesions" in words and "+0.0 -3.0 to +2.0" in words and "+12.5 +0.0 to +25.0" in words
    assert "5 pictures of the training part" in words and "c" * 64 in words and words.count("undefined") >= 3
    assert found.text("scores").index("int8-ptq − float32") and any("int8-ptq − int8: balanced accuracy +0.0" in held["alt"] for held in found.all("img"))
    assert open_bundle(bundle).default_artifact().precision == "int8"


def test_without_a_positive_class_only_the_balanced_accuracy_is_compared(tmp_path: Path) -> None:
    bundle = write_bundle_of(write_run(tmp_path / "run", positive=""), tmp_path / "tiny.bundle")
    with_ptq(bundle)
    found = page(report(bundle))
    assert [key for key in found.figures if key.startswith("quantized/")] == ["quantized/balanced_accuracy", "quantized/flips"]


def test_a_bundle_without_comparisons_says_nothing_of_them(bundle: Path) -> None:
    assert "Quantized after training" not in page(report(bundle)).text()


def test_the_confusion_matrix_counts_every_test_picture(run: Path) -> None:
    found = page(report(run))
    cells = re.findall(r'style="--share:[\d.]+">(\d+)', (run / "report.html").read_text(encoding="utf-8"))
    assert len(cells) == 9 and sum(map(int, cells)) == len(runs.open_run(run).part("test"))
    assert "Taken for another most often" in found.text("performance")


def test_every_gate_stands_with_its_outcome_in_words(bundle: Path) -> None:
    parity = json.loads((bundle / "evidence" / "parity.json").read_text(encoding="utf-8"))
    found = page(report(bundle))
    outcomes = [gate["outcome"] for gate in parity["gates"]]
    assert {"passed", "failed", "inconclusive", "not run"} == set(outcomes)
    counted = ", ".join(f"{outcomes.count(name)} {name}" for name in ("passed", "failed", "inconclusive", "not run"))
    assert f"Gates: {counted}" in found.text()
    assert found.text("parity").count("failed") >= 2
    for gate in parity["gates"]:
        assert gate["artifact"] in found.text("parity") or gate["artifact"] == "all"
        assert gate["requirement"].replace("<=", "≤") in found.text("parity")
        assert not gate["reason"] or gate["reason"] in found.text("parity")
        for flip in gate["flips"]:
            assert flip["picture"] in found.text("parity")
    assert "litert-arm64 LiteRT 2.3.0 on an emulated processor" in " ".join(found.text("conditions").replace("–", "").split())


def test_latency_is_called_the_host_s(bundle: Path) -> None:
    held = json.loads((bundle / "evidence" / "latency.json").read_text(encoding="utf-8"))
    found = page(report(bundle))
    assert "never phone numbers" in found.text("latency") and "Host latency" in found.text()
    assert "Not comparable: the quick protocol" in found.text("latency")
    for row in held["host"]["runtimes"][0]["artifacts"]:
        assert f"{row['p50_ms']:.2f}" in found.text("latency") and f"{row['p99_ms']:.2f}" in found.text("latency")
    assert "it is not installed" in found.text("latency") and "pip install onnxruntime" in found.text("latency")


def test_data_and_conditions_are_told(run: Path) -> None:
    found = page(report(run, command="melanoma-edge report 'tiny'"))
    for words in ("pictures read", "dermatofibroma", "nevus/broken.png", "an empty file", "1 pictures left out", "tiny pictures"):
        assert words in found.text("data"), words
    for words in ("d" * 64, "melanoma-edge train", "melanoma-edge report 'tiny'", "numpy", "CPU", "100 replicates of lesions, seed 0"):
        assert words in found.text("conditions"), words


def test_classes_without_a_single_known_lesion_are_named(run: Path) -> None:
    assert "no lesion is known at all" not in page(report(run)).text("data")
    found = runs.open_run(run)
    runs.write_split(run / runs.SPLIT_FILE, [replace(row, lesion="") if row.label != "vascular lesion" else row for row in found.split])
    assert "Of melanoma and nevus no lesion is known at all: other photographs of one of their lesions" in page(report(run, force=True)).text("data")


def test_names_from_data_are_escaped(tmp_path: Path) -> None:
    made = write_run(tmp_path / "runs" / "<b>run", classes=HOSTILE, positive=HOSTILE[0], file_name='"><img onerror=alert(2) src=x>')
    bundle = write_bundle_of(made, tmp_path / "bundle")
    for subject in (made.path, bundle):
        path = report(subject, command="melanoma-edge report '<script>'")
        check_self_contained(path)
        text, found = path.read_text(encoding="utf-8"), page(path)
        assert "<script" not in text.lower() and "<img onerror" not in text
        assert escape(HOSTILE[0]) in text
        for section in ("scores", "performance", "examples", "data"):
            assert all(name in found.text(section) for name in HOSTILE), section
        assert '"><img onerror=alert(2) src=x>' in found.text("examples")
    assert all(name in " ".join(held["alt"] for held in found.all("img")) for name in HOSTILE)


def _layers(bundle: Path) -> Layers:
    """Return a comparison of layers with a fault in one of them, made up."""
    none, some = ({"off": off, "largest": 9 * off, "mean_of_off": 2.0 if off else None, "bias": -off / 7, "sqnr_db": 31.25 if off else None} for off in (0.0, 0.125))
    rows = [
        {"layer": name, "operator": "CONV_2D", "values": 8, "candidate": {"tensor": HOSTILE[0]}, "reference": {"tensor": "t"}, "end_to_end": whole, "alone": alone}
        | {"suspect": "off by up to 9 quanta" if alone is some else None}
        for name, whole, alone in (("image", none, none), ("stem", some, some), (HOSTILE[0], some, none))
    ]
    about = {"artifact": "tiny-int8.tflite", "runtime": "litert", "reference": "keras-qat", "unit": "quanta", "pictures": 4}
    pairs = [
        about | {"outcome": "compared", "first_part": "stem", "rows": rows, "notes": ["gives other logits while it is looked into"]},
        about | {"outcome": "compared", "runtime": "onnxruntime", "rows": [row | {"end_to_end": none, "alone": none, "suspect": None} for row in rows]},
        about | {"outcome": "not run", "reason": "the run is not here", "runtime": "litert-builtin"},
    ]
    held = {"bundle": "tiny", "manifest_sha256": sha256_file(bundle / "manifest.json"), "command": "c", "date": "d", "data": "drawn probes", "pictures": 4}
    return Layers.model_validate_json(json.dumps(held | {"pairs": pairs, "seconds": 1.0, "conditions": {}}))


@pytest.mark.parametrize("how", ["as they are", "without differences"])
def test_layers_are_shown_with_their_suspects(bundle: Path, drawn: None, how: str) -> None:
    layers = _layers(bundle)
    if how != "as they are":
        layers = layers.model_copy(update={"pairs": layers.pairs[1:]})
    (bundle / "evidence" / "layers.json").write_text(layers.model_dump_json(), encoding="utf-8")
    path = report(bundle)
    check_self_contained(path)
    found = page(path)
    words = found.text("parity")
    assert HOSTILE[0] in words and "no value of any layer differs" in words and "the run is not here" in words
    shown = "they part first at stem; suspect: stem: off by up to 9 quanta" in words and "12.5 %" in words and "gives other logits" in words
    assert shown == (how == "as they are")
    assert any("over 3 layers" in (held["alt"] or "") and "onnxruntime – litert" not in held["alt"] for held in found.all("img"))


def test_layers_of_another_bundle_are_not_shown(bundle: Path) -> None:
    assert "melanoma-edge verify --layers tiny.bundle" in page(report(bundle)).text("parity")
    layers = _layers(bundle).model_copy(update={"manifest_sha256": "0" * 64})
    (bundle / "evidence" / "layers.json").write_text(layers.model_dump_json(), encoding="utf-8")
    words = page(report(bundle)).text("parity")
    assert "layers.json was measured on another state of this bundle" in words and "they part first" not in words


def test_missing_evidence_is_told_with_the_command(bundle: Path) -> None:
    (bundle / "evidence" / "parity.json").unlink()
    (bundle / "evidence" / "latency.json").unlink()
    found = page(report(bundle))
    for section, command in (("parity", "verify"), ("latency", "bench")):
        assert "not measured yet" in found.text(section) and f"melanoma-edge {command} tiny.bundle" in found.text(section)
    assert "Gates: not measured yet" in found.text() and "not measured" in found.text()


@pytest.mark.parametrize("origin", [None, "not JSON", "[]", '{"run": 3}', '{"run": "/nowhere/run-7"}'])
def test_a_run_that_is_not_here_is_told(bundle: Path, origin: str | None) -> None:
    shutil.rmtree(bundle / "evidence")
    if origin is not None:
        (bundle / "evidence").mkdir()
        (bundle / "evidence" / "origin.json").write_text(origin, encoding="utf-8")
    path = report(bundle)
    check_self_contained(path)
    found = page(path)
    for section in ("training", "performance", "examples", "data", "conditions"):
        assert "not shown: the run is not here;" in found.text(section)
    assert "Recall of each class" in found.text("performance")
    assert "/nowhere" not in found.text()


def test_a_run_with_other_weights_is_not_taken(original: tuple[Path, Path], run: Path, bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    manifest["weights"]["qat"] = "0" * 64
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    found = page(report(bundle))
    assert "has other weights than the bundle was made from" in found.text("training")
    assert "another state of this bundle; measure again" in found.text("parity")
    assert "another state of this bundle; measure again" in found.text("latency")
    (run / "weights" / "qat.safetensors").write_bytes(b"altered")
    (bundle / "evidence" / "origin.json").write_text(json.dumps({"run": str(run)}), encoding="utf-8")
    assert "was altered" in page(report(bundle)).text("training")


def test_damaged_evidence_is_told(bundle: Path) -> None:
    (bundle / "evidence" / "parity.json").write_text('{"gates": 1}', encoding="utf-8")
    (bundle / "evidence" / "latency-samples.json.gz").write_bytes(gzip.compress(b'{"runtimes": {"litert": {}}}'))
    found = page(report(bundle))
    assert "parity.json cannot be read" in found.text("parity") and "melanoma-edge verify tiny.bundle" in found.text("parity")
    assert "does not belong to these figures" in found.text("latency") and "p99" in found.text("latency")


def test_pictures_that_are_gone_or_changed_are_told(run: Path, tmp_path: Path) -> None:
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    data = Path(shutil.copytree(facts["data"], tmp_path / "data"))
    facts["data"] = facts["root"] = str(data)
    (run / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    pictures = sorted(data.rglob("*.png"))
    for picture in pictures[::2]:
        Image.new("RGB", (40, 40), "blue").save(picture)
    for picture in pictures[1::2]:
        picture.unlink()
    text = page(report(run)).text("examples")
    assert "changed since the run was trained" in text and "not here, or not readable" in text
    shutil.rmtree(data)
    found = page(report(run))
    assert f"the data folder {data} is not here" in found.text("examples")
    assert not [held for held in found.all("img") if "test part" in held["alt"]]
    (run / "augmented.png").unlink()
    assert "augmented.png of the run is not here" in page(report(run)).text("training")


def test_examples_are_right_and_wrong(run: Path) -> None:
    text = page(report(run)).text("examples")
    opened = runs.open_run(run)
    logits, rows = opened.logits()["qat/test"], opened.part("test")
    wrong = [row.path for row, top in zip(rows, logits.argmax(axis=1)) if opened.facts.classes[top] != row.label]
    assert wrong and f"{min(8, len(wrong))} of {len(wrong)} mistakes in {len(rows)} pictures" in text
    right, mistakes = text.split("Most confident mistakes")
    assert sum(path in mistakes for path in wrong) == min(8, len(wrong)) and not any(path in right for path in wrong)
    assert all(f"Truth {name}" in right for name in opened.facts.classes)


def test_reliability_is_shown_before_and_after_the_temperature(run: Path) -> None:
    opened = runs.open_run(run)
    text = page(report(run)).text("performance")
    sure, truth = opened.logits()["qat/test"].astype(np.float64), np.array([opened.facts.classes.index(row.label) for row in opened.part("test")])
    for temperature, words in ((1.0, "as trained"), (opened.evaluation()["qat"][0].temperature, "at the temperature fitted")):
        scaled = np.exp(sure / temperature)
        scaled /= scaled.sum(axis=1, keepdims=True)
        top, hits = scaled.max(axis=1), scaled.argmax(axis=1) == truth
        places = np.minimum((top * 15).astype(int), 14)
        error = sum(abs(top[places == place].sum() - hits[places == place].sum()) for place in range(15)) / len(top)
        assert f"{error:.3f} {words}" in text


def test_coverage_and_risk_say_what_the_decision_answers(run: Path) -> None:
    opened = runs.open_run(run)
    decision, rows = opened.evaluation()["qat"][0], opened.part("test")
    scaled = np.exp(opened.logits()["qat/test"].astype(np.float64) / decision.temperature)
    scaled /= scaled.sum(axis=1, keepdims=True)
    answered = scaled.max(axis=1) >= decision.abstention.threshold
    wrong = scaled.argmax(axis=1) != np.array([opened.facts.classes.index(row.label) for row in rows])
    alt = next(held["alt"] for held in page(report(run)).all("img") if "pictures answered" in held["alt"])
    assert alt.endswith(f"by confidence: {answered.mean():.1%} are answered, {wrong[answered].mean():.1%} of them wrong")


def test_maps_of_what_spoke_for_the_answers_stand_beside_the_pictures(run: Path) -> None:
    opened = runs.open_run(run)
    pictures = len(opened.part("test"))
    maps = np.zeros((pictures, 2, 2), np.uint8)
    maps[:, 0, 1] = 255
    runs.write_tensors(run / runs.SALIENCY_FILE, {"qat": maps})
    found = page(report(run))
    shown = [held for held in found.all("img") if held["alt"].startswith("Picture of the test part")]
    veiled = [held for held in found.all("img") if held["alt"].startswith("The same picture under the map")]
    assert shown and len(shown) == len(veiled) and "the run holds no maps" not in found.text()
    for held in veiled:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(held["src"].split(",")[1]))).convert("L"), np.float64)
        half = len(pixels) // 2
        corners = [pixels[:half, :half].mean(), pixels[:half, half:].mean(), pixels[half:, :half].mean(), pixels[half:, half:].mean()]
        assert int(np.argmax(corners)) == 1  # bright where the map is
    check_self_contained(run / "report.html")
    runs.write_tensors(run / runs.SALIENCY_FILE, {"qat": maps[1:]})  # of another test part
    assert "the run holds no maps" in page(report(run)).text("examples")
    (run / runs.SALIENCY_FILE).unlink()  # of an earlier version
    found = page(report(run))
    assert "the run holds no maps" in found.text("examples") and not [held for held in found.all("img") if "under the map" in held["alt"]]


def test_without_a_positive_class_without_int8_and_with_a_class_unseen(tmp_path: Path) -> None:
    made = write_run(tmp_path / "plain", positive="", qat=False, absent_from_test="nevus")
    path = report(made.path)
    check_self_contained(path)
    found = page(path)
    assert "names no positive class" in found.text("performance") and "positive_auc" not in found.figures
    assert "undefined" in found.text("scores") and "no int8 network" in found.text("scores")


def test_a_bundle_without_scores_says_so(tmp_path: Path) -> None:
    found = page(report(write_bundle(tmp_path / "bare.bundle")))
    assert "not measured" in found.text("scores") and "the manifest holds no scores" in found.text()


def test_an_interrupted_write_leaves_the_old_report_whole(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run / "report.html").write_text("old", encoding="utf-8")
    before = sorted(run.iterdir())

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        report(run)
    assert (run / "report.html").read_text(encoding="utf-8") == "old" and sorted(run.iterdir()) == before


def test_the_page_goes_where_it_is_asked_to_and_is_repeatable(run: Path, tmp_path: Path) -> None:
    first, second = report(run, out=tmp_path / "a.html"), report(run, out=tmp_path / "b.html")
    assert first.read_bytes() == second.read_bytes() and not (run / "report.html").exists()
    with pytest.raises(BadInput, match="does not exist"):
        report(run, out=tmp_path / "no" / "a.html")
    with pytest.raises(BadInput):
        report(run, out=tmp_path)


def test_what_is_no_run_and_no_bundle_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="neither a run nor a bundle"):
        report(tmp_path)
    runs.write_tensors(run / runs.LOGITS_FILE, {"qat/test": np.zeros((2, 3), np.float32)})
    with pytest.raises(BadInput, match="does not fit the split"):
        report(run)
    (run / runs.EVALUATION_FILE).write_text('{"float": {}}', encoding="utf-8")
    with pytest.raises(BadInput, match="not a run's evaluation"):
        report(run)


@pytest.mark.parametrize("theme", [plot_style.LIGHT, plot_style.DARK], ids=lambda theme: theme.name)
def test_plots_take_any_names_and_few_values(theme: plot_style.Theme, drawn: None) -> None:
    names = ["$\\frac{$", "$a$ $b$ " * 20, "two\nlines\0", "痣", ""]
    one = Interval(value=0.5, low=None, high=None)
    none = Interval(value=None, low=None, high=None)
    row = EpochRow(
        phase="qat",
        epoch=0,
        loss=1.0,
        accuracy=0.0,
        validation_loss=1.0,
        validation_accuracy=0.0,
        validation_balanced_accuracy=0.0,
        learning_rate=0.1,
        seconds=1.0,
        images_per_second=1.0,
    )
    one_point = {"coverage": np.array([1.0]), "risk": np.array([0.0])}
    bins = {"confidence": np.array([np.nan, 0.7]), "accuracy": np.array([np.nan, 1.0]), "count": np.array([0, 1])}
    pictures = [
        plots.training_curves(theme, [row]),
        plots.recall_dots(theme, names, names[0], [("one", {names[0]: one, names[1]: none}), ("two", {})]),
        plots.roc(theme, [(name, np.array([0.0, 1.0]), np.array([0.0, 1.0]), 0.5) for name in names], names[3]),
        plots.roc(theme, [], None),
        plots.reliability(theme, bins, bins),
        plots.coverage_risk(theme, {"confidence": one_point}, "confidence", (0.0, None)),
        plots.positive_by_truth(theme, np.array([0.0, 1.0]), np.array([0, 1]), names, names[0], 1.0),
        plots.differences(theme, [("same", 0.0, 1e-3)], []),
        plots.differences(theme, [], [("far", 300, None, 1)]),
        plots.task(theme, [(names[0], {"a": one}), (names[1], {"a": none})], {"a": "A"}, 0.01, [(names[0], {names[0]: 0.0}), (names[1], {})], names, None),
        plots.latency(theme, [(names[0], np.full(3, 0.2)), (names[1], np.array([0.1, 5.0]))], names[0]),
    ]
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert plots.training_curves(theme, [row]) == pictures[0]
