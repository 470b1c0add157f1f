"""Commands about bundles: `export`, `verify`, `diff`, `predict`, `report`.

Each parses its options, calls one library function and prints what came back.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from melanoma_edge.cli.failing import fail_if, fail_if_any, fail_if_suspect
from melanoma_edge.cli.group import command, line, show
from melanoma_edge.cli.model_options import model_options
from melanoma_edge.cli.options import FOLDER, cache_option, force_option, json_option, junit_option, metadata_option, names, wrong


@command
@click.argument("run", type=FOLDER, required=False)
@click.option("--tflite", is_flag=True, help="TFLite artifacts (no format named: all).")
@click.option("--onnx", is_flag=True, help="ONNX artifacts.")
@click.option("--precision", default="", metavar="LIST", help="Comma-separated: float32, float16, dynamic, int8 [default: these]; int8-ptq, quantized after training, to compare with.")
@click.option("--layout", type=click.Choice(["nhwc", "nchw"], case_sensitive=False), default="nhwc", show_default=True, help="Order of the input's axes in ONNX files; TFLite takes NHWC.")
@click.option(
    "--head",
    type=click.Choice(["logits", "probabilities"]),
    default="logits",
    show_default=True,
    help="probabilities: a second file beside each TFLite artifact that ends in calibrated probabilities.",
)
@click.option("--coreml", is_flag=True, help="Core ML packages too, for Apple's systems (first: melanoma-edge setup coreml).")
@click.option("--out", type=FOLDER, help="Bundle folder [default: bundles/RUN.bundle]; of all folds, a folder of bundles [default: bundles/RUN].")
@click.option("--data", type=FOLDER, help="Where the run's pictures are now, if they moved; with --model, labelled pictures to fit decisions on and to score.")
@click.option("--licence", help="Terms of the weights, for the manifest, the model card and LICENCE.txt.")
@click.option("--attribution", "attributions", multiple=True, metavar="TEXT", help="Whom or what the terms want named, for the card and LICENCE.txt; may be repeated.")
@click.option("--remark", "remarks", multiple=True, metavar="TEXT", help="What is to be known of the figures, for the card; may be repeated.")
@click.option("--cross-validation", type=FOLDER, metavar="FILE", help="Figures for the card and the report to quote: the cross-validation.json of all folds of the same recipe.")
@model_options
@force_option
@json_option
def export(run, tflite, onnx, precision, layout, head, coreml, out, data, licence, attributions, remarks, cross_validation, own, force, as_json, quiet, verbose):
    """Export a run (the newest one without RUN), or a model file of your own, as a verified bundle.

    Of a folder of folds (train --folds), every fold becomes a bundle, and cross-validation.json says what their files come to on all pictures.

    \b
    Example: melanoma-edge export runs/default-1 --tflite --out my.bundle
    Example: melanoma-edge export runs/default-1 --precision float32,int8,int8-ptq
    Example: melanoma-edge export runs/final --cross-validation bundles/default-folds/cross-validation.json
    Example: melanoma-edge export --model net.onnx --classes labels.txt --input-range 0,1 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
    """
    from melanoma_edge.cli.show_bundle import show_bundle, show_parity
    from melanoma_edge.model.run import is_folds, newest_run
    from melanoma_edge.proof.export import export as library

    precisions = names(precision)
    if own is not None and run is not None:
        raise wrong(f"{run} and --model {own.model} are two things to export: name one of them")
    run = run or (newest_run() if own is None else own.model.with_suffix(""))
    folds = own is None and is_folds(run)
    out = out or Path("bundles") / (run.resolve().name if folds else f"{run.resolve().name}.bundle")
    screen = show(quiet, verbose)
    formats = [name for name, wanted in (("tflite", tflite), ("onnx", onnx)) if wanted]
    said = {"licence": licence, "attributions": attributions, "remarks": remarks}
    if own is not None:
        if layout != "nhwc":
            raise wrong("--layout is for the ONNX files of a run: a model of your own keeps the order of axes that its file has; leave it out")
        if head != "logits" or coreml:
            raise wrong("--head and --coreml are for runs: a model of your own gives what its file gives; leave them out")
        if cross_validation is not None:
            raise wrong("--cross-validation speaks of a recipe, and how a model of your own was trained is not known: leave it out")
        from melanoma_edge.proof.export_model import export_model

        with screen.steps("exporting") as progress:
            parity = export_model(
                own.model, out, own.declared(), formats=formats, precisions=precisions, calibrate=own.calibrate, data=data, force=force,
                command=line(), progress=progress, **said,
            )  # fmt: skip
        show_bundle(screen, out, as_json)
        show_parity(screen, parity, as_json)
        return fail_if(parity)
    options = {"formats": formats, "precisions": precisions, "layout": layout.upper(), "head": head, "coreml": coreml, "data": data, "force": force, **said}
    if folds:
        if cross_validation is not None:
            raise wrong(f"{run} holds folds, from which cross-validation.json is made: leave out --cross-validation, or name the one run that is to quote it")
        from melanoma_edge.cli.show_cross_validation import show_cross_validation
        from melanoma_edge.proof.cross_validation import export_folds

        with screen.steps("exporting") as progress:
            exported = export_folds(run, out, command=line(), progress=progress, **options)
        show_cross_validation(screen, exported, as_json)
        return fail_if_any(exported.parities)
    with screen.steps("exporting") as progress:
        parity = library(run, out, cross_validation=cross_validation, command=line(), progress=progress, **options)
    show_bundle(screen, out, as_json)
    show_parity(screen, parity, as_json)
    fail_if(parity)


def _refuse_lonely(metadata: Path | None, data: Path | None) -> None:
    """Refuse a table of pictures without the pictures."""
    if metadata is not None and data is None:
        raise wrong(f"--metadata {metadata} is the table of a data set, and none is given: name its folder with --data, or leave --metadata out")


@command
@click.argument("bundle", type=FOLDER)
@click.option("--data", type=FOLDER, help="Labelled pictures, which the task gate needs: class folders or any other data set [default: drawn probes].")
@metadata_option
@click.option("--run", type=FOLDER, help="The run that the bundle came from [default: the one that it remembers].")
@click.option("--model", type=FOLDER, metavar="FILE", help="The model file that the bundle was made from [default: the one that it remembers].")
@click.option("--runtime", "runtimes", multiple=True, metavar="NAME", help="What to run: a runtime, kernels, arm64, browser, or all; may be repeated [default: those of this machine].")
@click.option("--require", multiple=True, metavar="RUNTIME", help="Fail (exit 3) when this runtime or group of them (arm64, browser, kernels), or the gate `task`, cannot be carried out.")
@click.option("--layers", is_flag=True, help="Instead of the gates: find the layer where two runtimes part, and fail (exit 1) when rounding does not explain its error.")
@click.option("--thumbnails", is_flag=True, help="Keep small pictures of the flips of --data in evidence/, for the report: photographs of people, so mind who gets it.")
@junit_option
@cache_option
@json_option
def verify(bundle, data, metadata, run, model, runtimes, require, layers, thumbnails, junit, cache, as_json, quiet, verbose):
    """Carry out every parity gate that this machine can, for every artifact and runtime.

    With --layers, compare the tensors of every layer instead, end to end and each layer alone: int8 TFLite with
    the fake-quantized network, int8 ONNX with int8 TFLite, float32 alike, and other kernels with LiteRT.

    \b
    Example: melanoma-edge verify my.bundle --data photographs
    Example: melanoma-edge verify my.bundle --runtime all
    Example: melanoma-edge verify my.bundle --layers
    Example: melanoma-edge verify my.bundle --data photographs --require task --junit gates.xml
    """
    _refuse_lonely(metadata, data)
    screen = show(quiet, verbose)
    if layers:
        if thumbnails or junit is not None:
            raise wrong("--layers carries out no gates: leave out --thumbnails and --junit, or --layers")
        if model is not None:
            raise wrong("--layers looks into networks of runs, not into models of others: leave out --model, or --layers")
        from melanoma_edge.cli.show_layers import show_layers
        from melanoma_edge.proof.layers import look

        with screen.steps("looking into layers") as progress:
            found = look(bundle, data=data, metadata=metadata, cache=cache, run=run, runtimes=runtimes, require=require, command=line(), progress=progress)
        show_layers(screen, found, as_json)
        return fail_if_suspect(found)
    from melanoma_edge.cli.show_bundle import show_parity
    from melanoma_edge.proof import junit as reports
    from melanoma_edge.proof.requirements import Unmet
    from melanoma_edge.proof.verify import verify as library

    if junit is not None:
        reports.check(junit)
    lacking = None
    with screen.steps("verifying") as progress:
        try:
            parity = library(
                bundle, data=data, metadata=metadata, cache=cache, run=run, model=model, runtimes=runtimes, require=require, thumbnails=thumbnails,
                command=line(), progress=progress,
            )  # fmt: skip
        except Unmet as error:  # what was carried out counts all the same
            parity, lacking = error.parity, error
    if junit is not None:
        reports.write(junit, reports.of_parity(parity, lacking=str(lacking) if lacking else None))
    show_parity(screen, parity, as_json)
    fail_if(parity)
    if lacking is not None:
        raise lacking


@command
@click.argument("bundle_a", type=FOLDER)
@click.argument("bundle_b", type=FOLDER)
@click.option("--data", type=FOLDER, help="Labelled pictures: both answer for those that neither used [default: the manifests' scores].")
@metadata_option
@click.option("--artifact", "artifacts", multiple=True, metavar="NAME", help="Only this artifact of A, or precision; may be repeated.")
@click.option("--max-loss", type=click.FloatRange(0, 1), help="Largest loss of balanced accuracy, positive sensitivity and positive AUC [default: 0.01].")
@click.option("--max-specificity-loss", type=click.FloatRange(0, 1), help="Largest loss of positive specificity at the decision [default: 0.05].")
@click.option("--max-coverage-loss", type=click.FloatRange(0, 1), help="Largest loss of the share of pictures that get an answer [default: 0.05].")
@click.option("--max-size-growth", type=click.FloatRange(0), help="Largest growth of a file, as a share [default: 0.10].")
@click.option("--max-flips", type=click.FloatRange(0, 1), help="Largest share of pictures with another first class [default: 0.01 for the same weights, else any].")
@click.option("--max-latency", type=click.FloatRange(0, min_open=True), help="Largest ratio of median times, where both were measured alike [default: 1.10].")
@click.option("--require", multiple=True, metavar="CHECK", help="Exit 1 unless every check of this name (contract, artifacts, balanced_accuracy, ...) passed.")
@click.option("--allow", multiple=True, metavar="CHECK", help="A check of this name may fail, which is then said and leaves the exit code alone; may be repeated.")
@junit_option
@cache_option
@json_option
def diff(bundle_a, bundle_b, data, metadata, artifacts, require, allow, junit, cache, as_json, quiet, verbose, **limits):
    """Show what differs between two bundles; exit 1 when B is worse than the tolerances allow. Writes nothing.

    A check fails when the whole 95 % interval of what was found lies beyond its tolerance, and is inconclusive when it reaches
    beyond. With --data, intervals are paired by picture and drawn by lesion. Without, they are put together from the scores in the
    manifests: wider, and only where both bundles were made from the same data. Latencies are compared only where `bench` measured
    both alike. What cannot be compared is said, and fails only when --require names it. Other classes, inputs or outputs fail, for an
    application that runs A would have to change: --allow contract where it will.

    \b
    Example: melanoma-edge diff released.bundle candidate.bundle --data photographs --max-loss 0.02
    Example: melanoma-edge diff old.bundle new.bundle --artifact int8 --max-flips 0 --require latency
    Example: melanoma-edge diff old.bundle larger.bundle --allow contract --allow size
    """
    from melanoma_edge.cli.show_diff import show_diff
    from melanoma_edge.proof import junit as reports
    from melanoma_edge.proof.diff import diff as library, refuse_worse, tolerances

    if junit is not None:
        reports.check(junit)
    _refuse_lonely(metadata, data)
    judged = tolerances(**limits)
    screen = show(quiet, verbose)
    with screen.steps("comparing") as progress:
        found = library(
            bundle_a, bundle_b, data=data, metadata=metadata, cache=cache, artifacts=artifacts, tolerances=judged, require=require, allow=allow,
            progress=progress,
        )  # fmt: skip
    if junit is not None:
        reports.write(junit, reports.of_difference(found, require))
    show_diff(screen, found, as_json)
    refuse_worse(found, require)


@command
@click.argument("bundle", type=FOLDER)
@click.argument("images", type=FOLDER, nargs=-1, required=True)
@click.option("--artifact", help="Artifact of the bundle [default: int8 TFLite].")
@click.option("--threads", default=1, show_default=True, help="Threads of each inference.")
@click.option("--processes", type=int, help="Processes that read pictures and run the model [default: one a core, fewer for few pictures].")
@json_option
def predict(bundle, images, artifact, threads, processes, as_json, quiet, verbose):
    """Classify pictures: calibrated probabilities in order. Not a medical device.

    BUNDLE is a bundle's folder, or `reference` for the one that is installed with melanoma-edge; so in evaluate and diff.

    \b
    Example: melanoma-edge predict my.bundle lesion.jpg
    Example: melanoma-edge predict reference lesion.jpg
    """
    from melanoma_edge.cli.show_bundle import show_predictions
    from melanoma_edge.proof.predict import predictions

    screen, rows = show(quiet, verbose), []
    with predictions(bundle, images, artifact=artifact, threads=threads, processes=processes) as (said_of_all, results), screen.bar("predicting") as bar:
        for row in results:
            rows.append(row)
            bar(len(rows), len(images))
    show_predictions(screen, {**said_of_all, "results": rows}, as_json)
    if any("error" in row for row in rows):
        sys.exit(2)


@command
@click.argument("subject", metavar="RUN_OR_BUNDLE", type=FOLDER)
@click.option("--out", type=FOLDER, help="HTML file [default: RUN/report.html or BUNDLE/evidence/report.html].")
@force_option
def report(subject, out, force, quiet, verbose):
    """Write one self-contained HTML report with pictures.

    \b
    Example: melanoma-edge report my.bundle
    """
    from melanoma_edge.proof.report import report as library

    screen = show(quiet, verbose)
    with screen.steps("drawing the report") as progress:
        path = library(subject, out=out, force=force, command=line(), progress=progress)
    click.echo(str(path))
