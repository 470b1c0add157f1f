"""TFLite metadata: what MediaPipe Tasks, Android Studio and model viewers read from a `.tflite` file.

In: a TFLite file and its facts. Out: the same network with a ModelMetadata flatbuffer in its metadata table and the
labels in a zip archive appended to the file. Tables and field numbers are those of metadata_schema.fbs, version 1.5.0
(file identifier M001, Apache License 2.0), in github.com/google-ai-edge/mediapipe, mediapipe/tasks/metadata. The packages
that write it, tflite-support and mediapipe, do not fit into one environment with TensorFlow, and a file needs
nine of the schema's tables, so they are written here.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass

import numpy as np

from melanoma_edge.convert import tflite
from melanoma_edge.convert.facts import LABELS_FILE, Facts

BUFFER_NAME = b"TFLITE_METADATA"
IDENTIFIER = b"M001"
MIN_PARSER_VERSION = "1.0.0"
"""The least version of the schema that knows every field used here."""
ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""Every entry's time: the earliest that the format knows, so that files of two days are the same."""

_TENSOR_AXIS_LABELS = 2  # enum AssociatedFileType
_UNKNOWN, _RGB = 0, 1  # enum ColorSpaceType
_IMAGE_PROPERTIES, _FEATURE_PROPERTIES = 2, 1  # union ContentProperties
_NORMALIZATION_OPTIONS = 1  # union ProcessUnitOptions


def with_metadata(content: bytes, facts: Facts) -> bytes:
    """Return the TFLite file `content` with the facts and the labels in it, in place of any such that it had.

    Operators, tensors and weights stay as they are. Raises BadInput for a file that is no TFLite model.
    """
    from ai_edge_litert import schema_py_generated as schema

    _, model = tflite.unpack(content)
    model.metadata = model.metadata or []
    entry = next((entry for entry in model.metadata if entry.name == BUFFER_NAME), None)
    if entry is None:
        entry = schema.MetadataT(name=BUFFER_NAME, buffer=len(model.buffers))
        model.metadata.append(entry)
        model.buffers.append(schema.BufferT())
    model.buffers[entry.buffer].data = np.frombuffer(_flatbuffer(_model(facts)), np.uint8)
    file = io.BytesIO(tflite.pack(model, len(content)))
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:  # stored, not packed: readers map the file into memory
        entry = zipfile.ZipInfo(LABELS_FILE, ZIP_TIME)
        entry.create_system, entry.external_attr = 3, 0o644 << 16  # the same on every system
        archive.writestr(entry, facts.labels)
    return file.getvalue()


@dataclass(frozen=True)
class _Byte:
    """A field of one byte: an enumeration's value or a union's type."""

    value: int


_Table = dict
"""{field number: text, whole number, _Byte, table, list of tables or of texts, or tuple of float32}."""


def _model(facts: Facts) -> _Table:
    """Return the ModelMetadata table."""
    labels = {0: LABELS_FILE, 1: "The class of each output, a line each.", 2: _Byte(_TENSOR_AXIS_LABELS)}
    # Readers that prepare pictures themselves, MediaPipe for one, refuse an unknown order of colours; they would prepare them wrongly.
    known = facts.mean is not None
    image = {0: "image", 1: facts.input, 3: {0: _Byte(_IMAGE_PROPERTIES), 1: {0: _Byte(_RGB if known else _UNKNOWN), 1: {0: facts.size, 1: facts.size}}}}
    if known:
        image[4] = [{0: _Byte(_NORMALIZATION_OPTIONS), 1: {0: facts.mean, 1: facts.std}}]
        image[5] = {0: (255.0,), 1: (0.0,)} if (facts.mean, facts.std) == ((0.0,), (1.0,)) else {}
    # No score calibration: it is a sigmoid of each class alone, and calibration here is a softmax over all.
    scores = {0: facts.head, 1: facts.output, 3: {0: _Byte(_FEATURE_PROPERTIES), 1: {}}, 6: [labels]}
    graph = {0: facts.name, 2: [image], 3: [scores]}
    return {
        0: facts.name,
        1: facts.description,
        2: facts.version,
        3: [graph],
        4: facts.author,
        5: facts.licence,
        7: MIN_PARSER_VERSION,
    }


def _flatbuffer(table: _Table) -> bytes:
    """Return a flatbuffer with `table` as its root."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(_write(builder, table), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _write(builder, table: _Table) -> int:
    """Write a table, whatever it refers to first, and return its offset."""
    fields = {field: value if isinstance(value, (int, _Byte)) else _reference(builder, value) for field, value in table.items()}
    builder.StartObject(max(table, default=-1) + 1)
    for field, value in fields.items():
        if isinstance(table[field], _Byte):
            builder.PrependInt8Slot(field, value.value, 0)
        elif isinstance(table[field], int):
            builder.PrependUint32Slot(field, value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(field, value, 0)
    return builder.EndObject()


def _reference(builder, value: str | _Table | list | tuple) -> int:
    """Write what a field refers to and return its offset."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, dict):
        return _write(builder, value)
    if isinstance(value, tuple):
        return builder.CreateNumpyVector(np.asarray(value, np.float32))
    offsets = [_reference(builder, one) for one in value]
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()
