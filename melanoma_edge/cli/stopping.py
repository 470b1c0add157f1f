"""Signals that ask the command to end: they tidy up as Ctrl-C does, wherever they strike.

Python raises an interruption in whatever line is running. In a library's own callback from C++ that line's caller makes
another error of it (TensorFlow: RuntimeError, SystemError), and in a destructor nothing at all. Both are undone here.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

import click

_AGAIN_SECONDS = 0.05
_asked: list[int] = []
"""The signals that have struck this process, in order."""


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def tidy_up_when_stopped() -> None:
    """Let `kill` and a closed terminal end this process as Ctrl-C does, so that no temporary folder with pictures stays; `nohup` keeps its meaning."""
    if threading.current_thread() is not threading.main_thread():
        return
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _stop)
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, lambda *_: _stop(_asked[-1], None))
        sys.unraisablehook = _ask_again


@contextlib.contextmanager
def undisguised() -> Iterator[None]:
    """Raise the interruption where a block fails after one: whatever a library made of it, that is why it failed."""
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except Exception as error:
        if _asked:
            raise Stopped(_asked[0]) from error
        raise


def _stop(number: int, _: object) -> None:
    _asked.append(number)
    raise Stopped(number)


def _ask_again(unraisable) -> None:
    """Interrupt once more a moment after a destructor swallowed an interruption; report everything else as Python does."""
    if isinstance(unraisable.exc_value, Stopped):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
    else:
        sys.__unraisablehook__(unraisable)
