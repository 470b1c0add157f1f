"""Probabilities in the graph are those that the library computes from the logits, whatever the temperature and the priors."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_bundle
from ai_edge_litert.interpreter import Interpreter
from conftest import read_json
from hypothesis import given, settings
from hypothesis import strategies as st
from test_export_cli import TFLITE, logits, network_input

from melanoma_edge import calibration
from melanoma_edge.convert import head, tflite
from melanoma_edge.errors import BadInput


def outputs(content: bytes, pictures: np.ndarray) -> np.ndarray:
    """Return what a TFLite file gives, float32 [pictures, classes]."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    [taken], [given_out] = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for picture in pictures:
        interpreter.set_tensor(taken["index"], picture[np.newaxis].astype(taken["dtype"]))
        interpreter.invoke()
        found.append(interpreter.get_tensor(given_out["index"])[0])
    return np.stack(found)


priors = st.lists(st.floats(0.02, 1), min_size=3, max_size=3).map(lambda shares: np.array(shares) / sum(shares))


@given(st.floats(0.05, 20), priors, priors, st.sampled_from(["float32", "uint8"]))
@settings(deadline=None, max_examples=40)
def test_any_temperature_and_any_priors_give_the_librarys_probabilities(temperature, training, deployment, dtype) -> None:
    pictures = tiny_bundle.pictures(5)
    plain = tiny_bundle.tflite(dtype)
    found = outputs(head.with_probabilities(plain, temperature, training, deployment), pictures)
    expected = calibration.probabilities(outputs(plain, pictures), temperature, training, deployment)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_equal_priors_add_no_operator() -> None:
    even, skewed = np.full(3, 1 / 3), np.array([0.2, 0.3, 0.5])
    plain = tflite.census(tiny_bundle.tflite("float32"))[0]
    assert tflite.census(head.with_probabilities(tiny_bundle.tflite("float32"), 2, even, even))[0] == plain | {"MUL": 1, "SOFTMAX": 1}
    assert tflite.census(head.with_probabilities(tiny_bundle.tflite("float32"), 2, skewed, even))[0] == plain | {"ADD": 1, "MUL": 1, "SOFTMAX": 1}


def test_another_number_of_classes_is_refused() -> None:
    with pytest.raises(BadInput, match=r"gives logits, float32 \[1, 3\]: expected float32 logits \[1, 4\]"):
        head.with_probabilities(tiny_bundle.tflite("float32"), 1, np.full(4, 0.25), np.full(4, 0.25))


@pytest.mark.parametrize("name", TFLITE)
def test_the_bundles_probabilities_are_those_of_its_logits_and_its_manifest(bundle, name: str) -> None:
    manifest = read_json(bundle / "manifest.json")
    [artifact] = [artifact for artifact in manifest["artifacts"] if artifact["name"] == name]
    second = artifact["probabilities"]
    assert second["name"] == second["path"] == name.replace(".tflite", "-probabilities.tflite") and manifest["files"][second["path"]] == second["sha256"]
    assert second["output"] == {"name": "probabilities", "dtype": "float32", "shape": [1, 4], "quantization": None}
    pictures = np.stack([network_input(file) for file in sorted((bundle / "golden").glob("*.png"))])
    scaled = logits(bundle / name, pictures).astype(np.float64) / artifact["decision"]["temperature"]
    ratio = [manifest["priors"]["deployment"][name] / manifest["priors"]["training"][name] for name in manifest["classes"]]
    expected = np.exp(scaled) * ratio
    np.testing.assert_allclose(logits(bundle / second["path"], pictures), expected / expected.sum(axis=1, keepdims=True), rtol=0, atol=1e-6)


def test_the_network_before_the_probabilities_is_the_same_to_the_bit(bundle) -> None:
    for name in TFLITE:
        first, second = (tflite.unpack((bundle / file).read_bytes()) for file in (name, name.replace(".tflite", "-probabilities.tflite")))
        count = len(first[0].tensors)
        for ours, theirs in zip(first[0].tensors, second[0].tensors[:count], strict=True):
            assert (ours.name, ours.type, ours.shape.tolist()) == (theirs.name, theirs.type, theirs.shape.tolist())
            one, other = (bytes(x if x is not None else b"") for x in (first[1].buffers[ours.buffer].data, second[1].buffers[theirs.buffer].data))
            assert one == other
        for ours, theirs in zip(first[0].operators, second[0].operators):
            assert (ours.opcodeIndex, ours.inputs.tolist(), ours.outputs.tolist()) == (theirs.opcodeIndex, theirs.inputs.tolist(), theirs.outputs.tolist())
        assert len(second[0].operators) == len(first[0].operators) + 2


def test_the_signature_names_the_probabilities(bundle) -> None:
    interpreter = Interpreter(str(bundle / "demo-int8-probabilities.tflite"))
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["image"], "outputs": ["probabilities"]}}
    assert interpreter.get_input_details()[0]["dtype"] == np.uint8
