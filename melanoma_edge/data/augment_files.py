"""Augmented copies as files, the way Augmentor leaves them, and a contact sheet to look at a pipeline first.

In: a data folder and a pipeline. Out: `DIR/<class>/<class>_original_<name>_<n>.jpg`, the same number of each
class, or one PNG. For other tools and for people: training augments on its own, after the split, which files
made before a split cannot be part of without leaking.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from melanoma_edge.contract import Augment
from melanoma_edge.data import image
from melanoma_edge.data.augment import compose, draw
from melanoma_edge.data.augment_pixels import MAX_LENGTH, augment, require
from melanoma_edge.data.rebalance import draw_from
from melanoma_edge.data.sheet import titled_sheet
from melanoma_edge.data.sources import read_listing
from melanoma_edge.errors import BadInput
from melanoma_edge.files import new_folder, refuse_existing, write_bytes, write_json

MARK = "augment.json"
"""What every result holds, and what it was made from; `--force` replaces nothing without it."""
JPEG_QUALITY = 95
MAX_SIDE = 4096
PREVIEW_SIZE = 180
PREVIEW_PICTURES, PREVIEW_COPIES = 2, 7
"""Rows of each class, and copies in a row."""
WORKERS = 2
NAME_BYTES = 80
"""Longest part of a file's name that a class or a picture gives."""

Progress = Callable[[int, int], None]


def write_augmented(
    data: Path,
    out: Path,
    pipeline: Augment,
    *,
    per_class: int = 500,
    seed: int = 7,
    size: int | None = None,
    metadata: Path | None = None,
    licences: Sequence[str] = (),
    force: bool = False,
    progress: Progress | None = None,
) -> dict:
    """Write `per_class` augmented copies of each class below `data` into the new folder `out`.

    Every readable picture of a class gives floor(per_class / pictures) copies and a random remainder one more.
    Copies keep the size and shape of their picture, as Augmentor's do; with `size` they are squares of that many
    pixels, by the input contract. They are JPEG files of quality 95. `seed`, a picture's path and the number of
    the copy decide every pixel. `metadata` and `licences` are those of :func:`melanoma_edge.data.sources.read_listing`. `progress` gets the copies written and their total. Returns the counts and the
    unreadable files. Raises BadInput for arguments out of range, an `out` that touches `data`, or when no
    picture can be read.
    """
    require()
    _check(per_class, size, seed)
    data, entries = _entries(data, metadata, licences)
    _keep_apart(out, data, entries)
    members: dict[str, list[str]] = defaultdict(list)
    for path, label in entries:
        members[label].append(path)
    folders = _folder_names(members)
    numbers: Counter = Counter()  # copies so far of each picture: the positions of its draws
    names: Counter = Counter()  # and of each file name, which two pictures may share (Train/a.jpg and Test/a.png)
    unreadable: dict[str, str] = {}
    written: Counter = Counter()
    with new_folder(out, force=force, mark=MARK) as folder, ThreadPoolExecutor(WORKERS) as pool:
        def make(path: str, targets: list[Path], first: int) -> str | None:
            """Write the copies of one picture; return what is wrong with it, if anything is."""
            try:
                picture = image.decode(Path(data) / path) if size is None else image.load(Path(data) / path, size)
            except image.UnreadableImage as error:
                return str(error).removeprefix(f"{Path(data) / path}: ")
            if max(picture.shape) > MAX_LENGTH:
                return f"{picture.shape[1]} x {picture.shape[0]} pixels; expected at most {MAX_LENGTH} a side; shrink it first, or give --size"
            maps = compose(draw(pipeline, (seed, _number(path)), first, len(targets)), *picture.shape[:2])
            targets[0].parent.mkdir(exist_ok=True)
            for sample, target in enumerate(targets):
                Image.fromarray(augment(picture, maps, sample)).save(target, "JPEG", quality=JPEG_QUALITY, subsampling=0)
            return None

        total = per_class * len(members)
        # As often as pictures turn out to be unreadable, the others of their class make up for them.
        for round_ in range(len(entries) + 1):
            tasks = []
            for index, (label, paths) in enumerate(sorted(members.items())):
                readable = [path for path in paths if path not in unreadable]
                lacking = per_class - written[label]
                if not readable or not lacking:
                    continue
                chosen = Counter(draw_from(np.arange(len(readable)), lacking, np.random.default_rng([seed, round_, index])).tolist())
                tasks += [(label, readable[which], count) for which, count in sorted(chosen.items())]
            if not tasks:
                break
            waiting: deque = deque()

            def finish(label: str, path: str, count: int, done) -> None:
                why = done.result()
                if why is None:
                    written[label] += count
                else:
                    unreadable[path] = why
                if progress:
                    progress(written.total(), total)

            for label, path, count in tasks:
                stem = f"{folders[label]}_original_{_plain(Path(path).stem)}"
                targets = [folder / folders[label] / f"{stem}_{names[folders[label], stem] + i}.jpg" for i in range(count)]
                waiting.append((label, path, count, pool.submit(make, path, targets, numbers[path])))
                names[folders[label], stem] += count
                numbers[path] += count
                if len(waiting) > 4 * WORKERS:
                    finish(*waiting.popleft())
            while waiting:
                finish(*waiting.popleft())
        if not written:
            raise BadInput(f"{data} holds no readable picture ({len(unreadable)} unreadable files): expected class folders with pictures")
        facts = {
            "pictures": written.total(),
            "per_class": {label: written[label] for label in sorted(members)},
            "from": len(numbers) - len(unreadable),
            "unreadable": [[_shown(path), why] for path, why in sorted(unreadable.items())],
        }
        write_json(folder / MARK, {**facts, "seed": seed, "size": size, "augment": pipeline.model_dump()})
    return facts


def preview(
    data: Path,
    out: Path,
    pipeline: Augment,
    *,
    seed: int = 7,
    size: int | None = None,
    metadata: Path | None = None,
    licences: Sequence[str] = (),
    force: bool = False,
    progress: Progress | None = None,
) -> dict:
    """Write a contact sheet of `pipeline` on pictures below `data` to the PNG file `out`.

    For a few pictures of each class a row: the picture, then augmented copies, squares of `size` pixels (180
    where nothing is said). Returns the counts and the unreadable files. Raises as :func:`write_augmented` does.
    """
    require()
    _check(1, size, seed)
    size = size or PREVIEW_SIZE
    out = Path(out)
    if out.suffix.lower() != ".png":
        raise BadInput(f"the contact sheet {out} is no .png: expected a PNG file; write for example --out {out.stem or 'sheet'}.png")
    if out.is_dir():
        raise BadInput(f"{out} is a folder: expected a PNG file to write; choose another --out")
    refuse_existing(out, force=force)
    data, entries = _entries(data, metadata, licences)
    _keep_apart(out.parent, data, entries, ancestors=False)
    members: dict[str, list[str]] = defaultdict(list)
    for path, label in entries:
        members[label].append(path)
    sections, unreadable = [], {}
    for done, (label, paths) in enumerate(sorted(members.items()), 1):
        rows: list[np.ndarray] = []
        for which in np.random.default_rng([seed, done]).permutation(len(paths)):
            if len(rows) == PREVIEW_PICTURES:
                break
            path = paths[which]
            try:
                picture = image.load(Path(data) / path, size)
            except image.UnreadableImage as error:
                unreadable[path] = str(error).removeprefix(f"{Path(data) / path}: ")
                continue
            maps = compose(draw(pipeline, (seed, _number(path)), 0, PREVIEW_COPIES), size, size)
            rows.append(np.stack([picture, *(augment(picture, maps, sample) for sample in range(PREVIEW_COPIES))]))
        if rows:
            sections.append((label, rows))
        if progress:
            progress(done, len(members))
    if not sections:
        raise BadInput(f"{data} holds no readable picture ({len(unreadable)} unreadable files): expected class folders with pictures")
    file = io.BytesIO()
    titled_sheet(f"First in each row the picture at {size} pixels, then {PREVIEW_COPIES} augmented copies (seed {seed})", sections).save(file, "PNG")
    write_bytes(out, file.getvalue())
    return {
        "sheet": str(out),
        "classes": len(sections),
        "rows": sum(len(rows) for _, rows in sections),
        "unreadable": [[_shown(path), why] for path, why in sorted(unreadable.items())],
    }


def _entries(data: Path, metadata: Path | None, licences: Sequence[str]) -> tuple[Path, list[tuple[str, str]]]:
    """Return (the folder that paths are relative to, (path, class) of every picture of the data set)."""
    listing = read_listing(Path(data), metadata=metadata, licences=licences)
    return listing.root, [(entry.path, entry.label) for entry in listing.entries]


def _check(per_class: int, size: int | None, seed: int) -> None:
    if per_class < 1:
        raise BadInput(f"{per_class} copies a class: expected 1 or more; give another --per-class")
    if size is not None and not 8 <= size <= MAX_SIDE:
        raise BadInput(f"copies of {size} pixels: expected 8 to {MAX_SIDE}; give another --size")
    if not 0 <= seed < 2**31:
        raise BadInput(f"the seed is {seed}: expected 0 to {2**31 - 1}; give another --seed")


def _keep_apart(out: Path, data: Path, entries: list[tuple[str, str]], *, ancestors: bool = True) -> None:
    """Raise BadInput when the folder `out` is `data`, lies in it or (unless not asked for) around it.

    The folders that hold the pictures count as `data` too, wherever links lead; folders are told apart by
    what the system knows them as, not by their names.
    """
    originals = {os.path.realpath(data), *{os.path.realpath(os.path.dirname(os.path.join(data, path))) for path, _ in entries}}
    originals |= {os.path.dirname(os.path.realpath(os.path.join(data, path))) for path, _ in entries}
    target = Path(os.path.realpath(out))
    around_target = {_identity(folder) for folder in (target, *target.parents)} - {None}
    for original in sorted(originals):
        inside = _identity(Path(original)) in around_target
        around = ancestors and _identity(target) is not None and _identity(target) in {_identity(folder) for folder in Path(original).parents}
        if inside or around:
            where = "lies in" if inside else "holds"
            raise BadInput(f"{out} {where} the folder of the originals {original}, which stays as it is: choose an --out elsewhere")


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what the system knows `folder` as, None where it is not there."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _folder_names(members: dict[str, list[str]]) -> dict[str, str]:
    """Return a folder name for each class: its own where a file system takes it; no two are the same."""
    names: dict[str, str] = {}
    for label in sorted(members):
        plain, number = _plain(label), 1
        taken = {name.casefold() for name in names.values()} | {MARK}
        while (plain if number == 1 else f"{plain}_{number}").casefold() in taken:
            number += 1
        names[label] = plain if number == 1 else f"{plain}_{number}"
    return names


def _plain(text: str) -> str:
    """Return `text` as a part of a file's name: nothing that a path or a file system gives a meaning to, and not too long."""
    plain = re.sub(r'[\x00-\x1f\x7f/\\:*?"<>|]|^[. ]+|[. ]+$', "_", text.encode("utf-8", "replace").decode("utf-8"))
    return plain.encode("utf-8")[:NAME_BYTES].decode("utf-8", "ignore") or "_"


def _number(path: str) -> int:
    """Return a number of 64 bits that stands for a picture's path."""
    return int.from_bytes(hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest()[:8], "little")


def _shown(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
