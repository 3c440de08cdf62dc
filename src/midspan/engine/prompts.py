"""What the model is shown of a file: the window around the cursor, its layout, and the healed end.

A keystroke should cost the tokens that it adds. So whatever is laid down first has to stay as it is while someone
types: in Code Llama's SPM the suffix comes first, and typing appends to the prefix behind it. Windows over a long
file move in steps for the same reason. The prefix begins at a place that stays until a step more has been written,
not one line further for each line:

    file      aaaaaaaa bbbbbbbb cccccccc dddddddd ddd|
    budget                  └─────── 24 tokens ──────┘
    shown              bbbbbbbb cccccccc dddddddd ddd|       the start moves by eight tokens, now and then

`auto` takes the layout of which least has to be read, given what is cached; of equal ones SPM.

Where texts are too long together, the end of the prefix and the beginning of the suffix are shown, three quarters
of the room to one; what one does not need the other gets. Texts are cut before they are encoded and sentinels
stand between encoded parts, so no cut ever loses one.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from midspan.errors import InputError
from midspan.fim import FimFormat, Healer, Layout, infill_prompt
from midspan.tokenizer import Tokenizer

AnyLayout = Layout | Literal["auto"]
STEPS = 8
"""A window moves by this share of its budget."""
_CHARACTERS = 8
"""More than this many characters a token are not encoded only to be cut away."""
_HALF = 512
"""Characters by which the border moves at which a long text is encoded in two."""
_REMEMBERED = 32
"""Texts whose ids are kept: the suffix and the lines above are the same from key to key."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """An infilling prompt."""

    ids: list[int]
    owed: bytes
    """What the text has to begin with (see `fim.heal`)."""
    layout: Layout
    prefix: str
    """The part of the prefix that is shown, without context."""
    suffix: str


class Remembering:
    """A tokenizer's encoder that knows the texts of the last keystrokes; safe between threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: dict[tuple[str, bool], list[int]] = {}
        self._lock = threading.Lock()
        self._splits = True
        """Whether the vocabulary's words end where lines do."""

    def encode(self, text: str, *, leading_space: bool = True) -> list[int]:
        """See `Tokenizer.encode`.

        A long text is encoded in two halves at the end of a line, the first of which stays for many keystrokes.
        Each new first half has to prove itself: together with the second it must give the ids of the whole.
        """
        at = _border(text)
        if at == 0 or not self._splits:
            return self._encoded(text, leading_space)
        first, second = text[:at], text[at:]
        known = (first, leading_space) in self._ids
        ids = self._encoded(first, leading_space) + self._encoded(second, False)
        if not known and ids != (whole := self._encoded(text, leading_space)):
            self._splits = False
            return whole
        return ids

    def _encoded(self, text: str, leading_space: bool) -> list[int]:
        key = (text, leading_space)
        with self._lock:
            found = self._ids.pop(key, None)
        if found is None:
            found = self._tokenizer.encode(text, leading_space=leading_space)
        with self._lock:
            self._ids[key] = found
            while len(self._ids) > _REMEMBERED:
                del self._ids[next(iter(self._ids))]
        return list(found)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def _border(text: str) -> int:
    """Where to encode a long text in two; 0 where nowhere.

    Words end between a letter and the line's end behind it, and behind a line's end between visible characters.
    """
    at = text.rfind("\n", 0, max(0, (len(text) - _HALF // 4) // _HALF * _HALF))
    while at > 0:
        if text[at - 1].isalnum():
            return at
        if not text[at - 1].isspace() and not text[at + 1].isspace():
            return at + 1
        at = text.rfind("\n", 0, at)
    return 0


def infilling(
    tokenizer: Tokenizer,
    fim: FimFormat,
    healer: Healer | None,
    prefix: str,
    suffix: str,
    *,
    layout: AnyLayout,
    limit: int,
    context: str = "",
    match: Callable[[Sequence[int]], int] = lambda _: 0,
) -> Prompt:
    """A prompt of at most `limit` tokens.

    Args:
        tokenizer: the model's.
        fim: its sentinels.
        healer: mends the end; None leaves it as it is.
        prefix: the text before the hole.
        suffix: the text behind it.
        layout: the order of the parts.
        limit: tokens in all.
        context: shown in front of the prefix, if there is room beside the file itself.
        match: how many tokens of a prompt are cached.

    Raises:
        InputError: the family has no such layout, or the limit leaves no room.
    """
    if layout != "auto":
        return _one(tokenizer, fim, healer, prefix, suffix, layout, limit, context)
    best: tuple[int, Prompt] | None = None
    for each in sorted(fim.layouts, key=("spm", "psm", "line").index):
        prompt = _one(tokenizer, fim, healer, prefix, suffix, each, limit, context)
        cost = len(prompt.ids) - match(prompt.ids)
        if best is None or cost < best[0]:
            best = cost, prompt
    assert best is not None, "every family has a layout"
    return best[1]


def _one(
    tokenizer: Tokenizer,
    fim: FimFormat,
    healer: Healer | None,
    prefix: str,
    suffix: str,
    layout: Layout,
    limit: int,
    context: str,
) -> Prompt:
    room = limit - len(fim.assemble(layout, (), ()))
    if room < 1:
        raise InputError(
            f"a prompt of {limit} tokens has no room beside its sentinels; allow a longer prompt or ask for fewer "
            "new tokens"
        )
    context_ids = tokenizer.encode(context)
    if len(context_ids) > room // 2:
        context, context_ids = "", []  # never half a context: it would move with every keystroke
    budget = room - len(context_ids)
    while True:
        shown_prefix, shown_suffix = windows(tokenizer, prefix, suffix, budget)
        ids = infill_prompt(tokenizer, fim, context + shown_prefix, shown_suffix, layout)
        if len(ids) <= limit:
            break
        if budget == 0:
            context, budget = "", room
        budget = max(0, budget - (len(ids) - limit))  # borders may need other, more tokens than were counted
    owed = b""
    if healer is not None:
        ids, owed = healer.take_back(ids)
    return Prompt(ids, owed, layout, shown_prefix, shown_suffix)


def windows(tokenizer: Tokenizer, prefix: str, suffix: str, budget: int) -> tuple[str, str]:
    """The end of the prefix and the start of the suffix that are about `budget` tokens together, and not more."""
    step = max(1, budget // STEPS)
    near_prefix, near_suffix = _near_end(prefix, budget), suffix[: _CHARACTERS * budget]
    num_prefix = len(tokenizer.encode(near_prefix))
    num_suffix = len(tokenizer.encode(near_suffix, leading_space=False))
    whole = near_prefix == prefix and near_suffix == suffix
    if whole and num_prefix + num_suffix <= budget:
        return prefix, suffix
    # The prefix grows while someone types; what it needs is counted in steps, so that the suffix stays.
    needed = step * math.ceil(num_prefix / step)
    of_suffix = min(num_suffix, max(budget // 4, budget - needed))
    shown_suffix = _beginning(tokenizer, near_suffix, of_suffix)
    of_suffix = len(tokenizer.encode(shown_suffix, leading_space=False))
    return _end(tokenizer, near_prefix, budget - of_suffix, step), shown_suffix


def _near_end(text: str, budget: int) -> str:
    """The end of a text, more than the budget will show; its start stays for many keystrokes."""
    length = _CHARACTERS * max(budget, 1)
    step = max(1, length // 4)
    start = max(0, len(text) - length) // step * step
    return text[_line_start(text, start, step) :]


def _line_start(text: str, start: int, within: int) -> int:
    """The first beginning of a line at `start` or behind it, if it is near."""
    if start == 0:
        return 0
    newline = text.find("\n", start - 1, start + within)
    return newline + 1 if newline >= 0 else start


def _end(tokenizer: Tokenizer, text: str, budget: int, step: int) -> str:
    """The end of a text in at most `budget` tokens, from a start that moves in steps."""
    ids = tokenizer.encode(text)
    if len(ids) <= budget:
        return text
    dropped = step * math.ceil((len(ids) - budget) / step)
    while dropped < len(ids):
        gone = tokenizer.decode_bytes(ids[:dropped], leading_space=True).decode("utf-8", errors="ignore")
        start = _line_start(text, len(gone), 2 * step)  # a line's beginning, unless it is further than half a step
        if len(tokenizer.encode(text[start:])) <= budget:
            return text[start:]
        dropped += max(1, step // 2)
    return _longest_end(tokenizer, text, budget)


def _longest_end(tokenizer: Tokenizer, text: str, budget: int) -> str:
    """As much of the end as fits, character by character: for budgets smaller than a step."""
    ids = tokenizer.encode(text)
    for start in range(max(0, len(ids) - budget), len(ids) + 1):
        end = tokenizer.decode_bytes(ids[start:]).decode("utf-8", errors="ignore")
        if len(tokenizer.encode(end)) <= budget:
            return end
    return ""


def _beginning(tokenizer: Tokenizer, text: str, budget: int) -> str:
    """The beginning of a text in at most `budget` tokens."""
    ids = tokenizer.encode(text, leading_space=False)
    if len(ids) <= budget:
        return text
    for end in range(budget, 0, -1):
        shown = tokenizer.decode_bytes(ids[:end]).decode("utf-8", errors="ignore")
        if len(tokenizer.encode(shown, leading_space=False)) <= budget:
            return shown
    return ""
