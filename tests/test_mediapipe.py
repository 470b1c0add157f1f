"""MediaPipe Tasks, in an environment of its own, takes every TFLite file from a plain path and scores as LiteRT does.

The environment is made once, in the user's cache folder, and stays there. Pictures have the model's own size: MediaPipe
resizes others by an algorithm of its own, which is not what is tried here.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import own_environments
import pytest
from conftest import SETTINGS, read_json
from test_export_cli import TFLITE, logits, network_input

from melanoma_edge import NOTICE
from melanoma_edge.data import samples

REQUIREMENTS = ("mediapipe==1.2.2", "numpy>=2.1,<2.5")
CHILD = Path(__file__).with_name("mediapipe_child.py")
PROBABILITIES = tuple(name.replace(".tflite", "-probabilities.tflite") for name in TFLITE)


@pytest.fixture(scope="module")
def python() -> Path:
    return own_environments.python_of("mediapipe-tests", REQUIREMENTS)


@pytest.fixture(scope="module")
def pictures(bundle: Path) -> np.ndarray:
    """The golden pictures, drawn ones of every class, and noise: uint8 [n, size, size, 3]."""
    size = SETTINGS["image_size"]
    golden = [network_input(file) for file in sorted((bundle / "golden").glob("*.png"))]
    drawn = [samples.draw(name, size, (31, number)) for number, name in enumerate(samples.CLASSES * 3)]
    return np.stack([*golden, *drawn, *np.random.default_rng(3).integers(0, 256, (8, size, size, 3), np.uint8)])


@pytest.fixture(scope="module")
def found(python: Path, bundle: Path, pictures: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """{file name: what MediaPipe gave for it}."""
    folder = tmp_path_factory.mktemp("mediapipe")
    np.save(folder / "pictures.npy", pictures)
    models = [str(bundle / name) for name in (*TFLITE, *PROBABILITIES)]
    done = own_environments.call(python, CHILD, folder / "pictures.npy", folder / "out.json", *models)
    if "libGLESv2" in done.stderr or "libEGL" in done.stderr:
        pytest.skip(f"MediaPipe cannot be loaded here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return {Path(model).name: facts for model, facts in json.loads((folder / "out.json").read_text(encoding="utf-8")).items()}


@pytest.mark.parametrize("name", [*TFLITE, *PROBABILITIES])
def test_mediapipe_gives_the_scores_that_litert_gives(found: dict, bundle: Path, pictures: np.ndarray, name: str) -> None:
    theirs, ours = np.array(found[name]["scores"]), logits(bundle / name, pictures)
    assert theirs.shape == ours.shape == (len(pictures), 4)
    if "int8" in name:
        np.testing.assert_array_equal(theirs, ours.astype(np.float64))
    else:
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5 * np.ptp(ours))
    assert len(np.unique(ours.argmax(axis=1))) > 1 and len(np.unique(ours, axis=0)) > 30


@pytest.mark.parametrize("name", PROBABILITIES)
def test_what_mediapipe_shows_for_the_probabilities_are_probabilities(found: dict, name: str) -> None:
    scores = np.array(found[name]["scores"])
    assert scores.min() >= 0 and np.abs(scores.sum(axis=1) - 1).max() < 1e-5 and len(np.unique(scores.round(4))) > 50


@pytest.mark.parametrize("name", [*TFLITE, *PROBABILITIES])
def test_mediapipe_names_the_classes_in_the_order_of_the_outputs(found: dict, bundle: Path, name: str) -> None:
    assert found[name]["names"] == (bundle / "labels.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", [*TFLITE, *PROBABILITIES])
def test_mediapipes_own_reader_finds_the_facts(found: dict, bundle: Path, run: Path, name: str) -> None:
    metadata, size = found[name]["metadata"], SETTINGS["image_size"]
    head = "probabilities" if name in PROBABILITIES else "logits"
    weights = read_json(run / "run.json")["weights"]["qat" if "int8" in name else "float"]
    assert metadata.pop("description").startswith(f"{NOTICE} Sorts dermoscopic pictures of skin lesions into 4 classes")
    assert metadata.pop("output_description").startswith("calibrated probabilities" if head == "probabilities" else "logits")
    assert metadata.pop("author").startswith("melanoma-edge ")
    assert metadata == {
        "identifier": "M001",
        "name": name.removesuffix(".tflite"),
        "version": weights[:12],
        "licence": "CC0 1.0",
        "input": "image",
        "is_image": True,
        "is_rgb": True,
        "size": [size, size],
        "normalizes": True,
        "mean": [0.0],
        "std": [1.0],
        "range": [0.0, 255.0],
        "output": head,
        "calibrates": False,
        "labels": "labels.txt",
        "labels_are_of_the_axis": True,
    }
