"""The networks that people would put on a phone instead: tf_keras.applications at the size and classes of ours, with logits as output."""

from __future__ import annotations

import inspect
from collections.abc import Callable

PUBLISHED: dict[str, tuple[str, dict]] = {
    "mobilenetv2-0.35": ("MobileNetV2", {"alpha": 0.35}),
    "mobilenetv2-1.0": ("MobileNetV2", {"alpha": 1.0}),
    "mobilenetv3-small": ("MobileNetV3Small", {}),
    "efficientnet-b0": ("EfficientNetB0", {}),
}
"""{name here: (name in tf_keras.applications, arguments)}."""
DROPPING = ("dropout_rate", "drop_connect_rate")
"""Arguments that switch off while the network answers; our recipe has none of it, so they are 0 in training as well."""
MOMENTUM = 0.9
"""Of BatchNormalization, as in our networks. The 0.99 and 0.999 of these are for trainings of millions of pictures: after a few thousand steps their moving averages
are still those of the first weights, and a network that is judged with them seems to know nothing."""


def published(name: str, size: int, classes: int, *, batch: int | None = None):
    """Return the published network `name` with random weights: raw RGB 0..255, float32 [batch, size, size, 3], to logits [batch, classes].

    Those of MobileNetV2 divide by 127.5 and subtract 1 first, as its authors do and its Keras model leaves to the caller.
    """
    import tf_keras as keras

    called, arguments = PUBLISHED[name]
    make: Callable = getattr(keras.applications, called)
    known = inspect.signature(make).parameters
    without = {key: 0.0 for key in DROPPING if key in known}
    image = keras.Input(batch_shape=(batch, size, size, 3), name="image")
    features = image if called != "MobileNetV2" else keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="rescale")(image)
    core = make(input_tensor=features, weights=None, include_top=True, classes=classes, classifier_activation=None, **arguments, **without)
    for layer in core.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    return keras.Model(image, core.output, name=name)
