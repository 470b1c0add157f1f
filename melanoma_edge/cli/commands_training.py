"""Commands about networks: `train`, `evaluate`, `recipes`.

Each parses its options, calls one library function and prints what came back.
"""

from __future__ import annotations

import click

from melanoma_edge.cli.group import command, line, show
from melanoma_edge.cli.options import FOLDER, Asked, cache_option, json_option, licences_option, metadata_option, recipe_options, wrong


@command
@click.argument("data", type=FOLDER, required=False)
@recipe_options("conflicts", "duplicates", "min_lesions", "seed")
@click.option("--folds", type=int, metavar="K", help="Train K folds, each tested on another part: mean, spread and pooled figures.")
@click.option("--out", type=FOLDER, help="Run directory [default: the next free runs/NAME-N].")
@metadata_option
@licences_option
@cache_option
@click.option("--resume", is_flag=True, help="Go on with an interrupted run, or with all folds (the newest, or the one of --out).")
@click.option("--repeat", "repeated", type=FOLDER, metavar="RUN", help="Train RUN once more (DATA: where its pictures are now), and fail unless the weights are the same; with --resume, go on with that.")
@click.option("--device", type=click.Choice(["auto", "cpu", "gpu"]), help="What computes [default: all GPUs, else the CPU; with --resume and --repeat what the run began on].")
@click.option("--mixed-precision", type=click.Choice(["bfloat16", "float16"]), help="Multiply in this on GPUs that do so faster; weights, logits, loss, QAT stay float32.")
@click.option("--xla", is_flag=True, help="Compile the training step with XLA.")
@click.option("--tensorboard", type=FOLDER, metavar="DIR", help="Also write every epoch's figures as TensorBoard logs.")
@json_option
def train(data, asked, folds, out, metadata, licences, cache, resume, repeated, device, mixed_precision, xla, tensorboard, as_json, quiet, verbose):
    """Train on the pictures of DATA: class folders, an archive's download, an index table (drawn samples without DATA).

    Several machines train one run together when TF_CONFIG names them on each; the batch size counts for all of them together.

    \b
    Example: melanoma-edge train photographs --metadata photographs/metadata.csv --set epochs=60
    Example: melanoma-edge train photographs --folds 5
    Example: melanoma-edge train --repeat runs/default-1
    """
    from melanoma_edge.cli.show_scores import show_folds, show_run
    from melanoma_edge.cli.show_training import training as shown
    from melanoma_edge.model import board
    from melanoma_edge.model import folds as all_folds
    from melanoma_edge.model import run as runs
    from melanoma_edge.model import runs_folder
    from melanoma_edge.model import train as training

    screen = show(quiet, verbose)
    chosen = None
    if repeated is not None:
        given = click.get_current_context().get_parameter_source("recipe") == click.core.ParameterSource.COMMANDLINE
        if given or asked.overrides or folds is not None or licences or mixed_precision or xla:
            raise wrong("--repeat takes recipe, licences and arithmetic from the run: leave out --recipe, --set and its short forms, --folds, --licences, --mixed-precision and --xla")
        common = {"metadata": metadata, "cache": cache, "resume": resume, "device": device, "command": line()}
        return _repeat(screen, repeated, data, out, tensorboard, as_json, common)
    if resume:
        if asked.overrides or folds is not None or licences:
            raise wrong("--resume goes on with the recipe and the pictures that were begun: leave out --set, its short forms and --folds, and --licences")
        if mixed_precision or xla:
            raise wrong("--resume goes on with the arithmetic that was begun with: leave out --mixed-precision and --xla")
        out = out or runs_folder.newest_interrupted()
    else:
        _refuse_two_folds(asked, folds)
        chosen = asked.load()
        out = out or runs_folder.next_run(chosen)
        data = data or runs_folder.default_samples(progress=screen.line)
    common = {"metadata": metadata, "licences": licences, "cache": cache, "resume": resume, "command": line()}
    common |= {"device": device, "mixed_precision": mixed_precision, "xla": xla}
    with shown(screen) as report, board.logged(tensorboard, report) as report:
        if folds is not None or (resume and (out / runs.FOLDS_FILE).is_file()):
            result = all_folds.train_folds(data, chosen, out, folds, report=report, **common)
        else:
            result = training.train(data, chosen, out, report=report, **common)
    if result is None:
        screen.line("this worker's part is done: the run directory is the chief's")
    else:
        (show_folds if isinstance(result, all_folds.Folds) else show_run)(screen, result, as_json)


def _repeat(screen, path, data, out, tensorboard, as_json, common):
    """Train the run at `path` once more, and print what came out and whether it is the same."""
    from melanoma_edge.cli.show_scores import show_run
    from melanoma_edge.cli.show_training import training as shown
    from melanoma_edge.model import board, repeat, runs_folder
    from melanoma_edge.model.run import open_run
    from melanoma_edge.model.train import train as library

    before = open_run(path)
    out = out or (runs_folder.newest_interrupted() if common["resume"] else runs_folder.next_run(before.recipe))
    for said in repeat.foreseen(before):
        screen.line(f"last digits may differ from those of {before.path}: {said}")
    with shown(screen) as report, board.logged(tensorboard, report) as report:
        again = library(data, None, out, repeats=before, report=report, **common)
    show_run(screen, again, as_json)
    repeat.require_same(before, again)
    screen.line(f"the weights are those of {before.path}, bit for bit")


def _refuse_two_folds(asked: Asked, folds: int | None) -> None:
    """Refuse --folds beside a --set that names a fold or another number of folds."""
    for override in asked.overrides if folds is not None else ():
        if override.partition("=")[0].strip() in ("fold", "folds"):
            raise wrong(f"--folds {folds} trains every one of {folds} folds: leave out --set {override}, or leave out --folds")


@command
@click.argument("subject", metavar="RUN_OR_BUNDLE", type=FOLDER)
@click.option("--data", type=FOLDER, required=True, help="Labelled pictures: class folders or any other data set.")
@click.option("--artifact", help="Artifact of the bundle [default: int8 TFLite], or float/qat of a run.")
@metadata_option
@click.option("--by", metavar="COLUMN", help="Figures by a column of the data set's tables, too: sex, age_approx (in bands), anatom_site_general ...")
@click.option("--include-seen", is_flag=True, help="Score pictures that training used, too (not leak-free).")
@cache_option
@json_option
def evaluate(subject, data, artifact, metadata, by, include_seen, cache, as_json, quiet, verbose):
    """Score a run or an artifact on labelled pictures that it has not seen, with 95 % intervals.

    \b
    Example: melanoma-edge evaluate my.bundle --data photographs --artifact default-int8.tflite
    Example: melanoma-edge evaluate my.bundle --data photographs --by sex
    """
    from melanoma_edge.cli.show_scores import show_evaluation
    from melanoma_edge.proof.evaluate import evaluate as library

    screen = show(quiet, verbose)
    with screen.bar("reading pictures") as progress:
        result = library(subject, data, artifact=artifact, metadata=metadata, by=by, include_seen=include_seen, cache=cache, progress=progress)
    show_evaluation(screen, result, as_json)


@command
@click.argument("name", required=False)
def recipes(name, quiet, verbose):
    """List the shipped recipes, or print one as TOML.

    \b
    Example: melanoma-edge recipes default > mine.toml
    """
    from melanoma_edge import recipes as library
    from melanoma_edge.cli.show_machine import show_recipes

    if name:
        click.echo(library.text(name), nl=False)
    else:
        show_recipes(show(quiet, verbose), [library.load(found) for found in library.names()])
