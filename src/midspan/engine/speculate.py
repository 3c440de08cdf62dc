"""Guessing ahead: tokens that are probably next, read along with the one that is known.

Reading a few tokens costs little more than reading one, since the weights are what has to be moved. So guesses go
into the same step, and those that the model would have chosen anyway are kept:

    known    "return"             guessed  " x" " +" " y"
    chosen   " x" " +" " z"       two guesses were right, and " z" is the next token: three tokens in one step

What is chosen is never touched. Each token comes from the model's own logits and from the random number of its own
place, so the text is, token for token, the one without guesses, greedy or sampled.

Nothing is needed for it but the text at hand. Code repeats: the suffix uses the names that the hole defines,
other files show how an API is called. And the previous suggestion, of which the user has typed some characters, is
mostly right to its end. A small model can guess as well (`ModelDrafter`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from midspan.engine.cache import num_shared
from midspan.engine.runner import Part, Runner
from midspan.tokenizer import Tokenizer

LONGEST, SHORTEST = 4, 2
"""Tokens in a row that have to agree with a place before it is copied from."""
WIDTH = 8
"""Guesses in one step at most."""


class Drafter(Protocol):
    """Something that guesses for one sequence."""

    def propose(self, ids: Sequence[int], written: bytes, most: int) -> list[int]:
        """Up to `most` tokens that may follow.

        Args:
            ids: prompt and text so far.
            written: the bytes of the text so far, with what was owed.
            most: how many are of use.
        """

    def judge(self, proposed: int, accepted: int) -> None:
        """How many of the last guesses were right."""

    def close(self) -> None:
        """The sequence has ended."""


class CopyDrafter:
    """Copies what followed the last tokens elsewhere: in the prompt itself, or in other texts."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        texts: Sequence[Sequence[int]] = (),
        guess: bytes = b"",
        width: int = WIDTH,
    ) -> None:
        self._tokenizer, self._guess = tokenizer, guess
        self._texts = [np.array(text, np.int64) for text in texts if len(text) > SHORTEST]
        self._own = np.empty(2 * len(prompt) + 64, np.int64)
        self._num_own = 0
        self._most = self._width = width

    def propose(self, ids: Sequence[int], written: bytes, most: int) -> list[int]:
        """See `Drafter.propose`."""
        most = min(most, self._width)
        if most <= 0:
            return []
        if len(self._guess) > len(written) and self._guess.startswith(written):
            rest = self._guess[len(written) :].decode("utf-8", errors="ignore")
            return self._tokenizer.encode(rest, leading_space=False)[:most]
        own = self._grown(ids)
        for length in range(min(LONGEST, len(own) - 1), SHORTEST - 1, -1):
            for text in (own, *self._texts):
                place = _last_place(text, own[-length:])
                if place is not None:
                    return text[place : place + most].tolist()
        return []

    def judge(self, proposed: int, accepted: int) -> None:
        """Guess further after a success, less far after a failure."""
        if proposed:
            self._width = min(self._most, self._width * 2) if accepted == proposed else max(2, accepted + 1)

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

    def propose(self, ids: Sequence[int], written: bytes, most: int) -> list[int]:
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
