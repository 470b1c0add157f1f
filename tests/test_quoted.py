"""A bundle that quotes the cross-validation of its recipe: in its card and report, and only of its own recipe, classes and pictures."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import Cli, read_json, validate
from tiny_bundle import write_bundle

from melanoma_edge.contract import CrossValidation, Interval, Threshold
from melanoma_edge.convert import single_models
from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.convert.card import model_card
from melanoma_edge.convert.card_tables import interval_text
from melanoma_edge.errors import BadInput
from melanoma_edge.files import sha256_file
from melanoma_edge.model import run as runs
from melanoma_edge.proof.quoted import read_cross_validation, refuse_other


def test_the_manifest_holds_the_figures_as_they_were(quoted: dict) -> None:
    manifest = read_json(quoted["bundle"] / "manifest.json")
    validate(manifest, "manifest")
    assert manifest["cross_validation"] == read_json(quoted["file"])
    opened = open_bundle(quoted["bundle"]).manifest
    assert opened.cross_validation == read_cross_validation(quoted["file"]) and [artifact.scores for artifact in opened.artifacts] == [None, None]


def test_the_card_quotes_them_and_says_whose_they_are(quoted: dict) -> None:
    card = (quoted["bundle"] / "MODEL_CARD.md").read_text(encoding="utf-8")
    [section] = re.findall(r"## Figures by cross-validation\n(.*?)\n## ", card, flags=re.DOTALL)
    assert "not of this very model.** It has seen every one of these pictures" in section and section.strip().startswith("2 models of the same recipe")
    for one in read_cross_validation(quoted["file"]).artifacts:
        [line] = [line for line in section.splitlines() if line.startswith(f"| {one.name} | ")]
        for figure in (one.pooled.balanced_accuracy, one.pooled.positive_auc, one.pooled.ece, one.pooled.ece_at_priors, one.pooled.positive_sensitivity_of_decision):
            assert interval_text(figure) in line
    assert "| demo-int8.tflite against demo-float32.tflite | " in section
    assert "No figure on unseen pictures" not in card and "## Figures on the test part" not in card


@pytest.mark.parametrize(
    ("known", "without", "words"),
    [
        (42, (), "the model that saw neither it nor its lesion, under"),
        (30, (), "the model that did not see it, nor its lesion as far as lesions are known (30 of 42 pictures), under"),
        (28, ("nevus",), "the model that did not see it, nor its lesion as far as lesions are known (28 of 42 pictures, none of nevus), under"),
        (14, ("melanoma", "nevus"), "the model that did not see it, nor its lesion as far as lesions are known (14 of 42 pictures, none of melanoma or nevus), under"),
        (0, ("melanoma", "nevus", "vascular lesion"), "the model that did not see it, nor its lesion as far as lesions are known (0 of 42 pictures), under"),
        (None, None, "the model that did not see it, nor its lesion as far as lesions are known, under"),
    ],
)
def test_of_how_many_pictures_the_lesion_is_known_is_said(quoted: dict, known: int | None, without: tuple[str, ...] | None, words: str) -> None:
    found = read_cross_validation(quoted["file"]).model_copy(update={"with_lesion_id": known, "classes_without_lesion_id": without})
    assert words in model_card(open_bundle(quoted["bundle"]).manifest.model_copy(update={"cross_validation": found}))


def test_the_card_says_how_far_single_models_lie_apart_and_where_its_own_threshold_lies(quoted: dict) -> None:
    manifest, card = open_bundle(quoted["bundle"]).manifest, (quoted["bundle"] / "MODEL_CARD.md").read_text(encoding="utf-8")
    one = manifest.cross_validation.artifact("demo-int8.tflite")
    ends = one.figures["positive_specificity_of_decision"]
    assert f"its specificity {ends.lowest:.3f} to {ends.highest:.3f}" in card
    worst = max(one.called_positive, key=lambda name: one.called_positive[name].mean)
    assert f"share of the pictures of {worst}, the class most often called melanoma, that are called so {one.called_positive[worst].lowest:.3f} to" in card
    assert "from the lowest to the highest of the 2, each judged on the about 21 pictures of its own fold" in card
    own = manifest.artifact("demo-int8.tflite").decision.threshold
    theirs = [threshold.validation_specificity.value for threshold in one.thresholds]
    assert f"This model's demo-int8.tflite has a specificity of {interval_text(own.validation_specificity)} for melanoma on its validation part" in card
    assert f"the models of these figures {min(theirs):.3f} to {max(theirs):.3f} on theirs" in card
    assert all(f"{name} {interval_text(share)}" in card for name, share in own.validation_called.items())


def kept(specificity: float | None, sensitivity: float = 0.9, rule: str = "sensitivity") -> Threshold:
    """A threshold with what it keeps on validation."""
    values = {"validation_sensitivity": sensitivity, "validation_specificity": specificity}
    return Threshold(rule=rule, target=0.9, probability=0.1, **{name: None if value is None else Interval(value=value, low=None, high=None) for name, value in values.items()})


@pytest.mark.parametrize(
    ("threshold", "words"),
    [
        (kept(0.7), "a specificity of 0.700 for melanoma on its validation part, at the threshold in force; the models of these figures 0.720 to 0.950 on theirs: expect more melanoma calls on other pictures than those figures say."),
        (kept(0.96), "a specificity of 0.960 for melanoma on its validation part, at the threshold in force; the models of these figures 0.720 to 0.950 on theirs: expect fewer melanoma calls on other pictures than those figures say."),
        (kept(0.72), "a specificity of 0.720 for melanoma on its validation part, at the threshold in force; the models of these figures 0.720 to 0.950 on theirs."),
        (kept(0.9, 0.5, "specificity"), "a sensitivity of 0.500 for melanoma on its validation part, at the threshold in force; the models of these figures 0.800 to 0.850 on theirs: expect more misses of melanoma than those figures say."),
    ],
)
def test_what_a_threshold_costs_beside_others_is_said_as_it_is(threshold: Threshold, words: str) -> None:
    assert single_models.beside("a.tflite", threshold, (kept(0.95, 0.8), kept(0.72, 0.85)), "melanoma") == f"This model's a.tflite has {words}"
    assert single_models.beside("a.tflite", kept(None), (kept(0.9),), "melanoma") is None and single_models.beside("a.tflite", threshold, (kept(None, None),), "melanoma") is None


def test_a_figure_that_some_folds_do_not_define_is_said_with_how_many_do_and_two_classes_say_it_once(quoted: dict) -> None:
    found = read_cross_validation(quoted["file"])
    phone = found.of_phones()
    fewer = phone.model_copy(update={"figures": {**phone.figures, "positive_sensitivity_of_decision": phone.figures["positive_sensitivity_of_decision"].model_copy(update={"folds": 1})}})
    [said] = single_models.sentences(found.model_copy(update={"artifacts": (fewer,)}))
    ends = phone.figures["positive_sensitivity_of_decision"]
    assert f"melanoma sensitivity of the decision {ends.lowest:.3f} to {ends.highest:.3f} (of 1);" in said
    [said] = single_models.sentences(found.model_copy(update={"classes": found.classes[:2]}))
    assert "most often called" not in said and "its specificity" in said
    without = phone.model_copy(update={"called_positive": None, "thresholds": None, "figures": {"balanced_accuracy": phone.figures["balanced_accuracy"]}})
    [said] = single_models.sentences(found.model_copy(update={"positive_class": None, "artifacts": (without,)}), open_bundle(quoted["bundle"]).manifest.artifacts)
    assert "balanced accuracy" in said and "None" not in said


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda one: one["thresholds"].pop(), "has 1 thresholds for 2 folds"),
        (lambda one: one["called_positive"].pop("nevus"), "says how often classes are called positive that are not the other classes"),
        (lambda one: one["figures"]["accuracy"].update(lowest=0.9, highest=0.1), "is higher in its lowest fold than in its highest"),
    ],
)
def test_figures_of_folds_that_contradict_are_refused(quoted: dict, tmp_path: Path, change, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        read_cross_validation(changed(quoted["file"], tmp_path, lambda found: change(found["artifacts"][0])))


def test_files_that_do_not_say_how_far_models_lie_apart_are_quoted_without(quoted: dict) -> None:
    found = read_json(quoted["file"])
    for one in found["artifacts"]:
        one.update(thresholds=None, called_positive=None)
        for spread in (*one["figures"].values(), *one["recall"].values()):
            del spread["lowest"], spread["highest"]
    older, manifest = CrossValidation.model_validate_json(json.dumps(found)), open_bundle(quoted["bundle"]).manifest
    assert single_models.sentences(older, manifest.artifacts) == [] != single_models.sentences(manifest.cross_validation, manifest.artifacts)
    assert "Single models" not in model_card(manifest.model_copy(update={"cross_validation": older}))


def test_the_report_and_the_screen_show_them(quoted: dict) -> None:
    page = (quoted["bundle"] / "evidence" / "report.html").read_text(encoding="utf-8")
    found = read_cross_validation(quoted["file"])
    [table] = re.findall(r"Confusion matrix of demo-int8.tflite, by cross-validation.*?<tbody>(.*?)</tbody>", page, flags=re.DOTALL)
    assert [[int(count) for count in re.findall(r'<td class="[^"]*" style="[^"]*">(\d+)', row)] for row in table.split("</tr>")[:3]] == [list(row) for row in found.artifact("demo-int8.tflite").confusion]
    assert "Recall of each class by cross-validation, with its 95 % interval; demo-int8.tflite: " in page and "Single models, from the lowest to the highest of the 2" in page
    for one in read_cross_validation(quoted["file"]).artifacts:
        for name in ("balanced_accuracy", "macro_auc"):
            [row] = re.findall(rf'<tr data-figure="cross-validation/{name}">(.*?)</tr>', page, flags=re.DOTALL)
            assert f'<data value="{getattr(one.pooled, name).value}">' in row and f'<data value="{one.figures[name].mean}">' in row
    assert "Not figures of this very model" in page and "by cross-validation of its recipe, not of this very model" in page and "What int8 changes, by cross-validation" in page
    assert "by cross-validation, 2 models of the same recipe on 42 pictures: balanced accuracy demo-float32.tflite 0." in quoted["done"].out


def changed(file: Path, folder: Path, change) -> Path:
    found = read_json(file)
    change(found)
    (folder / "cross-validation.json").write_text(json.dumps(found), encoding="utf-8")
    return folder / "cross-validation.json"


OTHERS = {
    "epochs": (lambda found: found["recipe"].update(epochs=9), "its epochs is 9, the run's 8; cross-validate the run's own recipe"),
    "seed": (lambda found: found["recipe"].update(seed=8), "its seed is 8, the run's 7"),
    "an augmentation": (lambda found: found["recipe"]["augment"]["rotate"].update(probability=0.125), "its augment.rotate is probability 0.125, low"),
    "pictures": (lambda found: found.update(data_sha256="0" * 64), "is of other pictures than the run"),
}


@pytest.mark.parametrize("key", OTHERS)
def test_a_cross_validation_of_something_else_is_refused(quoted: dict, tmp_path: Path, key: str) -> None:
    change, found = OTHERS[key]
    file = changed(quoted["file"], tmp_path, change)
    with pytest.raises(BadInput) as caught:
        refuse_other(read_cross_validation(file), file, runs.open_run(quoted["run"]))
    assert found in str(caught.value) and str(caught.value).isprintable()


def test_other_classes_are_refused(quoted: dict, tmp_path: Path) -> None:
    text = quoted["file"].read_text(encoding="utf-8").replace('"nevus"', '"mole"')
    (tmp_path / "other.json").write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match="is of other classes than the run"):
        refuse_other(read_cross_validation(tmp_path / "other.json"), tmp_path / "other.json", runs.open_run(quoted["run"]))


def test_another_name_and_description_of_the_recipe_change_nothing(quoted: dict, tmp_path: Path) -> None:
    file = changed(quoted["file"], tmp_path, lambda found: found["recipe"].update(name="other", description="the same"))
    refuse_other(read_cross_validation(file), file, runs.open_run(quoted["run"]))


def test_what_cannot_quote_is_refused_before_anything_is_made(cli: Cli, quoted: dict, pooled: dict, tmp_path: Path) -> None:
    file = changed(quoted["file"], tmp_path, lambda found: found["recipe"].update(epochs=9))
    assert "its epochs is 9, the run's 8" in cli.refused("export", quoted["run"], "--cross-validation", file, "--out", tmp_path / "no.bundle", "-q")
    assert "holds folds, from which cross-validation.json is made" in cli.refused("export", pooled["folds"], "--cross-validation", file, "--out", tmp_path / "no", "-q")
    assert "--cross-validation speaks of a recipe" in cli.refused("export", "--model", quoted["bundle"] / "demo-float32.tflite", "--classes", quoted["bundle"] / "labels.txt", "--cross-validation", file, "-q")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cross-validation.json"]


def test_a_bundle_of_a_version_that_could_not_quote_still_opens(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "old.bundle")
    manifest = read_json(folder / "manifest.json")
    assert manifest.pop("cross_validation") is None
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert open_bundle(folder).manifest.cross_validation is None


def test_a_bundle_that_quotes_other_classes_is_refused(quoted: dict, tmp_path: Path) -> None:
    folder = shutil.copytree(quoted["bundle"], tmp_path / "altered.bundle")
    manifest = read_json(folder / "manifest.json")
    text = json.dumps(manifest["cross_validation"]).replace('"nevus"', '"mole"')
    (folder / "manifest.json").write_text(json.dumps(manifest | {"cross_validation": json.loads(text)}), encoding="utf-8")
    with pytest.raises(BadInput, match="the cross-validation is of other classes than the bundle"):
        open_bundle(folder)
    assert sha256_file(folder / "MODEL_CARD.md") == manifest["files"]["MODEL_CARD.md"]
