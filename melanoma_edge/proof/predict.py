"""From photographs to calibrated probabilities: what the app will show.

In: a bundle and picture files. Out: one result a picture, in the order given, as they come or all together. Files that cannot be
read are named and leave the others alone. Little is imported before the processes that read the pictures have been started.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from melanoma_edge import NOTICE
from melanoma_edge.errors import BadInput
from melanoma_edge.runtimes import stream

if TYPE_CHECKING:
    from melanoma_edge.contract import Decision, Threshold
    from melanoma_edge.proof.subject import Subject

DOMAIN = "The model has seen dermoscopic pictures only; plain phone photographs are outside of what it knows."
UNKNOWN_DOMAIN = "What the model was trained on is not known; pictures of another kind are outside of what it knows."


def predict(bundle: Path, pictures: Sequence[Path], *, artifact: str | None = None, threads: int = 1, processes: int | None = None) -> dict:
    """Classify `pictures` with an artifact of `bundle` (or a network of a run).

    Returns what :func:`predictions` says of all pictures, and `results`. Arguments and errors are those of :func:`predictions`.
    """
    with predictions(bundle, pictures, artifact=artifact, threads=threads, processes=processes) as (said_of_all, results):
        return {**said_of_all, "results": list(results)}


@contextlib.contextmanager
def predictions(
    bundle: Path, pictures: Sequence[Path], *, artifact: str | None = None, threads: int = 1, processes: int | None = None
) -> Iterator[tuple[dict, Iterator[dict]]]:
    """Yield what is to be said of all pictures, and an iterator over the result of each, in order: memory does not grow with their number.

    Of all: `model`, `notice`, `domain`, `positive_class`, `threshold` (the one in force, and in words which rule chose it; null without one)
    and `abstention` (by what the model abstains, and where). A result has the picture's path and either `error`, or
    `class`, `probabilities` (calibrated, largest first), `positive` (whether the positive class
    reaches its threshold; null without one or the other), `abstains` and `quality` (measures of the picture, and `warnings`,
    which decide nothing).

    `processes` read pictures and run the model on them, each computing with `threads` threads (default: as many as there are cores, fewer
    for few pictures). They end with the block. The iterator raises BadInput at its end when no picture could be read.
    """
    for name, number in (("threads", threads), ("processes", processes)):
        if number is not None and number < 1:
            raise BadInput(f"found {name} {number}: expected 1 or more")
    with stream.started(processes or stream.processes_for(len(pictures))) as workers:
        from melanoma_edge.proof.subject import open_subject

        model = open_subject(bundle, artifact)
        if not pictures:
            raise BadInput("no picture was given: name at least one")
        said_of_all = {
            "model": model.name,
            "notice": NOTICE,
            "domain": DOMAIN if model.training_known else UNKNOWN_DOMAIN,
            "positive_class": model.positive_class,
            **decided_by(model.decision),
        }
        yield said_of_all, _results(model, pictures, workers, threads)


def _results(model: Subject, pictures: Sequence[Path], workers: stream.Stream, threads: int) -> Iterator[dict]:
    """Yield the result of each picture."""
    import numpy as np

    from melanoma_edge import calibration

    # Of a model of somebody else's without labelled pictures, no threshold could be fitted.
    positive = model.positive_class if model.training_known or model.decision.operating() else None
    paths, readable, first_error = iter(pictures), 0, None
    for block in workers.answers(model.runtime, model.model, pictures, size=model.size, which=model.which, contract=model.contract, threads=threads):
        outputs = [found["logits"] for found in block if "error" not in found]
        logits = calibration.as_logits(np.array(outputs, np.float32), model.output) if outputs else None
        verdicts = iter(
            () if logits is None else calibration.decide(logits, model.decision, model.classes, positive, model.training_priors, model.deployment_priors)
        )
        readable += len(outputs)
        for found in block:
            picture = str(next(paths))
            if "error" in found:
                first_error = first_error or found["error"]
                yield {"picture": picture, "error": found["error"]}
                continue
            verdict = next(verdicts)
            yield {
                "picture": picture,
                "class": verdict.top,
                "probabilities": dict(sorted(verdict.probabilities.items(), key=lambda item: -item[1])),
                "positive": verdict.positive,
                "abstains": verdict.abstains,
                "quality": found["quality"],
            }
    if not readable:
        raise BadInput(f"none of {len(pictures)} pictures can be read (first: {first_error})")


def decided_by(decision: Decision) -> dict:
    """Return what decides, ready for JSON: `threshold`, the one in force with `in_words` which rule chose it, or None; and `abstention`."""
    threshold = decision.operating()
    return {"threshold": None if threshold is None else said(threshold), "abstention": decision.abstention.model_dump(mode="json")}


def said(threshold: Threshold) -> dict:
    """Return a threshold, ready for JSON, with `in_words` which rule chose it."""
    return {**threshold.model_dump(mode="json"), "in_words": threshold.in_words()}
