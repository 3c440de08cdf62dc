"""Vocabularies that the tests of several rooms share: real ones, each loaded once, and a small one of our own."""

import json
import os
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import platformdirs
import pytest
import tokenizers
from sentencepiece import sentencepiece_model_pb2

from midspan.tokenizer import Tokenizer

GGUF_VOCABULARIES = ("deepseek-coder", "llama-bpe", "llama-spm", "qwen2", "starcoder")
CODE_LLAMA_PIECES = (
    *("▁<SU", "▁<SUF", "▁<PRE", "▁<M", "▁<MID", "▁<E", "▁<EOT", "▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"),
    *("▁<EOT>" + "<EOT>" * repeats for repeats in range(1, 6)),
)


def smollm2_path() -> Path:
    """The SmolLM2 GGUF: MIDSPAN_SMOLLM2_GGUF, or the user's cache."""
    named = os.environ.get("MIDSPAN_SMOLLM2_GGUF")
    cached = sorted((platformdirs.user_cache_path("midspan") / "models" / "smollm2-135m").glob("*.gguf"))
    path = Path(named) if named else (cached or [Path()])[0]
    if not path.is_file():
        pytest.skip("no SmolLM2: set MIDSPAN_SMOLLM2_GGUF, or run `midspan models pull smollm2-135m`")
    return path


@pytest.fixture(scope="session")
def vocabulary(shared_data: Path) -> Callable[[str], Tokenizer]:
    """A function from a name ("llama-spm", ..., "smollm2") to its tokenizer, loaded once."""

    @cache
    def load(name: str) -> Tokenizer:
        if name == "smollm2":
            return Tokenizer.load(smollm2_path())
        return Tokenizer.load(shared_data / "tokenizers" / f"ggml-vocab-{name}.gguf")

    return load


@pytest.fixture(scope="session")
def code_llama_model(vocabulary: Callable[[str], Tokenizer], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Code Llama's tokenizer.model: Llama 2's with 16 more ordinary pieces, as Meta ships it."""
    folder = tmp_path_factory.mktemp("code-llama")
    vocabulary("llama-spm").save(folder)
    proto = sentencepiece_model_pb2.ModelProto.FromString((folder / "tokenizer.model").read_bytes())
    for piece in CODE_LLAMA_PIECES:
        proto.pieces.add(piece=piece, score=proto.pieces[-1].score - 1, type=1)
    alone = tmp_path_factory.mktemp("code-llama-model") / "tokenizer.model"
    alone.write_bytes(proto.SerializeToString())
    return alone


@cache
def _trained_on_code() -> str:
    """A byte-level BPE of 1,200 pieces as a tokenizer.json, without special tokens."""
    raw = tokenizers.ByteLevelBPETokenizer()
    modules = ("argparse.py", "heapq.py", "textwrap.py")
    texts = [(Path(sysconfig.get_path("stdlib")) / name).read_text(encoding="utf-8") for name in modules]
    raw.train_from_iterator(texts, vocab_size=1200, min_frequency=2)
    return raw.to_str()


def small_vocabulary(
    special: Sequence[str] = (), *, bos: str | None = None, eos: str | None = "<|endoftext|>"
) -> Tokenizer:
    """A real byte-level vocabulary that loads in milliseconds; BOS, if given, belongs before documents."""
    names = dict.fromkeys([name for name in (bos, eos) if name is not None] + [*special])
    return _loaded(json.loads(_trained_on_code()), names, bos=bos, eos=eos)


def _loaded(definition: Any, names: Iterable[str], *, bos: str | None, eos: str | None) -> Tokenizer:
    """A definition with these special tokens added, through the files that a user would have."""
    first = len(definition["model"]["vocab"])
    definition["added_tokens"] = [
        {"id": first + i, "content": name, "special": True, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for i, name in enumerate(names)
    ]
    config = {"bos_token": bos, "eos_token": eos, "add_bos_token": bos is not None}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.json").write_text(json.dumps(definition), encoding="utf-8")
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        return Tokenizer.load(folder)


def byte_vocabulary(merges: Sequence[tuple[str, str]] = ()) -> Tokenizer:
    """256 bytes, these merges, BOS and EOS: the same ids with every version of every library."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()) + [left + right for left, right in merges]
    raw = tokenizers.Tokenizer(tokenizers.models.BPE({piece: i for i, piece in enumerate(alphabet)}, [*merges]))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return _loaded(json.loads(raw.to_str()), ["<s>", "</s>"], bos="<s>", eos="</s>")
