"""Pictures to calibrate on: classes in turn, decided by contents and seed, with the whole range of bytes."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from melanoma_edge.data.representative import choose, record, with_whole_range

PICTURES = st.lists(st.tuples(st.integers(0, 60), st.sampled_from("abcd")), max_size=80)


def split(drawn: list[tuple[int, str]]) -> tuple[list[str], list[str]]:
    """Return (file hashes, classes) of drawn pictures; equal numbers are equal files, which have one class."""
    label_of = {number: label for number, label in drawn}
    return [hashlib.sha256(str(number).encode()).hexdigest() for number, _ in drawn], [label_of[number] for number, _ in drawn]


@given(PICTURES, st.integers(0, 40), st.integers(0, 5))
def test_classes_take_turns_until_they_are_used_up(drawn: list[tuple[int, str]], count: int, seed: int) -> None:
    hashes, labels = split(drawn)
    chosen = choose(hashes, labels, seed, count)
    files = {hashes[position]: labels[position] for position in chosen}
    there = Counter(dict(zip(hashes, labels)).values())
    assert len(chosen) == len(files) == min(count, there.total()), "as many as asked for or there are, no file twice"
    taken = Counter(files.values())
    for one in there:
        for other in there:
            assert taken[one] >= min(there[one], taken[other] - 1), "no class gives more than one picture more than a class that has more"


@given(PICTURES, st.randoms(), st.integers(0, 5))
def test_names_and_order_decide_nothing(drawn: list[tuple[int, str]], random, seed: int) -> None:
    hashes, labels = split(drawn)
    order = list(range(len(drawn)))
    random.shuffle(order)
    again = choose([hashes[i] for i in order], [labels[i] for i in order], seed, 10)
    assert [hashes[order[position]] for position in again] == [hashes[position] for position in choose(hashes, labels, seed, 10)]


def test_another_seed_takes_other_pictures() -> None:
    hashes, labels = split([(number, "ab"[number % 2]) for number in range(100)])
    assert len({tuple(choose(hashes, labels, seed, 10)) for seed in range(5)}) == 5


def test_the_record_is_the_hash_of_the_sorted_ids() -> None:
    hashes = [digit * 64 for digit in "c1a"]
    found = record(hashes, ["nevus", "melanoma", "nevus"])
    assert (found.pictures, found.per_class) == (3, {"melanoma": 1, "nevus": 2})
    assert found.sha256 == hashlib.sha256(f"{'1' * 64}\n{'a' * 64}\n{'c' * 64}".encode()).hexdigest()


@given(st.integers(0, 255), st.integers(0, 255))
def test_black_and_white_are_added_only_where_they_are_missing(low: int, high: int) -> None:
    low, high = sorted((low, high))
    pictures = np.random.default_rng(0).integers(low, high + 1, (3, 8, 8, 3)).astype(np.uint8)
    pictures[2, 7, 7] = (low, high, low)
    before, found = pictures.copy(), with_whole_range(pictures)
    assert (found.min(), found.max()) == (0, 255) and (pictures == before).all()
    assert (found != before).sum() == (low > 0) + (high < 255)
