"""Where an infill ends, when the model does not say so itself.

A model goes on past its hole: it writes the suffix again, closes brackets that the suffix closes, leaves the block
that the cursor is in, or repeats itself. Editors patch that on finished text; here it is noticed while the text is
written, which also saves the tokens.

    prefix      def f(x):\\n    y = g(|
    suffix      )\\n    return y\\n
    written     x + 1)\\n    return y          ")" closes nothing that the suffix does not close: stop before it

The text is seen one character at a time. Each rule says where it would cut, and from where on it may still do so:
what lies before that is safe to show, the rest is held back. So the pieces that were shown are always the final
text, and how the text came in pieces changes nothing.

    shown ─────────┐ held back ┐
    "    return y" "\\n    retu"      may become the suffix's next line
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from midspan.errors import InputError

Reason = Literal["string", "suffix", "dedent", "bracket", "repetition", "lines"]

MIN_VISIBLE = 8
"""Characters of the suffix that have to be repeated, blanks aside: a lone `return` or `}` proves nothing."""
SCANNED_LINES = 200
"""Lines of prefix and suffix in which brackets are counted."""
REPEATS = 3
"""Occurrences of the same lines, one after the other, that are taken for a loop."""
MAX_PERIOD, MIN_LOOP = 24, 64
"""The longest unit of a loop inside a line, in characters, and the characters of the whole loop."""
_CLOSERS = {")": "(", "]": "[", "}": "{"}
_CONTINUES = frozenset(
    ("else", "elif", "except", "finally", "catch", "case", "default", "end", "and", "or", "then", "when", "rescue")
)


@dataclass(frozen=True, kw_only=True)
class StopRules:
    """What ends a text beside the model's own end; nothing by default."""

    strings: tuple[str, ...] = ()
    """The text ends before any of these."""
    max_lines: int = 0
    """Lines that are not blank; 0 for any number."""
    suffix: bool = False
    """End where the suffix begins to be repeated."""
    dedent: bool = False
    """End where the block of the cursor's line is left."""
    brackets: bool = False
    """End before a bracket closes what the suffix closes."""
    repetition: bool = False
    """End where lines or characters repeat without end."""
    whole_lines: bool = False
    """Of a text that is cut off by its budget, keep whole lines only, if there are any."""

    def __post_init__(self) -> None:
        if not all(self.strings):
            raise InputError("a stop string is empty; leave it out, or give it at least one character")
        if self.max_lines < 0:
            raise InputError(f"max_lines is {self.max_lines}; it must be 0 (any number) or more")


EDITOR = StopRules(suffix=True, dedent=True, brackets=True, repetition=True, whole_lines=True)
"""What suits a suggestion at a cursor."""


class _Rule(Protocol):
    reason: Reason
    hold: int | None
    """From where on the text may still be cut; None if nowhere."""

    def see(self, text: str, index: int) -> int | None:
        """Take in `text[index]`, of which only what is before is known; where to cut, or None."""

    def end(self, text: str) -> int | None:
        """The model ended here; where to cut, or None."""


class Stopper:
    """The rules at work on one text."""

    def __init__(self, rules: StopRules, prefix: str = "", suffix: str = "") -> None:
        self._place = place = _Place(prefix, suffix)
        self._rules: list[_Rule] = []
        if rules.strings:
            self._rules.append(_Strings(rules.strings))
        if rules.suffix and suffix.strip():
            self._rules.append(_Suffix(place))
        if rules.dedent:
            self._rules.append(_Dedent(place))
        if rules.brackets:
            self._rules.append(_Brackets(place))
        if rules.repetition:
            self._rules += [_RepeatedLines(), _RepeatedCharacters()]
        if rules.max_lines:
            self._rules.append(_Lines(rules.max_lines))
        self._whole_lines = rules.whole_lines
        self._text = ""
        self._shown = 0
        self.reason: Reason | None = None
        """Why the text has ended; None while it has not."""

    @property
    def text(self) -> str:
        """The text as far as it goes, with what is held back."""
        return self._text

    def push(self, piece: str) -> str:
        """Take in more text; what of it can be shown. Nothing more is taken in once there is a reason."""
        if self.reason is not None or not piece:
            return ""
        begin, self._text = len(self._text), self._text + piece
        for index in range(begin, len(self._text)):
            cuts = [(rule.see(self._text, index), rule.reason) for rule in self._rules]
            if self._cut(cuts):
                return self._show(len(self._text))
        safe = min((rule.hold for rule in self._rules if rule.hold is not None), default=len(self._text))
        return self._show(min(safe, self._whole()) if self._whole_lines else safe)

    def end(self, *, complete: bool) -> str:
        """No more text comes; the rest that can be shown.

        Args:
            complete: the model ended by itself, rather than by a budget.
        """
        if self.reason is None:
            if complete:
                self._cut([(rule.end(self._text), rule.reason) for rule in self._rules])
            elif self._whole_lines:
                self._text = self._text[: self._whole()]
        return self._show(len(self._text))

    def _whole(self) -> int:
        """The end of the last whole line; of the text, where there is none but blank ones."""
        newline = self._text.rfind("\n")
        return self._place.cut_before(newline) if self._text[: newline + 1].strip() else len(self._text)

    def _cut(self, cuts: Sequence[tuple[int | None, Reason]]) -> bool:
        found = [(cut, number) for number, (cut, _) in enumerate(cuts) if cut is not None]
        if not found:
            return False
        cut, number = min(found)
        self._text, self.reason = self._text[:cut], cuts[number][1]
        return True

    def _show(self, end: int) -> str:
        shown = self._text[self._shown : end]
        self._shown = max(self._shown, end)
        return shown


class _Place:
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


class _Strings:
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


class _Suffix:
    """The suffix's first lines, or the rest of the cursor's line, written again.

    In the middle of a line the rest of it has to stand at the end of a written line. Elsewhere a whole line has to
    be the suffix's first one that is not blank, and so on until MIN_VISIBLE characters agree or the suffix ends.
    """

    reason: Reason = "suffix"

    def __init__(self, place: _Place) -> None:
        self._place, self._inline = place, bool(place.rest)
        lines = [line.rstrip() for line in place.suffix.split("\n") if line.strip()]
        enough = _visible(place.rest) >= 1 and set(place.rest.strip()) - set("()[]{}")
        self._target: list[str] = []
        for line in lines:
            self._target.append(line)
            if (self._inline and enough) or _visible("".join(self._target)) >= MIN_VISIBLE:
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


class _Dedent:
    """A line that lies further left than the block that is being written.

    That block is the cursor's own, or the one that the cursor's line opens: then a line at the level of the
    cursor's ends it, unless it belongs to it (`else`, a closing bracket). One line of closing brackets further
    left is kept where the suffix does not have it.
    """

    reason: Reason = "dedent"

    def __init__(self, place: _Place) -> None:
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
            self._judged = word[0] in _CLOSERS or name in _CONTINUES
            return None if self._judged else cut
        if word[0] in _CLOSERS and word[0] != self._suffix_closer and not set(word) - set(")]};, "):
            if not ends:
                return None
            self._judged, self._base = True, column + 1  # whatever follows lies outside
            return None
        return cut


class _Brackets:
    """A bracket that closes what the suffix closes already."""

    reason: Reason = "bracket"

    def __init__(self, place: _Place) -> None:
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
        elif char in _CLOSERS:
            if not self.open:
                self.underflow += 1
            elif self.open.pop() != _CLOSERS[char]:
                self.mismatched = True

    def _in_quote(self, char: str) -> None:
        if self._escaped:
            self._escaped = False
        elif char == "\\" and self.quote != "\n":
            self._escaped = True
        elif self._last.endswith(self.quote) or (char == "\n" and len(self.quote) == 1 and self.quote != "`"):
            self.quote = ""
            self._last = self._last if self._last[-2:] in ("''", '""') else ""


class _RepeatedLines:
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
                if _visible("".join(block)) >= 2 and self._run(period) >= (REPEATS - 1) * period:
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


class _RepeatedCharacters:
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


class _Lines:
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


def _visible(text: str) -> int:
    return sum(not c.isspace() for c in text)


def _indent(line: str) -> int:
    """Columns before the first character that is not blank."""
    expanded = line.expandtabs(8)
    return len(expanded) - len(expanded.lstrip())


def _may_become(line: str, target: str) -> bool:
    """Whether a line, as far as it goes, may be the target with blanks behind it."""
    return target.startswith(line) or line.rstrip() == target


def texts(pieces: Iterable[str], stopper: Stopper) -> str:
    """Everything that a stopper shows of a text that comes in pieces and ends by itself."""
    return "".join([*map(stopper.push, pieces), stopper.end(complete=True)])
