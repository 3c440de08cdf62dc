"""CodeXGLUE's code-to-text for Python as infilling: the docstring of a function, from what stands around it.

The prefix ends behind the opening quotes and a blank, the closing quotes are left out, and the first line that is
not blank is the answer (Table 13). The score is the mean of smoothed BLEU-4 with the first reference sentence as
the data has it in tokens; `psm` is the paper's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from midspan.engine.front import Front
from midspan.errors import InputError
from midspan.evaluate.data import Data, Source
from midspan.evaluate.metrics import smoothed_bleu
from midspan.evaluate.task import Answer, Evidence, Hole, Metric, Question, Scores, Task
from midspan.fim.stops import StopRules

VARIANTS = ("psm", "spm")
SOURCE = Source(
    file="codexglue/python/test.jsonl",
    origin="github.com/microsoft/CodeXGLUE, Code-Text/code-to-text",
    hub=("google/code_x_glue_ct_code_to_text", "python/test*.parquet"),
)
_DOCSTRING = re.compile(r"^([ \t]*)[rRuU]?(\"\"\"|''').*?\2[ \t]*\n?", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Docstring(Task):
    """The task."""

    data: Data
    variant: str = "psm"
    name: str = "docstring"
    metrics: tuple[Metric, ...] = (Metric(name="BLEU", score="bleu", unit="of 100"),)

    def questions(self, model: Front) -> list[Question]:
        """See `Task`; functions whose docstring is not in triple quotes on a line of its own are left out."""
        found = []
        for number, row in enumerate(self.data.rows(SOURCE)):
            parts = around_docstring(row["code"])
            if parts is None:
                continue
            prefix, suffix = parts
            found.append(
                Question(
                    id=f"codexglue/{number}",
                    prompt=Hole(prefix=prefix, suffix=suffix, layout="spm" if self.variant == "spm" else "psm"),
                    row={"reference": " ".join(row["docstring_tokens"])},
                    max_tokens=128,
                    stops=StopRules(strings=('"""', "'''"), max_lines=1),
                )
            )
        if not found:
            raise InputError(
                f"{SOURCE.file} has no function with a docstring; fetch it again from {SOURCE.origin}"
            )
        return found

    def score(self, question: Question, answer: Answer, evidence: Evidence) -> Scores:
        """See `Task`."""
        return {"bleu": smoothed_bleu(answer.text.strip(), question.row["reference"])}


def around_docstring(code: str) -> tuple[str, str] | None:
    """A function before and behind its first docstring; None where it has none."""
    found = _DOCSTRING.search(code)
    if found is None:
        return None
    return f'{code[: found.start()]}{found[1]}""" ', f"\n{code[found.end() :]}"
