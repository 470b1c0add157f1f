"""The index: every picture of a folder once, every file that is none named, and whatever the metadata says."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from melanoma_edge.data import image
from melanoma_edge.data.index import Index, find_metadata, list_pictures, read_index, read_metadata
from melanoma_edge.errors import BadInput


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (9, 7), **keywords: object) -> Path:
    """Write a small random picture to `path`, whose suffix gives the format, and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    formats = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".webp": "WEBP"}
    Image.fromarray(pixels).save(path, formats[path.suffix.lower()], **keywords)
    return path


def listed(root: Path) -> dict[str, str]:
    found = list_pictures(root)
    assert len(dict(found)) == len(found), "a file is listed twice"
    return dict(found)


def refused(function, *arguments, **keywords) -> str:
    """Return the message of the BadInput that the call raises, after checking that it is one line."""
    with pytest.raises(BadInput) as caught:
        function(*arguments, **keywords)
    assert str(caught.value).isprintable()
    return str(caught.value)


def labels(index: Index) -> dict[str, str]:
    return {row.path: row.label for row in index.rows}


# --- folders


def test_classes_are_the_folders_below_the_root(tmp_path: Path) -> None:
    for name in ("nevus/a.png", "melanoma/b.png", "melanoma/c.jpg"):
        picture(tmp_path / name)
    assert listed(tmp_path) == {"melanoma/b.png": "melanoma", "melanoma/c.jpg": "melanoma", "nevus/a.png": "nevus"}


@pytest.mark.parametrize("parts", [("Train", "Test"), ("train", "val"), ("TRAIN", "Validation", "test")])
def test_parts_are_no_classes(tmp_path: Path, parts: tuple[str, ...]) -> None:
    for number, part in enumerate(parts):
        picture(tmp_path / part / "nevus" / f"{number}.png")
    picture(tmp_path / "melanoma" / "outside.png")
    assert set(listed(tmp_path).values()) == {"nevus", "melanoma"}
    assert len(listed(tmp_path)) == len(parts) + 1


def test_pictures_further_down_belong_to_the_class_above(tmp_path: Path) -> None:
    picture(tmp_path / "nevus" / "2019" / "march" / "a.png")
    picture(tmp_path / "Train" / "nevus" / "Train" / "b.png")
    assert listed(tmp_path) == {"nevus/2019/march/a.png": "nevus", "Train/nevus/Train/b.png": "nevus"}


def test_every_suffix_in_any_case_and_nothing_else(tmp_path: Path) -> None:
    wanted = {f"nevus/{number}{suffix}" for number, suffix in enumerate((*sorted(image.SUFFIXES), ".JPG", ".Png", ".TIFF"))}
    for name in wanted:
        picture(tmp_path / name)
    for name in ("nevus/notes.txt", "nevus/Thumbs.db", "nevus/jpg", "nevus/x.jpg.part", "README.md", "ground truth.csv", "stray.jpg"):
        (tmp_path / name).write_text("x")
    (tmp_path / "nevus" / "folder.png").mkdir()
    assert set(listed(tmp_path)) == wanted
    assert len(read_index(tmp_path).rows) == len(wanted)


def test_names_with_spaces_and_letters_of_any_script(tmp_path: Path) -> None:
    names = ["basal cell carcinoma /lésion nº 1.png", "黑色素瘤/图 #1%20.png", "nævus/a'b\"c.png"]
    for seed, name in enumerate(names):
        picture(tmp_path / name, seed)
    assert listed(tmp_path) == dict(zip(names, ("basal cell carcinoma", "黑色素瘤", "nævus")))
    index = read_index(tmp_path)
    assert not index.bad and {(tmp_path / row.path).is_file() for row in index.rows} == {True}


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints/a.png", "nevus/.ipynb_checkpoints/a.png", "nevus/._b.png", "Train/.cache/c.png", ".x/Train/nevus/d.png"])
def test_what_is_hidden_is_left_alone(tmp_path: Path, hidden: str) -> None:
    picture(tmp_path / "nevus" / "b.png")
    picture(tmp_path / "Train" / "nevus" / "c.png", 1)
    picture(tmp_path / hidden, 2)
    assert set(listed(tmp_path)) == {"nevus/b.png", "Train/nevus/c.png"}


def test_a_hidden_folder_above_the_data_does_not_matter(tmp_path: Path) -> None:
    picture(tmp_path / ".cache" / "data" / "nevus" / "b.png")
    assert set(listed(tmp_path / ".cache" / "data")) == {"nevus/b.png"}


def test_a_linked_class_folder_is_followed_and_a_loop_ends(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "nevus").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
    assert listed(tmp_path / "data") == {"nevus/a.png": "nevus"}


@given(st.sets(st.tuples(st.sampled_from(["a", "a b", "B", "ä", "Train", "test"]), st.sampled_from(["", "x/", "y z/"]), st.sampled_from("kKl1")), min_size=1))
@settings(deadline=None, max_examples=30)
def test_the_order_is_that_of_the_paths(tmp_path_factory: pytest.TempPathFactory, names: set[tuple[str, str, str]]) -> None:
    root = tmp_path_factory.mktemp("order")
    for folder, inner, stem in names:
        (root / folder / "z" / inner).mkdir(parents=True, exist_ok=True)
        (root / folder / "z" / inner / f"{stem}.png").write_bytes(b"")
    found = [path for path, _ in list_pictures(root)]
    assert found == sorted(found, key=lambda path: Path(path).parts) and len(found) == len(names)


def test_where_there_is_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a file").write_text("x")
    (tmp_path / "flat").mkdir()
    picture(tmp_path / "flat" / "a.png")
    (tmp_path / "no pictures" / "nevus").mkdir(parents=True)
    (tmp_path / "no pictures" / "nevus" / "notes.txt").write_text("x")
    assert "missing: expected a folder with one folder a class" in refused(read_index, tmp_path / "nothing")
    assert "missing: expected a folder with one folder a class" in refused(read_index, tmp_path / ("x" * 300))
    assert "is a file: expected a folder with one folder a class" in refused(read_index, tmp_path / "a file")
    for name in ("empty", "flat", "no pictures"):
        message = refused(read_index, tmp_path / name)
        loose = " (1 stand in no class folder)" if name == "flat" else ""
        assert f"{tmp_path / name} holds no pictures in class folders{loose}: expected {tmp_path / name}/<class>/*.jpg" in message


# --- files


def test_a_row_says_what_the_picture_is(tmp_path: Path) -> None:
    path = picture(tmp_path / "Train" / "nevus" / "a.png", size=(40, 30))
    pixels = np.asarray(Image.open(path))
    index = read_index(tmp_path, size=32)
    (row,) = index.rows
    assert (row.path, row.label, row.lesion, row.reference) == ("Train/nevus/a.png", "nevus", "", "")
    assert row.sha256 == hashlib.sha256(np.array(pixels.shape, "<u4").tobytes() + pixels.tobytes()).hexdigest()
    assert index.root == tmp_path and index.bad == ()
    assert index.pixels.shape == (1, 32, 32, 3) and np.array_equal(index.pixels[0], image.to_input(pixels, 32))
    assert index.thumbnails.shape == (1, 16, 16) and index.thumbnails.dtype == np.uint8
    grey = np.asarray(Image.fromarray(pixels[5:35]).resize((16, 16), Image.Resampling.BILINEAR), float).mean(axis=2)
    assert np.abs(index.thumbnails[0] - grey).max() <= 0.5


def test_equal_pixels_have_equal_hashes_whatever_holds_them(tmp_path: Path) -> None:
    for name in ("nevus/a.png", "melanoma/b.bmp", "melanoma/c.tif"):
        picture(tmp_path / name, seed=3)
    picture(tmp_path / "melanoma" / "d.png", seed=3, size=(7, 9))
    hashes = {row.path: row.sha256 for row in read_index(tmp_path).rows}
    assert hashes["nevus/a.png"] == hashes["melanoma/b.bmp"] == hashes["melanoma/c.tif"] != hashes["melanoma/d.png"]


def test_rows_pixels_and_thumbnails_stand_in_the_same_order(tmp_path: Path) -> None:
    """Large pictures first: threads finish in another order than they began."""
    for number in range(24):
        shade = np.full((600 if number < 6 else 20,) * 2 + (3,), 10 * number, np.uint8)
        path = tmp_path / "nevus" / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(shade).save(path)
    (tmp_path / "nevus" / "11.png").write_bytes(b"broken")
    index = read_index(tmp_path, size=32)
    shades = [10 * int(Path(row.path).stem) for row in index.rows]
    assert shades == [10 * number for number in range(24) if number != 11]
    assert index.thumbnails.mean(axis=(1, 2)).tolist() == shades == index.pixels.mean(axis=(1, 2, 3)).tolist()
    assert read_index(tmp_path).rows == index.rows and read_index(tmp_path).pixels is None


def test_files_that_are_no_pictures_are_named_and_counted(tmp_path: Path) -> None:
    picture(tmp_path / "nevus" / "good.png")
    whole = picture(tmp_path / "whole.jpg", size=(64, 64)).read_bytes()
    broken = {
        "nevus/cut.jpg": whole[: len(whole) // 2],
        "nevus/empty.jpg": b"",
        "nevus/text.png": b"<html>not found</html>",
        "nevus/zeros.tif": bytes(1000),
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "nevus" / "gone.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "nevus" / "pipe.png")
    steps: list[tuple[int, int]] = []
    index = read_index(tmp_path, progress=lambda done, total: steps.append((done, total)))
    assert list(labels(index)) == ["nevus/good.png"] and len(index.thumbnails) == 1
    reasons = dict(index.bad)
    assert set(reasons) == {*broken, "nevus/gone.png", "nevus/pipe.png"}
    assert "an empty file" in reasons["nevus/empty.jpg"] and "no picture (it begins with b'<html>" in reasons["nevus/text.png"]
    assert "damaged" in reasons["nevus/cut.jpg"] and "not an ordinary file" in reasons["nevus/pipe.png"]
    assert all(reason.isprintable() and str(tmp_path) not in reason for reason in reasons.values())
    assert steps == [(done, 7) for done in range(1, 8)]


def test_pictures_in_no_class_folder_are_named_and_not_opened(tmp_path: Path) -> None:
    for name in ("nevus/a.png", "Train/nevus/b.png", "b.png", "Train/c.jpg", ".hidden.png", "a.png"):
        picture(tmp_path / name)
    (tmp_path / "a.png").write_bytes(b"")
    index = read_index(tmp_path)
    assert index.outside == ("a.png", "b.png", "Train/c.jpg") and index.bad == ()
    assert set(labels(index)) == {"nevus/a.png", "Train/nevus/b.png"}


@pytest.mark.parametrize("name", ["  ", "n" * 201])
def test_a_folder_name_that_cannot_be_a_class_is_refused_at_once(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "nevus" / "a.png")
    (tmp_path / name).mkdir()
    assert len(list_pictures(tmp_path)) == 1  # an empty folder is no class
    picture(tmp_path / name / "a.png")
    assert "characters: expected 1 to 200; rename it" in refused(list_pictures, tmp_path)


def test_nothing_but_broken_files_is_refused(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "nevus" / f"{number}.png").write_bytes(b"")
    assert "holds no readable picture (3 unreadable files)" in refused(read_index, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names that are no text")
@pytest.mark.parametrize("name", [b"nevus/caf\xe9.png", b"n\xe9vus/a.png"])
def test_a_name_that_is_no_text_counts_as_unreadable(tmp_path: Path, name: bytes) -> None:
    picture(tmp_path / "nevus" / "good.png")
    other = os.path.join(os.fsencode(tmp_path), name)
    os.makedirs(os.path.dirname(other), exist_ok=True)
    os.link(tmp_path / "nevus" / "good.png", other)
    index = read_index(tmp_path)
    assert labels(index) == {"nevus/good.png": "nevus"}
    ((path, reason),) = index.bad
    assert path.encode() == name.replace(b"\xe9", b"\\xe9") and "not UTF-8" in reason and "rename" in reason


# --- metadata


def metadata(folder: Path, text: str | bytes) -> Path:
    path = folder / "metadata.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


ROWS = {"ISIC_1": ("L1", "nevus"), "ISIC_2": ("", "basal cell carcinoma"), "ISIC_3": ("L1", "")}
TABLE = "image_id,lesion_id,reference_diagnosis\nISIC_1,L1,nevus\nISIC_2,,basal cell carcinoma\nISIC_3,L1,\n"


@pytest.mark.parametrize(
    "text",
    [
        TABLE,
        TABLE.encode("utf-8-sig"),
        TABLE.replace("\n", "\r\n"),
        TABLE.rstrip("\n"),
        TABLE + "\n\n",
        TABLE.replace("reference_diagnosis", "diagnosis"),
        TABLE.replace("image_id", "isic_id"),
        TABLE.replace("image_id", "image").replace("ISIC_1", "ISIC_1.jpg").replace("ISIC_2", "Train/x/ISIC_2.JPEG"),
        TABLE.replace("ISIC_1", " ISIC_1.png ").replace("L1", " L1 "),
        TABLE.replace("ISIC_1,L1,nevus", '"ISIC_1","L1","nevus"'),
        TABLE.replace("\n", ",x\n").replace("diagnosis,x", "diagnosis,age"),
        TABLE + "ISIC_1,L1,nevus\n",
        TABLE + ",,\n,,x\n",
        "source,reference_diagnosis,lesion_id,image_id\na,nevus,L1,ISIC_1\na,basal cell carcinoma,,ISIC_2\na,,L1,ISIC_3\n",
    ],
)
def test_metadata_as_spreadsheets_and_archives_write_it(tmp_path: Path, text: str | bytes) -> None:
    assert read_metadata(metadata(tmp_path, text)) == ROWS


def test_quoted_fields_may_hold_commas_and_lines(tmp_path: Path) -> None:
    text = 'image_id,lesion_id,diagnosis\n"a,b","L ""1""","nevus,\natypical"\n'
    assert read_metadata(metadata(tmp_path, text)) == {"a,b": ('L "1"', "nevus,\natypical")}


def test_columns_that_are_not_there_are_empty(tmp_path: Path) -> None:
    assert read_metadata(metadata(tmp_path, "image_id\na\nb\n")) == {"a": ("", ""), "b": ("", "")}
    assert read_metadata(metadata(tmp_path, "image_id,lesion_id,diagnosis\na\n")) == {"a": ("", "")}


def test_the_reference_diagnosis_goes_before_a_diagnosis(tmp_path: Path) -> None:
    assert read_metadata(metadata(tmp_path, "diagnosis,image_id,reference_diagnosis\nx,a,y\n")) == {"a": ("", "y")}


@pytest.mark.parametrize(
    "text, expected",
    [
        ("name,lesion_id\na,b\n", "has the columns name, lesion_id: expected image_id (or isic_id, image)"),
        ("image_id;lesion_id\na;b\n", "has the columns image_id;lesion_id: expected image_id"),
        ("", "has the columns (none): expected image_id"),
        ('"a\nb",c\n1,2\n', r"has the columns"),
        ("x" * 100_000 + "\n", "expected image_id"),
        (TABLE + "ISIC_1,L2,nevus\n", "line 5: ISIC_1 stands twice with different facts; keep one row an image"),
        (TABLE + "ISIC_2.jpg,,melanoma\n", "line 5: ISIC_2 stands twice with different facts"),
        ("image_id,diagnosis\nü,nævus\n".encode("latin-1"), "cannot be read as CSV: 'utf-8' codec"),
        (TABLE.encode("utf-16"), "cannot be read as CSV: 'utf-8' codec"),
        ("image_id\n" + "x" * 200_000 + "\n", "cannot be read as CSV: field larger than field limit"),
    ],
)
def test_metadata_that_cannot_be_used_is_one_line(tmp_path: Path, text: str | bytes, expected: str) -> None:
    message = refused(read_metadata, metadata(tmp_path, text))
    assert str(tmp_path) in message and expected in message and len(message) < 600


def test_metadata_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    picture(tmp_path / "nevus" / "a.png")
    for path in (tmp_path / "nothing.csv", tmp_path / "nevus"):
        assert f"{path} cannot be read as CSV: " in refused(read_index, tmp_path, metadata=path)


def test_pictures_find_their_rows_by_name(tmp_path: Path) -> None:
    for seed, name in enumerate(("Train/nevus/ISIC_1.jpg", "Test/nevus/deep/ISIC_2.JPG", "Train/nevus/ISIC_4.png", "Train/x/ISIC_3.v2.png")):
        picture(tmp_path / name, seed)
    path = metadata(tmp_path, TABLE.replace("ISIC_3", "ISIC_3.v2"))
    found = {row.path: (row.lesion, row.reference) for row in read_index(tmp_path, metadata=path).rows}
    assert found == {
        "Train/nevus/ISIC_1.jpg": ("L1", "nevus"),
        "Test/nevus/deep/ISIC_2.JPG": ("", "basal cell carcinoma"),
        "Train/nevus/ISIC_4.png": ("", ""),
        "Train/x/ISIC_3.v2.png": ("L1", ""),
    }


def test_the_metadata_of_a_folder_is_found(tmp_path: Path) -> None:
    assert find_metadata(tmp_path) is None
    (tmp_path / "metadata.csv").mkdir()
    assert find_metadata(tmp_path) is None
    (tmp_path / "metadata.csv").rmdir()
    assert find_metadata(tmp_path) is None and find_metadata(tmp_path / "nothing") is None
    assert find_metadata(str(tmp_path)) is None
    path = metadata(tmp_path, TABLE)
    assert find_metadata(tmp_path) == path


def test_the_metadata_of_a_folder_is_used_unless_other_is_given(tmp_path: Path) -> None:
    picture(tmp_path / "nevus" / "ISIC_1.jpg")
    metadata(tmp_path, TABLE)
    (tmp_path / "other").mkdir()
    other = metadata(tmp_path / "other", "image_id,lesion_id\nISIC_1,L9\n")
    (row,) = read_index(tmp_path).rows
    assert (row.lesion, row.reference) == ("L1", "nevus")
    (row,) = read_index(tmp_path, metadata=other).rows
    assert (row.lesion, row.reference) == ("L9", "")


def test_metadata_that_names_no_picture_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set" / "nevus"
    folder.mkdir(parents=True)
    Image.new("RGB", (40, 40), "brown").save(folder / "a.png")
    (tmp_path / "set" / "metadata.csv").write_text("image_id,lesion_id\nb,L1\n", encoding="utf-8")
    with pytest.raises(BadInput, match="names none of the 1 pictures"):
        read_index(tmp_path / "set")
    (tmp_path / "set" / "metadata.csv").write_text("image_id,lesion_id\na,L1\n", encoding="utf-8")
    assert read_index(tmp_path / "set").rows[0].lesion == "L1"
