"""The best layout of a stage on a cluster, or why there is none and what would do.

Every layout that divides the work evenly is judged by memory and time: tensor ranks within a node, pipeline stages
that divide the layers, context ranks that divide a row, replicas and shards, three kinds of activation
checkpointing, rows a pass. The fastest that fits wins; of two within a hundredth, the simpler.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from midspan.plan.hardware import HEADROOM, NODE, Cluster
from midspan.plan.memory import Memory, gpu_memory
from midspan.plan.result import Plan, gib, parallel_table
from midspan.plan.speed import gpu_speed
from midspan.plan.stage import CHECKPOINTING, Layout, Stage

SIMPLER = 0.01
"""Of a step's time that another kind of parallelism must win to be worth it."""
MOST_GPUS = 16_384
SHORTEST = 512
"""Tokens of a row on one context rank below which cutting rows further is pointless."""


def plan_gpus(stage: Stage, cluster: Cluster, *, layout: Layout | None = None) -> Plan:
    """The plan of a stage.

    Args:
        stage: what is trained.
        cluster: with what.
        layout: the one to judge; the best is searched where it is not given.

    Returns:
        The plan. Where nothing fits it is that of the layout that comes nearest, with advice.
    """
    limit = cluster.gpu.memory * HEADROOM
    judged = [(stage, layout)] if layout is not None else list(_layouts(stage, cluster.count))
    if not judged:
        return _uneven(stage, cluster, limit)
    found = [(each, spread, gpu_memory(each, spread)) for each, spread in judged]
    fitting = [one for one in found if one[2].total <= limit]
    if fitting:
        best = _plan(*min(fitting, key=lambda one: _cost(one[0], one[1], cluster)), cluster, limit, ())
        return best if layout is None else _compared(best, cluster)
    nearest = min(found, key=lambda one: one[2].total)
    return _plan(*nearest, cluster, limit, _advice(stage, cluster, limit, nearest[2], searched=layout is None))


def _cost(stage: Stage, layout: Layout, cluster: Cluster) -> float:
    kinds = sum(ranks > 1 for ranks in (layout.tensor, layout.context, layout.pipeline))
    return gpu_speed(stage, layout, cluster).step * (1 + SIMPLER * kinds)


def _layouts(stage: Stage, gpus: int) -> Iterator[tuple[Stage, Layout]]:
    c = stage.model
    for tensor in _powers(min(NODE, gpus)):
        if c.num_kv_heads % tensor or c.intermediate_size % tensor or gpus % tensor:
            continue
        if tensor > 1 and stage.method != "full":  # only whole matrices are shared by heads
            break
        for pipeline in _powers(min(16, gpus // tensor)):
            if c.num_layers % pipeline or gpus % (tensor * pipeline):
                continue
            for context in _powers(min(NODE, gpus // tensor // pipeline)):
                data, rest = divmod(gpus, tensor * pipeline * context)
                short = context > 1 and stage.row_tokens / (2 * context) < SHORTEST
                if rest or short or stage.row_tokens % (2 * context) or stage.rows_per_step % data:
                    continue
                yield from _passes(stage, data, tensor, pipeline, context)


def _passes(stage: Stage, data: int, tensor: int, pipeline: int, context: int) -> Iterator[tuple[Stage, Layout]]:
    for rows in _powers(32):
        passes, rest = divmod(stage.rows_per_step, data * rows)
        if rest or not passes:
            continue
        if pipeline > passes:  # stages would wait for ever
            continue
        for shard in dict.fromkeys((1, min(NODE, data), data)):
            if data % shard:
                continue
            for checkpointing in CHECKPOINTING:
                yield (
                    replace(stage, rows_per_pass=rows),
                    Layout(
                        replicate=data // shard,
                        shard=shard,
                        tensor=tensor,
                        context=context,
                        pipeline=pipeline,
                        activation_checkpointing=checkpointing,
                    ),
                )


def _powers(most: int) -> list[int]:
    return [2**n for n in range(most.bit_length())]


def _plan(
    stage: Stage, layout: Layout, memory: Memory, cluster: Cluster, limit: float, advice: tuple[str, ...]
) -> Plan:
    speed = gpu_speed(stage, layout, cluster)
    notes = [f"{cluster.gpu.name}: {cluster.gpu.source}"]
    if not cluster.gpu.fitted:
        notes.append(f"no published run on {cluster.gpu.name} was fitted: take its times as rough")
    if stage.shape_from:
        notes.append(f"shape: {stage.shape_from}")
    return Plan(
        stage=stage,
        device=cluster.gpu.name,
        count=cluster.count,
        limit=limit,
        memory=memory,
        seconds=speed.parts,
        watts=cluster.gpu.watts,
        layout=layout,
        mfu=speed.mfu,
        notes=tuple(notes),
        advice=advice,
    )


def _compared(plan: Plan, cluster: Cluster) -> Plan:
    """The plan of a layout that was given, with a word on a faster one."""
    best = plan_gpus(plan.stage, cluster)
    gain = plan.step_seconds / best.step_seconds - 1
    if not best.fits or gain < 0.03:
        return plan
    found = ", ".join(f"{name} = {value}" for name, value in parallel_table(best.layout or Layout()).items())
    word = f"another layout is {gain:.0%} faster: {found}, with train.rows_per_pass = {best.stage.rows_per_pass}"
    return replace(plan, notes=(word, *plan.notes))


def _uneven(stage: Stage, cluster: Cluster, limit: float) -> Plan:
    """No layout divides the rows: say which numbers of GPUs, and which batches, would."""
    data = cluster.count
    rows = -(-stage.rows_per_step // data) * data
    near = [n for n in range(cluster.count, 0, -1) if any(True for _ in _layouts(stage, n))]
    advice = [
        f"{stage.rows_per_step} rows a step cannot be divided evenly among {cluster.count} GPUs; "
        f"set train.rows_per_step = {rows}" + (f", or take {near[0]} GPUs" if near else "")
    ]
    layout = Layout(shard=cluster.count)
    spread = replace(stage, rows_per_pass=1, rows_per_step=rows)
    return _plan(spread, layout, gpu_memory(spread, layout), cluster, limit, tuple(advice))


def _advice(stage: Stage, cluster: Cluster, limit: float, memory: Memory, *, searched: bool) -> tuple[str, ...]:
    """Why a stage does not fit, and changes that were tried and do."""
    largest = max(memory.parts, key=lambda name: memory.parts[name])
    size = f"{stage.model.num_parameters() / 1e9:.1f} B parameters"
    how = "in any layout" if searched else "in the recipe's layout"
    advice = [
        f"{stage.name} ({size}, {stage.method}) does not fit {cluster} {how}: at least {gib(memory.total)} a GPU "
        f"are needed and {gib(limit)} can be filled; the largest part is {largest}, {gib(memory.parts[largest])}"
    ]
    if not searched:
        if plan_gpus(stage, cluster).fits:
            advice.append("another layout fits: leave [parallel] out and plan again to see it")
        return tuple(advice)
    count = cluster.count
    while count < MOST_GPUS:
        count *= 2
        if _fits(stage, replace(cluster, count=count), limit):
            advice.append(f"{count} GPUs of this kind would do")
            break
    if stage.states == "masters" and _fits(replace(stage, states="bf16"), cluster, limit):
        advice.append('train.precision = "bf16-states" would fit')
    four_bits = replace(stage, method="lora", lora=replace(stage.lora, quantise="nf4"))
    if stage.method != "lora" and _fits(replace(stage, method="lora"), cluster, limit):
        advice.append('train.method = "lora" would fit')
    elif stage.lora.quantise == "none" and _fits(four_bits, cluster, limit):
        advice.append('train.method = "lora" with lora.quantise = "nf4" would fit')
    tokens = stage.row_tokens // 2
    while tokens >= SHORTEST:
        if _fits(replace(stage, row_tokens=tokens), cluster, limit):
            advice.append(f"data.row_tokens = {tokens} would fit")
            break
        tokens //= 2
    return tuple(advice)


def _fits(stage: Stage, cluster: Cluster, limit: float) -> bool:
    return any(gpu_memory(each, layout).total <= limit for each, layout in _layouts(stage, cluster.count))
