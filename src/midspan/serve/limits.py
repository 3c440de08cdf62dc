"""Who may ask, and how often."""

from __future__ import annotations

import hmac
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

from midspan.errors import InputError

_REMEMBERED = 10_000
"""Askers whose rate is known; the one that was silent longest is forgotten."""


class Keys:
    """The keys that open the server, compared in a time that says nothing of them."""

    def __init__(self, keys: Sequence[str]) -> None:
        # Of digests, so that not even the length of a key decides how long a comparison takes.
        self._digests = [sha256(key.encode()).digest() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def name_of(self, given: str) -> str | None:
        """A short name of a key for logs and limits, which does not give it away; None for a wrong one."""
        digest = sha256(given.encode()).digest()
        found = [hmac.compare_digest(digest, known) for known in self._digests]
        return f"key-{digest.hex()[:8]}" if any(found) else None


def read_keys(path: Path) -> tuple[str, ...]:
    """Keys of a file, one a line; lines that begin with # say something about the next one.

    Raises:
        InputError: there is no such file, or no key in it, or one too short to be a secret.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the keys of {path} cannot be read ({error}); give a text file with a key a line"
        ) from None
    keys = tuple(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    if not keys:
        raise InputError(f"{path} holds no key; write one a line")
    for number, key in enumerate(keys, 1):
        if len(key) < 16:
            raise InputError(f"key {number} of {path} has {len(key)} characters; a key needs at least 16")
    return keys


class Rate:
    """Requests of each asker in a minute, by a bucket that fills as time goes."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, asker: str) -> int:
        """Count a request; 0 if it may go on, else the seconds after which one may."""
        if self._per_minute == 0:
            return 0
        now = self._clock()
        left, seen = self._buckets.pop(asker, (float(self._per_minute), now))
        left = min(self._per_minute, left + (now - seen) * self._per_minute / 60)
        allowed = left >= 1
        self._buckets[asker] = (left - 1 if allowed else left, now)
        while len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        return 0 if allowed else math.ceil((1 - left) * 60 / self._per_minute)
