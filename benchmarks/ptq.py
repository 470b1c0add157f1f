"""Quantized after training, or in training: what each loses against float32 on the nine-class ISIC set.

Exports a complete run with float32, int8 and int8-ptq (calibrated on training pictures, classes in turn) and takes the
paired comparisons on its test part from the manifest. Only figures are written.

Run: python benchmarks/ptq.py [RUN]       (default: runs/isic9, which benchmarks/isic9.py trains)
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import common

from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.proof.export import export

PRECISIONS = ("float32", "int8", "int8-ptq")


def main(run: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "compared.bundle")
        parity = export(run, path, precisions=PRECISIONS, command=f"melanoma-edge export {run.name} --precision {','.join(PRECISIONS)}", progress=print)
        manifest = open_bundle(path).manifest
    comparisons = [one.model_dump(mode="json") for one in manifest.comparisons]
    agreement = {f"{gate.artifact} against {gate.reference}": gate.figures for gate in parity.gates if gate.name in ("int8", "int8-ptq", "int8-onnx")}
    common.write(
        "ptq",
        {
            "scores": {a.name: a.scores.model_dump(mode="json") for a in manifest.artifacts},
            "bytes": {a.name: a.bytes for a in manifest.artifacts},
            "calibration": next(a.calibration for a in manifest.artifacts if a.calibration).model_dump(mode="json"),
            "comparisons": comparisons,
            "gates": agreement,
        },
    )
    for one in comparisons:
        loss = one["losses"]["balanced_accuracy"]
        print(f"{one['candidate']} loses {loss['value']:+.4f} ({loss['low']:+.4f} to {loss['high']:+.4f}) of balanced accuracy against {one['reference']}; {one['flips']} flips")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("runs") / "isic9")
