"""What the tests that use the tool as a user does share: its command line, and one run and one bundle.

A run and a bundle take most of a minute, so each is made once, by the first of pytest-xdist's workers that
needs it, while the others go on with tests that need none.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

# Whatever starts the tests in the background makes them, and all their children, ignore Ctrl-C, which is tested too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["small_folds"]
CACHE = pytest.StashKey[tempfile.TemporaryDirectory]()
SCHEMAS = Path(__file__).parents[1] / "melanoma_edge" / "schemas"

CLASSES = ("basal cell carcinoma", "melanoma", "nevus", "vascular lesion")
SETTINGS = {
    "image_size": 48,
    "width": 0.5,
    "epochs": 15,
    "qat_epochs": 2,
    "samples_per_class": 120,
    "min_lesions": 5,
    "label_smoothing": 0.0,
    "seed": 8,
}
"""A run of seconds, and yet sure enough of its answers that every gate holds with room to spare."""


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, which must be JSON and nothing else."""
        return json.loads(self.out)


class Cli:
    """Calls ``melanoma-edge`` in processes of its own, away from this repository."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def start(self, *arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command in the folder `cwd` and return the process."""
        command = [sys.executable, "-m", "melanoma_edge", *(word if isinstance(word, bytes) else str(word) for word in arguments)]
        # Two test workers share the cores: more threads than one would only wait for each other.
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"} | (env or {})
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen(command, cwd=cwd or self.home, env=environment, **options)

    def __call__(self, *arguments: object, code: int = 0, cwd: Path | None = None, env: dict[str, str] | None = None) -> Done:
        """Run a command to its end; it must exit with `code` and never show a traceback."""
        with self.start(*arguments, cwd=cwd, env=env) as process:
            try:
                out, err = (stream.decode("utf-8", "surrogateescape") for stream in process.communicate(timeout=600))
            finally:
                process.kill()
        assert "Traceback" not in err, err
        assert process.returncode == code, f"exit code {process.returncode}, expected {code}\n{out}\n{err}"
        return Done(process.returncode, out, err)

    def refused(self, *arguments: object, code: int = 2, cwd: Path | None = None) -> str:
        """Run a command that must fail with `code` and say why in exactly one line, which is returned."""
        done = self(*arguments, code=code, cwd=cwd)
        assert done.err.count("\n") == 1 and done.err.startswith("melanoma-edge: "), done.err
        assert done.out == ""
        return done.err.removeprefix("melanoma-edge: ").rstrip("\n")


def train_options(**settings: object) -> list[str]:
    """Return the options of ``train`` that set these keys of the recipe."""
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def read_json(path: Path) -> Any:
    """Return what a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def validate(value: Any, schema: str) -> None:
    """Hold `value` to the published JSON Schema called `schema`."""
    import jsonschema

    found = read_json(SCHEMAS / f"{schema}.schema.json")
    jsonschema.Draft202012Validator.check_schema(found)
    jsonschema.Draft202012Validator(found).validate(value)


def snapshot(folder: Path) -> dict[str, str]:
    """Return {path: SHA-256} of every file below `folder`."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def wait_until(condition: Callable[[], Any], process: subprocess.Popen[bytes], seconds: float = 300) -> None:
    """Wait until `condition` holds, while `process` runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]) -> tuple[Path, Any]:
    """Return a folder that `make` filled and the JSON value that it returned.

    Whichever worker comes first calls `make`; the others wait for it and share what it made.
    """
    root = factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else factory.getbasetemp()
    folder, record = root / f"shared-{name}", root / f"shared-{name}.json"
    with open(root / f"shared-{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not record.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            value = json.dumps(make(folder))
            record.write_text(value, encoding="utf-8")
    return folder, json.loads(record.read_text(encoding="utf-8"))


def pytest_configure(config: pytest.Config) -> None:
    """Keep prepared pictures and places of runtimes away from the user's own; workers inherit the variables.

    What `setup` fetches stays in this repository's .cache, for the next time.
    """
    os.environ.setdefault("MELANOMA_EDGE_RUNTIMES", str(Path(__file__).parents[1] / ".cache" / "runtimes"))
    if not hasattr(config, "workerinput"):
        config.stash[CACHE] = tempfile.TemporaryDirectory(prefix="melanoma-edge-tests-")
        os.environ["MELANOMA_EDGE_CACHE"] = config.stash[CACHE].name


def pytest_unconfigure(config: pytest.Config) -> None:
    if CACHE in config.stash:
        config.stash[CACHE].cleanup()


SLOW = ("exported", "interrupted", "mixed", "mixed_precision", "often_killed", "pooled", "quoted", "two_folds", "two_workers", "whole")
"""Fixtures that take longest to make."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put one test of each slow fixture first and its other tests last, so that no worker waits for another's."""
    needs = {item: {"trained", *SLOW} & set(getattr(item, "fixturenames", ())) for item in items}
    makers = [next((item for item in items if name in needs[item]), None) for name in SLOW]
    first = list(dict.fromkeys(item for item in makers if item is not None))
    rest = [item for item in items if item not in first]
    items[:] = first + sorted(rest, key=lambda item: bool(needs[item]))


@pytest.fixture(scope="session")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    return Cli(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def browser(cli: Cli) -> str:
    """The place `browser`, set up by the first worker that needs it; its version. Skips where it cannot be set up."""
    from melanoma_edge.errors import Missing
    from melanoma_edge.runtimes.browser import require
    from melanoma_edge.runtimes.places import folder

    folder("browser").parent.mkdir(parents=True, exist_ok=True)
    with open(folder("browser").parent / "browser.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return require()
        except Missing:
            with cli.start("setup", "browser", "-q") as process:
                said = process.communicate(timeout=1800)[1].decode()
            if process.returncode == 3:
                pytest.skip(f"a browser cannot be set up here: {said.strip()}")
            assert process.returncode == 0, said
            return require()


@pytest.fixture(scope="session")
def drawn(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 400 drawn samples of four classes, 56 pixels square."""

    def make(folder: Path) -> None:
        cli("samples", folder / "drawn", "--per-class", 100, "--size", 56, "-q")
        for path in (folder / "drawn").iterdir():
            if path.is_dir() and path.name not in CLASSES:
                shutil.rmtree(path)

    return once(tmp_path_factory, "drawn", make)[0] / "drawn"


@pytest.fixture(scope="session")
def trained(cli: Cli, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """The run, and what training printed."""

    def make(folder: Path) -> dict:
        return asdict(cli("train", drawn, "--recipe", "demo", *train_options(**SETTINGS), "--out", folder / "run", "--json"))

    folder, done = once(tmp_path_factory, "trained", make)
    return folder / "run", Done(**done)


@pytest.fixture(scope="session")
def run(trained: tuple[Path, Done]) -> Path:
    return trained[0]


@pytest.fixture(scope="session")
def exported(cli: Cli, run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """The bundle with every artifact, each TFLite one with its probabilities beside it, and what exporting printed."""

    def make(folder: Path) -> dict:
        options = ["--head", "probabilities", "--out", folder / "lesions.bundle", "--licence", "CC0 1.0", "--json"]
        return asdict(cli("export", run, *options, env={"PYTHONHASHSEED": "1"}))

    folder, done = once(tmp_path_factory, "exported", make)
    return folder / "lesions.bundle", Done(**done)


@pytest.fixture(scope="session")
def bundle(exported: tuple[Path, Done]) -> Path:
    return exported[0]


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that knows nothing of its run."""
    folder = tmp_path / "copy.bundle"
    shutil.copytree(bundle, folder)
    (folder / "evidence" / "origin.json").unlink()
    return folder
