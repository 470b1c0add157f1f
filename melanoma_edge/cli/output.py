"""Standard output whose reader went away: `melanoma-edge ... | head`."""

from __future__ import annotations

import os
import sys


def drop_output() -> None:
    """Send what is still to be printed nowhere, because nobody reads it; the command goes on to its exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
