"""The run directory: everything that a training run leaves, each file whole or absent.

::

    RUN/
      run.json               what it is, from what, on what machine, how far it got
      recipe.toml            the resolved recipe
      split.csv              every picture: path, file hash, class, ids of lesion and patient, group, part, fingerprint, patient
      data.json              what the data policy did, unreadable files, pictures left out
      history.json           one row an epoch
      checkpoint.safetensors where to go on after an interruption (gone when complete)
      weights/               float.safetensors, qat.safetensors
      init.safetensors       copy of the weights that training started from, where the recipe named a file
      logits.safetensors     Keras logits of the validation and test parts
      evaluation.json        decisions, and scores of the float and the int8-simulated network on the test part
      saliency.safetensors   what spoke for each answer on the test part, coarse maps
      augmented.png          one augmented batch

A run of a recipe with ``folds = 1`` was trained on everything: it has no test part, so neither logits nor scores of one, nor maps.

Weights are loaded by name and shape into a network that is built from the recipe; no code is ever
read from a run.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ValidationError

from melanoma_edge import calibration, recipes
from melanoma_edge.contract import RUN_SCHEMA_VERSION, Decision, EpochRow, Recipe, RunFacts, Scores
from melanoma_edge.errors import BadInput
from melanoma_edge.files import TEMPORARY_PREFIX, explained, read_json, sha256_file, write_bytes, write_json, write_text

RUN_FILE = "run.json"
RECIPE_FILE = "recipe.toml"
SPLIT_FILE = "split.csv"
DATA_FILE = "data.json"
HISTORY_FILE = "history.json"
CHECKPOINT_FILE = "checkpoint.safetensors"
LOGITS_FILE = "logits.safetensors"
EVALUATION_FILE = "evaluation.json"
SALIENCY_FILE = "saliency.safetensors"
FOLDS_FILE = "folds.json"
"""Marks a folder of folds, each a run (:mod:`melanoma_edge.model.folds`)."""
LOCK_FILE = ".lock"
AUGMENTED_FILE = "augmented.png"
INIT_FILE = "init.safetensors"

Which = Literal["float", "qat"]


UNBEGUN = {INIT_FILE, RECIPE_FILE, SPLIT_FILE, DATA_FILE, HISTORY_FILE, LOCK_FILE}
"""What a run may hold before its run.json says that it has begun; of these, folds hold the lock alone before their folds.json does."""


@dataclass(frozen=True)
class SplitRow:
    """One used picture of a run."""

    path: str
    sha256: str
    label: str
    lesion: str
    """Ids of its lesion and patient (as `patient ID`) and of those of its copies; joined by "|", empty where unknown."""
    group: int
    part: str
    fingerprint: str
    """See :func:`melanoma_edge.data.copies.fingerprints`."""
    patient: str = ""
    """Its own patient id; empty where unknown."""


@dataclass(frozen=True)
class Run:
    """An opened run directory."""

    path: Path
    facts: RunFacts
    recipe: Recipe
    split: tuple[SplitRow, ...]

    def part(self, name: str) -> list[SplitRow]:
        """Return the pictures of one part, in the order of the files of logits."""
        return [row for row in self.split if row.part == name]

    def truth(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return (positions in the classes, groups) of the pictures of one part, int [n] each, in the order of :meth:`part`."""
        rows = self.part(name)
        return np.array([self.facts.classes.index(row.label) for row in rows], np.int64), np.array([row.group for row in rows], np.int64)

    @property
    def tested(self) -> bool:
        """Whether the run has a test part."""
        return self.recipe.has_test_part

    def history(self) -> list[EpochRow]:
        """Return the rows of the training history."""
        return [EpochRow.model_validate(row) for row in read_json(self.path / HISTORY_FILE, "a training history")]

    def weights_file(self, which: Which) -> Path:
        """Return the path of a weight file."""
        return weights_file(self.path, which)

    def logits(self) -> dict[str, np.ndarray]:
        """Return {"float/validation", "float/test", "qat/...": float32 [pictures, classes]}, of a run without test part those of validation alone."""
        return read_tensors(self.path / LOGITS_FILE)

    def saliency(self) -> dict[Which, np.ndarray]:
        """Return each network's maps of what spoke for its answers (uint8 [test pictures, rows, columns]), {} where the run has none.

        See :func:`melanoma_edge.model.saliency.activation_maps`.
        """
        file = self.path / SALIENCY_FILE
        return read_tensors(file) if file.is_file() else {}

    def evaluation(self) -> dict[Which, tuple[Decision, Scores | None]]:
        """Return each network's decision and scores on the test part (None in a run without one); raises BadInput where evaluation.json is damaged."""
        file = self.path / EVALUATION_FILE
        found = read_json(file, "a run's evaluation")
        try:
            return {
                which: (
                    Decision.model_validate_json(json.dumps(found[which]["decision"])),
                    Scores.model_validate_json(json.dumps(found[which]["scores"])) if self.tested or found[which]["scores"] is not None else None,
                )
                for which in self.facts.weights
            }
        except (KeyError, TypeError, ValidationError) as error:
            raise BadInput(f"{file} is not a run's evaluation ({' '.join(str(error).split())[:120]}): train again") from None

    def priors(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the class priors in training and those that probabilities are corrected to (float64 [classes]).

        Raises BadInput where the recipe states those of other classes.
        """
        training = np.array([self.facts.training_priors[name] for name in self.facts.classes])
        stated = calibration.stated_priors(self.recipe, self.facts.classes)
        if stated is not None:
            return training, stated
        if self.recipe.deployment_prior == "balanced":
            return training, np.full(len(training), 1 / len(training))
        return training, np.array([self.facts.data_priors[name] for name in self.facts.classes])

    def probabilities(self, which: Which, part: str, temperature: float | None = None) -> np.ndarray:
        """Return what a network says of the `validation` or `test` part, corrected to the deployment priors (float64 [n, classes]).

        Calibrated, unless another `temperature` is given: 1 is the network as it was trained.
        """
        fitted = self.evaluation()[which][0].temperature if temperature is None else temperature
        return calibration.probabilities(self.logits()[f"{which}/{part}"], fitted, *self.priors())

    def fit_decision(self, logits: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Decision:
        """Return the decision of the recipe's kind for `logits` (float32 [n, classes]) of pictures of the classes `labels` (int [n])
        that show the lesions `groups` (int [n])."""
        recipe, (training, deployment) = self.recipe, self.priors()
        asked = {"coverage": recipe.coverage, "operating": calibration.rule_of(recipe), "abstention": recipe.abstention, "lesions": groups}
        return calibration.fit_decision(logits, labels, self.facts.classes, recipe.positive_class or None, training, deployment, **asked)


def kept_init(path: Path, facts: RunFacts) -> bytes:
    """Return the copy of the weights that the run at `path` started from, nothing where there are none; raises BadInput where it is not what it was."""
    if not facts.init_sha256:
        return b""
    file = path / INIT_FILE
    if not file.is_file() or sha256_file(file) != facts.init_sha256:
        raise BadInput(f"{file} is missing or was altered: expected sha256 {facts.init_sha256[:12]}...; start a new run")
    return file.read_bytes()


def open_run(path: Path, *, complete: bool = True) -> Run:
    """Open the run directory `path`.

    Raises BadInput when it is missing, incomplete (unless `complete` is False), altered or of a newer
    schema version.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput(f"{path} is missing: expected a folder that `melanoma-edge train` made; check the path")
    if not path.is_dir():
        raise BadInput(f"{path} is not a run: expected a folder that `melanoma-edge train` made")
    refuse_folds(path)
    raw = read_json(path / RUN_FILE, "a run's facts")
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > RUN_SCHEMA_VERSION:
        raise BadInput(
            f"{path / RUN_FILE} has schema version {version}: this melanoma-edge reads up to {RUN_SCHEMA_VERSION}; "
            "upgrade with `pip install --upgrade melanoma-edge`"
        )
    try:
        facts = RunFacts.model_validate_json((path / RUN_FILE).read_bytes())
    except ValidationError as error:
        raise BadInput(f"{path / RUN_FILE} is not valid: {recipes.explain(error)}; train again") from None
    if complete and facts.state != "complete":
        raise BadInput(f"the run {path} is incomplete: finish it with `melanoma-edge train --resume --out {path}`")
    recipe = recipes.load(path / RECIPE_FILE)
    for which, expected in facts.weights.items():
        file = weights_file(path, which)
        if not file.is_file() or sha256_file(file) != expected:
            raise BadInput(f"{file} is missing or was altered: expected sha256 {expected[:12]}...; train again")
    return Run(path, facts, recipe, tuple(_read_split(path / SPLIT_FILE)))


def refuse_folds(path: Path) -> None:
    """Raise BadInput when `path` holds the folds of a data set and is no run itself."""
    if is_folds(path):
        raise BadInput(f"{path} holds folds, each a run of its own: name one of {path}/fold-0, {path}/fold-1 ...")


def is_folds(path: Path) -> bool:
    """Return whether `path` holds the folds of a data set and is no run itself."""
    path = Path(path)
    return (path / FOLDS_FILE).is_file() and not (path / RUN_FILE).is_file()


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the run directory `path`, made if need be, so that no other process trains in it meanwhile.

    Raises BadInput when one does. The lock ends with the process, however it ends.
    """
    import fcntl

    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
        file = open(path / LOCK_FILE, "a", encoding="utf-8")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who held it before has removed the file: the lock is on what has no name any more, and another may hold the new one.
            if not os.path.exists(path / LOCK_FILE) or not os.path.samestat(os.fstat(file.fileno()), os.stat(path / LOCK_FILE)):
                raise BlockingIOError
        except BlockingIOError:
            raise BadInput(f"another process is training in {path}: wait for its end, or choose another --out") from None
        try:
            yield
        finally:
            (path / LOCK_FILE).unlink(missing_ok=True)


def newest_run(folder: Path = Path("runs")) -> Path:
    """Return the most recently finished run below `folder`, or folder of folds, which those who want one run refuse.

    Raises BadInput when there is none.
    """
    found = [file for name in (RUN_FILE, FOLDS_FILE) for file in Path(folder).glob(f"*/{name}")]
    finished = [file for file in found if says(file, '"state": "complete"')]
    if not finished:
        raise BadInput(f"there is no finished run below {folder}/: train one with `melanoma-edge train` or name its folder")
    return max(finished, key=lambda file: file.stat().st_mtime).parent


def says(file: Path, words: str) -> bool:
    """Return whether `words` stand in a text file; a file that cannot be read, somebody else's, says nothing."""
    try:
        return words in file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def clear_unbegun(path: Path) -> None:
    """Empty the folder `path` where it holds nothing but what a run, or folds, write before run.json, or folds.json, says that they have begun.

    Raises BadInput when the process that writes it is still at it.
    """
    path = Path(path)
    if not _unbegun(path):
        return
    with held(path), explained(path):
        for file in _unbegun(path):  # looked up anew: what was still beginning a moment ago may have begun, and ended
            if file.name != LOCK_FILE:  # which is held, and goes with its holder
                file.unlink(missing_ok=True)


def _unbegun(path: Path) -> list[Path]:
    """Return the files of the folder `path` where all are such as a run, or folds, leave that ended before they had begun; else none."""
    try:
        files = {file.name: file for file in path.iterdir()}
        if not all((name in UNBEGUN or name.startswith(TEMPORARY_PREFIX)) and file.is_file() and not file.is_symlink() for name, file in files.items()):
            return []
        locked = LOCK_FILE in files and files[LOCK_FILE].stat().st_size == 0
        return list(files.values()) if locked or (RECIPE_FILE in files and _is_resolved(files[RECIPE_FILE])) else []
    except OSError:  # no folder, or somebody else's
        return []


def _is_resolved(file: Path) -> bool:
    """Return whether a recipe.toml is a run's own, every key written out: what people write, which may name less and say more in comments, is theirs."""
    try:
        return file.read_text(encoding="utf-8") == recipes.to_toml(recipes.load(file))
    except (BadInput, OSError, ValueError):
        return False


def sweep(path: Path) -> None:
    """Remove what processes that were killed while writing left in the run directory `path`; who calls this holds it."""
    for folder in (Path(path), Path(path) / "weights"):
        for file in folder.glob(f"{TEMPORARY_PREFIX}*"):
            file.unlink(missing_ok=True)


def weights_file(run: Path, which: str) -> Path:
    """Return where a run keeps its `float` or `qat` weights, or those of a teacher."""
    return Path(run) / "weights" / f"{which}.safetensors"


def write_split(path: Path, rows: list[SplitRow]) -> None:
    """Write split.csv atomically."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "sha256", "label", "lesion", "group", "part", "fingerprint", "patient"])
    writer.writerows([row.path, row.sha256, row.label, row.lesion, row.group, row.part, row.fingerprint, row.patient] for row in rows)
    write_text(path, buffer.getvalue())


def write_facts(path: Path, facts: RunFacts, **changes) -> RunFacts:
    """Write the run's run.json with `changes` applied and return the new facts."""
    facts = facts.model_copy(update=changes)
    write_json(path / RUN_FILE, facts.model_dump(mode="json"))
    return facts


def load_keras(run: Path, which: Which, batch: int | None = None):
    """Return the run's network with its weights: ``tf_keras.Model``, raw RGB 0..255 to logits.

    `which` is `float` or `qat` (fake-quantized). `batch` fixes the batch size. Raises BadInput when the
    run has no such weights, Missing when TensorFlow is not installed.
    """
    from melanoma_edge.model.tensorflow import require

    require()
    from melanoma_edge.model import network, quantize

    opened = open_run(run, complete=False)
    if which not in opened.facts.weights:
        raise BadInput(f"the run {run} has no {which} weights (qat_epochs was {opened.recipe.qat_epochs}): train with qat_epochs above 0")
    model = network.build(opened.recipe, len(opened.facts.classes), batch=batch)
    if which == "qat":
        model = quantize.quantization_aware(model)
    assign(model.weights, read_tensors(opened.weights_file(which)), str(opened.weights_file(which)))
    return model


def named(variables) -> dict[str, np.ndarray]:
    """Return {position and name: value} of Keras variables, names independent of earlier models."""
    return {_key(position, variable.name): variable.numpy() for position, variable in enumerate(variables)}


def assign(variables, values: dict[str, np.ndarray], source: str) -> None:
    """Set Keras variables from `values` by name and shape; raises BadInput on the first that does not fit."""
    if len(variables) != len(values):
        raise BadInput(f"{source} holds {len(values)} tensors: this recipe's network has {len(variables)}; it belongs to another run")
    for position, variable in enumerate(variables):
        key = _key(position, variable.name)
        value = values.get(key)
        if value is None or tuple(value.shape) != tuple(variable.shape):
            found = "missing" if value is None else f"of shape {tuple(value.shape)}"
            raise BadInput(f"{source}: {key} is {found}, expected shape {tuple(variable.shape)}; it belongs to another run")
        variable.assign(value)


def read_tensors(path: Path, what: str = "tensors") -> dict[str, np.ndarray]:
    """Return the arrays of a safetensors file; raises BadInput when it cannot be read."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read as {what}: {error}; train again") from None
    return unpack_tensors(content, str(path), what)[0]


def unpack_tensors(content: bytes, source: str, what: str = "tensors", then: str = "train again") -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays and the metadata in the content of a safetensors file; raises BadInput, naming `source`, when it is none."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        length = int.from_bytes(content[:8], "little")  # of the header, JSON that follows; the library reads metadata from paths only
        return load(content), json.loads(content[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError) as error:
        raise BadInput(f"{source} cannot be read as {what}: {error}; {then}") from None


def pack_tensors(values: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    """Return arrays as the content of a safetensors file."""
    from safetensors.numpy import save

    return save({key: np.asarray(value, order="C") for key, value in values.items()}, metadata)


def write_tensors(path: Path, values: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Write arrays to a safetensors file atomically."""
    os.makedirs(Path(path).parent, exist_ok=True)
    write_bytes(path, pack_tensors(values, metadata))


def _key(position: int, name: str) -> str:
    """Keras numbers some layers by how many were made before in the process: drop those numbers."""
    plain = re.sub(r"quantize_layer(_\d+)?", "quantize_layer", name.removesuffix(":0"))
    return f"{position:04d}/{plain}"


def _read_split(path: Path):
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                group = int(row["group"])
                yield SplitRow(row["path"], row["sha256"], row["label"], row["lesion"], group, row["part"], row["fingerprint"], row["patient"])
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise BadInput(f"{path} is not a run's split: {error}; train again") from None
