"""How an int8 TFLite file takes its bytes: other operators, the same numbers."""

import numpy as np
import pytest
import tiny_bundle
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from melanoma_edge.convert import tflite
from melanoma_edge.convert.tflite_entry import quicken

KINDS = schema.BuiltinOperator
PICTURE = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
"""Every byte that there is."""


def entry(scale: float = 1.0, zero: int = -128, taken: int = schema.TensorType.UINT8) -> bytes:
    """Return a model that is a picture's way to int8 of this quantization, and from there to float32."""
    model = schema.ModelT(version=3, operatorCodes=[], buffers=[schema.BufferT()], description=b"entry", metadata=[], signatureDefs=[])
    graph = schema.SubGraphT(tensors=[], operators=[], inputs=[0], outputs=[2], name=b"main")
    quantizations = [(taken, 1.0, 0 if taken == schema.TensorType.UINT8 else -128), (schema.TensorType.INT8, scale, zero), (schema.TensorType.FLOAT32, None, None)]
    for number, (kind, one, shift) in enumerate(quantizations):
        quantization = None if one is None else schema.QuantizationParametersT(scale=np.float32([one]), zeroPoint=np.int64([shift]))
        graph.tensors.append(schema.TensorT(name=b"t%d" % number, shape=[1, 16, 16, 3], type=kind, buffer=0, quantization=quantization))
    for kind, source, target in ((KINDS.QUANTIZE, 0, 1), (KINDS.DEQUANTIZE, 1, 2)):
        graph.operators.append(schema.OperatorT(opcodeIndex=tflite.operator_code(model, kind, 2), inputs=[source], outputs=[target]))
    model.subgraphs = [graph]
    return tflite.pack(model, 4096)


def operators(content: bytes) -> list[int]:
    graph, model = tflite.unpack(content)
    return [tflite.builtin(model, operator) for operator in graph.operators]


def answers(content: bytes, resolver: OpResolverType) -> np.ndarray:
    interpreter = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], PICTURE)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.parametrize("scale", [1.0, 0.0078431377, 0.017124753], ids=str)
@pytest.mark.parametrize("resolver", [OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, OpResolverType.BUILTIN_REF], ids=lambda one: one.name)
def test_every_byte_comes_to_the_same_number_by_either_way(scale: float, resolver: OpResolverType) -> None:
    graph, model = tflite.unpack(entry(scale))
    graph.tensors[0].quantization.scale = np.float32([scale])
    content = tflite.pack(model, 4096)
    quick = quicken(content)
    assert operators(content) == [KINDS.QUANTIZE, KINDS.DEQUANTIZE]
    assert operators(quick) == [KINDS.DEQUANTIZE, KINDS.QUANTIZE, KINDS.DEQUANTIZE]
    np.testing.assert_array_equal(answers(quick, resolver), answers(content, resolver))
    np.testing.assert_allclose(answers(quick, resolver), PICTURE * np.float32(scale), rtol=0, atol=1e-5)
    assert tflite.tensors(quick)[0] == tflite.tensors(content)[0]


@pytest.mark.parametrize("content", [entry(0.5), entry(taken=schema.TensorType.INT8), tiny_bundle.tflite("float32")], ids=["other scale", "int8 input", "float"])
def test_what_begins_otherwise_stays_as_it_is(content: bytes) -> None:
    assert quicken(content) == content


def test_it_is_done_once() -> None:
    assert quicken(quicken(entry())) == quicken(entry())
