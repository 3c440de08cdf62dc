"""Vocabularies into GGUF metadata: what the gguf package writes and our reader reads gives the same ids."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from midspan.errors import InputError
from midspan.fim import with_sentinels
from midspan.model.weights.gguf_container import GGUFWriter
from midspan.tokenizer import Tokenizer
from midspan.tokenizer.gguf_vocabulary import PieceType, read_gguf_vocabulary
from vocabularies import GGUF_VOCABULARIES, small_vocabulary

from .conftest import big_ones_slow

TEXTS = (
    "def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\n",
    "  Größe = 12345  # naïve café 日本語 🙂\r\n\t\tx += 1\n\n\n",
    "it's THEY'LL 've <|endoftext|> <PRE> ▁<PRE> <s> x  y   z",
    "",
)
Vocabulary = Callable[[str], Tokenizer]


def through_gguf(tokenizer: Tokenizer, path: Path, rows: int | None = None) -> Tokenizer:
    with GGUFWriter(path, {"general.architecture": "llama", **tokenizer.gguf_fields(rows)}, {}):
        pass
    return Tokenizer.load(path)


def check_same(again: Tokenizer, tokenizer: Tokenizer) -> None:
    assert again.vocab_size == tokenizer.vocab_size
    assert (again.bos_id, again.eos_id, again.add_bos) == (tokenizer.bos_id, tokenizer.eos_id, tokenizer.add_bos)
    assert (again.chat_template, again.end_bias) == (tokenizer.chat_template, tokenizer.end_bias)
    ids = range(tokenizer.vocab_size)
    assert [again.piece_bytes(i) for i in ids] == [tokenizer.piece_bytes(i) for i in ids]
    assert [again.is_special(i) for i in ids] == [tokenizer.is_special(i) for i in ids]
    for text in TEXTS:
        assert again.encode(text) == tokenizer.encode(text)
        assert again.encode(text, leading_space=False) == tokenizer.encode(text, leading_space=False)


@pytest.mark.parametrize("name", big_ones_slow([*GGUF_VOCABULARIES, "smollm2"]))
def test_published_vocabularies_come_back(name: str, vocabulary: Vocabulary, tmp_path: Path) -> None:
    """With sentinels where they had none, a bias of the end, and rows that no token has."""
    tokenizer = with_sentinels(vocabulary(name)).with_end_bias({"spm": 2.75})
    check_same(through_gguf(tokenizer, tmp_path / "a.gguf", tokenizer.vocab_size + 12), tokenizer)


@pytest.mark.parametrize("name", big_ones_slow(GGUF_VOCABULARIES))
def test_fields_are_those_of_llama_cpps_own_files(name: str, shared_data: Path, tmp_path: Path) -> None:
    original = read_gguf_vocabulary(shared_data / "tokenizers" / f"ggml-vocab-{name}.gguf")
    through_gguf(Tokenizer.load(original.source), tmp_path / "a.gguf")
    ours = read_gguf_vocabulary(tmp_path / "a.gguf")
    assert (ours.kind, ours.pieces) == (original.kind, original.pieces)
    assert ours.pre_tokenizer in {original.pre_tokenizer, "smollm" if name == "starcoder" else ""}
    assert ours.scores == original.scores
    special = {i for i, kind in enumerate(original.types) if kind not in (PieceType.NORMAL, PieceType.BYTE)}
    differing = {i for i, (a, b) in enumerate(zip(ours.types, original.types, strict=True)) if a != b}
    assert all(ours.types[i] == PieceType.CONTROL for i in differing)
    assert {i for i, kind in enumerate(ours.types) if kind not in (PieceType.NORMAL, PieceType.BYTE)} >= special
    made = set(ours.merges) ^ set(original.merges)
    assert not {"".join(merge.split(" ")) for merge in made} - {original.pieces[i] for i in original.special_ids()}


def test_code_llamas_sentinels_and_its_leading_space(code_llama_model: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(code_llama_model)
    again = through_gguf(tokenizer, tmp_path / "a.gguf")
    check_same(again, tokenizer)
    assert again.fingerprint == tokenizer.fingerprint


def test_a_llama_2_tokenizer_json_without_its_model(vocabulary: Vocabulary, tmp_path: Path) -> None:
    tokenizer = vocabulary("llama-spm")
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer.model").unlink()
    check_same(through_gguf(Tokenizer.load(tmp_path), tmp_path / "a.gguf"), tokenizer)
    path = tmp_path / "tokenizer.json"
    definition = json.loads(path.read_text(encoding="utf-8"))
    merges = definition["model"]["merges"]
    for wrong in ([merges[-1], *merges[:-1]], merges[:5000] + merges[5001:]):
        definition["model"]["merges"] = wrong
        path.write_text(json.dumps(definition), encoding="utf-8")
        with pytest.raises(InputError, match=r"put the tokenizer\.model of the same model beside it"):
            Tokenizer.load(path).gguf_fields()


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
DIGITS = {"type": "Digits", "individual_digits": True}
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        ([BYTE_LEVEL], "gpt-2"),
        ([DIGITS, BYTE_LEVEL], "smollm"),
        ([split(LLAMA_3), {**BYTE_LEVEL, "use_regex": False}], "llama-bpe"),
        ([split(LLAMA_3.replace("{1,3}", "")), {**BYTE_LEVEL, "use_regex": False}], "qwen2"),
    ],
)
def test_pre_tokenisers_by_what_they_do(steps: list[dict[str, Any]], name: str, tmp_path: Path) -> None:
    """As the families' own tokenizer.json files spell them."""
    small_vocabulary(["<|im_end|>"]).save(tmp_path)
    path = tmp_path / "tokenizer.json"
    definition = json.loads(path.read_text(encoding="utf-8"))
    definition["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    path.write_text(json.dumps(definition), encoding="utf-8")
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.gguf_fields()["tokenizer.ggml.pre"] == name
    library = tokenizers.Tokenizer.from_file(str(path))
    again = through_gguf(tokenizer, tmp_path / "a.gguf")
    for text in (TEXTS[0], TEXTS[1]):
        assert again.encode(text) == library.encode(text, add_special_tokens=False).ids


def test_a_pre_tokeniser_without_a_name_is_refused(tmp_path: Path) -> None:
    small_vocabulary().save(tmp_path)
    path = tmp_path / "tokenizer.json"
    definition = json.loads(path.read_text(encoding="utf-8"))
    steps = [{"type": "Digits", "individual_digits": False}, BYTE_LEVEL]
    definition["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    path.write_text(json.dumps(definition), encoding="utf-8")
    with pytest.raises(InputError, match=r"cuts words in a way that GGUF has no name for .*Digits"):
        Tokenizer.load(tmp_path).gguf_fields()


def test_tokens_that_are_text_stay_text_for_llama_cpp(vocabulary: Vocabulary) -> None:
    """DeepSeek-Coder's added letters are user-defined; sentinels are control tokens, however they are marked."""
    fields = vocabulary("deepseek-coder").gguf_fields()
    types = dict(zip(fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"], strict=True))
    assert types["õ"] == PieceType.USER_DEFINED
    assert types["<｜fim▁begin｜>"] == PieceType.CONTROL
