"""The kernels give the library's ids for every text, quickly, and are not used where they cannot."""

import json
import pickle
import sysconfig
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midspan.tokenizer import Tokenizer
from midspan.tokenizer.fast import CHECKED_CHARACTERS, TRICKY, FastEncoder
from midspan.tokenizer.fast_merges import new_memory
from vocabularies import GGUF_VOCABULARIES, small_vocabulary

from .conftest import big_ones_slow
from .strings import CODE, fuzzed
from .test_load import METASPACE, SHIPPED

Vocabulary = Callable[[str], Tokenizer]
STDLIB = Path(sysconfig.get_path("stdlib"))
SMALL_FAMILIES = ("gpt2", "smollm2", *SHIPPED)


def kernels(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer that uses its kernels, without having proved them."""
    fast = Tokenizer(tokenizer._vocabulary)
    fast._fast = FastEncoder(tokenizer._backend)
    return fast


def with_words_of(family: str, folder: Path) -> Tokenizer:
    """A small vocabulary cut into words as a family's shipped file says."""
    small_vocabulary().save(folder)
    path = folder / "tokenizer.json"
    definition = json.loads(path.read_text(encoding="utf-8"))
    if family == "smollm2":
        digits = {"type": "Digits", "individual_digits": True}
        definition["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, definition["pre_tokenizer"]]}
    elif family != "gpt2":
        steps, definition["normalizer"] = SHIPPED[family]
        definition["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    path.write_text(json.dumps(definition), encoding="utf-8")
    return Tokenizer.load(path)


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Tokenizer, Tokenizer]]:
    """Of each family's words, the library and the kernels."""
    found = {}
    for family in SMALL_FAMILIES:
        tokenizer = with_words_of(family, tmp_path_factory.mktemp(family))
        found[family] = (tokenizer, kernels(tokenizer))
    return found


def check(library: Tokenizer, fast: Tokenizer, texts: list[str]) -> None:
    for leading_space in (True, False):
        wanted = library.encode_batch(texts, leading_space=leading_space)
        for text, theirs, ours in zip(
            texts, wanted, fast.encode_batch(texts, leading_space=leading_space), strict=True
        ):
            assert ours == theirs, text


@pytest.mark.parametrize("name", big_ones_slow([*GGUF_VOCABULARIES, "smollm2"]))
def test_ids_equal_the_librarys(name: str, vocabulary: Vocabulary) -> None:
    library = vocabulary(name).with_sentinels(["<PRE>", "▁<SUF>", " <EOT>", "return"])
    texts = [*CODE, *TRICKY, *fuzzed(4_000, seed=51), *fuzzed(500, seed=52, special=True)]
    texts += [path.read_text(encoding="utf-8") for path in sorted(STDLIB.glob("a*.py"))]
    assert sum(map(len, texts)) > 250_000
    check(library, kernels(library), texts)


@pytest.mark.parametrize("family", SMALL_FAMILIES)
@given(
    text=st.lists(
        st.sampled_from(
            [*" \t\n\r'.=aZstdmrevlLſé1٣½½我。、\u0301\u3000\u2028\x85_", "'re", "  ", "\n\n", "🚀", "क", "१"]
        ),
        max_size=24,
    ).map("".join)
)
def test_words_end_where_the_expressions_say(family: str, text: str, families: dict[str, Any]) -> None:
    library, fast = families[family]
    assert fast.encode(text) == library.encode(text)


@pytest.mark.parametrize("family", ["gpt2", "llama-bpe", "deepseek-coder"])
def test_every_character_is_of_the_librarys_class(family: str, families: dict[str, Any]) -> None:
    library, fast = families[family]
    codes = [code for code in range(0x11000) if not 0xD800 <= code < 0xE000]
    check(library, fast, [f"a{chr(code)}{chr(code)} {chr(code)}1" for code in codes])


def test_metaspace_files_equal_sentencepiece(vocabulary: Vocabulary, tmp_path: Path) -> None:
    original = vocabulary("llama-spm")
    original.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    texts = [*CODE, *TRICKY, *fuzzed(2_000, seed=53)]
    for number, metaspace in enumerate((False, True)):
        if metaspace:
            content["normalizer"] = None
            content["pre_tokenizer"] = METASPACE | {"prepend_scheme": "first", "split": False}
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        check(original, kernels(Tokenizer.load(path)), texts)


def test_whole_words_come_before_merges(vocabulary: Vocabulary, tmp_path: Path) -> None:
    """Llama 3 looks a word up before it merges; here is a piece that no merge leads to."""
    tokenizer = with_words_of("llama-bpe", tmp_path)
    definition = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    piece = "Ġzqxj"
    definition["model"]["vocab"][piece] = tokenizer.vocab_size
    for ignore in (True, False):
        definition["model"]["ignore_merges"] = ignore
        (tmp_path / "tokenizer.json").write_text(json.dumps(definition), encoding="utf-8")
        library = Tokenizer.load(tmp_path / "tokenizer.json")
        fast = kernels(library)
        for text in ("a zqxj b", "zqxj", " zqxj zqxjj"):
            assert fast.encode(text) == library.encode(text)
        assert (tokenizer.vocab_size in fast.encode("a zqxj b")) == ignore


def test_texts_that_kernels_cannot_encode_go_to_the_library(vocabulary: Vocabulary) -> None:
    library = vocabulary("smollm2")
    fast = kernels(library)
    texts = ["plain", "a\x04b", "x = 1\n", "\x13\x14", "", "end"]
    assert not all(map(library.can_encode, texts))
    check(library, fast, texts)
    data = np.frombuffer("".join(texts).encode(), np.uint8)
    ends = np.cumsum([len(text) for text in texts])
    ids, offsets, left = fast._fast.encode(data, np.r_[0, ends[:-1]], ends)
    assert left.tolist() == [1, 3]
    assert np.diff(offsets).tolist() == [
        len(library.encode(t)) if n not in left else 0 for n, t in enumerate(texts)
    ]
    assert len(ids) == offsets[-1]


def test_a_vocabulary_that_composes_characters(families: dict[str, Any]) -> None:
    library, fast = families["qwen2"]
    assert fast._fast._composes
    texts = ["plain", "e\u0301", "é", "日本", "a\u0301" * 40, "\u0344", "한국"]
    check(library, fast, texts)
    assert library.encode("e\u0301") == library.encode("é")


def test_ranges_are_texts(families: dict[str, Any]) -> None:
    library, fast = families["llama-bpe"]
    data = np.frombuffer("def f(x):\n    return x  # é🚀\n".encode(), np.uint8)
    starts, ends = np.array([0, 3, 9, 20, 5, 26, 4]), np.array([9, 20, 9, 33, 5, 32, 2])
    for tokenizer in (library, fast):
        ids, offsets = tokenizer.encode_ranges(data, starts, ends)
        assert (ids.dtype, offsets.dtype) == (np.uint32, np.int64)
        for n, (start, end) in enumerate(zip(starts, ends, strict=True)):
            assert ids[offsets[n] : offsets[n + 1]].tolist() == library.encode(bytes(data[start:end]).decode())
    nothing = np.empty(0, np.int64)
    assert [len(part) for part in fast.encode_ranges(data, nothing, nothing)] == [0, 1]


def test_a_memory_that_overflows_changes_nothing(vocabulary: Vocabulary) -> None:
    library = vocabulary("smollm2")
    text = (STDLIB / "argparse.py").read_text(encoding="utf-8")
    for slots, size in ((64, 4096), (4096, 64)):
        fast = kernels(library)
        fast._fast._memory = new_memory(slots, size)
        assert fast.encode(text) == library.encode(text)
        assert fast.encode(text) == library.encode(text)


@pytest.mark.parametrize("name", ["smollm2", "llama-spm"])
def test_a_megabyte_in_one_line_takes_less_than_a_second(name: str, vocabulary: Vocabulary) -> None:
    library = vocabulary(name)
    fast = kernels(library)
    letters = "".join(chr(97 + i * i * 7919 % 26) for i in range(1_000_000))
    for text in ("a" * 1_000_000, letters, " " * 1_000_000, "é" * 500_000, "\u0301" * 500_000, "ab1 " * 250_000):
        fast.encode("warm")
        seconds = []
        for _ in range(2):
            begun = time.process_time()
            ids = fast.encode(text)
            seconds.append(time.process_time() - begun)
        assert min(seconds) < 1.0
        if name == "smollm2":
            assert ids == library.encode(text)


def test_kernels_are_used_once_they_are_proved(vocabulary: Vocabulary) -> None:
    library = vocabulary("smollm2")
    texts = ["x = 1\n" * 1000] * 3
    lines: list[str] = []
    fast = library.accelerated(texts, lines.append)
    assert fast._fast is not None
    assert lines == []
    assert fast.encode_batch(texts) == library.encode_batch(texts)
    assert fast.fingerprint == library.fingerprint
    assert library._fast is None, "a tokenizer does not change"


def test_one_wrong_id_and_the_library_encodes_everything(
    vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library = vocabulary("smollm2")
    encode = FastEncoder.encode

    def wrong(self: FastEncoder, data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Any:
        ids, offsets, left = encode(self, data, starts, ends)
        if b"defect" in data.tobytes():
            ids[-1] += 1
        return ids, offsets, left

    monkeypatch.setattr(FastEncoder, "encode", wrong)
    assert library.accelerated(["def f(): pass"])._fast is not None
    assert capsys.readouterr().err == ""
    assert library.accelerated(["def f(): pass", "# a defect\n"]) is library
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "differs from the library on a text that begins '# a defect" in error
    late = ["x" * 1000] * (CHECKED_CHARACTERS // 1000) + ["defect"]
    assert library.accelerated(late)._fast is not None, "so much is looked at and no more"


def test_a_shape_that_no_kernel_knows_stays_with_the_library(tmp_path: Path) -> None:
    small_vocabulary().save(tmp_path)
    path = tmp_path / "tokenizer.json"
    original = json.loads(path.read_text(encoding="utf-8"))
    lower = {"type": "Split", "pattern": {"Regex": "[a-z]+"}, "behavior": "Isolated", "invert": False}
    for change in (
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [lower, original["pre_tokenizer"]]}},
        {"normalizer": {"type": "Lowercase"}},
        {"model": original["model"] | {"end_of_word_suffix": "@"}},
    ):
        path.write_text(json.dumps(original | change), encoding="utf-8")
        tokenizer = Tokenizer.load(path)
        assert tokenizer.accelerated() is tokenizer


def test_pickles_and_threads(vocabulary: Vocabulary) -> None:
    library = vocabulary("llama-spm").with_sentinels(["<PRE>"])
    fast = pickle.loads(pickle.dumps(library.accelerated()))
    assert fast._fast is not None
    texts = fuzzed(300, seed=54)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fast.encode, texts)) == library.encode_batch(texts)
    assert fast.with_sentinels(["<SUF>"]).accelerated().encode("a <PRE>") == library.encode("a <PRE>")


def test_lone_surrogates_are_refused_as_ever(families: dict[str, Any]) -> None:
    _, fast = families["gpt2"]
    with pytest.raises(ValueError, match=r"U\+D800 at character 2"):
        fast.encode("ab\ud800")
    with pytest.raises(ValueError, match="lone surrogate"):
        fast.encode_batch(["fine", "\udfff"])
