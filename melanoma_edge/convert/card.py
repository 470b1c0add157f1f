"""MODEL_CARD.md: what the model is, was trained on, reaches, and must not be used for.

In: a manifest. Out: Markdown. Every figure comes from the manifest.
"""

from __future__ import annotations

from collections.abc import Sequence

from melanoma_edge.contract import Manifest
from melanoma_edge.convert.card_of_model import card_of_model
from melanoma_edge.convert.card_parts import attribution, decisions, licence_file, remarks, rule, running, tables, whole
from melanoma_edge.convert.card_tables import change_text, plain, score_tables
from melanoma_edge.convert.single_models import sentences


def model_card(manifest: Manifest) -> str:
    """Return the model card of a bundle as Markdown."""
    if manifest.origin == "model":
        return card_of_model(manifest)
    recipe, data = manifest.recipe, manifest.data
    per_part = "; ".join(f"{part}: {count} pictures of {data.lesions[part]} lesions" for part, count in data.pictures.items() if count)
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
        "- It knows its classes only: anything else is sorted into one of them, and abstention is no check for that.",
        "- Performance by skin tone, age, sex and site was not evaluated.",
        "",
        "## Data",
        "",
        f"{per_part}. {_split(manifest)} {left_out}".rstrip(),
        f"Data hash: `{data.sha256}`.",
        *_terms(manifest),
        *attribution(manifest),
        "",
        *_figures(manifest),
        *remarks(manifest),
        *_quantized(manifest),
        "## Probabilities and decisions",
        "",
        "Temperature, thresholds and abstention were fitted for each artifact on its own logits of the validation part; they stand in `manifest.json`.",
        f"Class priors: training {_priors(manifest.priors.training)}; probabilities are corrected to {_priors(manifest.priors.deployment)}.",
        "",
        *decisions(manifest),
        *running(manifest),
        "## Licence",
        "",
        manifest.licence,
        *licence_file(manifest),
    ]
    return "\n".join(lines) + "\n"


def _figures(manifest: Manifest) -> list[str]:
    """Return the figures on pictures that the model has not seen, or that there are none."""
    quoted = _cross_validation(manifest)
    if not manifest.tested:
        return quoted or [
            "## Figures",
            "",
            "**No figure on unseen pictures is known.** All pictures were used to train this model and to fit its decisions: none was left to test it, and "
            "figures on pictures that it has seen would flatter it.",
            "",
        ]
    return [
        "## Figures on the test part",
        "",
        "Value and 95 % bootstrap interval over lesions; the test part took no part in training or calibration. Sensitivity at 90 % "
        f"specificity is that of the best threshold on these very pictures; the last column is what the fitted threshold gives{rule(manifest)}.",
        "",
        *tables(manifest),
        "",
        *quoted,
    ]


def _cross_validation(manifest: Manifest) -> list[str]:
    """Return what models of the same recipe come to, where a cross-validation is quoted."""
    found = manifest.cross_validation
    if found is None:
        return []
    count, positive = len(found.folds), found.positive_class
    learnt = "It has seen every one of these pictures, so no figure of its own on unseen ones is known. " if not manifest.tested else ""
    lines = [
        "## Figures by cross-validation",
        "",
        f"{count} models of the same recipe were trained, each without a fold of the data, and made into the same kinds of files. Each of {found.pictures} pictures of {found.lesions} "
        f"lesions was judged once, by the files of the model that {found.unseen_in_words()}, under that model's own temperature, thresholds and abstention. "
        f"**These are figures of those {count} models, not of this very model.** {learnt}They say what the recipe comes to on pictures like these.",
        "",
        "All pictures pooled: value and 95 % bootstrap interval over lesions, which does not hold what other training data would have changed. Sensitivity at 90 % specificity is that "
        "of the best threshold on these very pictures; the last column is what the fitted thresholds give.",
        "",
        *score_tables(positive, [(one, one.pooled) for one in found.artifacts]),
        "",
        *(line for said in sentences(found, manifest.artifacts) for line in (whole(said), "")),
    ]
    if found.comparisons:
        figures = {"balanced_accuracy": "balanced accuracy", "positive_auc": f"{positive} AUC", "positive_sensitivity": f"{positive} sensitivity of the decision"}
        kept = [key for key in figures if positive is not None or not key.startswith("positive")]
        lines += [
            "What int8 changes against float32, in points with its 95 % interval, paired by picture; below zero is worse:",
            "",
            f"| | {' | '.join(plain(figures[key]) for key in kept)} | pictures with another top class |",
            f"|---|{'---|' * (len(kept) + 1)}",
            *(f"| {one.candidate} against {one.reference} | {' | '.join(change_text(one.losses[key]) for key in kept)} | {one.flips} |" for one in found.comparisons),
            "",
        ]
    return lines


def _quantized(manifest: Manifest) -> list[str]:
    """Return how int8 of quantization-aware training, int8 quantized after training and float32 compare."""
    calibrated = next((artifact.calibration for artifact in manifest.artifacts if artifact.calibration), None)
    if not manifest.comparisons or calibrated is None:
        return []
    first, positive = manifest.comparisons[0], manifest.positive_class or "positive class"
    figures = {"balanced_accuracy": "balanced accuracy", "positive_auc": f"{positive} AUC", "positive_sensitivity": f"{positive} sensitivity of the decision"}
    rows = [
        f"| {manifest.artifact(one.candidate).precision} against {manifest.artifact(one.reference).precision} | "
        + " | ".join(change_text(one.losses[key]) for key in figures)
        + f" | {one.flips} | {' / '.join(f'{manifest.artifact(name).bytes / 1000:,.0f}' for name in (one.candidate, one.reference))} |"
        for one in manifest.comparisons
    ]
    per_class = ", ".join(f"{name} {count}" for name, count in calibrated.per_class.items())
    return [
        "## Quantized after training, or during it",
        "",
        "`int8-ptq` is the float network quantized after training; `int8`, where it is there, comes from quantization-aware training. Change in "
        f"points with its 95 % interval, by a paired bootstrap over the {first.lesions} lesions of the {first.pictures} test pictures; below zero is worse.",
        "",
        f"| | {' | '.join(figures.values())} | pictures with another top class | kB |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        f"Calibrated on {calibrated.pictures} training pictures ({per_class}); hash of their ids: `{calibrated.sha256}`.",
        "",
    ]


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
    without = manifest.data.classes_without_lesion_id
    of_test = f"; {manifest.data.with_lesion_id['test']} of {manifest.data.pictures['test']} in the test part" if manifest.tested else ""
    return (
        f"Split by content, and by lesion where it is known ({known} of {total} pictures{of_test}): no copy and no known lesion "
        f"stands in two parts. Every other picture counts as a lesion.{' ' + unparted_in_words(without) if without else ''}"
    )


def unparted_in_words(classes: Sequence[str]) -> str:
    """Return what follows for `classes` of which no lesion is known: at least one."""
    return (
        f"Of {' and '.join(classes)} no lesion is known at all: other photographs of one of their lesions may stand in two parts, so that figures on them may flatter "
        "and their intervals be too narrow."
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
        f"Licences of the pictures: {', '.join(f'{plain(name)} ({count})' for name, count in data.licences.items())}{f'; not stated ({unstated})' if unstated else ''}.",
        *([f"Pictures by: {'; '.join(f'{plain(name)} ({count})' for name, count in named[:ATTRIBUTIONS])}{more}."] if named else []),
    ]


def _priors(priors: dict[str, float]) -> str:
    if len({round(share, 6) for share in priors.values()}) == 1:
        return "uniform"
    return ", ".join(f"{name} {share:.3g}" for name, share in priors.items())
