"""Pictures that stay on disk and behave as an array.

In: records mapped into memory. Out: the pictures that somebody asks for, as arrays.
"""

from __future__ import annotations

import numpy as np


class Pictures:
    """Pictures on disk that behave as an array uint8 [n, size, size, 3]; only what is asked for is read."""

    def __init__(self, records: np.ndarray, positions: np.ndarray) -> None:
        self._records, self._positions = records, np.asarray(positions, dtype=np.int64)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._positions), *self._records.shape[1:])

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, chosen) -> np.ndarray:
        """Return the chosen pictures (int, slice, int or bool array) as an array in memory."""
        return np.array(self._records[self._positions[chosen]])

    def view(self, chosen) -> "Pictures":
        """Return some of the pictures (int or bool array, list), still on disk."""
        return Pictures(self._records, self._positions[chosen])
