"""Where the commands print: progress on standard error, results on standard output.

Results are tables for people, or JSON when asked; the modules beside this one lay them out. Progress is a live line on a terminal and plain
lines elsewhere.
"""

from __future__ import annotations

import contextlib
import json
import re
import time

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from melanoma_edge.cli.output import drop_output

FILE_WIDTH = 150
"""Columns of tables that go to a file or a pipe."""
COUNTING = re.compile(r"[ :][\d,]+ of [\d,]+$")
"""Lines of progress that say how far something is."""
COUNTED_SECONDS = 10.0


class _Output(Console):
    """Standard output; goes on silently when its reader went away, so that the exit code stays the result's."""

    def on_broken_pipe(self) -> None:
        drop_output()


class Screen:
    """Prints for one command; `quiet` leaves progress out, `verbose` adds detail."""

    def __init__(self, *, quiet: bool, verbose: bool):
        self.quiet, self.verbose = quiet, verbose
        self.out = _Output(highlight=False)
        if not self.out.is_terminal:
            self.out = _Output(highlight=False, width=FILE_WIDTH)
        self.err = Console(stderr=True, highlight=False, quiet=quiet)

    def line(self, text: str) -> None:
        """Print one progress line."""
        self.err.print(escape(text), style="dim", soft_wrap=True)

    @contextlib.contextmanager
    def bar(self, what: str):
        """Yield a callback (done, total) that shows how far `what` is."""
        with self.progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as progress:
            task = progress.add_task(what, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)

    @contextlib.contextmanager
    def steps(self, what: str):
        """Yield a callback (line) that names the step in progress."""
        started = time.monotonic()
        if not self.err.is_terminal or self.verbose:
            yield self._logged(started)
            return
        with self.progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as progress:
            task = progress.add_task(what)
            yield lambda text: progress.update(task, description=escape(text))

    def _logged(self, started: float):
        """Return a callback that prints its lines, of those that only count on (`... 64 of 200`) one every COUNTED_SECONDS."""
        shown = started - COUNTED_SECONDS

        def log(text: str) -> None:
            nonlocal shown
            now = time.monotonic()
            if self.verbose or not COUNTING.search(text) or now - shown >= COUNTED_SECONDS:
                shown = now
                self.line(f"[{now - started:6.1f} s] {text}")

        return log

    def progress(self, *columns) -> Progress:
        """Return a live line of these columns, still to be entered."""
        return Progress(*columns, console=self.err, transient=True, disable=self.quiet or not self.err.is_terminal)

    def json(self, value) -> None:
        """Print `value` as JSON."""
        if self.out.is_terminal:
            self.out.print_json(json.dumps(value, allow_nan=False), indent=2)
            return
        try:
            print(json.dumps(value, indent=2, allow_nan=False), flush=True)
        except BrokenPipeError:
            drop_output()

    def facts(self, facts: dict, as_json: bool) -> None:
        """Print a few named values."""
        if as_json:
            return self.json(facts)
        for name, value in facts.items():
            self.out.print(f"{name.replace('_', ' ')}: {escape(str(value))}")
