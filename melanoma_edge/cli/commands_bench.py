"""Commands about time: `bench`, `bench-compare`.

Each parses its options, calls one library function and prints what came back.
"""

from __future__ import annotations

import click

from melanoma_edge.cli.group import command, show
from melanoma_edge.cli.options import FOLDER, json_option, names, wrong


def _threads(context: click.Context, option: click.Parameter, value: str | None) -> list[int] | None:
    """Return the numbers of a comma-separated list; None where nothing was asked for."""
    if value is None:
        return None
    try:
        return [int(word) for word in names(value)]
    except ValueError:
        raise wrong(f"--threads {value} is no list of numbers: expected for example 1 or 1,2,4") from None


@command
@click.argument("bundle", type=FOLDER)
@click.option("--quick", is_flag=True, help="A short look; the result is marked as not comparable.")
@click.option("--threads", metavar="LIST", callback=_threads, help="Comma-separated: numbers of threads of each runtime, here each pinned to as many cores [default: 1; with --phone 1 and up to 4].")
@click.option("--runtime", "runtimes", multiple=True, metavar="NAME", help="Only this runtime of this machine; may be repeated.")
@click.option("--phone", is_flag=True, help="Measure a phone instead, in its browser: shows an address and its QR code, and waits for the phone (first: melanoma-edge setup browser).")
@click.option("--host", metavar="ADDRESS", help="With --phone: the address of this machine to serve the page at, 0.0.0.0 for all of them [default: 127.0.0.1, which only this machine reaches].")
@click.option("--port", type=click.IntRange(1, 65535), help="With --phone: the port [default: a free one].")
@click.option("--tls", is_flag=True, help="With --phone: https, with a certificate made for this run, which the phone's browser will warn of; gives it threads and WebGPU.")
@click.option("--wait", type=click.FloatRange(1), metavar="SECONDS", help="With --phone: how long to wait for the phone [default: 600].")
@click.option("--device-name", metavar="TEXT", help="With --phone: what to call the device [default: what its browser says].")
@click.option("--adb", is_flag=False, flag_value="", metavar="[SERIAL]", help="Measure an Android device over adb instead: that with this serial, or the only one. Needs adb (on the PATH, or named by MELANOMA_EDGE_ADB) and --benchmark-model.")
@click.option("--benchmark-model", type=FOLDER, metavar="PATH", help="With --adb: benchmark_model of TensorFlow Lite or LiteRT, built for Android and the device's processor; copied to the device, run there and removed.")
@click.option("--trust-binary", is_flag=True, help="With --adb: run a benchmark_model that melanoma-edge does not know. Look where the file comes from first: its SHA-256 goes into the evidence.")
@json_option
def bench(bundle, quick, threads, runtimes, phone, host, port, tls, wait, device_name, adb, benchmark_model, trust_binary, as_json, quiet, verbose):
    """Measure the latency of every artifact: on every runtime of this machine, in the browser of a phone, or on an Android device over adb.

    What was measured stands in evidence/latency.json, with the raw times beside it; a later measurement of the same host or device takes its place.
    With --phone nothing leaves the phone but times, the answers to drawn pictures, and what its browser says of itself and of the device. The page is served on this machine alone unless --host
    names one of its addresses; over a cable, `adb reverse tcp:PORT tcp:PORT` lets an Android phone reach it with all that a secure address allows.

    \b
    Example: melanoma-edge bench my.bundle --threads 1,2,4
    Example: melanoma-edge bench my.bundle --phone --host 0.0.0.0 --tls
    Example: melanoma-edge bench my.bundle --adb --benchmark-model android_aarch64_benchmark_model --trust-binary
    """
    from melanoma_edge.cli.show_latency import show_device, show_latency

    screen = show(quiet, verbose)
    if phone and adb is not None:
        raise wrong("--phone and --adb are two ways to measure a device: give one of them")
    if adb is None and (benchmark_model is not None or trust_binary):
        raise wrong("--benchmark-model and --trust-binary are for measuring over adb: add --adb, or leave them out")
    if not phone:
        for option, given in (("--host", host), ("--port", port), ("--tls", tls), ("--wait", wait), ("--device-name", device_name)):
            if given:
                raise wrong(f"{option} is for measuring a phone in its browser: add --phone, or leave it out")
    if adb is not None:
        if benchmark_model is None:
            raise wrong("--adb needs the program that measures there: name benchmark_model, built for Android, with --benchmark-model PATH")
        if runtimes:
            raise wrong("--runtime is for runtimes of this machine: leave it out with --adb")
        from melanoma_edge.proof.bench_adb import bench_adb

        with screen.steps("measuring over adb") as progress:
            found = bench_adb(
                bundle, serial=adb or None, benchmark_model=benchmark_model, trust_binary=trust_binary, quick=quick, threads=[1] if threads is None else threads, progress=progress
            )  # fmt: skip
        return show_device(screen, found, as_json)
    if phone:
        if runtimes:
            raise wrong("--runtime is for runtimes of this machine: leave it out with --phone, which runs all that the phone has")
        return _on_phone(screen, bundle, as_json, host=host or "127.0.0.1", port=port or 0, tls=tls, name=device_name, threads=threads, quick=quick, wait=wait or 600.0)
    from melanoma_edge.proof.latency import bench as library

    with screen.steps("measuring") as progress:
        found = library(bundle, quick=quick, threads=[1] if threads is None else threads, runtimes=runtimes or None, progress=progress)
    show_latency(screen, found, as_json)


def _on_phone(screen, bundle, as_json, **options) -> None:
    """Measure the device that opens the page; its address is shown before the first line of progress."""
    from melanoma_edge.cli.show_latency import show_device, show_invitation
    from melanoma_edge.proof.bench_phone import bench_phone, refuse_flaws

    with screen.steps("measuring a phone") as progress:
        found = bench_phone(bundle, invite=lambda invitation: show_invitation(screen, invitation), progress=progress, **options)
    show_device(screen, found, as_json)
    refuse_flaws(found)


@command
@click.argument("base", type=FOLDER)
@click.argument("new", type=FOLDER)
@click.option("--bound", type=float, default=1.05, show_default=True, help="Largest ratio of median times, new to base, that is no regression.")
@json_option
def bench_compare(base, new, bound, as_json, quiet, verbose):
    """Say whether NEW is faster or slower than BASE: two latency.json files, or bundles that were measured.

    Every artifact that both timed in the same runtime, on as many threads, gets the 95 % interval of the ratio of its times: faster, slower, or
    cannot tell. Exits with 1 where a whole interval lies above --bound. Of what was measured with --quick, or came out noisy, nothing can be told.

    \b
    Example: melanoma-edge bench-compare before.json after.json --bound 1.03
    """
    from melanoma_edge.cli.show_latency import show_comparison
    from melanoma_edge.proof.bench_compare import compare, refuse_regressions

    found = compare(base, new, bound=bound)
    show_comparison(show(quiet, verbose), found, as_json)
    refuse_regressions(found)
