"""Commands about time: `bench`, `bench-compare`.

Each parses its options, calls one library function and prints what came back.
"""

from __future__ import annotations

import click

from melanoma_edge.cli.group import command, show
from melanoma_edge.cli.options import FOLDER, json_option, names, wrong


def _threads(context: click.Context, option: click.Parameter, value: str) -> list[int]:
    """Return the numbers of a comma-separated list."""
    try:
        return [int(word) for word in names(value)]
    except ValueError:
        raise wrong(f"--threads {value} is no list of numbers: expected for example 1 or 1,2,4") from None


@command
@click.argument("bundle", type=FOLDER)
@click.option("--quick", is_flag=True, help="A short look; the result is marked as not comparable.")
@click.option("--threads", default="1", show_default=True, metavar="LIST", callback=_threads, help="Comma-separated: numbers of threads of each runtime, each pinned to as many cores.")
@click.option("--runtime", "runtimes", multiple=True, metavar="NAME", help="Only this runtime; may be repeated.")
@json_option
def bench(bundle, quick, threads, runtimes, as_json, quiet, verbose):
    """Measure the latency of every artifact on every runtime of this machine.

    What was measured stands in evidence/latency.json, with the raw times beside it; a later measurement of the same host takes its place.

    \b
    Example: melanoma-edge bench my.bundle --threads 1,2,4
    """
    from melanoma_edge.cli.show_latency import show_latency
    from melanoma_edge.proof.latency import bench as library

    screen = show(quiet, verbose)
    with screen.steps("measuring") as progress:
        found = library(bundle, quick=quick, threads=threads, runtimes=runtimes or None, progress=progress)
    show_latency(screen, found, as_json)


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
