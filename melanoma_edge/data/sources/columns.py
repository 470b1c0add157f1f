"""Any column of a data set's tables, for figures by groups: sex, age, site, source.

In: a listing and the name of a column. Out: what stands there for each picture. Training knows nothing of these columns, so the
tables are read once more.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from melanoma_edge.data.listing import Listing
from melanoma_edge.data.sources.facts import DOWNSAMPLED
from melanoma_edge.data.sources.files import stem
from melanoma_edge.data.sources.index_table import is_index
from melanoma_edge.data.sources.tables import ID_COLUMNS, Table, printable, read_table
from melanoma_edge.errors import BadInput

LISTED = {"class": "label", "part": "part", "reference": "reference", "licence": "licence", "attribution": "attribution", "source": "source"}
"""What a listing itself knows of pictures, whatever its tables call it: {column: field of an entry}."""
NOT_KNOWN = frozenset({"", "na", "n/a", "nan", "none", "null", "unknown", "not known"})
"""What tables write, in any letters, where they do not know."""
SHOWN = 60


def column_values(listing: Listing, column: str) -> dict[str, str]:
    """Return {path: what the tables of `listing` say in `column`} of its pictures; "" where they do not know.

    Small and capital letters are the same in a column's name. A column that no table has may be one of LISTED. Raises BadInput, naming the columns
    that there are, where it is neither, and for tables or rows that say different things of one picture.
    """
    wanted = column.strip().lower()
    tables = [read_table(table, also=(wanted,)) for table in listing.tables]
    having = [table for table in tables if table.has(wanted)]
    if not having:
        known = {name: {entry.path: _known(getattr(entry, field)) for entry in listing.entries} for name, field in LISTED.items()}
        if any(known.get(wanted, {}).values()):
            return known[wanted]
        named = [name for table in tables for name in table.header if name and name.lower() not in (*ID_COLUMNS, "path")]
        taken = {name.lower() for name in named}
        there = dict.fromkeys([*named, *(name for name, values in known.items() if any(values.values()) and name not in taken)])
        shown = ", ".join(map(printable, list(there)[:SHOWN])) + (f" and {len(there) - SHOWN} more" if len(there) > SHOWN else "")
        raise BadInput(f"{printable(listing.root)} has no column {printable(column)!r} in its tables: expected one of {shown}; give another --by")
    found: dict[str, str] = {}
    for table in having:
        for key, value, line in _rows(table, wanted):
            if value and found.setdefault(key, value) != value:
                where = f"{printable(table.path)} line {line}"
                raise BadInput(f"{where}: {printable(column)} of {printable(key)} is {printable(value)!r} here and {printable(found[key])!r} before: keep one of them")
    values = {}
    for path in (entry.path for entry in listing.entries):
        name = stem(path)
        values[path] = found.get(path) or found.get(name) or found.get(name.removesuffix(DOWNSAMPLED), "")
    return values


def _rows(table: Table, column: str) -> Iterable[tuple[str, str, int]]:
    """Yield (picture, value, line) of each row: the picture by its path in an index table, else by its id."""
    keys = [posixpath.normpath(path) for path in table.columns["path"]] if is_index(table) else table.ids()
    return ((key, _known(value), line) for key, value, line in zip(keys, table.column(column), table.lines) if key)


def _known(value: str) -> str:
    return "" if value.strip().lower() in NOT_KNOWN else value.strip()
