"""Options of `export` about a model file of the user's own, gathered into one argument.

Like the commands, this imports nothing heavier than click.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import click

from melanoma_edge.cli.options import FOLDER, wrong

NUMBERS = {"input_range": 2, "mean": 3, "std": 3}
"""How many numbers each of these options takes."""


class Own(NamedTuple):
    """What the options of :func:`model_options` say."""

    model: Path
    classes: Path
    calibrate: Path | None
    positive: str | None
    size: int | None
    output: str | None
    channels: str
    numbers: dict[str, tuple[float, ...]]
    """Those of NUMBERS that were given."""

    def declared(self):
        """Return what was declared of the model, checked."""
        from melanoma_edge.proof.declared import Declared, positive_class, read_classes

        names = {"input_range": "value_range"}
        classes = read_classes(self.classes)
        return Declared(
            classes=classes,
            positive=positive_class(self.positive, classes),
            size=self.size,
            output=self.output,
            channels=self.channels,
            **{names.get(key, key): values for key, values in self.numbers.items()},
        )


OPTIONS = (
    click.option("--model", type=FOLDER, metavar="FILE", help="Wrap a model of your own instead of a run: .keras, .h5, .onnx or .tflite (docs/input-contract.md)."),
    click.option("--classes", type=FOLDER, metavar="FILE", help="With --model: text file of its classes, one a line in the order of its output."),
    click.option("--calibrate", type=FOLDER, metavar="DIR", help="With --model, Keras or float32 ONNX: pictures for int8 after training (int8-ptq), as a data set or a plain folder."),
    click.option("--positive", metavar="CLASS", help="With --model: the class whose sensitivity counts most, empty for none [default: melanoma where there is one]."),
    click.option("--size", type=click.IntRange(1, 4096), metavar="N", help="With --model: side of the input, where the file takes any."),
    click.option("--output", type=click.Choice(["logits", "probabilities"]), help="With --model: what it gives [default: probabilities where it ends in softmax]."),
    click.option("--channels", type=click.Choice(["rgb", "bgr"], case_sensitive=False), help="With --model: order of the channels [default: rgb]."),
    click.option("--input-range", metavar="LOW,HIGH", help="With --model: the numbers that stand for the bytes 0 and 255 [default: 0,255]."),
    click.option("--mean", metavar="A,B,C", help="With --model: subtracted from each channel, in units of the range [default: 0,0,0]."),
    click.option("--std", metavar="A,B,C", help="With --model: what each channel is divided by then [default: 1,1,1]."),
)


def model_options(function):
    """Give `export` these options; it gets them as one argument, `own` (:class:`Own`), None where no model was named."""

    @functools.wraps(function)
    def called(*arguments, model, classes, calibrate, positive, size, output, channels, input_range, mean, std, **others):
        given = {"classes": classes, "calibrate": calibrate, "positive": positive, "size": size, "output": output, "channels": channels}
        texts = {"input_range": input_range, "mean": mean, "std": std}
        if model is None:
            for name, value in (given | texts).items():
                if value is not None:
                    raise wrong(f"--{name.replace('_', '-')} is for a model file of your own: name it with --model FILE, or leave this out")
            return function(*arguments, own=None, **others)
        if classes is None:
            raise wrong("--model needs --classes FILE: a text file with one class a line, in the order of the model's output")
        numbers = {name: _numbers(name, text) for name, text in texts.items() if text is not None}
        return function(*arguments, own=Own(model, classes, calibrate, positive, size, output, (channels or "rgb").upper(), numbers), **others)

    for option in reversed(OPTIONS):
        called = option(called)
    return called


def _numbers(name: str, text: str) -> tuple[float, ...]:
    """Return the numbers of an option's value."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != NUMBERS[name]:
        raise wrong(f"--{name.replace('_', '-')} is {text!r}: expected {NUMBERS[name]} numbers with commas between them, for example {'0,1' if NUMBERS[name] == 2 else '0.5,0.5,0.5'}")
    return found
