"""Copies: none is missed that the pixels allow, whatever was done to the file, and different lesions stay apart."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dctn

from melanoma_edge.data import copies
from melanoma_edge.data.copies import components, near_copies
from melanoma_edge.data.index import read_index
from melanoma_edge.data.policy import copy_groups
from melanoma_edge.data.samples import CLASSES, draw


def orientations(view: np.ndarray) -> list[np.ndarray]:
    return [np.rot90(turned, turns) for turned in (view, view[:, ::-1]) for turns in range(4)]


def shades(view: np.ndarray) -> np.ndarray:
    """Return the 15 coarse shades of a view in an order that no flip or quarter turn changes."""
    found = np.abs(dctn(view.astype(float), norm="ortho"))
    places = [(u, v) for u in range(5) for v in range(u, 5) if u + v < 5]
    return np.concatenate([sorted((found[u, v], found[v, u])) if u != v else [found[u, v]] for u, v in places])


def by_hand(views: np.ndarray) -> np.ndarray:
    """Return the groups of `views` by comparing each with each other one in float64."""
    pairs = []
    coarse = [shades(view) for view in views]
    for i, one in enumerate(views.astype(float)):
        for j in range(i):
            other = views[j].astype(float)
            apart = min(np.sqrt(((one - turned) ** 2).mean()) for turned in orientations(other))
            contrast = min(one.std(), other.std())
            near = np.linalg.norm(coarse[i] - coarse[j]) <= 2.0 * len(one)
            if near and contrast >= 1 and apart <= np.clip(0.2 * contrast, 1.0, 3.5):
                pairs.append((j, i))
    return components(len(views), np.array(pairs).reshape(-1, 2))


@given(st.integers(0, 10_000), st.sampled_from([8, 16, 32]), st.floats(0, 60), st.floats(0, 6))
@settings(deadline=None, max_examples=60)
def test_the_groups_are_those_of_comparing_each_with_each(seed: int, side: int, contrast: float, noise: float) -> None:
    generator = np.random.default_rng(seed)
    base = generator.normal(128, contrast, (5, 4, 4)).clip(0, 255).astype(np.uint8)
    smooth = [np.asarray(Image.fromarray(view).resize((side, side), Image.Resampling.BICUBIC)) for view in base]
    views = [orientations(smooth[k])[o] + generator.normal(0, noise, (side, side)) for k, o in zip(generator.integers(0, 5, 14), generator.integers(0, 8, 14))]
    views = np.stack(views).round().clip(0, 255).astype(np.uint8)
    found = near_copies(views)
    assert components(14, found.pairs).tolist() == by_hand(views).tolist()
    assert (found.pairs[:, 0] < found.pairs[:, 1]).all() and (found.differences <= 3.5).all()


CHANGES = {
    "same file, other tags": lambda p: (p, {"format": "PNG"}),
    "JPEG of quality 40": lambda p: (p, {"format": "JPEG", "quality": 40}),
    "half the size": lambda p: (p.resize((p.width // 2, p.height // 2), Image.Resampling.LANCZOS), {"format": "JPEG", "quality": 80}),
    "a third of the size, nearest": lambda p: (p.resize((p.width // 3, p.height // 3), Image.Resampling.BOX), {"format": "JPEG", "quality": 60}),
    "twice the size": lambda p: (p.resize((p.width * 2, p.height * 2), Image.Resampling.BICUBIC), {"format": "PNG"}),
    "mirrored": lambda p: (p.transpose(Image.Transpose.FLIP_LEFT_RIGHT), {"format": "JPEG", "quality": 75}),
    "upside down": lambda p: (p.transpose(Image.Transpose.FLIP_TOP_BOTTOM), {"format": "WEBP", "quality": 75}),
    "quarter turn": lambda p: (p.transpose(Image.Transpose.ROTATE_90), {"format": "JPEG", "quality": 75}),
    "half turn, smaller": lambda p: (p.transpose(Image.Transpose.ROTATE_180).resize((p.width * 2 // 3, p.height * 2 // 3)), {"format": "JPEG", "quality": 70}),
    "mirrored quarter turn": lambda p: (p.transpose(Image.Transpose.TRANSPOSE), {"format": "JPEG", "quality": 90}),
}


@pytest.mark.parametrize("shape", ["square", "wide"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_known_among_others_of_its_class(tmp_path: Path, change: str, shape: str) -> None:
    (tmp_path / "nevus").mkdir()
    for number in range(6):
        picture = Image.fromarray(draw("nevus", 240, (1, number)))
        if shape == "wide":
            picture = picture.crop((0, 30, 240, 210))
        picture.save(tmp_path / "nevus" / f"{number}.jpg", quality=95)
        if number == 2:
            changed, options = CHANGES[change](Image.open(tmp_path / "nevus" / "2.jpg"))
            changed.save(tmp_path / "nevus" / "copy.png", **options)
    index = read_index(tmp_path)
    names = [Path(row.path).stem for row in index.rows]
    assert [sorted(names[i] for i in group) for group in copy_groups(index) if len(group) > 1] == [["2", "copy"]]


def test_a_picture_squeezed_to_a_square_is_known(tmp_path: Path) -> None:
    (tmp_path / "nevus").mkdir()
    for number in range(4):
        wide = Image.fromarray(draw("nevus", 240, (2, number))).crop((0, 30, 240, 210))
        wide.save(tmp_path / "nevus" / f"{number}.png")
    wide.resize((120, 120), Image.Resampling.LANCZOS).save(tmp_path / "nevus" / "squeezed.jpg", quality=85)
    index = read_index(tmp_path)
    assert [[index.rows[i].path for i in group] for group in copy_groups(index) if len(group) > 1] == [["nevus/3.png", "nevus/squeezed.jpg"]]


@pytest.mark.parametrize("name", CLASSES)
def test_drawn_lesions_of_one_class_stay_apart(name: str) -> None:
    views = np.stack([np.asarray(Image.fromarray(draw(name, 64, (7, number))).resize((32, 32))).mean(axis=2).round().astype(np.uint8) for number in range(40)])
    assert not len(near_copies(views).pairs)


def test_a_crowd_of_copies_is_one_group_and_takes_no_square_of_its_number() -> None:
    """Two thousand pictures of one scene: two million pairs, of which a chain is enough."""
    generator = np.random.default_rng(0)
    scene = np.asarray(Image.fromarray(draw("nevus", 64, 1)).resize((32, 32))).mean(axis=2)
    views = (scene + generator.normal(0, 0.8, (2000, 32, 32))).round().clip(0, 255).astype(np.uint8)
    found = near_copies(views)
    assert set(components(2000, found.pairs)) == {0} and len(found.pairs) < 40_000


def test_flat_pictures_are_nobody_s_copies() -> None:
    views = np.stack([np.full((32, 32), grey, np.uint8) for grey in (0, 0, 1, 100, 255)])
    assert not len(near_copies(views).pairs) and not len(near_copies(views[:0]).pairs)


def test_progress_goes_to_the_end() -> None:
    views = np.random.default_rng(0).integers(0, 256, (5000, 16, 16), np.uint8)
    steps = []
    near_copies(views, progress=lambda done, total: steps.append((done, total)))
    assert steps == sorted(steps) and steps[-1] == (5000, 5000) and len(steps) > 1


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30))
@settings(deadline=None)
def test_components_are_named_after_their_smallest_member(pairs: list[tuple[int, int]]) -> None:
    expected = list(range(20))
    for _ in range(20):
        for a, b in pairs:
            expected[a] = expected[b] = min(expected[a], expected[b])
    assert components(20, np.array(pairs).reshape(-1, 2)).tolist() == expected


def test_the_stated_margin_holds_on_the_worst_re_encoding() -> None:
    """A third of the size at quality 30: the strongest change that the tolerance was chosen for."""
    worst = 0.0
    for number in range(12):
        picture = Image.fromarray(draw(CLASSES[number % 9], 180, (3, number)))
        buffer = io.BytesIO()
        picture.resize((60, 60), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=30)
        views = [np.asarray(p.resize((32, 32), Image.Resampling.BILINEAR)).mean(axis=2) for p in (picture, Image.open(buffer))]
        worst = max(worst, float(np.sqrt(((views[0] - views[1]) ** 2).mean())))
    assert worst <= copies.MAX_DIFFERENCE


def views_of(picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Return the two views of a picture as the cache makes them, each uint8 [1, 32, 32]."""
    side = min(picture.size)
    square = picture.crop(((picture.width - side) // 2, (picture.height - side) // 2, (picture.width + side) // 2, (picture.height + side) // 2))
    return tuple(np.asarray(p.resize((32, 32), Image.Resampling.BILINEAR)).mean(axis=2).round().astype(np.uint8)[None] for p in (square, picture))


def test_a_training_picture_that_was_squeezed_to_a_square_is_known_by_its_fingerprint() -> None:
    wide = [Image.fromarray(draw("nevus", 240, (2, number))).crop((0, 30, 240, 210)) for number in range(6)]
    known = [text for picture in wide[:3] for text in copies.fingerprints(*views_of(picture))[0].split("|")]
    assert len(known) == 6
    found = [bool(copies.resembling(*views_of(picture.resize((120, 120), Image.Resampling.LANCZOS)), known)[0]) for picture in wide]
    assert found == [True] * 3 + [False] * 3
    # And the other way round: the wide one of a square that training saw.
    squeezed = [text for picture in wide[:3] for text in copies.fingerprints(*views_of(picture.resize((120, 120))))]
    assert [bool(copies.resembling(*views_of(picture), squeezed)[0]) for picture in wide] == [True] * 3 + [False] * 3


@pytest.mark.parametrize("contrast", [3.0, 5.0, 8.0, 20.0])
def test_dull_pictures_that_training_never_saw_stay_unseen(contrast: float) -> None:
    generator = np.random.default_rng(3)
    smooth = np.stack([np.asarray(Image.fromarray(generator.normal(0, 1, (4, 4)).astype(np.float32)).resize((32, 32), Image.Resampling.BICUBIC)) for _ in range(1500)])
    views = (140 + contrast * (smooth - smooth.mean(axis=(1, 2), keepdims=True)) / smooth.std(axis=(1, 2), keepdims=True)).round().clip(0, 255).astype(np.uint8)
    known = copies.fingerprints(views[100:], views[100:])
    assert copies.resembling(views[:100], views[:100], known).mean() < 0.02
    again = (views[100:200] + generator.normal(0, 0.3, (100, 32, 32))).round().clip(0, 255).astype(np.uint8)
    assert copies.resembling(again[:, ::-1], again[:, ::-1], known).all()
