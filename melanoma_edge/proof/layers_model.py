"""evidence/layers.json: where two runtimes of one network part, layer by layer."""

from __future__ import annotations

from typing import Literal

from melanoma_edge.contract import Model
from melanoma_edge.proof.evidence_model import Evidence


class Difference(Model):
    """How far one tensor is from the reference's, over all values and pictures, in the pair's unit."""

    off: float
    """Share of the values that differ: by half a quantum or more; of float tensors, by a hundred-thousandth of the range or more."""
    largest: float
    mean_of_off: float | None
    """Mean distance of those that differ; None where none does."""
    bias: float
    """Mean of all signed differences, candidate minus reference."""
    sqnr_db: float | None
    """Power of the reference to power of the difference, in decibels; None where there is no difference."""


class Side(Model):
    """One model's tensor."""

    tensor: str
    scale: float | None = None
    zero_point: int | None = None
    """As int8; 128 less than in files that hold uint8."""


class LayerRow(Model):
    """One layer in two runtimes."""

    layer: str
    operator: str
    """As TFLite calls it."""
    values: int
    """How many values of how many pictures were compared, multiplied."""
    candidate: Side
    reference: Side
    end_to_end: Difference
    """Each model computed everything from the picture on: the errors of the layers before count too."""
    alone: Difference
    """The candidate's operator on the reference's input: its own error only."""
    suspect: str | None
    """Why rounding does not explain the layer's own error; None where it does."""


class LayerPair(Model):
    """One artifact in one runtime beside its reference."""

    artifact: str
    runtime: str
    reference: str
    unit: Literal["quanta", "share of range"]
    """What differences are counted in: steps of the reference's int8 tensor, or the range of its float tensor."""
    outcome: Literal["compared", "not run", "failed"]
    """Failed: a runtime that is there crashed, hung or refused the file that was opened up."""
    reason: str | None = None
    notes: tuple[str, ...] = ()
    """What looking into the models changed about them."""
    pictures: int = 0
    first_part: str | None = None
    """The first layer with any difference, end to end."""
    rows: tuple[LayerRow, ...] = ()

    @property
    def suspects(self) -> tuple[LayerRow, ...]:
        """The layers whose own error is more than rounding."""
        return tuple(row for row in self.rows if row.suspect)


class Layers(Evidence):
    """The whole of evidence/layers.json."""

    schema_version: Literal[1] = 1
    pairs: tuple[LayerPair, ...]

    @property
    def failed(self) -> tuple[LayerPair, ...]:
        """The pairs that could not be compared because a runtime failed."""
        return tuple(pair for pair in self.pairs if pair.outcome == "failed")

    @property
    def suspects(self) -> tuple[tuple[LayerPair, LayerRow], ...]:
        """Every layer whose own error is more than rounding, with its pair."""
        return tuple((pair, row) for pair in self.pairs for row in pair.suspects)
