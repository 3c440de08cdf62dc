"""Conversations → ids: Llama 2's chat format, that of Code Llama 70B Instruct, and any vocabulary's template.

    Llama 2    BOS [INST] <<SYS>>…<</SYS>> user [/INST] answer EOS BOS [INST] user [/INST]
    70B        BOS Source: system … <step> Source: user … <step> Source: assistant Destination: user …
    template   what the vocabulary's Jinja template writes (ChatML and others)

What people write is data: whatever it says, it becomes text and never a special id. The first two formats mark
turns by text as well, so a message that holds such a mark is refused, as Meta's reference does. In a template's
output special pieces count only where the template itself wrote them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from midspan.errors import InputError
from midspan.tokenizer.tokenizer import Tokenizer

Role = Literal["system", "user", "assistant"]
STEP = "<step>"
TAGS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", STEP)
"""Marks of turns that are text in the two formats by Meta (`llama/generation.py`, `SPECIAL_TAGS`)."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


class ChatFormat(Protocol):
    """How conversations are written for a model."""

    stop_ids: frozenset[int]
    """Ids that end an answer."""

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The ids after which the model answers the last message.

        Raises:
            InputError: the conversation is empty, its roles are out of order, or a message holds a mark.
        """


def chat_format(tokenizer: Tokenizer) -> ChatFormat:
    """The format of a vocabulary: 70B's where it has `<step>`, else its own template, else Llama 2's.

    Raises:
        InputError: the vocabulary has none of what these need.
    """
    if tokenizer.id_of(STEP) is not None:
        return Steps(tokenizer)
    if tokenizer.chat_template is not None:
        return Template(tokenizer)
    if tokenizer.bos_id is not None and tokenizer.eos_id is not None:
        return Llama2(tokenizer)
    raise InputError(
        "this vocabulary has neither a chat template nor BOS and EOS; use a model that is made to chat"
    )


class Llama2:
    """Llama 2's format, of the 7B, 13B and 34B Instruct models: BOS and EOS round every turn."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        assert tokenizer.bos_id is not None
        assert tokenizer.eos_id is not None
        self._tokenizer, self._bos, self._eos = tokenizer, tokenizer.bos_id, tokenizer.eos_id
        self.stop_ids = frozenset({tokenizer.eos_id})

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """See `ChatFormat.prompt`."""
        system, turns = _turns(messages)
        ids: list[int] = []
        for number in range(0, len(turns), 2):
            asked = turns[number].content
            if number == 0 and system is not None:
                asked = f"<<SYS>>\n{system}\n<</SYS>>\n\n{asked}"
            text = f"[INST] {asked.strip()} [/INST]"
            if number + 1 < len(turns):
                answered = self._tokenizer.encode(f"{text} {turns[number + 1].content.strip()} ")
                ids += [self._bos, *answered, self._eos]
            else:
                ids += [self._bos, *self._tokenizer.encode(text)]
        return ids


class Steps:
    """The format of Code Llama 70B Instruct: every message ends in `<step>`, and says who it is from."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        step = tokenizer.id_of(STEP)
        if step is None or tokenizer.bos_id is None:
            raise InputError(
                f"this vocabulary has no {STEP!r} or no BOS; it is not that of Code Llama 70B Instruct"
            )
        self._tokenizer, self._step, self._bos = tokenizer.with_sentinels([STEP]), step, tokenizer.bos_id
        self.stop_ids = frozenset({step})

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """See `ChatFormat.prompt`."""
        system, turns = _turns(messages)
        ids = [self._bos]
        for message in (Message("system", system or ""), *turns):
            ids += self._text(f" Source: {message.role}")
            if message.content.strip():
                ids += self._text(f"\n\n {message.content.strip()}")
            ids.append(self._step)
        return ids + self._text(" Source: assistant\nDestination: user") + self._text("\n\n ")

    def _text(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, leading_space=False)


class Template:
    """A vocabulary's own Jinja template, run in a sandbox."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        if tokenizer.chat_template is None:
            raise InputError("this vocabulary has no chat template; use a model that is made to chat")
        self._tokenizer = tokenizer
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _refuse
        self._template = self._compiled(environment, tokenizer.chat_template)
        ends = (tokenizer.id_of(piece) for piece in ("<|im_end|>", "<|eot_id|>", "<|end|>"))
        self.stop_ids = frozenset(i for i in (tokenizer.eos_id, *ends) if i is not None)

    @staticmethod
    def _compiled(environment: jinja2.Environment, source: str) -> jinja2.Template:
        try:
            return environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise InputError(
                f"the vocabulary's chat template is damaged at line {error.lineno} ({error})"
            ) from None

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """See `ChatFormat.prompt`."""
        if not messages:
            raise InputError("the conversation is empty; give at least one message")
        # The template sees marks in place of the contents, which are put back where it wrote the marks.
        marks = [f"\ue000{number}\ue001" for number in range(len(messages))]
        written = self._render([Message(m.role, mark) for m, mark in zip(messages, marks, strict=True)])
        contents = {mark: message.content for mark, message in zip(marks, messages, strict=True)}
        pieces = re.split("(\ue000\\d+\ue001)", written)
        if "".join(contents.get(piece, piece) for piece in pieces) != self._render(messages):
            contents = {mark: message.content.strip() for mark, message in zip(marks, messages, strict=True)}
            if "".join(contents.get(piece, piece) for piece in pieces) != self._render(messages):
                raise InputError(
                    "the chat template rewrites what messages say, so they cannot be told from its marks"
                )
        ids: list[int] = []
        text = ""
        for piece in pieces:
            if piece in contents:
                text += contents[piece]
                continue
            for part in self._special.split(piece):
                special = self._tokenizer.id_of(part)
                if special is None or not self._tokenizer.is_special(special):
                    text += part
                else:
                    ids += [*self._encoded(text), special]
                    text = ""
        return ids + self._encoded(text)

    def _encoded(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, leading_space=False) if text else []

    @cached_property
    def _special(self) -> re.Pattern[str]:
        tokenizer = self._tokenizer
        special = [tokenizer.piece(i) for i in range(tokenizer.vocab_size) if tokenizer.is_special(i)]
        longest_first = sorted(filter(None, special), key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, longest_first))})")

    def _render(self, messages: Sequence[Message]) -> str:
        tokenizer = self._tokenizer
        names: dict[str, Any] = {
            "bos_token": "" if tokenizer.bos_id is None else tokenizer.piece(tokenizer.bos_id),
            "eos_token": "" if tokenizer.eos_id is None else tokenizer.piece(tokenizer.eos_id),
        }
        said = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return self._template.render(messages=said, add_generation_prompt=True, **names)
        except jinja2.TemplateError as error:
            raise InputError(f"the vocabulary's chat template refuses the conversation: {error}") from None


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _turns(messages: Sequence[Message]) -> tuple[str | None, Sequence[Message]]:
    """The system message, if any, and the turns; InputError unless user and assistant alternate."""
    for message in messages:
        for tag in TAGS:
            if tag in message.content:
                raise InputError(f"a message holds {tag!r}, which marks turns in this chat format; take it out")
    system = messages[0].content if messages and messages[0].role == "system" else None
    turns = messages[1:] if system is not None else messages
    roles = [message.role for message in turns]
    if len(roles) % 2 == 0 or any(role != ("user", "assistant")[i % 2] for i, role in enumerate(roles)):
        raise InputError(
            f"the roles are {[message.role for message in messages]}; after an optional system message, user and "
            "assistant must alternate, and the last is the user"
        )
    return system, turns
