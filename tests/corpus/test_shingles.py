"""The kernels beside a plain Python version of the same family, and MinHash beside its theory."""

import re
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from midspan.corpus import shingles as kernels
from midspan.corpus.shingles import BANDS, NUM_PERMUTATIONS, ROWS, SHINGLE

MASK = 2**64 - 1
WORDS = re.compile(rb"[A-Za-z_0-9\x80-\xff]+")
GOLDEN_SHINGLES = [2486140534, 1711479821, 4091319905]
GOLDEN_KEYS = [2200196582730276784, 12614608353373270834, 15632322245269567960]


def array(text: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(text, np.uint8)


def plain_shingles(text: bytes) -> list[int]:
    words = []
    for word in WORDS.findall(text):
        state = 0
        for byte in word:
            state = (state ^ byte) * int(kernels.WORD_FACTOR) & MASK
        words.append(state)
    found = []
    for start in range(len(words) - SHINGLE + 1):
        mixed = sum(w * int(p) for w, p in zip(words[start:], kernels.PLACES, strict=False)) & MASK
        found.append(((mixed ^ mixed >> 32) * int(kernels.MIX_FACTOR) & MASK) >> 32)
    return found


def plain_minima(shingles: list[int]) -> list[int]:
    return [
        min((s * int(a) + int(b)) % 2**32 for s in shingles)
        for a, b in zip(kernels.MULTIPLIERS, kernels.OFFSETS, strict=True)
    ]


def plain_keys(minima: list[int]) -> list[int]:
    keys = []
    for band in range(BANDS):
        key = band + 1
        for minimum in minima[band * ROWS : (band + 1) * ROWS]:
            key = (key ^ minimum) * int(kernels.WORD_FACTOR) & MASK
            key = (key ^ key >> 32) * int(kernels.MIX_FACTOR) & MASK
        keys.append(max(key, 1))
    return keys


def kernel_keys(text: bytes) -> list[int]:
    keys = np.zeros(BANDS, np.uint64)
    kernels.sketch(array(text), keys)
    return keys.tolist()


@given(st.one_of(st.binary(), st.text(alphabet="ab_ .\n", max_size=200).map(str.encode)))
@example(b"")
@example(b"word")
@example(b"one two three four")
@example(b" one two three four five")
@example(b"\xff\xfe broken \x80 bytes \xc3( here and there")
def test_shingles_minima_and_keys_are_those_of_plain_python(text: bytes) -> None:
    expected = plain_shingles(text)
    assert kernels.list_shingles(array(text)).tolist() == expected
    minima, count = kernels.minima_of(array(text))
    assert count == len(expected)
    if expected:
        assert minima.tolist() == plain_minima(expected)
        assert kernel_keys(text) == plain_keys(plain_minima(expected))
    else:
        assert kernel_keys(text) == [0] * BANDS


@pytest.mark.parametrize("size", [8191, 8192, 8193, 16384, 40_000])
@pytest.mark.parametrize("ending", [b"", b" ", b"\n end"])
def test_words_and_shingles_cross_the_blocks_of_the_kernel(size: int, ending: bytes) -> None:
    draws = np.random.default_rng(size).choice(np.frombuffer(b"abc  \n", np.uint8), size)
    text = draws.tobytes() + ending
    assert kernels.list_shingles(array(text)).tolist() == plain_shingles(text)
    assert kernel_keys(text) == plain_keys(plain_minima(plain_shingles(text)))


@pytest.mark.parametrize(
    "text",
    [b"x " * 20_000, b"x" * 20_000, b" " * 20_000 + b"a b c d e", b"a b c d " + b"e" * 20_000, b"a.b" * 10_000],
    ids=["shortest words", "one word", "blanks", "a long last word", "no blanks"],
)
def test_blocks_of_few_or_of_most_words(text: bytes) -> None:
    expected = plain_shingles(text)
    assert kernels.list_shingles(array(text)).tolist() == expected
    assert kernels.minima_of(array(text))[1] == len(expected)


def test_words_of_ascii_are_the_stacks() -> None:
    """The Stack splits at [^A-Za-z_0-9]; what is empty between two separators is no word."""
    text = "def f_1(x, *args): return x**2 # Done!\tnp.array([1e-5, 0x1F])"
    words = [word for word in re.split("[^A-Za-z_0-9]", text) if word]
    assert kernels.list_shingles(array(text.encode())).size == len(words) - SHINGLE + 1
    assert plain_shingles(text.encode()) == plain_shingles(" ".join(words).encode())


def test_text_beyond_ascii_has_words() -> None:
    russian = "Эта функция возвращает сумму двух чисел".encode()
    assert kernels.list_shingles(array(russian)).size == 2


def test_a_version_s_sketch_never_changes() -> None:
    """Sketches are kept in corpora: whoever changes these numbers must raise SKETCH_VERSION."""
    text = b"for (int i = 0; i < n; ++i) { sum += values[i]; }  // \xc3\xa9t\xc3\xa9"
    assert kernels.SKETCH_VERSION == 1
    assert kernels.list_shingles(array(text)).tolist()[:3] == GOLDEN_SHINGLES
    assert kernel_keys(text)[:2] + kernel_keys(text)[-1:] == GOLDEN_KEYS


def test_a_shingle_is_hashed_to_its_own_number_on_real_code() -> None:
    """Distinct five-word runs of the standard library: collisions as many as 32 random bits have, not more."""
    runs: set[tuple[bytes, ...]] = set()
    hashes: set[int] = set()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        text = path.read_bytes()
        words = WORDS.findall(text)
        runs.update(zip(*(words[i:] for i in range(SHINGLE)), strict=False))
        hashes.update(kernels.list_shingles(array(text)).tolist())
    expected = len(runs) ** 2 / 2**33
    assert len(runs) > 300_000
    assert abs(len(runs) - len(hashes) - expected) < 5 * expected**0.5 + 1


@pytest.mark.parametrize("size", [30, 300, 3000])
@pytest.mark.parametrize("similarity", [0.3, 0.6, 0.85])
def test_minima_agree_as_often_as_sets_do(size: int, similarity: float) -> None:
    """Over random sets, the share of equal minima has mean J and the spread of independent permutations."""
    rng = np.random.default_rng(size)
    union = size
    common = round(similarity * union)
    shares = []
    buffer = np.empty(size + kernels._LANES, np.uint32)
    for _ in range(400):
        values = rng.integers(0, 2**32, union, dtype=np.uint32)
        own = common + (union - common) // 2
        minima = []
        for chosen in (values[:own], np.concatenate([values[:common], values[own:]])):
            buffer[: chosen.size] = chosen
            lowest = np.full(NUM_PERMUTATIONS, 0xFFFFFFFF, np.uint32)
            kernels._fold(buffer, chosen.size, lowest)
            minima.append(lowest)
        shares.append(np.mean(minima[0] == minima[1]))
    true = common / union
    deviation = (true * (1 - true) / NUM_PERMUTATIONS) ** 0.5
    assert abs(np.mean(shares) - true) < 5 * deviation / 400**0.5
    assert 0.85 < np.std(shares) / deviation < 1.25


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.6, 0.7])
def test_keys_collide_as_the_theory_of_bands_says(similarity: float) -> None:
    """P(a key) = J**6 and P(candidate) = 1 - (1 - J**6)**42, over 1500 pairs of random sets of 400 shingles."""
    rng = np.random.default_rng(7)
    pairs, union = 1500, 400
    common = round(similarity * union)
    own = common + (union - common) // 2
    buffer = np.empty(union + kernels._LANES, np.uint32)
    equal = np.zeros((pairs, BANDS), bool)
    for pair in range(pairs):
        values = rng.integers(0, 2**32, union, dtype=np.uint32)
        keys = np.zeros((2, BANDS), np.uint64)
        for side, chosen in enumerate((values[:own], np.concatenate([values[:common], values[own:]]))):
            buffer[: chosen.size] = chosen
            lowest = np.full(NUM_PERMUTATIONS, 0xFFFFFFFF, np.uint32)
            kernels._fold(buffer, chosen.size, lowest)
            kernels.hash_bands(lowest, keys[side])
        equal[pair] = keys[0] == keys[1]
    p_key = (common / union) ** ROWS
    p_pair = 1 - (1 - p_key) ** BANDS
    assert abs(equal.mean() - p_key) < 4 * (p_key * (1 - p_key) / (pairs * BANDS)) ** 0.5 + 0.02 * p_key
    assert abs(equal.any(axis=1).mean() - p_pair) < 4 * (p_pair * (1 - p_pair) / pairs) ** 0.5


def test_keys_of_bands_differ_within_a_text() -> None:
    """A key names its band, so that one table could hold all."""
    assert len(set(kernel_keys(b"same same same same same same"))) == BANDS


@given(st.lists(st.integers(0, 20), max_size=50))
def test_repeats_are_dropped_from_sorted_values(values: list[int]) -> None:
    ordered = np.sort(np.array(values, np.uint32))
    assert ordered[: kernels.drop_repeats(ordered)].tolist() == sorted(set(values))
