"""The index table: a CSV file with a row for each picture, as `melanoma-edge import --out` writes it.

In: a CSV file with the columns of :data:`melanoma_edge.data.listing.COLUMNS`, of which only path and class
must be there. Out: a listing whose root is the file's folder.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections import Counter
from pathlib import Path

from melanoma_edge.contract import CLASS_NAME_LENGTH
from melanoma_edge.data.classes import class_names, name_key
from melanoma_edge.data.listing import COLUMNS, Entry, Listing
from melanoma_edge.data.sources.facts import PARTS
from melanoma_edge.data.sources.tables import Table, printable, read_table
from melanoma_edge.errors import BadInput

KIND = "index table"


def is_index(table: Table) -> bool:
    return table.has("path", "class")


def list_by_index(path: Path) -> Listing:
    """Return the listing that the index table `path` holds; rows without a file are counted.

    Raises BadInput for a table without path and class, without rows or without any file, and for a row with
    a path that leaves its folder, no class, an unknown part, or the path of another row.
    """
    table = read_table(path)
    shown, root = printable(path), Path(path).parent
    if not is_index(table):
        raise BadInput(f"{shown} has the columns {table.shown()}: expected an index table with path and class; a table of another kind is named with --metadata")
    if not len(table):
        raise BadInput(f"{shown} has no row: expected one for each picture")
    labels = table.column("class")
    names = class_names(Counter(labels))
    rest = [table.column(name) for name in COLUMNS[2:]]
    entries: dict[str, Entry] = {}
    missing = []
    for name, label, line, *row in zip(table.columns["path"], labels, table.lines, *rest):
        where = f"{shown} line {line}"
        inside = _inside(name, where)
        if not label or not name_key(label) or len(label) > CLASS_NAME_LENGTH:
            raise BadInput(f"{where}: the class {printable(label)[:50]!r} has {len(label)} characters: expected a name of 1 to {CLASS_NAME_LENGTH}, with letters")
        facts = dict(zip(COLUMNS[2:], row))
        if facts["part"]:
            facts["part"] = PARTS.get(facts["part"].lower(), "") or _refuse_part(facts["part"], where)
        entry = Entry(inside, names[label], **facts)
        if entries.setdefault(inside, entry) != entry:
            raise BadInput(f"{where}: {printable(inside)} stands twice with different facts; keep one row a picture")
    for inside in list(entries):
        if not os.path.lexists(os.path.join(root, inside)):
            missing.append(inside)
            del entries[inside]
    if not entries:
        raise BadInput(f"{shown} names no file that is there (first: {printable(missing[0])}): its paths are relative to its own folder; put it back there")
    return Listing(
        root=root,
        source=KIND,
        entries=tuple(sorted(entries.values(), key=lambda entry: entry.path.split("/"))),
        tables=(Path(path),),
        without_picture=tuple(sorted(missing)),
        notes=(f"columns that are not used: {printable(', '.join(table.ignored))}",) if table.ignored else (),
    )


def _inside(name: str, where: str) -> str:
    """Return the path `name` in its shortest form; BadInput where it is empty, absolute or climbs with `..`."""
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[\\/]", name):
        raise BadInput(f"{where}: the path {printable(name)[:200]} is absolute: expected one relative to the table's folder")
    if ".." in name.split("/"):
        raise BadInput(f"{where}: the path {printable(name)[:200]} leads out of the table's folder: expected one without '..'")
    inside = posixpath.normpath(name) if name else "."
    if inside == ".":
        raise BadInput(f"{where}: there is no path: expected one relative to the table's folder")
    return inside


def _refuse_part(part: str, where: str) -> str:
    raise BadInput(f"{where}: the part is {printable(part)[:50]}: expected train, validation, test or nothing")
