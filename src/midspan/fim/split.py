"""Where a document is cut into prefix, middle and suffix: at characters, by draws that are a pure function.

Nothing here keeps a random state. Philox is a counter-based generator: the numbers for a document are computed
from (seed, epoch, document) alone, a document's number being a hash of its source, path and text. So they are
the same whatever the order, the number of workers or the place where a run was interrupted, and differ from one
epoch to the next.

The paper draws both cuts uniformly over the characters of the document (section 2.3, after Bavarian et al.
2022). `spans` other than `uniform` go beyond it, for short runs whose purpose is the completion of lines:

    uniform   two positions anywhere             d|ef f(x):\\n    retu|rn x
    line      from inside a line to its end      def f(x):\\n    re|turn x|
    short     at most SHORT_SPAN characters      def f(x)|:\\n    re|turn x
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

SPANS = ("uniform", "line", "short")
SHORT_SPAN = 64


@dataclass(frozen=True, slots=True)
class Split:
    """A document in three parts; their concatenation is the document."""

    prefix: str
    middle: str
    suffix: str


class Draws:
    """The random numbers of one document: 64-bit words of Philox, turned into what is asked for, in order."""

    def __init__(self, seed: int, epoch: int, document: int) -> None:
        # Counter word 0 is the one that Philox advances from draw to draw; the others name the document.
        self._words = np.random.Philox(key=[seed, 0], counter=[0, epoch, document, 0])

    def unit(self) -> float:
        """A number in [0, 1) with 53 random bits."""
        return (int(self._words.random_raw()) >> 11) * 2.0**-53

    def below(self, bound: int) -> int:
        """An integer in 0 ... bound - 1, by multiply and shift (bias below bound / 2^64)."""
        return (int(self._words.random_raw()) * bound) >> 64


def split(text: str, draws: Draws, spans: Mapping[str, float]) -> Split:
    """Cut a document at two characters; `spans` gives the share of each way of choosing them."""
    kind = _choose(spans, draws.unit())
    if kind == "uniform":
        start, end = sorted((draws.below(len(text) + 1), draws.below(len(text) + 1)))
    elif kind == "line":
        start, end = _line(text, draws)
    else:
        start = draws.below(len(text) + 1)
        end = min(len(text), start + 1 + draws.below(SHORT_SPAN))
    return Split(text[:start], text[start:end], text[end:])


def _choose(spans: Mapping[str, float], point: float) -> str:
    point *= sum(spans.values())
    for kind, share in spans.items():
        point -= share
        if point < 0:
            return kind
    return list(spans)[-1]


def _line(text: str, draws: Draws) -> tuple[int, int]:
    """From a place in a line that is not blank (its indentation's end or later) to the line's end."""
    position = draws.below(len(text) + 1)
    for _ in range(8):  # a blank line has nothing to infill: look elsewhere, but not for ever
        start = text.rfind("\n", 0, position) + 1
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        code = end - len(text[start:end].lstrip())
        if code < end:
            return (code if draws.unit() < 0.5 else code + draws.below(end - code)), end
        position = draws.below(len(text) + 1)
    return position, position
