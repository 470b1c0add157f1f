"""Debian packages unpacked into a folder: no root, nothing installed, any architecture.

In: which packages, of which suite and architecture, and where to. Out: what they hold below that folder, and a
record of their versions and bytes. They come from this machine's own Debian mirror where it has one, over its own
proxies, but with a configuration of apt that is private to the call: the lists, sources and hooks of the machine
neither change nor matter. apt checks every package against the archive's signature.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from melanoma_edge.errors import Missing
from melanoma_edge.files import sha256_file

OFFICIAL = "http://deb.debian.org/debian"
"""Debian's own address, for machines whose mirror is another distribution's. The signatures guard what comes over http."""
KEYRINGS = tuple(Path("/usr/share/keyrings", name) for name in ("debian-archive-keyring.pgp", "debian-archive-keyring.gpg"))


@dataclass(frozen=True)
class Wanted:
    """Packages of one suite and architecture, and the folder that they are unpacked into."""

    suite: str
    architecture: str
    packages: tuple[str, ...]
    into: Path


@dataclass(frozen=True)
class Package:
    """What was unpacked."""

    name: str
    version: str
    architecture: str
    sha256: str


def require() -> None:
    """Raise Missing where this machine has no tools for Debian packages, or no keys to check them with."""
    for tool in ("apt-get", "apt-config", "dpkg", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Missing(f"{tool} is not here, and Debian packages are needed: use a Debian or Ubuntu machine or container")
    _keyring()


def architecture() -> str:
    """Return what Debian calls this machine's processor: `amd64`."""
    return _run(["dpkg", "--print-architecture"], os.environ, "dpkg does not name this machine's architecture").strip()


def mirror() -> str:
    """Return the address of this machine's Debian archive; Debian's own where its packages are another distribution's."""
    try:
        system = platform.freedesktop_os_release()
    except OSError:
        return OFFICIAL
    codename = system.get("VERSION_CODENAME")
    if system.get("ID") != "debian" or not codename:
        return OFFICIAL
    sources = _run(["apt-get", "--print-uris", "update"], os.environ, "the sources of apt cannot be read")
    named = re.findall(r"^'(\S+)/dists/(\S+)/InRelease'", sources, flags=re.MULTILINE)
    archives = [base for base, suite in named if suite in (codename, "stable")]
    # Others' archives may be called after the release as well; only Debian's has updates beside it.
    return next((base for base in archives if {(base, f"{suite}-updates") for suite in (codename, "stable")} & set(named)), OFFICIAL)


def unpack(wanted: Sequence[Wanted], address: str, scratch: Path, progress: Callable[[str], None]) -> tuple[Package, ...]:
    """Fetch the packages from the archive at `address`, unpack each into its folder and return what they were.

    `scratch` is an empty folder for apt's files, left filled. Raises Missing without the tools, the network or the packages.
    """
    require()
    environment = _private_apt(wanted, address, scratch)
    failed = f"Debian packages cannot be fetched from {address}"
    progress(f"reading the lists of {address}")
    _run(["apt-get", "-q", "update", "-o", "APT::Update::Error-Mode=any"], environment, failed)
    unpacked = []
    for group in wanted:
        folder = scratch / "packages" / f"{group.suite}-{group.architecture}"
        folder.mkdir(parents=True)
        first, more = group.packages[0], len(group.packages) - 1
        progress(f"fetching {first}{f' and {more} packages more' if more else ''} of {group.suite}")
        names = [f"{package}:{group.architecture}/{group.suite}" for package in group.packages]
        _run(["apt-get", "-q", "download", *names], environment, failed, cwd=folder)
        group.into.mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.glob("*.deb")):
            fields = _run(["dpkg-deb", "--show", "--showformat", "${Package}\n${Version}\n${Architecture}", str(file)], environment, f"{file.name} is damaged")
            unpacked.append(Package(*fields.split("\n"), sha256_file(file)))
            _run(["dpkg-deb", "--extract", str(file), str(group.into)], environment, f"{file.name} cannot be unpacked")
    return tuple(unpacked)


def _private_apt(wanted: Sequence[Wanted], address: str, scratch: Path) -> dict[str, str]:
    """Write a configuration of apt into `scratch` and return the environment that makes apt use it alone."""
    state, own = scratch / "apt", scratch / "apt" / "apt.conf"
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True)
    (state / "status").touch()
    sources = {f"deb [arch={group.architecture} signed-by={_keyring()}] {address} {group.suite} main\n" for group in wanted}
    (state / "sources.list").write_text("".join(sorted(sources)), encoding="utf-8")
    known = _run(["apt-config", "dump"], os.environ, "the configuration of apt cannot be read").splitlines()
    ways = [line for line in known if line.startswith("Acquire::") and not line.startswith(("Acquire::IndexTargets", "Acquire::Languages"))]
    architectures = " ".join(f'"{name}";' for name in sorted({architecture(), *(group.architecture for group in wanted)}))
    own.write_text(
        "\n".join(
            [
                *ways,  # proxies and certificates
                'Dir::Etc::main "/dev/null";',
                'Dir::Etc::parts "/dev/null";',
                f'Dir::Etc::sourcelist "{state}/sources.list";',
                'Dir::Etc::sourceparts "/dev/null";',
                'Dir::Etc::preferencesparts "/dev/null";',
                'Dir::Etc::preferences "/dev/null";',
                f'Dir::State "{state}";',
                f'Dir::State::status "{state}/status";',
                f'Dir::Cache "{state}/cache";',
                'Dir::Cache::pkgcache "";',
                'Dir::Cache::srcpkgcache "";',
                f"APT::Architectures {{ {architectures} }};",
                'APT::Sandbox::User "root";',  # else the user _apt would have to be able to write here
                'Acquire::Languages "none";',
                'Acquire::GzipIndexes "true";',
                "",
            ]
        ),
        encoding="utf-8",
    )
    return os.environ | {"APT_CONFIG": str(own)}


def _keyring() -> Path:
    """Return the file with the keys of Debian's archive; raises Missing without it."""
    for path in KEYRINGS:
        if path.is_file():
            return path
    raise Missing("the keys of Debian's archive are not here: apt-get install debian-archive-keyring")


def _run(command: list[str], environment, failed: str, cwd: Path | None = None) -> str:
    """Return what `command` printed; raises Missing that says what `failed` and the tool's own first word on it."""
    done = subprocess.run(
        command, cwd=cwd, env={**environment, "LC_ALL": "C.UTF-8"}, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    if done.returncode == 0:
        return done.stdout
    complaints = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines() or ["no reason given"]
    raise Missing(f"{failed} ({' '.join(complaints[0].removeprefix('E:').split())}): mend that, or go online, and run the command again")
