"""The roofline: its single convolutions compute what they should, cutting a network changes nothing before the cut, and every layer's time stands beside its share of the peak."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import read_json, snapshot
from PIL import Image
from tiny_bundle import write_bundle

from melanoma_edge.errors import BadInput

REPOSITORY = Path(__file__).parents[1]
BENCHMARKS, BUNDLE = REPOSITORY / "benchmarks", REPOSITORY / "samples" / "reference.bundle"
needs_bundle = pytest.mark.skipif(not BUNDLE.is_dir(), reason="samples/reference.bundle is not in this checkout: make reference")
pytestmark = pytest.mark.xdist_group("roofline")


def program(*arguments: object, code: int = 0) -> tuple[str, str]:
    """Run the program to its end and return what it wrote to standard output and error."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, str(BENCHMARKS / "roofline.py"), *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def modules():
    """The program and its parts as modules."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import roofline
        import roofline_models
    finally:
        sys.path.remove(str(BENCHMARKS))
    return SimpleNamespace(judge=roofline, models=roofline_models)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict]:
    """The folder of the results, what was printed, and the figures."""
    if not BUNDLE.is_dir():
        pytest.skip("samples/reference.bundle is not in this checkout: make reference")
    folder, kept = tmp_path_factory.mktemp("roofline") / "results", [BENCHMARKS / "results", REPOSITORY / "docs"]
    before = [snapshot(one) for one in kept]
    out, _ = program("--quick", "--bundle", BUNDLE, "--results", folder)
    assert [snapshot(one) for one in kept] == before, "a quick run stays out of results/ and docs/"
    return folder, out, read_json(folder / "roofline.json")["figures"]


def run(content: bytes, picture: np.ndarray) -> tuple[np.ndarray, dict]:
    """Return what a TFLite model makes of `picture`, and the description of its output."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture)
    interpreter.invoke()
    [given] = interpreter.get_output_details()
    return interpreter.get_tensor(given["index"]), given


@pytest.mark.parametrize("kernel", [1, 3])
def test_single_convolutions_compute_what_they_are_counted_for(modules: SimpleNamespace, kernel: int) -> None:
    shape = modules.models.Convolution(5, 16, 8, kernel)
    assert shape.multiply_accumulates == 5 * 5 * 16 * 8 * kernel**2
    picture = np.random.default_rng(3).integers(-20, 20, (1, 5, 5, 16))
    real, _ = run(modules.models.single(shape, "float32"), (picture * 0.05).astype(np.float32))
    random = np.random.default_rng(1)
    weights, bias = random.integers(-127, 128, (8, kernel, kernel, 16)), random.integers(-1000, 1000, 8)
    edge = kernel // 2
    padded = np.pad(picture, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded[0], (kernel, kernel), axis=(0, 1))
    expected = np.einsum("yxcij,oijc->yxo", windows, weights) * 0.05e-3
    assert np.allclose(real[0], expected + bias * 1e-3, atol=1e-4)
    whole, given = run(modules.models.single(shape, "int8"), picture.astype(np.int8))
    scale, _ = given["quantization"]
    expected = np.clip(np.rint((expected + bias * 0.05e-3) / scale), -128, 127)
    assert given["dtype"] == np.int8 and np.abs(whole[0] - expected).max() <= 1 and np.ptp(expected) > 5


@needs_bundle
def test_a_cut_network_computes_what_the_whole_one_does(modules: SimpleNamespace) -> None:
    content = (BUNDLE / "default-int8.tflite").read_bytes()
    operators, prefixes = modules.models.operators(content), modules.models.prefixes(content)
    assert len(operators) == len(prefixes) and operators[-1].operator == "DEQUANTIZE"
    picture = np.random.default_rng(2).integers(0, 256, (1, 176, 176, 3), np.uint8)
    (logits, given), (whole, _), (cut, before) = run(prefixes[-1], picture), run(content, picture), run(prefixes[-2], picture)
    assert np.array_equal(logits, whole) and given["dtype"] == np.float32
    scale, zero_point = before["quantization"]
    assert np.allclose((cut.astype(np.float64) - zero_point) * scale, whole), "what the last operator reads"
    shapes = [tuple(run(prefix, picture)[0].shape) for prefix in prefixes]
    assert shapes == [one.shape for one in operators]


@needs_bundle
def test_every_layer_stands_there_with_its_time_and_its_share_of_the_peak(modules: SimpleNamespace, measured: tuple[Path, str, dict]) -> None:
    _, out, figures = measured
    counted = read_json(BENCHMARKS / "results" / "reference.json")["figures"]["multiply_accumulates"]
    tried = [str(shape) for shape in modules.models.SHAPES]
    for precision in ("int8", "float32"):
        found, peak = figures["litert"][precision], figures["peak"][precision]
        assert [row["convolution"] for row in peak["tried"]] == tried and peak["gmacs_per_second"] == max(row["gmacs_per_second"] for row in peak["tried"]) > 0
        assert found["whole"]["multiply_accumulates"] == sum(row["multiply_accumulates"] for row in found["layers"])
        assert found["whole"]["multiply_accumulates"] == counted, "pooling and additions have none"
        assert sum(kind["operators"] for kind in found["kinds"].values()) == len(found["layers"])
        for row in (*found["layers"], *found["kinds"].values(), found["whole"]):
            assert row["us"]["low"] <= row["us"]["value"] <= row["us"]["high"] and row["within_noise"] == (row["us"]["low"] <= 0)
            assert (row["gmacs_per_second"] is None) == (row["within_noise"] or not row["multiply_accumulates"])
            if row["gmacs_per_second"] is not None:
                assert row["gmacs_per_second"] == pytest.approx(row["multiply_accumulates"] / row["us"]["value"] / 1000, rel=1e-3, abs=0.006)
                assert row["share_of_peak"] == pytest.approx(row["gmacs_per_second"] / peak["gmacs_per_second"], rel=1e-2, abs=2e-4)
        onnx = figures["onnxruntime"][precision]
        assert sum(kind["multiply_accumulates"] for kind in onnx["kinds"].values()) == counted - 240 * 8, "all but the dense layer's: 240 channels, 8 classes"
        assert 0 < onnx["bare_us"] and 0 < onnx["sum_of_nodes_us"] <= onnx["profiled_us"] * 1.5 and len(onnx["nodes"]) >= 20
        assert onnx["kinds"]["pointwise"]["nodes"] == onnx["kinds"]["depthwise"]["nodes"] == 9
    assert [row["kind"] for row in figures["litert"]["float32"]["layers"]][:3] == ["stem", "depthwise", "pointwise"]
    assert figures["litert"]["int8"]["layers"][0]["kind"] == "entry"
    judged = figures["judged"]["pointwise_share_of_int8_peak"]
    assert judged["value"] == figures["litert"]["int8"]["kinds"]["pointwise"]["share_of_peak"]
    assert judged["outcome"] == ("not measured" if judged["value"] is None else "reached" if judged["value"] >= 0.5 else "missed")
    assert all(row["name"] in out for row in figures["litert"]["int8"]["layers"]) and "with its profiler on" in out


@needs_bundle
def test_the_tables_are_printed_again_without_measuring(measured: tuple[Path, str, dict]) -> None:
    folder, _, figures = measured
    before = snapshot(folder)
    out, err = program("--markdown", "--results", folder)
    assert err == "" and snapshot(folder) == before
    lines = [line.strip("| ").split(" | ")[0] for line in out.splitlines() if line.startswith("| ")][2:]
    assert lines[-1] == "whole network" and "pointwise" in lines and "Not comparable: --quick" in out
    with Image.open(folder / "roofline.png") as drawn:
        assert drawn.format == "PNG" and min(drawn.size) > 600


def test_the_interval_of_a_median_knows_of_processes_and_noise_is_called_so(modules: SimpleNamespace) -> None:
    random = np.random.default_rng(1)
    alike = modules.judge.median(10 + random.normal(0, 0.1, (4, 25)))
    apart = modules.judge.median(10 + random.normal(0, 0.1, (4, 25)) + np.array([[-1.0], [-0.5], [0.5], [1.0]]))
    assert alike["low"] < 10 < alike["high"] and alike["high"] - alike["low"] < 0.1, "one median of a hundred values"
    assert apart["low"] < 9.6 and apart["high"] > 10.4, "four processes that do not agree are four values, not a hundred"
    assert modules.judge.median(np.array([[2.0, 2.0], [2.0, 2.0]])) == {"value": 2.0, "low": 2.0, "high": 2.0}
    hidden = modules.judge.speed(1_000_000, {"value": 5.0, "low": -1.0, "high": 9.0}, 200.0)
    assert hidden["within_noise"] and hidden["gmacs_per_second"] is None and hidden["share_of_peak"] is None
    known = modules.judge.speed(1_000_000, {"value": 10.0, "low": 9.0, "high": 11.0}, 200.0)
    assert (known["within_noise"], known["gmacs_per_second"], known["share_of_peak"]) == (False, 100.0, 0.5)
    assert modules.judge.steady([[1.0] * 5, [1.0] * 4 + [9.0]]) and not modules.judge.steady([[1.0] * 5, [1.0] * 3 + [9.0] * 2])


def test_what_does_not_fit_is_refused_in_one_line(modules: SimpleNamespace, tmp_path: Path) -> None:
    one = modules.models.Operator("stem", "stem", "CONV_2D", (1, 8, 8, 4), 100)
    node = {"name": "Conv_0", "operator": "QLinearConv", "shape": [1, 4, 4, 4], "us": 3.0}
    with pytest.raises(BadInput, match="expected files of one network"):
        modules.judge.kernels([one], {"nodes": [node]})
    lacking = write_bundle(tmp_path / "tiny.bundle")
    out, err = program("--quick", "--bundle", lacking, "--results", tmp_path / "results", code=2)
    assert out == "" and err.count("\n") == 1 and err.startswith("roofline: ") and "has no int8 onnx file" in err and not (tmp_path / "results").exists()
