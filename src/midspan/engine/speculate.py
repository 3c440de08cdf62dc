"""Guessing ahead: tokens that are probably next, read along with the one that is known.

Reading a few tokens costs little more than reading one, since the weights are what has to be moved. So guesses go
into the same step, and those that the model would have chosen anyway are kept:

    known    "return"             guessed  " x" " +" " y"
    chosen   " x" " +" " z"       two guesses were right, and " z" is the next token: three tokens in one step

What is chosen is never touched. Each token comes from the model's own logits and from the random number of its own
place, so the text is, token for token, the one without guesses, greedy or sampled.

Nothing is needed for it but the text at hand. A prompt that was asked before, or was typed on as suggested, is
followed by what was written then: the cache remembers. And code repeats: the suffix uses the names that the hole
defines, other files show how an API is called. A small model can guess as well (`ModelDrafter`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from midspan.engine.cache import num_shared
from midspan.engine.runner import Part, Runner

LONGEST, SHORTEST = 4, 2
"""Tokens in a row that have to agree with a place before it is copied from."""
FIRST, WIDTH = 2, 8
"""Copies in one step, of an untried guesser and at most: a wrong one is paid for, most of all by processors that
compute slowly beside what they read."""
CONTINUED_FIRST, CONTINUED_WIDTH = 8, 15
"""The same of what followed the prompt before."""


class Drafter(Protocol):
    """Something that guesses for one sequence."""

    def propose(self, ids: Sequence[int], most: int) -> list[int]:
        """Up to `most` tokens that may follow prompt and text so far."""

    def judge(self, proposed: int, accepted: int) -> None:
        """How many of the last guesses were right."""

    def close(self) -> None:
        """The sequence has ended."""


class CopyDrafter:
    """Copies what followed the last tokens elsewhere: behind the same prompt before, in it, or in other texts."""

    def __init__(
        self, prompt: Sequence[int], texts: Sequence[Sequence[int]] = (), continued: Sequence[int] = ()
    ) -> None:
        """
        Args:
            prompt: of the sequence.
            texts: in which the next tokens may stand.
            continued: what followed the prompt when it was read before.
        """
        self._start, self._continued, self._continues = len(prompt), list(continued), False
        self._texts = [np.array(text, np.int64) for text in texts if len(text) > SHORTEST]
        self._own = np.empty(2 * len(prompt) + 64, np.int64)
        self._num_own = 0
        self._width, self._continued_width = FIRST, CONTINUED_FIRST

    def propose(self, ids: Sequence[int], most: int) -> list[int]:
        """See `Drafter.propose`."""
        if most <= 0:
            return []
        written = list(ids[self._start :])
        before, rest = self._continued[: len(written)], self._continued[len(written) :]
        self._continues = bool(rest) and written == before
        if self._continues:
            return rest[: min(most, self._continued_width)]
        most = min(most, self._width)
        own = self._grown(ids)
        for length in range(min(LONGEST, len(own) - 1), SHORTEST - 1, -1):
            for text in (own, *self._texts):
                place = _last_place(text, own[-length:])
                if place is not None:
                    return text[place : place + most].tolist()
        return []

    def judge(self, proposed: int, accepted: int) -> None:
        """Guess further after a success, less far after a failure."""
        if self._continues and accepted == proposed:
            self._continued_width = CONTINUED_WIDTH
        elif proposed and not self._continues:
            self._width = min(WIDTH, self._width * 2) if accepted == proposed else accepted + 1

    def close(self) -> None:
        """See `Drafter.close`."""

    def _grown(self, ids: Sequence[int]) -> np.ndarray:
        """The sequence as an array, to which only the new tokens are added."""
        if len(ids) > len(self._own):
            self._own = np.concatenate([self._own, np.empty(len(ids), np.int64)])
        self._own[self._num_own : len(ids)] = ids[self._num_own :]
        self._num_own = len(ids)
        return self._own[: len(ids)]


def _last_place(text: np.ndarray, key: np.ndarray) -> int | None:
    """Behind which token `key` ends in `text` for the last time, if it does with something behind it."""
    n = len(text) - len(key)
    if n <= 0:
        return None
    same = text[:n] == key[0]
    for offset in range(1, len(key)):
        same &= text[offset : offset + n] == key[offset]
    found = np.flatnonzero(same)
    return int(found[-1]) + len(key) if len(found) else None


class DraftModel:
    """A smaller model of the same vocabulary, with a slot for each sequence that it guesses for."""

    def __init__(self, runner: Runner, vocab_size: int) -> None:
        self.runner, self.vocab_size = runner, vocab_size
        self._taken: set[int] = set()

    def drafter(self) -> ModelDrafter:
        """A guesser for a new sequence."""
        slot = next(number for number in itertools.count() if number not in self._taken)
        self._taken.add(slot)
        self.runner.cache.reserve(num_slots=slot + 1)
        return ModelDrafter(self, slot)

    def release(self, slot: int) -> None:
        """A sequence has ended."""
        self.runner.cache.truncate(slot, 0)
        self._taken.discard(slot)


class ModelDrafter:
    """The smaller model's guesses for one sequence, its most probable tokens."""

    def __init__(self, model: DraftModel, slot: int, width: int = 4) -> None:
        self._model, self._slot, self._width = model, slot, width
        self._read: list[int] = []

    def propose(self, ids: Sequence[int], most: int) -> list[int]:
        """See `Drafter.propose`."""
        runner = self._model.runner
        most = min(most, self._width, runner.max_positions - len(ids) - 1)
        if most <= 0:
            return []
        shared = min(num_shared(self._read, ids), len(ids) - 1)
        if len(ids) + most > runner.cache.capacity:
            runner.cache.reserve(capacity=min(2 * len(ids) + 64, runner.max_positions))
        runner.cache.truncate(self._slot, shared)
        new, guesses = list(ids[shared:]), list[int]()
        while len(guesses) < most:
            guesses.append(int(runner.step([Part(self._slot, new)])[0, : self._model.vocab_size].argmax()))
            new = guesses[-1:]
        self._read = [*ids, *guesses[:-1]]
        return guesses

    def judge(self, proposed: int, accepted: int) -> None:
        """See `Drafter.judge`."""

    def close(self) -> None:
        """See `Drafter.close`."""
        self._model.release(self._slot)
