"""What a run computes, from its first weights to its figures.

In: a begun run directory and the pictures of each part. Out: the complete run. Teachers where the recipe wants some, float training, quantization-aware training, logits, decisions and
figures follow each other; what is on disk already is not computed again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from melanoma_edge import calibration, host, metrics
from melanoma_edge.contract import EpochRow, Recipe, RunFacts
from melanoma_edge.data import feed, mixing
from melanoma_edge.data.sheet import contact_sheet
from melanoma_edge.data.split import PARTS, TEST, TRAIN, VALIDATION
from melanoma_edge.files import read_json, sha256_file, write_json
from melanoma_edge.model import run as runs
from melanoma_edge.model.devices import Devices, arithmetic
from melanoma_edge.model.tensorflow import seed_everything


def phases(
    out: Path, facts: RunFacts | None, recipe: Recipe, names: tuple[str, ...], pictures, labels, parts, groups, devices: Devices, started: float, report
) -> runs.Run | None:
    """Teachers, float training, quantization-aware training, evaluation; each step's result is on disk before the next.

    Teachers' and float training is on all `devices`. The chief does the rest alone, on its first one; the other workers, who have no `facts`, return None.
    """
    import tf_keras as keras

    from melanoma_edge.model import network, quantize
    from melanoma_edge.model.fit import Part, fit, predict
    from melanoma_edge.model.initial import CLASSES, start_from
    from melanoma_edge.model.saliency import activation_maps
    from melanoma_edge.model.step import Phase
    from melanoma_edge.model.teachers import names_of, open_teachers, recipe_of

    by_part = {part: Part(pictures.view(parts == part), labels[parts == part]) for part in PARTS}
    history = [EpochRow.model_validate(row) for row in read_json(out / runs.HISTORY_FILE, "a training history")] if facts else []
    classes = len(names)

    def fit_phase(model, phase: Phase, variables: list, devices: Devices, recipe: Recipe, teachers: Sequence[keras.Model] = ()) -> keras.Model:
        report("phase", {"phase": phase.name, "epochs": phase.epochs})
        return fit(
            model,
            variables,
            phase,
            recipe,
            by_part[TRAIN],
            by_part[VALIDATION],
            file=out / runs.CHECKPOINT_FILE,
            history=history,
            on_epoch=lambda rows: after_epoch(phase.name, rows),
            report=report,
            devices=devices,
            teachers=teachers,
        )

    def float_training(name: str, recipe: Recipe) -> keras.Model:
        """Train a fresh network on all devices and return it, on raw 0..255."""
        seed_everything(recipe.seed)
        with devices.scope(), arithmetic(devices.computation):
            model = network.build(recipe, classes, rescale=True)
            init = devices.share(runs.kept_init(out, facts) if facts else b"")
            if init:
                fresh = start_from(model, init, recipe.init, names)
                report("init", {"file": recipe.init, "fresh": fresh})
        teachers = open_teachers(out, facts, recipe, classes, devices)
        trained = fit_phase(model, Phase(name, recipe.epochs, recipe.learning_rate, recipe.warmup_share), model.trainable_variables, devices, recipe, teachers)
        return network.fold_rescaling(trained, recipe, classes)

    def after_epoch(which: str, rows: list[EpochRow]) -> None:
        write_json(out / runs.HISTORY_FILE, [row.model_dump() for row in rows])
        spend(which)

    def spend(which: str, **changes) -> None:
        """Write the facts with `changes`, and the time since this was last done: an interruption loses that of no more than an epoch."""
        nonlocal started
        now = time.perf_counter()
        spent = facts.seconds.get(which, 0.0) + now - started
        started = now
        record(seconds={**facts.seconds, which: spent}, **changes)

    def record(**changes) -> None:
        """Write the facts with `changes`, and the most memory that any process of the run has taken so far."""
        nonlocal facts
        facts = runs.write_facts(out, facts, peak_memory_bytes=max(facts.peak_memory_bytes, host.peak_memory_bytes()), **changes)

    def keep(model, which: str, of: Literal["weights", "teachers"] = "weights") -> None:
        """Write what was trained and say so in the facts; a worker that has none leaves that to the chief."""
        if facts:
            runs.write_tensors(runs.weights_file(out, which), runs.named(model.weights), {CLASSES: json.dumps(names)})
            spend(which, **{of: {**getattr(facts, of), which: sha256_file(runs.weights_file(out, which))}})

    if not devices.share(b"float" if facts and "float" in facts.weights else b""):
        if facts:
            _write_preview(out / runs.AUGMENTED_FILE, next(mixing.batches(by_part[TRAIN].pictures, by_part[TRAIN].labels, classes, recipe, 0))[0])
        for number, name in enumerate(names_of(recipe), 1):
            if not devices.share(b"there" if facts and name in facts.teachers else b""):
                trained = float_training(name, recipe_of(recipe, number))
                keep(trained, name, "teachers")
                keras.backend.clear_session()
        trained = float_training("float", recipe)
        keep(trained, "float")
        keras.backend.clear_session()
    devices.part()
    if not facts:
        return None
    models = {"float": runs.load_keras(out, "float")}
    if recipe.qat_epochs:
        if "qat" not in facts.weights:
            seed_everything(recipe.seed + 1)
            model = quantize.quantization_aware(models["float"])
            quantize.calibrate(model, models["float"], _calibration_batches(by_part[TRAIN], recipe))
            teachers = open_teachers(out, facts, recipe, classes, devices.alone())
            fit_phase(model, Phase("qat", recipe.qat_epochs, recipe.qat_learning_rate, 0.1, 1), quantize.freeze(model, recipe), devices.alone(), recipe, teachers)
            quantize.snap_biases(model)
            keep(model, "qat")
        models["qat"] = runs.load_keras(out, "qat")
    judged = [part for part in (VALIDATION, TEST) if len(by_part[part].labels)]
    logits = {f"{which}/{part}": predict(model, by_part[part].pictures) for which, model in models.items() for part in judged}
    runs.write_tensors(out / runs.LOGITS_FILE, logits)
    record()
    run = runs.open_run(out, complete=False)
    evaluation = _evaluate(run, logits, by_part, {part: np.array(groups)[parts == part] for part in PARTS})
    write_json(out / runs.EVALUATION_FILE, evaluation)
    if TEST in judged:
        answers = {which: run.probabilities(which, TEST).argmax(axis=1) for which in models}
        runs.write_tensors(out / runs.SALIENCY_FILE, {which: activation_maps(models[which], by_part[TEST].pictures, said) for which, said in answers.items()})
    for file in (out / runs.CHECKPOINT_FILE, *(runs.weights_file(out, name) for name in names_of(recipe))):
        file.unlink(missing_ok=True)  # all weights are there: nothing would go on from it
    runs.write_facts(out, facts, state="complete")
    report("evaluation", evaluation)
    return runs.open_run(out)


def _evaluate(run: runs.Run, logits: dict[str, np.ndarray], by_part, groups) -> dict:
    """Return {which: {decision, scores}}: decisions fitted on validation, scores on the test part; null where there is none."""
    training, deployment = run.priors()
    positive = run.recipe.positive_class or None
    result = {}
    for which in run.facts.weights:
        decision = run.fit_decision(logits[f"{which}/{VALIDATION}"], by_part[VALIDATION].labels, groups[VALIDATION])
        result[which] = {"decision": decision.model_dump(), "scores": None}
        tested = logits.get(f"{which}/{TEST}")
        if tested is None:
            continue
        probabilities = calibration.probabilities(tested, decision.temperature, training, deployment)
        scores = metrics.scores(
            probabilities, by_part[TEST].labels, run.facts.classes, positive, decision=decision, logits=tested, groups=groups[TEST], priors=deployment
        )
        result[which]["scores"] = scores.model_dump()
    return result


def _calibration_batches(part, recipe: Recipe, count: int = 16) -> Iterator[np.ndarray]:
    """Yield training batches as QAT will see them, to measure ranges on."""
    for pictures, _ in islice(feed.batches(part.pictures, part.labels, recipe, 0), count):
        yield pictures


def _write_preview(path: Path, batch: np.ndarray) -> None:
    """Write the first pictures of an augmented batch (uint8 [n, size, size, 3]) as one PNG."""
    contact_sheet(batch[:32], columns=8).save(path)
