"""A file's new text as one edit."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.tiny import tiny_model, tiny_tokenizer
from midspan.engine import Engine
from midspan.engine.session import Session
from midspan.serve.lsp.document import change, smallest_edit

TOKENIZER = tiny_tokenizer()
ENGINE = Engine(tiny_model(TOKENIZER.vocab_size), TOKENIZER)
texts = st.text(alphabet="ab\n🚀", max_size=12)


@settings(max_examples=400)
@given(before=texts, after=texts, place=st.randoms(use_true_random=False))
def test_a_session_comes_to_any_text_and_cursor(before: str, after: str, place: random.Random) -> None:
    session = Session(ENGINE)
    session.open(before, place.randint(0, len(before)))
    cursor = place.randint(0, len(after))
    change(session, after, cursor)
    assert (session.text, session.cursor) == (after, cursor)


@given(before=texts, after=texts)
def test_the_smallest_edit_is_one(before: str, after: str) -> None:
    start, end, text = smallest_edit(before, after)
    assert before[:start] + text + before[end:] == after
    assert len(text) + end - start <= max(len(before), len(after)) * 2


def test_what_is_typed_on_stands_though_the_same_stands_behind_it() -> None:
    session = Session(ENGINE)
    session.open("x = (\n)", 5)
    suggestion = session.suggest(max_tokens=24)
    if len(suggestion.text) > 1:
        typed = suggestion.text[0]
        change(session, f"x = ({typed}\n)", 6)
        standing = session.standing()
        assert standing is not None
        assert standing.text == suggestion.text[1:]
    session.open("aa", 0)
    change(session, "aaa", 1)
    assert session.cursor == 1
