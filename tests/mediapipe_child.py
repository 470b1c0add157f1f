"""Runs in an environment with MediaPipe and without melanoma-edge: PICTURES.npy OUT.json MODEL.tflite ...

Writes {model: {"scores": [pictures][classes], "names": [classes], "metadata": what MediaPipe's own reader finds}}.
"""

import json
import sys

import mediapipe
import numpy as np
from mediapipe.tasks.metadata import metadata_schema_py_generated as metadata_schema
from mediapipe.tasks.metadata import schema_py_generated as schema


def metadata(path):
    """Return the metadata of a file, unpacked by the bindings that MediaPipe generated from the schema."""
    with open(path, "rb") as file:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(file.read(), 0))
    [buffer] = [entry.buffer for entry in model.metadata if entry.name == b"TFLITE_METADATA"]
    content = bytes(model.buffers[buffer].data)
    found = metadata_schema.ModelMetadataT.InitFromObj(metadata_schema.ModelMetadata.GetRootAs(content, 0))
    [graph] = found.subgraphMetadata
    [taken], [given] = graph.inputTensorMetadata, graph.outputTensorMetadata
    [unit], [labels] = taken.processUnits, given.associatedFiles
    image = taken.content.contentProperties
    return {
        "identifier": content[4:8].decode(),
        "name": found.name.decode(),
        "description": found.description.decode(),
        "version": found.version.decode(),
        "author": found.author.decode(),
        "licence": found.license.decode(),
        "input": taken.name.decode(),
        "is_image": type(image).__name__ == "ImagePropertiesT",
        "is_rgb": image.colorSpace == metadata_schema.ColorSpaceType.RGB,
        "size": [image.defaultSize.width, image.defaultSize.height],
        "normalizes": type(unit.options).__name__ == "NormalizationOptionsT",
        "mean": list(map(float, unit.options.mean)),
        "std": list(map(float, unit.options.std)),
        "range": None if taken.stats.min is None else [float(taken.stats.min[0]), float(taken.stats.max[0])],
        "output": given.name.decode(),
        "output_description": given.description.decode(),
        "calibrates": bool(given.processUnits),
        "labels": labels.name.decode(),
        "labels_are_of_the_axis": labels.type == metadata_schema.AssociatedFileType.TENSOR_AXIS_LABELS,
    }


def classify(path, pictures):
    """Return (the names, the scores [pictures][classes]) in the order of the outputs; MediaPipe sorts by score."""
    vision = mediapipe.tasks.vision
    options = vision.ImageClassifierOptions(base_options=mediapipe.tasks.BaseOptions(model_asset_path=path), max_results=-1)
    scores, names = [], None
    with vision.ImageClassifier.create_from_options(options) as classifier:
        for picture in pictures:
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(picture))
            [found] = classifier.classify(image).classifications
            ordered = sorted(found.categories, key=lambda category: category.index)
            scores.append([category.score for category in ordered])
            names = [category.category_name for category in ordered]
    return names, scores


if __name__ == "__main__":
    inputs, result = np.load(sys.argv[1]), {}
    for model in sys.argv[3:]:
        names, scores = classify(model, inputs)
        result[model] = {"names": names, "scores": scores, "metadata": metadata(model)}
    with open(sys.argv[2], "w", encoding="utf-8") as out:
        json.dump(result, out)
