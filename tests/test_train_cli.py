"""Training as a user does it: the run directory, bad data, interruptions, and the same result twice."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import signal
import time
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
from conftest import SETTINGS, Cli, Done, once, read_json, snapshot, train_options, validate, wait_until
from PIL import Image, ImageOps
from safetensors.numpy import load_file

from melanoma_edge import NOTICE

FILES = {"run.json", "recipe.toml", "split.csv", "data.json", "history.json", "logits.safetensors", "evaluation.json", "saliency.safetensors", "augmented.png"}
THREE = ("melanoma", "nevus", "vascular lesion")
TINY = {"image_size": 32, "width": 0.25, "epochs": 1, "qat_epochs": 0, "samples_per_class": 32, "min_lesions": 3}

Shape = Callable[[Path], None]


def tiny(**settings: object) -> list[str]:
    """Return the options of a training run of seconds."""
    return ["--recipe", "demo", *train_options(**TINY | settings)]


def split_of(run: Path) -> list[dict[str, str]]:
    """Return the rows of a run's split.csv."""
    with open(run / "split.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def coarse(file: Path) -> np.ndarray:
    """Return a picture's upright centre square as 8 x 8 grey values, computed without the library."""
    with Image.open(file) as image:
        square = ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (64, 64), Image.Resampling.BOX)
    return np.asarray(square, float).mean(axis=2).reshape(8, 8, 8, 8).mean(axis=(1, 3))


def some_classes(drawn: Path, folder: Path, count: int, classes: tuple[str, ...] = THREE) -> Path:
    """Copy the first `count` pictures of some classes, and the metadata."""
    for name in classes:
        (folder / name).mkdir(parents=True)
        for file in sorted((drawn / name).iterdir())[:count]:
            shutil.copy(file, folder / name)
    shutil.copy(drawn / "metadata.csv", folder)
    return folder


# The run directory.


def test_the_run_directory_is_complete_and_valid(run: Path) -> None:
    assert snapshot(run).keys() == FILES | {"weights/float.safetensors", "weights/qat.safetensors"}
    facts, recipe = read_json(run / "run.json"), tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8"))
    validate(facts, "run")
    validate(recipe, "recipe")
    assert {key: recipe[key] for key in SETTINGS} == SETTINGS
    assert facts["state"] == "complete" and facts["command"].startswith("melanoma-edge train ")
    assert facts["weights"] == {which: snapshot(run)[f"weights/{which}.safetensors"] for which in ("float", "qat")}
    assert set(facts["seconds"]) == {"float", "qat"} and facts["peak_memory_bytes"] > 2**26
    assert sum(value.size for key, value in load_file(run / "weights" / "float.safetensors").items()) == facts["parameters"]
    with Image.open(run / "augmented.png") as image:
        assert image.mode == "RGB" and min(image.size) > SETTINGS["image_size"]


def test_no_lesion_and_no_picture_stands_in_two_parts(run: Path, drawn: Path) -> None:
    rows = split_of(run)
    lesions = {row["image_id"]: row["lesion_id"] for row in csv.DictReader((drawn / "metadata.csv").open(encoding="utf-8"))}
    parts: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        assert row["lesion"] == lesions[Path(row["path"]).stem] and row["label"] == Path(row["path"]).parent.name
        for key in ("group", "lesion", "sha256"):
            parts.setdefault((key, row[key]), set()).add(row["part"])
    assert all(len(found) == 1 for found in parts.values())
    assert {row["part"] for row in rows} == {"train", "validation", "test"}
    twice = [lesion for lesion in set(lesions.values()) if sum(row["lesion"] == lesion for row in rows) > 1]
    assert len(twice) > 10  # else the check of lesions would be empty
    assert rows[0]["sha256"] == sha256(drawn / rows[0]["path"])


def test_all_pictures_are_accounted_for(run: Path, drawn: Path) -> None:
    used, data = [row["path"] for row in split_of(run)], read_json(run / "data.json")
    files = {file.relative_to(drawn).as_posix() for file in drawn.rglob("*.png")}
    assert sorted([*used, *data["left_out"]]) == sorted(files) and data["unreadable"] == []
    assert data["counts"]["used"] == len(used) and data["counts"]["readable"] == len(files)


def test_the_history_has_a_row_for_each_epoch(run: Path) -> None:
    rows = read_json(run / "history.json")
    expected = [("float", epoch) for epoch in range(SETTINGS["epochs"])] + [("qat", epoch) for epoch in range(SETTINGS["qat_epochs"])]
    assert [(row["phase"], row["epoch"]) for row in rows] == expected
    assert rows[SETTINGS["epochs"] - 1]["loss"] < rows[0]["loss"]
    assert all(row["images_per_second"] > 0 and 0 <= row["validation_accuracy"] <= 1 for row in rows)


def test_the_evaluation_follows_from_the_logits(run: Path) -> None:
    rows, evaluation = split_of(run), read_json(run / "evaluation.json")
    classes, logits = read_json(run / "run.json")["classes"], load_file(run / "logits.safetensors")
    labels = np.array([classes.index(row["label"]) for row in rows if row["part"] == "test"])
    assert evaluation.keys() == {"float", "qat"}
    for which, found in evaluation.items():
        scores, hits = found["scores"], logits[f"{which}/test"].argmax(axis=1) == labels
        assert scores["pictures"] == len(labels) and scores["accuracy"]["value"] == pytest.approx(hits.mean())
        assert scores["balanced_accuracy"]["value"] == pytest.approx(np.mean([hits[labels == k].mean() for k in range(len(classes))]))
        for name in ("accuracy", "balanced_accuracy", "macro_f1", "macro_auc", "positive_auc"):
            assert scores[name]["low"] <= scores[name]["value"] <= scores[name]["high"] and scores[name]["low"] < scores[name]["high"]
        assert scores["bootstrap"]["unit"] == "lesion" and set(scores["recall"]) == set(classes)
        assert found["decision"]["temperature"] > 0 and found["decision"]["threshold"]["rule"] == "sensitivity"


def test_the_json_output_is_the_runs_facts(trained: tuple[Path, Done]) -> None:
    run, done = trained
    assert done.json == {"notice": NOTICE, "run": str(run), "facts": read_json(run / "run.json"), "evaluation": read_json(run / "evaluation.json")}


def test_the_progress_names_the_parts_and_the_phases(trained: tuple[Path, Done]) -> None:
    err = trained[1].err
    assert "data: 400 pictures of " in err and "training: float, 15 epochs" in err and "training: qat, 2 epochs" in err


def test_an_existing_run_is_refused_and_stays(cli: Cli, run: Path, drawn: Path) -> None:
    before = snapshot(run)
    assert "exists already" in cli.refused("train", drawn, "--out", run)
    assert snapshot(run) == before


def test_resuming_a_finished_run_changes_nothing(cli: Cli, run: Path) -> None:
    before, times = snapshot(run), {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    done = cli("train", "--resume", "--out", run, "--json", "-q")
    assert done.json["facts"] == read_json(run / "run.json")
    assert snapshot(run) == before and {file: file.stat().st_mtime_ns for file in run.rglob("*")} == times


# Pictures of every kind, and the same result twice.


def _save(mode: str, suffix: str, **options: object) -> Callable[[Image.Image, Path], Path]:
    def save(image: Image.Image, stem: Path) -> Path:
        file = stem.with_suffix(suffix)
        image.convert(mode).save(file, **options)
        return file

    return save


def _sixteen_bit_grey(image: Image.Image, stem: Path) -> Path:
    file = stem.with_suffix(".png")
    Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(file)
    return file


def _turned(image: Image.Image, stem: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = stem.with_suffix(".jpg")
    image.crop((0, 0, 64, 48)).save(file, exif=exif, quality=95)
    return file


def _half_transparent(image: Image.Image, stem: Path) -> Path:
    image = image.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    file = stem.with_suffix(".png")
    image.save(file)
    return file


KINDS: dict[str, Callable[[Image.Image, Path], Path]] = {
    "cmyk": _save("CMYK", ".jpg", quality=95),
    "grey": _save("L", ".png"),
    "palette": _save("P", ".png"),
    "webp": _save("RGB", ".webp", lossless=True),
    "tiff": _save("RGB", ".tif"),
    "sixteen": _sixteen_bit_grey,
    "alpha": _half_transparent,
    "turned": _turned,
}


BAD = ("nevus/empty.jpg", "nevus/truncated.png", "melanoma/text.jpeg")


@dataclass(frozen=True)
class Mixed:
    """A folder with pictures of every kind and some that are none, trained on twice with the same seed."""

    data: Path
    kinds: dict[str, str]
    """{kind: path in the folder}"""
    runs: tuple[Path, Path]
    done: Done


@pytest.fixture(scope="session")
def mixed(cli: Cli, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Mixed:
    def make(folder: Path) -> dict:
        data = some_classes(drawn, folder / "data", 20)
        others = sorted((drawn / "nevus").iterdir())[20:]
        kinds = {}
        for name, save in KINDS.items():
            with Image.open(others.pop()) as image:
                kinds[name] = save(image.convert("RGB"), data / "nevus" / name).relative_to(data).as_posix()
        whole = others.pop().read_bytes()
        for name, content in zip(BAD, (b"", whole[: len(whole) // 2], b"not a picture\n"), strict=True):
            (data / name).write_bytes(content)
        shutil.copy(min((data / "nevus").glob("SAMPLE*")), data / "nevus" / "copy.png")
        (data / "lonely").mkdir()
        shutil.copy(min((drawn / "basal cell carcinoma").iterdir()), data / "lonely")
        (data / "nevus" / "notes.txt").write_text("no picture by its name")
        (data / "nevus" / ".hidden.png").write_bytes(b"no picture either")
        done = [cli("train", data, *tiny(seed=3), "--out", folder / name, env={"TF_NUM_INTRAOP_THREADS": "2"}) for name in "ab"]
        return {"kinds": kinds, "done": asdict(done[0])}

    folder, made = once(tmp_path_factory, "mixed", make)
    return Mixed(folder / "data", made["kinds"], (folder / "a", folder / "b"), Done(**made["done"]))


def test_pictures_of_every_kind_are_trained_on_upright(mixed: Mixed) -> None:
    rows = {row["path"]: row for row in split_of(mixed.runs[0])}
    assert {kind for kind, path in mixed.kinds.items() if path in rows} == KINDS.keys()
    for kind in ("turned", "grey", "palette", "webp", "tiff"):
        row, file = rows[mixed.kinds[kind]], mixed.data / mixed.kinds[kind]
        seen = np.frombuffer(bytes.fromhex(row["fingerprint"].split("|")[0]), np.uint8).reshape(8, 8).astype(float)
        assert np.abs(seen - coarse(file)).mean() < 2 < np.abs(seen[:, ::-1] - coarse(file)).mean(), kind
        assert row["sha256"] == sha256(file)


def test_what_cannot_be_read_or_used_is_named_and_counted(mixed: Mixed) -> None:
    data, used = read_json(mixed.runs[0] / "data.json"), {row["path"] for row in split_of(mixed.runs[0])}
    assert sorted(path for path, _ in data["unreadable"]) == sorted(BAD) and data["counts"]["unreadable"] == 3
    assert all(why and "\n" not in why for _, why in data["unreadable"])
    [lonely] = [path for path in data["left_out"] if path.startswith("lonely/")]
    assert data["left_out"][lonely] == "class left out: 1 lesions, min_lesions is 3"
    [copy] = data["left_out"].keys() - {lonely}
    assert data["left_out"][copy] == "identical to nevus/" + min(file.name for file in (mixed.data / "nevus").glob("SAMPLE*"))
    assert data["counts"]["left_out_classes"] == {"lonely": 1} and data["counts"]["duplicates_dropped"] == 1
    files = {path for path in snapshot(mixed.data) if not path.endswith((".txt", ".csv", "/.hidden.png"))}
    assert sorted([*used, *data["left_out"], *BAD]) == sorted(files)
    assert "unreadable: 3" in mixed.done.err and "class left out: lonely (1 usable lesions)" in mixed.done.err


def test_two_processes_do_not_train_in_one_run(cli: Cli, drawn: Path, tmp_path: Path) -> None:
    data, out = some_classes(drawn, tmp_path / "data", 8), tmp_path / "run"
    process = cli.start("train", data, *tiny(epochs=400), "--out", out, "-q")
    wait_until(lambda: (out / "history.json").exists() and read_json(out / "history.json"), process)
    before = {name: digest for name, digest in snapshot(out).items() if name in ("recipe.toml", "split.csv")}
    assert "another process is training in" in cli.refused("train", "--resume", "--out", out, "-q")
    assert "exists already" in cli.refused("train", data, *tiny(seed=9), "--out", out, "-q")
    assert before.items() <= snapshot(out).items()
    process.kill()
    process.communicate()
    assert read_json(out / "run.json")["state"] == "training"
    process = cli.start("train", "--resume", "--out", out, "-q")  # the lock of a killed process is none
    rows = len(read_json(out / "history.json"))
    wait_until(lambda: len(read_json(out / "history.json")) > rows, process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130 and not (out / ".lock").exists()


def test_two_processes_that_begin_together_make_one_run(cli: Cli, drawn: Path, tmp_path: Path) -> None:
    data, out = some_classes(drawn, tmp_path / "data", 8), tmp_path / "run"
    processes = [cli.start("train", data, *tiny(seed=seed), "--out", out, "-q") for seed in (7, 99)]
    results = [(process.communicate(timeout=300)[1].decode(), process.returncode) for process in processes]
    assert sorted(code for _, code in results) == [0, 2]
    [(line, _)] = [result for result in results if result[1] == 2]
    assert "another process is training in" in line or "exists already" in line
    [winner] = [seed for seed, result in zip((7, 99), results) if result[1] == 0]
    assert f"seed = {winner}" in (out / "recipe.toml").read_text()


def test_the_same_seed_and_data_give_the_same_split_and_weights(mixed: Mixed) -> None:
    first, second = (snapshot(run) for run in mixed.runs)
    for name in ("split.csv", "data.json", "recipe.toml", "weights/float.safetensors", "logits.safetensors", "evaluation.json", "augmented.png"):
        assert first[name] == second[name], name


def test_a_run_without_qat_has_one_network_and_exports_no_int8(cli: Cli, mixed: Mixed, tmp_path: Path) -> None:
    run = mixed.runs[0]
    assert snapshot(run).keys() == FILES | {"weights/float.safetensors"} and read_json(run / "evaluation.json").keys() == {"float"}
    assert "int8 needs quantization-aware training" in cli.refused("export", run, "--precision", "int8", "--out", tmp_path / "b")
    assert list(tmp_path.iterdir()) == []
    gates = cli("export", run, "--onnx", "--out", tmp_path / "b", "--json", "-q").json["gates"]
    manifest = read_json(tmp_path / "b" / "manifest.json")
    assert [artifact["name"] for artifact in manifest["artifacts"]] == ["demo-float32.onnx"] and manifest["weights"].keys() == {"float"}
    assert {gate["artifact"] for gate in gates if gate["outcome"] == "passed"} == {"input", "demo-float32.onnx"}


# Data that cannot be trained on.


def _empty(folder: Path) -> None:
    folder.mkdir()


def _no_classes(folder: Path) -> None:
    folder.mkdir()
    Image.new("RGB", (64, 64)).save(folder / "loose.png")


def _one_class(folder: Path) -> None:
    (folder / "nevus").mkdir(parents=True)
    noise = np.random.default_rng(1).integers(0, 256, (8, 40, 40, 3), np.uint8)
    for index, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / "nevus" / f"{index}.png")


def _mostly_broken(folder: Path) -> None:
    _one_class(folder)
    (folder / "nevus" / "truncated.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(40))


def _all_broken(folder: Path) -> None:
    (folder / "nevus").mkdir(parents=True)
    (folder / "nevus" / "a.png").write_bytes(b"")


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        (None, "is missing: expected a folder with one folder a class"),
        (_empty, "holds no pictures in class folders"),
        (_no_classes, "holds no pictures in class folders"),
        (_one_class, "leaves 1 usable class (nevus)"),
        (_mostly_broken, "1 of 9 files are unreadable (first: nevus/truncated.jpg: "),
        (_all_broken, "holds no readable picture (1 unreadable files)"),
    ],
)
def test_a_folder_that_cannot_be_trained_on_is_refused_and_nothing_is_left(cli: Cli, tmp_path: Path, shape: Shape | None, found: str) -> None:
    data = tmp_path / "data"
    if shape is not None:
        shape(data)
    before = snapshot(tmp_path)
    assert found in cli.refused("train", data, *tiny(min_lesions=2), cwd=tmp_path)
    assert snapshot(tmp_path) == before and set(tmp_path.iterdir()) <= {data}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--set", "epoch=3"], "unknown key 'epoch'; did you mean 'epochs'?"),
        (["--set", "epochs=many"], "epochs is 'many': input should be a valid integer; write for example epochs = 60"),
        (["--set", "epochs=0"], "epochs is 0: "),
        (["--set", "fold=7"], "fold is 7 but folds is 5"),
        (["--set", "augment.rotate.low=999"], "low (999.0) is above high"),
        (["--set", "learning_rate=nan"], "learning_rate is nan"),
        (["--set", "epochs"], "is not of the form key=value"),
        (["--recipe", "nonsense"], "there is no recipe 'nonsense'"),
        (["--recipe", "nonsense.toml"], "the recipe nonsense.toml cannot be read"),
        (["--seed", "-1"], "seed is -1"),
        (["--resume"], "there is no interrupted run below runs/"),
        (["--resume", "--out", "nowhere"], "nowhere is missing: expected a folder that `melanoma-edge train` made; check the path"),
    ],
)
def test_a_wrong_recipe_is_one_line_and_leaves_nothing(cli: Cli, tmp_path: Path, options: list[str], found: str) -> None:
    _one_class(tmp_path / "data")
    before = snapshot(tmp_path)
    assert found in cli.refused("train", "data", *options, cwd=tmp_path)
    assert snapshot(tmp_path) == before and list(tmp_path.iterdir()) == [tmp_path / "data"]


def test_the_classic_recipe_trains(cli: Cli, drawn: Path, tmp_path: Path) -> None:
    data = some_classes(drawn, tmp_path / "data", 12)
    settings = train_options(image_size=48, epochs=1, qat_epochs=1, min_lesions=3)
    done = cli("train", data, "--recipe", "classic", *settings, "--out", tmp_path / "run", "--json", "-q")
    assert done.json["facts"]["state"] == "complete" and done.json["evaluation"].keys() == {"float", "qat"}
    assert any("conv3" in name for name in load_file(tmp_path / "run" / "weights" / "qat.safetensors"))
    assert [row["phase"] for row in read_json(tmp_path / "run" / "history.json")] == ["float", "qat"]


# Interruptions.

EPOCHS = {"epochs": 6, "qat_epochs": 4}


@pytest.fixture(scope="session")
def interrupted(cli: Cli, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """A run that was interrupted, refused other data, was killed and went on to its end, and one left in peace.

    Returns what was seen on the way.
    """

    def make(home: Path) -> dict:
        data, run, seen = some_classes(drawn, home / "data", 20), home / "runs" / "demo-1", {}
        # Without dropout nothing random is left that a checkpoint does not hold.
        options = tiny(**EPOCHS, samples_per_class=150, dropout=0.0)

        def rows(phase: str) -> int:
            history = run / "history.json"
            return sum(row["phase"] == phase for row in read_json(history)) if history.exists() else 0

        began = time.monotonic()
        process = cli.start("train", data, *options, cwd=home)
        wait_until(lambda: rows("float") > 1, process)
        process.send_signal(signal.SIGINT)
        seen["err"], seen["code"] = process.communicate(timeout=120)[1].decode(), process.returncode
        seen["first process"] = time.monotonic() - began
        facts, seen["rows after the interrupt"] = read_json(run / "run.json"), rows("float")
        seen["facts after the interrupt"] = facts
        (run / "run.json").write_text(json.dumps(facts | {"peak_memory_bytes": 2**40}), encoding="utf-8")  # more than another process will take
        seen["leftovers"] = [file.name for file in home.rglob(".partial-*")]

        before = snapshot(run)
        seen["export"] = cli.refused("export", run, cwd=home)
        surplus = sorted((drawn / "nevus").iterdir())[25]
        shutil.copy(surplus, data / "nevus")
        seen["other data"] = cli.refused("train", "--resume", "--out", run, "-q")
        (data / "nevus" / surplus.name).unlink()
        first = min((data / "nevus").iterdir())
        first.rename(data / "nevus" / "zzz.png")
        seen["renamed"] = cli.refused("train", "--resume", "--out", run, "-q")
        (data / "nevus" / "zzz.png").rename(first)
        seen["unchanged"] = snapshot(run) == before

        # The whole folder may move, when it is said where to.
        data = data.rename(home / "elsewhere")
        seen["moved"] = cli.refused("train", "--resume", "--out", run, "-q")
        began = time.monotonic()
        process = cli.start("train", data, "--resume", "-q", cwd=home)
        wait_until(lambda: rows("qat"), process)
        process.kill()
        process.communicate()
        seen["second process"] = time.monotonic() - began
        seen["facts after the kill"], history = read_json(run / "run.json"), read_json(run / "history.json")
        if len(history) < sum(EPOCHS.values()):  # as if it had been killed between writing history and checkpoint
            ahead = history[-1] | {"epoch": history[-1]["epoch"] + 1, "loss": 99.0}
            (run / "history.json").write_text(json.dumps([*history, ahead]))
        seen["result"] = cli("train", "--resume", "--json", "-q", cwd=home).json

        cli("train", data, *options, "--out", home / "peaceful", "-q")
        return seen

    folder, seen = once(tmp_path_factory, "interrupted", make)
    return seen | {"run": folder / "runs" / "demo-1", "peaceful": folder / "peaceful"}


def test_an_interrupt_ends_training_with_130_and_whole_files(interrupted: dict) -> None:
    assert interrupted["code"] == 130 and "Traceback" not in interrupted["err"]
    assert interrupted["err"].splitlines()[-1] == "melanoma-edge: interrupted; finished files are kept (train goes on with --resume)"
    assert interrupted["leftovers"] == []
    assert interrupted["facts after the interrupt"]["state"] == "training" and interrupted["facts after the interrupt"]["weights"] == {}
    assert 1 <= interrupted["rows after the interrupt"] < EPOCHS["epochs"]


def test_an_interrupted_run_says_how_to_finish_it(interrupted: dict) -> None:
    assert f"incomplete: finish it with `melanoma-edge train --resume --out {interrupted['run']}`" in interrupted["export"]


def test_a_run_does_not_go_on_with_other_data(interrupted: dict) -> None:
    assert "changed since the run" in interrupted["other data"] and "start a new run" in interrupted["other data"]
    assert "were renamed or moved within it" in interrupted["renamed"], "split and logits are known by their order"
    assert "is missing" in interrupted["moved"]
    assert interrupted["unchanged"]


def test_a_killed_run_goes_on_with_the_full_history(interrupted: dict) -> None:
    after = interrupted["facts after the kill"]
    assert after["state"] == "training" and after["weights"].keys() == {"float"}
    rows = read_json(interrupted["run"] / "history.json")
    expected = [("float", epoch) for epoch in range(EPOCHS["epochs"])] + [("qat", epoch) for epoch in range(EPOCHS["qat_epochs"])]
    assert [(row["phase"], row["epoch"]) for row in rows] == expected and max(row["loss"] for row in rows) < 10
    assert interrupted["result"]["facts"]["state"] == "complete"
    assert snapshot(interrupted["run"]).keys() == FILES | {"weights/float.safetensors", "weights/qat.safetensors"}


def test_the_time_and_memory_of_a_run_are_those_of_all_its_processes(interrupted: dict) -> None:
    before, after = interrupted["facts after the interrupt"], interrupted["facts after the kill"]
    rows = [row["seconds"] for row in read_json(interrupted["run"] / "history.json") if row["phase"] == "float"]
    known = interrupted["rows after the interrupt"]
    assert interrupted["first process"] >= before["seconds"]["float"] >= rows[0] and before["peak_memory_bytes"] > 2**26
    assert before["seconds"]["float"] + interrupted["second process"] >= after["seconds"]["float"] >= before["seconds"]["float"] + sum(rows[known:])
    facts = read_json(interrupted["run"] / "run.json")
    assert facts["seconds"]["float"] == after["seconds"]["float"] and facts["peak_memory_bytes"] == after["peak_memory_bytes"] == 2**40


def test_an_interrupted_run_ends_where_one_left_in_peace_does(interrupted: dict) -> None:
    ours, theirs = interrupted["run"], interrupted["peaceful"]
    losses = [[row["loss"] for row in read_json(run / "history.json")] for run in (ours, theirs)]
    assert losses[0] == losses[1]
    for name in ("split.csv", "weights/float.safetensors", "weights/qat.safetensors", "evaluation.json"):
        assert snapshot(ours)[name] == snapshot(theirs)[name], name
