"""What so many lesions can show at most: limits that hold for few of them, where resampling sees no doubt.

A bootstrap draws from what was seen. Where nothing was lost, or everything, each resample says the same, and two lesions
look as certain as two thousand. In: counts of lesions. Out: 95 % limits that know how many there were.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

TAIL = 0.025
"""What an interval of 95 % leaves out on each side."""
POINTS = 2048
"""At so many probabilities one of the two distributions of :func:`matched` is looked at."""
NEARING_ENDS = 4
"""They stand closer to 0 and 1 as the quantiles of Beta(4, 4) do: equal steps would see nothing of a lesion of which a thousandth is lost."""
NOTHING = 1e-9
"""Fewer lesions than this are none: sums of shares come with rounding errors."""


def none_of(trials: int) -> float:
    """Return the upper end of Clopper and Pearson's 95 % interval (1934) for no success in `trials`; 1 without any."""
    return 1 - TAIL ** (1 / trials) if trials else 1.0


def none_of_each(trials: Sequence[int]) -> float:
    """Return the upper 97.5 % likelihood bound of the mean of shares of which none was seen in `trials` each.

    The largest mean of p whose probability of nothing, the product of (1 - p) ** trials, is still 2.5 %; for one
    share that is :func:`none_of`. With x = -log(1 - p) the mean is concave and the constraint linear, so the
    solution fills the classes with the fewest trials first (Karush, Kuhn and Tucker's conditions).
    """
    ordered = np.sort(np.asarray(trials, dtype=np.float64))
    for count in range(len(ordered), 0, -1):
        filled = ordered[:count]
        level = (-np.log(TAIL) + (filled * np.log(filled)).sum()) / filled.sum()
        x = level - np.log(filled)
        if x[-1] >= 0:
            break
    return float((1 - np.exp(-x)).sum() / len(ordered))


def share(successes: np.ndarray, lesions: np.ndarray) -> tuple[float, float]:
    """Return the 95 % limits of a share of pictures, seen as the bools `successes` [N] on pictures of `lesions` [N] (any ids), N at least 1.

    Clopper and Pearson's (1934) for the share as it was found and as many trials as there are lesions in effect, as Korn and
    Graubard (1998, "Confidence intervals for proportions with small expected number of positive counts estimated from survey
    data") take it for clustered samples: with photographs of a lesion taken to say all the same, which is the worst case, so many are
    (sum of sizes) ** 2 / (sum of squared sizes) (Kish 1965, "Survey Sampling"); of one photograph each, that is their number. With one found
    of one, the limits are 2.5 % and 100 %, where resampling would say 100 % and 100 %. The lower limit holds for a
    threshold too that was chosen on these very pictures as the highest with so many successes, for it is the distribution-free limit of Wilks
    (1941, "Determination of sample sizes for setting tolerance limits").
    """
    from scipy.special import betaincinv

    successes = np.asarray(successes, dtype=np.float64)
    _, sizes = np.unique(lesions, return_counts=True)
    trials = sizes.sum() ** 2 / (sizes.astype(np.float64) ** 2).sum()
    found = float(successes.mean()) * trials
    missed = trials - found
    low = 0.0 if found < NOTHING else float(betaincinv(found, missed + 1, TAIL))
    high = 1.0 if missed < NOTHING else float(betaincinv(found + 1, missed, 1 - TAIL))
    return low, high


def matched(lost: float, gained: float, lesions: int) -> tuple[float, float]:
    """Return the 95 % limits of the share of lesions that are lost minus that of those gained, seen on `lesions` of both models.

    Fay and Lumbard 2020, "Confidence intervals for difference in proportions for matched pairs compatible with exact McNemar's or
    sign tests": the shares of lost, gained and other lesions follow a Dirichlet distribution with one more lost lesion for
    the upper limit, and one more gained for the lower one. Zero lies outside exactly where McNemar's exact test finds a difference.
    Where none is gained the upper limit is Clopper and Pearson's for the lost ones; where nothing differs both limits are those of
    :func:`none_of`. Losing more moves neither limit down, swapping the models turns them round, and more lesions of the same
    shares bring them closer. `lost` and `gained` are counts of lesions from 0 to `lesions`; of a lesion with several
    pictures it may be a part.
    """
    return -_upper(gained, lost, lesions), _upper(lost, gained, lesions)


@functools.lru_cache(maxsize=4096)
def _upper(lost: float, gained: float, lesions: int) -> float:
    """Return the 97.5 % quantile of L - G, where (L, G, others) follow Dirichlet(lost + 1, gained, others)."""
    from scipy.optimize import brentq
    from scipy.special import betainc, betaincinv

    others = lesions - lost - gained
    if others < NOTHING:
        return 1.0 if gained < NOTHING else float(2 * betaincinv(lost + 1, gained, 1 - TAIL) - 1)
    if gained < NOTHING:
        return float(betaincinv(lost + 1, others, 1 - TAIL))
    # L + G is one beta variable and L / (L + G) another, independent of it.
    steps = (np.arange(POINTS) + 0.5) / POINTS
    direction = 2 * betaincinv(lost + 1, gained, betainc(NEARING_ENDS, NEARING_ENDS, steps)) - 1
    weights = (steps * (1 - steps)) ** (NEARING_ENDS - 1)
    weights /= weights.sum()

    def beyond(bound: float) -> float:
        """Return the probability that L - G is at most `bound`, less what is wanted."""
        moved = np.full(POINTS, 1.0)  # direction 0: the difference is 0
        np.divide(bound, direction, out=moved, where=direction != 0)
        inside = betainc(lost + gained + 1, others, np.clip(moved, 0, 1))
        return float(weights @ np.where(direction > 0, inside, np.where(direction < 0, 1 - inside, bound >= 0))) - (1 - TAIL)

    return float(brentq(beyond, -1.0, 1.0, xtol=1e-9))
