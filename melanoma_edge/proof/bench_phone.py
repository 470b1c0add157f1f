"""Latency on a phone, or any device with a browser: no app needed.

In: a bundle. Out: the device's part of evidence/latency.json, and its raw times beside it. A page is served that runs every artifact with LiteRT.js
and onnxruntime-web, checks the golden logits there, and measures as the protocol says; this side decides what is measured in which
order (:mod:`melanoma_edge.proof.latency` has the same protocol for this host), and judges what comes back.
"""

from __future__ import annotations

import ipaddress
import shlex
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from melanoma_edge.convert.bundle import Bundle, open_bundle
from melanoma_edge.convert.reference import to_write
from melanoma_edge.errors import BadInput, Missing, ProofFailed
from melanoma_edge.proof import latency_file, phone_facts
from melanoma_edge.proof.latency import now
from melanoma_edge.proof.latency_figures import TOLERANCE, comparable
from melanoma_edge.proof.latency_model import BrowserFacts, DeviceLatency, Latency, RuntimeLatency
from melanoma_edge.proof.phone_device import ENGINES, FULL, QUICK, PhoneDevice, Progress
from melanoma_edge.runtimes import browser, certificate
from melanoma_edge.runtimes.page_server import PHONE, PageFailed, PageRefused, PageServer

WAIT_SECONDS = 600.0
GRACE_SECONDS = 15.0
"""So long may the page's open request be gone: phones cut silent ones, and change networks."""


@dataclass(frozen=True)
class Invitation:
    """What a person needs to open the page on the device."""

    url: str
    fingerprint: str | None
    """Of the certificate that the browser will warn of; None on plain http."""
    advice: str | None
    """What a phone needs to reach an address of this machine alone; None for other addresses."""


def bench_phone(
    bundle: Path,
    *,
    invite: Callable[[Invitation], None],
    host: str = "127.0.0.1",
    port: int = 0,
    tls: bool = False,
    name: str | None = None,
    threads: Sequence[int] | None = None,
    quick: bool = False,
    wait: float = WAIT_SECONDS,
    progress: Progress = lambda line: None,
) -> Latency:
    """Serve the page at `host` of this machine, call `invite` with its address, measure the first device that opens it and return what latency.json then holds.

    `name` is what the device is called, by default what its browser says; `threads` are numbers of threads to try, by default 1 and up to 4.
    Stops after `wait` seconds in which no device came. What a device had finished when it went away is kept, unless a better measurement
    of it stands there: the row is not `complete` then. Raises Missing without the page's packages, without a device, or where nothing was measured; nothing is written then.
    """
    browser.require_packages()
    for count in threads or ():
        if count < 1:
            raise BadInput(f"threads is {count}: expected 1 or more")
    opened = open_bundle(to_write(bundle))
    latency_file.read(opened)  # what cannot be kept beside what is there is refused before anything is measured
    if host == "::" or not _is_address(host):
        raise BadInput(f"--host {host} names no address that a phone could open: give one of this machine's in numbers, or 0.0.0.0 for all of IPv4")
    shown = lan_address() if host == "0.0.0.0" else host
    context, fingerprint = certificate.self_signed([shown, "localhost"]) if tls else (None, None)
    served = {path: file for engine in ENGINES for path, file in browser.files(engine).items()}
    served |= {f"artifacts/{artifact.name}": opened.file(artifact) for artifact in opened.manifest.artifacts}
    server = PageServer(served, page=PHONE, host=host, port=port, certificate=context, grace=GRACE_SECONDS)
    try:
        invite(Invitation(server.url_for(shown), fingerprint, None if host != "127.0.0.1" else _how_to_reach(host, server.port)))
        device = PhoneDevice(opened, server, QUICK if quick else FULL, progress)
        try:
            facts = device.meet(wait)
            timed = device.measure(facts, threads)
            facts = device.finish(facts, timed)
        except (PageFailed, PageRefused) as error:
            if not server.opened.is_set():
                raise Missing(f"no device opened the page within {wait:g} s: {_how_to_reach(host, server.port)}, and run this again") from None
            raise _lost(str(error)) from None
        if not any(runtime.artifacts for runtime in timed):
            if device.lost is not None:
                raise _lost(device.lost)
            reason = next((runtime.reason for runtime in timed if runtime.reason), "no reason was given")
            raise Missing(f"nothing ran on {phone_facts.name_of(facts)} ({'; '.join(device.trouble) or reason}): try another browser there")
    finally:
        server.close()
    called = name or phone_facts.name_of(facts)
    if device.lost is not None and latency_file.has_better(opened, called, facts, quick=quick, timed=sum(runtime.status == "timed" for runtime in timed)):
        raise _lost(device.lost, "; what was measured of it before is more, and stands as it was")
    return _keep(opened, called, facts, timed, device, quick, _command(opened, host, tls, threads, quick))


def _lost(why: str, remark: str = "") -> Missing:
    return Missing(f"the device was lost: {why}{remark}; open the new address after running this again")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _how_to_reach(host: str, port: int) -> str:
    """Return what to do about a device that cannot open the page."""
    if host == "127.0.0.1":
        return f"only this machine reaches that address: `adb reverse tcp:{port} tcp:{port}` over a cable, or --host 0.0.0.0 for its network"
    return f"put both into one network that does not keep its devices apart, let port {port} through this machine's firewall, or name another of its addresses with --host"


def lan_address() -> str:
    """Return this machine's address in its network: the one that it would send from. Raises Missing where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documentation (RFC 5737): nothing is sent, the system only chooses the way
            return probe.getsockname()[0]
        except OSError:
            raise Missing("this machine has no way into a network: name its address with --host") from None


def _keep(bundle: Bundle, name: str, facts: BrowserFacts, timed: list[RuntimeLatency], device: PhoneDevice, quick: bool, command: str) -> Latency:
    """Write the device's row."""
    rows = [artifact for runtime in timed for artifact in runtime.artifacts]
    sound = device.undisturbed and device.lost is None and all(row.golden is None or row.golden.outcome == "passed" for row in rows)
    return latency_file.keep_device(
        bundle, device.samples, name=name, facts=facts, quick=quick, complete=device.lost is None, comparable=sound and comparable(quick, rows), command=command, date=now(), plan=device.plan, tolerance=TOLERANCE, runtimes=tuple(timed),
    )  # fmt: skip


def refuse_flaws(found: Latency) -> None:
    """Raise ProofFailed where the device that was measured last computed other logits than the golden ones, Missing where it went away before the end."""
    device: DeviceLatency = found.devices[-1]
    wrong = [f"{row.name} in {runtime.name}" for runtime in device.runtimes for row in runtime.artifacts if row.golden is not None and row.golden.outcome == "failed"]
    if wrong:
        raise ProofFailed(f"{device.name} computes other numbers than the bundle says: {', '.join(wrong)}; its times are those of something else")
    if not device.complete:
        raise Missing(f"{device.name} was lost before the end: what it had done is kept; to measure all of it, run this again and open the new address")


def _command(bundle: Bundle, host: str, tls: bool, threads: Sequence[int] | None, quick: bool) -> str:
    """Return the command that measures this again, the bundle by its folder's name alone, this machine's address left out."""
    options = ["--phone", *(["--host", "ADDRESS"] if host != "127.0.0.1" else []), *(["--tls"] if tls else []), *(["--quick"] if quick else [])]
    options += ["--threads", ",".join(map(str, threads))] if threads else []
    return shlex.join(["melanoma-edge", "bench", bundle.path.resolve().name, *options])
