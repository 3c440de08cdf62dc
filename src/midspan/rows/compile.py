"""Documents → rows on disk, once, before training reads them.

    corpus --shuffle--> windows of documents --FIM, encode--> examples --best fit--> rows --shuffle--> file

Packing needs final lengths, and infilling changes lengths, so both happen here and training only maps a file.
Everything is a pure function of the settings: the order of documents in an epoch, each document's draws, what
shares a row, and the order of rows in a window come from counter-based randomness. Windows depend on nothing
but their number, so any number of worker processes writes the same bytes.

A document that fits a row stays whole and becomes an infilling example at the recipe's rate. A longer one is
cut into pieces that are read from left to right (the paper infills only documents that are not cut), or left
out where the recipe says so.
"""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import xxhash

from midspan.corpus import Corpus
from midspan.errors import InputError
from midspan.files import atomic_folder, write_json
from midspan.fim import Draws, FimConfig, FimFormat, document_example, plain_example
from midspan.rows.pack import best_fit
from midspan.rows.texts import Texts
from midspan.tokenizer import Tokenizer

FORMAT_VERSION = 1
SEGMENT = np.dtype([("end", "<u4"), ("num_middle", "<u4"), ("form", "u1"), ("document", "<u8")])
FORMS = ("plain", "psm", "spm", "cut")
"""A segment's form is an index into these; `cut` is a piece of a document longer than a row."""


@dataclass(frozen=True, kw_only=True)
class RowsConfig:
    """What decides the bytes of the rows, beside the corpus and the vocabulary."""

    row_tokens: int = 4096
    """Tokens in a row; the paper's code stage uses 4,096."""
    long_documents: str = "cut"
    """What happens to a document that does not fit a row: `cut` into pieces read left to right, or `drop`."""
    window_documents: int = 4096
    """Documents that are packed together; more fill rows better, fewer start sooner."""
    seed: int = 0
    fim: FimConfig = field(default_factory=FimConfig)

    def __post_init__(self) -> None:
        if self.row_tokens < 16:
            raise InputError(f"data.row_tokens is {self.row_tokens}; a row needs at least 16 tokens")
        if self.long_documents not in ("cut", "drop"):
            raise InputError(f"data.long_documents is {self.long_documents!r}; it must be 'cut' or 'drop'")
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
    """One document, or a piece of one, on its way into a row."""

    ids: list[int]
    form: str
    num_middle: int
    document: int


def shuffled(count: int, *key: int) -> np.ndarray:
    """A permutation of 0 ... count - 1 that depends on the key alone: the order of Philox words."""
    words = np.random.Philox(key=[key[0], 1], counter=[0, *key[1:], *[0] * (4 - len(key))])
    return np.argsort(words.random_raw(count), kind="stable")


def segments_of(
    tokenizer: Tokenizer, fim: FimFormat | None, config: RowsConfig, document: tuple[int, str], epoch: int
) -> list[Segment]:
    """A document as the segments that stand for it: one if it fits, pieces or nothing if it does not."""
    document_id, text = document
    if config.long_documents == "drop" and _is_long(tokenizer, text, config.row_tokens):
        return []
    example = document_example(tokenizer, fim, config.fim, text, Draws(config.seed, epoch, document_id))
    if len(example.ids) <= config.row_tokens:
        return [Segment(example.ids, example.form, example.num_middle, document_id)]
    if config.long_documents == "drop":
        return []
    whole = plain_example(tokenizer, text)
    count = math.ceil(len(whole.ids) / config.row_tokens)
    size = math.ceil(len(whole.ids) / count)
    form = "plain" if count == 1 else "cut"  # one piece: only the sentinels had made it too long
    return [Segment(whole.ids[i * size : (i + 1) * size], form, 0, document_id) for i in range(count)]


def _is_long(tokenizer: Tokenizer, text: str, row_tokens: int) -> bool:
    """Whether a beginning of the text is already too long for a row: spares encoding the rest for nothing."""
    beginning = text[: 8 * row_tokens]
    return len(beginning) < len(text) and len(tokenizer.encode(beginning)) > row_tokens


class Packer:
    """Makes the rows of any window; each worker process has one."""

    def __init__(self, config: RowsConfig, tokenizer: Tokenizer, texts: Texts) -> None:
        self.config, self.tokenizer, self.texts = config, tokenizer, texts
        self.fim = FimFormat.detect(tokenizer)

    def window(self, epoch: int, number: int) -> list[list[Segment]]:
        """The rows of window `number` of an epoch."""
        config = self.config
        order = shuffled(len(self.texts), config.seed, epoch)
        chosen = order[number * config.window_documents : (number + 1) * config.window_documents]
        segments = [
            segment
            for index in chosen
            for segment in segments_of(self.tokenizer, self.fim, config, self.texts[int(index)], epoch)
        ]
        packed = best_fit([len(s.ids) for s in segments], config.row_tokens)
        rows = [[segments[i] for i in sorted(row)] for row in packed]
        return [rows[i] for i in shuffled(len(rows), config.seed, epoch, number + 1)]


_packer: Packer | None = None  # of a worker process


def _start_worker(config: RowsConfig, tokenizer: Tokenizer, texts_folder: Path) -> None:
    global _packer
    _packer = Packer(config, tokenizer, Texts(texts_folder))


def _work(epoch: int, number: int) -> list[list[Segment]]:
    assert _packer is not None
    return _packer.window(epoch, number)


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
        pool = ProcessPoolExecutor(workers, context, _start_worker, (config, tokenizer, texts_folder))
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        ahead: deque[tuple[int, Future[list[list[Segment]]]]] = deque()
        for name in names:
            ahead.append((name[0], pool.submit(_work, *name)))
            if len(ahead) > 2 * workers:
                epoch, rows = ahead.popleft()
                yield epoch, rows.result()


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
        InputError: no document gives a row (all are longer than a row, and those are dropped), or `out` is
            there already.
    """
    counts: Counter[str] = Counter()
    with atomic_folder(out) as folder, tempfile.TemporaryDirectory() as scratch:
        Texts.write(corpus, Path(scratch))
        tokens_type = np.dtype("<u2" if tokenizer.vocab_size <= 2**16 else "<u4")
        bounds, epochs_begun = [0], 0
        with (folder / "tokens.bin").open("wb") as tokens, (folder / "segments.bin").open("wb") as segments:
            windows = _all_windows(config, tokenizer, Path(scratch), workers)
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
                    windows.close()
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
    flat = [token for segment in row for token in segment.ids]
    ids[: len(flat)] = flat
    return ids.tobytes()


def _described(row: list[Segment]) -> bytes:
    ends = itertools.accumulate(len(s.ids) for s in row)
    described = [(e, s.num_middle, FORMS.index(s.form), s.document) for e, s in zip(ends, row, strict=True)]
    return np.array(described, dtype=SEGMENT).tobytes()
