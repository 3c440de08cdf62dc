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


def chain_model(tokenizer: Tokenizer, text: str, end: int, *, max_positions: int = 512) -> Llama:
    """A model that has learnt one text: behind each of its tokens it writes the next, and `end` behind any other.

    Every token of the text has to be another one, since the last token is all that the model looks at.
    """
    ids = tokenizer.encode(text, leading_space=False)
    assert len({*ids}) == len(ids), "no token may come twice"
    size = -(-tokenizer.vocab_size // 8) * 8
    config = ModelConfig(
        vocab_size=size,
        hidden_size=size,
        intermediate_size=8,
        num_layers=1,
        num_heads=1,
        num_kv_heads=1,
        head_dim=8,
        max_positions=max_positions,
        tied=False,
    )
    model = Llama(config)
    model.initialise(0)
    follows = torch.full((size,), end)
    follows[ids[:-1]] = torch.tensor(ids[1:])
    with torch.no_grad():
        for layer in model.model.layers:
            for name in ("self_attn.o_proj", "mlp.down_proj"):
                layer.get_submodule(name).weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.lm_head.weight.copy_(torch.eye(size)[follows].T)
    return model.to(torch.float32).eval()
