"""Models as other people make them: MobileNets of tf_keras with random weights, their last layer fitted to drawn pictures.

Random networks amplify every rounding, and are sure of nothing. The last layer here knows the very pictures that `verify` draws and
that the tests label, so that their answers have room between the classes.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np

from melanoma_edge.data import samples
from melanoma_edge.proof.verify import PROBES

SIZE = 64
CLASSES = ("melanoma", "nevus", "vascular lesion")
SPELT = ("Melanoma", "nevus", "vascular_lesion")
"""The same as a person may write them into a file of labels."""
PER_CLASS = 24


def drawn(count: int, seed: int, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` drawn pictures of each class, uint8 [n, size, size, 3], and their classes."""
    pictures = [samples.draw(name, size, (seed, number)) for name in CLASSES for number in range(count)]
    return np.stack(pictures), np.repeat(np.arange(len(CLASSES)), count)


def write_models(folder: Path) -> None:
    """Write labels.txt and the models: v2.keras (-1..1, logits), v3.h5 (0..255, softmax), v2.onnx (NCHW, any batch), v2.tflite, v2-int8.tflite (int8 in and out)."""
    import tensorflow as tf
    import tf2onnx
    import tf_keras as keras

    applications = keras.applications
    v2 = mobilenet_v2()
    common = {"input_shape": (SIZE, SIZE, 3), "weights": None, "include_top": False}
    v3 = _fitted(applications.MobileNetV3Small(alpha=0.75, **common), lambda images: images, "softmax")
    (folder / "labels.txt").write_text("\n".join(SPELT) + "\n", encoding="utf-8")
    v2.save(folder / "v2.keras")
    v3.save(folder / "v3.h5")
    tf2onnx.convert.from_keras(
        v2, (tf.TensorSpec((None, SIZE, SIZE, 3), tf.float32, name="x"),), inputs_as_nchw=["x"], opset=17, output_path=str(folder / "v2.onnx")
    )
    converter = tf.lite.TFLiteConverter.from_keras_model(v2)
    (folder / "v2.tflite").write_bytes(converter.convert())
    images = drawn(8, 5)[0] / np.float32(127.5) - 1
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[np.newaxis].astype(np.float32)] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (folder / "v2-int8.tflite").write_bytes(converter.convert())


def mobilenet_v2():
    """Return a MobileNetV2 that takes -1..1 and gives logits of CLASSES."""
    import tf_keras as keras

    keras.utils.set_random_seed(3)
    backbone = keras.applications.MobileNetV2(alpha=0.35, input_shape=(SIZE, SIZE, 3), weights=None, include_top=False)
    return _fitted(backbone, lambda images: images / 127.5 - 1, None)


def _fitted(backbone, scaled, activation: str | None):
    """Return a classifier on the random backbone, its last layer fitted by ridge regression."""
    import tf_keras as keras

    images, labels = drawn(PER_CLASS, 5)
    probes = [samples.draw(samples.CLASSES[i % len(samples.CLASSES)], SIZE, (2, i)) for i in range(PROBES)]
    images, labels = np.concatenate([images, probes]), np.concatenate([labels, np.arange(PROBES) % len(CLASSES)])
    taken = scaled(images.astype(np.float32))
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    backbone(taken, training=True)  # the statistics of these very pictures
    pooled = keras.layers.GlobalAveragePooling2D()(backbone.output)
    features = keras.Model(backbone.input, pooled).predict(taken, verbose=0)
    dense = keras.layers.Dense(len(CLASSES), activation=activation)
    model = keras.Model(backbone.input, dense(pooled))
    centre = features.mean(axis=0)
    centred = features - centre
    targets = 8.0 * (np.eye(len(CLASSES))[labels] - 1 / len(CLASSES))
    ridge = 1e-3 * np.trace(centred.T @ centred) / len(centred)
    weights = np.linalg.solve(centred.T @ centred + ridge * np.eye(centred.shape[1]), centred.T @ targets)
    dense.set_weights([weights.astype(np.float32), (-centre @ weights).astype(np.float32)])
    return model


def keras_zip(file: Path, config: object, *, version: str = "2.21.0", members: tuple[str, ...] = ("config.json", "metadata.json")) -> Path:
    """Write a `.keras` file that holds this description of a network, and no weights."""
    contents = {"config.json": json.dumps(config), "metadata.json": json.dumps({"keras_version": version})}
    with zipfile.ZipFile(file, "w") as archive:
        for name in members:
            archive.writestr(name, contents[name])
    return file


def network(*layers: dict) -> dict:
    """Return the description of a sequential model of these layers behind an input."""
    image = {"module": "keras.layers", "class_name": "InputLayer", "config": {"batch_input_shape": [None, 8, 8, 3], "dtype": "float32", "name": "i"}, "registered_name": None}
    return {"module": "keras", "class_name": "Sequential", "config": {"name": "s", "layers": [image, *layers]}, "registered_name": None}


def layer(kind: str, module: str | None = "keras.layers", registered: str | None = None, **config: object) -> dict:
    """Return the description of one layer."""
    return {"module": module, "class_name": kind, "config": {"name": "the-layer", **config}, "registered_name": registered}
