"""What tables say about pictures, by picture id, and how that meets the files.

In: rows of a table; the files of a folder. Out: facts by id; a listing of the files that have a class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from melanoma_edge.data.listing import Entry, Listing
from melanoma_edge.data.sources.files import Files, stem
from melanoma_edge.data.sources.tables import LICENCES, Table, printable
from melanoma_edge.errors import BadInput

PARTS = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "validation", "valid": "validation", "validation": "validation", "eval": "validation",
}  # fmt: skip
"""{name of a folder in small letters: part of the set that it holds}."""
DOWNSAMPLED = "_downsampled"
"""End of the names under which ISIC 2019 gives out the large pictures made smaller."""
NO_DIAGNOSIS = "no diagnosis"
FILL = ("lesion", "patient", "licence", "attribution")


@dataclass(frozen=True)
class Facts:
    """What is known about one picture; empty fields are not known."""

    diagnosis: str = ""
    """As the table spells it."""
    label: str = ""
    """Class that the diagnosis stands for; empty where it stands for none of the nine."""
    lesion: str = ""
    patient: str = ""
    part: str = ""
    licence: str = ""
    attribution: str = ""
    source: str = ""
    kind: str = ""
    """What it shows, where that is not a dermoscopic picture."""


def plain_facts(table: Table) -> dict[str, Facts]:
    """Return the facts of a table that stands beside class folders, or completes another table."""
    columns = (table.column("reference_diagnosis", "diagnosis", "dx"), *common_columns(table))
    return by_id(table, (Facts(diagnosis=diagnosis, **fields(*rest)) for diagnosis, *rest in zip(*columns)))


def common_columns(table: Table) -> tuple[list[str], list[str], list[str], list[str]]:
    """Return the columns for :func:`fields`."""
    return table.column("lesion_id"), table.column("patient_id"), table.column(*LICENCES), table.column("attribution")


def fields(lesion: str, patient: str, licence: str, attribution: str) -> dict[str, str]:
    return {"lesion": lesion, "patient": patient, "licence": licence, "attribution": attribution}


def by_id(table: Table, facts: Iterable[Facts]) -> dict[str, Facts]:
    """Return {picture id: facts} for the rows of `table`; rows without an id are passed over.

    Raises BadInput when an id stands twice with different facts.
    """
    found: dict[str, Facts] = {}
    for name, value, line in zip(table.ids(), facts, table.lines):
        if name and found.setdefault(name, value) != value:
            raise BadInput(f"{printable(table.path)} line {line}: {printable(name)} stands twice with different facts; keep one row an image")
    return found


def joined(tables: Iterable[tuple[Path, Mapping[str, Facts]]]) -> dict[str, Facts]:
    """Return the facts of several tables that give pictures their class.

    Raises BadInput when two tables disagree about a picture.
    """
    found: dict[str, Facts] = {}
    for path, facts in tables:
        for name, value in facts.items():
            if found.setdefault(name, value) != value:
                raise BadInput(f"{printable(path)} says otherwise of {printable(name)} than a table read before: name the one to use with --metadata")
    return found


def completed(facts: Mapping[str, Facts], more: Mapping[str, Facts]) -> dict[str, Facts]:
    """Return `facts` with what is empty there and known in `more`, the diagnosis apart."""
    result = {}
    for name, value in facts.items():
        other = find(more, name)
        known = {field: getattr(other, field) for field in FILL if not getattr(value, field) and getattr(other, field)} if other else {}
        result[name] = replace(value, **known) if known else value
    return result


def find(facts: Mapping[str, Facts], name: str) -> Facts | None:
    """Return the facts of the picture `name`, under that id or without what tells that it was made smaller."""
    return facts.get(name) or facts.get(name.removesuffix(DOWNSAMPLED))


def list_by_table(files: Files, facts: Mapping[str, Facts], kind: str, tables: Iterable[Path]) -> Listing:
    """Return the listing of the pictures that `facts` give a class.

    Of several files with one name the first is taken. Raises BadInput when no picture is named by the facts.
    """
    tables = tuple(tables)
    entries: list[Entry] = []
    outside: list[str] = []
    again: list[str] = []
    used: set[str] = set()
    unmapped: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for path in files.pictures:
        name = stem(path)
        if name not in facts:
            name = name.removesuffix(DOWNSAMPLED)
        value = facts.get(name)
        if value is None:
            outside.append(path)
        elif name in used:
            again.append(path)
        else:
            used.add(name)
            if value.kind:
                kinds[value.kind] += 1
            elif not value.label:
                unmapped[value.diagnosis or NO_DIAGNOSIS] += 1
            else:
                part = value.part or PARTS.get(path.partition("/")[0].lower(), "")
                entries.append(
                    Entry(path, value.label, value.lesion, value.patient, part, value.diagnosis, value.licence, value.attribution, value.source)
                )
    if not used:
        shown = ", ".join(printable(table) for table in tables)
        raise BadInput(
            f"{shown} names none of the {len(files.pictures)} pictures below {printable(files.root)}: expected files with the names of its ids "
            f"({printable(next(iter(facts), 'it has no row'))}.jpg ...); give the folder that holds them"
        )
    if not entries:
        why = counts({**unmapped, **kinds})
        raise BadInput(f"{printable(files.root)} holds no picture that stands for one of the nine classes ({why}): see docs/data-sets.md for what is mapped")
    notes = list(files.notes)
    if kinds:
        notes.append(f"left out, not dermoscopic: {counts(kinds)}")
    if again:
        notes.append(f"{len(again)} {'picture has' if len(again) == 1 else 'pictures have'} the name of another (first: {printable(again[0])}): one of each name is taken")
    return Listing(
        root=files.root,
        source=kind,
        entries=tuple(entries),
        tables=tables,
        outside=tuple(outside),
        other_files=files.counted(tables),
        unmapped=dict(sorted(unmapped.items())),
        without_picture=tuple(sorted(name for name in facts if name not in used)),
        notes=tuple(notes),
    )


def counts(counted: Mapping[str, int]) -> str:
    """Return `counted` in words, the most first."""
    return ", ".join(f"{printable(name)} {count}" for name, count in sorted(counted.items(), key=lambda item: (-item[1], item[0])))
