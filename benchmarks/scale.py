"""How the data check grows: 10, 50, 100 and 400 thousand pictures that are made up.

No picture is written: rows (hashes, lesions, patients, classes as frequent as in the ISIC Archive) and grey views are drawn. The views follow
the mean and covariance of a real set's (the nine-class ISIC set where it is there, drawn samples otherwise), so
that they are as alike as photographs are; one picture in a hundred is an identical copy of another, and one in fifty a
re-encoded one, mirrored or turned. Each size runs in a process of its own, and each step's time is taken apart: the search for
copies, data policy, split, and the audit on top of them. Targets at 400,000: the search for copies in at most 180 s
and 2 GiB, and near-linear growth.

Run: python benchmarks/scale.py [THOUSANDS...]
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import common
import numpy as np

SIZES = (10, 50, 100, 400)
CLASSES = {"nevus": 0.6, "melanoma": 0.12, "basal cell carcinoma": 0.1, "pigmented benign keratosis": 0.08, "squamous cell carcinoma": 0.04,
           "actinic keratosis": 0.03, "dermatofibroma": 0.015, "vascular lesion": 0.015}  # fmt: skip
COMPONENTS = 200
IDENTICAL, RE_ENCODED = 0.01, 0.02


def main(*thousands: int) -> None:
    found = {}
    for size in thousands or SIZES:
        done = subprocess.run([sys.executable, __file__, "--one", str(size)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        found[f"{size} 000"] = json.loads(done.stdout.splitlines()[-1])
        print(size, found[f"{size} 000"], flush=True)
    first, last = list(found.values())[0], list(found.values())[-1]
    growth = last["pictures"] / first["pictures"]
    figures = {
        "sizes": found,
        "pictures_grow_by": round(growth, 1),
        "search_for_copies_grows_by": round(last["search_for_copies_seconds"] / first["search_for_copies_seconds"], 1),
        "all_else_grows_by": round(last["all_else_seconds"] / first["all_else_seconds"], 1),
    }
    common.write("scale", figures, {"search_for_copies_seconds at 400 000": "<= 180", "search_for_copies_peak_mib at 400 000": "<= 2048"})


def one(thousand: int) -> None:
    """Make up one set, run every step on it and print what they took as JSON."""
    from melanoma_edge import recipes
    from melanoma_edge.data import policy
    from melanoma_edge.data.audit import audit
    from melanoma_edge.data.split import split
    from melanoma_edge.host import peak_memory_bytes

    def peak() -> float:
        return round(peak_memory_bytes() / 2**20, 1)

    recipe = recipes.load("default")
    index, copies = made_up(thousand * 1000)
    figures = {"pictures": len(index.rows), "made_copies": copies}
    steps = {
        "search_for_copies": lambda: index.copies,
        "policy": lambda: policy.select(index, recipe),
        "split": lambda: split(policy_result["policy"], recipe),
        "audit": lambda: audit(index, recipe),
    }
    policy_result = {}
    for name, run in steps.items():
        started = time.perf_counter()
        policy_result[name] = run()
        figures[f"{name}_seconds"] = round(time.perf_counter() - started, 2)
        figures[f"{name}_peak_mib"] = peak()
    figures["pairs_found"] = len(index.copies.pairs)
    figures["all_else_seconds"] = round(sum(figures[f"{name}_seconds"] for name in ("policy", "split", "audit")), 2)
    print(json.dumps(figures))


def made_up(count: int):
    """Return (index of `count` pictures that nobody took, copies among them)."""
    from melanoma_edge.data.decoding import VIEW, Facts
    from melanoma_edge.data.index import Index, Row

    rng = np.random.default_rng(5)
    views = _views(count, rng)
    identical, re_encoded = int(IDENTICAL * count), int(RE_ENCODED * count)
    chosen = rng.permutation(count)[: 2 * (identical + re_encoded)].reshape(2, -1)
    for source, target in chosen[:, identical:].T:
        view = views[source][:, ::-1] if rng.random() < 0.5 else views[source]
        views[target] = (np.rot90(view, rng.integers(4)) + rng.normal(0, 1.2, (VIEW, VIEW))).round().clip(0, 255)
    names = rng.choice(list(CLASSES), size=count, p=list(CLASSES.values()))
    lesions, patients = rng.integers(0, int(count * 0.75), count), rng.integers(0, int(count * 0.3), count)
    lesion_of = {}
    hashes = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]
    for source, target in chosen[:, :identical].T:
        hashes[target], names[target] = hashes[source], names[source]
        views[target] = views[source]
    rows = []
    shapes = rng.choice([600, 1024, 4000, 6000], size=count)
    for number in range(count):
        lesion = f"IL_{lesions[number]:07d}" if rng.random() < 0.6 else ""
        # A lesion has one class and one patient.
        name, patient = lesion_of.setdefault(lesion, (str(names[number]), f"IP_{patients[number]:07d}")) if lesion else (str(names[number]), "")
        width = int(shapes[number])
        border = views[number, 0].mean()
        facts = Facts(hashes[number], int(rng.integers(20_000, 4_000_000)), width, width * 3 // 4, "JPEG", "RGB", 1, "", border, border, border, 0.0)
        rows.append(Row(f"{name}/ISIC_{number:07d}.jpg", name, lesion, patient, sha256=hashes[number], facts=facts))
    return Index(Path("made up"), tuple(rows), (), views, None), identical + re_encoded


def _views(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` grey views that are as alike as real ones: normal with a real set's mean and covariance."""
    from melanoma_edge.data.cache import prepare
    from melanoma_edge.data.decoding import VIEW
    from melanoma_edge.data.samples import CLASSES as DRAWN
    from melanoma_edge.data.samples import draw

    folder = common.data_folder()
    if folder.is_dir():
        real = prepare(sorted(folder.rglob("*.jpg"))).views[:, 0]
    else:
        real = np.stack([draw(name, VIEW, (1, number)).mean(axis=2) for name in DRAWN for number in range(60)])
    flat = real.reshape(len(real), -1).astype(np.float32)
    mean = flat.mean(axis=0)
    _, spread, basis = np.linalg.svd(flat - mean, full_matrices=False)
    basis = basis[:COMPONENTS] * (spread[:COMPONENTS, None] / np.sqrt(len(flat)))
    views = np.empty((count, VIEW, VIEW), np.uint8)
    for start in range(0, count, 10_000):
        block = mean + rng.standard_normal((min(10_000, count - start), len(basis)), dtype=np.float32) @ basis
        views[start : start + len(block)] = block.round().clip(0, 255).reshape(-1, VIEW, VIEW)
    return views


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(int(sys.argv[2]))
    else:
        main(*(int(value) for value in sys.argv[1:]))
