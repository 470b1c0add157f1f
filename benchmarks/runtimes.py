"""One result on every runtime: a bundle's gates on every picture of the nine-class ISIC set.

Three parts. Every artifact on this machine (LiteRT's three kernel families, ONNX Runtime) and in a browser, on every
picture; every artifact on an emulated Arm processor, on drawn pictures, because emulated float kernels take a
second a picture; and the int8 artifacts there on every picture. Only figures are written.

Run: python benchmarks/runtimes.py [BUNDLE]       (default: bundles/isic9.bundle, which benchmarks/isic9.py makes;
     first: melanoma-edge setup arm64, melanoma-edge setup browser)
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import common

from melanoma_edge.convert.bundle import open_bundle
from melanoma_edge.files import cache_folder
from melanoma_edge.proof import gates
from melanoma_edge.proof.parity_model import Gate
from melanoma_edge.proof.subject import run_artifact
from melanoma_edge.proof.verify import labelled_pictures, verify
from melanoma_edge.runtimes.protocol import RUNTIMES

FIGURES = ("name", "artifact", "runtime", "reference", "requirement", "outcome", "reason", "pictures", "measured_on", "figures", "losses", "flip_count")
HERE = ("litert", "onnxruntime", "kernels", "browser")


def main(bundle: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, bundle.name)
        shutil.copytree(bundle, copy)  # the bundle's own evidence stays what it is
        here = verify(copy, data=common.data_folder(), runtimes=HERE, command=f"melanoma-edge verify {bundle.name} --data isic9", progress=print)
        arm = verify(copy, runtimes=("arm64",), command=f"melanoma-edge verify {bundle.name} --runtime arm64", progress=print)
        emulated = _int8_on_arm(copy)
    every = [gate for gate in (*here.gates, *arm.gates, *emulated) if gate.outcome != "not run"]
    common.write(
        "runtimes",
        {
            "manifest_sha256": here.manifest_sha256,
            "pictures": here.pictures,
            "labelled": here.labelled,
            "computed_elsewhere": {**here.runtimes, **arm.runtimes},
            "outcomes": {outcome: sum(gate.outcome == outcome for gate in every) for outcome in ("passed", "failed", "inconclusive")},
            "gates": [{key: value for key, value in gate.model_dump(mode="json").items() if key in FIGURES} for gate in every],
            "seconds": {"here_and_browser": here.seconds, "arm64_drawn": arm.seconds},
        },
        {"int8 on Arm and in WebAssembly against x86": "0 quanta", "int8 ONNX against int8 TFLite": "0 quanta (gate: 1)", "int8 TFLite against the fake-quantized network": "at most 2 quanta"},
    )


def _int8_on_arm(path: Path) -> list[Gate]:
    """Compare the int8 artifacts on the emulated processor with this machine's on every picture."""
    bundle, found = open_bundle(path), []
    pictures = labelled_pictures(bundle, common.data_folder(), None, cache_folder())
    for artifact in bundle.manifest.artifacts:
        for runtime, row in RUNTIMES.items():
            if artifact.integer and row.place == "arm64" and artifact.format in row.formats:
                print(f"{artifact.name} on {runtime}: {len(pictures.inputs)} pictures")
                expected, logits = (run_artifact(bundle, artifact, name, pictures.inputs) for name in (row.peer, runtime))
                gate = gates.peer_gate("arm64", artifact, runtime, row.peer, logits, expected, pictures.names, bundle.manifest.classes)
                found.append(gate.model_copy(update={"measured_on": pictures.description}))
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("bundles") / "isic9.bundle")
