"""Prompts → completions: every prompt is read alone, then all sequences grow together.

    slot 0   prompt prompt prompt t t t t      one forward pass writes one token of every running sequence;
    slot 1   prompt prompt t t                 weights are read once for all of them, which is most of the time
    slot 2   prompt prompt prompt prompt t     of decoding

A sequence that ends gives its slot to the last one, and the next prompt starts there: slots in use are always
the first ones, and no step is spent on a finished sequence. What a sequence gets does not depend on the others
but for the last bits of the arithmetic.

A prompt that ends in text is healed (`fim.heal`): its last tokens are taken back and written again by the model.

Left out: reuse of what an earlier call has read, speculation, streaming.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import xxhash
from torch import Tensor

from midspan.cache import resolve_model
from midspan.engine.decoder import Decoder, DecoderKind, Span, TorchDecoder, open_decoder
from midspan.engine.sample import Place, SampleConfig, choose
from midspan.errors import InputError
from midspan.fim import Example, FimFormat, Healer, Layout, infill_prompt
from midspan.fim.example import bos_of
from midspan.model import KVCache, Llama
from midspan.model.loss import token_losses
from midspan.model.quant import Bits
from midspan.model.weights import load_model, tokenizer_path
from midspan.tokenizer import Tokenizer

GREEDY = SampleConfig()


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model wrote after a prompt."""

    ids: list[int]
    """Without the id that stopped it; what was owed stands at the beginning."""
    text: str
    """`ids` as text, without what was owed; bytes that are no UTF-8 are U+FFFD."""
    finish_reason: Literal["stop", "length"]
    losses: list[float] | None = None
    """Nats of the last `num_middle` ids of the example that was read along with the prompt."""


@dataclass(slots=True)
class _Sequence:
    """One running sequence."""

    index: int
    place: tuple[int, int]
    prompt: Sequence[int]
    budget: int
    """Tokens that it may write, beside those that begin by saying what is owed."""
    limit: int
    """Tokens for which there are positions."""
    logits_v: Tensor
    losses: list[float] | None
    owed: bytes
    """What the next tokens have to say first."""
    num_owed: int
    """Bytes that were owed at the start."""
    ids: list[int] = field(default_factory=list)
    stopped: bool = False

    @property
    def next_place(self) -> Place:
        return Place(*self.place, len(self.prompt) + len(self.ids))

    @property
    def finished(self) -> bool:
        return self.stopped or len(self.ids) >= min(self.budget, self.limit)


class Engine:
    """A model that completes and infills."""

    def __init__(
        self, model: Llama, tokenizer: Tokenizer, *, max_batch: int = 32, decoder: Decoder | None = None
    ) -> None:
        """
        Args:
            model: on any device, in any dtype.
            tokenizer: the model's own; the embedding may have further, padding rows.
            max_batch: sequences that run at a time.
            decoder: who reads few tokens at a time; the model itself where none is given.

        Raises:
            InputError: the vocabulary has more ids than the model has rows.
        """
        if tokenizer.vocab_size > model.config.vocab_size:
            raise InputError(
                f"the vocabulary has {tokenizer.vocab_size} ids and the model's embedding only "
                f"{model.config.vocab_size} rows; use the tokenizer that belongs to the model"
            )
        self.model, self.tokenizer = model, tokenizer
        self.max_batch = max_batch
        self.decoder = decoder or TorchDecoder(model)
        self.fim = FimFormat.detect(tokenizer)
        """The model's sentinels and layouts; None where it cannot infill."""

    @staticmethod
    def load(
        name_or_path: str | Path,
        *,
        dtype: torch.dtype = torch.bfloat16,
        device: torch.device | str = "cpu",
        max_batch: int = 32,
        decoder: DecoderKind = "auto",
        bits: Bits = 8,
    ) -> Engine:
        """The model that a name, a checkpoint's path or a run's folder means, with its tokenizer.

        Args:
            decoder, bits: who reads few tokens at a time, and in which weights where that is the fused step.

        Raises:
            InputError: as `resolve_model`, `load_model` and `open_decoder`.
            WorkError: as `open_decoder`.
        """
        path = resolve_model(name_or_path)
        tokenizer = Tokenizer.load(tokenizer_path(path))
        model = load_model(path, dtype=dtype, device=device)
        return Engine(model, tokenizer, max_batch=max_batch, decoder=open_decoder(model, decoder, bits, path))

    def complete(self, text: str, *, max_tokens: int, sample: SampleConfig = GREEDY) -> Completion:
        """Go on with a text, up to the first special token.

        Raises:
            InputError: as `generate`.
        """
        prompt, owed = self.healer.take_back(bos_of(self.tokenizer) + self.tokenizer.encode(text))
        return self.generate(
            [prompt], max_tokens=max_tokens, stop_ids=self._special_ids, sample=sample, owed=[owed]
        )[0]

    def infill(
        self,
        prefix: str,
        suffix: str,
        *,
        layout: Layout = "spm",
        max_tokens: int,
        sample: SampleConfig = GREEDY,
    ) -> Completion:
        """What stands between two texts.

        Of texts that are too long for the model together, the end of the prefix and the start of the suffix
        are used.

        Raises:
            InputError: the vocabulary has no sentinels, the family no such layout, or as `generate`.
        """
        prompt = self.infill_prompt(prefix, suffix, layout=layout, max_tokens=max_tokens)
        assert self.fim is not None
        prompt, owed = self.healer.take_back(prompt)
        return self.generate(
            [prompt], max_tokens=max_tokens, stop_ids=self.fim.stop_ids, sample=sample, owed=[owed]
        )[0]

    def infill_prompt(self, prefix: str, suffix: str, *, layout: Layout, max_tokens: int) -> list[int]:
        """The ids of an infilling prompt that leaves room for `max_tokens`.

        The prefix has three quarters of the room and the suffix one; what one does not need the other gets.
        """
        if self.fim is None:
            raise InputError(
                "this model's vocabulary has no infilling sentinels; train it with recipes/smol/code.toml, "
                "or use `midspan complete`"
            )
        limit = self.model.config.max_positions - max_tokens
        budget = limit - len(self.fim.assemble(layout, (), ()))
        if budget < 1:
            raise InputError(
                f"{max_tokens} new tokens leave no room for a prompt in the model's "
                f"{self.model.config.max_positions} positions; ask for fewer"
            )
        while True:
            parts = self._cut(prefix, suffix, budget)
            prompt = infill_prompt(self.tokenizer, self.fim, *parts, layout)
            if len(prompt) <= limit:
                return prompt
            budget -= len(prompt) - limit  # a text that was cut may need other, more tokens at its border

    def _cut(self, prefix: str, suffix: str, budget: int) -> tuple[str, str]:
        """The end of the prefix and the start of the suffix that are `budget` tokens together."""
        prefix_ids = self.tokenizer.encode(prefix)
        suffix_ids = self.tokenizer.encode(suffix, leading_space=False)
        num_suffix = min(len(suffix_ids), max(budget // 4, budget - len(prefix_ids)))
        num_prefix = budget - num_suffix
        if num_prefix < len(prefix_ids):
            prefix = self._text(prefix_ids[len(prefix_ids) - num_prefix :])
        if num_suffix < len(suffix_ids):
            suffix = self._text(suffix_ids[:num_suffix])
        return prefix, suffix

    def _text(self, ids: list[int]) -> str:
        return self.tokenizer.decode_bytes(ids).decode("utf-8", errors="ignore")  # a token may end in a character

    @cached_property
    def healer(self) -> Healer:
        """Token healing for this vocabulary."""
        return Healer(self.tokenizer)

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(filter(self.tokenizer.is_special, range(self.tokenizer.vocab_size)))

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int | Sequence[int],
        stop_ids: Collection[int] = (),
        sample: SampleConfig = GREEDY,
        owed: Sequence[bytes] | None = None,
        examples: Sequence[Example] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[Completion]:
        """Complete prompts of token ids, in their order.

        A prompt that occurs several times gets several samples. The same prompt with the same seed gets the
        same text in whatever company.

        Args:
            prompts: token ids; each has at least one, and fewer than the model has positions.
            max_tokens: of each completion, or of each prompt's; it ends earlier where positions do.
            stop_ids: ids that end a completion.
            sample: how tokens are chosen.
            owed: for each prompt, the bytes that its completion begins with and that its text leaves out (what
                `healer.take_back` took); the tokens that say them do not count against `max_tokens`.
            examples: for each prompt, the example with the true middle. Its losses come with the completion,
                and what it shares with the prompt is read once.
            progress: called with the number of finished prompts.

        Raises:
            InputError: a prompt is empty or too long, or max_tokens is not positive.
        """
        owed = [b""] * len(prompts) if owed is None else owed
        budgets = [max_tokens] * len(prompts) if isinstance(max_tokens, int) else list(max_tokens)
        examples_or_none = list(examples) if examples is not None else [None] * len(prompts)
        needed = [self._checked(*one) for one in zip(prompts, budgets, owed, examples_or_none, strict=True)]
        places = _places(prompts)
        num_slots = min(self.max_batch, len(prompts))
        cache = self._cache(max(needed, default=0), num_slots)
        # Longest first: sequences of like length run together, and a step costs as much as its longest.
        waiting = deque(sorted(range(len(prompts)), key=lambda i: -needed[i]))
        running: list[_Sequence] = []
        done: dict[int, Completion] = {}
        while waiting or running:
            while waiting and len(running) < num_slots:
                i = waiting.popleft()
                logits_v, losses = self._read_prompt(cache, len(running), prompts[i], examples_or_none[i])
                limit = self.model.config.max_positions - len(prompts[i])
                running.append(
                    _Sequence(i, places[i], prompts[i], budgets[i], limit, logits_v, losses, owed[i], len(owed[i]))
                )
            self._choose(running, stop_ids, sample)
            for slot in reversed(range(len(running))):
                if running[slot].finished:
                    done[running[slot].index] = self._completion(running[slot])
                    _release(cache, running, slot)
            if progress is not None:
                progress(len(done))
            if running:
                self._step(cache, running)
        return [done[i] for i in range(len(prompts))]

    @torch.inference_mode()
    def losses(self, ids: Sequence[int]) -> list[float]:
        """Nats of each id but the first, given those before it."""
        ids_l = torch.tensor(ids, device=self.model.model.norm.weight.device)
        hidden_ld = self.model.hidden(ids_l[None, :-1])[0]
        return token_losses(hidden_ld, self.model.lm_head, ids_l[1:]).tolist()

    def _checked(self, prompt: Sequence[int], budget: int, owed: bytes, example: Example | None) -> int:
        """Positions that a sequence needs at most."""
        positions = self.model.config.max_positions
        longest = max(len(prompt) + 1, len(example.ids) if example else 0)
        if not prompt:
            raise InputError("a prompt is empty; give it at least one token")
        if longest > positions:
            raise InputError(
                f"a prompt of {len(prompt)} tokens does not fit the model's {positions} positions; shorten it"
            )
        if budget < 1:
            raise InputError(f"max_tokens is {budget}; it must be at least 1")
        return max(longest, min(len(prompt) + budget + len(owed), positions))  # a token says a byte at least

    def _cache(self, capacity: int, num_slots: int) -> KVCache:
        weight = self.model.model.norm.weight
        return KVCache(
            self.model.config,
            capacity=capacity,
            num_slots=num_slots,
            dtype=weight.dtype,
            device=weight.device,
        )

    def _read(self, cache: KVCache, slot: int, ids: Sequence[int]) -> Tensor:
        """Append ids to one sequence; their final hidden states (length, hidden size)."""
        ids_1l = torch.tensor([ids], device=cache.memory.device)
        return self.model.hidden(ids_1l, cache=cache, slots=slice(slot, slot + 1))[0]

    def _read_on(self, cache: KVCache, slot: int, ids: Sequence[int]) -> Tensor:
        """Append ids to one sequence; the logits behind the last one."""
        if len(ids) <= self.decoder.few:
            return self.decoder.step(cache, [Span(slot, ids)])[0]
        return self.model.lm_head(self._read(cache, slot, ids)[-1])

    def _read_prompt(
        self, cache: KVCache, slot: int, prompt: Sequence[int], example: Example | None
    ) -> tuple[Tensor, list[float] | None]:
        """Fill a slot with a prompt: the logits behind it, and the example's losses."""
        cache.truncate(slot, 0)
        if example is None:
            return self._read_on(cache, slot, prompt), None
        hidden_ld = self._read(cache, slot, example.ids[:-1])
        n = example.num_middle
        targets_n = torch.tensor(example.ids[-n:], device=hidden_ld.device)
        losses = token_losses(hidden_ld[-n:], self.model.lm_head, targets_n).tolist()
        shared = _num_shared(prompt, example.ids[:-1])
        cache.truncate(slot, shared)
        if shared == len(prompt):
            return self.model.lm_head(hidden_ld[shared - 1]), losses
        return self._read_on(cache, slot, prompt[shared:]), losses

    def _choose(self, running: list[_Sequence], stop_ids: Collection[int], sample: SampleConfig) -> None:
        """Give every running sequence its next token."""
        # Rows of the embedding beyond the vocabulary are padding, and no tokens.
        logits_nv = torch.stack([s.logits_v[: self.tokenizer.vocab_size].float() for s in running])
        for sequence, logits_v in zip(running, logits_nv, strict=True):
            if sequence.owed:
                allowed = torch.tensor(self.healer.allowed(sequence.owed), device=logits_v.device)
                kept = logits_v[allowed]
                logits_v.fill_(-torch.inf)
                logits_v[allowed] = kept
        chosen = choose(logits_nv, sample, [s.next_place for s in running])
        for sequence, token_id in zip(running, chosen, strict=True):
            if token_id in stop_ids:
                sequence.stopped = True
                continue
            sequence.ids.append(token_id)
            if sequence.owed:
                sequence.owed = sequence.owed[len(self.tokenizer.piece_bytes(token_id)) :]
                sequence.budget += 1

    def _step(self, cache: KVCache, running: list[_Sequence]) -> None:
        """Read the token that every running sequence got last."""
        logits_nv = self.decoder.step(cache, [Span(slot, s.ids[-1:]) for slot, s in enumerate(running)])
        for sequence, logits_v in zip(running, logits_nv, strict=True):
            sequence.logits_v = logits_v

    def _completion(self, sequence: _Sequence) -> Completion:
        data = self.tokenizer.decode_bytes(sequence.ids)[sequence.num_owed :]
        text = data.decode("utf-8", errors="replace")
        reason: Literal["stop", "length"] = "stop" if sequence.stopped else "length"
        return Completion(sequence.ids, text, reason, sequence.losses)


def _release(cache: KVCache, running: list[_Sequence], slot: int) -> None:
    """Take a finished sequence out; the last one moves into its slot."""
    last = len(running) - 1
    if slot != last:
        cache.fork(last, slot)
        running[slot] = running[last]
    running.pop()


def _places(prompts: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """A number for every prompt, by its ids alone, and which occurrence of it this is."""
    seen: Counter[int] = Counter()
    places = []
    for prompt in prompts:
        number = xxhash.xxh3_64_intdigest(np.array(prompt, dtype="<u4").tobytes())
        places.append((number, seen[number]))
        seen[number] += 1
    return places


def _num_shared(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    for index, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return index
    return min(len(a), len(b))
