"""Copies, contradicting labels, and lesions or patients that stand several times.

In: an index. Out: the lists that the audit shows, each in an order that depends on the data alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from melanoma_edge.data.audit.file_findings import counted
from melanoma_edge.data.audit.model import Contradiction, Group, LeakCounts, Member, Parts, Subject
from melanoma_edge.data.index import Index, Row, printable
from melanoma_edge.data.policy import connect, copy_groups
from melanoma_edge.data.sources.diagnoses import classes_of

PARTS = ("train", "validation", "test")
"""In the order in which they are used: what stands in an earlier one has been seen by the time of a later one."""
_SPELLED = {"val": "validation"}


@dataclass(frozen=True)
class Connections:
    """The pictures of an index, connected in three ways; lists of positions, each picture in exactly one."""

    identical: list[list[int]]
    """By identical pixels."""
    copies: list[list[int]]
    """As copies, identical or near."""
    lesions: list[int]
    """{position: group} by copies and lesion ids."""
    patients: list[int]
    """{position: group} by copies, lesion and patient ids."""

    @classmethod
    def of(cls, index: Index) -> "Connections":
        """Return how the pictures of `index` are connected."""
        identical = defaultdict(list)
        for position, row in enumerate(index.rows):
            identical[row.pixels].append(position)
        return cls(list(identical.values()), copy_groups(index), connect(index, patients=False), connect(index))

    def copy_of(self) -> list[int]:
        """Return the group of copies of each picture."""
        found = [0] * sum(map(len, self.copies))
        for group, positions in enumerate(self.copies):
            for position in positions:
                found[position] = group
        return found


def part_of(row: Row) -> str:
    """Return the part in which the data set came, in one spelling; empty for none."""
    return _SPELLED.get(row.part.lower(), row.part.lower())


def exact_duplicates(index: Index, connections: Connections) -> tuple[Group, ...]:
    """Return the groups of pictures with identical pixels, those under several classes first."""
    return _in_order(_group(index, positions, {}) for positions in connections.identical if len(positions) > 1)


def near_copies(index: Index, connections: Connections) -> tuple[Group, ...]:
    """Return the groups of copies that are not all identical, those under several classes first."""
    chosen = [positions for positions in connections.copies if len({index.rows[position].pixels for position in positions}) > 1]
    wanted = {position for positions in chosen for position in positions}
    closest: dict[int, float] = {}
    for (a, b), difference in zip(index.copies.pairs.tolist(), index.copies.differences.tolist()):
        if a in wanted and index.rows[a].pixels != index.rows[b].pixels:
            for position in (a, b):
                closest[position] = min(difference, closest.get(position, np.inf))
    return _in_order(_group(index, positions, closest) for positions in chosen)


def contradictions(index: Index) -> tuple[tuple[Contradiction, ...], dict[str, int]]:
    """Return the pictures whose class is none that their reference can mean, by pair, and {reference not understood: pictures}."""
    names = {row.label.lower(): row.label for row in index.rows}
    meant_by = {reference: _meant(reference, names) for reference in {row.reference for row in index.rows if row.reference}}
    pairs, unknown = defaultdict(list), Counter()
    for row in index.rows:
        if row.reference:
            meant = meant_by[row.reference]
            if not meant:
                unknown[printable(row.reference)] += 1
            elif row.label.lower() not in meant:
                pairs[row.label, row.reference.strip().lower()].append(row)
    found = [
        Contradiction(
            label=label,
            reference=printable(reference),
            meant=tuple(sorted(names.get(name, name) for name in meant_by[rows[0].reference])),
            pictures=len(rows),
            paths=tuple(row.path for row in rows),
        )
        for (label, reference), rows in pairs.items()
    ]
    return tuple(sorted(found, key=lambda pair: (-pair.pictures, pair.label, pair.reference))), counted(unknown.elements())


def subjects(index: Index, id_of: Callable[[Row], str]) -> tuple[Subject, ...]:
    """Return the lesions (or patients, whatever id `id_of` gives) with several pictures: those under several classes
    first, then those in several parts."""
    rows = defaultdict(list)
    for row in index.rows:
        if id_of(row):
            rows[id_of(row)].append(row)
    found = [
        Subject(
            id=printable(name),
            classes=_distinct(row.label for row in mine),
            parts=_distinct(part_of(row) for row in mine),
            pictures=len(mine),
            paths=tuple(row.path for row in mine),
        )
        for name, mine in rows.items()
        if len(mine) > 1
    ]
    return tuple(sorted(found, key=lambda one: (len(one.classes) < 2, len(one.parts) < 2, -one.pictures, one.id)))


def parts(index: Index, connections: Connections) -> Parts | None:
    """Return the parts in which the data set came and what they share; None where there are not two."""
    given = [part_of(row) for row in index.rows]
    there = [part for part in PARTS if part in given]
    if len(there) < 2:
        return None
    pictures = Counter(given)
    leak = {}
    ways = (connections.copy_of(), connections.lesions, connections.patients)
    for place, part in enumerate(there[1:], 1):
        counts = []
        for groups in ways:
            seen = {group for group, other in zip(groups, given) if other in there[:place]}
            counts.append(sum(group in seen for group, mine in zip(groups, given) if mine == part))
        leak[part] = LeakCounts(pictures=pictures[part], copies=counts[0], lesions=counts[1], patients=counts[2])
    return Parts(pictures={part: pictures[part] for part in (*there, *sorted(set(pictures) - set(there)))}, leak=leak)


def crosses(group: Group | Subject) -> bool:
    """Return whether a group stands in more than one of the parts train, validation and test."""
    return len(set(group.parts) & set(PARTS)) > 1


def _group(index: Index, positions: list[int], closest: dict[int, float]) -> Group:
    rows = [index.rows[position] for position in positions]
    members = [
        Member(
            path=row.path,
            label=row.label,
            reference=printable(row.reference),
            part=part_of(row),
            lesion=printable(row.lesion),
            patient=printable(row.patient),
            width=row.facts.width if row.facts else None,
            height=row.facts.height if row.facts else None,
            difference=round(closest[position], 3) if position in closest else 0.0,
        )
        for position, row in zip(positions, rows)
    ]
    return Group(members=tuple(members), classes=_distinct(row.label for row in rows), parts=_distinct(part_of(row) for row in rows))


def _in_order(groups: Iterable[Group]) -> tuple[Group, ...]:
    return tuple(sorted(groups, key=lambda group: (len(group.classes) < 2, not crosses(group), group.members[0].path)))


def _meant(reference: str, names: dict[str, str]) -> set[str]:
    """Return the classes, in small letters, that a reference diagnosis can mean; empty where it is not understood."""
    plain = reference.strip().lower()
    return {name.lower() for name in classes_of(plain)} | ({plain} & set(names))


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(values) - {""}))
