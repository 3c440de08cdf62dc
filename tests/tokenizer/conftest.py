"""Vocabularies that the tokenizer's tests share, each loaded once."""

import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from sentencepiece import sentencepiece_model_pb2

from midspan.tokenizer import Tokenizer

GGUF_VOCABULARIES = ("deepseek-coder", "llama-bpe", "llama-spm", "qwen2", "starcoder")
CODE_LLAMA_PIECES = (
    *("▁<SU", "▁<SUF", "▁<PRE", "▁<M", "▁<MID", "▁<E", "▁<EOT", "▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"),
    *("▁<EOT>" + "<EOT>" * repeats for repeats in range(1, 6)),
)


def big_ones_slow(names: Iterable[str]) -> list[Any]:
    """Vocabularies of more than 100,000 pieces are marked slow: they take seconds to write and read."""
    return [pytest.param(n, marks=pytest.mark.slow) if n in ("llama-bpe", "qwen2") else n for n in names]


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
def code_llama_model(
    vocabulary: Callable[[str], Tokenizer], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Code Llama's tokenizer.model: Llama 2's with 16 more ordinary pieces, as Meta ships it."""
    folder = tmp_path_factory.mktemp("code-llama")
    vocabulary("llama-spm").save(folder)
    proto = sentencepiece_model_pb2.ModelProto.FromString((folder / "tokenizer.model").read_bytes())
    for piece in CODE_LLAMA_PIECES:
        proto.pieces.add(piece=piece, score=proto.pieces[-1].score - 1, type=1)
    alone = tmp_path_factory.mktemp("code-llama-model") / "tokenizer.model"
    alone.write_bytes(proto.SerializeToString())
    return alone
