"""Code as tokens that stay the same when its names change, in one pass for all languages.

    def add(x, y): return x + y      bytes
    def · · · : return · + ·         tokens: a name is 0
     -  0 0 0  -   -   2 - 2         its distance to the last use of the same name, 0 at the first

Two pieces of code differ by a consistent change of names exactly if their tokens and distances are equal, uses
before the piece counting as none (Baker, "Parameterized pattern matching", 1996). Keywords, names behind a full
stop, numbers and strings stand for themselves. White space, commas, semicolons, parentheses, comments and
strings in triple quotes are no tokens: formatters move them about.

Left out on purpose: grammars. A language is a family: its comments and the words that nobody can rename. Where a
quote is no quote (Rust's lifetimes, a pattern in JavaScript) the tokens are odd, and the same in every copy.
"""

from functools import cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

LINE_HASH, LINE_SLASHES, BLOCK, LINE_DASHES, LINE_SEMICOLON = 1, 2, 4, 8, 16
"""Comments: `#`, `//`, `/* */`, `--`, `;`."""

_PYTHON = """
    False None True and as assert async await break class continue def del elif else except finally for from
    global if import in is lambda nonlocal not or pass raise return try while with yield
"""
_BRACES = """
    abstract as async await bool boolean break byte case catch chan char class const continue def default
    defer delete do double else enum export extends extern fallthrough false final finally float fn for
    foreach func function go goto if impl implements import in instanceof int interface let long match mod mut
    namespace new null nullptr of operator override package private protected pub public return self short
    signed sizeof static struct switch template this throw trait true try typedef typename typeof union
    unsigned use using var virtual void where while yield
"""
_ENDS = """
    FALSE NULL TRUE and begin break case cond def define do done elif else elseif elsif end ensure esac false
    fi for foreach function if in lambda last let local module my next nil not or repeat require rescue return
    self sub then true unless until use using when while yield
"""

_FAMILIES = (
    (
        _BRACES,
        LINE_SLASHES | BLOCK,
        "c c++ c# d dart go groovy java javascript kotlin rust scala swift typescript",
    ),
    (_BRACES, LINE_SLASHES | BLOCK | LINE_HASH, "php"),
    (_ENDS, LINE_HASH, "julia perl r ruby shell"),
    (_ENDS, LINE_DASHES, "lua"),
    (_ENDS, LINE_SEMICOLON, "racket scheme"),
)
"""Keywords, comments and the languages that have them; any other is read like Python."""

_APOSTROPHE, _BACKSLASH, _BACKTICK, _BRACE, _DOT, _NEWLINE, _QUOTE = (ord(character) for character in "'\\`{.\n\"")
_OTHER, _LAYOUT, _LETTER, _DIGIT = range(4)
_CLASS = np.zeros(256, np.uint8)
_CLASS[[ord(character) for character in " \t\n\r\f\v\0,;()"]] = _LAYOUT
_CLASS[[code for code in range(256) if code >= 128 or chr(code).isalpha() or code == ord("_")]] = _LETTER
_CLASS[[ord(character) for character in "0123456789"]] = _DIGIT

_PATTERN_STRING = np.uint64(0xD1B54A32D192ED03)
"""Stands for every string with a brace, which may hold names."""
_NAMES = 256  # slots for names at the start; a power of two


@njit(cache=True, nogil=True)
def mix(value: np.uint64) -> np.uint64:
    """Spread a number over 64 bits (the finaliser of splitmix64)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit(cache=True, nogil=True)
def _word(data: NDArray[np.uint8], start: int, stop: int) -> np.uint64:
    """The hash of `data[start:stop]` without its backslashes; never 0, which means a name."""
    value = np.uint64(0xCBF29CE484222325)
    for i in range(start, stop):
        if data[i] != _BACKSLASH:
            value = (value ^ np.uint64(data[i])) * np.uint64(0x100000001B3)
    return mix(value) | np.uint64(1)


@njit(cache=True, nogil=True)
def _find(table: NDArray[np.uint64], key: np.uint64) -> np.intp:
    """The slot of a key in an open table whose size is a power of two, or the empty slot where it would stand."""
    mask = np.uint64(table.size - 1)
    slot = (key >> np.uint64(1)) & mask
    while table[slot] != 0 and table[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    return np.intp(slot)


@njit(cache=True, nogil=True)
def _grown(names: NDArray[np.uint64], last: NDArray[np.int32]) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """A table of names with four times the slots."""
    new_names, new_last = np.zeros(4 * names.size, np.uint64), np.zeros(4 * names.size, np.int32)
    for k in range(names.size):
        if names[k] != 0:
            slot = _find(new_names, names[k])
            new_names[slot], new_last[slot] = names[k], last[k]
    return new_names, new_last


@njit(cache=True, nogil=True)
def _word_stop(data: NDArray[np.uint8], start: int) -> int:
    """Where the name or number ends that begins at `start`; a number goes on behind a full stop."""
    is_number = _CLASS[data[start]] == _DIGIT
    i = start + 1
    while i < data.size and (
        _CLASS[data[i]] >= _LETTER
        or (is_number and data[i] == _DOT and i + 1 < data.size and _CLASS[data[i + 1]] == _DIGIT)
    ):
        i += 1
    return i


@njit(cache=True, nogil=True)
def _is_line_comment(byte: np.uint8, following: np.uint8, comments: int) -> bool:
    return bool(
        (byte == ord("#") and comments & LINE_HASH)
        or (byte == ord("/") and following == byte and comments & LINE_SLASHES)
        or (byte == ord("-") and following == byte and comments & LINE_DASHES)
        or (byte == ord(";") and comments & LINE_SEMICOLON)
    )


@njit(cache=True, nogil=True)
def _string_stop(data: NDArray[np.uint8], start: int, quote: np.uint8, width: int, over_lines: bool) -> int:
    """Where the closing quotes begin of a string whose first character is at `start`; -1 if it never closes."""
    i = start
    while i < data.size:
        if data[i] == _BACKSLASH:
            i += 1
        elif data[i] == _NEWLINE and not over_lines:
            return -1
        elif data[i] == quote and (width == 1 or (data[i + 1 : i + 3] == quote).sum() == 2):
            return i
        i += 1
    return -1


@njit(cache=True, nogil=True)
def _block_stop(data: NDArray[np.uint8], start: int) -> int:
    """Where the next `*/` begins, or -1."""
    for i in range(start, data.size - 1):
        if data[i] == ord("*") and data[i + 1] == ord("/"):
            return i
    return -1


@njit(cache=True, nogil=True)
def _scan(
    data: NDArray[np.uint8], comments: int, keywords: NDArray[np.uint64]
) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """Tokens and distances. What never closes is looked for once, so the time is linear in the text."""
    size = data.size
    tokens, distances = np.empty(size, np.uint64), np.zeros(size, np.int32)
    names, last, used = np.zeros(_NAMES, np.uint64), np.zeros(_NAMES, np.int32), 0
    triples_close, blocks_close, backticks_close = True, True, True
    count = i = 0
    while i < size:
        byte, kind, start = data[i], _CLASS[data[i]], i
        following = data[i + 1] if i + 1 < size else np.uint8(0)
        if kind >= _LETTER:
            i = _word_stop(data, start)
            if i - start <= 2 and i < size and data[i] in (_QUOTE, _APOSTROPHE):
                continue  # r"", f"", rb"": formatters change them
            value = _word(data, start, i)
            behind_stop = start > 0 and data[start - 1] == _DOT and not (start > 1 and data[start - 2] == _DOT)
            if kind == _DIGIT or behind_stop or keywords[_find(keywords, value)] == value:
                tokens[count] = value
            else:
                tokens[count] = 0
                slot = _find(names, value)
                if names[slot] == value:
                    distances[count] = count - last[slot]
                else:
                    names[slot] = value
                    used += 1
                last[slot] = count
                if 2 * used > names.size:
                    names, last = _grown(names, last)
            count += 1
        elif _is_line_comment(byte, following, comments):
            while i < size and data[i] != _NEWLINE:
                i += 1
        elif kind == _LAYOUT:
            i += 1
        elif byte == _BACKSLASH:
            i += 2
        elif byte == ord("/") and following == ord("*") and comments & BLOCK and blocks_close:
            stop = _block_stop(data, i + 2)
            blocks_close = stop >= 0
            i = stop + 2 if blocks_close else i + 2
        elif byte in (_QUOTE, _APOSTROPHE) and (data[i : i + 3] == byte).sum() == 3:
            stop = _string_stop(data, i + 3, byte, 3, True) if triples_close else -1
            triples_close = stop >= 0
            i = stop + 3 if triples_close else i + 3
        elif byte in (_QUOTE, _APOSTROPHE, _BACKTICK):
            over_lines = byte == _BACKTICK
            stop = _string_stop(data, i + 1, byte, 1, over_lines) if backticks_close or not over_lines else -1
            backticks_close = backticks_close and (stop >= 0 or not over_lines)
            i += 1
            if stop >= 0:
                tokens[count] = _PATTERN_STRING if (data[i:stop] == _BRACE).any() else ~_word(data, i, stop)
                count += 1
                i = stop + 1
        else:
            tokens[count] = mix(np.uint64(byte))
            count += 1
            i += 1
    return tokens[:count].copy(), distances[:count].copy()


@cache
def _family(language: str) -> tuple[int, NDArray[np.uint64]]:
    """A language's comments and an open table of its keywords."""
    words, comments = next(
        ((words, comments) for words, comments, languages in _FAMILIES if language in languages.split()),
        (_PYTHON, LINE_HASH),
    )
    table = np.zeros(512, np.uint64)
    for word in words.split():
        key = _hash(word)
        table[_find(table, key)] = key
    return comments, table


def _hash(word: str) -> np.uint64:
    return np.uint64(_word(np.frombuffer(word.encode(), np.uint8), 0, len(word)))


def code_tokens(data: NDArray[np.uint8], language: str) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """The tokens of UTF-8 text (0 for a name) and the distance of every name to its last use (0 at the first)."""
    comments, keywords = _family(language)
    return _scan(data, comments, keywords)


@cache
def _light(language: str) -> NDArray[np.uint64]:
    table = _family(language)[1]
    operators = [mix(np.uint64(byte)) for byte in range(256)]
    return np.array([0, *table[table != 0], *operators, *map(_hash, "012")], np.uint64)


def token_weight(tokens: NDArray[np.uint64], language: str) -> int:
    """How much a piece of code says: 1 a token, 3 where it is no name, keyword, operator or one of 0, 1 and 2."""
    return tokens.size + 2 * int((~np.isin(tokens, _light(language))).sum())
