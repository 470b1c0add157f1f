"""What the commands print: progress on standard error, results on standard output.

Results are tables for people, or JSON when asked. Progress is a live line on a terminal and plain
lines elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from melanoma_edge import NOTICE
from melanoma_edge.cli.output import drop_output

FILE_WIDTH = 150
"""Columns of tables that go to a file or a pipe."""
COUNTING = re.compile(r": [\d,]+ of [\d,]+$")
"""Lines of progress that say how far something is."""
COUNTED_SECONDS = 10.0
FEW_TO_CALIBRATE = 100
"""Below so many pictures, ranges measured on them are told to be doubtful."""
OUTCOME_STYLE = {"passed": "green", "failed": "bold red", "inconclusive": "yellow", "not run": "dim"}
OUTCOME_SIGN = {"passed": "✓", "failed": "✗", "inconclusive": "?", "not run": "-"}
FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "macro_auc": "macro AUC",
    "positive_auc": "{positive} AUC",
    "positive_sensitivity_at_80_specificity": "{positive} sensitivity at 80 % specificity, best threshold here",
    "positive_sensitivity_at_90_specificity": "{positive} sensitivity at 90 % specificity, best threshold here",
    "positive_sensitivity_of_decision": "{positive} sensitivity at the fitted threshold",
    "positive_specificity_of_decision": "{positive} specificity at the fitted threshold",
    "coverage_of_decision": "share answered (the rest: abstains)",
    "accuracy_of_answers": "accuracy of what is answered",
    "ece": "expected calibration error (these pictures' mix)",
    "ece_at_priors": "expected calibration error (deployment mix)",
}

BY_GROUP = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "positive_auc": "{positive} AUC",
    "positive_sensitivity_of_decision": "{positive} sensitivity",
    "positive_specificity_of_decision": "{positive} specificity",
}
"""Figures that are shown of each group, the last two at the fitted threshold; JSON has all."""


class _Output(Console):
    """Standard output; goes on silently when its reader went away, so that the exit code stays the result's."""

    def on_broken_pipe(self) -> None:
        drop_output()


class Screen:
    """Prints for one command; `quiet` leaves progress out, `verbose` adds detail."""

    def __init__(self, *, quiet: bool, verbose: bool):
        self.quiet, self.verbose = quiet, verbose
        self.out = _Output(highlight=False)
        if not self.out.is_terminal:
            self.out = _Output(highlight=False, width=FILE_WIDTH)
        self.err = Console(stderr=True, highlight=False, quiet=quiet)

    def line(self, text: str) -> None:
        """Print one progress line."""
        self.err.print(escape(text), style="dim", soft_wrap=True)

    @contextlib.contextmanager
    def bar(self, what: str):
        """Yield a callback (done, total) that shows how far `what` is."""
        with self.progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as progress:
            task = progress.add_task(what, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)

    @contextlib.contextmanager
    def steps(self, what: str):
        """Yield a callback (line) that names the step in progress."""
        started = time.monotonic()
        if not self.err.is_terminal or self.verbose:
            yield self._logged(started)
            return
        with self.progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as progress:
            task = progress.add_task(what)
            yield lambda text: progress.update(task, description=escape(text))

    def _logged(self, started: float):
        """Return a callback that prints its lines, of those that only count on (`... 64 of 200`) one every COUNTED_SECONDS."""
        shown = started - COUNTED_SECONDS

        def log(text: str) -> None:
            nonlocal shown
            now = time.monotonic()
            if self.verbose or not COUNTING.search(text) or now - shown >= COUNTED_SECONDS:
                shown = now
                self.line(f"[{now - started:6.1f} s] {text}")

        return log

    def progress(self, *columns) -> Progress:
        """Return a live line of these columns, still to be entered."""
        return Progress(*columns, console=self.err, transient=True, disable=self.quiet or not self.err.is_terminal)

    def json(self, value) -> None:
        """Print `value` as JSON."""
        if self.out.is_terminal:
            self.out.print_json(json.dumps(value, allow_nan=False), indent=2)
            return
        try:
            print(json.dumps(value, indent=2, allow_nan=False), flush=True)
        except BrokenPipeError:
            drop_output()

    def facts(self, facts: dict, as_json: bool) -> None:
        """Print a few named values."""
        if as_json:
            return self.json(facts)
        for name, value in facts.items():
            self.out.print(f"{name.replace('_', ' ')}: {escape(str(value))}")

    def run(self, run, as_json: bool) -> None:
        """Print what a finished run reached."""
        from melanoma_edge.files import read_json
        from melanoma_edge.model.run import EVALUATION_FILE
        from melanoma_edge.proof.predict import said

        evaluation = read_json(run.path / EVALUATION_FILE, "a run's evaluation")
        if as_json:
            return self.json({"notice": NOTICE, "run": str(run.path), "facts": run.facts.model_dump(mode="json"), "evaluation": evaluation})
        names = {"float": "float", "qat": "int8 (simulated)"}
        if run.tested:
            scores = {names[which]: found["scores"] for which, found in evaluation.items()}
            self._scores(scores, run.recipe.positive_class, f"test part: {len(run.part('test'))} pictures that training never saw")
        else:
            self.out.print(f"no test part: {len(run.part('train'))} pictures were trained on and {len(run.part('validation'))} validated, so no figure on unseen pictures is known.")
            self.out.print("What the recipe is worth, cross-validation says: melanoma-edge train DATA --folds 5, then export that and hand its figures to export --cross-validation.", style="dim")
        for which, (decision, _) in run.evaluation().items():
            if decision.threshold is not None:
                self.out.print(f"threshold of {escape(run.recipe.positive_class)}, {names[which]}: {_threshold(said(decision.threshold))}")
        self.out.print(f"run: {escape(str(run.path))}")
        self._next("export", run.path)

    def folds(self, folds, as_json: bool) -> None:
        """Print what all folds came to together."""
        from melanoma_edge.calibration import rule_of

        facts = folds.facts
        if as_json:
            return self.json(facts.model_dump(mode="json"))
        positive, names = facts.recipe.positive_class or "positive class", {"float": "float", "qat": "int8 (simulated)"}
        heads = [f"{names[which]}: {what}" for which in facts.networks for what in ("mean ± sd", "pooled")]
        title = f"{facts.recipe.folds} folds: {facts.pictures} pictures of {facts.groups} lesions, each tested once by a model that never saw it"
        table = Table("figure", *heads, title=title, title_justify="left")
        for key, label in FIGURES.items():
            if any(key in across.figures for across in facts.networks.values()):
                columns = [(across.figures.get(key), getattr(across.pooled, key)) for across in facts.networks.values()]
                self._row(table, label.format(positive=positive), columns)
        for name in facts.classes:
            self._row(table, f"recall of {name}", [(across.recall[name], across.pooled.recall[name]) for across in facts.networks.values()])
        self.out.print(table)
        self.out.print(f"Mean and standard deviation over folds; pooled value and 95 % bootstrap interval over lesions. {NOTICE}", style="dim")
        if facts.recipe.positive_class:
            rule, target = rule_of(facts.recipe)
            self.out.print(f"fitted threshold: each fold's own, which keeps {target * 100:g} % {rule} on its validation part", style="dim")
        for fold in facts.runs:
            if fold.absent_from_test:
                self.out.print(f"{fold.run} tests no {escape(', '.join(fold.absent_from_test))}: too few lesions for {facts.recipe.folds} folds", style="yellow")
        self.out.print(f"folds: {escape(str(folds.path))} ({', '.join(fold.run for fold in facts.runs)})")
        self._next("export", folds.path)

    def _next(self, command: str, path: Path) -> None:
        """Name the command that usually comes next, as a shell takes it."""
        self.out.print(f"next: melanoma-edge {command} {escape(shlex.quote(str(path)))}", style="dim", soft_wrap=True)

    @staticmethod
    def _row(table: Table, label: str, columns: list[tuple]) -> None:
        """Add a row of (spread, pooled interval) for each network."""
        cells = [cell for spread, pooled in columns for cell in (_spread(spread), _interval(pooled.model_dump()) if pooled else "-")]
        table.add_row(escape(label), *cells)

    def evaluation(self, result: dict, as_json: bool) -> None:
        """Print the scores of one model on a folder."""
        if as_json:
            return self.json(result)
        scores, pictures = result["scores"], result["pictures"]
        leaks = {True: "", None: " [yellow](whether training saw them is not known)[/]", False: " [bold red](not leak-free: training saw some of them)[/]"}
        leak = leaks[result["leak_free"]]
        self._scores({result["model"]: scores}, scores["positive_class"], f"{scores['pictures']} pictures of {scores['lesions']} lesions{leak}")
        self._by_class(scores)
        if result["by"] is not None:
            self._groups(result["by"], scores["positive_class"])
        self._decided(result, scores["positive_class"])
        if pictures["seen_in_training"]:
            what = "used for this bundle" if result["leak_free"] is None else "seen in training"
            self.out.print(f"{what}{'' if result['leak_free'] is False else ' and left out'}: {pictures['seen_in_training']}")
        for name, count in pictures["unknown_classes"].items():
            self.out.print(f"class unknown to the model: {escape(name)} ({count} pictures, not scored)", style="yellow")
        for path, why in pictures["unreadable"]:
            self.out.print(f"unreadable: {escape(path)}: {escape(why)}", style="yellow")
        if pictures["in_no_class_folder"]:
            self.out.print(f"in no class folder, not scored: {pictures['in_no_class_folder']}", style="yellow")
        self.out.print(result["notice"], style="dim")

    def _decided(self, result: dict, positive: str | None) -> None:
        """Print what chose the threshold, the risk as fewer pictures are answered, and how much of what is no lesion is."""
        if result["threshold"] is not None:
            self.out.print(f"threshold of {escape(positive or 'the positive class')}: {_threshold(result['threshold'])}")
        in_force = result["abstention"]["method"]
        for method, found in result["coverage_risk"].items():
            if found is not None:
                shown = ", ".join(f"{point['risk']:.3f} of {point['coverage']:.0%}" for point in found["points"][-1:-6:-1])
                what = f"{method}{' (in force)' if method == in_force else ''}"
                self.out.print(f"wrong among the answered by {what}: {shown}; area under this curve {_interval(found['area'])}, lower is better")
        if result["non_lesions"] is not None:
            rates = ", ".join(f"{rate['answered']} by {rate['method']}" for rate in result["non_lesions"]["rates"])
            self.out.print(f"of {result['non_lesions']['pictures']} drawn pictures without a lesion it answers (at export, the same coverage): {rates}")

    def _groups(self, by: dict, positive: str | None) -> None:
        """Print the figures of each group of pictures; those of too few lesions with a star."""
        title = f"by {escape(by['column'])}" + (f", in bands of {by['band']:g}" if by["band"] else "")
        names = {key: label for key, label in BY_GROUP.items() if positive is not None or not key.startswith("positive")}
        table = Table(escape(by["column"]), "pictures", "lesions", *(label.format(positive=positive) for label in names.values()), title=title, title_justify="left")
        for row in by["groups"]:
            figures = [_interval(row["scores"][key]) + (" *" if key in row["too_small_for"] else "") if row["scores"][key] else "-" for key in names]
            table.add_row(escape(row["group"]), str(row["pictures"]), str(row["lesions"]), *figures)
        self.out.print(table)
        if any(row["too_small_for"] for row in by["groups"]):
            self.out.print(f"* too few lesions to say: below {by['least_lesions']} of those that the figure is a share of, or {by['least_of_class']} of a class in a mean over classes", style="yellow")

    def bundle(self, path: Path, as_json: bool) -> None:
        """Print what stands in a bundle."""
        if as_json:
            return
        from melanoma_edge.convert.bundle import open_bundle

        bundle = open_bundle(path)
        held_back = "test part" if bundle.manifest.origin == "run" else "pictures held back"
        table = Table("artifact", "kB", f"balanced accuracy ({held_back})", "temperature", title=f"bundle {escape(str(path))}", title_justify="left")
        for artifact in bundle.manifest.artifacts:
            figure = _interval(artifact.scores.balanced_accuracy.model_dump()) if artifact.scores else "-"
            table.add_row(escape(artifact.name), f"{artifact.bytes / 1000:.0f}", figure, f"{artifact.decision.temperature:.2f}")
            if artifact.probabilities is not None:
                table.add_row(escape(artifact.probabilities.name), f"{artifact.probabilities.bytes / 1000:.0f}", "the same", "in the graph")
        for package in bundle.manifest.coreml:
            table.add_row(escape(package.name), f"{package.bytes / 1000:.0f}", "not run here", "in the graph")
        self.out.print(table)
        if bundle.manifest.origin == "run" and not bundle.manifest.tested:
            self.out.print("no test part: the run trained on all pictures, so this bundle has no figures of its own on unseen ones", style="yellow")
        quoted = bundle.manifest.cross_validation
        if quoted is not None:
            said = ", ".join(f"{one.name} {_interval(one.pooled.balanced_accuracy.model_dump())}" for one in quoted.artifacts)
            self.out.print(f"by cross-validation, {len(quoted.folds)} models of the same recipe on {quoted.pictures} pictures: balanced accuracy {said}")
        for line in _warnings(bundle.manifest):
            self.out.print(escape(line), style="yellow")
        self.out.print(NOTICE)

    def parity(self, parity, as_json: bool) -> None:
        """Print the gates."""
        if as_json:
            return self.json(parity.model_dump(mode="json"))
        table = Table("outcome", "gate", "artifact", "runtime", "against", "found", "pictures", title="gates", title_justify="left")
        for gate in parity.gates:
            if gate.outcome != "not run":
                style = OUTCOME_STYLE[gate.outcome]
                sign = f"[{style}]{OUTCOME_SIGN[gate.outcome]} {gate.outcome}[/]"
                table.add_row(sign, gate.name, escape(gate.artifact), gate.runtime, escape(gate.reference), escape(_found(gate)), str(gate.pictures))
        self.out.print(table)
        for gate in parity.gates:
            if gate.reason and (gate.outcome != "passed" or self.verbose):
                where = f"{gate.name}, {escape(gate.artifact)}" + (f" on {gate.runtime}" if gate.runtime != gate.name else "")
                self.out.print(f"{OUTCOME_SIGN[gate.outcome]} {gate.outcome}: {where}: {escape(gate.reason)}", style=OUTCOME_STYLE[gate.outcome])
        for gate in parity.gates:
            if gate.recall_change:
                changes = ", ".join(f"{name} {change:+.3f}" for name, change in gate.recall_change.items() if change is not None)
                self.out.print(f"recall change of {escape(gate.artifact)} on {gate.runtime}: {escape(changes)}")
        self._flips(parity)
        self.gates(parity)
        if parity.labelled:
            self.out.print("labelled pictures: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in parity.labelled.items()))

    def gates(self, parity) -> None:
        """Print how many gates came to what."""
        count = {outcome: sum(gate.outcome == outcome for gate in parity.gates) for outcome in OUTCOME_STYLE}
        self.out.print("gates: " + ", ".join(f"{n} {outcome}" for outcome, n in count.items()) + f"; {parity.pictures} pictures ({escape(parity.data)})")

    def _flips(self, parity) -> None:
        """Print the pictures on which the first class changed: some of them, all with -v."""
        for gate in parity.gates:
            if gate.flip_count and gate.name != "task":
                shown = gate.flips if self.verbose else gate.flips[:3]
                self.out.print(f"{gate.flip_count} flips of {escape(gate.artifact)} on {gate.runtime} against {escape(gate.reference)}:")
                for flip in shown:
                    self.out.print(f"  {escape(flip.picture)}: {escape(flip.reference)} -> {escape(flip.candidate)} (margin {flip.margin:.3g})")
                if len(shown) < gate.flip_count:
                    self.out.print(f"  ... {gate.flip_count - len(shown)} more in evidence/parity.json", style="dim")

    def latency(self, result: dict, as_json: bool) -> None:
        """Print latencies."""
        if as_json:
            return self.json(result)
        table = Table("artifact", "runtime", "p50 ms", "p90", "p99", "to float32", "first", "load", "verdict", title="latency of this host", title_justify="left")
        for runtime in result["runtimes"]:
            for row in runtime["artifacts"]:
                ratio = row["p50_ratio_to_float32"]
                times = [f"{row[key]:.3f}" for key in ("p50_ms", "p90_ms", "p99_ms")]
                table.add_row(escape(row["name"]), runtime["name"], *times, f"{ratio:.2f}" if ratio else "-", f"{row['first_ms']:.1f}", f"{row['load_ms']:.1f}", row["verdict"])
        self.out.print(table)
        for runtime in result["runtimes"]:
            if runtime["status"] == "not run":
                self.out.print(f"not run: {runtime['name']}: {escape(runtime['reason'] or '')} {escape(runtime['install'] or '')}", style="dim")
            for key, value in runtime["settings"].items():
                self.out.print(f"{runtime['name']} ran with {key}={value}: without it this processor's integer kernels overflow", style="yellow")
        note = "" if result["comparable"] else " Not comparable: quick or noisy."
        self.out.print(f"{result['threads']} thread{'s' * (result['threads'] > 1)}; host numbers, never phone numbers.{note}")

    def predictions(self, result: dict, as_json: bool) -> None:
        """Print what the model says about pictures."""
        if as_json:
            return self.json(result)
        for row in result["results"]:
            self.out.print(f"[bold]{escape(row['picture'])}[/]")
            if "error" in row:
                self.out.print(f"  {escape(row['error'])}", style="red")
                continue
            for name, probability in row["probabilities"].items():
                self.out.print(f"  {probability:6.1%}  {'█' * round(probability * 30):<30} {escape(name)}")
            if row["positive"] is not None:
                self.out.print(f"  {escape(result['positive_class'])}: {'above' if row['positive'] else 'below'} its threshold")
            if row["abstains"]:
                low = result["abstention"]["method"] == "confidence"
                self.out.print(f"  the model abstains: its {'confidence is too low' if low else 'energy is too high'}", style="yellow")
            for warning in row["quality"]["warnings"]:
                self.out.print(f"  picture {warning}", style="yellow")
        if result["threshold"] is not None and any(row.get("positive") is not None for row in result["results"]):
            self.out.print(f"threshold of {escape(result['positive_class'])}: {_threshold(result['threshold'])}", style="dim")
        self.out.print(f"{result['notice']} {result['domain']}", style="dim")

    def recipes(self, found: list) -> None:
        """Print the shipped recipes."""
        table = Table("recipe", "network", "size", "epochs", "description")
        for recipe in found:
            table.add_row(recipe.name, recipe.network, str(recipe.image_size), f"{recipe.epochs} + {recipe.qat_epochs} QAT", escape(recipe.description))
        self.out.print(table)

    def doctor(self, facts: dict, as_json: bool) -> None:
        """Print what this machine has."""
        if as_json:
            return self.json(facts)
        cpu = facts["conditions"]["cpu"]
        self.out.print(f"CPU: {escape(str(cpu.get('model')))}; for int8: {', '.join(facts['int8']) or 'no special instructions'}")
        devices = ", ".join(facts["gpu"]["devices"]) or "none"
        self.out.print(f"GPU: {escape(devices)}; driver: {'yes' if facts['gpu']['driver'] else 'no'}")
        table = Table("runtime", "version", "here", "why not")
        for name, runtime in facts["runtimes"].items():
            table.add_row(name, runtime["version"] or "-", "yes" if runtime["available"] else "no", escape(runtime["reason"] or ""))
        self.out.print(table)
        self.out.print(f"reference bundle: {escape(facts['reference'] or 'not in this installation')}")
        for gap in facts["missing"]:
            self.out.print(f"missing: {escape(gap['what'])}: {escape(gap['reason'] or '')}")
            if gap["install"]:
                self.out.print(f"  {escape(gap['install'])}", style="bold")
        if self.verbose:
            self.json(facts["conditions"])

    def _scores(self, columns: dict[str, dict], positive: str | None, title: str) -> None:
        table = Table("figure", *(escape(name) for name in columns), title=title, title_justify="left")
        for key, label in FIGURES.items():
            found = [scores.get(key) for scores in columns.values()]
            if any(found):
                table.add_row(escape(label.format(positive=positive or "positive class")), *(_interval(figure) if figure else "-" for figure in found))
        self.out.print(table)
        self.out.print(f"Value and 95 % bootstrap interval. {NOTICE}", style="dim")

    def _by_class(self, scores: dict) -> None:
        """Print the recall of each class, and how the positive class is told from each other one."""
        positive = escape(scores["positive_class"] or "")
        against = {f"{positive} AUC against it alone": scores["positive_auc_against"], f"called {positive} at the fitted threshold": scores["called_positive"]}
        against = {head: figures for head, figures in against.items() if figures}
        table = Table("class", "pictures", "recall", *against, title="each class", title_justify="left")
        for name, recall in scores["recall"].items():
            cells = [_interval(figures[name]) if name in figures else "" for figures in against.values()]
            table.add_row(escape(name), str(scores["per_class"][name]), _interval(recall), *cells)
        self.out.print(table)


def _interval(interval: dict) -> str:
    if interval["value"] is None:
        return "undefined"
    low = "" if interval["low"] is None else f" [dim]({interval['low']:.3f} to {interval['high']:.3f})[/]"
    return f"{interval['value']:.3f}{low}"


def _threshold(threshold: dict) -> str:
    """Return the threshold in force in words: its probability, the rule that chose it, and what it keeps and costs."""
    reached = [f"{name} {_interval(threshold[f'validation_{name}'])}" for name in ("sensitivity", "specificity") if threshold[f"validation_{name}"]]
    there = f" ({', '.join(reached)} there)" if reached else ""
    return f"{threshold['probability']:.3f}, {threshold['in_words']}{there}"


def _spread(spread) -> str:
    if spread is None or spread.mean is None:
        return "undefined"
    return f"{spread.mean:.3f}" + ("" if spread.sd is None else f" ± {spread.sd:.3f}")


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
