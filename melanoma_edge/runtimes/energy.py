"""The processor's own energy counters (RAPL), where the system shows them.

In: /sys/class/powercap, which Linux fills for Intel's and AMD's processors. Out: joules that the processor's packages took
between two looks, everything on them included: other programs and idling too.
"""

from __future__ import annotations

import re
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
_PACKAGE = re.compile(r"intel-rapl:\d+")
"""A package's folder; those of its parts have another number behind it (Linux, Documentation/power/powercap/powercap.rst). AMD's are called so too."""


class NoMeter(Exception):
    """Energy cannot be measured here; one line that says why."""


class Meter:
    """Counts the joules of all packages since it was made; raises NoMeter where the system shows no counter, or not to this user."""

    def __init__(self, powercap: Path = POWERCAP) -> None:
        zones = sorted(path for path in powercap.glob("intel-rapl:*") if _PACKAGE.fullmatch(path.name)) if powercap.is_dir() else []
        self._packages = [path for path in zones if _name(path).startswith("package")]  # beside them stands psys, the whole platform, on many laptops
        if not self._packages:
            raise NoMeter(f"the system shows no RAPL counters ({powercap}): virtual machines hide them, and Arm has none")
        self._ranges = {path: self._number(path / "max_energy_range_uj") for path in self._packages}
        self._last = {path: self._number(path / "energy_uj") for path in self._packages}
        self._microjoules = 0

    def joules(self) -> float:
        """Return what was taken so far. A counter that came to its end began again at 0: ask more often than it comes round (a minute at full load)."""
        for path in self._packages:
            now = self._number(path / "energy_uj")
            step = now - self._last[path]
            self._microjoules += step if step >= 0 else step + self._ranges[path]
            self._last[path] = now
        return self._microjoules / 1e6

    def _number(self, path: Path) -> int:
        try:
            return int(path.read_text(encoding="ascii"))
        except PermissionError:
            raise NoMeter(f"only the superuser may read {path}: run it as one, or `chmod a+r {path}`") from None
        except (OSError, ValueError) as error:
            raise NoMeter(f"{path} cannot be read ({error})") from None


def _name(zone: Path) -> str:
    try:
        return (zone / "name").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
