"""The index: every picture of a data set opened once, every file that is none named, copies known."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from melanoma_edge.data import image
from melanoma_edge.data.index import Index, read_index
from melanoma_edge.errors import BadInput


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (9, 7), **keywords: object) -> Path:
    """Write a small random picture to `path`, whose suffix gives the format, and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    formats = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".webp": "WEBP"}
    Image.fromarray(pixels).save(path, formats[path.suffix.lower()], **keywords)
    return path


def refused(function, *arguments, **keywords) -> str:
    """Return the message of the BadInput that the call raises, after checking that it is one line."""
    with pytest.raises(BadInput) as caught:
        function(*arguments, **keywords)
    assert str(caught.value).isprintable()
    return str(caught.value)


def labels(index: Index) -> dict[str, str]:
    return {row.path: row.label for row in index.rows}


# --- files


def test_a_row_says_what_the_picture_is(tmp_path: Path) -> None:
    path = picture(tmp_path / "Train" / "nevus" / "a.png", size=(40, 30))
    pixels = np.asarray(Image.open(path))
    index = read_index(tmp_path, size=32)
    (row,) = index.rows
    assert (row.path, row.label, row.lesion, row.reference) == ("Train/nevus/a.png", "nevus", "", "")
    assert row.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == row.pixels and row.part == "train"
    assert (row.facts.width, row.facts.height, row.facts.format, row.facts.bytes) == (30, 40, "PNG", path.stat().st_size)
    assert index.root == tmp_path and index.bad == ()
    assert index.pixels.shape == (1, 32, 32, 3) and np.array_equal(index.pixels[0], image.to_input(pixels, 32))
    for views, square in ((index.thumbnails, pixels[5:35]), (index.wholes, pixels)):
        assert views.shape == (1, 32, 32) and views.dtype == np.uint8
        grey = np.asarray(Image.fromarray(square).resize((32, 32), Image.Resampling.BILINEAR), float).mean(axis=2)
        assert np.abs(views[0] - grey).max() <= 0.5


def test_equal_pixels_are_known_whatever_holds_them(tmp_path: Path) -> None:
    for name in ("nevus/a.png", "melanoma/b.bmp", "melanoma/c.tif"):
        picture(tmp_path / name, seed=3)
    picture(tmp_path / "melanoma" / "d.png", seed=3, size=(7, 9))
    turned = np.asarray(Image.open(tmp_path / "nevus" / "a.png"))[::-1]
    Image.fromarray(turned).save(tmp_path / "nevus" / "e.png")
    rows = {row.path: row for row in read_index(tmp_path).rows}
    assert len({row.sha256 for row in rows.values()}) == 5
    same = {path for path, row in rows.items() if row.pixels == rows["nevus/a.png"].pixels}
    assert same == {"nevus/a.png", "melanoma/b.bmp", "melanoma/c.tif"}


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
    assert index.thumbnails.mean(axis=(1, 2)).tolist() == shades == index.pixels[:].mean(axis=(1, 2, 3)).tolist()
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
    assert index.outside == ("Train/c.jpg", "a.png", "b.png") and index.bad == ()
    assert set(labels(index)) == {"nevus/a.png", "Train/nevus/b.png"}


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
