"""What is in the nine-class ISIC set: the counts of `melanoma-edge audit`, and how long it takes.

Only figures are written: no path, no picture.

Run: python benchmarks/audit_isic9.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import common

from melanoma_edge.files import read_json


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "audit.json"
        command = [sys.executable, "-m", "melanoma_edge", "audit", str(common.data_folder()), "--cache", str(Path(folder) / "cache"), "--json", str(file), "--force", "-q"]
        first = common.timed(*command)
        again = common.timed(*command)
        found = read_json(file, "an audit")
    common.write(
        "isic9_audit",
        {
            "policy": found["policy"],
            "counts": found["counts"],
            "effect": found["effect"],
            "parts": found["parts"],
            "classes": found["classes"],
            "imbalance": found["imbalance"],
            "imbalance_usable": found["imbalance_usable"],
            "reference_contradictions": [{key: pair[key] for key in ("label", "reference", "pictures")} for pair in found["reference_contradictions"]],
            "shortcuts": found["shortcuts"],
            "problems": [{key: problem[key] for key in ("key", "severity", "count", "title", "handled")} for problem in found["problems"]],
            "seconds_first": first,
            "seconds_with_cache": again,
        },
    )


if __name__ == "__main__":
    main()
