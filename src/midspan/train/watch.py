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

import torch
from rich.console import Console
from torch import Tensor, nn

from midspan.errors import WorkError
from midspan.files import write_text
from midspan.model import Llama
from midspan.model.flops import flops_per_token, matmul_parameters
from midspan.rows import Row, Source
from midspan.tokenizer import Tokenizer
from midspan.train.checkpoint import Progress
from midspan.train.culprits import explain
from midspan.train.device import peak_flops, peak_memory
from midspan.train.display import Display
from midspan.train.metrics import METRICS, EvalMetrics, Metrics, StepMetrics, read_all_metrics
from midspan.train.probe import Probe
from midspan.train.recipe import Recipe
from midspan.train.trackers import Tracker, open_trackers


class Watcher:
    """Records, shows and evaluates a run; a context that the steps run in.

    Every rank of a distributed run has one, since all of them take part in an evaluation; only the one of rank 0
    writes and speaks.
    """

    def __init__(
        self,
        recipe: Recipe,
        run: Path,
        model: Llama,
        tokenizer: Tokenizer,
        sources: Sequence[Source],
        *,
        done: Progress,
        dtype: torch.dtype,
        console: Console,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Get ready to watch a run go on from where it stands.

        Args:
            recipe: what to watch, and for how many steps.
            run: the folder; its `metrics.jsonl` loses what lies behind `done`.
            model: what is trained.
            tokenizer: its vocabulary.
            sources: what it is trained on.
            done: where the run stands.
            dtype: of the model's products.
            console: where progress is shown.
            rank: the number of this process, of `world` that train together.

        Raises:
            InputError: an evaluation is asked for, and nothing is held out.
        """
        self._recipe, self._run, self._model, self._sources, self._rank = recipe, run, model, sources, rank
        self._device, self._frozen = model.model.norm.weight.device, _frozen(model)
        peak = peak_flops(self._device, dtype)
        self._peak = None if peak is None else peak * world
        self._probe: Probe | None = None
        watch = recipe.watch
        if watch.evaluate_every_steps:
            amounts = {"documents": watch.evaluate_documents, "holes": watch.evaluate_holes}
            self._probe = Probe(sources, tokenizer, **amounts, row_tokens=recipe.data.row_tokens)
        self._done, self._seconds = done, done.seconds
        self._evaluated: set[int] = set()
        self._display = Display(console, steps=recipe.train.steps, done=done.step)
        self._trackers: list[Tracker] = []
        self._open = ExitStack()

    def __enter__(self) -> Self:
        path = self._run / METRICS
        kept = [one for one in read_all_metrics(path) if one.step <= self._done.step]
        self._evaluated = {one.step for one in kept if isinstance(one, EvalMetrics)}
        if self._rank == 0:
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
        work = tokens * flops_per_token(self._model.config, seen_length(rows), frozen=self._frozen)
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
            memory_bytes=peak_memory(self._device),
            data_seconds=data_seconds,
        )
        if self._rank == 0:
            self._record(metrics)
            self._display.step(metrics)
        every = self._recipe.watch.evaluate_every_steps
        if every and (done.step % every == 0 or done.step == self._recipe.train.steps):
            self._evaluate(done)

    @contextmanager
    def explaining(self, done: Progress, rows: Sequence[Row], first: int) -> Iterator[None]:
        """A context that turns the FloatingPointError of a step into one sentence.

        Args:
            done: where the run stands before the step.
            rows: what the step reads, or a rank's part of it; all ranks have equally many.
            first: number of the first of them.

        Raises:
            WorkError: which rows and documents caused it, and what is saved.
        """
        try:
            yield
        except FloatingPointError as error:
            of_loss = "loss" in str(error)
            why = explain(self._model, rows, first, self._sources, of_loss=of_loss)
            saved = max((p.parent.name for p in self._run.glob("checkpoints/step-*/COMMIT")), default=None)
            kept = f"{self._run / 'checkpoints' / saved} is whole" if saved else "no checkpoint was due before"
            raise WorkError(f"{error} at step {done.step + 1}: {why}; {kept}") from None

    def _evaluate(self, done: Progress) -> None:
        if self._probe is None or done.step in self._evaluated:
            return
        found = self._probe.measure(self._model, step=done.step, tokens=done.tokens)
        self._evaluated.add(done.step)
        if self._rank == 0:
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


def _frozen(model: Llama) -> int:
    """Parameters of the matrices that get no gradients."""
    trained: list[Tensor] = [
        p for name, p in model.model.layers.named_parameters() if name.endswith("_proj.weight")
    ]
    if isinstance(model.lm_head, nn.Linear):
        trained.append(model.lm_head.weight)
    return matmul_parameters(model.config) - sum(p.numel() for p in trained if p.requires_grad)
