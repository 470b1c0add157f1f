"""Reading the CSV files that people and archives write.

In: a file. Out: a :class:`Table` with the columns that any source may need. UTF-8 with or without a byte-order
mark, any line ends, fields separated by commas, semicolons or tabs (the header line tells).
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from melanoma_edge.data.image import SUFFIXES
from melanoma_edge.data.listing import COLUMNS
from melanoma_edge.errors import BadInput

SEPARATORS = ",;\t"
ID_COLUMNS = ("image_id", "isic_id", "image")
"""Columns that name a picture, in the order in which they are looked for."""
ONE_HOT = ("mel", "nv", "bcc", "akiec", "ak", "bkl", "df", "vasc", "scc", "unk")
"""Columns of the challenges' ground truth (there in capitals)."""
DIAGNOSES = ("diagnosis_1", "diagnosis_2", "diagnosis_3", "diagnosis_4", "diagnosis_5")
"""The ISIC Archive's hierarchy, from the coarsest."""
LICENCES = ("copyright_license", "licence", "license")
WANTED = frozenset(
    {*ID_COLUMNS, *ONE_HOT, *DIAGNOSES, *LICENCES, *COLUMNS, "dx", "diagnosis", "reference_diagnosis", "lesion_id", "patient_id", "attribution", "image_type"}
)
"""Columns that are kept; an archive's table has dozens more."""
IMAGE_SUFFIXES = tuple(SUFFIXES)
SHOWN = 200


@dataclass(frozen=True)
class Table:
    """A CSV file: the columns that it has of those that were wanted, in small letters, each with a field for every row."""

    path: Path
    columns: dict[str, list[str]]
    """{column: fields}, exactly as they stand in the file."""
    lines: list[int]
    """Line of the file on which each row ends."""
    header: tuple[str, ...]
    """All columns, as the file spells them."""

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def ignored(self) -> tuple[str, ...]:
        """Columns that are not in WANTED."""
        return tuple(name for name in self.header if name and name.lower() not in WANTED)

    def has(self, *names: str) -> bool:
        return all(name in self.columns for name in names)

    def column(self, *names: str) -> list[str]:
        """Return the fields of the first of `names` that is there, stripped; empty ones where none is."""
        for name in names:
            if name in self.columns:
                return [field.strip() for field in self.columns[name]]
        return [""] * len(self)

    def ids(self) -> list[str]:
        """Return the picture that each row names, without folders and suffix; empty where a row names none.

        Raises BadInput where there is no such column.
        """
        if not any(name in self.columns for name in ID_COLUMNS):
            raise BadInput(f"{printable(self.path)} has the columns {self.shown()}: expected image_id (or isic_id, image)")
        return [Path(name).stem if name.lower().endswith(IMAGE_SUFFIXES) else name for name in self.column(*ID_COLUMNS)]

    def shown(self) -> str:
        """Return the names of the columns for a message."""
        return printable(", ".join(self.header))[:SHOWN] or "(none)"


def read_table(path: Path, also: Collection[str] = ()) -> Table:
    """Read the CSV file `path`: the columns of WANTED, and those called `also` (in small letters).

    Raises BadInput, in one line, for a file that is missing or no CSV in UTF-8, for a column that stands
    twice and for a row with more fields than the header.
    """
    path = Path(path)
    shown = printable(path)
    try:
        if not path.is_file() and path.exists() and not path.is_dir():
            raise BadInput(f"{shown} is no ordinary file: expected CSV in UTF-8; save it first")  # a pipe would be waited for
        with open(path, newline="", encoding="utf-8-sig") as file:
            separator = _separator(file)
            file.seek(0)
            reader = csv.reader(_lines(file, path), delimiter=separator, strict=True)
            header = [name.strip() for name in next(reader, [])]
            places = {}
            for place, name in enumerate(header):
                if (name.lower() in WANTED or name.lower() in also) and places.setdefault(name.lower(), place) != place:
                    raise BadInput(f"{shown} has the column {name} twice: keep one of them")
            columns: dict[str, list[str]] = {name: [] for name in places}
            lines = []
            for row in reader:
                if not any(row):  # spreadsheets write rows of commas below a table
                    continue
                if any(field.strip() for field in row[len(header) :]):
                    raise BadInput(
                        f"{shown} line {reader.line_num} has {len(row)} fields: expected {len(header)}, one a column; put quotes around a field with {separator!r}"
                    )
                for name, place in places.items():
                    columns[name].append(row[place] if place < len(row) else "")
                lines.append(reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = printable(str((isinstance(error, OSError) and error.strerror) or error))
        raise BadInput(f"{shown} cannot be read as CSV: {reason}; expected UTF-8 with a header line") from None
    except ValueError:  # a NUL in the path
        raise BadInput(f"{shown} cannot be read as CSV: it is no file name; expected UTF-8 with a header line") from None
    return Table(path, columns, lines, tuple(header))


def printable(text: str | Path) -> str:
    """Return `text` as one line that can be printed anywhere."""
    text = str(text)
    return text if text.isprintable() else repr(text)[1:-1]


def _separator(file: Iterable[str]) -> str:
    """Return what separates the fields of the header line; a comma where nothing does."""
    head = ""
    for line in file:
        head += line
        if head.count('"') % 2 == 0 and head.strip():
            break
        if len(head) > csv.field_size_limit():
            break
    fields = {}
    for separator in SEPARATORS:
        try:
            fields[separator] = next(csv.reader([head], delimiter=separator), [])
        except csv.Error:
            fields[separator] = []
    # A name that is known weighs more than a separator that stands inside of a name.
    return max(SEPARATORS, key=lambda separator: (sum(name.strip().lower() in WANTED for name in fields[separator]), len(fields[separator])))


def _lines(file: Iterable[str], path: Path) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        if "\0" in line:
            raise BadInput(f"{printable(path)} line {number} holds a NUL character: expected CSV as text in UTF-8; save the table again")
        yield line
