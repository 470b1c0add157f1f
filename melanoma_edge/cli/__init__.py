"""The command line: parse, one library call, print. No logic.

Commands live in :mod:`melanoma_edge.cli.commands`, what they print in :mod:`melanoma_edge.cli.show`.
This module holds what all commands share: common options, exit codes, one line an error.

Exit codes: 0 done; 1 a proof or comparison failed; 2 bad input or usage; 3 something here is missing;
130 interrupted.
"""

from __future__ import annotations

import sys

import click

from melanoma_edge.cli.output import drop_output
from melanoma_edge.errors import Error

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with the right code; a user's mistake never shows a traceback."""
    from melanoma_edge.cli.commands import group

    if getattr(sys.stdout, "errors", None) == "strict":
        sys.stdout.reconfigure(errors="replace")  # a terminal that has no block characters still gets the figures
    try:
        code = group.main(args=arguments, prog_name="melanoma-edge", standalone_mode=False)
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted; finished files are kept (train goes on with --resume)")
        code = INTERRUPTED
    except Error as error:
        _say(str(error))
        code = error.exit_code
    except SystemExit as stop:  # click's own end when the reader of a help text went away is 1, which means something else here
        code = 0 if isinstance(sys.stdout, click.utils.PacifyFlushWrapper) else stop.code
    except BrokenPipeError:  # the reader of our output went away: `melanoma-edge ... | head`
        drop_output()
        code = 0
    except MemoryError:
        _say("out of memory: use a smaller batch_size or image_size, or a machine with more memory")
        code = 3
    sys.exit(code or 0)


def _say(line: str) -> None:
    """Print one line to standard error; line breaks in it (from file names) become spaces."""
    click.echo(f"melanoma-edge: {' '.join(line.splitlines())}", err=True)
