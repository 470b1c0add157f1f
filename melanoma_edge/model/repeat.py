"""Whether a run that repeats another (:func:`melanoma_edge.model.train.train`, `repeats`) came to the same, and what can explain it where not.

In: the two runs, or one and this machine. Out: words, or a refusal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from melanoma_edge import host
from melanoma_edge.errors import ProofFailed
from melanoma_edge.model import run as runs

PACKAGES = ("numpy", "pillow", "opencv-python-headless", "tensorflow", "tf_keras", "tensorflow-model-optimization")
"""Those of :data:`melanoma_edge.host.PACKAGES` that training computes with."""


def foreseen(run: runs.Run) -> list[str]:
    """Return in words what is otherwise here than where `run` was trained, and can move last digits."""
    said = _changes(_conditions(run.facts.conditions), _conditions(host.conditions()))
    ways = run.facts.computations
    return [*said, f"it was computed in {len(ways)} ways, one after the other; the last counts"] if len(ways) > 1 else said


def require_same(run: runs.Run, again: runs.Run) -> None:
    """Raise ProofFailed unless all weights of the run `again`, which repeats `run`, are the same to the bit; it names what can explain the difference."""
    differ = [which for which in run.facts.weights if not _same(run, again, which)]
    if not differ:
        return
    before, now = ({**_conditions(one.facts.conditions), **_devices(one)} for one in (run, again))
    why = _changes(before, now)
    explained = f"other conditions: {'; '.join(why)}" if why else "nothing that a run writes down explains it: has the program been changed?"
    raise ProofFailed(f"the {' and '.join(differ)} weights of {again.path} are not those of {run.path} ({explained})")


def _same(run: runs.Run, again: runs.Run, which: runs.Which) -> bool:
    """Return whether a file of weights holds the same bits: by its hash, else tensor by tensor, since what stands around them may be written otherwise by another version."""
    if run.facts.weights[which] == again.facts.weights.get(which):
        return True
    if which not in again.facts.weights:
        return False
    before, now = (runs.read_tensors(one.weights_file(which)) for one in (run, again))
    return before.keys() == now.keys() and all(value.dtype == now[name].dtype and value.shape == now[name].shape and value.tobytes() == now[name].tobytes() for name, value in before.items())


def _changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    return [f"{key} {now.get(key, 'none')}, was {before.get(key, 'none')}" for key in {**before, **now} if before.get(key) != now.get(key)]


def _conditions(found: Mapping[str, Any]) -> dict[str, str]:
    """Return in words the conditions that can move a last digit: the machine, Python, and the version of each package that computes."""
    cpu, versions = found.get("cpu", {}), found.get("versions", {})
    named = {
        "CPU": cpu.get("model"),
        # Sums that are shared out among other numbers of threads end in other digits.
        "cores": cpu.get("usable_cores") or cpu.get("logical_cores"),
        "CPU flags": " ".join(cpu.get("relevant_flags", ())),
        "GPUs": ", ".join(found.get("gpus", ())) or "none",
        "system": found.get("platform"),
        "Python": found.get("python"),
        "melanoma-edge": versions.get("melanoma-edge"),
    }
    return {key: str(value) for key, value in (named | {name: versions[name] for name in PACKAGES if name in versions}).items()}


def _devices(run: runs.Run) -> dict[str, str]:
    """Return in words what `run` was computed on; nothing where it does not say."""
    ways = [f"{one.device} ({', '.join(one.names)}) x {one.replicas}" for one in run.facts.computations]
    return {"devices": ", then ".join(ways)} if ways else {}
