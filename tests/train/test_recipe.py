"""Recipes: what is read is what was written, and every mistake is named."""

from pathlib import Path

import pytest

from midspan.errors import InputError
from midspan.train import load_recipe

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*/*.toml"))
MINIMAL = 'name = "a"\nbase = "b"\n[data]\ncorpus = "c"\n[train]\nsteps = 1\nrows_per_step = 2\n'


def _recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_shipped_recipe_loads(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.num_rows == recipe.train.steps * recipe.train.rows_per_step


def test_the_defaults_are_the_papers(tmp_path: Path) -> None:
    recipe = load_recipe(_recipe(tmp_path, MINIMAL))
    assert (recipe.fim.rate, recipe.fim.spm_rate, dict(recipe.fim.spans)) == (0.9, 0.5, {"uniform": 1.0})
    assert recipe.optimizer.betas == (0.9, 0.95)
    assert recipe.optimizer.final_ratio == pytest.approx(1 / 30)
    assert recipe.optimizer.warmup_steps == 1000
    assert recipe.data.row_tokens == 4096
    assert recipe.train.loss_on == "all"


def test_overrides_win_and_have_types(tmp_path: Path) -> None:
    path = _recipe(tmp_path, MINIMAL)
    recipe = load_recipe(path, ["train.steps=7", "optimizer.lr=1", "base=./here", "fim.spans={line=1.0}"])
    assert recipe.train.steps == 7
    assert recipe.optimizer.lr == 1.0
    assert recipe.base == "./here"
    assert dict(recipe.fim.spans) == {"line": 1.0}


def test_the_hash_covers_what_decides_the_weights_and_nothing_else(tmp_path: Path) -> None:
    path = _recipe(tmp_path, MINIMAL)
    same = ["checkpoint.every_steps=5", "data.workers=2", "data.corpus=elsewhere"]
    other = ["train.steps=3", "optimizer.lr=1e-5", "fim.rate=0.5", "data.seed=1", "lora.rank=2", "base=d"]
    expected = load_recipe(path).hash()
    assert all(load_recipe(path, [override]).hash() == expected for override in same)
    hashes = {load_recipe(path, [override]).hash() for override in other}
    assert len(hashes | {expected}) == len(other) + 1


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("train.stesp=3", "train.stesp; did you mean train.steps"),
        ("trian.steps=3", "unknown key trian; did you mean train"),
        ("train.steps=many", "train.steps is 'many'; a value of the kind int"),
        ("train.steps=1.5", "train.steps is 1.5"),
        ("train.steps=true", "train.steps is True"),
        ("train.steps=0", "train.steps is 0; it must be at least 1"),
        ("train.method=qlora", "'qlora'; the choices are full, lora"),
        ("train.loss_on=none", "the choices are all, middle"),
        ("fim.rate=1.5", "fim.rate is 1.5; it must lie between 0 and 1"),
        ("fim.spans={words=1.0}", "words"),
        ("fim.spans={uniform=0.0}", "no share above 0"),
        ("optimizer.lr=-1.0", "optimizer.lr is -1.0; it must be above 0"),
        ("optimizer.lr=nan", "optimizer.lr is nan"),
        ("optimizer.betas=[0.9]", "two numbers"),
        ("data=3", "data is 3; it is a table"),
        ("data.row_tokens=2", "a row needs at least 16"),
        ("data.long_documents=keep", "'cut' or 'drop'"),
        ("lora.rank=0", "lora.rank is 0"),
        ('lora.targets=["w_proj"]', "'w_proj'"),
        ("checkpoint.keep=1", "at least 2"),
        ("train.steps", "has no value"),
        ("name.x=1", "goes through name"),
    ],
)
def test_a_mistake_is_one_sentence_with_the_value(tmp_path: Path, override: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(_recipe(tmp_path, MINIMAL), [override])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name = ", "not valid TOML"),
        ('name = "a"', "lacks base"),
        (MINIMAL.replace("steps = 1", ""), "lacks train.steps"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_recipe(_recipe(tmp_path, text))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.toml cannot be read"):
        load_recipe(tmp_path / "nowhere.toml")
