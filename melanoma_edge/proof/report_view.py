"""What each section of the report says: tables, cards and words, from a material.

In: a :class:`~melanoma_edge.proof.report_data.Material`. Out: plain values that the template lays out.
Figures keep the value that stands in their file; rounding is the template's.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from melanoma_edge.contract import Manifest
from melanoma_edge.convert.card import unparted_in_words
from melanoma_edge.data.policy import without_lesion_id
from melanoma_edge.data.split import PARTS, TRAIN, VALIDATION
from melanoma_edge.files import read_json
from melanoma_edge.model import run as runs
from melanoma_edge.proof.parity_model import Gate
from melanoma_edge.proof.report_data import Gap, Material, host_latency
from melanoma_edge.proof.report_scores import FIGURES, LOSSES, label_of, name_of_test
from melanoma_edge.runtimes.protocol import RUNTIMES

CARDS = {
    "balanced_accuracy": ("Balanced accuracy", 0.0, 1.0),
    "positive_sensitivity_at_90_specificity": ("Sensitivity for {positive} at 90 % specificity", 0.0, 1.0),
    "positive_auc": ("AUC of {positive}", 0.5, 1.0),
    "macro_auc": ("Macro AUC", 0.5, 1.0),
    "ece": ("Calibration error (ECE), these pictures' mix; lower is better", 0.0, 0.25),
}
"""Score: (label, lower and upper end of the card's scale)."""
OUTCOMES = {"failed": "✕", "inconclusive": "?", "passed": "✓", "not run": "–"}
GATE_FIGURES = {
    "max_difference": ("largest difference", "small"),
    "logit_range": ("range of the logits", "small"),
    "share_of_range": ("share of the range", "small"),
    "top1_agreement": ("same top class", "share"),
    "max_quanta": ("largest difference, quanta", "count"),
    "p99.9_quanta": ("99.9th percentile, quanta", "count"),
    "share_of_logits_off": ("logits that differ", "share"),
    "flips_beyond_margin": ("flips beyond the margin", "count"),
    "pictures_that_differ": ("pictures that differ", "count"),
    "pictures_not_finite": ("pictures with NaN or infinity", "count"),
    "in_integers": ("layers in integers", "count"),
    "in_float": ("layers in float", "count"),
    "transposes": ("transposes", "count"),
    "transposes_in_file": ("transposes in the file", "count"),
}
PHASES = {"float": "Float", "qat": "QAT"}
COUNTS = {
    "readable": "pictures read",
    "unreadable": "files that could not be read",
    "in_no_class_folder": "pictures in no class folder, passed over",
    "identical_groups": "groups of identical pictures",
    "conflicting_groups": "of these groups, under labels that contradict each other",
    "conflicts_dropped": "pictures dropped, because nothing decides between their labels",
    "relabelled_by_reference": "pictures moved to the class of their reference diagnosis",
    "duplicates_dropped": "identical copies dropped",
    "used": "pictures used",
    "used_groups": "lesions among them (with near copies joined; where the lesion is unknown, a picture counts as one)",
    "with_lesion_id": "pictures whose lesion is known",
    "groups_under_two_classes": "lesions or near copies that stand under two classes, kept together in one part",
}
MOST_ROWS = 500
"""Longer lists end with a count."""


def verdict(material: Material) -> dict[str, Any]:
    """Return the header's line about the gates, and those that failed or cannot tell."""
    if isinstance(material.parity, Gap):
        gap = material.parity
        return {"tone": "not run", "icon": OUTCOMES["not run"], "text": f"Gates: {gap.why}", "command": gap.command, "counts": {}, "open": []}
    counts = Counter(gate.outcome for gate in material.parity.gates)
    # A look at other runtimes alone says nothing of those that the artifacts are made for.
    partly = any(gate.outcome == "not run" and gate.runtime in RUNTIMES and RUNTIMES[gate.runtime].by_default and not RUNTIMES[gate.runtime].gpu for gate in material.parity.gates)
    tone = next((outcome for outcome in ("failed", "inconclusive") if counts[outcome]), "passed" if counts["passed"] and not partly else "not run")
    text = "Gates: " + ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "inconclusive", "not run"))
    troubled: dict[tuple[str, str, str], list[str]] = {}
    for gate in sorted(material.parity.gates, key=lambda gate: list(OUTCOMES).index(gate.outcome)):
        if gate.outcome in ("failed", "inconclusive"):
            troubled.setdefault((gate.outcome, gate.name, gate.reason or ""), []).append(f"{gate.artifact} in {gate.runtime}")
    return {"tone": tone, "icon": OUTCOMES[tone], "text": text, "command": None, "counts": {name: counts[name] for name in OUTCOMES}, "open": troubled}


def cards(material: Material) -> list[dict[str, Any]]:
    """Return the header's figures: the headline network with its interval, the float one beside it."""
    found = []
    for key, (label, low, high) in CARDS.items():
        if material.positive is None and "positive" in key:
            continue
        rows = [
            {"name": network.title, "interval": getattr(network.scores, key), "main": network is material.headline}
            for network in (material.headline, material.baseline)
            if network is not None and network.scores is not None
        ]
        kind, quoted = FIGURES[key][1], None
        if not material.tested and material.quoted is not None:
            quoted = getattr(material.quoted.of_phones().pooled, key)
        found.append({"key": key, "label": label_of(label, material), "kind": kind, "low": low, "high": high, "rows": rows, "quoted": quoted})
    return found


def facts(material: Material) -> list[dict[str, str]]:
    """Return the header's plain facts: size and speed of the headline artifact, or the network's own."""
    artifact, scores = material.headline.artifact, material.headline.scores
    tested = []
    if scores is not None:
        tested_classes = sum(count > 0 for count in scores.per_class.values())
        note = f"{scores.lesions:,} lesions, {tested_classes} classes"
        tested = [{"label": name_of_test(material), "value": f"{scores.pictures:,}", "unit": "pictures", "note": note}]
    elif not material.tested:
        tested = [{"label": "Test part", "value": "none", "unit": "", "note": "all pictures were used in training"}]
    if artifact is None:
        run = material.run.facts
        work = f"{run.multiply_accumulates / 1e6:,.1f} million multiplications a picture"
        return [
            {"label": "Network", "value": f"{run.parameters:,}", "unit": "weights", "note": work},
            {"label": "Host latency, p50", "value": "not measured", "unit": "", "note": "a run has no artifacts: export it first"},
            *tested,
        ]
    size = {"label": f"Size of {artifact.name}", "value": f"{artifact.bytes / 1000:,.0f}", "unit": "kB", "note": "; ".join(_float_size(material))}
    timed = host_latency(material, artifact)
    if timed is None:
        note = material.latency.command or material.latency.why if isinstance(material.latency, Gap) else "its runtime was not timed"
        return [size, {"label": "Host latency, p50", "value": "not measured", "unit": "", "note": note}, *tested]
    runtime, row = timed
    note = f"{runtime.name}, {runtime.threads} thread{'s' if runtime.threads > 1 else ''}; host, not phone"
    if not material.latency.comparable:
        note += "; not comparable: " + ("quick protocol" if material.latency.quick else "noisy")
    return [size, {"label": "Host latency, p50", "value": f"{row.p50_ms:.2f}", "unit": "ms", "note": note}, *tested]


def unseen(material: Material) -> str:
    """Return what is known of the pictures of the scores, to stand behind their number."""
    return "that training never saw" if material.recipe else "that this bundle was not fitted on; whether training saw them is not known"


def training(run: runs.Run) -> list[tuple[str, str]]:
    """Return what the training was, in words."""
    recipe, history = run.recipe, run.history()
    found = [("Network", f"{recipe.network}, {run.facts.parameters:,} weights, {run.facts.multiply_accumulates / 1e6:,.1f} million multiplications a picture")]
    for phase, seconds in run.facts.seconds.items():
        epochs = [row for row in history if row.phase == phase]
        rate = f", {np.median([row.images_per_second for row in epochs]):,.0f} pictures a second" if epochs else ""
        found.append((f"{PHASES.get(phase, phase.replace('-', ' ').capitalize())} phase", f"{len(epochs)} epochs in {seconds / 60:,.1f} min{rate}"))
    drawn = {
        "augmentor": f"{recipe.samples_per_class} of each class, drawn anew",
        "balanced": "each sample's class drawn evenly",
        "class_weight": "every picture once, weighted by its class",
        "none": "every picture once",
    }[recipe.rebalance]
    return [*found, ("An epoch", f"{drawn}; batches of {recipe.batch_size}"), ("Input", f"{recipe.image_size} × {recipe.image_size} pixels, RGB")]


def short_name(material: Material, gate: Gate) -> str:
    """Return the artifact of `gate` in short, with the runtime where it ran in several."""
    runtimes = {other.runtime for other in material.parity.gates if other.artifact == gate.artifact and other.outcome != "not run"}
    words = next((f"{network.title} {network.detail}" for network in material.networks if network.name == gate.artifact), gate.artifact)
    return f"{words}, {gate.runtime}" if len(runtimes) > 1 else words


def gate_groups(gates: tuple[Gate, ...]) -> list[dict[str, Any]]:
    """Return the gates in groups of one artifact in one runtime, in their own order."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for gate in gates:
        lines = [(*GATE_FIGURES.get(key, (key.removeprefix("operator "), "count" if isinstance(value, int) else "small")), value) for key, value in gate.figures.items() if value is not None]
        row = {"gate": gate, "icon": OUTCOMES[gate.outcome], "figures": lines, "losses": [(LOSSES.get(key, key), loss) for key, loss in gate.losses.items()]}
        key = ("All artifacts", "") if gate.artifact == "all" else (gate.artifact, gate.runtime)
        groups.setdefault(key, []).append(row)
    return [{"artifact": artifact, "runtime": runtime, "rows": rows} for (artifact, runtime), rows in groups.items()]


def layer_pairs(material: Material) -> list[dict[str, Any]]:
    """Return what the layers' comparison says of each pair of runtimes, in words, and its rows."""
    found = []
    for pair in material.layers.pairs:
        title = f"{pair.artifact} in {pair.runtime} against {pair.reference}"
        if pair.outcome != "compared":
            found.append({"pair": pair, "title": title, "tone": pair.outcome, "icon": OUTCOMES[pair.outcome], "words": pair.reason or ""})
            continue
        words = f"they part first at {pair.first_part}" if pair.first_part else "no value of any layer differs" if pair.unit == "quanta" else "float32 rounding only"
        suspects = "; ".join(f"suspect: {row.layer}: {row.suspect}" for row in pair.suspects)
        tone = "failed" if suspects else "passed"
        own = "; each layer alone is within its rounding" if pair.first_part else ""
        found.append({"pair": pair, "title": title, "tone": tone, "icon": OUTCOMES[tone], "words": f"{words}; {suspects}" if suspects else words + own})
    return found


def layer_lines(material: Material) -> tuple[list[str], list[tuple[str, list[tuple[float, float | None]], list[float]]]]:
    """Return (layers, (label, figures end to end, share off alone) of each int8 pair) for the plot."""
    pairs = [pair for pair in material.layers.pairs if pair.outcome == "compared" and pair.unit == "quanta"]
    names = list(dict.fromkeys(row.layer for pair in pairs for row in pair.rows))
    lines = []
    for pair in pairs:
        rows = {row.layer: row for row in pair.rows}
        known = [rows[name] for name in names if name in rows]
        if len(known) == len(names):
            label = f"{pair.runtime} – {'litert' if pair.reference.endswith('TFLite') else pair.reference}"
            lines.append((label, [(row.end_to_end.off, row.end_to_end.sqnr_db) for row in known], [row.alone.off for row in known]))
    return names, lines


def data(material: Material) -> dict[str, Any]:
    """Return what the data section says: counts of the policy, classes by part, what was left out."""
    if isinstance(material.run, Gap):
        manifest, known = material.bundle.manifest, material.bundle.manifest.data
        if known is None:
            return {"gap": material.run, "parts": _own_parts(manifest), "lesions": {}, "left_out_classes": {}, "unparted": None}
        said = unparted_in_words(known.classes_without_lesion_id) if known.classes_without_lesion_id else None
        return {"gap": material.run, "parts": known.pictures, "lesions": known.lesions, "left_out_classes": {name: None for name in known.left_out_classes}, "unparted": said}
    run = material.run
    held = read_json(run.path / runs.DATA_FILE, "what the data policy did")
    counts = held["counts"]
    parts = PARTS if material.tested else (TRAIN, VALIDATION)
    table, most = [], max(Counter(row.label for row in run.split).values(), default=1)
    for name in run.facts.classes:
        mine = [row for row in run.split if row.label == name]
        cells = [sum(row.part == part for row in mine) for part in parts]
        table.append({"name": name, "cells": cells, "total": len(mine), "lesions": len({row.group for row in mine}), "share": len(mine) / most})
    left_out, without = list(held["left_out"].items()), without_lesion_id((row.label, row.lesion) for row in run.split)
    return {
        "gap": None,
        "folder": run.facts.data.rstrip("/").rsplit("/", 1)[-1],
        "counts": [(COUNTS.get(key, key.replace("_", " ")), value) for key, value in counts.items() if isinstance(value, int)],
        "left_out_classes": counts.get("left_out_classes", {}),
        "unparted": unparted_in_words(without) if without else None,
        "min_lesions": run.recipe.min_lesions,
        "table": table,
        "parts": {part: len(run.part(part)) for part in parts},
        "lesions": {part: len({row.group for row in run.part(part)}) for part in parts},
        "left_out": left_out[:MOST_ROWS],
        "left_out_count": len(left_out),
        "unreadable": [tuple(bad) for bad in held["unreadable"][:MOST_ROWS]],
        "unreadable_count": len(held["unreadable"]),
    }


def _own_parts(manifest: Manifest) -> dict[str, int]:
    """Return how many pictures a bundle of origin `model` was made with, and for what."""
    calibrated = next((artifact.calibration.pictures for artifact in manifest.artifacts if artifact.calibration), None)
    found = {} if calibrated is None else {"calibration of int8": calibrated}
    return found | ({"fitting of decisions": manifest.fitting.pictures, "scores": manifest.fitting.held_back} if manifest.fitting else {})


def _float_size(material: Material) -> list[str]:
    baseline = material.baseline.artifact if material.baseline else None
    return [f"float32: {baseline.bytes / 1000:,.0f} kB"] if baseline else []
