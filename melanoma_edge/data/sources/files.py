"""The files of a data folder, found without opening one.

In: a folder. Out: the relative paths of its picture files and of the others. What is hidden (a name that
begins with a dot) is passed over, and so is a link that would list files twice or for ever.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from melanoma_edge.data.image import SUFFIXES
from melanoma_edge.data.sources.tables import printable
from melanoma_edge.errors import BadInput

NO_SUFFIX = "(no suffix)"
DRAWN_BY = b"Drawn by melanoma-edge samples"
"""How the README.txt of drawn samples begins."""


@dataclass(frozen=True)
class Files:
    """The files below a folder; paths are relative, with forward slashes, and sorted part by part."""

    root: Path
    pictures: tuple[str, ...]
    others: tuple[str, ...]
    notes: tuple[str, ...]
    """A line for each folder or link that was passed over."""

    def counted(self, tables: Iterable[Path]) -> dict[str, int]:
        """Return {suffix: files} of those that are no pictures, without `tables`."""
        read = {os.path.abspath(table) for table in tables}
        root = os.path.abspath(self.root)
        count = Counter(suffix(path) or NO_SUFFIX for path in self.others if os.path.join(root, path) not in read)
        return dict(sorted(count.items()))


def list_files(root: Path) -> Files:
    """List the files below the folder `root`.

    A link to a folder elsewhere is followed; a link to a folder in the data set, to one above it, or to one
    that was listed already is passed over. Raises BadInput when `root` is no folder or cannot be listed.
    """
    root = Path(root)
    real_root = os.path.realpath(root)
    pictures: list[str] = []
    others: list[str] = []
    notes: list[str] = []
    seen = {real_root}
    # Links come last, so that what a folder holds is found under the folder's own name.
    waiting = [("", real_root)]
    links: list[tuple[str, str]] = []
    while waiting or links:
        if waiting:
            relative, real = waiting.pop()
        else:
            links.sort(key=lambda link: link[0].split("/"), reverse=True)
            relative, real = links.pop()
            if real in seen or _inside(real, real_root) or _inside(real_root, real):
                notes.append(f"{printable(relative)} is a link to a folder that is listed under another name, or holds this one: passed over")
                continue
            seen.add(real)
        try:
            with os.scandir(root / relative) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            if not relative:
                raise BadInput(f"{printable(root)} cannot be listed ({error.strerror}): expected a readable folder") from None
            notes.append(f"{printable(relative)} cannot be listed ({error.strerror}): passed over")
            continue
        if relative and _is_own(root / relative, {entry.name for entry in entries}):
            notes.append(f"{printable(relative)} holds what melanoma-edge wrote (a run, a bundle, copies, drawn samples): passed over")
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = f"{relative}/{entry.name}" if relative else entry.name
            if not _is_folder(entry):
                (pictures if suffix(entry.name) in SUFFIXES else others).append(path)
            elif entry.is_symlink():
                links.append((path, os.path.realpath(entry.path)))
            else:
                inner = f"{real.rstrip('/')}/{entry.name}"
                if inner in seen:
                    notes.append(f"{printable(path)} is listed under another name: passed over")
                    continue
                seen.add(inner)
                waiting.append((path, inner))
    return Files(root, _in_order(pictures), _in_order(others), tuple(sorted(notes)))


def stem(path: str) -> str:
    """Return the file name of `path` without its last suffix."""
    name = path.rpartition("/")[2]
    return name[: len(name) - len(suffix(name))]


def suffix(path: str) -> str:
    """Return the last suffix of a file's name in small letters, with its dot; empty where there is none."""
    return os.path.splitext(path.rpartition("/")[2])[1].lower()


def _in_order(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(paths, key=lambda path: path.split("/")))


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


OWN = {"run.json", "folds.json", "manifest.json", "augment.json"}
"""What a run, a folder of folds, a bundle and a folder of augmented copies hold beside their pictures."""


def _is_own(folder: Path, names: set[str]) -> bool:
    """Return whether a command of this tool wrote the folder: trained in place, it must not train on its own pictures."""
    if OWN & names:
        return True
    try:
        return "README.txt" in names and (folder / "README.txt").read_bytes()[: len(DRAWN_BY)] == DRAWN_BY
    except OSError:
        return False


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
