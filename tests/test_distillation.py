"""Distillation: what the loss is, what a run with teachers leaves behind, and that an interruption changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from melanoma_edge import recipes
from melanoma_edge.contract import Recipe
from melanoma_edge.data.samples import draw, write_samples
from melanoma_edge.errors import BadInput
from melanoma_edge.model import run as runs
from melanoma_edge.model.train import train
from melanoma_edge.proof.report import report

pytestmark = pytest.mark.xdist_group("distillation")

LABELS = np.repeat([0, 1, 2], [20, 7, 3])
SMALL = ["network=classic", "image_size=32", "samples_per_class=8", "batch_size=8", "epochs=2", "qat_epochs=1", "min_lesions=2", "folds=2", "validation_folds=2", "seed=8"]
TAUGHT = [*SMALL, "distillation={teachers=2, epochs=1, weight=0.6, temperature=3.0}"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "samples"
    write_samples(folder, per_class=6)
    return folder


@pytest.fixture(scope="module")
def taught(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[runs.Run, dict[str, bytes]]:
    """A run with two teachers, and the files of their weights as they were when quantization-aware training began."""
    out, teachers = tmp_path_factory.mktemp("runs") / "taught", {}

    def reported(event: str, facts: dict) -> None:
        if event == "phase" and facts["phase"] == "qat":
            teachers.update({file.stem: file.read_bytes() for file in (out / "weights").glob("teacher-*")})

    return train(data, recipes.load("default", TAUGHT), out, report=reported), teachers


@pytest.mark.parametrize("rebalance", ["none", "class_weight"])
def test_the_loss_is_the_mean_of_that_to_the_labels_and_the_divergence_from_the_teachers(rebalance: str, tmp_path: Path) -> None:
    from melanoma_edge.model.tensorflow import require, seed_everything

    require()
    from melanoma_edge.model import network
    from melanoma_edge.model.fit import Part, fit
    from melanoma_edge.model.step import Phase

    pictures = np.stack([draw(("nevus", "melanoma", "vascular lesion")[label], 32, i) for i, label in enumerate(LABELS)])
    settings = {"rebalance": rebalance, "image_size": 32, "width": 0.25, "dropout": 0.0, "label_smoothing": 0.0, "batch_size": 30}
    recipe = Recipe(name="test", **settings, distillation={"teachers": 2, "weight": 0.6, "temperature": 3.0})
    seed_everything(3)
    model, *teachers = (network.build(recipe, 3) for _ in range(3))
    for teacher in teachers:
        kernel, bias = teacher.layers[-1].get_weights()
        teacher.layers[-1].set_weights([20 * kernel, bias])  # surer than a fresh network is
    inputs = pictures.astype(np.float32)
    logits = model(inputs, training=True).numpy().astype(float)
    said = [teacher(inputs, training=False).numpy().astype(float) for teacher in teachers]
    part, history = Part(pictures, LABELS), []
    fit(
        model, model.trainable_variables, Phase("float", 1, 1e-6, 0.0), recipe, part, part, file=tmp_path / "checkpoint", history=history,
        on_epoch=lambda rows: None, report=lambda event, facts: None, teachers=teachers,
    )  # fmt: skip

    def softmax(values: np.ndarray) -> np.ndarray:
        return np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)

    to_labels = -np.log(softmax(logits))[np.arange(30), LABELS]
    together = np.mean([softmax(one / 3) for one in said], axis=0)
    to_teachers = 9 * (together * (np.log(together) - np.log(softmax(logits / 3)))).sum(axis=1)
    weights = {"none": np.ones(3), "class_weight": 30 / (3 * np.array([20, 7, 3]))}[rebalance][LABELS]
    assert history[0].loss == pytest.approx((weights * (0.4 * to_labels + 0.6 * to_teachers)).mean(), rel=1e-4)
    assert abs(to_teachers.mean() - to_labels.mean()) > 0.1, "this test cannot tell teachers from labels"


def test_a_run_says_what_its_teachers_were_and_keeps_none_of_their_files(taught: tuple[runs.Run, dict[str, bytes]]) -> None:
    run, files = taught
    assert list(run.facts.teachers) == sorted(files) == ["teacher-1", "teacher-2"] and len(set(run.facts.teachers.values())) == 2
    assert {"float", "qat"} == run.facts.weights.keys() == {file.stem for file in (run.path / "weights").iterdir()}
    rows = run.history()
    assert [row.phase for row in rows] == ["teacher-1", "teacher-2", "float", "float", "qat"]
    assert run.facts.seconds.keys() == {"teacher-1", "teacher-2", "float", "qat"}
    assert recipes.load(run.path / runs.RECIPE_FILE) == run.recipe and run.recipe.distillation.teachers == 2


def test_teachers_change_what_is_learnt(taught: tuple[runs.Run, dict[str, bytes]], data: Path, tmp_path: Path) -> None:
    alone = train(data, recipes.load("default", SMALL), tmp_path / "alone")
    for which in ("float", "qat"):
        mine, theirs = (load_file(run.weights_file(which)) for run in (alone, taught[0]))
        assert mine.keys() == theirs.keys() and any(not np.array_equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("moment", [("phase", "teacher-2"), ("epoch", "float"), ("phase", "qat")], ids=lambda moment: "-".join(moment))
def test_a_run_that_was_interrupted_ends_with_the_same_bits(moment: tuple[str, str], taught: tuple[runs.Run, dict[str, bytes]], data: Path, tmp_path: Path) -> None:
    def interrupt(event: str, facts: dict) -> None:
        if (event, facts.get("phase")) == moment:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, recipes.load("default", TAUGHT), tmp_path / "run", report=interrupt)
    run = train(None, None, tmp_path / "run", resume=True)
    assert run.facts.teachers == taught[0].facts.teachers and run.facts.weights == taught[0].facts.weights


def test_a_teacher_that_was_altered_is_refused(data: Path, tmp_path: Path) -> None:
    def interrupt(event: str, facts: dict) -> None:
        if (event, facts.get("phase")) == ("phase", "float"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, recipes.load("default", TAUGHT), tmp_path / "run", report=interrupt)
    file = tmp_path / "run" / "weights" / "teacher-1.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(BadInput, match="teacher-1.safetensors is missing or was altered: expected sha256 .*; start a new run"):
        train(None, None, tmp_path / "run", resume=True)


def test_the_report_says_how_long_the_teachers_took(taught: tuple[runs.Run, dict[str, bytes]], tmp_path: Path) -> None:
    page = report(taught[0].path, out=tmp_path / "report.html").read_text()
    assert "Teacher 1 phase" in page and "Teacher 2 phase" in page
    assert "over 3 epochs" in page, "the curves are those of float and quantization-aware training"
