"""Core ML packages, made and checked by coremltools in an environment of its own.

In: the float32 ONNX file with its facts and temperature. Out: folders `NAME.mlpackage` that hold an ML program: image in
(RGB bytes), class label, calibrated probabilities and logits out. Core ML runs on Apple's systems only; what can be checked
anywhere is: the package is read back, and its interface, its weights and biases, its strides and paddings, its temperature and class
priors are compared with the source. How its operators are connected is not: tests compute whole programs for that.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np

from melanoma_edge import environments
from melanoma_edge.contract import INPUT_NAME, CoreML
from melanoma_edge.convert.facts import Facts
from melanoma_edge.errors import BadInput, Error, Missing, ProofFailed
from melanoma_edge.files import explained, read_json

NAME = "coreml"
DIRECT = ("coremltools==9.0", "onnx==1.23.2", "numpy==2.4.6")
REQUIREMENTS = (
    *DIRECT,
    *("attrs==26.1.0", "cattrs==26.2.1", "ml_dtypes==0.6.0", "mpmath==1.3.0", "packaging==26.3", "protobuf==7.36.2", "pyaml==26.7.0", "PyYAML==6.0.3"),
    *("sympy==1.14.0", "tqdm==4.70.1", "typing_extensions==4.16.0"),
)
"""What the environment holds, all of it, by exact version: the bytes of a package must not follow from what is new today."""
SET_UP = f"melanoma-edge setup {NAME}"
PRECISIONS: tuple[str, ...] = get_args(CoreML.model_fields["precision"].annotation)
OUTPUTS = {
    "classLabel": "the most probable class",
    "classLabel_probs": "calibrated probability of each class",
    "logits": "logits, one for each class in the order of the labels; probabilities are softmax(logits / temperature)",
}
STORED = {"float16": ("float16",), "int8-weights": ("int8", "float16")}
"""{precision: types that weights may be stored in}; the first must occur."""
SECONDS = 600
"""A conversion takes seconds; one that takes this long hangs."""
_CHILD = Path(__file__).with_name("coreml_child.py")


def install(progress: Callable[[str], None] = lambda line: None) -> dict:
    """Make the environment with coremltools, unless it is there, and return facts for people; raises Missing with pip's reason."""
    python = environments.install(NAME, REQUIREMENTS, progress)
    return {"folder": str(python.parents[1]), "packages": ", ".join(DIRECT)}


def require() -> Path:
    """Return the Python that has coremltools; raises Missing with the command that installs it."""
    python = environments.python_of(NAME, REQUIREMENTS)
    if python is None:
        raise Missing(f"Core ML packages need coremltools in an environment of its own, which is not set up: {SET_UP}")
    return python


def package_name(recipe: str, precision: str) -> str:
    """Return the name of a package's folder."""
    return f"{recipe}-{precision}.mlpackage"


def convert(
    content: bytes, folder: Path, artifact: str, facts: Facts, temperature: float, training: np.ndarray, deployment: np.ndarray
) -> tuple[CoreML, ...]:
    """Write a package of each precision into `folder` and return the manifest's entries.

    `content` is the float32 ONNX file of `artifact`, whose `temperature` goes into the graph with the class priors [classes],
    as in :func:`melanoma_edge.calibration.probabilities`. Raises Missing where coremltools is not set up, BadInput for a network that has no
    counterpart in Core ML, ProofFailed where a package read back is not what it should be.
    """
    python = require()
    names = {precision: package_name(facts.recipe, precision) for precision in PRECISIONS}
    with tempfile.TemporaryDirectory(prefix="melanoma-edge-") as temporary:
        made = Path(temporary)
        job = {
            "onnx": str(made / "source.onnx"),
            "size": facts.size,
            "temperature": temperature,
            "log_prior_ratio": (np.log(deployment) - np.log(training)).tolist(),
            "classes": list(facts.classes),
            "outputs": OUTPUTS,
            "packages": {precision: {"folder": str(made / name), "facts": _properties(facts, name, precision)} for precision, name in names.items()},
            "report": str(made / "report.json"),
        }
        with explained(made):
            (made / "source.onnx").write_bytes(content)
            (made / "job.json").write_text(json.dumps(job), encoding="utf-8")
        report = _work(python, made, artifact)
        entries = tuple(_checked(names[precision], precision, artifact, facts, found, made / names[precision]) for precision, found in report.items())
        for name in names.values():
            _copy(made / name, folder / name)
    return entries


def _properties(facts: Facts, name: str, precision: str) -> dict[str, str]:
    """Return the facts of a package, which takes an image of any order of bytes and gives both logits and probabilities."""
    properties = replace(facts, name=Path(name).stem, precision=precision).properties()
    del properties["output_description"]
    return properties | {"input": f"{facts.size} x {facts.size} RGB image, 0..255", "output": ", ".join(OUTPUTS)}


def _work(python: Path, folder: Path, artifact: str) -> dict:
    """Have a child do the job in `folder` and return its report."""
    # -I: neither our packages nor the modules beside the script, one of which is called onnx, can be imported by it.
    command = [str(python), "-I", "-B", str(_CHILD), str(folder / "job.json")]
    temporary = folder / "temporary"  # for what coremltools leaves where it is stopped
    with explained(temporary):
        temporary.mkdir()
    environment = os.environ | {"PYTHONHASHSEED": "0", "TMPDIR": str(temporary)}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        raise Error(f"coremltools gave no package of {artifact} within {SECONDS} s and was stopped: try again") from None
    if done.returncode or not (folder / "report.json").is_file():
        lines = [line.strip() for line in done.stdout.decode("utf-8", "replace").splitlines() if line.strip()]
        raise Error(f"coremltools failed on {artifact} ({' '.join(lines[-1:])[:300]}): set it up again with {SET_UP}, or export without --coreml")
    answer = read_json(folder / "report.json", "a report of coremltools")
    if "error" in answer:
        raise BadInput(f"{artifact} cannot become a Core ML package: {answer['error']}; export without --coreml")
    return answer["result"]


def _checked(name: str, precision: str, artifact: str, facts: Facts, found: dict, folder: Path) -> CoreML:
    """Return the entry of a package that was read back; raises ProofFailed with the first things that are wrong with it."""
    wrong = list(_contradictions(precision, facts, found))
    if wrong:
        raise ProofFailed(f"{name} is not what it should be: {'; '.join(wrong[:3])}; export again, or without --coreml")
    return CoreML(
        name=name,
        path=name,
        precision=precision,
        artifact=artifact,
        bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        specification=found["specification"],
        operators=found["operators"],
        layers=dict(sorted(Counter(layer["stored"] for layer in found["weights"]).items())),
        weight_error=max(layer["error"] for layer in found["weights"]),
    )


def _contradictions(precision: str, facts: Facts, found: dict) -> Iterator[str]:
    """Yield what is wrong with a package, in words."""
    expected = {"name": INPUT_NAME, "width": facts.size, "height": facts.size, "channels": "RGB"}
    if found["input"] != expected:
        yield f"its input is {found['input']}, expected {expected}"
    if sorted(found["outputs"]) != sorted(OUTPUTS):
        yield f"its outputs are {', '.join(found['outputs'])}, expected {', '.join(OUTPUTS)}"
    if tuple(found["classes"]) != facts.classes:
        yield "its classes are others, or in another order"
    for layer in found["weights"]:
        if layer["error"] is None:
            yield f"the layer {layer['layer']} is missing or has another shape"
        elif layer["stored"] not in STORED[precision]:
            yield f"the layer {layer['layer']} has {layer['stored']} weights"
        elif not layer["error"] <= 1:
            yield f"a weight of {layer['layer']} is {layer['error']:.2f} times further from its source than rounding explains"
    for layer in found["biases"]:
        if layer["error"] is None or not layer["error"] <= 1:
            yield f"the biases of {layer['layer']} are others than its source's"
    yield from found["settings"]
    for what, error in found["decision"].items():
        if error is None or not error <= 1:
            yield f"its {what} are others" if what == "priors" else f"its {what} is another"
    if STORED[precision][0] not in {layer["stored"] for layer in found["weights"]}:
        yield f"no layer has {STORED[precision][0]} weights"


def _copy(source: Path, target: Path) -> None:
    """Copy the files of a package with the permissions that new files have here; coremltools makes some private."""
    for file in sorted(source.rglob("*")):
        if file.is_file():
            place = target / file.relative_to(source)
            with explained(target):
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(file.read_bytes())
