"""Quantization-aware networks: what is pinned, what is quantized, and biases on their integer grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melanoma_edge.contract import Recipe

pytestmark = pytest.mark.xdist_group("tensorflow")

CLASSES = 4


@pytest.fixture(scope="module")
def keras():
    from melanoma_edge.model.tensorflow import require

    require()
    import tf_keras

    return tf_keras


def blotches(count: int, seed: int) -> np.ndarray:
    """Return smooth pictures, uint8 [count, 32, 32, 3], that differ more from each other than noise does."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    return np.clip(coarse + rng.normal(0, 10, coarse.shape), 0, 255).astype(np.uint8)


def in_training(network, pictures: np.ndarray) -> None:
    """Call a network on `pictures` (uint8) as a training step does."""
    from melanoma_edge.model.dropout import drawn

    with drawn(np.array([1, 2], np.int32), 0, len(pictures)):
        network(pictures.astype(np.float32), training=True)


@pytest.fixture(scope="module", params=["edge", "edge-residual", "edge-lean", "classic", "classic-batchnorm"])
def networks(request, keras):
    """A float network with random, plausible weights, and its quantization-aware, calibrated twin."""
    from melanoma_edge.model import network, quantize

    keras.utils.set_random_seed(1)
    recipe = Recipe(name="tiny", network=request.param, image_size=32, width=0.5)
    plain = network.build(recipe, CLASSES)
    rng = np.random.default_rng(3)
    for layer in plain.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.set_weights([rng.uniform(1, 2, shape), rng.normal(1, 1, shape), np.zeros(shape), np.ones(shape)])
        elif len(layer.weights) == 2:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel / (255 if layer.name == "conv1" else 1), rng.normal(0, 0.1, bias.shape)])
    pictures = blotches(16, 3)
    for _ in range(60):  # lets the statistics of BatchNormalization become those of these pictures
        in_training(plain, pictures)
    quantized = quantize.quantization_aware(plain)
    ranges = quantize.calibrate(quantized, plain, [pictures])
    in_training(quantized, pictures)  # sets the weights' ranges, as the first step would
    quantize.calibrate(quantized, plain, [pictures])
    return recipe, plain, quantized, ranges, pictures


def test_fold_rescaling_computes_the_same(keras):
    from melanoma_edge.model import network

    for name in ("edge", "edge-residual", "edge-lean", "classic", "classic-batchnorm"):
        recipe = Recipe(name="tiny", network=name, image_size=32, width=0.5)
        trained = network.build(recipe, CLASSES, rescale=True)
        folded = network.fold_rescaling(trained, recipe, CLASSES)
        assert not any(layer.name == "rescale" for layer in folded.layers)
        pictures = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.float32)
        np.testing.assert_allclose(folded(pictures).numpy(), trained(pictures).numpy(), rtol=1e-4, atol=1e-5)


def test_default_network_has_the_promised_size(keras):
    from melanoma_edge import recipes
    from melanoma_edge.model import network

    model = network.build(recipes.load("default"), 9)
    assert 200_000 <= model.count_params() <= 700_000
    assert 20e6 < network.multiply_accumulates(model) < 80e6


@pytest.mark.parametrize("name", ["edge-residual", "edge-lean"])
def test_ways_around_blocks_cost_no_weights_and_stay_on_one_grid(keras, name: str):
    """What is added and every sum is 0 to 6 wide, and no layer between them has a range of its own."""
    from melanoma_edge.model import network, quantize

    recipe = Recipe(name="tiny", network=name, image_size=64, width=0.5)
    shape = network.SHAPES[name]
    plain, residual = (network.build(recipe, CLASSES, shape=one) for one in (replace(shape, residual=False), shape))
    assert [weight.shape for weight in residual.weights] == [weight.shape for weight in plain.weights]
    sums = [layer for layer in residual.layers if isinstance(layer, keras.layers.Add)]
    assert len(sums) == sum(stride == 1 for _, stride in shape.blocks)
    quantized = quantize.quantization_aware(residual)
    for layer in sums:
        wrapped = quantized.get_layer(f"quant_{layer.name}")
        sources = [quantized.get_layer(f"quant_{node.layer.name}") for node in (tensor.node for tensor in layer.input)]
        follower = wrapped.outbound_nodes[0].outbound_layer
        assert [quantize.output_grid(one) for one in (*sources, wrapped, follower)] == [(6 / 255, -128), (6 / 255, -128), None, (6 / 255, -128)]


def test_multiply_accumulates_of_a_network_counted_by_hand(keras):
    from melanoma_edge.model import network

    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(5, 3, strides=2, padding="same")(image)
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(image, keras.layers.Dense(7)(x))
    assert network.multiply_accumulates(model) == 4 * 4 * (3 * 3 * 3 * 5) + 4 * 4 * (3 * 3 * 5) + 5 * 7


def test_known_ranges_are_pinned_and_stay_in_training(networks):
    from melanoma_edge.model import quantize

    _, plain, quantized, _, pictures = networks
    inputs = next(layer for layer in quantized.layers if type(layer).__name__ == "QuantizeLayer")
    assert (inputs.quantizer.init_min, inputs.quantizer.init_max) == (0.0, 255.0)
    probe = inputs(pictures[:1].astype(np.float32) + 0.3, training=True).numpy()
    np.testing.assert_array_equal(probe, np.rint(pictures[:1] + 0.3))  # scale 1, zero point 0
    for layer in quantized.layers:
        if layer.name.endswith("_relu6"):
            assert isinstance(layer.quantize_config, quantize.PinnedOutput)
            steps = layer(np.linspace(-1, 8, 1001, dtype=np.float32), training=True).numpy() / (6 / 255)
            np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
            assert steps.min() == 0 and round(float(steps.max())) == 255


def test_other_ranges_are_those_that_the_float_network_produces(networks, keras):
    _, plain, quantized, ranges, pictures = networks
    assert "logits" in ranges
    logits = plain(pictures.astype(np.float32)).numpy()
    assert ranges["logits"] == pytest.approx((min(0, logits.min()), max(0, logits.max())), rel=1e-5)


def test_every_weight_is_quantized_per_channel_or_per_tensor(networks, keras):
    """The library's own rewrite would leave a convolution that a ReLU follows in float."""
    _, plain, quantized, _, pictures = networks
    checked = 0
    for layer in quantized.layers:
        inner = getattr(layer, "layer", None)
        if not isinstance(inner, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)):
            continue
        names = {variable.name.split("/")[-1].split(":")[0]: variable for variable in layer.non_trainable_variables}
        bound = next((value for name, value in names.items() if name.endswith("kernel_max")), None)
        assert bound is not None, f"{layer.name} has no quantized weights"
        kernel = layer._weight_vars[0][0].numpy()  # the layer itself holds the quantized tensor by now
        if isinstance(inner, keras.layers.DepthwiseConv2D):
            expected = np.abs(kernel).max(axis=(0, 1, 3))
        elif isinstance(inner, keras.layers.Conv2D):
            expected = np.abs(kernel).max(axis=(0, 1, 2))
        else:
            expected = np.abs(kernel).max()
        np.testing.assert_allclose(bound.numpy(), expected, rtol=1e-6, err_msg=layer.name)
        checked += 1
    assert checked == sum(bool(layer.weights) and "bn" not in layer.name for layer in plain.layers)


def test_biases_end_on_the_integer_grid_and_hardly_move(networks, keras):
    from melanoma_edge.model import quantize

    recipe, _, quantized, _, pictures = networks
    before = quantized(pictures.astype(np.float32), training=False).numpy()
    largest = quantize.snap_biases(quantized)
    assert 0 < largest <= 0.5 + 1e-6
    assert quantize.snap_biases(quantized) < 0.1  # a second time finds nothing but float32 noise
    after = quantized(pictures.astype(np.float32), training=False).numpy()
    assert np.abs(after - before).max() <= 0.1 * np.ptp(before)


def test_snapped_simulation_equals_the_integers_of_litert(networks, keras, tmp_path):
    """Against the converted file: nearly all logits are equal.

    How far the others are off says nothing here: without training, one activation that is rounded the other
    way grows from layer to layer. The gate on trained networks bounds that.
    """
    from melanoma_edge.convert import tflite
    from melanoma_edge.model import network, quantize
    from melanoma_edge.model import run as runs
    from melanoma_edge.runtimes import process

    recipe, _, quantized, _, _ = networks
    pictures = blotches(200, 4)
    quantize.snap_biases(quantized)
    fixed = quantize.quantization_aware(network.build(recipe, CLASSES, batch=1))
    runs.assign(fixed.weights, runs.named(quantized.weights), "the twin")
    content = tflite.convert(fixed, "int8")
    (tmp_path / "int8.tflite").write_bytes(content)
    tensor_in, tensor_out, quantum = tflite.tensors(content)
    assert (tensor_in.name, tensor_in.dtype, tensor_in.quantization.scale, tensor_in.quantization.zero_point) == ("image", "uint8", 1.0, 0)
    assert (tensor_out.name, tensor_out.dtype) == ("logits", "float32")
    found = process.run_logits("litert", tmp_path / "int8.tflite", pictures)
    expected = quantized(pictures.astype(np.float32), training=False).numpy()
    assert len(np.unique(found)) > 20  # the network tells the pictures apart
    quanta = np.rint(np.abs(found - expected) / quantum)
    assert (quanta > 0).mean() <= 0.08


def test_integers_of_onnx_runtime_equal_those_of_litert(networks, tmp_path):
    """Not one quantum apart, and without a float operator left."""
    import onnx
    import onnxruntime

    from melanoma_edge.convert import onnx as onnx_convert
    from melanoma_edge.convert import tflite
    from melanoma_edge.model import network, quantize
    from melanoma_edge.model import run as runs
    from melanoma_edge.runtimes import process

    recipe, _, quantized, _, _ = networks
    fixed = quantize.quantization_aware(network.build(recipe, CLASSES, batch=1))
    runs.assign(fixed.weights, runs.named(quantized.weights), "the twin")
    content = tflite.convert(fixed, "int8")
    (tmp_path / "int8.tflite").write_bytes(content)
    (tmp_path / "int8.onnx").write_bytes(onnx_convert.from_tflite(content))
    pictures = blotches(200, 4)
    found = {name: process.run_logits(name, tmp_path / f"int8.{kind}", pictures) for name, kind in (("litert", "tflite"), ("onnxruntime", "onnx"))}
    assert len(np.unique(found["litert"])) > 20
    np.testing.assert_allclose(found["onnxruntime"], found["litert"], rtol=0, atol=0.01 * tflite.tensors(content)[2])

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(tmp_path / "int8.onnx"), options, providers=["CPUExecutionProvider"])
    operators = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert not operators & {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "GlobalAveragePool", "AveragePool", "QuantizeLinear"}, operators


def test_quantization_after_training_gives_whole_integer_files_of_either_layout(networks, tmp_path):
    """As close to the float network as 8 bits are, no float operator, and ONNX as exact as TFLite, however its input is ordered."""
    from melanoma_edge.convert import onnx as onnx_convert
    from melanoma_edge.convert import tflite
    from melanoma_edge.errors import ProofFailed
    from melanoma_edge.model import network
    from melanoma_edge.runtimes import process

    recipe, plain, _, _, _ = networks
    fixed = network.build(recipe, CLASSES, batch=1)
    fixed.set_weights(plain.get_weights())
    calibration, pictures = blotches(40, 5), blotches(100, 6)
    assert (calibration.min(), calibration.max()) == (0, 255)
    content = tflite.convert(fixed, "int8-ptq", calibration)
    tensor_in, tensor_out, quantum = tflite.tensors(content)
    assert (tensor_in.name, tensor_in.dtype, tensor_in.quantization.scale, tensor_in.quantization.zero_point) == ("image", "uint8", 1.0, 0)
    assert (tensor_out.name, tensor_out.dtype) == ("logits", "float32") and quantum > 0
    assert set(tflite.census(content)[1]) <= {"int8", "int32"}

    files = {"m.tflite": content, "m.onnx": onnx_convert.from_tflite(content), "turned.onnx": onnx_convert.from_tflite(content, "NCHW")}
    found = {}
    for name, model in files.items():
        (tmp_path / name).write_bytes(model)
        found[name] = process.run_logits("litert" if name.endswith("tflite") else "onnxruntime", tmp_path / name, pictures)
    assert [onnx_convert.tensors(files[name])[0].shape for name in ("m.onnx", "turned.onnx")] == [(1, 32, 32, 3), (1, 3, 32, 32)]
    assert onnx_convert.census(files["turned.onnx"])[0].get("Transpose", 0) == onnx_convert.census(files["m.onnx"])[0]["Transpose"] - 1
    np.testing.assert_array_equal(found["turned.onnx"], found["m.onnx"])
    np.testing.assert_allclose(found["m.onnx"], found["m.tflite"], rtol=0, atol=0.01 * quantum)
    expected = plain(pictures.astype(np.float32), training=False).numpy()
    noise, signal = np.mean((found["m.tflite"] - expected) ** 2), np.var(expected)
    assert 10 * np.log10(signal / noise) > 15

    with pytest.raises(ProofFailed, match="expected uint8, scale 1 and zero point 0; give calibration pictures with black and white"):
        tflite.convert(fixed, "int8-ptq", np.clip(calibration, 0, 200))


def test_hybrid_operators_have_the_versions_that_tensorflow_gives_them(keras, monkeypatch):
    import tensorflow as tf
    from ai_edge_litert import schema_py_generated as schema

    from melanoma_edge.convert import tflite

    monkeypatch.setattr(tflite, "LEAST_WEIGHTS", 1)

    def versions(content: bytes) -> tuple[dict[int, int], str]:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
        [stated] = [entry for entry in model.metadata if entry.name == b"min_runtime_version"]
        used = [model.operatorCodes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]
        return {code.builtinCode: code.version for code in used}, bytes(model.buffers[stated.buffer].data).rstrip(b"\0").decode()

    for layers in ([keras.layers.Conv2D(64, 3)], [keras.layers.Conv2D(64, 3), keras.layers.Flatten(), keras.layers.Dense(10)]):
        model = keras.Sequential([keras.Input((16, 16, 16), batch_size=1), *layers])
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        assert versions(tflite.convert(model, "dynamic")) == versions(converter.convert())


def test_statistics_and_the_folded_first_layer_do_not_move_in_training(networks, keras):
    from melanoma_edge.model import quantize

    recipe, _, quantized, _, pictures = networks
    names = {variable.name for variable in quantize.freeze(quantized, recipe)}
    assert any(name.startswith("conv1/") for name in names) == (recipe.network == "classic-batchnorm")
    assert {"logits/kernel:0", "logits/bias:0"} <= names
    before = [variable.numpy() for variable in quantized.variables if "moving_" in variable.name]
    in_training(quantized, pictures)
    after = [variable.numpy() for variable in quantized.variables if "moving_" in variable.name]
    assert bool(before) == (recipe.network != "classic")
    assert all(np.array_equal(old, new) for old, new in zip(before, after))
