"""Stop rules that look at characters: strings, brackets, and what repeats without end (see `stops.py`)."""

from __future__ import annotations

from midspan.fim.stop_lines import CLOSERS, Place, Reason, visible

SCANNED_LINES = 200
"""Lines of prefix and suffix in which brackets are counted."""
REPEATS = 3
"""Occurrences of the same lines, one after the other, that are taken for a loop."""
MAX_PERIOD, MIN_LOOP = 24, 64
"""The longest unit of a loop inside a line, in characters, and the characters of the whole loop."""


class Strings:
    reason: Reason = "string"

    def __init__(self, strings: tuple[str, ...]) -> None:
        self._strings, self._longest = strings, max(map(len, strings))
        self.hold: int | None = None

    def see(self, text: str, index: int) -> int | None:
        end = index + 1
        found = [end - len(s) for s in self._strings if text.endswith(s, 0, end)]
        if found:
            return min(found)
        self.hold = None
        for start in range(max(0, end - self._longest + 1), end):
            if any(s.startswith(text[start:end]) for s in self._strings):
                self.hold = start
                break
        return None

    def end(self, text: str) -> int | None:
        return None


class Brackets:
    """A bracket that closes what the suffix closes already."""

    reason: Reason = "bracket"

    def __init__(self, place: Place) -> None:
        self._place = place
        slashes = any(line.lstrip().startswith("//") for line in (place.prefix + place.suffix).split("\n"))
        above = _Brace(slashes)
        above.read("\n".join(place.prefix.split("\n")[-SCANNED_LINES:]))
        below = _Brace(slashes, above.quote if above.quote else "")
        below.read("\n".join(place.suffix.split("\n")[:SCANNED_LINES]))
        self._allowed = max(0, len(above.open) - below.underflow)
        self._own = _Brace(slashes, above.quote)
        self._line_start, self._newline, self._blank = 0, -1, not place.line.strip()
        self._active = True
        self.hold: int | None = None

    def see(self, text: str, index: int) -> int | None:
        if not self._active:
            return None
        char, before = text[index], self._own.underflow
        self._own.see(char)
        if self._own.mismatched:
            self._active, self.hold = False, None
            return None
        if self._own.underflow > max(before, self._allowed):
            return self._place.cut_before(self._newline) if self._blank and self._newline >= 0 else index
        if char == "\n":
            if text[self._line_start : index].strip() or not self._blank:
                self._newline = index
            self._line_start, self._blank = index + 1, True
        elif not char.isspace():
            self._blank = False
        self.hold = self._place.cut_before(self._newline) if self._blank and self._newline >= 0 else None
        return None

    def end(self, text: str) -> int | None:
        return None


class _Brace:
    """Brackets of a text, outside of its strings and comments as far as these look alike in most languages."""

    def __init__(self, slashes: bool, quote: str = "") -> None:
        self._slashes, self.quote = slashes, quote
        """What ends the string or comment that the text is in; empty in code."""
        self.open: list[str] = []
        self.underflow = 0
        """Brackets closed that the text did not open."""
        self.mismatched = False
        self._escaped = False
        self._last = ""

    def read(self, text: str) -> None:
        """Take in a whole text."""
        for char in text:
            self.see(char)

    def see(self, char: str) -> None:
        """Take in one character."""
        self._last = (self._last + char)[-3:]
        if self.quote:
            self._in_quote(char)
        elif char in "\"'`":
            self.quote = self._last if self._last == 3 * char else char
        elif char == "#" or (self._slashes and self._last.endswith("//")):
            self.quote = "\n"
        elif self._slashes and self._last.endswith("/*"):
            self.quote = "*/"
        elif char in "([{":
            self.open.append(char)
        elif char in CLOSERS:
            if not self.open:
                self.underflow += 1
            elif self.open.pop() != CLOSERS[char]:
                self.mismatched = True

    def _in_quote(self, char: str) -> None:
        if self._escaped:
            self._escaped = False
        elif char == "\\" and self.quote != "\n":
            self._escaped = True
        elif self._last.endswith(self.quote) or (char == "\n" and len(self.quote) == 1 and self.quote != "`"):
            self.quote = ""
            self._last = self._last if self._last[-2:] in ("''", '""') else ""


class RepeatedLines:
    """One to four lines REPEATS times in a row; the first time stays."""

    reason: Reason = "repetition"

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._starts = [0]
        self.hold: int | None = None

    def see(self, text: str, index: int) -> int | None:
        if text[index] == "\n":
            self._lines.append(text[self._starts[-1] : index])
            self._starts.append(index + 1)
            for period in range(1, 5):
                block = self._lines[-period:]
                if visible("".join(block)) >= 2 and self._run(period) >= (REPEATS - 1) * period:
                    return self._starts[len(self._lines) - REPEATS * period + period]
        partial = text[self._starts[-1] : index + 1]
        holds = []
        for period in range(1, 5):
            if len(self._lines) >= period and self._lines[-period].startswith(partial):
                run = self._run(period)
                holds.append(self._starts[len(self._lines) - run])
        self.hold = min(holds, default=None)
        return None

    def end(self, text: str) -> int | None:
        return None

    def _run(self, period: int) -> int:
        """How many of the last lines equal those a period before."""
        run = 0
        while run + period < len(self._lines) and self._lines[-1 - run] == self._lines[-1 - run - period]:
            run += 1
        return run


class RepeatedCharacters:
    """A unit of up to MAX_PERIOD characters over and over in one line; its first time stays."""

    reason: Reason = "repetition"

    def __init__(self) -> None:
        self._runs = [0] * (MAX_PERIOD + 1)
        self._line_start = 0
        self.hold: int | None = None

    def see(self, text: str, index: int) -> int | None:
        self.hold = None
        if text[index] == "\n":
            self._runs, self._line_start = [0] * (MAX_PERIOD + 1), index + 1
            return None
        held = []
        for period in range(2, min(MAX_PERIOD, index - self._line_start) + 1):
            same = text[index] == text[index - period]
            run = self._runs[period] = self._runs[period] + 1 if same else 0
            unit = text[index - period + 1 : index + 1]
            if run < period or len(set(unit)) == 1 or not unit.strip():
                continue
            start = index + 1 - run
            if run + period >= MIN_LOOP and run >= 4 * period:
                return start
            held.append(start)
        self.hold = min(held, default=None)
        return None

    def end(self, text: str) -> int | None:
        return None
