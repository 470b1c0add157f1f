"""The commands. Each parses its options, calls one library function and prints what came back.

Nothing heavier than click is imported here at the top: `--help` and every usage error come at once.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from melanoma_edge import NOTICE, __version__
from melanoma_edge.cli.options import (
    FOLDER,
    Asked,
    cache_option,
    force_option,
    json_option,
    licences_option,
    metadata_option,
    names,
    recipe_options,
    wrong,
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=f"{NOTICE} Exit codes: 0 done, 1 a proof failed, 2 bad input, 3 something is missing here, 130 interrupted.",
)
@click.version_option(__version__, prog_name="melanoma-edge")
def group() -> None:
    """From a folder of skin-lesion photographs to a classifier inside a phone app, with proof.

    \b
    Example: melanoma-edge demo
    """


def command(function):
    """Register a command with the options that all commands have."""
    function = click.option("-q", "--quiet", is_flag=True, help="Print results and errors only.")(function)
    function = click.option("-v", "--verbose", is_flag=True, help="Print more of what is done.")(function)
    return group.command(function.__name__.rstrip("_").replace("_", "-"))(function)


def _show(quiet: bool, verbose: bool):
    from melanoma_edge.cli.show import Screen

    return Screen(quiet=quiet, verbose=verbose)


def _line() -> str:
    """Return the command line as the user could repeat it, for the record beside every result."""
    import shlex

    line = shlex.join(["melanoma-edge", *sys.argv[1:]])
    return line.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")  # names of files may be no text


@command
@click.argument("out", type=FOLDER)
@click.option("--per-class", default=60, show_default=True, help="Pictures of each class.")
@click.option("--size", default=160, show_default=True, help="Side of the pictures in pixels.")
@click.option("--seed", default=7, show_default=True)
@force_option
@json_option
def samples(out, per_class, size, seed, force, as_json, quiet, verbose):
    """Draw a nine-class set of dermoscopy-like pictures into OUT, free of any licence.

    \b
    Example: melanoma-edge samples drawn --per-class 60
    """
    from melanoma_edge.data.samples import write_samples

    screen = _show(quiet, verbose)
    with screen.bar("drawing") as progress:
        facts = write_samples(out, per_class=per_class, size=size, seed=seed, force=force, progress=progress)
    screen.facts({"folder": str(out), **facts}, as_json)


@command
@click.argument("data", type=FOLDER, required=False)
@recipe_options("conflicts", "duplicates", "min_lesions", "seed")
@click.option("--folds", type=int, metavar="K", help="Train K folds, each tested on another part: mean, spread and pooled figures.")
@click.option("--out", type=FOLDER, help="Run directory [default: the next free runs/NAME-N].")
@metadata_option
@licences_option
@cache_option
@click.option("--resume", is_flag=True, help="Go on with an interrupted run, or with all folds (the newest, or the one of --out).")
@json_option
def train(data, asked, folds, out, metadata, licences, cache, resume, as_json, quiet, verbose):
    """Train on the pictures of DATA: class folders, an archive's download, an index table (drawn samples without DATA).

    \b
    Example: melanoma-edge train photographs --metadata photographs/metadata.csv --set epochs=60
    Example: melanoma-edge train photographs --folds 5
    """
    from melanoma_edge.cli.show_training import training as shown
    from melanoma_edge.model import folds as all_folds
    from melanoma_edge.model import run as runs
    from melanoma_edge.model import train as training

    screen = _show(quiet, verbose)
    chosen = None
    if resume:
        if asked.overrides or folds is not None or licences:
            raise wrong("--resume goes on with the recipe and the pictures that were begun: leave out --set, its short forms and --folds, and --licences")
        out = out or training.newest_interrupted()
    else:
        _refuse_two_folds(asked, folds)
        chosen = asked.load()
        out = out or training.next_run(chosen)
        data = data or training.default_samples(progress=screen.line)
    common = {"metadata": metadata, "licences": licences, "cache": cache, "resume": resume, "command": _line()}
    with shown(screen) as report:
        if folds is not None or (resume and (out / runs.FOLDS_FILE).is_file()):
            result = all_folds.train_folds(data, chosen, out, folds, report=report, **common)
        else:
            result = training.train(data, chosen, out, report=report, **common)
    (screen.folds if isinstance(result, all_folds.Folds) else screen.run)(result, as_json)


def _refuse_two_folds(asked: Asked, folds: int | None) -> None:
    """Refuse --folds beside a --set that names a fold or another number of folds."""
    for override in asked.overrides if folds is not None else ():
        if override.partition("=")[0].strip() in ("fold", "folds"):
            raise wrong(f"--folds {folds} trains every one of {folds} folds: leave out --set {override}, or leave out --folds")


@command
@click.argument("data", type=FOLDER)
@click.option("--size", default=180, show_default=True, help="Side of the network's input in pixels.")
@click.option("--reduced", is_flag=True, help="Decode large JPEGs at a part of their size: quicker, other pixels, 3 to 5 % other answers (docs/data-sets.md).")
@click.option("--workers", type=int, help="Threads that decode [default: one a core].")
@metadata_option
@licences_option
@cache_option
@json_option
def prepare(data, size, reduced, workers, metadata, licences, cache, as_json, quiet, verbose):
    """Decode every picture of DATA once, upright, cropped and resized, into the cache that train uses.

    \b
    Example: melanoma-edge prepare photographs --size 180
    """
    from melanoma_edge.cli.show_data import show_prepared
    from melanoma_edge.data.prepare import prepare_data as library

    screen = _show(quiet, verbose)
    with screen.bar("preparing") as progress:
        decode = "reduced" if reduced else "full"
        facts = library(data, size=size, decode=decode, workers=workers, metadata=metadata, licences=licences, cache=cache, progress=progress)
    show_prepared(screen, facts, as_json)


@command
@click.argument("data", type=FOLDER)
@metadata_option
@licences_option
@recipe_options("conflicts", "duplicates", "min_lesions")
@click.option("--json", "json_file", type=FOLDER, is_flag=False, flag_value=Path("-"), metavar="[FILE]", help="Write everything that was found as JSON, to standard output without FILE.")
@click.option("--html", "html_file", type=FOLDER, metavar="FILE", help="Write a self-contained page with small pictures.")
@click.option("--strict", is_flag=True, help="Exit with 1 when anything would make a figure dishonest.")
@cache_option
@force_option
def audit(data, metadata, licences, asked, json_file, html_file, strict, cache, force, quiet, verbose):
    """Show what is wrong with a data set before anything is trained on it.

    \b
    Example: melanoma-edge audit photographs --html audit.html --strict
    """
    from melanoma_edge.cli.show_audit import show_audit
    from melanoma_edge.proof.audit import audit as library, refuse_dishonest

    chosen = asked.load()
    as_json = str(json_file) == "-"
    written = [file for file in (None if as_json else json_file, html_file) if file]
    screen = _show(quiet, verbose)
    with screen.bar("reading pictures") as progress:
        found = library(
            data, chosen, metadata=metadata, licences=licences, cache=cache, json_file=None if as_json else json_file, html_file=html_file,
            force=force, progress=progress,
        )  # fmt: skip
    show_audit(screen, found, written, as_json)
    if strict:
        refuse_dishonest(found)


@command
@click.argument("subject", metavar="RUN_OR_BUNDLE", type=FOLDER)
@click.option("--data", type=FOLDER, required=True, help="Labelled pictures: class folders or any other data set.")
@click.option("--artifact", help="Artifact of the bundle [default: int8 TFLite], or float/qat of a run.")
@metadata_option
@click.option("--include-seen", is_flag=True, help="Score pictures that training used, too (not leak-free).")
@cache_option
@json_option
def evaluate(subject, data, artifact, metadata, include_seen, cache, as_json, quiet, verbose):
    """Score a run or an artifact on labelled pictures that it has not seen, with 95 % intervals.

    \b
    Example: melanoma-edge evaluate my.bundle --data photographs --artifact default-int8.tflite
    """
    from melanoma_edge.proof.evaluate import evaluate as library

    screen = _show(quiet, verbose)
    with screen.bar("reading pictures") as progress:
        result = library(subject, data, artifact=artifact, metadata=metadata, include_seen=include_seen, cache=cache, progress=progress)
    screen.evaluation(result, as_json)


@command
@click.argument("run", type=FOLDER, required=False)
@click.option("--tflite", is_flag=True, help="TFLite artifacts (no format named: all).")
@click.option("--onnx", is_flag=True, help="ONNX artifacts.")
@click.option("--precision", default="", metavar="LIST", help="Comma-separated: float32, float16, dynamic, int8 [default: all].")
@click.option("--out", type=FOLDER, help="Bundle folder [default: bundles/RUN.bundle].")
@click.option("--data", type=FOLDER, help="Where the run's pictures are now, if they moved.")
@click.option("--licence", help="Terms of the weights, for the manifest and the model card.")
@force_option
@json_option
def export(run, tflite, onnx, precision, out, data, licence, force, as_json, quiet, verbose):
    """Export a run (the newest one without RUN) as a verified bundle.

    \b
    Example: melanoma-edge export runs/default-1 --tflite --out my.bundle
    """
    from melanoma_edge.model.run import newest_run
    from melanoma_edge.proof.export import export as library

    precisions = names(precision)
    run = run or newest_run()
    out = out or Path("bundles") / f"{run.resolve().name}.bundle"
    screen = _show(quiet, verbose)
    formats = [name for name, wanted in (("tflite", tflite), ("onnx", onnx)) if wanted]
    with screen.steps("exporting") as progress:
        parity = library(
            run, out, formats=formats, precisions=precisions, data=data, licence=licence, force=force, command=_line(), progress=progress
        )
    screen.bundle(out, as_json)
    screen.parity(parity, as_json)
    _fail_if(parity)


@command
@click.argument("bundle", type=FOLDER)
@click.option("--data", type=FOLDER, help="Labelled pictures, which the task gate needs: class folders or any other data set [default: drawn probes].")
@metadata_option
@click.option("--run", type=FOLDER, help="The run that the bundle came from [default: the one that it remembers].")
@click.option("--runtime", "runtimes", multiple=True, metavar="NAME", help="What to run: a runtime, kernels, arm64, browser, or all; may be repeated [default: those of this machine].")
@click.option("--require", multiple=True, metavar="RUNTIME", help="Fail (exit 3) when this runtime, or `task`, cannot be tried.")
@cache_option
@json_option
def verify(bundle, data, metadata, run, runtimes, require, cache, as_json, quiet, verbose):
    """Carry out every parity gate that this machine can, for every artifact and runtime.

    \b
    Example: melanoma-edge verify my.bundle --data photographs
    Example: melanoma-edge verify my.bundle --runtime all
    """
    from melanoma_edge.proof.verify import verify as library

    screen = _show(quiet, verbose)
    with screen.steps("verifying") as progress:
        parity = library(bundle, data=data, metadata=metadata, cache=cache, run=run, runtimes=runtimes, require=require, command=_line(), progress=progress)
    screen.parity(parity, as_json)
    _fail_if(parity)


@command
@click.argument("bundle", type=FOLDER)
@click.option("--quick", is_flag=True, help="A short look; the result is marked as not comparable.")
@click.option("--threads", default=1, show_default=True, help="Threads of each runtime, pinned to as many cores.")
@click.option("--runtime", "runtimes", multiple=True, metavar="NAME", help="Only this runtime; may be repeated.")
@json_option
def bench(bundle, quick, threads, runtimes, as_json, quiet, verbose):
    """Measure the latency of every artifact on every runtime of this machine.

    \b
    Example: melanoma-edge bench my.bundle --threads 1
    """
    from melanoma_edge.proof.latency import bench as library

    screen = _show(quiet, verbose)
    with screen.steps("measuring") as progress:
        result = library(bundle, quick=quick, threads=threads, runtimes=runtimes or None, progress=progress)
    screen.latency(result, as_json)


@command
@click.argument("bundle", type=FOLDER)
@click.argument("images", type=FOLDER, nargs=-1, required=True)
@click.option("--artifact", help="Artifact of the bundle [default: int8 TFLite].")
@json_option
def predict(bundle, images, artifact, as_json, quiet, verbose):
    """Classify pictures: calibrated probabilities in order. Not a medical device.

    \b
    Example: melanoma-edge predict my.bundle lesion.jpg
    """
    from melanoma_edge.proof.predict import predict as library

    result = library(bundle, images, artifact=artifact)
    _show(quiet, verbose).predictions(result, as_json)
    if any("error" in row for row in result["results"]):
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

    screen = _show(quiet, verbose)
    with screen.steps("drawing the report") as progress:
        path = library(subject, out=out, force=force, command=_line(), progress=progress)
    click.echo(str(path))


@command
@click.argument("name", required=False)
def recipes(name, quiet, verbose):
    """List the shipped recipes, or print one as TOML.

    \b
    Example: melanoma-edge recipes default > mine.toml
    """
    from melanoma_edge import recipes as library

    if name:
        click.echo(library.text(name), nl=False)
    else:
        _show(quiet, verbose).recipes([library.load(found) for found in library.names()])


@command
@click.argument("data", type=FOLDER)
@click.option("--out", type=FOLDER, help="Folder to write [default: augmented], or the PNG file of --preview [default: augmented.png].")
@click.option("--per-class", type=int, help="Copies of each class [default: 500].")
@click.option("--pipeline", default="default", show_default=True, metavar="FILE", help="TOML with [augment.*] tables or a whole recipe; or a shipped recipe.")
@click.option("--size", type=int, help="Side of square copies in pixels [default: each picture's own size and shape].")
@click.option("--seed", default=7, show_default=True)
@click.option("--preview", is_flag=True, help="Write one contact sheet to look at instead: pictures of each class, with augmented copies.")
@metadata_option
@licences_option
@force_option
@json_option
def augment(data, out, per_class, pipeline, size, seed, preview, metadata, licences, force, as_json, quiet, verbose):
    """Write augmented copies of the pictures below DATA, the same number of each class, as Augmentor does.

    For other tools, and to look at: `train` augments by itself, after the split, and wants DATA as it is.

    \b
    Example: melanoma-edge augment photographs --preview --pipeline mine.toml
    """
    from melanoma_edge.cli.show_data import show_augmented
    from melanoma_edge.data import augment_files as library
    from melanoma_edge.recipes import load_augment

    if preview and per_class is not None:
        raise click.UsageError("--preview shows a few pictures of each class: leave --per-class out")
    chosen, screen = load_augment(pipeline), _show(quiet, verbose)
    common = {"seed": seed, "size": size, "metadata": metadata, "licences": licences, "force": force}
    with screen.bar("augmenting") as progress:
        if preview:
            facts = library.preview(data, out or Path("augmented.png"), chosen, progress=progress, **common)
        else:
            out = out or Path("augmented")
            facts = library.write_augmented(data, out, chosen, per_class=500 if per_class is None else per_class, progress=progress, **common)
            facts = {"folder": str(out), **facts}
    show_augmented(screen, facts, as_json)


@command
@json_option
@click.option("--tensorflow", is_flag=True, help="Also start TensorFlow to see its GPUs (takes seconds).")
def doctor(as_json, tensorflow, quiet, verbose):
    """Show what this machine has, and the command that gets the rest.

    \b
    Example: melanoma-edge doctor
    """
    from melanoma_edge.doctor import doctor as library

    _show(quiet, verbose).doctor(library(tensorflow=tensorflow), as_json)


@command
@click.argument("place")
@json_option
def setup(place, as_json, quiet, verbose):
    """Set up a place that runtimes compute in: arm64 (an emulated Arm processor) or browser (a real one, headless).

    \b
    Example: melanoma-edge setup arm64
    """
    from melanoma_edge.runtimes.places import install

    screen = _show(quiet, verbose)
    with screen.steps("setting up") as progress:
        facts = install(place, progress)
    screen.facts(facts, as_json)


@command
@click.option("--out", type=FOLDER, default=Path("demo"), show_default=True, help="Folder for samples, run, bundle and report.")
@force_option
def demo(out, force, quiet, verbose):
    """The whole job on drawn samples, in a few minutes: train, export, verify, measure, report.

    \b
    Example: melanoma-edge demo --out demo
    """
    from melanoma_edge.cli.show_training import training
    from melanoma_edge.proof.demo import demo as library

    screen = _show(quiet, verbose)
    with training(screen) as report_training, screen.steps("demo") as progress:
        result = library(out, force=force, command=_line(), report=report_training, progress=progress)
    screen.parity(result.parity, False)
    screen.latency(result.latency, False)
    screen.predictions(result.predictions, False)
    click.echo(f"report: {result.report}")
    _fail_if(result.parity)


@command
@click.argument("data", type=FOLDER)
@metadata_option
@licences_option
@click.option("--out", type=FOLDER, help="Write the index table there, a CSV file in DATA or above it.")
@force_option
@json_option
def import_(data, metadata, licences, out, force, as_json, quiet, verbose):
    """List a data set (class folders, ISIC Archive, HAM10000, ISIC 2018 or 2019, an index table): what is there, and what is left out.

    \b
    Example: melanoma-edge import archive --licences CC-0,CC-BY --out archive/index.csv
    """
    from melanoma_edge.cli.show_data import show_listing
    from melanoma_edge.data.sources import read_listing
    from melanoma_edge.data.table import summary, write_index
    from melanoma_edge.files import refuse_existing

    if out is not None:
        refuse_existing(out, force=force)
    listing = read_listing(data, metadata=metadata, licences=licences)
    if out is not None:
        write_index(listing, out)
    show_listing(_show(quiet, verbose), {**summary(listing), "out": None if out is None else str(out)}, as_json)


def _fail_if(parity) -> None:
    """Exit with 1 when a gate failed."""
    if parity.failed:
        from melanoma_edge.errors import ProofFailed

        names = ", ".join(f"{gate.name} ({gate.artifact} on {gate.runtime})" for gate in parity.failed)
        raise ProofFailed(f"{len(parity.failed)} gate{'s' if len(parity.failed) > 1 else ''} failed: {names}")
