"""Augmentation: against compositions point by point and pixel by pixel in float64, and what must stay exact."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_edge import recipes
from melanoma_edge.contract import Augment, Operation
from melanoma_edge.data.augment import augment, colour_map, geometric_map
from melanoma_edge.data.samples import draw

GEOMETRIC = ("flip_left_right", "flip_top_bottom", "quarter_turn", "rotate", "zoom", "shift", "shear", "skew")
COLOUR = ("brightness", "contrast", "saturation", "hue", "illuminant")
STRONG = {"rotate": 30.0, "zoom": 0.7, "shift": 0.2, "shear": 15.0, "skew": 0.15, "brightness": 0.6, "contrast": 1.5, "saturation": 0.3, "hue": 50.0, "illuminant": 0.3}

ROUNDING = 0.5 + 3 * 255 / 2048
"""OpenCV rounds once, and works on bytes with coefficients of 10 fractional bits."""

SEEDS = st.integers(0, 2**32)
SIZES = st.sampled_from([32, 33, 180])


def always(**strengths: float) -> Augment:
    """Return a pipeline in which every operation named is applied with exactly this strength."""
    return Augment(**{name: Operation(probability=1.0, low=value, high=value) for name, value in strengths.items()})


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise(size: int, seed: int = 0) -> np.ndarray:
    return rng(seed).integers(0, 256, (size, size, 3), np.uint8)


# --- what it always is


@given(SEEDS, st.sampled_from(recipes.names()))
@settings(deadline=None, max_examples=40)
def test_a_copy_of_the_same_kind_decided_by_the_generator_alone(seed: int, name: str) -> None:
    picture = noise(48, seed % 100)
    picture.flags.writeable = False
    pipeline = recipes.load(name).augment
    changed = augment(picture, pipeline, rng(seed))
    assert changed.dtype == np.uint8 and changed.shape == picture.shape and changed.flags.c_contiguous
    assert not np.shares_memory(changed, picture) and np.array_equal(picture, noise(48, seed % 100))
    assert np.array_equal(changed, augment(picture, pipeline, rng(seed)))


def test_another_seed_gives_another_picture() -> None:
    pipeline = recipes.load("default").augment
    assert len({augment(noise(32), pipeline, rng(seed)).tobytes() for seed in range(20)}) == 20


@given(SEEDS, SIZES)
@settings(deadline=None, max_examples=20)
def test_without_operations_every_pixel_stays(seed: int, size: int) -> None:
    picture = noise(size)
    assert np.array_equal(augment(picture, Augment(), rng(seed)), picture)
    assert geometric_map(Augment(), size, rng(seed)) is None and colour_map(Augment(), np.full(3, 99.0), rng(seed)) is None


@pytest.mark.parametrize("name", [*GEOMETRIC, *COLOUR, "erase"])
def test_probabilities_of_zero_one_and_between_are_honoured(name: str) -> None:
    picture = draw("nevus", 32, 3)
    strength = STRONG.get(name, 0.3)

    def share(probability: float, seeds: int) -> float:
        pipeline = Augment(**{name: Operation(probability=probability, low=strength, high=strength)})
        return np.mean([not np.array_equal(augment(picture, pipeline, rng(seed)), picture) for seed in range(seeds)])

    assert share(0.0, 200) == 0.0 and share(1.0, 200) == 1.0
    assert abs(share(0.3, 1000) - 0.3) < 0.06  # four standard deviations


@pytest.mark.parametrize("name", ["rotate", "brightness"])
def test_strengths_fill_their_range_evenly(name: str) -> None:
    pipeline = Augment(**{name: Operation(probability=1.0, low=0.5, high=2.0)})
    if name == "rotate":
        maps = [geometric_map(pipeline, 32, rng(seed)) for seed in range(1000)]
        strengths = np.degrees([np.arctan2(m[1, 0], m[0, 0]) for m in maps])
    else:
        strengths = np.array([colour_map(pipeline, np.zeros(3), rng(seed))[0, 0] for seed in range(1000)])
    assert strengths.min() > 0.5 and strengths.max() < 2.0
    assert np.allclose(np.histogram(strengths, 5, (0.5, 2.0))[0], 200, atol=60)


def test_switching_an_operation_leaves_the_draws_of_the_others_alone() -> None:
    everything = {name: STRONG.get(name, 0.3) for name in (*GEOMETRIC, *COLOUR, "erase")}
    wide = {name: Operation(probability=0.5, low=value * 0.5, high=value) for name, value in everything.items()}
    for without in everything:
        some = Augment(**{name: operation for name, operation in wide.items() if name != without})
        for seed in range(20):
            used, unused = rng(seed), rng(seed)
            maps = [(geometric_map(pipeline, 32, r), colour_map(pipeline, np.full(3, 99.0), r)) for pipeline, r in ((Augment(**wide), used), (some, unused))]
            for kind, names in enumerate((GEOMETRIC, COLOUR)):
                if without not in names:
                    assert np.array_equal(maps[0][kind], maps[1][kind]) or maps[0][kind] is maps[1][kind] is None
            assert used.bit_generator.state == unused.bit_generator.state


# --- geometry


@pytest.mark.parametrize("size", [32, 33, 96, 180])
@pytest.mark.parametrize(
    "strengths, permutations",
    [
        ({"flip_left_right": 0.0}, [lambda p: p[:, ::-1]]),
        ({"flip_top_bottom": 0.0}, [lambda p: p[::-1]]),
        ({"flip_left_right": 0.0, "flip_top_bottom": 0.0}, [lambda p: p[::-1, ::-1]]),
        ({"quarter_turn": 0.0}, [lambda p, k=k: np.rot90(p, k) for k in (1, 2, 3)]),
        ({"flip_left_right": 0.0, "quarter_turn": 0.0}, [lambda p, k=k: np.rot90(p[:, ::-1], k) for k in (1, 2, 3)]),
    ],
)
def test_flips_and_quarter_turns_move_pixels_and_change_none(size: int, strengths: dict, permutations: list[Callable]) -> None:
    picture = noise(size)
    wanted = [np.ascontiguousarray(permutation(picture)).tobytes() for permutation in permutations]
    found = [wanted.index(augment(picture, always(**strengths), rng(seed)).tobytes()) for seed in range(12)]
    assert set(found) == set(range(len(wanted))), "one of the turns never comes up"


def expected_point(x: float, y: float, size: int, turns: int, across: bool, strengths: dict[str, float]) -> tuple[float, float]:
    """Return where the output's point (x, y) comes from: one operation after the other, without matrices or skew."""
    centre = (size - 1) / 2
    x, y = x - centre, y - centre
    if "flip_left_right" in strengths:
        x = -x
    if "flip_top_bottom" in strengths:
        y = -y
    for _ in range(turns):
        x, y = -y, x
    if "rotate" in strengths:
        radius, angle = np.hypot(x, y), np.arctan2(y, x) + np.radians(strengths["rotate"])
        x, y = radius * np.cos(angle), radius * np.sin(angle)
    if "zoom" in strengths:
        x, y = x / strengths["zoom"], y / strengths["zoom"]
    if "shift" in strengths:
        x, y = x + strengths["shift"] * size, y + strengths["shift"] * size
    if "shear" in strengths:
        slope = np.tan(np.radians(strengths["shear"]))
        x, y = (x + slope * y, y) if across else (x, y + slope * x)
    return x + centre, y + centre


RANGES = {"rotate": (-180, 180), "zoom": (0.5, 2), "shift": (-0.3, 0.3), "shear": (-40, 40), "skew": (0.01, 0.3)}
STRENGTHS = st.fixed_dictionaries(
    {}, optional={**{name: st.just(0.0) for name in GEOMETRIC[:3]}, **{name: st.floats(*bounds) for name, bounds in RANGES.items()}}
)


@given(STRENGTHS.filter(bool), SIZES, SEEDS)
@settings(deadline=None, max_examples=200)
def test_the_map_is_the_operations_one_after_the_other(strengths: dict[str, float], size: int, seed: int) -> None:
    found = geometric_map(always(**strengths), size, rng(seed))
    assert found.dtype == np.float64 and found.shape == (3, 3)
    skew = strengths.get("skew", 0.0)
    points = rng(seed).uniform(0, size, (6, 2))
    alternatives = []
    for turns in (1, 2, 3) if "quarter_turn" in strengths else (0,):
        for across in (True, False) if "shear" in strengths else (True,):
            before = np.array([expected_point(x, y, size, turns, across, strengths) for x, y in points])
            # A plane tilted about the centre: towards it by 1 + tilt * distance along one direction.
            mapped = np.column_stack([points, np.ones(6)]) @ found.T
            tilt, *_ = np.linalg.lstsq(before - (size - 1) / 2, mapped[:, 2] - 1, rcond=None)
            expected = (before - (size - 1) / 2) / mapped[:, 2:] + (size - 1) / 2
            off = max(np.abs(mapped[:, :2] / mapped[:, 2:] - expected).max(), abs(np.hypot(*tilt) - 2 * skew / size))
            alternatives.append(off)
    assert min(alternatives) < 1e-7 * size


@given(st.floats(0.01, 0.2), SIZES, SEEDS)
@settings(deadline=None, max_examples=40)
def test_skew_is_about_the_share_of_the_side_that_a_corner_moves(skew: float, size: int, seed: int) -> None:
    corners = np.array([[0, 0, 1], [size - 1, 0, 1], [0, size - 1, 1], [size - 1, size - 1, 1.0]])
    mapped = corners @ geometric_map(always(skew=skew), size, rng(seed)).T
    moved = np.hypot(*(mapped[:, :2] / mapped[:, 2:] - corners[:, :2]).T).max() / size
    assert 0.6 * skew < moved < 1.6 * skew


def reflected(index: np.ndarray, size: int) -> np.ndarray:
    """Return indices mirrored back into 0..size-1 without repeating the edge."""
    index = np.mod(index, 2 * (size - 1))
    return np.where(index >= size, 2 * (size - 1) - index, index)


def sampled(picture: np.ndarray, mapping: np.ndarray) -> np.ndarray:
    """Return `picture` under the map, sampled bilinearly in float64."""
    size = len(picture)
    y, x = np.mgrid[:size, :size].astype(np.float64)
    u, v, w = np.tensordot(mapping, np.stack([x, y, np.ones_like(x)]), axes=1)
    u, v = u / w, v / w
    left, top = np.floor(u).astype(int), np.floor(v).astype(int)
    result = np.zeros(picture.shape)
    for dy in (0, 1):
        for dx in (0, 1):
            weight = np.abs(1 - dx - (u - left)) * np.abs(1 - dy - (v - top))
            result += weight[..., None] * picture[reflected(top + dy, size), reflected(left + dx, size)]
    return result


@given(STRENGTHS.filter(bool), st.integers(0, 20), SEEDS)
@settings(deadline=None, max_examples=60)
def test_pixels_come_from_where_the_map_says(strengths: dict[str, float], lesion: int, seed: int) -> None:
    picture = draw("melanoma", 64, lesion)
    pipeline = always(**strengths)
    expected = sampled(picture.astype(float), geometric_map(pipeline, 64, rng(seed)))
    difference = np.abs(augment(picture, pipeline, rng(seed)) - expected)
    # OpenCV rounds positions to 1/32 pixel, which shows at hairs and edges only.
    assert difference.mean() < 0.7 and np.percentile(difference, 99) < 4 and difference.max() < 24


def test_a_shift_by_whole_pixels_is_exact_and_the_mirror_image_continues_it() -> None:
    picture = noise(32)
    shifted = augment(picture, always(shift=0.25), rng())
    assert np.array_equal(shifted[:24, :24], picture[8:, 8:])
    assert np.array_equal(shifted[:24, 24:], picture[8:, 30:22:-1]), "the edge column must not be repeated"


def test_zoom_enlarges_what_is_in_the_middle() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[24:40, 24:40] = 255
    for factor, side in ((2.0, 32), (1.0, 16), (0.75, 12)):
        bright = augment(picture, always(zoom=factor), rng())[..., 0] > 127
        assert abs(np.sqrt(bright.sum()) - side) <= 1 and bright[31:33, 31:33].all()
        assert not (bright.any(axis=0) ^ bright.any(axis=0)[::-1]).any(), "not about the centre"


@given(st.tuples(*[st.integers(0, 255)] * 3), STRENGTHS, st.sampled_from([32, 33]), SEEDS)
@settings(deadline=None, max_examples=80)
def test_a_plain_picture_stays_plain_to_its_corners(colour: tuple[int, int, int], strengths: dict[str, float], size: int, seed: int) -> None:
    plain = np.full((size, size, 3), colour, np.uint8)
    assert np.array_equal(augment(plain, always(**strengths), rng(seed)), plain)


# --- colour


def expected_colours(pixels: np.ndarray, strengths: dict[str, float]) -> np.ndarray:
    """Return float64 [n, 3]: one operation after the other, pixel by pixel, without matrices, rounding or clipping."""
    pixels = pixels.astype(np.float64)

    def grey(rgb: np.ndarray) -> float:
        return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]

    if "brightness" in strengths:
        pixels = pixels * strengths["brightness"]
    if "contrast" in strengths:
        mean = np.mean([grey(rgb) for rgb in pixels])
        pixels = np.array([mean + strengths["contrast"] * (rgb - mean) for rgb in pixels])
    if "saturation" in strengths:
        pixels = np.array([grey(rgb) + strengths["saturation"] * (rgb - grey(rgb)) for rgb in pixels])
    if "hue" in strengths:
        angle = np.radians(strengths["hue"])
        red, across = np.array([2, -1, -1]) / np.sqrt(6), np.array([0, 1, -1]) / np.sqrt(2)
        turned = []
        for rgb in pixels:
            a, b = rgb @ red, rgb @ across
            turned.append(rgb.mean() + (a * np.cos(angle) - b * np.sin(angle)) * red + (a * np.sin(angle) + b * np.cos(angle)) * across)
        pixels = np.array(turned)
    return pixels


COLOURS = st.fixed_dictionaries(
    {}, optional={"brightness": st.floats(0.2, 2), "contrast": st.floats(0.2, 2), "saturation": st.floats(0, 2), "hue": st.floats(-180, 180)}
).map(lambda strengths: {name: max(value, 0.01) if name == "saturation" else value for name, value in strengths.items()})


@given(COLOURS.filter(bool), st.integers(0, 1000), SEEDS)
@settings(deadline=None, max_examples=120)
def test_the_colour_map_is_the_operations_one_after_the_other(strengths: dict[str, float], number: int, seed: int) -> None:
    picture = noise(8, number)
    pixels = picture.reshape(-1, 3)
    found = colour_map(always(**strengths), pixels.mean(axis=0), rng(seed))
    expected = expected_colours(pixels, strengths)
    assert found.dtype == np.float64 and np.allclose(pixels @ found[:, :3].T + found[:, 3], expected, atol=1e-8)
    # And a picture is that, rounded and clipped once at the end.
    changed = augment(picture, always(**strengths), rng(seed)).reshape(-1, 3)
    assert np.abs(changed - np.clip(expected, 0, 255)).max() <= ROUNDING


def test_hue_turns_red_to_green_to_blue_and_leaves_greys() -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[..., 0] = 200
    for degrees, channel in ((120, 1), (240, 2), (-120, 2), (360, 0)):
        turned = augment(picture, always(hue=degrees), rng())
        assert (turned[..., channel] == 200).all() and turned.sum() == 200 * 32 * 32
    plain = np.full((32, 32, 3), 77, np.uint8)
    assert np.array_equal(augment(plain, always(hue=33.0), rng()), plain)


def test_contrast_keeps_the_mean_and_saturation_the_greys() -> None:
    picture = (noise(64) * 0.4 + 77).astype(np.uint8)  # far from black and white, where it is clipped
    for contrast in (0.6, 1.4):
        changed = augment(picture, always(contrast=contrast), rng()).astype(float)
        before, after = (values @ [0.299, 0.587, 0.114] for values in (picture.astype(float), changed))
        assert abs(after.mean() - before.mean()) < 0.6
        assert np.isclose(after.std() / before.std(), contrast, rtol=0.02)
    grey = np.repeat(noise(32)[..., :1], 3, axis=2)
    assert np.array_equal(augment(grey, always(saturation=0.2), rng()), grey)


@given(st.floats(0.01, 0.5), SEEDS)
@settings(deadline=None, max_examples=60)
def test_the_illuminant_tints_each_channel_within_its_gain(gain: float, seed: int) -> None:
    found = colour_map(always(illuminant=gain), np.full(3, 100.0), rng(seed))
    factors = np.diag(found[:, :3])
    assert np.array_equal(found, np.column_stack([np.diag(factors), np.zeros(3)]))
    assert (np.abs(factors - 1) <= gain).all() and len(set(factors)) == 3


@given(st.floats(0.2, 2), st.floats(0.01, 0.5), SEEDS)
@settings(deadline=None, max_examples=40)
def test_the_illuminant_tints_what_the_others_added_too(contrast: float, gain: float, seed: int) -> None:
    mean = np.array([200.0, 120.0, 90.0])
    found = colour_map(always(contrast=contrast, illuminant=gain), mean, rng(seed))
    factors = np.diag(found[:, :3]) / contrast
    assert (np.abs(factors - 1) <= gain + 1e-9).all()
    assert np.allclose(found[:, 3], factors * (1 - contrast) * (mean @ [0.299, 0.587, 0.114]))


def test_colour_is_changed_after_the_picture_was_moved() -> None:
    """A picture gets both, and each once: the colours of the moved picture under the same colour map."""
    picture, pipeline = draw("melanoma", 64, 2), always(rotate=30.0, zoom=1.2, brightness=1.1, hue=20.0)
    moved = augment(picture, always(rotate=30.0, zoom=1.2), rng(4))
    both = augment(picture, pipeline, rng(4)).reshape(-1, 3)
    expected = np.clip(expected_colours(moved.reshape(-1, 3), {"brightness": 1.1, "hue": 20.0}), 0, 255)
    assert np.abs(both - expected).max() <= ROUNDING


# --- erasing


@given(st.floats(0.02, 1.0), st.sampled_from([32, 33]), SEEDS)
@settings(deadline=None, max_examples=80)
def test_one_square_gets_the_mean_colour_and_the_rest_stays(share: float, size: int, seed: int) -> None:
    picture = noise(size, 1)
    changed = augment(picture, always(erase=share), rng(seed))
    different = (changed != picture).any(axis=2)
    rows, columns = np.flatnonzero(different.any(axis=1)), np.flatnonzero(different.any(axis=0))
    side = max(1, round(share * size))
    square = changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert square.shape == (side, side, 3) and len(np.unique(square.reshape(-1, 3), axis=0)) == 1
    assert np.abs(square[0, 0] - picture.reshape(-1, 3).mean(axis=0)).max() <= 0.5


def test_the_square_can_lie_anywhere() -> None:
    picture = noise(32)
    covered = sum((augment(picture, always(erase=0.75), rng(seed)) != picture).any(axis=2) for seed in range(800))
    assert (covered > 0).all(), "a corner, where one square of 81 reaches, is never covered"
