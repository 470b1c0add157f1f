"""The cache: every picture decoded once, as small arrays on disk that are mapped into memory.

In: picture files and the size of a network's input. Out: what :mod:`melanoma_edge.data.decoding` makes of each. All is kept under the SHA-256 of the file's bytes,
so a file that changed is decoded again and one that only moved is not. Pictures are decoded in parallel and
written in batches: an interruption loses the batch in progress.

A cache folder holds copies of the pictures at network size: treat it as you treat the pictures.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sqlite3
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np

from melanoma_edge.data import image
from melanoma_edge.data.decoding import PIXELS_IN_FLIGHT, VIEW, Budget, Decoded, Facts, blocks_kept, content_of, decode_file
from melanoma_edge.data.pictures import Pictures
from melanoma_edge.errors import BadInput, Missing
from melanoma_edge.files import explained

Decode = Literal["full", "reduced"]
Progress = Callable[[int, int], None]

BATCH, BATCH_BYTES = 256, 64 << 20
"""Pictures, and bytes of them, between two commits: what a crash can lose."""
MAX_WORKERS = 16
REDUCED_FACTOR = 2
"""A reduced decode keeps the shorter side at this many times the network's input."""


@dataclass(frozen=True)
class Prepared:
    """What was read of some files, in their order."""

    facts: tuple[Facts | image.UnreadableImage, ...]
    """What each file holds, or why it cannot be read."""
    views: np.ndarray
    """uint8 [files, 2, VIEW, VIEW]: centre square and whole picture, grey; zeros for what cannot be read."""
    pixels: Pictures | None
    """Network inputs of the readable files, in their order; None where no size was asked for."""
    decoded: int
    """How many files had to be decoded now."""


def prepare(
    files: Sequence[Path],
    *,
    size: int | None = None,
    decode: Decode = "full",
    cache: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Read `files` through the cache folder `cache` (a temporary one without) and return what they hold.

    With `size`, their network inputs too, by the input contract; ``decode="reduced"`` decodes large JPEGs at a part of
    their size first (at least REDUCED_FACTOR times `size`), which is quicker and changes pixels a little.
    `workers` threads decode (default: one a core, at most MAX_WORKERS). Raises Missing when the disk is full or
    `cache` cannot be written, BadInput when the cache is damaged.
    """
    if decode == "reduced" and size is None:
        raise ValueError("a reduced decode needs a size")
    with contextlib.ExitStack() as stack:
        if cache is None:
            # What is mapped stays readable after the folder is gone.
            with explained(Path(_temporary())):
                cache = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="melanoma-edge-")))
        store = stack.enter_context(_Store.opened(Path(cache), size, decode))
        return store.read(files, workers or min(MAX_WORKERS, _cores()), progress)


def pixel_hashes(files: dict[str, Path], *, cache: Path | None = None, workers: int | None = None) -> dict[str, str]:
    """Return {hash of a file's bytes: hash of its pixels at full size} for `files`, {hash of its bytes: path}.

    A file that has other bytes by now, or cannot be read any more, is left out. What `cache` knows is not decoded again.
    Raises as :func:`prepare` does.
    """
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(_Store.opened(Path(cache), None, "full")) if cache is not None else None
        known = dict(store.database.execute("select sha256, pixels from pixels").fetchall()) if store else {}
        budget = Budget(PIXELS_IN_FLIGHT)

        def job(item: tuple[str, Path]) -> tuple[str, str] | None:
            sha256, path = item
            with contextlib.suppress(image.UnreadableImage):
                content = content_of(path)
                if hashlib.sha256(content).hexdigest() == sha256:
                    with budget.lease() as admit:
                        return sha256, image.pixel_hash(np.asarray(image.open_picture(path, content, admit=admit).image))
            return None

        wanted = [item for item in files.items() if item[0] not in known]
        with ThreadPoolExecutor(workers or min(MAX_WORKERS, _cores())) as pool:
            found = [result for result in pool.map(job, wanted) if result]
        if store and found:
            with store.transaction():
                store.database.executemany("insert or replace into pixels values (?, ?)", found)
    return {sha256: pixels for sha256, pixels in {**known, **dict(found)}.items() if sha256 in files}


def _temporary() -> str:
    """Return the folder for temporary files; raises Missing where there is none."""
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        raise Missing(f"there is no folder for temporary files ({error.strerror}): set TMPDIR to one that you may write to") from None


class _Store:
    """One cache folder: a database of facts, a file of views, and a file of network inputs for each size."""

    def __init__(self, folder: Path, database: sqlite3.Connection, size: int | None, decode: Decode) -> None:
        self.folder, self.database, self.size = folder, database, size
        # A reduced decode depends on the size; a full one does not.
        self.kind = "full" if decode == "full" else f"reduced-{size}"
        self.at_least = None if decode == "full" else REDUCED_FACTOR * size
        self.views_file = folder / f"views-{self.kind}.u8"
        self.inputs_file = folder / f"inputs-{self.kind}-{size}.u8" if size else None
        self.next_views = self.next_inputs = 0

    @classmethod
    @contextlib.contextmanager
    def opened(cls, cache: Path, size: int | None, decode: Decode) -> Iterator["_Store"]:
        """Yield the store in `cache`, held for this process alone: another one waits."""
        folder = cache / _version()
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lock = open(folder / "lock", "a", encoding="utf-8")
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                database = sqlite3.connect(folder / "facts.sqlite", isolation_level=None)
                with contextlib.closing(database):
                    columns = ", ".join(field.name for field in fields(Facts))
                    database.execute(f"create table if not exists facts (kind, slot integer, {columns}, primary key (kind, sha256))")
                    database.execute("create table if not exists inputs (kind, size integer, slot integer, sha256, primary key (kind, size, sha256))")
                    database.execute("create table if not exists pixels (sha256 primary key, pixels)")
                    yield cls(folder, database, size, decode)
            except sqlite3.OperationalError as error:
                if "full" in str(error):
                    raise Missing(f"the disk is full while writing {folder}: free some space and run the command again") from None
                raise Missing(f"the cache {folder} cannot be used ({error}): choose another with --cache DIR, or remove it") from None
            except sqlite3.DatabaseError as error:
                raise BadInput(f"the cache {folder} is damaged ({error}): remove that folder and run the command again") from None

    def read(self, files: Sequence[Path], workers: int, progress: Progress | None) -> Prepared:
        known = self._known()
        inputs = self._inputs()
        found: list[Facts | image.UnreadableImage] = []
        decoded = 0
        pending: dict[str, Decoded] = {}
        budget = Budget(PIXELS_IN_FLIGHT)
        stop = threading.Event()
        batch = min(BATCH, max(1, BATCH_BYTES // (3 * self.size**2))) if self.size else BATCH

        def job(path: Path):
            if stop.is_set():
                return None
            try:
                content = content_of(path)
                sha256 = hashlib.sha256(content).hexdigest()
                if sha256 in known and (inputs is None or sha256 in inputs):
                    return sha256
                return decode_file(path, content, sha256, self.size, self.at_least, budget)
            except image.UnreadableImage as error:
                return error

        with blocks_kept(), explained(self.folder), ThreadPoolExecutor(workers) as pool:
            waiting: deque = deque()
            todo = iter(files)
            try:
                for done in range(len(files)):
                    while len(waiting) < 3 * workers and (path := next(todo, None)) is not None:
                        waiting.append(pool.submit(job, path))
                    result = waiting.popleft().result()
                    if isinstance(result, Decoded):
                        decoded += 1
                        known.setdefault(result.facts.sha256, (result.facts, -1))
                        pending.setdefault(result.facts.sha256, result)
                        result = result.facts.sha256
                    found.append(known[result][0] if isinstance(result, str) else result)
                    if len(pending) >= batch:
                        self._write(pending, known, inputs)
                    if progress:
                        progress(done + 1, len(files))
                self._write(pending, known, inputs)
            except KeyboardInterrupt:
                self._write(pending, known, inputs)
                raise
            finally:
                stop.set()
        return self._prepared(found, known, inputs, decoded)

    def _known(self) -> dict[str, tuple[Facts, int]]:
        """Return {hash: (facts, slot of the views)} of what was read before, as far as the views are there."""
        names = ", ".join(field.name for field in fields(Facts))
        self.next_views = self._drop_lost("facts where kind = ?", (self.kind,), self.views_file, 2 * VIEW * VIEW)
        rows = self.database.execute(f"select slot, {names} from facts where kind = ?", (self.kind,))
        return {facts.sha256: (facts, slot) for slot, facts in ((row[0], Facts(*row[1:])) for row in rows)}

    def _inputs(self) -> dict[str, int] | None:
        """Return {hash: slot} of the network inputs of this size that are there."""
        if self.inputs_file is None:
            return None
        which, keys = "inputs where kind = ? and size = ?", (self.kind, self.size)
        self.next_inputs = self._drop_lost(which, keys, self.inputs_file, self.size * self.size * 3)
        return dict(self.database.execute(f"select sha256, slot from {which}", keys).fetchall())

    def _drop_lost(self, which: str, keys: tuple, file: Path, length: int) -> int:
        """Delete rows whose record is not in `file` any more (somebody cut or removed it); return the next free slot."""
        self.database.execute(f"delete from {which} and slot >= ?", (*keys, _records(file, length)))
        (last,) = self.database.execute(f"select max(slot) from {which}", keys).fetchone()
        return 0 if last is None else last + 1

    def _write(self, pending: dict[str, "Decoded"], known: dict[str, tuple[Facts, int]], inputs: dict[str, int] | None) -> None:
        """Put what was decoded on disk, the arrays before the rows that point at them; nothing counts before all is there."""
        if not pending:
            return
        new = [found for sha256, found in pending.items() if known[sha256][1] < 0]
        fresh = [found for sha256, found in pending.items() if sha256 not in inputs] if inputs is not None else []
        views = dict(zip((found.facts.sha256 for found in new), range(self.next_views, self.next_views + len(new))))
        slots = dict(zip((found.facts.sha256 for found in fresh), range(self.next_inputs, self.next_inputs + len(fresh))))
        _append(self.views_file, self.next_views, [found.views for found in new])
        if fresh:
            _append(self.inputs_file, self.next_inputs, [found.input for found in fresh])
        rows = [(self.kind, views[found.facts.sha256], *(getattr(found.facts, field.name) for field in fields(Facts))) for found in new]
        with self.transaction():
            self.database.executemany(f"insert or replace into facts values ({', '.join('?' * (2 + len(fields(Facts))))})", rows)
            self.database.executemany(
                "insert or replace into inputs values (?, ?, ?, ?)", [(self.kind, self.size, slot, sha256) for sha256, slot in slots.items()]
            )
        self.next_views, self.next_inputs = self.next_views + len(views), self.next_inputs + len(slots)
        known.update({found.facts.sha256: (found.facts, views[found.facts.sha256]) for found in new})
        if inputs is not None:
            inputs.update(slots)
        pending.clear()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block does to the database, or nothing of it, whatever interrupts."""
        self.database.execute("begin")
        try:
            yield
            self.database.execute("commit")
        except BaseException:
            if self.database.in_transaction:
                self.database.execute("rollback")
            raise

    def _prepared(self, found, known, inputs, decoded: int) -> Prepared:
        readable = [facts.sha256 for facts in found if isinstance(facts, Facts)]
        views = np.zeros((len(found), 2, VIEW, VIEW), np.uint8)
        pixels = None
        if readable:
            at = [position for position, facts in enumerate(found) if isinstance(facts, Facts)]
            views[at] = _mapped(self.views_file, (2, VIEW, VIEW))[[known[sha256][1] for sha256 in readable]]
            if inputs is not None:
                pixels = Pictures(_mapped(self.inputs_file, (self.size, self.size, 3)), np.array([inputs[sha256] for sha256 in readable]))
        return Prepared(tuple(found), views, pixels, decoded)


def _records(file: Path, length: int) -> int:
    """Return how many whole records of `length` bytes stand in `file`."""
    try:
        return file.stat().st_size // length
    except FileNotFoundError:
        return 0


def _mapped(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return the records of `file`, uint8 [records, *shape], mapped into memory for reading."""
    return np.memmap(file, np.uint8, "r", shape=(_records(file, int(np.prod(shape))), *shape))


def _append(file: Path, first: int, arrays: list[np.ndarray]) -> None:
    """Write `arrays` as records from number `first` on, and see them safely on disk."""
    if not arrays:
        return
    content = np.stack(arrays).tobytes()
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT, 0o666)
    with os.fdopen(descriptor, "wb", buffering=0) as out:
        out.seek(first * (len(content) // len(arrays)))
        written = 0
        while written < len(content):
            written += out.write(content[written:])
        os.fsync(descriptor)


def _version() -> str:
    """Return the name of the folder for this layout and these decoders: others' pixels may differ."""
    from PIL import __version__, features

    return f"1-pillow-{__version__}-jpeg-{features.version('libjpeg_turbo') or features.version('jpg') or 'none'}".replace("/", "-")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


