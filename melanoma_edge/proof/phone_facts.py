"""What a device's browser says of itself, read with care: it comes from whoever opened the page.

In: the JSON that web/phone.js sends. Out: checked facts, and in words what the page could not do there and what would change that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, ValidationError

from melanoma_edge.contract import Model
from melanoma_edge.proof.latency_model import BrowserFacts
from melanoma_edge.runtimes.page_server import PageFailed
from melanoma_edge.runtimes.protocol import one_line

Words = Annotated[str, Field(max_length=1000)]
BROWSERS = (("Edg", "Edge"), ("OPR", "Opera"), ("SamsungBrowser", "Samsung Internet"), ("FxiOS", "Firefox"), ("Firefox", "Firefox"), ("CriOS", "Chrome"), ("Chrome", "Chrome"), ("Version", "Safari"))
"""Marks in user agents, the more special first: those of most browsers hold that of Chrome, and that of Safari, too."""
SYSTEMS = (("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Windows", "Windows"), ("Mac OS X", "macOS"), ("CrOS", "ChromeOS"), ("Linux", "Linux"))
OTHER_HASH = "ba7816bf"
"""How the SHA-256 of `abc` begins (FIPS 180-4): the page computes it once to show that its own works."""


class Told(Model):
    """The message of the page."""

    user_agent: Words
    brands: Annotated[tuple[Words, ...], Field(max_length=20)]
    platform: Words
    model: Words | None
    cores: Annotated[int, Field(ge=1, le=4096)] | None
    memory_gb: Annotated[float, Field(gt=0, le=4096)] | None
    screen: Words
    touch: bool
    secure_context: bool
    cross_origin_isolated: bool
    hash: Words
    webgpu: bool
    gpu: Words | None
    awake: bool
    clock_us: Annotated[float, Field(gt=0, le=1e6)]


def parse(content: bytes) -> BrowserFacts:
    """Return the facts in a message of the page; raises PageFailed for what is none."""
    try:
        told = Told.model_validate_json(json.dumps(json.loads(content)))
    except (ValueError, ValidationError) as error:
        raise PageFailed(f"it said nothing of itself that can be understood ({one_line(error, 80)})") from None
    if told.hash.startswith("javascript") and not told.hash.endswith(OTHER_HASH):
        raise PageFailed("its JavaScript computes another SHA-256 than it should, so that nothing it says can be trusted")
    return BrowserFacts(
        user_agent=_line(told.user_agent, 400),
        browser=browser_of(told.user_agent),
        model=_line(told.model, 60) if told.model else None,
        cores=told.cores,
        memory_gb=told.memory_gb,
        screen=_line(told.screen, 60),
        touch=told.touch,
        secure_context=told.secure_context,
        cross_origin_isolated=told.cross_origin_isolated,
        gpu=_line(told.gpu, 100) if told.gpu else None,
        clock_us=round(told.clock_us, 3),
        missing=tuple(_missing(told)),
    )


def browser_of(user_agent: str) -> str:
    """Return a browser's name and main version, such as `Chrome 156`, as far as the user agent tells."""
    for mark, name in BROWSERS:
        if found := re.search(rf"\b{mark}/(\d+)", user_agent):
            return f"{name} {found[1]}"
    return "unknown browser"


def name_of(facts: BrowserFacts) -> str:
    """Return what a device is called in tables: its model where it is known, else its system, and the browser."""
    system = next((name for mark, name in SYSTEMS if mark in facts.user_agent), "unknown device")
    return f"{facts.model or system}, {facts.browser}"


def _missing(told: Told) -> Iterator[str]:
    """Yield what the page could not do there, why, and what would change that."""
    secure = "" if told.secure_context else " on plain http (use --tls, or `adb reverse` and localhost)"
    if not told.cross_origin_isolated:
        yield f"threads: the browser lends none{secure or ' to this page'}"
    if told.gpu is None:
        yield f"WebGPU: {'the browser has it, and no device for it' if told.webgpu else f'the browser offers none{secure}'}"
    if told.hash != "browser":
        yield f"the browser's own SHA-256{secure}: the artifacts were checked in JavaScript"
    if not told.awake:
        yield f"keeping the screen on{secure}: a device that falls asleep breaks the measurement off"
    if told.clock_us >= 50:
        yield f"a fine clock: its step is {told.clock_us:.0f} microseconds, so several inferences are timed together where one is short"
    if told.memory_gb is None:
        yield "the memory class: this browser does not tell"


def _line(text: str, limit: int) -> str:
    return one_line(Exception(text), limit)
