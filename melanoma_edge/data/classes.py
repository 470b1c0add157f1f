"""The nine classes, and how spellings of a class's name are joined.

In: names of folders or of a table's classes. Out: one spelling for each class.
"""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping

CLASSES = (
    "actinic keratosis",
    "basal cell carcinoma",
    "dermatofibroma",
    "melanoma",
    "nevus",
    "pigmented benign keratosis",
    "seborrheic keratosis",
    "squamous cell carcinoma",
    "vascular lesion",
)
"""The classes of the nine-class ISIC set, sorted. Other sets may have others; these are the ones that diagnoses are mapped to."""


@functools.lru_cache(maxsize=4096)
def name_key(name: str) -> str:
    """Return what two spellings of one class share: no case, no spaces, underscores, hyphens or dashes.

    Empty for a name that has nothing else.
    """
    folded = unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
    return unicodedata.normalize("NFC", "".join(letter for letter in folded if not _joins(letter)))


def class_names(counts: Mapping[str, int]) -> dict[str, str]:
    """Return {spelling: name of its class} for the spellings in `counts`, {spelling: pictures}.

    Spellings of one key are one class. It is named as the known class of that key, or else as the spelling
    with most pictures (of equals the first in sort order), with single spaces for underscores and white space.
    """
    spellings = defaultdict(list)
    for spelling in counts:
        spellings[name_key(spelling)].append(spelling)
    names = {}
    for key, found in spellings.items():
        shown = KNOWN.get(key)
        if shown is None:
            totals: Counter[str] = Counter()
            for spelling in found:
                totals[_tidy(spelling)] += counts[spelling]
            shown = min(totals, key=lambda spelling: (-totals[spelling], spelling))
        names.update(dict.fromkeys(found, shown))
    return names


def _tidy(spelling: str) -> str:
    return " ".join(spelling.replace("_", " ").split())


def _joins(letter: str) -> bool:
    return letter == "_" or letter.isspace() or unicodedata.category(letter) == "Pd"


KNOWN = {name_key(name): name for name in CLASSES}
"""{key: known class}."""
