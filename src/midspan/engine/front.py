"""What is in front of any engine, here or elsewhere: texts to requests, by ids, with sentinels and healing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

from midspan.engine.prompts import AnyLayout, Prompt, Remembering, infilling
from midspan.engine.request import CHAT, GREEDY, Completion, Handle, Request
from midspan.engine.sample import SampleConfig
from midspan.errors import InputError
from midspan.fim import FimFormat, Healer
from midspan.fim.example import bos_of
from midspan.tokenizer import Tokenizer
from midspan.tokenizer.chat import ChatFormat, Message, chat_format


class Front(ABC):
    """Something that completes, infills and chats."""

    def __init__(self, tokenizer: Tokenizer, *, max_positions: int, speculate: bool) -> None:
        self.tokenizer, self.max_positions = tokenizer, max_positions
        self._speculate = speculate
        self._remembering = cast(Tokenizer, Remembering(tokenizer))
        self.fim = FimFormat.detect(tokenizer)
        """The model's sentinels and layouts; None where it cannot infill."""

    @abstractmethod
    def submit(self, request: Request, on_news: Callable[[], None] | None = None) -> Handle:
        """Begin to work on a request.

        Args:
            request: what is asked.
            on_news: called from the thread that computes, whenever there is more of the text, or its end; then
                nobody has to wait for the handle.
        """

    @abstractmethod
    def match(self, prompt: Sequence[int]) -> int:
        """How many tokens of a prompt need not be read again."""

    def complete(self, text: str, *, max_tokens: int, sample: SampleConfig = GREEDY, **options: Any) -> Completion:
        """Go on with a text, up to the first special token; `options` are fields of the request.

        Raises:
            InputError: as `submit`.
        """
        return self.submit(self.completing(text, max_tokens=max_tokens, sample=sample, **options)).result()

    def infill(
        self,
        prefix: str,
        suffix: str,
        *,
        layout: AnyLayout = "auto",
        max_tokens: int,
        sample: SampleConfig = GREEDY,
        **options: Any,
    ) -> Completion:
        """What stands between two texts; `options` as for `infilling`.

        Of texts that are too long for the model together, the end of the prefix and the start of the suffix
        are used.

        Raises:
            InputError: the vocabulary has no sentinels, the family no such layout, or as `submit`.
        """
        request = self.infilling(prefix, suffix, layout=layout, max_tokens=max_tokens, sample=sample, **options)
        return self.submit(request).result()

    def samples(self, request: Request, number: int) -> list[Completion]:
        """Several texts for one prompt, which is read once."""
        handles = [self.submit(replace(request, copy=copy)) for copy in range(number)]
        return [handle.result() for handle in handles]

    def completing(self, text: str, *, max_tokens: int, heal: bool = True, **options: Any) -> Request:
        """The request to go on with a text."""
        ids = bos_of(self.tokenizer) + self.tokenizer.encode(text)
        owed = b""
        if heal and options.get("constraint") is None:
            ids, owed = self.healer.take_back(ids)
        values: dict[str, Any] = {"stop_ids": self._special_ids, "priority": CHAT, "prefix": text}
        values |= self._guessing(()) | options
        return Request(prompt=ids, owed=owed, max_tokens=max_tokens, **values)

    def infilling(
        self,
        prefix: str,
        suffix: str,
        *,
        layout: AnyLayout = "auto",
        max_tokens: int,
        sample: SampleConfig = GREEDY,
        max_prompt: int | None = None,
        context: str = "",
        heal: bool = True,
        extra: Sequence[str] = (),
        **options: Any,
    ) -> Request:
        """The request for what stands between two texts.

        Args:
            prefix: the text before the hole.
            suffix: the text behind it.
            layout: the order of the parts; `auto` takes the one of which least has to be read.
            max_tokens: of the text.
            sample: how tokens are chosen; the model's own bias of the end is added where it does not name one.
            max_prompt: tokens of the prompt; as many as fit if None.
            context: of other files, shown in front of the prefix.
            heal: mend the token at the cursor.
            extra: texts from which the next tokens may be guessed, beside prefix and suffix.
            options: further fields of `Request`.
        """
        prompt = self.prompt(
            prefix,
            suffix,
            layout=layout,
            max_tokens=max_tokens,
            max_prompt=max_prompt,
            context=context,
            heal=heal and options.get("constraint") is None,
        )
        assert self.fim is not None
        stop_ids = self._special_ids | self.fim.stop_ids
        values: dict[str, Any] = {"stop_ids": stop_ids, "prefix": prefix, "suffix": suffix}
        values["layout"] = prompt.layout
        values["sample"] = replace(
            sample, logit_bias=self.fim.bias_of_end(prompt.layout) | dict(sample.logit_bias)
        )
        values |= self._guessing(extra) | options
        return Request(prompt=prompt.ids, owed=prompt.owed, max_tokens=max_tokens, **values)

    def prompt(
        self,
        prefix: str,
        suffix: str,
        *,
        layout: AnyLayout = "auto",
        max_tokens: int,
        max_prompt: int | None = None,
        context: str = "",
        heal: bool = True,
    ) -> Prompt:
        """What the model is shown of a file."""
        if self.fim is None:
            raise InputError(
                "this model's vocabulary has no infilling sentinels; train it with recipes/smol/code.toml, "
                "or use `midspan complete`"
            )
        limit = self.max_positions - max_tokens
        if limit <= len(self.fim.assemble(self.fim.layouts[0], (), ())):
            raise InputError(
                f"{max_tokens} new tokens leave no room for a prompt in the model's "
                f"{self.max_positions} positions; ask for fewer"
            )
        limit = limit if max_prompt is None else min(limit, max_prompt)
        healer = self.healer if heal else None
        return infilling(
            self._remembering,
            self.fim,
            healer,
            prefix,
            suffix,
            layout=layout,
            limit=limit,
            context=context,
            match=self.match,
        )

    def infill_prompt(self, prefix: str, suffix: str, *, layout: AnyLayout, max_tokens: int) -> list[int]:
        """The ids of an infilling prompt that leaves room for `max_tokens`, its end not healed."""
        return self.prompt(prefix, suffix, layout=layout, max_tokens=max_tokens, heal=False).ids

    def chatting(self, messages: Sequence[Message], *, max_tokens: int, **options: Any) -> Request:
        """The request to answer a conversation.

        Raises:
            InputError: the vocabulary has no chat format, or it refuses the conversation.
        """
        stop_ids = self._special_ids | self.chat.stop_ids
        values: dict[str, Any] = {"stop_ids": stop_ids, "priority": CHAT} | self._guessing(()) | options
        return Request(prompt=self.chat.prompt(messages), max_tokens=max_tokens, **values)

    def _guessing(self, extra: Sequence[str]) -> dict[str, Any]:
        return {"drafts": [self.tokenizer.encode(text) for text in extra]} if self._speculate else {}

    @cached_property
    def chat(self) -> ChatFormat:
        """How conversations are written for this model."""
        return chat_format(self.tokenizer)

    @cached_property
    def healer(self) -> Healer:
        """Token healing for this vocabulary."""
        return Healer(self.tokenizer)

    @cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(filter(self.tokenizer.is_special, range(self.tokenizer.vocab_size)))

    def _check(self, request: Request) -> None:
        """InputError for what cannot be asked."""
        positions = self.max_positions
        example = request.example
        longest = max(len(request.prompt) + 1, len(example.ids) if example else 0)
        if not request.prompt:
            raise InputError("a prompt is empty; give it at least one token")
        if longest > positions:
            raise InputError(
                f"a prompt of {len(request.prompt)} tokens does not fit the model's {positions} positions; "
                "shorten it"
            )
        if request.max_tokens < 1:
            raise InputError(f"max_tokens is {request.max_tokens}; it must be at least 1")
        if request.constraint is not None and request.owed:
            raise InputError("a constrained text cannot be healed; leave out what is owed")
