"""Contact sheets: every picture whole and in order, white between them."""

from __future__ import annotations

import numpy as np
import pytest

from melanoma_edge.data.sheet import contact_sheet


@pytest.mark.parametrize(("count", "columns", "size"), [(1, 8, (10, 20)), (3, 8, (10, 68)), (8, 3, (38, 68)), (9, 3, (38, 68)), (4, 1, (52, 20))])
def test_pictures_stand_in_rows_from_the_left(count: int, columns: int, size: tuple[int, int]) -> None:
    pictures = np.random.default_rng(count).integers(0, 250, (count, 10, 20, 3), np.uint8)
    sheet = np.asarray(contact_sheet(pictures, columns=columns))
    assert sheet.shape == (*size, 3)
    columns = min(columns, count)
    for number, picture in enumerate(pictures):
        top, left = number // columns * 14, number % columns * 24
        assert np.array_equal(sheet[top : top + 10, left : left + 20], picture)
    assert (sheet == 255).all(axis=2).sum() == size[0] * size[1] - count * 200
