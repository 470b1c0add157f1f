"""The ladder of the notebooks, small, on drawn samples: its table, how leaky a split it finds, and trainings that are not done twice."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, read_json, snapshot
from PIL import Image

from melanoma_edge.errors import Missing

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "ladder.py"
STEPS = ("classic", "classic-augmented", "classic-rebalanced", "classic-dropout", "classic-batchnorm")
SAMPLES = 20
"""Of each class that the program has Augmentor write with --quick."""

pytestmark = pytest.mark.xdist_group("ladder")


def start(*arguments: object) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(PROGRAM.parents[1]), "OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ladder(*arguments: object, code: int = 0) -> tuple[str, str]:
    """Run the program to its end and return what it wrote to standard output and error."""
    with start(*arguments) as process:
        out, err = process.communicate(timeout=600)
    assert process.returncode == code and "Traceback" not in err, err
    return out, err


@pytest.fixture(scope="module")
def data(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn samples in the layout of the nine-class set, a third of the pictures of one class under another one, too."""
    folder = tmp_path_factory.mktemp("ladder") / "set"
    for name in CLASSES:
        (folder / "Train" / name).mkdir(parents=True)
        for file in sorted((drawn / name).iterdir())[:24]:
            shutil.copy(file, folder / "Train" / name)
    for file in sorted((folder / "Train" / "nevus").iterdir())[:8]:
        shutil.copy(file, folder / "Train" / "melanoma" / f"copy_of_{file.name}")
    shutil.copy(drawn / "metadata.csv", folder)
    return folder


@pytest.fixture(scope="module")
def climbed(data: Path) -> tuple[Path, str, str]:
    """The folder of all ten trainings, and what the program wrote to standard output and error."""
    sys.path.insert(0, str(PROGRAM.parent))
    try:
        import common

        common.augmentor()
    except Missing as missing:
        pytest.skip(f"Augmentor cannot be had here: {missing}")
    finally:
        sys.path.remove(str(PROGRAM.parent))
    runs = data.parent / "runs"
    return runs, *ladder("--quick", "--markdown", "--data", data, "--runs", runs)


def cells(markdown: str) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| `")]
    return {line[0].strip("`"): line[1:] for line in lines}


def test_every_step_stands_in_the_table_under_both_protocols(climbed: tuple[Path, str, str]) -> None:
    runs, out, _ = climbed
    table, steps = cells(out), read_json(runs / "ladder.json")["figures"]["steps"]
    assert tuple(table) == tuple(steps) == STEPS
    for name, row in table.items():
        theirs, true = steps[name]["notebook"], steps[name]["leak-free"]
        assert row[0] == f"{100 * steps[name]['reported']:.1f} %"
        assert row[1] == f"{100 * theirs['epochs'][-1]['accuracy']:.1f} % / {100 * theirs['epochs'][-1]['val_accuracy']:.1f} %"
        assert row[2] == f"{100 * theirs['leak']['share']:.1f} %"
        found = read_json(runs / f"leak-free-{name}" / "evaluation.json")["float"]["scores"]
        for cell, key in ((row[4], "accuracy"), (row[5], "balanced_accuracy")):
            value, low, high = (100 * found[key][part] for part in ("value", "low", "high"))
            assert cell == f"{value:.1f} % ({low:.1f} to {high:.1f})" and low < high and true[key] == found[key]
    assert [float(row[0].removesuffix(" %")) for row in table.values()] == [53.9, 50.8, 82.0, 83.0, 84.4]


def test_a_quick_climb_is_marked_and_stays_out_of_the_results(climbed: tuple[Path, str, str]) -> None:
    runs, _, err = climbed
    facts = read_json(runs / "ladder.json")
    assert facts["figures"]["comparable"] is False and "--quick" in facts["figures"]["not_comparable_because"] and "not comparable" in err
    assert "--quick" in facts["command"] and facts["command"].startswith("python benchmarks/ladder.py ") and str(runs.parent) not in facts["command"]
    assert facts["conditions"]["versions"]["tensorflow"]
    published = PROGRAM.parent / "results" / "ladder.json"
    assert not published.exists() or read_json(published)["figures"]["comparable"] is True
    with Image.open(runs / "ladder.png") as plot:
        assert plot.format == "PNG" and plot.width > 800 and np.asarray(plot.convert("L")).std() > 10


def test_both_protocols_train_the_same_network(climbed: tuple[Path, str, str]) -> None:
    for name, row in read_json(climbed[0] / "ladder.json")["figures"]["steps"].items():
        theirs, ours = row["notebook"], row["leak-free"]
        assert theirs["classes"] == ours["classes"] == sorted(CLASSES)
        # Behind its convolutions ours has no biases, which BatchNormalization would take away again.
        assert theirs["parameters"] - ours["parameters"] == (32 + 64 + 128 if name == "classic-batchnorm" else 0)
        assert read_json(climbed[0] / f"leak-free-{name}" / "run.json")["weights"].keys() == {"float"}


@pytest.mark.parametrize("step", STEPS)
def test_the_leak_is_what_a_count_by_hand_finds(climbed: tuple[Path, str, str], data: Path, step: str) -> None:
    """Keras' split is made again from the names of the files alone, and pictures are compared byte by byte."""
    runs, sampled = climbed[0], step not in ("classic", "classic-augmented")
    folder = runs / f"samples-{SAMPLES}" if sampled else data / "Train"
    files = [file for name in sorted(CLASSES) for below in (folder / name, folder / name / "output") for file in sorted(below.glob("*.png"))]
    assert len(files) == 4 * 24 + 8 + sampled * 4 * SAMPLES
    originals = [file for file in files if file.parent.name != "output"]

    def content(file: Path) -> bytes:
        if file.parent.name == "output":
            mine = [one for one in originals if one.parent == file.parents[1] and f"{one.parent.name}_original_{one.name}_" in file.name]
            [file] = [one for one in mine if len(one.name) == max(len(other.name) for other in mine)]
        return file.read_bytes()

    np.random.RandomState(123).shuffle(files)
    held_out = int(0.2 * len(files))
    training = {content(file) for file in files[:-held_out]}
    seen = sum(content(file) in training for file in files[-held_out:])
    found = read_json(runs / "ladder.json")["figures"]["steps"][step]["notebook"]
    assert found["files"] == len(files) and found["leak"] == {"pictures": held_out, "seen": seen, "share": seen / held_out}
    assert 0 < seen / held_out < 0.5 if not sampled else seen / held_out > 0.5, "the pictures were planted so that copies leak some and samples much"


def test_samples_are_those_of_augmentor_and_the_data_set_stays_as_it_was(climbed: tuple[Path, str, str], data: Path) -> None:
    sampled = climbed[0] / f"samples-{SAMPLES}"
    before = {name: sha for name, sha in snapshot(sampled).items() if "/output/" not in name}
    assert before == snapshot(data / "Train")
    for name in CLASSES:
        written = list((sampled / name / "output").iterdir())
        assert len(written) == SAMPLES and all(file.name.startswith(f"{name}_original_") for file in written)
        assert {Image.open(file).size for file in written} == {(56, 56)}


def test_what_is_complete_is_not_done_again(climbed: tuple[Path, str, str], data: Path) -> None:
    runs = climbed[0]
    trainings = {file: file.stat().st_mtime_ns for place in runs.iterdir() if place.is_dir() for file in place.rglob("*")}
    out, err = ladder("--quick", "--data", data, "--runs", runs)
    assert err.count(": complete\n") == 10 and ": epoch " not in err
    assert all(file.stat().st_mtime_ns == changed for file, changed in trainings.items())
    assert all(step in out for step in STEPS)


def interrupted(process: subprocess.Popen[str], sign: str) -> Iterator[str]:
    """Yield what a process says until it says `sign`, then kill it."""
    for line in process.stderr:
        yield line
        if sign in line:
            process.send_signal(signal.SIGKILL)
            break


def test_an_interrupted_training_goes_on_and_one_line_alone_shows_the_rest_as_missing(data: Path, tmp_path: Path) -> None:
    options = ["--quick", "--data", data, "--runs", tmp_path / "runs", "--step", "classic-augmented", "--protocol", "notebook"]
    with start(*options) as process:
        said = list(interrupted(process, "epoch 1/2"))
    assert "epoch 1/2" in said[-1] and not (tmp_path / "runs" / "ladder.json").exists()
    out, err = ladder(*options, "--markdown")
    assert ": epoch 2/2" in err and "leak-free classic" not in err
    found = read_json(tmp_path / "runs" / "ladder.json")["figures"]["steps"]
    assert found["classic-augmented"]["notebook"]["starts"] == 2 and len(found["classic-augmented"]["notebook"]["epochs"]) == 2
    assert [row["notebook"] is None for row in found.values()] == [True, False, True, True, True]
    assert cells(out)["classic"] == ["53.9 %", *["–"] * 5] and cells(out)["classic-augmented"][3:] == ["–"] * 3


def test_other_pictures_settings_and_folders_are_refused_in_one_line(data: Path, tmp_path: Path) -> None:
    runs, other = tmp_path / "runs", tmp_path / "other"
    shutil.copytree(data, other)
    chosen = sorted((other / "Train" / "nevus").iterdir())
    random.Random(1).choice(chosen).unlink()
    runs.mkdir()
    (runs / "notebook-classic").mkdir()
    (runs / "notebook-classic" / "recipe.json").write_text(json.dumps({"epochs": 3}), encoding="utf-8")
    for place, told in ((tmp_path, "has no folder Train"), (data, "was trained with other settings"), (other, "holds trainings on other files")):
        out, err = ladder("--quick", "--data", place, "--runs", runs, code=2)
        assert out == "" and err.count("\n") == 1 and err.startswith("ladder: ") and told in err


def test_the_readme_has_the_published_table_or_says_that_there_is_none() -> None:
    published, readme = PROGRAM.parent / "results" / "ladder.json", (PROGRAM.parents[1] / "README.md").read_text(encoding="utf-8")
    if not published.exists():
        assert "`benchmarks/ladder.py` sets the usual protocol and this one side by side; it has not been run yet" in readme
        return
    sys.path.insert(0, str(PROGRAM.parent))
    try:
        import ladder_shown
    finally:
        sys.path.remove(str(PROGRAM.parent))
    steps = read_json(published)["figures"]["steps"]
    table, _, note = ladder_shown.markdown(steps).partition("\n\n")
    assert table in readme and table.count("\n") == 1 + len(STEPS) and "–" not in table and "it has not been run yet" not in readme
    assert note in readme
    reported, true = ({step: f"{100 * value(row):.1f}" for step, row in steps.items()} for value in (lambda row: row["reported"], lambda row: row["leak-free"]["accuracy"]["value"]))
    [seen] = {round(100 * row["notebook"]["leak"]["share"]) for step, row in steps.items() if step not in ("classic", "classic-augmented")}
    later = [row["leak-free"]["accuracy"]["value"] for step, row in steps.items() if step not in ("classic", "classic-augmented")]
    default = read_json(PROGRAM.parent / "results" / "reference.json")["figures"]["fold_0"]
    share = lambda found: "{:.1f} % ({:.1f} to {:.1f})".format(*(100 * found[key] for key in ("value", "low", "high")))
    prose = " ".join(readme.split())
    for said in (
        f"From `classic-rebalanced` on, {seen} % of the validation pictures have their original",
        f"{reported['classic-augmented']} to {reported['classic-rebalanced']} %, is none: on pictures that nothing has seen, accuracy goes from {true['classic-augmented']} to {true['classic-rebalanced']} %",
        f"The last three steps are right on {100 * min(later):.0f} to {100 * max(later):.0f} % there and the first, which rebalances nothing, on {100 * steps['classic']['leak-free']['accuracy']['value']:.0f} %",
        f"reaches an accuracy of {share(default['accuracy'])} and a balanced accuracy of {share(default['balanced_accuracy'])} on this same test part",
    ):
        assert said in prose
