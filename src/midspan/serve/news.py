"""How a thread that computes wakes the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


def listening() -> tuple[asyncio.Event, Callable[[], None]]:
    """An event of this loop, and what sets it from any thread."""
    loop, news = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(news.set)

    return news, wake
