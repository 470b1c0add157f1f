"""Figures by a column of metadata: what the tables say, the groups that it makes, and which of them are too small."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_index import picture
from test_isic9 import FOLDER as ISIC9
from tiny_bundle import CLASSES, write_bundle

from melanoma_edge import metrics
from melanoma_edge.data.sources import read_listing
from melanoma_edge.data.sources.columns import NOT_KNOWN, column_values
from melanoma_edge.data.table import write_index
from melanoma_edge.errors import BadInput
from melanoma_edge.proof import by_column
from melanoma_edge.proof.evaluate import evaluate

HEADER = ["image_id", "lesion_id", "Sex", "age_approx", "clin_size"]


def data_set(root: Path, rows: list[list[str]], header: list[str] = HEADER) -> Path:
    """Write a picture for each row, in class folders in turn, and the table beside them."""
    for number, row in enumerate(rows):
        picture(root / CLASSES[number % 3] / f"{row[0]}.png", number, (40, 40))
    with open(root / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return root


def refused(*arguments: object, **keywords: object) -> str:
    """Return the message of the BadInput, after checking that it is one line."""
    with pytest.raises(BadInput) as caught:
        evaluate(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What the tables say.


def test_a_column_is_read_for_every_picture_whatever_its_letters(tmp_path: Path) -> None:
    data_set(tmp_path, [["a", "", "male", "30", ""], ["b", "", " female ", "NaN", "x,y"], ["c", "", "Unknown", "", ""]])
    listing = read_listing(tmp_path)
    assert column_values(listing, "sex") == column_values(listing, " SEX ") == {"melanoma/a.png": "male", "nevus/b.png": "female", "vascular lesion/c.png": ""}
    assert list(column_values(listing, "age_approx").values()) == ["30", "", ""]
    assert list(column_values(listing, "clin_size").values()) == ["", "x,y", ""]
    assert set(column_values(listing, "source").values()) == {"class folders"}
    assert set(column_values(listing, "class").values()) == set(CLASSES)


def test_an_unknown_column_is_one_line_with_those_that_there_are(tmp_path: Path) -> None:
    listing = read_listing(data_set(tmp_path, [["a", "", "male", "30", ""]] + [["b", "", "male", "30", ""], ["c", "", "", "", ""]]))
    with pytest.raises(BadInput) as caught:
        column_values(listing, "gender")
    message = str(caught.value)
    assert "has no column 'gender' in its tables: expected one of lesion_id, Sex, age_approx, clin_size, class, source; give another --by" in message and "\n" not in message
    with pytest.raises(BadInput, match="no column 'licence'"):  # a listing may know it, and this one does not
        column_values(listing, "licence")


def test_an_index_table_is_matched_by_path(tmp_path: Path) -> None:
    data_set(tmp_path, [["a", "", "male", "30", ""], ["b", "", "", "", ""], ["c", "", "", "", ""]])
    write_index(read_listing(tmp_path), tmp_path / "index.csv")
    with open(tmp_path / "index.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    with open(tmp_path / "index.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[*row, "clinic" if number == 0 else f"clinic {number % 2}"] for number, row in enumerate(rows)])
    assert column_values(read_listing(tmp_path / "index.csv"), "clinic") == {"melanoma/a.png": "clinic 1", "nevus/b.png": "clinic 0", "vascular lesion/c.png": "clinic 1"}


def test_columns_of_an_archive_are_found_though_training_ignores_them(tmp_path: Path) -> None:
    header = ["isic_id", "attribution", "copyright_license", "age_approx", "anatom_site_general", "diagnosis_1", "diagnosis_3", "image_type", "sex"]
    rows = [["ISIC_1", "A", "CC-0", "45", "torso", "Malignant", "Melanoma, NOS", "dermoscopic", "male"], ["ISIC_2", "B", "CC-BY", "", "", "Benign", "Nevus", "dermoscopic", ""]]
    for number, row in enumerate(rows):
        picture(tmp_path / f"{row[0]}.jpg", number, (40, 40))
    with open(tmp_path / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    listing = read_listing(tmp_path)
    assert listing.source == "ISIC Archive" and list(column_values(listing, "anatom_site_general").values()) == ["torso", ""]
    assert list(column_values(listing, "attribution").values()) == ["A", "B"] and list(column_values(listing, "licence").values()) == ["CC-0", "CC-BY"]


def test_rows_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    rows = [["a", "", "male", "30", ""], ["b", "", "male", "30", ""], ["c", "", "male", "30", ""]]
    data_set(tmp_path, rows)
    with open(tmp_path / "metadata.csv", "a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["a", "", "", "30", ""], ["b", "", "female", "30", ""]])  # not known contradicts nothing
    with pytest.raises(BadInput, match="line 6: sex of b is 'female' here and 'male' before: keep one of them"):
        column_values(read_listing(tmp_path), "sex")


@pytest.mark.skipif(not ISIC9.is_dir(), reason=f"{ISIC9} is not here")
def test_the_real_set_has_its_sources_by_picture() -> None:
    listing = read_listing(ISIC9)
    with open(ISIC9 / "metadata.csv", newline="", encoding="utf-8") as file:
        expected = {row["image_id"]: row["reference_source"] for row in csv.DictReader(file)}
    found = column_values(listing, "reference_source")
    assert len(found) == len(listing.entries) and set(found.values()) > {""}
    assert all(value == expected.get(Path(path).stem, "") for path, value in found.items())


# Groups.

VALUES = st.lists(st.sampled_from(["", "a", "b", "Ä ö", "10", "x" * 50]), min_size=1, max_size=30)
NUMBERS = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False) | st.integers(0, 90).map(float), min_size=1, max_size=60)


@given(VALUES)
def test_every_picture_is_in_the_group_of_its_value(values: list[str]) -> None:
    found = by_column.group(values, "any")
    assert [found.names[place] for place in found.members] == [value or by_column.MISSING for value in values]
    assert set(found.names) == {value or by_column.MISSING for value in values} and found.band is None
    assert by_column.MISSING not in found.names[:-1]


@settings(deadline=None)
@given(NUMBERS)
def test_bands_hold_their_numbers_rise_and_are_few(numbers: list[float]) -> None:
    found = by_column.group([repr(number) for number in numbers], "age")
    if found.band is None:
        assert len(set(numbers)) <= by_column.MOST_VALUES or max(numbers) - min(numbers) < 1e-200
        return
    assert len(found.names) <= by_column.MOST_BANDS
    mantissa = found.band / 10.0 ** math.floor(math.log10(found.band) + 1e-9)
    assert min(abs(mantissa - nice) for nice in (1, 2, 5, 10)) < 1e-6
    edges = [tuple(map(float, name.split(" to under "))) for name in found.names]
    assert edges == sorted(edges)
    for number, place in zip(numbers, found.members):
        low, high = edges[place]
        assert low - 1e-6 * found.band <= number <= high + 1e-6 * found.band


def test_ages_fall_in_decades() -> None:
    found = by_column.group([str(age) for age in range(0, 90, 5)] + ["", "45.0"], "age_approx")
    assert found.band == 10 and found.names == (*(f"{low} to under {low + 10}" for low in range(0, 90, 10)), by_column.MISSING)
    assert found.names[found.members[9]] == found.names[found.members[-1]] == "40 to under 50" and found.members[-2] == 9


def test_few_numbers_are_groups_of_their_own_and_equal_ones_are_one() -> None:
    found = by_column.group(["1", "2.0", "2", "10", "1.0"], "type")
    assert found.names == ("1", "2", "10") and found.members.tolist() == [0, 1, 1, 2, 0] and found.band is None


def test_steps_below_one_do_not_slip_over_the_edge() -> None:
    found = by_column.group([f"{tenth / 10:g}" for tenth in range(12)], "thickness")
    assert found.band == 0.1 and found.members.tolist() == list(range(12)) and found.names[3] == "0.3 to under 0.4"


def test_words_among_numbers_make_all_of_it_words() -> None:
    found = by_column.group([*map(str, range(20)), "old", "nan"], "age")
    assert found.band is None and {"0", "19", "old"} <= set(found.names)


def test_a_column_that_names_pictures_is_refused() -> None:
    with pytest.raises(BadInput, match="the column patient holds 51 different values: expected at most 50"):
        by_column.group([f"patient {number}" for number in range(51)], "patient")


def test_what_is_not_known_has_many_names() -> None:
    assert {"", "nan", "unknown", "n/a"} <= NOT_KNOWN
    assert by_column.group(["", ""], "sex").names == (by_column.MISSING,)


# Figures.


def score_of(labels: np.ndarray, groups: np.ndarray):
    probabilities = np.eye(3)[labels] * 0.7 + 0.1
    return lambda mask: metrics.scores(probabilities[mask], labels[mask], CLASSES, "melanoma", groups=groups[mask], priors=np.ones(3), replicates=20)


def test_groups_of_few_lesions_are_marked_however_many_their_pictures() -> None:
    labels = np.tile([0, 1, 2], 100)
    lesions = np.where(np.arange(300) < 150, np.arange(300) // 10, np.arange(300))  # the first half: 15 lesions of 10 photographs
    grouping = by_column.group(["few"] * 150 + ["many"] * 150, "group")
    few, many = by_column.figures(grouping, labels, lesions, 0, score_of(labels, lesions))
    assert (few["group"], few["pictures"], few["lesions"]) == ("few", 150, 15) and (many["pictures"], many["lesions"]) == (150, 150)
    assert many["too_small_for"] == [] and {"accuracy", "balanced_accuracy", "positive_auc", "ece"} <= set(few["too_small_for"])


def test_each_figure_is_judged_by_the_lesions_that_it_is_a_share_of() -> None:
    labels = np.array([0] * 10 + [1] * 40 + [2] * 3)
    lesions, grouping = np.arange(53), by_column.group(["all"] * 53, "group")
    [found] = by_column.figures(grouping, labels, lesions, 0, score_of(labels, lesions))
    assert not {"accuracy", "ece"} & set(found["too_small_for"])
    assert {"positive_auc", "positive_sensitivity_at_80_specificity", "balanced_accuracy", "macro_auc", "ece_at_priors"} <= set(found["too_small_for"])


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle, and 45 pictures: 24 women of whom some ages are unknown, 18 men, and 3 of neither."""
    folder = tmp_path_factory.mktemp("grouped")
    sexes = ["female"] * 24 + ["male"] * 18 + ["", "unknown", "NA"]
    rows = [[f"p{number:02d}", "", sex, "" if number % 8 == 0 else str(5 * (number % 17)), ""] for number, sex in enumerate(sexes)]
    return write_bundle(folder / "tiny.bundle"), data_set(folder / "data", rows)


def test_the_figures_of_a_group_are_those_of_its_pictures_alone(grouped: tuple[Path, Path], tmp_path: Path) -> None:
    bundle, data = grouped
    found = evaluate(bundle, data, by="sex", cache=tmp_path / "cache")
    assert found["by"]["column"] == "sex" and found["by"]["band"] is None
    groups = {row["group"]: row for row in found["by"]["groups"]}
    assert list(groups) == ["female", "male", "not known"] and [row["missing"] for row in groups.values()] == [False, False, True]
    assert [row["pictures"] for row in groups.values()] == [24, 18, 3] and sum(row["pictures"] for row in groups.values()) == found["scores"]["pictures"]
    assert "accuracy" not in groups["female"]["too_small_for"] and "accuracy" in groups["male"]["too_small_for"]
    weighted = sum(row["pictures"] * row["scores"]["accuracy"]["value"] for row in groups.values())
    assert weighted / 45 == pytest.approx(found["scores"]["accuracy"]["value"])
    for name in ("female", "not known"):
        kept = tmp_path / name
        rows = [row for row in csv.DictReader((data / "metadata.csv").open(encoding="utf-8")) if (row["Sex"] if row["Sex"] in ("female", "male") else "not known") == name]
        for row in rows:
            [source] = data.glob(f"*/{row['image_id']}.png")
            (kept / source.parent.name).mkdir(parents=True, exist_ok=True)
            (kept / source.parent.name / source.name).write_bytes(source.read_bytes())
        alone = evaluate(bundle, kept, cache=tmp_path / "cache")
        assert alone["by"] is None
        assert alone["scores"]["accuracy"] == groups[name]["scores"]["accuracy"] and alone["scores"]["recall"] == groups[name]["scores"]["recall"]


def test_a_column_of_numbers_is_cut_in_bands_that_are_stated(grouped: tuple[Path, Path], tmp_path: Path) -> None:
    bundle, data = grouped
    found = evaluate(bundle, data, by="age_approx", cache=tmp_path / "cache")["by"]
    assert found["band"] == 10 and found["groups"][0]["group"] == "0 to under 10" and found["groups"][-1]["missing"] and found["groups"][-1]["pictures"] == 6


def test_an_unknown_column_is_refused_before_anything_is_run(grouped: tuple[Path, Path], tmp_path: Path) -> None:
    bundle, data = grouped
    assert "has no column 'skin type' in its tables: expected one of lesion_id, Sex, age_approx" in refused(bundle, data, by="skin type", cache=tmp_path)


def test_evaluation_says_what_decided_and_how_risk_falls_with_coverage(grouped: tuple[Path, Path], tmp_path: Path) -> None:
    found = evaluate(*grouped, cache=tmp_path / "cache")
    assert found["threshold"] is None and found["abstention"]["method"] == "confidence" and found["non_lesions"] is None
    assert set(found["coverage_risk"]) == {"confidence", "energy"}
    for method in found["coverage_risk"].values():
        assert len(method["points"]) == 10 and method["points"][-1]["coverage"] == 1.0
        assert method["points"][-1]["risk"] == pytest.approx(1 - found["scores"]["accuracy"]["value"])
        assert method["points"][-1]["balanced_error"] == pytest.approx(1 - found["scores"]["balanced_accuracy"]["value"])
        assert method["area"]["low"] <= method["area"]["value"] <= method["area"]["high"]
    confident, energetic = ([point["threshold"] for point in found["coverage_risk"][name]["points"]] for name in ("confidence", "energy"))
    assert confident == sorted(confident, reverse=True) and energetic == sorted(energetic)  # low energy is familiar
