"""Runs that an earlier version wrote are read as what they mean."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import read_json
from tiny_run import write_run

from melanoma_edge.errors import BadInput
from melanoma_edge.model import run as runs


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A complete run as version 1 wrote it."""
    folder = write_run(tmp_path / "run").path
    facts = read_json(folder / "run.json")
    (folder / "run.json").write_text(json.dumps(facts | {"schema_version": 1}))
    lines = (folder / "recipe.toml").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith(("abstention", "operating_sensitivity"))]
    (folder / "recipe.toml").write_text("\n".join(["operating_specificity = 0.8", *kept]), encoding="utf-8")
    evaluation = read_json(folder / "evaluation.json")
    for found in evaluation.values():
        shares = {"validation_sensitivity": 0.9, "validation_specificity": None}
        found["decision"] = {
            "temperature": 1.25,
            "thresholds": [{"target_specificity": target, "probability": target / 2, **shares} for target in (0.8, 0.9)],
            "operating_specificity": 0.8,
            "abstention": {"method": "confidence", "coverage": 0.9, "probability": 0.3},
        }
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    return folder


def test_a_run_of_version_1_keeps_its_rule_and_its_threshold(old: Path) -> None:
    run = runs.open_run(old)
    assert run.facts.schema_version == 2 and (run.recipe.operating_sensitivity, run.recipe.operating_specificity) == (None, 0.8)
    for decision, _ in run.evaluation().values():
        assert (decision.threshold.rule, decision.threshold.target, decision.threshold.probability) == ("specificity", 0.8, 0.4)
        assert [threshold.probability for threshold in decision.other_thresholds] == [0.45] and decision.abstention.threshold == 0.3


def test_scores_of_versions_that_measured_fewer_figures_are_read(old: Path) -> None:
    evaluation = read_json(old / "evaluation.json")
    for found in evaluation.values():
        assert found["scores"].pop("ece_at_priors") is not None
    (old / "evaluation.json").write_text(json.dumps(evaluation))
    assert [scores.ece_at_priors for _, scores in runs.open_run(old).evaluation().values()] == [None, None]


def test_a_decision_that_neither_version_writes_is_refused(old: Path) -> None:
    evaluation = read_json(old / "evaluation.json")
    evaluation["float"]["decision"]["thresholds"][0]["target_specificity"] = "high"
    (old / "evaluation.json").write_text(json.dumps(evaluation))
    with pytest.raises(BadInput, match="is not a run's evaluation"):
        runs.open_run(old).evaluation()


def test_a_run_of_a_version_to_come_is_refused(old: Path) -> None:
    (old / "run.json").write_text(json.dumps(read_json(old / "run.json") | {"schema_version": 3}))
    with pytest.raises(BadInput, match="has schema version 3: this melanoma-edge reads up to 2; upgrade"):
        runs.open_run(old)
