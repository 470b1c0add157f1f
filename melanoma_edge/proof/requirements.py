"""What a caller of `verify` insists on: runtimes, groups of them, or the task gate.

In: the names behind `--require`. Out: an error before anything is computed where it can be known, else in words what was
not carried out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from melanoma_edge.convert.bundle import Bundle
from melanoma_edge.errors import BadInput, Missing
from melanoma_edge.proof.parity_model import Gate, Parity
from melanoma_edge.runtimes.process import Availability
from melanoma_edge.runtimes.protocol import RUNTIMES, asked

TASK = "task"


class Unmet(Missing):
    """Something required was not carried out; the evidence of the rest is written."""

    def __init__(self, message: str, parity: Parity) -> None:
        super().__init__(message)
        self.parity = parity


def expanded(require: Sequence[str], here: Mapping[str, Availability], bundle: Bundle, *, labelled: bool) -> list[str]:
    """Return `require` with groups (`arm64`, `browser`, `kernels`) as those of their runtimes that `bundle` has artifacts for.

    Raises BadInput for an unknown name and Missing for what is known not to be here; `labelled` says whether there are
    labelled pictures for the task gate.
    """
    formats = {artifact.format for artifact in bundle.manifest.artifacts}
    groups = {row.group for row in RUNTIMES.values() if row.runs_artifacts} - {"here"}
    result: list[str] = []
    for name in require:
        if name == TASK:
            if not labelled:
                raise Missing("the task gate was required but could not be carried out: give labelled pictures with --data")
        elif name not in here and name not in groups:
            raise BadInput(f"there is no runtime {name!r} to require: expected one of {', '.join([*here, *sorted(groups), TASK])}")
        for one in (one for one in asked([name]) if formats & set(RUNTIMES[one].formats)) if name in groups else [name]:
            if one != TASK and not here[one].available:
                raise Missing(f"the runtime {one} was required but is not here ({here[one].reason}): {here[one].install or 'use a machine that has it'}")
            result += [one] if one not in result else []
    return result


def unmet(require: Sequence[str], carried_out: Sequence[Gate], references: Mapping | str) -> str | None:
    """Return what of the :func:`expanded` names no gate came to use, or used for some artifacts only; None where all were."""
    used = [gate for gate in carried_out if gate.outcome != "not run"]
    for name in require:
        if name == TASK:
            if not any(gate.name == TASK for gate in used):
                reason = next((gate.reason for gate in carried_out if gate.name == TASK), "the bundle has no int8 artifact")
                return f"the task gate was required but could not be carried out: {reason}"
        elif not RUNTIMES[name].runs_artifacts:
            if isinstance(references, str) or not references:
                return f"the runtime {name} was required but not compared with: {references or 'the bundle names no network'}"
        else:
            mine = [gate for gate in carried_out if gate.runtime == name]
            if not mine:
                return f"the runtime {name} was required but no gate used it: the bundle has no artifact for it; export one"
            for artifact in dict.fromkeys(gate.artifact for gate in mine):
                if not any(gate.artifact == artifact for gate in used if gate.runtime == name):
                    reason = next(gate.reason for gate in mine if gate.artifact == artifact)
                    return f"the runtime {name} was required but did not run {artifact}: {reason}"
    return None
