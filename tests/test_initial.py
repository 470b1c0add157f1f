"""Starting from a local weights file: what is taken from it, what starts afresh, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from melanoma_edge import recipes
from melanoma_edge.data.samples import write_samples
from melanoma_edge.errors import BadInput
from melanoma_edge.model import run as runs
from melanoma_edge.model.train import train

SMALL = ["image_size=32", "width=0.25", "samples_per_class=8", "batch_size=8", "epochs=1", "qat_epochs=0", "min_lesions=2", "folds=2", "validation_folds=2", "distillation.teachers=0", "seed=8"]
STILL = [*SMALL, "learning_rate=1e-30", "weight_decay=0"]
"""Trains without moving any weight that a float32 can tell."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "samples"
    write_samples(folder, per_class=6)
    return folder


@pytest.fixture(scope="module", params=["edge"])
def first(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> runs.Run:
    """A trained run of a network."""
    return train(data, recipes.load("default", [*SMALL, f"network={request.param}"]), tmp_path_factory.mktemp("runs") / request.param)


def again(first: runs.Run, data: Path, out: Path, file: Path, settings: list[str] = STILL, **keywords) -> runs.Run:
    return train(data, recipes.load("default", [*settings, f"network={first.recipe.network}", f"init={json.dumps(str(file))}"]), out, **keywords)


def weights(run: runs.Run) -> dict[str, np.ndarray]:
    return load_file(run.weights_file("float"))


@pytest.mark.parametrize("first", ["edge", "classic"], indirect=True)
def test_a_run_starts_where_its_file_ends(first: runs.Run, data: Path, tmp_path: Path) -> None:
    file, said = first.weights_file("float"), []
    second = again(first, data, tmp_path / "second", file, report=lambda event, facts: said.append((event, facts)))
    before, after = weights(first), weights(second)
    trained = [name for name in before if "moving" not in name]  # the statistics follow the pictures
    assert trained and all(np.allclose(after[name], before[name], rtol=1e-5, atol=1e-20) for name in trained)
    assert second.facts.init_fresh == () and (second.path / runs.INIT_FILE).read_bytes() == file.read_bytes()
    assert ("init", {"file": str(file), "fresh": ()}) in said


def test_names_need_no_position(first: runs.Run, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "plain.safetensors"
    save_file({name.split("/", 1)[1]: value for name, value in weights(first).items()}, file)
    found, before = weights(again(first, data, tmp_path / "second", file)), weights(first)
    assert all(np.allclose(found[name], before[name], rtol=1e-5, atol=1e-20) for name in before if "moving" not in name)


@pytest.mark.parametrize("how", ["other shape", "missing", "other classes"])
def test_the_last_layer_starts_afresh_where_the_classes_are_others(first: runs.Run, data: Path, tmp_path: Path, how: str) -> None:
    held, classes = weights(first), {"classes": json.dumps(list(first.facts.classes))}
    head = [name for name in held if name.split("/")[1] == "logits"]
    if how == "other shape":
        held |= {name: np.zeros((*held[name].shape[:-1], 17), np.float32) for name in head}
    elif how == "missing":
        held = {name: value for name, value in held.items() if name not in head}
    else:
        classes = {"classes": json.dumps(["another", *first.facts.classes[1:]])}
    file = tmp_path / "init.safetensors"
    save_file(held, file, classes)
    second = again(first, data, tmp_path / "second", file)
    assert second.facts.init_fresh == ("logits/bias", "logits/kernel")
    found, before = weights(second), weights(first)
    kernel = next(name for name in before if name.endswith("logits/kernel"))
    assert not np.allclose(found[kernel], before[kernel], rtol=0.1)
    assert all(np.allclose(found[name], before[name], rtol=1e-5, atol=1e-20) for name in before if "moving" not in name and name not in head)


def spoiled(first: runs.Run, how: str) -> dict[str, np.ndarray]:
    held = weights(first)
    name = next(name for name in held if name.endswith("kernel"))
    changes = {
        "shape": {name: held[name][..., :1]},
        "nan": {name: np.full_like(held[name], np.nan)},
        "whole numbers": {name: held[name].astype(np.int32)},
        "unknown": {"9999/other/kernel": held[name]},
        "missing": {},
    }
    held |= changes[how]
    if how == "missing":
        del held[name]
    return held


@pytest.mark.parametrize("how, words", [
    ("shape", "expected [3, 3, 3,"), ("nan", "not finite"), ("whole numbers", "int32"), ("unknown", "other/kernel, which this recipe's network has not"), ("missing", "holds no"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line_before_anything_is_written(first: runs.Run, data: Path, tmp_path: Path, how: str, words: str) -> None:
    file = tmp_path / "init.safetensors"
    save_file(spoiled(first, how), file)
    with pytest.raises(BadInput) as caught:
        again(first, data, tmp_path / "second", file)
    assert words in str(caught.value) and str(file) in str(caught.value) and str(caught.value).isprintable()
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize("content", [None, b"", b"no safetensors", b"\xff" * 64])
def test_a_file_that_is_none_is_refused_in_one_line(first: runs.Run, data: Path, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "init.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        again(first, data, tmp_path / "second", file)
    assert "leave init out" in str(caught.value) and str(caught.value).isprintable()
    assert not (tmp_path / "second").exists()


def test_an_interrupted_run_goes_on_from_its_own_copy(first: runs.Run, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "init.safetensors"
    file.write_bytes(first.weights_file("float").read_bytes())

    def stop(event: str, facts: dict) -> None:
        if event == "init":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        again(first, data, tmp_path / "second", file, report=stop)
    file.unlink()
    went_on = train(None, None, tmp_path / "second", resume=True)
    file.write_bytes(first.weights_file("float").read_bytes())
    at_once = again(first, data, tmp_path / "third", file)
    assert went_on.facts.weights == at_once.facts.weights
