"""The reference bundle: made by one command, looked over, carried by the wheel and used by its name."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import Cli, read_json, snapshot, validate
from tiny_run import write_bundle_of, write_run

from melanoma_edge.convert import reference
from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.data.samples import draw
from melanoma_edge.errors import BadInput, Error, ProofFailed

REPOSITORY = Path(__file__).parents[1]
SCRIPT = REPOSITORY / "samples" / "make_reference.py"


@pytest.fixture(scope="module")
def script():
    """The program as a module."""
    spec = importlib.util.spec_from_file_location("make_reference", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Made by one command.


@pytest.mark.slow
def test_the_program_makes_it_all_and_goes_on_where_it_was(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--quick", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    bundle = tmp_path / "reference.bundle"
    manifest = open_bundle(bundle).manifest
    validate(read_json(bundle / "manifest.json"), "manifest")
    assert manifest.name == "reference" and manifest.recipe.folds == 1 and manifest.licence == "CC BY-NC 4.0" and "LICENCE.txt" in manifest.files
    assert json.loads(manifest.cross_validation.model_dump_json()) == read_json(tmp_path / "reference_cross_validation.json")
    assert [file.name for file in (bundle / "evidence").iterdir()] == ["parity.json"]
    assert str(tmp_path) not in (bundle / "evidence" / "parity.json").read_text(encoding="utf-8"), "no place of one machine goes with it"
    before = snapshot(tmp_path / "runs")
    again = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=3600)
    assert again.returncode == 0 and "$ melanoma-edge train" not in again.stdout and snapshot(tmp_path / "runs") == before
    assert "fold-0.bundle is there already and is kept" in again.stderr


@pytest.fixture
def shipped(quoted: dict, tmp_path: Path) -> Path:
    """A bundle as it would be shipped."""
    folder = shutil.copytree(quoted["bundle"], tmp_path / "shipped.bundle")
    for file in (folder / "evidence").iterdir():
        if file.name != "parity.json":
            file.unlink()
    return folder


def test_what_may_be_shipped_is_looked_over(script, shipped: Path) -> None:
    script.look_over(shipped)


def with_report(bundle: Path, script) -> None:
    (bundle / "evidence" / "report.html").write_text("<html>", encoding="utf-8")


def with_a_photograph(bundle: Path, script) -> None:
    from PIL import Image

    Image.fromarray(draw("nevus", 40, (9, 9))).save(bundle / "golden" / "00.png")
    resealed(bundle, "golden/00.png")


def with_a_failed_gate(bundle: Path, script) -> None:
    parity = read_json(bundle / "evidence" / "parity.json")
    parity["gates"][1] |= {"outcome": "failed", "reason": "it computes something else"}
    (bundle / "evidence" / "parity.json").write_text(json.dumps(parity), encoding="utf-8")


def with_a_gate_without_reason(bundle: Path, script) -> None:
    parity = read_json(bundle / "evidence" / "parity.json")
    parity["gates"][1] |= {"outcome": "not run", "reason": None}
    (bundle / "evidence" / "parity.json").write_text(json.dumps(parity), encoding="utf-8")


def too_large(bundle: Path, script) -> None:
    (bundle / "labels.txt").write_bytes(b"melanoma\n" * 700_000)
    resealed(bundle, "labels.txt")


def without_figures(bundle: Path, script) -> None:
    manifest = read_json(bundle / "manifest.json")
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"cross_validation": None}), encoding="utf-8")


def without_names(bundle: Path, script) -> None:
    manifest = read_json(bundle / "manifest.json")
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"attributions": []}), encoding="utf-8")


def resealed(bundle: Path, name: str) -> None:
    """Seal the bundle anew after a file was changed."""
    manifest = read_json(bundle / "manifest.json")
    manifest["files"][name] = snapshot(bundle)[name]
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "kind", "found"),
    [
        (with_report, BadInput, "evidence/report.html would go with the bundle"),
        (with_a_photograph, BadInput, "00.png is not one of the pictures that are drawn for every bundle"),
        (with_a_failed_gate, ProofFailed, "it computes something else"),
        (with_a_gate_without_reason, ProofFailed, "which is no reason"),
        (too_large, BadInput, "expected at most 6,000,000"),
        (without_names, BadInput, "names nobody whose pictures it learnt from"),
        (without_figures, BadInput, "is not of a run of all pictures that quotes its cross-validation"),
    ],
)
def test_what_may_not_be_shipped_is_refused(script, shipped: Path, change, kind: type[Error], found: str) -> None:
    change(shipped, script)
    with pytest.raises(kind, match=found):
        script.look_over(shipped)


def test_a_run_of_another_recipe_is_not_gone_on_with(script, whole: dict, tmp_path: Path) -> None:
    from melanoma_edge import recipes

    shutil.copytree(whole["run"], tmp_path / "runs" / "reference")
    with pytest.raises(BadInput, match="was begun with another recipe than the default one is now"):
        script.train(tmp_path, whole["data"], Path("runs/reference"), recipes.load(), [])


# Installed with the package and used by its name.


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the wheel is made of, with a stand-in for the reference bundle."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder)
    for name in ("melanoma_edge", "export", "samples"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "reference.bundle"))
    write_bundle_of(write_run(tmp_path_factory.mktemp("stand-in") / "run"), folder / "samples" / "reference.bundle")
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel of that copy was unpacked into, as installing does."""
    pytest.importorskip("setuptools")
    pytest.importorskip("wheel")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-cache-dir", "-w", str(folder), str(checkout)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    [packed] = folder.glob("*.whl")
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_carries_every_file_of_it(checkout: Path, wheel: Path) -> None:
    assert snapshot(wheel / "melanoma_edge" / "samples" / "reference.bundle") == snapshot(checkout / "samples" / "reference.bundle")


@pytest.mark.parametrize("installation", ["wheel", "checkout"])
def test_commands_that_read_take_its_name(cli: Cli, request: pytest.FixtureRequest, tmp_path: Path, drawn: Path, installation: str) -> None:
    env = {"PYTHONPATH": str(request.getfixturevalue(installation))}
    picture = next((drawn / "melanoma").iterdir())
    said = cli("predict", "reference", picture, "--json", env=env, cwd=tmp_path).json
    assert said["model"] == "tiny-int8.tflite" and set(said["results"][0]["probabilities"]) == {"melanoma", "nevus", "vascular lesion"}
    copied = cli("samples", tmp_path / "mine.bundle", "--reference", "--json", env=env, cwd=tmp_path).json
    assert copied == {"bundle": str(tmp_path / "mine.bundle")} and open_bundle(tmp_path / "mine.bundle").manifest.name == "tiny"
    assert cli("diff", "reference", tmp_path / "mine.bundle", "--json", env=env, cwd=tmp_path).json["files"] == {"added": [], "removed": [], "changed": []}
    assert cli("doctor", "--json", env=env, cwd=tmp_path).json["reference"].endswith("samples/reference.bundle")
    for command in (["verify"], ["bench", "--quick"], ["report"], ["verify", "--layers"]):
        done = cli(*command, "reference", "-q", env=env, cwd=tmp_path, code=2)
        assert "copy it with `melanoma-edge samples my.bundle --reference`, and name my.bundle" in done.err and done.err.count("\n") == 1
    cli("report", "reference", "--out", tmp_path / "page.html", "-q", env=env, cwd=tmp_path)
    assert (tmp_path / "page.html").is_file() and not (tmp_path / "reference").exists()


def test_a_folder_of_that_name_comes_first(cli: Cli, checkout: Path, drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "reference").mkdir()
    done = cli("predict", "reference", next((drawn / "nevus").iterdir()), env={"PYTHONPATH": str(checkout)}, cwd=tmp_path, code=2)
    assert "reference is neither a run nor a bundle" in done.err


def test_a_damaged_one_is_not_copied(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = shutil.copytree(checkout / "samples" / "reference.bundle", tmp_path / "broken.bundle")
    (broken / "tiny-int8.tflite").write_bytes(b"")
    monkeypatch.setattr(reference, "installed", lambda: broken)
    with pytest.raises(BadInput, match="was altered"):
        reference.copy(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_installation_without_one_says_so(cli: Cli, checkout: Path, drawn: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(checkout, tmp_path / "bare", ignore=shutil.ignore_patterns("reference.bundle"))
    env = {"PYTHONPATH": str(bare)}
    done = cli("predict", "reference", next((drawn / "nevus").iterdir()), env=env, cwd=tmp_path, code=3)
    assert "this installation has no reference bundle: install a released wheel, or make it with `make reference` in a checkout" in done.err and done.err.count("\n") == 1
    assert "has no reference bundle" in cli("samples", tmp_path / "out", "--reference", env=env, cwd=tmp_path, code=3).err and not (tmp_path / "out").exists()
    assert cli("doctor", "--json", env=env, cwd=tmp_path).json["reference"] is None


def test_what_only_drawing_has_is_refused(cli: Cli, tmp_path: Path) -> None:
    assert cli.refused("samples", tmp_path / "x", "--reference", "--size", 90) == "--size is for drawing, and --reference copies the bundle as it is: leave out one of them"
