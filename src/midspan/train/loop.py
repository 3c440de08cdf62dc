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

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from rich.console import Console

from midspan.errors import WorkError
from midspan.files import atomic_folder
from midspan.model import Llama
from midspan.model.fused import keep_memory
from midspan.model.lora import merged_state, save_adapter
from midspan.model.weights import write_hf
from midspan.rows import Rows, Source, compile_rows, rows_fingerprint
from midspan.tokenizer import Tokenizer
from midspan.train.checkpoint import Checkpoints, Progress
from midspan.train.ends import end_bias
from midspan.train.learner import Learner
from midspan.train.parallel import Layout
from midspan.train.probe import as_it_is
from midspan.train.ranks import Ranks, joined_ranks
from midspan.train.recipe import Recipe
from midspan.train.run import alone_in, begin_run, check_rows, check_run
from midspan.train.scores import holds_whole_layers
from midspan.train.sources import open_sources
from midspan.train.watch import Watcher, check_watch


def train(recipe: Recipe, run: Path, *, resume: bool = False, console: Console | None = None) -> None:
    """Train a stage in the folder `run`, from the start or from its newest checkpoint.

    Args:
        recipe: what to do.
        run: the folder to make, or with `resume` the folder to go on in.
        resume: continue a run (also one that is finished: then nothing is left to do).
        console: where progress is shown; standard error if not given.

    Raises:
        InputError: the folder exists and `resume` was not asked for, it belongs to another recipe, or the
            base or the corpus cannot be used; or another process trains in it.
        WorkError: stopped by a signal (after saving), or by a loss or a gradient that is not finite.
    """
    with joined_ranks() as ranks, ExitStack() as held:
        console = (console or Console(stderr=True)) if ranks.is_first else Console(quiet=True)
        try:
            _train(recipe, run, ranks, resume, console, held)
        except WorkError as error:
            if ranks.is_first:
                raise
            raise SystemExit(1) from error  # rank 0 says it


def _train(
    recipe: Recipe, run: Path, ranks: Ranks, resume: bool, console: Console, held: ExitStack[bool | None]
) -> None:
    ranks.first(lambda: _check(recipe, run, ranks, resume))
    if ranks.agreed((run / "model").is_dir()):
        console.print(f"{run} is finished: its model is in {run / 'model'}")
        return
    keep_memory()
    console.print(f"loading {recipe.base}")
    learner = Learner(recipe, ranks)
    if recipe.train.precision == "bf16" and learner.precision == torch.float32:
        console.print("this processor has no bfloat16 products: the model is in float32, which is faster here")
    sources = open_sources(recipe.data)
    ranks.first(lambda: check_watch(recipe, learner.layout, sources))
    ranks.first(lambda: begin_run(run, recipe))
    ranks.first(lambda: held.enter_context(alone_in(run)))
    ranks.first(lambda: _compile(recipe, run, sources, learner.tokenizer, console))
    rows = Rows(run / "rows")
    checkpoints = Checkpoints(
        run / "checkpoints",
        ranks,
        keep=recipe.checkpoint.keep,
        background=recipe.checkpoint.background,
        report=console.print,
    )
    read = checkpoints.load(learner.optimizer.state())
    done = read or Progress.start(rows.fingerprint, recipe.hash())
    if read is not None:
        ranks.first(lambda: check_rows(run, rows, read.rows_fingerprint))
        learner.optimizer.loaded()
        console.print(f"going on from step {done.step} of {recipe.train.steps}")
    with checkpoints, Watcher(recipe, run, learner, sources, ranks, done=done, console=console) as watcher:
        _steps(recipe, learner, rows, checkpoints, done, ranks, watcher)
    tokenizer = _ending(recipe, learner, sources, console)
    model = learner.whole_model()
    ranks.first(lambda: _export(recipe, run, model, tokenizer, console))


def _check(recipe: Recipe, run: Path, ranks: Ranks, resume: bool) -> None:
    """What can be refused before anything is loaded."""
    check_run(run, recipe, resume=resume)
    Layout.of(recipe.parallel, ranks.world)


def _compile(recipe: Recipe, run: Path, sources: list[Source], tokenizer: Tokenizer, console: Console) -> None:
    """Compile the run's rows if they are not there yet, and say what they are."""
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
        left_out, too_long = source["documents_left_out"], source.get("too_long")
        console.print(
            f"  {source['name']}: {source['realised_share']:.1%} of the tokens, {source['epochs']:.2f} epochs of "
            f"{source['documents']} documents, {source['fim_rate']:.1%} infilled"
            + (f"; {left_out} left out, which the vocabulary cannot write" if left_out else "")
            + (f"; {too_long} left out, which are longer than a row" if too_long else "")
        )


def _steps(
    recipe: Recipe,
    learner: Learner,
    rows: Rows,
    checkpoints: Checkpoints,
    done: Progress,
    ranks: Ranks,
    watcher: Watcher,
) -> None:
    """Train from where `done` says to the last step."""
    steps, per_step, layout = recipe.train.steps, recipe.train.rows_per_step, learner.layout
    with _signals() as asked:
        while done.step < steps:
            begun = time.monotonic()
            batch = rows.batch(done.step, per_step, rank=layout.reader, world=layout.readers)
            waited = time.monotonic() - begun
            with watcher.explaining(done, batch, checkpoints):
                loss, targets, tokens = learner.backward(batch)
                rate, norm = learner.optimizer.step(done.step)
            seconds = time.monotonic() - begun
            done = done.after(rows=per_step, tokens=tokens, targets=targets, seconds=seconds)
            watcher.step(done, batch, loss=loss, lr=rate, grad_norm=norm, data_seconds=waited)
            stop, save = (number > 0 for number in ranks.sums(*asked.take()))
            if done.step % recipe.checkpoint.every_steps == 0 or done.step == steps or stop or save:
                checkpoints.save(done, learner.optimizer.state())
            if stop and done.step < steps:
                checkpoints.wait()
                path = checkpoints.path(done.step)
                raise WorkError(f"stopped by a signal; {path} holds step {done.step}: go on with --resume")


@dataclass
class _Asked:
    """What signals have asked for."""

    stop: bool = False
    save: bool = False

    def take(self) -> tuple[bool, bool]:
        """Whether to stop, and whether to save, which is asked for once."""
        save, self.save = self.save, False
        return self.stop, save


@contextmanager
def _signals() -> Iterator[_Asked]:
    """SIGINT and SIGTERM ask to save and stop, a second one stops at once; SIGUSR1 asks to save and go on."""
    asked = _Asked()
    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in wanted}

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            asked.save = True
            return
        asked.stop = True
        for each in (signal.SIGINT, signal.SIGTERM):
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


def _ending(recipe: Recipe, learner: Learner, sources: list[Source], console: Console) -> Tokenizer:
    """The vocabulary with what decoding adds to the end of middles; as it was where no middles were trained."""
    tokenizer = learner.tokenizer
    if not recipe.fim.rate or not holds_whole_layers(learner.layout):
        return tokenizer
    with console.status("looking where middles end"), as_it_is(learner.objective):
        fitted = end_bias(learner.objective, tokenizer, sources)
    if fitted is None:
        return tokenizer
    said = ", ".join(f"{layout} {nats:+.2f}" for layout, nats in fitted.items()) or "nothing"
    console.print(f"added to the end's logit in decoding, in nats: {said}")
    return tokenizer.with_end_bias(fitted)


def _export(recipe: Recipe, run: Path, model: Llama | None, tokenizer: Tokenizer, console: Console) -> None:
    """Write what the run made. `model/` comes last: it marks a finished run."""
    assert model is not None, "rank 0 has it"
    if recipe.train.method == "lora":
        with atomic_folder(run / "adapter", replace=True) as folder:
            save_adapter(model, recipe.lora, folder, base=recipe.base)
            tokenizer.save(folder)
    write_hf(run / "model", merged_state(model), model.config, tokenizer=tokenizer, dtype=torch.bfloat16)
    console.print(f"the model is in {run / 'model'}")
