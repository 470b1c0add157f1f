"""The drawn set: what it holds, that it is reproducible, and that it is written whole or not at all."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from melanoma_edge.data.samples import CLASSES, draw, write_samples
from melanoma_edge.errors import BadInput

PER_CLASS, SIZE = 8, 48


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, dict[str, int], list[tuple[int, int]]]:
    """A small set, the counts that were returned and the progress that was reported."""
    out = tmp_path_factory.mktemp("samples") / "set"
    steps: list[tuple[int, int]] = []
    counts = write_samples(out, per_class=PER_CLASS, size=SIZE, seed=3, progress=lambda done, total: steps.append((done, total)))
    return out, counts, steps


@pytest.fixture(scope="module")
def rows(written) -> list[dict[str, str]]:
    with open(written[0] / "metadata.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of all files below `folder`."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def pixels(folder: Path, row: dict[str, str]) -> np.ndarray:
    return np.asarray(Image.open(folder / row["reference_diagnosis"] / f"{row['image_id']}.png"))


def test_the_nine_classes():
    assert CLASSES == (
        "actinic keratosis",
        "basal cell carcinoma",
        "dermatofibroma",
        "melanoma",
        "nevus",
        "pigmented benign keratosis",
        "seborrheic keratosis",
        "squamous cell carcinoma",
        "vascular lesion",
    )


@pytest.mark.parametrize("name", CLASSES)
def test_a_picture_is_decided_by_its_arguments(name):
    picture = draw(name, 64, (5, 1))
    assert picture.dtype == np.uint8 and picture.shape == (64, 64, 3)
    assert picture.std() > 5
    state = np.random.get_state()[1].copy()
    assert np.array_equal(picture, draw(name, 64, (5, 1)))
    assert np.array_equal(state, np.random.get_state()[1]), "the global generator was used"
    assert not np.array_equal(picture, draw(name, 64, (5, 2)))
    assert not np.array_equal(picture, draw(name, 64, (5, 1), photograph=1))


@pytest.mark.parametrize("size", [32, 33, 250, 1024])
def test_every_size_in_range_is_drawn(size):
    assert draw("melanoma", size, 1).shape == (size, size, 3)


def test_a_lesion_looks_alike_at_any_size():
    small, large = (np.asarray(Image.fromarray(draw("nevus", size, 11)).resize((24, 24), Image.Resampling.BOX), int) for size in (96, 192))
    assert np.abs(small - large).mean() < 4


def test_classes_draw_different_lesions_from_one_seed():
    assert len({draw(name, 32, 1).tobytes() for name in CLASSES}) == len(CLASSES)


def test_files_are_rgb_pngs_of_the_size_asked_for(written):
    out = written[0]
    assert sorted(path.name for path in out.iterdir()) == sorted([*CLASSES, "README.txt", "metadata.csv"])
    for name in CLASSES:
        files = list((out / name).iterdir())
        assert len(files) == PER_CLASS
        for file in files:
            with Image.open(file) as image:
                assert (image.format, image.mode, image.size) == ("PNG", "RGB", (SIZE, SIZE))


def test_every_file_has_a_row_and_every_row_a_file(written, rows):
    files = {(path.parent.name, path.stem) for path in written[0].rglob("*.png")}
    assert files == {(row["reference_diagnosis"], row["image_id"]) for row in rows}
    assert len({row["image_id"] for row in rows}) == len(rows) == PER_CLASS * len(CLASSES)
    assert {(row["reference_source"], row["copyright_license"], row["attribution"]) for row in rows} == {("drawn", "CC-0", "melanoma-edge samples")}


def test_no_lesion_is_in_two_classes(rows):
    classes = defaultdict(set)
    for row in rows:
        classes[row["lesion_id"]].add(row["reference_diagnosis"])
    assert all(len(names) == 1 for names in classes.values())


def test_some_lesions_are_photographed_twice(written, rows):
    photographs = defaultdict(list)
    for row in rows:
        photographs[row["lesion_id"]].append(pixels(written[0], row))
    counts = Counter(len(pictures) for pictures in photographs.values())
    # 8 pictures a class are lesions 0, 1, 1 again, 2, 3, 4, 5, 6.
    assert counts == {1: 6 * len(CLASSES), 2: len(CLASSES)}
    for pictures in photographs.values():
        if len(pictures) == 2:
            assert np.abs(pictures[0].astype(int) - pictures[1]).mean() > 3


def test_no_two_pictures_are_the_same(written, rows):
    assert len({pixels(written[0], row).tobytes() for row in rows}) == len(rows)


def test_about_one_lesion_in_five_is_photographed_twice(tmp_path, monkeypatch):
    monkeypatch.setattr("melanoma_edge.data.samples.draw", lambda *_, **__: np.zeros((1, 1, 3), np.uint8))
    counts = write_samples(tmp_path / "set", per_class=60)
    assert counts == {"classes": 9, "pictures": 540, "lesions": 450, "lesions_photographed_twice": 90}


def test_counts_and_progress(written, rows):
    _, counts, steps = written
    total = PER_CLASS * len(CLASSES)
    assert counts == {"classes": 9, "pictures": total, "lesions": len({row["lesion_id"] for row in rows}), "lesions_photographed_twice": 9}
    assert steps == [(done, total) for done in range(1, total + 1)]


def test_the_readme_names_origin_and_licence(written):
    lines = (written[0] / "README.txt").read_text().splitlines()
    assert len(lines) == 2 and "no patient" in lines[0] and "CC0" in lines[1]


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(tmp_path):
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_samples(tmp_path / folder, per_class=1, size=32, seed=seed)
    a, b, c = (digest(tmp_path / folder) for folder in "abc")
    assert a == b != c


def test_a_larger_set_begins_with_the_smaller_one(tmp_path, written, rows):
    write_samples(tmp_path / "set", per_class=2, size=SIZE, seed=3)
    for name in CLASSES:
        first = sorted((tmp_path / "set" / name).iterdir())
        same = sorted((written[0] / name).iterdir())[:2]
        assert [path.read_bytes() for path in first] == [path.read_bytes() for path in same]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [({"per_class": 0}, "0 pictures"), ({"size": 31}, "31 pixels"), ({"size": 1025}, "1025 pixels"), ({"seed": -1}, "-1")],
)
def test_bad_arguments_are_refused_in_one_line(tmp_path, arguments, found):
    with pytest.raises(BadInput) as refusal:
        write_samples(tmp_path / "set", **arguments)
    message = str(refusal.value)
    assert found in message and "expected" in message and "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_draw_refuses_unknown_classes_and_sizes():
    with pytest.raises(BadInput, match="no class is called 'mole'"):
        draw("mole", 64, 1)
    with pytest.raises(BadInput, match="8 pixels"):
        draw("nevus", 8, 1)


def test_an_existing_folder_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("mine")
    before = digest(tmp_path)
    with pytest.raises(BadInput, match="exists already"):
        write_samples(tmp_path / "set", per_class=1, size=32)
    assert digest(tmp_path) == before


def test_force_replaces_an_existing_folder(tmp_path):
    write_samples(tmp_path / "set", per_class=2, size=32)
    (tmp_path / "set" / "mine.txt").write_text("mine")
    write_samples(tmp_path / "set", per_class=1, size=32, force=True)
    assert not (tmp_path / "set" / "mine.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_interruption_leaves_nothing(tmp_path):
    def interrupt(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_samples(tmp_path / "set", per_class=1, size=32, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
