"""Questions → answers, by any model that the engine's front stands for: one here, or a server elsewhere.

A few more requests than a batch holds are under way at a time. The samples of one question follow each other, so
that its prompt is read once. What a sample says depends on the seed, its prompt and its number alone: after a kill
the same answers come that would have come.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from midspan.engine import Completion, Handle, Request, SampleConfig
from midspan.engine.front import Front
from midspan.engine.request import CHAT
from midspan.errors import InputError
from midspan.evaluate.task import Answer, Chat, Choices, Decoding, Hole, Ids, Question, Reading, Text
from midspan.fim import Example, Split, infill_example
from midspan.fim.example import bos_of
from midspan.tokenizer.chat import Message


@dataclass(frozen=True)
class Asked:
    """A question, and which of its samples is wanted."""

    question: Question
    temperature: float
    copy: int

    @property
    def key(self) -> tuple[str, float, int]:
        """As of its answer."""
        return self.question.id, self.temperature, self.copy


@dataclass
class _UnderWay:
    asked: Asked
    handles: list[Handle]
    begun: float


class Asking:
    """Answers to questions, in about their order; another thread may break it off.

    Args:
        model: who is asked.
        asked: what.
        decoding: top-p and seed.
        ahead: requests under way at a time.

    Raises:
        InputError: a question cannot be put to this model.
        WorkError: a server does not answer.
    """

    def __init__(self, model: Front, asked: Iterable[Asked], decoding: Decoding, *, ahead: int = 48) -> None:
        self._model, self._asked, self._decoding, self._ahead = model, asked, decoding, ahead
        self._under_way: deque[_UnderWay] = deque()
        self._cancelled = False

    def cancel(self) -> None:
        """Ask no more, and let what is under way end."""
        self._cancelled = True
        for each in list(self._under_way):
            for handle in each.handles:
                handle.cancel()

    def __iter__(self) -> Iterator[Answer]:
        try:
            for one in self._asked:
                while sum(len(each.handles) for each in self._under_way) >= self._ahead:
                    yield from self._finished()
                if self._cancelled:
                    return
                requests = requests_for(self._model, one, self._decoding)
                handles = [self._model.submit(request) for request in requests]
                self._under_way.append(_UnderWay(one, handles, time.monotonic()))
            while self._under_way:
                yield from self._finished()
        finally:
            self.cancel()

    def _finished(self) -> Iterator[Answer]:
        """Wait for the oldest, then hand out whatever is done; nothing of what was broken off."""
        for handle in self._under_way[0].handles:
            handle.result()
        for each in [each for each in self._under_way if all(handle.done for handle in each.handles)]:
            self._under_way.remove(each)
            if not self._cancelled:
                yield _answer(each)


def _answer(done: _UnderWay) -> Answer:
    completions = [handle.result() for handle in done.handles]
    question = done.asked.question
    is_read = isinstance(question.prompt, Choices | Reading)
    return Answer(
        question=question.id,
        temperature=done.asked.temperature,
        copy=done.asked.copy,
        text="" if is_read else completions[0].text,
        reason="read" if is_read else completions[0].reason,
        tokens=0 if is_read else len(completions[0].ids),
        seconds=round(time.monotonic() - done.begun, 3),
        nats=_nats(question, completions),
    )


def _nats(question: Question, completions: Sequence[Completion]) -> list[float] | None:
    losses = [completion.losses or [] for completion in completions]
    match question.prompt:
        case Choices():
            return [round(sum(each), 5) for each in losses]
        case Reading():
            return [round(nats, 5) for nats in losses[0]]
        case Hole(middle=str()):
            return [round(sum(losses[0][:-1]), 5), round(losses[0][-1], 5)]
    return None


def requests_for(model: Front, asked: Asked, decoding: Decoding) -> list[Request]:
    """What the engine is asked; one request, or for choices one each.

    Raises:
        InputError: the model cannot be asked so: it has no sentinels, no chat format, or no room.
    """
    question, tokenizer = asked.question, model.tokenizer
    sample = SampleConfig(
        temperature=asked.temperature,
        top_p=decoding.top_p if asked.temperature else 1.0,
        seed=decoding.seed,
    )
    options: dict[str, Any] = {
        "max_tokens": question.max_tokens,
        "sample": sample,
        "copy": asked.copy,
        "stops": question.stops,
        "priority": CHAT,
        "drafts": None,
        "keep": decoding.samples > 1 or isinstance(question.prompt, Choices),
    }
    match question.prompt:
        case Text(text=text, most=most):
            return [_shortened(model, model.completing(text, heal=False, **options), most)]
        case Chat(message=message):
            return [model.chatting([Message("user", message)], **options)]
        case Ids(ids=ids):
            return [replace(model.completing("", heal=False, **options), prompt=ids)]
        case Hole() as hole:
            return [_infill(model, hole, options)]
        case Reading(ids=ids):
            return [_scored(list(ids), 1, options)]
        case Choices(context=context, choices=choices):
            shared = bos_of(tokenizer) + tokenizer.encode(context)
            found = []
            for choice in choices:
                choice_ids = tokenizer.encode(choice, leading_space=False)
                found.append(_scored([*shared, *choice_ids], len(shared), options))
            return found
    raise AssertionError(question.prompt)


def _scored(ids: list[int], num_prompt: int, options: dict[str, Any]) -> Request:
    """A request whose losses are wanted, and nothing else."""
    example = Example(ids, "plain", len(ids) - num_prompt)
    return Request(prompt=ids[:num_prompt], example=example, **options | {"max_tokens": 1})


def _infill(model: Front, hole: Hole, options: dict[str, Any]) -> Request:
    fim, tokenizer = model.fim, model.tokenizer
    if fim is None or hole.layout not in fim.layouts:
        raise InputError(
            f"this model's vocabulary cannot infill in the layout {hole.layout}; train it first, or leave out the "
            "tasks that infill"
        )
    request = model.infilling(hole.prefix, hole.suffix, layout=hole.layout, heal=hole.heal, **options)
    if hole.middle is None:
        return request
    example = infill_example(tokenizer, fim, Split(hole.prefix, hole.middle, hole.suffix), hole.layout)
    return replace(request, example=example)


def _shortened(model: Front, request: Request, most: int | None) -> Request:
    """The end of a prompt that is too long, behind BOS."""
    bos = bos_of(model.tokenizer)
    room = model.max_positions - request.max_tokens - len(bos)
    if room < 1:
        raise InputError(
            f"{request.max_tokens} new tokens leave no room for a prompt in the model's {model.max_positions} "
            "positions; ask for fewer with --max-tokens"
        )
    room = room if most is None else min(room, most)
    ids = list(request.prompt[len(bos) :])
    if len(ids) <= room:
        return request
    return replace(request, prompt=[*bos, *ids[-room:]])
