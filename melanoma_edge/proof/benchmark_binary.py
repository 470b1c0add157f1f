"""The benchmark_model that its user brings: which one it is, and whether a device can run it.

In: a file. Out: its SHA-256, what it is called in evidence, and the processor that it was built for. It will run on a phone: one that nobody
vouches for is refused.
"""

from __future__ import annotations

import hashlib
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from melanoma_edge.errors import BadInput
from melanoma_edge.runtimes.adb_facts import Identity

KNOWN: dict[str, str] = {}
"""{SHA-256: name} of builds that are known to be what they say.

Empty: Google publishes nightly builds under a name that stays (android_aarch64_benchmark_model) and no hashes of them, and the
packages of Debian, PyPI and npm hold none, so there is none that could be named with certainty. Until there is, its user vouches for it."""
TRUSTED = "trusted by its user"
LARGEST = 512 * 2**20
"""Bytes; Google's builds have some 5 to 20 MiB."""

_MACHINES = {3: (1, "x86"), 40: (1, "armeabi-v7a"), 62: (2, "x86_64"), 183: (2, "arm64-v8a"), 243: (2, "riscv64")}
"""{e_machine of ELF: (its class of 32 or 64 bits, Android's name of the ABI)}."""
_ABIS = {"armeabi": "armeabi-v7a"}


@dataclass(frozen=True)
class Binary:
    """A benchmark_model that may be run."""

    path: Path
    sha256: str
    name: str
    """Among the known ones, or `trusted by its user`."""
    abi: str

    def require_fit(self, identity: Identity) -> None:
        """Raise BadInput where the device is known to run programs of other processors only."""
        if identity.runs and self.abi not in {_ABIS.get(abi, abi) for abi in identity.runs}:
            raise BadInput(f"{self.path} is built for {self.abi}, and {identity.name} runs {', '.join(identity.runs)}: get the benchmark_model built for Android on {identity.runs[0]}")


def check(path: Path, *, trusted: bool) -> Binary:
    """Return the benchmark_model in the file `path`; raises BadInput for what cannot be one, and for an unknown one unless it is `trusted`."""
    path = Path(path)
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise BadInput(f"{path} is not a file: expected benchmark_model, the program built for Android")
        if found.st_size > LARGEST:
            raise BadInput(f"{path} has {found.st_size / 2**20:.0f} MiB: expected benchmark_model, a program of some 10 MiB; name its file")
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}): name the file of benchmark_model, built for Android") from None
    abi = _abi(path, content)
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 not in KNOWN and not trusted:
        raise BadInput(
            f"{path} is no benchmark_model that is known here (SHA-256 {sha256}): it would run on your device, so look where it comes from, then run the command again with --trust-binary"
        )
    return Binary(path, sha256, KNOWN.get(sha256, TRUSTED), abi)


def _abi(path: Path, content: bytes) -> str:
    """Return the ABI that an ELF program is built for; raises BadInput for what is none, such as a script, an APK or a page that a download gave."""
    if content[:4] != b"\x7fELF" or len(content) < 52 or content[5] != 1:
        raise BadInput(f"{path} is no program for Android (it does not begin as an ELF file does): name the file of benchmark_model, built for Android")
    kind, machine = struct.unpack_from("<HH", content, 16)
    bits, abi = _MACHINES.get(machine, (0, ""))
    if kind not in (2, 3) or content[4] != bits:
        raise BadInput(f"{path} is an ELF file of type {kind} for machine {machine}, no program for a processor that Android runs on: name the file of benchmark_model, built for Android")
    return abi
