"""The data policy and the split on the real nine-class set, where people have it."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from melanoma_edge import recipes
from melanoma_edge.data.index import Index, read_index
from melanoma_edge.data.policy import Selection, select
from melanoma_edge.data.split import PARTS, TEST, split

VARIABLE = "MELANOMA_EDGE_ISIC9"
FOLDER = Path(os.environ.get(VARIABLE) or Path(__file__).parent.parent.parent / "shared" / "data" / "isic9")

pytestmark = pytest.mark.skipif(
    not (FOLDER / "metadata.csv").is_file(), reason=f"the nine-class ISIC set is not at {FOLDER}: name its folder in {VARIABLE}"
)

SEBORRHEIC = "seborrheic keratosis"


@pytest.fixture(scope="module")
def index() -> Index:
    return read_index(FOLDER, metadata=FOLDER / "metadata.csv")


@pytest.fixture(scope="module")
def selection(index: Index) -> Selection:
    return select(index, recipes.load("default"))


def test_every_picture_is_readable(index: Index) -> None:
    assert len(index.rows) == 1931 and index.bad == ()
    assert len({row.label for row in index.rows}) == 9
    assert {row.path.split("/")[0] for row in index.rows} == {"Train", "Test"}
    assert sum(bool(row.reference) for row in index.rows) > 1500 and sum(bool(row.lesion) for row in index.rows) > 500


def test_identical_pictures_stand_under_two_classes(index: Index, selection: Selection) -> None:
    labels = defaultdict(list)
    for row in index.rows:
        labels[row.sha256].append(row.label)
    groups = [found for found in labels.values() if len(found) > 1]
    assert len(groups) == 158 == selection.report["identical_groups"]
    assert sum(len(set(found)) > 1 for found in groups) == 155 == selection.report["conflicting_groups"]


def test_eight_classes_are_left(index: Index, selection: Selection) -> None:
    assert len(selection.classes) == 8 and SEBORRHEIC not in selection.classes
    assert set(selection.report["left_out_classes"]) == {SEBORRHEIC}
    assert {row.label for row in index.rows} == {*selection.classes, SEBORRHEIC}
    assert min(selection.report["lesions_per_class"].values()) >= 20
    assert Counter(row.label for row in selection.rows) == selection.report["per_class"]


def test_every_file_is_accounted_for(index: Index, selection: Selection) -> None:
    used = [row.path for row in selection.rows]
    assert sorted([*used, *selection.left_out]) == sorted(row.path for row in index.rows)
    assert len({row.sha256 for row in selection.rows}) == len(used), "identical pictures are used twice"


def test_the_reference_is_never_contradicted(selection: Selection) -> None:
    for row in selection.rows:
        reference = row.reference.lower()
        if reference == "benign keratosis":
            assert row.label == "pigmented benign keratosis"
        elif reference in selection.classes:
            assert row.label == reference


def test_no_lesion_and_no_pixels_stand_in_two_parts_of_any_fold(selection: Selection) -> None:
    recipe = recipes.load("default")
    tested = np.zeros(len(selection.rows), int)
    for fold in range(recipe.folds):
        parts = split(selection, recipe.model_copy(update={"fold": fold}))
        sides = defaultdict(set)
        for row, group, part in zip(selection.rows, selection.groups, parts):
            for key in (("pixels", row.sha256), ("group", group), *([("lesion", row.lesion)] if row.lesion else [])):
                sides[key].add(part)
        assert all(len(found) == 1 for found in sides.values())
        for part in PARTS:
            assert {row.label for row, found in zip(selection.rows, parts) if found == part} == set(selection.classes)
        tested += parts == TEST
    assert (tested == 1).all()
