"""A tiny random model with a real byte-level vocabulary, for the rooms that run models."""

import tempfile
from pathlib import Path

import tokenizers
import torch

from midspan.fim import with_sentinels
from midspan.model import Llama, ModelConfig
from midspan.tokenizer import Tokenizer

TEXT = 'def add(a, b):\n    """Sum of a and b."""\n    return a + b\n\n\nprint(add(1, 2))\n'


def tiny_tokenizer(*, sentinels: bool = True, vocab_size: int = 300) -> Tokenizer:
    """Byte-level BPE over a few words of Python, with BOS, EOS and, if asked, Midspan's sentinels."""
    trained = tokenizers.ByteLevelBPETokenizer()
    trained.train_from_iterator([TEXT] * 4, vocab_size=vocab_size, special_tokens=["<s>", "</s>"])
    with tempfile.TemporaryDirectory() as folder:
        trained.save(str(Path(folder) / "tokenizer.json"))
        tokenizer = Tokenizer.load(Path(folder) / "tokenizer.json")
    return with_sentinels(tokenizer) if sentinels else tokenizer


def tiny_model(vocab_size: int, *, max_positions: int = 256, scale: float = 0.3, seed: int = 0) -> Llama:
    """A random model whose choices depend on all that it has read (weights well above the usual start)."""
    config = ModelConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        max_positions=max_positions,
        tied=False,
    )
    model = Llama(config)
    model.initialise(seed, std=scale)
    return model.to(torch.float32).eval()
