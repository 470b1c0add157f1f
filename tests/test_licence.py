"""LICENCE.txt: the terms of the weights go where the weights go."""

from __future__ import annotations

import pytest
from conftest import Cli, read_json, snapshot
from tiny_bundle import onnx

from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.convert.licence import licence_text, url
from melanoma_edge.errors import BadInput


def test_a_bundle_with_named_terms_holds_them_sealed(quoted: dict, tmp_path) -> None:
    text = (quoted["bundle"] / "LICENCE.txt").read_text(encoding="utf-8")
    assert text.startswith("Licence of the weights in this bundle: CC BY-NC 4.0\nhttps://creativecommons.org/licenses/by-nc/4.0/\n")
    assert "not the licence of the software" in text and "trained on 42 pictures" in text and "  CC-0: 42 pictures" in text
    assert "Pictures by:\n  melanoma-edge samples: 42 pictures" in text
    assert "Attribution, stated by whoever exported them:\n  the [ISIC] Archive\n  A. Author and others\n\n" in text
    manifest = read_json(quoted["bundle"] / "manifest.json")
    assert manifest["licence"] == "CC BY-NC 4.0" and manifest["attributions"] == ["the [ISIC] Archive", "A. Author\nand others"] and manifest["files"]["LICENCE.txt"] == snapshot(quoted["bundle"])["LICENCE.txt"]
    assert (quoted["bundle"] / "MODEL_CARD.md").read_text(encoding="utf-8").endswith("## Licence\n\nCC BY-NC 4.0\n\nSee `LICENCE.txt`.\n")
    import shutil

    altered = shutil.copytree(quoted["bundle"], tmp_path / "altered.bundle")
    (altered / "LICENCE.txt").write_text("do what you like", encoding="utf-8")
    with pytest.raises(BadInput, match="LICENCE.txt was altered"):
        open_bundle(altered)


def test_the_card_names_whom_it_is_told_to_and_says_what_is_to_be_known(quoted: dict) -> None:
    card = (quoted["bundle"] / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert r"Attribution: the \[ISIC\] Archive; A. Author and others." in card and r"- chosen on \*these\* pictures" in card.split("## Figures by cross-validation")[1]


def test_without_named_terms_there_is_no_such_file(whole: dict) -> None:
    assert not (whole["bundle"] / "LICENCE.txt").exists() and "CC-0 (42)" in read_json(whole["bundle"] / "manifest.json")["licence"]


def test_the_terms_of_a_model_of_somebody_else_s_stand_in_theirs(cli: Cli, tmp_path) -> None:
    (tmp_path / "net.onnx").write_bytes(onnx("float32"))
    (tmp_path / "labels.txt").write_text("melanoma\nnevus\nvascular lesion\n", encoding="utf-8")
    cli("export", "--model", tmp_path / "net.onnx", "--classes", tmp_path / "labels.txt", "--licence", "MIT", "--attribution", "them", "--out", tmp_path / "net.bundle", "-q")
    text = (tmp_path / "net.bundle" / "LICENCE.txt").read_text(encoding="utf-8")
    assert text.startswith("Licence of the weights in this bundle: MIT\n\n") and "is not known: the model came as a file.\n\nAttribution, stated by whoever exported them:\n  them\n" in text
    assert "Attribution: them." in (tmp_path / "net.bundle" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "LICENCE.txt" in open_bundle(tmp_path / "net.bundle").manifest.files


@pytest.mark.parametrize(
    ("licence", "address"),
    [
        ("CC BY-NC 4.0", "https://creativecommons.org/licenses/by-nc/4.0/"),
        ("cc-by-sa-4.0", "https://creativecommons.org/licenses/by-sa/4.0/"),
        ("CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
        ("CC-0", "https://creativecommons.org/publicdomain/zero/1.0/"),
        ("CC BY-NC 4.0, or ask us", None),
        ("CC BY-SA-NC 4.0", None),
        ("MIT", None),
    ],
)
def test_a_licence_of_creative_commons_is_given_its_address(licence: str, address: str | None) -> None:
    assert url(licence) == address
    assert (address is None) == ("creativecommons" not in licence_text(licence))


def test_names_of_a_strange_table_stay_one_line_each_and_what_is_not_stated_is_counted() -> None:
    text = licence_text("MIT", 10, {"CC-0": 7}, {"A\nB": 3})
    assert "  A B: 3 pictures\n" in text and "  not stated: 3 pictures\n" in text
    assert "  not stated: 10 pictures\n" in licence_text("MIT", 10, {}, {})
