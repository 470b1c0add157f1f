"""The data policy: which pictures are used, under which class, and why the others are not.

In: an index and a recipe. Out: a :class:`Selection`. The policy is the same everywhere: where labels
contradict (of one picture, or of copies of it), the reference diagnosis decides and the rest are dropped; of
copies one is kept; a class with too few lesions is left out and named.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from melanoma_edge import calibration
from melanoma_edge.contract import Recipe
from melanoma_edge.data.classes import CLASSES
from melanoma_edge.data.copies import components
from melanoma_edge.data.index import Index, Row
from melanoma_edge.data.sources.diagnoses import classes_of
from melanoma_edge.errors import BadInput

MIN_UNITS = 3
"""Patients (or lesions, where patients are not known) that a class needs: one for each part."""


@dataclass(frozen=True)
class Selection:
    """The pictures that are used, and what was done to get there."""

    rows: tuple[Row, ...]
    """Used pictures, with the class that the policy decided on."""
    positions: tuple[int, ...]
    """Where each used picture stands in the index."""
    groups: tuple[int, ...]
    """Group of each used picture: same patient, same lesion or copy; never split."""
    classes: tuple[str, ...]
    """Sorted; their order is that of the logits."""
    left_out: dict[str, str] = field(default_factory=dict)
    """{path: why} of the pictures that are not used."""
    report: dict = field(default_factory=dict)
    """Counts for the run directory and for people."""
    lesions: tuple[str, ...] = ()
    """Ids of the lesion and patient of each used picture and of its copies, sorted and joined by "|"; empty where none is known."""


@dataclass(frozen=True)
class Resolution:
    """What the policy decided about every picture of an index, before classes are left out."""

    labels: dict[int, str]
    """{position in the index: class} of the pictures that are kept."""
    left_out: dict[str, str]
    """{path: why} of the others."""
    counts: dict[str, int]
    copies: list[list[int]]
    """Positions of each picture with its copies (:func:`copy_groups`)."""


def resolve(index: Index, recipe: Recipe, classes: Sequence[str] = ()) -> Resolution:
    """Resolve contradicting labels and copies of `index` as the recipe says.

    References can mean any class of the index, or one of `classes`.
    """
    names = sorted({row.label for row in index.rows} | set(classes))
    labels: dict[int, str] = {}
    left_out: dict[str, str] = {}
    counts: Counter[str] = Counter()
    groups = copy_groups(index)
    for positions in groups:
        copies = [index.rows[position] for position in positions]
        identical = defaultdict(set)
        for row in copies:
            identical[row.pixels].add(row.label)
        kinds = Counter(row.pixels for row in copies)
        counts["identical_groups"] += sum(count > 1 for count in kinds.values())
        counts["conflicting_groups"] += sum(len(found) > 1 for found in identical.values())
        counts["near_copy_groups"] += len(kinds) > 1
        counts["near_conflicting_groups"] += len(kinds) > 1 and len({row.label for row in copies}) > 1
        decided, why = _decide(copies, names, recipe.conflicts)
        for position in positions:
            row = index.rows[position]
            if why is not None:
                left_out[row.path] = why
                counts["conflicts_dropped"] += 1
            else:
                labels[position] = decided or row.label
                counts["relabelled_by_reference"] += labels[position] != row.label
        if recipe.duplicates == "one":
            _drop_duplicates(index, positions, labels, left_out, counts)
    return Resolution(labels, left_out, {key: counts[key] for key in COUNTS}, groups)


COUNTS = (
    "identical_groups",
    "conflicting_groups",
    "near_copy_groups",
    "near_conflicting_groups",
    "conflicts_dropped",
    "relabelled_by_reference",
    "duplicates_dropped",
    "near_copies_dropped",
)
"""What is counted: groups of identical pixels, those of them under several classes; groups of copies that are not
all identical, those of them under several classes; pictures dropped because nothing decides, given another
class by the reference, dropped as identical to another, dropped as a near copy of another."""


def copy_groups(index: Index) -> list[list[int]]:
    """Return the positions of each picture with its copies (identical or near), in the order of the first of each."""
    pixels: dict[str, int] = {}
    identical = [(pixels.setdefault(row.pixels, position), position) for position, row in enumerate(index.rows)]
    groups = defaultdict(list)
    for position, group in enumerate(components(len(index.rows), np.concatenate([np.array(identical, np.int64).reshape(-1, 2), index.copies.pairs]))):
        groups[group].append(position)
    return list(groups.values())


def select(index: Index, recipe: Recipe) -> Selection:
    """Apply the recipe's data policy to `index`.

    Raises BadInput when too many files are unreadable, fewer than two classes are left, or the recipe names a positive class or deployment priors of others.
    """
    _refuse_bad(index, recipe)
    resolution = resolve(index, recipe)
    labels, left_out = resolution.labels, dict(resolution.left_out)
    groups = connect(index)
    single = connect(index, patients=False)
    lesions = Counter(label for label, _ in {(labels[position], single[position]) for position in labels})
    units = Counter(label for label, _ in {(labels[position], groups[position]) for position in labels})
    # A class of few patients cannot stand in all parts, however many lesions they have.
    few = {name for name, count in lesions.items() if units[name] < MIN_UNITS <= count}
    classes = tuple(sorted(name for name, count in lesions.items() if count >= recipe.min_lesions and name not in few))
    small = {name: lesions[name] for name in sorted({row.label for row in index.rows}) if name not in classes}
    _refuse_few_classes(classes, small, recipe, index)
    for position, label in labels.items():
        if label not in classes:
            why = f"{lesions[label]} lesions of {units[label]} patients, which no split can keep apart" if label in few else f"{lesions[label]} lesions, min_lesions is {recipe.min_lesions}"
            left_out[index.rows[position].path] = f"class left out: {why}"
    kept = [position for position in sorted(labels) if labels[position] in classes]
    known = {}  # with those of all copies: one that is dropped may be the one that knows the lesion
    for copies in resolution.copies:
        known.update(dict.fromkeys(copies, "|".join(sorted({name for position in copies for name in ids_of(index.rows[position])}))))
    numbers: dict[int, int] = {}  # by first use: pictures that are not used change no number
    labels_of = defaultdict(set)
    for position in kept:
        labels_of[groups[position]].add(labels[position])
    return Selection(
        rows=tuple(replace(index.rows[position], label=labels[position]) for position in kept),
        positions=tuple(kept),
        groups=tuple(numbers.setdefault(groups[position], len(numbers)) for position in kept),
        lesions=tuple(known[position] for position in kept),
        classes=classes,
        left_out=left_out,
        report={
            "readable": len(index.rows),
            "unreadable": len(index.bad),
            "in_no_class_folder": len(index.outside),
            "unmapped": dict(index.listing.unmapped) if index.listing else {},
            "without_picture": len(index.listing.without_picture) if index.listing else 0,
            "other_licence": dict(index.listing.filtered) if index.listing else {},
            **resolution.counts,
            "left_out_classes": small,
            "used": len(kept),
            "used_groups": len({groups[position] for position in kept}),
            "with_lesion_id": sum(bool(known[position]) for position in kept),
            "classes_without_lesion_id": without_lesion_id((labels[position], known[position]) for position in kept),
            "with_patient_id": sum(bool(index.rows[position].patient) for position in kept),
            "licences": _count(index.rows[position].licence for position in kept),
            "attributions": _count(index.rows[position].attribution for position in kept),
            "groups_under_two_classes": sum(len(names) > 1 for names in labels_of.values()),
            "per_class": {name: sum(labels[position] == name for position in kept) for name in classes},
            "lesions_per_class": {name: lesions[name] for name in classes},
        },
    )


def without_lesion_id(pictures: Iterable[tuple[str, str | None]]) -> list[str]:
    """Return the classes, sorted, of which no picture has a lesion or patient id; `pictures` are (class, id) of each."""
    known: dict[str, bool] = {}
    for label, lesion in pictures:
        known[label] = known.get(label, False) or bool(lesion)
    return sorted(label for label, any_known in known.items() if not any_known)


def _decide(copies: list[Row], folders: list[str], policy: str) -> tuple[str | None, str | None]:
    """Return (class, None) for identical `copies`, (None, why) to drop them, (None, None) to keep labels."""
    labels = {row.label for row in copies}
    if policy == "keep":
        return None, None
    if policy == "reference":
        understood = {row.reference: _meant(row.reference, folders) for row in copies if row.reference}
        # A diagnosis of another known class contradicts a known class even where no picture stands under it;
        # of classes of somebody's own, nobody knows what it means.
        known = labels <= set(CLASSES)
        understood = {name: classes for name, classes in understood.items() if classes or (known and classes_of(name))}
        if understood:
            allowed = set.intersection(*understood.values())
            if len(allowed) > 1:
                allowed &= labels
            if len(allowed) == 1:
                return next(iter(allowed)), None
            named = ", ".join(sorted(understood))
            return None, f"labels {', '.join(sorted(labels))} against the reference {named}: not resolved"
    if len(labels) > 1:
        kind = "identical pictures" if len({row.pixels for row in copies}) == 1 else "copies of one picture"
        return None, f"{kind} under {', '.join(sorted(labels))}, no reference decides"
    return None, None


def _count(values: Iterable[str]) -> dict[str, int]:
    """Return how often each value stands there, most frequent first; what is not stated is left out."""
    counts = Counter(value for value in values if value)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _meant(reference: str, names: list[str]) -> set[str]:
    """Return the classes (among `names`) that a reference diagnosis can mean; empty if not understood."""
    plain = reference.strip().lower()
    meant = {plain, *classes_of(plain)}
    return {name for name in names if name.lower() in meant}


def _drop_duplicates(index: Index, copies: list[int], labels: dict[int, str], left_out: dict[str, str], counts: Counter) -> None:
    """Keep one of the `copies` of a class: one that stands in that class's folder if any, and of those the largest.

    Where that leaves several, the one of the smallest hash, so that no file name decides.
    """
    by_label = defaultdict(list)
    for position in copies:
        if position in labels:
            by_label[labels[position]].append(position)
    for label, found in by_label.items():
        def rank(position: int) -> tuple:
            row = index.rows[position]
            return row.label != label, -_area(row), row.sha256, row.path

        found.sort(key=rank)
        kept = index.rows[found[0]]
        for position in found[1:]:
            row = index.rows[position]
            same = row.pixels == kept.pixels
            del labels[position]
            left_out[row.path] = f"{'identical to' if same else 'a copy of'} {kept.path}"
            counts["duplicates_dropped" if same else "near_copies_dropped"] += 1


def _area(row: Row) -> int:
    return row.facts.width * row.facts.height if row.facts else 0


def ids_of(row: Row) -> list[str]:
    """Return the ids by which a picture's lesion and patient are known again."""
    return [row.lesion] * bool(row.lesion) + [f"patient {row.patient}"] * bool(row.patient)


def connect(index: Index, *, patients: bool = True) -> list[int]:
    """Return the group of every picture of the index: connected by patient id (unless `patients` is False), by lesion id or as copies."""
    first: dict[tuple[str, str], int] = {}
    pairs = []
    for position, row in enumerate(index.rows):
        for key in (("lesion", row.lesion), ("pixels", row.pixels), ("patient", row.patient if patients else "")):
            if key[1]:
                pairs.append((first.setdefault(key, position), position))
    found = components(len(index.rows), np.concatenate([np.array(pairs, np.int64).reshape(-1, 2), index.copies.pairs]))
    return found.tolist()


def _refuse_bad(index: Index, recipe: Recipe) -> None:
    total = len(index.rows) + len(index.bad)
    if len(index.bad) > recipe.max_bad_share * total:
        path, why = index.bad[0]
        raise BadInput(
            f"{len(index.bad)} of {total} files are unreadable (first: {path}: {why}): expected at most "
            f"{recipe.max_bad_share:.0%}; remove them or raise max_bad_share"
        )


def _refuse_few_classes(classes, small: dict[str, int], recipe: Recipe, index: Index) -> None:
    if len(classes) < 2:
        have = ", ".join(f"{name} ({count} lesions)" for name, count in small.items()) or "none"
        raise BadInput(
            f"{index.root} leaves {len(classes)} usable {'class' if len(classes) == 1 else 'classes'}"
            f"{' (' + classes[0] + ')' if classes else ''}; too small or unresolved: {have}; expected at least 2 classes of "
            f"{recipe.min_lesions} lesions; add pictures or lower min_lesions"
        )
    if recipe.positive_class and recipe.positive_class not in classes:
        raise BadInput(
            f"the positive class {recipe.positive_class!r} is not among the usable classes ({', '.join(classes)}): "
            "name one with --set positive_class=NAME, or none with --set positive_class="
        )
    calibration.stated_priors(recipe, classes)  # refused here, before anything is trained
