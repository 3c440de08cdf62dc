"""This machine: plans of a tiny recipe, measured on the spot, and the command."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.train.conftest import tiny_base, tiny_corpus, tiny_recipe
from typer.testing import CliRunner

from midspan.cli import app
from midspan.errors import InputError
from midspan.model import PRESETS
from midspan.plan import stage_of
from midspan.plan.cpu import Machine, plan_cpu
from midspan.plan.measure import steps_within
from midspan.plan.trial import random_rows
from midspan.train import load_recipe, train

__all__ = ["tiny_base", "tiny_corpus", "tiny_recipe"]
MACHINE = Machine(threads=1, gemm=5e11, copy=2e10, free=8 * 2**30)


@pytest.mark.parametrize(
    ("method", "has_bfloat16"), [("full", True), ("full", False), ("layers", True), ("lora", True)]
)
def test_a_tiny_recipe_is_measured(
    tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch, method: str, has_bfloat16: bool
) -> None:
    monkeypatch.setattr("midspan.model.precision.has_bfloat16", lambda: has_bfloat16)
    recipe = load_recipe(tiny_recipe, [f"train.method={method}"])
    plan = plan_cpu(recipe, stage_of(recipe), MACHINE)
    assert plan.fits
    assert plan.tokens_per_second > 100
    assert 0 < plan.memory.parts["activations and working memory"] < 2**30
    assert plan.memory.parts["weights"] == (2 if has_bfloat16 else 4) * plan.stage.model.num_parameters()


def test_activations_grow_with_rows(tiny_recipe: Path) -> None:
    def working(rows: int) -> float:
        recipe = load_recipe(tiny_recipe, [f"train.rows_per_step={rows}", f"train.rows_per_pass={rows}"])
        return plan_cpu(recipe, stage_of(recipe), MACHINE).memory.parts["activations and working memory"]

    assert working(8) > 2 * working(2)


def test_what_cannot_fit_is_refused_without_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("midspan.model.precision.has_bfloat16", lambda: True)
    recipe = load_recipe(Path("recipes/code-llama/7b-code.toml"))
    plan = plan_cpu(recipe, stage_of(recipe), MACHINE)
    assert "does not fit this machine" in plan.advice[0]
    assert plan.to_json()["seconds_per_step"] is None
    assert plan.memory.total > 14 * PRESETS["7b"].num_parameters() * 0.99


def test_rows_are_full_and_cut_as_the_recipe_says(tiny_recipe: Path) -> None:
    stage = stage_of(load_recipe(tiny_recipe))
    (row,) = random_rows(replace(stage, segment_tokens=100), 1)
    assert row.bounds == (0, 100, 200, 256)
    assert len(row.targets) == 253


def test_steps_that_fit_some_time(tiny_recipe: Path) -> None:
    recipe = load_recipe(tiny_recipe)
    few, many = (steps_within(recipe, minutes) for minutes in (0.01, 1.0))
    assert 1 <= few < many
    with pytest.raises(InputError, match="leaves no time"):
        steps_within(recipe, 0)


def test_the_command_beside_a_run(tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = load_recipe(tiny_recipe, ["train.steps=3"])
    train(recipe, tmp_path / "run")
    arguments = ["plan", str(tiny_recipe), "--set", "train.steps=3", "--run", str(tmp_path / "run"), "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["plans"][0]["fits"]
    assert answer["run"]["tokens a second"]["measured"] > 0


def test_the_command_over_a_folder() -> None:
    arguments = ["plan", "recipes/code-llama", "--gpus", "256xA100-80GB", "--price-per-hour", "2"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "in all" in result.stdout
    assert "[parallel]" in result.stdout
    answer = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    names = [plan["name"] for plan in answer["plans"]]
    assert names.index("code-llama-7b-code") < names.index("code-llama-7b-python")
    for plan in answer["plans"]:
        assert plan["cost"] == pytest.approx(2 * plan["device_hours"])


def test_the_command_refuses_with_exit_code_1() -> None:
    arguments = ["plan", "recipes/code-llama/70b-code.toml", "--gpus", "H100", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert not json.loads(result.stdout)["plans"][0]["fits"]
