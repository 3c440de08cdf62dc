"""Rows hold the corpus's documents whole, in true counts, and are a function of the settings alone."""

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import xxhash

from midspan.corpus import Corpus, Document
from midspan.errors import InputError, WorkError
from midspan.fim import Draws, FimConfig, FimFormat, split, with_sentinels
from midspan.rows import FORMS, Rows, RowsConfig, Source, compile_rows, rows_fingerprint
from midspan.rows.shards import is_written
from midspan.tokenizer import Tokenizer
from rows.conftest import STDLIB, text_of
from vocabularies import byte_vocabulary, small_vocabulary

MakeCorpus = Callable[[Mapping[str, str]], Corpus]
HASHES = ["1c7ac7f983d7aa4b", "176f70098a43ef03", "b0f9c06066c958fb", "6a5c5dc79f23ccde"]
SMALL = RowsConfig(row_tokens=256, window_documents=40, seed=3)


def compiled(corpus: Corpus, tokenizer: Tokenizer, config: RowsConfig, num_rows: int, folder: Path) -> Rows:
    compile_rows([Source(corpus=corpus)], tokenizer, config, num_rows, folder / "rows")
    return Rows(folder / "rows")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def segments(rows: Rows) -> list[tuple[int, str, int, list[int]]]:
    """Document, form, length of the middle and ids of every segment, in the order of the rows."""
    found = []
    for row in islice(rows, len(rows)):
        for start, segment in zip(row.bounds, row.segments, strict=False):
            form = FORMS[segment["form"]]
            ids = row.ids[start : segment["end"]].tolist()
            found.append((int(segment["document"]), form, int(segment["num_middle"]), ids))
    return found


def test_every_segment_is_a_document_or_a_piece_of_one(
    functions: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    rows = compiled(functions, tokenizer, SMALL, 400, tmp_path)
    texts = {document.id: document.text for document in functions.documents("train")}
    whole = {i: [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id] for i, text in texts.items()}
    counts: Counter[str] = Counter()
    for document, form, num_middle, ids in segments(rows):
        counts[form] += 1
        counts["tokens"] += len(ids)
        assert (num_middle > 0) == (form in ("psm", "spm"))
        if form == "cut":
            assert len(whole[document]) > SMALL.row_tokens, "no document that fits is ever cut"
            pieces = [whole[document][start : start + 256] for start in range(0, len(whole[document]), 256)]
            assert ids in pieces
        else:
            assert text_of(tokenizer, form, ids) == texts[document]
            assert form != "plain" or ids == whole[document]
    manifest = rows.manifest
    assert min(counts[form] for form in FORMS if form != "chat") > 10, "all forms occur"
    assert manifest["segments"] == {form: counts[form] for form in FORMS}
    assert manifest["tokens"] == counts["tokens"] == sum(len(rows[i].ids) for i in range(400))
    assert manifest["fill"] == counts["tokens"] / (400 * 256)
    infilled = counts["psm"] + counts["spm"]
    assert manifest["fim_rate"] == infilled / (infilled + counts["plain"])
    assert (manifest["num_rows"], manifest["row_tokens"], len(rows)) == (400, 256, 400)
    files = [f"rows-0-{n:05d}.{kind}" for n in range(len(manifest["shards"][0])) for kind in ("bin", "idx")]
    assert set(os.listdir(tmp_path / "rows")) == {"rows.json", "order.bin", *files}


def test_segments_cover_their_row_and_padding_follows(
    functions: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    rows = compiled(functions, tokenizer, SMALL, 60, tmp_path)
    windows = [path.read_bytes() for path in sorted((tmp_path / "rows").glob("*.bin")) if "rows" in path.name]
    data = b"".join(windows)
    assert len(data) >= 60 * 256 * 2
    padded = 0
    for number in range(60):
        row = rows[number]
        assert row.bounds[0] == 0
        assert row.bounds[-1] == len(row.ids) <= 256
        assert all(a < b for a, b in zip(row.bounds, row.bounds[1:], strict=False))
        stored = np.frombuffer(data[number * 512 : (number + 1) * 512], "<u2")
        assert (stored[: len(row.ids)] == row.ids).all()
        assert not stored[len(row.ids) :].any()
        padded += len(row.ids) < 256
    assert padded > 5


def test_an_epoch_has_every_document_once_and_the_next_another_order_and_other_splits(
    corpus_of: MakeCorpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    # Every document fills more than half a row, so a row is a document.
    corpus = corpus_of({f"{n}.py": f"def function_{n}(value):\n    return value + {n}\n" for n in range(60)})
    config = RowsConfig(row_tokens=35, window_documents=16, fim=FimConfig(rate=1.0))
    rows = compiled(corpus, tokenizer, config, 180, tmp_path)
    assert all(len(rows[number].segments) == 1 for number in range(180))
    assert rows.manifest["sources"][0]["epochs"] == pytest.approx(3)
    epochs = [segments(rows)[start : start + 60] for start in (0, 60, 120)]
    ids = [document.id for document in corpus.documents("train")]
    orders = [[document for document, *_ in epoch] for epoch in epochs]
    assert all(sorted(order) == sorted(ids) for order in orders)
    assert len({tuple(order) for order in [*orders, ids]}) == 4
    assert len({frozenset(order[:16]) for order in orders}) == 3, "what shares a window changes too"
    for number, epoch in enumerate(epochs):
        for document, form, _, found in epoch:
            text = next(d.text for d in corpus.documents("train") if d.id == document)
            draws = Draws(config.seed, number, document)
            assert (draws.unit(), "spm" if draws.unit() < 0.5 else "psm")[1] == form
            parts = split(text, draws, config.fim.spans)
            fim = FimFormat.detect(tokenizer)
            assert fim is not None
            suffix = found[found.index(fim.suffix_id) + 1 : found.index(fim.middle_id)]
            assert tokenizer.decode(suffix) == parts.suffix
    examples = [{document: found for document, _, _, found in epoch} for epoch in epochs]
    assert sum(examples[0][i] == examples[1][i] for i in ids) <= 2


def test_any_number_of_workers_and_rows_gives_the_same_bytes(
    functions: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    found = {}
    for workers, num_rows in ((1, 150), (2, 150), (8, 150), (1, 40)):
        folder = tmp_path / f"{workers}-{num_rows}"
        compile_rows([Source(corpus=functions)], tokenizer, SMALL, num_rows, folder, workers=workers)
        found[workers, num_rows] = contents(folder)
    assert found[1, 150] == found[2, 150] == found[8, 150]
    assert not multiprocessing.active_children()
    few, many = found[1, 40], found[1, 150]
    assert set(few) < set(many)
    assert all(many[name] == few[name] for name in few if name.startswith("rows-")), "fewer rows: fewer windows"
    assert many["order.bin"].startswith(few["order.bin"])
    assert 0 < len(few["order.bin"]) < len(many["order.bin"])


def test_a_mixture_has_the_same_bytes_with_any_number_of_workers(
    functions: Corpus, corpus_of: MakeCorpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    small = corpus_of({f"{n}.py": f"value_{n} = {n} + other_value\n" * (1 + n % 9) for n in range(50)})
    sources = [Source(corpus=functions, name="a", share=0.8), Source(corpus=small, name="b", share=0.2)]
    for workers in (1, 3):
        compile_rows(sources, tokenizer, SMALL, 100, tmp_path / str(workers), workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")


def test_settings_decide_the_bytes_and_the_fingerprint(
    functions: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    others = {
        "none": SMALL,
        "seed": RowsConfig(row_tokens=256, window_documents=40, seed=4),
        "large seed": RowsConfig(row_tokens=256, window_documents=40, seed=2**64 - 1),
        "window": RowsConfig(row_tokens=256, window_documents=41, seed=3),
        "long": RowsConfig(row_tokens=256, window_documents=40, seed=3, long_documents="drop"),
        "fim": RowsConfig(row_tokens=256, window_documents=40, seed=3, fim=FimConfig(rate=0.8)),
        "spans": RowsConfig(row_tokens=256, window_documents=40, seed=3, fim=FimConfig(spans={"line": 1.0})),
    }
    found = {}
    for name, config in others.items():
        rows = compiled(functions, tokenizer, config, 30, tmp_path / name)
        assert rows.fingerprint == rows_fingerprint([Source(corpus=functions)], tokenizer, config)
        found[name] = (rows.fingerprint, b"".join(rows[number].ids.tobytes() for number in range(30)))
    assert len({fingerprint for fingerprint, _ in found.values()}) == len(others)
    assert len({data for _, data in found.values()}) == len(others)
    for change in ({"fim_rate": 0.9}, {"share": 0.5}, {"name": "code"}, {"documents": "repositories"}):
        source = Source(**{"corpus": functions, **change})
        assert rows_fingerprint([source], tokenizer, SMALL) != found["none"][0]
    assert SMALL.fingerprint([Source(corpus=functions).identity()], "another") != found["none"][0]


@dataclass
class Listed:
    """What rows want of a corpus, with documents that no change of a quality rule can touch."""

    texts: list[str]
    folder: Path = Path("listed")
    fingerprint: str = "listed"

    def documents(self, split: str) -> Iterator[Document]:
        assert split == "train"
        for n, text in enumerate(self.texts):
            yield Document(source="s", group="g", path=f"{n}.py", text=text, language="python")


def test_the_bytes_never_change(tmp_path: Path) -> None:
    """Change these hashes only together with FORMAT_VERSION: runs are continued with rows compiled anew."""
    corpus = Listed([f"value_{n} = [{n}] * {n * n}\n" * (1 + n % 7) for n in range(100)])
    config = RowsConfig(row_tokens=128, window_documents=30, fim=FimConfig(spans={"uniform": 0.5, "line": 0.5}))
    compiled(corpus, with_sentinels(byte_vocabulary()), config, 100, tmp_path)
    names = ("order.bin", "rows-0-00000.bin", "rows-0-00000.idx", "rows-0-00001.bin")
    hashes = [xxhash.xxh3_64_hexdigest((tmp_path / "rows" / name).read_bytes()) for name in names]
    assert hashes == HASHES


@pytest.mark.parametrize("row_tokens", [35, 64, 300])
def test_dropping_leaves_out_what_does_not_fit_and_nothing_else(
    row_tokens: int, functions: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    config = RowsConfig(row_tokens=row_tokens, long_documents="drop", fim=FimConfig(rate=1.0))
    documents = list(functions.documents("train"))
    lengths = {document.id: len(tokenizer.encode(document.text)) + 2 for document in documents}
    fitting = {document for document, length in lengths.items() if length <= row_tokens}
    rows = compiled(functions, tokenizer, config, len(fitting) + 1, tmp_path)  # more than an epoch
    found = {document: form for document, form, _, _ in segments(rows)}
    assert set(found) == fitting
    assert 0 < len(found) < len(documents)
    assert "cut" not in found.values()
    assert rows.manifest["sources"][0]["epochs"] > 1


def test_without_sentinels_every_document_is_plain(functions: Corpus, tmp_path: Path) -> None:
    rows = compiled(functions, small_vocabulary(), SMALL, 20, tmp_path)
    assert rows.manifest["fim_rate"] == 0.0
    assert {form for _, form, _, _ in segments(rows)} == {"plain", "cut"}


def test_a_large_vocabulary_takes_four_bytes_a_token(
    functions: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    large = tokenizer.with_sentinels([f"<extra_{n}>" for n in range(2**16)])
    rows = compiled(functions, large, SMALL, 10, tmp_path / "large")
    few = compiled(functions, tokenizer, SMALL, 10, tmp_path / "small")
    assert rows.manifest["tokens_type"] == "<u4"
    assert few.manifest["tokens_type"] == "<u2"
    assert all((rows[n].ids == few[n].ids).all() for n in range(10))


def test_rows_of_real_code_are_nearly_full_and_infilled_at_the_papers_rate(
    corpus_of: MakeCorpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    """Some 80 modules of the standard library, a million characters, most of them longer than a row."""
    files, size = {}, 0
    for path in sorted(STDLIB.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if size + len(text) < 1_000_000:
            files[path.name] = text
            size += len(text)
    rows = compiled(corpus_of(files), tokenizer, RowsConfig(row_tokens=2048), 150, tmp_path)
    assert rows.manifest["sources"][0]["epochs"] < 1
    assert rows.manifest["fill"] >= 0.99


def test_the_effective_rate_is_the_recipes_where_documents_are_short(
    functions: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    rows = compiled(functions, tokenizer, RowsConfig(row_tokens=2048), 150, tmp_path)
    whole = [form for _, form, _, _ in segments(rows)]
    assert len(whole) > 900
    assert "cut" not in whole
    assert rows.manifest["fim_rate"] == pytest.approx(0.9, abs=0.02)
    assert whole.count("spm") / (whole.count("psm") + whole.count("spm")) == pytest.approx(0.5, abs=0.04)


def test_an_interrupted_compilation_is_gone_on_with(
    functions: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    def stop(done: int) -> None:
        if done > 20:
            raise KeyboardInterrupt

    sources = [Source(corpus=functions)]
    compile_rows(sources, tokenizer, SMALL, 100, tmp_path / "straight")
    for workers in (1, 2):
        rows, partial = tmp_path / str(workers), tmp_path / f".{workers}.partial"
        with pytest.raises(KeyboardInterrupt) as held:
            compile_rows(sources, tokenizer, SMALL, 10**6, rows, workers=workers, progress=stop)
        assert held.traceback, "whoever keeps the exception keeps no process alive by it"
        assert not multiprocessing.active_children()
        assert not rows.exists()
        whole = [path for path in partial.glob("rows-0-0000[01].bin") if is_written(path)]
        written = {path: path.stat().st_mtime_ns for path in whole}
        assert written
        compile_rows(sources, tokenizer, SMALL, 100, rows, workers=3 - workers)
        assert contents(rows) == contents(tmp_path / "straight")
        assert {rows / path.name: time for path, time in written.items()}.items() <= {
            path: path.stat().st_mtime_ns for path in rows.iterdir()
        }.items(), "what was there was not made again"
        assert not partial.exists()


def test_a_killed_worker_ends_the_compilation_with_one_sentence(
    functions: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    def kill_one(done: int) -> None:
        for child in multiprocessing.active_children()[:1]:
            os.kill(child.pid, signal.SIGKILL)

    sources = [Source(corpus=functions)]
    with pytest.raises(WorkError, match="one of the 2 worker processes was killed"):
        compile_rows(sources, tokenizer, SMALL, 10**6, tmp_path / "rows", workers=2, progress=kill_one)
    assert os.listdir(tmp_path) == [".rows.partial"], "what is done is kept"
    assert not multiprocessing.active_children()


def test_what_cannot_give_a_row_is_refused(
    functions: Corpus, corpus_of: MakeCorpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    out = tmp_path / "rows"
    long_ones = [
        Source(corpus=corpus_of({f"{n}.py": f"value_{n} = 'abcdefghijklmnopqrstu'\n" for n in range(10)}))
    ]
    drop = RowsConfig(row_tokens=16, long_documents="drop", window_documents=4)
    for workers in (1, 2):
        with pytest.raises(InputError, match=r"no document of .* fits a row; give data\.row_tokens"):
            compile_rows(long_ones, tokenizer, drop, 5, out, workers=workers)
    sources = [Source(corpus=functions)]
    qwen = small_vocabulary(["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"])
    with pytest.raises(InputError, match=r"qwen-coder family has no 'spm' layout; give fim\.spm_rate the value 0"):
        compile_rows(sources, qwen, SMALL, 5, out)
    with pytest.raises(InputError, match="0 rows are no rows to train on"):
        compile_rows(sources, tokenizer, SMALL, 0, out)
    with pytest.raises(InputError, match="they must sum to 1"):
        compile_rows([Source(corpus=functions, share=0.5)], tokenizer, SMALL, 5, out)
    assert os.listdir(tmp_path) == []
    compile_rows(sources, qwen, RowsConfig(row_tokens=256, fim=FimConfig(spm_rate=0.0)), 5, out)
    before = contents(out)
    with pytest.raises(InputError, match="is there already"):
        compile_rows(sources, tokenizer, SMALL, 7, out)
    assert contents(out) == before
    assert os.listdir(tmp_path) == ["rows"]


def test_a_document_may_be_a_repository(functions: Corpus, tokenizer: Tokenizer, tmp_path: Path) -> None:
    config = RowsConfig(row_tokens=2**16, fim=FimConfig(rate=0.0))
    compile_rows([Source(corpus=functions, documents="repositories")], tokenizer, config, 1, tmp_path / "rows")
    row = Rows(tmp_path / "rows")[0]
    texts = [
        text_of(tokenizer, "plain", row.ids[start : segment["end"]].tolist())
        for start, segment in zip(row.bounds, row.segments, strict=False)
    ]
    groups = {document.group for document in functions.documents("train")}
    assert len(texts) <= len(groups) < 12
    for document in functions.documents("train"):
        assert any(document.text.strip() in text for text in texts)


def test_documents_that_the_vocabulary_cannot_write_are_counted(
    corpus_of: MakeCorpus, vocabulary: Callable[[str], Tokenizer], tmp_path: Path
) -> None:
    marked = {f"m{n}.py": f"mark_{n} = '▁'\n" for n in range(3)}
    corpus = corpus_of(marked | {f"{n}.py": f"value_{n} = {n}\n" * 5 for n in range(20)})
    rows = compiled(corpus, with_sentinels(vocabulary("llama-spm")), SMALL, 5, tmp_path)
    (source,) = rows.manifest["sources"]
    assert (source["documents"], source["documents_left_out"]) == (20, 3)
    with pytest.raises(InputError, match=r"no document that the vocabulary can write \(3 were left out\)"):
        compiled(corpus_of(marked), vocabulary("llama-spm"), SMALL, 5, tmp_path / "none")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"row_tokens": 15}, r"data\.row_tokens is 15; a row needs at least 16"),
        ({"long_documents": "keep"}, r"data\.long_documents is 'keep'; it must be 'cut' or 'drop'"),
        ({"piece_tokens": (8,)}, r"data\.piece_tokens is \[8\]; give \[smallest, largest\]"),
        ({"piece_tokens": (9, 8)}, r"data\.piece_tokens is \[9, 8\]"),
        ({"piece_tokens": (0, 8)}, r"data\.piece_tokens is \[0, 8\]"),
        ({"window_documents": 0}, r"data\.window_documents is 0"),
        ({"seed": -1}, r"data\.seed is -1; it must lie between"),
        ({"seed": 2**64}, r"data\.seed is 18446744073709551616"),
    ],
)
def test_settings_that_cannot_be_are_refused(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        RowsConfig(**values)
