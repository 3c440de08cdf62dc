"""Layouts that are found, and refusals."""

from dataclasses import replace
from pathlib import Path

import pytest

from midspan.errors import InputError
from midspan.model import PRESETS
from midspan.plan import Layout, Stage, parse_gpus, plan_gpus, stage_of
from midspan.plan.command import plan_all
from midspan.plan.hardware import GIB, GPUS, Cluster
from midspan.plan.memory import gpu_memory
from midspan.plan.speed import gpu_speed
from midspan.train import load_recipe

SEVEN = Stage(name="seven", model=PRESETS["7b"], row_tokens=4096, rows_per_step=1024, steps=1000)


def on(text: str, stage: Stage = SEVEN, layout: Layout | None = None):
    return plan_gpus(stage, parse_gpus(text), layout=layout)


def test_seven_billion_on_a_node() -> None:
    plan = on("8xA100-80GB")
    assert plan.fits
    assert plan.layout is not None
    assert plan.layout.gpus == 8
    assert plan.layout.tensor == plan.layout.pipeline == 1  # shards are enough
    assert plan.memory.total <= plan.limit < GPUS["A100-80GB"].memory
    assert 3000 < plan.tokens_per_second / 8 < 5500
    assert plan.hours * 8 == pytest.approx(plan.device_hours)


def test_classic_mixed_precision_of_seven_billion_needs_two_cards() -> None:
    plan = on("1xH100")
    assert not plan.fits
    assert "2 GPUs of this kind would do" in plan.advice
    assert 'train.precision = "bf16-states" would fit' in plan.advice
    assert 'train.method = "lora" would fit' in plan.advice
    assert on("2xH100").fits
    assert on("1xH100", replace(SEVEN, method="lora")).fits
    assert on("1xH100", replace(SEVEN, states="bf16")).fits


def test_every_remedy_that_is_named_works() -> None:
    stage = replace(SEVEN, model=PRESETS["70b"])
    plan = on("8xA100-80GB", stage)
    assert "does not fit 8 x A100-80GB in any layout" in plan.advice[0]
    count = next(int(line.split()[0]) for line in plan.advice if line.endswith("would do"))
    assert on(f"{count}xA100-80GB", stage).fits
    assert not on(f"{count // 2}xA100-80GB", stage).fits


def test_rows_that_cannot_be_shared_are_refused_with_both_remedies() -> None:
    plan = on("7xH100")
    assert plan.advice == (
        "1024 rows a step cannot be divided evenly among 7 GPUs; set train.rows_per_step = 1029, or take 4 GPUs",
    )
    assert on("7xH100", replace(SEVEN, rows_per_step=1029)).fits


def test_a_layout_that_is_given_is_judged_as_it_is() -> None:
    plan = on("8xA100-80GB", layout=Layout(replicate=8))
    assert not plan.fits
    assert "another layout fits: leave [parallel] out and plan again to see it" in plan.advice


def test_a_recipes_own_layout_is_judged_and_compared() -> None:
    recipe = load_recipe(
        Path("recipes/code-llama/7b-code.toml"),
        ["parallel.tensor=8", "parallel.activation_checkpointing=full", "parallel.compile=true"],
    )
    (plan,) = plan_all([recipe], "64xA100-80GB")
    assert plan.layout is not None
    assert (plan.layout.tensor, plan.layout.shard) == (8, 8)
    assert "another layout is" in plan.notes[0]
    with pytest.raises(InputError, match="does not divide the 12 ranks"):
        plan_all([recipe], "12xA100-80GB")


def test_long_rows_share_their_context() -> None:
    stage = replace(SEVEN, row_tokens=131_072, rows_per_step=8)
    plan = on("64xH100", stage)
    assert plan.fits
    assert plan.layout is not None
    assert plan.layout.context * plan.layout.tensor * plan.layout.pipeline >= 8  # fewer rows than GPUs


def test_states_are_the_fields_bytes_a_parameter() -> None:
    number = PRESETS["7b"].num_parameters()
    states = ("weights", "float32 masters", "gradients", "optimizer states")
    for kind, expected in (("masters", 16), ("float32", 16), ("bf16", 8)):
        parts = gpu_memory(replace(SEVEN, states=kind, rows_per_step=2), Layout()).parts
        if kind == "masters":  # at the optimizer's step or in a pass, whichever is fuller
            assert sum(parts.get(name, 0.0) for name in states) >= expected * number * 0.99
        else:
            assert sum(parts.get(name, 0.0) for name in states) == pytest.approx(expected * number, rel=0.01)


def test_sharding_parts_states_and_leaves_activations() -> None:
    whole, parted = (gpu_memory(SEVEN, Layout(shard=n)).parts for n in (2, 16))
    for name in ("weights", "optimizer states"):
        assert parted[name] == pytest.approx(whole[name] / 8, rel=0.01)
    assert parted["activations"] == whole["activations"]


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_checkpointing_trades_time_for_memory(kind: str) -> None:
    cluster, plain = parse_gpus("8xH100"), Layout(shard=8)
    layout = replace(plain, activation_checkpointing=kind)
    assert gpu_memory(SEVEN, layout).total < gpu_memory(SEVEN, plain).total
    assert gpu_speed(SEVEN, layout, cluster).step > gpu_speed(SEVEN, plain, cluster).step


def test_slow_networks_cost_what_no_pass_hides() -> None:
    fast = Cluster(gpu=GPUS["H100"], count=64)
    slow = replace(fast, gpu=replace(fast.gpu, network=1e9))
    assert gpu_speed(SEVEN, Layout(shard=64), slow).step > 1.5 * gpu_speed(SEVEN, Layout(shard=64), fast).step
    hybrid = Layout(replicate=8, shard=8)
    assert gpu_speed(SEVEN, hybrid, slow).step < gpu_speed(SEVEN, Layout(shard=64), slow).step


def test_pipelines_wait_less_with_more_passes() -> None:
    stage, cluster = replace(SEVEN, rows_per_step=64), parse_gpus("8xH100")
    few, many = (gpu_speed(replace(stage, rows_per_pass=n), Layout(pipeline=8), cluster) for n in (8, 1))
    assert few.parts["pipeline bubble"] / few.step > 5 * many.parts["pipeline bubble"] / many.step


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("8xA99", "names no GPU that is known"),
        ("x8", "names no GPU"),
        ("8 of them", "not of the form"),
        ("0xH100", "at least 1"),
    ],
)
def test_hardware_that_is_not_known(text: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        parse_gpus(text)


def test_kinds_are_found_by_short_names() -> None:
    assert parse_gpus("A100").gpu.name == "A100-80GB"
    assert parse_gpus("16xh100-80gb") == Cluster(gpu=GPUS["H100"], count=16)
    assert all(gpu.memory > 30 * GIB and gpu.source for gpu in GPUS.values())


def test_a_base_that_is_not_here_has_the_shape_in_its_name() -> None:
    recipe = load_recipe(Path("recipes/code-llama/13b-code.toml"))
    stage = stage_of(recipe)
    assert stage.model == PRESETS["13b"]
    assert "is not here" in stage.shape_from
    assert stage.tokens == pytest.approx(500e9, rel=0.001)
    unknown = replace(recipe, base="./my-model")
    with pytest.raises(InputError, match="--shape"):
        stage_of(unknown)
    assert stage_of(unknown, shape="34b").model == PRESETS["34b"]
    child = replace(recipe, name="next", base=f"runs/{unknown.name}")
    with pytest.raises(InputError, match="--shape"):
        stage_of(child, {unknown.name: unknown})
    assert stage_of(child, {recipe.name: recipe}).model == PRESETS["13b"]
