"""Contact sheets: many small pictures as one, for people who would rather look."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

STRIP = 24
"""Height of a strip of text in pixels."""


def contact_sheet(pictures: np.ndarray, columns: int = 8, gap: int = 4) -> Image.Image:
    """Return `pictures` (uint8 [n, h, w, 3]) in rows of `columns`, `gap` white pixels apart."""
    count, height, width, _ = pictures.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // columns * (height + gap), i % columns * (width + gap)
        sheet[top : top + height, left : left + width] = picture
    return Image.fromarray(sheet)


def titled_sheet(heading: str, sections: Sequence[tuple[str, Sequence[np.ndarray]]], gap: int = 4) -> Image.Image:
    """Return rows of pictures (each uint8 [n, h, w, 3], one shape for all) under a heading and each section's title."""
    font = ImageFont.load_default(STRIP * 0.6)
    heading = _printable(heading)
    grids = [(_printable(title), [contact_sheet(row, columns=len(row), gap=gap) for row in rows]) for title, rows in sections]
    width = max(max(grid.width for _, rows in grids for grid in rows), round(font.getlength(heading)) + 2 * gap)
    height = STRIP + sum(STRIP + sum(grid.height + gap for grid in rows) for _, rows in grids)
    sheet = Image.new("RGB", (width, height), "white")
    pen, top = ImageDraw.Draw(sheet), STRIP
    pen.text((gap, STRIP // 2), heading, "black", font, anchor="lm")
    for title, rows in grids:
        pen.rectangle([0, top, width, top + STRIP - gap], fill=(230, 230, 230))
        pen.text((gap, top + (STRIP - gap) // 2), title, "black", font, anchor="lm")
        top += STRIP
        for grid in rows:
            sheet.paste(grid, (0, top))
            top += grid.height + gap
    return sheet


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)[1:-1]
