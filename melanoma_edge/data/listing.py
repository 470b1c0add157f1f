"""The listing: which picture files there are and what is known about each, before any is opened.

Every kind of data set (class folders, an ISIC Archive download, HAM10000, a challenge's one-hot table, an
index written earlier) becomes one of these; see :mod:`melanoma_edge.data.sources`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One picture file: a row of the index table. Every field but the first two may be empty: not known."""

    path: str
    """Relative to the data folder, with forward slashes."""
    label: str
    """Its class."""
    lesion: str = ""
    """Lesion id: photographs of one lesion share it."""
    patient: str = ""
    """Patient id: lesions of one patient share it."""
    part: str = ""
    """`train`, `validation` or `test`, where the data set came divided."""
    reference: str = ""
    """Reference diagnosis from the metadata; it may contradict the class."""
    licence: str = ""
    """Terms of the picture as its source names them, for example `CC-BY-NC`."""
    attribution: str = ""
    """Whom the terms want named."""
    source: str = ""
    """Kind of data set that the row came from."""


COLUMNS = ("path", "class", "lesion", "patient", "part", "reference", "licence", "attribution", "source")
"""Columns of the index table, in order: the fields of :class:`Entry`, `label` as `class`."""


@dataclass(frozen=True)
class Listing:
    """All picture files of a data set, sorted by path, and what could not be listed."""

    root: Path
    """The folder that the paths are relative to."""
    source: str
    """Kind of data set, in words for people: `class folders`, `ISIC Archive`, `HAM10000` ..."""
    entries: tuple[Entry, ...]
    tables: tuple[Path, ...] = ()
    """The CSV files that were read for it."""
    outside: tuple[str, ...] = ()
    """Picture files that have no class (in no class folder, in no table); they are not opened."""
    other_files: dict[str, int] = field(default_factory=dict)
    """{suffix: files} that are no pictures by their name (`.heic`, `.zip`), the tables apart."""
    unmapped: dict[str, int] = field(default_factory=dict)
    """{diagnosis: pictures} that stand for none of the nine classes and are left out."""
    without_picture: tuple[str, ...] = ()
    """Ids that a table names and that have no picture file."""
    filtered: dict[str, int] = field(default_factory=dict)
    """{licence: pictures} left out because only other licences were asked for."""
    notes: tuple[str, ...] = ()
    """What else people should know, a line each: folders joined into one class, links passed over."""
