"""Errors that a user can cause, and the exit code that each one ends a command with.

Raise the subclass that fits with one line that says what was found, what was expected and what to
do next. The command line prints that line and exits with :attr:`Error.exit_code`; it never shows
a traceback for one of these.
"""


class Error(Exception):
    """Base of every error that melanoma-edge raises on purpose."""

    exit_code = 2


class BadInput(Error):
    """A file, folder, option or value is not what it should be (corrupt and foreign files too)."""

    exit_code = 2


class ProofFailed(Error):
    """A gate or comparison was carried out and did not hold."""

    exit_code = 1


class Missing(Error):
    """Something on this machine is missing: a package, a runtime, a driver, disk space."""

    exit_code = 3
