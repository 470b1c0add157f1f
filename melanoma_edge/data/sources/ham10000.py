"""HAM10000 as Harvard Dataverse gives it out (doi:10.7910/DVN/DBW86T).

In: HAM10000_metadata (lesion_id, image_id, dx, dx_type, age, sex, localization, dataset). Out: facts by id.
"""

from __future__ import annotations

import re

from melanoma_edge.data.sources.diagnoses import HAM10000, meaning
from melanoma_edge.data.sources.facts import Facts, by_id
from melanoma_edge.data.sources.tables import Table

LICENCE = "CC-BY-NC"
ATTRIBUTION = (
    "ViDIR Group, Department of Dermatology, Medical University of Vienna "
    "(HAM10000: Tschandl, Rosendahl, Kittler 2018, doi:10.1038/sdata.2018.161)"
)
FIRST, LAST = 24306, 34320
"""Numbers of its 10,015 pictures in the ISIC Archive, without a gap."""


def is_ham10000(name: str) -> bool:
    """Return whether the picture id `name` is one of HAM10000's."""
    number = re.fullmatch(r"ISIC_([0-9]{7})", name)
    return bool(number) and FIRST <= int(number[1]) <= LAST


def ham10000_facts(table: Table, part: str = "") -> dict[str, Facts]:
    """Return {image_id: facts}."""
    return by_id(table, (_facts(dx, lesion, part) for dx, lesion in zip(table.column("dx"), table.column("lesion_id"))))


def _facts(dx: str, lesion: str, part: str) -> Facts:
    found = meaning(HAM10000, dx)
    return Facts(dx, found.label if found else "", lesion, part=part, licence=LICENCE, attribution=ATTRIBUTION, source=HAM10000)
