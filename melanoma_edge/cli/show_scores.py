"""What `train` and `evaluate` print at their end: scores of a run, of all folds, of a model on a folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from melanoma_edge import NOTICE
from melanoma_edge.cli.show_figures import interval_text, spread_text, threshold_text

if TYPE_CHECKING:
    from melanoma_edge.cli.show import Screen

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


def show_run(screen: Screen, run, as_json: bool) -> None:
    """Print what a finished run reached."""
    from melanoma_edge.files import read_json
    from melanoma_edge.model.run import EVALUATION_FILE
    from melanoma_edge.proof.predict import said

    evaluation = read_json(run.path / EVALUATION_FILE, "a run's evaluation")
    if as_json:
        return screen.json({"notice": NOTICE, "run": str(run.path), "facts": run.facts.model_dump(mode="json"), "evaluation": evaluation})
    names = {"float": "float", "qat": "int8 (simulated)"}
    if run.tested:
        scores = {names[which]: found["scores"] for which, found in evaluation.items()}
        _scores(screen, scores, run.recipe.positive_class, f"test part: {len(run.part('test'))} pictures that training never saw")
    else:
        screen.out.print(f"no test part: {len(run.part('train'))} pictures were trained on and {len(run.part('validation'))} validated, so no figure on unseen pictures is known.")
        screen.out.print("What the recipe is worth, cross-validation says: melanoma-edge train DATA --folds 5, then export that and hand its figures to export --cross-validation.", style="dim")
    for which, (decision, _) in run.evaluation().items():
        if decision.threshold is not None:
            screen.out.print(f"threshold of {escape(run.recipe.positive_class)}, {names[which]}: {threshold_text(said(decision.threshold))}")
    screen.out.print(f"run: {escape(str(run.path))}")
    _next(screen, "export", run.path)


def show_folds(screen: Screen, folds, as_json: bool) -> None:
    """Print what all folds came to together."""
    from melanoma_edge.calibration import rule_of

    facts = folds.facts
    if as_json:
        return screen.json(facts.model_dump(mode="json"))
    positive, names = facts.recipe.positive_class or "positive class", {"float": "float", "qat": "int8 (simulated)"}
    heads = [f"{names[which]}: {what}" for which in facts.networks for what in ("mean ± sd", "pooled")]
    title = f"{facts.recipe.folds} folds: {facts.pictures} pictures of {facts.groups} lesions, each tested once by a model that never saw it"
    table = Table("figure", *heads, title=title, title_justify="left")
    for key, label in FIGURES.items():
        if any(key in across.figures for across in facts.networks.values()):
            columns = [(across.figures.get(key), getattr(across.pooled, key)) for across in facts.networks.values()]
            _row(table, label.format(positive=positive), columns)
    for name in facts.classes:
        _row(table, f"recall of {name}", [(across.recall[name], across.pooled.recall[name]) for across in facts.networks.values()])
    screen.out.print(table)
    screen.out.print(f"Mean and standard deviation over folds; pooled value and 95 % bootstrap interval over lesions. {NOTICE}", style="dim")
    if facts.recipe.positive_class:
        rule, target = rule_of(facts.recipe)
        screen.out.print(f"fitted threshold: each fold's own, which keeps {target * 100:g} % {rule} on its validation part", style="dim")
    for fold in facts.runs:
        if fold.absent_from_test:
            screen.out.print(f"{fold.run} tests no {escape(', '.join(fold.absent_from_test))}: too few lesions for {facts.recipe.folds} folds", style="yellow")
    screen.out.print(f"folds: {escape(str(folds.path))} ({', '.join(fold.run for fold in facts.runs)})")
    _next(screen, "export", folds.path)


def show_evaluation(screen: Screen, result: dict, as_json: bool) -> None:
    """Print the scores of one model on a folder."""
    if as_json:
        return screen.json(result)
    scores, pictures = result["scores"], result["pictures"]
    leaks = {True: "", None: " [yellow](whether training saw them is not known)[/]", False: " [bold red](not leak-free: training saw some of them)[/]"}
    leak = leaks[result["leak_free"]]
    _scores(screen, {result["model"]: scores}, scores["positive_class"], f"{scores['pictures']} pictures of {scores['lesions']} lesions{leak}")
    _by_class(screen, scores)
    if result["by"] is not None:
        _groups(screen, result["by"], scores["positive_class"])
    _decided(screen, result, scores["positive_class"])
    if pictures["seen_in_training"]:
        what = "used for this bundle" if result["leak_free"] is None else "seen in training"
        screen.out.print(f"{what}{'' if result['leak_free'] is False else ' and left out'}: {pictures['seen_in_training']}")
    for name, count in pictures["unknown_classes"].items():
        screen.out.print(f"class unknown to the model: {escape(name)} ({count} pictures, not scored)", style="yellow")
    for path, why in pictures["unreadable"]:
        screen.out.print(f"unreadable: {escape(path)}: {escape(why)}", style="yellow")
    if pictures["in_no_class_folder"]:
        screen.out.print(f"in no class folder, not scored: {pictures['in_no_class_folder']}", style="yellow")
    screen.out.print(result["notice"], style="dim")


def _next(screen: Screen, command: str, path: Path) -> None:
    """Name the command that usually comes next, as a shell takes it."""
    screen.out.print(f"next: melanoma-edge {command} {escape(shlex.quote(str(path)))}", style="dim", soft_wrap=True)


def _row(table: Table, label: str, columns: list[tuple]) -> None:
    """Add a row of (spread, pooled interval) for each network."""
    cells = [cell for spread, pooled in columns for cell in (spread_text(spread), interval_text(pooled.model_dump()) if pooled else "-")]
    table.add_row(escape(label), *cells)


def _decided(screen: Screen, result: dict, positive: str | None) -> None:
    """Print what chose the threshold, the risk as fewer pictures are answered, and how much of what is no lesion is."""
    if result["threshold"] is not None:
        screen.out.print(f"threshold of {escape(positive or 'the positive class')}: {threshold_text(result['threshold'])}")
    in_force = result["abstention"]["method"]
    for method, found in result["coverage_risk"].items():
        if found is not None:
            shown = ", ".join(f"{point['risk']:.3f} of {point['coverage']:.0%}" for point in found["points"][-1:-6:-1])
            what = f"{method}{' (in force)' if method == in_force else ''}"
            screen.out.print(f"wrong among the answered by {what}: {shown}; area under this curve {interval_text(found['area'])}, lower is better")
    if result["non_lesions"] is not None:
        rates = ", ".join(f"{rate['answered']} by {rate['method']}" for rate in result["non_lesions"]["rates"])
        screen.out.print(f"of {result['non_lesions']['pictures']} drawn pictures without a lesion it answers (at export, the same coverage): {rates}")


def _groups(screen: Screen, by: dict, positive: str | None) -> None:
    """Print the figures of each group of pictures; those of too few lesions with a star."""
    title = f"by {escape(by['column'])}" + (f", in bands of {by['band']:g}" if by["band"] else "")
    names = {key: label for key, label in BY_GROUP.items() if positive is not None or not key.startswith("positive")}
    table = Table(escape(by["column"]), "pictures", "lesions", *(label.format(positive=positive) for label in names.values()), title=title, title_justify="left")
    for row in by["groups"]:
        figures = [interval_text(row["scores"][key]) + (" *" if key in row["too_small_for"] else "") if row["scores"][key] else "-" for key in names]
        table.add_row(escape(row["group"]), str(row["pictures"]), str(row["lesions"]), *figures)
    screen.out.print(table)
    if any(row["too_small_for"] for row in by["groups"]):
        screen.out.print(f"* too few lesions to say: below {by['least_lesions']} of those that the figure is a share of, or {by['least_of_class']} of a class in a mean over classes", style="yellow")


def _scores(screen: Screen, columns: dict[str, dict], positive: str | None, title: str) -> None:
    table = Table("figure", *(escape(name) for name in columns), title=title, title_justify="left")
    for key, label in FIGURES.items():
        found = [scores.get(key) for scores in columns.values()]
        if any(found):
            table.add_row(escape(label.format(positive=positive or "positive class")), *(interval_text(figure) if figure else "-" for figure in found))
    screen.out.print(table)
    screen.out.print(f"Value and 95 % bootstrap interval. {NOTICE}", style="dim")


def _by_class(screen: Screen, scores: dict) -> None:
    """Print the recall of each class, and how the positive class is told from each other one."""
    positive = escape(scores["positive_class"] or "")
    against = {f"{positive} AUC against it alone": scores["positive_auc_against"], f"called {positive} at the fitted threshold": scores["called_positive"]}
    against = {head: figures for head, figures in against.items() if figures}
    table = Table("class", "pictures", "recall", *against, title="each class", title_justify="left")
    for name, recall in scores["recall"].items():
        cells = [interval_text(figures[name]) if name in figures else "" for figures in against.values()]
        table.add_row(escape(name), str(scores["per_class"][name]), interval_text(recall), *cells)
    screen.out.print(table)
