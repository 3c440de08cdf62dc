"""Texts to rows: tokenising, infilling, packing and reading, beside what others do with the same texts.

    rates are MB/s of UTF-8 on one core, each run on texts that the contender has not seen, after a warm-up on
    others: a compilation goes on for hours, and every library remembers what it has encoded

Peers, as far as they are installed: the libraries `tokenizers`, `sentencepiece`, `fastokens` and `gigatoken`; and
two ways from texts to infilling rows, written here in our own words after what people use:

* *datasets.map*: encode in batches, permute token ids in Python as StarCoder's fine-tuning script does,
  concatenate and cut. Splits fall between tokens, and documents are cut where a row ends.
* *Megatron's FIM*: encode, concatenate and cut, then for every document of a row decode, split at characters,
  encode the parts and cut off or pad what no longer fits (gpt_fim_dataset). Sentinels and EOT may be lost.
"""

from __future__ import annotations

import functools
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from benchmarks.harness import Bench
from midspan.cache import pull
from midspan.corpus import Document
from midspan.fim import FimFormat, with_sentinels
from midspan.fim.batch import Batch, document_examples, plain_examples
from midspan.rows import Rows, RowsConfig, Source, compile_rows
from midspan.rows.pack import best_fit
from midspan.rows.segments import segments_of
from midspan.rows.window import pack_rows
from midspan.tokenizer import Tokenizer

ROW_TOKENS = 4096
SAMPLE_BYTES, WARM_BYTES = 5_000_000, 30_000_000
Encode = Callable[[Sequence[str]], object]


def run(bench: Bench, texts: list[str]) -> None:
    """Measure every step on the given texts of code."""
    samples, warm = _parts(texts, bench.runs)
    smollm2 = Tokenizer.load(pull("smollm2-135m"))
    tokenise(bench, "SmolLM2", smollm2, samples, warm)
    folder = Path(os.environ.get("MIDSPAN_DATA", "../shared/data")) / "tokenizers"
    for name, file in (("Code Llama", "ggml-vocab-llama-spm.gguf"), ("Llama 3", "ggml-vocab-llama-bpe.gguf")):
        if (folder / file).is_file():
            tokenise(bench, name, Tokenizer.load(folder / file), samples, warm)
    library = with_sentinels(smollm2)
    fast = library.accelerated(warm[:50])
    one_line(bench, fast)
    infill(bench, fast, samples, warm)
    pack(bench, fast, warm)
    everything(bench, library, fast, samples, warm)
    load(bench, library, warm)


def _parts(texts: Sequence[str], count: int) -> tuple[list[list[str]], list[str]]:
    """As many samples of one size, and other texts to warm up on; each from all over the texts."""
    order = np.random.default_rng(0).permutation(len(texts))
    sizes = np.cumsum([len(texts[n].encode()) for n in order])
    share = min(SAMPLE_BYTES, int(sizes[-1]) // (2 * count + 1))
    cuts = np.searchsorted(sizes, [share * n for n in range(count + 1)])
    samples = [[texts[n] for n in order[a:b]] for a, b in itertools.pairwise(cuts)]
    last = int(np.searchsorted(sizes, share * count + WARM_BYTES))
    return samples, [texts[n] for n in order[cuts[-1] : last]]


def _in_turn(call: Callable[[Any], object], values: Sequence[Any]) -> Callable[[], object]:
    """A call without arguments that takes the next value each time."""
    endless = itertools.cycle(values)
    return lambda: call(next(endless))


def _megabytes(samples: Sequence[Sequence[str]]) -> float:
    """Of a sample, on average."""
    return sum(len(text.encode()) for sample in samples for text in sample) / len(samples) / 1e6


def batch_of(texts: Sequence[str]) -> Batch:
    """Texts as a window has them."""
    data = [text.encode() for text in texts]
    sizes = np.array([len(text) for text in data], np.int64)
    ends = np.cumsum(sizes + 1)
    return Batch(
        data=np.frombuffer(b"".join(b" " + text for text in data), np.uint8),
        starts=ends - sizes,
        ends=ends,
        documents=np.arange(len(texts), dtype=np.uint64),
        pieces=np.zeros(len(texts), np.int64),
        languages=np.full(len(texts), "python", object),
    )


def tokenise(bench: Bench, name: str, library: Tokenizer, samples: list[list[str]], warm: list[str]) -> None:
    """Ids of whole files, as arrays, beside the libraries; all ids of a sample are compared with the library's."""
    fast = library.accelerated(warm[:20])
    with tempfile.TemporaryDirectory() as folder:
        library.save(folder)
        path = Path(folder)
        plain = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
        peers: dict[str, Encode] = {
            f"tokenizers {tokenizers.__version__}": functools.partial(
                plain.encode_batch_fast, add_special_tokens=False
            )
        }
        peers |= _sentencepiece(path) | _fastokens(path) | _gigatoken(path)
    for encode in (fast.encode_batch, *[peer for label, peer in peers.items() if label[0] in "fg"]):
        encode(warm)
    bench.compare(
        f"tokenise, {name}",
        unit="MB/s",
        amount=_megabytes(samples),
        ours=_in_turn(lambda b: fast.encode_ranges(b.data, b.starts, b.ends), [*map(batch_of, samples)]),
        peers={label: _in_turn(peer, samples) for label, peer in peers.items()},
        goal=50.0,
        clock=time.process_time,
    )
    differ = sum(a != b for a, b in zip(*(t.encode_batch(samples[0]) for t in (fast, library)), strict=True))
    bench.record(f"tokenise, {name}: ids that differ", unit="files", value=differ, goal=0, better="lower")


def _sentencepiece(folder: Path) -> dict[str, Encode]:
    if not (folder / "tokenizer.model").is_file():
        return {}
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    return {
        f"sentencepiece {sentencepiece.__version__}": lambda texts: processor.encode(list(texts), num_threads=1)
    }


def _fastokens(folder: Path) -> dict[str, Encode]:
    try:
        import fastokens
        from fastokens._native import Tokenizer as Native

        native = Native.from_file(str(folder / "tokenizer.json"))
    except (ImportError, ValueError):  # not installed, or a vocabulary with holes
        return {}
    assert fastokens
    return {"fastokens 0.3.5": lambda texts: native.encode_batch_flat(list(texts))}


def _gigatoken(folder: Path) -> dict[str, Encode]:
    try:
        import gigatoken

        encoder = gigatoken.Tokenizer(str(folder / "tokenizer.json"))
    except (ImportError, RuntimeError):  # not installed, or an expression that it does not know
        return {}
    return {"gigatoken 0.10.0": lambda texts: encoder.encode_batch(list(texts), parallel=False)}


def one_line(bench: Bench, fast: Tokenizer) -> None:
    """The slowest megabyte that we know of: one word without a break."""
    letters = "".join(chr(97 + i * i * 7919 % 26) for i in range(1_000_000))
    fast.encode("warm")
    begun = time.process_time()
    fast.encode(letters)
    bench.record("1 MB in one line", unit="s", value=time.process_time() - begun, goal=1.0, better="lower")


def infill(bench: Bench, fast: Tokenizer, samples: list[list[str]], warm: list[str]) -> None:
    """How much of the speed of plain tokenising is left when documents become infilling examples."""
    config, fim = RowsConfig().fim, FimFormat.detect(fast)
    document_examples(fast, fim, config, batch_of(warm), seed=0, epoch=0)
    ratios = []
    for texts in [*samples, *samples]:
        batch = batch_of(texts)
        begun = time.process_time()
        plain_examples(fast, batch)
        middle = time.process_time()
        document_examples(fast, fim, config, batch, seed=0, epoch=0)
        again = time.process_time()
        plain_examples(fast, batch)  # before and after: the later of two finds more remembered
        ratios.append((middle - begun + time.process_time() - again) / 2 / (again - middle))
    share = 100 * float(np.median(ratios))
    bench.record("infilling, of the speed of plain tokenising", unit="%", value=share, goal=80)


def pack(bench: Bench, fast: Tokenizer, texts: list[str]) -> None:
    """Plans, and what they leave empty on this code."""
    config = RowsConfig(row_tokens=ROW_TOKENS)
    segments = segments_of(fast, FimFormat.detect(fast), config, batch_of(texts), epoch=0)
    rows = int(best_fit(segments.lengths, ROW_TOKENS).max()) + 1
    padding = 100 * (1 - segments.lengths.sum() / (rows * ROW_TOKENS))
    bench.record(f"padding, rows of {ROW_TOKENS}", unit="%", value=float(padding), goal=1.0, better="lower")
    lengths = np.resize(segments.lengths, 1_000_000)
    bench.compare(
        "packing plans",
        unit="documents/s",
        amount=len(lengths),
        ours=lambda: best_fit(lengths, ROW_TOKENS),
        goal=1e6,
        clock=time.process_time,
    )


def everything(
    bench: Bench, library: Tokenizer, fast: Tokenizer, samples: list[list[str]], warm: list[str]
) -> None:
    """Texts to packed infilling rows."""
    config, fim = RowsConfig(row_tokens=ROW_TOKENS), FimFormat.detect(fast)
    assert fim is not None
    with tempfile.TemporaryDirectory() as folder:
        library.save(folder)
        plain = tokenizers.Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))

    def ours(texts: list[str]) -> object:
        return pack_rows(segments_of(fast, fim, config, batch_of(texts), 0), config, 0, (0,), np.dtype("<u2"))

    ours(warm)
    peers = {"Megatron's FIM": _in_turn(lambda texts: megatron(plain, fim, texts), samples)}
    try:
        import datasets

        datasets.disable_caching()
        datasets.disable_progress_bars()
        tables = [datasets.Dataset.from_dict({"text": texts}) for texts in samples]
        peers[f"datasets {datasets.__version__} map"] = _in_turn(lambda t: datasets_map(t, plain, fim), tables)
    except ImportError:
        pass
    bench.compare(
        "tokenise, infill and pack",
        unit="MB/s",
        amount=_megabytes(samples),
        ours=_in_turn(ours, samples),
        peers=peers,
        goal_ratio=8,
        clock=time.process_time,
    )


def datasets_map(table: object, plain: tokenizers.Tokenizer, fim: FimFormat) -> object:
    """Three maps over a `datasets` table."""
    random = np.random.RandomState(0)

    def encode(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return {"ids": [found.ids for found in plain.encode_batch_fast(rows["text"], add_special_tokens=False)]}

    def infill_ids(rows: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        return {"ids": [permuted_ids(ids, random, fim) for ids in rows["ids"]]}

    def concatenate(rows: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        flat = [i for ids in rows["ids"] for i in [*ids, fim.eot_id]]
        whole = len(flat) // ROW_TOKENS * ROW_TOKENS
        return {"ids": [flat[i : i + ROW_TOKENS] for i in range(0, whole, ROW_TOKENS)]}

    steps = {"batched": True, "keep_in_memory": True}
    encoded = table.map(encode, remove_columns=["text"], **steps)  # type: ignore[attr-defined]
    return encoded.map(infill_ids, **steps).map(concatenate, remove_columns=["ids"], **steps)


def permuted_ids(ids: list[int], random: np.random.RandomState, fim: FimFormat) -> list[int]:
    """A document split between tokens, nine times of ten; half PSM and half SPM."""
    if random.rand() > 0.9:
        return ids
    low, high = sorted(random.randint(0, len(ids) + 1, 2).tolist())
    prefix, middle, suffix = ids[:low], ids[low:high], ids[high:]
    assert fim.middle_id is not None
    if random.rand() < 0.5:
        return [fim.prefix_id, fim.suffix_id, *suffix, fim.middle_id, *prefix, *middle]
    return [fim.prefix_id, *prefix, fim.suffix_id, *suffix, fim.middle_id, *middle]


def megatron(plain: tokenizers.Tokenizer, fim: FimFormat, texts: Sequence[str]) -> list[np.ndarray]:
    """Documents concatenated and cut into rows, then every document of a row decoded, split and encoded again."""
    random = np.random.RandomState(0)
    encoded = plain.encode_batch_fast(list(texts), add_special_tokens=False)
    stream = np.concatenate([np.array([*found.ids, fim.eot_id], np.int64) for found in encoded])
    rows = []
    for row in stream[: len(stream) // ROW_TOKENS * ROW_TOKENS].reshape(-1, ROW_TOKENS):
        parts, begin = [], 0
        for end in [*np.flatnonzero(row == fim.eot_id).tolist(), ROW_TOKENS]:
            parts.append(_permuted_text(plain, row[begin:end], random, fim))
            parts.append(row[end : end + 1])
            begin = end + 1
        found = np.concatenate(parts)[:ROW_TOKENS]
        rows.append(np.pad(found, (0, ROW_TOKENS - len(found))))
    return rows


def _permuted_text(
    plain: tokenizers.Tokenizer, ids: np.ndarray, random: np.random.RandomState, fim: FimFormat
) -> np.ndarray:
    if random.binomial(1, 0.9) == 0:
        return ids
    text = plain.decode(ids.tolist(), skip_special_tokens=False)
    low, high = sorted(random.randint(0, len(text) + 1, 2).tolist())
    prefix, middle, suffix = (
        np.array(plain.encode(part, add_special_tokens=False).ids, np.int64)
        for part in (text[:low], text[low:high], text[high:])
    )
    pre, suf, mid = ([fim.prefix_id], [fim.suffix_id], [fim.middle_id])
    if random.binomial(1, 0.5):
        return np.concatenate([pre, suf, suffix, mid, prefix, middle])
    return np.concatenate([pre, prefix, suf, suffix, mid, middle])


@dataclass
class _Listed:
    """What rows want of a corpus."""

    texts: list[str]
    folder: Path = Path("texts")
    fingerprint: str = "texts"

    def documents(self, split: str) -> Iterator[Document]:
        for n, text in enumerate(self.texts):
            yield Document(source="s", group="g", path=str(n), text=text, language="python")


def load(bench: Bench, tokenizer: Tokenizer, texts: list[str]) -> None:
    """Compiled rows as int64 arrays, out of the page cache; GB are those on disk."""
    with tempfile.TemporaryDirectory() as folder:
        out, count = Path(folder) / "rows", 4096
        source = Source(corpus=_Listed(texts))  # type: ignore[arg-type]
        compile_rows([source], tokenizer, RowsConfig(row_tokens=ROW_TOKENS), count, out)
        rows = Rows(out)

        def read() -> None:
            for step in range(count // 64):
                rows.batch(step, 64)

        read()
        size = count * ROW_TOKENS * np.dtype(rows.manifest["tokens_type"]).itemsize / 1e9
        bench.compare("read rows", unit="GB/s", amount=size, ours=read, goal=1.0, clock=time.process_time)
        begun = time.perf_counter()
        Rows(out).batch(count // 64 - 1, 64)
        bench.record("resume at any step", unit="s", value=time.perf_counter() - begun, goal=1.0, better="lower")
