"""Requests under way: so many at a time, each seen by the event loop as its text comes, ended when nobody listens.

    work ──admit──► engine's thread ──news──► events: (0, "def "), (1, "class"), (0, "f(x):"), (0, Completion) ...
             │
             └── too many: 429, come back

A block that ends early, because a client went away or because something failed, cancels what is left; the engine
ends it within a step.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from midspan.engine import Completion, Engine, Handle, Request
from midspan.engine.front import Front
from midspan.serve.errors import ApiError, busy
from midspan.serve.metrics import Metrics
from midspan.serve.models import Served
from midspan.serve.news import listening
from midspan.serve.settings import ServeConfig

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Work:
    """Texts that one client asked for together."""

    served: Served
    requests: Sequence[Request]
    kind: str
    """`complete`, `infill` or `chat`: what is counted together."""


@dataclass(kw_only=True)
class Timing:
    """When things happened, in seconds since the request was there."""

    begun: float = field(default_factory=time.perf_counter)
    first: float | None = None
    """Until the first piece of text, or the end where there is none."""
    total: float = 0.0

    def elapsed(self) -> float:
        """Since the request was there."""
        return time.perf_counter() - self.begun


Event = tuple[int, str | Completion]
"""The number of a text with a piece of it, or with its end."""


class Desk:
    """Where requests wait, run and are counted."""

    def __init__(self, config: ServeConfig, metrics: Metrics) -> None:
        self.config, self.metrics = config, metrics
        self._under_way = 0
        self._room = config.queue + 32

    async def build(self, make: Callable[[], T]) -> T:
        """Something that takes a while, such as a prompt's ids, without holding up the event loop."""
        return await asyncio.to_thread(make)

    async def events(
        self, work: Work, timing: Timing | None = None, *, only_ends: bool = False
    ) -> AsyncIterator[Event]:
        """Pieces of the texts as they come, and their ends.

        Args:
            work: what is asked.
            timing: filled in.
            only_ends: the pieces do not matter. Then nothing wakes the event loop for them, which would take the
                interpreter from the thread that computes.

        Raises:
            ApiError: the prompt is longer than the model can read, or there is no room (429).
        """
        timing = timing or Timing()
        requests = [self._limited(work.served.front, request) for request in work.requests]
        if self._under_way + len(requests) > self._room:
            self.metrics.refused.labels("busy").inc()
            raise busy(f"{self._under_way} texts are under way and no more can wait; ask again in a second", 1)
        self._under_way += len(requests)
        self.metrics.running.set(self._under_way)
        handles: list[Handle] = []
        try:
            news, wake = listening()

            def tell() -> None:  # by the thread that computes
                if timing.first is None:
                    timing.first = timing.elapsed()
                if not only_ends or (len(handles) == len(requests) and any(h.done for h in handles)):
                    wake()

            handles += await self._submit(work.served.front, requests, tell)
            news.set()  # for what came before there were handles
            left = list(range(len(handles)))
            while left:
                await news.wait()
                news.clear()
                for number in list(left):
                    done = handles[number].done  # before the text is taken: nothing is written behind the end
                    text = "" if only_ends else handles[number].take()
                    if text:
                        yield number, text
                    if done:
                        left.remove(number)
                        yield number, handles[number].result()
        finally:
            timing.total = timing.elapsed()
            for handle in handles:
                if not handle.done:
                    handle.cancel()
                    self.metrics.cancelled.inc()
            self._under_way -= len(requests)
            self.metrics.running.set(self._under_way)
            self.metrics.worked(work, [h.result() for h in handles if h.done and not h.has_failed], timing)

    async def texts(self, work: Work, timing: Timing | None = None) -> list[Completion]:
        """The texts whole, in their order."""
        events = self.events(work, timing, only_ends=True)
        found = {number: event async for number, event in events if isinstance(event, Completion)}
        return [found[number] for number in range(len(work.requests))]

    async def _submit(self, front: Front, requests: Sequence[Request], wake: Callable[[], None]) -> list[Handle]:
        if isinstance(front, Engine):  # takes a request at once
            return [front.submit(request, wake) for request in requests]
        # A server elsewhere is asked over the network; if the client leaves meanwhile, its answer is not wanted.
        submitting = asyncio.ensure_future(
            asyncio.to_thread(lambda: [front.submit(request, wake) for request in requests])
        )
        try:
            return await asyncio.shield(submitting)
        except asyncio.CancelledError:
            submitting.add_done_callback(_cancel_all)
            raise

    def _limited(self, front: Front, request: Request) -> Request:
        if len(request.prompt) >= front.max_positions:
            raise ApiError(
                400,
                f"the prompt has {len(request.prompt)} tokens and the model reads at most "
                f"{front.max_positions - 1} of them; shorten it",
                code="context_length_exceeded",
            )
        deadline = self.config.timeout if request.deadline is None else min(request.deadline, self.config.timeout)
        return replace(request, deadline=deadline, max_tokens=min(request.max_tokens, self.config.max_tokens))


def _cancel_all(submitting: asyncio.Future[list[Handle]]) -> None:
    if not submitting.cancelled() and submitting.exception() is None:
        for handle in submitting.result():
            handle.cancel()
