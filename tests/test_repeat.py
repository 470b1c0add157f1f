"""Repeating a run by what its directory says."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import Cli, read_json, snapshot, wait_until
from safetensors.numpy import load_file, save_file

from melanoma_edge.errors import BadInput, ProofFailed
from melanoma_edge.files import sha256_file
from melanoma_edge.model import repeat
from melanoma_edge.model.run import Run, open_run
from melanoma_edge.model.train import refuse_unlike

pytestmark = pytest.mark.xdist_group("repeat")
SMALL = [
    "network=classic", "image_size=32", "width=0.25", "samples_per_class=8", "batch_size=8", "epochs=1", "qat_epochs=1", "min_lesions=2", "folds=2", "validation_folds=2",
    "distillation.teachers=0", "seed=8", "deployment_prior=data",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cli: Cli) -> tuple[Path, Path]:
    """A run, quantization-aware training included, and the folder of its pictures."""
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


def test_pictures_that_moved_are_named_and_others_refused_before_anything_is_trained(trained: tuple[Path, Path], cli: Cli, tmp_path: Path) -> None:
    run, drawn = trained
    moved = tmp_path / "moved"
    shutil.copytree(drawn, moved)
    again = ("train", moved, "--repeat", run, "--out", tmp_path / "again")
    done = cli(*again, "--metadata", moved / "metadata.csv")
    assert "bit for bit" in done.err
    (tmp_path / "again").rename(tmp_path / "first")
    one, *_, last = sorted((moved / "nevus").iterdir())
    one.rename(last.with_name(f"z{last.name}"))  # the same picture, drawn at another time
    said = cli.refused("train", moved, "--repeat", run, "--out", tmp_path / "again", "-q")
    assert "come in another order" in said or "are not those that" in said  # as the table, which names pictures, is found or not
    last.unlink()
    assert f"with its table ({drawn / 'metadata.csv'}) as --metadata" in cli.refused(*again, "--metadata", moved / "metadata.csv", "-q")
    assert not (tmp_path / "again").exists()


def test_pictures_in_another_order_are_refused(trained: tuple[Path, Path]) -> None:
    run = open_run(trained[0])
    rows = [SimpleNamespace(sha256=row.sha256) for row in run.split]
    refuse_unlike(trained[1], SimpleNamespace(rows=rows), run.facts.data_sha256, run)
    with pytest.raises(BadInput, match="come in another order than those of .*give their files the names that they had"):
        refuse_unlike(trained[1], SimpleNamespace(rows=[rows[1], rows[0], *rows[2:]]), run.facts.data_sha256, run)
    with pytest.raises(BadInput, match="are not those that .* was trained on"):
        refuse_unlike(trained[1], SimpleNamespace(rows=rows), "0" * 64, run)


def test_a_repetition_that_was_interrupted_goes_on_and_a_complete_one_is_compared(trained: tuple[Path, Path], cli: Cli, tmp_path: Path) -> None:
    run, _ = trained
    again = ("train", "--repeat", run, "--out", tmp_path / "again")
    with cli.start(*again) as process:
        wait_until(lambda: read_json(tmp_path / "again" / "history.json") != [] if (tmp_path / "again" / "history.json").is_file() else False, process)
        process.kill()
    assert read_json(tmp_path / "again" / "run.json")["state"] == "training"
    done = cli(*again, "--resume")
    assert "bit for bit" in done.err
    weights = snapshot(tmp_path / "again")
    assert "bit for bit" in cli(*again, "--resume").err and snapshot(tmp_path / "again") == weights
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "again", other)
    facts = read_json(other / "run.json")
    facts["data_sha256"] = "0" * 64
    (other / "run.json").write_text(json.dumps(facts), encoding="utf-8")
    assert "does not repeat" in cli.refused("train", "--repeat", run, "--resume", "--out", other, "-q")


def test_a_run_that_started_from_weights_starts_from_its_own_copy(trained: tuple[Path, Path], cli: Cli, tmp_path: Path) -> None:
    run, drawn = trained
    file = tmp_path / "start.safetensors"
    shutil.copyfile(run / "weights" / "float.safetensors", file)
    options = [word for setting in (*SMALL, "qat_epochs=0", "distillation.teachers=0", f"init={file}") for word in ("--set", setting)]
    cli("train", drawn, *options, "--out", tmp_path / "run")
    file.unlink()
    done = cli("train", "--repeat", tmp_path / "run", "--out", tmp_path / "again")
    assert "bit for bit" in done.err and (tmp_path / "run" / "recipe.toml").read_bytes() == (tmp_path / "again" / "recipe.toml").read_bytes()
    first, second = (read_json(tmp_path / name / "run.json") for name in ("run", "again"))
    assert first["init_sha256"] == second["init_sha256"] is not None
    with open(tmp_path / "run" / "init.safetensors", "ab") as copy:
        copy.write(b" ")
    assert "is missing or was altered" in cli.refused("train", "--repeat", tmp_path / "run", "--out", tmp_path / "third", "-q")
    assert not (tmp_path / "third").exists()


def altered(run: Run, folder: Path) -> Run:
    """A copy of `run` with one bit of a weight turned, as run.json says."""
    shutil.copytree(run.path, folder)
    tensors = load_file(folder / "weights" / "float.safetensors")
    name = sorted(tensors)[0]
    tensors[name].reshape(-1).view(np.uint32)[0] ^= 1
    save_file(tensors, folder / "weights" / "float.safetensors")
    return replace(run, path=folder, facts=run.facts.model_copy(update={"weights": {**run.facts.weights, "float": sha256_file(folder / "weights" / "float.safetensors")}}))


def test_one_bit_more_is_told_with_what_can_explain_it(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run = open_run(trained[0])
    repeat.require_same(run, run)
    other = altered(run, tmp_path / "other")
    with pytest.raises(ProofFailed, match="the float weights of .* are not those of .* \\(nothing that a run writes down explains it"):
        repeat.require_same(run, other)
    conditions = {**run.facts.conditions, "python": "3.1", "gpus": ["a GPU"], "versions": {**run.facts.conditions["versions"], "tensorflow": "1.0", "onnx": "0.1"}}
    computations = tuple(one.model_copy(update={"device": "gpu", "names": ("a GPU",)}) for one in run.facts.computations)
    elsewhere = replace(other, facts=other.facts.model_copy(update={"conditions": conditions, "computations": computations}))
    with pytest.raises(ProofFailed) as told:
        repeat.require_same(run, elsewhere)
    assert all(words in str(told.value) for words in ("GPUs a GPU, was none", "Python 3.1, was ", "tensorflow 1.0, was ", "devices gpu (a GPU) x 1, was cpu ("))
    assert "onnx" not in str(told.value), "which computes nothing here"


def test_the_same_tensors_in_another_file_are_the_same(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run = open_run(trained[0])
    shutil.copytree(run.path, tmp_path / "other")
    file = tmp_path / "other" / "weights" / "qat.safetensors"
    save_file(load_file(file), file, {"written by": "another version"})
    other = replace(run, path=tmp_path / "other", facts=run.facts.model_copy(update={"weights": {**run.facts.weights, "qat": sha256_file(file)}}))
    assert other.facts.weights != run.facts.weights
    repeat.require_same(run, other)


def test_what_is_otherwise_here_is_said_beforehand(trained: tuple[Path, Path]) -> None:
    run = open_run(trained[0])
    assert repeat.foreseen(run) == []
    elsewhere = replace(run, facts=run.facts.model_copy(update={"conditions": {**run.facts.conditions, "python": "3.1"}, "computations": run.facts.computations * 2}))
    [python, ways] = repeat.foreseen(elsewhere)
    assert python.endswith(", was 3.1") and "computed in 2 ways" in ways


def test_other_numbers_of_usable_cores_are_said_beforehand(trained: tuple[Path, Path]) -> None:
    """A process that is held to some of the cores adds in another order; runs of earlier versions say only how many cores there were."""
    run = open_run(trained[0])
    cpu = run.facts.conditions["cpu"]
    assert cpu["usable_cores"] == len(os.sched_getaffinity(0))
    held = lambda cpu: replace(run, facts=run.facts.model_copy(update={"conditions": {**run.facts.conditions, "cpu": cpu}}))
    [said] = repeat.foreseen(held({**cpu, "usable_cores": 99}))
    assert said == f"cores {cpu['usable_cores']}, was 99"
    [said] = repeat.foreseen(held({name: value for name, value in cpu.items() if name != "usable_cores"} | {"logical_cores": 98}))
    assert said == f"cores {cpu['usable_cores']}, was 98"


@pytest.mark.parametrize("more", [("--set", "epochs=2"), ("--recipe", "demo"), ("--recipe", "default"), ("--folds", 2), ("--licences", "CC-0"), ("--xla",), ("--seed", 3)])
def test_what_contradicts_is_refused(trained: tuple[Path, Path], cli: Cli, tmp_path: Path, more: tuple) -> None:
    said = cli.refused("train", "--repeat", trained[0], *more, "--out", tmp_path / "again")
    assert "--repeat takes recipe, licences and arithmetic from the run" in said and not (tmp_path / "again").exists()


def test_several_workers_cannot_repeat(trained: tuple[Path, Path], cli: Cli, tmp_path: Path) -> None:
    together = json.dumps({"cluster": {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}, "task": {"type": "worker", "index": 0}})
    done = cli("train", "--repeat", trained[0], "--out", tmp_path / "again", "-q", code=2, env={"TF_CONFIG": together})
    assert "cannot be repeated by several workers: unset TF_CONFIG" in done.err


def test_a_folder_that_is_no_run_is_refused(cli: Cli, tmp_path: Path) -> None:
    assert "run.json" in cli.refused("train", "--repeat", tmp_path, "--out", tmp_path / "again")
