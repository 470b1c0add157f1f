"""The study of predict's speed, small, with a tiny model on drawn pictures: what it writes, and where."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import read_json
from tiny_bundle import write_bundle

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "predict_speed.py"


def study(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(PROGRAM.parents[1])}
    return subprocess.run([sys.executable, str(PROGRAM), *map(str, arguments)], cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_bundle(tmp_path_factory.mktemp("speed") / "tiny.bundle")
    manifest = read_json(folder / "manifest.json") | {"positive_class": None}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_quick_study_holds_all_figures_and_stays_out_of_the_results(tiny: Path, drawn: Path, tmp_path: Path) -> None:
    results = sorted((PROGRAM.parent / "results").iterdir())
    done = study(tmp_path, "--quick", "--data", drawn, "--bundle", tiny)
    assert done.returncode == 0, done.stderr
    assert sorted((PROGRAM.parent / "results").iterdir()) == results
    found = read_json(tmp_path / "runs" / "predict_speed.json")
    figures = found["figures"]
    assert figures["quick_and_not_comparable"] is True and figures["model"] == "tiny-int8.tflite" and figures["pictures"] == figures["different_pictures"] == 40
    assert list(figures["one_picture_ms"]) == ["read", "decode", "crop_and_resize", "quality", "inference", "decision"]
    assert all(0 < step["p50"] <= step["p90"] for step in figures["one_picture_ms"].values())
    assert figures["bare_images_per_second"].keys() == {"1_threads", "2_threads"} and figures["first_result_seconds"] < figures["predict_many_seconds"]
    assert figures["predict_images_per_second_whole_command"] < figures["predict_images_per_second_without_start_up"]
    assert figures["target"] == ("reached" if figures["ratio_to_bare"] >= 0.8 else "missed") and 0 < figures["ratio_to_bare"] == figures["ratio_to_bare_rounds"][0]
    assert figures["peak_resident_mib"].keys() == {"40", "80"} and found["conditions"]["cpu"]["logical_cores"] >= 1


def test_a_folder_without_pictures_is_one_line(tmp_path: Path) -> None:
    done = study(tmp_path, "--quick", "--data", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"there are no pictures in {tmp_path}: name their folder with --data\n")
