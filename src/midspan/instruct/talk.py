"""A chat in a terminal, without the terminal: what is remembered, what is shown to the model, and what runs.

    text        a turn; the answer comes in pieces
    /run [N]    the code of the last answer, or its Nth piece of code, in the sandbox
    /system T   a new system prompt; none without T      /undo   forget the last turn
    /clear      forget everything but that               /save F, /load F   conversations as JSON Lines

A conversation that outgrows the model loses its oldest turns, and says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from midspan.engine.front import Front
from midspan.engine.request import GREEDY
from midspan.engine.sample import SampleConfig
from midspan.errors import InputError
from midspan.files import write_text
from midspan.instruct.dataset import said
from midspan.instruct.imports import entries
from midspan.sandbox import Program, Sandbox, Verdict
from midspan.sandbox.languages import LANGUAGES
from midspan.tokenizer.chat import Message

HELP = __doc__.split("\n\n")[1]
_CODE = re.compile(r"```([\w+#]*)[^\n]*\n(.*?)(?:```|\Z)|\[([A-Z]+)\]\n?(.*?)\[/\3\]", re.DOTALL)
_NAMES = {"": "python", "py": "python", "python3": "python", "js": "javascript", "ts": "typescript", "sh": "bash"}
_NAMES |= {"shell": "bash", "c++": "cpp", "cs": "csharp", "c#": "csharp", "rs": "rust", "golang": "go"}


@dataclass
class Talk:
    """A conversation under way."""

    front: Front
    system: str = ""
    max_tokens: int = 512
    sample: SampleConfig = GREEDY
    open_sandbox: Callable[[], Sandbox] = lambda: Sandbox(1)
    turns: list[Message] = field(default_factory=list)
    dropped: int = 0
    """Turns that the model is no longer shown."""
    _sandbox: Sandbox | None = None

    def __post_init__(self) -> None:
        most = self.front.max_positions - 1
        if not 1 <= self.max_tokens <= most:
            raise InputError(f"--max-tokens is {self.max_tokens}; for this model it lies between 1 and {most:,}")

    def answer(self, text: str) -> Iterator[str]:
        """Pieces of the answer to a new turn, which is remembered with what came of it, also if it is broken off.

        Raises:
            InputError: the text holds a mark of the chat format, or is too long by itself; nothing is remembered.
        """
        asked = [*self.turns, Message("user", text)]
        request = self._request(asked)
        pieces: list[str] = []
        handle = self.front.submit(request)
        try:
            for piece in handle:
                pieces.append(piece)
                yield piece
        finally:
            if not handle.done:
                handle.cancel()
            self.turns = [*asked, Message("assistant", "".join(pieces).strip() or "...")]

    def _request(self, asked: list[Message]) -> Any:
        """The request to answer, with as many turns as there is room for."""
        before = [Message("system", self.system)] if self.system else []
        for start in range(self.dropped, len(asked), 2):
            request = self.front.chatting(
                [*before, *asked[start:]], max_tokens=self.max_tokens, sample=self.sample
            )
            if len(request.prompt) + self.max_tokens <= self.front.max_positions:
                self.dropped = start
                return request
        raise InputError(
            f"this turn and {self.max_tokens} tokens of an answer do not fit the model's "
            f"{self.front.max_positions} positions; shorten it, or give a smaller --max-tokens"
        )

    def undo(self) -> None:
        """Forget the last turn and its answer."""
        self.turns = self.turns[:-2]
        self.dropped = min(self.dropped, max(0, len(self.turns) - 2))

    def clear(self) -> None:
        """Forget every turn."""
        self.turns, self.dropped = [], 0

    def code(self, number: int | None = None) -> tuple[str, str]:
        """Language and text of the last answer's code, of its last piece if no number is given.

        Raises:
            InputError: there is none.
        """
        answers = [turn.content for turn in self.turns if turn.role == "assistant"]
        pieces = code_of(answers[-1]) if answers else []
        if not pieces:
            raise InputError("the last answer holds no code; ask for some, or run an earlier answer after /undo")
        if number is not None and not 1 <= number <= len(pieces):
            raise InputError(f"there is no piece {number}; the last answer has {len(pieces)}")
        return pieces[-1 if number is None else number - 1]

    def run(self, number: int | None = None) -> tuple[str, Verdict]:
        """Run code of the last answer in the sandbox; its language and what came of it.

        Raises:
            InputError: there is no code, or no jail, or the language cannot be run here.
        """
        language, code = self.code(number)
        if self._sandbox is None:
            self._sandbox = self.open_sandbox()
        return language, self._sandbox.judge_one(Program(source=code, language=language, stdin=""))

    def close(self) -> None:
        """End the sandbox."""
        if self._sandbox is not None:
            self._sandbox.close()
            self._sandbox = None

    def save(self, path: Path) -> None:
        """Write the conversation as one line, which training can read. InputError where nothing was said yet."""
        if not self.turns:
            raise InputError("nothing was said yet, so there is no conversation to save")
        before = [Message("system", self.system)] if self.system else []
        write_text(path, json.dumps({"messages": said([*before, *self.turns])}, ensure_ascii=False) + "\n")

    def load(self, path: Path) -> None:
        """Go on with the last conversation of a file. InputError where it cannot be read."""
        *_, entry = entries(path)
        if entry.fault:
            raise InputError(f"{entry.place}: {entry.fault}")
        messages = entry.messages
        self.system = messages[0].content if messages[0].role == "system" else ""
        self.turns, self.dropped = [m for m in messages if m.role != "system"], 0


def code_of(answer: str) -> list[tuple[str, str]]:
    """Language and text of each piece of code in an answer, in fences or tags; Python if no language is known."""
    found = []
    for match in _CODE.finditer(answer):
        name = (match[1] if match[3] is None else match[3]).lower()
        name = _NAMES.get(name, name)
        code = match[2] if match[3] is None else match[4]
        found.append((name if name in LANGUAGES else "python", code.strip("\n") + "\n"))
    return found
