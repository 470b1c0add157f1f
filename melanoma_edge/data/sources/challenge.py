"""The ground truth of two challenges: ISIC 2018 Task 3 and ISIC 2019.

In: a table with a column for every diagnosis, a 1 in one of them. Out: facts by id. Lesion ids stand in
tables of their own (ISIC2018_Task3_Training_LesionGroupings.csv, ISIC_2019_Training_Metadata.csv).
"""

from __future__ import annotations

from collections.abc import Iterator

from melanoma_edge.data.sources.diagnoses import HAM10000, ISIC_2018, ISIC_2019, meaning
from melanoma_edge.data.sources.facts import Facts, by_id, common_columns
from melanoma_edge.data.sources.ham10000 import ATTRIBUTION, LICENCE, is_ham10000
from melanoma_edge.data.sources.tables import ONE_HOT, Table, printable
from melanoma_edge.errors import BadInput

MSK = "MSK: anonymous, arXiv:1710.05006, arXiv:1902.03368"
ATTRIBUTIONS = {
    ISIC_2018: f"{ATTRIBUTION}; {MSK}",
    ISIC_2019: f"Department of Dermatology, Hospital Clínic de Barcelona (BCN_20000: Combalia et al. 2019, arXiv:1908.02288); {MSK}",
}
"""Whom the challenge's page names for the pictures that are not HAM10000's; it does not say which is whose."""


def challenge_facts(table: Table, part: str = "") -> dict[str, Facts]:
    """Return {image: facts} of a one-hot table; `akiec` tells 2018 from 2019, which has `ak` and `scc`.

    Raises BadInput for a row that has no 1, or several, or anything but 0 and 1.
    """
    source = ISIC_2018 if table.has("akiec") else ISIC_2019
    lesions, patients, _, _ = common_columns(table)
    rows = zip(table.ids(), _codes(table), lesions, patients)
    return by_id(table, (_facts(source, name, code, lesion, patient, part) for name, code, lesion, patient in rows))


def _codes(table: Table) -> Iterator[str]:
    """Yield the name of the column with the 1, row by row; empty for a row that names no picture."""
    codes = [name for name in ONE_HOT if table.has(name)]
    for name, line, *fields in zip(table.ids(), table.lines, *(table.column(code) for code in codes)):
        try:
            values = [float(field or 0) for field in fields]
        except ValueError:
            values = [-1.0]
        ones = [code for code, value in zip(codes, values) if value == 1]
        if name and (len(ones) != 1 or any(value not in (0, 1) for value in values)):
            found = "other values than 0 and 1" if any(value not in (0, 1) for value in values) else f"{len(ones) or 'no'} diagnoses"
            raise BadInput(
                f"{printable(table.path)} line {line}: {printable(name)} has {found}: expected one 1 among {', '.join(codes).upper()}; "
                "give the ground truth, not a prediction"
            )
        yield ones[0].upper() if name else ""


def _facts(source: str, name: str, code: str, lesion: str, patient: str, part: str) -> Facts:
    ham = is_ham10000(name)
    found = meaning(source, code)
    label = found.label if found else ""
    if found and ham and not label and (other := meaning(HAM10000, code)):
        label = other.label
    return Facts(code, label, lesion, patient, part, LICENCE, ATTRIBUTION if ham else ATTRIBUTIONS[source], source)
