"""Time of an optimizer step on GPUs: a roofline a product, what is not hidden of communication, and the bubble.

    a product      2 m n k / (share x peak)  +  bytes / bandwidth        small ones are slow by the second term
    attention      half the pairs are causal, backward two and a half times forward, at its own share of the peak
    the rest       bytes of norms, rotary, SwiGLU and residuals over the bandwidth
    tensor, context   gathers and scatters of activations, not hidden
    FSDP           gathers of weights and scatter of gradients, hidden behind the pass but for one layer's
    pipeline       (stages - 1) / passes more

Few numbers are fitted: each GPU's two shares of its peak, bytes that elementwise work moves compiled and eager,
float8's gain, and what doubling the number of GPUs costs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from midspan.model.flops import flops_per_token
from midspan.plan.hardware import NODE, Cluster, Gpu
from midspan.plan.stage import Layout, Stage, projections

MOVED = 3.4
"""Bytes that compiled elementwise kernels move, over the least (fitted)."""
EAGER = 2.5
"""Bytes that eager elementwise kernels move, over compiled ones (fitted: torchtitan and torchtune have both)."""
FLOAT8 = 1.5
"""Of a bfloat16 product's time over float8's, casts included (fitted: torchtitan's 8B)."""
DOUBLING = 0.006
"""Lost by each doubling of GPUs beyond a node: stragglers, in no roofline (torchtitan: 2.3 % from 8 to 128)."""
LAUNCH = 4e-6
"""Seconds to start a kernel, which decides where a layer is small; a layer has `KERNELS`, a pass thrice that."""
KERNELS = {True: 14, False: 34}
RECOMPUTED = {"none": 0.0, "selective": 0.5, "full": 1.0}
"""Share of a layer's forward products that the backward pass does again."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds of an optimizer step by part, the same on every GPU."""

    parts: dict[str, float] = field(default_factory=dict)
    tokens_per_step: int
    gpus: int
    model_flops: float
    """Operations of a step by the field's formula, and the peak of one GPU."""
    peak: float

    @property
    def step(self) -> float:
        """Seconds of a step."""
        return sum(self.parts.values())

    @property
    def tokens_per_second(self) -> float:
        """Over all GPUs."""
        return self.tokens_per_step / self.step

    @property
    def per_gpu(self) -> float:
        """Tokens a second and GPU."""
        return self.tokens_per_second / self.gpus

    @property
    def mfu(self) -> float:
        """Model operations over the peak's."""
        return self.model_flops / self.step / self.gpus / self.peak


def gpu_speed(
    stage: Stage,
    layout: Layout,
    cluster: Cluster,
    *,
    recomputed: float | None = None,
    reduced_bytes: int = 4,
) -> Speed:
    """Time of a step.

    Args:
        stage: what is trained.
        layout: how it is spread over the cluster's GPUs.
        cluster: the GPUs.
        recomputed: share of the forward products done again, where it is not the layout's (published runs).
        reduced_bytes: of a gradient that is summed over ranks: float32 is ours, some runs have bfloat16.
    """
    c, gpu = stage.model, cluster.gpu
    passes = stage.passes(layout)
    tokens = stage.rows_per_pass * stage.row_tokens / layout.context
    layers = c.num_layers / layout.pipeline
    again = RECOMPUTED[layout.activation_checkpointing] if recomputed is None else recomputed
    products, attention, rest = _layer(stage, layout, gpu, tokens, again)
    body = layers * (products + attention + rest)
    launches = layers * KERNELS[layout.compile] * 3 * LAUNCH
    head = (
        _head(stage, layout, gpu, tokens) / layout.pipeline
    )  # every stage waits for the last; its share of a turn
    compute = max(body, launches) + head

    parts = {
        "products": passes * layers * products,
        "attention": passes * layers * attention,
        "norms, rotary, SwiGLU": passes * layers * rest,
        "head and loss": passes * head,
        "kernel launches": passes * max(0.0, launches - body),
        "tensor parallel": passes * layers * _tensor(stage, layout, cluster, tokens, again),
        "context parallel": passes * layers * _context(stage, layout, cluster),
    }
    weights, one = _weights(stage, layout, cluster, reduced_bytes)
    parts["weights and gradients"] = passes * (max(0.0, weights - compute) + one)
    replicas = _replicas(stage, layout, cluster, reduced_bytes)
    parts["replicas"] = max(replicas / c.num_layers, replicas - compute / 2)
    if layout.pipeline > 1:
        parts["pipeline bubble"] = sum(parts.values()) * (layout.pipeline - 1) / max(passes, 1)
    parts["optimizer"] = _optimizer(stage, layout, gpu)
    doublings = max(0, (layout.gpus // NODE)).bit_length() - 1 if layout.gpus > NODE else 0
    parts["stragglers"] = sum(parts.values()) * DOUBLING * doublings
    return Speed(
        parts={name: seconds for name, seconds in parts.items() if seconds},
        tokens_per_step=stage.tokens_per_step,
        gpus=layout.gpus,
        model_flops=flops_per_token(c, stage.row_tokens) * stage.tokens_per_step,
        peak=gpu.flops,
    )


def _product(gpu: Gpu, m: float, n: float, k: float, float8: bool = False) -> float:
    faster = FLOAT8 if float8 and gpu.float8 else 1.0
    return 2 * m * n * k / (gpu.gemm_share * gpu.flops * faster) + 2 * (m * k + k * n + m * n) / gpu.bandwidth


def _layer(stage: Stage, layout: Layout, gpu: Gpu, tokens: float, again: float) -> tuple[float, float, float]:
    """Seconds of products, attention and the rest of one layer, forward and backward."""
    c, t = stage.model, layout.tensor
    d, f = c.hidden_size, c.intermediate_size
    q, kv = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    turns = (2.0 if stage.method == "lora" else 3.0) + again  # frozen matrices get no gradient
    products = 0.0
    for name, (inputs, outputs) in projections(c).items():
        n, k = (outputs, inputs / t) if name in ("o_proj", "down_proj") else (outputs / t, inputs)
        products += turns * _product(gpu, tokens, n, k, layout.float8)
        if stage.method == "lora" and name in stage.lora.targets:
            products += 3 * (_product(gpu, tokens, stage.lora.rank, k) + _product(gpu, tokens, n, stage.lora.rank))
    length = stage.segment_tokens or stage.row_tokens
    pairs = tokens * length / 2  # causal; with context parallelism each GPU has its share of every row's pairs
    forward = 4 * pairs * q / t
    attention = forward * (3.5 + (1.0 if again == 1 else 0.0)) / (gpu.attention_share * gpu.flops)
    moved = 2 * tokens * ((6 + 8) * d + (2 + 2) * (q + kv) / t + (3 + 6) * f / t)
    moved += 2 * tokens * (6 * d + 2 * (q + kv) / t + 3 * f / t) * again
    return products, attention, moved * MOVED * (1.0 if layout.compile else EAGER) / gpu.bandwidth


def _head(stage: Stage, layout: Layout, gpu: Gpu, tokens: float) -> float:
    c = stage.model
    columns = c.vocab_size / layout.tensor
    turns = 3 if stage.method == "full" else 2
    traffic = tokens * columns * (16 if layout.compile else 28)
    return turns * _product(gpu, tokens, columns, c.hidden_size) + traffic / gpu.bandwidth


def _tensor(stage: Stage, layout: Layout, cluster: Cluster, tokens: float, again: float) -> float:
    """Gathers before and scatters after attention and feed-forward: two of each forward, two of each backward."""
    if layout.tensor == 1:
        return 0.0
    share = 2 * tokens * stage.model.hidden_size * (layout.tensor - 1) / layout.tensor
    return share * (8 + 4 * (again > 0)) / cluster.rate(layout.tensor)


def _context(stage: Stage, layout: Layout, cluster: Cluster) -> float:
    """Keys and values of the whole row, gathered forward and backward, and their gradients scattered."""
    if layout.context == 1:
        return 0.0
    c = stage.model
    kv = 2 * 2 * stage.rows_per_pass * stage.row_tokens * c.num_kv_heads * c.head_dim / layout.tensor
    return 3 * kv * (layout.context - 1) / layout.context / cluster.rate(layout.context, layout.tensor)


def _weights(stage: Stage, layout: Layout, cluster: Cluster, reduced: int) -> tuple[float, float]:
    """Seconds of a pass's gathers and scatter, and of the part that nothing hides: one layer's."""
    ranks = layout.shard * layout.context
    if ranks == 1:
        return 0.0, 0.0
    c = stage.model
    here = c.num_parameters() / layout.tensor / layout.pipeline
    trained = stage.trained() / layout.tensor / layout.pipeline
    sent = (2 * 2 * here + reduced * trained) * (ranks - 1) / ranks
    seconds = sent / cluster.rate(ranks, layout.tensor)
    return seconds, seconds / c.num_layers * layout.pipeline


def _replicas(stage: Stage, layout: Layout, cluster: Cluster, reduced: int) -> float:
    """The sum of gradients over replicas, once a step, behind the last backward pass."""
    if layout.replicate == 1:
        return 0.0
    shards = layout.shard * layout.context * layout.tensor
    share = reduced * stage.trained() / shards / layout.pipeline
    return 2 * share * (layout.replicate - 1) / layout.replicate / cluster.rate(layout.replicate, shards)


def _optimizer(stage: Stage, layout: Layout, gpu: Gpu) -> float:
    """Read and write every state once, gradients twice, at the memory's bandwidth."""
    spread = layout.shard * layout.context * layout.tensor * layout.pipeline
    bytes_each = 14 if stage.states == "bf16" else 40
    return bytes_each * stage.trained() / spread / gpu.bandwidth
