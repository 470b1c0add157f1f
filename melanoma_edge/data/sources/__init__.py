"""Data sets of every kind, listed without opening a picture.

In: a folder as people and archives leave it, or an index table. Out: a :class:`~melanoma_edge.data.listing.Listing`.

What a folder is, is decided in this order:

1. A table gives pictures their class: the one named with `metadata`, or else those found by name: `metadata.csv`
   with `isic_id` and a diagnosis (ISIC Archive; in folders of the data folder, too), `HAM10000_metadata`, `ISIC2018_Task3_*_GroundTruth.csv`,
   `ISIC_2019_*_GroundTruth.csv`. Columns decide which it is. But where folders with pictures are named after
   diagnoses, people have sorted the pictures: then it is the next kind, and the table says the rest. Several
   folders of other names beside a table of the ISIC Archive that was not named are refused: either may be meant.
2. Class folders, with a `metadata.csv` where it is there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from melanoma_edge.data.image import SUFFIXES
from melanoma_edge.data.listing import Listing
from melanoma_edge.data.sources.archive import archive_facts
from melanoma_edge.data.sources.challenge import challenge_facts
from melanoma_edge.data.sources.diagnoses import ARCHIVE, HAM10000, ISIC_2018, ISIC_2019, listed
from melanoma_edge.data.sources.facts import Facts, completed, joined, list_by_table, plain_facts
from melanoma_edge.data.sources.files import Files, list_files
from melanoma_edge.data.sources.folders import folder_names, list_by_folder
from melanoma_edge.data.sources.ham10000 import ham10000_facts
from melanoma_edge.data.sources.index_table import is_index, list_by_index
from melanoma_edge.data.sources.licences import keep_licences
from melanoma_edge.data.sources.tables import Table, printable, read_table
from melanoma_edge.errors import BadInput

METADATA = "metadata.csv"
SHOWN = 5
ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"}
_TABLE_NAME = re.compile(
    r"ham10000_metadata(\.(csv|tab|tsv|txt))?|isic2018_task3_(training|validation|test)_(groundtruth|lesiongroupings)\.(csv|tab)"
    r"|isic_2019_(training|test)_(groundtruth|metadata)\.csv",
    re.IGNORECASE,
)
"""Names under which tables are given out; they stand in the data folder or in a folder of their own there."""
_PARTS = {"training": "train", "validation": "validation", "test": "test"}
EXPECTED = (
    "{root}/<class>/*.jpg (any of {suffixes}), or pictures with the table that they are given out with: metadata.csv of the ISIC Archive, "
    "HAM10000_metadata.csv, ISIC2018_Task3_*_GroundTruth.csv or ISIC_2019_*_GroundTruth.csv"
)


def read_listing(data: Path, *, metadata: Path | None = None, licences: Sequence[str] = ()) -> Listing:
    """Return the listing of the data set at `data`, a folder or an index table (CSV).

    `metadata` names the table to read instead of those found by name. With `licences` only pictures under one
    of them are kept. Raises BadInput for what is missing, not recognised or contradictory.
    """
    data = Path(data)
    if not os.path.exists(data):
        raise BadInput(f"{printable(data)} is missing: expected a folder with one folder a class, another data set, or an index table (docs/data-sets.md)")
    if data.is_dir():
        listing = _list_folder(data, metadata)
    elif metadata is not None:
        raise BadInput(f"{printable(data)} is a file, so an index table that says everything itself: leave --metadata out, or give a folder")
    elif data.suffix.lower() in ARCHIVES:
        raise BadInput(f"{printable(data)} is an archive: expected a folder or an index table; unpack it and give the folder")
    else:
        listing = list_by_index(data)
    return keep_licences(listing, licences)


def find_metadata(root: Path) -> Path | None:
    """Return the metadata.csv of the data folder `root`, or None."""
    file = Path(root) / METADATA
    return file if file.is_file() else None


def _list_folder(root: Path, metadata: Path | None) -> Listing:
    files = list_files(root)
    named = metadata or find_metadata(root)
    labelled, more = _sorted([read_table(path) for path in _tables(files, metadata)])
    if metadata is None:  # each collection that isic-cli downloads has its own
        labelled += [table for table in map(read_table, _inner_metadata(files)) if _kind(table) == ARCHIVE]
    # The named one comes first, and alone decides where it gives pictures their class.
    if named is not None:
        table = read_table(named)
        if is_index(table):
            raise BadInput(f"{printable(named)} is an index table: give it as DATA instead of the folder")
        if _kind(table) is None:
            table.ids()  # which a table that only adds to others needs
            more = [table, *more]
        else:
            labelled = [table, *([] if metadata else labelled)]
    folders = folder_names(files)
    sorted_by_people = any(listed(folder) for folder in folders)
    ambiguous = metadata is None and not sorted_by_people and len(folders) > 1 and labelled and labelled[0].path == named
    if ambiguous and _kind(labelled[0]) == ARCHIVE:
        sorted_by_people = not labelled[0].has("attribution")  # a table that people made beside classes of their own
        if not sorted_by_people:
            raise BadInput(
                f"{printable(root)} holds a table of the ISIC Archive, and pictures in {len(folders)} folders ({_quoted(folders)}) that are no diagnoses: "
                f"take the classes from the table with --metadata {printable(labelled[0].path)}, or rename its diagnoses to reference_diagnosis to take the folders"
            )
    if labelled and not sorted_by_people:
        listing = _list_labelled(files, labelled, more)
        if ARCHIVE in listing.source and len(folders) > 1:
            note = f"the folders {_quoted(folders)} are no diagnoses, so classes are the table's"
            return replace(listing, notes=(*listing.notes, note))
        return listing
    if not folders:
        loose = f" ({len(files.pictures)} stand in no class folder)" if files.pictures else f" ({files.notes[0]})" if files.notes else ""
        expected = EXPECTED.format(root=printable(root), suffixes=" ".join(sorted(SUFFIXES)))
        raise BadInput(f"{printable(root)} holds no pictures in class folders{loose}: expected {expected}")
    tables = [*labelled, *more] if named is None or labelled else [table for table in more if table.path == named]
    if not tables:
        return list_by_folder(files, None)
    facts = _facts(labelled)
    for table in more if labelled else tables:
        plain = plain_facts(table)
        facts = {**plain, **completed(facts, plain)}
    return list_by_folder(files, facts, [table.path for table in tables])


def _list_labelled(files: Files, labelled: Sequence[Table], more: Sequence[Table]) -> Listing:
    facts = _facts(labelled)
    for table in more:
        facts = completed(facts, plain_facts(table))
    kinds = dict.fromkeys(_kind(table) for table in labelled)
    return list_by_table(files, facts, " and ".join(kinds), [table.path for table in [*labelled, *more]])


def _facts(labelled: Sequence[Table]) -> Mapping[str, Facts]:
    return joined((table.path, _read(table)) for table in labelled)


def _read(table: Table) -> dict[str, Facts]:
    kind, part = _kind(table), _part(table.path)
    if kind == ARCHIVE:
        return archive_facts(table)
    return ham10000_facts(table, part) if kind == HAM10000 else challenge_facts(table, part)


def _kind(table: Table) -> str | None:
    """Return which kind of table that gives pictures their class `table` is; None for one that only adds to others."""
    if table.has("mel", "nv", "bcc"):
        return ISIC_2018 if table.has("akiec") else ISIC_2019
    if table.has("dx"):
        return HAM10000
    if table.has("isic_id") and (table.has("diagnosis") or table.has("diagnosis_1")):
        return ARCHIVE
    return None


def _sorted(tables: Sequence[Table]) -> tuple[list[Table], list[Table]]:
    """Return the tables that give pictures their class, and the others."""
    return [table for table in tables if _kind(table)], [table for table in tables if not _kind(table)]


def _tables(files: Files, metadata: Path | None) -> list[Path]:
    """Return the tables found by name in the data folder, and beside `metadata`."""
    found = {os.path.abspath(files.root / path): files.root / path for path in files.others if path.count("/") <= 1 and _TABLE_NAME.fullmatch(path.rpartition("/")[2])}
    if metadata is not None:
        beside = Path(metadata).parent
        try:
            names = sorted(os.listdir(beside))
        except OSError:
            names = []
        found |= {os.path.abspath(beside / name): beside / name for name in names if _TABLE_NAME.fullmatch(name)}
        found.pop(os.path.abspath(metadata), None)
    return list(found.values())


def _inner_metadata(files: Files) -> list[Path]:
    """Return the metadata.csv of the folders in the data folder."""
    return [files.root / path for path in files.others if path.count("/") == 1 and path.endswith(f"/{METADATA}")]


def _quoted(names: Iterable[str]) -> str:
    """Return the first few of `names` for a message."""
    names = sorted(names)
    return ", ".join(map(repr, names[:SHOWN])) + (" ..." if len(names) > SHOWN else "")


def _part(path: Path) -> str:
    """Return the part of the set that a challenge's table is for, by its name."""
    found = re.search(r"_(training|validation|test)_", Path(path).name, re.IGNORECASE)
    return _PARTS[found[1].lower()] if found else ""

