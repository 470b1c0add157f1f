"""How figures stand in what the commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from melanoma_edge.contract import Spread


def interval_text(interval: dict) -> str:
    """Return a figure with its interval, dimmed, or "undefined"."""
    if interval["value"] is None:
        return "undefined"
    low = "" if interval["low"] is None else f" [dim]({interval['low']:.3f} to {interval['high']:.3f})[/]"
    return f"{interval['value']:.3f}{low}"


def threshold_text(threshold: dict) -> str:
    """Return the threshold in force in words: its probability, the rule that chose it, and what it keeps and costs."""
    reached = [f"{name} {interval_text(threshold[f'validation_{name}'])}" for name in ("sensitivity", "specificity") if threshold[f"validation_{name}"]]
    there = f" ({', '.join(reached)} there)" if reached else ""
    return f"{threshold['probability']:.3f}, {threshold['in_words']}{there}"


def spread_text(spread: Spread | None) -> str:
    """Return a mean over folds with its standard deviation, or "undefined"."""
    if spread is None or spread.mean is None:
        return "undefined"
    return f"{spread.mean:.3f}" + ("" if spread.sd is None else f" ± {spread.sd:.3f}")
