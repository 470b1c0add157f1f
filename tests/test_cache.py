"""The cache: what the contract says, decoded once, never stale, whole after any interruption."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import Cli
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from melanoma_edge import recipes
from melanoma_edge.data import cache, image
from melanoma_edge.data.cache import prepare
from melanoma_edge.data.decoding import Facts
from melanoma_edge.data.pictures import Pictures
from melanoma_edge.errors import BadInput, Missing
from melanoma_edge.files import cache_folder

SIZE = 40


def photograph(path: Path, seed: int = 0, size: tuple[int, int] = (90, 70), **keywords: object) -> Path:
    """Write a smooth random picture (width, height) to `path` and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, **keywords)
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Pictures of many kinds: formats, modes, orientations, shapes."""
    folder = tmp_path / "pictures"
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F], exif[0x0110] = "Maker", "Model 1"
    found = [
        photograph(folder / "plain.jpg", 1),
        photograph(folder / "turned.jpg", 2, exif=exif),
        photograph(folder / "lossless.png", 3, (33, 210)),
        photograph(folder / "exactly.png", 4, (SIZE, SIZE)),
        photograph(folder / "tiny.png", 5, (7, 9)),
        photograph(folder / "large.jpg", 6, (900, 1300)),
    ]
    for name, mode in (("grey.png", "L"), ("clear.png", "RGBA"), ("print.jpg", "CMYK"), ("few.png", "P")):
        with Image.open(found[0]) as picture:
            picture.convert(mode).save(folder / name)
        found.append(folder / name)
    return found


def check(prepared: cache.Prepared, files: list[Path], size: int = SIZE) -> None:
    """Hold what was prepared to the input contract, file by file."""
    assert prepared.pixels.shape == (len(files), size, size, 3)
    for file, pixels, facts in zip(files, prepared.pixels[:], prepared.facts):
        assert np.array_equal(pixels, image.load(file, size)), file
        decoded = image.decode(file)
        assert (facts.height, facts.width) == decoded.shape[:2] and facts.bytes == file.stat().st_size


def test_what_is_prepared_is_what_the_contract_says(files: list[Path], tmp_path: Path) -> None:
    for folder in (None, tmp_path / "cache", tmp_path / "cache"):
        check(prepare(files, size=SIZE, cache=folder), files)


def test_what_a_file_holds_is_known(files: list[Path]) -> None:
    facts = {file.name: found for file, found in zip(files, prepare(files).facts)}
    assert (facts["turned.jpg"].orientation, facts["turned.jpg"].camera, facts["turned.jpg"].width) == (6, "Maker Model 1", 70)
    assert {facts[name].mode for name in ("grey.png", "clear.png", "print.jpg", "few.png")} == {"L", "RGBA", "CMYK", "P"}
    assert facts["plain.jpg"].format == "JPEG" and facts["grey.png"].format == "PNG" and facts["plain.jpg"].camera == ""


def test_border_and_corners_are_measured(tmp_path: Path) -> None:
    pixels = np.full((160, 160, 3), (200, 150, 100), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    y, x = np.mgrid[:160, :160] - 79.5
    pixels[np.hypot(x, y) > 85] = 0
    Image.fromarray(pixels).save(tmp_path / "round.png")
    plain, through = prepare([tmp_path / "plain.png", tmp_path / "round.png"]).facts
    assert (plain.border_red, plain.border_green, plain.border_blue, plain.dark_corners) == (200, 150, 100, 0)
    assert through.dark_corners > 0.8 and through.border_red < 150


def test_no_file_is_decoded_twice(files: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    assert prepare(files, size=SIZE, cache=folder).decoded == len(files)
    assert prepare(files, size=SIZE, cache=folder).decoded == 0
    moved = [shutil.move(file, tmp_path / f"moved {file.name}") for file in files]
    assert prepare(moved[::-1], size=SIZE, cache=folder).decoded == 0
    assert prepare(moved, cache=folder).decoded == 0
    assert prepare(moved, size=SIZE + 1, cache=folder).decoded == len(files)
    check(prepare(moved, size=SIZE + 1, cache=folder), moved, SIZE + 1)
    check(prepare(moved, size=SIZE, cache=folder), moved)


def test_a_changed_file_is_decoded_again_even_under_its_old_name_time_and_length(tmp_path: Path) -> None:
    file, folder = tmp_path / "a.bmp", tmp_path / "cache"
    photograph(file, 1)
    before = file.stat()
    check(prepare([file], size=SIZE, cache=folder), [file])
    photograph(file, 2)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    check(prepare([file], size=SIZE, cache=folder), [file])


def test_an_interruption_loses_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "BATCH", 4)
    files = [photograph(tmp_path / "pictures" / f"{number}.png", number) for number in range(30)]

    def interrupt(done: int, total: int) -> None:
        assert total == 30
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(files, size=SIZE, cache=tmp_path / "cache", progress=interrupt)
    again = prepare(files, size=SIZE, cache=tmp_path / "cache")
    assert again.decoded == 10
    check(again, files)


def test_prepare_leaves_nothing_to_decode_for_the_default_recipe_and_for_a_named_one(drawn: Path, cli: Cli, tmp_path: Path) -> None:
    found = sorted(path for path in drawn.rglob("*") if path.suffix in (".jpg", ".png"))
    for options, recipe in (((), recipes.load()), (("--recipe", "demo", "--set", "image_size=48", "--set", "decode=reduced"), recipes.load("demo", ["image_size=48", "decode=reduced"]))):
        said = cli("prepare", drawn, *options, "--cache", tmp_path / "cache", "--json").json
        assert (said["size"], said["decode"], said["pictures"]) == (recipe.image_size, recipe.decode, len(found)) and said["decoded"]
        assert prepare(found, size=recipe.image_size, decode=recipe.decode, cache=tmp_path / "cache").decoded == 0


def test_a_killed_process_leaves_a_cache_that_goes_on(tmp_path: Path) -> None:
    files = [photograph(tmp_path / "pictures" / "nevus" / f"{number}.png", number, (600, 500)) for number in range(300)]
    command = [sys.executable, "-m", "melanoma_edge", "prepare", tmp_path / "pictures", "--size", str(SIZE), "--cache", tmp_path / "cache", "-q"]
    with subprocess.Popen(command) as process:
        while process.poll() is None and not list(tmp_path.glob("cache/*/inputs-*")):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    again = prepare(files, size=SIZE, cache=tmp_path / "cache")
    check(again, files)


@pytest.mark.parametrize("kind", ["inputs", "views"])
@pytest.mark.parametrize("keep", [0, 2.5])
def test_arrays_that_were_cut_short_are_made_again(files: list[Path], tmp_path: Path, kind: str, keep: float) -> None:
    folder = tmp_path / "cache"
    prepare(files, size=SIZE, cache=folder)
    (array,) = folder.glob(f"*/{kind}-*")
    record = array.stat().st_size // len(files)
    os.truncate(array, int(keep * record))
    others = [photograph(tmp_path / f"new {number}.png", 100 + number) for number in range(3)]
    # The new ones take the places of the lost ones; these must not be taken for them.
    check(prepare(others, size=SIZE, cache=folder), others)
    check(prepare(files, size=SIZE, cache=folder), files)
    check(prepare(others + files, size=SIZE, cache=folder), others + files)


def test_a_damaged_cache_is_one_line(files: list[Path], tmp_path: Path) -> None:
    prepare(files, cache=tmp_path / "cache")
    (database,) = tmp_path.glob("cache/*/facts.sqlite")
    database.write_bytes(b"not a database at all" * 500)
    with pytest.raises(BadInput, match="is damaged .*: remove that folder"):
        prepare(files, cache=tmp_path / "cache")


def test_a_cache_that_cannot_be_made_is_one_line(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="cannot be written"):
        prepare(files, cache=tmp_path / "file" / "cache")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_may_not_be_written_is_one_line(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o555)
    with pytest.raises(Missing, match="cannot be written"):
        prepare(files, cache=tmp_path / "cache")


def test_two_processes_share_a_cache(files: list[Path], tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from melanoma_edge.data.cache import prepare\n"
        f"found = prepare([Path(p) for p in sys.argv[2:]], size={SIZE}, cache=Path(sys.argv[1])); print(found.decoded)"
    )
    command = [sys.executable, "-c", program, tmp_path / "cache", *files]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    decoded = [int(process.communicate(timeout=120)[0]) for process in processes]
    assert sorted(decoded) == [0, 0, len(files)]
    check(prepare(files, size=SIZE, cache=tmp_path / "cache"), files)


def test_unreadable_files_are_told_and_leave_no_gap(files: list[Path], tmp_path: Path) -> None:
    content = files[0].read_bytes()
    bad = {
        "cut.jpg": (content[: len(content) // 2], "truncated"),
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"no picture at all", "no picture"),
    }
    for name, (broken, _) in bad.items():
        (tmp_path / name).write_bytes(broken)
    mixed = [files[0], *(tmp_path / name for name in bad), files[1], tmp_path / "missing.jpg"]
    for folder in (tmp_path / "cache",) * 2:
        prepared = prepare(mixed, size=SIZE, cache=folder)
        assert [getattr(found, "fault", "") for found in prepared.facts] == ["", *(fault for _, fault in bad.values()), "", "no access"]
        assert all(str(file) in str(found) for file, found in zip(mixed, prepared.facts) if not isinstance(found, Facts))
        assert prepared.pixels.shape[0] == 2 and np.array_equal(prepared.pixels[1], image.load(files[1], SIZE))
        assert not prepared.views[1:4].any()
    only_bad = prepare(mixed[1:4], size=SIZE)
    assert only_bad.pixels is None and only_bad.decoded == 0


def test_few_pixels_in_flight_only_take_longer(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "PIXELS_IN_FLIGHT", 1)
    check(prepare(files, size=SIZE, workers=8), files)


def test_decoding_many_large_pictures_takes_bounded_memory(tmp_path: Path) -> None:
    """Sixteen threads on pictures of 40 megapixels: without a bound, 16 x 120 MB and more."""
    first = photograph(tmp_path / "0.jpg", 0, (8000, 5000), quality=40)
    files = [first]
    for number in range(1, 24):
        files.append(tmp_path / f"{number}.jpg")
        files[-1].write_bytes(first.read_bytes() + bytes([number]))  # another hash, the same picture
    program = (
        "import sys; from pathlib import Path; from melanoma_edge.data.cache import prepare\n"
        "from melanoma_edge.host import peak_memory_bytes\n"
        "prepare([Path(p) for p in sys.argv[1:]], size=64, workers=16)\n"
        "print(peak_memory_bytes() >> 20)"
    )
    done = subprocess.run([sys.executable, "-c", program, *files], capture_output=True, text=True, timeout=300)
    assert int(done.stdout) < 1700, done


def test_a_reduced_decode_keeps_twice_the_size_and_small_pictures_as_they_are(files: list[Path], tmp_path: Path) -> None:
    large = photograph(tmp_path / "huge.jpg", 9, (1600, 1200), quality=92)
    reduced = prepare([*files, large], size=SIZE, decode="reduced", cache=tmp_path / "cache")
    whole = prepare([*files, large], size=SIZE, cache=tmp_path / "cache")
    for file, one, other in zip([*files, large], reduced.pixels[:], whole.pixels[:]):
        apart = np.abs(one.astype(int) - other)
        if file in (large, files[5]):
            assert apart.any() and apart.mean() < 1.5, "the large JPEGs are the ones that are reduced"
        else:
            assert not apart.any(), file
    assert [found.width for found in reduced.facts] == [found.width for found in whole.facts]
    content = large.read_bytes()
    sides = {at_least: min(image.open_picture(large, content, at_least=at_least).image.size) for at_least in (1200, 600, 80, 1)}
    assert sides == {1200: 1200, 600: 600, 80: 150, 1: 150}


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_pictures_on_disk_index_like_an_array(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    array = np.arange(count * 12, dtype=np.uint8).reshape(count, 2, 2, 3)
    positions = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=12))
    pictures, wanted = Pictures(array, np.array(positions)), array[positions]
    assert len(pictures) == len(wanted) and pictures.shape == wanted.shape
    one = data.draw(st.integers(-len(wanted), len(wanted) - 1))
    some = data.draw(st.lists(st.integers(0, len(wanted) - 1), max_size=5))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(wanted), max_size=len(wanted))))
    part = slice(data.draw(st.integers(0, 5)), data.draw(st.integers(0, 12)))
    for chosen in (one, part, np.array(some, int), mask):
        assert np.array_equal(pictures[chosen], wanted[chosen])
    assert np.array_equal(pictures.view(mask)[:], wanted[mask])
    found = pictures[:]
    found[:] = 0
    assert np.array_equal(pictures[:], wanted), "what is handed out is a copy"


def test_the_folder_is_where_it_is_asked_to_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MELANOMA_EDGE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "melanoma-edge"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "melanoma-edge"
    monkeypatch.setenv("MELANOMA_EDGE_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


def test_the_facts_are_in_an_ordinary_database(files: list[Path], tmp_path: Path) -> None:
    prepare(files, size=SIZE, cache=tmp_path / "cache")
    (database,) = tmp_path.glob("cache/*/facts.sqlite")
    with sqlite3.connect(database) as connection:
        assert connection.execute("select count(*) from facts").fetchone() == (len(files),)
        assert {row[0] for row in connection.execute("select format from facts")} == {"JPEG", "PNG"}


def test_a_picture_with_strange_bytes_in_its_tags_is_one_line(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Ma\nker\x00\x07"
    buffer = io.BytesIO()
    Image.new("RGB", (30, 30), "tan").save(buffer, "JPEG", exif=exif)
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    (facts,) = prepare([tmp_path / "a.jpg"]).facts
    assert facts.camera.startswith("Ma ker") and "\n" not in facts.camera
