"""A run on the console: a bar on a terminal, a line now and then elsewhere.

    step 40/130  loss 1.013  lr 1.9e-04  812 tokens/s  MFU 47 %  2.1 GiB  4:10 left

Tokens a second come before MFU: they are measured, and MFU is no better than the peak it is a share of. The loss
is a running mean, so that the eye sees where it goes.
"""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from midspan.train.metrics import EvalMetrics, StepMetrics

_SPEAK_SECONDS = 10


class Display:
    """Shows the steps of a run and its evaluations."""

    def __init__(self, console: Console, *, steps: int, done: int) -> None:
        self._console, self._steps, self._done = console, steps, done
        self._begun = self._spoken = time.monotonic()
        self._average: float | None = None
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=20), TextColumn("{task.fields[now]}"))
        self._bar = Progress(
            *columns, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=console
        )
        self._task = self._bar.add_task("training", total=steps, completed=done, now="")

    def start(self) -> None:
        """Begin to draw."""
        if self._console.is_terminal:
            self._bar.start()

    def stop(self) -> None:
        """Leave the console alone again."""
        self._bar.stop()

    def step(self, metrics: StepMetrics) -> None:
        """Show a step."""
        self._average = metrics.loss if self._average is None else 0.9 * self._average + 0.1 * metrics.loss
        now = f"{metrics.step}/{self._steps}  {_words(metrics, self._average)}"
        self._bar.update(self._task, completed=metrics.step, now=now)
        moment = time.monotonic()
        if not self._console.is_terminal and (
            moment - self._spoken > _SPEAK_SECONDS or metrics.step == self._steps
        ):
            self._spoken = moment
            pace = (moment - self._begun) / (metrics.step - self._done)
            left = round(pace * (self._steps - metrics.step))
            self._say(f"step {now}  {_clock(left)} left")

    def evaluation(self, found: EvalMetrics) -> None:
        """Show an evaluation."""
        words = [f"{name} {value:.3f} bits/byte" for name, value in found.bits_per_byte.items()]
        words += [
            f"{layout.upper()} {share:.0%} exact, middle {found.middle_bits_per_byte[layout]:.3f} bits/byte"
            for layout, share in found.exact_match.items()
        ]
        self._say(f"held out at step {found.step}: {'; '.join(words)}")

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _words(metrics: StepMetrics, loss: float) -> str:
    words = [f"loss {loss:.3f}", f"lr {metrics.lr:.1e}", f"{metrics.tokens_per_second:,.0f} tokens/s"]
    if metrics.mfu is not None:
        words.append(f"MFU {100 * metrics.mfu:.0f} %")
    if metrics.memory_bytes is not None:
        words.append(f"{metrics.memory_bytes / 2**30:.1f} GiB")
    return "  ".join(words)


def _clock(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
