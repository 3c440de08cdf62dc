"""An editor's buffer over time: each keystroke says what changed, and a suggestion costs what is new.

    open(text)                 the file as it is
    edit(start, end, text)     the characters from start to end become text; the cursor stands behind it
    move(cursor)               the cursor alone
    accept()                   take the suggestion, or its first word or line
    suggest() → Suggestion     what to write at the cursor

While someone types what was suggested, nothing is asked of the model: the rest of the suggestion still stands.
When they type something else, the next one is guessed from it (`engine.speculate`). Context of other files is
gathered once, and again after a jump: it stands in front of everything, and if it changed with every keystroke,
nothing would stay cached.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from midspan.engine import context
from midspan.engine.engine import Engine
from midspan.engine.prompts import AnyLayout
from midspan.engine.request import Completion, Handle, Usage
from midspan.errors import InputError
from midspan.fim.stops import EDITOR, StopRules

_JUMP = 40
"""Lines that the cursor may go before context is gathered anew."""
_NUMBERS = itertools.count()


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What to write at the cursor."""

    text: str
    at: int
    """The cursor, in characters."""
    completion: Completion | None
    """None where the rest of the previous suggestion was enough."""

    @property
    def usage(self) -> Usage:
        """What it cost."""
        return self.completion.usage if self.completion else Usage()


class Session:
    """One buffer of one editor. Not safe between threads, but for cancelling what it handed out."""

    def __init__(
        self,
        engine: Engine,
        path: str = "",
        *,
        layout: AnyLayout = "auto",
        max_prompt: int | None = 4096,
        context_characters: int = 3000,
        files: Mapping[str, str] | None = None,
        stops: StopRules = EDITOR,
    ) -> None:
        """
        Args:
            engine: shared with other sessions.
            path: of the file, from the repository's root: it tells imports and the language.
            layout: order of the parts.
            max_prompt: tokens that the model is shown.
            context_characters: of other files in front of them.
            files: path → text of other files; may change at any time.
            stops: what ends a suggestion.
        """
        self.engine, self.path = engine, path
        self.layout, self.max_prompt, self.stops = layout, max_prompt, stops
        self.context_characters = context_characters
        self.files: Mapping[str, str] = files if files is not None else {}
        self.text, self.cursor = "", 0
        self._name = f"session {next(_NUMBERS)}"
        self._last: Suggestion | None = None
        self._stands = False
        """Whether the last suggestion was typed on and nothing else happened since."""
        self._context: tuple[int, str] | None = None

    def open(self, text: str, cursor: int = 0) -> None:
        """Take a whole text."""
        self.text, self._last, self._context, self._stands = text, None, None, False
        self.move(cursor)

    def move(self, cursor: int) -> None:
        """Put the cursor in front of a character.

        Raises:
            InputError: it lies outside the text.
        """
        if not 0 <= cursor <= len(self.text):
            raise InputError(f"the cursor is at {cursor}; the text has {len(self.text)} characters")
        self.cursor = cursor

    def edit(self, start: int, end: int, text: str) -> None:
        """Replace the characters from `start` to `end`; the cursor stands behind the new ones.

        Raises:
            InputError: the range lies outside the text.
        """
        if not 0 <= start <= end <= len(self.text):
            raise InputError(f"an edit from {start} to {end} lies outside the {len(self.text)} characters")
        typed_on = self._last is not None and start == end == self._last.at == self.cursor
        self.text = self.text[:start] + text + self.text[end:]
        self.cursor = start + len(text)
        self._stands = False
        if self._last is not None and typed_on and text and self._last.text.startswith(text):
            rest = self._last.text.removeprefix(text)
            self._stands = bool(rest)
            self._last = Suggestion(rest, self.cursor, None) if rest else self._last

    def type(self, text: str) -> None:
        """Write at the cursor."""
        self.edit(self.cursor, self.cursor, text)

    def accept(self, what: Literal["all", "line", "word"] = "all") -> str:
        """Take the suggestion at the cursor, or its beginning, and give what was taken."""
        if self._last is None or self._last.at != self.cursor:
            return ""
        text = self._last.text
        if what == "line":
            text = text[: text.find("\n", 1) if "\n" in text[1:] else len(text)]
        elif what == "word":
            found = re.match(r"\s*(\w+|[^\w\s]+)?", text)
            text = found[0] if found else text
        self.type(text)
        return text

    def suggest(self, *, max_tokens: int = 64, **options: Any) -> Suggestion:
        """What to write at the cursor; `options` are fields of the request."""
        if (standing := self.standing()) is not None:
            return standing
        return self.taken(self.ask(max_tokens=max_tokens, **options).result())

    def standing(self) -> Suggestion | None:
        """The rest of a suggestion that was typed on, if that is what stands at the cursor."""
        return self._last if self._stands and self._last is not None and self._last.at == self.cursor else None

    def ask(self, *, max_tokens: int = 64, on_news: Callable[[], None] | None = None, **options: Any) -> Handle:
        """Begin a suggestion, whose text may be read as it comes; a newer one of the session cancels it.

        Args:
            max_tokens: of the suggestion.
            on_news: as for `Engine.submit`.
            options: fields of the request.

        Raises:
            InputError: as `Engine.infilling`.
        """
        values: dict[str, Any] = {"stops": self.stops, "session": self._name}
        values |= options
        request = self.engine.infilling(
            self.text[: self.cursor],
            self.text[self.cursor :],
            layout=self.layout,
            max_tokens=max_tokens,
            max_prompt=self.max_prompt,
            context=self.context(),
            extra=[self._last.text] if self._last is not None else [],
            **values,
        )
        return self.engine.submit(request, on_news)

    def taken(self, completion: Completion) -> Suggestion:
        """Keep what `ask` came to as the suggestion at the cursor."""
        self._last = Suggestion(completion.text, self.cursor, completion)
        return self._last

    def warm(self) -> Usage:
        """Read the prompt at the cursor ahead of its need, such as after a jump."""
        return self.ask(max_tokens=1).result().usage

    def context(self) -> str:
        """What is shown of other files."""
        line = self.text.count("\n", 0, self.cursor)
        if self._context is None or abs(self._context[0] - line) > _JUMP:
            found = context.pieces(self.path, self.text, self.cursor, self.files, self.context_characters)
            self._context = line, context.written(found)
        return self._context[1]
