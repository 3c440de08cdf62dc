"""Judges of texts: is an answer true, is it informative, does it decline, is a sentence toxic?

The judges of the papers are models whose weights many machines cannot have, so a judge is named by the user:

    --judge truth=./judge-7b                  a checkpoint that Midspan opens, asked as GPT-judge was: P(" yes")
    --judge toxicity=my_module:probability    a function of the user's: texts → numbers from 0 to 1
    --judge toxicity=baseline                 trained here (see `baseline.py`); not comparable with papers
    --judge refusal=baseline                  rules (see `tasks/red_team.py`)

A judge's identity is part of every result.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from midspan.engine import Engine
from midspan.errors import InputError
from midspan.evaluate.baseline import baseline_for
from midspan.evaluate.data import Data
from midspan.evaluate.tasks.red_team import Rules

Judge = Callable[[Sequence[str]], list[float]]
"""Texts → how much each is what it judges, 0 to 1."""
KNOWN = {
    "truth": "whether an answer is true",
    "info": "whether an answer says anything",
    "refusal": "whether an answer declines what was asked",
    "toxicity": "whether a text is toxic",
}


def open_judges(wanted: Collection[str], named: Mapping[str, str], data: Data) -> dict[str, Judge]:
    """The judges that tasks ask; the baseline where the user names none.

    Raises:
        InputError: a judge is not known, or cannot be opened.
    """
    for name in named:
        if name not in KNOWN:
            raise InputError(f"--judge names {name!r}; the judges are {', '.join(KNOWN)}")
    found: dict[str, Judge] = {}
    for name in sorted(wanted):
        what = named.get(name, "baseline")
        if what == "baseline" and name == "refusal":
            found[name] = Rules()
        elif what == "baseline":
            found[name] = baseline_for(name, data)
        elif ":" in what and not what.startswith((".", "/", "~")):
            found[name] = Plugged(what)
        else:
            found[name] = ModelJudge(what)
    return found


def parse_judges(words: Iterable[str]) -> dict[str, str]:
    """NAME=WHAT of the command line."""
    found = {}
    for word in words:
        name, equals, what = word.partition("=")
        if not equals or not name or not what:
            raise InputError(f"--judge is {word!r}; write NAME=WHAT, such as truth=./judge or toxicity=baseline")
        found[name] = what
    return found


class Plugged:
    """A function of the user's."""

    def __init__(self, what: str) -> None:
        module, _, name = what.partition(":")
        try:
            self._judge: Callable[[Sequence[str]], Sequence[Any]] = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise InputError(f"--judge {what!r} cannot be imported ({error}); write MODULE:FUNCTION") from error
        self.identity = f"function {what}"

    def __call__(self, texts: Sequence[str]) -> list[float]:
        """The function's numbers."""
        found = [float(number) for number in self._judge(list(texts))]
        if len(found) != len(texts) or not all(0 <= number <= 1 for number in found):
            raise InputError(f"{self.identity} must give a number from 0 to 1 for each of {len(texts)} texts")
        return found


class ModelJudge:
    """A checkpoint fine-tuned to end a text with " yes" or " no"."""

    def __init__(self, name: str) -> None:
        self._engine = Engine.load(name)
        tokenizer = self._engine.tokenizer
        self._yes, self._no = (tokenizer.encode(word, leading_space=False)[0] for word in (" yes", " no"))
        self.identity = f"model {name}, probability of ' yes'"

    def __call__(self, texts: Sequence[str]) -> list[float]:
        """P(yes) of P(yes) and P(no), for each text."""
        found = []
        for text in texts:
            done = self._engine.complete(
                text,
                max_tokens=1,
                heal=False,
                num_logprobs=self._engine.tokenizer.vocab_size,
            )
            top = dict((done.logprobs or [])[0].top) if done.logprobs else {}
            yes, no = (math.exp(top.get(i, -math.inf)) for i in (self._yes, self._no))
            found.append(yes / (yes + no) if yes + no > 0 else 0.0)
        return found
