"""A document that fits stays whole and keeps its sentinels; a longer one is cut or dropped."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fim.oracle import document_example, plain_example
from fim.test_batch import batch_of
from midspan.errors import InputError
from midspan.fim import Draws, FimConfig, FimFormat, with_sentinels
from midspan.rows import FORMS, RowsConfig
from midspan.rows import segments as segments_module
from midspan.rows.segments import Segments, piece_starts, segments_of
from midspan.tokenizer import Tokenizer
from rows.conftest import text_of
from vocabularies import byte_vocabulary

words = st.sampled_from(["x", " ", " " * 8, " " * 40, "a" * 8, "-" * 30, "\n", "def f", "return", "🚀", "q7"])
texts_of_words = st.lists(words, max_size=60).map("".join)


def listed(found: Segments) -> list[tuple[int, str, int, list[int]]]:
    """Document, form, length of the middle and ids of each segment."""
    return [
        (
            int(found.documents[n]),
            FORMS[found.forms[n]],
            int(found.num_middle[n]),
            found.ids[found.starts[n] : found.starts[n] + found.lengths[n]].tolist(),
        )
        for n in range(len(found.starts))
    ]


def one_by_one(
    tokenizer: Tokenizer, fim: FimFormat | None, config: RowsConfig, document: int, text: str, epoch: int
) -> list[tuple[int, str, int, list[int]]]:
    """A document's segments, as the module says it."""
    row_tokens = config.row_tokens
    plain = plain_example(tokenizer, text)
    if len(text.encode()) <= 3 * row_tokens or len(plain.ids) <= row_tokens:
        made = document_example(tokenizer, fim, config.fim, text, Draws(config.seed, epoch, document))
        if len(made.ids) <= row_tokens:
            return [(document, made.form, made.num_middle, made.ids)]
        if len(plain.ids) <= row_tokens:
            return [(document, "plain", 0, plain.ids)]
    if config.long_documents == "drop":
        return []
    return [(document, "cut", 0, plain.ids[i : i + row_tokens]) for i in range(0, len(plain.ids), row_tokens)]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(texts_of_words, max_size=8),
    row_tokens=st.integers(16, 40),
    long_documents=st.sampled_from(["cut", "drop"]),
    rate=st.sampled_from([0.0, 0.9, 1.0]),
    names=st.integers(0, 2**64 - 10),
)
@example(texts=["q7" * 200, "x"], row_tokens=16, long_documents="cut", rate=0.9, names=1)
@example(texts=[" " * 2400], row_tokens=16, long_documents="cut", rate=0.9, names=1)
def test_segments_are_those_of_the_documents_one_by_one(
    texts: list[str], row_tokens: int, long_documents: str, rate: float, names: int, tokenizer: Tokenizer
) -> None:
    fim = FimFormat.detect(tokenizer)
    config = RowsConfig(row_tokens=row_tokens, long_documents=long_documents, fim=FimConfig(rate=rate), seed=5)
    documents = [names + n for n in range(len(texts))]
    for encoder in (tokenizer, tokenizer.accelerated()):
        found = listed(segments_of(encoder, fim, config, batch_of(texts, documents), epoch=2))
        wanted = [
            segment
            for document, text in zip(documents, texts, strict=True)
            for segment in one_by_one(tokenizer, fim, config, document, text, epoch=2)
        ]
        assert found == wanted


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts_of_words, row_tokens=st.integers(16, 40), document=st.integers(0, 2**64 - 1))
def test_nothing_that_fits_is_cut_and_no_sentinel_is_lost(
    text: str, row_tokens: int, document: int, tokenizer: Tokenizer
) -> None:
    fim = FimFormat.detect(tokenizer)
    assert fim is not None
    ids = plain_example(tokenizer, text).ids
    sentinels = {fim.prefix_id, fim.suffix_id, fim.middle_id, fim.eot_id}
    config = RowsConfig(row_tokens=row_tokens)
    found = listed(segments_of(tokenizer, fim, config, batch_of([text], [document]), epoch=0))
    assert all(0 < len(segment) <= row_tokens for *_, segment in found)
    for name, form, num_middle, segment in found:
        assert name == document
        order = [i for i in segment if i in sentinels]
        if form in ("psm", "spm"):
            layout = [fim.prefix_id, fim.suffix_id, fim.middle_id, fim.eot_id]
            assert order == layout
            assert segment[-1] == fim.eot_id
            assert 1 <= num_middle <= len(segment) - 1 - segment.index(fim.middle_id)
        else:
            assert (order, num_middle) == ([], 0)
    if len(ids) <= row_tokens:
        (segment,) = found
        assert segment[1] != "cut"
        assert text_of(tokenizer, segment[1], segment[3]) == text
    elif found[0][1] == "cut":
        assert [i for *_, segment in found for i in segment] == ids
        assert {form for _, form, _, _ in found} == {"cut"}
        assert all(len(segment) == row_tokens for *_, segment in found[:-1]), "full rows and a rest"
    else:
        assert len(found) == 1, "SPM may take fewer tokens"


def test_no_documents_at_all(tokenizer: Tokenizer) -> None:
    config = RowsConfig(row_tokens=64)
    assert listed(segments_of(tokenizer, FimFormat.detect(tokenizer), config, batch_of([]), epoch=0)) == []
    split = RowsConfig(row_tokens=64, piece_tokens=(4, 9))
    assert listed(segments_of(tokenizer, FimFormat.detect(tokenizer), split, batch_of([""]), epoch=0)) == []


@given(
    texts=st.lists(st.text(st.sampled_from("ab \t\n\n\r\x0c\u2028é🚀"), max_size=200), max_size=4),
    sizes=st.tuples(st.integers(1, 10), st.integers(10, 40)),
    document=st.integers(0, 2**64 - 10),
)
def test_pieces_are_whole_lines_of_no_more_than_the_largest_size(
    texts: list[str], sizes: tuple[int, int], document: int, tokenizer: Tokenizer
) -> None:
    config = RowsConfig(row_tokens=4096, piece_tokens=sizes, fim=FimConfig(rate=0.0))
    documents = [document + n for n in range(len(texts))]
    found = listed(segments_of(tokenizer, None, config, batch_of(texts, documents), epoch=0))
    for name, text in zip(documents, texts, strict=True):
        pieces = [text_of(tokenizer, form, ids[1:-1]) for of, form, _, ids in found if of == name]
        assert "".join(pieces) == text
        assert all(piece.endswith("\n") for piece in pieces[:-1])
        for piece in pieces:
            lines = piece.removesuffix("\n").split("\n")
            size = len([i for line in lines for i in tokenizer.encode(line + "\n")])
            assert len(lines) == 1 or size <= sizes[1] + 1, "the last line may lack its newline"


def test_pieces_are_infilled_by_draws_of_their_own(tokenizer: Tokenizer) -> None:
    text = "".join(f"value_{n} = {n} * {n}\n" for n in range(200))
    config = RowsConfig(row_tokens=256, piece_tokens=(20, 100))
    fim = FimFormat.detect(tokenizer)
    by_epoch = [listed(segments_of(tokenizer, fim, config, batch_of([text], [9]), epoch)) for epoch in (0, 1)]
    assert by_epoch[0] != by_epoch[1]
    forms: Counter[str] = Counter()
    for epoch, found in enumerate(by_epoch):
        pieces = [text_of(tokenizer, form, ids) for _, form, _, ids in found]
        assert "".join(pieces) == text
        for number, (piece, (_, form, num_middle, ids)) in enumerate(zip(pieces, found, strict=True), start=1):
            wanted = document_example(tokenizer, fim, config.fim, piece, Draws(0, epoch, 9, number))
            assert (form, num_middle, ids) == (wanted.form, wanted.num_middle, wanted.ids)
            forms[form] += 1
    assert min(forms["psm"], forms["spm"]) > 5


def test_sizes_of_pieces_are_log_uniform() -> None:
    begun = piece_starts([1] * 40_000, (4, 64), Draws(0, 0, 1))
    sizes = np.diff(begun)
    assert (begun[0], sizes.min(), sizes.max()) == (0, 4, 63)
    doublings = Counter(int(size).bit_length() for size in sizes)
    assert sorted(doublings) == [3, 4, 5, 6]
    assert all(count == pytest.approx(len(sizes) / 4, rel=0.15) for count in doublings.values())


def test_a_document_of_many_bytes_a_token_is_not_taken_for_a_long_one() -> None:
    merges = [("a" * n, "a" * n) for n in (1, 2, 4, 8, 16, 32)]
    tokenizer = with_sentinels(byte_vocabulary(merges))
    text = "a" * 64 * 12
    config = RowsConfig(row_tokens=16, long_documents="drop", fim=FimConfig(rate=0.0))
    assert len(text) > 3 * 16
    ((_, form, _, ids),) = listed(segments_of(tokenizer, None, config, batch_of([text]), epoch=0))
    assert (form, len(ids)) == ("plain", 14)


def test_grammars_are_part_of_the_fingerprint_where_spans_follow_syntax(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, tree = RowsConfig(), RowsConfig(fim=FimConfig(spans={"uniform": 0.7, "tree": 0.3}))
    before = [config.fingerprint([], "t") for config in (plain, tree)]
    monkeypatch.setattr(segments_module, "grammars", lambda: {"tree_sitter": "0.1"})
    after = [config.fingerprint([], "t") for config in (plain, tree)]
    assert after[0] == before[0]
    assert after[1] != before[1]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"row_tokens": 15}, r"data\.row_tokens is 15; a row needs at least 16"),
        ({"long_documents": "keep"}, r"data\.long_documents is 'keep'; it must be 'cut' or 'drop'"),
        ({"piece_tokens": (8,)}, r"data\.piece_tokens is \[8\]; give \[smallest, largest\]"),
        ({"piece_tokens": (9, 8)}, r"data\.piece_tokens is \[9, 8\]"),
        ({"piece_tokens": (0, 8)}, r"data\.piece_tokens is \[0, 8\]"),
        ({"window_documents": 0}, r"data\.window_documents is 0"),
        ({"seed": -1}, r"data\.seed is -1; it must lie between"),
        ({"seed": 2**64}, r"data\.seed is 18446744073709551616"),
    ],
)
def test_settings_that_cannot_be_are_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        RowsConfig(**values)
