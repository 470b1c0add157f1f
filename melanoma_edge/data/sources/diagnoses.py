"""What a diagnosis means in terms of the nine classes: diagnoses.csv, read once.

In: a diagnosis as a data set spells it. Out: the class that its pictures are used as, or the classes that
it can mean. What the table does not list means nothing here; nothing is guessed.
"""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from melanoma_edge.data.classes import CLASSES, name_key

TABLE = "diagnoses.csv"
HIERARCHY = ":"
"""Between the levels of a diagnosis of the ISIC Archive, coarsest first, as the Archive itself writes them."""
ARCHIVE, ARCHIVE_OLDER, HAM10000, ISIC_2018, ISIC_2019 = "ISIC Archive", "ISIC Archive (older)", "HAM10000", "ISIC 2018 Task 3", "ISIC 2019"


@dataclass(frozen=True)
class Meaning:
    """A row of the table."""

    label: str
    """Class that pictures of this diagnosis are used as; empty where they are left out."""
    classes: tuple[str, ...]
    """All classes that the diagnosis can mean, in the order of CLASSES."""


def meaning(source: str, *levels: str) -> Meaning | None:
    """Return what a diagnosis of `source` means; of several `levels` the first that the table lists.

    None where it lists none of them.
    """
    table = _table()
    return next((table[source, key] for key in map(_key, levels) if (source, key) in table), None)


def listed(diagnosis: str) -> bool:
    """Return whether any source of the table has this diagnosis, used as a class or not."""
    return _key(diagnosis) in _anywhere()


def classes_of(diagnosis: str) -> tuple[str, ...]:
    """Return all of the nine classes that a reference `diagnosis` can mean, in the order of CLASSES.

    It may be a class's name, a code such as `bkl`, or a diagnosis of the ISIC Archive with or without the
    levels above it; case, spaces, underscores, hyphens and commas make no difference. Empty where it is not
    understood, or means none of the nine.
    """
    anywhere = _anywhere()
    levels = [_key(level) for level in reversed(diagnosis.split(HIERARCHY))]
    return next((anywhere[level] for level in levels if level in anywhere), ())


def _key(diagnosis: str) -> str:
    return name_key(diagnosis.replace(",", ""))


@functools.cache
def _table() -> dict[tuple[str, str], Meaning]:
    """Return {(source, key of the diagnosis): meaning}."""
    text = resources.files(__package__).joinpath(TABLE).read_text(encoding="utf-8")
    found = {}
    for row in csv.DictReader(io.StringIO(text)):
        may_be = {name.strip() for name in row["may_be"].split("|")} | {row["class"]}
        found[row["source"], _key(row["diagnosis"])] = Meaning(row["class"], _ordered(may_be))
    return found


@functools.cache
def _anywhere() -> dict[str, tuple[str, ...]]:
    """Return {key of a diagnosis: classes it can mean in any source}, the classes' own names included."""
    found: dict[str, set[str]] = {_key(name): {name} for name in CLASSES}
    for (_, key), row in _table().items():
        found.setdefault(key, set()).update(row.classes)
    return {key: _ordered(classes) for key, classes in found.items()}


def _ordered(names: Sequence[str] | set[str]) -> tuple[str, ...]:
    return tuple(name for name in CLASSES if name in names)
