"""The whole job on one fold of the nine-class ISIC set, latency included: leak-free figures with intervals.

Trains the default recipe (or takes a complete or interrupted run), exports it, evaluates every artifact on
the run's test part and measures latency. Pictures stay where they are; only figures are written.

Run: python benchmarks/isic9.py [RUN]       (default: runs/isic9, trained if it is not there)
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import common

from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.files import read_json
from melanoma_edge.model.run import DATA_FILE, EVALUATION_FILE, RUN_FILE, open_run


def main(run: Path) -> None:
    data = common.data_folder()
    if not (run / RUN_FILE).is_file():
        _tool("train", str(data), "--out", str(run))
    elif open_run(run, complete=False).facts.state != "complete":
        _tool("train", "--resume", "--out", str(run))
    bundle = Path("bundles") / f"{run.name}.bundle"
    _tool("export", str(run), "--out", str(bundle), "--force", codes=(0, 1))
    _tool("bench", str(bundle))
    _tool("report", str(bundle))
    opened, sealed = open_run(run), open_bundle(bundle)
    evaluated = {
        artifact.name: json.loads(_tool("evaluate", str(bundle), "--data", str(data), "--artifact", artifact.name, "--json"))
        for artifact in sealed.manifest.artifacts
    }
    parity = read_json(bundle / "evidence" / "parity.json", "parity")
    latency = read_json(bundle / "evidence" / "latency.json", "latency")["host"]
    common.write(
        "isic9",
        {
            "recipe": opened.recipe.model_dump(mode="json"),
            "train_command": shlex.join(map(common.anywhere, shlex.split(opened.facts.command))),
            "data_sha256": opened.facts.data_sha256,
            "data": read_json(opened.path / DATA_FILE, "data")["counts"],
            "parts": sealed.manifest.data.pictures,
            "lesions": sealed.manifest.data.lesions,
            "parameters": opened.facts.parameters,
            "multiply_accumulates": opened.facts.multiply_accumulates,
            "seconds": opened.facts.seconds,
            "peak_memory_bytes": opened.facts.peak_memory_bytes,
            "keras": read_json(opened.path / EVALUATION_FILE, "evaluation"),
            "bytes": {artifact.name: artifact.bytes for artifact in sealed.manifest.artifacts},
            "artifacts": {name: {key: result[key] for key in ("scores", "confusion", "pictures", "leak_free")} for name, result in evaluated.items()},
            "gates": [{key: gate[key] for key in ("name", "artifact", "runtime", "reference", "outcome", "reason", "pictures", "figures", "losses", "flip_count")} for gate in parity["gates"]],
            "latency": [
                {"runtime": runtime["name"], **{key: row[key] for key in ("name", "p50_ms", "p90_ms", "p99_ms", "first_ms", "load_ms", "verdict", "p50_ratio_to_float32")}}
                for runtime in latency["runtimes"]
                for row in runtime["artifacts"]
            ],
        },
    )


def _tool(*arguments: str, codes: tuple[int, ...] = (0,)) -> str:
    """Run melanoma-edge with its progress shown, and return what it prints."""
    done = subprocess.run([sys.executable, "-m", "melanoma_edge", *arguments], stdout=subprocess.PIPE, text=True)
    if done.returncode not in codes:
        raise SystemExit(f"melanoma-edge {' '.join(arguments)} ended with {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs") / "isic9")
