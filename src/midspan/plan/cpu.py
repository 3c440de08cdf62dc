"""This machine: what it can do, and what a step of the loop costs on it, both measured on the spot.

A step is timed with the loop's own functions on models of the recipe's shape but fewer layers, and carried on
to all of them: time and memory of a step are linear in the number of layers.

    seconds of a pass = ends + layers x layer        peak bytes of a process = ends + layers x layer

Nothing needs the base to be here. Bytes are the most that a process of its own took, which holds all that the
allocator keeps and what libraries take beside tensors; a process cannot be asked for it twice.
"""

from __future__ import annotations

import os
import pickle
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from midspan.errors import WorkError
from midspan.plan.memory import Memory, gradient_bytes
from midspan.plan.result import Plan, gib
from midspan.plan.stage import Stage
from midspan.plan.trial import Trial, shallow_trial
from midspan.train.recipe import Recipe

Clock = Callable[[], float]
SECONDS = 5.0
"""That timing a recipe's steps may take, about."""
HEADROOM = 0.95
"""Of the memory that is free now that a run may fill."""
BESIDE = 280 * 2**20
"""Bytes that a run takes beside a trial: its vocabulary (70 MiB with 49,152 pieces), its corpus and what compiling
rows in the same process leaves (170 MiB), and gaps between them. Measured, not derived."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What this machine reaches."""

    threads: int
    gemm: float
    """bfloat16 products of 2,048 cubed, operations a second."""
    copy: float
    """Bytes read and written a second, copying 256 MiB."""
    free: float
    """Bytes of memory that are free, by the system's own estimate."""


def measure_machine() -> Machine:
    """Time a product and a copy; about a second."""
    a, b = (torch.randn(2048, 2048, dtype=torch.bfloat16) for _ in range(2))
    source = torch.ones(64 << 20)
    target = torch.empty_like(source)
    product, copied = _seconds(lambda: a @ b, 5), _seconds(lambda: target.copy_(source), 3)
    return Machine(
        threads=torch.get_num_threads(),
        gemm=2 * 2048**3 / product,
        copy=2 * source.nbytes / copied,
        free=_free_bytes(),
    )


def plan_cpu(
    recipe: Recipe, stage: Stage, machine: Machine | None = None, *, clock: Clock = time.perf_counter
) -> Plan:
    """The plan of a recipe on this machine.

    Args:
        recipe: what is planned.
        stage: its numbers.
        machine: measured before; measured now if not given.
        clock: `time.process_time` counts one core's work where others use the machine.
    """
    machine = machine or measure_machine()
    layers = stage.model.num_layers
    stage = replace(stage, rows_per_pass=min(stage.rows_per_pass, stage.rows_per_step))
    passes = stage.rows_per_step / stage.rows_per_pass
    least = _states(stage)
    if least > machine.free * HEADROOM:  # not even tried
        memory = Memory(parts={"weights and states": least}, moment="always")
        return _plan(stage, machine, memory, {}, _advice(stage, machine, memory), {})

    trial = shallow_trial(recipe, stage, 1, stage.rows_per_pass)
    trial.backward()  # the first of its kind: kernels are made
    trial.step()
    one = _pass_seconds(trial, 2, clock)
    deep = max(2, min(layers, int(SECONDS / 3 / one)))  # every layer costs less than all of this one
    del trial
    trial = shallow_trial(recipe, stage, deep, stage.rows_per_pass)
    trial.backward()
    trial.step()
    many = _pass_seconds(trial, 3, clock)
    layer = (many - one) / (deep - 1)
    step = _optimizer_seconds(trial, clock)
    trained = trial.trained
    del trial
    seconds = {
        "layers": passes * layer * layers,
        "embedding, head and loss": passes * max(one - layer, 0.0),
        "optimizer": step * stage.trained() / trained,
    }
    memory = _memory(recipe, stage)
    facts = {
        "threads": machine.threads,
        "bf16_product_gflops": machine.gemm / 1e9,
        "memory_copy_gb_per_second": machine.copy / 1e9,
        "layers_timed": deep,
    }
    advice = _advice(stage, machine, memory) if memory.total > machine.free * HEADROOM else ()
    return _plan(stage, machine, memory, seconds, advice, facts)


def _plan(
    stage: Stage,
    machine: Machine,
    memory: Memory,
    seconds: dict[str, float],
    advice: tuple[str, ...],
    facts: dict[str, float],
) -> Plan:
    note = f"this machine: {machine.threads} threads, {machine.gemm / 1e9:,.0f} GFLOP/s in bfloat16 products, "
    notes = [note + f"{machine.copy / 1e9:,.0f} GB/s copied, {gib(machine.free)} free; all measured now"]
    if stage.shape_from:
        notes.append(f"shape: {stage.shape_from}")
    return Plan(
        stage=stage,
        device="cpu",
        count=1,
        limit=machine.free * HEADROOM,
        memory=memory,
        seconds=seconds,
        watts=0.0,
        notes=tuple(notes),
        advice=advice,
        facts=facts,
    )


def _advice(stage: Stage, machine: Machine, memory: Memory) -> tuple[str, ...]:
    advice = [
        f"{stage.name} does not fit this machine: it needs {gib(memory.total)} and {gib(machine.free)} are free"
    ]
    if stage.method != "lora" and _states(replace(stage, method="lora")) < machine.free * HEADROOM / 2:
        advice.append('train.method = "lora" needs less: plan it')
    if memory.parts.get("activations and working memory", 0.0) > memory.total / 2:
        advice.append("most of it grows with the tokens of a pass: lower data.row_tokens or train.rows_per_pass")
    advice.append("or plan it on GPUs, for instance --gpus 8xA100-80GB")
    return tuple(advice)


def _states(stage: Stage) -> float:
    """Bytes of weights and of what the optimizer keeps of those that train."""
    weights = (4 if stage.states == "float32" else 2) * stage.model.num_parameters()
    masters = 0 if stage.states == "float32" or stage.method == "lora" else 4
    return weights + stage.trained() * (8 + masters + (4 if stage.method == "lora" else 0))


def _memory(recipe: Recipe, stage: Stage) -> Memory:
    """Peak of a process that trains: that of one with fewer layers, and what each layer adds."""
    few, more = 1, min(3, stage.model.num_layers)
    before, least = _peak(recipe, stage, few)
    peak = float(least)
    if more > few:
        peak += (stage.model.num_layers - few) * (_peak(recipe, stage, more)[1] - least) / (more - few)
    weights = (4 if stage.states == "float32" else 2) * float(stage.model.num_parameters())
    parts = {
        "weights": weights,
        "masters and optimizer states": _states(stage) - weights,
        "gradients": gradient_bytes(stage)[0] * float(stage.trained()),
        "Python, libraries, vocabulary and rows": float(before + BESIDE),
    }
    working = max(0.0, peak + BESIDE - sum(parts.values()))
    return Memory(parts={**parts, "activations and working memory": working}, moment="a step")


def _peak(recipe: Recipe, stage: Stage, layers: int) -> tuple[int, int]:
    """Bytes of a process with the loop and no model in it, and the most it has while it trains some layers."""
    command = [sys.executable, "-m", "midspan.plan.peak"]
    asked = pickle.dumps((recipe, stage, layers, torch.get_num_threads()))
    done = subprocess.run(command, input=asked, capture_output=True, check=False)
    if done.returncode:
        raise WorkError(f"memory could not be measured: {done.stderr.decode(errors='replace').strip()[-500:]}")
    before, most = map(int, done.stdout.split())
    return before, most


def _pass_seconds(trial: Trial, runs: int, clock: Clock) -> float:
    def once() -> None:
        trial.backward()
        trial.forget()

    return _seconds(once, runs, clock)


def _optimizer_seconds(trial: Trial, clock: Clock) -> float:
    found = []
    for _ in range(2):
        trial.backward()
        begun = clock()
        trial.step()
        found.append(clock() - begun)
    return min(found)


def _seconds(call: Callable[[], Any], runs: int, clock: Clock = time.perf_counter) -> float:
    call()
    found = []
    for _ in range(runs):
        begun = clock()
        call()
        found.append(clock() - begun)
    return statistics.median(found)


def _free_bytes() -> float:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable"):
                    return float(line.split()[1]) * 1024
    except OSError:
        pass
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
