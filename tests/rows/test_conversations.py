"""Conversations as a source: answers alone are trained, and everything else is as for documents."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from midspan.corpus import Corpus
from midspan.errors import InputError
from midspan.fim import with_sentinels
from midspan.rows import FORMS, Conversations, Rows, RowsConfig, Source, compile_rows, rows_fingerprint
from midspan.tokenizer import Tokenizer
from midspan.tokenizer.chat import Message, chat_format
from midspan.tokenizer.chat_templates import with_chat
from vocabularies import small_vocabulary

CONFIG = RowsConfig(row_tokens=256, window_documents=30, seed=5)


@pytest.fixture(scope="module")
def chatty() -> Tokenizer:
    return with_chat(with_sentinels(small_vocabulary()))


def said(number: int) -> list[Message]:
    """A conversation of one to three turns; some begin with a system message."""
    messages = [Message("system", f"rules {number}")] if number % 3 == 0 else []
    for turn in range(1 + number % 3):
        messages.append(Message("user", f"question {number}.{turn} " + "why? " * (number % 7)))
        messages.append(Message("assistant", f"answer {number}.{turn} " + "since x = y\n" * (number % 5)))
    return messages


def write(path: Path, conversations: Sequence[Sequence[Message]]) -> Conversations:
    lines = [
        {"messages": [{"role": m.role, "content": m.content} for m in messages]} for messages in conversations
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return Conversations.open(path)


@pytest.fixture
def hundred(tmp_path: Path) -> Conversations:
    return write(tmp_path / "hundred.jsonl", [said(n) for n in range(100)])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_rows_hold_whole_conversations_of_which_the_answers_are_trained(
    hundred: Conversations, chatty: Tokenizer, tmp_path: Path
) -> None:
    compile_rows([Source(corpus=hundred)], chatty, CONFIG, 40, tmp_path / "rows")
    rows = Rows(tmp_path / "rows")
    format_ = chat_format(chatty)
    expected = {}
    for number in range(100):
        ids, trained = format_.conversation(said(number))
        expected[tuple(ids)] = [p - 1 for p in range(len(ids)) if trained[p]]
    seen: Counter[tuple[int, ...]] = Counter()
    for number in range(40):
        row = rows[number]
        targets = row.targets.tolist()
        for start, end, form in zip(row.bounds, row.bounds[1:], row.segments["form"], strict=False):
            assert FORMS[form] == "chat"
            ids = tuple(row.ids[start:end].tolist())
            seen[ids] += 1
            assert [t - start for t in targets if start <= t < end] == expected[ids]
    epochs = rows.manifest["sources"][0]["epochs"]
    assert seen.keys() <= expected.keys()
    assert all(count in (int(epochs), int(epochs) + 1) for count in seen.values()), "every epoch reads each once"
    assert rows.manifest["sources"][0]["segments"]["chat"] == sum(seen.values())


def test_any_number_of_workers_and_an_interruption_give_the_same_bytes(
    hundred: Conversations, functions: Corpus, chatty: Tokenizer, tmp_path: Path
) -> None:
    sources = [Source(corpus=hundred, name="chat", share=0.9), Source(corpus=functions, name="code", share=0.1)]
    compile_rows(sources, chatty, CONFIG, 80, tmp_path / "one")
    compile_rows(sources, chatty, CONFIG, 80, tmp_path / "three", workers=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")

    def stop(done: int) -> None:
        if done > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_rows(sources, chatty, CONFIG, 80, tmp_path / "again", progress=stop)
    assert (tmp_path / ".again.partial").is_dir()
    compile_rows(sources, chatty, CONFIG, 80, tmp_path / "again")
    assert contents(tmp_path / "one") == contents(tmp_path / "again")


def test_a_mixture_with_code_has_its_shares_and_code_is_trained_whole(
    hundred: Conversations, functions: Corpus, chatty: Tokenizer, tmp_path: Path
) -> None:
    sources = [Source(corpus=hundred, name="chat", share=0.7), Source(corpus=functions, name="code", share=0.3)]
    compile_rows(sources, chatty, CONFIG, 200, tmp_path / "rows")
    rows = Rows(tmp_path / "rows")
    shares = [source["realised_share"] for source in rows.manifest["sources"]]
    assert shares == pytest.approx([0.7, 0.3], abs=0.01)
    forms: Counter[str] = Counter()
    for number in range(200):
        row = rows[number]
        forms.update(FORMS[form] for form in row.segments["form"])
        if FORMS[row.segments["form"][0]] != "chat":
            assert len(row.targets) == len(row.ids) - len(row.segments)
    assert forms["chat"] > 0
    assert forms["psm"] > 0, "code beside conversations is infilled"


def test_what_is_too_long_or_cannot_be_written_is_left_out_and_counted(chatty: Tokenizer, tmp_path: Path) -> None:
    long = [Message("user", "tell me"), Message("assistant", "all of it, " * 200)]
    odd = [Message("user", "\ud800"), Message("assistant", "no character")]
    source = write(tmp_path / "c.jsonl", [said(1), long, said(2), odd])
    compile_rows([Source(corpus=source)], chatty, CONFIG, 5, tmp_path / "rows")
    (described,) = Rows(tmp_path / "rows").manifest["sources"]
    assert (described["documents"], described["too_long"], described["documents_left_out"]) == (2, 1, 1)
    nothing = write(tmp_path / "long.jsonl", [long])
    with pytest.raises(
        InputError, match=r"no conversation that fits a row \(1 are longer than data\.row_tokens = 256"
    ):
        compile_rows([Source(corpus=nothing)], chatty, CONFIG, 5, tmp_path / "none")


def test_the_fingerprint_knows_the_file_and_the_chat_format(
    hundred: Conversations, chatty: Tokenizer, tmp_path: Path
) -> None:
    def fingerprint(source: Conversations, tokenizer: Tokenizer) -> str:
        return rows_fingerprint([Source(corpus=source)], tokenizer, CONFIG)

    found = fingerprint(hundred, chatty)
    copy = write(tmp_path / "elsewhere.jsonl", [said(n) for n in range(100)])
    assert fingerprint(copy, chatty) == found, "a file is what it says, wherever it is"
    other = write(tmp_path / "other.jsonl", [said(n) for n in range(99)])
    assert fingerprint(other, chatty) != found
    assert chatty.chat_template is not None
    shouting = chatty.with_chat_template(chatty.chat_template.replace("+ '\n' +", "+ '!\n' +"))
    assert shouting.fingerprint == chatty.fingerprint
    assert fingerprint(hundred, shouting) != found


USER, ANSWER = '{"role": "user", "content": "x"}', '{"role": "assistant", "content": "y"}'


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "this is no JSON"),
        ("[]", "there are no messages"),
        ('{"messages": []}', "there are no messages"),
        ('{"text": "x"}', "there are no messages"),
        (f'{{"messages": [{USER}, 3]}}', "the role of message 2 is None"),
        (
            '{"messages": [{"role": "tool", "content": "x"}]}',
            "the role of message 1 is 'tool'; the roles are system",
        ),
        (f'{{"messages": [{USER}, {{"role": "assistant", "content": null}}]}}', "message 2 is nothing; only text"),
        (f'{{"messages": [{USER}, {{"role": "assistant", "content": []}}]}}', "message 2 is a list; only text"),
        (f'{{"messages": [{USER}, {{"role": "assistant", "content": " "}}]}}', "message 2 is an empty answer"),
        (f'{{"messages": [{USER}, {ANSWER[:-1]}, "weight": 0}}]}}', "message 2 has the weight 0"),
        (f'{{"messages": [{USER}]}}', "the roles are ['user']"),
    ],
)
def test_a_bad_line_is_named(chatty: Tokenizer, tmp_path: Path, line: str, sentence: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(f'{{"messages": [{USER}, {ANSWER}]}}\n\n{line}\n')
    for workers in (1, 2):
        source = Source(corpus=Conversations.open(path))
        with pytest.raises(InputError) as caught:
            compile_rows([source], chatty, CONFIG, 5, tmp_path / "rows", workers=workers)
        assert f"{path}, line 3: " in str(caught.value)
        assert sentence in str(caught.value)
        assert os.listdir(tmp_path) == ["bad.jsonl"]


def test_a_missing_file_and_a_vocabulary_that_cannot_chat(hundred: Conversations, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.jsonl cannot be read"):
        Conversations.open(tmp_path / "nowhere.jsonl")
    with pytest.raises(InputError, match="neither a chat template nor BOS and EOS"):
        compile_rows([Source(corpus=hundred)], small_vocabulary(), CONFIG, 5, tmp_path / "rows")


def test_targets_never_reach_into_the_next_conversation(
    hundred: Conversations, chatty: Tokenizer, tmp_path: Path
) -> None:
    compile_rows([Source(corpus=hundred)], chatty, CONFIG, 40, tmp_path / "rows")
    for row in (Rows(tmp_path / "rows")[n] for n in range(40)):
        last_of_segments = np.array(row.bounds[1:]) - 1
        assert not set(row.targets.tolist()) & set(last_of_segments.tolist())
        assert (np.diff(row.targets) > 0).all()
