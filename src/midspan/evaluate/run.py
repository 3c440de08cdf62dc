"""`midspan eval`: tasks on a model, and on its base, into a folder from which it goes on after any interruption.

    OUT/tasks/humaneval.official/        a journal of the model
    OUT/tasks-base/humaneval.official/   a journal of what it stands beside
    OUT/results.json, report.html, report.md, report.tex, report.json

The base comes first. Of a run's folder the corpus, the base and the precision are known from its recipe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from midspan.engine.decoder import DecoderKind
from midspan.engine.front import Front
from midspan.errors import InputError
from midspan.evaluate import results
from midspan.evaluate.data import Data
from midspan.evaluate.journal import IDENTITY, SUMMARY, Journal
from midspan.evaluate.judges import Judge, open_judges
from midspan.evaluate.judging import Judging
from midspan.evaluate.measure import (
    Asks,
    Progress,
    answer_and_score,
    asked_of,
    clock,
    describe,
    identity_of,
    score_again,
)
from midspan.evaluate.registry import TASKS, Named, make, named_tasks
from midspan.evaluate.report import write_report
from midspan.evaluate.rows import task_rows
from midspan.evaluate.subject import RemoteSubject, Subject
from midspan.evaluate.task import Metric, Task
from midspan.files import write_json
from midspan.model.quant import Bits
from midspan.sandbox import Mode, Sandbox
from midspan.sandbox.languages import require_libraries
from midspan.train import read_recipe

Side = Literal["base", "model"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is measured, on what, beside what."""

    model: str
    """A name, a checkpoint's path, an adapter's or a run's folder."""
    tasks: tuple[Named, ...]
    out: Path
    base: str | None = None
    """Measured as `before`."""
    upstream: str | None = None
    """A server that answers in the model's place; the vocabulary is that of `model`."""
    served_as: str | None = None
    data: str | Path | None = None
    asks: Asks = field(default_factory=Asks)
    ks: tuple[int, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of tasks that take any: `corpus`, `sources`, `per_kind`, `window`."""
    judges: Mapping[str, str] = field(default_factory=dict)
    mode: Mode = "compat"
    workers: int | None = None
    dtype: torch.dtype | None = None
    """Of the weights; by itself what the machine computes fastest."""
    decoder: DecoderKind = "torch"
    bits: Bits = 8
    max_batch: int = 32

    @staticmethod
    def of(
        model: str,
        *,
        tasks: str | Sequence[str] = "heldout",
        variant: str | None = None,
        out: Path | None = None,
        base: str | None = None,
        settings: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Evaluation:
        """What is not given comes from the recipe, where the model is a run.

        Raises:
            InputError: a task that is not known; no folder to write to; no corpus for the held-out task.
        """
        run, named = Path(model), tuple(named_tasks(tasks, variant))
        given = {name: value for name, value in (settings or {}).items() if value is not None}
        if not named:
            raise InputError("no task is named; name some with --tasks humaneval,mbpp")
        if (run / "recipe.json").is_file():
            recipe = read_recipe(run)
            if recipe["data"]["corpus"]:
                given.setdefault("corpus", Path(recipe["data"]["corpus"]))
            base, out = base or recipe["base"], out or run
            if recipe["train"]["precision"] == "fp32":
                options.setdefault("dtype", torch.float32)
        if "corpus" not in given and any("corpus" in TASKS[task.name].needs for task in named):
            raise InputError(f"{model} is no run, so its corpus is not known; name one with --corpus DIR")
        if out is None:
            raise InputError("where to? Name a folder for answers and results with --out DIR")
        return Evaluation(model=model, tasks=named, out=out, base=base, settings=given, **options)

    def run(self, progress: Progress = lambda *_: None) -> dict[str, Any]:
        """Measure the base and the model, write results.json and the reports, and return the results."""
        data = Data(self.data)
        subject = self._subject()
        settings = {**self.settings, "vocabulary": subject.tokenizer}
        made = {named: make(named, data, settings) for named in self.tasks}
        for task in made.values():
            for language in task.languages:
                require_libraries(language)
        infilling = [named.name for named in made if TASKS[named.name].infills and subject.fim is None]
        if infilling:
            raise InputError(
                f"{self.model} has no infilling sentinels, which {', '.join(infilling)} needs; train it with "
                "recipes/smol/code.toml, or leave that out (`perplexity` asks any model)"
            )
        judges = open_judges({name for task in made.values() for name in task.judges}, self.judges, data)
        with ExitStack() as stack:
            runs_code = any(task.languages for task in made.values())
            sandbox = stack.enter_context(Sandbox(self.workers, self.mode)) if runs_code else None
            if self.base is not None:
                base = self._base_subject(subject)
                for named, task in made.items():
                    self._measure("base", base, named, task, data, sandbox, judges, progress)
                del base  # its weights are not needed beside the model's
            for named, task in made.items():
                self._measure("model", subject, named, task, data, sandbox, judges, progress)
        found = results.write_results(self.out)
        write_report(self.out)
        return found

    def _subject(self) -> Subject | RemoteSubject:
        if self.upstream is not None:
            return RemoteSubject(self.model, self.upstream, model=self.served_as)
        return Subject(self.model, **self._loading())

    def _base_subject(self, subject: Front) -> Subject:
        assert self.base is not None
        infills = any(TASKS[named.name].infills for named in self.tasks) and subject.fim is not None
        return Subject(self.base, infills=infills, **self._loading())

    def _loading(self) -> dict[str, Any]:
        return {
            "dtype": self.dtype,
            "decoder": self.decoder,
            "bits": self.bits,
            "max_batch": self.max_batch,
        }

    def _measure(
        self,
        side: Side,
        model: Subject | RemoteSubject,
        named: Named,
        task: Task,
        data: Data,
        sandbox: Sandbox | None,
        judges: Mapping[str, Judge],
        progress: Progress,
    ) -> None:
        seconds = clock()
        folder = self.out / (results.BASE if side == "base" else results.TASKS) / named.folder
        journal = Journal(folder)
        data.used.clear()
        questions = self.asks.questions(task, model)
        chosen, decoding = self.asks.chosen(questions), self.asks.decoding(task)
        identity = {**model.identity(), "top_p": decoding.top_p, "seed": decoding.seed}
        journal.open_for(identity, questions)

        def told(name: str, done: int, total: int, score: float | None) -> None:
            progress(f"{name}, {side}" if self.base is not None else name, done, total, score)

        judging = Judging(task, sandbox, judges)
        answer_and_score(model, task, journal, asked_of(chosen, decoding), decoding, judging, told)
        samples = [*journal.samples().values()]
        summary = {
            **describe(task, decoding, questions, chosen, samples, sandbox, judges),
            **results.circumstances(),
            "data": [*data.used.values()],
            "model": model.identity(),
            "seconds": seconds(),
        }
        write_summary(self.out, side, named, summary, self.ks, task.metrics, task.averages)


def write_summary(
    out: Path,
    side: Side,
    named: Named,
    summary: Mapping[str, Any],
    ks: Sequence[int],
    metrics: Sequence[Metric],
    averages: str,
) -> None:
    """Rows of a task's samples, beside the base's where that was measured, into its summary."""
    mine = Journal(out / (results.BASE if side == "base" else results.TASKS) / named.folder)
    theirs = Journal(out / results.BASE / named.folder)
    beside = side == "model" and (theirs.folder / SUMMARY).is_file()
    rows = task_rows(
        named.name,
        named.variant,
        metrics,
        [*mine.samples().values()],
        [*theirs.samples().values()] if beside else [],
        ks=ks,
        average=averages,
    )
    before = json.loads((theirs.folder / SUMMARY).read_text(encoding="utf-8"))["model"] if beside else None
    write_json(mine.folder / SUMMARY, {**summary, "ks": list(ks), "before_model": before, "rows": rows})


def rescore(
    out: Path,
    *,
    tasks: str | Sequence[str] | None = None,
    data: str | Path | None = None,
    ks: Sequence[int] = (),
    judges: Mapping[str, str] | None = None,
    mode: Mode = "compat",
    workers: int | None = None,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Score the answers of a folder again, without the model, and write its results anew.

    Raises:
        InputError: there is nothing to score.
    """
    asked = None if tasks is None else {named.folder for named in named_tasks(tasks)}
    found: list[tuple[Side, Named]] = []
    sides: tuple[tuple[Side, str], ...] = (("base", results.BASE), ("model", results.TASKS))
    for side, folder in sides:
        for path in sorted((out / folder).glob(f"*/{IDENTITY}")):
            name, _, variant = path.parent.name.rpartition(".")
            if "~" not in variant and (asked is None or path.parent.name in asked):
                found.append((side, Named.parse(name, variant)))
    if not found:
        raise InputError(f"{out} has no answers to score again; run `midspan eval MODEL --out {out}` first")
    source = Data(data)
    made = {named: make(named, source) for _, named in found}
    opened = open_judges({name for task in made.values() for name in task.judges}, judges or {}, source)
    with ExitStack() as stack:
        runs_code = any(task.languages for task in made.values())
        sandbox = stack.enter_context(Sandbox(workers, mode)) if runs_code else None
        for side, named in found:
            task = made[named]
            journal = Journal(out / (results.BASE if side == "base" else results.TASKS) / named.folder)
            score_again(task, journal, Judging(task, sandbox, opened), progress)
            old = _summary(journal, task, source)
            samples = [*journal.samples().values()]
            now = {
                "sandbox": sandbox.describe() if sandbox is not None and task.languages else None,
                "judges": {name: identity_of(opened[name]) for name in task.judges},
                "samples": len(samples),
                "errors": sum(sample["verdict"] == "error" for sample in samples),
                "scored_again": results.circumstances(),
            }
            write_summary(out, side, named, {**old, **now}, ks or old.get("ks", ()), task.metrics, task.averages)
    summary = results.write_results(out)
    write_report(out)
    return summary


def _summary(journal: Journal, task: Task, data: Data) -> dict[str, Any]:
    """What was said of a task that was finished; what there is to say of one that was not."""
    try:
        return dict(json.loads((journal.folder / SUMMARY).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        questions = [*journal.questions().values()]
        answered = {answer.question for answer in journal.answers().values()}
        chosen = [question for question in questions if question.id in answered]
        said = describe(task, task.decoding, questions, chosen, [], None, {})
        return {**said, **results.circumstances(), "data": [], "model": journal.identity(), "seconds": 0.0}
