"""The audit: what is in a data set that makes figures measured on it wrong, before anything is trained.

In: an index and a recipe. Out: an :class:`~melanoma_edge.data.audit.model.Audit`: counts under documented
keys, the files, groups and lesions themselves, what they do to a figure, and a list of problems.

Everything is near-linear in the number of pictures, and depends on the data alone: the same files give the
same audit.
"""

from __future__ import annotations

from collections import Counter

from melanoma_edge import NOTICE, __version__
from melanoma_edge.contract import Recipe
from melanoma_edge.data.audit import effect as effects
from melanoma_edge.data.audit.file_findings import TINY, counted, file_findings
from melanoma_edge.data.audit.group_findings import PARTS, Connections, contradictions, crosses, exact_duplicates, near_copies, part_of, parts, subjects
from melanoma_edge.data.audit.model import Audit, ClassFacts, Counts, Policy, Problem
from melanoma_edge.data.audit.problems import NOT_STATED, problems
from melanoma_edge.data.audit.shortcuts import shortcuts
from melanoma_edge.data.index import Index, printable
from melanoma_edge.data.policy import Resolution, Selection, resolve, select
from melanoma_edge.errors import BadInput

__all__ = ["Audit", "Problem", "audit"]


def audit(index: Index, recipe: Recipe) -> Audit:
    """Return what is in the pictures of `index` under the data policy of `recipe`.

    Of the recipe, `conflicts`, `duplicates`, `min_lesions`, `image_size` and `max_bad_share` count. Data on which
    training would refuse to start are audited all the same, and that is one of the problems.
    """
    connections = Connections.of(index)
    resolution, selection, refusal = _after_policy(index, recipe)
    files = file_findings(index, recipe.image_size)
    identical, near = exact_duplicates(index, connections), near_copies(index, connections)
    pairs, unknown = contradictions(index)
    lesions, patients = subjects(index, lambda row: row.lesion), subjects(index, lambda row: row.patient)
    given = parts(index, connections)
    classes = _classes(index, connections, resolution, recipe)
    usable = len(selection.rows) if selection else 0
    effect = effects.effect(index, connections, resolution, usable, refusal, given)
    licences = counted(printable(row.licence) or NOT_STATED for row in index.rows)
    leaking = given.leak.get("test") if given else None
    rows = index.rows
    counts = Counts(
        files=len(rows) + len(index.bad),
        readable=len(rows),
        unreadable=len(index.bad),
        mislabelled_by_extension=len(files.mislabelled),
        unusual_modes=len(files.unusual_modes),
        rotated_by_exif=len(files.rotated),
        below_input_size=len(files.small),
        tiny=sum(min(small.width, small.height) < TINY for small in files.small)
        if recipe.image_size >= TINY
        else sum(min(row.facts.width, row.facts.height) < TINY for row in rows if row.facts),
        other_files=sum(files.other_files.values()),
        without_class=len(files.without_class),
        unmapped=sum(files.unmapped.values()),
        ids_without_picture=len(files.without_picture),
        filtered_by_licence=sum(files.filtered.values()),
        exact_duplicate_groups=len(identical),
        exact_duplicate_pictures=sum(len(group.members) for group in identical),
        conflicting_groups=sum(len(group.classes) > 1 for group in identical),
        conflicting_pictures=sum(len(group.members) for group in identical if len(group.classes) > 1),
        near_copy_groups=len(near),
        near_copy_pictures=sum(len(group.members) for group in near),
        near_conflicting_groups=sum(len(group.classes) > 1 for group in near),
        with_reference=sum(bool(row.reference) for row in rows),
        references_not_understood=sum(unknown.values()),
        reference_contradictions=sum(pair.pictures for pair in pairs),
        with_lesion_id=sum(bool(row.lesion) for row in rows),
        lesions=len({row.lesion for row in rows} - {""}),
        lesions_with_several_pictures=len(lesions),
        pictures_of_such_lesions=sum(lesion.pictures for lesion in lesions),
        lesions_under_two_classes=sum(len(lesion.classes) > 1 for lesion in lesions),
        lesions_under_two_classes_after_policy=_under_two_classes(connections, selection),
        with_patient_id=sum(bool(row.patient) for row in rows),
        patients=len({row.patient for row in rows} - {""}),
        patients_with_several_pictures=len(patients),
        groups_across_parts=_copies_across(index, connections),
        conflicting_groups_across_parts=_copies_across(index, connections, conflicting=True),
        lesions_across_parts=sum(map(crosses, lesions)),
        patients_across_parts=sum(map(crosses, patients)),
        leaking_test_pictures=leaking.patients if leaking else 0,
        classes=len(classes),
        classes_left_out=sum(found.left_out for found in classes),
        usable=usable,
        usable_groups=len(set(selection.groups)) if selection else 0,
    )
    tried = shortcuts(selection.rows if selection else (), selection.groups if selection else (), refusal)
    imbalance = _imbalance([found.pictures for found in classes])
    policy = Policy(**{key: getattr(recipe, key) for key in Policy.model_fields})
    return Audit(
        notice=NOTICE,
        melanoma_edge=__version__,
        data=printable(str(index.root)),
        source=index.listing.source if index.listing else "",
        tables=tuple(printable(str(table)) for table in index.listing.tables) if index.listing else (),
        policy=policy,
        counts=counts,
        problems=problems(counts, files, effect, given, classes, imbalance, tried, licences, policy),
        effect=effect,
        classes=classes,
        imbalance=imbalance,
        imbalance_usable=_imbalance([found.usable for found in classes if not found.left_out]),
        files=files,
        exact_duplicates=identical,
        near_copies=near,
        reference_contradictions=pairs,
        references_not_understood=unknown,
        lesions=lesions,
        patients=patients,
        parts=given,
        shortcuts=tried,
        licences=licences,
    )


def _after_policy(index: Index, recipe: Recipe) -> tuple[Resolution, Selection | None, str]:
    """Return what the policy decides, the pictures that are used, and why there are none where training would refuse."""
    # What is not there, or cannot be read, is told as what it is; deployment priors say nothing about the data.
    lenient = recipe.model_copy(update={"positive_class": "", "max_bad_share": 1.0, "deployment_prior": "balanced"})
    resolution = resolve(index, lenient)
    try:
        return resolution, select(index, lenient), ""
    except BadInput as error:
        return resolution, None, str(error)


def _classes(index: Index, connections: Connections, resolution: Resolution, recipe: Recipe) -> tuple[ClassFacts, ...]:
    """Return the pictures and lesions of each class, before and after the policy."""
    single = connections.lesions
    pictures = Counter(row.label for row in index.rows)
    lesions = Counter(label for label, _ in {(row.label, group) for row, group in zip(index.rows, single)})
    usable = Counter(resolution.labels.values())
    usable_lesions = Counter(label for label, _ in {(label, single[position]) for position, label in resolution.labels.items()})
    return tuple(
        ClassFacts(
            name=name,
            pictures=pictures[name],
            lesions=lesions[name],
            usable=usable[name] if usable_lesions[name] >= recipe.min_lesions else 0,
            usable_lesions=usable_lesions[name],
            left_out=usable_lesions[name] < recipe.min_lesions,
        )
        for name in sorted(pictures)
    )


def _under_two_classes(connections: Connections, selection: Selection | None) -> int:
    """Return how many lesions have usable pictures of more than one class."""
    if selection is None:
        return 0
    labels = {(connections.lesions[position], row.label) for position, row in zip(selection.positions, selection.rows)}
    return sum(count > 1 for count in Counter(lesion for lesion, _ in labels).values())


def _copies_across(index: Index, connections: Connections, *, conflicting: bool = False) -> int:
    """Return how many groups of copies stand in more than one of the parts in which the data set came."""
    count = 0
    for positions in connections.copies:
        rows = [index.rows[position] for position in positions] if len(positions) > 1 else []
        count += len({part_of(row) for row in rows} & set(PARTS)) > 1 and (not conflicting or len({row.label for row in rows}) > 1)
    return count


def _imbalance(counts: list[int]) -> float | None:
    return round(max(counts) / min(counts), 3) if len(counts) > 1 and min(counts) else None
