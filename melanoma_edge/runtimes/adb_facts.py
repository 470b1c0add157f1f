"""What an Android device says of itself, and of how warm and how full it is.

In: a device. Out: facts, null where the device does not tell, and what is missing and why, in words. Nothing that names one device
among others of its model (its serial number, its addresses) is asked for.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from melanoma_edge.runtimes.adb import Device
from melanoma_edge.runtimes.protocol import one_line

PROPERTIES = {
    "manufacturer": "ro.product.manufacturer",
    "model": "ro.product.model",
    "soc_maker": "ro.soc.manufacturer",
    "soc_model": "ro.soc.model",
    "board": "ro.board.platform",
    "release": "ro.build.version.release",
    "sdk": "ro.build.version.sdk",
    "abi": "ro.product.cpu.abi",
    "abis": "ro.product.cpu.abilist",
}
THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
"""Of android.os.PowerManager, THERMAL_STATUS_*."""
NOT_DEGREES = frozenset({6, 7, 8})
"""Types of android.os.Temperature that are a battery's voltage, current and charge."""
BATTERY_STATUS = {2: "charging", 3: "discharging", 4: "not charging", 5: "full"}
"""Of android.os.BatteryManager, BATTERY_STATUS_*."""
MACHINES = {"aarch64": "arm64-v8a", "armv7l": "armeabi-v7a", "armv8l": "armeabi-v7a", "x86_64": "x86_64", "i686": "x86", "riscv64": "riscv64"}
"""Android's name of what the kernel calls a machine."""

_PROPERTIES = 'command -v getprop >/dev/null || exit 127; for name in "$@"; do printf "%s=%s\\n" "$name" "$(getprop "$name")"; done'
_ZONES = 'for zone in /sys/class/thermal/thermal_zone*; do printf "%s=%s\\n" "$(cat "$zone/type" 2>/dev/null)" "$(cat "$zone/temp" 2>/dev/null)"; done'


@dataclass(frozen=True)
class Identity:
    """What does not change while a device is measured."""

    manufacturer: str | None
    model: str | None
    soc: str | None
    android: str | None
    abi: str | None
    runs: tuple[str, ...]
    """ABIs whose programs it runs, best first; from the kernel's machine where Android does not say; empty where neither does."""
    cores: int | None
    memory_bytes: int | None
    missing: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its maker and model, as in `Google Pixel 8`."""
        words = [word for word in (self.manufacturer, self.model) if word]
        if len(words) == 2 and self.model.lower().startswith(self.manufacturer.lower()):
            words = [self.model]
        return " ".join(words) or f"Android device of unknown model ({self.runs[0] if self.runs else 'unknown processor'})"


@dataclass(frozen=True)
class State:
    """What changes while a device is measured."""

    thermal: str | None
    temperatures: dict[str, float]
    """Degrees Celsius."""
    battery: str | None
    missing: dict[str, str]
    """What is not known, and why."""


def identity(device: Device) -> Identity:
    """Return who the device is; raises Missing where it went away."""
    asked = device.script(_PROPERTIES, *PROPERTIES.values())
    said = dict(line.split("=", 1) for line in asked.out.splitlines() if "=" in line)
    found = {name: _short(said.get(key, "")) for name, key in PROPERTIES.items()}
    soc = " ".join(filter(None, (found["soc_maker"], found["soc_model"]))) or found["board"]
    android = f"{found['release']} (SDK {found['sdk']})" if found["release"] and found["sdk"] else found["release"]
    facts = {"manufacturer": found["manufacturer"], "model": found["model"], "SoC": soc, "Android version": android, "ABI": found["abi"]}
    without = [name for name, value in facts.items() if value is None]
    why = "the device has no getprop" if asked.code == 127 else "getprop does not tell"
    cores, memory = _cores(device), _memory(device)
    missing = [f"{', '.join(without)}: {why}"] if without else []
    missing += [f"{name}: the device does not tell" for name, value in (("number of cores", cores), ("memory", memory)) if value is None]
    machine = MACHINES.get(device.shell("uname", "-m").out.strip())
    abis = (found["abis"] or found["abi"] or machine or "").split(",")
    return Identity(found["manufacturer"], found["model"], soc, android, found["abi"], tuple(filter(None, abis)), cores, memory, tuple(missing))


def state(device: Device) -> State:
    """Return how warm and how full the device is now; raises Missing where it went away."""
    said = device.shell("dumpsys", "thermalservice").out
    thermal, temperatures = thermal_status(said), hal_temperatures(said)
    if not temperatures:
        temperatures = zone_temperatures(device.script(_ZONES).out)
    battery = battery_in_words(device.shell("dumpsys", "battery").out)
    lacking = {
        "thermal status": (thermal is None, "dumpsys thermalservice does not tell"),
        "temperatures": (not temperatures, "no sensor may be read"),
        "battery": (battery is None, "dumpsys battery does not tell"),
    }
    return State(thermal, temperatures, battery, {name: why for name, (lacks, why) in lacking.items() if lacks})


def thermal_status(said: str) -> str | None:
    """Return the system's thermal status in words, from what `dumpsys thermalservice` said."""
    found = re.search(r"^\s*Thermal Status: (\d{1,2})\s*$", said, flags=re.MULTILINE)
    number = int(found[1]) if found else len(THERMAL_STATUS)
    return THERMAL_STATUS[number] if number < len(THERMAL_STATUS) else None


def hal_temperatures(said: str) -> dict[str, float]:
    """Return {sensor: degrees Celsius} of the current readings, not of the cached ones, in what `dumpsys thermalservice` said."""
    current = said.partition("Current temperatures from HAL:")[2].partition("Current cooling devices from HAL:")[0]
    rows = re.findall(r"Temperature\{mValue=(-?[0-9.]{1,12}), mType=(-?\d{1,3}), mName=([^,}\n]{1,60}),", current)
    return {_short(name): degrees for value, kind, name in rows if int(kind) not in NOT_DEGREES and _short(name) and (degrees := _degrees(value, 1)) is not None}


def zone_temperatures(said: str) -> dict[str, float]:
    """Return {zone: degrees Celsius} of lines `type=temp` of /sys/class/thermal, whose unit is a thousandth of a degree."""
    found: dict[str, float] = {}
    for line in said.splitlines():
        name, _, value = line.rpartition("=")
        degrees = _degrees(value.strip(), 1000)
        if _short(name) and degrees is not None:
            found.setdefault(_short(name), degrees)
    return found


def battery_in_words(said: str) -> str | None:
    """Return `83 %, charging over USB, 29.1 degrees Celsius` from what `dumpsys battery` said."""
    fields: dict[str, str] = {}
    for line in said.partition("Current Battery Service state:")[2].splitlines():
        name, _, value = line.strip().partition(": ")
        fields.setdefault(name, value.strip())
    number = lambda name: int(fields[name]) if re.fullmatch(r"-?\d{1,6}", fields.get(name, "")) else None
    level, scale, status, tenths = (number(name) for name in ("level", "scale", "status", "temperature"))
    if level is None or (scale is not None and scale <= 0):
        return None
    over = " and ".join(name for name in ("AC", "USB", "Wireless") if fields.get(f"{name} powered") == "true")
    source = "" if not over else f" over {over}" if status == 2 else f", powered by {over}"
    words = [f"{round(100 * level / (scale or 100))} %", BATTERY_STATUS.get(status, "charging unknown") + source]
    return ", ".join(words + ([] if tenths is None else [f"{tenths / 10:.1f} degrees Celsius"]))


def _cores(device: Device) -> int | None:
    """Return how many cores the device has, sleeping ones included."""
    said = device.shell("cat", "/sys/devices/system/cpu/present")
    ranges = re.fullmatch(r"(\d{1,4}(?:-\d{1,4})?)(,\d{1,4}(?:-\d{1,4})?)*", said.out.strip())
    if said.code == 0 and ranges:
        ends = [part.split("-") for part in said.out.strip().split(",")]
        return sum(int(part[-1]) - int(part[0]) + 1 for part in ends) or None
    counted = device.shell("nproc").out.strip()
    return int(counted) if re.fullmatch(r"[1-9]\d{0,3}", counted) else None


def _memory(device: Device) -> int | None:
    found = re.search(r"^MemTotal:\s+(\d{1,12}) kB$", device.shell("cat", "/proc/meminfo").out, flags=re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _degrees(value: str, divisor: int) -> float | None:
    """Return a temperature; None for what is none: text, and what disconnected sensors report."""
    try:
        degrees = float(value) / divisor
    except ValueError:
        return None
    return round(degrees, 1) if math.isfinite(degrees) and -40 <= degrees <= 150 and degrees != 0 else None


def _short(text: str) -> str | None:
    """Return a device's word for something, fit for a file that is published; None for none."""
    return one_line(Exception(text), 80) if text.strip() else None
