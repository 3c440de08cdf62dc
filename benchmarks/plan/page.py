"""The rows of a run of this benchmark joined to those kept before, and the page that is written from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, Bench

PAGE = Path(__file__).resolve().parents[2] / "docs" / "results" / "plan.md"


def keep(bench: Bench, *, quick: bool) -> None:
    """Rows that were not measured this time stay as they are in the file."""
    path = RESULTS / "plan.json"
    if not quick and path.is_file():
        mine = {row["row"] for row in bench.rows}
        before = json.loads(path.read_text(encoding="utf-8"))["rows"]
        bench.rows = [row for row in before if row["row"] not in mine] + bench.rows
        order = ("speed", "memory", "paper", "this machine")
        bench.rows.sort(key=lambda row: order.index(row["row"].split(":")[0]))
    bench.finish(quick=quick)
    if not quick:
        results = json.loads(path.read_text(encoding="utf-8"))
        PAGE.parent.mkdir(parents=True, exist_ok=True)
        PAGE.write_text(text(results), encoding="utf-8")


def text(results: dict[str, Any]) -> str:
    """The page."""
    rows = results["rows"]
    published = [row for row in rows if row["row"].startswith(("speed", "memory"))]
    stages = [row for row in rows if row["row"].startswith("paper:") and "tokens" in row]
    totals = [row for row in rows if row["row"].startswith("paper:") and "stated" in row]
    machine = [row for row in rows if row["row"].startswith("this machine")]
    speeds = sorted(abs(row["off"]) for row in published if row["row"].startswith("speed") and row["goal"])
    memories = sorted(abs(row["off"]) for row in published if row["row"].startswith("memory"))
    return _TEXT.format(
        date=results["date"],
        commit=results["commit"],
        hardware=results["hardware"],
        num_speeds=len(speeds),
        half_speed=speeds[len(speeds) // 2],
        worst_speed=speeds[-1],
        num_memories=len(memories),
        half_memory=memories[len(memories) // 2],
        worst_memory=memories[-1],
        published=_table(published),
        stages="\n".join(
            f"| {row['row'].removeprefix('paper: ')} | {row['tokens'] / 1e9:,.0f} B | {row['ours']:,.0f} | "
            f"{row['eager']:,.0f} | {row['at_llama2_speed']:,.0f} |"
            for row in stages
        ),
        totals="\n".join(
            f"| {row['row'].removeprefix('paper: ')} | {row['ours']:,.0f} | {row['stated']:,.0f} | "
            f"{row['off']:+.0f} % |"
            for row in totals
        ),
        machine=_table(machine),
    )


def _table(rows: list[dict[str, Any]]) -> str:
    lines = ["| | predicted | measured | unit | off | goal |", "|---|---:|---:|---|---:|---:|"]
    for row in rows:
        name, goal = row["row"].removeprefix("this machine: "), row["goal"]
        figures = f"{row['predicted']:,.1f} | {row['measured']:,.1f} | {row['of']} | {row['off']:+.1f} %"
        lines.append(f"| {name} | {figures} | {'' if goal is None else f'{goal:.0f} %'} |")
    return "\n".join(lines)


_TEXT = """\
# The planner, measured

`python -m benchmarks.plan` wrote this page ({date}, commit {commit}, {hardware}).

## Against published runs

Seven numbers are fitted to these runs: the shares of the peak that products reach on A100 (0.80) and H100
(0.636; 0.576 on cards held at 500 W), bytes of elementwise work compiled (3.4 times the least) and eager (2.5
times that), float8's gain (1.5) and what a doubling of GPUs costs (0.6 %). Shares for attention are
FlashAttention 2's, moved by a hundredth. Memory has no fitted number but 14 and 5.75 bytes a logit of others'
losses, which torchtune's ladder gives.

Speed: {num_speeds} runs, half within {half_speed:.1f} %, the worst {worst_speed:.1f} % off (goal 20 %).
Memory: {num_memories} runs, half within {half_memory:.1f} %, the worst {worst_memory:.1f} % off (goal 15 %).

{published}

Rows without a goal are not meant to agree: that ring of context parallelism does not share the causal work
evenly, and ours does. What each source leaves open is said in src/midspan/plan/anchors.py.

## Against the paper

Table 26: twelve models, 1,400,000 hours of A100-80GB together, 228.55 t. A100 hours by stage, compiled as
Midspan would, eager, and at the speed at which Llama 2 itself was trained (arXiv 2307.09288, Table 2: hours for
2 T tokens; longer rows scaled as the planner says):

| | tokens | compiled | eager | at Llama 2's speed |
|---|---:|---:|---:|---:|
{stages}

| | predicted | stated | off |
|---|---:|---:|---:|
{totals}

What the paper leaves open decides more than the planner's error: the speed of its software (Llama 2's own hours
are 1.5 to 1.9 times what the planner gives to today's), whether 7B and 13B were trained on code twice, with and
without infilling, the 70B's long-context stage (10,000 steps of 1 M tokens are taken), rows of instruct tuning
(4,096 are taken), and whether failed runs count. The stated hours lie inside the range.

## Against this machine

Each plan knows the recipe alone and times a few layers; then `midspan train` runs in a process of its own.
Speed is the median of its second to fourth step, memory the most that the process had. Both have one thread and
are timed by the work of their process, so that others on the machine matter little.

{machine}
"""
