"""What one model did (`TaskResult`), and two of them beside each other as the rows of results.json.

    {"row": "spm line exact match", "unit": "%", "better": "higher", "n": 50,
     "ours": 34.0, "interval": [22.4, 47.8], "before": 4.0, "before_interval": [1.1, 13.5],
     "difference": 30.0, "difference_interval": [18.0, 42.0]}

Rows of the kind `all` are over the holes of every kind. `before` is the base; a model that is measured alone has
rows without it. A difference is ours minus before, of the same holes, in the row's unit. `bits per byte` are those
of the true middle; `bits with the end` are per byte too, and pay for stopping behind it.
"""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

import midspan
from midspan.errors import InputError
from midspan.evaluate.metrics import Interval, bits, bootstrap, edit_similarity, wilson
from midspan.evaluate.tasks.heldout import KINDS, Infill, Reading

TAIL_LINES, TAIL_CHARS = 8, 480
"""How much of an example's surroundings is kept on each side."""


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """What one model did with all passages."""

    infills: list[Infill]
    readings: list[Reading]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> TaskResult:
        """What `to_json` gave."""
        return TaskResult(
            infills=[Infill(**value) for value in values["infills"]],
            readings=[Reading(**value) for value in values["readings"]],
            seconds=values["seconds"],
        )


@dataclass(frozen=True)
class _Metric:
    """One score: a sum over a sum, and whether it counts successes."""

    name: str
    unit: str
    better: Literal["higher", "lower"]
    above: Callable[[Any], float]
    below: Callable[[Any], float] = lambda _: 1.0
    counts: bool = False


_INFILL_METRICS = (
    _Metric("exact match", "%", "higher", lambda i: 100.0 * (i.written == i.truth), counts=True),
    _Metric("edit similarity", "of 100", "higher", lambda i: float(edit_similarity(i.written, i.truth))),
    _Metric("bits per byte", "bits/byte", "lower", lambda i: bits(i.nats), lambda i: float(len(i.truth.encode()))),
    _Metric(
        "bits with the end",
        "bits/byte",
        "lower",
        lambda i: bits(i.nats + i.end_nats),
        lambda i: float(len(i.truth.encode())),
    ),
    _Metric("bits of the end", "bits", "lower", lambda i: bits(i.end_nats)),
    _Metric("ended by itself", "%", "higher", lambda i: 100.0 * i.ended, counts=True),
)
_READING = _Metric("bits per byte", "bits/byte", "lower", lambda r: bits(r.nats), lambda r: float(r.num_bytes))


def compare(after: TaskResult, before: TaskResult | None, *, name: str) -> dict[str, Any]:
    """The content of results.json.

    Args:
        after: what the model did.
        before: what its base did with the same passages.
        name: what was measured.
    """
    if before is not None and [*map(_hole, before.infills)] != [*map(_hole, after.infills)]:
        raise InputError("the two models were not asked about the same holes; evaluate both again")
    return {
        "name": name,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "seconds": round(after.seconds, 1),
        "rows": _rows(after, before),
        "examples": _examples(after, before),
    }


def _hole(infill: Infill) -> tuple[object, ...]:
    return infill.document, infill.kind, infill.layout, infill.prefix, infill.truth


def _rows(after: TaskResult, before: TaskResult | None) -> list[dict[str, Any]]:
    rows = []
    for layout in dict.fromkeys(infill.layout for infill in after.infills):
        for kind in ("all", *KINDS):
            chosen = [n for n, i in enumerate(after.infills) if i.layout == layout and kind in ("all", i.kind)]
            mine = [after.infills[n] for n in chosen]
            theirs = [before.infills[n] for n in chosen] if before else None
            rows += [_row(f"{layout} {kind} {m.name}", m, mine, theirs) for m in _INFILL_METRICS]
    rows.append(
        _row(f"left to right {_READING.name}", _READING, after.readings, before.readings if before else None)
    )
    return rows


def _row(name: str, metric: _Metric, ours: Sequence[Any], before: Sequence[Any] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"row": name, "unit": metric.unit, "better": metric.better, "n": len(ours)}
    row["ours"], row["interval"] = _score(metric, ours)
    if before is None:
        return row
    row["before"], row["before_interval"] = _score(metric, before)
    above = [metric.above(a) - metric.above(b) for a, b in zip(ours, before, strict=True)]
    below = [metric.below(a) for a in ours]
    row["difference"] = _round(sum(above) / sum(below))
    row["difference_interval"] = [*map(_round, bootstrap(above, below, [o.document for o in ours]))]
    return row


def _score(metric: _Metric, observations: Sequence[Any]) -> tuple[float, list[float]]:
    above = [metric.above(o) for o in observations]
    below = [metric.below(o) for o in observations]
    interval: Interval
    if metric.counts:
        low, high = wilson(round(sum(above) / 100), len(above))
        interval = 100 * low, 100 * high
    else:
        interval = bootstrap(above, below, [o.document for o in observations])
    return _round(sum(above) / sum(below)), [*map(_round, interval)]


def _round(value: float) -> float:
    return round(value, 4)


def _examples(after: TaskResult, before: TaskResult | None) -> list[dict[str, Any]]:
    examples = []
    for number, infill in enumerate(after.infills):
        example: dict[str, Any] = {
            "group": infill.group,
            "path": infill.path,
            "kind": infill.kind,
            "layout": infill.layout,
            "prefix": "\n".join(infill.prefix.split("\n")[-TAIL_LINES:])[-TAIL_CHARS:],
            "suffix": "\n".join(infill.suffix.split("\n")[:TAIL_LINES])[:TAIL_CHARS],
            "truth": infill.truth,
            "after": infill.written,
            "after_ended": infill.ended,
        }
        if before is not None:
            example["before"] = before.infills[number].written
            example["before_ended"] = before.infills[number].ended
        examples.append(example)
    return examples


def commit() -> str:
    """The commit of Midspan's own checkout, or its version where it was installed from a package."""
    root = Path(midspan.__file__).parents[2]
    if (root / ".git").exists() and (root / "pyproject.toml").is_file():
        command = ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode == 0:
            return found.stdout.strip()
    return f"v{midspan.__version__}"


def hardware() -> str:
    """Cores, processor and memory in words."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        found = None
    processor = found[1].strip() if found else platform.processor() or platform.machine()
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    memory = f", {size / 2**30:.0f} GiB" if size else ""
    return f"{cores} core{'' if cores == 1 else 's'} {processor}{memory}"
