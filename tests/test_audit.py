"""The audit: every finding is found, counted, listed and told, and nothing that is not there is."""

from __future__ import annotations

import html.parser
import itertools
import json
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli, read_json, validate
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from melanoma_edge import NOTICE, recipes
from melanoma_edge.contract import Recipe
from melanoma_edge.data.audit import Audit, audit
from melanoma_edge.data.audit.effect import accuracy_ceiling, balanced_accuracy_ceiling, expected_leak
from melanoma_edge.data.audit.shortcuts import CAP, shortcuts
from melanoma_edge.data.decoding import Facts
from melanoma_edge.data.index import Index, Row, read_index
from melanoma_edge.data.listing import Listing

ISIC9 = Path(os.environ.get("MELANOMA_EDGE_ISIC9") or Path(__file__).parent.parent.parent / "shared" / "data" / "isic9")


def recipe(**keywords: object) -> Recipe:
    return Recipe(name="test", **{"positive_class": "", "min_lesions": 2, **keywords})


def facts(sha256: str = "", **keywords: object) -> Facts:
    plain = dict(
        bytes=20_000, width=600, height=450, format="JPEG", mode="RGB", orientation=1, camera="", border_red=200.0, border_green=150.0, border_blue=140.0, dark_corners=0.0
    )
    return Facts(sha256, **{**plain, **keywords})


def row(label: str, number: int, *, pixels: str = "", **keywords: object) -> Row:
    """Return a row; equal `pixels` make identical pictures, without them every number is a picture of its own."""
    sha256 = f"{pixels or f'own {number}':>064}"
    if isinstance(keywords.get("facts"), dict):
        keywords["facts"] = facts(sha256, **keywords["facts"])
    return Row(f"{label}/{number:05}.png", label, sha256=sha256, **keywords)


def index(rows: list[Row], **keywords: object) -> Index:
    """Return an index of made-up rows; the thumbnails are flat, which are nobody's near copies."""
    rows = sorted(rows, key=lambda one: one.path)
    return Index(Path("data"), tuple(rows), (), np.zeros((len(rows), 16, 16), np.uint8), None, **keywords)


def plain(count: int = 6, start: int = 1000) -> list[Row]:
    """Return two classes with nothing wrong."""
    return [row(label, start + 100 * place + number, lesion=f"L{start + 100 * place + number}") for place, label in enumerate(("melanoma", "nevus")) for number in range(count)]


def keys(found: Audit, severity: str = "dishonest") -> set[str]:
    return {problem.key for problem in found.problems if problem.severity == severity}


def problem(found: Audit, key: str):
    (only,) = [one for one in found.problems if one.key == key]
    return only


# --- nothing wrong


def test_data_with_nothing_wrong_have_no_problem() -> None:
    found = audit(index(plain()), recipe())
    assert found.problems == () and found.exact_duplicates == found.near_copies == found.reference_contradictions == found.lesions == ()
    assert found.effect.accuracy_ceiling == found.effect.balanced_accuracy_ceiling == 1.0
    assert set(found.effect.random_split_leak.model_dump().values()) == {0.0} and found.parts is None and found.effect.given_split_leak is None
    assert found.counts.readable == found.counts.usable == found.counts.usable_groups == found.counts.lesions == 12
    assert found.notice == NOTICE


# --- labels and copies


def test_identical_pictures_under_two_classes_are_listed_and_bound_the_accuracy() -> None:
    found = audit(index([row("melanoma", 1, pixels="same"), row("nevus", 2, pixels="same"), row("nevus", 3, pixels="twice"), row("nevus", 4, pixels="twice"), *plain()]), recipe())
    counts = found.counts
    assert (counts.exact_duplicate_groups, counts.exact_duplicate_pictures, counts.conflicting_groups, counts.conflicting_pictures) == (2, 4, 1, 2)
    assert [group.classes for group in found.exact_duplicates] == [("melanoma", "nevus"), ("nevus",)]
    assert [member.path for member in found.exact_duplicates[0].members] == ["melanoma/00001.png", "nevus/00002.png"]
    assert {member.difference for group in found.exact_duplicates for member in group.members} == {0.0}
    assert found.effect.accuracy_ceiling == pytest.approx(15 / 16)
    # melanoma: 7 pictures, nevus: 9; the shared picture is worth more as one of the fewer.
    assert found.effect.balanced_accuracy_ceiling == pytest.approx((1 + 8 / 9) / 2)
    assert found.effect.conflicts_dropped == 2 and found.effect.duplicates_dropped == 1 and found.effect.usable == 13
    assert keys(found) == {"conflicting_copies"} and "copies" in keys(found, "note")
    assert problem(found, "conflicting_copies").count == 1 and "93.8%" in problem(found, "conflicting_copies").meaning


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), min_size=1, max_size=5))
@settings(deadline=None, max_examples=60)
def test_no_answers_to_the_groups_beat_the_ceiling_and_some_reach_it(groups: list[list[str]]) -> None:
    labels = [label for group in groups for label in group]
    ends = list(itertools.accumulate(map(len, groups)))
    positions = [list(range(end - len(group), end)) for group, end in zip(groups, ends)]
    totals = Counter(labels)
    best = best_balanced = 0.0
    for answers in itertools.product(sorted(totals), repeat=len(groups)):
        right = Counter(label for group, answer in zip(groups, answers) for label in group if label == answer)
        best = max(best, sum(right.values()) / len(labels))
        best_balanced = max(best_balanced, sum(right[label] / totals[label] for label in totals) / len(totals))
    assert accuracy_ceiling(labels, positions) == pytest.approx(best)
    assert balanced_accuracy_ceiling(labels, positions) == pytest.approx(best_balanced)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=9), st.sampled_from([0.2, 0.34, 0.5]))
@settings(deadline=None, max_examples=60)
def test_the_expected_leak_is_the_mean_over_all_splits(groups: list[int], share: float) -> None:
    size = max(1, round(share * len(groups)))
    leaks = []
    for test in itertools.combinations(range(len(groups)), size):
        train = {groups[position] for position in range(len(groups)) if position not in test}
        leaks.append(sum(groups[position] in train for position in test) / size)
    assert expected_leak(groups, share) == pytest.approx(np.mean(leaks))


def test_a_class_against_its_reference_is_told_by_pair() -> None:
    rows = [
        row("nevus", 1, reference="melanoma"), row("nevus", 2, reference=" Melanoma"), row("melanoma", 3, reference="nevus"),
        row("nevus", 4, reference="nevus"), row("nevus", 5, reference="a mystery"), row("pigmented benign keratosis", 6, reference="benign keratosis"),
        row("nevus", 7, reference="Benign keratosis"), row("pigmented benign keratosis", 8), *plain(),
    ]  # fmt: skip
    found = audit(index(rows), recipe())
    assert {(pair.label, pair.reference, pair.pictures) for pair in found.reference_contradictions} == {
        ("nevus", "melanoma", 2), ("melanoma", "nevus", 1), ("nevus", "benign keratosis", 1),
    }  # fmt: skip
    assert found.reference_contradictions[0].paths == ("nevus/00001.png", "nevus/00002.png")
    parent = next(pair for pair in found.reference_contradictions if pair.reference == "benign keratosis")
    assert "pigmented benign keratosis" in parent.meant and "nevus" not in parent.meant
    assert found.counts.reference_contradictions == 4 and found.counts.with_reference == 7
    assert found.references_not_understood == {"a mystery": 1} and found.counts.references_not_understood == 1
    assert "reference_contradictions" in keys(found) and problem(found, "reference_contradictions").handled


@pytest.mark.parametrize("conflicts, handled", [("reference", {True}), ("drop", {True, False}), ("keep", {False})])
def test_a_recipe_that_keeps_contradictions_does_not_handle_them(conflicts: str, handled: set[bool]) -> None:
    rows = [row("melanoma", 1, pixels="same"), row("nevus", 2, pixels="same"), row("nevus", 3, reference="melanoma"), *plain()]
    found = audit(index(rows), recipe(conflicts=conflicts))
    assert keys(found) == {"conflicting_copies", "reference_contradictions"}
    assert {one.handled for one in found.dishonest} == handled
    assert all(("conflicts = keep" in one.remedy) == (conflicts == "keep") for one in found.dishonest)


def test_lesions_with_several_pictures_and_those_under_two_classes() -> None:
    rows = [row("nevus", 1, lesion="A"), row("nevus", 2, lesion="A"), row("melanoma", 3, lesion="B"), row("nevus", 4, lesion="B"), row("nevus", 5, lesion="B"), *plain()]
    found = audit(index(rows), recipe())
    assert [(one.id, one.classes, one.pictures) for one in found.lesions] == [("B", ("melanoma", "nevus"), 3), ("A", ("nevus",), 2)]
    counts = found.counts
    assert (counts.lesions_with_several_pictures, counts.pictures_of_such_lesions, counts.lesions_under_two_classes) == (2, 5, 1)
    assert counts.lesions == 14 and counts.lesions_under_two_classes_after_policy == 1
    assert keys(found) == {"lesions_under_two_classes"} and not problem(found, "lesions_under_two_classes").handled
    assert found.effect.random_split_leak.copies == 0.0 < found.effect.random_split_leak.lesions
    resolved = audit(index([replace(one, reference="nevus") if one.lesion == "B" else one for one in rows]), recipe())
    assert resolved.counts.lesions_under_two_classes == 1 and resolved.counts.lesions_under_two_classes_after_policy == 0
    assert problem(resolved, "lesions_under_two_classes").handled


def test_pictures_without_a_lesion_id_are_noted() -> None:
    found = audit(index([row("nevus", 1), row("nevus", 2), *plain()]), recipe())
    assert keys(found, "note") == {"lesion_ids_unknown"} and problem(found, "lesion_ids_unknown").count == 2 and found.counts.with_lesion_id == 12


# --- parts


def test_what_stands_in_several_given_parts() -> None:
    rows = [
        row("nevus", 1, pixels="same", part="train"), row("melanoma", 2, pixels="same", part="test"),
        row("nevus", 3, lesion="A", part="train"), row("nevus", 4, lesion="A", part="test"),
        row("nevus", 5, lesion="B", patient="P", part="val"), row("nevus", 6, lesion="C", patient="P", part="test"),
        row("nevus", 7, lesion="D", patient="Q", part="test"), row("nevus", 8, lesion="E", patient="Q", part="test"),
        row("nevus", 9, pixels="in one part", part="train"), row("nevus", 10, pixels="in one part", part="train"),
        row("melanoma", 11), row("melanoma", 12), row("melanoma", 13, part="train"),
    ]  # fmt: skip
    found = audit(index(rows), recipe())
    counts = found.counts
    assert (counts.groups_across_parts, counts.conflicting_groups_across_parts, counts.lesions_across_parts, counts.patients_across_parts) == (1, 1, 1, 1)
    assert found.parts.pictures == {"train": 5, "validation": 1, "test": 5, "": 2}
    test = found.parts.leak["test"]
    assert (test.pictures, test.copies, test.lesions, test.patients) == (5, 1, 2, 3) and counts.leaking_test_pictures == 3
    assert found.parts.leak["validation"].patients == 0
    assert found.effect.given_split_leak.model_dump() == {"copies": 0.2, "lesions": 0.4, "patients": 0.6}
    assert keys(found) == {"conflicting_copies", "copies_across_parts", "lesions_across_parts", "patients_across_parts"}
    assert "3 (60.0%)" in problem(found, "copies_across_parts").meaning
    crossing = [group for group in found.exact_duplicates if len(group.parts) > 1]
    assert [group.parts for group in crossing] == [("test", "train")]
    assert [one.id for one in found.patients if len(one.parts) > 1] == ["P"] and counts.patients_with_several_pictures == 2


def test_given_parts_that_share_nothing_are_no_problem() -> None:
    rows = [replace(one, part="test" if place % 3 == 0 else "train") for place, one in enumerate(plain())]
    found = audit(index(rows), recipe())
    assert found.problems == () and found.effect.given_split_leak.patients == 0.0
    assert audit(index([replace(one, part="train") for one in plain()]), recipe()).parts is None


# --- classes and the policy


def test_classes_before_and_after_the_policy() -> None:
    rows = [*[row("nevus", number, lesion=f"N{number}") for number in range(40)], *[row("melanoma", 500 + number, lesion=f"M{number}") for number in range(4)]]
    rows += [row("wart", 901, lesion="W"), row("wart", 902, lesion="W"), row("nevus", 41, lesion="N1")]
    found = audit(index(rows), recipe())
    by_name = {one.name: one for one in found.classes}
    assert [one.name for one in found.classes] == ["melanoma", "nevus", "wart"]
    assert (by_name["nevus"].pictures, by_name["nevus"].lesions, by_name["nevus"].usable) == (41, 40, 41)
    assert by_name["wart"].left_out and (by_name["wart"].pictures, by_name["wart"].usable, by_name["wart"].usable_lesions) == (2, 0, 1)
    assert (found.imbalance, found.imbalance_usable) == (20.5, 10.25)
    assert found.counts.classes == 3 and found.counts.classes_left_out == 1 and found.effect.left_out_with_class == 2
    assert {"imbalance", "classes_left_out"} <= keys(found, "note") and "wart (1)" in problem(found, "classes_left_out").title


def test_data_that_training_refuses_are_audited_all_the_same() -> None:
    found = audit(index(plain()), recipe(min_lesions=50))
    assert "leaves 0 usable classes" in found.effect.training_refuses and "training_refuses" in keys(found, "note")
    assert found.counts.usable == 0 and {one.verdict for one in found.shortcuts} == {"not tried"}
    many_bad = replace(index(plain()), bad=tuple((f"{number}.png", "an empty file") for number in range(9)), faults=("empty",) * 9)
    told = problem(audit(many_bad, recipe()), "unreadable")
    assert told.count == 9 and not told.handled and "max_bad_share" in told.meaning


def test_a_missing_positive_class_does_not_stop_the_audit() -> None:
    assert audit(index([row(f"class {number % 2}", number) for number in range(50)]), recipes.load("default")).effect.training_refuses == ""


# --- shortcuts

VARIED = {
    "size": lambda r: {"width": int(r.integers(300, 900)), "height": int(r.integers(300, 900))},
    "file_size": lambda r: {"bytes": int(r.integers(10_000, 90_000))},
    "format": lambda r: {"format": str(r.choice(["JPEG", "PNG"]))},
    "border": lambda r: {"border_red": float(r.uniform(0, 255)), "border_blue": float(r.uniform(0, 255))},
    "corners": lambda r: {"dark_corners": float(r.uniform(0, 1))},
    "camera": lambda r: {"camera": str(r.choice(["A", "B", "C"]))},
}
TELLING = {
    "size": ({"width": 1022}, {"width": 600}),
    "file_size": ({"bytes": 50_000}, {"bytes": 20_000}),
    "format": ({"format": "PNG"}, {"format": "JPEG"}),
    "border": ({"border_blue": 30.0}, {"border_blue": 200.0}),
    "corners": ({"dark_corners": 0.9}, {"dark_corners": 0.0}),
    "camera": ({"camera": "Canon EOS"}, {"camera": ""}),
}


def with_facts(told, count: int = 120, groups: int = 1) -> Index:
    """Return an index of two classes with what `told(class number, random)` says of each file; `groups` pictures a lesion."""
    random = np.random.default_rng(3)
    rows = []
    for number in range(count):
        which = number // groups % 2
        rows.append(row(("melanoma", "nevus")[which], number, lesion=f"L{number // groups}", facts=told(which, random)))
    return index(rows)


@pytest.mark.parametrize("name", sorted(TELLING))
def test_what_tells_the_class_without_the_picture_is_a_shortcut(name: str) -> None:
    found = audit(with_facts(lambda which, random: TELLING[name][which] if random.uniform() < 0.9 else TELLING[name][1 - which]), recipe())
    by_name = {one.name: one for one in found.shortcuts}
    told = by_name.pop(name)
    assert told.verdict == "shortcut" and 0.8 < told.balanced_accuracy < 1.0 and told.chance == 0.5 and told.p_value <= 0.001
    assert told.chance_low < 0.5 < told.chance_high < told.balanced_accuracy
    assert set(told.recall) == {"melanoma", "nevus"} and np.mean(list(told.recall.values())) == pytest.approx(told.balanced_accuracy, abs=1e-3)
    others = {one.verdict for other, one in by_name.items() if (other, name) != ("file_size", "size")}  # bytes per pixel follow the size
    assert others == {"constant"}
    severity = "note" if name in ("file_size", "border") else "dishonest"
    assert f"shortcut_{name}" in keys(found, severity) and not problem(found, f"shortcut_{name}").handled


@pytest.mark.parametrize("name", sorted(VARIED))
def test_what_tells_nothing_is_no_shortcut(name: str) -> None:
    found = audit(with_facts(lambda which, random: VARIED[name](random)), recipe())
    told = next(one for one in found.shortcuts if one.name == name)
    assert told.verdict == "none" and told.balanced_accuracy < told.chance_high + 0.02 and told.reason == ""
    assert not {key for key in keys(found) | keys(found, "note") if key.startswith("shortcut")}


def test_constant_features_say_so() -> None:
    found = audit(with_facts(lambda which, random: {}), recipe())
    assert {one.verdict for one in found.shortcuts} == {"constant"}
    assert all("constant" in one.reason and one.balanced_accuracy is None for one in found.shortcuts)
    assert "width 600, height 450" in found.shortcuts[0].reason


def test_a_lesion_is_never_told_by_its_own_other_pictures() -> None:
    # Every lesion has a border of its own, so pictures of it give it away: unless they are all held out together.
    colours = np.random.default_rng(5).uniform(0, 255, 40)
    labels = np.random.default_rng(6).integers(0, 2, 40)
    rows = [
        row(("melanoma", "nevus")[labels[lesion]], 10 * lesion + copy, lesion=f"L{lesion}", facts={"border_red": float(colours[lesion])}) for lesion in range(40) for copy in range(8)
    ]
    (told,) = [one for one in audit(index(rows), recipe()).shortcuts if one.name == "border"]
    assert told.verdict == "none" and told.groups == 40 and told.pictures == 320


def test_made_up_rows_without_facts_are_not_tried() -> None:
    found = audit(index(plain()), recipe())
    assert {(one.verdict, one.reason) for one in found.shortcuts} == {("not tried", "nothing is known about the files")}
    few = audit(with_facts(lambda which, random: {}, count=8), recipe())
    assert {one.reason for one in few.shortcuts} == {"fewer than two classes have 5 independent lesions or patients"}


def test_of_large_sets_a_part_is_tried_and_its_size_stated() -> None:
    rows = with_facts(lambda which, random: TELLING["size"][which], count=400).rows
    told = shortcuts(rows, range(len(rows)), cap=100)
    assert {one.pictures for one in told} == {100} and told[0].verdict == "shortcut" and CAP >= 1000
    assert told == shortcuts(rows, range(len(rows)), cap=100)


# --- the same data, the same audit


def renamed(given_: Index, order: list[int]) -> Index:
    return index([replace(one, path=f"{one.label}/{place:05}.png") for one, place in zip(given_.rows, order)])


def unnamed(found: Audit) -> dict:
    """Return what does not depend on the files' names."""
    return {"counts": found.counts, "effect": found.effect, "shortcuts": found.shortcuts, "classes": found.classes, "problems": found.problems}


@given(st.permutations(range(60)))
@settings(deadline=None, max_examples=5)
def test_names_and_their_order_change_no_figure(order: list[int]) -> None:
    given_ = with_facts(lambda which, random: {**VARIED["size"](random), **TELLING["camera"][which]}, count=60)
    assert unnamed(audit(renamed(given_, order), recipe())) == unnamed(audit(given_, recipe()))


@given(st.lists(st.tuples(st.sampled_from(["melanoma", "nevus"]), st.integers(0, 9)), min_size=1, max_size=12))
@settings(deadline=None, max_examples=25)
def test_every_file_twice_makes_every_picture_a_group_and_nothing_else_worse(drawn: list[tuple[str, int]]) -> None:
    rows = [*plain(), *(row(label, number, pixels=f"p{pixels}") for number, (label, pixels) in enumerate(drawn))]
    once = audit(index(rows), recipe())
    twice = audit(index([*rows, *(replace(one, path=f"{one.label}/again {one.path[-9:]}") for one in rows)]), recipe())
    assert twice.counts.exact_duplicate_groups == len({one.pixels for one in rows})
    assert twice.counts.exact_duplicate_pictures == twice.counts.readable == 2 * len(rows)
    assert twice.counts.conflicting_groups == once.counts.conflicting_groups
    assert twice.effect.accuracy_ceiling == pytest.approx(once.effect.accuracy_ceiling)
    assert twice.counts.usable_groups == once.counts.usable_groups and twice.effect.usable == once.effect.usable
    assert twice.effect.random_split_leak.copies >= max(once.effect.random_split_leak.copies, 0.75)


# --- files


def lesion(path: Path, seed: int, size: tuple[int, int] = (96, 96), **keywords: object) -> Image.Image:
    """Write a smooth picture, of which a copy stays a copy, and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    drawn = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    drawn.save(path, **keywords)
    return drawn


def folder(root: Path, count: int = 6) -> Path:
    """Write two classes of distinct pictures."""
    for place, label in enumerate(("melanoma", "nevus")):
        for number in range(count):
            lesion(root / label / f"{number}.png", 100 * place + number)
    return root


def audited(root: Path, **keywords: object) -> Audit:
    return audit(read_index(root), recipe(**{"image_size": 64, **keywords}))


def test_near_copies_are_groups_of_their_own(tmp_path: Path) -> None:
    folder(tmp_path)
    with Image.open(tmp_path / "nevus" / "0.png") as first, Image.open(tmp_path / "nevus" / "1.png") as second:
        first.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "melanoma" / "flipped.png")
        second.resize((64, 64)).save(tmp_path / "nevus" / "smaller.jpg", quality=85)
    shutil.copy(tmp_path / "nevus" / "2.png", tmp_path / "nevus" / "same.png")
    found = audited(tmp_path)
    counts = found.counts
    assert (counts.near_copy_groups, counts.near_copy_pictures, counts.near_conflicting_groups) == (2, 4, 1)
    assert (counts.exact_duplicate_groups, counts.conflicting_groups) == (1, 0)
    assert [{member.path for member in group.members} for group in found.near_copies] == [{"melanoma/flipped.png", "nevus/0.png"}, {"nevus/1.png", "nevus/smaller.jpg"}]
    assert 0 < found.near_copies[1].members[0].difference < 3.5
    assert found.near_copies[1].members[1].width == 64
    assert keys(found) == {"conflicting_near_copies"}
    assert found.effect.accuracy_ceiling == 1.0 > found.effect.accuracy_ceiling_with_near_copies == pytest.approx(14 / 15)


def test_oddities_of_readable_files(tmp_path: Path) -> None:
    folder(tmp_path)
    lesion(tmp_path / "nevus" / "really a jpeg.png", 11, format="JPEG")
    lesion(tmp_path / "nevus" / "grey.png", 12).convert("L").save(tmp_path / "nevus" / "grey.png")
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    lesion(tmp_path / "nevus" / "turned.jpg", 13, exif=exif)
    lesion(tmp_path / "nevus" / "small.png", 14, size=(96, 63))
    lesion(tmp_path / "nevus" / "middling.png", 15, size=(70, 96))
    found = audited(tmp_path, image_size=80)
    counts, files = found.counts, found.files
    assert [(one.path, one.suffix, one.format) for one in files.mislabelled] == [("nevus/really a jpeg.png", ".png", "JPEG")]
    assert [(one.path, one.mode) for one in files.unusual_modes] == [("nevus/grey.png", "L")]
    assert [(one.path, one.orientation) for one in files.rotated] == [("nevus/turned.jpg", 6)]
    assert {(one.path, one.width, one.height) for one in files.small} == {("nevus/small.png", 96, 63), ("nevus/middling.png", 70, 96)}
    assert (counts.mislabelled_by_extension, counts.unusual_modes, counts.rotated_by_exif, counts.below_input_size, counts.tiny) == (1, 1, 1, 2, 1)
    assert files.formats == {"PNG": 15, "JPEG": 2} and files.modes == {"RGB": 16, "L": 1}
    assert keys(found) == set() and {"mislabelled_by_extension", "unusual_modes", "rotated_by_exif", "below_input_size", "tiny"} <= keys(found, "note")
    assert audited(tmp_path, image_size=32).counts.tiny == 1


def test_what_was_not_listed_is_counted() -> None:
    listing = Listing(
        Path("data"), "ISIC Archive", (), tables=(Path("data/metadata.csv"),), outside=("stray.jpg",), other_files={".heic": 3, ".zip": 1}, unmapped={"lentigo": 2},
        without_picture=("ISIC_1", "ISIC_2"), filtered={"CC-BY-NC": 5}, notes=("a link\nwas passed over",),
    )  # fmt: skip
    found = audit(index(plain(), outside=("stray.jpg",), listing=listing), recipe())
    counts = found.counts
    assert (counts.other_files, counts.without_class, counts.unmapped, counts.ids_without_picture, counts.filtered_by_licence) == (4, 1, 2, 2, 5)
    assert found.files.other_files == {".heic": 3, ".zip": 1} and found.files.without_class == ("stray.jpg",) and found.files.unmapped == {"lentigo": 2}
    assert found.files.without_picture == ("ISIC_1", "ISIC_2") and found.files.filtered == {"CC-BY-NC": 5} and found.source == "ISIC Archive"
    assert keys(found, "note") == {"other_files", "without_class", "unmapped", "ids_without_picture", "filtered_by_licence"}
    assert ".heic 3, .zip 1" in problem(found, "other_files").title and found.tables == ("data/metadata.csv",)


def test_licences_are_counted() -> None:
    rows = [replace(one, licence=("CC-0", "CC-BY-NC", "")[place % 3]) for place, one in enumerate(plain())]
    found = audit(index(rows), recipe())
    assert found.licences == {"CC-0": 4, "CC-BY-NC": 4, "not stated": 4}
    assert problem(found, "licence_noncommercial").count == problem(found, "licence_not_stated").count == 4
    assert keys(audit(index(plain()), recipe()), "note") == set(), "a folder that states no licence at all is no news"


HOSTILE = {
    "truncated.jpg": "truncated",
    "flipped bits.png": "damaged",
    "wrong magic.jpg": "no picture",
    "a zip.jpg": "no picture",
    "bomb.png": "too large",
    "empty.png": "empty",
    "loop.jpg": "no access",
    "nowhere.jpg": "no access",
    "pipe.jpg": "no access",
    "float.tif": "unsupported",
}
NAMES = ["with spaces .png", "new\nline.png", "tab\t[bold]<script>alert(1)</script>.png", "黑色素瘤 é.png", "x" * 246 + ".png", "'\"&amp;.png"]


def hostile(root: Path) -> Path:
    """Write a folder of files that programs stumble over, beside two classes of good ones."""
    folder(root)
    bad = root / "nevus"
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 60, 3), np.uint8))
    noise.save(bad / "truncated.jpg")
    (bad / "truncated.jpg").write_bytes((bad / "truncated.jpg").read_bytes()[:-900])
    noise.save(bad / "flipped bits.png")
    content = bytearray((bad / "flipped bits.png").read_bytes())
    content[200:260] = bytes(255 - value for value in content[200:260])
    (bad / "flipped bits.png").write_bytes(content)
    (bad / "wrong magic.jpg").write_bytes(b"not a picture at all, whatever its name says")
    with zipfile.ZipFile(bad / "a zip.jpg", "w") as packed:
        packed.write(bad / "0.png", "0.png")
    chunks = (b"IHDR" + (100_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0]), b"IDAT" + zlib.compress(bytes(64)), b"IEND")
    framed = (len(chunk[4:]).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") for chunk in chunks)
    (bad / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))
    (bad / "empty.png").write_bytes(b"")
    (bad / "loop.jpg").symlink_to("loop.jpg")
    (bad / "nowhere.jpg").symlink_to("gone.jpg")
    (bad / "a loop of folders").symlink_to(root)
    os.mkfifo(bad / "pipe.jpg")
    Image.fromarray(np.ones((9, 9), np.float32)).save(bad / "float.tif")
    for seed, name in enumerate(NAMES, 30):
        lesion(root / "melanoma" / name, seed, format="PNG")
    (root / "stray.jpg").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile(tmp_path_factory.mktemp("hostile") / "data <b>&amp;")


OPTIONS = ("--set", "min_lesions=2", "--set", "image_size=64", "-q")


def test_every_hostile_file_is_named_and_counted(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    done = cli("audit", corpus, *OPTIONS, "-v", "--cache", tmp_path / "cache", "--json", tmp_path / "audit.json", "--html", tmp_path / "audit.html")
    found = read_json(tmp_path / "audit.json")
    validate(found, "audit")
    faults = {one["path"].removeprefix("nevus/"): one["fault"] for one in found["files"]["unreadable"]}
    assert faults == HOSTILE
    assert found["files"]["faults"] == Counter(HOSTILE.values()) and found["counts"]["unreadable"] == len(HOSTILE)
    assert found["counts"]["readable"] == 12 + len(NAMES) and found["counts"]["files"] == found["counts"]["readable"] + len(HOSTILE)
    assert found["files"]["without_class"] == ["stray.jpg"]
    assert all(one["reason"] and one["reason"].isprintable() for one in found["files"]["unreadable"])
    lines = done.out.splitlines()
    for name, fault in HOSTILE.items():
        assert sum(line.startswith(f"{fault}: nevus/{name}: ") for line in lines) == 1
    assert NOTICE in done.out and str(tmp_path / "audit.html") in done.out


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    folder(tmp_path)
    lesion(tmp_path / "nevus" / "secret.png", 50)
    (tmp_path / "nevus" / "secret.png").chmod(0)
    assert audited(tmp_path).files.faults == {"no access": 1}


def test_a_name_that_is_no_text_is_named(tmp_path: Path) -> None:
    folder(tmp_path)
    with open(os.fsencode(tmp_path) + b"/nevus/\xff.png", "wb") as file:
        file.write((tmp_path / "nevus" / "0.png").read_bytes())
    found = audited(tmp_path)
    assert [(one.path, one.fault) for one in found.files.unreadable] == [("nevus/\\xff.png", "no access")]
    json.dumps(found.model_dump(mode="json"), ensure_ascii=False).encode()


# --- the command


@pytest.fixture(scope="module")
def contradicting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = folder(tmp_path_factory.mktemp("contradicting") / "data")
    shutil.copy(root / "nevus" / "0.png", root / "melanoma" / "same.png")
    return root


def test_json_goes_to_standard_output_alone(cli: Cli, contradicting: Path, tmp_path: Path) -> None:
    done = cli("audit", contradicting, *OPTIONS, "--cache", tmp_path, "--json", "-")
    validate(done.json, "audit")
    assert done.json["counts"]["conflicting_groups"] == 1 and done.json["policy"]["min_lesions"] == 2
    assert done.json["problems"][0]["key"] == "conflicting_copies" and done.json["problems"][0]["severity"] == "dishonest"
    assert done.err == ""
    again = cli("audit", contradicting, *OPTIONS, "--cache", tmp_path, "--json", "-")
    assert again.out == done.out


def test_strict_fails_where_a_figure_would_be_dishonest(cli: Cli, contradicting: Path, tmp_path: Path) -> None:
    done = cli("audit", contradicting, *OPTIONS, "--cache", tmp_path, "--strict", "--json", tmp_path / "audit.json", code=1)
    assert done.err.count("\n") == 1 and "1 problem makes figures on" in done.err and "conflicting_copies (1)" in done.err
    assert "1 picture stands under two or more classes" in done.out and read_json(tmp_path / "audit.json")["counts"]["conflicting_groups"] == 1
    assert cli("audit", contradicting, *OPTIONS, "--cache", tmp_path).code == 0
    clean = folder(tmp_path / "clean")
    done = cli("audit", clean, *OPTIONS, "--cache", tmp_path / "other", "--strict")
    assert "dishonest" not in done.out


def test_problems_come_first_on_the_screen(cli: Cli, contradicting: Path, tmp_path: Path) -> None:
    out = cli("audit", contradicting, *OPTIONS, "--cache", tmp_path).out
    assert out.index("dishonest") < out.index("lesions used") < out.index("shortcut ") < out.index("best accuracy possible")
    assert "best accuracy possible on the files as they are: 92.3%" in out


def test_what_cannot_be_done_is_refused_in_one_line(cli: Cli, contradicting: Path, tmp_path: Path) -> None:
    (tmp_path / "there.html").write_text("mine")
    (tmp_path / "nothing" / "nevus").mkdir(parents=True)
    (tmp_path / "nothing" / "nevus" / "a.png").write_bytes(b"")
    cases = {
        ("audit", tmp_path / "missing"): "is missing",
        ("audit", contradicting, "--html", tmp_path / "there.html"): "exists already",
        ("audit", contradicting, "--json", tmp_path / "no folder" / "a.json"): "does not exist",
        ("audit", contradicting, "--json", tmp_path): "is a folder",
        ("audit", contradicting, "--json", tmp_path / "a", "--html", tmp_path / "a"): "both JSON and HTML",
        ("audit", contradicting, "--set", "min_lesion=3"): "did you mean 'min_lesions'",
        ("audit", contradicting, "--metadata", tmp_path / "none.csv"): "none.csv",
        ("audit", tmp_path / "nothing"): "holds no readable picture",
    }
    for arguments, words in cases.items():
        assert words in cli.refused(*arguments, "-q", "--cache", tmp_path / "cache")
    assert (tmp_path / "there.html").read_text() == "mine" and not (tmp_path / "a").exists()
    cli("audit", contradicting, *OPTIONS, "--cache", tmp_path / "cache", "--html", tmp_path / "there.html", "--force")
    assert "<!doctype html>" in (tmp_path / "there.html").read_text()


def test_the_audit_brings_no_heavy_package(contradicting: Path, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom melanoma_edge.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'tensorflow', 'tf_keras', 'keras', 'cv2', 'onnx', 'onnxruntime', 'ai_edge_litert', 'tf2onnx', 'torch'}\n"
        "print('heavy:', *sorted(heavy & set(sys.modules)))\n"
    )
    arguments = ["audit", contradicting, *OPTIONS, "--cache", tmp_path, "--html", tmp_path / "audit.html", "--json", tmp_path / "audit.json"]
    done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy:"


# --- the page


class Page(html.parser.HTMLParser):
    """What a browser would find in the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.references: list[str] = []
        self.ids: set[str] = set()
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        if tag not in ("meta", "img", "br", "source", "link", "input"):
            self.open.append(tag)
        for name, value in attributes:
            assert not name.startswith("on"), "a script in an attribute"
            if name in ("src", "srcset", "href", "action", "data", "poster"):
                self.references.append(value)
            if name == "id":
                self.ids.add(value)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(cli: Cli, data: Path, tmp_path: Path) -> tuple[str, Page]:
    cli("audit", data, *OPTIONS, "--cache", tmp_path / "cache", "--html", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    return text, Page(text)


def test_the_page_holds_everything_itself_and_runs_nothing(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, tmp_path / "data", symlinks=True, ignore=shutil.ignore_patterns("pipe.jpg", "a loop of folders"))
    for place, name in enumerate(NAMES):  # each hostile name in a group, with another class
        shutil.copy(tmp_path / "data" / "melanoma" / name, tmp_path / "data" / "nevus" / f"<i>copy {place}.png")
    text, page = page_of(cli, tmp_path / "data", tmp_path)
    assert page.tags["script"] == page.tags["link"] == page.tags["iframe"] == page.tags["i"] - text.count("<i ") == page.tags["b"] - text.count("<b>") == 0
    assert all(reference.startswith(("data:image/", "#")) for reference in page.references)
    assert {reference[1:] for reference in page.references if reference.startswith("#")} <= page.ids
    assert "url(" not in text and "@import" not in text and "http" not in text.replace("http-equiv", "")
    assert "<script>alert(1)</script>" in page.text and "new\\nline.png" in page.text and "x" * 246 in page.text
    assert NOTICE in page.text
    for name, fault in HOSTILE.items():
        assert name in page.text or name == "pipe.jpg"
    assert page.tags["img"] == 2 + 2 * len(NAMES) or page.tags["img"] == 1 + 2 * len(NAMES)


def test_the_page_of_a_folder_with_a_hostile_name(cli: Cli, corpus: Path, tmp_path: Path) -> None:
    _, page = page_of(cli, corpus, tmp_path)
    assert "data <b>&amp;" in page.text


def test_the_page_is_bounded(contradicting: Path) -> None:
    from melanoma_edge.proof.audit_html import MOST_MEMBERS, page

    content = read_index(contradicting)
    rows = [replace(content.rows[0], path=content.rows[0].path, label=("melanoma", "nevus")[place % 2], sha256=f"{place // 10:064}") for place in range(5000)]
    many = Index(content.root, tuple(rows), (), np.zeros((5000, 16, 16), np.uint8), None)
    found = audit(many, recipe(image_size=64))
    assert found.counts.conflicting_groups == 500
    text = page(found, content.root)
    shown = Page(text)
    assert len(text) < 10_000_000 and "and 380 more in the JSON" in shown.text and f"and {10 - MOST_MEMBERS} more of this group" in shown.text
    assert shown.tags["img"] <= 200 * MOST_MEMBERS + 2


def test_the_page_of_data_with_nothing_wrong_says_so(tmp_path: Path) -> None:
    from melanoma_edge.proof.audit_html import page

    text = Page(page(audit(index(plain()), recipe()), tmp_path)).text
    assert "Nothing was found that would make a figure on these files dishonest." in text and "Same picture, two classes" in text


def test_a_picture_that_is_gone_is_not_shown(contradicting: Path, tmp_path: Path) -> None:
    from melanoma_edge.proof.audit_html import page

    found = audit(read_index(contradicting), recipe(image_size=64))
    here, gone = (Page(page(found, root)) for root in (contradicting, tmp_path))
    assert here.tags["img"] - gone.tags["img"] == 2 and gone.text.count("not shown") == 2


# --- the real set


@pytest.mark.skipif(not (ISIC9 / "metadata.csv").is_file(), reason=f"the nine-class ISIC set is not at {ISIC9}")
def test_what_is_in_the_nine_class_isic_set() -> None:
    found = audit(read_index(ISIC9), recipes.load("default"))
    counts = found.counts
    assert (counts.files, counts.unreadable, counts.classes) == (1931, 0, 9)
    assert (counts.exact_duplicate_groups, counts.conflicting_groups) == (158, 155)
    assert (counts.near_copy_groups, counts.near_conflicting_groups) == (3, 1)
    assert found.effect.accuracy_ceiling == pytest.approx((1931 - 155) / 1931)
    assert {"conflicting_copies", "conflicting_near_copies", "reference_contradictions", "copies_across_parts"} <= keys(found)
    assert counts.leaking_test_pictures == found.parts.pictures["test"] == 18
    assert {one.name: one.verdict for one in found.shortcuts}["size"] == "constant"
