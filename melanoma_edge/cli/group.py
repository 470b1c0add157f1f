"""The group that all commands register with, and what each of them begins with: its screen and its own command line.

Like the commands, this imports nothing heavier than click.
"""

from __future__ import annotations

import sys

import click

from melanoma_edge import NOTICE, __version__


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=f"{NOTICE} Exit codes: 0 done, 1 a proof failed, 2 bad input, 3 something is missing here, 130 interrupted.",
)
@click.version_option(__version__, prog_name="melanoma-edge")
def group() -> None:
    """From a folder of skin-lesion photographs to a classifier inside a phone app, with proof.

    \b
    Example: melanoma-edge demo
    """


def command(function):
    """Register a command with the options that all commands have."""
    function = click.option("-q", "--quiet", is_flag=True, help="Print results and errors only.")(function)
    function = click.option("-v", "--verbose", is_flag=True, help="Print more of what is done.")(function)
    return group.command(function.__name__.rstrip("_").replace("_", "-"))(function)


def show(quiet: bool, verbose: bool):
    """Return the screen that a command prints to."""
    from melanoma_edge.cli.show import Screen

    return Screen(quiet=quiet, verbose=verbose)


def line() -> str:
    """Return the command line as the user could repeat it, for the record beside every result."""
    import shlex

    line = shlex.join(["melanoma-edge", *sys.argv[1:]])
    return line.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")  # names of files may be no text
