from __future__ import annotations
import csv, os
from pathlib import Path
from melanoma_edge.contract import CLASS_NAME_LENGTH
from melanoma_edge.data import image
from melanoma_edge.data.listing import Entry, Listing
from melanoma_edge.errors import BadInput
PARTS = ("train", "test", "val", "validation")
def classes_of(d):
    return {"benign keratosis": ("pigmented benign keratosis", "seborrheic keratosis")}.get(d.strip().lower(), ())
def read_listing(root, *, metadata=None, licences=()):
    root=Path(root)
    files = list_pictures(root)
    metadata = metadata or find_metadata(root)
    references = read_metadata(metadata) if metadata is not None else {}
    if metadata is not None and not any(Path(relative).stem in references for relative, _ in files):
        raise BadInput(f"{metadata} names none of the {len(files)} pictures below {root}: expected an image_id that is a file's name without its suffix; correct it, or move it away to go on without lesion ids")
    entries=[]
    for r,l in files:
        les,ref=references.get(Path(r).stem,("",""))
        entries.append(Entry(r,l,les,reference=ref,part=r.split("/")[0].lower() if r.split("/")[0].lower() in PARTS else ""))
    return Listing(root,"class folders",tuple(entries),tables=(metadata,) if metadata else (),outside=list_outside(root))
def find_metadata(root: Path) -> Path | None:
    """Return the metadata.csv of the data folder `root`, or None."""
    file = Path(root) / "metadata.csv"
    return file if file.is_file() else None


def list_pictures(root: Path) -> list[tuple[str, str]]:
    """Return (relative path, class) of every picture file below `root`, sorted by path.

    The class is the folder directly below `root`, or below its Train/ or Test/; what is hidden (a name
    that begins with a dot) is passed over. Raises BadInput when there is none, or for a folder whose name
    cannot be a class's.
    """
    root = Path(root)
    if not os.path.exists(root):
        raise BadInput(f"{root} is missing: expected a folder with one folder a class")
    if not root.is_dir():
        raise BadInput(f"{root} is a file: expected a folder with one folder a class")
    found = []
    for folder in sorted(_folders(root)):
        is_part = folder.name.lower() in PARTS
        for class_folder in sorted(_folders(folder)) if is_part else [folder]:
            name = class_folder.name.strip()
            pictures = [file for file in sorted(class_folder.rglob("*")) if _is_picture(file, root)]
            if pictures and not 1 <= len(name) <= CLASS_NAME_LENGTH:
                raise BadInput(f"the class folder {str(class_folder)!r} has a name of {len(name)} characters: expected 1 to {CLASS_NAME_LENGTH}; rename it")
            found += [(file.relative_to(root).as_posix(), name) for file in pictures]
    if not found:
        suffixes = " ".join(sorted(image.SUFFIXES))
        outside = len(list_outside(root))
        loose = f" ({outside} stand in no class folder)" if outside else ""
        raise BadInput(f"{root} holds no pictures in class folders{loose}: expected {root}/<class>/*.jpg (any of {suffixes})")
    return found


def list_outside(root: Path) -> tuple[str, ...]:
    """Return the picture files directly below `root` or its Train/ or Test/, relative to it, sorted."""
    root = Path(root)
    places = [root, *(folder for folder in sorted(_folders(root)) if folder.name.lower() in PARTS)]
    return tuple(file.relative_to(root).as_posix() for place in places for file in sorted(place.iterdir()) if _is_picture(file, root))


def read_metadata(path: Path) -> dict[str, tuple[str, str]]:
    """Return {image id: (lesion id, reference diagnosis)} from the CSV `path`.

    It needs the column `image_id` (or `isic_id`, `image`); `lesion_id` and `reference_diagnosis` (or
    `diagnosis`) are used where there. Raises BadInput for a missing file or column, or an id with
    two different rows.
    """
    path = Path(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            key = next((name for name in ("image_id", "isic_id", "image") if name in columns), None)
            if key is None:
                shown = _printable(", ".join(columns))[:200] or "(none)"
                raise BadInput(f"{path} has the columns {shown}: expected image_id (or isic_id, image)")
            diagnosis = "reference_diagnosis" if "reference_diagnosis" in columns else "diagnosis"
            rows: dict[str, tuple[str, str]] = {}
            for row in reader:
                name = (row[key] or "").strip()
                if name.lower().endswith(tuple(image.SUFFIXES)):
                    name = Path(name).stem
                if not name:  # spreadsheets write rows of commas below a table
                    continue
                value = ((row.get("lesion_id") or "").strip(), (row.get(diagnosis) or "").strip())
                if rows.setdefault(name, value) != value:
                    raise BadInput(f"{path} line {reader.line_num}: {_printable(name)} stands twice with different facts; keep one row an image")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path} cannot be read as CSV: {error}; expected UTF-8 with a header line") from None
    return rows


def _is_picture(file: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return file.suffix.lower() in image.SUFFIXES and not hidden and not file.is_dir()


def _folders(root: Path) -> list[Path]:
    try:
        return [entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise BadInput(f"{root} cannot be listed ({error.strerror}): expected a readable folder") from None


def _printable(text: str) -> str:
    """Return `text` as one line."""
    return text if text.isprintable() else repr(text)[1:-1]


