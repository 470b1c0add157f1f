"""The index table as a file, and a listing in figures.

In: a listing. Out: a CSV file that :mod:`melanoma_edge.data.sources` reads back, or counts for people. The
columns are described in docs/data-sets.md.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from melanoma_edge.data.listing import COLUMNS, Entry, Listing
from melanoma_edge.data.sources.licences import NOT_STATED
from melanoma_edge.data.sources.tables import printable
from melanoma_edge.errors import BadInput
from melanoma_edge.files import write_text

UNDIVIDED = "undivided"
EXAMPLES = 5
_QUOTED = re.compile(r'[,;"\t\r\n]')


def write_index(listing: Listing, path: Path) -> None:
    """Write the entries of `listing` as an index table to `path`, atomically: UTF-8, LF, sorted by path.

    Its paths are relative to the folder of `path`, which must be the listing's root or a folder above it.
    Raises BadInput where it is neither, and for names that are not UTF-8; otherwise as write_text does.
    """
    path = Path(path)
    root, folder = os.path.realpath(listing.root), os.path.realpath(path.parent)
    above = os.path.relpath(root, folder).replace(os.sep, "/")
    if above == ".." or above.startswith("../"):
        raise BadInput(f"{printable(path)} does not stand in {printable(listing.root)} or above it, so its paths would lead out of its folder: write it there")
    prefix = "" if above == "." else f"{above}/"
    lines = [",".join(COLUMNS)]
    for entry in sorted(listing.entries, key=lambda entry: entry.path.split("/")):
        lines.append(",".join(_field(field) for field in _fields(entry, prefix)))
        try:
            lines[-1].encode()
        except UnicodeEncodeError:
            raise BadInput(f"{printable(entry.path)} has a name that is not UTF-8: rename it; an index table cannot hold it") from None
    write_text(path, "\n".join(lines) + "\n")


def summary(listing: Listing) -> dict:
    """Return the figures of `listing`, ready for JSON; of long lists the first few. Names are printable."""
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in listing.entries:
        classes[entry.label][entry.part or UNDIVIDED] += 1
    order = ("train", "validation", "test", UNDIVIDED)
    totals = sum(classes.values(), Counter())
    return {
        "kind": listing.source,
        "root": printable(listing.root),
        "tables": [printable(table) for table in listing.tables],
        "pictures": len(listing.entries),
        "classes": {
            printable(name): {"pictures": parts.total(), "parts": {part: parts[part] for part in order if parts[part]}} for name, parts in sorted(classes.items())
        },
        "parts": {part: totals[part] for part in order if totals[part]},
        "licences": _counted(entry.licence or NOT_STATED for entry in listing.entries),
        "lesions": len({entry.lesion for entry in listing.entries} - {""}),
        "with_lesion": sum(bool(entry.lesion) for entry in listing.entries),
        "patients": len({entry.patient for entry in listing.entries} - {""}),
        "with_patient": sum(bool(entry.patient) for entry in listing.entries),
        "unmapped": {printable(name): count for name, count in listing.unmapped.items()},
        "filtered": {printable(name): count for name, count in listing.filtered.items()},
        "other_files": {printable(name): count for name, count in listing.other_files.items()},
        "outside": _first(listing.outside),
        "without_picture": _first(listing.without_picture),
        "notes": list(listing.notes),
    }


def _fields(entry: Entry, prefix: str) -> tuple[str, ...]:
    return (prefix + entry.path, entry.label, *(getattr(entry, name) for name in COLUMNS[2:]))


def _field(text: str) -> str:
    """Return `text` as a CSV field."""
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


def _counted(names: Iterable[str]) -> dict[str, int]:
    return {printable(name): count for name, count in sorted(Counter(names).items())}


def _first(names: Sequence[str]) -> dict:
    return {"count": len(names), "first": [printable(name) for name in names[:EXAMPLES]]}
