"""Vocabularies that can infill, of three kinds: SentencePiece, byte-level with BOS, byte-level without."""

from collections.abc import Callable

import pytest

from midspan.fim import with_sentinels
from midspan.tokenizer import Tokenizer
from vocabularies import small_vocabulary


@pytest.fixture(scope="session")
def infilling(request: pytest.FixtureRequest) -> Callable[[str], Tokenizer]:
    """A function from "code-llama", "small" or a name of `vocabulary` to a vocabulary with sentinels.

    Only those that are asked for are loaded: the small one needs no files.
    """

    def load(name: str) -> Tokenizer:
        if name == "code-llama":
            return Tokenizer.load(request.getfixturevalue("code_llama_model"))
        if name == "small":
            return with_sentinels(small_vocabulary(bos="<s>"))
        return with_sentinels(request.getfixturevalue("vocabulary")(name))

    return load
