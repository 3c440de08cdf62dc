"""Files: the shapes that families ship, saving and reading back, transformers, and one sentence per error."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import tokenizers
import transformers
from sentencepiece import sentencepiece_model_pb2

from midspan.errors import InputError
from midspan.tokenizer import Tokenizer
from vocabularies import GGUF_VOCABULARIES

from .conftest import big_ones_slow
from .strings import CODE, SPECIAL_LOOKING, fuzzed

Vocabulary = Callable[[str], Tokenizer]

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT4_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def _split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


SHIPPED = {
    "llama-bpe": ([_split(GPT4_WORDS % "{1,3}"), BYTE_LEVEL], None),
    "qwen2": ([_split(GPT4_WORDS % ""), BYTE_LEVEL], {"type": "NFC"}),
    "starcoder": ([{"type": "Digits", "individual_digits": True}, {**BYTE_LEVEL, "use_regex": True}], None),
    "deepseek-coder": (
        [
            *map(_split, ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+"]),
            {"type": "Digits", "individual_digits": True},
            BYTE_LEVEL,
        ],
        None,
    ),
}
"""Pre-tokeniser and normaliser as in the families' tokenizer.json (Llama 3, Qwen2.5-Coder, StarCoder2,
DeepSeek-Coder)."""


@pytest.mark.parametrize("name", big_ones_slow(SHIPPED))
def test_shipped_json_shapes_give_the_golden_ids(
    name: str, vocabulary: Vocabulary, shared_data: Path, tmp_path: Path
) -> None:
    vocabulary(name).save(tmp_path)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    pre_tokenizers, content["normalizer"] = SHIPPED[name]
    content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": pre_tokenizers}
    # The older spelling of merges.
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    content["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    for token in content["added_tokens"]:  # as Qwen marks its fim tokens; the library parses them all the same
        token["special"] = False
    file.write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": null}')  # as Qwen ships it
    tokenizer = Tokenizer.load(file)
    assert (tokenizer.bos_id, tokenizer.add_bos) == (None, False)
    stem = shared_data / "tokenizers" / f"ggml-vocab-{name}.gguf"
    texts = Path(f"{stem}.inp").read_bytes().decode().removesuffix("\n__ggml_vocab_test__\n")
    wanted = [[int(i) for i in line.split()] for line in Path(f"{stem}.out").read_text().splitlines()]
    assert [tokenizer.encode(text) for text in texts.split("\n__ggml_vocab_test__\n")] == wanted
    assert not any(tokenizer.is_special(i) for text in SPECIAL_LOOKING for i in tokenizer.encode(text))
    assert tokenizer.can_encode("e\u0301") == (name != "qwen2"), "Qwen's file composes characters"
    again = tmp_path / "again"
    tokenizer.save(again)
    assert Tokenizer.load(again).fingerprint == tokenizer.fingerprint


METASPACE = {"type": "Metaspace", "replacement": "▁"}


@pytest.mark.parametrize(
    "metaspace",
    [
        {"prepend_scheme": "first", "split": False},
        {"prepend_scheme": "always", "split": False},
        {"add_prefix_space": True, "prepend_scheme": "always", "split": False},
    ],
)
def test_llama_2_json_shapes_equal_sentencepiece(
    metaspace: dict[str, Any], vocabulary: Vocabulary, tmp_path: Path
) -> None:
    original = vocabulary("llama-spm")
    original.save(tmp_path)
    prepending = Tokenizer.load(tmp_path / "tokenizer.json")
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    content["normalizer"], content["pre_tokenizer"] = None, METASPACE | metaspace
    file = tmp_path / "metaspace.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    tokenizer = Tokenizer.load(file)
    texts = [*CODE, " two", *fuzzed(1_000, seed=21), *fuzzed(300, seed=22, special=True)]
    for leading_space in (True, False):
        wanted = original.encode_batch(texts, leading_space=leading_space)
        assert tokenizer.encode_batch(texts, leading_space=leading_space) == wanted
        assert prepending.encode_batch(texts, leading_space=leading_space) == wanted
    assert tokenizer.has_leading_space
    assert [tokenizer.piece_bytes(i) for i in range(tokenizer.vocab_size)] == [
        original.piece_bytes(i) for i in range(original.vocab_size)
    ]
    theirs = tokenizers.Tokenizer.from_file(str(file))
    plain = [t for t in texts if t[:1] not in (" ", "▁") and not any(s in t for s in ("<s>", "</s>", "<unk>"))]
    assert tokenizer.encode_batch(plain) == [theirs.encode(text, add_special_tokens=False).ids for text in plain]
    assert all(map(tokenizer.can_encode, (" two", "  x\n", "<s>")))


@pytest.mark.parametrize("name", big_ones_slow([*GGUF_VOCABULARIES, "smollm2"]))
def test_transformers_reads_what_is_saved(name: str, vocabulary: Vocabulary, tmp_path: Path) -> None:
    tokenizer = vocabulary(name).with_sentinels(["▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"])
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "added_tokens.json").write_text('{"left over": 7}')
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    added = [token.content for token in theirs.added_tokens_decoder.values()]
    texts = [text for text in [*CODE, *fuzzed(500, seed=31)] if not any(token in text for token in added)]
    assert [theirs(text, add_special_tokens=False)["input_ids"] for text in texts] == tokenizer.encode_batch(texts)
    bos = [tokenizer.bos_id] if tokenizer.add_bos else []
    assert theirs("x = 1")["input_ids"] == bos + tokenizer.encode("x = 1")
    assert (theirs.bos_token_id, theirs.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)
    assert theirs.convert_tokens_to_ids("▁<EOT>") == tokenizer.id_of("▁<EOT>") == tokenizer.vocab_size - 1
    assert len(theirs) == tokenizer.vocab_size
    assert theirs.chat_template == tokenizer.chat_template
    assert theirs.decode(tokenizer.encode("def f(x):\n\treturn  x")) == "def f(x):\n\treturn  x"
    again = Tokenizer.load(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint
    assert again.chat_template == tokenizer.chat_template


def test_code_llama_saved_and_read_back(code_llama_model: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(code_llama_model)
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.convert_tokens_to_ids(["▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"]) == [
        32007,
        32008,
        32009,
        32010,
    ]
    text = "a <PRE> b<EOT><EOT>"
    for path in (tmp_path, tmp_path / "tokenizer.model", tmp_path / "tokenizer.json"):
        assert Tokenizer.load(path).encode(text) == tokenizer.encode(text)
    assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)


def test_tokens_added_beside_a_tokenizer_model(vocabulary: Vocabulary, tmp_path: Path) -> None:
    """As fine-tuned models ship: the original tokenizer.model, and new tokens in another file."""
    vocabulary("llama-spm").save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "added_tokens.json").write_text('{"<|im_end|>": 32001, "<|im_start|>": 32000}')
    (tmp_path / "tokenizer_config.json").write_text(
        '{"eos_token": {"content": "<|im_end|>"}, "add_bos_token": false}'
    )
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.vocab_size, tokenizer.eos_id, tokenizer.add_bos) == (32002, 32001, False)
    assert tokenizer.chat_template == "{{ messages }}"
    (tmp_path / "added_tokens.json").write_text('{"<|im_start|>": 32007}')
    with pytest.raises(InputError, match=r"'<\|im_start\|>' as id 32007"):
        Tokenizer.load(tmp_path)


def _gguf_file(path: Path, **entries: Any) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in entries.items():
        add = writer.add_array if isinstance(value, list) else writer.add_string
        add(f"tokenizer.ggml.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def _unigram(path: Path) -> Path:
    proto = sentencepiece_model_pb2.ModelProto()
    proto.pieces.add(piece="<unk>", type=2)
    path.write_bytes(proto.SerializeToString())
    return path


def _normalizing(path: Path) -> Path:
    proto = sentencepiece_model_pb2.ModelProto()
    proto.pieces.add(piece="<unk>", type=2)
    proto.trainer_spec.model_type = 2
    proto.normalizer_spec.name = "nmt_nfkc"  # with SentencePiece's defaults, which join spaces
    path.write_bytes(proto.SerializeToString())
    return path


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: p / "absent.gguf", r"there is no tokenizer at .*absent\.gguf; name a folder"),
        (lambda p: p, "holds neither tokenizer.model nor tokenizer.json"),
        (lambda p: _written(p / "notes.txt", b"x"), r"notes\.txt is not a \.model, \.json or \.gguf file"),
        (lambda p: _written(p / "tokenizer.json", b"{not json"), r"tokenizer\.json is not JSON"),
        (lambda p: _written(p / "tokenizer.json", b"\xff\xfe\x00"), r"tokenizer\.json is not JSON"),
        (lambda p: _written(p / "tokenizer.json", b"[1]"), "holds a list where an object is expected"),
        (lambda p: _written(p / "tokenizer.json", b"{}"), "holds a missing model"),
        (
            lambda p: _written(p / "t.json", b'{"model": {"type": "WordPiece", "vocab": {}}}'),
            "holds a WordPiece model",
        ),
        (
            lambda p: _written(p / "t.json", b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}'),
            r"t\.json is not a tokenizer\.json that can be used",
        ),
        (
            lambda p: _written(p / "t.json", b'{"model": {"type": "BPE", "vocab": [], "merges": []}}'),
            r"t\.json does not have the shape of a tokenizer\.json",
        ),
        (lambda p: _written(p / "t.model", b"IQ== 0\nIg== 1\n"), "holds tiktoken ranks"),
        (lambda p: _written(p / "t.model", b"garbage"), "holds no SentencePiece model"),
        (lambda p: _unigram(p / "t.model"), "is not a BPE model of SentencePiece"),
        (lambda p: _normalizing(p / "t.model"), r"normalises text \(nmt_nfkc\)"),
        (lambda p: _written(p / "empty.gguf", b""), "is empty"),
        (lambda p: _written(p / "x.gguf", b"PK" * 40), "is not a GGUF file"),
        (lambda p: _written(p / "x.gguf", b"GGUF\x01\0\0\0" + b"\0" * 16), "is GGUF version 1"),
        (lambda p: _gguf_file(p / "weights.gguf"), r"without a vocabulary \(no tokenizer\.ggml\.tokens\)"),
        (
            lambda p: _gguf_file(p / "x.gguf", model="gpt2", pre="falcon", tokens=["a"], merges=["a a"]),
            "pre-tokeniser 'falcon'; Midspan knows deepseek-coder, gpt-2, llama-bpe, qwen2, smollm, starcoder",
        ),
        (
            lambda p: _gguf_file(p / "x.gguf", model="bert", tokens=["a"]),
            "kind 'bert'; Midspan knows llama, gpt2",
        ),
        (
            lambda p: _gguf_file(p / "x.gguf", model="gpt2", pre="smollm", tokens=["a", "a"], merges=["a a"]),
            "lists a piece of its vocabulary twice",
        ),
        (
            lambda p: _gguf_file(p / "x.gguf", model="llama", tokens=["<unk>", "a"], scores=[0.0]),
            "2 pieces, 1 scores and 2 types",
        ),
    ],
)
def test_each_error_is_a_sentence(make: Callable[[Path], Path], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        Tokenizer.load(make(tmp_path))
    assert "\n" not in str(caught.value)


def test_cut_off_gguf_is_refused_wherever_it_ends(shared_data: Path, tmp_path: Path) -> None:
    whole = (shared_data / "tokenizers" / "ggml-vocab-llama-spm.gguf").read_bytes()
    for length in (4, 20, 100, 5_000, len(whole) // 2, len(whole) - 1):
        path = _written(tmp_path / "cut.gguf", whole[:length])
        with pytest.raises(InputError, match=r"cut\.gguf is a damaged or cut-off GGUF file"):
            Tokenizer.load(path)


def test_the_bias_of_the_end_lies_beside_the_vocabulary(vocabulary: Vocabulary, tmp_path: Path) -> None:
    """In a folder and in GGUF's metadata; ids do not depend on it, and what is no number is refused."""
    tokenizer = vocabulary("smollm2")
    biased = tokenizer.with_end_bias({"spm": 3.25, "psm": -0.5})
    assert biased.fingerprint == tokenizer.fingerprint
    assert "fim_end_bias" not in json.loads(_saved(tokenizer, tmp_path / "plain"))
    biased.save(tmp_path / "biased")
    assert Tokenizer.load(tmp_path / "biased").end_bias == {"spm": 3.25, "psm": -0.5}
    fields = {key: value for key, value in biased.gguf_fields().items() if "end_bias" in key}
    assert fields == {"tokenizer.fim_end_bias.spm": 3.25, "tokenizer.fim_end_bias.psm": -0.5}
    path = tmp_path / "biased" / "tokenizer_config.json"
    path.write_text(path.read_text().replace("3.25", '"much"'))
    with pytest.raises(InputError, match="fim_end_bias"):
        Tokenizer.load(tmp_path / "biased")


def _saved(tokenizer: Tokenizer, folder: Path) -> str:
    tokenizer.save(folder)
    return (folder / "tokenizer_config.json").read_text()
