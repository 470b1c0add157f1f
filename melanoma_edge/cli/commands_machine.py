"""Commands about this machine: `doctor`, `setup`, and `demo`, which tries all of it.

Each parses its options, calls one library function and prints what came back.
"""

from __future__ import annotations

from pathlib import Path

import click

from melanoma_edge.cli.failing import fail_if
from melanoma_edge.cli.group import command, line, show
from melanoma_edge.cli.options import FOLDER, force_option, json_option


@command
@json_option
@click.option("--tensorflow", is_flag=True, help="Also start TensorFlow to see its GPUs (takes seconds).")
def doctor(as_json, tensorflow, quiet, verbose):
    """Show what this machine has, and the command that gets the rest.

    \b
    Example: melanoma-edge doctor
    """
    from melanoma_edge.cli.show_machine import show_doctor
    from melanoma_edge.doctor import doctor as library

    show_doctor(show(quiet, verbose), library(tensorflow=tensorflow), as_json)


@command
@click.argument("place")
@json_option
def setup(place, as_json, quiet, verbose):
    """Set up a place that runtimes compute in, arm64 (an emulated Arm processor) or browser (a real one, headless); or coreml, for export --coreml.

    \b
    Example: melanoma-edge setup arm64
    """
    from melanoma_edge.proof.setup import set_up

    screen = show(quiet, verbose)
    with screen.steps("setting up") as progress:
        facts = set_up(place, progress)
    screen.facts(facts, as_json)


@command
@click.option("--out", type=FOLDER, default=Path("demo"), show_default=True, help="Folder for samples, run, bundle and report.")
@force_option
def demo(out, force, quiet, verbose):
    """The whole job on drawn samples, in a few minutes: train, export, verify, measure, report.

    \b
    Example: melanoma-edge demo --out demo
    """
    from melanoma_edge.cli.show_bundle import show_gates, show_parity, show_predictions
    from melanoma_edge.cli.show_latency import show_latency
    from melanoma_edge.cli.show_training import training
    from melanoma_edge.proof.demo import demo as library

    screen = show(quiet, verbose)
    with training(screen) as report_training, screen.steps("demo") as progress:
        result = library(out, force=force, command=line(), report=report_training, progress=progress)
    show_parity(screen, result.parity, False)
    show_latency(screen, result.latency, False)
    show_predictions(screen, result.predictions, False)
    show_gates(screen, result.parity)
    click.echo(f"report: {result.report}")
    click.echo("next: melanoma-edge audit YOUR-PICTURES, then melanoma-edge train YOUR-PICTURES")
    fail_if(result.parity)
