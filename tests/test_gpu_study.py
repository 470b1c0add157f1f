"""The GPU study: what it says where there is no GPU, how it judges, and, with the processor in the GPU's place, that it runs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Cli, read_json, train_options
from test_train_cli import some_classes

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "gpu_study.py"


def study(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(PROGRAM.parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), *map(str, arguments), "--results", str(folder)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=3000)


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path: Path) -> None:
    done = study(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "not run: no GPU that TensorFlow can use\n")
    assert list(tmp_path.iterdir()) == []


def test_accuracy_is_judged_by_the_spread_of_the_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    specification = importlib.util.spec_from_file_location("gpu_study", PROGRAM)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)

    def side(*values: float) -> list[dict]:
        return [{"float": dict.fromkeys(module.FIGURES, value)} for value in values]

    def within(device: list[dict], cpu: list[dict]) -> bool | None:
        return module.accuracy(device, cpu)["float"]["macro_auc"]["within"]

    assert within(side(0.80, 0.82), side(0.79, 0.83)) is True
    assert within(side(0.70, 0.72), side(0.79, 0.83)) is False
    assert within(side(0.80), side(0.80)) is None
    assert module.accuracy(side(0.70, 0.72), side(0.79, 0.83))["float"]["accuracy"]["difference_of_means"] == pytest.approx(-0.1)


@pytest.mark.slow
def test_the_study_runs_with_the_processor_in_the_gpus_place(cli: Cli, drawn: Path, tmp_path: Path) -> None:
    data = some_classes(drawn, tmp_path / "data", 10)
    settings = train_options(image_size=32, width=0.25, epochs=1, qat_epochs=1, samples_per_class=16, batch_size=16, min_lesions=3)
    small = ["--steps", 3, "--rounds", 2, "--seeds", 2, "--runs", 10]
    results = tmp_path / "results"
    results.mkdir()
    done = study(results, "--device", "cpu", "--provider", "CPUExecutionProvider", "--data", data, *settings, *small)
    assert done.returncode == 0, done.stderr
    found = read_json(results / "gpu_study.json")
    figures = found["figures"]
    assert [(row["mixed_precision"], row["xla"]) for row in figures["throughput"]] == [(None, False), ("bfloat16", False), (None, True), ("bfloat16", True), (None, False)]
    assert all(row["step_alone_images_per_second"] > 0 and row["end_to_end_images_per_second"] > 0 for row in figures["throughput"])
    assert figures["accuracy"].keys() == {"float", "qat"} and len(figures["accuracy"]["qat"]["macro_auc"]["cpu"]) == 2
    assert figures["accuracy"]["float"]["accuracy"]["difference_of_means"] == 0, "the same seeds on the same processor"
    inference = figures["inference"]
    assert inference["largest_difference_of_logits"] == 0 and inference["same_answers"] == inference["pictures"] > 0
    assert inference["CPUExecutionProvider"]["batch_64_images_per_second"] > 0 and found["conditions"]["cpu"]["logical_cores"] >= 1
