"""Draws are Philox's and never change; cuts lie where each kind of span says, and uniformly."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midspan.fim import Draws, split
from midspan.fim.split import MOST_LINES, SHORT_SPAN, SPANS
from tokenizer.strings import CODE

WORD = 2**64 - 1
TEXT = "def f(x):\n    return x + 1\n\n\nclass A:\n    y = f(2)\n"
uint64 = st.integers(0, WORD)
texts = st.text(st.sampled_from("ab ()\n\t\n🚀é\r"), max_size=60) | st.text(max_size=30) | st.sampled_from(CODE)


def philox(key: list[int], counter: list[int]) -> list[int]:
    """One block of Philox4x64-10, from Salmon et al. 2011 ("Parallel Random Numbers: As Easy as 1, 2, 3")."""
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (p1 >> 64) ^ c1 ^ k0, p1 & WORD, (p0 >> 64) ^ c3 ^ k1, p0 & WORD
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & WORD, (k1 + 0xBB67AE8584CAA73B) & WORD
    return [c0, c1, c2, c3]


def test_the_oracle_gives_the_published_block() -> None:
    published = "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"  # Random123's kat_vectors
    assert philox([0, 0], [0, 0, 0, 0]) == [int(word, 16) for word in published.split()]


@given(seed=uint64, epoch=st.integers(0, 2**32), document=uint64, piece=st.integers(0, 2**32))
def test_words_are_philoxs_for_every_seed_and_document(seed: int, epoch: int, document: int, piece: int) -> None:
    draws = Draws(seed, epoch, document, piece)
    words = [draws.below(2**64) for _ in range(10)]
    blocks = [philox([seed, 0], [block, epoch, document, piece]) for block in (1, 2, 3)]
    assert words == [word for block in blocks for word in block][:10]


def test_draws_never_change() -> None:
    """Rows that users compiled depend on these numbers."""
    draws = Draws(7, 1, 0xDEADBEEFCAFEF00D)
    assert [draws.below(2**64) for _ in range(5)] == [
        9383848875882652743,
        2100611487207949200,
        7013285664688851279,
        3553239444829093332,
        1217582451321328063,
    ]
    units = [Draws(0, 0, 0).unit(), Draws(2**64 - 1, 9, 2**64 - 1).unit()]
    assert units == [0.011546754286331562, 0.12591796403735123]


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("uniform", [(4, "f(x):\n    retur"), (18, "rn x + 1\n\n\ncla"), (1, "ef f(x):\n    return x")]),
        ("line", [(3, " f(x):"), (21, "x + 1"), (0, "def f(x):")]),
        ("lines", [(0, TEXT[:26]), (14, "return x + 1"), (0, TEXT[:27])]),
        ("short", [(4, "f(x):\n    return x + 1\n\n\n"), (18, TEXT[18:]), (1, TEXT[1:29])]),
    ],
)
def test_splits_never_change(kind: str, wanted: list[tuple[int, str]]) -> None:
    parts = [split(TEXT, Draws(3, 0, document), {kind: 1.0}) for document in range(3)]
    assert [(len(p.prefix), p.middle) for p in parts] == wanted


@given(seed=uint64, document=uint64, bound=st.integers(1, 2**64))
def test_draws_stay_in_their_bounds(seed: int, document: int, bound: int) -> None:
    draws = Draws(seed, 0, document)
    for _ in range(8):
        assert 0.0 <= draws.unit() < 1.0
        assert 0 <= draws.below(bound) < bound
        assert draws.below(1) == 0


def test_the_extreme_words_stay_in_their_bounds() -> None:
    draws = Draws(0, 0, 0)
    for word, unit, below in ((WORD, 1 - 2.0**-53, 6), (0, 0.0, 0)):
        draws._words = type("Words", (), {"random_raw": lambda self, word=word: np.uint64(word)})()
        assert (draws.unit(), draws.below(7), draws.below(1)) == (unit, below, 0)


def test_draws_of_neighbouring_documents_epochs_and_seeds_have_nothing_in_common() -> None:
    for names in (
        [(0, 0, n) for n in range(5_000)],
        [(0, 0, 2**63 + n) for n in range(5_000)],
        [(0, n, 42) for n in range(5_000)],
        [(2**64 - 1 - n, 0, 42) for n in range(5_000)],
    ):
        units = np.array([Draws(*name).unit() for name in names])
        assert len(set(units)) == len(units)
        assert abs(np.corrcoef(units[:-1], units[1:])[0, 1]) < 0.05
        counts = np.histogram(units, bins=20, range=(0, 1))[0]
        assert _chi_square(counts, np.full(20, len(units) / 20)) < 45  # 19 degrees of freedom: p = 0.0007


def _chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


def test_both_cuts_are_independent_and_uniform_over_the_characters() -> None:
    text = "a🚀é\n\r\tdef"
    places = len(text) + 1
    counts = np.zeros((places, places))
    total = 30_000
    for document in range(total):
        parts = split(text, Draws(1, 0, document), {"uniform": 1.0})
        start = len(parts.prefix)
        counts[start, start + len(parts.middle)] += 1
    expected = np.triu(np.full((places, places), 2.0), 1) + np.eye(places)
    expected *= total / expected.sum()
    upper = np.triu_indices(places)
    assert counts.sum() == counts[upper].sum()
    assert _chi_square(counts[upper], expected[upper]) < 94  # 54 degrees of freedom: p = 0.0006


@given(text=texts, document=uint64, kind=st.sampled_from(SPANS))
def test_the_parts_are_the_document(text: str, document: int, kind: str) -> None:
    parts = split(text, Draws(0, 0, document), {kind: 1.0})
    assert parts.prefix + parts.middle + parts.suffix == text


@given(text=texts, document=uint64)
def test_a_line_span_runs_from_the_code_of_a_line_to_its_end(text: str, document: int) -> None:
    parts = split(text, Draws(0, 0, document), {"line": 1.0})
    assert "\n" not in parts.middle
    assert parts.suffix[:1] in ("", "\n")
    before = parts.prefix[parts.prefix.rfind("\n") + 1 :]
    line = before + parts.middle
    if line.strip():
        assert len(before) >= len(line) - len(line.lstrip()), "not inside the indentation"
        assert parts.middle
    else:  # the text has hardly any other lines
        assert not parts.middle


@given(text=texts, document=uint64)
def test_a_lines_span_is_whole_lines_or_goes_from_code_to_code(text: str, document: int) -> None:
    parts = split(text, Draws(0, 0, document), {"lines": 1.0})
    before, behind = parts.prefix.rpartition("\n")[2], parts.suffix.partition("\n")[0]
    whole = not before and (parts.middle.endswith("\n") or not parts.suffix)
    code = not before.strip() and not behind.strip() and parts.middle == parts.middle.strip()
    assert whole or code
    assert parts.middle.removesuffix("\n").count("\n") < MOST_LINES


@given(text=texts, document=uint64)
def test_a_short_span_is_short(text: str, document: int) -> None:
    parts = split(text, Draws(0, 0, document), {"short": 1.0})
    assert len(parts.middle) <= SHORT_SPAN
    assert parts.middle or not parts.suffix


def test_spans_take_what_their_kind_offers() -> None:
    text = "\n\n    alpha = 1\n\nbeta(\n  gamma\n)\n"
    seen: dict[str, Counter[str]] = {}
    for kind in SPANS:
        parts = [split(text, Draws(5, 0, document), {kind: 1.0}) for document in range(3_000)]
        seen[kind] = Counter(p.middle for p in parts)
    codes = ("alpha = 1", "beta(", "gamma", ")")
    at_code = sum(seen["line"][code] for code in codes)
    assert 0.5 < at_code / 3_000 < 0.7, "half at the beginning of the code, and some by chance"
    assert set(seen["line"]) == {
        line[i:] for line in ("alpha = 1", "beta(", "gamma", ")") for i in range(len(line))
    }
    whole = Counter({middle: count for middle, count in seen["lines"].items() if middle.endswith("\n")})
    assert 0.47 < whole.total() / 3_000 < 0.53
    assert {"    alpha = 1\n", "    alpha = 1\n\nbeta(\n  gamma\n", ")\n"} <= set(whole)
    assert {middle.count("\n") for middle in whole} == set(range(1, MOST_LINES + 1))
    assert {"alpha = 1", "alpha = 1\n\nbeta(\n  gamma", ")"} <= set(seen["lines"] - whole)
    assert {len(middle) for middle in seen["short"]} == set(range(len(text) + 1)), (
        "the text is shorter than the cap"
    )


def test_shares_decide_how_often_and_their_order_in_the_table_does_not() -> None:
    text = "x = 1\n" * 40
    shares = {"uniform": 0.5, "line": 0.2, "lines": 0.2, "short": 0.1}
    by_kind: Counter[str] = Counter()
    for document in range(4_000):
        parts = split(text, Draws(0, 0, document), shares)
        assert parts == split(text, Draws(0, 0, document), dict(reversed(shares.items())))
        by_kind.update(kind for kind in shares if parts == split(text, Draws(0, 0, document), {kind: 7.0}))
    assert {kind: round(by_kind[kind] / 4_000, 1) for kind in shares} == shares


def test_a_kind_without_a_share_is_never_drawn() -> None:
    shares = {"uniform": 0.1, "line": 0.2, "short": 0.7, "lines": 0.0}  # 0.1 + 0.2 + 0.7 rounds below 1
    text = "a\nb\n" * 50
    draws = Draws(0, 0, 0)
    draws._words = type("Words", (), {"random_raw": lambda self: np.uint64(WORD)})()
    parts = split(text, draws, shares)
    assert len(parts.middle) == 0
    assert not parts.suffix, "short, at the very end"
