"""Class folders: DATA/<class>/..., or DATA/Train/<class>/... and DATA/Test/<class>/....

In: the files of a folder and, where there is one, a table's facts. Out: a listing; the class is the folder.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from melanoma_edge.contract import CLASS_NAME_LENGTH
from melanoma_edge.data.classes import class_names, name_key
from melanoma_edge.data.listing import Entry, Listing
from melanoma_edge.data.sources.diagnoses import listed
from melanoma_edge.data.sources.facts import DOWNSAMPLED, PARTS, Facts, find
from melanoma_edge.data.sources.files import Files, stem
from melanoma_edge.data.sources.tables import printable
from melanoma_edge.errors import BadInput

KIND = "class folders"


def class_folder(path: str) -> tuple[str, str] | None:
    """Return (folder above, class folder) of the picture at the relative `path`; None where it is in no class folder."""
    parts = path.split("/")
    above = parts[0] if parts[0].lower() in PARTS else ""
    folders = parts[1 if above else 0 : -1]
    return (above, folders[0]) if folders else None


def folder_names(files: Files) -> set[str]:
    """Return the names of all class folders that hold a picture."""
    found = {class_folder(path) for path in files.pictures}
    return {folder[1] for folder in found if folder}


def list_by_folder(files: Files, facts: Mapping[str, Facts] | None, tables: Iterable[Path] = ()) -> Listing:
    """Return the listing of the pictures in class folders, with what `facts` know of them.

    Raises BadInput when there is none, for a folder whose name cannot be a class's, and when `facts` know
    none of the pictures: lesion ids would be missing unnoticed.
    """
    tables = tuple(tables)
    places = {path: class_folder(path) for path in files.pictures}
    pictures: Counter[tuple[str, str]] = Counter(place for place in places.values() if place)
    spelled: Counter[str] = Counter()
    for (above, folder), count in pictures.items():
        _check_name(folder, files.root / above / folder)
        spelled[folder] += count
    _refuse_wrapper(files, places)
    names = class_names(spelled)
    entries, known = [], set()
    for path, place in places.items():
        if place is None:
            continue
        above, folder = place
        value = find(facts, stem(path)) if facts is not None else None
        if value is None:
            value = Facts()
        else:
            known.update((stem(path), stem(path).removesuffix(DOWNSAMPLED)))
        part = PARTS.get(above.lower(), "") or value.part
        entries.append(Entry(path, names[folder], value.lesion, value.patient, part, value.diagnosis, value.licence, value.attribution, KIND))
    if facts is not None and entries and not known:
        raise BadInput(
            f"{', '.join(map(printable, tables))} names none of the {len(entries)} pictures below {printable(files.root)}: expected an image_id that is "
            "a file's name without its suffix; correct it, or move it away to go on without lesion ids"
        )
    return Listing(
        root=files.root,
        source=KIND,
        entries=tuple(entries),
        tables=tables,
        outside=tuple(path for path, place in places.items() if place is None),
        other_files=files.counted(tables),
        without_picture=tuple(sorted(name for name in facts or () if name not in known)),
        notes=(*files.notes, *_joined(pictures, names)),
    )


def _refuse_wrapper(files: Files, places: Mapping[str, tuple[str, str] | None]) -> None:
    """Raise BadInput where all pictures stand in one folder that itself holds parts or diagnoses: unpacked one level too high."""
    folders = {place for place in places.values() if place}
    if len(folders) != 1:
        return
    [(above, wrapper)] = folders
    depth = 2 if above else 1
    inner = {path.split("/")[depth] for path, place in places.items() if place and path.count("/") > depth}
    telling = sorted(name for name in inner if name.lower() in PARTS or listed(name))
    if len(telling) > 1 or any(name.lower() in PARTS for name in telling):
        there = files.root / above / wrapper
        raise BadInput(
            f"{printable(files.root)} holds one folder, {wrapper!r}, and that holds {', '.join(map(repr, telling[:4]))}: expected these directly; "
            f"give {printable(there)}"
        )


def _check_name(folder: str, path: Path) -> None:
    name = folder.strip()
    if not 1 <= len(name) <= CLASS_NAME_LENGTH:
        raise BadInput(f"the class folder {str(path)!r} has a name of {len(name)} characters: expected 1 to {CLASS_NAME_LENGTH}; rename it")
    if not name_key(name):
        raise BadInput(f"the class folder {str(path)!r} has a name without letters and digits: expected the name of a class; rename it")


def _joined(folders: Iterable[tuple[str, str]], names: Mapping[str, str]) -> list[str]:
    """Return a line for each class that several folders of one parent hold."""
    together = defaultdict(list)
    for above, folder in sorted(folders):
        together[above, names[folder]].append(folder)
    return [
        f"the folders {' and '.join(repr(folder) for folder in found)}{f' of {above}' if above else ''} are one class: {printable(name)}"
        for (above, name), found in together.items()
        if len(found) > 1
    ]
