"""The chunked loss against the plain one: values, and gradients of everything that may train."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from midspan.model import loss as module
from midspan.model.lora import RowsHead, TrainedRows
from midspan.model.loss import CHUNK, cross_entropy_sum, token_losses
from midspan.plan.cpu import peak_bytes

HIDDEN, VOCABULARY = 12, 50


@pytest.mark.parametrize("count", [1, 7, 8, 9, 40])
@pytest.mark.parametrize("kind", ["trained", "frozen", "rows"])
def test_value_and_gradients_are_those_of_the_plain_loss(
    monkeypatch: pytest.MonkeyPatch, count: int, kind: str
) -> None:
    monkeypatch.setattr(module, "CHUNK", 16)  # in float32, 8 positions
    monkeypatch.setattr(module, "_STEP", 4)
    monkeypatch.setattr(module, "_BLOCK", 3)
    hidden = torch.randn(count, HIDDEN, requires_grad=True)
    head: nn.Module = nn.Linear(HIDDEN, VOCABULARY, bias=False)
    head.requires_grad_(kind == "trained")
    if kind == "rows":
        table = TrainedRows(head.weight, [3, 49, 17])
        table.rows.data += torch.randn(3, HIDDEN)
        head = RowsHead(table)
    targets = torch.randint(VOCABULARY, (count,))
    targets[0] = 17
    trained = [hidden, *(p for p in head.parameters() if p.requires_grad)]
    plain = F.cross_entropy(head(hidden), targets, reduction="sum")
    expected = torch.autograd.grad(3 * plain, trained)
    ours = cross_entropy_sum(hidden, head, targets)
    found = torch.autograd.grad(3 * ours, trained)
    torch.testing.assert_close(ours, plain)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(token_losses(hidden, head, targets).sum(), plain)


def test_a_frozen_model_and_no_targets_are_no_special_cases() -> None:
    head = nn.Linear(HIDDEN, VOCABULARY, bias=False)
    hidden = torch.randn(4, HIDDEN, requires_grad=True)
    none = cross_entropy_sum(hidden[:0], head, torch.empty(0, dtype=torch.long))
    none.backward()
    assert none.item() == 0
    assert torch.equal(hidden.grad, torch.zeros_like(hidden))
    with torch.no_grad():
        assert cross_entropy_sum(hidden, head, torch.arange(4)) > 0


def test_logits_are_never_whole() -> None:
    """Of 4,096 positions at most a chunk of logits is held at once, with the pieces that its loss is made of."""
    head = nn.Linear(HIDDEN, 2000, bias=False)
    hidden = torch.randn(4096, HIDDEN, requires_grad=True)
    targets = torch.randint(2000, (4096,))
    held, _ = peak_bytes(lambda: cross_entropy_sum(hidden, head, targets).backward())
    assert held < 1.25 * (CHUNK // 2) * 2000 * 4


def test_bfloat16_stays_close_to_float32() -> None:
    head = nn.Linear(HIDDEN, VOCABULARY, bias=False)
    hidden = torch.randn(99, HIDDEN, requires_grad=True)
    targets = torch.randint(VOCABULARY, (99,))
    exact = torch.autograd.grad(cross_entropy_sum(hidden, head, targets), [hidden, head.weight])
    head16 = nn.Linear(HIDDEN, VOCABULARY, bias=False, dtype=torch.bfloat16)
    head16.weight.data = head.weight.data.bfloat16()
    hidden16 = hidden.detach().bfloat16().requires_grad_()
    close = torch.autograd.grad(cross_entropy_sum(hidden16, head16, targets), [hidden16, head16.weight])
    for a, b in zip(close, exact, strict=True):
        assert (a.float() - b).norm() < 0.01 * b.norm()
