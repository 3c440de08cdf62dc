"""A pass and its gradients as one CUDA graph: recorded once, then replayed with other numbers in the same places.

    rows of a pass ── one copy ──> ids, positions, ends, targets ── graph ──> loss, gradients, added up

A GPU runs the kernels of a small model faster than a processor can ask for them: a pass of 135 million weights
asks for some thousands, and takes as long for 4,096 tokens as for many times as many. A graph asks once. For that,
nothing may change but content: every pass has the same number of tokens and of places for documents, filled with
tokens that train nothing and documents of no tokens. More documents than there are places for make a new, larger
graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from midspan.model import Segments
from midspan.model.attention import attend_packed, attend_varlen, varlen_kernel
from midspan.train.objective import Objective, Pass

_PLACES = 64
"""Places for documents are a multiple of this."""
_WARM_UP = 3
"""Passes before the recording: compilers and libraries choose their kernels in them."""


@dataclass(frozen=True)
class FixedSegments(Segments):
    """Documents of a pass as tensors of unchanging shape."""

    positions_1l: Tensor
    ends_d: Tensor
    """0 and the end of each document, int32; places that are left stand at the end of the pass."""
    most: int
    """The most tokens that a document may have."""
    kernel: tuple[Callable[..., Tensor], frozenset[str]] | None = None
    """Of packed documents, where there is one; looked for outside of what is compiled."""

    @property
    def positions(self) -> Tensor:
        """Positions (1, length), starting from 0 in every document."""
        return self.positions_1l

    def attend(self, q_bhld: Tensor, k_bkld: Tensor, v_bkld: Tensor) -> Tensor:
        """Causal attention of every document over itself; shapes as for the function `attend`."""
        if self.kernel is not None:
            return attend_varlen(*self.kernel, q_bhld, k_bkld, v_bkld, self.ends_d, self.most)
        bounds = tuple(sorted({0, *self.ends_d.tolist()}))
        return attend_packed(q_bhld, k_bkld, v_bkld, Segments(bounds))


class FixedPass:
    """The places of a pass on a device, to be filled again and again."""

    def __init__(self, length: int, documents: int, most: int, device: torch.device) -> None:
        """
        Args:
            length: tokens of a pass.
            documents: the most that it may have.
            most: the most tokens of one of them.
            device: where.
        """
        self._length, self._documents, self._most = length, documents, most
        self._numbers = torch.zeros((4 * length + documents + 1,), dtype=torch.int64, device=device)

    def parts(self) -> Pass:
        """The pass, as it is filled at the time: views of the places, and copies of another type."""
        ids, positions, at, targets, ends = torch.split(self._numbers, [*[self._length] * 4, self._documents + 1])
        kernel = varlen_kernel() if ids.is_cuda else None
        segments = FixedSegments((), positions[None], ends.int(), self._most, kernel)
        return Pass(ids[None], segments, at, targets)

    def holds(self, one: Pass) -> bool:
        """Whether there are places enough for a pass."""
        return len(self.bounds(one)) <= self._documents + 1

    def bounds(self, one: Pass) -> list[int]:
        """Where a pass's documents begin and end, with documents of filling to the full length."""
        bounds = list(one.segments.bounds)
        while bounds[-1] < self._length:
            bounds.append(min(bounds[-1] + self._most, self._length))
        return bounds

    def fill(self, one: Pass) -> None:
        """Put a pass in place; it has no more tokens and documents than there are places for."""
        ids, positions, at, targets, ends = np.split(
            host := np.zeros(len(self._numbers), np.int64), self._length * np.arange(1, 5)
        )
        bounds, tokens, trained = self.bounds(one), one.ids_bl.shape[1], len(one.at_n)
        ids[:tokens] = one.ids_bl[0].numpy()
        positions[:] = np.arange(self._length) - np.repeat(bounds[:-1], np.diff(bounds))
        at[:trained], targets[:trained], targets[trained:] = one.at_n.numpy(), one.targets_n.numpy(), -1
        ends[: len(bounds)], ends[len(bounds) :] = bounds, self._length
        self._numbers.copy_(torch.from_numpy(host))


class Replay:
    """Passes of a model as one graph, on one GPU."""

    def __init__(self, objective: Objective, device: torch.device, *, length: int, most: int) -> None:
        """
        Args:
            objective: the model and its loss, in place on the device.
            device: a GPU.
            length: the most tokens of a pass.
            most: the most tokens of a document.
        """
        self._objective, self._device, self._length, self._most = objective, device, length, most
        self._trained = [p for p in objective.parameters() if p.requires_grad]
        self._grads = [torch.zeros_like(parameter) for parameter in self._trained]
        self._share = torch.zeros((), device=device)
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._places: FixedPass | None = None

    def begin(self) -> None:
        """Begin a step: gradients are 0, and are where the graph adds to them."""
        torch._foreach_zero_(self._grads)
        for parameter, grad in zip(self._trained, self._grads, strict=True):
            parameter.grad = grad

    def backward(self, one: Pass, targets: int) -> Tensor:
        """Add a pass's gradients of the loss over a number of targets.

        Returns:
            The pass's summed loss.
        """
        if self._places is None or not self._places.holds(one):
            self._record(one, targets)
        assert self._places is not None
        self._places.fill(one)
        self._share.fill_(1 / targets)
        self._graph.replay()
        return self._loss.clone()

    def _record(self, one: Pass, targets: int) -> None:
        """Record the graph, with room for half as many documents again; gradients stay as they are."""
        count = len(one.segments.bounds) * 3 // 2 + self._length // self._most
        documents = -(-count // _PLACES) * _PLACES
        self._places = FixedPass(self._length, documents, self._most, self._device)
        self._places.fill(one)
        self._share.fill_(1 / targets)
        kept = [grad.clone() for grad in self._grads]
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP):
                self._pass()
        torch.cuda.current_stream(self._device).wait_stream(self._stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=self._stream):
            self._loss = self._pass()
        torch._foreach_copy_(self._grads, kept)

    def _pass(self) -> Tensor:
        assert self._places is not None
        loss = self._objective(self._places.parts())
        torch.autograd.backward(loss * self._share)
        return loss.detach()
