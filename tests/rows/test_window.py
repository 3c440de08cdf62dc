"""Orders are permutations by their key, and a window bounds its text."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midspan.corpus import Corpus
from midspan.rows import RowsConfig
from midspan.rows import window as window_module
from midspan.rows.texts import Texts
from midspan.rows.window import Packer, permuted
from midspan.tokenizer import Tokenizer


@given(count=st.integers(1, 3_000), key=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
def test_an_order_is_a_permutation(count: int, key: list[int]) -> None:
    order = permuted(np.arange(count), count, *key)
    assert (np.sort(order) == np.arange(count)).all()
    places = np.arange(0, count, 7)
    assert (permuted(places, count, *key) == order[::7]).all(), "any place on its own"


def test_orders_differ_by_every_part_of_their_key() -> None:
    keys = ((0, 0), (0, 1), (1, 0), (0, 0, 1), (0, 0, 2), (0, 0, 0, 1), (2**64 - 1, 0), (2**64 - 2, 0))
    orders = [tuple(permuted(np.arange(500), 500, *key)) for key in keys]
    assert len(set(orders)) == len(keys)
    assert len(permuted(np.arange(0), 0, 5)) == 0


def test_orders_are_random() -> None:
    """Every element comes to every place equally often, and neighbours part."""
    counts = np.zeros((12, 12))
    for seed in range(6_000):
        counts[np.arange(12), permuted(np.arange(12), 12, seed)] += 1
    assert ((counts - 500) ** 2 / 500).sum() < 180  # 121 degrees of freedom: p = 0.0004
    order = permuted(np.arange(100_000), 100_000, 3, 1)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.01
    assert abs(np.corrcoef(order, np.arange(100_000))[0, 1]) < 0.01


def test_a_large_corpus_takes_no_memory() -> None:
    count = 10**15
    order = permuted(np.array([0, 1, count - 1]), count, 7)
    assert len(set(order)) == 3
    assert order.max() < count


def test_windows_of_large_documents_hold_fewer(
    corpus_of: Callable[[Mapping[str, str]], Corpus],
    tokenizer: Tokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus = corpus_of({f"{n}.py": f"# {n}\n" + "value = 1\n" * 100 for n in range(100)})
    Texts.write(corpus.documents("train"), tokenizer, tmp_path)
    texts = Texts(tmp_path)
    monkeypatch.setattr(window_module, "WINDOW_BYTES", 10_100)
    packer = Packer(RowsConfig(row_tokens=512), tokenizer, texts, source=0, fim_rate=None)
    windows = [packer.window(n) for n in range(packer.windows_per_epoch)]
    assert [window.documents for window in windows] == [10] * 10
    found = sorted(int(i) for window in windows for i in np.unique(window.segments["document"]))
    assert found == sorted(texts.ids.tolist())
