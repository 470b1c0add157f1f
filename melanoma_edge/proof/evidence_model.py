"""What every evidence file on pictures says of its own making."""

from __future__ import annotations

from melanoma_edge import NOTICE
from melanoma_edge.contract import Model, Sha256


class Evidence(Model):
    """Where, when, by what command and on what something was found out."""

    notice: str = NOTICE
    bundle: str
    manifest_sha256: Sha256
    """State of the bundle that this was found on: evidence of another one is not shown."""
    command: str
    date: str
    data: str
    """What the pictures were."""
    pictures: int
    seconds: float
    conditions: dict
