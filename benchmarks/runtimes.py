"""One result on every runtime: all gates of a bundle on every picture of the nine-class ISIC set.

Runs each artifact with every runtime that is set up here (LiteRT's three kernel families, ONNX Runtime, both on
an emulated Arm processor and in a browser) and compares every logit. Only figures are written.

Run: python benchmarks/runtimes.py [BUNDLE]       (default: bundles/isic9.bundle, which benchmarks/isic9.py makes)
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import common

from melanoma_edge.proof.verify import verify

FIGURES = ("name", "artifact", "runtime", "reference", "requirement", "outcome", "reason", "pictures", "figures", "losses", "flip_count")


def main(bundle: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, bundle.name)
        shutil.copytree(bundle, copy)  # the bundle's own evidence stays what it is
        parity = verify(copy, data=common.data_folder(), runtimes=("all",), command=f"melanoma-edge verify {bundle.name} --runtime all --data isic9", progress=print)
    found = parity.model_dump(mode="json")
    common.write(
        "runtimes",
        {
            "manifest_sha256": found["manifest_sha256"],
            "pictures": found["pictures"],
            "labelled": found["labelled"],
            "outcomes": {outcome: sum(gate.outcome == outcome for gate in parity.gates) for outcome in ("passed", "failed", "inconclusive", "not run")},
            "gates": [{key: gate[key] for key in FIGURES} for gate in found["gates"]],
            "seconds": found["seconds"],
        },
        {"int8 on Arm and in WebAssembly against x86": "0 quanta", "int8 ONNX against int8 TFLite": "0 quanta (gate: 1)", "int8 TFLite against the fake-quantized network": "at most 2 quanta"},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("bundles") / "isic9.bundle")
