"""The split: no lesion and no copy on two sides, the same every time, and fair to every class."""

from __future__ import annotations

import io
import re
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from melanoma_edge.contract import Recipe
from melanoma_edge.data.copies import fingerprints, near_copies, resembling
from melanoma_edge.data.index import Row, read_index
from melanoma_edge.data.policy import Selection, connect, select
from melanoma_edge.data.samples import CLASSES, draw
from melanoma_edge.data.split import PARTS, TEST, TRAIN, VALIDATION, data_hash, split
from melanoma_edge.errors import BadInput


@pytest.fixture(autouse=True)
def _no_warnings():
    """A warning would stand in the middle of a command's output."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def recipe(**keywords: object) -> Recipe:
    return Recipe(name="test", positive_class="", **keywords)


def selection(labels: list[str], groups: list[int] | None = None) -> Selection:
    """Return a selection of pictures with these labels and groups (each its own where left out)."""
    groups = list(range(len(labels))) if groups is None else groups
    rows = tuple(Row(f"{label}/{number}.png", label, f"{number:064x}", "", "") for number, label in enumerate(labels))
    return Selection(rows, tuple(range(len(rows))), tuple(groups), tuple(sorted(set(labels))))


def counts(chosen: Selection, parts: np.ndarray) -> dict[str, dict[str, int]]:
    """Return the pictures of each class in each part."""
    return {part: {name: sum(row.label == name for row, p in zip(chosen.rows, parts) if p == part) for name in chosen.classes} for part in PARTS}


def refused(chosen: Selection, **keywords: object) -> str:
    with pytest.raises(BadInput) as caught:
        split(chosen, recipe(**keywords))
    assert str(caught.value).isprintable()
    return str(caught.value)


@st.composite
def selections(draw_: st.DrawFn) -> Selection:
    """Groups of one to five pictures each, mostly of one class, some of two."""
    classes = [f"class {number}" for number in range(draw_(st.integers(2, 4)))]
    sizes = st.lists(st.integers(1, 5), min_size=3, max_size=14)
    labels, groups, group = [], [], 0
    for name in classes:
        for size in draw_(sizes):
            for _ in range(size):
                labels.append(name if draw_(st.integers(0, 30)) else draw_(st.sampled_from(classes)))
                groups.append(group)
            group += 1
    order = draw_(st.randoms(use_true_random=False)).sample(range(len(labels)), len(labels))
    return selection([labels[i] for i in order], [groups[i] * 7 + 3 for i in order])


@given(selections(), st.integers(2, 6), st.integers(0, 2**31 - 1))
@settings(deadline=None, max_examples=80)
def test_parts_share_no_group_and_folds_cover_everything_once(chosen: Selection, folds: int, seed: int) -> None:
    tested = np.zeros(len(chosen.rows), int)
    for fold in range(folds):
        asked = recipe(folds=folds, fold=fold, seed=seed)
        try:
            parts = split(chosen, asked)
        except BadInput as error:
            assert str(error).isprintable() and ("lesion" in str(error) or "pictures" in str(error))
            assume(False)
        assert parts.shape == (len(chosen.rows),) and set(parts) <= set(PARTS)
        sides = {}
        for group, part in zip(chosen.groups, parts):
            assert sides.setdefault(group, part) == part, "a group stands in two parts"
        for part in (TRAIN, VALIDATION):
            assert all(counts(chosen, parts)[part].values()), f"a class is missing in {part}"
        assert np.array_equal(parts, split(chosen, asked)), "the same seed gives another split"
        tested += parts == TEST
    assert (tested == 1).all(), "the test parts of all folds are not everything once"


def test_the_parts_depend_on_seed_and_fold_and_not_on_anything_else_in_the_recipe() -> None:
    chosen = selection(["a", "b", "c"] * 20)
    parts = split(chosen, recipe())
    assert np.array_equal(parts, split(chosen, recipe(epochs=3, samples_per_class=9, image_size=64)))
    assert not np.array_equal(parts, split(chosen, recipe(seed=8)))
    assert not np.array_equal(parts, split(chosen, recipe(fold=1)))


@given(st.randoms(use_true_random=False), st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_the_order_of_the_pictures_does_not_matter(random, seed: int) -> None:
    generator = np.random.default_rng(seed)
    groups = generator.integers(0, 40, 90)
    chosen = selection([f"class {group % 3}" for group in groups], groups.tolist())
    order = random.sample(range(90), 90)
    shuffled = Selection(tuple(chosen.rows[i] for i in order), tuple(order), tuple(chosen.groups[i] for i in order), chosen.classes)
    assert np.array_equal(split(chosen, recipe())[order], split(shuffled, recipe()))


@pytest.mark.parametrize("folds", [2, 3, 5, 10])
def test_every_class_has_its_share_of_every_part(folds: int) -> None:
    """Single pictures, so nothing stands in the way: 1 / folds tests, and that share of the rest validates."""
    sizes = {"common": 200, "rare": 40, "middling": 90}
    chosen = selection([name for name, size in sizes.items() for _ in range(size)])
    for fold in range(folds):
        found = counts(chosen, split(chosen, recipe(folds=folds, fold=fold)))
        for name, size in sizes.items():
            assert abs(found[TEST][name] - size / folds) <= 2
            assert abs(found[VALIDATION][name] - (size - size / folds) / folds) <= 2
            assert sum(found[part][name] for part in PARTS) == size


def test_shares_stay_close_where_lesions_have_several_pictures() -> None:
    generator = np.random.default_rng(3)
    labels, groups = [], []
    for group in range(300):
        for _ in range(generator.integers(1, 6)):
            labels.append(f"class {group % 3}")
            groups.append(group)
    chosen = selection(labels, groups)
    total = Counter(labels)
    for fold in range(5):
        found = counts(chosen, split(chosen, recipe(fold=fold)))
        for name in chosen.classes:
            assert abs(found[TEST][name] / total[name] - 0.2) < 0.04
            assert abs(found[VALIDATION][name] / total[name] - 0.16) < 0.04


# --- too little


@pytest.mark.parametrize("per_class, classes, folds", [(3, 3, 3), (4, 3, 4), (5, 2, 5), (6, 2, 5), (6, 2, 6), (10, 4, 10), (7, 2, 4)])
def test_a_set_of_few_lesions_is_split_all_the_same(per_class: int, classes: int, folds: int) -> None:
    chosen = selection([f"class {number}" for number in range(classes)] * per_class)
    for fold in range(folds):
        found = counts(chosen, split(chosen, recipe(folds=folds, fold=fold)))
        assert all(min(found[part].values()) >= 1 for part in (TRAIN, VALIDATION)), found
        assert sum(found[TEST].values()) >= 1


def test_a_class_of_fewer_than_three_lesions_is_refused() -> None:
    message = refused(selection(["a"] * 30 + ["b"] * 9, [*range(30), *[30] * 5, *[31] * 4]))
    assert message == (
        "class 'b' has 2 lesions: expected at least 3 (one for each part); add pictures or raise min_lesions to leave it out"
    )
    assert "class 'b' has 1 lesion: " in refused(selection(["a"] * 30 + ["b"]))


def test_fewer_lesions_than_folds_are_refused() -> None:
    assert refused(selection(["a", "b"] * 3), folds=7) == "there are 6 lesions for 7 folds: add pictures or lower folds"
    assert "add pictures or lower folds" in refused(selection(["a", "b"] * 4), folds=5)
    assert "add pictures or lower folds" in refused(selection(["a", "b", "c"] * 8), folds=20)


def test_a_part_that_would_lack_a_class_is_refused() -> None:
    message = refused(selection(["a", "a", "a", "b", "b", "b"]), folds=2)
    assert "part would hold no " in message and "too few lesions for 2 folds; add pictures, lower folds or raise min_lesions" in message


@given(st.lists(st.integers(1, 6), min_size=2, max_size=4), st.integers(2, 20), st.integers(0, 50))
@settings(deadline=None, max_examples=60)
def test_the_smallest_sets_are_split_or_refused_in_one_line(sizes: list[int], folds: int, seed: int) -> None:
    chosen = selection([f"class {number}" for number, size in enumerate(sizes) for _ in range(size)])
    try:
        parts = split(chosen, recipe(folds=folds, fold=seed % folds, seed=seed))
    except BadInput as error:
        assert str(error).isprintable() and "add pictures" in str(error)
    else:
        found = counts(chosen, parts)
        assert all(min(found[part].values()) >= 1 for part in (TRAIN, VALIDATION))


# --- the hash of the data


def test_the_hash_says_which_pictures_stand_where() -> None:
    chosen = selection(["a", "b"] * 10)
    parts = split(chosen, recipe())
    sha256 = data_hash(chosen, parts)
    assert len(sha256) == 64
    order = list(reversed(range(20)))
    renamed = replace(chosen, rows=tuple(replace(chosen.rows[i], path=f"new name {i}") for i in order))
    assert data_hash(renamed, parts[order]) == sha256, "file names and their order do not count"
    other = parts.copy()
    other[np.flatnonzero(parts == TRAIN)[0]] = TEST
    assert data_hash(chosen, other) != sha256
    for change in ({"label": "b"}, {"sha256": "f" * 64}):
        rows = (replace(chosen.rows[0], **change), *chosen.rows[1:])
        assert data_hash(replace(chosen, rows=rows), parts) != sha256


# --- copies that are not identical


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def resized(pixels: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((size, size)))


COPIES = {
    "re-encoded": lambda pixels: jpeg(pixels, 50),
    "reduced": lambda pixels: resized(pixels, 48),
    "enlarged": lambda pixels: resized(pixels, 131),
    "mirrored": lambda pixels: pixels[:, ::-1],
    "upside down": lambda pixels: pixels[::-1],
    "turned left": lambda pixels: np.rot90(pixels, 1),
    "turned round": lambda pixels: np.rot90(pixels, 2),
    "turned right": lambda pixels: np.rot90(pixels, 3),
    "transposed": lambda pixels: pixels.transpose(1, 0, 2),
    "transposed the other way": lambda pixels: np.rot90(pixels.transpose(1, 0, 2), 2),
    "all of it": lambda pixels: jpeg(np.ascontiguousarray(np.rot90(resized(pixels, 64)[:, ::-1])), 70),
}


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of 36 drawn lesions in three classes, and for some of them a copy that is not identical."""
    root = tmp_path_factory.mktemp("copied")
    kinds = list(COPIES)
    for number in range(36):
        name = CLASSES[number % 3]
        pixels = draw(name, 96, (11, number))
        save(root / name / f"{number:02}.png", pixels)
        if number < 2 * len(kinds):
            save(root / name / f"{number:02} copy.png", COPIES[kinds[number % len(kinds)]](pixels))
    return root


def test_copies_in_any_shape_share_a_part_and_different_lesions_do_not_share_a_group(copied: Path) -> None:
    index = read_index(copied)
    chosen = select(index, recipe(min_lesions=3))
    groups = {Path(row.path).stem: group for row, group in zip(chosen.rows, chosen.groups)}
    assert len(groups) == 36 + 2 * len(COPIES)
    for stem, group in groups.items():
        assert group == groups[stem.removesuffix(" copy")], f"{list(COPIES)[int(stem[:2]) % len(COPIES)]}: not seen as a copy"
    assert len(set(groups.values())) == 36, "different lesions were joined"
    for fold in range(3):
        parts = {Path(row.path).stem: part for row, part in zip(chosen.rows, split(chosen, recipe(folds=3, fold=fold)))}
        assert all(part == parts[stem.removesuffix(" copy")] for stem, part in parts.items())


def test_copies_join_what_is_one_lesion_further_on(copied: Path) -> None:
    index = read_index(copied)
    stems = [Path(row.path).stem for row in index.rows]
    rows = tuple(replace(row, lesion={"00 copy": "L", "35": "L"}.get(stem, "")) for row, stem in zip(index.rows, stems))
    groups = connect(replace(index, rows=rows))
    assert groups[stems.index("00")] == groups[stems.index("35")] != groups[stems.index("34")]


def test_a_copy_in_any_shape_is_known_by_the_fingerprint(copied: Path) -> None:
    index = read_index(copied)
    stems = [Path(row.path).stem for row in index.rows]
    marks = dict(zip(stems, fingerprints(index.thumbnails)))
    assert all(re.fullmatch("[0-9a-f]{64}", mark) for mark in marks.values())
    for stem in marks:
        found = resembling(index.thumbnails, [marks[stem], "no fingerprint", "a1" * 31, "g" * 64])
        assert {other for other, alike in zip(stems, found) if alike} == {other for other in stems if other[:2] == stem[:2]}
    assert not resembling(index.thumbnails, []).any() and resembling(index.thumbnails[:0], marks.values()).shape == (0,)


def test_flat_pictures_resemble_nothing() -> None:
    flat = np.full((2, 16, 16), 100, np.uint8)
    assert not resembling(flat, fingerprints(flat)).any()


def test_near_copies_under_two_classes_are_counted(copied: Path) -> None:
    index = read_index(copied)
    rows = tuple(replace(row, label=CLASSES[1] if row.path.endswith("03 copy.png") else row.label) for row in index.rows)
    before, after = (select(replace(index, rows=given_), recipe(min_lesions=3)).report["groups_under_two_classes"] for given_ in (index.rows, rows))
    assert (before, after) == (0, 1)


@pytest.mark.parametrize("name", CLASSES)
def test_drawn_lesions_of_one_class_are_no_copies_of_each_other(name: str) -> None:
    thumbnails = np.stack([resized(draw(name, 64, (5, number)), 16).mean(axis=2).round().astype(np.uint8) for number in range(24)])
    assert list(near_copies(thumbnails)) == []


def test_flat_pictures_are_no_copies_of_each_other() -> None:
    thumbnails = np.stack([np.full((16, 16), grey, np.uint8) for grey in (0, 0, 1, 100, 255)])
    assert list(near_copies(thumbnails)) == [] and list(near_copies(thumbnails[:0])) == []


@given(st.integers(0, 10_000), st.integers(0, 7))
@settings(deadline=None, max_examples=40)
def test_copies_are_found_in_all_eight_orientations_and_each_pair_once(seed: int, orientation: int) -> None:
    generator = np.random.default_rng(seed)
    thumbnails = generator.integers(0, 256, (6, 16, 16), np.uint8)
    turned = np.rot90(thumbnails[1], orientation % 4)
    thumbnails[4] = turned if orientation < 4 else turned[:, ::-1]
    assert list(near_copies(thumbnails)) == [(1, 4)]


def test_pictures_beyond_one_block_are_compared_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("melanoma_edge.data.copies.BLOCK", 4)
    thumbnails = np.random.default_rng(0).integers(0, 256, (11, 16, 16), np.uint8)
    thumbnails[10], thumbnails[7] = thumbnails[0], thumbnails[6][:, ::-1]
    assert set(near_copies(thumbnails)) == {(0, 10), (6, 7)}


def test_a_small_difference_is_a_copy_and_a_larger_one_is_not() -> None:
    """The correlation alone would join them all: lesions are dark in the middle."""
    rise = np.tile(np.arange(16, dtype=np.uint8) * 10, (16, 1))
    assert list(near_copies(np.stack([rise, rise + 3]))) == [(0, 1)]
    assert list(near_copies(np.stack([rise, rise + 4]))) == []
