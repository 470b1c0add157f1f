"""Model files from strangers: damaged or of another form, they end in one clear line and never take the tool down."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle
from conftest import Cli
from hostile_models import Outcome, damaged, foreign, survey
from test_verify_cli import reseal

from melanoma_edge.convert import onnx, tflite
from melanoma_edge.errors import BadInput
from melanoma_edge.runtimes import process
from melanoma_edge.runtimes.protocol import RuntimeFailed

READERS: dict[str, tuple[Callable, ...]] = {"tflite": (tflite.tensors, tflite.census), "onnx": (onnx.tensors, onnx.census, onnx.quantum)}
RUNTIME = {"tflite": "litert", "onnx": "onnxruntime"}
MODELS = {"tflite": tiny_bundle.tflite("uint8"), "onnx": tiny_bundle.onnx("uint8")}
ALL = 2000
"""Flips of the whole campaign."""


def held_to_one_line(outcomes: list[Outcome], runtime: str, folder: Path, images: np.ndarray | None = None) -> None:
    """Hold each outcome to logits or one line; what ended its process is given to the tool itself, which must survive it."""
    for one in outcomes:
        if one.kind in ("BadInput", "RuntimeFailed", "Unsupported"):
            assert one.message.isprintable() and 20 < len(one.message) < 600, one
        elif one.kind != "logits":
            with pytest.raises(RuntimeFailed, match="crashed|gave no result"):
                process.run_logits(runtime, folder / one.file, tiny_bundle.pictures(1) if images is None else images, timeout=60)


def read(kind: str, content: bytes) -> bool:
    """Read a file with every reader; return whether all could. What they raise must be one line."""
    whole = True
    for reader in READERS[kind]:
        try:
            reader(content)
        except BadInput as error:
            whole = False
            assert len(str(error).splitlines()) == 1 and len(str(error)) < 400
    return whole


def campaign(kind: str, content: bytes, folder: Path, files: list[tuple[str, bytes]], images: np.ndarray | None = None) -> list[Outcome]:
    """Run all of `files`, damaged copies of `content`, in the runtime of their kind and return what became of them."""
    names = [f"{name}.{kind}" for name, _ in files] + [f"whole.{kind}"]
    for name, (_, spoiled) in zip(names, [*files, ("", content)]):
        (folder / name).write_bytes(spoiled)
    outcomes = survey(RUNTIME[kind], folder, names, images)
    assert [one.file for one in outcomes] == names and outcomes[-1].kind == "logits"
    assert all(one.kind == "RuntimeFailed" for one in outcomes if one.file.startswith("cut")), "no part of a file passes for the whole"
    held_to_one_line(outcomes, RUNTIME[kind], folder, images)
    return outcomes


@pytest.mark.parametrize("kind", MODELS)
def test_damaged_models_are_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    """A sample of the campaign below: it takes seconds."""
    files = list(damaged(MODELS[kind], flips=60))
    outcomes = campaign(kind, MODELS[kind], tmp_path, files[:100:9] + files[100:])
    assert {one.kind for one in outcomes} >= {"logits", "RuntimeFailed"}


@pytest.mark.parametrize("kind", MODELS)
def test_readers_of_damaged_models_raise_one_line(kind: str) -> None:
    assert read(kind, MODELS[kind])
    could = [read(kind, content) for _, content in damaged(MODELS[kind], flips=150)]
    assert not any(could[:99]), "no part of a file passes for the whole"
    assert any(could) and not all(could[100:])


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("which", ["tiny", "exported"])
def test_the_whole_campaign(kind: str, which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Truncated at every 1 % of the length, and 2,000 random flips, of a small model and of an exported one."""
    content, images = MODELS[kind], None
    if which == "exported":
        content = (request.getfixturevalue("bundle") / f"demo-int8.{kind}").read_bytes()
        images = np.zeros((1, 48, 48, 3), np.uint8)
    files = list(damaged(content, flips=ALL, seed=1))
    campaign(kind, content, tmp_path, files, images)
    for _, spoiled in files:
        read(kind, spoiled)


@pytest.mark.parametrize("kind", MODELS)
def test_other_peoples_models_are_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    models = {name: content for name, content in foreign().items() if name.endswith(kind)}
    for name, content in models.items():
        (tmp_path / name).write_bytes(content)
        read(kind, content)
    outcomes = survey(RUNTIME[kind], tmp_path, list(models))
    held_to_one_line(outcomes, RUNTIME[kind], tmp_path)
    kinds = {one.kind for one in outcomes}
    assert {"BadInput", "RuntimeFailed"} <= kinds <= {"BadInput", "RuntimeFailed", "Unsupported"} and len(outcomes) == len(models)
    told = {one.file: one.message for one in outcomes}
    if kind == "onnx":
        assert "maps [1, 4, 32, 32] float32 to [1, 3] float32: expected one input [1, height, width, 3]" in told["four channels.onnx"]
        assert "escapes model directory" in told["outside weights.onnx"] and "root:" not in told["outside weights.onnx"]


def test_what_never_ends_is_told_from_what_is_refused(tmp_path: Path) -> None:
    """The survey itself: it sees a process that ends by a signal, and goes on with the next file."""
    for name, content in (("endless.onnx", tiny_bundle.onnx("uint8", endless=True)), ("whole.onnx", MODELS["onnx"])):
        (tmp_path / name).write_bytes(content)
    assert [one.kind for one in survey("onnxruntime", tmp_path, ["endless.onnx", "whole.onnx"], seconds=2)] == ["SIGXCPU", "logits"]


# Through the commands: sealed bundles whose artifact is not what it should be.


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle.write_bundle(tmp_path_factory.mktemp("strangers") / "tiny.bundle")


def forged(whole: Path, folder: Path, artifact: str, content: bytes) -> Path:
    """Return a copy of the bundle that holds `content` as `artifact`, sealed by a forger."""
    bundle = Path(shutil.copytree(whole, folder / "forged.bundle"))
    (bundle / artifact).write_bytes(content)
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    for entry in manifest["artifacts"]:
        entry["bytes"] = len(content) if entry["name"] == artifact else entry["bytes"]
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    reseal(bundle)
    return bundle


def four_classes(kind: str) -> bytes:
    """Return a model of one class more than the bundle has."""
    weights, bias, classes = tiny_bundle.WEIGHTS, tiny_bundle.BIAS, tiny_bundle.CLASSES
    tiny_bundle.WEIGHTS, tiny_bundle.BIAS, tiny_bundle.CLASSES = np.vstack([weights, weights[:1]]), np.append(bias, bias[:1]), (*classes, "another")
    try:
        return tiny_bundle.tflite("uint8") if kind == "tflite" else tiny_bundle.onnx("float32")
    finally:
        tiny_bundle.WEIGHTS, tiny_bundle.BIAS, tiny_bundle.CLASSES = weights, bias, classes


@pytest.mark.parametrize(
    ("artifact", "content", "found"),
    [
        ("tiny-int8.tflite", MODELS["tflite"][: len(MODELS["tflite"]) // 2], "litert cannot load tiny-int8.tflite: "),
        ("tiny-float32.onnx", MODELS["onnx"][: len(MODELS["onnx"]) // 2], "onnxruntime cannot load tiny-float32.onnx: "),
        ("tiny-float32.onnx", foreign()["four channels.onnx"], "expected one input [1, height, width, 3] or [1, 3, height, width]"),
        ("tiny-float32.onnx", foreign()["other size.onnx"], "the model takes pictures of 8 x 8 x 3 uint8, got 32 x 32 x 3 uint8"),
    ],
    ids=["cut tflite", "cut onnx", "four channels", "other size"],
)
def test_commands_refuse_a_sealed_bundle_of_a_hostile_model(cli: Cli, whole: Path, tmp_path: Path, artifact: str, content: bytes, found: str) -> None:
    bundle = forged(whole, tmp_path, artifact, content)
    picture = bundle / "golden" / "0.png"
    assert found in cli.refused("predict", bundle, picture, "--artifact", artifact)
    assert found in cli.refused("verify", bundle, "-q")
    assert found in cli.refused("bench", bundle, "--quick", "-q", "--runtime", RUNTIME[artifact.rpartition(".")[2]])
    assert not (bundle / "evidence" / "parity.json").exists() and not (bundle / "evidence" / "latency.json").exists()


@pytest.mark.parametrize("artifact", ["tiny-int8.tflite", "tiny-float32.onnx"])
def test_a_model_of_other_classes_than_its_manifest_is_refused(cli: Cli, whole: Path, tmp_path: Path, artifact: str) -> None:
    bundle = forged(whole, tmp_path, artifact, four_classes(artifact.rpartition(".")[2]))
    assert f"{artifact} gives 4 logits for 3 classes: export the bundle again" in cli.refused("verify", bundle, "-q")
    assert "found logits of shape (1, 4)" in cli.refused("predict", bundle, bundle / "golden" / "0.png", "--artifact", artifact)
    assert f"{artifact} gives 4 logits for 3 classes" in cli.refused("diff", whole, bundle, "-q")
