"""The model card's terms: licences and names from tables of strangers, as plain text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_bundle import write_bundle

from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.convert.card import ATTRIBUTIONS, model_card


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
