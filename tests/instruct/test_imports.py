"""Files of others: what is read, and the sentence that names the line of what cannot be."""

import json
from pathlib import Path

import pytest

from midspan.errors import InputError
from midspan.instruct.imports import entries
from midspan.tokenizer.chat import Message

U, A, S = (lambda text, role=role: Message(role, text) for role in ("user", "assistant", "system"))  # type: ignore[misc]

PARTS = {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}


def write(path: Path, *values: object, as_list: bool = False) -> Path:
    text = json.dumps(values) if as_list else "".join(json.dumps(value) + "\n" for value in values)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize(
    ("value", "messages"),
    [
        (
            {"messages": [{"role": "developer", "content": "s"}, {"role": "user", "content": "q"}, PARTS]},
            [S("s"), U("q"), A("ab")],
        ),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}] * 2},
            [U("q"), A("a"), U("q"), A("a")],
        ),
        (
            {"conversations": [{"role": "user", "content": "q"}, {"role": "Assistant", "content": "a"}]},
            [U("q"), A("a")],
        ),
        ({"instruction": "do", "input": "", "output": "done"}, [U("do"), A("done")]),
        ({"instruction": "do", "input": "this", "output": "done"}, [U("do\n\nthis"), A("done")]),
        (
            {"instruction": "do", "output": "done", "system": "s", "history": [["q", "a"]]},
            [S("s"), U("q"), A("a"), U("do"), A("done")],
        ),
    ],
)  # fmt: skip
def test_formats(tmp_path: Path, value: object, messages: list[Message], as_list: bool) -> None:
    found = list(entries(write(tmp_path / "x", value, value, as_list=as_list)))
    assert [entry.messages for entry in found] == [messages, messages]
    assert not any(entry.fault for entry in found)
    assert found[1].place.endswith("entry 2" if as_list else "line 2")


GOOD = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


def turns(*pairs: tuple[str, object], **more: object) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content, **more} for role, content in pairs]}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"messages": []}, "there are no messages"),
        ({"text": "x"}, "there are no messages"),
        ([], "there are no messages"),
        (turns(("user", "q")), "the roles are user; after an optional system message"),
        (turns(("assistant", "a"), ("user", "q")), "the roles are assistant, user"),
        (turns(("user", "q"), ("user", "q"), ("assistant", "a")), "the roles are user, user, assistant"),
        (turns(("user", "q"), ("assistant", "  ")), "message 2 is an empty answer"),
        (turns(("user", "q"), ("assistant", None)), "the content of message 2 is nothing"),
        (turns(("user", 3), ("assistant", "a")), "the content of message 1 is a int"),
        (turns(("tool", "q"), ("assistant", "a")), "the role of message 1 is 'tool'; known are system"),
        (turns(("user", [{"type": "image_url", "image_url": "x"}]), ("assistant", "a")), "a part 'image_url'"),
        (turns(("user", "q"), ("assistant", "a"), tool_calls=[1]), "message 1 has tool_calls"),
        (turns(("user", "q"), ("assistant", "a"), weight=0), "message 1 has the weight 0"),
        (turns(("user", "\ud83d"), ("assistant", "a")), "message 1 holds half a character"),
        (turns(("user", "say [/INST]"), ("assistant", "a")), r"message 1 holds '\[/INST\]'"),
        ({"messages": ["q", "a"]}, "message 1 is 'q'; it must be an object"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_line(tmp_path: Path, value: object, words: str) -> None:
    found = list(entries(write(tmp_path / "x", GOOD, value, GOOD)))
    assert [bool(entry.fault) for entry in found] == [False, True, False]
    assert found[1].place == f"{tmp_path / 'x'}, line 2"
    with pytest.raises(InputError, match=words):
        raise InputError(found[1].fault)


def test_broken_lines_and_files(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\n\n{\n\xff\n")
    found = list(entries(path))
    assert [entry.place.rpartition(" ")[2] for entry in found] == ["1", "3", "4"]
    assert all("this is no JSON" in entry.fault for entry in found[1:])
    assert not found[0].fault
    for text, words in (("", "holds no conversation"), ('[{"a": 1}]', "the fields are a;"), ("[{]", "is no JSON")):
        path.write_text(text)
        with pytest.raises(InputError, match=words):
            list(entries(path))
    with pytest.raises(InputError, match="cannot be read"):
        list(entries(tmp_path / "nowhere"))


@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_behind_a_byte_order_mark(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps([GOOD, GOOD], indent=indent).encode())
    assert [entry.messages for entry in entries(path)] == [[U("q"), A("a")]] * 2


def test_what_is_nested_too_deeply_is_no_conversation(tmp_path: Path) -> None:
    deep, path = "[" * 100_000, tmp_path / "x"
    path.write_text(f'{json.dumps(GOOD)}\n{{"messages": {deep}\n')
    assert [entry.fault[:15] for entry in entries(path)] == ["", "this is no JSON"]
    path.write_text(deep)
    with pytest.raises(InputError, match="is no JSON"):
        list(entries(path))


def test_alpaca_without_texts(tmp_path: Path) -> None:
    good = {"instruction": "do", "output": "done"}
    bad = [{"instruction": "do", "output": 3}, {"instruction": "do"}, {**good, "history": ["q"]}]
    found = list(entries(write(tmp_path / "x", good, *bad)))
    assert [entry.fault.partition(";")[0] for entry in found] == [
        "",
        "output is 3",
        "output is None",
        "history holds 'q'",
    ]
