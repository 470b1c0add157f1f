"""Rebalancing: what each strategy shows and weighs, the same for the same seed and epoch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from melanoma_edge import recipes
from melanoma_edge.contract import Recipe
from melanoma_edge.data.rebalance import class_weights, epoch_order, training_priors
from melanoma_edge.errors import BadInput

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array)
STRATEGIES = ("augmentor", "balanced", "class_weight", "none")
SEEDS, EPOCHS = st.integers(0, 2**31 - 1), st.integers(0, 10_000)


def recipe(rebalance: str = "augmentor", samples: int | None = None, seed: int = 7) -> Recipe:
    return Recipe(name="test", rebalance=rebalance, samples_per_class=samples, seed=seed)


@given(LABELS, st.integers(1, 100), SEEDS, EPOCHS)
@settings(deadline=None, max_examples=150)
def test_augmentor_gives_each_class_its_samples_and_each_picture_its_share(labels: np.ndarray, samples: int, seed: int, epoch: int) -> None:
    order = epoch_order(labels, recipe("augmentor", samples, seed), epoch)
    assert Counter(labels[order].tolist()) == {label: samples for label in set(labels.tolist())}
    times = np.bincount(order, minlength=len(labels))
    for position, label in enumerate(labels):
        share = samples / (labels == label).sum()
        assert times[position] in (int(np.floor(share)), int(np.ceil(share)))


@given(LABELS, SEEDS, EPOCHS)
@settings(deadline=None, max_examples=150)
def test_balanced_is_as_long_as_the_part_and_repeats_no_picture_before_its_class_is_through(labels: np.ndarray, seed: int, epoch: int) -> None:
    order = epoch_order(labels, recipe("balanced", seed=seed), epoch)
    assert order.shape == labels.shape
    times = np.bincount(order, minlength=len(labels))
    for label in set(labels.tolist()):
        members = np.flatnonzero(labels == label)
        assert np.ptp(times[members]) <= 1
        shown = [position for position in order if labels[position] == label]
        for start in range(0, len(shown), len(members)):
            one_round = shown[start : start + len(members)]
            assert len(set(one_round)) == len(one_round)


def test_balanced_draws_every_class_equally_often_and_anew() -> None:
    labels = np.repeat([0, 1, 2], [700, 250, 50])
    counts = np.array([np.bincount(labels[epoch_order(labels, recipe("balanced"), epoch)], minlength=3) for epoch in range(60)])
    assert abs(counts.mean(axis=0) - 1000 / 3).max() < 8  # four deviations of the mean
    assert 10 < counts.std(axis=0).min() and counts.std(axis=0).max() < 20, "a class's number is drawn, with a deviation of 15"


@pytest.mark.parametrize("rebalance", ["class_weight", "none"])
@given(LABELS, st.integers(0, 5))
@settings(deadline=None, max_examples=30)
def test_the_other_strategies_show_every_picture_once(rebalance: str, labels: np.ndarray, epoch: int) -> None:
    assert sorted(epoch_order(labels, recipe(rebalance), epoch)) == list(range(len(labels)))


@given(LABELS, st.sampled_from(STRATEGIES), SEEDS, EPOCHS)
@settings(deadline=None, max_examples=60)
def test_the_same_seed_and_epoch_give_the_same_order(labels: np.ndarray, rebalance: str, seed: int, epoch: int) -> None:
    state = np.random.get_state()[1].copy()
    first = epoch_order(labels, recipe(rebalance, seed=seed), epoch)
    epoch_order(labels, recipe(rebalance, seed=seed), epoch + 1)
    assert np.array_equal(first, epoch_order(labels, recipe(rebalance, seed=seed), epoch))
    assert np.array_equal(state, np.random.get_state()[1]), "the global generator was used"


@pytest.mark.parametrize("rebalance", STRATEGIES)
def test_another_seed_or_epoch_gives_another_order(rebalance: str) -> None:
    labels = np.repeat([0, 1, 2], 20)
    orders = [epoch_order(labels, recipe(rebalance, seed=seed), epoch).tolist() for seed in (1, 2) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize("rebalance", STRATEGIES)
def test_the_order_is_shuffled_across_classes(rebalance: str) -> None:
    """A batch of one class would teach nothing: over the first 100 each class comes up 20 times or more."""
    labels = np.repeat([0, 1, 2], 40)
    start = labels[epoch_order(labels, recipe(rebalance), 0)][:100]
    assert min(np.bincount(start, minlength=3)) >= 20
    assert (np.diff(start) != 0).mean() > 0.5


def test_the_remainder_is_drawn_anew_each_epoch() -> None:
    """Over many epochs every picture is shown equally often, give or take chance."""
    labels = np.repeat(0, 10)
    times = sum(np.bincount(epoch_order(labels, recipe(samples=13), epoch), minlength=10) for epoch in range(400))
    assert times.sum() == 5200 and abs(times - 520).max() < 45  # 400 draws at 3/10: a deviation of 9.2


@pytest.mark.parametrize("rebalance", STRATEGIES)
def test_the_priors_are_what_the_loss_sees(rebalance: str) -> None:
    """Each class's share of all weight, over many epochs."""
    labels = np.repeat([0, 1, 2], [300, 100, 50])
    weights = class_weights(labels, 3, recipe(rebalance))
    assert weights.dtype == np.float32 and weights.shape == (3,)
    seen = sum(np.bincount(labels[order], weights[labels[order]], minlength=3) for order in (epoch_order(labels, recipe(rebalance), e) for e in range(40)))
    assert np.allclose(training_priors(labels, 3, recipe(rebalance)), seen / seen.sum(), atol=0.02 if rebalance == "balanced" else 1e-6)


@given(LABELS.filter(lambda labels: len(set(labels.tolist())) == 5))
@settings(deadline=None, max_examples=30)
def test_weights_are_n_by_k_times_n_of_the_class_and_one_on_average(labels: np.ndarray) -> None:
    weights = class_weights(labels, 5, recipe("class_weight"))
    assert np.allclose(weights, [len(labels) / (5 * (labels == label).sum()) for label in range(5)])
    assert np.isclose(weights[labels].mean(), 1)


# --- the keys of the recipe


def test_samples_per_class_is_said_or_300_and_belongs_to_augmentor_alone() -> None:
    assert recipe().samples_per_class == 300 and recipe(samples=12).samples_per_class == 12
    for rebalance in STRATEGIES[1:]:
        assert recipe(rebalance).samples_per_class is None
        with pytest.raises(ValidationError, match=f"samples_per_class is 300 but rebalance is '{rebalance}'"):
            recipe(rebalance, 300)
    with pytest.raises(ValidationError):
        recipe(samples=0)


def test_an_override_of_the_strategy_replaces_its_setting_too(tmp_path) -> None:
    changed = recipes.load("demo", ["rebalance=balanced"])
    assert changed.rebalance == "balanced" and changed.samples_per_class is None
    file = tmp_path / "written.toml"
    file.write_text(recipes.to_toml(changed), encoding="utf-8")
    assert recipes.load(file) == changed and Recipe.model_validate_json(changed.model_dump_json()) == changed
    assert recipes.load(file, ["rebalance=augmentor"]).samples_per_class == 300
    assert recipes.load("demo", ["rebalance=augmentor"]) == recipes.load("demo")


def test_a_contradiction_is_refused_in_one_line_that_says_what_to_do(tmp_path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('name = "mine"\nrebalance = "none"\nsamples_per_class = 40\n', encoding="utf-8")
    for source, overrides in ((file, []), ("demo", ["rebalance=none", "samples_per_class=40"]), (file, ["rebalance=balanced", "samples_per_class=3"])):
        with pytest.raises(BadInput, match="remove samples_per_class, or write rebalance = \"augmentor\"") as error:
            recipes.load(source, overrides)
        assert "\n" not in str(error.value)
