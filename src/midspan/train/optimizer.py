"""AdamW as the paper uses it, over float32 masters, and the learning rate of each step.

The paper (section 2.2): AdamW with betas 0.9 and 0.95, a cosine schedule after 1,000 steps of warm-up, ending at
1/30 of the peak. Weight decay and clipping are not stated there; Llama 2's 0.1 and 1.0 are the defaults.

A bfloat16 weight forgets updates smaller than 1/256 of itself, so every trained tensor that is not float32 has a
float32 master here: gradients go to the master, and the rounded result comes back. Where memory has no room for
masters (`precision = "bf16-states"`, 8 bytes a parameter in place of 16), weights and moments are bfloat16 and an
update is rounded up or down at random, with the chance that makes it right on average.

A parameter may be one of many ranks' parts (a DTensor). AdamW acts on each number alone, so all of it happens on
the local part; only the norm of the gradient is of all ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import xxhash
from torch import Tensor, nn
from torch.optim.adamw import adamw

from midspan.errors import InputError
from midspan.train.ranks import Ranks


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW and its schedule."""

    lr: float = 3e-4
    """Peak learning rate; 3e-4 is the paper's for 7B and 13B."""
    rows_lr_scale: float = 1.0
    """Multiplies the rate of the sentinels' rows where only these train of the vocabulary."""
    warmup_steps: int = 1000
    final_ratio: float = 1 / 30
    """Last learning rate over the peak."""
    betas: tuple[float, ...] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    """For matrices of a full run; norms, biases, adapters and sentinel rows have none."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    stochastic_rounding: bool = True
    """Of weights without float32 masters; off, they are rounded to the nearest and small updates are lost."""

    def __post_init__(self) -> None:
        positive = ("lr", "rows_lr_scale", "eps", "clip")
        for name in (*positive, "warmup_steps", "final_ratio", "weight_decay"):
            value = getattr(self, name)
            if value < 0 or (value == 0 and name in positive):
                raise InputError(
                    f"optimizer.{name} is {value}; it must be {'above' if name in positive else 'at least'} 0"
                )
        if self.final_ratio > 1:
            raise InputError(
                f"optimizer.final_ratio is {self.final_ratio}; the rate falls, so it must be at most 1"
            )
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(
                f"optimizer.betas is {list(self.betas)}; two numbers from 0 up to, not including, 1 are expected"
            )


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """The rate of step `step` (from 0) of `steps`: linear warm-up, then a cosine down to the final ratio."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(steps - 1 - config.warmup_steps, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return config.lr * (config.final_ratio + (1 - config.final_ratio) * cosine)


_EMBEDDING = "model.embed_tokens."


class Optimizer:
    """AdamW over the trainable parameters of a model, by name."""

    def __init__(
        self,
        model: nn.Module,
        config: OptimizerConfig,
        steps: int,
        *,
        masters: bool = True,
        ranks: Ranks | None = None,
        stages: int = 1,
        tied: bool = False,
        seed: int = 0,
    ) -> None:
        """
        Args:
            model: with parameters of their final place.
            steps: of the whole run, for the schedule.
            masters: whether parameters that are not float32 get one; without, all states have their type.
            ranks: the run's processes, over which the gradient's norm is taken.
            stages: of the pipeline, each with parameters of its own.
            tied: the head is the embedding: where stages part them, both are called so and kept alike.
            seed: of stochastic rounding.
        """
        self.config, self.steps, self._ranks, self._seed = config, steps, ranks, seed
        self.parameters = {
            name.replace("lm_head.", _EMBEDDING) if tied else name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        both = tied and stages > 1
        self.on_both_ends = [p for name, p in self.parameters.items() if both and name.startswith(_EMBEDDING)]
        self.masters: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            own = _local(parameter.detach())
            self.masters[name] = own.float() if masters else own
        self.moments = {
            name: (torch.zeros_like(master), torch.zeros_like(master)) for name, master in self.masters.items()
        }
        world = ranks.world // stages if ranks else 1
        copies = [
            _copies(p, world) * (2 if both and name.startswith(_EMBEDDING) else 1)
            for name, p in self.parameters.items()
        ]
        self._copies = torch.tensor(copies, dtype=torch.float32)
        self._groups: dict[tuple[float, float], list[str]] = {}
        for name, parameter in self.parameters.items():
            rows = name.endswith(".rows")
            decays = parameter.dim() > 1 and "lora_" not in name and not rows
            key = (config.rows_lr_scale if rows else 1.0, config.weight_decay if decays else 0.0)
            self._groups.setdefault(key, []).append(name)

    @torch.no_grad()
    def step(self, step: int) -> tuple[float, float]:
        """Update from the gradients that lie in the parameters, and clear them.

        Returns:
            The learning rate of this step, and the norm of the gradient before clipping.

        Raises:
            FloatingPointError: that norm is not finite; nothing was updated.
        """
        grads = {}
        for name, master in self.masters.items():
            grad = self.parameters[name].grad
            assert grad is not None, f"{name} has no gradient"
            grads[name] = _local(grad).to(master.dtype)
        norm = self._norm(list(grads.values()))
        if not math.isfinite(norm):
            raise FloatingPointError(f"the norm of the gradient is {float(norm)}")
        torch._foreach_mul_(list(grads.values()), (self.config.clip / (norm + 1e-6)).clamp(max=1.0))
        rate = learning_rate(self.config, step, self.steps)
        for (scale, decay), names in self._groups.items():
            if any(self.masters[name].dtype == torch.float32 for name in names):
                self._adamw(names, grads, step + 1, rate * scale, decay)
            else:
                self._rounded_adamw(names, grads, step + 1, rate * scale, decay)
        apart = [
            (own, master)
            for name, master in self.masters.items()
            if (own := _local(self.parameters[name].detach())).data_ptr() != master.data_ptr()
        ]
        if apart:
            torch._foreach_copy_([own for own, _ in apart], [master for _, master in apart])
        for parameter in self.parameters.values():
            parameter.grad = None
        return rate, float(norm)

    def _norm(self, grads: list[Tensor]) -> Tensor:
        """Of the whole gradient: each rank's squares, divided by how many ranks hold the same numbers, summed."""
        squares = torch.stack(torch._foreach_norm(grads, 2, dtype=torch.float32)).square()
        if self._ranks is None or self._ranks.world == 1:
            return squares.sum().sqrt()
        (total,) = self._ranks.sums(float((squares.cpu().double() / self._copies).sum()))
        return torch.tensor(total**0.5, dtype=torch.float32, device=squares.device)

    def _adamw(self, names: list[str], grads: dict[str, Tensor], step: int, rate: float, decay: float) -> None:
        moments = [self.moments[name] for name in names]
        own = [self.masters[name] for name in names]
        adamw(
            own,
            [grads[name] for name in names],
            [first for first, _ in moments],
            [second for _, second in moments],
            [],
            list(torch.full((len(names),), step - 1.0, device=own[0].device)),
            fused=True,
            lr=rate,
            beta1=self.config.betas[0],
            beta2=self.config.betas[1],
            weight_decay=decay,
            eps=self.config.eps,
            amsgrad=False,
            maximize=False,
        )

    def _rounded_adamw(
        self, names: list[str], grads: dict[str, Tensor], step: int, rate: float, decay: float
    ) -> None:
        """AdamW in float32, one tensor at a time, whose results are rounded to what is stored."""
        beta1, beta2 = self.config.betas
        for name in names:
            stored, (first, second) = self.masters[name], self.moments[name]
            grad = grads[name].float()
            new_first = first.float().lerp_(grad, 1 - beta1)
            new_second = second.float().mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
            first.copy_(new_first)
            second.copy_(new_second)
            spread = new_second.div_(1 - beta2**step).sqrt_().add_(self.config.eps)
            weight = stored.float().mul_(1 - rate * decay)
            weight.addcdiv_(new_first, spread, value=-rate / (1 - beta1**step))
            if self.config.stochastic_rounding:
                round_at_random(weight, self._generator(name, step, weight.device))
            stored.copy_(weight)

    def _generator(self, name: str, step: int, device: torch.device) -> torch.Generator:
        rank = self._ranks.rank if self._ranks else 0
        key = xxhash.xxh3_64_intdigest(f"{self._seed} {step} {rank} {name}".encode())
        return torch.Generator(device).manual_seed(key & (2**63 - 1))

    def state(self) -> dict[str, Tensor]:
        """Masters and moments by name, as a checkpoint stores them: whole tensors, or parts that say of what."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.parameters.items():
            tensors[f"master.{name}"] = _like(self.masters[name], parameter)
            for key, moment in zip(("exp_avg", "exp_avg_sq"), self.moments[name], strict=True):
                tensors[f"{key}.{name}"] = _like(moment, parameter)
        return tensors

    @torch.no_grad()
    def loaded(self) -> None:
        """Let the model's parameters follow their masters, once a checkpoint was read into what `state` gave."""
        for name, parameter in self.parameters.items():
            _local(parameter.detach()).copy_(self.masters[name])


def round_at_random(weight: Tensor, generator: torch.Generator) -> None:
    """Make float32 numbers bfloat16 ones in place: up with a chance of how near the upper neighbour is.

    A bfloat16 is the upper half of a float32, so random bits are added to the lower half, which is then cut off.
    """
    bits = weight.view(torch.int32)
    bits += torch.randint(0, 1 << 16, bits.shape, dtype=torch.int32, device=bits.device, generator=generator)
    bits &= -1 << 16


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _like(own: Tensor, parameter: Tensor) -> Tensor:
    """A part, described as the parameter's parts are."""
    if not hasattr(parameter, "to_local"):
        return own
    from torch.distributed.tensor import DTensor

    assert isinstance(parameter, DTensor)
    return DTensor.from_local(
        own, parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
    )


def _copies(parameter: Tensor, world: int) -> int:
    """How many of the ranks that share the parameter hold the same part."""
    mesh = getattr(parameter, "device_mesh", None)
    if mesh is None:
        return world
    placements = parameter.placements  # type: ignore[attr-defined]
    parts = [mesh.size(axis) for axis, place in enumerate(placements) if not place.is_replicate()]
    return world // math.prod(parts)
