"""Whole or absent: what stands on the disk after a write that ends, fails or is interrupted."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_edge.errors import BadInput, Error, Missing
from melanoma_edge.files import (
    TEMPORARY_PREFIX,
    new_folder,
    read_json,
    refuse_existing,
    sha256_file,
    to_json,
    write_bytes,
    write_json,
    write_text,
)

REPOSITORY = Path(__file__).parent.parent

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=20,
)


def partials(folder: Path) -> list[str]:
    """Return the temporary names that were left below `folder`."""
    return [path.name for path in folder.rglob(TEMPORARY_PREFIX + "*")]


def one_line(error: BaseException) -> str:
    """Return the message after checking that it is one line that names no temporary file."""
    message = str(error)
    assert len(message.splitlines()) == 1 and TEMPORARY_PREFIX not in message
    return message


def make_folder(target: Path, content: str = "new", *, force: bool = False) -> None:
    with new_folder(target, force=force) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text(content)


def content(target: Path) -> str:
    return (target / "inner" / "file").read_text()


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB of its own."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a tiny tmpfs needs root and the `mount` command")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a tiny tmpfs cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def read_only(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder with the file `old` that this user cannot write to: root needs a read-only mount for that."""
    if os.geteuid() == 0:
        folder = request.getfixturevalue("mounted")
        (folder / "old").write_text("old")
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield folder
    else:
        folder = tmp_path / "read-only"
        folder.mkdir()
        (folder / "old").write_text("old")
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


# --- one file


def test_the_bytes_arrive_and_replace_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for value in (b"\0\xff\r\n", b"", b"x" * 3_000_000):
        write_bytes(path, value)
        assert path.read_bytes() == value and os.listdir(tmp_path) == ["file"]
    write_text(path, "Lésion\n\u2028")
    assert path.read_bytes() == "Lésion\n\u2028".encode()


def test_a_file_has_the_permissions_that_any_new_file_would_have(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "file", b"")
        make_folder(tmp_path / "folder")
        assert os.umask(0o027) == 0o027, "the umask was changed"
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750


def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("theirs")
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    write_text(tmp_path / "link", "ours")
    assert (tmp_path / "theirs").read_text() == "theirs"
    assert (tmp_path / "link").read_text() == "ours" and not (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [1.0, -math.inf]}, {"a": object()}, "\ud800"])
def test_what_json_cannot_say_is_refused_and_the_old_file_stays(tmp_path: Path, value: object) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"old": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(path, value)
    assert read_json(path, "a test") == {"old": 1} and os.listdir(tmp_path) == ["file.json"]


def test_a_failure_in_between_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    with pytest.raises(TypeError):
        write_bytes(tmp_path / "file", ["no", "bytes"])  # fails once the temporary file is there
    assert (tmp_path / "file").read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_a_full_disk_is_missing_space_and_the_old_file_stays(mounted: Path) -> None:
    write_text(mounted / "file", "old")
    with pytest.raises(Missing, match="the disk is full while writing .*file: free some space") as caught:
        write_bytes(mounted / "file", bytes(1_000_000))
    assert caught.value.exit_code == 3 and one_line(caught.value)
    assert (mounted / "file").read_text() == "old" and os.listdir(mounted) == ["file"]


def test_a_folder_that_cannot_be_written_is_named(read_only: Path) -> None:
    with pytest.raises(Missing, match="cannot be written .*: choose a folder that you may write to") as caught:
        write_text(read_only / "old", "new")
    assert str(read_only) in one_line(caught.value) and caught.value.exit_code == 3
    with pytest.raises(Missing, match="cannot be written"):
        make_folder(read_only / "folder")
    assert (read_only / "old").read_text() == "old" and os.listdir(read_only) == ["old"]


@pytest.mark.parametrize("where", ["file/inside", "folder", "no folder/file", "x" * 300])
def test_a_place_where_no_file_can_be_is_bad_input(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInput, match="choose another path") as caught:
        write_text(tmp_path / where, "new")
    assert str(tmp_path) in one_line(caught.value) and caught.value.exit_code == 2
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"] and (tmp_path / "file").read_text() == "old"


# --- a folder


def test_a_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "target"
    with new_folder(target) as folder:
        assert folder.parent == target.parent and not target.exists() and os.listdir(folder) == []
        (folder / "file").write_text("new")
    assert not folder.exists() and os.listdir(target) == ["file"] and os.listdir(target.parent) == ["target"]


def test_what_exists_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    make_folder(tmp_path / "folder", "old")
    for target in (tmp_path / "file", tmp_path / "folder"):
        with pytest.raises(BadInput, match=r"exists already: expected a new path; choose another or give --force") as caught:
            with new_folder(target):
                pytest.fail("the block ran")
        assert str(target) in one_line(caught.value)
        with pytest.raises(BadInput):
            refuse_existing(target)
        refuse_existing(target, force=True)
    assert (tmp_path / "file").read_text() == "old" and content(tmp_path / "folder") == "old"


def test_an_empty_folder_counts_as_new(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    make_folder(tmp_path / "target")
    assert content(tmp_path / "target") == "new" and os.listdir(tmp_path) == ["target"]


def test_force_replaces_at_the_very_end(tmp_path: Path) -> None:
    make_folder(tmp_path / "target", "old")
    (tmp_path / "target" / "only in the old").write_text("")
    with new_folder(tmp_path / "target", force=True) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "file").write_text("new")
        assert content(tmp_path / "target") == "old"
    assert content(tmp_path / "target") == "new" and os.listdir(tmp_path / "target") == ["inner"]
    assert os.listdir(tmp_path) == ["target"]


def test_force_replaces_a_file_and_a_link_but_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    make_folder(tmp_path / "theirs", "theirs")
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    for target in (tmp_path / "file", tmp_path / "link"):
        make_folder(target, force=True)
        assert content(target) == "new" and not target.is_symlink()
    assert content(tmp_path / "theirs") == "theirs" and partials(tmp_path) == []


class Failure(Exception):
    pass


@pytest.mark.parametrize("failure", [Failure, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("force", [False, True])
def test_a_block_that_fails_leaves_nothing_and_keeps_the_old(tmp_path: Path, failure: type[BaseException], force: bool) -> None:
    target = tmp_path / "target"
    if force:
        make_folder(target, "old")
    with pytest.raises(failure):
        with new_folder(target, force=force) as folder:
            (folder / "half").write_text("half")
            raise failure
    assert os.listdir(tmp_path) == (["target"] if force else [])
    assert not force or (content(target) == "old" and os.listdir(target) == ["inner"])


def test_a_file_that_the_block_cannot_read_is_not_blamed_on_the_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, new_folder(tmp_path / "made"):
        (tmp_path / "no such picture").read_bytes()
    assert caught.value.filename == str(tmp_path / "no such picture") and list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_leaves_nothing_and_keeps_the_old(mounted: Path) -> None:
    make_folder(mounted / "target", "old")
    with pytest.raises(Missing, match="the disk is full while writing .*target") as caught:
        with new_folder(mounted / "target", force=True) as folder:
            (folder / "first").write_bytes(bytes(20_000))
            (folder / "second").write_bytes(bytes(1_000_000))
    assert one_line(caught.value) and os.listdir(mounted) == ["target"] and content(mounted / "target") == "old"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_appears_meanwhile_is_not_replaced_unasked(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    with pytest.raises(BadInput, match="exists already"):
        with new_folder(target) as folder:
            (folder / "file").write_text("new")
            if kind == "folder":
                make_folder(target, "someone else's")
            else:
                target.write_text("someone else's")
    assert (content(target) if kind == "folder" else target.read_text()) == "someone else's"
    assert os.listdir(tmp_path) == ["target"]


@pytest.mark.parametrize("where", ["file/inside", "x" * 300])
def test_a_place_where_no_folder_can_be_is_bad_input(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(BadInput, match="cannot be written .*: choose another path") as caught:
        make_folder(tmp_path / where)
    assert one_line(caught.value) and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("where", [".", "..", "inside/.."])
@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_in_use_by_its_nature_cannot_be_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, force: bool) -> None:
    (tmp_path / "current" / "inside").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "current")
    with pytest.raises(BadInput, match="choose another path|choose another or give --force") as caught:
        make_folder(Path(where), force=force)
    assert one_line(caught.value)
    assert os.listdir(tmp_path) == ["current"] and os.listdir() == ["inside"] and os.listdir("inside") == []


def test_a_mount_point_cannot_be_the_target(mounted: Path) -> None:
    with pytest.raises(BadInput, match="cannot be written .*: choose another path") as caught:
        make_folder(mounted)
    assert one_line(caught.value) and os.listdir(mounted) == [] and os.listdir(mounted.parent) == ["mounted"]


INTERRUPTED = """
import json, os, shutil, sys
from pathlib import Path
from melanoma_edge.files import new_folder, write_text

root, results, left = Path(sys.argv[1]), {"write_text": [], "new_folder": [], "forced": []}, -1

def interrupt(event, arguments):
    global left
    if left > 0 and (event == "open" or event.startswith(("os.", "tempfile.", "shutil."))):
        left -= 1
        if left == 0:
            raise KeyboardInterrupt(event)

sys.addaudithook(interrupt)

def folder(target, force):
    with new_folder(target, force=force) as made:
        (made / "file").write_text("new")

def state(work):
    target = work / "target"
    found = (target / "file" if target.is_dir() else target)
    return found.read_text() if found.exists() else None

for kind in results:
    for step in range(1, 100):
        work = root / f"{kind}{step}"
        work.mkdir()
        if kind == "write_text":
            (work / "target").write_text("old")
        if kind == "forced":
            folder(work / "target", False)
            (work / "target" / "file").write_text("old")
        event, left = None, step
        try:
            write_text(work / "target", "new") if kind == "write_text" else folder(work / "target", kind == "forced")
        except KeyboardInterrupt as error:
            event = str(error)
        done, left = left > 0, -1
        results[kind].append((event, state(work), sorted(os.listdir(work))))
        if done:
            break
print(json.dumps(results))
"""


def test_an_interrupt_at_any_step_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """Every system call that Python announces (`sys.addaudithook`) is interrupted once."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, str(tmp_path)], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    results = json.loads(done.stdout)
    events = {kind: [event for event, _, _ in steps] for kind, steps in results.items()}
    assert "os.rename" in events["write_text"] and "os.rename" in events["new_folder"] and events["forced"].count("os.rename") == 2
    for kind, steps in results.items():
        assert steps[-1] == [None, "new", ["target"]], "the last round was not interrupted"
        before = None if kind == "new_folder" else "old"
        renamed = False
        for event, state, names in steps[:-1]:
            assert state in (before, "new"), (kind, event)
            assert state == before or renamed, (kind, event)
            # Once the new stands, only the removal of the old can be cut short.
            assert state == "new" or names == ([] if before is None else ["target"]), (kind, event, names)
            renamed = renamed or event == "os.rename"


# --- reading


@given(JSON_VALUES)
@settings(deadline=None, max_examples=60)
def test_json_comes_back_equal_and_in_a_stable_layout(value: object) -> None:
    text = to_json(value)
    assert json.loads(text) == value and text == to_json(json.loads(text))
    assert text.endswith("\n") and not text.endswith("\n\n")


def test_json_keeps_letters_and_order(tmp_path: Path) -> None:
    write_json(tmp_path / "file.json", {"b": "naïve ß", "a": 1})
    assert (tmp_path / "file.json").read_text(encoding="utf-8") == '{\n  "b": "naïve ß",\n  "a": 1\n}\n'


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe{}", b'{"a": "\xe9"}', b"[" * 200_000, b'{"a":' * 100_000, b"9" * 5000, b"\0"], ids=lambda content: repr(content[:8])
)
def test_what_is_not_json_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="file.json cannot be read as a test: .*; make it again") as caught:
        read_json(path, "a test")
    assert one_line(caught.value)


def test_a_missing_file_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="file.json is missing: expected a test; make it again or give another folder") as caught:
        read_json(tmp_path / "file.json", "a test")
    assert one_line(caught.value)
    with pytest.raises(Error, match="cannot be read as a test"):
        read_json(tmp_path, "a test")


@pytest.mark.parametrize("size", [0, 1, 1_000_003])
def test_the_hash_is_that_of_the_bytes(tmp_path: Path, size: int) -> None:
    value = bytes(range(256)) * (size // 256) + bytes(size % 256)
    (tmp_path / "file").write_bytes(value)
    assert sha256_file(tmp_path / "file") == hashlib.sha256(value).hexdigest()
