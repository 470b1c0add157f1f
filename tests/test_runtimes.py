"""The runtimes in their worker processes, on models whose right answer numpy gives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import flatbuffers
import numpy as np
import psutil
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import ModelProto, helper, numpy_helper
from tiny_bundle import CLASSES, SIZE, numpy_logits, onnx, pictures, tflite

from melanoma_edge.contract import input_shape
from melanoma_edge.errors import BadInput, Missing
from melanoma_edge.runtimes import child, process
from melanoma_edge.runtimes.process import available, run_logits
from melanoma_edge.runtimes.protocol import RUNTIMES, RuntimeFailed, Signature, Unsupported, one_line

REPOSITORY = Path(__file__).parents[1]

ENDLESS = """
import sys, numpy as np
from pathlib import Path
from melanoma_edge.runtimes.process import run_logits
print("started", flush=True)
try:
    run_logits("onnxruntime", Path(sys.argv[1]), np.zeros((1, 32, 32, 3), np.uint8))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""

KERAS_RUN = """
import sys, numpy as np
from pathlib import Path
from melanoma_edge import recipes
from melanoma_edge.contract import Recipe, RunFacts
from melanoma_edge.files import sha256_file
from melanoma_edge.model import network, run as runs

folder, images = Path(sys.argv[1]), np.load(sys.argv[2])
recipe = Recipe(name="tiny", image_size=32, width=0.25)
model = network.build(recipe, 3)
runs.write_tensors(runs.weights_file(folder, "float"), runs.named(model.weights))
facts = RunFacts(state="complete", command="", data="", root="", source="", metadata=None, tables=(), licences=(), data_sha256="0" * 64, classes=("a", "b", "c"),
    training_priors={}, data_priors={}, parameters=0, multiply_accumulates=0, seconds={}, peak_memory_bytes=0, conditions={},
    weights={"float": sha256_file(runs.weights_file(folder, "float"))})
(folder / runs.RUN_FILE).write_text(facts.model_dump_json())
(folder / runs.RECIPE_FILE).write_text(recipes.to_toml(recipe))
runs.write_split(folder / runs.SPLIT_FILE, [])
np.save(folder / "expected.npy", model(images.astype(np.float32), training=False).numpy())
"""


@pytest.fixture
def model(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Return a function that writes a model file and returns its path."""

    def write(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize(("runtime", "build"), [("litert", tflite), ("onnxruntime", onnx)])
def test_logits_are_what_numpy_computes(model, runtime: str, build: Callable[[str], bytes], dtype: str) -> None:
    images = pictures(5)
    found = run_logits(runtime, model(f"m.{RUNTIMES[runtime].formats[0]}", build(dtype)), images, threads=2)
    assert found.dtype == np.float32 and found.shape == (5, len(CLASSES))
    np.testing.assert_allclose(found, numpy_logits(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("runtime", ["litert", "onnxruntime"])
def test_a_model_of_the_other_layout_gets_the_same_picture_turned(model, runtime: str, dtype: str) -> None:
    shape = (1, 3, SIZE, SIZE)
    path = model("m.tflite", tflite(dtype, shape)) if runtime == "litert" else model("m.onnx", onnx(dtype, shape))
    images = pictures(5)
    turned = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(run_logits(runtime, path, images), numpy_logits(turned), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_tensor_of_a_picture_holds_its_numbers_in_the_models_order(dtype: str) -> None:
    image = pictures(1)[0][:, :20]
    for layout, found in (("NHWC", lambda t: t[0]), ("NCHW", lambda t: np.moveaxis(t[0], 0, -1))):
        tensor = Signature(height=SIZE, width=20, dtype=dtype, classes=3, layout=layout).tensor(image)
        assert tensor.dtype == dtype and tensor.flags["C_CONTIGUOUS"] and tensor.shape == input_shape(layout, SIZE, 20)
        np.testing.assert_array_equal(found(tensor), image)


def test_keras_runs_a_run_in_batches(tmp_path: Path) -> None:
    images = pictures(70)
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-c", KERAS_RUN, str(tmp_path), str(tmp_path / "images.npy")]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    found = run_logits("keras", tmp_path, images, which="float", threads=2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.load(tmp_path / "expected.npy"), rtol=1e-4, atol=1e-4)


def test_no_pictures_give_no_logits(model) -> None:
    assert run_logits("onnxruntime", model("m.onnx", onnx("uint8")), pictures(0)).shape == (0, len(CLASSES))


def test_works_from_another_folder_that_shadows_packages(model, tmp_path: Path, monkeypatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "numpy.py").write_text("raise RuntimeError('the wrong numpy')", encoding="utf-8")
    path = model("m.onnx", onnx("uint8"))
    monkeypatch.chdir(elsewhere)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert run_logits("onnxruntime", Path("..", path.name), pictures(1)).shape == (1, len(CLASSES))


@pytest.mark.parametrize(
    ("runtime", "name", "content", "found"),
    [
        ("onnxruntime", "m.onnx", onnx("float32", (1, SIZE, 3, SIZE)), "[1, 32, 3, 32] float32"),
        ("onnxruntime", "m.onnx", onnx("uint8", ("N", SIZE, SIZE, 3)), "['N', 32, 32, 3] uint8"),
        ("litert", "m.tflite", tflite("float32", (1, SIZE * SIZE * 3)), "[1, 3072] float32"),
    ],
)
def test_a_model_of_another_form_is_refused(model, runtime: str, name: str, content: bytes, found: str) -> None:
    with pytest.raises(BadInput) as caught:
        run_logits(runtime, model(name, content), pictures(1))
    message = str(caught.value)
    assert found in message and "expected one input [1, height, width, 3]" in message and "\n" not in message


def test_pictures_of_another_size_are_refused(model) -> None:
    with pytest.raises(BadInput, match="takes pictures of 32 x 32 x 3 uint8, got 30 x 32 x 3 uint8"):
        run_logits("onnxruntime", model("m.onnx", onnx("uint8")), np.zeros((1, 30, 32, 3), np.uint8))


def test_a_missing_file_and_an_unknown_runtime_are_refused(model) -> None:
    with pytest.raises(BadInput, match="is missing"):
        run_logits("litert", Path("no-such.tflite"), pictures(1))
    with pytest.raises(BadInput, match="expected one of litert, litert-builtin"):
        run_logits("tensorrt", model("m.onnx", b""), pictures(1))


@pytest.mark.parametrize(("runtime", "name"), [("litert", "m.tflite"), ("onnxruntime", "m.onnx")])
@pytest.mark.parametrize("content", [b"", b"not a model at all" * 50])
def test_a_foreign_file_is_one_clear_line(model, runtime: str, name: str, content: bytes) -> None:
    with pytest.raises(RuntimeFailed) as caught:
        run_logits(runtime, model(name, content), pictures(1))
    message = str(caught.value)
    assert caught.value.exit_code == 2 and f"{runtime} cannot load {name}: " in message
    assert "\n" not in message and len(message) < 200


@pytest.mark.parametrize("share", [0.001, 0.2, 0.6, 0.95, 0.99, 0.999])
def test_a_truncated_tflite_never_takes_the_parent_down(model, share: float) -> None:
    whole = tflite("uint8")
    path = model("m.tflite", whole[: int(len(whole) * share)])
    with pytest.raises((RuntimeFailed, BadInput)) as caught:
        run_logits("litert", path, pictures(1))
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_a_hanging_model_is_killed_at_the_timeout(model) -> None:
    start = time.monotonic()
    with pytest.raises(RuntimeFailed, match="onnxruntime gave no result on m.onnx within 2 s"):
        run_logits("onnxruntime", model("m.onnx", onnx("uint8", endless=True)), pictures(1), timeout=2)
    assert time.monotonic() - start < 30 and _workers(os.getpid()) == []


def test_an_interrupt_of_the_parent_ends_the_child(model) -> None:
    parent, worker = _endless_parent(model("m.onnx", onnx("uint8", endless=True)))
    parent.send_signal(signal.SIGINT)
    assert parent.communicate(timeout=30)[0] == "interrupted\n"
    _gone(worker)


def test_a_killed_parent_leaves_no_child_behind(model) -> None:
    parent, worker = _endless_parent(model("m.onnx", onnx("uint8", endless=True)))
    folder = Path(worker.cmdline()[-1]).parent
    assert (folder / "images.npy").exists()
    parent.kill()
    parent.communicate(timeout=30)
    _gone(worker)
    assert not folder.exists(), "pictures of patients stay nowhere"


def test_a_small_file_that_asks_for_terabytes_is_refused(model) -> None:
    """Repeated 10 ** 9 times, a picture would fill more memory than any machine has: the worker is told no, and nothing else ends."""
    content = ModelProto.FromString(onnx("float32"))
    content.graph.node.insert(0, helper.make_node("Tile", ["image", "repeats"], ["many"]))
    content.graph.node.insert(1, helper.make_node("ReduceMax", ["many"], ["fewer"], axes=[0], keepdims=1))
    content.graph.node[2].input[0] = "fewer"
    content.graph.initializer.append(numpy_helper.from_array(np.array([10**9, 1, 1, 1], np.int64), "repeats"))
    with pytest.raises(RuntimeFailed) as caught:
        run_logits("onnxruntime", model("m.onnx", content.SerializeToString()), pictures(1))
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2


def test_an_operator_that_a_runtime_lacks_is_told_from_a_damaged_file(model) -> None:
    theirs = ModelProto.FromString(onnx("float32"))
    theirs.graph.node[-1].domain = "somebody.else"
    theirs.opset_import.append(helper.make_opsetid("somebody.else", 1))
    with pytest.raises(Unsupported, match="cannot load m.onnx: .*somebody.else"):
        run_logits("onnxruntime", model("m.onnx", theirs.SerializeToString()), pictures(1))
    newer = ModelProto.FromString(onnx("float32"))
    newer.opset_import[0].version = 999
    with pytest.raises(Unsupported, match="999"):
        run_logits("onnxruntime", model("m.onnx", newer.SerializeToString()), pictures(1))
    unknown = schema.ModelT.InitFromObj(schema.Model.GetRootAs(tflite("float32"), 0))
    unknown.operatorCodes[0].builtinCode = schema.BuiltinOperator.CUSTOM
    unknown.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    unknown.operatorCodes[0].customCode = "SomebodyElses"
    builder = flatbuffers.Builder(0)
    builder.Finish(unknown.Pack(builder), b"TFL3")
    with pytest.raises(Unsupported, match="SomebodyElses"):
        run_logits("litert", model("m.tflite", bytes(builder.Output())), pictures(1))


def test_a_missing_package_names_the_pip_command(model, monkeypatch) -> None:
    monkeypatch.setitem(RUNTIMES, "litert", replace(RUNTIMES["litert"], imports=("no_such_package",), packages=("no-such-package",)))
    with pytest.raises(Missing, match='no_such_package.*pip install "ai-edge-litert') as caught:
        run_logits("litert", model("m.tflite", tflite("uint8")), pictures(1))
    assert caught.value.exit_code == 3
    found = available()["litert"]
    assert (found.available, found.version) == (False, None)
    assert "no_such_package" in found.reason and found.install == RUNTIMES["litert"].install


def test_cuda_counts_only_where_it_works(model) -> None:
    found = available()["onnxruntime-cuda"]
    path = model("m.onnx", onnx("uint8"))
    if found.available:
        np.testing.assert_allclose(run_logits("onnxruntime-cuda", path, pictures(2)), numpy_logits(pictures(2)), rtol=1e-4, atol=1e-4)
    else:
        assert found.reason
        with pytest.raises(Missing, match=r"pip install \"onnxruntime-gpu"):
            run_logits("onnxruntime-cuda", path, pictures(2))


def test_what_is_installed_is_available() -> None:
    found = available()
    assert found["litert"].available and found["litert"].version
    assert found["onnxruntime"].available and found["onnxruntime"].version


def test_the_pip_commands_name_the_versions_of_setup_cfg() -> None:
    setup = (REPOSITORY / "setup.cfg").read_text(encoding="utf-8")
    for row in RUNTIMES.values():
        assert row.requirement == "melanoma-edge[train]" or row.requirement.replace("[cuda,cudnn]", "") in setup


def test_the_parents_side_imports_nothing_heavy() -> None:
    modules = "melanoma_edge.runtimes.process, melanoma_edge.proof.latency, melanoma_edge.doctor"
    heavy = "'tensorflow', 'tf_keras', 'keras', 'onnxruntime', 'ai_edge_litert', 'onnx'"
    code = f"import sys, {modules}; print(sorted({{{heavy}}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout == "[]\n"


def test_a_crash_of_the_child_is_one_clear_line(model) -> None:
    path = model("m.onnx", onnx("uint8", endless=True))
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(run_logits, "onnxruntime", path, pictures(1), timeout=60)
        _running_worker(os.getpid()).send_signal(signal.SIGSEGV)
        with pytest.raises(RuntimeFailed, match=r"onnxruntime crashed on m\.onnx \(SIGSEGV\): the file is damaged") as caught:
            result.result()
    assert caught.value.exit_code == 2


def test_the_last_telling_line_and_messages_are_short(tmp_path: Path) -> None:
    noise = tmp_path / "stderr.txt"
    noise.write_text("first\nthe reason\nINFO: Created a delegate\n\n", encoding="utf-8")
    assert child.last_line(noise) == "; the reason"
    assert one_line(ValueError("a\n  b")) == "a b" and len(one_line(ValueError("x" * 999))) == 300
    assert one_line(ValueError("an escape \x1b[2J, an operator Flatten*\x04")) == r"an escape \x1b[2J, an operator Flatten*\x04"


def _endless_parent(path: Path) -> tuple[subprocess.Popen, psutil.Process]:
    """Start a process whose worker never ends; return both once the worker runs."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    parent = subprocess.Popen([sys.executable, "-c", ENDLESS, str(path)], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout.readline() == "started\n"
    return parent, _running_worker(parent.pid)


def _running_worker(parent: int) -> psutil.Process:
    """Wait for the worker of the process `parent` and until it has had time to load its model."""
    deadline = time.monotonic() + 30
    while not (workers := _workers(parent)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    return workers[0]


def _workers(parent: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(parent).children() if process.WORKER in child.cmdline()]


def _gone(worker: psutil.Process) -> None:
    """Assert that the process ends within seconds."""
    deadline = time.monotonic() + 30
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
