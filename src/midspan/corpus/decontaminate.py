"""Which benchmark items a text holds: copied, reformatted, or with its names changed.

    text ─┬─ letters and digits ─▶ index ─▶ parts  ─┬─ the bytes are equal too ──▶ verbatim
          │                                         └─ only the letters are ─────▶ whitespace
          └─ code tokens ────────▶ index ─▶ parts of code ───────────────────────▶ renamed

*Letters*: everything but letters and digits is dropped and case ignored, so indentation, wraps, quotes, comment
marks, trailing commas and the escapes of JSON make no difference; what contains a part contains its letters, so
this net alone would find every verbatim copy. *Tokens*: see `code_tokens.py`.

A part must say enough to be no accident. Parts are found whole, and each counts by its length against a length
that real code was not seen to repeat by chance:

    question   letters / 25; below 60 letters it must be followed by the end of a sentence or a line, so that
               "swap two numbers" is not found in "swap two numbers using pointers"
    code       letters / 40, or weight of tokens / 40 (one a token, three for a literal or an attribute)

An item is a hit when its question, solution and tests together count 1: `return string.swapcase()` is 20/40, no
evidence alone and enough beside a short docstring. In 1.4 GB of code that does not stem from the benchmarks there
are solutions of up to 31 letters (`def average(lst): return sum(lst) / len(lst)`) and of a weight of up to 38.

Left out on purpose: overlap of n-grams, which flags what texts of one trade have in common and misses items
shorter than n; copies edited beyond layout and names; changed names inside of strings, as in notebooks.
"""

from __future__ import annotations

import json
import pickle
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import xxhash
from numba import njit
from numpy.typing import NDArray

from midspan.corpus.code_tokens import code_tokens, token_weight
from midspan.corpus.part_index import NO_DISTANCES, Distances, PartIndex, Values
from midspan.corpus.reference_items import Item, Part, load_items

__all__ = ["Decontaminator", "Hit", "Item", "Part", "load_items"]

DECONTAMINATE_VERSION = 1
"""Names the nets and the thresholds; part of an index's fingerprint."""

ENOUGH_QUESTION_LETTERS = 25
ENOUGH_CODE_LETTERS = 40
ENOUGH_CODE_WEIGHT = 40
SENTENCE_LETTERS = 60
"""A question shorter than this must end where the text ends a sentence or a line."""
LETTERS_WINDOW = 16
TOKENS_WINDOW = 10

How = Literal["verbatim", "whitespace", "renamed"]
_HOW: tuple[How, ...] = ("verbatim", "whitespace", "renamed")
_KINDS = ("question", "solution", "tests")
_QUESTION = _KINDS.index("question")

_LETTER = np.zeros(256, np.uint8)
for _code in range(256):
    _LETTER[_code] = ord(chr(_code).lower()) if _code < 128 and chr(_code).isalnum() else _code * (_code >= 128)
_BACKSLASH = ord("\\")
_ESCAPED_LAYOUT = tuple(b"nrt")
_ESCAPED_CODE = ord("u")
_HEX = np.array([chr(code) in "0123456789abcdefABCDEF" for code in range(256)])

_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_NOT_WORD = re.compile(r"[\W_]")
_GOES_ON = re.compile(rb"[ \t]*[0-9A-Za-z\x80-\xff]")


@dataclass(frozen=True, slots=True)
class Hit:
    """An item that a text holds, and the strictest net that finds enough of it."""

    benchmark: str
    id: str
    how: How


@njit(cache=True, nogil=True)
def _letters(data: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Letters and digits in lower case, and where each stood. Escapes (`\\n`, `\\t`, `\\u00a0`) are none."""
    out, origins = np.empty(data.size, np.uint8), np.empty(data.size, np.int32)
    count = i = 0
    while i < data.size:
        letter = _LETTER[data[i]]
        out[count], origins[count] = letter, i
        count += 1 if letter != 0 else 0  # no branch: it would be guessed wrong at every space
        if data[i] == _BACKSLASH:
            while i + 1 < data.size and data[i + 1] == _BACKSLASH:
                i += 1
            if i + 1 < data.size and data[i + 1] in _ESCAPED_LAYOUT:
                i += 1
            elif i + 5 < data.size and data[i + 1] == _ESCAPED_CODE and _HEX[data[i + 2 : i + 6]].all():
                i += 5
        i += 1
    return out[:count].copy(), origins[:count].copy()


def _encode(text: str) -> bytes:
    """UTF-8 with `\\n` line ends; a character beyond ASCII that is no letter or digit is a space."""
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    if not text.isascii():
        text = _NOT_ASCII.sub(lambda run: _NOT_WORD.sub(" ", run[0]), text)
    return text.encode("utf-8", "replace")


def _array(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)


@dataclass(frozen=True, slots=True)
class _Owner:
    """What it means that a part was found."""

    item: int
    kind: int
    score: float
    text: bytes = b""
    """A verbatim copy, in lower case."""
    lead: int = 0
    """Bytes of `text` before its first letter."""


@dataclass(frozen=True, slots=True)
class _Net:
    """An index of different parts, and the owners of each."""

    index: PartIndex
    owners: tuple[tuple[_Owner, ...], ...]

    @classmethod
    def build(cls, parts: Iterable[tuple[Values, Distances, _Owner]], width: int) -> _Net:
        """The net over all parts that have `width` values; those that are equal become one."""
        owners: dict[tuple[bytes, bytes], dict[_Owner, None]] = defaultdict(dict)
        forms: dict[tuple[bytes, bytes], tuple[Values, Distances]] = {}
        for values, distances, owner in parts:
            if values.size >= width:
                key = values.tobytes(), distances.tobytes()
                forms[key] = values, distances
                owners[key][owner] = None
        index, order = PartIndex.build(list(forms.values()), width)
        by_form = list(owners.values())
        return cls(index, tuple(tuple(by_form[number]) for number in order))


def _letter_parts(items: Sequence[Item]) -> Iterator[tuple[Values, Distances, _Owner]]:
    for number, item in enumerate(items):
        for part in item.parts:
            data = _encode(part.text)
            letters, origins = _letters(_array(data))
            if letters.size:
                enough = ENOUGH_QUESTION_LETTERS if part.kind == "question" else ENOUGH_CODE_LETTERS
                kind, score = _KINDS.index(part.kind), letters.size / enough
                yield letters, NO_DISTANCES, _Owner(number, kind, score, data.lower(), int(origins[0]))


def _code_parts(items: Sequence[Item]) -> Iterator[tuple[Values, Distances, _Owner]]:
    for number, item in enumerate(items):
        for part in item.parts:
            if part.kind != "question":
                tokens, distances = code_tokens(_array(_encode(part.text)), part.language)
                score = token_weight(tokens, part.language) / ENOUGH_CODE_WEIGHT
                yield tokens, distances, _Owner(number, _KINDS.index(part.kind), score)


@dataclass(frozen=True, slots=True)
class Decontaminator:
    """All items of all benchmarks, ready to be looked for. It pickles; to open it takes a third of a second."""

    fingerprint: str
    """Names the items and the rules: indexes with one fingerprint find the same."""
    names: tuple[tuple[str, str], ...]
    """Benchmark and name of every item."""
    _copies: _Net
    _code: _Net

    @classmethod
    def build(cls, items: Iterable[Item]) -> Decontaminator:
        """Index items; hits come in their order."""
        known = tuple(items)
        digest = xxhash.xxh3_128(json.dumps([DECONTAMINATE_VERSION, [astuple(item) for item in known]]).encode())
        return cls(
            fingerprint=digest.hexdigest(),
            names=tuple((item.benchmark, item.id) for item in known),
            _copies=_Net.build(_letter_parts(known), LETTERS_WINDOW),
            _code=_Net.build(_code_parts(known), TOKENS_WINDOW),
        )

    def hits(self, text: str, language: str) -> tuple[Hit, ...]:
        """The items that a text holds.

        `language` (of `midspan.corpus.language`) says for the last net what is a comment and what a keyword; any
        name will do.
        """
        data = _encode(text)
        evidence: dict[int, NDArray[np.float64]] = defaultdict(lambda: np.zeros((len(_HOW), len(_KINDS))))
        letters, origins = _letters(_array(data))
        found = self._copies.index.find(letters)
        lowered = data.lower() if found else b""
        for part, start, stop in found:
            goes_on = stop - start < SENTENCE_LETTERS and _GOES_ON.match(data, int(origins[stop - 1]) + 1)
            for owner in self._copies.owners[part]:
                if not (goes_on and owner.kind == _QUESTION):
                    begin = int(origins[start]) - owner.lead
                    net = 0 if begin >= 0 and lowered.startswith(owner.text, begin) else 1
                    evidence[owner.item][net, owner.kind] = max(evidence[owner.item][net, owner.kind], owner.score)
        for part, _, _ in self._code.index.find(*code_tokens(_array(data), language)):
            for owner in self._code.owners[part]:
                evidence[owner.item][2, owner.kind] = max(evidence[owner.item][2, owner.kind], owner.score)
        hits = []
        for item, scores in sorted(evidence.items()):
            enough = np.maximum.accumulate(scores).sum(axis=1) >= 1  # a net counts what stricter nets found
            if enough.any():
                hits.append(Hit(*self.names[item], _HOW[int(enough.argmax())]))
        return tuple(hits)

    def save(self, path: Path) -> None:
        """Write the index to a file for `open`."""
        path.write_bytes(pickle.dumps(self, pickle.HIGHEST_PROTOCOL))

    @classmethod
    def open(cls, path: Path) -> Decontaminator:
        """Read what `save` wrote. It is a pickle: open only what this user's Midspan saved."""
        index = pickle.loads(path.read_bytes())
        assert isinstance(index, cls)
        return index
