"""Key retrieval as a task: `key_retrieval.py`'s prompts, made of a corpus's held-out Python (Tables 17 and 18).

Lengths that the model has no positions for are left out, and a result shows by its groups which were asked. The
paper's filler was another: solutions from CodeContests.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from midspan.corpus import HELD_OUT
from midspan.engine.front import Front
from midspan.errors import InputError
from midspan.evaluate.data import Data
from midspan.evaluate.task import Answer, Evidence, Ids, Metric, Question, Scores, Task
from midspan.evaluate.tasks.key_retrieval import MAX_NEW, Filler, KeyRetrievalConfig, is_right, questions

VARIANTS = ("greedy",)


@dataclass(frozen=True, kw_only=True)
class KeyRetrieval(Task):
    """The task."""

    data: Data
    corpus: Path | None = None
    config: KeyRetrievalConfig = field(default_factory=KeyRetrievalConfig)
    variant: str = "greedy"
    name: str = "key-retrieval"
    metrics: tuple[Metric, ...] = (Metric(name="found", score="found", unit="%", kind="share"),)

    def questions(self, model: Front) -> list[Question]:
        """See `Task`.

        Raises:
            InputError: no corpus, one with too little Python, or a model that is too short for every length.
        """
        lengths = tuple(length for length in self.config.lengths if length + MAX_NEW <= model.max_positions)
        if not lengths:
            raise InputError(
                f"the model has {model.max_positions} positions, too few for a prompt of "
                f"{min(self.config.lengths)} tokens"
            )
        corpus = self.data.corpus(self.corpus, self.name)
        texts = (document.text for document in corpus.documents(HELD_OUT) if document.language == "python")
        filler = Filler.of(texts, model.tokenizer)
        asked = questions(filler, model.tokenizer, replace(self.config, lengths=lengths))
        return [
            Question(
                id=f"{one.length}/{number // len(self.config.places)}/{one.place:g}",
                prompt=Ids(ids=tuple(one.ids)),
                row={"answer": one.answer},
                groups=(f"{one.length} at {one.place:g}",),
                max_tokens=MAX_NEW,
            )
            for number, one in enumerate(asked)
        ]

    def score(self, question: Question, answer: Answer, evidence: Evidence) -> Scores:
        """See `Task`."""
        return {"found": float(is_right(answer.text, question.row["answer"]))}
