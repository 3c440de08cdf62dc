"""Documents → rows on disk, once, before training reads them.

    corpus --shuffle--> windows of documents --FIM, encode--> examples --best fit--> rows --shuffle--> file

Packing needs final lengths, and infilling changes lengths, so both happen here and training only maps a file.
Everything is a pure function of the settings: the order of documents in an epoch, each document's draws, what
shares a row, and the order of rows in a window come from counter-based randomness. Windows depend on nothing
but their number, so any number of worker processes writes the same bytes.

A document that fits a row stays whole and becomes an infilling example at the recipe's rate. A longer one is
cut into pieces that are read from left to right (the paper infills only documents that are not cut): full rows
and a rest, which packs best. Or it is left out where the recipe says so.
"""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import os
import pickle
import re
import signal
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import xxhash

from midspan.corpus import Corpus
from midspan.errors import InputError, WorkError
from midspan.files import atomic_folder, write_json
from midspan.fim import Draws, FimConfig, FimFormat, document_example, plain_example
from midspan.rows.pack import best_fit
from midspan.rows.texts import Texts
from midspan.tokenizer import Tokenizer

FORMAT_VERSION = 1
SEGMENT = np.dtype([("end", "<u4"), ("num_middle", "<u4"), ("form", "u1"), ("document", "<u8")])
FORMS = ("plain", "psm", "spm", "cut")
"""A segment's form is an index into these; `cut` is a piece of a document longer than a row."""
CUT_WORD_SLACK = 64


@dataclass(frozen=True, kw_only=True)
class RowsConfig:
    """What decides the bytes of the rows, beside the corpus and the vocabulary."""

    row_tokens: int = 4096
    """Tokens in a row; the paper's code stage uses 4,096."""
    long_documents: str = "cut"
    """What happens to a document that does not fit a row: `cut` into pieces read left to right, or `drop`."""
    piece_tokens: tuple[int, ...] = ()
    """Smallest and largest size of pieces, if documents are to be split at line starts into documents of their
    own before anything else; sizes are drawn log-uniformly. Not the paper's: for short runs, which learn to
    infill from many small examples."""
    window_documents: int = 4096
    """Documents that are packed together; more fill rows better, fewer start sooner."""
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

    def fingerprint(self, corpus: str, tokenizer: str) -> str:
        """The identity of the rows that this configuration makes of a corpus with a vocabulary."""
        values = [FORMAT_VERSION, corpus, tokenizer, asdict(self)]
        return xxhash.xxh3_128_hexdigest(json.dumps(values, sort_keys=True).encode())


@dataclass(frozen=True)
class Segment:
    """One document, or a piece of one, on its way into a row (an array, since windows wait in memory)."""

    ids: np.ndarray
    form: str
    num_middle: int
    document: int


def shuffled(count: int, *key: int) -> np.ndarray:
    """A permutation of 0 ... count - 1 that depends on the key alone: the order of Philox words."""
    counter = np.array([0, *key[1:], *[0] * (4 - len(key))], dtype=np.uint64)
    words = np.random.Philox(key=np.array([key[0], 1], dtype=np.uint64), counter=counter)
    return np.argsort(words.random_raw(count), kind="stable")


def pieces_of(tokenizer: Tokenizer, text: str, sizes: tuple[int, ...], draws: Draws) -> list[str]:
    """A document split at line starts into pieces of drawn sizes; a longer line is a piece of its own."""
    smallest, largest = sizes
    pieces: list[list[str]] = [[]]
    room = 0.0
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)  # not splitlines, which knows other line ends as well
    for line, ids in zip(lines, tokenizer.encode_batch(lines), strict=True):
        if len(ids) > room:
            room = smallest * (largest / smallest) ** draws.unit()
            pieces.append([])
        pieces[-1].append(line)
        room -= len(ids)
    return ["".join(piece) for piece in pieces[1:]]


def segments_of(
    tokenizer: Tokenizer,
    fim: FimFormat | None,
    config: RowsConfig,
    document: tuple[int, str],
    epoch: int,
) -> list[Segment]:
    """A document as the segments that stand for it: of one that is not split, one or more or none."""
    document_id, text = document
    draws = Draws(config.seed, epoch, document_id)
    if not config.piece_tokens:
        return _segments_of_text(tokenizer, fim, config, document_id, text, draws)
    return [
        segment
        for number, piece in enumerate(pieces_of(tokenizer, text, config.piece_tokens, draws), start=1)
        for segment in _segments_of_text(
            tokenizer, fim, config, document_id, piece, Draws(config.seed, epoch, document_id, number)
        )
    ]


def _segments_of_text(
    tokenizer: Tokenizer, fim: FimFormat | None, config: RowsConfig, document_id: int, text: str, draws: Draws
) -> list[Segment]:
    """One segment if the text fits a row, pieces or nothing if it does not."""
    row_tokens, drop = config.row_tokens, config.long_documents == "drop"
    if not _is_long(tokenizer, text, row_tokens):
        example = document_example(tokenizer, fim, config.fim, text, draws)
        if len(example.ids) <= row_tokens:
            return [Segment(np.array(example.ids, np.uint32), example.form, example.num_middle, document_id)]
    elif drop:
        return []
    ids = np.array(plain_example(tokenizer, text).ids, np.uint32)
    if len(ids) <= row_tokens:  # only the sentinels had made it too long
        return [Segment(ids, "plain", 0, document_id)]
    starts = [] if drop else range(0, len(ids), row_tokens)
    return [Segment(ids[start : start + row_tokens], "cut", 0, document_id) for start in starts]


def _is_long(tokenizer: Tokenizer, text: str, row_tokens: int) -> bool:
    """Whether a beginning of the text is already too long for a row: spares work on long documents.

    The word at its end may be cut in two and take more tokens than as a whole, hence the slack.
    """
    beginning = text[: 8 * row_tokens]
    return len(beginning) < len(text) and len(tokenizer.encode(beginning)) > row_tokens + CUT_WORD_SLACK


class Packer:
    """Makes the rows of any window; each worker process has one."""

    def __init__(self, config: RowsConfig, tokenizer: Tokenizer, texts: Texts) -> None:
        self.config, self.tokenizer, self.texts = config, tokenizer, texts
        self.fim = FimFormat.detect(tokenizer)
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))  # of the last epoch asked for

    def window(self, epoch: int, number: int) -> list[list[Segment]]:
        """The rows of window `number` of an epoch."""
        config = self.config
        if self._order[0] != epoch:
            self._order = (epoch, shuffled(len(self.texts), config.seed, epoch))
        chosen = self._order[1][number * config.window_documents : (number + 1) * config.window_documents]
        segments = [
            segment
            for index in chosen
            for segment in segments_of(self.tokenizer, self.fim, config, self.texts[int(index)], epoch)
        ]
        packed = best_fit([len(s.ids) for s in segments], config.row_tokens)
        rows = [[segments[i] for i in sorted(row)] for row in packed]
        return [rows[i] for i in shuffled(len(rows), config.seed, epoch, number + 1)]


_packer: Packer | None = None  # of a worker process


def _start_worker(config: RowsConfig, tokenizer: Tokenizer, texts_folder: Path, lifeline: Connection) -> None:
    global _packer
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    _packer = Packer(config, tokenizer, Texts(texts_folder))


def _end_with(lifeline: Connection) -> None:
    """End this worker, whatever it is doing, when the parent closes its end or is no more."""
    lifeline.poll(None)
    os._exit(0)


def _work(folder: Path, epoch: int, number: int) -> Path:
    """Make a window and leave it in a file.

    A result as large as a window would cross the pool's pipe in parts, and a worker that ends between two of
    them leaves the parent waiting for ever.
    """
    assert _packer is not None
    path = folder / f"window-{epoch}-{number}"
    with path.open("wb") as file:
        pickle.dump(_packer.window(epoch, number), file)
    return path


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A worker begun in here never sees Ctrl-C, which reaches every process: the parent alone decides."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _all_windows(
    config: RowsConfig, tokenizer: Tokenizer, texts_folder: Path, workers: int
) -> Generator[tuple[int, list[list[Segment]]]]:
    """Epochs and the rows of their windows, in order and without end; a few windows are made ahead."""
    texts = Texts(texts_folder)
    per_epoch = math.ceil(len(texts) / config.window_documents)
    names = ((epoch, number) for epoch in itertools.count() for number in range(per_epoch))
    if workers <= 1:
        packer = Packer(config, tokenizer, texts)
        for name in names:
            yield name[0], packer.window(*name)
    with ExitStack() as stack:
        context = multiprocessing.get_context("spawn")
        lifeline, held_end = context.Pipe(duplex=False)
        pool = ProcessPoolExecutor(workers, context, _start_worker, (config, tokenizer, texts_folder, lifeline))
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        stack.callback(held_end.close)
        ahead: deque[tuple[int, Future[Path]]] = deque()
        try:
            for name in names:
                with _without_interrupts():
                    ahead.append((name[0], pool.submit(_work, texts_folder, *name)))
                if len(ahead) > 2 * workers:
                    epoch, made = ahead.popleft()
                    path = made.result()
                    rows = pickle.loads(path.read_bytes())
                    path.unlink()
                    yield epoch, rows
        except BrokenProcessPool as error:
            raise WorkError(
                f"one of the {workers} processes that compile rows was killed, perhaps for memory; no row is "
                "kept: start again with fewer data.workers or fewer data.window_documents"
            ) from error


def compile_rows(
    corpus: Corpus,
    tokenizer: Tokenizer,
    config: RowsConfig,
    num_rows: int,
    out: Path,
    *,
    workers: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Write the first `num_rows` rows of a corpus to the folder `out`, whole or not at all.

    Args:
        corpus: its training split is read, as often as it takes.
        tokenizer: with sentinels, if documents are to become infilling examples.
        workers: processes that encode; the bytes written do not depend on it.
        progress: called with the number of rows written so far.

    Raises:
        InputError: no document gives a row (all are longer than a row, and those are dropped), the vocabulary's
            family lacks a layout that `config.fim` asks for, or `out` is there already.
        WorkError: a worker was killed.
    """
    fim = FimFormat.detect(tokenizer)
    if fim is not None:
        config.fim.check(fim)
    counts: Counter[str] = Counter()
    # The texts lie beside the rows: a folder for temporary files may be small, or memory.
    with atomic_folder(out) as folder, tempfile.TemporaryDirectory(dir=folder) as scratch:
        Texts.write(corpus, Path(scratch))
        tokens_type = np.dtype("<u2" if tokenizer.vocab_size <= 2**16 else "<u4")
        bounds, epochs_begun = [0], 0
        with (
            (folder / "tokens.bin").open("wb") as tokens,
            (folder / "segments.bin").open("wb") as segments,
            closing(_all_windows(config, tokenizer, Path(scratch), workers)) as windows,
        ):
            for epoch, rows in windows:
                if epoch > 0 and len(bounds) == 1:
                    raise InputError(
                        f"no document of {corpus.folder} fits a row of {config.row_tokens} tokens; "
                        "give data.row_tokens a larger value or data.long_documents the value 'cut'"
                    )
                epochs_begun = epoch + 1
                for row in rows[: num_rows + 1 - len(bounds)]:
                    tokens.write(_padded(row, config.row_tokens, tokens_type))
                    segments.write(_described(row))
                    bounds.append(bounds[-1] + len(row))
                    counts.update(s.form for s in row)
                    counts["tokens"] += sum(len(s.ids) for s in row)
                progress(len(bounds) - 1)
                if len(bounds) > num_rows:
                    break
        np.save(folder / "bounds.npy", np.array(bounds, dtype=np.int64))
        whole = counts["plain"] + counts["psm"] + counts["spm"]
        manifest = {
            "fingerprint": config.fingerprint(corpus.fingerprint, tokenizer.fingerprint),
            "num_rows": num_rows,
            "row_tokens": config.row_tokens,
            "tokens_type": tokens_type.str,
            "tokens": counts["tokens"],
            "fill": counts["tokens"] / (num_rows * config.row_tokens),
            "segments": {form: counts[form] for form in FORMS},
            "fim_rate": (counts["psm"] + counts["spm"]) / whole if whole else 0.0,
            "epochs_begun": epochs_begun,
            "config": asdict(config),
        }
        write_json(folder / "rows.json", manifest)


def _padded(row: list[Segment], row_tokens: int, tokens_type: np.dtype[np.generic]) -> bytes:
    ids = np.zeros(row_tokens, dtype=tokens_type)  # 0 stands for nothing: no segment covers it
    flat = np.concatenate([segment.ids for segment in row])
    ids[: len(flat)] = flat
    return ids.tobytes()


def _described(row: list[Segment]) -> bytes:
    ends = itertools.accumulate(len(s.ids) for s in row)
    described = [(e, s.num_middle, FORMS.index(s.form), s.document) for e, s in zip(ends, row, strict=True)]
    return np.array(described, dtype=SEGMENT).tobytes()
