"""Answers that must agree, whatever the device: each check gives an error and the most that it may be."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.gpu.shapes import SHAPES
from midspan.model import Llama, Segments
from midspan.model.attention import attend
from midspan.model.lora import LoraConfig, add_lora
from midspan.model.loss import cross_entropy_sum
from midspan.rows import Row
from midspan.rows.segments import SEGMENT
from midspan.train.objective import Objective, Pass, join
from midspan.train.parallel import ParallelConfig, lighten


@dataclass(frozen=True)
class Check:
    """A relative error (Frobenius norms) and its limit."""

    name: str
    error: float
    limit: float

    @property
    def passed(self) -> bool:
        """Finite and within the limit."""
        return math.isfinite(self.error) and self.error <= self.limit


def relative(found: Tensor, expected: Tensor) -> float:
    """The error's norm over the expected one's."""
    found, expected = found.detach().float(), expected.detach().float()
    return float((found - expected).norm() / expected.norm())


def attention(device: torch.device, length: int) -> Iterator[Check]:
    """Packed documents in bfloat16 against a dense mask in float32: outputs and gradients."""
    bounds = (0, 1, length // 7, length // 2, length - 3, length)
    document_l = torch.bucketize(
        torch.arange(length, device=device), torch.tensor(bounds[1:], device=device), right=True
    )
    mask_ll = (document_l[:, None] == document_l[None]).tril()
    for heads, kv_heads, dim in ((9, 3, 64), (8, 8, 128)):
        generator = torch.Generator().manual_seed(heads)
        shapes = ((1, n, length, dim) for n in (heads, kv_heads, kv_heads, heads))
        q, k, v, upstream = (torch.randn(s, generator=generator).to(device, torch.bfloat16) for s in shapes)
        ours = [x.clone().requires_grad_() for x in (q, k, v)]
        exact = [x.float().requires_grad_() for x in (q, k, v)]
        wide = [exact[0], *(x.repeat_interleave(heads // kv_heads, dim=1) for x in exact[1:])]
        out = attend(*ours, segments=Segments(bounds))
        expected = F.scaled_dot_product_attention(*wide, attn_mask=mask_ll)
        label = f"attention {heads}/{kv_heads} heads of {dim}"
        yield Check(f"{label}, output", relative(out, expected), 0.01)
        grads = torch.autograd.grad(out, ours, upstream)
        for name, a, b in zip("qkv", grads, torch.autograd.grad(expected, exact, upstream.float()), strict=True):
            yield Check(f"{label}, gradient of {name}", relative(a, b), 0.02)


def model(device: torch.device, shape: str, length: int) -> Iterator[Check]:
    """A packed row in bfloat16, as near to float32 as its documents one by one: logits, loss and gradients."""
    config = SHAPES[shape]
    exact = Llama(config)
    exact.initialise(0, std=0.05)
    close = Llama(config).to(device, torch.bfloat16)
    close.load_state_dict(exact.state_dict())
    exact = exact.to(device)
    with torch.no_grad():
        for a, b in zip(exact.parameters(), close.parameters(), strict=True):
            a.copy_(b)  # the same numbers in both
    ids_bl = torch.randint(config.vocab_size, (1, length), generator=torch.Generator().manual_seed(1)).to(device)
    bounds = (0, length // 5, length // 5 + 1, length // 2, length)
    at = torch.arange(length - 1, device=device)

    def found(network: Llama, *, packed: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The last logits, the loss and its gradient, of the row whole or of its documents one by one."""
        if packed:
            hidden = network.hidden(ids_bl, segments=Segments(bounds))
        else:
            hidden = torch.cat([network.hidden(ids_bl[:, a:b]) for a, b in itertools.pairwise(bounds)], dim=1)
        loss = cross_entropy_sum(hidden[0, at], network.lm_head, ids_bl[0, at + 1])
        grads = torch.autograd.grad(loss / length, list(network.parameters()))
        logits = network.lm_head(hidden[0, -64:].detach()).detach()
        return logits, loss.detach(), torch.cat([grad.float().flatten() for grad in grads])

    expected, alone, packed = found(exact, packed=False), found(close, packed=False), found(close, packed=True)
    for name, values in zip(
        ("logits", "loss", "gradients of everything"), zip(expected, alone, packed, strict=True), strict=True
    ):
        truth, of_one, of_all = values
        limit = 1.5 * relative(of_one, truth) + 0.001  # packing may not add to what bfloat16 loses anyway
        yield Check(f"{shape}: {name}", relative(of_all, truth), limit)


def replay(device: torch.device, shape: str, length: int) -> Iterator[Check]:
    """A recorded pass, compiled and not, against the same pass as it is: loss and gradients, twice."""
    if device.type != "cuda":
        return
    from midspan.train.replay import Replay

    model = Llama(SHAPES[shape])
    model.initialise(0, std=0.05)
    model = model.to(device, torch.bfloat16)
    add_lora(model, LoraConfig(rank=16), [3, 7, 11], seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                parameter.normal_(std=0.02)
    model.to(device)
    objective = Objective(model)
    trained = [p for p in model.parameters() if p.requires_grad]

    def found(passes: list[Pass]) -> list[tuple[Tensor, Tensor]]:
        """Loss and gradients of each pass as it is."""
        results = []
        for one in passes:
            total = objective(one.to(device))
            grads = torch.autograd.grad(total / len(one.at_n), trained)
            results.append((total.detach(), torch.cat([grad.flatten() for grad in grads])))
        return results

    passes = [join(_rows(SHAPES[shape].vocab_size, length, ends)) for ends in ((3, 300), (17, 18, 120, 250, 290))]
    expected = found(passes)
    for compiled in (False, True):
        lighten(model, ParallelConfig(compile=compiled, replay=True), train="lora")
        recorded = Replay(objective, device, length=2 * length, most=length)
        for number, (one, (loss, gradient)) in enumerate(zip(passes, expected, strict=True)):
            recorded.begin()
            total = recorded.backward(one, len(one.at_n))
            label = f"{shape}, {'compiled and ' if compiled else ''}replayed, pass {number}"
            yield Check(f"{label}: loss", relative(total, loss), 1e-3 if compiled else 1e-6)
            flat = torch.cat([p.grad.flatten() for p in trained])
            # Products of other shapes round differently: bfloat16 alone is off by a tenth here, as `model` shows.
            yield Check(f"{label}: gradients", relative(flat, gradient), 0.2 if compiled else 0.05)


def _rows(vocab: int, length: int, ends: tuple[int, ...]) -> list[Row]:
    """Two rows of drawn tokens: one of several documents, one of a single one, neither of them full."""
    rng = np.random.default_rng(len(ends))
    rows = []
    for bounds in ((*ends, length - 5), (length - 40,)):
        segments = np.zeros(len(bounds), SEGMENT)
        segments["end"] = bounds
        rows.append(Row(rng.integers(0, vocab, bounds[-1]), segments))
    return rows


def loss(device: torch.device, vocab: int, count: int) -> Iterator[Check]:
    """The chunked loss against the plain one, float32 and bfloat16."""
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn((count, 256), generator=generator).to(device)
    weight = (torch.randn((vocab, 256), generator=generator) * 0.05).to(device)
    targets = torch.randint(vocab, (count,), generator=generator).to(device)
    targets[::7] = -1  # left out
    for dtype, limit in ((torch.float32, 1e-4), (torch.bfloat16, 0.02)):
        head = nn.Linear(256, vocab, bias=False, device=device, dtype=dtype)
        head.weight.data.copy_(weight)
        x = hidden.to(dtype).requires_grad_()
        found = cross_entropy_sum(x, head, targets)
        exact_x, exact_w = x.detach().float().requires_grad_(), head.weight.detach().float().requires_grad_()
        expected = F.cross_entropy(exact_x @ exact_w.t(), targets, reduction="sum", ignore_index=-1)
        yield Check(f"loss {dtype}", abs(float((found - expected).detach())) / float(expected), limit)
        grads = torch.autograd.grad(found, [x, head.weight])
        for name, a, b in zip(
            ("hidden", "head"), grads, torch.autograd.grad(expected, [exact_x, exact_w]), strict=True
        ):
            yield Check(f"loss {dtype}, gradient of {name}", relative(a, b), limit)


def learning(device: torch.device, shape: str, steps: int, length: int) -> Iterator[Check]:
    """A few real steps from nothing on Python's own source, a byte a token: the loss must fall."""
    import sysconfig
    from pathlib import Path

    folder = Path(sysconfig.get_path("stdlib"))
    rows = [torch.tensor(list(path.read_bytes()[:length])) for path in sorted(folder.glob("*.py"))[: steps * 2]]
    network = Llama(SHAPES[shape])
    network.initialise(0)
    network = network.to(device, torch.bfloat16)
    adamw = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.0)
    losses = []
    for first, second in zip(rows[::2], rows[1::2], strict=False):
        ids = torch.cat([first, second]).to(device)
        hidden = network.hidden(ids[None], segments=Segments((0, len(first), len(ids))))[0]
        mean = cross_entropy_sum(hidden[:-1], network.lm_head, ids[1:]) / (len(ids) - 1)
        mean.backward()
        adamw.step()
        adamw.zero_grad()
        losses.append(float(mean))
    yield Check(f"{shape}: last loss of {len(losses)} real steps over the first", losses[-1] / losses[0], 0.8)
