"""Prediction with several processes: order and numbers, and what happens when one crashes, hangs, or the command is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import Cli, read_json, wait_until
from PIL import Image
from tiny_bundle import CLASSES, SIZE, numpy_logits, onnx, write_bundle

from melanoma_edge.data import image, quality
from melanoma_edge.errors import BadInput
from melanoma_edge.proof.predict import predict, predictions
from melanoma_edge.runtimes import stream
from melanoma_edge.runtimes.protocol import RuntimeFailed
from melanoma_edge.runtimes.stream_worker import ORDINARY_PIXELS, Turns


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without a positive class, for which it would need a threshold."""
    folder = write_bundle(tmp_path_factory.mktemp("stream") / "tiny.bundle")
    manifest = read_json(folder / "manifest.json") | {"positive_class": None}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures of several sizes and, in between, files that cannot be read: whole blocks of those too."""
    folder, random, made = tmp_path_factory.mktemp("pictures"), np.random.default_rng(3), []
    for number in range(150):
        made.append(folder / f"{number}.png")
        if number % 7 == 3 or 32 <= number < 70:
            made[-1].write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(number))
        else:
            Image.fromarray(random.integers(0, 256, (40 + number % 5, 200 - number, 3), np.uint8)).save(made[-1])
    return made


@pytest.mark.parametrize("processes", [1, 3])
def test_results_are_in_order_and_those_of_each_picture_alone(tiny: Path, files: list[Path], processes: int) -> None:
    model = tiny / "tiny-float32.tflite"
    with stream.started(processes) as workers:
        found = [one for block in workers.answers("litert", model, files, size=SIZE) for one in block]
    assert len(found) == len(files)
    for number, (file, one) in enumerate(zip(files, found, strict=True)):
        if number % 7 == 3 or 32 <= number < 70:
            assert one.keys() == {"error"} and str(file) in one["error"]
            continue
        np.testing.assert_allclose(one["logits"], numpy_logits(image.load(file, SIZE)[np.newaxis])[0], rtol=1e-4, atol=1e-4)
        measured = quality.measure(image.open_picture(file, image.read(file)).image)
        assert one["quality"] == {"side": measured.side, "sharpness": measured.sharpness, "dark": measured.dark, "clipped": measured.clipped, "warnings": list(measured.warnings)}
    together = predict(tiny, files, processes=processes)["results"]
    assert [result["picture"] for result in together] == list(map(str, files))
    for number in (0, 29, 71, 149):
        assert predict(tiny, [files[number]])["results"] == [together[number]]
    assert tuple(together[0]["probabilities"]) != () and set(together[0]["probabilities"]) == set(CLASSES)
    assert _children() == []


def test_nothing_readable_and_numbers_that_make_no_sense_are_refused(tiny: Path, files: list[Path]) -> None:
    with pytest.raises(BadInput, match=r"none of 38 pictures can be read \(first: .*32\.png"):
        predict(tiny, files[32:70], processes=2)
    with pytest.raises(BadInput, match="no picture was given"):
        predict(tiny, [])
    for wrong in ({"threads": 0}, {"processes": 0}):
        with pytest.raises(BadInput, match="expected 1 or more"):
            predict(tiny, files[:1], **wrong)
    with pytest.raises(BadInput, match="has no artifact"):
        predict(tiny, files[:1], artifact="nonsense")
    assert _children() == []


class Counted(list):
    """Pictures, of which it is known how many were asked for."""

    asked = 0

    def __iter__(self) -> Iterator[Path]:
        for picture in super().__iter__():
            self.asked += 1
            yield picture


def test_only_so_many_pictures_are_under_way_whoever_is_slow(tiny: Path, files: list[Path]) -> None:
    pictures, processes = Counted(files[:1] * 5000), 2
    bound = (stream.AHEAD * processes + 2) * stream.BLOCK
    with stream.started(processes) as workers:
        blocks = workers.answers("litert", tiny / "tiny-float32.tflite", pictures, size=SIZE)
        for number in range(1, 4):
            next(blocks)
            time.sleep(0.5)
            assert pictures.asked <= bound + number * stream.BLOCK < len(pictures)
        assert sum(map(len, blocks)) == 5000 - 3 * stream.BLOCK


def test_a_long_list_of_long_names_is_told_without_waiting(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path
    while len(os.fsencode(folder)) < 3800:
        folder /= "\x01é" * 50
    names = [folder / f"{number}.png" for number in range(100)]
    results = [one for block in _read(tiny, names) for one in block]
    assert len(results) == 100 and all("No such file" in one["error"] for one in results)


def test_a_crash_in_the_middle_is_one_clear_line(tiny: Path, files: list[Path]) -> None:
    with pytest.raises(RuntimeFailed) as caught, predictions(tiny, files[:1] * 20000, processes=2) as (_, results):
        next(results)
        folder = _folders(_children())
        _children()[1].send_signal(signal.SIGSEGV)
        for _ in results:
            pass
    message = str(caught.value)
    assert message.startswith("litert crashed on tiny-int8.tflite (SIGSEGV)") and files[0].name in message and "\n" not in message
    assert caught.value.exit_code == 2 and _children() == [] and not any(path.exists() for path in folder)


def test_processes_that_hang_are_killed_at_the_timeout(tiny: Path, files: list[Path], tmp_path: Path) -> None:
    model = tmp_path / "endless.onnx"
    model.write_bytes(onnx("uint8", endless=True))
    with pytest.raises(RuntimeFailed, match=r"onnxruntime gave no result on endless\.onnx within 3 s"), stream.started(2) as workers:
        list(workers.answers("onnxruntime", model, files, size=SIZE, timeout=3))
    assert _children() == []


def test_a_foreign_model_and_one_of_another_size_are_refused(tiny: Path, files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(b"not a model at all" * 50)
    with pytest.raises(RuntimeFailed, match="litert cannot load m.tflite"), stream.started(2) as workers:
        list(workers.answers("litert", tmp_path / "m.tflite", files, size=SIZE))
    with pytest.raises(BadInput, match="takes pictures of 32 x 32 x 3 uint8, got 30 x 30"), stream.started(1) as workers:
        list(workers.answers("litert", tiny / "tiny-float32.tflite", files, size=30))
    assert _children() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_command_that_is_stopped_leaves_nothing_behind(cli: Cli, tiny: Path, files: list[Path], number: int, tmp_path: Path) -> None:
    command = cli.start("predict", tiny, *files[:1] * 15000, "--json", env={"TMPDIR": str(tmp_path)})
    at_work = lambda: [worker for worker in _children(command.pid) if worker.cpu_times().user > 0.5]  # noqa: E731
    wait_until(at_work, command)
    workers = _children(command.pid)
    assert list(tmp_path.iterdir()) != []
    command.send_signal(number)
    out, err = command.communicate(timeout=30)
    assert (command.returncode, out) == ({signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}[number], b"") and b"Traceback" not in err
    deadline = time.monotonic() + 30
    while any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers) or list(tmp_path.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_large_pictures_are_decoded_in_turn_and_ordinary_ones_never_wait(tmp_path: Path) -> None:
    one, other, went = Turns(tmp_path, 16), Turns(tmp_path, 16), threading.Event()
    one.take(ORDINARY_PIXELS + 1)
    other.take(ORDINARY_PIXELS)
    other.give_back()
    threading.Thread(target=lambda: (other.take(ORDINARY_PIXELS + 1), went.set()), daemon=True).start()
    assert not went.wait(0.3)
    one.give_back()
    assert went.wait(30)


def test_more_processes_are_started_for_many_pictures_only() -> None:
    cores = len(os.sched_getaffinity(0))
    assert [stream.processes_for(count) for count in (0, 1, stream.WORTH - 1)] == [1, 1, 1]
    assert stream.processes_for(10**6) == min(cores, stream.MOST_PROCESSES)


def test_processes_are_started_before_anything_large_is_imported() -> None:
    code = "import sys, melanoma_edge.proof.predict; print(sorted({'numpy', 'pydantic', 'PIL', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert done.stdout == "[]\n"


def _read(tiny: Path, names: list[Path]) -> Iterator[list[dict]]:
    with stream.started(1) as workers:
        yield from workers.answers("litert", tiny / "tiny-float32.tflite", names, size=SIZE)


def _children(parent: int | None = None) -> list[psutil.Process]:
    return [process for process in psutil.Process(parent or os.getpid()).children() if stream.WORKER in process.cmdline()]


def _folders(workers: list[psutil.Process]) -> set[Path]:
    found = {Path(worker.cmdline()[-1]) for worker in workers}
    assert len(found) == 1 and all(path.exists() and path.parent == Path(tempfile.gettempdir()) for path in found)
    return found
