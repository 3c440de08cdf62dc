"""Text to ids as compiled kernels: words, byte-pair merging, and a memory of the words that were met.

    data ──ends of words──> word ──memory──> ids            nearly always
                              └──> symbols ──merge──> ids   once for each new word, which the memory then holds

Words end where a family's transducer says (`fast_words.py`). A SentencePiece vocabulary has none and merges
whatever makes a piece; there a cut is safe between two characters that stand side by side in no piece, since no
merge can ever cross it. Llama's pieces hold "▁" at the front alone, so its words are those of the text.

Code repeats its words, so the speed is that of looking them up. The memory holds a bounded number and is emptied
when it is full: what it holds changes how long a text takes, never its ids. A word is compared byte for byte.
Merging takes the pair of neighbours with the lowest rank, the leftmost of equals; in a long word through a heap,
since a single line of a megabyte may be one word.

All of it is in one file because numba compiles a kernel anew only when the kernel's own file has changed.
"""

from __future__ import annotations

import heapq
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from midspan.tokenizer.fast_words import AT_CURRENT, AT_MARK, AT_PREVIOUS, COLUMNS, SET_MARK

LONGEST_KEPT = 256
"""Bytes of a word that is worth remembering."""
SHORT_WORD = 32
"""Symbols up to which looking at every pair is faster than a heap."""
SLOTS = 1 << 19
ENDS = 4096
"""Ends of words that are found before the words are looked at."""
_KEY, _WORD, _IDS, _FIRST_IDS = range(4)
_LOW = 0xFFFFFFFF
_BLANK, _SPACE_MARK = 0x20, 0x2581
Integer = Any
"""A machine integer: numpy's inside a kernel, Python's outside."""


class Alphabet(NamedTuple):
    """Where words end: by a transducer, or if that is empty, between characters that no piece holds together."""

    transducer: np.ndarray
    """A table of `fast_words`, int64."""
    classes: np.ndarray
    """The class that it reads for each code point, uint8."""
    near: np.ndarray
    """Which ASCII characters stand side by side in a piece: (128, 128) bool."""
    neighbours: np.ndarray
    """The same of all characters, first << 32 | second: a table of `find`."""


class Merges(NamedTuple):
    """Which pairs of tokens merge."""

    keys: np.ndarray
    """left << 32 | right in a table of `find` (places, 2), int64; beside each its rank << 32 | the merged id.
    Lower ranks merge first; SentencePiece gives some pieces one rank."""
    symbols: np.ndarray
    """The id of each byte, or without a transducer of each code point; -1 where there is none. int32."""
    fallback: np.ndarray
    """Without a transducer, the id of each byte of a character that has none itself; -1 where there is none."""
    whole: np.ndarray
    """Words whose one id is not what merging gives, their bytes one after the other, uint8,"""
    whole_eights: np.ndarray
    whole_bounds: np.ndarray
    whole_ids: np.ndarray


class Memory(NamedTuple):
    """Words and their ids, four numbers to a slot of an open-addressing table (slots, 4), int64:

    the word itself if it has up to 8 bytes, else its hash; its length << 32 | its place in `data`; the number of
    its ids << 32 | their place in `ids`; its first two ids. So most words are read from one line of cache.
    """

    slots: np.ndarray
    data: np.ndarray
    eights: np.ndarray
    ids: np.ndarray
    used: np.ndarray
    """Slots, bytes of `data` and places of `ids` in use."""


def new_memory(slots: int = SLOTS, size: int = 8 * SLOTS) -> Memory:
    """A memory that holds nothing, and has room for so many bytes of words and so many ids."""
    data = np.zeros(size, np.uint8)
    return Memory(
        slots=np.zeros((slots, 4), np.int64),
        data=data,
        eights=eights_of(data),
        ids=np.empty(size, np.uint32),
        used=np.zeros(3, np.int64),
    )


def eights_of(data: np.ndarray) -> np.ndarray:
    """At i, the eight bytes from byte i on as a number: a view of 16 bytes or more, uint64 (bytes - 7)."""
    return np.ndarray(shape=(len(data) - 7,), dtype=np.uint64, buffer=data, strides=(1,))


def table(keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A table for `find` (places, 2) of keys and values (int64, none negative); the last of equal keys counts."""
    slots = np.full((1 << max(4, int(2.5 * len(keys)).bit_length()), 2), -1, np.int64)
    _fill(slots, keys.astype(np.int64), values.astype(np.int64))
    return slots


@njit(cache=True, nogil=True)
def _fill(slots: np.ndarray, keys: np.ndarray, values: np.ndarray) -> None:
    mask = len(slots) - 1
    for n in range(len(keys)):
        place = (((keys[n] ^ (keys[n] >> 31)) * 0x9E3779B1) >> 7) & mask
        while slots[place, 0] >= 0 and slots[place, 0] != keys[n]:
            place = (place + 1) & mask
        slots[place, 0], slots[place, 1] = keys[n], values[n]


@njit(cache=True, nogil=True)
def find(slots: np.ndarray, key: Integer) -> Integer:
    """The value of a key in an open-addressing table (places, 2) whose size is a power of two, or -1."""
    mask = len(slots) - 1
    place = (((key ^ (key >> 31)) * 0x9E3779B1) >> 7) & mask
    while slots[place, 0] != key:
        if slots[place, 0] < 0:
            return -1
        place = (place + 1) & mask
    return slots[place, 1]


@njit(cache=True, nogil=True)
def _code_at(data: np.ndarray, i: Integer) -> tuple[Integer, Integer]:
    """The code point that begins at byte i of valid UTF-8, and its number of bytes."""
    first = np.int64(data[i])
    if first < 0x80:
        return first, 1
    if first < 0xE0:
        return (first & 0x1F) << 6 | np.int64(data[i + 1]) & 0x3F, 2
    middle = (np.int64(data[i + 1]) & 0x3F) << 6 | np.int64(data[i + 2]) & 0x3F
    if first < 0xF0:
        return (first & 0x0F) << 12 | middle, 3
    return (first & 0x07) << 18 | middle << 6 | np.int64(data[i + 3]) & 0x3F, 4


@njit(cache=True, nogil=True)
def _ends_by_transducer(
    transducer: np.ndarray, classes: np.ndarray, data: np.ndarray, at: np.ndarray, stop: Integer, ends: np.ndarray
) -> Integer:
    """Find ends of words from where `at` says to `stop`, or until `ends` is full; gives how many were found.

    `at` holds the next byte, what the last character led to, where it begins, and the mark. Each character stores
    an end and moves on only if it is one: cheaper than a branch that nobody can foresee.
    """
    i, action, previous, mark = at
    count, room = 0, len(ends) - 6  # a character and the end of the text may be three ends each
    while i < stop and count < room:
        character, size = np.int64(data[i]), 1
        if character >= 0x80:
            character, size = _code_at(data, i)
        action = transducer[(action >> 8) * COLUMNS + classes[character]]
        if action & (AT_MARK | AT_PREVIOUS):
            if action & AT_MARK:
                ends[count] = mark
                count += 1
            if action & AT_PREVIOUS:
                ends[count] = previous
                count += 1
        ends[count] = i
        count += (action & AT_CURRENT) // AT_CURRENT
        previous = i
        i += size
        if action & SET_MARK:
            mark = i
    at[0], at[1], at[2], at[3] = i, action, previous, mark
    if i >= stop:
        action = transducer[(action >> 8) * COLUMNS + COLUMNS - 1]
        if action & AT_MARK:
            ends[count] = mark
            count += 1
        if action & AT_PREVIOUS:
            ends[count] = previous
            count += 1
        ends[count] = stop
        count += 1
    return count


@njit(cache=True, nogil=True)
def _ends_by_pieces(
    near: np.ndarray, neighbours: np.ndarray, data: np.ndarray, at: np.ndarray, stop: Integer, ends: np.ndarray
) -> Integer:
    """The same without a transducer; `at` holds the next byte and the character before it."""
    i, before = at[0], at[1]
    count, room = 0, len(ends) - 2
    while i < stop and count < room:
        character, size = np.int64(data[i]), 1
        if before | character < 0x80:
            apart = not near[before, character]
        else:
            character, size = _code_at(data, i)
            apart = find(neighbours, _spelled(before) << 32 | _spelled(character)) < 0
        ends[count] = i
        count += apart and before > 0
        before = character
        i += size
    at[0], at[1] = i, before
    if i >= stop:
        ends[count] = stop
        count += 1
    return count


@njit(cache=True, nogil=True)
def _spelled(code: Integer) -> Integer:
    """A character as pieces write it: a space is "▁"."""
    return _SPACE_MARK if code == _BLANK else code


@njit(cache=True, nogil=True)
def _short_key(eight: Integer, size: Integer) -> Integer:
    """A word of up to 8 bytes as a number, from the eight bytes that begin with it."""
    return np.int64(eight & (np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - 8 * size)))


@njit(cache=True, nogil=True)
def _key(eights: np.ndarray, data: np.ndarray, start: Integer, end: Integer) -> Integer:
    """A short word as a number, a long one hashed. `eights[i]` are the eight bytes from byte i on."""
    size = end - start
    if size <= 8:
        if start < len(eights):
            return _short_key(eights[start], size)
        value = np.uint64(0)
        for i in range(end - 1, start - 1, -1):
            value = value << np.uint64(8) | np.uint64(data[i])
        return np.int64(value)
    value = eights[end - 8]
    for i in range(start, end - 8, 8):
        value = (value ^ eights[i]) * np.uint64(0x9E3779B97F4A7C15)
        value ^= value >> np.uint64(29)
    return np.int64(value)


@njit(cache=True, nogil=True)
def _home(key: Integer, size: Integer, num_slots: Integer) -> Integer:
    """Where to look for a word first."""
    mixed = (np.uint64(key) ^ np.uint64(size)) * np.uint64(0x9E3779B97F4A7C15)
    return np.int64(mixed >> np.uint64(40)) & (num_slots - 1)


@njit(cache=True, nogil=True)
def _recall(
    slots: np.ndarray, known: np.ndarray, eights: np.ndarray, start: Integer, end: Integer, key: Integer
) -> Integer:
    """The slot of a word, or -1 - the slot that is free for it. `known` are the eights of the memory's bytes."""
    size = end - start
    slot = _home(key, size, len(slots))
    while slots[slot, _WORD]:
        if slots[slot, _KEY] == key and slots[slot, _WORD] >> 32 == size:
            if size <= 8:
                return slot
            first = slots[slot, _WORD] & _LOW
            same = known[first + size - 8] == eights[end - 8]
            for i in range(0, size - 8, 8):
                same &= known[first + i] == eights[start + i]
            if same:
                return slot
        slot = (slot + 1) & (len(slots) - 1)
    return -1 - slot


@njit(cache=True, nogil=True)
def _remember(
    slots: np.ndarray,
    known: np.ndarray,
    known_ids: np.ndarray,
    used: np.ndarray,
    slot: Integer,
    key: Integer,
    data: np.ndarray,
    start: Integer,
    end: Integer,
    ids: np.ndarray,
) -> bool:
    """Keep a word in its free slot; False if the memory, of which the first four are parts, is full."""
    words, byte, first = used
    size = end - start
    if 2 * words >= len(slots) or byte + size > len(known) or first + len(ids) > len(known_ids):
        return False
    known[byte : byte + size] = data[start:end]
    for k in range(len(ids)):
        known_ids[first + k] = np.uint32(ids[k])
    slots[slot, _KEY] = key
    slots[slot, _WORD] = size << 32 | byte
    slots[slot, _IDS] = len(ids) << 32 | first
    slots[slot, _FIRST_IDS] = np.int64(ids[0]) | (np.int64(ids[1]) << 32 if len(ids) > 1 else 0)
    used[0], used[1], used[2] = words + 1, byte + size, first + len(ids)
    return True


@njit(cache=True, nogil=True)
def forget(memory: Memory, merges: Merges) -> None:
    """Empty the memory but for the words that merging would get wrong."""
    slots, known, known_eights, known_ids, used = memory
    slots[:] = 0
    used[:] = 0
    for n in range(len(merges.whole_ids)):
        start, end = merges.whole_bounds[n], merges.whole_bounds[n + 1]
        key = _key(merges.whole_eights, merges.whole, start, end)
        slot = _recall(slots, known_eights, merges.whole_eights, start, end, key)
        ids = merges.whole_ids[n : n + 1]
        _remember(slots, known, known_ids, used, -1 - slot, key, merges.whole, start, end, ids)


@njit(cache=True, nogil=True)
def _symbols(
    of_bytes: bool, symbols: np.ndarray, fallback: np.ndarray, data: np.ndarray, start: Integer, end: Integer
) -> np.ndarray:
    """A word as the tokens that merging begins with; none if the vocabulary has no token for a part of it."""
    found = np.empty(end - start, np.int64)
    count, i = 0, start
    while i < end:
        code, size = (np.int64(data[i]), 1) if of_bytes else _code_at(data, i)
        found[count] = symbols[code if of_bytes else _spelled(code)]
        if found[count] < 0 and not of_bytes:
            for place in range(size):
                found[count + place] = fallback[data[i + place]]
            count += size - 1
        count += 1
        i += size
    for k in range(count):
        if found[k] < 0:
            return found[:0]
    return found[:count]


@njit(cache=True, nogil=True)
def _merge(symbols: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Merge in place until no pair can be; gives the tokens that are left."""
    count = len(symbols)
    if count > SHORT_WORD:
        return _merge_long(symbols, keys)
    values = np.empty(count, np.int64)  # of each symbol and the next, as `keys` has it
    for i in range(count - 1):
        values[i] = find(keys, symbols[i] << 32 | symbols[i + 1])
    while True:
        best, rank = -1, _LOW
        for i in range(count - 1):
            if values[i] >= 0 and values[i] >> 32 < rank:
                best, rank = i, values[i] >> 32
        if best < 0:
            return symbols[:count]
        symbols[best] = values[best] & _LOW
        count -= 1
        for i in range(best + 1, count):
            symbols[i], values[i] = symbols[i + 1], values[i + 1]
        for i in range(max(best - 1, 0), min(best + 1, count - 1)):
            values[i] = find(keys, symbols[i] << 32 | symbols[i + 1])


@njit(cache=True, nogil=True)
def _merge_long(symbols: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """`_merge` through a heap: n log n, for words that may have a million symbols."""
    count = len(symbols)
    following = np.arange(1, count + 1)
    before = np.arange(-1, count - 1)
    heap = [np.int64(0) for _ in range(0)]
    for at in range(count - 1):
        value = find(keys, symbols[at] << 32 | symbols[at + 1])
        if value >= 0:
            heap.append(value >> 32 << 32 | at)
    heapq.heapify(heap)
    while heap:
        top = heapq.heappop(heap)
        i: Integer = top & _LOW
        right = following[i]
        if symbols[i] < 0 or right >= count:
            continue
        value = find(keys, symbols[i] << 32 | symbols[right])
        if value >> 32 != top >> 32:
            continue  # a neighbour has changed since
        token = value & _LOW
        symbols[i], symbols[right] = token, -1
        following[i] = following[right]
        if following[right] < count:
            before[following[right]] = i
            value = find(keys, token << 32 | symbols[following[right]])
            if value >= 0:
                heapq.heappush(heap, value >> 32 << 32 | i)
        if before[i] >= 0:
            value = find(keys, symbols[before[i]] << 32 | token)
            if value >= 0:
                heapq.heappush(heap, value >> 32 << 32 | before[i])
    return symbols[symbols >= 0]


@njit(cache=True, nogil=True)
def encode(
    alphabet: Alphabet,
    merges: Merges,
    memory: Memory,
    data: np.ndarray,
    eights: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    ids: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Encode ranges of `data`, of which `eights` is another view, into `ids`, which has room for an id a byte.

    Words are taken a few thousand at a time: their ends, then where to look for each, then their ids. In loops of
    their own, the reads of one word need not wait for those of another.

    Returns:
        Where the ids of each range begin, and the end of the last (ranges + 1); and whether a range holds what
        the vocabulary has no token for: its ids are left out.
    """
    transducer, classes, near, neighbours = alphabet  # once, since each use would count a reference
    slots, known, known_eights, known_ids, used = memory
    merge_keys, symbols, fallback = merges.keys, merges.symbols, merges.fallback
    offsets, lacking = np.zeros(len(starts) + 1, np.int64), np.zeros(len(starts), np.bool_)
    ends, keys, homes = np.empty(ENDS, np.int64), np.empty(ENDS, np.int64), np.empty(ENDS, np.int64)
    at = np.zeros(4, np.int64)
    written = 0
    for n in range(len(starts)):
        begin, stop = starts[n], stops[n]
        at[0], at[1], at[2], at[3] = begin, 0, begin, begin
        while begin < stop and not lacking[n]:
            if len(transducer):
                count = _ends_by_transducer(transducer, classes, data, at, stop, ends)
            else:
                count = _ends_by_pieces(near, neighbours, data, at, stop, ends)
            start = begin
            for k in range(count):  # as if every word were short and had its eight bytes
                size = ends[k] - start
                keys[k] = _short_key(eights[min(start, len(eights) - 1)], min(size, 8))
                homes[k] = _home(keys[k], size, len(slots))
                start = ends[k]
            for k in range(count):
                end, slot = ends[k], homes[k]
                at_home = slots[slot, _KEY] == keys[k] and slots[slot, _WORD] >> 32 == end - begin
                if not (at_home and end - begin <= 8 and begin < len(eights)):
                    key, slot = np.int64(0), np.int64(-1)
                    if end - begin <= LONGEST_KEPT:
                        key = _key(eights, data, begin, end)
                        slot = _recall(slots, known_eights, eights, begin, end, key)
                    if slot < 0:
                        found = _merge(
                            _symbols(len(transducer) > 0, symbols, fallback, data, begin, end), merge_keys
                        )
                        if not len(found):
                            lacking[n], written = True, offsets[n]
                            break
                        for m in range(len(found)):
                            ids[written + m] = np.uint32(found[m])
                        if end - begin <= LONGEST_KEPT and not _remember(
                            slots, known, known_ids, used, -1 - slot, key, data, begin, end, found
                        ):
                            forget(memory, merges)
                        written += len(found)
                        begin = end
                        continue
                two, size = slots[slot, _FIRST_IDS], slots[slot, _IDS] >> 32
                ids[written] = np.uint32(two & _LOW)
                if size > 1:
                    ids[written + 1] = np.uint32(two >> 32)
                    for m in range(2, size):
                        ids[written + m] = known_ids[(slots[slot, _IDS] & _LOW) + m]
                written += size
                begin = end
        offsets[n + 1] = written
    return offsets, lacking


@njit(cache=True, nogil=True)
def merges_to_other(merges: Merges, data: np.ndarray, bounds: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Which words do not merge to their one id."""
    other = np.zeros(len(ids), np.bool_)
    for n in range(len(ids)):
        word = _symbols(True, merges.symbols, merges.fallback, data, bounds[n], bounds[n + 1])
        found = _merge(word, merges.keys)
        other[n] = len(found) > 1 or (len(found) == 1 and found[0] != ids[n])
    return other
