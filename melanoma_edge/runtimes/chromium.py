"""A Chromium of this machine, without a window, that opens one page.

In: an address. Out: a browser with a profile of its own, and what went wrong with it. It listens on a pipe
(`--remote-debugging-pipe`) that this process holds: when this process ends, in whatever way, the pipe does too, and
Chromium with it. Over that pipe it also tells when the page's tab crashes.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

from melanoma_edge.errors import Missing
from melanoma_edge.runtimes.protocol import one_line

VARIABLE = "MELANOMA_EDGE_BROWSER"
"""Names the browser to use: a path, or a command on the PATH."""
COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
APPLICATIONS = ("/Applications/Chromium.app/Contents/MacOS/Chromium", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
HOW = f"apt-get install chromium (Debian), brew install --cask chromium (macOS), or name a Chromium or Chrome with {VARIABLE}"

FLAGS = (
    "--headless",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-extensions",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--mute-audio",
    "--password-store=basic",
    "--use-mock-keychain",
)
"""No window, no sound, nobody asked. No name is looked up, so nothing leaves the machine: without that, Chromium asked its
makers for updates and hints, whatever the flags above it say. A proxy is for other addresses than this machine's."""

_STOP_SECONDS = 5.0
_PIPE_IN, _PIPE_OUT = 3, 4
"""The descriptors on which Chromium reads and writes (chrome/browser/devtools/remote_debugging_server.cc)."""
_NOISE = ("dbus", "fontconfig", "devtools")
"""What lines hold that Chromium prints when all is well."""
_PLACE = re.compile(r"^\[[^]]*\] ")
"""What its lines begin with: process, time and a place in its own source."""


def find() -> str:
    """Return the path of this machine's Chromium or Chrome; raises Missing with how to get one."""
    if named := os.environ.get(VARIABLE):
        found = shutil.which(named)
        if found is None:
            raise Missing(f"{VARIABLE} names {named}, which is no program: name a Chromium or Chrome, or {HOW}")
        return found
    found = next(filter(None, map(shutil.which, (*COMMANDS, *APPLICATIONS))), None)
    if found is None:
        raise Missing(f"no Chromium or Chrome is here: {HOW}")
    return found


@functools.cache
def version(path: str) -> str:
    """Return the name and the main version of the browser `path`, such as `Chromium 156`; raises Missing for a program that is none."""
    try:
        done = subprocess.run([path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=60)
        found = re.search(r"\b(Chromium|Google Chrome)\b\D*(\d+)\.", done.stdout)
        said = done.stderr or done.stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        found, said = None, str(error)
    if found is None:
        raise Missing(f"{path} does not say which Chromium or Chrome it is ({one_line(Exception(said), 100)}): {HOW}")
    return f"{found[1]} {found[2]}"


_LONGEST_TEMPORARY = 50
"""Characters of the folder for temporary files: Chromium makes a socket below it, and a socket's path has 107 at most (unix(7))."""


class Chromium:
    """A running browser on the page `url`; its files are kept in `folder`, which is the caller's to remove."""

    def __init__(self, url: str, folder: Path) -> None:
        path = find()
        read, self._write = _high_pipe()
        self._read, write = _high_pipe()
        self._log = folder / "chromium.log"
        sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()  # Chromium refuses to start as root with it
        arguments = [path, *FLAGS, *sandbox, f"--user-data-dir={folder / 'profile'}", url]
        self._folder = os.open(folder, os.O_RDONLY)
        environment = os.environ | {"TMPDIR": _short(folder, self._folder)}
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(self._log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            (os.POSIX_SPAWN_DUP2, read, _PIPE_IN),
            (os.POSIX_SPAWN_DUP2, write, _PIPE_OUT),
        ]
        # Not subprocess.Popen: it gives a child the descriptors 3 and 4 only by code between fork and exec, which is unsafe beside threads.
        try:
            self._pid = os.posix_spawn(path, arguments, environment, file_actions=actions)
        except OSError as error:
            os.close(self._folder)
            raise Missing(f"{path} cannot be started ({error.strerror}): {HOW}") from None
        finally:
            os.close(read)
            os.close(write)
        self._code: int | None = None
        self._crash: str | None = None
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._say("Target.setDiscoverTargets", discover=True)

    def trouble(self) -> str | None:
        """Return why no answer will come from the page any more, None while all is well."""
        if self._crash is not None:
            return self._crash
        if self._ended():
            how = signal.Signals(-self._code).name if self._code < 0 else f"exit code {self._code}"
            return f"Chromium ended ({how}{self._last_line()})"
        return None

    @property
    def gave_up(self) -> bool:
        """Whether the browser ended of its own accord: it cannot run here."""
        return self._ended() and self._code >= 0

    def close(self) -> None:
        """Stop the browser and wait until it has gone."""
        self._say("Browser.close")
        with contextlib.suppress(OSError):
            os.close(self._write)
        deadline = time.monotonic() + _STOP_SECONDS
        while not self._ended() and time.monotonic() < deadline:
            time.sleep(0.01)
        if not self._ended():
            os.kill(self._pid, signal.SIGKILL)
            self._code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        self._listener.join(_STOP_SECONDS)
        os.close(self._folder)

    def _ended(self) -> bool:
        if self._code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
        return self._code is not None

    def _say(self, method: str, **parameters: object) -> None:
        """Send a command of the DevTools protocol; a browser that has gone is noticed elsewhere."""
        with contextlib.suppress(OSError):
            os.write(self._write, json.dumps({"id": 1, "method": method, "params": parameters}).encode() + b"\0")

    def _listen(self) -> None:
        """Read the browser's events until it ends, and note a crash of a tab."""
        rest = b""
        with open(self._read, "rb", buffering=0) as pipe:
            while chunk := pipe.read(65536):
                *messages, rest = (rest + chunk).split(b"\0")
                for message in map(json.loads, messages):
                    if message.get("method") == "Target.targetCrashed":
                        facts = message["params"]
                        self._crash = f"the browser's tab crashed ({facts.get('status')}, code {facts.get('errorCode')})"

    def _last_line(self) -> str:
        """Return the last telling line of what Chromium printed, as an addition to a message."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines() if self._log.exists() else []
        telling = [line for line in lines if line.strip() and not any(word in line.lower() for word in _NOISE)]
        chosen = next((line for line in reversed(telling) if ":FATAL:" in line), telling[-1] if telling else None)
        return f"; {one_line(Exception(_PLACE.sub('', chosen)))}" if chosen else ""


def _short(folder: Path, descriptor: int) -> str:
    """Return a path of `folder`, which this process has opened as `descriptor`, that is short where it can be."""
    if len(str(folder)) <= _LONGEST_TEMPORARY or not os.path.isdir("/proc/self/fd"):
        return str(folder)
    return f"/proc/{os.getpid()}/fd/{descriptor}"


def _high_pipe() -> tuple[int, int]:
    """Return the two ends of a pipe, both above the descriptors that they will have in the child: duplicating one onto itself would not pass it on."""
    ends = os.pipe()
    try:
        return tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    finally:
        for end in ends:
            os.close(end)
