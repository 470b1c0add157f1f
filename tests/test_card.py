"""The model card's terms: licences and names from tables of strangers, as plain text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import write_bundle

from melanoma_edge import metrics
from melanoma_edge.contract import Abstention, Interval, NonLesionRate, NonLesions, Threshold
from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.convert.card import ATTRIBUTIONS, model_card
from melanoma_edge.convert.card_tables import interval_text


@pytest.fixture
def card(tmp_path: Path) -> Callable[..., str]:
    manifest = open_bundle(write_bundle(tmp_path / "tiny.bundle")).manifest
    return lambda **data: model_card(manifest.model_copy(update={"data": manifest.data.model_copy(update=data)}))


def test_licences_and_names_stand_in_the_card(card) -> None:
    text = card(pictures={"train": 8, "test": 4}, lesions={"train": 8, "test": 4}, licences={"CC-BY-NC": 7, "CC-0": 3}, attributions={"Anonymous": 10})
    assert "Licences of the pictures: CC-BY-NC (7), CC-0 (3); not stated (2)." in text and "Pictures by: Anonymous (10)." in text


def test_nothing_is_said_where_nothing_is_known(card) -> None:
    assert "Licences of the pictures" not in card() and "Pictures by" not in card()


def test_what_a_table_says_is_no_markdown(card) -> None:
    text = card(licences={"x](http://evil) <script>": 1}, attributions={"# Heading\n\n| a | b |": 1, "n" * 500: 1})
    assert "<script>" not in text.replace("\\<script\\>", "") and "\n# Heading" not in text
    assert r"x\](http://evil) \<script\>" in text and r"\# Heading \| a \| b \|" in text and "n" * 201 not in text


def test_many_names_are_counted(card) -> None:
    text = card(licences={"CC-BY": 50}, attributions={f"Clinic {number}": 1 for number in range(50)})
    assert f"Clinic {ATTRIBUTIONS - 1} (1)" in text and f"Clinic {ATTRIBUTIONS} (1)" not in text
    assert f"and {50 - ATTRIBUTIONS} more in `manifest.json`" in text


def test_classes_without_a_single_known_lesion_are_named(card) -> None:
    counts = {"pictures": {"train": 8, "validation": 0, "test": 4}, "lesions": {"train": 8, "validation": 0, "test": 4}}
    some = {"with_lesion_id": {"train": 3, "validation": 0, "test": 1}}
    sentence = "Of melanoma and nevus no lesion is known at all: other photographs of one of their lesions may stand in two parts"
    assert sentence in card(**counts, **some, classes_without_lesion_id=("melanoma", "nevus"))
    for classes in ((), None):
        assert "no lesion is known at all" not in card(**counts, **some, classes_without_lesion_id=classes)
    none = {"with_lesion_id": {"train": 0, "validation": 0, "test": 0}}
    assert "Lesion ids were not known" in card(**counts, **none, classes_without_lesion_id=("melanoma", "nevus"))


def test_the_card_says_which_rule_chose_the_threshold_what_it_costs_and_what_is_answered_all_the_same(tmp_path: Path) -> None:
    manifest = open_bundle(write_bundle(tmp_path / "tiny.bundle")).manifest
    kept, cost = ({"value": value, "low": value - 0.1, "high": value + 0.05} for value in (0.906, 0.871))
    threshold = Threshold(rule="sensitivity", target=0.9, probability=0.1501, validation_sensitivity=Interval(**kept), validation_specificity=Interval(**cost))
    rates = [NonLesionRate(method=method, threshold=0.3, answered=count, per_kind={"noise": count}) for method, count in (("confidence", 11), ("energy", 12))]
    measured = NonLesions(pictures=12, per_kind={"noise": 12}, rates=tuple(rates))
    artifacts = tuple(
        artifact.model_copy(update={"decision": artifact.decision.model_copy(update={"threshold": threshold}), "non_lesions": measured}) for artifact in manifest.artifacts
    )
    text = model_card(manifest.model_copy(update={"artifacts": artifacts}))
    assert "A picture is called melanoma when its probability reaches the highest threshold with 90 % sensitivity on validation." in text
    assert "| tiny-int8.tflite | 0.1501 | 0.906 (0.806 to 0.956) | 0.871 (0.771 to 0.921) |" in text
    assert "Of 12 drawn pictures that show no lesion (noise)" in text and "| tiny-int8.tflite | 11 (92%) | 12 (100%) |" in text
    assert "the probability of its top class is below the threshold in the manifest, at which 90 % of the validation part are answered" in text
    energy = Abstention(method="energy", coverage=0.8, threshold=-1.0, answered="at most", temperature=1.0)
    by_energy = tuple(artifact.model_copy(update={"decision": artifact.decision.model_copy(update={"abstention": energy})}) for artifact in artifacts)
    assert "its energy (Liu et al. 2020) is above the threshold in the manifest, at which 80 %" in model_card(manifest.model_copy(update={"artifacts": by_energy}))
    assert "drawn pictures that show no lesion" not in model_card(manifest) and "A picture is called" not in model_card(manifest)


def test_the_card_says_how_the_positive_class_is_told_from_each_other_one(tmp_path: Path) -> None:
    manifest = open_bundle(write_bundle(tmp_path / "tiny.bundle")).manifest
    rng = np.random.default_rng(3)
    labels, classes = np.repeat([0, 1, 2], 20), manifest.classes
    probabilities = rng.dirichlet(np.ones(3), 60) * 0.5 + 0.5 * np.eye(3)[labels]
    threshold = Threshold(rule="sensitivity", target=0.9, probability=0.4, validation_sensitivity=None, validation_specificity=None)
    [worse, better] = (manifest.artifact(f"tiny-{precision}.tflite") for precision in ("float32", "int8"))
    scores = {
        one.name: metrics.scores(found, labels, classes, "melanoma", decision=one.decision.model_copy(update={"threshold": threshold}), replicates=50)
        for one, found in ((worse, rng.dirichlet(np.ones(3), 60)), (better, probabilities))
    }

    def card(**changes) -> str:
        scored = tuple(artifact.model_copy(update={"scores": scores[artifact.name].model_copy(update=changes)}) for artifact in (worse, better))
        return model_card(manifest.model_copy(update={"artifacts": scored}))

    text, found = card(), scores[better.name]
    assert "By tiny-int8.tflite, melanoma against one other class at a time" in text
    for name in classes[1:]:
        assert f"| {name} | 20 | {interval_text(found.positive_auc_against[name])} | {interval_text(found.called_positive[name])} |" in text
    assert f"| {classes[1]} | 20 | {interval_text(found.positive_auc_against[classes[1]])} | - |" in card(called_positive=None)
    assert "one other class at a time" not in card(positive_auc_against=None), "as in files of earlier versions"
    assert "one other class at a time" not in card(positive_auc_against={classes[1]: found.positive_auc}), "of two classes the table above says it"
