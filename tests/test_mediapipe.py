"""MediaPipe Tasks, in an environment of its own, takes every TFLite file from a plain path and scores as LiteRT does.

The environment is made once, in the user's cache folder, and stays there. Pictures have the model's own size: MediaPipe
resizes others by an algorithm of its own, which is not what is tried here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import own_environments
import own_models
import pytest
import tiny_bundle
from ai_edge_litert.interpreter import Interpreter
from conftest import SETTINGS, Cli, read_json
from test_export_cli import TFLITE, logits, network_input

from melanoma_edge import NOTICE
from melanoma_edge.contract import InputContract
from melanoma_edge.convert.foreign_facts import foreign_facts
from melanoma_edge.convert.tflite import tensors
from melanoma_edge.convert.tflite_metadata import with_metadata
from melanoma_edge.data import samples

REQUIREMENTS = (
    *("mediapipe==1.2.2", "numpy==2.4.6", "absl-py==2.5.1", "certifi==2026.10.18", "cffi==2.1.1", "contourpy==1.3.3", "cycler==0.12.1", "flatbuffers==25.12.19"),
    *("fonttools==4.68.0", "kiwisolver==1.5.1", "matplotlib==3.11.2", "opencv-contrib-python==5.0.0.93", "packaging==26.3", "pillow==13.0.0", "pycparser==3.12"),
    *("pyparsing==3.3.3", "python-dateutil==4.0.0", "sounddevice==0.5.6", "tzdata==2026.6"),
)
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


def test_the_environment_holds_what_is_pinned_and_nothing_else(python: Path) -> None:
    assert own_environments.packages(python) == dict(pin.split("==") for pin in REQUIREMENTS)


# --- a model of one's own


@pytest.fixture(scope="module")
def own(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a MobileNetV2 that takes -1..1, as `export --model` makes it of a Keras file."""
    pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("own")
    (folder / "labels.txt").write_text("\n".join(own_models.SPELT), encoding="utf-8")
    make = f"import own_models; own_models.mobilenet_v2().save({str(folder / 'v2.keras')!r})"
    subprocess.run([sys.executable, "-c", make], check=True, capture_output=True, cwd=Path(__file__).parent)
    options = ["--tflite", "--precision", "float32,float16,dynamic", "--input-range=-1,1", "--licence", "CC BY 4.0", "--out", folder / "v2.bundle", "-q"]
    cli("export", "--model", folder / "v2.keras", "--classes", folder / "labels.txt", *options)
    return folder / "v2.bundle"


def test_mediapipe_prepares_pictures_as_was_declared_of_a_model_of_ones_own(python: Path, own: Path, tmp_path: Path) -> None:
    shown, _ = own_models.drawn(8, 5)
    np.save(tmp_path / "pictures.npy", shown)
    files = {precision: own / f"v2-{precision}.tflite" for precision in ("float32", "float16", "dynamic")}
    done = own_environments.call(python, CHILD, tmp_path / "pictures.npy", tmp_path / "out.json", *files.values())
    if "libGLESv2" in done.stderr or "libEGL" in done.stderr:
        pytest.skip(f"MediaPipe cannot be loaded here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    given = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    prepared = shown.astype(np.float32) / np.float32(127.5) - 1
    for precision, file in files.items():
        interpreter = Interpreter(str(file))
        interpreter.allocate_tensors()
        [taken], [out] = interpreter.get_input_details(), interpreter.get_output_details()
        ours = []
        for picture in prepared:
            interpreter.set_tensor(taken["index"], picture[np.newaxis])
            interpreter.invoke()
            ours.append(interpreter.get_tensor(out["index"])[0])
        theirs, ours = np.array(given[str(file)]["scores"]), np.stack(ours)
        # A random network amplifies the last bit of its input; where activations are quantized as they come, by whole steps.
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=(0.08 if precision == "dynamic" else 1e-4) * np.ptp(ours))
        assert (theirs.argmax(axis=1) == ours.argmax(axis=1)).all() and len(set(ours.argmax(axis=1))) == 3
        assert given[str(file)]["names"] == list(own_models.CLASSES)
        metadata = given[str(file)]["metadata"]
        assert (metadata["name"], metadata["mean"], metadata["std"], metadata["output"], metadata["labels"]) == (file.stem, [127.5], [127.5], "logits", "labels.txt")
        assert metadata["description"].startswith(NOTICE) and "Converted from v2.keras" in metadata["description"]
        assert metadata["licence"] == "CC BY 4.0" and "not known" in metadata["author"] and "dermoscop" not in json.dumps(metadata)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_mediapipe_refuses_what_it_would_prepare_otherwise(python: Path, tmp_path: Path, dtype: str) -> None:
    """Blue first has no place in the metadata, so the order of colours is unknown, and no wrong score comes out."""
    contract = InputContract(width=tiny_bundle.SIZE, height=tiny_bundle.SIZE, channels="BGR")
    said = {"source": "m.keras", "version": "0", "classes": tiny_bundle.CLASSES, "positive": None, "output": None, "licence": "none"}
    np.save(tmp_path / "pictures.npy", tiny_bundle.pictures(1))
    content = tiny_bundle.tflite(dtype)
    (tmp_path / "m.tflite").write_bytes(with_metadata(content, foreign_facts(said, contract, tensors(content)[0], "m.tflite", "float32", None)))
    done = own_environments.call(python, CHILD, tmp_path / "pictures.npy", tmp_path / "out.json", tmp_path / "m.tflite")
    if "libGLESv2" in done.stderr or "libEGL" in done.stderr:
        pytest.skip(f"MediaPipe cannot be loaded here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 1 and "Only RGB color space is supported" in done.stderr
