"""The split: no lesion and no copy on two sides, the same every time, and fair to every class."""

from __future__ import annotations

import hashlib
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
from melanoma_edge.data import copies
from melanoma_edge.data.copies import fingerprints, near_copies, resembling
from melanoma_edge.data.index import Index, Row, read_index
from melanoma_edge.data.policy import Selection, connect, select
from melanoma_edge.data.samples import CLASSES, draw
from melanoma_edge.data.split import PARTS, TEST, TRAIN, VALIDATION, absent_from_test, assign, data_hash, inner_folds, selection_hash, split
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
    rows = tuple(Row(f"{label}/{number}.png", label, sha256=f"{number:064x}") for number, label in enumerate(labels))
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


@given(selections(), st.integers(2, 5), st.integers(2, 5), st.integers(0, 2**31 - 1))
@settings(deadline=None, max_examples=60)
def test_inner_folds_cover_all_but_the_test_part_once_and_the_first_validates(chosen: Selection, folds: int, inner: int, seed: int) -> None:
    asked = recipe(folds=folds, validation_folds=inner, seed=seed)
    try:
        parts = split(chosen, asked)
    except BadInput:
        assume(False)
    found = inner_folds(chosen, asked)
    assert np.array_equal(found == -1, parts == TEST) and np.array_equal(found == 0, parts == VALIDATION)
    assert found.max() < inner
    sides = {}
    for group, fold in zip(chosen.groups, found):
        assert sides.setdefault(group, fold) == fold, "a group stands in two inner folds"


def test_the_validation_part_is_one_of_as_many_as_the_recipe_says_and_the_test_part_stays() -> None:
    chosen = selection(["a", "b"] * 200)
    parts = {number: split(chosen, recipe(validation_folds=number)) for number in (2, 5, 10)}
    for number, found in parts.items():
        assert abs((found == VALIDATION).sum() - 320 / number) <= 2
        assert np.array_equal(found == TEST, parts[5] == TEST)
    assert np.array_equal(parts[5], split(chosen, recipe())), "not as many as folds where nothing is said"
    assert recipe(folds=3).validation_folds == 3


@given(selections(), st.integers(2, 6), st.integers(0, 2**31 - 1))
@settings(deadline=None, max_examples=60)
def test_a_single_fold_holds_nothing_back_but_the_validation_part(chosen: Selection, inner: int, seed: int) -> None:
    asked = recipe(folds=1, validation_folds=inner, seed=seed)
    try:
        parts = split(chosen, asked)
    except BadInput as error:
        assert str(error).isprintable() and "lesion" in str(error) and "folds" not in str(error)
        assume(False)
    assert set(parts) == {TRAIN, VALIDATION} and absent_from_test(chosen, parts) == []
    assert not {group for group, part in zip(chosen.groups, parts) if part == TRAIN} & {group for group, part in zip(chosen.groups, parts) if part == VALIDATION}
    assert all(all(counts(chosen, parts)[part].values()) for part in (TRAIN, VALIDATION))
    assert np.array_equal(inner_folds(chosen, asked) == 0, parts == VALIDATION) and inner_folds(chosen, asked).min() == 0


def test_the_parts_depend_on_seed_and_fold_and_not_on_anything_else_in_the_recipe() -> None:
    chosen = selection(["a", "b", "c"] * 20)
    parts = split(chosen, recipe())
    assert np.array_equal(parts, split(chosen, recipe(epochs=3, samples_per_class=9, image_size=64)))
    assert not np.array_equal(parts, split(chosen, recipe(seed=8)))
    assert not np.array_equal(parts, split(chosen, recipe(fold=1)))


@given(selections(), st.integers(2, 4), st.integers(0, 2**31 - 1))
@settings(deadline=None, max_examples=60)
def test_neither_order_nor_names_nor_numbers_of_groups_decide(chosen: Selection, folds: int, seed: int) -> None:
    """As after files were renamed, or listed in another order: what they hold stands where it stood."""
    count = len(chosen.rows)
    generator = np.random.default_rng(seed)
    order, numbers = generator.permutation(count).tolist(), generator.permutation(10_000).tolist()
    rows = tuple(replace(chosen.rows[i], path=f"elsewhere/{numbers[i]}.jpg") for i in order)
    other = replace(chosen, rows=rows, positions=tuple(range(count)), groups=tuple(numbers[chosen.groups[i]] for i in order))
    asked = recipe(folds=folds, fold=seed % folds, seed=seed)
    try:
        parts = split(chosen, asked)
    except BadInput as error:
        assert refused(other, folds=folds, fold=seed % folds, seed=seed) == str(error)
    else:
        assert np.array_equal(parts[order], split(other, asked))
    assert selection_hash(other) == selection_hash(chosen)


def test_a_data_set_that_moved_and_was_renamed_is_split_as_before(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    where: list[dict[str, str]] = []
    names = [f"{number:02}" for number in range(36)]
    pictures = {name: draw(CLASSES[number % 3], 48, (12, number)) for number, name in enumerate(names)}
    for root, shown in (("first", names), ("second", random.permutation(names))):
        new_name = dict(zip(names, shown))
        for number, name in enumerate(names):
            save(tmp_path / root / CLASSES[number % 3] / f"{new_name[name]}.png", pictures[name])
            if number < 6:  # another photograph of the same size that is a copy, and one of the same pixels
                copy = pictures[name].copy()
                copy[0, 0] ^= 8
                save(tmp_path / root / CLASSES[number % 3] / f"{new_name[name]} copy.png", copy)
                save(tmp_path / root / CLASSES[number % 3] / f"{new_name[name]} same.bmp", pictures[name])
        chosen = select(read_index(tmp_path / root), recipe(min_lesions=3))
        assert len(chosen.rows) == 36 and chosen.report["duplicates_dropped"] + chosen.report["near_copies_dropped"] == 12
        where.append({row.sha256: part for row, part in zip(chosen.rows, split(chosen, recipe()))})
    assert where[0] == where[1]


def test_the_folds_are_the_same_on_every_machine() -> None:
    """Integers and hashes only: no random generator and no rounding whose next version could decide otherwise."""
    chosen = selection(["a", "b", "b"] * 30, [number // 2 for number in range(90)])
    drawn = "".join({TRAIN: "-", VALIDATION: "v", TEST: "t"}[part] for part in split(chosen, recipe(seed=1)))
    assert drawn == "vv--tt--------vv------vv----vv--tt----vv--ttvvtttttttt--tt------vvvv----tt----------------"


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


# --- how close shares are


@st.composite
def pictures_in_groups(draw_: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels and groups: most groups of one class, some of several, as patients are; any order."""
    labels, groups = [], []
    for group in range(draw_(st.integers(1, 40))):
        own = draw_(st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True)) if draw_(st.integers(0, 4)) == 0 else [draw_(st.integers(0, 3))]
        for _ in range(draw_(st.integers(len(own), 9))):
            labels.append(draw_(st.sampled_from(own)))
            groups.append(group)
    order = draw_(st.permutations(range(len(labels))))
    return np.array(labels)[order], np.array(groups)[order]


@given(pictures_in_groups(), st.integers(2, 8), st.booleans(), st.integers(0, 99))
@settings(deadline=None, max_examples=300)
def test_no_two_folds_differ_by_more_than_the_bound(drawn: tuple[np.ndarray, np.ndarray], folds: int, first: bool, seed: int) -> None:
    labels, groups = drawn
    fold_of = assign(labels, groups, [f"{group}" for group in range(groups.max() + 1)], folds, str(seed), first_fold_first=first)
    assert all(len(set(fold_of[groups == group])) == 1 for group in set(groups)), "a group stands in two folds"
    several = {group for group in groups if len(set(labels[groups == group])) > 1}
    mixed = np.isin(groups, list(several))
    for label in set(labels):
        of_class = labels == label
        held = np.bincount(fold_of[of_class], minlength=folds)
        alone = max((np.sum(groups == group) for group in set(groups[of_class]) - several), default=0)
        assert held.max() - held.min() <= max(alone, np.sum(of_class & mixed))
    if not first and len(set(groups)) >= folds:
        assert np.bincount(fold_of, minlength=folds).min() >= 1
    if first:  # the validation part holds every class that has a group of its own
        assert set(labels[~mixed]) <= set(labels[fold_of == 0])


def test_the_shares_are_as_even_as_those_of_scikit_learn() -> None:
    """Patients with several lesions of several classes, a few of them with very many pictures."""
    from sklearn.model_selection import StratifiedGroupKFold

    ours, theirs = [], []
    for seed in range(5):
        generator = np.random.default_rng(seed)
        sizes = np.ceil(generator.pareto(1.5, 150) + 0.5).astype(int).clip(1, 40)
        groups = np.repeat(np.arange(150), sizes)
        liked = generator.dirichlet([0.3] * 6, 150) * [0.5, 0.2, 0.15, 0.1, 0.03, 0.02]
        labels = np.array([generator.choice(6, p=liked[group] / liked[group].sum()) for group in groups])
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        other = np.zeros(len(labels), int)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for fold, (_, held) in enumerate(splitter.split(labels, labels, groups)):
                other[held] = fold
        for fold_of, found in ((assign(labels, groups, [str(group) for group in range(150)], 5, str(seed)), ours), (other, theirs)):
            shares = np.stack([np.bincount(labels[fold_of == fold], minlength=6) for fold in range(5)]) / np.bincount(labels, minlength=6)
            found.append(shares.std(axis=0).mean())
    assert np.mean(ours) <= 1.1 * np.mean(theirs), (ours, theirs)


def test_lesions_of_a_patient_stay_together() -> None:
    """Forty patients of three lesions each, in different classes and with two photographs of some."""
    rows = []
    for patient in range(40):
        for lesion in range(3):
            for photograph in range(1 + (patient + lesion) % 2):
                label = ("melanoma", "nevus", "wart")[(patient + lesion) % 3 if patient % 4 else 0]
                name = f"{patient}-{lesion}-{photograph}"
                rows.append(Row(f"{label}/{name}.png", label, sha256=hashlib.sha256(name.encode()).hexdigest(), lesion=f"L{patient}-{lesion}", patient=f"P{patient}"))
    index = Index(Path("data"), tuple(rows), (), np.zeros((len(rows), 16, 16), np.uint8), None)
    chosen = select(index, recipe(min_lesions=3))
    assert len(set(chosen.groups)) == 40 and chosen.report["lesions_per_class"]["melanoma"] == 30 + 30
    tested = Counter()
    for fold in range(5):
        parts = split(chosen, recipe(fold=fold))
        sides = {(row.patient, part) for row, part in zip(chosen.rows, parts)}
        assert len(sides) == 40
        tested.update(patient for patient, part in sides if part == TEST)
        found = counts(chosen, parts)
        for name in chosen.classes:
            assert abs(found[TEST][name] / chosen.report["per_class"][name] - 0.2) < 0.08
    assert set(tested.values()) == {1} and len(tested) == 40


def test_too_few_patients_are_not_called_lesions() -> None:
    rows = [Row(f"{n}.png", "ab"[n % 2], sha256=f"{n:064x}", patient=f"P{n // 4}") for n in range(20)]
    index = Index(Path("data"), tuple(rows), (), np.zeros((20, 16, 16), np.uint8), None)
    message = refused(select(index, recipe(min_lesions=2)), folds=8)
    assert message == "there are 5 patients or lesions for 8 folds: add pictures or lower folds"


# --- too little


@pytest.mark.parametrize("per_class, classes, folds", [(3, 3, 3), (4, 3, 4), (5, 2, 5), (6, 2, 5), (6, 2, 6), (10, 4, 10), (7, 2, 4)])
def test_a_set_of_few_lesions_is_split_all_the_same(per_class: int, classes: int, folds: int) -> None:
    chosen = selection([f"class {number}" for number in range(classes)] * per_class)
    for fold in range(folds):
        found = counts(chosen, split(chosen, recipe(folds=folds, fold=fold)))
        assert all(min(found[part].values()) >= 1 for part in (TRAIN, VALIDATION)), found
        assert sum(found[TEST].values()) >= 1


@pytest.mark.parametrize("rare", [3, 4, 5, 7])
@pytest.mark.parametrize("seed", range(4))
def test_a_rare_class_is_learnt_and_validated_in_every_fold_and_its_absence_from_tests_is_known(rare: int, seed: int) -> None:
    chosen = selection(["common"] * 60 + ["rare"] * rare)
    without = 0
    for fold in range(5):
        parts = split(chosen, recipe(fold=fold, seed=seed))
        found = counts(chosen, parts)
        assert found[TRAIN]["rare"] >= 1 and found[VALIDATION]["rare"] >= 1
        assert absent_from_test(chosen, parts) == ["rare"] * (found[TEST]["rare"] == 0)
        without += found[TEST]["rare"] == 0
    assert without == max(0, 5 - rare)


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


def pairs(thumbnails: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs of near copies that connect them."""
    return [tuple(pair) for pair in near_copies(thumbnails).pairs.tolist()]


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
    chosen = select(index, recipe(min_lesions=3, duplicates="keep"))
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
    marks = dict(zip(stems, fingerprints(index.thumbnails, index.wholes)))
    assert all(re.fullmatch("[0-9a-f]{128}", mark) for mark in marks.values())
    for stem in marks:
        found = resembling(index.thumbnails, index.wholes, [*marks[stem].split("|"), "no fingerprint", "a1" * 63, "g" * 128])
        assert {other for other, alike in zip(stems, found) if alike} == {other for other in stems if other[:2] == stem[:2]}
    assert not resembling(index.thumbnails, index.wholes, []).any() and resembling(index.thumbnails[:0], index.wholes[:0], marks.values()).shape == (0,)


def test_flat_pictures_resemble_nothing() -> None:
    flat = np.full((2, 16, 16), 100, np.uint8)
    assert not resembling(flat, flat, fingerprints(flat, flat)).any()


def test_near_copies_under_two_classes_are_counted(copied: Path) -> None:
    index = read_index(copied)
    rows = tuple(replace(row, label=CLASSES[1] if row.path.endswith("03 copy.png") else row.label) for row in index.rows)
    kept = recipe(min_lesions=3, conflicts="keep")
    before, after = (select(replace(index, rows=given_), kept).report for given_ in (index.rows, rows))
    assert (before["groups_under_two_classes"], after["groups_under_two_classes"]) == (0, 1)
    assert (before["near_conflicting_groups"], after["near_conflicting_groups"]) == (0, 1)


@pytest.mark.parametrize("name", CLASSES)
def test_drawn_lesions_of_one_class_are_no_copies_of_each_other(name: str) -> None:
    thumbnails = np.stack([resized(draw(name, 64, (5, number)), 16).mean(axis=2).round().astype(np.uint8) for number in range(24)])
    assert pairs(thumbnails) == []


def test_flat_pictures_are_no_copies_of_each_other() -> None:
    thumbnails = np.stack([np.full((16, 16), grey, np.uint8) for grey in (0, 0, 1, 100, 255)])
    assert pairs(thumbnails) == [] and pairs(thumbnails[:0]) == []


@given(st.integers(0, 10_000), st.integers(0, 7))
@settings(deadline=None, max_examples=40)
def test_copies_are_found_in_all_eight_orientations_and_each_pair_once(seed: int, orientation: int) -> None:
    generator = np.random.default_rng(seed)
    thumbnails = generator.integers(0, 256, (6, 16, 16), np.uint8)
    turned = np.rot90(thumbnails[1], orientation % 4)
    thumbnails[4] = turned if orientation < 4 else turned[:, ::-1]
    assert pairs(thumbnails) == [(1, 4)]


def test_pictures_beyond_one_chunk_are_compared_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "CHUNK", 4)
    monkeypatch.setattr(copies, "VERIFIED_AT_ONCE", 1)
    thumbnails = np.random.default_rng(0).integers(0, 256, (11, 16, 16), np.uint8)
    thumbnails[10], thumbnails[7] = thumbnails[0], thumbnails[6][:, ::-1]
    assert pairs(thumbnails) == [(0, 10), (6, 7)]


def test_a_small_difference_is_a_copy_and_a_larger_one_is_not() -> None:
    """The correlation alone would join them all: lesions are dark in the middle."""
    rise = np.tile(np.arange(16, dtype=np.uint8) * 10, (16, 1))
    assert pairs(np.stack([rise, rise + 1])) == [(0, 1)]
    assert pairs(np.stack([rise, rise + 3])) == []
