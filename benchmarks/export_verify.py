"""How long export of all artifacts takes, and verification on 400 pictures, as whole processes.

Targets: export at most 90 s (its own gates included), verify at most 180 s. Needs a complete run.

Run: python benchmarks/export_verify.py [RUN]
"""

from __future__ import annotations

import csv
import shutil
import sys
import tempfile
from pathlib import Path

import common

from melanoma_edge.model.run import newest_run, open_run

PICTURES = 400


def main(run: Path) -> None:
    opened = open_run(run)
    command = (sys.executable, "-m", "melanoma_edge")
    with tempfile.TemporaryDirectory() as folder:
        bundle, pictures = Path(folder) / "timed.bundle", Path(folder) / "pictures"
        export = common.timed(*command, "export", str(run), "--out", str(bundle), "--force", runs=2)
        _choose(opened, pictures)
        verify = common.timed(*command, "verify", str(bundle), "--data", str(pictures), runs=2)
    figures = {"run": opened.recipe.name, "image_size": opened.recipe.image_size, "pictures": PICTURES, "export": export, "verify": verify}
    common.write("export_verify", figures, {"export_seconds": "<= 90", "verify_seconds": "<= 180"})


def _choose(run, target: Path) -> None:
    """Copy 400 of the run's pictures, test and validation parts first, with their metadata, to a temporary folder."""
    rows = sorted(run.split, key=lambda row: ("test", "validation", "train").index(row.part))[:PICTURES]
    target.mkdir()
    with open(target / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", "lesion_id"])
        for row in rows:
            (target / row.label).mkdir(exist_ok=True)
            shutil.copy(Path(run.facts.root) / row.path, target / row.label)
            writer.writerow([Path(row.path).stem, row.lesion])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else newest_run())
