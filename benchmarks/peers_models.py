"""The files that are timed beside each other: ours, out of a bundle, those of our default network before, and of what people would put on a phone instead.

In: a bundle. Out: for each network four files, float32 and int8 for LiteRT and for ONNX Runtime, with the way on which each was made, or why there is none.
The other networks have random weights: what a kernel takes does not depend on them, as long as no activation overflows or vanishes. BatchNormalization is therefore
set to what the pictures give in its place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import peer_networks

from melanoma_edge import recipes
from melanoma_edge.contract import INPUT_NAME, OUTPUT_NAME, InputContract
from melanoma_edge.convert.bundle import Bundle
from melanoma_edge.errors import BadInput, Error
from melanoma_edge.files import explained

OURS = "melanoma-edge"
NOTEBOOK, NOTEBOOK_FILTERS, NOTEBOOK_DENSE = "notebook-1024", (32, 64, 128), 1024
CLASSIC = "classic"
BEFORE = "edge-residual"
"""The default network of earlier bundles."""
OTHERS = {
    BEFORE: "the default network of earlier bundles: a stem of 32 channels, four of nine blocks at 44 and 22 px",
    "mobilenetv2-0.35": "MobileNetV2, width 0.35",
    "mobilenetv3-small": "MobileNetV3-Small",
    "mobilenetv2-1.0": "MobileNetV2, width 1.0",
    "efficientnet-b0": "EfficientNet-B0",
    CLASSIC: "the notebooks' CNN with a dense layer of 128 (`classic` of the ladder)",
    NOTEBOOK: f"the same with a dense layer of {NOTEBOOK_DENSE:,}",
}
"""The networks beside ours, and what they are."""
RUNTIMES = {"litert": "tflite", "onnxruntime": "onnx"}
PRECISIONS = ("int8", "float32")
FROM_TFLITE, BY_QUANTIZER = "translated from the int8 TFLite file", "float32 ONNX quantized by ONNX Runtime"
SETTLING = 16
"""Pictures that BatchNormalization is set on."""


@dataclass
class Network:
    """One network and its files; a file is in `files` or in `missing`."""

    name: str
    description: str
    parameters: int
    multiply_accumulates: int
    files: dict[tuple[str, str], Path] = field(default_factory=dict)
    """{(runtime, precision): file}."""
    made: dict[tuple[str, str], str] = field(default_factory=dict)
    """How each file was made."""
    missing: dict[tuple[str, str], str] = field(default_factory=dict)
    """Why there is none."""


def ours(bundle: Bundle) -> Network:
    """Return our network as it stands in the bundle; raises BadInput where one of its four files does not."""
    from melanoma_edge.model.tensorflow import require

    require()
    from melanoma_edge.model import network

    manifest = bundle.manifest
    if manifest.recipe is None:
        raise BadInput(f"{bundle.path} holds somebody else's model: expected a bundle of a run; name one with --bundle")
    model = network.build(manifest.recipe, len(manifest.classes), batch=1)
    found = Network(OURS, f"ours, of the bundle {manifest.name}", int(model.count_params()), network.multiply_accumulates(model))
    for runtime, fmt in RUNTIMES.items():
        for precision in PRECISIONS:
            artifact = next((one for one in manifest.artifacts if (one.format, one.precision) == (fmt, precision)), None)
            if artifact is None:
                raise BadInput(f"{bundle.path} has no {precision} {fmt} file: export it with both precisions and formats, or name another with --bundle")
            found.files[runtime, precision], found.made[runtime, precision] = bundle.file(artifact), "as exported"
    return found


def other(name: str, size: int, classes: int, pictures: np.ndarray, folder: Path) -> Network:
    """Write the files of a network of OTHERS for pictures of `size` into `folder`; int8 is calibrated on `pictures`, uint8 [n, size, size, 3]."""
    from melanoma_edge.model.tensorflow import require

    require()
    from melanoma_edge.convert import onnx, onnx_quantize, tflite
    from melanoma_edge.convert.tflite_entry import quicken
    from melanoma_edge.model import network

    model = built(name, size, classes, pictures)
    found = Network(name, OTHERS[name], int(model.count_params()), network.multiply_accumulates(model))
    contract, content = InputContract(width=size, height=size), {}

    def write(runtime: str, precision: str, *ways) -> None:
        """Try `ways`, (what it is called, what gives the bytes), one after the other and keep the first that works; else say what each failed of."""
        failed = []
        for way, make in ways:
            try:
                content[runtime, precision] = make()
            except (Exception, SystemExit) as error:  # converters raise whatever they please
                failed.append(f"{way}: {' '.join(str(error).split())[:200] or type(error).__name__}")
                continue
            file = folder / f"{name}-{precision}.{RUNTIMES[runtime]}"
            with explained(file):
                file.write_bytes(content[runtime, precision])
            found.files[runtime, precision], found.made[runtime, precision] = file, "; ".join([way, *(f"not {line}" for line in failed)])
            return
        found.missing[runtime, precision] = "; ".join(failed)

    write("litert", "float32", ("converted", lambda: tflite.convert(model, "float32")))
    write("litert", "int8", ("quantized after training", lambda: quicken(tflite.convert(model, "int8-ptq", pictures))))
    write("onnxruntime", "float32", ("converted", lambda: onnx.from_keras(model, size)))
    quantized = lambda: onnx_quantize.quantized(content["onnxruntime", "float32"], pictures, contract, "NHWC")
    write("onnxruntime", "int8", (FROM_TFLITE, lambda: onnx.from_tflite(content["litert", "int8"])), (BY_QUANTIZER, quantized))
    return found


def built(name: str, size: int, classes: int, pictures: np.ndarray):
    """Return the network `name` (``tf_keras.Model``, batch 1) with random weights, raw RGB 0..255 to `logits`."""
    import tf_keras as keras

    from melanoma_edge.model import network

    keras.utils.set_random_seed(1)

    def make(batch: int | None):
        if name == NOTEBOOK:
            return notebook(size, classes, batch)
        if name == CLASSIC:
            return network.build(recipes.load(CLASSIC, [f"image_size={size}"]), classes, batch=batch)
        if name == BEFORE:
            return network.build(recipes.load("default", [f"network={BEFORE}", f"image_size={size}"]), classes, batch=batch)
        return peer_networks.published(name, size, classes, batch=batch)

    open_batch, model = make(None), make(1)
    normalizing = [layer for layer in open_batch.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in normalizing:
        layer.momentum = 0.0  # its averages become those of the one batch that follows
    if normalizing:
        open_batch(pictures[:SETTLING].astype(np.float32), training=True)
    model.set_weights(open_batch.get_weights())
    if model.layers[-1].name == OUTPUT_NAME:
        return model
    return keras.Model(model.input, keras.layers.Activation("linear", name=OUTPUT_NAME)(model.output), name=name)


def notebook(size: int, classes: int, batch: int | None):
    """Return the plain CNN of notebooks that end in a large dense layer: about 60 million parameters at 176 pixels.

    Three convolutions of 32, 64 and 128 filters (3 x 3, padded to keep the size, ReLU), each halved by pooling, then Flatten and a dense layer of 1,024: at 176 pixels
    22 * 22 * 128 * 1,024 = 63.4 million weights in that layer alone. Like `classic`, it takes 0..255: the division by 255 belongs into the first weights.
    """
    import tf_keras as keras

    image = keras.Input(batch_shape=(batch, size, size, 3), name=INPUT_NAME)
    x = image
    for filters in NOTEBOOK_FILTERS:
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.Dense(NOTEBOOK_DENSE, activation="relu")(keras.layers.Flatten()(x))
    return keras.Model(image, keras.layers.Dense(classes, name=OUTPUT_NAME)(x), name=NOTEBOOK)


def check(networks: list[Network], pictures: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Run every file on `pictures` in its runtime; return {network: {"runtime precision": decibels}}, how far the logits agree with those of float32 in LiteRT.

    None is a perfect agreement. What a runtime cannot run goes from the network's files to its missing ones.
    """
    from melanoma_edge.runtimes.process import run_logits

    agreement = {}
    for network in networks:
        logits = {}
        for (runtime, precision), file in list(network.files.items()):
            try:
                logits[runtime, precision] = run_logits(runtime, file, pictures).astype(np.float64)
            except Error as error:
                del network.files[runtime, precision]
                network.missing[runtime, precision] = f"{network.made.pop((runtime, precision))}, but: {error}"
        reference = logits.get(("litert", "float32"))
        agreement[network.name] = {} if reference is None else {f"{runtime} {precision}": _decibels(reference, found) for (runtime, precision), found in logits.items()}
    return agreement


def _decibels(reference: np.ndarray, found: np.ndarray) -> float | None:
    """Return the power of the reference, less its mean, over that of the difference; None where there is no difference."""
    noise = float(np.square(found - reference).mean())
    signal = float(np.square(reference - reference.mean(axis=0)).mean())
    return None if noise == 0 else round(float(10 * np.log10(max(signal, np.finfo(np.float64).tiny) / noise)), 1)
