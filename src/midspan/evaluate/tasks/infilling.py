"""HumanEval infilling (Bavarian et al. 2022): a solution with a hole, filled by what stands around it.

    single-line    1,033 holes of one line          cut behind the first line that is not blank
    multi-line     5,815 of several lines
    random-span    1,640 anywhere, ten a function
    random-span-light   164, one a function

    psm, spm                 the order of the parts, as trained
    psm-healed, spm-healed   with the token at the cursor mended

Greedy and ended by the model's own EOT, as in Table 14. program = prefix + middle + suffix, then the tests.
"""

from __future__ import annotations

from dataclasses import dataclass

from midspan.engine.front import Front
from midspan.evaluate.data import Data, Source
from midspan.evaluate.task import Answer, Executed, Hole, Question
from midspan.evaluate.tasks.humaneval import checked, imports_of
from midspan.fim.stops import StopRules
from midspan.sandbox import Program

VARIANTS = ("psm", "spm", "psm-healed", "spm-healed")
_ORIGIN = "github.com/openai/human-eval-infilling"
SOURCES = {
    kind: Source(
        file=f"humaneval_infilling/HumanEval-{name}Infilling{light}.jsonl.gz", origin=_ORIGIN, sha256=digest
    )
    for kind, name, light, digest in (
        ("single-line", "SingleLine", "", "1277073e7ddce163ef68598c2bca777f688a53df99422f097e37362090f88e1f"),
        ("multi-line", "MultiLine", "", "2f341612eee1d35da1357a4f365e0c0b3ba6e2b62eb491e88aaefa4855af0349"),
        ("random-span", "RandomSpan", "", "b4f330d8a8ff97bf85d9def497dffcae4d741e506449386a877236e422e33e8d"),
        (
            "random-span-light",
            "RandomSpan",
            "Light",
            "1432250ecac0cb56e6f97f8faf0970419ef892a98fda7e1f5aa4c4b87209b760",
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Infilling(Executed):
    """One of the four benchmarks."""

    data: Data
    kind: str
    variant: str = "psm"
    languages: tuple[str, ...] = ("python",)

    @property
    def name(self) -> str:  # type: ignore[override]
        """As users name it."""
        return f"infilling-{self.kind}"

    def questions(self, model: Front) -> list[Question]:
        """See `Task`."""
        layout, _, healed = self.variant.partition("-")
        rules = StopRules(max_lines=1) if self.kind == "single-line" else StopRules()
        return [
            Question(
                id=row["task_id"],
                prompt=Hole(
                    prefix=row["prompt"],
                    suffix=row["suffix"],
                    layout="spm" if layout == "spm" else "psm",
                    heal=bool(healed),
                ),
                row={k: row[k] for k in ("prompt", "suffix", "test", "entry_point", "canonical_solution")},
                cluster="/".join(row["task_id"].split("/")[1:3]),
                max_tokens=128 if self.kind == "single-line" else 512,
                stops=rules,
            )
            for row in self.data.rows(SOURCES[self.kind])
        ]

    def programs(self, question: Question, answer: Answer) -> list[Program]:
        """See `Task`."""
        row = question.row
        end = "\n" if answer.reason == "lines" else ""  # the line feed that it was stopped at
        trusted = {**row, "prompt": imports_of(row)}
        return [checked(trusted, f"{row['prompt']}{answer.text}{end}{row['suffix']}")]
