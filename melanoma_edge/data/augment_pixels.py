"""Augmentation of pixels on the processor, with OpenCV.

In: pictures as uint8 arrays and the composed maps of :mod:`melanoma_edge.data.augment`. Out: changed
copies. Each picture is interpolated once (bilinear; flips and quarter turns alone are exact) and rounded to
bytes after the geometry, the colours, the blur, the JPEG and nowhere else; outside the picture its mirror
image continues it (edge pixels repeated: d c b a | a b c d | d c b a), so no black corners appear.
"""

from __future__ import annotations

import threading

import numpy as np

from melanoma_edge.data.augment import AFFINE, ELASTIC, PROJECTIVE, STAY, TURN, Composed, spline
from melanoma_edge.errors import Missing

MARGIN_PIXELS = 1 << 22
"""Largest picture with its margin: 16 MiB for each thread."""
MAX_LENGTH = 32766
"""OpenCV counts positions in 16 bits."""


def require() -> None:
    """Raise Missing, with the command that helps, where OpenCV is not installed; keep it to one thread."""
    try:
        import cv2
    except ImportError:
        raise Missing("augmentation needs OpenCV: pip install 'melanoma-edge[train]'") from None
    cv2.setNumThreads(1)  # the parallelism is ours: whole pictures, several threads


def augment(picture: np.ndarray, maps: Composed, sample: int, out: np.ndarray | None = None) -> np.ndarray:
    """Return `picture` (uint8 [height, width, 3], contiguous) under the maps of one `sample`, in `out` where given.

    After an odd number of quarter turns height and width are exchanged. `picture` is left as it is.
    """
    import cv2

    shape = picture.shape if maps.turns[sample] % 2 == 0 else (picture.shape[1], picture.shape[0], 3)
    if picture.shape[:2] != (maps.height, maps.width):
        raise ValueError(f"the picture's shape is {picture.shape}, but the maps were composed for {maps.height} x {maps.width}")
    if out is None:
        out = np.empty(shape, np.uint8)
    kind = maps.kind[sample]
    moved = _turned(picture, maps, sample) if kind in (STAY, TURN) else _warped(picture, maps, sample, shape)
    if moved.shape[2] == 4:
        cv2.cvtColor(moved, cv2.COLOR_RGBA2RGB, dst=out)
    else:
        np.copyto(out, moved)
    if maps.coloured[sample]:
        offset = maps.mean[sample] @ cv2.mean(out)[:3] if maps.about_mean[sample] else np.zeros(3)
        cv2.transform(out, np.column_stack([maps.pixel[sample], offset]), dst=out)
    if maps.blur[sample] > 0:
        width = 2 * blur_radius(maps.blur[sample]) + 1
        cv2.GaussianBlur(out, (width, width), maps.blur[sample], dst=out, borderType=cv2.BORDER_REFLECT)
    if maps.quality[sample] > 0:
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(out, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, int(maps.quality[sample])])
        cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB, dst=out)
    top, left, side = maps.erase[sample]
    if side > 0:
        out[top : top + side, left : left + side] = np.rint(cv2.mean(out)[:3])
    return out


def blur_radius(deviation: float) -> int:
    """Return how many pixels on each side a Gaussian of this standard deviation reaches: three of them."""
    return max(1, int(np.ceil(3 * deviation)))


def _turned(picture: np.ndarray, maps: Composed, sample: int) -> np.ndarray:
    """Return the picture after flips and quarter turns, which change no pixel."""
    import cv2

    turns = int(maps.turns[sample])
    if turns:
        picture = cv2.rotate(picture, (cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)[turns - 1])
    left_right, top_bottom = maps.flips[sample]
    if left_right or top_bottom:
        picture = cv2.flip(picture, -1 if left_right and top_bottom else int(left_right))
    return picture


def _warped(picture: np.ndarray, maps: Composed, sample: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the picture under its geometric map, with a fourth channel, in a buffer that the next call overwrites.

    Four channels are interpolated faster than three, and pixels of a picture with a margin faster than those
    beyond a border; a buffer that was used before needs no new memory from the system. Together that halves the time.
    """
    import cv2

    height, width = picture.shape[:2]
    reach = int(maps.reach[sample])
    fits = (height + 2 * reach) * (width + 2 * reach) <= MARGIN_PIXELS and reach <= max(height, width)
    margin = reach if fits else 0  # beyond that, OpenCV's own mirror costs less than the margin
    source = _buffer("picture", height, width)
    cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA, dst=source)
    if margin:
        padded = _buffer("padded", height + 2 * margin, width + 2 * margin)
        source = cv2.copyMakeBorder(source, margin, margin, margin, margin, cv2.BORDER_REFLECT, dst=padded)
    border = cv2.BORDER_CONSTANT if reach == margin else cv2.BORDER_REFLECT
    flags, target = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, _buffer("moved", *shape[:2])
    if maps.kind[sample] == ELASTIC:
        x, y = _positions(maps, sample, shape, margin)
        return cv2.remap(source, x, y, cv2.INTER_LINEAR, dst=target, borderMode=border)
    map_ = maps.geometry[sample].copy()
    map_[:2] += margin * map_[2]
    if maps.kind[sample] == PROJECTIVE:
        return cv2.warpPerspective(source, map_, (shape[1], shape[0]), dst=target, flags=flags, borderMode=border)
    assert maps.kind[sample] == AFFINE
    return cv2.warpAffine(source, map_[:2], (shape[1], shape[0]), dst=target, flags=flags, borderMode=border)


def _positions(maps: Composed, sample: int, shape: tuple[int, ...], margin: int) -> np.ndarray:
    """Return where each output pixel of an elastic sample comes from (float32 [2, height, width]: x, y), in a buffer."""
    nodes = maps.nodes[sample].copy()
    nodes[:2] += margin * nodes[2]
    flat = not np.any(maps.geometry[sample, 2, :2])  # then the third is one everywhere
    nodes = nodes[: 2 if flat else 3].astype(np.float32)
    found = _buffer("positions", len(nodes) * shape[0], shape[1]).view(np.float32).reshape(len(nodes), *shape[:2])
    np.matmul(spline(shape[0]), nodes @ spline(shape[1]).T, out=found)
    return found if flat else np.divide(found[:2], found[2], out=found[:2])


_BUFFERS = threading.local()


def _buffer(name: str, height: int, width: int) -> np.ndarray:
    """Return this thread's buffer `name` as uint8 [height, width, 4], whatever it holds."""
    buffers = _BUFFERS.__dict__
    if name not in buffers or buffers[name].size < height * width * 4:
        buffers[name] = np.empty(height * width * 4, np.uint8)
    return buffers[name][: height * width * 4].reshape(height, width, 4)
