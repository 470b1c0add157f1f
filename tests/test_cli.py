"""The command line as a whole: help, exit codes, start-up, completion, pipes, and the light commands."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import Cli, snapshot, validate, wait_until
from PIL import Image
from tiny_bundle import write_bundle

from melanoma_edge import NOTICE, __version__, recipes
from melanoma_edge.cli.commands import group

COMMANDS = (
    "audit", "augment", "bench", "bench-compare", "demo", "diff", "doctor", "evaluate", "export", "import", "predict", "prepare", "recipes", "report", "samples", "setup", "train", "verify",
)  # fmt: skip
WITH_RESULTS = ("audit", "augment", "bench", "bench-compare", "diff", "doctor", "evaluate", "export", "import", "predict", "prepare", "samples", "setup", "train", "verify")
"""Commands that print figures or facts; demo prints those of others, recipes prints TOML and report a path."""
HEAVY = ("tensorflow", "tf_keras", "numpy", "scipy", "sklearn", "onnx", "onnxruntime", "ai_edge_litert", "matplotlib", "PIL", "cv2")

LOADED = f"""
import sys
from melanoma_edge.cli import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    print("LOADED", stop.code, *sorted({set(HEAVY)!r} & set(sys.modules)))
"""


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(("raised", "code", "said"), [("ValueError('odd')", 70, "a fault of melanoma-edge"), ("PermissionError(13, 'denied', 'x.jpg')", 3, "x.jpg cannot be used (denied)")])
def test_a_fault_of_the_tool_is_no_failed_proof(raised: str, code: int, said: str) -> None:
    done = run_python(f"import melanoma_edge.cli as cli, melanoma_edge.recipes as r\ndef show(*_): raise {raised}\nr.names = show\ncli.main(['recipes'])")
    assert done.returncode == code and said in done.stderr.splitlines()[-1]
    assert ("Traceback" in done.stderr) == (code == 70), "what is to be reported is shown"


@pytest.mark.parametrize(
    "struck",
    [
        *(f"try:\n  strike()\n except KeyboardInterrupt:\n  raise {error}" for error in ("RuntimeError('of a library')", "OSError('of a library')", "Error('ours')")),
        "class Swallows:\n  def __del__(self): strike()\n Swallows()\n time.sleep(20)",
    ],
    ids=["fault", "system", "error", "swallowed"],
)
def test_an_interruption_that_a_library_hides_is_still_one(struck: str) -> None:
    """As in TensorFlow's converter, where one of a hundred came out as a RuntimeError and some in a destructor."""
    lines = ["import os, signal, time, melanoma_edge.cli as cli, melanoma_edge.recipes as r", "from melanoma_edge.errors import Error"]
    lines += ["def strike():\n os.kill(os.getpid(), signal.SIGINT)\n time.sleep(20)", f"def show(*_):\n {struck}", "r.names = show", "cli.main(['recipes'])"]
    done = run_python("\n".join(lines))
    assert (done.returncode, done.stderr.strip()) == (130, "melanoma-edge: interrupted; finished files are kept")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_command_that_is_ended_leaves_no_pictures_behind(cli: Cli, tmp_path: Path, name: str) -> None:
    bundle, temporary = write_bundle(tmp_path / "tiny.bundle"), tmp_path / "tmp"
    temporary.mkdir()
    kept = signal.signal(getattr(signal, name), signal.SIG_DFL)  # tests under nohup hand on that SIGHUP is ignored
    try:
        process = cli.start("bench", bundle, env={"TMPDIR": str(temporary)})
    finally:
        signal.signal(getattr(signal, name), kept)
    wait_until(lambda: list(temporary.glob("*/images.npy")), process)
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, name) and "melanoma-edge: interrupted" in err.decode()
    assert list(temporary.iterdir()) == []


def test_help_names_every_command_the_notice_and_the_exit_codes(cli: Cli) -> None:
    text = cli("--help").out
    listed = re.findall(r"^  ([a-z-]+) +\S", text.split("Commands:")[1], re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)
    plain = " ".join(text.split())
    assert NOTICE in plain and "0 done, 1 a proof failed, 2 bad input, 3 something is missing here, 130 interrupted" in plain
    assert cli("-h").out == text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_that_is_accepted(cli: Cli, name: str) -> None:
    text = cli(name, "--help").out
    assert re.search(r"-v, --verbose\s+\S", text) and re.search(r"-q, --quiet\s+\S", text)
    examples = re.findall(r"^ *Example: (melanoma-edge .+)$", text, re.MULTILINE)
    assert examples
    for example in examples:
        words = shlex.split(example.split(" > ")[0])
        assert words[1] == name
        group.commands[name].make_context(name, words[2:])  # parses and does nothing more
    assert ("--json" in text) == (name in WITH_RESULTS)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["nonsense"], "nonsense"),
        (["--nonsense"], "--nonsense"),
        (["train", "--nonsense"], "--nonsense"),
        (["samples"], "OUT"),
        (["evaluate", "somewhere"], "--data"),
        (["predict", "somewhere"], "IMAGES"),
        (["samples", "out", "--per-class", "many"], "many"),
        (["doctor", "surplus"], "surplus"),
        ([], "Usage:"),
    ],
)
def test_wrong_usage_is_exit_2_with_a_word_about_it(cli: Cli, arguments: list[str], found: str) -> None:
    done = cli(*arguments, code=2)
    assert found in done.err + done.out and "--help" in done.err + done.out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        *((["--help"] if name is None else [name, "--help"], 0) for name in (None, *COMMANDS)),
        (["--version"], 0),
        (["nonsense"], 2),
        (["train", "--nonsense"], 2),
        (["predict", "somewhere"], 2),
        (["bench", "bundle", "--threads", "few"], 2),
    ],
)
def test_help_and_usage_errors_load_nothing_heavy(arguments: list[str], code: int) -> None:
    done = subprocess.run([sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"LOADED {code}"


def test_what_is_loaded_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("")
    done = subprocess.run([sys.executable, "-c", LOADED, "samples", str(tmp_path / "there")], capture_output=True, text=True, check=True)
    assert "numpy" in done.stdout.splitlines()[-1].split()


def test_version(cli: Cli) -> None:
    assert cli("--version").out == f"melanoma-edge, version {__version__}\n"
    assert importlib.metadata.version("melanoma-edge") == __version__


def test_the_installed_command_is_the_same(cli: Cli) -> None:
    command = shutil.which("melanoma-edge", path=str(Path(sys.executable).parent))
    assert command is not None
    done = subprocess.run([command, "recipes", "demo"], capture_output=True, text=True, check=True, cwd=cli.home)
    assert done.stdout == cli("recipes", "demo").out


def test_the_shell_completion_comes_and_completes(cli: Cli, tmp_path: Path) -> None:
    script = cli(env={"_MELANOMA_EDGE_COMPLETE": "bash_source"}).out
    (tmp_path / "script.bash").write_text(script)
    subprocess.run(["bash", "-n", str(tmp_path / "script.bash")], check=True)
    assert "complete -o nosort -F _melanoma_edge_completion melanoma-edge" in script
    words = {"_MELANOMA_EDGE_COMPLETE": "bash_complete", "COMP_WORDS": "melanoma-edge ex", "COMP_CWORD": "1"}
    assert cli(env=words).out == "plain,export\n"


@pytest.mark.parametrize("arguments", [["--help"], ["recipes"], ["recipes", "default"], ["doctor"], ["doctor", "--json"]])
def test_a_reader_that_goes_away_is_no_error_worth_a_word(cli: Cli, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = cli.start(*arguments, stdout=writing)
    os.close(writing)
    _, err = process.communicate(timeout=120)
    assert err == b""
    assert process.returncode == 0


def test_recipes_are_listed_and_the_printed_text_loads_back(cli: Cli, tmp_path: Path) -> None:
    listed = cli("recipes").out
    for name in ("classic", "classic-batchnorm", "default", "demo"):
        assert re.search(rf"\b{name}\b", listed)
        text = cli("recipes", name).out
        validate(tomllib.loads(text), "recipe")
        (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
        assert recipes.load(tmp_path / "mine.toml") == recipes.load(name)
    assert "expected one of classic, classic-augmented, classic-batchnorm, classic-dropout, classic-rebalanced, default, demo, or" in cli.refused("recipes", "nonsense")


def test_doctor_says_what_is_installed(cli: Cli) -> None:
    facts = cli("doctor", "--json").json
    assert facts["conditions"]["versions"]["numpy"] == importlib.metadata.version("numpy")
    litert = facts["runtimes"]["litert"]
    assert litert["available"] is True and litert["version"] == importlib.metadata.version("ai-edge-litert")
    assert facts["conditions"]["cpu"]["logical_cores"] == os.cpu_count()
    shown = cli("doctor", "-v").out
    assert litert["version"] in shown and json.loads(shown[shown.index("\n{") :]) == cli("doctor", "--json").json["conditions"]


def test_samples_says_what_it_drew(cli: Cli, tmp_path: Path) -> None:
    done = cli("samples", tmp_path / "drawn", "--per-class", 6, "--size", 40, "--json", "-q")
    assert done.err == ""
    files = sorted((tmp_path / "drawn").rglob("*.png"))
    rows = list(csv.DictReader((tmp_path / "drawn" / "metadata.csv").open(encoding="utf-8")))
    lesions = {row["lesion_id"] for row in rows}
    assert done.json == {
        "folder": str(tmp_path / "drawn"),
        "classes": 9,
        "pictures": len(files),
        "lesions": len(lesions),
        "lesions_photographed_twice": len(rows) - len(lesions),
    }
    assert len(files) == 54 and {row["image_id"] for row in rows} == {file.stem for file in files}
    with Image.open(files[0]) as image:
        assert image.size == (40, 40) and image.mode == "RGB"


def test_samples_replaces_nothing_unless_forced(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "drawn"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert "--force" in cli.refused("samples", out, "--per-class", 1, "--size", 32)
    assert snapshot(tmp_path).keys() == {"drawn/mine.txt"} and (out / "mine.txt").read_text() == "mine"
    assert "holds no README.txt, so no earlier result stands there" in cli.refused("samples", out, "--per-class", 1, "--size", 32, "--force")
    assert snapshot(tmp_path).keys() == {"drawn/mine.txt"}
    (out / "README.txt").write_text("Drawn by melanoma-edge samples")
    cli("samples", out, "--per-class", 1, "--size", 32, "--force")
    assert len(list(out.rglob("*.png"))) == 9 and not (out / "mine.txt").exists() and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("options", [["--per-class", 0], ["--size", 8], ["--seed", -1]])
def test_samples_that_cannot_be_drawn_leave_nothing(cli: Cli, tmp_path: Path, options: list[object]) -> None:
    assert options[0] in cli.refused("samples", tmp_path / "drawn", *options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "no\nsuch"],
        ["bench", "no\nsuch"],
        ["predict", "no\nsuch", "a\nb.png"],
        ["evaluate", "no\r\nsuch", "--data", "x"],
        ["export", "no\u2028such"],
        ["train", "--recipe", "no\nsuch.toml", "x"],
        ["recipes", "no\nsuch"],
        ["train", "x", "--set", "a\nb"],
    ],
)
def test_a_line_break_in_a_name_does_not_break_the_error_into_lines(cli: Cli, arguments: list[str]) -> None:
    line = cli.refused(*arguments)
    assert line.splitlines() == [line]


def test_quiet_leaves_progress_out_and_the_result_in(cli: Cli, tmp_path: Path) -> None:
    done = cli("samples", tmp_path / "drawn", "--per-class", 1, "--size", 32, "-q")
    assert done.err == "" and "pictures: 9" in done.out
