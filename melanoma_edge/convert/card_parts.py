"""The sections that all model cards have, whoever made the model.

In: a manifest. Out: lines of Markdown.
"""

from __future__ import annotations

import re

from melanoma_edge.contract import EXACT_INTEGERS, Manifest, for_phones
from melanoma_edge.convert.card_tables import interval_text, plain, score_tables
from melanoma_edge.convert.licence import LICENCE_FILE


def tables(manifest: Manifest) -> list[str]:
    """Return the tables of the artifacts' own scores."""
    return score_tables(manifest.positive_class, [(artifact, artifact.scores) for artifact in manifest.artifacts if artifact.scores is not None])


def decisions(manifest: Manifest) -> list[str]:
    """Return the thresholds in force with what they cost, how the model abstains, and how much of what is no lesion it answers."""
    lines, positive = [], manifest.positive_class
    decided = [artifact for artifact in manifest.artifacts if artifact.decision.threshold is not None]
    if decided:
        lines += [
            f"A picture is called {plain(positive)} when its probability reaches {decided[0].decision.threshold.in_words()}. What that comes to on the validation "
            "part, with 95 % intervals that hold for as few lesions as there are (Clopper and Pearson):",
            "",
            "| artifact | threshold | sensitivity kept | specificity left |",
            "|---|---|---|---|",
        ]
        for artifact in decided:
            threshold = artifact.decision.threshold
            reached = (interval_text(figure) if figure else "undefined" for figure in (threshold.validation_sensitivity, threshold.validation_specificity))
            lines.append(f"| {artifact.name} | {threshold.probability:.4f} | {' | '.join(reached)} |")
        lines.append("")
        first = for_phones(decided)
        called = first.decision.threshold.validation_called
        if called and len(manifest.classes) > 2:  # with two, the specificity has said it
            each = ", ".join(f"{plain(name)} {interval_text(share)}" for name, share in called.items())
            lines += [f"Of the validation pictures of each other class, {first.name} calls {plain(positive)}: {each}.", ""]
    abstention = manifest.artifacts[0].decision.abstention
    score = "the probability of its top class is below" if abstention.method == "confidence" else "its energy (Liu et al. 2020) is above"
    lines += [f"The model abstains where {score} the threshold in the manifest, at which {abstention.coverage * 100:g} % of the validation part are answered.", ""]
    measured = [artifact for artifact in manifest.artifacts if artifact.non_lesions is not None]
    if measured:
        first = measured[0].non_lesions
        methods = [rate.method for rate in first.rates]
        lines += [
            f"Of {first.pictures} drawn pictures that show no lesion ({', '.join(first.per_kind)}) so many are answered all the same, at this coverage; the fewer, the better:",
            "",
            f"| artifact | {' | '.join(f'by {method}' for method in methods)} |",
            f"|---|{'---|' * len(methods)}",
            *(
                f"| {artifact.name} | {' | '.join(f'{rate.answered} ({rate.answered / artifact.non_lesions.pictures:.0%})' for rate in artifact.non_lesions.rates)} |"
                for artifact in measured
            ),
            "",
        ]
    return lines


def rule(manifest: Manifest) -> str:
    """Return which rule chose the threshold in force, to follow what was said of it."""
    threshold = manifest.artifacts[0].decision.threshold
    return f": {threshold.in_words()}" if threshold else ""


def running(manifest: Manifest) -> list[str]:
    """Return what an application has to know to get the same numbers."""
    lines = []
    if any(artifact.format == "onnx" and artifact.integer for artifact in manifest.artifacts):
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
            f"`{manifest.coreml[0].artifact}`. They were read back, and weights, biases, strides, paddings, temperature and class priors compared with "
            "it; how the operators are connected was not. They were **not run**: Core ML runs on Apple's systems only.",
            "",
        ]
    return ["## Running it", "", *lines] if lines else []


def remarks(manifest: Manifest) -> list[str]:
    """Return what whoever exported it wants to be known of the figures."""
    return [*(f"- {whole(remark)}" for remark in manifest.remarks), ""] if manifest.remarks else []


def attribution(manifest: Manifest) -> list[str]:
    """Return whom and what whoever exported it wants named."""
    return ["", f"Attribution: {'; '.join(map(whole, manifest.attributions))}."] if manifest.attributions else []


def licence_file(manifest: Manifest) -> list[str]:
    """Return where the terms stand in full, where they were named."""
    return ["", f"See `{LICENCE_FILE}`."] if LICENCE_FILE in manifest.files else []


def whole(text: str) -> str:
    """Return a text of whoever exports as one line without Markdown in it, however long."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
