"""How latencies are printed: this host's, those of devices, and two measurements compared."""

from __future__ import annotations

import io
import sys

from rich.markup import escape
from rich.table import Table

from melanoma_edge.cli.show import Screen

VERDICT_STYLE = {"faster": "green", "slower": "red", "cannot tell": "yellow"}


def show_latency(screen: Screen, found, as_json: bool) -> None:
    """Print a :class:`~melanoma_edge.proof.latency_model.Latency`."""
    if as_json:
        return screen.json(found.model_dump(mode="json"))
    if found.host is not None:
        _host(screen, found.host)
    for device in found.devices:
        _device(screen, device)


def show_device(screen: Screen, found, as_json: bool) -> None:
    """Print the device that was measured last; as JSON, all that latency.json holds."""
    if as_json:
        return screen.json(found.model_dump(mode="json"))
    _device(screen, found.devices[-1])


def show_invitation(screen: Screen, invitation) -> None:
    """Print the address of the page, on standard error where progress goes, with its QR code where the terminal can show one."""
    import segno

    out = screen.err if not screen.quiet else None
    if out is None or not out.is_terminal:
        print(f"open on the phone: {invitation.url}", file=sys.stderr, flush=True)
    else:
        with io.StringIO() as drawn:
            segno.make(invitation.url, error="l", micro=False).terminal(drawn, border=2, compact=True)
            out.out(drawn.getvalue(), highlight=False)
        out.print(f"Scan this with the phone, or open [bold]{escape(invitation.url)}[/] there.", soft_wrap=True)
    if invitation.advice is not None:
        print(invitation.advice, file=sys.stderr, flush=True)
    if invitation.fingerprint is not None:
        print(f"its browser will warn of the certificate, which has the SHA-256 fingerprint {invitation.fingerprint}", file=sys.stderr, flush=True)


def _host(screen: Screen, host) -> None:
    screen.out.print(_table(host.runtimes, "latency of this host"))
    _not_run(screen, host.runtimes)
    for runtime in host.runtimes:
        for key, value in runtime.settings.items():
            screen.out.print(f"{runtime.name} ran with {key}={value}: without it this processor's integer kernels overflow", style="yellow")
    for check in host.cross_checks:
        if check.status == "not run":
            screen.out.print(f"not run: {check.tool}, {escape(check.artifact)}: {escape(check.note)}", style="dim")
        elif check.status == "differs" or screen.verbose:
            style = "yellow" if check.status == "differs" else "green"
            where = f"{escape(check.artifact)}, {_threads(check.threads)}"
            screen.out.print(f"{check.tool} {check.status}: {where}: {check.theirs_ms:.3f} ms, {check.ratio:.3f} times ours ({escape(check.note)})", style=style)
    agreed = [check for check in host.cross_checks if check.status == "agrees"]
    if host.cross_checks:
        screen.out.print(f"cross-checks: {len(agreed)} of {len(host.cross_checks)} agree within {host.tolerance:.0%}")
    screen.out.print(f"energy {host.energy.status}: {escape(host.energy.note)}", style="dim")
    screen.out.print(f"host numbers, never phone numbers.{_comparable(host)}")


def _device(screen: Screen, device) -> None:
    screen.out.print(_table(device.runtimes, f"latency of {escape(device.name)}", golden=True))
    _not_run(screen, device.runtimes)
    for line in device.facts.missing:
        screen.out.print(f"missing there: {escape(line)}", style="yellow")
    screen.out.print(f"{escape(device.note)}{_comparable(device)}")


def _comparable(measured) -> str:
    if measured.comparable:
        return ""
    if not getattr(measured, "complete", True):
        return " Not comparable: the device was lost before the end."
    return " Not comparable: quick." if measured.quick else " Not comparable: noisy."


def _table(runtimes, title: str, *, golden: bool = False) -> Table:
    """Return a table of what was timed, a row an artifact, runtime and number of threads; with `golden`, of a device."""
    energy = any(row.energy_mj is not None for runtime in runtimes for row in runtime.artifacts)
    last = ["drift", "golden logits"] if golden else ["first", "load"]
    columns = ["artifact", "runtime", "threads", "p50 ms", "p90", "p99", "to float32", *(["mJ"] if energy else []), *last, "verdict"]
    table = Table(*columns, title=title, title_justify="left")
    for runtime in runtimes:
        name = runtime.name if runtime.accelerator == "cpu" else f"{runtime.name} {runtime.accelerator}"
        for row in runtime.artifacts:
            ratio = "-" if row.p50_ratio_to_float32 is None else f"{row.p50_ratio_to_float32:.2f}"
            times = [_ms(row.p50_ms, 3), _ms(row.p90_ms, 3), _ms(row.p99_ms, 3), ratio, *([_ms(row.energy_mj, 2)] if energy else [])]
            end = [_ms(row.drift, 2), _golden(row.golden)] if golden else [_ms(row.first_ms, 1), _ms(row.load_ms, 1)]
            table.add_row(escape(row.name), escape(name), str(runtime.threads), *times, *end, "stable" if row.verdict == "stable" else "[yellow]noisy[/]")
    return table


def _not_run(screen: Screen, runtimes) -> None:
    said = set()
    for runtime in runtimes:
        name = runtime.name if runtime.accelerator == "cpu" else f"{runtime.name} {runtime.accelerator}"
        line = f"not run: {name}: {runtime.reason or ''} {runtime.install or ''}".strip()
        if runtime.status == "not run" and line not in said:  # once, whatever the numbers of threads
            said.add(line)
            screen.out.print(escape(line), style="dim")


def _golden(check) -> str:
    if check is None:
        return "not checked"
    style = {"passed": "green", "failed": "red"}[check.outcome]
    said = "no numbers" if check.max_difference is None else f"{check.quanta:g} quanta" if check.quanta is not None else f"{check.max_difference:.1e}"
    return f"[{style}]{check.outcome}[/]: {said}"


def show_comparison(screen: Screen, found, as_json: bool) -> None:
    """Print a :class:`~melanoma_edge.proof.bench_compare_model.LatencyComparison`."""
    if as_json:
        return screen.json(found.model_dump(mode="json"))
    title = f"{escape(found.new)} against {escape(found.base)}"
    table = Table("artifact", "runtime", "threads", "where", "base ms", "new ms", "ratio", "95 % interval", "verdict", title=title, title_justify="left")
    for row in found.rows:
        name = row.runtime if row.accelerator == "cpu" else f"{row.runtime} ({row.accelerator})"
        interval = "-" if row.low is None else f"{row.low:.3f} to {row.high:.3f}"
        verdict = f"[{VERDICT_STYLE[row.verdict]}]{row.verdict}[/]" + (f": {row.reason}" if row.reason else "") + (", a regression" if row.regression else "")
        table.add_row(f"{row.precision} {row.format}", escape(name), str(row.threads), escape(row.where), f"{row.base_ms:.3f}", f"{row.new_ms:.3f}", f"{row.ratio:.3f}", interval, verdict)
    screen.out.print(table)
    for line in found.differences:
        screen.out.print(f"measured under other conditions: {escape(line)}", style="yellow")
    for line in found.not_compared:
        screen.out.print(f"not compared: {escape(line)}", style="dim")


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def _ms(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
