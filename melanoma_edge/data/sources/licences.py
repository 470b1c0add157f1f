"""Licences: which spellings are the same terms, and a listing of some terms only.

In: a listing and the licences to keep. Out: the listing of the pictures that stand under one of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from melanoma_edge.data.listing import Listing
from melanoma_edge.data.sources.facts import counts
from melanoma_edge.data.sources.tables import printable
from melanoma_edge.errors import BadInput

NOT_STATED = "not stated"
WORDS = {"attribution": "by", "noncommercial": "nc", "sharealike": "sa", "noderivatives": "nd", "noderivs": "nd", "zero": "0", "creativecommons": "cc"}
NOISE = {"http", "https", "www", "org", "licenses", "licence", "license", "publicdomain", "deed", "legalcode", "en", "international", "unported", "generic"}


def terms(licence: str) -> str:
    """Return what spellings of one licence share: `CC BY-NC`, `cc-by-nc 4.0` and its address are all `ccbync`.

    Versions of a Creative Commons licence are one; of any other, two.
    """
    text = re.sub(r"creative[\s_-]*commons", "creativecommons", licence.casefold())
    text = re.sub(r"non[\s_-]*commercial", "noncommercial", re.sub(r"share[\s_-]*alike", "sharealike", re.sub(r"no[\s_-]*deriv", "noderiv", text)))
    words = [WORDS.get(word, word) for word in re.findall(r"[^\W\d_]+|\d+(?:\.\d+)*", text) if word not in NOISE]
    if words[:1] == ["cc"]:
        words = [word for place, word in enumerate(words) if not word[0].isdigit() or (place == 1 and word == "0")]
    return "".join(words)


def keep_licences(listing: Listing, licences: Sequence[str]) -> Listing:
    """Return `listing` with the pictures under one of `licences` only; all of them where none is asked for.

    The others are counted in `filtered`, a licence that no picture has is noted. Raises BadInput when nothing is left.
    """
    wanted = {terms(licence): licence for licence in licences if licence.strip()}
    if not wanted:
        return listing
    family = {licence: terms(licence) for licence in {entry.licence for entry in listing.entries}}
    kept = tuple(entry for entry in listing.entries if family[entry.licence] in wanted)
    there = Counter(entry.licence or NOT_STATED for entry in listing.entries)
    if not kept:
        asked = ", ".join(printable(licence) for licence in wanted.values())
        raise BadInput(f"no picture of {printable(listing.root)} stands under {asked}: its licences are {counts(there)}; ask for one of these")
    filtered = Counter(entry.licence or NOT_STATED for entry in listing.entries if family[entry.licence] not in wanted)
    absent = [f"no picture stands under {printable(licence)}, which was asked for" for key, licence in wanted.items() if key not in family.values()]
    return replace(listing, entries=kept, filtered=dict(sorted(filtered.items())), notes=(*listing.notes, *absent))
