"""What the report says of each device that was measured.

In: a device's part of latency.json. Out: (label, words) in the order of the page.
"""

from __future__ import annotations

from melanoma_edge.proof.latency_model import AdbFacts, BrowserFacts, DeviceLatency


def facts(device: DeviceLatency) -> list[tuple[str, str]]:
    """Return what is known of the device; what it did not tell is left to `missing`."""
    told = _of_browser(device.facts) if isinstance(device.facts, BrowserFacts) else _of_android(device.facts)
    told += [("Measured by", device.command), ("Protocol", f"{device.plan.runs} runs and {device.plan.seconds:g} s an artifact at least, in {device.plan.rounds} rounds")]
    return [(label, str(value)) for label, value in told if value not in (None, "", {})]


def _of_browser(found: BrowserFacts) -> list[tuple[str, object]]:
    return [
        ("Browser", found.browser),
        ("Model", found.model),
        ("Cores", found.cores),
        ("Memory class", None if found.memory_gb is None else f"{found.memory_gb:g} GB or so"),
        ("Screen", found.screen + (", touch" if found.touch else "")),
        ("Secure context", _yes(found.secure_context)),
        ("Isolated from other origins", _yes(found.cross_origin_isolated)),
        ("GPU, by WebGPU", found.gpu),
        ("Step of its clock", f"{found.clock_us:g} microseconds"),
        ("User agent", found.user_agent),
    ]


def _of_android(found: AdbFacts) -> list[tuple[str, object]]:
    return [
        ("Model", " ".join(filter(None, (found.manufacturer, found.model)))),
        ("SoC", found.soc),
        ("Android", found.android),
        ("ABI", found.abi),
        ("Cores", found.cores),
        ("Memory", None if found.memory_bytes is None else f"{found.memory_bytes / 1e9:.1f} GB"),
        ("Thermal status before, after", _both(found.thermal_before, found.thermal_after)),
        ("Temperatures before", _degrees(found.temperatures_before)),
        ("Temperatures after", _degrees(found.temperatures_after)),
        ("Battery before, after", _both(found.battery_before, found.battery_after)),
        ("benchmark_model", f"{found.benchmark}, sha256 {found.benchmark_sha256[:12]}..."),
    ]


def _degrees(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g} °C" for name, value in found.items())


def _both(before: str | None, after: str | None) -> str | None:
    return None if before is None and after is None else f"{before or 'not told'}; {after or 'not told'}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
