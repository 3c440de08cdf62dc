"""What a run says of itself: `metrics.jsonl`, one JSON object a line, always, whatever else watches.

    {"step": 12, "loss": 2.31, "lr": 0.0005, "grad_norm": 0.9, "tokens": 12288, "targets": 4101,
     "tokens_per_second": 410.2, "seconds": 29.9, "mfu": 0.41, "memory_bytes": 2013265920, "data_seconds": 0.001}
    {"kind": "evaluation", "step": 12, "tokens": 12288, "bits_per_byte": {"code": 0.91},
     "exact_match": {"psm": 0.25, "spm": 0.31}, "middle_bits_per_byte": {"psm": 1.2, "spm": 1.1}, "seconds": 3.4}

A line without a kind is a step. `loss` is nats per trained token of the step; `tokens` counts all that were read
since the start, `seconds` the time spent in steps over all interruptions. `mfu` is null where the device's peak is
not known. A resumed run drops the lines behind its checkpoint first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"
_EVALUATION = "evaluation"


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """One optimizer step."""

    step: int
    loss: float
    lr: float
    grad_norm: float
    tokens: int
    targets: int
    tokens_per_second: float
    seconds: float
    mfu: float | None = None
    """Share of the device's peak that the step made use of, from 0 to 1."""
    memory_bytes: int | None = None
    """The most memory taken so far (see `device.peak_memory`)."""
    data_seconds: float | None = None
    """Time that the step waited for its rows."""

    def line(self) -> str:
        """As `metrics.jsonl` has it."""
        return json.dumps(asdict(self)) + "\n"

    def values(self) -> dict[str, float]:
        """Everything but the counts, by the names that trackers show."""
        training = {"loss": self.loss, "lr": self.lr, "grad_norm": self.grad_norm}
        speed = {"tokens_per_second": self.tokens_per_second, "mfu": self.mfu, "memory_bytes": self.memory_bytes}
        speed["data_seconds"] = self.data_seconds
        return {f"train/{name}": value for name, value in training.items()} | {
            f"speed/{name}": value for name, value in speed.items() if value is not None
        }


@dataclass(frozen=True, kw_only=True)
class EvalMetrics:
    """One evaluation while training (see `probe.py`)."""

    step: int
    tokens: int
    bits_per_byte: Mapping[str, float]
    """Of held-out files read from left to right, by source."""
    exact_match: Mapping[str, float]
    """Share of the holes that the model fills with the very tokens of the truth and ends, by layout."""
    middle_bits_per_byte: Mapping[str, float]
    """Of the true middles of these holes, by layout."""
    seconds: float

    def line(self) -> str:
        """As `metrics.jsonl` has it."""
        return json.dumps({"kind": _EVALUATION, **asdict(self)}) + "\n"

    def values(self) -> dict[str, float]:
        """Every score, by the names that trackers show."""
        scores = ("bits_per_byte", "exact_match", "middle_bits_per_byte")
        return {f"evaluation/{s}/{key}": value for s in scores for key, value in getattr(self, s).items()}


Metrics = StepMetrics | EvalMetrics


def read_all_metrics(path: Path) -> list[Metrics]:
    """The lines of a run in their order; what follows a line that was cut off is left out."""
    if not path.is_file():
        return []
    found: list[Metrics] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(_record(json.loads(line)))
        except (ValueError, TypeError, AttributeError):
            break
    return found


def read_metrics(path: Path) -> list[StepMetrics]:
    """The steps that a run recorded."""
    return [one for one in read_all_metrics(path) if isinstance(one, StepMetrics)]


def read_evaluations(path: Path) -> list[EvalMetrics]:
    """The evaluations that a run recorded."""
    return [one for one in read_all_metrics(path) if isinstance(one, EvalMetrics)]


def _record(values: dict[str, Any]) -> Metrics:
    kind = values.pop("kind", None)
    if kind not in (None, _EVALUATION):
        raise ValueError(f"a line of kind {kind!r}")
    return StepMetrics(**values) if kind is None else EvalMetrics(**values)
