"""Conversations → ids: Llama 2's chat format, that of Code Llama 70B Instruct, and any vocabulary's template.

    Llama 2    BOS [INST] <<SYS>>…<</SYS>> user [/INST] answer EOS BOS [INST] user [/INST]
    70B        BOS Source: system … <step> Source: user … <step> Source: assistant Destination: user …
    template   what the vocabulary's Jinja template writes (ChatML and others)

What people write is data: whatever it says, it becomes text and never a special id. The first two formats mark
turns by text as well, so a message that holds such a mark is refused, as Meta's reference does. In a template's
output special pieces count only where the template itself wrote them.

For training a whole conversation becomes ids of which the answers are trained, each with what ends it:

    BOS [INST] user [/INST] answer EOS BOS [INST] user [/INST] answer EOS
                            ~~~~~~~~~~                         ~~~~~~~~~~

What stands before the last answer is exactly the prompt that asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
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
    identity: str
    """What decides the ids of a conversation, beside the vocabulary."""

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The ids after which the model answers the last message.

        Raises:
            InputError: the conversation is empty, its roles are out of order, or a message holds a mark.
        """

    def conversation(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """The ids of a conversation that ends with an answer, and which of them are trained.

        Trained are the answers, each with the id that ends it.

        Raises:
            InputError: as `prompt`; or the format does not end answers.
        """


def chat_format(tokenizer: Tokenizer) -> ChatFormat:
    """The format of a vocabulary: 70B's where it has `<step>`, else its own template, else Llama 2's.

    A template that writes Llama 2's marks is that format: its own class encodes as Meta does, with SentencePiece's
    implicit leading space after every BOS.

    Raises:
        InputError: the vocabulary has none of what these need.
    """
    template, has_ends = tokenizer.chat_template, tokenizer.bos_id is not None and tokenizer.eos_id is not None
    if tokenizer.id_of(STEP) is not None:
        return Steps(tokenizer)
    if template is not None and not (has_ends and all(tag in template for tag in ("[INST]", "<<SYS>>"))):
        return Template(tokenizer)
    if has_ends:
        return Llama2(tokenizer)
    raise InputError(
        "this vocabulary has neither a chat template nor BOS and EOS; use a model that is made to chat"
    )


def end_ids(tokenizer: Tokenizer) -> list[int]:
    """What ends a text of this vocabulary: EOS, and what ends answers where it has a chat format of its own."""
    ids = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    if tokenizer.chat_template is not None or tokenizer.id_of(STEP) is not None:
        ids += sorted(chat_format(tokenizer).stop_ids - {*ids})
    return ids


class Llama2:
    """Llama 2's format, of the 7B, 13B and 34B Instruct models: BOS and EOS round every turn."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        assert tokenizer.bos_id is not None
        assert tokenizer.eos_id is not None
        self._tokenizer, self._bos, self._eos = tokenizer, tokenizer.bos_id, tokenizer.eos_id
        self.stop_ids = frozenset({tokenizer.eos_id})
        self.identity = "llama-2"

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """See `ChatFormat.prompt`."""
        system, turns = _turns(messages, last="user")
        ids = [i for asked, answered in self._answered(system, turns[:-1]) for i in (*asked, *answered)]
        return [
            *ids,
            self._bos,
            *self._tokenizer.encode(self._asked(system if len(turns) == 1 else None, turns[-1])),
        ]

    def conversation(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """See `ChatFormat.conversation`."""
        ids: list[int] = []
        trained: list[bool] = []
        for asked, answered in self._answered(*_turns(messages, last="assistant")):
            ids += asked + answered
            trained += [False] * len(asked) + [True] * len(answered)
        return ids, trained

    def _answered(self, system: str | None, turns: Sequence[Message]) -> Iterator[tuple[list[int], list[int]]]:
        """The ids of each turn that has an answer, cut where the answer begins."""
        for number in range(0, len(turns), 2):
            text = self._asked(system if number == 0 else None, turns[number])
            answer = f" {turns[number + 1].content.strip()} "
            asked, answered = _continued(self._tokenizer.encode, self._rest, text, answer)
            yield [self._bos, *asked], [*answered, self._eos]

    @staticmethod
    def _asked(system: str | None, turn: Message) -> str:
        said = turn.content if system is None else f"<<SYS>>\n{system}\n<</SYS>>\n\n{turn.content}"
        return f"[INST] {said.strip()} [/INST]"

    def _rest(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, leading_space=False)


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
        self.identity = "steps"

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """See `ChatFormat.prompt`."""
        return self._prompt(messages)[0]

    def conversation(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """See `ChatFormat.conversation`.

        The last answer stands behind the words that ask for it, `Destination: user`; earlier ones as Meta's code
        writes what was said before, which is without them.
        """
        _turns(messages, last="assistant")
        ids, trained = self._prompt(messages[:-1])
        answer = [*self._text(messages[-1].content.strip()), self._step]
        return ids + answer, trained + [True] * len(answer)

    def _prompt(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """The ids of a prompt, and which of them are answers."""
        system, turns = _turns(messages, last="user")
        ids, trained = [self._bos], [False]
        for message in (Message("system", system or ""), *turns):
            before, said = self._text(f" Source: {message.role}"), list[int]()
            if message.content.strip():
                between, said = _continued(self._text, self._text, "\n\n", f" {message.content.strip()}")
                before += between
            ids += [*before, *said, self._step]
            trained += [False] * len(before) + [message.role == "assistant"] * (len(said) + 1)
        ids += self._text(" Source: assistant\nDestination: user") + self._text("\n\n ")
        return ids, trained + [False] * (len(ids) - len(trained))

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
        self.identity = f"template {tokenizer.chat_template}"

    @staticmethod
    def _compiled(environment: jinja2.Environment, source: str) -> jinja2.Template:
        # transformers marks answers by {% generation %} blocks, which Jinja does not know.
        source = re.sub(r"\{%(-?)\s*generation\s*(-?)%\}", r"{%\1 if true \2%}", source)
        source = re.sub(r"\{%(-?)\s*endgeneration\s*(-?)%\}", r"{%\1 endif \2%}", source)
        try:
            return environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise InputError(
                f"the vocabulary's chat template is damaged at line {error.lineno} ({error})"
            ) from None

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """See `ChatFormat.prompt`."""
        ids: list[int] = []
        text = ""
        for piece, number in self._pieces(messages, answering=True):
            if number is not None:
                text += piece
                continue
            for part, special in self._parts(piece):
                if special is None:
                    text += part
                else:
                    ids += [*self._encoded(text), special]
                    text = ""
        return ids + self._encoded(text)

    def conversation(self, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
        """See `ChatFormat.conversation`."""
        if [message.role for message in messages][-1:] != ["assistant"]:
            raise InputError(
                f"the roles are {[message.role for message in messages]}; a conversation to train on ends with an "
                "answer of the assistant"
            )
        ids: list[int] = []
        trained: list[bool] = []
        before, text = "", ""  # what leads to the answer, where we are in one, and what was not encoded yet
        answering, answers = False, 0

        def flush(special: int) -> None:
            asked, answered = _continued(self._encoded, self._encoded, before, text) if answering else ([], [])
            found = [*asked, *answered] if answering else self._encoded(text)
            ids.extend([*found, special])
            trained.extend([False] * (len(found) - len(answered)) + [True] * len(answered) + [answering])

        for piece, number in self._pieces(messages, answering=False):
            if number is not None and messages[number].role == "assistant" and not answering:
                before, text, answering, answers = text, piece, True, answers + 1
                continue
            parts = self._parts(piece) if number is None else [(piece, None)]
            for part, special in parts:
                if (answering and number is not None) or (answering and special not in {None, *self.stop_ids}):
                    raise self._without_end()
                if special is None:
                    text += part
                else:
                    flush(special)
                    before, text, answering = "", "", False
        if answering or answers != sum(message.role == "assistant" for message in messages):
            raise self._without_end()
        rest = self._encoded(text)
        return ids + rest, trained + [False] * len(rest)

    @staticmethod
    def _without_end() -> InputError:
        return InputError(
            "the chat template does not write every answer once, with an id behind it that ends answers, so it "
            "cannot be trained on; use a model with another template"
        )

    def _pieces(self, messages: Sequence[Message], *, answering: bool) -> list[tuple[str, int | None]]:
        """What the template writes: texts of its own, and what messages say, with the message's number.

        The template sees marks in place of the contents, which are put back where it wrote the marks.
        """
        if not messages:
            raise InputError("the conversation is empty; give at least one message")
        marks = {f"\ue000{number}\ue001": number for number in range(len(messages))}
        marked = [Message(m.role, mark) for m, mark in zip(messages, marks, strict=True)]
        written = re.split("(\ue000\\d+\ue001)", self._render(marked, answering))
        wanted = self._render(messages, answering)
        for contents in ([m.content for m in messages], [m.content.strip() for m in messages]):
            pieces: list[tuple[str, int | None]] = [
                (contents[marks[p]], marks[p]) if p in marks else (p, None) for p in written
            ]
            if "".join(piece for piece, _ in pieces) == wanted:
                return pieces
        raise InputError("the chat template rewrites what messages say, so they cannot be told from its marks")

    def _parts(self, text: str) -> Iterator[tuple[str, int | None]]:
        """A text of the template's in parts, special pieces with their ids."""
        for part in self._special.split(text):
            special = self._tokenizer.id_of(part)
            is_special = special is not None and self._tokenizer.is_special(special)
            yield part, special if is_special else None

    def _encoded(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, leading_space=False) if text else []

    @cached_property
    def _special(self) -> re.Pattern[str]:
        tokenizer = self._tokenizer
        special = [tokenizer.piece(i) for i in range(tokenizer.vocab_size) if tokenizer.is_special(i)]
        longest_first = sorted(filter(None, special), key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, longest_first))})")

    def _render(self, messages: Sequence[Message], answering: bool) -> str:
        tokenizer = self._tokenizer
        names: dict[str, Any] = {
            "bos_token": "" if tokenizer.bos_id is None else tokenizer.piece(tokenizer.bos_id),
            "eos_token": "" if tokenizer.eos_id is None else tokenizer.piece(tokenizer.eos_id),
        }
        said = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return self._template.render(messages=said, add_generation_prompt=answering, **names)
        except jinja2.TemplateError as error:
            raise InputError(f"the vocabulary's chat template refuses the conversation: {error}") from None


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _continued(
    encode: Callable[[str], list[int]], encode_rest: Callable[[str], list[int]], before: str, after: str
) -> tuple[list[int], list[int]]:
    """The ids of two texts in a row, encoded as one, unless a piece would reach over their border."""
    first, both = encode(before), encode(before + after)
    return (first, both[len(first) :]) if both[: len(first)] == first else (first, encode_rest(after))


def _turns(messages: Sequence[Message], *, last: Role) -> tuple[str | None, Sequence[Message]]:
    """The system message, if any, and the turns; InputError unless user and assistant alternate up to `last`."""
    for message in messages:
        for tag in TAGS:
            if tag in message.content:
                raise InputError(f"a message holds {tag!r}, which marks turns in this chat format; take it out")
    system = messages[0].content if messages and messages[0].role == "system" else None
    turns = messages[1:] if system is not None else messages
    roles = [message.role for message in turns]
    if roles[-1:] != [last] or any(role != ("user", "assistant")[i % 2] for i, role in enumerate(roles)):
        raise InputError(
            f"the roles are {[message.role for message in messages]}; after an optional system message, user and "
            f"assistant must alternate, and the last is the {last}"
        )
    return system, turns
