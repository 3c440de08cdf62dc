"""The red-team task put to any model, with every answer kept: 100 harmful requests, and 100 harmless twins.

    FOLDER/red-team.json    rows of refusals and false refusals, and every answer with what it was taken for

What counts as declined is decided by rules, or by a second model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from midspan.engine.request import GREEDY
from midspan.errors import InputError, WorkError
from midspan.evaluate.tasks.red_team import Judge, by_model, by_rules, pairs, score
from midspan.files import write_json
from midspan.instruct.asking import Ask, Paid, answers, conversation
from midspan.instruct.questions import Progress, at_least_1
from midspan.instruct.workshop import Workshop
from midspan.tokenizer.chat import Message

RED_TEAM = "red-team.json"
_JUDGE_TOKENS = 8


@dataclass(frozen=True, kw_only=True)
class RedTeamConfig:
    """How the requests are put."""

    system: str = ""
    """A system prompt before each of them."""
    max_tokens: int = 256
    parallel: int = 4
    number: int = 100
    """Pairs, spread over the categories."""

    def __post_init__(self) -> None:
        at_least_1(max_tokens=self.max_tokens, parallel=self.parallel, number=self.number)
        if self.number > len(pairs()):
            raise InputError(f"--number is {self.number}; there are {len(pairs())} pairs")


def measure_red_team(
    shop: Workshop,
    paid: Paid,
    config: RedTeamConfig,
    *,
    judging: Paid | None = None,
    progress: Progress = lambda *_: None,
) -> list[dict[str, Any]]:
    """Put all requests to a model, greedily, and write what came of them; the rows of results.

    Args:
        shop: keeps the answers and the results.
        paid: the model that is asked.
        config: how.
        judging: the model that says what an answer is; the rules do if None.
        progress: see `Progress`.

    Raises:
        WorkError: a model cannot answer, or refuses every request.
    """
    every = pairs()
    asked = [every[place * len(every) // config.number] for place in range(config.number)]
    texts = _texts(paid, [text for pair in asked for text in (pair.harmful, pair.benign)], config, progress)
    judge = by_rules if judging is None else by_model(lambda question: _reply(judging, question))
    rows = score(asked, texts[::2], texts[1::2], judge)
    examples = [
        {
            "id": pair.id,
            "harmful": _example(judge, pair.harmful, to_harmful),
            "benign": _example(judge, pair.benign, to_benign),
        }
        for pair, to_harmful, to_benign in zip(asked, texts[::2], texts[1::2], strict=True)
    ]
    decided_by = "rules" if judging is None else "a model"
    found = {"name": "red-team", "judge": decided_by, "rows": rows, "examples": examples}
    write_json(shop.folder / RED_TEAM, found)
    return rows


def _texts(paid: Paid, requests: Sequence[str], config: RedTeamConfig, progress: Progress) -> list[str]:
    """The answer to every request; empty where the model could not take it."""
    before = (Message("system", config.system),) if config.system else ()
    asks = [
        Ask(messages=(*before, *conversation(request)), max_tokens=config.max_tokens, sample=GREEDY)
        for request in requests
    ]
    found = [""] * len(asks)
    num_refused = 0
    for done, answer in enumerate(answers(paid, asks, config.parallel), start=1):
        num_refused += bool(answer.refused)
        if num_refused == len(asks):
            raise WorkError(f"all {num_refused} requests were refused: {answer.refused}")
        found[answer.number] = answer.texts[0] if answer.texts else ""
        progress(done, len(asks))
    return found


def _reply(judging: Paid, question: str) -> str:
    return judging.texts(Ask(messages=conversation(question), max_tokens=_JUDGE_TOKENS))[0]


def _example(judge: Judge, request: str, answer: str) -> dict[str, str]:
    return {"request": request, "answer": answer, "verdict": judge(request, answer)}
