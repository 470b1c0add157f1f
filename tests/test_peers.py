"""Ours beside other networks: everything timed and listed, the accuracy of what was trained on the same folds, and one line where something does not fit."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import Cli, once, read_json, snapshot, train_options
from PIL import Image
from safetensors.numpy import load_file

from melanoma_edge.data.split import TEST, grouped_hash
from melanoma_edge.model.run import open_run

REPOSITORY = Path(__file__).parents[1]
BENCHMARKS, BUNDLE = REPOSITORY / "benchmarks", REPOSITORY / "samples" / "reference.bundle"
CLASSES = ("melanoma", "nevus", "vascular lesion")
SETTINGS = {"network": "classic", "image_size": 32, "epochs": 1, "qat_epochs": 0, "samples_per_class": 8, "validation_folds": 5}
FILES = ("litert int8", "litert float32", "onnxruntime int8", "onnxruntime float32")
NETWORKS = ("edge-residual", "mobilenetv3-small")

pytestmark = [
    pytest.mark.skipif(any(importlib.util.find_spec(name) is None for name in ("tensorflow", "tf_keras", "tf2onnx")), reason="TensorFlow is not installed here"),
    pytest.mark.skipif(not BUNDLE.is_dir(), reason="samples/reference.bundle is not in this checkout: make reference"),
    pytest.mark.xdist_group("peers"),
]


def program(name: str, *arguments: object, code: int = 0) -> tuple[str, str]:
    """Run a program of benchmarks/ to its end and return what it wrote to standard output and error."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, str(BENCHMARKS / name), *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def modules():
    """The programs' parts as modules."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import peers
        import peers_models
        import peers_shown
    finally:
        sys.path.remove(str(BENCHMARKS))
    return SimpleNamespace(peers=peers, models=peers_models, shown=peers_shown)


@pytest.fixture(scope="session")
def folds(cli: Cli, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two folds of drawn pictures, `folds`, the pictures, `data`, and a MobileNetV3-Small that was trained on the first, below `runs`."""

    def make(home: Path) -> None:
        for name in CLASSES:
            (home / "data" / name).mkdir(parents=True)
            for file in sorted((drawn / name).iterdir())[:14]:
                shutil.copy(file, home / "data" / name)
        shutil.copy(drawn / "metadata.csv", home / "data")
        options = ["--recipe", "demo", *train_options(**SETTINGS), "--min-lesions", 3, "--conflicts", "drop", "--duplicates", "keep"]
        cli("train", home / "data", *options, "--folds", 2, "--out", home / "folds")
        program("peers_training.py", "--quick", "--here", "--fold", 0, "--data", home / "data", "--folds", home / "folds", "--runs", home / "runs")

    return once(tmp_path_factory, "peers", make)[0]


@pytest.fixture(scope="module")
def compared(folds: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The folder of the results, and what the program wrote; the cross-validation of ours says that it is of these pictures."""
    home, kept = tmp_path_factory.mktemp("peers"), [BENCHMARKS / "results", REPOSITORY / "docs"]
    split = open_run(folds / "folds" / "fold-0").split
    crossed = read_json(BENCHMARKS / "results" / "reference_cross_validation.json") | {"data_sha256": grouped_hash(split, [row.group for row in split])}
    (home / "cross-validation.json").write_text(json.dumps(crossed), encoding="utf-8")
    given = ["--bundle", BUNDLE, "--folds", folds / "folds", "--runs", folds / "runs", "--data", folds / "data"]
    before = [snapshot(folder) for folder in kept]
    asked = [word for name in NETWORKS for word in ("--network", name)]
    out, err = program("peers.py", "--quick", *asked, *given, "--cross-validation", home / "cross-validation.json", "--results", home / "results")
    assert [snapshot(folder) for folder in kept] == before, "a quick run stays out of results/ and docs/"
    return SimpleNamespace(results=home / "results", out=out, err=err, given=given, figures=read_json(home / "results" / "peers.json")["figures"])


def test_every_file_of_every_network_is_timed_and_says_how_it_was_made(compared: SimpleNamespace) -> None:
    figures = compared.figures
    assert list(figures["networks"]) == ["melanoma-edge", *NETWORKS] and figures["threads"] == 1 and figures["image_size"] == 176
    assert not figures["comparable"] and figures["not_comparable_because"].startswith("--quick")
    for row in figures["networks"].values():
        assert tuple(row["files"]) == FILES and row["missing"] == {}
        for file in row["files"].values():
            assert 0 < file["p50_ms"] <= file["p90_ms"] <= file["p99_ms"] and file["bytes"] > 0 and file["made"]
            assert [len(rounds) for rounds in file["round_medians_ms"]] == [2, 2] and file["runs"] == 4 * 3
        assert row["files"]["onnxruntime float32"]["decibels_to_float32"] > 60, "the same network"
        assert row["files"]["onnxruntime int8"]["decibels_to_float32"] > 3
    assert figures["networks"]["melanoma-edge"]["multiply_accumulates"] == read_json(BENCHMARKS / "results" / "reference.json")["figures"]["multiply_accumulates"]
    ratio = figures["judged"]["int8_to_float32_litert"]
    of = figures["networks"]["melanoma-edge"]["files"]
    assert ratio["value"] == pytest.approx(of["litert int8"]["p50_ms"] / of["litert float32"]["p50_ms"], abs=1e-4) and ratio["lowest"] <= ratio["highest"]
    assert ratio["outcome"] == ("reached" if ratio["value"] <= 0.5 else "missed")
    assert figures["judged"]["int8_to_rival_int8_litert"]["outcome"] == "not measured", "MobileNetV2 was not asked for"


def test_accuracy_is_that_of_what_was_trained_on_the_same_folds(compared: SimpleNamespace, folds: Path) -> None:
    networks, run = compared.figures["networks"], open_run(folds / "folds" / "fold-0")
    labels, _ = run.truth(TEST)
    found = networks["mobilenetv3-small"]["accuracy"]
    assert (found["folds"], found["of"], found["why_not"]) == (1, 2, None)
    logits = load_file(folds / "runs" / "mobilenetv3-small-fold-0" / "logits.safetensors")["test"]
    training, deployment = run.priors()
    assert np.allclose(training, deployment), "the priors change no answer"
    right = logits.argmax(axis=1) == labels
    recall = np.mean([right[labels == label].mean() for label in np.unique(labels)])
    assert found["float32"]["balanced_accuracy"]["value"] == pytest.approx(recall)
    for precision in ("float32", "int8"):
        balanced = found[precision]["balanced_accuracy"]
        assert found[precision]["pictures"] == len(labels) and 0 <= balanced["low"] <= balanced["value"] <= balanced["high"] <= 1
    ours = read_json(BENCHMARKS / "results" / "reference_cross_validation.json")["artifacts"]
    pooled = {one["precision"]: one["pooled"] for one in ours if one["format"] == "tflite"}
    assert {precision: networks["melanoma-edge"]["accuracy"][precision]["balanced_accuracy"] for precision in ("float32", "int8")} == {
        precision: pooled[precision]["balanced_accuracy"] for precision in ("float32", "int8")
    }


def test_what_was_not_trained_on_these_folds_says_so(modules: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "folds" / "fold-0").mkdir(parents=True)
    (tmp_path / "runs" / "mobilenetv3-small-fold-0").mkdir(parents=True)
    crossed = BENCHMARKS / "results" / "reference_cross_validation.json"
    asked = SimpleNamespace(cross_validation=crossed, runs=tmp_path / "runs", folds=tmp_path / "folds", data=tmp_path, quick=False)
    found = modules.peers.accuracies(["mobilenetv3-small", "mobilenetv2-0.35", "classic"], asked, tmp_path)
    said = {name: row["why_not"] for name, row in found.items()}
    assert said == {"melanoma-edge": None, "mobilenetv3-small": "not trained: 0 of 1 folds", "mobilenetv2-0.35": "not trained", "classic": "not trained on these folds"}
    assert all(found[name]["int8"] is None and found[name]["float32"] is None for name in said if name != "melanoma-edge")


def test_ours_in_its_shape_before_is_judged_where_nothing_else_differs(modules: SimpleNamespace, tmp_path: Path) -> None:
    crossed = BENCHMARKS / "results" / "reference_cross_validation.json"
    asked = SimpleNamespace(cross_validation=crossed, runs=tmp_path / "runs", folds=tmp_path / "folds", data=tmp_path, quick=False)
    found = modules.peers.accuracies(["edge-residual"], asked, tmp_path)["edge-residual"]
    held = read_json(BENCHMARKS / "results" / "edge_residual_cross_validation.json")
    pooled = {one["precision"]: one["pooled"] for one in held["artifacts"] if one["format"] == "tflite"}
    assert held["recipe"]["network"] == "edge-residual" and found["folds"] == found["of"] == 5
    assert all(found[precision]["balanced_accuracy"] == pooled[precision]["balanced_accuracy"] for precision in ("int8", "float32"))
    ours = read_json(crossed)
    other = tmp_path / "other.json"
    for changed, said in (({"recipe": ours["recipe"] | {"epochs": 7}}, "trained by another recipe (epochs)"), ({"data_sha256": "0" * 64}, "trained on other pictures")):
        other.write_text(json.dumps(ours | changed), encoding="utf-8")
        found = modules.peers.accuracies(["edge-residual"], SimpleNamespace(**vars(asked) | {"cross_validation": other}), tmp_path)["edge-residual"]
        assert (found["why_not"], found["int8"], found["float32"]) == (said, None, None)


def test_the_table_is_printed_again_without_measuring(compared: SimpleNamespace) -> None:
    before = snapshot(compared.results)
    out, err = program("peers.py", "--markdown", "--results", compared.results)
    assert err == "" and snapshot(compared.results) == before
    lines = [line.strip("| ").split(" | ") for line in out.splitlines() if line.startswith("| `")]
    assert [line[0].strip("`") for line in lines] == ["melanoma-edge", *NETWORKS] and all(len(line) == 10 for line in lines)
    assert "our int8 against our float32, LiteRT" in out and "Not comparable: --quick" in out
    with Image.open(compared.results / "peers.png") as drawn:
        assert drawn.format == "PNG" and min(drawn.size) > 400


def test_what_no_runtime_takes_is_listed_with_its_reason(modules: SimpleNamespace, compared: SimpleNamespace, tmp_path: Path) -> None:
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"no model at all")
    network = modules.models.Network("broken", "a file of words", 1, 1, files={("litert", "int8"): broken}, made={("litert", "int8"): "by hand"})
    assert modules.models.check([network], np.zeros((1, 32, 32, 3), np.uint8)) == {"broken": {}}
    assert network.files == {} and network.missing["litert", "int8"].startswith("by hand, but: litert cannot load broken.tflite")
    row = modules.peers.row(network, {}, {}, {"why_not": "not trained", "int8": None, "float32": None})
    figures = compared.figures | {"networks": compared.figures["networks"] | {"broken": row}}
    shown = modules.shown.markdown(figures)
    assert "| `broken` | 1e-06 M | 1e-06 M | – / – | – | – | – | – | not trained | not trained |" in shown and "Not made: broken, litert int8: by hand, but: litert cannot load" in shown
    assert modules.shown.plot(figures).startswith(b"\x89PNG")


def test_both_networks_of_ours_stand_in_the_plot_where_both_are_known(modules: SimpleNamespace, compared: SimpleNamespace) -> None:
    networks = compared.figures["networks"]
    known = networks | {"edge-residual": networks["edge-residual"] | {"accuracy": networks["melanoma-edge"]["accuracy"]}}
    one, both = (modules.shown.plot(compared.figures | {"networks": rows}) for rows in (networks, known))
    assert one.startswith(b"\x89PNG") and both.startswith(b"\x89PNG") and Image.open(io.BytesIO(one)).height > Image.open(io.BytesIO(both)).height, "one row less below"


def test_other_folds_settings_and_bundles_are_refused_in_one_line(compared: SimpleNamespace, folds: Path, tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        out, err = program("peers.py", "--quick", "--network", "mobilenetv3-small", *compared.given, "--results", tmp_path / "results", *arguments, code=2)
        assert out == "" and not (tmp_path / "results").exists()
        return err.splitlines()[-1]

    assert "is of other pictures than the cross-validation of ours" in refused()
    assert refused("--bundle", tmp_path / "none.bundle").startswith("peers: ")
