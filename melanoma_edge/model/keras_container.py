"""The two kinds of file that Keras writes, read without Keras: a zip archive (`.keras`) and an HDF5 file (`.h5`, `.hdf5`).

In: a file that somebody else made. Out: a private copy of it under the one name by which tf_keras takes it for the kind that was
looked at, and the description of the network in it. tf_keras goes by the letters of the name: an HDF5 file called `x.KERAS` is
loaded as the old kind, for which it has no safe mode. So one file must be of one kind only, by name and content, and hold nothing but a
network and its numbers: no link to another file, no member besides.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from melanoma_edge.errors import BadInput, Error
from melanoma_edge.files import explained

SUFFIXES = (".keras", ".h5", ".hdf5")
CONFIG, METADATA, WEIGHTS, ARRAYS = "config.json", "metadata.json", "model.weights.h5", "model.weights.npz"
MEMBERS = (CONFIG, METADATA, WEIGHTS, ARRAYS)
"""What tf_keras writes into an archive for layers that keep no files of their own."""
MOST_BYTES = 64 * 2**20
"""A longer description of a network is refused unread."""
MOST_WEIGHTS = 4 * 2**30
"""So are more bytes of weights, which a small archive can claim to unpack to."""
ZIP_MARK, HDF5_MARK = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"


@contextlib.contextmanager
def private_copy(path: Path) -> Iterator[Path]:
    """Yield a copy of the file `path`, called `model.keras` or `model.h5`, which nobody else changes between look and load.

    Raises BadInput for names that are not a Keras file's, files that cannot be read, and content of another kind than the name says.
    """
    zipped = _zipped(path)
    with tempfile.TemporaryDirectory(prefix="melanoma-edge-") as folder:
        copy = Path(folder) / ("model.keras" if zipped else "model.h5")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BadInput(f"{path.name} cannot be read ({error.strerror}): give another file") from None
        with explained(copy):
            copy.write_bytes(content)
        del content
        _refuse_other_kind(copy, zipped, path.name)
        yield copy


def description(copy: Path, name: str) -> tuple[Any, str]:
    """Return (description of the network, version of Keras) of a :func:`private_copy`, called `name` in messages.

    Raises BadInput for damaged files, and for those that hold more than a network and its numbers.
    """
    zipped = copy.suffix == ".keras"
    try:
        text, version = _of_zip(copy, name) if zipped else _of_hdf5(copy, name)
    except Error:
        raise
    except Exception as error:  # h5py and zipfile raise nearly anything on a damaged file
        raise BadInput(f"{name} is not {_kind(zipped)} ({line(error)}): save the model again") from None
    try:
        return json.loads(text), version  # by the same parser as tf_keras, so that a key that stands twice means the same to both
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{name} holds no readable description of a network ({type(error).__name__}): save the model again") from None


def line(error: BaseException) -> str:
    """Return what an error says, short, as one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _zipped(path: Path) -> bool:
    if path.suffix.lower() not in SUFFIXES:
        raise BadInput(f"{path.name} is not called a Keras file: expected one of {', '.join(SUFFIXES)}")
    return path.suffix.lower() == ".keras"


def _kind(zipped: bool) -> str:
    return "a .keras archive" if zipped else "an HDF5 file of Keras"


def _refuse_other_kind(copy: Path, zipped: bool, name: str) -> None:
    """Raise BadInput where the content is of the other kind, of both, or of neither."""
    with open(copy, "rb") as file:
        start = file.read(len(HDF5_MARK))
    archive = zipfile.is_zipfile(copy)
    hdf5 = start == HDF5_MARK
    if archive and hdf5:
        raise BadInput(f"{name} is a zip archive and an HDF5 file at once, so that readers disagree on what is in it: save the model again")
    if zipped and hdf5:
        raise BadInput(f"{name} is not a .keras archive but an HDF5 file: call it {Path(name).stem}.h5, or save the model again")
    if not zipped and archive:
        raise BadInput(f"{name} is not an HDF5 file of Keras but a zip archive: call it {Path(name).stem}.keras, or save the model again")
    if not (archive and start.startswith(ZIP_MARK) if zipped else hdf5):
        raise BadInput(f"{name} is not {_kind(zipped)} (it begins or ends otherwise): save the model again")


def _of_zip(copy: Path, name: str) -> tuple[bytes, str]:
    import h5py

    with zipfile.ZipFile(copy) as archive:
        members = archive.namelist()
        if others := [member for member in members if member not in MEMBERS]:
            raise BadInput(f"{name} holds {_shown(others[0])} besides a network and its weights: expected {', '.join(MEMBERS[:3])} only; save the model with model.save")
        if len(set(members)) < len(members):
            raise BadInput(f"{name} holds one file twice, so that readers disagree on what is in it: save the model again")
        for entry in archive.infolist():
            most = MOST_BYTES if entry.filename in (CONFIG, METADATA) else MOST_WEIGHTS
            if entry.file_size > most:
                what = "describes its network in" if most == MOST_BYTES else "unpacks to"
                raise BadInput(f"{name} {what} more than {most // 2**20} MB: expected a Keras model; save it again")
        if CONFIG not in members:
            raise BadInput(f"{name} holds no {CONFIG}: expected a whole model; save it with model.save")
        version = ""
        if METADATA in members:
            facts = json.loads(archive.read(METADATA))
            version = str(facts.get("keras_version", "")) if isinstance(facts, dict) else ""
        if WEIGHTS in members:
            with archive.open(WEIGHTS) as opened, h5py.File(opened, "r") as weights:
                _refuse_links(weights, name)
        return archive.read(CONFIG), version


def _of_hdf5(copy: Path, name: str) -> tuple[str | bytes, str]:
    import h5py

    with h5py.File(copy, "r") as file:
        if "model_config" not in file.attrs:
            raise BadInput(f"{name} holds weights without a network: expected a whole model; save it with model.save")
        text, version = file.attrs["model_config"], file.attrs.get("keras_version", "")
        if not isinstance(text, (str, bytes)):
            raise BadInput(f"{name} holds no readable description of a network ({type(text).__name__}): save the model again")
        if len(text) > MOST_BYTES:
            raise BadInput(f"{name} describes its network in more than {MOST_BYTES // 2**20} MB: expected a Keras model; save it again")
        _refuse_links(file, name)
    return text, version.decode("utf-8", "replace") if isinstance(version, bytes) else str(version)


def _refuse_links(file, name: str) -> None:
    """Raise BadInput where numbers of an open HDF5 file stand elsewhere: HDF5 reads any file of the machine that a link names."""
    import h5py

    waiting, seen = [file], set()
    while waiting:
        group = waiting.pop()
        for key in group:
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise BadInput(f"{name} keeps {_shown(key)} as a link to elsewhere: expected a file that holds its own weights; save the model again")
            held = group[key]
            if isinstance(held, h5py.Dataset):
                if held.external or held.is_virtual:
                    raise BadInput(f"{name} keeps the numbers of {_shown(key)} in another file: expected a file that holds its own weights; save the model again")
                continue
            place = h5py.h5o.get_info(held.id).addr
            if isinstance(held, h5py.Group) and place not in seen:  # a group may hold itself
                seen.add(place)
                waiting.append(held)


def _shown(text: str) -> str:
    """Return a name from a file as a short piece of one line."""
    return repr(text) if len(text) <= 60 else repr(text[:57] + "...")
