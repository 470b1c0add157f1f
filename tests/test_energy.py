"""The energy meter, on a folder laid out as Linux lays out /sys/class/powercap."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_edge.runtimes.energy import Meter, NoMeter


def counter(folder: Path, name: str, value: int, most: int = 1_000_000, *, called: str = "package-0") -> Path:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "name").write_text(f"{called}\n")
    (folder / name / "energy_uj").write_text(f"{value}\n")
    (folder / name / "max_energy_range_uj").write_text(f"{most}\n")
    return folder / name / "energy_uj"


def test_packages_are_added_up_and_their_parts_are_not(tmp_path: Path) -> None:
    first, second = counter(tmp_path, "intel-rapl:0", 500), counter(tmp_path, "intel-rapl:1", 900)
    part = counter(tmp_path, "intel-rapl:0:0", 100, called="core")
    platform = counter(tmp_path, "intel-rapl:2", 100, called="psys")
    (tmp_path / "intel-rapl").mkdir()
    meter = Meter(tmp_path)
    assert meter.joules() == 0
    first.write_text("1500\n")
    second.write_text("2900\n")
    part.write_text("999\n")
    platform.write_text("9999\n")
    assert meter.joules() == pytest.approx(3000e-6)
    assert meter.joules() == pytest.approx(3000e-6)


@given(st.lists(st.integers(0, 999), min_size=1, max_size=30), st.integers(0, 999))
def test_counters_that_come_round_count_on(tmp_path_factory: pytest.TempPathFactory, steps: list[int], start: int) -> None:
    folder = tmp_path_factory.mktemp("powercap")
    file = counter(folder, "intel-rapl:0", start, most=1000)
    meter, told = Meter(folder), start
    for step in steps:
        told = (told + step) % 1000
        file.write_text(str(told))
        found = meter.joules()
    assert found == pytest.approx(sum(steps) * 1e-6)


def test_what_is_missing_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(NoMeter, match="shows no RAPL counters"):
        Meter(tmp_path / "nothing")
    with pytest.raises(NoMeter, match="shows no RAPL counters"):
        Meter(tmp_path)
    counter(tmp_path, "intel-rapl:0", 1).write_text("many\n")
    with pytest.raises(NoMeter, match="energy_uj cannot be read"):
        Meter(tmp_path)
