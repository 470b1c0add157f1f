"""What the findings do to a figure: how good a classifier can look at best, and how much of a split leaks.

In: an index, how its pictures are connected, and what the policy made of it. Out:
:class:`~melanoma_edge.data.audit.model.Effect`. All figures are exact; nothing is drawn at random.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from melanoma_edge.data.audit.group_findings import Connections
from melanoma_edge.data.audit.model import Effect, Leak, Parts
from melanoma_edge.data.index import Index
from melanoma_edge.data.policy import Resolution

TEST_SHARE = 0.2
"""Share of a random split's test part."""


def effect(index: Index, connections: Connections, resolution: Resolution, usable: int, refusal: str, parts: Parts | None) -> Effect:
    """Return what the findings do; `usable` pictures are left after the policy, `refusal` is why training would not start."""
    labels = [row.label for row in index.rows]
    given = parts.leak.get("test") if parts else None
    return Effect(
        pictures=len(labels),
        usable=usable,
        **{key: resolution.counts[key] for key in ("relabelled_by_reference", "conflicts_dropped", "duplicates_dropped", "near_copies_dropped")},
        left_out_with_class=len(resolution.labels) - usable,
        accuracy_ceiling=accuracy_ceiling(labels, connections.identical),
        accuracy_ceiling_with_near_copies=accuracy_ceiling(labels, connections.copies),
        balanced_accuracy_ceiling=balanced_accuracy_ceiling(labels, connections.identical),
        random_split_test_share=TEST_SHARE,
        random_split_leak=Leak(
            copies=expected_leak(connections.copy_of()), lesions=expected_leak(connections.lesions), patients=expected_leak(connections.patients)
        ),
        given_split_leak=None
        if given is None
        else Leak(copies=given.copies / given.pictures, lesions=given.lesions / given.pictures, patients=given.patients / given.pictures),
        training_refuses=refusal,
    )


def accuracy_ceiling(labels: Sequence[str], groups: Sequence[Sequence[int]]) -> float:
    """Return the best accuracy of a classifier that gives all pictures of a group one answer: the most frequent class's share."""
    right = sum(max(Counter(labels[position] for position in group).values()) for group in groups)
    return right / len(labels)


def balanced_accuracy_ceiling(labels: Sequence[str], groups: Sequence[Sequence[int]]) -> float:
    """Return the best mean recall of such a classifier: in each group, the class that adds most to it."""
    totals = Counter(labels)
    gained = sum(max(count / totals[label] for label, count in Counter(labels[position] for position in group).items()) for group in groups)
    return min(1.0, gained / len(totals))


def expected_leak(groups: Sequence[int], test_share: float = TEST_SHARE) -> float:
    """Return the expected share of a random split's test pictures of whose `groups` another picture is in the training part.

    With n pictures and a test part of m, a test picture in a group of g has all its fellows beside it with the
    probability (m-1)/(n-1) * (m-2)/(n-2) * ... for g - 1 factors: drawing without replacement.
    """
    total = len(groups)
    test = max(1, round(test_share * total))
    if total < 2:
        return 0.0
    _, which, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    fellows = np.arange(1, sizes.max())
    together = np.concatenate([[1.0], np.cumprod(np.maximum(test - fellows, 0) / (total - fellows))])
    return float(np.clip(1.0 - together[sizes[which] - 1].mean(), 0.0, 1.0))
