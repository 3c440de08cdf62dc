"""What a run says of itself: one JSON line a step, always, and a line on the console while it goes.

    {"step": 12, "loss": 2.31, "lr": 0.0005, "grad_norm": 0.9, "tokens": 12288, "targets": 4101,
     "tokens_per_second": 410.2, "seconds": 29.9}

`loss` is nats per trained token of the step; `tokens` counts all that were read since the start, `seconds` the
time spent in steps over all interruptions. A resumed run drops the lines behind its checkpoint first.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from midspan.files import write_text


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


def read_metrics(path: Path) -> list[StepMetrics]:
    """The steps that a run recorded; a last line that was cut off is left out."""
    if not path.is_file():
        return []
    steps = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            steps.append(StepMetrics(**json.loads(line)))
        except (ValueError, TypeError):
            break
    return steps


class Watcher:
    """Writes `metrics.jsonl` and shows progress: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, path: Path, *, steps: int, done: int, console: Console) -> None:
        kept = [s for s in read_metrics(path) if s.step <= done]
        write_text(path, "".join(json.dumps(asdict(s)) + "\n" for s in kept))
        self._file = path.open("a", encoding="utf-8")
        self._console, self._steps, self._done = console, steps, done
        self._begun = self._spoken = time.monotonic()
        self._average: float | None = None
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[now]}"))
        self._bar = Progress(
            *columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console
        )
        self._task = self._bar.add_task("training", total=steps, completed=done, now="")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._file.close()

    def step(self, metrics: StepMetrics) -> None:
        """Record a step."""
        self._file.write(json.dumps(asdict(metrics)) + "\n")
        self._file.flush()
        self._average = metrics.loss if self._average is None else 0.9 * self._average + 0.1 * metrics.loss
        now = f"{metrics.step}/{self._steps}  loss {self._average:.3f}  {metrics.tokens_per_second:,.0f} tokens/s"
        self._bar.update(self._task, completed=metrics.step, now=now)
        moment = time.monotonic()
        if not self._console.is_terminal and (moment - self._spoken > 10 or metrics.step == self._steps):
            self._spoken = moment
            pace = (moment - self._begun) / (metrics.step - self._done)
            left = round(pace * (self._steps - metrics.step))
            self._console.print(f"step {now}  {left // 60}:{left % 60:02d} left", highlight=False)
