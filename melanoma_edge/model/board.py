"""TensorBoard's logs of a training run, for those who look at curves there.

In: the events of training. Out: a folder with one curve for each figure of an epoch. They are written by TensorFlow itself: the tensorboard package is
needed to look at them, not here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from melanoma_edge.contract import EpochRow
from melanoma_edge.files import explained

Report = Callable[[str, dict], None]


@contextlib.contextmanager
def logged(folder: Path | None, report: Report) -> Iterator[Report]:
    """Yield a `report` that also writes every epoch's figures below `folder`, each phase's (and each fold's) under a name of its own.

    Without a folder it is `report` itself. A run that goes on writes one more file there; the epoch at which it was interrupted may
    stand in both. Raises Missing or BadInput where the folder cannot be written.
    """
    if folder is None:
        yield report
        return
    writer, fold = None, ""

    def also(event: str, facts: dict) -> None:
        nonlocal writer, fold
        if event == "fold":
            fold = f"fold-{facts['fold']}/"
        if event == "epoch":
            writer = writer or _writer(folder)
            _write(writer, fold, facts)
        report(event, facts)

    with explained(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
    try:
        yield also
    finally:
        if writer is not None:
            writer.close()


def _writer(folder: Path):
    import tensorflow as tf

    return tf.summary.create_file_writer(str(folder))


def _write(writer, fold: str, facts: dict) -> None:
    import tensorflow as tf

    # tf.summary.scalar belongs to the tensorboard package; what it writes is a tensor under its plug-in's name, which TensorFlow can do alone
    kind = tf.compat.v1.SummaryMetadata
    metadata = kind(plugin_data=kind.PluginData(plugin_name="scalars"), data_class=1)  # DATA_CLASS_SCALAR
    with writer.as_default():
        for name in EpochRow.model_fields:
            if isinstance(facts[name], float):
                tf.summary.write(f"{fold}{facts['phase']}/{name}", tf.constant(facts[name], tf.float32), step=facts["epoch"] + 1, metadata=metadata)
    writer.flush()
