"""What `export` prints of all folds: each artifact over all pictures, and what int8 costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Column, Table

from melanoma_edge import NOTICE
from melanoma_edge.cli.show_figures import spread_text
from melanoma_edge.convert.single_models import sentences

if TYPE_CHECKING:
    from melanoma_edge.cli.show import Screen

COLUMNS = {
    "balanced_accuracy": "balanced accuracy",
    "macro_auc": "macro AUC",
    "positive_auc": "{positive} AUC",
    "positive_sensitivity_at_90_specificity": "{positive} sensitivity at 90 % specificity, best threshold",
    "positive_sensitivity_of_decision": "{positive} sensitivity at the fitted thresholds",
    "positive_specificity_of_decision": "{positive} specificity there",
    "ece": "ECE",
}
"""As many as stand side by side in a terminal; the card, the report and cross-validation.json hold the others."""
LOSSES = {"balanced_accuracy": "balanced accuracy", "positive_auc": "{positive} AUC", "positive_sensitivity": "{positive} sensitivity at the fitted thresholds"}


def show_cross_validation(screen: Screen, exported, as_json: bool) -> None:
    """Print what the artifacts of all folds come to together."""
    found = exported.result
    if as_json:
        return screen.json(found.model_dump(mode="json"))
    out, positive = screen.out, found.positive_class
    names = {key: label.format(positive=positive) for key, label in COLUMNS.items() if positive is not None or not key.startswith("positive")}
    title = f"{len(found.folds)} folds: {found.pictures} pictures of {found.lesions} lesions, each judged once by files of a model that {found.unseen_in_words()}"
    table = Table(Column("artifact", no_wrap=True), *map(escape, names.values()), title=title, title_justify="left", show_lines=True)
    for one in found.artifacts:
        cells = [f"{_stacked(getattr(one.pooled, key))}\n[dim]{spread_text(one.figures.get(key))}[/]" for key in names]
        table.add_row(escape(one.name), *cells)
    out.print(table)
    out.print("Above: all pictures together, with the 95 % bootstrap interval over lesions. Below: mean and standard deviation over the folds.", style="dim")
    for said in sentences(found):
        out.print(escape(said))
    if found.comparisons:
        kept = {key: label.format(positive=positive) for key, label in LOSSES.items() if positive is not None or not key.startswith("positive")}
        table = Table("int8 against float32, change in points", *map(escape, kept.values()), "other top class", title="what int8 costs", title_justify="left")
        for one in found.comparisons:
            table.add_row(escape(f"{one.candidate} against {one.reference}"), *(_change(one.losses[key]) for key in kept), f"{one.flips} of {one.pictures}")
        out.print(table)
    phone = found.of_phones()
    table = Table("truth \\ said", *map(escape, found.classes), "recall", title=f"confusion matrix of {escape(phone.name)}", title_justify="left")
    for name, row in zip(found.classes, phone.confusion):
        table.add_row(escape(name), *(str(count) if count else "·" for count in row), _interval(phone.pooled.recall[name]))
    out.print(table)
    for fold in found.folds:
        if fold.absent_from_test:
            out.print(f"fold {fold.fold} tests no {escape(', '.join(fold.absent_from_test))}: too few lesions for {len(found.folds)} folds", style="yellow")
    gates = [gate for parity in exported.parities.values() for gate in parity.gates]
    counted = ", ".join(f"{sum(gate.outcome == outcome for gate in gates)} {outcome}" for outcome in ("passed", "failed", "inconclusive", "not run"))
    out.print(f"gates of all folds: {counted}; {NOTICE}", style="dim")
    out.print(f"written: {escape(str(exported.path))}")
    out.print("next: melanoma-edge train DATA --set folds=1, and export that run with --cross-validation " + escape(str(exported.path)), style="dim", soft_wrap=True)


def _stacked(interval) -> str:
    """Return a figure above its interval, so that eight of them stand side by side."""
    return _interval(interval).replace(" (", "\n").removesuffix(")")


def _interval(interval) -> str:
    if interval is None or interval.value is None:
        return "undefined"
    low = "" if interval.low is None else f" ({interval.low:.3f} to {interval.high:.3f})"
    return f"{interval.value:.3f}{low}"


def _change(loss) -> str:
    if loss.value is None:
        return "undefined"
    change = f"{(0 - loss.value) * 100:+.1f}"
    return change if loss.low is None else f"{change} ({(0 - loss.high) * 100:+.1f} to {(0 - loss.low) * 100:+.1f})"
