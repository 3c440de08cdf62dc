"""Llama, and its close kin, on one page.

Parameter names are Hugging Face's, so a checkpoint's tensors load and save under their own names. The file
knows nothing of parallelism, quantisation or adapters: those are applied to it from outside.

Legend of shape suffixes: b batch, l length, d hidden size, h heads, k key/value heads, e head dimensions,
f feed-forward size, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from midspan.model.attention import Segments, attend
from midspan.model.cache import Append, KVCache
from midspan.model.config import ModelConfig
from midspan.model.fused import fused_block, fused_norm, is_fusible
from midspan.model.rope import cos_sin, rotate


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        q_size, kv_size = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, q_size, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, kv_size, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, kv_size, bias=config.qkv_bias)
        self.o_proj = nn.Linear(q_size, config.hidden_size, bias=config.out_bias)

    def forward(self, x_bld: Tensor, step: Step, layer: int) -> Tensor:
        q_bhle, k_bkle, v_bkle = (
            projection(x_bld).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q_bhle, k_bkle = rotate(q_bhle, step.cos, step.sin), rotate(k_bkle, step.cos, step.sin)
        if step.append is not None:
            out_bhle = step.append.attend(layer, q_bhle, k_bkle, v_bkle)
        else:
            out_bhle = attend(q_bhle, k_bkle, v_bkle, segments=step.segments)
        return self.o_proj(out_bhle.transpose(1, 2).flatten(-2))


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate x) * up x)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x_bld: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_bld)) * self.up_proj(x_bld))


class Block(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = FeedForward(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)

    def forward(self, x_bld: Tensor, step: Step, layer: int) -> Tensor:
        if step.is_whole and is_fusible(self, x_bld):
            return fused_block(self, x_bld, step)  # the same in fewer passes over memory
        x_bld = x_bld + self.self_attn(self.input_layernorm(x_bld), step, layer)
        return x_bld + self.mlp(self.post_attention_layernorm(x_bld))


class Step:
    """What every layer of one forward pass shares: positions, packed documents, and places in a cache."""

    def __init__(
        self, config: ModelConfig, ids_bl: Tensor, segments: Segments | None, append: Append | None
    ) -> None:
        self.segments, self.append = segments, append
        if append is not None:
            self.positions_bl = append.positions_1n
        elif segments is not None:
            self.positions_bl = segments.positions.to(ids_bl.device)
        else:
            self.positions_bl = torch.arange(ids_bl.shape[1], device=ids_bl.device)[None]
        self.cos, self.sin = cos_sin(self.positions_bl, config)
        self.shape = tuple(ids_bl.shape[:2])  # later pipeline stages are given hidden states (batch, length, d)

    @property
    def is_whole(self) -> bool:
        """Rows from their start, all their tokens at hand."""
        return self.append is None and type(self.segments) in (Segments, type(None))

    @cached_property
    def bounds(self) -> tuple[int, ...]:
        """Where documents begin and end in the rows of the batch, one behind the other."""
        batch, length = self.shape
        return self.segments.bounds if self.segments else tuple(range(0, batch * length + 1, length))

    @cached_property
    def turns(self) -> tuple[Tensor, Tensor]:
        """Cosines and sines of every token (tokens, head_dim / 2): the halves of a head turn by the same."""
        batch, length = self.shape
        half = self.cos.shape[-1] // 2
        cos_ne, sin_ne = (
            x[:, 0, :, :half].expand(batch, -1, -1).reshape(batch * length, half) for x in (self.cos, self.sin)
        )
        return cos_ne.contiguous(), sin_ne.contiguous()


class Decoder(nn.Module):
    """Embedding, layers and final norm (Hugging Face's `model.` prefix)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.norm_eps)

    def forward(self, ids_bl: Tensor, step: Step) -> Tensor:
        x_bld = self.embed_tokens(ids_bl)
        for index, layer in enumerate(self.layers):
            x_bld = layer(x_bld, step, index)
        return fused_norm(x_bld, self.norm) if is_fusible(self.norm, x_bld) else self.norm(x_bld)


class Llama(nn.Module):
    """A causal language model. Its parameters are named and shaped as in Hugging Face checkpoints."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    def hidden(
        self,
        ids_bl: Tensor,
        *,
        segments: Segments | None = None,
        cache: KVCache | None = None,
        slots: slice = slice(None),
        parts: Sequence[tuple[int, int]] | None = None,
    ) -> Tensor:
        """Final hidden states (batch, length, hidden size), after the last norm.

        Args:
            ids_bl: token ids (batch, length).
            segments: packed documents of a single row; with them the batch is 1 and there is no cache.
            cache: earlier tokens of each sequence; the new ones are appended to it.
            slots: the cache's sequences that the batch stands for.
            parts: in place of `slots`, (slot, number of tokens) of the sequences that are packed in one row.
        """
        if cache is None:
            return self.model(ids_bl, Step(self.config, ids_bl, segments, None))
        batch, length = ids_bl.shape
        chosen = range(cache.num_slots)[slots]
        append = cache.append([(slot, length) for slot in chosen] if parts is None else parts)
        ids_1n = ids_bl.reshape(1, -1)
        hidden_1nd = self.model(ids_1n, Step(self.config, ids_1n, segments, append))
        append.finish()
        return hidden_1nd.reshape(batch, length, -1)

    def forward(
        self,
        ids_bl: Tensor,
        *,
        segments: Segments | None = None,
        cache: KVCache | None = None,
        slots: slice = slice(None),
    ) -> Tensor:
        """Logits (batch, length, vocabulary); arguments as for `hidden`."""
        return self.lm_head(self.hidden(ids_bl, segments=segments, cache=cache, slots=slots))

    @torch.no_grad()
    def initialise(self, seed: int, std: float = 0.02) -> None:
        """Random weights for training from nothing: normal(0, std), norms 1, biases 0."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.dim() == 1:
                parameter.fill_(1.0)
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
