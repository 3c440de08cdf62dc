"""Stop rules that look at lines: the suffix again, the block left, too many of them (see `stops.py`)."""

from __future__ import annotations

from typing import Literal

Reason = Literal["string", "suffix", "dedent", "bracket", "repetition", "lines", "trifle"]

MIN_VISIBLE = 8
"""Characters of the suffix that have to be repeated, blanks aside: a lone `return` or `}` proves nothing."""
CLOSERS = {")": "(", "]": "[", "}": "{"}
_CONTINUES = frozenset(
    ("else", "elif", "except", "finally", "catch", "case", "default", "end", "and", "or", "then", "when", "rescue")
)


class Place:
    """Where the hole is, and where a cut before a line of the written text goes."""

    def __init__(self, prefix: str, suffix: str) -> None:
        self.prefix, self.suffix = prefix, suffix
        self.line = prefix.rpartition("\n")[2]
        """The line of the cursor, up to it."""
        self.rest = suffix.partition("\n")[0].rstrip()
        """The line of the cursor, behind it."""
        self.keeps_newline = not self.line and bool(self.rest)
        """The hole begins and ends at the beginning of a line, so its last line needs its newline."""

    def cut_before(self, newline: int) -> int:
        """Where to cut, if the last line that stays ends in the newline at this index (-1: no line stays)."""
        return newline + 1 if newline < 0 or self.keeps_newline else newline


class Suffix:
    """The suffix's first lines, or the rest of the cursor's line, written again.

    In the middle of a line the rest of it has to stand at the end of a written line. Elsewhere a whole line has to
    be the suffix's first one that is not blank, and so on until MIN_VISIBLE characters agree or the suffix ends.
    """

    reason: Reason = "suffix"

    def __init__(self, place: Place) -> None:
        self._place, self._inline = place, bool(place.rest)
        lines = [line.rstrip() for line in place.suffix.split("\n") if line.strip()]
        enough = visible(place.rest) >= 1 and set(place.rest.strip()) - set("()[]{}")
        self._target: list[str] = []
        for line in lines:
            self._target.append(line)
            if (self._inline and enough) or visible("".join(self._target)) >= MIN_VISIBLE:
                break
        self._line_start, self._newline = 0, -1
        self._fresh = not place.line.strip()
        """Whether the current line is a whole one, from its beginning."""
        self._lead = place.line
        self._matched, self._cut = 0, 0
        self.hold: int | None = 0 if self._fresh and not self._inline else None

    def see(self, text: str, index: int) -> int | None:
        line = text[self._line_start : index + (text[index] != "\n")]
        if text[index] == "\n":
            if cut := self._complete(line):
                return cut[0]
            if line.strip() or not self._fresh:
                self._newline = index
            self._line_start, self._fresh, self._lead = index + 1, True, ""
            line = ""
        self.hold = self._held(line)
        return None

    def end(self, text: str) -> int | None:
        cut = self._complete(text[self._line_start :])
        return cut[0] if cut else None

    def _complete(self, line: str) -> list[int]:
        """Take in a whole line; where to cut, if the target is complete."""
        if not line.strip():
            return []
        whole = (self._lead if self._fresh else "") + line.rstrip()
        if self._matched and whole == self._target[self._matched]:
            self._matched += 1
        else:
            self._matched = 0
            first = self._target[0]
            if self._inline and line.rstrip().endswith(first):
                self._matched, self._cut = 1, self._line_start + len(line.rstrip()) - len(first)
            elif not self._inline and self._fresh and whole == first:
                self._matched, self._cut = 1, self._place.cut_before(self._newline)
        return [self._cut] if self._matched == len(self._target) else []

    def _held(self, line: str) -> int | None:
        whole = (self._lead if self._fresh else "") + line
        if self._matched and _may_become(whole, self._target[self._matched]):
            return self._cut
        first = self._target[0]
        if not self._inline:
            may = self._fresh and _may_become(whole, first)
            return self._place.cut_before(self._newline) if may else None
        if line.rstrip().endswith(first):
            return self._line_start + len(line.rstrip()) - len(first)
        for start in range(max(0, len(line) - len(first)), len(line)):
            if first.startswith(line[start:]):
                return self._line_start + start
        return None


class Dedent:
    """A line that lies further left than the block that is being written.

    That block is the cursor's own, or the one that the cursor's line opens: then a line at the level of the
    cursor's ends it, unless it belongs to it (`else`, a closing bracket). One line of closing brackets further
    left is kept where the suffix does not have it.
    """

    reason: Reason = "dedent"

    def __init__(self, place: Place) -> None:
        self._place = place
        self._base = _indent(place.line) if place.line.strip() else None
        """Columns; None until a first line tells."""
        self._below: bool | None = None if place.line.strip() else False
        """Whether the cursor's line opened a block."""
        following = next((line.strip() for line in place.suffix.split("\n") if line.strip()), "")
        self._suffix_closer = following[:1]
        self._line_start, self._newline, self._first = 0, -1, True
        self._judged = False
        self.hold: int | None = None

    def see(self, text: str, index: int) -> int | None:
        ends = text[index] == "\n"
        line = text[self._line_start : index + (not ends)]
        if line.strip() and not self._judged:
            cut = self._judge(line, ends)
            if cut is not None:
                return cut
        if ends:
            if line.strip() or (self._first and self._place.line.strip()):
                if self._first and self._base is None:
                    self._base = _indent(self._place.line + line)
                self._first = False
                self._newline = index
            self._line_start, self._judged = index + 1, False
        pending = not self._first and not self._judged
        self.hold = self._place.cut_before(self._newline) if pending else None
        return None

    def end(self, text: str) -> int | None:
        line = text[self._line_start :]
        return self._judge(line, True) if line.strip() and not self._judged else None

    def _judge(self, line: str, ends: bool) -> int | None:
        """Decide on the current line as soon as enough of it is there; where to cut, or None."""
        if self._first or self._base is None:
            self._judged = True
            return None
        column, word = _indent(line), line.strip()
        if self._below is None and column != self._base:
            self._below = column > self._base
        cut = self._place.cut_before(self._newline)
        if column > self._base or (column == self._base and not self._below):
            self._below = bool(self._below)
            self._judged = True
            return None
        if column == self._base:
            name = "".join(c if c.isalnum() else " " for c in word).partition(" ")[0]
            if not ends and name == word:
                return None  # the word may go on
            self._judged = word[0] in CLOSERS or name in _CONTINUES
            return None if self._judged else cut
        if word[0] in CLOSERS and word[0] != self._suffix_closer and not set(word) - set(")]};, "):
            if not ends:
                return None
            self._judged, self._base = True, column + 1  # whatever follows lies outside
            return None
        return cut


class Lines:
    reason: Reason = "lines"

    def __init__(self, max_lines: int) -> None:
        self._left, self._start = max_lines, 0
        self.hold: int | None = None

    def see(self, text: str, index: int) -> int | None:
        if text[index] == "\n":
            self._left -= bool(text[self._start : index].strip())
            self._start = index + 1
            if self._left == 0:
                return index
        return None

    def end(self, text: str) -> int | None:
        return None


def visible(text: str) -> int:
    return sum(not c.isspace() for c in text)


def _indent(line: str) -> int:
    """Columns before the first character that is not blank."""
    expanded = line.expandtabs(8)
    return len(expanded) - len(expanded.lstrip())


def _may_become(line: str, target: str) -> bool:
    """Whether a line, as far as it goes, may be the target with blanks behind it, or a blank one before it."""
    return not line.strip() or target.startswith(line) or line.rstrip() == target
