"""Perplexity by position: against models whose losses are known, and the same documents for every length."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from tests.train.conftest import byte_tokenizer

from midspan.errors import InputError
from midspan.evaluate.tasks.context_perplexity import context_perplexity, long_documents
from midspan.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return byte_tokenizer(tmp_path_factory.mktemp("bytes"))


def test_a_model_that_knows_nothing_has_the_vocabulary_for_perplexity() -> None:
    buckets = context_perplexity([list(range(300))] * 2, lambda ids: [math.log(257)] * (len(ids) - 1))
    assert [(b.start, b.end, b.tokens) for b in buckets] == [
        (0, 64, 126),
        (64, 128, 128),
        (128, 256, 256),
        (256, 300, 88),
    ]
    assert [b.perplexity for b in buckets] == pytest.approx([257.0] * 4)


def test_a_bucket_has_the_losses_of_its_own_positions() -> None:
    def losses(ids: Sequence[int]) -> list[float]:
        return [1.0 if position < 64 else 0.5 for position in range(1, len(ids))]

    assert [b.perplexity for b in context_perplexity([[0] * 128], losses)] == pytest.approx(
        [math.e, math.exp(0.5)]
    )


def test_only_documents_that_are_long_enough_take_part(tokenizer: Tokenizer) -> None:
    texts = ["a" * 50, "b" * 200, "c" * 120, "d" * 300]
    found = long_documents(texts, tokenizer, 120, most=2)
    assert [tokenizer.decode(ids) for ids in found] == ["b" * 120, "c" * 120]
    with pytest.raises(InputError, match="no document has 400 tokens"):
        long_documents(texts, tokenizer, 400, most=2)
