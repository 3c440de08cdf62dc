"""How a run is spread over processes, and how that is put around a model that knows nothing of it.

    ranks = pipeline x replicate x shard x context x tensor        the last are neighbours, on the fastest links

    pipeline    layers in stages, passes follow each other through them (1F1B)
    replicate   whole copies, which share the step's rows (with shard: HSDP)
    shard       parameters, gradients and moments in parts; these ranks share the step's rows too (FSDP2)
    context     the tokens of a row in parts, keys and values gathered
    tensor      heads, feed-forward and vocabulary in parts; with `sequence` also what lies between them

What is applied to a model, in this order, since each takes the result of the one before:

    1 stage         other stages' layers leave
    2 float8        linear maps are exchanged before anything refers to them
    3 tensor        parameters become parts on the tensor axis
    4 checkpoint    a layer's forward is run again in the backward pass (around 3: its messages are repeated)
    5 compile       a layer's forward, with what 3 and 4 made of it
    6 shard         the parts are parted again, gathered layer by layer as they are used

None of it changes what is learned: losses are sums divided once by the step's targets, gradients are summed, and
every layout reads the same rows in a step. So a run goes on under another layout, and on another number of ranks.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from midspan.errors import InputError
from midspan.model import ModelConfig, Segments

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from midspan.train.objective import Objective

CHECKPOINTING = ("none", "selective", "full")


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """Ranks along each axis, and what each layer does for memory and speed."""

    replicate: int = 1
    shard: int = -1
    """-1 takes the ranks that the others leave."""
    context: int = 1
    tensor: int = 1
    sequence: bool = False
    """Between the parts of a layer, each rank of `tensor` holds its share of the tokens: less memory."""
    pipeline: int = 1
    """Stages. A step has (rows of a rank) / train.rows_per_pass passes, at least as many as stages."""
    activation_checkpointing: str = "none"
    """What of a layer's forward is run again in the backward pass: `none`, `selective` (all but attention and
    every second matrix product) or `full`."""
    compile: bool = False
    """Compile each layer."""
    replay: bool = False
    """On one GPU, record a pass with its gradients as a CUDA graph and replay it: for models so small that asking
    for their kernels takes longer than running them. Elsewhere a pass is as without it."""
    float8: bool = False
    """Matrix products of the layers in float8, with a scale a tensor: for 7B and more, on H100 and later."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is int and value < 1 and (field.name, value) != ("shard", -1):
                least = "at least 1, or -1 for the ranks that are left" if field.name == "shard" else "at least 1"
                raise InputError(f"parallel.{field.name} is {value}; it must be {least}")
        if self.activation_checkpointing not in CHECKPOINTING:
            raise InputError(
                f"parallel.activation_checkpointing is {self.activation_checkpointing!r}; "
                f"the choices are {', '.join(CHECKPOINTING)}"
            )
        if self.sequence and self.tensor == 1:
            raise InputError(
                "parallel.sequence is on with parallel.tensor = 1; it shares tokens among the ranks of tensor: "
                "give that 2 or more, or leave sequence out"
            )


@dataclass(frozen=True)
class Layout:
    """The number of ranks along each axis, and where this rank stands."""

    pipeline: int = 1
    replicate: int = 1
    shard: int = 1
    context: int = 1
    tensor: int = 1
    rank: int = 0
    sequence: bool = False

    @staticmethod
    def of(config: ParallelConfig, world: int, rank: int = 0) -> Layout:
        """The layout of `world` ranks.

        Raises:
            InputError: the axes do not multiply to the number of ranks.
        """
        sizes = {name: getattr(config, name) for name in ("pipeline", "replicate", "shard", "context", "tensor")}
        others = math.prod(size for size in sizes.values() if size > 0)
        product = " x ".join(f"{name} {size}" for name, size in sizes.items() if size > 1) or "1"
        if sizes["shard"] == -1:
            if world % others:
                raise InputError(
                    f"parallel has {product} = {others}, which does not divide the {world} ranks of this run; "
                    f"start a multiple of {others} ranks, or change the table"
                )
            sizes["shard"] = world // others
        elif others != world:
            raise InputError(
                f"parallel has {product} = {others}, and this run has {world} ranks; start {others} "
                f"(torchrun --nproc-per-node {others}), or let parallel.shard be -1"
            )
        return Layout(**sizes, rank=rank, sequence=config.sequence)

    @property
    def readers(self) -> int:
        """Ranks that read rows of their own."""
        return self.replicate * self.shard

    @property
    def reader(self) -> int:
        """Which of them this rank is."""
        return self.rank // (self.context * self.tensor) % self.readers

    @property
    def stage(self) -> int:
        """The pipeline's stage that this rank holds."""
        return self.rank // (self.readers * self.context * self.tensor)

    @property
    def token_multiple(self) -> int:
        """Tokens of a pass must be a multiple of this."""
        return (2 * self.context if self.context > 1 else 1) * (self.tensor if self.sequence else 1)

    def check(self, model: ModelConfig, *, method: str, rows_per_step: int, rows_per_pass: int) -> None:
        """Make sure that a model and a step can be shared like this.

        Raises:
            InputError: they cannot, with the numbers and the remedy.
        """
        shared = {
            "attention heads": model.num_heads,
            "key/value heads": model.num_kv_heads,
            "feed-forward rows": model.intermediate_size,
        }
        for what, number in shared.items():
            if number % self.tensor:
                raise InputError(
                    f"parallel.tensor is {self.tensor}, and the model's {number} {what} cannot be shared by so "
                    f"many; give a divisor of {number}"
                )
        if self.tensor > 1 and method != "full":
            raise InputError(
                f"parallel.tensor is {self.tensor} with train.method {method!r}; only whole matrices are shared "
                "by heads: use parallel.shard, or train.method full"
            )
        if self.pipeline > model.num_layers:
            raise InputError(
                f"parallel.pipeline is {self.pipeline}, and the model has {model.num_layers} layers; "
                f"give at most {model.num_layers}"
            )
        if rows_per_step % self.readers:
            raise InputError(
                f"{self.readers} ranks (replicate x shard) cannot share the {rows_per_step} rows of a step; "
                f"give train.rows_per_step a multiple of {self.readers}"
            )
        own = rows_per_step // self.readers
        if self.pipeline > 1 and (own % rows_per_pass or own // rows_per_pass < self.pipeline):
            raise InputError(
                f"a rank has {own} rows of a step and passes of {rows_per_pass}; {self.pipeline} stages need "
                f"{self.pipeline} equal passes or more: change train.rows_per_pass or train.rows_per_step"
            )


@dataclass(frozen=True)
class Meshes:
    """The process groups of a layout."""

    layout: Layout
    whole: DeviceMesh
    """Axes pipeline, replicate, parts (shard x context) and tensor."""
    context: DeviceMesh
    """This rank's neighbours along context."""

    @staticmethod
    def of(layout: Layout, device: torch.device) -> Meshes:
        """Make them; every rank of the run must."""
        from torch.distributed.device_mesh import init_device_mesh

        parts = layout.shard * layout.context
        shape = layout.pipeline, layout.replicate, parts, layout.tensor
        names = "pipeline", "replicate", "parts", "tensor"
        whole = init_device_mesh(device.type, shape, mesh_dim_names=names)
        # The same ranks once more: parts is shard x context.
        again = layout.pipeline * layout.readers, layout.context, layout.tensor
        second = init_device_mesh(device.type, again, mesh_dim_names=("reader", "context", "tensor"))
        return Meshes(layout, whole, second["context"])


def parallelize(
    objective: Objective, meshes: Meshes, config: ParallelConfig, *, compute: torch.dtype | None, train: str
) -> None:
    """Put a layout around a model, which may be on the meta device, in the order that this file opens with.

    Args:
        objective: the model and its loss, all layers in place. Changed in place.
        compute: what parameters are cast to as they are gathered; None leaves them as they are.
        train: train.method.
    """
    layout = meshes.layout
    if layout.pipeline > 1:
        from midspan.train.pipeline import keep_stage

        keep_stage(objective.llama, layout.stage, layout.pipeline)
    lighten(objective.llama, config, train=train, between=partial(_share_tensors, objective, meshes))
    _shard(objective, meshes, compute)


def lighten(
    model: nn.Module, config: ParallelConfig, *, train: str, between: Callable[[], None] = lambda: None
) -> None:
    """What layers do for memory and speed on one rank as on many; `between` comes before they are wrapped."""
    if config.float8:
        _float8(model, train)
    between()
    for layer in model.get_submodule("model.layers").children():
        if config.activation_checkpointing != "none":
            _checkpoint(layer, selective=config.activation_checkpointing == "selective")
        if config.compile:
            layer.compile(dynamic=None if config.replay else True)
    if config.compile:
        _leave_attention_out()


def _leave_attention_out() -> None:
    """Compile around attention, whose documents begin and end elsewhere in each pass: all would be made anew.

    Not those of a graph that is replayed: they are in tensors.
    """
    from midspan.train.replay import FixedSegments

    kinds: list[type[Segments]] = [Segments, *Segments.__subclasses__()]
    for kind in kinds:
        if kind is FixedSegments:
            continue
        if not hasattr(kind.attend, "_torchdynamo_disable"):
            kind.attend = torch.compiler.disable(kind.attend)  # type: ignore


def _share_tensors(objective: Objective, meshes: Meshes) -> None:
    if meshes.layout.tensor > 1:
        from midspan.train.tensor_parallel import VocabularyLoss, share_tensors

        mesh = meshes.whole["tensor"]
        share_tensors(objective.llama, mesh, sequence=meshes.layout.sequence)
        objective.loss = VocabularyLoss(mesh.get_group())


def _shard(objective: Objective, meshes: Meshes, compute: torch.dtype | None) -> None:
    """FSDP2 around each layer and around the whole, whose own share is embedding, head and last norm.

    Gradients are summed and not averaged: the loss is divided once, by the targets of all ranks. Gloo has no
    multiplied sum, so it is a plain one that is scaled by 1 afterwards.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    layout = meshes.layout
    mesh = meshes.whole["replicate", "parts"] if layout.replicate > 1 else meshes.whole["parts"]
    policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32)
    for layer in objective.llama.model.layers:
        if any(True for _ in layer.parameters()):
            fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(objective, mesh=mesh, mp_policy=policy)
    for module in objective.modules():
        if hasattr(module, "set_gradient_divide_factor"):
            module.set_gradient_divide_factor(1.0)  # type: ignore[operator]
            module.set_force_sum_reduction_for_comms(True)  # type: ignore[operator]


def _checkpoint(layer: nn.Module, *, selective: bool) -> None:
    """Run a layer's forward again when its backward needs it; messages and random draws have none."""
    from torch.utils.checkpoint import checkpoint

    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if selective:
        options["context_fn"] = _selective_contexts
    layer.forward = partial(checkpoint, layer.forward, **options)


def _selective_contexts() -> Any:
    from torch.utils.checkpoint import create_selective_checkpoint_contexts

    return create_selective_checkpoint_contexts(_saving_policy())  # type: ignore[no-untyped-call]


def _saving_policy() -> Callable[..., Any]:
    """Save what is dear and small: attention, and every second matrix product."""
    from torch.utils.checkpoint import CheckpointPolicy

    seen = {"forward": 0, "again": 0}

    def policy(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        name = op.name()
        save = "attention" in name and "backward" not in name
        if name in ("aten::mm", "aten::addmm", "aten::linear", "aten::matmul"):
            key = "again" if context.is_recompute else "forward"
            seen[key] += 1
            save = seen[key] % 2 == 0
        return CheckpointPolicy.MUST_SAVE if save else CheckpointPolicy.PREFER_RECOMPUTE

    return policy


def _float8(model: nn.Module, train: str) -> None:
    """Exchange the layers' linear maps for torchao's, which multiply in float8."""
    if train == "lora":
        raise InputError("parallel.float8 is on with train.method 'lora', whose matrices are frozen; leave it out")
    if importlib.util.find_spec("torchao") is None:
        raise InputError("parallel.float8 needs torchao; install midspan[float8], or leave it out")
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9):
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU"
        raise InputError(f"parallel.float8 needs a GPU that multiplies in float8 (H100 or later), not {name}")
    use_float8(model)


def use_float8(model: nn.Module, *, emulate: bool = False) -> None:
    """Exchange linear maps, one scale a tensor; `emulate` does the same arithmetic where there is no such unit."""
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    config = Float8LinearConfig(emulate=emulate)
    convert_to_float8_training(model, module_filter_fn=lambda _, name: "layers." in name, config=config)
