"""The data policy: who decides where labels contradict, what is left out and why, and that nothing is lost."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from melanoma_edge.contract import Recipe
from melanoma_edge.data.index import Index, Row, read_index
from melanoma_edge.data.policy import Selection, connect, ids_of, resolve, select
from melanoma_edge.data.samples import draw
from melanoma_edge.errors import BadInput

PBK, SK, PARENT = "pigmented benign keratosis", "seborrheic keratosis", "benign keratosis"


def recipe(**keywords: object) -> Recipe:
    return Recipe(name="test", **{"positive_class": "", "min_lesions": 2, **keywords})


def index(*pictures: tuple[str, ...], bad: int = 0) -> Index:
    """Return an index of (label, pixels, reference, lesion); what is left out of a tuple is empty.

    Equal `pixels` make identical pictures. The thumbnails are flat, which never count as near copies.
    """
    rows = []
    for number, given_ in enumerate(pictures):
        label, pixels, reference, lesion = (*given_, "", "", "")[:4]
        rows.append(Row(f"{label}/{number:03}.png", label, sha256=f"{pixels or f'own {number}':>064}", lesion=lesion, reference=reference))
    return Index(
        Path("data"), tuple(rows), tuple((f"bad/{number}.png", "an empty file") for number in range(bad)), np.zeros((len(rows), 16, 16), np.uint8), None
    )


def many(label: str, count: int) -> list[tuple[str, ...]]:
    return [(label,)] * count


def refused(given_: Index, **keywords: object) -> str:
    with pytest.raises(BadInput) as caught:
        select(given_, recipe(**keywords))
    assert str(caught.value).isprintable()
    return str(caught.value)


def decided(selection: Selection, count: int) -> list[str | None]:
    """Return the class of the first `count` pictures of the index, None where they are left out."""
    at = dict(zip(selection.positions, selection.rows))
    return [at[position].label if position in at else None for position in range(count)]


# --- contradictions

FILL = [*many("melanoma", 2), *many("nevus", 2), *many(PBK, 2), *many(SK, 2)]
"""So that every class here has lesions enough."""

A, B = ("melanoma", "same"), ("nevus", "same")


@pytest.mark.parametrize(
    "copies, expected",
    [
        # The reference decides between the folders, and against a single folder.
        ([(*A, "nevus"), (*B, "nevus")], [None, "nevus"]),
        ([(*A, "melanoma"), B], ["melanoma", None]),
        ([A, (*B, " Melanoma ")], ["melanoma", None]),
        ([("melanoma", "", "nevus")], ["nevus"]),
        ([(*A, SK), (*B, SK)], [SK, None]),
        # It does not say, or is not understood: contradicting labels are dropped, others stay.
        ([A, B], [None, None]),
        ([(*A, "naevoid lesion"), B], [None, None]),
        ([("melanoma", "", "naevoid lesion")], ["melanoma"]),
        # References that contradict each other decide nothing.
        ([(*A, "melanoma"), (*B, "nevus")], [None, None]),
        ([(*A, "nevus"), ("melanoma", "same", "melanoma")], [None, None]),
        # A parent diagnosis leaves the choice among its classes to the folder.
        ([(PBK, "", PARENT)], [PBK]),
        ([(SK, "", PARENT.title())], [SK]),
        ([(PBK, "same", PARENT), (SK, "same", PARENT)], [None, None]),
        ([(PBK, "same", PARENT), ("nevus", "same", PARENT)], [PBK, None]),
        ([("melanoma", "same", PARENT), (SK, "same", PARENT)], [None, SK]),
        ([("nevus", "", PARENT)], [None]),
        ([("nevus", "same", PARENT), ("nevus", "same", SK)], [SK, None]),
        ([(PBK, "same", PARENT), (SK, "same", PBK)], [PBK, None]),
    ],
)
def test_the_reference_decides_or_nobody_does(copies: list[tuple[str, ...]], expected: list[str | None]) -> None:
    given_ = index(*copies, *FILL)
    selection = select(given_, recipe())
    assert decided(selection, len(copies)) == expected
    for row, label in zip(given_.rows, expected):
        assert (label is None) == (row.path in selection.left_out)
        assert label is not None or selection.left_out[row.path]


def test_why_a_contradiction_was_dropped_is_said() -> None:
    given_ = index(A, B, ("nevus", "", PARENT), *FILL)
    left_out = select(given_, recipe()).left_out
    assert left_out["melanoma/000.png"] == left_out["nevus/001.png"] == "identical pictures under melanoma, nevus, no reference decides"
    assert left_out["nevus/002.png"] == f"labels nevus against the reference {PARENT}: not resolved"


def test_references_are_understood_whatever_the_case_of_the_folders() -> None:
    given_ = index(("Melanoma", "", "nevus"), ("Melanoma", "", PARENT), *many("Melanoma", 2), *many("NEVUS", 2), *many(PBK.title(), 2))
    assert decided(select(given_, recipe()), 2) == ["NEVUS", PBK.title()]


def test_a_parent_diagnosis_can_only_mean_classes_that_there_are() -> None:
    given_ = index(("nevus", "", PARENT), *many("nevus", 2), *many(PBK, 2))
    assert decided(select(given_, recipe()), 1) == [PBK]
    assert resolve(given_, recipe()).labels[0] == PBK
    resolution = resolve(given_, recipe(), classes=(PBK, SK))
    assert 0 not in resolution.labels and "nevus/000.png" in resolution.left_out


def test_references_can_mean_a_class_of_the_model_that_has_no_folder() -> None:
    given_ = index(("nevus", "", "melanoma"), *many("nevus", 2))
    assert 0 not in resolve(given_, recipe()).labels
    assert resolve(given_, recipe(), classes=("melanoma", "nevus")).labels[0] == "melanoma"


@pytest.mark.parametrize("copies, dropped", [([A, B], 2), ([(*A, "nevus"), (*B, "nevus")], 2), ([("melanoma", "", "nevus")], 0), ([A, A], 1)])
def test_drop_asks_no_reference(copies: list[tuple[str, ...]], dropped: int) -> None:
    selection = select(index(*copies, *FILL), recipe(conflicts="drop"))
    assert decided(selection, len(copies)).count(None) == dropped
    assert {label for label in decided(selection, len(copies)) if label} <= {"melanoma"}


def test_keep_keeps_contradictions_under_their_own_labels_and_in_one_group() -> None:
    selection = select(index((*A, "nevus"), B, *FILL), recipe(conflicts="keep"))
    assert decided(selection, 2) == ["melanoma", "nevus"] and selection.groups[0] == selection.groups[1]
    assert selection.report["conflicting_groups"] == 1 and selection.report["conflicts_dropped"] == 0


# --- copies


def test_of_identical_copies_one_is_kept_the_one_in_its_own_folder() -> None:
    given_ = index(("melanoma", "same", "nevus"), ("nevus", "same"), ("nevus", "same"), *FILL)
    selection = select(given_, recipe())
    assert decided(selection, 3) == [None, "nevus", None]
    assert selection.left_out == {"melanoma/000.png": "identical to nevus/001.png", "nevus/002.png": "identical to nevus/001.png"}
    assert selection.report["duplicates_dropped"] == 2


def test_all_copies_may_be_kept_in_one_group() -> None:
    selection = select(index(A, A, A, *FILL), recipe(duplicates="keep"))
    assert decided(selection, 3) == ["melanoma"] * 3 and len(set(selection.groups[:3])) == 1
    assert selection.left_out == {} and selection.report["lesions_per_class"]["melanoma"] == 3


def test_a_lesion_is_known_by_all_copies_of_its_pictures() -> None:
    """Two copies of a picture, only one of them with the lesion's id: the one that is kept must still count
    as that lesion, or another photograph of it could stand on the other side of the split."""
    given_ = index(("nevus", "same"), ("nevus", "same", "", "L1"), ("nevus", "other", "", "L1"), *FILL)
    selection = select(given_, recipe())
    assert decided(selection, 3) == ["nevus", None, "nevus"]
    assert selection.groups[0] == selection.groups[1]
    assert selection.report["lesions_per_class"]["nevus"] == 3


def test_groups_join_lesions_and_pixels_in_chains() -> None:
    given_ = index(
        ("a", "p1", "", "L1"), ("a", "p2", "", "L1"), ("b", "p2", "", "L2"), ("b", "p3", "", "L2"), ("b", "p4"), ("a", "p5"), ("a", "p5"), ("a", "p6", "", "L3")
    )
    groups = connect(given_)
    assert len(set(groups[:4])) == 1, "L1, p2 and L2 make one chain"
    assert groups[5] == groups[6] and len(set(groups)) == 4


# --- copies that are not identical

LESION = draw("melanoma", 96, (21, 0))
"""The picture that the following folders hold in several forms."""


def smaller(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((64, 64)))


def put(root: Path, pictures: dict[str, np.ndarray], references: dict[str, str] | None = None) -> Index:
    """Save `pictures` {path: pixels} and eight others, four each of melanoma and nevus, and return their index."""
    others = {f"{name}/other {n}.png": draw(name, 64, (22, n)) for name in ("melanoma", "nevus") for n in range(4)}
    for path, pixels in {**pictures, **others}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(pixels)).save(root / path, quality=90)
    if references:
        lines = [f"{Path(path).stem},{reference}" for path, reference in references.items()]
        (root / "metadata.csv").write_text("\n".join(["image_id,reference_diagnosis", *lines]) + "\n", encoding="utf-8")
    return read_index(root)


def of_copies(selection: Selection) -> dict[str, str]:
    """Return {path: class} of what is used of the lesion in several forms."""
    return {row.path: row.label for row in selection.rows if "other" not in row.path}


TWO_FORMS = {"melanoma/large.png": LESION, "nevus/small.jpg": smaller(LESION)[:, ::-1]}


@pytest.mark.parametrize(
    ("references", "conflicts", "expected"),
    [
        ({}, "reference", {}),
        ({"large": "melanoma"}, "reference", {"melanoma/large.png": "melanoma"}),
        ({"small": "melanoma"}, "reference", {"melanoma/large.png": "melanoma"}),
        ({"large": "nevus"}, "reference", {"nevus/small.jpg": "nevus"}),
        ({"large": "nevus", "small": "melanoma"}, "reference", {}),
        ({"large": "melanoma"}, "drop", {}),
        ({"large": "melanoma"}, "keep", {"melanoma/large.png": "melanoma", "nevus/small.jpg": "nevus"}),
    ],
)
def test_near_copies_under_two_classes_are_resolved_as_identical_ones_are(tmp_path: Path, references: dict, conflicts: str, expected: dict) -> None:
    index_ = put(tmp_path, TWO_FORMS, references)
    selection = select(index_, recipe(conflicts=conflicts))
    assert of_copies(selection) == expected
    report = selection.report
    assert (report["near_copy_groups"], report["near_conflicting_groups"]) == (1, 1)
    assert (report["identical_groups"], report["conflicting_groups"], report["duplicates_dropped"]) == (0, 0, 0)
    assert report["conflicts_dropped"] == (0 if expected else 2) and report["near_copies_dropped"] == (len(expected) == 1)
    if conflicts != "keep" and not references:
        assert selection.left_out["nevus/small.jpg"] == "copies of one picture under melanoma, nevus, no reference decides"
    groups = connect(index_)
    paths = [row.path for row in index_.rows]
    assert groups[paths.index("melanoma/large.png")] == groups[paths.index("nevus/small.jpg")]


def test_of_near_copies_the_largest_is_kept_or_all_of_them(tmp_path: Path) -> None:
    forms = {"melanoma/a small.jpg": smaller(LESION), "melanoma/b large.png": LESION, "melanoma/c small turned.png": np.rot90(smaller(LESION))}
    index_ = put(tmp_path, forms)
    selection = select(index_, recipe())
    assert of_copies(selection) == {"melanoma/b large.png": "melanoma"}
    assert selection.left_out == {path: "a copy of melanoma/b large.png" for path in forms if "small" in path}
    assert (selection.report["near_copy_groups"], selection.report["near_copies_dropped"], selection.report["near_conflicting_groups"]) == (1, 2, 0)
    assert selection.report["per_class"] == {"melanoma": 5, "nevus": 4} == selection.report["lesions_per_class"]
    kept = select(index_, recipe(duplicates="keep"))
    assert of_copies(kept).keys() == forms.keys() and kept.left_out == {} and kept.report["near_copies_dropped"] == 0
    assert kept.report["per_class"]["melanoma"] == 7 and kept.report["lesions_per_class"]["melanoma"] == 5
    assert len({group for row, group in zip(kept.rows, kept.groups) if row.path in forms}) == 1


def test_identical_pixels_in_other_files_are_identical_pictures(tmp_path: Path) -> None:
    """As PNG and as BMP; turned, with a tag that turns it back; with and without EXIF."""
    put(tmp_path, {"melanoma/a.png": LESION, "melanoma/a.bmp": LESION, "nevus/j.jpg": draw("nevus", 64, (23, 0))})
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn to the right to see it upright"
    Image.fromarray(np.ascontiguousarray(np.rot90(LESION))).save(tmp_path / "melanoma" / "a turned.png", exif=exif)
    plain, tag = (tmp_path / "nevus" / "j.jpg").read_bytes(), Image.Exif()
    tag[0x010F] = "a camera"
    payload = tag.tobytes()
    payload = payload if payload.startswith(b"Exif") else b"Exif\0\0" + payload
    (tmp_path / "nevus" / "j tagged.jpg").write_bytes(plain[:2] + b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload + plain[2:])
    with Image.open(tmp_path / "nevus" / "j tagged.jpg") as image:
        assert image.getexif()[0x010F] == "a camera"
    index_ = read_index(tmp_path)
    rows = {row.path: row for row in index_.rows}
    for paths in (["melanoma/a.png", "melanoma/a.bmp", "melanoma/a turned.png"], ["nevus/j.jpg", "nevus/j tagged.jpg"]):
        assert len({rows[path].sha256 for path in paths}) == len(paths) and len({rows[path].pixels for path in paths}) == 1
        assert rows[paths[0]].content in {rows[path].sha256 for path in paths}
    assert all(row.content == "" for path, row in rows.items() if "other" in path)
    selection = select(index_, recipe())
    assert (selection.report["identical_groups"], selection.report["duplicates_dropped"]) == (2, 3)
    assert (selection.report["near_copy_groups"], selection.report["near_copies_dropped"]) == (0, 0)
    assert len(of_copies(selection)) == 2 and all(why.startswith("identical to ") for why in selection.left_out.values())


# --- patients


def test_patients_join_lesions_and_copies_in_chains_and_do_not_change_how_many_lesions_there_are() -> None:
    given_ = index(*[("nevus", "", "", lesion) for lesion in ("L1", "L1", "L2", "L3", "")], *many("melanoma", 3), ("nevus",))
    patients = ("P1", "P1", "P1", "P2", "P2", "", "P2", "", "")
    given_ = replace(given_, rows=tuple(replace(row, patient=patient) for row, patient in zip(given_.rows, patients)))
    together, single = connect(given_), connect(given_, patients=False)
    assert [together.index(group) for group in together] == [0, 0, 0, 3, 3, 5, 3, 7, 8]
    assert [single.index(group) for group in single] == [0, 0, 2, 3, 4, 5, 6, 7, 8]
    selection = select(given_, recipe())
    assert selection.report["lesions_per_class"] == {"melanoma": 3, "nevus": 5} and selection.report["used_groups"] == 5
    assert (selection.report["with_patient_id"], selection.report["with_lesion_id"]) == (6, 6)
    assert selection.lesions == (*["L1|patient P1"] * 2, "L2|patient P1", "L3|patient P2", "patient P2", "", "patient P2", "", "")


def test_a_class_of_few_patients_is_left_out_and_named_however_many_lesions_they_have() -> None:
    """No split could keep them apart, and no min_lesions would say so."""
    given_ = index(*[("nevus", "", "", f"L{number}") for number in range(60)], *many("melanoma", 5), *many("wart", 5))
    given_ = replace(given_, rows=tuple(replace(row, patient=f"P{number % 2}" if number < 60 else "") for number, row in enumerate(given_.rows)))
    selection = select(given_, recipe(min_lesions=3))
    assert selection.classes == ("melanoma", "wart") and selection.report["left_out_classes"] == {"nevus": 60}
    assert selection.left_out["nevus/000.png"] == "class left out: 60 lesions of 2 patients, which no split can keep apart"


def test_group_numbers_do_not_depend_on_pictures_that_are_not_used() -> None:
    plain = [*many("nevus", 3), *many("wart", 3)]
    more = index(("alone",), *plain)
    assert select(index(*plain), recipe()).groups == select(more, recipe()).groups == tuple(range(6))


@pytest.mark.parametrize(
    ("lesion", "patient", "expected"), [("", "", []), ("L1", "", ["L1"]), ("", "P1", ["patient P1"]), ("L1", "P1", ["L1", "patient P1"]), ("P1", "P1", ["P1", "patient P1"])]
)
def test_a_patient_s_id_is_told_from_a_lesion_s(lesion: str, patient: str, expected: list[str]) -> None:
    assert ids_of(Row("a.png", "nevus", sha256="0" * 64, lesion=lesion, patient=patient)) == expected


@given(st.lists(st.tuples(st.sampled_from(["", *"pqrs"]), st.sampled_from(["", *"LMN"]), st.sampled_from(["", *"ABCD"])), min_size=1, max_size=25))
@settings(deadline=None, max_examples=200)
def test_groups_are_exactly_the_chains_of_equal_pixels_lesions_and_patients(pictures: list[tuple[str, str, str]]) -> None:
    given_ = index(*[("nevus", pixels, "", lesion) for pixels, lesion, _ in pictures])
    given_ = replace(given_, rows=tuple(replace(row, patient=patient) for row, (_, _, patient) in zip(given_.rows, pictures)))
    for patients in (True, False):
        chains: list[set] = []
        for number, (pixels, lesion, patient) in enumerate(pictures):
            keys = {number, *((kind, value) for kind, value in (("p", pixels), ("l", lesion), ("a", patient * patients)) if value)}
            chains = [chain for chain in chains if not chain & keys] + [keys.union(*(chain for chain in chains if chain & keys))]
        expected = {frozenset(key for key in chain if isinstance(key, int)) for chain in chains}
        found = connect(given_, patients=patients)
        assert {frozenset(n for n, group in enumerate(found) if group == name) for name in set(found)} == expected
        assert all(group == found.index(group) for group in found), "a group's number is its first position"


# --- what is left


def test_a_class_of_few_lesions_is_left_out_and_named() -> None:
    lesions = [("nevus", f"n{number}", "", f"L{number // 3}") for number in range(9)]
    given_ = index(*many("melanoma", 4), *lesions, *many("wart", 1), *many("angioma", 4))
    selection = select(given_, recipe(min_lesions=4))
    assert selection.classes == ("angioma", "melanoma")
    assert selection.report["left_out_classes"] == {"nevus": 3, "wart": 1}
    assert selection.report["lesions_per_class"] == selection.report["per_class"] == {"angioma": 4, "melanoma": 4}
    assert selection.left_out["wart/013.png"] == "class left out: 1 lesions, min_lesions is 4"
    assert len(selection.left_out) == 10
    assert select(given_, recipe(min_lesions=3)).classes == ("angioma", "melanoma", "nevus")


def test_a_class_that_the_references_empty_is_named_too() -> None:
    given_ = index(*[(SK, "", "melanoma")] * 5, *many("melanoma", 2), *many("nevus", 2))
    selection = select(given_, recipe())
    assert selection.report["left_out_classes"] == {SK: 0} and selection.report["per_class"] == {"melanoma": 7, "nevus": 2}
    assert selection.report["relabelled_by_reference"] == 5


def test_one_class_alone_is_refused() -> None:
    message = refused(index(*many("nevus", 30)))
    assert message == (
        "data leaves 1 usable class (nevus); too small or unresolved: none; expected at least 2 classes of 2 lesions; add pictures or lower min_lesions"
    )
    message = refused(index(*many("nevus", 30), *many("melanoma", 19)), min_lesions=20)
    assert "leaves 1 usable class (nevus); too small or unresolved: melanoma (19 lesions)" in message
    message = refused(index(A, B))
    assert "leaves 0 usable classes; too small or unresolved: melanoma (0 lesions), nevus (0 lesions)" in message


def test_a_positive_class_that_is_not_there_is_refused() -> None:
    given_ = index(*many("nevus", 2), *many("wart", 2), *many("melanoma", 1))
    message = refused(given_, positive_class="melanoma")
    assert message.startswith("the positive class 'melanoma' is not among the usable classes (nevus, wart)")
    assert "--set positive_class=NAME" in message and message.endswith("--set positive_class=")
    assert select(given_, recipe(positive_class="")).classes == ("nevus", "wart")
    assert select(given_, recipe(positive_class="wart")).classes == ("nevus", "wart")


@pytest.mark.parametrize(
    "stated, found",
    [
        ({"nevus": 0.9, "melanoma": 0.1}, "deployment_prior names 'melanoma' and gives no share to 'wart': "),
        ({"nevus": 0.8, "wart": 0.1, "melanoma": 0.1}, "deployment_prior names 'melanoma': "),
        ({"nevus": 0.5, "Wart": 0.5}, "deployment_prior names 'Wart' and gives no share to 'wart': "),
        ({"a\nb": 0.5, "c": 0.5}, r"deployment_prior names 'a\nb', 'c' and gives no share to 'nevus', 'wart': "),
    ],
)
def test_deployment_priors_of_other_classes_are_refused(stated: dict[str, float], found: str) -> None:
    given_ = index(*many("nevus", 2), *many("wart", 2), *many("melanoma", 1))
    message = refused(given_, deployment_prior=stated)
    assert message.startswith(found) and "expected a share for each of the classes (nevus, wart) and no other" in message
    assert select(given_, recipe(deployment_prior={"wart": 0.1, "nevus": 0.9})).classes == ("nevus", "wart")


def test_too_many_unreadable_files_are_refused() -> None:
    pictures = [*many("nevus", 10), *many("melanoma", 9)]
    assert select(index(*pictures, bad=1), recipe(max_bad_share=0.05)).report["unreadable"] == 1
    message = refused(index(*pictures, bad=2), max_bad_share=0.05)
    assert message == (
        "2 of 21 files are unreadable (first: bad/0.png: an empty file): expected at most 5%; remove them or raise max_bad_share"
    )
    assert select(index(*pictures, bad=99), recipe(max_bad_share=1.0)).report["unreadable"] == 99
    assert "1 of 20" in refused(index(*pictures, bad=1), max_bad_share=0.0)


def test_the_order_of_the_classes_is_alphabetical() -> None:
    selection = select(index(*many("wart", 2), *many("Angioma", 2), *many("nevus", 2)), recipe())
    assert selection.classes == ("Angioma", "nevus", "wart")


# --- nothing is lost

LABELS = ("melanoma", "nevus", PBK, SK)
PICTURES = st.tuples(
    st.sampled_from(LABELS),
    st.sampled_from(["", *"pqrstuvw"]),
    st.sampled_from(["", "", "", *LABELS, PARENT, "something else", "NEVUS"]),
    st.sampled_from(["", "", "L1", "L2", "L3"]),
)
RECIPES = st.fixed_dictionaries(
    {
        "conflicts": st.sampled_from(["reference", "drop", "keep"]),
        "duplicates": st.sampled_from(["one", "keep"]),
        "min_lesions": st.integers(2, 4),
        "positive_class": st.sampled_from(["", "", "melanoma"]),
        "max_bad_share": st.sampled_from([0.05, 1.0]),
    }
)


@given(st.lists(PICTURES, max_size=40), st.integers(0, 3), RECIPES)
@settings(deadline=None, max_examples=300)
def test_every_file_is_used_left_out_or_unreadable(pictures: list[tuple[str, ...]], bad: int, keywords: dict) -> None:
    given_ = index(*pictures, bad=bad)
    try:
        selection = select(given_, recipe(**keywords))
    except BadInput as error:
        assert re.search("usable class|unreadable", str(error)) and str(error).isprintable()
        return
    rows, report = selection.rows, selection.report
    used = [row.path for row in rows]
    assert sorted([*used, *selection.left_out]) == sorted(row.path for row in given_.rows)
    assert (report["used"], report["readable"], report["unreadable"]) == (len(rows), len(pictures), bad)
    assert report["used"] + len(selection.left_out) + report["unreadable"] == len(pictures) + bad
    assert len(selection.positions) == len(selection.groups) == len(rows)
    for row, position in zip(rows, selection.positions):
        before = given_.rows[position]
        assert (row.path, row.sha256, row.lesion) == (before.path, before.sha256, before.lesion)
        assert row.label == before.label or keywords["conflicts"] == "reference"
    # What says how many, says it right.
    assert report["per_class"] == {name: sum(row.label == name for row in rows) for name in selection.classes}
    lesions = defaultdict(set)
    for row, group in zip(rows, selection.groups):
        lesions[row.label].add(group)
    assert report["lesions_per_class"] == {name: len(lesions[name]) for name in selection.classes}
    assert report["used_groups"] == len(set(selection.groups))
    assert all(count >= keywords["min_lesions"] for count in report["lesions_per_class"].values())
    assert not set(report["left_out_classes"]) & set(selection.classes) and set(report["left_out_classes"]) | set(selection.classes) >= {
        row.label for row in given_.rows
    }
    # Groups are exactly the chains of equal lesions and equal pixels, through dropped pictures too.
    chains: list[set[str]] = []
    for row in given_.rows:
        keys = {row.path, row.sha256} | ({row.lesion} - {""})
        chains = [chain for chain in chains if not chain & keys] + [keys.union(*(chain for chain in chains if chain & keys))]
    group_of = dict(zip(used, selection.groups))
    found = [{group_of[path] for path in chain if path in group_of} for chain in chains]
    assert all(len(groups) <= 1 for groups in found) and sum(map(len, found)) == len(set(selection.groups))
    if keywords["conflicts"] != "keep":
        by_pixels = defaultdict(set)
        for row in rows:
            by_pixels[row.sha256].add(row.label)
        assert all(len(found) == 1 for found in by_pixels.values()), "identical pictures under two classes"
        assert keywords["duplicates"] == "keep" or len({row.sha256 for row in rows}) == len(rows), "identical pictures are used twice"


def test_a_folder_of_real_files_is_accounted_for_too(tmp_path: Path) -> None:
    """Twelve lesions, one of them under two classes, a copy in another format, and a broken file."""
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (12, 20, 20, 3), np.uint8)
    for number, pixels in enumerate(pictures):
        path = tmp_path / "Train" / ("melanoma", "nevus", "wart")[number % 3] / f"ISIC_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    Image.fromarray(pictures[0]).save(tmp_path / "Train" / "nevus" / "ISIC_0.png")
    Image.fromarray(pictures[1]).save(tmp_path / "Train" / "nevus" / "ISIC_1.bmp")
    (tmp_path / "Train" / "wart" / "broken.jpg").write_bytes(b"")
    (tmp_path / "metadata.csv").write_text("image_id,lesion_id,reference_diagnosis\nISIC_0,L0,melanoma\nISIC_3,L0,melanoma\nISIC_2,,nevus\n")
    selection = select(read_index(tmp_path, metadata=tmp_path / "metadata.csv"), recipe(max_bad_share=0.1))
    assert selection.report == {
        "readable": 14,
        "unreadable": 1,
        "in_no_class_folder": 0,
        "unmapped": {},
        "without_picture": 0,
        "other_licence": {},
        "identical_groups": 2,
        "conflicting_groups": 1,
        "near_copy_groups": 0,
        "near_conflicting_groups": 0,
        "conflicts_dropped": 0,
        "relabelled_by_reference": 2,
        "duplicates_dropped": 2,
        "near_copies_dropped": 0,
        "left_out_classes": {},
        "used": 12,
        "used_groups": 11,
        "with_lesion_id": 2,
        "classes_without_lesion_id": ["nevus", "wart"],
        "with_patient_id": 0,
        "licences": {},
        "attributions": {},
        "groups_under_two_classes": 0,
        "per_class": {"melanoma": 4, "nevus": 5, "wart": 3},
        "lesions_per_class": {"melanoma": 3, "nevus": 5, "wart": 3},
    }
    kept, dropped = sorted(("Train/nevus/ISIC_1.bmp", "Train/nevus/ISIC_1.png"), key=lambda path: hashlib.sha256((tmp_path / path).read_bytes()).hexdigest())
    assert selection.left_out == {"Train/nevus/ISIC_0.png": "identical to Train/melanoma/ISIC_0.png", dropped: f"identical to {kept}"}


def test_a_copy_that_is_dropped_still_says_which_lesion_training_saw() -> None:
    found = index(("melanoma", "a", "", ""), ("melanoma", "a", "", "L1"), ("melanoma", "b", "", "L2"), *[("melanoma",)] * 3, *[("nevus",)] * 4)
    chosen = select(found, recipe(min_lesions=2))
    assert dict(zip(chosen.positions, chosen.lesions))[0] == "L1" and chosen.report["duplicates_dropped"] == 1
    assert chosen.report["with_lesion_id"] == 2 and chosen.report["classes_without_lesion_id"] == ["nevus"]


def test_a_known_diagnosis_contradicts_a_known_class_even_where_no_picture_stands_under_it() -> None:
    given_ = index(("nevus", "", "dermatofibroma"), ("nevus", "", "df"), ("nevus", "", "no such diagnosis"), *FILL)
    assert decided(select(given_, recipe()), 3) == [None, None, "nevus"]


def test_of_classes_of_ones_own_nobody_knows_what_a_known_diagnosis_means() -> None:
    given_ = index(("harmless", "", "melanoma"), ("harmless", "", "nevus"), *many("harmless", 2), *many("see a doctor", 2))
    assert decided(select(given_, recipe()), 2) == ["harmless", "harmless"]
