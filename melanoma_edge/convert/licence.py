"""LICENCE.txt of a bundle: under which terms its weights are, and whose pictures they learnt from.

In: the terms that whoever exports has named, and what the data set says of its pictures. Out: the text of the file. It is sealed like the
others, so that the terms go wherever the weights go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from melanoma_edge import NOTICE

LICENCE_FILE = "LICENCE.txt"
CREATIVE_COMMONS = re.compile(r"CC[ -](BY(?:-NC)?(?:-SA|-ND)?)[ -](\d\.\d)", re.IGNORECASE)
ZERO = re.compile(r"CC[ -]?0(?:[ -]1\.0)?", re.IGNORECASE)


def licence_text(
    licence: str, pictures: int | None = None, licences: Mapping[str, int] | None = None, attributions: Mapping[str, int] | None = None, *, stated: Sequence[str] = ()
) -> str:
    """Return the text of the file for weights under `licence`.

    `licences` and `attributions` count the pictures, of `pictures` in all, under each licence and by each name; None for all three where nobody knows what
    training used (a model of somebody else's). `stated` is whom or what whoever exports wants named beside them.
    """
    address = url(licence)
    lines = [
        f"Licence of the weights in this bundle: {licence}",
        *([address] if address else []),
        "",
        "It is the licence of the weights: of the numbers that training put into the model files of this bundle, in whatever format they stand there.",
        "It is not the licence of the software that made the bundle: melanoma-edge is under the Apache License, Version 2.0",
        "(https://www.apache.org/licenses/LICENSE-2.0), and that says nothing of these weights. The pictures in golden/ were drawn by that software.",
        "",
    ]
    named = ["", "Attribution, stated by whoever exported them:", *(f"  {_line(name)}" for name in stated)] if stated else []
    if pictures is None:
        return "\n".join([*lines, "On which pictures the weights were trained is not known: the model came as a file.", *named, "", NOTICE]) + "\n"
    lines += ["seen.txt holds hashes and fingerprints (8 x 8 shades of grey) of the pictures that training saw, and comes under the terms of those pictures.", ""]
    known = sum((licences or {}).values())
    lines += [f"The weights were trained on {pictures} pictures. Licences that the data set names for them:"]
    lines += [f"  {_line(name)}: {count} pictures" for name, count in (licences or {}).items()]
    lines += [f"  not stated: {pictures - known} pictures"] if known < pictures else []
    if attributions:
        lines += ["", "Pictures by:", *(f"  {_line(name)}: {count} pictures" for name, count in attributions.items())]
    return "\n".join([*lines, *named, "", NOTICE]) + "\n"


def url(licence: str) -> str | None:
    """Return where a Creative Commons licence stands that `licence` names and nothing else, None for other words."""
    found = CREATIVE_COMMONS.fullmatch(licence.strip())
    if found:
        return f"https://creativecommons.org/licenses/{found[1].lower()}/{found[2]}/"
    return "https://creativecommons.org/publicdomain/zero/1.0/" if ZERO.fullmatch(licence.strip()) else None


def _line(text: str) -> str:
    """Return text from a table of somebody else's as one line."""
    return " ".join(text.split())
