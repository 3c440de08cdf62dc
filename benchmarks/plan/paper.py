"""The paper's twelve models on A100-80GB: hours by the planner beside the 1,400,000 that its Table 26 states.

Known: sizes, tokens, batches, rows of 4,096 and 16,384, steps of the long-context stages of 7B, 13B and 34B.
Not known: the software's speed, how many GPUs, whether the Python models of 7B and 13B start from a code stage of
their own without infilling, the 70B's long-context stage, rows of instruct tuning, and what failed runs cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.harness import Bench
from midspan.model import PRESETS
from midspan.plan import Layout, Stage, parse_gpus, plan_gpus
from midspan.plan.speed import gpu_speed

STATED = 1_400_000
TONNES, STATED_TONNES = 0.385, 228.55
"""kg of CO2 equivalent a kWh that Meta states for Llama (arXiv 2302.13971), and the paper's tonnes."""
LLAMA2_HOURS = {"7b": 184_320, "13b": 368_640, "34b": 1_038_336, "70b": 1_720_320}
"""A100 hours of Llama 2 for 2 T tokens each (arXiv 2307.09288, Table 2): the same people, cluster and year."""
GPUS = 256


@dataclass(frozen=True, kw_only=True)
class Part:
    """One stage of one size."""

    size: str
    stage: str
    tokens: float
    row_tokens: int = 4096
    batch: float = 4e6


PARTS = tuple(
    part
    for size, code, long_steps, batch in (
        ("7b", 500e9, 3_000, 2e6),
        ("13b", 500e9, 10_000, 2e6),
        ("34b", 500e9, 11_000, 1e6),
        ("70b", 1e12, 10_000, 1e6),
    )
    for part in (
        Part(size=size, stage="code", tokens=code),
        Part(size=size, stage="long context", tokens=long_steps * batch, row_tokens=16_384, batch=batch),
        Part(size=size, stage="Python", tokens=100e9),
        *(
            [
                Part(
                    size=size,
                    stage="Python long context",
                    tokens=(11_000 if size == "34b" else 10_000) * batch,
                    row_tokens=16_384,
                    batch=batch,
                )
            ]
            if size != "70b"
            else []
        ),
        Part(size=size, stage="instruct", tokens=5e9, batch=524_288),
    )
)
SECOND_RUN = tuple(
    Part(size=size, stage="code without infilling, for Python", tokens=500e9) for size in ("7b", "13b")
)


def hours(part: Part, *, eager: bool = False) -> float:
    """A100 hours of a part, in the best layout that fits."""
    rows = 2 ** round(math.log2(part.batch / part.row_tokens))  # 1,024 rows are the paper's 4 M tokens
    gpus = min(GPUS, rows)
    stage = Stage(
        name=f"{part.size} {part.stage}",
        model=PRESETS[part.size],
        row_tokens=part.row_tokens,
        rows_per_step=rows,
        steps=1,
    )
    cluster = parse_gpus(f"{gpus}xA100-80GB")
    plan = plan_gpus(stage, cluster)
    assert plan.fits
    assert plan.layout is not None
    per_gpu = plan.tokens_per_second / gpus
    if eager:
        plain = Layout(**{**vars(plan.layout), "compile": False})
        per_gpu = gpu_speed(plan.stage, plain, cluster).per_gpu
    return part.tokens / per_gpu / 3600


def run(bench: Bench) -> None:
    """Record hours by stage and three totals."""
    by_stage: dict[str, list[float]] = {}
    for part in (*PARTS, *SECOND_RUN):
        best, eager = hours(part), hours(part, eager=True)
        long = part.row_tokens > 4096  # attention over longer rows costs more: as the planner says
        own = LLAMA2_HOURS[part.size] * part.tokens / 2e12
        if long:
            short = hours(Part(size=part.size, stage=part.stage, tokens=part.tokens, batch=part.batch))
            own *= best / short
        by_stage[f"{part.size} {part.stage}"] = [best, eager, own]
        bench.record(f"paper: {part.size.upper()} {part.stage}", unit="A100 hours", value=best, better="lower")
        bench.rows[-1] |= {"tokens": part.tokens, "eager": eager, "at_llama2_speed": own}
    extra = {f"{part.size} {part.stage}" for part in SECOND_RUN}
    for name, column in (("compiled, as Midspan", 0), ("eager", 1), ("at Llama 2's published speed", 2)):
        once = sum(row[column] for key, row in by_stage.items() if key not in extra)
        twice = sum(row[column] for row in by_stage.values())
        for words, total in ((name, once), (f"{name}, second code run for Python", twice)):
            bench.record(f"paper: twelve models, {words}", unit="A100 hours", value=total, better="lower")
            bench.rows[-1] |= {"stated": STATED, "off": 100 * (total / STATED - 1)}
    for watts in (350, 400):
        tonnes = STATED * watts / 1000 * 1.1 * TONNES / 1000
        bench.record(f"paper: tonnes of CO2 of its hours at {watts} W", unit="t", value=tonnes, better="lower")
        bench.rows[-1] |= {"stated": STATED_TONNES, "off": 100 * (tonnes / STATED_TONNES - 1)}
