"""Options that several commands share.

Like the commands, this imports nothing heavier than click.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import click

FOLDER = click.Path(path_type=Path)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
force_option = click.option("--force", is_flag=True, help="Replace what is there.")
metadata_option = click.option("--metadata", type=FOLDER, help="The table to read (docs/data-sets.md) [default: those of the data set, found by name].")

junit_option = click.option(
    "--junit", type=FOLDER, metavar="FILE", help="Also write JUnit XML for CI; replaces an earlier one. Inconclusive and not run are skipped, with the reason."
)
cache_option = click.option(
    "--cache", type=FOLDER, help="Where prepared pictures are kept [default: MELANOMA_EDGE_CACHE, else melanoma-edge in the user's cache folder]."
)
licences_option = click.option(
    "--licences",
    "--licenses",
    default="",
    metavar="LIST",
    callback=lambda context, option, value: names(value),
    help="Comma-separated: only pictures under these licences, for example CC-0,CC-BY.",
)


def names(text: str) -> list[str]:
    """Return the names of a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def wrong(line: str) -> Exception:
    """Return the error for options that contradict each other."""
    from melanoma_edge.errors import BadInput

    return BadInput(line)


class Asked(NamedTuple):
    """What the options of :func:`recipe_options` say."""

    recipe: str
    overrides: tuple[str, ...]
    """`key=value`, those of the shortcuts last."""

    def load(self):
        """Return the recipe."""
        from melanoma_edge import recipes

        return recipes.load(self.recipe, self.overrides)


RECIPE_OPTIONS = (
    click.option("--recipe", default="default", show_default=True, help="Name of a shipped recipe, or a TOML file."),
    click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a key of the recipe; may be repeated."),
)
SHORTCUTS = {
    "conflicts": click.option(
        "--conflicts",
        type=click.Choice(["reference", "drop", "keep"]),
        help="Where labels of a picture and its copies contradict: the reference diagnosis decides, all are dropped, or all kept.",
    ),
    "duplicates": click.option("--duplicates", type=click.Choice(["one", "keep"]), help="Use one or all of several copies of a picture."),
    "min_lesions": click.option("--min-lesions", type=int, metavar="N", help="Leave out classes of fewer lesions."),
    "seed": click.option("--seed", type=int, help="Same as --set seed=N."),
}
"""Options that are short for --set KEY=VALUE: {key: option}."""


def recipe_options(*shortcuts: str):
    """Give a command --recipe, --set and some of SHORTCUTS; it gets them as one argument, `asked` (:class:`Asked`)."""

    def with_options(function):
        @functools.wraps(function)
        def called(*arguments, recipe, overrides, **others):
            values = {key: value for key in shortcuts if (value := others.pop(key)) is not None}
            for override in overrides:
                key = override.partition("=")[0].strip()
                if key in values:
                    raise wrong(f"--{key.replace('_', '-')} and --set {override} say the same key: give one of them")
            asked = Asked(recipe, (*overrides, *(f"{key}={value}" for key, value in values.items())))
            return function(*arguments, asked=asked, **others)

        for option in reversed((*RECIPE_OPTIONS, *(SHORTCUTS[key] for key in shortcuts))):
            called = option(called)
        return called

    return with_options
