"""The code in what a chat model says: between marks, in the first fenced block, or all of it."""

from __future__ import annotations

import re

_FENCE = re.compile(
    r"^[ \t]*(?P<mark>```+|~~~+)[^\n]*\n(?P<code>.*?)(?:^[ \t]*(?P=mark)[ \t]*$|\Z)", re.DOTALL | re.MULTILINE
)


def code_of(text: str, *, begin: str = "", end: str = "") -> str:
    """The code of an answer.

    Args:
        text: the answer.
        begin, end: marks that it was asked to use, such as [PYTHON] and [/PYTHON]; an answer without the last one
            was cut off and goes to its end.
    """
    if begin and begin in text:
        text = text.partition(begin)[2].partition(end)[0]
    elif end:
        text = text.partition(end)[0]
    found = _FENCE.search(text)
    return found["code"] if found else text
