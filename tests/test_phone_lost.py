"""What becomes of a measurement when its phone goes away, or answers nonsense: by a phone of the tests, which does so at a chosen command."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import read_json, validate
from test_phone import RUNS, TOLD
from tiny_bundle import write_bundle

from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.errors import Missing
from melanoma_edge.proof import bench_phone, latency_file
from melanoma_edge.proof.latency_model import DeviceLatency
from melanoma_edge.proof.phone_device import FULL
from melanoma_edge.runtimes.page_server import PageFailed, PageRefused

MILLISECONDS = 5.0
Answer = bytes | Exception | None


class Phone:
    """Stands for the server and the phone that talks with it; `instead` may give another answer, or what to raise, for a command and its number among those of its kind."""

    def __init__(self, bundle: Path, instead: Callable[[str, int], Answer]) -> None:
        self.golden, self.instead, self.asked, self.port = open_bundle(bundle).golden, instead, [], 1
        self.opened = threading.Event()

    def __call__(self, files: object, **_: object) -> Phone:
        return self

    def url_for(self, host: str) -> str:
        return f"http://{host}/"

    def publish(self, name: str, content: object) -> None:
        pass

    def close(self) -> None:
        pass

    def ask(self, kind: str, *, silence: float, **details) -> bytes:
        self.opened.set()
        self.asked.append(kind)
        answer = self.instead(kind, self.asked.count(kind))
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            return answer
        if kind == "logits":
            return self.golden.expected(details["key"]).astype("<f4").tobytes()
        if kind == "times":
            return np.full(max(details["runs"], round(1000 * details["seconds"] / MILLISECONDS)), MILLISECONDS, "<f8").tobytes()
        told = {"facts": TOLD, "open": {"name": "x", "milliseconds": 1.0}, "load": {"load_ms": 1.0, "first_ms": 1.0, "inputs": [], "outputs": []}, "close": {}, "show": {"hidden": 0}}
        return json.dumps(told[kind]).encode()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "tiny.bundle")


@pytest.fixture
def measure(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DeviceLatency]:
    """Measure by the whole protocol, on one thread; the packages of the page are not needed, for nobody fetches them."""
    monkeypatch.setattr(bench_phone.browser, "require_packages", lambda: None)
    monkeypatch.setattr(bench_phone.browser, "files", lambda engine: {})
    monkeypatch.setattr(bench_phone.browser, "version_of", lambda engine: "1")

    def run(instead: Callable[[str, int], Answer] = lambda kind, number: None, *, quick: bool = False) -> DeviceLatency:
        monkeypatch.setattr(bench_phone, "PageServer", Phone(bundle, instead))
        found = bench_phone.bench_phone(bundle, invite=lambda invitation: None, threads=[1], quick=quick)
        assert found.model_dump(mode="json") == read_json(bundle / "evidence" / "latency.json")
        validate(found.model_dump(mode="json"), "latency")
        return found.devices[-1]

    return run


def gone(at: str, number: int) -> Callable[[str, int], Answer]:
    """A phone that goes away when it is asked for `at` the `number`th time, and does not come back."""
    lost = []

    def instead(kind: str, count: int) -> Answer:
        lost.extend([True] if (kind, count) == (at, number) else [])
        return PageFailed("the page was closed") if lost else None

    return instead


def timed(device: DeviceLatency) -> list[str]:
    return [row.name for row in device.runtimes if row.status == "timed"]


OF_ONE_FILE = FULL.rounds + 1
"""Answers with times: those of the warm-up and of each round."""


def test_a_phone_that_stays_is_measured_whole(measure: Callable) -> None:
    device = measure()
    assert device.complete and device.comparable and timed(device) == list(RUNS)
    assert not any("lost" in line for line in device.facts.missing)


@pytest.mark.parametrize(
    ("at", "number", "kept"),
    [
        ("times", 2 * OF_ONE_FILE + 1, RUNS[:1]),  # the third file is that of the second runtime
        ("open", 2, RUNS[:1]),
        ("close", 1, RUNS[:1]),
        ("close", 2, RUNS),
        ("show", 1, RUNS),
    ],
)
def test_what_was_finished_is_kept_and_no_more(measure: Callable, bundle: Path, at: str, number: int, kept: tuple[str, ...]) -> None:
    device = measure(gone(at, number))
    assert not device.complete and not device.comparable and timed(device) == list(kept)
    assert {row.reason for row in device.runtimes if row.name in RUNS[len(kept) :] and row.accelerator == "cpu"} <= {"the device was lost before this was done"}
    assert device.facts.missing[-1] == "the device was lost before the end (the page was closed): measure again"
    with pytest.raises(Missing, match="was lost before the end: what it had done is kept"):
        bench_phone.refuse_flaws(latency_file.read(open_bundle(bundle)))


@pytest.mark.parametrize(("at", "number"), [("facts", 1), ("open", 1), ("load", 1), ("logits", 2), ("times", 1)])
def test_a_phone_that_had_finished_nothing_leaves_nothing(measure: Callable, bundle: Path, at: str, number: int) -> None:
    with pytest.raises(Missing, match="the device was lost: the page was closed; open the new address"):
        measure(gone(at, number))
    assert not (bundle / "evidence").exists()


def test_less_never_takes_the_place_of_more(measure: Callable, bundle: Path) -> None:
    summary, during_second = bundle / "evidence" / "latency.json", gone("open", 2)
    measure(gone("show", 1))
    before = {file.name: file.read_bytes() for file in summary.parent.iterdir()}
    with pytest.raises(Missing, match="the page was closed; what was measured of it before is more, and stands as it was"):
        measure(gone("open", 2))
    with pytest.raises(Missing, match="is more"):
        measure(gone("show", 1), quick=True)
    assert {file.name: file.read_bytes() for file in summary.parent.iterdir()} == before
    assert measure().complete
    with pytest.raises(Missing, match="is more"):
        measure(during_second)
    assert measure(quick=True).quick, "a whole measurement takes the place of any"
    assert not measure(gone("open", 2)).quick, "what was measured by the full protocol is worth more than a quick look"


def test_a_page_that_cannot_show_the_results_is_not_complete(measure: Callable) -> None:
    device = measure(lambda kind, number: PageRefused("no room") if kind == "show" else None)
    assert not device.complete and timed(device) == list(RUNS) and "(no room)" in device.facts.missing[-1]


@pytest.mark.parametrize(("kind", "number", "said"), [("times", 2, "it sent no times that can be"), ("logits", 1, "it sent 3 bytes of logits")])
def test_nonsense_loses_one_artifact_and_no_other(measure: Callable, kind: str, number: int, said: str) -> None:
    device = measure(lambda asked, count: b"abc" if (asked, count) == (kind, number) else None)
    assert device.complete and {row.name: len(row.artifacts) for row in device.runtimes if row.accelerator == "cpu"} == {RUNS[0]: 1, RUNS[1]: 1}, "of two and one"
    assert any(said in line for line in device.facts.missing)
