"""Evaluation, latency and the report as a user asks for them; figures are computed again from other output."""

from __future__ import annotations

import csv
import html.parser
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CLASSES, Cli, read_json, snapshot, validate
from PIL import Image
from sklearn.metrics import confusion_matrix, roc_auc_score
from test_export_cli import ONNX, TFLITE, artifacts
from test_train_cli import split_of

from melanoma_edge import NOTICE


def rows_of(run: Path, part: str) -> list[dict[str, str]]:
    """Return the rows of one part of a run's split."""
    return [row for row in split_of(run) if row["part"] == part]


def folder_of(drawn: Path, rows: list[dict[str, str]], folder: Path, *, metadata: bool = True) -> Path:
    """Copy these pictures into class folders below `folder`, with the metadata beside them."""
    for row in rows:
        (folder / row["label"]).mkdir(parents=True, exist_ok=True)
        shutil.copy(drawn / row["path"], folder / row["path"])
    if metadata:
        shutil.copy(drawn / "metadata.csv", folder)
    return folder


def predictions(cli: Cli, bundle: Path, drawn: Path, rows: list[dict[str, str]], artifact: str) -> list[dict[str, Any]]:
    """Return what ``predict`` says about these pictures."""
    done = cli("predict", bundle, *(drawn / row["path"] for row in rows), "--artifact", artifact, "--json")
    assert [result["picture"] for result in done.json["results"]] == [str(drawn / row["path"]) for row in rows]
    return done.json["results"]


@pytest.mark.parametrize("name", [*TFLITE, *ONNX])
def test_the_figures_of_an_artifact_follow_from_its_predictions(cli: Cli, bundle: Path, run: Path, drawn: Path, name: str) -> None:
    result = cli("evaluate", bundle, "--data", drawn, "--artifact", name, "--json", "-q").json
    rows, scores = rows_of(run, "test"), result["scores"]
    found = predictions(cli, bundle, drawn, rows, name)
    truth, predicted = [row["label"] for row in rows], [one["class"] for one in found]
    assert result["model"] == name and result["classes"] == list(CLASSES) and result["leak_free"] is True and result["notice"] == NOTICE
    assert result["confusion"] == confusion_matrix(truth, predicted, labels=CLASSES).tolist()
    hits = np.array(truth) == np.array(predicted)
    assert scores["pictures"] == len(rows) and scores["accuracy"]["value"] == pytest.approx(hits.mean())
    recall = {label: hits[np.array(truth) == label].mean() for label in CLASSES}
    assert {label: figure["value"] for label, figure in scores["recall"].items()} == pytest.approx(recall)
    assert scores["balanced_accuracy"]["value"] == pytest.approx(np.mean(list(recall.values())))
    melanoma = [one["probabilities"]["melanoma"] for one in found]
    assert scores["positive_auc"]["value"] == pytest.approx(roc_auc_score([label == "melanoma" for label in truth], melanoma))
    assert artifacts(bundle)[name]["scores"]["accuracy"] == scores["accuracy"]


def test_the_int8_tflite_artifact_is_the_one_evaluated_unless_named(cli: Cli, bundle: Path, drawn: Path) -> None:
    done = cli("evaluate", bundle, "--data", drawn)
    assert TFLITE[3] in done.out and NOTICE.split(".")[0] in done.out and "seen in training and left out: " in done.out


@pytest.mark.parametrize(("options", "which"), [([], "qat"), (["--artifact", "float"], "float")])
def test_a_run_gives_the_figures_that_training_gave(cli: Cli, run: Path, drawn: Path, options: list[str], which: str) -> None:
    result = cli("evaluate", run, "--data", drawn, *options, "--json", "-q").json
    assert result["model"] == f"keras-{which}"
    ours, theirs = result["scores"], read_json(run / "evaluation.json")[which]["scores"]
    assert {key: ours[key]["value"] for key in ("accuracy", "balanced_accuracy", "macro_f1")} == {
        key: pytest.approx(theirs[key]["value"]) for key in ("accuracy", "balanced_accuracy", "macro_f1")
    }
    assert ours["positive_auc"]["value"] == pytest.approx(theirs["positive_auc"]["value"], abs=1e-6)
    assert result["pictures"]["seen_in_training"] == len(split_of(run)) - len(rows_of(run, "test"))


def test_an_absent_class_is_null_and_never_zero(cli: Cli, bundle: Path, run: Path, drawn: Path, tmp_path: Path) -> None:
    rows = [row for row in rows_of(run, "test") if row["label"] in ("nevus", "vascular lesion")]
    data = folder_of(drawn, rows, tmp_path / "two")
    result = cli("evaluate", bundle, "--data", data, "--json", "-q").json
    recall = result["scores"]["recall"]
    nothing = {"value": None, "low": None, "high": None}
    assert recall["melanoma"] == recall["basal cell carcinoma"] == nothing
    assert result["scores"]["positive_auc"] == result["scores"]["positive_sensitivity_at_80_specificity"] == nothing
    assert result["scores"]["per_class"]["melanoma"] == 0
    assert result["scores"]["balanced_accuracy"]["value"] == pytest.approx((recall["nevus"]["value"] + recall["vascular lesion"]["value"]) / 2)
    assert result["scores"]["positive_auc_against"] == dict.fromkeys(recall.keys() - {"melanoma"}, nothing)
    assert result["scores"]["called_positive"]["basal cell carcinoma"] == nothing and result["scores"]["called_positive"]["nevus"]["value"] is not None
    shown = cli("evaluate", bundle, "--data", data).out
    assert "undefined" in shown and "called melanoma at" in " ".join(shown.split())


def test_what_cannot_be_scored_is_named_and_counted(cli: Cli, bundle: Path, run: Path, drawn: Path, tmp_path: Path) -> None:
    rows = rows_of(run, "test")
    data = folder_of(drawn, rows, tmp_path / "data")
    (data / "alien [x]").mkdir()
    noise = np.random.default_rng(3).integers(0, 256, (2, 40, 40, 3), np.uint8)
    for index, pixels in enumerate(noise):
        Image.fromarray(pixels).save(data / "alien [x]" / f"{index}.png")
    (data / "nevus" / "broken.jpg").write_bytes(b"")
    Image.fromarray(noise[0]).save(data / "loose.png")
    result = cli("evaluate", bundle, "--data", data, "--json", "-q").json
    assert result["pictures"]["unknown_classes"] == {"alien [x]": 2} and result["scores"]["pictures"] == len(rows)
    assert result["pictures"]["in_no_class_folder"] == 1
    [[path, why]] = result["pictures"]["unreadable"]
    assert path == "nevus/broken.jpg" and "empty file" in why
    shown = cli("evaluate", bundle, "--data", data).out
    assert "class unknown to the model: alien [x] (2 pictures, not scored)" in shown and "unreadable: nevus/broken.jpg" in shown
    assert "in no class folder, not scored: 1" in shown


def test_pictures_that_training_saw_are_left_out_whatever_their_file(cli: Cli, bundle: Path, run: Path, drawn: Path, tmp_path: Path) -> None:
    test, train = rows_of(run, "test"), rows_of(run, "train")
    data = folder_of(drawn, test, tmp_path / "data")
    with Image.open(drawn / train[0]["path"]) as image:  # the same pixels under another name and in another format
        image.save(data / train[0]["label"] / "other.bmp")
    result = cli("evaluate", bundle, "--data", data, "--json", "-q").json
    assert result["pictures"]["seen_in_training"] == 1 and result["pictures"]["used"] == len(test) + 1
    assert result["scores"]["pictures"] == len(test) and result["leak_free"] is True


def test_a_copy_of_a_picture_that_training_saw_is_left_out_with_it(cli: Cli, bundle: Path, run: Path, drawn: Path, tmp_path: Path) -> None:
    test, train = rows_of(run, "test"), rows_of(run, "train")
    data = folder_of(drawn, [*test, train[0]], tmp_path / "data", metadata=False)
    with Image.open(drawn / train[0]["path"]) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(data / train[0]["label"] / "turned.jpg", quality=90)
    result = cli("evaluate", bundle, "--data", data, "--json", "-q").json
    # The turned one is a copy of the other, of which one is used; it is another file to whoever knows files only.
    assert (result["pictures"]["seen_in_training"], result["pictures"]["left_out"]) == (1, 1) and result["scores"]["pictures"] == len(test)
    (data / train[0]["label"] / Path(train[0]["path"]).name).unlink()
    result = cli("evaluate", bundle, "--data", data, "--json", "-q").json
    assert (result["pictures"]["seen_in_training"], result["pictures"]["left_out"]) == (1, 0) and result["scores"]["pictures"] == len(test)


def test_copies_of_pictures_that_training_saw_are_known_without_them(cli: Cli, bundle: Path, run: Path, drawn: Path, tmp_path: Path) -> None:
    test, train = rows_of(run, "test"), rows_of(run, "train")
    data = folder_of(drawn, test, tmp_path / "data", metadata=False)
    for number, row in enumerate(train[:40]):
        with Image.open(drawn / row["path"]) as image:
            smaller = image.convert("RGB").resize((image.width * 2 // 3, image.height * 2 // 3), Image.Resampling.LANCZOS)
            smaller.transpose(Image.Transpose(number % 7)).save(data / row["label"] / f"copy {number}.jpg", quality=60)
    result = cli("evaluate", bundle, "--data", data, "--json", "-q").json
    assert result["pictures"]["seen_in_training"] == 40 and result["scores"]["pictures"] == len(test)


def test_another_photograph_of_a_lesion_that_training_saw_is_left_out(cli: Cli, bundle: Path, run: Path, drawn: Path, tmp_path: Path) -> None:
    test, train = rows_of(run, "test"), rows_of(run, "train")
    data = folder_of(drawn, test, tmp_path / "data")
    noise = np.random.default_rng(4).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(data / "nevus" / "new.png")
    with open(data / "metadata.csv", "a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(["new", train[0]["lesion"], "nevus", ""])
    result = cli("evaluate", bundle, "--data", data, "--json", "-q").json
    assert result["pictures"]["seen_in_training"] == 1 and result["scores"]["pictures"] == len(test)


def test_seen_pictures_can_be_asked_for_and_are_marked(cli: Cli, bundle: Path, run: Path, drawn: Path) -> None:
    done = cli("evaluate", bundle, "--data", drawn, "--include-seen", "--json", "-q")
    assert done.json["leak_free"] is False and done.json["scores"]["pictures"] == len(split_of(run))
    assert done.json["pictures"]["seen_in_training"] == len(split_of(run)) - len(rows_of(run, "test"))
    assert "not leak-free" in cli("evaluate", bundle, "--data", drawn, "--include-seen").out


def test_nothing_but_seen_pictures_is_refused(cli: Cli, bundle: Path, run: Path, drawn: Path, tmp_path: Path) -> None:
    rows = rows_of(run, "train")[:30]
    data = folder_of(drawn, rows, tmp_path / "seen", metadata=False)
    line = cli.refused("evaluate", bundle, "--data", data)
    assert f"all {len(rows)} pictures" in line and "were used in training" in line and "--include-seen" in line
    result = cli("evaluate", bundle, "--data", data, "--include-seen", "--json", "-q").json
    assert result["leak_free"] is False and result["scores"]["pictures"] == len(rows)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--artifact", "nonsense"], "has no artifact 'nonsense': expected one of demo-float32.tflite, "),
        (["--metadata", "nowhere.csv"], "nowhere.csv cannot be read as CSV"),
    ],
)
def test_wrong_options_are_one_line(cli: Cli, bundle: Path, drawn: Path, options: list[str], found: str) -> None:
    assert found in cli.refused("evaluate", bundle, "--data", drawn, *options)


def test_what_is_no_model_or_no_data_is_one_line(cli: Cli, bundle: Path, run: Path, drawn: Path, tmp_path: Path) -> None:
    assert "is neither a run nor a bundle" in cli.refused("evaluate", drawn, "--data", drawn)
    assert "is missing: expected a folder" in cli.refused("evaluate", bundle, "--data", tmp_path / "nowhere")
    assert "has no network 'int8': expected one of float, qat" in cli.refused("evaluate", run, "--data", drawn, "--artifact", "int8")
    (tmp_path / "data" / "alien").mkdir(parents=True)
    shutil.copy(drawn / split_of(run)[0]["path"], tmp_path / "data" / "alien")
    assert "holds no picture of a class that the model knows (found alien)" in cli.refused("evaluate", bundle, "--data", tmp_path / "data")


def test_figures_by_a_column_are_shown_with_small_groups_marked(cli: Cli, bundle: Path, run: Path, drawn: Path, tmp_path: Path) -> None:
    rows = rows_of(run, "test")
    data = folder_of(drawn, rows, tmp_path / "data")
    with open(data / "metadata.csv", newline="", encoding="utf-8") as file:
        table = list(csv.reader(file))
    ids = {Path(row["path"]).stem: number for number, row in enumerate(rows)}
    sexes = {name: "" if number < 4 else "female" if number < 14 else "male" for name, number in ids.items()}
    with open(data / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[*line, "sex", "age_approx"] if not place else [*line, sexes.get(line[0], ""), str(5 * (place % 16))] for place, line in enumerate(table)])
    result = cli("evaluate", bundle, "--data", data, "--by", "sex", "--json", "-q").json
    groups = {row["group"]: row for row in result["by"]["groups"]}
    assert {name: row["pictures"] for name, row in groups.items()} == {"female": 10, "male": len(rows) - 14, "not known": 4}
    found = predictions(cli, bundle, drawn, [row for row in rows if sexes[Path(row["path"]).stem] == "male"], TFLITE[3])
    hits = [one["class"] == row["label"] for one, row in zip(found, (row for row in rows if sexes[Path(row["path"]).stem] == "male"), strict=True)]
    assert groups["male"]["scores"]["accuracy"]["value"] == pytest.approx(np.mean(hits))
    assert "accuracy" in groups["female"]["too_small_for"] and "accuracy" not in groups["male"]["too_small_for"]
    shown = cli("evaluate", bundle, "--data", data, "--by", "sex").out
    assert "by sex" in shown and "* too few lesions to say: below 20" in shown and "not known" in shown
    assert "by age_approx, in bands of 10" in cli("evaluate", bundle, "--data", data, "--by", "age_approx").out
    line = cli.refused("evaluate", bundle, "--data", data, "--by", "gender", "-q")
    assert "has no column 'gender' in its tables: expected one of" in line and "sex, age_approx" in line


def test_evaluation_says_what_decided_and_what_is_answered_that_is_no_lesion(cli: Cli, bundle: Path, drawn: Path) -> None:
    result = cli("evaluate", bundle, "--data", drawn, "--json", "-q").json
    artifact = artifacts(bundle)[TFLITE[3]]
    assert result["by"] is None and result["non_lesions"] == artifact["non_lesions"] and result["abstention"] == artifact["decision"]["abstention"]
    assert result["threshold"]["in_words"] == "the highest threshold with 90 % sensitivity on validation"
    for method in ("confidence", "energy"):
        assert result["coverage_risk"][method]["points"][-1]["risk"] == pytest.approx(1 - result["scores"]["accuracy"]["value"])
    shown = " ".join(cli("evaluate", bundle, "--data", drawn).out.split())
    assert "threshold of melanoma: " in shown and "wrong among the answered by confidence (in force): " in shown and "wrong among the answered by energy: " in shown
    rates = {rate["method"]: rate["answered"] for rate in artifact["non_lesions"]["rates"]}
    assert f"of 120 drawn pictures without a lesion it answers (at export, the same coverage): {rates['confidence']} by confidence, {rates['energy']} by energy" in shown


# Latency.


def test_a_quick_bench_writes_valid_latencies(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "b.bundle"
    shutil.copytree(bundle, folder)
    done = cli("bench", folder, "--quick", "--json", "-q")
    latency = read_json(folder / "evidence" / "latency.json")
    validate(latency, "latency")
    assert latency == done.json and latency["host"]["quick"] is True and latency["host"]["comparable"] is False
    timed = {artifact["name"]: artifact for runtime in latency["host"]["runtimes"] for artifact in runtime["artifacts"]}
    assert timed.keys() == {*TFLITE, *ONNX} and all(0 < row["p50_ms"] <= row["p99_ms"] for row in timed.values())
    assert all(timed[name]["sha256"] == artifact["sha256"] for name, artifact in artifacts(folder).items())
    assert all(runtime["reason"] for runtime in latency["host"]["runtimes"] if runtime["status"] == "not run")
    shown = cli("bench", folder, "--quick", "--runtime", "litert").out
    assert "host numbers, never phone numbers" in shown and TFLITE[3] in shown


# The report.


class Page(html.parser.HTMLParser):
    """What a page refers to, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references, self.tags, self.words = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def _self_contained(file: Path) -> str:
    """Return the words of a page that must need nothing from outside."""
    page = Page(file.read_text(encoding="utf-8"))
    assert "script" not in page.tags and page.references
    assert all(reference.startswith(("data:", "#")) for reference in page.references), page.references
    words = " ".join(" ".join(page.words).split())
    assert "Not a medical device" in words
    return words


def test_the_report_of_a_bundle(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "b.bundle"
    shutil.copytree(bundle, folder)
    done = cli("report", folder, "-q")
    assert done.out == f"{folder / 'evidence' / 'report.html'}\n"
    words = _self_contained(folder / "evidence" / "report.html")
    for name, artifact in artifacts(folder).items():
        assert name in words and f"{artifact['scores']['balanced_accuracy']['value'] * 100:.1f}" in words
    cli("verify", folder, "-q")  # the report breaks no seal


def test_the_report_of_a_run(cli: Cli, run: Path, tmp_path: Path) -> None:
    before = snapshot(run)
    done = cli("report", run, "--out", tmp_path / "page.html", "-q")
    assert done.out == f"{tmp_path / 'page.html'}\n" and snapshot(run) == before
    words = _self_contained(tmp_path / "page.html")
    for which in ("float", "qat"):
        scores = read_json(run / "evaluation.json")[which]["scores"]
        assert f"{scores['balanced_accuracy']['value'] * 100:.1f}" in words and f"{scores['positive_auc']['value']:.3f}" in words


def test_a_report_about_nothing_is_refused(cli: Cli, drawn: Path, tmp_path: Path) -> None:
    cli.refused("report", drawn, "--out", tmp_path / "page.html", "-q")
    assert list(tmp_path.iterdir()) == []
