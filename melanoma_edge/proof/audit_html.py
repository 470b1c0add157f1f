"""The audit as one HTML page, with nothing outside of it: styles stand in the page, pictures are data: URIs, no script.

In: an :class:`~melanoma_edge.data.audit.model.Audit` and the data folder, from which the small pictures are made. Out: the
page as text. It shows patients' lesions: treat the file as you treat the pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from melanoma_edge.data import image
from melanoma_edge.data.audit.file_findings import one_line
from melanoma_edge.data.audit.model import Audit, Group, Subject
from melanoma_edge.proof import page as pages

MOST_GROUPS, MOST_MEMBERS, MOST_ROWS = 200, 6, 200
"""Groups with pictures on the page, pictures of a group, rows of a table; what is left out is counted and stands in the JSON."""
SHARES = {"conflicts": 120, "near": 50, "duplicates": 30}
"""How many of MOST_GROUPS each section has for itself; what one does not need, a later one may use."""
SIDE, QUALITY = 132, 78
"""Longer side of the small pictures in pixels, and their JPEG quality."""
PICTURE_BYTES = 6_000_000
"""Of all small pictures together; past that, only names are shown."""


@dataclass(frozen=True)
class Picture:
    """One picture of a group."""

    path: str
    label: str
    reference: str
    part: str
    lesion: str
    size: str
    difference: float | None
    uri: str | None
    """None where it is not shown: not readable any more, or too many."""


@dataclass(frozen=True)
class Shown:
    """One group."""

    pictures: tuple[Picture, ...]
    more: int
    conflicting: bool
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """The groups of one kind that are shown."""

    groups: tuple[Shown, ...]
    more: int


@dataclass(frozen=True)
class Card:
    """A figure at the top."""

    title: str
    value: str
    note: str
    bad: bool = False


def page(found: Audit, root: Path) -> str:
    """Return the page on `found`; small pictures are made from the files below `root`."""
    sections = _sections(found, Path(root))
    view = dict(
        found=found,
        name=one_line(Path(found.data).name or found.data),
        counts=found.counts,
        effect=found.effect,
        verdict=_verdict(found),
        cards=_cards(found),
        plots=_plots(found),
        sections=sections,
        tables=_tables(found),
        most=MOST_ROWS,
    )
    return pages.render("audit.html.j2", view, filters={"line": one_line})


def _verdict(found: Audit) -> tuple[str, str, str]:
    """Return tone, sign and words of the line at the top."""
    wrong = found.dishonest
    if not wrong:
        notes = len(found.problems)
        more = f"; {notes} {'thing is' if notes == 1 else 'things are'} worth knowing" if notes else ""
        return "passed", "✓", f"Nothing was found that would make a figure on these files dishonest{more}."
    handled = sum(problem.handled for problem in wrong)
    words = f"{len(wrong)} {'problem' if len(wrong) == 1 else 'problems'} would make a figure on these files, used as they are, dishonest."
    if handled == len(wrong):
        return "failed", "✕", f"{words} melanoma-edge handles {'it' if handled == 1 else 'all of them'}."
    return "failed", "✕", f"{words} melanoma-edge handles {handled or 'none'} of them; the rest is up to you."


def _cards(found: Audit) -> list[Card]:
    counts, effect = found.counts, found.effect
    unreadable = f"{counts.unreadable} more cannot be read" if counts.unreadable else "every file can be read"
    cards = [
        Card("Pictures", f"{counts.readable:,}".replace(",", " "), f"in {counts.classes} classes; {unreadable}", bool(counts.unreadable)),
        Card(
            "Same picture, two classes",
            str(counts.conflicting_groups),
            f"of {counts.exact_duplicate_groups} groups of identical pictures; and {counts.near_conflicting_groups} of {counts.near_copy_groups} groups of near copies",
            bool(counts.conflicting_groups or counts.near_conflicting_groups),
        ),
        Card(
            "Best accuracy possible",
            f"{effect.accuracy_ceiling:.1%}".replace("%", " %"),
            "on the files as they are: identical pictures with two labels cannot all be told right" if counts.conflicting_groups else "no identical pictures under two classes",
            effect.accuracy_ceiling < 1,
        ),
        Card(
            "Leak of a random split",
            f"{effect.random_split_leak.patients:.1%}".replace("%", " %"),
            f"of the test pictures have a copy, their lesion or their patient in the training part ({effect.random_split_leak.copies:.1%} a copy)",
            effect.random_split_leak.patients > 0,
        ),
    ]
    if effect.given_split_leak is not None:
        leak = found.parts.leak["test"]
        cards.append(
            Card(
                "Leak of the given test part", f"{effect.given_split_leak.patients:.1%}".replace("%", " %"),
                f"{leak.patients} of its {leak.pictures} pictures share a copy, lesion or patient with the parts before it", leak.patients > 0,
            )  # fmt: skip
        )
    tried = [one for one in found.shortcuts if one.balanced_accuracy is not None]
    if tried:
        best = max(tried, key=lambda one: one.balanced_accuracy)
        dishonest = any(problem.key.startswith("shortcut") for problem in found.dishonest)
        hint = "" if dishonest else "; a hint, no proof" if best.verdict == "shortcut" else "; nothing to speak of"
        cards.append(
            Card("Strongest shortcut", f"{best.balanced_accuracy:.1%}".replace("%", " %"), f"balanced accuracy from the {best.title} alone; chance {best.chance:.1%}{hint}", dishonest)
        )
    cards.append(Card("Left after the policy", f"{effect.usable:,}".replace(",", " "), f"pictures in {counts.usable_groups} independent groups" if not effect.training_refuses else "training would refuse"))
    return cards


def _sections(found: Audit, root: Path) -> dict[str, Section]:
    """Return the groups that are shown, by kind: at most MOST_GROUPS with PICTURE_BYTES of pictures in all."""
    kinds: dict[str, Sequence[Group]] = {
        "conflicts": [group for group in found.exact_duplicates if len(group.classes) > 1],
        "near": found.near_copies,
        "duplicates": [group for group in found.exact_duplicates if len(group.classes) < 2],
    }
    small = _small_pictures(root)
    sections, spare = {}, 0
    for name, groups in kinds.items():
        room = SHARES[name] + spare
        sections[name] = Section(tuple(_shown(group, small) for group in groups[:room]), max(0, len(groups) - room))
        spare = max(0, room - len(groups))
    return sections


def _shown(group: Group, small: Callable[[str], str | None]) -> Shown:
    pictures = tuple(
        Picture(
            one_line(member.path), one_line(member.label), one_line(member.reference), one_line(member.part), one_line(member.lesion),
            f"{member.width} × {member.height}" if member.width else "", member.difference, small(member.path),
        )  # fmt: skip
        for member in group.members[:MOST_MEMBERS]
    )
    return Shown(pictures, len(group.members) - len(pictures), len(group.classes) > 1, group.parts)


def _small_pictures(root: Path) -> Callable[[str], str | None]:
    """Return a function from a path below `root` to a small picture of it as a data: URI."""
    spent = 0

    def small(path: str) -> str | None:
        nonlocal spent
        if spent > PICTURE_BYTES:
            return None
        try:
            file = root / path
            picture = image.open_picture(file, image.read(file), at_least=SIDE).image
        except image.UnreadableImage:  # it changed or vanished since it was read
            return None
        picture.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
        content = pages.jpeg(picture, QUALITY)
        spent += len(content)
        return pages.uri(content, "jpeg")

    return small


def _plots(found: Audit) -> dict[str, pages.Plot]:
    from melanoma_edge.proof import audit_plots

    words = ", ".join(f"{one_line(one.name)} {one.pictures} ({one.usable} used)" for one in found.classes)
    plots = {"classes": pages.plot(f"Pictures of each class, and those after the policy: {words}", audit_plots.class_bars, found.classes)}
    tried = [one for one in found.shortcuts if one.balanced_accuracy is not None]
    if tried:
        words = ", ".join(f"{one.title} {one.balanced_accuracy:.1%}" for one in tried)
        plots["shortcuts"] = pages.plot(f"Balanced accuracy from each alone, chance {tried[0].chance:.1%}: {words}", audit_plots.shortcut_dots, tried)
    return plots


def _tables(found: Audit) -> dict[str, list]:
    """Return the rows of the tables that are made here."""
    files = found.files
    lesions: list[Subject] = [one for one in found.lesions if len(one.classes) > 1 or len(one.parts) > 1]
    odd = [
        *((one.path, f"is {one.format}, its suffix says {one.suffix}") for one in files.mislabelled),
        *((one.path, f"mode {one.mode}") for one in files.unusual_modes),
        *((one.path, f"turned by EXIF orientation {one.orientation}") for one in files.rotated),
        *((one.path, f"small: {one.width} × {one.height}") for one in files.small),
    ]
    counted = [
        ("Formats", files.formats), ("Modes", files.modes), ("Passed over: no pictures by their names", files.other_files),
        ("Left out: diagnoses that are none of the classes", files.unmapped), ("Left out: other licences", files.filtered),
        ("Reference diagnoses not understood", found.references_not_understood), ("Licences", found.licences),
    ]  # fmt: skip
    lists = [("Pictures without a class, passed over", files.without_class), ("Ids of a table without a picture file", files.without_picture)]
    return {
        "lesions": lesions,
        "odd": odd,
        "counted": [(title, list(counts.items())) for title, counts in counted if counts],
        "lists": [(title, names) for title, names in lists if names],
    }
