"""What a trained token costs, by the field's formula, so that figures compare with those of others.

    6 N + 12 L d s      N  parameters that a token is multiplied with: every matrix but the embedding, and the head
                        L  layers, d  heads times head dimensions, s  tokens of the document that attends to itself

Six is two for the forward pass, two for the gradients of what went in and two for those of the matrix. Attention
is counted whole, though it is causal and half of it is never computed: PaLM, torchtitan and others report it so.
"""

from __future__ import annotations

from midspan.model.config import ModelConfig


def matmul_parameters(config: ModelConfig) -> int:
    """Parameters that every token is multiplied with; a tied embedding counts, for it is the head."""
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    layer = config.hidden_size * (2 * q + 2 * kv) + 3 * config.hidden_size * config.intermediate_size
    return config.num_layers * layer + config.hidden_size * config.vocab_size


def flops_per_token(config: ModelConfig, length: float, *, frozen: int = 0) -> float:
    """Floating-point operations of training on one token, forward and backward, without recomputation.

    Args:
        config: the model's shape.
        length: tokens of a document. Where documents of several lengths share rows, the mean of the lengths that
            tokens see: the sum of the squares over the sum.
        frozen: those of `matmul_parameters` that get no gradients, which spares a third of their work.
    """
    attention = 12 * config.num_layers * config.num_heads * config.head_dim * length
    return 6 * matmul_parameters(config) - 2 * frozen + attention
