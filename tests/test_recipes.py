"""Recipes: what is shipped loads, what is written reads back equal, and every mistake is one helpful line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from melanoma_edge import recipes
from melanoma_edge.contract import LIMITS, Augment, Operation, Recipe
from melanoma_edge.errors import BadInput

OPERATIONS = tuple(Augment.model_fields)
KEYS = tuple(Recipe.model_fields)


def refused(*arguments, **keywords) -> str:
    """Return the message with which loading a recipe fails, after checking that it is one printable line."""
    with pytest.raises(BadInput) as caught:
        recipes.load(*arguments, **keywords)
    message = str(caught.value)
    assert message.isprintable() and caught.value.exit_code == 2
    return message


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "mine.toml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# --- what is shipped


@pytest.mark.parametrize("name", recipes.names())
def test_every_shipped_recipe_loads_and_explains_itself(name: str) -> None:
    recipe = recipes.load(name)
    assert recipe.name == name and len(recipe.description) > 40
    assert recipes.load(Path(recipes.__file__).parent / f"{name}.toml") == recipe


@pytest.mark.parametrize("name", recipes.names())
def test_a_shipped_recipe_reads_back_equal(tmp_path: Path, name: str) -> None:
    recipe = recipes.load(name)
    text = recipes.to_toml(recipe)
    assert recipes.load(written(tmp_path, text)) == recipe
    meaningless = {"operating_specificity"} | (set() if recipe.rebalance == "augmentor" else {"samples_per_class"})  # the other rule is in force
    assert set(tomllib.loads(text)) == set(KEYS) - meaningless, "not every key is written out"


def test_there_is_a_default(tmp_path: Path) -> None:
    assert {"classic", "default", "demo"} <= set(recipes.names()) and recipes.load() == recipes.load("default")
    assert recipes.text("default") == (Path(recipes.__file__).parent / "default.toml").read_text(encoding="utf-8")


# --- there and back

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text("\0\b\t\n\r\x1f\x7f\x80\u2028\"'\\#=[u0", max_size=8)
FACTOR = st.floats(min_value=0.0, max_value=1e6, exclude_min=True)


def bounded(low: float, high: float, **keywords: bool) -> st.SearchStrategy[float]:
    return st.floats(min_value=low, max_value=high, **keywords)


@st.composite
def operations(draw: st.DrawFn, strength: st.SearchStrategy[float]) -> dict[str, float]:
    low, high = sorted((draw(strength), draw(strength)))
    return {"probability": draw(bounded(0.0, 1.0)), "low": low, "high": high}


@st.composite
def shares(draw: st.DrawFn) -> dict[str, float]:
    """A share for each of some classes, whatever they are called, written down with a few digits."""
    weights = draw(st.dictionaries(TEXT.filter(bool), bounded(0.01, 1.0), min_size=2, max_size=9))
    return {name: round(weight / sum(weights.values()), 6) for name, weight in weights.items()}


@st.composite
def values(draw: st.DrawFn) -> dict:
    """Valid values for every key of a recipe, or for some."""
    folds = draw(st.integers(1, 20))
    strategies = {
        "description": TEXT,
        "network": st.sampled_from(get_args(Recipe.model_fields["network"].annotation)),
        "image_size": st.integers(32, 1024),
        "width": bounded(0.0, 4.0, exclude_min=True),
        "dropout": bounded(0.0, 1.0, exclude_max=True),
        "init": TEXT,
        "positive_class": TEXT,
        "conflicts": st.sampled_from(["reference", "drop", "keep"]),
        "duplicates": st.sampled_from(["one", "keep"]),
        "decode": st.sampled_from(["full", "reduced"]),
        "min_lesions": st.integers(2, 10**9),
        "max_bad_share": bounded(0.0, 1.0),
        "folds": st.just(folds),
        "fold": st.integers(0, folds - 1),
        "validation_folds": st.integers(2, 20),
        "kept_epoch": st.sampled_from(["best", "last"]),
        "distillation": st.fixed_dictionaries(
            {}, optional={"teachers": st.integers(0, 16), "epochs": st.integers(1, 10_000), "weight": bounded(0.0, 1.0, exclude_min=True), "temperature": FACTOR}
        ),
        "rebalance": st.just("augmentor"),
        "samples_per_class": st.integers(1, 10**9),
        "epochs": st.integers(1, 10_000),
        "batch_size": st.integers(1, 8192),
        "learning_rate": FACTOR,
        "schedule": st.sampled_from(["cosine", "constant"]),
        "warmup_share": bounded(0.0, 0.5),
        "weight_decay": st.floats(min_value=0.0, allow_infinity=False),
        "label_smoothing": bounded(0.0, 1.0, exclude_max=True),
        "qat_epochs": st.integers(0, 10_000),
        "qat_learning_rate": FACTOR,
        "deployment_prior": st.sampled_from(["balanced", "data"]) | shares(),
        "coverage": bounded(0.0, 1.0, exclude_min=True),
        "abstention": st.sampled_from(["confidence", "energy"]),
        "operating_sensitivity": bounded(0.0, 1.0, exclude_min=True),
        "operating_specificity": bounded(0.0, 1.0, exclude_min=True, exclude_max=True),
        "seed": st.integers(0, 2**31 - 1),
    }
    assert {"name", "augment", "mix", *strategies} == set(KEYS), "this test does not know every key"
    chosen = draw(st.sets(st.sampled_from(sorted(strategies)))) | {"folds"}
    if {"operating_sensitivity", "operating_specificity"} <= chosen:  # one threshold is in force
        chosen.remove(draw(st.sampled_from(["operating_sensitivity", "operating_specificity"])))
    augment = draw(st.sets(st.sampled_from(OPERATIONS)))
    mix = draw(st.sets(st.sampled_from(["mixup", "cutmix"])))
    return {
        "name": draw(st.from_regex(r"[a-z0-9][a-z0-9-]{0,40}", fullmatch=True)),
        **{key: draw(strategies[key]) for key in sorted(chosen)},
        **({} if "samples_per_class" in chosen else {"rebalance": draw(st.sampled_from(get_args(Recipe.model_fields["rebalance"].annotation)))}),
        "augment": {name: draw(operations(bounded(*LIMITS[name]) if name in LIMITS else FACTOR)) for name in sorted(augment)},
        "mix": {name: draw(operations(bounded(0.0, 1.0))) for name in sorted(mix)},
    }


@given(values())
@settings(deadline=None, max_examples=150)
def test_any_valid_recipe_reads_back_equal(chosen: dict) -> None:
    recipe = recipes.parse(chosen, "drawn")
    for key, value in chosen.items():
        if key not in ("augment", "mix", "distillation"):
            assert getattr(recipe, key) == value
    assert all(getattr(recipe.distillation, key) == value for key, value in chosen.get("distillation", {}).items())
    text = recipes.to_toml(recipe)
    again = recipes.parse(tomllib.loads(text), "written")
    assert again == recipe and recipes.to_toml(again) == text


@given(values())
@settings(deadline=None, max_examples=60)
def test_overrides_give_what_a_file_with_these_values_gives(chosen: dict) -> None:
    recipe = recipes.parse(chosen, "drawn")
    text, overrides, table = recipes.to_toml(recipe), [], ""
    for line in filter(None, text.split("\n")):
        if line.startswith("["):
            table = line[1:-1] + "."
        else:
            overrides.append(table + line)
    assert recipes.load("demo", overrides) == recipe


# --- overrides


@pytest.mark.parametrize(
    "override, value",
    [
        ("positive_class=nevus", "nevus"),
        ('positive_class="nevus"', "nevus"),
        ("positive_class='nevus'", "nevus"),
        ("positive_class = basal cell carcinoma ", "basal cell carcinoma"),
        ("positive_class=", ""),
        ('positive_class=""', ""),
        ('positive_class="1"', "1"),
        ("positive_class=a=b", "a=b"),
        ("positive_class=Größe 3", "Größe 3"),
        ('positive_class=it\'s "so"', 'it\'s "so"'),
    ],
)
def test_text_may_stand_with_and_without_quotes(override: str, value: str) -> None:
    assert recipes.load("demo", [override]).positive_class == value


def test_overrides_reach_into_tables_and_the_last_one_counts() -> None:
    recipe = recipes.load("demo", ["epochs=3", "augment.rotate.low=-5", "epochs=4", "augment.hue={probability=0.5, low=-1, high=1.5}"])
    before = recipes.load("demo")
    assert recipe.epochs == 4 and recipe.augment.rotate.low == -5.0
    assert recipe.augment.rotate.high == before.augment.rotate.high
    assert recipe.augment.hue == Operation(probability=0.5, low=-1.0, high=1.5)
    assert recipe == before.model_copy(update={"epochs": 4, "augment": recipe.augment})
    assert recipes.load("demo") == before, "an override outlived its call"


@pytest.mark.parametrize("recipe", ["demo", "classic"])  # one that says nothing of priors, one that names a rule
def test_deployment_priors_may_be_a_table_of_shares(tmp_path: Path, recipe: str) -> None:
    stated = {"melanoma": 0.04, "actinic keratosis": 0.1, "nevus, e.g. = blue": 0.86}
    inline = 'deployment_prior={melanoma = 0.04, "actinic keratosis" = 0.1, "nevus, e.g. = blue" = 0.86}'
    found = recipes.load(recipe, [inline])
    assert found.deployment_prior == stated and recipes.load(recipe, ["deployment_prior=data", inline]) == found
    table = '[deployment_prior]\nmelanoma = 0.04\n"actinic keratosis" = 0.1\n"nevus, e.g. = blue" = 0.86\n'
    file = written(tmp_path, f'name = "mine"\n{table}')
    assert recipes.load(file).deployment_prior == stated
    assert recipes.load(written(tmp_path, recipes.to_toml(found))) == found
    changed = recipes.load(file, ["deployment_prior.melanoma=0.06", 'deployment_prior."actinic keratosis"=0.08'])
    assert changed.deployment_prior == {**stated, "melanoma": 0.06, "actinic keratosis": 0.08}
    assert recipes.load(file, ["deployment_prior=balanced"]).deployment_prior == "balanced"


def test_shares_may_be_rounded(tmp_path: Path) -> None:
    assert recipes.load("demo", ["deployment_prior={a = 0.33, b = 0.33, c = 0.33}"]).deployment_prior == {"a": 0.33, "b": 0.33, "c": 0.33}
    assert recipes.load("demo", ["deployment_prior={a = 1, b = 0.005}"]).deployment_prior == {"a": 1.0, "b": 0.005}


def test_a_recipe_that_states_no_shares_is_dumped_as_ever() -> None:
    """Runs and quoted cross-validations of earlier versions are matched by what their recipes hold."""
    assert recipes.load().model_dump()["deployment_prior"] == "balanced" and recipes.load("classic").model_dump()["deployment_prior"] == "data"
    assert 'deployment_prior = "balanced"' in recipes.to_toml(recipes.load())


@pytest.mark.parametrize(
    "table, why",
    [
        ("{a = 0.5, b = 0.4}", "the shares add up to 0.9, expected 1 (0.99 to 1.01 for rounding)"),
        ("{a = 0.5, b = 0.6}", "the shares add up to 1.1, expected 1"),
        ("{a = 0.5, b = 0.5, c = 0}", "expected a share above 0 and at most 1 for 'c'"),
        ("{a = -0.5, b = 1}", "for 'a'"),
        ("{a = nan, b = 1}", "for 'a'"),
        ("{a = 0.5, b = inf}", "for 'b'"),
        ("{a = 1.01, b = 0.001}", "for 'a'"),
        (f"{{a = 0.5, b = {'9' * 4000}}}", "for 'b'"),
        ("{a = true, b = 0.5}", "for 'a'"),
        ("{a = 'half', b = 0.5}", "for 'a'"),
        ("{a = {b = 0.5}}", "for 'a'"),
        ("{a = 1}", "expected a share for each of at least 2 classes"),
        ("{}", "at least 2 classes"),
        ('{"" = 0.5, b = 0.5}', "expected names of classes, of 1 to 200 characters"),
        (f"{{{'x' * 201} = 0.5, b = 0.5}}", "of 1 to 200 characters"),
        ('{"a\\nb" = 2, c = 0.5}', r"for 'a\nb'"),
        ("[0.5, 0.5]", 'expected "balanced", "data" or a table with the share of each class'),
        ("0.5", 'expected "balanced", "data" or a table'),
        ("{a = 0.5, b 0.5}", 'expected "balanced", "data" or a table'),
    ],
)
def test_a_table_that_holds_no_shares_is_refused(table: str, why: str) -> None:
    message = refused("demo", [f"deployment_prior={table}"])
    assert message.startswith("recipe demo: deployment_prior is ") and why in message and message.endswith('write for example deployment_prior = "balanced"')
    assert len(message) < 500


def test_a_whole_number_may_stand_for_a_fraction_but_not_the_other_way_round() -> None:
    assert recipes.load("demo", ["width=2"]).width == 2.0
    assert "epochs is 3.0" in refused("demo", ["epochs=3.0"])


@pytest.mark.parametrize("override", ["epochs", "=3", "", "augment..low=3", ".epochs=3", "epochs.=3"])
def test_an_override_of_another_form_is_shown_the_form(override: str) -> None:
    message = refused("demo", [override])
    assert message.startswith(f"--set {override!r} is not of the form key=value") and "--set epochs=20" in message


@pytest.mark.parametrize("override", ["epochs=3\nseed=99", "epochs=3\n[augment]"])
def test_an_override_of_two_lines_is_refused_and_not_half_read(override: str) -> None:
    assert "more than one key: give each a --set of its own" in refused("demo", [override])


def test_an_override_below_a_scalar_is_refused() -> None:
    message = refused("demo", ["epochs.low=3"])
    assert "'epochs' is not a table" in message and "melanoma-edge recipes default" in message


# --- mistakes


@pytest.mark.parametrize("key", KEYS)
def test_an_unknown_key_names_the_close_one(key: str) -> None:
    assert refused("demo", [f"{key}{key[-1]}=3"]) == f"recipe demo: unknown key '{key}{key[-1]}'; did you mean {key!r}?"


@pytest.mark.parametrize(
    "override, key, close",
    [
        ("augment.rotat.low=3", "augment.rotat", "rotate"),
        ("augment.flip_left.low=3", "augment.flip_left", "flip_left_right"),
        ("augment.rotate.probabilty=0.3", "augment.rotate.probabilty", "probability"),
    ],
)
def test_an_unknown_key_in_a_table_names_the_close_one(override: str, key: str, close: str) -> None:
    assert refused("demo", [override]) == f"recipe demo: unknown key {key!r}; did you mean {close!r}?"


def test_an_unknown_key_that_is_like_none_lists_all() -> None:
    message = refused("demo", ["quux=3"])
    assert "unknown key 'quux'; expected one of" in message and all(key in message for key in KEYS)
    message = refused("demo", ["augment.quux=3"])
    assert "unknown key 'augment.quux'; expected one of" in message and all(name in message for name in OPERATIONS)


def test_an_unknown_key_of_two_lines_is_shown_in_one(tmp_path: Path) -> None:
    assert r"unknown key 'a\nb'" in refused(written(tmp_path, "name = 'x'\n\"a\\nb\" = 3\n"))


@pytest.mark.parametrize(
    "override, found, correction",
    [
        ("epochs=many", "epochs is 'many'", "epochs = 60"),
        ("epochs=true", "epochs is True", "epochs = 60"),
        ("epochs=0", "epochs is 0", "epochs = 60"),
        ("epochs=[1, 2]", "epochs is [1, 2]", "epochs = 60"),
        ("epochs=2020-01-01", "epochs is datetime.date(2020, 1, 1)", "epochs = 60"),
        ("epochs='20'", "epochs is '20'", "epochs = 60"),
        ("dropout=true", "dropout is True", "dropout = 0.2"),
        ("dropout=1.0", "dropout is 1.0", "dropout = 0.2"),
        ("learning_rate=nan", "learning_rate is nan", "learning_rate = 0.003"),
        ("learning_rate=inf", "learning_rate is inf", "learning_rate = 0.003"),
        ("learning_rate=1e999", "learning_rate is inf", "learning_rate = 0.003"),
        ("augment.rotate.high=-nan", "augment.rotate.high is nan", "augment.rotate.high = 0.0"),
        ("positive_class=3", "positive_class is 3", 'positive_class = "melanoma"'),
        ("network=edg", "network is 'edg'", 'network = "edge"'),
        ("deployment_prior=evenly", "deployment_prior is 'evenly'", 'deployment_prior = "balanced"'),
        ("conflicts=KEEP", "conflicts is 'KEEP'", 'conflicts = "reference"'),
        ("seed=-1", "seed is -1", "seed = 7"),
        (f"seed={2**31}", f"seed is {2**31}", "seed = 7"),
    ],
)
def test_a_wrong_value_is_shown_with_the_corrected_line(override: str, found: str, correction: str) -> None:
    message = refused("demo", [override])
    assert message.startswith(f"recipe demo: {found}: ") and message.endswith(f"write for example {correction}")
    key, _, value = correction.partition(" = ")
    assert recipes.load("demo", [f"{key}={value}"]), "the corrected line is wrong itself"


def test_a_table_in_the_wrong_place_is_refused() -> None:
    assert "augment is 3" in refused("demo", ["augment=3"])
    assert "augment.rotate is 'yes'" in refused("demo", ["augment.rotate=yes"])
    assert "epochs is {'low': 1}" in refused("demo", ["epochs={low=1}"])


@pytest.mark.parametrize(
    "overrides, contradiction",
    [
        (["fold=5"], "fold is 5 but folds is 5: expected fold in 0..4"),
        (["folds=3", "fold=3"], "fold is 3 but folds is 3: expected fold in 0..2"),
        (["augment.rotate.low=200"], "low (200.0) is above high (180.0): swap them"),
        (["augment.zoom.low=0"], "zoom.low must be above 0"),
        (["augment.contrast.low=-0.5"], "contrast.low must be above 0"),
    ],
)
def test_a_contradiction_is_named(overrides: list[str], contradiction: str) -> None:
    assert contradiction in refused("demo", overrides)


def test_a_missing_name_is_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, "epochs = 3\n")
    assert refused(path) == f"recipe {path}: the key 'name' is missing: add it"
    assert "'augment.hue.probability' is missing" in refused("demo", ["augment.hue.low=-3"])


@pytest.mark.parametrize(
    "content",
    ["name = ", "name = 'x'\nname = 'y'", "a = " + "[" * 100_000, "epochs = " + "9" * 5000, "name = 'x\x7f'", "\0", "[augment\n", "= 3"],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_not_toml_is_one_line(tmp_path: Path, content: str) -> None:
    message = refused(written(tmp_path, content))
    assert "mine.toml is not TOML: " in message and message.endswith("; correct that line")


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 100_000, "x" * 100_000])
def test_an_endless_value_is_shown_shortened(value: str) -> None:
    message = refused("demo", [f"epochs={value}"])
    assert message.startswith(f"recipe demo: epochs is '{value[:100]}") and "...: input should be a valid integer" in message
    assert len(message) < 300


def test_a_recipe_that_is_not_utf8_is_one_line(tmp_path: Path) -> None:
    assert "cannot be read: 'utf-8' codec" in refused(written(tmp_path, "name = 'é'".encode("latin-1")))


def test_a_byte_order_mark_as_windows_editors_write_it_is_read_over(tmp_path: Path) -> None:
    assert recipes.load(written(tmp_path, "name = 'x'\r\nepochs = 3\r\n".encode("utf-8-sig"))).epochs == 3


def test_a_missing_file_and_a_folder_are_told_from_a_missing_name(tmp_path: Path) -> None:
    assert "nothing.toml cannot be read: " in refused(tmp_path / "nothing.toml")
    (tmp_path / "folder.toml").mkdir()
    assert "folder.toml cannot be read: " in refused(tmp_path / "folder.toml")
    message = refused("defalt")
    assert "there is no recipe 'defalt'" in message and "default" in message and "ends with .toml" in message
    with pytest.raises(BadInput, match="there is no recipe"):
        recipes.text("../contract")


def test_a_recipe_cannot_be_changed() -> None:
    recipe = recipes.load("demo")
    with pytest.raises(ValidationError):
        recipe.epochs = 3


# --- the threshold in force


def test_a_recipe_without_a_rule_keeps_a_sensitivity_of_nine_tenths() -> None:
    recipe = recipes.load("demo")
    assert (recipe.operating_sensitivity, recipe.operating_specificity, recipe.abstention) == (0.9, None, "confidence")
    assert "operating_sensitivity = 0.9" in recipes.to_toml(recipe) and "operating_specificity" not in recipes.to_toml(recipe)


def test_a_recipe_that_names_the_specificity_keeps_that_alone(tmp_path: Path) -> None:
    file = tmp_path / "old.toml"
    file.write_text('name = "old"\noperating_specificity = 0.8\n')
    recipe = recipes.load(file)
    assert (recipe.operating_sensitivity, recipe.operating_specificity) == (None, 0.8)
    assert recipes.parse(tomllib.loads(recipes.to_toml(recipe)), "written") == recipe
    other = recipes.load(file, ["operating_sensitivity=0.95"])
    assert (other.operating_sensitivity, other.operating_specificity) == (0.95, None)
    assert recipes.load("demo", ["operating_specificity=0.7"]).operating_sensitivity is None


def test_two_rules_are_one_too_many(tmp_path: Path) -> None:
    message = refused("demo", ["operating_sensitivity=0.95", "operating_specificity=0.8"])
    assert "operating_sensitivity is 0.95 and operating_specificity 0.8, and one threshold is in force: remove one of them" in message
    assert message.endswith("write for example operating_sensitivity = 0.95 alone")
    for wrong in ("operating_sensitivity=0", "operating_sensitivity=1.1", "operating_specificity=1", "abstention=mood"):
        assert wrong.partition("=")[0] in refused("demo", [wrong])
