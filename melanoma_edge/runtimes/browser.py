"""Placeholder."""

from melanoma_edge.errors import Missing


def require() -> str:
    raise Missing("browser is not set up: melanoma-edge setup browser")
