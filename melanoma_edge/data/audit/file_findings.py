"""What is odd about a data set's files, whatever they show.

In: an index and its listing. Out: :class:`~melanoma_edge.data.audit.model.Files`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from melanoma_edge.data.audit.model import Files, MislabelledFile, RotatedFile, SmallFile, UnreadableFile, UnusualMode
from melanoma_edge.data.index import Index, printable

TINY = 64
"""Shorter side in pixels below which hardly a lesion can be judged."""
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}
"""{suffix: format that it promises}."""


def file_findings(index: Index, image_size: int) -> Files:
    """Return what is odd about the files of `index`, for a network input of `image_size` pixels a side."""
    known = [(row.path, row.facts) for row in index.rows if row.facts is not None]
    listing = index.listing
    reasons = list(zip(index.bad, index.faults)) if index.faults else [(bad, "damaged") for bad in index.bad]
    return Files(
        unreadable=tuple(UnreadableFile(path=path, fault=fault, reason=one_line(reason)) for (path, reason), fault in reasons),
        faults=counted(fault for _, fault in reasons),
        mislabelled=tuple(
            MislabelledFile(path=path, suffix=suffix, format=facts.format)
            for path, facts in known
            if FORMATS.get(suffix := Path(path).suffix.lower(), facts.format) != facts.format
        ),
        unusual_modes=tuple(UnusualMode(path=path, mode=facts.mode) for path, facts in known if facts.mode != "RGB"),
        rotated=tuple(RotatedFile(path=path, orientation=facts.orientation) for path, facts in known if facts.orientation != 1),
        small=tuple(
            SmallFile(path=path, width=facts.width, height=facts.height) for path, facts in known if min(facts.width, facts.height) < image_size
        ),
        formats=counted(facts.format for _, facts in known),
        modes=counted(facts.mode for _, facts in known),
        other_files=_printable(listing.other_files) if listing else {},
        without_class=tuple(map(printable, index.outside)),
        unmapped=_printable(listing.unmapped) if listing else {},
        without_picture=tuple(map(printable, listing.without_picture)) if listing else (),
        filtered=_printable(listing.filtered) if listing else {},
        notes=tuple(map(printable, listing.notes)) if listing else (),
    )


def one_line(text: str) -> str:
    """Return `text` as one printable line."""
    return text if text.isprintable() else repr(text)[1:-1]


def counted(values) -> dict[str, int]:
    """Return {value: how often}, the most frequent first."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _printable(counts: dict[str, int]) -> dict[str, int]:
    return counted(Counter({printable(name): count for name, count in counts.items()}).elements())
