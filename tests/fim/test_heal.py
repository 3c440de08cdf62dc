"""Healing: what is taken back is owed, and what may be said agrees with it."""

import random

import pytest

from midspan.fim import Healer
from midspan.fim.heal import MOST_TAKEN_BACK
from midspan.tokenizer import Tokenizer
from vocabularies import byte_vocabulary, small_vocabulary

TEXTS = (
    "def f(x):\n    ret",
    "def f(x):\n    ",
    "x = [1, 2,",
    "naïve = 'é",
    "a",
    "    \t\n\n        ",
    "import os\nimport sy",
    "日本",
)


@pytest.fixture(params=[byte_vocabulary, small_vocabulary], ids=["bytes", "merges"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return request.param()


@pytest.mark.parametrize("text", TEXTS)
def test_prompt_and_owed_are_the_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    kept, owed = Healer(tokenizer).take_back(ids)
    assert tokenizer.decode_bytes(kept) + owed == tokenizer.decode_bytes(ids)
    assert kept == ids[: len(kept)]
    assert kept, "a token always stays"
    assert len(ids) - len(kept) <= MOST_TAKEN_BACK
    assert bool(owed) == (len(ids) > 1)


def test_a_sentinel_is_never_taken_back(tokenizer: Tokenizer) -> None:
    taught = tokenizer.with_sentinels(["<MID>"])
    middle = taught.id_of("<MID>")
    assert middle is not None
    prompt = [*taught.encode("abc"), middle]
    assert Healer(taught).take_back(prompt) == (prompt, b"")
    assert Healer(taught).take_back([*prompt, *taught.encode("x")[:1]])[0] == prompt


def test_allowed_equals_the_definition(tokenizer: Tokenizer) -> None:
    """Against every token of the vocabulary, one by one."""
    healer, draw = Healer(tokenizer), random.Random(0)
    pieces = [tokenizer.piece_bytes(i) for i in range(tokenizer.vocab_size)]
    owed = {p[:end] for p in pieces for end in range(1, len(p) + 1)} | {p + b"q" for p in pieces if p}
    for each in draw.sample(sorted(owed), min(300, len(owed))):
        expected = {i for i, p in enumerate(pieces) if p and (p.startswith(each) or each.startswith(p))}
        assert set(healer.allowed(each)) == expected
        assert len(healer.allowed(each)) == len(expected)


def test_spelling_is_exact_and_short(tokenizer: Tokenizer) -> None:
    """What was taken back, a single byte too, in as few tokens as it was, or fewer."""
    healer = Healer(tokenizer)
    for text in (*TEXTS, "x", "a\n"):
        prompt = tokenizer.encode(text)
        kept, owed = healer.take_back(prompt)
        if owed:
            spelt = healer.spell(owed)
            assert b"".join(map(tokenizer.piece_bytes, spelt)) == owed
            assert len(spelt) <= len(prompt) - len(kept)


def test_every_owed_text_can_be_said(tokenizer: Tokenizer) -> None:
    """There is always a way on: the tokens that were taken back are one."""
    healer = Healer(tokenizer)
    for text in TEXTS:
        _, owed = healer.take_back(tokenizer.encode(text))
        while owed:
            choices = healer.allowed(owed)
            assert len(choices)
            owed = owed[len(tokenizer.piece_bytes(min(choices))) :]
