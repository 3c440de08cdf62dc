"""Key retrieval: prompts hold their key once, at its place; scores of models that are known in advance."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap

import pytest
from tests.train.conftest import byte_tokenizer

from midspan.errors import InputError
from midspan.evaluate.tasks.key_retrieval import (
    Filler,
    KeyRetrievalConfig,
    is_right,
    key_retrieval,
    questions,
    top_level_pieces,
)
from midspan.tokenizer import Tokenizer

CONFIG = KeyRetrievalConfig(lengths=(2000, 6000), places=(0.0, 0.5, 1.0), num_prompts=6)
FILES = [inspect.getsource(module) for module in (textwrap, inspect, ast)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return byte_tokenizer(tmp_path_factory.mktemp("bytes"))


def test_a_prompt_holds_its_key_once_and_ends_in_the_question(tokenizer: Tokenizer) -> None:
    asked = questions(Filler.of(FILES, tokenizer), tokenizer, CONFIG)
    assert len(asked) == 2 * 3 * 6
    for question in asked:
        text = tokenizer.decode(question.ids)
        assert question.length * 0.6 < len(question.ids) <= question.length
        assert text.endswith("assert my_function() ==")
        assert text.count("def my_function") == 1
        assert re.findall(r"\d+", text).count(question.answer) == 1
        ast.parse(text + question.answer)


def test_the_key_stands_where_it_was_asked_for(tokenizer: Tokenizer) -> None:
    for question in questions(Filler.of(FILES, tokenizer), tokenizer, CONFIG):
        text = tokenizer.decode(question.ids)
        share = text.index("def my_function") / len(text)
        widest = max(len(piece) for piece in top_level_pieces(text + " 0")) / len(text)
        assert share == pytest.approx(question.place, abs=widest / 2 + 0.1)


def test_a_model_that_copies_is_always_right_and_one_that_guesses_is_not(tokenizer: Tokenizer) -> None:
    def copy(prompts: list[list[int]]) -> list[str]:
        found = [re.search(r"end\.\"\"\"\n    return (\d+)", tokenizer.decode(ids)) for ids in prompts]
        return [f" {match[1]}\n" for match in found if match]

    asked = questions(Filler.of(FILES, tokenizer), tokenizer, CONFIG)
    assert [(c.length, c.place, c.right, c.num_prompts) for c in key_retrieval(asked, copy)] == [
        (length, place, 6, 6) for length in (2000, 6000) for place in (0.0, 0.5, 1.0)
    ]
    assert not any(cell.right for cell in key_retrieval(asked, lambda prompts: [" x"] * len(prompts)))


def test_questions_depend_on_nothing_but_their_settings(tokenizer: Tokenizer) -> None:
    assert questions(Filler.of(FILES, tokenizer), tokenizer, CONFIG) == questions(
        Filler.of(FILES, tokenizer), tokenizer, CONFIG
    )
    alone = KeyRetrievalConfig(lengths=(6000,), places=(0.0, 0.5, 1.0), num_prompts=6)
    assert (
        questions(Filler.of(FILES, tokenizer), tokenizer, alone)
        == questions(Filler.of(FILES, tokenizer), tokenizer, CONFIG)[18:]
    )


@pytest.mark.parametrize(
    ("written", "right"),
    [(" 73", True), ("73\n", True), (" 731", False), (" -73", False), ("", False), (" 7", False)],
)
def test_the_number_itself_counts(written: str, right: bool) -> None:
    assert is_right(written, "73") is right


def test_pieces_give_back_the_file() -> None:
    for text in FILES:
        pieces = top_level_pieces(text)
        assert "".join(pieces) == text + "\n"
        assert len(pieces) > 5
        assert all(len(ast.parse(piece).body) >= 1 for piece in pieces)
    assert top_level_pieces("def broken(:\n") == []


def test_what_cannot_be_asked_is_said(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="too few for a prompt of 5000"):
        questions(Filler.of(["x = 1\n"], tokenizer), tokenizer, KeyRetrievalConfig(lengths=(5000,)))
    with pytest.raises(InputError, match=r"cannot stand at 1\.5"):
        KeyRetrievalConfig(places=(1.5,))
    with pytest.raises(InputError, match="no room for the function"):
        questions(Filler.of(FILES, tokenizer), tokenizer, KeyRetrievalConfig(lengths=(64,)))
