"""Typing traces over real files: where a hole is, and what was typed into it.

    prefix (about 2,000 tokens) | two lines taken out, typed character by character | suffix (about 1,000)

Files are the standard library's. They are known to every base, so what is saved there is an upper bound; what a
keystroke costs does not depend on it.
"""

from __future__ import annotations

import random
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from midspan.tokenizer import Tokenizer


@dataclass(frozen=True)
class Trace:
    """One place of one file."""

    path: str
    prefix: str
    typed: str
    suffix: str


def traces(tokenizer: Tokenizer, number: int, *, prefix_tokens: int, suffix_tokens: int) -> list[Trace]:
    """So many places, each in a file of its own, chosen by a fixed seed."""
    rng, found = random.Random(0), []
    for path in _files(rng):
        text = path.read_text(encoding="utf-8", errors="ignore")
        lines = text.splitlines(keepends=True)
        counts = [len(tokenizer.encode(line)) for line in lines]
        starts = [
            at
            for at in range(1, len(lines) - 2)
            if sum(counts[:at]) >= prefix_tokens
            and sum(counts[at + 2 :]) >= suffix_tokens
            and all(20 < len(line) < 90 and not line.lstrip().startswith("#") for line in lines[at : at + 2])
        ]
        if not starts:
            continue
        at = rng.choice(starts)
        first, last = at, at + 2
        while sum(counts[first:at]) < prefix_tokens:
            first -= 1
        while sum(counts[at + 2 : last]) < suffix_tokens:
            last += 1
        typed = "".join(lines[at : at + 2]).rstrip("\n")
        found.append(Trace(path.name, "".join(lines[first:at]), typed, "\n" + "".join(lines[at + 2 : last])))
        if len(found) == number:
            break
    return found


def _files(rng: random.Random) -> Iterator[Path]:
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    yield from rng.sample(files, len(files))
