"""Where a function ends in a language of braces: a model that goes on is cut behind the brace that closes it."""

from __future__ import annotations

import re

_PARTS = re.compile(
    r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`|[{}]""", re.DOTALL
)
_HELPER = re.compile(r"\s*(?:(?:pub |async )?(?:fn|func|function|const)|public|private|protected|static)\b")


def until_closed(text: str) -> str:
    """A text that begins inside a function's braces, to the brace that closes them; all of it where none does.

    Helper functions that follow at once are kept. Braces in comments, in strings and in characters do not count;
    those in a regular expression of JavaScript's do.
    """
    depth = 1
    for part in _PARTS.finditer(text):
        depth += {"{": 1, "}": -1}.get(part[0], 0)
        if part[0] == "}" and depth == 0 and _HELPER.match(text, part.end()) is None:
            return text[: part.end()]
    return text
