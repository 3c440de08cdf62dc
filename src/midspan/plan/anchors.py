"""Published runs, against which the planner is fitted and tested: speed and memory that others measured.

Each names where it stands, and `stated` what its source leaves open; a run whose setting is not known well enough
is not here. What the software of a run does differently from ours is said to the planner: a loss over whole
logits, gradients reduced in bfloat16.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from midspan.model import PRESETS, ModelConfig
from midspan.model.lora import LoraConfig
from midspan.plan.hardware import GIB, GPUS, Cluster, Gpu
from midspan.plan.memory import gpu_memory
from midspan.plan.speed import gpu_speed
from midspan.plan.stage import Layout, Stage


def _llama3(hidden: int, inner: int, layers: int, heads: int, tied: bool = False) -> ModelConfig:
    return ModelConfig(
        vocab_size=128_256,
        hidden_size=hidden,
        intermediate_size=inner,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=8,
        head_dim=hidden // heads,
        max_positions=131_072,
        tied=tied,
    )


SHAPES = {
    **PRESETS,
    "llama3-8b": _llama3(4096, 14_336, 32, 32),
    "llama3-70b": _llama3(8192, 28_672, 80, 64),
    "llama3.2-3b": _llama3(3072, 8192, 28, 24, tied=True),
}
_IBM_A100 = replace(GPUS["A100-80GB"], network=6.25e9)
_IBM_H100 = replace(GPUS["H100"], network=12.5e9)
_TITAN_H100 = replace(
    GPUS["H100"], bandwidth=2.4e12, memory=95 * GIB, watts=500, gemm_share=0.576, attention_share=0.303
)
_IBM = "foundation-model-stack/fms-fsdp README.md at 5a296af"
_TITAN_A100 = "pytorch/torchtitan docs/performance.md at 0413364"
_TITAN = "pytorch/torchtitan benchmarks/llama3_h100_202412_torchtitan.md"
_TUNE = "pytorch/torchtune README.md at bd2a0fc"


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """One published run."""

    name: str
    source: str
    stated: str
    cluster: Cluster
    stage: Stage
    layout: Layout
    recomputed: float | None = None
    """Share of layers' forward products done again, where it is not the layout's: from HFU over MFU."""
    reduced_bytes: int = 4
    """Of a gradient on its way between GPUs."""
    loss: str = "fused"
    target: bool = True
    """The planner means to agree with this run; else `stated` says why it cannot."""
    tokens_per_second: float | None = None
    """A GPU."""
    memory_gib: float | None = None

    def speed(self) -> float:
        """Tokens a second and GPU, as planned."""
        return gpu_speed(
            self.stage, self.layout, self.cluster, recomputed=self.recomputed, reduced_bytes=self.reduced_bytes
        ).per_gpu

    def memory(self) -> float:
        """GiB, as planned."""
        return gpu_memory(self.stage, self.layout, loss=self.loss).total / GIB


def _stage(shape: str, tokens: int, rows: int, data: int, **more: object) -> Stage:
    return Stage(
        name=shape,
        model=SHAPES[shape],
        row_tokens=tokens,
        rows_per_step=rows * data,
        rows_per_pass=rows,
        steps=1,
        **more,  # type: ignore[arg-type]
    )


def _ibm() -> list[Anchor]:
    found = []
    measured = {"7b": (4550, 9600), "13b": (2150, 4850), "34b": (820, 1830), "70b": (410, 890)}
    recomputed = {"7b": 0.0, "13b": 0.39, "34b": 1.0, "70b": 1.0}
    for shape, speeds in measured.items():
        for gpu, count, speed in zip((_IBM_A100, _IBM_H100), (128, 96), speeds, strict=True):
            hybrid = shape == "7b"
            layout = Layout(
                replicate=count // 8 if hybrid else 1,
                shard=8 if hybrid else count,
                activation_checkpointing="none" if recomputed[shape] < 1 else "full",
            )
            found.append(
                Anchor(
                    name=f"IBM {shape.upper()} {count} x {gpu.name.partition('-')[0]}",
                    source=_IBM,
                    stated="all but the share of layers checkpointed, which HFU over MFU gives",
                    cluster=Cluster(gpu=gpu, count=count),
                    stage=_stage(shape, 4096, 2, count, states="float32"),
                    layout=layout,
                    recomputed=recomputed[shape],
                    reduced_bytes=2,
                    tokens_per_second=speed,
                )
            )
    return found


def _titan_a100() -> list[Anchor]:
    rows = (
        ("13b", 4096, 2, "none", None, 2162),
        ("13b", 4096, 2, "none", 0.5, 1914),
        ("13b", 4096, 2, "selective", None, 1904),
        ("70b", 4096, 1, "selective", None, 355),
        ("70b", 4096, 2, "full", None, 353),
        ("llama3-8b", 8192, 1, "selective", None, 2973),
        ("llama3-70b", 8192, 1, "full", None, 331),
    )
    return [
        Anchor(
            name=f"torchtitan {shape} {'every second layer' if again else checkpointing}, 64 x A100",
            source=_TITAN_A100,
            stated="all but compilation, taken as eager",
            cluster=Cluster(gpu=GPUS["A100-80GB"], count=64),
            stage=_stage(shape, tokens, per_pass, 64, states="float32"),
            layout=Layout(shard=64, activation_checkpointing=checkpointing, compile=False),
            recomputed=again,
            tokens_per_second=speed,
        )
        for shape, tokens, per_pass, checkpointing, again, speed in rows
    ]


def _titan_h100() -> list[Anchor]:
    found = []
    for count, rows in (
        (8, ((5762, 82.4), (6667, 77.0), (8532, 76.8))),
        (128, ((5605, 67.0), (6514, 62.0), (8380, 61.8))),
    ):
        for (speed, memory), (compiled, float8) in zip(
            rows, ((False, False), (True, False), (True, True)), strict=True
        ):
            words = " compile" * compiled + " float8" * float8
            found.append(
                Anchor(
                    name=f"torchtitan Llama 3.1 8B{words or ' eager'}, {count} x H100",
                    source=_TITAN,
                    stated="all; cards of 2.4 TB/s held at 500 W",
                    cluster=Cluster(gpu=_TITAN_H100, count=count),
                    stage=_stage("llama3-8b", 8192, 2, count, states="float32"),
                    layout=Layout(
                        shard=count, activation_checkpointing="selective", compile=compiled, float8=float8
                    ),
                    loss="whole",
                    tokens_per_second=speed,
                    memory_gib=memory,
                )
            )
    for tokens, context, speed, memory in (
        (32768, 1, 3890, 83.9),
        (65536, 2, 2540, 84.2),
        (131072, 4, 1071, 84.0),
        (262144, 8, 548, 84.5),
    ):
        found.append(
            Anchor(
                name=f"torchtitan Llama 3.1 8B float8 {tokens // 1024}k context {context}, 8 x H100",
                source=_TITAN,
                stated="all; cards of 2.4 TB/s held at 500 W; its context parallelism is a ring"
                + (
                    ", unbalanced: the last rank has near twice the mean of the causal work" if context > 2 else ""
                ),
                target=context <= 2,
                cluster=Cluster(gpu=_TITAN_H100, count=8),
                stage=_stage("llama3-8b", tokens, 1, 8 // context, states="float32"),
                layout=Layout(shard=8 // context, context=context, activation_checkpointing="full", float8=True),
                loss="whole",
                tokens_per_second=speed,
                memory_gib=memory,
            )
        )
    return found


def _torchtune() -> list[Anchor]:
    gpu: Gpu = GPUS["A100-80GB"]
    rows = (
        ("packed", "whole", False, "none", 7075, 60.0),
        ("compile", "whole", True, "none", 8998, 51.0),
        ("chunked loss", "chunked", True, "none", 9174, 42.9),
        ("activation checkpointing", "chunked", True, "full", 7210, 24.9),
    )
    return [
        Anchor(
            name=f"torchtune Llama 3.2 3B {name}, A100",
            source=_TUNE,
            stated="all; memory is what is active, without the framework's",
            cluster=Cluster(gpu=gpu, count=1),
            stage=_stage("llama3.2-3b", 4096, 2, 1, states="bf16"),
            layout=Layout(activation_checkpointing=checkpointing, compile=compiled),
            loss=loss,
            tokens_per_second=speed,
            memory_gib=memory,
        )
        for name, loss, compiled, checkpointing, speed, memory in rows
    ] + [
        Anchor(
            name="torchtune Llama 3.2 3B LoRA, A100",
            source=_TUNE,
            stated="rank and targets are not in the table: 8 on q and v are taken; checkpointed",
            cluster=Cluster(gpu=gpu, count=1),
            stage=_stage(
                "llama3.2-3b",
                4096,
                2,
                1,
                method="lora",
                lora=LoraConfig(rank=8, targets=("q_proj", "v_proj")),
                states="bf16",
            ),
            layout=Layout(activation_checkpointing="full"),
            loss="chunked",
            tokens_per_second=8210,
        )
    ]


ANCHORS: tuple[Anchor, ...] = (*_ibm(), *_titan_a100(), *_titan_h100(), *_torchtune())
