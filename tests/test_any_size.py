"""Training at any size: interrupted anywhere, on any device, in any arithmetic, on several machines."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from conftest import Cli, once, read_json, snapshot, train_options, validate, wait_until
from safetensors.numpy import load_file
from test_train_cli import some_classes, tiny

HERE = Path(__file__).parent
WEIGHTS = ("weights/float.safetensors", "weights/qat.safetensors")


def killed(cli: Cli, moment: str, *arguments: object) -> None:
    """Run `melanoma-edge train` until it ends itself by SIGKILL at `moment` (tests/killed_train.py)."""
    command = [sys.executable, str(HERE / "killed_train.py"), moment, "train", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
    done = subprocess.run(command, cwd=cli.home, env=environment, capture_output=True, timeout=600)
    assert done.returncode == -signal.SIGKILL, (moment, done.returncode, done.stderr.decode())


def half_written(run: Path) -> list[str]:
    return [file.name for file in run.rglob(".partial-*")]


def weights(run: Path, which: str = "float") -> dict[str, np.ndarray]:
    return load_file(run / "weights" / f"{which}.safetensors")


# Interrupted anywhere.

LONG = {"image_size": 48, "epochs": 3, "qat_epochs": 2, "dropout": 0.3, "samples_per_class": 48, "batch_size": 24}
"""With dropout: 6 steps an epoch that all draw something."""

MOMENTS = (
    "step float 3",
    "before checkpoint.safetensors 1",
    "step float 8",
    "after float.safetensors 1",
    "step qat 5",
    "before checkpoint.safetensors 1",
    "after evaluation.json 1",
)
"""Each in a process that goes on where the last was killed, at most one epoch further."""
FEWER = tuple(MOMENTS[place] for place in (1, 2, 4, 6))


@pytest.fixture(scope="session", params=[pytest.param(FEWER, id="four times"), pytest.param(MOMENTS, id="seven times", marks=pytest.mark.slow)])
def often_killed(request: pytest.FixtureRequest, cli: Cli, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    moments = request.param

    def make(home: Path) -> dict:
        data, run, seen = some_classes(drawn, home / "data", 16), home / "killed", []
        options = tiny(**LONG)
        for number, moment in enumerate(moments):
            killed(cli, moment, *([data, *options] if number == 0 else ["--resume"]), "--out", run, "-q")
            history = [(row["phase"], row["epoch"]) for row in read_json(run / "history.json")]
            seen.append({"moment": moment, "state": read_json(run / "run.json")["state"], "history": history, "half written": half_written(run)})
            if moment == "step float 8":
                file = run / "checkpoint.safetensors"
                content = file.read_bytes()
                file.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])  # one bit of one weight
                damaged = cli.refused("train", "--resume", "--out", run, "-q")
                file.write_bytes(content)
        last = cli("train", "--resume", "--out", run, "--json", "-q").json
        cli("train", data, *options, "--out", home / "peaceful", "-q")
        return {"seen": seen, "state": last["facts"]["state"], "damaged": damaged}

    folder, made = once(tmp_path_factory, f"killed-{len(moments)}-times", make)
    return made | {"run": folder / "killed", "peaceful": folder / "peaceful"}


def test_a_run_that_was_killed_many_times_ends_with_the_same_bits(often_killed: dict) -> None:
    ours, theirs = snapshot(often_killed["run"]), snapshot(often_killed["peaceful"])
    assert often_killed["state"] == "complete"
    for name in (*WEIGHTS, "logits.safetensors", "evaluation.json", "split.csv"):
        assert ours[name] == theirs[name], name
    assert ours.keys() == theirs.keys(), "something half-written, or a checkpoint, stayed"
    losses = [[(row["loss"], row["validation_loss"]) for row in read_json(often_killed[name] / "history.json")] for name in ("run", "peaceful")]
    assert losses[0] == losses[1]


def test_the_kills_came_when_they_were_meant_to(often_killed: dict) -> None:
    seen = often_killed["seen"]
    assert all(found["state"] == "training" for found in seen)
    moments = [found["moment"] for found in seen]
    assert [len(found["history"]) for found in seen] == {FEWER: [1, 1, 3, 5], MOMENTS: [0, 1, 1, 3, 3, 4, 5]}[tuple(moments)]
    assert [bool(found["half written"]) for found in seen] == [moment.startswith("before") for moment in moments]


def test_a_damaged_checkpoint_is_refused_and_says_so(often_killed: dict) -> None:
    assert "checkpoint.safetensors is damaged" in often_killed["damaged"] and "start a new run" in often_killed["damaged"]


def test_half_a_file_is_no_checkpoint() -> None:
    from melanoma_edge.errors import BadInput
    from melanoma_edge.model import run as runs

    content = runs.pack_tensors({"a": np.arange(9, dtype=np.float32)}, {"phase": "float"})
    found, metadata = runs.unpack_tensors(content, "whole")
    assert np.array_equal(found["a"], np.arange(9)) and metadata == {"phase": "float"}
    for length in (0, 4, 30, len(content) - 1):
        with pytest.raises(BadInput, match="run/checkpoint cannot be read as a checkpoint"):
            runs.unpack_tensors(content[:length], "run/checkpoint", "a checkpoint")


# Killed while it begins.


@pytest.mark.parametrize(("moment", "options"), [("before recipe.toml 1", []), ("before folds.json 1", ["--folds", "2"])])
def test_what_was_killed_while_it_began_is_begun_anew(cli: Cli, drawn: Path, tmp_path: Path, moment: str, options: list[str]) -> None:
    data, out = some_classes(drawn, tmp_path / "data", 8), tmp_path / "out"
    killed(cli, moment, data, *tiny(), *options, "--out", out, "-q")
    left = sorted(file.name for file in out.iterdir())
    assert len(left) == 2 and left[0] == ".lock" and left[1].startswith(".partial-")
    killed(cli, moment.replace("before", "after"), data, *tiny(), *options, "--out", out, "-q")
    assert sorted(file.name for file in out.iterdir()) == [".lock", moment.split()[1]]


def refusal(monkeypatch: pytest.MonkeyPatch, folds: int | None, tmp_path: Path) -> str:
    """Return what a training into the folder `out` is refused for, which has no pictures and so never begins."""
    from melanoma_edge import recipes
    from melanoma_edge.errors import BadInput
    from melanoma_edge.model import folds as all_folds
    from melanoma_edge.model import train as training
    from melanoma_edge.model.devices import Devices

    for module in (all_folds, training):
        monkeypatch.setattr(module, "open_devices", lambda asked: Devices())
    with pytest.raises(BadInput) as caught:
        asked = tmp_path / "no pictures", recipes.load("demo"), tmp_path / "out"
        training.train(*asked) if folds is None else all_folds.train_folds(*asked, folds)
    return str(caught.value)


def resolved() -> str:
    from melanoma_edge import recipes

    return recipes.to_toml(recipes.load("demo"))


@pytest.mark.parametrize("folds", [None, 3])
@pytest.mark.parametrize("left", [{".lock": ""}, {".lock": "", ".partial-ab12": "{"}, {"recipe.toml": resolved()}, {".lock": "", "recipe.toml": resolved(), "split.csv": "path"}])
def test_what_a_beginning_leaves_is_in_nobodys_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, left: dict[str, str], folds: int | None) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name, content in left.items():
        (out / name).write_text(content, encoding="utf-8")
    assert "exists already" not in (said := refusal(monkeypatch, folds, tmp_path)) and "no pictures" in said
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("folds", [None, 3])
@pytest.mark.parametrize(
    "own",
    [
        {".lock": "", "notes.txt": ""},
        {".lock": "of another program"},
        {".lock": "", ".partial-ab12/notes.txt": ""},
        {".partial-ab12": ""},
        {"recipe.toml": "# mine\n" + resolved()},
        {"recipe.toml": 'name = "mine"\n'},
        {"recipe.toml": "name ="},
        {".lock": "", "run.json": "{}"},
        {".lock": "", "folds.json": "{}"},
    ],
)
def test_what_somebody_put_into_a_folder_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: dict[str, str], folds: int | None) -> None:
    for name, content in own.items():
        file = tmp_path / "out" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    before = snapshot(tmp_path)
    assert "out exists already" in refusal(monkeypatch, folds, tmp_path)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("folds", [None, 3])
@pytest.mark.parametrize("left", [{}, {"recipe.toml": resolved()}])
def test_a_folder_in_which_another_process_just_begins_is_refused_and_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, left: dict[str, str], folds: int | None) -> None:
    from melanoma_edge.model import run as runs

    out = tmp_path / "out"
    with runs.held(out):
        for name, content in left.items():
            (out / name).write_text(content, encoding="utf-8")
        before = snapshot(out)
        assert f"another process is training in {out}" in refusal(monkeypatch, folds, tmp_path)
        assert snapshot(out) == before and ".lock" in before


# Dropout.


def test_dropout_follows_from_the_seed_and_the_row_and_vanishes_outside_training() -> None:
    from melanoma_edge.model.tensorflow import require

    require()
    import tensorflow as tf

    from melanoma_edge.model.dropout import StepDropout, drawn

    layer, ones = StepDropout(0.25), tf.ones((64, 50))

    @tf.function
    def train(features, seed, first):
        with drawn(seed, first, 64):
            return layer(features, training=True)

    first = train(ones, tf.constant([1, 2]), 0).numpy()
    assert abs((first == 0).mean() - 0.25) < 0.04 and np.allclose(first[first != 0], 4 / 3)
    assert np.array_equal(train(ones, tf.constant([1, 2]), 0), first), "a second call drew something else"
    assert np.array_equal(train(ones[40:], tf.constant([1, 2]), 40), first[40:]), "a device that has the last rows drops others"
    assert not np.array_equal(train(ones, tf.constant([1, 3]), 0), first)
    assert len({row.tobytes() for row in first}) == 64
    assert np.array_equal(layer(ones), ones) and np.array_equal(layer(ones, training=False), ones)
    assert 0.2 < (layer(ones, training=True).numpy() == 0).mean() < 0.3, "who calls a network by hand gets some mask"


# Devices and arithmetic.


def test_a_gpu_that_is_not_there_is_one_line_with_code_3(cli: Cli, drawn: Path, tmp_path: Path) -> None:
    data = some_classes(drawn, tmp_path / "data", 8)
    with cli.start("train", data, *tiny(), "--device", "gpu", "--out", tmp_path / "run", "-q", env={"CUDA_VISIBLE_DEVICES": ""}) as process:
        err = process.communicate(timeout=300)[1].decode()
    assert process.returncode == 3 and err.count("\n") == 1 and "TensorFlow finds no GPU here" in err
    assert not (tmp_path / "run").exists()


def test_the_networks_that_xla_cannot_train_are_those_with_max_pooling() -> None:
    import tf_keras as keras

    from melanoma_edge import recipes
    from melanoma_edge.contract import Recipe
    from melanoma_edge.model import devices, network

    for name in get_args(Recipe.model_fields["network"].annotation):
        built = network.build(recipes.load("default", [f"network={name}", "image_size=48", "width=0.25"]), 3)
        assert any(isinstance(layer, keras.layers.MaxPooling2D) for layer in built.layers) == (name in devices.POOLED), name


@pytest.mark.parametrize("option", [["--xla"], ["--mixed-precision", "bfloat16"]])
def test_the_arithmetic_does_not_change_within_a_run(cli: Cli, run: Path, option: list[str]) -> None:
    assert "--resume goes on with the arithmetic that was begun with" in cli.refused("train", "--resume", "--out", run, *option)


@pytest.mark.parametrize("options", [["--recipe", "classic"], ["--recipe", "classic-batchnorm", "--mixed-precision", "bfloat16"], ["--recipe", "classic", "--folds", "3"]])
def test_a_network_that_cannot_be_trained_under_xla_is_one_line(cli: Cli, drawn: Path, tmp_path: Path, options: list[str]) -> None:
    said = cli.refused("train", drawn, *options, "--xla", "--out", tmp_path / "run", "-q")
    assert "cannot be trained under XLA" in said and "leave out --xla, or set network=edge" in said
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="session")
def mixed_precision(cli: Cli, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in mixed precision under XLA that was killed and went on, with TensorBoard logs; one left in peace beside it."""

    def make(home: Path) -> None:
        data = some_classes(drawn, home / "data", 10)
        options = [data, *tiny(epochs=2, qat_epochs=1, batch_size=16), "--mixed-precision", "bfloat16", "--xla"]
        killed(cli, "step float 9", *options, "--out", home / "run", "--tensorboard", home / "board", "-q")
        cli("train", "--resume", "--out", home / "run", "--tensorboard", home / "board", "-q")
        cli("train", *options, "--out", home / "peaceful", "-q")

    return once(tmp_path_factory, "mixed-precision", make)[0]


def test_mixed_precision_and_xla_are_facts_of_the_run_that_a_resume_keeps(mixed_precision: Path) -> None:
    facts = read_json(mixed_precision / "run" / "run.json")
    validate(facts, "run")
    expected = {"device": "cpu", "names": ["CPU"], "replicas": 1, "workers": 1, "mixed_precision": "bfloat16", "xla": True}
    assert facts["computations"] == [expected]
    ours, theirs = snapshot(mixed_precision / "run"), snapshot(mixed_precision / "peaceful")
    assert [ours[name] for name in WEIGHTS] == [theirs[name] for name in WEIGHTS]


def test_what_mixed_precision_leaves_is_float32_and_exports(cli: Cli, mixed_precision: Path, tmp_path: Path) -> None:
    run = mixed_precision / "run"
    for which in ("float", "qat"):
        assert {value.dtype.name for value in weights(run, which).values()} <= {"float32", "int32"}
    assert {value.dtype.name for value in load_file(run / "logits.safetensors").values()} == {"float32"}
    gates = cli("export", run, "--precision", "float32", "--out", tmp_path / "b", "--json", "-q").json["gates"]
    assert {gate["outcome"] for gate in gates if gate["name"] == "float32"} == {"passed"}


def test_half_precision_that_is_interrupted_goes_on_with_its_loss_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a scale as high as here, gradients overflow and steps are left out until it has fallen; every three good steps it rises again."""
    from melanoma_edge.model.tensorflow import require, seed_everything

    require()
    import tf_keras as keras

    from melanoma_edge.contract import Computation, Recipe
    from melanoma_edge.model import checkpoint, network
    from melanoma_edge.model.devices import Devices, arithmetic
    from melanoma_edge.model.fit import Part, fit
    from melanoma_edge.model.step import Phase, optimizer

    monkeypatch.setattr(keras.mixed_precision, "LossScaleOptimizer", partial(keras.mixed_precision.LossScaleOptimizer, initial_scale=2**20, dynamic_growth_steps=3))
    recipe = Recipe(name="t", network="classic", image_size=32, dropout=0.0, rebalance="none", batch_size=4, weight_decay=0.01)
    devices, phase, file = Devices(Computation(device="cpu", names=("CPU",), mixed_precision="float16")), Phase("float", 2, 0.001, 0.0), tmp_path / "checkpoint"
    labels = np.arange(48) % 2
    pictures = np.clip(np.random.default_rng(0).normal(90 + 40 * labels[:, None, None, None], 30, (48, 32, 32, 3)), 0, 255).astype(np.uint8)

    def fresh():
        seed_everything(5)
        with arithmetic(devices.computation):
            return network.build(recipe, 2, rescale=True)

    def trained(file: Path, report=lambda event, facts: None) -> list[bytes]:
        model, part = fresh(), Part(pictures, labels)
        fit(model, model.trainable_variables, phase, recipe, part, part, file=file, history=[], on_epoch=lambda rows: None, report=report, devices=devices)
        return [value.tobytes() for value in model.get_weights()]

    def reached(file: Path) -> tuple[float, int]:
        """Return the scale in a checkpoint, and how many good steps there were since it last changed."""
        model = fresh()
        made = optimizer(phase, recipe, 12, model.trainable_variables, devices)
        checkpoint.unpack(file.read_bytes(), "float", model, made, "the checkpoint")
        return float(made.loss_scale), int(made.dynamic_counter)

    def interrupt(event: str, facts: dict) -> None:
        if event == "epoch":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(file, interrupt)
    scale, good_steps = reached(file)
    assert 1 < scale < 2**20 and good_steps > 0, "neither differs from what training begins with"
    assert trained(file) == trained(tmp_path / "peaceful") and reached(file) == reached(tmp_path / "peaceful")


def records(file: Path):
    """Yield the records of a TFRecord file, read without TensorFlow."""
    content, position = file.read_bytes(), 0
    while position < len(content):
        [length] = struct.unpack_from("<Q", content, position)
        yield content[position + 12 : position + 12 + length]
        position += length + 16


def test_tensorboard_logs_hold_the_history(mixed_precision: Path) -> None:
    import tensorflow as tf

    found = {}
    for file in (mixed_precision / "board").iterdir():
        for record in records(file):
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                assert value.metadata.plugin_data.plugin_name == "scalars"
                found[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    rows = read_json(mixed_precision / "run" / "history.json")
    assert {step for tag, step in found if tag == "float/loss"} == {1, 2} and {step for tag, step in found if tag == "qat/loss"} == {1}
    for row in rows:
        for name in ("loss", "accuracy", "validation_balanced_accuracy", "validation_loss", "learning_rate", "images_per_second"):
            assert found[f"{row['phase']}/{name}", row["epoch"] + 1] == pytest.approx(row[name], rel=1e-6)


def test_the_progress_says_what_computes_and_how_long_it_takes(cli: Cli, drawn: Path, tmp_path: Path) -> None:
    data = some_classes(drawn, tmp_path / "data", 8)
    err = cli("train", data, *tiny(epochs=2), "--device", "cpu", "--out", tmp_path / "run", "-v").err
    assert "computing on: CPU\n" in err
    [first, last] = [line for line in err.splitlines() if line.startswith("float epoch ")]
    assert "loss " in first and "validation balanced accuracy 0." in first and "images/s, " in first and first.endswith(" s left")
    assert last.endswith(" images/s")


SEVERAL = '''
import json, sys
from melanoma_edge.model.tensorflow import require, seed_everything
require()
import numpy as np, tensorflow as tf
from melanoma_edge.contract import Computation, Recipe
from melanoma_edge.model import network
from melanoma_edge.model.devices import Devices, arithmetic
from melanoma_edge.model.fit import Part, fit
from melanoma_edge.model.step import Phase
from pathlib import Path

kind, count, xla, mixed = sys.argv[1], int(sys.argv[2]), "xla" in sys.argv, "bfloat16" if "mixed" in sys.argv else None
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 3)
rng = np.random.default_rng(0)
labels = np.repeat([0, 1, 2], 12)
pictures = np.clip(rng.normal(90 + 40 * labels[:, None, None, None], 30, (36, 32, 32, 3)), 0, 255).astype(np.uint8)
recipe = Recipe(name="t", network=kind, image_size=32, width=0.25, dropout=0.3, batch_size=16, samples_per_class=16, weight_decay=0.01)
results = {}
for replicas in (1, count):
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)]) if replicas > 1 else None
    devices = Devices(Computation(device="cpu", names=("CPU",), replicas=replicas, mixed_precision=mixed, xla=xla), strategy)
    seed_everything(5)
    with devices.scope(), arithmetic(devices.computation):
        model = network.build(recipe, 3, rescale=True)
    part, history = Part(pictures, labels), []
    trained = fit(model, model.trainable_variables, Phase("float", 2, 0.001, 0.1), recipe, part, part, file=Path(f"{kind}-{replicas}-{xla}"), history=history,
        on_epoch=lambda rows: None, report=lambda event, facts: None, devices=devices)
    again = fit(trained if replicas == 1 else model, model.trainable_variables, Phase("float", 2, 0.001, 0.1), recipe, part, part, file=Path(f"{kind}-{replicas}-{xla}"), history=list(history),
        on_epoch=lambda rows: None, report=lambda event, facts: None, devices=devices)
    same = all(np.array_equal(a, b) for a, b in zip(trained.get_weights(), again.get_weights()))
    results[replicas] = {"losses": [row.loss for row in history], "hits": [row.accuracy for row in history], "weights": trained.get_weights(), "restored": same}
one, several = results[1], results[count]
print(json.dumps({"losses": [one["losses"], several["losses"]], "hits": [one["hits"], several["hits"]], "restored": [one["restored"], several["restored"]],
    "difference": max(float(np.abs(a - b).max()) for a, b in zip(one["weights"], several["weights"])), "dtypes": sorted({str(w.dtype) for w in several["weights"]})}))
'''


def several(folder: Path, *arguments: object) -> dict:
    """Train on one device and on several in a process of its own, and return how the two compare."""
    command = [sys.executable, "-c", SEVERAL, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, env=os.environ | {"PYTHONPATH": str(HERE.parent)})
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("count", [2, 3])
def test_several_devices_train_the_same_as_one_on_the_same_batch(tmp_path: Path, count: int) -> None:
    """16 rows on 3 devices are 5, 5 and 6; dropout is on. The network has no batch statistics."""
    found = several(tmp_path, "classic", count)
    assert np.allclose(*found["losses"], rtol=1e-4) and found["hits"][0] == pytest.approx(found["hits"][1], abs=0.03)
    assert found["difference"] < 2e-3 and found["restored"] == [True, True]


def test_several_devices_train_batch_normalization_in_mixed_precision_under_xla(tmp_path: Path) -> None:
    found = several(tmp_path, "edge", 2, "xla", "mixed")
    assert np.isfinite(found["losses"]).all() and np.allclose(*found["losses"], rtol=0.3) and found["restored"] == [True, True]
    assert found["dtypes"] == ["float32"]


# Several machines.


def ports(count: int) -> list[int]:
    """Return numbers of ports that are free just now."""
    sockets = [socket.socket() for _ in range(count)]
    for number in sockets:
        number.bind(("127.0.0.1", 0))
    found = [number.getsockname()[1] for number in sockets]
    for number in sockets:
        number.close()
    return found


def start_workers(cli: Cli, *commands: list[object]) -> list[subprocess.Popen[bytes]]:
    """Start a `train` for each worker, all on this machine."""
    addresses = [f"127.0.0.1:{port}" for port in ports(len(commands))]
    return [
        cli.start("train", *command, env={"TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": number}})})
        for number, command in enumerate(commands)
    ]


def finished(processes: list[subprocess.Popen[bytes]]) -> list[tuple[int, str]]:
    """Return (exit code, standard error) of each worker."""
    said = [process.communicate(timeout=600)[1].decode() for process in processes]
    assert not any("Traceback" in err for err in said), said
    return [(process.returncode, err) for process, err in zip(processes, said)]


CLASSIC = ["--recipe", "classic-dropout", *train_options(image_size=32, epochs=2, qat_epochs=1, samples_per_class=48, min_lesions=3)]

TAUGHT = [*CLASSIC, "--set", "distillation={teachers=1, epochs=1}"]


@pytest.fixture(scope="session")
def two_workers(cli: Cli, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """A run by two worker processes, the same by one, and one whose worker died, that then went on alone."""

    def make(home: Path) -> dict:
        data, other = some_classes(drawn, home / "data", 16), some_classes(drawn, home / "other", 15)
        cli("train", data, *TAUGHT, "--out", home / "one", "-q")
        both = finished(start_workers(cli, *[[data, *TAUGHT, "--out", home / f"two-{number}", "-q"] for number in (0, 1)]))
        foreign = finished(start_workers(cli, *[[folder, *CLASSIC, "--out", home / f"foreign-{number}", "-q"] for number, folder in enumerate((data, other))]))
        longer = [*CLASSIC, "--set", "epochs=400"]
        dying = start_workers(cli, *[[data, *longer, "--out", home / f"dying-{number}", "-q"] for number in (0, 1)])
        history = home / "dying-0" / "history.json"
        wait_until(lambda: history.exists() and len(read_json(history)) > 1, dying[0])
        dying[1].kill()
        died = finished(dying)
        rows = len(read_json(history))
        resumed = start_workers(cli, *[["--resume", "--out", home / f"dying-{number}", "-q"] for number in (0, 1)])
        wait_until(lambda: len(read_json(history)) > rows + 1, resumed[0])
        resumed[0].kill()
        left = finished(resumed)
        before = len(read_json(history))
        process = cli.start("train", "--resume", "--out", home / "dying-0", "-q")
        wait_until(lambda: len(read_json(history)) > before + 1, process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
        return {"both": both, "foreign": foreign, "died": died, "left": left, "folders": sorted(path.name for path in home.iterdir())}

    folder, made = once(tmp_path_factory, "two-workers", make)
    return made | {"home": folder}


def test_two_workers_train_what_one_does(two_workers: dict) -> None:
    assert [code for code, _ in two_workers["both"]] == [0, 0], two_workers["both"]
    one, two = two_workers["home"] / "one", two_workers["home"] / "two-0"
    rows = [[row["loss"] for row in read_json(run / "history.json")] for run in (one, two)]
    assert len(rows[0]) == 4 and np.allclose(*rows, rtol=1e-4)  # a teacher's among them
    ours, theirs = weights(two), weights(one)
    assert ours.keys() == theirs.keys() and all(np.allclose(ours[name], theirs[name], atol=2e-3) for name in ours)
    assert np.allclose(load_file(two / "logits.safetensors")["qat/test"], load_file(one / "logits.safetensors")["qat/test"], atol=0.02)
    assert [(entry["workers"], entry["replicas"]) for entry in read_json(two / "run.json")["computations"]] == [(2, 2)]


def test_only_the_chief_writes(two_workers: dict) -> None:
    assert "two-0" in two_workers["folders"] and not {"two-1", "dying-1", "foreign-0", "foreign-1"} & set(two_workers["folders"])
    assert snapshot(two_workers["home"] / "two-0").keys() == snapshot(two_workers["home"] / "one").keys()


def test_workers_with_other_pictures_are_told(two_workers: dict) -> None:
    assert [code for code, _ in two_workers["foreign"]] == [2, 2]
    (_, chief), (_, worker) = two_workers["foreign"]
    assert "other pictures than here on worker 1" in chief and "is not what the chief trains on" in worker


def test_when_a_worker_dies_the_others_say_which_and_the_run_goes_on(two_workers: dict) -> None:
    (code, said), (killed_code, _) = two_workers["died"]
    assert (code, killed_code) == (3, -signal.SIGKILL)
    assert said.count("\n") == 1 and "worker 0 of 2 stops: 1 (127.0.0.1:" in said and "--resume" in said
    (killed_code, _), (code, said) = two_workers["left"]
    assert (code, killed_code) == (3, -signal.SIGKILL) and "worker 1 of 2 stops: 0 (127.0.0.1:" in said
    run = two_workers["home"] / "dying-0"
    assert [(row["phase"], row["epoch"]) for row in read_json(run / "history.json")] == [("float", i) for i in range(len(read_json(run / "history.json")))]
    assert [entry["workers"] for entry in read_json(run / "run.json")["computations"]] == [2, 1]


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ("nonsense", "TF_CONFIG is 'nonsense': expected for example"),
        ('{"cluster": {"worker": ["a:1", "b:2"]}}', "the task being one of the cluster"),
        ('{"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 2}}', "the task being one of the cluster"),
        ('{"cluster": {"worker": ["a:1"], "ps": ["b:2"]}, "task": {"type": "worker", "index": 0}}', "TF_CONFIG names tasks of type ps"),
    ],
)
def test_a_wrong_list_of_workers_is_one_line(cli: Cli, drawn: Path, tmp_path: Path, config: str, found: str) -> None:
    with cli.start("train", drawn, *tiny(), "--out", tmp_path / "run", "-q", env={"TF_CONFIG": config}) as process:
        err = process.communicate(timeout=300)[1].decode()
    assert process.returncode == 2 and err.count("\n") == 1 and found in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [0, 1])
def test_workers_do_not_wait_for_ever_for_one_that_does_not_come(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    from melanoma_edge.errors import Missing
    from melanoma_edge.model import workers

    monkeypatch.setattr(workers, "GATHERING_SECONDS", 2.0)
    addresses = tuple(f"127.0.0.1:{port}" for port in ports(3))
    alone = workers.Cluster((("chief", 0), ("worker", 0), ("worker", 1)), addresses, number)
    missing = f"1 \\({addresses[1]}\\), 2 \\({addresses[2]}\\) did not come" if number == 0 else f"the chief \\({addresses[0]}\\), or another one, did not come"
    with pytest.raises(Missing, match=f"worker {number} of 3 waited 2 seconds, and {missing}"):
        alone.gather()


def test_workers_meet_in_any_order() -> None:
    from concurrent.futures import ThreadPoolExecutor

    from melanoma_edge.model.workers import Cluster

    addresses, tasks = tuple(f"127.0.0.1:{port}" for port in ports(3)), tuple(("worker", number) for number in range(3))
    with ThreadPoolExecutor(3) as pool:
        met = []
        for number in (2, 1, 0):
            met.append(pool.submit(Cluster(tasks, addresses, number).gather))
            time.sleep(0.3)
        assert [future.result(timeout=60) for future in met] == [None] * 3
    socket.create_server(("127.0.0.1", int(addresses[0].rpartition(":")[2]))).close()  # the port is free again


def test_a_batch_is_cut_into_the_rows_of_each_device() -> None:
    from melanoma_edge.contract import Computation
    from melanoma_edge.errors import BadInput
    from melanoma_edge.model.devices import Devices
    from melanoma_edge.model.workers import Cluster

    for batch, workers, each in ((32, 1, 1), (32, 2, 1), (33, 2, 2), (7, 3, 2)):
        computation = Computation(device="cpu", names=("CPU",), replicas=workers * each, workers=workers)
        tasks = tuple(("worker", number) for number in range(workers))
        rows = [row for number in range(workers) for row in Devices(computation, None, Cluster(tasks, ("",) * workers, number)).rows(batch)]
        assert [place for row in rows for place in range(batch)[row]] == list(range(batch)) and all(row.stop > row.start for row in rows)
    with pytest.raises(BadInput, match="a batch of 3 cannot be shared by 4 devices"):
        Devices(Computation(device="cpu", names=(), replicas=4)).rows(3)
