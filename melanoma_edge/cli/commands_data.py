"""Commands about data sets: `samples`, `import`, `prepare`, `audit`, `augment`.

Each parses its options, calls one library function and prints what came back.
"""

from __future__ import annotations

from pathlib import Path

import click

from melanoma_edge.cli.group import command, show
from melanoma_edge.cli.options import FOLDER, cache_option, force_option, json_option, licences_option, metadata_option, recipe_options, wrong


@command
@click.argument("out", type=FOLDER)
@click.option("--per-class", default=60, show_default=True, help="Pictures of each class.")
@click.option("--size", default=160, show_default=True, help="Side of the pictures in pixels.")
@click.option("--seed", default=7, show_default=True)
@click.option("--reference", is_flag=True, help="Instead of drawing, copy the installed reference bundle to OUT, to measure or change it there.")
@force_option
@json_option
def samples(out, per_class, size, seed, reference, force, as_json, quiet, verbose):
    """Draw a nine-class set of dermoscopy-like pictures into OUT, free of any licence.

    \b
    Example: melanoma-edge samples drawn --per-class 60
    Example: melanoma-edge samples my.bundle --reference
    """
    if reference:
        context = click.get_current_context()
        for name in ("per_class", "size", "seed"):
            if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
                raise wrong(f"--{name.replace('_', '-')} is for drawing, and --reference copies the bundle as it is: leave out one of them")
        from melanoma_edge.convert.reference import copy

        return show(quiet, verbose).facts({"bundle": str(copy(out, force=force))}, as_json)
    from melanoma_edge.data.samples import write_samples

    screen = show(quiet, verbose)
    with screen.bar("drawing") as progress:
        facts = write_samples(out, per_class=per_class, size=size, seed=seed, force=force, progress=progress)
    screen.facts({"folder": str(out), **facts}, as_json)


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
    show_listing(show(quiet, verbose), {**summary(listing), "out": None if out is None else str(out)}, as_json)


@command
@click.argument("data", type=FOLDER)
@recipe_options()
@click.option("--size", type=int, help="Side of the network's input in pixels [default: the recipe's].")
@click.option("--reduced", is_flag=True, help="Decode large JPEGs at a part of their size: quicker, other pixels, 3 to 5 % other answers (docs/data-sets.md).")
@click.option("--workers", type=int, help="Threads that decode [default: one a core].")
@metadata_option
@licences_option
@cache_option
@json_option
def prepare(data, asked, size, reduced, workers, metadata, licences, cache, as_json, quiet, verbose):
    """Decode every picture of DATA once, upright, cropped and resized, into the cache that train uses.

    \b
    Example: melanoma-edge prepare photographs
    Example: melanoma-edge prepare photographs --recipe mine.toml
    """
    from melanoma_edge.cli.show_data import show_prepared
    from melanoma_edge.data.prepare import prepare_data as library

    recipe = asked.load()
    screen = show(quiet, verbose)
    with screen.bar("preparing") as progress:
        decode = "reduced" if reduced else recipe.decode
        facts = library(data, size=recipe.image_size if size is None else size, decode=decode, workers=workers, metadata=metadata, licences=licences, cache=cache, progress=progress)
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
    screen = show(quiet, verbose)
    with screen.bar("reading pictures") as progress:
        found = library(
            data, chosen, metadata=metadata, licences=licences, cache=cache, json_file=None if as_json else json_file, html_file=html_file,
            force=force, progress=progress,
        )  # fmt: skip
    show_audit(screen, found, written, as_json)
    if strict:
        refuse_dishonest(found)


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
    chosen, screen = load_augment(pipeline), show(quiet, verbose)
    common = {"seed": seed, "size": size, "metadata": metadata, "licences": licences, "force": force}
    with screen.bar("augmenting") as progress:
        if preview:
            facts = library.preview(data, out or Path("augmented.png"), chosen, progress=progress, **common)
        else:
            out = out or Path("augmented")
            facts = library.write_augmented(data, out, chosen, per_class=500 if per_class is None else per_class, progress=progress, **common)
            facts = {"folder": str(out), **facts}
    show_augmented(screen, facts, as_json)
