"""The kernels that read text for near duplicates: shingles, their MinHash minima, and keys of bands of these.

A shingle is five words in a row, a word a run of letters, digits, `_` and bytes from 0x80 up. The Stack splits at
`[^A-Za-z_0-9]`, which is the same for ASCII; bytes beyond it are word bytes here, because as separators they leave
a page of Cyrillic or Chinese without a word, hence without a duplicate. Bytes are never decoded, so invalid UTF-8
is as good as any other text. Every text runs through in blocks that stay in the first cache:

    text        def area(width, height):\\n    return width * height
    words         w0  w1    w2     w3           w4      w5      w6     64 bits each, one multiplication a byte
    shingles         s0 = mix(w0..w4)   s1 = mix(w1..w5)   s2 ...      32 bits, well mixed
    minima      m[k] = min over s of (a[k] * s + b[k] mod 2**32)       256 affine permutations
    keys            k0 = hash(m0..m5)   k1 = hash(m6..m11)   ...       42 of 64 bits

The affine family is 2-universal, not min-wise independent; what makes it good enough is that its input is mixed
already, and the tests hold the minima to the theory. A set of n shingles meets a chance collision about n/2**32 of
the time, which is the error of "exact" where this package says exact Jaccard.

Everything here is fixed by `SKETCH_VERSION`: sketches are kept in a corpus, so a change of any constant is a new
version. Left out on purpose: one-permutation hashing, which would save time that the reading of files already
exceeds, and identifiers made equal before hashing, which would call two programs of one shape copies.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

SKETCH_VERSION = 1
"""Names the word rule, the shingle size, the hashes and the permutations together."""

SHINGLE = 5
"""Words in a shingle (The Stack, StarCoder)."""

NUM_PERMUTATIONS = 256
BANDS = 42
ROWS = 6
"""Minima hashed into one key; four of the permutations are left over."""

_MASK = (1 << 64) - 1
_BLOCK = 8192  # bytes of text a step: at most half as many words, whose hashes take 32 KiB
_LANES = 64  # shingles are folded in steps of this many, whatever the width of the machine's vectors


def _splitmix64(seed: int, count: int) -> list[int]:
    """`count` draws of 64 bits (Steele, Lea, Flood 2014), written out: no library's stream may change them."""
    numbers = []
    for step in range(1, count + 1):
        z = (seed + step * 0x9E3779B97F4A7C15) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        numbers.append(z ^ (z >> 31))
    return numbers


_DRAWS = _splitmix64(SKETCH_VERSION, 2 * NUM_PERMUTATIONS + SHINGLE + 2)
MULTIPLIERS = np.array([(draw >> 32) | 1 for draw in _DRAWS[:NUM_PERMUTATIONS]], np.uint32)
OFFSETS = np.array([draw >> 32 for draw in _DRAWS[NUM_PERMUTATIONS : 2 * NUM_PERMUTATIONS]], np.uint32)
PLACES = np.array([draw | 1 for draw in _DRAWS[2 * NUM_PERMUTATIONS :]][:SHINGLE], np.uint64)
"""What a word's hash is multiplied by at each place of a shingle."""
WORD_FACTOR, MIX_FACTOR = (np.uint64(draw | 1) for draw in _DRAWS[-2:])
IS_WORD = np.array([c >= 0x80 or c == 0x5F or chr(c).isalnum() for c in range(256)], np.uint64)

_0, _32 = np.uint64(0), np.uint64(32)
_UNREACHED = np.uint32(0xFFFFFFFF)  # a minimum that no shingle has lowered


@njit(cache=True, nogil=True)
def _add_words(
    text: NDArray[np.uint8], start: int, stop: int, state: np.uint64, words: NDArray[np.uint64], n: int
) -> tuple[np.uint64, int]:
    """Append the words that end in `text[start:stop]` to `words[n:]`; returns the unfinished one and their count.

    Every byte writes the word so far and moves on only where one ended: a branch would be guessed wrong once a
    word. `inside` and `is_word` are 0 or 1.
    """
    inside = IS_WORD[text[start - 1]] if start > 0 else _0
    for i in range(start, stop):
        byte = text[i]
        is_word = IS_WORD[byte]
        words[n] = state
        n += 1 if inside > is_word else 0
        state = (state ^ np.uint64(byte)) * WORD_FACTOR if is_word else _0
        inside = is_word
    if stop == text.size:
        words[n] = state
        n += 1 if inside > _0 else 0
    return state, n


@njit(cache=True, nogil=True)
def _mix_shingles(words: NDArray[np.uint64], n: int, shingles: NDArray[np.uint32]) -> int:
    """Write the shingles of `words[:n]`, fewer than five giving none; returns how many."""
    count = max(n - (SHINGLE - 1), 0)
    for i in range(count):
        mixed = (
            words[i] * PLACES[0]
            + words[i + 1] * PLACES[1]
            + words[i + 2] * PLACES[2]
            + words[i + 3] * PLACES[3]
            + words[i + 4] * PLACES[4]
        )
        shingles[i] = np.uint32(((mixed ^ (mixed >> _32)) * MIX_FACTOR) >> _32)
    return count


@njit(cache=True, nogil=True)
def _fold(shingles: NDArray[np.uint32], n: int, minima: NDArray[np.uint32]) -> None:
    """Lower `minima` by `shingles[:n]`. The array is filled up with its first, which changes no minimum."""
    whole = -(-n // _LANES) * _LANES
    for i in range(n, whole):
        shingles[i] = shingles[0]
    for k in range(minima.size):
        least, multiplier, offset = minima[k], MULTIPLIERS[k], OFFSETS[k]
        for i in range(whole):  # numba widens products of 32 bits; the casts bring the compiler back to one vector
            value = np.uint32(np.uint32(shingles[i] * multiplier) + offset)
            least = value if value < least else least
        minima[k] = least


@njit(cache=True, nogil=True)
def minima_of(text: NDArray[np.uint8]) -> tuple[NDArray[np.uint32], int]:
    """A text's MinHash minima (NUM_PERMUTATIONS,), and from how many shingles, repeats included."""
    minima = np.full(NUM_PERMUTATIONS, _UNREACHED, np.uint32)
    words = np.empty(_BLOCK // 2 + SHINGLE, np.uint64)
    shingles = np.empty(_BLOCK // 2 + SHINGLE + _LANES, np.uint32)
    state, n, total = _0, 0, 0
    for start in range(0, text.size, _BLOCK):
        state, n = _add_words(text, start, min(start + _BLOCK, text.size), state, words, n)
        count = _mix_shingles(words, n, shingles)
        if count > 0:
            _fold(shingles, count, minima)
            total += count
            for i in range(SHINGLE - 1):  # the next block's first shingles begin in this one
                words[i] = words[n - (SHINGLE - 1) + i]
            n = SHINGLE - 1
    return minima, total


@njit(cache=True, nogil=True)
def hash_bands(minima: NDArray[np.uint32], keys: NDArray[np.uint64]) -> None:
    """Hash minima (NUM_PERMUTATIONS,) into `keys` (BANDS,), none of which is 0."""
    for band in range(BANDS):
        key = np.uint64(band + 1)
        for row in range(band * ROWS, (band + 1) * ROWS):
            key = (key ^ np.uint64(minima[row])) * WORD_FACTOR
            key = (key ^ (key >> _32)) * MIX_FACTOR
        keys[band] = max(key, np.uint64(1))


@njit(cache=True, nogil=True)
def sketch(text: NDArray[np.uint8], keys: NDArray[np.uint64]) -> None:
    """Write the band keys (BANDS,) of a text, unless it has no shingle."""
    minima, count = minima_of(text)
    if count > 0:
        hash_bands(minima, keys)


@njit(cache=True, nogil=True)
def list_shingles(text: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Every shingle of a text in reading order, repeats included."""
    found = np.empty(text.size // 2 + 1, np.uint32)
    words = np.empty(_BLOCK // 2 + SHINGLE, np.uint64)
    state, n, total = _0, 0, 0
    for start in range(0, text.size, _BLOCK):
        state, n = _add_words(text, start, min(start + _BLOCK, text.size), state, words, n)
        count = _mix_shingles(words, n, found[total:])
        if count > 0:
            total += count
            for i in range(SHINGLE - 1):
                words[i] = words[n - (SHINGLE - 1) + i]
            n = SHINGLE - 1
    return found[:total]


@njit(cache=True, nogil=True)
def drop_repeats(ordered: NDArray[np.uint32]) -> int:
    """Move the distinct values of a sorted array to its front; returns how many they are."""
    n = min(ordered.size, 1)
    for i in range(1, ordered.size):
        fresh = ordered[i] != ordered[n - 1]
        ordered[n] = ordered[i]
        n += fresh
    return n
