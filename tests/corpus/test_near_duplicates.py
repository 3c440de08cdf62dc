"""Near duplicates beside plain Python on real code: planted truth, order of rank, components, edge cases."""

import random
import re
import sysconfig
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from midspan.corpus import near_duplicates
from midspan.corpus.near_duplicates import (
    BANDS,
    MAX_COMPARED,
    MAX_ENTRIES,
    THRESHOLD,
    band_keys,
    components,
    jaccard,
    shingle_hashes,
    survivors,
)
from midspan.corpus.shingles import minima_of

WORDS = re.compile(rb"[A-Za-z_0-9\x80-\xff]+")
Verdicts = list[tuple[int, float] | None]


def true_set(text: bytes) -> set[tuple[bytes, ...]]:
    words = WORDS.findall(text)
    return set(zip(*(words[i:] for i in range(5)), strict=False))


def true_jaccard(a: bytes, b: bytes) -> float:
    x, y = true_set(a), true_set(b)
    return len(x & y) / max(len(x | y), 1)


def columns(keys: NDArray[np.uint64]) -> Iterator[NDArray[np.uint64]]:
    return (keys[:, band] for band in range(BANDS))


def deduplicate(texts: Sequence[bytes]) -> Verdicts:
    """The whole way for texts in order of rank: verdicts with indices into `texts`."""
    keys = band_keys(texts)
    labels = components(columns(keys))
    verdicts: Verdicts = [None] * len(texts)
    for label in np.flatnonzero(np.bincount(labels) > 1):
        members = np.flatnonzero(labels == label)
        for member, verdict in zip(
            members, survivors([shingle_hashes(texts[i]) for i in members], keys[members]), strict=True
        ):
            verdicts[member] = verdict and (int(members[verdict[0]]), verdict[1])
    return verdicts


def edited(text: bytes, edits: int, draw: random.Random) -> bytes:
    """A copy with lines inserted, deleted, and names changed, `edits` times in all."""
    lines = text.split(b"\n")
    for _ in range(edits):
        at = draw.randrange(len(lines))
        kind = draw.randrange(3)
        if kind == 0:
            lines.insert(at, b"    value_%d = compute_%d(value)" % (draw.randrange(10**6), draw.randrange(10**6)))
        elif kind == 1 and len(lines) > 1:
            del lines[at]
        elif words := WORDS.findall(lines[at]):
            lines[at] = lines[at].replace(draw.choice(words), b"renamed_%d" % draw.randrange(10**6))
    return b"\n".join(lines)


@pytest.fixture(scope="module")
def code() -> list[bytes]:
    """400 files of the standard library, 1 to 60 kB, no two of them alike."""
    folder = Path(sysconfig.get_path("stdlib"))
    paths = sorted(path for path in folder.rglob("*.py") if "site-packages" not in path.parts)
    random.Random(1).shuffle(paths)
    texts = [path.read_bytes() for path in paths if 1000 <= path.stat().st_size <= 60_000][:500]
    verdicts = deduplicate(texts)
    return [text for text, verdict in zip(texts, verdicts, strict=True) if verdict is None][:400]


@pytest.fixture(scope="module")
def planted(code: list[bytes]) -> list[tuple[int, bytes, float]]:
    """Edited copies of `code` with their exact Jaccard: (index of the original, copy, Jaccard), 1200 of them."""
    draw = random.Random(2)
    pairs = []
    for i, text in enumerate(code * 3):
        share = draw.choice([0.005, 0.01, 0.02, 0.05, 0.07, 0.09, 0.3])
        copy = edited(text, max(1, round(share * text.count(b"\n"))), draw)
        pairs.append((i % len(code), copy, true_jaccard(text, copy)))
    return pairs


def test_planted_copies_are_found_and_the_unlike_stay(
    code: list[bytes], planted: list[tuple[int, bytes, float]]
) -> None:
    texts = code + [copy for _, copy, _ in planted]
    verdicts = deduplicate(texts)
    assert verdicts[: len(code)] == [None] * len(code), "an original ranks before every copy"
    outcome = [(truth, verdicts[len(code) + i]) for i, (_, _, truth) in enumerate(planted)]
    alike = [verdict for truth, verdict in outcome if truth >= 0.85]
    near = [verdict for truth, verdict in outcome if THRESHOLD <= truth < 0.85]
    unlike = [verdict for truth, verdict in outcome if truth < 0.6]
    assert min(map(len, (alike, near, unlike))) > 100
    assert sum(verdict is not None for verdict in alike) >= 0.99 * len(alike)
    assert sum(verdict is not None for verdict in near) >= 0.98 * len(near)
    assert sum(verdict is not None for verdict in unlike) <= 0.001 * len(unlike)
    for i, verdict in enumerate(verdicts):
        if verdict is not None:
            assert verdict[0] < i
            assert verdicts[verdict[0]] is None
            assert verdict[1] >= THRESHOLD
            assert verdict[1] == pytest.approx(true_jaccard(texts[i], texts[verdict[0]]), abs=1e-5)


def test_minima_estimate_real_code_without_bias(
    code: list[bytes], planted: list[tuple[int, bytes, float]]
) -> None:
    """Shared lines, repeated words and nested names are no random sets: the estimate must hold there too."""
    errors, variances = [], []
    for original, copy, truth in planted:
        a, b = (minima_of(np.frombuffer(text, np.uint8))[0] for text in (code[original], copy))
        errors.append(np.mean(a == b) - truth)
        variances.append(truth * (1 - truth) / len(a))
    assert abs(np.mean(errors)) < 4 * np.mean(variances) ** 0.5 / len(errors) ** 0.5
    assert 0.9 < np.var(errors) / np.mean(variances) < 1.15


def test_the_result_depends_on_rank_alone(code: list[bytes], planted: list[tuple[int, bytes, float]]) -> None:
    """Documents may be found in any order: components are the same sets, and ranked alike the same ones go."""
    texts = code[:100] + [copy for original, copy, _ in planted if original < 100]
    keys = band_keys(texts)
    labels = components(columns(keys))
    verdicts = deduplicate(texts)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(texts))
        shuffled = band_keys([texts[i] for i in order])
        assert (shuffled == keys[order]).all()
        found = components(columns(shuffled))
        groups = {frozenset(order[found == label].tolist()) for label in set(found.tolist())}
        assert groups == {frozenset(np.flatnonzero(labels == label).tolist()) for label in set(labels.tolist())}
        for group in groups:
            members = sorted(group)
            for member, verdict in zip(
                members, survivors([shingle_hashes(texts[i]) for i in members], keys[members]), strict=True
            ):
                assert verdicts[member] == (verdict and (members[verdict[0]], verdict[1]))
    assert survivors([shingle_hashes(text) for text in texts], keys) == verdicts, "or all taken as one component"


def test_a_better_rank_stays(code: list[bytes]) -> None:
    draw = random.Random(5)
    a = code[0]
    b = edited(a, 5, draw)
    assert true_jaccard(a, b) > THRESHOLD
    for first, second in ((a, b), (b, a)):
        assert [verdict is None for verdict in deduplicate([first, second])] == [True, False]


def test_what_resembles_only_the_removed_stays() -> None:
    """A like B, B like C, A unlike C: C stays, because the document that it repeats went."""
    words = [f"w{i}" for i in range(500)]
    a, b, c = (" ".join(words[start : start + 400]).encode() for start in (0, 50, 100))
    assert true_jaccard(a, b) >= THRESHOLD > true_jaccard(a, c)
    assert [verdict is None for verdict in deduplicate([a, b, c])] == [True, False, True]
    assert [verdict is None for verdict in deduplicate([b, a, c])] == [True, False, False]


def walked_plainly(shingles: Sequence[NDArray[np.uint32]], keys: NDArray[np.uint64]) -> Verdicts:
    """What `survivors` promises, without its limits: the most similar kept document that shares a key."""
    verdicts: Verdicts = []
    for i in range(len(keys)):
        found = []
        for j in range(i):
            shared = int(np.sum((keys[i] == keys[j]) & (keys[i] != 0)))
            if verdicts[j] is None and shared:
                a, b = set(shingles[i].tolist()), set(shingles[j].tolist())
                found.append((len(a & b) / len(a | b), shared, -j))
        best = max(found, default=(0.0, 0, 0))
        verdicts.append((-best[2], best[0]) if best[0] >= THRESHOLD else None)
    return verdicts


@given(st.data())
def test_survivors_are_those_of_a_plain_walk(data: st.DataObject) -> None:
    """Families of sets around a few cores, their similarities on both sides of the threshold, ties included."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    cores = [rng.integers(0, 1000, 40, dtype=np.uint32) for _ in range(data.draw(st.integers(1, 3)))]
    shingles, keys = [], []
    for _ in range(data.draw(st.integers(0, 25))):
        core = cores[rng.integers(len(cores))].copy()
        changed = rng.integers(0, 14)
        core[rng.choice(40, changed, replace=False)] = rng.integers(0, 1000, changed, dtype=np.uint32)
        shingles.append(np.unique(core))
        keys.append(
            rng.choice(np.array([0, 1, 2, 3, 4, 5], np.uint64), BANDS, p=[0.9, 0.02, 0.02, 0.02, 0.02, 0.02])
        )
    table = np.array(keys, np.uint64).reshape(-1, BANDS)
    assert survivors(shingles, table) == walked_plainly(shingles, table)


def test_of_equally_similar_documents_keys_then_rank_decide() -> None:
    """Three kept documents resemble the fourth alike: more keys in common win, then the better rank."""
    common = list(range(100, 190))
    shingles = [np.array(common + [1000 + 20 * i + n for n in range(20)], np.uint32) for i in range(3)]
    shingles.append(np.array(common, np.uint32))
    assert max(jaccard(shingles[0], shingles[i]) for i in (1, 2)) < THRESHOLD
    keys = np.zeros((4, BANDS), np.uint64)
    keys[:, 0] = 7
    keys[[0, 1], 2] = 9  # a key that the fourth has not: lacking it together is nothing in common
    assert survivors(shingles, keys)[3] == (0, 90 / 110)
    keys[[1, 2, 3], 1] = 8
    assert survivors(shingles, keys)[3] == (1, 90 / 110)


def test_rare_keys_are_looked_at_before_common_ones() -> None:
    """Behind more kept documents with a common key than are looked at, a copy is found by the key of two."""
    count = MAX_ENTRIES + 500
    shingles = [np.arange(10 * i, 10 * i + 10, dtype=np.uint32) for i in range(count)]
    keys = np.zeros((count + 1, BANDS), np.uint64)
    keys[:, : BANDS - 1] = 7
    keys[[count - 1, count], BANDS - 1] = 8
    assert survivors([*shingles, shingles[-1]], keys) == [None] * count + [(count - 1, 1.0)]


class Counted(Sequence[NDArray[np.uint32]]):
    """A sequence that counts how often it is asked."""

    def __init__(self, arrays: list[NDArray[np.uint32]]) -> None:
        self.arrays, self.asked = arrays, 0

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        self.asked += 1
        return self.arrays[index]


def family(count: int, seed: int, common: int = 450, own: int = 150) -> list[bytes]:
    """Texts that share a header and differ below it, all pairs at Jaccard common / (common + 2 own)."""
    rng = np.random.default_rng(seed)
    header = " ".join(f"h{n}" for n in range(common))
    return [f"{header} {' '.join(map(str, rng.integers(0, 2**40, own)))}".encode() for _ in range(count)]


def test_work_is_linear_where_thousands_resemble_one_another() -> None:
    """4000 documents at 0.6 of each other all stay, each compared with a bounded number; copies among them go."""
    texts = family(4000, seed=3)
    rng = random.Random(4)
    copies = []
    for _ in range(200):
        words = texts[rng.randrange(len(texts))].split()
        for at in rng.sample(range(len(words)), 8):
            words[at] = b"new%d" % at
        copies.append(b" ".join(words))
    keys = band_keys(texts + copies)
    shingles = Counted([shingle_hashes(text) for text in texts + copies])
    verdicts = survivors(shingles, keys)
    assert shingles.asked <= 2 * MAX_COMPARED * len(keys)
    assert verdicts[: len(texts)] == [None] * len(texts)
    assert sum(verdict is not None for verdict in verdicts[len(texts) :]) >= 198


def test_shingles_are_asked_for_only_when_compared(code: list[bytes]) -> None:
    texts = code[:50]
    shingles = Counted([shingle_hashes(text) for text in texts])
    keys = band_keys(texts)
    linked = sum((keys[i] == keys[j]).any() for i in range(50) for j in range(i))
    assert survivors(shingles, keys) == [None] * 50
    assert shingles.asked == 2 * linked


@given(st.sets(st.integers(0, 60)), st.sets(st.integers(0, 60)))
def test_jaccard_is_that_of_sets(a: set[int], b: set[int]) -> None:
    x, y = (np.array(sorted(s), np.uint32) for s in (a, b))
    truth = len(a & b) / len(a | b) if a | b else 0.0
    assert jaccard(x, y) == truth
    for floor in (0.1, 0.5, THRESHOLD, 0.9, truth):
        found = near_duplicates._jaccard(x, y, floor)
        assert found == truth or (found == 0.0 and truth < floor), "given up only below the floor"


def test_jaccard_of_real_code_is_that_of_its_runs_of_words(planted: list[tuple[int, bytes, float]]) -> None:
    for (_, a, _), (_, b, _) in zip(planted[:40], planted[400:440], strict=True):
        assert jaccard(shingle_hashes(a), shingle_hashes(b)) == pytest.approx(true_jaccard(a, b), abs=1e-5)


@given(
    st.integers(0, 30).flatmap(
        lambda n: st.lists(st.lists(st.integers(0, 12), min_size=n, max_size=n), min_size=1, max_size=4)
    )
)
def test_components_are_those_of_a_graph(table: list[list[int]]) -> None:
    arrays = [np.array(column, np.uint64) for column in table]
    graph = networkx.Graph()
    graph.add_nodes_from(range(len(table[0])))
    for column in table:
        graph.add_edges_from((i, j) for i, a in enumerate(column) for j in range(i) if a == column[j] and a != 0)
    expected = np.empty(len(table[0]), np.int64)
    for group in networkx.connected_components(graph):
        expected[list(group)] = min(group)
    assert (components(arrays) == expected).all()
    assert (components(reversed(arrays)) == expected).all()


def test_components_of_a_long_chain() -> None:
    """Half a million documents linked in one random chain, the shape that is worst for a union-find."""
    count = 500_000
    order = np.random.default_rng(0).permutation(count)
    even, odd = np.empty(count, np.uint64), np.empty(count, np.uint64)
    even[order] = np.arange(count) // 2 + 1
    odd[order] = (np.arange(count) + 1) // 2 + 1
    assert (components([even, odd]) == 0).all()


def test_components_take_thirty_bytes_a_document() -> None:
    count = 1_000_000
    rng = np.random.default_rng(0)
    components([np.ones(2, np.uint64)])
    tracemalloc.start()
    labels = components(rng.integers(1, 2**63, count, dtype=np.uint64) for _ in range(3))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert labels.dtype == np.int64
    assert peak <= 30 * count


def test_nothing_at_all() -> None:
    assert band_keys([]).shape == (0, BANDS)
    assert components([]).shape == components([np.empty(0, np.uint64)]).shape == (0,)
    assert survivors([], np.empty((0, BANDS), np.uint64)) == []
    assert jaccard(shingle_hashes(b""), shingle_hashes(b"")) == 0.0


@pytest.mark.parametrize("text", [b"", b"word", b"one two three four", b" \n\t.,", b"x" * 10_000])
def test_few_words_are_nobodys_near_duplicate(text: bytes) -> None:
    assert not band_keys([text]).any()
    assert shingle_hashes(text).size == 0
    assert deduplicate([text] * 3) == [None] * 3


def test_one_word_repeated_is_one_shingle() -> None:
    short, long = b"spam " * 5, b"spam " * 100_000
    assert shingle_hashes(short).tolist() == shingle_hashes(long).tolist()
    assert deduplicate([long, short]) == [None, (0, 1.0)]


def test_a_single_line_of_ten_megabytes() -> None:
    rng = np.random.default_rng(0)
    line = b",".join(b"%d" % n for n in rng.integers(0, 10**9, 1_000_000).tolist())
    line += b"," * (10_000_000 - len(line))
    other = line[:9_000_000]
    verdict = deduplicate([line, other])[1]
    assert verdict is not None
    assert verdict[1] == pytest.approx(len(WORDS.findall(other)) / len(WORDS.findall(line)), abs=2e-4)


def test_invalid_bytes_are_text_like_any_other() -> None:
    broken = bytes(range(128, 256)) + b" and some words \xff\xfe after \xc3( it"
    assert deduplicate([broken, broken, broken + b" more"])[1] == (0, 1.0)
    assert band_keys([broken]).all()


def test_keys_are_those_of_each_text_alone(code: list[bytes]) -> None:
    together = band_keys(code[:30])
    assert all((band_keys([text])[0] == row).all() for text, row in zip(code[:30], together, strict=True))
