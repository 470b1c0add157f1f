"""The data policy: which pictures are used, under which class, and why the others are not.

In: an index and a recipe. Out: a :class:`Selection`. The policy is the same everywhere: where labels
contradict, the reference diagnosis decides and the rest are dropped; of identical copies one is
kept; a class with too few lesions is left out and named.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from melanoma_edge.contract import Recipe
from melanoma_edge.data.copies import near_copies
from melanoma_edge.data.index import Index, Row
from melanoma_edge.errors import BadInput

PARENT_DIAGNOSES = {"benign keratosis": ("pigmented benign keratosis", "seborrheic keratosis")}
"""Reference diagnoses that cover several classes (HAM10000 and ISIC 2019 publish this one)."""


@dataclass(frozen=True)
class Selection:
    """The pictures that are used, and what was done to get there."""

    rows: tuple[Row, ...]
    """Used pictures, with the class that the policy decided on."""
    positions: tuple[int, ...]
    """Where each used picture stands in the index."""
    groups: tuple[int, ...]
    """Group of each used picture: same lesion, same pixels or near copy; never split."""
    classes: tuple[str, ...]
    """Sorted; their order is that of the logits."""
    left_out: dict[str, str] = field(default_factory=dict)
    """{path: why} of the pictures that are not used."""
    report: dict = field(default_factory=dict)
    """Counts for the run directory and for people."""
    lesions: tuple[str, ...] = ()
    """Lesion ids of each used picture's group, sorted and joined by "|"; empty where none is known."""


@dataclass(frozen=True)
class Resolution:
    """What the policy decided about every picture of an index, before classes are left out."""

    labels: dict[int, str]
    """{position in the index: class} of the pictures that are kept."""
    left_out: dict[str, str]
    """{path: why} of the others."""
    counts: dict[str, int]


def resolve(index: Index, recipe: Recipe, classes: Sequence[str] = ()) -> Resolution:
    """Resolve contradicting labels and identical copies of `index` as the recipe says.

    References can mean any folder of the index, or one of `classes`.
    """
    names = sorted({row.label for row in index.rows} | set(classes))
    labels: dict[int, str] = {}
    left_out: dict[str, str] = {}
    counts: Counter[str] = Counter()
    identical = defaultdict(list)
    for position, row in enumerate(index.rows):
        identical[row.sha256].append(position)
    for positions in identical.values():
        counts["identical_groups"] += len(positions) > 1
        counts["conflicting_groups"] += len({index.rows[position].label for position in positions}) > 1
        decided, why = _decide([index.rows[position] for position in positions], names, recipe.conflicts)
        for position in positions:
            row = index.rows[position]
            if why is not None:
                left_out[row.path] = why
                counts["conflicts_dropped"] += 1
            else:
                labels[position] = decided or row.label
                counts["relabelled_by_reference"] += labels[position] != row.label
    if recipe.duplicates == "one":
        counts["duplicates_dropped"] = _drop_duplicates(index, identical.values(), labels, left_out)
    keys = ("identical_groups", "conflicting_groups", "conflicts_dropped", "relabelled_by_reference", "duplicates_dropped")
    return Resolution(labels, left_out, {key: counts[key] for key in keys})


def select(index: Index, recipe: Recipe) -> Selection:
    """Apply the recipe's data policy to `index`.

    Raises BadInput when too many files are unreadable or fewer than two classes are left.
    """
    _refuse_bad(index, recipe)
    resolution = resolve(index, recipe)
    labels, left_out = resolution.labels, dict(resolution.left_out)
    groups = connect(index)
    lesions = Counter(label for label, _ in {(labels[position], groups[position]) for position in labels})
    classes = tuple(sorted(name for name, count in lesions.items() if count >= recipe.min_lesions))
    small = {name: lesions[name] for name in sorted({row.label for row in index.rows}) if name not in classes}
    _refuse_few_classes(classes, small, recipe, index)
    for position, label in labels.items():
        if label not in classes:
            left_out[index.rows[position].path] = f"class left out: {lesions[label]} lesions, min_lesions is {recipe.min_lesions}"
    kept = [position for position in sorted(labels) if labels[position] in classes]
    known = defaultdict(set)  # from all pictures: a copy that is dropped may be the one that knows the lesion
    for row, group in zip(index.rows, groups):
        known[group] |= {row.lesion} - {""}
    labels_of = defaultdict(set)
    for position in kept:
        labels_of[groups[position]].add(labels[position])
    return Selection(
        rows=tuple(replace(index.rows[position], label=labels[position]) for position in kept),
        positions=tuple(kept),
        groups=tuple(groups[position] for position in kept),
        lesions=tuple("|".join(sorted(known[groups[position]])) for position in kept),
        classes=classes,
        left_out=left_out,
        report={
            "readable": len(index.rows),
            "unreadable": len(index.bad),
            "in_no_class_folder": len(index.outside),
            **resolution.counts,
            "left_out_classes": small,
            "used": len(kept),
            "used_groups": len({groups[position] for position in kept}),
            "with_lesion_id": sum(bool(known[groups[position]]) for position in kept),
            "groups_under_two_classes": sum(len(names) > 1 for names in labels_of.values()),
            "per_class": {name: sum(labels[position] == name for position in kept) for name in classes},
            "lesions_per_class": {name: lesions[name] for name in classes},
        },
    )


def _decide(copies: list[Row], folders: list[str], policy: str) -> tuple[str | None, str | None]:
    """Return (class, None) for identical `copies`, (None, why) to drop them, (None, None) to keep labels."""
    labels = {row.label for row in copies}
    if policy == "keep":
        return None, None
    if policy == "reference":
        understood = {row.reference: _classes_of(row.reference, folders) for row in copies if row.reference}
        understood = {name: classes for name, classes in understood.items() if classes}
        if understood:
            allowed = set.intersection(*understood.values())
            if len(allowed) > 1:
                allowed &= labels
            if len(allowed) == 1:
                return next(iter(allowed)), None
            named = ", ".join(sorted(understood))
            return None, f"labels {', '.join(sorted(labels))} against the reference {named}: not resolved"
    if len(labels) > 1:
        return None, f"identical pictures under {', '.join(sorted(labels))}, no reference decides"
    return None, None


def _classes_of(reference: str, folders: list[str]) -> set[str]:
    """Return the classes (among `folders`) that a reference diagnosis can mean; empty if not understood."""
    name = reference.strip().lower()
    meant = PARENT_DIAGNOSES.get(name, (name,))
    return {folder for folder in folders if folder.lower() in meant}


def _drop_duplicates(index: Index, identical: Iterable[list[int]], labels: dict[int, str], left_out: dict[str, str]) -> int:
    """Keep one of the identical pictures of a class, one that stands in that class's folder if any;
    return how many were dropped."""
    dropped = 0
    for positions in identical:
        by_label = defaultdict(list)
        for position in positions:
            if position in labels:
                by_label[labels[position]].append(position)
        for label, copies in by_label.items():
            copies.sort(key=lambda position: (index.rows[position].label != label, index.rows[position].path))
            for position in copies[1:]:
                del labels[position]
                left_out[index.rows[position].path] = f"identical to {index.rows[copies[0]].path}"
                dropped += 1
    return dropped


def connect(index: Index) -> list[int]:
    """Return the group of every picture of the index: connected by lesion id, by identical pixels or as near copies."""
    parent = list(range(len(index.rows)))

    def find(position: int) -> int:
        while parent[position] != position:
            parent[position] = parent[parent[position]]
            position = parent[position]
        return position

    def join(a: int, b: int) -> None:
        a, b = find(a), find(b)
        parent[max(a, b)] = min(a, b)

    first: dict[tuple[str, str], int] = {}
    for position, row in enumerate(index.rows):
        for key in (("lesion", row.lesion), ("pixels", row.sha256)):
            if key[1]:
                join(position, first.setdefault(key, position))
    for a, b in near_copies(index.thumbnails):
        join(a, b)
    return [find(position) for position in range(len(parent))]


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
