"""A cross-validation of drawn pictures as a user makes one: the folds' runs, their bundles, and a bundle of all pictures that quotes them.

A plugin of the tests: its fixtures are there for all of them.
"""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import asdict
from pathlib import Path

import pytest
from conftest import Cli, Done, once, read_json, snapshot, train_options, wait_until

from melanoma_edge.model.runs_folder import newest_interrupted

CLASSES = ("melanoma", "nevus", "vascular lesion")
SETTINGS = {"network": "classic", "image_size": 32, "epochs": 8, "qat_epochs": 1, "samples_per_class": 64, "dropout": 0.0, "learning_rate": 0.002, "validation_folds": 5}
"""The classic network has few layers, which TensorFlow builds and converts in a fraction of the time. Half of what two folds leave would be much to validate on."""
OPTIONS = ["--recipe", "demo", *train_options(**SETTINGS), "--min-lesions", 3, "--conflicts", "drop", "--duplicates", "keep"]
ASKED = ["--tflite", "--precision", "float32,int8", "--licence", "CC0 1.0"]


@pytest.fixture(scope="session")
def two_folds(cli: Cli, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Two folds trained in peace; and the same as if killed between the folds, interrupted in the second, refused
    other data, and brought to their end."""

    def make(home: Path) -> dict:
        data, peaceful, out, seen = home / "data", home / "peaceful", home / "runs" / "demo-1", {}
        for name in CLASSES:
            (data / name).mkdir(parents=True)
            for file in sorted((drawn / name).iterdir())[:14]:
                shutil.copy(file, data / name)
        shutil.copy(drawn / "metadata.csv", data)
        done = cli("train", data, *OPTIONS, "--folds", 2, "--out", peaceful)
        seen["out"], seen["err"] = done.out, done.err

        as_if_interrupted(peaceful, out)
        shutil.rmtree(out / "fold-1")
        (out / "fold-1").mkdir()
        shutil.copy(peaceful / "fold-1" / "recipe.toml", out / "fold-1")  # what is written before a run has begun
        process = cli.start("train", "--resume", cwd=home)
        history = out / "fold-1" / "history.json"
        wait_until(lambda: history.exists() and read_json(history), process)
        process.send_signal(signal.SIGINT)
        seen["interrupt"], seen["code"] = process.communicate(timeout=120)[1].decode(), process.returncode
        seen["facts"], seen["before"] = read_json(out / "folds.json"), snapshot(out)
        seen["newest"] = newest_interrupted(home / "runs").relative_to(home).as_posix()
        seen["export"] = cli.refused("export", out / "fold-1", cwd=home)
        shutil.copy(sorted((drawn / "nevus").iterdir())[20], data / "nevus" / "more.png")
        seen["other data"] = cli.refused("train", "--resume", "-q", cwd=home)
        (data / "nevus" / "more.png").unlink()
        seen["unchanged"] = snapshot(out) == seen["before"]
        seen["result"] = cli("train", "--resume", "--json", "-q", cwd=home).json
        return seen

    folder, seen = once(tmp_path_factory, "folds", make)
    return seen | {"home": folder, "data": folder / "data", "peaceful": folder / "peaceful", "resumed": folder / "runs" / "demo-1"}


@pytest.fixture(scope="session")
def pooled(cli: Cli, two_folds: dict, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The bundles of two folds: interrupted in the second and brought to their end."""

    def make(home: Path) -> dict:
        out, seen = home / "bundles" / "peaceful", {}
        shutil.copytree(two_folds["peaceful"], home / "runs" / "peaceful")
        process = cli.start("export", "runs/peaceful", *ASKED, cwd=home)
        wait_until(lambda: (out / "fold-0.bundle" / "evidence" / "parity.json").exists(), process)
        process.send_signal(signal.SIGINT)
        seen["interrupt"], seen["code"] = process.communicate(timeout=120)[1].decode(), process.returncode
        seen["before"] = snapshot(out)
        done = cli("export", *ASKED, cwd=home)
        seen["out"], seen["err"], seen["after"] = done.out, done.err, snapshot(out)
        again = cli("export", "runs/peaceful", *ASKED, "--json", "-q", cwd=home)
        seen["again"], seen["unchanged"] = again.json, snapshot(out) == seen["after"]
        return seen

    folder, seen = once(tmp_path_factory, "pooled", make)
    return seen | {"home": folder, "folds": folder / "runs" / "peaceful", "out": folder / "bundles" / "peaceful", "said": seen["out"]}


@pytest.fixture(scope="session")
def whole(cli: Cli, two_folds: dict, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The run of all pictures of the two folds, its bundle, and what making them printed."""

    def make(home: Path) -> dict:
        trained = cli("train", two_folds["data"], *OPTIONS, "--set", "folds=1", "--out", home / "run")
        exported = cli("export", home / "run", "--tflite", "--precision", "float32,int8,int8-ptq", "--out", home / "whole.bundle")
        return {"trained": asdict(trained), "exported": asdict(exported)}

    folder, said = once(tmp_path_factory, "whole", make)
    return {"run": folder / "run", "bundle": folder / "whole.bundle", "data": two_folds["data"], **{name: Done(**done) for name, done in said.items()}}


@pytest.fixture(scope="session")
def quoted(cli: Cli, whole: dict, pooled: dict, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """A bundle of the run of all pictures that quotes the two folds, its report, and what exporting printed."""

    def make(home: Path) -> dict:
        asked = ["--tflite", "--precision", "float32,int8", "--cross-validation", pooled["out"] / "cross-validation.json", "--licence", "CC BY-NC 4.0"]
        asked += ["--attribution", "the [ISIC] Archive", "--attribution", "A. Author\nand others", "--remark", "chosen on *these* pictures"]
        done = cli("export", whole["run"], *asked, "--out", home / "quoted.bundle")
        cli("report", home / "quoted.bundle", "-q")
        return asdict(done)

    folder, done = once(tmp_path_factory, "quoted", make)
    return {"bundle": folder / "quoted.bundle", "file": pooled["out"] / "cross-validation.json", "run": whole["run"], "done": Done(**done)}


def as_if_interrupted(done: Path, folder: Path) -> Path:
    """Copy the folds `done` to `folder`, where they still say that they are in training after the first."""
    shutil.copytree(done, folder)
    facts = read_json(folder / "folds.json")
    (folder / "folds.json").write_text(json.dumps(facts | {"state": "training", "networks": {}, "runs": facts["runs"][:1]}, indent=2), encoding="utf-8")
    return folder
