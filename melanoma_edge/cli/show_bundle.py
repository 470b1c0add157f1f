"""What stands in a bundle and what it says: artifacts, gates, latency, answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from melanoma_edge import NOTICE
from melanoma_edge.cli.show_figures import interval_text, threshold_text

if TYPE_CHECKING:
    from melanoma_edge.cli.show import Screen

FEW_TO_CALIBRATE = 100
"""Below so many pictures, ranges measured on them are told to be doubtful."""
OUTCOME_STYLE = {"passed": "green", "failed": "bold red", "inconclusive": "yellow", "not run": "dim"}
OUTCOME_SIGN = {"passed": "✓", "failed": "✗", "inconclusive": "?", "not run": "-"}


def show_bundle(screen: Screen, path: Path, as_json: bool) -> None:
    """Print what stands in a bundle."""
    if as_json:
        return
    from melanoma_edge.convert.bundle import open_bundle

    bundle = open_bundle(path)
    held_back = "test part" if bundle.manifest.origin == "run" else "pictures held back"
    table = Table("artifact", "kB", f"balanced accuracy ({held_back})", "temperature", title=f"bundle {escape(str(path))}", title_justify="left")
    for artifact in bundle.manifest.artifacts:
        figure = interval_text(artifact.scores.balanced_accuracy.model_dump()) if artifact.scores else "-"
        table.add_row(escape(artifact.name), f"{artifact.bytes / 1000:.0f}", figure, f"{artifact.decision.temperature:.2f}")
        if artifact.probabilities is not None:
            table.add_row(escape(artifact.probabilities.name), f"{artifact.probabilities.bytes / 1000:.0f}", "the same", "in the graph")
    for package in bundle.manifest.coreml:
        table.add_row(escape(package.name), f"{package.bytes / 1000:.0f}", "not run here", "in the graph")
    screen.out.print(table)
    if bundle.manifest.origin == "run" and not bundle.manifest.tested:
        screen.out.print("no test part: the run trained on all pictures, so this bundle has no figures of its own on unseen ones", style="yellow")
    quoted = bundle.manifest.cross_validation
    if quoted is not None:
        said = ", ".join(f"{one.name} {interval_text(one.pooled.balanced_accuracy.model_dump())}" for one in quoted.artifacts)
        screen.out.print(f"by cross-validation, {len(quoted.folds)} models of the same recipe on {quoted.pictures} pictures: balanced accuracy {said}")
    for line in _warnings(bundle.manifest):
        screen.out.print(escape(line), style="yellow")
    screen.out.print(NOTICE)


def show_parity(screen: Screen, parity, as_json: bool) -> None:
    """Print the gates."""
    if as_json:
        return screen.json(parity.model_dump(mode="json"))
    table = Table("outcome", "gate", "artifact", "runtime", "against", "found", "pictures", title="gates", title_justify="left")
    for gate in parity.gates:
        if gate.outcome != "not run":
            style = OUTCOME_STYLE[gate.outcome]
            sign = f"[{style}]{OUTCOME_SIGN[gate.outcome]} {gate.outcome}[/]"
            table.add_row(sign, gate.name, escape(gate.artifact), gate.runtime, escape(gate.reference), escape(_found(gate)), str(gate.pictures))
    screen.out.print(table)
    for gate in parity.gates:
        if gate.reason and (gate.outcome != "passed" or screen.verbose):
            where = f"{gate.name}, {escape(gate.artifact)}" + (f" on {gate.runtime}" if gate.runtime != gate.name else "")
            screen.out.print(f"{OUTCOME_SIGN[gate.outcome]} {gate.outcome}: {where}: {escape(gate.reason)}", style=OUTCOME_STYLE[gate.outcome])
    for gate in parity.gates:
        if gate.recall_change:
            changes = ", ".join(f"{name} {change:+.3f}" for name, change in gate.recall_change.items() if change is not None)
            screen.out.print(f"recall change of {escape(gate.artifact)} on {gate.runtime}: {escape(changes)}")
    _flips(screen, parity)
    show_gates(screen, parity)
    if parity.labelled:
        screen.out.print("labelled pictures: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in parity.labelled.items()))


def show_gates(screen: Screen, parity) -> None:
    """Print how many gates came to what."""
    count = {outcome: sum(gate.outcome == outcome for gate in parity.gates) for outcome in OUTCOME_STYLE}
    screen.out.print("gates: " + ", ".join(f"{n} {outcome}" for outcome, n in count.items()) + f"; {parity.pictures} pictures ({escape(parity.data)})")


def _flips(screen: Screen, parity) -> None:
    """Print the pictures on which the first class changed: some of them, all with -v."""
    for gate in parity.gates:
        if gate.flip_count and gate.name != "task":
            shown = gate.flips if screen.verbose else gate.flips[:3]
            screen.out.print(f"{gate.flip_count} flips of {escape(gate.artifact)} on {gate.runtime} against {escape(gate.reference)}:")
            for flip in shown:
                screen.out.print(f"  {escape(flip.picture)}: {escape(flip.reference)} -> {escape(flip.candidate)} (margin {flip.margin:.3g})")
            if len(shown) < gate.flip_count:
                screen.out.print(f"  ... {gate.flip_count - len(shown)} more in evidence/parity.json", style="dim")


def show_predictions(screen: Screen, result: dict, as_json: bool) -> None:
    """Print what the model says about pictures."""
    if as_json:
        return screen.json(result)
    for row in result["results"]:
        screen.out.print(f"[bold]{escape(row['picture'])}[/]")
        if "error" in row:
            screen.out.print(f"  {escape(row['error'])}", style="red")
            continue
        for name, probability in row["probabilities"].items():
            screen.out.print(f"  {probability:6.1%}  {'█' * round(probability * 30):<30} {escape(name)}")
        if row["positive"] is not None:
            screen.out.print(f"  {escape(result['positive_class'])}: {'above' if row['positive'] else 'below'} its threshold")
        if row["abstains"]:
            low = result["abstention"]["method"] == "confidence"
            screen.out.print(f"  the model abstains: its {'confidence is too low' if low else 'energy is too high'}", style="yellow")
        for warning in row["quality"]["warnings"]:
            screen.out.print(f"  picture {warning}", style="yellow")
    if result["threshold"] is not None and any(row.get("positive") is not None for row in result["results"]):
        screen.out.print(f"threshold of {escape(result['positive_class'])}: {threshold_text(result['threshold'])}", style="dim")
    screen.out.print(f"{result['notice']} {result['domain']}", style="dim")


def _warnings(manifest) -> list[str]:
    """Return what should give its maker pause about a bundle's calibration and fitting."""
    found = []
    calibrated = next((artifact.calibration for artifact in manifest.artifacts if artifact.calibration), None)
    if calibrated is not None:
        absent = [name for name in manifest.classes if not calibrated.per_class.get(name)] if calibrated.per_class else []
        if calibrated.pictures < FEW_TO_CALIBRATE:
            found.append(f"int8-ptq was calibrated on {calibrated.pictures} pictures only: ranges may be too narrow; give {FEW_TO_CALIBRATE} or more with --calibrate")
        if absent:
            found.append(f"no picture to calibrate on is of {', '.join(absent)}: its activations may be cut off")
    if manifest.fitting is not None and (absent := [name for name in manifest.classes if not manifest.fitting.per_class.get(name)]):
        found.append(f"no labelled picture is of {', '.join(absent)}: figures and decisions leave it out")
    return found


def _found(gate) -> str:
    """Return a gate's main figure in words."""
    figures = gate.figures
    if "max_quanta" in figures:
        return f"max {figures['max_quanta']} quanta, {figures['share_of_logits_off']:.1%} of logits off"
    if "in_integers" in figures:
        return f"{figures['in_integers']} layers in integers, {figures['in_float']} in float"
    if "share_of_range" in figures:
        return f"{figures['share_of_range']:.1e} of range, top-1 {figures['top1_agreement']:.1%}"
    if "max_difference" in figures:
        return f"max difference {figures['max_difference']:.1e}"
    if "pictures_that_differ" in figures:
        return f"{figures['pictures_that_differ']} pictures differ"
    if gate.losses:
        defined = {name: loss for name, loss in gate.losses.items() if loss.value is not None}
        if not defined:
            return "undefined"
        # The figure that decides: the one whose interval reaches furthest.
        name, loss = max(defined.items(), key=lambda item: item[1].value if item[1].high is None else item[1].high)
        return f"loss of {name.replace('_', ' ')} {loss.value:+.3f}" + ("" if loss.low is None else f" ({loss.low:+.3f} to {loss.high:+.3f})")
    return "-"
