"""Answers → samples: programs through the sandbox, texts through judges, and the scores that come of both.

A sample is one line of samples.jsonl, and says all there is to say of it:

    question, temperature, copy, groups, prompt, text, reason (why it ended), tokens, seconds
    programs   each with source, test, status, reason, cpu_seconds, wall_seconds
    verdict    passed, failed, timeout or error: the worst of its programs
    opinions   of judges
    scores
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import xxhash

from midspan.evaluate.judges import Judge
from midspan.evaluate.task import Answer, Evidence, Question, Task
from midspan.sandbox import Program, Sandbox, Verdict

Pair = tuple[Question, Answer]
_WORST = ("error", "timeout", "failed", "passed")
MOST_SHOWN = 4
"""Programs of a sample that its line holds whole; of the others only what came of them."""


class Judging:
    """Scores the answers of one task."""

    def __init__(self, task: Task, sandbox: Sandbox | None, judges: Mapping[str, Judge]) -> None:
        self._task, self._sandbox, self._judges = task, sandbox, judges

    def score(self, pairs: Sequence[Pair]) -> Iterator[dict[str, Any]]:
        """Samples in the order in which they are done."""
        opinions = self._opinions(pairs)
        programs = [self._task.programs(question, answer) for question, answer in pairs]
        verdicts: list[list[Verdict | None]] = [[None] * len(each) for each in programs]
        for number, each in enumerate(programs):
            if not each:
                yield self._sample(pairs[number], [], [], opinions[number])
        if self._sandbox is None:
            return
        left = [len(each) for each in programs]
        for verdict in self._sandbox.judge(_named(programs)):
            number, place = map(int, verdict.key.split("/"))
            verdicts[number][place] = verdict
            left[number] -= 1
            if left[number] == 0:
                came = [v for v in verdicts[number] if v is not None]
                found = self._task.judged(pairs[number][0], came)
                yield self._sample(pairs[number], programs[number], found, opinions[number])

    def _opinions(self, pairs: Sequence[Pair]) -> list[dict[str, float]]:
        found: list[dict[str, float]] = [{} for _ in pairs]
        texts = [self._task.to_judges(question, answer) for question, answer in pairs]
        for name in self._task.judges:
            chosen = [number for number, each in enumerate(texts) if name in each]
            if chosen:
                said = self._judges[name]([texts[number][name] for number in chosen])
                for number, opinion in zip(chosen, said, strict=True):
                    found[number][name] = opinion
        return found

    def _sample(
        self,
        pair: Pair,
        programs: Sequence[Program],
        verdicts: Sequence[Verdict],
        opinions: Mapping[str, float],
    ) -> dict[str, Any]:
        question, answer = pair
        evidence = Evidence(verdicts, opinions)
        status = min((v.status for v in verdicts), key=_WORST.index, default="")
        reasons = [v.reason for v in verdicts if v.status == status and status != "passed"]
        return {
            "question": answer.question,
            "temperature": answer.temperature,
            "copy": answer.copy,
            "groups": list(question.groups),
            "cluster": question.cluster or question.id,
            "prompt": question.shown,
            "text": answer.text,
            "ended": answer.reason,
            "tokens": answer.tokens,
            "seconds": answer.seconds,
            "verdict": status,
            "reason": reasons[0] if reasons else "",
            "mode": verdicts[0].mode if verdicts else "",
            "cpu_seconds": round(sum(v.cpu_seconds for v in verdicts), 4),
            "wall_seconds": round(sum(v.wall_seconds for v in verdicts), 4),
            "programs": [_program(*both) for both in zip(programs[:MOST_SHOWN], verdicts, strict=False)],
            "opinions": dict(opinions),
            "scores": {} if status == "error" else self._task.score(question, answer, evidence),
        }


def _named(programs: Sequence[Sequence[Program]]) -> Iterator[Program]:
    for number, each in enumerate(programs):
        for place, program in enumerate(each):
            yield replace(program, key=f"{number}/{place}")


def _program(program: Program, verdict: Verdict) -> dict[str, Any]:
    whole = f"{program.source}\n{program.test}"
    shown = {"language": program.language, "source": program.source, "test": program.test[:4000]}
    if program.stdin is not None:
        shown["stdin"] = program.stdin[:1000]
    if verdict.stdout:
        shown["stdout"] = verdict.stdout[:1000]
    return {
        **shown,
        "hash": xxhash.xxh3_128_hexdigest(whole.encode("utf-8", errors="surrogatepass")),
        "status": verdict.status,
        "reason": verdict.reason,
    }
