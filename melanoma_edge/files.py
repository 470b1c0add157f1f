"""Writing files so that each is whole or absent, and hashing them.

Every file or folder that melanoma-edge leaves behind is first written beside its target under a
temporary name and then renamed over it, so an interruption leaves the old state or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from melanoma_edge.errors import BadInput, Missing

TEMPORARY_PREFIX = ".partial-"


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of the file's bytes as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json(value: Any) -> str:
    """Return `value` as JSON with a stable layout; NaN and infinity are refused, not written."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically, replacing what was there.

    Raises Missing when the disk is full or the folder cannot be written, BadInput when it is not there.
    """
    path = Path(path)
    temporary = None
    with explained(path):
        try:
            try:
                descriptor, temporary = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=path.parent)
            except FileNotFoundError:
                raise BadInput(f"{path} cannot be written (there is no such folder): make it or choose another path") from None
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
            temporary = None
        finally:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)


def write_text(path: Path, content: str) -> None:
    """Write `content` to `path` as UTF-8, atomically. Raises as :func:`write_bytes` does."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as JSON, atomically. Raises as :func:`write_bytes` does."""
    write_text(path, to_json(value))


def read_json(path: Path, what: str) -> Any:
    """Read the JSON file `path`, called `what` in messages.

    Raises BadInput when it is missing or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path} is missing: expected {what}; make it again or give another folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read as {what}: {error}; make it again") from None


@contextlib.contextmanager
def new_folder(target: Path, *, force: bool = False, mark: str | None = None) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes `target` when the block ends without an error.

    An existing `target` is refused (BadInput) unless `force`, and then replaced only at the very
    end, so what was there stays when the block fails. Nothing half-written is left behind. With `force`
    only a folder that holds `mark`, as every earlier result does, is replaced; without a mark, anything.
    """
    target = Path(target)
    if target.name in ("", ".."):
        raise BadInput(f"{target} cannot be made or replaced: expected the name of a folder to make; choose another path")
    refuse_existing(target, force=force, mark=mark)
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=target.parent))
    try:
        yield temporary
        with explained(target):
            os.chmod(temporary, 0o777 & ~_umask())
            refuse_existing(target, force=force, mark=mark)  # it may have come into being meanwhile
            _put_in_place(temporary, target)
    except OSError as error:
        if error.filename is not None and TEMPORARY_PREFIX in str(error.filename) or error.errno in (errno.ENOSPC, errno.EDQUOT):
            with explained(target):  # written in the folder; what the block reads elsewhere speaks for itself
                raise
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def cache_folder() -> Path:
    """Return where prepared pictures are kept: MELANOMA_EDGE_CACHE, else melanoma-edge in the user's cache folder."""
    named = os.environ.get("MELANOMA_EDGE_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    if base and os.path.isabs(base):
        return Path(base) / "melanoma-edge"
    try:
        return Path.home() / ".cache" / "melanoma-edge"
    except RuntimeError:
        raise Missing("there is no home folder to keep prepared pictures in: set MELANOMA_EDGE_CACHE, or give --cache DIR") from None


def refuse_existing(target: Path, *, force: bool | None = False, mark: str | None = None) -> None:
    """Raise BadInput when `target` exists and `force` was not asked for (an empty folder passes).

    None for `force` says that it cannot be asked for, so the message does not name it.
    With `force` and `mark`, a `target` without a file or folder of that name in it is refused too: it is
    somebody's own, not an earlier result.
    """
    target = Path(target)
    with explained(target):
        if not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir())):
            return
        if force and (mark is None or os.path.lexists(target / mark)):
            return
    if force:
        raise BadInput(f"{target} holds no {mark}, so no earlier result stands there: --force replaces nothing else; choose another path")
    raise BadInput(f"{target} exists already: expected a new path; choose another{'' if force is None else ' or give --force to replace it'}")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn operating-system errors about writing `path` into one clear line (Missing or BadInput)."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Missing(f"the disk is full while writing {path}: free some space and run the command again") from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise Missing(f"{_named(error, path)} cannot be written ({error.strerror}): choose a folder that you may write to") from None
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.EBUSY, errno.EINVAL, errno.ENOTEMPTY):
            raise BadInput(f"{_named(error, path)} cannot be written ({error.strerror}): choose another path") from None
        raise


def remove_folder(folder: Path, seconds: float = 5.0) -> None:
    """Remove `folder` and all in it, where a process that was just killed may still write for a moment.

    Gives up silently after `seconds`: a temporary folder that stays is no reason to fail.
    """
    deadline = time.monotonic() + seconds
    while os.path.lexists(folder):
        shutil.rmtree(folder, ignore_errors=True)
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)


def _named(error: OSError, path: Path) -> str | Path:
    """Return the path that `error` is about; `path` where it is about a temporary one beside it."""
    return path if error.filename is None or TEMPORARY_PREFIX in str(error.filename) else error.filename


def _put_in_place(folder: Path, target: Path) -> None:
    """Rename `folder` to `target`; when that fails, what stood there before stands there again."""
    if not os.path.lexists(target):
        os.replace(folder, target)
        return
    aside = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=target.parent))
    try:
        os.replace(target, aside / "old")
        os.replace(folder, target)
    except BaseException:
        with contextlib.suppress(OSError):
            if not os.path.lexists(target):
                os.replace(aside / "old", target)
            os.rmdir(aside)
        raise
    shutil.rmtree(aside)


def _umask() -> int:
    """Return the process's umask (there is no call that reads it without setting it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
