"""The engine: a model and its vocabulary, behind requests that several threads may make.

    submit(request) → handle        iterate over its text, wait for its result, or cancel it
    infill, complete                one text, waited for
    generate                        many prompts at a time, in their order

Nobody computes in the background. Whoever waits for a text takes the lead and lets all requests make a step, until
its own is there; the others wait for news meanwhile. A server that wants one thread to compute keeps one waiting
(`background`).

A prompt that ends in text is healed (`fim.heal`): its last tokens are taken back and written again by the model.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from midspan.cache import resolve_model
from midspan.engine.cache import Slots
from midspan.engine.decoder import DecoderKind, adapt_decoder, open_decoder
from midspan.engine.deferred import Deferred
from midspan.engine.front import Front
from midspan.engine.request import GREEDY, NO_RULES, Completion, Handle, Request
from midspan.engine.runner import FewTokens, Runner, TorchRunner
from midspan.engine.sample import SampleConfig
from midspan.engine.scheduler import Scheduler, copies
from midspan.engine.speculate import CopyDrafter, Drafter, DraftModel
from midspan.errors import InputError
from midspan.fim import Example
from midspan.fim.stops import StopRules
from midspan.model import Llama
from midspan.model.loss import token_losses
from midspan.model.precision import held_in
from midspan.model.quant import Bits
from midspan.model.weights import load_model, read_config, tokenizer_path
from midspan.model.weights.peft import attach, open_adapter
from midspan.tokenizer import Tokenizer

_CHUNK, _CHUNK_GPU = 128, 2048
"""Tokens of prompts in a step: a fraction of a second on either."""


def _nothing() -> None:
    pass


class Engine(Front):
    """A model that completes, infills and chats."""

    def __init__(
        self,
        model: Llama | Deferred,
        tokenizer: Tokenizer,
        *,
        max_batch: int = 32,
        cache_memory: int | None = None,
        store_memory: int | None = None,
        chunk: int | None = None,
        speculate: bool = True,
        draft: Llama | None = None,
        decoder: FewTokens | None = None,
    ) -> None:
        """
        Args:
            model: on any device, in any dtype; read when it is first wanted, if it is not here.
            tokenizer: the model's own; the embedding may have further, padding rows.
            max_batch: sequences that run at a time.
            cache_memory: bytes of keys and values of running sequences; a quarter of the memory if None.
            store_memory: bytes of those that are kept for later; a sixteenth of the memory if None.
            chunk: tokens of prompts that a step reads.
            speculate: guess ahead in `complete` and `infill` (see `engine.speculate`).
            draft: a smaller model of the same vocabulary that guesses ahead.
            decoder: a kernel that reads few tokens in the model's place.

        Raises:
            InputError: the vocabulary has more ids than the model has rows.
        """
        for each in (model, draft):
            if each is not None and tokenizer.vocab_size > each.config.vocab_size:
                raise InputError(
                    f"the vocabulary has {tokenizer.vocab_size} ids and the model's embedding only "
                    f"{each.config.vocab_size} rows; use the tokenizer that belongs to the model"
                )
        self.runner: Runner = TorchRunner(model, decoder)
        super().__init__(tokenizer, max_positions=self.runner.max_positions, speculate=speculate)
        self._source, self._kernel, self.max_batch = Deferred.of(model), decoder, max_batch
        on_gpu = self.runner.cache.memory.device.type != "cpu"
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        memory = torch.cuda.mem_get_info()[0] if on_gpu else physical
        self.slots = Slots(
            self.runner.cache,
            max_slots=max_batch,
            max_positions=self.runner.max_positions,
            max_bytes=memory // 4 if cache_memory is None else cache_memory,
            store_bytes=memory // 16 if store_memory is None else store_memory,
        )
        self._draft = None if draft is None else DraftModel(TorchRunner(draft), tokenizer.vocab_size)
        self.scheduler = Scheduler(
            self.runner,
            self.slots,
            tokenizer,
            lambda: self.healer,
            chunk=chunk or (_CHUNK_GPU if on_gpu else _CHUNK),
            drafter=self._drafter,
        )
        self._inbox: deque[Handle] = deque()
        self._turn = threading.Condition()
        self._led = False
        self._ended = False

    @staticmethod
    def load(
        name_or_path: str | Path,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        decoder: DecoderKind = "auto",
        bits: Bits = 8,
        **options: Any,
    ) -> Engine:
        """The model that a name, a checkpoint's path or a run's folder means, with its tokenizer.

        Args:
            dtype: of the weights; by itself what the device computes fastest (`held_in`).
            decoder, bits: who reads tokens, and in which weights where that is the fused step.

        Raises:
            InputError: as `resolve_model`, `load_model` and `open_decoder`.
            WorkError: as `open_decoder`.
        """
        path = resolve_model(name_or_path)
        tokenizer = Tokenizer.load(tokenizer_path(path))
        config = read_config(path)
        dtype = dtype or held_in(config, device)
        load = partial(load_model, path, dtype=dtype, device=device)
        model = Deferred(config, load, dtype=dtype, device=device)
        return Engine._of(model, tokenizer, open_decoder(model, decoder, bits, path), options)

    def adapted(self, path: Path, **options: Any) -> Engine:
        """A PEFT adapter of this engine's model, beside it: both compute with the same weights.

        Args:
            path: the adapter's folder.
            options: of the new engine.

        Raises:
            InputError: the adapter is damaged, of another kind or of another base.
        """
        adapter = open_adapter(path, self._source.config)
        tokenizer = Tokenizer.load(tokenizer_path(path))
        source = self._source
        model = Deferred(
            adapter.config, lambda: attach(source.model, adapter), dtype=source.dtype, device=source.device
        )
        return Engine._of(model, tokenizer, adapt_decoder(self._kernel, adapter), options)

    @staticmethod
    def _of(model: Deferred, tokenizer: Tokenizer, kernel: FewTokens | None, options: dict[str, Any]) -> Engine:
        if kernel is not None and kernel.few == sys.maxsize:
            model.forget()  # it was there to be packed
        else:
            _ = model.model  # rather now than in the first request
        return Engine(model, tokenizer, decoder=kernel, **options)

    @property
    def model(self) -> Llama:
        """The model in torch."""
        return self._source.model

    def submit(self, request: Request, on_news: Callable[[], None] | None = None) -> Handle:
        """Begin to work on a request; whoever waits for one works on all (`on_news` wants `background`).

        Raises:
            InputError: the prompt is empty or too long, or max_tokens is not positive.
        """
        self._check(request)
        handle = Handle(request, self._advance, on_news=on_news or _nothing)
        self._inbox.append(handle)
        with self._turn:
            self._turn.notify_all()
        return handle

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
        stops: StopRules | None = None,
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
            stops: what ends a text beside `stop_ids`.

        Raises:
            InputError: a prompt is empty or too long, or max_tokens is not positive.
        """
        number = len(prompts)
        budgets = [max_tokens] * number if isinstance(max_tokens, int) else list(max_tokens)
        requests = [
            Request(
                prompt=prompt,
                max_tokens=budget,
                owed=due,
                stop_ids=frozenset(stop_ids),
                sample=sample,
                copy=copy,
                stops=stops or NO_RULES,
                example=example,
                keep=False,
            )
            for prompt, budget, due, copy, example in zip(
                prompts,
                budgets,
                [b""] * number if owed is None else owed,
                copies(prompts),
                [None] * number if examples is None else examples,
                strict=True,
            )
        ]
        for request in requests:
            self._check(request)
        # Longest first: what runs together is of like length, and the cache grows once.
        order = sorted(range(number), key=lambda i: -(len(requests[i].prompt) + requests[i].max_tokens))
        handles = {i: self.submit(requests[i]) for i in order}
        left = set(handles.values())
        while left:
            handle = next(iter(left))
            self._advance(handle, None)
            left = {handle for handle in left if not handle.done}
            if progress is not None:
                progress(number - len(left))
        return [handles[i].result() for i in range(number)]

    @torch.inference_mode()
    def losses(self, ids: Sequence[int]) -> list[float]:
        """Nats of each id but the first, given those before it."""
        ids_l = torch.tensor(ids, device=self.model.model.norm.weight.device)
        hidden_ld = self.model.hidden(ids_l[None, :-1])[0]
        return token_losses(hidden_ld, self.model.lm_head, ids_l[1:]).tolist()

    @contextmanager
    def background(self) -> Iterator[None]:
        """One thread computes for all requests, until the block ends."""
        thread = threading.Thread(target=self._lead_always, name="midspan-engine")
        self._ended = False
        thread.start()
        try:
            yield
        finally:
            with self._turn:
                self._ended = True
                self._turn.notify_all()
            thread.join()

    def match(self, prompt: Sequence[int]) -> int:
        """See `Front.match`."""
        return self.slots.match(prompt)

    def _advance(self, handle: Handle, whole: bool | None) -> None:
        """Make steps, or let another thread make them, until a handle has news, or (`whole`) its end.

        `None` for `whole` makes one step, unless the end is there.
        """

        def ready() -> bool:
            return handle.has_news if whole is False else handle.done

        while True:
            with self._turn:
                self._turn.wait_for(lambda: ready() or not self._led)
                if ready():
                    return
                self._led = True
            try:
                self._step()
            finally:
                with self._turn:
                    self._led = False
                    self._turn.notify_all()
            if whole is None:
                return

    def _lead_always(self) -> None:
        with self._turn:
            while self._led:
                self._turn.wait()
            self._led = True
        try:
            while not self._ended:
                if not self._step():
                    with self._turn:
                        self._turn.notify_all()
                        self._turn.wait_for(lambda: self._ended or bool(self._inbox))
                with self._turn:
                    self._turn.notify_all()
        finally:
            with self._turn:
                self._led = False
                self._turn.notify_all()

    @torch.inference_mode()
    def _step(self) -> bool:
        while self._inbox:
            self.scheduler.submit(self._inbox.popleft())
        try:
            return self.scheduler.step()
        except BaseException as error:  # whoever waits for a text learns of it, and the next request begins anew
            self.scheduler.abandon(error)
            if not isinstance(error, Exception):
                raise
            return False

    def _drafter(self, handle: Handle, continued: list[int]) -> Drafter | None:
        request = handle.request
        if request.drafts is None:
            return None
        if self._draft is not None:
            return self._draft.drafter()
        return CopyDrafter(request.prompt, request.drafts, continued)
