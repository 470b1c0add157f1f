"""The facts of a run directory."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from melanoma_edge.contract.base import ClassName, Model, Sha256

RUN_SCHEMA_VERSION = 2
"""2: recipes choose the threshold by sensitivity, and decisions have the form of bundles of version 2. Version 1 is read as what it means."""


class EpochRow(Model):
    """One line of a run's history."""

    phase: Annotated[str, Field(pattern=r"^(float|qat|teacher-[0-9]+)$")]
    """`float`, `qat`, or, before these, `teacher-1` and so on."""
    epoch: int
    loss: float
    accuracy: float
    """On the augmented training batches."""
    validation_loss: float
    validation_accuracy: float
    validation_balanced_accuracy: float
    learning_rate: float
    seconds: float
    images_per_second: float
    """Training pictures a second, feed and step together, validation apart."""


class Computation(Model):
    """On what, and with which arithmetic, training computed. It changes results in their last digits, never what the recipe means."""

    device: Literal["cpu", "gpu"]
    names: tuple[str, ...]
    """The devices of the machine that wrote this."""
    replicas: int = 1
    """Devices on all machines that shared each batch of float training; quantization-aware training is always on one."""
    workers: int = 1
    """Machines, or processes, that took part."""
    mixed_precision: Literal["bfloat16", "float16"] | None = None
    """What float training multiplied in; null for float32. Weights, logits, loss and quantization-aware training are always float32."""
    xla: bool = False
    """Whether XLA compiled the training step."""


class RunFacts(Model):
    """run.json: what a run is, was made from and has come to."""

    schema_version: Annotated[Literal[1, 2], AfterValidator(lambda found: RUN_SCHEMA_VERSION), WithJsonSchema({"const": RUN_SCHEMA_VERSION})] = RUN_SCHEMA_VERSION
    state: Literal["training", "complete"]
    command: str
    data: str
    """The data set as it was named, absolute: a folder or an index table."""
    root: str
    """The folder that paths of pictures are relative to, absolute."""
    source: str
    """Kind of data set: `class folders`, `ISIC Archive` ..."""
    metadata: str | None
    """The metadata CSV where one was named, absolute."""
    tables: tuple[str, ...]
    """The CSV files that classes, ids and diagnoses came from, absolute."""
    licences: tuple[str, ...]
    """The only licences that were asked for; empty for any."""
    data_sha256: Sha256
    classes: tuple[ClassName, ...]
    training_priors: dict[str, float]
    data_priors: dict[str, float]
    """Class frequencies among all pictures used."""
    parameters: int
    multiply_accumulates: int
    weights: dict[str, Sha256]
    """SHA-256 of each weight file that is finished: `float`, `qat`."""
    teachers: dict[str, Sha256] = {}
    """SHA-256 of the weights of each teacher that is finished: `teacher-1` and so on. The files go when the run is complete."""
    seconds: dict[str, float]
    """Wall time of each phase so far."""
    peak_memory_bytes: int
    conditions: dict[str, Any]
    """Versions, CPU and so on of the machine (see :mod:`melanoma_edge.host`)."""
    computations: tuple[Computation, ...] = ()
    """How training was computed: one entry, and another for each time that it went on in another way. Empty in runs of versions
    that did not write it, which used one device, float32 and no XLA."""
    init_sha256: Sha256 | None = None
    """SHA-256 of the file of weights that training started from; null for random ones."""
    init_fresh: tuple[str, ...] = ()
    """Weights that the file did not give, and that started at random: those of the last layer."""
