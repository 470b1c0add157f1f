"""Contact sheets: many small pictures as one, for people who would rather look."""

from __future__ import annotations

import numpy as np
from PIL import Image


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
