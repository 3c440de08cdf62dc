"""Long code completion: the next line of a file, from all that stands before it.

    lcc        LCC's format (Guo et al. 2023): `context` and `gt`, in Python, Java, C#. The paper's length-balanced
               choice of it was not given out, so scores on the public test files are not those of Table 7.
    lcc-like   made here, of held-out files of a corpus: a stand-in under another name

    whole      as much of the file's end as the model has room for
    4000       its last 4,000 tokens: what the paper shows models without long context

Exact match compares lists of words, as CodeXGLUE does; BLEU is CodeXGLUE's smoothed one (the paper does not say
which it took).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from midspan.corpus import HELD_OUT, Document
from midspan.engine.front import Front
from midspan.errors import InputError
from midspan.evaluate.data import Data, Source
from midspan.evaluate.metrics import edit_similarity, smoothed_bleu
from midspan.evaluate.task import EXACT, Answer, Evidence, Metric, Question, Scores, Task, Text
from midspan.fim import Draws
from midspan.fim.stops import StopRules

VARIANTS = ("whole", "4000")
LANGUAGES = ("python", "java", "csharp")
METRICS = (
    EXACT,
    Metric(name="BLEU", score="bleu", unit="of 100"),
    Metric(name="edit similarity", score="similarity", unit="of 100"),
)
MIN_LINES, MIN_VISIBLE = 10, 3
"""Lines before a line that is asked of `lcc-like`, and visible characters in it."""


def source_of(language: str) -> Source:
    """The test file of one language."""
    hub = f"microsoft/LCC_{language}"
    return Source(file=f"lcc/{language}.parquet", origin=f"huggingface.co/datasets/{hub}", hub=(hub, "data/test*"))


class NextLine(Task):
    """What both have in common."""

    metrics = METRICS

    def _question(self, name: str, language: str, context: str, truth: str) -> Question:
        most = 4000 if self.variant == "4000" else None
        return Question(
            id=name,
            prompt=Text(text=context, most=most),
            row={"truth": truth},
            groups=("", language),
            max_tokens=100,
            stops=StopRules(max_lines=1),
        )

    def score(self, question: Question, answer: Answer, evidence: Evidence) -> Scores:
        """See `Task`."""
        written, truth = answer.text.strip(), question.row["truth"].strip()
        return {
            "exact": float(written.split() == truth.split()),
            "bleu": smoothed_bleu(written, truth),
            "similarity": float(edit_similarity(written, truth)),
        }


@dataclass(frozen=True, kw_only=True)
class Lcc(NextLine):
    """The public format."""

    data: Data
    variant: str = "whole"
    name: str = "lcc"

    def questions(self, model: Front) -> list[Question]:
        """See `Task`."""
        return [
            self._question(f"{language}/{number}", language, row["context"], row["gt"])
            for language in LANGUAGES
            for number, row in enumerate(self.data.rows(source_of(language)))
        ]


@dataclass(frozen=True, kw_only=True)
class LccLike(NextLine):
    """One line of each held-out file."""

    data: Data
    corpus: Path | None = None
    variant: str = "whole"
    name: str = "lcc-like"

    def questions(self, model: Front) -> list[Question]:
        """See `Task`."""
        corpus = self.data.corpus(self.corpus, self.name)
        found = []
        for document in corpus.documents(HELD_OUT):
            if (cut := line_of(document)) is not None:
                name = f"{document.id:016x}/{document.path}"
                found.append(self._question(name, document.language, *cut))
        if not found:
            raise InputError(f"{self.corpus} has no held-out file of more than {MIN_LINES} lines")
        return found


def line_of(document: Document) -> tuple[str, str] | None:
    """(what stands before, line), drawn by the document's own number among lines of its second half."""
    lines = document.text.splitlines(keepends=True)
    first = max(MIN_LINES, len(lines) // 2)
    places = [n for n in range(first, len(lines)) if len("".join(lines[n].split())) >= MIN_VISIBLE]
    if not places:
        return None
    place = places[Draws(0, 0, document.id).below(len(places))]
    return "".join(lines[:place]), lines[place].rstrip("\n")
