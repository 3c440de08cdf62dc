"""What a plan says: memory by part, seconds of a step by part, and what follows from both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from midspan.plan.hardware import GIB
from midspan.plan.memory import Memory
from midspan.plan.stage import Layout, Stage

PUE = 1.1
"""Power that a data centre draws over what its machines draw; 1.1 is what Meta states for its own."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One stage on some hardware."""

    stage: Stage
    device: str
    count: int
    limit: float
    """Bytes of a device that may be filled."""
    memory: Memory
    seconds: dict[str, float]
    """Of an optimizer step, by part; none where a step was not even tried."""
    watts: float
    """Of a device; 0 where it is not known."""
    layout: Layout | None = None
    mfu: float | None = None
    notes: tuple[str, ...] = ()
    """What the reader must know of the figures."""
    advice: tuple[str, ...] = ()
    """Where it does not fit: why, and what would."""
    facts: dict[str, float] = field(default_factory=dict)
    """Measured on the spot, with units in the names."""

    @property
    def fits(self) -> bool:
        """Whether it can be trained so."""
        return not self.advice

    @property
    def step_seconds(self) -> float:
        """Seconds of an optimizer step."""
        return sum(self.seconds.values())

    @property
    def tokens_per_second(self) -> float:
        """Over all devices."""
        return self.stage.tokens_per_step / self.step_seconds if self.seconds else 0.0

    @property
    def hours(self) -> float:
        """From the first step to the last."""
        return self.step_seconds * self.stage.steps / 3600

    @property
    def device_hours(self) -> float:
        """Hours over all devices."""
        return self.hours * self.count

    def kilowatt_hours(self, pue: float = PUE) -> float:
        """Energy at the devices' design power."""
        return self.device_hours * self.watts / 1000 * pue

    def to_json(self, *, price_per_hour: float | None = None, pue: float = PUE) -> dict[str, Any]:
        """Every figure."""
        layout, timed = self.layout, bool(self.seconds)
        return {
            "name": self.stage.name,
            "device": self.device,
            "count": self.count,
            "fits": self.fits,
            "advice": list(self.advice),
            "notes": list(self.notes),
            "parameters": self.stage.model.num_parameters(),
            "trained_parameters": self.stage.trained(),
            "tokens": self.stage.tokens,
            "steps": self.stage.steps,
            "parallel": None if layout is None else parallel_table(layout),
            "rows_per_pass": self.stage.rows_per_pass,
            "memory_bytes": self.memory.parts,
            "memory_total_bytes": self.memory.total,
            "memory_limit_bytes": self.limit,
            "fullest_moment": self.memory.moment,
            "step_seconds": self.seconds,
            "seconds_per_step": self.step_seconds if timed else None,
            "tokens_per_second": self.tokens_per_second if timed else None,
            "tokens_per_second_per_device": self.tokens_per_second / self.count if timed else None,
            "mfu": self.mfu,
            "hours": self.hours if timed else None,
            "device_hours": self.device_hours if timed else None,
            "kilowatt_hours": self.kilowatt_hours(pue) if self.watts else None,
            "cost": None if price_per_hour is None else self.device_hours * price_per_hour,
            "measured": self.facts,
        }


def parallel_table(layout: Layout) -> dict[str, Any]:
    """The recipe's `[parallel]` table for a layout: what differs from one process without checkpointing."""
    plain = Layout(compile=False)
    table = {name: value for name, value in vars(layout).items() if value != getattr(plain, name)}
    if layout.tensor > 1:
        table["sequence"] = True
    return table


def gib(number: float) -> str:
    """Bytes in GiB, for a sentence."""
    return f"{number / GIB:,.1f} GiB"
