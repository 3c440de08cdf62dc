"""Finding one function in a long file: the paper's key retrieval (section 3.3, appendix E, Tables 17 and 18).

    def one_of_many(...): ...
    ...
    def my_function() -> int:                                           at a share of the filler's length
        \"\"\"Note that this function is used at the end.\"\"\"
        return 73
    ...
    def another(...): ...
    assert my_function() ==                                             the model goes on: 73

The filler is real Python. The function goes between two top-level statements, so the prompt stays code that could
run. Its name occurs nowhere else in the prompt, and neither does the number where there is one that does not.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from midspan.errors import InputError
from midspan.fim import Draws
from midspan.fim.example import bos_of
from midspan.tokenizer import Tokenizer

NAME = "my_function"
_KEY = f'''def {NAME}() -> int:
    """Note that this function is used at the end."""
    return {{answer}}


'''
_TAIL = f"\n\nassert {NAME}() =="
MAX_NEW = 8
"""Tokens that an answer may take: a blank, and digits one by one."""


@dataclass(frozen=True, kw_only=True)
class KeyRetrievalConfig:
    """How much is asked."""

    lengths: tuple[int, ...] = (4096, 8192, 16384, 24576)
    """Tokens of a prompt."""
    places: tuple[float, ...] = (0.0, 0.2, 0.4)
    """Where the function stands: 0 is at the start of the prompt, 1 at its end."""
    num_prompts: int = 64
    """Prompts of each length and place."""
    seed: int = 0

    def __post_init__(self) -> None:
        for place in self.places:
            if not 0 <= place <= 1:
                raise InputError(f"the function cannot stand at {place}; a place lies between 0 and 1")
        if self.num_prompts < 1:
            raise InputError(f"num_prompts is {self.num_prompts}; it must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One prompt."""

    length: int
    place: float
    ids: list[int]
    """At most `length` token ids."""
    answer: str


@dataclass(frozen=True)
class Filler:
    """What prompts are filled with: top-level statements, and how many tokens each has."""

    pieces: list[str]
    sizes: list[int]

    @staticmethod
    def of(texts: Iterable[str], tokenizer: Tokenizer) -> Filler:
        """The statements of Python files; files that this Python cannot parse give none."""
        pieces = [piece for text in texts for piece in top_level_pieces(text) if NAME not in piece]
        return Filler(pieces, [len(tokenizer.encode(piece)) for piece in pieces])


def questions(filler: Filler, tokenizer: Tokenizer, config: KeyRetrievalConfig) -> list[Question]:
    """Every prompt of the task; the same for the same filler, vocabulary and settings.

    Raises:
        InputError: the filler is too short for the longest prompt, or a length is too short for the function.
    """
    found = []
    for length in config.lengths:
        for number in range(config.num_prompts):
            draws = Draws(config.seed, length, number)
            chosen, used = _stretch(filler, draws, length)
            for place in config.places:
                found.append(_question(tokenizer, chosen, used, length, place, draws))
    return found


def _stretch(filler: Filler, draws: Draws, length: int) -> tuple[list[str], list[int]]:
    """Neighbouring pieces from a drawn one on, that leave room for the function and the question."""
    pieces, sizes = filler.pieces, filler.sizes
    room = length - 64
    if room < 1:
        raise InputError(f"a prompt of {length} tokens has no room for the function; ask for 128 or more")
    if sum(sizes) < room:
        raise InputError(
            f"the files have {sum(sizes)} tokens of Python, too few for a prompt of {length}; give more files or "
            "ask for shorter prompts"
        )
    at = draws.below(len(pieces))
    chosen: list[str] = []
    used: list[int] = []
    for step in range(len(pieces)):
        index = (at + step) % len(pieces)
        if sizes[index] > room:
            continue  # too long for what is left: a shorter one may still fit
        chosen.append(pieces[index])
        used.append(sizes[index])
        room -= sizes[index]
        if room < 16:
            break
    return chosen, used


def _question(
    tokenizer: Tokenizer, pieces: Sequence[str], sizes: Sequence[int], length: int, place: float, draws: Draws
) -> Question:
    pieces = list(pieces)
    while True:
        text = "".join(pieces)
        taken = set(re.findall(r"\d+", text))
        free = [str(n) for n in range(10, 100) if str(n) not in taken] or [str(n) for n in range(10, 100)]
        answer = free[draws.below(len(free))]
        key = _KEY.format(answer=answer)
        borders = [0, *accumulate(sizes[: len(pieces)])]
        index = min(range(len(borders)), key=lambda n: abs(borders[n] - place * borders[-1]))
        whole = "".join((*pieces[:index], key, *pieces[index:])).rstrip() + _TAIL
        ids = bos_of(tokenizer) + tokenizer.encode(whole)
        if len(ids) <= length or not pieces:
            return Question(length=length, place=place, ids=ids, answer=answer)
        pieces.pop()  # borders between pieces may cost tokens


def top_level_pieces(text: str) -> list[str]:
    """A file cut before its top-level statements; what stands before the first goes with it.

    Nothing for a file that this Python cannot parse.
    """
    try:
        with warnings.catch_warnings(action="ignore", category=SyntaxWarning):
            body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    lines = text.split("\n")  # as Python counts them
    firsts = [min(d.lineno for d in (*getattr(node, "decorator_list", ()), node)) for node in body]
    cuts = sorted({0, *(first - 1 for first in firsts[1:]), len(lines)})
    return ["\n".join(lines[start:end]) + "\n" for start, end in pairwise(cuts)]


def is_right(written: str, answer: str) -> bool:
    """Whether the first thing written is the number itself, and no longer number."""
    found = re.match(r"\s*(\d+)", written)
    return found is not None and found[1] == answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """The share of right answers at one length and place."""

    length: int
    place: float
    right: int
    num_prompts: int


def key_retrieval(asked: Sequence[Question], answer_all: Callable[[list[list[int]]], Sequence[str]]) -> list[Cell]:
    """Put questions to a model.

    Args:
        asked: from `questions`.
        answer_all: greedy completions of prompts, of MAX_NEW tokens.
    """
    written = answer_all([question.ids for question in asked])
    counts: dict[tuple[int, float], list[bool]] = {}
    for question, text in zip(asked, written, strict=True):
        counts.setdefault((question.length, question.place), []).append(is_right(text, question.answer))
    return [
        Cell(length=length, place=place, right=sum(right), num_prompts=len(right))
        for (length, place), right in counts.items()
    ]
