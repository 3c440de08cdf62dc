"""Ids equal llama.cpp's, text gives no special id, and ids give every byte back."""

import json
import pickle
import sysconfig
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tokenizers

from midspan.errors import InputError
from midspan.tokenizer import Tokenizer
from vocabularies import GGUF_VOCABULARIES

from .conftest import big_ones_slow
from .strings import SPECIAL_LOOKING, fuzzed

Vocabulary = Callable[[str], Tokenizer]
ALL = (*GGUF_VOCABULARIES, "smollm2")
GOLDEN = Path(__file__).parents[1] / "golden" / "smollm2-ids.jsonl"


@pytest.mark.parametrize("name", GGUF_VOCABULARIES)
def test_ids_equal_published_ones(name: str, vocabulary: Vocabulary, shared_data: Path) -> None:
    stem = shared_data / "tokenizers" / f"ggml-vocab-{name}.gguf"
    # A text ends at the newline before its separator; newlines of its own stay (test-tokenizer-0.cpp).
    texts = Path(f"{stem}.inp").read_bytes().decode().removesuffix("\n__ggml_vocab_test__\n")
    wanted = [[int(i) for i in line.split()] for line in Path(f"{stem}.out").read_text().splitlines()]
    tokenizer = vocabulary(name)
    found = [tokenizer.encode(text) for text in texts.split("\n__ggml_vocab_test__\n")]
    assert found == wanted
    assert len(wanted) > 40


def test_smollm2_ids_equal_llama_cpps(vocabulary: Vocabulary) -> None:
    cases = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
    texts = [case["text"] for case in cases]
    tokenizer = vocabulary("smollm2")
    assert tokenizer.encode_batch(texts) == [case["ids"] for case in cases]
    assert [tokenizer.encode(text) for text in texts] == [case["ids"] for case in cases]
    assert not all(map(tokenizer.can_encode, texts)), "bytes that have no token are among the cases"


@pytest.mark.parametrize("name", big_ones_slow(ALL))
def test_ids_equal_hugging_faces_on_fuzzed_texts(name: str, vocabulary: Vocabulary, tmp_path: Path) -> None:
    """For SentencePiece two libraries; for byte level, one library without and with special tokens."""
    tokenizer = vocabulary(name)
    tokenizer.save(tmp_path)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    added = [token.content for token in theirs.get_added_tokens_decoder().values()]
    texts = [text for text in fuzzed(10_000, seed=5) if not any(token in text for token in added)]
    assert len(texts) > 9_000
    wanted = [encoding.ids for encoding in theirs.encode_batch(texts, add_special_tokens=False)]
    assert tokenizer.encode_batch(texts) == wanted


@pytest.mark.parametrize("name", big_ones_slow(ALL))
def test_text_never_gives_a_special_id_and_bytes_come_back(name: str, vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary(name).with_sentinels(["<PRE>", "▁<SUF>", "<MID>", " <EOT>", "<step>"])
    texts = [*SPECIAL_LOOKING, *fuzzed(2_000, seed=6, special=True)]
    assert sum(map(tokenizer.can_encode, texts)) > 1_000
    for leading_space in (True, False):
        for text, ids in zip(texts, tokenizer.encode_batch(texts, leading_space=leading_space), strict=True):
            assert not any(map(tokenizer.is_special, ids)), text
            exact = tokenizer.decode_bytes(ids, leading_space=leading_space) == text.encode()
            assert exact == tokenizer.can_encode(text), text


def _stdlib_texts() -> list[str]:
    folder = Path(sysconfig.get_path("stdlib"))
    texts = []
    for path in sorted(folder.rglob("*.py")):
        if "site-packages" not in path.parts:
            try:
                texts.append(path.read_bytes().decode("utf-8"))
            except UnicodeDecodeError:  # test files in other encodings
                continue
    return texts


def _check_bytes_come_back(tokenizer: Tokenizer, texts: list[str]) -> None:
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert (tokenizer.decode_bytes(ids, leading_space=True) == text.encode()) == tokenizer.can_encode(text)


@pytest.mark.parametrize("name", ["llama-spm", "smollm2", "llama-bpe"])
def test_bytes_of_some_standard_library_files_come_back(name: str, vocabulary: Vocabulary) -> None:
    texts = _stdlib_texts()[::40]
    assert sum(map(vocabulary(name).can_encode, texts)) >= 0.95 * len(texts) > 5
    _check_bytes_come_back(vocabulary(name), texts)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_bytes_of_every_standard_library_file_come_back(name: str, vocabulary: Vocabulary) -> None:
    texts = _stdlib_texts()
    assert sum(map(vocabulary(name).can_encode, texts)) >= 0.99 * len(texts) > 500
    _check_bytes_come_back(vocabulary(name), texts)


@pytest.mark.parametrize("name", ["llama-spm", "smollm2"])
def test_sentinels_get_the_next_ids_and_known_pieces_keep_theirs(name: str, vocabulary: Vocabulary) -> None:
    plain = vocabulary(name)
    ordinary = plain.piece(plain.encode("return", leading_space=False)[0])
    known_id = plain.id_of(ordinary)
    assert known_id is not None
    tokenizer = plain.with_sentinels(["<PRE>", ordinary, "<SUF>", "<PRE>"])
    assert [tokenizer.id_of("<PRE>"), tokenizer.id_of("<SUF>")] == [plain.vocab_size, plain.vocab_size + 1]
    assert tokenizer.vocab_size == plain.vocab_size + 2
    assert tokenizer.id_of(ordinary) == known_id
    assert tokenizer.is_special(known_id)
    assert not plain.is_special(known_id)
    ids = tokenizer.encode(f"x {ordinary}{ordinary} return<PRE>")
    assert known_id not in ids
    assert tokenizer.decode(ids, leading_space=True) == f"x {ordinary}{ordinary} return<PRE>"
    assert tokenizer.decode_bytes([tokenizer.vocab_size - 1, known_id]) == b""
    assert tokenizer.fingerprint != plain.fingerprint


def test_parts_join_without_losing_or_gaining_a_space(vocabulary: Vocabulary) -> None:
    for tokenizer in (vocabulary("llama-spm"), vocabulary("smollm2")):
        prefix, middle, suffix = "  def f():\n    return", " 1 + é", " \n"
        ids = tokenizer.encode(prefix)
        ids += tokenizer.encode(middle, leading_space=False) + tokenizer.encode(suffix, leading_space=False)
        assert tokenizer.decode(ids, leading_space=True) == prefix + middle + suffix
        assert tokenizer.decode_bytes(ids) == b"".join(map(tokenizer.piece_bytes, ids))
        assert tokenizer.decode_bytes(ids).endswith((prefix + middle + suffix).encode())
    assert vocabulary("llama-spm").decode(vocabulary("llama-spm").encode("x")) == " x"
    assert vocabulary("smollm2").decode(vocabulary("smollm2").encode(" x"), leading_space=True) == " x"


@pytest.mark.parametrize("name", ["llama-spm", "smollm2"])
def test_half_a_character_decodes_to_its_bytes(name: str, vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary(name)
    ids = tokenizer.encode("𒀀", leading_space=False)  # no piece of its own
    assert len(ids) == 4
    assert [tokenizer.piece_bytes(i) for i in ids] == [bytes([byte]) for byte in "𒀀".encode()]
    assert tokenizer.decode(ids[:2]) == "\ufffd"


def test_facts_of_the_families(vocabulary: Vocabulary) -> None:
    facts = {
        name: (v.vocab_size, v.bos_id, v.eos_id, v.add_bos, v.has_leading_space, v.chat_template is not None)
        for name in GGUF_VOCABULARIES
        for v in [vocabulary(name)]
    }
    assert facts == {
        "deepseek-coder": (32256, 32013, 32014, True, False, False),
        "llama-bpe": (128256, 128000, 128001, True, False, False),
        "llama-spm": (32000, 1, 2, True, True, False),
        "qwen2": (151936, 151643, 151643, False, False, True),
        "starcoder": (49152, 0, 0, False, False, False),
    }


@pytest.mark.parametrize("name", ["llama-spm", "deepseek-coder"])
def test_pickles_and_threads_give_the_same_ids(name: str, vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary(name).with_sentinels(["<PRE>"])
    copy = pickle.loads(pickle.dumps(tokenizer))
    texts = fuzzed(200, seed=8)
    wanted = [tokenizer.encode(text) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(copy.encode, texts)) == wanted
    assert copy.fingerprint == tokenizer.fingerprint
    assert copy.id_of("<PRE>") == tokenizer.id_of("<PRE>")


@pytest.mark.parametrize("name", ["llama-spm", "deepseek-coder"])
def test_what_is_no_text_or_no_id_is_refused(name: str, vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary(name)
    with pytest.raises(InputError, match=r"U\+D800 at character 2"):
        tokenizer.encode("ab\ud800")
    with pytest.raises(InputError, match="lone surrogate"):
        tokenizer.encode_batch(["fine", "\udfff"])
    assert not tokenizer.can_encode("\ud800")
    with pytest.raises(IndexError, match="-1 is no token id"):
        tokenizer.decode([-1])
    with pytest.raises(IndexError, match=r"ids are 0 to \d+"):
        tokenizer.piece(tokenizer.vocab_size)
    with pytest.raises(InputError, match="empty piece"):
        tokenizer.with_sentinels([""])
