"""The index table: what is written is read back, and what leads out of its folder is refused. And `import`, which writes it."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import pytest
from conftest import Cli
from hypothesis import example, given, settings
from hypothesis import strategies as st

from melanoma_edge.data.listing import COLUMNS, Entry, Listing
from melanoma_edge.data.sources import read_listing
from melanoma_edge.data.table import summary, write_index
from melanoma_edge.errors import BadInput, Missing


def files(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def index(folder: Path, text: str | bytes, name: str = "index.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refused(function, *arguments: object, **keywords: object) -> str:
    with pytest.raises(BadInput) as caught:
        function(*arguments, **keywords)
    assert str(caught.value).isprintable()
    return str(caught.value)


# --- there and back

NAME = st.text(st.one_of(st.sampled_from("aé ,;\"'\t\n\r\u2028\ufeff#=-"), st.characters(exclude_categories=["Cs"], exclude_characters="/\0")), min_size=1, max_size=12)
PATH = st.lists(NAME.filter(lambda name: name not in (".", "..") and len(name.encode()) < 200), min_size=1, max_size=3).map("/".join)
TEXT = NAME.filter(lambda text: "\0" not in text).map(str.strip)
CLASS = st.sampled_from(["nevus", "melanoma", "own class", "Ünd, \"so\""])
ENTRIES = st.lists(
    st.builds(Entry, PATH.filter(lambda path: not path.startswith("\\") and path[1:3] not in (":/", ":\\")), CLASS, TEXT, TEXT, st.sampled_from(["", "train", "validation", "test"]), TEXT, TEXT, TEXT, TEXT),
    min_size=1,
    max_size=6,
    unique_by=lambda entry: entry.path,
)  # fmt: skip


@given(ENTRIES, st.booleans())
@example([Entry("\ufeffa.png", "nevus"), Entry('"', "nevus", "\ufeff", "a\rb")], False)
@settings(deadline=None, max_examples=150)
def test_a_table_is_read_back_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, entries: list[Entry], above: bool) -> None:
    """The files are not there while it is made; a second, independent reader sees the same fields."""
    top = tmp_path_factory.mktemp("table")
    root = top / "set" if above else top
    root.mkdir(exist_ok=True)
    made = []
    for entry in entries:
        try:
            files(root, entry.path)
        except OSError:  # a file and a folder of one name
            continue
        made.append(entry)
    path = top / "index.csv"
    write_index(Listing(root, "x", tuple(made)), path)
    prefix = "set/" if above else ""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == list(COLUMNS)
    wanted = sorted(made, key=lambda entry: entry.path.split("/"))
    assert rows[1:] == [[prefix + e.path, e.label, e.lesion, e.patient, e.part, e.reference, e.licence, e.attribution, e.source] for e in wanted]
    listing = read_listing(path)
    assert listing.root == top and not listing.without_picture and not listing.notes
    assert [entry.path.removeprefix(prefix) for entry in listing.entries] == [entry.path for entry in wanted]
    assert [vars(entry) | {"path": ""} for entry in listing.entries] == [vars(entry) | {"path": ""} for entry in wanted]
    before = path.read_bytes()
    write_index(listing, path)
    assert path.read_bytes() == before


def test_the_order_of_a_table_is_stable_and_its_lines_end_in_one_way(tmp_path: Path) -> None:
    entries = [Entry("b/a.png", "nevus"), Entry("b c/a.png", "nevus"), Entry("a/z.png", "own, class", part="train")]
    for number, order in enumerate((entries, entries[::-1])):
        write_index(Listing(tmp_path, "x", tuple(order)), tmp_path / f"{number}.csv")
    text = (tmp_path / "0.csv").read_bytes()
    assert text == (tmp_path / "1.csv").read_bytes() == b'path,class,lesion,patient,part,reference,licence,attribution,source\na/z.png,"own, class",,,train,,,,\nb/a.png,nevus,,,,,,,\nb c/a.png,nevus,,,,,,,\n'  # fmt: skip


def test_a_table_stands_in_the_folder_or_above_it(tmp_path: Path) -> None:
    listing = read_listing(files(tmp_path / "data" / "set", "nevus/a.png"))
    (tmp_path / "other").mkdir()
    for path in (tmp_path / "other" / "index.csv", tmp_path / "data" / "set" / "nevus" / "index.csv"):
        assert "so its paths would lead out of its folder: write it there" in refused(write_index, listing, path)
        assert not path.exists()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    for path in (tmp_path / "index.csv", tmp_path / "link" / "index.csv", tmp_path / "data" / "set" / "index.csv"):
        write_index(listing, path)
        assert len(read_listing(path).entries) == 1
    with pytest.raises((BadInput, Missing)):
        write_index(listing, tmp_path / "data")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has file names that are no text")
def test_a_name_that_is_no_text_cannot_stand_in_a_table(tmp_path: Path) -> None:
    (tmp_path / "nevus").mkdir()
    open(os.path.join(os.fsencode(tmp_path), b"nevus/caf\xe9.png"), "wb").close()
    assert "a name that is not UTF-8: rename it" in refused(write_index, read_listing(tmp_path), tmp_path / "index.csv")
    assert not (tmp_path / "index.csv").exists()


# --- tables of people


@pytest.mark.parametrize("text", ["path,class\na.png,Nevus\nb/c.png,MELANOMA\n", "\ufeffClass;Path\r\nnevus;./a.png\r\nmelanoma;b//c.png\r\n;\r\n", "path\tclass\tage\na.png\tnevus\t3\nb/./c.png\tmelanoma\t\n"])
def test_a_path_and_a_class_are_enough(tmp_path: Path, text: str) -> None:
    files(tmp_path, "a.png", "b/c.png", "not in the table.png")
    listing = read_listing(index(tmp_path, text))
    assert listing.entries == (Entry("a.png", "nevus"), Entry("b/c.png", "melanoma")) and listing.outside == ()
    assert listing.source == "index table" and listing.tables == (tmp_path / "index.csv",)
    assert listing.notes == (("columns that are not used: age",) if "age" in text else ())


def test_spellings_and_parts_are_made_one(tmp_path: Path) -> None:
    files(tmp_path, *(f"{number}.png" for number in range(4)))
    text = "path,class,part\n0.png,my class,Train\n1.png,My_Class,val\n2.png,my-class,VALIDATION\n3.png,my class,\n"
    assert [(e.label, e.part) for e in read_listing(index(tmp_path, text)).entries] == [("my class", part) for part in ("train", "validation", "validation", "")]


def test_rows_without_a_file_are_counted(tmp_path: Path) -> None:
    files(tmp_path, "a.png")
    listing = read_listing(index(tmp_path, "path,class\nz.png,nevus\na.png,nevus\na.png,nevus\nx.png,melanoma\n"))
    assert [e.path for e in listing.entries] == ["a.png"] and listing.without_picture == ("x.png", "z.png")
    (tmp_path / "a.png").unlink()
    assert "names no file that is there (first: z.png): its paths are relative to its own folder" in refused(read_listing, tmp_path / "index.csv")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "has the columns (none): expected an index table with path and class"),
        ("path,label\na.png,nevus\n", "has the columns path, label: expected an index table with path and class"),
        ("image_id,lesion_id\na,b\n", "expected an index table with path and class; a table of another kind is named with --metadata"),
        ("path,class\n", "has no row"),
        ("path,class\n\n,\n", "has no row"),
        ("path,class\n/etc/a.png,nevus\n", "line 2: the path /etc/a.png is absolute"),
        ("path,class\n\\\\server\\a.png,nevus\n", "is absolute"),
        ("path,class\nC:\\a.png,nevus\n", "is absolute"),
        ("path,class\nc:/a.png,nevus\n", "is absolute"),
        ("path,class\na.png,nevus\n../a.png,nevus\n", "line 3: the path ../a.png leads out of the table's folder: expected one without '..'"),
        ("path,class\nb/../../a.png,nevus\n", "leads out"),
        ("path,class\nb/..,nevus\n", "leads out"),
        ("path,class\n.,nevus\n", "there is no path"),
        ("path,class\n,nevus\n", "line 2: there is no path"),
        ("path,class\na.png,\n", "line 2: the class '' has 0 characters"),
        ("path,class\na.png, _ \n", "line 2: the class '_' has 1 characters: expected a name of 1 to 200, with letters"),
        ("path,class\na.png," + "n" * 201 + "\n", "has 201 characters: expected a name of 1 to 200"),
        ("path,class,part\na.png,nevus,coaching\n", "line 2: the part is coaching: expected train, validation, test or nothing"),
        ("path,class\na.png,nevus\n./a.png,melanoma\n", "line 3: a.png stands twice with different facts"),
        ('path,class\n"a.png\n../x",nevus\n', r"names no file that is there (first: a.png\n../x)"),
        ("path,class\na\0.png,nevus\n", "line 2 holds a NUL character"),
        ("path,class\na.png,n\u00e6vus\n".encode("latin-1"), "cannot be read as CSV: 'utf-8' codec"),
        (b"\x89PNG\r\n\x1a\n\0\0", "cannot be read as CSV"),
    ],
)  # fmt: skip
def test_a_table_that_is_none_is_one_line(tmp_path: Path, text: str | bytes, expected: str) -> None:
    files(tmp_path, "a.png", "b/x")
    path = index(tmp_path, text)
    message = refused(read_listing, path)
    assert str(path) in message and expected in message and len(message) < 600


def test_an_index_table_is_no_metadata_and_needs_none(tmp_path: Path) -> None:
    files(tmp_path, "nevus/a.png")
    path = index(tmp_path, "path,class\nnevus/a.png,nevus\n")
    assert "is an index table: give it as DATA instead of the folder" in refused(read_listing, tmp_path, metadata=path)
    assert "leave --metadata out" in refused(read_listing, path, metadata=path)


def test_a_table_can_be_cut_to_licences(tmp_path: Path) -> None:
    files(tmp_path, "a.png", "b.png")
    path = index(tmp_path, "path,class,licence\na.png,nevus,CC-0\nb.png,nevus,CC-BY-NC\n")
    listing = read_listing(path, licences=["cc0"])
    assert [e.path for e in listing.entries] == ["a.png"] and listing.filtered == {"CC-BY-NC": 1}


def test_the_summary_counts_and_names(tmp_path: Path) -> None:
    entries = tuple(Entry(f"{n}", "nevus" if n else "a\nb", "L1", part="train" if n > 1 else "", licence="CC-0" if n else "") for n in range(4))
    found = summary(Listing(tmp_path, "x", entries, outside=tuple(f"o{n}\n" for n in range(7)), unmapped={"UNK": 2}))
    assert found["classes"] == {"a\\nb": {"pictures": 1, "parts": {"undivided": 1}}, "nevus": {"pictures": 3, "parts": {"train": 2, "undivided": 1}}}
    assert found["parts"] == {"train": 2, "undivided": 2} and found["licences"] == {"CC-0": 3, "not stated": 1}
    assert (found["pictures"], found["lesions"], found["with_lesion"], found["patients"], found["with_patient"]) == (4, 1, 4, 0, 0)
    assert found["outside"] == {"count": 7, "first": [f"o{n}\\n" for n in range(5)]} and found["unmapped"] == {"UNK": 2}


# --- the command


def ham10000(root: Path) -> Path:
    files(root, *(f"HAM10000_images_part_1/ISIC_{number:07}.jpg" for number in range(24306, 24309)), "stray.jpg", "readme.pdf")
    rows = "".join(f"HAM_{number},ISIC_{number:07},{dx},histo,45.0,male,back,vidir_modern\n" for number, dx in ((24306, "nv"), (24307, "akiec"), (24308, "mel"), (24309, "nv")))
    index(root, "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset\n" + rows, "HAM10000_metadata")
    return root


def test_import_says_what_is_there_and_writes_the_table(cli: Cli, tmp_path: Path) -> None:
    root = ham10000(tmp_path / "HAM [1]")
    done = cli("import", root, "--out", root / "index.csv")
    assert "HAM10000: 2 pictures in" in done.out
    for line in ("lesion ids: 2 of 2 pictures, 2 different", "patient ids: not known", "licences: CC-BY-NC 2", "left out, none of the nine classes: akiec 1", "left out, no class: 1 (stray.jpg)", "in a table, without a picture: 1 (ISIC_0024309)", "other files: .pdf 1", f"written: {root / 'index.csv'}"):  # fmt: skip
        assert line in done.out
    assert read_listing(root / "index.csv").entries == read_listing(root).entries
    again = cli("import", root / "index.csv", "--json")
    facts = again.json
    assert facts["kind"] == "index table" and facts["classes"] == {name: {"pictures": 1, "parts": {"undivided": 1}} for name in ("melanoma", "nevus")}
    assert facts["out"] is None


def test_import_replaces_a_table_only_when_forced(cli: Cli, tmp_path: Path) -> None:
    root = ham10000(tmp_path)
    out = index(root, "mine")
    done = cli("import", root, "--out", out, code=2)
    assert "exists already" in done.err and out.read_text() == "mine"
    done = cli("import", root, "--out", out, "--force", "--licences", "cc-by-nc", "--json")
    assert done.json["out"] == str(out) and out.read_text().startswith("path,class,")


@pytest.mark.parametrize("option", ["--licences", "--licenses"])
def test_import_takes_licences_and_refuses_when_nothing_is_left(cli: Cli, tmp_path: Path, option: str) -> None:
    done = cli("import", ham10000(tmp_path), option, "CC-0, CC-BY", "--out", tmp_path / "index.csv", code=2)
    assert "stands under CC-0, CC-BY: its licences are CC-BY-NC 2" in done.err
    assert not (tmp_path / "index.csv").exists() and done.out == ""


def test_import_names_the_table_to_read(cli: Cli, tmp_path: Path) -> None:
    root = files(tmp_path / "data", "Train/Nevus/a.jpg", "Train/nevus/b.jpg", "Test/melanoma/c.jpg")
    path = index(tmp_path, "image_id,lesion_id,patient_id\na,L1,P1\nb,L1,P1\n", "mine.csv")
    done = cli("import", root, "--metadata", path, "--json")
    facts = done.json
    assert (facts["kind"], facts["lesions"], facts["with_patient"], facts["parts"]) == ("class folders", 1, 2, {"train": 2, "test": 1})
    assert facts["notes"] == ["the folders 'Nevus' and 'nevus' of Train are one class: nevus"]
    assert "note: the folders 'Nevus' and 'nevus' of Train are one class: nevus" in cli("import", root).out
