"""Quantization-aware training: a float network to one that trains through its own int8 rounding.

In: a float network (:mod:`melanoma_edge.model.network`). Out: the same network under
tensorflow-model-optimization, with the ranges that are known pinned and the others calibrated.

Why pin. tensorflow-model-optimization starts every range at [-6, 6] and moves it by 0.1 % a step,
so after a thousand steps most of the int8 range is still wasted. The input is [0, 255] by contract
(hence scale 1 and zero point 0) and a ReLU6 ends in [0, 6] by construction; the ranges of the other
layers (pooling, logits) are measured on training pictures before the first step.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tensorflow_model_optimization.python.core.quantization.keras import quantize, quantize_layer
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import default_8bit_quantize_scheme
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit.default_8bit_quantize_configs import (
    NoOpQuantizeConfig,
)
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit.default_8bit_quantize_registry import (
    Default8BitConvQuantizeConfig,
    Default8BitQuantizeConfig,
)
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit.default_8bit_quantizers import (
    Default8BitConvWeightsQuantizer,
)
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit.default_8bit_transforms import (
    InputLayerQuantize,
)
from tensorflow_model_optimization.python.core.quantization.keras.graph_transformations.model_transformer import (
    ModelTransformer,
)
from tensorflow_model_optimization.python.core.quantization.keras.quantizers import FixedQuantizer

from melanoma_edge.contract import Recipe
from melanoma_edge.model.dropout import StepDropout

WRAPPER_PREFIX = "quant_"


class PinnedOutput(NoOpQuantizeConfig):
    """Quantize a layer's output to 8 bits over a range that is known and never moves."""

    def __init__(self, low: float, high: float):
        self.low, self.high = low, high

    def get_output_quantizers(self, layer):
        return [FixedQuantizer(num_bits=8, init_min=self.low, init_max=self.high, narrow_range=False)]

    def get_config(self):
        return {"low": self.low, "high": self.high}


class DepthwiseWeights(Default8BitConvWeightsQuantizer):
    """Per-channel quantization of depthwise kernels [h, w, channels, 1].

    The library takes the last axis for the channels; in a depthwise kernel that axis has length 1, so
    all channels would share one range, while the converter and the runtimes quantize each its own.
    """

    def build(self, tensor_shape, name, layer):
        return super().build((tensor_shape[-2],), name, layer)

    def __call__(self, inputs, training, weights, **kwargs):
        turned = tf.transpose(inputs, (0, 1, 3, 2))
        return tf.transpose(super().__call__(turned, training, weights, **kwargs), (0, 1, 3, 2))


class DepthwiseConfiguration(Default8BitConvQuantizeConfig):
    """Quantize a depthwise convolution's weights per channel and nothing else."""

    def __init__(self):
        super().__init__(["depthwise_kernel"], [], False)
        self.weight_quantizer = DepthwiseWeights()

    def get_config(self):
        return {}


class _InputOnly:
    """Layout transform that adds the input's quantization and nothing else."""

    def apply(self, model, layer_quantize_map):
        return ModelTransformer(model, [InputLayerQuantize()], set(layer_quantize_map), layer_quantize_map).transform()


class _Scheme(default_8bit_quantize_scheme.Default8BitQuantizeScheme):
    """The library's 8-bit scheme without its pattern rewrites: every layer's configuration is explicit.

    The library's own rewrite of a convolution or dense layer followed by a ReLU drops the
    quantization of the weights with that of the output; so the patterns are not left to it.
    """

    def get_layout_transformer(self):
        return _InputOnly()


def quantization_aware(network: keras.Model) -> keras.Model:
    """Return `network` made quantization-aware, with its weights, input and ReLU6 ranges pinned.

    The ranges that are not known stand at the library's start values until :func:`calibrate` or
    loaded weights set them. Weights: per-channel in convolutions, per-tensor in dense layers.
    """

    def annotate(layer):
        if isinstance(layer, keras.layers.InputLayer):
            return layer
        return quantize.quantize_annotate_layer(layer, _configuration(layer))

    annotated = keras.models.clone_model(network, clone_function=annotate)
    annotated.set_weights(network.get_weights())
    with quantize.quantize_scope({kind.__name__: kind for kind in (PinnedOutput, DepthwiseConfiguration, StepDropout)}):
        quantized = quantize.quantize_apply(annotated, _Scheme())
    for layer in quantized.layers:
        if isinstance(layer, quantize_layer.QuantizeLayer):
            layer.quantizer = FixedQuantizer(num_bits=8, init_min=0.0, init_max=255.0, narrow_range=False)
    return quantized


def _configuration(layer: keras.layers.Layer):
    """Return what to quantize of `layer` (of the float network), or None for the library's default.

    What a BatchNormalization or a ReLU follows is fused with it in every runtime, so nothing may be
    rounded between them.
    """
    followers = [node.outbound_layer for node in layer.outbound_nodes]
    fused = any(isinstance(follower, (keras.layers.BatchNormalization, keras.layers.ReLU)) for follower in followers)
    if isinstance(layer, StepDropout) or isinstance(layer, keras.layers.BatchNormalization) and fused:
        return NoOpQuantizeConfig()
    if isinstance(layer, keras.layers.Add) and followers and all(isinstance(follower, keras.layers.ReLU) for follower in followers):
        return NoOpQuantizeConfig()
    if isinstance(layer, keras.layers.ReLU) and layer.max_value is not None:
        return PinnedOutput(0.0, float(layer.max_value))
    if isinstance(layer, keras.layers.DepthwiseConv2D) and fused:
        return DepthwiseConfiguration()
    if isinstance(layer, keras.layers.Conv2D) and fused:
        return Default8BitConvQuantizeConfig(["kernel"], [], False)
    if isinstance(layer, keras.layers.Dense) and fused:
        return Default8BitQuantizeConfig(["kernel"], [], False)
    return None


def calibrate(quantized: keras.Model, network: keras.Model, batches: Iterable[np.ndarray]) -> dict[str, tuple[float, float]]:
    """Set every moving range of `quantized` to what `network` produces on `batches`.

    `network` is the float network that `quantized` was made from, with the same weights; `batches`
    yields float32 or uint8 [n, size, size, 3]. Returns {layer name: (min, max)}. During training the
    ranges go on following the batches slowly, as the library does.
    """
    names = [layer.name for layer in network.layers if _range_variables(quantized, layer.name)]
    probe = keras.Model(network.input, [network.get_layer(name).output for name in names])
    low = np.full(len(names), np.inf)
    high = np.full(len(names), -np.inf)
    for batch in batches:
        outputs = probe(np.asarray(batch, np.float32), training=False)
        for index, output in enumerate(outputs if len(names) > 1 else [outputs]):
            low[index] = min(low[index], float(np.min(output)))
            high[index] = max(high[index], float(np.max(output)))
    for index, name in enumerate(names):
        minimum, maximum = _range_variables(quantized, name)
        minimum.assign(min(low[index], 0.0))  # a quantized range must contain zero
        maximum.assign(max(high[index], 0.0))
    return {name: (float(min(low[index], 0.0)), float(max(high[index], 0.0))) for index, name in enumerate(names)}


def _range_variables(quantized: keras.Model, name: str):
    """Return the (min, max) variables of the moving output range of the layer once called `name`, or None."""
    try:
        return _moving_range(quantized.get_layer(WRAPPER_PREFIX + name))
    except ValueError:
        return None


def _moving_range(wrapper: keras.layers.Layer):
    """Return the (min, max) variables of a wrapped layer's moving output range, or None."""
    by_suffix = {variable.name.split("/")[-1].split(":")[0]: variable for variable in wrapper.non_trainable_variables}
    for prefix in ("output", "post_activation"):
        if f"{prefix}_min" in by_suffix:
            return by_suffix[f"{prefix}_min"], by_suffix[f"{prefix}_max"]
    return None


def freeze(quantized: keras.Model, recipe: Recipe) -> list:
    """Hold still what must not move in quantization-aware training; return the variables that do train.

    BatchNormalization keeps the statistics of the float network (its affine map goes on learning). In
    `classic` the first convolution, into which the input's scaling is folded, has weights so small
    that a training step would destroy them: it stays as it is.
    """
    for layer in quantized.layers:
        if isinstance(getattr(layer, "layer", None), keras.layers.BatchNormalization):
            layer.trainable = False
    still = {"conv1/kernel", "conv1/bias"} if recipe.network == "classic" else set()
    return [variable for variable in quantized.trainable_variables if variable.name.split(":")[0] not in still]


def snap_biases(quantized: keras.Model) -> float:
    """Move every bias of a trained quantization-aware network onto the grid that int8 arithmetic has.

    Integer kernels hold biases as int32 in units of input scale times weight scale; the simulation
    knows nothing of that. The rounding is far below a quantum, but it tips about one activation in a
    thousand to its neighbour, and over twenty layers a third of all logits. With biases on the grid
    (a change of at most half a unit) the simulation computes what the integers will. Where a
    BatchNormalization follows, its beta takes the change up.

    Returns the largest change, in units of the grid (at most 0.5).
    """
    scales: dict[str, float | None] = {}
    largest = 0.0
    for layer in quantized.layers:  # each behind those that it reads
        inner, source = getattr(layer, "layer", None), _source(layer)
        scale = None if source is None else scales[source.name]
        scales[layer.name] = _output_scale(layer) or scale
        if isinstance(inner, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)):
            values = {variable.name.split("/")[-1].split(":")[0]: variable.numpy() for variable in layer.non_trainable_variables}
            bound = next(value for name, value in values.items() if name.endswith("kernel_max"))
            step = scale * np.atleast_1d(bound).astype(np.float64) / 127  # symmetric, narrow range: -127..127
            follower = next((getattr(node.outbound_layer, "layer", None) for node in layer.outbound_nodes), None)
            if isinstance(follower, keras.layers.BatchNormalization):
                gain = follower.gamma.numpy().astype(np.float64) / np.sqrt(follower.moving_variance.numpy().astype(np.float64) + follower.epsilon)
                step, bias = step * np.abs(gain), follower.beta.numpy() - follower.moving_mean.numpy() * gain
                target = follower.beta
            else:
                bias, target = inner.bias.numpy().astype(np.float64), inner.bias
            step = np.maximum(step, np.finfo(np.float32).tiny)  # a channel whose weights are all zero
            change = np.rint(bias / step) * step - bias
            target.assign(target.numpy() + change)
            largest = max(largest, float(np.max(np.abs(change) / step)))
    return largest


def _source(layer: keras.layers.Layer) -> keras.layers.Layer | None:
    """Return the first layer that `layer` reads, None for the input."""
    sources = layer.inbound_nodes[0].inbound_layers
    return next(iter(sources), None) if isinstance(sources, list) else sources


def output_grid(layer: keras.layers.Layer) -> tuple[float, int] | None:
    """Return (scale, zero point as int8) of what `layer` quantizes its output to, None where it does not.

    The zero point is moved to a whole number as TensorFlow's fake quantization does it.
    """
    known = _output_range(layer)
    if known is None:
        return None
    low, high = known
    scale = (high - low) / 255
    return scale, int(np.clip(np.floor(-low / scale + 0.5), 0, 255)) - 128


def _output_scale(layer: keras.layers.Layer) -> float | None:
    """Return the scale of the range that `layer` quantizes its output to, None where it does not."""
    known = _output_range(layer)
    return None if known is None else (known[1] - known[0]) / 255


def _output_range(layer: keras.layers.Layer) -> tuple[float, float] | None:
    """Return the range that `layer` quantizes its output to, None where it does not."""
    if isinstance(layer, quantize_layer.QuantizeLayer):
        return layer.quantizer.init_min, layer.quantizer.init_max
    configuration = getattr(layer, "quantize_config", None)
    if isinstance(configuration, PinnedOutput):
        return configuration.low, configuration.high
    variables = _moving_range(layer)
    return None if variables is None else (float(variables[0].numpy()), float(variables[1].numpy()))
