"""A model whose tensors are read when something asks for them.

The fused step has weights of its own. Where it reads prompts of any length, torch's would lie beside them for
nothing, and a start would wait for them: they stay on disk until somebody wants losses.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

from midspan.model import Llama, ModelConfig


class Deferred:
    """A model's shape, and the model once it is wanted."""

    def __init__(
        self,
        config: ModelConfig,
        load: Callable[[], Llama],
        *,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        """
        Args:
            config: of the model.
            load: reads it, in `dtype` on `device`.
        """
        self.config, self.dtype, self.device = config, dtype, torch.device(device)
        self._load, self._lock = load, threading.Lock()
        self._model: Llama | None = None

    @staticmethod
    def of(model: Llama | Deferred) -> Deferred:
        """A model that is there, or one that may be."""
        if isinstance(model, Deferred):
            return model
        weight = model.model.norm.weight
        return Deferred(model.config, lambda: model, dtype=weight.dtype, device=weight.device)

    @property
    def is_here(self) -> bool:
        """Whether its tensors are in memory."""
        return self._model is not None

    @property
    def model(self) -> Llama:
        """The model, read now if it was not."""
        with self._lock:
            if self._model is None:
                self._model = self._load()
            return self._model

    def forget(self) -> None:
        """Give its memory back until it is wanted again."""
        with self._lock:
            self._model = None
