"""Models opened up layer by layer: what each copy computes, how files are matched, and how differences are counted."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_edge.contract import Recipe
from melanoma_edge.convert import layers, layers_onnx
from melanoma_edge.convert.layers import Grid
from melanoma_edge.errors import BadInput
from melanoma_edge.proof.layers import _difference, _Onnx, _Tflite
from melanoma_edge.runtimes import process

pytestmark = pytest.mark.xdist_group("tensorflow")

SIZE, CLASSES = 32, 4
NAMES = {
    "classic": ["image", "conv1", "pool1", "conv2", "pool2", "conv3", "pool3", "dense", "logits"],
    "residual": ["image", "stem", "a_depthwise", "a_pointwise", "a_add", "b_depthwise", "b_pointwise", "b_add", "pool", "logits"],
}


def pictures(count: int) -> np.ndarray:
    """Return smooth pictures, uint8 [count, 32, 32, 3]."""
    coarse = np.random.default_rng(3).integers(0, 256, (count, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    return np.clip(coarse + np.random.default_rng(4).normal(0, 10, coarse.shape), 0, 255).astype(np.uint8)


def residual(batch: int | None = None):
    """Return a network with two sums, each of two ReLU6 outputs and followed by a ReLU6."""
    import tf_keras as keras

    def normalized(x, name):
        return keras.layers.ReLU(6.0, name=f"{name}_relu6")(keras.layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(x))

    image = keras.Input(batch_shape=(batch, SIZE, SIZE, 3), name="image")
    x = normalized(keras.layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False, name="stem")(image), "stem")
    for block in "ab":
        y = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{block}_depthwise")(x)
        y = keras.layers.Conv2D(16, 1, use_bias=False, name=f"{block}_pointwise")(normalized(y, f"{block}_depthwise"))
        x = keras.layers.Add(name=f"{block}_add")([x, normalized(y, f"{block}_pointwise")])
        x = keras.layers.ReLU(6.0, name=f"{block}_add_relu6")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, keras.layers.Dense(CLASSES, name="logits")(x), name="residual")


@pytest.fixture(scope="module", params=NAMES)
def converted(request, tmp_path_factory: pytest.TempPathFactory):
    """(name, fake-quantized network, int8 TFLite, int8 ONNX) of a network with random, plausible weights."""
    from melanoma_edge.model.tensorflow import require

    require()
    import tf_keras as keras

    from melanoma_edge.convert import onnx as onnx_convert
    from melanoma_edge.convert import tflite
    from melanoma_edge.model import network, quantize
    from melanoma_edge.model import run as runs

    keras.utils.set_random_seed(1)
    recipe = Recipe(name="tiny", network="classic", image_size=SIZE, width=0.5)

    def build(batch: int | None = None):
        return residual(batch) if request.param == "residual" else network.build(recipe, CLASSES, batch=batch)

    plain, seen = build(), pictures(16)
    random = np.random.default_rng(3)
    for layer in plain.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.set_weights([random.uniform(1, 2, shape), random.normal(1, 1, shape), np.zeros(shape), np.ones(shape)])
        elif len(layer.weights) == 2:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel / (255 if layer.name == "conv1" else 1), random.normal(0, 0.1, bias.shape)])
    for _ in range(100):  # lets the statistics of BatchNormalization become those of these pictures
        plain(seen.astype(np.float32), training=True)
    quantized = quantize.quantization_aware(plain)
    quantize.calibrate(quantized, plain, [seen])
    quantized(seen.astype(np.float32), training=True)  # sets the weights' ranges, as the first step would
    quantize.calibrate(quantized, plain, [seen])
    assert quantize.snap_biases(quantized) <= 0.5 + 1e-6
    fixed = quantize.quantization_aware(build(1))
    runs.assign(fixed.weights, runs.named(quantized.weights), "the twin")
    content = tflite.convert(fixed, "int8")
    return request.param, quantized, content, onnx_convert.from_tflite(content)


def computed(runtime: str, content: bytes, inputs: dict[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """Return what a runtime makes of a model's bytes."""
    (folder / "model").write_bytes(content)
    return process.run_tensors(runtime, folder / "model", inputs)[0]


def look(file, runtime: str, folder: Path, given: list[np.ndarray] | None = None) -> list[np.ndarray]:
    """Return the layers' tensors end to end, or with what they read `given`."""
    images = {"image": pictures(8)}
    if given is None:
        return file.values(computed(runtime, file.traced(), images, folder), images["image"])
    inputs = {f"given_{position}": file.arranged(position, values) for position, values in enumerate(given)}
    return file.values(computed(runtime, file.cut([grids[0] for grids in file.grids]), images | inputs, folder), images["image"])


def test_layers_have_the_networks_names_in_its_order(converted):
    name, _, content, _ = converted
    rows = layers.layers(content)
    assert [row.name for row in rows] == NAMES[name]
    assert rows[0].grid == Grid(1.0, -128) and all(row.grid is not None for row in rows)
    for position, row in enumerate(rows):
        assert all(source < position for source in row.reads) and len(row.reads) == (2 if row.operator == "ADD" else 1)


def test_looking_in_changes_no_logit_and_gives_every_tensor(converted, tmp_path):
    _, quantized, content, onnx_content = converted
    rows = layers.layers(content)
    images = pictures(8)
    for runtime, file in (("litert", _Tflite(content, rows)), ("litert-builtin", _Tflite(content, rows)), ("onnxruntime", _Onnx(onnx_content, rows))):
        (tmp_path / "plain").write_bytes(file.content)
        found = computed(runtime, file.traced(), {"image": images}, tmp_path)
        np.testing.assert_array_equal(found["logits"], process.run_logits(runtime, tmp_path / "plain", images))
        values = file.values(found, images)
        assert [value.shape for value in values] == [(8, *row.shape[1:]) for row in rows]
        np.testing.assert_array_equal(values[0].astype(np.int16) + 128, images)
        logits = (values[-1].astype(np.float64) - rows[-1].grid.zero_point) * rows[-1].grid.scale
        np.testing.assert_allclose(logits, found["logits"], rtol=1e-6)


def test_a_layer_alone_computes_what_it_computes_in_the_whole(converted, tmp_path):
    _, _, content, onnx_content = converted
    rows = layers.layers(content)
    for runtime, file in (("litert", _Tflite(content, rows)), ("litert-builtin", _Tflite(content, rows)), ("onnxruntime", _Onnx(onnx_content, rows))):
        whole = look(file, runtime, tmp_path)
        for row, alone, there in zip(rows, look(file, runtime, tmp_path, whole), whole, strict=True):
            np.testing.assert_array_equal(alone, there, err_msg=f"{row.name} on {runtime}")


def test_a_layer_alone_reads_what_it_is_given(converted, tmp_path):
    """Noise in what one layer reads changes that layer, and no other."""
    _, _, content, onnx_content = converted
    rows = layers.layers(content)
    for runtime, file in (("litert", _Tflite(content, rows)), ("onnxruntime", _Onnx(onnx_content, rows))):
        whole = look(file, runtime, tmp_path)
        spoilt = list(whole)
        spoilt[2] = np.roll(whole[2], 1, axis=0)
        changed = {row.name for row, alone, there in zip(rows, look(file, runtime, tmp_path, spoilt), whole) if not np.array_equal(alone, there)}
        assert changed == {row.name for row in rows if 2 in row.reads}


def test_every_tensor_of_onnx_runtime_equals_that_of_litert(converted, tmp_path):
    """Sums too: of two ReLU6 outputs and with a ReLU6 behind, all on one grid, a sum needs no rounding."""
    _, _, content, onnx_content = converted
    rows = layers.layers(content)
    found = [look(_Tflite(content, rows), "litert", tmp_path), look(_Onnx(onnx_content, rows), "onnxruntime", tmp_path)]
    for row, ours, theirs in zip(rows, *found, strict=True):
        assert len(np.unique(ours)) > 10, f"{row.name} tells nothing apart"
        np.testing.assert_array_equal(theirs, ours, err_msg=row.name)


def test_sums_on_one_grid_are_exact_in_every_family_of_kernels(converted, tmp_path):
    name, _, content, _ = converted
    if name != "residual":
        pytest.skip("the network has no sums")
    rows = layers.layers(content)
    file = _Tflite(content, rows)
    whole = look(file, "litert", tmp_path)
    for runtime in ("litert-builtin", "litert-reference"):
        alone = look(file, runtime, tmp_path, whole)
        for position, row in enumerate(rows):
            if row.operator == "ADD":
                first, second = (whole[source].astype(np.int32) + 128 for source in row.reads)
                assert {rows[source].grid for source in row.reads} == {row.grid}
                np.testing.assert_array_equal(whole[position].astype(np.int32) + 128, np.minimum(first + second, 255))
                np.testing.assert_array_equal(alone[position], whole[position])


def test_an_onnx_file_of_another_network_is_refused(converted):
    name, _, content, onnx_content = converted
    rows = layers.layers(content)
    with pytest.raises(BadInput, match="the ONNX file has"):
        layers_onnx.places(onnx_content, rows[:-2])
    model = onnx.load_from_string(onnx_content)
    kept = [node for node in model.graph.node if node.op_type != "DequantizeLinear" or node.output[0] == "logits"]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    with pytest.raises(BadInput, match="the ONNX file has"):
        layers_onnx.places(model.SerializeToString(), rows)


def test_what_is_not_tflite_or_of_another_type_is_refused():
    with pytest.raises(BadInput, match="not a TFLite model"):
        layers.layers(b"\0" * 64)


def test_a_network_without_the_layer_is_refused(converted, tmp_path):
    with pytest.raises(BadInput, match="not a run|missing"):
        process.run_tensors("keras", tmp_path, {"image": pictures(1)}, wanted={"layer_0": ["stem"]}, which="qat")


VALUES = st.lists(st.tuples(st.integers(-128, 127), st.integers(-128, 127)), min_size=1, max_size=40)
GRIDS = st.tuples(st.sampled_from([0.5, 0.0625, 3.0]), st.integers(-128, 127))


@settings(max_examples=200)
@given(values=VALUES, ours=GRIDS, theirs=GRIDS)
def test_differences_are_counted_in_the_references_quanta(values, ours, theirs):
    found, expected = ([(Fraction(value[side]) - grid[1]) * Fraction(grid[0]) for value in values] for side, grid in ((0, ours), (1, theirs)))
    steps = [(a - b) / Fraction(theirs[0]) for a, b in zip(found, expected)]
    off = [abs(step) for step in steps if abs(step) >= Fraction(1, 2)]
    got = _difference(*(np.array([float(value) for value in side]) for side in (found, expected)), theirs[0], 0.5)
    assert got.off == pytest.approx(len(off) / len(values)) and got.largest == pytest.approx(float(max(map(abs, steps))))
    assert got.bias == pytest.approx(float(sum(steps) / len(steps)), abs=1e-9)
    assert (got.mean_of_off is None) == (not off) and (not off or got.mean_of_off == pytest.approx(float(sum(off) / len(off))))
    noise, signal = sum(step * step for step in steps), sum((value / Fraction(theirs[0])) ** 2 for value in expected)
    assert (got.sqnr_db is None) == (noise == 0)
    if noise and signal:
        assert got.sqnr_db == pytest.approx(10 * math.log10(signal / noise), abs=1e-6)
    elif noise:
        assert got.sqnr_db < -1000


@given(scale=st.floats(1e-6, 1e3), zero_point=st.integers(-128, 127), share=st.floats(-0.2, 0.2))
def test_grids_are_the_same_up_to_the_rounding_of_the_scale(scale, zero_point, share):
    grid = Grid(scale, zero_point)
    assert grid.same(Grid(float(np.float32(scale)), zero_point))
    assert not grid.same(Grid(scale, -zero_point - 1))
    assert Grid(scale * (1 + share), zero_point).same(grid) == (abs(share) <= 1e-4) or abs(abs(share) - 1e-4) < 1e-9
