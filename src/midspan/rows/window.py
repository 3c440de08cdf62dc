"""One window of a source: some thousand documents in, packed rows out. What a worker process does.

    order of the epoch --window's places--> documents --segments--> best fit --> rows, shuffled among themselves

A window depends on nothing but the settings and its number, so it can be made anywhere, any number of times. An
epoch's order is a permutation that gives any place on its own, so no process holds an array as long as the corpus.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from midspan.fim import FimFormat
from midspan.fim.batch import Batch
from midspan.rows.conversations import Encoded
from midspan.rows.pack import best_fit
from midspan.rows.segments import ANSWER, CHAT, SEGMENT, RowsConfig, Segments, segments_of
from midspan.rows.texts import Texts
from midspan.tokenizer import Tokenizer

WINDOW_BYTES = 64 << 20
"""Text of a window at most, on average over windows: where documents are large, it has fewer of them."""
_ROUNDS = 8


@dataclass(frozen=True)
class PackedRows:
    """Rows of a window."""

    tokens: np.ndarray
    """(rows, row_tokens), u2 or u4; 0 behind a row's last segment."""
    bounds: np.ndarray
    """Offsets of the rows in the segments (rows + 1), int64."""
    segments: np.ndarray
    """Records of SEGMENT."""
    answers: np.ndarray
    """Records of ANSWER, by segment; their ranges count from the beginning of the row."""
    documents: int
    """How many documents the window looked at."""


class Packer:
    """Makes any window of a source: of texts, or of conversations that were encoded before."""

    def __init__(
        self,
        config: RowsConfig,
        tokenizer: Tokenizer,
        texts: Texts | Encoded,
        *,
        source: int,
        fim_rate: float | None,
    ) -> None:
        rate = config.fim.rate if fim_rate is None else fim_rate
        self._config = replace(config, fim=replace(config.fim, rate=rate))
        self._tokenizer, self._texts, self._source = tokenizer, texts, source
        self._fim = FimFormat.detect(tokenizer)
        mean_bytes = texts.data.nbytes / max(1, len(texts))
        self._documents = max(1, min(config.window_documents, int(WINDOW_BYTES / max(1.0, mean_bytes))))
        self.windows_per_epoch = math.ceil(len(texts) / self._documents)
        self._tokens_type = tokens_type(tokenizer)

    def window(self, number: int) -> PackedRows:
        """A window by its number, counted on through all epochs."""
        epoch, within = divmod(number, self.windows_per_epoch)
        places = np.arange(within * self._documents, min((within + 1) * self._documents, len(self._texts)))
        key = (self._config.seed, epoch, self._source)
        chosen = permuted(places, len(self._texts), *key, 0)
        if isinstance(self._texts, Encoded):
            segments = _conversations(self._texts, chosen)
        else:
            batch = _gather(self._texts, chosen)
            segments = segments_of(self._tokenizer, self._fim, self._config, batch, epoch)
        rows = pack_rows(segments, self._config, self._source, (*key, within + 1), self._tokens_type)
        return PackedRows(*rows, documents=len(places))


def _gather(texts: Texts, chosen: np.ndarray) -> Batch:
    """Documents by their numbers, side by side."""
    begins, ends = texts.offsets[chosen], texts.offsets[chosen + 1]
    parts = [texts.data[begin:end] for begin, end in zip(begins, ends, strict=True)]
    bounds = np.cumsum(ends - begins)
    return Batch(
        data=np.concatenate(parts),
        starts=bounds - (ends - begins) + 1,  # behind the space
        ends=bounds,
        documents=np.asarray(texts.ids[chosen]),
        pieces=np.zeros(len(chosen), np.int64),
        languages=np.array(texts.languages, object)[texts.language_numbers[chosen]],
    )


def _conversations(texts: Encoded, chosen: np.ndarray) -> Segments:
    """Conversations by their numbers, each a segment."""
    begins, ends = texts.offsets[chosen], texts.offsets[chosen + 1]
    lengths = ends - begins
    first, last = texts.answer_offsets[chosen], texts.answer_offsets[chosen + 1]
    answers = np.empty(int((last - first).sum()), ANSWER)
    answers["segment"] = np.repeat(np.arange(len(chosen)), last - first)
    spans = [texts.answers[low:high] for low, high in zip(first, last, strict=True)]
    answers["start"], answers["end"] = np.concatenate(spans).T
    return Segments(
        ids=np.concatenate([texts.data[begin:end] for begin, end in zip(begins, ends, strict=True)]),
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        forms=np.full(len(chosen), CHAT, np.uint8),
        num_middle=np.zeros(len(chosen), np.int64),
        documents=np.asarray(texts.ids[chosen]),
        answers=answers,
    )


def pack_rows(
    segments: Segments,
    config: RowsConfig,
    source: int,
    key: tuple[int, ...],
    kind: np.dtype[np.unsignedinteger],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Segments side by side in as few rows as can be, the rows in an order that depends on the key.

    Returns:
        tokens, bounds, segments and answers of a `PackedRows`.
    """
    packed = best_fit(segments.lengths, config.row_tokens)
    num_rows = int(packed.max()) + 1 if len(packed) else 0
    row_of = permuted(np.arange(num_rows), num_rows, *key)[packed]
    order = np.argsort(row_of, kind="stable")  # in a row, documents keep their order
    row_of, lengths = row_of[order], segments.lengths[order]
    bounds = np.concatenate([[0], np.cumsum(np.bincount(row_of, minlength=num_rows))]).astype(np.int64)
    ends = np.cumsum(lengths)
    ends -= np.concatenate([[0], ends])[bounds[:-1]][row_of]
    described = np.empty(len(order), SEGMENT)
    described["end"], described["num_middle"] = ends, segments.num_middle[order]
    described["form"], described["source"] = segments.forms[order], source
    described["document"] = segments.documents[order]
    tokens = np.zeros((num_rows, config.row_tokens), kind)
    _lay(segments.ids, segments.starts[order], lengths, row_of, ends, tokens)
    return tokens, bounds, described, _moved(segments.answers, order, ends - lengths)


def _moved(answers: np.ndarray, order: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Answers of segments that were put in another order, with ranges that count from where segments now start."""
    place_of = np.empty(len(order), np.int64)
    place_of[order] = np.arange(len(order))
    moved = answers.copy()
    moved["segment"] = place_of[answers["segment"]]
    for end in ("start", "end"):
        moved[end] += starts[moved["segment"]].astype(np.uint32)
    return moved[np.argsort(moved["segment"], kind="stable")]


def tokens_type(tokenizer: Tokenizer) -> np.dtype[np.unsignedinteger]:
    """The smallest type that holds a vocabulary's ids."""
    return np.dtype("<u2" if tokenizer.vocab_size <= 2**16 else "<u4")


@njit(cache=True, nogil=True)
def _lay(
    ids: np.ndarray, starts: np.ndarray, lengths: np.ndarray, rows: np.ndarray, ends: np.ndarray, out: np.ndarray
) -> None:
    for n in range(len(starts)):
        first = ends[n] - lengths[n]
        for i in range(lengths[n]):
            out[rows[n], first + i] = ids[starts[n] + i]


def permuted(places: np.ndarray, count: int, *key: int) -> np.ndarray:
    """Where a permutation of 0 ... count - 1 that depends on the key (up to four numbers) takes these places.

    A Feistel network over the next larger power of four, walked until it comes back below `count`.
    """
    words = np.random.Philox(
        key=np.array([key[0], 1], dtype=np.uint64),
        counter=np.array([0, *key[1:], *[0] * (4 - len(key))], dtype=np.uint64),
    ).random_raw(_ROUNDS)
    half = np.uint64(max(1, ((count - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    found = places.astype(np.uint64)
    walking = np.arange(len(found))
    while len(walking):
        left, right = found[walking] >> half, found[walking] & mask
        for word in words:
            left, right = right, left ^ (_mixed(right + word) & mask)
        found[walking] = left << half | right
        walking = walking[found[walking] >= count]
    return found.astype(np.int64)


def _mixed(words: np.ndarray) -> np.ndarray:
    """Every bit of the result depends on every bit of the word (the finaliser of MurmurHash3)."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        words = (words ^ words >> np.uint64(33)) * np.uint64(factor)
    return words ^ words >> np.uint64(33)
