"""Where the time goes for a user: `melanoma-edge predict` from JPEG files to decisions, against the bare runtime.

- One picture's way in a single process, step by step: read, decode, crop and resize, quality, inference, decision. Of each picture the
  median of some repetitions, and of those the median and the ninth decile over the pictures.
- The bare runtime: a loop of bind, invoke and read out over pictures that were decoded before, with 1 and 2 threads, in one process.
- `predict` with the threads and processes that it takes by default: on one picture and on many as a whole command, start-up and printing
  included, and without: in a fresh process, from the first tenth of the results to the last one. Rounds of all in turn.
- Peak resident memory of the command and its processes together (pages that they share count for each of them), at two numbers of pictures.

Target: without start-up, 0.8 times the pictures a second of the bare runtime with as many threads. Every core spends its time on one thing at a
time, so `most_possible` says what share these cores could reach at all if nothing but the steps before the decision took time.

Run: python benchmarks/predict_speed.py [--data FOLDER] [--bundle BUNDLE]; --quick shows in seconds that it works, and is not comparable
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import common
import numpy as np

TARGET = 0.8
THREADS = (1, 2)
STEPS = ("read", "decode", "crop_and_resize", "quality", "inference", "decision")


def main() -> None:
    asked = _arguments()
    if asked.part:
        return print(json.dumps(steady(asked.bundle, json.loads(sys.stdin.read()))))
    many, most, repetitions, rounds = (40, 80, 2, 1) if asked.quick else (1000, 10_000, 5, 5)
    from melanoma_edge.data.image import SUFFIXES

    found = sorted(file for file in asked.data.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not found:
        raise SystemExit(f"there are no pictures in {asked.data}: name their folder with --data")
    files = list(map(str, itertools.islice(itertools.cycle(found), most)))
    common.say("one picture's way")
    one = Way(asked.bundle)
    steps, inputs = one.steps(files[:many], repetitions)
    figures = {
        "pictures": many,
        "different_pictures": min(len(found), many),
        "model": one.model.name,
        "cores": len(os.sched_getaffinity(0)),
        "quick_and_not_comparable": asked.quick,
        "one_picture_ms": steps,
        **in_rounds(asked.bundle, one, inputs, files[:many], rounds),
    }
    # Decisions are made for many pictures together, in next to no time.
    before = sum(steps[step]["p50"] for step in ("read", "decode", "crop_and_resize", "quality")) / 1000
    figures["most_possible"] = round(figures["cores"] / (1 + before * figures["bare_images_per_second"]["1_threads"]), 2)
    common.say("memory")
    figures["peak_resident_mib"] = {count: common.timed(*command(asked.bundle, files[:count]))["peak_resident_mib"] for count in (many, most)}
    common.write("predict_speed", figures, {"ratio_to_bare": f">= {TARGET}"}, asked.results or (Path("runs") if asked.quick else None))


class Way:
    """One picture's way through a model in this process."""

    def __init__(self, bundle: Path) -> None:
        from melanoma_edge.proof.subject import open_subject

        self.model = open_subject(bundle)
        self.runtimes = {threads: self._loaded(threads) for threads in THREADS}

    def _loaded(self, threads: int):
        from melanoma_edge.runtimes import protocol

        runtime = protocol.create(self.model.runtime, {}, self.model.contract)
        protocol.load(runtime, self.model.model, threads)
        return runtime

    def steps(self, files: list[str], repetitions: int) -> tuple[dict, list[np.ndarray]]:
        """Return {step: {"p50", "p90"}} in milliseconds, and the network's inputs."""
        self._times(files[0])
        spent = np.empty((len(files), repetitions, len(STEPS)))
        inputs = []
        for number, file in enumerate(files):
            for repetition in range(repetitions):
                spent[number, repetition], pixels = self._times(file)
            inputs.append(pixels)
        each = np.median(spent, axis=1) * 1000
        return {step: {"p50": round(float(np.median(each[:, i])), 4), "p90": round(float(np.quantile(each[:, i], 0.9)), 4)} for i, step in enumerate(STEPS)}, inputs

    def _times(self, file: str) -> tuple[list[float], np.ndarray]:
        from melanoma_edge import calibration
        from melanoma_edge.data import image, quality

        model, runtime, path = self.model, self.runtimes[1], Path(file)
        positive = model.positive_class if model.decision.operating() else None
        ends = [time.perf_counter()]
        content = image.read(path)
        ends.append(time.perf_counter())
        picture = image.open_picture(path, content).image
        ends.append(time.perf_counter())
        pixels = image.square(picture, model.size)
        ends.append(time.perf_counter())
        quality.measure(picture)
        ends.append(time.perf_counter())
        runtime.prepare(pixels)
        runtime.invoke()
        outputs = np.array(runtime.output())[np.newaxis]
        ends.append(time.perf_counter())
        calibration.decide(calibration.as_logits(outputs, model.output), model.decision, model.classes, positive, model.training_priors, model.deployment_priors)
        ends.append(time.perf_counter())
        return [after - before for before, after in itertools.pairwise(ends)], pixels

    def bare(self, inputs: list[np.ndarray], threads: int) -> float:
        """Return pictures a second of the runtime alone."""
        runtime = self.runtimes[threads]
        started = time.perf_counter()
        for pixels in inputs:
            runtime.prepare(pixels)
            runtime.invoke()
            runtime.output()
        return len(inputs) / (time.perf_counter() - started)


def in_rounds(bundle: Path, one: Way, inputs: list[np.ndarray], files: list[str], rounds: int) -> dict:
    """Return pictures a second of the bare runtime and of the command, from rounds of all of them in turn."""
    bare, whole, alone, without = {threads: [] for threads in THREADS}, [], [], []
    for number in range(rounds):
        common.say(f"round {number + 1} of {rounds}")
        for threads, values in bare.items():
            values.append(one.bare(inputs, threads))
        whole.append(seconds(command(bundle, files)))
        alone.append(seconds(command(bundle, files[:1])))
        words = [sys.executable, str(Path(__file__).resolve()), "--part", "--bundle", str(bundle)]
        without.append(json.loads(subprocess.run(words, input=json.dumps(files), stdout=subprocess.PIPE, text=True, check=True).stdout))
    ratios = [found["images_per_second"] / value for found, value in zip(without, bare[1])]
    ratio = statistics.median(ratios)
    return {
        "bare_images_per_second": {f"{threads}_threads": round(statistics.median(values), 1) for threads, values in bare.items()},
        "predict_threads": 1,
        "predict_processes": without[0]["processes"],
        "predict_images_per_second_without_start_up": round(statistics.median(found["images_per_second"] for found in without), 1),
        "predict_images_per_second_whole_command": round(len(files) / statistics.median(whole), 1),
        "predict_many_seconds": round(statistics.median(whole), 3),
        "predict_one_picture_seconds": round(statistics.median(alone), 3),
        "first_result_seconds": round(statistics.median(found["first_result_seconds"] for found in without), 3),
        "ratio_to_bare": round(ratio, 3),
        "ratio_to_bare_rounds": [round(value, 3) for value in ratios],
        "ratio_to_bare_of_2_threads": round(statistics.median(found["images_per_second"] / value for found, value in zip(without, bare[2])), 3),
        "target": "reached" if ratio >= TARGET else "missed",
    }


def steady(bundle: Path, files: list[str]) -> dict:
    """Predict in this process; return pictures a second from the first tenth on, and when the first result came."""
    started = time.perf_counter()
    from melanoma_edge.proof.predict import predictions
    from melanoma_edge.runtimes import stream

    with predictions(bundle, list(map(Path, files))) as (_, results):
        came = [time.perf_counter() for _ in results]
    tenth = len(came) // 10
    return {
        "processes": stream.processes_for(len(files)),
        "first_result_seconds": came[0] - started,
        "images_per_second": (len(came) - 1 - tenth) / (came[-1] - came[tenth]),
    }


def command(bundle: Path, files: list[str]) -> list[str]:
    return [sys.executable, "-m", "melanoma_edge", "predict", str(bundle), "--json", "--", *files]


def seconds(words: list[str]) -> float:
    """Return how long a command takes, from its start to its end."""
    started = time.perf_counter()
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure where the time of `predict` goes; writes benchmarks/results/predict_speed.json.")
    parser.add_argument("--data", type=Path, default=common.data_folder(), help="folder of pictures")
    parser.add_argument("--bundle", type=Path, default=Path("reference"))
    parser.add_argument("--quick", action="store_true", help="few pictures, and the file in runs/: shows that the program works")
    parser.add_argument("--results", type=Path, help="folder to write into")
    parser.add_argument("--part", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
