"""What a model should know of other files: those that this one imports first, then windows that are alike.

    # path: shop/prices.py          imported: its beginning, where its names are
    ...
    # path: shop/basket.py          open beside it: the lines that share most words with those round the cursor
    ...

Alike is Jaccard's: words that both have over words that either has, as Copilot's clients and others do. Everything
is cut to a budget of characters, whole lines only. It stands in front of the prefix, each piece under its path in
a comment, as repository documents have it in training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from midspan.corpus.imports import dependencies
from midspan.corpus.language import language_of
from midspan.corpus.repository import path_header

WINDOW, STRIDE = 60, 20
"""Lines of a window, and from one to the next."""
LEAST_ALIKE = 0.1
"""Windows that share less say nothing about the place of the cursor."""
_WORD = re.compile(r"[^\W\d]\w{2,}")


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of another file."""

    path: str
    text: str
    """Whole lines."""


def pieces(path: str, text: str, cursor: int, files: Mapping[str, str], budget: int) -> list[Piece]:
    """What to show of other files, the most useful first.

    Args:
        path: of the file that is edited.
        text: its text.
        cursor: a place in it, in characters.
        files: path → text of the other files.
        budget: characters in all, without paths.
    """
    others = {name: other for name, other in files.items() if name != path and other.strip()}
    if not others or budget <= 0:
        return []
    named = {name: (language_of(name), other) for name, other in {**others, path: text}.items()}
    imported = dependencies(named)[path]
    found: list[Piece] = []
    for name in imported:
        # Several imports share the budget, so that the first does not take it all.
        share = min(budget, max(budget // 2, budget // len(imported)))
        if piece := _beginning(others[name], share):
            found.append(Piece(name, piece))
            budget -= len(piece)
    around = _words(_around(text, cursor))
    windows = sorted(
        (-_alike(around, _words(window)), name, window)
        for name, other in others.items()
        if name not in imported
        for window in _windows(other)
    )
    taken: set[str] = set()
    for alike, name, window in windows:
        if -alike < LEAST_ALIKE or budget <= 0:
            break
        if name not in taken and (piece := _beginning(window, budget)):
            found.append(Piece(name, piece))
            taken.add(name)
            budget -= len(piece)
    return found


def written(found: list[Piece]) -> str:
    """Pieces as the model sees them, the most useful one last: it stands nearest to the cursor."""
    return "".join(path_header(piece.path, language_of(piece.path)) + piece.text for piece in found[::-1])


def _beginning(text: str, budget: int) -> str:
    """As many whole lines as fit."""
    if len(text) <= budget:
        return text if text.endswith("\n") else text + "\n"
    return text[: text.rfind("\n", 0, budget) + 1]


def _around(text: str, cursor: int) -> str:
    """The window of lines round a place."""
    above, below = text[:cursor].split("\n"), text[cursor:].split("\n")
    return "\n".join([*above[-WINDOW * 2 // 3 :], *below[: WINDOW // 3]])


def _windows(text: str) -> list[str]:
    lines = text.splitlines(keepends=True)
    starts = range(0, max(1, len(lines) - WINDOW + STRIDE), STRIDE)
    return ["".join(lines[start : start + WINDOW]) for start in starts]


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text))


def _alike(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / max(1, len(a | b))
