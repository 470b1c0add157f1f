"""Mixing: shares that add up, pixels that hold them, and nothing that depends on who computes which rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_feed import LABELS, SIZE, recipe

from melanoma_edge import recipes
from melanoma_edge.contract import Augment, Mix, Operation, Recipe
from melanoma_edge.data import feed, mixing
from melanoma_edge.errors import BadInput

CLASSES = 4
BOTH = Mix(mixup=Operation(probability=0.5, low=0.1, high=0.5), cutmix=Operation(probability=0.5, low=0.1, high=0.8))


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """Each picture of one grey of its own, so that what a mixed one holds can be told from its pixels."""
    return np.repeat(np.arange(len(LABELS), dtype=np.uint8)[:, None, None, None] * 6, SIZE, 1).repeat(SIZE, 2).repeat(3, 3)


def plain(mix: Mix = BOTH, **keywords) -> Recipe:
    return recipe(augment=Augment(), mix=mix, **keywords)


def epoch(pictures: np.ndarray, asked: Recipe, number: int = 0, rows: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
    images, targets = zip(*mixing.batches(pictures, LABELS, CLASSES, asked, number, rows=rows))
    return np.concatenate(images), np.concatenate(targets)


def test_without_mixing_it_is_the_feed_and_targets_are_one_class_each(pictures: np.ndarray) -> None:
    asked = recipe(mix=Mix())
    for (images, targets), (expected, labels) in zip(mixing.batches(pictures, LABELS, CLASSES, asked, 2), feed.batches(pictures, LABELS, asked, 2), strict=True):
        assert np.array_equal(images, expected) and np.array_equal(targets, np.eye(CLASSES)[labels]) and targets.dtype == np.float32


@pytest.mark.parametrize("batch", [8, 7, 1])
def test_targets_say_what_the_pixels_hold(pictures: np.ndarray, batch: int) -> None:
    asked = plain(batch_size=batch)
    unmixed, _ = epoch(pictures, plain(Mix(), batch_size=batch))
    images, targets = epoch(pictures, asked)
    if batch == 1:
        assert np.array_equal(images, unmixed) and (targets.max(axis=1) == 1).all()
        return
    place = np.arange(len(images)) % batch
    partner = np.where((place == batch - 1) & (batch % 2 == 1), 0, np.where(place % 2, -1, 1)) + np.arange(len(images))
    kinds = set()
    for picture, target, before, other in zip(images.astype(float), targets, unmixed[:, 0, 0, 0].astype(float), unmixed[partner][:, 0, 0, 0].astype(float)):
        own_class, other_class = LABELS[int(before / 6)], LABELS[int(other / 6)]
        greys = np.unique(picture)
        if len(greys) == 1 and greys[0] == before != other:
            share, kind = 0.0, "as it was"
        elif len(greys) == 1 and before != other:
            share, kind = (greys[0] - before) / (other - before), "blended"
            assert 0.1 <= target[other_class] + (own_class == other_class) and abs(share) <= 0.5 + 0.6 / abs(other - before)
        elif before != other:
            assert set(greys) == {before, other}
            share, kind = (picture == other).mean(), "boxed"
        else:
            assert set(greys) == {before}
            continue
        kinds.add(kind)
        expected = (1 - share) * np.eye(CLASSES)[own_class] + share * np.eye(CLASSES)[other_class]
        assert np.abs(target - expected).max() <= 0.51 / max(abs(other - before), 1)  # a grey level is rounded
    assert kinds == {"as it was", "blended", "boxed"}


@given(st.integers(1, 9), st.data())
@settings(deadline=None, max_examples=30)
def test_workers_that_share_a_batch_mix_as_one_alone(pictures: np.ndarray, batch: int, data) -> None:
    asked = recipe(mix=BOTH, batch_size=batch)
    start = data.draw(st.integers(0, batch - 1))
    stop = data.draw(st.integers(start + 1, batch))
    whole, targets = epoch(pictures, asked, 1)
    part, own = epoch(pictures, asked, 1, slice(start, stop))
    mine = (np.arange(len(whole)) % batch >= start) & (np.arange(len(whole)) % batch < stop)
    assert np.array_equal(part, whole[mine]) and np.array_equal(own, targets[mine])


@given(st.integers(0, 2**31), st.integers(0, 99), st.integers(0, 500), st.integers(1, 40), st.integers(2, 200), st.floats(0, 1), st.floats(0, 1))
@settings(deadline=None)
def test_shares_lie_where_they_were_asked_for(seed: int, number: int, first: int, count: int, size: int, one: float, two: float) -> None:
    low, high = sorted([one, two])
    asked = Mix(mixup=Operation(probability=0.5, low=low, high=high), cutmix=Operation(probability=0.5, low=low, high=high))
    found = mixing.draw(asked, (seed, number), first, count, size)
    top, bottom, left, right = found.box.T
    assert ((0 <= top) & (top <= bottom) & (bottom <= size) & (0 <= left) & (left <= right) & (right <= size)).all()
    boxed = (bottom - top) * (right - left)
    assert np.allclose(found.share, np.where(boxed > 0, boxed / size**2, found.blended), atol=1e-6)
    assert ((boxed == 0) | (found.blended == 0)).all() and (np.sqrt(boxed) <= np.sqrt(high) * size + 1).all()
    assert ((found.blended == 0) | ((found.blended >= low - 1e-6) & (found.blended <= high + 1e-6))).all()
    later = mixing.draw(asked, (seed, number), first + 1, count, size)
    assert np.array_equal(found.box[1:], later.box[:-1]) and np.array_equal(found.blended[1:], later.blended[:-1])  # by place, not by call


def test_half_are_mixed_where_half_are_asked_for() -> None:
    found = mixing.draw(Mix(mixup=Operation(probability=0.3, low=0.2, high=0.2), cutmix=Operation(probability=0.5, low=0.25, high=0.25)), (1, 2), 0, 20_000, 100)
    blended, boxed = (found.blended > 0).mean(), (found.box[:, 1] > found.box[:, 0]).mean()
    assert abs(boxed - 0.5) < 0.02 and abs(blended - 0.3 * 0.5) < 0.02
    assert 0.15 < found.share[found.box[:, 1] > found.box[:, 0]].mean() < 0.25  # what sticks out at the edges is cut off


def test_tensorflow_mixes_as_numpy_does() -> None:
    pytest.importorskip("tensorflow")
    from melanoma_edge.model import augment_ops

    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (9, 20, 20, 3), dtype=np.uint8)
    mixture = mixing.draw(BOTH, (3, 4), 0, 9, 20, paired=8)
    assert (mixture.blended > 0).any() and (mixture.box[:, 1] > 0).any() and mixture.share[8] == 0
    found = augment_ops.mix(noise, mixture).numpy()
    assert found.dtype == np.uint8 and np.abs(found.astype(int) - mixing.mix(noise, mixture)).max() <= 1


def test_recipes_say_it_in_tables_and_refuse_more_than_all() -> None:
    asked = recipes.load("demo", ["mix.mixup.probability=0.5", "mix.mixup.high=0.4"])
    assert recipes.load("demo").mix == Mix() and asked.mix.mixup == Operation(probability=0.5, high=0.4)
    assert "[mix.mixup]" in recipes.to_toml(asked)
    with pytest.raises(BadInput, match="shares within 0 to 1"):
        recipes.load("demo", ["mix.cutmix.probability=1", "mix.cutmix.high=1.5"])
    with pytest.raises(BadInput, match="mixup"):
        recipes.load("demo", ["mix.mixupp.high=0.5"])
