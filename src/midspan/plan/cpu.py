"""This machine: what it can do, and what a step of the loop costs on it, both measured on the spot.

A step is timed with the loop's own functions on models of the recipe's shape but fewer layers, and carried on
to all of them: time and memory of a pass are linear in the number of layers.

    seconds of a pass = ends + layers x layer        peak bytes of a pass = ends + layers x layer

A layer is timed without the ends: at few layers they take most of a pass, and a tenth more or less of them would
be several layers.

Nothing needs the base to be here. Bytes are those that torch's allocator hands out, seen by its profiler; what the
process has beside them (Python, torch, libraries) is read from the system.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from midspan.model import Llama
from midspan.model.precision import computed_in
from midspan.plan.hardware import GIB
from midspan.plan.memory import Memory
from midspan.plan.result import Plan, gib
from midspan.plan.stage import Stage
from midspan.plan.trial import Trial, precision_of, random_rows
from midspan.train.recipe import Recipe

Clock = Callable[[], float]
SECONDS = 5.0
"""That timing a recipe's steps may take, about."""
BESIDE = 240 * 2**20
"""Bytes that a run has and a trial has not: a vocabulary of 49,152 pieces (70 MiB), what compiling rows leaves
behind (170 MiB). Measured, not derived."""
HEADROOM = 0.95
"""Of the memory that is free now that a run may fill."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What this machine reaches."""

    threads: int
    gemm: float
    """Products of 2,048 cubed, operations a second, in bfloat16 or what stands in for it here."""
    copy: float
    """Bytes read and written a second, copying 256 MiB."""
    free: float
    """Bytes of memory that are free, by the system's own estimate."""


def measure_machine() -> Machine:
    """Time a product and a copy; about a second."""
    a, b = (torch.randn(2048, 2048, dtype=computed_in(torch.bfloat16, "cpu")) for _ in range(2))
    source = torch.ones(64 << 20)
    target = torch.empty_like(source)
    product, copied = _seconds(lambda: a @ b, 5), _seconds(lambda: target.copy_(source), 3)
    return Machine(
        threads=torch.get_num_threads(),
        gemm=2 * 2048**3 / product,
        copy=2 * source.nbytes / copied,
        free=_free_bytes(),
    )


def _trial(recipe: Recipe, stage: Stage, layers: int, num_rows: int) -> Trial:
    """A random model of some layers, ready to train."""
    model = Llama(replace(stage.model, num_layers=layers)).to(precision_of(recipe, "cpu"))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.shape[0] == stage.model.vocab_size:  # large, and nothing depends on what is in it
                parameter.fill_(0.02)
            else:
                parameter.normal_(std=0.02)
    return Trial(recipe, model, (1, 2, 3), random_rows(stage, num_rows))


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
    if stage.states == "masters" and precision_of(recipe, "cpu") == torch.float32:
        stage = replace(stage, states="float32")
    layers = stage.model.num_layers
    stage = replace(stage, rows_per_pass=min(stage.rows_per_pass, stage.rows_per_step))
    passes = stage.rows_per_step / stage.rows_per_pass
    least = _states(stage)
    if least > machine.free * HEADROOM:  # not even tried
        memory = Memory(parts={"weights and states": least}, moment="always")
        return _plan(stage, machine, memory, {}, _advice(stage, machine, memory), {})

    resident = _resident_bytes()  # before trials, of which the allocator keeps memory for the next
    trial = _trial(recipe, stage, 1, stage.rows_per_pass)
    trial.backward()  # the first of its kind: kernels are made
    trial.step()
    one = _pass_seconds(trial, trial.backward, 2, clock)
    shallow = _pass_seconds(trial, trial.layers, 2, clock)
    del trial
    deep = max(4, min(layers, int(SECONDS / 3 / shallow)))
    trial = _trial(recipe, stage, deep, stage.rows_per_pass)
    trial.backward()
    trial.step()
    many = _pass_seconds(trial, trial.layers, 3, clock)
    layer = (many - shallow) / (deep - 1)
    step = _optimizer_seconds(trial, clock)
    trained = trial.trained
    del trial
    seconds = {
        "layers": passes * layer * layers,
        "embedding, head and loss": passes * max(one - layer, 0.0),
        "optimizer": step * stage.trained() / trained,
    }
    memory = _memory(recipe, stage, resident)
    facts = {
        "threads": machine.threads,
        "product_gflops": machine.gemm / 1e9,
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
    name = str(computed_in(torch.bfloat16, "cpu")).removeprefix("torch.")
    note = f"this machine: {machine.threads} threads, {machine.gemm / 1e9:,.0f} GFLOP/s in {name} products, "
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


def _memory(recipe: Recipe, stage: Stage, resident: float) -> Memory:
    """Peak of the process: what stays, and the larger of the peaks of a backward pass and of the optimizer."""
    passes = min(2, stage.rows_per_step // stage.rows_per_pass)
    peaks = []
    for layers in (1, 3):
        trial = _trial(recipe, stage, layers, passes * stage.rows_per_pass)
        trial.backward()
        trial.step()
        backward = peak_bytes(trial.backward)
        peaks.append((backward, peak_bytes(trial.step)))
        del trial
    held = []
    for (peak_1, rest_1), (peak_3, rest_3) in zip(*peaks, strict=True):
        more = stage.model.num_layers - 1
        held.append((peak_1 + more * (peak_3 - peak_1) / 2, rest_1 + more * (rest_3 - rest_1) / 2))
    (backward_peak, gradients), (step_peak, _) = held
    working, moment = backward_peak, "a pass"
    if gradients + step_peak > backward_peak:
        working, moment = gradients + step_peak, "the optimizer's step"
    states = {
        "weights": (4 if stage.states == "float32" else 2) * float(stage.model.num_parameters()),
    }
    states["masters and optimizer states"] = _states(stage) - states["weights"]
    return Memory(
        parts={
            **states,
            "gradients": gradients,
            "activations and working memory": working - gradients,
            "Python, libraries, vocabulary and rows": resident + BESIDE,
        },
        moment=moment,
    )


def _pass_seconds(trial: Trial, work: Callable[[], None], runs: int, clock: Clock) -> float:
    def once() -> None:
        work()
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


def peak_bytes(call: Callable[[], Any]) -> tuple[int, int]:
    """The most that a call holds at once above what was there before, and what it leaves behind."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # it would tell standard error that it begins and ends
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        call()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most, now


def _free_bytes() -> float:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable"):
                    return float(line.split()[1]) * 1024
    except OSError:
        pass
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _resident_bytes() -> float:
    """What this process has in memory, with what a run imports and no model."""
    import midspan.train.loop  # noqa: F401

    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return float(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0.5 * GIB
