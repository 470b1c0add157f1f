"""MODEL_CARD.md: what the model is, was trained on, reaches, and must not be used for.

In: a manifest. Out: Markdown. Every figure comes from the manifest.
"""

from __future__ import annotations

import re

from melanoma_edge.contract import EXACT_INTEGERS, Interval, Manifest


def model_card(manifest: Manifest) -> str:
    """Return the model card of a bundle as Markdown."""
    recipe, data = manifest.recipe, manifest.data
    per_part = "; ".join(f"{part}: {count} pictures of {data.lesions[part]} lesions" for part, count in data.pictures.items())
    left_out = f"Left out for too few lesions: {', '.join(data.left_out_classes)}." if data.left_out_classes else ""
    lines = [
        f"# {manifest.name}",
        "",
        f"**{manifest.notice}**",
        "",
        "## What it is",
        "",
        f"A convolutional network (`{recipe.network}`, recipe `{recipe.name}`) that sorts dermoscopic pictures of skin lesions into "
        f"{len(manifest.classes)} classes: {', '.join(manifest.classes)}. Input: {manifest.input.width} x {manifest.input.height} RGB bytes.",
        "",
        "## Intended use and limits",
        "",
        "- For research and for the development of software. It has not been clinically validated.",
        "- It has seen dermoscopic pictures only: plain phone photographs are outside of what it knows.",
        "- It knows its classes only: anything else is sorted into one of them. Abstention catches part of that, not all.",
        "- Performance by skin tone, age, sex and site was not evaluated.",
        "",
        "## Data",
        "",
        f"{per_part}. {_split(manifest)} {left_out}".rstrip(),
        f"Data hash: `{data.sha256}`.",
        *_terms(manifest),
        "",
        "## Figures on the test part",
        "",
        "Value and 95 % bootstrap interval over lesions; the test part took no part in training or calibration. Sensitivity at 90 % "
        "specificity is that of the best threshold on these very pictures; the last column is what the fitted threshold gives.",
        "",
        *_table(manifest),
        "",
        "## Probabilities and decisions",
        "",
        "Temperature, thresholds and abstention were fitted for each artifact on its own logits of the validation part; they stand in `manifest.json`.",
        f"Class priors: training {_priors(manifest.priors.training)}; probabilities are corrected to {_priors(manifest.priors.deployment)}.",
        "",
        *_running(manifest),
        "## Licence",
        "",
        manifest.licence,
    ]
    return "\n".join(lines) + "\n"


def _split(manifest: Manifest) -> str:
    """Return how the parts were kept apart, as far as lesions were known."""
    known, total = sum(manifest.data.with_lesion_id.values()), sum(manifest.data.pictures.values())
    if known == total:
        return "Split by lesion and by content: no lesion and no copy stands in two parts."
    if not known:
        return (
            "Split by content: no copy stands in two parts. Lesion ids were not known, so photographs of one lesion may, "
            "and every picture counts as a lesion."
        )
    return (
        f"Split by content, and by lesion where it is known ({known} of {total} pictures; "
        f"{manifest.data.with_lesion_id['test']} of {manifest.data.pictures['test']} in the test part): no copy and no known lesion "
        "stands in two parts. Every other picture counts as a lesion."
    )


ATTRIBUTIONS = 20
"""Names that a card lists; archives have thousands, and the manifest holds them all."""


def _terms(manifest: Manifest) -> list[str]:
    """Return under which licences the pictures came, and whom they want named."""
    data = manifest.data
    if not data.licences:
        return []
    stated = sum(data.licences.values())
    unstated = sum(data.pictures.values()) - stated
    named = list(data.attributions.items())
    more = f"; and {len(named) - ATTRIBUTIONS} more in `manifest.json`" if len(named) > ATTRIBUTIONS else ""
    return [
        "",
        f"Licences of the pictures: {', '.join(f'{_plain(name)} ({count})' for name, count in data.licences.items())}{f'; not stated ({unstated})' if unstated else ''}.",
        *([f"Pictures by: {'; '.join(f'{_plain(name)} ({count})' for name, count in named[:ATTRIBUTIONS])}{more}."] if named else []),
    ]


def _plain(text: str) -> str:
    """Return text from a table of somebody else's as a short line without Markdown in it."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", line if len(line) <= 200 else line[:199] + "…")


def _running(manifest: Manifest) -> list[str]:
    """Return what an application has to know to get the same numbers."""
    lines = []
    if any((artifact.format, artifact.precision) == ("onnx", "int8") for artifact in manifest.artifacts):
        settings = " and ".join(f"`{key}` = `{value}`" for key, value in EXACT_INTEGERS.items())
        lines += [
            f"On x86 processors without VNNI, give ONNX Runtime the session entry {settings} for the int8 ONNX model: its default "
            "kernels overflow there and the answers are wrong. Other processors and TFLite need nothing.",
            "",
        ]
    if any(artifact.probabilities is not None for artifact in manifest.artifacts):
        lines += [
            "Files that end in `-probabilities.tflite` are the same networks followed by softmax(logits / temperature), corrected to the "
            "deployment priors: for consumers that show scores as they come. Thresholds and abstention remain to be applied.",
            "",
        ]
    if manifest.coreml:
        lines += [
            f"Core ML: {', '.join(f'`{package.name}`' for package in manifest.coreml)}, with the weights and the temperature of "
            f"`{manifest.coreml[0].artifact}`. They were read back and compared with it weight by weight, and **not run**: Core ML runs on Apple's "
            "systems only.",
            "",
        ]
    return ["## Running it", "", *lines] if lines else []


def _table(manifest: Manifest) -> list[str]:
    positive = manifest.positive_class or "positive class"
    rows = [
        f"| artifact | accuracy | balanced accuracy | macro AUC | {positive} AUC | {positive} sensitivity at 90 % specificity | ECE | {positive} sensitivity / specificity of the decision |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for artifact in manifest.artifacts:
        scores = artifact.scores
        if scores is not None:
            figures = (
                scores.accuracy,
                scores.balanced_accuracy,
                scores.macro_auc,
                scores.positive_auc,
                scores.positive_sensitivity_at_90_specificity,
                scores.ece,
            )
            decided = (scores.positive_sensitivity_of_decision, scores.positive_specificity_of_decision)
            last = " / ".join(interval_text(figure) if figure else "undefined" for figure in decided)
            rows.append(f"| {artifact.name} | " + " | ".join(interval_text(figure) for figure in figures) + f" | {last} |")
    return rows


def interval_text(interval: Interval) -> str:
    """Return a figure and its interval as text, or "undefined"."""
    if interval.value is None:
        return "undefined"
    if interval.low is None:
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _priors(priors: dict[str, float]) -> str:
    if len({round(share, 6) for share in priors.values()}) == 1:
        return "uniform"
    return ", ".join(f"{name} {share:.3f}" for name, share in priors.items())
