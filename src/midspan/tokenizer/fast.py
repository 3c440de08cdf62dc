"""The same ids many times faster: compiled kernels beside the libraries, used once they have proved themselves.

    backend ──fast_tables.py──> tables ──fast_merges.py──> ids
                 │
            fast_words.py       where words end, by family

A compilation of rows encodes a corpus, and the libraries give 1 to 3 MB/s a core. The kernels read bytes and write
an array of ids; nothing becomes a Python object. They take *ranges* of a buffer, so that the parts of an infilling
example are encoded without being cut out of their document first.

Whatever the kernels cannot do stays with the library: a vocabulary of another shape, and a text that holds bytes
without a token or characters that the vocabulary would compose. And nothing rests on faith: `proved` compares ids
with the library's on the user's own texts before the kernels are used.
"""

from __future__ import annotations

import sys
import threading
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from midspan.tokenizer.bpe_backend import BpeBackend
from midspan.tokenizer.fast_merges import eights_of, encode, forget, new_memory
from midspan.tokenizer.fast_tables import tables_of
from midspan.tokenizer.sentencepiece_backend import SentencePieceBackend

CHECKED_CHARACTERS = 1_000_000
"""How much of the user's own text is encoded both ways before the kernels are trusted."""
TRICKY = (
    "", " ", "  ", "\n", "a", " a", "\n\n  \n\tif x:\n\t\treturn  y\n", "x  \n\n  y \r\n z\r\r\n",
    "a1 22  333 4444", "don't 'S 'LL'll'RE we've I'm'd ''s 'ſ 'ſa", "_snake CamelCase XMLHttp2 0xFFp-3 3.14e-10",
    "naïve Straße İı ſ ﬁ ½ ² Ⅷ ٣ e\u0301 \u0301\u0308", "日本語。我想 在、한국어", "हिन्दी १२३ العربية ខ្មែរ",
    "🚀👩‍👩‍👧🏳️‍🌈 ☺", "\u00a0\u3000x\u2028y\x85z\u200b\ufeff", "\x00\x01\x1b[0m\x7f", "▁x ▁ ▁▁y x▁y",
    "==!=->>>=<<=**//#-----......", "<s></s><unk><0x0A> <PRE> <|endoftext|>", "a" * 300,
    " " * 300 + "\n" + "\t" * 70, "𝒳 𐍈 \U0010ffff\U00048000", "x" + "\u0301" * 5 + " \u0301",
)  # fmt: skip
"""Texts in which tokenizers have been found to differ."""

EncodeBatch = Callable[[Sequence[str]], list[list[int]]]


class FastEncoder:
    """Kernels and tables of one vocabulary. Threads take turns."""

    def __init__(self, backend: BpeBackend | SentencePieceBackend) -> None:
        """Raises ValueError for a vocabulary of a shape that the kernels do not know."""
        tables = tables_of(backend)
        if tables is None:
            raise ValueError("no kernel knows this vocabulary's shape")
        self._alphabet, self._merges = tables
        self._composes = isinstance(backend, BpeBackend) and backend.composes
        self._memory = new_memory()
        self._lock = threading.Lock()
        forget(self._memory, self._merges)

    def encode(
        self, data: np.ndarray, starts: np.ndarray, ends: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids of ranges of UTF-8 bytes, each a text of its own without an implicit leading space.

        Args:
            data: bytes, uint8.
            starts: where each range begins (n), int64, in front of a character.
            ends: where it ends; one that ends before it begins is empty.

        Returns:
            ids (uint32) of all ranges, one after the other; offsets (n + 1) into them; and the numbers of the
            ranges that the library has to encode, which have no ids here.
        """
        skip = self._composed(data, starts, ends) if self._composes else np.zeros(len(starts), np.bool_)
        ids = np.empty(int(np.maximum(ends - starts, 0).sum()), np.uint32)
        ends = np.where(skip, starts, ends)
        data = np.concatenate([data, np.zeros(16, np.uint8)]) if len(data) < 16 else data.view()
        data.flags.writeable = False  # arrays of one kind: each would be compiled for
        with self._lock:
            offsets, lacking = encode(
                self._alphabet, self._merges, self._memory, data, eights_of(data), starts, ends, ids
            )
        return ids[: offsets[-1]], offsets, np.flatnonzero(lacking | skip)

    def _composed(self, data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Which ranges hold characters that the vocabulary's normaliser would compose."""
        found = np.zeros(len(starts), np.bool_)
        if len(data) and data.max() >= 0x80:
            for n in range(len(starts)):
                text = data[starts[n] : ends[n]].tobytes()
                found[n] = not text.isascii() and not unicodedata.is_normalized("NFC", text.decode())
        return found


def proved(
    fast: EncodeBatch,
    library: EncodeBatch,
    texts: Iterable[str],
    report: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> bool:
    """Whether both give the same ids for `TRICKY` and the first of `texts`; if not, one line says so."""
    sample, size = list(TRICKY), 0
    for text in texts:
        sample.append(text[: CHECKED_CHARACTERS - size])
        size += len(sample[-1])
        if size >= CHECKED_CHARACTERS:
            break
    for text, ours, theirs in zip(sample, fast(sample), library(sample), strict=True):
        if ours != theirs:
            report(
                f"the fast tokenizer differs from the library on a text that begins {text[:40]!r}: "
                "the library encodes everything"
            )
            return False
    return True
