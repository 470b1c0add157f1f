"""Commands on a data set from strangers: each bad file named once and counted, each good one used, nothing hangs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from conftest import Cli, Done
from hostile import CLASSES, Hostile, write_hostile

from melanoma_edge.data.sources import read_listing


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Hostile:
    return write_hostile(tmp_path_factory.mktemp("strangers") / "data")


def named_once(done: Done, unreadable: list[list[str]], hostile: Hostile) -> None:
    """Hold a result to naming each bad file, in a line of its own."""
    assert sorted(path for path, _ in unreadable) == sorted(hostile.bad)
    assert all(reason and "\n" not in reason and str(hostile.root) not in reason for _, reason in unreadable)
    assert "Traceback" not in done.err


def test_import_lists_what_is_there_and_opens_nothing(cli: Cli, hostile: Hostile, tmp_path: Path) -> None:
    facts = cli("import", hostile.root, "--json").json
    assert facts["pictures"] == len(hostile.good) + len(hostile.bad)
    assert set(facts["classes"]) == set(CLASSES), "classes that differ by case are one, links lead nowhere new"
    notes = " ".join(facts["notes"])
    assert "'Melanoma' and 'melanoma'" in notes and "round" in notes and "loop" in notes
    assert facts["other_files"] == {".heic": 1, ".txt": 1}
    table = hostile.root.parent / "index.csv"
    cli("import", hostile.root, "--out", table, "--force")
    with open(table, newline="", encoding="utf-8") as file:
        assert {row["path"].removeprefix("data/") for row in csv.DictReader(file)} == {*hostile.good, *hostile.bad}
    assert cli("import", table, "--json").json["pictures"] == facts["pictures"]


def test_prepare_names_every_bad_file(cli: Cli, hostile: Hostile, tmp_path: Path) -> None:
    for _ in range(2):
        done = cli("prepare", hostile.root, "--size", 48, "--cache", tmp_path / "cache", "--json")
        named_once(done, done.json["unreadable"], hostile)
        assert done.json["pictures"] == len(hostile.good)
    for_people = cli("prepare", hostile.root, "--size", 48, "--cache", tmp_path / "cache")
    assert for_people.out.count("unreadable: ") == 1 + len(hostile.bad)


def test_audit_names_every_bad_file(cli: Cli, hostile: Hostile, tmp_path: Path) -> None:
    done = cli("audit", hostile.root, "--json", tmp_path / "audit.json", "--html", tmp_path / "audit.html", "--set", "min_lesions=2")
    text = (tmp_path / "audit.json").read_text(encoding="utf-8")
    found = json.loads(text)
    assert "Traceback" not in done.err
    assert all(json.dumps(path, ensure_ascii=False)[1:-1] in text for path in hostile.bad)
    assert (found["counts"]["readable"], found["counts"]["unreadable"]) == (len(hostile.good), len(hostile.bad))


def test_augment_uses_the_good_and_names_the_bad(cli: Cli, hostile: Hostile, tmp_path: Path) -> None:
    done = cli("augment", hostile.root, "--per-class", 60, "--size", 32, "--out", tmp_path / "out", "--json")
    named_once(done, done.json["unreadable"], hostile)
    assert done.json["per_class"] == dict.fromkeys(CLASSES, 60)
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 60 * len(CLASSES)
    cli("augment", hostile.root, "--preview", "--size", 32, "--out", tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").is_file()


def test_evaluate_names_every_bad_file(cli: Cli, hostile: Hostile, bundle: Path) -> None:
    done = cli("evaluate", bundle, "--data", hostile.root, "--json")
    named_once(done, done.json["pictures"]["unreadable"], hostile)


def test_too_many_bad_files_stop_training_in_one_line(cli: Cli, hostile: Hostile, tmp_path: Path) -> None:
    line = cli.refused("train", hostile.root, "--recipe", "demo", "--out", tmp_path / "run", "--cache", tmp_path / "cache", "-q")
    assert f"{len(hostile.bad)} of {len(hostile.good) + len(hostile.bad)} files are unreadable (first: " in line and "max_bad_share" in line
    assert not (tmp_path / "run").exists()


def test_a_listing_of_the_hostile_folder_is_quick_and_the_same_every_time(hostile: Hostile) -> None:
    assert read_listing(hostile.root) == read_listing(hostile.root)
