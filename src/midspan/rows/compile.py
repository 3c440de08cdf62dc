"""Sources → rows on disk, once, before training reads them.

    corpus --shuffle--> windows of documents --FIM, encode--> segments --best fit--> rows --blend--> order of rows

Packing needs final lengths, and infilling changes lengths, so both happen here and training only maps files.
Everything is a pure function of the settings: the order of documents in an epoch, each document's draws, what
shares a row, the order of rows in a window and of sources among each other. Windows depend on nothing but their
number, so any number of worker processes writes the same bytes, and so does a run that was killed and began again:
it goes on with the windows that are there.

    rows.json          manifest: fingerprint, counts, and what each source gave
    order.bin          a record a row: its shard (window * sources + source), and its place in it
    rows-S-NNNNN.bin   window N of source S (`shards.py`)
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from midspan.corpus import Corpus, Document
from midspan.errors import InputError
from midspan.files import atomic_folder, write_json
from midspan.fim import FimFormat
from midspan.rows.conversations import Conversations, Encoded, chat_identity
from midspan.rows.mixture import Blend, Source, check_shares
from midspan.rows.partial import partial_folder
from midspan.rows.segments import FORMS, RowsConfig
from midspan.rows.shards import Index, shard_path
from midspan.rows.texts import Texts
from midspan.rows.window import Packer, tokens_type
from midspan.rows.workers import Windows
from midspan.tokenizer import Tokenizer

ORDER = np.dtype([("shard", "<u4"), ("row", "<u4")])
_MOST_AT_A_TIME = 1 << 16


def compile_rows(
    sources: Sequence[Source],
    tokenizer: Tokenizer,
    config: RowsConfig,
    num_rows: int,
    out: Path,
    *,
    workers: int = 1,
    progress: Callable[[int], None] = lambda done: None,
    report: Callable[[str], None] | None = None,
) -> None:
    """Write the first `num_rows` rows of a mixture to the folder `out`, whole or not at all.

    Until it is whole it is kept as `.NAME.partial` beside its place, and another call goes on with it.

    Args:
        sources: their training splits are read, as often as it takes.
        tokenizer: with sentinels, if documents are to become infilling examples.
        workers: processes that encode; the bytes written do not depend on it.
        progress: called with the number of rows written so far.
        report: called with a line where the library has to encode everything (standard error if not given).

    Raises:
        InputError: no document of a source gives a row (all are longer than a row, and those are dropped; or none
            can be encoded), the shares are no mixture, the vocabulary's family lacks a layout that `config.fim`
            asks for, or `out` is there already.
        WorkError: a worker was killed.
    """
    if num_rows < 1:
        raise InputError(f"{num_rows} rows are no rows to train on; ask for 1 or more")
    shares = [source.share for source in sources]
    check_shares([source.name for source in sources], shares)
    fim = FimFormat.detect(tokenizer)
    if fim is not None:
        config.fim.check(fim)
    fingerprint = rows_fingerprint(sources, tokenizer, config)
    with partial_folder(out, fingerprint) as folder:
        texts = [_texts(source, tokenizer, config, folder / f"texts-{n}") for n, source in enumerate(sources)]
        tokenizer = tokenizer.accelerated(_sample(texts), report)
        rates = [source.fim_rate for source in sources]
        make = functools.partial(_packers, config, tokenizer, folder, rates)
        blend = Blend(shares, config.row_tokens)
        streams = [_Stream(source, n, texts[n]) for n, source in enumerate(sources)]
        with (folder / "order.bin").open("wb") as order, Windows(make, folder, shares, workers) as windows:
            done = 0
            while done < num_rows:
                for stream in streams:
                    stream.refill(windows)
                waiting = [stream.waiting for stream in streams]
                chosen = blend.next_rows(waiting, min(num_rows - done, _MOST_AT_A_TIME))
                records = np.empty(len(chosen), ORDER)
                for n, stream in enumerate(streams):
                    records[chosen == n] = stream.take(int((chosen == n).sum()), len(streams))
                order.write(records.tobytes())
                done += len(chosen)
                progress(done)
        _clear(folder, streams)
        counts = sum((stream.counts for stream in streams), Counter[str]())
        manifest = {
            "fingerprint": fingerprint,
            "num_rows": num_rows,
            "row_tokens": config.row_tokens,
            "tokens_type": tokens_type(tokenizer).str,
            "tokens": counts["tokens"],
            "fill": counts["tokens"] / (num_rows * config.row_tokens),
            "segments": {form: counts[form] for form in FORMS},
            "fim_rate": fim_rate(counts),
            "sources": [stream.described(counts["tokens"]) for stream in streams],
            "shards": [stream.shards for stream in streams],
            "config": asdict(config),
        }
        write_json(folder / "rows.json", manifest)


def rows_fingerprint(sources: Sequence[Source], tokenizer: Tokenizer, config: RowsConfig) -> str:
    """The identity of the rows that these settings make."""
    identities = [source.identity() for source in sources]
    if any(isinstance(source.corpus, Conversations) for source in sources):
        identities.append(["chat", chat_identity(tokenizer)])
    return config.fingerprint(identities, tokenizer.fingerprint)


def _texts(source: Source, tokenizer: Tokenizer, config: RowsConfig, folder: Path) -> Texts | Encoded:
    """A source's texts or conversations, laid out in this call or an earlier one."""
    if not folder.is_dir():
        with atomic_folder(folder) as aside:
            if isinstance(source.corpus, Conversations):
                Encoded.write(source.corpus, tokenizer, config.row_tokens, aside)
            else:
                Texts.write(_documents(source.corpus, source.documents), tokenizer, aside)
    texts = _opened(folder)
    if not len(texts) and isinstance(texts, Encoded):
        raise InputError(
            f"{source.place} has no conversation that fits a row ({texts.too_long} are longer than "
            f"data.row_tokens = {config.row_tokens}, {texts.left_out} the vocabulary cannot write); give "
            "data.row_tokens a larger value, or name another file"
        )
    if not len(texts):
        raise InputError(
            f"the training split of {source.place} has no document that the vocabulary can write "
            f"({texts.left_out} were left out); use another corpus or another base"
        )
    return texts


def _opened(folder: Path) -> Texts | Encoded:
    return Encoded(folder) if Encoded.is_at(folder) else Texts(folder)


def _documents(corpus: Corpus, kind: str) -> Iterator[Document]:
    documents = corpus.documents("train")
    if kind == "files":
        return documents
    from midspan.corpus.repository import repository_documents

    return repository_documents(documents)


def _sample(texts: Sequence[Texts | Encoded]) -> Iterator[str]:
    """A few hundred texts from all over the sources."""
    for each in texts:
        if isinstance(each, Encoded):
            continue
        for n in range(0, len(each), max(1, len(each) // 400)):
            yield each.data[each.offsets[n] + 1 : each.offsets[n + 1]].tobytes().decode()


def _packers(
    config: RowsConfig, tokenizer: Tokenizer, folder: Path, rates: Sequence[float | None]
) -> list[Packer]:
    """What a process makes windows with, one for each source."""
    return [
        Packer(config, tokenizer, _opened(folder / f"texts-{n}"), source=n, fim_rate=rate)
        for n, rate in enumerate(rates)
    ]


class _Stream:
    """The rows of one source, window after window, and what was taken of them."""

    def __init__(self, source: Source, number: int, texts: Texts | Encoded) -> None:
        self.source, self._number, self.texts = source, number, texts
        self._index: Index | None = None
        self._next = 0
        self.shards: list[tuple[int, int]] = []
        """Rows of each window that was taken, and bytes of its index."""
        self.rows = 0
        self.documents_read = 0.0
        self.counts: Counter[str] = Counter()
        self.waiting = np.empty(0, np.int64)
        """Tokens of the rows that come next."""

    def refill(self, windows: Windows) -> None:
        """Get rows, if none is waiting."""
        looked_at = 0
        while not len(self.waiting):
            self._index, self._next = windows.take(self._number), 0
            self.shards.append((len(self._index.bounds) - 1, self._index.size))
            self.waiting = self._index.row_tokens()
            looked_at += self._index.documents
            if not len(self.waiting):
                self.documents_read += self._index.documents
                if looked_at >= len(self.texts):
                    raise InputError(
                        f"no document of {self.source.place} fits a row; "
                        "give data.row_tokens a larger value or data.long_documents the value 'cut'"
                    )

    def take(self, count: int, num_sources: int) -> np.ndarray:
        """The records of the next rows."""
        assert self._index is not None
        first, self._next = self._next, self._next + count
        records = np.empty(count, ORDER)
        records["shard"] = (len(self.shards) - 1) * num_sources + self._number
        records["row"] = np.arange(first, self._next)
        bounds = self._index.bounds
        forms = self._index.segments["form"][bounds[first] : bounds[self._next]]
        for form, found in zip(FORMS, np.bincount(forms, minlength=len(FORMS)), strict=True):
            self.counts[form] += int(found)
        self.counts["tokens"] += int(self.waiting[:count].sum())
        self.rows += count
        self.documents_read += self._index.documents * count / (len(bounds) - 1)
        self.waiting = self.waiting[count:]
        return records

    def described(self, total_tokens: int) -> dict[str, Any]:
        """The source's part of the manifest."""
        tokens, share = self.counts["tokens"], self.counts["tokens"] / total_tokens
        return {
            "name": self.source.name,
            "corpus": str(self.source.place),
            "share": self.source.share,
            "realised_share": share,
            "tokens": tokens,
            "rows": self.rows,
            "epochs": self.documents_read / len(self.texts),
            "documents": len(self.texts),
            "documents_left_out": self.texts.left_out,
            **({"too_long": self.texts.too_long} if isinstance(self.texts, Encoded) else {}),
            "segments": {form: self.counts[form] for form in FORMS},
            "fim_rate": fim_rate(self.counts),
        }


def fim_rate(counts: Counter[str]) -> float:
    """Share of the whole documents that are infilling examples."""
    infilled = counts["psm"] + counts["spm"]
    return infilled / (infilled + counts["plain"]) if infilled else 0.0


def _clear(folder: Path, streams: Sequence[_Stream]) -> None:
    """Remove the texts, and windows that were made ahead and are not needed."""
    kept = {shard_path(folder, n, window) for n, s in enumerate(streams) for window in range(len(s.shards))}
    for path in [*folder.glob("rows-*"), *folder.glob(".rows-*")]:  # the latter: being written when workers ended
        if path.with_suffix(".bin") not in kept:
            path.unlink()
    for path in [*folder.glob("texts-*/*"), *folder.glob("texts-*")]:
        path.rmdir() if path.is_dir() else path.unlink()
