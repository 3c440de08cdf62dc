"""Where a document is cut into prefix, middle and suffix: at characters, by draws that are a pure function.

Nothing here keeps a random state. Philox is a counter-based generator: the numbers for a document are computed
from (seed, epoch, document) alone, a document's number being a hash of its source, path and text. So they are
the same whatever the order, the number of workers or the place where a run was interrupted, and differ from one
epoch to the next.

The paper draws both cuts uniformly over the characters of the document (section 2.3, after Bavarian et al.
2022). `spans` other than `uniform` go beyond it, for short runs whose purpose is the completion of lines:

    uniform   two positions anywhere             d|ef f(x):\\n    retu|rn x
    line      from inside a line to its end      def f(x):\\n    re|turn x|
    lines     one to four lines, whole or        def f(x):\\n|    return x\\n|
              without their outer space          def f(x):\\n    |return x|\\n
    short     at most SHORT_SPAN characters      def f(x)|:\\n    re|turn x
    tree      a node of the syntax tree          def f(x):\\n    |return x|      or `line`, without a grammar
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from midspan.fim.trees import tree_span

SPANS = ("uniform", "line", "lines", "short", "tree")
MOST_LINES = 4
SHORT_SPAN = 64
_WORD = 2**64 - 1
_PHILOX_FACTORS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_PHILOX_KEYS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)


@dataclass(frozen=True, slots=True)
class Split:
    """A document in three parts; their concatenation is the document."""

    prefix: str
    middle: str
    suffix: str


class Draws:
    """The random numbers of one document, or of a piece of it, in order: words of Philox as what is asked for."""

    def __init__(self, seed: int, epoch: int, document: int, piece: int = 0) -> None:
        # Counter word 0 is the one that Philox advances from draw to draw; the others name the document.
        # As uint64 by name: NumPy makes float64 of a list with a number of 2^63 or more, and loses its last bits.
        key = np.array([seed, 0], dtype=np.uint64)
        self._words = np.random.Philox(key=key, counter=np.array([0, epoch, document, piece], dtype=np.uint64))

    def unit(self) -> float:
        """A number in [0, 1) with 53 random bits."""
        return (int(self._words.random_raw()) >> 11) * 2.0**-53

    def below(self, bound: int) -> int:
        """An integer in 0 ... bound - 1, by multiply and shift (bias below bound / 2^64)."""
        return (int(self._words.random_raw()) * bound) >> 64


def first_words(seed: int, epoch: int, documents: np.ndarray, pieces: np.ndarray, count: int) -> np.ndarray:
    """The first words that `Draws` gives for many documents at once, (count, documents) uint64.

    Philox4x64-10 from its paper (Salmon et al. 2011), one block of four words after the other.
    """
    words = []
    for block in range(1, math.ceil(count / 4) + 1):
        c0, c1 = np.full(len(documents), block, np.uint64), np.full(len(documents), epoch, np.uint64)
        c2, c3 = documents.astype(np.uint64), pieces.astype(np.uint64)
        k0, k1 = np.uint64(seed), np.uint64(0)
        for _ in range(10):
            high0, low0 = _product(c0, _PHILOX_FACTORS[0])
            high2, low2 = _product(c2, _PHILOX_FACTORS[1])
            c0, c1, c2, c3 = high2 ^ c1 ^ k0, low2, high0 ^ c3 ^ k1, low0
            k0, k1 = (np.uint64(int(key) + step & _WORD) for key, step in zip((k0, k1), _PHILOX_KEYS, strict=True))
        words += [c0, c1, c2, c3]
    return np.stack(words[:count])


def _product(words: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower 64 bits of the products of 64-bit words."""
    low, high = np.uint64(factor & 0xFFFFFFFF), np.uint64(factor >> 32)
    words_low, words_high = words & np.uint64(0xFFFFFFFF), words >> np.uint64(32)
    carried = (words_low * low >> np.uint64(32)) + words_high * low
    middle = words_low * high + (carried & np.uint64(0xFFFFFFFF))
    return words_high * high + (carried >> np.uint64(32)) + (middle >> np.uint64(32)), words * np.uint64(factor)


def split(text: str, draws: Draws, spans: Mapping[str, float], language: str = "") -> Split:
    """Cut a document at two characters; `spans` gives the share of each way of choosing them."""
    kind = choose(spans, draws.unit())
    if kind == "uniform":
        start, end = sorted((draws.below(len(text) + 1), draws.below(len(text) + 1)))
    elif kind == "lines":
        start, end = _lines(text, draws)
    elif kind == "short":
        start = draws.below(len(text) + 1)
        end = min(len(text), start + 1 + draws.below(SHORT_SPAN))
    else:
        start, end = (tree_span(text, language, draws) if kind == "tree" else None) or _line(text, draws)
    return Split(text[:start], text[start:end], text[end:])


def choose(spans: Mapping[str, float], point: float) -> str:
    """The kind of span that a number in [0, 1) draws."""
    kinds = [kind for kind in SPANS if spans.get(kind, 0.0) > 0]  # in an order of ours: tables have none
    point *= sum(spans[kind] for kind in kinds)
    for kind in kinds:
        point -= spans[kind]
        if point < 0:
            return kind
    return kinds[-1]  # shares that round to less than their sum


def _line(text: str, draws: Draws) -> tuple[int, int]:
    """From the beginning of a line's code (half the time) or from inside it to the line's end."""
    start, end = _line_with_code(text, draws)
    code = end - len(text[start:end].lstrip())
    inside = code + draws.below(max(end - code, 1))
    return (code if draws.unit() < 0.5 else inside), end


def _lines(text: str, draws: Draws) -> tuple[int, int]:
    """Lines of which the first is not blank: whole with their newlines, or from code to code (half the time)."""
    start, end = _line_with_code(text, draws)
    for _ in range(draws.below(MOST_LINES)):
        following = text.find("\n", end + 1)
        end = following if following >= 0 else end
    if draws.unit() < 0.5:
        return start, min(end + 1, len(text))
    start = end - len(text[start:end].lstrip())
    return start, start + len(text[start:end].rstrip())


def _line_with_code(text: str, draws: Draws) -> tuple[int, int]:
    """The beginning and end (newline excluded) of a line that is not blank, drawn by its characters."""
    for _ in range(8):  # a blank line has nothing to infill: look elsewhere, but not for ever
        position = draws.below(len(text) + 1)
        start = text.rfind("\n", 0, position) + 1
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        if text[start:end].strip():
            break
    return start, end
