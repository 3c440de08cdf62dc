"""The fused block against the plain one: as close to float32, or in float32 the same; and always the same bits."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from midspan.model import Llama, ModelConfig, Segments, llama
from midspan.model import loss as loss_module
from midspan.model.attention import attend_documents, attend_documents_backward
from midspan.model.fused import is_fusible, kernels
from midspan.model.fused.maps import weight_gradient
from midspan.model.lora import LoraConfig, add_lora
from midspan.model.loss import cross_entropy_sum
from midspan.model.precision import has_bfloat16

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="there is no C++ compiler")
Grads = dict[str, Tensor]
BOUNDS = (0, 1, 7, 64, 140, 200)
SHAPES = {
    "grouped": {"num_heads": 9, "num_kv_heads": 3, "head_dim": 64},
    "biases": {"num_heads": 4, "num_kv_heads": 4, "head_dim": 32, "qkv_bias": True, "out_bias": True},
    "wide heads": {"num_heads": 2, "num_kv_heads": 1, "head_dim": 128, "tied": True},
    "odd heads": {"num_heads": 4, "num_kv_heads": 2, "head_dim": 24},
}


def relative(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach().float(), expected.detach().float()
    return float((found - expected).norm() / expected.norm())


def build(shape: str, dtype: torch.dtype, *, lora: bool) -> Llama:
    sizes = {
        "vocab_size": 300,
        "hidden_size": 192,
        "intermediate_size": 320,
        "num_layers": 2,
        "max_positions": 512,
    }
    config = ModelConfig(**{**sizes, **SHAPES[shape]})
    model = Llama(config)
    model.initialise(0, std=0.1)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
            parameter.copy_(parameter.bfloat16().float())
    model = model.to(dtype)
    if lora:
        targets = ("q_proj", "v_proj", "o_proj", "up_proj", "down_proj")  # not all: the others stay as they are
        add_lora(model, LoraConfig(rank=4, targets=targets), [5, 7], seed=0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def run(model: Llama, *, packed: bool) -> tuple[float, Tensor, Grads]:
    """Loss, hidden states and gradients of 200 tokens."""
    ids = torch.randint(300, (1, 200), generator=torch.Generator().manual_seed(3))
    hidden = model.hidden(ids, segments=Segments(BOUNDS)) if packed else model.hidden(ids.view(2, 100))
    hidden_nd = hidden.flatten(0, 1)
    loss = cross_entropy_sum(hidden_nd[:-1], model.lm_head, ids[0, 1:]) / 199
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return (
        loss.item(),
        hidden_nd.detach(),
        dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True)),
    )


def run_twice(model: Llama, *, packed: bool) -> tuple[float, Tensor, Grads]:
    """As `run`, and the same bits the second time."""
    loss, hidden, grads = run(model, packed=packed)
    again = run(model, packed=packed)
    assert again[0] == loss
    assert all(torch.equal(grads[name], again[2][name]) for name in grads)
    return loss, hidden, grads


def take_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama, "is_fusible", lambda *_: False)
    monkeypatch.setattr(kernels, "fits", lambda _: False)


@pytest.mark.skipif(
    not has_bfloat16(), reason="torch rounds elsewhere where the processor has no bfloat16 products"
)
@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients_are_as_close_to_float32_as_plain_bfloat16s(
    monkeypatch: pytest.MonkeyPatch, shape: str, packed: bool, lora: bool
) -> None:
    model = build(shape, torch.bfloat16, lora=lora)
    assert is_fusible(model.model.layers[0], torch.zeros(1, 2, 192).bfloat16())
    loss, hidden, grads = run_twice(model, packed=packed)
    take_the_plain_way(monkeypatch)
    exact = run(build(shape, torch.float32, lora=lora), packed=packed)
    plain = run(build(shape, torch.bfloat16, lora=lora), packed=packed)
    assert loss == pytest.approx(exact[0], abs=0.02)
    assert relative(hidden, exact[1]) < 1.1 * relative(plain[1], exact[1])
    for name, grad in grads.items():
        assert grad.shape == exact[2][name].shape
        assert relative(grad, exact[2][name]) < 1.25 * relative(plain[2][name], exact[2][name]) + 1e-3, name


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients_in_float32_are_plain_float32s(
    monkeypatch: pytest.MonkeyPatch, shape: str, packed: bool, lora: bool
) -> None:
    model = build(shape, torch.float32, lora=lora)
    assert is_fusible(model.model.layers[0], torch.zeros(1, 2, 192))
    loss, hidden, grads = run_twice(model, packed=packed)
    take_the_plain_way(monkeypatch)
    plain = run(model, packed=packed)
    assert loss == pytest.approx(plain[0], rel=1e-6)
    assert relative(hidden, plain[1]) < 2e-6
    for name, grad in grads.items():
        assert relative(grad, plain[2][name]) < 1e-5, name


@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(9, 3, 64), (2, 2, 128), (4, 1, 32)])
def test_the_attention_kernels_gradients_are_those_of_float32(heads: int, kv_heads: int, dim: int) -> None:
    bounds = (0, 1, 64, 65, 200, 333)
    qkv = (torch.randn(bounds[-1], (heads + 2 * kv_heads) * dim) * 1.5).bfloat16()
    q, k, v = qkv.unflatten(1, (-1, dim)).transpose(0, 1).split([heads, kv_heads, kv_heads])
    out, lse = attend_documents(q, k, v, bounds)
    upstream = torch.randn_like(out)
    groups = heads // kv_heads
    exact = [
        x.float().contiguous().requires_grad_() for x in (q, *(y.repeat_interleave(groups, 0) for y in (k, v)))
    ]
    parts = [
        F.scaled_dot_product_attention(*(x[None, :, a:b] for x in exact), is_causal=True)[0]
        for a, b in pairwise(bounds)
    ]
    expected_out = torch.cat(parts, dim=1).transpose(0, 1)
    assert relative(out, expected_out) < 3e-3
    expected = torch.autograd.grad(expected_out, exact, upstream.float())
    ways = [attend_documents_backward(q, k, v, out, upstream, lse, bounds)]
    compiled = kernels.attention_backward(q, k, v, out, upstream, lse, bounds)
    ways += [compiled] if compiled is not None else []  # a processor without products of pairs takes torch's
    for grads in ways:
        for grad, oracle in zip(grads, expected, strict=True):
            assert relative(grad, oracle.transpose(0, 1)) < 6e-3


@pytest.mark.parametrize("sizes", [(7, 3, 5), (130, 65, 70), (64, 200, 33)])
def test_the_gradient_of_a_matrix_is_a_plain_product(sizes: tuple[int, int, int]) -> None:
    rows, outputs, inputs = sizes
    grad, x = torch.randn(rows, outputs).bfloat16(), torch.randn(rows, inputs).bfloat16()
    torch.testing.assert_close(kernels.transposed(x), x.t().contiguous())
    assert relative(weight_gradient(grad, x), grad.float().t() @ x.float()) < 3e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_softmax_pass_survives_extremes(dtype: torch.dtype) -> None:
    logits = torch.randn(5, 1000).to(dtype)
    logits[0] = 300.0
    logits[1, 7] = 1e4
    logits[2] = -1e4
    targets = torch.tensor([3, 7, 1, 0, 999])
    expected = F.cross_entropy(logits.double(), targets, reduction="none").float()
    error = logits.float().softmax(dim=1) - F.one_hot(targets, 1000)
    losses = kernels.softmax_loss(logits, targets, want_error=True)
    torch.testing.assert_close(losses, expected, atol=1e-5, rtol=1e-5)
    assert relative(logits, error) < (3e-3 if dtype == torch.bfloat16 else 1e-6)
    logits[3, 5] = torch.nan
    logits[4, 5] = -torch.inf
    losses = kernels.softmax_loss(logits, targets, want_error=False)
    assert losses.isfinite().tolist() == [True, True, True, False, True]


def test_chunks_of_the_loss_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    head = nn.Linear(32, 90, bias=False, dtype=torch.bfloat16)
    hidden = torch.randn(50, 32).bfloat16().requires_grad_()
    targets = torch.randint(90, (50,))
    whole = torch.autograd.grad(cross_entropy_sum(hidden, head, targets), [hidden, head.weight])
    monkeypatch.setattr(loss_module, "CHUNK", 16)
    parts = torch.autograd.grad(cross_entropy_sum(hidden, head, targets), [hidden, head.weight])
    for a, b in zip(parts, whole, strict=True):
        assert relative(a, b) < 3e-3


def test_what_is_not_plain_and_of_one_type_on_a_cpu_takes_the_plain_way() -> None:
    block = build("grouped", torch.bfloat16, lora=False).model.layers[0]
    x = torch.zeros(1, 2, 192).bfloat16()
    assert is_fusible(block, x)
    assert not is_fusible(block, x.float())
    assert not is_fusible(block, x.to("meta"))
    hook = block.mlp.down_proj.register_forward_hook(lambda *_: None)
    assert not is_fusible(block, x)  # somebody wants to see what goes through a projection
    hook.remove()
    assert is_fusible(block, x)
    block.mlp.down_proj.weight.data = block.mlp.down_proj.weight.data.float()
    assert not is_fusible(block, x)
