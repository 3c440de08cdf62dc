"""The watcher: whatever looks at a run while it trains, behind one object, so that the loop stays a loop.

    every step       metrics.jsonl, the trackers that the recipe asks for, the console
    every N steps    the probe: bits per byte of held-out files, and holes
    a step whose loss or gradient is not finite       the sentence that names its rows

It only looks: what it does leaves the weights of a run as they would be without it, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console

from midspan.errors import InputError, WorkError
from midspan.files import write_text
from midspan.model.flops import flops_per_token, matmul_parameters
from midspan.rows import Row, Source
from midspan.train.checkpoint import Checkpoints, Progress
from midspan.train.culprits import explain
from midspan.train.device import peak_flops, peak_memory
from midspan.train.display import Display
from midspan.train.learner import Learner
from midspan.train.metrics import METRICS, EvalMetrics, Metrics, StepMetrics, read_all_metrics
from midspan.train.parallel import Layout
from midspan.train.probe import Probe, check_held_out
from midspan.train.ranks import Ranks
from midspan.train.recipe import Recipe
from midspan.train.scores import holds_whole_layers
from midspan.train.trackers import Tracker, check_trackers, open_trackers


def check_watch(recipe: Recipe, layout: Layout, sources: Sequence[Source]) -> None:
    """Make sure, before a run begins, that it can be watched as its recipe says.

    Raises:
        InputError: a tracker is not installed, nothing is held out, or no rank could evaluate.
    """
    every = recipe.watch.evaluate_every_steps
    check_trackers(recipe.watch)
    if not every:
        return
    check_held_out(sources)
    if not holds_whole_layers(layout):
        raise InputError(
            f"watch.evaluate_every_steps is {every}, and no rank of this run holds whole "
            "layers; give it the value 0 and use `midspan eval`, or share by parallel.replicate and shard alone"
        )


class Watcher:
    """Records, shows and evaluates a run; a context that the steps run in.

    Every rank of a distributed run has one, since all of them take part in an evaluation; only the one of rank 0
    writes and speaks.
    """

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        learner: Learner,
        sources: Sequence[Source],
        ranks: Ranks,
        *,
        done: Progress,
        console: Console,
    ) -> None:
        """Get ready to watch a run go on from where it stands.

        Args:
            recipe: what to watch, and for how many steps.
            run: the folder; its `metrics.jsonl` loses what lies behind `done`.
            learner: what is trained.
            sources: what it is trained on.
            ranks: the processes that train together.
            done: where the run stands.
            console: where progress is shown.

        Raises:
            InputError: an evaluation is asked for, and nothing is held out.
        """
        self._recipe, self._run, self._learner = recipe, run, learner
        self._sources, self._ranks, self._config = sources, ranks, learner.model.config
        head = self._config.hidden_size * self._config.vocab_size
        frozen = {"full": 0, "layers": head, "lora": matmul_parameters(self._config)}
        self._frozen = frozen[recipe.train.method]
        peak = peak_flops(ranks.device, learner.precision)
        self._peak = None if peak is None else peak * ranks.world
        self._probe: Probe | None = None
        watch = recipe.watch
        if watch.evaluate_every_steps:
            amounts = {"documents": watch.evaluate_documents, "holes": watch.evaluate_holes}
            sizes = {"row_tokens": recipe.data.row_tokens, "rows_per_pass": recipe.train.rows_per_pass}
            self._probe = Probe(sources, learner.tokenizer, **amounts, **sizes)
        self._done = done
        self._evaluated: set[int] = set()
        self._display = Display(console, steps=recipe.train.steps, done=done.step)
        self._trackers: list[Tracker] = []
        self._open = ExitStack()

    def __enter__(self) -> Self:
        path = self._run / METRICS
        kept = [one for one in read_all_metrics(path) if one.step <= self._done.step]
        self._evaluated = self._ranks.agreed({one.step for one in kept if isinstance(one, EvalMetrics)})
        if self._ranks.is_first:
            write_text(path, "".join(one.line() for one in kept))
            self._file = self._open.enter_context(path.open("a", encoding="utf-8"))
            self._trackers = open_trackers(self._recipe, self._run, done=self._done.step)
            for tracker in self._trackers:
                self._open.callback(tracker.close)
            self._open.callback(self._display.stop)
            self._display.start()
        if self._done.step == 0:
            self._evaluate(self._done)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def step(
        self,
        done: Progress,
        rows: Sequence[Row],
        *,
        loss: float,
        lr: float,
        grad_norm: float,
        data_seconds: float,
    ) -> None:
        """Record a step, and evaluate if it is time.

        Args:
            done: where the run stands behind it.
            rows: what was read, or a rank's part of it.
            loss: nats per trained token.
            lr: the learning rate.
            grad_norm: of the gradient before it was clipped.
            data_seconds: how much of the step's time was spent waiting for rows.
        """
        tokens, seconds = done.tokens - self._done.tokens, done.seconds - self._done.seconds
        self._done = done
        work = tokens * flops_per_token(self._config, seen_length(rows), frozen=self._frozen)
        metrics = StepMetrics(
            step=done.step,
            loss=loss,
            lr=lr,
            grad_norm=grad_norm,
            tokens=done.tokens,
            targets=done.targets,
            tokens_per_second=tokens / seconds,
            seconds=done.seconds,
            mfu=None if self._peak is None else work / seconds / self._peak,
            memory_bytes=peak_memory(self._ranks.device),
            data_seconds=data_seconds,
        )
        if self._ranks.is_first:
            self._record(metrics)
            self._display.step(metrics)
        every = self._recipe.watch.evaluate_every_steps
        if every and (done.step % every == 0 or done.step == self._recipe.train.steps):
            self._evaluate(done)

    @contextmanager
    def explaining(self, done: Progress, rows: Sequence[Row], checkpoints: Checkpoints) -> Iterator[None]:
        """A context that turns the FloatingPointError of a step, which all ranks have, into one sentence.

        Args:
            done: where the run stands before the step.
            rows: this rank's rows of the step; all ranks have equally many.
            checkpoints: one may still be on its way to the disk, and counts.

        Raises:
            WorkError: which rows and documents caused it, and what is saved.
        """
        try:
            yield
        except FloatingPointError as error:
            checkpoints.wait()
            saved = max((p.parent.name for p in self._run.glob("checkpoints/step-*/COMMIT")), default=None)
            kept = f"{self._run / 'checkpoints' / saved} is whole" if saved else "no checkpoint was due before"
            why = self._why(done, rows, of_loss="loss" in str(error))
            raise WorkError(f"{error} at step {done.step + 1}: {why}; {kept}") from None

    def _why(self, done: Progress, rows: Sequence[Row], *, of_loss: bool) -> str:
        layout = self._learner.layout
        if not holds_whole_layers(layout):
            last = done.rows_read + self._recipe.train.rows_per_step - 1
            return (
                f"one of the rows {done.rows_read} to {last} caused it, or all of them: lower optimizer.lr, or "
                "find the row with ranks that hold whole layers (parallel.replicate and shard alone)"
            )
        first = done.rows_read + layout.reader * len(rows)
        objective, ranks = self._learner.objective, self._ranks
        return explain(objective, ranks, rows, first, self._sources, of_loss=of_loss)

    def _evaluate(self, done: Progress) -> None:
        if self._probe is None or done.step in self._evaluated:
            return
        found = self._probe.measure(self._learner.objective, step=done.step, tokens=done.tokens)
        self._evaluated.add(done.step)
        if self._ranks.is_first:
            self._record(found)
            self._display.evaluation(found)

    def _record(self, metrics: Metrics) -> None:
        self._file.write(metrics.line())
        self._file.flush()
        for tracker in self._trackers:
            tracker.log(metrics.step, metrics.values())


def seen_length(rows: Sequence[Row]) -> float:
    """The mean, over tokens, of the lengths of the documents that they are in: what attention works on."""
    lengths = [end - start for row in rows for start, end in zip(row.bounds, row.bounds[1:], strict=False)]
    return sum(n * n for n in lengths) / max(1, sum(lengths))
