"""The report: one HTML file that shows what a run or a bundle is worth, with nothing outside of it.

In: a run or a bundle. Out: RUN/report.html or BUNDLE/evidence/report.html. Styles stand in the page and
pictures are data: URIs; the page runs no script and asks no network for anything. The same files give
the same page.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from melanoma_edge import NOTICE, __version__
from melanoma_edge.contract import CrossValidation, Interval
from melanoma_edge.convert.bundle import EVIDENCE
from melanoma_edge.convert.reference import to_read, to_write
from melanoma_edge.data import image
from melanoma_edge.errors import BadInput
from melanoma_edge.files import explained, refuse_existing, write_text
from melanoma_edge.model import run as runs
from melanoma_edge.proof import examples, gates, page, report_conditions, report_data, report_devices, report_scores, report_view, thumbnails
from melanoma_edge.proof.predict import DOMAIN, UNKNOWN_DOMAIN
from melanoma_edge.proof.report_data import Gap, Material, TestPart
from melanoma_edge.proof.subject import RUNTIME_OF

REPORT_FILE = "report.html"
SHEET_WIDTH = 1100
"""Of the augmented batch, in pixels."""

Progress = Callable[[str], None]


def report(
    subject: Path, *, out: Path | None = None, force: bool = False, command: str = "melanoma_edge.proof.report.report", progress: Progress = lambda line: None
) -> Path:
    """Write the report on the run or bundle `subject` and return its path.

    It goes to RUN/report.html or BUNDLE/evidence/report.html, or to `out`; what was there stays whole until
    the new page is. Raises BadInput for a subject that is neither, or altered, for an `out` in no folder, and
    for one that exists, unless `force`.
    """
    progress("reading")
    material = report_data.gather(to_write(subject) if out is None else to_read(subject))
    file = _target(material, out, force)
    test = material.test_part()
    view = dict(
        title=material.name,
        kind="bundle" if material.bundle else "run",
        notice=NOTICE,
        domain=UNKNOWN_DOMAIN if material.recipe is None else DOMAIN,
        version=__version__,
        material=material,
        test=test,
        training=[] if isinstance(material.run, Gap) else report_view.training(material.run),
        mixups=[] if isinstance(test, Gap) else report_scores.mixups(test.confusion(), test.classes),
        verdict=report_view.verdict(material),
        cards=report_view.cards(material),
        facts=report_view.facts(material),
        unseen=report_view.unseen(material),
        table=report_scores.score_table(material),
        quantized=report_scores.quantized(material),
        crossed=report_scores.cross_validation(material),
        plots=_plots(material, test, progress),
        augmented=_augmented(material),
        examples=None if isinstance(test, Gap) else examples.gather(material.run, test, progress),
        layer_pairs=() if isinstance(material.layers, Gap) else report_view.layer_pairs(material),
        thumbnails="" if isinstance(material.parity, Gap) else thumbnails.read(material.path / EVIDENCE, material.parity),
        gate_groups=() if isinstance(material.parity, Gap) else report_view.gate_groups(material.parity.gates),
        devices=[(device, report_devices.facts(device)) for device in material.devices],
        data=report_view.data(material),
        conditions=report_conditions.conditions(material, command),
    )
    content = page.render("report.html.j2", view, tests={"gap": lambda value: isinstance(value, Gap)})
    progress("writing")
    with explained(file):
        if out is None:
            file.parent.mkdir(exist_ok=True)
        write_text(file, content)
    return file


def _quoted_plot(add, quoted: CrossValidation) -> None:
    """Add the plot of the recalls by cross-validation: of the artifact for phones, and of its float twin."""
    from melanoma_edge.proof import plots

    first = quoted.of_phones()
    both = [first, *(one for one in quoted.artifacts if one.precision == "float32" and one.format == first.format and one is not first)]
    words = ", ".join(f"{name} {recall.value:.1%}" for name, recall in first.pooled.recall.items() if recall.value is not None)
    series = [(one.name, one.pooled.recall) for one in both]
    add("cross-validation", f"Recall of each class by cross-validation, with its 95 % interval; {first.name}: {words}", plots.recall_dots, quoted.classes, quoted.positive_class, series)


def _layers_plot(add, material: Material) -> None:
    """Add the plot of the layers, where int8 was compared."""
    from melanoma_edge.proof import plots_layers

    names, lines = report_view.layer_lines(material)
    if lines:
        words = [f"{label}: {'no value differs' if not any(off for off, _ in whole) else f'{whole[-1][0]:.1%} of the logits differ'}" for label, whole, _ in lines]
        add("layers", f"Share of values that differ, and signal to difference, over {len(names)} layers; {'; '.join(words)}", plots_layers.layers, names, lines)


def _target(material: Material, out: Path | None, force: bool) -> Path:
    """Return where the page goes; raises BadInput where there is no such folder, or a file that is not to be replaced."""
    if out is None:
        return material.path / EVIDENCE / REPORT_FILE if material.bundle else material.path / REPORT_FILE
    out = Path(out)
    if not out.parent.is_dir():
        raise BadInput(f"the folder {out.parent} does not exist: make it, or give another --out")
    refuse_existing(out, force=force)
    return out


def _plots(material: Material, test: TestPart | Gap, progress: Progress) -> dict[str, page.Plot]:
    """Return every plot that the material has figures for, by name."""
    from melanoma_edge.proof import plots

    found: dict[str, page.Plot] = {}

    def add(name: str, alt: str, draw, *figures) -> None:
        progress(f"drawing {name}")
        found[name] = page.plot(alt, draw, *figures)

    classes, positive = material.classes, material.positive
    scored = [network for network in (material.headline, material.baseline) if network is not None and network.scores is not None]
    if scored:
        series = [(f"{network.title} {network.detail}", network.scores.recall) for network in scored]
        add("recall", f"Recall of each class with its 95 % interval; {_recall_words(scored[0])}", plots.recall_dots, classes, positive, series)
    if material.quoted is not None:
        _quoted_plot(add, material.quoted)
    compared = report_scores.quantized(material)
    if compared is not None:
        words = "; ".join(f"{label}: {', '.join(report_scores.changes(one.losses))}" for label, one in compared["comparisons"])
        series = [(label, one.losses) for label, one in compared["comparisons"]]
        add("quantized", f"Change in points on the test part: {words}", plots.comparisons, series, report_scores.LOSSES)
    if not isinstance(material.run, Gap):
        history = [row for row in material.run.history() if row.phase in ("float", "qat")]  # not those of teachers
        if history:
            last = history[-1]
            alt = f"Loss and validation balanced accuracy over {len(history)} epochs, ending at {last.validation_balanced_accuracy:.1%}"
            add("training", alt, plots.training_curves, history)
    if not isinstance(test, Gap):
        _test_plots(add, plots, test)
    if not isinstance(material.parity, Gap):
        _parity_plots(add, plots, material)
    if not isinstance(material.layers, Gap):
        _layers_plot(add, material)
    if not isinstance(material.samples, Gap):
        short = {network.name: f"{network.title} {network.detail}" for network in material.networks}
        several = len({threads for _, threads, _ in material.samples}) > 1
        where = lambda runtime, threads: runtime if not several else f"{'' if runtime in RUNTIME_OF.values() else runtime + ' '}{threads} thread{'s' * (threads > 1)}"
        rows = [(f"{short.get(name, name)}, {where(runtime, threads)}", times) for runtime, threads, artifacts in material.samples for name, times in artifacts.items()]
        timed = report_data.host_latency(material, material.headline.artifact)
        headline = f"{short[material.headline.name]}, {where(timed[0].name, timed[0].threads)}" if timed else None
        words = "; ".join(f"{label} median {np.median(times):.2f} ms" for label, times in rows)
        if rows:
            add("latency", f"Distribution of the timed runs: {words}", plots.latency, rows, headline)
    return found


def _test_plots(add, plots, test: TestPart) -> None:
    """Add the plots of the test part."""
    curves = test.roc()
    areas = ", ".join(f"{name} {area:.3f}" for name, _, _, area in curves)
    add("roc", f"ROC curve of each class against the rest; areas: {areas}", plots.roc, curves, test.positive)
    words = f"calibration error {test.ece(before=True):.3f} before the temperature was fitted, {test.ece():.3f} after"
    add("reliability", f"Reliability diagram; {words}", plots.reliability, test.reliability(), test.reliability(before=True))
    coverage, risk = test.answering()
    words = "none is answered" if risk is None else f"{coverage:.1%} are answered, {risk:.1%} of them wrong"
    method = test.decision.abstention.method
    add("coverage", f"Share of wrong answers over the share of pictures answered, by {method}: {words}", plots.coverage_risk, test.coverage_risk(), method, (coverage, risk))
    threshold = test.decision.operating()
    if test.positive is not None and threshold is not None:
        column = test.probabilities[:, test.classes.index(test.positive)]
        called = [column[test.labels == index] >= threshold.probability for index in range(len(test.classes))]
        reach = ", ".join(f"{name} {mine.sum()} of {len(mine)}" for name, mine in zip(test.classes, called))
        alt = f"Probability of {test.positive} of each picture by true class; pictures that reach the threshold {threshold.probability:.3g}: {reach}"
        add("distribution", alt, plots.positive_by_truth, column, test.labels, test.classes, test.positive, threshold.probability)


def _parity_plots(add, plots, material: Material) -> None:
    """Add the plots of the gates: differences to the references, and what int8 loses on the task."""
    done = [(report_view.short_name(material, gate), gate) for gate in material.parity.gates if gate.outcome != "not run"]
    ranges = [
        (label, gate.figures["share_of_range"], gates.FLOAT_TOLERANCE if gate.name == "float32" else None)
        for label, gate in done
        if gate.name in ("float32", "float16", "dynamic") and gate.figures.get("share_of_range") is not None
    ]
    quanta = [
        (label, gate.figures["max_quanta"], gate.figures.get("p99.9_quanta"), gates.INT8_P999 if gate.name == "int8" else gates.ONNX_QUANTA)
        for label, gate in done
        if gate.name in ("int8", "int8-onnx") and gate.figures.get("max_quanta") is not None
    ]
    if ranges or quanta:
        words = [f"{label} {value:.1e} of the range" for label, value, _ in ranges] + [f"{label} {largest:g} quanta" for label, largest, _, _ in quanta]
        add("differences", f"Largest difference to the reference: {'; '.join(words)}", plots.differences, ranges, quanta)
    tasks = [(label, gate) for label, gate in done if gate.name == "task"]
    if tasks:
        label, first = tasks[0]
        words = report_scores.changes(first.losses)
        moved = [f"{name} {change * 100:+.1f}" for name, change in first.recall_change.items() if change is not None]
        alt = f"Change of {label} against float32, in points: {', '.join(words)}. Recall: {', '.join(moved)}"
        losses = [(name, gate.losses) for name, gate in tasks]
        changes = [(name, gate.recall_change) for name, gate in tasks]
        add("task", alt, plots.task, losses, report_scores.LOSSES, gates.TASK_LOSS, changes, material.classes, material.positive)


def _augmented(material: Material) -> str | Gap:
    """Return the run's augmented batch as a data: URI."""
    if isinstance(material.run, Gap):
        return material.run
    try:
        pixels = image.decode(material.run.path / runs.AUGMENTED_FILE)
    except image.UnreadableImage:
        return Gap(f"not shown: {runs.AUGMENTED_FILE} of the run is not here or not a picture")
    return page.shown(pixels, SHEET_WIDTH)


def _recall_words(network) -> str:
    known: dict[str, Interval] = {name: recall for name, recall in network.scores.recall.items() if recall.value is not None}
    return f"{network.title}: " + ", ".join(f"{name} {recall.value:.1%}" for name, recall in known.items())
