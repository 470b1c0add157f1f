"""The command line: parse, one library call, print. No logic.

Commands live in :mod:`melanoma_edge.cli.commands`, where they print in :mod:`melanoma_edge.cli.show` and what in `show_*` beside it.
This module holds what all commands share: common options, exit codes, one line an error.

Exit codes: 0 done; 1 a proof or comparison failed; 2 bad input or usage; 3 something here is missing;
130 interrupted (129 by a hang-up, 143 by `kill`); 70 a fault of melanoma-edge itself.
"""

from __future__ import annotations

import sys
import traceback

import click

from melanoma_edge.cli.output import drop_output
from melanoma_edge.cli.stopping import Stopped, tidy_up_when_stopped, undisguised
from melanoma_edge.errors import Error

INTERRUPTED = 130
FAULT = 70
"""EX_SOFTWARE of sysexits.h: Python's own 1 would say that a proof failed."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with the right code; a user's mistake never shows a traceback."""
    from melanoma_edge.cli.commands import group

    tidy_up_when_stopped()
    if getattr(sys.stdout, "errors", None) == "strict":
        sys.stdout.reconfigure(errors="replace")  # a terminal that has no block characters still gets the figures
    try:
        with undisguised():
            code = group.main(args=arguments, prog_name="melanoma-edge", standalone_mode=False)
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt) as stop:
        _say("interrupted; finished files are kept" + (" (train goes on with --resume)" if sys.argv[1:2] == ["train"] else ""))
        code = next((error.exit_code for error in (stop, stop.__cause__) if isinstance(error, Stopped)), INTERRUPTED)  # click wraps what interrupted it
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
    except OSError as error:
        _say(f"{error.filename or 'a file or device'} cannot be used ({error.strerror or error}): look at its permissions and its disk")
        code = 3
    except Exception:
        traceback.print_exc()
        _say("this is a fault of melanoma-edge, not of your data: please report it with the lines above and the command")
        code = FAULT
    sys.exit(code or 0)


def _say(line: str) -> None:
    """Print one line to standard error; line breaks in it (from file names) become spaces."""
    click.echo(f"melanoma-edge: {' '.join(line.splitlines())}", err=True)
