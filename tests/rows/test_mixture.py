"""Sources take turns by their shares of tokens, and are read as often as the paper's table says."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midspan.corpus import Corpus
from midspan.errors import InputError
from midspan.fim import FimConfig
from midspan.rows import FORMS, Rows, RowsConfig, Source, check_shares, compile_rows, epochs
from midspan.rows.mixture import Blend
from midspan.tokenizer import Tokenizer
from rows.conftest import text_of

MakeCorpus = Callable[[Mapping[str, str]], Corpus]
TABLE_1 = {
    # stage: tokens, and of each dataset its share, its tokens and its epochs
    "code": (
        500e9,
        [("code", 0.85, 209.4e9, 2.03), ("about code", 0.08, 28.8e9, 1.39), ("text", 0.07, 3.5e12, 0.01)],
    ),
    "python": (
        100e9,
        [
            ("python", 0.75, 20.3e9, 3.69),
            ("code", 0.10, 209.4e9, 0.05),
            ("about code", 0.10, 28.8e9, 0.35),
            ("text", 0.05, 3.5e12, 0.00),
        ],
    ),
}
"""Table 1 of the paper: shares, epochs and stage sizes are its own. Tokens of a dataset are those that its two
stages agree on, from 859 GB of code (4.1 bytes a token), 78 GB about code (2.7) and 79 GB of Python (3.9); of
3.5 TB of text it says no more than that a hundredth of an epoch was read."""


@pytest.mark.parametrize("stage", TABLE_1)
def test_epochs_are_the_papers(stage: str) -> None:
    total, datasets = TABLE_1[stage]
    assert sum(share for _, share, _, _ in datasets) == pytest.approx(1)
    for _, share, tokens, wanted in datasets:
        assert round(epochs(share, total, tokens), 2) == wanted


def blended(shares: list[float], rows: list[np.ndarray], row_tokens: int, count: int, step: int) -> list[int]:
    """The first rows of a mixture, asked for in pieces as a compilation does, windows of `step` rows."""
    blend, places, found = Blend(shares, row_tokens), [0] * len(shares), []
    while len(found) < count:
        waiting = [row[place : (place // step + 1) * step] for row, place in zip(rows, places, strict=True)]
        chosen = blend.next_rows(waiting, count - len(found)).tolist()
        for source in chosen:
            places[source] += 1
        found += chosen
    return found


def plainly(shares: list[float], rows: list[np.ndarray], row_tokens: int, count: int) -> list[int]:
    given, found = [0] * len(shares), []
    places = [0] * len(shares)
    for _ in range(count):
        total = sum(given) + row_tokens
        source = max(range(len(shares)), key=lambda s: (shares[s] * total - given[s], -s))
        given[source] += int(rows[source][places[source]])
        places[source] += 1
        found.append(source)
    return found


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=5),
    st.integers(0, 2**32 - 1),
    st.integers(1, 40),
)
def test_the_next_row_is_of_the_source_that_is_furthest_behind(weights: list[int], seed: int, step: int) -> None:
    shares = [weight / sum(weights) for weight in weights]
    random = np.random.default_rng(seed)
    rows = [random.integers(1, 101, 200) for _ in shares]
    found = blended(shares, rows, 100, 150, step)
    assert found == plainly(shares, rows, 100, 150)


@pytest.mark.parametrize(
    "shares", [[0.85, 0.08, 0.07], [0.75, 0.10, 0.10, 0.05], [0.5, 0.5], [1.0], [0.999, 0.001]]
)
def test_shares_are_within_a_thousandth_at_every_thousand_rows(shares: list[float]) -> None:
    random = np.random.default_rng(0)
    rows = [random.integers(3500 + 100 * n, 4097, 20_000) for n in range(len(shares))]
    chosen = np.array(blended(shares, rows, 4096, 20_000, 1_000))
    tokens = np.zeros((20_000, len(shares)))
    for n, row in enumerate(rows):
        tokens[chosen == n, n] = row[: (chosen == n).sum()]
    given = np.cumsum(tokens, axis=0)[999::1000]
    assert len(given) == 20
    assert np.abs(given / given.sum(axis=1, keepdims=True) - shares).max() < 0.001


@pytest.mark.parametrize(
    ("names", "shares", "sentence"),
    [
        (["a", "b"], [0.5, 0.4], r"the shares of data.sources are 0\.5 \+ 0\.4 = 0\.9; they must sum to 1"),
        (["a", "b"], [0.5, 0.500002], "they must sum to 1"),
        (["a", "b"], [1.0, 0.0], r"the share of source 'b' is 0\.0; give one above 0"),
        (["a", "b"], [1.5, -0.5], r"the share of source 'a' is 1\.5"),
        (["a"], [float("nan")], "the share of source 'a' is nan"),
        (["a", "a"], [0.5, 0.5], "two of data.sources are called 'a'"),
        ([str(n) for n in range(300)], [1 / 300] * 300, "data.sources has 300 sources"),
    ],
)
def test_shares_that_are_no_mixture_are_refused(names: list[str], shares: list[float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        check_shares(names, shares)


def test_shares_may_round() -> None:
    check_shares(["a", "b", "c"], [1 / 3, 1 / 3, 0.3333333])


@pytest.fixture(scope="module")
def three(corpus_of: MakeCorpus) -> list[Corpus]:
    """Corpora of different sizes, told apart by a word."""
    return [
        corpus_of(
            {f"{n}.py": f"def {word}_{n}(x):\n" + f"    x += {n} * {word}\n" * (n * n % 23) for n in range(count)}
        )
        for word, count in (("code", 150), ("words", 40), ("rare", 15))
    ]


def test_a_mixture_on_disk(three: list[Corpus], tokenizer: Tokenizer, tmp_path: Path) -> None:
    shares, rates = [0.7, 0.2, 0.1], [None, 0.0, 1.0]
    sources = [
        Source(corpus=corpus, name=name, share=share, fim_rate=rate)
        for corpus, name, share, rate in zip(three, ("code", "words", "rare"), shares, rates, strict=True)
    ]
    config = RowsConfig(row_tokens=256, window_documents=32, fim=FimConfig(rate=0.5))
    compile_rows(sources, tokenizer, config, 1000, tmp_path / "rows")
    rows = Rows(tmp_path / "rows")
    texts = [{document.id: document.text for document in corpus.documents("train")} for corpus in three]
    tokens, forms = np.zeros(3), [Counter[str]() for _ in three]
    read: list[Counter[int]] = [Counter() for _ in three]
    for number in range(1000):
        row = rows[number]
        (source,) = set(row.segments["source"].tolist())
        tokens[source] += len(row.ids)
        for start, segment in zip(row.bounds, row.segments, strict=False):
            form, document = FORMS[segment["form"]], int(segment["document"])
            forms[source][form] += 1
            read[source][document] += 1
            if form != "cut":
                assert (
                    text_of(tokenizer, form, row.ids[start : segment["end"]].tolist()) == texts[source][document]
                )
    assert np.abs(tokens / tokens.sum() - shares).max() < 0.001
    for n, described in enumerate(rows.manifest["sources"]):
        assert described["name"] == ("code", "words", "rare")[n]
        assert described["tokens"] == tokens[n]
        assert described["share"] == shares[n]
        assert described["realised_share"] == pytest.approx(tokens[n] / tokens.sum())
        assert described["segments"] == {form: forms[n][form] for form in FORMS}
        assert described["documents"] == len(texts[n])
        times = [read[n][document] for document in texts[n]]
        assert min(times) - 1 <= described["epochs"] <= max(times) + 1
        assert max(times) - min(times) <= 2 or forms[n]["cut"], "nothing is read more often than the rest"
    by_name = {described["name"]: described["fim_rate"] for described in rows.manifest["sources"]}
    assert by_name["words"] == 0.0
    assert by_name["rare"] == 1.0
    assert by_name["code"] == pytest.approx(0.5, abs=0.05)


def test_a_source_twice_has_orders_of_its_own(three: list[Corpus], tokenizer: Tokenizer, tmp_path: Path) -> None:
    sources = [Source(corpus=three[0], name=name, share=0.5) for name in ("one", "two")]
    compile_rows(sources, tokenizer, RowsConfig(row_tokens=256, window_documents=16), 20, tmp_path / "rows")
    rows = Rows(tmp_path / "rows")
    orders: list[list[int]] = [[], []]
    for number in range(20):
        for segment in rows[number].segments:
            orders[segment["source"]].append(int(segment["document"]))
    assert orders[0][:5] != orders[1][:5]
