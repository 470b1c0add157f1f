"""The place `browser`: the packages that run models in a web page, and the Chromium that opens it.

In: web/package.json and web/package-lock.json, which name every package with the hash of its bytes. Out: the files of
those packages that the page loads, below :func:`melanoma_edge.runtimes.places.folder`, with the lock file beside
them as the mark of what they are. Runtimes there need no npm, no Node and no network.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from melanoma_edge.errors import Missing
from melanoma_edge.files import new_folder
from melanoma_edge.runtimes import chromium, places
from melanoma_edge.runtimes.page_server import WEB
from melanoma_edge.runtimes.protocol import one_line

LOCK = "package-lock.json"
SETUP = "melanoma-edge setup browser"
ENGINES: dict[str, tuple[str, ...]] = {
    "litert": (
        "node_modules/@litertjs/core/dist/index.js",
        "node_modules/@litertjs/core/wasm/litert_wasm_compat_internal.js",
        "node_modules/@litertjs/core/wasm/litert_wasm_compat_internal.wasm",
        "node_modules/@litertjs/core/wasm/litert_wasm_internal.js",
        "node_modules/@litertjs/core/wasm/litert_wasm_internal.wasm",
        "node_modules/@litertjs/core/wasm/litert_wasm_threaded_internal.js",
        "node_modules/@litertjs/core/wasm/litert_wasm_threaded_internal.wasm",
        "node_modules/@litertjs/wasm-utils/dist/index.js",
    ),
    "onnxruntime": (
        "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.mjs",
        "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
        "node_modules/onnxruntime-web/dist/ort.wasm.min.mjs",
        "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify.mjs",
        "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify.wasm",
        "node_modules/onnxruntime-web/dist/ort.webgpu.min.mjs",
    ),
}
"""What pages load of the packages, for each engine: 70 of 185 MB. A browser fetches what it needs: 9 MB of LiteRT.js and 14 of onnxruntime-web, or 27 with WebGPU."""
_NPM_SECONDS = 1800
_NAMES = {"LiteRT.js": "@litertjs/core", "onnxruntime-web": "onnxruntime-web"}


def require() -> str:
    """Return the versions, such as `LiteRT.js 2.5.3, onnxruntime-web 1.30.0 in Chromium 156`; raises Missing with what to do."""
    require_packages()
    return f"{packages()} in {chromium.version(chromium.find())}"


def require_packages() -> None:
    """Raise Missing with what to do unless the packages are here, whole, and those of this version."""
    folder = places.folder("browser")
    if not (folder / LOCK).is_file():
        raise Missing(f"the packages that run models in a browser are not here: {SETUP}")
    if (folder / LOCK).read_bytes() != (WEB / LOCK).read_bytes():
        raise Missing(f"the packages in {folder} belong to another version of melanoma-edge: {SETUP}")
    lost = next((name for names in ENGINES.values() for name in names if not (folder / name).is_file()), None)
    if lost is not None:
        raise Missing(f"{folder / lost} is missing: {SETUP}")


def install(progress: Callable[[str], None]) -> dict:
    """Fetch the packages of the lock file with npm, all or nothing; return facts for people.

    Does nothing where they are there already. A browser on this machine is not needed for them: phones bring their own. Raises
    Missing without npm, or the packages' registry.
    """
    folder = places.folder("browser")
    try:
        require_packages()
    except Missing:
        with new_folder(folder, force=True, mark=LOCK) as new, tempfile.TemporaryDirectory(prefix="npm-", dir=new) as work:
            progress(f"fetching {packages()}")
            _npm_ci(Path(work))
            progress("keeping what the page needs")
            for file in (LOCK, *(file for files in ENGINES.values() for file in files)):
                (new / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(Path(work, file), new / file)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {"packages": packages(), "browser": _browser(), "folder": str(folder), "megabytes": round(size / 1e6, 1), "version": packages()}


def command() -> tuple[list[str], dict[str, str]]:
    """Return this machine's Python: the worker runs here, and only the page in the browser; raises as :func:`require` does."""
    require()
    return [sys.executable, "-P"], {}


def files(engine: str) -> dict[str, Path]:
    """Return {path in the page's address: file} of the packages of one of ENGINES."""
    return {name: places.folder("browser") / name for name in ENGINES[engine]}


def packages() -> str:
    """Return the packages' names and versions, as the lock file has them."""
    locked = json.loads((WEB / LOCK).read_text(encoding="utf-8"))["packages"]
    return ", ".join(f"{name} {locked[f'node_modules/{package}']['version']}" for name, package in _NAMES.items())


def _browser() -> str:
    """Return this machine's browser, or in words that there is none."""
    try:
        found = chromium.find()
        return f"{chromium.version(found)} ({found})"
    except Missing as error:
        return f"{error}; that is for `verify` alone, a phone has its own"


def version_of(engine: str) -> str:
    """Return the version of the package of one of ENGINES."""
    return packages().split(", ")[list(ENGINES).index(engine)].rpartition(" ")[2]


def _npm_ci(folder: Path) -> None:
    """Have npm fetch into `folder` what the lock file names: every package checked against its hash, no script of a package run."""
    npm = shutil.which("npm")
    if npm is None:
        raise Missing("npm is missing, which fetches the packages: apt-get install npm (Debian, Ubuntu) or brew install node (macOS), then run this again")
    for file in ("package.json", LOCK):
        shutil.copyfile(WEB / file, folder / file)
    arguments = [npm, "ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
    child = subprocess.Popen(
        arguments, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True
    )
    try:
        said = child.communicate(timeout=_NPM_SECONDS)[1]
    except subprocess.TimeoutExpired:
        raise Missing(f"npm did not fetch the packages within {_NPM_SECONDS} s: look at the network and run this again") from None
    finally:
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if child.returncode:
        lines = [line for line in said.splitlines() if line.strip() and "complete log" not in line]
        reason = one_line(Exception(" ".join(lines) or f"exit code {child.returncode}"))
        raise Missing(f"npm could not fetch the packages ({reason}): look at the network or npm's registry and run this again")
