"""Who computes when: one step after the other, each for as many requests as there are.

    waiting   ──admit──►  running                                        ──►  finished
    by urgency            reads its prompt, a piece a step                    slot idle, its tokens kept
                          writes, a token and guesses a step

A step takes one token, and guesses behind it, of every sequence that writes, and fills up with pieces of the
prompts that are still to be read. So nobody who writes waits for somebody's long prompt, and a cancelled request
is gone before the next step, in the middle of its prompt as well.

Infilling goes before chat: where slots are scarce, the sequence of least urgency is put aside and goes on later
from its tokens. A newer request of a session cancels the older one. Copies of a prompt wait until the first has
read it, and then begin from its slot.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
import xxhash
from torch import Tensor

from midspan.engine.cache import Slots, num_shared
from midspan.engine.request import Handle, Reason
from midspan.engine.runner import Part, Runner
from midspan.engine.sequence import Running
from midspan.engine.speculate import Drafter
from midspan.fim import Healer
from midspan.fim.stops import Stopper
from midspan.tokenizer import Tokenizer


class Scheduler:
    """Steps over requests; not safe between threads, but for `Handle.cancel`."""

    def __init__(
        self,
        runner: Runner,
        slots: Slots,
        tokenizer: Tokenizer,
        healer: Callable[[], Healer],
        *,
        chunk: int = 128,
        drafter: Callable[[Handle, list[int]], Drafter | None] = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            runner: the model.
            slots: of the runner's cache.
            tokenizer: whose ids the requests hold.
            healer: made when it is first needed.
            chunk: tokens of prompts that a step reads at most.
            drafter: who guesses for a request, if anybody, told what followed its prompt before.
            clock: seconds.
        """
        self._runner, self._slots, self._tokenizer, self._healer = runner, slots, tokenizer, healer
        self._chunk, self._drafter, self._clock = chunk, drafter, clock
        self._numbers = itertools.count()
        self.waiting: list[Running] = []
        self.running: list[Running] = []

    def submit(self, handle: Handle) -> None:
        """Take a request in."""
        request = handle.request
        if request.session is not None:
            for other in (*self.waiting, *self.running):
                theirs = other.handle.request
                if theirs.session == request.session and theirs.prompt is not request.prompt:
                    other.handle.cancel()
        prompt, example = list(request.prompt), request.example
        sequence = Running(
            handle=handle,
            number=next(self._numbers),
            due=None if request.deadline is None else self._clock() + request.deadline,
            reading=list(example.ids[:-1]) if example else prompt,
            budget=request.max_tokens,
            owed=request.owed,
            stopper=Stopper(request.stops, request.prefix, request.suffix),
            drafter=None,
            walk=request.constraint.begin() if request.constraint else None,
            place=xxhash.xxh3_64_intdigest(np.array(prompt, dtype="<u4").tobytes()),
            scoring=example is not None,
            to_skip=len(request.owed),
        )
        sequence.usage.prompt = len(prompt)
        self.waiting.append(sequence)

    def step(self) -> bool:
        """Let everybody read and write once; whether there is more to do."""
        self._sweep()
        self._admit()
        work = self._plan()
        if work:
            parts = [part for _, part, _ in work]
            all_logits_nv = self._runner.step(parts)
            # Rows of the head beyond the vocabulary are padding, and no tokens.
            logits_nv = all_logits_nv[:, : self._tokenizer.vocab_size]
            best = logits_nv.argmax(-1).tolist() if len(logits_nv) else []
            row = 0
            for sequence, part, guesses in work:
                rows = slice(row, row + part.num_outputs)
                row = rows.stop
                self._slots.append(part.slot, part.ids)
                sequence.usage.evaluated += len(part.ids)
                if sequence.scoring:
                    self._score(sequence, all_logits_nv[rows])
                elif part.num_outputs:
                    self._write(sequence, logits_nv[rows], best[rows], guesses)
        return bool(self.waiting or self.running)

    def abandon(self, error: BaseException) -> None:
        """A step broke off: nobody gets a completion, and what the slots in use hold is not known any more."""
        for sequence in self.running:
            assert sequence.slot is not None
            self._slots.truncate(sequence.slot, 0)
            self._slots.release(sequence.slot)
        for sequence in (*self.running, *self.waiting):
            if sequence.drafter is not None:
                sequence.drafter.close()
            sequence.handle.fail(error)
        self.running.clear()
        self.waiting.clear()

    def _sweep(self) -> None:
        """Take out who was cancelled or is late."""
        now = self._clock()
        for sequence in (*self.waiting, *self.running):
            if sequence.handle.is_cancelled:
                self._finish(sequence, "cancelled")
            elif sequence.due is not None and now >= sequence.due:
                self._finish(sequence, "deadline")

    def _admit(self) -> None:
        """Give slots to those who wait, the most urgent first."""
        self.waiting.sort(key=lambda sequence: sequence.urgency)
        for sequence in list(self.waiting):
            if self._will_be_shared(sequence):
                continue
            if sequence.drafter is None and sequence.handle.request.drafts is not None:
                sequence.continued = self._slots.continuation(sequence.reading)
            found = self._slots.acquire(sequence.reading, self._needed(sequence))
            if found is None:
                last = max(self.running, key=lambda other: other.urgency)
                if last.handle.request.priority <= sequence.handle.request.priority:
                    return
                self._put_aside(last)
                found = self._slots.acquire(sequence.reading, self._needed(sequence))
                assert found is not None
            sequence.slot, cached = found
            if not sequence.written and not sequence.scoring:
                sequence.usage.cached = cached
            if sequence.scoring:  # its losses need what the model says on the way
                self._slots.truncate(sequence.slot, min(cached, self._first_scored(sequence)))
            self.waiting.remove(sequence)
            self.running.append(sequence)

    def _will_be_shared(self, sequence: Running) -> bool:
        """Whether somebody is reading much of the same prompt, which is worth waiting for."""
        best = 0
        for other in self.running:
            assert other.slot is not None
            held = len(self._slots.ids[other.slot])
            if held < len(other.reading) - 1:
                shared = num_shared(other.reading, sequence.reading)
                best = max(best, shared if shared > held else 0)
        return best > max(self._chunk // 4, self._slots.match(sequence.reading))

    def _needed(self, sequence: Running) -> int:
        """Tokens for which its slot needs room at most; a token says at least a byte of what is owed."""
        request = sequence.handle.request
        longest = max(len(request.prompt) + 1, len(request.example.ids) if request.example else 0)
        wanted = len(request.prompt) + request.max_tokens + len(request.owed)
        return max(longest, min(wanted, self._runner.max_positions))

    def _put_aside(self, sequence: Running) -> None:
        assert sequence.slot is not None
        self._slots.release(sequence.slot)
        sequence.slot = None
        self.running.remove(sequence)
        self.waiting.append(sequence)

    def _plan(self) -> list[tuple[Running, Part, list[int]]]:
        """What is read in this step, with the guesses in it."""
        work: list[tuple[Running, Part, list[int]]] = []
        left, alike = self._chunk, self._runner.alike - len(self.running)
        readers = []
        for sequence in self.running:
            assert sequence.slot is not None
            if len(sequence.reading) - len(self._slots.ids[sequence.slot]) > 1 or sequence.scoring:
                readers.append(sequence)
                continue
            guesses = self._guesses(sequence, alike)
            ids = [sequence.reading[-1], *guesses]
            work.append((sequence, Part(sequence.slot, ids, len(ids)), guesses))
            left -= len(ids)
            alike -= len(guesses)
        left = max(left, self._chunk // 2)
        for sequence in sorted(readers, key=lambda one: one.urgency):
            assert sequence.slot is not None
            held = len(self._slots.ids[sequence.slot])
            ids = sequence.reading[held : held + left]
            left -= len(ids)
            alike -= len(ids) - 1
            if ids:
                guesses = []
                outputs = int(held + len(ids) == len(sequence.reading))
                if sequence.scoring:
                    outputs = max(0, held + len(ids) - max(held, self._first_scored(sequence)))
                elif outputs:  # the end of the prompt: what is owed may be guessed already
                    guesses = self._guesses(sequence, alike)
                    alike -= len(guesses)
                part = Part(sequence.slot, [*ids, *guesses], outputs + len(guesses))
                work.append((sequence, part, guesses))
        return work

    def _guesses(self, sequence: Running, alike: int) -> list[int]:
        """Tokens to read behind the last one, as many as may still be written.

        Where nobody guesses what was taken back from the prompt, the guess is that it stands as it was typed.

        Args:
            alike: more would be computed otherwise than one by one, and might choose another text.
        """
        if sequence.drafter is None:
            sequence.drafter = self._drafter(sequence.handle, sequence.continued)
        most = min(self._runner.max_positions, self._needed(sequence)) - len(sequence.reading) - 1
        most = min(most, alike)
        found: list[int] = []
        if sequence.drafter is not None:
            room = min(sequence.budget - len(sequence.written) - 1, most)
            found = sequence.drafter.propose(sequence.reading, room)
            sequence.usage.drafted += len(found)
        sequence.is_respelling = bool(sequence.owed) and not found and not sequence.written
        if sequence.is_respelling:
            found = self._healer().spell(sequence.owed)[: max(0, most)]
        return found

    def _first_scored(self, sequence: Running) -> int:
        """The first position of an example behind which a loss is wanted."""
        example = sequence.handle.request.example
        assert example is not None
        return len(example.ids) - 1 - example.num_middle

    def _score(self, sequence: Running, logits_nv: Tensor) -> None:
        """Losses of an example's middle; once it is read, go back to where the prompt parts from it."""
        example = sequence.handle.request.example
        assert example is not None
        assert sequence.slot is not None
        if len(logits_nv):
            first = self._first_scored(sequence) + len(sequence.losses) + 1
            targets_n = torch.tensor(example.ids[first : first + len(logits_nv)], device=logits_nv.device)
            losses_n = torch.nn.functional.cross_entropy(logits_nv.float(), targets_n, reduction="none")
            sequence.losses += losses_n.tolist()
        if len(self._slots.ids[sequence.slot]) == len(sequence.reading):
            sequence.scoring = False
            prompt = list(sequence.handle.request.prompt)
            self._slots.truncate(sequence.slot, min(num_shared(prompt, sequence.reading), len(prompt) - 1))
            sequence.reading = prompt

    def _write(self, sequence: Running, logits_nv: Tensor, best: list[int], guesses: list[int]) -> None:
        """Choose the next tokens: one, and one more for each guess that turned out right."""
        assert sequence.slot is not None
        before = len(self._slots.ids[sequence.slot]) - len(guesses)
        right = 0
        for row, logits_v in enumerate(logits_nv):
            token_id = sequence.choose(logits_v, best[row], self._healer)
            reason = sequence.take(token_id, self._tokenizer.piece_bytes(token_id), self._runner.max_positions)
            hit = row < len(guesses) and token_id == guesses[row] and sequence.reading[-1] == token_id
            right += hit and len(sequence.reading) > before + right
            if reason is not None or not hit:
                break
        if not sequence.is_respelling:
            sequence.usage.accepted += right
            if sequence.drafter is not None:
                sequence.drafter.judge(len(guesses), right)
        self._slots.truncate(sequence.slot, before + right)
        if reason is not None:
            self._finish(sequence, reason)

    def _finish(self, sequence: Running, reason: Reason) -> None:
        """Hand out the completion and free the slot."""
        completion = sequence.completion(reason)
        if sequence.slot is not None:
            self._slots.release(sequence.slot, keep=sequence.handle.request.keep)
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        if sequence.drafter is not None:
            sequence.drafter.close()
        sequence.handle.finish(completion)


def copies(prompts: Sequence[Sequence[int]]) -> list[int]:
    """For each prompt, which occurrence of it this is."""
    seen: dict[tuple[int, ...], int] = {}
    found = []
    for prompt in prompts:
        key = tuple(prompt)
        found.append(seen.get(key, 0))
        seen[key] = found[-1] + 1
    return found
