"""Placeholder."""

from melanoma_edge.errors import Missing


def require() -> str:
    raise Missing("arm64 is not set up: melanoma-edge setup arm64")
