"""A batch's examples are those of its documents one by one, whatever the vocabulary, the family and the spans."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fim.oracle import document_example, plain_example
from fim.test_example import documents
from fim.test_format import FACTS, vocabulary_of
from midspan.fim import Draws, Example, FimConfig, FimFormat
from midspan.fim.batch import PLAIN, PSM, SPM, Batch, Examples, document_examples, plain_examples
from midspan.fim.split import first_words
from midspan.tokenizer import Tokenizer

FORMS = {"plain": PLAIN, "psm": PSM, "spm": SPM}
EVERY_SPAN = FimConfig(spans={"uniform": 0.5, "line": 0.2, "lines": 0.1, "short": 0.1, "tree": 0.1})
uint64 = st.integers(0, 2**64 - 1)


def batch_of(
    texts: Sequence[str], names: Sequence[int] | None = None, pieces: Sequence[int] | None = None
) -> Batch:
    """Texts in a buffer, a space before each."""
    data = [text.encode() for text in texts]
    sizes = np.array([len(text) for text in data], np.int64)
    ends = np.cumsum(sizes + 1)
    return Batch(
        data=np.frombuffer(b"".join(b" " + text for text in data), np.uint8),
        starts=ends - sizes,
        ends=ends,
        documents=np.array(range(len(texts)) if names is None else names, np.uint64),
        pieces=np.array([0] * len(texts) if pieces is None else pieces, np.int64),
        languages=np.full(len(texts), "python", object),
    )


def check(examples: Examples, wanted: Sequence[Example]) -> None:
    assert len(examples.bounds) == len(wanted) + 1
    for n, one in enumerate(wanted):
        found = examples.ids[examples.bounds[n] : examples.bounds[n + 1]].tolist()
        assert found == one.ids
        assert (examples.forms[n], examples.num_middle[n]) == (FORMS[one.form], one.num_middle)


@pytest.mark.parametrize("name", ["code-llama", "small", "smollm2", "starcoder"])
@pytest.mark.parametrize("config", [FimConfig(), EVERY_SPAN], ids=["paper", "every span"])
def test_examples_are_those_of_the_documents(
    name: str, config: FimConfig, infilling: Callable[[str], Tokenizer]
) -> None:
    tokenizer = infilling(name)
    fim = FimFormat.detect(tokenizer)
    texts = documents(2_000)
    names = [2**64 - 1 - n for n in range(len(texts))]
    wanted = [
        document_example(tokenizer, fim, config, text, Draws(7, 3, document))
        for text, document in zip(texts, names, strict=True)
    ]
    batch = batch_of(texts, names)
    for each in (tokenizer, tokenizer.accelerated()):
        check(document_examples(each, fim, config, batch, seed=7, epoch=3), wanted)
        check(plain_examples(each, batch), [plain_example(tokenizer, text) for text in texts])


@pytest.mark.parametrize("family", FACTS)
def test_every_familys_order(family: str) -> None:
    tokenizer, (psm, spm, _) = vocabulary_of(family), FACTS[family]
    fim = FimFormat.detect(tokenizer)
    config = FimConfig(rate=1.0, spm_rate=0.5 if psm and spm else float(psm is None))
    texts = documents(200)
    wanted = [document_example(tokenizer, fim, config, text, Draws(0, 0, n)) for n, text in enumerate(texts)]
    assert {one.form for one in wanted} == {form for form, order in (("psm", psm), ("spm", spm)) if order}
    check(document_examples(tokenizer, fim, config, batch_of(texts), seed=0, epoch=0), wanted)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_the_ends_of_the_rates(rate: float, infilling: Callable[[str], Tokenizer]) -> None:
    tokenizer = infilling("small")
    batch = batch_of(["x = 1\n"] * 300)
    config = FimConfig(rate=rate)
    forms = document_examples(tokenizer, FimFormat.detect(tokenizer), config, batch, seed=0, epoch=0).forms
    assert set(forms) == ({PSM, SPM} if rate else {PLAIN})
    assert set(document_examples(tokenizer, None, FimConfig(rate=1.0), batch, seed=0, epoch=0).forms) == {PLAIN}


def test_some_of_a_batch_and_none(infilling: Callable[[str], Tokenizer]) -> None:
    tokenizer = infilling("small")
    fim = FimFormat.detect(tokenizer)
    texts = documents(2_000)[-50:]
    batch = batch_of(texts, pieces=[n % 3 for n in range(50)])
    assert [batch.text(n) for n in range(50)] == texts
    chosen = np.array([40, 3, 17])
    wanted = [
        document_example(tokenizer, fim, FimConfig(), texts[n], Draws(1, 2, n, n % 3)) for n in chosen.tolist()
    ]
    check(document_examples(tokenizer, fim, FimConfig(), batch.only(chosen), seed=1, epoch=2), wanted)
    empty = document_examples(tokenizer, fim, FimConfig(), batch.only(chosen[:0]), seed=1, epoch=2)
    assert [len(empty.ids), *empty.bounds] == [0, 0]


@given(
    seed=uint64, epoch=st.integers(0, 2**32), names=st.lists(st.tuples(uint64, st.integers(0, 2**32)), max_size=5)
)
def test_words_of_many_documents_are_those_of_each(seed: int, epoch: int, names: list[tuple[int, int]]) -> None:
    documents = np.array([document for document, _ in names], np.uint64)
    pieces = np.array([piece for _, piece in names], np.int64)
    words = first_words(seed, epoch, documents, pieces, 7)
    assert words.shape == (7, len(names))
    for n, (document, piece) in enumerate(names):
        draws = Draws(seed, epoch, document, piece)
        assert words[:, n].tolist() == [draws.below(2**64) for _ in range(7)]
