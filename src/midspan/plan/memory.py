"""Memory of one GPU by part, and the moment of a step at which they add up to the most.

    start of a pass's backward   states + every layer's activations + the loss
    end of the last backward     states + all gradients + one layer's activations
    the optimizer's step         states + all gradients (+ their float32 copies)

Gradients exist at the first moment only where a step has several passes. Bytes of activations count the tensors
that autograd keeps of a layer; d hidden, q and k query and key sizes, f feed-forward size, two bytes each:

    eager       residual x2, norm x2, q, k, v, attention's result, gate, silu, up, product    4d + 2q + 2k + 4f
    compiled    the same without the silu, which is made again                                4d + 2q + 2k + 3f
    selective   the layer's input, attention's result, every second product
    full        the layer's input; one layer at a time is made again

torchtune's ladder on an A100 and torchtitan's on H100s agree within 9 % (docs/results/plan.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from midspan.model.loss import CHUNK
from midspan.plan.hardware import GIB
from midspan.plan.stage import Layout, Stage, layer_parameters, projections

FRAMEWORK = 1.1 * GIB
"""CUDA context, cuBLAS and NCCL buffers of a process; measured by others as 0.8 to 1.5 GiB."""
LOSS_BYTES = {"fused": 0.0, "chunked": 5.75, "whole": 14.0}
"""Bytes a logit: never whole (ours, 12 for those of a chunk), bfloat16 logits and their gradient with chunks in
float32 (torchtune's chunked loss), or everything in float32 once more (a plain cross-entropy)."""
NF4 = 0.5 + 2 / 64
"""Bytes of a four-bit number with its share of a scale."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one GPU at the fullest moment of a step."""

    parts: dict[str, float] = field(default_factory=dict)
    moment: str = ""

    @property
    def total(self) -> float:
        """All parts together."""
        return sum(self.parts.values())


def state_bytes(stage: Stage) -> dict[str, tuple[float, float]]:
    """Bytes a (trained, frozen) parameter that stay over a whole step, but for gradients."""
    kinds: dict[str, dict[str, tuple[float, float]]] = {
        "masters": {"weights": (2, 2), "float32 masters": (4, 0), "optimizer states": (8, 0)},
        "sharded": {"weights": (4, 2), "optimizer states": (8, 0)},
        "float32": {"weights": (4, 4), "optimizer states": (8, 0)},
        "bf16": {"weights": (2, 2), "optimizer states": (4, 0)},
    }
    return kinds[stage.states]


def gradient_bytes(stage: Stage) -> tuple[float, float]:
    """Bytes a trained parameter of gradients: those that stay, and copies at the optimizer's step."""
    if stage.method == "lora":  # adapters are float32 themselves
        return 4, 0
    return {"masters": (2, 4), "sharded": (4, 0), "float32": (4, 0), "bf16": (2, 0)}[stage.states]


def kept_bytes(stage: Stage, layout: Layout) -> float:
    """Bytes of activations that one layer keeps of one token for the backward pass, over all tensor ranks."""
    c = stage.model
    d, f = c.hidden_size, c.intermediate_size
    q, kv = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    if layout.activation_checkpointing == "full":
        return 2 * d
    if layout.activation_checkpointing == "selective":
        products = q + 2 * kv + d + 2 * f + d
        return 2 * (d + q + products / 2)
    adapters = 0
    if stage.method == "lora":
        adapters = stage.lora.rank * len(stage.lora.targets)
    return 2 * (4 * d + 2 * q + 2 * kv + (3 if layout.compile else 4) * f + adapters)


def gpu_memory(stage: Stage, layout: Layout, *, loss: str = "fused") -> Memory:
    """Memory of the fullest GPU.

    Args:
        stage: what is trained.
        layout: how it is spread.
        loss: how logits are held, a key of `LOSS_BYTES`; anything but `fused` describes other software.
    """
    if layout.gpus > 1 and stage.states == "masters":
        stage = replace(stage, states="sharded")  # FSDP keeps the masters and makes the bfloat16 weights of them
    c = stage.model
    tokens = stage.rows_per_pass * stage.row_tokens / layout.context  # of a pass, on this GPU
    embedding = c.vocab_size * c.hidden_size
    ends = embedding if c.tied or layout.pipeline > 1 else 2 * embedding  # the first stage has no head
    layers = -(-c.num_layers // layout.pipeline)
    body = layers * layer_parameters(c)
    spread = layout.shard * layout.context * layout.tensor  # FSDP shards over the context's ranks as well
    here = (body + ends) / spread
    trained = stage.trained() / (c.num_layers * layer_parameters(c)) * body / spread
    if stage.method == "full":
        trained = here
    frozen = here - trained if stage.method != "lora" else here

    states = {
        name: of_trained * trained + of_frozen * frozen
        for name, (of_trained, of_frozen) in state_bytes(stage).items()
    }
    if stage.method == "lora":  # adapters are masters themselves
        adapted = body / spread if stage.lora.quantise == "nf4" else 0.0
        weights = 2 * (frozen - adapted) + NF4 * adapted + 4 * trained
        states = {"weights": weights, "optimizer states": 8 * trained}
    kept_grad, copied_grad = (each * trained for each in gradient_bytes(stage))

    gathered = 0.0
    if layout.shard * layout.context > 1:
        unit = max(2 * layer_parameters(c), ends)  # this layer and the next, or embedding and head
        gathered = 2.0 * unit / layout.tensor
        if stage.method != "lora":  # gradients of the unit before they are scattered, float32
            gathered += 4.0 * max(layer_parameters(c), embedding) / layout.tensor

    one_layer = kept_bytes(stage, Layout(compile=layout.compile)) * tokens / layout.tensor
    kept = kept_bytes(stage, layout) * tokens / layout.tensor * layers
    if layout.pipeline > 1:
        # 1F1B: the first stage holds as many passes as there are stages.
        kept *= min(stage.passes(layout), layout.pipeline)
    working = 0.0 if layout.activation_checkpointing == "none" else one_layer
    if layout.context > 1:  # keys and values of the whole row
        kv = 2 * c.num_kv_heads * c.head_dim / layout.tensor
        working += 2 * 2 * kv * stage.rows_per_pass * stage.row_tokens
    logits = tokens * c.vocab_size / layout.tensor
    if loss == "fused":
        losses = 12 * min(logits, CHUNK * c.vocab_size / layout.tensor) + 4.0 * tokens * c.hidden_size
        losses += 4.0 * embedding / layout.tensor if stage.method == "full" else 0.0
    else:
        losses = LOSS_BYTES[loss] * logits

    passes = stage.passes(layout)
    first = {"activations": kept, "working memory": working, "logits and loss": losses}
    moments = {
        "backward begins": {"gradients": kept_grad if passes > 1 else 0.0, **first},
        "backward ends": {"gradients": kept_grad, "working memory": one_layer},
        "the optimizer's step": {"gradients": kept_grad + copied_grad},
    }
    moment, parts = max(moments.items(), key=lambda item: sum(item[1].values()))
    parts = {**states, **parts, "gathered weights": gathered, "framework": FRAMEWORK}
    return Memory(parts={name: value for name, value in parts.items() if value}, moment=moment)


def parameters_of(stage: Stage) -> dict[str, float]:
    """Sizes for a report: all parameters, trained ones, those of one layer."""
    return {
        "parameters": stage.model.num_parameters(),
        "trained": stage.trained(),
        "layer": sum(i * o for i, o in projections(stage.model).values()),
    }
