"""What the engine is asked, and what it answers: requests, completions, and the handle between them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from midspan.engine.constrain import Constraint
from midspan.engine.sample import SampleConfig
from midspan.fim import Example, Layout
from midspan.fim.stop_lines import Reason as TextReason
from midspan.fim.stops import StopRules

GREEDY = SampleConfig()
NO_RULES = StopRules()
Reason = Literal["eot", "length", "deadline", "cancelled", "constraint"] | TextReason
"""Why a text ended: the model's own end, its budget, or what `fim.stops` noticed."""
FinishReason = Literal["stop", "length", "cancelled"]

INFILL, CHAT = 0, 1
"""Priorities: someone who types waits less than someone who reads."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One text that is to be written behind a prompt."""

    prompt: Sequence[int]
    """At least one token, and fewer than the model has positions."""
    max_tokens: int
    """The text ends earlier where positions do."""
    owed: bytes = b""
    """What the text begins with and leaves out (what `Healer.take_back` took); it costs no budget."""
    stop_ids: frozenset[int] = frozenset()
    sample: SampleConfig = GREEDY
    copy: int = 0
    """Tells apart several samples of one prompt."""
    stops: StopRules = NO_RULES
    prefix: str = ""
    """The text before the hole, for the rules that look at it."""
    suffix: str = ""
    layout: Layout | None = None
    """The order of an infill's parts, for those who want to know."""
    deadline: float | None = None
    """Seconds from now, the reading of the prompt included."""
    session: str | None = None
    """A newer request of the same session cancels this one."""
    priority: int = INFILL
    num_logprobs: int | None = None
    """With each token its log-probability, and the most probable so many beside it."""
    constraint: Constraint | None = None
    """What the text must be; there is nothing owed then."""
    drafts: Sequence[Sequence[int]] | None = None
    """Tokens of texts from which the next ones may be guessed, beside the prompt; None to guess nothing."""
    example: Example | None = None
    """The example with the true middle, whose losses are wanted; what it shares with the prompt is read once."""
    keep: bool = True
    """Whether what was read is worth keeping for later requests."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How probable a written token was, before temperature and what cuts off tails."""

    id: int
    logprob: float
    top: list[tuple[int, float]]


@dataclass(slots=True)
class Usage:
    """What a completion cost, in tokens."""

    prompt: int = 0
    cached: int = 0
    """Tokens of the prompt that did not have to be read."""
    evaluated: int = 0
    """Tokens that were read: the rest of the prompt, those written, and guesses."""
    drafted: int = 0
    accepted: int = 0
    """Guesses that turned out right."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model wrote after a prompt."""

    ids: list[int]
    """Without the id that stopped it; what was owed stands at the beginning."""
    text: str
    """`ids` as text, without what was owed; bytes that are no UTF-8 are U+FFFD."""
    finish_reason: FinishReason
    losses: list[float] | None = None
    """Nats of the last `num_middle` ids of the example that was read along with the prompt."""
    reason: Reason = "length"
    """`finish_reason` in detail."""
    logprobs: list[TokenLogprob] | None = None
    usage: Usage = field(default_factory=Usage, compare=False)

    @property
    def mean_logprob(self) -> float:
        """Average over the tokens, by which samples are ranked; needs `num_logprobs`."""
        found = self.logprobs or []
        return sum(entry.logprob for entry in found) / max(len(found), 1)


class Handle:
    """A request under way: iterate over its text, ask for its result, or cancel it. Safe between threads."""

    def __init__(
        self,
        request: Request,
        advance: Callable[[Handle, bool], None],
        on_cancel: Callable[[], None] = lambda: None,
        on_news: Callable[[], None] = lambda: None,
    ) -> None:
        self.request = request
        self._advance, self._on_cancel, self._on_news = advance, on_cancel, on_news
        self._pieces: deque[str] = deque()
        self._completion: Completion | None = None
        self._error: BaseException | None = None
        self._cancelled = threading.Event()

    def __iter__(self) -> Iterator[str]:
        """Pieces of the text, as soon as nothing can take them back; leaving the loop early cancels."""
        try:
            while True:
                while self._pieces:
                    yield self._pieces.popleft()
                if self.done:
                    self.result()
                    return
                self._advance(self, False)
        finally:
            if not self.done:
                self.cancel()

    def result(self) -> Completion:
        """The completion; its text is whole, whatever was iterated over.

        Raises what broke the work off, if anything did.
        """
        while not self.done:
            self._advance(self, True)
        if self._completion is None:
            assert self._error is not None
            raise self._error
        return self._completion

    def cancel(self) -> None:
        """End it within a step, with what is written so far."""
        if not self._cancelled.is_set():
            self._cancelled.set()
            self._on_cancel()

    @property
    def done(self) -> bool:
        """Whether the completion is there, or will never be."""
        return self._completion is not None or self._error is not None

    @property
    def has_failed(self) -> bool:
        """Whether something broke it off, which `result` raises."""
        return self._error is not None

    @property
    def has_news(self) -> bool:
        """Whether there is something to iterate over, or the end."""
        return bool(self._pieces) or self.done

    @property
    def is_cancelled(self) -> bool:
        """Whether someone asked for its end."""
        return self._cancelled.is_set()

    def put(self, piece: str) -> None:
        """More of the text (for the scheduler)."""
        if piece:
            self._pieces.append(piece)
            self._on_news()

    def take(self) -> str:
        """What was written since the last time, without waiting; empty where nothing was."""
        pieces = []
        while self._pieces:
            pieces.append(self._pieces.popleft())
        return "".join(pieces)

    def finish(self, completion: Completion) -> None:
        """The end (for the scheduler)."""
        self._completion = completion
        self._on_news()

    def fail(self, error: BaseException) -> None:
        """There will be no completion (for the scheduler)."""
        self._error = error
        self._on_news()
