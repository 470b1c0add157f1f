"""The whole job on drawn samples: what a new user runs first.

In: a folder. Out: samples, a run, a verified bundle, latency, predictions and a report below it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from melanoma_edge import recipes
from melanoma_edge.data.samples import write_samples
from melanoma_edge.files import new_folder
from melanoma_edge.model.train import train
from melanoma_edge.proof.export import export
from melanoma_edge.proof.latency import bench
from melanoma_edge.proof.latency_model import Latency
from melanoma_edge.proof.parity_model import Parity
from melanoma_edge.proof.predict import predict
from melanoma_edge.proof.report import report as write_report

PER_CLASS = 90
LICENCE = "CC0 1.0: trained on drawn samples only."


@dataclass(frozen=True)
class Demo:
    """What the demo made."""

    report: Path
    parity: Parity
    latency: Latency
    predictions: dict


def demo(
    out: Path,
    *,
    force: bool = False,
    command: str = "melanoma_edge.proof.demo.demo",
    report: Callable[[str, dict], None] = lambda event, facts: None,
    progress: Callable[[str], None] = lambda line: None,
) -> Demo:
    """Draw samples, train, export, verify, measure, predict and report, all below the new folder `out`.

    Raises BadInput when `out` exists (unless `force`). `report` gets training events, `progress` lines.
    """
    out = Path(out)
    with new_folder(out, force=force, mark="samples"):
        pass
    progress("drawing samples")
    write_samples(out / "samples", per_class=PER_CLASS)
    run = train(out / "samples", recipes.load("demo"), out / "run", command=command, report=report)
    parity = export(run.path, out / "demo.bundle", licence=LICENCE, command=command, progress=progress)
    progress("measuring latency")
    latency = bench(out / "demo.bundle", quick=True, progress=progress)
    tests = run.part("test")
    predictions = predict(out / "demo.bundle", [out / "samples" / row.path for row in tests[:: max(1, len(tests) // 5)][:5]])
    progress("drawing the report")
    path = write_report(out / "demo.bundle", command=command, progress=progress)
    return Demo(path, parity, latency, predictions)
