"""One model and one task: what is left to ask is asked, what is left to score is scored, and rows come of it.

questions ── those without an answer ──► thread: the model ──► answers.jsonl ──┐
├─► sandbox, judges ──► samples.jsonl
answers.jsonl ── those without a score ────────────────────────────────────────┘
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import xxhash

from midspan.engine.front import Front
from midspan.errors import InputError
from midspan.evaluate.ask import Asked, Asking
from midspan.evaluate.journal import Journal
from midspan.evaluate.judges import Judge
from midspan.evaluate.judging import Judging, Pair
from midspan.evaluate.task import Answer, Decoding, Metric, Question, Task
from midspan.sandbox import Sandbox

Progress = Callable[[str, int, int, float | None], None]
"""Called with what is measured, the samples that are scored and in all, and the mean score so far."""


@dataclass(frozen=True, kw_only=True)
class Asks:
    """What a user wants of a task; None leaves it to the task."""

    samples: int | None = None
    temperatures: tuple[float, ...] | None = None
    top_p: float | None = None
    seed: int = 0
    max_tokens: int | None = None
    limit: int | None = None
    """Questions, drawn by their names: a larger number has those of a smaller one too."""

    def __post_init__(self) -> None:
        for name in ("samples", "max_tokens", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")

    def decoding(self, task: Task) -> Decoding:
        """How the answers of a task are drawn."""
        values: dict[str, Any] = {
            "samples": self.samples,
            "temperatures": self.temperatures,
            "top_p": self.top_p,
        }
        given = {name: value for name, value in values.items() if value is not None}
        return replace(task.decoding, seed=self.seed, **given)

    def questions(self, task: Task, model: Front) -> list[Question]:
        """Every question of a task, with the longest answer that is allowed."""
        found = task.questions(model)
        if len({question.id for question in found}) != len(found):
            raise InputError(f"the data of {task.name} has two questions of one name; check the file")
        return found if self.max_tokens is None else [replace(q, max_tokens=self.max_tokens) for q in found]

    def chosen(self, questions: Sequence[Question]) -> list[Question]:
        """Those that are asked, in the task's order."""
        if self.limit is None or self.limit >= len(questions):
            return list(questions)
        drawn = sorted(questions, key=lambda question: xxhash.xxh3_64_intdigest(question.id.encode()))
        names = {question.id for question in drawn[: self.limit]}
        return [question for question in questions if question.id in names]


def asked_of(questions: Sequence[Question], decoding: Decoding) -> list[Asked]:
    """Every sample of every question; at temperature 0 all would be the same, and there is one."""
    return [
        Asked(question, temperature, copy)
        for temperature in decoding.temperatures
        for question in questions
        for copy in range(decoding.samples if temperature else 1)
    ]


def answer_and_score(
    model: Front,
    task: Task,
    journal: Journal,
    wanted: Sequence[Asked],
    decoding: Decoding,
    judging: Judging,
    progress: Progress,
) -> None:
    """Fill a journal with every wanted sample."""
    answers, samples = journal.answers(), journal.samples()
    scored = {key for key, sample in samples.items() if sample["verdict"] != "error"}
    missing = [each for each in wanted if each.key not in answers]
    waiting = [
        (each.question, answers[each.key]) for each in wanted if each.key in answers and each.key not in scored
    ]
    running = _Running(task, len(wanted), progress)
    running.add([samples[each.key] for each in wanted if each.key in scored])
    questions = {each.question.id: each.question for each in wanted}
    for batch in _batches(model, missing, decoding, journal, waiting, questions):
        for sample in judging.score(batch):
            journal.add_samples([sample])
            running.add([sample])


def score_again(task: Task, journal: Journal, judging: Judging, progress: Progress) -> None:
    """Score every answer of a journal anew, without the model; what stood there stays until all is done."""
    questions, found = journal.questions(), []
    pairs: list[Pair] = [(questions[a.question], a) for a in journal.answers().values() if a.question in questions]
    running = _Running(task, len(pairs), progress)
    for sample in judging.score(pairs):
        found.append(sample)
        running.add([sample])
    journal.replace_samples(found)


class _Running:
    """How far it is, and the mean of the first metric's score until now."""

    def __init__(self, task: Task, total: int, progress: Progress) -> None:
        self._name, self._total, self._progress = task.name, total, progress
        self._metric: Metric = task.metrics[0]
        self._done, self._sum, self._weight = 0, 0.0, 0.0
        progress(self._name, 0, total, None)

    def add(self, samples: Sequence[Mapping[str, Any]]) -> None:
        if not samples:
            return
        for sample in samples:
            scores = sample["scores"]
            self._sum += scores.get(self._metric.score, 0.0)
            self._weight += scores.get(self._metric.per, 0.0) if self._metric.per else bool(scores)
        self._done += len(samples)
        score = self._sum / self._weight if self._weight else None
        if score is not None and self._metric.unit == "%":
            score *= 100
        self._progress(self._name, self._done, self._total, score)


def _batches(
    model: Front,
    missing: Sequence[Asked],
    decoding: Decoding,
    journal: Journal,
    waiting: Sequence[Pair],
    questions: Mapping[str, Question],
) -> Iterator[list[Pair]]:
    """Answers as they come, those that were there first; the model writes in a thread of its own meanwhile."""
    ready: queue.Queue[Answer | BaseException | None] = queue.Queue()
    asking = Asking(model, missing, decoding)

    def work() -> None:
        try:
            for answer in asking:
                journal.add_answers([answer])
                ready.put(answer)
            ready.put(None)
        except BaseException as error:
            ready.put(error)

    thread = threading.Thread(target=work, name="midspan-answers")
    thread.start()
    try:
        if waiting:
            yield list(waiting)
        over = False
        while not over:
            came = [ready.get()]
            while not ready.empty():
                came.append(ready.get())
            for each in came:
                if isinstance(each, BaseException):
                    raise each
            over = came[-1] is None
            if batch := [(questions[each.question], each) for each in came if isinstance(each, Answer)]:
                yield batch
    finally:
        asking.cancel()
        thread.join()


def describe(
    task: Task,
    decoding: Decoding,
    questions: Sequence[Question],
    chosen: Sequence[Question],
    samples: Sequence[Mapping[str, Any]],
    sandbox: Sandbox | None,
    judges: Mapping[str, Judge],
) -> dict[str, Any]:
    """What a result has to say of how it came about."""
    rules = {json_of(question.stops): question.stops for question in questions}
    first = next(iter(rules.values()), None)
    return {
        "task": task.name,
        "variant": task.variant,
        "decoding": asdict(decoding),
        "stops": asdict(first) if len(rules) == 1 and first is not None else f"{len(rules)} kinds, by question",
        "max_tokens": max((question.max_tokens for question in questions), default=0),
        "questions": len(chosen),
        "of": len(questions),
        "samples": len(samples),
        "errors": sum(sample["verdict"] == "error" for sample in samples),
        "sandbox": sandbox.describe() if sandbox is not None and task.languages else None,
        "judges": {name: identity_of(judges.get(name)) for name in task.judges},
        "metrics": [asdict(metric) for metric in task.metrics],
    }


def identity_of(judge: Judge | None) -> str:
    """What a judge says that it is."""
    return str(getattr(judge, "identity", "unknown"))


def json_of(value: Any) -> str:
    """A text that is equal for equal settings."""
    return str(asdict(value))


def clock() -> Callable[[], float]:
    """Seconds since now."""
    begun = time.monotonic()
    return lambda: round(time.monotonic() - begun, 1)
