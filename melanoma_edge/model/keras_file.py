"""Keras files that others made: looked through first, loaded only where nothing in them is code.

In: a `.keras` or `.h5` file. Out: a tf_keras network with a fixed input. A Keras file names classes and functions that are
looked up when it is loaded, and some of them run what the file says (Lambda layers; operations of TensorFlow such as
`io.write_file`; any importable function by module and name, CVE-2025-1550). So the names are compared with what image
classifiers are made of, from the file's JSON alone, before TensorFlow sees the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from melanoma_edge.errors import BadInput
from melanoma_edge.model.keras_container import SUFFIXES, description, line, private_copy

__all__ = ["SUFFIXES", "inspect", "load", "read", "side_of"]

MOST_DEPTH = 200

LAYERS = frozenset(
    """
    Functional Model Sequential InputLayer Dense Activation Dropout SpatialDropout1D SpatialDropout2D GaussianDropout GaussianNoise AlphaDropout
    ActivityRegularization Masking Permute RepeatVector Reshape Flatten Identity
    Conv1D Conv2D Conv2DTranspose Convolution2D SeparableConv2D SeparableConvolution2D DepthwiseConv2D Conv1DTranspose SeparableConv1D
    ZeroPadding1D ZeroPadding2D Cropping1D Cropping2D UpSampling1D UpSampling2D
    MaxPooling1D MaxPooling2D MaxPool2D AveragePooling1D AveragePooling2D AvgPool2D
    GlobalAveragePooling1D GlobalAveragePooling2D GlobalAvgPool2D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPool2D
    Add Subtract Multiply Average Maximum Minimum Concatenate Dot
    BatchNormalization SyncBatchNormalization LayerNormalization GroupNormalization UnitNormalization Normalization
    ReLU LeakyReLU PReLU ELU ThresholdedReLU Softmax
    Rescaling Resizing CenterCrop RandomCrop RandomFlip RandomTranslation RandomRotation RandomZoom RandomContrast RandomBrightness
    MultiHeadAttention Attention AdditiveAttention EinsumDense Embedding
    """.split()
)
"""Built-in layers that compute from numbers alone: no code, no files."""
OPERATIONS = frozenset({"TFOpLambda", "SlicingOpLambda"})
"""Layers that stand for one operation of TensorFlow, which has to be one of FUNCTIONS."""
FUNCTIONS = frozenset(
    """
    __operators__.add __operators__.getitem add subtract multiply divide maximum minimum abs pow exp sqrt sigmoid tanh cast concat reshape shape squeeze
    expand_dims transpose stack unstack split tile pad identity stop_gradient clip_by_value matmul reduce_mean reduce_sum reduce_max reduce_min
    math.add math.subtract math.multiply math.divide math.truediv math.floordiv math.maximum math.minimum math.abs math.pow math.exp math.log
    math.sqrt math.rsqrt math.square math.negative math.sigmoid math.tanh math.softplus math.erf math.reduce_mean math.reduce_sum math.reduce_max
    math.reduce_min math.reduce_std math.reduce_variance math.l2_normalize linalg.matmul linalg.l2_normalize
    nn.relu nn.relu6 nn.leaky_relu nn.elu nn.selu nn.gelu nn.silu nn.swish nn.softmax nn.log_softmax nn.softplus nn.l2_normalize nn.bias_add
    nn.conv2d nn.depthwise_conv2d nn.avg_pool nn.avg_pool2d nn.max_pool nn.max_pool2d nn.depth_to_space nn.space_to_depth
    image.resize compat.v1.transpose compat.v1.shape compat.v1.squeeze compat.v1.nn.softmax compat.v1.nn.avg_pool compat.v1.nn.max_pool
    """.split()
)
"""Operations of TensorFlow that compute from numbers alone."""
VALUES = frozenset(
    """
    GlorotUniform GlorotNormal HeUniform HeNormal LecunUniform LecunNormal Zeros Ones Constant RandomUniform RandomNormal TruncatedNormal
    VarianceScaling Orthogonal Identity L1 L2 L1L2 OrthogonalRegularizer MaxNorm MinMaxNorm NonNeg UnitNorm RadialConstraint
    Policy __tuple__ __ellipsis__ __numpy__ __tensor__ TensorShape
    """.split()
)
"""Initializers, regularizers, constraints, policies and plain values."""
ACTIVATIONS = frozenset("linear relu relu6 softmax sigmoid hard_sigmoid tanh softplus softsign elu selu gelu swish silu mish exponential leaky_relu".split())
NAMED = frozenset(name.lower() for name in VALUES) | {"uniform", "normal", "zero", "one"}
"""What initializers, regularizers and constraints may be called where only their name is given, underscores left out."""
COMPOSITE = "_COMPOSITE_TYPE"
"""Stands before a second description, written as text inside the first."""
_MODULE = re.compile(r"(tf_)?keras(\.[a-z_0-9]+)*|builtins")
_EXPLAIN = "its code would have to run; rebuild the model with built-in layers, or export it as ONNX or TFLite and give that"


def inspect(path: Path) -> dict[str, str]:
    """Refuse the Keras file `path` unless it describes a network of built-in layers, without loading it.

    Returns {"written_by": what it says about its origin}. Raises BadInput with what was found in the file. Reads
    HDF5 with h5py, so call it where a crash of that library is not the caller's.
    """
    path = Path(path)
    with private_copy(path) as copy:
        return _inspect(copy, path.name)


def read(path: Path, size: int | None = None) -> tuple[Any, dict[str, str]]:
    """Return the network in the Keras file `path`, and what :func:`inspect` says of those very bytes.

    The network is a ``tf_keras.Model`` from `image` [1, side, side, 3] to `logits` [1, K]; `size` is the side for networks that take any.
    Raises BadInput for what :func:`inspect` refuses, damaged files, and networks of another form.
    """
    path = Path(path)
    with private_copy(path) as copy:
        facts = _inspect(copy, path.name)
        import tf_keras as keras

        from melanoma_edge.model.tensorflow import quiet

        try:
            with quiet():
                loaded = keras.models.load_model(str(copy), compile=False, safe_mode=True)
        except Exception as error:
            raise BadInput(f"{path.name} cannot be loaded: {line(error)}; save the model again with tf_keras {keras.__version__}") from None
    side = _side(loaded, path.name, size)
    image = keras.Input(batch_shape=(1, side, side, 3), name="image")
    try:
        given = loaded(image, training=False)
    except Exception as error:
        fixed = any(found is not None for found in loaded.inputs[0].shape[1:3])
        advice = "save the model again" if fixed else "give another --size"
        raise BadInput(f"{path.name} cannot take pictures of {side} x {side}: {line(error)}; {advice}") from None
    if len(given.shape) != 2 or None in given.shape or given.dtype.name != "float32":
        raise BadInput(f"{path.name} gives {list(given.shape)} {given.dtype.name}: expected one row of float32 numbers, one for each class")
    return keras.Model(image, keras.layers.Activation("linear", name="logits")(given)), facts


def load(path: Path, size: int | None = None):
    """Return the network of :func:`read` alone."""
    return read(path, size)[0]


def _inspect(copy: Path, name: str) -> dict[str, str]:
    """Look through a private copy of the file called `name`."""
    described, version = description(copy, name)
    if version.split(".")[0].isdigit() and int(version.split(".")[0]) >= 3:
        raise BadInput(f"{name} was written by Keras {version}: expected tf_keras (Keras 2); save it from there, or export it as ONNX or TFLite")
    if not isinstance(described, dict) or described.get("class_name") not in ("Functional", "Sequential", "Model"):
        kind = described.get("class_name") if isinstance(described, dict) else None
        raise BadInput(f"{name} describes {_shown(kind)}, no functional or sequential model: {_EXPLAIN}")
    unused = {"compile_config"} if copy.suffix == ".keras" else set()  # how it was trained: tf_keras empties it where it does not compile
    top = {key: value for key, value in described.items() if key not in unused}
    for found in _objects(top, name):
        _refuse_code(found, name)
    return {"written_by": f"Keras {version}" if version else "Keras, of a version that it does not state"}


def _side(loaded, name: str, size: int | None) -> int:
    """Return the side of the input; raises BadInput unless there is one input, square, of three channels last, and one output."""
    if len(loaded.inputs) != 1 or len(loaded.outputs) != 1:
        raise BadInput(f"{name} has {len(loaded.inputs)} inputs and {len(loaded.outputs)} outputs: expected one of each")
    shape, dtype = tuple(loaded.inputs[0].shape), loaded.inputs[0].dtype.name
    if len(shape) != 4 or shape[3] != 3 or shape[0] not in (None, 1) or dtype != "float32":
        raise BadInput(f"{name} takes {list(shape)} {dtype}: expected [batch, height, width, 3] float32")
    return side_of(shape[1:3], size, name)


def side_of(sides: tuple[int | None, int | None], size: int | None, name: str) -> int:
    """Return the side of a square input of (height, width), of which None is any; raises BadInput where `size` is missing or contradicts."""
    fixed = {side for side in sides if side is not None}
    if len(fixed) > 1:
        raise BadInput(f"{name} takes pictures of {sides[0]} x {sides[1]} (height x width): only squares are supported; export it with a square input")
    if not fixed and size is None:
        raise BadInput(f"{name} takes pictures of any size: name one with --size N, the one that it was trained with")
    side = fixed.pop() if fixed else size
    if size not in (None, side):
        raise BadInput(f"{name} takes pictures of {side} x {side}, and --size says {size}: leave --size out")
    return side


def _objects(value: Any, name: str, depth: int = 0) -> Iterator[dict]:
    """Yield every dictionary in `value`, the outer ones first."""
    if depth > MOST_DEPTH:
        raise BadInput(f"{name} nests its description more than {MOST_DEPTH} deep: expected a Keras model; save it again")
    if value == COMPOSITE:
        raise BadInput(f"{name} holds a second description as text, which cannot be looked through: {_EXPLAIN}")
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _objects(inner, name, depth + 1)


def _refuse_code(found: dict, name: str) -> None:
    """Raise BadInput where the object `found` names anything that is not known to be without code."""
    for key in ("activation", "recurrent_activation"):
        if isinstance(found.get(key), str) and found[key] not in ACTIVATIONS:
            raise BadInput(f"{name} uses the activation {_shown(found[key])}, which is not built in: {_EXPLAIN}")
    for key, value in found.items():
        if key.endswith(("_initializer", "_regularizer", "_constraint")) and isinstance(value, str) and value.replace("_", "").lower() not in NAMED:
            raise BadInput(f"{name} uses the {key.rpartition('_')[2]} {_shown(value)}, which is not built in: {_EXPLAIN}")
    if "class_name" not in found and "registered_name" not in found:
        return
    kind, module, registered = found.get("class_name"), found.get("module"), found.get("registered_name")
    config = found.get("config")
    label = config.get("name") if isinstance(config, dict) and isinstance(config.get("name"), str) else None
    called = f" {_shown(label)}" if label else ""
    if kind in ("Lambda", "__lambda__"):
        raise BadInput(f"{name} holds the Lambda layer{called}, which is code: {_EXPLAIN}")
    if module is not None and not (isinstance(module, str) and _MODULE.fullmatch(module)):
        raise BadInput(f"{name} names {_shown(kind)} of {_shown(module)}, which is not part of Keras: {_EXPLAIN}")
    if kind == "function":
        if module != "builtins" or not isinstance(config, str) or config not in ACTIVATIONS:
            raise BadInput(f"{name} names the function {_shown(config)}, which is not a built-in activation: {_EXPLAIN}")
        return
    if module == "builtins":
        raise BadInput(f"{name} names {_shown(kind)} of 'builtins', which is not part of Keras: {_EXPLAIN}")
    if isinstance(kind, str) and kind in OPERATIONS:
        function = config.get("function", "__operators__.getitem" if kind == "SlicingOpLambda" else None) if isinstance(config, dict) else None
        if not isinstance(function, str) or function not in FUNCTIONS:
            raise BadInput(f"{name} calls TensorFlow's {_shown(function)}{f' in the layer{called}' if called else ''}, which is not known to be harmless: {_EXPLAIN}")
    elif not isinstance(kind, str) or kind not in LAYERS | VALUES:
        raise BadInput(f"{name} holds {_shown(kind)}{called}, which is no built-in layer of an image classifier: {_EXPLAIN}")
    if registered not in (None, kind):
        raise BadInput(f"{name} holds the custom class {_shown(registered)}{called}: {_EXPLAIN}")


def _shown(value: object) -> str:
    """Return a name from a file as a short piece of one line."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."

