"""Layer by layer: where two runtimes of one network part, and whose fault it is.

In: a bundle and some pictures. Out: :class:`~melanoma_edge.proof.layers_model.Layers`, also written to
evidence/layers.json. Every layer is compared twice. *End to end*, both models compute from the picture on: that
says where they part and what becomes of it, but behind the first difference nearly every layer differs. *Alone*,
the candidate's operator gets the reference's input of that layer: a fault shows in its own layer and nowhere else.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from melanoma_edge import host
from melanoma_edge.contract import INPUT_NAME, OUTPUT_NAME, Artifact
from melanoma_edge.convert import layers as opened_tflite
from melanoma_edge.convert.bundle import EVIDENCE, MANIFEST, Bundle, open_bundle
from melanoma_edge.convert.reference import to_write
from melanoma_edge.convert.layers import Grid, Layer
from melanoma_edge.data import image
from melanoma_edge.errors import BadInput, Error, Missing
from melanoma_edge.files import cache_folder, explained, sha256_file, write_json
from melanoma_edge.proof import gates
from melanoma_edge.proof.gate_plan import Pictures
from melanoma_edge.proof.layers_model import Difference, LayerPair, LayerRow, Layers, Side
from melanoma_edge.proof.requirements import TASK, expanded
from melanoma_edge.proof.verify import labelled_pictures, probes, reference_run
from melanoma_edge.runtimes import process
from melanoma_edge.runtimes.protocol import BESIDE, RUNTIMES, RuntimeFailed, Unsupported, asked, one_line

LAYERS_FILE = "layers.json"
PICTURES = 24
"""Drawn or of a folder, behind the golden ones: a picture has a million values to compare."""
MOST_QUANTA = 1
"""Two right implementations of one operator on one input differ by a rounding: one quantum."""
MOST_OFF = 0.02
"""And seldom: only where the exact result lies close to a rounding's tie; on the nine-class ISIC set in at most 0.001 %
of a layer's values. A scale that is wrong by 1 % moves every value above 50 quanta. Other families of kernels break
ties by another rule, which at a pooling's averages of a few values may be 15 % of them: there the share proves nothing."""
FLOAT_OFF = 1e-5
MOST_OF_RANGE = 1e-4
"""Float operators: largest difference of a value as a share of its tensor's range; as the gates for float32 logits ask."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Seen:
    """One model's tensors, by layer."""

    values: list[np.ndarray]
    """[N, ...] in the shape of the TFLite file; int8 where there is a grid, else float32."""
    tensors: list[str]
    grids: list[tuple[Grid, ...]]
    """How the readers of the tensor take it, first; what else the model says about it, behind. Empty for float."""
    notes: tuple[str, ...] = ()

    def numbers(self, position: int) -> np.ndarray:
        """Return what the values of a layer stand for, float64."""
        return _numbers(self.values[position], self.grids[position])


def look(
    bundle: Path,
    *,
    data: Path | None = None,
    metadata: Path | None = None,
    cache: Path | None = None,
    run: Path | None = None,
    runtimes: Sequence[str] = (),
    require: Sequence[str] = (),
    pictures: Pictures | None = None,
    command: str = "melanoma_edge.proof.layers.look",
    progress: Progress = lambda line: None,
) -> Layers:
    """Compare the layers of the float32 and int8 artifacts of `bundle` and write evidence/layers.json.

    int8 TFLite is compared with the fake-quantized network, int8 ONNX with int8 TFLite, float32 TFLite with the
    float network and float32 ONNX with float32 TFLite; other kernels and processors with LiteRT and ONNX Runtime
    on this machine. The parameters are those of :func:`melanoma_edge.proof.verify.verify`. A pair that cannot be
    compared says why. Raises BadInput for a bundle or data that are not right, Missing for what is required and
    not compared; a suspect layer does not raise.
    """
    started = time.perf_counter()
    opened = open_bundle(to_write(bundle))
    if opened.manifest.origin != "run":
        raise BadInput(f"{bundle} wraps a model that was not trained here: --layers looks into networks of runs; leave it out for the gates")
    here = process.available()
    if TASK in require:
        raise BadInput("--layers carries out no task gate: leave out --require task, or --layers")
    require = expanded(require, here, opened, labelled=False)
    named = [*(runtimes or asked([])), *(name for name in require if RUNTIMES[name].runs_artifacts)]
    wanted = asked(named)
    if pictures is None:
        progress("reading pictures")
        pictures = labelled_pictures(opened, data, metadata, cache or cache_folder()) if data is not None else probes(opened, PICTURES)
    spread = np.linspace(0, len(pictures.inputs) - 1, min(PICTURES, len(pictures.inputs))).round().astype(int)
    golden = [image.load(opened.path / picture.file, opened.manifest.input.width) for picture in opened.golden.pictures]
    comparison = _Comparison(opened, np.concatenate([np.stack(golden), pictures.inputs[spread]]), run, here, progress)
    pairs = tuple(comparison.pairs(wanted))
    for name in require:
        mine = [pair for pair in pairs if name in (pair.runtime, *pair.reference.replace("-", " ").split())]
        if not any(pair.outcome == "compared" for pair in mine):
            why = next((pair.reason for pair in mine), "the bundle has no artifact for it")
            raise Missing(f"the runtime {name} was required but no layer was compared in it: {why}")
    found = Layers(
        bundle=opened.manifest.name,
        manifest_sha256=sha256_file(opened.path / MANIFEST),
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        data=pictures.description,
        pictures=len(comparison.images),
        pairs=pairs,
        seconds=time.perf_counter() - started,
        conditions=host.conditions(),
    )
    with explained(opened.path):
        (opened.path / EVIDENCE).mkdir(exist_ok=True)
        write_json(opened.path / EVIDENCE / LAYERS_FILE, found.model_dump(mode="json"))
    return found


class _Comparison:
    """The comparisons on one bundle, so that each model is looked into once."""

    def __init__(self, bundle: Bundle, images: np.ndarray, run: Path | None, here, progress: Progress) -> None:
        self.bundle, self.images, self.here, self.progress = bundle, images, here, progress
        self.run = reference_run(bundle, run, here)
        self.held: dict[tuple[str, str], Seen] = {}
        self.usual: dict[tuple[str, str], dict[str, int]] = {}
        self.integers = {artifact.name for artifact in bundle.manifest.artifacts if artifact.precision == "int8"}

    def pairs(self, wanted: Sequence[str]) -> Iterator[LayerPair]:
        """Yield every pair of the runtimes in `wanted`."""
        for precision, network in (("int8", "qat"), ("float32", "float")):
            twin = self._artifact("tflite", precision)
            for kind in ("tflite", "onnx"):
                artifact = self._artifact(kind, precision)
                for runtime in (name for name in wanted if artifact is not None and kind in RUNTIMES[name].formats):
                    peer = RUNTIMES[runtime].peer
                    reference = f"{peer}" if peer else f"keras-{network}" if kind == "tflite" else f"{precision} TFLite"
                    self.progress(f"{artifact.name} on {runtime} beside {reference}")
                    unit = "quanta" if precision == "int8" else "share of range"
                    about = {"artifact": artifact.name, "runtime": runtime, "reference": reference, "unit": unit}
                    try:
                        if twin is None:
                            raise Missing(f"the bundle has no {precision} TFLite file, whose layers the others are compared by: export one")
                        yield LayerPair(**about, outcome="compared", **self._compare(artifact, twin, runtime, peer, network))
                    except Error as error:
                        crashed = isinstance(error, RuntimeFailed) and not isinstance(error, Unsupported)
                        yield LayerPair(**about, outcome="failed" if crashed else "not run", reason=str(error))

    def _compare(self, artifact: Artifact, twin: Artifact, runtime: str, peer: str | None, network: str) -> dict:
        """Return the figures of one pair."""
        rows = _edited(twin, lambda: opened_tflite.layers(self.bundle.file(twin).read_bytes()))
        if peer:
            reference = self._seen(artifact, peer, rows)
        elif artifact is twin:
            reference = self._network(network, rows)
        else:
            reference = self._seen(twin, "litert", rows)
        candidate = self._seen(artifact, runtime, rows)
        alone = self._alone(artifact, runtime, rows, reference)
        most_off = 1.0 if RUNTIMES[runtime].group == "kernels" else MOST_OFF
        found = tuple(_row(layer, position, candidate, reference, alone, most_off) for position, layer in enumerate(rows))
        parted = next((row.layer for row in found if row.end_to_end.off > 0), None)
        notes = tuple(dict.fromkeys((*candidate.notes, *reference.notes, *alone.notes)))
        return {"pictures": len(self.images), "first_part": parted, "rows": found, "notes": notes}

    def _network(self, which: str, rows: Sequence[Layer]) -> Seen:
        """Return the tensors of the run's Keras network."""
        if ("keras", which) not in self.held:
            if isinstance(self.run, str):
                raise Missing(self.run)
            names = {f"layer_{position}": _candidates(layer) for position, layer in enumerate(rows)}
            values, facts = process.run_tensors("keras", self.run, {INPUT_NAME: self.images}, wanted=names, which=which)
            grids = [() if (grid := facts[name]["grid"]) is None else (Grid(float(np.float32(grid[0])), grid[1]),) for name in names]
            arranged = [_shaped(values[name], layer, name) for name, layer in zip(names, rows, strict=True)]
            self.held["keras", which] = Seen(arranged, [facts[name]["tensor"] for name in names], grids)
        return self.held["keras", which]

    def _seen(self, artifact: Artifact, runtime: str, rows: Sequence[Layer]) -> Seen:
        """Return the tensors of an artifact that computes everything from the picture on."""
        key = (artifact.name, runtime)
        if key not in self.held:
            self._require(runtime)
            file = self._open(artifact, rows)
            found, facts = self._run(_edited(artifact, file.traced), runtime, artifact, {INPUT_NAME: self._pictures(artifact)}, beside=self.bundle.file(artifact))
            notes, logits, expected = [], found[OUTPUT_NAME], found[BESIDE]
            if not np.array_equal(logits, expected):
                largest = float(np.abs(logits.astype(np.float64) - expected).max() / (artifact.quantum or np.ptp(expected) or 1.0))
                unit = "quanta" if artifact.quantum else "of the range"
                notes.append(f"{artifact.name} in {runtime} gives other logits while it is looked into (by up to {largest:.2g} {unit})")
            self.usual[key] = facts.get("usual_operators", {})
            notes += self._changed(key, facts)
            self.held[key] = Seen(file.values(found, self._pictures(artifact)), file.tensors, file.grids, tuple(notes))
        return self.held[key]

    def _alone(self, artifact: Artifact, runtime: str, rows: Sequence[Layer], reference: Seen) -> Seen:
        """Return the tensors of an artifact whose every layer reads the reference's tensors."""
        file = self._open(artifact, rows)
        grids = [(theirs or ours)[0] if (theirs or ours) else None for theirs, ours in zip(reference.grids, file.grids, strict=True)]
        grids = [grid if ours else None for grid, ours in zip(grids, file.grids, strict=True)]
        given = {}
        for position, grid in enumerate(grids):
            values = reference.values[position]
            if grid is None:
                values = reference.numbers(position).astype(np.float32)
            elif not reference.grids[position]:
                values = np.clip(np.rint(values / np.float32(grid.scale)) + grid.zero_point, -128, 127).astype(np.int8)
            given[f"given_{position}"] = file.arranged(position, values)
        found, facts = self._run(_edited(artifact, lambda: file.cut(grids)), runtime, artifact, {INPUT_NAME: self._pictures(artifact), **given})
        return Seen(file.values(found, self._pictures(artifact)), file.tensors, file.grids, tuple(self._changed((artifact.name, runtime), facts)))

    def _pictures(self, artifact: Artifact) -> np.ndarray:
        """Return the pictures with their axes in the order that the file takes."""
        return self.images if artifact.layout == "NHWC" else np.ascontiguousarray(self.images.transpose(0, 3, 1, 2))

    def _open(self, artifact: Artifact, rows: Sequence[Layer]) -> _Tflite | _Onnx:
        kind = _Tflite if artifact.format == "tflite" else _Onnx
        return _edited(artifact, lambda: kind(self.bundle.file(artifact).read_bytes(), rows))

    def _run(self, content: bytes, runtime: str, artifact: Artifact, inputs: dict, beside: Path | None = None) -> tuple[dict[str, np.ndarray], dict]:
        """Return what :func:`process.run_tensors` gives for an edited copy of an artifact."""
        with tempfile.TemporaryDirectory(prefix="melanoma-edge-") as folder:
            path = Path(folder) / f"copy.{artifact.format}"
            path.write_bytes(content)
            return process.run_tensors(runtime, path, inputs, beside=beside)

    def _changed(self, key: tuple[str, str], facts: dict) -> Iterator[str]:
        """Yield a note where an edited copy is no longer computed in integers as the file itself is."""
        found, usual = facts.get("operators", {}), self.usual[key]
        for name in (*gates.ONNX_INTEGER, *gates.ONNX_FLOATING) if key[0] in self.integers else ():
            if usual.get(name, 0) != found.get(name, 0):
                yield f"{key[0]} in {key[1]} runs {found.get(name, 0)} {name} while it is looked into, {usual.get(name, 0)} otherwise"

    def _require(self, runtime: str) -> None:
        if not self.here[runtime].available:
            raise Missing(f"{self.here[runtime].reason}; {self.here[runtime].install or 'use a machine that has it'}")

    def _artifact(self, kind: str, precision: str) -> Artifact | None:
        return next((found for found in self.bundle.manifest.artifacts if (found.format, found.precision) == (kind, precision)), None)


class _Tflite:
    """A TFLite file that can be looked into."""

    def __init__(self, content: bytes, rows: Sequence[Layer]) -> None:
        self.content, self.rows = content, rows
        self.tensors = [layer.tensor for layer in rows]
        self.grids = [() if layer.grid is None else (layer.grid,) for layer in rows]

    def traced(self) -> bytes:
        return opened_tflite.traced(self.content, self.rows)

    def cut(self, grids: Sequence[Grid | None]) -> bytes:
        return opened_tflite.cut(self.content, self.rows, grids)

    def arranged(self, position: int, values: np.ndarray) -> np.ndarray:
        """Return values in TFLite's shape as the file takes them."""
        return values

    def values(self, found: dict[str, np.ndarray], images: np.ndarray) -> list[np.ndarray]:
        """Return the layers' values out of what the edited copy gave; a float network's last layer gives the logits."""
        return [found[f"layer_{position}" if f"layer_{position}" in found else OUTPUT_NAME] for position in range(len(self.rows))]


class _Onnx:
    """An ONNX file that can be looked into, beside the TFLite file of the same network."""

    def __init__(self, content: bytes, rows: Sequence[Layer]) -> None:
        from melanoma_edge.convert import layers_onnx

        self._edits, self.content, self.rows = layers_onnx, content, rows
        self.places = layers_onnx.places(content, rows)
        self.shapes = layers_onnx.shapes(content, self.places)
        self.tensors = [place.tensor for place in self.places]
        self.grids = [place.grids for place in self.places]

    def traced(self) -> bytes:
        return self._edits.traced(self.content, self.places)

    def cut(self, grids: Sequence[Grid | None]) -> bytes:
        return self._edits.cut(self.content, self.places, grids)

    def arranged(self, position: int, values: np.ndarray) -> np.ndarray:
        """Return values in TFLite's shape as the file takes them: channels first, and with its own sign."""
        shape = self.shapes[position]
        if self.places[position].unsigned:
            values = (values.astype(np.int16) + 128).astype(np.uint8)
        if self._turned(position):
            values = np.moveaxis(values.reshape(len(values), shape[2], shape[3], shape[1]), -1, 1)
        return np.ascontiguousarray(values.reshape(len(values), *shape[1:]))

    def values(self, found: dict[str, np.ndarray], images: np.ndarray) -> list[np.ndarray]:
        """Return the layers' values, in TFLite's shape, out of what the edited copy gave."""
        return [self._value(position, found.get(place.tensor, images)) for position, place in enumerate(self.places)]

    def _value(self, position: int, values: np.ndarray) -> np.ndarray:
        if self.places[position].unsigned:
            values = (values.astype(np.int16) - 128).astype(np.int8)
        if self._turned(position):
            values = np.moveaxis(values, 1, -1)
        return values.reshape(len(values), *self.rows[position].shape[1:])

    def _turned(self, position: int) -> bool:
        """Return whether the file holds [1, channels, height, width] of what TFLite holds as [1, height, width, channels]."""
        shape, theirs = self.shapes[position], self.rows[position].shape
        if int(np.prod(shape)) != int(np.prod(theirs)):
            raise BadInput(f"{self.rows[position].name} has the shape {list(shape)} in the ONNX file and {list(theirs)} in the TFLite file: export both again")
        return len(shape) == 4 and (len(theirs) != 4 or (shape[0], *shape[2:], shape[1]) == tuple(theirs))


def _edited(artifact: Artifact, edit: Callable):
    """Return what `edit` makes of an artifact's bytes; what its libraries say of a damaged file becomes a BadInput of one line."""
    try:
        return edit()
    except Error:
        raise
    except Exception as error:
        raise BadInput(f"{artifact.name} cannot be looked into ({type(error).__name__}: {one_line(error)}): export it again") from None


def _candidates(layer: Layer) -> list[str]:
    """Return the names that the layer may have in the Keras network."""
    return [*layer.parts, layer.name]


def _shaped(values: np.ndarray, layer: Layer, name: str) -> np.ndarray:
    if values[0].size != int(np.prod(layer.shape)):
        raise BadInput(f"{layer.name} has {values[0].size} values in the Keras network and {list(layer.shape)} in the TFLite file: export the run again")
    return values.reshape(len(values), *layer.shape[1:])


def _numbers(values: np.ndarray, grids: tuple[Grid, ...]) -> np.ndarray:
    return values.astype(np.float64) if not grids else (values.astype(np.float64) - grids[0].zero_point) * grids[0].scale


def _row(layer: Layer, position: int, candidate: Seen, reference: Seen, alone: Seen, most_off: float = MOST_OFF) -> LayerRow:
    """Return the comparison of one layer."""
    ours, theirs = candidate.grids[position], reference.grids[position]
    expected = reference.numbers(position)
    grid = next(iter((*theirs, *ours)), None)
    quantum = grid.scale if grid else _range(expected) or 1.0
    end_to_end, own = (
        _difference(found.numbers(position), expected, quantum, 0.5 if grid else FLOAT_OFF) for found in (candidate, alone)
    )
    return LayerRow(
        layer=layer.name,
        operator=layer.operator,
        values=expected.size,
        candidate=_side(candidate, position),
        reference=_side(reference, position),
        end_to_end=end_to_end,
        alone=own,
        suspect=_suspicion(ours, theirs, own, most_off if grid else None),
    )


def _side(seen: Seen, position: int) -> Side:
    grid = next(iter(seen.grids[position]), None)
    return Side(tensor=seen.tensors[position], scale=grid.scale if grid else None, zero_point=grid.zero_point if grid else None)


def _range(values: np.ndarray) -> float:
    """Return how far the finite values reach; 0 where there is none."""
    finite = values[np.isfinite(values)]
    return float(np.ptp(finite)) if finite.size else 0.0


def _difference(found: np.ndarray, expected: np.ndarray, quantum: float, least: float) -> Difference:
    finite = np.isfinite(found) & np.isfinite(expected)  # no comparison can be trusted with what is not
    difference = np.where(finite, (np.where(finite, found, 0) - np.where(finite, expected, 0)) / quantum, gates.MOST_QUANTA)
    expected = np.where(finite, expected, 0)
    distance = np.abs(difference)
    off = distance >= least
    noise, signal = float(np.square(difference).sum()), float(np.square(expected / quantum).sum())
    return Difference(
        off=float(off.mean()),
        largest=float(distance.max()),
        mean_of_off=float(distance[off].mean()) if off.any() else None,
        bias=float(difference.mean()),
        sqnr_db=float(10 * np.log10(max(signal, np.finfo(float).tiny) / noise)) if noise else None,
    )


def _suspicion(ours: tuple[Grid, ...], theirs: tuple[Grid, ...], own: Difference, most_off: float | None) -> str | None:
    """Return why a layer's own error is more than rounding, or None."""
    if theirs and (other := next((grid for grid in ours if not grid.same(theirs[0])), None)):
        return f"its output has scale {other.scale:.6g} and zero point {other.zero_point}, in the reference {theirs[0].scale:.6g} and {theirs[0].zero_point}"
    if own.largest >= gates.MOST_QUANTA:
        return "NaN or infinity on the reference's input"
    if most_off is None:
        return f"off by {own.largest:.1e} of the range on the reference's input" if own.largest > MOST_OF_RANGE else None
    if round(own.largest) > MOST_QUANTA:
        return f"off by up to {own.largest:.0f} quanta on the reference's input"
    return f"{own.off:.1%} of its values are off on the reference's input" if own.off > most_off else None
