"""The shipped recipes, one TOML file each, and the reading of anyone's recipe.

In: a shipped name or a path to a TOML file, and ``key=value`` overrides. Out: a validated
:class:`~melanoma_edge.contract.Recipe`.
"""

from __future__ import annotations

import difflib
import json
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from melanoma_edge.contract import Augment, Recipe
from melanoma_edge.errors import BadInput

DEFAULT = "default"
MAX_SHOWN = 120
"""Longest part of a wrong value that a message repeats."""


def names() -> list[str]:
    """Return the names of the shipped recipes."""
    return sorted(file.name.removesuffix(".toml") for file in resources.files(__name__).iterdir() if file.name.endswith(".toml"))


def text(name: str) -> str:
    """Return the TOML text of the shipped recipe `name`; raises BadInput that lists what there is."""
    if name not in names():
        raise BadInput(f"there is no recipe {name!r}: expected one of {', '.join(names())}, or a path that ends with .toml")
    return resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")


def load(name_or_file: str | Path = DEFAULT, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe `name_or_file` with `overrides` ("key=value", dots for tables) applied.

    An override that sets `rebalance` replaces the old strategy together with its `samples_per_class`; one that sets
    `operating_sensitivity` or `operating_specificity` replaces the other. A table is written as TOML's inline tables, and replaces the whole of the old one:
    'deployment_prior={melanoma = 0.04, "actinic keratosis" = 0.96}'.
    Raises BadInput in one line for an unknown key, a wrong type or a contradiction.
    """
    source = str(name_or_file)
    values = _values(source)
    before = set(values)
    for override in overrides:
        _apply(values, override)
    given = {override.partition("=")[0].strip() for override in overrides}
    if "rebalance" in given and "samples_per_class" in before - given and values["rebalance"] != "augmentor":
        del values["samples_per_class"]  # it belonged to the strategy that was just replaced
    for one, other in (("operating_sensitivity", "operating_specificity"), ("operating_specificity", "operating_sensitivity")):
        if one in given and other in before - given:
            del values[other]  # the other rule, which was just replaced
    return parse(values, source)


def load_augment(name_or_file: str | Path = DEFAULT) -> Augment:
    """Return the augmentation pipeline of a shipped recipe, or of a TOML file: [augment.*] tables or a whole recipe.

    Raises BadInput in one line, also for a file without such tables.
    """
    source = str(name_or_file)
    values = _values(source)
    if "augment" not in values:
        raise BadInput(f"{source} holds no augmentation: expected tables such as [augment.rotate]; see `melanoma-edge recipes default`")
    return parse({"name": "pipeline", **values}, source).augment


def parse(values: Mapping[str, Any], source: str) -> Recipe:
    """Return the validated recipe with `values`; `source` names it in messages. Raises BadInput."""
    try:
        return Recipe.model_validate(dict(values))
    except ValidationError as error:
        raise BadInput(f"recipe {source}: {explain(error)}") from None


def to_toml(recipe: Recipe) -> str:
    """Return `recipe`, every key written out, as TOML that :func:`load` reads back to an equal recipe."""
    values = recipe.model_dump()
    tables = {name: values.pop(name) for name in ("augment", "mix")}
    distillation = values.pop("distillation")
    lines = [f"{key} = {_toml(value)}" for key, value in values.items() if value is not None]
    lines += ["", "[distillation]", *(f"{key} = {_toml(value)}" for key, value in distillation.items() if value is not None)]
    for name, operations in tables.items():
        for operation, settings in operations.items():
            lines += ["", f"[{name}.{operation}]", *(f"{key} = {_toml(value)}" for key, value in settings.items())]
    return "\n".join(lines) + "\n"


def explain(error: ValidationError) -> str:
    """Return the first problem of a recipe as one line: found, expected, and the corrected line."""
    problem = error.errors(include_url=False)[0]
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        known = _keys_at(path[:-1])
        close = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"
        return f"unknown key {key!r}; {hint}"
    if problem["type"] == "missing":
        return f"the key {key!r} is missing: add it"
    if not path:
        return problem["msg"].removeprefix("Value error, ")
    found = problem["input"]
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    line = f"; write for example {key} = {_toml(_default_at(path))}" if _default_at(path) is not None else ""
    shown = repr(found) if len(repr(found)) <= MAX_SHOWN else repr(found)[:MAX_SHOWN] + "..."
    return f"{key} is {shown}: {message}{line}"


def _values(source: str) -> dict[str, Any]:
    """Return what stands in the TOML file or shipped recipe `source`. Raises BadInput."""
    if source.endswith(".toml"):
        try:
            content = Path(source).read_text(encoding="utf-8-sig")  # Windows editors write a byte-order mark
        except (OSError, ValueError) as error:
            raise BadInput(f"the recipe {source} cannot be read: {error}; give a TOML file or one of {', '.join(names())}") from None
    else:
        content = text(source)
    try:
        return tomllib.loads(content)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a plain ValueError
        raise BadInput(f"the recipe {source} is not TOML: {error}; correct that line") from None


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one ``key=value``; the value is read as TOML, and as plain text where it is not."""
    key, equals, raw = override.partition("=")
    parts = _parts(key.strip())
    if not equals or not all(parts):
        raise BadInput(f"--set {override!r} is not of the form key=value: write for example --set epochs=20")
    try:
        value, *others = tomllib.loads(f"value = {raw.strip()}").values()
    except (ValueError, RecursionError):
        value, others = raw.strip(), []
    if others:
        raise BadInput(f"--set {override!r} holds more than one key: give each a --set of its own")
    table = values
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise BadInput(f"--set {override!r}: {part!r} is not a table of the recipe; see `melanoma-edge recipes default`")
    table[parts[-1]] = value


def _parts(key: str) -> list[str]:
    """Return the names in a dotted key. Those in quotes may hold dots and spaces, as in TOML: deployment_prior."actinic keratosis"."""
    if '"' in key or "'" in key:
        try:
            table, parts = tomllib.loads(f"{key} = 0"), []
            while isinstance(table, dict):
                [(part, table)] = table.items()
                parts.append(part)
            return parts
        except (ValueError, RecursionError):
            pass  # what is no key is refused as one that nobody knows
    return key.split(".")


def _toml(value: Any) -> str:
    """Return a scalar, or a table of scalars in one line, as TOML; JSON's escapes are TOML's, which wants DEL escaped too."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(one)}" for key, one in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _model_at(path: list[str]) -> type[BaseModel] | None:
    """Return the model that the table at `path` is read with."""
    model: Any = Recipe
    for part in path:
        field = model.model_fields.get(part)
        if field is None:
            return None
        model = field.annotation
        if isinstance(model, types.UnionType) or typing.get_origin(model) or not issubclass(model, BaseModel):
            return None
    return model


def _keys_at(path: list[str]) -> list[str]:
    model = _model_at(path)
    return list(model.model_fields) if model else []


def _default_at(path: list[str]) -> Any:
    model = _model_at(path[:-1])
    field = model.model_fields.get(path[-1]) if model else None
    return None if field is None or field.is_required() or isinstance(field.default, BaseModel) else field.default
