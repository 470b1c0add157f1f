"""Rebalancing: every class the same, every picture its share, the same for the same seed and epoch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_edge.contract import Recipe
from melanoma_edge.data.rebalance import epoch_order, training_priors

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array)


def recipe(samples: int, seed: int = 7) -> Recipe:
    return Recipe(name="test", samples_per_class=samples, seed=seed)


@given(LABELS, st.integers(1, 100), st.integers(0, 2**31 - 1), st.integers(0, 10_000))
@settings(deadline=None, max_examples=150)
def test_each_class_gives_its_samples_and_each_picture_its_share(labels: np.ndarray, samples: int, seed: int, epoch: int) -> None:
    order = epoch_order(labels, recipe(samples, seed), epoch)
    assert Counter(labels[order].tolist()) == {label: samples for label in set(labels.tolist())}
    times = np.bincount(order, minlength=len(labels))
    for position, label in enumerate(labels):
        share = samples / (labels == label).sum()
        assert times[position] in (int(np.floor(share)), int(np.ceil(share)))


@given(LABELS, st.integers(0, 5))
@settings(deadline=None, max_examples=30)
def test_without_rebalancing_every_picture_stands_once(labels: np.ndarray, epoch: int) -> None:
    assert sorted(epoch_order(labels, recipe(0), epoch)) == list(range(len(labels)))


@given(LABELS, st.sampled_from([0, 1, 7, 50]), st.integers(0, 2**31 - 1), st.integers(0, 10_000))
@settings(deadline=None, max_examples=60)
def test_the_same_seed_and_epoch_give_the_same_order(labels: np.ndarray, samples: int, seed: int, epoch: int) -> None:
    state = np.random.get_state()[1].copy()
    first = epoch_order(labels, recipe(samples, seed), epoch)
    epoch_order(labels, recipe(samples, seed), epoch + 1)
    assert np.array_equal(first, epoch_order(labels, recipe(samples, seed), epoch))
    assert np.array_equal(state, np.random.get_state()[1]), "the global generator was used"


@pytest.mark.parametrize("samples", [0, 30])
def test_another_seed_or_epoch_gives_another_order(samples: int) -> None:
    labels = np.repeat([0, 1, 2], 20)
    orders = [epoch_order(labels, recipe(samples, seed), epoch).tolist() for seed in (1, 2) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_the_order_is_shuffled_across_classes() -> None:
    """A batch of one class would teach nothing: over the first 100 of 300 each class comes up 20 times or more."""
    labels = np.repeat([0, 1, 2], 40)
    for samples in (0, 100):
        start = labels[epoch_order(labels, recipe(samples), 0)][: len(labels) if samples == 0 else 100]
        assert min(np.bincount(start, minlength=3)) >= 20
        assert (np.diff(start) != 0).mean() > 0.5


def test_the_remainder_is_drawn_anew_each_epoch() -> None:
    """Over many epochs every picture is shown equally often, give or take chance."""
    labels = np.repeat(0, 10)
    times = sum(np.bincount(epoch_order(labels, recipe(13), epoch), minlength=10) for epoch in range(400))
    assert times.sum() == 5200 and abs(times - 520).max() < 45  # 400 draws at 3/10: a deviation of 9.2


def test_the_priors_are_what_the_order_shows() -> None:
    labels = np.array([0] * 30 + [1] * 10 + [2] * 5)
    for samples in (0, 12):
        shown = labels[epoch_order(labels, recipe(samples), 3)]
        assert np.allclose(training_priors(labels, 3, recipe(samples)), np.bincount(shown) / len(shown), atol=1e-12)
