"""Two latency.json files side by side: faster, slower, or cannot tell.

In: two files, or the bundles that hold them. Out: a row for each artifact that both timed in the same runtime, on the same number of threads and on
the same kind of device, with the 95 % interval of the ratio. Processes are drawn again, and rounds within them: rounds of one process agree
better than two measurements of the same thing do (benchmarks/README.md shows by how much).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from melanoma_edge.convert.bundle import EVIDENCE
from melanoma_edge.errors import BadInput, ProofFailed
from melanoma_edge.proof import latency_file
from melanoma_edge.proof.bench_compare_model import CANNOT_TELL, FASTER, SLOWER, Compared, LatencyComparison
from melanoma_edge.proof.latency_model import ArtifactLatency, DeviceLatency, HostLatency, Latency, RuntimeLatency
from melanoma_edge.resampling import medians_drawn_again

BOUND = 1.05
REPLICATES = 2000
SEED = 1
_HOST = "host"
_READINGS = frozenset({"kind", "missing", "clock_us", "temperatures_before", "temperatures_after", "battery_before", "battery_after"})
"""Facts of a device that are never twice the same, or said elsewhere."""

Row = tuple[HostLatency | DeviceLatency, RuntimeLatency, ArtifactLatency]
Key = tuple[str, str, str, int, str, str]


def compare(base: Path, new: Path, *, bound: float = BOUND) -> LatencyComparison:
    """Compare the measurement `new` with `base`; each is a latency.json or a bundle. Raises BadInput for what is none, and where they share nothing."""
    if not 0 < bound < float("inf"):
        raise BadInput(f"the bound is {bound:g}: expected a ratio above 0, such as {BOUND}")
    before, after = _read(base), _read(new)
    old, young = _rows(before), _rows(after)
    rows = tuple(_compared(key, old[key], young[key], bound) for key in old if key in young)
    if not rows:
        raise BadInput(f"{base} and {new} timed nothing alike: expected the same runtime, threads and kind of artifact in both; run `melanoma-edge bench` for both in the same way")
    return LatencyComparison(
        base=base.resolve().name,
        new=new.resolve().name,
        bound=bound,
        replicates=REPLICATES,
        seed=SEED,
        differences=(*_differences(before.host, after.host), *_of_devices(before, after)),
        rows=rows,
        not_compared=tuple(
            f"{_words(key)}: in {side} only" for side, mine, theirs in (("base", old, young), ("new", young, old)) for key in mine if key not in theirs
        ),
    )


def refuse_regressions(found: LatencyComparison) -> None:
    """Raise ProofFailed that names the rows beyond the bound, if there are any."""
    if found.regressions:
        worst = "; ".join(f"{row.precision} {row.format} in {row.runtime} on {row.where}: {row.ratio:.3f} ({row.low:.3f} to {row.high:.3f})" for row in found.regressions)
        raise ProofFailed(f"{len(found.regressions)} of {len(found.rows)} take more than {found.bound:g} times as long as before: {worst}")


def interval(base: ArtifactLatency, new: ArtifactLatency) -> tuple[float, float] | None:
    """Return the 95 % interval of the ratio of typical times, new to base, by a two-stage bootstrap; None where either has one round only."""
    generator = np.random.default_rng(SEED)
    mine, theirs = _drawn(base, generator), _drawn(new, generator)
    if mine is None or theirs is None:
        return None
    low, high = np.percentile(theirs / mine, (2.5, 97.5))
    return float(low), float(high)


def _drawn(row: ArtifactLatency, generator: np.random.Generator) -> np.ndarray | None:
    """Return REPLICATES medians of rounds drawn again; None where there is one round only."""
    processes = [np.asarray(rounds, np.float64) for rounds in row.round_medians_ms if rounds]
    if sum(map(len, processes)) < 2:
        return None
    return medians_drawn_again(processes, REPLICATES, generator)


def _read(path: Path) -> Latency:
    """Return what a latency.json, or that of a bundle, holds."""
    file = path / EVIDENCE / latency_file.SUMMARY if path.is_dir() else path
    try:
        return latency_file.parse(file.read_bytes())
    except OSError as error:
        what = f"no {EVIDENCE}/{latency_file.SUMMARY}" if path.is_dir() and isinstance(error, FileNotFoundError) else f"{error.strerror}"
        raise BadInput(f"{path} cannot be compared ({what}): expected a latency.json or a bundle that was measured; run `melanoma-edge bench` first") from None
    except latency_file.DAMAGED:
        raise BadInput(f"{path} is no latency.json of a version that this one knows: expected what `melanoma-edge bench` writes; measure again") from None


def _rows(held: Latency) -> dict[Key, Row]:
    """Return every row that was timed, under what makes two rows the same thing."""
    found: dict[Key, Row] = {}
    for place in (*([held.host] if held.host else ()), *held.devices):
        where = place.name if isinstance(place, DeviceLatency) else _HOST
        for runtime in place.runtimes:
            for row in runtime.artifacts:
                found[where, runtime.name, runtime.accelerator, runtime.threads, row.format, row.precision] = (place, runtime, row)
    return found


def _compared(key: Key, base: Row, new: Row, bound: float) -> Compared:
    where, runtime, accelerator, threads, kind, precision = key
    mine, theirs = base[2], new[2]
    if not min(mine.p50_ms, theirs.p50_ms, *(time for row in (mine, theirs) for rounds in row.round_medians_ms for time in rounds)) > 0:
        raise BadInput(f"a time of nothing stands for {_words(key)}: measure again")
    found = interval(mine, theirs)
    why_not = _why_not(base, new) or ("there is one round only" if found is None else None)
    verdict = CANNOT_TELL if why_not or found[0] <= 1 <= found[1] else FASTER if found[1] < 1 else SLOWER
    low, high = found or (None, None)
    return Compared(
        where=where, runtime=runtime, accelerator=accelerator, threads=threads, format=kind, precision=precision, base_ms=mine.p50_ms, new_ms=theirs.p50_ms,
        ratio=theirs.p50_ms / mine.p50_ms, low=low, high=high, verdict=verdict, reason=why_not, regression=why_not is None and low is not None and low > bound,
    )  # fmt: skip


def _why_not(base: Row, new: Row) -> str | None:
    """Return why two rows say nothing, whatever their numbers are."""
    for side, (place, _, row) in (("base", base), ("new", new)):
        if place.quick:
            return f"{side} was measured with --quick"
        if row.verdict != "stable":
            return f"{side} is noisy"
        if len(row.round_medians_ms) < 2:
            return f"{side} is of one process, whose rounds say nothing of another measurement"
        if row.golden is not None and row.golden.outcome == "failed":
            return f"{side} computes other numbers than its bundle says"
    return None


def _differences(base: HostLatency | None, new: HostLatency | None) -> Iterator[str]:
    """Yield the conditions of this host's measurements that differ."""
    if base is None or new is None:
        return
    before, after = base.conditions, new.conditions
    pairs = [("CPU", before.cpu.model, after.cpu.model), ("CPU flags", before.cpu.relevant_flags, after.cpu.relevant_flags)]
    pairs += [("cores", before.cpu.logical_cores, after.cpu.logical_cores), ("governor", before.cpu.governor, after.cpu.governor), ("system", before.platform, after.platform)]
    pairs += [("protocol", base.plan, new.plan), ("Python", before.python, after.python)]
    pairs += [(name, before.versions.get(name), after.versions.get(name)) for name in sorted({*before.versions, *after.versions})]
    yield from _unlike(pairs)


def _of_devices(before: Latency, after: Latency) -> Iterator[str]:
    """Yield the conditions that differ of the devices that both measured."""
    young = {(one.name, one.facts.kind): one for one in after.devices}
    for base in before.devices:
        new = young.get((base.name, base.facts.kind))
        if new is None:
            continue
        pairs = [(name.replace("_", " "), getattr(base.facts, name), getattr(new.facts, name)) for name in type(base.facts).model_fields if name not in _READINGS]
        pairs += [("protocol", base.plan, new.plan)]
        versions = [{f"version of {one.name}": one.version for one in side.runtimes} for side in (base, new)]
        pairs += [(name, versions[0][name], versions[1][name]) for name in sorted(versions[0].keys() & versions[1].keys())]
        yield from (f"{base.name}, {line}" for line in _unlike(pairs))


def _unlike(pairs: list[tuple[str, object, object]]) -> Iterator[str]:
    """Yield a line for each of `pairs`, (what it is, before, after), that differ."""
    for what, mine, theirs in pairs:
        if mine != theirs:
            yield f"{what}: {_said(mine)}, then {_said(theirs)}"


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else "none" if value is None else str(value)


def _words(key: Key) -> str:
    where, runtime, accelerator, threads, kind, precision = key
    on = "" if accelerator == "cpu" else f" on {accelerator}"
    return f"{precision} {kind} in {runtime}{on}, {threads} thread{'s' * (threads > 1)}, {where}"
