"""Keras files of strangers: what is code is refused with its reason and never runs."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_models import keras_zip, layer, network

from melanoma_edge.errors import BadInput
from melanoma_edge.model.keras_file import inspect

DENSE = layer("Dense", units=2, activation="softmax", kernel_initializer={"module": "keras.initializers", "class_name": "Zeros", "config": {}, "registered_name": None})


def both(tmp_path: Path, config: dict) -> list[Path]:
    """Write the description as .keras and as .h5."""
    file = tmp_path / "net.h5"
    with h5py.File(file, "w") as opened:
        opened.attrs["model_config"], opened.attrs["keras_version"] = json.dumps(config), "2.21.0"
    return [keras_zip(tmp_path / "net.keras", config), file]


def test_what_image_classifiers_are_made_of_passes(tmp_path: Path) -> None:
    operation = layer("TFOpLambda", "tf_keras.src.layers.core.tf_op_layer", "TFOpLambda", function="__operators__.add")
    for file in both(tmp_path, network(layer("Rescaling", scale=0.1), layer("Conv2D", filters=2, activation="relu6"), operation, layer("Flatten"), DENSE)):
        assert inspect(file) == {"written_by": "Keras 2.21.0"}


CODE = [
    (layer("Lambda", function=["4wEAAAA", None, None]), "the Lambda layer 'the-layer', which is code"),
    (layer("Lambda", "tf_keras.src.layers.core.lambda_layer"), "the Lambda layer 'the-layer', which is code"),
    (layer("Dense", activation={"class_name": "__lambda__", "config": {"value": "x"}}), "the Lambda layer, which is code"),
    (layer("Squeeze", "my_package.layers", "Custom>Squeeze"), "names 'Squeeze' of 'my_package.layers', which is not part of Keras"),
    (layer("Dense", "os"), "names 'Dense' of 'os'"),
    (layer("Dense", "keras/../os"), "names 'Dense' of 'keras/../os'"),
    (layer("SqueezeExcite"), "holds 'SqueezeExcite' 'the-layer', which is no built-in layer"),
    (layer("Dense", None, "Custom>Dense"), "the custom class 'Custom>Dense' 'the-layer'"),
    (layer("TFOpLambda", function="io.write_file"), "calls TensorFlow's 'io.write_file' in the layer 'the-layer'"),
    (layer("TFOpLambda", function="py_function"), "calls TensorFlow's 'py_function'"),
    (layer("SlicingOpLambda", function="raw_ops.WriteFile"), "calls TensorFlow's 'raw_ops.WriteFile'"),
    (layer("TensorFlowOpLayer", node_def="x"), "holds 'TensorFlowOpLayer'"),
    (layer("InstanceMethod", attr_name="__reduce__"), "holds 'InstanceMethod'"),
    (layer("StringLookup", vocabulary="/etc/passwd"), "holds 'StringLookup'"),
    (layer("Dense", activation={"module": "builtins", "class_name": "function", "config": "system", "registered_name": "function"}), "the function 'system'"),
    (layer("Dense", activation={"module": "os", "class_name": "function", "config": "system", "registered_name": "function"}), "names 'function' of 'os'"),
    (layer("Dense", activation="system"), "uses the activation 'system'"),
    (layer("Dense", kernel_initializer={"module": "keras.utils", "class_name": "get_file", "config": {}}), "holds 'get_file'"),
    ({"registered_name": "Custom>X"}, "holds None"),
]


@pytest.mark.parametrize(("found", "reason"), CODE)
def test_code_is_refused_with_its_reason(tmp_path: Path, found: dict, reason: str) -> None:
    for file in both(tmp_path, network(found, DENSE)):
        with pytest.raises(BadInput) as refused:
            inspect(file)
        message = str(refused.value)
        assert reason in message and message.startswith(file.name) and "\n" not in message
        assert "rebuild the model with built-in layers, or export it as ONNX or TFLite" in message


def test_code_is_found_however_deep_it_lies(tmp_path: Path) -> None:
    inner = network(layer("Lambda"))
    for _ in range(5):
        inner = network(inner)
    for file in both(tmp_path, inner):
        with pytest.raises(BadInput, match="Lambda"):
            inspect(file)


@given(st.sampled_from(CODE), st.lists(st.sampled_from(["Dense", "Conv2D", "ReLU", "Add", "Flatten"]), max_size=6), st.randoms())
@settings(max_examples=40, deadline=None)
def test_code_is_found_wherever_it_stands(tmp_path_factory: pytest.TempPathFactory, code: tuple[dict, str], kinds: list[str], random) -> None:
    layers = [layer(kind) for kind in kinds] + [code[0]]
    random.shuffle(layers)
    with pytest.raises(BadInput, match="would have to run"):
        inspect(keras_zip(tmp_path_factory.mktemp("k") / "net.keras", network(*layers)))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("net.keras", b"", "is not a .keras archive"),
        ("net.keras", b"PK\x03\x04" + b"x" * 100, "is not a .keras archive"),
        ("net.keras", b"\x89HDF\r\n\x1a\n" + b"\0" * 500, "is not a .keras archive"),
        ("net.h5", b"", "is not an HDF5 file of Keras"),
        ("net.h5", pickle.dumps({"a": 1}), "is not an HDF5 file of Keras"),
        ("net.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 500, "is not an HDF5 file of Keras"),
        ("net.pkl", b"", "is not called a Keras file: expected one of .keras, .h5, .hdf5"),
    ],
)
def test_files_that_are_something_else_are_one_line(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput) as refused:
        inspect(tmp_path / name)
    assert reason in str(refused.value) and "\n" not in str(refused.value)


def test_weights_alone_other_models_and_keras_3_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file.create_dataset("kernel", data=np.zeros(3))
    cases = {
        tmp_path / "weights.h5": "holds weights without a network",
        keras_zip(tmp_path / "a.keras", network(DENSE), members=("metadata.json",)): "holds no config.json",
        keras_zip(tmp_path / "b.keras", {**network(DENSE), "class_name": "MyModel"}): "describes 'MyModel', no functional or sequential model",
        keras_zip(tmp_path / "c.keras", network(DENSE), version="3.5.0"): "was written by Keras 3.5.0: expected tf_keras",
        keras_zip(tmp_path / "d.keras", [1, 2]): "describes None",
    }
    deep: dict = {}
    for _ in range(300):
        deep = {"a": deep}
    cases[keras_zip(tmp_path / "e.keras", {**network(DENSE), "more": deep})] = "nests its description"
    for file, reason in cases.items():
        with pytest.raises(BadInput, match=reason):
            inspect(file)


def test_a_real_lambda_that_would_touch_a_file_never_does(tmp_path: Path) -> None:
    """Made by tf_keras itself, in both kinds; loaded without a look, each would write the file."""
    mark = tmp_path / "touched"
    make = f"""
import tf_keras as keras
image = keras.Input((8, 8, 3))
def touch(x):
    open({str(mark)!r}, "a").close()
    return x
features = keras.layers.Lambda(touch)(image)
model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(features)))
model.save({str(tmp_path / "net.keras")!r}); model.save({str(tmp_path / "net.h5")!r})
import os; os.remove({str(mark)!r})
keras.models.load_model({str(tmp_path / "net.keras")!r}, safe_mode=False, compile=False)
assert os.path.exists({str(mark)!r}), "the trap does not work"
os.remove({str(mark)!r})
"""
    done = subprocess.run([sys.executable, "-c", make], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("net.keras", "net.h5"):
        with pytest.raises(BadInput, match="Lambda layer 'lambda', which is code"):
            inspect(tmp_path / name)
        (tmp_path / "labels.txt").write_text("melanoma\nnevus\n")
        command = [sys.executable, "-m", "melanoma_edge", "export", "--model", name, "--classes", "labels.txt"]
        refused = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert refused.returncode == 2 and "which is code" in refused.stderr and "Traceback" not in refused.stderr
    assert not mark.exists() and not (tmp_path / "bundles" / "net.bundle").exists()
