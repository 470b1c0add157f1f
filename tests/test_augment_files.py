"""Augmented copies as files: how many, called what, always the same, and never among the originals."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli, snapshot
from PIL import Image

from melanoma_edge import recipes
from melanoma_edge.contract import Augment, Operation
from melanoma_edge.data.augment_files import preview, write_augmented
from melanoma_edge.data.samples import draw
from melanoma_edge.errors import BadInput

PIPELINE = Augment(
    rotate=Operation(probability=1.0, low=-180.0, high=180.0),
    elastic=Operation(probability=0.5, low=0.02, high=0.05),
    flip_left_right=Operation(probability=0.5),
)
TURN_OVER = Augment(flip_left_right=Operation(probability=1.0))


def save(path: Path, class_name: str, seed: int, size: tuple[int, int] = (60, 60)) -> np.ndarray:
    """Write one drawn picture of (height, width) and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = draw(class_name, max(size), seed)[: size[0], : size[1]]
    Image.fromarray(picture).save(path)
    return picture


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes, of 5 and 2 pictures, one of them oblong."""
    root = tmp_path / "photographs"
    for i in range(5):
        save(root / "nevus" / f"n{i}.png", "nevus", i, (60, 60) if i else (40, 80))
    for i in range(2):
        save(root / "melanoma" / f"m{i}.png", "melanoma", i)
    return root


def copies(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.jpg"))


def test_every_class_gets_as_many_and_every_picture_its_share(data: Path, tmp_path: Path) -> None:
    before, seen = snapshot(data), []
    facts = write_augmented(data, tmp_path / "out", PIPELINE, per_class=12, progress=lambda done, total: seen.append((done, total)))
    assert facts == {"pictures": 24, "per_class": {"melanoma": 12, "nevus": 12}, "from": 7, "unreadable": []}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["augment.json", "melanoma", "nevus"]
    sources = Counter(path.stem.rsplit("_", 1)[0] for path in copies(tmp_path / "out"))
    assert set(sources.values()) <= {2, 3, 6} and sources["melanoma_original_m0"] == sources["melanoma_original_m1"] == 6
    assert sum(count for name, count in sources.items() if name.startswith("nevus_original_n")) == 12
    assert seen[-1] == (24, 24) and seen == sorted(seen)
    assert snapshot(data) == before


def test_copies_keep_their_pictures_size_and_shape_and_what_is_in_them(data: Path, tmp_path: Path) -> None:
    write_augmented(data, tmp_path / "out", TURN_OVER, per_class=10)
    for path in copies(tmp_path / "out"):
        stem = path.stem.split("_original_")[1].rsplit("_", 1)[0]
        original = np.asarray(Image.open(data / path.parent.name / f"{stem}.png"))[:, ::-1]
        with Image.open(path) as found:
            assert found.format == "JPEG"
            assert np.abs(np.asarray(found).astype(int) - original).mean() < 4  # grain, as JPEG leaves it
    write_augmented(data, tmp_path / "square", TURN_OVER, per_class=3, size=48)
    assert {Image.open(path).size for path in copies(tmp_path / "square")} == {(48, 48)}


def test_the_same_call_writes_the_same_bytes_and_another_seed_others(data: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        write_augmented(data, tmp_path / name, PIPELINE, per_class=10, seed=seed)
    a, b, c = (snapshot(tmp_path / name) for name in "abc")
    assert a == b and len(set(a.values())) == len(a), "two copies are alike"
    assert not set(a.values()) & set(c.values())


def test_a_new_picture_leaves_the_copies_of_the_others_as_they_are(data: Path, tmp_path: Path) -> None:
    write_augmented(data, tmp_path / "before", PIPELINE, per_class=10)
    save(data / "melanoma" / "a0.png", "melanoma", 9)
    write_augmented(data, tmp_path / "after", PIPELINE, per_class=10)
    before, after = snapshot(tmp_path / "before"), snapshot(tmp_path / "after")
    common = [name for name in after if name in before and name.endswith(".jpg")]
    assert len(common) > 12 and all(after[name] == before[name] for name in common)


def test_two_pictures_of_one_name_lose_none_of_their_copies(tmp_path: Path) -> None:
    for part, suffix, seed in (("Train", "png", 0), ("Test", "png", 1), ("Train", "bmp", 2)):
        save(tmp_path / "d" / part / "nevus" / f"same.{suffix}", "nevus", seed)
    write_augmented(tmp_path / "d", tmp_path / "out", TURN_OVER, per_class=9)
    assert [path.name for path in copies(tmp_path / "out")] == [f"nevus_original_same_{i}.jpg" for i in range(9)]
    assert len(set(snapshot(tmp_path / "out" / "nevus").values())) == 3


def test_unreadable_pictures_are_named_and_the_others_make_up_for_them(data: Path, tmp_path: Path) -> None:
    (data / "nevus" / "broken.jpg").write_bytes(b"\xff\xd8\xff" + bytes(99))
    (data / "nevus" / "empty.jpg").touch()
    (data / "lost").mkdir()
    (data / "lost" / "text.jpg").write_text("no picture")
    facts = write_augmented(data, tmp_path / "out", PIPELINE, per_class=9)
    assert facts["per_class"] == {"lost": 0, "melanoma": 9, "nevus": 9}
    assert [path for path, _ in facts["unreadable"]] == ["lost/text.jpg", "nevus/broken.jpg", "nevus/empty.jpg"]
    assert all(str(data) not in why for _, why in facts["unreadable"])
    assert len(copies(tmp_path / "out" / "nevus")) == 9 and not (tmp_path / "out" / "lost").exists()


def test_a_picture_too_long_for_the_warp_is_named_and_with_a_size_it_passes(data: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 40_000, 3), 90, np.uint8)).save(data / "nevus" / "long.png")
    facts = write_augmented(data, tmp_path / "out", PIPELINE, per_class=12)
    assert [path for path, why in facts["unreadable"]] == ["nevus/long.png"] and facts["per_class"]["nevus"] == 12
    assert write_augmented(data, tmp_path / "small", PIPELINE, per_class=12, size=16)["unreadable"] == []


def test_where_nothing_can_be_read_nothing_is_left_behind(tmp_path: Path) -> None:
    (tmp_path / "d" / "nevus").mkdir(parents=True)
    (tmp_path / "d" / "nevus" / "a.jpg").write_text("no picture")
    for call in (lambda: write_augmented(tmp_path / "d", tmp_path / "out", PIPELINE), lambda: preview(tmp_path / "d", tmp_path / "sheet.png", PIPELINE)):
        with pytest.raises(BadInput, match="no readable picture .1 unreadable"):
            call()
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("name", ["con:cern", "..hidden", "a" * 150, "Größe 3 ", "nevus?"])
def test_an_odd_class_name_becomes_a_folder_that_every_system_takes(name: str, tmp_path: Path) -> None:
    from melanoma_edge.data import augment_files

    folders = augment_files._folder_names({name: [], name.upper(): []})
    assert len({folder.casefold() for folder in folders.values()}) == len(folders)
    for folder in folders.values():
        assert not set(folder) & set('/\\:*?"<>|') and folder.strip(". ") == folder and 0 < len(folder.encode()) <= 90


# --- the originals stay as they are


INTO = ("{data}", "{data}/new", "{data}/nevus", "{data}/nevus/a/b", "{data}/..", "{data}/../..", "{link}", "{link}/new", "{data}/nevus/../x")


@pytest.mark.parametrize("where", INTO)
def test_writing_into_or_around_the_originals_is_refused(where: str, data: Path, tmp_path: Path) -> None:
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(data)
    before = snapshot(data)
    out = Path(where.format(data=data, link=link))
    for force in (False, True):
        with pytest.raises(BadInput, match="which stays as it is: choose an --out elsewhere"):
            write_augmented(data, out, PIPELINE, per_class=3, force=force)
    if "{data}/.." not in where:
        with pytest.raises(BadInput, match="elsewhere|is a folder"):
            preview(data, out / "sheet.png", PIPELINE)
    assert snapshot(data) == before


def test_a_link_to_a_class_folder_is_followed_to_the_originals(tmp_path: Path) -> None:
    save(tmp_path / "archive" / "2019" / "a.png", "nevus", 0)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "nevus").symlink_to(tmp_path / "archive" / "2019")
    for out in (tmp_path / "archive", tmp_path / "archive" / "2019" / "copies"):
        with pytest.raises(BadInput, match="2019, which stays as it is"):
            write_augmented(tmp_path / "d", out, PIPELINE, per_class=3)
    write_augmented(tmp_path / "d", tmp_path / "archive" / "copies", PIPELINE, per_class=3)
    assert sorted(os.listdir(tmp_path / "archive")) == ["2019", "copies"]


def test_force_replaces_an_earlier_result_and_nothing_else(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_augmented(data, out, PIPELINE, per_class=2)
    with pytest.raises(BadInput, match="exists already"):
        write_augmented(data, out, PIPELINE, per_class=3)
    write_augmented(data, out, PIPELINE, per_class=3, force=True)
    assert len(copies(out)) == 6
    (out / "augment.json").unlink()
    with pytest.raises(BadInput, match="holds no augment.json"):
        write_augmented(data, out, PIPELINE, per_class=3, force=True)


# --- the contact sheet


def test_the_sheet_shows_each_class_in_rows_of_a_picture_and_its_copies(data: Path, tmp_path: Path) -> None:
    facts = preview(data, tmp_path / "sheet.png", TURN_OVER, size=64)
    assert facts == {"sheet": str(tmp_path / "sheet.png"), "classes": 2, "rows": 4, "unreadable": []}
    sheet = np.asarray(Image.open(tmp_path / "sheet.png")).astype(int)
    assert sheet.shape[0] == 24 + 2 * 24 + 4 * 68 and sheet.shape[1] >= 8 * 68 - 4
    assert (sheet[:24] < 100).any(), "no heading"
    first = sheet[48:112, :64]
    for copy in range(1, 8):
        assert np.array_equal(sheet[48:112, copy * 68 : copy * 68 + 64], first[:, ::-1])
    with pytest.raises(BadInput, match="exists already"):
        preview(data, tmp_path / "sheet.png", TURN_OVER)
    before = (tmp_path / "sheet.png").read_bytes()
    preview(data, tmp_path / "sheet.png", TURN_OVER, size=64, force=True)
    assert (tmp_path / "sheet.png").read_bytes() == before


# --- the command


def test_the_command_writes_copies_under_a_pipeline_of_its_own(cli: Cli, data: Path, tmp_path: Path) -> None:
    (data / "nevus" / "broken.jpg").write_text("no picture")
    pipeline = tmp_path / "mine.toml"
    pipeline.write_text("[augment.flip_top_bottom]\nprobability = 1.0\n", encoding="utf-8")
    done = cli("augment", data, "--per-class", "11", "--out", tmp_path / "out", "--pipeline", pipeline, "--seed", "3", "--json")
    assert done.json["pictures"] == 22 and done.json["folder"] == str(tmp_path / "out") and len(done.json["unreadable"]) == 1
    facts = json.loads((tmp_path / "out" / "augment.json").read_text(encoding="utf-8"))
    assert facts["seed"] == 3 and Augment.model_validate(facts["augment"]).flip_top_bottom.probability == 1.0
    shown = cli("augment", data, "--per-class", "11", "--out", tmp_path / "again", "--pipeline", pipeline, "--seed", "3").out
    assert "unreadable: nevus/broken.jpg: " in shown and "unreadable files left out: 1" in shown and "nevus: 11" in shown
    assert snapshot(tmp_path / "again") == snapshot(tmp_path / "out")
    cli("augment", data, "--preview", "--out", tmp_path / "sheet.png", "--pipeline", "classic-rebalanced")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"


def test_mistakes_are_refused_in_one_line(cli: Cli, data: Path, tmp_path: Path) -> None:
    empty, wrong = tmp_path / "empty.toml", tmp_path / "wrong.toml"
    empty.write_text("epochs = 3\n", encoding="utf-8")
    wrong.write_text("[augment.rotat]\nprobability = 1.0\n", encoding="utf-8")
    out = ["--out", tmp_path / "out"]
    assert "did you mean 'rotate'?" in cli.refused("augment", data, "--pipeline", wrong, *out)
    assert "holds no augmentation" in cli.refused("augment", data, "--pipeline", empty, *out)
    assert "there is no recipe 'other'" in cli.refused("augment", data, "--pipeline", "other", *out)
    assert "0 copies a class" in cli.refused("augment", data, "--per-class", "0", *out)
    assert "copies of 3 pixels" in cli.refused("augment", data, "--size", "3", *out)
    assert "the seed is -1" in cli.refused("augment", data, "--seed", "-1", *out)
    assert "is missing" in cli.refused("augment", tmp_path / "nowhere", *out)
    assert "is no .png" in cli.refused("augment", data, "--preview", "--out", tmp_path / "sheet.gif")
    assert "leave --per-class out" in cli("augment", data, "--preview", "--per-class", "3", code=2).err
    assert not (tmp_path / "out").exists()


def test_a_pipeline_may_be_a_shipped_recipe_a_whole_recipe_or_its_tables(tmp_path: Path) -> None:
    default = recipes.load("default")
    text = recipes.to_toml(default)
    (tmp_path / "whole.toml").write_text(text, encoding="utf-8")
    (tmp_path / "tables.toml").write_text(text[text.index("[augment") :], encoding="utf-8")
    assert recipes.load_augment() == recipes.load_augment(tmp_path / "whole.toml") == recipes.load_augment(tmp_path / "tables.toml") == default.augment
