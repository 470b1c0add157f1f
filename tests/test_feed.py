"""The feed: batches that depend on seed and epoch and nothing else, whatever the threads do."""

from __future__ import annotations

import threading
import time
from collections import Counter
from itertools import islice

import numpy as np
import pytest

from melanoma_edge import recipes
from melanoma_edge.contract import Augment, Operation, Recipe
from melanoma_edge.data import augment_pixels, feed
from melanoma_edge.data.augment import STAY, Composed
from melanoma_edge.data.feed import batches, steps_per_epoch

SIZE, LABELS = 32, np.repeat([0, 1, 2], [23, 9, 5])


def recipe(**keywords: object) -> Recipe:
    values = {"samples_per_class": 30, "batch_size": 8, "augment": recipes.load("default").augment, **keywords}
    return Recipe(name="test", **values)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """Noise that cannot be written to, the first pixel of each picture saying which it is."""
    values = np.random.default_rng(0).integers(0, 256, (len(LABELS), SIZE, SIZE, 3), np.uint8)
    values[:, 0, 0, 0] = np.arange(len(LABELS))
    values.flags.writeable = False
    return values


def epoch(pictures: np.ndarray, asked: Recipe, number: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return all pictures and labels of an epoch."""
    images, labels = zip(*batches(pictures, LABELS, asked, number))
    return np.concatenate(images), np.concatenate(labels)


def equal(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> bool:
    return np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])


def test_batches_have_the_shape_that_the_network_takes(pictures: np.ndarray) -> None:
    found = list(batches(pictures, LABELS, recipe(), 0))
    assert len(found) == 11 == steps_per_epoch(LABELS, recipe())
    for images, labels in found:
        assert images.shape == (8, SIZE, SIZE, 3) and images.dtype == np.uint8
        assert labels.shape == (8,) and labels.dtype == np.int64


@pytest.mark.parametrize(
    "keywords, steps, size",
    [
        ({"batch_size": 30}, 3, 30),
        ({"batch_size": 29}, 3, 29),
        ({"batch_size": 46}, 1, 46),
        ({"batch_size": 90}, 1, 90),
        ({"batch_size": 91}, 1, 90),
        ({"batch_size": 8192}, 1, 90),
        ({"rebalance": "none", "samples_per_class": None}, 4, 8),
        ({"rebalance": "balanced", "samples_per_class": None}, 4, 8),
        ({"samples_per_class": 1}, 1, 3),
        ({"samples_per_class": 1, "batch_size": 1}, 3, 1),
    ],
)
def test_the_last_incomplete_batch_is_dropped_unless_it_is_the_only_one(pictures: np.ndarray, keywords: dict, steps: int, size: int) -> None:
    asked = recipe(**keywords)
    found = [labels.shape for _, labels in batches(pictures, LABELS, asked, 0)]
    assert found == [(size,)] * steps and steps_per_epoch(LABELS, asked) == steps


def test_pictures_keep_their_labels_and_every_class_its_share(pictures: np.ndarray) -> None:
    images, labels = epoch(pictures, recipe(augment=Augment(), batch_size=9))
    positions = images[:, 0, 0, 0]
    assert np.array_equal(LABELS[positions], labels) and np.array_equal(images, pictures[positions])
    assert Counter(labels.tolist()) == {0: 30, 1: 30, 2: 30}
    times = np.bincount(positions, minlength=len(LABELS))
    assert {label: set(times[LABELS == label]) for label in range(3)} == {0: {1, 2}, 1: {3, 4}, 2: {6}}


@pytest.mark.parametrize("rebalance", ["augmentor", "balanced", "class_weight", "none"])
def test_every_epoch_has_an_order_of_its_own(pictures: np.ndarray, rebalance: str) -> None:
    plain = recipe(augment=Augment(), rebalance=rebalance, samples_per_class=30 if rebalance == "augmentor" else None)
    assert len({epoch(pictures, plain, number)[0][:, 0, 0, 0].tobytes() for number in range(5)}) == 5


def test_every_sample_is_augmented_on_its_own(pictures: np.ndarray) -> None:
    images, _ = epoch(pictures, recipe(batch_size=9))
    assert len({image.tobytes() for image in images}) == 90, "two samples of a picture got the same augmentation"


def test_batches_are_the_same_whatever_the_threads_do(pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = epoch(pictures, recipe())
    for workers, ahead in ((1, 0), (1, 6), (2, 0), (7, 100)):
        monkeypatch.setattr(feed, "WORKERS", workers)
        monkeypatch.setattr(feed, "AHEAD", ahead)
        assert equal(epoch(pictures, recipe()), expected), (workers, ahead)


def test_a_slow_or_a_second_consumer_changes_nothing(pictures: np.ndarray) -> None:
    expected = [images.copy() for images, _ in batches(pictures, LABELS, recipe(), 1)]
    slow = []
    for images, _ in batches(pictures, LABELS, recipe(), 1):
        time.sleep(0.01)
        slow.append(images)
    first, second = zip(*zip(batches(pictures, LABELS, recipe(), 1), batches(pictures, LABELS, recipe(), 1)))
    for found in (slow, [images for images, _ in first], [images for images, _ in second]):
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not np.shares_memory(slow[0], slow[-1])


def test_an_epoch_does_not_need_the_ones_before(pictures: np.ndarray) -> None:
    """So an interrupted run goes on as if nothing had happened."""
    in_a_row = [epoch(pictures, recipe(), number) for number in range(4)]
    np.random.seed(99)
    list(islice(batches(pictures, LABELS, recipe(), 2), 3))
    for number in (3, 0, 2):
        assert equal(epoch(pictures, recipe(), number), in_a_row[number])
    assert not equal(in_a_row[0], in_a_row[1])


@pytest.mark.parametrize("change", [{"seed": 8}, {"augment": recipes.load("classic-rebalanced").augment}])
def test_another_seed_or_pipeline_gives_other_batches(pictures: np.ndarray, change: dict) -> None:
    assert not np.array_equal(epoch(pictures, recipe(**change))[0], epoch(pictures, recipe())[0])
    assert equal(epoch(pictures, recipe(epochs=3, learning_rate=1.0)), epoch(pictures, recipe()))


def test_leaving_early_leaves_no_thread_behind(pictures: np.ndarray) -> None:
    before = threading.active_count()
    running = batches(pictures, LABELS, recipe(batch_size=2), 0)
    next(running)
    running.close()
    assert threading.active_count() == before


def test_an_error_in_a_thread_reaches_the_consumer(pictures: np.ndarray) -> None:
    with pytest.raises(IndexError):
        list(batches(pictures[:3], LABELS, recipe(), 0))


class OnDisk:
    """What a set too large for memory looks like: read by number, slice or numbers, and nothing else."""

    def __init__(self, pictures: np.ndarray) -> None:
        self.shape, self._pictures = pictures.shape, pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, which: int | slice | np.ndarray) -> np.ndarray:
        assert isinstance(which, (int, slice, np.ndarray))
        found = self._pictures[which].copy()
        found.flags.writeable = False
        return found


def test_pictures_may_stay_on_disk(pictures: np.ndarray) -> None:
    assert equal(epoch(OnDisk(pictures), recipe()), epoch(pictures, recipe()))


def test_blocks_of_draws_change_nothing(pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = epoch(pictures, recipe())
    for block in (1, 20, 1000):
        monkeypatch.setattr(feed, "BLOCK", block)
        assert equal(epoch(pictures, recipe()), expected), block


@pytest.mark.parametrize("cuts", [(0, 8), (0, 3, 8), (0, 1, 2, 5, 8)])
def test_machines_that_share_a_batch_make_its_rows_and_no_others(pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch, cuts: tuple[int, ...]) -> None:
    expected, made = epoch(pictures, recipe()), []
    monkeypatch.setattr(feed, "augment", lambda *arguments: made.append(1) or augment_pixels.augment(*arguments))
    shares = [list(batches(pictures, LABELS, recipe(), 0, rows=slice(*cut))) for cut in zip(cuts, cuts[1:])]
    assert len(made) == 88 and {len(share) for share in shares} == {11}
    together = [np.concatenate([share[step][kind] for step in range(11) for share in shares]) for kind in (0, 1)]
    assert equal((together[0], together[1]), expected)


def test_another_place_of_work_gets_all_but_the_jpegs_and_the_same_maps(pictures: np.ndarray) -> None:
    pipeline = recipes.load("default").augment.model_copy(update={"jpeg": Operation(probability=0.4, low=30.0, high=60.0)})
    asked, thread, calls = recipe(augment=pipeline), threading.get_ident(), []

    def finish(batch: np.ndarray, maps: Composed) -> np.ndarray:
        assert threading.get_ident() == thread and len(maps) == len(batch) and not maps.quality.any()
        calls.append(sum(maps.kind == STAY))
        return np.stack([augment_pixels.augment(picture, maps, i) for i, picture in enumerate(batch)])

    found = [np.concatenate(values) for values in zip(*batches(pictures, LABELS, asked, 0, finish))]
    assert equal(found, epoch(pictures, asked)) and len(calls) == 11
    assert 20 < sum(calls) < 60, "the JPEGs, 40 % of 88, come with nothing left to do"
