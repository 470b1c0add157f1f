"""Copies that are not identical: the same picture re-encoded, resized, flipped or turned.

In: small grey views of pictures. Out: pairs of pictures that are so alike that they are one picture;
fingerprints, by which a copy is known again where the picture itself is not at hand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np

MAX_DIFFERENCE, MIN_TOLERANCE = 3.5, 1.0
"""Largest root mean square difference of two views, in grey levels, that still counts as a copy. On the nine-class
ISIC set (1,773 different files), copies as JPEG of quality 30 to 95 and down to a third of the size differ by
3.4 at most, the two most alike photographs of one lesion by 4.4, those of different lesions by 6.0."""
MAX_OF_CONTRAST = 0.2
"""And at most this share of the pictures' own standard deviation (a correlation of 0.98), but never less than
MIN_TOLERANCE: two dull pictures are soon alike."""
MIN_CONTRAST = 1.0
"""Views of a smaller standard deviation are flat: there is nothing in them to compare, so they are nobody's copy."""

BANDS, MAX_COARSE_DIFFERENCE = 5, 2.0
"""Cosine coefficients (u, v) with u + v < BANDS are the coarse shades of a picture, 15 numbers; copies differ in these alone by a
root mean square of at most this many grey levels. Re-encoding and resizing change fine structure: on the same set, copies within
MAX_DIFFERENCE that were made smaller with any filter differ by 1.9 in the coarse shades at most."""
CHUNK, VERIFIED_AT_ONCE = 2048, 4096
MAX_NEIGHBOURS = 4_000_000
"""Candidates held at once: in sets full of copies, fewer pictures are looked up at a time."""

FINGERPRINT_SIDE = 8
"""A fingerprint is 8 x 8 grey values: enough to know a copy, too little to show a lesion."""
MAX_FINGERPRINT_DIFFERENCE = 2.5
"""As MAX_DIFFERENCE, of fingerprints. On the nine-class ISIC set, copies as JPEG of quality 30 to 95 and down to a third
of the size differ by 1.8 at most (3.0 where pixels were picked instead of averaged); the two most alike pictures
of test and training part by 4.8."""


@dataclass(frozen=True)
class Copies:
    """Pairs of copies; they connect every group of copies, but not each picture with each other one."""

    pairs: np.ndarray
    """int [pairs, 2]: positions i < j."""
    differences: np.ndarray
    """float [pairs]: root mean square difference in grey levels, in the orientation that fits best."""


def near_copies(squares: np.ndarray, wholes: np.ndarray | None = None, *, progress: Callable[[int, int], None] | None = None) -> Copies:
    """Return which of the pictures with the views `squares` (uint8 [n, side, side]: the centre square) are copies,
    in any of the eight orientations of a square.

    With `wholes` (the same of the whole pictures, squeezed to a square), a picture that was squeezed to a square
    is also known as a copy of the wider or higher one that it came from.

    Copies are pictures that differ little in their coarse shades and, pixel by pixel, as a whole. Candidates are neighbours
    in the space of the coarse shades without their signs, (u, v) and (v, u) sorted: flips change only signs and quarter turns also
    swap u and v, so the best orientation is found at once. What is near there is then compared pixel by pixel.
    """
    first, repeats = _without_repeats(squares, wholes)
    search = _Search(squares, progress)
    search.join(repeats, 0.0)
    if not len(first):
        return search.result()
    features = _features(squares[first])
    search.look_up(squares, features, first, features, first, done=0, total=len(first))
    if wholes is not None:
        is_square = (squares[first] == wholes[first]).all(axis=(1, 2))
        if is_square.any() and not is_square.all():
            squeezed, wide = first[is_square], first[~is_square]
            search.look_up(wholes, _features(wholes[wide]), wide, features[is_square], squeezed, done=0, total=len(wide))
    return search.result()


def components(count: int, pairs: np.ndarray) -> np.ndarray:
    """Return for each of `count` positions the smallest one that `pairs` (int [m, 2]) connect it with: int [count]."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = np.asarray(pairs, np.int64).reshape(-1, 2)
    _, labels = connected_components(coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count)), directed=False)
    smallest = np.full(count, count)
    np.minimum.at(smallest, labels, np.arange(count))
    return smallest[labels]


def fingerprints(squares: np.ndarray, wholes: np.ndarray) -> list[str]:
    """Return the fingerprint of each picture with these views (uint8 [n, side, side]): 128 hex digits, two a grey value, row
    by row; for a picture that is no square, the fingerprints of its centre square and of the whole, joined by "|"."""
    ours, all_ = ([row.tobytes().hex() for row in _coarse(views)] for views in (squares, wholes))
    return [square if (one == other).all() else f"{square}|{whole}" for square, whole, one, other in zip(ours, all_, squares, wholes)]


def resembling(squares: np.ndarray, wholes: np.ndarray, known: Collection[str]) -> np.ndarray:
    """Return which pictures with these views (uint8 [n, side, side]) have one of the fingerprints `known` (without "|")
    in any orientation, as squares or as wholes: bool [n].

    What is no fingerprint among `known` is passed over, and so are flat pictures, in which there is nothing to compare.
    """
    from scipy.spatial import cKDTree

    found = np.zeros(len(squares), dtype=bool)
    digits = sorted(text for text in set(known) if len(text) == 2 * FINGERPRINT_SIDE**2 and set(text) <= set("0123456789abcdef"))
    if not digits or not len(squares):
        return found
    theirs = np.stack([np.frombuffer(bytes.fromhex(text), np.uint8) for text in digits]).reshape(-1, FINGERPRINT_SIDE, FINGERPRINT_SIDE)
    tree = cKDTree(_features(theirs))
    for views in (squares, wholes):
        ours = _coarse(views)
        features = _features(ours)
        for start in range(0, len(ours), CHUNK):
            near = tree.query_ball_point(features[start : start + CHUNK], MAX_FINGERPRINT_DIFFERENCE * FINGERPRINT_SIDE, workers=-1)
            positions = np.repeat(np.arange(start, start + len(near)), [len(one) for one in near])
            candidates = np.array([candidate for one in near for candidate in one], np.int64)
            for part in range(0, len(positions), VERIFIED_AT_ONCE):
                a, b = positions[part : part + VERIFIED_AT_ONCE], candidates[part : part + VERIFIED_AT_ONCE]
                differences, contrast = _differences(ours[a], theirs[b])
                alike = (contrast >= MIN_CONTRAST) & (differences <= np.clip(MAX_OF_CONTRAST * contrast, MIN_TOLERANCE, MAX_FINGERPRINT_DIFFERENCE))
                found[a[alike]] = True
    return found


class _Search:
    """Finds pairs among candidates, leaving out those that are connected already."""

    def __init__(self, squares: np.ndarray, progress: Callable[[int, int], None] | None) -> None:
        self.squares, self.progress = squares, progress
        self.roots = np.arange(len(squares))
        self.pairs: list[np.ndarray] = []
        self.differences: list[np.ndarray] = []

    def join(self, pairs: np.ndarray, differences: np.ndarray | float) -> None:
        """Take `pairs` (int [m, 2]) as copies."""
        if len(pairs):
            self.pairs.append(np.sort(pairs, axis=1))
            self.differences.append(np.broadcast_to(np.asarray(differences, dtype=float), len(pairs)))
        for a, b in pairs:
            a, b = self._root(a), self._root(b)
            self.roots[max(a, b)] = min(a, b)

    def look_up(self, views, wanted: np.ndarray, of: np.ndarray, features: np.ndarray, among: np.ndarray, *, done: int, total: int) -> None:
        """Find copies of the pictures `of`, by their `views` and the features `wanted` of these, among the squares of `among`."""
        from scipy.spatial import cKDTree

        side = self.squares.shape[1]
        radius = MAX_COARSE_DIFFERENCE * side  # the transform is orthonormal: a distance is the difference times the side
        tree = cKDTree(features)
        sample = wanted[:: max(1, len(wanted) // CHUNK)]
        crowd = int(tree.query_ball_point(sample, radius, return_length=True, workers=-1).max(initial=1))
        chunk = int(np.clip(MAX_NEIGHBOURS // crowd, 1, CHUNK))
        for start in range(0, len(wanted), chunk):
            near = tree.query_ball_point(wanted[start : start + chunk], radius, workers=-1)
            lengths = [len(found) for found in near]
            ours = np.repeat(of[start : start + chunk], lengths)
            theirs = among[np.concatenate([np.asarray(found, dtype=np.int64) for found in near])] if sum(lengths) else np.zeros(0, np.int64)
            keep = ours != theirs if views is not self.squares else ours < theirs
            self._verify(views, ours[keep], theirs[keep])
            if self.progress:
                self.progress(done + min(start + chunk, total), total)

    def result(self) -> Copies:
        if not self.pairs:
            return Copies(np.zeros((0, 2), np.int64), np.zeros(0))
        pairs, differences = np.concatenate(self.pairs), np.concatenate(self.differences)
        order = np.lexsort((pairs[:, 1], pairs[:, 0]))
        return Copies(pairs[order], differences[order])

    def _verify(self, views: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> None:
        order = np.argsort(ours, kind="stable")
        ours, theirs = ours[order], theirs[order]
        for start in range(0, len(ours), VERIFIED_AT_ONCE):
            a, b = ours[start : start + VERIFIED_AT_ONCE], theirs[start : start + VERIFIED_AT_ONCE]
            apart = self.roots[a] != self.roots[b]  # roots may be out of date, which only costs time
            a, b = a[apart], b[apart]
            if len(a):
                differences, contrast = _differences(views[a], self.squares[b])
                alike = differences <= np.clip(MAX_OF_CONTRAST * contrast, MIN_TOLERANCE, MAX_DIFFERENCE)
                self.join(np.column_stack([a, b])[alike], differences[alike])
                for position in np.unique(np.concatenate([a[alike], b[alike]])):
                    self.roots[position] = self._root(position)

    def _root(self, position: int) -> int:
        while self.roots[position] != position:
            self.roots[position] = self.roots[self.roots[position]]
            position = self.roots[position]
        return position


def _differences(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, pair by pair, the smallest root mean square difference in any orientation, and the smaller contrast."""
    ours, theirs = ours.astype(np.float32), theirs.astype(np.float32)
    smallest = np.full(len(ours), np.inf, np.float32)
    for turned in _orientations(theirs):
        apart = ours - turned
        np.minimum(smallest, np.einsum("nij,nij->n", apart, apart), out=smallest)
    contrast = np.minimum(ours.std(axis=(1, 2)), theirs.std(axis=(1, 2)))
    return np.sqrt(smallest / ours[0].size), contrast


def _features(views: np.ndarray) -> np.ndarray:
    """Return the numbers of each view (uint8 [n, side, side]) by which candidates are found: float32 [n, 15]."""
    side = views.shape[1]
    # The orthonormal cosine transform (DCT-II), its lowest rows only.
    basis = np.sqrt(2 / side) * np.cos(np.pi / side * np.outer(np.arange(min(BANDS, side)), np.arange(side) + 0.5))
    basis[0] /= np.sqrt(2)
    basis = basis.astype(np.float32)
    parts = []
    for start in range(0, len(views), 8192):
        block = views[start : start + 8192].astype(np.float32)
        low = np.einsum("ui,nij->nuj", basis, block, optimize=True) @ basis.T
        columns = [low[:, 0, 0]]
        for u in range(len(basis)):
            for v in range(max(u, 1), len(basis)):
                if u + v < BANDS:
                    one, other = np.abs(low[:, u, v]), np.abs(low[:, v, u])
                    columns += [one] if u == v else [np.maximum(one, other), np.minimum(one, other)]
        parts.append(np.stack(columns, axis=1))
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)


def _without_repeats(squares: np.ndarray, wholes: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return (positions of the first of each kind of equal views that are not flat, pairs of it and each of its equals)."""
    seen: dict[bytes, int] = {}
    repeats = []
    for position, square in enumerate(squares):
        if square.std() >= MIN_CONTRAST:
            digest = hashlib.blake2b(np.ascontiguousarray(square), digest_size=16)
            if wholes is not None:
                digest.update(np.ascontiguousarray(wholes[position]))
            first = seen.setdefault(digest.digest(), position)
            if first != position:
                repeats.append((first, position))
    return np.fromiter(seen.values(), np.int64, len(seen)), np.array(repeats, np.int64).reshape(-1, 2)


def _coarse(views: np.ndarray) -> np.ndarray:
    """Return the fingerprints' grey values, uint8 [n, 8, 8]."""
    block = views.shape[1] // FINGERPRINT_SIDE
    grey = views.reshape(-1, FINGERPRINT_SIDE, block, FINGERPRINT_SIDE, block).mean(axis=(2, 4))
    return np.floor(grey + 0.5).astype(np.uint8)


def _orientations(thumbnails: np.ndarray) -> Iterator[np.ndarray]:
    """Yield `thumbnails` [n, side, side] turned and mirrored in all eight ways."""
    for turns in range(4):
        turned = np.ascontiguousarray(np.rot90(thumbnails, turns, axes=(1, 2)))
        yield turned
        yield np.ascontiguousarray(turned[:, :, ::-1])
