"""A model that says what a script tells it to, for each question and sample, through the engine's own stops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from midspan.engine import Completion, Handle, Request
from midspan.engine.front import Front
from midspan.evaluate.ask import Asked, requests_for
from midspan.evaluate.data import Data
from midspan.evaluate.journal import Journal
from midspan.evaluate.judges import Judge
from midspan.evaluate.judging import Judging
from midspan.evaluate.measure import answer_and_score, asked_of
from midspan.evaluate.registry import Named, make
from midspan.evaluate.rows import task_rows
from midspan.evaluate.task import Decoding, Question, Task
from midspan.fim.stops import Stopper
from midspan.sandbox import Sandbox
from midspan.tokenizer import Tokenizer

Script = Callable[[Question, int], str | list[float]]
"""A question and the sample's number → a text, or the losses that the model is to have."""


def task(name: str, folder: Path, **settings: object) -> Task:
    """A task by its name, with the data of a folder."""
    return make(Named.parse(name), Data(folder), settings)


class Scripted(Front):
    """A model without weights."""

    def __init__(self, tokenizer: Tokenizer, script: Script, *, max_positions: int = 1 << 20) -> None:
        super().__init__(tokenizer, max_positions=max_positions, speculate=False)
        self._script, self._known = script, dict[tuple[int, ...], Question]()
        self.asked: list[Request] = []

    def learn(self, questions: Iterable[Question]) -> None:
        """Know questions by the ids of their prompts."""
        for question in questions:
            for request in requests_for(self, Asked(question, 0.0, 0), Decoding()):
                self._known[_ids(request)] = question

    def submit(self, request: Request, on_news: Callable[[], None] | None = None) -> Handle:
        """What the script says, cut by the request's rules and budget."""
        self._check(request)
        self.asked.append(request)
        said = self._script(self._known[_ids(request)], request.copy)
        handle = Handle(request, lambda handle, whole: None, on_news=on_news or (lambda: None))
        if isinstance(said, list):
            assert request.example is not None
            count = request.example.num_middle
            losses = said if len(said) == count else [said.pop(0)] + [0.0] * (count - 1)
            handle.finish(Completion([], "", "length", losses))
            return handle
        stopper = Stopper(request.stops, request.prefix, request.suffix)
        ids = self.tokenizer.encode(said, leading_space=False)
        cut = len(ids) > request.max_tokens
        stopper.push(self.tokenizer.decode(ids[: request.max_tokens]) if cut else said)
        stopper.end(complete=not cut)
        reason = stopper.reason or ("length" if cut else "eot")
        losses = None if request.example is None else [0.0] * request.example.num_middle
        handle.put(stopper.text)
        handle.finish(Completion(ids, stopper.text, "length" if cut else "stop", losses, reason))
        return handle

    def match(self, prompt: Sequence[int]) -> int:
        """It reads nothing."""
        return 0


def _ids(request: Request) -> tuple[int, ...]:
    return tuple(request.example.ids) if request.example is not None else tuple(request.prompt)


def run_task(
    task: Task,
    tokenizer: Tokenizer,
    script: Script,
    folder: Path,
    *,
    sandbox: Sandbox | None = None,
    judges: dict[str, Judge] | None = None,
    decoding: Decoding | None = None,
    choose: Callable[[Question], bool] = lambda question: True,
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Put a task to a scripted model; its scores by the rows' names, and its samples by their questions."""
    model = Scripted(tokenizer, script)
    # The tests' vocabulary has few pieces, so budgets in tokens would cut right answers.
    asked = [question for question in task.questions(model) if choose(question)]
    questions = [replace(question, max_tokens=8 * question.max_tokens) for question in asked]
    model.learn(questions)
    journal, drawn = Journal(folder), decoding or task.decoding
    journal.open_for({"model": "scripted"}, questions)
    again = list(journal.questions().values())
    assert again == questions, "a question survives its file"
    judging = Judging(task, sandbox, judges or {})
    answer_and_score(model, task, journal, asked_of(questions, drawn), drawn, judging, lambda *_: None)
    samples = journal.samples()
    rows = task_rows(task.name, task.variant, task.metrics, [*samples.values()], average=task.averages)
    return {row["row"].removeprefix(f"{task.name} "): row["ours"] for row in rows}, {
        key[0]: sample for key, sample in samples.items()
    }
