"""A download from the ISIC Archive, as isic-cli and the gallery write it.

In: its metadata.csv (isic_id, attribution, copyright_license, then the fields that any of the pictures has).
Out: facts by id. Diagnoses stand in five levels (diagnosis_1 ... diagnosis_5), in older downloads in one
column, in some in both. Columns and vocabulary: github.com/ImageMarkup/isic-cli and /isic-metadata.
"""

from __future__ import annotations

from melanoma_edge.data.sources.diagnoses import ARCHIVE, ARCHIVE_OLDER, HIERARCHY, meaning
from melanoma_edge.data.sources.facts import Facts, by_id, common_columns, fields
from melanoma_edge.data.sources.tables import DIAGNOSES, Table

DERMOSCOPIC = ("", "dermoscopic")
"""What `image_type` may say; the others are `clinical: ...`, `TBP tile: ...` and `RCM: ...`."""


def archive_facts(table: Table) -> dict[str, Facts]:
    """Return {isic_id: facts}; pictures that are not dermoscopic have a `kind`.

    The most specific level that the table of diagnoses lists decides; the older column comes between the
    third level and the two coarse ones.
    """
    levels = zip(*(table.column(name) for name in DIAGNOSES))
    columns = zip(levels, table.column("diagnosis"), table.column("image_type"), *common_columns(table))
    return by_id(table, (_facts(list(levels), older, kind, fields(*rest)) for levels, older, kind, *rest in columns))


def _facts(levels: list[str], older: str, kind: str, rest: dict[str, str]) -> Facts:
    fine, coarse = [level for level in reversed(levels[2:]) if level], [level for level in reversed(levels[:2]) if level]
    found = meaning(ARCHIVE, *fine) or (older and meaning(ARCHIVE_OLDER, older)) or meaning(ARCHIVE, *coarse)
    diagnosis = HIERARCHY.join(level for level in levels if level) or older
    return Facts(diagnosis, found.label if found else "", source=ARCHIVE, kind="" if kind.lower() in DERMOSCOPIC else kind, **rest)
