"""The verdict: which findings make a figure dishonest, which are only worth knowing, and what melanoma-edge does about each.

In: everything else that the audit found. Out: the problems, those that make figures dishonest first.

`dishonest` is what makes a figure on these files, used as they are, say something else than it seems to: labels
that contradict each other or the source's own diagnosis (what is scored is no truth), copies, lesions or
patients in several given parts (what is scored was trained on), and properties of the file that tell the class (what is
learned is no lesion). It is dishonest in the data whether or not the recipe handles it: other programs
do not. `note` is the rest. Unknown lesion ids are a note, because nothing is known to be wrong; a file size or a border
colour that tells the class is a note, because the lesion itself changes both (detail takes bytes, and large lesions reach the
border); copies and lesions with several pictures are notes where they stand in no given parts, because only a careless split makes
them leak.
"""

from __future__ import annotations

from collections.abc import Iterator

from melanoma_edge.data.audit.file_findings import TINY
from melanoma_edge.data.audit.model import ClassFacts, Counts, Effect, Files, Parts, Policy, Problem, Severity, Shortcut

IMBALANCE = 10.0
"""Pictures of the largest class for one of the smallest from which on it is noted."""
NO_PROOF = {
    "file_size": " A lesion's own detail takes bytes as well, so this is a hint and no proof.",
    "border": " Large lesions reach the border, so this is a hint and no proof.",
}
"""Families that a lesion's own look changes as well: notes, not more."""
NOT_STATED = "not stated"


def problems(
    counts: Counts,
    files: Files,
    effect: Effect,
    parts: Parts | None,
    classes: tuple[ClassFacts, ...],
    imbalance: float | None,
    shortcuts: tuple[Shortcut, ...],
    licences: dict[str, int],
    policy: Policy,
) -> tuple[Problem, ...]:
    """Return what is wrong, the dishonest first; within these, in the order of this module."""
    found = [
        *_labels(counts, effect, policy),
        *_parts(counts, parts),
        *_shortcuts(shortcuts),
        *_undivided(counts, effect, policy),
        *_classes(effect, classes, imbalance, policy),
        *_files(counts, files, policy),
        *_licences(licences, counts),
    ]
    return tuple(sorted((problem for problem in found if problem.count), key=lambda problem: problem.severity != "dishonest"))


def _problem(key: str, severity: Severity, count: int, title: str, meaning: str, remedy: str, *, handled: bool) -> Problem:
    return Problem(key=key, severity=severity, count=count, title=title, meaning=meaning, remedy=remedy, handled=handled)


def _labels(counts: Counts, effect: Effect, policy: Policy) -> Iterator[Problem]:
    resolved = policy.conflicts != "keep"
    left = counts.lesions_under_two_classes_after_policy
    remedy = {
        "reference": "The reference diagnosis decides for all copies of a picture; where it does not, they are left out.",
        "drop": "Pictures whose copies stand under another class are left out.",
        "keep": "Nothing: the recipe says conflicts = keep. Set conflicts=reference or conflicts=drop.",
    }[policy.conflicts]
    yield _problem(
        "conflicting_copies", "dishonest", counts.conflicting_groups,
        f"{_many(counts.conflicting_groups, 'picture stands', 'pictures stand')} under two or more classes, pixel for pixel the same",
        f"At least one label of each is wrong. No classifier that goes by the picture can exceed {effect.accuracy_ceiling:.1%} accuracy on these files as they are.",
        remedy, handled=resolved,
    )  # fmt: skip
    yield _problem(
        "conflicting_near_copies", "dishonest", counts.near_conflicting_groups,
        f"{_many(counts.near_conflicting_groups, 'group', 'groups')} of near copies (re-encoded, resized, flipped or turned) under two or more classes",
        "The same photograph has two labels, which a comparison of files does not show.",
        remedy, handled=resolved,
    )  # fmt: skip
    yield _problem(
        "reference_contradictions", "dishonest", counts.reference_contradictions,
        f"{_many(counts.reference_contradictions, 'picture has', 'pictures have')} a class that its reference diagnosis contradicts",
        "The source's own diagnosis says otherwise, so what is learned and scored is a wrong label.",
        "The reference diagnosis decides; where it leaves the class open, the picture is left out."
        if policy.conflicts == "reference" else f"Nothing: the recipe says conflicts = {policy.conflicts}. Set conflicts=reference.",
        handled=policy.conflicts == "reference",
    )  # fmt: skip
    yield _problem(
        "lesions_under_two_classes", "dishonest", counts.lesions_under_two_classes,
        f"{_many(counts.lesions_under_two_classes, 'lesion has', 'lesions have')} photographs under two or more classes",
        "One lesion has one diagnosis, so at least one of the labels is wrong.",
        "All photographs of a lesion stay in one part. "
        + ("After the policy none is left." if not left else f"After the policy {_many(left, 'lesion is', 'lesions are')} left under two classes: look at them."),
        handled=not left,
    )  # fmt: skip


def _parts(counts: Counts, parts: Parts | None) -> Iterator[Problem]:
    leak = parts.leak.get("test") if parts else None
    share = f" Of the {leak.pictures} test pictures, {counts.leaking_test_pictures} ({counts.leaking_test_pictures / leak.pictures:.1%}) leak." if leak else ""
    remedy = "The given parts are not used: melanoma-edge splits anew, and lesions, patients and copies never stand in two parts."
    for key, count, one, many in (
        ("copies_across_parts", counts.groups_across_parts, "picture and its copies stand", "pictures and their copies stand"),
        ("lesions_across_parts", counts.lesions_across_parts, "lesion stands", "lesions stand"),
        ("patients_across_parts", counts.patients_across_parts, "patient stands", "patients stand"),
    ):
        yield _problem(
            key, "dishonest", count, f"{_many(count, one, many)} in more than one of the given parts",
            f"A score on the given test part is partly a score on what was trained on.{share}", remedy, handled=True,
        )  # fmt: skip


def _shortcuts(shortcuts: tuple[Shortcut, ...]) -> Iterator[Problem]:
    for found in shortcuts:
        if found.verdict == "shortcut":
            yield _problem(
                f"shortcut_{found.name}", "note" if found.name in NO_PROOF else "dishonest", 1,
                f"The {found.title} alone {'tell' if found.name == 'corners' else 'tells'} the class with {found.balanced_accuracy:.1%} balanced accuracy (chance: {found.chance:.1%})",
                "A network may learn where a picture came from instead of what it shows; its score then holds for this source only."
                + NO_PROOF.get(found.name, ""),
                "Centre crop, resizing and augmentation hide part of it, not all. Test on pictures of another source before you believe a score.",
                handled=False,
            )  # fmt: skip


def _undivided(counts: Counts, effect: Effect, policy: Policy) -> Iterator[Problem]:
    leak = effect.random_split_leak
    copies = counts.exact_duplicate_groups + counts.near_copy_groups
    kept = "One picture of each is used." if policy.duplicates == "one" else "All are used (duplicates = keep), in the same part."
    yield _problem(
        "copies", "note", copies,
        f"{_many(counts.exact_duplicate_groups, 'group', 'groups')} of identical pictures, {_many(counts.near_copy_groups, 'group', 'groups')} of near copies",
        f"In a random 80/20 split, {leak.copies:.1%} of the test pictures would have a copy in the training part.", kept, handled=True,
    )  # fmt: skip
    yield _problem(
        "lesions_with_several_pictures", "note", counts.lesions_with_several_pictures,
        f"{_many(counts.lesions_with_several_pictures, 'lesion was', 'lesions were')} photographed more than once ({counts.pictures_of_such_lesions} pictures)",
        f"In a random 80/20 split, {leak.lesions:.1%} of the test pictures would have a copy or their lesion in the training part.",
        "All photographs of a lesion stay in one part.", handled=True,
    )  # fmt: skip
    yield _problem(
        "lesion_ids_unknown", "note", counts.readable - counts.with_lesion_id,
        f"{_many(counts.readable - counts.with_lesion_id, 'picture has', 'pictures have')} no lesion id",
        "Two photographs of one lesion may stand in two parts, and nothing here can tell.",
        "Copies are found by their pixels and kept together; for the rest give a table with lesion ids (--metadata).", handled=False,
    )  # fmt: skip


def _classes(effect: Effect, classes: tuple[ClassFacts, ...], imbalance: float | None, policy: Policy) -> Iterator[Problem]:
    left_out = [found for found in classes if found.left_out]
    yield _problem(
        "training_refuses", "note", int(bool(effect.training_refuses)), "melanoma-edge would not train on these data as they are",
        f"{effect.training_refuses}.", "Do what the message says.", handled=False,
    )  # fmt: skip
    yield _problem(
        "classes_left_out", "note", len(left_out),
        f"{_many(len(left_out), 'class has', 'classes have')} fewer than {policy.min_lesions} lesions: "
        + ", ".join(f"{found.name} ({found.usable_lesions})" for found in left_out),
        "Too few to learn from and to measure on.", "Left out, and named in the run; lower min_lesions to keep them.", handled=True,
    )  # fmt: skip
    if imbalance is not None and imbalance >= IMBALANCE:
        yield _problem(
            "imbalance", "note", 1, f"The largest class has {imbalance:.0f} times the pictures of the smallest",
            "Plain accuracy rewards a classifier that never names the rare class; here balanced accuracy counts.",
            "Every epoch draws the classes evenly, augmented; scores are balanced and have intervals.", handled=True,
        )  # fmt: skip


def _files(counts: Counts, files: Files, policy: Policy) -> Iterator[Problem]:
    faults = ", ".join(f"{fault} {count}" for fault, count in files.faults.items())
    share = counts.unreadable / max(1, counts.files)
    too_many = share > policy.max_bad_share
    yield _problem(
        "unreadable", "note", counts.unreadable, f"{_many(counts.unreadable, 'file is', 'files are')} not readable as a picture ({faults})",
        f"They are {share:.1%} of the files" + (f": more than max_bad_share ({policy.max_bad_share:.0%}), so training refuses." if too_many else "."),
        "Each is named; training goes on without them." if not too_many else "Remove or replace them, or raise max_bad_share.", handled=not too_many,
    )  # fmt: skip
    for key, count, title, meaning, remedy, handled in (
        ("mislabelled_by_extension", counts.mislabelled_by_extension, "{} another format than the suffix of {} says", "Other programs may refuse them.",
         "Read by what they hold.", True),
        ("unusual_modes", counts.unusual_modes, "{} not plain RGB colour, {} grey, palette, CMYK, transparent or 16 bits", "Programs convert these differently.",
         "Converted as docs/input-contract.md says, everywhere the same.", True),
        ("rotated_by_exif", counts.rotated_by_exif, "{} turned by EXIF orientation", "Programs that pass over EXIF see them lying on their side.",
         "Turned upright everywhere.", True),
        ("below_input_size", counts.below_input_size, f"{{}} a shorter side below {policy.image_size} pixels",
         "They are enlarged for the network, which adds no detail.", "Used; lower image_size, or find larger ones.", False),
        ("tiny", counts.tiny, f"{{}} a shorter side below {TINY} pixels", "Hardly enough to judge a lesion; thumbnails perhaps.", "Used; look at them.", False),
        ("other_files", sum(files.other_files.get(suffix, 0) for suffix in PERHAPS_PICTURES), "{} no picture by the name ({})", "They are not part of any figure.", "Passed over: convert what are pictures to JPEG or PNG.", False),
        ("without_class", counts.without_class, "{} in no class folder and in no table", "They are not part of any figure.", "Passed over.", False),
        ("unmapped", counts.unmapped, "{} a diagnosis that is none of the classes ({})", "They are not part of any figure.", "Left out; docs/data-sets.md says what is mapped.", False),
        ("ids_without_picture", counts.ids_without_picture, "{} no picture file", "The data set is not complete here.", "Passed over.", False),
        ("filtered_by_licence", counts.filtered_by_licence, "{} left out because other licences were asked for ({})", "They are not part of any figure.", "As asked.", True),
    ):  # fmt: skip
        yield _problem(key, "note", count, _title(key, count, title, files), meaning, remedy, handled=handled)


PERHAPS_PICTURES = (".heic", ".heif", ".avif", ".jxl", ".gif", ".dng", ".cr2", ".nef", ".arw", ".raw", ".dcm", ".zip", ".tar", ".gz", ".7z", ".rar")
"""Suffixes of files that may hold pictures which nobody meant to leave out; a README is none."""


def _title(key: str, count: int, title: str, files: Files) -> str:
    verb = {
        "mislabelled_by_extension": ("picture has", "pictures have"), "unusual_modes": ("picture is", "pictures are"), "rotated_by_exif": ("picture is", "pictures are"),
        "below_input_size": ("picture has", "pictures have"), "tiny": ("picture has", "pictures have"), "other_files": ("file is", "files are"),
        "without_class": ("picture file is", "picture files are"), "unmapped": ("picture has", "pictures have"),
        "ids_without_picture": ("id of a table has", "ids of a table have"), "filtered_by_licence": ("picture was", "pictures were"),
    }[key]  # fmt: skip
    detail = {
        "other_files": _listed({suffix: number for suffix, number in files.other_files.items() if suffix in PERHAPS_PICTURES}),
        "unmapped": _listed(files.unmapped),
        "filtered_by_licence": _listed(files.filtered),
        "unusual_modes": "but",
        "mislabelled_by_extension": "its name" if count == 1 else "their names",
    }.get(key, "")
    return title.format(_many(count, *verb), detail)


def _licences(licences: dict[str, int], counts: Counts) -> Iterator[Problem]:
    unknown = licences.get(NOT_STATED, 0)
    if unknown < counts.readable:
        yield _problem(
            "licence_not_stated", "note", unknown, f"{_many(unknown, 'picture has', 'pictures have')} no licence, others have one",
            "Their terms are not known.", "Keep known terms only with --licences.", handled=False,
        )  # fmt: skip
    bound = {name: count for name, count in licences.items() if "NC" in name.upper().replace("_", "-").replace(" ", "-").split("-")}
    yield _problem(
        "licence_noncommercial", "note", sum(bound.values()),
        f"{_many(sum(bound.values()), 'picture', 'pictures')} may not be used commercially ({_listed(bound)})",
        "What holds for the pictures may hold for a model trained on them.", "Leave them out with --licences, or keep the model to research.", handled=False,
    )  # fmt: skip


def _listed(counts: dict[str, int], most: int = 5) -> str:
    """Return counts in words, the first few."""
    words = [f"{name} {count}" for name, count in list(counts.items())[:most]]
    return ", ".join([*words, "..."] if len(counts) > most else words)


def _many(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
