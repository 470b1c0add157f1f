"""The house: imports flow one way, and what is light stays light."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
PACKAGE = REPOSITORY / "melanoma_edge"

ROOMS = (
    {"", "errors"},
    {"calibration", "contract", "environments", "exact", "files", "host", "metrics", "paired", "ranking", "recipes", "resampling", "selective"},
    {"data"},
    {"model"},
    {"convert", "runtimes"},
    {"doctor", "proof"},
    {"schemas"},
    {"cli"},
    {"__main__"},
)
"""From the ground up; "" is `melanoma_edge` itself. A room uses those below it; of the single modules
on the second floor, some also use each other."""

HEAVY = ("tensorflow", "tf_keras", "keras", "tensorflow_model_optimization", "tf2onnx", "onnxruntime", "ai_edge_litert")

HEAVY_MODULES = {
    "melanoma_edge.model.augment_ops",
    "melanoma_edge.model.dropout",
    "melanoma_edge.model.fit",
    "melanoma_edge.model.initial",
    "melanoma_edge.model.network",
    "melanoma_edge.model.quantize",
    "melanoma_edge.model.saliency",
    "melanoma_edge.model.step",
    "melanoma_edge.runtimes.keras",
    "melanoma_edge.runtimes.litert",
    "melanoma_edge.runtimes.ort",
}
"""These import a heavy package as they are imported; functions import them when they are called."""


def modules() -> dict[str, Path]:
    """Return {dotted name: file} of all modules of the package."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(REPOSITORY).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(name: str, source: str, known: set[str], *, package: bool) -> Iterator[str]:
    """Yield the modules of `known` that the module `name` imports, in functions and classes too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "melanoma_edge":
                    yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = name.split(".") if package else name.split(".")[:-1]
                base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [base])])
            if base.split(".")[0] == "melanoma_edge":
                for alias in node.names:
                    inner = f"{base}.{alias.name}"
                    yield inner if inner in known else base


def graph() -> dict[str, set[str]]:
    """Return {module: modules of the package that it imports}."""
    edges = {}
    for name, path in MODULES.items():
        package = path.name == "__init__.py"
        edges[name] = set(imported(name, path.read_text(encoding="utf-8"), set(MODULES), package=package)) - {name}
    return edges


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(ROOMS) if room(name) in rooms)


def test_the_reader_of_imports_sees_them_all() -> None:
    source = """
import melanoma_edge.data.split
from melanoma_edge import NOTICE, metrics
from . import run
from ..errors import Error
class A:
    from melanoma_edge.model import train
    def f(self):
        import os, numpy, melanoma_edge_other
        try:
            from .train import next_run as other
        finally:
            from melanoma_edge.proof.gates import int8_gate
"""
    found = list(imported("melanoma_edge.model.fit", source, set(MODULES), package=False))
    assert sorted(found) == [
        "melanoma_edge",
        "melanoma_edge.data.split",
        "melanoma_edge.errors",
        "melanoma_edge.metrics",
        "melanoma_edge.model.run",
        "melanoma_edge.model.train",
        "melanoma_edge.model.train",
        "melanoma_edge.proof.gates",
    ]
    assert list(imported("melanoma_edge.model", "from . import run", set(MODULES), package=True)) == ["melanoma_edge.model.run"]
    edges = graph()
    assert "melanoma_edge.data.split" in edges["melanoma_edge.model.train"]
    assert "melanoma_edge.model.quantize" in edges["melanoma_edge.model.phases"], "an import inside a function is not seen"


def test_every_module_has_a_place() -> None:
    rooms = set().union(*ROOMS)
    homeless = sorted(name for name in MODULES if room(name) not in rooms)
    assert not homeless, f"{homeless}: say in ROOMS on which floor they are"
    assert len(MODULES) > 30


def test_every_import_is_of_a_module_that_there_is() -> None:
    unknown = {(name, target) for name, targets in graph().items() for target in targets if target not in MODULES}
    assert not unknown


def test_imports_flow_one_way() -> None:
    wrong = []
    for name, targets in graph().items():
        for target in targets:
            same = room(name) == room(target)
            beside = floor(name) == floor(target) == 1
            if not (same or beside or floor(target) < floor(name)):
                wrong.append(f"{name} imports {target}")
    assert not wrong, "\n".join(wrong)


def test_the_ground_floor_imports_nothing() -> None:
    edges = graph()
    assert edges["melanoma_edge"] == set() and edges["melanoma_edge.errors"] == set()


def test_there_is_no_circle() -> None:
    edges, finished = graph(), set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in finished:
            for target in sorted(edges.get(name, ())):
                visit(target, (*path, name))
            finished.add(name)

    for name in MODULES:
        visit(name, ())


def test_keras_is_tf_keras_everywhere() -> None:
    """The optimization toolkit takes tf_keras models only; `tf.keras` is another Keras."""
    wrong = []
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            attribute = isinstance(node, ast.Attribute) and node.attr == "keras" and isinstance(node.value, ast.Name) and node.value.id in ("tf", "tensorflow")
            if attribute or any(found == "keras" or found.startswith(("keras.", "tensorflow.keras")) for found in names):
                wrong.append(f"{name} line {node.lineno}")
    assert not wrong


# --- what is light

LOOK = """
import importlib, sys
heavy = set(sys.argv[1].split(","))
for name in sys.argv[2:]:
    importlib.import_module(name)
    found = sorted(heavy & set(sys.modules))
    if found:
        print(name, "brings", *found)
        break
else:
    print("light")
"""


def look(*names: str) -> str:
    """Import modules one after the other in a new process; return what the first heavy one brings, or "light"."""
    done = subprocess.run([sys.executable, "-c", LOOK, ",".join(HEAVY), *names], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_module_that_may_be_light_is() -> None:
    light = [name for name in MODULES if name not in HEAVY_MODULES and not name.endswith("__main__")]
    needed = "contract recipes data.index data.policy data.image data.samples proof.predict proof.evaluate proof.verify proof.report"
    assert set(light) >= {f"melanoma_edge.{name}" for name in needed.split()}
    assert look(*light) == "light"


@pytest.mark.parametrize("name, package", [("melanoma_edge.runtimes.ort", "onnxruntime"), ("melanoma_edge.runtimes.litert", "ai_edge_litert")])
def test_the_look_sees_what_is_heavy(name: str, package: str) -> None:
    pytest.importorskip(package)
    assert look("melanoma_edge.errors", name).startswith(f"{name} brings") and package in look(name)


def test_heavy_packages_are_imported_at_the_top_of_heavy_modules_only() -> None:
    """What the look cannot see: a module that nobody listed as light or heavy, or an import of one by another."""
    at_top: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top = ast.Module([node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom, ast.If, ast.Try))], [])
        source = ast.unparse(top)
        packages = {alias.name.split(".")[0] for node in ast.walk(top) if isinstance(node, ast.Import) for alias in node.names}
        packages |= {(node.module or "").split(".")[0] for node in ast.walk(top) if isinstance(node, ast.ImportFrom) and not node.level}
        inner = set(imported(name, source, set(MODULES), package=path.name == "__init__.py"))
        at_top[name] = (packages & set(HEAVY)) | (inner & HEAVY_MODULES)
    assert {name for name, found in at_top.items() if found} == HEAVY_MODULES


@pytest.mark.parametrize("way", ["from melanoma_edge.model.tensorflow import require; require()", "import melanoma_edge.runtimes.keras"])
def test_keras_3_is_imported_by_nobody_but_who_asks_for_it(way: str) -> None:
    """TensorFlow and its optimization toolkit would import it, with scikit-learn and matplotlib: a third of the time in which a command starts."""
    pytest.importorskip("tensorflow")
    code = f"import sys; {way}; print(sorted({{'keras', 'sklearn', 'matplotlib'}} & set(sys.modules))); import keras; print(keras.__version__)"
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, env=environment)
    assert done.returncode == 0, done.stderr
    found, version = done.stdout.splitlines()
    assert found == "[]" and version.startswith("3."), "it is there for whoever imports it afterwards"


@pytest.mark.xdist_group("house")
def test_tests_of_a_group_stay_together(request: pytest.FixtureRequest) -> None:
    """pytest 9.2 and pytest-xdist 3.8 ignore groups without a word: slow fixtures are made twice, and two browsers run at once."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("the tests are not dealt out to several processes")
    assert request.node.nodeid.endswith("@house"), "install the versions of pytest and pytest-xdist that setup.cfg names"
