"""Runs in the environment with coremltools and without melanoma-edge: PICTURES.npy OUT.json PACKAGE.mlpackage ...

Reads each package from the disk and computes in numpy, float32, what its program says, operator by operator as Core ML's
documentation defines them (apple.github.io/coremltools, MIL Ops). Core ML itself runs on Apple's systems only.
Writes {package: {"logits": ..., "probabilities": ..., "classes": ..., "metadata": {...}, "types": {...}}}.
"""

import json
import sys
from pathlib import Path

import coremltools
import numpy as np
from coremltools.converters.mil.frontend.milproto.load import load


def conv(x, weight, bias, strides, pad, dilations, groups):
    x = np.pad(x, [(0, 0), (0, 0), pad[0:2], pad[2:4]])
    height, width = ((x.shape[2 + i] - dilations[i] * (weight.shape[2 + i] - 1) - 1) // strides[i] + 1 for i in (0, 1))
    outputs, per_group = weight.shape[:2]
    result = np.zeros((1, outputs, height, width), np.float32)
    for row in range(weight.shape[2]):
        for column in range(weight.shape[3]):
            top, left = row * dilations[0], column * dilations[1]
            seen = x[0, :, top : top + strides[0] * (height - 1) + 1 : strides[0], left : left + strides[1] * (width - 1) + 1 : strides[1]]
            for group in range(groups):
                part = slice(group * outputs // groups, (group + 1) * outputs // groups)
                result[0, part] += np.tensordot(weight[part, :, row, column], seen[group * per_group : (group + 1) * per_group], 1)
    return result + bias.reshape(1, -1, 1, 1)  # a conv without a bias gets one zero


def windows(x, sizes, strides, pad, empty):
    x = np.pad(x, [(0, 0), (0, 0), pad[0:2], pad[2:4]], constant_values=empty)
    return np.lib.stride_tricks.sliding_window_view(x, tuple(sizes), (2, 3))[:, :, :: strides[0], :: strides[1]]


def average(x, sizes, strides, pad, exclude):
    total = windows(x, sizes, strides, pad, 0).sum((-1, -2))
    count = windows(np.ones_like(x), sizes, strides, pad, 0).sum((-1, -2)) if exclude else np.prod(sizes)
    return total / count


def softmax(x, axis):
    shifted = np.exp(x - x.max(axis, keepdims=True))
    return shifted / shifted.sum(axis, keepdims=True)


OPERATORS = {
    "cast": lambda o, v: v("x"),
    "conv": lambda o, v: conv(v("x"), v("weight"), v("bias"), v("strides"), v("pad"), v("dilations"), int(v("groups"))),
    "linear": lambda o, v: v("x") @ v("weight").T + v("bias"),
    "relu": lambda o, v: np.maximum(v("x"), 0),
    "relu6": lambda o, v: np.clip(v("x"), 0, 6),
    "clip": lambda o, v: np.clip(v("x"), v("alpha"), v("beta")),
    "sigmoid": lambda o, v: 1 / (1 + np.exp(-v("x"))),
    "silu": lambda o, v: v("x") / (1 + np.exp(-v("x"))),
    "identity": lambda o, v: v("x"),
    "add": lambda o, v: v("x") + v("y"),
    "mul": lambda o, v: v("x") * v("y"),
    "max_pool": lambda o, v: windows(v("x"), v("kernel_sizes"), v("strides"), v("pad"), -np.inf).max((-1, -2)),
    "avg_pool": lambda o, v: average(v("x"), v("kernel_sizes"), v("strides"), v("pad"), bool(v("exclude_padding_from_average"))),
    "reduce_mean": lambda o, v: v("x").mean(tuple(v("axes")), keepdims=bool(v("keep_dims"))),
    "squeeze": lambda o, v: v("x").squeeze(tuple(v("axes"))),
    "transpose": lambda o, v: v("x").transpose(tuple(v("perm"))),
    "reshape": lambda o, v: v("x").reshape(tuple(v("shape"))),
    "expand_dims": lambda o, v: np.expand_dims(v("x"), tuple(v("axes"))),
    "softmax": lambda o, v: softmax(v("x"), int(v("axis"))),
}


def compute(program, picture):
    """Return {name of a value: array} for a picture, uint8 [size, size, 3]."""
    [name] = program.functions["main"].inputs
    values = {name: picture.transpose(2, 0, 1)[np.newaxis].astype(np.float32)}
    for operator in program.functions["main"].operations:
        if operator.op_type == "const":
            values[operator.outputs[0].name] = operator.val.val
        elif operator.op_type == "constexpr_affine_dequantize":
            shape = [-1 if axis == operator.axis.val else 1 for axis in range(operator.quantized_data.val.ndim)]
            scale, zero = np.broadcast_to(operator.scale.val, len(operator.quantized_data.val)), operator.zero_point.val
            values[operator.outputs[0].name] = (operator.quantized_data.val.astype(np.float32) - zero.reshape(shape)) * scale.reshape(shape)
        elif operator.op_type != "classify":

            def value(key):
                if key == "bias" and operator.inputs.get(key) is None:
                    return np.zeros(1, np.float32)
                found = np.asarray(values[operator.inputs[key].name])
                return found.astype(np.float32) if found.dtype == np.float16 else found

            values[operator.outputs[0].name] = OPERATORS[operator.op_type](operator, value)
    return values


def run(package, pictures):
    [file] = Path(package).rglob("*.mlmodel")
    spec = coremltools.utils.load_spec(str(file))
    program = load(spec, spec.specificationVersion, str(file.parent / "weights"))
    [classify] = [operator for operator in program.functions["main"].operations if operator.op_type == "classify"]
    found = [compute(program, picture) for picture in pictures]
    return {
        "logits": [values["logits"][0].tolist() for values in found],
        "probabilities": [values[classify.probabilities.name][0].tolist() for values in found],
        "classes": [str(name) for name in classify.classes.val],
        "metadata": dict(spec.description.metadata.userDefined) | {"shortDescription": spec.description.metadata.shortDescription, "license": spec.description.metadata.license},
        "types": {feature.name: feature.type.WhichOneof("Type") for feature in (*spec.description.input, *spec.description.output)},
    }


if __name__ == "__main__":
    inputs = np.load(sys.argv[1])
    Path(sys.argv[2]).write_text(json.dumps({package: run(package, inputs) for package in sys.argv[3:]}), encoding="utf-8")
