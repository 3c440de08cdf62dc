"""Conversations as a source of rows: a file of messages → ids, of which only the answers are trained.

    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}     one a line

Every line is read and encoded once, before anything is packed, so that a line that cannot be used is named before
training begins. Nothing is cut: a conversation that does not fit a row is left out and counted, and so is one that
the vocabulary cannot write. What is kept is laid out for random access, as texts are:

    ids.bin, offsets.bin               ids of all conversations (uint32), and where each begins (n + 1, int64)
    answers.bin, answer_offsets.bin    where each answer begins and ends in its conversation (uint32)
    documents.bin                      ids of the conversations (n), uint64
    conversations.json                 how many were left out

From there on they are documents like others: the same permutation decides the order of an epoch, they share rows
by best fit, and mixtures count their tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from midspan.errors import InputError
from midspan.files import write_json
from midspan.rows.texts import mapped
from midspan.tokenizer import Tokenizer
from midspan.tokenizer.chat import ChatFormat, Message, chat_format

ROLES = ("system", "user", "assistant")
_BUFFER = 1 << 20
_ABOUT = "conversations.json"


@dataclass(frozen=True)
class Conversations:
    """A file of conversations."""

    path: Path
    fingerprint: str
    """SHA-256 of the file."""

    @staticmethod
    def open(path: Path | str) -> Conversations:
        """The file at `path`. Raises InputError where there is none."""
        path = Path(path)
        try:
            with path.open("rb") as file:
                return Conversations(path, hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise InputError(
                f"conversations {path} cannot be read ({error.strerror}); name a JSONL file, messages in each line"
            ) from error

    def __iter__(self) -> Iterator[tuple[int, list[Message]]]:
        """The number of each line, and its conversation; blank lines are passed over.

        Raises:
            InputError: a line is no conversation that ends with an answer; the sentence names file and line.
        """
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        yield number, _messages(line)
                    except InputError as error:
                        raise self.refused(number, error) from None

    def refused(self, line: int, error: Exception) -> InputError:
        """The sentence for a line that cannot be used."""
        return InputError(f"{self.path}, line {line}: {error}")


def _messages(line: bytes) -> list[Message]:
    """The messages of a line; InputError says what is wrong with it."""
    try:
        value = json.loads(line)
    except ValueError as error:  # also bytes that are no UTF-8
        raise InputError(f"this is no JSON ({error}); write one object a line") from None
    found = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(found, list) or not found:
        raise InputError('there are no messages; write {"messages": [{"role": "user", "content": "..."}, ...]}')
    return [_message(number, each) for number, each in enumerate(found, start=1)]


def _message(number: int, value: Any) -> Message:
    role, content = (value.get("role"), value.get("content")) if isinstance(value, dict) else (None, None)
    if role not in ROLES:
        raise InputError(f"the role of message {number} is {role!r}; the roles are {', '.join(ROLES)}")
    if not isinstance(content, str):
        kind = "nothing" if content is None else f"a {type(content).__name__}"
        raise InputError(f"the content of message {number} is {kind}; only text can be trained on")
    if value.get("weight", 1) != 1:
        raise InputError(
            f"message {number} has the weight {value['weight']!r}; every answer counts once, take it out"
        )
    if role == "assistant" and not content.strip():
        raise InputError(f"message {number} is an empty answer; a model would learn to be silent, take it out")
    return Message(role, content)


class Encoded:
    """Read access to a layout that `write` made."""

    def __init__(self, folder: Path) -> None:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        self.left_out, self.too_long = int(about["left_out"]), int(about["too_long"])
        """Conversations that the vocabulary cannot write without loss; conversations that do not fit a row."""
        self.data = mapped(folder / "ids.bin", np.uint32)
        self.offsets = mapped(folder / "offsets.bin", np.int64)
        self.answers = mapped(folder / "answers.bin", np.uint32).reshape(-1, 2)
        self.answer_offsets = mapped(folder / "answer_offsets.bin", np.int64)
        self.ids = mapped(folder / "documents.bin", np.uint64)

    def __len__(self) -> int:
        return len(self.ids)

    @staticmethod
    def is_at(folder: Path) -> bool:
        """Whether `write` made this folder."""
        return (folder / _ABOUT).is_file()

    @staticmethod
    def write(conversations: Conversations, tokenizer: Tokenizer, row_tokens: int, folder: Path) -> None:
        """Encode all conversations that the vocabulary can write and a row holds, in their own order.

        Raises:
            InputError: a line cannot be used, or the vocabulary has no chat format.
        """
        chat = chat_format(tokenizer)
        left_out = too_long = end = num_answers = 0
        names = ("ids", "offsets", "answers", "answer_offsets", "documents")
        with ExitStack() as stack:
            ids, offsets, answers, answer_offsets, documents = (
                stack.enter_context((folder / f"{name}.bin").open("wb", _BUFFER)) for name in names
            )
            offsets.write(np.int64(0).tobytes())
            answer_offsets.write(np.int64(0).tobytes())
            for line, messages in conversations:
                if not all(tokenizer.can_encode(message.content) for message in messages):
                    left_out += 1
                    continue
                found, spans = _encoded(chat, conversations, line, messages)
                if len(found) > row_tokens:
                    too_long += 1
                else:
                    ids.write(np.array(found, np.uint32).tobytes())
                    answers.write(spans.tobytes())
                    documents.write(np.uint64(_identity(messages)).tobytes())
                    end, num_answers = end + len(found), num_answers + len(spans)
                    offsets.write(np.int64(end).tobytes())
                    answer_offsets.write(np.int64(num_answers).tobytes())
        write_json(folder / _ABOUT, {"left_out": left_out, "too_long": too_long})


def chat_identity(tokenizer: Tokenizer) -> str:
    """What decides the ids of conversations beside the vocabulary's fingerprint."""
    return chat_format(tokenizer).identity


def _encoded(
    chat: ChatFormat, conversations: Conversations, line: int, messages: Sequence[Message]
) -> tuple[list[int], np.ndarray]:
    """Ids of a conversation, and the ranges of its answers (k, 2), uint32."""
    try:
        ids, trained = chat.conversation(messages)
    except InputError as error:
        raise conversations.refused(line, error) from None
    edges = np.flatnonzero(np.diff(np.array([False, *trained, False]).astype(np.int8)))
    return ids, edges.reshape(-1, 2).astype(np.uint32)


def _identity(messages: Sequence[Message]) -> int:
    """XXH3-64 of roles and contents; neither a role nor a length holds a NUL, so the bytes are unambiguous."""
    said = (f"{message.role}\0{len(message.content)}\0{message.content}" for message in messages)
    return xxhash.xxh3_64_intdigest("\0".join(said).encode("utf-8", "surrogatepass"))
