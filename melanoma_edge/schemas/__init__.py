"""The published JSON Schemas of the files that melanoma-edge writes, made from their models.

``python -m melanoma_edge.schemas`` writes them anew; a test holds them to the models.
"""

from __future__ import annotations

from pathlib import Path


def schemas() -> dict[str, dict]:
    """Return {file name: JSON Schema} of every file format."""
    from melanoma_edge.contract import CrossValidation, Manifest, Recipe, RunFacts
    from melanoma_edge.convert.bundle import Golden
    from melanoma_edge.data.audit.model import Audit
    from melanoma_edge.model.folds_model import FoldsFacts
    from melanoma_edge.proof.bench_compare_model import LatencyComparison
    from melanoma_edge.proof.diff_model import Difference
    from melanoma_edge.proof.latency_model import Latency
    from melanoma_edge.proof.layers_model import Layers
    from melanoma_edge.proof.parity_model import Parity
    from melanoma_edge.proof.thumbnails import Thumbnails

    models = {
        "manifest": Manifest,
        "golden": Golden,
        "parity": Parity,
        "latency": Latency,
        "bench-compare": LatencyComparison,
        "layers": Layers,
        "recipe": Recipe,
        "run": RunFacts,
        "folds": FoldsFacts,
        "cross-validation": CrossValidation,
        "audit": Audit,
        "diff": Difference,
        "thumbnails": Thumbnails,
    }
    return {
        f"{name}.schema.json": {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
        for name, model in models.items()
    }


def write(folder: Path = Path(__file__).parent) -> None:
    """Write all schemas below `folder`."""
    from melanoma_edge.files import write_json

    for name, schema in schemas().items():
        write_json(folder / name, schema)
