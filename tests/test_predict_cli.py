"""Prediction as a user asks for it: order, sums, decisions, and names and files that mean trouble."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, Cli, read_json
from PIL import Image
from test_export_cli import ONNX, TFLITE, artifacts, logits, network_input

from melanoma_edge import NOTICE


def pictures(drawn: Path, count: int) -> list[Path]:
    """Return some pictures of every class."""
    return [file for name in CLASSES for file in sorted((drawn / name).glob("*.png"))[:count]]


@pytest.mark.parametrize("name", [TFLITE[3], TFLITE[0], ONNX[0]])
def test_probabilities_come_from_the_artifacts_own_logits(cli: Cli, bundle: Path, drawn: Path, name: str) -> None:
    files = pictures(drawn, 6)
    done = cli("predict", bundle, *files, "--artifact", name, "--json")
    assert done.json["model"] == name and done.json["notice"] == NOTICE and done.json["positive_class"] == "melanoma" and done.err == ""
    scaled = logits(bundle / name, np.stack([network_input(file) for file in files])).astype(float) / artifacts(bundle)[name]["decision"]["temperature"]
    expected = np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)  # training and deployment priors are uniform
    for file, result, row in zip(files, done.json["results"], expected, strict=True):
        assert result["picture"] == str(file)
        assert result["probabilities"] == pytest.approx(dict(zip(CLASSES, row)), rel=1e-4, abs=1e-7)
        values = list(result["probabilities"].values())
        assert values == sorted(values, reverse=True) and sum(values) == pytest.approx(1, abs=1e-9)
        assert result["class"] == next(iter(result["probabilities"])) == CLASSES[int(row.argmax())]


def test_decisions_follow_the_manifests_thresholds(cli: Cli, bundle: Path, drawn: Path, tmp_path: Path) -> None:
    files = pictures(drawn, 10)
    results = cli("predict", bundle, *files, "--json").json["results"]
    decision = artifacts(bundle)[TFLITE[3]]["decision"]
    threshold = decision["threshold"]["probability"]
    assert {result["positive"] for result in results} == {True, False}
    for result in results:
        assert result["positive"] == (result["probabilities"]["melanoma"] >= threshold)
        assert result["abstains"] == (result["probabilities"][result["class"]] < decision["abstention"]["threshold"])

    # With a stricter decision about half of the pictures get no answer; the manifest itself is not sealed.
    strict = tmp_path / "strict.bundle"
    shutil.copytree(bundle, strict)
    manifest = read_json(strict / "manifest.json")
    middle = float(np.median([result["probabilities"][result["class"]] for result in results]))
    manifest["artifacts"][3]["decision"]["abstention"]["threshold"] = middle
    (strict / "manifest.json").write_text(json.dumps(manifest))
    done = cli("predict", strict, *files, "--json").json["results"]
    assert [result["abstains"] for result in done] == [result["probabilities"][result["class"]] < middle for result in done]
    assert 10 <= sum(result["abstains"] for result in done) <= 30
    shown = cli("predict", strict, *files).out
    assert shown.count("the model abstains") == sum(result["abstains"] for result in done)
    assert shown.count("melanoma: above its threshold") == sum(result["positive"] for result in done)


def test_the_answer_says_which_rule_chose_the_threshold(cli: Cli, bundle: Path, drawn: Path) -> None:
    [file] = pictures(drawn, 1)[:1]
    done = cli("predict", bundle, file, "--json").json
    decision = artifacts(bundle)[TFLITE[3]]["decision"]
    assert done["threshold"] == {**decision["threshold"], "in_words": "the highest threshold with 90 % sensitivity on validation"}
    assert done["abstention"] == decision["abstention"]
    shown = " ".join(cli("predict", bundle, file).out.split())
    reached = [decision["threshold"][f"validation_{name}"] for name in ("sensitivity", "specificity")]
    told = ", ".join(f"{name} {figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})" for name, figure in zip(("sensitivity", "specificity"), reached))
    assert f"threshold of melanoma: {decision['threshold']['probability']:.3f}, the highest threshold with 90 % sensitivity on validation ({told} there)" in shown


def test_abstention_by_energy_follows_the_artifacts_logits(cli: Cli, bundle: Path, drawn: Path, tmp_path: Path) -> None:
    files, folder = pictures(drawn, 5), tmp_path / "energy.bundle"
    shutil.copytree(bundle, folder)
    energies = -np.log(np.exp(logits(bundle / TFLITE[3], np.stack([network_input(file) for file in files])).astype(float)).sum(axis=1))
    middle = float(np.median(energies)) + 1e-6
    manifest = read_json(folder / "manifest.json")
    manifest["artifacts"][3]["decision"]["abstention"] = {"method": "energy", "coverage": 0.5, "threshold": middle, "answered": "at most", "temperature": 1.0}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    results = cli("predict", folder, *files, "--json").json["results"]
    assert [result["abstains"] for result in results] == (energies > middle).tolist() and 0 < sum(result["abstains"] for result in results) < len(files)
    assert cli("predict", folder, *files).out.count("the model abstains: its energy is too high") == (energies > middle).sum()


def test_a_bad_picture_is_told_and_classified_all_the_same(cli: Cli, bundle: Path, drawn: Path, tmp_path: Path) -> None:
    dark, tiny = tmp_path / "dark.png", tmp_path / "tiny.png"
    Image.new("RGB", (300, 200), (3, 2, 2)).save(dark)
    Image.new("RGB", (60, 60), (150, 110, 90)).save(tiny)
    results = cli("predict", bundle, dark, tiny, "--json").json["results"]
    assert results[0]["quality"]["warnings"] == ["under-exposed: 100% of it is nearly black"] and results[0]["quality"]["dark"] == 1.0
    assert results[1]["quality"]["warnings"][0].startswith("small: 60 pixels on its shorter side")
    assert all(sum(result["probabilities"].values()) == pytest.approx(1) for result in results)
    shown = cli("predict", bundle, dark, tiny).out
    assert "picture under-exposed: 100% of it is nearly black" in shown and "picture small: 60 pixels" in shown


def test_the_printed_answer_carries_the_notice(cli: Cli, bundle: Path, drawn: Path) -> None:
    [file] = pictures(drawn, 1)[:1]
    lines = cli("predict", bundle, file).out.splitlines()
    result = cli("predict", bundle, file, "--json").json["results"][0]
    assert lines[0] == str(file)
    assert [line.split("%")[0].strip() for line in lines[1:5]] == [f"{value * 100:.1f}" for value in result["probabilities"].values()]
    assert NOTICE in " ".join(lines) and "plain phone photographs are outside" in " ".join(" ".join(lines).split())


def test_an_unreadable_picture_is_named_and_the_others_are_still_answered(cli: Cli, bundle: Path, drawn: Path, tmp_path: Path) -> None:
    good = pictures(drawn, 1)
    empty, cut, text = tmp_path / "empty.png", tmp_path / "cut.png", tmp_path / "text.jpg"
    empty.write_bytes(b"")
    cut.write_bytes(good[0].read_bytes()[:300])
    text.write_text("no picture")
    files = [empty, good[0], cut, tmp_path / "missing.png", text, tmp_path, good[1]]
    done = cli("predict", bundle, *files, "--json", code=2)
    results = done.json["results"]
    assert [result["picture"] for result in results] == [str(file) for file in files]
    assert [("error" in result, "class" in result) for result in results] == [(file not in good, file in good) for file in files]
    assert "empty file" in results[0]["error"] and "No such file" in results[3]["error"] and "Is a directory" in results[5]["error"]
    shown = cli("predict", bundle, *files, code=2)
    assert all(str(file) in shown.out for file in files) and shown.out.count("its threshold") == 2 and shown.err == ""
    line = cli.refused("predict", bundle, empty, text)
    assert "none of 2 pictures can be read" in line and "empty.png" in line


HOSTILE = (b"-rf.png", b"[bold]x[red].png", b"a\nb.png", b"\x1b[31mred.png", b"\xff\xfe.png", "Мела́нома 🩺.png".encode(), b" .png", b"%s{0}$HOME.png")


def test_hostile_file_names_are_only_names(cli: Cli, bundle: Path, drawn: Path, tmp_path: Path) -> None:
    source = pictures(drawn, 1)[0]
    for name in HOSTILE:
        shutil.copy(source, os.path.join(os.fsencode(tmp_path), name))
    expected = cli("predict", bundle, source, "--json").json["results"][0]
    results = cli("predict", bundle, "--json", "--", *HOSTILE, cwd=tmp_path).json["results"]
    assert [os.fsencode(result["picture"]) for result in results] == list(HOSTILE)
    assert all(result["probabilities"] == expected["probabilities"] for result in results)
    shown = os.fsencode(cli("predict", bundle, "--", *HOSTILE, cwd=tmp_path).out)
    assert [name for name in HOSTILE if name not in shown and b"\x1b" not in name] == []


def test_a_terminal_without_blocks_still_gets_the_figures(cli: Cli, bundle: Path, drawn: Path) -> None:
    picture = min((drawn / "nevus").iterdir())
    plain, ascii_only = (cli("predict", bundle, picture, env=env).out for env in ({"PYTHONIOENCODING": "utf-8"}, {"PYTHONIOENCODING": "ascii"}))
    assert "█" in plain and ascii_only.isascii() and re.findall(r"[\d.]+%", plain) == re.findall(r"[\d.]+%", ascii_only)


def test_a_damaged_evaluation_is_one_line(cli: Cli, run: Path, drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    for content in ("{}", "[]", '{"float": {}, "qat": 1}'):
        (tmp_path / "run" / "evaluation.json").write_text(content)
        for command in (["predict", tmp_path / "run", min((drawn / "nevus").iterdir())], ["report", tmp_path / "run"]):
            assert "is not a run's evaluation" in cli.refused(*command, "-q")


def test_a_picture_has_the_same_answer_alone_and_among_others(cli: Cli, bundle: Path, drawn: Path) -> None:
    files = pictures(drawn, 2)
    together = cli("predict", bundle, *files, "--json").json["results"]
    assert cli("predict", bundle, files[-1], "--json").json["results"] == together[-1:]


def test_what_is_no_bundle_is_one_line(cli: Cli, drawn: Path, bundle: Path) -> None:
    file = pictures(drawn, 1)[0]
    assert "is neither a run nor a bundle" in cli.refused("predict", drawn, file)
    assert "has no artifact 'nonsense'" in cli.refused("predict", bundle, file, "--artifact", "nonsense")
