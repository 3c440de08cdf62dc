"""Conversations of others: files of OpenAI's messages, of ShareGPT and of Alpaca, told by their first entry.

    OpenAI      {"messages": [{"role": "user", "content": "..."}, ...]}
    ShareGPT    {"conversations": [{"from": "human", "value": "..."}, ...]}
    Alpaca      {"instruction": "...", "input": "...", "output": "..."}

One object a line, or all in one list. An entry is used whole or not at all; the sentence about one that cannot be
used names its line. What holds no text (pictures, calls of tools, weights) is refused rather than passed over.
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midspan.errors import InputError
from midspan.tokenizer.chat import TAGS, Message, Role

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "model": "assistant",
}
_SURROGATE = re.compile("[\ud800-\udfff]")
_TEXT_PARTS = ("text", "input_text", "output_text")


@dataclass(frozen=True)
class Entry:
    """One entry of a file: a conversation, or the reason why it is none."""

    place: str
    """The file and the line."""
    messages: list[Message]
    fault: str = ""


def entries(path: Path) -> Iterator[Entry]:
    """The entries of a file.

    Raises:
        InputError: the file cannot be read, or is of no known kind.
    """
    reader: Callable[[Any], list[Message]] | None = None
    for place, data in _values(path):
        try:
            value = json.loads(data) if isinstance(data, bytes) else data
        except (ValueError, RecursionError) as error:
            yield Entry(place, [], f"this is no JSON ({error}); write one object a line")
            continue
        if reader is None:
            reader = _reader(value, place)
        yield _entry(place, reader, value)
    if reader is None:
        raise InputError(f"{path} holds no conversation; name a file with entries")


def _entry(place: str, read: Callable[[Any], list[Message]], value: Any) -> Entry:
    try:
        messages = read(value)
        check(messages)
    except InputError as error:
        return Entry(place, [], str(error))
    return Entry(place, messages)


def check(messages: list[Message]) -> None:
    """InputError unless this is a conversation that can be learnt from in every chat format."""
    turns = messages[1:] if messages and messages[0].role == "system" else messages
    roles = [message.role for message in turns]
    expected = ["user", "assistant"] * (len(roles) // 2)
    if not roles or roles != expected:
        raise InputError(
            f"the roles are {', '.join(message.role for message in messages) or 'none'}; after an optional system "
            "message, user and assistant must alternate, and the last is the assistant"
        )
    for number, message in enumerate(messages, start=1):
        if message.role == "assistant" and not message.content.strip():
            raise InputError(f"message {number} is an empty answer; take the conversation out")
        if _SURROGATE.search(message.content):  # JSON can say it, no vocabulary can write it
            raise InputError(f"message {number} holds half a character (a lone surrogate); take it out")
        for tag in TAGS:
            if tag in message.content:
                raise InputError(
                    f"message {number} holds {tag!r}, which marks turns in Llama 2's format; take it out"
                )


def _values(path: Path) -> Iterator[tuple[str, Any]]:
    """Place and content of each entry: bytes of a line, or a value of a list."""
    try:
        with path.open("rb") as file:
            start = file.read(1 << 16).removeprefix(BOM_UTF8).lstrip()
            file.seek(0)
            if not start.startswith(b"["):
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield f"{path}, line {number}", line.removeprefix(BOM_UTF8)
                return
            found = json.load(file)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); name a file of conversations, or a folder of the stages"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON ({error}); write a list of objects, or one object a line") from None
    for number, value in enumerate(found, start=1):
        yield f"{path}, entry {number}", value


def _reader(value: Any, place: str) -> Callable[[Any], list[Message]]:
    fields = value if isinstance(value, dict) else {}
    if "messages" in fields:
        return lambda value: _turns(value, "messages")
    if "conversations" in fields:
        return lambda value: _turns(value, "conversations")
    if "instruction" in fields and "output" in fields:
        return _alpaca
    named = ", ".join(sorted(map(str, fields))[:8]) or "none"
    raise InputError(
        f"{place}: the fields are {named}; conversations have messages (OpenAI), conversations (ShareGPT), or "
        "instruction and output (Alpaca)"
    )


def _turns(value: Any, name: str) -> list[Message]:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, list) or not found:
        raise InputError(f"there are no {name}")
    return [_turn(number, each) for number, each in enumerate(found, start=1)]


def _turn(number: int, value: Any) -> Message:
    if not isinstance(value, dict):
        raise InputError(f"message {number} is {value!r:.40}; it must be an object")
    said = value.get("role", value.get("from"))
    role = _ROLES.get(said.lower()) if isinstance(said, str) else None
    if role is None:
        raise InputError(f"the role of message {number} is {said!r}; known are {', '.join(_ROLES)}")
    for name in ("tool_calls", "function_call"):
        if value.get(name):
            raise InputError(f"message {number} has {name}; only text can be learnt from")
    if value.get("weight", 1) != 1:
        raise InputError(f"message {number} has the weight {value['weight']!r}; every answer counts once")
    return Message(role, _text(number, value.get("content", value.get("value"))))


def _text(number: int, content: Any) -> str:
    if isinstance(content, list):  # parts, as OpenAI has them
        for part in content:
            is_text = isinstance(part, dict) and part.get("type") in _TEXT_PARTS
            if not is_text or not isinstance(part.get("text"), str):
                kind = part.get("type") if isinstance(part, dict) else part
                raise InputError(f"message {number} has a part {kind!r}; only text can be learnt from")
        return "".join(part["text"] for part in content)
    if not isinstance(content, str):
        kind = "nothing" if content is None else f"a {type(content).__name__}"
        raise InputError(f"the content of message {number} is {kind}; only text can be learnt from")
    return content


def _alpaca(value: Any) -> list[Message]:
    fields = value if isinstance(value, dict) else {}
    for name in ("instruction", "output"):
        if not isinstance(fields.get(name), str):
            raise InputError(f"{name} is {fields.get(name)!r:.40}; it must be a text")
    asked, more, system = fields["instruction"], fields.get("input") or "", fields.get("system") or ""
    messages = [Message("system", system)] if system else []
    for pair in fields.get("history") or []:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise InputError(f"history holds {pair!r:.40}; it must hold pairs of texts")
        messages += [Message("user", pair[0]), Message("assistant", pair[1])]
    said = f"{asked}\n\n{more}" if more.strip() else asked
    return [*messages, Message("user", said), Message("assistant", fields["output"])]
