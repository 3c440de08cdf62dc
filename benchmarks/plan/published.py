"""Published runs: what the planner says beside what was measured, and the residual."""

from __future__ import annotations

from benchmarks.harness import Bench
from midspan.plan.anchors import ANCHORS

SPEED, MEMORY = 20.0, 15.0
"""Percent that the planner may be off where the setting is known."""


def run(bench: Bench) -> None:
    """Record every anchor."""
    for anchor in ANCHORS:
        if anchor.tokens_per_second is not None:
            add(
                bench,
                f"speed: {anchor.name}",
                anchor.speed(),
                anchor.tokens_per_second,
                "tokens/s a GPU",
                SPEED,
                anchor.target,
            )
        if anchor.memory_gib is not None:
            add(bench, f"memory: {anchor.name}", anchor.memory(), anchor.memory_gib, "GiB", MEMORY, True)


def add(
    bench: Bench, row: str, predicted: float, measured: float, unit: str, goal: float, target: bool = True
) -> None:
    """A row whose value is how far off the prediction is, with both figures beside it."""
    off = 100 * (predicted / measured - 1)
    bench.record(row, unit="% off", value=abs(off), goal=goal if target else None, better="lower")
    bench.rows[-1] |= {"predicted": predicted, "measured": measured, "off": off, "of": unit}
