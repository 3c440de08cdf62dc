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

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from midspan.errors import InputError
from midspan.fim.stop_lines import Dedent, Lines, Place, Reason, Suffix
from midspan.fim.stop_marks import Brackets, RepeatedCharacters, RepeatedLines, Strings


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
    trifles: bool = True
    """Whether a text may be a trifle (see `is_trifle`); nothing is left of one otherwise."""

    def __post_init__(self) -> None:
        if not all(self.strings):
            raise InputError("a stop string is empty; leave it out, or give it at least one character")
        if self.max_lines < 0:
            raise InputError(f"max_lines is {self.max_lines}; it must be 0 (any number) or more")


INVOKED = StopRules(suffix=True, dedent=True, brackets=True, repetition=True, whole_lines=True)
"""What suits a suggestion that somebody asked for."""
EDITOR = replace(INVOKED, trifles=False)
"""What suits a suggestion that comes by itself."""

_TRIFLE = 3
"""Characters up to which closing a few brackets is sooner typed than read."""
_CLOSING = frozenset(")]}>;,:'\"`")


def is_trifle(text: str) -> bool:
    """Whether a suggestion does no more than close and end, in a few characters: `})`, `);`, a quote.

    Such a one saves nobody a key, and takes the one that accepts suggestions from whoever wanted to indent.
    """
    return bool(text.strip()) and _begins_a_trifle(text)


def _begins_a_trifle(text: str) -> bool:
    seen = "".join(text.split())
    return len(seen) <= _TRIFLE and _CLOSING.issuperset(seen)


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
        self._place = place = Place(prefix, suffix)
        self._rules: list[_Rule] = []
        if rules.strings:
            self._rules.append(Strings(rules.strings))
        if rules.suffix and suffix.strip():
            self._rules.append(Suffix(place))
        if rules.dedent:
            self._rules.append(Dedent(place))
        if rules.brackets:
            self._rules.append(Brackets(place))
        if rules.repetition:
            self._rules += [RepeatedLines(), RepeatedCharacters()]
        if rules.max_lines:
            self._rules.append(Lines(rules.max_lines))
        self._whole_lines, self._trifles = rules.whole_lines, rules.trifles
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
                return self._finish()
        safe = min((rule.hold for rule in self._rules if rule.hold is not None), default=len(self._text))
        safe = min(safe, self._whole()) if self._whole_lines else safe
        return "" if not self._trifles and _begins_a_trifle(self._text[:safe]) else self._show(safe)

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
        return self._finish()

    def _finish(self) -> str:
        """Show the rest, or nothing at all where all of it is a trifle."""
        if not self._trifles and is_trifle(self._text):
            self._text, self.reason = "", "trifle"
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
