"""The card of a model that somebody else made: what was measured here, and what is not known.

In: a manifest of origin `model`. Out: Markdown. Every figure comes from the manifest.
"""

from __future__ import annotations

from melanoma_edge.contract import Manifest
from melanoma_edge.convert.card_parts import attribution, decisions, licence_file, remarks, rule, running, tables
from melanoma_edge.convert.card_tables import plain


def card_of_model(manifest: Manifest) -> str:
    """Return the card of a model that somebody else made: what was measured here, and what is not known."""
    source, taken, fitting = manifest.source, manifest.input, manifest.fitting
    calibrated = next((artifact.calibration for artifact in manifest.artifacts if artifact.calibration), None)
    low, high = taken.value_range
    lines = [
        f"# {manifest.name}",
        "",
        f"**{manifest.notice}**",
        "",
        "## What it is",
        "",
        f"A model that somebody else made, wrapped from the file `{source.file}` (sha256 `{source.sha256}`"
        f"{f', written by {plain(source.written_by)}' if source.written_by else ''}). It sorts pictures into {len(manifest.classes)} classes: "
        f"{plain(', '.join(manifest.classes))}.",
        f"Input, as it was declared: {taken.width} x {taken.height} {taken.channels}, bytes as {low:g} to {high:g}, mean {list(taken.mean)}, standard deviation "
        f"{list(taken.std)}. Output: {manifest.output}.",
        *[f"Changed in the file: {plain(change)}." for change in source.changes],
        "",
        "## Not known",
        "",
        "- How it was trained and on what. Pictures that it is scored on may be pictures that it was trained on: no figure here is known to be leak-free.",
        "- Whether the declared input is the one that it was trained with. If it is not, nothing fails and every answer is worse.",
        "- What kind of pictures it has seen, and how it performs by skin tone, age, sex and site.",
        "- Whether its classes mean what their names say. It knows these only: anything else is sorted into one of them.",
        "- It has not been clinically validated by melanoma-edge: for research and for the development of software.",
        "",
        "## Pictures used here",
        "",
        f"Post-training int8 was calibrated on {calibrated.pictures} pictures{_counts(calibrated.per_class)}." if calibrated else "No post-training quantization was done.",
        f"Decisions were fitted on {fitting.pictures} labelled pictures{_counts(fitting.per_class)}; the figures are those of {fitting.held_back} others, of other "
        "lesions as far as lesions are known."
        if fitting
        else "No labelled pictures were given: temperature 1, no threshold, no abstention, no figures.",
        "",
    ]
    if fitting:
        lines += ["## Figures on the pictures held back", "", f"Value and 95 % bootstrap interval over lesions. The threshold in force is fitted{rule(manifest)}.", "", *tables(manifest), ""]
        lines += ["## Probabilities and decisions", "", *decisions(manifest)]
    return "\n".join([*lines, *remarks(manifest), *running(manifest), "## Licence", "", manifest.licence, *attribution(manifest), *licence_file(manifest)]) + "\n"


def _counts(per_class: dict[str, int]) -> str:
    return f" ({plain(', '.join(f'{name} {count}' for name, count in per_class.items()))})" if per_class else " of unknown classes"
