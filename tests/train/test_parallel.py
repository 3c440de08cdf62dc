"""Every layout against one rank: the same rows give the same loss and the same norm of the gradient."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tests.train.ranks import on_processes, on_ranks

from midspan.errors import InputError, WorkError
from midspan.model import PRESETS
from midspan.rows import Rows
from midspan.tokenizer import Tokenizer
from midspan.train import Recipe, load_recipe, train
from midspan.train.base import open_base
from midspan.train.learner import Learner
from midspan.train.loop import _compile
from midspan.train.metrics import read_metrics
from midspan.train.parallel import Layout, ParallelConfig, use_float8
from midspan.train.ranks import Ranks
from midspan.train.sources import open_sources

ALONE = Ranks(0, 1, torch.device("cpu"), None)
QUIET = Console(quiet=True)
STEPS = 3
Settings = Sequence[str]


@pytest.fixture
def recipe_path(tiny_recipe: Path) -> Path:
    """Eight rows a step, which eight readers could share."""
    text = (
        tiny_recipe.read_text()
        .replace("rows_per_step = 2", "rows_per_step = 8")
        .replace("steps = 60", "steps = 12")
    )
    tiny_recipe.write_text(text.replace('method = "lora"', 'method = "full"\nprecision = "fp32"'))
    return tiny_recipe


def _vocabulary(recipe: Recipe) -> Tokenizer:
    return open_base(recipe.base, torch.float32).tokenizer


def _curve(recipe_path: Path, ranks: Ranks, settings: Settings) -> list[float]:
    """Losses and norms of a few steps, by which updates are compared as well."""
    recipe = load_recipe(recipe_path, settings)
    learner, rows = Learner(recipe, ranks), Rows(recipe_path.parent / "rows")
    curve = []
    for step in range(STEPS):
        batch = rows.batch(step, 8, rank=learner.layout.reader, world=learner.layout.readers)
        loss, _, _ = learner.backward(batch)
        _, norm = learner.optimizer.step(step)
        curve += [loss, norm]
    return curve


def _compare(recipe_path: Path, world: int, cases: Sequence[Settings], relative: float = 1e-5) -> None:
    recipe = load_recipe(recipe_path)
    _compile(recipe, recipe_path.parent, open_sources(recipe.data), _vocabulary(recipe), QUIET)
    curves = on_ranks(world, lambda ranks: [_curve(recipe_path, ranks, case) for case in cases])
    alone: dict[tuple[str, ...], list[float]] = {}
    for number, case in enumerate(cases):
        stage = tuple(setting for setting in case if not setting.startswith("parallel."))
        if stage not in alone:
            alone[stage] = _curve(recipe_path, ALONE, stage)
        for rank in range(world):
            assert curves[rank][number] == pytest.approx(alone[stage], rel=relative), f"{case} on rank {rank}"


def test_two_ranks(recipe_path: Path) -> None:
    cases = [
        ["parallel.shard=2"],
        ["parallel.tensor=2", "parallel.sequence=true"],
        ["parallel.pipeline=2"],
        ["parallel.context=2", "train.rows_per_pass=2"],
        ["train.method=lora"],
    ]
    _compare(recipe_path, 2, cases)


def test_four_ranks(recipe_path: Path) -> None:
    cases = [
        ["parallel.replicate=2", "parallel.tensor=2", "parallel.activation_checkpointing=full"],
        ["parallel.pipeline=2", "parallel.context=2"],
    ]
    _compare(recipe_path, 4, cases)


@pytest.mark.slow
def test_two_ranks_in_every_way(recipe_path: Path) -> None:
    cases = [
        ["parallel.replicate=2"],
        ["parallel.tensor=2"],
        ["parallel.shard=2", "train.rows_per_pass=2"],
        ["train.method=layers"],
        ["train.method=lora", "lora.quantise=nf4"],
        ["train.method=lora", "parallel.pipeline=2"],
        ["train.method=layers", "parallel.context=2"],
        ["parallel.activation_checkpointing=full"],
        ["parallel.activation_checkpointing=selective"],
        ["parallel.tensor=2", "parallel.sequence=true", "parallel.activation_checkpointing=selective"],
        ["parallel.context=2", "parallel.activation_checkpointing=full"],
        ["parallel.pipeline=2", "parallel.activation_checkpointing=full"],
    ]
    _compare(recipe_path, 2, cases)


@pytest.mark.slow
def test_four_ranks_in_every_way(recipe_path: Path) -> None:
    cases = [
        ["parallel.shard=4"],
        ["parallel.replicate=2"],
        ["parallel.tensor=2"],
        ["parallel.tensor=2", "parallel.sequence=true"],
        ["parallel.tensor=2", "parallel.context=2"],
        ["parallel.tensor=2", "parallel.context=2", "parallel.sequence=true"],
        ["parallel.replicate=2", "parallel.context=2"],
        ["parallel.context=2"],
        ["parallel.context=4"],
        ["parallel.pipeline=2"],
        ["parallel.pipeline=2", "parallel.replicate=2"],
        ["parallel.pipeline=2", "parallel.tensor=2"],
        ["parallel.pipeline=2", "parallel.tensor=2", "parallel.sequence=true"],
        ["parallel.pipeline=2", "parallel.context=2", "train.method=layers"],
    ]
    _compare(recipe_path, 4, cases)


@pytest.mark.slow
def test_bfloat16_layouts_are_near(recipe_path: Path) -> None:
    cases = [
        ["train.precision=bf16"],
        ["train.precision=bf16", "parallel.tensor=2", "parallel.sequence=true"],
        ["train.precision=bf16", "parallel.pipeline=2"],
        ["train.precision=bf16-states"],
        ["train.precision=bf16", "train.method=lora"],
        ["train.precision=bf16", "train.method=lora", "lora.quantise=nf4"],
        ["train.precision=bf16", "train.method=layers"],
    ]
    _compare(recipe_path, 2, cases, relative=0.02)


@pytest.mark.parametrize("settings", [["full"], ["selective"]])
def test_running_a_layer_again_changes_nothing(recipe_path: Path, settings: list[str]) -> None:
    recipe = load_recipe(recipe_path)
    _compile(recipe, recipe_path.parent, open_sources(recipe.data), _vocabulary(recipe), QUIET)
    again = [f"parallel.activation_checkpointing={settings[0]}"]
    assert _curve(recipe_path, ALONE, again) == _curve(recipe_path, ALONE, [])


@pytest.mark.slow
def test_compiled_layers_agree(recipe_path: Path) -> None:
    recipe = load_recipe(recipe_path)
    _compile(recipe, recipe_path.parent, open_sources(recipe.data), _vocabulary(recipe), QUIET)
    compiled = _curve(recipe_path, ALONE, ["parallel.compile=true"])
    assert compiled == pytest.approx(_curve(recipe_path, ALONE, []), rel=1e-5)


def _until(recipe_path: Path, run: Path, settings: Settings, stop_after: int) -> str:
    """Train on this rank until so many steps are recorded, then be asked to stop; what the run said."""

    def ask() -> None:
        while not (run / "metrics.jsonl").is_file() or len(read_metrics(run / "metrics.jsonl")) < stop_after:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    if stop_after and os.environ["RANK"] == "0":  # one rank is asked, and all stop
        threading.Thread(target=ask, daemon=True).start()
    try:
        train(load_recipe(recipe_path, settings), run, resume=run.exists(), console=QUIET)
    except (WorkError, SystemExit) as error:
        return str(error)
    return "finished"


def test_a_run_goes_on_with_one_then_four_then_two_ranks(recipe_path: Path, tmp_path: Path) -> None:
    straight, moved = tmp_path / "straight", tmp_path / "moved"
    train(load_recipe(recipe_path), straight, console=QUIET)
    on_processes(1, lambda: _until(recipe_path, moved, [], 2))
    four = ["parallel.tensor=2", "parallel.sequence=true"]
    said = on_processes(4, lambda: _until(recipe_path, moved, four, 5))
    assert "go on with --resume" in said[0]
    assert said[1:] == ["1"] * 3, "only rank 0 says it"
    steps = len(read_metrics(moved / "metrics.jsonl"))
    assert 5 <= steps < 12, "it was stopped on its way"
    assert on_processes(2, lambda: _until(recipe_path, moved, ["parallel.context=2"], 0)) == ["finished"] * 2
    expected, found = (read_metrics(run / "metrics.jsonl") for run in (straight, moved))
    assert [m.step for m in found] == list(range(1, 13))
    for key in ("loss", "grad_norm", "lr", "tokens", "targets"):
        assert [getattr(m, key) for m in found] == pytest.approx([getattr(m, key) for m in expected], rel=1e-4)
    weights = [load_file(run / "model" / "model.safetensors") for run in (straight, moved)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, atol=1e-3, rtol=0.02)
    assert json.loads((moved / "recipe.json").read_text())["hash"] == load_recipe(recipe_path, four).hash()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "layers", "full"])
def test_torchrun_writes_what_one_process_writes(recipe_path: Path, tmp_path: Path, method: str) -> None:
    """The command itself, through torch's launcher; LoRA's adapter as well."""
    settings = ["--set", f"train.method={method}", "--set", "parallel.pipeline=2"]
    arguments = ["train", str(recipe_path), "--out", str(tmp_path / "many"), *settings]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "4", "-m", "midspan"]
    done = subprocess.run(
        [*launcher, *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr.decode().count("loading ") == 1, "rank 0 alone speaks"
    train(load_recipe(recipe_path, [f"train.method={method}"]), tmp_path / "one", console=QUIET)
    names = ["model/model.safetensors"] + ["adapter/adapter_model.safetensors"] * (method == "lora")
    for name in names:
        expected, found = (load_file(tmp_path / run / name) for run in ("one", "many"))
        assert expected.keys() == found.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, atol=2e-3, rtol=0.02)


@pytest.mark.parametrize(
    ("config", "world", "sentence"),
    [
        ({"tensor": 3}, 4, "parallel has tensor 3 = 3, which does not divide the 4 ranks of this run"),
        ({"shard": 2, "context": 4}, 4, "shard 2 x context 4 = 8, and this run has 4 ranks; start 8"),
        ({"tensor": 2}, 1, "does not divide the 1 ranks"),
    ],
)
def test_axes_that_do_not_make_the_ranks(config: dict[str, int], world: int, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Layout.of(ParallelConfig(**config), world)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("config", "world", "sentence"),
    [
        ({"tensor": 3}, 3, "the model's 32 attention heads cannot be shared by so many; give a divisor of 32"),
        ({"pipeline": 64}, 64, "parallel.pipeline is 64, and the model has 32 layers; give at most 32"),
        ({}, 5, "5 ranks (replicate x shard) cannot share the 64 rows of a step"),
        (
            {"pipeline": 8, "shard": 16},
            128,
            "a rank has 4 rows of a step and passes of 1; 8 stages need 8 equal passes",
        ),
    ],
)
def test_a_model_or_a_step_that_cannot_be_shared(config: dict[str, int], world: int, sentence: str) -> None:
    layout = Layout.of(ParallelConfig(**config), world)
    with pytest.raises(InputError) as caught:
        layout.check(PRESETS["7b"], method="full", rows_per_step=64, rows_per_pass=1)
    assert sentence in str(caught.value)


def test_ranks_stand_where_the_drawing_says() -> None:
    config = ParallelConfig(pipeline=2, replicate=2, shard=2, context=2, tensor=2)
    layouts = [Layout.of(config, 32, rank) for rank in range(32)]
    assert [layout.stage for layout in layouts] == [0] * 16 + [1] * 16
    assert [layout.reader for layout in layouts] == [reader for reader in range(4) for _ in range(4)] * 2


def test_float8_is_refused_where_it_cannot_be(recipe_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    for settings, sentence in (
        (["parallel.float8=true"], "needs a GPU that multiplies in float8 (H100 or later), not a CPU"),
        (["parallel.float8=true", "train.method=lora"], "whose matrices are frozen; leave it out"),
    ):
        with pytest.raises(InputError) as caught:
            Learner(load_recipe(recipe_path, settings), ALONE)
        assert sentence in str(caught.value)


def test_float8_layers_are_near(recipe_path: Path) -> None:
    """The arithmetic of the unit, emulated: the loss of a model of matrices exchanged."""
    pytest.importorskip("torchao")
    from dataclasses import replace

    from tests.train.conftest import TINY

    from midspan.model import Llama, Segments

    model = Llama(replace(TINY, hidden_size=64, head_dim=16, intermediate_size=128))
    model.initialise(seed=1, std=0.08)
    ids = torch.arange(32)[None]
    expected = model(ids, segments=Segments((0, 20, 32)))
    use_float8(model, emulate=True)
    changed = [n for n, m in model.named_modules() if type(m).__name__ == "Float8Linear"]
    assert len(changed) == 2 * 7
    found = model(ids, segments=Segments((0, 20, 32)))
    assert 0 < (found - expected).norm() / expected.norm() < 0.2  # three bits of mantissa
    found.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
