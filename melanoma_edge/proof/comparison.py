"""Float, post-training and quantization-aware int8, side by side on the same pictures.

In: a manifest and each artifact's logits of the run's test part. Out: what one loses against another, with
paired intervals: int8 of either kind against float32, and the kinds against each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from melanoma_edge.contract import PRECISIONS, Artifact, Comparison, Manifest
from melanoma_edge.proof import gates


def compare(manifest: Manifest, logits: Mapping[str, np.ndarray], labels: np.ndarray, groups: np.ndarray) -> tuple[Comparison, ...]:
    """Return the comparisons of a bundle with a post-training artifact; none for others.

    `logits` are float32 [n, classes] for each artifact, `labels` and `groups` (lesions) int [n]. Files of one
    format are compared, TFLite where it has what is to be compared: the other format computes the same.
    """
    return tuple(_compared(manifest, reference, candidate, logits, labels, groups) for reference, candidate in _pairs(manifest))


def _pairs(manifest: Manifest) -> Iterator[tuple[Artifact, Artifact]]:
    for fmt in PRECISIONS:
        found = {artifact.precision: artifact for artifact in manifest.artifacts if artifact.format == fmt}
        if "int8-ptq" in found:
            for reference, candidate in (("float32", "int8"), ("float32", "int8-ptq"), ("int8", "int8-ptq")):
                if reference in found and candidate in found:
                    yield found[reference], found[candidate]
            return


def _compared(manifest: Manifest, reference: Artifact, candidate: Artifact, logits, labels: np.ndarray, groups: np.ndarray) -> Comparison:
    judged = gates.task_gate(
        manifest, candidate, reference, "", logits[candidate.name], logits[reference.name], labels, groups, [""] * len(labels)
    )
    return Comparison(
        reference=reference.name,
        candidate=candidate.name,
        pictures=len(labels),
        lesions=len(np.unique(groups)),
        losses=judged.losses,
        flips=judged.flip_count,
    )
