"""The loop: every stage of every recipe, full or LoRA.

A stage differs from another by its data, its schedule and what is trainable, never by its loop:

    for each step:  rows -> hidden states -> summed loss / targets of the step -> gradients -> AdamW

A run is a folder:

    recipe.json      every setting, and the hash of those that decide the weights
    rows/            compiled rows
    checkpoints/     what is needed to go on
    metrics.jsonl    one line a step, and one an evaluation
    model/           the result, for any software that reads Hugging Face's format
    adapter/         the same as a PEFT adapter (LoRA runs)

Nothing random happens in a step, so the state of a run is its step number and its tensors: a run that was
killed anywhere and resumed ends with the same bits as one left alone on the same machine.
"""

from __future__ import annotations

import itertools
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from midspan.corpus import Corpus
from midspan.errors import WorkError
from midspan.files import atomic_folder
from midspan.model import Llama, Segments
from midspan.model.lora import add_lora, merged_state, save_adapter, train_rows
from midspan.model.loss import cross_entropy_sum
from midspan.model.weights import write_hf
from midspan.rows import Row, Rows, Source, compile_rows, rows_fingerprint
from midspan.tokenizer import Tokenizer
from midspan.train.base import prepare_base, sentinel_ids
from midspan.train.checkpoint import Progress, latest_checkpoint, save_checkpoint
from midspan.train.optimizer import Optimizer
from midspan.train.probe import check_held_out
from midspan.train.recipe import Recipe, TrainConfig
from midspan.train.run import begin_run, check_rows, check_run
from midspan.train.trackers import check_trackers
from midspan.train.watch import Watcher

PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}


def train(recipe: Recipe, run: Path, *, resume: bool = False, console: Console | None = None) -> None:
    """Train a stage in the folder `run`, from the start or from its newest checkpoint.

    Args:
        recipe: what to do.
        run: the folder to make, or with `resume` the folder to go on in.
        resume: continue a run (also one that is finished: then nothing is left to do).
        console: where progress is shown; standard error if not given.

    Raises:
        InputError: the folder exists and `resume` was not asked for, it belongs to another recipe, or the
            base or the corpus cannot be used.
        WorkError: stopped by a signal (after saving), or by a loss or a gradient that is not finite.
    """
    console = console or Console(stderr=True)
    check_run(run, recipe, resume=resume)
    check_trackers(recipe.watch)
    if (run / "model").is_dir():
        console.print(f"{run} is finished: its model is in {run / 'model'}")
        return
    console.print(f"loading {recipe.base}")
    model, tokenizer = prepare_base(recipe.base, PRECISIONS[recipe.train.precision])
    sources = [
        Source(
            corpus=Corpus.open(source.corpus),
            name=source.name,
            share=source.share,
            fim_rate=source.fim_rate,
            documents=source.documents,
        )
        for source in recipe.data.mixture
    ]
    if recipe.watch.evaluate_every_steps:
        check_held_out(sources)
    begin_run(run, recipe)
    rows = _rows(recipe, run, sources, tokenizer, console)
    if recipe.train.method == "lora":
        add_lora(model, recipe.lora, sentinel_ids(tokenizer), seed=recipe.train.seed)
    elif recipe.train.method == "layers":
        train_rows(model, sentinel_ids(tokenizer))
    optimizer = Optimizer(model, recipe.optimizer, recipe.train.steps)

    done = Progress.start(rows.fingerprint, recipe.hash())
    found = latest_checkpoint(run / "checkpoints")
    if found is not None:
        done, tensors = found
        optimizer.load(tensors)
        console.print(f"going on from step {done.step} of {recipe.train.steps}")
    dtype = PRECISIONS[recipe.train.precision]
    with Watcher(recipe, run, model, tokenizer, sources, done=done, dtype=dtype, console=console) as watcher:
        done = _steps(recipe, run, model, optimizer, rows, done, watcher)
    _export(recipe, run, model, tokenizer, console)


def _rows(recipe: Recipe, run: Path, sources: list[Source], tokenizer: Tokenizer, console: Console) -> Rows:
    """The run's rows, compiled if they are not there yet."""
    expected = rows_fingerprint(sources, tokenizer, recipe.rows)
    if not (run / "rows").is_dir():
        with console.status(f"compiling {recipe.num_rows} rows") as status:
            compile_rows(
                sources,
                tokenizer,
                recipe.rows,
                recipe.num_rows,
                run / "rows",
                workers=recipe.data.workers,
                progress=lambda done: status.update(f"compiling rows: {done}/{recipe.num_rows}"),
                report=console.print,
            )
    rows = Rows(run / "rows")
    check_rows(run, rows, expected, recipe.num_rows)
    manifest = rows.manifest
    console.print(
        f"{len(rows)} rows of {manifest['row_tokens']} tokens, {manifest['fill']:.1%} full, "
        f"{manifest['fim_rate']:.1%} of whole documents infilled"
    )
    for source in manifest["sources"]:
        left_out = source["documents_left_out"]
        console.print(
            f"  {source['name']}: {source['realised_share']:.1%} of the tokens, {source['epochs']:.2f} epochs of "
            f"{source['documents']} documents, {source['fim_rate']:.1%} infilled"
            + (f"; {left_out} left out, which the vocabulary cannot write" if left_out else "")
        )
    return rows


def _steps(
    recipe: Recipe,
    run: Path,
    model: Llama,
    optimizer: Optimizer,
    rows: Rows,
    done: Progress,
    watcher: Watcher,
) -> Progress:
    """Train from where `done` says to the last step."""
    steps, per_step = recipe.train.steps, recipe.train.rows_per_step
    with _signals() as asked_to_stop:
        while done.step < steps:
            begun = time.monotonic()
            batch = rows.batch(done.step, per_step)
            waited = time.monotonic() - begun
            with watcher.explaining(done, batch, done.rows_read):
                loss, targets = _backward(model, batch, recipe.train)
                rate, norm = optimizer.step(done.step)
            seconds = time.monotonic() - begun
            tokens = sum(len(row.ids) for row in batch)
            done = done.after(rows=per_step, tokens=tokens, targets=targets, seconds=seconds)
            watcher.step(done, batch, loss=loss, lr=rate, grad_norm=norm, data_seconds=waited)
            stop = bool(asked_to_stop)
            if done.step % recipe.checkpoint.every_steps == 0 or done.step == steps or stop:
                folder = run / "checkpoints"
                path = save_checkpoint(folder, done, optimizer.state(), keep=recipe.checkpoint.keep)
                if stop and done.step < steps:
                    raise WorkError(f"stopped by a signal; {path} holds step {done.step}: go on with --resume")
    return done


def _backward(model: Llama, batch: list[Row], config: TrainConfig) -> tuple[float, int]:
    """Add the gradients of a step's mean loss; give back that loss in nats, and how many tokens it is of.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    size = config.rows_per_pass
    passes = [_joined(batch[i : i + size]) for i in range(0, len(batch), size)]
    targets = sum(len(at) for _, _, at in passes)
    device = model.model.norm.weight.device
    total: Tensor | float = 0.0
    for ids, bounds, at in passes:
        ids, at = ids.to(device), at.to(device)
        hidden_ld = model.hidden(ids[None], segments=Segments(bounds))[0]
        loss = cross_entropy_sum(hidden_ld[at], model.lm_head, ids[at + 1])
        torch.autograd.backward(loss / max(targets, 1))
        total = total + loss.detach()
    mean = float(total) / max(targets, 1)
    if not math.isfinite(mean):
        raise FloatingPointError(f"the loss is {mean}")
    return mean, targets


def _joined(rows: list[Row]) -> tuple[Tensor, tuple[int, ...], Tensor]:
    """Rows as one longer row: ids, bounds of its segments, and the positions whose next token is trained."""
    starts = list(itertools.accumulate((len(row.ids) for row in rows), initial=0))
    bounds = [0, *(start + end for row, start in zip(rows, starts, strict=False) for end in row.bounds[1:])]
    at = [row.targets + start for row, start in zip(rows, starts, strict=False)]
    ids = np.concatenate([row.ids for row in rows])
    return torch.from_numpy(ids), tuple(bounds), torch.from_numpy(np.concatenate(at))


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that is empty until the process is asked to stop; a second request stops it at once."""
    asked: list[int] = []
    wanted = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in wanted}

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for each in wanted:
            signal.signal(each, before[each])

    try:
        for number in wanted:
            signal.signal(number, note)
    except ValueError:  # not in the main thread: there is nobody to send signals to us
        yield asked
        return
    try:
        yield asked
    finally:
        for number in wanted:
            signal.signal(number, before[number])


def _export(recipe: Recipe, run: Path, model: Llama, tokenizer: Tokenizer, console: Console) -> None:
    """Write what the run made. `model/` comes last: it marks a finished run."""
    if recipe.train.method == "lora":
        with atomic_folder(run / "adapter", replace=True) as folder:
            save_adapter(model, recipe.lora, folder, base=recipe.base)
            tokenizer.save(folder)
    write_hf(run / "model", merged_state(model), model.config, tokenizer=tokenizer, dtype=torch.bfloat16)
    console.print(f"the model is in {run / 'model'}")
