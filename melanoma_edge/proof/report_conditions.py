"""Where, when, how and from what everything in the report was made: its last section.

In: a :class:`~melanoma_edge.proof.report_data.Material`. Out: plain values that the template lays out.
"""

from __future__ import annotations

from typing import Any

from melanoma_edge import recipes
from melanoma_edge.contract import Manifest
from melanoma_edge.proof.report_data import Gap, Material
from melanoma_edge.runtimes.protocol import RUNTIMES


def conditions(material: Material, command: str) -> dict[str, Any]:
    """Return where and how everything was measured: a column an activity, a row a condition."""
    columns: dict[str, dict] = {}
    commands, dates = {}, {}
    if not isinstance(material.run, Gap):
        columns["training"], commands["training"] = material.run.facts.conditions, material.run.facts.command
    for name, found in (("verification", material.parity), ("latency", material.latency)):
        if not isinstance(found, Gap):
            columns[name] = found.conditions if isinstance(found.conditions, dict) else found.conditions.model_dump(mode="json")
            commands[name], dates[name] = found.command, found.date
    if not isinstance(material.parity, Gap):
        elsewhere = {name: what for name, what in material.parity.runtimes.items() if name not in RUNTIMES or RUNTIMES[name].place != "here"}
        columns["verification"] = columns["verification"] | {"versions": columns["verification"].get("versions", {}) | elsewhere}
    commands["this report"] = command
    described = {name: _described(held) for name, held in columns.items()}
    labels = dict.fromkeys(label for held in described.values() for label in held)
    return {
        "columns": list(columns),
        "rows": [(label, [described[name].get(label) for name in columns]) for label in labels],
        "dates": dates,
        "commands": commands,
        "facts": _identities(material),
        "recipe": recipes.to_toml(material.recipe) if material.recipe else "not known: the model came as a file",
    }


def _identities(material: Material) -> list[tuple[str, str]]:
    """Return seeds, hashes and times."""
    if material.recipe is None:
        found = _source_facts(material.bundle.manifest)
    else:
        found = [("recipe", material.recipe.name), ("seed of the training", str(material.recipe.seed))]
    scored = next((network.scores for network in material.networks if network.scores), None)
    if scored:
        drawn = scored.bootstrap
        found.append(("bootstrap", f"{drawn.get('replicates')} replicates of {drawn.get('unit')}s, seed {drawn.get('seed')}"))
    run = None if isinstance(material.run, Gap) else material.run
    if run or material.bundle.manifest.data:
        found.append(("data hash", run.facts.data_sha256 if run else material.bundle.manifest.data.sha256))
    weights = material.bundle.manifest.weights if material.bundle else run.facts.weights
    found += [(f"weights, {which}", sha256) for which, sha256 in weights.items()]
    if run:
        found.append(("peak memory of the training", f"{run.facts.peak_memory_bytes / 1e9:.2f} GB"))
    if material.bundle:
        found.append(("licence of the weights", material.bundle.manifest.licence))
    return found


def _source_facts(manifest: Manifest) -> list[tuple[str, str]]:
    """Return what is known of the model file that a bundle was made from, and what was declared of it."""
    source, taken = manifest.source, manifest.input
    numbers = f"{taken.channels}, bytes as {taken.value_range[0]:g} to {taken.value_range[1]:g}"
    if taken.mean != (0.0,) * 3 or taken.std != (1.0,) * 3:
        numbers += f", mean {', '.join(f'{value:g}' for value in taken.mean)}, standard deviation {', '.join(f'{value:g}' for value in taken.std)}"
    found = [("model file", source.file), ("model file, sha256", source.sha256), ("written by", source.written_by or "not stated")]
    found += [("changed", change) for change in source.changes]
    return [*found, ("declared input", numbers), ("output", manifest.output), ("training", "not known: nor its recipe, its data or what it has seen")]


def _fewer(cpu: dict) -> str:
    """Return how many cores the process had, where that is not all of them."""
    usable = cpu.get("usable_cores")
    return f", {usable} of them usable" if usable is not None and usable < cpu["logical_cores"] else ""


def _described(held: dict) -> dict[str, str]:
    """Return the conditions of one activity as {label: words}."""
    cpu = held.get("cpu") or {}
    found = {
        "system": held.get("platform"),
        "CPU": cpu.get("model"),
        "cores": None if "logical_cores" not in cpu else f"{cpu.get('physical_cores') or '?'} physical, {cpu['logical_cores']} logical" + _fewer(cpu),
        "CPU flags that choose kernels": ", ".join(cpu.get("relevant_flags", ())) or None,
        "frequency governor": cpu.get("governor") or "hidden by the system",
        "memory": f"{held['memory_bytes'] / 1e9:.1f} GB" if "memory_bytes" in held else None,
        "GPU": "; ".join(held.get("gpus", ())) or "none",
        "python": held.get("python"),
        **held.get("versions", {}),
    }
    return {label: str(value) for label, value in found.items() if value is not None}
