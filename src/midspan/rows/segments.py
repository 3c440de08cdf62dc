"""The documents of a window → the segments that stand for them in rows.

A document that fits a row stays whole and becomes an infilling example at the recipe's rate. A longer one is
cut into pieces that are read from left to right (the paper infills only documents that are not cut): full rows
and a rest, which packs best. Or it is left out where the recipe says so.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import xxhash

from midspan.errors import InputError
from midspan.fim import Draws, FimConfig, FimFormat
from midspan.fim.batch import Batch, Examples, document_examples, plain_examples
from midspan.fim.trees import grammars
from midspan.tokenizer import Tokenizer

FORMAT_VERSION = 4
SEGMENT = np.dtype([("end", "<u4"), ("num_middle", "<u4"), ("form", "u1"), ("source", "u1"), ("document", "<u8")])
FORMS = ("plain", "psm", "spm", "cut", "chat")
"""A segment's form is an index into these; `cut` is a piece of one longer than a row, `chat` a conversation."""
_CUT, CHAT = FORMS.index("cut"), FORMS.index("chat")
ANSWER = np.dtype([("segment", "<u4"), ("start", "<u4"), ("end", "<u4")])
"""What is trained of a conversation: the number of its segment, and a range of ids."""
_LIKELY_LONG = 3
"""Bytes a token from which on a document is first encoded as it is: most of these are too long to be infilled."""


@dataclass(frozen=True, kw_only=True)
class RowsConfig:
    """What decides the bytes of the rows, beside the sources and the vocabulary."""

    row_tokens: int = 4096
    """Tokens in a row; the paper's code stage uses 4,096."""
    long_documents: str = "cut"
    """What happens to a document that does not fit a row: `cut` into pieces read left to right, or `drop`."""
    piece_tokens: tuple[int, ...] = ()
    """Smallest and largest size of pieces, if documents are to be split at line starts into documents of their
    own before anything else; sizes are drawn log-uniformly. Not the paper's: for short runs, which learn to
    infill from many small examples."""
    window_documents: int = 4096
    """Documents that are packed together; more fill rows better, fewer start sooner. Large documents come fewer
    at a time."""
    seed: int = 0
    fim: FimConfig = field(default_factory=FimConfig)

    def __post_init__(self) -> None:
        if self.row_tokens < 16:
            raise InputError(f"data.row_tokens is {self.row_tokens}; a row needs at least 16 tokens")
        if self.long_documents not in ("cut", "drop"):
            raise InputError(f"data.long_documents is {self.long_documents!r}; it must be 'cut' or 'drop'")
        sizes = self.piece_tokens
        if sizes and (len(sizes) != 2 or not 1 <= sizes[0] <= sizes[1]):
            raise InputError(
                f"data.piece_tokens is {list(self.piece_tokens)}; give [smallest, largest], or nothing to keep "
                "documents whole"
            )
        if self.window_documents < 1:
            raise InputError(f"data.window_documents is {self.window_documents}; it must be at least 1")
        if not 0 <= self.seed < 2**64:
            raise InputError(f"data.seed is {self.seed}; it must lie between 0 and 2^64 - 1")

    def fingerprint(self, sources: Sequence[Sequence[object]], tokenizer: str) -> str:
        """The identity of the rows that this configuration makes of sources (as JSON values) with a vocabulary."""
        values = [FORMAT_VERSION, sources, tokenizer, asdict(self)]
        if self.fim.spans.get("tree", 0) > 0:
            values.append(grammars())
        return xxhash.xxh3_128_hexdigest(json.dumps(values, sort_keys=True).encode())


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Documents, or pieces of them, on their way into rows, in the order of their documents."""

    ids: np.ndarray
    """Token ids of all, uint32; segments are ranges of it."""
    starts: np.ndarray
    lengths: np.ndarray
    """Of the ranges (n), int64; no length is 0 or above a row's."""
    forms: np.ndarray
    """Indices into FORMS (n), uint8."""
    num_middle: np.ndarray
    """How many of the last ids stand for the middle and EOT (n), int64."""
    documents: np.ndarray
    """Ids of the documents (n), uint64."""
    answers: np.ndarray = field(default_factory=lambda: np.empty(0, ANSWER))
    """Records of ANSWER, by segment; their ranges count from the beginning of the segment."""


def segments_of(
    tokenizer: Tokenizer, fim: FimFormat | None, config: RowsConfig, batch: Batch, epoch: int
) -> Segments:
    """Documents as the segments that stand for them: of one that is not split, one or more or none."""
    if config.piece_tokens:
        batch = _split_at_lines(tokenizer, config, batch, epoch)
    everything = np.arange(len(batch))
    infills = fim is not None and config.fim.rate > 0
    found = _Found(config, batch)
    likely_long = batch.ends - batch.starts > _LIKELY_LONG * config.row_tokens
    first = np.flatnonzero(likely_long) if infills else everything
    too_long = found.add_plain(tokenizer, first, keep_whole=not infills)
    if infills:
        rest = np.setdiff1d(everything, too_long, assume_unique=True)
        examples = document_examples(tokenizer, fim, config.fim, batch.only(rest), seed=config.seed, epoch=epoch)
        fits = np.diff(examples.bounds) <= config.row_tokens
        found.add(rest[fits], examples, np.flatnonzero(fits))
        found.add_plain(tokenizer, rest[~fits], keep_whole=True)  # or only the sentinels had made it too long
    return found.segments()


class _Found:
    """Segments as they are made, by the number of their text."""

    def __init__(self, config: RowsConfig, batch: Batch) -> None:
        self._config, self._batch = config, batch
        self._ids: list[np.ndarray] = [np.empty(0, np.uint32)]
        self._size = 0
        self._columns: list[np.ndarray] = [np.empty((5, 0), np.int64)]

    def add(self, texts: np.ndarray, examples: Examples, chosen: np.ndarray) -> None:
        """Take examples (by number) as the only segments of texts."""
        starts, ends = examples.bounds[chosen], examples.bounds[chosen + 1]
        self._add(examples, texts, starts, ends - starts, examples.forms[chosen], examples.num_middle[chosen])

    def add_plain(self, tokenizer: Tokenizer, texts: np.ndarray, *, keep_whole: bool) -> np.ndarray:
        """Encode texts as they are; take those that fit, where that is asked for, and cut those that do not.

        Gives the texts that are too long.
        """
        examples = plain_examples(tokenizer, self._batch.only(texts))
        row_tokens, sizes = self._config.row_tokens, np.diff(examples.bounds)
        long = sizes > row_tokens
        if keep_whole:
            self.add(texts[~long], examples, np.flatnonzero(~long))
        if self._config.long_documents == "cut":
            pieces = -(-sizes[long] // row_tokens)
            which = np.repeat(np.flatnonzero(long), pieces)
            before = np.arange(len(which)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
            starts = examples.bounds[which] + before * row_tokens
            lengths = np.minimum(examples.bounds[which + 1] - starts, row_tokens)
            self._add(examples, texts[which], starts, lengths, _CUT, 0)
        return texts[long]

    def _add(
        self,
        examples: Examples,
        texts: np.ndarray,
        starts: np.ndarray,
        lengths: np.ndarray,
        forms: np.ndarray | int,
        num_middle: np.ndarray | int,
    ) -> None:
        columns = np.broadcast_arrays(texts, starts + self._size, lengths, forms, num_middle)
        self._columns.append(np.stack(columns).astype(np.int64))
        self._ids.append(examples.ids)
        self._size += len(examples.ids)

    def segments(self) -> Segments:
        columns = np.concatenate(self._columns, axis=1)
        columns = columns[:, np.lexsort((columns[1], columns[0]))]
        texts, starts, lengths, forms, num_middle = columns[:, columns[2] > 0]
        return Segments(
            ids=np.concatenate(self._ids),
            starts=starts,
            lengths=lengths,
            forms=forms.astype(np.uint8),
            num_middle=num_middle,
            documents=self._batch.documents[texts],
        )


def _split_at_lines(tokenizer: Tokenizer, config: RowsConfig, batch: Batch, epoch: int) -> Batch:
    """The documents split at line starts into pieces of drawn sizes; a longer line is a piece of its own."""
    newlines = np.flatnonzero(batch.data == ord("\n")) + 1
    firsts, lasts = np.searchsorted(newlines, batch.starts, "right"), np.searchsorted(newlines, batch.ends, "left")
    bounds = [
        np.concatenate([[batch.starts[n]], newlines[firsts[n] : lasts[n]], [batch.ends[n]]])
        for n in range(len(batch))
    ]
    nothing = np.empty(0, np.int64)
    line_starts = np.concatenate([nothing, *(bound[:-1] for bound in bounds)])
    line_ends = np.concatenate([nothing, *(bound[1:] for bound in bounds)])
    _, offsets = tokenizer.encode_ranges(batch.data, line_starts, line_ends)
    sizes = np.diff(offsets)
    pieces: list[bytes] = []
    of_batch: list[int] = []
    numbers: list[int] = []
    for n, bound in enumerate(bounds):
        draws = Draws(config.seed, epoch, int(batch.documents[n]), int(batch.pieces[n]))
        of_lines, sizes = sizes[: len(bound) - 1].tolist(), sizes[len(bound) - 1 :]
        begun = piece_starts(of_lines, config.piece_tokens, draws)
        for number, (first, behind) in enumerate(itertools.pairwise([*begun, len(of_lines)]), start=1):
            pieces.append(b" " + batch.data[bound[first] : bound[behind]].tobytes())
            of_batch.append(n)
            numbers.append(number)
    lengths = np.array([len(piece) for piece in pieces], np.int64)
    ends = np.cumsum(lengths)
    return Batch(
        data=np.frombuffer(b"".join(pieces), np.uint8),
        starts=ends - lengths + 1,
        ends=ends,
        documents=batch.documents[of_batch],
        pieces=np.array(numbers, np.int64),
        languages=batch.languages[of_batch],
    )


def piece_starts(sizes: Sequence[int], limits: Sequence[int], draws: Draws) -> list[int]:
    """At which lines pieces begin, by the tokens of each line and the smallest and largest size of a piece."""
    smallest, largest = limits
    found: list[int] = []
    room = 0.0
    for line, size in enumerate(sizes):
        if size > room:
            room = smallest * (largest / smallest) ** draws.unit()
            found.append(line)
        room -= size
    return found
