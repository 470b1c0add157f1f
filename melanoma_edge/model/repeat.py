"""Repeating a run from its directory alone: everything that its weights follow from stands in there, but for the pictures.

In: a complete run. Out: the arguments of :func:`melanoma_edge.model.train.train` that do it again, and a refusal where the result is not the same to the bit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from melanoma_edge.errors import ProofFailed
from melanoma_edge.model import run as runs
from melanoma_edge.model.devices import ONE_CPU


def arguments(run: runs.Run, data: Path | None = None, metadata: Path | None = None) -> dict[str, Any]:
    """Return what trains `run` again, by name: its recipe, data set, licences and arithmetic, with the hash that its pictures have to have.

    Its pictures are sought where they were, or at `data`, with the table `metadata` where the run had one. Weights to start from are the run's own copy.
    """
    facts, last = run.facts, run.facts.computations[-1] if run.facts.computations else ONE_CPU
    if data is None:
        data, metadata = Path(facts.data), metadata or (Path(facts.metadata) if facts.metadata else None)
    recipe = run.recipe if facts.init_sha256 is None else run.recipe.model_copy(update={"init": str((run.path / runs.INIT_FILE).resolve())})
    return {
        "data": data,
        "metadata": metadata,
        "recipe": recipe,
        "licences": facts.licences,
        "device": last.device,
        "mixed_precision": last.mixed_precision,
        "xla": last.xla,
        "data_sha256": facts.data_sha256,
    }


def require_same(run: runs.Run, again: runs.Run) -> None:
    """Raise ProofFailed unless all weights of the run `again`, which repeats `run`, are the same to the bit; it names what can explain the difference."""
    differ = [name for name in run.facts.weights if run.facts.weights[name] != again.facts.weights.get(name)]
    if not differ:
        return
    before, now = (_conditions(one) for one in (run, again))
    why = [f"{key} {now.get(key)}, was {value}" for key, value in before.items() if value != now.get(key)]
    explained = f"other conditions: {'; '.join(why)}" if why else "nothing that a run writes down explains it: has the program been changed?"
    raise ProofFailed(f"the {' and '.join(differ)} weights of {again.path} are not those of {run.path} ({explained})")


def _conditions(run: runs.Run) -> dict[str, str]:
    """Return in words the conditions that can move a last digit: devices, CPU, Python, and the version of each package."""
    found = run.facts.conditions
    cpu = found.get("cpu", {})
    devices = ", then ".join(f"{one.device} x {one.replicas}" for one in run.facts.computations or (ONE_CPU,))
    named = {"devices": devices, "CPU": cpu.get("model"), "cores": cpu.get("logical_cores"), "CPU flags": " ".join(cpu.get("relevant_flags", ())), "Python": found.get("python")}
    return {key: str(value) for key, value in (named | found.get("versions", {})).items()}
