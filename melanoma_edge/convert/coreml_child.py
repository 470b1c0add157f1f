"""The child process of Core ML conversion: `python coreml_child.py JOB.json`, in an environment with coremltools.

In: a float32 ONNX file and facts, as :mod:`melanoma_edge.convert.coreml` wrote them. Out: one `.mlpackage` for each precision, and
a report (JSON), written last, of what was read back from it; or the error in words. Nothing of melanoma-edge is imported: the environment
has none of its packages. An ONNX file holds numbers and names of operators, so no foreign code runs.
"""

import itertools
import json
import sys
import uuid
from pathlib import Path

import numpy as np

INT8_LEAST_WEIGHTS = 512
"""Layers with fewer weights stay float16 in packages with int8 weights: scales and overhead would eat what is saved. The
largest layer is int8 however small it is, so that the package is what its name says."""
HALF_STEP = 2.0**-11
"""Half the distance of neighbouring float16 numbers, as a share of the number."""
SMALLEST_STEP = 2.0**-24
"""Distance of the smallest float16 numbers."""
WEIGHTED = ("Conv", "Gemm", "MatMul")


class Unknown(Exception):
    """The ONNX graph holds something that no rule here writes as Core ML."""


def convert(job):
    """Write a package for each precision of the job and return {precision: what was read back}."""
    import onnx

    graph = onnx.load(job["onnx"]).graph
    report = {}
    for precision, wanted in job["packages"].items():
        folder = Path(wanted["folder"])
        _save(_package(graph, job, precision), folder, wanted["facts"], job["outputs"])
        report[precision] = _read_back(folder, graph, job)
    return report


def _package(graph, job, precision):
    """Return the graph as a Core ML model with the weights of `precision`, a classifier of images."""
    import coremltools as ct
    from coremltools.converters.mil import Builder

    size = job["size"]

    @Builder.program(input_specs=[Builder.TensorSpec(shape=(1, 3, size, size))], opset_version=ct.target.iOS16)
    def program(image):
        last = graph.input[0].type.tensor_type.shape.dim[-1].dim_value == 3  # Core ML's own order of axes is channels first
        logits = _operators(graph, Builder.transpose(x=image, perm=[0, 2, 3, 1]) if last else image, precision)
        scores = Builder.mul(x=logits, y=np.float32(1 / job["temperature"]))
        shift = np.asarray(job["log_prior_ratio"], np.float32)
        if np.ptp(shift) > 0:
            scores = Builder.add(x=scores, y=shift.reshape(1, -1))
        return logits, Builder.softmax(x=scores, axis=-1, name="probabilities")

    return ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS16,
        compute_precision=ct.precision.FLOAT16,
        inputs=[ct.ImageType(name="image", shape=(1, 3, size, size), color_layout=ct.colorlayout.RGB)],
        classifier_config=ct.ClassifierConfig(job["classes"], predicted_feature_name="classLabel", predicted_probabilities_output="probabilities"),
    )


def _operators(graph, image, precision):
    """Write every node of the ONNX graph as a MIL operator and return the logits."""
    from coremltools.converters.mil import Builder
    from onnx import helper, numpy_helper

    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    sizes = [constants[node.input[1]].size for node in graph.node if node.op_type in WEIGHTED and node.input[1] in constants]
    least = min([INT8_LEAST_WEIGHTS, max(sizes, default=0)]) if precision == "int8-weights" else np.inf
    values = {graph.input[0].name: image}
    for node in graph.node:
        inputs = [constants[name] if name in constants else values.get(name) for name in node.input]
        attributes = {found.name: helper.get_attribute_value(found) for found in node.attribute}
        rule = RULES.get(node.op_type)
        try:
            made = rule(Builder, inputs, attributes, node.output[0], least) if rule else None
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):  # a form of the operator that the rule does not foresee
            made = None
        if made is None:
            raise Unknown(f"the operator {node.op_type} of this network, or a setting of it, has no counterpart in the Core ML export")
        values[node.output[0]] = made
    return values[graph.output[0].name]


def _weights(builder, array, least, name):
    """Return weights [outputs, ...] as MIL takes them: as they are, or, of at least `least`, int8 with a scale for each output."""
    if array.size < least:
        return array
    largest = np.abs(array).reshape(len(array), -1).max(axis=1)
    scales = np.maximum(largest / 127, SMALLEST_STEP).astype(np.float16)
    scales = np.where(scales.astype(np.float32) * 127 < largest, np.nextafter(scales, np.float16(np.inf)), scales).astype(np.float16)
    shape = (-1,) + (1,) * (array.ndim - 1)
    quantized = np.clip(np.rint(array / scales.astype(np.float32).reshape(shape)), -127, 127).astype(np.int8)
    return builder.constexpr_affine_dequantize(
        quantized_data=quantized, zero_point=np.zeros(len(array), np.int8), scale=scales.astype(np.float32), axis=0, name=f"{name}_weights"
    )


def _padding(attributes, inputs):
    """Return MIL's [top, bottom, left, right] of ONNX's [top, left, bottom, right]; None for paddings that ONNX leaves to the runtime."""
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return None
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    return [top, bottom, left, right]


def _conv(builder, inputs, attributes, name, least):
    pad = _padding(attributes, inputs)
    if pad is None or inputs[1] is None or not isinstance(inputs[1], np.ndarray):
        return None
    options = {"bias": inputs[2]} if len(inputs) > 2 else {}
    return builder.conv(
        x=inputs[0],
        weight=_weights(builder, inputs[1], least, name),
        strides=attributes.get("strides", [1, 1]),
        dilations=attributes.get("dilations", [1, 1]),
        groups=attributes.get("group", 1),
        pad_type="custom",
        pad=pad,
        name=name,
        **options,
    )


def _dense(builder, inputs, attributes, name, least):
    if attributes.get("transA", 0) or attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0 or not isinstance(inputs[1], np.ndarray):
        return None
    matrix = inputs[1] if attributes.get("transB", 0) else np.ascontiguousarray(inputs[1].T)
    bias = inputs[2].reshape(-1) if len(inputs) > 2 else np.zeros(len(matrix), np.float32)
    return builder.linear(x=inputs[0], weight=_weights(builder, matrix, least, name), bias=bias, name=name)


def _clip(builder, inputs, attributes, name, least):
    bounds = inputs[1:3]
    if len(bounds) < 2 or not all(isinstance(bound, np.ndarray) and bound.size == 1 for bound in bounds):
        return None  # one end only, or one that is computed
    low, high = (float(bound.reshape(())) for bound in bounds)
    return builder.relu6(x=inputs[0], name=name) if (low, high) == (0, 6) else builder.clip(x=inputs[0], alpha=low, beta=high, name=name)


def _pool(kind):
    def rule(builder, inputs, attributes, name, least):
        pad = _padding(attributes, inputs)
        if pad is None or attributes.get("ceil_mode", 0) or attributes.get("dilations", [1, 1]) != [1, 1]:
            return None
        options = {"exclude_padding_from_average": not attributes.get("count_include_pad", 0)} if kind == "avg_pool" else {}
        sizes = {"kernel_sizes": attributes["kernel_shape"], "strides": attributes.get("strides", [1, 1])}
        return getattr(builder, kind)(x=inputs[0], pad_type="custom", pad=pad, name=name, **sizes, **options)

    return rule


def _pairwise(kind):
    return lambda builder, inputs, attributes, name, least: getattr(builder, kind)(x=inputs[0], y=inputs[1], name=name)


def _plain(kind):
    return lambda builder, inputs, attributes, name, least: getattr(builder, kind)(x=inputs[0], name=name)


def _means(builder, inputs, attributes, name, least):
    axes = inputs[1].tolist() if len(inputs) > 1 else attributes["axes"]
    return builder.reduce_mean(x=inputs[0], axes=axes, keep_dims=bool(attributes.get("keepdims", 1)), name=name)


RULES = {
    "Conv": _conv,
    "Gemm": _dense,
    "MatMul": _dense,
    "Clip": _clip,
    "Relu": _plain("relu"),
    "Sigmoid": _plain("sigmoid"),
    "Identity": _plain("identity"),
    "Add": _pairwise("add"),
    "Mul": _pairwise("mul"),
    "MaxPool": _pool("max_pool"),
    "AveragePool": _pool("avg_pool"),
    "GlobalAveragePool": lambda builder, inputs, attributes, name, least: builder.reduce_mean(x=inputs[0], axes=[2, 3], keep_dims=True, name=name),
    "ReduceMean": _means,
    "Transpose": lambda builder, inputs, attributes, name, least: builder.transpose(x=inputs[0], perm=attributes["perm"], name=name),
    "Squeeze": lambda builder, inputs, attributes, name, least: builder.squeeze(x=inputs[0], axes=inputs[1].tolist(), name=name),
    "Reshape": lambda builder, inputs, attributes, name, least: builder.reshape(x=inputs[0], shape=inputs[1].astype(np.int32), name=name),
    "Flatten": lambda builder, inputs, attributes, name, least: builder.reshape(x=inputs[0], shape=[1, -1], name=name) if attributes.get("axis", 1) == 1 else None,
}
"""{ONNX operator: how to write it as MIL}; a rule returns None where a setting has no counterpart."""


def _save(model, folder, facts, outputs):
    """Write the package with the facts in it and without anything that changes from day to day."""
    spec = model.get_spec()
    metadata = spec.description.metadata
    metadata.shortDescription, metadata.author = facts["description"], facts["author"]
    metadata.license, metadata.versionString = facts["licence"], facts["version"]
    metadata.userDefined.pop("com.github.apple.coremltools.conversion_date", None)
    for key in sorted(facts):
        metadata.userDefined[key] = facts[key]
    for feature in spec.description.input:
        feature.shortDescription = facts["input"]
    for feature in spec.description.output:
        feature.shortDescription = outputs.get(feature.name, "")
    model.save(str(folder))
    [file] = folder.rglob("*.mlmodel")
    file.unlink()
    file.write_bytes(spec.SerializeToString(deterministic=True))
    _fix_names(folder / "Manifest.json")


def _fix_names(file):
    """Give the package's items names that follow from their paths: coremltools draws random ones."""
    manifest = json.loads(file.read_text(encoding="utf-8"))
    names = {old: str(uuid.uuid5(uuid.NAMESPACE_URL, item["path"])) for old, item in manifest["itemInfoEntries"].items()}
    items = {names[old]: item for old, item in manifest["itemInfoEntries"].items()}
    manifest["itemInfoEntries"] = dict(sorted(items.items()))
    manifest["rootModelIdentifier"] = names[manifest["rootModelIdentifier"]]
    file.unlink()
    file.write_text(json.dumps(manifest, indent=4, sort_keys=True) + "\n", encoding="utf-8")


def _read_back(folder, graph, job):
    """Return what stands in the package, read from the disk: interface, operators, and what each layer computes with against the source.

    `weights` has for each convolution and dense layer, in order, its name, how it is stored, its shape, and the largest
    difference to the source, as a share of what rounding to that type explains; `biases` the same differences of biases; `decision` those of
    the temperature and the class priors; `settings` says in words where strides, paddings, dilations, groups or windows are others.
    """
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto.load import load

    [file] = folder.rglob("*.mlmodel")
    spec = ct.utils.load_spec(str(file))
    program = load(spec, spec.specificationVersion, str(file.parent / "weights"))
    written = program.functions["main"].operations
    operators = {}
    for operator in written:
        if operator.op_type != "const":
            operators[operator.op_type] = operators.get(operator.op_type, 0) + 1
    layers = [operator for operator in written if operator.op_type in ("conv", "linear")]
    sources = [node for node in graph.node if node.op_type in WEIGHTED]  # the program keeps the graph's order
    pools = [operator for operator in written if operator.op_type in POOLS.values()]
    windows = [node for node in graph.node if node.op_type in POOLS]
    pairs = list(itertools.zip_longest(layers, sources))
    return {
        "specification": spec.specificationVersion,
        "input": {"name": spec.description.input[0].name, **_image(spec.description.input[0].type.imageType)},
        "outputs": [feature.name for feature in spec.description.output],
        "classes": _classes(program),
        "operators": dict(sorted(operators.items())),
        "weights": [_compared(layer, node, graph) for layer, node in pairs],
        "biases": [{"layer": node.output[0], "error": _bias_error(layer, node, graph)} for layer, node in pairs if layer is not None and node is not None],
        "decision": _decision_errors(written, job),
        "settings": [words for operator, node in (*pairs, *itertools.zip_longest(pools, windows)) for words in _other_settings(operator, node)],
    }


POOLS = {"MaxPool": "max_pool", "AveragePool": "avg_pool"}


def _attributes(node):
    from onnx import helper

    return {found.name: helper.get_attribute_value(found) for found in node.attribute}


def _other_settings(operator, node):
    """Yield in words how an operator of the package slides over its input otherwise than the source's."""
    if operator is None or node is None:
        if node is None or node.op_type in POOLS:  # a layer without a partner is told by its weights
            yield f"{node.output[0] if node is not None else operator.name} has no counterpart"
        return
    if operator.op_type == "linear":
        return
    attributes = _attributes(node)
    wanted = {"strides": attributes.get("strides", [1, 1]), "pad": _padding(attributes, None)}
    if operator.op_type == "conv":
        wanted |= {"dilations": attributes.get("dilations", [1, 1]), "groups": [attributes.get("group", 1)]}
    else:
        wanted["kernel_sizes"] = attributes["kernel_shape"]
        if operator.op_type != POOLS[node.op_type]:
            yield f"{node.output[0]} is {operator.op_type}, its source {node.op_type}"
    if operator.op_type == "avg_pool":
        wanted["exclude_padding_from_average"] = [not attributes.get("count_include_pad", 0)]
    for name, value in wanted.items():
        given = getattr(operator, name)
        found = [0, 0, 0, 0] if given is None and name == "pad" else np.asarray(given.val).reshape(-1).tolist()
        if found != list(value):
            yield f"{node.output[0]} has {name} {found}, its source {list(value)}"
    if operator.pad_type.val not in ("custom", "valid"):
        yield f"{node.output[0]} has the padding {operator.pad_type.val}"


def _rounded(found, source):
    """Return the largest difference as a share of what rounding to float16 explains; None for another shape."""
    found, source = np.asarray(found, np.float64), np.asarray(source, np.float64)
    if found.shape != source.shape:
        return None
    return float((np.abs(found - source) / (HALF_STEP * np.abs(source) + SMALLEST_STEP)).max())


def _bias_error(operator, node, graph):
    """Return how far the biases of a layer are from the source's: its own, or those of an addition behind it that was drawn into it."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    channels = operator.weight.shape[0]
    source = np.zeros(channels)
    given = operator.bias
    found = np.zeros(channels) if given is None else np.broadcast_to(given.val, channels) if np.size(given.val) == 1 else given.val
    if len(node.input) > 2 and node.input[2]:
        source = numpy_helper.to_array(constants[node.input[2]]).reshape(-1)
    elif np.any(found):
        readers = [one for one in graph.node if node.output[0] in one.input]
        added = [name for one in readers if one.op_type == "Add" for name in one.input if name in constants]
        if len(readers) == len(added) == 1:
            source = np.broadcast_to(numpy_helper.to_array(constants[added[0]]).reshape(-1), channels)
    return _rounded(found, np.broadcast_to(source, channels))


def _decision_errors(written, job):
    """Return how far the factor and the summand between logits and probabilities are from 1 / temperature and the class priors."""
    makers = {value.name: operator for operator in written for value in operator.outputs}
    [softmax] = [operator for operator in written if operator.op_type == "softmax"]
    factor, summand, value = 1.0, np.zeros(len(job["classes"])), softmax.x
    while value.name in makers and (operator := makers[value.name]).op_type in ("add", "mul", "cast"):
        if operator.op_type == "cast":
            value = operator.x
            continue
        fixed = next((side for side in (operator.y, operator.x) if side.val is not None), None)
        if fixed is None:
            break
        if operator.op_type == "add":
            summand = summand + factor * np.asarray(fixed.val, np.float64).reshape(-1)
        else:
            factor = factor * float(np.asarray(fixed.val).reshape(()))
        value = operator.x if fixed is operator.y else operator.y
        if operator.op_type == "mul":
            break  # what stands before it are the logits
    shift = np.asarray(job["log_prior_ratio"], np.float64)
    return {"temperature": _rounded(factor, 1 / job["temperature"]), "priors": _rounded(summand, shift if np.ptp(shift) > 0 else np.zeros(len(shift)))}


def _image(found):
    kind = type(found).ColorSpace.Name(found.colorSpace) if found.colorSpace else "none"
    return {"width": found.width, "height": found.height, "channels": kind}


def _classes(program):
    """Return the class names that stand in the program."""
    for operator in program.functions["main"].operations:
        if operator.op_type == "classify":
            return [str(name) for name in operator.classes.val]
    return []


def _compared(operator, node, graph):
    """Return how the weights of one layer differ from the source's; the error is None where nothing can be compared."""
    from onnx import numpy_helper

    if operator is None or node is None:
        return {"layer": node.output[0] if node is not None else operator.name, "stored": "nothing", "shape": [], "error": None}
    source = next(numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name == node.input[1])
    transposed = node.op_type in ("Gemm", "MatMul") and not any(found.name == "transB" and found.i for found in node.attribute)
    source = (source.T if transposed else source).astype(np.float64)
    maker = operator.weight.op
    quantized = maker is not None and maker.op_type == "constexpr_affine_dequantize"
    found = np.asarray(maker.materialized_val_inference() if quantized else operator.weight.val)
    allowed = HALF_STEP * np.abs(source) + SMALLEST_STEP
    if quantized:
        shape = (-1,) + (1,) * (source.ndim - 1)
        allowed = allowed + np.abs(maker.scale.val.astype(np.float64)).reshape(shape) / 2
    stored = str(maker.quantized_data.val.dtype) if quantized else str(found.dtype)
    error = float((np.abs(found - source) / allowed).max()) if found.shape == source.shape else None
    return {"layer": operator.name, "stored": stored, "shape": list(found.shape), "error": error}


def main(path):
    """Do the job in the file `path` and write its report."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    try:
        report = {"result": convert(job)}
    except Unknown as error:
        report = {"error": str(error)}
    Path(job["report"]).write_text(json.dumps(report, allow_nan=False), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
