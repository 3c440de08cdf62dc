"""What the engines run: SmolLM2-135M, and random weights in TinyLlama's shape (1.1 billion)."""

from __future__ import annotations

import subprocess
from pathlib import Path

import gguf
import numpy as np
import torch

from midspan.cache import cache_dir, pull
from midspan.model import Llama, ModelConfig
from midspan.model.weights import load_model

TINY_LLAMA = ModelConfig(
    vocab_size=32_000,
    hidden_size=2048,
    intermediate_size=5632,
    num_layers=22,
    num_heads=32,
    num_kv_heads=4,
    head_dim=64,
    max_positions=16_384,
)
FORMATS = {16: "BF16", 8: "Q8_0", 4: "Q4_0"}


class Subject:
    """One model in all formats."""

    def __init__(self, name: str, tools: Path | None) -> None:
        self.name, self.tools = name, tools
        self.folder = cache_dir() / "benchmarks"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.source = pull("smollm2-135m") if name == "135M" else self._random()

    def model(self) -> Llama:
        """Ours, in bfloat16."""
        return load_model(self.source, dtype=torch.bfloat16)

    def gguf(self, bits: int) -> Path:
        """llama.cpp's, every matrix in one format."""
        kind = FORMATS[bits]
        path = self.folder / f"{self.name}-{kind}.gguf"
        if not path.is_file():
            assert self.tools is not None
            command = [self.tools / "llama-quantize", "--allow-requantize", "--pure", self.source, path, kind, "2"]
            subprocess.run(list(map(str, command)), check=True, capture_output=True)
        return path

    def _random(self) -> Path:
        path = self.folder / f"{self.name}-F16.gguf"
        if not path.is_file():
            _write_random(path, TINY_LLAMA)
        return path


def _write_random(path: Path, config: ModelConfig) -> None:
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(config.num_layers)
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    random = np.random.default_rng(0)

    def matrix(name: str, rows: int, columns: int) -> None:
        values = random.standard_normal((rows, columns), dtype=np.float32) * 0.02
        writer.add_tensor(f"{name}.weight", values.astype(np.float16))

    d, f, kv = config.hidden_size, config.intermediate_size, config.num_kv_heads * config.head_dim
    matrix("token_embd", config.vocab_size, d)
    matrix("output", config.vocab_size, d)
    writer.add_tensor("output_norm.weight", np.ones(d, np.float32))
    for index in range(config.num_layers):
        layer = f"blk.{index}"
        for name, rows in (("attn_q", d), ("attn_k", kv), ("attn_v", kv), ("attn_output", d)):
            matrix(f"{layer}.{name}", rows, d)
        matrix(f"{layer}.ffn_gate", f, d)
        matrix(f"{layer}.ffn_up", f, d)
        matrix(f"{layer}.ffn_down", d, f)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{layer}.{name}.weight", np.ones(d, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
