"""What an export of a run makes: which files, named how, with which order of their input, under which terms.

In: a run and what was asked for. Out: the plan, or a refusal before anything is read; and whether a bundle is already what the plan makes.
"""

from __future__ import annotations

from collections.abc import Sequence

from melanoma_edge.contract import LAYOUTS, ON_REQUEST, PRECISIONS, Format, Layout, Precision, network_of
from melanoma_edge.convert.bundle import Bundle
from melanoma_edge.convert.facts import Head
from melanoma_edge.convert.licence import LICENCE_FILE
from melanoma_edge.errors import BadInput
from melanoma_edge.files import read_json
from melanoma_edge.model import run as runs

LICENCE = "Not stated. Weights may be bound by the terms of the pictures that they were trained on."
LICENCE_OF_DATA = "Not stated. The pictures that the weights were trained on came under {licences}; weights may be bound by these terms."


def plan(run: runs.Run, formats: Sequence[Format], precisions: Sequence[Precision]) -> list[tuple[Format, Precision]]:
    """Return the artifacts to make, in the order of the contract's table; raises BadInput for what cannot be."""
    known = {precision for possible in PRECISIONS.values() for precision in possible}
    for precision in precisions:
        if precision not in known:
            raise BadInput(f"there is no precision {precision!r}: expected some of {', '.join(PRECISIONS['tflite'])}")
    can_int8 = "qat" in run.facts.weights
    if "int8" in precisions and not can_int8:
        raise BadInput(
            f"int8 needs quantization-aware training, and the run {run.path} had none (qat_epochs = 0): train with --set qat_epochs=8, "
            "or ask for int8-ptq, which is quantized after training"
        )
    made = [
        (fmt, precision)
        for fmt, possible in PRECISIONS.items()
        for precision in possible
        if (not formats or fmt in formats)
        and (precision in precisions if precisions else precision not in ON_REQUEST and network_of(precision) in run.facts.weights)
    ]
    if not made:
        table = "; ".join(f"{fmt}: {', '.join(possible)}" for fmt, possible in PRECISIONS.items())
        raise BadInput(f"there is no {'/'.join(formats)} artifact of precision {', '.join(precisions)}: expected one of {table}")
    return made


def artifact_name(run: runs.Run, fmt: Format, precision: Precision) -> str:
    """Return the file name of an artifact."""
    return f"{run.recipe.name}-{precision}.{fmt}"


def layouts_of(wanted: Sequence[tuple[Format, Precision]], layout: Layout) -> dict[Format, Layout]:
    """Return in which order the files of each format take their input; raises BadInput where none can have `layout`."""
    made = {fmt for fmt, _ in wanted}
    if not any(layout in LAYOUTS[fmt] for fmt in made):
        able = " or ".join(fmt for fmt, possible in LAYOUTS.items() if layout in possible)
        raise BadInput(f"{layout} is for {able} files, and none was asked for ({', '.join(sorted(made))}): export with --{able} too, or without --layout")
    return {fmt: layout if layout in LAYOUTS[fmt] else LAYOUTS[fmt][0] for fmt in made}


def licence_of(run: runs.Run) -> str:
    """Return what is known of the terms of the weights where nobody named any."""
    licences = read_json(run.path / runs.DATA_FILE, "a run's data report")["counts"].get("licences", {})
    return LICENCE_OF_DATA.format(licences=", ".join(f"{name} ({count})" for name, count in licences.items())) if licences else LICENCE


def made_alike(
    bundle: Bundle,
    run: runs.Run,
    *,
    formats: Sequence[Format] = (),
    precisions: Sequence[Precision] = (),
    layout: Layout = "NHWC",
    head: Head = "logits",
    coreml: bool = False,
    licence: str | None = None,
    attributions: Sequence[str] = (),
    remarks: Sequence[str] = (),
) -> bool:
    """Return whether `bundle` holds what :func:`melanoma_edge.proof.export.export` makes of `run` with these options, whatever the versions of its tools."""
    manifest, wanted = bundle.manifest, plan(run, formats, precisions)
    layouts, used = layouts_of(wanted, layout), {network_of(precision) for _, precision in wanted}
    ours = [(artifact_name(run, fmt, precision), layouts[fmt], head == "probabilities" and fmt == "tflite") for fmt, precision in wanted]
    return (
        manifest.recipe == run.recipe
        and manifest.data is not None
        and (manifest.data.sha256, manifest.classes) == (run.facts.data_sha256, run.facts.classes)
        and manifest.weights == {which: sha256 for which, sha256 in run.facts.weights.items() if which in used}
        and [(artifact.name, artifact.layout, artifact.probabilities is not None) for artifact in manifest.artifacts] == ours
        and bool(manifest.coreml) == coreml
        and manifest.licence == (licence_of(run) if licence is None else licence)
        and (LICENCE_FILE in manifest.files) == bool(licence)
        and (manifest.attributions, manifest.remarks) == (tuple(attributions), tuple(remarks))
    )
