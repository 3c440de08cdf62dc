"""A file as the editor has it now, told to a session as one edit."""

from __future__ import annotations

from midspan.engine.session import Session


def change(session: Session, text: str, cursor: int) -> None:
    """Bring a session to a text and a cursor, by the smallest edit that does it.

    Several edits since the last suggestion become one; the session then sees what was typed, as it has to for the
    rest of a suggestion to stand.
    """
    if session.text != text:
        start, end, new = smallest_edit(session.text, text)
        # Of several places that the same insertion could have, the one in front of the cursor is the typed one.
        while start == end > 0 and start + len(new) > cursor and text[start - 1] == new[-1]:
            start, end, new = start - 1, end - 1, text[start - 1] + new[:-1]
        session.edit(start, end, new)
    if session.cursor != cursor:
        session.move(cursor)


def _common(first: str, second: str) -> int:
    """Length of the beginning that two texts share; by halving, since slices compare fast."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def smallest_edit(before: str, after: str) -> tuple[int, int, str]:
    """Start and end in the first text, and what stands there in the second."""
    start = _common(before, after)
    behind = _common(before[start:][::-1], after[start:][::-1])
    return start, len(before) - behind, after[start : len(after) - behind]
