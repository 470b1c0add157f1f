"""Which runtimes a verification runs, what the kernel families answer, and what ONNX Runtime makes of a graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Cli, read_json, validate
from onnx import numpy_helper
from test_export_cli import ONNX, TFLITE
from test_verify_cli import gates_of, reseal

from melanoma_edge.contract import PRECISIONS
from melanoma_edge.errors import Missing
from melanoma_edge.proof.subject import run_artifact
from melanoma_edge.proof.verify import verify
from melanoma_edge.runtimes.process import run_logits
from melanoma_edge.runtimes.protocol import RUNTIMES, RuntimeFailed, Unsupported

FAMILIES = ("litert-builtin", "litert-reference")


def rows(bundle: Path) -> list[dict]:
    return read_json(bundle / "evidence" / "parity.json")["gates"]


def test_every_kernel_family_is_compared_with_xnnpack_in_quanta(cli: Cli, copy: Path, drawn: Path) -> None:
    cli("verify", copy, "--runtime", "kernels", "--data", drawn, "-q")
    validate(read_json(copy / "evidence" / "parity.json"), "parity")
    kernels = {(gate["artifact"], gate["runtime"]): gate for gate in rows(copy) if gate["name"] == "kernels"}
    assert kernels.keys() == {(name, family) for name in TFLITE for family in FAMILIES}
    for (artifact, _), gate in kernels.items():
        assert gate["reference"] == "litert" and gate["outcome"] == "passed" and gate["pictures"] > 12
        assert ("max_quanta" in gate["figures"]) == (artifact == TFLITE[3])
    tasks = {(gate["artifact"], gate["runtime"]): gate["outcome"] for gate in rows(copy) if gate["name"] == "task"}
    assert tasks.keys() == {(TFLITE[3], family) for family in FAMILIES} and "not run" not in tasks.values()
    others = [gate for gate in rows(copy) if gate["runtime"] in ("litert", "onnxruntime")]
    assert {gate["artifact"] for gate in others} == {*TFLITE, *ONNX}, "what was not asked for is not forgotten"
    assert all(gate["outcome"] == "not run" and gate["reason"].startswith("not asked for: ") for gate in others)


def test_the_families_are_three_different_programs(bundle: Path) -> None:
    """XNNPACK rounds int8 otherwise than the others: were they one program, the comparison would compare nothing."""
    images = np.random.default_rng(1).integers(0, 256, (40, 48, 48, 3), np.uint8)
    logits = {name: run_logits(name, bundle / TFLITE[3], images) for name in ("litert", *FAMILIES)}
    assert any((logits["litert"] != logits[family]).any() for family in FAMILIES)


def test_one_runtime_is_run_alone(cli: Cli, copy: Path) -> None:
    done = cli("verify", copy, "--runtime", "onnxruntime", "--json", "-q")
    used = {gate["runtime"] for gate in done.json["gates"] if gate["outcome"] != "not run"}
    assert used == {"onnxruntime", "pillow"}
    groups = {gate["name"]: gate["reason"] for gate in done.json["gates"] if gate["artifact"] == "all"}
    assert groups == {group: f"not asked for: verify --runtime {group}" for group in ("arm64", "browser", "kernels")}


def test_what_is_not_there_is_said_with_the_command_that_installs_it(cli: Cli, copy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MELANOMA_EDGE_RUNTIMES", str(tmp_path / "nothing"))
    done = cli("verify", copy, "--runtime", "all", "-q")
    found = rows(copy)
    for place in ("arm64", "browser"):
        gates = [gate for gate in found if gate["name"] == place]
        assert {gate["artifact"] for gate in gates} == {*TFLITE, *ONNX}
        for gate in gates:
            assert gate["outcome"] == "not run" and f"melanoma-edge setup {place}" in gate["reason"]
    assert {gate["runtime"] for gate in found} >= {name for name, row in RUNTIMES.items() if row.runs_artifacts}
    assert "melanoma-edge setup arm64" in " ".join(done.out.split())
    for name in ("litert-arm64", "arm64"):  # a runtime, and the group that it is in
        line = cli.refused("verify", copy, "--require", name, "-q", code=3)
        assert "litert-arm64 was required but is not here" in line and "melanoma-edge setup arm64" in line


def test_an_unknown_runtime_is_refused_with_all_there_are(cli: Cli, copy: Path) -> None:
    line = cli.refused("verify", copy, "--runtime", "litert2", "-q")
    assert all(name in line for name in ("litert2", "litert-builtin", "onnxruntime-browser", "kernels", "all"))
    assert "there is nothing called 'phone' to set up: expected one of arm64, browser" in cli.refused("setup", "phone", "-q")


@pytest.mark.parametrize("runtime", ["litert-builtin", "litert"])
@pytest.mark.parametrize(("error", "outcome"), [(RuntimeFailed, "failed"), (Unsupported, "not run"), (Missing, "not run")])
def test_a_crash_elsewhere_fails_and_what_is_lacking_is_not_run(copy: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, error: type, outcome: str) -> None:
    """Kernels that are there and crash on a file answer nothing to whoever relies on them; a crash of this machine's own ends the command."""

    def run(bundle, artifact, name, inputs, progress=None):
        if (artifact.name, name) == (TFLITE[3], runtime):
            raise error("SIGSEGV, or an operator that it lacks")
        return run_artifact(bundle, artifact, name, inputs, progress=progress)

    monkeypatch.setattr("melanoma_edge.proof.verify.run_artifact", run)
    if (runtime, error) == ("litert", RuntimeFailed):
        with pytest.raises(RuntimeFailed):
            verify(copy)
        return
    gates = verify(copy, runtimes=[runtime] if runtime != "litert" else []).gates
    [gate] = [gate for gate in gates if (gate.artifact, gate.runtime) == (TFLITE[3], runtime)]
    assert gate.outcome == outcome and "SIGSEGV" in gate.reason
    assert any((gate.artifact, gate.runtime, gate.outcome) == (TFLITE[0], runtime, "passed") for gate in gates), "the others are carried out"


def test_every_precision_has_a_requirement_in_every_group() -> None:
    from melanoma_edge.proof.gates import PEER_REQUIREMENT

    assert PEER_REQUIREMENT.keys() == {row.group for row in RUNTIMES.values() if row.peer}
    for requirement in PEER_REQUIREMENT.values():
        assert requirement.keys() >= set(PRECISIONS["onnx"])


# The graph that ONNX Runtime makes.


def test_the_int8_graph_runs_in_integers(cli: Cli, copy: Path) -> None:
    cli("verify", copy, "--runtime", "onnxruntime", "-q")
    gate = gates_of(copy)["census", ONNX[1]]
    graph = onnx.load(copy / ONNX[1]).graph
    convolutions = sum(node.op_type == "Conv" for node in graph.node)
    assert gate["outcome"] == "passed" and convolutions > 10
    assert gate["figures"]["operator QLinearConv"] == convolutions
    assert gate["figures"]["in_integers"] == convolutions + 1 and gate["figures"]["in_float"] == 0 and gate["figures"]["transposes"] <= 1


def test_a_convolution_that_fell_back_to_float_is_found(cli: Cli, copy: Path) -> None:
    """A clip that the quantized range does not imply stands between a convolution and its rounding: no integer kernel does that."""
    file = copy / ONNX[1]
    model = onnx.load(file)
    clip = next(node for node in model.graph.node if node.op_type == "Clip")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(5.0), "narrower"))
    clip.input[2] = "narrower"
    onnx.checker.check_model(model)
    onnx.save(model, file)
    reseal(copy)
    cli("verify", copy, "--runtime", "onnxruntime", "-q", code=1)
    gate = gates_of(copy)["census", ONNX[1]]
    assert gate["outcome"] == "failed" and gate["figures"]["in_float"] == 1 and "1 in float" in gate["reason"]
