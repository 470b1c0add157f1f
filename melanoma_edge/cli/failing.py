"""The exit code of a proof: what did not hold becomes one error that names it."""

from __future__ import annotations


def fail_if(parity) -> None:
    """Exit with 1 when a gate failed."""
    if parity.failed:
        from melanoma_edge.errors import ProofFailed

        names = ", ".join(f"{gate.name} ({gate.artifact} on {gate.runtime})" for gate in parity.failed)
        raise ProofFailed(f"{len(parity.failed)} gate{'s' if len(parity.failed) > 1 else ''} failed: {names}")


def fail_if_any(parities) -> None:
    """Exit with 1 when a gate of one of several bundles, {name: its gates}, failed."""
    failed = [f"{gate.name} ({gate.artifact} on {gate.runtime} in {name})" for name, parity in parities.items() for gate in parity.failed]
    if failed:
        from melanoma_edge.errors import ProofFailed

        raise ProofFailed(f"{len(failed)} gate{'s' if len(failed) > 1 else ''} failed: {', '.join(failed)}")


def fail_if_suspect(found) -> None:
    """Exit with 1 when a layer's own error is more than rounding, or a runtime failed on an opened file."""
    if found.suspects:
        from melanoma_edge.errors import ProofFailed

        names = ", ".join(f"{row.layer} ({pair.artifact} on {pair.runtime} against {pair.reference})" for pair, row in found.suspects)
        raise ProofFailed(f"{len(found.suspects)} suspect layer{'s' if len(found.suspects) > 1 else ''}: {names}")
    if found.failed:
        from melanoma_edge.errors import ProofFailed

        raise ProofFailed("; ".join(f"{pair.artifact} on {pair.runtime} could not be looked into: {pair.reason}" for pair in found.failed))
