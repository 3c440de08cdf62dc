"""A base and a corpus small enough to train in a test, in the real formats."""

from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from midspan.corpus import CorpusConfig, build
from midspan.model import Llama, ModelConfig
from midspan.model.weights import write_hf
from midspan.tokenizer import Tokenizer

TINY = ModelConfig(
    vocab_size=257,
    hidden_size=48,
    intermediate_size=96,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=12,
    max_positions=512,
    tied=True,
)


def byte_tokenizer(folder: Path) -> Tokenizer:
    """A byte-level vocabulary without merges: 256 bytes and an end of text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: number for number, piece in enumerate(alphabet)}
    raw = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(["<|endoftext|>"])
    folder.mkdir(parents=True, exist_ok=True)
    raw.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    return Tokenizer.load(folder)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama with tied embeddings, as a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("base")
    model = Llama(TINY)
    model.initialise(seed=1, std=0.08)
    write_hf(folder / "tiny", model, TINY, tokenizer=byte_tokenizer(folder / "vocabulary"))
    return folder / "tiny"


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty short Python files in four packages, one of them held out."""
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(40):
        path = folder / "source" / f"package{number % 4}" / f"module{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        body = "".join(
            f"def f{number}_{i}(x):\n    return x * {number * i} + {i}\n\n" for i in range(2 + number % 5)
        )
        path.write_text(f'"""Module {number}."""\n\n{body}')
    build([str(folder / "source")], folder / "built", CorpusConfig(held_out=("package3",)))
    return folder / "built"


@pytest.fixture
def tiny_recipe(tmp_path: Path, tiny_base: Path, tiny_corpus: Path) -> Path:
    """A recipe over both that takes a second or two."""
    path = tmp_path / "tiny.toml"
    path.write_text(
        f"""
        name = "tiny"
        base = "{tiny_base}"
        [data]
        corpus = "{tiny_corpus}"
        row_tokens = 256
        long_documents = "drop"
        window_documents = 16
        [train]
        method = "lora"
        steps = 60
        rows_per_step = 2
        [lora]
        rank = 4
        alpha = 8
        [optimizer]
        lr = 5e-3
        warmup_steps = 5
        [checkpoint]
        every_steps = 3
        """
    )
    return path
