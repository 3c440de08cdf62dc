"""One text under way: what is chosen next, what is shown of it, and when it ends."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from midspan.engine.constrain import Walk
from midspan.engine.request import Completion, FinishReason, Handle, Reason, TokenLogprob, Usage
from midspan.engine.sample import Place, adjusted, choose
from midspan.engine.speculate import Drafter
from midspan.fim import Healer
from midspan.fim.stops import Stopper


@dataclass(eq=False)
class Running:
    """One request under way."""

    handle: Handle
    number: int
    due: float | None
    """The time at which it ends."""
    reading: list[int]
    """What its slot has to hold before the next token can be chosen; the text grows at its end."""
    budget: int
    owed: bytes
    stopper: Stopper
    drafter: Drafter | None
    walk: Walk | None
    place: int
    """A number for its prompt, by the ids alone."""
    scoring: bool
    """It still reads the example whose losses are wanted."""
    to_skip: int
    """Bytes of the next tokens that are no text, since they were owed."""
    is_respelling: bool = False
    """Its last guesses are what was taken back from its prompt, and nobody's to be judged by."""
    continued: list[int] = field(default_factory=list)
    """What followed its prompt when that was read before."""
    slot: int | None = None
    written: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """Characters of the text that are there behind each token."""
    losses: list[float] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    reason: Reason | None = None
    usage: Usage = field(default_factory=Usage)
    decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")(errors="replace")
    )

    @property
    def urgency(self) -> tuple[int, int]:
        """Smaller is sooner."""
        return self.handle.request.priority, self.number

    def choose(self, logits_v: Tensor, best: int, healer: Callable[[], Healer]) -> int:
        """The next token, where the largest logit is at `best`."""
        request = self.handle.request
        plain = request.sample.is_plain and not self.owed and self.walk is None
        masked_v = logits_v
        if not plain:
            masked_v = adjusted(logits_v, request.sample, request.prompt, self.written)
            allowed = self._allowed(healer)
            if allowed is not None:
                allowed = allowed.to(logits_v.device)
                masked_v = torch.full_like(masked_v, -torch.inf).index_copy_(0, allowed, masked_v[allowed])
            place = Place(self.place, request.copy, len(self.reading))
            best = choose(masked_v[None], request.sample, [place])[0]
        if request.num_logprobs is not None and best not in request.stop_ids:
            log_p_v = logits_v.float().log_softmax(-1)
            values, ids = log_p_v.topk(min(request.num_logprobs, len(log_p_v)))
            top = list(zip(ids.tolist(), values.tolist(), strict=True))
            self.logprobs.append(TokenLogprob(best, float(log_p_v[best]), top))
        return best

    def _allowed(self, healer: Callable[[], Healer]) -> Tensor | None:
        """Ids that what is owed or a constraint leaves; None for all."""
        if self.owed:
            return torch.from_numpy(healer().allowed(self.owed))
        if self.walk is None:
            return None
        ids = self.walk.allowed()
        if self.walk.may_end or not len(ids):
            ends = torch.tensor(sorted(self.handle.request.stop_ids), dtype=ids.dtype)
            ids = torch.cat([ids, ends])
        return ids

    def take(self, token_id: int, data: bytes, max_positions: int) -> Reason | None:
        """Add a token to the text; the reason if the text ends with it."""
        request = self.handle.request
        if token_id in request.stop_ids:
            return "eot"
        self.written.append(token_id)
        self.reading.append(token_id)
        if self.owed:
            self.owed = self.owed[len(data) :]
            self.budget += 1
        if self.walk is not None:
            self.walk.take(token_id)
        new = data[self.to_skip :]
        self.to_skip -= len(data) - len(new)
        characters = self.decoder.decode(new)
        self.ends.append((self.ends[-1] if self.ends else 0) + len(characters))
        self.handle.put(self.stopper.push(characters))
        if self.stopper.reason is not None:
            return self.stopper.reason
        if self.walk is not None and self.walk.done:
            return "constraint"
        spent = len(self.written) >= self.budget or len(self.reading) >= max_positions
        return "length" if spent else None

    def completion(self, reason: Reason) -> Completion:
        """Show the rest of the text, and put together what came of the request."""
        request, stopper = self.handle.request, self.stopper
        handle = self.handle
        handle.put(stopper.push(self.decoder.decode(b"", final=True)))
        handle.put(stopper.end(complete=reason in ("eot", "constraint")))
        if reason == "eot" and stopper.reason is not None:
            reason = stopper.reason
        ids = self.written
        if ids and len(stopper.text) < self.ends[-1]:  # cut: keep the tokens that hold a character of it
            ids = ids[: sum(end < len(stopper.text) for end in self.ends) + bool(stopper.text)]
        finish: FinishReason = "cancelled" if reason == "cancelled" else "stop"
        if reason in ("length", "deadline"):
            finish = "length"
        logprobs = self.logprobs[: len(ids)] if request.num_logprobs is not None else None
        losses = self.losses if request.example else None
        return Completion(ids, stopper.text, finish, losses, reason, logprobs, self.usage)
