"""What a plan is made for: processors, how they are joined, and what they cost.

    64xA100-80GB   →   8 nodes of 8, NVLink inside, one network card a GPU between them
    cpu            →   this machine, measured on the spot (`cpu.py`)

Figures are the makers' for dense arithmetic. Two numbers of each kind are not: the shares of the peak that large
products and attention reach in training. Those of A100 and H100 are fitted to published runs (see `anchors.py` and
docs/results/plan.md); those of the others are carried over, and a plan for them says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from midspan.errors import InputError

GIB = 2**30
NODE = 8
"""GPUs of a node that share fast links."""
LINK_SHARE = 0.75
"""Of a link's rate that collectives reach: NCCL's bus bandwidth on large messages, over the wire's rate."""
HEADROOM = 0.92
"""Of a GPU's memory that a plan fills: the rest is what the allocator loses to fragments."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One kind of GPU, as it stands in a node of eight."""

    name: str
    flops: float
    """Dense bfloat16 peak, operations a second; `float8` likewise, 0 where there is none."""
    float8: float
    memory: float
    """Bytes that a process can have."""
    bandwidth: float
    """Of the memory, bytes a second."""
    link: float
    """To the node's other GPUs, bytes a second and direction."""
    network: float
    """Between nodes, bytes a second and GPU."""
    watts: float
    """Thermal design power, the most that is drawn over time."""
    gemm_share: float
    """Of the peak that large products reach, and `attention_share` fused causal attention."""
    attention_share: float
    source: str
    fitted: bool = True
    """The shares come from published runs on this very kind."""


_A100 = Gpu(
    name="A100-80GB",
    flops=312e12,
    float8=0.0,
    memory=79.1 * GIB,
    bandwidth=2.04e12,
    link=300e9,
    network=25e9,
    watts=400,
    gemm_share=0.80,
    attention_share=0.58,
    source="NVIDIA A100 SXM data sheet; network as in DGX A100 and Meta's RSC: 200 Gb/s a GPU",
)
_H100 = Gpu(
    name="H100",
    flops=989e12,
    float8=1979e12,
    memory=79.1 * GIB,
    bandwidth=3.35e12,
    link=450e9,
    network=50e9,
    watts=700,
    gemm_share=0.636,
    attention_share=0.334,
    source="NVIDIA H100 SXM data sheet; network as in DGX H100: 400 Gb/s a GPU",
)
GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        _A100,
        replace(
            _A100,
            name="A100-40GB",
            memory=39.4 * GIB,
            bandwidth=1.555e12,
            source="NVIDIA A100 SXM 40 GB data sheet; network as in DGX A100: 200 Gb/s a GPU",
        ),
        _H100,
        replace(
            _H100,
            name="H200",
            memory=139.8 * GIB,
            bandwidth=4.8e12,
            source="NVIDIA H200 SXM data sheet; network as in DGX H200: 400 Gb/s a GPU",
        ),
        Gpu(
            name="B200",
            flops=2250e12,
            float8=4500e12,
            memory=178.0 * GIB,
            bandwidth=8.0e12,
            link=900e9,
            network=50e9,
            watts=1000,
            gemm_share=_H100.gemm_share,
            attention_share=_H100.attention_share,
            source="NVIDIA B200 SXM data sheet; network as in DGX B200: 400 Gb/s a GPU; shares are the H100's",
            fitted=False,
        ),
        Gpu(
            name="MI300X",
            flops=1307e12,
            float8=2615e12,
            memory=191.5 * GIB,
            bandwidth=5.3e12,
            link=448e9,
            network=50e9,
            watts=750,
            gemm_share=0.45,
            attention_share=0.25,
            source="AMD MI300X data sheet; network 400 Gb/s a GPU; shares are estimates",
            fitted=False,
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Some GPUs of one kind."""

    gpu: Gpu
    count: int

    def __str__(self) -> str:
        return f"{self.count} x {self.gpu.name}"

    def rate(self, ranks: int, stride: int = 1) -> float:
        """Bytes a second and GPU that a collective over `ranks` GPUs reaches, `stride` apart in their numbering.

        A ring over whole nodes enters each node once, through all of its network cards together; GPUs of a stride
        share them with the rings beside theirs.
        """
        if ranks * stride <= NODE:
            return self.gpu.link * LINK_SHARE
        here = max(NODE // stride, 1)  # ranks of one ring in a node
        return min(self.gpu.link, self.gpu.network * here) * LINK_SHARE


def parse_gpus(text: str) -> Cluster:
    """Read `64xA100-80GB` or `H100`.

    Raises:
        InputError: not of that form, or a kind that is not known.
    """
    found = re.fullmatch(r"(?:(\d+)\s*[x×*]\s*)?([A-Za-z][\w-]*)", text.strip())
    if found is None:
        raise InputError(f"--gpus {text} is not of the form 64xA100-80GB; give a number, an x and a kind, or cpu")
    wanted = found[2].lower()
    names = {name.lower(): name for name in GPUS} | {"a100": "A100-80GB", "h100-80gb": "H100"}
    if wanted not in names:
        raise InputError(f"--gpus {text} names no GPU that is known; the kinds are {', '.join(GPUS)}, and cpu")
    count = int(found[1] or 1)
    if count < 1:
        raise InputError(f"--gpus {text} asks for {count} GPUs; at least 1 is needed")
    return Cluster(gpu=GPUS[names[wanted]], count=count)
