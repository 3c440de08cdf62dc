"""SantaCoder's infilling (Allal et al. 2023): one line of a MultiPL-E solution, in Python, Java and JavaScript.

What is written is cut behind its first line that is not blank (StarCoder's rule; most prompts here end before the
line feed), and right where it is the line of the solution, white space at both ends aside. Table 6 of the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

from midspan.engine.front import Front
from midspan.evaluate.data import Data, Source
from midspan.evaluate.metrics import edit_similarity
from midspan.evaluate.task import EXACT, Answer, Evidence, Hole, Metric, Question, Scores, Task
from midspan.fim.stops import StopRules

VARIANTS = ("psm", "spm", "psm-healed", "spm-healed")
SOURCE = Source(
    file="santacoder_fim/train.parquet",
    origin="huggingface.co/datasets/bigcode/santacoder-fim-task",
    sha256="54d62b5a4f1554ca3f7ab65f901fe1fecdb3eaebac28ebd52a90397c9239c6d9",
    hub=("bigcode/santacoder-fim-task", "*train*.parquet"),
)
SIMILAR = Metric(name="edit similarity", score="similarity", unit="of 100")


@dataclass(frozen=True, kw_only=True)
class SantaCoder(Task):
    """The task."""

    data: Data
    variant: str = "psm"
    name: str = "santacoder-fim"
    metrics: tuple[Metric, ...] = (EXACT, SIMILAR)

    def questions(self, model: Front) -> list[Question]:
        """See `Task`."""
        layout, _, healed = self.variant.partition("-")
        found = []
        for number, row in enumerate(self.data.rows(SOURCE)):
            hole = Hole(
                prefix=row["prompt"],
                suffix=row["suffix"],
                layout="spm" if layout == "spm" else "psm",
                heal=bool(healed),
            )
            found.append(
                Question(
                    id=f"{row['language']}/{number}/{row['name']}",
                    prompt=hole,
                    row={"answer": row["canonical_solution"]},
                    groups=(row["language"],),
                    max_tokens=96,
                    stops=StopRules(max_lines=1),
                )
            )
        return found

    def score(self, question: Question, answer: Answer, evidence: Evidence) -> Scores:
        """See `Task`."""
        written, truth = answer.text.strip(), question.row["answer"].strip()
        return {"exact": float(written == truth), "similarity": float(edit_similarity(written, truth))}
