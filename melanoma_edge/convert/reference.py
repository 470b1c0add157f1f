"""The reference bundle, which is installed with the package: commands that only read a bundle take its name.

In: what was named as a bundle. Out: the folder of the reference bundle where that was named, else what was named. It is shared by everything
on this machine, and may belong to another user: nothing is written into it, and who wants to add evidence takes a copy.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import melanoma_edge
from melanoma_edge.convert.bundle import MANIFEST, open_bundle
from melanoma_edge.errors import BadInput, Missing
from melanoma_edge.files import new_folder

NAME = "reference"
FOLDER = "reference.bundle"
REMEDY = "install a released wheel, or make it with `make reference` in a checkout"


def installed() -> Path | None:
    """Return the folder of the reference bundle, None where this installation has none."""
    package = Path(melanoma_edge.__file__).parent
    checkout = [package.parent / "samples"] if (package.parent / "setup.cfg").is_file() else []  # an editable installation runs from there, too
    return next((folder / FOLDER for folder in (*checkout, package / "samples") if (folder / FOLDER / MANIFEST).is_file()), None)


def named(path: Path) -> bool:
    """Return whether `path` means the reference bundle: its name, where nothing of that name stands in the current folder."""
    return str(path) == NAME and not Path(path).exists()


def to_read(path: Path) -> Path:
    """Return the folder of the bundle that `path` means, to read only. Raises Missing where that is the reference bundle and there is none."""
    if not named(path):
        return Path(path)
    found = installed()
    if found is None:
        raise Missing(f"there is no folder {NAME} here, and this installation has no reference bundle: {REMEDY}, or name a bundle's folder")
    return found


def to_write(path: Path) -> Path:
    """Return `path`, to write evidence into; raises BadInput where it means the reference bundle."""
    if named(path):
        to_read(path)
        raise BadInput(f"{NAME} is the installed bundle, into which no evidence is written: copy it with `melanoma-edge samples my.bundle --reference`, and name my.bundle")
    return Path(path)


def copy(out: Path, *, force: bool = False) -> Path:
    """Copy the reference bundle to the new folder `out` and return it. Raises Missing where there is none, BadInput for an existing `out` (unless `force`)."""
    source = installed()
    if source is None:
        raise Missing(f"this installation has no reference bundle: {REMEDY}")
    open_bundle(source)
    with new_folder(out, force=force, mark=MANIFEST) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
    return Path(out)
