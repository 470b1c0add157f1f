"""Keras files of strangers: what is code is refused with its reason and never runs."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import warnings
import zipfile
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
    (layer("TimeDistributed", layer=layer("Lambda")), "holds 'TimeDistributed' 'the-layer', which is no built-in layer"),
    (layer("Bidirectional", layer=layer("LSTM", units=1), backward_layer=layer("Lambda")), "holds 'Bidirectional' 'the-layer'"),
    (layer("Dense", wrapped=[[{"deep": [layer("Lambda")]}]]), "the Lambda layer 'the-layer'"),
    (layer("Dense", build_config={"input_shape": layer("Lambda")}), "the Lambda layer 'the-layer'"),
    (network(DENSE) | {"compile_config": {"loss": {"module": "builtins", "class_name": "function", "config": "get_file"}}}, "the function 'get_file'"),
    (network(DENSE) | {"compile_config": {"optimizer": {"module": "mine", "class_name": "Adam", "config": {}}}}, "names 'Adam' of 'mine'"),
    (layer("Dense", custom_objects={"f": {"class_name": "__lambda__", "config": {"value": "x"}}}), "the Lambda layer, which is code"),
    (layer("Dense", "tf_keras.src.Os"), "names 'Dense' of 'tf_keras.src.Os'"),
    (layer("Dense", "kerasmalware"), "names 'Dense' of 'kerasmalware'"),
    (layer("Dense", ["os"]), "names 'Dense' of ['os']"),
    (layer(["Dense"]), "holds ['Dense']"),
    ({**layer("Dense"), "registered_name": ["Dense"]}, "the custom class ['Dense']"),
    ({"class_name": "__typespec__", "spec_name": "system", "module": "os", "config": [], "registered_name": None}, "names '__typespec__' of 'os'"),
    ({"class_name": "TypeSpec", "type_spec": "x", "serialized": []}, "holds 'TypeSpec'"),
    ({"class_name": "__bytes__", "value": "x", "config": {}}, "holds '__bytes__'"),
    (layer("Dense", kernel_constraint="get"), "uses the constraint 'get', which is not built in"),
    (layer("Dense", bias_initializer="deserialize_keras_object"), "uses the initializer 'deserialize_keras_object'"),
    (layer("Add", inbound_nodes=["_COMPOSITE_TYPE", '{"class_name": "TypeSpec"}']), "a second description as text"),
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


def test_how_a_model_was_trained_is_not_looked_at_where_it_is_not_used(tmp_path: Path) -> None:
    """An archive says it beside the network; in an HDF5 file nothing of the kind belongs there."""
    archive, hdf5 = both(tmp_path, network(DENSE) | {"compile_config": {"optimizer": {"module": "mine", "class_name": "Mine", "config": {}}}})
    assert inspect(archive)["written_by"] == "Keras 2.21.0"
    with pytest.raises(BadInput, match="names 'Mine' of 'mine'"):
        inspect(hdf5)


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
        ("net.keras", b"\x89HDF\r\n\x1a\n" + b"\0" * 500, "is not a .keras archive but an HDF5 file: call it net.h5"),
        ("NET.KERAS", b"\x89HDF\r\n\x1a\n" + b"\0" * 500, "is not a .keras archive but an HDF5 file: call it NET.h5"),
        ("net.H5", b"PK\x05\x06" + b"\0" * 18, "is not an HDF5 file of Keras but a zip archive: call it net.keras"),
        ("net.keras", b"PK\x05\x06" + b"\0" * 18, "is not a .keras archive"),
        ("net.h5", b"\0" * 512 + b"\x89HDF\r\n\x1a\n" + b"\0" * 500, "is not an HDF5 file of Keras"),
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


# --- two files in one, and files that read others


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Files made by tf_keras in one folder: evil.h5, whose Lambda layer makes the file that is returned, good.keras and good.h5."""
    folder = tmp_path_factory.mktemp("trap")
    mark = folder / "touched"
    make = f"""
import tf_keras as keras
def network(*first):
    image = features = keras.Input((8, 8, 3))
    for layer in first:
        features = layer(features)
    return keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(features)))
network().save({str(folder / "good.keras")!r}); network().save({str(folder / "good.h5")!r})
network(keras.layers.Lambda(lambda x: (__import__("os").close(__import__("os").open({str(mark)!r}, 65)), x)[1])).save({str(folder / "evil.h5")!r})
import os; os.remove({str(mark)!r})
"""
    done = subprocess.run([sys.executable, "-c", make], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, mark


def loaded(file: Path) -> subprocess.CompletedProcess:
    """Load a file with the library in a process of its own."""
    program = "import sys; from pathlib import Path; from melanoma_edge.model import keras_file; print(keras_file.load(Path(sys.argv[1])).count_params())"
    return subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True)


def test_a_file_of_two_kinds_at_once_is_refused_under_every_name_and_runs_nothing(trap: tuple[Path, Path], tmp_path: Path) -> None:
    """HDF5 with code, a zip archive without behind it: which of them a reader sees depends on the letters of the name."""
    folder, mark = trap
    both_kinds = tmp_path / "both"
    both_kinds.write_bytes((folder / "evil.h5").read_bytes())
    with zipfile.ZipFile(both_kinds, "a") as archive, zipfile.ZipFile(folder / "good.keras") as good:
        for name in good.namelist():
            archive.writestr(name, good.read(name))
    for name in ("x.keras", "x.KERAS", "x.Keras", "x.h5", "x.H5", "x.hdf5", "x.HDF5"):
        (tmp_path / name).write_bytes(both_kinds.read_bytes())
        with pytest.raises(BadInput, match="is a zip archive and an HDF5 file at once"):
            inspect(tmp_path / name)
    for name in ("x.KERAS", "x.keras", "x.H5"):
        done = loaded(tmp_path / name)
        assert done.returncode == 1 and "at once" in done.stderr.splitlines()[-1]
    assert not mark.exists()


@pytest.mark.parametrize("name", ["UPPER.KERAS", "Mixed.Keras", "UPPER.H5", "upper.HDF5"])
def test_the_case_of_an_ending_does_not_matter(trap: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    folder, _ = trap
    kind = "keras" if name.lower().endswith("keras") else "h5"
    (tmp_path / name).write_bytes((folder / f"good.{kind}").read_bytes())
    assert inspect(tmp_path / name)["written_by"].startswith("Keras 2.")
    done = loaded(tmp_path / name)
    assert done.stdout.split() == [str(8 * 8 * 3 * 2 + 2)], done.stderr
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_lambda_is_found_under_names_in_capitals_too(trap: tuple[Path, Path], tmp_path: Path) -> None:
    folder, mark = trap
    (tmp_path / "EVIL.H5").write_bytes((folder / "evil.h5").read_bytes())
    with pytest.raises(BadInput, match="which is code"):
        inspect(tmp_path / "EVIL.H5")
    assert loaded(tmp_path / "EVIL.H5").returncode == 1 and not mark.exists()


def test_archives_with_more_in_them_are_refused(trap: tuple[Path, Path], tmp_path: Path) -> None:
    folder, _ = trap
    for added, reason in (("assets/vocabulary.txt", "holds 'assets/vocabulary.txt' besides a network"), ("config.json", "holds one file twice")):
        (tmp_path / "x.keras").write_bytes((folder / "good.keras").read_bytes())
        with zipfile.ZipFile(tmp_path / "x.keras", "a") as archive, warnings.catch_warnings(action="ignore"):
            archive.writestr(added, "{}")
        with pytest.raises(BadInput, match=reason):
            inspect(tmp_path / "x.keras")


def test_weights_that_stand_in_other_files_are_refused(trap: tuple[Path, Path], tmp_path: Path) -> None:
    """A link of HDF5 reads any file of the machine, and the bundle that comes of it may be given away."""
    folder, _ = trap
    (tmp_path / "secret.bin").write_bytes(bytes(8))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.ones(2, np.float32)
    layout = h5py.VirtualLayout((2,), np.float32)
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "secret", (2,))

    def raw(group):
        group.create_dataset("bias:0", (2,), np.float32, external=[(str(tmp_path / "secret.bin"), 0, 8)])

    changes = {
        "a link to elsewhere": lambda group: group.__setitem__("bias:0", h5py.ExternalLink(tmp_path / "other.h5", "/secret")),
        "as a link": lambda group: group.__setitem__("bias:0", h5py.SoftLink("/model_weights")),
        "keeps the numbers of 'bias:0' in another file": raw,
        "in another file": lambda group: group.create_virtual_dataset("bias:0", layout),
    }
    for reason, change in changes.items():
        changed = tmp_path / "x.h5"
        changed.write_bytes((folder / "good.h5").read_bytes())
        with h5py.File(changed, "r+") as file:
            group = file["model_weights/dense/dense"] if "dense" in file["model_weights"] else file["model_weights/dense_1/dense_1"]
            del group["bias:0"]
            change(group)
        with pytest.raises(BadInput, match=reason):
            inspect(changed)
        with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive, zipfile.ZipFile(folder / "good.keras") as good:
            archive.writestr("config.json", good.read("config.json"))
            archive.write(changed, "model.weights.h5")
        with pytest.raises(BadInput, match=reason):
            inspect(tmp_path / "x.keras")


def test_a_group_that_holds_itself_does_not_go_round_for_ever(trap: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes((trap[0] / "good.h5").read_bytes())
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file["model_weights"]["again"] = file["model_weights"]
    assert inspect(tmp_path / "x.h5")["written_by"].startswith("Keras 2.")
