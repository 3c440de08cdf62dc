"""GSM8K (Cobbe et al. 2021): school mathematics in words; the number behind the steps has to be right.

    8-shot     the first eight training problems with their solutions first; the paper does not say which it took
    instruct   asked in the model's chat format

The answer is the number behind `####`, or the last number where there is none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from midspan.engine.front import Front
from midspan.evaluate.data import Data, Source
from midspan.evaluate.task import Answer, Chat, Evidence, Metric, Question, Scores, Task, Text
from midspan.fim.stops import StopRules

VARIANTS = ("8-shot", "instruct")
_ORIGIN = "github.com/openai/grade-school-math"
TEST, TRAIN = (
    Source(file=f"gsm8k/{part}.jsonl", origin=_ORIGIN, hub=("openai/gsm8k", f"main/{part}*.parquet"))
    for part in ("test", "train")
)
SHOTS = 8
SOLVED = Metric(name="solved", score="solved", unit="%", kind="share")
_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?")
_STEP = re.compile(r"<<.*?>>")
"""A calculator's annotation in the data, which models are not to write."""


@dataclass(frozen=True, kw_only=True)
class Gsm8k(Task):
    """The task."""

    data: Data
    variant: str = "8-shot"
    name: str = "gsm8k"
    metrics: tuple[Metric, ...] = (SOLVED,)

    def questions(self, model: Front) -> list[Question]:
        """See `Task`."""
        shots = ""
        if self.variant == "8-shot":
            rows = self.data.rows(TRAIN)[:SHOTS]
            shots = "".join(f"Question: {r['question']}\nAnswer: {_STEP.sub('', r['answer'])}\n\n" for r in rows)
        found = []
        for number, row in enumerate(self.data.rows(TEST)):
            asked = row["question"]
            prompt: Text | Chat = Text(text=f"{shots}Question: {asked}\nAnswer:")
            if self.variant == "instruct":
                prompt = Chat(
                    message=f"{asked}\nThink step by step, and write the number alone behind #### at the end."
                )
            found.append(
                Question(
                    id=f"gsm8k/{number}",
                    prompt=prompt,
                    row={"answer": row["answer"]},
                    stops=StopRules(strings=() if self.variant == "instruct" else ("\nQuestion:",)),
                )
            )
        return found

    def score(self, question: Question, answer: Answer, evidence: Evidence) -> Scores:
        """See `Task`."""
        right, said = number_of(question.row["answer"]), number_of(answer.text)
        return {"solved": float(said is not None and said == right)}


def number_of(text: str) -> float | None:
    """The number that a solution comes to."""
    marked = _NUMBER.search(text.rpartition("####")[2]) if "####" in text else None
    found = [marked[0]] if marked else _NUMBER.findall(text)
    return float(found[-1].replace(",", "").replace("$", "")) if found else None
