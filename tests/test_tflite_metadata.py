"""What a `.tflite` file says about itself, read back without the module that wrote it (MediaPipe's reader: test_mediapipe.py)."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import tiny_bundle
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from flatbuffers import encode, number_types, table
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_edge import NOTICE
from melanoma_edge.contract import InputContract, Quantization, Tensor
from melanoma_edge.convert.facts import Facts
from melanoma_edge.convert.foreign_facts import foreign_facts
from melanoma_edge.convert.tflite_metadata import with_metadata
from melanoma_edge.errors import BadInput

FACTS = Facts("tiny-int8", "tiny", "int8", ("melanoma", "nevus", "vascular lesion"), "melanoma", tiny_bundle.SIZE, "CC0 1.0", "0123456789ab")


def root(content: bytes) -> table.Table:
    """Return the metadata flatbuffer's root table."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    [buffer] = [entry.buffer for entry in model.metadata if entry.name == b"TFLITE_METADATA"]
    found = bytes(model.buffers[buffer].data)
    assert found[4:8] == b"M001"
    return table.Table(found, encode.Get(number_types.UOffsetTFlags.packer_type, found, 0))


def text(where: table.Table, field: int) -> str:
    return where.String(where.Offset(4 + 2 * field) + where.Pos).decode("utf-8")


def inside(where: table.Table, *fields: int) -> table.Table:
    """Return the table found by going through `fields`; of a vector the first element."""
    for field in fields:
        offset = where.Offset(4 + 2 * abs(field))
        position = where.Vector(offset) if field < 0 else where.Pos + offset
        where = table.Table(where.Bytes, where.Indirect(position))
    return where


def numbers(where: table.Table, field: int) -> list[float]:
    return where.GetVectorAsNumpy(number_types.Float32Flags, where.Offset(4 + 2 * field)).tolist()


# Field numbers of metadata_schema.fbs; a minus stands for a vector.
INPUT, OUTPUT = (-3, -2), (-3, -3)


def test_the_facts_are_where_the_schema_says() -> None:
    found = root(with_metadata(tiny_bundle.tflite("uint8"), FACTS))
    assert text(found, 0) == "tiny-int8" and text(found, 2) == "0123456789ab" and text(found, 5) == "CC0 1.0"
    assert text(found, 1).startswith(NOTICE) and "3 classes" in text(found, 1) and text(found, 4).startswith("melanoma-edge ")
    image, scores = inside(found, *INPUT), inside(found, *OUTPUT)
    assert text(image, 0) == "image" and text(image, 1) == "32 x 32 RGB, 0..255, NHWC"
    options = inside(image, -4, 1)
    assert numbers(options, 0) == [0.0] and numbers(options, 1) == [1.0]
    assert text(scores, 0) == "logits" and text(inside(scores, -6), 0) == "labels.txt"
    assert scores.Offset(4 + 2 * 4) == 0, "there is a score calibration"


def test_another_normalization_is_written_where_a_network_wants_one() -> None:
    facts = Facts("a", "a", "float32", ("x", "y", "z"), None, 32, "", "", mean=(127.5,), std=(127.5, 100.0, 50.0))
    options = inside(root(with_metadata(tiny_bundle.tflite("float32"), facts)), *INPUT, -4, 1)
    assert numbers(options, 0) == [127.5] and numbers(options, 1) == [127.5, 100.0, 50.0]
    assert facts.properties()["input"] == "32 x 32 RGB, (0..255 - 127.5) / 127.5/100/50, NHWC"


SAID = {"source": "net.keras", "version": "0123456789ab", "classes": ("melanoma", "nevus", "vascular lesion"), "positive": "melanoma", "output": None, "licence": "MIT"}
NUMBERS = st.floats(-300, 300)
SPREADS = st.floats(0.01, 300)


@given(low=NUMBERS, wide=st.floats(0.5, 600), mean=st.tuples(*[NUMBERS] * 3), std=st.tuples(*[SPREADS] * 3))
@settings(deadline=None, max_examples=100)
def test_what_was_declared_is_what_a_reader_computes_from_bytes(low: float, wide: float, mean: tuple, std: tuple) -> None:
    """MediaPipe and Android's readers compute (byte - mean) / std."""
    contract = InputContract(width=32, height=32, value_range=(low, low + wide), mean=mean, std=std)
    taken = Tensor(name="image", dtype="float32", shape=(1, 32, 32, 3))
    facts = foreign_facts(SAID, contract, taken, "net-float32.tflite", "float32", None)
    options = inside(root(with_metadata(tiny_bundle.tflite("float32"), facts)), *INPUT, -4, 1)
    written = [np.float64(numbers(options, field) * (3 if len(numbers(options, field)) == 1 else 1)) for field in (0, 1)]
    computed = (np.arange(256)[None, :] - written[0][:, None]) / written[1][:, None]
    expected = (low + np.arange(256)[None, :] * wide / 255 - np.array(mean)[:, None]) / np.array(std)[:, None]
    np.testing.assert_allclose(computed, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("declared", "dtype", "quantization", "expressed"),
    [
        ({}, "float32", None, ([0.0], [1.0])),
        ({"value_range": (-1, 1)}, "float32", None, ([127.5], [127.5])),
        ({"value_range": (0, 1), "mean": (0.5, 0.5, 0.25)}, "float32", None, ([127.5, 127.5, 63.75], [255.0] * 3)),
        ({"channels": "BGR"}, "float32", None, None),
        ({"value_range": (1, 0)}, "float32", None, None),
        ({"value_range": (0, 1e-38), "std": (1e30, 1e30, 1e30)}, "float32", None, None),
        ({"value_range": (-1, 1)}, "uint8", Quantization(scale=2 / 255, zero_point=127), ([127.5], [127.5])),
        ({"value_range": (-1, 1)}, "uint8", Quantization(scale=2 / 255, zero_point=120), None),
        ({"value_range": (-1, 1)}, "int8", Quantization(scale=2 / 255, zero_point=0), None),
    ],
)
def test_what_the_metadata_cannot_say_is_left_out_and_said_in_words(declared: dict, dtype: str, quantization: Quantization | None, expressed: tuple | None) -> None:
    contract = InputContract(width=32, height=32, **declared)
    taken = Tensor(name="image", dtype=dtype, shape=(1, 32, 32, 3), quantization=quantization)
    facts = foreign_facts(SAID, contract, taken, "net-float32.tflite", "float32", "softmax")
    found = root(with_metadata(tiny_bundle.tflite("float32"), facts))
    image, description = inside(found, *INPUT), text(found, 1)
    assert text(found, 0) == "net-float32" and text(found, 2) == "0123456789ab" and text(found, 5) == "MIT" and text(inside(found, *OUTPUT), 0) == "probabilities"
    assert description.startswith(NOTICE) and "Converted from net.keras" in description and "dermoscop" not in description and "trained is not known" in description
    assert ("no normalization that such readers know" in description) == (expressed is None)
    properties = inside(image, 3, 1)
    assert bool(image.Offset(4 + 2 * 4)) == bool(properties.Offset(4)) == (expressed is not None), "normalization and RGB stand there together"
    assert text(image, 1).startswith(f"32 x 32 {contract.channels}, bytes as ")
    if expressed is not None:
        options = inside(image, -4, 1)
        assert (numbers(options, 0), numbers(options, 1)) == expressed


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_outputs_and_names_stay(dtype: str) -> None:
    plain = tiny_bundle.tflite(dtype)
    found = []
    for content in (plain, with_metadata(plain, FACTS)):
        interpreter = Interpreter(model_content=content)
        interpreter.allocate_tensors()
        [taken], [given_out] = interpreter.get_input_details(), interpreter.get_output_details()
        interpreter.set_tensor(taken["index"], tiny_bundle.pictures(1).astype(taken["dtype"]))
        interpreter.invoke()
        found.append((taken["name"], given_out["name"], interpreter.get_tensor(given_out["index"]).tobytes()))
    assert found[0] == found[1]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30), min_size=2, max_size=60, unique=True), st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
@settings(deadline=None, max_examples=40)
def test_any_classes_and_any_licence_come_back(classes: list[str], licence: str) -> None:
    facts = Facts("n", "r", "int8", tuple(classes), None, 32, licence, "v")
    content = with_metadata(tiny_bundle.tflite("uint8"), facts)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None and archive.read("labels.txt").decode("utf-8") == "".join(f"{name}\n" for name in classes)
    assert text(root(content), 5) == licence


def test_the_archive_holds_the_labels_alone_stored_and_without_a_day() -> None:
    with zipfile.ZipFile(io.BytesIO(with_metadata(tiny_bundle.tflite("uint8"), FACTS))) as archive:
        [entry] = archive.infolist()
    assert (entry.filename, entry.date_time, entry.compress_type) == ("labels.txt", (1980, 1, 1, 0, 0, 0), zipfile.ZIP_STORED)


def test_the_bytes_are_the_same_every_time_and_metadata_is_replaced_not_added() -> None:
    plain = tiny_bundle.tflite("uint8")
    once = with_metadata(plain, FACTS)
    assert with_metadata(plain, FACTS) == once and with_metadata(once, FACTS) == once
    other = Facts(**(vars(FACTS) | {"name": "another"}))
    assert text(root(with_metadata(once, other)), 0) == "another"


def test_every_file_of_a_bundle_carries_its_labels_and_names_itself(bundle) -> None:
    files = sorted(bundle.glob("*.tflite"))
    assert len(files) == 8
    for file in files:
        with zipfile.ZipFile(file) as archive:
            assert archive.read("labels.txt") == (bundle / "labels.txt").read_bytes()
        assert text(root(file.read_bytes()), 0) == file.stem
        assert str(bundle.parent).encode() not in file.read_bytes()


def test_tflite_and_onnx_say_the_same(bundle) -> None:
    import onnx

    for precision in ("float32", "int8"):
        properties = {entry.key: entry.value for entry in onnx.load(bundle / f"demo-{precision}.onnx").metadata_props}
        found = root((bundle / f"demo-{precision}.tflite").read_bytes())
        assert [properties[key] for key in ("name", "description", "version", "author", "licence")] == [text(found, field) for field in (0, 1, 2, 4, 5)]
        assert properties["input"] == text(inside(found, *INPUT), 1) and properties["output"] == text(inside(found, *OUTPUT), 0)
        assert properties["output_description"] == text(inside(found, *OUTPUT), 1) and properties["positive_class"] == "melanoma"
        assert properties["notice"] == NOTICE and properties["precision"] == precision


def test_what_is_no_tflite_is_refused() -> None:
    with pytest.raises(BadInput, match="not a TFLite model"):
        with_metadata(b"\0" * 100, FACTS)


def test_numbers_of_the_flatbuffer_are_aligned() -> None:
    """A reader in C++ maps the file: float32 vectors have to stand at multiples of four."""
    content = with_metadata(tiny_bundle.tflite("uint8"), FACTS)
    options = inside(root(content), *INPUT, -4, 1)
    for field in (0, 1):
        assert options.Vector(options.Offset(4 + 2 * field)) % np.dtype(np.float32).itemsize == 0
