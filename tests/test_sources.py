"""Data sets as people and archives leave them: each becomes the same kind of listing, and nothing is guessed."""

from __future__ import annotations

import csv
import importlib.resources
import os
import random
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_isic9 import FOLDER as ISIC9

from melanoma_edge.data.classes import CLASSES, class_names, name_key
from melanoma_edge.data.lesion_drawing import DRAWERS
from melanoma_edge.data.listing import Entry, Listing
from melanoma_edge.data.samples import CLASSES as DRAWN
from melanoma_edge.data.sources import find_metadata, read_listing
from melanoma_edge.data.sources.diagnoses import classes_of
from melanoma_edge.data.sources.licences import terms
from melanoma_edge.errors import BadInput

DESCRIPTOR = "Indeterminate:Indeterminate epidermal proliferations:Solar or actinic keratosis"


def files(root: Path, *names: str) -> Path:
    """Make the empty files `names` below `root`; a listing opens none of them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def table(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refused(function, *arguments: object, **keywords: object) -> str:
    """Return the message of the BadInput that the call raises, after checking that it is one line."""
    with pytest.raises(BadInput) as caught:
        function(*arguments, **keywords)
    assert str(caught.value).isprintable()
    return str(caught.value)


def labels(listing: Listing) -> dict[str, str]:
    assert len({entry.path for entry in listing.entries}) == len(listing.entries), "a file is listed twice"
    return {entry.path: entry.label for entry in listing.entries}


def entry(listing: Listing, path: str) -> Entry:
    [found] = [entry for entry in listing.entries if entry.path == path]
    return found


# --- class names


def test_the_drawn_classes_are_the_nine() -> None:
    assert tuple(DRAWERS) == CLASSES == DRAWN and list(CLASSES) == sorted(CLASSES)


@pytest.mark.parametrize("spelling", ["nevus", "Nevus", "NEVUS", " nevus ", "n-e_v us", "nevus_"])
def test_a_known_class_has_one_spelling(spelling: str) -> None:
    assert class_names({spelling: 1}) == {spelling: "nevus"}


@pytest.mark.parametrize(
    ("counts", "name"),
    [
        ({"Spitz_nevus": 2, "spitz nevus": 1}, "Spitz nevus"),
        ({"Spitz_nevus": 1, "spitz nevus": 2}, "spitz nevus"),
        ({"spitz nevus": 2, "Spitz_nevus": 2}, "Spitz nevus"),
        ({"spitz-nevus": 2, "Spitz nevus": 1, "Spitz_nevus": 1}, "Spitz nevus"),
        ({"Spitz\u2013nevus": 2, "spitznevus": 1}, "Spitz\u2013nevus"),
        ({"n\u00e6vus o\u0308": 1, "N\u00c6VUS_\u00f6": 2}, "N\u00c6VUS \u00f6"),
        ({"a\nb": 1}, "a b"),
    ],
)
def test_an_own_class_is_spelled_as_most_of_its_pictures(counts: dict[str, int], name: str) -> None:
    assert class_names(counts) == dict.fromkeys(counts, name)


def test_classes_that_differ_in_more_stay_apart() -> None:
    assert class_names({"nevus 1": 1, "nevus 2": 1, "naevus": 1}) == {"nevus 1": "nevus 1", "nevus 2": "nevus 2", "naevus": "naevus"}


SPELLINGS = st.text(st.one_of(st.sampled_from("aAbB _-\u2013\n\u00df\u00c4\u0308\u0130\ufb01"), st.characters(exclude_categories=["Cs"])), max_size=6).filter(name_key)
COUNTS = st.dictionaries(SPELLINGS, st.integers(0, 9), max_size=8)


@given(COUNTS, st.randoms())
@example({"\u0345a": 1}, random.Random(0))
def test_naming_depends_on_no_order_and_ends_at_once(counts: dict[str, int], chance: random.Random) -> None:
    names = class_names(counts)
    assert names.keys() == counts.keys()
    shuffled = list(counts)
    chance.shuffle(shuffled)
    assert class_names({name: counts[name] for name in shuffled}) == names
    totals = Counter()
    for spelling, name in names.items():
        totals[name] += counts[spelling]
    assert class_names(totals) == {name: name for name in totals}
    assert len(totals) == len({name_key(spelling) for spelling in counts}) and all(name_key(name) for name in totals)


# --- class folders


def test_class_folders_with_and_without_parts(tmp_path: Path) -> None:
    files(tmp_path, "Train/nevus/a.jpg", "Test/Nevus/b.JPG", "VALIDATION/mole/c.png", "val/mole/d.png", "melanoma/deep/er/e.tiff", "f.jpg", "Test/g.jpg", "x.heic", "nevus/y")
    listing = read_listing(tmp_path)
    assert [(e.path, e.label, e.part) for e in listing.entries] == [
        ("Test/Nevus/b.JPG", "nevus", "test"),
        ("Train/nevus/a.jpg", "nevus", "train"),
        ("VALIDATION/mole/c.png", "mole", "validation"),
        ("melanoma/deep/er/e.tiff", "melanoma", ""),
        ("val/mole/d.png", "mole", "validation"),
    ]
    assert listing.outside == ("Test/g.jpg", "f.jpg") and listing.other_files == {".heic": 1, "(no suffix)": 1}
    assert listing.root == tmp_path and listing.source == "class folders" == listing.entries[0].source
    assert not (listing.tables or listing.unmapped or listing.without_picture or listing.filtered or listing.notes)


def test_folders_of_one_class_side_by_side_are_joined_and_named(tmp_path: Path) -> None:
    files(tmp_path, "Train/Basal_Cell_Carcinoma/a.jpg", "Train/basal cell carcinoma/b.jpg", "Test/basal-cell-carcinoma/c.jpg", "Train/nevus/d.jpg")
    listing = read_listing(tmp_path)
    assert Counter(e.label for e in listing.entries) == {"basal cell carcinoma": 3, "nevus": 1}
    assert listing.notes == ("the folders 'Basal_Cell_Carcinoma' and 'basal cell carcinoma' of Train are one class: basal cell carcinoma",)


@pytest.mark.parametrize("name", ["  ", "n" * 201, "--", "_"])
def test_a_folder_name_that_cannot_be_a_class_is_refused(tmp_path: Path, name: str) -> None:
    files(tmp_path, "nevus/a.png")
    (tmp_path / name).mkdir()
    assert len(read_listing(tmp_path).entries) == 1  # an empty folder is no class
    files(tmp_path, f"{name}/a.png")
    assert "rename it" in refused(read_listing, tmp_path)


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints/a.png", "nevus/.x/a.png", "nevus/._b.png", "Train/.cache/c.png", ".x/Train/nevus/d.png"])
def test_what_is_hidden_is_left_alone(tmp_path: Path, hidden: str) -> None:
    files(tmp_path, "nevus/b.png", "Train/nevus/c.png", hidden)
    listing = read_listing(tmp_path)
    assert set(labels(listing)) == {"nevus/b.png", "Train/nevus/c.png"} and not listing.outside


@given(names=st.sets(st.tuples(st.sampled_from(["a", "a b", "a_b", "A-B", "B", "ä", "Train", "test"]), st.sampled_from(["", "x/", "y z/"]), st.sampled_from("kKl1")), min_size=1), chance=st.randoms())
@settings(deadline=None, max_examples=25)
def test_the_order_of_creation_does_not_matter(tmp_path_factory: pytest.TempPathFactory, names: set[tuple[str, str, str]], chance: random.Random) -> None:
    wanted = [f"{folder}/z/{inner}{stem}.png" for folder, inner, stem in sorted(names)]
    roots = []
    for _ in range(2):
        chance.shuffle(wanted)
        roots.append(files(tmp_path_factory.mktemp("order"), *wanted))
    one, two = (read_listing(root) for root in roots)
    assert one.entries == two.entries and one.notes == two.notes
    found = [e.path for e in one.entries]
    assert sorted(found) == sorted(wanted) and found == sorted(found, key=lambda path: path.split("/"))


def test_links_inside_the_data_set_are_passed_over_and_links_out_are_followed(tmp_path: Path) -> None:
    root = tmp_path / "data"
    files(tmp_path / "elsewhere", "a.png", "deep/b.png")
    files(root, "melanoma/c.png", "zz/d.png")
    (root / "nevus").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(root / "zz")
    (root / "melanoma" / "up").symlink_to(tmp_path)
    (root / "melanoma" / "self").symlink_to(root / "melanoma" / "self")
    (root / "melanoma" / "top").symlink_to("..")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    (root / "pigment").symlink_to(tmp_path / "elsewhere" / "deep")
    listing = read_listing(root)
    assert set(labels(listing)) == {"melanoma/c.png", "zz/d.png", "nevus/a.png", "nevus/deep/b.png"}
    passed = {note.split(" is ")[0] for note in listing.notes}
    assert passed == {"again", "melanoma/up", "melanoma/top", "nevus/loop", "nevus/back", "pigment"}
    assert read_listing(root).entries == listing.entries


def test_a_data_set_that_is_a_link_is_read_like_the_folder(tmp_path: Path) -> None:
    files(tmp_path / "real", "nevus/a.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "nevus" / "gone.png").symlink_to(tmp_path / "nowhere")
    assert set(labels(read_listing(tmp_path / "link"))) == {"nevus/a.png", "nevus/gone.png"}  # whoever opens it will say so


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is unreadable to this user")
def test_a_folder_that_cannot_be_listed_is_noted(tmp_path: Path) -> None:
    files(tmp_path, "nevus/a.png", "melanoma/b.png")
    (tmp_path / "melanoma").chmod(0)
    try:
        assert read_listing(tmp_path).notes == ("melanoma cannot be listed (Permission denied): passed over",)
        tmp_path.chmod(0o300)
        assert "cannot be listed (Permission denied)" in refused(read_listing, tmp_path)
    finally:
        tmp_path.chmod(0o700)
        (tmp_path / "melanoma").chmod(0o700)


def test_names_of_any_letters_are_listed(tmp_path: Path) -> None:
    names = ["a b /lésion nº 1.png", "黑色素瘤/图 #1%20.png", "nævus/a'b\"c.png", "a\nb/c\td\n.png", f"nevus/{'x' * 251}.png", f"{'y' * 200}/a.png"]
    listing = read_listing(files(tmp_path, *names))
    assert labels(listing) == dict(zip(names, ("a b", "黑色素瘤", "nævus", "a b", "nevus", "y" * 200)))
    assert listing.notes == ("the folders 'a\\nb' and 'a b ' are one class: a b",) and listing.notes[0].isprintable()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names that are no text")
def test_names_that_are_no_text_are_listed(tmp_path: Path) -> None:
    for name in (b"nevus/caf\xe9.png", b"n\xe9vus/a.png"):
        path = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, "wb").close()
    assert {os.fsencode(e.path) for e in read_listing(tmp_path).entries} == {b"nevus/caf\xe9.png", b"n\xe9vus/a.png"}


def test_where_nothing_is_recognised_the_message_says_what_would_be(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    files(tmp_path / "flat", "a.png")
    files(tmp_path / "no pictures", "nevus/notes.txt")
    for name in ("empty", "flat", "no pictures"):
        loose = " (1 stand in no class folder)" if name == "flat" else ""
        message = refused(read_listing, tmp_path / name)
        assert f"{tmp_path / name} holds no pictures in class folders{loose}: expected {tmp_path / name}/<class>/*.jpg" in message
        assert "HAM10000_metadata.csv" in message and "GroundTruth.csv" in message
    for name in ("nothing", "x" * 300, "a\0b", "a\nb"):
        assert "is missing: expected a folder with one folder a class" in refused(read_listing, tmp_path / name)


# --- a table beside class folders

TABLE = "image_id,lesion_id,reference_diagnosis\nISIC_1,L1,nevus\nISIC_2,,basal cell carcinoma\nISIC_3,L1,\n"
FOUND = {"ISIC_1": ("L1", "nevus"), "ISIC_2": ("", "basal cell carcinoma"), "ISIC_3": ("L1", "")}


def read_metadata(folder: Path, text: str | bytes, names: tuple[str, ...] = tuple(FOUND)) -> dict[str, tuple[str, str]]:
    files(folder, *(f"nevus/{name}.png" for name in names))
    table(folder / "metadata.csv", text)
    return {Path(e.path).stem: (e.lesion, e.reference) for e in read_listing(folder).entries}


@pytest.mark.parametrize(
    "text",
    [
        TABLE,
        TABLE.encode("utf-8-sig"),
        TABLE.replace("\n", "\r\n"),
        TABLE.replace("\n", "\r"),
        TABLE.rstrip("\n"),
        TABLE + "\n\n",
        TABLE.replace("reference_diagnosis", "diagnosis"),
        TABLE.replace("image_id", "isic_id"),
        TABLE.replace("image_id", "image").replace("ISIC_1", "ISIC_1.jpg").replace("ISIC_2", "Train/x/ISIC_2.JPEG"),
        TABLE.replace("image_id", "Image_ID"),
        TABLE.replace("ISIC_1", " ISIC_1.png ").replace("L1", " L1 "),
        TABLE.replace("ISIC_1,L1,nevus", '"ISIC_1","L1","nevus"'),
        TABLE.replace("\n", ",x\n").replace("diagnosis,x", "diagnosis,age"),
        TABLE + "ISIC_1,L1,nevus\n",
        TABLE + ",,\n,,x\n",
        TABLE + ",,,,\n",
        TABLE.replace(",", ";"),
        TABLE.replace(",", "\t"),
        TABLE.replace(",", ";").replace("nevus\n", '"nevus"\n').replace("lesion_id", '"lesion_id"'),
        "source,reference_diagnosis,lesion_id,image_id\na,nevus,L1,ISIC_1\na,basal cell carcinoma,,ISIC_2\na,,L1,ISIC_3\n",
    ],
)
def test_tables_as_spreadsheets_and_archives_write_them(tmp_path: Path, text: str | bytes) -> None:
    assert read_metadata(tmp_path, text) == FOUND


def test_quoted_fields_may_hold_separators_and_lines(tmp_path: Path) -> None:
    text = 'image_id,lesion_id,diagnosis\n"a,b","L ""1""","nevus,\natypical"\n'
    assert read_metadata(tmp_path, text, ("a,b",)) == {"a,b": ('L "1"', "nevus,\natypical")}


def test_columns_that_are_not_there_are_empty(tmp_path: Path) -> None:
    assert read_metadata(tmp_path / "1", "image_id\na\nb\n", ("a", "b")) == {"a": ("", ""), "b": ("", "")}
    assert read_metadata(tmp_path / "2", "image_id,lesion_id,diagnosis\na\n", ("a",)) == {"a": ("", "")}
    assert read_metadata(tmp_path / "3", "diagnosis,image_id,reference_diagnosis\nx,a,y\n", ("a",)) == {"a": ("", "y")}


def test_everything_that_a_table_knows_is_taken(tmp_path: Path) -> None:
    files(tmp_path, "Train/nevus/a.jpg", "Train/nevus/b.jpg", "melanoma/a.v2.png", "melanoma/c.png")
    table(tmp_path / "metadata.csv", "image_id,lesion_id,patient_id,diagnosis,copyright_license,attribution\na,L1,P1,nevus,CC-BY,Somebody\nz,,,,,\na.v2,L2,,,,\n")
    listing = read_listing(tmp_path)
    assert entry(listing, "Train/nevus/a.jpg") == Entry("Train/nevus/a.jpg", "nevus", "L1", "P1", "train", "nevus", "CC-BY", "Somebody", "class folders")
    assert entry(listing, "melanoma/a.v2.png").lesion == "L2" and entry(listing, "melanoma/c.png").lesion == ""
    assert listing.tables == (tmp_path / "metadata.csv",) and listing.without_picture == ("z",) and listing.other_files == {}


LATIN = "image_id,diagnosis\nü,nævus\n".encode("latin-1")
BAD_TABLES = [
    ("name,lesion_id\na,b\n", "has the columns name, lesion_id: expected image_id (or isic_id, image)"),
    ("", "has the columns (none): expected image_id"),
    ("\ufeff", "has the columns (none): expected image_id"),
    ('"a\nb",c\n1,2\n', r"has the columns"),
    ("x" * 100_000 + "\n", "expected image_id"),
    (TABLE + "ISIC_1,L2,nevus\n", "line 5: ISIC_1 stands twice with different facts; keep one row an image"),
    (TABLE + "ISIC_2.jpg,,melanoma\n", "line 5: ISIC_2 stands twice with different facts"),
    (LATIN, "cannot be read as CSV: 'utf-8' codec"),
    (TABLE.encode("utf-16"), "cannot be read as CSV: 'utf-8' codec"),
    (TABLE.encode("utf-16-le"), "line 1 holds a NUL character"),
    (TABLE + "ISIC_4\0,,\n", "line 5 holds a NUL character"),
    ("image_id\n" + "x" * 200_000 + "\n", "cannot be read as CSV: field larger than field limit"),
    ('image_id\n"' + "x\n" * 200_000, "cannot be read as CSV: "),
    (TABLE + '"ISIC_4,,\n', "cannot be read as CSV: unexpected end of data"),
    ('image_id,"lesion_id\n', "cannot be read as CSV: unexpected end of data"),
    ("image_id,lesion_id,Image_ID\n", "has the column Image_ID twice: keep one of them"),
    (TABLE + "ISIC_4,L4,nevus, atypical\n", "line 5 has 4 fields: expected 3, one a column; put quotes around a field with ','"),
    ("image_id,lesion_id\n", "names none of the 3 pictures"),
    ("image_id,lesion_id\nb,L1\n", "names none of the 3 pictures"),
]


@pytest.mark.parametrize(("text", "expected"), BAD_TABLES)
def test_a_table_that_cannot_be_used_is_one_line(tmp_path: Path, text: str | bytes, expected: str) -> None:
    files(tmp_path, *(f"nevus/{name}.png" for name in FOUND))
    path = table(tmp_path / "metadata.csv", text)
    message = refused(read_listing, tmp_path)
    assert str(path) in message and expected in message and len(message) < 700
    assert refused(read_listing, tmp_path, metadata=path) == message


@given(st.one_of(st.text(st.sampled_from('image_id,lesion_id;\t"\n\r\0a\ufeff'), max_size=40), st.binary(max_size=40)), st.booleans())
@example('""_\t', False)
@settings(deadline=None, max_examples=150)
def test_whatever_a_table_holds_it_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str | bytes, headed: bool) -> None:
    root = files(tmp_path_factory.getbasetemp() / "fuzz", "nevus/a.png")
    content = text.encode() if isinstance(text, str) else text
    for head in (b"image_id,lesion_id\n", b"image;MEL;NV;BCC;AK\n", b"image_id,dx\n", b"isic_id,diagnosis\n", b"path,class\n"):
        path = table(root / "metadata.csv", head + content if headed else content)
        try:
            assert {e.path for e in read_listing(root).entries} == {"nevus/a.png"}
        except BadInput as error:
            assert str(error).isprintable()
        try:
            read_listing(path)
        except BadInput as error:
            assert str(error).isprintable()


def test_a_table_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    files(tmp_path, "nevus/a.png")
    for path in (tmp_path / "nothing.csv", tmp_path / "nevus", tmp_path / "a\0b"):
        assert "cannot be read as CSV: " in refused(read_listing, tmp_path, metadata=path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    files(tmp_path, "nevus/a.png")
    os.mkfifo(tmp_path / "pipe.csv")
    os.mkfifo(tmp_path / "metadata.csv")
    os.mkfifo(tmp_path / "nevus" / "b.png")
    assert set(labels(read_listing(tmp_path))) == {"nevus/a.png", "nevus/b.png"}
    assert "is no ordinary file" in refused(read_listing, tmp_path, metadata=tmp_path / "pipe.csv")
    assert "is no ordinary file" in refused(read_listing, tmp_path / "pipe.csv")


def test_the_metadata_of_a_folder_is_used_unless_other_is_given(tmp_path: Path) -> None:
    files(tmp_path, "nevus/ISIC_1.jpg")
    assert find_metadata(tmp_path) is None and find_metadata(tmp_path / "nothing") is None
    path = table(tmp_path / "metadata.csv", TABLE)
    assert find_metadata(str(tmp_path)) == path
    other = table(tmp_path / "other" / "mine.csv", "image_id,lesion_id\nISIC_1,L9\n")
    assert entry(read_listing(tmp_path), "nevus/ISIC_1.jpg").lesion == "L1"
    listing = read_listing(tmp_path, metadata=other)
    assert entry(listing, "nevus/ISIC_1.jpg").lesion == "L9" and listing.tables == (other,)


# --- ISIC Archive

ARCHIVE = (  # as isic-cli writes it: three fields, then the sorted union of what the pictures have
    "isic_id,attribution,copyright_license,age_approx,anatom_site_general,diagnosis_1,diagnosis_2,diagnosis_3,diagnosis_4,diagnosis_5,"
    "diagnosis_confirm_type,image_manipulation,image_type,lesion_id,melanocytic,patient_id,sex\n"
)


def archive(root: Path, *rows: tuple[str, str, str], licence: str = "CC-BY", suffix: str = ".jpg") -> Path:
    """Make a download with one picture for each (id, diagnosis with its levels, image type)."""
    lines = []
    for name, diagnosis, kind in rows:
        files(root, f"{name}{suffix}")
        levels = [*diagnosis.split(":"), "", "", "", "", ""][:5]
        row = [name, "Hospital Italiano de Buenos Aires", licence, "35", "anterior torso", *levels, "histopathology", "", kind, f"IL_{name}", "True", "IP_1", "female"]
        lines.append(",".join(f'"{field}"' if "," in field else field for field in row) + "\r\n")
    table(root / "metadata.csv", ARCHIVE.replace("\n", "\r\n") + "".join(lines))
    files(root, "attribution.txt", "licenses/CC-BY.txt")
    return root


BENIGN, MALIGNANT = "Benign:Benign melanocytic proliferations:", "Malignant:Malignant melanocytic proliferations (Melanoma)"


@pytest.mark.parametrize(
    ("diagnosis", "label"),
    [
        (BENIGN + "Nevus", "nevus"),
        (BENIGN + "Nevus:Blue nevus:Blue nevus, Cellular", "nevus"),
        (BENIGN + "Nevus:Nevus, Atypical, Dysplastic, or Clark:Nevus, Clark", "nevus"),
        (MALIGNANT, "melanoma"),
        (MALIGNANT + ":Melanoma in situ:Melanoma in situ, Lentigo maligna type", "melanoma"),
        (MALIGNANT + ":Melanoma, NOS", "melanoma"),
        (MALIGNANT + ":Melanoma NOS", "melanoma"),
        (MALIGNANT + ":Melanoma Invasive:Melanoma Invasive, Associated with a nevus", "melanoma"),
        ("Malignant:Malignant adnexal epithelial proliferations - Follicular:Basal cell carcinoma:Basal cell carcinoma, Nodular", "basal cell carcinoma"),
        ("Malignant:Malignant epidermal proliferations:Squamous cell carcinoma in situ:Squamous cell carcinoma in situ, Bowens disease", "squamous cell carcinoma"),
        ("Malignant:Malignant epidermal proliferations:Squamous cell carcinoma, Invasive", "squamous cell carcinoma"),
        (DESCRIPTOR + ":Actinic keratosis, Bowenoid", "actinic keratosis"),
        ("Benign:Benign epidermal proliferations:Seborrheic keratosis:Seborrheic keratosis, Clonal", "seborrheic keratosis"),
        ("Benign:Benign epidermal proliferations:Pigmented benign keratosis", "pigmented benign keratosis"),
        ("Benign:Benign soft tissue proliferations - Fibro-histiocytic:Dermatofibroma:Dermatofibroma, Cellular", "dermatofibroma"),
        ("Benign:Benign soft tissue proliferations - Vascular", "vascular lesion"),
        ("Benign:Benign soft tissue proliferations - Vascular:Hemangioma:Hemangioma, Cherry", "vascular lesion"),
        ("Benign:Hemorrhagic lesions:Hemorrhage", "vascular lesion"),
        # None of the nine, though a word of it is one of theirs:
        (MALIGNANT + ":Melanoma metastasis", ""),
        ("Benign:Benign epidermal proliferations:Epidermal nevus", ""),
        ("Benign:Benign adnexal epithelial proliferations - Sebaceous:Nevus sebaceus", ""),
        (BENIGN + "Dermal melanocytosis:Nevus of Ota", ""),
        (BENIGN.rstrip(":"), ""),
        ("Benign:Benign epidermal proliferations:Solar lentigo", ""),
        ("Benign:Benign epidermal proliferations:Lichen planus like keratosis", ""),
        ("Malignant:Malignant adnexal epithelial proliferations - Follicular:Baso-squamous carcinoma", ""),
        ("Indeterminate:Indeterminate melanocytic proliferations:Atypical Spitz tumor", ""),
        ("Benign:Hemorrhagic lesions:Hemorrhage:Subungual hemorrhage", ""),
        ("Malignant:Malignant soft tissue proliferations - Vascular:Kaposi sarcoma", ""),
        ("Malignant", ""),
        ("", ""),
        ("Benign:Something new", ""),
    ],
)
def test_the_diagnoses_of_the_archive(tmp_path: Path, diagnosis: str, label: str) -> None:
    archive(tmp_path, ("ISIC_0000001", diagnosis, "dermoscopic"), ("ISIC_0000002", BENIGN + "Nevus", "dermoscopic"))
    listing = read_listing(tmp_path)
    assert listing.source == "ISIC Archive"
    if label:
        found = entry(listing, "ISIC_0000001.jpg")
        assert (found.label, found.reference, found.lesion, found.patient, found.licence) == (label, diagnosis, "IL_ISIC_0000001", "IP_1", "CC-BY")
        assert found.attribution == "Hospital Italiano de Buenos Aires" and label in classes_of(found.reference)
    else:
        assert list(labels(listing)) == ["ISIC_0000002.jpg"] and listing.unmapped == {diagnosis or "no diagnosis": 1}
        assert classes_of(diagnosis) == ()
    assert listing.other_files == {".txt": 2} and not (listing.outside or listing.without_picture)


def test_pictures_that_are_not_dermoscopic_are_left_out_and_counted(tmp_path: Path) -> None:
    nevus = BENIGN + "Nevus"
    rows = [("a", nevus, "dermoscopic"), ("b", nevus, "clinical: close-up"), ("c", nevus, "TBP tile: close-up"), ("d", nevus, "TBP tile: close-up"), ("e", nevus, "")]
    listing = read_listing(archive(tmp_path, *rows, suffix=".JPG"))
    assert set(labels(listing)) == {"a.JPG", "e.JPG"} and not listing.unmapped
    assert listing.notes == ("left out, not dermoscopic: TBP tile: close-up 2, clinical: close-up 1",)


def test_an_older_download_and_one_with_both_vocabularies(tmp_path: Path) -> None:
    files(tmp_path / "old", *(f"images/{name}.jpg" for name in "abcd"), *(f"images/{name}.json" for name in "abcd"))
    text = "isic_id,attribution,copyright_license,benign_malignant,diagnosis,diagnosis_confirm_type,lesion_id\na,X,CC-0,malignant,melanoma,histopathology,IL_1\nb,X,CC-0,benign,angioma,,\nc,X,CC-0,benign,AIMP,,\nd,X,CC-0,benign,,,\n"
    table(tmp_path / "old" / "metadata.csv", text)
    listing = read_listing(tmp_path / "old")
    assert labels(listing) == {"images/a.jpg": "melanoma", "images/b.jpg": "vascular lesion"}
    assert listing.unmapped == {"AIMP": 1, "no diagnosis": 1} and listing.other_files == {".json": 4}
    files(tmp_path / "both", "a.jpg", "b.jpg", "c.jpg")
    text = "isic_id,attribution,copyright_license,diagnosis,diagnosis_1,diagnosis_2,diagnosis_3\na,X,CC-BY,lichenoid keratosis,Benign,Benign epidermal proliferations,Lichen planus like keratosis\nb,X,CC-BY,nevus,Benign,,\nc,X,CC-BY,other,Malignant,Malignant adnexal epithelial proliferations - Follicular,Basal cell carcinoma\n"
    table(tmp_path / "both" / "metadata.csv", text)
    assert labels(read_listing(tmp_path / "both")) == {"b.jpg": "nevus", "c.jpg": "basal cell carcinoma"}


def test_pictures_that_people_sorted_keep_their_folders(tmp_path: Path) -> None:
    """The same table stands beside pictures as they came, and beside pictures that were sorted since."""
    archive(tmp_path, ("a", BENIGN + "Nevus", "dermoscopic"), ("b", MALIGNANT, "dermoscopic"))
    for name, folder in (("a", "benign"), ("b", "malignant")):
        (tmp_path / folder).mkdir()
        (tmp_path / f"{name}.jpg").rename(tmp_path / folder / f"{name}.jpg")
    listing = read_listing(tmp_path)
    assert listing.source == "class folders" and labels(listing) == {"benign/a.jpg": "benign", "malignant/b.jpg": "malignant"}
    assert entry(listing, "benign/a.jpg").lesion == "IL_a" and classes_of(entry(listing, "benign/a.jpg").reference) == ("nevus",)
    for folder, other in (("benign", "batch 1"), ("malignant", "batch 2")):
        (tmp_path / folder).rename(tmp_path / other)
    message = refused(read_listing, tmp_path)
    assert "pictures in 2 folders ('batch 1', 'batch 2') that are no diagnoses" in message and "--metadata" in message and "reference_diagnosis" in message
    listing = read_listing(tmp_path, metadata=tmp_path / "metadata.csv")
    assert labels(listing) == {"batch 1/a.jpg": "nevus", "batch 2/b.jpg": "melanoma"}
    assert listing.notes == ("the folders 'batch 1', 'batch 2' are no diagnoses, so classes are the table's",)


def test_several_downloads_side_by_side_are_one_set(tmp_path: Path) -> None:
    archive(tmp_path / "collection 1", ("a", BENIGN + "Nevus", "dermoscopic"))
    archive(tmp_path / "collection 2", ("b", MALIGNANT, "dermoscopic"), ("a", BENIGN + "Nevus", "dermoscopic"))
    listing = read_listing(tmp_path)
    assert labels(listing) == {"collection 1/a.jpg": "nevus", "collection 2/b.jpg": "melanoma"} and len(listing.tables) == 2
    assert any("1 picture has the name of another" in note for note in listing.notes)
    for number, folder in ((1, "nevus"), (2, "malignant")):
        (tmp_path / f"collection {number}").rename(tmp_path / folder)
    listing = read_listing(tmp_path)
    assert labels(listing) == {"nevus/a.jpg": "nevus", "malignant/a.jpg": "malignant", "malignant/b.jpg": "malignant"}
    assert {e.lesion for e in listing.entries} == {"IL_a", "IL_b"}


def test_own_classes_beside_a_table_of_ones_own_stay(tmp_path: Path) -> None:
    files(tmp_path, "harmless/a.jpg", "suspicious/b.jpg")
    table(tmp_path / "metadata.csv", "isic_id,lesion_id,diagnosis\na,L1,nevus\nb,L2,nevus\n")
    listing = read_listing(tmp_path)
    assert labels(listing) == {"harmless/a.jpg": "harmless", "suspicious/b.jpg": "suspicious"} and {e.reference for e in listing.entries} == {"nevus"}


# --- HAM10000

HAM = "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset\n"
HAM_ROWS = "".join(
    f"HAM_{number:07},ISIC_{24306 + number:07},{dx},histo,45.0,male,back,vidir_modern\n"
    for number, dx in enumerate(("nv", "mel", "bkl", "bcc", "akiec", "df", "vasc"))
)
HAM_LABELS = {24306: "nevus", 24307: "melanoma", 24308: "pigmented benign keratosis", 24309: "basal cell carcinoma", 24311: "dermatofibroma", 24312: "vascular lesion"}


@pytest.mark.parametrize("name", ["HAM10000_metadata", "HAM10000_metadata.csv", "HAM10000_metadata.tab", "ham10000_metadata.CSV"])
def test_ham10000(tmp_path: Path, name: str) -> None:
    files(tmp_path, *(f"HAM10000_images_part_{1 + number // 4}/ISIC_{24306 + number:07}.jpg" for number in range(7)))
    files(tmp_path, "HAM10000_segmentations_lesion_tschandl/ISIC_0024306_segmentation.png", "hmnist_8_8_L.csv")
    text = HAM + HAM_ROWS
    table(tmp_path / name, text.replace(",", "\t") if name.endswith("tab") else text)
    listing = read_listing(tmp_path)
    assert listing.source == "HAM10000"
    assert labels(listing) == {f"HAM10000_images_part_{1 + (n - 24306) // 4}/ISIC_{n:07}.jpg": label for n, label in HAM_LABELS.items()}
    assert listing.unmapped == {"akiec": 1} and listing.outside == ("HAM10000_segmentations_lesion_tschandl/ISIC_0024306_segmentation.png",)
    assert listing.other_files == {".csv": 1}
    found = entry(listing, "HAM10000_images_part_1/ISIC_0024308.jpg")
    assert (found.lesion, found.patient, found.reference, found.licence, found.source) == ("HAM_0000002", "", "bkl", "CC-BY-NC", "HAM10000")
    assert "Medical University of Vienna" in found.attribution and "10.1038/sdata.2018.161" in found.attribution


def test_pictures_that_lie_there_twice_are_taken_once(tmp_path: Path) -> None:
    files(tmp_path, *(f"{folder}/ISIC_{24306 + number:07}.jpg" for number in range(2) for folder in ("HAM10000_images_part_1", "ham10000_images_part_1")))
    table(tmp_path / "HAM10000_metadata.csv", HAM + HAM_ROWS)
    listing = read_listing(tmp_path)
    assert set(labels(listing)) == {f"HAM10000_images_part_1/ISIC_{n:07}.jpg" for n in (24306, 24307)} and len(listing.without_picture) == 5
    assert listing.notes == ("2 pictures have the name of another (first: ham10000_images_part_1/ISIC_0024306.jpg): one of each name is taken",)


def test_a_table_of_ham10000_beside_class_folders_says_the_lesions(tmp_path: Path) -> None:
    files(tmp_path / "set", "nv/ISIC_0024306.jpg", "mel/ISIC_0024307.jpg")
    path = table(tmp_path / "HAM10000_metadata", HAM + HAM_ROWS)
    listing = read_listing(tmp_path / "set", metadata=path)
    assert labels(listing) == {"nv/ISIC_0024306.jpg": "nv", "mel/ISIC_0024307.jpg": "mel"} and listing.source == "class folders"
    assert {e.lesion for e in listing.entries} == {"HAM_0000000", "HAM_0000001"} and {e.reference for e in listing.entries} == {"nv", "mel"}


def test_a_table_far_from_the_pictures_is_named(tmp_path: Path) -> None:
    files(tmp_path / "pictures", "ISIC_0024306.jpg")
    path = table(tmp_path / "tables" / "renamed.csv", HAM + HAM_ROWS)
    assert "holds no pictures in class folders" in refused(read_listing, tmp_path / "pictures")
    listing = read_listing(tmp_path / "pictures", metadata=path)
    assert labels(listing) == {"ISIC_0024306.jpg": "nevus"} and listing.tables == (path,)


# --- challenges


def one_hot(header: str, rows: dict[str, str], one: str = "1.0", zero: str = "0.0") -> str:
    codes = header.split(",")[1:]
    return header + "\n" + "".join(",".join([name, *(one if code == wanted else zero for code in codes)]) + "\n" for name, wanted in rows.items())


TRUTH_2018, TRUTH_2019 = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC", "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK"


@pytest.mark.parametrize("beside", ["", "ISIC2018_Task3_Training_GroundTruth/"])
def test_isic_2018_task_3(tmp_path: Path, beside: str) -> None:
    names = {"ISIC_0024306": "NV", "ISIC_0024307": "AKIEC", "ISIC_0024308": "BKL", "ISIC_0024309": "MEL"}
    files(tmp_path, *(f"ISIC2018_Task3_Training_Input/{name}.jpg" for name in names), "ISIC2018_Task3_Training_Input/LICENSE.txt")
    table(tmp_path / beside / "ISIC2018_Task3_Training_GroundTruth.csv", one_hot(TRUTH_2018, names))
    groupings = "image,lesion_id,diagnosis_confirm_type\n" + "".join(f"{name},HAM_{number % 2},histopathology\n" for number, name in enumerate(names))
    table(tmp_path / "ISIC2018_Task3_Training_LesionGroupings.csv", groupings)
    listing = read_listing(tmp_path)
    assert listing.source == "ISIC 2018 Task 3" and len(listing.tables) == 2 and listing.other_files == {".txt": 1}
    assert [(e.label, e.lesion, e.part, e.reference, e.licence) for e in listing.entries] == [
        ("nevus", "HAM_0", "train", "NV", "CC-BY-NC"),
        ("pigmented benign keratosis", "HAM_0", "train", "BKL", "CC-BY-NC"),
        ("melanoma", "HAM_1", "train", "MEL", "CC-BY-NC"),
    ]
    assert listing.unmapped == {"AKIEC": 1}


def test_the_parts_of_a_challenge_are_told_by_the_names_of_its_tables(tmp_path: Path) -> None:
    files(tmp_path, "ISIC2018_Task3_Training_Input/ISIC_0024306.jpg", "ISIC2018_Task3_Validation_Input/ISIC_0034321.jpg", "ISIC2018_Task3_Test_Input/ISIC_0034524.jpg", "ISIC2018_Task3_Test_Input/ISIC_0034525.jpg")
    for part, rows in {"Training": {"ISIC_0024306": "NV"}, "Validation": {"ISIC_0034321": "DF"}, "Test": {"ISIC_0034524": "BCC", "ISIC_0034525": "BKL"}}.items():
        table(tmp_path / f"ISIC2018_Task3_{part}_GroundTruth.csv", one_hot(TRUTH_2018, rows))
    listing = read_listing(tmp_path)
    assert {(e.label, e.part) for e in listing.entries} == {("nevus", "train"), ("dermatofibroma", "validation"), ("basal cell carcinoma", "test")}
    assert listing.unmapped == {"BKL": 1}  # not one of HAM10000's: nobody says which benign keratosis


def test_isic_2019(tmp_path: Path) -> None:
    names = {"ISIC_0000000": "NV", "ISIC_0000002_downsampled": "MEL", "ISIC_0024330": "BKL", "ISIC_0053453": "BKL", "ISIC_0060000": "SCC", "ISIC_0060001": "AK", "ISIC_0060002": "UNK", "ISIC_0060003": "VASC"}
    files(tmp_path, *(f"ISIC_2019_Training_Input/ISIC_2019_Training_Input/{name}.jpg" for name in names if name != "ISIC_0060003"))
    table(tmp_path / "ISIC_2019_Training_GroundTruth.csv", one_hot(TRUTH_2019, names))
    facts = "image,age_approx,anatom_site_general,lesion_id,sex\nISIC_0000000,55.0,anterior torso,,female\nISIC_0000002_downsampled,30.0,,MSK4_0011169,female\nISIC_0060000,,,BCN_0003925,\n"
    table(tmp_path / "ISIC_2019_Training_Metadata.csv", facts)
    listing = read_listing(tmp_path)
    found = {Path(e.path).stem: e for e in listing.entries}
    assert listing.source == "ISIC 2019" and listing.unmapped == {"BKL": 1, "UNK": 1} and listing.without_picture == ("ISIC_0060003",)
    assert {name: e.label for name, e in found.items()} == {
        "ISIC_0000000": "nevus", "ISIC_0000002_downsampled": "melanoma", "ISIC_0024330": "pigmented benign keratosis", "ISIC_0060000": "squamous cell carcinoma", "ISIC_0060001": "actinic keratosis",
    }  # fmt: skip
    assert found["ISIC_0000002_downsampled"].lesion == "MSK4_0011169" and found["ISIC_0000000"].lesion == "" and found["ISIC_0060000"].lesion == "BCN_0003925"
    assert "Vienna" in found["ISIC_0024330"].attribution and "Barcelona" in found["ISIC_0060000"].attribution and {e.licence for e in found.values()} == {"CC-BY-NC"}
    assert {e.part for e in found.values()} == {"train"}


def test_pictures_made_smaller_are_known_by_their_id_as_well(tmp_path: Path) -> None:
    files(tmp_path, "a_downsampled.jpg", "b.jpg")
    path = table(tmp_path / "truth.csv", one_hot(TRUTH_2019, {"a": "NV", "b": "MEL"}))
    listing = read_listing(tmp_path, metadata=path)
    assert labels(listing) == {"a_downsampled.jpg": "nevus", "b.jpg": "melanoma"} and not listing.without_picture


def test_ground_truth_with_weights_and_whole_numbers_is_read(tmp_path: Path) -> None:
    files(tmp_path, "a.jpg", "b.jpg")
    text = one_hot(TRUTH_2019, {"a": "NV", "b": "SCC"}, "1", "").replace("UNK\n", "UNK,score_weight,validation_weight\n").replace(";", ",")
    assert set(labels(read_listing(tmp_path, metadata=table(tmp_path / "t.csv", text))).values()) == {"nevus", "squamous cell carcinoma"}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("a,0,0,0,0,0,0,0,0,0", "a has no diagnoses: expected one 1 among MEL, NV, BCC, AK, BKL, DF, VASC, SCC, UNK"),
        ("a,1,0,0,0,1.0,0,0,0,0", "a has 2 diagnoses"),
        ("a,0.9,0.1,0,0,0,0,0,0,0", "a has other values than 0 and 1"),
        ("a,1,0.1,0,0,0,0,0,0,0", "a has other values than 0 and 1"),
        ("a,yes,0,0,0,0,0,0,0,0", "a has other values than 0 and 1"),
        ("a,nan,1,0,0,0,0,0,0,0", "a has other values than 0 and 1"),
        ("a", "a has no diagnoses"),
        ("a,1,0,0,0,0,0,0,0,0\na,0,1,0,0,0,0,0,0,0", "line 3: a stands twice with different facts"),
        ("b,1,0,0,0,0,0,0,0,0", "names none of the 1 pictures below"),
        ("a,0,0,0,0,0,0,0,0,1", "holds no picture that stands for one of the nine classes (UNK 1)"),
        ("", "names none of the 1 pictures below"),
    ],
)
def test_ground_truth_that_is_none_is_refused(tmp_path: Path, row: str, expected: str) -> None:
    files(tmp_path, "ISIC_2019_Training_Input/a.jpg")
    table(tmp_path / "ISIC_2019_Training_GroundTruth.csv", f"{TRUTH_2019}\n{row}\n")
    assert expected in refused(read_listing, tmp_path)


def test_two_tables_that_disagree_are_refused(tmp_path: Path) -> None:
    files(tmp_path, "ISIC_0024306.jpg")
    table(tmp_path / "HAM10000_metadata.csv", HAM + HAM_ROWS)
    truth = table(tmp_path / "ISIC_2019_Training_GroundTruth.csv", one_hot(TRUTH_2019, {"ISIC_0024306": "MEL"}))
    assert "says otherwise of ISIC_0024306 than a table read before: name the one to use with --metadata" in refused(read_listing, tmp_path)
    assert labels(read_listing(tmp_path, metadata=truth)) == {"ISIC_0024306.jpg": "melanoma"}


# --- what diagnoses mean


def test_the_table_of_diagnoses_is_sound() -> None:
    text = importlib.resources.files("melanoma_edge.data.sources").joinpath("diagnoses.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    seen = Counter((row["source"], name_key(row["diagnosis"].replace(",", ""))) for row in rows)
    assert max(seen.values()) == 1 and len(rows) > 60
    for row in rows:
        other = [name.strip() for name in row["may_be"].split("|") if name.strip()]
        assert None not in row and {*other, *filter(None, [row["class"]])} <= set(CLASSES)
        assert not other or row["note"], f"{row['diagnosis']} has no reason"


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_means_itself(name: str) -> None:
    assert classes_of(name) == classes_of(name.upper()) == classes_of(f" {name.replace(' ', '_')} ") == (name,)


@pytest.mark.parametrize(
    ("diagnosis", "classes"),
    [
        ("benign keratosis", ("pigmented benign keratosis", "seborrheic keratosis")),
        ("BKL", ("pigmented benign keratosis", "seborrheic keratosis")),
        ("akiec", ("actinic keratosis", "squamous cell carcinoma")),
        ("AK", ("actinic keratosis",)),
        ("nv", ("nevus",)),
        ("Melanocytic nevus", ("nevus",)),
        ("Blue nevus", ("nevus",)),
        (DESCRIPTOR, ("actinic keratosis",)),
        (BENIGN + "Nevus:Blue nevus:Blue nevus, Cellular", ("nevus",)),
        ("Benign:Benign epidermal proliferations:Epidermal nevus", ()),
        ("solar lentigo", ()),
        ("melanoma metastasis", ()),
        ("UNK", ()),
        ("", ()),
        ("nevus?", ()),
    ],
)
def test_what_a_reference_can_mean(diagnosis: str, classes: tuple[str, ...]) -> None:
    assert classes_of(diagnosis) == classes


# --- licences


@pytest.mark.parametrize(
    "spellings",
    [
        ("CC-BY-NC", "cc by-nc", "CC BY-NC 4.0", "cc_by_nc", "CC BY-NC 4.0 International", "https://creativecommons.org/licenses/by-nc/4.0/", "Creative Commons Attribution-NonCommercial 4.0 International"),
        ("CC-0", "CC0", "cc0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/", "Creative Commons Zero"),
        ("CC-BY", "CC BY 4.0", "cc-by"),
        ("CC-BY-SA", "CC BY-SA 3.0", "Creative Commons Attribution Share-Alike 3.0"),
        ("Own terms 1", "own-terms 1"),
        ("Own terms 2",),
    ],
)  # fmt: skip
def test_licences_are_known_in_their_spellings(spellings: tuple[str, ...]) -> None:
    assert len({terms(spelling) for spelling in spellings}) == 1
    assert len({terms(name) for name in ("CC-BY-NC", "CC-0", "CC-BY", "CC-BY-SA", "CC-BY-NC-SA", "CC-BY-NC-ND", "Own terms 1", "Own terms 2", "")}) == 9


def licensed(root: Path) -> Path:
    files(root, *(f"nevus/{name}.jpg" for name in "abcde"))
    table(root / "metadata.csv", "image_id,licence\na,CC-0\nb,CC BY 4.0\nc,CC-BY\nd,CC-BY-NC\ne,\n")
    return root


def test_only_pictures_under_the_licences_asked_for_are_kept(tmp_path: Path) -> None:
    listing = read_listing(licensed(tmp_path), licences=["cc0", "CC-BY"])
    assert {e.path: e.licence for e in listing.entries} == {"nevus/a.jpg": "CC-0", "nevus/b.jpg": "CC BY 4.0", "nevus/c.jpg": "CC-BY"}
    assert listing.filtered == {"CC-BY-NC": 1, "not stated": 1} and listing.notes == ()
    assert len(read_listing(tmp_path).entries) == len(read_listing(tmp_path, licences=[" "]).entries) == 5


def test_a_licence_that_no_picture_has_is_noted_and_nothing_left_refused(tmp_path: Path) -> None:
    listing = read_listing(licensed(tmp_path), licences=["CC-0", "CC-BY-SA"])
    assert len(listing.entries) == 1 and listing.notes == ("no picture stands under CC-BY-SA, which was asked for",)
    message = refused(read_listing, tmp_path, licences=["MIT", "CC-BY-SA"])
    assert "stands under MIT, CC-BY-SA: its licences are CC BY 4.0 1, CC-0 1, CC-BY 1, CC-BY-NC 1, not stated 1" in message


# --- the real set


@pytest.mark.skipif(not (ISIC9 / "metadata.csv").is_file(), reason=f"the nine-class ISIC set is not at {ISIC9}")
def test_the_real_nine_class_set() -> None:
    listing = read_listing(ISIC9)
    assert len(listing.entries) == 1931 and {e.label for e in listing.entries} == set(CLASSES)
    assert Counter(e.part for e in listing.entries) == {"train": 1913, "test": 18}
    assert {e.path.split("/")[0] for e in listing.entries} == {"Train", "Test"}
    assert sum(bool(e.lesion) for e in listing.entries) == 1224 and len({e.lesion for e in listing.entries} - {""}) == 865
    assert not listing.notes and not listing.without_picture and not listing.outside
    with open(ISIC9 / "metadata.csv", newline="") as file:
        rows = {row["image_id"]: row for row in csv.DictReader(file)}
    assert all((rows[Path(e.path).stem]["lesion_id"], rows[Path(e.path).stem]["reference_diagnosis"]) == (e.lesion, e.reference) for e in listing.entries)
    assert {len(classes_of(e.reference)) for e in listing.entries if e.reference} == {1, 2}
