"""The layout of what `bench-compare` finds, from which its JSON Schema is made."""

from __future__ import annotations

from typing import Literal

from melanoma_edge.contract import Format, Model, Precision

FASTER, SLOWER, CANNOT_TELL = "faster", "slower", "cannot tell"


class Compared(Model):
    """One artifact in one runtime, before and after."""

    where: str
    """`host`, or the device's name."""
    runtime: str
    accelerator: str
    threads: int
    format: Format
    precision: Precision
    base_ms: float
    new_ms: float
    """p50 of each."""
    ratio: float
    """New divided by base: below 1 is faster."""
    low: float | None
    high: float | None
    """The 95 % interval of the ratio, from processes drawn again and rounds drawn again within them; null where there is one round only."""
    verdict: Literal["faster", "slower", "cannot tell"]
    reason: str | None
    """Why it cannot be told, where it is not for the interval alone."""
    regression: bool
    """Whether the whole interval lies above the bound."""


class LatencyComparison(Model):
    """Two measurements, compared row by row."""

    schema_version: Literal[1] = 1
    base: str
    new: str
    """What was given, by the last part of its name."""
    bound: float
    """Largest ratio that is no regression."""
    replicates: int
    seed: int
    differences: tuple[str, ...]
    """Conditions that differ between the two, in words: reasons for a ratio that are not the model."""
    rows: tuple[Compared, ...]
    not_compared: tuple[str, ...]
    """What only one of the two measured."""

    @property
    def regressions(self) -> tuple[Compared, ...]:
        """The rows beyond the bound."""
        return tuple(row for row in self.rows if row.regression)
