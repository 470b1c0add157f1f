"""Training, from a folder of photographs to a complete run directory.

In: a data folder and a recipe. Out: a run (:mod:`melanoma_edge.model.run`). Order matters and is fixed:
index, data policy, split, and only then rebalancing and augmentation, on the training part alone. What is computed from there on stands in
:mod:`melanoma_edge.model.phases`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from melanoma_edge import host, recipes
from melanoma_edge.contract import Computation, Recipe, RunFacts
from melanoma_edge.data import feed, policy, rebalance
from melanoma_edge.data.copies import fingerprints
from melanoma_edge.data.index import Index, printable, read_index
from melanoma_edge.data.split import PARTS, TEST, TRAIN, absent_from_test, data_hash, split
from melanoma_edge.errors import BadInput
from melanoma_edge.files import cache_folder, explained, refuse_existing, write_bytes, write_json, write_text
from melanoma_edge.model import run as runs
from melanoma_edge.model.devices import ONE_CPU, Asked, Devices, MixedPrecision, open_devices
from melanoma_edge.model.phases import phases
from melanoma_edge.model.workers import cluster


def train(
    data: Path | None,
    recipe: Recipe | None,
    out: Path,
    *,
    metadata: Path | None = None,
    licences: Sequence[str] = (),
    cache: Path | None = None,
    index: Index | None = None,
    resume: bool = False,
    device: Asked | None = None,
    mixed_precision: MixedPrecision | None = None,
    xla: bool = False,
    repeats: runs.Run | None = None,
    command: str = "melanoma_edge.model.train.train",
    report=lambda event, facts: None,
) -> runs.Run | None:
    """Train `recipe` on the pictures below `data` and return the complete run at `out`.

    With `resume`, an interrupted run at `out` goes on (its own recipe, mixed precision, XLA and kind of device count, unless `device` names another, and its own data set unless `data` says
    where that is now); a complete one is returned as it is. `metadata` and `licences` are those of :func:`melanoma_edge.data.sources.read_listing`. Prepared pictures are kept
    in `cache`, by default where :func:`melanoma_edge.files.cache_folder` says. An `index` of `data` with the recipe's
    `image_size` and `decode` saves reading it again.

    `device` is what to compute on ("auto" without it: every visible GPU, else the processor), `mixed_precision` what float training multiplies in, `xla` whether XLA compiles
    its step. Where TF_CONFIG names several workers, all call this; what the chief was given counts, it alone reads and writes `out`, and the others return None.

    With `repeats`, a complete run, everything that its weights follow from is that run's, as an interrupted run's own is with `resume`: pictures that differ, or come in another order, are refused
    before anything is trained. Both together go on with a repetition that was interrupted. Not for several workers.

    `report(event, facts)` is called with "index", "data", "devices", "phase", "step", "epoch" and "evaluation" events. Raises BadInput for bad data, Missing for a missing package, GPU or
    worker, or full disk.
    """
    started = time.perf_counter()
    out = Path(out)
    if repeats and cluster():
        raise BadInput(f"{repeats.path} cannot be repeated by several workers: unset TF_CONFIG, and one machine does it")
    with contextlib.ExitStack() as stack:
        devices = open_devices(device or "auto") if cluster() else None  # first, so that a refusal below ends the other workers' waiting
        run = None
        if devices is None or devices.chief:
            run = _to_go_on_with(out, stack) if resume else _nothing_at(out)
            if run and repeats and (run.facts.data_sha256, run.recipe) != (repeats.facts.data_sha256, repeats.recipe):
                raise BadInput(f"{out} does not repeat {repeats.path}: it is of other pictures or another recipe; name the run that does with --out")
            if run and run.facts.state == "complete":
                if devices:
                    devices.share(b"{}")
                return run
            if given := run or repeats:
                recipe, licences = given.recipe, given.facts.licences
                if data is None:
                    data, metadata = Path(given.facts.data), metadata or (Path(given.facts.metadata) if given.facts.metadata else None)
                last = given.facts.computations[-1] if given.facts.computations else ONE_CPU
                mixed_precision, xla = last.mixed_precision, last.xla
                device = device or (last.device if given.facts.computations else "auto")
        devices = devices or open_devices(device or "auto")
        order = json.loads(devices.share(_order(recipe, data, metadata, licences, mixed_precision, xla)))
        if not order:
            return None
        recipe = recipe if devices.chief else recipes.parse(order["recipe"], order["recipe"]["name"])
        if not devices.chief:
            licences, data, metadata = order["licences"], data or Path(order["data"]), metadata or (Path(order["metadata"]) if order["metadata"] else None)
        devices = devices.computing(recipe, order["mixed_precision"], order["xla"])
        index = index or read_pictures(data, recipe, metadata, licences, cache, report)
        selection = policy.select(index, recipe)
        parts = split(selection, recipe)
        sizes = {part: int((parts == part).sum()) for part in PARTS}
        known = {"source": index.listing.source, "tables": [str(table) for table in index.listing.tables]}
        report("data", {**known, **selection.report, "parts": sizes, "absent_from_test": absent_from_test(selection, parts)})
        report("devices", {"worker": devices.worker, **devices.computation.model_dump()})
        sha256 = data_hash(selection, parts)
        labels = np.array([selection.classes.index(row.label) for row in selection.rows])
        _refuse_other_pictures(devices, data, sha256)
        devices.rows(feed.rows_per_batch(labels[parts == TRAIN], recipe))
        facts = None
        if run:
            if sha256 != run.facts.data_sha256:
                raise BadInput(f"{data} changed since the run {out} began (data hash {sha256[:12]}..., was {run.facts.data_sha256[:12]}...): start a new run")
            refuse_renamed(data, selection, run)
            facts = runs.write_facts(out, run.facts, **_places(data, metadata, index), computations=_going_on(run.facts, devices.computation))
        elif devices.chief:
            if repeats:
                refuse_unlike(data, selection, sha256, repeats)
            init = _initial(recipe, selection.classes, repeats)  # refused before anything is written
            stack.enter_context(runs.held(out))
            if (out / runs.RUN_FILE).exists():  # reading the pictures took a while
                raise BadInput(f"{out} exists already: another process made it meanwhile; choose another --out")
            named = {"data": data, "metadata": metadata, "licences": licences}
            facts = _begin(out, named, recipe, init, index, selection, parts, sha256, labels, devices.computation, command)
        pictures = index.pixels.view(list(selection.positions))
        classes = selection.classes
        del index
        with explained(out):
            return phases(out, facts, recipe, classes, pictures, labels, parts, selection.groups, devices, started, report)


def _to_go_on_with(out: Path, stack: contextlib.ExitStack) -> runs.Run:
    """Return the run at `out`, held by `stack`, without what a process that was killed left half-written."""
    if (out / runs.RUN_FILE).is_file():
        stack.enter_context(runs.held(out))
        runs.sweep(out)
    return runs.open_run(out, complete=False)  # and what is no run is refused here


def _nothing_at(out: Path) -> None:
    """Refuse a folder `out` that holds more than what a process left that was killed before it had begun."""
    runs.clear_unbegun(out)
    refuse_existing(out, force=None)


def _order(recipe: Recipe | None, data: Path | None, metadata: Path | None, licences: Sequence[str], mixed_precision: MixedPrecision | None, xla: bool) -> bytes:
    """Return what the chief tells the other workers."""
    said = {"recipe": recipe and recipe.model_dump(mode="json"), "data": str(data), "metadata": metadata and str(metadata), "licences": list(licences)}
    return json.dumps({**said, "mixed_precision": mixed_precision, "xla": xla}).encode()


def _refuse_other_pictures(devices: Devices, data: Path, sha256: str) -> None:
    """Raise BadInput on every worker where one has other pictures, or another split of them, than the chief."""
    chiefs = devices.share(sha256.encode()).decode()
    others = devices.dissenters(sha256 == chiefs)
    if sha256 != chiefs:
        raise BadInput(f"{data} is not what the chief trains on (data hash {sha256[:12]}..., the chief's {chiefs[:12]}...): give every worker the same pictures")
    if others:
        raise BadInput(f"other pictures than here on worker {', '.join(map(str, others))} (data hash here {sha256[:12]}...): give every worker the same pictures")


def _going_on(facts: RunFacts, now: Computation) -> tuple[Computation, ...]:
    """Return how the run was computed so far and is from now on."""
    return facts.computations if facts.computations[-1:] == (now,) else (*facts.computations, now)


def read_pictures(data: Path, recipe: Recipe, metadata: Path | None, licences: Sequence[str], cache: Path | None, report) -> Index:
    """Return the index of `data` with the network's inputs that `recipe` wants; `report` gets "index" events."""
    return read_index(
        data,
        metadata=metadata,
        licences=licences,
        size=recipe.image_size,
        decode=recipe.decode,
        cache=cache or cache_folder(),
        progress=lambda done, total: report("index", {"done": done, "total": total}),
    )


def refuse_renamed(data: Path, selection: policy.Selection, run: runs.Run) -> None:
    """Raise BadInput where the pictures of `selection` have other names than in `run`: its split and logits are paired by their order."""
    if [(row.path, row.sha256) for row in selection.rows] != [(row.path, row.sha256) for row in run.split]:
        raise BadInput(f"files of {data} were renamed or moved within it since the run {run.path} began: give them their old names, or start a new run")


def refuse_unlike(data: Path, selection: policy.Selection, sha256: str, repeats: runs.Run) -> None:
    """Raise BadInput unless the pictures of `selection` are those of the run `repeats`, in its order, which decides what is drawn."""
    if sha256 != repeats.facts.data_sha256:
        table = f", with its table ({repeats.facts.metadata}) as --metadata" if repeats.facts.metadata else ""
        raise BadInput(
            f"the pictures of {data} are not those that {repeats.path} was trained on, or would be split otherwise (data hash {sha256[:12]}..., was {repeats.facts.data_sha256[:12]}...): "
            f"give its pictures as they were{table}"
        )
    if [row.sha256 for row in selection.rows] != [row.sha256 for row in repeats.split]:
        raise BadInput(f"the pictures of {data} come in another order than those of {repeats.path}, so other ones would be drawn: give their files the names that they had")


def _begin(out: Path, named: dict, recipe: Recipe, init: tuple[bytes, tuple[str, ...]], index: Index, selection, parts, sha256: str, labels, computation: Computation, command: str) -> RunFacts:
    """Write a new run directory up to the point where training starts."""
    from melanoma_edge.model import network

    model = network.build(recipe, len(selection.classes))
    content, fresh = init
    training = rebalance.training_priors(labels[parts == TRAIN], len(selection.classes), recipe)
    counts = Counter(row.label for row, part in zip(selection.rows, parts) if part != TEST)
    facts = RunFacts(
        state="training",
        command=command,
        **_places(named["data"], named["metadata"], index),
        licences=tuple(named["licences"]),
        data_sha256=sha256,
        classes=selection.classes,
        training_priors=dict(zip(selection.classes, training.tolist())),
        data_priors={name: counts[name] / counts.total() for name in selection.classes},
        parameters=int(model.count_params()),
        multiply_accumulates=network.multiply_accumulates(model),
        weights={},
        seconds={},
        peak_memory_bytes=0,
        conditions=host.conditions(),
        computations=(computation,),
        init_sha256=hashlib.sha256(content).hexdigest() if recipe.init else None,
        init_fresh=fresh,
    )
    chosen = list(selection.positions)
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / runs.RECIPE_FILE, recipes.to_toml(recipe))
        if recipe.init:
            write_bytes(out / runs.INIT_FILE, content)
        rows = [
            runs.SplitRow(row.path, row.sha256, row.label, lesion, group, str(part), fingerprint, row.patient)
            for row, lesion, group, part, fingerprint in zip(
                selection.rows, selection.lesions, selection.groups, parts, fingerprints(index.thumbnails[chosen], index.wholes[chosen])
            )
        ]
        runs.write_split(out / runs.SPLIT_FILE, rows)
        write_json(
            out / runs.DATA_FILE,
            {"counts": selection.report, "unreadable": [list(bad) for bad in index.bad], "left_out": selection.left_out},
        )
        write_json(out / runs.HISTORY_FILE, [])
        runs.write_facts(out, facts)
    return facts


def _initial(recipe: Recipe, classes: tuple[str, ...], repeats: runs.Run | None) -> tuple[bytes, tuple[str, ...]]:
    """Return what the recipe's file of weights holds, or the copy of it that `repeats` keeps, and which weights it does not give; nothing where the recipe names none.

    Raises BadInput where it does not fit.
    """
    if not recipe.init:
        return b"", ()
    from melanoma_edge.model import network
    from melanoma_edge.model.initial import start_from

    if repeats:
        content = runs.kept_init(repeats.path, repeats.facts)
        return content, start_from(network.build(recipe, len(classes)), content, str(repeats.path / runs.INIT_FILE), classes)
    try:
        content = Path(recipe.init).read_bytes()
    except (OSError, ValueError) as error:
        raise BadInput(f"the weights to start from, init = {recipe.init}, cannot be read ({error}): give a safetensors file, or leave init out") from None
    return content, start_from(network.build(recipe, len(classes)), content, recipe.init, classes)


def _places(data: Path, metadata: Path | None, index: Index) -> dict:
    """Return where the data set is, for run.json. Links stay as they were named: a table's paths are relative to the link's folder."""
    return {
        "data": printable(os.path.abspath(data)),
        "root": printable(os.path.abspath(index.root)),
        "source": index.listing.source,
        "metadata": printable(os.path.abspath(metadata)) if metadata else None,
        "tables": tuple(printable(os.path.abspath(table)) for table in index.listing.tables),
    }
