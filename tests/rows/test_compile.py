"""Rows hold the corpus's documents whole, in true counts, and are a function of the settings alone."""

import multiprocessing
import os
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path

import pytest
import xxhash
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from midspan.corpus import Corpus
from midspan.errors import InputError, WorkError
from midspan.fim import Draws, FimConfig, FimFormat, split, with_sentinels
from midspan.rows import FORMS, Rows, RowsConfig, compile_rows
from midspan.rows.compile import pieces_of, segments_of, shuffled
from midspan.tokenizer import Tokenizer
from rows.conftest import STDLIB, text_of
from vocabularies import byte_vocabulary, small_vocabulary

MakeCorpus = Callable[[Mapping[str, str]], Corpus]
SMALL = RowsConfig(row_tokens=256, window_documents=40, seed=3)
FILES = {"bounds.npy", "rows.json", "segments.bin", "tokens.bin"}


def compiled(corpus: Corpus, tokenizer: Tokenizer, config: RowsConfig, num_rows: int, folder: Path) -> Rows:
    compile_rows(corpus, tokenizer, config, num_rows, folder / "rows")
    return Rows(folder / "rows")


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
    assert min(counts[form] for form in FORMS) > 10, "all forms occur"
    assert manifest["segments"] == {form: counts[form] for form in FORMS}
    assert manifest["tokens"] == counts["tokens"] == sum(len(rows[i].ids) for i in range(400))
    assert manifest["fill"] == counts["tokens"] / (400 * 256)
    infilled = counts["psm"] + counts["spm"]
    assert manifest["fim_rate"] == infilled / (infilled + counts["plain"])
    assert (manifest["num_rows"], manifest["row_tokens"], len(rows)) == (400, 256, 400)
    assert set(os.listdir(tmp_path / "rows")) == FILES


def test_segments_cover_their_row_and_padding_follows(
    functions: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    rows = compiled(functions, tokenizer, SMALL, 60, tmp_path)
    data = (tmp_path / "rows" / "tokens.bin").read_bytes()
    assert len(data) == 60 * 256 * 2
    padded = 0
    for number in range(60):
        row = rows[number]
        assert row.bounds[0] == 0
        assert row.bounds[-1] == len(row.ids) <= 256
        assert all(a < b for a, b in zip(row.bounds, row.bounds[1:], strict=False))
        padding = data[(number * 256 + len(row.ids)) * 2 : (number + 1) * 256 * 2]
        assert padding == bytes(len(padding))
        padded += len(padding) > 0
    assert padded > 5


def test_an_epoch_has_every_document_once_and_the_next_another_order_and_other_splits(
    corpus_of: MakeCorpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    # Every document fills more than half a row, so a row is a document.
    corpus = corpus_of({f"{n}.py": f"def function_{n}(value):\n    return value + {n}\n" for n in range(60)})
    config = RowsConfig(row_tokens=35, window_documents=16, fim=FimConfig(rate=1.0))
    rows = compiled(corpus, tokenizer, config, 180, tmp_path)
    assert all(len(rows[number].segments) == 1 for number in range(180))
    assert rows.manifest["epochs_begun"] == 3
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
    contents = defaultdict(dict)
    for workers, num_rows in ((1, 150), (2, 150), (1, 40)):
        folder = tmp_path / f"{workers}-{num_rows}"
        compile_rows(functions, tokenizer, SMALL, num_rows, folder, workers=workers)
        contents[workers, num_rows] = {name: (folder / name).read_bytes() for name in FILES}
    assert contents[1, 150] == contents[2, 150]
    assert not multiprocessing.active_children()
    few, many = contents[1, 40], contents[1, 150]
    for name in ("tokens.bin", "segments.bin"):
        assert many[name].startswith(few[name])
        assert 0 < len(few[name]) < len(many[name])


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
        assert rows.fingerprint == config.fingerprint(functions.fingerprint, tokenizer.fingerprint)
        found[name] = (rows.fingerprint, (tmp_path / name / "rows" / "tokens.bin").read_bytes())
    assert len({fingerprint for fingerprint, _ in found.values()}) == len(others)
    assert len({data for _, data in found.values()}) == len(others)
    assert SMALL.fingerprint("another", tokenizer.fingerprint) != found["none"][0]
    assert SMALL.fingerprint(functions.fingerprint, "another") != found["none"][0]


def test_the_bytes_never_change(corpus_of: MakeCorpus, tmp_path: Path) -> None:
    """Change these hashes only together with FORMAT_VERSION: runs are continued with rows compiled anew."""
    corpus = corpus_of({f"{n}.py": f"value_{n} = [{n}] * {n * n}\n" * (1 + n % 7) for n in range(100)})
    config = RowsConfig(row_tokens=128, window_documents=30, fim=FimConfig(spans={"uniform": 0.5, "line": 0.5}))
    compiled(corpus, with_sentinels(byte_vocabulary()), config, 100, tmp_path)
    names = ("tokens", "segments")
    hashes = [xxhash.xxh3_64_hexdigest((tmp_path / "rows" / f"{name}.bin").read_bytes()) for name in names]
    assert hashes == ["b678e5327d52ac09", "39a54152ac2d3eee"]


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
    assert rows.manifest["epochs_begun"] > 1


words = st.sampled_from(["x", " ", " " * 8, " " * 40, "a" * 8, "-" * 30, "\n", "def f", "return", "🚀", "q7"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(words, min_size=1, max_size=60),
    row_tokens=st.integers(16, 40),
    document=st.integers(0, 2**64 - 1),
)
@example(parts=["q7"] * 200, row_tokens=16, document=1)
@example(parts=[" " * 40] * 60, row_tokens=16, document=1)
def test_a_document_is_whole_if_it_fits_and_cut_or_dropped_if_not(
    parts: list[str], row_tokens: int, document: int, tokenizer: Tokenizer
) -> None:
    text = "".join(parts)
    fim = FimFormat.detect(tokenizer)
    ids = [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]
    fits = len(ids) <= row_tokens
    for long_documents in ("cut", "drop"):
        config = RowsConfig(row_tokens=row_tokens, long_documents=long_documents)
        found = segments_of(tokenizer, fim, config, (document, text), epoch=0)
        assert all(len(segment.ids) <= row_tokens and segment.document == document for segment in found)
        if fits:
            (segment,) = found
            assert segment.form != "cut"
            assert text_of(tokenizer, segment.form, segment.ids.tolist()) == text
        elif long_documents == "drop":
            assert all(segment.form in ("psm", "spm") for segment in found), "SPM may take fewer tokens"
        elif found[0].form == "cut":
            assert [int(i) for segment in found for i in segment.ids] == ids
            assert {segment.form for segment in found} == {"cut"}
            assert all(len(segment.ids) == row_tokens for segment in found[:-1]), "full rows and a rest"


@given(
    text=st.text(st.sampled_from("ab \t\n\n\r\x0c\u2028é🚀"), max_size=200),
    sizes=st.tuples(st.integers(1, 10), st.integers(10, 40)),
    document=st.integers(0, 2**64 - 1),
)
def test_pieces_are_whole_lines_of_no_more_than_the_largest_size(
    text: str, sizes: tuple[int, int], document: int, tokenizer: Tokenizer
) -> None:
    pieces = pieces_of(tokenizer, text, sizes, Draws(0, 0, document))
    assert "".join(pieces) == text
    assert all(piece.endswith("\n") for piece in pieces[:-1])
    assert all(pieces)
    for piece in pieces:
        lines = piece.removesuffix("\n").split("\n")
        size = len([i for line in lines for i in tokenizer.encode(line + "\n")])
        assert len(lines) == 1 or size <= sizes[1] + 1, "the last line may lack its newline"


def test_sizes_of_pieces_are_log_uniform() -> None:
    pieces = pieces_of(byte_vocabulary(), "\n" * 40_000, (4, 64), Draws(0, 0, 1))
    sizes = [len(piece) for piece in pieces[:-1]]
    assert (min(sizes), max(sizes)) == (4, 63)
    doublings = Counter(size.bit_length() for size in sizes)
    assert sorted(doublings) == [3, 4, 5, 6]
    assert all(count == pytest.approx(len(sizes) / 4, rel=0.15) for count in doublings.values())


def test_split_documents_are_read_piece_by_piece(functions: Corpus, tokenizer: Tokenizer, tmp_path: Path) -> None:
    config = RowsConfig(row_tokens=256, window_documents=40, piece_tokens=(20, 100))
    rows = compiled(functions, tokenizer, config, 200, tmp_path)
    wanted = {}
    for document in functions.documents("train"):
        for epoch in range(rows.manifest["epochs_begun"]):
            draws = Draws(config.seed, epoch, document.id)
            wanted[document.id, epoch] = pieces_of(tokenizer, document.text, (20, 100), draws)
    found = defaultdict(list)
    for document, form, _, ids in segments(rows):
        found[document].append((form, text_of(tokenizer, form, ids)))
    assert set(found) == {document.id for document in functions.documents("train")}
    for document, read in found.items():
        texts = [text for form, text in read if form != "cut"]
        everything = [piece for (name, _), pieces in wanted.items() if name == document for piece in pieces]
        assert not Counter(texts) - Counter(everything)
    assert any(wanted[name, 0] != wanted[name, 1] for name, epoch in wanted if epoch == 0)
    assert rows.manifest["fim_rate"] == pytest.approx(0.9, abs=0.03)


def test_a_word_that_the_shortcut_cuts_in_two_does_not_count_against_a_document() -> None:
    merges = [("a" * n, "a" * n) for n in (1, 2, 4, 8, 16, 32)]
    tokenizer = with_sentinels(byte_vocabulary(merges))
    text = ("a" * 16 + "-") * 3 + "aaaa-aaaa-aaa-" + "a" * 64
    ids = [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]
    assert (len(text), len(ids), len(tokenizer.encode(text[:128]))) == (129, 16, 19)
    config = RowsConfig(row_tokens=16, long_documents="drop")
    (segment,) = segments_of(tokenizer, FimFormat.detect(tokenizer), config, (1, text), epoch=0)
    assert (segment.form, segment.ids.tolist()) == ("plain", ids)


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
    assert rows.manifest["epochs_begun"] == 1
    assert rows.manifest["fill"] >= 0.95


def test_the_effective_rate_is_the_recipes_where_documents_are_short(
    functions: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    rows = compiled(functions, tokenizer, RowsConfig(row_tokens=2048), 150, tmp_path)
    whole = [form for _, form, _, _ in segments(rows)]
    assert len(whole) > 900
    assert "cut" not in whole
    assert rows.manifest["fim_rate"] == pytest.approx(0.9, abs=0.02)
    assert whole.count("spm") / (whole.count("psm") + whole.count("spm")) == pytest.approx(0.5, abs=0.04)


def test_shuffles_are_permutations_by_their_key() -> None:
    orders = [shuffled(500, *key) for key in ((0, 0), (0, 1), (1, 0), (0, 0, 1), (0, 0, 2), (2**64 - 1, 0))]
    assert all(sorted(order) == list(range(500)) for order in orders)
    assert len({tuple(order) for order in orders}) == len(orders)
    assert (shuffled(500, 0, 1) == orders[1]).all()
    assert tuple(shuffled(2**10, 2**64 - 1, 0)) != tuple(shuffled(2**10, 2**64 - 2, 0))
    assert shuffled(0, 5, 0).tolist() == []


def test_nothing_stays_of_a_compilation_that_was_interrupted(
    functions: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    def stop(done: int) -> None:
        if done > 20:
            raise KeyboardInterrupt

    for workers in (1, 2):
        with pytest.raises(KeyboardInterrupt) as held:
            compile_rows(functions, tokenizer, SMALL, 10**6, tmp_path / "rows", workers=workers, progress=stop)
        assert held.traceback, "whoever keeps the exception keeps no process alive by it"
        assert os.listdir(tmp_path) == []
        assert not multiprocessing.active_children()


def test_a_killed_worker_ends_the_compilation_with_one_sentence(
    functions: Corpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    def kill_one(done: int) -> None:
        for child in multiprocessing.active_children()[:1]:
            os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(WorkError, match="one of the 2 processes that compile rows was killed"):
        compile_rows(functions, tokenizer, SMALL, 10**6, tmp_path / "rows", workers=2, progress=kill_one)
    assert os.listdir(tmp_path) == []
    assert not multiprocessing.active_children()


def test_what_cannot_give_a_row_is_refused(
    functions: Corpus, corpus_of: MakeCorpus, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    out = tmp_path / "rows"
    long_ones = corpus_of({f"{n}.py": f"value_{n} = 'abcdefghijklmnopqrstuvwxyz'\n" for n in range(10)})
    drop = RowsConfig(row_tokens=16, long_documents="drop", window_documents=4)
    for workers in (1, 2):
        with pytest.raises(InputError, match=r"no document of .* fits a row of 16 tokens; give data\.row_tokens"):
            compile_rows(long_ones, tokenizer, drop, 5, out, workers=workers)
    qwen = small_vocabulary(["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"])
    with pytest.raises(InputError, match=r"qwen-coder family has no 'spm' layout; give fim\.spm_rate the value 0"):
        compile_rows(functions, qwen, SMALL, 5, out)
    assert os.listdir(tmp_path) == []
    psm = RowsConfig(row_tokens=256, fim=FimConfig(spm_rate=0.0))
    compile_rows(functions, qwen, psm, 5, out)
    before = {name: (out / name).read_bytes() for name in FILES}
    with pytest.raises(InputError, match="is there already"):
        compile_rows(functions, tokenizer, SMALL, 7, out)
    assert {name: (out / name).read_bytes() for name in FILES} == before
    assert os.listdir(tmp_path) == ["rows"]


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
