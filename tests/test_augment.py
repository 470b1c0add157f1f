"""Augmentation: against the same operations one after the other in float64, on both backends, and what must stay exact."""

from __future__ import annotations

import io
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from scipy import ndimage

from melanoma_edge import recipes
from melanoma_edge.contract import LIMITS, Augment, Operation
from melanoma_edge.data import augment_pixels
from melanoma_edge.data.augment import CELLS, OPERATIONS, STAY, TURN, Composed, Drawn, compose, draw
from melanoma_edge.data.samples import draw as drawn_lesion

GEOMETRIC = ("flip_left_right", "flip_top_bottom", "quarter_turn", "rotate", "zoom", "crop", "shift", "shear", "skew", "elastic")
COLOUR = ("brightness", "contrast", "saturation", "hue", "illuminant")
LAST = ("blur", "jpeg", "erase")
STRONG = {
    "rotate": 30.0, "zoom": 0.7, "crop": 0.6, "shift": 0.2, "shear": 15.0, "skew": 0.15, "elastic": 0.1, "brightness": 0.6, "contrast": 1.5,
    "saturation": 0.3, "hue": 50.0, "illuminant": 0.3, "blur": 0.03, "jpeg": 20.0, "erase": 0.3,
}  # fmt: skip
WHAT_ROUNDING_ADDS = 0.5 + 3 * 255 / 2048
"""OpenCV's colours are rounded once, from coefficients of 10 fractional bits."""

SEEDS = st.integers(0, 2**31 - 1)
SIZES = st.sampled_from([32, 33, 180])


def always(**strengths: float) -> Augment:
    """Return a pipeline in which every operation named is applied with exactly this strength."""
    return Augment(**{name: Operation(probability=1.0, low=value, high=value) for name, value in strengths.items()})


def maps(pipeline: Augment, size: int, seed: int = 0, count: int = 1) -> Composed:
    return compose(draw(pipeline, (seed, 0), 0, count), size, size)


def augment(picture: np.ndarray, pipeline: Augment, seed: int = 0) -> np.ndarray:
    """Return one augmented copy from the processor's backend."""
    return augment_pixels.augment(picture, compose(draw(pipeline, (seed, 0), 0, 1), *picture.shape[:2]), 0)


def in_tensorflow(pictures: np.ndarray, composed: Composed) -> np.ndarray:
    """Return augmented copies from the other backend."""
    from melanoma_edge.model.tensorflow import require

    require()
    from melanoma_edge.model import augment_ops

    return augment_ops.apply(pictures, composed).numpy()


def noise(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


# --- what it always is


@given(SEEDS, st.sampled_from(recipes.names()))
@settings(deadline=None, max_examples=40)
def test_a_copy_of_the_same_kind_that_leaves_the_picture_alone(seed: int, name: str) -> None:
    picture = noise(48, seed % 100)
    picture.flags.writeable = False
    pipeline = recipes.load(name).augment
    changed = augment(picture, pipeline, seed)
    assert changed.dtype == np.uint8 and changed.shape == picture.shape and changed.flags.c_contiguous
    assert not np.shares_memory(changed, picture) and np.array_equal(picture, noise(48, seed % 100))
    augment(noise(48, 99), pipeline, seed + 1)  # the buffers were used for something else
    assert np.array_equal(changed, augment(picture, pipeline, seed))


def test_another_seed_epoch_or_position_gives_another_picture() -> None:
    pipeline, picture = recipes.load("default").augment, noise(32)
    keys = [(seed, epoch, position) for seed in range(3) for epoch in range(3) for position in range(3)]
    found = [augment_pixels.augment(picture, compose(draw(pipeline, key[:2], key[2], 1), 32, 32), 0).tobytes() for key in keys]
    assert len(set(found)) == len(keys)


@given(SEEDS, SIZES)
@settings(deadline=None, max_examples=20)
def test_without_operations_every_pixel_stays(seed: int, size: int) -> None:
    picture = noise(size)
    assert np.array_equal(augment(picture, Augment(), seed), picture)
    assert maps(Augment(), size, seed).kind == [STAY]


@pytest.mark.parametrize("name", [*GEOMETRIC, *COLOUR, *LAST])
def test_probabilities_of_zero_one_and_between_are_honoured(name: str) -> None:
    picture = drawn_lesion("nevus", 32, 3)
    strength = STRONG.get(name, 0.3)

    def share(probability: float, count: int) -> float:
        pipeline = Augment(**{name: Operation(probability=probability, low=strength, high=strength)})
        composed = maps(pipeline, 32, 1, count)
        return np.mean([not np.array_equal(augment_pixels.augment(picture, composed, i), picture) for i in range(count)])

    assert share(0.0, 200) == 0.0 and share(1.0, 200) == 1.0
    assert abs(share(0.3, 1000) - 0.3) < 0.06  # four standard deviations


@pytest.mark.parametrize("name", ["rotate", "brightness"])
def test_strengths_fill_their_range_evenly(name: str) -> None:
    composed = maps(Augment(**{name: Operation(probability=1.0, low=0.5, high=2.0)}), 32, 0, 1000)
    strengths = np.degrees(np.arctan2(composed.geometry[:, 1, 0], composed.geometry[:, 0, 0])) if name == "rotate" else composed.pixel[:, 0, 0]
    assert strengths.min() > 0.5 and strengths.max() < 2.0
    assert np.allclose(np.histogram(strengths, 5, (0.5, 2.0))[0], 200, atol=60)


@given(SEEDS, st.integers(0, 10_000), st.lists(st.integers(1, 40), min_size=1, max_size=6))
@settings(deadline=None, max_examples=60)
def test_a_sample_is_the_same_in_whatever_batch_it_is_drawn(seed: int, epoch: int, sizes: list[int]) -> None:
    pipeline = Augment(**{name: Operation(probability=0.5, low=value * 0.5, high=value) for name, value in STRONG.items()})
    whole, first = draw(pipeline, (seed, epoch), 0, sum(sizes)), 0
    for size in sizes:
        part = draw(pipeline, (seed, epoch), first, size)
        for name in ("applied", "strength", "free", "field"):
            assert np.array_equal(getattr(part, name), getattr(whole, name)[first : first + size])
        first += size


@given(st.sampled_from(OPERATIONS), SEEDS)
@settings(deadline=None, max_examples=60)
def test_switching_an_operation_leaves_the_draws_of_the_others_alone(changed: str, seed: int) -> None:
    values = {name: STRONG.get(name, 0.3) for name in OPERATIONS}
    wide = {name: Operation(probability=0.5, low=value * 0.5, high=value) for name, value in values.items()}
    before = draw(Augment(**wide), (seed, 0), 3, 20)
    others = [i for i, name in enumerate(OPERATIONS) if name != changed]
    for operation in (None, Operation(probability=1.0, low=values[changed], high=values[changed])):
        after = draw(Augment(**{**wide, changed: operation or Operation(probability=0.0)}), (seed, 0), 3, 20)
        for name in ("applied", "strength", "free"):
            assert np.array_equal(getattr(before, name)[:, others], getattr(after, name)[:, others])
        assert after.field is None or np.array_equal(before.field, after.field)


# --- the whole pipeline against the operations one after the other


def numbers(drawn: Drawn, sample: int) -> dict[str, SimpleNamespace]:
    """Return what is applied to a sample, by name."""
    found = {}
    for i, name in enumerate(OPERATIONS):
        if drawn.applied[sample, i]:
            found[name] = SimpleNamespace(strength=drawn.strength[sample, i, 0], second=drawn.strength[sample, i, 1], free=drawn.free[sample, i])
    return found


def came_from(x: np.ndarray, y: np.ndarray, drawn: Drawn, sample: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where the output's points (x, y) come from: one operation after the other, without matrices."""
    steps = numbers(drawn, sample)
    turns = 1 + int(3 * steps["quarter_turn"].free[0]) if "quarter_turn" in steps else 0
    out_height, out_width = (width, height) if turns % 2 else (height, width)
    if "elastic" in steps:
        places = [(y + 0.5) / out_height * CELLS + 1, (x + 0.5) / out_width * CELLS + 1]
        moves = [ndimage.map_coordinates(field, places, order=3, prefilter=False) for field in drawn.field[sample]]
        reach = steps["elastic"].strength * min(height, width)
        x, y = x + reach * moves[0], y + reach * moves[1]
    x, y = x - (out_width - 1) / 2, y - (out_height - 1) / 2
    if "flip_left_right" in steps:
        x = -x
    if "flip_top_bottom" in steps:
        y = -y
    for _ in range(turns):
        x, y = -y, x
    if "rotate" in steps:
        radius, angle = np.hypot(x, y), np.arctan2(y, x) + np.radians(steps["rotate"].strength)
        x, y = radius * np.cos(angle), radius * np.sin(angle)
    if "skew" in steps:
        towards = 2 * np.pi * steps["skew"].free[0]
        depth = 1 + 2 * steps["skew"].strength * (x * np.cos(towards) + y * np.sin(towards)) / max(height, width)
        x, y = x / depth, y / depth
    if "zoom" in steps:
        x, y = x / steps["zoom"].strength, y / steps["zoom"].strength
    if "crop" in steps:
        share, (right, down) = steps["crop"].strength, steps["crop"].free[:2]
        # The kept window lies between the picture's edges, its outer edge at the frame's.
        x = (x + width / 2) * share + right * (1 - share) * width - width / 2
        y = (y + height / 2) * share + down * (1 - share) * height - height / 2
    if "shear" in steps:
        slope = np.tan(np.radians(steps["shear"].strength))
        x, y = (x + slope * y, y) if steps["shear"].free[0] < 0.5 else (x, y + slope * x)
    if "shift" in steps:
        x, y = x + steps["shift"].strength * width, y + steps["shift"].second * height
    return x + (width - 1) / 2, y + (height - 1) / 2


def sampled(picture: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return `picture` at (u, v), bilinearly in float64, mirrored beyond its edges with the edge pixels repeated."""
    left, top = np.floor(u).astype(int), np.floor(v).astype(int)
    result = np.zeros((*u.shape, 3))

    def mirrored(index: np.ndarray, size: int) -> np.ndarray:
        index = np.mod(index, 2 * size)
        return np.where(index >= size, 2 * size - 1 - index, index)

    for dy in (0, 1):
        for dx in (0, 1):
            weight = np.abs(1 - dx - (u - left)) * np.abs(1 - dy - (v - top))
            result += weight[..., None] * picture[mirrored(top + dy, picture.shape[0]), mirrored(left + dx, picture.shape[1])]
    return result


def recoloured(pixels: np.ndarray, drawn: Drawn, sample: int) -> np.ndarray:
    """Return float64 [n, 3]: one operation after the other, pixel by pixel, without matrices, rounding or clipping."""
    steps = numbers(drawn, sample)

    def grey(rgb: np.ndarray) -> np.ndarray:
        return (0.299 * rgb[:, 0] + 0.587 * rgb[:, 1] + 0.114 * rgb[:, 2])[:, None]

    if "brightness" in steps:
        pixels = pixels * steps["brightness"].strength
    if "contrast" in steps:
        middle = grey(pixels).mean()
        pixels = middle + steps["contrast"].strength * (pixels - middle)
    if "saturation" in steps:
        pixels = grey(pixels) + steps["saturation"].strength * (pixels - grey(pixels))
    if "hue" in steps:
        angle = np.radians(steps["hue"].strength)
        red, across = np.array([2, -1, -1]) / np.sqrt(6), np.array([0, 1, -1]) / np.sqrt(2)
        a, b = (pixels @ red)[:, None], (pixels @ across)[:, None]
        turned = (a * np.cos(angle) - b * np.sin(angle)) * red + (a * np.sin(angle) + b * np.cos(angle)) * across
        pixels = pixels.mean(axis=1, keepdims=True) + turned
    if "illuminant" in steps:
        pixels = pixels * [1 + steps["illuminant"].strength * (2 * steps["illuminant"].free[channel] - 1) for channel in range(3)]
    return pixels


def reference(picture: np.ndarray, drawn: Drawn, sample: int) -> np.ndarray:
    """Return the whole pipeline but JPEG in float64, clipped after the colours and never rounded."""
    height, width = picture.shape[:2]
    steps = numbers(drawn, sample)
    odd = "quarter_turn" in steps and int(3 * steps["quarter_turn"].free[0]) != 1
    y, x = np.mgrid[: width if odd else height, : height if odd else width].astype(np.float64)
    result = sampled(picture.astype(float), *came_from(x, y, drawn, sample, height, width))
    result = np.clip(recoloured(result.reshape(-1, 3), drawn, sample), 0, 255).reshape(result.shape)
    if "blur" in steps and steps["blur"].strength > 0:
        deviation = steps["blur"].strength * min(height, width)
        result = ndimage.gaussian_filter(result, deviation, radius=max(1, int(np.ceil(3 * deviation))), mode="reflect", axes=(0, 1))
    if "erase" in steps:
        side = max(1, round(steps["erase"].strength * min(height, width)))
        top, left = (int(place * (length - side + 1)) for place, length in zip(steps["erase"].free, result.shape[:2]))
        result[top : top + side, left : left + side] = result.mean(axis=(0, 1))
    return result


RANGES = {
    "rotate": (-180, 180), "zoom": (0.4, 2), "crop": (0.3, 1), "shift": (-0.4, 0.4), "shear": (-45, 45), "skew": (-0.3, 0.3), "elastic": (0, 0.15),
    "brightness": (0.5, 1.3), "contrast": (0.5, 1.3), "saturation": (0.2, 1.3), "hue": (-180, 180), "illuminant": (0, 0.3),
    "blur": (0, 0.03), "erase": (0.02, 1),
}  # fmt: skip


@st.composite
def pipelines(draw_: st.DrawFn, names: tuple[str, ...] = tuple(name for name in OPERATIONS if name != "jpeg")) -> Augment:
    """Any operations with any ranges; those of a pipeline mostly applied."""
    chosen = {}
    for name in draw_(st.sets(st.sampled_from(names), min_size=1)):
        low, high = sorted(draw_(st.floats(*RANGES.get(name, (0, 0)))) for _ in range(2))
        chosen[name] = Operation(probability=draw_(st.sampled_from([0.6, 1.0])), low=low, high=high)
    return Augment(**chosen)


@given(pipelines(GEOMETRIC), st.sampled_from([(32, 32), (33, 33), (180, 180), (60, 90), (97, 40)]), SEEDS)
@settings(deadline=None, max_examples=300)
def test_the_map_is_the_operations_one_after_the_other(pipeline: Augment, frame: tuple[int, int], seed: int) -> None:
    drawn = draw(pipeline, (seed, 0), 5, 4)
    composed = compose(drawn, *frame)
    points = np.random.default_rng(seed).uniform(0, min(frame) - 1, (2, 6))
    for sample in range(4):
        mapped = composed.geometry[sample] @ [*points, np.ones(6)]
        if not drawn.applied[sample, OPERATIONS.index("elastic")]:
            assert np.allclose(mapped[:2] / mapped[2], came_from(*points, drawn, sample, *frame), atol=1e-9 * max(frame))
        assert (mapped[2] > 0).all()


@given(pipelines(), st.sampled_from([(32, 32), (33, 33), (64, 64), (40, 61)]), st.integers(0, 20), SEEDS)
@settings(deadline=None, max_examples=200)
def test_pixels_are_those_of_the_operations_one_after_the_other(pipeline: Augment, frame: tuple[int, int], lesion: int, seed: int) -> None:
    """Within two grey levels: half a one for each rounding, which contrast and saturation can double."""
    picture = drawn_lesion("melanoma", 64, lesion)[: frame[0], : frame[1]].copy()
    drawn = draw(pipeline, (seed, 1), 0, 2)
    composed = compose(drawn, *frame)
    for sample in range(2):
        found, expected = augment_pixels.augment(picture, composed, sample), reference(picture, drawn, sample)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < 2.0


@given(pipelines(), st.sampled_from([32, 33]), SEEDS)
@settings(deadline=None, max_examples=100)
def test_tensorflow_gives_the_pixels_of_the_same_operations(pipeline: Augment, size: int, seed: int) -> None:
    """Within 0.6: it rounds once, and its positions are float32."""
    pictures = np.stack([drawn_lesion("nevus", size, 3), drawn_lesion("melanoma", size, 5), noise(size, 1)])
    drawn = draw(pipeline, (seed, 2), 0, 3)
    found = in_tensorflow(pictures, compose(drawn, size, size))
    assert found.dtype == np.uint8
    for sample in range(3):
        assert np.abs(found[sample] - reference(pictures[sample], drawn, sample)).max() < 0.6


def test_both_backends_agree_on_a_batch_of_the_default_recipe() -> None:
    pictures = np.stack([drawn_lesion("nevus", 96, i) for i in range(16)])
    composed = maps(recipes.load("default").augment, 96, 4, 16)
    found = in_tensorflow(pictures, composed).astype(int)
    expected = np.stack([augment_pixels.augment(picture, composed, i) for i, picture in enumerate(pictures)])
    assert np.abs(found - expected).max() <= 2 and (found == expected).mean() > 0.6


def test_tensorflow_leaves_a_sample_without_operations_byte_for_byte() -> None:
    pictures = np.stack([noise(40, i) for i in range(8)])
    everything = Augment(**{name: Operation(probability=0.5, low=value, high=value) for name, value in STRONG.items() if name != "jpeg"})
    drawn = draw(everything, (3, 0), 0, 8)
    chosen = np.arange(8) % 2 == 0
    found = in_tensorflow(pictures, compose(drawn.without(chosen), 40, 40))
    assert np.array_equal(found[chosen], pictures[chosen]) and not np.array_equal(found[~chosen], pictures[~chosen])


def test_tensorflow_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="JPEG"):
        in_tensorflow(noise(32)[None], maps(always(jpeg=50.0), 32))
    with pytest.raises(ValueError, match="square"):
        in_tensorflow(noise(32)[None, :20], compose(draw(Augment(), (0, 0), 0, 1), 20, 32))


# --- geometry


@pytest.mark.parametrize("size", [32, 33, 96, 180])
@pytest.mark.parametrize("backend", ["opencv", "tensorflow"])
@pytest.mark.parametrize(
    "strengths, permutations",
    [
        ({"flip_left_right": 0.0}, [lambda p: p[:, ::-1]]),
        ({"flip_top_bottom": 0.0}, [lambda p: p[::-1]]),
        ({"flip_left_right": 0.0, "flip_top_bottom": 0.0}, [lambda p: p[::-1, ::-1]]),
        ({"quarter_turn": 0.0}, [lambda p, k=k: np.rot90(p, k) for k in (1, 2, 3)]),
        ({"flip_left_right": 0.0, "quarter_turn": 0.0}, [lambda p, k=k: np.rot90(p, k)[:, ::-1] for k in (1, 2, 3)]),
    ],
)
def test_flips_and_quarter_turns_move_pixels_and_change_none(size: int, backend: str, strengths: dict, permutations: list[Callable]) -> None:
    picture = noise(size)
    wanted = [np.ascontiguousarray(permutation(picture)).tobytes() for permutation in permutations]
    composed = maps(always(**strengths), size, 2, 16)
    assert set(composed.kind) == {TURN}
    if backend == "opencv":
        found = [augment_pixels.augment(picture, composed, i) for i in range(16)]
    else:
        found = in_tensorflow(np.stack([picture] * 16), composed)
    assert {wanted.index(one.tobytes()) for one in found} == set(range(len(wanted))), "one of the turns never comes up"


def test_a_quarter_turn_of_an_oblong_picture_turns_its_frame() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
    found = {augment(picture, always(quarter_turn=0.0), seed).tobytes() for seed in range(20)}
    assert found == {np.ascontiguousarray(np.rot90(picture, k)).tobytes() for k in (1, 2, 3)}
    shapes = {augment(picture, always(quarter_turn=0.0, rotate=3.0, elastic=0.05, erase=0.3), seed).shape for seed in range(20)}
    assert shapes == {(30, 50, 3), (50, 30, 3)}


def test_a_shift_by_whole_pixels_is_exact_and_the_mirror_image_continues_it() -> None:
    picture = noise(32)
    shifted = augment(picture, always(shift=0.25))
    assert np.array_equal(shifted[:24, :24], picture[8:, 8:])
    assert np.array_equal(shifted[:24, 24:], picture[8:, 31:23:-1]), "the mirror image begins with the edge column"


def test_zoom_enlarges_what_is_in_the_middle() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[24:40, 24:40] = 255
    for factor, side in ((2.0, 32), (1.0, 16), (0.75, 12)):
        bright = augment(picture, always(zoom=factor))[..., 0] > 127
        assert abs(np.sqrt(bright.sum()) - side) <= 1 and bright[31:33, 31:33].all()
        assert not (bright.any(axis=0) ^ bright.any(axis=0)[::-1]).any(), "not about the centre"


def test_a_crop_shows_a_part_of_the_picture_from_anywhere_and_nothing_beyond() -> None:
    y, x = np.mgrid[:100, :100]
    picture = np.stack([x * 2, y * 2, np.zeros_like(x)], axis=-1).astype(np.uint8)
    lefts = []
    for seed in range(200):
        cropped = augment(picture, always(crop=0.5), seed).astype(float) / 2
        across, down = cropped[50, :, 0], cropped[:, 50, 1]
        # Away from the edges, where the mirror image begins half a pixel early, half as many pixels are shown as before.
        assert np.allclose(np.diff(across[2:-2]), 0.5, atol=0.51) and abs((across[97] - across[2]) / 95 - 0.5) < 0.02
        assert abs((down[97] - down[2]) / 95 - 0.5) < 0.02
        lefts.append(across[0])
    assert min(lefts) < 3 and max(lefts) > 46 and abs(np.mean(lefts) - 25) < 4


def test_elastic_moves_nearby_points_alike_and_none_too_far() -> None:
    """A field: smooth, different across the picture, as strong as asked for and without folds at a usual strength."""
    pipeline, y, x = always(elastic=0.06), *np.mgrid[:90, :90].astype(float)
    drawn = draw(pipeline, (0, 0), 0, 30)
    for sample in range(30):
        u, v = came_from(x, y, drawn, sample, 90, 90)
        moved = np.hypot(u - x, v - y)
        assert 1 < moved.max() < 0.06 * 90 * np.sqrt(2) and np.std(u - x) > 0.3
        assert (np.diff(u, axis=1) > 0).all() and (np.diff(v, axis=0) > 0).all()


@given(st.floats(0.01, 0.2), SIZES, SEEDS)
@settings(deadline=None, max_examples=40)
def test_skew_is_about_the_share_of_the_side_that_a_corner_moves(skew: float, size: int, seed: int) -> None:
    corners = np.array([[0, 0, 1], [size - 1, 0, 1], [0, size - 1, 1], [size - 1, size - 1, 1.0]])
    mapped = corners @ maps(always(skew=skew), size, seed).geometry[0].T
    moved = np.hypot(*(mapped[:, :2] / mapped[:, 2:] - corners[:, :2]).T).max() / size
    assert 0.6 * skew < moved < 1.6 * skew


@given(st.tuples(*[st.integers(0, 255)] * 3), pipelines((*GEOMETRIC, "blur")), st.sampled_from([32, 33]), SEEDS)
@settings(deadline=None, max_examples=80)
def test_a_plain_picture_stays_plain_to_its_corners(colour: tuple[int, int, int], pipeline: Augment, size: int, seed: int) -> None:
    plain = np.full((size, size, 3), colour, np.uint8)
    assert np.array_equal(augment(plain, pipeline, seed), plain)


def test_a_picture_far_out_of_its_frame_is_still_its_mirror_image() -> None:
    """Where a map reaches many pictures' widths beyond the edge there is no margin for it, only the mirror."""
    picture, pipeline = drawn_lesion("melanoma", 48, 1), always(zoom=0.1, shear=70.0, rotate=20.0)
    drawn = draw(pipeline, (0, 0), 0, 3)
    composed = compose(drawn, 48, 48)
    assert (composed.reach > 48).all()
    for sample in range(3):
        assert np.abs(augment_pixels.augment(picture, composed, sample) - reference(picture, drawn, sample)).max() < 1


def test_a_large_picture_is_augmented_without_a_margin_and_just_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    turned = Operation(probability=1.0, low=-90.0, high=90.0)
    pipeline = Augment(rotate=turned, elastic=Operation(probability=0.5, high=0.1), skew=Operation(probability=0.5, high=0.2))
    picture, composed = drawn_lesion("melanoma", 64, 1), maps(pipeline, 64, 0, 20)
    with_margin = [augment_pixels.augment(picture, composed, i) for i in range(20)]
    monkeypatch.setattr(augment_pixels, "MARGIN_PIXELS", 0)
    for sample, expected in enumerate(with_margin):
        assert np.abs(augment_pixels.augment(picture, composed, sample).astype(int) - expected).max() <= 1


# --- colour


@given(pipelines(COLOUR), st.integers(0, 1000), SEEDS)
@settings(deadline=None, max_examples=120)
def test_the_colour_map_is_the_operations_one_after_the_other(pipeline: Augment, number: int, seed: int) -> None:
    picture = noise(8, number)
    pixels = picture.reshape(-1, 3).astype(float)
    drawn = draw(pipeline, (seed, 0), 0, 1)
    composed = compose(drawn, 8, 8)
    expected = recoloured(pixels, drawn, 0)
    assert np.allclose(pixels @ composed.pixel[0].T + composed.mean[0] @ pixels.mean(axis=0), expected, atol=1e-8)
    # And a picture is that, rounded and clipped once at the end.
    changed = augment_pixels.augment(picture, composed, 0).reshape(-1, 3)
    assert np.abs(changed - np.clip(expected, 0, 255)).max() <= WHAT_ROUNDING_ADDS


def test_hue_turns_red_to_green_to_blue_and_leaves_greys() -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[..., 0] = 200
    for degrees, channel in ((120, 1), (240, 2), (-120, 2), (360, 0)):
        turned = augment(picture, always(hue=degrees))
        assert (turned[..., channel] == 200).all() and turned.sum() == 200 * 32 * 32
    plain = np.full((32, 32, 3), 77, np.uint8)
    assert np.array_equal(augment(plain, always(hue=33.0)), plain)


def test_contrast_keeps_the_mean_and_saturation_the_greys() -> None:
    picture = (noise(64) * 0.4 + 77).astype(np.uint8)  # far from black and white, where it is clipped
    for contrast in (0.6, 1.4):
        changed = augment(picture, always(contrast=contrast)).astype(float)
        before, after = (values @ [0.299, 0.587, 0.114] for values in (picture.astype(float), changed))
        assert abs(after.mean() - before.mean()) < 0.6
        assert np.isclose(after.std() / before.std(), contrast, rtol=0.02)
    grey = np.repeat(noise(32)[..., :1], 3, axis=2)
    assert np.array_equal(augment(grey, always(saturation=0.2)), grey)


@given(st.floats(0.01, 0.5), SEEDS)
@settings(deadline=None, max_examples=60)
def test_the_illuminant_tints_each_channel_within_its_gain(gain: float, seed: int) -> None:
    composed = maps(always(illuminant=gain), 8, seed)
    factors = np.diag(composed.pixel[0])
    assert np.array_equal(composed.pixel[0], np.diag(factors)) and not composed.mean.any()
    assert (np.abs(factors - 1) <= gain).all() and len(set(factors)) == 3


# --- blur, JPEG, erasing


@given(st.floats(0.012, 0.05), st.sampled_from([64, 65]))
@settings(deadline=None, max_examples=30)
def test_blur_is_a_gaussian_of_the_deviation_asked_for(share: float, size: int) -> None:
    picture = np.zeros((size, size, 3), np.uint8)
    picture[:, size // 2 :] = 255
    edge = augment(picture, always(blur=share))[size // 2, :, 0].astype(float)
    slope = np.diff(edge) / 255
    places = np.arange(size - 1)
    middle = (slope * places).sum()
    deviation = np.sqrt((slope * (places - middle) ** 2).sum())
    assert abs(middle - (size // 2 - 1)) < 0.05 and abs(deviation - share * size) < 0.06 * share * size + 0.12


@pytest.mark.parametrize("quality", [5, 30, 75, 100])
def test_jpeg_leaves_what_a_file_of_that_quality_leaves(quality: int) -> None:
    picture = drawn_lesion("melanoma", 96, 2)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    expected = np.asarray(Image.open(file)).astype(int)
    found = augment(picture, always(jpeg=float(quality))).astype(int)
    assert np.abs(found - expected).mean() < 0.5, "another quality, or red and blue exchanged"
    assert quality == 100 or np.abs(found - picture).mean() > 0.5


@given(st.floats(0.02, 1.0), st.sampled_from([32, 33]), SEEDS)
@settings(deadline=None, max_examples=80)
def test_one_square_gets_the_mean_colour_and_the_rest_stays(share: float, size: int, seed: int) -> None:
    picture = noise(size, 1)
    changed = augment(picture, always(erase=share), seed)
    different = (changed != picture).any(axis=2)
    rows, columns = np.flatnonzero(different.any(axis=1)), np.flatnonzero(different.any(axis=0))
    side = max(1, round(share * size))
    square = changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert square.shape == (side, side, 3) and len(np.unique(square.reshape(-1, 3), axis=0)) == 1
    assert np.abs(square[0, 0] - picture.reshape(-1, 3).mean(axis=0)).max() <= 0.5


def test_the_square_can_lie_anywhere() -> None:
    picture = noise(32)
    covered = sum((augment(picture, always(erase=0.75), seed) != picture).any(axis=2) for seed in range(800))
    assert (covered > 0).all(), "a corner, where one square of 81 reaches, is never covered"


# --- what a pipeline may not say


@pytest.mark.parametrize("name", [*LIMITS, "zoom", "brightness", "contrast", "saturation"])
def test_a_strength_that_means_nothing_is_refused_where_it_would_be_applied(name: str) -> None:
    lowest, highest = LIMITS.get(name, (0.0, None))
    beyond = [(lowest - 0.01, lowest + 0.1)] + ([(lowest + 0.1, highest + 0.01)] if highest is not None else [])
    for low, high in beyond:
        with pytest.raises(ValidationError, match=name):
            Augment(**{name: Operation(probability=0.1, low=low, high=high)})
        Augment(**{name: Operation(probability=0.0, low=low, high=high)})
