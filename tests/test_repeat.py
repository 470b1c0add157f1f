"""Repeating a run from its directory alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Cli, read_json

from melanoma_edge.errors import ProofFailed
from melanoma_edge.model import repeat
from melanoma_edge.model.run import open_run

pytestmark = pytest.mark.xdist_group("repeat")
SMALL = [
    "image_size=32", "width=0.25", "samples_per_class=8", "batch_size=8", "epochs=1", "qat_epochs=1", "min_lesions=2", "folds=2", "validation_folds=2",
    "distillation.teachers=1", "seed=8", "deployment_prior=data",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cli: Cli) -> tuple[Path, Path]:
    """A run, teacher and quantization-aware training included, and the folder of its pictures."""
    home = tmp_path_factory.mktemp("repeat")
    cli("samples", home / "drawn", "--per-class", 6, "--size", 40)
    options = [word for setting in SMALL for word in ("--set", setting)]
    cli("train", home / "drawn", *options, "--metadata", home / "drawn" / "metadata.csv", "--out", home / "run")
    return home / "run", home / "drawn"


def test_a_run_is_repeated_from_its_directory_alone_to_the_bit(trained: tuple[Path, Path], cli: Cli, tmp_path: Path) -> None:
    run, _ = trained
    done = cli("train", "--repeat", run, "--out", tmp_path / "again")
    assert f"the weights are those of {run}, bit for bit" in done.err
    first, second = (read_json(path / "run.json") for path in (run, tmp_path / "again"))
    assert first["weights"] == second["weights"] and set(first["weights"]) == {"float", "qat"} and first["data_sha256"] == second["data_sha256"]
    assert (run / "recipe.toml").read_bytes() == (tmp_path / "again" / "recipe.toml").read_bytes()
    assert (run / "split.csv").read_bytes() == (tmp_path / "again" / "split.csv").read_bytes()


def test_pictures_that_moved_are_named_and_others_refused(trained: tuple[Path, Path], cli: Cli, tmp_path: Path) -> None:
    run, drawn = trained
    moved = tmp_path / "moved"
    shutil.copytree(drawn, moved)
    done = cli("train", moved, "--repeat", run, "--metadata", moved / "metadata.csv", "--out", tmp_path / "again")
    assert "bit for bit" in done.err
    next((moved / "nevus").iterdir()).unlink()
    done = cli("train", moved, "--repeat", run, "--metadata", moved / "metadata.csv", "--out", tmp_path / "other", code=2)
    assert "is not what the run learnt from that is to be repeated" in done.err and not (tmp_path / "other").exists()


def test_a_run_that_started_from_weights_starts_from_its_own_copy(trained: tuple[Path, Path], cli: Cli, tmp_path: Path) -> None:
    run, drawn = trained
    file = tmp_path / "start.safetensors"
    shutil.copyfile(run / "weights" / "float.safetensors", file)
    options = [word for setting in (*SMALL, "qat_epochs=0", "distillation.teachers=0", f"init={file}") for word in ("--set", setting)]
    cli("train", drawn, *options, "--out", tmp_path / "run")
    file.unlink()
    done = cli("train", "--repeat", tmp_path / "run", "--out", tmp_path / "again")
    assert "bit for bit" in done.err
    assert read_json(tmp_path / "run" / "run.json")["init_sha256"] == read_json(tmp_path / "again" / "run.json")["init_sha256"]


def test_other_weights_are_told_with_what_can_explain_them(trained: tuple[Path, Path]) -> None:
    run = open_run(trained[0])
    conditions = {**run.facts.conditions, "python": "3.1", "versions": {**run.facts.conditions["versions"], "tensorflow": "1.0"}}
    other = replace(run, facts=run.facts.model_copy(update={"weights": {**run.facts.weights, "qat": "0" * 64}, "conditions": conditions}))
    repeat.require_same(run, run)
    with pytest.raises(ProofFailed, match="the qat weights of .* are not those of .* \\(other conditions: .*Python 3.1, was .*tensorflow 1.0, was "):
        repeat.require_same(run, other)


@pytest.mark.parametrize("more", [("--set", "epochs=2"), ("--recipe", "demo"), ("--folds", 2), ("--licences", "CC-0"), ("--xla",), ("--resume",), ("--seed", 3)])
def test_what_contradicts_is_refused(trained: tuple[Path, Path], cli: Cli, tmp_path: Path, more: tuple) -> None:
    said = cli.refused("train", "--repeat", trained[0], *more, "--out", tmp_path / "again")
    assert "--repeat takes recipe, licences and arithmetic from the run" in said and not (tmp_path / "again").exists()


def test_a_folder_that_is_no_run_is_refused(cli: Cli, tmp_path: Path) -> None:
    assert "run.json" in cli.refused("train", "--repeat", tmp_path, "--out", tmp_path / "again")
