"""How long `melanoma-edge --help` takes as a whole process, and that it imports nothing heavy.

Target: at most 0.3 s. Run: python benchmarks/startup.py
"""

from __future__ import annotations

import subprocess
import sys

import common

HEAVY = ("tensorflow", "numpy", "onnx", "onnxruntime", "ai_edge_litert", "matplotlib", "sklearn", "pydantic", "rich")


def main() -> None:
    timing = common.timed(sys.executable, "-m", "melanoma_edge", "--help", runs=20, warmup=3)
    probe = "import sys; sys.argv = ['melanoma-edge', '--help']\nfrom melanoma_edge.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    probe += f"print('HEAVY', [name for name in {HEAVY} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    heavy = shown.rsplit("HEAVY", 1)[1].strip()
    common.write("startup", {"help": timing, "heavy_modules_imported": heavy}, {"help_seconds": "<= 0.3", "heavy_modules_imported": "[]"})


if __name__ == "__main__":
    main()
