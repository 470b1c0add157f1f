"""The gates: logits in, outcome out. Nothing here runs a model.

Float gates compare logits; int8 gates compare in quanta, the scale of the quantized logits; the task
gate compares what counts for people, with a paired bootstrap. The bounds are the project's contract.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from melanoma_edge import calibration, paired
from melanoma_edge.contract import INTEGER, Artifact, Manifest
from melanoma_edge.proof.parity_model import Flip, Gate

FLOAT_TOLERANCE = 1e-3
"""Largest difference of a float32 logit, as a share of the range of the reference's logits."""
AGREEMENT = 0.99
"""Least top-1 agreement of float16 and dynamic-range artifacts."""
PTQ_AGREEMENT = 0.9
"""Least top-1 agreement of post-training int8 with the float network; below it the file is broken, and from AGREEMENT on it passes.
In between this gate cannot tell: no fake-quantized network says what such a file should compute. On the nine-class ISIC set a sound file
agrees on 97 %, and even one calibrated on black pictures on 92 %. What other top classes cost is for the task gate to say."""
INT8_P999 = 2
"""Largest 99.9th percentile of int8 differences to the fake-quantized network, in quanta."""
INT8_FLIP_MARGIN = 2
"""A top-1 flip is excused where the reference's margin is at most this many quanta."""
ONNX_QUANTA = 1
"""Largest difference of int8 ONNX to int8 TFLite, in quanta."""
PEER_TOLERANCE = 1e-4
"""Largest difference of a float32 logit between two runtimes, as a share of the range of the logits."""
PEER_REQUIREMENT = {
    group: dict.fromkeys(sorted(INTEGER), exact) | {"float32": f"max difference <= {PEER_TOLERANCE:g} of the logit range", "float16": f"top-1 agreement >= {AGREEMENT:.0%}"}
    for group, exact in {
        "arm64": "0 quanta",
        "browser": "0 quanta",
        "kernels": f"top-1 agreement >= {AGREEMENT:.0%}, flips within a margin of {INT8_FLIP_MARGIN} quanta apart",
    }.items()
}
"""What must hold of one file on two runtimes: {group of the runtime: {precision: requirement in words}}. The kernel families round
int8 differently by design (by up to 5 quanta on a small trained network), so what is judged there is the answer."""
ONNX_INTEGER = ("QLinearConv", "QGemm", "QLinearMatMul", "MatMulInteger", "ConvInteger")
ONNX_FLOATING = ("Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")
"""What ONNX Runtime's optimized graphs call integer and float convolutions and dense layers."""
PROBABILITY_TOLERANCE = 1e-6
"""Largest difference of a probability that the graph computes in float32 from that of the logits in float64."""
TASK_LOSS = 0.01
"""A loss of one point; the gate fails when the whole interval lies beyond it."""
TASK_REQUIREMENT = f"no figure's whole 95 % interval of the loss lies beyond {TASK_LOSS * 100:g} point"
ONNX_REQUIREMENT = f"max <= {ONNX_QUANTA} quantum"
MOST_QUANTA = 2.0**62
MAX_FLIPS = 200
"""Flips that are listed; the count is always whole."""

Logits = np.ndarray


def float_gate(artifact: Artifact, runtime: str, reference: str, found: Logits, expected: Logits, pictures: Sequence[str], classes) -> Gate:
    """Compare an artifact of the float network with it: float32 by difference, the others by agreement."""
    if artifact.precision == "float32":
        requirement = f"max difference <= {FLOAT_TOLERANCE:g} of the logit range, top-1 agreement 100 %"
    else:
        requirement = f"top-1 agreement >= {AGREEMENT:.0%}" + (f" (compared with float32 only; from {PTQ_AGREEMENT:.0%} on the task gate decides)" if artifact.integer else "")
    about = {"name": artifact.precision, "artifact": artifact.name, "runtime": runtime, "reference": reference, "requirement": requirement}
    if broken := _broken(found, expected, pictures):
        return Gate(**about, **broken)
    figures = _difference_figures(found, expected)
    agreement = figures["top1_agreement"]
    if artifact.precision == "float32":
        holds = figures["max_difference"] <= FLOAT_TOLERANCE * figures["logit_range"] and agreement == 1.0
    else:
        holds = agreement >= AGREEMENT
    outcome = "passed" if holds else "failed"
    reason = None if holds else f"difference {figures['share_of_range']:.2g} of the range, agreement {agreement:.2%}"
    if not holds and artifact.integer and agreement >= PTQ_AGREEMENT:
        outcome, reason = "inconclusive", f"agreement {agreement:.2%}: whether that costs anything is for the task gate to say, on labelled pictures (--data)"
    elif holds and (alike := _all_alike(expected, classes)) and (artifact.precision != "float32" or not _spread(expected)):
        outcome, reason = "inconclusive", alike
    return Gate(
        **about,
        outcome=outcome,
        reason=reason,
        pictures=len(found),
        figures=figures,
        **_flips(found, expected, pictures, classes),
    )


def _spread(expected: Logits) -> bool:
    """Return whether the logits differ by more than float32 rounds."""
    return float(np.ptp(expected)) > 1e-5 * float(np.abs(expected).max(initial=0.0))


def _all_alike(expected: Logits, classes) -> str | None:
    """Return why agreement with such a reference proves nothing, None where it proves something."""
    first = np.unique(expected.argmax(axis=1))
    if len(expected) < 2 or len(first) > 1:
        return None
    return f"the reference answers {classes[int(first[0])]!r} to every picture, so agreement proves nothing: give pictures of several classes with --data, and look at what the model was fed"


def int8_gate(artifact: Artifact, runtime: str, reference: str, found: Logits, expected: Logits, pictures: Sequence[str], classes) -> Gate:
    """Compare int8 TFLite with the fake-quantized Keras network (or a model of somebody else's with itself as it came), in quanta."""
    requirement = f"99.9th percentile <= {INT8_P999} quanta; flips only where the margin is <= {INT8_FLIP_MARGIN} quanta"
    about = {"name": "int8", "artifact": artifact.name, "runtime": runtime, "reference": reference, "requirement": requirement}
    if broken := _broken(found, expected, pictures):
        return Gate(**about, **broken)
    quanta = to_quanta(found, expected, artifact.quantum)
    flips = _flips(found, expected, pictures, classes)
    beyond = _beyond(found, expected, artifact.quantum)
    p999 = float(np.percentile(quanta, 99.9))
    holds = p999 <= INT8_P999 and beyond == 0
    return Gate(
        **about,
        outcome="passed" if holds else "failed",
        reason=None if holds else f"99.9th percentile {p999:g} quanta, {beyond} flips beyond the margin",
        pictures=len(found),
        figures=_quanta_figures(quanta, found, expected) | {"p99.9_quanta": p999, "flips_beyond_margin": beyond},
        **flips,
    )


def onnx_gate(artifact: Artifact, runtime: str, found: Logits, expected: Logits, quantum: float, pictures: Sequence[str], classes) -> Gate:
    """Compare int8 ONNX with the TFLite file of the same precision, in quanta."""
    about = {"name": "int8-onnx", "artifact": artifact.name, "runtime": runtime, "reference": twin_of(artifact), "requirement": ONNX_REQUIREMENT}
    if broken := _broken(found, expected, pictures):
        return Gate(**about, **broken)
    quanta = to_quanta(found, expected, quantum)
    holds = quanta.max() <= ONNX_QUANTA
    return Gate(
        **about,
        outcome="passed" if holds else "failed",
        reason=None if holds else f"max {int(quanta.max())} quanta",
        pictures=len(found),
        figures=_quanta_figures(quanta, found, expected),
        **_flips(found, expected, pictures, classes),
    )


def twin_of(artifact: Artifact) -> str:
    """Return what an int8 ONNX artifact is compared with, in words."""
    return f"{artifact.precision} TFLite"


def peer_requirement(group: str, artifact: Artifact) -> str:
    """Return what must hold of `artifact` on a runtime of `group`, in words."""
    return PEER_REQUIREMENT[group][_compared_as(artifact)]


def _compared_as(artifact: Artifact) -> str:
    """Return the precision whose requirement holds: quanta need a quantum."""
    in_quanta = artifact.integer and artifact.quantum is not None
    return "float16" if artifact.precision == "dynamic" or (artifact.integer and not in_quanta) else artifact.precision


def peer_gate(group: str, artifact: Artifact, runtime: str, peer: str, found: Logits, expected: Logits, pictures: Sequence[str], classes) -> Gate:
    """Compare one file on two runtimes: other kernels, another processor or a browser with this machine's."""
    in_quanta = artifact.integer and artifact.quantum is not None
    precision = _compared_as(artifact)
    about = {"name": group, "artifact": artifact.name, "runtime": runtime, "reference": peer, "requirement": peer_requirement(group, artifact)}
    if broken := _broken(found, expected, pictures):
        return Gate(**about, **broken)
    flips = _flips(found, expected, pictures, classes)
    if in_quanta:
        quanta = to_quanta(found, expected, artifact.quantum)
        figures = _quanta_figures(quanta, found, expected)
        if group == "kernels":
            figures |= {"p99.9_quanta": float(np.percentile(quanta, 99.9)), "flips_beyond_margin": _beyond(found, expected, artifact.quantum)}
            holds = figures["flips_beyond_margin"] <= (1 - AGREEMENT) * len(found)
        else:
            holds = figures["max_quanta"] == 0
        reason = f"max {figures['max_quanta']} quanta, {figures['share_of_logits_off']:.2%} of logits off, {flips['flip_count']} flips"
    else:
        figures = _difference_figures(found, expected)
        holds = figures["share_of_range"] <= PEER_TOLERANCE if precision == "float32" else figures["top1_agreement"] >= AGREEMENT
        reason = f"difference {figures['share_of_range']:.2g} of the range, agreement {figures['top1_agreement']:.2%}"
    return Gate(**about, outcome="passed" if holds else "failed", reason=None if holds else reason, pictures=len(found), figures=figures, **flips)


def census_gate(artifact: Artifact, runtime: str, operators: dict[str, int], *, transposes: bool = True) -> Gate:
    """Judge the graph that ONNX Runtime made of an int8 file: every convolution and dense layer in integers.

    `transposes` says whether these count, too: those in a network of somebody else's are its own. Our file itself has one
    where it takes NHWC, of the picture, and none where it takes NCHW. ONNX Runtime's integer
    kernels work on NHWC and it moves transposes accordingly: that of the picture cancels out, or comes in for NCHW,
    and one of the pooled features, which moves no byte, comes in behind.
    """
    integer = sum(operators.get(name, 0) for name in ONNX_INTEGER)
    floating = sum(operators.get(name, 0) for name in ONNX_FLOATING)
    turns, in_file = operators.get("Transpose", 0), artifact.operators.get("Transpose", 0)
    if not transposes:
        turned, allowed = True, ""
    elif artifact.layout == "NHWC":
        turned, allowed = turns <= 1, "; at most the input's transpose"
    else:
        turned, allowed = turns <= 2 and in_file == 0, "; no transpose in the file, at most ONNX Runtime's own two"
    holds = integer > 0 and floating == 0 and turned
    return Gate(
        name="census",
        artifact=artifact.name,
        runtime=runtime,
        reference="",
        requirement=f"every convolution and dense layer in integers, none in float{allowed}",
        outcome="passed" if holds else "failed",
        reason=None if holds else f"{integer} in integers, {floating} in float, {turns} transposes ({in_file} in the file): {_counted(operators)}",
        figures={"in_integers": integer, "in_float": floating, "transposes": turns, "transposes_in_file": in_file} | {f"operator {name}": n for name, n in operators.items()},
    )


def _counted(operators: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in operators.items())


def golden_gate(artifact: Artifact, runtime: str, found: Logits, expected: Logits, pictures: Sequence[str], classes) -> Gate:
    """Compare this machine's logits of the golden pictures with those that stand in the bundle."""
    in_quanta = artifact.integer and artifact.quantum is not None
    requirement = "0 quanta" if in_quanta else f"max difference <= {FLOAT_TOLERANCE:g} of the logit range"
    about = {"name": "golden", "artifact": artifact.name, "runtime": runtime, "reference": "logits in the bundle", "requirement": requirement}
    if broken := _broken(found, expected, pictures):
        return Gate(**about, measured_on="golden pictures", **broken)
    if in_quanta:
        quanta = to_quanta(found, expected, artifact.quantum)
        holds, figures = quanta.max() == 0, _quanta_figures(quanta, found, expected)
    else:
        difference = float(np.abs(found.astype(np.float64) - expected).max())
        span = float(expected.max() - expected.min())
        holds = difference <= FLOAT_TOLERANCE * span
        figures = {"max_difference": difference, "logit_range": span}
    return Gate(
        **about,
        outcome="passed" if holds else "failed",
        reason=None if holds else "this machine computes something else than the machine that exported",
        pictures=len(found),
        measured_on="golden pictures",
        figures=figures,
        **_flips(found, expected, pictures, classes),
    )


def probabilities_gate(manifest: Manifest, artifact: Artifact, runtime: str, found: np.ndarray, logits: Logits, pictures: Sequence[str]) -> Gate:
    """Compare the file that gives probabilities (`found`) with what the artifact's own `logits` come to outside of the graph."""
    requirement = f"max difference <= {PROBABILITY_TOLERANCE:g}"
    about = {"name": "probabilities", "artifact": artifact.probabilities.name, "runtime": runtime, "reference": artifact.name, "requirement": requirement}
    if broken := _broken(found, logits, pictures):
        return Gate(**about, **broken)
    expected = calibration.probabilities(logits, artifact.decision.temperature, *calibration.priors_of(manifest))
    difference = float(np.abs(found - expected).max())
    holds = difference <= PROBABILITY_TOLERANCE
    return Gate(
        **about,
        outcome="passed" if holds else "failed",
        reason=None if holds else f"a probability is {difference:.1e} from that of the artifact's logits",
        pictures=len(found),
        figures={"max_difference": difference},
    )


def task_gate(
    manifest: Manifest, artifact: Artifact, baseline: Artifact, runtime: str, found: Logits, expected: Logits, labels, groups, pictures: Sequence[str]
) -> Gate:
    """Compare an int8 artifact with the float32 one on what counts, by paired intervals over lesions.

    Without a positive class balanced accuracy is judged alone. A bundle without fitted thresholds has no sensitivity that could be lost:
    the gate concludes on the other figures, and its reason says so. Where one of the two models has a threshold and the other
    has not, it cannot pass.
    """
    about = {"name": "task", "artifact": artifact.name, "runtime": runtime, "reference": baseline.name, "requirement": TASK_REQUIREMENT}
    if broken := _broken(found, expected, pictures):
        return Gate(**about, **broken)
    classes = manifest.classes
    reference, candidate = (
        calibration.probabilities(calibration.as_logits(outputs, manifest.output), model.decision.temperature, *calibration.priors_of(manifest))
        for outputs, model in ((expected, baseline), (found, artifact))
    )
    thresholds = [model.decision.operating() for model in (baseline, artifact)]
    losses = paired.paired_losses(
        reference,
        candidate,
        labels,
        classes,
        manifest.positive_class,
        reference_threshold=thresholds[0].probability if thresholds[0] else None,
        candidate_threshold=thresholds[1].probability if thresholds[1] else None,
        groups=groups,
    )
    judged, without = dict(losses), [model.name for model, threshold in zip((baseline, artifact), thresholds) if threshold is None]
    if manifest.positive_class is None:
        judged, without = {"balanced_accuracy": losses["balanced_accuracy"]}, []
    elif without:
        del judged["positive_sensitivity"]
    outcome, reason = task_outcome(judged)
    if len(without) == 1 and outcome == "passed":
        outcome = "inconclusive"
    if without:
        remedy = "labelled pictures at export (--data) give it one" if len(without) == 2 else "export the bundle again"
        note = f"positive_sensitivity is left out: no threshold was fitted for {' and '.join(without)}; {remedy}"
        reason = f"{reason}; {note}" if reason else note
    return Gate(
        **about,
        outcome=outcome,
        reason=reason,
        pictures=len(labels),
        losses=losses,
        recall_change=paired.recall_change(reference, candidate, labels, classes),
        **_flips(found, expected, pictures, classes),
    )


def task_outcome(losses: dict) -> tuple[str, str | None]:
    """Return (outcome, reason): failed when a whole interval lies beyond the bound, inconclusive when one
    reaches beyond it or is undefined, passed when all end within it."""
    defined = {name: loss for name, loss in losses.items() if loss.low is not None}
    beyond = [name for name, loss in defined.items() if loss.low > TASK_LOSS]
    unsure = [name for name, loss in defined.items() if loss.high > TASK_LOSS]
    missing = [name for name in losses if name not in defined]
    if beyond:
        return "failed", f"the loss of {', '.join(beyond)} lies wholly beyond {TASK_LOSS * 100:g} point"
    if unsure or missing:
        parts = [f"the interval of {', '.join(unsure)} reaches beyond {TASK_LOSS * 100:g} point"] if unsure else []
        parts += [f"{', '.join(missing)} {'are' if len(missing) > 1 else 'is'} undefined"] if missing else []
        return "inconclusive", f"{' and '.join(parts)}: the set is too small to tell; give more labelled pictures with --data"
    return "passed", None


def not_run(name: str, artifact: str, runtime: str, reference: str, requirement: str, reason: str) -> Gate:
    """Return a gate that could not be carried out, with the reason and what would make it run."""
    return Gate(name=name, artifact=artifact, runtime=runtime, reference=reference, requirement=requirement, outcome="not run", reason=reason)


def broke_off(name: str, artifact: str, runtime: str, reference: str, requirement: str, reason: str) -> Gate:
    """Return the failed gate of a runtime that is there and crashed, hung or refused the artifact."""
    return Gate(name=name, artifact=artifact, runtime=runtime, reference=reference, requirement=requirement, outcome="failed", reason=reason)


def to_quanta(found: Logits, expected: Logits, quantum: float) -> np.ndarray:
    """Return absolute differences as whole quanta (int64, the shape of the logits); very many for NaN and infinity."""
    quanta = np.rint(np.abs(found.astype(np.float64) - expected.astype(np.float64)) / quantum)
    return np.minimum(np.nan_to_num(quanta, nan=np.inf), MOST_QUANTA).astype(np.int64)


def _broken(found: Logits, expected: Logits, pictures: Sequence[str]) -> dict | None:
    """Return what a gate has to say where logits are NaN or infinite, None where all are numbers.

    No comparison can be trusted with them: NaN is neither above a bound nor below it.
    """
    rows = np.flatnonzero(~(np.isfinite(found) & np.isfinite(expected)).all(axis=1))
    if len(rows) == 0:
        return None
    reason = f"NaN or infinity among the logits of {len(rows)} of {len(found)} pictures (first: {pictures[rows[0]]})"
    return {"outcome": "failed", "reason": reason, "pictures": len(found), "figures": {"pictures_not_finite": len(rows)}}


def _beyond(found: Logits, expected: Logits, quantum: float) -> int:
    """Return how many flips lie where the reference's margin is more than INT8_FLIP_MARGIN quanta."""
    return int((_margins(found, expected) > INT8_FLIP_MARGIN * quantum * (1 + 1e-6)).sum())


def _difference_figures(found: Logits, expected: Logits) -> dict[str, float]:
    largest, span = float(np.abs(found.astype(np.float64) - expected).max()), float(expected.max() - expected.min())
    return {
        "max_difference": largest,
        "logit_range": span,
        "share_of_range": largest / span if span else 0.0,
        "top1_agreement": float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()),
    }


def _quanta_figures(quanta: np.ndarray, found: Logits, expected: Logits) -> dict[str, float | int]:
    return {
        "max_quanta": int(quanta.max()),
        "share_of_logits_off": float((quanta > 0).mean()),
        "top1_agreement": float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()),
    }


def _margins(found: Logits, expected: Logits) -> np.ndarray:
    """Return for each flipped picture the reference's lead of its own first choice over the candidate's."""
    rows = np.flatnonzero(found.argmax(axis=1) != expected.argmax(axis=1))
    return expected[rows].max(axis=1) - expected[rows, found[rows].argmax(axis=1)]


def _flips(found: Logits, expected: Logits, pictures: Sequence[str], classes) -> dict:
    """Return the gate's `flips` (largest margin first, at most MAX_FLIPS) and their whole count."""
    rows = np.flatnonzero(found.argmax(axis=1) != expected.argmax(axis=1))
    flips = [
        Flip(picture=pictures[row], reference=classes[int(expected[row].argmax())], candidate=classes[int(found[row].argmax())], margin=float(margin))
        for row, margin in zip(rows, _margins(found, expected))
    ]
    flips.sort(key=lambda flip: (-flip.margin, flip.picture))
    return {"flips": tuple(flips[:MAX_FLIPS]), "flip_count": len(flips)}
