"""evidence/latency.json and the raw times beside it: read, and written without losing what else stands there.

In: a bundle, and what this host or a device was measured to take. Out: the file with that in the place of an earlier
measurement of the same host or device, the others as they were.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from melanoma_edge.convert.bundle import EVIDENCE, MANIFEST, Bundle
from melanoma_edge.errors import BadInput
from melanoma_edge.files import explained, sha256_file, write_bytes, write_json
from melanoma_edge.proof.latency_model import AdbFacts, BrowserFacts, DeviceLatency, HostLatency, Latency

SUMMARY = "latency.json"
SAMPLES = "latency-samples.json.gz"
DAMAGED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What :func:`parse` raises for bytes that are no latency.json."""
LARGEST_SAMPLES = 256 * 2**20
"""Bytes that raw times may unpack to."""


def parse(content: bytes) -> Latency:
    """Return the measurements that the bytes of a latency.json hold, of this layout or of the first; raises one of DAMAGED for others."""
    held = json.loads(content)
    if isinstance(held, dict) and held.get("schema_version") == 1:
        held = _from_first(held)
    return Latency.model_validate_json(json.dumps(held))


def read(bundle: Bundle) -> Latency:
    """Return what was measured of this state of the bundle so far: nothing where nothing was, or of another state. Raises BadInput for a file that cannot be read."""
    nothing = Latency(bundle=bundle.manifest.name, manifest_sha256=sha256_file(bundle.path / MANIFEST), host=None)
    path = bundle.path / EVIDENCE / SUMMARY
    try:
        found = parse(path.read_bytes())
    except FileNotFoundError:
        return nothing
    except DAMAGED:
        raise BadInput(f"{path} is no latency.json of a version that this one knows, and may hold measurements of devices: move it away, then measure again") from None
    return found if found.manifest_sha256 == nothing.manifest_sha256 else nothing


def keep_host(bundle: Bundle, samples: Sequence[dict], **figures: Any) -> Latency:
    """Write the measurement of this host, of :class:`HostLatency` with `figures`, and its raw times; return all that the file holds."""
    name, packed = SAMPLES, pack(bundle, figures["date"], samples)
    host = HostLatency(samples=name, samples_sha256=hashlib.sha256(packed).hexdigest(), **figures)
    return _write(bundle, read(bundle).model_copy(update={"host": host}), name, packed)


def keep_device(bundle: Bundle, samples: Sequence[dict] | None, **figures: Any) -> Latency:
    """Write the measurement of a device, of :class:`DeviceLatency` with `figures`, and its raw times, if it gave any; return all that the file holds."""
    held = read(bundle)
    figures |= {"name": _name_of_its_own(held.devices, figures["name"], figures["facts"])}
    name = f"latency-{figures['facts'].kind}-{_slug(figures['name'])}.json.gz" if samples else None
    packed = pack(bundle, figures["date"], samples) if samples else b""
    device = DeviceLatency(samples=name, samples_sha256=hashlib.sha256(packed).hexdigest() if samples else None, **figures)
    others = tuple(one for one in held.devices if (one.name, one.facts.kind) != (device.name, device.facts.kind))
    return _write(bundle, held.model_copy(update={"devices": (*others, device)}), name, packed)


def has_better(bundle: Bundle, name: str, facts: BrowserFacts | AdbFacts, *, quick: bool, timed: int) -> bool:
    """Return whether :func:`keep_device` would replace a better measurement of this device by an incomplete one of `timed` runtimes: one by the full protocol before one by
    the quick one, then a complete one, then the one of more runtimes."""
    known = read(bundle).devices
    called = _name_of_its_own(known, name, facts)
    worth = lambda one: (not one.quick, one.complete, sum(runtime.status == "timed" for runtime in one.runtimes))
    return any(worth(one) > (not quick, False, timed) for one in known if (one.name, one.facts.kind) == (called, facts.kind))


def pack(bundle: Bundle, date: str, samples: Sequence[dict]) -> bytes:
    """Return raw times as compressed JSON without a time stamp in it.

    `samples` is a row a runtime: `runtime`, `threads`, `accelerator` and `artifacts`, {name: its runs in microseconds, of each round, of each process}.
    """
    held = {"schema_version": 2, "unit": "microseconds", "date": date, "manifest_sha256": sha256_file(bundle.path / MANIFEST), "rows": list(samples)}
    return gzip.compress(json.dumps(held, separators=(",", ":"), allow_nan=False).encode("utf-8"), mtime=0)


def samples_of(path: Path, sha256: str) -> list[tuple[str, int, dict[str, np.ndarray]]]:
    """Return (runtime, threads, {artifact: its runs in milliseconds}) of a file of raw times.

    Raises BadInput where its bytes are not those of `sha256`, OSError and ValueError where it cannot be read.
    """
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise BadInput(f"{EVIDENCE}/{path.name} does not belong to these figures: measure again")
    with gzip.open(path) as stream:
        text = stream.read(LARGEST_SAMPLES + 1)
    if len(text) > LARGEST_SAMPLES:
        raise ValueError("too large")
    held = json.loads(text)
    rows = held["rows"] if "rows" in held else [{"runtime": name, "threads": 0, "artifacts": {key: [rounds] for key, rounds in of.items()}} for name, of in held["runtimes"].items()]
    joined = lambda processes: np.concatenate([np.asarray(times, np.float64) for rounds in processes for times in rounds]) / 1000
    return [(row["runtime"], row["threads"], {name: joined(processes) for name, processes in row["artifacts"].items()}) for row in rows]


def _write(bundle: Bundle, held: Latency, name: str | None, packed: bytes) -> Latency:
    """Write the raw times, then the summary that names them."""
    evidence = bundle.path / EVIDENCE
    with explained(evidence):
        evidence.mkdir(exist_ok=True)
    if name:
        write_bytes(evidence / name, packed)
    write_json(evidence / SUMMARY, held.model_dump(mode="json"))
    return held


def _name_of_its_own(known: Sequence[DeviceLatency], name: str, facts: BrowserFacts | AdbFacts) -> str:
    """Return `name`, with a number behind it where another device is called so: browsers tell little, and many phones would be one."""
    taken = {device.name: _marks(device.facts) for device in known if device.facts.kind == facts.kind}
    candidates = (name if number == 1 else f"{name} ({number})" for number in itertools.count(1))
    return next(one for one in candidates if taken.get(one, _marks(facts)) == _marks(facts))


def _marks(facts: BrowserFacts | AdbFacts) -> tuple:
    """Return what tells two devices apart that are called alike."""
    return (facts.model, facts.cores, facts.screen, facts.memory_gb) if isinstance(facts, BrowserFacts) else (facts.model, facts.cores, facts.memory_bytes, facts.android)


def _slug(name: str) -> str:
    """Return a device's name as a part of a file's name that no other name of this bundle comes to."""
    return f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _from_first(held: dict) -> dict:
    """Return a latency.json of schema version 1, which knew one process a runtime, one number of threads and no device, as one of version 2."""
    host = {key: value for key, value in held.items() if key not in ("schema_version", "bundle", "manifest_sha256", "host")}
    runtimes = [
        runtime
        | {"threads": held["threads"]}
        | {"artifacts": [row | {"round_medians_ms": [row["round_medians_ms"]], "drift": None} for row in runtime["artifacts"]]}
        for runtime in held["runtimes"]
    ]
    never = "not measured by the version of melanoma-edge that wrote this"
    host |= {"plan": held["plan"] | {"processes": 1}, "threads": [held["threads"]], "runtimes": runtimes, "energy": {"status": "not run", "note": never}, "cross_checks": []}
    return {"schema_version": 2, "bundle": held["bundle"], "manifest_sha256": held["manifest_sha256"], "host": host, "devices": []}
