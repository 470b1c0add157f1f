"""What a GPU changes: training throughput, accuracy against training on the processor, and ONNX Runtime's CUDA provider.

Three parts, each measurement in a process of its own. `throughput`: pictures a second of the bare training step on tensors that are already on the
device, and end to end (feed, augmentation and step), in float32, mixed bfloat16, with XLA and with both, on the GPU and on the processor. `accuracy`: the same seeds trained on both;
the difference of the means stands beside the standard deviation between the processor's seeds. `inference`: one network as float32 ONNX on both providers: logits,
latency of single pictures, pictures a second in batches of 64. Without a GPU nothing is measured and nothing written: one line, exit code 3.

Run: python benchmarks/gpu_study.py            (--help lists what can be made smaller; --device cpu --provider CPUExecutionProvider tries the program itself)
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import common
import numpy as np
import step_speed

from melanoma_edge import recipes

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
ARITHMETIC = ((None, False), ("bfloat16", False), (None, True), ("bfloat16", True))
"""(mixed precision, XLA)"""
BATCH = 64
FIGURES = ("balanced_accuracy", "macro_auc", "accuracy")


def main() -> None:
    asked = _arguments()
    if asked.part:
        return print(json.dumps({"throughput": _throughput, "convert": _convert, "inference": _inference}[asked.part](**json.loads(asked.facts))))
    if asked.device == "gpu" and not _child("import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"):
        print("not run: no GPU that TensorFlow can use", file=sys.stderr)
        raise SystemExit(3)
    if asked.results:
        common.RESULTS = asked.results
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = {"device": asked.device, "provider": asked.provider, "data": asked.data.name, "recipe": asked.recipe, "set": asked.set}
        figures["throughput"] = [
            _part("throughput", device=device, mixed_precision=mixed, xla=xla, data=str(asked.data), recipe=asked.recipe, overrides=asked.set, steps=asked.steps, rounds=asked.rounds)
            for device, ways in ((asked.device, ARITHMETIC), ("cpu", ARITHMETIC[:1]))
            for mixed, xla in ways
        ]
        runs = {side: [_train(asked, device, seed, folder / f"{side}-{seed}") for seed in range(asked.seeds)] for side, device in (("device", asked.device), ("cpu", "cpu"))}
        figures["accuracy"] = accuracy(runs["device"], runs["cpu"])
        _part("convert", run=str(folder / "cpu-0"), folder=name)
        figures["inference"] = inference(folder, asked.provider, asked.runs)
        common.write("gpu_study", figures, {"accuracy": "difference of the means within the spread of the processor's seeds", "inference": "logits within 1e-4 of their range"})


def accuracy(device: list[dict], cpu: list[dict]) -> dict:
    """Return, for each network and figure, both sides' values by seed, and whether their means differ by no more than the seeds do.

    Each of `device` and `cpu` is {network: {figure: value}}. The spread is the standard deviation between the processor's seeds; with one seed there is none, and no answer.
    """
    result: dict = {}
    for which in cpu[0]:
        for name in FIGURES:
            ours, theirs = ([run[which][name] for run in side] for side in (device, cpu))
            spread = statistics.stdev(theirs) if len(theirs) > 1 else None
            difference = statistics.fmean(ours) - statistics.fmean(theirs)
            within = None if spread is None else abs(difference) <= spread
            result.setdefault(which, {})[name] = {"device": ours, "cpu": theirs, "difference_of_means": difference, "sd_between_cpu_seeds": spread, "within": within}
    return result


def inference(folder: Path, provider: str, runs: int) -> dict:
    """Return what the provider and the processor take for the files in `folder`, and how far their logits differ."""
    both = {name: _part("inference", folder=str(folder), provider=name, runs=runs) for name in dict.fromkeys((provider, CPU))}
    if reason := both[provider].get("not run"):
        return {"not run": reason}
    ours, theirs = (np.load(folder / f"{name}.npy") for name in (provider, CPU))
    spread = float(theirs.max() - theirs.min())
    return {
        **both,
        "pictures": len(ours),
        "largest_difference_of_logits": float(np.abs(ours - theirs).max()),
        "range_of_logits": spread,
        "same_answers": int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum()),
    }


def _throughput(device: str, mixed_precision: str | None, xla: bool, data: str, recipe: str, overrides: list[str], steps: int, rounds: int) -> dict:
    """Train some steps on `device`, on one batch that is there already and from the feed, in turn."""
    from melanoma_edge.data import feed, mixing, policy
    from melanoma_edge.data.index import read_index
    from melanoma_edge.data.split import TRAIN, split
    from melanoma_edge.model.devices import arithmetic, open_devices
    from melanoma_edge.model.tensorflow import seed_everything

    asked = recipes.load(recipe, overrides)
    devices = open_devices(device).computing(asked, mixed_precision, xla)
    import tensorflow as tf

    from melanoma_edge.model import augment_ops, network
    from melanoma_edge.model.step import Phase, optimizer, step_seed, train_step

    index = read_index(Path(data), size=asked.image_size)
    selection = policy.select(index, asked)
    train = split(selection, asked) == TRAIN
    pictures = index.pixels.view(list(selection.positions)).view(train)
    labels = np.array([selection.classes.index(row.label) for row in selection.rows])[train]
    seed_everything(asked.seed)
    with devices.scope(), arithmetic(devices.computation):
        model = network.build(asked, len(selection.classes), rescale=True)
        teachers = step_speed.fresh_teachers(asked, len(selection.classes))
    phase, rows = Phase("float", asked.epochs, asked.learning_rate, asked.warmup_share), feed.rows_per_batch(labels, asked)
    made = optimizer(phase, asked, feed.steps_per_epoch(labels, asked), model.trainable_variables, devices)
    step = train_step(model, model.trainable_variables, made, asked, rows, None, devices, teachers)
    finish, mix = (augment_ops.apply, augment_ops.mix) if devices.computation.device == "gpu" else (None, None)
    made_of = partial(mixing.batches, pictures, labels, len(selection.classes), asked, finish=finish, apply=mix)
    batch, seed = tuple(map(tf.constant, next(made_of(0)))), step_seed(asked, phase, 0, 0)
    started = time.perf_counter()
    step(*batch, seed)
    compiled = time.perf_counter() - started
    alone, together = step_speed.measure(step, made_of, batch, seed, rows, steps, rounds)
    return {
        **devices.computation.model_dump(mode="json"),
        "batch_size": rows,
        "first_step_seconds": round(compiled, 2),
        "step_alone_images_per_second": round(statistics.median(alone), 1),
        "end_to_end_images_per_second": round(statistics.median(together), 1),
        "rounds": {"step_alone": [round(value, 1) for value in alone], "end_to_end": [round(value, 1) for value in together]},
    }


def _train(asked: argparse.Namespace, device: str, seed: int, out: Path) -> dict:
    """Train a run and return {network: {figure: value}} on its test part. A seed also deals out the folds, alike on both sides; so the spread holds that, too."""
    settings = [word for override in asked.set for word in ("--set", override)]
    command = [sys.executable, "-m", "melanoma_edge", "train", str(asked.data), "--recipe", asked.recipe, *settings, "--seed", str(seed), "--device", device, "--out", str(out), "--json", "-q"]
    evaluation = json.loads(_run(command))["evaluation"]
    return {which: {name: found["scores"][name]["value"] for name in FIGURES} for which, found in evaluation.items()}


def _convert(run: str, folder: str) -> dict:
    """Write a run's float network as float32 ONNX of batch 1 and of batch 64, and the pictures of its test part."""
    from melanoma_edge.data.index import read_index
    from melanoma_edge.data.split import TEST
    from melanoma_edge.model import run as runs
    from melanoma_edge.model.tensorflow import quiet, require

    require()
    import tensorflow as tf
    import tf2onnx

    opened = runs.open_run(Path(run))
    size = opened.recipe.image_size
    for batch in (1, BATCH):
        with quiet():
            tf2onnx.convert.from_keras(
                runs.load_keras(opened.path, "float", batch=batch),
                input_signature=[tf.TensorSpec((batch, size, size, 3), tf.float32, name="image")],
                opset=17,
                output_path=str(Path(folder, f"{batch}.onnx")),
            )
    index = read_index(Path(opened.facts.data), size=size)
    wanted = {row.path for row in opened.part(TEST)}
    np.save(Path(folder, "pictures.npy"), index.pixels.view([i for i, row in enumerate(index.rows) if row.path in wanted])[:])
    return {"written": folder}


def _inference(folder: str, provider: str, runs: int) -> dict:
    """Run both files on `provider`, write the logits, and return times; {"not run": reason} where it is not there."""
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        return {"not run": f"no CUDA: this onnxruntime {onnxruntime.__version__} has no {provider}"}
    if provider == CUDA:
        onnxruntime.preload_dlls()
    pictures = np.load(Path(folder, "pictures.npy")).astype(np.float32)
    times = {}
    for batch in (1, BATCH):
        options = [(CUDA, {"use_tf32": "0"}), CPU] if provider == CUDA else [provider]
        session = onnxruntime.InferenceSession(str(Path(folder, f"{batch}.onnx")), providers=options)
        if provider not in session.get_providers():
            return {"not run": f"no CUDA: onnxruntime {onnxruntime.__version__} fell back to {session.get_providers()[0]}, libraries or driver are missing"}
        [taken] = session.get_inputs()
        fed = np.resize(pictures, (batch, *pictures.shape[1:]))
        for _ in range(5):
            session.run(None, {taken.name: fed})
        times[batch] = []
        for _ in range(runs if batch == 1 else max(5, runs // 10)):
            started = time.perf_counter()
            session.run(None, {taken.name: fed})
            times[batch].append(time.perf_counter() - started)
        if batch == 1:
            np.save(Path(folder, f"{provider}.npy"), np.concatenate([session.run(None, {taken.name: picture[np.newaxis]})[0] for picture in pictures]))
    return {
        "latency_ms_median": round(statistics.median(times[1]) * 1000, 3),
        "latency_ms_p95": round(float(np.quantile(times[1], 0.95)) * 1000, 3),
        "batch_64_images_per_second": round(BATCH / statistics.median(times[BATCH]), 1),
        "copies": "pictures go to the device and logits come back within each timed run",
    }


def _part(part: str, **facts) -> dict:
    return json.loads(_run([sys.executable, str(Path(__file__).resolve()), "--part", part, "--facts", json.dumps(facts)]).splitlines()[-1])


def _child(code: str) -> int:
    return int(_run([sys.executable, "-c", code]).splitlines()[-1])


def _run(command: list[str]) -> str:
    """Return what a command prints; ends the study with its last words when it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:6])} ... ended with {done.returncode}: {done.stderr.strip()[-1000:]}")
    return done.stdout


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what a GPU changes; writes benchmarks/results/gpu_study.json.")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu", help="what to compare with the processor")
    parser.add_argument("--provider", default=CUDA, help="of ONNX Runtime, likewise")
    parser.add_argument("--data", type=Path, default=common.data_folder())
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the recipe")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40, help="timed steps a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=500, help="timed inferences of single pictures")
    parser.add_argument("--results", type=Path, help="folder to write into")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--facts", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
