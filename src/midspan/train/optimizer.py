"""AdamW as the paper uses it, over float32 masters, and the learning rate of each step.

The paper (section 2.2): AdamW with betas 0.9 and 0.95, a cosine schedule after 1,000 steps of warm-up, ending at
1/30 of the peak. Weight decay and clipping are not stated there; Llama 2's 0.1 and 1.0 are the defaults.

A bfloat16 weight forgets updates smaller than 1/256 of itself, so every trained tensor that is not float32 has a
float32 master here: gradients go to the master, and the rounded result comes back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from midspan.errors import InputError


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


class Optimizer:
    """AdamW over the trainable parameters of a model, by name."""

    def __init__(self, model: nn.Module, config: OptimizerConfig, steps: int) -> None:
        self.config, self.steps = config, steps
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.masters = {
            name: p if p.dtype == torch.float32 else nn.Parameter(p.detach().float())
            for name, p in self.parameters.items()
        }
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name, master in self.masters.items():
            rows = name.endswith(".rows")
            decays = master.dim() > 1 and "lora_" not in name and not rows
            key = (config.rows_lr_scale if rows else 1.0, config.weight_decay if decays else 0.0)
            groups.setdefault(key, []).append(master)
        self._adamw = torch.optim.AdamW(
            [{"params": p, "scale": scale, "weight_decay": decay} for (scale, decay), p in groups.items()],
            lr=config.lr,
            betas=(config.betas[0], config.betas[1]),
            eps=config.eps,
            fused=True,
        )

    def step(self, step: int) -> tuple[float, float]:
        """Update from the gradients that lie in the parameters, and clear them.

        Returns:
            The learning rate of this step, and the norm of the gradient before clipping.

        Raises:
            FloatingPointError: that norm is not finite; nothing was updated.
        """
        for name, master in self.masters.items():
            parameter = self.parameters[name]
            if parameter is not master:
                master.grad = None if parameter.grad is None else parameter.grad.float()
        norm = float(nn.utils.clip_grad_norm_(self.masters.values(), self.config.clip))
        if not math.isfinite(norm):
            raise FloatingPointError(f"the norm of the gradient is {norm}")
        rate = learning_rate(self.config, step, self.steps)
        for group in self._adamw.param_groups:
            group["lr"] = rate * group["scale"]
        self._adamw.step()
        with torch.no_grad():
            for name, master in self.masters.items():
                parameter = self.parameters[name]
                if parameter is not master:
                    parameter.copy_(master)
                parameter.grad = master.grad = None
        return rate, norm

    def state(self) -> dict[str, Tensor]:
        """Masters and moments by name, as a checkpoint stores them."""
        tensors = {f"master.{name}": master.detach() for name, master in self.masters.items()}
        for name, master in self.masters.items():
            for key, value in self._adamw.state.get(master, {}).items():
                tensors[f"{key}.{name}"] = value
        return tensors

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `state` gave; the model's parameters follow their masters."""
        for name, master in self.masters.items():
            master.copy_(tensors[f"master.{name}"])
            self.parameters[name].copy_(master)
            moments: Sequence[str] = ("step", "exp_avg", "exp_avg_sq")
            if f"step.{name}" in tensors:
                self._adamw.state[master] = {key: tensors[f"{key}.{name}"].clone() for key in moments}
