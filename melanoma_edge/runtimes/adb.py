"""An Android device over adb: the one that is meant, commands on it, files that are known to have arrived.

In: the serial of a device, or none where there is one only. Out: what a command printed and its exit code, which the device itself says:
adb's own exit code is 0 even where the device went away while the command ran. Every argument is quoted for the device's
shell. A device that is not there, not allowed or gone becomes one line.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from melanoma_edge.errors import BadInput, Missing
from melanoma_edge.files import cache_folder, explained, sha256_file
from melanoma_edge.runtimes.protocol import one_line

PROGRAM_VARIABLE = "MELANOMA_EDGE_ADB"
FOLDER = "/data/local/tmp/melanoma-edge"
"""Ours on the device: always the same, so that what a device kept that went away is found and removed by the next run."""
SECONDS = 30.0
"""For commands that only look."""
PUSH_SECONDS = 300.0
LARGEST_OUTPUT = 4 * 2**20
"""Bytes that a command on the device may print."""
_LOOK_SECONDS = 0.02

_STATES = {
    "unauthorized": "unlock it, accept `Allow USB debugging` there, and run the command again",
    "authorizing": "unlock it, wait until `adb devices` lists it as `device`, and run the command again",
    "connecting": "wait until `adb devices` lists it as `device`, and run the command again",
    "offline": "unlock it, unplug it and plug it in again, and run the command again",
    "recovery": "start it into Android, and run the command again",
    "sideload": "start it into Android, and run the command again",
    "bootloader": "start it into Android, and run the command again",
    "no permissions": "give your user the right to use it (on Debian and Ubuntu: apt-get install android-sdk-platform-tools-common), plug it in again, and run the command again",
}
"""What to do about a device that adb lists as something else than `device`."""

_RUN = 'cd "$1" || exit 126; shift; sh -c \'echo $$ > pid; exec "$@"\' sh "$@"; code=$?; rm -f pid; exit $code'
_END = 'p=$(cat "$1/pid" 2>/dev/null); [ -n "$p" ] && grep -q "$1" "/proc/$p/cmdline" 2>/dev/null && kill -9 "$p"; rm -f "$1/pid"'
"""Kill what runs in the folder: a connection that ended leaves it running."""
_REMOVE = _END + '; rm -rf "$1"; [ ! -e "$1" ]'


class Gone(Missing):
    """The device went away, or adb lost it."""


class TimedOut(Missing):
    """A command on the device did not end in time and was left."""


@dataclass(frozen=True)
class Output:
    """What a command on the device printed, and its exit code."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Device:
    """One device that takes commands."""

    serial: str

    def shell(self, *words: str, seconds: float = SECONDS) -> Output:
        """Run a command of these words, each as it stands, and return what it printed.

        Raises Gone where the device does not say how it ended, TimedOut after `seconds`, BadInput where it prints without end.
        """
        mark = secrets.token_hex(16)
        told = f"{shlex.join(words)}; printf '\\n%s %d\\n' {mark} $?"
        code, out, err = _run("-s", self.serial, "shell", told, seconds=seconds, what=f"{words[0]!r} on the device {self.serial}")
        said, found, ended = out.rpartition(f"\n{mark} ")
        number = ended.strip()
        if not found or not number.isdecimal():
            why = reason(err) or f"adb ended with exit code {code}"
            raise Gone(f"the device {self.serial} went away ({why}): plug it in until `adb devices` lists it as `device`, and run the command again")
        return Output(int(number), said, err)

    def script(self, text: str, *arguments: str, seconds: float = SECONDS) -> Output:
        """Run the shell script `text` with `arguments` as $1, $2 and so on; raises as :meth:`shell` does."""
        return self.shell("sh", "-c", text, "sh", *arguments, seconds=seconds)

    def sha256(self, paths: list[str]) -> dict[str, str]:
        """Return {path: SHA-256} of those files that are on the device; raises Missing where it cannot compute them."""
        done = self.shell("sha256sum", *paths, seconds=PUSH_SECONDS)
        if done.code in (126, 127):
            raise Missing(f"the device {self.serial} has no sha256sum, with which what arrives there is checked: expected Android 6 or later; use another device")
        lines = (re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line.rstrip("\r")) for line in done.out.splitlines())
        return {match[2]: match[1] for match in lines if match and match[2] in paths}

    def push(self, files: Mapping[str, tuple[Path, str]]) -> list[str]:
        """Bring {path on the device: (local file, its SHA-256)} there, those that are not there yet with just these bytes, and return their paths.

        Raises Missing where a file cannot be copied or arrives as another.
        """
        there = self.sha256(list(files))
        sent = [path for path, (_, expected) in files.items() if there.get(path) != expected]
        for path in sent:
            local = files[path][0].resolve()
            code, out, err = _run("-s", self.serial, "push", str(local), path, seconds=PUSH_SECONDS, what=f"copying {local.name} to the device {self.serial}")
            if code != 0:
                raise Missing(
                    f"{local.name} cannot be copied to the device {self.serial} ({reason(err) or reason(out) or f'exit code {code}'}): "
                    "look that it is plugged in and has room, and run the command again"
                )
        arrived = self.sha256(sent) if sent else {}
        for path in sent:
            local, expected = files[path]
            if arrived.get(path) != expected:
                now = "it changed here meanwhile" if sha256_file(local) != expected else "the copy is damaged"
                raise Missing(f"{local.name} arrived on the device {self.serial} as another file ({now}): try another cable, and run the command again")
        return sent

    def run(self, folder: str, *words: str, seconds: float) -> Output:
        """Run a command that names `folder` in it; where it does not end in time, it is ended. Raises as :meth:`shell` does."""
        try:
            return self.script(_RUN, folder, *words, seconds=seconds)
        except TimedOut:
            self.script(_END, folder)
            raise

    def remove(self, folder: str) -> bool:
        """End what runs in `folder`, remove it with all in it and return whether it is gone; raises as :meth:`shell` does."""
        return self.script(_REMOVE, folder).code == 0


def choose(serial: str | None = None) -> Device:
    """Return the device called `serial`, or the only one that adb lists.

    Raises Missing where there is none or it does not take commands, BadInput where it is not clear which one is meant.
    """
    found = listed()
    if not found:
        raise Missing("adb lists no device: plug in a phone with USB debugging switched on (Settings, Developer options), accept this computer on it, and run the command again")
    names = ", ".join(f"{name} ({state})" for name, state in found.items())
    if serial is None and len(found) > 1:
        raise BadInput(f"adb lists {len(found)} devices, {names}: name the one that is meant, as in --adb {next(iter(found))}")
    serial = next(iter(found)) if serial is None else serial
    if serial not in found:
        raise Missing(f"adb lists no device {one_line(Exception(serial))!r}, but {names}: plug it in, or name another")
    state = found[serial]
    if state != "device":
        remedy = next((remedy for name, remedy in _STATES.items() if state.startswith(name)), "look at `adb devices`, and run the command again")
        raise Missing(f"adb lists the device {serial} as `{state.split('(')[0].strip()}`, expected `device`: {remedy}")
    return Device(serial)


def listed() -> dict[str, str]:
    """Return {serial: state} of the devices that adb lists; raises Missing where it does not work."""
    code, out, err = _run("devices", seconds=SECONDS, what="`adb devices`")
    if code != 0:
        raise Missing(f"adb does not work ({reason(err) or f'exit code {code}'}): mend that until `adb devices` lists the device, and run the command again")
    lines = out.partition("List of devices attached")[2].splitlines()
    return {one_line(Exception(serial)): one_line(Exception(state), 100) for serial, found, state in (line.partition("\t") for line in lines) if found}


@contextlib.contextmanager
def workplace(device: Device) -> Iterator[str]:
    """Yield our empty or left-over folder on the device, used by nobody else on this machine; afterwards nothing in it runs and it is gone.

    Where the device went away, what is there is removed by the next call. Raises Missing where it cannot be made, BadInput while another command measures there.
    """
    with _alone(device):
        try:
            device.script(_END, FOLDER)
            made = device.shell("mkdir", "-p", FOLDER)
            if made.code != 0:
                why = reason(made.err) or f"exit code {made.code}"
                raise Missing(f"the folder {FOLDER} cannot be made on the device {device.serial} ({why}): remove what is in its way, or use another device")
            yield FOLDER
        finally:
            with contextlib.suppress(Gone, TimedOut):
                device.remove(FOLDER)


def program() -> str:
    """Return the path of adb: what MELANOMA_EDGE_ADB names, else the one on PATH; raises Missing without it."""
    named = os.environ.get(PROGRAM_VARIABLE)
    found = shutil.which(named or "adb")
    if found is None and named:
        raise Missing(f"{PROGRAM_VARIABLE} names {one_line(Exception(named))!r}, which is no program that can be run: name adb's file")
    if found is None:
        raise Missing(f"adb is not on PATH: install it (Debian and Ubuntu: apt-get install adb; else Android's SDK platform tools), or name its file in {PROGRAM_VARIABLE}")
    return found


def reason(said: str) -> str:
    """Return the last telling line of what adb or a command complained, without the name of a program before it; nothing where it said nothing."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith("*")]
    return one_line(Exception(re.sub(r"^(\S+: )?(error: )?", "", lines[-1])), 200) if lines else ""


@contextlib.contextmanager
def _alone(device: Device) -> Iterator[None]:
    """Hold the device against other commands of this user: two would slow each other down, and remove each other's files."""
    import fcntl

    folder = cache_folder()
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / f"adb-{hashlib.sha256(device.serial.encode()).hexdigest()[:16]}.lock", "w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadInput(f"another command measures on the device {device.serial}: wait until it has ended, and run the command again") from None
        yield


def _run(*arguments: str, seconds: float, what: str) -> tuple[int, str, str]:
    """Return adb's exit code, output and errors; it is killed after `seconds`, and where it prints too much."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            # In a session of its own, so that Ctrl-C reaches this process alone, which then cleans up on the device.
            child = subprocess.Popen([program(), *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True)
        except OSError as error:
            raise Missing(f"adb cannot be started ({error.strerror}): install it anew, or name its file in {PROGRAM_VARIABLE}") from None
        try:
            _wait(child, out, err, seconds, what)
        finally:
            # Only its own process: the server that it may have started lives on.
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGKILL)
            child.wait()
        return child.returncode, _text(out), _text(err)


def _wait(child: subprocess.Popen, out: BinaryIO, err: BinaryIO, seconds: float, what: str) -> None:
    """Wait for `child` to end; raises TimedOut and BadInput."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_LOOK_SECONDS)
            return
        if any(os.fstat(file.fileno()).st_size > LARGEST_OUTPUT for file in (out, err)):
            raise BadInput(f"{what} printed more than {LARGEST_OUTPUT // 2**20} MiB and was stopped: expected a few lines; give another program")
        if time.monotonic() > deadline:
            raise TimedOut(f"{what} did not end within {seconds:g} s and was left: look whether the device still works, and run the command again")


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read(2 * LARGEST_OUTPUT).decode("utf-8", "replace").replace("\r\n", "\n")
