"""What every benchmark program shares: where results go, and the conditions that stand beside them."""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import queue
import shlex
import statistics
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import psutil

from melanoma_edge import environments, host
from melanoma_edge.errors import BadInput, Error, ProofFailed
from melanoma_edge.files import read_json, write_bytes, write_json

RESULTS = Path(__file__).parent / "results"
AUGMENTOR = ("Augmentor==0.2.12", "numpy==2.4.6", "pillow==13.0.0", "tqdm==4.70.1")


def data_folder() -> Path:
    """Return the folder of the nine-class ISIC set: MELANOMA_EDGE_ISIC9, else ../shared/data/isic9."""
    default = Path(__file__).parents[1] / ".." / "shared" / "data" / "isic9"
    return Path(os.environ.get("MELANOMA_EDGE_ISIC9", default)).resolve()


def augmentor() -> Path:
    """Return the Python of Augmentor's own environment, which is made the first time."""
    return environments.install("augmentor", AUGMENTOR, progress=lambda line: print(line, file=sys.stderr))


def write(name: str, figures: dict, targets: dict | None = None, folder: Path | None = None) -> Path:
    """Write NAME.json into `folder`, by default benchmarks/results: figures, targets, command, date and conditions."""
    folder = folder or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    facts = {
        "benchmark": name,
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *map(anywhere, sys.argv[1:])]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "figures": figures,
        "targets": targets or {},
        "load_average": list(host.load_average()),
        "conditions": host.conditions(),
    }
    write_json(path, facts)
    print(f"{path}:")
    for key, value in figures.items():
        print(f"  {key}: {textwrap.shorten(str(value), 160)}")
    return path


def anywhere(word: str) -> str:
    """Return a word of a command without what is one machine's own: paths of this checkout from there, the last name alone of other absolute ones."""
    path = Path(word)
    if not path.is_absolute():
        return word
    checkout = Path(__file__).parents[1].resolve()
    return str(path.relative_to(checkout)) if path.is_relative_to(checkout) else path.name


def study_options(parser: argparse.ArgumentParser, name: str, quick: str = "a few runs, to see that everything works; says nothing, and stays out of results/") -> None:
    """Add the options of :func:`study`."""
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--results", type=Path, help=f"the folder of {name}.json (default: benchmarks/results, with --quick runs/{name}-quick)")
    parser.add_argument("--plot", type=Path, help=f"where the plot goes (default: docs/{name}.png, beside the results where these go elsewhere)")
    parser.add_argument("--markdown", action="store_true", help=f"measure nothing: print the tables of {name}.json in the folder of results")


def require_folder(results: Path) -> None:
    """Raise BadInput, before anything is measured, where the folder of results cannot be one."""
    if results.exists() and not results.is_dir():
        raise BadInput(f"{results} is a file: name a folder with --results")


def study(name: str, asked: argparse.Namespace, measure: Callable[[], dict], shown: ModuleType, targets: dict) -> None:
    """Measure, write NAME.json, show the figures and draw them; with --markdown only print the tables of the figures that there are.

    `shown` is a module with `show`, `markdown` and `plot`, each of the figures, which hold `not_comparable_because`.
    """
    results = asked.results or (Path("runs") / f"{name}-quick" if asked.quick else RESULTS)
    if asked.markdown:
        print(shown.markdown(read_json(results / f"{name}.json", f"what benchmarks/{name}.py writes")["figures"]))
        return
    require_folder(results)
    figures = measure()
    shown.show(figures)
    with contextlib.redirect_stdout(sys.stderr):
        write(name, figures, targets, folder=results)
    plot = asked.plot or (RESULTS.parents[1] / "docs" if results == RESULTS else results) / f"{name}.png"
    write_bytes(plot, shown.plot(figures))
    say(f"{plot}: the plot")
    if figures["not_comparable_because"]:
        say(f"not comparable: {figures['not_comparable_because']}")


def timed(*command: str, runs: int = 1, warmup: int = 0) -> dict:
    """Run a command `runs` times as a whole process and return its wall times and peak memory (with children)."""
    seconds, peaks = [], []
    for number in range(warmup + runs):
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        peak = _watch(process)
        error = process.stderr.read()
        if process.returncode not in (0, 1):  # 1: a gate failed, which is a result too
            raise SystemExit(f"{shlex.join(command)} ended with {process.returncode}: {error.strip()[-500:]}")
        if number >= warmup:
            seconds.append(time.perf_counter() - started)
            peaks.append(peak)
    return {
        "seconds_median": round(statistics.median(seconds), 3),
        "seconds_all": [round(value, 3) for value in seconds],
        "peak_resident_mib": round(max(peaks) / 2**20, 1),
        "exit_code": process.returncode,
    }


def say(line: str) -> None:
    """Print a line of progress; figures go to standard output, these do not."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def in_lanes(commands: dict[str, list[str]], lanes: int) -> None:
    """Run `commands` {name: words}, `lanes` at a time, each on one core of its own; raises BadInput when one failed, after the others."""
    waiting: queue.Queue = queue.Queue()
    for one in commands.items():
        waiting.put(one)
    cores = sorted(os.sched_getaffinity(0))
    failed, stopped = [], threading.Event()

    def lane(number: int) -> None:
        while not stopped.is_set():
            try:
                name, command = waiting.get_nowait()
            except queue.Empty:
                return
            process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
            os.sched_setaffinity(process.pid, {cores[number % len(cores)]})
            if process.wait():
                failed.append(name)

    threads = [threading.Thread(target=lane, args=(number,)) for number in range(lanes)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        stopped.set()
    if failed:
        raise BadInput(f"{len(failed)} of {len(commands)} failed ({', '.join(failed)}): see above; the same command goes on with them")


def apart(function: Callable, *arguments):
    """Return what `function`, of a module of this folder, returns for `arguments` in a process of its own, whose memory goes with it; raises ProofFailed where that crashes."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            raise ProofFailed(f"the process of {function.__name__} crashed: see its last words above; it may have run out of memory") from None


def run(name: str, main: Callable[[], None], *, kept: bool = False) -> None:
    """Run the program `name`: one line and an exit code where something is wrong, or it is interrupted; `kept` says that what was done is not done again."""
    try:
        main()
    except Error as error:
        print(f"{name}: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command {'goes on' if kept else 'begins anew'}", file=sys.stderr)
        raise SystemExit(130) from None


def _watch(process: subprocess.Popen) -> int:
    """Wait for a process and return the largest resident memory of it and its children, in bytes."""
    peak = 0
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            peak = max(peak, sum(part.memory_info().rss for part in [watched, *watched.children(recursive=True)]))
        except psutil.Error:
            pass
        time.sleep(0.02)
    return peak
